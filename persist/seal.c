/*
 * seal.c -- making the file whole: LIVE commits (image_flush) and the close of the last process (image_seal).
 *
 * image_flush(), step                                a crash right after it leaves (LIVE: unclean, always)
 *   1 ranged sync of tables and image                the new bytes, the old header
 *   2 superblock with the new commit_seq, synced     the new bytes, the new header
 * The range ends before nothing but the used length and begins behind the lock unit, whose page is never synced.
 *
 * image_seal(), step                                 a crash right after it leaves
 *   1 PRIVATE: txn_checkpoint()                      open, the log empty: the last commit
 *   2 the mark at the end of the file raised; then   the same; checksums are not believed
 *     checksums_valid = 0 in a superblock, if 3 has
 *     anything to do
 *   3 PRIVATE, and longer than the last commit:      the same: no commit has what lies behind it
 *     the file's end confirmed (tail.c)
 *     free ranges punched, their checksums cleared;  the same: no live object lies in a free range
 *     LIVE, or not valid before: all computed
 *   4 a mark behind the used length, where the file  the same
 *     will end; ranged sync of tables and image
 *   5 superblock sealed, synced; then its twin       open (1 to 4 are done again or by recovery), or sealed
 *   6 file cut off behind the used length            sealed; the next opener clears what is left of the tail
 *   7 log unlinked                                   sealed; a log that no superblock names is ignored
 *
 * A failure of step 5 leaves nobody knowing whether the disk says "sealed", and the store stays open: later commits into a log
 * that a sealed superblock does not name would be lost with the process, and LIVE would be taken for clean.  So both
 * superblocks are made to say "open" again, as at the beginning of the session, before image_seal() returns; if that
 * fails, too, no commit is made any more.
 *
 * A disk so full that step 1 finds no space for the new log, or one that may not be replaced (apply.c), stops nobody from
 * closing: its other half, the file being the last commit, synced, is enough.  The old log then is the superblock's until
 * step 5, and recovery may replay all of it; so step 3 punches nothing and the file keeps its length, as with readers.
 * Step 7 gives the log's space back.
 *
 * A SOLE session that committed nothing had no log (txn_log.c): it leaves the superblocks as it found them, times included.
 *
 * Step 3 comes after 1, because recovery would replay records into punched pages; and before 5, because a sealed store
 * has no log that could tell which pages were being punched.  After step 5 nothing can fail any more that matters: 6 and
 * 7 are tidying, and the next open does it again.
 *
 *   P8  after a failed image_seal() the superblocks say "open", or the store has failed
 *   P3  sealed: checksums_valid, unless the store is a section in memory; blocks are missing only where pages are zeros
 */
#include <errno.h>
#include <inttypes.h>

#include "base/error.h"
#include "persist/image_internal.h"
#include "persist/scrub.h"
#include "persist/superblock.h"
#include "persist/tail.h"
#include "persist/txn.h"
#include "persist/wal.h"

static int sync_image(const struct image *image, uint64_t used_bytes)
{
    if (image->file->in_memory)
        return 0;
    int rc =
        file_sync_range(image->file->fd, GROUP0_OFFSET, format_file_bytes(used_bytes) + TAIL_BYTES - GROUP0_OFFSET);
    return rc == 0 ? 0 : error_set(rc, "cannot sync %.300s: %s", image->file->path, error_text(rc));
}

/* What the caller means by "used", made safe: whole units that are mapped. */
static uint64_t clamp_used(const struct image *image, uint64_t used_bytes)
{
    return min_u64(max_u64(round_up(used_bytes, UNIT_BYTES), UNIT_BYTES), image_bytes(image));
}

int image_flush(struct image *image, struct superblock *super, uint64_t used_bytes)
{
    int rc;
    uint64_t used = clamp_used(image, used_bytes);
    if (image->options.kind != IMAGE_SHARED || image->options.inspect)
        return error_set(EINVAL, "%.300s is not open in LIVE", image->file->path);
    rc = sync_image(image, used);
    if (rc != 0)
        return rc;
    super->state = SUPER_OPEN_LIVE;
    super->checksums_valid = 0;
    super->used_bytes = used;
    return superblock_write(image->file, super, true);
}

