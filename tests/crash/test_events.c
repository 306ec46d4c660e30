/*
 * test_events.c -- what else can happen to a store: a wild pointer, a plain copy of the files while a writer works, a LIVE
 * writer killed.  Random places and instants; STEAD_SEED repeats them.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "persist/txn.h"
#include "tests/crash/crash_trial.h"
#include "tests/crash/versioned.h"

static char directory[TRIAL_PATH_BYTES], path[TRIAL_PATH_BYTES + 16];
static uint64_t state;

static uint64_t draw(void)
{
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return state >> 20;
}

static void setup(void)
{
    state = trial_seed();
    cr_assert_eq(trial_make_directory(directory), 0);
    snprintf(path, sizeof path, "%s/%s", directory, TRIAL_STORE_NAME);
}

static void teardown(void)
{
    trial_remove_directory(directory);
}

TestSuite(event, .init = setup, .fini = teardown, .timeout = 300);

#define OK(call) \
    do { \
        int ok_rc = (call); \
        cr_assert_eq(ok_rc, 0, "%s: %s (%s)", #call, stead_strerror(ok_rc), stead_last_error_text()); \
    } while (0)

static void open_as(stead **store, stead_sharing sharing)
{
    OK(stead_open(store, path, &(stead_options){.sharing = sharing, .timeout_ms = TRIAL_SOON_MS}));
}

static void expect_version(stead *store, uint64_t expected)
{
    uint64_t version;
    stead_report report;
    OK(versioned_check(store, &version, NULL));
    cr_assert_eq(version, expected);
    int rc = stead_check(store, &report);
    cr_assert_eq(rc, 0, "%s", report.first_problem);
}

/* Whole words anywhere in the used range: user data, names, the heap's own state.  A wild write on purpose, which
 * AddressSanitizer must let pass. */
__attribute__((no_sanitize_address)) static void scribble(stead *store, unsigned places)
{
    stead_status status;
    OK(stead_stat(store, &status));
    uint64_t *words = status.base;
    for (unsigned i = 0; i < places; i++)
        words[draw() % (status.used_bytes / sizeof *words)] = draw();
}

Test(event, a_wild_write_in_sole_is_undone_by_rollback)
{
    stead *store;
    open_as(&store, STEAD_SOLE);
    OK(versioned_make(store));
    for (uint64_t v = 1; v <= 3; v++) {
        OK(versioned_step(store, v));
        OK(stead_commit(store, v == 3 ? STEAD_DURABLE : STEAD_BUFFERED));
    }
    for (unsigned trial = 0; trial < 20; trial++) {
        OK(versioned_step(store, 4));
        scribble(store, 300);
        OK(stead_rollback(store));
        expect_version(store, 3);
    }
    OK(versioned_step(store, 4));
    OK(stead_close(store));
    open_as(&store, STEAD_SOLE);
    expect_version(store, 4);
    OK(stead_close(store));
}

Test(event, a_wild_write_in_a_turn_is_undone_by_rollback)
{
    stead *store;
    open_as(&store, STEAD_TURNS);
    OK(stead_lock(store, STEAD_EXCLUSIVE, TRIAL_SOON_MS));
    OK(versioned_make(store));
    OK(versioned_step(store, 1));
    OK(stead_unlock(store));
    for (unsigned trial = 0; trial < 20; trial++) {
        OK(stead_lock(store, STEAD_EXCLUSIVE, TRIAL_SOON_MS));
        OK(versioned_step(store, 2));
        scribble(store, 300);
        OK(stead_rollback(store));
        expect_version(store, 1);
        OK(stead_unlock(store));
    }
    OK(stead_close(store));
}

/* ---- a plain copy while a writer works ---- */

/* Returns when the writer has the store open and has committed once. */
static pid_t start_writer(stead_sharing sharing)
{
    int ready[2];
    char byte;
    cr_assert_eq(pipe2(ready, O_CLOEXEC), 0);
    fflush(NULL);
    pid_t child = fork();
    cr_assert(child >= 0);
    if (child != 0) {
        close(ready[1]);
        cr_assert_eq(read(ready[0], &byte, 1), 1, "the writer could not begin");
        close(ready[0]);
        return child;
    }
    stead *store;
    alarm(TRIAL_SECONDS_MAX);
    txn_log_limit_bytes = 200000; /* checkpoints all the time: the file moves under the copier */
    if (stead_open(&store, path, &(stead_options){.sharing = sharing}) != 0)
        _exit(1);
    if (stead_root(store) == NULL && versioned_make(store) != 0)
        _exit(1);
    uint64_t first = versioned_now(store) + 1;
    for (uint64_t v = first;; v++) {
        if (versioned_step(store, v) != 0 || stead_commit(store, v % 4 == 0 ? STEAD_DURABLE : STEAD_BUFFERED) != 0)
            _exit(1);
        if (v == first && write(ready[1], "", 1) != 1)
            _exit(1);
    }
}

