/*
 * What happens around a lock: fork while holding, signals while waiting, cancellation, the companion byte, regions that
 * other processes see.
 */
#include "world.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "lock/bytes.h"
#include "lock/futex.h"
#include "lock/region.h"

TestSuite(around, .timeout = 120);

/* ---- fork ---- */

static int child_has_nothing(struct world *world, void *arg)
{
    (void)world;
    struct member *inherited = arg;
    if (rwlock_held(inherited->lock) || rwlock_held_exclusive(inherited->lock) ||
        rwlock_used_by_process(inherited->lock))
        return 1;
    if (rwlock_unlock(inherited->lock) != EPERM || rwlock_lock(inherited->lock, false, 0) != EPERM ||
        rwlock_lock(inherited->lock, true, 0) != EPERM || rwlock_make_consistent(inherited->lock) != EPERM)
        return 2;
    rwlock_forget(inherited->lock);
    presence_forget(inherited->presence);
    close(inherited->fd);
    struct member own; /* it may attach anew, as somebody else */
    member_join(world, &own, PRESENCE_WRITER);
    if (rwlock_lock(own.lock, true, 0) != EBUSY || rwlock_lock(own.lock, true, ms_from_now(20)) != ETIMEDOUT)
        return 3;
    member_leave(&own);
    return 0;
}

Test(around, a_fork_child_has_nothing_and_takes_nothing_away)
{
    for (int exclusive = 0; exclusive <= 1; exclusive++) {
        struct world world;
        struct member self;
        world_make(&world);
        member_join(&world, &self, PRESENCE_WRITER);
        OK(rwlock_lock(self.lock, exclusive != 0, 0));
        cr_assert_eq(world_wait(world_fork(&world, NULL, child_has_nothing, &self)), 0);
        cr_assert(rwlock_held(self.lock));
        cr_assert_eq(rwlock_held_exclusive(self.lock), exclusive != 0);
        OK(rwlock_unlock(self.lock));
        OK(rwlock_lock(self.lock, true, 0));
        OK(rwlock_unlock(self.lock));
        cr_assert_eq(presence_dead_writers(self.presence, false), 0);
        member_leave(&self);
        world_end(&world);
    }
}

static int die_after_fork(struct world *world, void *arg)
{
    struct member self;
    member_join(world, &self, PRESENCE_WRITER);
    if (rwlock_lock(self.lock, true, 0) != 0)
        return 1;
    const int *test_lives = arg;
    int pipe_ends[2];
    if (pipe(pipe_ends) != 0)
        return 2;
    close(test_lives[1]);
    pid_t child = fork(); /* outlives us; as the library's own fork handler does, it closes the descriptor */
    if (child == 0) {
        char end;
        close(self.fd);
        close(pipe_ends[0]);
        (void)!write(pipe_ends[1], "x", 1);
        (void)!read(test_lives[0], &end, 1);
        _exit(0);
    }
    char byte;
    (void)!read(pipe_ends[0], &byte, 1);
    kill(getpid(), SIGKILL);
    return 3;
}

Test(around, a_fork_child_keeps_no_dead_owner_alive)
{
    struct world world;
    struct member self;
    int test_lives[2]; /* the child's child stays until this test is over */
    world_make(&world);
    member_join(&world, &self, PRESENCE_WRITER);
    cr_assert_eq(pipe(test_lives), 0);
    cr_assert_eq(world_wait(world_fork(&world, &self, die_after_fork, test_lives)), 1000 + SIGKILL);
    FAILS(EOWNERDEAD, rwlock_lock(self.lock, true, ms_from_now(SOON_MS)));
    OK(rwlock_make_consistent(self.lock));
    OK(rwlock_unlock(self.lock));
    member_leave(&self);
    world_end(&world);
}

/* ---- signals and cancellation ---- */

struct waiter {
    struct rwlock *lock;
    bool exclusive;
    int64_t deadline;
    _Atomic int result;
};

static _Atomic unsigned handled;

static void count_signal(int number)
{
    (void)number;
    atomic_fetch_add(&handled, 1);
}

static void *wait_main(void *arg)
{
    struct waiter *waiter = arg;
    int rc = rwlock_lock(waiter->lock, waiter->exclusive, waiter->deadline);
    if (rc == 0)
        rc = rwlock_unlock(waiter->lock);
    atomic_store(&waiter->result, rc);
    return NULL;
}

Test(around, signal_handlers_interrupt_waits_without_ending_them)
{
    struct sigaction action = {.sa_handler = count_signal};
    sigaction(SIGUSR1, &action, NULL);
    struct rwlock *lock = private_lock();
    for (int exclusive = 0; exclusive <= 1; exclusive++) {
        struct waiter waiter = {lock, exclusive != 0, DEADLINE_NEVER, -1};
        pthread_t thread;
        OK(rwlock_lock(lock, true, 0));
        cr_assert_eq(pthread_create(&thread, NULL, wait_main, &waiter), 0);
        cr_assert(waiters_await(lock, 1));
        unsigned before = atomic_load(&handled);
        for (int i = 0; i < 50 || atomic_load(&handled) == before; i++) {
            pthread_kill(thread, SIGUSR1);
            sleep_ns(1000000);
        }
        cr_assert_eq(atomic_load(&waiter.result), -1, "still waiting");
        OK(rwlock_unlock(lock));
        pthread_join(thread, NULL);
        cr_assert_eq(atomic_load(&waiter.result), 0);
    }
    OK(rwlock_close(lock));
}

