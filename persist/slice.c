/*
 * slice.c -- a checkpoint paid for in small pieces, by the commits of the time before it.
 *
 * Bringing home what a log of 64 MiB names, and syncing the file, takes from tenths of a second to seconds: nobody's commit
 * should wait for it.  So commits ask what is due (txn_work_due) and do a piece of it when they are done themselves:
 *
 *      log   0 ................................ 3/4 ............... limit
 *            overlay above its limit: apply      apply until few pages are left, then sync until few are,
 *            a slice                             then the checkpoint proper (apply.c), which finds little to do
 *
 * The same is due from any length of the log on once many pages were written straight into the file: each of them would be
 * logged whole when it is changed (W27), and the checkpoint, which costs less than they did, ends that.  Not in TURNS: a store
 * that was removed has a last checkpoint in it (wal_file.c), and a section should not be what brings it on.  If that checkpoint
 * fails (a full disk), it is not tried again with each commit: the log's length is what asks for the next one.
 *
 * Where private pages cost every commit all of the overlay may be due at any length of the log (thin.c).
 *
 * A slice is a few times as many pages as the last commit changed (at least SLICE_PAGES; of a very large one, as many:
 * its pages would wait in memory, twice, for a log that small changes do not fill for long), so that slices outrun
 * commits, and each phase leaves a fraction of what the one before left.  If they cannot keep up, or readers hold them
 * off, the log comes to its limit, and the checkpoint does the rest at once, as it always could.  No thread, nothing to
 * fork or to be killed.
 *
 * Applying in slices.  A round takes the pages that are in the overlay at its begin, in ascending order, and each slice
 * writes some of them as they are then (perhaps as of a later commit), with their checksums, and takes them out of the
 * overlay: their base is the file now (W8 holds page by page).  `applied` moves on when the round is through.  In between
 * the file is no commit: some of its pages are newer than `applied`, none newer than file_seq.
 *
 *   a crash in between     recovery from the log, which is whole since `applied` and before: records say bytes, not changes
 *   the next turn (TURNS)  the same: it replays from `applied` on
 *   a reader (follow.c)    its view is the file and the records from `applied` up to the last durable commit, which is
 *                          never before file_seq (W9, and `durable` is told before a slice is written): every page that
 *                          is newer than `applied` is named by those records, and whole in its view.  Slices are written
 *                          under the apply lock: never beside a section.  A reader that cannot have the log is refused
 *                          while file_seq is past `applied` (store/ does not slice once the store lost its name)
 *   a copier               the mark at the end of the file says file_seq before a page is written (T1)
 *
 * Syncing in slices.  Pages written since the last sync are counted by stretches of the image; a slice syncs stretches one
 * after the other.  This promises nothing to anybody: the checkpoint syncs the whole file all the same, and finds it clean.
 * Needs no lock but for the counters.  A failed sync poisons as any other does.
 *
 * Invariants:
 *   W16 no page of the file is newer than file_seq; file_seq <= the last durable commit, and is told (shared.h) before
 *       a page of it is written; pages newer than `applied` are named by records after it
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/deadline.h"
#include "base/error.h"
#include "base/units.h"
#include "persist/txn_internal.h"

#define SLICE_PAGES 64           /* at least: 0.5 ms of application, 1 ms of sync */
#define SLICE_PAGES_MAX 8192     /* or as many as the last commit changed: it took longer than that takes */
#define OUTRUN 4                 /* pages of work for each page of the last commit */
#define STRAIGHT_PAGES_MANY 1024 /* 4 MiB */
#define STRETCH_PAGES 256        /* 1 MiB */
#define SWEEP_STRETCHES 4096     /* synced at once, however few pages are in them */
#define SWEEP_PARTS 8            /* of the file, in as many groups */

static uint64_t slice_pages(const struct txn *txn)
{
    uint64_t last = atomic_load(&txn->seen_last_pages);
    return min_u64(max_u64(SLICE_PAGES, OUTRUN * last), max_u64(SLICE_PAGES_MAX, last));
}

