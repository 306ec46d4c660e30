/* companion.h -- what an owner does about readers that cannot write the lock's words and share by byte APPLY. */
#ifndef STEAD_LOCK_COMPANION_H
#define STEAD_LOCK_COMPANION_H

#include "lock/futex.h"
#include "lock/handle.h"

#define COMPANION_PERIOD_NS 10000000 /* an owner's knowledge of announced readers is not older than this */
#define COMPANION_GRACE_NS 15000000  /* a reader waits so long after its announcement: >= the period     */

static inline int64_t companion_clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* C1: by an owner, after its claim.  The coarse clock is plain memory to the processor, which may read it early. */
static inline int64_t companion_clock_of_owner_ns(void)
{
#if defined(__x86_64__) || defined(__i386__)
    atomic_signal_fence(memory_order_seq_cst); /* the claim was a locked instruction: a full barrier */
#else
    atomic_thread_fence(memory_order_seq_cst);
#endif
    return companion_clock_ns();
}

/* This thread is the owner and not yet inside.  Must it ask companion_needed() before it goes in? */
static inline bool companion_due(const struct rwlock *lock)
{
    if (lock->companion == RWLOCK_COMPANION_NONE)
        return false;
    return lock->companion == RWLOCK_COMPANION_ALWAYS || lock->announced ||
           companion_clock_of_owner_ns() - lock->asked_ns >= COMPANION_PERIOD_NS;
}

/* May a reader from outside be there?  Then companion_enter() must take byte APPLY before the section begins. */
bool companion_needed(struct rwlock *lock);
/* 0; EBUSY, ETIMEDOUT, ECANCELED (rwlock_shut), errno: the section must not begin. */
int companion_enter(struct rwlock *lock, struct rwlock_hold *hold, int64_t deadline_ns);
/* After the section, before the owner word is given up. */
void companion_leave(struct rwlock *lock, struct rwlock_hold *hold);

#endif
