/*
 * wait.c -- waiting for a lock: spin, sleep, starve, be handed over; and waking whoever waits.
 *
 * Handing a lock to a sleeper costs a wake-up, some 5 to 50 us; a critical section often 0.1 us.  A lock that hands
 * over on every release (a convoy) is a hundred times slower than its work.  So the lock may be overtaken: whoever
 * comes by when it is free takes it, for a bounded time:
 *
 *  - A newcomer spins a little, looking ever more rarely (so that the owner, on another core, does many sections
 *    without losing its cache lines), then sleeps.  If others sleep already and one is awake, it sleeps at once: at
 *    most about one thread spins.
 *  - A release wakes one exclusive sleeper, the one that sleeps longest (futexes are first in, first out), unless one
 *    is awake already (STATE_AWAKE) - but after TURNS_MAX releases it does so all the same; and all shared sleepers.
 *  - A waiter that slept and has waited STARVING_NS in all becomes the claimant: it sets STATE_HANDOFF, and nobody
 *    but it may take the lock next.  At most one claimant is served in HANDOFF_GAP_NS: in between the lock runs at
 *    full speed, and n starving waiters are all served within n gaps and sections.
 *
 * Nobody depends on a wake-up: every sleep ends after CHECK_NS, to ask whether the owner, the claimant or a reader
 * in the way is dead, and whether the wait is part of a cycle.  So a thread killed at any point here costs the others
 * a delay, never their progress:
 *
 *   step                                       a SIGKILL right after it leaves
 *   1 STATE_READERS / STATE_WRITERS set        a needless wake-up
 *   2 asleep                                   a wake-up may be lost on it: the others look after CHECK_NS
 *   3 woken, STATE_AWAKE set on its account    nobody is woken until the first sleeper's CHECK_NS is over; it takes
 *                                              the bit over
 *   4 claimant = self                          a dead claimant without HANDOFF: the next claimant finds and replaces it
 *   5 STATE_HANDOFF set                        a dead claimant: removed by claimant_reap of whoever wakes first
 *   6 owner word taken, HANDOFF cleared        a dead owner and a dead claimant, each removed as such
 *   7 claimant = 0                             as any owner
 *   owner_reap: 1 owner word cleared           sleepers not yet woken: they look after CHECK_NS
 *
 * Invariants:
 *   L7  STATE_HANDOFF set  =>  claimant != 0 (set after, cleared before it)
 *   L8  a sleeper's word (wake_*) is read before its bit is set, and bumped after the bit is seen: no wake-up is lost
 *       between the living
 *   L9  a state is published without owner and with sleepers only by somebody who then wakes as wakes_plan says
 *
 * Ordering: all sequentially consistent; these are slow paths.
 */
#include "lock/wait.h"

#include "base/error.h"
#include "lock/deadlock.h"
#include "lock/futex.h"
#include "lock/steps.h"

#define CHECK_FIRST_NS 10000000 /* first look for the dead and for cycles  */
#define CHECK_NS 50000000       /* and then as often as this               */
#if STEAD_CHECKS >= 2
int64_t wait_check_first_ns = CHECK_FIRST_NS, wait_check_ns = CHECK_NS;
#else
#define wait_check_first_ns CHECK_FIRST_NS
#define wait_check_ns CHECK_NS
#endif
#define STARVING_NS 1000000
#define HANDOFF_GAP_NS 500000
#define TURNS_MAX 2048 /* 0.5 ms of short sections: earlier, a second waiter only takes a core away */
#define SPIN_FIRST 3   /* log2 of the pauses between two looks: from so many ... */
#define SPIN_LAST 10   /* ... to so many, 50 us: a look costs the owner a line, a hand-over all that its data are on */

void wait_begin(struct waiting *w, struct rwlock *lock, struct rwlock_hold *hold, bool exclusive, int64_t deadline_ns)
{
    *w = (struct waiting){.lock = lock, .hold = hold, .exclusive = exclusive, .deadline = deadline_ns};
}

void wait_count(struct waiting *w)
{
    if (w->counted)
        return;
    w->counted = true;
    atomic_fetch_add(&w->lock->waiting, 1);
}

