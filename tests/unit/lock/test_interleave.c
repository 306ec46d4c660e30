/*
 * The races of the lock, one by one, each forced into the order that could break it: one thread is stopped at a
 * labelled step (lock_step_hook) while the other does its part.
 */
#include "world.h"

#include <errno.h>
#include <pthread.h>

#include "lock/futex.h"
#include "lock/handle.h"
#include "lock/region.h"

#if STEAD_CHECKS >= 2

TestSuite(interleave, .timeout = 120);

/* The thread that set stops_here stops at that step until it is let go. */
static _Thread_local bool stops_here;
static enum lock_step stop_step;
static _Atomic int gate; /* 0 open, 1 armed, 2 somebody stands there, 3 go on */

static void stop_at(enum lock_step step)
{
    int armed = 1;
    if (!stops_here || step != stop_step || !atomic_compare_exchange_strong(&gate, &armed, 2))
        return;
    while (atomic_load(&gate) != 3)
        sleep_ns(20000);
    atomic_store(&gate, 0);
}

static void arm(enum lock_step step)
{
    stop_step = step;
    atomic_store(&gate, 1);
    lock_step_hook = stop_at;
}

static bool somebody_stands_there(void)
{
    int64_t deadline = clock_ns() + SOON_NS;
    while (atomic_load(&gate) != 2) {
        if (clock_ns() > deadline)
            return false;
        sleep_ns(20000);
    }
    return true;
}

static void let_go(void)
{
    atomic_store(&gate, 3);
}

struct runner {
    pthread_t thread;
    struct rwlock *lock;
    bool exclusive, upgrade;
    int64_t deadline;
    _Atomic int result; /* -1 while it runs */
    _Atomic bool inside, leave;
};

static void *runner_main(void *arg)
{
    struct runner *runner = arg;
    stops_here = true;
    int rc = rwlock_lock(runner->lock, runner->exclusive, runner->deadline);
    if (rc == 0 && runner->upgrade)
        rc = rwlock_lock(runner->lock, true, runner->deadline);
    atomic_store(&runner->inside, rc == 0);
    while (rc == 0 && !atomic_load(&runner->leave))
        sleep_ns(20000);
    atomic_store(&runner->inside, false);
    if (rc == 0)
        rc = rwlock_unlock(runner->lock);
    if (rc == 0 && runner->upgrade)
        rc = rwlock_unlock(runner->lock);
    atomic_store(&runner->result, rc);
    return NULL;
}

static void runner_start(struct runner *runner, struct rwlock *lock, bool exclusive, bool stay)
{
    *runner =
        (struct runner){.lock = lock, .exclusive = exclusive, .deadline = DEADLINE_NEVER, .result = -1, .leave = !stay};
    cr_assert_eq(pthread_create(&runner->thread, NULL, runner_main, runner), 0);
}

static void runner_end(struct runner *runner, int result)
{
    atomic_store(&runner->leave, true);
    pthread_join(runner->thread, NULL);
    cr_assert_eq(atomic_load(&runner->result), result);
}

/* A reader raises its flag, an owner claims and looks: it must wait for the flag, the reader must withdraw (L3, L4). */
Test(interleave, reader_between_flag_and_look_meets_an_owner)
{
    struct rwlock *lock = private_lock();
    OK(rwlock_lock(lock, false, 0)); /* the bias is on: fast ways only */
    OK(rwlock_unlock(lock));
    struct runner reader;
    arm(LOCK_STEP_SHARED_FLAGGED);
    runner_start(&reader, lock, false, true);
    cr_assert(somebody_stands_there());
    FAILS(EBUSY, rwlock_lock(lock, true, 0)); /* a flag that is up is respected */
    FAILS(ETIMEDOUT, rwlock_lock(lock, true, ms_from_now(20)));
    let_go();
    while (!atomic_load(&reader.inside))
        sleep_ns(20000);
    FAILS(EBUSY, rwlock_lock(lock, true, 0));
    runner_end(&reader, 0);
    OK(rwlock_lock(lock, true, 0));
    OK(rwlock_unlock(lock));
    OK(rwlock_close(lock));
}

