/*
 * Cycles of waiting over several locks: in one process, across processes, through a chain of three, with oneself by
 * another handle.  Exactly one of the waiting gets EDEADLK, soon; the others get their locks.  And no
 * cycle is seen where there is none, under load (L12).
 */
#include "world.h"

#include <errno.h>
#include <signal.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "lock/deadlock.h"
#include "lock/futex.h"
#include "lock/slots.h"

TestSuite(deadlock, .timeout = 120);

/* ---- threads of one process ---- */

enum { RING_MAX = 5 };

struct ring {
    struct rwlock *locks[RING_MAX];
    unsigned count;
    bool first_shared, second_shared;
    pthread_barrier_t barrier;
    _Atomic unsigned deadlocks, successes;
};

struct ring_thread {
    struct ring *ring;
    unsigned at;
};

/* Holds lock `at`, wants the next one. */
static void *ring_main(void *arg)
{
    struct ring_thread *self = arg;
    struct ring *ring = self->ring;
    struct rwlock *mine = ring->locks[self->at], *next = ring->locks[(self->at + 1) % ring->count];
    intptr_t bad = rwlock_lock(mine, !ring->first_shared, DEADLINE_NEVER);
    pthread_barrier_wait(&ring->barrier);
    int rc = rwlock_lock(next, !ring->second_shared, DEADLINE_NEVER);
    if (rc == EDEADLK) {
        atomic_fetch_add(&ring->deadlocks, 1);
    } else if (rc == 0) {
        atomic_fetch_add(&ring->successes, 1);
        bad |= rwlock_unlock(next);
    } else {
        bad = rc;
    }
    return (void *)(bad | rwlock_unlock(mine));
}

static void run_ring(struct rwlock *const *locks, unsigned count, bool first_shared, bool second_shared)
{
    struct ring ring = {.count = count, .first_shared = first_shared, .second_shared = second_shared};
    struct ring_thread selves[RING_MAX];
    pthread_t threads[RING_MAX];
    pthread_barrier_init(&ring.barrier, NULL, count);
    for (unsigned i = 0; i < count; i++)
        ring.locks[i] = locks[i];
    for (unsigned i = 0; i < count; i++) {
        selves[i] = (struct ring_thread){&ring, i};
        cr_assert_eq(pthread_create(&threads[i], NULL, ring_main, &selves[i]), 0);
    }
    for (unsigned i = 0; i < count; i++) {
        void *result;
        pthread_join(threads[i], &result);
        cr_assert_eq(result, NULL);
    }
    cr_assert_eq(ring.deadlocks, 1, "%u of %u threads gave up", ring.deadlocks, count);
    cr_assert_eq(ring.successes, count - 1);
    pthread_barrier_destroy(&ring.barrier);
}

Test(deadlock, one_of_a_ring_of_threads_gives_up)
{
    struct rwlock *locks[RING_MAX];
    for (unsigned i = 0; i < RING_MAX; i++)
        locks[i] = private_lock();
    for (unsigned count = 2; count <= RING_MAX; count++) {
        run_ring(locks, count, false, false);
        run_ring(locks, count, true, false); /* holders share, all want to own */
        run_ring(locks, count, false, true);
    }
    for (unsigned i = 0; i < RING_MAX; i++)
        OK(rwlock_close(locks[i]));
}

/* ---- processes ---- */

enum { READY, DEADLOCKS, SUCCESSES, FAULTS };

struct two_worlds {
    struct world a, b;
    bool reverse;
};

static int hold_one_want_other(struct world *world, void *arg)
{
    struct two_worlds *worlds = arg;
    struct member a, b;
    member_join(&worlds->a, &a, PRESENCE_WRITER);
    member_join(&worlds->b, &b, PRESENCE_WRITER);
    struct rwlock *mine = worlds->reverse ? b.lock : a.lock, *next = worlds->reverse ? a.lock : b.lock;
    int rc = rwlock_lock(mine, true, DEADLINE_NEVER);
    atomic_fetch_add(&world->board[READY], 1);
    (void)board_await(&world->board[READY], 2);
    int next_rc = rwlock_lock(next, true, DEADLINE_NEVER);
    if (next_rc == EDEADLK)
        atomic_fetch_add(&world->board[DEADLOCKS], 1);
    else if (next_rc == 0)
        atomic_fetch_add(&world->board[SUCCESSES], 1);
    else
        atomic_fetch_add(&world->board[FAULTS], 1);
    if (next_rc == 0)
        rc |= rwlock_unlock(next);
    rc |= rwlock_unlock(mine);
    member_leave(&a);
    member_leave(&b);
    return rc;
}

