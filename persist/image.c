/*
 * image.c -- a store file opened as a heap range: joins the map, the superblocks and the transaction engine.
 *
 * image_open(), the caller holding the gate.  "first" = no writer is attached; readers may be.
 *
 *   step                                              a crash right after it leaves
 *   1 may this file system carry it? (fs.c)           what was there
 *   2 the superblock durable, if the last session     what was there
 *     did not end (superblock.c, S13); if it names    the log or the recovered file (its own argument: recover.c)
 *     a log: txn_recover()
 *   3 bytes behind the used length punched, if a      a sealed file of the same content
 *     crash once left a sealed file too long
 *   4 disk blocks reserved up to the used length      the same: blocks are not content
 *   5 range reserved and mapped                       nothing
 *   6 PRIVATE: txn_open() starts a log and writes     sealed, or open with an empty log: the same content
 *     the superblocks that name it
 *     SHARED: the directory synced (below); the       sealed, or unclean although nothing was written: the safe side
 *     superblocks "open, live"
 *     SOLE, sealed: mostly none of 3, 4 and 6; the    sealed, and true
 *     first commit does it (txn_log.c)
 *   7 after a recovery, which wrote one: the second   (superblock.c, why)
 *     superblock says so too
 *
 * Step 4: a sealed file may have holes, of our own punching or made by a copy tool.  Once a process writes through a
 * shared mapping, or a commit is durable in the log, it is too late to learn that the disk is full.  fallocate over
 * blocks that are there costs a walk over the extents, ~11 us a GiB, and 6 us for each that was never written (measured, ext4).
 * st_blocks cannot spare it: it counts the file system's own blocks of the file, and those behind its end.
 *
 * Step 6, the directory: whoever made the file may have been killed before he synced its name, and what is committed here
 * must not be lost with it.  PRIVATE has the name of its log made durable, in the same directory.
 *
 *   S14  a writer has made the file's name durable, whoever gave it, when its open returns 0 (with a late log: before its first
 *        commit) (test_create.c)
 *
 * Step 3 does not shorten the file: a reader that follows a former writer may still have the tail mapped.
 *
 * Growth: image_extend() reserves blocks first, then maps.  It takes slack more than asked for.  PRIVATE: as much again and
 * at least 4 MiB, for in TURNS each growth waits for the disk to have the mark at its new place (tail.c), 0.1 to 4 ms: 34 of
 * them were two thirds of the time to fill a store of 24 MiB.  In SOLE the next commit waits for it, once.  SHARED: an
 * eighth of the image, at most 8 MiB, and where that is all there is to it, written with zeros there and then (ready.c).
 * Nobody else can have bytes there: who calls image_extend() holds the heap's gate, and the file was no longer than what is
 * mapped here.  The slack is dropped when the disk is nearly full and
 * cut off at close.  Two processes that grow a LIVE file at once reserve the same blocks, which is harmless: fallocate
 * keeps content and never shortens.
 *
 * A reader of a crashed store that nobody recovers gets its log replayed into private pages; the file is not written.
 */
#include "persist/image.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/error.h"
#include "persist/address.h"
#include "persist/fs.h"
#include "persist/image_internal.h"
#include "persist/scrub.h"
#include "persist/superblock.h"
#include "persist/tail.h"
#include "persist/txn.h"
#include "persist/wal.h"

#define SLACK_BYTES_MIN (UINT64_C(4) << 20)
#define SLACK_BYTES_MAX (UINT64_C(64) << 20)
#define SLACK_SHARE 8 /* of a SHARED image */
#define SLACK_SHARED_BYTES_MIN UNIT_BYTES
#define LATE_ROOM_BYTES (UINT64_C(4) << 20) /* for a log and a small growth */
#define SLACK_SHARED_BYTES_MAX (UINT64_C(8) << 20)

/* ---- opening ---- */

static bool is_writer(const struct image_options *options)
{
    return options->kind != IMAGE_READ && !options->inspect;
}

