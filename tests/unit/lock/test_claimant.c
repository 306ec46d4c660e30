/*
 * The claimant, for whom the lock is reserved: it is named once, served or gone without, and then somebody else may be.
 *
 * Method: a thread, or a process, waits while the lock is held until it has claimed it (lock_step_hook counts); whoever
 * holds does not let go before.  A wait that ended before that is made again, twice as long.
 */
#include "world.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "lock/futex.h"

#if STEAD_CHECKS >= 2

TestSuite(claimant, .timeout = 240);

static _Atomic unsigned claims; /* of this process, HANDOFF set */

static void count_claims(enum lock_step step)
{
    if (step == LOCK_STEP_HANDOFF_SET)
        atomic_fetch_add(&claims, 1);
}

struct waiter {
    struct rwlock *lock;
    bool exclusive;
    int64_t deadline;
    pthread_t thread;
    int result;
};

static void *wait_and_leave(void *arg)
{
    struct waiter *waiter = arg;
    waiter->result = rwlock_lock(waiter->lock, waiter->exclusive, waiter->deadline);
    return waiter->result == 0 && rwlock_unlock(waiter->lock) != 0 ? (void *)waiter : NULL;
}

static void waiter_start(struct waiter *waiter, struct rwlock *lock, bool exclusive, int64_t deadline)
{
    *waiter = (struct waiter){.lock = lock, .exclusive = exclusive, .deadline = deadline};
    cr_assert_eq(pthread_create(&waiter->thread, NULL, wait_and_leave, waiter), 0);
}

static void waiter_end(struct waiter *waiter, int result)
{
    void *failed;
    cr_assert_eq(pthread_join(waiter->thread, &failed), 0);
    cr_assert_null(failed);
    cr_assert_eq(waiter->result, result, "%d: %s", waiter->result, error_text(waiter->result));
}

static void claim_and_time_out(struct rwlock *lock, bool exclusive)
{
    unsigned before = atomic_load(&claims);
    for (int ms = 50; atomic_load(&claims) == before; ms *= 2) {
        struct waiter waiter;
        cr_assert_lt(ms, SOON_MS, "nobody may claim the lock any more");
        waiter_start(&waiter, lock, exclusive, ms_from_now(ms));
        waiter_end(&waiter, ETIMEDOUT);
    }
}

static void claim_and_be_served(struct rwlock *lock, bool exclusive)
{
    unsigned before = atomic_load(&claims);
    struct waiter waiter;
    waiter_start(&waiter, lock, exclusive, DEADLINE_NEVER);
    int64_t until = clock_ns() + SOON_NS;
    while (atomic_load(&claims) == before) {
        cr_assert_lt(clock_ns(), until, "nobody may claim the lock any more");
        sleep_ns(1000000);
    }
    OK(rwlock_unlock(lock));
    waiter_end(&waiter, 0);
    OK(rwlock_lock(lock, true, 0)); /* reserved for nobody */
}

/* Each way out of a claim, one after the other: after each a try gets the lock, and the next one may claim it. */
Test(claimant, L7_one_that_is_through_with_it_reserves_nothing)
{
    struct rwlock *lock = private_lock();
    lock_step_hook = count_claims;
    OK(rwlock_lock(lock, true, 0));
    for (unsigned i = 0; i < 8; i++) {
        if (i % 4 < 2)
            claim_and_time_out(lock, i % 2 != 0);
        else
            claim_and_be_served(lock, i % 2 != 0);
        OK(rwlock_unlock(lock));
        OK(rwlock_lock(lock, false, 0));
        OK(rwlock_unlock(lock));
        OK(rwlock_lock(lock, true, 0));
    }
    OK(rwlock_unlock(lock));
    OK(rwlock_close(lock));
}

static enum lock_step fatal_step;

static void die_at(enum lock_step step)
{
    if (step == fatal_step)
        kill(getpid(), SIGKILL);
}

static int claim_and_die(struct world *world, void *arg)
{
    const bool *exclusive = arg;
    struct member self;
    member_join(world, &self, PRESENCE_WRITER);
    lock_step_hook = die_at;
    return rwlock_lock(self.lock, *exclusive, ms_from_now(SOON_MS));
}

/* Nobody waits any more who could take its place: whoever comes next finds it dead, be it by a try. */
Test(claimant, L7_a_dead_one_reserves_nothing)
{
    static const enum lock_step steps[] = {LOCK_STEP_CLAIMANT_SET, LOCK_STEP_HANDOFF_SET};
    for (unsigned i = 0; i < 4; i++) {
        bool exclusive = i / 2 != 0;
        struct world world;
        struct member self;
        world_make(&world);
        member_join(&world, &self, PRESENCE_WRITER);
        fatal_step = steps[i % 2];
        OK(rwlock_lock(self.lock, true, 0));
        cr_assert_eq(world_wait(world_fork(&world, &self, claim_and_die, &exclusive)), 1000 + SIGKILL);
        OK(rwlock_unlock(self.lock));
        OK(rwlock_lock(self.lock, true, 0));
        OK(rwlock_unlock(self.lock));
        OK(rwlock_lock(self.lock, false, 0));
        OK(rwlock_unlock(self.lock));
        lock_step_hook = count_claims;
        OK(rwlock_lock(self.lock, true, 0));
        claim_and_time_out(self.lock, true);
        lock_step_hook = NULL;
        OK(rwlock_unlock(self.lock));
        member_leave(&self);
        world_end(&world);
    }
}

#endif
