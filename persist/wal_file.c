/*
 * wal_file.c -- the log as a file: made, found, replaced.
 *
 * One inode holds the records of one checkpoint number and no others, ever: a plain copy of a log in use is then a true
 * prefix of those records, whenever and however slowly it was read (tail.c).  So a checkpoint makes a new file and puts it
 * in the old one's place; what the old one's blocks cost is given back when the last one who has it open closes it.
 *
 *   step                                                 a crash right after it leaves
 *   1 FILE-wal.new made: blocks reserved, header          the old superblock, whose log is FILE-wal; a stray
 *     written; the file and the directory synced           FILE-wal.new, replaced by the next step 1 (wal_name.c:
 *                                                          what may be replaced, and that nothing else is)
 *   2 superblock that names its salt written, synced      the new log under the name FILE-wal.new; wal_find() looks there
 *   3 FILE-wal.new takes FILE-wal's place                 either of the two, the name need not be durable
 *   4 records                                             the same
 *
 * Step 3 and stead_remove().  A store may be removed under its writer, and another one be made under its name.  Then no
 * name is ours any more: the new log loses its name.  Names are exchanged, not replaced, so that what was there can be
 * looked at afterwards: if it is not our old log, it goes back.  (Where a file system cannot exchange, the path is
 * asked right before.)
 *
 * Nor is it under rename(2): a store whose file was given another name, but not its log, goes on with the log where it is
 * until somebody else puts something there.  The close then makes one file of it; after a crash the log has to follow by hand.
 *
 *   W4  the header with a salt is durable under one of the log's two names before the superblock that names it is written
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/system.h"
#include "base/units.h"
#include "persist/file.h"
#include "persist/wal.h"

/* Whoever may write the store may write its log, whatever the umask, and whoever of them made it. */
static void share_with(int fd, const struct stat *store)
{
    struct stat made;
    if (fstat(fd, &made) == 0 && (made.st_uid != store->st_uid || made.st_gid != store->st_gid)) {
        bool given = fchown(fd, store->st_uid, store->st_gid) == 0 || fchown(fd, (uid_t)-1, store->st_gid) == 0;
        (void)given; /* who may not, keeps it */
    }
    (void)fchmod(fd, store->st_mode & 0777);
}

static int write_header(struct wal_next *next, const uint8_t id[16], uint64_t first_seq, uint64_t used_bytes)
{
    struct wal_header header = {
        .salt = next->at.salt, .checkpoint = next->at.checkpoint, .first_seq = first_seq, .used_bytes = used_bytes};
    memcpy(header.id, id, sizeof header.id);
    wal_seal_header(&header);
    memcpy(next->at.chain, header.checksum, sizeof header.checksum);
    int rc = file_reserve_fresh(next->fd, 0, WAL_RESERVE_FIRST_BYTES);
    if (rc != 0)
        return error_set(rc, "no space for the log: %s", error_text(rc));
    rc = file_write_at(next->fd, &header, sizeof header, 0);
    if (rc == 0)
        rc = file_sync_new(next->fd);
    return rc == 0 ? 0 : error_set(rc, "cannot write the log's header: %s", error_text(rc));
}

void wal_unname(struct wal_next *next)
{
    if (wal_name_is(next->path, next->fd))
        (void)file_unlink(next->path);
}

void wal_discard(struct wal_next *next)
{
    wal_unname(next);
    file_calls.close(next->fd);
    next->fd = -1;
}

/* In the folder where the store was, or in memory if that went, too. */
static int make_nameless(struct wal_next *next, const struct file *file, mode_t mode)
{
    char temporary[FILE_PATH_BYTES + 24];
    struct error_memo before;
    error_remember(&before);
    int rc = file_open_nameless(&next->fd, file->log_path, mode, temporary);
    if (rc == 0 && temporary[0] != '\0')
        (void)file_unlink(temporary);
    if (rc == ENOENT) {
        error_recall(&before);
        next->fd = system_above_standard(memfd_create("stead-wal", MFD_CLOEXEC));
        rc = next->fd >= 0 ? 0 : error_set(errno, "cannot make a log in memory: %s", error_text(errno));
    }
    return rc;
}

static int make_named(struct wal_next *next, const struct file *file, const struct stat *store)
{
    int rc = wal_name_create(&next->fd, file, next->path, store->st_mode & 0777);
    if (rc == 0)
        share_with(next->fd, store);
    return rc;
}

