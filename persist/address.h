/*
 * address.h -- where a new store is to live: a slot of addresses that ASLR, sanitizers and other stores leave alone.
 */
#ifndef STEAD_PERSIST_ADDRESS_H
#define STEAD_PERSIST_ADDRESS_H

#include <stdint.h>

#define ADDRESS_DEFAULT_CAPACITY (UINT64_C(64) << 30)

/*
 * address_choose -- a free slot for capacity_bytes (whole units) in this process, beginning the search where the
 * store's id says.  *slot_bytes: how far capacity may ever be raised.  ENOMEM if there is no free slot of that size.
 */
int address_choose(const uint8_t id[16], uint64_t capacity_bytes, uint64_t *base, uint64_t *slot_bytes);

/* May [base, base + bytes) with its guards be mapped under the tool this process runs under (ThreadSanitizer kills a
 * process that maps elsewhere)?  0, or STEAD_ADDRESS_TAKEN with a sentence that names what. */
int address_permitted(const char *what, uint64_t base, uint64_t bytes);

#endif
