/*
 * replay.c -- see replay.h.
 *
 * A log is in the order of its commits, and its runs are scattered over the image; a disk (and the page cache) wants
 * each page once, in ascending order, neighbours together.  So a *window* of the log is read, in one sequential pass, and
 * each of its runs noted:
 *
 *   bytes   [ run | run | run | ...                    ]   as they stand in the records
 *   notes   {page, offset in it, count, place in bytes}    16 bytes each, in the order of the log
 *
 * When the window is full or the log at its end, the notes are sorted by page - a stable sort, so that the runs of one page
 * stay in the order of their commits - and page after page is read, changed and written, neighbours in one call of up
 * to PIECE_PAGES.  A page that begins from zeros, or whose first run is all of it, is not read.  Pages to be read soon are
 * asked for ahead: after a power cut nothing is cached, and one read at a time would wait for the disk each time.
 *
 * A recovery reads the log once, to verify it: it notes the runs meanwhile (struct replay_notes).  A log that fits one window
 * stays in memory, and the notes say where in it the runs stand; nothing is copied.
 *
 *   bounds  a window holds replay_window_bytes; a log of n windows touches a page at most n times
 *   cost    one pass over the log, a radix sort of the notes, one read and one write for each page (or piece) and window
 *
 *   W15 every page ends as its runs one after the other would leave it; it is written at most once a window
 *
 * Nothing is verified in the target.  A page named by the log may be torn (application was cut off) and its old checksum
 * mean nothing; the records were verified, and say every byte in which the page may differ.
 */
#include "persist/replay.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/units.h"
#include "persist/map.h"

#define PIECE_PAGES 64   /* 256 KiB: the processor's cache holds it while it is read, changed, written, checksummed */
#define AHEAD_PAGES 1024 /* asked for ahead of the page in hand */
#define GAP_PAGES 16     /* so far apart they are asked for together */
#define FIRST_NOTES 1024
#define FIRST_BYTES (UINT64_C(64) << 10)
#define DIGIT_BITS 11
#define DIGITS (1u << DIGIT_BITS)
#define FEW_NOTES 32 /* sorted by insertion: the usual turn */

size_t replay_window_bytes = (size_t)128 << 20;

struct note {
    uint64_t page;
    uint32_t at;            /* in window.bytes              */
    uint16_t offset, count; /* in the page; count 0: zeros  */
};
static_assert(sizeof(struct note) == 16, "two words");

struct window {
    struct note *note, *spare; /* the spare is the sort's    */
    size_t notes, note_room;
    uint8_t *bytes;
    const uint8_t *kept; /* in place of these: the log itself; `filled` is its length */
    size_t filled, byte_room;
    uint64_t last_page; /* the highest in it */
};

struct replay {
    const struct replay_target *target;
    struct window window;
    uint8_t *piece; /* PIECE_PAGES pages */
};

/* ---- filling the window ---- */

static void *grown(void *old, size_t *room, size_t need, size_t size, size_t first)
{
    size_t more = *room != 0 ? *room : first;
    while (more < need)
        more *= 2; /* need is bounded by the window */
    void *memory = realloc(old, more * size);
    if (memory != NULL)
        *room = more;
    return memory;
}

static int window_reserve(struct window *window, size_t count)
{
    if (window->notes == window->note_room) {
        size_t room = window->note_room;
        struct note *note = grown(window->note, &room, window->notes + 1, sizeof *note, FIRST_NOTES);
        if (note == NULL)
            return ENOMEM;
        window->note = note;
        struct note *spare = realloc(window->spare, room * sizeof *spare);
        if (spare == NULL)
            return ENOMEM;
        window->spare = spare;
        window->note_room = room;
    }
    if (window->kept == NULL && window->byte_room - window->filled < count) {
        uint8_t *bytes = grown(window->bytes, &window->byte_room, window->filled + count, 1, FIRST_BYTES);
        if (bytes == NULL)
            return ENOMEM;
        window->bytes = bytes;
    }
    return 0;
}

static bool window_is_full(const struct window *window)
{
    return window->filled + 2 * window->notes * sizeof(struct note) + PAGE_BYTES >=
           min_u64(replay_window_bytes, UINT32_MAX);
}

