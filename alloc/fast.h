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
static inline void *bin_take(const struct owner *owner, struct bin *bin, size_t size)
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
    if (GUARD_ACTIVE && owner->heap->guards)
        GUARD_SHOW(block, size);
    (void)owner;
    (void)size;
    return block;
}

static inline void *malloc_of(struct owner *owner, size_t size)
{
    struct bin *bin = owner->by_8[(size + 7) / 8];
    void *block = slab_take_hint(owner, bin, size);
    return LIKELY(block != NULL) ? block : bin_take(owner, bin, size);
}

/* offset: of p from owner->base, in the range of the notes. */
static inline bool free_of(struct owner *owner, void *p, uint64_t offset)
{
    struct note *note = &owner->notes[offset >> SLOT_SHIFT];
    if (UNLIKELY(atomic_load_explicit(&note->owner, memory_order_relaxed) != owner->token))
        return false;
    uint64_t product = slab_divide(note, offset);
    if (UNLIKELY((uint32_t)product >= note->inverse || (uint32_t)(product >> 32) >= note->capacity ||
                 atomic_load_explicit(&note->descriptor->head, memory_order_relaxed) != note->head))
        return false;
    return slab_free_own(owner, note, p, product) == 0;
}

/* Of the heap that the handle stands for, if it is the one this thread used last.  NULL: ask heap_malloc(). */
static inline void *heap_malloc_by(const void *handle, size_t size)
{
    struct owner *owner = owner_last.owner;
    if (UNLIKELY(atomic_load_explicit(&owner->handle, memory_order_relaxed) != handle || size > CLASS_SMALL_MAX))
        return NULL;
    return malloc_of(owner, size);
}

/* Any pointer.  True: it was a small block of a slab that this thread owns, in the heap that it used last, and is freed.
 * False: nothing was done. */
static inline bool heap_free_by(void *p)
{
    struct owner *owner = owner_last.owner;
    uint64_t offset = (uint64_t)((uintptr_t)p - (uintptr_t)owner->base);
    return LIKELY(offset < atomic_load_explicit(&owner->span, memory_order_relaxed)) && free_of(owner, p, offset);
}

/* Any pointer.  True: it was a small block of a slab that another thread of this process owns, in the heap that this thread
 * used last, and is freed.  False: nothing was done. */
bool heap_free_remote_by(void *p);

/* NULL: ask heap_malloc(). */
static inline void *heap_malloc_fast(struct heap *heap, size_t size)
{
    return UNLIKELY(!owner_is_cached(heap) || size > CLASS_SMALL_MAX) ? NULL : malloc_of(owner_last.owner, size);
}

/* Of a pointer into [base, base + capacity).  False: nothing was done, ask heap_free(). */
static inline bool heap_free_fast(struct heap *heap, void *p)
{
    return LIKELY(owner_is_cached(heap)) &&
           free_of(owner_last.owner, p, (uint64_t)((uintptr_t)p - (uintptr_t)heap->base));
}

#endif
