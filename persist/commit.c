/*
 * commit.c -- turn the pages changed since the last commit into one record of the log, or forget them.
 *
 * Why a redo log: a heap changes a few small places in many pages, and one sequential write plus one sync costs less than
 * syncing those pages.  The image is a private mapping: with a shared one the kernel may write any dirty page home at
 * any time, and only an undo log before each write would be safe.
 *
 *   step                                              a crash right after it leaves
 *   1 collect the pages that may have changed         the last commit
 *   2 after growth the file's end confirmed (tail.c); the last commit: nothing refers to them (used_bytes)
 *     pages past every page the log names: written
 *     into the file, the file synced (fresh.c)
 *   3 the others compared with the last commit,       the last commit
 *     differing runs built into a record
 *   4 the record written (wal.c); for a caller who    process death: the new commit; power loss: old or new
 *     goes on to step 6 it may wait in memory         (waiting: the last commit)
 *   5 overlay takes the new pages                     the same
 *   6 txn_sync: the log synced                        the new commit
 * A record waits only where its blocks, once reserved, are there to be written; where overwriting allocates again (btrfs, zfs)
 * it is written in step 4, and a full disk found then.  Who commits without going on to step 6 and finds nothing changed may
 * owe that to a record of another thread that waits, or is on its way to the disk: then that one is waited for.
 * Everything that can fail - memory, disk space, the limit - fails before step 4 ends; then the commit did not happen, the
 * memory is as it was, and the pages are remembered for the next attempt.
 *
 * Comparison: compare.c.
 *
 * Pages past the end.  used_bytes grows with the heap.  Pages at or past named_bytes, the longest the image has been
 * since the log was started, are named by no record, so a crash cannot replay an older record over them (W7); many of
 * them at once are written straight into the file.  A few are logged, from zeros, which spares the file's sync.  Growth is
 * anonymous memory until then (fresh.c).
 *
 * The record has the checksum of a page that was written straight, and recovery refuses a file that lacks the page: a plain
 * copy whose copier passed it too early (tail.c).  Once later records have changed bytes of the page, its checksum
 * proves nothing any more, for the file may have them or not.  So the first record that changes it has all of it (W27):
 * then nothing depends on what the file holds there.  In TURNS others may have written pages straight that this process
 * does not know of: all that lie past the length at which the log began are taken for such.  A bulk load is
 * followed by a checkpoint as soon as one can be had cheaply (slice.c), after which the log knows of none.
 *
 * A rollback copies the overlay's pages back and drops the private copies of all others: the file shows through.
 *
 *   W35 when a commit that is not deferred has returned 0, no record is in this process's memory alone, nor behind
 *       one that could not be written (wal_write.c)
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/deadline.h"
#include "base/error.h"
#include "base/units.h"
#include "persist/txn_internal.h"

#define STRAIGHT_PAGES 64   /* as many new pages at once as are worth a sync of the file */
#define DROPS_PER_COMMIT 32 /* at least ... */
#define DROPS_PER_CHANGE 2  /* ... and so many for each page of the commit: they must outrun what is applied */

/* The candidates in three parts: compared, new, past the end of this commit. */
struct parts {
    size_t compared, fresh; /* [0, compared) [compared, fresh) [fresh, count) */
    bool straight;
    size_t changed_pages;
    size_t added;     /* changed ones that the overlay does not have, new ones left out */
    uint64_t idle_ns; /* what comparing pages took that had not changed; 0 where they are few */
};

