/*
 * txn.c -- open and close the transaction engine; what others may ask it.  Group commit: txn_sync.c; the turn: txn_turn.c.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/error.h"
#include "base/units.h"
#include "persist/fs.h"
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
    int cause = atomic_load(&txn->failed); /* 0: the words say it */
    return error_set(STEAD_FAILED, "%s: a sync failed earlier (%s); reopen the store to recover it", txn->file->path,
                     cause != 0 ? error_text(cause) : "in another process");
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

int txn_confirm_length(struct txn *txn)
{
    pthread_mutex_lock(&txn->map->mutex); /* the mark is moved and raised under it */
    int rc = tail_confirm(txn->file->fd, txn->super->id);
    pthread_mutex_unlock(&txn->map->mutex);
    if (rc == STEAD_FAILED)
        return txn_poison(txn, EIO, "the new length of the store file could not be synced");
    return rc == 0 ? 0 : error_set(rc, "cannot write the end of %.300s: %s", txn->file->path, error_text(rc));
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
                                 .file_seq = max_u64(txn->file_seq, txn->applied_seq),
                                 .restarting = txn->restarting};
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
    atomic_store(&txn->seen_straight, txn->wal.straight_pages);
    atomic_store(&txn->seen_last_pages, txn->last_pages);
}

/* ---- open and close ---- */

static void free_txn(struct txn *txn)
{
    overlay_release(&txn->overlay);
    checksum_cache_release(&txn->checksums);
    slice_release(txn);
    page_list_free(&txn->candidates);
    page_list_free(&txn->carry);
    page_list_free(&txn->work);
    page_list_free(&txn->resident);
    free(txn->changed);
    free(txn->finding);
    free(txn->scratch);
    free(txn->renamed);
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
    txn->file = txn->names = file;
    txn->super = super;
    txn->shared = options->shared;
    txn->max_private_bytes = options->max_private_bytes;
    txn->turns = options->turns;
    struct fs_facts facts;
    txn->at_once = fs_classify(file->fd, &facts) != 0 || facts.overwrite_allocates;
    txn->wal.fd = -1;
    pthread_mutex_init(&txn->engine, NULL);
    pthread_mutex_init(&txn->sync, NULL);
    pthread_cond_init(&txn->synced, NULL);
    overlay_init(&txn->overlay);
    checksum_cache_init(&txn->checksums, file->fd);
    txn->scratch = aligned_alloc(PAGE_BYTES, SCRATCH_PAGES * PAGE_BYTES);
    int rc = txn->scratch == NULL ? ENOMEM : dirty_open(&txn->dirty, map->base, kind);
    if (rc != 0) {
        error_set(rc, "cannot watch the pages of %s: %s", file->path, error_text(rc));
    } else {
        dirty_set_file(txn->dirty, file->fd);
        limit_open(txn);
    }
    if (rc == 0)
        rc = txn_open_log(txn, options->first, options->late_log);
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

void txn_close_replaced(struct txn_replaced *replaced)
{
    while (replaced->count > 0)
        file_calls.close(replaced->fd[--replaced->count]);
}

void txn_retire(struct txn *txn, struct txn_replaced *replaced)
{
    pthread_mutex_lock(&txn->engine);
    for (unsigned i = 0; i < replaced->count; i++)
        wal_take_retired(&txn->wal, replaced->fd[i]);
    replaced->count = 0;
    pthread_mutex_unlock(&txn->engine);
}

bool txn_free_retired(struct txn *txn)
{
    pthread_mutex_lock(&txn->engine);
    bool freed = wal_free_retired(&txn->wal);
    pthread_mutex_unlock(&txn->engine);
    return freed;
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

void txn_forget_checksums(struct txn *txn)
{
    pthread_mutex_lock(&txn->engine);
    checksum_cache_clear(&txn->checksums); /* W24 */
    pthread_mutex_unlock(&txn->engine);
}

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
    stat->log_bytes = txn->late ? 0 : txn->wal.at.end;
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
    if (txn->late) {
        pthread_mutex_unlock(&txn->engine);
        return;
    }
    (void)wal_flush(&txn->wal); /* if it fails, so does the next sync */
    int rc =
        wal_scan_open(&scan, txn->wal.fd, txn->super->id, txn->wal.at.salt, txn->wal.at.checkpoint, txn->map->capacity);
    if (rc == ENOMEM) {
        report_unable(report, rc);
    } else if (rc != 0) {
        report_problem(report, "W4", 0, "the log's header is damaged: %s", error_last_text());
    } else {
        while ((rc = wal_scan_next(&scan, &record)) == 0 && scan.at.next_seq < txn->wal.at.next_seq) {}
        if (rc == ENOMEM)
            report_unable(report, rc);
        else if (rc != 0 && scan.at.next_seq != txn->wal.at.next_seq)
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
