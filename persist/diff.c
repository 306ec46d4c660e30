/*
 * diff.c -- see diff.h.
 *
 * The common page is equal but for one place, so equal stretches are skipped 128 bytes at a time by exclusive-or of
 * vectors, and only a stretch that differs is looked at word by word.
 */
#include "persist/diff.h"

#include <stdbool.h>
#include <string.h>

#include "base/units.h"

#define STEP_BYTES 128

typedef uint64_t vector __attribute__((vector_size(16), aligned(1), may_alias)); /* what every x86-64 and arm64 has */

static uint64_t word_at(const uint8_t *bytes, size_t offset)
{
    uint64_t word;
    memcpy(&word, bytes + offset, sizeof word);
    return word;
}

static bool step_is_equal(const uint8_t *page, const uint8_t *base)
{
    const vector *a = (const vector *)page, *b = (const vector *)base;
    vector difference = ((a[0] ^ b[0]) | (a[1] ^ b[1])) | ((a[2] ^ b[2]) | (a[3] ^ b[3])) |
                        (((a[4] ^ b[4]) | (a[5] ^ b[5])) | ((a[6] ^ b[6]) | (a[7] ^ b[7])));
    return (difference[0] | difference[1]) == 0;
}

/* The first differing word at or after offset, or PAGE_BYTES. */
static size_t next_difference(const uint8_t *page, const uint8_t *base, size_t offset)
{
    while (offset % STEP_BYTES != 0) {
        if (word_at(page, offset) != word_at(base, offset))
            return offset;
        offset += DIFF_WORD;
    }
    while (offset < PAGE_BYTES && step_is_equal(page + offset, base + offset))
        offset += STEP_BYTES;
    while (offset < PAGE_BYTES && word_at(page, offset) == word_at(base, offset))
        offset += DIFF_WORD;
    return offset;
}

size_t diff_page(const void *page_at, const void *base_at, struct diff_run run[DIFF_MAX_RUNS])
{
    const uint8_t *page = page_at, *base = base_at;
    size_t count = 0;
    size_t start = next_difference(page, base, 0);
    while (start < PAGE_BYTES) {
        size_t end = start + DIFF_WORD; /* just past the last differing word of this run */
        for (size_t at = end; at < PAGE_BYTES && at - end <= DIFF_MERGE_BYTES; at += DIFF_WORD)
            if (word_at(page, at) != word_at(base, at))
                end = at + DIFF_WORD;
        run[count++] = (struct diff_run){.offset = (uint16_t)start, .bytes = (uint16_t)(end - start)};
        start = next_difference(page, base, end);
    }
    return count;
}
