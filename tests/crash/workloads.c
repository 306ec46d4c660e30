/*
 * workloads.c -- what applications do, small enough to be cut at every request.
 *
 * crash_begin(v) stands right before the commit that makes v; crash_done(v, durable) right after it was acknowledged.  A
 * commit that fails is rolled back and tried once more, as a careful application would; a store that is marked failed is
 * abandoned.
 */
#include "tests/crash/workloads.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "persist/txn.h" /* txn_log_limit_bytes */
#include "tests/crash/crash_trial.h"
#include "tests/crash/versioned.h"

#define GROWTH_BYTES ((size_t)6 << 20) /* more than a heap has to begin with */

static int open_store(stead **store, const char *path, stead_sharing sharing)
{
    return stead_open(store, path, &(stead_options){.sharing = sharing, .timeout_ms = TRIAL_SOON_MS});
}

/* Ends a workload that met an error: without a close, as a program that gives up. */
static int give_up(stead *store, int rc)
{
    stead_abandon(store);
    return rc;
}

static int commit_version(stead *store, uint64_t v, stead_durability durability)
{
    crash_begin(v);
    int rc = stead_commit(store, durability);
    if (rc == 0)
        crash_done(v, durability == STEAD_DURABLE);
    return rc;
}

/* One version further; a full disk or an interruption is rolled back and tried once more. */
static int advance(stead *store, uint64_t v, stead_durability durability)
{
    for (int attempt = 0;; attempt++) {
        int rc = stead_root(store) == NULL ? versioned_make(store) : 0;
        if (rc == 0)
            rc = versioned_step(store, v);
        if (rc == 0)
            rc = commit_version(store, v, durability);
        if (rc == 0 || attempt == 1 || rc < 0)
            return rc;
        int rolled = stead_rollback(store);
        if (rolled != 0)
            return rolled;
        if (versioned_now(store) != v - 1)
            return EUCLEAN;
    }
}

/* Closing may fail (disk full): the store is open then, and is tried again. */
static int close_store(stead *store)
{
    int rc = stead_close(store);
    if (rc > 0)
        rc = stead_close(store);
    return rc == 0 ? 0 : give_up(store, rc);
}

static int advance_to(stead *store, uint64_t from, uint64_t to, stead_durability durability)
{
    int rc = 0;
    for (uint64_t v = from; rc == 0 && v <= to; v++)
        rc = advance(store, v, durability);
    return rc;
}

static int run_durable(const char *path, void *arg)
{
    stead *store;
    (void)arg;
    int rc = open_store(&store, path, STEAD_SOLE);
    if (rc != 0)
        return rc;
    rc = advance_to(store, 1, 4, STEAD_DURABLE);
    return rc != 0 ? give_up(store, rc) : close_store(store);
}

static int run_buffered(const char *path, void *arg)
{
    stead *store;
    (void)arg;
    int rc = open_store(&store, path, STEAD_SOLE);
    for (uint64_t v = 1; rc == 0 && v <= 9; v++) {
        rc = advance(store, v, v % 4 == 0 ? STEAD_DURABLE : STEAD_BUFFERED);
        if (rc != 0)
            stead_abandon(store);
    }
    if (rc == 0)
        stead_abandon(store);
    return rc;
}

/* The log is over its limit after every few commits: checkpoints, with commits in it that nobody has synced. */
static int run_checkpoints(const char *path, void *arg)
{
    stead *store;
    (void)arg;
    txn_log_limit_bytes = 12000;
    int rc = open_store(&store, path, STEAD_SOLE);
    if (rc != 0)
        return rc;
    rc = advance_to(store, 1, 8, STEAD_BUFFERED);
    if (rc == 0)
        rc = advance(store, 9, STEAD_DURABLE);
    return rc != 0 ? give_up(store, rc) : close_store(store);
}

