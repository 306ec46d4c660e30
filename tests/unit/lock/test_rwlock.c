/*
 * The rules of the lock as one thread or two see them: nesting, upgrades, tries, timeouts, who may do what.
 * Each test runs on a private lock and, where it says "everywhere", on one in shared memory as well.
 */
#include "world.h"

#include <errno.h>
#include <pthread.h>
#include <unistd.h>

#include "lock/futex.h"
#include "lock/region.h"

TestSuite(rwlock, .timeout = 120);

static void everywhere(void (*body)(struct rwlock *lock))
{
    struct rwlock *lock = private_lock();
    body(lock);
    OK(rwlock_close(lock));
    struct world world;
    struct member member;
    world_make(&world);
    member_join(&world, &member, PRESENCE_WRITER);
    body(member.lock);
    member_leave(&member);
    world_end(&world);
}

/* Another thread that does as it is told, so that "somebody else holds it" is exact. */
struct other {
    pthread_t thread;
    struct rwlock *lock;
    _Atomic int order; /* 1 shared, 2 exclusive, 3 unlock, 4 end; 0 = done */
    _Atomic int result;
    int64_t deadline;
};

static void *other_main(void *arg)
{
    struct other *other = arg;
    for (;;) {
        int order = atomic_load(&other->order);
        if (order == 0) {
            sleep_ns(20000);
            continue;
        }
        if (order == 4)
            return NULL;
        int rc = order == 3 ? rwlock_unlock(other->lock) : rwlock_lock(other->lock, order == 2, other->deadline);
        atomic_store(&other->result, rc);
        atomic_store(&other->order, 0);
    }
}

static void other_start(struct other *other, struct rwlock *lock)
{
    other->lock = lock;
    other->deadline = DEADLINE_NEVER;
    atomic_init(&other->order, 0);
    atomic_init(&other->result, 0);
    cr_assert_eq(pthread_create(&other->thread, NULL, other_main, other), 0);
}

static void other_tell(struct other *other, int order)
{
    atomic_store(&other->order, order);
}

static int other_result(struct other *other)
{
    while (atomic_load(&other->order) != 0)
        sleep_ns(20000);
    return atomic_load(&other->result);
}

static int other_does(struct other *other, int order)
{
    other_tell(other, order);
    return other_result(other);
}

static void other_end(struct other *other)
{
    (void)other_result(other);
    other_tell(other, 4);
    pthread_join(other->thread, NULL);
}

enum { SHARE = 1, OWN = 2, UNLOCK = 3 };

static void nests(struct rwlock *lock)
{
    FAILS(EPERM, rwlock_unlock(lock));
    OK(rwlock_lock(lock, true, DEADLINE_NEVER));
    OK(rwlock_lock(lock, false, 0));
    OK(rwlock_lock(lock, true, 0));
    cr_assert(rwlock_held(lock) && rwlock_held_exclusive(lock) && rwlock_used_by_process(lock));
    cr_assert_not(rwlock_unlock_ends_exclusive(lock));
    OK(rwlock_unlock(lock));
    OK(rwlock_unlock(lock));
    cr_assert(rwlock_unlock_ends_exclusive(lock));
    OK(rwlock_unlock(lock));
    cr_assert_not(rwlock_held(lock));
    FAILS(EPERM, rwlock_unlock(lock));

    OK(rwlock_lock(lock, false, DEADLINE_NEVER));
    OK(rwlock_lock(lock, false, DEADLINE_NEVER));
    cr_assert(rwlock_held(lock) && !rwlock_held_exclusive(lock));
    OK(rwlock_lock(lock, true, DEADLINE_NEVER)); /* upgrade */
    OK(rwlock_lock(lock, false, DEADLINE_NEVER));
    cr_assert(rwlock_held_exclusive(lock));
    OK(rwlock_unlock(lock));
    cr_assert(rwlock_unlock_ends_exclusive(lock));
    OK(rwlock_unlock(lock));
    cr_assert(rwlock_held(lock) && !rwlock_held_exclusive(lock), "back to the two shared levels");
    OK(rwlock_unlock(lock));
    OK(rwlock_unlock(lock));
    FAILS(EPERM, rwlock_unlock(lock));
    cr_assert_not(rwlock_used_by_process(lock));
}

Test(rwlock, nests_in_any_mix)
{
    everywhere(nests);
}

