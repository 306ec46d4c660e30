/*
 * remove.c -- stead_remove.
 *
 *   step                                                     a crash right after it leaves
 *   1 open the file; is it a store?                          -
 *   2 take the gate byte; is the name still this file?       the kernel drops the byte
 *   3 the logs that bear its id lose their names             a store without its log: STEAD_LOG_MISSING if it had one to
 *                                                            recover from, until it is removed again
 *   4 the file loses its name, the directory is synced       removed
 *   5 logs that bear its id lose their names once more: a      removed; that log stays
 *     process that has it open in SOLE may have made one since
 *     (persist/txn_log.c); later it finds the name gone
 *   6 drop the gate
 *
 * The log's name goes first: while the store has its own, nobody can make a new store, and a new log, under it.
 *
 * The gate.  An opener works under it from reading the superblock to having its log.  So it comes before step 3 or after
 * step 4: then it finds that the name is not its file's any more (open.c, step 3) and starts over, with a new store if it
 * may create.  A READ lock is taken: it holds off whoever may write, and needs no descriptor that could (which on overlayfs
 * would copy the file first).  A reader without permission to write, a remover that may not even read, or one that waited
 * long enough for somebody else's opening (a recovery; store_patience), are not held off: an opener that fails for
 * want of its log looks again whether the file is still there (open.c, was_removed).
 *
 * Attached processes have the file and the log open and work on; close.c, wal_install() and follow.c see that the names
 * are not theirs any more.
 */
#include <errno.h>

#include "persist/wal.h"
#include "store/call.h"

#define RACE_TRIES_MAX 100

/* Whatever else lies under the name (a fifo, a device, a directory) is not ours to remove, nor is what we could not open for
 * a cause of our own, as too many descriptors: its logs would stay.  A regular file that may not be read is taken for a
 * store, the directory's permissions decide.  A damaged store is a store; its id is not known then. */
static int open_store(struct file *file, struct superblock *super, bool *has_id)
{
    *has_id = false;
    int rc = file_open(file, false);
    if (rc == ENOENT)
        return error_set(ENOENT, "%s: there is no such store", file->path);
    if (rc == EACCES && file_is_regular(file->path))
        return 0;
    if (rc != 0)
        return rc;
    rc = superblock_read(file, super);
    *has_id = rc == 0;
    if (rc == STEAD_NOT_A_STORE)
        file_close(file);
    return rc == STEAD_NOT_A_STORE ? rc : 0;
}

static int unlink_names(const struct file *file, const uint8_t *id)
{
    int rc = file->in_memory ? 0 : wal_name_remove(file, id);
    if (rc != 0)
        return rc;
    rc = file_unlink(file->path);
    if (rc != 0)
        return error_set(rc, "%s cannot be removed: %s", file->path, error_text(rc));
    if (file->in_memory)
        return 0;
    if (id != NULL)
        (void)wal_name_remove(file, id); /* the store is gone all the same */
    return file_sync_directory(file->path);
}

/* ESTALE: another file has the name by now. */
static int remove_once(struct file *file, int64_t patience_ns)
{
    struct superblock super;
    bool has_id;
    int rc = open_store(file, &super, &has_id);
    if (rc != 0)
        return rc;
    bool held = file->fd >= 0 && lock_byte_take(file->fd, LOCK_BYTE_GATE, LOCK_BYTE_READ, patience_ns) == 0;
    rc = held && !file_is_current(file) ? ESTALE : unlink_names(file, has_id ? super.id : NULL);
    if (held)
        (void)lock_byte_drop(file->fd, LOCK_BYTE_GATE);
    file_close(file);
    return rc;
}

int stead_remove(const char *path)
{
    NOT_CANCELLED;
    if (path == NULL)
        return error_set(EINVAL, "stead_remove: the path is NULL");
    struct error_memo before;
    error_remember(&before);
    struct file file = {.fd = -1};
    int rc = file_resolve(&file, path);
    int64_t patience_ns = store_patience(0);
    for (unsigned i = 0; rc == 0 && i < RACE_TRIES_MAX; i++) {
        rc = remove_once(&file, patience_ns);
        if (rc == 0)
            error_recall(&before);
        if (rc != ESTALE)
            return error_keep(rc);
        rc = 0;
    }
    return rc != 0 ? error_keep(rc)
                   : error_set(EBUSY, "%s is being removed and made anew faster than it can be removed", path);
}
