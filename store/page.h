/*
 * page.h -- the first 4096 bytes of the image: root and names, as offsets from the base.  Part of every commit like
 * any other page.  Layout frozen with the format (docs/format.md).
 */
#ifndef STEAD_STORE_PAGE_H
#define STEAD_STORE_PAGE_H

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "alloc/heap.h"
#include "store/store.h"

#define PAGE_MAGIC UINT64_C(0x31656761506f7453) /* "StoPage1" */

struct store_page {
    uint64_t magic;
    _Atomic uint64_t root;         /* image offset of the root object, 0 = none */
    _Atomic uint64_t name_buckets; /* image offset of the names' hash table, 0 = no name was ever bound */
    _Atomic uint64_t name_count;
    uint8_t reserved[HEAP_RESERVED_BYTES - 32]; /* zero */
};
static_assert(sizeof(struct store_page) == HEAP_RESERVED_BYTES, "format v1");
static_assert(offsetof(struct store_page, root) == 8, "format v1");
static_assert(offsetof(struct store_page, name_buckets) == 16, "format v1");

static inline struct store_page *page_of(const struct stead *s)
{
    return (struct store_page *)(void *)s->base;
}

#endif
