/*
 * registry.h -- from a pointer to its store, without a lock: every stead_free() asks.  See registry.c.
 */
#ifndef STEAD_STORE_REGISTRY_H
#define STEAD_STORE_REGISTRY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct stead;

/* `where` is one word, so that whoever reads it has a base and a length that belong together: base / 64 KiB in the upper
 * half, length / 64 KiB in the lower; 0 = empty.  Addresses have 48 bits, capacities 46. */
struct registry_range {
    _Atomic uint64_t where;
    struct stead *_Atomic store; /* written before `where`, cleared after it */
};

extern struct registry_range registry_first; /* of the table: the only one in most processes */

struct stead *registry_find_further(const void *p);

static inline bool registry_covers(uint64_t where, const void *p)
{
    return (uint64_t)((uintptr_t)p >> 16) - (where >> 32) < (uint32_t)where;
}

/* The store of the table's first range if p lies in it; NULL: perhaps another's. */
static inline struct stead *registry_find_first(const void *p)
{
    uint64_t where = atomic_load_explicit(&registry_first.where, memory_order_acquire);
    return __builtin_expect(registry_covers(where, p), 1)
               ? atomic_load_explicit(&registry_first.store, memory_order_relaxed)
               : NULL;
}

static inline struct stead *registry_find(const void *p)
{
    struct stead *s = registry_find_first(p);
    return __builtin_expect(s != NULL, 1) ? s : registry_find_further(p);
}

#endif
