/*
 * at_once.h -- a request that need not wait, inline: for rwlock_lock() and rwlock_unlock(), and for the calls of store/ that
 * are nothing else.  A nested level is a count in the thread's own memory and saves no register; what cannot be had at
 * once is a call (rwlock_lock_outermost).  What is taken and given up, and in which order: acquire.c, rwlock.c.
 */
#ifndef STEAD_LOCK_AT_ONCE_H
#define STEAD_LOCK_AT_ONCE_H

#include <errno.h>

#include "base/error.h"
#include "base/race_check.h"
#include "lock/acquire.h"
#include "lock/handle.h"
#include "lock/rwlock.h"
#include "lock/slots.h"
#include "lock/steps.h"

/* An outermost level of its kind that was not got at once.  hold: NULL if the thread has none yet; its flag is up if it
 * asks to share and could raise it. */
int rwlock_lock_outermost(struct rwlock *lock, struct rwlock_hold *hold, bool exclusive, int64_t deadline_ns);
/* The newest level is the last one of its kind; or there is none (EPERM). */
int rwlock_unlock_outermost(struct rwlock *lock, struct rwlock_hold *hold);

static inline int hold_nest(uint32_t *levels)
{
    if (__builtin_expect(*levels == UINT32_MAX, 0))
        return error_set(EAGAIN, "the lock is nested 2^32 - 1 deep");
    ++*levels;
    return 0;
}

/* For race_check: what readers did, and what owners did.  An owner comes after both, a reader after owners only. */
static inline void *lock_place_of_readers(struct rwlock *lock)
{
    return (char *)lock + 1;
}

static inline void *lock_place_of_owners(struct rwlock *lock)
{
    return lock;
}

/* The owner, if the lock is free and nobody shares it. */
static inline bool lock_claim_at_once(struct rwlock *lock, struct rwlock_hold *hold)
{
    uint64_t state = 0;
    if (__builtin_expect(!atomic_compare_exchange_strong(&lock->words->state, &state, hold->self), 0))
        return false;
    LOCK_STEP(CLAIMED);
    hold->biased = false;
    bias_count_quiet(lock->words);
    return true;
}

/* The flag up, and nobody in the way: inside.  Else the flag stays up, if it could be raised, for lock_shared(). */
static inline bool lock_share_at_once(struct rwlock *lock, struct rwlock_hold *hold)
{
    const uint64_t in_the_way = STATE_OWNER | STATE_INCONSISTENT | STATE_LOST | STATE_HANDOFF;
    if (__builtin_expect(!hold->sharer, 0))
        return false;
    flag_raise(hold->slot);
    LOCK_STEP(SHARED_FLAGGED);
    uint64_t state = atomic_load(&lock->words->state);
    if (__builtin_expect((state & (in_the_way | STATE_BIAS)) != STATE_BIAS, 0))
        return false;
    hold->below = 1;
    LOCK_STEP(SHARED_IN);
    return true;
}

/* The same for owners: inside at once, where they need not ask who else is there. */
static inline bool lock_own_at_once(struct rwlock *lock, struct rwlock_hold *hold)
{
    if (hold->below != 0 || lock->companion != RWLOCK_COMPANION_NONE || !lock_claim_at_once(lock, hold))
        return false;
    hold->inside = 1;
    LOCK_STEP(EXCLUSIVE_IN);
    return true;
}

static inline bool hold_unnest(struct rwlock_hold *hold)
{
    uint32_t *levels = hold->inside != 0 ? &hold->inside : &hold->below;
    if (*levels < 2)
        return false;
    --*levels;
    return true;
}

static inline int rwlock_lock_here(struct rwlock *lock, bool exclusive, int64_t deadline_ns)
{
    struct rwlock_hold *hold = hold_find(lock);
    if (__builtin_expect(hold != NULL, 1)) {
        if (hold->inside != 0)
            return hold_nest(&hold->inside);
        if (hold->below != 0 && !exclusive)
            return hold_nest(&hold->below);
        if (exclusive ? lock_own_at_once(lock, hold) : lock_share_at_once(lock, hold)) {
            race_check_acquire(lock_place_of_owners(lock));
            if (exclusive)
                race_check_acquire(lock_place_of_readers(lock));
            return 0;
        }
    }
    return rwlock_lock_outermost(lock, hold, exclusive, deadline_ns);
}

static inline int rwlock_unlock_here(struct rwlock *lock)
{
    struct rwlock_hold *hold = hold_find(lock);
    if (__builtin_expect(hold != NULL, 1) && hold_unnest(hold))
        return 0;
    return rwlock_unlock_outermost(lock, hold);
}

#endif
