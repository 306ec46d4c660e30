/*
 * overlay.c -- a hash table from page number to a copy of the page.
 *
 * Open addressing with linear probing, at most half full, cleared as a whole (after an application) or page by page; a page
 * that leaves draws those behind it that were pushed on, so that no chain is cut and no tombstone stays.  Page copies come
 * from chunks of 2 MiB mapped apart from malloc, whose lists a commit should not disturb, and are handed out again
 * without being returned to the kernel until OVERLAY_KEEP_CHUNKS are exceeded.  A page that was never handed out is never
 * touched: linking all of a chunk would cost 512 faults, most of the time of an open and close.
 *
 * Invariants:
 *   W8  a page is in the overlay exactly while the log holds a run of it that the file does not have (test_overlay.c,
 *       test_commit.c)
 */
#include "persist/overlay.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/check.h"
#include "base/units.h"

#define OVERLAY_FIRST_SLOTS 1024
#define OVERLAY_KEEP_CHUNKS 24 /* 48 MiB: more than is gathered between two applications */
#define CHUNK_PAGES 512 /* 2 MiB, a huge page where the kernel has one: a first touch of each small one costs 1-2 us */
#define CHUNK_BYTES (CHUNK_PAGES * PAGE_BYTES)
#define CACHE_LINE_BYTES 64

struct overlay_slot {
    uint64_t page_plus_1; /* 0: empty */
    uint8_t *bytes;
};

struct overlay_chunk {
    struct overlay_chunk *next;
    uint8_t *bytes;
    size_t used; /* pages from the front were handed out at least once */
};

static size_t slot_of(uint64_t page, size_t slots)
{
    return (size_t)((page * UINT64_C(0x9E3779B97F4A7C15)) >> 32) & (slots - 1);
}

void overlay_init(struct overlay *overlay)
{
    *overlay = (struct overlay){0};
}

static void free_chunks(struct overlay *overlay)
{
    while (overlay->chunk != NULL) {
        struct overlay_chunk *chunk = overlay->chunk;
        overlay->chunk = chunk->next;
        munmap(chunk->bytes, CHUNK_BYTES);
        free(chunk);
    }
    overlay->free_page = NULL;
    overlay->free_pages = 0;
    overlay->open = NULL;
}

void overlay_release(struct overlay *overlay)
{
    free_chunks(overlay);
    free(overlay->slot);
    *overlay = (struct overlay){0};
}

static void push_free(struct overlay *overlay, uint8_t *bytes)
{
    memcpy(bytes, &overlay->free_page, sizeof overlay->free_page);
    overlay->free_page = bytes;
    overlay->free_pages++;
}

