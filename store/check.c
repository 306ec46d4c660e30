/*
 * check.c -- stead_check: one row per module's checker.
 *
 *   superblocks        S   persist/superblock.c    by pread
 *   page checksums     P   persist/scrub.c         by pread, the last commit
 *   heap, committed    A   alloc/heap_check*.c     by pread, the last commit (SOLE and TURNS writers)
 *   heap, in memory    A   alloc/heap_check*.c     the mapped image: what this process works on
 *   root and names     R N store/                  the mapped image
 *
 * The store lock is held (exclusively by a writer, so that nothing is half-done) and the apply lock shared, so the file
 * stands still.  In LIVE other processes may run malloc without any lock, and a walk may meet a step half-done: a problem
 * of the memory rows is believed only if every one of several walks finds the very same (report.h).
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "store/call.h"
#include "store/page.h"

#define MEMORY_TRIES 3 /* looks that must agree on a problem */
#define MEMORY_TRIES_LIVE 10
#define MEMORY_PAUSE_NS 100000 /* others finish what they are at; doubled each time */

struct check_step {
    const char *name;
    void (*run)(struct stead *s, struct report *report);
};

static void name_object(void *ctx, uint64_t offset, char *text, unsigned text_bytes)
{
    struct stead *s = ctx;
    void *block;
    size_t usable;
    if (offset < HEAP_RESERVED_BYTES)
        (void)snprintf(text, text_bytes, "the store page (root and names)");
    else if (offset < image_bytes(s->image) && heap_find_block(s->heap, s->base + offset, &block, &usable))
        (void)snprintf(text, text_bytes, "the block of %zu bytes at %p", usable, block);
    else
        (void)snprintf(text, text_bytes, "no live block (allocator data or free space)");
}

static void check_superblocks(struct stead *s, struct report *report)
{
    superblock_check(&s->file, report);
}

static void check_pages(struct stead *s, struct report *report)
{
    image_check(s->image, report, name_object, s);
}

static int read_committed(void *ctx, uint64_t offset, void *buffer, size_t bytes)
{
    struct stead *s = ctx;
    return image_read_committed(s->image, offset, buffer, bytes);
}

static void check_committed_heap(struct stead *s, struct report *report)
{
    if (s->read_only || s->sharing == STEAD_LIVE)
        return;
    struct heap_reader reader = {
        .ctx = s, .read = read_committed, .image_bytes = image_bytes(s->image), .capacity = s->capacity};
    struct report committed = {0};
    uint64_t used = 0;
    heap_check(&reader, &committed, &used);
    committed.blocks = 0; /* they are counted by the memory row */
    report_add(report, &committed);
}

static int read_mapped(void *ctx, uint64_t offset, void *buffer, size_t bytes)
{
    const struct stead *s = ctx;
    uint64_t end = image_bytes(s->image);
    if (offset > end || bytes > end - offset)
        return EIO;
    memcpy(buffer, s->base + offset, bytes);
    return 0;
}

static void check_memory_once(struct stead *s, struct report *report)
{
    if (s->sharing == STEAD_LIVE)
        (void)image_follow(s->image); /* others may have made it longer, also since the last try */
    struct heap_reader reader = {
        .ctx = s, .read = read_mapped, .image_bytes = image_bytes(s->image), .capacity = s->capacity};
    uint64_t used = 0;
    heap_check(&reader, report, &used);
    if (page_of(s)->magic != PAGE_MAGIC)
        report_problem(report, "R1", 0, "the first page of the image is not a store page");
    else if (page_root(s) != 0 && page_pointer(s, page_root(s)) == NULL)
        report_problem(report, "R2", page_root(s), "the root lies outside the image");
    else
        names_check(s, report);
}

void store_check_memory(struct stead *s, struct report *report)
{
    struct report memory = {0};
    struct report_looks looks = {0};
    const int tries = s->sharing == STEAD_LIVE ? MEMORY_TRIES_LIVE : MEMORY_TRIES;
    for (int i = 0; i < tries; i++) {
        report_look(&memory, &looks);
        check_memory_once(s, &memory);
        if (memory.problems == 0)
            break;
        nanosleep(&(struct timespec){.tv_nsec = MEMORY_PAUSE_NS << i}, NULL);
    }
    report_add(report, &memory);
}

static const struct check_step steps[] = {
    {"superblocks", check_superblocks},
    {"page checksums", check_pages},
    {"heap, committed", check_committed_heap},
    {"heap, in memory", store_check_memory},
};

int stead_check(stead *store, stead_report *report)
{
    STORE_CALL(store);
    struct report found = {0};
    stead_report unused;
    if (report == NULL)
        report = &unused;
    memset(report, 0, sizeof *report);
    int rc = store_enter(store);
    if (rc != 0)
        return rc;
    rc = store->read_only || store->sharing == STEAD_TURNS ? store_lock_shared(store, DEADLINE_NEVER)
                                                           : store_lock_exclusive(store, DEADLINE_NEVER);
    if (rc != 0)
        return rc;
    rc = store_apply_lock(store, false, DEADLINE_NEVER);
    uint64_t internal_blocks = 0, internal_bytes;
    if (rc == 0) {
        names_count(store, &internal_blocks, &internal_bytes);
        heap_guard_pause(store->heap);
        for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++)
            steps[i].run(store, &found);
        heap_guard_resume(store->heap);
        store_apply_unlock(store, true);
    }
    store_unlock_quietly(store);
    if (rc != 0)
        return error_keep(rc);
    report->pages = found.pages;
    report->blocks = found.blocks - min_u64(internal_blocks, found.blocks);
    report->problems = found.problems;
    memcpy(report->first_problem, found.first, sizeof report->first_problem);
    if (found.problems == 0 && found.unable != 0)
        return error_set(found.unable, "%s cannot be checked: %s", store->file.path, error_text(found.unable));
    if (found.problems == 0)
        return 0;
    return error_set(STEAD_CORRUPT, "%s: %llu problems, the first: %s", store->file.path,
                     (unsigned long long)found.problems, found.first);
}