void wait_spin(unsigned round)
{
    unsigned pauses = 1U << (round + SPIN_FIRST < SPIN_LAST ? round + SPIN_FIRST : SPIN_LAST);
    while (pauses-- > 0)
        cpu_relax();
}

uint64_t wakes_plan(struct rwlock *lock, uint64_t state, struct wakes *wakes)
{
    struct lock_words *words = lock->words;
    *wakes = (struct wakes){false, false, false, false};
    if (state & STATE_LOST) {
        wakes->all = true;
        return state & ~(STATE_READERS | STATE_WRITERS);
    }
    if (state & STATE_HANDOFF) {
        wakes->claimant = true;
        if (!(atomic_load(&words->claimant) & CLAIMANT_SHARED))
            return state;
        wakes->readers = (state & STATE_READERS) != 0;
        return state & ~STATE_READERS;
    }
    if (state & STATE_READERS) {
        wakes->readers = true;
        state &= ~STATE_READERS;
    }
    if (state & STATE_WRITERS) {
        uint32_t turns = atomic_load_explicit(&words->turns, memory_order_relaxed);
        wakes->writer = !(state & STATE_AWAKE) || turns >= TURNS_MAX;
        atomic_store_explicit(&words->turns, wakes->writer ? 0 : turns + 1, memory_order_relaxed);
        if (wakes->writer)
            state |= STATE_AWAKE;
    }
    return state;
}

static void wake(struct rwlock *lock, _Atomic uint32_t *word, int count)
{
    atomic_fetch_add(word, 1);
    futex_wake(word, count, lock->process_private);
}

void wakes_do(struct rwlock *lock, const struct wakes *wakes)
{
    struct lock_words *words = lock->words;
    if (wakes->all) {
        wake(lock, &words->wake_writers, INT_MAX);
        wake(lock, &words->wake_readers, INT_MAX);
        wake(lock, &words->wake_claimant, INT_MAX);
        return;
    }
    if (wakes->claimant)
        wake(lock, &words->wake_claimant, INT_MAX);
    if (wakes->readers)
        wake(lock, &words->wake_readers, INT_MAX);
    if (!wakes->writer)
        return;
    atomic_fetch_add(&words->wake_writers, 1);
    if (futex_wake(&words->wake_writers, 1, lock->process_private) == 0) {
        /* Nobody slept: the bits say nothing.  Who set its bit again before this line and not yet slept is turned
         * back by the second bump (L8), and who slept is woken. */
        atomic_fetch_and(&words->state, ~(STATE_WRITERS | STATE_AWAKE));
        wake(lock, &words->wake_writers, INT_MAX);
    }
}

bool owner_reap(struct rwlock *lock)
{
    uint64_t state = atomic_load(&lock->words->state);
    if ((state & STATE_OWNER) == 0 || handle_alive(lock, owner_id(state)))
        return false;
    uint64_t dead = state & STATE_OWNER;
    while ((state & STATE_OWNER) == dead) {
        uint64_t next = state & ~(STATE_OWNER | STATE_DRAIN | STATE_UPGRADE | STATE_STAND_IN);
        /* Who was still waiting for readers, or only shared, left nothing half done. */
        if ((state & (STATE_DRAIN | STATE_STAND_IN)) == 0)
            next |= STATE_INCONSISTENT;
        if (!atomic_compare_exchange_strong(&lock->words->state, &state, next))
            continue;
        LOCK_STEP(OWNER_REMOVED);
        wakes_do(lock, &(struct wakes){.all = true});
        return true;
    }
    return true; /* somebody else did it */
}

/* The lock is free and this thread goes without it: whoever sleeps must hear of it. */
static void pass_on(struct rwlock *lock)
{
    uint64_t state = atomic_load(&lock->words->state);
    struct wakes wakes;
    uint64_t next;
    do {
        if ((state & STATE_OWNER) != 0)
            return; /* the owner's release will */
        next = wakes_plan(lock, state, &wakes);
    } while (!atomic_compare_exchange_strong(&lock->words->state, &state, next));
    wakes_do(lock, &wakes);
}

