/*
 * txn_log.c -- which log the engine appends to: a new one, at once or with the first commit; the one that a recovery left;
 * the one of those who came before (TURNS).
 *
 * The late log (SOLE).  People open data far more often than they change it, and a new log with its two superblocks is four
 * waits for the disk, one after the other, and their undoing two more at the close.  So the open of a sealed store that
 * is as a close leaves it makes no log (`late`), and what it would have written is written by the first commit
 * that has anything to say (txn_need_log).  Until then superblocks and file are what they were, and so is whatever a
 * crash leaves: a sealed store, of which nothing is to be recovered.
 *
 *   step                                              a crash right after it leaves
 *   0 before: growth may have lengthened the file     sealed; what lies past the used length is cleared by the next
 *     (tail.c), memory alone uses the room            opener (image.c, step 3)
 *   1 disk blocks reserved up to the used length      the same: blocks are not content
 *   2 the log made beside the file as that is named   sealed, a stray log beside it, which no superblock names and the
 *     now; header, file and directory synced          next one replaces (wal_name.c)
 *   3 one superblock says "open" and names it,        sealed or open with an empty log: the same content
 *     durable
 *   4 the other one, durable (superblock.c says why)  open with an empty log
 *   5 the words tell of the log                       the same
 *   6 the first record (commit.c)                     commit.c
 * So everything after step 5 is as if the open had done it.  A failure up to step 2 is none of the commit's: it did not
 * happen, the caller may try again.  After one of step 3 or 4 nobody knows which superblock the disk has, and a second
 * try would take away the log that it may name: the store has failed, and its next opener settles that (S13).  Only where
 * the write found no room, and the kernel shows the old superblock, nothing happened.
 *
 * Who may look meanwhile.  Another writer is refused by the SOLE byte or the mode before it asks for a log.  But the gate does
 * not hold a first commit off as it holds off an open: between an opener's look at the superblocks and its claim the commit
 * may be made, and its maker die.  So who finds no writer attached reads them again (store/attach.c), or it would take a log
 * with durable commits for a stray one.  A reader with
 * words finds no commit behind `applied` in them (salt 0), and looks for no log; one without goes by the superblock, which
 * changes from "sealed" to "open" beside it at an open just as well.  A copier finds a sealed file, and pages of later
 * commits only behind a mark that says so (tail.c).
 *
 * The name.  The log is made late, so the file may have been renamed since the open, or removed:
 *   - renamed: the log is made beside the new name, which the kernel is asked for, and which is taken only if it is this file's;
 *   - removed: nobody will open this store again; the log gets no name, so that nothing is left;
 *   - removed between that look and the creation: the file has no name afterwards, and then the log loses its own.
 *     stead_remove() takes logs away before the file's name and again after it (store/remove.c): it finds a log made
 *     before, and who makes one later finds the file without a name.
 * What happens to the file's name later is wal_file.c's.
 *
 * What the open must not put off.  A commit that fails because no log can be made is a nasty surprise: so the log is late only
 * where the folder may be written and read, has room, and nothing lies under the log's name.  Else it is made at once,
 * and the open says what is wrong.  A program that gives up its right to the folder after the open (setuid, chroot) makes
 * its first commit before.
 *
 *   W31 while the log is late both superblocks are sealed, and no byte of the file below their used length, nor of its
 *       checksums, was written by this process
 *   W32 the log of a store that has a name lies beside that name when it is made; one made while the store was being removed
 *       keeps none
 *   W33 who opens with no writer attached goes by the superblock as it is once that is known, not as it was before
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/error.h"
#include "base/units.h"
#include "persist/tail.h"
#include "persist/txn_internal.h"

/* Step 2's look at the names; *removed: there is none. */
static int find_names(struct txn *txn, bool *removed)
{
    *removed = !file_has_name(txn->file);
    if (*removed || file_is_current(txn->names))
        return 0;
    struct file *now = txn->renamed != NULL ? txn->renamed : malloc(sizeof *now);
    if (now == NULL)
        return error_set(ENOMEM, "no memory for the log of %.300s", txn->file->path);
    txn->renamed = now;
    struct error_memo before;
    error_remember(&before);
    int rc = file_rename_known(txn->file, now);
    if (rc == ENOENT && !file_has_name(txn->file)) { /* this very moment */
        error_recall(&before);
        *removed = true;
        return 0;
    }
    if (rc == 0)
        txn->names = now;
    return rc;
}

static int make_log(struct txn *txn, struct wal_next *next)
{
    const struct superblock *super = txn->super;
    uint64_t salt;
    bool removed;
    if (getrandom(&salt, sizeof salt, 0) != (ssize_t)sizeof salt)
        return error_set(EIO, "no random bytes for the log's salt");
    int rc = find_names(txn, &removed);
    if (rc != 0)
        return rc;
    rc = wal_make(next, txn->names, removed ? WAL_NAMELESS : WAL_IN_PLACE, super->id, salt, super->checkpoint + 1,
                  super->commit_seq + 1, super->used_bytes);
    if (rc == 0 && !removed && !file_has_name(txn->file))
        wal_unname(next); /* W32 */
    return rc;
}

