/*
 * What a reader learns of writers that come, grow, close and die after it opened the store: in which mode they are, whether it
 * has to wait for them, how long the heap is, and whether what they left is to be trusted.
 *
 * A reader that opened the store while nobody had it has no slot, and goes by the superblock and the kernel's locks; one that
 * came later has one.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "persist/file.h"
#include "support/support.h"

static void teardown(void)
{
    file_calls = file_calls_system;
    support_teardown();
}

TestSuite(learning, .init = support_setup, .fini = teardown, .timeout = 300);

#define GROWN_BYTES (8u << 20)

enum word { READY, GO, CLOSE, WORDS };

struct job {
    const char *path;
    stead_sharing sharing;
    unsigned flags;
    volatile uint32_t *words;
};

static stead *open_as(const char *path, stead_sharing sharing, unsigned flags)
{
    stead *s;
    OK(stead_open(&s, path, &(stead_options){.sharing = sharing, .flags = flags, .timeout_ms = SOON_MS}));
    return s;
}

/* ---- modes and growth */

static void expect_mode(stead *s, stead_sharing sharing)
{
    stead_status status;
    CHILD(stead_lock(s, STEAD_SHARED, SOON_MS) == 0);
    CHILD(stead_stat(s, &status) == 0);
    CHILD(status.sharing == sharing);
    CHILD(stead_unlock(s) == 0);
}

static void follow_a_writer(void *arg)
{
    const struct job *job = arg;
    stead *s;
    CHILD(stead_open(&s, job->path, &(stead_options){.flags = STEAD_READ_ONLY, .timeout_ms = SOON_MS}) == 0);
    job->words[READY] = 1;
    CHILD(await(&job->words[GO], 1)); /* it is open, nothing was changed */
    expect_mode(s, job->sharing);
    job->words[READY] = 2;
    CHILD(await(&job->words[GO], 2)); /* it grew */
    CHILD(stead_lock(s, STEAD_SHARED, SOON_MS) == 0);
    const unsigned char *bytes = stead_root(s);
    for (size_t i = 0; i < GROWN_BYTES; i += 4000)
        CHILD(bytes[i] == 7);
    CHILD(stead_unlock(s) == 0);
    job->words[READY] = 3;
    CHILD(await(&job->words[GO], 3)); /* it is in a section, which in LIVE alone concerns a reader */
    CHILD(stead_lock(s, STEAD_SHARED, 0) == (job->sharing == STEAD_LIVE ? EBUSY : 0));
    CHILD(job->sharing == STEAD_LIVE || stead_unlock(s) == 0);
    job->words[READY] = 4;
    CHILD(await(&job->words[GO], 4)); /* it is gone */
    expect_mode(s, job->sharing);
    CHILD(stead_close(s) == 0);
}

static void grow(stead *s)
{
    OK(stead_lock(s, STEAD_EXCLUSIVE, SOON_MS));
    unsigned char *bytes = stead_malloc(s, GROWN_BYTES);
    cr_assert_not_null(bytes);
    memset(bytes, 7, GROWN_BYTES);
    OK(stead_set_root(s, bytes));
    OK(stead_commit(s, STEAD_DURABLE));
    OK(stead_unlock(s));
}

static void meet_a_writer(const char *path, stead_sharing sharing, stead_sharing before, bool slotless)
{
    struct job job = {.path = path, .sharing = sharing, .words = shared_words(WORDS)};
    pid_t reader = 0;
    OK(stead_close(open_as(job.path, before, 0)));
    if (slotless) {
        reader = spawn(follow_a_writer, &job);
        cr_assert(await(&job.words[READY], 1));
    }
    stead *s = open_as(job.path, sharing, 0);
    if (!slotless)
        reader = spawn(follow_a_writer, &job);
    job.words[GO] = 1;
    cr_assert(await(&job.words[READY], 2));
    grow(s);
    job.words[GO] = 2;
    cr_assert(await(&job.words[READY], 3));
    OK(stead_lock(s, STEAD_EXCLUSIVE, SOON_MS));
    job.words[GO] = 3;
    cr_assert(await(&job.words[READY], 4));
    OK(stead_unlock(s));
    OK(stead_close(s));
    job.words[GO] = 4;
    REAP_OK(reader);
    OK(stead_remove(job.path));
}

Test(learning, the_mode_the_length_and_whom_to_wait_for_without_a_slot)
{
    for (stead_sharing sharing = STEAD_SOLE; sharing <= STEAD_LIVE; sharing++)
        meet_a_writer(path_in("s"), sharing, (stead_sharing)((sharing + 1) % 3), true);
}

Test(learning, the_mode_the_length_and_whom_to_wait_for_with_a_slot)
{
    for (stead_sharing sharing = STEAD_SOLE; sharing <= STEAD_LIVE; sharing++)
        meet_a_writer(path_in("s"), sharing, (stead_sharing)((sharing + 1) % 3), false);
}

Test(learning, the_length_of_a_section_in_memory)
{
    char name[64];
    (void)snprintf(name, sizeof name, "shm:stead-test-learning-%ld", (long)getpid());
    meet_a_writer(name, STEAD_LIVE, STEAD_LIVE, false);
}

