/*
 * compare.c -- which bytes of a page differ from the last commit: they become runs of the record in hand.
 *
 * The base of the comparison is the last commit: the overlay's copy of a page that is logged and not yet applied, the
 * file's bytes (read, not mapped: an error there is a number and no signal) of all others, zeros for a page that is
 * new.  What is read from the file is verified by its checksum each time: application will write the whole page with a
 * new one, and bytes that rotted beside the changed ones would be taken for good ever after (W17).
 *
 * What is found out about each candidate is kept until the record exists (struct txn_finding): a page that the overlay has
 * gets there the bytes from the first that changed to the last, and no second search for its place.
 *
 * In a large store nothing that a commit of one page looks up is in the processor's cache.  So what can be foreseen is asked for
 * before the system call that reads the page's old version, and arrives meanwhile: a tenth of a commit of one record in a
 * resident store of 4 GiB.
 */
#include <string.h>

#include "base/error.h"
#include "base/units.h"
#include "persist/diff.h"
#include "persist/page_checksum.h"
#include "persist/txn_internal.h"

/* W17.  The pages in scratch are what was committed: else a new checksum would bless the damage. */
static int verify_base(struct txn *txn, uint64_t page, size_t count)
{
    uint64_t *entry;
    if (txn->super->checksums_valid == 0)
        return 0; /* after a crash in LIVE there are none */
    for (size_t i = 0; i < count; i++) {
        int rc = checksum_cache_get(&txn->checksums, page + i, &entry);
        if (rc != 0)
            return error_set(rc, "cannot read the checksum of page %llu of %s: %s", (unsigned long long)(page + i),
                             txn->file->path, error_text(rc));
        if (page_checksum(txn->scratch + i * PAGE_BYTES) != entry[(page + i) % CHECKSUM_BLOCK_PAGES])
            return error_set(
                STEAD_CORRUPT,
                "page %llu of %s was damaged on the disk (its checksum does not match): what was changed in "
                "it cannot be committed",
                (unsigned long long)(page + i), txn->file->path);
    }
    return 0;
}

/* The file's bytes of `count` pages from `page` on into scratch; side by side in the file. */
static int read_base(struct txn *txn, uint64_t page, size_t count)
{
    int rc = file_read_at(txn->file->fd, txn->scratch, count * PAGE_BYTES, format_file_offset(page * PAGE_BYTES));
    return rc != 0 ? error_set(rc, "cannot read page %llu of %s: %s", (unsigned long long)page, txn->file->path,
                               error_text(rc))
                   : verify_base(txn, page, count);
}

/* Candidate i; `whole`: all of it, if anything of it changed. */
int compare_log(struct txn *txn, size_t i, const void *base, bool whole)
{
    struct diff_run run[DIFF_MAX_RUNS];
    const uint64_t page = txn->candidates.page[i];
    const uint8_t *bytes = txn_image_page(txn, page);
    size_t runs = diff_page(bytes, base, run);
    txn->changed[i] = txn->changed[i] || runs != 0;
    if (whole && runs != 0) {
        run[0] = (struct diff_run){.offset = 0, .bytes = PAGE_BYTES};
        runs = 1;
    }
    if (runs != 0) {
        txn->finding[i].from = run[0].offset;
        txn->finding[i].to = (uint16_t)(run[runs - 1].offset + run[runs - 1].bytes);
    }
    int rc = runs != 0 ? txn_need_log(txn) : 0; /* late: made before the first run, so that none is lost */
    for (size_t r = 0; r < runs && rc == 0; r++)
        rc = wal_add_run(&txn->wal, page * PAGE_BYTES + run[r].offset, bytes + run[r].offset, run[r].bytes);
    return rc;
}

/* How many candidates from i on are side by side and have their base in the file.  Of a page in the overlay the file may hold
 * anything: its application may have failed half-way, or another process been killed in it. */
static size_t base_run(const struct txn *txn, size_t i, size_t end)
{
    const struct page_list *list = &txn->candidates;
    uint64_t limit = format_contiguous(list->page[i] * PAGE_BYTES) / PAGE_BYTES;
    size_t most = page_list_run(list, i, (size_t)min_u64(min_u64(limit, SCRATCH_PAGES), end - i)), run = 1;
    while (run < most && overlay_get(&txn->overlay, list->page[i + run]) == NULL)
        run++;
    return run;
}

/* What comparing the first candidate will look up, in no processor's cache if the store is large.  (Those of others were asked
 * for some pages ahead once: it gained nothing.) */
static void expect_first(const struct txn *txn)
{
    overlay_expect_look(&txn->overlay, txn->candidates.page[0]);
    checksum_cache_expect(&txn->checksums, txn->candidates.page[0]);
}

int compare_candidates(struct txn *txn, size_t count, size_t *changed_pages, size_t *added)
{
    size_t in_scratch = 0; /* pages read ahead */
    uint64_t scratch_page = 0;
    const struct page_list *list = &txn->candidates;
    if (count > 0)
        expect_first(txn);
    for (size_t i = 0; i < count; i++) {
        uint64_t page = list->page[i];
        uint8_t *waits = overlay_get(&txn->overlay, page);
        const uint8_t *base = waits;
        const bool waiting = base != NULL;
        const bool whole = !waiting && page * PAGE_BYTES >= txn->wal.straight_from; /* W27 */
        if (base == NULL) {
            if (page - scratch_page >= in_scratch) {
                if (in_scratch == 0)
                    overlay_expect_put(&txn->overlay);
                in_scratch = base_run(txn, i, count);
                scratch_page = page;
                int rc = read_base(txn, page, in_scratch);
                if (rc != 0)
                    return rc;
            }
            base = txn->scratch + (page - scratch_page) * PAGE_BYTES;
        }
        txn->changed[i] = false;
        txn->finding[i].overlay = waits;
        int rc = compare_log(txn, i, base, whole);
        if (rc != 0)
            return rc;
        *changed_pages += txn->changed[i];
        *added += txn->changed[i] && !waiting;
    }
    return 0;
}