/* An owner stands between claim and look: no reader comes in (L3). */
Test(interleave, owner_between_claim_and_look_keeps_readers_out)
{
    struct rwlock *lock = private_lock();
    struct runner owner;
    arm(LOCK_STEP_CLAIMED);
    runner_start(&owner, lock, true, true);
    cr_assert(somebody_stands_there());
    FAILS(EBUSY, rwlock_lock(lock, false, 0));
    FAILS(EBUSY, rwlock_lock(lock, true, 0));
    FAILS(ETIMEDOUT, rwlock_lock(lock, false, ms_from_now(20)));
    let_go();
    runner_end(&owner, 0);
    OK(rwlock_lock(lock, false, 0));
    OK(rwlock_unlock(lock));
    OK(rwlock_close(lock));
}

/* A reader leaves between its owner's DRAIN and sleep, and the other way round: no wake-up is lost (L8). */
Test(interleave, reader_leaves_while_the_owner_falls_asleep)
{
    only_wake_ups_wake();
    struct rwlock *lock = private_lock();
    OK(rwlock_lock(lock, false, 0));
    struct runner owner;
    arm(LOCK_STEP_DRAINING);
    runner_start(&owner, lock, true, false);
    cr_assert(somebody_stands_there());
    OK(rwlock_unlock(lock)); /* sees DRAIN, bumps the word the owner has read already */
    let_go();
    runner_end(&owner, 0);
    OK(rwlock_close(lock));
}

/* A waiter has set its bit and not yet slept when the lock is released: it must not sleep (L8). */
Test(interleave, release_between_a_waiters_bit_and_its_sleep)
{
    only_wake_ups_wake();
    for (int exclusive = 0; exclusive <= 1; exclusive++) {
        struct rwlock *lock = private_lock();
        OK(rwlock_lock(lock, true, 0));
        struct runner waiter;
        arm(LOCK_STEP_SLEEPING);
        runner_start(&waiter, lock, exclusive != 0, false);
        cr_assert(somebody_stands_there());
        OK(rwlock_unlock(lock));
        OK(rwlock_lock(lock, true, 0)); /* overtaken ... */
        OK(rwlock_unlock(lock));        /* ... and released again */
        let_go();
        runner_end(&waiter, 0);
        OK(rwlock_close(lock));
    }
}

/*
 * The stolen claim.  W claims and stands before its look; R, who shares, takes the owner word from it, runs, and leaves
 * altogether; a new reader N comes in.  W's look must not take the words as its own (L4).
 */
Test(interleave, writer_whose_claim_was_stolen_notices)
{
    only_wake_ups_wake();
    struct rwlock *lock = private_lock();
    OK(rwlock_lock(lock, false, 0));
    struct runner writer;
    arm(LOCK_STEP_CLAIMED);
    runner_start(&writer, lock, true, false);
    cr_assert(somebody_stands_there());
    OK(rwlock_lock(lock, true, DEADLINE_NEVER)); /* steals */
    OK(rwlock_unlock(lock));
    OK(rwlock_unlock(lock));
    OK(rwlock_lock(lock, true, 0)); /* and owns again, in its own right */
    let_go();
    sleep_ns(20000000);
    cr_assert_eq(atomic_load(&writer.result), -1, "the writer waits");
    cr_assert(rwlock_held_exclusive(lock));
    OK(rwlock_unlock(lock));
    runner_end(&writer, 0);
    OK(rwlock_close(lock));
}

/* A claimant names itself and stands before HANDOFF: the others go on; then they do not pass it any more (L7). */
Test(interleave, claimant_is_not_overtaken_once_it_said_so)
{
    only_wake_ups_wake();
    struct rwlock *lock = private_lock();
    struct runner starving;
    arm(LOCK_STEP_HANDOFF_SET);
    OK(rwlock_lock(lock, true, 0));
    runner_start(&starving, lock, true, true);
    cr_assert(waiters_await(lock, 1));
    int64_t deadline = clock_ns() + SOON_NS / 2;
    int rc = 0;
    while (rc == 0 && clock_ns() < deadline && atomic_load(&gate) != 2 && !atomic_load(&starving.inside)) {
        sleep_ns(2000000); /* long sections: it starves */
        OK(rwlock_unlock(lock));
        rc = rwlock_lock(lock, true, 0);
    }
    if (atomic_load(&gate) == 2) { /* else luck gave it the lock, and there is nothing to see */
        if (rc == 0)
            OK(rwlock_unlock(lock));
        FAILS(EBUSY, rwlock_lock(lock, true, 0));
        FAILS(EBUSY, rwlock_lock(lock, false, 0));
        FAILS(ETIMEDOUT, rwlock_lock(lock, true, ms_from_now(20)));
        let_go();
        while (!atomic_load(&starving.inside))
            sleep_ns(20000);
    } else if (rc == 0) {
        OK(rwlock_unlock(lock));
    }
    runner_end(&starving, 0);
    OK(rwlock_lock(lock, false, 0)); /* HANDOFF is gone with it */
    OK(rwlock_unlock(lock));
    OK(rwlock_close(lock));
}