/* Aligned to its size.  The first one is not made huge: a store with a few commits should not pay for 2 MiB of zeros. */
static uint8_t *map_chunk(bool huge)
{
    uint8_t *range = mmap(NULL, 2 * CHUNK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (range == MAP_FAILED)
        return NULL;
    size_t head = (size_t)(round_up((uintptr_t)range, CHUNK_BYTES) - (uintptr_t)range);
    if (head != 0)
        munmap(range, head);
    munmap(range + head + CHUNK_BYTES, CHUNK_BYTES - head);
    if (huge)
        (void)madvise(range + head, CHUNK_BYTES, MADV_HUGEPAGE);
    return range + head;
}

static int add_chunk(struct overlay *overlay)
{
    struct overlay_chunk *chunk = malloc(sizeof *chunk);
    if (chunk == NULL)
        return ENOMEM;
    chunk->bytes = map_chunk(overlay->chunk != NULL);
    if (chunk->bytes == NULL) {
        free(chunk);
        return ENOMEM;
    }
    chunk->used = 0;
    chunk->next = overlay->chunk;
    overlay->chunk = overlay->open = chunk;
    overlay->free_pages += CHUNK_PAGES;
    return 0;
}

/* A page that was used before, in the cache perhaps; else a new one, and no more of the chunk is touched than is needed. */
static uint8_t *take_free(struct overlay *overlay)
{
    uint8_t *bytes = overlay->free_page;
    overlay->free_pages--;
    if (bytes != NULL) {
        memcpy(&overlay->free_page, bytes, sizeof overlay->free_page);
        return bytes;
    }
    while (overlay->open->used == CHUNK_PAGES)
        overlay->open = overlay->open->next;
    return overlay->open->bytes + overlay->open->used++ * PAGE_BYTES;
}

static void insert(struct overlay_slot *slot, size_t slots, uint64_t page, uint8_t *bytes)
{
    size_t i = slot_of(page, slots);
    while (slot[i].page_plus_1 != 0)
        i = (i + 1) & (slots - 1);
    slot[i] = (struct overlay_slot){.page_plus_1 = page + 1, .bytes = bytes};
}

static int grow_slots(struct overlay *overlay, size_t need)
{
    size_t slots = overlay->slots != 0 ? overlay->slots : OVERLAY_FIRST_SLOTS;
    while (slots / 2 < need) {
        if (slots > SIZE_MAX / sizeof(struct overlay_slot) / 2)
            return ENOMEM;
        slots *= 2;
    }
    if (slots == overlay->slots)
        return 0;
    struct overlay_slot *slot = calloc(slots, sizeof *slot);
    if (slot == NULL)
        return ENOMEM;
    for (size_t i = 0; i < overlay->slots; i++)
        if (overlay->slot[i].page_plus_1 != 0)
            insert(slot, slots, overlay->slot[i].page_plus_1 - 1, overlay->slot[i].bytes);
    free(overlay->slot);
    overlay->slot = slot;
    overlay->slots = slots;
    return 0;
}

int overlay_reserve(struct overlay *overlay, size_t more)
{
    int rc = grow_slots(overlay, overlay->count + more);
    while (rc == 0 && overlay->free_pages < more)
        rc = add_chunk(overlay);
    return rc;
}

uint8_t *overlay_get(const struct overlay *overlay, uint64_t page)
{
    if (overlay->count == 0)
        return NULL;
    for (size_t i = slot_of(page, overlay->slots); overlay->slot[i].page_plus_1 != 0;
         i = (i + 1) & (overlay->slots - 1))
        if (overlay->slot[i].page_plus_1 == page + 1)
            return overlay->slot[i].bytes;
    return NULL;
}

uint8_t *overlay_put(struct overlay *overlay, uint64_t page)
{
    uint8_t *bytes = overlay_get(overlay, page);
    if (bytes != NULL)
        return bytes;
    CHECK_CHEAP(overlay->free_pages > 0 && overlay->count < overlay->slots / 2);
    bytes = take_free(overlay);
    insert(overlay->slot, overlay->slots, page, bytes);
    overlay->count++;
    return bytes;
}

void overlay_expect_look(const struct overlay *overlay, uint64_t page)
{
    if (overlay->count != 0)
        __builtin_prefetch(&overlay->slot[slot_of(page, overlay->slots)]);
}

/* In a chunk that was never used this far it is a hint about nothing: what is not mapped is not brought. */
void overlay_expect_put(const struct overlay *overlay)
{
    const uint8_t *bytes = overlay->free_page;
    if (bytes == NULL && overlay->open != NULL && overlay->open->used < CHUNK_PAGES)
        bytes = overlay->open->bytes + overlay->open->used * PAGE_BYTES;
    for (size_t i = 0; bytes != NULL && i < PAGE_BYTES; i += CACHE_LINE_BYTES)
        __builtin_prefetch(bytes + i, 1);
}

void overlay_remove(struct overlay *overlay, uint64_t page)
{
    const size_t mask = overlay->slots - 1;
    size_t hole = slot_of(page, overlay->slots);
    while (overlay->slot[hole].page_plus_1 != page + 1)
        hole = (hole + 1) & mask;
    push_free(overlay, overlay->slot[hole].bytes);
    for (size_t i = (hole + 1) & mask; overlay->slot[i].page_plus_1 != 0; i = (i + 1) & mask) {
        size_t home = slot_of(overlay->slot[i].page_plus_1 - 1, overlay->slots);
        if (((i - home) & mask) >= ((i - hole) & mask)) { /* its search passes the hole */
            overlay->slot[hole] = overlay->slot[i];
            hole = i;
        }
    }
    overlay->slot[hole] = (struct overlay_slot){0};
    overlay->count--;
}

void overlay_clear(struct overlay *overlay)
{
    if (overlay->count + overlay->free_pages > OVERLAY_KEEP_CHUNKS * CHUNK_PAGES) {
        overlay_release(overlay);
        return;
    }
    for (size_t i = 0; i < overlay->slots && overlay->count > 0; i++) {
        if (overlay->slot[i].page_plus_1 == 0)
            continue;
        push_free(overlay, overlay->slot[i].bytes);
        overlay->slot[i].page_plus_1 = 0;
        overlay->count--;
    }
}

int overlay_pages(const struct overlay *overlay, struct page_list *list)
{
    int rc = page_list_reserve(list, overlay->count);
    if (rc != 0)
        return rc;
    for (size_t i = 0; i < overlay->slots; i++)
        if (overlay->slot[i].page_plus_1 != 0)
            list->page[list->count++] = overlay->slot[i].page_plus_1 - 1;
    page_list_sort(list);
    return 0;
}
