/*
 * test_copy.c -- a plain copy of a store in use is a commit or is refused, whenever the copier was interrupted
 * (persist/tail.c).
 *
 * Method: a copier that is stopped after every piece of the two files it copies, front to back, in both orders; at that
 * point the store does something: commits, an application, one or two checkpoints, a close and more commits after it,
 * growth in between.  Then the copier goes on to the end.  Each copy is opened in a process of its own: refused is
 * fine; opened, it must pass stead_check() and hold one version.  The copier reads with read(2), as cp, tar and rsync
 * do; it opens a file when its turn comes.  With two interruptions instead of one, pairs are drawn at random.
 *
 * In a build with STEAD_PLANT_NO_TAIL (the mark never raised) these tests must fail.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/store.h"
#include "tests/crash/crash_trial.h"
#include "tests/crash/versioned.h"

enum { PIECE = 65536 };
/* Wrong accesses show in a sample of the cases; each is a process, slow to fork in such a build. */
#if defined(__SANITIZE_ADDRESS__)
enum { EVERY_CASE = 6, TRIALS = 40 };
#else
enum { EVERY_CASE = 1, TRIALS = 300 };
#endif
enum { COMMIT, REFUSED, REPORTED, SILENT_MIX, JUDGEMENTS };
enum happening { COMMITS, APPLIED, CHECKPOINT, TWO_CHECKPOINTS, CLOSED, REOPENED, HAPPENINGS };
static const char *const happening_names[] = {"commits",         "an application", "a checkpoint",
                                              "two checkpoints", "a close",        "a close and a new session"};

static char directory[TRIAL_PATH_BYTES], path[TRIAL_PATH_BYTES + 16], copy[TRIAL_PATH_BYTES + 16];
static uint64_t random_state;
static stead *store;
static uint64_t version;

static uint64_t draw(void)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return random_state >> 20;
}

