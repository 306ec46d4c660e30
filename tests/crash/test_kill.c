/*
 * test_kill.c -- SIGKILL at every request to the system and at random instants, with neighbours reading or waiting for
 * their turn: what is found afterwards is the last acknowledged commit or the one under way, and the neighbours get on.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/crash/workloads.h"

TestSuite(killed, .timeout = 1500);

static void say(const struct crash_case *what, const struct crash_outcome *o, int rc)
{
    fprintf(stderr, "%s: %" PRIu64 " killed, %" PRIu64 " judged, %" PRIu64 " failures\n", what->name, o->points,
            o->states, o->failures);
    cr_assert_eq(rc, 0, "%s", rc == EUCLEAN ? o->first : stead_strerror(rc));
}

static void kill_everywhere(const struct crash_case *what)
{
    struct crash_outcome o;
    int rc = crash_kills(what, 0, &o);
    say(what, &o, rc);
    cr_assert_gt(o.points, 5, "%s: hardly anybody was killed", what->name);
}

static void kill_at_random(const struct crash_case *what)
{
    struct crash_outcome o;
    int rc = crash_random_kills(what, getenv("STEAD_LONG") != NULL ? 500 : 25, &o);
    say(what, &o, rc);
}

Test(killed, at_every_request_of_durable_commits_with_a_reader)
{
    kill_everywhere(&workload_durable);
}

Test(killed, at_every_request_of_buffered_commits_with_a_reader)
{
    kill_everywhere(&workload_buffered);
}

Test(killed, at_every_request_around_checkpoints_with_a_reader)
{
    kill_everywhere(&workload_checkpoints);
}

Test(killed, at_every_request_around_rollback)
{
    kill_everywhere(&workload_rollback);
}

Test(killed, at_every_request_of_open_change_close_with_a_reader)
{
    kill_everywhere(&workload_reopened);
}

Test(killed, at_every_request_of_a_recovery)
{
    kill_everywhere(&workload_recovery);
}

Test(killed, at_every_request_of_a_turn_with_others_waiting)
{
    kill_everywhere(&workload_turns);
}

Test(killed, at_random_instants_with_a_reader)
{
    kill_at_random(&workload_buffered);
    kill_at_random(&workload_reopened);
}

Test(killed, at_random_instants_of_turns_with_others_waiting)
{
    kill_at_random(&workload_turns);
}
