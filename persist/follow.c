/*
 * follow.c -- a reader of a SOLE or TURNS store sees the last durable commit, wherever its bytes are.
 *
 * A writer makes a commit durable in the log and brings it to the file later, when a batch is worth it; it may be idle or
 * stopped for as long as it likes in between.  A reader must not write the file, so it applies the rest of the log to its
 * own mapping: MAP_IMAGE_VIEW, private, PROT_READ for the program.  A page that was replayed is a private page of this
 * process; all others show the file.
 *
 *   words (shared.h):   applied ......... durable ......... last          commits, ascending
 *   where they are:     file              log               log, maybe lost by power loss: not shown
 *   the view:           [ the file's pages ][ private pages ]
 *
 * image_look(), at the start of a section, the apply lock held shared:
 *   step                                                  the view after it
 *   1 durable read first, then the words                  as the look before left it, unless the file moved
 *   2 the file moved on since the last look, or the log   the commit `applied`
 *     began anew: private pages dropped
 *   3 log opened, its header verified; records from where the same
 *     the last look stopped up to `durable` verified one
 *     by one and gathered in memory
 *   4 gathered pages written into the mapping             the commit `durable`
 * Damage found in step 3 leaves the view as it was.  Only a gathering of more than GATHER_PAGES is written in parts; if one
 * fails then, or in step 4, all private pages are dropped: the commit `applied`, never a mix (P6).
 *
 * Why nothing moves meanwhile: the file is changed, and the log started anew, under the exclusive apply lock only.  New
 * records and a new `durable` may come in during a look: records up to the `durable` that was read are never written
 * again before the log is restarted, and the scan reads none behind them.  `durable` is raised after the record was told
 * in the words, so words read after it tell of at least that commit; the smaller of the two serves all the same.
 * A page in the file that the writer was killed at while applying is whole here: the records that led to it say every byte
 * that differs.
 *
 * Why /proc/self/mem: a write to it makes the private page of a read-only mapping (as a debugger sets a breakpoint), and
 * answers an unreadable page or a file cut short by an error where memcpy would get a signal.  Measured, scattered pages:
 * 1.5 us each, against 7-16 us by mprotect there and back, which splits mappings; side by side they cost the same.  Where
 * the kernel or a sandbox forbids it, mprotect is the way.
 *
 * An application in slices (slice.c) leaves pages in the file that are newer than `applied`, none newer than `durable`: the
 * records of step 3 name them all, so that the view after step 4 is whole.  Without the log the file is no commit then, and
 * the look fails (EBUSY).
 *
 * An attached reader whose words are torn keeps what it shows, unless the superblock says that the log that was followed is
 * done with, so that the file holds it all.
 *
 * Without an attachment (options.shared NULL) nobody tells this reader that writers came or went, or in which mode: it was
 * there first, or may not write.  So each look begins with the superblock, and *super, by which a copy, a check and the
 * figures go, is what it says now, never what it said at open.
 *
 *   superblock     words                             the view
 *   sealed, LIVE   whatever they say                 the file, no private pages
 *   open, logged   of its log                        as above.  Those of a session that died are as good: what they call
 *                                                    durable is in the log, and recovery waits for the apply lock
 *   open, logged   none, torn, or of another log     the file and the log's whole valid prefix, as recovery will leave them:
 *                                                    a writer died in a checkpoint or before it wrote words, or is about
 *                                                    to recover.  A writer that starts a session writes its words before
 *                                                    its first commit, so words read again after the prefix was measured
 *                                                    tell whether some of it may not be durable yet.  A session that
 *                                                    came and died between two looks made the log longer, and whoever is
 *                                                    about to recover wiped its words: so each look sees whether a record
 *                                                    stands behind the prefix that it knows
 *
 * The prefix is measured with no lock against a writer whose session begins meanwhile, and a read of the log is of no one
 * moment: it may lack a record and have a later one, which vouches for it.  That is damage only if nobody wrote: where words
 * of the log are there by now they decide, as above, and where they are not - the session was short, and whoever is about to
 * recover wiped them - it is measured again (P11).
 *
 * No log under its name: if the store was removed or the words belong to another session, there is nothing to follow; so
 * too if this reader may not read the log.  The view is then the last applied commit, as it is without this file.
 *
 * Invariants (tests/unit/persist/test_follow.c)
 *   P5  after a look that returned 0 the view is the image at commit max(applied, min(durable, last)) - by superblock and
 *       log where no words tell: at the last commit of the log - and image_commit_seq() is its number; nothing was written
 *       to file or log
 *   P6  after a look that failed the view is the former one or the commit `applied`
 *   P7  after a look that returned 0 without an attachment *super is the store's superblock of that moment
 *   P11 what a writer appends while a look reads is never called damage
 *
 * Locks: none of its own.  The caller lets no other look and no section of this process run beside it; seq, base_seq and
 * private_pages may be read by any thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/error.h"
#include "base/system.h"
#include "base/units.h"
#include "persist/image_internal.h"
#include "persist/shared.h"
#include "persist/superblock.h"
#include "persist/wal.h"

#define GATHER_PAGES 16384 /* 64 MiB of memory */
#define MEASURES_MOST 3    /* of a log that looks damaged: sessions that come and go in each of them do not happen */
#define COMPACT_PAGES 1024 /* so many more than last time, and twice as many: sort out what is named twice */