/* ---- a death in another one's turn */

static void die_in_its_turn(void *arg)
{
    const struct job *job = arg;
    stead *s;
    CHILD(stead_open(&s, job->path, &(stead_options){.sharing = STEAD_TURNS}) == 0);
    CHILD(stead_lock(s, STEAD_EXCLUSIVE, SOON_MS) == 0);
    raise(SIGKILL);
}

/* It left nothing half made: that is LIVE's alone. */
Test(learning, who_dies_in_its_turn_concerns_no_reader)
{
    struct job job = {.path = path_in("s")};
    OK(stead_close(open_as(job.path, STEAD_TURNS, 0)));
    struct job follower = {.path = job.path, .sharing = STEAD_TURNS, .words = shared_words(WORDS)};
    pid_t reader = spawn(follow_a_writer, &follower); /* no slot */
    cr_assert(await(&follower.words[READY], 1));
    stead *s = open_as(job.path, STEAD_TURNS, 0);
    grow(s);
    cr_assert_eq(reap(spawn(die_in_its_turn, &job)), 128 + SIGKILL);
    follower.words[GO] = 4;
    REAP_OK(reader);
    OK(stead_close(s));
}

/* ---- a LIVE writer that closes while a reader looks */

static void open_when_told(void *arg)
{
    const struct job *job = arg;
    stead *s;
    CHILD(await(&job->words[GO], 1));
    CHILD(stead_open(&s, job->path, &(stead_options){.sharing = STEAD_LIVE, .flags = job->flags}) == 0);
    job->words[READY] = 1;
    CHILD(await(&job->words[CLOSE], 1));
    CHILD(stead_close(s) == 0);
    job->words[READY] = 2;
}

static struct {
    int superblocks; /* read so far; below 0: nothing happens */
    struct job *closes, *opens;
} beside;

/* The first look at the superblocks finds a LIVE writer's, who closes right after it; before the second one another opens. */
static ssize_t pread_beside_others(int fd, void *to, size_t bytes, off_t offset)
{
    if (beside.superblocks >= 0 && offset == 0 && ++beside.superblocks == 2 && beside.opens != NULL) {
        beside.opens->words[GO] = 1;
        cr_assert(await(&beside.opens->words[READY], 1));
    }
    ssize_t n = file_calls_system.pread(fd, to, bytes, offset);
    if (beside.superblocks == 1 && offset != 0 && beside.closes->words[CLOSE] == 0) {
        beside.closes->words[CLOSE] = 1;
        cr_assert(await(&beside.closes->words[READY], 2));
    }
    return n;
}

static void look_while_a_writer_closes(bool another_opens)
{
    struct job first = {.path = path_in("s"), .words = shared_words(WORDS)};
    struct job second = {.path = first.path, .words = shared_words(WORDS)};
    OK(stead_close(open_as(first.path, STEAD_LIVE, 0)));
    pid_t closes = spawn(open_when_told, &first), opens = another_opens ? spawn(open_when_told, &second) : 0;
    stead *r = open_as(first.path, STEAD_SOLE, STEAD_READ_ONLY);
    first.words[GO] = 1;
    cr_assert(await(&first.words[READY], 1));
    OK(stead_lock(r, STEAD_SHARED, SOON_MS));
    OK(stead_unlock(r));
    beside.superblocks = 0;
    beside.closes = &first;
    beside.opens = another_opens ? &second : NULL;
    file_calls.pread = pread_beside_others;
    OK(stead_lock(r, STEAD_SHARED, SOON_MS));
    file_calls = file_calls_system;
    cr_assert_eq(beside.superblocks, 2, "%d looks at the superblocks", beside.superblocks);
    OK(stead_unlock(r));
    REAP_OK(closes);
    if (another_opens) {
        second.words[CLOSE] = 1;
        REAP_OK(opens);
    }
    OK(stead_close(r));
}

Test(learning, a_live_writer_that_closes_meanwhile_did_not_die)
{
    look_while_a_writer_closes(false);
}

Test(learning, a_live_writer_that_closes_and_another_one_that_opens_meanwhile_did_not_die)
{
    look_while_a_writer_closes(true);
}

/* ---- what was accepted */

static void die_in_live(void *arg)
{
    const struct job *job = arg;
    stead *s;
    CHILD(stead_open(&s, job->path, &(stead_options){.sharing = STEAD_LIVE, .flags = job->flags}) == 0);
    raise(SIGKILL);
}

