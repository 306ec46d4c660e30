/*
 * crash_kill.c -- processes that die and calls that fail.  The page cache outlives a process, so that the files are judged
 * as they are; legal is every version from the newest acknowledged one (BUFFERED ones too) to the newest begun.
 *
 * A trial: fresh directory, prepare(), neighbours, the workload with one thing going wrong, then the verdict.  A dry run
 * counts the requests, so that the trials can be spread over all of them.
 */
#include "tests/crash/crash_trial.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) /* six times slower */
enum { TRIALS_MAX = 24 };
#else
enum { TRIALS_MAX = 120 }; /* STEAD_LONG: all */
#endif

struct plan { /* what goes wrong */
    uint64_t kill_at;
    bool kill_after;
    enum crash_call fault_call;
    uint64_t fault_at;
    int fault_error;
    bool fault_sticky;
    int64_t kill_after_ns; /* > 0: SIGKILL from outside, this long after the start */
};

struct ending {
    bool killed;
    uint64_t calls, calls_of_kind, faults;
    int64_t ns;
};

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static pid_t start_neighbour(const struct crash_case *what, const char *directory, struct crash_shared *shared)
{
    char path[TRIAL_PATH_BYTES + 16];
    if (what->neighbour == NULL)
        return 0;
    snprintf(path, sizeof path, "%s/%s", directory, TRIAL_STORE_NAME);
    fflush(NULL);
    pid_t child = fork();
    if (child != 0)
        return child;
    alarm(TRIAL_SECONDS_MAX);
    int rc = what->neighbour(path, (const volatile bool *)&shared->stop, what->arg);
    if (rc != 0)
        fprintf(stderr, "%s: neighbour: %s (%s)\n", what->name, stead_strerror(rc), stead_last_error_text());
    _exit(rc == 0 ? 0 : 1);
}

static int wait_for(pid_t child)
{
    int status;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    return status;
}

/* The workload's end is judged where nothing was to go wrong, or only a call was to fail: it must not die of it. */
static void judge_ending(const struct crash_case *what, const struct plan *plan, int status,
                         struct crash_outcome *outcome)
{
    bool planned_kill = plan->kill_at != 0 || plan->kill_after_ns > 0;
    if (WIFSIGNALED(status) && planned_kill && WTERMSIG(status) == SIGKILL)
        return;
    if (WIFEXITED(status) && (WEXITSTATUS(status) == 0 || plan->fault_at != 0 || planned_kill))
        return; /* a workload whose child was killed says so */
    trial_fail(outcome,
               "%s, STEAD_SEED=%" PRIu64 ": the workload %s (kill at %" PRIu64 ", call %d fails at %" PRIu64
               " with %d)",
               what->name, outcome->seed, trial_status_text(status), plan->kill_at, (int)plan->fault_call,
               plan->fault_at, plan->fault_error);
}

static int run_trial(const struct crash_case *what, const struct plan *plan, struct ending *ending,
                     struct crash_outcome *outcome)
{
    char directory[TRIAL_PATH_BYTES];
    struct crash_shared *shared = crash_shared_new();
    if (shared == NULL)
        return ENOMEM;
    int rc = trial_make_directory(directory);
    if (rc != 0)
        goto free_shared;
    rc = trial_prepare(what, directory, outcome);
    if (rc != 0)
        goto remove_directory;
    shared->kill_at = plan->kill_at;
    shared->kill_after = plan->kill_after;
    shared->fault_call = plan->fault_call;
    shared->fault_at = plan->fault_at;
    shared->fault_error = plan->fault_error;
    shared->fault_sticky = plan->fault_sticky;
    shared->begun = shared->done = shared->durable = what->prepared_version;
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    pid_t neighbour = start_neighbour(what, directory, shared);
    int64_t begin = now_ns();
    pid_t child = trial_start(what, directory, shared);
    if (child < 0 || neighbour < 0) {
        rc = errno;
        goto remove_directory;
    }
    if (plan->kill_after_ns > 0) {
        struct timespec pause = {.tv_sec = plan->kill_after_ns / 1000000000,
                                 .tv_nsec = plan->kill_after_ns % 1000000000};
        nanosleep(&pause, NULL);
        kill(child, SIGKILL);
    }
    int status = wait_for(child);
    while (waitpid(-child, NULL, 0) > 0 || errno == EINTR) /* its orphans are ours */
        ;
    *ending = (struct ending){.killed = WIFSIGNALED(status),
                              .calls = shared->calls,
                              .faults = shared->faults,
                              .calls_of_kind = shared->calls_of[plan->fault_call],
                              .ns = now_ns() - begin};
    judge_ending(what, plan, status, outcome);
    if (neighbour > 0) {
        struct timespec moment = {.tv_nsec = 20000000}; /* it must get on without the dead */
        nanosleep(&moment, NULL);
        shared->stop = true;
        int seen = wait_for(neighbour);
        if (seen != 0)
            trial_fail(outcome, "%s, STEAD_SEED=%" PRIu64 ": the neighbour %s (kill at request %" PRIu64 "%s)",
                       what->name, outcome->seed, trial_status_text(seen), plan->kill_at,
                       plan->kill_after ? ", after it" : "");
    }
    const char *wrong = trial_judge_apart(what, directory, shared->done, shared->begun);
    outcome->states++;
    if (wrong != NULL)
        trial_fail(
            outcome,
            "%s, STEAD_SEED=%" PRIu64 ": kill at request %" PRIu64 "%s, call %d fails at %" PRIu64 " with %d%s: %s",
            what->name, outcome->seed, plan->kill_at, plan->kill_after ? " (after it)" : "", (int)plan->fault_call,
            plan->fault_at, plan->fault_error, plan->fault_sticky ? " for ever" : "", wrong);
remove_directory:
    trial_remove_directory(directory);
free_shared:
    crash_shared_free(shared);
    return rc;
}

