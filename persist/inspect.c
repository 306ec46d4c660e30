/*
 * inspect.c -- looking at an image without changing it: figures, checks, the last commit's bytes, pinning.
 *
 * Checks and copies read with pread, never through the mapping: what cannot be read is an error code.  In SOLE and TURNS
 * the file and its table of checksums describe the last *applied* commit, which the caller holds still by the apply lock;
 * pages that are committed and not yet applied are verified by their log records (txn_check).
 *
 * A private replay (a crashed store, read where nobody may recover it): the pages that the log names may have been cut
 * off in the middle of their application, so that neither they nor their entries in the table need match anything; what
 * the log says of them was verified when it was replayed.  The same goes for the pages that a reader has from the log
 * (follow.c): a writer may have died in the middle of applying them.  All others are verified here like those of any
 * store.  Opening verifies none of them: it costs what the log is long, and a check of all pages what the store is.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/error.h"
#include "persist/image_internal.h"
#include "persist/scrub.h"
#include "persist/superblock.h"
#include "persist/txn.h"

#define CHECK_LOOKS 3 /* that must agree on a problem, where others open and close */

uint64_t image_applied_bytes(const struct image *image)
{
    uint64_t seq, used, bytes = image_bytes(image);
    if (image_is_live(image) || image->options.inspect)
        return bytes;
    if (atomic_load(&image->follow.seq) != 0) /* as of this reader's section */
        return min_u64(image->follow.base_used_bytes, bytes);
    if (image->replay || (image->options.first && image->options.kind == IMAGE_READ))
        return min_u64(image->super->used_bytes, bytes);
    if (image->options.shared != NULL && txn_shared_applied(image->options.shared, &seq, &used))
        return min_u64(used, bytes);
    if (image->txn != NULL && !txn_has_unapplied(image->txn))
        return min_u64(txn_used_bytes(image->txn), bytes);
    struct superblock now; /* without `shared`: what the last checkpoint said */
    return superblock_read(image->file, &now) == 0 ? min_u64(now.used_bytes, bytes) : 0;
}

typedef void page_namer(void *ctx, uint64_t offset, char *text, unsigned text_bytes);

/* The pages, as the superblock that was read just now tells of them. */
static void check_pages(struct image *image, const struct superblock *now, struct report *report,
                        page_namer *name_object, void *ctx)
{
    if (now->checksums_valid == 0)
        return; /* LIVE */
    uint64_t used = image_applied_bytes(image);
    struct page_list followed = {0};
    if (follow_list_pages(image, &followed) != 0) {
        report_unable(report, ENOMEM);
        return;
    }
    scrub_check(image->file->fd, used, image->replay ? &image->replayed : &followed, report, name_object, ctx);
    page_list_free(&followed);
    if (now->state == SUPER_SEALED && used == now->used_bytes)
        scrub_check_tail(image->file->fd, used, report);
}

/* The apply lock holds off all who change committed pages and their checksums in SOLE and TURNS, but not who opens a sealed
 * store: then table entries behind its used length may come, and in LIVE pages change.  The superblock says "open" before
 * that; so problems beside a superblock that has changed by the end are looked for once more (report.h). */
void image_check(struct image *image, struct report *report, page_namer *name_object, void *ctx)
{
    struct report found = {0};
    struct report_looks looks = {0};
    struct superblock now, then;
    if (superblock_read(image->file, &now) != 0)
        return; /* superblock_check() says it */
    if (image->txn != NULL)
        txn_check(image->txn, report);
    for (unsigned look = 0; look <= CHECK_LOOKS; look++) {
        if (look > 0) /* the first counts every problem, however many */
            report_look(&found, &looks);
        check_pages(image, &now, &found, name_object, ctx);
        if (found.problems == 0 || superblock_read(image->file, &then) != 0 || then.sequence == now.sequence)
            break;
        now = then;
    }
    report_add(report, &found);
}

int image_read_committed(struct image *image, uint64_t offset, void *buffer, size_t bytes)
{
    uint64_t end = image_bytes(image);
    if (offset > end || bytes > end - offset)
        return EIO;
    if (image->txn != NULL)
        return txn_read_committed(image->txn, offset, buffer, bytes);
    if (image->replay || follow_has_pages(image))
        return map_read(&image->map, offset, buffer, bytes); /* private pages hold it */
    return scrub_read_image(image->file->fd, offset, buffer, bytes);
}

void image_stat(struct image *image, struct image_stat *stat)
{
    uint64_t seq, used;
    *stat = (struct image_stat){.commit_seq = image->super->commit_seq};
    stat->durable_seq = stat->applied_seq = stat->commit_seq;
    if (image->txn != NULL)
        txn_stat(image->txn, stat);
    else if (atomic_load(&image->follow.seq) != 0)
        follow_stat(image, stat);
    else if (image->options.shared != NULL && txn_shared_applied(image->options.shared, &seq, &used))
        stat->commit_seq = stat->durable_seq = stat->applied_seq = seq;
    (void)file_size(image->file->fd, &stat->file_bytes);
}

/* ---- pinning ---- */

/* mlock makes every page of a private mapping private (measured); the second, shared view pins the page cache. */
static void *pin_target(const struct image *image)
{
    const uint8_t *view = image->map.twin != NULL ? image->map.twin : image->map.base;
    return (void *)(uintptr_t)view;
}

int image_pin(struct image *image, uint64_t used_bytes)
{
    int rc = 0;
    (void)pthread_mutex_lock(&image->mutex);
    uint64_t bytes = min_u64(used_bytes, image_bytes(image));
    if (mlock(pin_target(image), (size_t)bytes) != 0) {
        rc = error_set(errno, "cannot keep %llu bytes of %.300s in memory: %s", (unsigned long long)bytes,
                       image->file->path, error_text(errno));
    } else {
        image->pin_bytes = max_u64(image->pin_bytes, bytes);
    }
    (void)pthread_mutex_unlock(&image->mutex);
    return rc;
}

int image_unpin(struct image *image)
{
    int rc = 0;
    (void)pthread_mutex_lock(&image->mutex);
    if (image->pin_bytes != 0 && munlock(pin_target(image), (size_t)image->pin_bytes) != 0)
        rc = error_set(errno, "cannot unpin %.300s: %s", image->file->path, error_text(errno));
    if (rc == 0)
        image->pin_bytes = 0;
    (void)pthread_mutex_unlock(&image->mutex);
    return rc;
}
