/*
 * test_replay.c -- records become pages: the same as applying run after run, each page once a window, in order, joined.
 * Method: random records in a real log, replayed into memory that counts what is asked of it, with windows of many sizes,
 * against a model that applies each run at once.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "persist/checksum_cache.h"
#include "persist/page_checksum.h"
#include "persist/replay.h"
#include "txn_fixture.h"

TestSuite(txn_replay, .timeout = 300);

#define FIRST_PAGE 8000 /* group 0 ends at page 8192: the pages lie on both sides of it */
#define PAGES 400
#define CAPACITY (UINT64_C(64) << 20)

static const uint8_t test_id[16] = "test_replay";

struct log {
    char path[300];
    struct file store;
    struct wal wal;
};

static void log_create(struct log *log)
{
    const char *where = getenv("TMPDIR");
    (void)snprintf(log->path, sizeof log->path, "%s/stead-replay-XXXXXX", where != NULL ? where : "/tmp");
    struct wal_next next;
    int fd = mkstemp(log->path);
    cr_assert_geq(fd, 0);
    OK(file_resolve(&log->store, log->path));
    log->store.fd = fd;
    OK(wal_make(&next, &log->store, WAL_IN_PLACE, test_id, 1, 1, 1, CAPACITY));
    OK(wal_open(&log->wal, test_id));
    OK(wal_switch(&log->wal, next.fd, &next.at));
}

static void log_remove(struct log *log)
{
    wal_close(&log->wal);
    file_close(&log->store);
    OK(wal_name_remove(&log->store, NULL));
    (void)unlink(log->path);
}

/* ---- the model and the target ---- */

struct pages {
    uint8_t bytes[PAGES][PAGE_BYTES];
};

struct counted {
    struct pages *pages;
    uint64_t last; /* page written last, in this window */
    unsigned windows, reads, writes;
    unsigned failing_read, failing_write; /* the n-th; 0: none */
    uint64_t written, read;
    bool asked_for[PAGES]; /* ahead */
};

static void counted_soon(void *ctx, uint64_t page, size_t count)
{
    struct counted *counted = ctx;
    cr_assert(page >= FIRST_PAGE && page + count <= FIRST_PAGE + PAGES);
    for (size_t i = 0; i < count; i++)
        counted->asked_for[page - FIRST_PAGE + i] = true;
}

static int counted_read(void *ctx, uint64_t page, size_t count, uint8_t *to)
{
    struct counted *counted = ctx;
    cr_assert(page >= FIRST_PAGE && page + count <= FIRST_PAGE + PAGES);
    cr_assert_leq(count * PAGE_BYTES, format_contiguous(page * PAGE_BYTES), "a read over the end of a group");
    for (size_t i = 0; i < count; i++)
        cr_assert(counted->asked_for[page - FIRST_PAGE + i], "page %llu came as a surprise",
                  (unsigned long long)page + i);
    if (++counted->reads == counted->failing_read)
        return EIO;
    memcpy(to, counted->pages->bytes[page - FIRST_PAGE], count * PAGE_BYTES);
    counted->read += count;
    return 0;
}

static int counted_write(void *ctx, uint64_t page, size_t count, const uint8_t *bytes)
{
    struct counted *counted = ctx;
    cr_assert(page >= FIRST_PAGE && page + count <= FIRST_PAGE + PAGES);
    cr_assert_leq(count * PAGE_BYTES, format_contiguous(page * PAGE_BYTES), "a write over the end of a group");
    if (++counted->writes == counted->failing_write)
        return EIO;
    if (page <= counted->last)
        counted->windows++; /* descending only where the next window begins */
    counted->last = page + count - 1;
    counted->written += count;
    memcpy(counted->pages->bytes[page - FIRST_PAGE], bytes, count * PAGE_BYTES);
    return 0;
}

