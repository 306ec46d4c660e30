/* dying_calls.c -- see dying_calls.h. */
#include "dying_calls.h"

#include <sys/types.h>
#include <unistd.h>

#include "persist/file.h"

static long die_at, calls_made;
static void count_call(void)
{
    if (calls_made++ == die_at)
        _exit(DYING_EXIT);
}

static ssize_t dying_pwrite(int fd, const void *b, size_t n, off_t at)
{
    if (calls_made == die_at) /* half of it arrives */
        (void)file_calls_system.pwrite(fd, b, n / 2, at);
    count_call();
    return file_calls_system.pwrite(fd, b, n, at);
}

static ssize_t dying_pwrite_durable(int fd, const void *b, size_t n, off_t at)
{
    count_call();
    return file_calls_system.pwrite(fd, b, n, at);
}

static int dying_fdatasync(int fd)
{
    (void)fd;
    count_call();
    return 0; /* process death: the kernel has the bytes */
}

static int dying_fsync(int fd)
{
    (void)fd;
    count_call();
    return 0;
}

static int dying_rename(const char *from, const char *to)
{
    count_call();
    return file_calls_system.rename(from, to);
}

static int dying_exchange(const char *a, const char *b)
{
    count_call();
    return file_calls_system.exchange(a, b);
}

static int dying_unlink(const char *path)
{
    count_call();
    return file_calls_system.unlink(path);
}

static int dying_ftruncate(int fd, off_t bytes)
{
    count_call();
    return file_calls_system.ftruncate(fd, bytes);
}

static int dying_sync_range(int fd, off_t at, off_t bytes)
{
    (void)fd, (void)at, (void)bytes;
    count_call();
    return 0;
}

void die_at_call(long n)
{
    die_at = n;
    calls_made = 0;
    file_calls = file_calls_system;
    file_calls.pwrite = dying_pwrite;
    file_calls.pwrite_durable = dying_pwrite_durable;
    file_calls.fdatasync = dying_fdatasync;
    file_calls.fsync = dying_fsync;
    file_calls.rename = dying_rename;
    file_calls.exchange = dying_exchange;
    file_calls.unlink = dying_unlink;
    file_calls.ftruncate = dying_ftruncate;
    file_calls.sync_range = dying_sync_range;
}
