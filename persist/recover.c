/*
 * recover.c -- bring a store file, or a reader's view of it, to the last commit of its log.
 *
 *   step                                              a crash right after it leaves
 *   1 read the log: every record of the valid prefix  nothing happened
 *     verified and its runs checked
 *   2 the prefix written into a new file (its header  nothing happened (a stray FILE-wal.new, replaced next time)
 *     first, and synced: wal_name.c), synced
 *   3 renamed over the log, the directory synced      the same log, its bytes known to be on the disk
 *   4 the prefix applied to the file, the file synced recovery again: every record says bytes, not changes
 *   5 a new, empty log beside it (wal_file.c)         the same: the superblock names the old one
 *   6 the superblock; the new log takes its place     recovered; what lies past used_bytes is cleared by the next
 *   7 the tail past used_bytes zeroed, the table's    recovered
 *     zeroed
 * Readers that were attached when the writer died stay, and go by the words that it left (shared.h, follow.c).  A recovery
 * brings more home than those call durable, and its own death leaves them to look at what it did.  So after step 3 the
 * words are told the prefix, all of it durable now and on its way into the file; and after step 4 that the file holds
 * it.  Before the first a reader shows what it showed, from the second on the file alone, whatever log has the name; in
 * between all records of the prefix go over the file's pages, whichever of them are in it already (W26).
 * Step 2 is there because file systems keep pages they failed to write in the cache as if clean: the log may read well
 * now and be gone tomorrow, and by then step 4 would have overwritten the file.
 *
 * What is written in step 2 is what was verified in step 1: a log of one window (replay.c) is kept in memory, and never
 * read again.  A longer one is read and copied, and the copy verified before it is synced.
 *
 * A reader does step 1, and then the same in memory of its own (private_replay.c).
 *
 * Step 4 brings each page home once a window of the log, in the file's order (replay.c): the disk sees long reads and
 * writes, memory is bounded.  The runs of a log that is kept are noted in step 1 and taken from where they stand; of
 * a longer one the new log is read.  The file is never lengthened: a commit made its length durable before
 * its record, so a file shorter than a record says is damaged, or is a copy taken at a bad moment, and is refused.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "base/error.h"
#include "base/units.h"
#include "persist/page_checksum.h"
#include "persist/recover_internal.h"
#include "persist/replay.h"
#include "persist/scrub.h"
#include "persist/shared.h"
#include "persist/tail.h"
#include "persist/txn_internal.h"

#define COPY_BYTES (UINT64_C(1) << 20)
#define CHECK_PAGES 256 /* 1 MiB: read at once */

/* ---- the valid prefix ---- */

struct run_checker {
    uint64_t used_bytes;
    uint64_t seq;
    struct straight_list *straight;
    struct replay_notes *notes;
};

static int note_straight(struct straight_list *list, uint64_t page, const void *checksum, uint64_t seq)
{
    if (list->count > 0 && list->page[list->count - 1].page >= page)
        return error_set(STEAD_CORRUPT, "record %llu of the log repeats a new page", (unsigned long long)seq);
    if (list->count == list->room) {
        size_t room = list->room != 0 ? list->room * 2 : 1024;
        struct straight_page *grown = realloc(list->page, room * sizeof *grown);
        if (grown == NULL)
            return error_set(ENOMEM, "no memory to recover");
        list->page = grown;
        list->room = room;
    }
    list->page[list->count] = (struct straight_page){.page = page};
    memcpy(&list->page[list->count++].checksum, checksum, 8);
    return 0;
}

static void supersede_straight(struct straight_list *list, uint64_t page)
{
    size_t low = 0, high = list->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (list->page[middle].page < page)
            low = middle + 1;
        else
            high = middle;
    }
    if (low < list->count && list->page[low].page == page)
        list->page[low].superseded = true;
}

static int check_run(void *ctx, uint64_t image_offset, const void *bytes, unsigned count)
{
    struct run_checker *checker = ctx;
    if (image_offset >= checker->used_bytes) /* a run stays within its page, and used_bytes is whole pages */
        return error_set(STEAD_CORRUPT, "record %llu of the log writes past the end of the image",
                         (unsigned long long)checker->seq);
    if (count == WAL_STRAIGHT)
        return note_straight(checker->straight, image_offset / PAGE_BYTES, bytes, checker->seq);
    supersede_straight(checker->straight, image_offset / PAGE_BYTES);
    replay_notes_add(checker->notes, image_offset, bytes, count);
    return 0;
}

