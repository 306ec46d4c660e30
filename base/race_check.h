/*
 * race_check.h -- tells ThreadSanitizer about hand-overs that it cannot see.
 *
 * It knows only the atomic operations of its own process that were compiled with it.  Two cases escape it: a lock that
 * went from a thread to another one of the same process through a third process; and an ordinary build of this library
 * in a program that was built with -fsanitize=thread.  In both it would report races where there are none.  The calls
 * are weak: without the tool each costs a load and a branch that is always predicted.
 *
 * `place` is any address that stands for the hand-over; nothing is read or written there.
 */
#ifndef STEAD_BASE_RACE_CHECK_H
#define STEAD_BASE_RACE_CHECK_H

#include <stddef.h>

extern void __tsan_acquire(void *place) __attribute__((weak)); /* names given by the tool */
extern void __tsan_release(void *place) __attribute__((weak));

/* What was written before a race_check_release() of the same place happened before what follows. */
static inline void race_check_acquire(void *place)
{
    if (__builtin_expect(__tsan_acquire != NULL, 0))
        __tsan_acquire(place);
}

static inline void race_check_release(void *place)
{
    if (__builtin_expect(__tsan_release != NULL, 0))
        __tsan_release(place);
}

#endif
