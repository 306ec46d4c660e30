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
 * Residents make way, also for what was written past the heap's end (`carry`: of blocks that are free again), which is no part of
 * any commit and refuses none.  What waits in the overlay is not the commit's fault: the caller may apply it and try again, if
 * that can help (limit_waits); store/ says who holds it off, if it cannot.  So that commits seldom come to that, slices are due
 * (slice.c) at half of what the overlay may have.
 *
 * How much is worth its memory.
 *   overlay   A page in it that is written again costs its commit no read of the base and no checksum, and its application is
 *             one for all its commits: of random pages of 256 MiB that was half of all there was to do.  More than the least
 *             is brought home when the log is to be emptied, or slices are due, in any case before the log is at its limit.
 *   resident  The next write to such a page costs a fault without a copy; to one that was given back a fault with a copy
 *             and, as the kernel remembers the protection of what was given back, one without.
 * In TURNS all of both goes when the turn passes on, and who waits for it waits for that; without protection each private
 * page is compared at each commit: there the least serves, and, as without fault reports, less than that (thin.c).
 * "Memory" is what this process may use of it (base/memory.c): in a container of 512 MiB a process that took the machine's
 * parts would be killed for its caches.  There even the least is too much, and both together, pages that wait counted
 * twice, take an eighth.
 *
 * Invariants:
 *   W30 residents and twice the overlay's limit take an eighth of the memory and 3 MiB at most (test_limit.c)
 *   W28 after a commit 2 * overlay <= max_private_bytes, if there is such a limit, and with carry + resident, too, or no page is
 *       resident
 */
#include "base/error.h"
#include "base/memory.h"
#include "base/units.h"
#include "persist/txn_internal.h"

#define RESIDENT_LEAST_PAGES 16384 /* 64 MiB */
#define RESIDENT_MEMORY_PART 64    /* of the memory ... */
#define RESIDENT_LEAST_PART 16     /* ... and the least is not more than this part */
#define OVERLAY_LEAST_PAGES 8192   /* 32 MiB */
#define OVERLAY_MEMORY_PART 128
#define OVERLAY_LEAST_PART 32
#define SMALL_PAGES 256  /* 1 MiB: with less there would be a slice at every commit */
#define MOST_PAGES 65536 /* 256 MiB, of each */

size_t txn_overlay_limit_pages, txn_resident_limit_pages;

size_t limit_part(uint64_t memory_bytes, uint64_t part, uint64_t least, uint64_t least_part)
{
    uint64_t pages = memory_bytes / PAGE_BYTES;
    least = max_u64(min_u64(least, pages / least_part), SMALL_PAGES);
    return (size_t)max_u64(part == 0 ? 0 : min_u64(pages / part, MOST_PAGES), least);
}

void limit_open(struct txn *txn)
{
    uint64_t memory = memory_limit_bytes();
    bool generous = !txn->turns && dirty_protects(txn->dirty);
    txn->resident_limit = txn_resident_limit_pages != 0 ? txn_resident_limit_pages
                                                        : limit_part(memory, generous ? RESIDENT_MEMORY_PART : 0,
                                                                     RESIDENT_LEAST_PAGES, RESIDENT_LEAST_PART);
    txn->overlay_limit = txn_overlay_limit_pages != 0 ? txn_overlay_limit_pages
                                                      : limit_part(memory, generous ? OVERLAY_MEMORY_PART : 0,
                                                                   OVERLAY_LEAST_PAGES, OVERLAY_LEAST_PART);
}

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
    uint64_t most = txn->max_private_bytes / PAGE_BYTES;
    uint64_t pinned = pinned_pages(txn, more, straight) + txn->carry.count;
    if (txn->max_private_bytes == 0)
        return txn->resident_limit;
    return (size_t)min_u64(txn->resident_limit, pinned < most ? most - pinned : 0);
}

size_t limit_overlay(const struct txn *txn)
{
    uint64_t half = txn->max_private_bytes / PAGE_BYTES / 2 / 2;
    return txn->max_private_bytes == 0 ? txn->overlay_limit : (size_t)min_u64(half, txn->overlay_limit);
}

uint64_t txn_waiting_bytes(const struct txn *txn)
{
    return 2 * (uint64_t)atomic_load(&txn->seen_overlay) * PAGE_BYTES;
}

bool txn_limit_waits(const struct txn *txn)
{
    return txn->limit_waits;
}