/* How many entries from i on, none superseded, are neighbours in the file. */
static size_t straight_run(const struct straight_list *list, size_t i)
{
    uint64_t first = list->page[i].page, most = format_contiguous(first * PAGE_BYTES) / PAGE_BYTES;
    size_t run = 0;
    while (run < min_u64(most, CHECK_PAGES) && i + run < list->count && !list->page[i + run].superseded &&
           list->page[i + run].page == first + run)
        run++;
    return run;
}

/* The file must hold what was synced into it before the log spoke of it. */
static int check_straight(int fd, const struct straight_list *list)
{
    uint8_t *bytes = list->count != 0 ? malloc(CHECK_PAGES * PAGE_BYTES) : NULL;
    int rc = list->count != 0 && bytes == NULL ? error_set(ENOMEM, "no memory to recover") : 0;
    for (size_t i = 0; i < list->count && rc == 0; i++) {
        const struct straight_page *page = &list->page[i];
        size_t run = straight_run(list, i);
        if (run == 0)
            continue;
        rc = file_read_at(fd, bytes, run * PAGE_BYTES, format_file_offset(page->page * PAGE_BYTES));
        if (rc != 0)
            error_set(rc, "cannot read pages from %llu on: %s", (unsigned long long)page->page, error_text(rc));
        for (size_t n = 0; n < run && rc == 0; n++)
            if (page_checksum(bytes + n * PAGE_BYTES) != page[n].checksum)
                rc = error_set(
                    STEAD_CORRUPT,
                    "page %llu of the store is not what its log says: it is damaged, or store and log are copies "
                    "taken at different moments",
                    (unsigned long long)page[n].page);
        i += run - 1;
    }
    free(bytes);
    return rc;
}

/* The pages' entries in the table, as far as the file lacks them: a plain copy may have read the table before the commit,
 * and the pages after it (tail.c). */
static int write_straight_entries(int fd, const struct straight_list *list)
{
    uint64_t made[CHECK_PAGES], kept[CHECK_PAGES];
    int rc = 0;
    for (size_t i = 0; i < list->count && rc == 0; i++) {
        size_t run = straight_run(list, i);
        if (run == 0)
            continue;
        uint64_t at = format_checksum_offset(list->page[i].page * PAGE_BYTES);
        for (size_t n = 0; n < run; n++)
            made[n] = list->page[i + n].checksum;
        rc = file_read_at(fd, kept, run * sizeof *kept, at);
        if (rc == 0 && memcmp(made, kept, run * sizeof *made) != 0)
            rc = file_write_at(fd, made, run * sizeof *made, at);
        i += run - 1;
    }
    return rc != 0 ? error_set(rc, "cannot write the checksums of new pages: %s", error_text(rc)) : 0;
}

/* A plain copy may hold a former end's mark where the log's commits have pages: those that no record names are zeros there,
 * the others come from the log whole, but for straight ones, which were verified.  Where a group begins the end was in front
 * of its table. */
int recover_each_former_end(const struct superblock *super, const struct prefix *prefix, former_end_visit *visit,
                            void *ctx)
{
    const struct straight_list *list = &prefix->straight;
    size_t next = 0;
    int rc = 0;
    for (uint64_t at = round_up(super->used_bytes, UNIT_BYTES); at < prefix->most_bytes && rc == 0; at += UNIT_BYTES) {
        if (format_file_bytes(at) != format_file_offset(at))
            rc = visit(ctx, format_file_bytes(at), at / PAGE_BYTES, true);
        while (next < list->count && list->page[next].page < at / PAGE_BYTES)
            next++;
        if (rc == 0 && (next == list->count || list->page[next].page != at / PAGE_BYTES))
            rc = visit(ctx, format_file_offset(at), at / PAGE_BYTES, false);
    }
    return rc;
}

/* The file must be as long as every commit of the log says. */
static int check_length(int store_fd, const struct prefix *prefix)
{
    uint64_t bytes;
    char name[FILE_PATH_BYTES];
    int rc = file_size(store_fd, &bytes);
    if (rc != 0)
        return error_set(rc, "cannot read the length of %s: %s", file_name(store_fd, name), error_text(rc));
    if (format_file_bytes(prefix->most_bytes) > bytes)
        return error_set(STEAD_CORRUPT, "%s is %llu bytes long, its log tells of %llu", file_name(store_fd, name),
                         (unsigned long long)bytes, (unsigned long long)format_file_bytes(prefix->most_bytes));
    return 0;
}