static size_t first_at_or_past(const struct page_list *list, uint64_t page)
{
    size_t low = 0, high = list->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (list->page[middle] < page)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Room for what is found out about each candidate. */
static int reserve_findings(struct txn *txn)
{
    size_t room = txn->candidates.count;
    if (room <= txn->changed_room)
        return 0;
    bool *changed = realloc(txn->changed, room * sizeof *changed);
    if (changed != NULL)
        txn->changed = changed;
    struct txn_finding *finding = realloc(txn->finding, room * sizeof *finding);
    if (finding != NULL)
        txn->finding = finding;
    if (changed == NULL || finding == NULL)
        return ENOMEM;
    txn->changed_room = room;
    return 0;
}

/* Fills candidates: what the kernel reports and what is left from before. */
static int collect(struct txn *txn)
{
    uint64_t bytes = __atomic_load_n(&txn->map->bytes, __ATOMIC_ACQUIRE);
    txn->candidates.count = 0;
    int rc = page_list_reserve(&txn->candidates, txn->carry.count);
    for (size_t i = 0; i < txn->carry.count && rc == 0; i++)
        txn->candidates.page[txn->candidates.count++] = txn->carry.page[i];
    if (rc == 0)
        rc = dirty_collect_fresh(txn->dirty, bytes, txn->map->fresh_from, &txn->candidates);
    if (rc == 0)
        rc = reserve_findings(txn);
    if (rc != 0)
        return error_set(rc, "cannot find the changed pages: %s", error_text(rc));
    return 0;
}

/* Nothing came of it: the candidates, collected once, are still uncommitted. */
static void remember(struct txn *txn)
{
    page_list_sort(&txn->candidates);
    struct page_list carry = txn->carry;
    txn->carry = txn->candidates;
    txn->candidates = carry;
    txn->candidates.count = 0;
}

static int log_fresh_pages(struct txn *txn, struct parts *parts)
{
    static const uint8_t zeros[PAGE_BYTES] __attribute__((aligned(8)));
    int rc = 0;
    for (size_t i = parts->compared; i < parts->fresh && rc == 0; i++) {
        txn->changed[i] = true;
        txn->finding[i].overlay = NULL;
        parts->changed_pages++;
        rc = wal_add_zeroed(&txn->wal, txn->candidates.page[i] * PAGE_BYTES);
        if (rc == 0)
            rc = compare_log(txn, i, zeros, false);
    }
    return rc;
}

/* The log says what straight pages must look like in the file: recovery refuses a file that lacks them.  Few pages are in the
 * log whole; those in anonymous memory go to the file all the same, which is to be mapped there (fresh.c). */
static int write_fresh_pages(struct txn *txn, struct parts *parts)
{
    if (!parts->straight) {
        size_t anonymous = first_at_or_past(&txn->candidates, txn->map->fresh_from / PAGE_BYTES);
        anonymous = anonymous < parts->compared ? parts->compared : anonymous;
        int rc = log_fresh_pages(txn, parts);
        return rc != 0 || anonymous >= parts->fresh
                   ? rc
                   : fresh_write(txn, &txn->candidates, anonymous, parts->fresh, false);
    }
    parts->changed_pages += parts->fresh - parts->compared;
    return fresh_write(txn, &txn->candidates, parts->compared, parts->fresh, true);
}

/* The file is durably as long as the image of this commit, and the new pages in it are durable. */
static int make_length_durable(struct txn *txn, const struct parts *parts, uint64_t used_bytes)
{
    int rc = 0;
    uint64_t first = parts->straight ? txn->straight_from : 0;
    if (parts->straight || used_bytes > txn->length_synced) {
        uint64_t file_bytes, from, to;
        rc = file_size(txn->file->fd, &file_bytes);
        if (rc == 0 && format_file_bytes(used_bytes) > file_bytes)
            rc = EIO;
        if (rc != 0)
            return error_set(rc, "%s is shorter than its image", txn->file->path);
        to = format_file_bytes(used_bytes);
        from = format_file_bytes(round_down(txn->length_synced, UNIT_BYTES)); /* marks stood from there on (tail.c) */
        if (parts->straight)
            from = min_u64(min_u64(format_file_offset(first * PAGE_BYTES), format_checksum_offset(first * PAGE_BYTES)),
                           from);
        rc = file_sync_range(txn->file->fd, round_down(from, PAGE_BYTES), to - round_down(from, PAGE_BYTES));
        if (rc != 0)
            return txn_poison(txn, rc, "new pages of the store file could not be synced");
        txn->length_synced = format_image_bytes(file_bytes);
    }
    return 0;
}

/* Is the private copy of an applied page what the file has, and nobody in need of it?  What is no candidate was not written
 * since; of the others the first `compared` are known, and settled.  Where nothing is protected all private pages are
 * candidates; else these are the ones in constant use. */
static bool may_drop(const struct txn *txn, uint64_t page, size_t compared, bool pressed)
{
    const struct page_list *list = &txn->candidates;
    size_t i = first_at_or_past(list, page);
    if (i == list->count || list->page[i] != page)
        return true;
    return i < compared && !txn->changed[i] && (pressed || !dirty_protects(txn->dirty));
}

/* Private copies of pages that were applied long ago go back to the file: a few at each commit; under a limit of memory as
 * many as must make way for what the commit adds. */
static void drop_residents(struct txn *txn, size_t compared, size_t added, size_t straight)
{
    struct page_list *resident = &txn->resident;
    size_t kept = resident->count - txn->resident_head, gone = 0;
    size_t limit = thin_asked(txn) ? 0 : limit_residents(txn, added, straight);
    bool pressed = limit < txn->resident_limit;
    size_t drops = max_u64(DROPS_PER_COMMIT, DROPS_PER_CHANGE * txn->last_pages);
    drops = pressed && kept > limit ? kept - limit : drops;
    txn->work.count = 0;
    if (kept <= limit || page_list_reserve(&txn->work, drops) != 0)
        return;
    for (size_t i = 0, looks = pressed ? kept : drops;
         i < looks && gone < drops && txn->resident_head < resident->count; i++) {
        uint64_t page = resident->page[txn->resident_head++];
        bool given = overlay_get(&txn->overlay, page) == NULL && page < txn->map->fresh_from / PAGE_BYTES;
        bool wanted = given && !may_drop(txn, page, compared, pressed);
        if (given && !wanted)
            txn->work.page[txn->work.count++] = page;
        if (wanted && page_list_add(resident, page) != 0)
            break;
        gone += !wanted;
    }
    page_list_sort(&txn->work);
    (void)dirty_drop(txn->dirty, &txn->work);
    if (txn->resident_head > resident->count / 2) {
        memmove(resident->page, resident->page + txn->resident_head,
                (resident->count - txn->resident_head) * sizeof resident->page[0]);
        resident->count -= txn->resident_head;
        txn->resident_head = 0;
    }
}

/* The limit of private memory, once it is known what the commit needs. */
static int make_way(struct txn *txn, const struct parts *parts)
{
    size_t fresh = parts->fresh - parts->compared, straight = parts->straight ? fresh : 0;
    size_t added = parts->added + fresh - straight;
    int rc = limit_admit(txn, added, straight);
    if (rc == 0 && txn->max_private_bytes != 0)
        drop_residents(txn, 0, added, straight); /* not yet settled: no candidate */
    return rc;
}

static int compare(struct txn *txn, struct parts *parts)
{
    bool many = dirty_costs_by_private(txn->dirty) && !dirty_protects(txn->dirty);
    int64_t begun_ns = many ? clock_ns() : 0;
    int rc = compare_candidates(txn, parts->compared, &parts->changed_pages, &parts->added);
    size_t idle = rc == 0 ? parts->compared - parts->changed_pages : 0;
    parts->idle_ns = many && idle != 0 ? (uint64_t)(clock_ns() - begun_ns) * idle / parts->compared : 0;
    return rc;
}

static int build_record(struct txn *txn, struct parts *parts, uint64_t used_bytes)
{
    struct page_list *list = &txn->candidates;
    parts->fresh = first_at_or_past(list, used_bytes / PAGE_BYTES);
    parts->compared = first_at_or_past(list, min_u64(txn->named_bytes, used_bytes) / PAGE_BYTES);
    parts->fresh -= fresh_skip_zeros(txn, list, parts->compared, parts->fresh);
    parts->straight = parts->fresh - parts->compared >= STRAIGHT_PAGES;
    parts->changed_pages = parts->added = 0;
    int rc = overlay_reserve(&txn->overlay, parts->straight ? parts->compared : parts->fresh);
    if (rc == 0) /* what is left from here is remembered without asking for memory */
        rc = page_list_reserve(&txn->carry, list->count);
    if (rc != 0)
        return error_set(rc, "no memory to commit %zu pages", parts->fresh);
    wal_begin(&txn->wal);
    rc = compare(txn, parts);
    if (rc == 0)
        rc = make_way(txn, parts);
    if (rc == 0 && used_bytes != txn->used_bytes)
        rc = txn_need_log(txn);
    if (rc == 0 && used_bytes > txn->length_synced) /* T4: growth since the last commit */
        rc = txn_confirm_length(txn);
    if (rc == 0)
        rc = write_fresh_pages(txn, parts);
    if (rc == 0)
        rc = make_length_durable(txn, parts, used_bytes);
    return rc;
}

/* Candidate i, as it is now, into the overlay: of what is there already, the bytes that changed. */
static void take_page(struct txn *txn, size_t i)
{
    const struct txn_finding *finding = &txn->finding[i];
    const uint64_t page = txn->candidates.page[i];
    const uint8_t *bytes = txn_image_page(txn, page);
    if (finding->overlay != NULL)
        memcpy(finding->overlay + finding->from, bytes + finding->from, (size_t)(finding->to - finding->from));
    else
        memcpy(overlay_put(&txn->overlay, page), bytes, PAGE_BYTES);
}

/* The record exists: memory follows.  Nothing here may fail. */
static void take_over(struct txn *txn, const struct parts *parts, uint64_t used_bytes)
{
    size_t logged = parts->straight ? parts->compared : parts->fresh;
    for (size_t i = 0; i < logged; i++)
        if (txn->changed[i])
            take_page(txn, i);
    txn->last_pages = parts->changed_pages - (parts->straight ? parts->fresh - parts->compared : 0);
    txn->used_bytes = used_bytes;
    txn->named_bytes = max_u64(txn->named_bytes, used_bytes);
    txn_publish(txn);
}

/* TURNS: a page that was written and holds what it held before (a bit set and cleared again) is private all the same, and in
 * no list that drop_everything() goes by: another process's commit would never show through it.  It goes at once. */
static void drop_unchanged(struct txn *txn, const struct page_list *list)
{
    txn->work.count = 0;
    if (page_list_reserve(&txn->work, list->count) != 0) {
        txn->drop_all = true;
        return;
    }
    for (size_t i = 0; i < list->count; i++)
        if (!txn->changed[i] && overlay_get(&txn->overlay, list->page[i]) == NULL)
            txn->work.page[txn->work.count++] = list->page[i];
    if (dirty_drop(txn->dirty, &txn->work) != 0 || dirty_leaves_private(txn->dirty))
        txn->drop_all = true;
}

/* Which pages are watched how from now on. */
static void settle(struct txn *txn, const struct parts *parts, bool deferred)
{
    struct page_list *list = &txn->candidates;
    /* What was anonymous shows the file when this is done, or stays a candidate, or is written again: none wants watching. */
    size_t mapped = first_at_or_past(list, txn->map->fresh_from / PAGE_BYTES);
    mapped = mapped < parts->fresh ? mapped : parts->fresh;
    size_t logged = parts->straight && parts->compared < mapped ? parts->compared : mapped;
    (void)fresh_clear(txn, txn->used_bytes / PAGE_BYTES); /* on failure the store has failed */
    fresh_carry(txn, list, parts->fresh);
    fresh_committed(txn, list, mapped, parts->compared);
    if (logged < mapped) {
        struct page_list straight = {.page = list->page + logged, .count = mapped - logged};
        (void)dirty_drop(txn->dirty, &straight); /* on failure still private, and found by the scan that follows */
    }
    size_t count = list->count;
    list->count = logged;
    (void)dirty_settle(txn->dirty, list, txn->changed); /* on failure the next collect scans */
    if (txn->turns)
        drop_unchanged(txn, list);
    int64_t begun_ns = thin_asked(txn) ? clock_ns() : 0;
    drop_residents(txn, logged, 0, 0);
    list->count = count;
    if (thin_asked(txn)) {
        dirty_thin(txn->dirty, min_u64(txn->map->fresh_from, __atomic_load_n(&txn->map->bytes, __ATOMIC_ACQUIRE)));
        thin_done(txn, begun_ns);
    } else {
        thin_note(txn, parts->idle_ns, deferred);
    }
}

/* TURNS: should this process be killed, the next one with the turn clears away what it wrote (txn_turn.c). */
static void set_unfinished(const struct txn *txn, bool unfinished)
{
    if (txn->turns && txn->shared != NULL)
        shared_set_unfinished(txn->shared, unfinished);
}

static int write_record(struct txn *txn, uint64_t used_bytes, bool deferred)
{
    int rc = deferred ? wal_finish_deferred(&txn->wal, used_bytes, txn_durable_end(txn))
                      : wal_finish(&txn->wal, used_bytes, txn_durable_end(txn));
    if (rc == 0)
        txn->waiting_seq = deferred ? txn->wal.at.next_seq - 1 : 0;
    return rc != STEAD_FAILED ? rc
                              : txn_poison(txn, EIO, "the log could not be written, nor the failed record taken back");
}

/* W35: nothing changed since the last commit, but that was perhaps another thread's, who has not come to its sync. */
static int await_record(struct txn *txn)
{
    int rc = txn->waiting_seq != 0 ? txn_sync_locked(txn, txn->waiting_seq) : 0;
    if (rc == 0)
        txn->waiting_seq = 0;
    return rc;
}

static int commit_locked(struct txn *txn, uint64_t used_bytes, bool deferred)
{
    struct parts parts;
    int rc = txn_refuse_poisoned(txn);
    if (rc != 0)
        return rc;
    if (used_bytes % UNIT_BYTES != 0 || used_bytes == 0 || used_bytes > txn->map->bytes || txn->stale)
        return error_set(EINVAL, "a commit of %llu bytes, which are not mapped", (unsigned long long)used_bytes);
    set_unfinished(txn, true);
    rc = collect(txn);
    if (rc == 0)
        rc = build_record(txn, &parts, used_bytes);
    bool nothing = rc == 0 && wal_is_empty(&txn->wal) && used_bytes == txn->used_bytes;
    txn->untouched = txn->untouched && nothing;
    if (rc == 0 && !nothing) {
        rc = write_record(txn, used_bytes, deferred);
        if (rc == 0)
            take_over(txn, &parts, used_bytes);
    } else if (rc == 0 && !deferred) {
        rc = await_record(txn);
    }
    if (rc == 0)
        settle(txn, &parts, deferred);
    else
        remember(txn);
    if (rc != STEAD_FAILED && txn->straight_to == 0) /* else a rollback or a later commit clears them */
        set_unfinished(txn, false);
    return rc;
}

static int commit(struct txn *txn, uint64_t used_bytes, bool deferred, uint64_t *seq)
{
    pthread_mutex_lock(&txn->engine);
    int rc = commit_locked(txn, used_bytes, deferred);
    *seq = txn->wal.at.next_seq - 1;
    pthread_mutex_unlock(&txn->engine);
    return rc;
}

int txn_commit(struct txn *txn, uint64_t used_bytes, uint64_t *seq)
{
    return commit(txn, used_bytes, false, seq);
}

int txn_commit_deferred(struct txn *txn, uint64_t used_bytes, uint64_t *seq)
{
    /* TURNS: the words tell of it: it must be there */
    return commit(txn, used_bytes, !txn->turns && !txn->at_once, seq);
}

int txn_rollback_locked(struct txn *txn)
{
    uint64_t fresh_page = txn->map->fresh_from / PAGE_BYTES;
    int rc = collect(txn);
    if (rc == 0)
        rc = fresh_rollback(txn);
    if (rc == 0) {
        txn->work.count = 0;
        rc = page_list_reserve(&txn->work, txn->candidates.count);
    }
    if (rc != 0) {
        remember(txn);
        return rc;
    }
    /* In place: candidates keeps the pages that have an overlay, work takes the others. */
    size_t kept = 0;
    for (size_t i = 0; i < txn->candidates.count; i++) {
        uint64_t page = txn->candidates.page[i];
        const uint8_t *base = overlay_get(&txn->overlay, page);
        if (base == NULL) {
            if (page < fresh_page)
                txn->work.page[txn->work.count++] = page;
            continue;
        }
        if (memcmp(txn_image_page(txn, page), base, PAGE_BYTES) != 0)
            memcpy(txn_image_page(txn, page), base, PAGE_BYTES);
        txn->changed[kept] = false;
        txn->candidates.page[kept++] = page;
    }
    txn->candidates.count = kept;
    txn->carry.count = 0;
    rc = dirty_drop(txn->dirty, &txn->work);
    if (rc != 0)
        return error_set(rc, "cannot drop the private pages: %s", error_text(rc));
    txn->drop_all = txn->drop_all || (txn->turns && dirty_leaves_private(txn->dirty));
    (void)dirty_settle(txn->dirty, &txn->candidates, txn->changed);
    bool cleared = txn->straight_to != 0;
    rc = fresh_clear(txn, 0);
    if (rc == 0 && cleared) /* what is not this process's stays marked */
        set_unfinished(txn, false);
    return rc;
}

int txn_rollback(struct txn *txn)
{
    pthread_mutex_lock(&txn->engine);
    int rc = txn_rollback_locked(txn);
    pthread_mutex_unlock(&txn->engine);
    return rc;
}

/* As a commit finds out, but for its record, which the next one begins anew; what was collected stays a candidate.  Where the
 * length is that of the last commit no page below it is new (named_bytes). */
static int changed_locked(struct txn *txn, uint64_t used_bytes, bool *changed)
{
    size_t changed_pages = 0, added = 0;
    *changed = used_bytes != txn->used_bytes;
    if (*changed)
        return 0;
    int rc = collect(txn);
    if (rc == 0) {
        wal_begin(&txn->wal);
        rc = compare_candidates(txn, first_at_or_past(&txn->candidates, used_bytes / PAGE_BYTES), &changed_pages,
                                &added);
    }
    *changed = changed_pages != 0;
    remember(txn);
    return rc;
}

int txn_changed(struct txn *txn, uint64_t used_bytes, bool *changed)
{
    pthread_mutex_lock(&txn->engine);
    int rc = changed_locked(txn, used_bytes, changed);
    pthread_mutex_unlock(&txn->engine);
    return rc;
}
