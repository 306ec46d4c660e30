/*
 * acquire.c -- taking and giving up the owner word, and sharing when somebody is in the way.
 *
 * The lock is a word (the owner) and a flag for each thread (its slot's).  A reader raises its flag, then looks at the
 * word; an owner writes the word, then looks at the flags: each sees the other or is seen (Dekker).  While nobody
 * shares, STATE_BIAS is clear and owners look at no flag at all; the first reader sets it, and an owner that has met no
 * reader for a while clears it again when it leaves.
 *
 *   shared                                     a SIGKILL right after it leaves
 *   1 flag up                                  a dead sharer: an owner in its way cleans the slot
 *   2 state read: STATE_BIAS, no owner: in     the same
 *     (or STATE_BIAS set by compare-and-swap)
 *   3 else flag down, wake a draining owner    flag down, owner asleep: it looks again after CHECK_NS
 *   unlock: flag down, wake a draining owner   the same
 *
 *   exclusive
 *   1 owner word taken (claim)                 a dead owner: told to the next one though nothing was touched (cautious)
 *   2 if STATE_BIAS: flags looked at; up ones  a dead owner; from the moment STATE_DRAIN is set, one that left nothing
 *     waited for, STATE_DRAIN set before sleep   half done
 *   3 STATE_DRAIN cleared: inside              a dead owner: EOWNERDEAD
 *   unlock: 1 owner word cleared               a free lock, sleepers not woken: they look after CHECK_NS
 *           2 sleepers woken                   a free lock
 *
 *   upgrade (flag up): the owner word is taken, from a draining owner if need be: that one waits for this thread, so
 *   it cannot be inside.  It is woken, sees that it is no longer the owner, and waits again.  A dead upgrader leaves
 *   its flag and the owner word, each removed as such.  An owner that came from a shared hold has STATE_UPGRADE: a
 *   second upgrader would wait for it and it for the second, so that one gets EDEADLK.
 *
 * Invariants L1-L4: region.h.
 *
 * Why L1 and L3 exclude each other.  All accesses to flags, bits and state are sequentially consistent.  Let R be
 * inside sharing and W's claim be the last change of owner.  R saw (BIAS, no owner) at its read r of the state.
 *   - r before W's claim: R's flag went up before r, so W's look at the flags, after its claim, finds R's flag up
 *     unless R has left.  W saw BIAS in its claim: BIAS is cleared only by an owner inside, when no flag of somebody
 *     inside is up (L4), that is before R came in or after it left.
 *   - r after W's claim: R sees an owner, or W has released.
 * A stolen claim: W looked, waited and looked again; in between an upgrader may have owned and left, and new readers
 * may have come in at slots W had already passed.  So after its last look W reads the state once more: still its own
 * means own all along (only W writes W there), so nobody came in since its claim.
 * TSan and the data: R's flag down (release) -> W's look (acquire); W's release of the word -> R's read of it.
 */
#include "lock/acquire.h"

#include <errno.h>

#include "base/error.h"
#include "lock/companion.h"
#include "lock/futex.h"
#include "lock/slots.h"
#include "lock/steps.h"
#include "lock/wait.h"

static bool still_owner(const struct waiting *w)
{
    return (atomic_load(&w->lock->words->state) & STATE_OWNER) == w->hold->self;
}

/* A reader had to set STATE_BIAS: was it cleared too soon? */
static void bias_was_missed(struct lock_words *words)
{
    uint32_t quiet = atomic_load_explicit(&words->quiet, memory_order_relaxed);
    uint32_t n = bias_patience(words);
    n = quiet < 4 * n ? 2 * n : BIAS_PATIENCE_MIN;
    atomic_store_explicit(&words->patience, n, memory_order_relaxed);
    atomic_store_explicit(&words->quiet, 0, memory_order_relaxed);
}

/* Makes this thread the owner, if that may be.  0; EBUSY: wait; EDEADLK, ENOTRECOVERABLE. */
static int claim(struct waiting *w, enum acquire_as as)
{
    struct lock_words *words = w->lock->words;
    uint64_t state = atomic_load(&words->state);
    for (;;) {
        uint64_t next = wait_grant(w, state);
        bool steals = false;
        if (state & STATE_LOST)
            return error_set(ENOTRECOVERABLE, "a holder of the lock died inside, and the next one gave the lock up "
                                              "without repairing");
        if ((state & STATE_OWNER) == w->hold->self)
            return error_set(EDEADLK, "this thread holds the lock already, through another handle");
        if ((state & STATE_OWNER) != 0) {
            if (as != ACQUIRE_UPGRADE)
                return EBUSY;
            if (state & STATE_UPGRADE) {
                if (owner_reap(w->lock)) {
                    state = atomic_load(&words->state);
                    continue;
                }
                return error_set(EDEADLK, "another thread that shares the lock waits to own it, for this one too");
            }
            steals = true;
            next &= ~(STATE_OWNER | STATE_DRAIN | STATE_STAND_IN);
        } else if (as != ACQUIRE_UPGRADE && wait_reserved(w, state)) {
            return EBUSY;
        }
        next |= w->hold->self;
        if (as == ACQUIRE_UPGRADE)
            next |= STATE_UPGRADE;
        else if (as == ACQUIRE_STAND_IN)
            next |= STATE_STAND_IN;
        if (!atomic_compare_exchange_strong(&words->state, &state, next))
            continue;
        if (steals) {
            LOCK_STEP(STOLEN);
            atomic_fetch_add(&words->wake_owner, 1);
            futex_wake(&words->wake_owner, INT_MAX, w->lock->process_private);
        }
        w->hold->biased = (state & STATE_BIAS) != 0;
        LOCK_STEP(CLAIMED);
        wait_granted(w);
        return 0;
    }
}

