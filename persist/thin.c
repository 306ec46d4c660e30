/*
 * thin.c -- few private pages, where each of them costs every commit.
 *
 * With fault reports a commit costs by what changed, and private pages are kept for their next write (limit.c).  Without them
 * it costs by what is private and mapped: the page tables are scanned, 1 us for each populated 2 MiB and 20 ns more for each
 * private page in them, and where nothing can be protected every private page is compared as well.  A program that changes
 * random pages would soon have them everywhere, and each commit pay for all.  A page need not be private once it is in
 * the file.  So now and then everything goes home:
 *
 *      commit n       costs too much: asked for (due)
 *      after it       the store does what is due (slice.c): log synced, pages of the overlay written into the file
 *      commit n + 1   what was applied and not written again is dropped, and what is not private leaves the page tables
 *
 * A crash anywhere in between is one in an application, or in a commit; nothing here writes a byte.
 *
 * When.  Rent or buy: going home costs a sync of the log, the application, and a fault with a copy for each page that is
 * written again.  It is due when what commits have cost in this way since the last time has come to what it took that time (or
 * to PAGE_NS for each page that waits), so it never costs more than what it saves, whatever the disk: on one that syncs in
 * 0.1 ms after some ten commits of random pages, on one that takes 10 ms after hundreds.  A cost below CHEAP_NS is let alone.
 * If the commit after next costs more than half of what the one before did - the program reads all of its store between
 * two commits, or a reader holds application off - it gained nothing, and the time until the next attempt doubles.  What is
 * decided here is about time alone: no answer depends on it.
 */
#include "base/deadline.h"
#include "base/units.h"
#include "persist/txn_internal.h"

#define CHEAP_NS 10000
#define COMMITS_BEFORE 4 /* at least so many as dear as the last one */
#define COMMITS_BEFORE_MAX 64
#define PAGE_NS 2000 /* what a page at least takes to go home and come back */

enum thin_when thin_when;

bool thin_due(struct thin *thin, uint64_t cost_ns, uint64_t waiting_pages)
{
    if (thin->before == 0)
        thin->before = COMMITS_BEFORE;
    if (thin->cost_ns != 0) { /* the first commit after an attempt: was it worth it? */
        bool gained = cost_ns < thin->cost_ns / 2;
        thin->before = gained ? COMMITS_BEFORE : (unsigned)min_u64(thin->before * 2, COMMITS_BEFORE_MAX);
        thin->cost_ns = 0;
    }
    if (thin_when != THIN_WHEN_DUE)
        return thin_when == THIN_ALWAYS;
    if (cost_ns < CHEAP_NS)
        return false;
    thin->spent_ns += cost_ns;
    if (thin->spent_ns < max_u64(thin->before * cost_ns, max_u64(thin->price_ns, waiting_pages * PAGE_NS)))
        return false;
    thin->spent_ns = 0;
    thin->asked_cost_ns = cost_ns;
    return true;
}

/* Half of it is new: one slow sync is not taken for the rule. */
void thin_paid(struct thin *thin, uint64_t ns)
{
    thin->price_ns = thin->price_ns / 2 + ns / 2;
}

void thin_note(struct txn *txn, uint64_t compare_ns, bool deferred)
{
    struct thin *thin = &txn->thin;
    if (!dirty_costs_by_private(txn->dirty))
        return;
    uint64_t cost_ns = dirty_cost_ns(txn->dirty) + (dirty_protects(txn->dirty) ? 0 : compare_ns);
    if (thin->asked || !thin_due(thin, cost_ns, txn->overlay.count))
        return;
    thin->asked = true;
    thin->asked_ns = deferred ? 0 : clock_ns(); /* the sync of a deferred commit is the program's */
    thin->asked_seq = txn->wal.at.next_seq;
    atomic_store(&txn->seen_thin, true);
}

void thin_applied(struct txn *txn, int64_t begun_ns)
{
    struct thin *thin = &txn->thin;
    if (!thin->asked)
        return;
    thin->home_ns = 0;
    if (thin->asked_seq == txn->wal.at.next_seq) /* at once: nobody held it off */
        thin->home_ns = (uint64_t)(clock_ns() - (thin->asked_ns != 0 ? thin->asked_ns : begun_ns));
    atomic_store(&txn->seen_thin, false);
}

bool thin_asked(const struct txn *txn)
{
    return txn->thin.asked;
}

void thin_done(struct txn *txn, int64_t begun_ns)
{
    struct thin *thin = &txn->thin;
    thin_paid(thin, thin->home_ns + (uint64_t)(clock_ns() - begun_ns));
    thin->cost_ns = thin->asked_cost_ns;
    thin->home_ns = 0;
    thin->asked = false;
    atomic_store(&txn->seen_thin, false);
}
