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

#define NAME_LEVELS 17 /* four million markers: enough for 16 million names at the usual few steps */

#define PAGE_MAGIC UINT64_C(0x31656761506f7453) /* "StoPage1" */

struct store_page {
    uint64_t magic;
    _Atomic uint64_t root; /* image offset of the root object, 0 = none */
    _Atomic uint64_t name_count;
    /* image offsets of the blocks of markers (name_table.c), 0 = there is none; + 1: under way */
    _Atomic uint64_t name_level[NAME_LEVELS];
    uint8_t reserved[HEAP_RESERVED_BYTES - 24 - 8 * NAME_LEVELS]; /* zero */
};
static_assert(sizeof(struct store_page) == HEAP_RESERVED_BYTES, "format v1");
static_assert(offsetof(struct store_page, root) == 8, "format v1");
static_assert(offsetof(struct store_page, name_level) == 24, "format v1");

static inline struct store_page *page_of(const struct stead *s)
{
    return (struct store_page *)(void *)s->base;
}

#endif