/* Counted at once or not at all: never a level that would touch the words, never the last of its kind. */
static void nests_at_once(struct rwlock *lock)
{
    cr_assert_not(rwlock_nest(lock, false) || rwlock_nest(lock, true) || rwlock_unnest(lock), "nothing is held");
    OK(rwlock_lock(lock, false, DEADLINE_NEVER));
    cr_assert_not(rwlock_unnest(lock), "the last shared level lowers the flag");
    cr_assert_not(rwlock_nest(lock, true), "an upgrade waits for others");
    cr_assert(rwlock_nest(lock, false));
    cr_assert_eq(rwlock_levels(lock), 2);
    OK(rwlock_lock(lock, true, DEADLINE_NEVER));
    cr_assert_not(rwlock_unnest(lock), "back to sharing wakes others");
    cr_assert(rwlock_nest(lock, false) && rwlock_nest(lock, true));
    cr_assert_eq(rwlock_levels(lock), 5);
    cr_assert(rwlock_unnest(lock) && rwlock_unnest(lock));
    cr_assert(rwlock_unlock_ends_exclusive(lock));
    OK(rwlock_unlock(lock));
    cr_assert(rwlock_unnest(lock));
    cr_assert(rwlock_held(lock) && !rwlock_held_exclusive(lock));
    OK(rwlock_unlock(lock));
    cr_assert_not(rwlock_unnest(lock) || rwlock_used_by_process(lock));
}

Test(rwlock, a_nested_level_is_a_count)
{
    everywhere(nests_at_once);
}

static void excludes(struct rwlock *lock)
{
    struct other other;
    other_start(&other, lock);
    OK(other_does(&other, OWN));
    cr_assert_not(rwlock_held(lock));
    FAILS(EPERM, rwlock_unlock(lock));
    FAILS(EBUSY, rwlock_lock(lock, true, 0));
    FAILS(EBUSY, rwlock_lock(lock, false, 0));
    int64_t begin = clock_ns();
    FAILS(ETIMEDOUT, rwlock_lock(lock, true, ms_from_now(30)));
    FAILS(ETIMEDOUT, rwlock_lock(lock, false, ms_from_now(30)));
    cr_assert(clock_ns() - begin >= 60000000);
    OK(other_does(&other, UNLOCK));
    OK(rwlock_lock(lock, true, 0));
    OK(rwlock_unlock(lock));
    OK(other_does(&other, SHARE));
    FAILS(EBUSY, rwlock_lock(lock, true, 0));
    FAILS(ETIMEDOUT, rwlock_lock(lock, true, ms_from_now(30)));
    OK(rwlock_lock(lock, false, 0));
    FAILS(EBUSY, rwlock_lock(lock, true, 0));
    FAILS(ETIMEDOUT, rwlock_lock(lock, true, ms_from_now(30)));
    cr_assert(rwlock_held(lock) && !rwlock_held_exclusive(lock), "a failed upgrade keeps the shared lock");
    OK(other_does(&other, UNLOCK));
    OK(rwlock_lock(lock, true, 0));
    OK(rwlock_unlock(lock));
    OK(rwlock_unlock(lock));
    other_end(&other);
}

Test(rwlock, excludes_tries_and_times_out)
{
    everywhere(excludes);
}

static void exclusive_goes_on_shared(struct rwlock *lock)
{
    struct other other;
    other_start(&other, lock);
    FAILS(rwlock_share_on(lock), EPERM);
    for (int round = 0; round < 3; round++) {
        OK(rwlock_lock(lock, true, 0));
        OK(rwlock_lock(lock, false, 0));
        FAILS(rwlock_share_on(lock), EPERM);
        OK(rwlock_unlock(lock));
        other_tell(&other, 1); /* waits */
        OK(rwlock_share_on(lock));
        cr_assert(rwlock_held(lock) && !rwlock_held_exclusive(lock));
        cr_assert_eq(rwlock_levels(lock), 1);
        FAILS(rwlock_share_on(lock), EPERM);
        OK(other_result(&other)); /* beside this one */
        FAILS(rwlock_lock(lock, true, 0), EBUSY);
        other_tell(&other, 3);
        OK(other_result(&other));
        other.deadline = 0;
        other_tell(&other, 2);
        cr_assert_eq(other_result(&other), EBUSY, "an owner came in beside one that shares");
        OK(rwlock_lock(lock, true, 0)); /* an upgrade as any other */
        OK(rwlock_unlock(lock));
        OK(rwlock_unlock(lock));
        FAILS(rwlock_unlock(lock), EPERM);
        other_tell(&other, 2);
        OK(other_result(&other));
        other_tell(&other, 3);
        OK(other_result(&other));
        other.deadline = DEADLINE_NEVER;
    }
    other_tell(&other, 4);
    pthread_join(other.thread, NULL);
}