void recover_release(struct prefix *prefix)
{
    free(prefix->straight.page);
    prefix->straight = (struct straight_list){0};
}

int recover_measure(struct wal_scan *scan, uint64_t used_bytes, int store_fd, struct prefix *prefix,
                    struct replay_notes *notes)
{
    struct wal_record record;
    *prefix = (struct prefix){.used_bytes = used_bytes, .most_bytes = used_bytes};
    int rc;
    while ((rc = wal_scan_next(scan, &record)) == 0) {
        struct run_checker checker = {
            .used_bytes = record.used_bytes, .seq = record.seq, .straight = &prefix->straight, .notes = notes};
        rc = wal_scan_runs(scan, &record, check_run, &checker);
        if (rc != 0)
            return rc;
        prefix->used_bytes = record.used_bytes;
        prefix->most_bytes = max_u64(prefix->most_bytes, record.used_bytes);
    }
    prefix->end = scan->at;
    if (rc == ENOENT)
        rc = 0;
    if (rc == 0 && store_fd >= 0)
        rc = check_length(store_fd, prefix);
    if (rc == 0 && store_fd >= 0)
        rc = tail_check(store_fd, scan->header.id, scan->at.checkpoint, scan->at.next_seq - 1);
    if (rc == 0 && store_fd >= 0)
        rc = check_straight(store_fd, &prefix->straight);
    return rc;
}

int recover_open_scan(struct wal_scan *scan, int fd, const struct superblock *super)
{
    int rc = wal_scan_open(scan, fd, super->id, super->log_salt, super->checkpoint, super->capacity_bytes);
    if (rc == 0 && (scan->header.first_seq != super->commit_seq + 1 || scan->header.used_bytes != super->used_bytes)) {
        wal_scan_close(scan);
        rc = error_set(STEAD_LOG_MISSING, "the log begins at commit %llu, the store ends at %llu",
                       (unsigned long long)scan->header.first_seq, (unsigned long long)super->commit_seq);
    }
    return rc;
}

int recover_find_log(const struct file *file, const struct superblock *super, bool writable, int *fd)
{
    return wal_find(fd, file, writable, super->id, super->log_salt, super->checkpoint);
}

/* ---- writers ---- */

static int copy_bytes(int to, int from, uint64_t at, uint64_t bytes)
{
    uint8_t *buffer = malloc(COPY_BYTES);
    int rc = buffer == NULL ? ENOMEM : 0;
    while (at < bytes && rc == 0) {
        uint64_t piece = min_u64(COPY_BYTES, bytes - at);
        rc = file_read_at(from, buffer, piece, at);
        if (rc == 0)
            rc = file_write_at(to, buffer, piece, at);
        if (rc == 0)
            file_start_writeback(to, at, piece); /* it is to be synced: the disk works meanwhile */
        at += piece;
    }
    free(buffer);
    return rc;
}

static int write_kept(int to, const uint8_t *log, uint64_t at, uint64_t bytes)
{
    int rc = 0;
    while (at < bytes && rc == 0) {
        uint64_t piece = min_u64(COPY_BYTES, bytes - at);
        rc = file_write_at(to, log + at, piece, at);
        if (rc == 0)
            file_start_writeback(to, at, piece);
        at += piece;
    }
    return rc;
}

/* Of a log that was not kept: what is in the new one is what was verified in the old one. */
static int verify_copy(const struct file *file, const struct superblock *super, const struct prefix *prefix, int fd)
{
    struct wal_scan scan;
    struct prefix copy;
    int rc = recover_open_scan(&scan, fd, super);
    if (rc != 0)
        return rc;
    rc = recover_measure(&scan, super->used_bytes, -1, &copy, NULL);
    recover_release(&copy);
    wal_scan_close(&scan);
    if (rc == 0 && memcmp(&copy.end, &prefix->end, sizeof copy.end) != 0)
        rc = error_set(EIO, "the log %s reads differently each time", file->log_path);
    return rc;
}

