/*
 * A reader that stays in its section holds off the application of the log: the writer goes on up to the log's limit, then its
 * commits say who is in the way, and change nothing.  When the reader goes, so does all that.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "persist/txn.h"
#include "store/call.h"
#include "support/support.h"

TestSuite(held_off, .init = support_setup, .fini = support_teardown, .timeout = 300);

#define LOG_LIMIT (UINT64_C(256) << 10)
#define WORDS 4096

static volatile uint32_t *stage; /* 1: the reader is inside */

/* It sees one commit for as long as it stays, whatever is committed. */
static void stay_inside(void *arg)
{
    stead *r;
    (void)arg;
    CHILD(stead_open(&r, path_in("s"), &(stead_options){.flags = STEAD_READ_ONLY, .timeout_ms = SOON_MS}) == 0);
    CHILD(stead_lock(r, STEAD_SHARED, SOON_MS) == 0);
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

/* ---- the limit of memory */

#define PAGES 1024
#define PAGE 4096u
#define LIMIT_BYTES (256 * PAGE)

/* From outside: the same as the writer says. */
static void look_from_outside(void *arg)
{
    stead *r;
    stead_status status;
    const pid_t *reader = arg;
    CHILD(stead_open(&r, path_in("s"), &(stead_options){.flags = STEAD_READ_ONLY, .timeout_ms = SOON_MS}) == 0);
    CHILD(stead_stat(r, &status) == 0);
    CHILD(status.waiting_bytes > LIMIT_BYTES / 2 && status.held_off_pid == *reader && status.held_off_since != 0);
    CHILD(stead_close(r) == 0);
}

static int find_attached(const stead_lock_info *info, void *arg)
{
    stead_lock_info *want = arg;
    if (info->pid != want->pid || info->waiting || strcmp(info->lock, "application") != 0)
        return 0;
    *want = *info;
    return 1;
}

static void expect_nobody(stead *s)
{
    stead_status status;
    OK(stead_stat(s, &status));
    cr_assert(status.held_off_pid == 0 && status.held_off_since == 0, "%ld", (long)status.held_off_pid);
}

/* One page a commit, each another one, until one is refused; how many were not. */
static unsigned commit_until_refused(stead *s, char *bytes, stead_durability durability, int *rc)
{
    unsigned n = 0;
    do
        bytes[(size_t)n * PAGE]++;
    while ((*rc = stead_commit(s, durability)) == 0 && ++n < PAGES);
    return n;
}

/* A reader is stopped in its section (SIGSTOP).  What the writer keeps in memory for it comes to the limit; then commits say
 * who it is, and change nothing; when he goes on and leaves, so do they. */
static void meet_the_limit(stead_durability durability)
{
    stead *s;
    stead_status status;
    int rc, wstatus;
    char who[40];
    time_t begun = time(NULL);
    stage = shared_words(4);
    OK(stead_open(&s, path_in("s"), &(stead_options){.max_private_bytes = LIMIT_BYTES}));
    char *bytes = stead_calloc(s, PAGES, PAGE);
    OK(stead_set_root(s, bytes));
    OK(stead_commit(s, STEAD_DURABLE));
    pid_t reader = spawn(stay_inside, NULL);
    cr_assert(await(&stage[0], 1));
    cr_assert_eq(kill(reader, SIGSTOP), 0);
    cr_assert_eq(waitpid(reader, &wstatus, WUNTRACED), reader);
    expect_nobody(s);
    unsigned made = commit_until_refused(s, bytes, durability, &rc);
    cr_assert_eq(rc, STEAD_LIMIT, "%d after %u commits", rc, made);
    (void)snprintf(who, sizeof who, "process %ld)", (long)reader);
    cr_assert_not_null(strstr(stead_last_error_text(), who), "%s", stead_last_error_text());
    OK(stead_stat(s, &status));
    cr_assert_leq(status.waiting_bytes, LIMIT_BYTES);
    cr_assert_geq(status.waiting_bytes, 2 * made * PAGE);
    cr_assert_gt(status.waiting_bytes + 4 * PAGE, LIMIT_BYTES, "after %u commits there was room", made);
    cr_assert_eq(status.held_off_pid, reader);
    cr_assert(status.held_off_since >= begun && status.held_off_since <= time(NULL));
    stead_lock_info info = {.pid = reader};
    cr_assert_eq(stead_each_lock(s, find_attached, &info), 1);
    cr_assert(info.attached >= begun && info.attached <= time(NULL), "%lld", (long long)info.attached);
    REAP_OK(spawn(look_from_outside, &reader));
    FAILS(stead_commit(s, STEAD_DURABLE), STEAD_LIMIT); /* nothing is lost by another try ... */
    cr_assert_eq(bytes[(size_t)made * PAGE], 1, "memory is intact");
    OK(stead_rollback(s)); /* ... nor by giving up */
    cr_assert_eq(bytes[(size_t)made * PAGE], 0);
    bytes[8] = 5; /* a page that waits already needs no more */
    OK(stead_commit(s, durability));
    bytes[(size_t)made * PAGE] = 2;
    FAILS(stead_commit(s, durability), STEAD_LIMIT);
    cr_assert_eq(kill(reader, SIGCONT), 0);
    stage[1] = 1;
    cr_assert(await(&stage[2], 1));
    expect_nobody(s);
    OK(stead_commit(s, durability));
    OK(stead_stat(s, &status));
    cr_assert_leq(status.waiting_bytes, 8 * PAGE, "it was brought home");
    stage[3] = 1;
    REAP_OK(reader);
    OK(stead_close(s));
    OK(stead_open(&s, path_in("s"), NULL));
    bytes = stead_root(s);
    cr_assert(bytes[(size_t)made * PAGE] == 2 && bytes[8] == 5 && bytes[(size_t)(made - 1) * PAGE] == 1);
    OK(stead_close(s));
}

Test(held_off, a_stopped_reader_costs_no_more_memory_than_the_limit_durable)
{
    meet_the_limit(STEAD_DURABLE);
}

Test(held_off, a_stopped_reader_costs_no_more_memory_than_the_limit_buffered)
{
    meet_the_limit(STEAD_BUFFERED);
}

/* Nobody is in the way: what waits goes home, however small the limit; a commit too large for it is refused for good. */
Test(held_off, a_limit_that_nobody_is_in_the_way_of_refuses_large_commits_only)
{
    stead *s;
    stead_status status;
    int rc;
    OK(stead_open(&s, path_in("s"), &(stead_options){.max_private_bytes = LIMIT_BYTES}));
    char *bytes = stead_calloc(s, PAGES, PAGE);
    OK(stead_set_root(s, bytes));
    OK(stead_commit(s, STEAD_BUFFERED));
    for (unsigned round = 0; round < 3; round++) {
        cr_assert_eq(commit_until_refused(s, bytes, STEAD_BUFFERED, &rc), PAGES, "%s", stead_last_error_text());
        OK(stead_stat(s, &status));
        cr_assert_leq(status.private_bytes, LIMIT_BYTES);
    }
    for (unsigned i = 0; i < PAGES; i++)
        bytes[(size_t)i * PAGE] = 9;
    FAILS(stead_commit(s, STEAD_BUFFERED), STEAD_LIMIT);
    OK(stead_rollback(s));
    cr_assert_eq(bytes[0], 3);
    OK(stead_close(s));
}

/* Since the first try in vain, not since the last one; and this process's own section is no reader's. */
Test(held_off, since_when_and_by_whom)
{
    stead *s;
    stead_status status;
    OK(stead_open(&s, path_in("s"), NULL));
    atomic_store(&s->unit->held_off_since_s, 7);
    held_off_note(s, true);
    cr_assert_eq(atomic_load(&s->unit->held_off_since_s), 7);
    OK(store_apply_lock(s, false, 0));
    FAILS(held_off_explain(s, STEAD_LIMIT, "test"), STEAD_LIMIT);
    cr_assert_not_null(strstr(stead_last_error_text(), "by this process"), "%s", stead_last_error_text());
    OK(stead_stat(s, &status));
    cr_assert_eq(status.held_off_pid, 0);
    store_apply_unlock(s, true);
    held_off_note(s, false);
    cr_assert_eq(atomic_load(&s->unit->held_off_since_s), 0);
    OK(stead_close(s));
}

static stead *open_with_words(void)
{
    stead *s;
    stage = shared_words(4);
    OK(stead_open(&s, path_in("s"), NULL));
    OK(stead_set_root(s, stead_calloc(s, WORDS, sizeof(uint64_t))));
    OK(stead_commit(s, STEAD_DURABLE));
    return s;
}

static void expect_holder(stead *s, pid_t pid)
{
    stead_status status;
    OK(stead_stat(s, &status));
    cr_assert_eq(status.held_off_pid, pid, "%ld in place of %ld", (long)status.held_off_pid, (long)pid);
    cr_assert_neq(status.held_off_since, 0);
}

/* The reader is in the way, whoever else is: a backup by the writer itself is not told of in his place.  When he is killed
 * he is in nobody's way. */
Test(held_off, a_reader_is_named_before_the_writer_itself_and_the_dead_are_not)
{
    stead *s = open_with_words();
    for (unsigned order = 0; order < 2; order++) {
        stage[0] = 0;
        if (order == 0)
            OK(store_apply_lock(s, false, 0));
        pid_t reader = spawn(stay_inside, NULL);
        cr_assert(await(&stage[0], 1));
        if (order == 1)
            OK(store_apply_lock(s, false, 0));
        held_off_note(s, true);
        expect_holder(s, reader);
        store_apply_unlock(s, true);
        expect_holder(s, reader);
        cr_assert_eq(kill(reader, SIGKILL), 0);
        cr_assert_eq(reap(reader), 128 + SIGKILL);
        expect_nobody(s);
    }
    OK(stead_close(s));
}

static int find_waiting(const stead_lock_info *info, void *arg)
{
    const pid_t *want = arg;
    return info->waiting && info->pid == *want;
}

/* Who waits for an application that is under way does not hold it off. */
Test(held_off, a_reader_that_waits_is_in_nobodys_way)
{
    stead *s = open_with_words();
    OK(store_apply_lock(s, true, 0));
    held_off_note(s, true);
    pid_t reader = spawn(stay_inside, NULL);
    int found = 0;
    for (unsigned i = 0; i < SOON_MS && found == 0; i++) {
        found = stead_each_lock(s, find_waiting, &reader);
        pause_ms(1);
    }
    cr_assert_eq(found, 1, "the reader never waited");
    expect_nobody(s);
    store_apply_unlock(s, true);
    cr_assert(await(&stage[0], 1));
    expect_holder(s, reader);
    stage[1] = stage[3] = 1;
    REAP_OK(reader);
    OK(stead_close(s));
}

/* It opened the store while nobody had it: the kernel's lock is all that tells of it. */
static void stay_inside_without_a_slot(void *arg)
{
    stead *r;
    (void)arg;
    CHILD(stead_open(&r, path_in("s"), &(stead_options){.flags = STEAD_READ_ONLY}) == 0);
    stage[0] = 1;
    CHILD(await(&stage[1], 1));
    CHILD(stead_lock(r, STEAD_SHARED, SOON_MS) == 0);
    stage[0] = 2;
    CHILD(await(&stage[1], 2));
    CHILD(stead_unlock(r) == 0 && stead_close(r) == 0);
}

Test(held_off, a_reader_without_a_slot_is_told_of_and_has_no_name)
{
    stead *s;
    stage = shared_words(2);
    OK(stead_open(&s, path_in("s"), NULL));
    OK(stead_close(s));
    pid_t reader = spawn(stay_inside_without_a_slot, NULL);
    cr_assert(await(&stage[0], 1));
    OK(stead_open(&s, path_in("s"), NULL));
    stage[1] = 1;
    cr_assert(await(&stage[0], 2));
    held_off_note(s, true);
    expect_holder(s, 0);
    FAILS(held_off_explain(s, STEAD_LIMIT, "test"), STEAD_LIMIT);
    cr_assert_not_null(strstr(stead_last_error_text(), "no slot"), "%s", stead_last_error_text());
    stage[1] = 2;
    REAP_OK(reader);
    expect_nobody(s);
    OK(stead_close(s));
}

/* What a dead writer's words say is nobody's. */
Test(held_off, nothing_waits_where_no_writer_is)
{
    stead *s;
    stead_status status;
    OK(stead_open(&s, path_in("s"), NULL));
    OK(stead_close(s));
    OK(stead_open(&s, path_in("s"), &(stead_options){.flags = STEAD_READ_ONLY}));
    OK(stead_lock(s, STEAD_SHARED, -1));
    atomic_store(&s->unit->waiting_bytes, 77);
    atomic_store(&s->unit->held_off_since_s, 7);
    OK(stead_stat(s, &status));
    cr_assert_eq(status.waiting_bytes, 0);
    cr_assert_eq(status.held_off_since, 0);
    OK(stead_unlock(s));
    OK(stead_close(s));
}

/* ---- much that waits */

static void look_twice(void *arg)
{
    stead *r;
    (void)arg;
    CHILD(stead_open(&r, path_in("s"), &(stead_options){.flags = STEAD_READ_ONLY, .timeout_ms = SOON_MS}) == 0);
    stage[0] = 1;
    for (unsigned char want = 1; want <= 2; want++) {
        CHILD(await(&stage[1], want));
        CHILD(stead_lock(r, STEAD_SHARED, SOON_MS) == 0);
        const unsigned char *bytes = stead_root(r);
        CHILD(bytes[0] == want && bytes[(size_t)9999 * PAGE] == 1);
        CHILD(stead_unlock(r) == 0);
        stage[0] = want + 1u;
    }
    CHILD(stead_close(r) == 0);
}

/* A writer that was alone has much that waits; the commits after a reader came bring it home, none of them all of it, and he
 * sees each of them. */
Test(held_off, what_waited_before_a_reader_came_goes_home_in_pieces)
{
    stead *s;
    stead_status status;
    stage = shared_words(2);
    OK(stead_open(&s, path_in("s"), NULL));
    unsigned char *bytes = stead_calloc(s, 10000, PAGE);
    OK(stead_set_root(s, bytes));
    OK(stead_commit(s, STEAD_DURABLE)); /* and a checkpoint: the pages are the file's */
    for (unsigned i = 0; i < 10000; i++) {
        bytes[(size_t)i * PAGE] = 1;
        if (i % 1000 == 998 || i >= 9998) /* the last one is small: pieces are in proportion to it */
            OK(stead_commit(s, STEAD_BUFFERED));
    }
    OK(stead_stat(s, &status));
    uint64_t waited = status.waiting_bytes;
    pid_t reader = spawn(look_twice, NULL);
    cr_assert(await(&stage[0], 1));
    OK(stead_commit(s, STEAD_DURABLE)); /* of nothing */
    stage[1] = 1;
    cr_assert(await(&stage[0], 2));
    bytes[0] = 2;
    OK(stead_commit(s, STEAD_DURABLE));
    OK(stead_stat(s, &status));
    if (waited > UINT64_C(64) << 20) /* else pages are not protected here, and less may wait */
        cr_assert(status.waiting_bytes > 0 && status.waiting_bytes < waited, "%llu of %llu",
                  (unsigned long long)status.waiting_bytes, (unsigned long long)waited);
    stage[1] = 2;
    cr_assert(await(&stage[0], 3));
    REAP_OK(reader);
    OK(stead_close(s));
}
