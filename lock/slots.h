/* slots.h -- thread slots: a cache line for each thread that uses a lock of a region; a common one for the last comers. */
#ifndef STEAD_LOCK_SLOTS_H
#define STEAD_LOCK_SLOTS_H

#include "lock/handle.h"

/* A free slot, now self's, for this lock; NULL if all are taken by the living.  reserve: also of the last SLOT_RESERVE. */
struct lock_slot *slot_take(struct rwlock *lock, uint64_t self, bool reserve);
/* A slot of this process for this lock, with one user more; NULL if it has none.  The registry's mutex is held. */
struct lock_slot *slot_join(struct rwlock *lock);
/* The calling thread ends: one user less, its flag down if it is up; the last one gives the slot back.  Mutex as above. */
void slot_leave(struct rwlock *lock, struct lock_slot *slot, bool flag_up);
/* Gives back a slot of this process: flag down (waking a draining owner), bit out, free. */
void slot_give_back(struct rwlock *lock, struct lock_slot *slot);
/* Marks the slot as one that an owner must look at, before its flag may go up. */
void slot_make_sharer(struct rwlock *lock, struct lock_slot *slot);
/* A slot whose thread died: cleans it.  Anybody may try; one does it. */
void slot_clean(struct lock_region *region, struct lock_slot *slot, uint64_t dead, uint32_t cleaner_id);
/* Cleans every slot of attachments that are gone. */
void slots_sweep(struct lock_region *region, const struct presence *presence);

static inline void flag_raise(struct lock_slot *slot)
{
    atomic_fetch_add(&slot->shared, 1);
}

/* Takes one thread's part of a flag down; wakes the owner that sleeps until readers leave. */
void flag_lower(struct rwlock *lock, struct lock_slot *slot);

/* The first slot at or after *from whose flag for this lock is up, but for what own (may be NULL) holds up itself; NULL if
 * there is none.  *from is set behind it. */
struct lock_slot *slot_next_sharer(const struct rwlock *lock, const struct rwlock_hold *own, unsigned *from);

#endif
