/*
 * More threads than slots (lock/slots.c): threads of one process share a slot, and share the lock at the same time; a
 * process that comes late finds a slot; only when even the reserve is gone does a shared request own the lock.
 */
#include "world.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "lock/futex.h"
#include "lock/handle.h"

TestSuite(crowd, .timeout = 120);

/* A thread that does as it is told. */
struct puppet {
    pthread_t thread;
    struct rwlock *lock;
    _Atomic int order; /* 0: done */
    int64_t deadline;
    int result;
};

enum { SHARE = 1, OWN, UNLOCK, END };

static void *puppet_main(void *arg)
{
    struct puppet *puppet = arg;
    for (;;) {
        int order = atomic_load(&puppet->order);
        if (order == END)
            return NULL;
        if (order == 0) {
            sleep_ns(20000);
            continue;
        }
        puppet->result =
            order == UNLOCK ? rwlock_unlock(puppet->lock) : rwlock_lock(puppet->lock, order == OWN, puppet->deadline);
        atomic_store(&puppet->order, 0);
    }
}

static void puppet_start(struct puppet *puppet, struct rwlock *lock)
{
    *puppet = (struct puppet){.lock = lock};
    cr_assert_eq(pthread_create(&puppet->thread, NULL, puppet_main, puppet), 0);
}

static int puppet_result(struct puppet *puppet)
{
    while (atomic_load(&puppet->order) != 0)
        sleep_ns(20000);
    return puppet->result;
}

static int puppet_does(struct puppet *puppet, int order)
{
    atomic_store(&puppet->order, order);
    return puppet_result(puppet);
}

/* The thread ends, whatever it holds. */
static void puppet_end(struct puppet *puppet)
{
    atomic_store(&puppet->order, END);
    pthread_join(puppet->thread, NULL);
}

/* What L13 says of the region while nothing is under way. */
static void count_slots(const struct rwlock *lock, unsigned *users, unsigned *flags)
{
    *users = *flags = 0;
    for (unsigned i = 0; i < SLOT_COUNT; i++) {
        *users += atomic_load(&lock->region->slots[i].users);
        *flags += atomic_load(&lock->region->slots[i].shared);
    }
}

static void expect_slots(const struct rwlock *lock, unsigned users, unsigned flags)
{
    unsigned u, f;
    count_slots(lock, &u, &f);
    cr_assert_eq(u, users, "%u users", u);
    cr_assert_eq(f, flags, "%u flags", f);
}

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

/* Two puppets and this thread, in one slot: the first puppet's. */
static void one_slot(struct rwlock *lock, struct puppet *a, struct puppet *b)
{
    puppet_start(a, lock);
    OK(puppet_does(a, SHARE));
    OK(puppet_does(a, UNLOCK));
    slots_use_up(lock, true, 0);
    puppet_start(b, lock);
    expect_slots(lock, 1, 0);
    OK(puppet_does(b, SHARE));
    OK(rwlock_lock(lock, false, 0));
    OK(puppet_does(a, SHARE));
    expect_slots(lock, 3, 3);
}

static void shares_at_once(struct rwlock *lock)
{
    struct puppet a, b;
    one_slot(lock, &a, &b);
    FAILS(EBUSY, puppet_does(&a, OWN)); /* the others of its own slot are in its way */
    OK(puppet_does(&a, UNLOCK));
    FAILS(EBUSY, puppet_does(&a, OWN));
    OK(rwlock_unlock(lock));
    b.deadline = DEADLINE_NEVER;
    OK(puppet_does(&b, OWN)); /* alone: the upgrade; its own part is in nobody's way */
    FAILS(EBUSY, rwlock_lock(lock, false, 0));
    OK(puppet_does(&b, UNLOCK));
    OK(rwlock_lock(lock, false, 0));
    expect_slots(lock, 3, 2);
    atomic_store(&b.order, OWN); /* waits for this thread, in the same slot */
    sleep_ns(30000000);
    cr_assert_eq(atomic_load(&b.order), OWN);
    OK(rwlock_unlock(lock));
    OK(puppet_result(&b));
    OK(puppet_does(&b, UNLOCK));
    OK(puppet_does(&b, UNLOCK));
    expect_slots(lock, 3, 0);
    puppet_end(&a);
    puppet_end(&b);
    expect_slots(lock, 1, 0);
    OK(rwlock_lock(lock, true, 0));
    OK(rwlock_unlock(lock));
}

Test(crowd, L13_threads_of_one_slot_share_at_the_same_time)
{
    everywhere(shares_at_once);
}

/* Threads that end while they share: the one that took the slot first, then one that joined. */
static void ends_inside(struct rwlock *lock)
{
    struct puppet a, b;
    one_slot(lock, &a, &b);
    puppet_end(&a);
    expect_slots(lock, 2, 2);
    OK(rwlock_unlock(lock));
    FAILS(EBUSY, rwlock_lock(lock, true, 0)); /* b shares still */
    puppet_end(&b);
    expect_slots(lock, 1, 0);
    OK(rwlock_lock(lock, true, 0));
    OK(rwlock_unlock(lock));
}

