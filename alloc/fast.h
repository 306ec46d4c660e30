/*
 * fast.h -- the fast paths of malloc and free, inline: for heap.c, and for store/memory.c, which has them in the public
 * calls and so spares their users a call and a second look at everything.
 *
 * malloc of a small block: the bin's newest hint, or the lowest free bit of its word; set the bit.  free by the owner: the
 * note of the slot says that the slab is ours, the descriptor still holds the head that was proved, the bit is set:
 * clear it.  No lock, no atomic read-modify-write, no look at the block's own memory: free of a cold block costs two or
 * three cache lines of metadata, shared with its neighbours.
 *
 * What a damaged image can do here: bits decide only which block of a proved slab is handed out (masked with the
 * slab's capacity); geometry comes from volatile memory or from sealed heads.  So an error or a wrong block inside the
 * heap, never a write outside it.
 */
#ifndef STEAD_ALLOC_FAST_H
#define STEAD_ALLOC_FAST_H

#include "alloc/slab.h"

/* Hands out the lowest free block of the bin's word, or NULL.  The block after it is fetched ahead: by the time it is
 * asked for, its first line is there. */
static inline void *bin_take(const struct heap *heap, struct bin *bin, size_t size)
{
    uint64_t free_bits = bin->free_bits;
    if (UNLIKELY(free_bits == 0))
        return NULL;
    struct map_pair *pair = bin->pair;
    uint8_t *block = bin->next;
    uint64_t rest = free_bits & (free_bits - 1);
    atomic_store_explicit(&pair->allocated,
                          atomic_load_explicit(&pair->allocated, memory_order_relaxed) | (free_bits ^ rest),
                          memory_order_relaxed);
    bin->free_bits = rest;
    bin->next = bin->block0 + (uint64_t)((unsigned)__builtin_ctzll(rest | UINT64_C(1) << 63)) * bin->block_bytes;
    __builtin_prefetch(bin->next, 1);
    if (GUARD_ACTIVE && heap->guards)
        GUARD_SHOW(block, size);
    (void)heap;
    (void)size;
    return block;
}

/* NULL: ask heap_malloc(). */
static inline void *heap_malloc_fast(struct heap *heap, size_t size)
{
    if (UNLIKELY(!owner_is_cached(heap) || size > CLASS_SMALL_MAX))
        return NULL;
    struct bin *bin = owner_last.owner->by_8[(size + 7) / 8];
    void *block = slab_take_hint(heap, bin, size);
    return LIKELY(block != NULL) ? block : bin_take(heap, bin, size);
}

/* Of a pointer into [base, base + capacity).  False: nothing was done, ask heap_free(). */
static inline bool heap_free_fast(struct heap *heap, void *p)
{
    if (UNLIKELY(!owner_is_cached(heap)))
        return false;
    uint64_t offset = (uint64_t)((uintptr_t)p - (uintptr_t)heap->base);
    struct note *note = &heap->notes[offset >> SLOT_SHIFT];
    if (UNLIKELY(atomic_load_explicit(&note->owner, memory_order_relaxed) != owner_last.owner->token))
        return false;
    uint64_t product = slab_divide(note, offset);
    uint32_t index = (uint32_t)(product >> 32);
    if (UNLIKELY((uint32_t)product >= note->inverse || index >= note->capacity ||
                 atomic_load_explicit(&note->descriptor->head, memory_order_relaxed) != note->head))
        return false;
    return slab_free_own(heap, note, p, index) == 0;
}

/* Of such a pointer, too.  True: it was a small block of a slab that another thread of this process owns, and is freed.
 * False: nothing was done, ask heap_free(). */
bool heap_free_remote(struct heap *heap, void *p);

#endif