enum image_work txn_work_due(const struct txn *txn)
{
    uint64_t log = atomic_load(&txn->seen_log_end), few = slice_pages(txn) / 2;
    size_t overlay = atomic_load(&txn->seen_overlay);
    if (log >= txn_log_limit_bytes)
        return IMAGE_CHECKPOINT;
    bool loaded = !txn->turns && atomic_load(&txn->seen_straight) >= STRAIGHT_PAGES_MANY;
    if (log >= txn_log_limit_bytes / 4 * 3 || loaded) {
        if (overlay > few)
            return IMAGE_APPLY;
        return atomic_load(&txn->seen_unsynced) > 2 * few ? IMAGE_SYNC : IMAGE_CHECKPOINT;
    }
    if (overlay != 0 && atomic_load(&txn->seen_thin)) /* all of it (thin.c) */
        return IMAGE_APPLY;
    return overlay > limit_overlay(txn) ? IMAGE_APPLY : IMAGE_REST;
}

/* ---- applying ---- */

void slice_forget_round(struct txn *txn)
{
    txn->round.pages.count = txn->round.next = 0;
}

void slice_forget_load(struct txn *txn)
{
    txn->wal.straight_pages = 0;
    atomic_store(&txn->seen_straight, 0);
}

static int begin_round(struct txn *txn)
{
    struct apply_round *round = &txn->round;
    slice_forget_round(txn);
    int rc = overlay_pages(&txn->overlay, &round->pages);
    if (rc != 0)
        return error_set(rc, "no memory to apply commits");
    round->seq = txn->wal.at.next_seq - 1;
    round->at = txn->wal.at;
    round->used_bytes = txn->used_bytes;
    return 0;
}

int slice_announce(struct txn *txn)
{
    int rc = 0;
    uint64_t last = txn->wal.at.next_seq - 1;
#ifndef STEAD_PLANT_APPLY_EARLY
    rc = txn_sync_locked(txn, last);
#endif
    if (rc != 0 || txn->file_seq >= last)
        return rc;
    rc = txn_raise_tail(txn, last);
    if (rc == 0) {
        txn->file_seq = last;
        txn_publish(txn);
    }
    return rc;
}

static int apply_slice(struct txn *txn, size_t pages)
{
    struct apply_round *round = &txn->round;
    int rc = round->next == round->pages.count ? begin_round(txn) : 0;
    if (rc == 0)
        rc = slice_announce(txn);
    if (rc != 0)
        return rc;
    size_t from = round->next, to = min_u64(from + pages, round->pages.count);
    rc = page_list_reserve(&txn->resident, to - from);
    if (rc == 0)
        rc = apply_pages(txn, &round->pages, from, to, apply_from_overlay, &txn->overlay);
    if (rc != 0) /* the log holds it all, the overlay too: the next attempt starts from the same place */
        return error_set(rc, "cannot write committed pages into %s: %s", txn->file->path, error_text(rc));
    unsynced_add(txn, &round->pages, from, to);
    for (size_t i = from; i < to; i++) {
        txn->resident.page[txn->resident.count++] = round->pages.page[i];
        overlay_remove(&txn->overlay, round->pages.page[i]);
    }
    if (txn->overlay.count == 0)
        overlay_clear(&txn->overlay); /* gives back what a large commit took */
    round->next = to;
    if (to == round->pages.count) {
        txn->applied_seq = round->seq;
        txn->applied_at = round->at;
        txn->applied_used_bytes = round->used_bytes;
    }
    txn_publish(txn);
    return 0;
}

/* The rest of a round that is under way, and then a round of what it left. */
static int apply_for_thin(struct txn *txn)
{
    int64_t begun_ns = clock_ns();
    size_t rest = txn->round.pages.count - txn->round.next;
    int rc = rest != 0 ? apply_slice(txn, SLICE_PAGES_MAX) : 0;
    if (rc == 0 && rest <= SLICE_PAGES_MAX && txn->overlay.count != 0)
        rc = apply_slice(txn, SLICE_PAGES_MAX);
    if (rc == 0 && txn->overlay.count == 0)
        thin_applied(txn, begun_ns);
    return rc;
}

int txn_apply_some(struct txn *txn)
{
    pthread_mutex_lock(&txn->engine);
    int rc = txn_refuse_poisoned(txn);
    if (rc == 0)
        rc = atomic_load(&txn->seen_thin) ? apply_for_thin(txn) : apply_slice(txn, (size_t)slice_pages(txn));
    if (rc != 0)
        slice_forget_load(txn);
    pthread_mutex_unlock(&txn->engine);
    return rc;
}