/* One random run into the record and the model. */
static void add_run(struct log *log, struct pages *model, uint64_t *random)
{
    static uint8_t bytes[PAGE_BYTES] __attribute__((aligned(8)));
    uint64_t page = random_next(random) % PAGES, kind = random_next(random) % 16;
    uint64_t at = (FIRST_PAGE + page) * PAGE_BYTES;
    unsigned offset = 0, count = PAGE_BYTES;
    if (kind == 0) {
        OK(wal_add_zeroed(&log->wal, at));
        memset(model->bytes[page], 0, PAGE_BYTES);
        return;
    }
    if (kind == 1) { /* says nothing about the bytes: the page is in the file already */
        OK(wal_add_straight(&log->wal, at, page_checksum(model->bytes[page])));
        return;
    }
    if (kind != 2) {
        offset = (unsigned)(random_next(random) % (PAGE_BYTES / 8)) * 8;
        count = (unsigned)(random_next(random) % 9 + 1) * 8;
        count = (unsigned)min_u64(count, PAGE_BYTES - offset);
    }
    for (unsigned i = 0; i < count; i++)
        bytes[i] = (uint8_t)random_next(random);
    OK(wal_add_run(&log->wal, at + offset, bytes, count));
    memcpy(model->bytes[page] + offset, bytes, count);
}

static int replay_all(struct log *log, struct counted *counted, uint64_t end_seq)
{
    struct wal_scan scan;
    const struct replay_target target = {
        .ctx = counted, .read = counted_read, .write = counted_write, .soon = counted_soon};
    OK(wal_scan_open(&scan, log->wal.fd, test_id, 1, 1, CAPACITY));
    int rc = replay_records(&scan, end_seq, &target);
    wal_scan_close(&scan);
    return rc;
}

Test(txn_replay, any_windows_give_what_run_after_run_gives)
{
    const size_t whole = replay_window_bytes;
    uint64_t random = random_seed();
    struct pages *before = malloc(sizeof *before), *model = malloc(sizeof *model), *got = malloc(sizeof *got);
    cr_assert(before != NULL && model != NULL && got != NULL);
    for (long round = 0; round < random_rounds(20); round++) {
        struct log log;
        uint64_t runs = 0, records = random_next(&random) % 40 + 1;
        log_create(&log);
        for (size_t i = 0; i < sizeof *before; i++)
            ((uint8_t *)before)[i] = (uint8_t)random_next(&random);
        memcpy(model, before, sizeof *model);
        for (uint64_t n = 0; n < records; n++) {
            wal_begin(&log.wal);
            for (uint64_t i = random_next(&random) % 100 + 1; i > 0; i--, runs++)
                add_run(&log, model, &random);
            OK(wal_finish(&log.wal, CAPACITY, 0));
        }
        const size_t windows[] = {2 * PAGE_BYTES, 16384, 65536, whole};
        for (unsigned w = 0; w < sizeof windows / sizeof windows[0]; w++) {
            struct counted counted = {.pages = got};
            memcpy(got, before, sizeof *got);
            replay_window_bytes = windows[w];
            OK(replay_all(&log, &counted, records));
            cr_assert_eq(memcmp(got, model, sizeof *got), 0, "windows of %zu bytes", windows[w]);
            cr_assert_leq(counted.read, counted.written);
            cr_assert_leq(counted.written, runs, "a page at most once for each of its runs");
            if (windows[w] == whole)
                cr_assert(counted.windows <= 1 && counted.written <= PAGES, "all in one window: %u, %llu pages",
                          counted.windows, (unsigned long long)counted.written);
        }
        replay_window_bytes = whole;
        log_remove(&log);
    }
    free(before);
    free(model);
    free(got);
}

/* Neighbours in one call, up to the end of a group; nothing read that is written whole. */
Test(txn_replay, neighbours_are_joined_and_whole_pages_are_not_read)
{
    struct log log;
    static struct pages got;
    static uint8_t whole[PAGE_BYTES] __attribute__((aligned(8))) = {7};
    log_create(&log);
    for (uint64_t n = 0; n < 2; n++) { /* two records, descending: each page once all the same */
        wal_begin(&log.wal);
        for (uint64_t page = 250; page-- > 150;) {
            if (page % 2 == 0)
                OK(wal_add_run(&log.wal, (FIRST_PAGE + page) * PAGE_BYTES, whole, PAGE_BYTES));
            else
                OK(wal_add_zeroed(&log.wal, (FIRST_PAGE + page) * PAGE_BYTES));
        }
        OK(wal_finish(&log.wal, CAPACITY, 0));
    }
    struct counted counted = {.pages = &got};
    OK(replay_all(&log, &counted, 2));
    cr_assert_eq(counted.read, 0);
    cr_assert_eq(counted.written, 100);
    cr_assert_eq(counted.writes, 2, "150 to 191 in group 0, 192 to 249 in group 1: %u writes", counted.writes);
    cr_assert(got.bytes[248][0] == 7 && got.bytes[249][0] == 0);
    log_remove(&log);
}

