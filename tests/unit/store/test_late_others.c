/*
 * test_late_others.c -- SOLE: who looks at a store, or opens it, around a first commit that makes the log (persist/txn_log.c, W32
 * and W33).
 *
 * Method: an opener is held between its reading the superblocks and its claiming the store, while the writer makes its first
 * commit and dies; readers stay while names and writers change.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "persist/file.h"
#include "persist/format.h"
#include "support/support.h"
#include "number_store.h"

static void teardown(void)
{
    file_calls = file_calls_system;
    support_teardown();
}

TestSuite(late_others, .init = support_setup, .fini = teardown, .timeout = 300);

/* ---- an opener that read the superblocks before the first commit */

static volatile uint32_t *words; /* 0: has read, 1: go on, 2: the writer has it open */
static stead_options how;
static bool held;

static ssize_t hold_after_superblocks(int fd, void *bytes, size_t count, off_t offset)
{
    ssize_t n = file_calls_system.pread(fd, bytes, count, offset);
    int saved = errno;
    if (offset == SUPERBLOCK_B_OFFSET && !held) {
        held = true;
        words[0] = 1;
        CHILD(await(&words[1], 1));
    }
    errno = saved;
    return n;
}

static void open_held(void *arg)
{
    stead *s;
    stead_status status;
    (void)arg;
    CHILD(await(&words[2], 1));
    file_calls.pread = hold_after_superblocks;
    CHILD(stead_open(&s, path_in("s"), &how) == 0);
    CHILD(held);
    CHILD(stead_lock(s, STEAD_SHARED, SOON_MS) == 0 && *(int *)stead_root(s) == 6 && stead_unlock(s) == 0);
    CHILD(stead_stat(s, &status) == 0 && status.recovered);
    CHILD(stead_check(s, NULL) == 0);
    CHILD(stead_close(s) == 0);
}

Test(late_others, W33_an_opener_between_superblock_and_claim_sees_the_first_commit_of_a_writer_that_died)
{
    static const stead_options ways[] = {{.sharing = STEAD_SOLE, .timeout_ms = SOON_MS},
                                         {.sharing = STEAD_TURNS, .timeout_ms = SOON_MS},
                                         {.sharing = STEAD_LIVE, .timeout_ms = SOON_MS},
                                         {.flags = STEAD_READ_ONLY, .timeout_ms = SOON_MS}};
    for (unsigned i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        make("s", 5);
        words = shared_words(3);
        how = ways[i];
        pid_t opener = spawn(open_held, NULL);
        stead *s = open_it("s");
        words[2] = 1;
        cr_assert(await(&words[0], 1));
        *number_of(s) = 6;
        OK(stead_commit(s, STEAD_DURABLE));
        stead_abandon(s); /* as if killed, with a commit that was told to be durable */
        words[1] = 1;
        REAP_OK(opener);
        expect("s", 6);
        OK(stead_remove(path_in("s")));
    }
}

/* ---- names */

Test(late_others, W32_a_symbolic_link_in_the_place_of_a_moved_store_is_not_its_name)
{
    make("s", 5);
    stead *s = open_it("s");
    cr_assert_eq(mkdir(path_in("folder"), 0700), 0);
    cr_assert_eq(rename(path_in("s"), path_in("folder/moved")), 0);
    cr_assert_eq(symlink("folder/moved", path_in("s")), 0);
    *number_of(s) = 6;
    OK(stead_commit(s, STEAD_DURABLE));
    cr_assert(access(path_in("s-wal"), F_OK) != 0, "beside the link");
    OK(access(path_in("folder/moved-wal"), F_OK));
    stead_abandon(s);
    expect("s", 6);
}

static void read_after_rename(void *arg)
{
    stead *s;
    (void)arg;
    CHILD(await(&words[2], how.flags != 0));
    CHILD(stead_open(&s, path_in("s"), &(stead_options){.flags = STEAD_READ_ONLY, .timeout_ms = SOON_MS}) == 0);
    CHILD(stead_lock(s, STEAD_SHARED, SOON_MS) == 0 && *(int *)stead_root(s) == 5 && stead_unlock(s) == 0);
    words[0] = 1;
    CHILD(await(&words[1], 1));
    CHILD(stead_lock(s, STEAD_SHARED, SOON_MS) == 0 && *(int *)stead_root(s) == 6 && stead_unlock(s) == 0);
    words[0] = 2;
    CHILD(await(&words[1], 2)); /* the writer died */
    CHILD(stead_lock(s, STEAD_SHARED, SOON_MS) == 0 && *(int *)stead_root(s) == 7 && stead_unlock(s) == 0);
    CHILD(stead_check(s, NULL) == 0);
    CHILD(stead_close(s) == 0);
}

Test(late_others, readers_of_a_store_renamed_before_its_first_commit_find_its_log)
{
    for (unsigned attached = 0; attached < 2; attached++) { /* the reader was there first, or the writer */
        make("s", 5);
        words = shared_words(3);
        how = (stead_options){.flags = attached};
        pid_t reader = spawn(read_after_rename, NULL);
        if (attached == 0)
            cr_assert(await(&words[0], 1));
        stead *s = open_it("s");
        words[2] = 1;
        cr_assert(await(&words[0], 1));
        cr_assert_eq(rename(path_in("s"), path_in("new")), 0);
        make("s", 10); /* another one, and its log */
        stead *other = open_it("s");
        *number_of(other) = 11;
        OK(stead_commit(other, STEAD_DURABLE));
        *number_of(s) = 6;
        OK(stead_commit(s, STEAD_DURABLE));
        words[1] = 1;
        cr_assert(await(&words[0], 2));
        *number_of(s) = 7;
        OK(stead_commit(s, STEAD_DURABLE));
        stead_abandon(s);
        words[1] = 2;
        REAP_OK(reader);
        OK(stead_close(other));
        expect("new", 7);
        OK(stead_remove(path_in("new")));
        OK(stead_remove(path_in("s")));
    }
}

/* ---- times */

static void stay(void *arg)
{
    stead *s;
    (void)arg;
    CHILD(await(&words[2], 1));
    CHILD(stead_open(&s, path_in("s"), &(stead_options){.flags = STEAD_READ_ONLY, .timeout_ms = SOON_MS}) == 0);
    words[0] = 1;
    CHILD(await(&words[1], 1));
    CHILD(stead_close(s) == 0);
}

Test(late_others, the_times_of_a_session_without_a_commit_are_told_beside_a_reader_that_stays)
{
    stead_status first, then;
    make("s", 5);
    words = shared_words(3);
    pid_t reader = spawn(stay, NULL);
    pause_ms(1100);
    stead *s = open_it("s");
    OK(stead_stat(s, &first));
    words[2] = 1;
    cr_assert(await(&words[0], 1));
    OK(stead_close(s)); /* without a commit */
    s = open_it("s");
    OK(stead_stat(s, &then));
    cr_assert_geq(then.last_detach, first.last_attach, "%ld is older than %ld", (long)then.last_detach,
                  (long)first.last_attach);
    stead_abandon(s); /* nor does one that dies take it away */
    words[1] = 1;
    REAP_OK(reader);
    s = open_it("s");
    OK(stead_stat(s, &then));
    cr_assert_geq(then.last_detach, first.last_attach);
    OK(stead_close(s));
}