Test(deadlock, one_of_two_processes_gives_up)
{
    for (int round = 0; round < 5; round++) {
        struct two_worlds worlds = {.reverse = false};
        world_make(&worlds.a);
        world_make(&worlds.b);
        pid_t one = world_fork(&worlds.a, NULL, hold_one_want_other, &worlds);
        worlds.reverse = true;
        pid_t two = world_fork(&worlds.a, NULL, hold_one_want_other, &worlds);
        cr_assert_eq(world_wait(one), 0);
        cr_assert_eq(world_wait(two), 0);
        cr_assert_eq(atomic_load(&worlds.a.board[FAULTS]), 0);
        cr_assert_eq(atomic_load(&worlds.a.board[DEADLOCKS]), 1);
        cr_assert_eq(atomic_load(&worlds.a.board[SUCCESSES]), 1);
        world_end(&worlds.a);
        world_end(&worlds.b);
    }
}

static int share_and_upgrade(struct world *world, void *arg)
{
    struct member self;
    (void)arg;
    member_join(world, &self, PRESENCE_WRITER);
    int rc = rwlock_lock(self.lock, false, DEADLINE_NEVER);
    return rc != 0 ? rc : rwlock_lock(self.lock, true, DEADLINE_NEVER);
}

struct lone_writer {
    struct rwlock *lock;
    int rc;
};

static void *try_for_a_while(void *arg)
{
    struct lone_writer *writer = arg;
    writer->rc = rwlock_lock(writer->lock, true, ms_from_now(150));
    return NULL;
}

/* A process killed in its upgrade leaves a flag and a wait that look like half a cycle to whoever inherits its ownership. */
Test(deadlock, the_dead_close_no_cycle)
{
    struct world world;
    struct member self;
    world_make(&world);
    member_join(&world, &self, PRESENCE_WRITER);
    for (int round = 0; round < 12; round++) { /* whose number is the greater one is a matter of chance */
        OK(rwlock_lock(self.lock, false, DEADLINE_NEVER));
        pid_t pid = world_fork(&world, &self, share_and_upgrade, NULL);
        cr_assert(waiters_await(self.lock, 1));
        cr_assert_eq(kill(pid, SIGKILL), 0);
        cr_assert_eq(world_wait(pid), 1000 + SIGKILL);
        struct lone_writer writer = {.lock = self.lock};
        pthread_t thread;
        cr_assert_eq(pthread_create(&thread, NULL, try_for_a_while, &writer), 0);
        pthread_join(thread, NULL);
        cr_assert_eq(writer.rc, ETIMEDOUT, "round %d: %d", round, writer.rc);
        OK(rwlock_unlock(self.lock));
        int rc = rwlock_lock(self.lock, true, DEADLINE_NEVER);
        if (rc == EOWNERDEAD)
            OK(rwlock_make_consistent(self.lock));
        else
            cr_assert_eq(rc, 0);
        OK(rwlock_unlock(self.lock));
    }
    member_leave(&self);
    world_end(&world);
}

/* The same lock by two attachments of one process: the thread waits for itself. */
Test(deadlock, waiting_for_oneself_through_another_handle)
{
    struct world world;
    struct member one, two;
    world_make(&world);
    member_join(&world, &one, PRESENCE_WRITER);
    member_join(&world, &two, PRESENCE_WRITER);
    for (int mode = 0; mode < 3; mode++) {
        OK(rwlock_lock(one.lock, mode != 0, 0));
        FAILS(EDEADLK, rwlock_lock(two.lock, mode != 1, DEADLINE_NEVER));
        OK(rwlock_unlock(one.lock));
    }
    OK(rwlock_lock(two.lock, true, 0)); /* nothing was left behind */
    OK(rwlock_unlock(two.lock));
    /* and by two handles of one attachment: seen at once */
    struct rwlock *again;
    struct rwlock_host host = {.region = world.region, .which = RWLOCK_STORE, .presence = one.presence};
    OK(rwlock_open(&again, &host));
    OK(rwlock_lock(one.lock, true, 0));
    FAILS(EDEADLK, rwlock_lock(again, true, DEADLINE_NEVER));
    FAILS(EDEADLK, rwlock_lock(again, false, DEADLINE_NEVER));
    OK(rwlock_unlock(one.lock));
    OK(rwlock_close(again));
    member_leave(&two);
    member_leave(&one);
    world_end(&world);
}

