/* slab.h -- small blocks: who owns which slab, and where the next free block is. */
#ifndef STEAD_ALLOC_SLAB_H
#define STEAD_ALLOC_SLAB_H

#include "alloc/gate.h"
#include "alloc/segment.h"

extern struct map_pair slab_no_pair; /* what an empty bin points to */

/* Gives the bin of a class at least one free block; or, if it may borrow, that of a wider one, which *class is then.
 * 0, or an error with a sentence. */
int slab_refill(struct heap *heap, struct owner *owner, unsigned *class, bool may_borrow);

/* What slab_free_own() leaves to others: the calling thread's own slab became empty, or sparse; its bin has one hint too many.
 * Both keep errno. */
void slab_after_free(struct heap *heap, struct note *note) __attribute__((cold));
void slab_after_hint(struct heap *heap, struct bin *bin) __attribute__((cold));

/* Frees block `index` of a slab that need not be the caller's.  owner NULL: the thread has none.
 * 0, STEAD_WRONG_POINTER (not allocated), STEAD_CORRUPT. */
int slab_free_shared(struct heap *heap, struct owner *owner, const struct run *run, uint32_t index);

/* Gives back every slab of an owner; it owns nothing afterwards. */
void slab_give_back(struct heap *heap, struct owner *owner);

/* Takes over what is nobody's, finishes what others freed in it, removes what is empty.  Returns how many slabs were
 * removed. */
void slab_trim(struct heap *heap);

/* Forgets which slabs are nobody's; under the gate or alone. */
void slab_forget_orphans(struct heap *heap);

/* Live blocks of one pair of a slab. */
static inline uint64_t slab_valid_bits(const struct class_geometry *geometry, unsigned pair)
{
    uint32_t left = geometry->capacity - pair * 64;
    return left >= 64 ? ~UINT64_C(0) : (UINT64_C(1) << left) - 1;
}

static inline unsigned slab_pairs(const struct class_geometry *geometry)
{
    return (geometry->capacity + 63) / 64;
}

static inline uint32_t slab_slot(const struct heap *heap, const struct note *note)
{
    return (uint32_t)(note - heap->notes);
}

/* Block number << 32 + what lies beyond its start: of an address in the first slot of a slab, whose note that slot's is. */
static inline uint64_t slab_divide(const struct note *note, uint64_t offset)
{
    return (offset & (SLOT_BYTES - 1)) * note->inverse;
}

/* The pair of the block whose number is the upper half of the product. */
static inline struct map_pair *slab_pair_of(struct descriptor *descriptor, uint64_t product)
{
    return (struct map_pair *)(void *)((uint8_t *)descriptor->map + (product >> (32 + 6 - 4) & ~UINT64_C(15)));
}
static_assert(sizeof(struct map_pair) == 16, "64 blocks a pair");

/* Frees a block of the calling thread's own slab, whose head was just proved: no lock, no atomic read-modify-write.
 * product: slab_divide()'s.  STEAD_WRONG_POINTER: not allocated. */
static inline int slab_free_own(struct owner *owner, struct note *note, void *block, uint64_t product)
{
    struct map_pair *pair = slab_pair_of(note->descriptor, product);
    unsigned bit = (unsigned)(product >> 32) & HINT_BIT_MASK;
    uint64_t allocated = atomic_load_explicit(&pair->allocated, memory_order_relaxed);
    uint64_t live = allocated & ~atomic_load_explicit(&pair->freed, memory_order_relaxed);
    if (UNLIKELY((live >> bit & 1) == 0))
        return STEAD_WRONG_POINTER;
    if (GUARD_ACTIVE && owner->heap->guards)
        GUARD_HIDE(block, note->bytes);
    struct bin *bin = note->bin; /* loaded before anything is stored: see slab_take_hint() */
    uint16_t used = (uint16_t)(note->used - 1);
    struct hint *hint = bin->hints_end;
    atomic_store_explicit(&pair->allocated, allocated & ~(UINT64_C(1) << bit), memory_order_relaxed);
    note->used = used;
    if (LIKELY(used >= note->hint_from)) {
        *hint = (struct hint){block, pair, (uintptr_t)note | bit};
        bin->hints_end = hint + 1;
        if (UNLIKELY(hint == &bin->hints[1 + BIN_HINTS]))
            slab_after_hint(owner->heap, bin);
    } else if (UNLIKELY(used == note->look_at)) {
        slab_after_free(owner->heap, note);
    }
    return 0;
}

/* The block freed last of those the bin has hints for, handed out again; NULL: none. */
static inline void *slab_take_hint(const struct owner *owner, struct bin *bin, size_t size)
{
    /* All is loaded before anything is stored: where the stores go is known late (note and word may be far), and a load
     * behind them waits if the processor once saw it overtake one of them wrongly. */
    struct hint *hint = bin->hints_end - 1;
    void *block = hint->block;
    if (block == NULL)
        return NULL;
    struct map_pair *pair = hint->pair;
    uintptr_t place = hint->place;
    uint64_t bit = UINT64_C(1) << (place & HINT_BIT_MASK);
    struct note *note = hint_note(hint);
    bin->hints_end = hint;
    atomic_store_explicit(&pair->allocated, atomic_load_explicit(&pair->allocated, memory_order_relaxed) | bit,
                          memory_order_relaxed);
    note->used++;
    if (GUARD_ACTIVE && owner->heap->guards)
        GUARD_SHOW(block, size);
    (void)owner;
    (void)size;
    return block;
}

/* Frees a block whose place was proved, whoever owns its slab: 0 or STEAD_WRONG_POINTER. */
static inline int slab_free_bit(const struct heap *heap, struct descriptor *descriptor, void *block, uint32_t bytes,
                                uint32_t index)
{
    struct map_pair *pair = &descriptor->map[index / 64];
    uint64_t bit = UINT64_C(1) << index % 64;
    if ((atomic_load_explicit(&pair->allocated, memory_order_relaxed) & bit) == 0)
        return STEAD_WRONG_POINTER;
    if (GUARD_ACTIVE && heap->guards)
        GUARD_HIDE(block, bytes);
    (void)heap;
    (void)block;
    (void)bytes;
    if ((atomic_fetch_or(&pair->freed, bit) & bit) != 0)
        return STEAD_WRONG_POINTER;
    GATE_STEP();
    /* After the bit; the exchange in slab_harvest() comes before its look: all four in one order, or one would miss the other. */
    if (atomic_load(&descriptor->pending) == 0)
        atomic_store(&descriptor->pending, 1);
    return 0;
}

#endif