/* Flags of dead threads go down.  True if there was one. */
static bool sharers_reap(struct rwlock *lock, const struct rwlock_hold *own)
{
    bool any = false;
    struct lock_slot *slot;
    for (unsigned from = 0; (slot = slot_next_sharer(lock, own, &from)) != NULL;) {
        uint64_t owner = atomic_load(&slot->owner);
        if (owner != 0 && handle_alive(lock, owner_id(owner)))
            continue;
        slot_clean(lock->region, slot, owner, lock->id);
        any = true;
    }
    return any;
}

/* Sleeps until readers may have left.  0: look again; EAGAIN: stolen; ETIMEDOUT, EDEADLK, ECANCELED. */
static int drain_sleep(struct waiting *w)
{
    struct rwlock *lock = w->lock;
    struct lock_words *words = lock->words;
    uint32_t seen = atomic_load(&words->wake_owner);
    uint64_t state = atomic_load(&words->state);
    do {
        if ((state & STATE_OWNER) != w->hold->self)
            return EAGAIN;
    } while (!(state & STATE_DRAIN) && !atomic_compare_exchange_strong(&words->state, &state, state | STATE_DRAIN));
    LOCK_STEP(DRAINING);
    unsigned from = 0;
    if (slot_next_sharer(lock, w->hold, &from) == NULL)
        return 0;
    int64_t until;
    int64_t check_at = w->check_at;
    int rc = wait_checks(w, &until);
    if (rc != 0)
        return rc == EAGAIN ? 0 : rc;
    if (check_at != w->check_at && check_at != 0 && sharers_reap(lock, w->hold))
        return 0;
    (void)futex_wait(&words->wake_owner, seen, until, lock->process_private);
    return 0;
}

/* The readers are gone.  0, or EAGAIN if the claim was stolen. */
static int drain_done(struct waiting *w)
{
    struct lock_words *words = w->lock->words;
    uint64_t state = atomic_load(&words->state);
    do {
        if ((state & STATE_OWNER) != w->hold->self)
            return EAGAIN;
    } while ((state & STATE_DRAIN) && !atomic_compare_exchange_strong(&words->state, &state, state & ~STATE_DRAIN));
    return 0;
}

/* Waits until no flag but the own one is up.  0, EAGAIN (stolen), EBUSY, ETIMEDOUT, EDEADLK, ECANCELED. */
static int drain(struct waiting *w)
{
    struct rwlock *lock = w->lock;
    struct lock_words *words = lock->words;
    if (!w->hold->biased)
        return 0; /* L2 */
    for (unsigned round = 0;; round++) {
        unsigned from = 0;
        if (slot_next_sharer(lock, w->hold, &from) == NULL)
            return drain_done(w);
        atomic_store_explicit(&words->quiet, 0, memory_order_relaxed);
        if (!still_owner(w))
            return EAGAIN;
        if (w->deadline == 0) {
            if (sharers_reap(lock, w->hold))
                continue;
            return EBUSY;
        }
        wait_count(w);
        if (round < WAIT_SPIN_ROUNDS) {
            wait_spin(round);
            continue;
        }
        int rc = drain_sleep(w);
        if (rc != 0)
            return rc;
    }
}

int acquire_exclusive(struct rwlock *lock, struct rwlock_hold *hold, enum acquire_as as, int64_t deadline_ns)
{
    struct waiting w;
    wait_begin(&w, lock, hold, true, deadline_ns);
    int rc;
    do {
        while ((rc = claim(&w, as)) == EBUSY) {
            rc = wait_step(&w);
            if (rc != 0)
                break;
        }
        if (rc != 0)
            break;
        rc = drain(&w);
        if (rc == EAGAIN) {
            wait_anew(&w);
        } else if (rc != 0) {
            wait_take_back(&w);
            release_exclusive(lock, hold, RELEASE_CLAIM);
        }
    } while (rc == EAGAIN);
    wait_end(&w, rc == 0);
    if (rc != 0)
        return rc;
    LOCK_STEP(EXCLUSIVE_IN);
    bias_count_quiet(lock->words);
    uint64_t state = atomic_load_explicit(&lock->words->state, memory_order_relaxed);
    if (state & STATE_INCONSISTENT)
        return error_set(EOWNERDEAD, "a holder of the lock died inside; repair what it left and say so, or nobody can "
                                     "take the lock again");
    return 0;
}