/* STEAD_ACCEPT_UNCLEAN accepts what one death left, not what comes after it. */
Test(learning, what_was_accepted_is_that_death_and_no_later_one)
{
    struct job job = {.path = path_in("s"), .flags = STEAD_ACCEPT_UNCLEAN};
    stead_status status;
    OK(stead_close(open_as(job.path, STEAD_LIVE, 0)));
    cr_assert_eq(reap(spawn(die_in_live, &job)), 128 + SIGKILL);
    stead *r = open_as(job.path, STEAD_LIVE, STEAD_READ_ONLY | STEAD_ACCEPT_UNCLEAN);
    for (unsigned i = 0; i < 2; i++) {
        OK(stead_lock(r, STEAD_SHARED, SOON_MS));
        OK(stead_stat(r, &status));
        cr_assert(status.accepted_unclean);
        OK(stead_unlock(r));
    }
    cr_assert_eq(reap(spawn(die_in_live, &job)), 128 + SIGKILL);
    FAILS(stead_lock(r, STEAD_SHARED, SOON_MS), STEAD_UNCLEAN);
    OK(stead_close(r));
}

/* ---- what a close does beside a reader */

static void keep_what_it_has(void *arg)
{
    const struct job *job = arg;
    stead *s;
    CHILD(stead_open(&s, job->path, &(stead_options){.flags = STEAD_READ_ONLY, .timeout_ms = SOON_MS}) == 0);
    CHILD(stead_lock(s, STEAD_SHARED, SOON_MS) == 0);
    const volatile unsigned char *bytes = stead_root(s);
    CHILD(stead_unlock(s) == 0);
    job->words[READY] = 1;
    CHILD(await(&job->words[GO], 1));
    unsigned sum = 0;
    for (size_t i = 0; i < GROWN_BYTES; i += 4096) /* whatever it is by now: there is something to be read */
        sum += bytes[i];
    (void)sum;
    CHILD(stead_close(s) == 0);
}

/* The writer frees nearly all and closes: the file keeps its length, or a look at what was there would kill the reader. */
Test(learning, a_close_takes_nothing_away_under_a_reader)
{
    for (stead_sharing sharing = STEAD_SOLE; sharing <= STEAD_LIVE; sharing++) {
        struct job job = {.path = path_in("s"), .words = shared_words(WORDS)};
        stead *s = open_as(job.path, sharing, 0);
        grow(s);
        pid_t reader = spawn(keep_what_it_has, &job);
        cr_assert(await(&job.words[READY], 1));
        OK(stead_lock(s, STEAD_EXCLUSIVE, SOON_MS));
        stead_free(stead_root(s));
        OK(stead_set_root(s, NULL));
        OK(stead_commit(s, STEAD_DURABLE));
        OK(stead_unlock(s));
        OK(stead_close(s));
        cr_assert_gt(file_bytes_of(job.path), GROWN_BYTES, "sharing %d", (int)sharing);
        job.words[GO] = 1;
        REAP_OK(reader);
        OK(stead_close(open_as(job.path, sharing, 0)));
        OK(stead_remove(job.path));
    }
}

/* ---- the file that carries the locks */

static struct {
    char path[600], other[600], aside[600];
    unsigned times;
} swapped;

/* Another store has the name for just as long as the reader's second open takes. */
static int open_beside_a_swap(const char *path, int flags, mode_t mode)
{
    bool swaps = (flags & O_ACCMODE) == O_RDWR && strcmp(path, swapped.path) == 0;
    if (swaps) {
        swapped.times++;
        cr_assert_eq(rename(path, swapped.aside), 0);
        cr_assert_eq(rename(swapped.other, path), 0);
    }
    int fd = file_calls_system.open(path, flags, mode);
    if (swaps) {
        cr_assert_eq(rename(path, swapped.other), 0);
        cr_assert_eq(rename(swapped.aside, path), 0);
    }
    return fd;
}

static void stay_in_live(void *arg)
{
    const struct job *job = arg;
    stead *s;
    CHILD(stead_open(&s, swapped.path, &(stead_options){.sharing = STEAD_LIVE, .timeout_ms = SOON_MS}) == 0);
    job->words[READY] = 1;
    CHILD(await(&job->words[CLOSE], 1));
    CHILD(stead_close(s) == 0);
}

/* A reader that may write opens the file a second time, for its locks: those of another file would tell it that nobody is
 * there. */
Test(learning, locks_are_those_of_the_very_file_that_is_read)
{
    stead *s;
    stead_status status;
    struct job job = {.words = shared_words(WORDS)};
    snprintf(swapped.path, sizeof swapped.path, "%s", path_in("s"));
    snprintf(swapped.other, sizeof swapped.other, "%s", path_in("t"));
    snprintf(swapped.aside, sizeof swapped.aside, "%s", path_in("u"));
    OK(stead_close(open_as(swapped.other, STEAD_LIVE, 0)));
    pid_t pid = spawn(stay_in_live, &job);
    cr_assert(await(&job.words[READY], 1));
    file_calls.open = open_beside_a_swap;
    OK(stead_open(&s, swapped.path, &(stead_options){.flags = STEAD_READ_ONLY, .timeout_ms = SOON_MS}));
    file_calls = file_calls_system;
    cr_assert_gt(swapped.times, 0, "the file was opened once: this proves nothing");
    OK(stead_stat(s, &status));
    cr_assert_eq(status.sharing, STEAD_LIVE);
    OK(stead_close(s));
    job.words[CLOSE] = 1;
    REAP_OK(pid);
}
