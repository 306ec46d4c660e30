/*
 * test_late_log.c -- SOLE: the log of a store that was opened sealed is made by the first commit that has anything to say
 * (persist/txn_log.c, W31 and W32).
 *
 * Method: the table of system calls counts what an open and a close ask of the disk, and fails, one after the other, the
 * calls that make the log; names are taken away in front of the first commit, and between its steps.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
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

TestSuite(late_log, .init = support_setup, .fini = teardown, .timeout = 300);

static unsigned files_left(const char *name)
{
    unsigned files = 0;
    DIR *folder = opendir(name == NULL ? support_folder() : path_in(name));
    cr_assert_not_null(folder);
    for (const struct dirent *entry; (entry = readdir(folder)) != NULL;)
        files += entry->d_name[0] != '.';
    closedir(folder);
    return files;
}

static bool exists(const char *name)
{
    return access(path_in(name), F_OK) == 0;
}

static void read_superblocks(uint8_t to[2 * PAGE_BYTES])
{
    int fd = open(path_in("s"), O_RDONLY);
    cr_assert_eq(pread(fd, to, PAGE_BYTES, SUPERBLOCK_A_OFFSET), (ssize_t)PAGE_BYTES);
    cr_assert_eq(pread(fd, to + PAGE_BYTES, PAGE_BYTES, SUPERBLOCK_B_OFFSET), (ssize_t)PAGE_BYTES);
    close(fd);
}

/* ---- what is asked of the disk */

static unsigned asked;

static int count_open(const char *path, int flags, mode_t mode)
{
    asked += (flags & O_CREAT) != 0;
    return file_calls_system.open(path, flags, mode);
}

static ssize_t count_pwrite(int fd, const void *bytes, size_t count, off_t offset)
{
    asked++;
    return file_calls_system.pwrite(fd, bytes, count, offset);
}

static ssize_t count_pwrite_durable(int fd, const void *bytes, size_t count, off_t offset)
{
    asked++;
    return file_calls_system.pwrite_durable(fd, bytes, count, offset);
}

static int count_fdatasync(int fd)
{
    asked++;
    return file_calls_system.fdatasync(fd);
}

static int count_fsync(int fd)
{
    asked++;
    return file_calls_system.fsync(fd);
}

static int count_sync_range(int fd, off_t offset, off_t bytes)
{
    asked++;
    return file_calls_system.sync_range(fd, offset, bytes);
}

static int count_fallocate(int fd, int mode, off_t offset, off_t bytes)
{
    asked++;
    return file_calls_system.fallocate(fd, mode, offset, bytes);
}

static int count_ftruncate(int fd, off_t bytes)
{
    asked++;
    return file_calls_system.ftruncate(fd, bytes);
}

static int count_unlink(const char *path)
{
    asked++;
    return file_calls_system.unlink(path);
}

static void count_calls(void)
{
    asked = 0;
    file_calls.open = count_open;
    file_calls.pwrite = count_pwrite;
    file_calls.pwrite_durable = count_pwrite_durable;
    file_calls.fdatasync = count_fdatasync;
    file_calls.fsync = count_fsync;
    file_calls.sync_range = count_sync_range;
    file_calls.fallocate = count_fallocate;
    file_calls.ftruncate = count_ftruncate;
    file_calls.unlink = count_unlink;
}

