/*
 * file.c -- transfers, syncs and sizes of store and log files, through one replaceable table of system calls.
 *
 * Why a table: everything that persist/ promises about crashes is an argument about the order of these calls.  With
 * the calls behind pointers a test can fail the n-th one, cut it short, interrupt it, or record them all and build every
 * state of the disk that a power cut may leave.  In production a call through the table costs an indirect jump.
 *
 * What is decided here, for everybody above:
 *   - EINTR never comes out of a transfer or a sync: they are repeated.  Out of fallocate it may, after
 *     RESERVE_RETRIES attempts: some file systems start again from nothing, and a process with a fast timer would
 *     never get through.  Nothing happened then.
 *   - a short write is continued; the error that stopped it is found by the next attempt.
 *   - a failed sync is never repeated: the kernel reports a lost page once and then calls it clean.
 *   - a file that grows past the limit of this process (ulimit -f) is answered by the kernel with a signal that ends the
 *     program.  So whoever makes a file longer asks first: all of it is done by reserving, truncating, or a store's mark.
 *     A process that lowers its limit below a file that it has open for writing is not helped.
 *   - the sync of a range is msync(MS_SYNC) over a mapping made for it: the only call of Linux that makes a range of a
 *     file durable with the metadata it needs and leaves other dirty pages alone (sync_file_range flushes neither
 *     metadata nor the disk's cache).  Lock words live in a page of the file that is dirty all the time; syncing them
 *     with every commit stalls their users for milliseconds.
 */
#include "persist/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/error.h"
#include "base/system.h"
#include "base/units.h"

#define RESERVE_RETRIES 100
#define TRANSFER_BYTES_MAX (UINT64_C(1) << 30)   /* one call; Linux moves at most 2 GiB - 4096 */
#define SYNC_RANGE_BYTES_MAX (UINT64_C(4) << 30) /* of addresses borrowed for one msync         */
#define COPY_BYTES ((size_t)UNIT_BYTES * 4)

/* ---- the system's calls ---- */

static int system_open(const char *path, int flags, mode_t mode)
{
    return system_above_standard(open(path, flags, mode));
}

static ssize_t system_pwrite_durable(int fd, const void *buffer, size_t bytes, off_t offset)
{
    return system_pwrite_flags(fd, buffer, bytes, offset, RWF_DSYNC);
}

static int system_sync_range(int fd, off_t offset, off_t bytes)
{
    int rc;
    void *view = mmap(NULL, (size_t)bytes, PROT_READ, MAP_SHARED, fd, offset); /* never touched */
    if (view == MAP_FAILED)
        return -1;
    rc = msync(view, (size_t)bytes, MS_SYNC);
    int saved_errno = errno;
    (void)munmap(view, (size_t)bytes);
    errno = saved_errno;
    return rc;
}

static int system_start_writeback(int fd, off_t offset, off_t bytes)
{
    return sync_file_range(fd, offset, bytes, SYNC_FILE_RANGE_WRITE);
}

static int system_read_ahead(int fd, off_t offset, off_t bytes)
{
    return posix_fadvise(fd, offset, bytes, POSIX_FADV_WILLNEED);
}

static int system_rename_new(const char *from, const char *to)
{
    return system_renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE);
}

static int system_exchange(const char *a, const char *b)
{
    return system_renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE);
}

static int system_clone(int to_fd, int from_fd)
{
    return ioctl(to_fd, FICLONE, from_fd);
}

static ssize_t system_copy_file_range(int from_fd, off_t *from, int to_fd, off_t *to, size_t bytes)
{
    return copy_file_range(from_fd, from, to_fd, to, bytes, 0);
}

#define SYSTEM_CALLS \
    { \
        .open = system_open, .close = close, .pread = pread, .pwrite = pwrite, \
        .pwrite_durable = system_pwrite_durable, .fdatasync = fdatasync, .fsync = fsync, \
        .sync_range = system_sync_range, .start_writeback = system_start_writeback, .read_ahead = system_read_ahead, \
        .ftruncate = ftruncate, .fallocate = fallocate, .linkat = linkat, .rename = rename, \
        .rename_new = system_rename_new, .exchange = system_exchange, .unlink = unlink, .clone = system_clone, \
        .copy_file_range = system_copy_file_range, .mmap = mmap, .munmap = munmap \
    }

