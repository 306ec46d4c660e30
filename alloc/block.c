/* block.c -- see block.h.  Also everything that only looks: find_block, stat, each_block, each_free_range. */
#include "alloc/block.h"

#include <string.h>

#include "alloc/gate.h"

/* LIVE: another process extended the image and passed us a block from there: entering the gate maps up to the top. */
static void follow(struct heap *heap)
{
    uint64_t top = atomic_load_explicit(&root_of(heap)->top_pages, memory_order_acquire);
    if (top > atomic_load_explicit(&heap->limit, memory_order_relaxed) >> PAGE_SHIFT &&
        top <= heap->capacity >> PAGE_SHIFT) {
        gate_enter(heap);
        gate_leave(heap);
    }
}

int block_find(struct heap *heap, const void *p, struct block *block)
{
    uint64_t offset = (uint64_t)((uintptr_t)p - (uintptr_t)heap->base);
    if (UNLIKELY(heap->kind == HEAP_LIVE))
        follow(heap);
    if ((uintptr_t)p < (uintptr_t)heap->base || offset >= atomic_load_explicit(&heap->limit, memory_order_relaxed))
        return STEAD_WRONG_POINTER;
    int rc = segment_find_run(heap, offset, &block->run);
    if (rc != 0)
        return rc;
    uint64_t start = block->run.page << PAGE_SHIFT;
    switch (head_kind(block->run.head)) {
    case RUN_EXTENT:
        block->offset = start;
        block->bytes = block->run.pages << PAGE_SHIFT;
        block->index = 0;
        return 0;
    case RUN_SLAB: {
        const struct class_geometry *geometry = &class_table[head_class(block->run.head)];
        block->index = class_divide(geometry, (uint32_t)(offset - start));
        block->offset = start + (uint64_t)block->index * geometry->bytes;
        block->bytes = geometry->bytes;
        return block->index < geometry->capacity ? 0 : STEAD_WRONG_POINTER; /* the slab's useless end */
    }
    default:
        return STEAD_WRONG_POINTER;
    }
}

static uint64_t live_bits(const struct descriptor *descriptor, const struct class_geometry *geometry, unsigned pair)
{
    return atomic_load_explicit(&descriptor->map[pair].allocated, memory_order_relaxed) &
           ~atomic_load_explicit(&descriptor->map[pair].freed, memory_order_relaxed) & slab_valid_bits(geometry, pair);
}

bool block_is_live(const struct block *block)
{
    if (head_kind(block->run.head) != RUN_SLAB)
        return true;
    const struct class_geometry *geometry = &class_table[head_class(block->run.head)];
    return (live_bits(block->run.descriptor, geometry, block->index / 64) >> block->index % 64 & 1) != 0;
}

bool heap_find_block(struct heap *heap, const void *p, void **start, size_t *usable)
{
    struct block block;
    if (block_find(heap, p, &block) != 0 || !block_is_live(&block))
        return false;
    *start = heap->base + block.offset;
    *usable = block.bytes;
    return true;
}

size_t heap_usable_size(struct heap *heap, const void *p)
{
    struct block block;
    if (block_find(heap, p, &block) != 0 || !block_is_live(&block) || heap->base + block.offset != (const uint8_t *)p)
        return 0;
    if (GUARD_ACTIVE && heap->guards) /* who asks may use all of it */
        GUARD_SHOW_ZEROED(p, block.bytes);
    return block.bytes;
}

static int add_run(const struct run *run, void *arg)
{
    struct heap_stats *stats = arg;
    if (head_kind(run->head) == RUN_EXTENT) {
        stats->live_blocks++;
        stats->live_bytes += run->pages << PAGE_SHIFT;
    } else if (head_kind(run->head) == RUN_SLAB) {
        const struct class_geometry *geometry = &class_table[head_class(run->head)];
        for (unsigned i = 0; i < slab_pairs(geometry); i++) {
            unsigned live = (unsigned)__builtin_popcountll(live_bits(run->descriptor, geometry, i));
            stats->live_blocks += live;
            stats->live_bytes += (uint64_t)live * geometry->bytes;
        }
    }
    return 0;
}