Test(late_log, W31_a_session_that_commits_nothing_asks_nothing_of_the_disk)
{
    uint8_t before[2 * PAGE_BYTES], after[2 * PAGE_BYTES];
    make("s", 5);
    read_superblocks(before);
    uint64_t bytes = file_bytes_of(path_in("s"));
    count_calls();
    stead *s = open_it("s");
    cr_assert_eq(files_left(NULL), 1, "a log");
    *number_of(s) = 6;
    *number_of(s) = 5; /* a private page that differs in nothing */
    OK(stead_commit(s, STEAD_DURABLE));
    *number_of(s) = 7;
    OK(stead_rollback(s));
    OK(stead_commit(s, STEAD_BUFFERED));
    stead_status status;
    OK(stead_stat(s, &status));
    cr_assert_eq(status.log_bytes, 0);
    OK(stead_check(s, NULL));
    OK(stead_close(s));
    cr_assert_eq(asked, 0, "%u calls that write, sync, make or remove", asked);
    s = open_it("s");
    *number_of(s) = 8;
    OK(stead_commit(s, STEAD_BUFFERED));
    cr_assert_gt(asked, 6, "the counting counts nothing");
    cr_assert(exists("s-wal"));
    cr_assert_eq(*number_of(s), 8);
    stead_abandon(s);
    file_calls = file_calls_system;
    expect("s", 8); /* recovered: from here on everything is as before */
    OK(stead_remove(path_in("s")));
    make("s", 5);
    s = open_it("s");
    *number_of(s) = 9; /* lost with the process */
    read_superblocks(before);
    stead_abandon(s);
    read_superblocks(after);
    cr_assert_arr_eq(before, after, sizeof before);
    cr_assert_eq(file_bytes_of(path_in("s")), bytes);
    s = open_it("s");
    OK(stead_stat(s, &status));
    cr_assert(!status.recovered, "there was nothing to recover");
    OK(stead_close(s));
    expect("s", 5);
}

Test(late_log, growth_that_came_to_nothing_is_cut_off)
{
    uint8_t before[2 * PAGE_BYTES], after[2 * PAGE_BYTES];
    make("s", 5);
    uint64_t bytes = file_bytes_of(path_in("s"));
    for (unsigned killed = 0; killed < 2; killed++) {
        read_superblocks(before);
        stead *s = open_it("s");
        for (unsigned i = 0; i < 3; i++) {
            char *large = stead_malloc(s, 8 << 20);
            cr_assert_not_null(large);
            memset(large, 1, 8 << 20);
        }
        cr_assert_gt(file_bytes_of(path_in("s")), bytes + (24 << 20));
        OK(stead_rollback(s));
        cr_assert(!exists("s-wal"));
        if (killed != 0) {
            stead_abandon(s);
            cr_assert_gt(file_bytes_of(path_in("s")), bytes);
        } else {
            OK(stead_close(s));
            cr_assert_eq(file_bytes_of(path_in("s")), bytes);
        }
        read_superblocks(after);
        cr_assert_arr_eq(before, after, sizeof before);
        expect("s", 5);
        cr_assert_eq(file_bytes_of(path_in("s")), bytes);
    }
}

static void open_refused(void *arg)
{
    stead *s;
    CHILD(setgid(65534) == 0 && setuid(65534) == 0);
    CHILD(stead_open(&s, arg, NULL) == EACCES);
    CHILD(stead_open(&s, arg, &(stead_options){.flags = STEAD_READ_ONLY}) == 0);
    CHILD(stead_close(s) == 0);
}

Test(late_log, a_folder_in_which_no_log_can_be_made_is_told_of_at_open)
{
    if (geteuid() != 0)
        cr_skip_test("needs to become another user");
    make("s", 5);
    cr_assert_eq(chmod(path_in("s"), 0666), 0);
    cr_assert_eq(chmod(support_folder(), 0755), 0);
    REAP_OK(spawn(open_refused, (void *)(uintptr_t)path_in("s")));
    expect("s", 5);
}

Test(late_log, a_raised_capacity_is_recorded_by_a_session_without_a_commit)
{
    stead *s;
    stead_status status;
    OK(stead_open(&s, path_in("s"), &(stead_options){.capacity_bytes = 16 << 20}));
    OK(stead_close(s));
    OK(stead_open(&s, path_in("s"), &(stead_options){.capacity_bytes = 64 << 20}));
    OK(stead_close(s));
    s = open_it("s");
    OK(stead_stat(s, &status));
    cr_assert_eq(status.capacity_bytes, 64 << 20);
    OK(stead_close(s));
}