Test(around, a_wait_is_no_cancellation_point)
{
    struct rwlock *lock = private_lock();
    struct waiter waiter = {lock, true, DEADLINE_NEVER, -1};
    pthread_t thread;
    OK(rwlock_lock(lock, true, 0));
    cr_assert_eq(pthread_create(&thread, NULL, wait_main, &waiter), 0);
    cr_assert(waiters_await(lock, 1));
    pthread_cancel(thread);
    sleep_ns(20000000);
    cr_assert_eq(atomic_load(&waiter.result), -1);
    OK(rwlock_unlock(lock));
    pthread_join(thread, NULL);
    cr_assert_eq(atomic_load(&waiter.result), 0, "%d: it must get the lock and give it back before it is cancelled",
                 atomic_load(&waiter.result));
    OK(rwlock_close(lock));
}

/* ---- the companion byte (L11) ---- */

static int reopen(int fd, int flags)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return open(path, flags | O_CLOEXEC);
}

Test(around, companion_byte_follows_the_exclusive_section)
{
    struct world world;
    struct member self;
    world_make(&world);
    member_join(&world, &self, PRESENCE_WRITER);
    struct rwlock *apply;
    struct rwlock_host host = {
        .region = world.region, .which = RWLOCK_APPLY, .presence = self.presence, .fd = self.fd, .companion = true};
    OK(rwlock_open(&apply, &host));
    int reader = reopen(world.fd, O_RDONLY);
    OK(lock_byte_take(reader, LOCK_BYTE_APPLY, LOCK_BYTE_READ, 0));
    FAILS(EBUSY, rwlock_lock(apply, true, 0));
    FAILS(ETIMEDOUT, rwlock_lock(apply, true, ms_from_now(20)));
    cr_assert_not(rwlock_held(apply));
    OK(rwlock_lock(apply, false, 0)); /* sharing goes with sharing */
    FAILS(EBUSY, rwlock_lock(apply, true, 0));
    cr_assert(rwlock_held(apply) && !rwlock_held_exclusive(apply));
    OK(lock_byte_drop(reader, LOCK_BYTE_APPLY));
    OK(rwlock_lock(apply, true, 0)); /* upgrade */
    FAILS(EBUSY, lock_byte_take(reader, LOCK_BYTE_APPLY, LOCK_BYTE_READ, 0));
    OK(rwlock_lock(apply, true, 0));
    OK(rwlock_unlock(apply));
    FAILS(EBUSY, lock_byte_take(reader, LOCK_BYTE_APPLY, LOCK_BYTE_READ, 0));
    OK(rwlock_unlock(apply)); /* back to sharing: the byte is free */
    OK(lock_byte_take(reader, LOCK_BYTE_APPLY, LOCK_BYTE_READ, 0));
    OK(lock_byte_drop(reader, LOCK_BYTE_APPLY));
    OK(rwlock_unlock(apply));
    OK(rwlock_lock(apply, true, 0));
    OK(rwlock_unlock(apply));
    cr_assert_not(lock_byte_taken(reader, LOCK_BYTE_APPLY, 1));
    cr_assert_not(lock_byte_taken(reader, LOCK_BYTE_QUEUE, 1));
    OK(rwlock_lock(self.lock, true, 0)); /* STORE and APPLY are two locks */
    OK(rwlock_lock(apply, false, 0));
    OK(rwlock_unlock(apply));
    OK(rwlock_unlock(self.lock));
    OK(rwlock_close(apply));
    close(reader);
    member_leave(&self);
    world_end(&world);
}

static void *end_owning(void *arg)
{
    return (void *)(intptr_t)rwlock_lock(arg, true, 0);
}

Test(around, companion_byte_goes_with_a_thread_that_ends)
{
    struct world world;
    struct member self;
    world_make(&world);
    member_join(&world, &self, PRESENCE_WRITER);
    struct rwlock *apply;
    struct rwlock_host host = {
        .region = world.region, .which = RWLOCK_APPLY, .presence = self.presence, .fd = self.fd, .companion = true};
    OK(rwlock_open(&apply, &host));
    pthread_t thread;
    void *result;
    cr_assert_eq(pthread_create(&thread, NULL, end_owning, apply), 0);
    pthread_join(thread, &result);
    cr_assert_eq(result, NULL);
    int reader = reopen(world.fd, O_RDONLY);
    cr_assert_not(lock_byte_taken(reader, LOCK_BYTE_APPLY, 1));
    FAILS(EOWNERDEAD, rwlock_lock(apply, false, 0));
    OK(rwlock_make_consistent(apply));
    cr_assert(lock_byte_taken(reader, LOCK_BYTE_APPLY, 1), "held exclusively: the byte too");
    OK(rwlock_unlock(apply));
    cr_assert_not(lock_byte_taken(reader, LOCK_BYTE_APPLY, 1));
    OK(rwlock_close(apply));
    close(reader);
    member_leave(&self);
    world_end(&world);
}
