/*
 * txn.c -- open and close the transaction engine, the group commit, and the turn.
 *
 * Group commit.  txn_commit() puts a record into the log and returns; txn_sync(seq) returns when it is durable.  One caller
 * at a time syncs, for everything that is in the log at that moment; those who come meanwhile wait and mostly find
 * themselves served, else the next of them leads.  A checkpoint that restarts the log under a running sync makes
 * everything durable in another way; the sync's result is then counted by sequence number only.
 *
 * After a failed sync nobody knows what the disk holds, and asking again may answer "fine" about pages the kernel gave
 * up: the store is poisoned for this process and, through `shared`, for all others.
 *
 * The turn (TURNS).  The log is one, the processes append in turns; who has the turn holds the store's lock exclusively.
 * What the next one must know travels in `shared` (shared.h).  Taking the turn: drop what this process wrote outside
 * a turn; if somebody committed since, sync the log unless it is durable (the one before may have been killed), apply
 * from the log what is not in the file yet, drop all private pages, and continue at the log's end.  A record that the one
 * before appended and did not tell is overwritten: its unlock had not returned.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "base/error.h"
#include "base/units.h"
#include "persist/replay.h"
#include "persist/tail.h"
#include "persist/txn_internal.h"

uint64_t txn_log_limit_bytes = UINT64_C(64) << 20;

int txn_poison(struct txn *txn, int cause, const char *what)
{
    int none = 0;
    atomic_compare_exchange_strong(&txn->failed, &none, cause != 0 ? cause : EIO);
    if (txn->shared != NULL)
        shared_fail(txn->shared);
    return error_set(STEAD_FAILED, "%s: %s (%s); reopen the store to recover it", txn->file->path, what,
                     error_text(cause));
}

int txn_refuse_poisoned(struct txn *txn)
{
    if (!txn_failed(txn))
        return 0;
    return error_set(STEAD_FAILED, "%s: a sync failed earlier (%s); reopen the store to recover it", txn->file->path,
                     error_text(atomic_load(&txn->failed)));
}

bool txn_failed(const struct txn *txn)
{
    return atomic_load(&txn->failed) != 0 || (txn->shared != NULL && shared_has_failed(txn->shared));
}

int txn_raise_tail(struct txn *txn, uint64_t seq)
{
    pthread_mutex_lock(&txn->map->mutex); /* image.c moves it */
    int rc = tail_raise(txn->file->fd, txn->super->id, txn->wal.at.checkpoint, seq);
    pthread_mutex_unlock(&txn->map->mutex);
    return rc == 0 ? 0 : error_set(rc, "cannot write the end of %s: %s", txn->file->path, error_text(rc));
}

uint64_t txn_commit_seq(const struct txn *txn)
{
    return atomic_load(&txn->seen_seq);
}

uint64_t txn_used_bytes(const struct txn *txn)
{
    return atomic_load(&txn->seen_used_bytes);
}

static void share(const struct txn *txn)
{
    struct shared_state state = {.at = txn->wal.at,
                                 .used_bytes = txn->used_bytes,
                                 .named_bytes = txn->named_bytes,
                                 .applied_seq = txn->applied_seq,
                                 .applied_at = txn->applied_at,
                                 .applied_used_bytes = txn->applied_used_bytes,
                                 .file_seq = max_u64(txn->file_seq, txn->applied_seq)};
    shared_write(txn->shared, &state);
}

void txn_publish(struct txn *txn)
{
    uint64_t seq = txn->wal.at.next_seq - 1;
    /* First: whoever syncs from here on may call what the words below say durable, and a neighbour that finds that number
     * must find the record it belongs to told as well. */
    if (txn->shared != NULL)
        share(txn);
    pthread_mutex_lock(&txn->sync);
    if (txn->sync_checkpoint != txn->wal.at.checkpoint) { /* the log began anew: whatever came before is in the file */
        txn->durable_end = WAL_FIRST_RECORD;
        txn->durable_seq = max_u64(txn->durable_seq, txn->applied_seq);
    }
    txn->sync_seq = seq;
    txn->sync_end = txn->wal.at.end;
    txn->sync_checkpoint = txn->wal.at.checkpoint;
    pthread_mutex_unlock(&txn->sync);
    atomic_store(&txn->seen_seq, seq);
    atomic_store(&txn->seen_applied_seq, txn->applied_seq);
    atomic_store(&txn->seen_log_end, txn->wal.at.end);
    atomic_store(&txn->seen_used_bytes, txn->used_bytes);
    atomic_store(&txn->seen_overlay, txn->overlay.count);
    atomic_store(&txn->seen_last_pages, txn->last_pages);
}

