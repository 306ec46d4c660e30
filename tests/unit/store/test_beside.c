/*
 * What lies beside a store under its log's names, and what happens to it; and stead_remove() against an open.
 *
 * Method: whatever a user may have put there is put there, in front of an open, a recovery, a close, a removal; its bytes
 * and its inode are compared afterwards.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "support/support.h"

TestSuite(beside, .init = support_setup, .fini = support_teardown, .timeout = 300);

static const char text[] = "precious, and no log\n";

static void put_text(const char *name)
{
    write_file(path_in(name), text, sizeof text);
}

static bool is_text(const char *name)
{
    char found[sizeof text + 1];
    int fd = open(path_in(name), O_RDONLY | O_NOFOLLOW);
    ssize_t n = fd >= 0 ? read(fd, found, sizeof found) : -1;
    if (fd >= 0)
        close(fd);
    return n == (ssize_t)sizeof text && memcmp(found, text, sizeof text) == 0;
}

static void make_store(const char *name, uint64_t value)
{
    stead *s;
    void *root;
    OK(stead_open(&s, path_in(name), NULL));
    OK(stead_root_once(s, sizeof value, NULL, NULL, &root));
    *(uint64_t *)root = value;
    OK(stead_close(s));
}

static void expect_store(const char *name, uint64_t value)
{
    stead *s;
    OK(stead_open(&s, path_in(name), &(stead_options){.flags = STEAD_EXISTING}));
    cr_assert_eq(*(uint64_t *)stead_root(s), value);
    OK(stead_check(s, NULL));
    OK(stead_close(s));
}

/* Killed after a commit: superblocks and log say "open". */
static void crash_child(void *arg)
{
    stead *s;
    void *root;
    stead_options o = {.sharing = STEAD_TURNS};
    CHILD(stead_open(&s, arg, &o) == 0);
    CHILD(stead_root_once(s, sizeof(uint64_t), NULL, NULL, &root) == 0);
    CHILD(stead_lock(s, STEAD_EXCLUSIVE, -1) == 0);
    *(uint64_t *)root = 7;
    CHILD(stead_unlock(s) == 0);
    kill(getpid(), SIGKILL);
}

static void make_crashed(const char *name)
{
    char path[400];
    (void)snprintf(path, sizeof path, "%s", path_in(name));
    cr_assert_eq(reap(spawn(crash_child, path)), 128 + SIGKILL);
    cr_assert_neq(file_bytes_of(path_in("s-wal")), UINT64_MAX);
}

Test(beside, a_users_file_under_the_logs_name_is_left_as_it_is)
{
    stead *s;
    put_text("s-wal");
    FAILS(stead_open(&s, path_in("s"), NULL), EEXIST);
    cr_assert(is_text("s-wal"));
    cr_assert_neq(strstr(stead_last_error_text(), "s-wal"), NULL, "%s", stead_last_error_text());
    cr_assert_eq(access(path_in("s"), F_OK), -1, "the open failed: its new store is gone");
    cr_assert_eq(unlink(path_in("s-wal")), 0);
    make_store("s", 3);
    put_text("s-wal");
    FAILS(stead_open(&s, path_in("s"), NULL), EEXIST);
    OK(stead_open(&s, path_in("s"), &(stead_options){.flags = STEAD_READ_ONLY}));
    cr_assert_eq(*(uint64_t *)stead_root(s), 3);
    OK(stead_close(s));
    OK(stead_open(&s, path_in("s"), &(stead_options){.sharing = STEAD_LIVE})); /* which needs no log */
    OK(stead_close(s));
    cr_assert(is_text("s-wal"));
    OK(stead_remove(path_in("s")));
    cr_assert(is_text("s-wal"), "the removal took a file that is not the store's");
}

static void open_is_refused(void *arg)
{
    stead *t;
    (void)arg;
    CHILD(stead_open(&t, path_in("s"), NULL) == EEXIST);
}

Test(beside, a_store_under_the_logs_name_is_left_as_it_is_closed_or_open)
{
    stead *s, *t;
    make_store("s", 1);
    make_store("s-wal", 2);
    FAILS(stead_open(&t, path_in("s"), NULL), EEXIST);
    expect_store("s-wal", 2);
    OK(stead_open(&s, path_in("s-wal"), NULL));
    REAP_OK(spawn(open_is_refused, NULL)); /* another process: here the two might want the same addresses */
    *(uint64_t *)stead_root(s) = 4;
    OK(stead_close(s));
    expect_store("s-wal", 4);
    OK(stead_remove(path_in("s")));
    expect_store("s-wal", 4);
}

