/*
 * backup.c -- a sealed copy of the last commit, made while others work.
 *
 * What is held off.  The bytes of the file change under the apply lock held exclusively; who holds it shared holds off the
 * application of the log, which then grows with the commits that are made.  So a SOLE or TURNS store is copied in rounds, a
 * piece at a time, the lock given up in between: a round copies the pages whose checksums in the table differ from those that the
 * copy has (page_copy.c; in the first one, all that were ever written).  Each round finds what was applied during the one before,
 * and is shorter; when one found little, the caller fixes the commit, and only for the rest is the lock held.
 *
 *   step                                              held off                  a crash right after it leaves
 *   1 begin: a file without a name beside the target  nothing                   no copy
 *   2 ahead: all of the file cloned (FICLONE), or a   application, a piece at   no copy
 *     piece of a round copied                         a time
 *   3 fix: the last commit's number, length and place commits, an instant       no copy
 *     in the log noted
 *   4 copy: the log synced up to it; the pages that   application               no copy
 *     differ copied; records that were not applied
 *     yet replayed into the copy, but for what
 *     longer commits before had behind its end
 *   5 finish: both superblocks, sealed; fsync, then   nothing                   no copy or a whole one
 *     the name (never over another file), then the
 *     directory
 *
 * Step 2 looks at pages below the length of a commit that was applied only.  Behind it pages are written without the apply
 * lock (fresh.c), a page and its entry one after the other: what a clone has of them is cut off, entries too.  A page that
 * fell behind it meanwhile, and came back, has another entry or the same content.
 * Step 4 may leave, in a table that it copied, checksums of such pages behind the used length: they are cleared.
 *
 * A reader's commit is in the file and in pages of its own (follow.c): step 4 copies the first and lays the second over it.
 *
 * Step 2 is left out, and step 4 does all, in LIVE (the shared lock is held, that writers must respect; checksums are computed
 * from what was copied), of a crashed store by its private replay (no file has the commit), and where the table
 * means nothing (checksums_valid 0).  Found out after some rounds (a LIVE writer came), they are thrown away.
 *
 * LIVE stores are not cloned where overwriting allocates: the clone would share the store's blocks, and the next store
 * instruction into one of them could meet a full disk, that is SIGBUS.  Nor are files cloned in memory.
 *
 * The copy has the id and the address of its original: it is the same store at an earlier time.
 *
 *   P4  a backup opens sealed, with the bytes of a commit that was the last one at a moment between begin and copy, valid
 *       checksums and no log, whatever was committed while it was made
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "persist/fs.h"
#include "persist/image_internal.h"
#include "persist/page_copy.h"
#include "persist/scrub.h"
#include "persist/superblock.h"
#include "persist/tail.h"
#include "persist/txn.h"

#define CHUNK_BYTES ((size_t)1 << 20)
#define MODE_MASK 0777
#define PIECE_PAGES 256         /* copied at once: 1 MiB, while application waits */
#define PIECE_TABLE_PAGES 32768 /* or found the same: 256 KiB of table */
#define FEW_PAGES 1024          /* found in a round: the rest is done with application held off */
#define ROUNDS_MAX 8            /* where more is written than can be copied */

