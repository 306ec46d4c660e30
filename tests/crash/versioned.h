/*
 * versioned.h -- a data structure whose every version is known in advance, so that any mix of two shows.
 *
 * VERSIONED_SLOTS blocks hang off the root.  A step to version v frees and allocates anew the slots that v's number says,
 * in sizes and with contents that follow from (slot, v); a store therefore holds version v if and only if each slot holds
 * what its last change up to v put there.
 */
#ifndef STEAD_CRASH_VERSIONED_H
#define STEAD_CRASH_VERSIONED_H

#include <stdint.h>

#include <stead.h>

enum { VERSIONED_SLOTS = 24 };

/* The root at version 0, not committed. */
int versioned_make(stead *store);
/* From version v - 1 to v, not committed.  On an error the image is in between: roll back. */
int versioned_step(stead *store, uint64_t v);
/* For struct crash_case: 0 and the version (0: no root), or EUCLEAN. */
int versioned_check(stead *store, uint64_t *version, void *arg);
uint64_t versioned_now(stead *store);

#endif
