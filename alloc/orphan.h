/* orphan.h -- nobody's slabs.  Every call but slab_give_back() and slab_trim() (slab.h) under the gate. */
#ifndef STEAD_ALLOC_ORPHAN_H
#define STEAD_ALLOC_ORPHAN_H

#include "alloc/note.h"

/* LIVE: what stands in the descriptors of this process's slabs. */
uint64_t owner_mark(const struct heap *heap);

/* Makes nobody's slab the caller's, in no list yet.  NULL: somebody owns it. */
struct note *slab_adopt(struct heap *heap, struct owner *owner, const struct run *run);
/* Lists a slab that was just adopted. */
void slab_list_owned(struct heap *heap, struct owner *owner, struct note *note);

/* A slab of the class that was nobody's and has a free block, now the caller's, in no list; NULL: none was found. */
struct note *orphan_take(struct heap *heap, struct owner *owner, unsigned class);

/* Tidies up what threads left that ended; before room is taken. */
void orphans_settle(struct heap *heap);

/* ---- of slab.c ---- */
/* Removes a slab of the caller's that is in no list. */
void slab_remove(struct heap *heap, struct note *note);
/* The bin has no slab to hand out blocks of. */
void bin_clear(struct bin *bin);

#endif