/* Step 3 for one range: pages become zeros, their checksums those of zeros. */
static int punch(const struct image *image, uint64_t from, uint64_t to)
{
    int rc = 0;
    for (uint64_t at = from; at < to && rc == 0;) {
        uint64_t part = min_u64(format_contiguous(at), to - at);
        rc = file_punch(image->file->fd, format_file_offset(at), part);
        if (rc == 0)
            rc = scrub_clear(image->file->fd, at, at + part);
        at += part;
    }
    return rc;
}

static int punch_free_ranges(struct image *image, uint64_t used_bytes, const struct image_free_range *ranges,
                             unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        uint64_t from = round_up(ranges[i].offset, UNIT_BYTES);
        uint64_t end =
            ranges[i].bytes > UINT64_MAX - ranges[i].offset ? UINT64_MAX : ranges[i].offset + ranges[i].bytes;
        uint64_t to = round_down(min_u64(end, used_bytes), UNIT_BYTES);
        int rc = from < to ? punch(image, from, to) : 0;
        if (rc == EOPNOTSUPP)
            return 0; /* the file keeps its blocks */
        if (rc != 0)
            return error_set(rc, "cannot give back free blocks of %.300s: %s", image->file->path, error_text(rc));
    }
    return 0;
}

/* Steps 2 and 3 */
static int settle_content(struct image *image, struct superblock *super, uint64_t used_bytes,
                          const struct image_free_range *ranges, unsigned count)
{
    int rc;
    bool rebuild_all = super->checksums_valid == 0;
    /* SOLE, TURNS: what was never committed may be part of the file from now on.  Its pages and their checksums are zeros (W14),
     * but for a place where the file once ended (T4). */
    if (image->txn != NULL && txn_used_bytes(image->txn) < used_bytes) {
        rc = txn_confirm_length(image->txn);
        if (rc != 0)
            return rc;
    }
    if (count > 0 && !rebuild_all) {
        super->checksums_valid = 0;
        rc = superblock_write(image->file, super, true);
        if (rc != 0)
            return rc;
    }
    rc = punch_free_ranges(image, used_bytes, ranges, count);
    if (rc != 0)
        return rc;
    if (rebuild_all && !image->file->in_memory)
        rc = scrub_rebuild(image->file->fd, 0, used_bytes);
    if (rc == 0) /* pages between the old and the new end */
        rc = scrub_clear(image->file->fd, used_bytes, image_bytes(image));
    return rc == 0 ? 0 : error_set(rc, "cannot write the checksums of %.300s: %s", image->file->path, error_text(rc));
}

/* Before free ranges are punched, which no older superblock and log explain; and where a crash may leave the end. */
static int raise_mark(const struct image *image, const struct superblock *super, uint64_t seq)
{
    if (image->file->in_memory)
        return 0;
    int rc = tail_raise(image->file->fd, super->id, super->checkpoint, seq);
    return rc == 0 ? 0 : error_set(rc, "cannot write the end of %.300s: %s", image->file->path, error_text(rc));
}

/* Step 4: also where the file will end once it is cut off.  *at: there, or 0. */
static int mark_cut(const struct image *image, const struct superblock *super, uint64_t seq, uint64_t used_bytes,
                    uint64_t *at)
{
    uint64_t file_bytes, end = format_file_bytes(used_bytes);
    *at = 0;
    if (image->file->in_memory)
        return 0;
    int rc = file_size(image->file->fd, &file_bytes);
    if (rc == 0 && end < tail_offset(file_bytes)) {
        rc = tail_write(image->file->fd, end, super->id, super->checkpoint, seq);
        *at = end;
    }
    return rc == 0 ? 0 : error_set(rc, "cannot write the end of %.300s: %s", image->file->path, error_text(rc));
}

