/*
 * report.h -- what checkers found.  A checker reports instead of asserting, so that it works in release builds
 * and on damaged files: range-check before every read, bound every loop, write nothing.
 */
#ifndef STEAD_BASE_REPORT_H
#define STEAD_BASE_REPORT_H

#include <stdbool.h>
#include <stdint.h>

#define REPORT_TEXT_BYTES 256
#define REPORT_LOOKS_PROBLEMS_MAX 512 /* a look; what comes after them is not believed */

/* What others are changing is looked at several times.  A step of theirs, half done, looks like a problem, but not twice
 * like the same; damage does.  So a problem counts only if every look so far found it, with the same offset and the same
 * words.  (A damaged word that is being changed all the time is found when it comes to rest.) */
struct report_looks {
    unsigned looks; /* begun */
    unsigned counts[2];
    uint64_t problems[2][REPORT_LOOKS_PROBLEMS_MAX]; /* hashes: of the look under way and of the one before */
};

struct report {
    uint64_t pages;    /* 4 KiB pages looked at            */
    uint64_t blocks;   /* heap blocks looked at            */
    uint64_t problems; /* found; only the first has a text */
    char first[REPORT_TEXT_BYTES];
    int unable;                 /* errno: no memory to look at everything; 0: all was looked at */
    struct report_looks *looks; /* or NULL: every problem counts */
};

/* The next look begins, with an empty *report. */
void report_look(struct report *report, struct report_looks *looks);

/* One broken invariant: its id in docs/invariants.d ("A3"), the offset it concerns, and what is wrong. */
void report_problem(struct report *report, const char *invariant, uint64_t offset, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Not damage: the checker could not look (ENOMEM).  Problems that were found count all the same. */
void report_unable(struct report *report, int code);

/* What was found apart, added to *report. */
void report_add(struct report *report, const struct report *found);

#endif