Test(rwlock, exclusive_goes_on_shared)
{
    everywhere(exclusive_goes_on_shared);
}

static void upgrades(struct rwlock *lock)
{
    struct other other;
    other_start(&other, lock);
    OK(rwlock_lock(lock, false, DEADLINE_NEVER));
    OK(other_does(&other, SHARE));
    other_tell(&other, OWN); /* the first upgrader waits for us */
    cr_assert(waiters_await(lock, 1));
    FAILS(EDEADLK, rwlock_lock(lock, true, DEADLINE_NEVER));
    FAILS(EDEADLK, rwlock_lock(lock, true, 0));
    OK(rwlock_lock(lock, false, DEADLINE_NEVER)); /* nested: no deadlock */
    OK(rwlock_unlock(lock));
    OK(rwlock_unlock(lock));
    OK(other_result(&other));
    FAILS(EBUSY, rwlock_lock(lock, false, 0));
    OK(other_does(&other, UNLOCK));
    OK(rwlock_lock(lock, false, 0));
    OK(rwlock_unlock(lock));
    OK(other_does(&other, UNLOCK));
    other_end(&other);
}

Test(rwlock, second_upgrader_is_told_at_once)
{
    everywhere(upgrades);
}

static void overtakes(struct rwlock *lock)
{
    struct other writer;
    other_start(&writer, lock);
    OK(rwlock_lock(lock, false, DEADLINE_NEVER));
    other_tell(&writer, OWN); /* owns the word, waits for our flag */
    cr_assert(waiters_await(lock, 1));
    OK(rwlock_lock(lock, true, DEADLINE_NEVER)); /* it waits for us: we go first */
    cr_assert(rwlock_held_exclusive(lock));
    cr_assert_eq(atomic_load(&writer.order), OWN, "the writer still waits");
    OK(rwlock_unlock(lock));
    OK(rwlock_unlock(lock));
    OK(other_result(&writer));
    OK(other_does(&writer, UNLOCK));
    other_end(&writer);
}

Test(rwlock, upgrader_goes_before_a_writer_that_waits_for_it)
{
    everywhere(overtakes);
}

static void writer_blocks_new_readers(struct rwlock *lock)
{
    struct other writer, reader;
    other_start(&writer, lock);
    other_start(&reader, lock);
    OK(rwlock_lock(lock, false, DEADLINE_NEVER));
    other_tell(&writer, OWN);
    cr_assert(waiters_await(lock, 1));
    reader.deadline = 0;
    FAILS(EBUSY, other_does(&reader, SHARE));
    OK(rwlock_unlock(lock));
    OK(other_result(&writer));
    OK(other_does(&writer, UNLOCK));
    reader.deadline = DEADLINE_NEVER;
    OK(other_does(&reader, SHARE));
    OK(other_does(&reader, UNLOCK));
    other_end(&writer);
    other_end(&reader);
}

Test(rwlock, waiting_writer_is_not_starved_by_new_readers)
{
    everywhere(writer_blocks_new_readers);
}

/* ---- threads that end, closes ---- */

static void *hold_and_end(void *arg)
{
    struct rwlock **lock = arg;
    return (void *)(intptr_t)rwlock_lock(*lock, lock[1] != NULL, DEADLINE_NEVER);
}

static void end_while_holding(struct rwlock *lock, bool exclusive)
{
    pthread_t thread;
    struct rwlock *arg[2] = {lock, exclusive ? lock : NULL};
    void *result;
    cr_assert_eq(pthread_create(&thread, NULL, hold_and_end, arg), 0);
    pthread_join(thread, &result);
    cr_assert_eq(result, NULL);
}