struct gather {
    struct image *image;
    struct overlay *overlay; /* follow's */
    int memory_fd;           /* /proc/self/mem, or -1: not allowed here        */
    uint64_t seq;            /* of the record in hand                           */
    uint64_t used_bytes;     /* the image's length at it: at most what is mapped */
    bool written;            /* some of it is in the view                       */
};

/* ---- private pages ---- */

static void tell_pages(struct follow *follow)
{
    atomic_store_explicit(&follow->private_pages, follow->pages.count, memory_order_relaxed);
}

/* The view shows the file.  In whole units: right for every page size of the kernel. */
static int drop_pages(struct image *image)
{
    struct follow *follow = &image->follow;
    struct page_list *pages = &follow->pages;
    page_list_sort(pages);
    for (size_t i = 0; i < pages->count;) {
        uint64_t start = round_down(pages->page[i] * PAGE_BYTES, UNIT_BYTES), end = start;
        while (i < pages->count && pages->page[i] * PAGE_BYTES < end + UNIT_BYTES)
            end = round_down(pages->page[i++] * PAGE_BYTES, UNIT_BYTES) + UNIT_BYTES;
        void *at = image->map.base + start;
        /* EINVAL: the program keeps its memory locked. */
        if (madvise(at, (size_t)(end - start), MADV_DONTNEED) != 0 &&
            madvise(at, (size_t)(end - start), MADV_DONTNEED_LOCKED) != 0)
            return error_set(errno, "cannot drop the private pages of %s: %s", image->file->path, error_text(errno));
    }
    pages->count = follow->compacted = 0;
    tell_pages(follow);
    return 0;
}

static int read_view(const struct gather *gather, uint64_t page, uint8_t *to)
{
    const uint8_t *from = gather->image->map.base + page * PAGE_BYTES;
    if (gather->memory_fd < 0) {
        memcpy(to, from, PAGE_BYTES);
        return 0;
    }
    if (pread(gather->memory_fd, to, PAGE_BYTES, (off_t)(uintptr_t)from) == (ssize_t)PAGE_BYTES)
        return 0;
    return error_set(EIO, "cannot read page %llu of %s", (unsigned long long)page, gather->image->file->path);
}

static int write_protected(struct gather *gather, uint64_t page, const uint8_t *bytes)
{
    uint8_t *to = gather->image->map.base + page * PAGE_BYTES;
    uint8_t *unit = gather->image->map.base + round_down(page * PAGE_BYTES, UNIT_BYTES);
    if (mprotect(unit, UNIT_BYTES, PROT_READ | PROT_WRITE) != 0)
        return error_set(errno, "cannot make page %llu of %s private: %s", (unsigned long long)page,
                         gather->image->file->path, error_text(errno));
    memcpy(to, bytes, PAGE_BYTES);
    if (mprotect(unit, UNIT_BYTES, PROT_READ) != 0)
        return error_set(errno, "cannot protect page %llu of %s: %s", (unsigned long long)page,
                         gather->image->file->path, error_text(errno));
    return 0;
}

static int write_view(struct gather *gather, uint64_t page, const uint8_t *bytes)
{
    uintptr_t to = (uintptr_t)gather->image->map.base + page * PAGE_BYTES;
    gather->written = true;
    if (gather->memory_fd >= 0) {
        if (pwrite(gather->memory_fd, bytes, PAGE_BYTES, (off_t)to) == (ssize_t)PAGE_BYTES)
            return 0;
        close(gather->memory_fd); /* a kernel that forbids writing over a protection */
        gather->memory_fd = -1;
    }
    return write_protected(gather, page, bytes);
}