/* ---- group commit ---- */

/* Under `sync`: makes the log durable as it is now. */
static int lead_sync(struct txn *txn)
{
    uint64_t seq = txn->sync_seq, end = txn->sync_end, checkpoint = txn->sync_checkpoint;
    txn->syncing = true;
    pthread_mutex_unlock(&txn->sync);
#ifdef STEAD_PLANT_NO_LOG_SYNC
    int rc = 0;
#else
    int rc = file_sync(txn->wal.fd);
#endif
    pthread_mutex_lock(&txn->sync);
    txn->syncing = false;
    if (rc == 0) {
        txn->durable_seq = max_u64(txn->durable_seq, seq);
        if (checkpoint == txn->sync_checkpoint)
            txn->durable_end = max_u64(txn->durable_end, end);
        if (txn->shared != NULL)
            shared_raise_durable_seq(txn->shared, txn->durable_seq);
    } else {
        rc = txn_poison(txn, rc, "the log could not be synced");
    }
    pthread_cond_broadcast(&txn->synced);
    return rc;
}

int txn_sync_locked(struct txn *txn, uint64_t seq)
{
    int rc = 0;
    pthread_mutex_lock(&txn->sync);
    while (rc == 0 && txn->durable_seq < seq) {
        rc = txn_refuse_poisoned(txn);
        if (rc == 0 && txn->syncing)
            pthread_cond_wait(&txn->synced, &txn->sync);
        else if (rc == 0)
            rc = seq > txn->sync_seq
                     ? error_set(EINVAL, "a wait for commit %llu, which does not exist", (unsigned long long)seq)
                     : lead_sync(txn);
    }
    pthread_mutex_unlock(&txn->sync);
    return rc;
}

uint64_t txn_durable_end(struct txn *txn)
{
    pthread_mutex_lock(&txn->sync);
    uint64_t end = txn->durable_end;
    pthread_mutex_unlock(&txn->sync);
    return end;
}

int txn_sync(struct txn *txn, uint64_t seq)
{
    return txn_sync_locked(txn, seq); /* needs no `engine`: commits go on meanwhile */
}

/* ---- taking the turn ---- */

static void follow(struct txn *txn, const struct shared_state *state)
{
    txn->wal.at = state->at;
    txn->used_bytes = state->used_bytes;
    txn->named_bytes = state->named_bytes;
    txn->applied_seq = state->applied_seq;
    txn->applied_at = state->applied_at;
    txn->applied_used_bytes = state->applied_used_bytes;
    txn->file_seq = state->file_seq;
    pthread_mutex_lock(&txn->sync);
    txn->sync_seq = state->at.next_seq - 1;
    txn->sync_end = state->at.end;
    txn->sync_checkpoint = state->at.checkpoint;
    txn->durable_seq = min_u64(max_u64(shared_durable_seq(txn->shared), state->applied_seq), txn->sync_seq);
    /* Behind the last record once that is durable, which the caller sees to before it appends. */
    txn->durable_end = WAL_FIRST_RECORD;
    pthread_mutex_unlock(&txn->sync);
}

/* Private copies of pages as others' commits found them: all of it goes. */
static int drop_everything(struct txn *txn)
{
    txn->work.count = 0;
    int rc = overlay_pages(&txn->overlay, &txn->work);
    if (rc == 0)
        rc = page_list_reserve(&txn->work, txn->resident.count - txn->resident_head);
    if (rc != 0)
        return error_set(rc, "no memory to take the turn");
    for (size_t i = txn->resident_head; i < txn->resident.count; i++)
        txn->work.page[txn->work.count++] = txn->resident.page[i];
    page_list_sort(&txn->work);
    overlay_clear(&txn->overlay);
    slice_forget_round(txn);
    txn->resident.count = txn->resident_head = 0;
    if (txn->drop_all && madvise(txn->map->base, txn->map->bytes, MADV_DONTNEED) == 0)
        txn->drop_all = false;
    rc = txn->drop_all ? ENOMEM : dirty_drop(txn->dirty, &txn->work);
    return rc != 0 ? error_set(rc, "cannot drop the private pages: %s", error_text(rc)) : 0;
}