Test(txn_replay, a_commit_that_is_not_there_and_a_failed_write_are_errors)
{
    struct log log;
    static struct pages got;
    log_create(&log);
    wal_begin(&log.wal);
    OK(wal_add_zeroed(&log.wal, FIRST_PAGE * PAGE_BYTES));
    OK(wal_finish(&log.wal, CAPACITY, 0));
    struct counted counted = {.pages = &got};
    FAILS(STEAD_CORRUPT, replay_all(&log, &counted, 2));
    counted = (struct counted){.pages = &got, .failing_write = 1};
    FAILS(EIO, replay_all(&log, &counted, 1));
    log_remove(&log);
}

/* One request that fails, whichever it is, is the result, although those after it would succeed; nothing is made of a page
 * that could not be read, and nothing more is asked for. */
Test(txn_replay, one_failed_request_ends_it_and_is_told_of)
{
    struct log log;
    static struct pages got;
    static uint8_t whole[PAGE_BYTES] __attribute__((aligned(8))) = {7};
    static const unsigned writes_before[] = {0, 0, 1}; /* each read */
    log_create(&log);
    wal_begin(&log.wal);
    OK(wal_add_run(&log.wal, (FIRST_PAGE + 10) * PAGE_BYTES + 8, whole,
                   8)); /* one piece of three pages, two reads ... */
    OK(wal_add_run(&log.wal, (FIRST_PAGE + 11) * PAGE_BYTES, whole, PAGE_BYTES));
    OK(wal_add_run(&log.wal, (FIRST_PAGE + 12) * PAGE_BYTES + 8, whole, 8));
    OK(wal_add_run(&log.wal, (FIRST_PAGE + 300) * PAGE_BYTES + 8, whole, 8)); /* ... another claim */
    OK(wal_finish(&log.wal, CAPACITY, 0));
    struct counted counted = {.pages = &got};
    OK(replay_all(&log, &counted, 1));
    cr_assert(counted.reads == 3 && counted.writes == 2, "%u reads, %u writes", counted.reads, counted.writes);
    for (unsigned n = 1; n <= 3; n++) {
        counted = (struct counted){.pages = &got, .failing_read = n};
        FAILS(EIO, replay_all(&log, &counted, 1));
        cr_assert_eq(counted.reads, n);
        cr_assert_eq(counted.writes, writes_before[n - 1], "read %u failed: %u writes", n, counted.writes);
    }
    for (unsigned n = 1; n <= 2; n++) {
        counted = (struct counted){.pages = &got, .failing_write = n};
        FAILS(EIO, replay_all(&log, &counted, 1));
        cr_assert_eq(counted.writes, n);
    }
    log_remove(&log);
}

static void replay_scanned(struct log *log, int fd)
{
    struct wal_scan scan;
    OK(wal_scan_open(&scan, log->wal.fd, test_id, 1, 1, CAPACITY));
    OK(replay_into_file(&scan, fd, 30));
    wal_scan_close(&scan);
}

static int take_note(void *ctx, uint64_t image_offset, const void *bytes, unsigned count)
{
    replay_notes_add(ctx, image_offset, bytes, count);
    return 0;
}

/* As recovery does: noted while they are verified, where they stand if the log is kept; read again only if that is too much for
 * one window. */
static void replay_noted(struct log *log, int fd, bool complete, bool keep)
{
    struct wal_scan scan;
    struct wal_record record;
    OK(wal_scan_open(&scan, log->wal.fd, test_id, 1, 1, CAPACITY));
    keep = keep && wal_scan_keep(&scan, replay_window_bytes);
    struct replay_notes *notes = replay_notes_open(keep ? scan.buffer : NULL, scan.file_bytes);
    while (wal_scan_next(&scan, &record) == 0)
        OK(wal_scan_runs(&scan, &record, take_note, notes));
    cr_assert_eq(scan.at.next_seq, 31);
    cr_assert_eq(replay_notes_complete(notes), complete);
    if (complete)
        OK(replay_notes_into_file(notes, fd));
    else
        replay_scanned(log, fd);
    replay_notes_close(notes);
    wal_scan_close(&scan);
}