static int run_rollback(const char *path, void *arg)
{
    stead *store;
    (void)arg;
    int rc = open_store(&store, path, STEAD_SOLE);
    if (rc != 0)
        return rc;
    for (uint64_t v = 1; rc == 0 && v <= 4; v++) {
        rc = advance(store, v, v % 2 == 0 ? STEAD_DURABLE : STEAD_BUFFERED);
        if (rc == 0)
            rc = versioned_step(store, v + 1);
        if (rc == 0 && stead_malloc(store, 300000) == NULL)
            rc = errno;
        if (rc == 0)
            rc = stead_rollback(store);
        if (rc == 0 && versioned_now(store) != v)
            rc = EUCLEAN;
    }
    return rc != 0 ? give_up(store, rc) : close_store(store);
}

/* Each time more new pages than a commit puts into its record. */
#define LARGE 6
#define LARGE_AGAIN 4
#define LARGE_BYTES 70000

/* Large blocks, and with them version v. */
static int load_large(stead *store, unsigned char **large, unsigned count, uint64_t v)
{
    for (unsigned i = 0; i < count; i++) {
        large[i] = stead_malloc(store, LARGE_BYTES);
        if (large[i] == NULL)
            return errno;
        memset(large[i], (int)(v + i), LARGE_BYTES);
    }
    int rc = versioned_step(store, v);
    return rc != 0 ? rc : commit_version(store, v, STEAD_DURABLE);
}

/* The first load makes the file longer; the second finds it long enough, and its length durable: its bytes alone are not. */
static int run_bulk(const char *path, void *arg)
{
    unsigned char *large[LARGE + LARGE_AGAIN];
    stead *store;
    (void)arg;
    int rc = open_store(&store, path, STEAD_SOLE);
    if (rc != 0)
        return rc;
    rc = advance(store, 1, STEAD_DURABLE);
    if (rc == 0)
        rc = load_large(store, large, LARGE, 2);
    if (rc == 0)
        rc = load_large(store, large + LARGE, LARGE_AGAIN, 3);
    for (unsigned i = 0; rc == 0 && i < LARGE + LARGE_AGAIN; i++)
        stead_free(large[i]);
    if (rc == 0)
        rc = advance(store, 4, STEAD_BUFFERED);
    if (rc == 0)
        rc = advance(store, 5, STEAD_DURABLE);
    return rc != 0 ? give_up(store, rc) : close_store(store);
}

static int prepare_sealed(const char *path, void *arg)
{
    stead *store;
    (void)arg;
    int rc = open_store(&store, path, STEAD_SOLE);
    if (rc != 0)
        return rc;
    rc = advance_to(store, 1, 3, STEAD_BUFFERED);
    return rc != 0 ? give_up(store, rc) : close_store(store);
}

/* Without close and with a log full of commits; durable, because everything there before the trial counts as synced. */
static int prepare_crashed(const char *path, void *arg)
{
    int rc = prepare_sealed(path, arg);
    stead *store;
    if (rc == 0)
        rc = open_store(&store, path, STEAD_SOLE);
    if (rc == 0)
        rc = advance_to(store, 4, 7, STEAD_DURABLE);
    if (rc == 0 && versioned_step(store, 8) != 0)
        rc = EUCLEAN;
    return rc; /* the process ends here, the store open */
}

static int run_reopened(const char *path, void *arg)
{
    stead *store;
    (void)arg;
    int rc = open_store(&store, path, STEAD_SOLE);
    if (rc != 0)
        return rc;
    uint64_t had = versioned_now(store);
    rc = close_store(store); /* a session without a commit: sealed before, the whole of it without a log */
    if (rc == 0)
        rc = open_store(&store, path, STEAD_SOLE);
    if (rc != 0)
        return rc;
    void *large = stead_malloc(store, GROWTH_BYTES); /* the file grows, no log beside it, and gets nothing of that */
    if (large == NULL || (rc = stead_rollback(store)) != 0 || versioned_now(store) != had)
        return give_up(store, rc != 0 ? rc : large == NULL ? ENOMEM : EUCLEAN);
    rc = advance(store, had + 1, STEAD_BUFFERED);
    if (rc == 0)
        rc = advance(store, had + 2, STEAD_DURABLE);
    if (rc == 0)
        rc = versioned_step(store, had + 3); /* the close commits it */
    if (rc != 0)
        return give_up(store, rc);
    crash_begin(had + 3);
    rc = close_store(store);
    if (rc == 0)
        crash_done(had + 3, true);
    return rc;
}

