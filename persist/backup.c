/*
 * backup.c -- a sealed copy of the last commit, made while others work.
 *
 * The caller holds still what could move.  SOLE and TURNS: the apply lock, so that the file stays as the last application
 * left it and the log is not restarted; but commits go on, into the log and, as pages past the committed end, into the file
 * behind the used length.  So the copy is made of what stands still: the file's bytes below the used length of the commit
 * that image_backup_begin() fixed, and the records of the log up to that commit.  LIVE: the shared lock that writers must
 * respect.
 *
 *   step                                              a crash right after it leaves
 *   1 begin: the last commit's number, length and     the store, as after any commit
 *     place in the log noted
 *   2 SOLE, TURNS: the log synced up to that commit   the same
 *   3 a file without a name beside the target         no copy
 *   4 the whole file cloned (FICLONE), cut off at     no copy
 *     the used length; or the used data copied
 *   5 SOLE, TURNS: records that were not applied yet  no copy
 *     replayed into the copy, pages and checksums
 *   6 lock unit cleared; LIVE and pages of our own:   no copy
 *     checksums computed from what was copied
 *   7 both superblocks, sealed                        no copy
 *   8 fsync, then the name (never over another        no copy or a whole one
 *     file), then the directory
 *
 * Step 4 may see pages of later commits that are written straight into the file, behind the used length of this one, and
 * their checksums in a table it copies: the length cuts off the pages, step 6 clears the checksums.
 *
 * LIVE stores are not cloned where overwriting allocates: the clone would share the store's blocks, and the next store
 * instruction into one of them could meet a full disk, that is SIGBUS.  Nor are files cloned in memory.
 *
 * The copy has the id and the address of its original: it is the same store at an earlier time.
 *
 *   P4  a backup opens sealed, with the bytes of the commit that was the last one when it began, valid checksums and no
 *       log, whatever was committed while it was made
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "persist/fs.h"
#include "persist/image_internal.h"
#include "persist/scrub.h"
#include "persist/superblock.h"
#include "persist/tail.h"
#include "persist/txn.h"

#define CHUNK_BYTES ((size_t)1 << 20)
#define MODE_MASK 0777

struct image_backup {
    struct image *image;
    struct superblock super;
    struct txn_point point; /* IMAGE_PRIVATE */
    uint64_t used;
};

/* Tables and image of the used length, holes left out. */
static int copy_data(int from, int to, uint64_t end)
{
    int rc = 0;
    for (uint64_t at = GROUP0_OFFSET; at < end && rc == 0;) {
        off_t data = lseek(from, (off_t)at, SEEK_DATA);
        if (data < 0 && errno == ENXIO)
            return 0; /* a hole up to the end */
        if (data < 0 || (uint64_t)data < at)
            data = (off_t)at; /* a file system that cannot tell: all is data */
        if ((uint64_t)data >= end)
            return 0;
        off_t hole = lseek(from, data, SEEK_HOLE);
        uint64_t stop = hole > data ? min_u64((uint64_t)hole, end) : end;
        rc = file_copy_range(from, (uint64_t)data, to, (uint64_t)data, stop - (uint64_t)data);
        at = stop;
    }
    return rc;
}

/* A private replay, or a reader whose view is ahead of the file: only this process's pages hold the last commit. */
static bool in_own_pages(const struct image *image)
{
    return image->replay || follow_has_pages(image);
}

static int copy_image(struct image *image, int to, uint64_t used)
{
    int rc = 0;
    uint8_t *chunk = malloc(CHUNK_BYTES);
    if (chunk == NULL)
        return ENOMEM;
    for (uint64_t at = 0; at < used && rc == 0; at += CHUNK_BYTES) {
        size_t bytes = (size_t)min_u64(CHUNK_BYTES, used - at);
        rc = image_read_committed(image, at, chunk, bytes);
        if (rc == 0)
            rc = scrub_write_image(to, at, chunk, bytes);
    }
    free(chunk);
    return rc;
}

/* Step 4 */
static int fill(struct image *image, int to, uint64_t used)
{
    int rc;
    int from = image->file->fd;
    uint64_t end = format_file_bytes(used), whole;
    bool live = image_is_live(image);
    if (!in_own_pages(image) && file_size(from, &whole) == 0 && file_within_limit(whole) == 0 &&
        !(live && fs_overwrite_allocates(from)) && file_clone(to, from) == 0) {
        rc = file_truncate(to, end);
        if (rc == 0)
            rc = file_zero(to, 0, GROUP0_OFFSET); /* superblocks and locks of a store in use */
        return rc;
    }
    rc = file_truncate(to, end);
    if (rc != 0)
        return rc;
    return in_own_pages(image) ? copy_image(image, to, used) : copy_data(from, to, end);
}

