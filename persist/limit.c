/*
 * limit.c -- how much memory changes pin, and options.max_private_bytes.
 *
 * A page that was changed and committed is in memory twice until it is applied: private in the image, and in the overlay, the
 * base of later comparisons (W8).  Application follows soon, unless somebody holds it off: a reader's section, the end of a
 * backup, a process that was stopped in either.  Then the overlay grows until the log is at its limit; as 64 bytes of
 * log may name a page of their own, that can be all of the store, twice.  Application leaves the private copy for the page's next
 * write (`resident`, commit.c), which may go at any moment.
 *
 *      private_bytes = 2 * overlay + carry + resident                                (txn_stat)
 *
 * A commit that would make it more than the limit is refused before anything of it is written; memory is as it was.  It counts
 * twice what it adds to the overlay, and once what it writes straight into the file, which is there when it is done.
 * Residents make way.  What waits in the overlay is not the commit's fault: the caller may apply it and try again, if
 * that can help (limit_waits); store/ says who holds it off, if it cannot.  So that commits seldom come to that, slices are due
 * (slice.c) at half of what the overlay may have.
 *
 * Invariants:
 *   W28 after a commit 2 * overlay + resident <= max_private_bytes, if there is such a limit
 */
#include "base/error.h"
#include "base/units.h"
#include "persist/txn_internal.h"

static uint64_t pinned_pages(const struct txn *txn, size_t more, size_t straight)
{
    return 2 * ((uint64_t)txn->overlay.count + more) + straight;
}

int limit_admit(struct txn *txn, size_t more, size_t straight)
{
    uint64_t most = txn->max_private_bytes / PAGE_BYTES, alone = 2 * (uint64_t)more + straight;
    txn->limit_waits = false;
    if (txn->max_private_bytes == 0 || pinned_pages(txn, more, straight) <= most)
        return 0;
    if (alone > most)
        return error_set(STEAD_LIMIT,
                         "%s: a commit of %zu changed pages needs %llu bytes of private memory, and the limit is %llu",
                         txn->file->path, more + straight, (unsigned long long)(alone * PAGE_BYTES),
                         (unsigned long long)txn->max_private_bytes);
    txn->limit_waits = true;
    return error_set(
        STEAD_LIMIT,
        "%s: a commit of %zu changed pages needs %llu bytes of private memory beside the %llu of commits that "
        "are not in the file yet, and the limit is %llu",
        txn->file->path, more + straight, (unsigned long long)(alone * PAGE_BYTES),
        (unsigned long long)(2 * (uint64_t)txn->overlay.count * PAGE_BYTES),
        (unsigned long long)txn->max_private_bytes);
}

size_t limit_residents(const struct txn *txn, size_t more, size_t straight)
{
    uint64_t most = txn->max_private_bytes / PAGE_BYTES, pinned = pinned_pages(txn, more, straight);
    if (txn->max_private_bytes == 0)
        return txn->resident_limit;
    return (size_t)min_u64(txn->resident_limit, pinned < most ? most - pinned : 0);
}

size_t limit_overlay(const struct txn *txn)
{
    uint64_t half = txn->max_private_bytes / PAGE_BYTES / 2 / 2;
    return txn->max_private_bytes == 0 ? txn_overlay_limit_pages : (size_t)min_u64(half, txn_overlay_limit_pages);
}

uint64_t txn_waiting_bytes(const struct txn *txn)
{
    return 2 * (uint64_t)atomic_load(&txn->seen_overlay) * PAGE_BYTES;
}

bool txn_limit_waits(const struct txn *txn)
{
    return txn->limit_waits;
}
