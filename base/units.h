/* units.h -- the two sizes everything is counted in, and rounding. */
#ifndef STEAD_BASE_UNITS_H
#define STEAD_BASE_UNITS_H

#include <stdbool.h>
#include <stdint.h>

#define PAGE_BYTES UINT64_C(4096)  /* what is diffed, logged and checksummed, whatever the kernel's page size is */
#define UNIT_BYTES UINT64_C(65536) /* what is mapped, reserved and punched: a multiple of every kernel page size */

static inline uint64_t round_up(uint64_t n, uint64_t to)
{
    return (n + to - 1) / to * to;
}

static inline uint64_t round_down(uint64_t n, uint64_t to)
{
    return n / to * to;
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

#endif