/* There is room. */
static void window_add(struct window *window, uint64_t image_offset, const void *bytes, unsigned count)
{
    uint64_t page = image_offset / PAGE_BYTES;
    size_t at = window->kept != NULL ? (size_t)((const uint8_t *)bytes - window->kept) : window->filled;
    window->note[window->notes++] = (struct note){
        .page = page, .at = (uint32_t)at, .offset = (uint16_t)(image_offset % PAGE_BYTES), .count = (uint16_t)count};
    if (count != 0 && window->kept == NULL) {
        memcpy(window->bytes + window->filled, bytes, count);
        window->filled += count;
    }
    window->last_page = max_u64(window->last_page, page);
}

static int write_window(struct replay *replay);

static int note_run(void *ctx, uint64_t image_offset, const void *bytes, unsigned count)
{
    struct replay *replay = ctx;
    struct window *window = &replay->window;
    if (count == WAL_STRAIGHT)
        return 0; /* it is in the file, and no record before this one names it (W7) */
    int rc = window_is_full(window) ? write_window(replay) : 0;
    if (rc == 0 && (rc = window_reserve(window, count)) != 0)
        error_set(rc, "no memory to replay the log");
    if (rc != 0)
        return rc;
    window_add(window, image_offset, bytes, count);
    return 0;
}

/* ---- sorting it ---- */

static void sort_few(struct note *note, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        struct note moving = note[i];
        size_t j = i;
        for (; j > 0 && note[j - 1].page > moving.page; j--)
            note[j] = note[j - 1];
        note[j] = moving;
    }
}

/* By page, the order among equal ones kept. */
static void sort_notes(struct window *window)
{
    size_t place[DIGITS];
    if (window->notes <= FEW_NOTES) {
        sort_few(window->note, window->notes);
        return;
    }
    for (unsigned shift = 0; shift < 64 && window->last_page >> shift != 0; shift += DIGIT_BITS) {
        memset(place, 0, sizeof place);
        for (size_t i = 0; i < window->notes; i++)
            place[(window->note[i].page >> shift) % DIGITS]++;
        size_t sum = 0;
        for (unsigned digit = 0; digit < DIGITS; digit++) {
            size_t here = place[digit];
            place[digit] = sum;
            sum += here;
        }
        for (size_t i = 0; i < window->notes; i++)
            window->spare[place[(window->note[i].page >> shift) % DIGITS]++] = window->note[i];
        struct note *sorted = window->spare;
        window->spare = window->note;
        window->note = sorted;
    }
}

/* ---- writing it ---- */

/* The notes of one page: [at, result). */
static size_t notes_of_page(const struct window *window, size_t at)
{
    uint64_t page = window->note[at].page;
    while (at < window->notes && window->note[at].page == page)
        at++;
    return at;
}

/* Nothing of the old page remains. */
static bool begins_anew(const struct note *note)
{
    return note->count == 0 || note->count == PAGE_BYTES;
}

static void change_page(const struct window *window, size_t from, size_t to, uint8_t *page)
{
    const uint8_t *bytes = window->kept != NULL ? window->kept : window->bytes;
    for (size_t i = from; i < to; i++) {
        const struct note *note = &window->note[i];
        if (note->count == 0)
            memset(page, 0, PAGE_BYTES);
        else
            memcpy(page + note->offset, bytes + note->at, note->count);
    }
}

/* The pages that follow the one at note `at` in the file without a gap, at most PIECE_PAGES, those that must be read read.
 * *next: the first note after them. */
static int read_piece(struct replay *replay, size_t at, size_t *count, size_t *next)
{
    const struct window *window = &replay->window;
    uint64_t first = window->note[at].page, read_from = 0;
    uint64_t most = min_u64(format_contiguous(first * PAGE_BYTES) / PAGE_BYTES, PIECE_PAGES);
    uint64_t pages = 0, wanted = 0; /* wanted: pages up to here, from read_from on, are still to be read */
    int rc = 0;
    while (rc == 0 && pages < most && at < window->notes && window->note[at].page == first + pages) {
        if (!begins_anew(&window->note[at])) {
            if (wanted == 0)
                read_from = pages;
            wanted++;
        } else if (wanted != 0) {
            rc = replay->target->read(replay->target->ctx, first + read_from, wanted,
                                      replay->piece + read_from * PAGE_BYTES);
            wanted = 0;
        }
        at = notes_of_page(window, at);
        pages++;
    }
    if (rc == 0 && wanted != 0)
        rc = replay->target->read(replay->target->ctx, first + read_from, wanted,
                                  replay->piece + read_from * PAGE_BYTES);
    *count = pages;
    *next = at;
    return rc;
}

