/*
 * bytes.c -- OFD locks on single bytes.  See bytes.h.
 *
 * Waiting is by polling, not F_OFD_SETLKW: that one has no timeout, is a cancellation point, and a signal used to end
 * it would have to be somebody's.  A poll costs about a microsecond and sleeps grow from 50 us to 5 ms, so a waiter
 * burns less than a thousandth of a core and is at most 5 ms late.
 *
 * The kernel is the only writer of this state, so there is no step at which a crash leaves anything: the lock is
 * gone with the last descriptor of the open file description.
 *
 * Ordering: there is no word of memory here.  The kernel's record locks of a file are taken and dropped under one spin
 * lock of its own, so whoever gets a byte sees what its last holder stored before it dropped it: the lock unit is
 * formatted under the gate with plain stores, and the next opener reads it under the gate.  Where words are read beside
 * a byte that somebody else may hold (presence.c), they are atomic and the file says in which order.  A look
 * (lock_byte_taken) orders nothing.
 */
#include "lock/bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/deadline.h"
#include "base/error.h"
#include "lock/futex.h"

#define POLL_FIRST_NS 50000
#define POLL_LAST_NS 5000000

static struct flock byte_range(unsigned first, unsigned count, short type)
{
    struct flock range;
    memset(&range, 0, sizeof range); /* l_pid must be 0 for OFD locks */
    range.l_type = type;
    range.l_whence = SEEK_SET;
    range.l_start = LOCK_BYTES_START + (off_t)first;
    range.l_len = (off_t)count;
    return range;
}

/* 0, EBUSY, or errno with a sentence. */
static int byte_set(int fd, unsigned byte, short type)
{
    struct flock range = byte_range(byte, 1, type);
    int saved = errno;
    for (;;) {
        if (fcntl(fd, F_OFD_SETLK, &range) == 0) {
            errno = saved;
            return 0;
        }
        int code = errno;
        if (code == EINTR)
            continue;
        errno = saved;
        if (code == EAGAIN || code == EACCES)
            return EBUSY;
        return error_set(code, "the kernel refused a lock on byte %u beyond the store's data (descriptor %d): %s", byte,
                         fd, error_text(code));
    }
}

int lock_byte_take(int fd, unsigned byte, enum lock_byte_mode mode, int64_t deadline_ns)
{
    short type = mode == LOCK_BYTE_WRITE ? F_WRLCK : F_RDLCK;
    int64_t pause = POLL_FIRST_NS;
    for (;;) {
        /* The clock first: who is kept from running past its deadline has looked once more before it gives up. */
        int64_t left = INT64_MAX;
        if (deadline_ns != 0 && deadline_ns != DEADLINE_NEVER)
            left = deadline_ns - clock_ns();
        int rc = byte_set(fd, byte, type);
        if (rc != EBUSY || deadline_ns == 0)
            return rc;
        if (left <= 0)
            return ETIMEDOUT;
        sleep_ns(pause < left ? pause : left);
        pause = pause * 2 < POLL_LAST_NS ? pause * 2 : POLL_LAST_NS;
    }
}

int lock_byte_drop(int fd, unsigned byte)
{
    return byte_set(fd, byte, F_UNLCK);
}

static bool stopped(int fd, unsigned first_byte, unsigned count, short type)
{
    struct flock range = byte_range(first_byte, count, type);
    int saved = errno;
    int r;
    do
        r = fcntl(fd, F_OFD_GETLK, &range);
    while (r != 0 && errno == EINTR);
    errno = saved;
    /* A kernel that cannot answer must not make anybody dead: unknown counts as taken. */
    return r != 0 || range.l_type != F_UNLCK;
}

bool lock_byte_taken(int fd, unsigned first_byte, unsigned count)
{
    return stopped(fd, first_byte, count, F_WRLCK);
}

bool lock_byte_owned(int fd, unsigned byte)
{
    return stopped(fd, byte, 1, F_RDLCK);
}