/* ---- TURNS ---- */

/* One section; *seen is the version that it found. */
static int take_turn(stead *store, uint64_t *seen)
{
    int rc = stead_lock(store, STEAD_EXCLUSIVE, TRIAL_SOON_MS);
    if (rc != 0)
        return rc;
    *seen = versioned_now(store);
    if (stead_root(store) == NULL)
        rc = versioned_make(store);
    if (rc == 0)
        rc = versioned_step(store, *seen + 1);
    if (rc != 0) {
        (void)stead_rollback(store);
        (void)stead_unlock(store);
        return rc;
    }
    crash_begin(*seen + 1);
    rc = stead_unlock(store);
    if (rc == 0) {
        crash_done(*seen + 1, false);
        return 0;
    }
    if (stead_rollback(store) == 0) /* the lock is still held: give the section up */
        (void)stead_unlock(store);
    return rc;
}

/* Nobody sees what power loss could take back: a version seen that somebody else made is durable. */
static int take_turns(const char *path, unsigned turns)
{
    stead *store;
    uint64_t own = UINT64_MAX, seen;
    int rc = open_store(&store, path, STEAD_TURNS);
    if (rc != 0)
        return rc;
    for (unsigned t = 0; rc == 0 && t < turns; t++) {
        rc = take_turn(store, &seen);
        if (rc == 0 && seen != own && seen > 0)
            crash_done(seen, true); /* said late: the bound is only weaker for that */
        own = seen + 1;
        usleep(500); /* let the other one in */
    }
    return rc != 0 ? give_up(store, rc) : close_store(store);
}

static int run_turns(const char *path, void *arg)
{
    int status;
    (void)arg;
    fflush(NULL);
    pid_t other = fork();
    if (other < 0)
        return errno;
    if (other == 0)
        _exit(take_turns(path, 3) == 0 ? 0 : 1);
    int rc = take_turns(path, 3);
    while (waitpid(other, &status, 0) < 0 && errno == EINTR)
        ;
    return rc != 0 ? rc : status == 0 ? 0 : ECHILD;
}

static int prepare_turns_crashed(const char *path, void *arg)
{
    stead *store;
    uint64_t seen;
    (void)arg;
    int rc = open_store(&store, path, STEAD_TURNS);
    for (unsigned t = 0; rc == 0 && t < 3; t++)
        rc = take_turn(store, &seen);
    if (rc == 0)
        rc = stead_commit(store, STEAD_DURABLE);
    if (rc == 0)
        rc = stead_lock(store, STEAD_EXCLUSIVE, TRIAL_SOON_MS);
    return rc == 0 ? versioned_step(store, 4) : rc; /* and the process ends inside its section */
}

static int run_turns_crashed(const char *path, void *arg)
{
    (void)arg;
    return take_turns(path, 2);
}

/* ---- backup ---- */

static int run_backup(const char *path, void *arg)
{
    char copy[600];
    stead *store;
    (void)arg;
    int rc = open_store(&store, path, STEAD_SOLE);
    if (rc != 0)
        return rc;
    snprintf(copy, sizeof copy, "%s.copy", path);
    rc = advance_to(store, 1, 2, STEAD_DURABLE);
    if (rc == 0)
        rc = stead_backup(store, copy);
    if (rc == 0)
        rc = advance(store, 3, STEAD_DURABLE);
    return rc != 0 ? give_up(store, rc) : close_store(store);
}

