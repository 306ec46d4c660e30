/*
 * replay_file.c -- a replay (replay.c) into a store file: pages and their checksums.
 *
 * The table of checksums is changed block by block (struct table), each after the pages that it describes.  Stretches of
 * TELL_PAGES and more are handed to the disk when they are TELL_BYTES long or at their end, so that the sync that follows
 * finds little left to do; single pages are not: starting them one by one was measured at three times the cost of one sync
 * for all.
 *
 * Nothing here is synced: the caller syncs the file once for all of it.
 */
#include "persist/replay.h"

#include "base/error.h"
#include "base/units.h"
#include "persist/checksum_cache.h"
#include "persist/file.h"
#include "persist/map.h"
#include "persist/page_checksum.h"

#define TELL_PAGES 64
#define TELL_BYTES (UINT64_C(4) << 20)

struct table { /* one block of it, in hand */
    int fd;
    uint64_t block;     /* file offset; 0: none         */
    size_t first, last; /* the entries that were changed */
    uint64_t entry[CHECKSUM_BLOCK_PAGES];
    uint64_t tell_from, tell_to; /* of the file: written, and the disk not told yet */
};

static void tell(struct table *table)
{
    if (table->tell_to - table->tell_from >= TELL_PAGES * PAGE_BYTES)
        file_start_writeback(table->fd, table->tell_from, table->tell_to - table->tell_from);
    table->tell_from = table->tell_to;
}

static int table_flush(struct table *table)
{
    int rc = 0;
    if (table->block != 0)
        rc = file_write_at(table->fd, &table->entry[table->first], (table->last - table->first + 1) * sizeof(uint64_t),
                           table->block + table->first * sizeof(uint64_t));
    table->block = 0;
    return rc;
}

static int table_put(struct table *table, uint64_t page, const uint8_t *bytes)
{
    uint64_t at = format_checksum_offset(page * PAGE_BYTES), block = round_down(at, PAGE_BYTES);
    size_t i = (size_t)(at - block) / sizeof(uint64_t);
    if (block != table->block) {
        int rc = table_flush(table);
        if (rc == 0)
            rc = file_read_at(table->fd, table->entry, sizeof table->entry, block);
        if (rc != 0)
            return rc;
        table->block = block;
        table->first = table->last = i;
    }
    table->entry[i] = page_checksum(bytes);
    table->first = min_u64(table->first, i);
    table->last = max_u64(table->last, i);
    return 0;
}

static int read_file_pages(void *ctx, uint64_t page, size_t count, uint8_t *to)
{
    const struct table *table = ctx;
    int rc = file_read_at(table->fd, to, count * PAGE_BYTES, format_file_offset(page * PAGE_BYTES));
    return rc != 0 ? error_set(rc, "cannot read page %llu: %s", (unsigned long long)page, error_text(rc)) : 0;
}

static int write_file_pages(void *ctx, uint64_t page, size_t count, const uint8_t *bytes)
{
    struct table *table = ctx;
    uint64_t offset = format_file_offset(page * PAGE_BYTES);
    int rc = file_write_at(table->fd, bytes, count * PAGE_BYTES, offset);
    for (size_t i = 0; i < count && rc == 0; i++)
        rc = table_put(table, page + i, bytes + i * PAGE_BYTES);
    if (offset != table->tell_to) {
        tell(table);
        table->tell_from = offset;
    }
    table->tell_to = offset + count * PAGE_BYTES;
    if (table->tell_to - table->tell_from >= TELL_BYTES)
        tell(table);
    return rc != 0 ? error_set(rc, "cannot write recovered pages: %s", error_text(rc)) : 0;
}

static void ask_file_pages(void *ctx, uint64_t page, size_t count)
{
    const struct table *table = ctx;
    file_read_ahead(table->fd, format_file_offset(page * PAGE_BYTES), count * PAGE_BYTES);
}

static const struct replay_target file_target = {
    .read = read_file_pages, .write = write_file_pages, .soon = ask_file_pages};

static int finish_table(struct table *table, int rc)
{
    if (rc == 0 && (rc = table_flush(table)) != 0)
        error_set(rc, "cannot write the checksums of recovered pages: %s", error_text(rc));
    return rc;
}

int replay_into_file(struct wal_scan *scan, int fd, uint64_t end_seq)
{
    return replay_into_copy(scan, fd, end_seq, 0);
}

int replay_into_copy(struct wal_scan *scan, int fd, uint64_t end_seq, uint64_t used_bytes)
{
    struct table table = {.fd = fd};
    struct replay_target target = file_target;
    target.ctx = &table;
    target.end_page = used_bytes / PAGE_BYTES;
    return finish_table(&table, replay_records(scan, end_seq, &target));
}

int replay_notes_into_file(struct replay_notes *notes, int fd)
{
    struct table table = {.fd = fd}, helpers_table = {.fd = fd};
    struct replay_target target = file_target, helper = file_target;
    helper.ctx = &helpers_table;
    target.ctx = &table;
    target.helper = &helper;
    return finish_table(&helpers_table, finish_table(&table, replay_notes_write(notes, &target)));
}
