/* deadline.h -- timeouts as points on CLOCK_MONOTONIC; the wall clock is never asked how long to wait. */
#ifndef STEAD_BASE_DEADLINE_H
#define STEAD_BASE_DEADLINE_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#define DEADLINE_NEVER INT64_MAX

static inline int64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* timeout_ms as in the public face: 0 = already over, negative = never. */
static inline int64_t deadline_after_ms(int timeout_ms)
{
    return timeout_ms < 0 ? DEADLINE_NEVER : clock_ns() + (int64_t)timeout_ms * 1000000;
}

static inline bool deadline_over(int64_t deadline_ns)
{
    return deadline_ns != DEADLINE_NEVER && clock_ns() >= deadline_ns;
}

#endif
