/* owner.h -- threads: each has one struct owner per heap it uses. */
#ifndef STEAD_ALLOC_OWNER_H
#define STEAD_ALLOC_OWNER_H

#include "alloc/state.h"

/* The calling thread's owner, made if need be; NULL with a sentence (ENOMEM). */
struct owner *owner_get(struct heap *heap);

/* The calling thread's owner if it used the heap lately; NULL: perhaps it has one nevertheless.  Makes it owner_last. */
struct owner *owner_known(struct heap *heap);

/* Registers a new heap, and gives it its first serial. */
int owner_register(struct heap *heap);

/* Orphans every owner of the heap and unregisters it.  give_back: their slabs first; no other call is running. */
void owner_unregister(struct heap *heap, bool give_back);

/* Every owner gives its slabs back and starts anew. */
void owner_give_back_all(struct heap *heap);

/* A new serial: no owner owns anything any more. */
void owner_forget_all(struct heap *heap);

#endif