/* A process was killed in its checkpoint, between the superblock and telling the others: the superblock is right, its log is
 * empty, and all that was told before is in the file. */
static int heed_superblock(const struct txn *txn, struct shared_state *state)
{
    const struct superblock *super = txn->super;
    struct wal_scan scan;
    int fd;
    if (super->state != SUPER_OPEN_LOGGED || super->checkpoint <= state->at.checkpoint)
        return 0;
    int rc = wal_find(&fd, txn->file, true, super->id, super->log_salt, super->checkpoint);
    if (rc != 0)
        return rc;
    rc = wal_scan_open(&scan, fd, super->id, super->log_salt, super->checkpoint, txn->map->capacity);
    if (rc == 0) {
        state->at = state->applied_at = scan.at;
        state->applied_seq = super->commit_seq;
        state->used_bytes = state->named_bytes = state->applied_used_bytes = super->used_bytes;
        wal_scan_close(&scan);
    }
    file_calls.close(fd);
    return rc;
}

/* The log that the words speak of: each checkpoint, whoever made it, began another file. */
static int follow_log(struct txn *txn, const struct wal_position *at)
{
    int fd;
    if (txn->wal.fd >= 0 && txn->wal.at.checkpoint == at->checkpoint && txn->wal.at.salt == at->salt)
        return 0;
    int rc = wal_find(&fd, txn->file, true, txn->super->id, at->salt, at->checkpoint);
    return rc != 0 ? rc : wal_switch(&txn->wal, fd, at);
}

static int catch_up(struct txn *txn, struct shared_state *state)
{
    int rc = superblock_read(txn->file, txn->super); /* a checkpoint in between wrote another one */
    if (rc == 0)
        rc = heed_superblock(txn, state);
    if (rc == 0)
        rc = follow_log(txn, &state->at);
    if (rc != 0)
        return rc;
    follow(txn, state);
    uint64_t last = state->at.next_seq - 1;
    rc = txn_sync_locked(txn, last);
    if (rc == 0 && state->applied_seq < last)
        rc = txn_raise_tail(txn, last);
    if (rc == 0 && state->applied_seq < last) {
        struct wal_scan scan;
        rc = wal_scan_resume(&scan, txn->wal.fd, txn->super->id, &state->applied_at, txn->map->capacity);
        if (rc != 0)
            return rc;
        rc = replay_into_file(&scan, txn->file->fd, last);
        wal_scan_close(&scan);
    }
    if (rc != 0)
        return rc;
    pthread_mutex_lock(&txn->sync);
    txn->durable_end = txn->sync_end;
    pthread_mutex_unlock(&txn->sync);
    txn->applied_seq = last;
    txn->applied_at = txn->wal.at;
    txn->applied_used_bytes = txn->used_bytes;
    rc = drop_everything(txn);
    if (rc == 0)
        txn_publish(txn);
    return rc;
}

int txn_refresh(struct txn *txn, bool *changed)
{
    struct shared_state state;
    *changed = false;
    pthread_mutex_lock(&txn->engine);
    int rc = txn_refuse_poisoned(txn);
    if (rc == 0 && !txn->stale)
        rc = txn_rollback_locked(txn);
    if (rc == 0 && txn->turns && txn->shared != NULL) {
        rc = shared_read(txn->shared, &state);
        if (rc != 0)
            rc = error_set(STEAD_CORRUPT, "%s: the words shared by its processes are damaged", txn->file->path);
        else if (txn->stale || state.at.checkpoint != txn->wal.at.checkpoint ||
                 state.at.next_seq != txn->wal.at.next_seq) {
            *changed = txn->stale || state.at.next_seq != txn->wal.at.next_seq;
            txn->untouched = false;
            rc = catch_up(txn, &state);
            txn->stale = txn->stale && rc != 0;
        }
    }
    pthread_mutex_unlock(&txn->engine);
    return rc;
}

/* ---- open and close ---- */

