/*
 * A process killed by SIGKILL at every labelled step of lock, unlock, upgrade, wait, attach and detach leaves a lock
 * that others take soon; EOWNERDEAD comes exactly when its owner may have been inside.
 * Method: a scenario brings a victim process to a step (lock_step_hook kills it there); beside it run a bystander
 * process that waits for the lock again and again, and the test itself.  A table says which scenario reaches which
 * step; a step that nobody reaches fails the test.
 */
#include "world.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lock/futex.h"
#include "lock/region.h"

#if STEAD_CHECKS >= 2

#define LONG_NS UINT64_C(1000000000) /* is told of */

TestSuite(killed, .timeout = 240);

/* board */
enum { VICTIM_READY, GO, STOP, WORST_NS, ROUNDS, DIED_INSIDE, LEFT, RIGHT, FAULTS };

static enum lock_step fatal_step;
static _Atomic uint64_t *victim_board;

static void die_at(enum lock_step step)
{
    if (step == fatal_step)
        kill(getpid(), SIGKILL);
}

struct scenario {
    const char *name;
    int (*victim)(struct member *self, struct world *world);
    void (*around)(struct member *self, struct world *world); /* what the test does meanwhile; NULL: nothing */
    bool bystander;
};

static pid_t victim_pid;

static bool victim_ended(void)
{
    siginfo_t how = {.si_pid = 0};
    cr_assert_eq(waitid(P_PID, (id_t)victim_pid, &how, WEXITED | WNOHANG | WNOWAIT), 0);
    return how.si_pid != 0;
}

static void note_wait(struct world *world, int64_t begin)
{
    uint64_t waited = (uint64_t)(clock_ns() - begin);
    uint64_t worst = atomic_load(&world->board[WORST_NS]);
    while (waited > worst && !atomic_compare_exchange_weak(&world->board[WORST_NS], &worst, waited))
        ;
}

/* One exclusive section that keeps LEFT == RIGHT, repairing after a death inside. */
static bool section(struct member *self, struct world *world)
{
    int64_t begin = clock_ns();
    int rc = rwlock_lock(self->lock, true, ms_from_now(SOON_MS));
    note_wait(world, begin);
    if (rc == EOWNERDEAD) {
        atomic_fetch_add(&world->board[DIED_INSIDE], 1);
        atomic_store(&world->board[RIGHT], atomic_load(&world->board[LEFT]));
        rc = rwlock_make_consistent(self->lock);
    } else if (rc == 0 && atomic_load(&world->board[LEFT]) != atomic_load(&world->board[RIGHT])) {
        return false;
    }
    if (rc != 0)
        return false;
    atomic_fetch_add(&world->board[LEFT], 1);
    atomic_fetch_add(&world->board[RIGHT], 1);
    return rwlock_unlock(self->lock) == 0;
}

static int bystander_main(struct world *world, void *arg)
{
    (void)arg;
    struct member self;
    member_join(world, &self, PRESENCE_WRITER);
    while (atomic_load(&world->board[STOP]) == 0) {
        if (!section(&self, world))
            atomic_fetch_add(&world->board[FAULTS], 1);
        int64_t begin = clock_ns();
        int rc = rwlock_lock(self.lock, false, ms_from_now(SOON_MS));
        note_wait(world, begin);
        if (rc == EOWNERDEAD) {
            atomic_fetch_add(&world->board[DIED_INSIDE], 1);
            atomic_store(&world->board[RIGHT], atomic_load(&world->board[LEFT]));
            rc = rwlock_make_consistent(self.lock);
        }
        if (rc != 0 || atomic_load(&world->board[LEFT]) != atomic_load(&world->board[RIGHT]) ||
            rwlock_unlock(self.lock) != 0)
            atomic_fetch_add(&world->board[FAULTS], 1);
        atomic_fetch_add(&world->board[ROUNDS], 1);
        sleep_ns(200000);
    }
    member_leave(&self);
    return 0;
}

/* ---- victims ---- */