void release_exclusive(struct rwlock *lock, struct rwlock_hold *hold, enum release_as as)
{
    struct lock_words *words = lock->words;
    uint64_t state = atomic_load(&words->state);
    struct wakes wakes;
    uint64_t next;
    do {
        if ((state & STATE_OWNER) != hold->self)
            return; /* stolen before it was given up */
        next = state & ~(STATE_OWNER | STATE_DRAIN | STATE_UPGRADE | STATE_STAND_IN);
        if (as == RELEASE_DIED && !(state & STATE_STAND_IN))
            next |= STATE_INCONSISTENT;
        else if (as != RELEASE_CLAIM && as != RELEASE_DIED && (state & STATE_INCONSISTENT))
            next = (next & ~STATE_INCONSISTENT) | STATE_LOST;
        if (as == RELEASE_TO_SHARED)
            next |= STATE_BIAS;
        else if (as == RELEASE_ALL && bias_unused(words))
            next &= ~STATE_BIAS;
        next = wakes_plan(lock, next, &wakes);
    } while (!atomic_compare_exchange_strong(&words->state, &state, next));
    LOCK_STEP(RELEASED);
    wakes_do(lock, &wakes);
}

/* The flag is up.  Shares if the state allows it: 0; EBUSY: wait; EOWNERDEAD: somebody must own it first. */
static int enter_shared(struct waiting *w)
{
    struct rwlock *lock = w->lock;
    struct lock_words *words = lock->words;
    uint64_t state = atomic_load(&words->state);
    for (;;) {
        if (state & STATE_LOST)
            return error_set(ENOTRECOVERABLE, "a holder of the lock died inside, and the next one gave the lock up "
                                              "without repairing");
        if ((state & STATE_OWNER) == w->hold->self)
            return error_set(EDEADLK, "this thread holds the lock already, through another handle");
        if ((state & STATE_OWNER) != 0)
            return EBUSY;
        if (state & STATE_INCONSISTENT)
            return EOWNERDEAD;
        if (wait_reserved(w, state))
            return EBUSY;
        struct wakes wakes = {false, false, false, false};
        uint64_t next = wait_grant(w, state | STATE_BIAS);
        if (w->claimant)
            next = wakes_plan(lock, next, &wakes);
        if (next != state && !atomic_compare_exchange_strong(&words->state, &state, next))
            continue;
        if ((state & STATE_BIAS) == 0)
            bias_was_missed(words);
        LOCK_STEP(SHARED_GRANTED);
        wait_granted(w);
        wakes_do(lock, &wakes);
        return 0;
    }
}

/* Nobody owns the lock and it is inconsistent.  EOWNERDEAD: this thread owns it.  0: no longer so; holds nothing. */
static int own_inconsistent(struct rwlock *lock, struct rwlock_hold *hold, int64_t deadline_ns)
{
    int rc = acquire_exclusive(lock, hold, ACQUIRE_EXCLUSIVE, deadline_ns);
    if (rc == 0)
        release_exclusive(lock, hold, RELEASE_ALL);
    return rc;
}

int acquire_shared(struct rwlock *lock, struct rwlock_hold *hold, bool raised, int64_t deadline_ns)
{
    struct waiting w;
    wait_begin(&w, lock, hold, false, deadline_ns);
    int rc;
    for (;;) {
        if (!raised)
            flag_raise(hold->slot);
        LOCK_STEP(SHARED_FLAGGED);
        rc = enter_shared(&w);
        if (rc == 0)
            break;
        flag_lower(lock, hold->slot);
        raised = false;
        LOCK_STEP(SHARED_WITHDRAWN);
        if (rc == EOWNERDEAD) {
            wait_end(&w, false); /* a claimant must not stand in its own way */
            wait_begin(&w, lock, hold, false, deadline_ns);
            rc = own_inconsistent(lock, hold, deadline_ns);
            if (rc != 0)
                break;
            continue;
        }
        if (rc != EBUSY)
            break;
        do /* no use in raising the flag before the owner is gone */
            rc = wait_step(&w);
        while (rc == 0 && (atomic_load(&lock->words->state) & STATE_OWNER) != 0);
        if (rc != 0)
            break;
    }
    wait_end(&w, rc == 0);
    if (rc == 0)
        LOCK_STEP(SHARED_IN);
    return rc;
}

void rwlock_abandon(struct rwlock *lock, struct rwlock_hold *hold)
{
    if (hold->inside != 0 || hold->stand_in) {
        companion_leave(lock, hold);
        release_exclusive(lock, hold, RELEASE_DIED);
    }
    if (hold->slot != NULL)
        slot_leave(lock, hold->slot, hold->below != 0 && !hold->stand_in);
    if (lock->ended != NULL && (hold->inside != 0 || hold->below != 0))
        lock->ended(lock->ended_ctx);
}
