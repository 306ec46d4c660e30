/*
 * replay_write.c -- a sorted window of the log (replay.c) becomes pages of the target.
 *
 * Page after page is read, changed by its notes and written, neighbours in one call of up to REPLAY_PIECE_PAGES.  A page that
 * begins from zeros, or whose first run is all of it, is not read.  Pages to be read soon are asked for ahead: after a power
 * cut nothing is cached, and one read at a time would wait for the disk each time.
 *
 * Two processors.  With all pages in the page cache the processor is what a recovery waits for, not the disk: for 44 MiB of
 * log on 256 MiB of pages it copies, compares and sums some 700 MiB, while the disk is told of what is written as soon as
 * it is.  So where the target has a helper (a second one, to be used beside it), the window is not small and there is a second
 * processor, a thread of its own does a part.  Both take *claims*, one after the other, from the front of the window:
 *
 *   notes, by page   [ claim 0 | claim 1 | claim 2 | claim 3 | ...          ]
 *   who                this      helper    helper    this
 *
 * A claim is what the window has of one block of the checksum table (CHECKSUM_BLOCK_PAGES pages), so that no two threads write
 * the same page or the same entry, and the file is still written front to back, but for the width of a claim.  The first error
 * ends both.  The thread has all signals blocked, is joined before the window is done, and where none can be had
 * (a limit, a sandbox) this one does everything.
 *
 *   W15 every page ends as its runs one after the other would leave it; it is written at most once a window
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/units.h"
#include "persist/checksum_cache.h"
#include "persist/replay_internal.h"

#define AHEAD_PAGES 1024 /* asked for ahead of the claim in hand */
#define GAP_PAGES 16     /* so far apart they are asked for together */
#define FETCH_NOTES 8    /* bytes of so many notes ahead are on their way into the processor's cache */
#define HELPER_STACK_BYTES (UINT64_C(256) << 10)

size_t replay_helper_notes = 32768; /* some 2 MiB of log: 10 ms */

struct claims {
    const struct window *window;
    pthread_mutex_t mutex;
    size_t next;  /* note: what comes before is claimed         */
    size_t ahead; /* note: what comes before was asked for      */
    int rc;       /* the first error                            */
};

/* One thread's part. */
struct writer {
    struct claims *claims;
    const struct window *window;
    const struct replay_target *target;
    uint8_t *piece; /* REPLAY_PIECE_BYTES */
    int rc;
    char sentence[512]; /* the helper's */
};

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
        if (i + FETCH_NOTES < window->notes) /* the notes are in the order of the pages, the bytes in that of the log */
            __builtin_prefetch(bytes + note[FETCH_NOTES].at);
        if (note->count == 0)
            memset(page, 0, PAGE_BYTES);
        else
            memcpy(page + note->offset, bytes + note->at, note->count);
    }
}

/* The pages that follow the one at note `at` in the file without a gap, at most REPLAY_PIECE_PAGES, those that must be read
 * read.  All notes lie before `to`; *next: the first one after them. */
static int read_piece(const struct writer *writer, size_t at, size_t to, size_t *count, size_t *next)
{
    const struct window *window = writer->window;
    uint64_t first = window->note[at].page, read_from = 0;
    uint64_t most = min_u64(format_contiguous(first * PAGE_BYTES) / PAGE_BYTES, REPLAY_PIECE_PAGES);
    uint64_t pages = 0, wanted = 0; /* wanted: pages up to here, from read_from on, are still to be read */
    int rc = 0;
    while (rc == 0 && pages < most && at < to && window->note[at].page == first + pages) {
        if (!begins_anew(&window->note[at])) {
            if (wanted == 0)
                read_from = pages;
            wanted++;
        } else if (wanted != 0) {
            rc = writer->target->read(writer->target->ctx, first + read_from, wanted,
                                      writer->piece + read_from * PAGE_BYTES);
            wanted = 0;
        }
        at = notes_of_page(window, at);
        pages++;
    }
    if (rc == 0 && wanted != 0)
        rc = writer->target->read(writer->target->ctx, first + read_from, wanted,
                                  writer->piece + read_from * PAGE_BYTES);
    *count = pages;
    *next = at;
    return rc;
}