/* ---- syncing ---- */

static bool unsynced_grow(struct unsynced *unsynced, size_t stretches)
{
    uint32_t *grown = realloc(unsynced->of_stretch, stretches * sizeof *grown);
    if (grown == NULL)
        return false;
    memset(grown + unsynced->stretches, 0, (stretches - unsynced->stretches) * sizeof *grown);
    unsynced->of_stretch = grown;
    unsynced->stretches = stretches;
    return true;
}

void unsynced_add(struct txn *txn, const struct page_list *list, size_t from, size_t to)
{
    struct unsynced *unsynced = &txn->unsynced;
    if (from == to)
        return;
    size_t last = (size_t)(list->page[to - 1] / STRETCH_PAGES);
    if (last >= unsynced->stretches && !unsynced_grow(unsynced, last + last / 8 + 1))
        return; /* not counted: the checkpoint syncs them */
    for (size_t i = from; i < to; i++) {
        uint32_t *count = &unsynced->of_stretch[list->page[i] / STRETCH_PAGES];
        if (*count == STRETCH_PAGES) /* some were written twice */
            continue;
        ++*count;
        unsynced->pages++;
    }
    atomic_store(&txn->seen_unsynced, unsynced->pages);
}

void unsynced_clear(struct txn *txn)
{
    if (txn->unsynced.pages != 0)
        memset(txn->unsynced.of_stretch, 0, txn->unsynced.stretches * sizeof txn->unsynced.of_stretch[0]);
    txn->unsynced.pages = 0;
    atomic_store(&txn->seen_unsynced, 0);
}

void slice_release(struct txn *txn)
{
    page_list_free(&txn->round.pages);
    free(txn->unsynced.of_stretch);
}

/* The next stretches that hold about so many pages, within one group of the file: image bytes [*from, *to).  They count as
 * synced from now on: what is written into them meanwhile counts anew.  The number of pages, 0 if there are none. */
static uint64_t take_stretches(struct txn *txn, uint64_t pages, uint64_t *from, uint64_t *to)
{
    struct unsynced *unsynced = &txn->unsynced;
    uint64_t taken = 0;
    size_t first = unsynced->hand;
    if (unsynced->pages == 0)
        return 0;
    do /* ends: one of them holds a page */
        first = first < unsynced->stretches ? first : 0;
    while (unsynced->of_stretch[first] == 0 && ++first != 0);
    *from = first * STRETCH_PAGES * PAGE_BYTES;
    size_t end = first + (size_t)(min_u64(format_contiguous(*from), SWEEP_STRETCHES * STRETCH_PAGES * PAGE_BYTES) /
                                  (STRETCH_PAGES * PAGE_BYTES));
    size_t at = first;
    for (; at < end && at < unsynced->stretches && taken < pages; at++) {
        taken += unsynced->of_stretch[at];
        unsynced->of_stretch[at] = 0;
    }
    *to = at * STRETCH_PAGES * PAGE_BYTES;
    unsynced->hand = at;
    unsynced->pages -= taken;
    atomic_store(&txn->seen_unsynced, unsynced->pages);
    return taken;
}

int txn_sync_some(struct txn *txn)
{
    struct {
        uint64_t from, to;
    } part[SWEEP_PARTS];
    unsigned parts = 0;
    pthread_mutex_lock(&txn->engine);
    int rc = txn_refuse_poisoned(txn);
    for (uint64_t left = slice_pages(txn); rc == 0 && left > 0 && parts < SWEEP_PARTS; parts++) {
        uint64_t taken = take_stretches(txn, left, &part[parts].from, &part[parts].to);
        if (taken == 0)
            break;
        left -= min_u64(left, taken);
    }
    pthread_mutex_unlock(&txn->engine);
    for (unsigned i = 0; i < parts && rc == 0; i++) {
        rc = file_sync_range(txn->file->fd, format_file_offset(part[i].from), part[i].to - part[i].from);
        if (rc != 0)
            rc = txn_poison(txn, rc, "the store file could not be synced");
    }
    return rc;
}
