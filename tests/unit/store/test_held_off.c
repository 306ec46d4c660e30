/*
 * A reader that stays in its section holds off the application of the log: the writer goes on up to the log's limit, then its
 * commits say who is in the way, and change nothing.  When the reader goes, so does all that.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "persist/txn.h"
#include "support/support.h"

TestSuite(held_off, .init = support_setup, .fini = support_teardown, .timeout = 120);

#define LOG_LIMIT (UINT64_C(256) << 10)
#define WORDS 4096

static volatile uint32_t *stage; /* 1: the reader is inside */

/* It sees one commit for as long as it stays, whatever is committed. */
static void stay_inside(void *arg)
{
    stead *r;
    (void)arg;
    CHILD(stead_open(&r, path_in("s"), &(stead_options){.flags = STEAD_READ_ONLY, .timeout_ms = 10000}) == 0);
    CHILD(stead_lock(r, STEAD_SHARED, 10000) == 0);
    const volatile uint64_t *words = stead_root(r);
    uint64_t seen = words[0];
    stage[0] = 1;
    CHILD(await(&stage[1], 1));
    for (unsigned i = 0; i < WORDS; i++)
        CHILD(words[i] == seen);
    CHILD(stead_unlock(r) == 0);
    stage[2] = 1;
    CHILD(await(&stage[3], 1));
    CHILD(stead_close(r) == 0);
}

static void fill(uint64_t *words, uint64_t value)
{
    for (unsigned i = 0; i < WORDS; i++)
        words[i] = value;
}

Test(held_off, a_log_at_its_limit_says_who_is_in_the_way_and_goes_on_when_he_goes)
{
    stead *s;
    stead_status status;
    char who[40];
    uint64_t value = 1;
    int rc = 0;
    stage = shared_words(4);
    txn_log_limit_bytes = LOG_LIMIT;
    OK(stead_open(&s, path_in("s"), NULL));
    uint64_t *words = stead_calloc(s, WORDS, sizeof *words);
    OK(stead_set_root(s, words));
    fill(words, value);
    OK(stead_commit(s, STEAD_DURABLE));
    pid_t reader = spawn(stay_inside, NULL);
    cr_assert(await(&stage[0], 1));
    for (unsigned n = 0; n < 1000 && rc == 0; n++) {
        fill(words, value + 1);
        rc = stead_commit(s, STEAD_DURABLE);
        value += rc == 0;
    }
    cr_assert_eq(rc, ETIMEDOUT, "%d", rc);
    (void)snprintf(who, sizeof who, "process %ld)", (long)reader);
    cr_assert_not_null(strstr(stead_last_error_text(), who), "%s", stead_last_error_text());
    OK(stead_stat(s, &status));
    cr_assert_lt(status.log_bytes, LOG_LIMIT + (UINT64_C(64) << 10), "one commit more than the limit");
    cr_assert_eq(words[7], value + 1, "memory is intact");
    FAILS(stead_commit(s, STEAD_BUFFERED), ETIMEDOUT);
    OK(stead_rollback(s));
    cr_assert_eq(words[7], value);
    stage[1] = 1;
    cr_assert(await(&stage[2], 1));
    fill(words, ++value);
    OK(stead_commit(s, STEAD_DURABLE));
    OK(stead_stat(s, &status));
    cr_assert_lt(status.log_bytes, LOG_LIMIT, "it was brought home");
    stage[3] = 1;
    REAP_OK(reader);
    OK(stead_close(s));
    OK(stead_open(&s, path_in("s"), NULL));
    cr_assert_eq(((uint64_t *)stead_root(s))[WORDS - 1], value);
    OK(stead_close(s));
}