Test(beside, links_and_folders_under_the_logs_name_are_left_as_they_are)
{
    stead *s;
    struct stat facts;
    put_text("target");
    cr_assert_eq(symlink(path_in("target"), path_in("s-wal")), 0);
    FAILS(stead_open(&s, path_in("s"), NULL), EEXIST);
    cr_assert_eq(lstat(path_in("s-wal"), &facts), 0);
    cr_assert(S_ISLNK(facts.st_mode));
    cr_assert(is_text("target"));
    cr_assert_eq(unlink(path_in("s-wal")), 0);
    cr_assert_eq(mkdir(path_in("s-wal"), 0700), 0);
    FAILS(stead_open(&s, path_in("s"), NULL), EEXIST);
    cr_assert_eq(rmdir(path_in("s-wal")), 0);
    cr_assert_eq(mkfifo(path_in("s-wal"), 0600), 0);
    FAILS(stead_open(&s, path_in("s"), NULL), EEXIST);
    cr_assert_eq(unlink(path_in("s-wal")), 0);
    make_store("s", 5);
}

/* Recovery copies the log to FILE-wal.new, and a checkpoint makes the next one there. */
Test(beside, a_users_file_under_the_next_logs_name_stops_recovery_and_is_left_as_it_is)
{
    stead *s;
    make_crashed("s");
    put_text("s-wal.new");
    FAILS(stead_open(&s, path_in("s"), NULL), EEXIST);
    cr_assert(is_text("s-wal.new"));
    cr_assert_eq(unlink(path_in("s-wal.new")), 0);
    expect_store("s", 7);
}

/* A crash in a checkpoint left the log that counts under its second name. */
Test(beside, a_log_does_not_take_its_name_from_a_users_file)
{
    stead *s;
    char from[400];
    make_crashed("s");
    (void)snprintf(from, sizeof from, "%s", path_in("s-wal"));
    cr_assert_eq(rename(from, path_in("s-wal.new")), 0);
    put_text("s-wal");
    FAILS(stead_open(&s, path_in("s"), NULL), EEXIST);
    cr_assert(is_text("s-wal"));
    cr_assert_eq(unlink(path_in("s-wal")), 0);
    expect_store("s", 7);
}

/* What a crash leaves of a log that was being made: nothing, or zeros.  And the log of a store that is no more. */
Test(beside, what_a_crash_left_of_a_log_is_replaced)
{
    static const uint8_t zeros[262144 + 1];
    static const size_t lengths[] = {0, 1, 512, 4096, 262144};
    stead *s;
    for (unsigned i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        write_file(path_in("s-wal"), zeros, lengths[i]);
        write_file(path_in("s-wal.new"), zeros, lengths[i]);
        make_store("s", i);
        cr_assert_eq(access(path_in("s-wal"), F_OK), -1);
        OK(stead_remove(path_in("s")));
        cr_assert_eq(access(path_in("s-wal.new"), F_OK), -1);
    }
    write_file(path_in("s-wal"), zeros, sizeof zeros);
    FAILS(stead_open(&s, path_in("s"), NULL), EEXIST); /* longer than any log of ours without a header */
    cr_assert_eq(unlink(path_in("s-wal")), 0);
    make_crashed("s");
    cr_assert_eq(unlink(path_in("s")), 0);
    make_store("s", 9);
    expect_store("s", 9);
}

/* ---- stead_remove: of what is no store; against an open ---- */

Test(beside, what_is_no_store_is_not_removed)
{
    const char *const names[] = {"fifo", "folder", "text"};
    const int errors[] = {EINVAL, EISDIR, STEAD_NOT_A_STORE};
    cr_assert_eq(mkfifo(path_in("fifo"), 0600), 0);
    cr_assert_eq(mkdir(path_in("folder"), 0700), 0);
    put_text("text");
    for (unsigned i = 0; i < 3; i++) {
        FAILS(stead_remove(path_in(names[i])), errors[i]);
        cr_assert_eq(access(path_in(names[i]), F_OK), 0, "%s was removed", names[i]);
    }
    cr_assert(is_text("text"));
}