static bool claimant_reap(struct rwlock *lock, uint64_t self)
{
    struct lock_words *words = lock->words;
    uint64_t claimant = atomic_load(&words->claimant);
    if (claimant == 0 || handle_alive(lock, owner_id(claimant)))
        return false;
    if (!atomic_compare_exchange_strong(&words->claimant, &claimant, self))
        return true;
    LOCK_STEP(CLAIMANT_SET);
    atomic_fetch_and(&words->state, ~STATE_HANDOFF);
    atomic_store(&words->claimant, 0);
    pass_on(lock);
    return true;
}

bool wait_reserved(const struct waiting *w, uint64_t state)
{
    if ((state & STATE_HANDOFF) == 0 || w->claimant)
        return false;
    return w->exclusive || !(atomic_load(&w->lock->words->claimant) & CLAIMANT_SHARED);
}

uint64_t wait_grant(const struct waiting *w, uint64_t state)
{
    if (w->claimant)
        state &= ~STATE_HANDOFF;
    if (w->awake)
        state &= ~STATE_AWAKE;
    return state;
}

void wait_granted(struct waiting *w)
{
    w->awake = false;
    if (!w->claimant)
        return;
    LOCK_STEP(HANDOFF_TAKEN);
    atomic_store(&w->lock->words->handoff_ns, clock_ns());
    atomic_store(&w->lock->words->claimant, 0);
    /* The next release wakes the next sleeper, whoever else is awake: it is the claimant after this one. */
    atomic_store_explicit(&w->lock->words->turns, TURNS_MAX, memory_order_relaxed);
    w->claimant = false;
}

/* Whatever this waiter was given is passed on. */
static void go_without(struct waiting *w)
{
    struct lock_words *words = w->lock->words;
    bool passes = w->claimant || w->awake;
    if (w->claimant) {
        atomic_fetch_and(&words->state, ~STATE_HANDOFF);
        atomic_store(&words->claimant, 0);
        w->claimant = false;
    }
    if (w->awake) {
        atomic_fetch_and(&words->state, ~STATE_AWAKE);
        w->awake = false;
    }
    if (passes)
        pass_on(w->lock);
}

/* What the slot says of this thread's wait. */
static void tell(const struct waiting *w, int64_t since)
{
    if (since != 0)
        w->hold->told = since;
    if (w->hold->slot != NULL && !w->hold->joined)
        atomic_store(&w->hold->slot->waiting_since, since);
}

void wait_take_back(struct waiting *w)
{
    if (w->since != 0)
        tell(w, 0);
    w->since = 0;
}

void wait_anew(struct waiting *w)
{
    if (w->since != 0)
        tell(w, ++w->since);
}

void wait_end(struct waiting *w, bool had)
{
    wait_take_back(w);
    if (!had)
        go_without(w);
    if (w->counted)
        atomic_fetch_sub(&w->lock->waiting, 1); /* the last look at a lock that this thread does not hold */
    w->counted = false;
}

static bool become_claimant(struct waiting *w)
{
    struct lock_words *words = w->lock->words;
    uint64_t none = 0;
    if (!atomic_compare_exchange_strong(&words->claimant, &none, w->hold->self | (w->exclusive ? 0 : CLAIMANT_SHARED)))
        return false;
    LOCK_STEP(CLAIMANT_SET);
    atomic_fetch_or(&words->state, STATE_HANDOFF);
    LOCK_STEP(HANDOFF_SET);
    w->claimant = true;
    return true;
}

int wait_checks(struct waiting *w, int64_t *until)
{
    LOCK_STEP(STILL_WAITS);
    int64_t now = clock_ns();
    struct lock_slot *slot = w->hold->slot;
    if (w->since == 0) {
        /* A value never comes back, however coarse the clock (deadlock.c). */
        w->since = now > w->hold->told ? now : w->hold->told + 1;
        w->check_at = now + wait_check_first_ns;
        if (slot != NULL && !w->hold->joined)
            atomic_store(&slot->waiting_exclusive, w->exclusive);
        tell(w, w->since);
    }
    if (w->deadline != DEADLINE_NEVER && now >= w->deadline) {
        /* The last look may have been long ago, for who waits for a processor: what was given up in time is found. */
        const bool looked_since = w->late;
        w->late = true;
        return looked_since ? ETIMEDOUT : EAGAIN;
    }
    if (atomic_load(&w->lock->shut))
        return error_set(ECANCELED, "the lock was closed by another thread while this one waited for it");
    if (now >= w->check_at) {
        w->check_at = now + wait_check_ns;
        bool changed = owner_reap(w->lock);
        changed |= claimant_reap(w->lock, w->hold->self);
        if (changed)
            return EAGAIN;
        if (deadlock_check(w, now))
            return error_set(EDEADLK, "waiting for the lock would never end: its holders wait for locks that this "
                                      "thread holds");
    }
    *until = w->deadline < w->check_at ? w->deadline : w->check_at;
    return 0;
}

