/* acquire.h -- taking and giving up the owner word, and sharing when somebody is in the way. */
#ifndef STEAD_LOCK_ACQUIRE_H
#define STEAD_LOCK_ACQUIRE_H

#include "lock/handle.h"

enum acquire_as { ACQUIRE_EXCLUSIVE, ACQUIRE_UPGRADE /* this thread shares, and stays so */, ACQUIRE_STAND_IN };

/* 0 or EOWNERDEAD: this thread is the owner and alone.  EBUSY, ETIMEDOUT, EDEADLK, ENOTRECOVERABLE. */
int acquire_exclusive(struct rwlock *lock, struct rwlock_hold *hold, enum acquire_as as, int64_t deadline_ns);

/* 0: shares, flag up.  EOWNERDEAD: is the owner instead, and alone.  Errors: holds nothing.  raised: this thread's flag is
 * up already. */
int acquire_shared(struct rwlock *lock, struct rwlock_hold *hold, bool raised, int64_t deadline_ns);

enum release_as {
    RELEASE_ALL, /* was inside, holds nothing after */
    RELEASE_TO_SHARED,
    RELEASE_CLAIM, /* was never inside                */
    RELEASE_DIED   /* the thread ended inside         */
};
void release_exclusive(struct rwlock *lock, struct rwlock_hold *hold, enum release_as as);

/* STATE_BIAS is dropped by an owner after this many exclusive sections without a reader.  Hints, all of them. */
#define BIAS_PATIENCE_MIN 16
#define BIAS_PATIENCE_MAX 1024

static inline uint32_t bias_patience(const struct lock_words *words)
{
    uint32_t n = atomic_load_explicit(&words->patience, memory_order_relaxed);
    return n < BIAS_PATIENCE_MIN ? BIAS_PATIENCE_MIN : n > BIAS_PATIENCE_MAX ? BIAS_PATIENCE_MAX : n;
}

static inline bool bias_unused(const struct lock_words *words)
{
    return atomic_load_explicit(&words->quiet, memory_order_relaxed) > bias_patience(words);
}

/* One more exclusive section.  Written by owners only, so no read-modify-write is needed. */
static inline void bias_count_quiet(struct lock_words *words)
{
    uint32_t quiet = atomic_load_explicit(&words->quiet, memory_order_relaxed);
    if (quiet != UINT32_MAX)
        atomic_store_explicit(&words->quiet, quiet + 1, memory_order_relaxed);
}

/* A thread ends: what it holds is held by a dead one.  Gives its slot back. */
void rwlock_abandon(struct rwlock *lock, struct rwlock_hold *hold);

#endif