/* Without a descriptor it cannot be told whether it is a store, nor which logs are its own. */
Test(beside, a_removal_that_could_not_look_removes_nothing)
{
    struct rlimit before, none;
    make_crashed("s");
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = before;
    none.rlim_cur = 0;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    FAILS(stead_remove(path_in("s")), EMFILE);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
    cr_assert_eq(access(path_in("s"), F_OK), 0);
    OK(stead_remove(path_in("s")));
    cr_assert_neq(access(path_in("s-wal"), F_OK), 0, "the log was left behind");
}

struct race {
    char path[400];
    volatile uint32_t *go;
    long delay_ns;
};

static void remove_child(void *arg)
{
    struct race *race = arg;
    (void)await(race->go, 1);
    nanosleep(&(struct timespec){.tv_nsec = race->delay_ns}, NULL);
    int rc = stead_remove(race->path);
    CHILD(rc == 0 || rc == ENOENT);
}

static void open_child(void *arg)
{
    struct race *race = arg;
    stead *s;
    void *root;
    stead_options o = {.sharing = STEAD_TURNS, .timeout_ms = SOON_MS};
    *race->go = 1;
    CHILD(stead_open(&s, race->path, &o) == 0);
    CHILD(stead_root_once(s, sizeof(uint64_t), NULL, NULL, &root) == 0);
    CHILD(stead_close(s) == 0);
}

/* The store that crashed is there or it is not, and then the open makes a new one: no time in between. */
Test(beside, an_open_that_may_create_succeeds_whenever_the_crashed_store_is_removed)
{
    static const long delays_ns[] = {0, 100000, 300000, 600000, 1000000, 2000000, 4000000, 8000000};
    struct race race = {.go = shared_words(1)};
    unsigned rounds = test_long() ? 200 : 16;
    (void)snprintf(race.path, sizeof race.path, "%s", path_in("s"));
    for (unsigned i = 0; i < rounds; i++) {
        make_crashed("s");
        *race.go = 0;
        race.delay_ns = delays_ns[i % (sizeof delays_ns / sizeof delays_ns[0])];
        pid_t remover = spawn(remove_child, &race);
        pid_t opener = spawn(open_child, &race);
        REAP_OK(opener);
        REAP_OK(remover);
        int rc = stead_remove(race.path);
        cr_assert(rc == 0 || rc == ENOENT, "round %u: %s", i, stead_last_error_text());
        cr_assert_eq(access(path_in("s"), F_OK), -1);
        cr_assert_eq(access(path_in("s-wal"), F_OK), -1, "round %u: a log was left", i);
    }
}

/* ---- a store that is removed while it is open ---- */

static void join_child(void *arg)
{
    volatile uint32_t *word = arg;
    stead *s;
    CHILD(stead_open(&s, path_in("s"), &(stead_options){.sharing = STEAD_TURNS, .timeout_ms = SOON_MS}) == 0);
    word[0] = 1;
    CHILD(await(&word[1], 1));
    CHILD(stead_lock(s, STEAD_EXCLUSIVE, SOON_MS) ==
          0); /* its first section: it looks into the log for the first time */
    CHILD(stead_root(s) != NULL && *(uint64_t *)stead_root(s) == 5);
    *(uint64_t *)stead_root(s) = 6;
    CHILD(stead_unlock(s) == 0);
    CHILD(stead_close(s) == 0);
}

Test(beside, processes_that_take_turns_go_on_after_their_store_was_removed)
{
    stead *s;
    void *root;
    volatile uint32_t *word = shared_words(2);
    OK(stead_open(&s, path_in("s"), &(stead_options){.sharing = STEAD_TURNS}));
    OK(stead_root_once(s, sizeof(uint64_t), NULL, NULL, &root));
    pid_t pid = spawn(join_child, (void *)(uintptr_t)word);
    cr_assert(await(&word[0], 1));
    OK(stead_remove(path_in("s")));
    OK(stead_lock(s, STEAD_EXCLUSIVE, SOON_MS));
    *(uint64_t *)root = 5;
    OK(stead_unlock(s));
    make_store("s", 1); /* another one has the names */
    word[1] = 1;
    REAP_OK(pid);
    OK(stead_lock(s, STEAD_SHARED, SOON_MS));
    cr_assert_eq(*(uint64_t *)root, 6);
    OK(stead_unlock(s));
    OK(stead_close(s));
    expect_store("s", 1);
}

