/*
 * dirty_sparse.c -- where page tables are scanned, keep them sparse.
 *
 * A scan costs by what is mapped, not by what changed: 2 to 5 ms for each GiB that the program has read, with every commit.
 * Where fault reports are not to be had (a container's usual rules, an ordinary user on many systems) that is the price of a
 * commit.  So ranges that hold no private page are taken out of the page tables (MADV_DONTNEED; their bytes stay in the
 * page cache), and come back with the program's next read, 16 pages a fault.
 *
 * When: that read costs more than a scan of what it brings back, so nothing is taken out before scans have cost as much
 * as SCANS_BEFORE of the last one (rent or buy).  A program that reads all of its store between two commits gains nothing;
 * it shows in the next scan, which costs the same again, and the time until the next attempt doubles.  What is
 * decided here is about time alone: no answer depends on it.
 *
 * A range is taken out only if the page tables just said that no page in it is private.  Nobody writes meanwhile (dirty.h).
 * Piece by piece, so that what was asked and what is done are close together.
 *
 * W29  dirty_sparse_zap() changes no byte of the range, and none of its private pages becomes another (test_dirty_sparse.c,
 *      test_dirty.c: *_where_page_tables_are_kept_sparse)
 */
#include <sys/mman.h>

#include "base/units.h"
#include "persist/dirty_internal.h"

#define CHEAP_NS 20000 /* a scan that costs less is let alone */
#define SCANS_BEFORE 4 /* at first */
#define SCANS_BEFORE_MAX 64
#define GAP_PAGES 64 /* shorter ones are not worth a call */
#define PIECE_BYTES (UINT64_C(64) << 20)

bool dirty_sparse_always;

bool dirty_sparse_due(struct dirty_sparse *sparse, uint64_t scan_ns)
{
    if (dirty_sparse_always)
        return true;
    if (scan_ns < CHEAP_NS) {
        *sparse = (struct dirty_sparse){0};
        return false;
    }
    if (sparse->before == 0)
        sparse->before = SCANS_BEFORE;
    if (sparse->zapped_ns != 0) { /* the first scan after an attempt: was it worth it? */
        bool gained = scan_ns < sparse->zapped_ns / 2;
        sparse->before = gained ? SCANS_BEFORE : (unsigned)min_u64(sparse->before * 2, SCANS_BEFORE_MAX);
        sparse->zapped_ns = 0;
    }
    sparse->spent_ns += scan_ns;
    if (sparse->spent_ns / sparse->before < scan_ns)
        return false;
    sparse->spent_ns = 0;
    sparse->zapped_ns = scan_ns;
    return true;
}

/* Between the private pages (sorted) of [first, end).  Memory that the program locked refuses, and stays. */
static void zap_gaps(uint8_t *base, uint64_t first, uint64_t end, const struct page_list *private_pages)
{
    for (size_t i = 0; i <= private_pages->count; i++) {
        uint64_t next = i < private_pages->count ? private_pages->page[i] : end;
        if (next - first >= GAP_PAGES)
            (void)madvise(base + first * PAGE_BYTES, (size_t)((next - first) * PAGE_BYTES), MADV_DONTNEED);
        first = next + 1;
    }
}

void dirty_sparse_zap(int fd, uint8_t *base, uint64_t bytes)
{
    struct page_list private_pages = {0};
    for (uint64_t at = 0; at < bytes; at += PIECE_BYTES) {
        uint64_t end = min_u64(at + PIECE_BYTES, bytes);
        private_pages.count = 0;
        if (dirty_scan_ioctl(fd, base, at, end, false, false, &private_pages) != 0)
            break;
        zap_gaps(base, at / PAGE_BYTES, end / PAGE_BYTES, &private_pages);
    }
    page_list_free(&private_pages);
}