/* Whole units of image that the file holds, within the capacity. */
static int held_bytes(const struct file *file, uint64_t capacity, uint64_t *bytes)
{
    uint64_t file_bytes;
    int rc = file_size(file->fd, &file_bytes);
    if (rc != 0)
        return error_set(rc, "cannot stat %.300s: %s", file->path, error_text(rc));
    *bytes = min_u64(round_down(format_image_bytes(file_bytes), UNIT_BYTES), capacity);
    return 0;
}

/* Before it would be answered by a signal: SIGXFSZ, also for a write into what is there. */
static int check_file_limit(const struct file *file, uint64_t file_bytes)
{
    return file_within_limit(file_bytes) == 0
               ? 0
               : error_set(EFBIG, "%.300s: %" PRIu64 " bytes are more than the limit of this process (ulimit -f)",
                           file->path, file_bytes);
}

static int check_file_system(const struct file *file, const struct image_options *options)
{
    uint64_t file_bytes;
    int rc = is_writer(options) ? file_size(file->fd, &file_bytes) : 0;
    if (rc == 0 && is_writer(options))
        rc = check_file_limit(file, file_bytes);
    if (rc != 0)
        return rc;
    enum fs_use use = FS_ONE_PROCESS;
    if (options->kind == IMAGE_SHARED)
        use = FS_LIVE;
    else if (options->turns || (options->kind == IMAGE_PRIVATE && !options->first))
        use = FS_WRITERS;
    else if (!options->first)
        use = FS_READER;
    return fs_check(file, use);
}

/* Step 3: what follows the used length must be zeros, with checksums of zeros. */
static int clean_tail(const struct file *file, const struct superblock *super)
{
    int rc;
    uint64_t file_bytes, end = format_file_bytes(super->used_bytes);
    rc = file_size(file->fd, &file_bytes);
    file_bytes = tail_offset(file_bytes); /* the mark at the end stays where it is */
    if (rc == 0 && file_bytes <= end)
        return 0;
    if (rc == 0)
        rc = scrub_clear(
            file->fd, super->used_bytes,
            min_u64(format_image_bytes(file_bytes), super->used_bytes - 1 + format_contiguous(super->used_bytes - 1)));
    if (rc == 0)
        rc = file_zero(file->fd, end, file_bytes - end);
    return rc == 0 ? 0 : error_set(rc, "cannot clear the unused end of %.300s: %s", file->path, error_text(rc));
}

/* Step 4 */
static int reserve_blocks(const struct file *file, const struct superblock *super, bool live)
{
    struct stat facts;
    uint64_t end = format_file_bytes(super->used_bytes);
    if (file->in_memory && fstat(file->fd, &facts) == 0 && (uint64_t)facts.st_blocks * 512 >= end)
        return 0; /* tmpfs counts blocks exactly, and its fallocate visits every page */
    int rc = file_reserve(file->fd, 0, end);
    if (rc == EOPNOTSUPP && !live)
        return 0; /* what is not a hole is there; holes are found by the write that applies a commit */
    if (rc == EOPNOTSUPP)
        return error_set(STEAD_FILE_SYSTEM,
                         "%.300s: this file system cannot reserve disk blocks, so that LIVE could "
                         "answer a full disk only with a signal; open it SOLE or TURNS",
                         file->path);
    return rc == 0 ? 0 : error_set(rc, "cannot reserve the disk blocks of %.300s: %s", file->path, error_text(rc));
}

/* Did the last session come to its end?  A close ends by removing the log. */
static bool ended(const struct file *file, const struct superblock *super)
{
    return super->state == SUPER_OPEN_LIVE || /* no log hangs on it */
           (super->state == SUPER_SEALED && wal_name_look(file->log_path, super->id) != 0);
}

/* Steps 3, 4 and 6 left to the first commit, where it will hardly fail for want of a log (txn_log.c): file and superblocks are as
 * a close leaves them, nothing lies under the log's name, and one could be made now. */
static bool may_be_late(const struct file *file, const struct superblock *super)
{
    uint64_t file_bytes;
    return super->state == SUPER_SEALED && !file->in_memory && superblock_has_twin(file, super) &&
           file_size(file->fd, &file_bytes) == 0 && file_bytes == format_file_bytes(super->used_bytes) + TAIL_BYTES &&
           wal_name_look(file->log_path, NULL) == ENOENT && file_may_make(file->log_path, LATE_ROOM_BYTES);
}

