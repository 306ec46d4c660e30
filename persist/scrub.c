/*
 * scrub.c -- the table of page checksums: a flipped bit anywhere in a committed page is found, and named.
 *
 * Each group of the file begins with 8 bytes for each of its pages (format.h).  Who keeps them right:
 *   SOLE, TURNS   the transaction engine writes a page and its checksum in one application of a commit; a crash between
 *                 the two leaves the log, and recovery writes both again
 *   LIVE          nobody while it is open (superblock.checksums_valid == 0); image_seal() computes them all
 *
 * Everything here goes through pread, a chunk at a time, never through a mapping: a sector that cannot be read is a
 * finding (EIO), not a SIGBUS.
 *
 *   P1  page_checksum(page) == its table entry, for every page below used_bytes
 *   P2  sealed: entries of pages from used_bytes to the end of their group are 0, so that growth finds a table that
 *       describes the zeros it maps
 */
#include "persist/scrub.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "persist/file.h"
#include "persist/map.h"
#include "persist/page_checksum.h"

#define CHUNK_PAGES 64 /* 256 KiB: long enough for the disk, short enough for the cache */
#define CHUNK_BYTES (CHUNK_PAGES * PAGE_BYTES)
#define OBJECT_TEXT_BYTES 120
#define CLEAR_ENTRIES 8192               /* of the table, written at once: 64 KiB */
#define TAIL_BYTES_MAX (16 * UNIT_BYTES) /* of the table behind the last page in use, looked at for P2 */

int scrub_read_image(int fd, uint64_t offset, void *buffer, size_t bytes)
{
    int rc = 0;
    for (size_t done = 0; done < bytes && rc == 0;) {
        size_t part = (size_t)min_u64(format_contiguous(offset + done), bytes - done);
        rc = file_read_at(fd, (uint8_t *)buffer + done, part, format_file_offset(offset + done));
        done += part;
    }
    return rc;
}

int scrub_write_image(int fd, uint64_t offset, const void *buffer, size_t bytes)
{
    int rc = 0;
    for (size_t done = 0; done < bytes && rc == 0;) {
        size_t part = (size_t)min_u64(format_contiguous(offset + done), bytes - done);
        rc = file_write_at(fd, (const uint8_t *)buffer + done, part, format_file_offset(offset + done));
        done += part;
    }
    return rc;
}

/* The pages of one group from `at` on, at most a chunk of them, before `to`. */
static unsigned chunk_pages(uint64_t at, uint64_t to)
{
    return (unsigned)(min_u64(min_u64(format_contiguous(at), to - at), CHUNK_BYTES) / PAGE_BYTES);
}

int scrub_rebuild(int fd, uint64_t from, uint64_t to)
{
    int rc = 0;
    uint64_t made[CHUNK_PAGES], kept[CHUNK_PAGES];
    uint8_t *pages = malloc(CHUNK_BYTES);
    if (pages == NULL)
        return ENOMEM;
    for (uint64_t at = from; at < to && rc == 0;) {
        unsigned count = chunk_pages(at, to);
        size_t table_bytes = count * sizeof *made;
        rc = file_read_at(fd, pages, count * PAGE_BYTES, format_file_offset(at));
        if (rc == 0)
            rc = file_read_at(fd, kept, table_bytes, format_checksum_offset(at));
        for (unsigned i = 0; i < count; i++)
            made[i] = page_checksum(pages + i * PAGE_BYTES);
        if (rc == 0 && memcmp(made, kept, table_bytes) != 0)
            rc = file_write_at(fd, made, table_bytes, format_checksum_offset(at));
        at += count * PAGE_BYTES;
    }
    free(pages);
    return rc;
}

int scrub_clear(int fd, uint64_t from, uint64_t to)
{
    static const uint64_t zeros[CLEAR_ENTRIES];
    int rc = 0;
    for (uint64_t at = from; at < to && rc == 0;) {
        uint64_t count = min_u64(min_u64(format_contiguous(at), to - at) / PAGE_BYTES, CLEAR_ENTRIES);
        rc = file_write_at(fd, zeros, (size_t)count * sizeof *zeros, format_checksum_offset(at));
        at += count * PAGE_BYTES;
    }
    return rc;
}

/* ---- checking ---- */

struct check {
    int fd;
    const struct page_list *except; /* ascending, or NULL */
    size_t next;                    /* in it: pages before are done */
    struct report *report;
    void (*name_object)(void *ctx, uint64_t offset, char *text, unsigned text_bytes);
    void *ctx;
};

