/*
 * dirty.h -- which pages of a private mapping may have been written since they were last looked at.
 *
 * One small interface, several ways to know; the same tests run on each (test_dirty.c):
 *
 *   DIRTY_FAULTS   every page fault of this process reported by the kernel's software events, pages that stay private
 *                  write-protected by userfaultfd so that the next write faults again: cost per change, whatever the
 *                  size of the store
 *   DIRTY_SCAN     PAGEMAP_SCAN (Linux 6.7): all page tables that are populated, 1-11 us each; they are kept sparse
 *   DIRTY_PAGEMAP  bits of /proc/self/pagemap: all pages of the range, 10 ns each
 *                  (both: nothing, where the process had no fault since the last scan)
 *   DIRTY_COMPARE  every page is a candidate: the diff reads them all
 *
 * One that stops working becomes DIRTY_COMPARE.
 *
 * All of them see the kernel's own writes (read(2), recv, io_uring into a block).  All answers are supersets: "may have
 * been written"; the diff against the committed page decides.
 *
 * Threads: the caller is exclusive in every call, and no other thread writes to the range meanwhile (image.h).
 */
#ifndef STEAD_PERSIST_DIRTY_H
#define STEAD_PERSIST_DIRTY_H

#include <stdbool.h>
#include <stdint.h>

#include "persist/page_list.h"

enum dirty_kind { DIRTY_BEST, DIRTY_FAULTS, DIRTY_SCAN, DIRTY_PAGEMAP, DIRTY_COMPARE };

struct dirty;

/* DIRTY_BEST: the first that works here.  ENOTSUP: this kind does not; ENOMEM. */
int dirty_open(struct dirty **out, uint8_t *base, enum dirty_kind kind);
void dirty_close(struct dirty *dirty);
void dirty_forget(struct dirty *dirty); /* in a fork child, where neither the range nor the reports are mapped */
enum dirty_kind dirty_kind(const struct dirty *dirty);

/*
 * Adds to list every page of [base, base + bytes) that may have been written since dirty_settle() or dirty_drop() had
 * it, sorted with what is there already.  bytes: all that is mapped now, so that nobody can have written past it.
 * Pages it reported and that were neither settled nor dropped may be missing from the next answer: they are the
 * caller's to remember.
 */
int dirty_collect(struct dirty *dirty, uint64_t bytes, struct page_list *list);
/*
 * The same where [fresh_from, bytes) is anonymous memory (map.h): of it every page that is there is added, once any was
 * touched.  No dirty_settle() or dirty_drop() of these pages.
 */
int dirty_collect_fresh(struct dirty *dirty, uint64_t bytes, uint64_t fresh_from, struct page_list *list);
/* [from, to) was mapped anew: nothing of it is private, nothing protected. */
void dirty_remapped(struct dirty *dirty, uint64_t from, uint64_t to);

/* The pages' content is known to the caller now and they stay mapped: report one again only if it is written again.
 * changed[i]: it differed from what was known before (the pages worth watching closely).  Sorted. */
int dirty_settle(struct dirty *dirty, const struct page_list *pages, const bool *changed);

/* Drops the private copies of the pages (sorted): the range shows the file again.  Where the kernel's pages are larger than
 * ours, one that holds other pages too cannot be dropped: its pages get the file's bytes and stay private. */
int dirty_drop(struct dirty *dirty, const struct page_list *pages);
/* [base, base + bytes), all that is mapped, shows the file, whatever was private there. */
int dirty_drop_all(struct dirty *dirty, uint64_t bytes);
/* What of the last collect's time grows with the number of private pages and of page tables; 0: nothing. */
uint64_t dirty_cost_ns(const struct dirty *dirty);
/* Does a private page cost every collect, or the comparison that follows, as long as it is private? */
bool dirty_costs_by_private(const struct dirty *dirty);
/* What is mapped of [base, base + bytes), which maps a file, and not private leaves the page tables: costs less from now on. */
void dirty_thin(struct dirty *dirty, uint64_t bytes);
/* Are private pages that nobody writes no candidates, once they are settled? */
bool dirty_protects(const struct dirty *dirty);
/* May dirty_drop() leave pages private? */
bool dirty_leaves_private(const struct dirty *dirty);
/* The file under the range, for that. */
void dirty_set_file(struct dirty *dirty, int fd);

/* Bytes of a kernel page; 0: as the system says.  A variable so that a test finds itself on a kernel with larger ones. */
extern uint64_t dirty_kernel_page_bytes;

/* How many full scans were needed because the fault reports were incomplete (tests, statistics). */
uint64_t dirty_scans(const struct dirty *dirty);

#endif