/* ---- words as they stand for a moment only ---- */

enum { SCENE_SLOTS = 100, SCENE_SLOTS_LAST = 104 };

struct scene {
    struct world world;
    struct member self;
    struct rwlock *other; /* RWLOCK_APPLY: this thread owns it */
    struct rwlock_hold hold;
    struct waiting waiting; /* for RWLOCK_STORE, to own it */
    uint32_t tid;
};

static void scene_make(struct scene *scene)
{
    memset(scene, 0, sizeof *scene);
    world_make(&scene->world);
    member_join(&scene->world, &scene->self, PRESENCE_WRITER);
    struct rwlock_host host = {.region = scene->world.region, .which = RWLOCK_APPLY, .presence = scene->self.presence};
    OK(rwlock_open(&scene->other, &host));
    OK(rwlock_lock(scene->other, true, 0));
    uint64_t owner = atomic_load(&scene->other->words->state) & STATE_OWNER;
    scene->tid = owner_tid(owner);
    scene->hold = (struct rwlock_hold){.self = owner};
    wait_begin(&scene->waiting, scene->self.lock, &scene->hold, true, DEADLINE_NEVER);
    scene->waiting.since = 1000;
}

static void scene_end(struct scene *scene)
{
    for (unsigned i = SCENE_SLOTS; i <= SCENE_SLOTS_LAST; i++)
        slot_give_back(scene->self.lock, &scene->world.region->slots[i]);
    OK(rwlock_unlock(scene->other));
    OK(rwlock_close(scene->other));
    member_leave(&scene->self);
    world_end(&scene->world);
}

/* A slot of thread `tid` of this process, as that thread would leave it. */
static struct lock_slot *slot_of_thread(const struct scene *scene, unsigned index, uint32_t tid, struct rwlock *lock)
{
    struct lock_slot *slot = &scene->world.region->slots[index];
    atomic_store(&slot->owner, (uint64_t)lock->id << 32 | tid);
    atomic_store(&slot->which, (uint32_t)lock->which);
    atomic_store(&slot->users, 1);
    slot_make_sharer(lock, slot);
    return slot;
}

static void waits(struct lock_slot *slot, bool exclusive)
{
    atomic_store(&slot->waiting_exclusive, exclusive);
    atomic_store(&slot->waiting_since, 2000);
}

/* Another thread shares STORE and waits for APPLY, which this one owns and waits for STORE with: a cycle.  Whether the flag is
 * a hold, and whose, decides; then, who gives up. */
Test(deadlock, a_flag_that_is_no_hold_closes_no_cycle)
{
    struct scene scene;
    scene_make(&scene);
    struct lock_slot *shares = slot_of_thread(&scene, SCENE_SLOTS, 1, scene.self.lock);
    struct lock_slot *wants = slot_of_thread(&scene, SCENE_SLOTS + 1, 1, scene.other);
    atomic_store(&shares->shared, 1);
    cr_assert_not(deadlock_check(&scene.waiting, 0), "it waits for nothing");
    waits(wants, true);
    cr_assert(deadlock_check(&scene.waiting, 0));
    waits(wants, false);
    cr_assert(deadlock_check(&scene.waiting, 0), "who wants to share waits for the owner, too");
    scene.waiting.exclusive = false;
    cr_assert_not(deadlock_check(&scene.waiting, 0), "sharing goes with sharing");
    scene.waiting.exclusive = true;
    atomic_store(&shares->crowd, 1);
    cr_assert_not(deadlock_check(&scene.waiting, 0), "who of a crowd shares is not known");
    atomic_store(&shares->crowd, 0);
    atomic_store(&shares->shared, 0);
    cr_assert_not(deadlock_check(&scene.waiting, 0), "the flag is down");
    /* This thread is about to own STORE, its other reader tries to share: the flag is up for a moment, in the way of nobody. */
    atomic_store(&wants->waiting_since, 0);
    atomic_fetch_or(&scene.self.lock->words->state, scene.hold.self | STATE_DRAIN | STATE_BIAS);
    atomic_store(&shares->shared, 1);
    waits(shares, true);
    cr_assert(deadlock_check(&scene.waiting, 0), "it shares, and waits to own what this thread waits for");
    waits(shares, false);
    cr_assert_not(deadlock_check(&scene.waiting, 0), "it only tries to share");
    atomic_store(&scene.self.lock->words->state, 0);
    scene_end(&scene);
}

