/*
 * test_no_room.c -- no room for the log: a full disk, a quota, a limit of the file size (ulimit -f).  The log holds what is in
 * the store anyway; a commit that finds no room behind it brings it home and begins another one.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "persist/file.h"
#include "support/support.h"

#define LOG_BYTES_MAX ((off_t)1 << 20)
#define BLOCK_BYTES ((size_t)128 << 10)
#define COMMITS 60

static void teardown(void)
{
    file_calls = file_calls_system;
    support_teardown();
}

TestSuite(no_room, .init = support_setup, .fini = teardown, .timeout = 300);

static int refusal; /* errno */
static int small_fallocate(int fd, int mode, off_t offset, off_t bytes)
{
    char name[FILE_PATH_BYTES];
    if (strstr(file_name(fd, name), "-wal") == NULL || offset + bytes <= LOG_BYTES_MAX)
        return file_calls_system.fallocate(fd, mode, offset, bytes);
    errno = refusal;
    return -1;
}

static void prepare(const char *path)
{
    stead *s;
    OK(stead_open(&s, path, NULL));
    void *block = stead_calloc(s, 1, BLOCK_BYTES);
    cr_assert_not_null(block);
    OK(stead_set_root(s, block));
    OK(stead_close(s));
}

/* Many commits, each of a large part of what the log may hold; 0, or the line of what failed. */
static int commit_often(const char *path, stead_sharing sharing, stead_durability durability)
{
    stead *s;
    stead_status status;
    if (stead_open(&s, path, &(stead_options){.sharing = sharing}) != 0)
        return __LINE__;
    uint8_t *bytes = stead_root(s);
    for (int i = 1; i <= COMMITS; i++) {
        if (stead_lock(s, STEAD_EXCLUSIVE, -1) != 0)
            return __LINE__;
        memset(bytes, i, BLOCK_BYTES);
        if (sharing == STEAD_SOLE && stead_commit(s, durability) != 0)
            return __LINE__;
        if (stead_unlock(s) != 0)
            return __LINE__;
    }
    if (stead_stat(s, &status) != 0 || status.log_bytes > (uint64_t)LOG_BYTES_MAX)
        return __LINE__;
    stead_abandon(s);
    if (stead_open(&s, path, &(stead_options){.sharing = sharing}) != 0)
        return __LINE__;
    bytes = stead_root(s);
    for (size_t i = 0; i < BLOCK_BYTES; i++)
        if (bytes[i] != COMMITS)
            return __LINE__;
    return stead_close(s) == 0 ? 0 : __LINE__;
}

Test(no_room, a_commit_without_room_for_the_log_begins_another_log)
{
    static const int errors[] = {ENOSPC, EDQUOT, EFBIG};
    const char *path = path_in("s");
    prepare(path);
    file_calls.fallocate = small_fallocate;
    for (unsigned i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        refusal = errors[i];
        cr_assert_eq(commit_often(path, STEAD_SOLE, STEAD_DURABLE), 0);
        cr_assert_eq(commit_often(path, STEAD_SOLE, STEAD_BUFFERED), 0);
        cr_assert_eq(commit_often(path, STEAD_TURNS, STEAD_DURABLE), 0);
    }
}

static void commit_under_a_limit(void *arg)
{
    const char *path = arg;
    struct rlimit limit;
    struct stat facts;
    CHILD(stat(path, &facts) == 0 && facts.st_size < LOG_BYTES_MAX);
    CHILD(getrlimit(RLIMIT_FSIZE, &limit) == 0);
    limit.rlim_cur = LOG_BYTES_MAX;
    CHILD(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    CHILD(commit_often(path, STEAD_SOLE, STEAD_DURABLE) == 0);
    CHILD(commit_often(path, STEAD_TURNS, STEAD_DURABLE) == 0);
}

/* The kernel answers a file that grows past the limit with a signal that ends the program. */
Test(no_room, the_file_size_limit_holds_for_the_log_without_a_signal)
{
    const char *path = path_in("s");
    prepare(path);
    REAP_OK(spawn(commit_under_a_limit, (void *)(uintptr_t)path));
}

static void grow_past_a_limit(void *arg)
{
    const char *path = arg;
    struct rlimit limit;
    stead *s;
    CHILD(getrlimit(RLIMIT_FSIZE, &limit) == 0);
    limit.rlim_cur = 100;
    CHILD(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    CHILD(stead_open(&s, path, &(stead_options){.sharing = STEAD_SOLE}) == EFBIG);
    CHILD(stead_open(&s, path_in("another"), NULL) == EFBIG);
    CHILD(stead_open(&s, "shm:stead-test-no-room", &(stead_options){.sharing = STEAD_LIVE}) == EFBIG);
    CHILD(stead_open(&s, path, &(stead_options){.flags = STEAD_READ_ONLY}) == 0);
    CHILD(stead_backup(s, path_in("copy")) == EFBIG);
    CHILD(stead_close(s) == 0);
}

Test(no_room, a_file_size_limit_below_everything_is_an_error_of_each_call)
{
    const char *path = path_in("s");
    prepare(path);
    REAP_OK(spawn(grow_past_a_limit, (void *)(uintptr_t)path));
}