const struct file_calls file_calls_system = SYSTEM_CALLS;
struct file_calls file_calls = SYSTEM_CALLS;

/* ---- transfers ---- */

int file_read_at(int fd, void *buffer, size_t bytes, uint64_t offset)
{
    uint8_t *to = buffer;
    while (bytes > 0) {
        ssize_t n = file_calls.pread(fd, to, (size_t)min_u64(bytes, TRANSFER_BYTES_MAX), (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno;
        if (n == 0)
            return EIO; /* the file ends before what its own header promises */
        to += n;
        bytes -= (size_t)n;
        offset += (uint64_t)n;
    }
    return 0;
}

static int write_all(ssize_t (*write_some)(int, const void *, size_t, off_t), int fd, const void *buffer, size_t bytes,
                     uint64_t offset)
{
    const uint8_t *from = buffer;
    while (bytes > 0) {
        ssize_t n = write_some(fd, from, (size_t)min_u64(bytes, TRANSFER_BYTES_MAX), (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno;
        if (n == 0)
            return ENOSPC; /* no byte and no error: a device that is full to the last one */
        from += n;
        bytes -= (size_t)n;
        offset += (uint64_t)n;
    }
    return 0;
}

int file_write_at(int fd, const void *buffer, size_t bytes, uint64_t offset)
{
    return write_all(file_calls.pwrite, fd, buffer, bytes, offset);
}

int file_write_durable(int fd, const void *buffer, size_t bytes, uint64_t offset)
{
    int rc = write_all(file_calls.pwrite_durable, fd, buffer, bytes, offset);
    if (rc != EOPNOTSUPP && !system_lacks_call(rc))
        return rc;
    rc = file_write_at(fd, buffer, bytes, offset); /* Linux before 4.7, and file systems without RWF_DSYNC */
    return rc != 0 ? rc : file_sync_range(fd, offset, bytes);
}

int file_clone(int to_fd, int from_fd)
{
    return file_calls.clone(to_fd, from_fd) == 0 ? 0 : errno;
}

static int copy_by_hand(int from_fd, uint64_t from, int to_fd, uint64_t to, uint64_t bytes)
{
    int rc = 0;
    uint8_t *buffer = malloc(COPY_BYTES); /* a thread's whole stack may be smaller */
    if (buffer == NULL)
        return ENOMEM;
    for (uint64_t done = 0; done < bytes && rc == 0;) {
        size_t part = (size_t)min_u64(COPY_BYTES, bytes - done);
        rc = file_read_at(from_fd, buffer, part, from + done);
        if (rc == 0)
            rc = file_write_at(to_fd, buffer, part, to + done);
        done += part;
    }
    free(buffer);
    return rc;
}

int file_copy_range(int from_fd, uint64_t from, int to_fd, uint64_t to, uint64_t bytes)
{
    while (bytes > 0) {
        off_t from_at = (off_t)from, to_at = (off_t)to;
        ssize_t n =
            file_calls.copy_file_range(from_fd, &from_at, to_fd, &to_at, (size_t)min_u64(bytes, TRANSFER_BYTES_MAX));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == ENOSPC || errno == EDQUOT || errno == EIO || errno == EFBIG))
            return errno;
        if (n <= 0) /* not between these file systems, or an old kernel's 0: the plain way tells the truth */
            return copy_by_hand(from_fd, from, to_fd, to, bytes);
        from += (uint64_t)n;
        to += (uint64_t)n;
        bytes -= (uint64_t)n;
    }
    return 0;
}

/* ---- syncs ---- */

int file_sync(int fd)
{
    int rc;
    do
        rc = file_calls.fdatasync(fd);
    while (rc != 0 && errno == EINTR);
    return rc == 0 ? 0 : errno;
}

int file_sync_new(int fd)
{
    int rc;
    do
        rc = file_calls.fsync(fd);
    while (rc != 0 && errno == EINTR);
    return rc == 0 ? 0 : errno;
}

int file_sync_range(int fd, uint64_t offset, uint64_t bytes)
{
    uint64_t at = round_down(offset, UNIT_BYTES);
    uint64_t end = round_up(offset + bytes, UNIT_BYTES);
    while (at < end) {
        uint64_t part = min_u64(end - at, SYNC_RANGE_BYTES_MAX);
        int rc = file_calls.sync_range(fd, (off_t)at, (off_t)part);
        if (rc != 0 && errno == EINTR)
            continue;
        if (rc != 0 && (errno == ENODEV || errno == ENOMEM || errno == EACCES || errno == EAGAIN || errno == EPERM))
            return file_sync(fd); /* no mapping to be had (EAGAIN: mlockall): the whole file, slower and as durable */
        if (rc != 0)
            return errno;
        at += part;
    }
    return 0;
}

void file_start_writeback(int fd, uint64_t offset, uint64_t bytes)
{
    (void)file_calls.start_writeback(fd, (off_t)offset, (off_t)bytes);
}

void file_read_ahead(int fd, uint64_t offset, uint64_t bytes)
{
    (void)file_calls.read_ahead(fd, (off_t)offset, (off_t)bytes);
}

/* ---- sizes ---- */

int file_size(int fd, uint64_t *bytes)
{
    struct stat facts;
    if (fstat(fd, &facts) != 0)
        return errno;
    *bytes = (uint64_t)facts.st_size;
    return 0;
}

int file_within_limit(uint64_t bytes)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || bytes <= limit.rlim_cur ? 0
                                                                                                              : EFBIG;
}

int file_may_hold(int fd)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || fd < 0 ||
        (uint64_t)fd < limit.rlim_cur)
        return 0;
    return error_set(EMFILE,
                     "the limit of open files (%llu) was lowered below descriptor %d, which is to get another file",
                     (unsigned long long)limit.rlim_cur, fd);
}

