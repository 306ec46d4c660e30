/*
 * test_kill_and_cut.c -- a process is killed, another one goes on from what it left in the page cache, and then the power is
 * cut: nothing that the second one took away may have been needed by what the disk still has.
 *
 * The workload's first process is killed at its n-th request; the second opens the store (SOLE), or had it open all the
 * time (TURNS), commits and closes.  The power cuts of crash_power_cuts() are tried for the requests of both.  n is chosen
 * at random, differently each time (STEAD_SEED); with STEAD_LONG=1 more of them.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "persist/txn.h" /* txn_log_limit_bytes */
#include "tests/crash/crash_trial.h"
#include "tests/crash/versioned.h"

enum { TURNS_EACH = 2 };

static uint64_t die_at;

TestSuite(kill_and_cut, .timeout = 1500);

static int advance(stead *store, uint64_t v, stead_durability durability)
{
    int rc = stead_root(store) == NULL ? versioned_make(store) : 0;
    if (rc == 0)
        rc = versioned_step(store, v);
    crash_begin(v);
    if (rc == 0)
        rc = stead_commit(store, durability);
    if (rc == 0)
        crash_done(v, durability == STEAD_DURABLE);
    return rc;
}

static int change_and_close(stead *store, unsigned commits)
{
    int rc = 0;
    uint64_t had = versioned_now(store);
    for (unsigned i = 1; i <= commits && rc == 0; i++)
        rc = advance(store, had + i, i % 2 == 0 ? STEAD_DURABLE : STEAD_BUFFERED);
    if (rc == 0)
        rc = stead_close(store);
    if (rc != 0)
        stead_abandon(store);
    return rc;
}

/* Starts body in a process that is killed at its die_at-th request; waits for its end. */
static int run_killed(const char *path, int (*body)(const char *path))
{
    int status;
    fflush(NULL);
    pid_t child = fork();
    if (child < 0)
        return errno;
    if (child == 0) {
        crash_die_at(die_at);
        _exit(body(path) == 0 ? 0 : 1);
    }
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    return status == 0 || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) ? 0 : ECHILD;
}

static int prepare(const char *path, void *arg)
{
    stead *store;
    (void)arg;
    int rc = stead_open(&store, path, NULL);
    return rc != 0 ? rc : change_and_close(store, 2);
}

static int sole_session(const char *path)
{
    stead *store;
    txn_log_limit_bytes = 9000; /* a checkpoint among the commits, and another one at the end */
    int rc = stead_open(&store, path, NULL);
    return rc != 0 ? rc : change_and_close(store, 4);
}

static int run_sole(const char *path, void *arg)
{
    stead *store;
    (void)arg;
    int rc = run_killed(path, sole_session);
    if (rc == 0)
        rc = stead_open(&store, path, NULL);
    return rc != 0 ? rc : change_and_close(store, 2);
}

static int take_turns(stead *store, unsigned turns)
{
    int rc = 0;
    for (unsigned i = 0; i < turns && rc == 0; i++) {
        rc = stead_lock(store, STEAD_EXCLUSIVE, TRIAL_SOON_MS);
        if (rc != 0)
            return rc;
        uint64_t next = versioned_now(store) + 1;
        rc = versioned_step(store, next);
        crash_begin(next);
        if (rc == 0)
            rc = stead_unlock(store);
        if (rc == 0)
            crash_done(next, false);
    }
    return rc;
}

static int turns_session(const char *path)
{
    stead *store;
    txn_log_limit_bytes = 9000;
    int rc = stead_open(&store, path, &(stead_options){.sharing = STEAD_TURNS, .timeout_ms = TRIAL_SOON_MS});
    return rc != 0 ? rc : take_turns(store, 2 * TURNS_EACH);
}

static int run_turns(const char *path, void *arg)
{
    stead *store;
    (void)arg;
    int rc = stead_open(&store, path, &(stead_options){.sharing = STEAD_TURNS, .timeout_ms = TRIAL_SOON_MS});
    if (rc != 0)
        return rc;
    rc = take_turns(store, 1);
    if (rc == 0)
        rc = run_killed(path, turns_session);
    if (rc == 0)
        rc = take_turns(store, TURNS_EACH);
    if (rc == 0)
        rc = stead_close(store);
    if (rc != 0)
        stead_abandon(store);
    return rc;
}

/* requests: about as many as the one that is killed makes. */
static void explore(const struct crash_case *what, uint64_t requests)
{
    uint64_t random = trial_seed(), states = 0;
    unsigned rounds = trial_is_long() ? 24 : 2;
    for (unsigned i = 0; i < rounds; i++) {
        struct crash_outcome o;
        random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        die_at = 1 + (random >> 33) % requests;
        int rc = crash_power_cuts(what, &o);
        cr_assert_eq(rc, 0, "killed at request %" PRIu64 ": %s", die_at, rc == EUCLEAN ? o.first : stead_strerror(rc));
        cr_assert_geq(o.points, 10);
        states += o.states;
        fprintf(stderr, "%s, killed at request %" PRIu64 ": %" PRIu64 " points, %" PRIu64 " states\n", what->name,
                die_at, o.points, o.states);
    }
    cr_assert_gt(states, 100);
}

Test(kill_and_cut, what_a_killed_writer_left_unsynced_is_not_built_upon)
{
    explore(&(struct crash_case){.name = "killed-sole",
                                 .prepare = prepare,
                                 .prepared_version = 2,
                                 .run = run_sole,
                                 .check = versioned_check},
            160);
}

Test(kill_and_cut, what_a_killed_holder_of_the_turn_left_unsynced_is_not_built_upon)
{
    explore(&(struct crash_case){.name = "killed-turns",
                                 .prepare = prepare,
                                 .prepared_version = 2,
                                 .run = run_turns,
                                 .check = versioned_check},
            110);
}