/* Thread `tid` shares STORE and waits for APPLY: where it waits. */
static struct lock_slot *other_half(const struct scene *scene, uint32_t tid)
{
    struct lock_slot *wants = slot_of_thread(scene, SCENE_SLOTS + 1, tid, scene->other);
    atomic_store(&slot_of_thread(scene, SCENE_SLOTS, tid, scene->self.lock)->shared, 1);
    waits(wants, true);
    return wants;
}

Test(deadlock, the_greatest_gives_up_at_once_and_the_others_later)
{
    const int64_t patience = 300000000;
    for (int greatest = 0; greatest <= 1; greatest++) {
        struct scene scene;
        scene_make(&scene);
        uint32_t tid = greatest != 0 ? scene.tid - 1 : scene.tid + 1;
        struct lock_slot *wants = other_half(&scene, tid);
        int64_t now = 5000;
        cr_assert_eq(deadlock_check(&scene.waiting, now), greatest);
        cr_assert_eq(deadlock_check(&scene.waiting, now + patience - 1), greatest);
        cr_assert(deadlock_check(&scene.waiting, now + patience));
        atomic_store(&wants->waiting_since, 0); /* it was resolved: another one begins anew */
        cr_assert_not(deadlock_check(&scene.waiting, now + patience));
        waits(wants, true);
        cr_assert_eq(deadlock_check(&scene.waiting, now + 2 * patience), greatest);
        scene_end(&scene);
    }
}

#if STEAD_CHECKS >= 2

/* Two threads know of their cycle at once, the greatest one because it was slow: what the other does at the step. */
static struct {
    _Atomic int64_t *own, *other; /* since when they wait, as their slots say */
    bool leaves;
    int64_t own_then; /* as it was at the step */
} at_once;

static void leave_at_once(enum lock_step step)
{
    if (step != LOCK_STEP_CYCLE_LEFT)
        return;
    at_once.own_then = atomic_load(at_once.own);
    if (at_once.leaves)
        atomic_store(at_once.other, 0);
}

/* L14.  First it takes its wait back, for the other one to see, then it looks. */
Test(deadlock, of_two_that_give_up_at_once_the_first_is_told)
{
    for (int greatest = 0; greatest <= 1; greatest++) {
        for (int leaves = 0; leaves <= 1; leaves++) {
            struct scene scene;
            scene_make(&scene);
            uint32_t tid = greatest != 0 ? scene.tid - 1 : scene.tid + 1;
            struct lock_slot *wants = other_half(&scene, tid);
            scene.hold.slot = slot_of_thread(&scene, SCENE_SLOTS + 2, scene.tid, scene.self.lock);
            waits(scene.hold.slot, true);
            scene.waiting.since = atomic_load(&scene.hold.slot->waiting_since);
            const int64_t since = scene.waiting.since;
            scene.waiting.cycle_since = 1; /* patience is over */
            at_once.own = &scene.hold.slot->waiting_since;
            at_once.other = &wants->waiting_since;
            at_once.leaves = leaves != 0;
            at_once.own_then = -1;
            lock_step_hook = leave_at_once;
            cr_assert_eq(deadlock_check(&scene.waiting, INT64_C(1) << 40), leaves == 0);
            lock_step_hook = NULL;
            cr_assert_eq(at_once.own_then, 0, "it looks before it can be seen to have left");
            if (leaves == 0) {
                cr_assert_eq(atomic_load(at_once.own), 0, "it waits no more");
            } else {
                cr_assert_gt(atomic_load(at_once.own), since, "it waits on, since another moment");
                cr_assert_eq(scene.waiting.since, atomic_load(at_once.own));
                cr_assert_eq(scene.waiting.cycle_since, 0, "patience begins anew");
            }
            scene_end(&scene);
        }
    }
}

#endif

