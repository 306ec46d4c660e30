/*
 * txn_turn.c -- TURNS: from one process's turn to the next one's.
 *
 * The turn (TURNS).  The log is one, the processes append in turns; who has the turn holds the store's lock exclusively.
 * What the next one must know travels in `shared` (shared.h).  Taking the turn: drop what this process wrote outside
 * a turn; if somebody committed since, sync the log unless it is durable (the one before may have been killed), apply
 * from the log what is not in the file yet, drop all private pages, and continue at the log's end.
 *
 * What the one before wrote and did not tell is none: its unlock had not returned, and whoever has the turn next sees the
 * commit before it.  That may be a record behind the log's end, which must not come back if they all die before something
 * else stands in its place; and new pages past the end of the image, which the next one would take for zeros.  So a mark in
 * `shared` says that a commit is under way, and whoever finds it there puts zeros over both, durably, before the turn
 * is his:
 *
 *   step                                        killed right after it, the next one finds the mark, and puts zeros over
 *   1 the mark is set                           nothing
 *   2 new pages are written into the file       the pages
 *   3 the record is written                     the pages and the record
 *   4 the words tell of it                      nothing: what lies behind that end
 *   5 the mark is taken away                    -
 * A commit that failed with pages written keeps the mark until a rollback or a later commit has cleared them.
 *
 * Which pages are private is known by lists, of what this process committed; each turn begins with a rollback, which asks the
 * kernel and drops all others.  Before its first turn a process has no lists and rolls nothing back, but memory that is
 * locked (mlockall) became private, with the bytes of that day, when it was mapped: then, and after a turn that failed,
 * the whole range is dropped (drop_all).
 *
 * A turn that could not be taken (a full disk, an I/O error) leaves this process stale, as if it had just come: the words
 * are read, the log is applied and all private pages go when it tries again.  Before the first page is written into
 * the file the words say how far its pages may go (W16), for a reader who cannot have the log.
 *
 *   W21 after a refresh that returned 0 no record stands behind the end that the words tell of, and zeros past the end of
 *       the image (W14); after one that failed nothing is committed before another one succeeded
 *
 * Each checkpoint begins another log file, so the log that the words speak of may have to be opened first.  A process
 * killed in its checkpoint after the superblock and before telling leaves words that are behind the superblock; they
 * say that this may be, and the superblock is right.
 */
#include <errno.h>

#include "base/error.h"
#include "base/units.h"
#include "persist/replay.h"
#include "persist/txn_internal.h"

static void follow(struct txn *txn, const struct shared_state *state)
{
    wal_seek(&txn->wal, &state->at);
    txn->used_bytes = state->used_bytes;
    txn->named_bytes = state->named_bytes;
    txn->applied_seq = state->applied_seq;
    txn->applied_at = state->applied_at;
    txn->applied_used_bytes = state->applied_used_bytes;
    txn->file_seq = state->file_seq;
    txn->restarting = false;
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
    int rc = fresh_give_up(txn);
    if (rc != 0)
        return rc;
    txn->work.count = 0;
    rc = overlay_pages(&txn->overlay, &txn->work);
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
    rc = txn->drop_all ? dirty_drop_all(txn->dirty, txn->map->bytes) : dirty_drop(txn->dirty, &txn->work);
    txn->drop_all = txn->drop_all && rc != 0;
    return rc != 0 ? error_set(rc, "cannot drop the private pages: %s", error_text(rc)) : 0;
}

/* A process was killed in its checkpoint, between the superblock and telling the others: the superblock is right, its log is
 * empty, and all that was told before is in the file. */