/* Asked after the copy: a LIVE writer says so in the superblock before it changes a byte. */
static bool became_live(const struct image *image)
{
    struct superblock now;
    return image->options.kind == IMAGE_READ && superblock_read(image->file, &now) == 0 && now.state == SUPER_OPEN_LIVE;
}

/* Steps 4 to 7 */
static int write_copy(const struct image_backup *backup, const struct file *copy)
{
    int rc;
    struct image *image = backup->image;
    struct superblock sealed = backup->super;
    uint64_t used = backup->used;
    rc = fill(image, copy->fd, used);
    if (rc == 0 && image->txn != NULL)
        rc = txn_replay_point(image->txn, &backup->point, copy->fd);
    if (rc == 0 && (image_is_live(image) || became_live(image) || in_own_pages(image) || sealed.checksums_valid == 0))
        rc = scrub_rebuild(copy->fd, 0, used);
    if (rc == 0) /* of pages that the original has in flight behind the used length */
        rc = scrub_clear(copy->fd, used, min_u64(image_bytes(image), used - 1 + format_contiguous(used - 1)));
    if (rc != 0)
        return rc;
    sealed.commit_seq = image->txn != NULL ? backup->point.seq : max_u64(sealed.commit_seq, image_commit_seq(image));
    sealed.used_bytes = used;
    sealed.checksums_valid = 1;
    sealed.last_detach_s = (int64_t)time(NULL);
    rc = tail_write(copy->fd, format_file_bytes(used), sealed.id, sealed.checkpoint, sealed.commit_seq);
    if (rc != 0)
        return rc;
    rc = superblock_seal(copy, &sealed);
    return rc != 0 ? rc : file_sync_new(copy->fd);
}

static mode_t mode_of(int fd)
{
    struct stat facts;
    return fstat(fd, &facts) == 0 ? facts.st_mode & MODE_MASK : 0600;
}

int image_backup_begin(struct image_backup **out, struct image *image, const struct superblock *super)
{
    *out = NULL;
    struct image_backup *backup = calloc(1, sizeof *backup);
    if (backup == NULL)
        return error_set(ENOMEM, "no memory to copy %.300s", image->file->path);
    backup->image = image;
    backup->super = *super;
    if (image->txn != NULL) {
        txn_point(image->txn, &backup->point);
        backup->used = backup->point.used_bytes;
    } else {
        backup->used = follow_has_pages(image) ? image->follow.used_bytes : image_applied_bytes(image);
    }
    if (backup->used < UNIT_BYTES) {
        free(backup);
        return error_set(STEAD_CORRUPT, "%.300s: the length of the last commit cannot be told", image->file->path);
    }
    *out = backup;
    return 0;
}

/* Steps 3 to 8 */
static int make_copy(const struct image_backup *backup, const char *path)
{
    char temporary[FILE_PATH_BYTES + 24];
    struct file copy = {.fd = -1};
    const struct file *file = backup->image->file;
    if (access(path, F_OK) == 0)
        return error_set(EEXIST, "%.300s exists already; a backup of %.300s replaces nothing", path, file->path);
    if (strlen(path) >= sizeof copy.path)
        return error_set(ENAMETOOLONG, "the name of the backup is longer than %zu bytes", sizeof copy.path - 1);
    memcpy(copy.path, path, strlen(path) + 1);
    int rc = file_open_nameless(&copy.fd, path, mode_of(file->fd), temporary);
    if (rc != 0)
        return rc;
    rc = write_copy(backup, &copy);
    if (rc != 0) {
        file_drop_nameless(copy.fd, temporary);
        return error_set(rc, "cannot copy %.200s to %.200s: %s", file->path, path, error_text(rc));
    }
    rc = file_link_nameless(copy.fd, path, temporary);
    (void)file_calls.close(copy.fd);
    return rc;
}

int image_backup_copy(struct image_backup *backup, const char *path)
{
    struct image *image = backup->image;
    int rc = image->txn != NULL ? txn_sync(image->txn, backup->point.seq) : 0;
    if (rc == 0)
        rc = make_copy(backup, path);
    free(backup);
    return rc;
}

int image_backup(struct image *image, const struct superblock *super, const char *path)
{
    struct image_backup *backup;
    int rc = image_backup_begin(&backup, image, super);
    return rc != 0 ? rc : image_backup_copy(backup, path);
}