/* Step 4: what is gathered becomes visible. */
static int write_gathered(struct gather *gather)
{
    struct follow *follow = &gather->image->follow;
    struct page_list list = {0};
    int rc = overlay_pages(gather->overlay, &list);
    if (rc == 0)
        rc = page_list_reserve(&follow->pages, list.count);
    if (rc != 0) {
        page_list_free(&list);
        return error_set(rc, "no memory to follow the log of %s", gather->image->file->path);
    }
    for (size_t i = 0; i < list.count; i++) /* before they are private: none is ever forgotten */
        follow->pages.page[follow->pages.count++] = list.page[i];
    for (size_t i = 0; i < list.count && rc == 0; i++)
        rc = write_view(gather, list.page[i], overlay_get(gather->overlay, list.page[i]));
    page_list_free(&list);
    overlay_clear(gather->overlay);
    if (follow->pages.count > 2 * follow->compacted + COMPACT_PAGES) {
        page_list_sort(&follow->pages);
        follow->compacted = follow->pages.count;
    }
    tell_pages(follow);
    return rc;
}

/* ---- records ---- */

static int gather_run(void *ctx, uint64_t image_offset, const void *bytes, unsigned count)
{
    struct gather *gather = ctx;
    uint64_t page = image_offset / PAGE_BYTES;
    int rc = 0;
    if (image_offset >= gather->used_bytes) /* a run stays within its page, and used_bytes is whole pages */
        return error_set(STEAD_CORRUPT, "record %llu of the log of %s writes past the end of the image",
                         (unsigned long long)gather->seq, gather->image->file->path);
    if (count == WAL_STRAIGHT)
        return 0; /* the file has it, and no record before this one named the page */
    uint8_t *to = overlay_get(gather->overlay, page);
    if (to == NULL) {
        if (gather->overlay->count >= GATHER_PAGES)
            rc = write_gathered(gather);
        if (rc == 0 && (rc = overlay_reserve(gather->overlay, 1)) != 0)
            error_set(rc, "no memory to follow the log of %s", gather->image->file->path);
        if (rc != 0)
            return rc;
        to = overlay_put(gather->overlay, page);
        if (count != 0 && (rc = read_view(gather, page, to)) != 0)
            return rc;
    }
    if (count == 0)
        memset(to, 0, PAGE_BYTES);
    else
        memcpy(to + image_offset % PAGE_BYTES, bytes, count);
    return 0;
}

/* The image at a commit must be mapped before its bytes are shown. */
static int make_room(struct image *image, uint64_t used_bytes)
{
    uint64_t file_bytes = 0;
    if (used_bytes <= image_bytes(image) || used_bytes <= image_follow(image))
        return 0;
    int rc = file_size(image->file->fd, &file_bytes);
    if (rc == 0 && (used_bytes > image->map.capacity || format_file_bytes(used_bytes) > file_bytes))
        return error_set(STEAD_CORRUPT, "%s is %llu bytes long, its log tells of %llu", image->file->path,
                         (unsigned long long)file_bytes, (unsigned long long)used_bytes);
    return error_set(rc != 0 ? rc : ENOMEM, "%s grew to %llu bytes, which cannot be mapped", image->file->path,
                     (unsigned long long)used_bytes);
}

/* Step 3, and 4 at its end.  The scan stands where the last look stopped. */
static int replay(struct gather *gather, struct wal_scan *scan, uint64_t last_seq)
{
    struct wal_record record;
    int rc = 0;
    while (rc == 0 && scan->at.next_seq <= last_seq) {
        rc = wal_scan_next(scan, &record);
        if (rc == ENOENT)
            rc = error_set(STEAD_CORRUPT, "commit %llu was durable in the log of %s and is damaged",
                           (unsigned long long)scan->at.next_seq, gather->image->file->path);
        if (rc == 0)
            rc = make_room(gather->image, record.used_bytes);
        if (rc == 0) {
            gather->seq = record.seq;
            gather->used_bytes = record.used_bytes;
            rc = wal_scan_runs(scan, &record, gather_run, gather);
        }
    }
    return rc == 0 ? write_gathered(gather) : rc;
}

/* ---- looking ---- */

