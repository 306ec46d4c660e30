/*
 * private_replay.c -- a reader's view of a crashed store that nobody recovers: the valid prefix of the log, verified as a
 * recovery does (recover.c, step 1), goes into private pages of the reader's mapping.  Nothing is written.
 *
 *   step                                                      the view after it
 *   1 the prefix verified                                     the file
 *   2 former ends of the file overlooked (tail.c)             the file without them
 *   3 the records replayed, each page once                    the last commit of the log
 *
 * The pages that it made, and those whose entries in the table may be as old as the copy, are listed: the log was verified, and
 * says what they are; the file's checksums do not.
 */
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/units.h"
#include "persist/recover_internal.h"
#include "persist/tail.h"
#include "persist/txn.h"

#define MARK_ENTRIES ((TAIL_BYTES + FORMAT_CHECKSUM_BYTES - 1) / FORMAT_CHECKSUM_BYTES) /* of a table, under a mark */

/* The target: a mapping, and the list of the pages of which the file's checksums say nothing. */
struct view {
    struct map *map;
    struct page_list *pages;
    int fd; /* of the store file */
    const uint8_t *id;
};

static int read_view_pages(void *ctx, uint64_t page, size_t count, uint8_t *to)
{
    const struct view *view = ctx;
    if ((page + count) * PAGE_BYTES > view->map->bytes)
        return error_set(STEAD_CORRUPT, "the log writes past the end of the file");
    int rc = map_read(view->map, page * PAGE_BYTES, to, count * PAGE_BYTES);
    return rc != 0 ? error_set(rc, "cannot read page %llu: %s", (unsigned long long)page, error_text(rc)) : 0;
}

static int write_view_pages(void *ctx, uint64_t page, size_t count, const uint8_t *bytes)
{
    struct view *view = ctx;
    if ((page + count) * PAGE_BYTES > view->map->bytes)
        return error_set(STEAD_CORRUPT, "the log writes past the end of the file");
    if (page_list_add_range(view->pages, page, page + count) != 0)
        return error_set(ENOMEM, "no memory to replay the log");
    memcpy(view->map->base + page * PAGE_BYTES, bytes, count * PAGE_BYTES);
    return 0;
}

/* The view has zeros there.  Of a mark in a table the view shows nothing, but a check would read it as checksums. */
static int overlook_mark(void *ctx, uint64_t file_offset, uint64_t page, bool in_table)
{
    struct view *view = ctx;
    bool found;
    int rc = tail_find(view->fd, file_offset, view->id, &found);
    if (rc != 0)
        return error_set(rc, "cannot read a former end of the file: %s", error_text(rc));
    if (!found)
        return 0;
    if ((page + 1) * PAGE_BYTES > view->map->bytes)
        return error_set(STEAD_CORRUPT, "the log writes past the end of the file");
    if (!in_table)
        memset(view->map->base + page * PAGE_BYTES, 0, TAIL_BYTES);
    if (page_list_add_range(view->pages, page, page + (in_table ? MARK_ENTRIES : 1)) != 0)
        return error_set(ENOMEM, "no memory to replay the log");
    return 0;
}

int txn_private_replay(const struct file *file, struct superblock *super, struct map *map, struct page_list *pages,
                       bool *replayed)
{
    struct wal_scan scan;
    struct view view = {.map = map, .pages = pages, .fd = file->fd, .id = super->id};
    const struct replay_target target = {.ctx = &view, .read = read_view_pages, .write = write_view_pages};
    struct prefix prefix = {0};
    int fd;
    *replayed = false;
    int rc = recover_find_log(file, super, false, &fd);
    if (rc != 0)
        return rc;
    rc = recover_open_scan(&scan, fd, super);
    if (rc != 0)
        goto close_log;
    rc = recover_measure(&scan, super->used_bytes, file->fd, &prefix, NULL);
    wal_scan_close(&scan);
    if (rc == 0)
        rc = recover_open_scan(&scan, fd, super);
    if (rc != 0)
        goto close_log;
    rc = recover_each_former_end(super, &prefix, overlook_mark, &view);
    if (rc == 0)
        rc = replay_records(&scan, prefix.end.next_seq - 1, &target);
    /* Judged by the log already: a copy may lack their entries in the table. */
    for (size_t i = 0; i < prefix.straight.count && rc == 0; i++)
        if (!prefix.straight.page[i].superseded)
            rc = page_list_add_range(pages, prefix.straight.page[i].page, prefix.straight.page[i].page + 1);
    page_list_sort(pages);
    wal_scan_close(&scan);
    if (rc == 0) {
        *replayed = prefix.end.next_seq != super->commit_seq + 1;
        super->commit_seq = prefix.end.next_seq - 1;
        super->used_bytes = prefix.used_bytes;
    }
close_log:
    recover_release(&prefix);
    file_calls.close(fd);
    return error_keep(rc);
}