/* Steps 2 to 4; *bytes: the image to map. */
static int prepare_first(struct image *image, uint64_t *bytes, struct txn_replaced *replaced)
{
    int rc;
    const struct image_options *options = &image->options;
    struct superblock *super = image->super;
    uint32_t found = super->state;
    image->options.late_log = image->options.late_log && is_writer(options) && may_be_late(image->file, super);
    if (found == SUPER_SEALED && !image->file->in_memory) {
        rc = tail_check(image->file->fd, super->id, super->checkpoint, super->commit_seq);
        if (rc != 0)
            return rc;
    }
    if (!is_writer(options)) {
        *bytes = super->used_bytes; /* not sealed: the log, or the crashed heap, may reach further */
        return found == SUPER_SEALED ? 0 : held_bytes(image->file, super->capacity_bytes, bytes);
    }
    if (options->late_log) {
        *bytes = super->used_bytes;
        return 0;
    }
    if (!image->file->in_memory && !ended(image->file, super)) {
        rc = superblock_settle(image->file);
        if (rc != 0)
            return rc;
    }
    if (found == SUPER_OPEN_LOGGED) {
        rc = txn_recover(image->file, super, options->shared, &image->recovered, replaced);
        if (rc != 0)
            return rc;
    }
    if (found == SUPER_OPEN_LIVE) { /* crashed and accepted: all that is in the file belongs to the heap */
        super->checksums_valid = 0;
        rc = held_bytes(image->file, super->capacity_bytes, bytes);
        super->used_bytes = max_u64(*bytes, super->used_bytes);
    } else {
        rc = found == SUPER_SEALED ? clean_tail(image->file, super) : 0;
    }
    if (rc == 0)
        rc = reserve_blocks(image->file, super, options->kind == IMAGE_SHARED);
    *bytes = super->used_bytes;
    return rc;
}

static int map_image(struct image *image, uint64_t bytes)
{
    static const enum map_kind kinds[] = {
        [IMAGE_PRIVATE] = MAP_IMAGE_PRIVATE, [IMAGE_SHARED] = MAP_IMAGE_SHARED, [IMAGE_READ] = MAP_IMAGE_READ};
    const struct superblock *super = image->super;
    enum map_kind kind = image->options.inspect ? MAP_IMAGE_READ
                         : image->replay        ? MAP_IMAGE_PRIVATE
                                                : kinds[image->options.kind];
    /* Shows the file as well, and can be ahead of it (follow.c).  A reader that is not attached may outlive LIVE. */
    if (kind == MAP_IMAGE_READ && !image->options.inspect && !image->file->in_memory &&
        (super->state != SUPER_OPEN_LIVE || image->options.shared == NULL))
        kind = MAP_IMAGE_VIEW;
    bool twin = is_writer(&image->options) && kind == MAP_IMAGE_PRIVATE;
    int rc = address_permitted(image->file->path, super->base, super->capacity_bytes);
    if (rc == 0)
        rc = map_open(&image->map, image->file->fd, kind, (void *)(uintptr_t)super->base, bytes, super->capacity_bytes,
                      twin);
    if (rc == STEAD_ADDRESS_TAKEN && image->options.any_address && image->options.kind == IMAGE_READ)
        rc = map_open(&image->map, image->file->fd, kind, NULL, bytes, super->capacity_bytes, false);
    return rc;
}

/* A reader of a store whose writer crashed: the log goes into private pages, which are then made read-only. */
static int replay_privately(struct image *image)
{
    bool replayed = false;
    int rc = txn_private_replay(image->file, image->super, &image->map, &image->replayed, &replayed);
    if (rc != 0)
        return rc;
    image->recovered = replayed;
    if (mprotect(image->map.base, (size_t)image->map.bytes, PROT_READ) != 0)
        return error_set(errno, "cannot protect the replayed image of %.300s: %s", image->file->path,
                         error_text(errno));
    return 0;
}

