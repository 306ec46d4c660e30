/*
 * crash_calls.c -- stands between the library and the system: every entry of file_calls counts, may kill, may fail, does
 * the real call, and records what it did.
 *
 * A call and its record are one step under a mutex shared by all processes of the workload, so that the trace is in the
 * order in which the kernel saw the calls.  What is recorded is what happened (bytes really transferred), as effects on
 * numbered files ("nodes") and on names in one directory:
 *
 *   a write that went through O_DSYNC or RWF_DSYNC   a write, then the sync of that range
 *   fallocate, truncate, an extending write          a new size; a punched hole: zeros
 *   clone, copy_file_range                           a write of the bytes that are there afterwards
 *
 * Stores through MAP_SHARED mappings are not seen: the lock unit, and everything in LIVE.  The explorer fills the lock
 * unit with garbage, which is what a disk may hold there.
 */
#include "tests/crash/crash_calls.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "persist/file.h"

static struct crash_shared *shared; /* this process's trial */
static uint64_t requests_left;      /* of this process, which then is killed; 0: of no interest */

struct crash_shared *crash_shared_new(void)
{
    struct crash_shared *fresh = mmap(NULL, sizeof *fresh, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (fresh == MAP_FAILED)
        return NULL;
    pthread_mutexattr_t kind;
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_setpshared(&kind, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&kind, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&fresh->mutex, &kind);
    pthread_mutexattr_destroy(&kind);
    fresh->trace_fd = -1;
    return fresh;
}

void crash_shared_free(struct crash_shared *old)
{
    munmap(old, sizeof *old);
}

/* ---- the trace ---- */

static void record(enum trace_kind kind, unsigned node, uint64_t offset, uint64_t length, const void *payload,
                   size_t bytes)
{
    if (shared->trace_fd < 0)
        return;
    size_t padded = (bytes + 7) / 8 * 8;
    struct trace_event event = {.kind = kind, .node = node, .offset = offset, .length = length, .payload = bytes};
    uint8_t *whole = calloc(1, sizeof event + padded);
    if (whole == NULL)
        abort(); /* the trial is void; its process ends by a signal and is reported */
    memcpy(whole, &event, sizeof event);
    if (bytes > 0)
        memcpy(whole + sizeof event, payload, bytes);
    for (size_t at = 0; at < sizeof event + padded;) {
        ssize_t n = write(shared->trace_fd, whole + at, sizeof event + padded - at);
        if (n <= 0)
            abort();
        at += (size_t)n;
    }
    free(whole);
}

static void enter(void)
{
    if (pthread_mutex_lock(&shared->mutex) == EOWNERDEAD)
        pthread_mutex_consistent(&shared->mutex);
}

static void leave(void)
{
    int saved_errno = errno;
    pthread_mutex_unlock(&shared->mutex);
    errno = saved_errno;
}

void crash_begin(uint64_t version)
{
    if (shared == NULL)
        return;
    enter();
    atomic_store(&shared->begun, version);
    record(TRACE_BEGIN, 0, version, 0, NULL, 0);
    leave();
}

void crash_done(uint64_t version, bool durable)
{
    if (shared == NULL)
        return;
    enter();
    atomic_store(&shared->done, version);
    if (durable)
        atomic_store(&shared->durable, version);
    record(TRACE_DONE, 0, version, durable, NULL, 0);
    leave();
}

/* The node behind a descriptor; -1: not a file of the directory.  Inode numbers are used again: fresh says that this one
 * has just been made. */
static int node_of(int fd, bool fresh)
{
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0 || st.st_dev != shared->device || !S_ISREG(st.st_mode))
        return -1;
    for (unsigned n = 0; n < shared->nodes; n++) {
        if (shared->inode[n] != st.st_ino)
            continue;
        if (!fresh)
            return (int)n;
        shared->inode[n] = 0;
    }
    if (shared->nodes == CRASH_NODES_MAX)
        abort();
    shared->inode[shared->nodes] = st.st_ino;
    record(TRACE_NODE, shared->nodes, 0, 0, NULL, 0);
    return (int)shared->nodes++;
}

static uint64_t size_of(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 ? (uint64_t)st.st_size : 0;
}

static void record_write(int fd, const void *bytes, size_t count, uint64_t offset, uint64_t size_before, bool durable)
{
    int node = node_of(fd, false);
    if (node < 0)
        return;
    record(TRACE_WRITE, (unsigned)node, offset, count, bytes, count);
    if (offset + count > size_before)
        record(TRACE_SIZE, (unsigned)node, offset + count, 0, NULL, 0);
    if (durable)
        record(TRACE_SYNC_RANGE, (unsigned)node, offset, count, NULL, 0);
}

