/* slab.h -- small blocks: who owns which slab, and where the next free block is. */
#ifndef STEAD_ALLOC_SLAB_H
#define STEAD_ALLOC_SLAB_H

#include "alloc/segment.h"

extern struct map_pair slab_no_pair; /* what an empty bin points to */

/* Gives the bin of a class at least one free block: 0, or an error with a sentence. */
int slab_refill(struct heap *heap, struct owner *owner, unsigned class);

/* The calling thread's own slab lost a block and is not the bin's current one: relist or remove it. */
void slab_after_free(struct heap *heap, struct owner *owner, struct note *note);

/* Frees block `index` of a slab that need not be the caller's.  owner NULL: the thread has none.
 * 0, STEAD_WRONG_POINTER (not allocated), STEAD_CORRUPT. */
int slab_free_shared(struct heap *heap, struct owner *owner, const struct run *run, uint32_t index);

/* Frees a block whose place was proved, whoever owns its slab: 0 or STEAD_WRONG_POINTER. */
int slab_free_bit(const struct heap *heap, struct descriptor *descriptor, void *block, uint32_t bytes, uint32_t index);

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

#endif