static void thread_ends(struct rwlock *lock)
{
    end_while_holding(lock, false);
    OK(rwlock_lock(lock, true, 0)); /* a dead reader is nobody */
    FAILS(EINVAL, rwlock_make_consistent(lock));
    OK(rwlock_unlock(lock));
    end_while_holding(lock, true);
    FAILS(EOWNERDEAD, rwlock_lock(lock, true, 0));
    OK(rwlock_lock(lock, false, 0));
    OK(rwlock_unlock(lock));
    OK(rwlock_make_consistent(lock));
    FAILS(EINVAL, rwlock_make_consistent(lock));
    OK(rwlock_unlock(lock));
    OK(rwlock_lock(lock, false, 0));
    FAILS(EPERM, rwlock_make_consistent(lock));
    OK(rwlock_unlock(lock));
    end_while_holding(lock, true);
    FAILS(EOWNERDEAD, rwlock_lock(lock, false, DEADLINE_NEVER)); /* asked to share: given it exclusively */
    cr_assert(rwlock_held_exclusive(lock));
    OK(rwlock_unlock(lock)); /* without repair */
    FAILS(ENOTRECOVERABLE, rwlock_lock(lock, true, 0));
    FAILS(ENOTRECOVERABLE, rwlock_lock(lock, false, DEADLINE_NEVER));
    cr_assert_not(rwlock_held(lock));
}

Test(rwlock, thread_that_ends_while_holding_is_a_dead_holder)
{
    everywhere(thread_ends);
}

static void passes_on(struct rwlock *lock)
{
    FAILS(EPERM, rwlock_pass_on(lock));
    OK(rwlock_lock(lock, true, 0));
    FAILS(EINVAL, rwlock_pass_on(lock));
    OK(rwlock_unlock(lock));
    end_while_holding(lock, true);
    for (int i = 0; i < 3; i++) {
        FAILS(EOWNERDEAD, rwlock_lock(lock, i % 2 == 0, 0));
        OK(rwlock_pass_on(lock)); /* the next one is told as well */
        cr_assert_eq(rwlock_levels(lock), 0);
    }
    FAILS(EOWNERDEAD, rwlock_lock(lock, true, 0));
    OK(rwlock_make_consistent(lock));
    OK(rwlock_lock(lock, false, 0));
    cr_assert_eq(rwlock_levels(lock), 2);
    OK(rwlock_unlock(lock));
    OK(rwlock_unlock(lock));
}

Test(rwlock, a_death_passed_on_is_told_to_the_next_one)
{
    everywhere(passes_on);
}

static void not_recoverable_wakes_everybody(struct rwlock *lock)
{
    struct other a, b;
    only_wake_ups_wake();
    other_start(&a, lock);
    other_start(&b, lock);
    end_while_holding(lock, true);
    FAILS(EOWNERDEAD, rwlock_lock(lock, true, DEADLINE_NEVER));
    other_tell(&a, SHARE);
    other_tell(&b, OWN);
    cr_assert(waiters_await(lock, 2));
    OK(rwlock_unlock(lock));
    FAILS(ENOTRECOVERABLE, other_result(&a));
    FAILS(ENOTRECOVERABLE, other_result(&b));
    other_end(&a);
    other_end(&b);
}

Test(rwlock, unrepaired_unlock_releases_waiters_with_enotrecoverable)
{
    everywhere(not_recoverable_wakes_everybody);
}

Test(rwlock, close_is_refused_while_held_or_waited_for)
{
    struct rwlock *lock = private_lock();
    struct other other;
    other_start(&other, lock);
    OK(rwlock_lock(lock, true, 0));
    other_tell(&other, SHARE);
    cr_assert(waiters_await(lock, 1));
    FAILS(EBUSY, rwlock_close(lock));
    OK(rwlock_unlock(lock));
    OK(other_result(&other));
    FAILS(EBUSY, rwlock_close(lock)); /* the other thread shares */
    OK(other_does(&other, UNLOCK));
    OK(rwlock_close(lock));
    other_end(&other);
}

Test(rwlock, entries_of_a_closed_handle_mean_nothing_to_the_next_one)
{
    for (int i = 0; i < 100; i++) {
        struct rwlock *a = private_lock();
        struct rwlock *b = private_lock();
        OK(rwlock_lock(a, true, 0));
        FAILS(EPERM, rwlock_unlock(b));
        OK(rwlock_unlock(a));
        OK(rwlock_close(a));
        struct rwlock *c = private_lock(); /* a's index */
        cr_assert_not(rwlock_held(c));
        FAILS(EPERM, rwlock_unlock(c));
        OK(rwlock_close(b));
        OK(rwlock_close(c));
    }
}

