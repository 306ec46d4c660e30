/*
 * checksum_cache.h -- blocks of a store file's checksum tables, kept in memory by the one who changes them.
 *
 * A block is PAGE_BYTES of a table: the checksums of 512 pages.  Threads: the caller sees to it that there is one at a time.
 */
#ifndef STEAD_PERSIST_CHECKSUM_CACHE_H
#define STEAD_PERSIST_CHECKSUM_CACHE_H

#include <stddef.h>
#include <stdint.h>

#include "persist/format.h"

#define CHECKSUM_BLOCK_PAGES (PAGE_BYTES / FORMAT_CHECKSUM_BYTES)
#define CHECKSUM_CACHE_BLOCKS UINT64_C(2048) /* power of two; 8 MiB of address space, touched as needed */

struct checksum_cache {
    int fd;                         /* of the store file; not owned */
    struct checksum_blocks *blocks; /* direct mapped; NULL before the first use */
};

void checksum_cache_init(struct checksum_cache *cache, int fd);
void checksum_cache_release(struct checksum_cache *cache);
/* Others may have changed the tables; or only those of pages [page, page + count). */
void checksum_cache_clear(struct checksum_cache *cache);
void checksum_cache_drop(struct checksum_cache *cache, uint64_t page, uint64_t count);

/* The entries of the block that has page's: that of page is (*entry)[page % CHECKSUM_BLOCK_PAGES].  Valid until the next
 * call.  ENOMEM, or the error of a read. */
int checksum_cache_get(struct checksum_cache *cache, uint64_t page, uint64_t **entry);
/* It will be asked for page's entry soon. */
void checksum_cache_expect(const struct checksum_cache *cache, uint64_t page);
/* The caller changed entries [first, last] of that block: into the file.  An error: nobody knows what the file has, and the
 * block is not kept. */
int checksum_cache_write(struct checksum_cache *cache, uint64_t page, size_t first, size_t last);

#endif
