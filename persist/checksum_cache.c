/*
 * checksum_cache.c -- see checksum_cache.h.
 *
 * A commit verifies what it reads of the file, page by page (W17), and an application replaces the checksums of what it
 * writes: each a system call for 8 bytes, which costs as much as the page itself.  The tables change by the hand of
 * whoever commits and of nobody else (TURNS: of whoever has the turn), so that what was read once stays right until then.
 *
 * Direct mapped: CHECKSUM_CACHE_BLOCKS blocks are the tables of 4 GiB of image that lies together; of a larger store with no
 * place in favour most verifications read a block, which costs a commit of one record on a resident 4 GiB store, where 512 MiB
 * were kept, a tenth more.
 *
 *   W24  an entry that is kept is the one in the file (test_checksum_cache.c, test_commit.c)
 */
#include "persist/checksum_cache.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/units.h"
#include "persist/file.h"
#include "persist/map.h"

struct checksum_blocks {
    uint64_t number_plus_1[CHECKSUM_CACHE_BLOCKS];               /* page / CHECKSUM_BLOCK_PAGES; 0: none */
    uint64_t entry[CHECKSUM_CACHE_BLOCKS][CHECKSUM_BLOCK_PAGES]; /* of those alone: 8 MiB of zeros would cost 0.6 ms */
};

static size_t slot_of(uint64_t page)
{
    return (size_t)(page / CHECKSUM_BLOCK_PAGES % CHECKSUM_CACHE_BLOCKS);
}

static uint64_t file_offset(uint64_t page)
{
    return format_checksum_offset(round_down(page, CHECKSUM_BLOCK_PAGES) * PAGE_BYTES);
}

void checksum_cache_init(struct checksum_cache *cache, int fd)
{
    *cache = (struct checksum_cache){.fd = fd};
}

void checksum_cache_release(struct checksum_cache *cache)
{
    free(cache->blocks);
    cache->blocks = NULL;
}

void checksum_cache_clear(struct checksum_cache *cache)
{
    if (cache->blocks != NULL)
        memset(cache->blocks->number_plus_1, 0, sizeof cache->blocks->number_plus_1);
}

void checksum_cache_drop(struct checksum_cache *cache, uint64_t page, uint64_t count)
{
    const uint64_t first = page / CHECKSUM_BLOCK_PAGES, last = (page + count - 1) / CHECKSUM_BLOCK_PAGES;
    const uint64_t places = min_u64(last - first + 1, CHECKSUM_CACHE_BLOCKS);
    for (uint64_t i = 0; cache->blocks != NULL && i < places; i++) {
        uint64_t *number_plus_1 = &cache->blocks->number_plus_1[(first + i) % CHECKSUM_CACHE_BLOCKS];
        if (*number_plus_1 > first && *number_plus_1 <= last + 1)
            *number_plus_1 = 0;
    }
}

int checksum_cache_get(struct checksum_cache *cache, uint64_t page, uint64_t **entry)
{
    if (cache->blocks == NULL) {
        cache->blocks = malloc(sizeof *cache->blocks);
        if (cache->blocks == NULL)
            return ENOMEM;
        checksum_cache_clear(cache);
    }
    size_t slot = slot_of(page);
    *entry = cache->blocks->entry[slot];
    if (cache->blocks->number_plus_1[slot] == page / CHECKSUM_BLOCK_PAGES + 1)
        return 0;
    cache->blocks->number_plus_1[slot] = 0;
    int rc = file_read_at(cache->fd, *entry, PAGE_BYTES, file_offset(page));
    if (rc == 0)
        cache->blocks->number_plus_1[slot] = page / CHECKSUM_BLOCK_PAGES + 1;
    return rc;
}

void checksum_cache_expect(const struct checksum_cache *cache, uint64_t page)
{
    if (cache->blocks == NULL)
        return;
    __builtin_prefetch(&cache->blocks->number_plus_1[slot_of(page)]);
    __builtin_prefetch(&cache->blocks->entry[slot_of(page)][page % CHECKSUM_BLOCK_PAGES]);
}

int checksum_cache_write(struct checksum_cache *cache, uint64_t page, size_t first, size_t last)
{
    size_t slot = slot_of(page);
    int rc = file_write_at(cache->fd, &cache->blocks->entry[slot][first], (last - first + 1) * FORMAT_CHECKSUM_BYTES,
                           file_offset(page) + first * FORMAT_CHECKSUM_BYTES);
    if (rc != 0)
        cache->blocks->number_plus_1[slot] = 0;
    return rc;
}
