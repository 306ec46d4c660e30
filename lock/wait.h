/* wait.h -- waiting for a lock: spin, sleep, starve, be handed over; and waking whoever waits. */
#ifndef STEAD_LOCK_WAIT_H
#define STEAD_LOCK_WAIT_H

#include "lock/handle.h"

struct waiting {
    struct rwlock *lock;
    struct rwlock_hold *hold;
    int64_t deadline; /* 0 = try */
    int64_t since;    /* published in the slot; 0 = has not slept yet */
    int64_t check_at; /* when to ask next who is dead, and for cycles */
    bool exclusive;
    bool counted;  /* in lock->waiting */
    bool late;     /* the deadline has passed: one more look */
    bool awake;    /* STATE_AWAKE is set on this thread's account */
    bool claimant; /* words->claimant is this thread, HANDOFF set */
    unsigned round, sleeps;
    int64_t cycle_since; /* when a cycle was first seen; 0 = none  */
};

void wait_begin(struct waiting *w, struct rwlock *lock, struct rwlock_hold *hold, bool exclusive, int64_t deadline_ns);
/* From now on rwlock_close() refuses, until wait_end(). */
void wait_count(struct waiting *w);
/* Somebody is in the way: pass some time.  0: look again; EBUSY, ETIMEDOUT, EDEADLK, ECANCELED. */
int wait_step(struct waiting *w);
/* Before a claim or the whole wait is given up: its thread waits no more, for whoever looks (deadlock.c). */
void wait_take_back(struct waiting *w);
/* After a claim was stolen, or the wait not given up after all: what was seen of it does not hold any more. */
void wait_anew(struct waiting *w);
/* The lock was had, or not: then whatever this waiter was given is passed on. */
void wait_end(struct waiting *w, bool had);

/* Is the lock reserved for somebody else? */
bool wait_reserved(const struct waiting *w, uint64_t state);
/* state as this waiter leaves it when it gets the lock; and what is to be done after it got it. */
uint64_t wait_grant(const struct waiting *w, uint64_t state);
void wait_granted(struct waiting *w);

/* One pause of a spin, longer from round to round. */
void wait_spin(unsigned round);
#define WAIT_SPIN_ROUNDS 8 /* some 2000 pauses in all, about 100 us */

/* Publishes since, notices deadline, the dead and cycles: 0 and *until = when to wake up at the latest; EAGAIN if
 * something changed; ETIMEDOUT, EDEADLK, ECANCELED. */
int wait_checks(struct waiting *w, int64_t *until);

/* Who must be woken when a state without an owner is published. */
struct wakes {
    bool readers, writer, claimant, all;
};
uint64_t wakes_plan(struct rwlock *lock, uint64_t state, struct wakes *wakes);
void wakes_do(struct rwlock *lock, const struct wakes *wakes);

#if STEAD_CHECKS >= 2
/* How long a sleep lasts at most before its first look for the dead and for cycles, and between two.  A test that makes them
 * longer than itself is held up for ever by each wake-up that is missing (L8, L9). */
extern int64_t wait_check_first_ns, wait_check_ns;
#endif

/* Removes a dead owner: true if there was one. */
bool owner_reap(struct rwlock *lock);

#endif
