/*
 * address.h -- where a new store is to live: a slot of addresses that ASLR, sanitizers and other stores leave alone.
 */
#ifndef STEAD_PERSIST_ADDRESS_H
#define STEAD_PERSIST_ADDRESS_H

#include <stdbool.h>
#include <stdint.h>

#define ADDRESS_DEFAULT_CAPACITY (UINT64_C(64) << 30)

/*
 * address_choose -- *base receives wanted, if it is not NULL, or a slot for capacity_bytes (whole units) that is free in
 * this process; the search begins where the store's id says.
 * EINVAL: wanted cannot be mapped on this machine at all.  ENOMEM: there is no free slot of that size.
 */
int address_choose(const uint8_t id[16], void *wanted, uint64_t capacity_bytes, uint64_t *base);

/* Does a capacity fit where the store lives: inside its slot, or, for an address somebody named, inside the address
 * space?  (Whether it is free shows when it is mapped.) */
bool address_fits(uint64_t base, uint64_t capacity_bytes);

/* May [base, base + bytes) with its guards be mapped under the tool this process runs under (ThreadSanitizer kills a
 * process that maps elsewhere)?  0, or STEAD_ADDRESS_TAKEN with a sentence that names what. */
int address_permitted(const char *what, uint64_t base, uint64_t bytes);

#endif