/* A slot between being taken and being shown to owners: its flag is down, owners pass; then it is looked at (L5). */
Test(interleave, slot_taken_but_not_yet_shown)
{
    struct rwlock *lock = private_lock();
    OK(rwlock_lock(lock, true, 0)); /* our own slot is taken before the gate is armed */
    OK(rwlock_unlock(lock));
    struct runner reader;
    arm(LOCK_STEP_SLOT_TAKEN);
    runner_start(&reader, lock, false, true);
    cr_assert(somebody_stands_there());
    OK(rwlock_lock(lock, true, 0));
    OK(rwlock_unlock(lock));
    let_go();
    while (!atomic_load(&reader.inside))
        sleep_ns(20000);
    FAILS(EBUSY, rwlock_lock(lock, true, 0));
    runner_end(&reader, 0);
    OK(rwlock_close(lock));
}

/* Upgrade against downgrade: an upgrader asks while the first one is on its way back to sharing. */
Test(interleave, upgrade_behind_an_upgrade_that_ends)
{
    struct rwlock *lock = private_lock();
    struct runner first;
    first =
        (struct runner){.lock = lock, .exclusive = false, .upgrade = true, .deadline = DEADLINE_NEVER, .result = -1};
    arm(LOCK_STEP_RELEASED);
    cr_assert_eq(pthread_create(&first.thread, NULL, runner_main, &first), 0);
    while (!atomic_load(&first.inside))
        sleep_ns(20000);
    atomic_store(&first.leave, true);
    cr_assert(somebody_stands_there()); /* the owner word is free, its flag still up */
    OK(rwlock_lock(lock, false, 0));
    FAILS(EBUSY, rwlock_lock(lock, true, 0)); /* waits for a reader now, not EDEADLK */
    let_go();
    OK(rwlock_lock(lock, true, ms_from_now(SOON_MS)));
    runner_end(&first, 0);
    OK(rwlock_unlock(lock));
    OK(rwlock_unlock(lock));
    OK(rwlock_close(lock));
}

/* The owner goes in time, the waiter is kept from looking until its time is up: it looks all the same, and gets it. */
static void lock_that_is_free_in_time(bool first_shared, bool exclusive)
{
    struct rwlock *lock = private_lock();
    struct runner late;
    OK(rwlock_lock(lock, !first_shared, 0));
    arm(LOCK_STEP_STILL_WAITS);
    late = (struct runner){.lock = lock, .exclusive = exclusive, .deadline = ms_from_now(20), .result = -1};
    cr_assert_eq(pthread_create(&late.thread, NULL, runner_main, &late), 0);
    cr_assert(somebody_stands_there());
    OK(rwlock_unlock(lock));
    while (!deadline_over(late.deadline))
        sleep_ns(1000000);
    let_go();
    runner_end(&late, 0);
    OK(rwlock_close(lock));
}

Test(interleave, a_lock_that_was_given_up_in_time_is_had_however_late_one_looks)
{
    lock_that_is_free_in_time(false, true);
    lock_that_is_free_in_time(false, false);
    lock_that_is_free_in_time(true, true);
}

/* How long a waiter looks for cycles before one that is not the greatest of its threads gives up: some 0.3 s. */
#define CYCLE_MS 700

/* L12.  An upgrader gives up, for another reader, and goes on sharing: it stands between its claim's end and its return.  Who
 * claims next waits for its flag, and it for nobody. */