struct image_backup {
    struct image *image;
    struct superblock super; /* as of fix */
    struct txn_point point;  /* IMAGE_PRIVATE */
    uint64_t used;
    struct file copy;
    char temporary[FILE_PATH_BYTES + 24];
    uint8_t *buffer;
    bool ahead;      /* the copy has pages of some rounds          */
    unsigned rounds; /* that are through                           */
    uint64_t at;     /* of the round under way: image bytes before */
    uint64_t found;  /* pages that differed in it                  */
    uint64_t found_before;
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

/* Of a private replay: only this process's pages hold the last commit. */
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

/* Step 4 without a step 2. */
static int fill(struct image *image, int to, uint64_t used)
{
    int rc;
    int from = image->file->fd;
    uint64_t end = format_file_bytes(used), whole;
    bool live = image_is_live(image);
    if (!image->replay && file_size(from, &whole) == 0 && file_within_limit(whole) == 0 &&
        !(live && fs_overwrite_allocates(from)) && file_clone(to, from) == 0)
        return file_truncate(to, end);
    rc = file_truncate(to, 0); /* of rounds for nothing */
    if (rc == 0)
        rc = file_truncate(to, end);
    if (rc != 0)
        return rc;
    return image->replay ? copy_image(image, to, used) : copy_data(from, to, end);
}

/* Asked after the copy: a LIVE writer says so in the superblock before it changes a byte. */
static bool became_live(const struct image *image)
{
    struct superblock now;
    return image->options.kind == IMAGE_READ && superblock_read(image->file, &now) == 0 && now.state == SUPER_OPEN_LIVE;
}

/* A reader's own pages over those of the file. */
static int lay_own_pages_over(struct image *image, int to, uint64_t used)
{
    struct page_list own = {0};
    uint8_t page[PAGE_BYTES];
    int rc = follow_list_pages(image, &own);
    for (size_t i = 0; i < own.count && rc == 0 && own.page[i] < used / PAGE_BYTES; i++) {
        uint64_t at = own.page[i] * PAGE_BYTES;
        rc = image_read_committed(image, at, page, sizeof page);
        if (rc == 0)
            rc = scrub_write_image(to, at, page, sizeof page);
        if (rc == 0)
            rc = scrub_rebuild(to, at, at + PAGE_BYTES);
    }
    page_list_free(&own);
    return rc;
}

static bool has_table(const struct image *image, const struct superblock *super)
{
    return !image->replay && !image->file->in_memory && !image_is_live(image) && super->checksums_valid != 0;
}

/* ---- the steps ---- */

static int explain(const struct image_backup *backup, int rc)
{
    return error_set(rc, "cannot copy %.200s to %.200s: %s", backup->image->file->path, backup->copy.path,
                     error_text(rc));
}

static mode_t mode_of(int fd)
{
    struct stat facts;
    return fstat(fd, &facts) == 0 ? facts.st_mode & MODE_MASK : 0600;
}

int image_backup_begin(struct image_backup **out, struct image *image, const char *path)
{
    *out = NULL;
    if (access(path, F_OK) == 0)
        return error_set(EEXIST, "%.300s exists already; a backup of %.300s replaces nothing", path, image->file->path);
    if (strlen(path) >= sizeof image->file->path)
        return error_set(ENAMETOOLONG, "the name of the backup is longer than %zu bytes", sizeof image->file->path - 1);
    struct image_backup *backup = calloc(1, sizeof *backup);
    if (backup == NULL || (backup->buffer = malloc(PAGE_COPY_BYTES)) == NULL) {
        free(backup);
        return error_set(ENOMEM, "no memory to copy %.300s", image->file->path);
    }
    backup->image = image;
    memcpy(backup->copy.path, path, strlen(path) + 1);
    int rc = file_open_nameless(&backup->copy.fd, path, mode_of(image->file->fd), backup->temporary);
    if (rc == 0) {
        *out = backup;
        return 0;
    }
    free(backup->buffer);
    free(backup);
    return rc;
}

/* To the end of the group: others may have grown the file beyond what this process has mapped. */
static int clear_entries_from(const struct image_backup *backup, uint64_t end)
{
    return scrub_clear(backup->copy.fd, end, end - 1 + format_contiguous(end - 1));
}

/* All of the file at once, up to `end`. */
static int clone_ahead(struct image_backup *backup, uint64_t end, bool *done)
{
    uint64_t whole;
    int from = backup->image->file->fd, to = backup->copy.fd;
    *done = end != 0 && file_size(from, &whole) == 0 && file_within_limit(whole) == 0 && file_clone(to, from) == 0;
    if (!*done)
        return 0;
    int rc = file_truncate(to, format_file_bytes(end));
    return rc == 0 ? clear_entries_from(backup, end) : rc;
}

static bool round_is_enough(const struct image_backup *backup)
{
    return backup->found <= FEW_PAGES || backup->rounds == ROUNDS_MAX ||
           (backup->rounds > 1 && backup->found > backup->found_before / 4 * 3);
}

int image_backup_ahead(struct image_backup *backup, bool *more)
{
    struct image *image = backup->image;
    bool done = false;
    *more = false;
    if (!has_table(image, image->super))
        return 0;
    uint64_t end = round_down(image_applied_bytes(image), PAGE_BYTES), found = 0, from = backup->at;
    int rc = backup->ahead ? 0 : clone_ahead(backup, end, &done);
    backup->ahead = true;
    if (rc != 0)
        return explain(backup, rc);
    if (done)
        return 0;
    *more = true;
    rc = file_within_limit(format_file_bytes(end)); /* or it would be answered by a signal */
    while (rc == 0 && backup->at < end && found < PIECE_PAGES && backup->at - from < PIECE_TABLE_PAGES * PAGE_BYTES) {
        uint64_t to = min_u64(backup->at + PIECE_PAGES * PAGE_BYTES, end);
        rc = page_copy_changed(image->file->fd, backup->copy.fd, backup->at, to, false, backup->buffer, &found);
        backup->at = to;
    }
    if (rc != 0)
        return explain(backup, rc);
    backup->found += found;
    if (backup->at < end)
        return 0;
    backup->rounds++;
    *more = !round_is_enough(backup);
    backup->found_before = backup->found;
    backup->found = backup->at = 0;
    return 0;
}

int image_backup_fix(struct image_backup *backup, const struct superblock *super)
{
    struct image *image = backup->image;
    backup->super = *super;
    if (image->txn != NULL) {
        txn_point(image->txn, &backup->point);
        backup->used = backup->point.used_bytes;
    } else {
        backup->used = follow_has_pages(image) ? image->follow.used_bytes : image_applied_bytes(image);
        backup->point.seq = max_u64(super->commit_seq, image_commit_seq(image));
    }
    if (backup->used < UNIT_BYTES)
        return error_set(STEAD_CORRUPT, "%.300s: the length of the last commit cannot be told", image->file->path);
    return 0;
}

/* What is in the file of it. */
static int copy_file_pages(struct image_backup *backup)
{
    struct image *image = backup->image;
    uint64_t found = 0;
    int to = backup->copy.fd;
    if (!backup->ahead || !has_table(image, &backup->super))
        return fill(image, to, backup->used);
    int rc = file_truncate(to, format_file_bytes(backup->used));
    if (rc == 0)
        rc = page_copy_changed(image->file->fd, to, 0, backup->used, true, backup->buffer, &found);
    return rc == 0 && became_live(image) ? fill(image, to, backup->used) : rc; /* the table meant nothing */
}

int image_backup_copy(struct image_backup *backup)
{
    struct image *image = backup->image;
    int to = backup->copy.fd;
    uint64_t used = backup->used;
    int rc = image->txn != NULL ? txn_sync(image->txn, backup->point.seq) : 0;
    if (rc != 0)
        return rc;
    rc = copy_file_pages(backup);
    if (rc == 0 && image->txn != NULL)
        rc = txn_replay_point(image->txn, &backup->point, to);
    if (rc == 0 && !image->replay && follow_has_pages(image))
        rc = lay_own_pages_over(image, to, used);
    if (rc == 0 && (image->replay || image_is_live(image) || became_live(image) || backup->super.checksums_valid == 0))
        rc = scrub_rebuild(to, 0, used);
    if (rc == 0) /* of pages that the original has in flight behind the used length */
        rc = clear_entries_from(backup, used);
    return rc == 0 ? 0 : explain(backup, rc);
}

static int seal_copy(const struct image_backup *backup)
{
    struct superblock sealed = backup->super;
    const struct file *copy = &backup->copy;
    sealed.commit_seq = backup->point.seq;
    sealed.used_bytes = backup->used;
    sealed.checksums_valid = 1;
    sealed.last_detach_s = (int64_t)time(NULL);
    int rc = file_zero(copy->fd, 0, GROUP0_OFFSET); /* a clone has superblocks and locks of a store in use */
    if (rc == 0)
        rc = tail_write(copy->fd, format_file_bytes(backup->used), sealed.id, sealed.checkpoint, sealed.commit_seq);
    if (rc == 0)
        rc = superblock_seal(copy, &sealed);
    if (rc == 0)
        rc = file_sync_new(copy->fd);
    return rc == 0 ? 0 : explain(backup, rc);
}

int image_backup_finish(struct image_backup *backup, int rc)
{
    struct file *copy = &backup->copy;
    if (rc == 0)
        rc = seal_copy(backup);
    if (rc == 0) {
        rc = file_link_nameless(copy->fd, copy->path, backup->temporary);
        (void)file_calls.close(copy->fd);
    } else {
        file_drop_nameless(copy->fd, backup->temporary);
    }
    free(backup->buffer);
    free(backup);
    return error_keep(rc);
}

int image_backup(struct image *image, const struct superblock *super, const char *path)
{
    struct image_backup *backup;
    int rc = image_backup_begin(&backup, image, path);
    if (rc != 0)
        return rc;
    rc = image_backup_fix(backup, super);
    if (rc == 0)
        rc = image_backup_copy(backup);
    return image_backup_finish(backup, rc);
}
