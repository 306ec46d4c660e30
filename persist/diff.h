/*
 * diff.h -- which 8-byte words of a page differ from its base, as runs.
 */
#ifndef STEAD_PERSIST_DIFF_H
#define STEAD_PERSIST_DIFF_H

#include <stddef.h>
#include <stdint.h>

#define DIFF_WORD 8
/* Runs closer than this many equal bytes are one: a run costs an 8-byte word of its own in the log. */
#define DIFF_MERGE_BYTES 16
#define DIFF_MAX_RUNS 172 /* of one page: 8 changed + at least 16 equal bytes each, rounded up */

struct diff_run {
    uint16_t offset, bytes; /* multiples of DIFF_WORD, within the page */
};

/* Runs of PAGE_BYTES at `page` that differ from `base` (both 8-byte aligned); returns how many, 0 = equal. */
size_t diff_page(const void *page, const void *base, struct diff_run run[DIFF_MAX_RUNS]);

#endif