/* ---- names taken away while the store is open: only its log is found by name, and only at open and checkpoint */

static void change(stead *s, int value)
{
    int *root;
    OK(stead_lock(s, STEAD_EXCLUSIVE, -1));
    OK(stead_root_once(s, 10000 * sizeof *root, NULL, NULL, (void **)&root));
    root[0] = root[9999] = value;
    OK(stead_unlock(s));
}

static void expect_value(const char *path, int value)
{
    stead *s;
    stead_options options = {.flags = STEAD_EXISTING};
    OK(stead_open(&s, path, &options));
    const int *root = stead_root(s);
    cr_assert(root != NULL && root[0] == value && root[9999] == value, "%s: %d", path, root == NULL ? -1 : root[0]);
    OK(stead_check(s, NULL));
    OK(stead_close(s));
}

Test(beside, a_store_renamed_while_open_is_one_file_after_its_close)
{
    for (int sharing = STEAD_SOLE; sharing <= STEAD_LIVE; sharing++) {
        stead *s;
        stead_options options = {.sharing = (stead_sharing)sharing};
        OK(stead_open(&s, path_in("old"), &options));
        change(s, 1);
        OK(stead_commit(s, STEAD_DURABLE));
        cr_assert_eq(rename(path_in("old"), path_in("new")), 0);
        change(s, 2); /* SOLE: pending */
        OK(stead_close(s));
        cr_assert_neq(access(path_in("old-wal"), F_OK), 0, "%d: the log was left", sharing);
        expect_value(path_in("new"), 2);
        OK(stead_remove(path_in("new")));
    }
}

Test(beside, a_store_renamed_while_open_and_the_one_made_in_its_place_do_not_meet)
{
    stead *first, *second;
    OK(stead_open(&first, path_in("old"), NULL));
    change(first, 1);
    OK(stead_commit(first, STEAD_DURABLE));
    cr_assert_eq(rename(path_in("old"), path_in("new")), 0);
    cr_assert_eq(rename(path_in("old-wal"), path_in("new-wal")), 0);
    OK(stead_open(&second, path_in("old"), NULL));
    change(second, 10);
    OK(stead_commit(second, STEAD_DURABLE));
    change(first, 2);
    OK(stead_close(first)); /* its log went with it, so it is found at the next open */
    cr_assert_eq(access(path_in("old-wal"), F_OK), 0, "the other store's log is gone");
    change(second, 11);
    OK(stead_close(second));
    expect_value(path_in("new"), 2);
    expect_value(path_in("old"), 11);
}

Test(beside, a_folder_renamed_around_an_open_store_takes_its_log_along)
{
    for (int sharing = STEAD_SOLE; sharing <= STEAD_LIVE; sharing++) {
        stead *s;
        stead_options options = {.sharing = (stead_sharing)sharing};
        cr_assert_eq(mkdir(path_in("folder"), 0700), 0);
        OK(stead_open(&s, path_in("folder/s"), &options));
        change(s, 1);
        OK(stead_commit(s, STEAD_DURABLE));
        cr_assert_eq(rename(path_in("folder"), path_in("moved")), 0);
        change(s, 2);
        OK(stead_close(s));
        expect_value(path_in("moved/s"), 2);
        OK(stead_remove(path_in("moved/s")));
        cr_assert_eq(rmdir(path_in("moved")), 0, "something was left");
    }
}

Test(beside, the_log_of_an_unlinked_store_goes_with_it)
{
    for (int sharing = STEAD_SOLE; sharing <= STEAD_TURNS; sharing++) {
        stead *s;
        stead_options options = {.sharing = (stead_sharing)sharing};
        OK(stead_open(&s, path_in("s"), &options));
        change(s, 1);
        cr_assert_eq(unlink(path_in("s")), 0);
        change(s, 2);
        OK(stead_commit(s, STEAD_DURABLE));
        OK(stead_close(s));
        cr_assert_neq(access(path_in("s-wal"), F_OK), 0, "%d", sharing);
        cr_assert_neq(access(path_in("s"), F_OK), 0);
    }
}