Test(crowd, L13_a_thread_that_ends_takes_only_its_own_part_along)
{
    everywhere(ends_inside);
}

static int count_shares(const struct rwlock_info *info, void *arg)
{
    cr_assert_eq(info->pid, getpid());
    cr_assert_eq(info->tid, 0, "nobody knows which thread of a crowd shares");
    cr_assert(!info->waiting && !info->exclusive && info->alive);
    ++*(unsigned *)arg;
    return 0;
}

static void is_listed(struct rwlock *lock)
{
    struct puppet a, b;
    unsigned listed = 0;
    one_slot(lock, &a, &b);
    OK(rwlock_each(lock, count_shares, &listed));
    cr_assert_eq(listed, 1);
    puppet_end(&a);
    puppet_end(&b);
    OK(rwlock_unlock(lock));
}

Test(crowd, is_listed_as_its_process)
{
    everywhere(is_listed);
}

Test(crowd, a_process_that_comes_late_finds_a_slot_until_the_reserve_is_gone)
{
    struct world world;
    struct member full, late, last;
    world_make(&world);
    member_join(&world, &full, PRESENCE_WRITER);
    member_join(&world, &late, PRESENCE_WRITER);
    member_join(&world, &last, PRESENCE_WRITER);
    slots_use_up(full.lock, false, 1);
    OK(rwlock_lock(full.lock, false, 0)); /* joins */
    OK(rwlock_lock(late.lock, false, 0)); /* a first slot of its own */
    FAILS(EBUSY, rwlock_lock(last.lock, true, 0));
    slots_use_up(full.lock, true, 0);
    FAILS(EBUSY, rwlock_lock(last.lock, false, 0)); /* owns in fact, so it waits for those who share; not an error */
    OK(rwlock_unlock(late.lock));
    OK(rwlock_unlock(full.lock));
    OK(rwlock_lock(last.lock, false, 0));
    cr_assert(rwlock_held(last.lock) && !rwlock_held_exclusive(last.lock));
    FAILS(EBUSY, rwlock_lock(full.lock, false, 0));
    OK(rwlock_unlock(last.lock));
    OK(rwlock_lock(full.lock, false, 0));
    OK(rwlock_unlock(full.lock));
    member_leave(&last);
    member_leave(&late);
    member_leave(&full);
    world_end(&world);
}

enum { SHARING };

static int share_until_killed(struct world *world, void *arg)
{
    (void)arg;
    struct member self;
    struct puppet a, b;
    member_join(world, &self, PRESENCE_WRITER);
    one_slot(self.lock, &a, &b);
    atomic_store(&world->board[SHARING], 1);
    sleep_ns(INT64_C(60000000000));
    return 1;
}

Test(crowd, of_a_killed_process_is_in_nobodys_way)
{
    struct world world;
    struct member self;
    world_make(&world);
    member_join(&world, &self, PRESENCE_WRITER);
    pid_t pid = world_fork(&world, &self, share_until_killed, NULL);
    cr_assert(board_await(&world.board[SHARING], 1));
    FAILS(EBUSY, rwlock_lock(self.lock, true, 0));
    kill(pid, SIGKILL);
    cr_assert_eq(world_wait(pid), 1000 + SIGKILL);
    OK(rwlock_lock(self.lock, true, ms_from_now(SOON_MS)));
    OK(rwlock_unlock(self.lock));
    unsigned users, flags;
    count_slots(self.lock, &users, &flags);
    cr_assert_eq(flags, 0);
    member_leave(&self);
    world_end(&world);
}

/* Every thread shares at the same time: none may be kept out. */

enum { THREADS = FEW_SLOTS + 40 };
static pthread_barrier_t all_in;

static void *share_with_all(void *arg)
{
    struct rwlock *lock = arg;
    intptr_t bad = rwlock_lock(lock, false, 0);
    pthread_barrier_wait(&all_in);
    bad |= rwlock_unlock(lock);
    return (void *)bad;
}

Test(crowd, more_threads_than_slots_share_at_the_same_time)
{
    static pthread_t threads[THREADS];
    struct rwlock *lock = private_lock();
    slots_leave_few(lock);
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 128 << 10);
    pthread_barrier_init(&all_in, NULL, THREADS);
    for (int i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_create(&threads[i], &attr, share_with_all, lock), 0);
    for (int i = 0; i < THREADS; i++) {
        void *result;
        pthread_join(threads[i], &result);
        cr_assert_eq(result, NULL);
    }
    expect_slots(lock, 0, 0);
    OK(rwlock_close(lock));
}
