/*
 * fresh.c -- new space: pages that no commit has yet, on their way from anonymous memory into the file.
 *
 *   image   | committed: mapped from the file | fresh: anonymous (map.c)             | reserved
 *           0                      fresh_from ^                used_bytes of the commit in hand ^
 *
 * Growth is anonymous memory until a commit has it.  The file already has blocks there, which read as zeros, and nothing
 * refers to them (used_bytes).  A commit, exclusive as all of this:
 *
 *   step                                                 a crash right after it leaves
 *   1 pages of zeros taken out: the file has them        the last commit
 *   2 many: each checksummed, logged as a checksum,      the last commit; recovery clears what is past its end
 *       written into the file, writeback started behind
 *       the copy; the file synced
 *     few: written into the file without a sync; the     the same
 *       record holds them whole, from zeros
 *   3 the record written, and so on (commit.c)           as there
 *   4 [fresh_from, used_bytes) mapped from the file:     the same
 *       it shows the bytes of step 2, and zeros
 *
 * So the write-ahead rule is kept as for all straight pages: a page past the end means nothing until a record says how long
 * the image is, and that record is written after the page.  Until then `straight_from, straight_to` remember what was
 * written, for a rollback to clear, or a commit that ends before it; such a page is not taken for a page of zeros in step 1
 * (W14).
 *
 * Step 4 needs no page fault afterwards to be a copy: the page cache has what was written a moment ago.  A thread that
 * reads meanwhile waits in its fault and finds the same bytes.  If there is no memory to map, the pages stay anonymous:
 * they are candidates of every commit, compared as all old pages are, and step 4 is tried again then, and by a
 * rollback: what the log has of them and the file has not is put back from the overlay, the one moment at which a
 * reader without lock may see an older byte.  (Kernels that fail half-way, with the old mapping gone, leave nothing to
 * go on with: the store fails.)
 *
 * Huge pages.  A transaction that touched a byte has 512 pages there; step 1 finds all but one of them zeros, at some
 * 50 ns a page, and what lies past used_bytes is given back so that the next collect need not look (W19).
 *
 * A rollback gives all of the fresh range back.  In TURNS the next section may find that others have written
 * there: nothing stays anonymous beyond a section (fresh_give_up).
 *
 *   W18  a page of the fresh range at or past used_bytes has no overlay, is not hot and not protected
 *   W19  after a commit no page of zeros is left in the fresh range (but in kernel pages larger than ours), and each page
 *        that is left is in `carry`
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/error.h"
#include "base/units.h"
#include "persist/page_checksum.h"
#include "persist/txn_internal.h"

#define CHUNK_PAGES SCRATCH_PAGES           /* 256 KiB: copied, checksummed and written while the cache has it */
#define WRITEBACK_BYTES (UINT64_C(8) << 20) /* behind the copy; less than this is not worth a call */
#define LOOK_AHEAD 8                        /* pages: the first line of each is a cache miss */

static uint8_t *image_page(const struct txn *txn, uint64_t page)
{
    return txn->map->base + page * PAGE_BYTES;
}

static bool is_fresh(const struct txn *txn, uint64_t page)
{
    return page >= txn->map->fresh_from / PAGE_BYTES;
}

static bool is_zero(const uint8_t *bytes)
{
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
    return word == 0 && memcmp(bytes, bytes + sizeof word, PAGE_BYTES - sizeof word) == 0;
}

size_t fresh_skip_zeros(struct txn *txn, struct page_list *list, size_t from, size_t to)
{
    size_t kept = from;
    for (size_t i = from; i < to; i++) {
        uint64_t page = list->page[i];
        if (i + LOOK_AHEAD < to)
            __builtin_prefetch(image_page(txn, list->page[i + LOOK_AHEAD]));
        bool written = page >= txn->straight_from && page < txn->straight_to;
        if (written || !is_fresh(txn, page) || !is_zero(image_page(txn, page)))
            list->page[kept++] = page;
    }
    if (to != kept)
        memmove(list->page + kept, list->page + to, (list->count - to) * sizeof list->page[0]);
    list->count -= to - kept;
    return to - kept;
}

/* `count` pages that follow each other in image and file, their checksums in the table, and with `log` in the record.  By way
 * of a copy: a thread that writes without the lock, against the rules, loses that write and no more; checksums of
 * other bytes than the file's would make recovery refuse the store. */
static int write_chunk(struct txn *txn, uint64_t page, size_t count, bool log)
{
    int rc = 0;
    uint64_t entry[CHUNK_PAGES], at = page * PAGE_BYTES;
    memcpy(txn->scratch, image_page(txn, page), count * PAGE_BYTES);
    for (size_t i = 0; i < count && rc == 0; i++) {
        entry[i] = page_checksum(txn->scratch + i * PAGE_BYTES);
        if (log)
            rc = wal_add_straight(&txn->wal, at + i * PAGE_BYTES, entry[i]);
    }
    checksum_cache_drop(&txn->checksums, page, count);
    if (rc == 0)
        rc = file_write_at(txn->file->fd, txn->scratch, count * PAGE_BYTES, format_file_offset(at));
    if (rc == 0) /* of few pages too: whoever reads a page of the file verifies it (W17) */
        rc = file_write_at(txn->file->fd, entry, count * sizeof entry[0], format_checksum_offset(at));
    return rc;
}