/* Asks for what is to be read from note `at` on, up to a number of pages; returns the first note not asked for. */
static size_t ask_ahead(const struct writer *writer, size_t at, uint64_t pages)
{
    const struct window *window = writer->window;
    while (pages > 0 && at < window->notes) {
        uint64_t first = window->note[at].page, end = first;
        uint64_t limit = first + min_u64(format_contiguous(first * PAGE_BYTES) / PAGE_BYTES, REPLAY_PIECE_PAGES);
        while (at < window->notes && pages > 0 && window->note[at].page < limit &&
               window->note[at].page <= end + GAP_PAGES) {
            end = window->note[at].page + 1;
            at = notes_of_page(window, at);
            pages--;
        }
        writer->target->soon(writer->target->ctx, first, end - first);
    }
    return at;
}

/* ---- claims ---- */

/* The first note at or past `at` of a page at or past `page`. */
static size_t first_at_or_past(const struct window *window, size_t at, uint64_t page)
{
    size_t low = at, high = window->notes;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (window->note[middle].page < page)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Notes [*from, *to); false: nothing is left to do. */
static bool claim(const struct writer *writer, size_t *from, size_t *to)
{
    struct claims *claims = writer->claims;
    const struct window *window = claims->window;
    pthread_mutex_lock(&claims->mutex);
    bool any = claims->rc == 0 && claims->next < window->notes;
    if (any) {
        *from = claims->next;
        *to = first_at_or_past(window, *from,
                               round_down(window->note[*from].page, CHECKSUM_BLOCK_PAGES) + CHECKSUM_BLOCK_PAGES);
        claims->next = *to;
        if (writer->target->soon != NULL && claims->ahead <= *from)
            claims->ahead = ask_ahead(writer, *from, AHEAD_PAGES);
    }
    pthread_mutex_unlock(&claims->mutex);
    return any;
}

static int write_claim(const struct writer *writer, size_t at, size_t to)
{
    const struct window *window = writer->window;
    int rc = 0;
    while (rc == 0 && at < to) {
        size_t count, next;
        rc = read_piece(writer, at, to, &count, &next);
        uint8_t *page = writer->piece;
        while (rc == 0 && at < next) {
            size_t end = notes_of_page(window, at);
            change_page(window, at, end, page);
            page += PAGE_BYTES;
            at = end;
        }
        if (rc == 0)
            rc =
                writer->target->write(writer->target->ctx, window->note[at - 1].page + 1 - count, count, writer->piece);
    }
    return rc;
}

static void write_claims(struct writer *writer)
{
    size_t from, to;
    while (claim(writer, &from, &to)) {
        writer->rc = write_claim(writer, from, to);
        if (writer->rc == 0)
            continue;
        pthread_mutex_lock(&writer->claims->mutex);
        writer->claims->rc = writer->rc;
        pthread_mutex_unlock(&writer->claims->mutex);
    }
}

/* ---- the helper ---- */

static void *help(void *arg)
{
    struct writer *writer = arg;
    write_claims(writer);
    if (writer->rc != 0) /* this thread's last error goes with it */
        (void)snprintf(writer->sentence, sizeof writer->sentence, "%s", error_last_text());
    return NULL;
}

static bool has_second_processor(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) != 0 || CPU_COUNT(&set) > 1; /* more than 1024: an error */
}

static bool start_helper(pthread_t *thread, struct writer *writer)
{
    sigset_t all, before;
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0)
        return false;
    (void)pthread_attr_setstacksize(&attributes, HELPER_STACK_BYTES);
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before); /* it has this from the thread that makes it */
    bool started = pthread_create(thread, &attributes, help, writer) == 0;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    (void)pthread_attr_destroy(&attributes);
    return started;
}

int replay_write_window(const struct window *window, const struct replay_target *target)
{
    struct claims claims = {.window = window, .mutex = PTHREAD_MUTEX_INITIALIZER};
    struct writer own = {.claims = &claims, .window = window, .target = target};
    struct writer helper = {.claims = &claims, .window = window, .target = target->helper};
    pthread_t thread;
    bool helped = target->helper != NULL && window->notes >= replay_helper_notes && has_second_processor();
    own.piece = aligned_alloc(PAGE_BYTES, REPLAY_PIECE_BYTES);
    helper.piece = helped ? aligned_alloc(PAGE_BYTES, REPLAY_PIECE_BYTES) : NULL;
    if (own.piece == NULL) {
        free(helper.piece);
        return error_set(ENOMEM, "no memory to replay the log");
    }
    helped = helper.piece != NULL && start_helper(&thread, &helper);
    write_claims(&own);
    if (helped)
        (void)pthread_join(thread, NULL);
    free(own.piece);
    free(helper.piece);
    (void)pthread_mutex_destroy(&claims.mutex);
    if (own.rc == 0 && helper.rc != 0)
        return error_set(helper.rc, "%s", helper.sentence);
    return own.rc;
}