static int victim_all_alone(struct member *self, struct world *world)
{
    (void)world;
    int rc = rwlock_lock(self->lock, false, DEADLINE_NEVER);
    rc |= rwlock_lock(self->lock, true, DEADLINE_NEVER);
    rc |= rwlock_unlock(self->lock);
    rc |= rwlock_unlock(self->lock);
    rc |= rwlock_lock(self->lock, true, DEADLINE_NEVER);
    rc |= rwlock_unlock(self->lock);
    return rc;
}

static int victim_waits_to_own(struct member *self, struct world *world)
{
    (void)world;
    int rc = rwlock_lock(self->lock, true, DEADLINE_NEVER);
    return rc | rwlock_unlock(self->lock);
}

static int victim_waits_to_share(struct member *self, struct world *world)
{
    (void)world;
    int rc = rwlock_lock(self->lock, false, DEADLINE_NEVER);
    return rc | rwlock_unlock(self->lock);
}

/* Luck may give it the lock before it starves: again and again, then. */
static int victim_starves(struct member *self, struct world *world)
{
    (void)world;
    int rc = 0;
    for (int i = 0; i < 200 && rc == 0; i++) {
        rc = rwlock_lock(self->lock, i % 4 != 3, DEADLINE_NEVER);
        if (rc == 0)
            rc = rwlock_unlock(self->lock);
    }
    return rc;
}

static int victim_steals(struct member *self, struct world *world)
{
    int rc = rwlock_lock(self->lock, false, DEADLINE_NEVER);
    atomic_store(&world->board[VICTIM_READY], 2);
    (void)board_await(&world->board[GO], 2); /* the test waits to own */
    rc |= rwlock_lock(self->lock, true, DEADLINE_NEVER);
    rc |= rwlock_unlock(self->lock);
    return rc | rwlock_unlock(self->lock);
}

static int die_holding(struct world *world, void *exclusive)
{
    struct member self;
    member_join(world, &self, PRESENCE_WRITER);
    if (exclusive != NULL)
        atomic_store(&world->board[GO], 3);
    int rc = rwlock_lock(self.lock, exclusive != NULL, DEADLINE_NEVER);
    kill(getpid(), SIGKILL);
    return rc;
}

/* Finds the dead: one that shared, or one that owned. */
static int victim_cleans(struct member *self, struct world *world)
{
    (void)world;
    int rc = rwlock_lock(self->lock, true, DEADLINE_NEVER);
    if (rc == EOWNERDEAD)
        rc = rwlock_make_consistent(self->lock);
    return rc | rwlock_unlock(self->lock);
}

static int victim_removes(struct member *self, struct world *world)
{
    return victim_cleans(self, world);
}

/* For its own flag, through another attachment: a cycle, seen at the first look. */
static int victim_waits_for_itself(struct member *self, struct world *world)
{
    struct member again;
    member_join(world, &again, PRESENCE_WRITER);
    int rc = rwlock_lock(self->lock, false, DEADLINE_NEVER);
    if (rwlock_lock(again.lock, true, DEADLINE_NEVER) != EDEADLK)
        rc |= EINVAL;
    rc |= rwlock_unlock(self->lock);
    member_leave(&again);
    return rc;
}

static int victim_leaves(struct member *self, struct world *world)
{
    (void)self;
    (void)world;
    return 0; /* attach and detach are in every victim's life */
}

/* ---- what the test does meanwhile ---- */

static void around_owning(struct member *self, struct world *world)
{
    OK(rwlock_lock(self->lock, true, ms_from_now(SOON_MS)));
    atomic_store(&world->board[GO], 1);
    sleep_ns(15000000); /* longer than the first look for the dead */
    OK(rwlock_unlock(self->lock));
}

static void around_sharing(struct member *self, struct world *world)
{
    OK(rwlock_lock(self->lock, false, ms_from_now(SOON_MS)));
    atomic_store(&world->board[GO], 1);
    sleep_ns(15000000);
    OK(rwlock_unlock(self->lock));
}