Test(late_log, the_times_of_a_session_without_a_commit_are_told)
{
    stead_status first, then;
    stead *s;
    make("s", 5);
    s = open_it("s");
    OK(stead_stat(s, &first));
    pause_ms(1100);
    OK(stead_close(s));
    OK(stead_open(&s, path_in("s"), &(stead_options){.flags = STEAD_READ_ONLY}));
    OK(stead_stat(s, &then));
    cr_assert_eq(then.last_attach, first.last_attach);
    cr_assert_gt(then.last_detach, first.last_attach);
    OK(stead_close(s));
    s = open_it("s");
    OK(stead_stat(s, &first));
    cr_assert_eq(first.last_detach, then.last_detach);
    OK(stead_close(s));
    int fd = open(path_in("s"), O_RDWR);
    uint8_t noise[4096];
    memset(noise, 0xa5, sizeof noise);
    cr_assert_eq(pwrite(fd, noise, sizeof noise, LOCK_UNIT_OFFSET), (ssize_t)sizeof noise);
    close(fd);
    s = open_it("s");
    OK(stead_stat(s, &first));
    cr_assert_leq(first.last_detach, then.last_detach, "noise was believed");
    OK(stead_close(s));
}

/* ---- names */

static void commit_and_die(stead *s, int value)
{
    *number_of(s) = value;
    OK(stead_commit(s, STEAD_DURABLE));
    stead_abandon(s); /* as if killed: the log is what there is */
}

Test(late_log, W32_a_store_renamed_before_its_first_commit_has_its_log_beside_it)
{
    make("old", 5);
    stead *s = open_it("old");
    cr_assert_eq(rename(path_in("old"), path_in("new")), 0);
    make("old", 10);
    commit_and_die(s, 6);
    cr_assert(exists("new-wal") && !exists("old-wal"));
    expect("new", 6);
    expect("old", 10);
    cr_assert_eq(files_left(NULL), 2);

    s = open_it("new");
    cr_assert_eq(mkdir(path_in("folder"), 0700), 0);
    cr_assert_eq(rename(path_in("new"), path_in("folder/s")), 0);
    *number_of(s) = 7;
    OK(stead_commit(s, STEAD_DURABLE));
    cr_assert(exists("folder/s-wal"));
    OK(stead_close(s));
    cr_assert_eq(files_left("folder"), 1, "the log was left");
    expect("folder/s", 7);

    s = open_it("folder/s");
    cr_assert_eq(rename(path_in("folder"), path_in("moved")), 0);
    *number_of(s) = 8;
    OK(stead_commit(s, STEAD_DURABLE));
    cr_assert_eq(unlink(path_in("moved/s")), 0);
    *number_of(s) = 9;
    OK(stead_close(s));
    cr_assert_eq(files_left("moved"), 0, "the log of a store that was renamed, and then unlinked, was left");
}

Test(late_log, a_name_too_long_for_a_log_is_told_of_by_the_commit_and_nothing_is_lost)
{
    char longest[256];
    memset(longest, 'n', 240);
    longest[240] = '\0';
    make("s", 5);
    stead *s = open_it("s");
    cr_assert_eq(rename(path_in("s"), path_in(longest)), 0);
    *number_of(s) = 6;
    FAILS(stead_commit(s, STEAD_DURABLE), ENAMETOOLONG);
    cr_assert_eq(*number_of(s), 6);
    cr_assert_eq(rename(path_in(longest), path_in("s")), 0);
    OK(stead_commit(s, STEAD_DURABLE));
    OK(stead_close(s));
    expect("s", 6);
}

static void go_on_without_a_name(stead *s)
{
    for (int i = 0; i < 20; i++) {
        *number_of(s) = 100 + i;
        OK(stead_commit(s, i % 2 == 0 ? STEAD_DURABLE : STEAD_BUFFERED));
    }
    *number_of(s) = 1;
    OK(stead_rollback(s));
    cr_assert_eq(*number_of(s), 119);
    OK(stead_check(s, NULL));
}

Test(late_log, W32_a_store_removed_before_its_first_commit_leaves_nothing)
{
    stead *s;
    make("s", 5);
    s = open_it("s");
    OK(stead_remove(path_in("s")));
    go_on_without_a_name(s);
    cr_assert_eq(files_left(NULL), 0);
    OK(stead_close(s));
    cr_assert_eq(files_left(NULL), 0);

    cr_assert_eq(mkdir(path_in("folder"), 0700), 0); /* its folder, too */
    make("folder/s", 5);
    s = open_it("folder/s");
    OK(stead_remove(path_in("folder/s")));
    cr_assert_eq(rmdir(path_in("folder")), 0);
    go_on_without_a_name(s);
    OK(stead_close(s));
    cr_assert_eq(files_left(NULL), 0);
}