static void set_view(struct follow *follow, const struct wal_position *at, uint64_t used_bytes)
{
    follow->at = *at;
    follow->used_bytes = used_bytes;
    atomic_store(&follow->seq, at->next_seq - 1);
}

/* The view shows the file, which is at the commit that the words call applied. */
static int show_file(struct image *image, const struct shared_state *state)
{
    int rc = drop_pages(image);
    if (rc != 0)
        return rc; /* the base is the old one: the next look tries again */
    image->follow.base = state->applied_at;
    image->follow.base_used_bytes = state->applied_used_bytes;
    atomic_store(&image->follow.base_seq, state->applied_seq);
    set_view(&image->follow, &state->applied_at, state->applied_used_bytes);
    return make_room(image, state->applied_used_bytes);
}

/* Is the log of this salt and number the one that the store needs now? */
static bool names_log(const struct image *image, const struct wal_position *at)
{
    struct superblock now;
    return superblock_read(image->file, &now) != 0 ||
           (now.state == SUPER_OPEN_LOGGED && now.log_salt == at->salt && now.checkpoint == at->checkpoint);
}

/* The log cannot be had: is that to be expected?  Then 0: see the top. */
static int judge_missing(const struct image *image, const struct shared_state *state, int rc,
                         const struct error_memo *before)
{
    const struct wal_position *at = &state->at;
    if (rc == EACCES || rc == EPERM ||
        ((rc == ENOENT || rc == STEAD_LOG_MISSING) && (!file_is_current(image->file) || !names_log(image, at)))) {
        if (state->file_seq > state->applied_seq)
            return error_set(EBUSY, "%s is being brought from one commit to another, and its log cannot be read",
                             image->file->path);
        error_recall(before);
        return 0;
    }
    if (rc == ENOENT)
        return error_set(STEAD_LOG_MISSING, "%s is in use, and its log %s is missing", image->file->path,
                         image->file->log_path);
    return rc == STEAD_LOG_MISSING ? rc
                                   : error_set(rc, "cannot open the log %s: %s", image->file->log_path, error_text(rc));
}

/* Steps 3 and 4.  Takes fd over. */
static int follow_log(struct image *image, const struct shared_state *state, int fd, uint64_t last_seq)
{
    struct follow *follow = &image->follow;
    struct wal_scan scan;
    int rc = wal_scan_open(&scan, fd, image->super->id, state->at.salt, state->at.checkpoint, image->map.capacity);
    if (rc != 0) {
        file_calls.close(fd);
        return rc;
    }
    scan.at = follow->at;
    scan.file_bytes = min_u64(scan.file_bytes, state->at.end); /* nothing behind it is read, or searched */
    struct gather gather = {.image = image, .overlay = &follow->overlay, .used_bytes = follow->used_bytes};
    if (file_open_path(&gather.memory_fd, "/proc/self/mem", O_RDWR, 0) != 0)
        gather.memory_fd = -1;
    rc = replay(&gather, &scan, last_seq);
    if (rc == 0) {
        set_view(follow, &scan.at, gather.used_bytes);
    } else if (
        gather.written) { /* the sentence of the first failure is the one that counts; a failed drop sets its own */
        int drop_rc = show_file(image, state);
        if (drop_rc != 0)
            rc = drop_rc;
    }
    overlay_clear(&follow->overlay); /* keeps a little memory: making it anew costs more than a small look */
    if (gather.memory_fd >= 0)
        close(gather.memory_fd);
    wal_scan_close(&scan);
    file_calls.close(fd);
    return rc;
}

static int catch_up(struct image *image, const struct shared_state *state, uint64_t last_seq)
{
    int fd;
    struct error_memo before;
    error_remember(&before);
    int rc = file_open_path(&fd, image->file->log_path, O_RDONLY | O_NOFOLLOW, 0);
    if (rc != 0)
        return judge_missing(image, state, rc, &before);
    rc = follow_log(image, state, fd, last_seq);
    return rc == STEAD_LOG_MISSING ? judge_missing(image, state, rc, &before) : rc;
}

/* ---- the words ---- */

