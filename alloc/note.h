/* note.h -- what this process knows about a slab: finding, listing, filling and counting.  Files of alloc/ only. */
#ifndef STEAD_ALLOC_NOTE_H
#define STEAD_ALLOC_NOTE_H

#include "alloc/slab.h"

/* A slab that is not current and has more than this part of it free gives no hints: it is to drain. */
#define NOTE_SPARSE_PART 6u

static inline struct note *note_at(const struct heap *heap, uint64_t slot)
{
    return &heap->notes[slot];
}

/* Does the descriptor still hold the head that was proved? */
static inline bool note_matches(const struct note *note)
{
    return atomic_load_explicit(&note->descriptor->head, memory_order_relaxed) == note->head;
}

void list_remove(struct heap *heap, struct slab_list *list, struct note *note);
void list_append(struct heap *heap, struct slab_list *list, struct note *note, enum slab_state state);

/* The class, the place and the head of a slab that nobody owns. */
void note_fill(struct note *note, const struct run *run);
/* The note of a slab that the caller now owns; under the gate. */
struct note *note_take(struct heap *heap, struct owner *owner, const struct run *run);
/* Takes a slab out of heap->orphans if it is listed there. */
void note_unlist_orphan(struct heap *heap, struct note *note);

/* Moves what others freed into `allocated`; returns how many blocks that were.  The slab is the caller's or nobody's. */
unsigned slab_harvest(struct descriptor *descriptor, const struct class_geometry *geometry);
void note_harvest(struct note *note); /* the caller's own */

unsigned slab_count(const struct descriptor *descriptor, const struct class_geometry *geometry); /* of `allocated` */
bool slab_is_empty(const struct descriptor *descriptor, const struct class_geometry *geometry);
bool slab_has_free(const struct descriptor *descriptor, const struct class_geometry *geometry);

#endif
