/*
 * apply.c -- commits reach the store file, and the log begins anew.
 *
 * Application (of everything at once; in pieces: slice.c).  Only what is durable in the log may go to the file (the
 * write-ahead rule), so the log is synced first. Then the mark at the end of the file says how far its pages may go
 * (tail.c, T1). Then the overlay's pages are written in ascending order, whole: the bytes that no record names are the
 * same in both versions, so a page torn by a power cut differs from both only in places that recovery writes again.
 * The checksum table is changed block by block after the pages it describes.  Nothing here is synced, nor is writeback
 * started: for random pages the start alone was measured at 30-45 us a page, a sync of many at once at 9-20 us.
 *
 * Checkpoint.  step                                   a crash right after it leaves
 *   1 sync log, apply                                 recovery from the log: it is whole
 *   2 sync the file's image and tables                the same
 *   3 make the new log beside the old one (wal_file.c) the same: the superblock names the old one
 *   4 write and sync the superblock                   the new log, empty: the file holds everything
 *   5 the new log takes the old one's place           the same
 * Where the old log is another user's, in a folder with the sticky bit, step 5 could not be done: then step 3 fails.
 * A superblock that was torn in step 4 loses against its twin: as after step 3.  A failure of step 3 (a full disk) is
 * none of the commits: the old log goes on; so it does where overwriting allocates, and step 4 finds no room.
 *
 * Invariants:
 *   W9  no byte of a commit reaches the file before its record is durable (STEAD_PLANT_APPLY_EARLY breaks it)
 *   W10 the superblock that names a new log is written after the file was synced (STEAD_PLANT_RESET_EARLY)
 */
#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "base/error.h"
#include "base/units.h"
#include "persist/page_checksum.h"
#include "persist/replay.h"
#include "persist/txn_internal.h"

/* One pwrite for pages that follow each other in the file. */
static int write_run(int fd, const struct page_list *list, size_t from, size_t count, apply_bytes_of *bytes_of,
                     const void *ctx, uint8_t *scratch)
{
    uint64_t offset = list->page[from] * PAGE_BYTES;
    const uint8_t *bytes = bytes_of(ctx, list->page[from]);
    bool adjoining = true;
    for (size_t i = 1; i < count && adjoining; i++)
        adjoining = bytes_of(ctx, list->page[from + i]) == bytes + i * PAGE_BYTES;
    if (!adjoining) {
        for (size_t i = 0; i < count; i++)
            memcpy(scratch + i * PAGE_BYTES, bytes_of(ctx, list->page[from + i]), PAGE_BYTES);
        bytes = scratch;
    }
    return file_write_at(fd, bytes, count * PAGE_BYTES, format_file_offset(offset));
}

/* The checksums of pages whose entries lie in one block of the table; returns how many via *count. */
static int write_checksums(struct txn *txn, const struct page_list *list, size_t from, size_t to,
                           apply_bytes_of *bytes_of, const void *ctx, size_t *count)
{
    uint64_t *entry, block = list->page[from] / CHECKSUM_BLOCK_PAGES;
    int rc = checksum_cache_get(&txn->checksums, list->page[from], &entry);
    if (rc != 0)
        return rc;
    size_t i = from;
    for (; i < to && list->page[i] / CHECKSUM_BLOCK_PAGES == block; i++)
        entry[list->page[i] % CHECKSUM_BLOCK_PAGES] = page_checksum(bytes_of(ctx, list->page[i]));
    *count = i - from;
    return checksum_cache_write(&txn->checksums, list->page[from], list->page[from] % CHECKSUM_BLOCK_PAGES,
                                list->page[i - 1] % CHECKSUM_BLOCK_PAGES);
}

int apply_pages(struct txn *txn, const struct page_list *list, size_t from, size_t to, apply_bytes_of *bytes_of,
                const void *ctx)
{
    int rc = 0;
    for (size_t i = from; i < to && rc == 0;) {
        uint64_t limit = format_contiguous(list->page[i] * PAGE_BYTES) / PAGE_BYTES;
        size_t run = page_list_run(list, i, (size_t)min_u64(min_u64(limit, SCRATCH_PAGES), to - i));
        rc = write_run(txn->file->fd, list, i, run, bytes_of, ctx, txn->scratch);
        i += run;
    }
    for (size_t i = from; i < to && rc == 0;) {
        size_t done = 0;
        rc = write_checksums(txn, list, i, to, bytes_of, ctx, &done);
        i += done;
    }
    return rc;
}