static void copy_file(const char *from_name, const char *to_name)
{
    static char chunk[8192];
    int from = open(from_name, O_RDONLY | O_CLOEXEC),
        to = open(to_name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ssize_t n;
    cr_assert(to >= 0);
    while (from >= 0 && (n = read(from, chunk, sizeof chunk)) > 0)
        cr_assert_eq(write(to, chunk, (size_t)n), n);
    close(to);
    if (from < 0)
        unlink(to_name);
    else
        close(from);
}

enum { COMMIT, REFUSED, REPORTED, SILENT_MIX, JUDGEMENTS };

/* In a process of its own, which has no store open at that address. */
static int judge_copy(const char *copy)
{
    int status;
    fflush(NULL);
    pid_t child = fork();
    cr_assert(child >= 0);
    if (child == 0) {
        stead *store;
        stead_report report;
        uint64_t version;
        alarm(TRIAL_SECONDS_MAX);
        if (stead_open(&store, copy, &(stead_options){.flags = STEAD_EXISTING}) != 0)
            _exit(REFUSED);
        if (stead_check(store, &report) != 0)
            _exit(REPORTED);
        _exit(versioned_check(store, &version, NULL) == 0 ? COMMIT : SILENT_MIX);
    }
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : SILENT_MIX;
}

/* Copies the files with these ends of their names, in this order, and judges the copy. */
static int copy_and_judge(const char *const *suffix, unsigned files)
{
    char from[TRIAL_PATH_BYTES + 32], to[TRIAL_PATH_BYTES + 32];
    for (unsigned i = 0; i < files; i++) {
        snprintf(from, sizeof from, "%s%s", path, suffix[i]);
        snprintf(to, sizeof to, "%s/copy%s", directory, suffix[i]);
        copy_file(from, to);
    }
    snprintf(to, sizeof to, "%s/copy", directory);
    int judgement = judge_copy(to);
    snprintf(to, sizeof to, "%s/copy-wal.new", directory);
    unlink(to);
    return judgement;
}

/* A copy of all files while the writer stands still is what a snapshot is: it opens, wherever that was. */
static void copy_at_rest(pid_t writer)
{
    static const char *const all[] = {"", "-wal", "-wal.new"};
    int status;
    cr_assert_eq(kill(writer, SIGSTOP), 0);
    cr_assert_eq(waitpid(writer, &status, WUNTRACED), writer);
    cr_assert(WIFSTOPPED(status), "the writer gave up");
    cr_assert_eq(copy_and_judge(all, 3), COMMIT, "a snapshot was refused, or is a mix");
    cr_assert_eq(kill(writer, SIGCONT), 0);
}

/* log_first: which of the two files is copied before the other. */
static void copy_often(bool log_first, unsigned outcomes[JUDGEMENTS])
{
    static const char *const orders[2][2] = {{"", "-wal"}, {"-wal", ""}};
    stead *store;
    open_as(&store, STEAD_SOLE);
    OK(versioned_make(store));
    OK(stead_close(store));
    pid_t writer = start_writer(STEAD_SOLE);
    /* Most copies of a file that changes meanwhile are refused; whether one opens depends on who is faster. */
    for (unsigned trial = 0; trial < (trial_is_long() ? 2000U : 80U); trial++) {
        usleep((useconds_t)(draw() % 3000));
        if (trial % 8 == 7)
            copy_at_rest(writer);
        else
            outcomes[copy_and_judge(orders[log_first], 2)]++;
    }
    cr_expect_eq(waitpid(writer, NULL, WNOHANG), 0, "the writer gave up");
    kill(writer, SIGKILL);
    waitpid(writer, NULL, 0);
    fprintf(stderr, "copies, %s first: %u opened to a commit, %u refused, %u reported by stead_check, %u mixed\n",
            log_first ? "log" : "file", outcomes[COMMIT], outcomes[REFUSED], outcomes[REPORTED], outcomes[SILENT_MIX]);
}

/* At random instants beside a writer in another process; at chosen ones: test_copy.c. */
Test(event, a_plain_copy_of_an_open_store_opens_to_a_commit_or_is_refused)
{
    unsigned outcomes[2][JUDGEMENTS] = {{0}};
    copy_often(false, outcomes[0]);
    trial_clear_directory(directory);
    copy_often(true, outcomes[1]);
    for (unsigned first = 0; first < 2; first++)
        cr_expect_eq(outcomes[first][REPORTED] + outcomes[first][SILENT_MIX], 0);
}

/* ---- LIVE ---- */

Test(event, a_killed_live_writer_is_detected_and_the_heap_is_whole)
{
    stead_report report;
    stead_status status;
    stead *store;
    open_as(&store, STEAD_LIVE);
    OK(versioned_make(store));
    OK(stead_close(store));
    for (unsigned trial = 0; trial < (trial_is_long() ? 300U : 20U); trial++) {
        pid_t writer = start_writer(STEAD_LIVE);
        usleep((useconds_t)(draw() % 5000));
        kill(writer, SIGKILL);
        waitpid(writer, NULL, 0);
        stead_options options = {.sharing = STEAD_LIVE, .timeout_ms = TRIAL_SOON_MS};
        cr_assert_eq(stead_open(&store, path, &options), STEAD_UNCLEAN, "trial %u: taken for clean", trial);
        options.flags = STEAD_ACCEPT_UNCLEAN;
        OK(stead_open(&store, path, &options));
        int rc = stead_check(store, &report);
        cr_assert_eq(rc, 0, "trial %u: %s", trial, report.first_problem);
        OK(stead_stat(store, &status));
        cr_expect(status.accepted_unclean);
        OK(stead_set_root(store, NULL)); /* whatever was there: begin anew */
        OK(versioned_make(store));
        OK(stead_close(store));
    }
}
