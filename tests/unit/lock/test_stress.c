/*
 * Everybody at once: no update is lost, readers never see a half-made one, nobody waits for ever; in one process
 * and in several, undisturbed and with processes killed all the time.
 * STEAD_SEED repeats the choices (not the schedule), STEAD_LONG=1 runs ten times longer.
 */
#include "world.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lock/futex.h"

TestSuite(stress, .timeout = 300);

/* What the lock promises is a second.  A thread also waits for a processor, and 24 of them one after the other for a machine
 * that stands still now and then: the longest wait is printed, and measured in bench/; no test fails by it. */

/* Data under the lock: plain words, so that TSan judges the lock by them. */
struct shared_data {
    uint64_t left, right; /* equal whenever nobody owns the lock */
    uint64_t pad[6];
};

/* board: words 0..7 the data, then */
enum { STOP = 16, WORST_NS, FAULTS, DONE, DEATHS, OWNED, UNDER_WAY };

#define SECTIONS_LEAST 100 /* or nothing was shown: there are so many, however slow the machine is */

struct actor {
    struct world *world;
    struct rwlock *lock;
    struct shared_data *data;
    uint64_t random;
    uint64_t owned;
    bool gentle; /* no upgrades, tries or timeouts: every request must succeed */
    bool stays;  /* inside now and then for so long that others fall asleep */
};

static void fault(struct world *world, const char *what, int rc)
{
    fprintf(stderr, "fault: %s: %d (%s)\n", what, rc, error_text(rc));
    atomic_fetch_add(&world->board[FAULTS], 1);
}

static void note(struct world *world, int64_t begin)
{
    uint64_t waited = (uint64_t)(clock_ns() - begin);
    uint64_t worst = atomic_load(&world->board[WORST_NS]);
    while (waited > worst && !atomic_compare_exchange_weak(&world->board[WORST_NS], &worst, waited))
        ;
}

static void dawdle(struct actor *actor)
{
    uint64_t dice = random_next(&actor->random);
    if (actor->stays && dice % 8 == 0)
        sleep_ns((int64_t)(dice >> 8) % 300000);
    else if (dice % 64 == 0)
        sched_yield();
}

/* The lock is owned, after result rc. */
static void change(struct actor *actor, int rc)
{
    struct shared_data *data = actor->data;
    if (rc == EOWNERDEAD) {
        atomic_fetch_add(&actor->world->board[DEATHS], 1);
        data->right = data->left;
        if (rwlock_make_consistent(actor->lock) != 0)
            fault(actor->world, "make_consistent", 0);
    }
    if (data->left != data->right)
        fault(actor->world, "an owner sees a half-made change", 0);
    data->left++;
    dawdle(actor);
    data->right++;
    actor->owned++;
    atomic_fetch_add_explicit(&actor->world->board[UNDER_WAY], 1, memory_order_relaxed);
}

static void look(struct actor *actor)
{
    struct shared_data *data = actor->data;
    uint64_t left = data->left;
    dawdle(actor);
    if (left != data->right)
        fault(actor->world, "a reader sees a half-made change", 0);
}

static void unlock(struct actor *actor)
{
    int rc = rwlock_unlock(actor->lock);
    if (rc != 0)
        fault(actor->world, "unlock", rc);
}

/* One of all the ways to use the lock. */
static void act(struct actor *actor)
{
    uint64_t dice = random_next(&actor->random);
    int64_t begin = clock_ns();
    int64_t deadline = DEADLINE_NEVER;
    if (!actor->gentle && dice % 16 == 0)
        deadline = dice % 32 == 0 ? 0 : ms_from_now((int)(dice >> 32) % 3);
    bool own = (dice >> 8) % 4 == 0;
    int rc = rwlock_lock(actor->lock, own, deadline);
    if (deadline == DEADLINE_NEVER)
        note(actor->world, begin);
    if (rc == EOWNERDEAD || (rc == 0 && own)) {
        change(actor, rc);
        if ((dice >> 16) % 4 == 0 && rwlock_lock(actor->lock, (dice >> 18) % 2 != 0, 0) == 0) {
            change(actor, 0);
            unlock(actor);
        }
        unlock(actor);
        return;
    }
    if (rc != 0) {
        if (deadline == DEADLINE_NEVER || (rc != EBUSY && rc != ETIMEDOUT))
            fault(actor->world, "lock", rc);
        return;
    }
    look(actor);
    if (!actor->gentle && (dice >> 20) % 8 == 0) {
        rc = rwlock_lock(actor->lock, true, (dice >> 24) % 2 ? DEADLINE_NEVER : ms_from_now(2));
        if (rc == 0 || rc == EOWNERDEAD) {
            change(actor, rc);
            unlock(actor);
            look(actor);
        } else if (rc != EDEADLK && rc != ETIMEDOUT) {
            fault(actor->world, "upgrade", rc);
        }
    }
    unlock(actor);
}