/* The claimant sleeps on a word of its own. */
static void sleep_as_claimant(struct waiting *w, int64_t until)
{
    struct lock_words *words = w->lock->words;
    uint32_t seen = atomic_load(&words->wake_claimant);
    if ((atomic_load(&words->state) & STATE_OWNER) == 0)
        return;
    (void)futex_wait(&words->wake_claimant, seen, until, w->lock->process_private);
}

/* Sets this waiter's bit and sleeps.  keep_awake: only for a moment, still on watch. */
static void sleep_as_waiter(struct waiting *w, int64_t until, bool keep_awake)
{
    struct lock_words *words = w->lock->words;
    _Atomic uint32_t *word = w->exclusive ? &words->wake_writers : &words->wake_readers;
    uint64_t bit = w->exclusive ? STATE_WRITERS : STATE_READERS;
    uint32_t seen = atomic_load(word);
    uint64_t state = atomic_load(&words->state);
    uint64_t next;
    do {
        if ((state & STATE_LOST) || ((state & STATE_OWNER) == 0 && !wait_reserved(w, state)))
            return; /* free */
        next = (state | bit) & ~(w->awake && !keep_awake ? STATE_AWAKE : 0);
    } while (next != state && !atomic_compare_exchange_strong(&words->state, &state, next));
    if (!keep_awake)
        w->awake = false;
    LOCK_STEP(SLEEPING);
    (void)futex_wait(word, seen, until, w->lock->process_private);
    LOCK_STEP(WOKEN);
    w->sleeps++;
    w->round = 0;
    /* Woken, turned back or timed out: AWAKE may stand on this waiter's account, or on that of one who was killed. */
    w->awake = w->exclusive;
}

static void wait_sleep(struct waiting *w, int64_t until)
{
    struct lock_words *words = w->lock->words;
    if (w->claimant) {
        sleep_as_claimant(w, until);
        return;
    }
    int64_t now = clock_ns();
    bool watch = false;
    if (w->sleeps > 0 && now - w->since >= STARVING_NS) {
        int64_t served = atomic_load(&words->handoff_ns);
        int64_t due = served > now ? now : served + HANDOFF_GAP_NS;
        if (now >= due) {
            if (become_claimant(w)) {
                w->round = 0;
                return;
            }
        } else {
            watch = true;
            until = due < until ? due : until;
        }
    }
    sleep_as_waiter(w, until, watch);
}

/* Worth spinning?  Takes the watch over from the sleepers if nobody has it. */
static bool may_spin(struct waiting *w)
{
    if (w->round >= WAIT_SPIN_ROUNDS)
        return false;
    uint64_t state = atomic_load_explicit(&w->lock->words->state, memory_order_relaxed);
    if (w->claimant || w->awake || !w->exclusive || (state & STATE_WRITERS) == 0)
        return true;
    if (state & STATE_AWAKE)
        return false;
    w->awake = atomic_compare_exchange_strong(&w->lock->words->state, &state, state | STATE_AWAKE);
    return true;
}

int wait_step(struct waiting *w)
{
    if (w->deadline == 0) {
        bool changed = owner_reap(w->lock);
        changed |= claimant_reap(w->lock, w->hold->self);
        return changed ? 0 : EBUSY;
    }
    wait_count(w);
    if (may_spin(w)) {
        wait_spin(w->round++);
        return 0;
    }
    int64_t until;
    int rc = wait_checks(w, &until);
    if (rc != 0)
        return rc == EAGAIN ? 0 : rc;
    wait_sleep(w, until);
    return 0;
}
