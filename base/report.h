/*
 * report.h -- what checkers found.  A checker reports instead of asserting, so that it works in release builds
 * and on damaged files: range-check before every read, bound every loop, write nothing.
 */
#ifndef STEAD_BASE_REPORT_H
#define STEAD_BASE_REPORT_H

#include <stdint.h>

#define REPORT_TEXT_BYTES 256

struct report {
    uint64_t pages;    /* 4 KiB pages looked at            */
    uint64_t blocks;   /* heap blocks looked at            */
    uint64_t problems; /* found; only the first has a text */
    char first[REPORT_TEXT_BYTES];
};

/* One broken invariant: its id in docs/invariants.md ("A3"), the offset it concerns, and what is wrong. */
void report_problem(struct report *report, const char *invariant, uint64_t offset, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#endif