int fresh_write(struct txn *txn, const struct page_list *list, size_t from, size_t to, bool log)
{
    int rc = 0;
    if (from == to)
        return 0;
    uint64_t first = list->page[from], end = list->page[to - 1] + 1;
    uint64_t behind = format_file_offset(first * PAGE_BYTES);
    txn->straight_from = txn->straight_to == 0 ? first : min_u64(txn->straight_from, first);
    txn->straight_to = max_u64(txn->straight_to, end);
    for (size_t i = from; i < to && rc == 0;) {
        uint64_t page = list->page[i], limit = format_contiguous(page * PAGE_BYTES) / PAGE_BYTES;
        size_t run = page_list_run(list, i, (size_t)min_u64(min_u64(limit, CHUNK_PAGES), to - i));
        rc = write_chunk(txn, page, run, log);
        i += run;
        uint64_t here = format_file_offset(page * PAGE_BYTES) + run * PAGE_BYTES;
        if (here - behind >= WRITEBACK_BYTES) {
            file_start_writeback(txn->file->fd, behind, here - behind);
            behind = here;
        }
    }
    return rc == 0 ? 0 : error_set(rc, "cannot write new pages into %s: %s", txn->file->path, error_text(rc));
}

/* [fresh_from, to) becomes the file. */
static int show_file(struct txn *txn, uint64_t to)
{
    bool lost;
    uint64_t from = txn->map->fresh_from;
    if (min_u64(to, txn->map->bytes) <= from)
        return 0;
    int rc = map_settle(txn->map, to, &lost);
    dirty_remapped(txn->dirty, from, txn->map->fresh_from);
    return lost ? txn_poison(txn, rc, "new space could not be mapped from the file") : rc;
}

void fresh_committed(struct txn *txn, const struct page_list *list, size_t from, size_t to)
{
    (void)show_file(txn, txn->used_bytes); /* else pages stay anonymous, or the store has failed */
    for (size_t i = from; i < to; i++) {
        const uint8_t *newest = overlay_get(&txn->overlay, list->page[i]);
        if (newest != NULL && !is_fresh(txn, list->page[i])) /* and not in the file yet */
            memcpy(image_page(txn, list->page[i]), newest, PAGE_BYTES);
    }
}

/* Gives [first, first + count) of the fresh range, pages of zeros, back. */
static void give_back(const struct txn *txn, uint64_t first, uint64_t count)
{
    if (count != 0) /* a failure leaves them there, to be looked at again */
        (void)madvise(image_page(txn, first), count * PAGE_BYTES, MADV_DONTNEED);
}

void fresh_carry(struct txn *txn, const struct page_list *list, size_t from)
{
    uint64_t first = 0, count = 0;
    txn->carry.count = 0;
    for (size_t i = from; i < list->count; i++) {
        uint64_t page = list->page[i];
        if (!is_fresh(txn, page) || dirty_leaves_private(txn->dirty) || !is_zero(image_page(txn, page))) {
            txn->carry.page[txn->carry.count++] = page;
            continue;
        }
        if (first + count != page) {
            give_back(txn, first, count);
            first = page;
            count = 0;
        }
        count++;
    }
    give_back(txn, first, count);
}

int fresh_clear(struct txn *txn, uint64_t page)
{
    uint64_t from = max_u64(txn->straight_from, page), to = txn->straight_to;
    txn->straight_from = txn->straight_to = 0;
    if (from >= to)
        return 0;
    int rc = apply_zeros(txn, from, to);
    if (rc == 0)
        rc = file_sync_range(txn->file->fd, GROUP0_OFFSET,
                             format_file_bytes(round_up(to * PAGE_BYTES, UNIT_BYTES)) - GROUP0_OFFSET);
    return rc != 0 ? txn_poison(txn, rc, "new pages could not be taken back") : 0;
}

int fresh_rollback(struct txn *txn)
{
    uint64_t from = txn->map->fresh_from;
    int rc = show_file(txn, txn->turns ? txn->map->bytes : txn->used_bytes);
    if (rc != 0 && txn->map->fresh_from != from) /* some show the file, which may be older than the last commit */
        return txn_poison(txn, rc, "a rollback came half-way");
    if (rc != 0)
        return rc;
    rc = map_empty_fresh(txn->map);
    return rc != 0 ? error_set(rc, "cannot drop new space: %s", error_text(rc)) : 0;
}

int fresh_give_up(struct txn *txn)
{
    return show_file(txn, txn->map->bytes);
}