/* ---- counting, killing, failing ---- */

static void die(void)
{
    kill(getpid(), SIGKILL);
}

void crash_die_at(uint64_t request)
{
    requests_left = request;
}

/* true: this is the one. */
static bool is_last_request(void)
{
    return requests_left != 0 && --requests_left == 0;
}

/* Before a call.  Returns 0, or the error it is to fail with, or CRASH_SHORT. */
static int before(enum crash_call call)
{
    enter();
    uint64_t nth = atomic_fetch_add(&shared->calls_of[call], 1) + 1;
    if (call != CRASH_PREAD) {
        if (is_last_request())
            die();
        uint64_t request = atomic_fetch_add(&shared->calls, 1) + 1;
        if (request == shared->kill_at && !shared->kill_after)
            die();
    }
    if (shared->fault_at == 0 || shared->fault_call != call ||
        (nth != shared->fault_at && !(shared->fault_sticky && nth > shared->fault_at)))
        return 0;
    atomic_fetch_add(&shared->faults, 1);
    return shared->fault_error;
}

static void after(enum crash_call call)
{
    int saved_errno = errno;
    if (call != CRASH_PREAD && shared->kill_after && atomic_load(&shared->calls) == shared->kill_at)
        die();
    errno = saved_errno;
    leave();
}

#define FAIL_IF_ASKED(call, failure) \
    int asked = before(call); \
    if (asked > 0) { \
        leave(); \
        errno = asked; \
        return failure; \
    }

static size_t shortened(int asked, size_t bytes)
{
    return asked == CRASH_SHORT && bytes > 1 ? bytes / 2 : bytes;
}

/* ---- the table ---- */

/* The last component, if the path lies in the directory of the trial. */
static const char *name_in_directory(const char *path, char name[CRASH_NAME_BYTES])
{
    char copy[FILE_PATH_BYTES];
    struct stat st;
    if (strlen(path) >= sizeof copy)
        return NULL;
    strcpy(copy, path);
    const char *slash = strrchr(path, '/');
    const char *last = slash == NULL ? path : slash + 1;
    if (stat(dirname(copy), &st) != 0 || st.st_ino != shared->directory || st.st_dev != shared->device ||
        strlen(last) >= CRASH_NAME_BYTES)
        return NULL;
    return strcpy(name, last);
}

static int call_open(const char *path, int flags, mode_t mode)
{
    FAIL_IF_ASKED(CRASH_OPEN, -1)
    char name[CRASH_NAME_BYTES];
    const char *in = name_in_directory(path, name);
    struct stat st;
    bool existed = lstat(path, &st) == 0;
    bool nameless = (flags & O_TMPFILE) == O_TMPFILE;
    uint64_t had = existed && S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
    int fd = file_calls_system.open(path, flags, mode);
    if (fd >= 0 && (nameless || in != NULL)) {
        bool fresh = nameless || ((flags & O_CREAT) != 0 && !existed);
        int node = node_of(fd, fresh);
        if (node >= 0 && fresh && !nameless)
            record(TRACE_LINK, (unsigned)node, 0, 0, name, strlen(name) + 1);
        if (node >= 0 && (flags & O_TRUNC) != 0 && had > 0)
            record(TRACE_SIZE, (unsigned)node, 0, 0, NULL, 0);
    }
    after(CRASH_OPEN);
    return fd;
}

static ssize_t call_pread(int fd, void *buffer, size_t bytes, off_t offset)
{
    FAIL_IF_ASKED(CRASH_PREAD, -1)
    leave();
    return file_calls_system.pread(fd, buffer, shortened(asked, bytes), offset);
}

static ssize_t call_pwrite(int fd, const void *buffer, size_t bytes, off_t offset)
{
    FAIL_IF_ASKED(CRASH_PWRITE, -1)
    uint64_t size = size_of(fd);
    int flags = fcntl(fd, F_GETFL);
    size_t want = shortened(asked, bytes);
    if (asked == CRASH_SHORT && (flags & O_DIRECT) != 0) /* a device is cut short between sectors */
        want = bytes > 512 ? bytes / 2 / 512 * 512 : bytes;
    ssize_t n = file_calls_system.pwrite(fd, buffer, want, offset);
    if (n > 0)
        record_write(fd, buffer, (size_t)n, (uint64_t)offset, size, (flags & O_DSYNC) != 0);
    after(CRASH_PWRITE);
    return n;
}