/* Step 5 failed.  The sequence goes on from what was certainly written: an uncertain copy is written over first. */
static int unseal(const struct image *image, struct superblock *super, const struct superblock *before)
{
    struct superblock open = *before;
    open.sequence = super->sequence;
    int rc = superblock_write_both(image->file, &open);
    if (rc == 0)
        *super = open;
    else if (image->txn != NULL)
        (void)txn_poison(image->txn, rc, "the superblock could not be written");
    return rc;
}

/* Step 5.  On failure super->state says what the disk may say. */
static int write_sealed(const struct image *image, struct superblock *super, uint64_t commit_seq, uint64_t used_bytes)
{
    const struct superblock before = *super;
    super->commit_seq = commit_seq;
    super->used_bytes = used_bytes;
    super->checksums_valid = image->file->in_memory ? 0 : 1;
    int rc = superblock_seal(image->file, super);
    if (rc != 0 && unseal(image, super, &before) != 0)
        super->state = SUPER_SEALED;
    return rc;
}

/* Step 6; what stays is cleared by the next opener. */
static void cut_off(const struct image *image, uint64_t used_bytes)
{
    uint64_t file_bytes;
    uint64_t end = format_file_bytes(used_bytes) + (image->file->in_memory ? 0 : TAIL_BYTES);
    if (file_size(image->file->fd, &file_bytes) == 0 && file_bytes > end)
        (void)file_truncate(image->file->fd, end);
}

/* A session that had no log (txn_log.c): the superblocks are sealed as they were, and only growth that came to nothing is cut
 * off, the mark in its former place again.  With readers attached the caller's length leaves nothing to be cut. */
static void give_back_growth(const struct image *image, const struct superblock *super, uint64_t used_bytes)
{
    uint64_t file_bytes, used = max_u64(used_bytes, super->used_bytes), end = format_file_bytes(used);
    if (file_size(image->file->fd, &file_bytes) == 0 && end < tail_offset(file_bytes) &&
        tail_write(image->file->fd, end, super->id, super->checkpoint, super->commit_seq) == 0)
        cut_off(image, used);
}

int image_seal(struct image *image, struct superblock *super, uint64_t used_bytes,
               const struct image_free_range *free_ranges, unsigned free_range_count)
{
    int rc;
    uint64_t used = clamp_used(image, used_bytes);
    if (image->options.kind == IMAGE_READ || image->options.inspect)
        return error_set(EROFS, "%.300s is open for reading only", image->file->path);
    rc = image->txn == NULL ? 0 : txn_checkpoint(image->txn);
    if (!image_can_seal(image, rc))
        return rc;
    if (image_is_late(image)) {
        give_back_growth(image, super, used);
        return 0;
    }
    uint64_t seq = super->commit_seq;
    /* No space for a new log: the old one still names pages, and is the superblock's with the old number. */
    if (rc != 0) {
        seq = txn_commit_seq(image->txn);
        used = image_bytes(image);
        free_range_count = 0;
    }
    /* A session without a commit: what the superblocks said when it began is still true, table and length included. */
    bool untouched = image->txn != NULL && txn_untouched(image->txn);
    bool same = untouched && used <= super->used_bytes && super->checksums_valid;
    if (same)
        used = super->used_bytes;
    rc = raise_mark(image, super, seq);
    if (rc == 0 && !same)
        rc = settle_content(image, super, used, free_ranges, untouched ? 0 : free_range_count);
    if (image->txn != NULL && !same)
        txn_forget_checksums(image->txn);
    if (rc != 0)
        return rc;
    uint64_t cut;
    rc = mark_cut(image, super, seq, used, &cut);
    if (rc == 0 && !same)
        rc = sync_image(image, used);
    if (rc == 0)
        rc = write_sealed(image, super, seq, used);
    if (rc != 0) {
        if (cut != 0) /* the image goes on, and that place is in it */
            (void)tail_erase(image->file->fd, cut);
        return rc;
    }
    cut_off(image, used);
    if (image->txn != NULL)
        txn_remove_logs(image->txn);
    return 0;
}