/* The prefix into the new file; kept: the log, or NULL. */
static int write_log(const struct file *file, const struct superblock *super, const struct prefix *prefix, int new_fd,
                     int fd, const uint8_t *kept)
{
    int rc = kept != NULL ? write_kept(new_fd, kept, 0, WAL_FIRST_RECORD) : copy_bytes(new_fd, fd, 0, WAL_FIRST_RECORD);
    if (rc == 0)
        rc = file_sync_new(new_fd); /* wal_name.c: what has no header has nothing else either */
    if (rc == 0)
        rc = file_reserve_fresh(new_fd, WAL_FIRST_RECORD, prefix->end.end - WAL_FIRST_RECORD);
    if (rc == 0)
        rc = kept != NULL ? write_kept(new_fd, kept, WAL_FIRST_RECORD, prefix->end.end)
                          : copy_bytes(new_fd, fd, WAL_FIRST_RECORD, prefix->end.end);
    if (rc != 0)
        return error_set(rc, "cannot write %s: %s", file->log_next_path, error_text(rc));
    return kept != NULL ? 0 : verify_copy(file, super, prefix, new_fd);
}

/* Steps 2 and 3: *fd is the new log then, and the old one the caller's. */
static int rewrite_log(const struct file *file, const struct superblock *super, const struct prefix *prefix, int *fd,
                       const uint8_t *kept, struct txn_replaced *replaced)
{
    const char *path = file->log_next_path;
    struct stat facts;
    int new_fd;
    if (fstat(*fd, &facts) != 0)
        return error_set(errno, "cannot stat the log %s: %s", file->log_path, error_text(errno));
    int rc = wal_name_create(&new_fd, file, path, facts.st_mode & 0777);
    if (rc != 0)
        return rc;
    (void)fchmod(new_fd, facts.st_mode & 0777);
    rc = write_log(file, super, prefix, new_fd, *fd, kept);
    if (rc != 0)
        goto remove;
    rc = file_sync_new(new_fd);
    if (rc == 0 && (!file_is_current(file) || !wal_name_is(file->log_path, *fd)))
        rc = ESTALE;
    if (rc == 0)
        rc = file_rename(path, file->log_path);
    if (rc == 0)
        rc = file_sync_directory(file->log_path);
    if (rc != 0) {
        error_set(rc, "cannot replace the log %s: %s", file->log_path, error_text(rc));
        goto remove;
    }
    replaced->fd[replaced->count++] = *fd;
    *fd = new_fd;
    return 0;
remove:
    if (wal_name_is(path, new_fd)) /* not after the rename */
        (void)file_unlink(path);
    file_calls.close(new_fd);
    return rc;
}

struct former_ends {
    int fd;
    const uint8_t *id;
};

static int forget_mark(void *ctx, uint64_t file_offset, uint64_t page, bool in_table)
{
    const struct former_ends *ends = ctx;
    (void)page, (void)in_table;
    int rc = tail_forget(ends->fd, file_offset, ends->id);
    return rc != 0 ? error_set(rc, "cannot clear a former end of the file: %s", error_text(rc)) : 0;
}

/* What attached readers go by: the prefix is in the log and durable, and in the file, or about to be.  Words of another
 * session are let be: their log has been brought home. */
static void tell_readers(struct image_shared *shared, const struct superblock *super, const struct prefix *prefix,
                         bool applied)
{
    struct shared_state state;
    if (shared == NULL || shared_read(shared, &state) != 0 || state.at.salt != super->log_salt ||
        state.at.checkpoint != super->checkpoint)
        return;
    state.at = prefix->end;
    state.used_bytes = prefix->used_bytes;
    state.named_bytes = prefix->most_bytes;
    state.file_seq = prefix->end.next_seq - 1;
    if (applied) {
        state.applied_seq = state.file_seq;
        state.applied_at = prefix->end;
        state.applied_used_bytes = prefix->used_bytes;
    }
    shared_write(shared, &state);
    shared_raise_durable_seq(shared, state.file_seq);
}

/* fd: the new log, the same bytes as those of which there are notes, by the checksum of its last record. */
static int apply_prefix(const struct file *file, const struct superblock *super, const struct prefix *prefix, int fd,
                        struct replay_notes *notes)
{
    struct wal_scan scan;
    struct former_ends ends = {.fd = file->fd, .id = super->id};
    int rc = recover_open_scan(&scan, fd, super);
    if (rc != 0)
        return rc;
    rc = tail_raise(file->fd, super->id, super->checkpoint, prefix->end.next_seq - 1);
    if (rc != 0)
        error_set(rc, "cannot write the end of %s: %s", file->path, error_text(rc));
    if (rc == 0)
        rc = recover_each_former_end(super, prefix, forget_mark, &ends);
    if (rc == 0)
        rc = write_straight_entries(file->fd, &prefix->straight);
    if (rc == 0)
        rc = replay_notes_complete(notes) ? replay_notes_into_file(notes, file->fd)
                                          : replay_into_file(&scan, file->fd, prefix->end.next_seq - 1);
    wal_scan_close(&scan);
    if (rc == 0 && (rc = file_sync(file->fd)) != 0)
        error_set(rc, "cannot sync %s: %s", file->path, error_text(rc));
    return rc;
}