static const uint8_t *zero_page(const void *zeros, uint64_t page)
{
    (void)page;
    return zeros;
}

int apply_zeros(struct txn *txn, uint64_t from, uint64_t to)
{
    static const uint8_t zeros[PAGE_BYTES];
    int rc = 0;
    while (from < to && rc == 0) {
        uint64_t page[SCRATCH_PAGES];
        struct page_list list = {.page = page, .room = SCRATCH_PAGES};
        while (from < to && list.count < SCRATCH_PAGES)
            list.page[list.count++] = from++;
        rc = apply_pages(txn, &list, 0, list.count, zero_page, zeros);
    }
    return rc;
}

const uint8_t *apply_from_overlay(const void *overlay, uint64_t page)
{
    return overlay_get(overlay, page);
}

static int apply_locked(struct txn *txn)
{
    if (txn->overlay.count == 0 && txn->applied_seq + 1 == txn->wal.at.next_seq)
        return 0;
    int rc = slice_announce(txn); /* the log synced, the mark raised */
    if (rc != 0)
        return rc;
    txn->work.count = 0;
    rc = overlay_pages(&txn->overlay, &txn->work);
    if (rc == 0)
        rc = page_list_reserve(&txn->resident, txn->work.count);
    if (rc == 0)
        rc = apply_pages(txn, &txn->work, 0, txn->work.count, apply_from_overlay, &txn->overlay);
    if (rc != 0) /* the log holds it all: nothing is lost, and the next attempt starts from the same place */
        return error_set(rc, "cannot write committed pages into %s: %s", txn->file->path, error_text(rc));
    for (size_t i = 0; i < txn->work.count; i++)
        txn->resident.page[txn->resident.count++] = txn->work.page[i];
    unsynced_add(txn, &txn->work, 0, txn->work.count);
    overlay_clear(&txn->overlay);
    slice_forget_round(txn);
    txn->applied_seq = txn->wal.at.next_seq - 1;
    txn->applied_at = txn->wal.at;
    txn->applied_used_bytes = txn->used_bytes;
    txn_publish(txn);
    return 0;
}

int txn_apply(struct txn *txn)
{
    pthread_mutex_lock(&txn->engine);
    int rc = txn_refuse_poisoned(txn);
    if (rc == 0)
        rc = apply_locked(txn);
    pthread_mutex_unlock(&txn->engine);
    return rc;
}

/* Everything but the lock unit: from the first group to the end of what is used. */
static int sync_file(struct txn *txn)
{
    uint64_t end = format_file_bytes(max_u64(txn->named_bytes, txn->used_bytes));
    int rc = file_sync_range(txn->file->fd, GROUP0_OFFSET, end - GROUP0_OFFSET);
    if (rc != 0)
        return txn_poison(txn, rc, "the store file could not be synced");
    unsynced_clear(txn);
    return 0;
}

/* TURNS: others wrote superblocks in their turns.  What is said by the caller (image_seal) stays as it is. */
static int catch_up_superblock(struct txn *txn)
{
    struct superblock now, *super = txn->super;
    int rc = superblock_read(txn->file, &now);
    if (rc != 0)
        return rc;
    now.root = super->root;
    now.sharing = super->sharing;
    now.last_change_pid = super->last_change_pid;
    now.last_attach_s = super->last_attach_s;
    now.last_detach_s = super->last_detach_s;
    now.last_change_s = super->last_change_s;
    now.accepted_unclean = super->accepted_unclean;
    *super = now;
    return 0;
}

/* The superblock was not written for want of room. */
static bool keep_log(struct txn *txn, const struct superblock *before, struct wal_next *next, int rc)
{
    if (!superblock_refused(txn->file, before, rc))
        return false;
    *txn->super = *before;
    txn->restarting = false;
    if (txn->turns)
        txn_publish(txn);
    wal_discard(next);
    return true;
}