/* More threads share the lock than are on any path: each is looked at. */
Test(deadlock, a_cycle_is_seen_among_hundreds_of_sharers)
{
    enum { OTHERS_FIRST = 200, OTHERS_LAST = 699 };
    struct scene scene;
    scene_make(&scene);
    for (unsigned i = OTHERS_FIRST; i <= OTHERS_LAST; i++)
        atomic_store(&slot_of_thread(&scene, i, i, scene.self.lock)->shared, 1);
    cr_assert_not(deadlock_check(&scene.waiting, 0), "none of them waits");
    atomic_store(&slot_of_thread(&scene, OTHERS_LAST + 1, 1, scene.self.lock)->shared, 1);
    waits(slot_of_thread(&scene, SCENE_SLOTS, 1, scene.other), true);
    cr_assert(deadlock_check(&scene.waiting, 0));
    for (unsigned i = OTHERS_FIRST; i <= OTHERS_LAST + 1; i++)
        slot_give_back(scene.self.lock, &scene.world.region->slots[i]);
    scene_end(&scene);
}

/* The clock may stand still, and wait_anew() runs ahead of it: a wait is told by a greater number than the last all the same. */
Test(deadlock, no_two_waits_of_a_thread_are_told_alike)
{
    int64_t until;
    struct scene scene;
    scene_make(&scene);
    scene.hold.slot = slot_of_thread(&scene, SCENE_SLOTS, scene.tid, scene.self.lock);
    const int64_t ahead = clock_ns() + INT64_C(1000000000000);
    scene.hold.told = ahead;
    for (int64_t next = ahead + 1; next < ahead + 9; next += 2) {
        wait_begin(&scene.waiting, scene.self.lock, &scene.hold, true, DEADLINE_NEVER);
        OK(wait_checks(&scene.waiting, &until));
        cr_assert_eq(atomic_load(&scene.hold.slot->waiting_since), next);
        wait_anew(&scene.waiting);
        cr_assert_eq(atomic_load(&scene.hold.slot->waiting_since), next + 1);
        wait_end(&scene.waiting, true);
        cr_assert_eq(atomic_load(&scene.hold.slot->waiting_since), 0);
    }
    scene_end(&scene);
}

/* ---- words that change between two looks ---- */

struct restless {
    struct lock_slot *shares, *wants;
    _Atomic bool stop;
};

/* It shares, gives that back, waits for the other lock, has it, and so on: it never holds while it waits. */
static void *share_then_wait(void *arg)
{
    struct restless *restless = arg;
    for (int64_t now = 2000; !atomic_load(&restless->stop); now++) {
        atomic_store(&restless->shares->shared, 1);
        cpu_relax();
        atomic_store(&restless->shares->shared, 0);
        atomic_store(&restless->wants->waiting_since, now);
        cpu_relax();
        atomic_store(&restless->wants->waiting_since, 0);
    }
    return NULL;
}

/* L12.  What is put together from three moments is none: holding, then waiting, then holding again. */
Test(deadlock, a_cycle_of_several_moments_is_none)
{
    struct scene scene;
    pthread_t thread;
    scene_make(&scene);
    struct restless restless = {.shares = slot_of_thread(&scene, SCENE_SLOTS, 1, scene.self.lock),
                                .wants = slot_of_thread(&scene, SCENE_SLOTS + 1, 1, scene.other)};
    waits(restless.wants, true);
    atomic_store(&restless.wants->waiting_since, 0);
    cr_assert_eq(pthread_create(&thread, NULL, share_then_wait, &restless), 0);
    int64_t end = clock_ns() + 500000000 * (int64_t)long_factor();
    for (long checks = 0; clock_ns() < end; checks++)
        cr_assert_not(deadlock_check(&scene.waiting, 0), "after %ld checks", checks);
    atomic_store(&restless.stop, true);
    pthread_join(thread, NULL);
    scene_end(&scene);
}

/* Two claims, of STORE by one thread and of APPLY by another: each is stolen before the other is there. */
struct claims {
    _Atomic uint64_t *words[2];
    uint64_t owners[2];
    struct lock_slot *waits[2];
    _Atomic bool stop;
};

static void *claim_in_turn(void *arg)
{
    struct claims *claims = arg;
    for (int64_t now = 3000; !atomic_load(&claims->stop); now++) {
        for (int i = 0; i < 2; i++) {
            atomic_store(claims->words[1 - i], STATE_BIAS); /* stolen, and the thief went */
            atomic_store(claims->words[i], STATE_BIAS | STATE_DRAIN | claims->owners[i]);
            cpu_relax();
            atomic_store(&claims->waits[1 - i]->waiting_since, now);
            cpu_relax();
        }
    }
    return NULL;
}