/* Steps 5 and 6. */
static int begin_anew(const struct file *file, struct superblock *super, const struct prefix *prefix, int fd)
{
    struct wal_next next;
    uint64_t salt;
    if (getrandom(&salt, sizeof salt, 0) != (ssize_t)sizeof salt)
        return error_set(EIO, "no random bytes for the log's salt");
    int rc = wal_make(&next, file, WAL_BESIDE, super->id, salt, super->checkpoint + 1, prefix->end.next_seq,
                      prefix->used_bytes);
    if (rc != 0)
        return rc;
    struct superblock before = *super;
    super->commit_seq = prefix->end.next_seq - 1;
    super->used_bytes = prefix->used_bytes;
    super->log_salt = salt;
    super->checkpoint++;
    rc = superblock_write(file, super, true);
    if (rc != 0)
        *super = before; /* nobody knows which superblock the disk has: both logs stay */
    else if ((rc = wal_install(&next, file, fd)) != 0)
        error_set(rc, "cannot replace the log %s: %s", file->log_path, error_text(rc));
    file_calls.close(next.fd);
    return rc;
}

/* Step 7.  Not cut off: a reader of the dead writer may still have the tail mapped.  Close cuts it, alone. */
int txn_clear_tail(const struct file *file, uint64_t used_bytes)
{
    uint64_t bytes, end = format_file_bytes(used_bytes);
    int rc = file_size(file->fd, &bytes);
    bytes = tail_offset(bytes);
    if (rc == 0 && bytes > end) {
        uint64_t have = format_image_bytes(bytes);
        rc = scrub_clear(file->fd, used_bytes, min_u64(have, used_bytes - 1 + format_contiguous(used_bytes - 1)));
        if (rc == 0)
            rc = file_zero(file->fd, end, bytes - end);
        if (rc == 0) /* it is mapped without another look; on a full disk the commit that writes there fails */
            (void)file_reserve_beyond(file->fd, end, bytes - end);
        if (rc == 0)
            rc = file_sync(file->fd);
    }
    return rc != 0 ? error_set(rc, "cannot clear the unused end of %s: %s", file->path, error_text(rc)) : 0;
}

int txn_recover(const struct file *file, struct superblock *super, struct image_shared *shared, bool *replayed,
                struct txn_replaced *replaced)
{
    struct wal_scan scan;
    struct prefix prefix = {0};
    struct replay_notes *notes = NULL;
    int fd;
    *replayed = false;
    replaced->count = 0;
    int rc = recover_find_log(file, super, true, &fd);
    if (rc != 0)
        return rc;
    rc = recover_open_scan(&scan, fd, super);
    if (rc != 0)
        goto release;
    const uint8_t *kept = wal_scan_keep(&scan, replay_window_bytes) ? scan.buffer : NULL;
    notes = replay_notes_open(kept, scan.file_bytes);
    rc = recover_measure(&scan, super->used_bytes, file->fd, &prefix, notes);
    if (rc == 0 && prefix.end.next_seq != super->commit_seq + 1) {
        if (kept != NULL) { /* it was verified by itself, before the rest was read */
            memset(scan.buffer, 0, WAL_FIRST_RECORD);
            memcpy(scan.buffer, &scan.header, sizeof scan.header);
        }
        rc = rewrite_log(file, super, &prefix, &fd, kept, replaced);
        if (rc == 0) {
            tell_readers(shared, super, &prefix, false);
            rc = apply_prefix(file, super, &prefix, fd, notes);
        }
        *replayed = rc == 0;
    }
    if (rc == 0)
        tell_readers(shared, super, &prefix, true);
    if (rc == 0)
        rc = begin_anew(file, super, &prefix, fd);
    if (rc == 0)
        rc = txn_clear_tail(file, super->used_bytes);
    wal_scan_close(&scan);
release:
    replay_notes_close(notes);
    recover_release(&prefix);
    replaced->fd[replaced->count++] = fd; /* by the new, empty log; after a failure it is just to be closed */
    return error_keep(rc);
}
