/*
 * registry.h -- from a pointer to its store, without a lock: every stead_free() asks.  See registry.c.
 */
#ifndef STEAD_STORE_REGISTRY_H
#define STEAD_STORE_REGISTRY_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct stead;

struct registry_range {
    _Atomic uintptr_t base;
    _Atomic uint64_t bytes; /* 0 = empty */
    struct stead *_Atomic store;
};

extern struct registry_range registry_first; /* of the table: the only one in most processes */

struct stead *registry_find_further(const void *p);

static inline struct stead *registry_find(const void *p)
{
    uint64_t bytes = atomic_load_explicit(&registry_first.bytes, memory_order_acquire);
    uintptr_t base = atomic_load_explicit(&registry_first.base, memory_order_acquire);
    struct stead *s = atomic_load_explicit(&registry_first.store, memory_order_acquire);
    if (__builtin_expect((uintptr_t)p - base < bytes, 1) &&
        __builtin_expect(atomic_load_explicit(&registry_first.base, memory_order_relaxed) == base &&
                             atomic_load_explicit(&registry_first.bytes, memory_order_relaxed) == bytes,
                         1))
        return s;
    return registry_find_further(p);
}

#endif