Test(rwlock, many_handles_in_one_thread)
{
    enum { HANDLES = 40 };
    struct rwlock *locks[HANDLES];
    for (int i = 0; i < HANDLES; i++) {
        locks[i] = private_lock();
        OK(rwlock_lock(locks[i], i % 2 == 0, 0));
    }
    for (int i = 0; i < HANDLES; i++)
        cr_assert_eq(rwlock_held_exclusive(locks[i]), i % 2 == 0);
    for (int i = 0; i < HANDLES; i++) {
        OK(rwlock_unlock(locks[i]));
        OK(rwlock_close(locks[i]));
    }
}

static int collect(const struct rwlock_info *info, void *arg)
{
    struct rwlock_info *out = arg;
    while (out->id != 0)
        out++;
    *out = *info;
    return 0;
}

Test(rwlock, tells_who_holds_and_who_waits_since_when)
{
    struct world world;
    struct member member;
    world_make(&world);
    member_join(&world, &member, PRESENCE_WRITER);
    struct other other;
    other_start(&other, member.lock);
    OK(rwlock_lock(member.lock, true, 0));
    int64_t before = clock_ns();
    other_tell(&other, SHARE);
    cr_assert(waiters_await(member.lock, 1));
    struct rwlock_info info[4] = {{.id = 0}};
    OK(rwlock_each(member.lock, collect, info));
    cr_assert_eq(info[0].id, presence_id(member.presence));
    cr_assert(info[0].exclusive && !info[0].waiting && info[0].alive);
    cr_assert_eq(info[0].pid, getpid());
    cr_assert_eq(info[0].tid, gettid());
    cr_assert(info[1].waiting && !info[1].exclusive && info[1].alive);
    cr_assert_neq(info[1].tid, gettid());
    cr_assert(info[1].since_ns >= before && info[1].since_ns <= clock_ns());
    cr_assert_eq(info[2].id, 0);
    OK(rwlock_unlock(member.lock));
    OK(other_result(&other));
    struct rwlock_info after[4] = {{.id = 0}};
    OK(rwlock_each(member.lock, collect, after));
    cr_assert(!after[0].waiting && !after[0].exclusive && after[0].tid == info[1].tid);
    cr_assert_eq(after[1].id, 0);
    OK(other_does(&other, UNLOCK));
    other_end(&other);
    member_leave(&member);
    world_end(&world);
}

/* ---- more threads than slots ---- */

static _Atomic unsigned crowd_in;
static pthread_barrier_t crowd_barrier;
static uint64_t crowd_counter;

static void *crowd_main(void *arg)
{
    struct rwlock *lock = arg;
    intptr_t bad = rwlock_lock(lock, false, DEADLINE_NEVER);
    bad |= !rwlock_held(lock) || rwlock_held_exclusive(lock);
    bad |= rwlock_unlock(lock);
    pthread_barrier_wait(&crowd_barrier); /* everybody keeps its slot until all had theirs */
    for (int i = 0; i < 3; i++) {
        bad |= rwlock_lock(lock, true, DEADLINE_NEVER);
        crowd_counter++;
        bad |= rwlock_unlock(lock);
        bad |= rwlock_lock(lock, false, DEADLINE_NEVER);
        int rc = rwlock_lock(lock, true, 0); /* may fail beside other readers */
        if (rc == 0) {
            crowd_counter++;
            atomic_fetch_add(&crowd_in, 1);
            bad |= rwlock_unlock(lock);
            bad |= rwlock_held_exclusive(lock);
        }
        bad |= rwlock_unlock(lock);
    }
    return (void *)bad;
}

Test(rwlock, more_threads_than_slots_still_lock)
{
    enum { THREADS = FEW_SLOTS + 40 };
    static pthread_t threads[THREADS];
    struct rwlock *lock = private_lock();
    slots_leave_few(lock);
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 128 << 10);
    pthread_barrier_init(&crowd_barrier, NULL, THREADS);
    for (int i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_create(&threads[i], &attr, crowd_main, lock), 0);
    for (int i = 0; i < THREADS; i++) {
        void *result;
        pthread_join(threads[i], &result);
        cr_assert_eq(result, NULL);
    }
    cr_assert_eq(crowd_counter, THREADS * 3 + atomic_load(&crowd_in));
    OK(rwlock_close(lock));
}

Test(rwlock, a_try_and_a_timeout_inside_an_exclusive_section_are_levels)
{
    struct rwlock *a = private_lock();
    OK(rwlock_lock(a, true, 0));
    OK(rwlock_lock(a, true, ms_from_now(1)));
    OK(rwlock_unlock(a));
    OK(rwlock_unlock(a));
    OK(rwlock_close(a));
}