static void *actor_main(void *arg)
{
    struct actor *actor = arg;
    while (atomic_load(&actor->world->board[STOP]) == 0)
        act(actor);
    atomic_fetch_add(&actor->world->board[OWNED], actor->owned);
    return NULL;
}

/* n threads in this process until STOP. */
static void run_threads(struct world *world, struct rwlock *lock, unsigned n, bool gentle, uint64_t seed)
{
    enum { THREADS_MAX = 64 };
    pthread_t threads[THREADS_MAX];
    struct actor actors[THREADS_MAX];
    for (unsigned i = 0; i < n; i++) {
        actors[i] = (struct actor){
            .world = world, .lock = lock, .data = (void *)world->board, .random = seed + i * 1000003, .gentle = gentle};
        if (pthread_create(&threads[i], NULL, actor_main, &actors[i]) != 0)
            fault(world, "pthread_create", errno);
    }
    for (unsigned i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
}

static void stop_after(struct world *world, int64_t ns)
{
    sleep_ns(ns * long_factor());
    while (atomic_load(&world->board[UNDER_WAY]) <= SECTIONS_LEAST)
        sleep_ns(10000000);
    atomic_store(&world->board[STOP], 1);
}

static void *stop_later(void *arg)
{
    stop_after(arg, 1500000000);
    return NULL;
}

static void verdict(struct world *world, uint64_t owned)
{
    const struct shared_data *data = (const void *)world->board;
    cr_assert_eq(atomic_load(&world->board[FAULTS]), 0);
    cr_assert_eq(data->left, data->right);
    cr_assert_eq(data->left, owned, "an update was lost");
    cr_assert_gt(owned, SECTIONS_LEAST);
    fprintf(stderr, "%llu exclusive sections, longest wait %llu ms\n", (unsigned long long)owned,
            (unsigned long long)atomic_load(&world->board[WORST_NS]) / 1000000);
}

Test(stress, threads_of_one_process)
{
    uint64_t seed = seed_get();
    static const unsigned crowds[] = {2, 5, 24};
    for (unsigned i = 0; i < 3; i++) {
        struct world world;
        world_make(&world);
        struct rwlock *lock = private_lock();
        pthread_t clock;
        cr_assert_eq(pthread_create(&clock, NULL, stop_later, &world), 0);
        run_threads(&world, lock, crowds[i], false, seed + i);
        pthread_join(clock, NULL);
        verdict(&world, atomic_load(&world.board[OWNED]));
        OK(rwlock_close(lock));
        world_end(&world);
    }
}

/* More threads than slots: all in two of them (slots.c, L13). */
Test(stress, threads_that_share_slots)
{
    uint64_t seed = seed_get();
    struct world world;
    world_make(&world);
    struct rwlock *lock = private_lock();
    pthread_t clock;
    slots_use_up(lock, true, 2);
    cr_assert_eq(pthread_create(&clock, NULL, stop_later, &world), 0);
    run_threads(&world, lock, 9, false, seed);
    pthread_join(clock, NULL);
    verdict(&world, atomic_load(&world.board[OWNED]));
    OK(rwlock_lock(lock, true, 0)); /* all have left, and nobody's flag stayed up */
    OK(rwlock_unlock(lock));
    OK(rwlock_close(lock));
    world_end(&world);
}

#if STEAD_CHECKS >= 2
struct round_of_sections {
    struct actor actor;
    pthread_barrier_t *begun;
    unsigned rounds;
};

static void *rounds_main(void *arg)
{
    enum { SECTIONS = 12 };
    struct round_of_sections *of = arg;
    for (unsigned i = 0; i < of->rounds; i++) {
        pthread_barrier_wait(of->begun);
        for (unsigned n = 0; n < SECTIONS; n++)
            act(&of->actor);
    }
    atomic_fetch_add(&of->actor.world->board[OWNED], of->actor.owned);
    return NULL;
}

static void rounds_of_sections(unsigned threads, unsigned rounds, bool gentle)
{
    enum { THREADS_MAX = 16 };
    struct round_of_sections of[THREADS_MAX];
    pthread_t thread[THREADS_MAX];
    pthread_barrier_t begun;
    struct world world;
    uint64_t seed = seed_get();
    only_wake_ups_wake();
    world_make(&world);
    struct rwlock *lock = private_lock();
    cr_assert_eq(pthread_barrier_init(&begun, NULL, threads), 0);
    for (unsigned i = 0; i < threads; i++) {
        of[i] = (struct round_of_sections){
            .actor = {.world = &world,
                      .lock = lock,
                      .data = (void *)world.board,
                      .random = seed + i * 1000003,
                      .gentle = gentle,
                      .stays = true},
            .begun = &begun,
            .rounds = rounds * long_factor(),
        };
        cr_assert_eq(pthread_create(&thread[i], NULL, rounds_main, &of[i]), 0);
    }
    for (unsigned i = 0; i < threads; i++)
        cr_assert_eq(pthread_join(thread[i], NULL), 0);
    pthread_barrier_destroy(&begun);
    verdict(&world, atomic_load(&world.board[OWNED]));
    OK(rwlock_close(lock));
    world_end(&world);
}

/* Nobody depends on a wake-up, because nobody sleeps for long without looking; so one that is missing is a delay, and nothing
 * but a clock would tell.  Here nobody looks: whoever is not woken in a round, at whose end the others have gone, sleeps for
 * ever. */
Test(stress, L8_a_wake_up_that_nobody_looks_for_is_not_lost)
{
    rounds_of_sections(3, 400, false);
    rounds_of_sections(3, 400, true);
    rounds_of_sections(12, 100, false);
    rounds_of_sections(12, 100, true);
}
#endif

struct crowd {
    unsigned threads;
    bool gentle;
    uint64_t seed;
};

static int process_main(struct world *world, void *arg)
{
    const struct crowd *crowd = arg;
    struct member self;
    member_join(world, &self, PRESENCE_WRITER);
    run_threads(world, self.lock, crowd->threads, crowd->gentle, crowd->seed + (uint64_t)getpid());
    member_leave(&self);
    return 0;
}

static void run_processes(unsigned processes, unsigned threads, bool gentle)
{
    struct world world;
    struct member self;
    struct crowd crowd = {threads, gentle, seed_get()};
    pid_t pids[8];
    world_make(&world);
    member_join(&world, &self, PRESENCE_WRITER);
    for (unsigned i = 0; i < processes; i++)
        pids[i] = world_fork(&world, &self, process_main, &crowd);
    stop_after(&world, 2000000000);
    for (unsigned i = 0; i < processes; i++)
        cr_assert_eq(world_wait(pids[i]), 0);
    verdict(&world, atomic_load(&world.board[OWNED]));
    member_leave(&self);
    world_end(&world);
}

Test(stress, processes_with_two_threads_each)
{
    run_processes(3, 2, false);
}

Test(stress, four_processes_of_thirty_two_threads)
{
    run_processes(4, 32, true);
}

/* ---- with deaths ---- */

/* Dies after a random while, anywhere. */
static int doomed_main(struct world *world, void *arg)
{
    return process_main(world, arg);
}

Test(stress, processes_killed_all_the_time)
{
    struct world world;
    struct member self;
    uint64_t random = seed_get();
    struct crowd crowd = {2, false, random};
    pid_t pids[3];
    world_make(&world);
    member_join(&world, &self, PRESENCE_WRITER);
    for (unsigned i = 0; i < 3; i++)
        pids[i] = world_fork(&world, &self, doomed_main, &crowd);
    struct actor actor = {.world = &world, .lock = self.lock, .data = (void *)world.board, .random = random};
    int64_t end = clock_ns() + INT64_C(4000000000) * long_factor();
    unsigned kills = 0;
    while (clock_ns() < end || kills <= 50) {
        int64_t pause = clock_ns() + (int64_t)(random_next(&random) % 10000000);
        while (clock_ns() < pause)
            act(&actor);
        unsigned victim = (unsigned)(random_next(&random) % 3);
        kill(pids[victim], SIGKILL);
        cr_assert_eq(world_wait(pids[victim]), 1000 + SIGKILL);
        crowd.seed++;
        pids[victim] = world_fork(&world, &self, doomed_main, &crowd);
        kills++;
    }
    atomic_store(&world.board[STOP], 1);
    for (unsigned i = 0; i < 3; i++)
        cr_assert_eq(world_wait(pids[i]), 0);
    OK(rwlock_lock(self.lock, true, ms_from_now(SOON_MS)));
    OK(rwlock_unlock(self.lock));
    const struct shared_data *data = (const void *)world.board;
    cr_assert_eq(atomic_load(&world.board[FAULTS]), 0);
    cr_assert_eq(data->left, data->right);
    fprintf(stderr, "%u kills, %llu inside a section, longest wait %llu ms\n", kills,
            (unsigned long long)atomic_load(&world.board[DEATHS]),
            (unsigned long long)atomic_load(&world.board[WORST_NS]) / 1000000);
    member_leave(&self);
    world_end(&world);
}
