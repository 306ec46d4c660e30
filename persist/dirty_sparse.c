/*
 * dirty_sparse.c -- where page tables are scanned, keep them sparse.
 *
 * A scan costs by what is mapped, not by what changed: 2 to 5 ms for each GiB that the program has read, with every commit.
 * Where fault reports are not to be had (a container's usual rules, an ordinary user on many systems) that is the price of a
 * commit.  So ranges that hold no private page are taken out of the page tables (MADV_DONTNEED; their bytes stay in the
 * page cache), and come back with the program's next read, 16 pages a fault.  When that is worth it: thin.c.  No answer
 * depends on it.
 *
 * A kernel that takes page tables away with their last entry (Linux 6.14, CONFIG_PT_RECLAIM) does so only where a call names
 * all that one covers; so a gap is one call, however long.  On others an empty table costs the scan about 1 us ever after.
 *
 * A range is taken out only if the page tables just said that no page in it is private.  Nobody writes meanwhile (dirty.h).
 *
 * W29  dirty_sparse_zap() changes no byte of the range, and none of its private pages becomes another (test_dirty_sparse.c,
 *      test_dirty.c: *_where_page_tables_are_kept_sparse)
 */
#include <sys/mman.h>

#include "base/units.h"
#include "persist/dirty_internal.h"

#define GAP_PAGES 64 /* shorter ones are not worth a call */
#define PIECE_BYTES (UINT64_C(64) << 20)

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

int dirty_sparse_zap(int fd, uint8_t *base, uint64_t bytes, struct page_list *private_pages)
{
    struct page_list here = {0};
    int rc = 0;
    for (uint64_t at = 0; at < bytes && rc == 0; at += PIECE_BYTES) {
        uint64_t end = min_u64(at + PIECE_BYTES, bytes);
        here.count = 0;
        rc = dirty_scan_ioctl(fd, base, at, end, false, false, &here);
        if (rc == 0)
            zap_gaps(base, at / PAGE_BYTES, end / PAGE_BYTES, &here);
        for (size_t i = 0; i < here.count && rc == 0; i++)
            rc = page_list_add(private_pages, here.page[i]);
    }
    page_list_free(&here);
    return rc;
}
