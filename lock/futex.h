/*
 * futex.h -- the three ways this module waits: a futex, a short sleep, a pause of the processor.
 *
 * Raw system calls, so none of them is a cancellation point and none of them can restart with the wrong clock:
 * deadlines are absolute on CLOCK_MONOTONIC.
 */
#ifndef STEAD_LOCK_FUTEX_H
#define STEAD_LOCK_FUTEX_H

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/deadline.h"

static inline struct timespec futex_timespec(int64_t ns)
{
    struct timespec at = {.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
    return at;
}

/* Sleeps while *word == expected.  0 when woken, else EAGAIN (another value), EINTR, ETIMEDOUT.  Keeps errno. */
static inline int futex_wait(const void *word, uint32_t expected, int64_t deadline_ns, bool process_private)
{
    int saved = errno;
    int operation = FUTEX_WAIT_BITSET | (process_private ? FUTEX_PRIVATE_FLAG : 0);
    struct timespec at = futex_timespec(deadline_ns < 0 ? 0 : deadline_ns);
    long r = syscall(SYS_futex, word, operation, expected, deadline_ns == DEADLINE_NEVER ? NULL : &at, NULL,
                     FUTEX_BITSET_MATCH_ANY);
    int rc = r == 0 ? 0 : errno;
    errno = saved;
    return rc;
}

/* Wakes up to count sleepers, the longest sleeping first; returns how many. */
static inline int futex_wake(const void *word, int count, bool process_private)
{
    int saved = errno;
    int operation = FUTEX_WAKE | (process_private ? FUTEX_PRIVATE_FLAG : 0);
    long r = syscall(SYS_futex, word, operation, count, NULL, NULL, 0);
    errno = saved;
    return r < 0 ? 0 : (int)r;
}

/* Sleeps for about ns; a signal may cut it short. */
static inline void sleep_ns(int64_t ns)
{
    int saved = errno;
    struct timespec length = futex_timespec(ns);
    (void)syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &length, NULL);
    errno = saved;
}

static inline void cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("isb" ::: "memory");
#else
    __asm__ __volatile__("" ::: "memory");
#endif
}

#endif