/* Steps 6 and 7 */
static int begin_writing(struct image *image)
{
    int rc;
    struct superblock *super = image->super;
    if (image->options.kind == IMAGE_PRIVATE) {
        bool recovered = super->state == SUPER_OPEN_LOGGED;
        rc = txn_open(&image->txn, &image->map, image->file, super, &image->options);
        if (rc == 0 && image->options.first && recovered) /* the other copy: now both name this log */
            rc = superblock_write(image->file, super, true);
        return rc;
    }
    if (!image->options.first)
        return 0;
    rc = image->file->in_memory ? 0 : file_sync_directory(image->file->path);
    if (rc != 0 && rc != EACCES) /* one that may not be read: by its maker alone */
        return rc;
    struct superblock live = *super;
    live.state = SUPER_OPEN_LIVE;
    live.checksums_valid = 0;
    live.log_salt = 0;
    rc = superblock_write_both(image->file, &live);
    if (rc == 0)
        *super = live;
    if (rc == 0 && !image->file->in_memory)
        rc = tail_clear(image->file->fd); /* what comes behind is mapped as it is */
    return rc;
}

int image_open(struct image **out, struct file *file, struct superblock *super, const struct image_options *options)
{
    int rc;
    uint64_t bytes = 0;
    struct txn_replaced replaced = {.count = 0};
    struct image *image = calloc(1, sizeof *image);
    *out = NULL;
    if (image == NULL)
        return error_set(ENOMEM, "no memory to open %.300s", file->path);
    image->file = file;
    image->super = super;
    image->options = *options;
    image->replay = options->kind == IMAGE_READ && options->first && super->state == SUPER_OPEN_LOGGED;
    rc = check_file_system(file, options);
    if (rc != 0)
        goto free_image;
    if (options->first)
        rc = prepare_first(image, &bytes, &replaced);
    else
        rc = held_bytes(file, super->capacity_bytes, &bytes);
    if (rc != 0)
        goto free_image;
    rc = pthread_mutex_init(&image->mutex, NULL);
    if (rc != 0)
        goto free_image;
    rc = map_image(image, bytes);
    if (rc != 0)
        goto destroy_mutex;
    if (image->replay)
        rc = replay_privately(image);
    else if (is_writer(options))
        rc = begin_writing(image);
    if (rc != 0)
        goto close_map;
    if (image->txn != NULL)
        txn_retire(image->txn, &replaced);
    txn_close_replaced(&replaced);
    *out = image;
    return 0;
close_map:
    if (image->txn != NULL)
        txn_close(image->txn);
    map_close(&image->map);
    follow_release(image);
destroy_mutex:
    (void)pthread_mutex_destroy(&image->mutex);
free_image:
    txn_close_replaced(&replaced);
    free(image);
    return rc;
}

void image_close(struct image *image)
{
    (void)image_unpin(image);
    if (image->txn != NULL)
        txn_close(image->txn);
    map_close(&image->map);
    follow_release(image);
    (void)pthread_mutex_destroy(&image->mutex);
    free(image);
}

void image_forget(struct image *image)
{
    /* The range was never mapped in this child (MADV_DONTFORK); something else of it may live there by now. */
    if (image->txn != NULL)
        txn_forget(image->txn);
    follow_release(image);
    free(image);
}

/* ---- what it is ---- */

void *image_base(const struct image *image)
{
    return image->map.base;
}

uint64_t image_bytes(const struct image *image)
{
    return __atomic_load_n(&image->map.bytes, __ATOMIC_ACQUIRE);
}

uint64_t image_capacity(const struct image *image)
{
    return image->map.capacity;
}

bool image_recovered(const struct image *image)
{
    return image->recovered;
}

uint64_t image_commit_seq(const struct image *image)
{
    if (image->txn != NULL)
        return txn_commit_seq(image->txn);
    return max_u64(image->super->commit_seq, atomic_load(&image->follow.seq)); /* what a reader was shown last */
}

/* ---- growth ---- */