/* Overtakes without end, so that the victim must starve and claim. */
static void around_hogging(struct member *self, struct world *world)
{
    OK(rwlock_lock(self->lock, true, ms_from_now(SOON_MS)));
    atomic_store(&world->board[GO], 1);
    sleep_ns(3000000);
    int64_t end = clock_ns() + 60000000;
    int rc = 0;
    while (clock_ns() < end && rc == 0) {
        OK(rwlock_unlock(self->lock));
        rc = rwlock_lock(self->lock, true, ms_from_now(SOON_MS));
        if (rc == EOWNERDEAD)
            rc = rwlock_make_consistent(self->lock);
    }
    OK(rc);
    OK(rwlock_unlock(self->lock));
}

static void around_stolen(struct member *self, struct world *world)
{
    atomic_store(&world->board[GO], 1);
    while (atomic_load(&world->board[VICTIM_READY]) < 2 && !victim_ended())
        sleep_ns(100000);
    atomic_store(&world->board[GO], 2);
    int rc = rwlock_lock(self->lock, true, ms_from_now(SOON_MS));
    if (rc == EOWNERDEAD)
        rc = rwlock_make_consistent(self->lock);
    OK(rc);
    OK(rwlock_unlock(self->lock));
}

#define STARVES 0
static const struct scenario scenarios[] = {
    {"starves", victim_starves, around_hogging, false},
    {"alone", victim_all_alone, NULL, false},
    {"beside", victim_all_alone, NULL, true},
    {"waits to own, owned", victim_waits_to_own, around_owning, true},
    {"waits to own, shared", victim_waits_to_own, around_sharing, true},
    {"waits to own, shared, alone", victim_waits_to_own, around_sharing, false},
    {"waits to share, owned", victim_waits_to_share, around_owning, true},
    {"steals", victim_steals, around_stolen, false},
    {"cleans a reader", victim_cleans, NULL, false},
    {"removes an owner", victim_removes, NULL, false},
    {"waits for itself", victim_waits_for_itself, NULL, false},
    {"leaves", victim_leaves, NULL, true},
};
#define SCENARIOS (sizeof scenarios / sizeof scenarios[0])

struct victim_args {
    const struct scenario *scenario;
    enum lock_step step;
};

static int victim_main(struct world *world, void *arg)
{
    const struct victim_args *args = arg;
    struct member self;
    fatal_step = args->step;
    victim_board = world->board;
    lock_step_hook = die_at;
    if (args->scenario->victim == victim_cleans || args->scenario->victim == victim_removes) {
        lock_step_hook = NULL; /* the dead come first: they must not be swept at attach */
        member_join(world, &self, PRESENCE_WRITER);
        lock_step_hook = die_at;
        atomic_store(&world->board[VICTIM_READY], 1);
    } else {
        member_join(world, &self, PRESENCE_WRITER);
        atomic_store(&world->board[VICTIM_READY], 1);
    }
    if (!board_await(&world->board[GO], 1))
        return 99;
    int rc = args->scenario->victim(&self, world);
    member_leave(&self);
    return rc == 0 ? 0 : 98;
}

/* The table of who may leave a half-done section: an owner that had not said it still waits for readers. */
static bool may_be_inside(enum lock_step step)
{
    return step == LOCK_STEP_CLAIMED || step == LOCK_STEP_EXCLUSIVE_IN || step == LOCK_STEP_STOLEN ||
           step == LOCK_STEP_HANDOFF_TAKEN || step == LOCK_STEP_SLOT_CLEANING;
}