/* The file is to have at least so many bytes. */
static int may_grow(int fd, uint64_t bytes)
{
    uint64_t now;
    return file_within_limit(bytes) == 0 || (file_size(fd, &now) == 0 && bytes <= now) ? 0 : EFBIG;
}

int file_truncate(int fd, uint64_t bytes)
{
    int rc = may_grow(fd, bytes);
    if (rc != 0)
        return rc;
    do
        rc = file_calls.ftruncate(fd, (off_t)bytes);
    while (rc != 0 && errno == EINTR);
    return rc == 0 ? 0 : errno;
}

static int allocate(int fd, int mode, uint64_t offset, uint64_t bytes)
{
    if (bytes == 0)
        return 0;
    int rc = (mode & FALLOC_FL_KEEP_SIZE) != 0 ? 0 : may_grow(fd, offset + bytes);
    if (rc != 0)
        return rc;
    for (int attempt = 0;; attempt++) {
        if (file_calls.fallocate(fd, mode, (off_t)offset, (off_t)bytes) == 0)
            return 0;
        if (system_lacks_call(errno))
            return EOPNOTSUPP;
        if (errno != EINTR || attempt == RESERVE_RETRIES)
            return errno;
    }
}

int file_reserve(int fd, uint64_t offset, uint64_t bytes)
{
    return allocate(fd, 0, offset, bytes);
}

int file_reserve_beyond(int fd, uint64_t offset, uint64_t bytes)
{
    return allocate(fd, FALLOC_FL_KEEP_SIZE, offset, bytes);
}

int file_write_zeros(int fd, uint64_t offset, uint64_t bytes)
{
    static const uint8_t zeros[4 * UNIT_BYTES];
    int rc = 0;
    for (uint64_t at = offset, part; at < offset + bytes && rc == 0; at += part) {
        part = min_u64(round_up(at + 1, sizeof zeros), offset + bytes) - at;
        rc = file_write_at(fd, zeros, (size_t)part, at);
    }
    return rc;
}

int file_reserve_fresh(int fd, uint64_t offset, uint64_t bytes)
{
    int rc = file_reserve(fd, offset, bytes);
    return rc == EOPNOTSUPP ? file_write_zeros(fd, offset, bytes) : rc;
}

int file_zero(int fd, uint64_t offset, uint64_t bytes)
{
    int rc = file_punch(fd, offset, bytes);
    return rc == EOPNOTSUPP ? file_write_zeros(fd, offset, bytes) : rc;
}

int file_punch(int fd, uint64_t offset, uint64_t bytes)
{
    return allocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, bytes);
}
