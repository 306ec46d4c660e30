/*
 * test_power.c -- power cuts: after every request of each workload, the states that the disk may be in, each opened,
 * checked and compared with the commits it may equal.  STEAD_SEED repeats a run, STEAD_LONG=1 tries many more states,
 * STEAD_PART=i/n every n-th point.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

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