#define OK(call) \
    do { \
        int ok_rc = (call); \
        cr_assert_eq(ok_rc, 0, "%s: %s (%s)", #call, stead_strerror(ok_rc), stead_last_error_text()); \
    } while (0)

static void setup(void)
{
    random_state = trial_seed();
    cr_assert_eq(trial_make_directory(directory), 0);
    snprintf(path, sizeof path, "%s/%s", directory, TRIAL_STORE_NAME);
    snprintf(copy, sizeof copy, "%s/copy", directory);
}

static void teardown(void)
{
    trial_remove_directory(directory);
}

TestSuite(copy, .init = setup, .fini = teardown, .timeout = 900);

/* ---- the store */

static void open_store(void)
{
    OK(stead_open(&store, path, &(stead_options){.sharing = STEAD_SOLE, .timeout_ms = TRIAL_SOON_MS}));
    if (stead_root(store) == NULL)
        OK(versioned_make(store));
    version = versioned_now(store);
}

static void commit(unsigned commits)
{
    for (unsigned i = 0; i < commits; i++) {
        OK(versioned_step(store, ++version));
        OK(stead_commit(store, i % 2 == 0 ? STEAD_BUFFERED : STEAD_DURABLE));
    }
}

static void happen(enum happening what)
{
    commit(2);
    switch (what) {
    case APPLIED:
        OK(image_apply(store->image));
        commit(1);
        break;
    case TWO_CHECKPOINTS:
        OK(image_checkpoint(store->image));
        commit(3);
        OK(image_apply(store->image));
        /* fall through */
    case CHECKPOINT:
        OK(image_checkpoint(store->image));
        commit(2);
        OK(image_apply(store->image));
        break;
    case CLOSED:
        OK(stead_close(store));
        break;
    case REOPENED:
        OK(stead_close(store));
        open_store();
        commit(3);
        OK(image_apply(store->image));
        break;
    default:
        break;
    }
}

/* ---- the copier */

struct copier {
    bool log_first;
    unsigned part; /* 0: the first file, 1: the second, 2: done */
    int from, to;
};

static void begin_part(struct copier *c)
{
    char name[2][sizeof copy + 8];
    const char *suffix = (c->part == 0) == c->log_first ? "-wal" : "";
    snprintf(name[0], sizeof name[0], "%s%s", path, suffix);
    snprintf(name[1], sizeof name[1], "%s%s", copy, suffix);
    (void)unlink(name[1]);
    c->from = open(name[0], O_RDONLY | O_CLOEXEC);
    c->to = c->from < 0 ? -1 : open(name[1], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
}

/* The next piece.  false: that was all. */
static bool copy_piece(struct copier *c)
{
    static char piece[PIECE];
    if (c->part == 2)
        return false;
    ssize_t n = c->from < 0 ? 0 : read(c->from, piece, sizeof piece);
    if (n > 0) {
        cr_assert_eq(write(c->to, piece, (size_t)n), n);
        return true;
    }
    if (c->from >= 0) {
        close(c->from);
        close(c->to);
    }
    if (++c->part < 2)
        begin_part(c);
    return c->part < 2;
}

static void begin_copy(struct copier *c, bool log_first)
{
    *c = (struct copier){.log_first = log_first};
    begin_part(c);
}

/* In a process of its own, which has no store open at that address. */
static int judge(void)
{
    int status;
    fflush(NULL);
    pid_t child = fork();
    cr_assert(child >= 0);
    if (child == 0) {
        stead *copied;
        stead_report report;
        uint64_t found;
        alarm(TRIAL_SECONDS_MAX);
        if (stead_open(&copied, copy, &(stead_options){.flags = STEAD_EXISTING}) != 0)
            _exit(REFUSED);
        if (stead_check(copied, &report) != 0)
            _exit(REPORTED);
        _exit(versioned_check(copied, &found, NULL) == 0 ? COMMIT : SILENT_MIX);
    }
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : SILENT_MIX;
}

/* A store in the middle of its life: some of the log is applied, some is not. */
static void begin_store(void)
{
    trial_clear_directory(directory);
    open_store();
    commit(6);
    OK(image_checkpoint(store->image));
    commit(4);
    OK(image_apply(store->image));
    commit(2);
}

static void end_store(void)
{
    if (store != NULL)
        stead_abandon(store);
    store = NULL;
}

/* How many pieces a copy of the two files has when nothing happens; that copy must open. */
static unsigned count_pieces(bool log_first)
{
    struct copier c;
    unsigned pieces = 1;
    begin_store();
    begin_copy(&c, log_first);
    while (copy_piece(&c))
        pieces++;
    cr_assert_eq(judge(), COMMIT, "an undisturbed copy");
    end_store();
    return pieces;
}

static void try_copy(bool log_first, const unsigned at[2], const enum happening what[2], unsigned outcomes[JUDGEMENTS])
{
    struct copier c;
    bool open = true;
    begin_store();
    begin_copy(&c, log_first);
    for (unsigned piece = 0;; piece++) {
        for (unsigned k = 0; k < 2 && open; k++) {
            if (piece != at[k])
                continue;
            happen(what[k]);
            open = what[k] != CLOSED;
        }
        if (!copy_piece(&c))
            break;
    }
    if (open)
        end_store();
    store = NULL;
    int found = judge();
    outcomes[found]++;
    cr_expect(found == COMMIT || found == REFUSED, "%s first; at piece %u: %s; at piece %d: %s: %s",
              log_first ? "log" : "file", at[0], happening_names[what[0]], (int)at[1],
              at[1] == UINT32_MAX ? "nothing" : happening_names[what[1]],
              found == REPORTED ? "stead_check reports a mix" : "a mix that nobody reports");
}

static void print_outcomes(const char *what, const unsigned outcomes[JUDGEMENTS])
{
    fprintf(stderr, "%s: %u copies opened to a commit, %u refused, %u reported by stead_check, %u mixed\n", what,
            outcomes[COMMIT], outcomes[REFUSED], outcomes[REPORTED], outcomes[SILENT_MIX]);
    cr_assert_gt(outcomes[COMMIT], 0, "none opened: nothing was tried");
    cr_assert_gt(outcomes[REFUSED], 0, "none was refused: nothing was tried");
}

Test(copy, interrupted_at_every_piece_by_everything_is_a_commit_or_refused)
{
    for (unsigned first = 0; first < 2; first++) {
        unsigned outcomes[JUDGEMENTS] = {0};
        unsigned pieces = count_pieces(first);
        for (unsigned at = 0; at <= pieces; at++)
            for (unsigned what = at % EVERY_CASE; what < HAPPENINGS; what += EVERY_CASE)
                try_copy(first, (unsigned[]){at, UINT32_MAX}, (enum happening[]){(enum happening)what, COMMITS},
                         outcomes);
        print_outcomes(first ? "log first" : "file first", outcomes);
    }
}

Test(copy, interrupted_twice_is_a_commit_or_refused)
{
    unsigned outcomes[JUDGEMENTS] = {0};
    unsigned pieces[2] = {count_pieces(false), count_pieces(true)};
    for (unsigned trial = 0; trial < (trial_is_long() ? 10000U : TRIALS); trial++) {
        bool log_first = draw() % 2;
        unsigned a = (unsigned)(draw() % (pieces[log_first] + 1)), b = (unsigned)(draw() % (pieces[log_first] + 1));
        enum happening what[2] = {(enum happening)(draw() % HAPPENINGS), (enum happening)(draw() % HAPPENINGS)};
        if (!trial_is_mine(trial))
            continue;
        try_copy(log_first, (unsigned[]){a < b ? a : b, a < b ? b : a}, what, outcomes);
    }
    print_outcomes("twice", outcomes);
}