/* L12.  This thread shares APPLY and waits to share STORE, whose claimant waits for a reader, which waits for APPLY, whose
 * claimant waits for this thread: half of the time each, never at once. */
Test(deadlock, claims_of_several_moments_close_no_cycle)
{
    struct scene scene;
    pthread_t thread;
    scene_make(&scene);
    OK(rwlock_unlock(scene.other));
    struct rwlock *locks[2] = {scene.self.lock, scene.other};
    struct claims claims = {.stop = false};
    for (unsigned i = 0; i < 2; i++) {
        claims.words[i] = &locks[i]->words->state;
        claims.owners[i] = (uint64_t)locks[i]->id << 32 | (i + 1);
        claims.waits[i] = slot_of_thread(&scene, SCENE_SLOTS + i, i + 1, locks[i]);
        waits(claims.waits[i], true);
    }
    atomic_store(&slot_of_thread(&scene, SCENE_SLOTS + 2, 3, locks[0])->shared, 1);
    waits(slot_of_thread(&scene, SCENE_SLOTS + 3, 3, locks[1]), false);
    struct lock_slot *own = slot_of_thread(&scene, SCENE_SLOTS + 4, scene.tid, locks[1]);
    atomic_store(&own->shared, 1);
    scene.waiting.exclusive = false;
    for (unsigned i = 0; i < 2; i++)
        atomic_store(claims.words[i], STATE_BIAS | STATE_DRAIN | claims.owners[i]);
    cr_assert(deadlock_check(&scene.waiting, 0), "at once, it is one");
    atomic_store(claims.words[1], STATE_BIAS);
    cr_assert_eq(pthread_create(&thread, NULL, claim_in_turn, &claims), 0);
    int64_t end = clock_ns() + 500000000 * (int64_t)long_factor();
    for (long checks = 0; clock_ns() < end; checks++)
        cr_assert_not(deadlock_check(&scene.waiting, 0), "after %ld checks", checks);
    atomic_store(&claims.stop, true);
    pthread_join(thread, NULL);
    for (unsigned i = 0; i < 2; i++)
        atomic_store(claims.words[i], STATE_BIAS);
    atomic_store(&own->shared, 0);
    OK(rwlock_lock(scene.other, true, 0));
    scene_end(&scene);
}

/* ---- no false alarm ---- */

struct orderly {
    struct rwlock *locks[3];
    _Atomic bool stop;
    _Atomic unsigned faults, sections;
};

/* Locks in rising order only: there can be no cycle.  Long sections, so that everybody waits long enough to look. */
static void *orderly_main(void *arg)
{
    struct orderly *orderly = arg;
    uint64_t random = (uint64_t)(uintptr_t)&random;
    while (!atomic_load(&orderly->stop)) {
        unsigned got = 0;
        bool held[3] = {false, false, false};
        for (unsigned i = 0; i < 3; i++) {
            uint64_t dice = random_next(&random);
            if (dice % 4 == 0)
                continue;
            int rc = rwlock_lock(orderly->locks[i], dice % 3 != 0, DEADLINE_NEVER);
            if (rc != 0) {
                atomic_fetch_add(&orderly->faults, 1);
                break;
            }
            held[i] = true;
            got++;
            if (dice % 7 == 0)
                sleep_ns((int64_t)(random_next(&random) % 15000000));
        }
        for (unsigned i = 0; i < 3; i++) {
            if (held[i] && rwlock_unlock(orderly->locks[i]) != 0)
                atomic_fetch_add(&orderly->faults, 1);
        }
        atomic_fetch_add(&orderly->sections, got);
    }
    return NULL;
}

Test(deadlock, no_cycle_is_seen_where_there_is_none)
{
    enum { THREADS = 8 };
    struct orderly orderly = {.stop = false};
    pthread_t threads[THREADS];
    for (unsigned i = 0; i < 3; i++)
        orderly.locks[i] = private_lock();
    for (int i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, orderly_main, &orderly), 0);
    sleep_ns(INT64_C(2000000000) * long_factor());
    while (atomic_load(&orderly.sections) <= 100) /* or the suite's time is up */
        sleep_ns(10000000);
    atomic_store(&orderly.stop, true);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    cr_assert_eq(orderly.faults, 0);
    for (unsigned i = 0; i < 3; i++)
        OK(rwlock_close(orderly.locks[i]));
}