Test(late_log, W32_a_store_removed_and_made_anew_keeps_the_new_ones_log)
{
    make("s", 5);
    stead *removed = open_it("s");
    OK(stead_remove(path_in("s")));
    make("s", 10);
    stead *s = open_it("s");
    *number_of(s) = 11;
    OK(stead_commit(s, STEAD_DURABLE));
    go_on_without_a_name(removed);
    OK(stead_close(removed));
    cr_assert(exists("s-wal"));
    stead_abandon(s);
    expect("s", 11);
    cr_assert_eq(files_left(NULL), 1);
}

/* A removal between the steps of the first commit, and the first commit between the steps of a removal. */
static stead *meeting;
static unsigned meet_at, created;

static int removed_while_made(const char *path, int flags, mode_t mode)
{
    bool log = (flags & O_CREAT) != 0 && strcmp(path + strlen(path) - 4, "-wal") == 0;
    if (log && meet_at == 0)
        OK(stead_remove(path_in("s")));
    int fd = file_calls_system.open(path, flags, mode);
    int saved = errno;
    if (log && meet_at == 1)
        OK(stead_remove(path_in("s")));
    if (log && meet_at == 2)
        cr_assert_eq(unlink(path_in("s")), 0); /* by hand */
    created += log;
    errno = saved;
    return fd;
}

static int committed_while_removed(const char *path)
{
    if (strcmp(path, path_in("s")) == 0) {
        file_calls.unlink = file_calls_system.unlink;
        *number_of(meeting) = 6;
        OK(stead_commit(meeting, STEAD_DURABLE));
        cr_assert(exists("s-wal"), "the meeting proves nothing");
    }
    return file_calls_system.unlink(path);
}

Test(late_log, W32_a_removal_beside_the_first_commit_leaves_nothing)
{
    for (meet_at = 0; meet_at < 3; meet_at++) {
        created = 0;
        make("s", 5);
        stead *s = open_it("s");
        file_calls.open = removed_while_made;
        *number_of(s) = 6;
        OK(stead_commit(s, STEAD_DURABLE));
        file_calls = file_calls_system;
        cr_assert_gt(created, 0);
        cr_assert_eq(files_left(NULL), 0, "%u: something was left", meet_at);
        go_on_without_a_name(s);
        OK(stead_close(s));
        cr_assert_eq(files_left(NULL), 0, "%u", meet_at);
    }
    make("s", 5);
    meeting = open_it("s");
    file_calls.unlink = committed_while_removed;
    OK(stead_remove(path_in("s")));
    cr_assert_eq(files_left(NULL), 0, "the log made in between was left");
    go_on_without_a_name(meeting);
    OK(stead_close(meeting));
    cr_assert_eq(files_left(NULL), 0);
}

/* ---- failures */

enum { CREATE, FALLOCATE, WRITE, FSYNC, WRITE_DURABLE, KINDS };
static int failing_kind, failing_code;
static long calls_left;
static bool reaches_the_disk;

static bool fails(int kind)
{
    if (kind != failing_kind || calls_left-- != 0)
        return false;
    errno = failing_code;
    return true;
}

static int fail_open(const char *path, int flags, mode_t mode)
{
    return (flags & O_CREAT) != 0 && fails(CREATE) ? -1 : file_calls_system.open(path, flags, mode);
}

static int fail_fallocate(int fd, int mode, off_t offset, off_t bytes)
{
    return fails(FALLOCATE) ? -1 : file_calls_system.fallocate(fd, mode, offset, bytes);
}

static ssize_t fail_pwrite(int fd, const void *bytes, size_t count, off_t offset)
{
    return fails(WRITE) ? -1 : file_calls_system.pwrite(fd, bytes, count, offset);
}

static int fail_fsync(int fd)
{
    return fails(FSYNC) ? -1 : file_calls_system.fsync(fd);
}

static ssize_t fail_pwrite_durable(int fd, const void *bytes, size_t count, off_t offset)
{
    if (!fails(WRITE_DURABLE))
        return file_calls_system.pwrite_durable(fd, bytes, count, offset);
    if (reaches_the_disk)
        (void)file_calls_system.pwrite(fd, bytes, count, offset);
    errno = failing_code;
    return -1;
}