/* Pages are asked for in ascending order; again is fine. */
static bool is_excepted(struct check *check, uint64_t page)
{
    const struct page_list *except = check->except;
    if (except == NULL)
        return false;
    while (check->next < except->count && except->page[check->next] < page)
        check->next++;
    return check->next < except->count && except->page[check->next] == page;
}

static void report_page(const struct check *check, uint64_t at, const char *what)
{
    char object[OBJECT_TEXT_BYTES] = "";
    if (check->name_object != NULL)
        check->name_object(check->ctx, at, object, sizeof object);
    report_problem(check->report, "P1", at, "page %" PRIu64 "%s%s: %s", at / PAGE_BYTES, object[0] == '\0' ? "" : ", ",
                   object, what);
}

/* A chunk that cannot be read is read again page by page, so that only the bad ones are reported. */
static void check_unreadable(struct check *check, uint64_t at, unsigned count, const uint64_t *table)
{
    uint8_t page[PAGE_BYTES];
    for (unsigned i = 0; i < count; i++) {
        int rc = file_read_at(check->fd, page, sizeof page, format_file_offset(at + i * PAGE_BYTES));
        if (rc != 0)
            report_page(check, at + i * PAGE_BYTES, error_text(rc));
        else if (page_checksum(page) != table[i] && !is_excepted(check, at / PAGE_BYTES + i))
            report_page(check, at + i * PAGE_BYTES, "its checksum does not match");
    }
}

static void check_chunk(struct check *check, uint64_t at, unsigned count, uint8_t *pages)
{
    uint64_t table[CHUNK_PAGES];
    int rc = file_read_at(check->fd, table, count * sizeof *table, format_checksum_offset(at));
    if (rc != 0) {
        report_problem(check->report, "P1", at, "the checksums of pages %" PRIu64 " to %" PRIu64 " cannot be read: %s",
                       at / PAGE_BYTES, at / PAGE_BYTES + count - 1, error_text(rc));
        return;
    }
    rc = file_read_at(check->fd, pages, count * PAGE_BYTES, format_file_offset(at));
    if (rc != 0) {
        check_unreadable(check, at, count, table);
        return;
    }
    for (unsigned i = 0; i < count; i++)
        if (page_checksum(pages + i * PAGE_BYTES) != table[i] && !is_excepted(check, at / PAGE_BYTES + i))
            report_page(check, at + i * PAGE_BYTES, "its checksum does not match");
}

void scrub_check(int fd, uint64_t used_bytes, const struct page_list *except, struct report *report,
                 void (*name_object)(void *ctx, uint64_t offset, char *text, unsigned text_bytes), void *ctx)
{
    struct check check = {.fd = fd, .except = except, .report = report, .name_object = name_object, .ctx = ctx};
    uint8_t *pages = malloc(CHUNK_BYTES);
    if (pages == NULL) {
        report_unable(report, ENOMEM);
        return;
    }
    for (uint64_t at = 0; at < used_bytes;) {
        unsigned count = chunk_pages(at, used_bytes);
        check_chunk(&check, at, count, pages);
        report->pages += count;
        at += count * PAGE_BYTES;
    }
    free(pages);
}

void scrub_check_tail(int fd, uint64_t used_bytes, struct report *report)
{
    uint64_t table[CHUNK_PAGES * 8];
    /* From behind the last page in use to the end of its group, but not further than the table's blocks are. */
    uint64_t left = (format_contiguous(used_bytes - PAGE_BYTES) - PAGE_BYTES) / PAGE_BYTES;
    uint64_t at = format_checksum_offset(used_bytes - PAGE_BYTES) + FORMAT_CHECKSUM_BYTES;
    left = min_u64(left, TAIL_BYTES_MAX / FORMAT_CHECKSUM_BYTES);
    for (uint64_t page = used_bytes / PAGE_BYTES; left > 0;) {
        uint64_t count = min_u64(left, sizeof table / sizeof *table);
        int rc = file_read_at(fd, table, (size_t)count * sizeof *table, at);
        if (rc != 0) {
            report_problem(report, "P2", at, "the table of checksums cannot be read: %s", error_text(rc));
            return;
        }
        for (uint64_t i = 0; i < count; i++)
            if (table[i] != 0)
                report_problem(report, "P2", (page + i) * PAGE_BYTES,
                               "page %" PRIu64 " is not in use and has a checksum", page + i);
        at += count * sizeof *table;
        page += count;
        left -= count;
    }
}