/* The superblocks that name it, and it is the engine's.  *unsure: nobody knows what the disk has. */
static int begin_log(struct txn *txn, struct wal_next *next, bool *unsure)
{
    struct superblock before = *txn->super;
    *unsure = false;
    txn->super->state = SUPER_OPEN_LOGGED;
    txn->super->log_salt = next->at.salt;
    txn->super->checkpoint = next->at.checkpoint;
    int rc = superblock_write_both(txn->file, txn->super); /* superblock.c says why both */
    if (rc != 0) {
        *txn->super = before;
        *unsure = !superblock_refused(txn->file, &before, rc);
        if (*unsure)
            file_calls.close(next->fd); /* its name stays */
        else
            wal_discard(next);
        return rc;
    }
    rc = wal_switch(&txn->wal, next->fd, &next->at);
    *unsure = rc != 0;
    return rc;
}

/* A new, empty log for a sealed file. */
static int start_new_log(struct txn *txn, bool *unsure)
{
    struct wal_next next;
    *unsure = false;
    int rc = make_log(txn, &next);
    return rc == 0 ? begin_log(txn, &next, unsure) : rc;
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

/* A process that comes later.  It must be able to replace the log, or its first checkpoint could not be made (wal_file.c).
 * Where the log ends is known at the first refresh; but it is opened now, while the gate keeps its name, for a store that is
 * removed afterwards goes on without names.  A checkpoint may be replacing it this very moment: then the first refresh
 * finds the new one. */
static int join_log(struct txn *txn)
{
    struct shared_state state;
    int fd;
    txn->stale = true;
    txn->drop_all = true; /* memory locked since the process began: private as it was mapped, and no list knows */
    if (txn->shared == NULL || shared_read(txn->shared, &state) != 0)
        return 0;
    int rc = file_may_replace(txn->file->log_path);
    if (rc != 0)
        return rc;
    struct error_memo before;
    error_remember(&before);
    if (wal_find(&fd, txn->file, true, txn->super->id, state.at.salt, state.at.checkpoint) == 0)
        (void)wal_switch(&txn->wal, fd, &state.at);
    error_recall(&before);
    return 0;
}

/* Position of a log that is not there yet: behind the last commit.  Its salt is nobody's. */
static void put_off(struct txn *txn)
{
    txn->late = true;
    txn->wal.at = (struct wal_position){
        .checkpoint = txn->super->checkpoint, .end = WAL_FIRST_RECORD, .next_seq = txn->super->commit_seq + 1};
    txn->wal.straight_from = UINT64_MAX;
}

int txn_open_log(struct txn *txn, bool first, bool late)
{
    bool unsure;
    int rc = wal_open(&txn->wal, txn->super->id);
    if (rc == 0 && !first)
        rc = join_log(txn);
    if (rc != 0 || !first)
        return rc;
    txn->untouched = txn->super->state == SUPER_SEALED;
    rc = tail_raise(txn->file->fd, txn->super->id, txn->super->checkpoint, txn->super->commit_seq);
    if (rc != 0)
        return error_set(rc, "cannot write the end of %s: %s", txn->file->path, error_text(rc));
    if (late && txn->super->state == SUPER_SEALED)
        put_off(txn);
    else
        rc = txn->super->state == SUPER_OPEN_LOGGED ? continue_log(txn) : start_new_log(txn, &unsure);
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

int txn_need_log(struct txn *txn)
{
    bool unsure;
    if (!txn->late)
        return 0;
    int rc = file_reserve(txn->file->fd, 0, format_file_bytes(txn->super->used_bytes));
    if (rc != 0 &&
        rc != EOPNOTSUPP) /* what is not a hole is there; holes are found by the write that applies a commit */
        return error_set(rc, "cannot reserve the disk blocks of %.300s: %s", txn->file->path, error_text(rc));
    rc = start_new_log(txn, &unsure);
    if (rc != 0)
        return unsure ? txn_poison(txn, rc, "the superblock could not be written") : rc;
    txn->late = false;
    txn->applied_at = txn->wal.at;
    txn_publish(txn); /* before there is a record: follow.c */
    return 0;
}

bool txn_is_late(struct txn *txn)
{
    pthread_mutex_lock(&txn->engine);
    bool late = txn->late;
    pthread_mutex_unlock(&txn->engine);
    return late;
}

bool txn_log_named(struct txn *txn)
{
    pthread_mutex_lock(&txn->engine);
    bool named = txn->late || wal_name_is(txn->names->log_path, txn->wal.fd);
    pthread_mutex_unlock(&txn->engine);
    return named;
}

void txn_remove_logs(struct txn *txn)
{
    pthread_mutex_lock(&txn->engine);
    /* else another store's may lie there: a copy has the same id */
    if (!txn->late && (file_is_current(txn->names) || wal_name_is(txn->names->log_path, txn->wal.fd)))
        (void)wal_name_remove(txn->names, txn->super->id);
    pthread_mutex_unlock(&txn->engine);
}

void txn_unname_log(struct txn *txn)
{
    pthread_mutex_lock(&txn->engine);
    if (!txn->late && wal_name_is(txn->names->log_path, txn->wal.fd))
        (void)file_unlink(txn->names->log_path);
    pthread_mutex_unlock(&txn->engine);
}