Test(interleave, an_upgrade_that_was_given_up_closes_no_cycle)
{
    struct rwlock *lock = private_lock();
    struct runner reader, upgrader, writer;
    runner_start(&reader, lock, false, true);
    while (!atomic_load(&reader.inside))
        sleep_ns(20000);
    arm(LOCK_STEP_RELEASED);
    upgrader = (struct runner){.lock = lock, .upgrade = true, .deadline = ms_from_now(30), .result = -1};
    cr_assert_eq(pthread_create(&upgrader.thread, NULL, runner_main, &upgrader), 0);
    cr_assert(somebody_stands_there());
    /* Which of two threads has the greater number decides who gives up at once: one asks on each side. */
    runner_start(&writer, lock, true, true);
    FAILS(ETIMEDOUT, rwlock_lock(lock, true, ms_from_now(CYCLE_MS)));
    cr_assert_eq(atomic_load(&writer.result), -1, "the writer waits");
    let_go();
    pthread_join(upgrader.thread, NULL); /* its end gives up what it shares */
    cr_assert_eq(atomic_load(&upgrader.result), ETIMEDOUT);
    runner_end(&reader, 0);
    runner_end(&writer, 0);
    OK(rwlock_close(lock));
}

struct sharer_of_two {
    pthread_t thread;
    struct rwlock *owned, *shared;
    _Atomic int result;
};

static void *own_one_share_other(void *arg)
{
    struct sharer_of_two *sharer = arg;
    stops_here = true;
    int rc = rwlock_lock(sharer->owned, true, DEADLINE_NEVER);
    rc = rc != 0 ? rc : rwlock_lock(sharer->shared, false, DEADLINE_NEVER);
    rc = rc != 0 ? rc : rwlock_unlock(sharer->shared);
    rc = rc != 0 ? rc : rwlock_unlock(sharer->owned);
    atomic_store(&sharer->result, rc);
    return NULL;
}

/* L12.  A thread that owns B has just come to share A, and its wait for A still stands there.  A's next claimant waits for
 * this thread, which shares A and waits for B: no cycle, for the owner of B goes on. */
Test(interleave, a_reader_that_just_came_in_closes_no_cycle)
{
    struct rwlock *a = private_lock(), *b = private_lock();
    struct sharer_of_two sharer = {.owned = b, .shared = a, .result = -1};
    OK(rwlock_lock(a, true, 0));
    arm(LOCK_STEP_SHARED_GRANTED);
    cr_assert_eq(pthread_create(&sharer.thread, NULL, own_one_share_other, &sharer), 0);
    cr_assert(waiters_await(a, 1));
    OK(rwlock_unlock(a));
    cr_assert(somebody_stands_there());
    OK(rwlock_lock(a, false, 0));
    struct runner claimant;
    runner_start(&claimant, a, true, true);
    cr_assert(waiters_await(a, 2)); /* as if: the reader's is a word that was left */
    FAILS(ETIMEDOUT, rwlock_lock(b, true, ms_from_now(CYCLE_MS)));
    cr_assert_eq(atomic_load(&claimant.result), -1, "the claimant waits");
    let_go();
    pthread_join(sharer.thread, NULL);
    cr_assert_eq(atomic_load(&sharer.result), 0);
    OK(rwlock_lock(b, true, 0));
    OK(rwlock_unlock(b));
    OK(rwlock_unlock(a));
    runner_end(&claimant, 0);
    OK(rwlock_close(a));
    OK(rwlock_close(b));
}

static int64_t first_wait(const struct rwlock *lock)
{
    for (unsigned i = 0; i < SLOT_COUNT; i++) {
        int64_t since = atomic_load(&lock->region->slots[i].waiting_since);
        if (since != 0)
            return since;
    }
    return 0;
}

/* L12.  A claim that was stolen and is taken again is not the one that was seen. */
Test(interleave, a_wait_whose_claim_was_stolen_is_another)
{
    struct rwlock *lock = private_lock();
    struct runner reader, writer;
    runner_start(&reader, lock, false, true);
    while (!atomic_load(&reader.inside))
        sleep_ns(20000);
    OK(rwlock_lock(lock, false, 0));
    runner_start(&writer, lock, true, true);
    cr_assert(waiters_await(lock, 1));
    int64_t since = first_wait(lock), now = since;
    FAILS(EBUSY, rwlock_lock(lock, true, 0)); /* steals, finds the reader, gives up */
    for (int64_t deadline = clock_ns() + SOON_NS; now == since && clock_ns() < deadline; now = first_wait(lock))
        sleep_ns(20000);
    cr_assert_gt(now, since);
    OK(rwlock_unlock(lock));
    runner_end(&reader, 0);
    runner_end(&writer, 0);
    OK(rwlock_close(lock));
}

#endif
