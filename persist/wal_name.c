/*
 * wal_name.c -- the log's two names, FILE-wal and FILE-wal.new: what lies under them, and whether it may go.
 *
 * The names are made from the store's, so anything may lie there: a user's file, another store.  What is not ours is never
 * replaced, renamed over or removed.  Ours is, and nothing else:
 *
 *   begins with the magic of a log          a log: this store's, or a stray one that no superblock names
 *   holds zeros only, and no more than      what a crash leaves of a log between its creation and the sync of its
 *   WAL_RESERVE_FIRST_BYTES of them         header; nothing is in it that could be lost
 *
 * So that no other state of a log of ours exists, whoever makes one writes the header and syncs it before it adds anything
 * or reserves more: wal_make() for a new log, rewrite_log() (recover.c) for a copy.
 *
 * Whoever removes a store takes away the logs that bear its id, so that another store's that lies there by mistake
 * is kept.  Whoever opens one replaces any log: the store's own superblock is sealed, or names another one.
 *
 * Between the look and the unlink a stranger may put his file there; no system call removes a name only if it is still
 * that of an inode.  Other openers of the store are held off by the gate, its remover too (store/remove.c); whose gate is
 * another one, because the store was removed and made anew, is told by file_is_current().
 *
 *   W20  what lies under a log's name and is not a log is left as it is, and an open that needs the name says EEXIST
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "base/units.h"
#include "persist/file.h"
#include "persist/wal.h"

#define CREATE_TRIES 3 /* somebody else may make one between the look and the creation */

static int is_zeros(int fd, uint64_t bytes)
{
    uint8_t piece[4096];
    for (uint64_t at = 0; at < bytes; at += sizeof piece) {
        uint64_t count = min_u64(sizeof piece, bytes - at);
        int rc = file_read_at(fd, piece, count, at);
        if (rc != 0)
            return rc;
        for (uint64_t i = 0; i < count; i++)
            if (piece[i] != 0)
                return EEXIST;
    }
    return 0;
}

static int judge(int fd, const uint8_t *id)
{
    uint64_t bytes;
    struct wal_header header;
    memset(&header, 0, sizeof header);
    int rc = file_size(fd, &bytes);
    if (rc == 0)
        rc = file_read_at(fd, &header, min_u64(bytes, sizeof header), 0);
    if (rc != 0)
        return rc;
    if (wal_header_has_magic(&header))
        return id == NULL || memcmp(header.id, id, sizeof header.id) == 0 ? 0 : EEXIST;
    return bytes <= WAL_RESERVE_FIRST_BYTES ? is_zeros(fd, bytes) : EEXIST;
}

int wal_name_look(const char *path, const uint8_t *id)
{
    int fd;
    struct stat facts;
    if (lstat(path, &facts) != 0)
        return errno;
    if (!S_ISREG(facts.st_mode))
        return EEXIST;
    int rc = file_open_path(&fd, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
    if (rc != 0)
        return rc == ELOOP ? EEXIST : rc;
    rc = judge(fd, id);
    (void)file_calls.close(fd);
    return rc;
}

int wal_name_refuse(const char *path, int rc)
{
    if (rc == EEXIST)
        return error_set(EEXIST, "%s is in the place of the store's log and is no log; it was left as it is", path);
    return error_set(rc, "cannot see whether %s, in the place of the store's log, is one: %s", path, error_text(rc));
}

int wal_name_create(int *fd, const struct file *file, const char *path, mode_t mode)
{
    int rc = EEXIST;
    for (unsigned i = 0; i < CREATE_TRIES; i++) {
        rc = file_open_path(fd, path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, mode);
        if (rc != EEXIST)
            break;
        int found = wal_name_look(path, NULL);
        if (found != 0 && found != ENOENT)
            return wal_name_refuse(path, found);
        if (!file_is_current(file)) /* it may be the log of who made the store anew */
            return error_set(ESTALE, "%s was removed while it was being opened", file->path);
        if (found == 0 && (rc = file_unlink(path)) != 0 && rc != ENOENT)
            break;
    }
    return rc == 0 ? 0 : error_set(rc, "cannot make the log %s: %s", path, error_text(rc));
}

bool wal_name_is(const char *path, int fd)
{
    struct stat named, open;
    return lstat(path, &named) == 0 && fstat(fd, &open) == 0 && named.st_ino == open.st_ino &&
           named.st_dev == open.st_dev;
}

int wal_name_remove(const struct file *file, const uint8_t *id)
{
    const char *const paths[] = {file->log_path, file->log_next_path};
    int found[2];
    for (unsigned i = 0; i < 2; i++) { /* both looked at before one is removed */
        found[i] = wal_name_look(paths[i], id);
        if (found[i] != 0 && found[i] != ENOENT && found[i] != EEXIST)
            return wal_name_refuse(paths[i], found[i]);
    }
    for (unsigned i = 0; i < 2; i++) {
        int rc = found[i] == 0 ? file_unlink(paths[i]) : 0;
        if (rc != 0 && rc != ENOENT)
            return error_set(rc, "%s cannot be removed: %s", paths[i], error_text(rc));
    }
    return 0;
}