uint64_t image_follow(struct image *image)
{
    uint64_t held;
    uint64_t mapped = image_bytes(image);
    if (held_bytes(image->file, image->map.capacity, &held) != 0 || held <= mapped || image->replay ||
        image->stale_tail)
        return mapped;
    (void)map_extend(&image->map, held);
    return image_bytes(image);
}

/* Blocks for image bytes [from, to), to the end of a group's table where one begins.  later: none of them is mapped from the
 * file before a commit has it. */
static int reserve_image(struct image *image, uint64_t from, uint64_t to, bool later)
{
    uint64_t at = format_file_bytes(from), end = format_file_bytes(to);
    int rc = check_file_limit(image->file, image->options.kind == IMAGE_SHARED ? end : end + TAIL_BYTES);
    if (rc != 0)
        return rc;
    if (image->options.kind == IMAGE_SHARED) {
        /* A block behind the end for the mark, too: a full disk must not stop the close. */
        rc = image->file->in_memory ? 0 : file_reserve_beyond(image->file->fd, at, end + TAIL_BYTES - at);
        return rc == 0 || rc == EOPNOTSUPP ? file_reserve(image->file->fd, at, end - at) : rc;
    }
    (void)pthread_mutex_lock(&image->map.mutex); /* the mark is raised under it */
    rc = later ? tail_move_later(image->file->fd, at, end, image->super->id)
               : tail_move(image->file->fd, at, end, image->super->id);
    (void)pthread_mutex_unlock(&image->map.mutex);
    image->stale_tail = image->stale_tail || rc == STEAD_FAILED;
    return rc == STEAD_FAILED ? EIO : rc;
}

/* How much more than `wanted` is taken. */
static uint64_t slack_bytes(const struct image *image, uint64_t wanted)
{
    if (image->options.kind == IMAGE_SHARED)
        return min_u64(max_u64(wanted / SLACK_SHARE, SLACK_SHARED_BYTES_MIN), SLACK_SHARED_BYTES_MAX);
    return min_u64(max_u64(wanted, SLACK_BYTES_MIN), SLACK_BYTES_MAX);
}

static int extend_locked(struct image *image, uint64_t bytes)
{
    int rc;
    uint64_t mapped = image_bytes(image);
    if (bytes <= mapped)
        return 0; /* another thread was faster */
    uint64_t wanted = round_up(bytes, UNIT_BYTES);
    uint64_t target = round_up(wanted + slack_bytes(image, wanted), UNIT_BYTES), held;
    target = min_u64(target, image->map.capacity);
    bool at_end = held_bytes(image->file, image->map.capacity, &held) == 0 && held == mapped;
    /* Nobody else was longer: what is new reads as zeros, and will be written by this process's commits alone. */
    bool fresh = image->options.kind == IMAGE_PRIVATE && at_end;
    bool later = fresh && !image->options.turns && image->txn != NULL;
    rc = reserve_image(image, mapped, target, later);
    if ((rc == ENOSPC || rc == EDQUOT) && image->txn != NULL && txn_free_retired(image->txn))
        rc = reserve_image(image, mapped, target, later);
    if ((rc == ENOSPC || rc == EDQUOT || rc == EFBIG) && target != wanted) {
        target = wanted;
        rc = reserve_image(image, mapped, target, later);
    }
    if (rc != 0 && rc != EFBIG)
        return error_set(rc, "cannot reserve disk blocks for %.300s to grow to %" PRIu64 " bytes: %s",
                         image->file->path, target, error_text(rc));
    if (rc != 0)
        return rc;
    if (at_end)
        image_ready_growth(image, mapped, wanted, target);
    rc = fresh ? map_extend_fresh(&image->map, target) : map_extend(&image->map, target);
    /* No anonymous memory: it shows the file, the old mark, too; or will, when what the file has is mapped after all. */
    if (later && (rc != 0 || image->map.fresh_from > mapped) && txn_confirm_length(image->txn) != 0)
        rc = txn_poison(image->txn, EIO, "the store file's new end is not known");
    return rc;
}

