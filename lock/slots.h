/* slots.h -- thread slots: a cache line for each thread that uses a lock of a region. */
#ifndef STEAD_LOCK_SLOTS_H
#define STEAD_LOCK_SLOTS_H

#include "lock/handle.h"

/* A free slot, now self's, for this lock; NULL if all are taken by the living. */
struct lock_slot *slot_take(struct rwlock *lock, uint64_t self);
/* Gives back a slot that the caller owns: flag down (waking a draining owner), bit out, free. */
void slot_give_back(struct rwlock *lock, struct lock_slot *slot);
/* Marks the slot as one that an owner must look at, before its flag may go up. */
void slot_make_sharer(struct rwlock *lock, struct lock_slot *slot);
/* A slot whose thread died: cleans it.  Anybody may try; one does it. */
void slot_clean(struct lock_region *region, struct lock_slot *slot, uint64_t dead, uint32_t cleaner_id);
/* Cleans every slot of attachments that are gone. */
void slots_sweep(struct lock_region *region, const struct presence *presence);

/* Puts a flag down; wakes the owner that sleeps until readers leave. */
void flag_lower(struct rwlock *lock, struct lock_slot *slot);

/* The first slot at or after *from whose flag for this lock is up, own excepted; NULL if there is none.  *from is set
 * behind it. */
struct lock_slot *slot_next_sharer(const struct rwlock *lock, const struct lock_slot *own, unsigned *from);

#endif