static int look_by_words(struct image *image, const struct shared_state *state, uint64_t durable)
{
    struct follow *follow = &image->follow;
    if (state->applied_at.next_seq != state->applied_seq + 1 || state->at.next_seq < state->applied_at.next_seq ||
        state->at.salt != state->applied_at.salt || state->at.checkpoint != state->applied_at.checkpoint)
        return error_set(STEAD_CORRUPT, "%s: the words shared by its processes are damaged", image->file->path);
    follow->whole_log = false;
    if (memcmp(&follow->base, &state->applied_at, sizeof follow->base) != 0) {
        int rc = show_file(image, state);
        if (rc != 0)
            return rc;
    }
    uint64_t last = max_u64(state->applied_seq, min_u64(durable, state->at.next_seq - 1));
    return last < follow->at.next_seq ? 0 : catch_up(image, state, last);
}

/* An attached reader whose words are torn. */
static int look_without_words(struct image *image)
{
    struct follow *follow = &image->follow;
    struct superblock now;
    if (follow->pages.count == 0)
        return 0;
    int rc = superblock_read(image->file, &now);
    if (rc != 0 || (now.state == SUPER_OPEN_LOGGED && now.log_salt == follow->base.salt &&
                    now.checkpoint == follow->base.checkpoint))
        return rc;
    struct shared_state state = {.applied_seq = now.commit_seq, .applied_used_bytes = now.used_bytes};
    state.applied_at.next_seq = now.commit_seq + 1;
    return show_file(image, &state);
}

/* ---- the superblock, where no attachment tells what goes on ---- */

/* Sealed, or LIVE: the file is all there is. */
static int look_at_file(struct image *image)
{
    struct follow *follow = &image->follow;
    int rc = drop_pages(image);
    if (rc != 0)
        return rc;
    memset(&follow->base, 0, sizeof follow->base);
    memset(&follow->at, 0, sizeof follow->at);
    follow->base_used_bytes = follow->used_bytes = 0;
    follow->whole_log = false;
    atomic_store(&follow->base_seq, 0);
    atomic_store(&follow->seq, 0); /* *super has the number */
    return image->super->state == SUPER_SEALED ? make_room(image, image->super->used_bytes) : 0;
}

/* The log is the superblock's: the position behind its valid prefix into state->at, its beginning into applied_at. */
static int measure_log(const struct image *image, int fd, struct shared_state *state)
{
    const struct superblock *super = image->super;
    struct wal_scan scan;
    struct wal_record record;
    int rc = wal_scan_open(&scan, fd, super->id, super->log_salt, super->checkpoint, image->map.capacity);
    if (rc != 0)
        return rc;
    if (scan.header.first_seq != super->commit_seq + 1 || scan.header.used_bytes != super->used_bytes)
        rc = error_set(STEAD_LOG_MISSING, "the log of %s begins at commit %llu, the store ends at %llu",
                       image->file->path, (unsigned long long)scan.header.first_seq,
                       (unsigned long long)super->commit_seq);
    state->applied_seq = super->commit_seq;
    state->applied_used_bytes = super->used_bytes;
    state->applied_at = scan.at;
    while (rc == 0)
        rc = wal_scan_next(&scan, &record);
    state->at = scan.at;
    wal_scan_close(&scan);
    return rc == ENOENT ? 0 : rc;
}

/* Does a record stand behind what the view has of the log? */
static int was_appended(const struct image *image, int fd, bool *appended)
{
    const struct wal_position *at = &image->follow.at;
    struct wal_record next;
    uint64_t bytes;
    int rc = file_size(fd, &bytes);
    *appended = false;
    if (rc == 0 && bytes >= at->end + sizeof next) {
        rc = file_read_at(fd, &next, sizeof next, at->end);
        *appended = rc == 0 && wal_record_valid(&next, image->super->id, at->salt, at->end);
    }
    return rc == 0 ? 0 : error_set(rc, "cannot read the log of %s: %s", image->file->path, error_text(rc));
}

/* The view has the whole log, or had: a writer whose session had just begun may have written words, appended and died, and
 * another one, about to recover, made the words anew.  Recovery begins another log, so an old one grows by that only. */
static int look_behind(struct image *image, bool *appended)
{
    int fd;
    const struct superblock *super = image->super;
    struct error_memo before;
    error_remember(&before);
    int rc = wal_find(&fd, image->file, false, super->id, super->log_salt, super->checkpoint);
    *appended = false;
    if (rc == STEAD_LOG_MISSING) {
        error_recall(&before); /* it cannot have come to more */
        return 0;
    }
    if (rc != 0)
        return rc;
    rc = was_appended(image, fd, appended);
    file_calls.close(fd);
    return rc;
}

