/* page_checksum.c -- see page_checksum.h. */
#include "persist/page_checksum.h"
#include "persist/xxh3.h"

/* XXH3_64bits of PAGE_BYTES zeros; part of format version 1 (test_commit.c recomputes it). */
#define ZERO_PAGE_HASH UINT64_C(0x93d76fe148c689ba)

uint64_t page_checksum(const void *page)
{
    return XXH3_64bits(page, PAGE_BYTES) ^ ZERO_PAGE_HASH;
}