/* A new, empty log for a sealed file; the superblock that names it last. */
static int start_new_log(struct txn *txn)
{
    struct wal_next next;
    uint64_t salt;
    if (getrandom(&salt, sizeof salt, 0) != (ssize_t)sizeof salt)
        return error_set(EIO, "no random bytes for the log's salt");
    int rc = wal_make(&next, txn->file, true, txn->super->id, salt, txn->super->checkpoint + 1,
                      txn->super->commit_seq + 1, txn->super->used_bytes);
    if (rc != 0)
        return rc;
    struct superblock before = *txn->super;
    txn->super->state = SUPER_OPEN_LOGGED;
    txn->super->log_salt = salt;
    txn->super->checkpoint = next.at.checkpoint;
    rc = superblock_write_both(txn->file, txn->super); /* superblock.c says why both */
    if (rc != 0) {
        *txn->super = before;
        wal_discard(&next);
        return rc;
    }
    return wal_switch(&txn->wal, next.fd, &next.at);
}

/* The log that txn_recover() left: the superblock's, and empty. */
static int continue_log(struct txn *txn)
{
    struct wal_scan scan;
    struct wal_record record;
    int fd;
    int rc = wal_find(&fd, txn->file, true, txn->super->id, txn->super->log_salt, txn->super->checkpoint);
    if (rc != 0)
        return rc;
    rc = wal_scan_open(&scan, fd, txn->super->id, txn->super->log_salt, txn->super->checkpoint,
                       txn->super->capacity_bytes);
    if (rc != 0)
        goto close_log;
    rc = wal_scan_next(&scan, &record);
    wal_scan_close(&scan);
    if (rc == 0)
        rc = error_set(EINVAL, "%s was not recovered before it was opened", txn->file->path);
    if (rc == ENOENT)
        return wal_switch(&txn->wal, fd, &scan.at);
close_log:
    file_calls.close(fd);
    return rc;
}

static int open_log(struct txn *txn, bool first)
{
    int rc = wal_open(&txn->wal, txn->super->id);
    if (rc != 0 || !first) {
        txn->stale = !first; /* the log, and where it ends, is known at the first refresh */
        return rc;
    }
    txn->untouched = txn->super->state == SUPER_SEALED;
    rc = tail_raise(txn->file->fd, txn->super->id, txn->super->checkpoint, txn->super->commit_seq);
    if (rc != 0)
        return error_set(rc, "cannot write the end of %s: %s", txn->file->path, error_text(rc));
    rc = txn->super->state == SUPER_OPEN_LOGGED ? continue_log(txn) : start_new_log(txn);
    if (rc != 0)
        return rc;
    txn->used_bytes = txn->named_bytes = txn->applied_used_bytes = txn->super->used_bytes;
    txn->applied_at = txn->wal.at;
    txn->applied_seq = txn->durable_seq = txn->wal.at.next_seq - 1;
    txn->length_synced = txn->used_bytes;
    if (txn->shared != NULL)
        shared_clear(txn->shared);
    txn_publish(txn);
    if (txn->shared != NULL)
        shared_raise_durable_seq(txn->shared, txn->durable_seq);
    return 0;
}

static void free_txn(struct txn *txn)
{
    overlay_release(&txn->overlay);
    slice_release(txn);
    page_list_free(&txn->candidates);
    page_list_free(&txn->carry);
    page_list_free(&txn->work);
    page_list_free(&txn->resident);
    free(txn->changed);
    free(txn->scratch);
    pthread_cond_destroy(&txn->synced);
    pthread_mutex_destroy(&txn->sync);
    pthread_mutex_destroy(&txn->engine);
    free(txn);
}

int txn_open_with(struct txn **out, struct map *map, const struct file *file, struct superblock *super,
                  const struct image_options *options, enum dirty_kind kind)
{
    *out = NULL;
    struct txn *txn = calloc(1, sizeof *txn);
    if (txn == NULL)
        return error_set(ENOMEM, "no memory to open %s", file->path);
    txn->map = map;
    txn->file = file;
    txn->super = super;
    txn->shared = options->shared;
    txn->max_private_bytes = options->max_private_bytes;
    txn->turns = options->turns;
    txn->wal.fd = -1;
    pthread_mutex_init(&txn->engine, NULL);
    pthread_mutex_init(&txn->sync, NULL);
    pthread_cond_init(&txn->synced, NULL);
    overlay_init(&txn->overlay);
    txn->scratch = aligned_alloc(PAGE_BYTES, SCRATCH_PAGES * PAGE_BYTES);
    int rc = txn->scratch == NULL ? ENOMEM : dirty_open(&txn->dirty, map->base, kind);
    if (rc != 0)
        error_set(rc, "cannot watch the pages of %s: %s", file->path, error_text(rc));
    else
        dirty_set_file(txn->dirty, file->fd);
    if (rc == 0)
        rc = open_log(txn, options->first);
    if (rc != 0) {
        dirty_close(txn->dirty);
        wal_close(&txn->wal);
        free_txn(txn);
        return rc;
    }
    *out = txn;
    return 0;
}