static ssize_t call_pwrite_durable(int fd, const void *buffer, size_t bytes, off_t offset)
{
    uint64_t size = size_of(fd);
    if (requests_left == 1) { /* killed between the write and its sync: the kernel has the bytes, the disk has not */
        enter();
        if (file_calls_system.pwrite(fd, buffer, bytes, offset) == (ssize_t)bytes)
            record_write(fd, buffer, bytes, (uint64_t)offset, size, false);
        die();
    }
    FAIL_IF_ASKED(CRASH_PWRITE_DURABLE, -1)
    size = size_of(fd);
    ssize_t n = file_calls_system.pwrite_durable(fd, buffer, shortened(asked, bytes), offset);
    if (n > 0)
        record_write(fd, buffer, (size_t)n, (uint64_t)offset, size, true);
    after(CRASH_PWRITE_DURABLE);
    return n;
}

static int call_fdatasync(int fd)
{
    FAIL_IF_ASKED(CRASH_FDATASYNC, -1)
    int rc = file_calls_system.fdatasync(fd);
    int node = node_of(fd, false);
    if (rc == 0 && node >= 0)
        record(TRACE_SYNC, (unsigned)node, 0, 0, NULL, 0);
    after(CRASH_FDATASYNC);
    return rc;
}

static int call_fsync(int fd)
{
    FAIL_IF_ASKED(CRASH_FSYNC, -1)
    struct stat st;
    int rc = file_calls_system.fsync(fd);
    int node = node_of(fd, false);
    if (rc == 0 && node >= 0)
        record(TRACE_SYNC, (unsigned)node, 0, 0, NULL, 0);
    else if (rc == 0 && fstat(fd, &st) == 0 && st.st_ino == shared->directory && st.st_dev == shared->device)
        record(TRACE_SYNC_DIRECTORY, 0, 0, 0, NULL, 0);
    after(CRASH_FSYNC);
    return rc;
}

static int call_sync_range(int fd, off_t offset, off_t bytes)
{
    FAIL_IF_ASKED(CRASH_SYNC_RANGE, -1)
    int rc = file_calls_system.sync_range(fd, offset, bytes);
    int node = node_of(fd, false);
    if (rc == 0 && node >= 0)
        record(TRACE_SYNC_RANGE, (unsigned)node, (uint64_t)offset, (uint64_t)bytes, NULL, 0);
    after(CRASH_SYNC_RANGE);
    return rc;
}

static int call_ftruncate(int fd, off_t bytes)
{
    FAIL_IF_ASKED(CRASH_FTRUNCATE, -1)
    int rc = file_calls_system.ftruncate(fd, bytes);
    int node = node_of(fd, false);
    if (rc == 0 && node >= 0)
        record(TRACE_SIZE, (unsigned)node, (uint64_t)bytes, 0, NULL, 0);
    after(CRASH_FTRUNCATE);
    return rc;
}