int image_extend(struct image *image, uint64_t bytes)
{
    int rc;
    if (bytes <= image_bytes(image))
        return 0;
    if (!is_writer(&image->options))
        return error_set(EROFS, "%.300s is open for reading only", image->file->path);
    if (bytes > image->map.capacity)
        return error_set(ENOMEM, "%.300s: %" PRIu64 " bytes exceed the capacity of %" PRIu64, image->file->path, bytes,
                         image->map.capacity);
    (void)pthread_mutex_lock(&image->mutex);
    rc = bytes <= image_follow(image) ? 0 : extend_locked(image, bytes);
    (void)pthread_mutex_unlock(&image->mutex);
    return rc;
}

/* ---- IMAGE_PRIVATE: the engine's ---- */

static int refuse_transaction(const struct image *image)
{
    return error_set(ENOTSUP, "%.300s is not open for transactions", image->file->path);
}

int image_commit(struct image *image, uint64_t used_bytes, uint64_t *seq)
{
    return image->txn != NULL ? txn_commit(image->txn, used_bytes, seq) : refuse_transaction(image);
}

int image_commit_deferred(struct image *image, uint64_t used_bytes, uint64_t *seq)
{
    return image->txn != NULL ? txn_commit_deferred(image->txn, used_bytes, seq) : refuse_transaction(image);
}

int image_sync(struct image *image, uint64_t seq)
{
    return image->txn != NULL ? txn_sync(image->txn, seq) : refuse_transaction(image);
}

int image_rollback(struct image *image)
{
    return image->txn != NULL ? txn_rollback(image->txn) : refuse_transaction(image);
}

int image_changed(struct image *image, uint64_t used_bytes, bool *changed)
{
    return image->txn != NULL ? txn_changed(image->txn, used_bytes, changed) : refuse_transaction(image);
}

int image_refresh(struct image *image, bool *changed)
{
    uint64_t held;
    if (image->txn != NULL && image->options.turns && held_bytes(image->file, image->map.capacity, &held) == 0 &&
        held != image->settled_bytes) {
        int rc = txn_confirm_length(image->txn); /* whoever made it longer may have been killed */
        if (rc != 0)
            return rc;
        image->settled_bytes = held;
    }
    (void)image_follow(image); /* whoever had the turn may have made the file longer */
    return image->txn != NULL ? txn_refresh(image->txn, changed) : refuse_transaction(image);
}

int image_apply(struct image *image)
{
    return image->txn != NULL ? txn_apply(image->txn) : refuse_transaction(image);
}

bool image_has_unapplied(const struct image *image)
{
    return image->txn != NULL && txn_has_unapplied(image->txn);
}

enum image_work image_work_due(const struct image *image)
{
    return image->txn != NULL ? txn_work_due(image->txn) : IMAGE_REST;
}

int image_apply_some(struct image *image)
{
    return image->txn != NULL ? txn_apply_some(image->txn) : refuse_transaction(image);
}

int image_sync_some(struct image *image)
{
    return image->txn != NULL ? txn_sync_some(image->txn) : refuse_transaction(image);
}

bool image_wants_checkpoint(const struct image *image)
{
    return image->txn != NULL && txn_wants_checkpoint(image->txn);
}

bool image_limit_waits(const struct image *image)
{
    return image->txn != NULL && txn_limit_waits(image->txn);
}

uint64_t image_waiting_bytes(const struct image *image)
{
    return image->txn != NULL ? txn_waiting_bytes(image->txn) : 0;
}

int image_checkpoint(struct image *image)
{
    return image->txn != NULL ? txn_checkpoint(image->txn) : refuse_transaction(image);
}

bool image_can_seal(const struct image *image, int rc)
{
    return rc == 0 || (image->txn != NULL && txn_home_without_log(image->txn, rc));
}

bool image_is_late(const struct image *image)
{
    return image->txn != NULL && txn_is_late(image->txn);
}

bool image_log_named(const struct image *image)
{
    return image->txn == NULL || txn_log_named(image->txn);
}

void image_unname_log(struct image *image)
{
    if (image->txn != NULL)
        txn_unname_log(image->txn);
}

bool image_failed(const struct image *image)
{
    return image->txn != NULL && txn_failed(image->txn);
}