int wal_make(struct wal_next *next, const struct file *file, enum wal_place place, const uint8_t id[16], uint64_t salt,
             uint64_t checkpoint, uint64_t first_seq, uint64_t used_bytes)
{
    struct stat store;
    const bool named = place != WAL_NAMELESS;
    *next = (struct wal_next){.fd = -1};
    next->at =
        (struct wal_position){.salt = salt, .checkpoint = checkpoint, .end = WAL_FIRST_RECORD, .next_seq = first_seq};
    next->path = !named ? "" : place == WAL_IN_PLACE ? file->log_path : file->log_next_path;
    if (fstat(file->fd, &store) != 0)
        return error_set(errno, "cannot stat %s", file->path);
    int rc = named ? make_named(next, file, &store) : make_nameless(next, file, store.st_mode & 0777);
    if (rc != 0) {
        next->fd = -1;
        return rc;
    }
    rc = write_header(next, id, first_seq, used_bytes);
    if (rc == 0 && named && (rc = file_sync_directory(next->path)) != 0)
        error_set(rc, "cannot sync the directory of %s: %s", next->path, error_text(rc));
    if (rc != 0) {
        wal_discard(next);
        return error_keep(rc);
    }
    return 0;
}

static bool has_place(const struct file *file, int old_fd)
{
    bool ours = old_fd >= 0 ? wal_name_is(file->log_path, old_fd) : file_is_current(file);
    return ours && file_has_name(file);
}

int wal_install(const struct wal_next *next, const struct file *file, int old_fd)
{
    int rc = has_place(file, old_fd) ? file_exchange(next->path, file->log_path) : ENOENT;
    if (rc == EINVAL || rc == ENOSYS || rc == EOPNOTSUPP)
        rc = file_rename(next->path, file->log_path);
    else if (rc == 0 && old_fd >= 0 && !wal_name_is(next->path, old_fd)) /* another store's, made this moment */
        (void)file_exchange(next->path, file->log_path);
    if (rc == ENOENT && !has_place(file, old_fd))
        rc = 0; /* removed, perhaps this very moment: nobody will look for it */
    if (rc == 0)
        (void)file_unlink(next->path); /* the old one; should it stay, the next new one replaces it */
    return rc;
}

/* 0: it is the one; STEAD_LOG_MISSING; errno. */
static int open_matching(int *fd, const char *path, int flags, const uint8_t id[16], uint64_t salt, uint64_t checkpoint)
{
    struct wal_header header;
    uint64_t bytes;
    int rc = file_open_path(fd, path, flags | O_NOFOLLOW, 0);
    if (rc == ENOENT)
        return STEAD_LOG_MISSING;
    if (rc != 0)
        return rc;
    rc = file_size(*fd, &bytes);
    if (rc == 0 && bytes < WAL_FIRST_RECORD)
        rc = STEAD_LOG_MISSING;
    if (rc == 0)
        rc = file_read_at(*fd, &header, sizeof header, 0);
    if (rc == 0 && (!wal_header_valid(&header) || memcmp(header.id, id, sizeof header.id) != 0 || header.salt != salt ||
                    header.checkpoint != checkpoint))
        rc = STEAD_LOG_MISSING;
    if (rc != 0)
        file_calls.close(*fd);
    return rc;
}

/* FILE-wal.new is the log, and becomes FILE-wal. */
static int take_place(const struct file *file)
{
    int rc = wal_name_look(file->log_path, NULL);
    if (rc != 0 && rc != ENOENT)
        return wal_name_refuse(file->log_path, rc);
    rc = file_rename(file->log_next_path, file->log_path);
    return rc == 0 ? 0 : error_set(rc, "cannot rename the log %s: %s", file->log_next_path, error_text(rc));
}

int wal_find(int *fd, const struct file *file, bool writable, const uint8_t id[16], uint64_t salt, uint64_t checkpoint)
{
    int flags = writable ? O_RDWR : O_RDONLY;
    int rc = open_matching(fd, file->log_path, flags, id, salt, checkpoint);
    if (rc == STEAD_LOG_MISSING) {
        rc = open_matching(fd, file->log_next_path, flags, id, salt, checkpoint);
        if (rc == 0 && writable && (rc = take_place(file)) != 0) {
            file_calls.close(*fd);
            return rc;
        }
    }
    if (rc == STEAD_LOG_MISSING && access(file->log_path, F_OK) != 0)
        return error_set(rc, "%s was not closed, and its log %s is missing", file->path, file->log_path);
    if (rc == STEAD_LOG_MISSING)
        return error_set(rc, "%s is not the log that the store was left with", file->log_path);
    return rc == 0 ? 0 : error_set(rc, "cannot open the log %s: %s", file->log_path, error_text(rc));
}
