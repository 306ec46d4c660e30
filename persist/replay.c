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
 * stay in the order of their commits - and written page after page (replay_write.c).
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
#include "persist/replay_internal.h"

#define FIRST_NOTES 1024
#define FIRST_BYTES (UINT64_C(64) << 10)
#define DIGIT_BITS 11
#define DIGITS (1u << DIGIT_BITS)
#define FEW_NOTES 32 /* sorted by insertion: the usual turn */

size_t replay_window_bytes = (size_t)128 << 20;

struct replay {
    const struct replay_target *target;
    struct window window;
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
    if (replay->target->end_page != 0 && image_offset / PAGE_BYTES >= replay->target->end_page)
        return 0;
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

/* ---- the whole ---- */

static int write_window(struct replay *replay)
{
    struct window *window = &replay->window;
    sort_notes(window);
    int rc = replay_write_window(window, replay->target);
    window->notes = window->filled = 0;
    window->last_page = 0;
    return rc;
}

static void replay_release(struct replay *replay)
{
    free(replay->window.note);
    free(replay->window.spare);
    free(replay->window.bytes);
    *replay = (struct replay){0};
}

int replay_records(struct wal_scan *scan, uint64_t end_seq, const struct replay_target *target)
{
    struct replay replay = {.target = target};
    int rc = 0;
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
    notes->complete = true;
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