/* Into a file: pages and their checksums, also where the table's blocks are begun again by a later window. */
Test(txn_replay, a_file_gets_pages_and_checksums)
{
    const size_t whole = replay_window_bytes;
    uint64_t random = random_seed();
    struct fixture f;
    struct log log;
    fixture_create(&f, CAPACITY, CAPACITY);
    OK(file_open(&f.file, true));
    struct pages *model = calloc(1, sizeof *model);
    cr_assert_not_null(model);
    log_create(&log);
    for (uint64_t n = 0; n < 30; n++) {
        wal_begin(&log.wal);
        for (int i = 0; i < 50; i++)
            add_run(&log, model, &random);
        OK(wal_finish(&log.wal, CAPACITY, 0));
    }
    for (unsigned w = 0; w < 6; w++) {
        static const uint8_t zeros[PAGE_BYTES];
        for (uint64_t page = 0; page < PAGES; page++)
            OK(file_write_at(f.file.fd, zeros, PAGE_BYTES, format_file_offset((FIRST_PAGE + page) * PAGE_BYTES)));
        replay_window_bytes = w % 2 == 0 ? 2 * PAGE_BYTES : whole;
        if (w < 2)
            replay_scanned(&log, f.file.fd);
        else
            replay_noted(&log, f.file.fd, w % 2 != 0, w >= 4);
        cr_assert_eq(fixture_bad_checksums(&f, CAPACITY), 0);
        for (uint64_t page = 0; page < PAGES; page++) {
            uint8_t bytes[PAGE_BYTES];
            OK(file_read_at(f.file.fd, bytes, sizeof bytes, format_file_offset((FIRST_PAGE + page) * PAGE_BYTES)));
            cr_assert_eq(memcmp(bytes, model->bytes[page], sizeof bytes), 0, "page %llu", (unsigned long long)page);
        }
    }
    replay_window_bytes = whole;
    free(model);
    log_remove(&log);
    file_close(&f.file);
    fixture_remove(&f);
}

/* ---- two threads ---- */

#define MANY_PAGES 16384 /* 32 blocks of the checksum table */
#define FEW_PAGES 100
#define MANY_RUNS 40000

static pthread_t test_thread;
static atomic_uint helper_writes, own_writes;
static atomic_uchar written[MANY_PAGES];
static uint8_t writer_of[MANY_PAGES]; /* 1: this thread, 2: the helper */
static atomic_bool helper_takes_signals;
static bool wait_for_helper, helper_fails;

static bool takes_signals(void)
{
    sigset_t blocked;
    return pthread_sigmask(SIG_SETMASK, NULL, &blocked) != 0 || sigismember(&blocked, SIGALRM) != 1 ||
           sigismember(&blocked, SIGUSR1) != 1;
}

static ssize_t watched_pwrite(int fd, const void *buffer, size_t bytes, off_t offset)
{
    bool helper = pthread_equal(pthread_self(), test_thread) == 0;
    atomic_fetch_add(helper ? &helper_writes : &own_writes, 1);
    if (helper && takes_signals())
        atomic_store(&helper_takes_signals, true);
    if (helper && helper_fails) {
        errno = EIO;
        return -1;
    }
    /* Each waits for the other's first write: neither does it all while the other one waits for a processor. */
    for (unsigned i = 0; wait_for_helper && atomic_load(helper ? &own_writes : &helper_writes) == 0 && i < 60000; i++)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    uint64_t image = format_image_bytes((uint64_t)offset); /* whole pages are none of the table's: those are less */
    if (bytes % PAGE_BYTES == 0 && format_file_offset(image) == (uint64_t)offset)
        for (uint64_t page = image / PAGE_BYTES; page < (image + bytes) / PAGE_BYTES; page++) {
            atomic_fetch_add(&written[page], 1);
            writer_of[page] = helper ? 2 : 1;
        }
    return file_calls_system.pwrite(fd, buffer, bytes, offset);
}

/* A log with many runs, and what it makes of the zeros that the file has.  The first pages have none: a part of the work
 * begins where a block of the table does, not a block's length after the first page. */
static void log_many(struct log *log, uint8_t *model)
{
    uint64_t random = random_seed();
    log_create(log);
    for (uint64_t n = 0; n < 30; n++) {
        wal_begin(&log->wal);
        for (int i = 0; i < MANY_RUNS / 30; i++) {
            uint64_t word = random_next(&random);
            uint64_t at =
                FEW_PAGES * PAGE_BYTES + random_next(&random) % ((MANY_PAGES - FEW_PAGES) * PAGE_BYTES / 8) * 8;
            OK(wal_add_run(&log->wal, at, &word, sizeof word));
            memcpy(model + at, &word, sizeof word);
        }
        OK(wal_finish(&log->wal, CAPACITY, 0));
    }
}

