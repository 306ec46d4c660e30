/*
 * heap.h -- the face of the allocator: blocks in one range of bytes.
 *
 * alloc/ knows no file, no lock of lock/, no log.  It is handed a range, its own saved state inside that range,
 * and a struct heap_host for what it cannot do itself.  All saved state is offsets from base, never pointers, so
 * an image is readable at any address; all saved state lives in [base + HEAP_RESERVED_BYTES, base + used).
 *
 * The image is the truth: a bit that says "allocated" is set when a block is handed out and cleared when it is
 * freed.  Whatever a thread merely caches is free in the image.  So a commit (SOLE, TURNS) taken at any moment
 * when no call is running contains no leaked block, and a process killed at any instruction (LIVE) leaks at most
 * the block in flight.
 */
#ifndef STEAD_ALLOC_HEAP_H
#define STEAD_ALLOC_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/report.h"

#define HEAP_RESERVED_BYTES 4096 /* first bytes of the image: not the heap's, never touched by it      */
#define HEAP_INITIAL_BYTES 65536 /* what heap_format() fills: one unit, including the reserved bytes   */
#define HEAP_ALIGNMENT_MAX (UINT64_C(2) << 20)

enum heap_kind {
    HEAP_SOLE,  /* one process, many threads; memory is this process's own                              */
    HEAP_TURNS, /* as SOLE, but other processes change the image between heap_reload() calls            */
    HEAP_LIVE,  /* many processes at once on the same bytes                                             */
    HEAP_READ   /* read-only mapping: only the const calls                                              */
};

struct heap; /* this process's view of one heap; volatile memory */

struct heap_host {
    void *ctx;
    /* Makes [base, base + bytes) readable and writable with disk blocks behind it; bytes is a multiple of
     * UNIT_BYTES and at most capacity.  Never shrinks; asking for less than there is does nothing.  Fresh bytes
     * are zero.  Returns 0 or ENOSPC, ENOMEM, EFBIG, ...; called with heap locks held: it must not call back. */
    int (*extend)(void *ctx, uint64_t bytes);
    /* [offset, offset + bytes), whole pages of a large block that is about to be handed out, will be used: whoever can make
     * them ready in a cheaper way than by faults may do so.  Afterwards they hold zeros, or what they held.  Called without locks of
     * the heap.  NULL: nobody. */
    void (*ready)(void *ctx, uint64_t offset, uint64_t bytes);
    /* LIVE: is the attachment with this id still there?  Ids are unique among all attachments since `first`. */
    bool (*alive)(void *ctx, uint32_t id);
    uint32_t self; /* LIVE: this process's attachment id, never 0 */
    /* What stands for this heap in heap_malloc_by() and, with any address in it, in heap_free_by(): as long as the heap
     * is attached, every thread may allocate and free at any time.  NULL: not so, or nobody asks. */
    const void *handle;
    /* In builds with AddressSanitizer or STEAD_VALGRIND: free blocks are poisoned.  The host promises that whoever
     * reads whole pages of the heap does so between heap_guard_pause() and heap_guard_resume(), and that no other
     * process allocates from it (what is poisoned is each process's own knowledge): so not in LIVE, unless alone. */
    bool guards;
};

struct heap_stats {
    uint64_t used_bytes; /* from base to the end of the last unit in use: what the file must hold */
    uint64_t live_bytes; /* usable bytes of live blocks        */
    uint64_t live_blocks;
    uint64_t bad_frees; /* refused by this process            */
};

/* Writes the saved state of an empty heap into image[0, HEAP_INITIAL_BYTES), which is zeroed. */
void heap_format(void *image, uint64_t capacity);

/*
 * heap_attach -- make a handle for the heap at base, which is a multiple of UNIT_BYTES.
 *   used    how many bytes of the range are readable now
 *   first   nobody else is attached: ownership marks left in a LIVE image are stale
 * Never trusts the image: STEAD_CORRUPT if the fixed part is damaged.  O(1) in the size of the heap.
 */
int heap_attach(struct heap **out, void *base, uint64_t capacity, uint64_t used, enum heap_kind kind, bool first,
                const struct heap_host *host);

/* Gives up what this process's threads own (LIVE) and frees the handle.  No other call may be running. */
void heap_detach(struct heap *heap);

/* In a fork child, or when the image is gone: frees the handle without touching the image. */
void heap_forget(struct heap *heap);

/* The image was changed beneath (rollback, somebody else's turn) or the readable length is now `used`: drop every
 * volatile belief.  No other call may be running. */
void heap_reload(struct heap *heap, uint64_t used);

/* LIVE: another process extended the image: bytes up to `used` are mapped here now. */
void heap_extended(struct heap *heap, uint64_t used);

/* NULL with errno ENOMEM, ENOSPC or EUCLEAN and a sentence in error_set().  Alignment: 16 if size is a multiple of
 * 16 or above 64, else at least 8.  size 0 gives a distinct block. */
void *heap_malloc(struct heap *heap, size_t size);
void *heap_calloc(struct heap *heap, size_t n, size_t size);
void *heap_realloc(struct heap *heap, void *block, size_t size);
void *heap_aligned_alloc(struct heap *heap, size_t alignment, size_t size);

/* Keeps errno.  0, or STEAD_WRONG_POINTER (double, foreign, interior: nothing changed), or STEAD_CORRUPT. */
int heap_free(struct heap *heap, void *block);

/* 0 if block is not the start of a live block. */
size_t heap_usable_size(struct heap *heap, const void *block);

/* The live block that contains p: true with its start and usable size. */
bool heap_find_block(struct heap *heap, const void *p, void **block, size_t *usable);

void heap_stat(struct heap *heap, struct heap_stats *stats);

/* heap_stats.used_bytes alone, O(1): asked at every commit.  May be too large by what was freed since the last
 * heap_trim(), never too small. */
uint64_t heap_used_bytes(struct heap *heap);

/* Live blocks in address order; stops at and returns visit's first non-zero.  Tolerates a damaged image. */
int heap_each_block(struct heap *heap, int (*visit)(void *block, size_t usable, void *arg), void *arg);

/* Unit-aligned free ranges of at least min_bytes below used_bytes, in address order: may be punched out. */
int heap_each_free_range(struct heap *heap, uint64_t min_bytes,
                         int (*visit)(uint64_t offset, uint64_t bytes, void *arg), void *arg);

/* Gives back what is cached, so that used_bytes is as low as the live blocks allow.  Before close and truncation.
 * No other call of this process may be running. */
void heap_trim(struct heap *heap);

/* See heap_host.guards; nothing at all in other builds.  No other call may be running. */
void heap_guard_pause(struct heap *heap);
void heap_guard_resume(struct heap *heap);

/* Where a checker gets the image's bytes from: 0 or an error (a finding).  Never a signal. */
struct heap_reader {
    void *ctx;
    int (*read)(void *ctx, uint64_t offset, void *buffer, size_t bytes);
    uint64_t image_bytes; /* readable */
    uint64_t capacity;
};

/* Verifies every A-invariant of docs/invariants.d.  The image may be any bytes: every loop is bounded by
 * image_bytes, memory by a constant.  No call may be running in any process: what is half done would be reported.  Adds
 * to report->blocks and ->problems.  *used: where the last unit in use
 * ends, if that could be told. */
void heap_check(const struct heap_reader *reader, struct report *report, uint64_t *used);

#endif