static int outcome_rc(const struct crash_outcome *outcome, int rc)
{
    return outcome->failures > 0 ? EUCLEAN : rc;
}

int crash_kills(const struct crash_case *what, unsigned step, struct crash_outcome *outcome)
{
    struct ending ending;
    *outcome = (struct crash_outcome){.seed = trial_seed()};
    int rc = run_trial(what, &(struct plan){0}, &ending, outcome);
    uint64_t calls = ending.calls;
    if (step == 0)
        step = trial_is_long() || calls <= TRIALS_MAX / 2 ? 1 : (unsigned)(calls / (TRIALS_MAX / 2) + 1);
    for (uint64_t at = 1 + outcome->seed % step; rc == 0 && outcome->failures == 0 && at <= calls; at += step) {
        for (unsigned after = 0; rc == 0 && after < 2; after++) {
            rc = run_trial(what, &(struct plan){.kill_at = at, .kill_after = after == 1}, &ending, outcome);
            outcome->points += ending.killed;
        }
    }
    return outcome_rc(outcome, rc);
}

int crash_random_kills(const struct crash_case *what, unsigned trials, struct crash_outcome *outcome)
{
    struct ending ending;
    *outcome = (struct crash_outcome){.seed = trial_seed()};
    uint64_t random = outcome->seed;
    int rc = run_trial(what, &(struct plan){0}, &ending, outcome);
    int64_t whole_ns = ending.ns;
    for (unsigned t = 0; rc == 0 && outcome->failures == 0 && t < trials; t++) {
        random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        int64_t instant = 1 + (int64_t)((random >> 20) % (uint64_t)whole_ns);
        rc = run_trial(what, &(struct plan){.kill_after_ns = instant}, &ending, outcome);
        outcome->points += ending.killed;
    }
    return outcome_rc(outcome, rc);
}

int crash_faults(const struct crash_case *what, enum crash_call call, int error, bool sticky,
                 struct crash_outcome *outcome)
{
    struct ending ending;
    struct crash_case alone = *what; /* a neighbour's reading is not what is tried here */
    alone.neighbour = NULL;
    *outcome = (struct crash_outcome){.seed = trial_seed()};
    int rc = run_trial(&alone, &(struct plan){.fault_call = call}, &ending, outcome);
    uint64_t calls = ending.calls_of_kind;
    uint64_t step = trial_is_long() || calls <= TRIALS_MAX ? 1 : calls / TRIALS_MAX + 1;
    for (uint64_t at = 1 + outcome->seed % step; rc == 0 && outcome->failures == 0 && at <= calls; at += step) {
        rc = run_trial(&alone,
                       &(struct plan){.fault_call = call, .fault_at = at, .fault_error = error, .fault_sticky = sticky},
                       &ending, outcome);
        outcome->points += ending.faults > 0;
    }
    return outcome_rc(outcome, rc);
}