static int replay_watched(struct log *log, int fd)
{
    struct wal_scan scan;
    struct wal_record record;
    test_thread = pthread_self();
    atomic_store(&helper_writes, 0);
    atomic_store(&own_writes, 0);
    memset((void *)written, 0, sizeof written);
    memset(writer_of, 0, sizeof writer_of);
    OK(wal_scan_open(&scan, log->wal.fd, test_id, 1, 1, CAPACITY));
    cr_assert(wal_scan_keep(&scan, replay_window_bytes));
    struct replay_notes *notes = replay_notes_open(scan.buffer, scan.file_bytes);
    while (wal_scan_next(&scan, &record) == 0)
        OK(wal_scan_runs(&scan, &record, take_note, notes));
    cr_assert(replay_notes_complete(notes));
    file_calls.pwrite = watched_pwrite;
    int rc = replay_notes_into_file(notes, fd);
    file_calls = file_calls_system;
    replay_notes_close(notes);
    wal_scan_close(&scan);
    return rc;
}

static void expect_model(struct fixture *f, const uint8_t *model)
{
    for (uint64_t page = 0; page < MANY_PAGES; page++) {
        uint8_t bytes[PAGE_BYTES];
        OK(file_read_at(f->file.fd, bytes, sizeof bytes, format_file_offset(page * PAGE_BYTES)));
        cr_assert_eq(memcmp(bytes, model + page * PAGE_BYTES, sizeof bytes), 0, "page %llu", (unsigned long long)page);
        cr_assert_leq(atomic_load(&written[page]), 1, "page %llu was written twice", (unsigned long long)page);
    }
    for (uint64_t block = 0; block < MANY_PAGES;
         block += CHECKSUM_BLOCK_PAGES) { /* each has one writer of its entries */
        unsigned writers = 0;
        for (uint64_t page = block; page < block + CHECKSUM_BLOCK_PAGES; page++)
            writers |= writer_of[page];
        cr_assert_neq(writers, 3, "two threads share the block of page %llu", (unsigned long long)block);
    }
    cr_assert_eq(fixture_bad_checksums(f, CAPACITY), 0);
}

Test(txn_replay, two_threads_leave_what_one_leaves)
{
    struct fixture f;
    struct log log;
    cpu_set_t before, one;
    uint8_t *model = calloc(MANY_PAGES, PAGE_BYTES);
    cr_assert_not_null(model);
    cr_assert_eq(sched_getaffinity(0, sizeof before, &before), 0);
    fixture_create(&f, CAPACITY, CAPACITY);
    OK(file_open(&f.file, true));
    log_many(&log, model);
    for (unsigned threads = 2; threads > 0; threads--) {
        OK(file_write_zeros(f.file.fd, GROUP0_OFFSET, format_file_bytes(CAPACITY) - GROUP0_OFFSET));
        if (threads == 1) {
            CPU_ZERO(&one);
            for (size_t cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; cpu++)
                if (CPU_ISSET(cpu, &before))
                    CPU_SET(cpu, &one);
            cr_assert_eq(sched_setaffinity(0, sizeof one, &one), 0);
        }
        wait_for_helper = threads == 2 && CPU_COUNT(&before) > 1;
        OK(replay_watched(&log, f.file.fd));
        cr_assert_not(atomic_load(&helper_takes_signals), "a signal handler of the program's could run in it");
        cr_assert(takes_signals(), "the program's own signals are blocked for good");
        cr_assert_eq(atomic_load(&helper_writes) != 0, wait_for_helper);
        cr_assert_neq(atomic_load(&own_writes), 0);
        expect_model(&f, model);
    }
    cr_assert_eq(sched_setaffinity(0, sizeof before, &before), 0);
    if (CPU_COUNT(&before) > 1) { /* what the other thread met is this one's error */
        wait_for_helper = helper_fails = true;
        error_clear();
        FAILS(EIO, replay_watched(&log, f.file.fd));
        cr_assert_not_null(strstr(error_last_text(), "cannot write recovered pages"), "%s", error_last_text());
    }
    free(model);
    log_remove(&log);
    file_close(&f.file);
    fixture_remove(&f);
}