/* A reader beside the writer: inside a section it must see exactly one commit, and never an older one than before. */
static int neighbour_reader(const char *path, const volatile bool *stop, void *arg)
{
    stead *store = NULL;
    uint64_t last = 0, version;
    int rc = 0;
    while (!*stop && rc == 0) {
        if (store == NULL) {
            rc = stead_open(&store, path,
                            &(stead_options){.flags = STEAD_READ_ONLY | STEAD_EXISTING, .timeout_ms = 2000});
            if (rc == ENOENT || rc == EBUSY || rc == ETIMEDOUT || rc == STEAD_SHARING_MISMATCH) {
                usleep(1000);
                rc = 0;
                continue;
            }
            if (rc != 0)
                return rc;
        }
        rc = stead_lock(store, STEAD_SHARED, TRIAL_SOON_MS);
        if (rc == STEAD_FAILED) { /* the writer died while it changed the file: a fresh open sees a commit again */
            stead_abandon(store);
            store = NULL;
            rc = 0;
            continue;
        }
        if (rc != 0)
            break;
        rc = versioned_check(store, &version, arg);
        if (rc == 0 && version < last)
            rc = EUCLEAN;
        last = version;
        int unlocked = stead_unlock(store);
        rc = rc != 0 ? rc : unlocked;
    }
    if (store != NULL)
        stead_abandon(store);
    return rc;
}

/* Somebody who waits for the turn while its holder is killed: it must come within seconds, on a whole version. */
static int neighbour_waiter(const char *path, const volatile bool *stop, void *arg)
{
    stead *store;
    uint64_t version;
    int rc = open_store(&store, path, STEAD_TURNS);
    if (rc != 0)
        return rc;
    while (!*stop && rc == 0) {
        rc = stead_lock(store, STEAD_EXCLUSIVE, TRIAL_SOON_MS);
        if (rc != 0)
            break;
        rc = versioned_check(store, &version, arg);
        int unlocked = stead_unlock(store);
        rc = rc != 0 ? rc : unlocked;
    }
    stead_abandon(store);
    return rc;
}

const struct crash_case workload_durable = {
    .name = "durable", .run = run_durable, .check = versioned_check, .neighbour = neighbour_reader};
const struct crash_case workload_buffered = {
    .name = "buffered", .run = run_buffered, .check = versioned_check, .neighbour = neighbour_reader};
const struct crash_case workload_checkpoints = {
    .name = "checkpoints", .run = run_checkpoints, .check = versioned_check, .neighbour = neighbour_reader};
const struct crash_case workload_rollback = {.name = "rollback", .run = run_rollback, .check = versioned_check};
const struct crash_case workload_bulk = {.name = "bulk", .run = run_bulk, .check = versioned_check};
const struct crash_case workload_reopened = {.name = "reopened",
                                             .prepare = prepare_sealed,
                                             .prepared_version = 3,
                                             .run = run_reopened,
                                             .check = versioned_check,
                                             .neighbour = neighbour_reader};
const struct crash_case workload_recovery = {.name = "recovery",
                                             .prepare = prepare_crashed,
                                             .prepared_version = 7,
                                             .run = run_reopened,
                                             .check = versioned_check};
const struct crash_case workload_turns = {
    .name = "turns", .run = run_turns, .check = versioned_check, .neighbour = neighbour_waiter};
const struct crash_case workload_turns_crashed = {.name = "turns-crashed",
                                                  .prepare = prepare_turns_crashed,
                                                  .prepared_version = 3,
                                                  .run = run_turns_crashed,
                                                  .check = versioned_check};
const struct crash_case workload_backup = {.name = "backup", .run = run_backup, .check = versioned_check};
const struct crash_case *const workloads_all[] = {&workload_durable,
                                                  &workload_checkpoints,
                                                  &workload_buffered,
                                                  &workload_rollback,
                                                  &workload_bulk,
                                                  &workload_reopened,
                                                  &workload_recovery,
                                                  &workload_turns,
                                                  &workload_turns_crashed,
                                                  &workload_backup,
                                                  NULL};