int txn_open(struct txn **out, struct map *map, const struct file *file, struct superblock *super,
             const struct image_options *options)
{
    return txn_open_with(out, map, file, super, options, DIRTY_BEST);
}

void txn_close(struct txn *txn)
{
    if (txn == NULL)
        return;
    dirty_close(txn->dirty);
    wal_close(&txn->wal);
    free_txn(txn);
}

void txn_forget(struct txn *txn)
{
    if (txn == NULL)
        return;
    /* The parent's threads may have held the mutexes at the fork: they are new here, and nobody else is. */
    pthread_mutex_init(&txn->engine, NULL);
    pthread_mutex_init(&txn->sync, NULL);
    pthread_cond_init(&txn->synced, NULL);
    dirty_forget(txn->dirty);
    wal_close(&txn->wal);
    free_txn(txn);
}

/* ---- what others may ask ---- */

bool txn_untouched(struct txn *txn)
{
    pthread_mutex_lock(&txn->engine);
    bool untouched = txn->untouched;
    pthread_mutex_unlock(&txn->engine);
    return untouched;
}

bool txn_has_unapplied(const struct txn *txn)
{
    return atomic_load(&txn->seen_applied_seq) != atomic_load(&txn->seen_seq);
}

bool txn_wants_checkpoint(const struct txn *txn)
{
    return atomic_load(&txn->seen_log_end) >= txn_log_limit_bytes;
}

void txn_stat(struct txn *txn, struct image_stat *stat)
{
    pthread_mutex_lock(&txn->engine);
    stat->private_bytes =
        (txn->overlay.count * 2 + txn->carry.count + txn->resident.count - txn->resident_head) * PAGE_BYTES;
    stat->log_bytes = txn->wal.at.end;
    stat->commit_seq = txn->wal.at.next_seq - 1;
    stat->applied_seq = txn->applied_seq;
    pthread_mutex_lock(&txn->sync);
    stat->durable_seq = txn->durable_seq;
    pthread_mutex_unlock(&txn->sync);
    pthread_mutex_unlock(&txn->engine);
}

int txn_read_committed(struct txn *txn, uint64_t offset, void *buffer, size_t bytes)
{
    int rc = 0;
    uint8_t *to = buffer;
    pthread_mutex_lock(&txn->engine);
    while (bytes > 0 && rc == 0) {
        uint64_t in_page = offset % PAGE_BYTES, piece = min_u64(bytes, PAGE_BYTES - in_page);
        const uint8_t *page = overlay_get(&txn->overlay, offset / PAGE_BYTES);
        if (page != NULL)
            memcpy(to, page + in_page, piece);
        else
            rc = file_read_at(txn->file->fd, to, piece, format_file_offset(offset));
        to += piece;
        offset += piece;
        bytes -= piece;
    }
    pthread_mutex_unlock(&txn->engine);
    return rc;
}

void txn_check(struct txn *txn, struct report *report)
{
    struct wal_scan scan;
    struct wal_record record;
    pthread_mutex_lock(&txn->engine);
    int rc =
        wal_scan_open(&scan, txn->wal.fd, txn->super->id, txn->wal.at.salt, txn->wal.at.checkpoint, txn->map->capacity);
    if (rc != 0) {
        report_problem(report, "W4", 0, "the log's header is damaged: %s", error_last_text());
    } else {
        while ((rc = wal_scan_next(&scan, &record)) == 0 && scan.at.next_seq < txn->wal.at.next_seq) {}
        if (rc != 0 && scan.at.next_seq != txn->wal.at.next_seq)
            report_problem(report, "W2", scan.at.end, "the log ends at commit %llu, but commit %llu was made",
                           (unsigned long long)scan.at.next_seq - 1, (unsigned long long)txn->wal.at.next_seq - 1);
        wal_scan_close(&scan);
    }
    pthread_mutex_unlock(&txn->engine);
}

bool txn_shared_applied(const struct image_shared *shared, uint64_t *commit_seq, uint64_t *used_bytes)
{
    struct shared_state state;
    if (shared_read(shared, &state) != 0)
        return false;
    *commit_seq = state.applied_seq;
    *used_bytes = state.applied_used_bytes;
    return true;
}
