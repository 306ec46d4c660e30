/*
 * mutate.h -- damage to the files of a store, blind or with every checksum made right again afterwards.
 *
 * Blind damage tries what checksums catch.  Damage that is sealed again is what a malicious file looks like: superblocks,
 * log and page checksums all agree, and the numbers inside are whatever was drawn; only the range checks behind the
 * checksums stand between it and the reader.
 */
#ifndef STEAD_TESTS_FUZZ_MUTATE_H
#define STEAD_TESTS_FUZZ_MUTATE_H

#include <stdbool.h>
#include <stdint.h>

/* A linear congruential generator: the same draws from the same seed on every machine. */
uint64_t draw(uint64_t *random);
uint64_t draw_below(uint64_t *random, uint64_t end); /* 0 .. end - 1; end > 0 */

/* A few damages to the store and its log (may be absent), then, if asked, all checksums made right.  `what` (of `bytes`)
 * says in words what was done.  False: a file could not be read or written. */
bool mutate(uint64_t *random, const char *store, const char *log, bool seal, char *what, unsigned bytes);

#endif