static int restart_log(struct txn *txn)
{
    uint64_t salt, seq = txn->wal.at.next_seq - 1;
    if (getrandom(&salt, sizeof salt, 0) != (ssize_t)sizeof salt)
        return error_set(EIO, "no random bytes for the log's salt");
    if (txn->turns) {
        int rc = catch_up_superblock(txn);
        if (rc != 0)
            return rc;
    }
    struct wal_next next;
    int rc = file_may_replace(txn->names->log_path); /* or these would fail with the superblock written */
    if (rc == 0)
        rc = file_may_hold(txn->wal.fd);
    if (rc == 0)
        rc = wal_make(&next, txn->names, WAL_BESIDE, txn->super->id, salt, txn->wal.at.checkpoint + 1, seq + 1,
                      txn->used_bytes);
    if (rc != 0)
        return rc; /* the log goes on */
    const struct superblock before = *txn->super;
    txn->super->commit_seq = seq;
    txn->super->used_bytes = txn->used_bytes;
    txn->super->log_salt = salt;
    txn->super->checkpoint = next.at.checkpoint;
    txn->super->state = SUPER_OPEN_LOGGED;
    if (txn->turns) { /* killed from here on, this process leaves words that are behind the superblock */
        txn->restarting = true;
        txn_publish(txn);
    }
    rc = superblock_write(txn->file, txn->super, true);
    if (rc != 0 && keep_log(txn, &before, &next, rc))
        return error_set(rc, "%s: no room for a new superblock: the log goes on", txn->file->path);
    if (rc != 0) {
        file_calls.close(next.fd);
        return txn_poison(txn, rc, "the superblock could not be written");
    }
    rc = wal_install(&next, txn->names, txn->wal.fd);
    if (rc == 0)
        rc = wal_switch(&txn->wal, next.fd, &next.at);
    else
        file_calls.close(next.fd);
    if (rc != 0)
        return txn_poison(txn, rc, "the new log could not take the old one's place");
    txn->named_bytes = txn->used_bytes;
    txn->applied_at = txn->wal.at;
    txn->restarting = false;
    return 0;
}

int txn_checkpoint(struct txn *txn)
{
    pthread_mutex_lock(&txn->engine);
    int rc = txn_refuse_poisoned(txn);
    if (rc == 0 && (txn->untouched || txn->late)) { /* the log is empty, or there is none; the file synced */
        pthread_mutex_unlock(&txn->engine);
        return 0;
    }
    if (rc == 0)
        rc = apply_locked(txn);
#ifndef STEAD_PLANT_RESET_EARLY
    if (rc == 0)
        rc = sync_file(txn);
#endif
    if (rc == 0)
        rc = restart_log(txn);
#ifdef STEAD_PLANT_RESET_EARLY
    if (rc == 0)
        rc = sync_file(txn);
#endif
    if (rc == 0)
        txn_publish(txn);
    else
        slice_forget_load(txn);
    pthread_mutex_unlock(&txn->engine);
    return rc;
}

bool txn_home_without_log(struct txn *txn, int rc)
{
    if (rc != ENOSPC && rc != EDQUOT && rc != EFBIG && rc != EPERM)
        return false;
    pthread_mutex_lock(&txn->engine);
    bool home = txn_refuse_poisoned(txn) == 0 && txn->overlay.count == 0 && txn->unsynced.pages == 0 &&
                txn->applied_seq + 1 == txn->wal.at.next_seq;
    if (home && txn->turns)
        home = catch_up_superblock(txn) == 0;
    pthread_mutex_unlock(&txn->engine);
    return home;
}

/* ---- a commit to be copied ---- */

void txn_point(struct txn *txn, struct txn_point *point)
{
    pthread_mutex_lock(&txn->engine);
    *point = (struct txn_point){.seq = txn->wal.at.next_seq - 1,
                                .used_bytes = txn->used_bytes,
                                .applied_at = txn->applied_at,
                                .end = txn->wal.at.end};
    pthread_mutex_unlock(&txn->engine);
}

int txn_replay_point(struct txn *txn, const struct txn_point *point, int copy_fd)
{
    struct wal_scan scan;
    if (point->applied_at.next_seq > point->seq)
        return 0;
    int rc = wal_scan_resume(&scan, txn->wal.fd, txn->super->id, &point->applied_at, txn->map->capacity);
    if (rc != 0)
        return rc;
    scan.file_bytes = min_u64(scan.file_bytes, point->end); /* what is appended meanwhile is not looked at */
    rc = replay_into_copy(&scan, copy_fd, point->seq, point->used_bytes);
    wal_scan_close(&scan);
    return rc;
}