static int heed_superblock(struct txn *txn, struct shared_state *state)
{
    const struct superblock *super = txn->super;
    struct wal_scan scan;
    int fd;
    if (super->state != SUPER_OPEN_LOGGED || super->checkpoint <= state->at.checkpoint)
        return 0;
    int rc = file_sync_range(txn->file->fd, SUPERBLOCK_A_OFFSET, LOCK_UNIT_OFFSET); /* killed before that, perhaps */
    if (rc != 0)
        return txn_poison(txn, rc, "the superblock could not be synced");
    rc = wal_find(&fd, txn->file, true, super->id, super->log_salt, super->checkpoint);
    if (rc != 0)
        return rc;
    rc = wal_scan_open(&scan, fd, super->id, super->log_salt, super->checkpoint, txn->map->capacity);
    if (rc == 0) {
        state->at = state->applied_at = scan.at;
        state->applied_seq = state->file_seq = super->commit_seq;
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

/* As slice_announce(); told by nothing but this word, for the turn may fail yet. */
static int announce(struct txn *txn, struct shared_state *state, uint64_t last)
{
    int rc = txn_raise_tail(txn, last);
    if (rc != 0 || state->file_seq >= last)
        return rc;
    txn->file_seq = state->file_seq = last;
    shared_write(txn->shared, state);
    return 0;
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
        rc = announce(txn, state, last);
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

/* Whoever had the turn did not come to the end of a commit.  A record that was written in pieces has its header written
 * last, a small one in one piece with it: without its first sector it is none.  New pages lie past named_bytes (W7). */
static int forget_untold(struct txn *txn)
{
    static const uint8_t zeros[WAL_SECTOR];
    uint64_t bytes, at = txn->wal.at.end;
    int rc = file_size(txn->wal.fd, &bytes);
    if (rc == 0 && at < bytes)
        rc = file_write_at(txn->wal.fd, zeros, sizeof zeros, at);
    if (rc != 0)
        return error_set(rc, "cannot write the log %s: %s", txn->file->log_path, error_text(rc));
    rc = file_sync(txn->wal.fd);
    if (rc != 0)
        return txn_poison(txn, rc, "the log could not be synced");
    rc = txn_clear_tail(txn->file, max_u64(txn->named_bytes, txn->used_bytes));
    if (rc == 0)
        shared_set_unfinished(txn->shared, false);
    return rc;
}

/* Under `engine`.  What this process wrote past the end in a commit that failed is not its business any more if somebody had
 * the turn since: it was cleared, and there may be pages of others. */
static int look_at_words(struct txn *txn, struct shared_state *state)
{
    if (shared_read(txn->shared, state) != 0)
        return error_set(STEAD_CORRUPT, "%s: the words shared by its processes are damaged", txn->file->path);
    if (!shared_is_unfinished(txn->shared) || state->at.next_seq != txn->wal.at.next_seq)
        txn->straight_from = txn->straight_to = 0;
    return 0;
}

static bool has_moved(const struct txn *txn, const struct shared_state *state)
{
    return txn->stale || state->restarting != 0 || state->at.checkpoint != txn->wal.at.checkpoint ||
           state->at.next_seq != txn->wal.at.next_seq;
}

int txn_refresh(struct txn *txn, bool *changed)
{
    struct shared_state state;
    const bool turns = txn->turns && txn->shared != NULL;
    *changed = false;
    pthread_mutex_lock(&txn->engine);
    const bool unfinished = turns && shared_is_unfinished(txn->shared); /* before a rollback of this process's own */
    int rc = txn_refuse_poisoned(txn);
    if (turns)
        checksum_cache_clear(&txn->checksums); /* W24: whoever had the turn may have applied, commits of ours too */
    if (rc == 0 && turns)
        rc = look_at_words(txn, &state);
    if (rc == 0 && !txn->stale)
        rc = txn_rollback_locked(txn);
    if (rc == 0 && turns && has_moved(txn, &state)) {
        *changed = txn->stale || state.at.next_seq != txn->wal.at.next_seq;
        txn->untouched = false;
        rc = catch_up(txn, &state);
        txn->stale = rc != 0;
        txn->drop_all = txn->drop_all || rc != 0;
    }
    if (rc == 0 && unfinished)
        rc = forget_untold(txn);
    if (turns) /* what was replayed or cleared above went past it */
        checksum_cache_clear(&txn->checksums);
    pthread_mutex_unlock(&txn->engine);
    return rc;
}