/* No words belong to the superblock's log: one that nobody appends to at this moment, because nobody does before there are
 * words. */
static int look_by_log(struct image *image, const struct image_shared *shared)
{
    struct follow *follow = &image->follow;
    const struct superblock *super = image->super;
    struct shared_state state = {0}, words;
    int fd, rc;
    if (follow->whole_log && follow->base.salt == super->log_salt && follow->base.checkpoint == super->checkpoint) {
        bool appended;
        rc = look_behind(image, &appended);
        if (rc != 0 || !appended)
            return rc;
    }
    struct error_memo before;
    error_remember(&before);
    rc = wal_find(&fd, image->file, false, super->id, super->log_salt, super->checkpoint);
    if (rc == STEAD_LOG_MISSING && !file_is_current(image->file)) {
        error_recall(&before); /* removed, the log too: every commit of such a store is applied at once */
        return 0;
    }
    if (rc != 0)
        return rc;
    for (unsigned tries = 0;;) {
        rc = measure_log(image, fd, &state);
        uint64_t durable = shared != NULL ? shared_durable_seq(shared) : 0;
        if (shared != NULL && shared_read(shared, &words) == 0 && words.at.salt == super->log_salt &&
            words.at.checkpoint == super->checkpoint) {
            file_calls.close(fd);
            error_recall(&before);
            return look_by_words(image, &words, durable); /* a writer's session has just begun */
        }
        if (rc != STEAD_CORRUPT || ++tries == MEASURES_MOST)
            break;
    }
    if (rc != 0)
        goto close_log;
    rc = show_file(image, &state);
    if (rc != 0)
        goto close_log;
    rc = follow_log(image, &state, fd, state.at.next_seq - 1);
    follow->whole_log = rc == 0;
    return rc;
close_log:
    file_calls.close(fd);
    return rc;
}

static int read_superblock(struct image *image)
{
    struct superblock now;
    int rc = superblock_read(image->file, &now);
    if (rc != 0)
        return rc;
    if (memcmp(now.id, image->super->id, sizeof now.id) != 0 || now.base != image->super->base)
        return error_set(STEAD_CORRUPT, "%s was overwritten by another store while it was open", image->file->path);
    *image->super = now;
    return 0;
}

int image_look(struct image *image, const struct image_shared *shared)
{
    struct shared_state state;
    bool attached = image->options.shared != NULL;
    if (image->replay || (attached && image->map.kind != MAP_IMAGE_VIEW))
        return 0;
    int rc = attached ? 0 : read_superblock(image);
    if (rc != 0 || image->map.kind != MAP_IMAGE_VIEW) /* in memory: nothing but the superblock can change */
        return rc;
    if (!attached && image->super->state != SUPER_OPEN_LOGGED)
        return look_at_file(image);
    uint64_t durable = shared != NULL ? shared_durable_seq(shared) : 0; /* before the words: see the top */
    bool told = shared != NULL && shared_read(shared, &state) == 0;
    if (told &&
        (attached || (state.at.salt == image->super->log_salt && state.at.checkpoint == image->super->checkpoint)))
        return look_by_words(image, &state, durable);
    return attached ? look_without_words(image) : look_by_log(image, shared);
}

/* ---- what the view is, for the rest of the module ---- */

bool follow_has_pages(const struct image *image)
{
    return atomic_load_explicit(&image->follow.private_pages, memory_order_relaxed) != 0;
}

int follow_list_pages(const struct image *image, struct page_list *pages)
{
    const struct page_list *own = &image->follow.pages;
    int rc = page_list_reserve(pages, own->count);
    if (rc != 0 || own->count == 0)
        return rc;
    memcpy(pages->page, own->page, own->count * sizeof *own->page);
    pages->count = own->count;
    page_list_sort(pages);
    return 0;
}

void follow_stat(const struct image *image, struct image_stat *stat)
{
    stat->commit_seq = stat->durable_seq = image_commit_seq(image);
    stat->applied_seq = max_u64(atomic_load(&image->follow.base_seq), image->super->commit_seq);
    stat->private_bytes = atomic_load_explicit(&image->follow.private_pages, memory_order_relaxed) * PAGE_BYTES;
}

void follow_release(struct image *image)
{
    page_list_free(&image->follow.pages);
    overlay_release(&image->follow.overlay);
    page_list_free(&image->replayed);
}
