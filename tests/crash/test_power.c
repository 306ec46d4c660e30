/*
 * test_power.c -- power cuts: after every request of each workload, the states that the disk may be in, each opened,
 * checked and compared with the commits it may equal.  STEAD_SEED repeats a run, STEAD_LONG=1 tries many more states,
 * STEAD_PART=i/n every n-th point.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "lock/bytes.h"
#include "tests/crash/crash_trial.h"
#include "tests/crash/versioned.h"
#include "tests/crash/workloads.h"

TestSuite(power_cut, .timeout = 1500);

static void explore(const struct crash_case *what, uint64_t points_min, uint64_t states_min)
{
    struct crash_outcome o;
    int rc = crash_power_cuts(what, &o);
    fprintf(stderr,
            "%s: %" PRIu64 " points (%" PRIu64 " exhaustive), %" PRIu64 " states, %" PRIu64 " met again, %" PRIu64
            " recoveries cut in turn, %" PRIu64 " failures\n",
            what->name, o.points, o.exhaustive, o.states, o.duplicates, o.recoveries, o.failures);
    cr_assert_eq(rc, 0, "%s", rc == EUCLEAN ? o.first : stead_strerror(rc));
    if (trial_is_part())
        return;
    cr_assert_geq(o.points, points_min, "%s: a workload that asks nothing of the disk proves nothing", what->name);
    cr_assert_geq(o.states, states_min);
}

Test(power_cut, durable_commits_are_there_and_nothing_is_mixed)
{
    explore(&workload_durable, 10, 50);
}

Test(power_cut, buffered_commits_are_a_prefix_not_older_than_the_last_durable_one)
{
    explore(&workload_buffered, 10, 50);
}

Test(power_cut, a_checkpoint_between_commits_loses_none)
{
    explore(&workload_checkpoints, 10, 50);
}

Test(power_cut, rollback_and_growth_leave_no_trace)
{
    explore(&workload_rollback, 10, 50);
}

Test(power_cut, bulk_load_written_straight_to_the_file_is_all_or_nothing)
{
    explore(&workload_bulk, 10, 50);
}

Test(power_cut, a_sealed_store_reopened_and_closed)
{
    explore(&workload_reopened, 10, 50);
}

Test(power_cut, recovery_cut_short_is_recovered)
{
    explore(&workload_recovery, 10, 50);
}

Test(power_cut, turns_nobody_sees_what_power_loss_takes_back)
{
    explore(&workload_turns, 10, 50);
}

Test(power_cut, turns_a_section_cut_off_never_happened)
{
    explore(&workload_turns_crashed, 10, 50);
}

Test(power_cut, a_backup_between_commits_disturbs_nothing)
{
    explore(&workload_backup, 10, 50);
}

struct held_off {
    stead_sharing sharing;
    unsigned byte; /* what somebody else holds for longer than the close waits */
    enum lock_byte_mode mode;
};

/* In SOLE nothing was committed before the close, in TURNS a section, of which its unlock promises no more than a place in
 * the log. */
static int change_before_close(stead *store)
{
    int rc = stead_lock(store, STEAD_EXCLUSIVE, -1);
    if (rc == 0)
        rc = versioned_make(store);
    if (rc == 0)
        rc = versioned_step(store, 1);
    crash_begin(1);
    return rc == 0 ? stead_unlock(store) : rc;
}

static int run_held_off(const char *path, void *arg)
{
    const struct held_off *held_off = arg;
    char log[600];
    stead *store;
    int rc = stead_open(&store, path, &(stead_options){.sharing = held_off->sharing, .timeout_ms = 20});
    if (rc == 0)
        rc = change_before_close(store);
    if (rc != 0)
        return rc;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    rc = fd < 0 ? errno : lock_byte_take(fd, held_off->byte, held_off->mode, 0);
    if (rc == 0)
        rc = stead_close(store);
    if (rc == 0)
        crash_done(1, true);
    snprintf(log, sizeof log, "%s-wal", path);
    if (rc == 0 && access(log, F_OK) != 0)
        rc = EPROTO; /* nothing held it off: this proves nothing */
    if (fd >= 0)
        close(fd);
    return rc;
}

/* The close of who is not let in, by an opener or by a reader in its section, leaves the log and says that all is well: then
 * what it leaves is durable. */
Test(power_cut, a_close_that_is_held_off_is_durable)
{
    static const struct held_off ways[] = {{STEAD_SOLE, LOCK_BYTE_GATE, LOCK_BYTE_WRITE},
                                           {STEAD_SOLE, LOCK_BYTE_APPLY, LOCK_BYTE_READ},
                                           {STEAD_TURNS, LOCK_BYTE_GATE, LOCK_BYTE_WRITE},
                                           {STEAD_TURNS, LOCK_BYTE_APPLY, LOCK_BYTE_READ}};
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++)
        explore(
            &(struct crash_case){
                .name = "held-off", .run = run_held_off, .check = versioned_check, .arg = (void *)(uintptr_t)&ways[i]},
            5, 10);
}