/* Asks for what is to be read from note `at` on, up to a number of pages; returns the first note not asked for. */
static size_t ask_ahead(const struct replay *replay, size_t at, uint64_t pages)
{
    const struct window *window = &replay->window;
    while (pages > 0 && at < window->notes) {
        uint64_t first = window->note[at].page, end = first;
        uint64_t limit = first + min_u64(format_contiguous(first * PAGE_BYTES) / PAGE_BYTES, PIECE_PAGES);
        while (at < window->notes && pages > 0 && window->note[at].page < limit &&
               window->note[at].page <= end + GAP_PAGES) {
            end = window->note[at].page + 1;
            at = notes_of_page(window, at);
            pages--;
        }
        replay->target->soon(replay->target->ctx, first, end - first);
    }
    return at;
}

static int write_window(struct replay *replay)
{
    struct window *window = &replay->window;
    const struct replay_target *target = replay->target;
    size_t ahead = 0;
    int rc = 0;
    sort_notes(window);
    for (size_t at = 0; rc == 0 && at < window->notes;) {
        size_t count, next;
        if (target->soon != NULL && ahead <= at)
            ahead = ask_ahead(replay, at, AHEAD_PAGES);
        rc = read_piece(replay, at, &count, &next);
        uint8_t *page = replay->piece;
        while (rc == 0 && at < next) {
            size_t end = notes_of_page(window, at);
            change_page(window, at, end, page);
            page += PAGE_BYTES;
            at = end;
        }
        if (rc == 0)
            rc = target->write(target->ctx, window->note[at - 1].page + 1 - count, count, replay->piece);
    }
    window->notes = window->filled = 0;
    window->last_page = 0;
    return rc;
}

static bool replay_init(struct replay *replay)
{
    *replay = (struct replay){.piece = aligned_alloc(PAGE_BYTES, PIECE_PAGES * PAGE_BYTES)};
    return replay->piece != NULL;
}

static void replay_release(struct replay *replay)
{
    free(replay->piece);
    free(replay->window.note);
    free(replay->window.spare);
    free(replay->window.bytes);
    *replay = (struct replay){0};
}

int replay_records(struct wal_scan *scan, uint64_t end_seq, const struct replay_target *target)
{
    struct replay replay;
    int rc = replay_init(&replay) ? 0 : error_set(ENOMEM, "no memory to replay the log");
    replay.target = target;
    while (rc == 0 && scan->at.next_seq <= end_seq) {
        struct wal_record record;
        rc = wal_scan_next(scan, &record);
        if (rc == ENOENT) /* it was there when it was counted */
            rc = error_set(STEAD_CORRUPT, "the log lost commit %llu", (unsigned long long)scan->at.next_seq);
        if (rc == 0)
            rc = wal_scan_runs(scan, &record, note_run, &replay);
    }
    if (rc == 0)
        rc = write_window(&replay);
    replay_release(&replay);
    return rc;
}

/* ---- noted by whoever reads the log anyway ---- */

struct replay_notes {
    struct replay replay;
    bool complete;
};

struct replay_notes *replay_notes_open(const uint8_t *kept, uint64_t kept_bytes)
{
    struct replay_notes *notes = calloc(1, sizeof *notes);
    if (notes == NULL)
        return NULL;
    notes->complete = replay_init(&notes->replay);
    notes->replay.window.kept = kept;
    notes->replay.window.filled = kept != NULL ? (size_t)kept_bytes : 0;
    return notes;
}

void replay_notes_add(struct replay_notes *notes, uint64_t image_offset, const void *bytes, unsigned count)
{
    if (notes == NULL || !notes->complete || count == WAL_STRAIGHT)
        return;
    if (!window_is_full(&notes->replay.window) && window_reserve(&notes->replay.window, count) == 0) {
        window_add(&notes->replay.window, image_offset, bytes, count);
        return;
    }
    notes->complete = false; /* the log is too long, or memory short */
    replay_release(&notes->replay);
}

bool replay_notes_complete(const struct replay_notes *notes)
{
    return notes != NULL && notes->complete;
}

int replay_notes_write(struct replay_notes *notes, const struct replay_target *target)
{
    notes->replay.target = target;
    return write_window(&notes->replay);
}

void replay_notes_close(struct replay_notes *notes)
{
    if (notes != NULL)
        replay_release(&notes->replay);
    free(notes);
}