static int call_fallocate(int fd, int mode, off_t offset, off_t bytes)
{
    FAIL_IF_ASKED(CRASH_FALLOCATE, -1)
    uint64_t size = size_of(fd);
    int rc = file_calls_system.fallocate(fd, mode, offset, bytes);
    int node = node_of(fd, false);
    if (rc == 0 && node >= 0) {
        uint64_t end = (uint64_t)offset + (uint64_t)bytes;
        if ((mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0)
            record(TRACE_ZERO, (unsigned)node, (uint64_t)offset, (uint64_t)bytes, NULL, 0);
        if ((mode & FALLOC_FL_KEEP_SIZE) == 0 && end > size)
            record(TRACE_SIZE, (unsigned)node, end, 0, NULL, 0);
    }
    after(CRASH_FALLOCATE);
    return rc;
}

static int call_linkat(int old_dir, const char *old_path, int new_dir, const char *new_path, int flags)
{
    FAIL_IF_ASKED(CRASH_LINKAT, -1)
    char name[CRASH_NAME_BYTES];
    int rc = file_calls_system.linkat(old_dir, old_path, new_dir, new_path, flags);
    if (rc == 0 && name_in_directory(new_path, name) != NULL) {
        int fd = open(new_path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        int node = node_of(fd, false);
        if (node >= 0)
            record(TRACE_LINK, (unsigned)node, 0, 0, name, strlen(name) + 1);
        if (fd >= 0)
            close(fd);
    }
    after(CRASH_LINKAT);
    return rc;
}

static int renamed(int (*real)(const char *, const char *), const char *from, const char *to)
{
    FAIL_IF_ASKED(CRASH_RENAME, -1)
    char names[2][CRASH_NAME_BYTES], both[2 * CRASH_NAME_BYTES];
    bool in = name_in_directory(from, names[0]) != NULL && name_in_directory(to, names[1]) != NULL;
    int rc = real(from, to);
    if (rc == 0 && in) {
        size_t first = strlen(names[0]) + 1, second = strlen(names[1]) + 1;
        memcpy(both, names[0], first);
        memcpy(both + first, names[1], second);
        record(TRACE_RENAME, 0, 0, 0, both, first + second);
    }
    after(CRASH_RENAME);
    return rc;
}

static int call_rename(const char *from, const char *to)
{
    return renamed(file_calls_system.rename, from, to);
}

static int call_rename_new(const char *from, const char *to)
{
    return renamed(file_calls_system.rename_new, from, to);
}

static int call_exchange(const char *a, const char *b)
{
    FAIL_IF_ASKED(CRASH_RENAME, -1)
    char names[2][CRASH_NAME_BYTES], both[2 * CRASH_NAME_BYTES];
    bool in = name_in_directory(a, names[0]) != NULL && name_in_directory(b, names[1]) != NULL;
    int rc = file_calls_system.exchange(a, b);
    if (rc == 0 && in) {
        size_t first = strlen(names[0]) + 1, second = strlen(names[1]) + 1;
        memcpy(both, names[0], first);
        memcpy(both + first, names[1], second);
        record(TRACE_EXCHANGE, 0, 0, 0, both, first + second);
    }
    after(CRASH_RENAME);
    return rc;
}

static int call_unlink(const char *path)
{
    FAIL_IF_ASKED(CRASH_UNLINK, -1)
    char name[CRASH_NAME_BYTES];
    bool in = name_in_directory(path, name) != NULL;
    int rc = file_calls_system.unlink(path);
    if (rc == 0 && in)
        record(TRACE_UNLINK, 0, 0, 0, name, strlen(name) + 1);
    after(CRASH_UNLINK);
    return rc;
}

/* What is there now is recorded as written: the trace needs no second file. */
static void record_copied(int fd, uint64_t offset, uint64_t bytes, uint64_t size_before)
{
    enum { CHUNK = 65536 };
    uint8_t *chunk = malloc(CHUNK);
    if (chunk == NULL)
        abort();
    for (uint64_t done = 0; done < bytes;) {
        ssize_t n = pread(fd, chunk, bytes - done < CHUNK ? (size_t)(bytes - done) : CHUNK, (off_t)(offset + done));
        if (n <= 0)
            break;
        record_write(fd, chunk, (size_t)n, offset + done, size_before, false);
        done += (uint64_t)n;
    }
    free(chunk);
}

static int call_clone(int to_fd, int from_fd)
{
    FAIL_IF_ASKED(CRASH_CLONE, -1)
    uint64_t size = size_of(to_fd);
    int rc = file_calls_system.clone(to_fd, from_fd);
    if (rc == 0 && shared->trace_fd >= 0)
        record_copied(to_fd, 0, size_of(to_fd), size);
    after(CRASH_CLONE);
    return rc;
}

static ssize_t call_copy_file_range(int from_fd, off_t *from, int to_fd, off_t *to, size_t bytes)
{
    FAIL_IF_ASKED(CRASH_COPY, -1)
    uint64_t size = size_of(to_fd), at = (uint64_t)*to;
    ssize_t n = file_calls_system.copy_file_range(from_fd, from, to_fd, to, shortened(asked, bytes));
    if (n > 0 && shared->trace_fd >= 0)
        record_copied(to_fd, at, (uint64_t)n, size);
    after(CRASH_COPY);
    return n;
}

static void *call_mmap(void *address, size_t bytes, int protection, int flags, int fd, off_t offset)
{
    FAIL_IF_ASKED(CRASH_MMAP, MAP_FAILED)
    void *got = file_calls_system.mmap(address, bytes, protection, flags, fd, offset);
    after(CRASH_MMAP);
    return got;
}

void crash_calls_install(struct crash_shared *trial, const char *directory)
{
    struct stat st;
    shared = trial;
    if (stat(directory, &st) == 0) {
        trial->device = st.st_dev;
        trial->directory = st.st_ino;
    }
    file_calls.open = call_open;
    file_calls.pread = call_pread;
    file_calls.pwrite = call_pwrite;
    file_calls.pwrite_durable = call_pwrite_durable;
    file_calls.fdatasync = call_fdatasync;
    file_calls.fsync = call_fsync;
    file_calls.sync_range = call_sync_range;
    file_calls.ftruncate = call_ftruncate;
    file_calls.fallocate = call_fallocate;
    file_calls.linkat = call_linkat;
    file_calls.rename = call_rename;
    file_calls.rename_new = call_rename_new;
    file_calls.exchange = call_exchange;
    file_calls.unlink = call_unlink;
    file_calls.clone = call_clone;
    file_calls.copy_file_range = call_copy_file_range;
    file_calls.mmap = call_mmap;
}