static uint64_t used_bytes(const struct heap *heap)
{
    uint64_t top = atomic_load_explicit(&root_of(heap)->top_pages, memory_order_relaxed);
    uint64_t limit = atomic_load_explicit(&heap->limit, memory_order_relaxed);
    uint64_t used = top <= heap->capacity / PAGE_BYTES ? round_up(top * PAGE_BYTES, UNIT_BYTES) : limit;
    return max_u64(min_u64(used, limit), HEAP_INITIAL_BYTES);
}

uint64_t heap_used_bytes(struct heap *heap)
{
    return used_bytes(heap);
}

void heap_stat(struct heap *heap, struct heap_stats *stats)
{
    memset(stats, 0, sizeof *stats);
    (void)segment_each_run(heap, add_run, stats);
    stats->used_bytes = used_bytes(heap);
    stats->bad_frees = atomic_load_explicit(&heap->bad_frees, memory_order_relaxed);
}

struct block_visit {
    struct heap *heap;
    int (*visit)(void *block, size_t usable, void *arg);
    void *arg;
};

static int visit_run(const struct run *run, void *arg)
{
    const struct block_visit *visitor = arg;
    uint8_t *start = visitor->heap->base + (run->page << PAGE_SHIFT);
    if (head_kind(run->head) == RUN_EXTENT)
        return visitor->visit(start, run->pages << PAGE_SHIFT, visitor->arg);
    if (head_kind(run->head) != RUN_SLAB)
        return 0;
    const struct class_geometry *geometry = &class_table[head_class(run->head)];
    for (unsigned i = 0; i < slab_pairs(geometry); i++) {
        for (uint64_t live = live_bits(run->descriptor, geometry, i); live != 0; live &= live - 1) {
            uint64_t index = i * 64 + (unsigned)__builtin_ctzll(live);
            int rc = visitor->visit(start + index * geometry->bytes, geometry->bytes, visitor->arg);
            if (rc != 0)
                return rc;
        }
    }
    return 0;
}

int heap_each_block(struct heap *heap, int (*visit)(void *block, size_t usable, void *arg), void *arg)
{
    struct block_visit visitor = {heap, visit, arg};
    return segment_each_run(heap, visit_run, &visitor);
}

struct free_visit {
    uint64_t start, end; /* bytes: the free range collected so far */
    uint64_t min_bytes, used;
    int (*visit)(uint64_t offset, uint64_t bytes, void *arg);
    void *arg;
};

static int free_flush(struct free_visit *visitor)
{
    uint64_t start = round_up(visitor->start, UNIT_BYTES),
             end = round_down(min_u64(visitor->end, visitor->used), UNIT_BYTES);
    visitor->start = visitor->end = 0;
    if (end <= start || end - start < visitor->min_bytes)
        return 0;
    return visitor->visit(start, end - start, visitor->arg);
}

static int free_add(struct free_visit *visitor, uint64_t start, uint64_t bytes)
{
    if (visitor->end != start) {
        int rc = free_flush(visitor);
        if (rc != 0)
            return rc;
        visitor->start = start;
    }
    visitor->end = start + bytes;
    return 0;
}

int heap_each_free_range(struct heap *heap, uint64_t min_bytes,
                         int (*visit)(uint64_t offset, uint64_t bytes, void *arg), void *arg)
{
    struct free_visit visitor = {.min_bytes = min_bytes, .used = used_bytes(heap), .visit = visit, .arg = arg};
    uint32_t segments = segments_of(heap);
    for (uint32_t segment = 0; segment < segments; segment++) {
        unsigned unit;
        uint64_t offset = (uint64_t)segment << SEGMENT_SHIFT;
        const _Atomic uint32_t *entry = segment_entry(heap, segment);
        const struct header *header = segment_header(heap, segment, &unit);
        int rc = 0;
        if (header == NULL && entry != NULL && entry_kind(atomic_load(entry)) == SEGMENT_VOID)
            rc = free_add(&visitor, offset, SEGMENT_BYTES);
        if (header != NULL)
            for (unsigned first = 0, length; rc == 0 && (length = pages_next_gap(header->segment.busy, &first)) != 0;
                 first += length)
                rc = free_add(&visitor, offset + (uint64_t)first * PAGE_BYTES, (uint64_t)length * PAGE_BYTES);
        if (rc != 0)
            return rc;
    }
    return free_flush(&visitor);
}
