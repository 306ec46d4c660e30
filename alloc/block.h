/* block.h -- from a pointer to the block it points to. */
#ifndef STEAD_ALLOC_BLOCK_H
#define STEAD_ALLOC_BLOCK_H

#include "alloc/slab.h"

struct block {
    struct run run;
    uint64_t offset; /* of the block's first byte in the image */
    uint64_t bytes;  /* usable                                 */
    uint32_t index;  /* in its slab                            */
};

/* The place of a block (live or not) that covers p: 0, STEAD_WRONG_POINTER, STEAD_CORRUPT; sets no error text. */
int block_find(struct heap *heap, const void *p, struct block *block);
bool block_is_live(const struct block *block);

#endif