/* Its n-th call of the kind fails in the first commit.  false: there are not so many. */
static bool first_commit_fails(long n)
{
    make("s", 5);
    stead *s = open_it("s");
    *number_of(s) = 6;
    calls_left = n;
    file_calls.open = fail_open;
    file_calls.fallocate = fail_fallocate;
    file_calls.pwrite = fail_pwrite;
    file_calls.fsync = fail_fsync;
    file_calls.pwrite_durable = fail_pwrite_durable;
    int rc = stead_commit(s, STEAD_BUFFERED);
    bool failed = calls_left < 0;
    file_calls = file_calls_system;
    int expected = 6;
    if (rc == STEAD_FAILED) { /* nobody knows what the disk has: by its reopening the commit before */
        cr_assert_eq(failing_kind, WRITE_DURABLE, "only a superblock that may be there is worth that");
        FAILS(stead_commit(s, STEAD_BUFFERED), STEAD_FAILED);
        FAILS(stead_close(s), STEAD_FAILED);
        stead_abandon(s);
        expected = 5;
    } else {
        cr_assert(rc == 0 || rc == failing_code, "kind %d, call %ld: %d (%s)", failing_kind, n, rc,
                  stead_last_error_text());
        cr_assert_eq(*number_of(s), 6, "memory is as it was");
        OK(stead_commit(s, STEAD_DURABLE)); /* again */
        OK(stead_close(s));
    }
    expect("s", expected);
    cr_assert_eq(files_left(NULL), 1, "kind %d, call %ld", failing_kind, n);
    OK(stead_remove(path_in("s")));
    return failed;
}

Test(late_log, any_failing_call_of_the_first_commit_is_clean_or_settled_by_the_next_opener)
{
    static const int codes[] = {ENOSPC, EIO, EMFILE};
    for (failing_kind = 0; failing_kind < KINDS; failing_kind++) {
        for (unsigned c = 0; c < 3; c++) {
            long n = 0;
            failing_code = codes[c];
            reaches_the_disk = (c & 1) != 0;
            while (first_commit_fails(n))
                n++;
            cr_assert_gt(n, 0, "kind %d never called: nothing was tried", failing_kind);
        }
    }
}

/* ---- others */

static void read_beside(void *arg)
{
    volatile uint32_t *words = arg;
    stead *s;
    stead_status status;
    CHILD(stead_open(&s, path_in("s"), &(stead_options){.flags = STEAD_READ_ONLY, .timeout_ms = SOON_MS}) == 0);
    CHILD(stead_lock(s, STEAD_SHARED, SOON_MS) == 0 && *(int *)stead_root(s) == 5 && stead_unlock(s) == 0);
    words[0] = 1;
    CHILD(await(&words[1], 1)); /* the first commit, in the log alone */
    CHILD(stead_lock(s, STEAD_SHARED, SOON_MS) == 0 && *(int *)stead_root(s) == 6 && stead_unlock(s) == 0);
    CHILD(stead_stat(s, &status) == 0 && status.commit_seq > 0);
    CHILD(stead_check(s, NULL) == 0);
    CHILD(stead_backup(s, path_in("copy")) == 0);
    CHILD(stead_close(s) == 0);
}

Test(late_log, readers_that_came_before_the_first_commit_follow_it)
{
    for (unsigned first = 0; first < 2; first++) { /* the reader, or the writer */
        volatile uint32_t *words = shared_words(2);
        make("s", 5);
        pid_t reader = first == 0 ? spawn(read_beside, (void *)(uintptr_t)words) : 0;
        if (first == 0)
            cr_assert(await(&words[0], 1));
        stead *s = open_it("s");
        if (first == 1)
            reader = spawn(read_beside, (void *)(uintptr_t)words);
        cr_assert(await(&words[0], 1));
        *number_of(s) = 6;
        OK(stead_commit(s, STEAD_DURABLE));
        words[1] = 1;
        REAP_OK(reader);
        OK(stead_close(s));
        expect("copy", 6);
        OK(stead_remove(path_in("copy")));
        OK(stead_remove(path_in("s")));
    }
}