/* True if the victim died at the step. */
static bool run(const struct scenario *scenario, enum lock_step step)
{
    struct world world;
    struct member self;
    world_make(&world);
    member_join(&world, &self, PRESENCE_WRITER);
    pid_t bystander = scenario->bystander ? world_fork(&world, &self, bystander_main, NULL) : 0;
    struct victim_args args = {scenario, step};
    pid_t victim = world_fork(&world, &self, victim_main, &args);
    victim_pid = victim;
    while (atomic_load(&world.board[VICTIM_READY]) == 0 && !victim_ended()) /* it may die before */
        sleep_ns(100000);
    unsigned inside_before = 0;
    if (scenario->victim == victim_cleans)
        cr_assert_eq(world_wait(world_fork(&world, &self, die_holding, NULL)), 1000 + SIGKILL);
    if (scenario->victim == victim_removes) {
        cr_assert_eq(world_wait(world_fork(&world, &self, die_holding, &world)), 1000 + SIGKILL);
        inside_before = 1;
    }
    if (scenario->around != NULL)
        scenario->around(&self, &world);
    else
        atomic_store(&world.board[GO], 1);
    int status = world_wait(victim);
    cr_assert(status == 0 || status == 1000 + SIGKILL, "%s, step %d: victim ended with %d", scenario->name, (int)step,
              status);
    cr_assert(section(&self, &world), "%s, step %d: the lock is unusable: %s", scenario->name, (int)step,
              error_last_text());
    OK(rwlock_lock(self.lock, false, ms_from_now(SOON_MS)));
    OK(rwlock_unlock(self.lock));
    if (scenario->bystander) {
        uint64_t rounds = atomic_load(&world.board[ROUNDS]);
        for (int i = 0; i < SOON_MS && atomic_load(&world.board[ROUNDS]) < rounds + 3; i++)
            sleep_ns(1000000);
        cr_assert(atomic_load(&world.board[ROUNDS]) >= rounds + 3, "%s, step %d: the bystander hangs", scenario->name,
                  (int)step);
        atomic_store(&world.board[STOP], 1);
        cr_assert_eq(world_wait(bystander), 0);
    }
    cr_assert_eq(atomic_load(&world.board[FAULTS]), 0, "%s, step %d", scenario->name, (int)step);
    if (atomic_load(&world.board[WORST_NS]) > LONG_NS)
        fprintf(stderr, "%s, step %d: somebody waited %llu ms\n", scenario->name, (int)step,
                (unsigned long long)atomic_load(&world.board[WORST_NS]) / 1000000);
    if (!may_be_inside(step) && inside_before == 0)
        cr_assert_eq(atomic_load(&world.board[DIED_INSIDE]), 0, "%s, step %d: nobody died inside", scenario->name,
                     (int)step);
    member_leave(&self);
    world_end(&world);
    return status != 0;
}

Test(killed, at_every_step)
{
    static const char *const names[] = {
#define STEP_NAME(name) #name,
        LOCK_STEPS(STEP_NAME)
#undef STEP_NAME
    };
    for (int step = 0; step < LOCK_STEP_COUNT; step++) {
        if (step ==
            LOCK_STEP_READERS_ASKED) /* nothing was stored since CLAIMED; no scenario has readers from outside */
            continue;
        unsigned reached = 0;
        for (unsigned i = 0; i < SCENARIOS; i++)
            reached += run(&scenarios[i], (enum lock_step)step);
        for (unsigned again = 0; again < 500 && reached == 0; again++) /* starving needs luck */
            reached += run(&scenarios[STARVES], (enum lock_step)step);
        cr_expect(reached > 0, "no scenario reaches step %s", names[step]);
    }
}

/* L22 and the verdict: a writer that died inside is told exactly once, and not told after it was repaired. */
Test(killed, an_owner_inside_is_told_to_the_next_one)
{
    for (int shared = 0; shared <= 1; shared++) {
        struct world world;
        struct member self;
        world_make(&world);
        member_join(&world, &self, PRESENCE_WRITER);
        cr_assert_eq(world_wait(world_fork(&world, &self, die_holding, &world)), 1000 + SIGKILL);
        FAILS(EOWNERDEAD, rwlock_lock(self.lock, shared != 0 ? false : true, ms_from_now(SOON_MS)));
        cr_assert(rwlock_held_exclusive(self.lock));
        OK(rwlock_make_consistent(self.lock));
        OK(rwlock_unlock(self.lock));
        OK(rwlock_lock(self.lock, true, 0));
        OK(rwlock_unlock(self.lock));
        cr_assert_eq(world_wait(world_fork(&world, &self, die_holding, NULL)), 1000 + SIGKILL);
        OK(rwlock_lock(self.lock, true, 0)); /* a dead reader is nobody, even to a try */
        OK(rwlock_unlock(self.lock));
        member_leave(&self);
        world_end(&world);
    }
}

#endif
