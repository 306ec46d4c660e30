/*
 * test_slice.c -- checkpoints paid for in pieces: whatever is due after a commit is done at once, a small piece, and a
 * kill, a rollback, a reader or a check at any moment in between sees commits.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "txn_fixture.h"

static const uint64_t log_limit = 512 << 10;

static void setup(void)
{
    txn_log_limit_bytes = log_limit;
    txn_overlay_limit_pages = 64;
}

TestSuite(txn_slice, .init = setup, .timeout = 300);

#define PAGES 10240 /* 40 MiB: two groups of the file */
#define BYTES (PAGES * PAGE_BYTES)
#define SLICE_LIMIT 1024 /* pages that one piece may write, for commits of at most 100 */

/* Pages written into the store file (not into its tables). */
static uint64_t written_pages, syncs;
static int store_fd = -1;
static struct fixture *watched;

static bool is_page_write(int fd, size_t bytes)
{
    return fd == store_fd && bytes >= PAGE_BYTES && bytes % PAGE_BYTES == 0;
}

/* W16: before a page is written, what it may hold is durable and told. */
static ssize_t watching_pwrite(int fd, const void *buffer, size_t bytes, off_t offset)
{
    if (is_page_write(fd, bytes)) {
        struct shared_state state;
        OK(shared_read(watched->options.shared, &state));
        uint64_t durable = shared_durable_seq(watched->options.shared), last = txn_commit_seq(watched->txn);
        cr_assert_eq(state.file_seq, last, "pages of commit %llu are written, told is %llu", (unsigned long long)last,
                     (unsigned long long)state.file_seq);
        cr_assert_geq(durable, state.file_seq, "not durable: %llu of %llu", (unsigned long long)durable,
                      (unsigned long long)state.file_seq);
        written_pages += bytes / PAGE_BYTES;
    }
    return file_calls_system.pwrite(fd, buffer, bytes, offset);
}

static int counting_sync_range(int fd, off_t offset, off_t bytes)
{
    syncs++;
    return file_calls_system.sync_range(fd, offset, bytes);
}

static void watch(struct fixture *f)
{
    watched = f;
    store_fd = f->file.fd;
    file_calls.pwrite = watching_pwrite;
    file_calls.sync_range = counting_sync_range;
}

/* What store/ does after a commit. */
static enum image_work do_what_is_due(struct fixture *f)
{
    enum image_work due = txn_work_due(f->txn);
    switch (due) {
    case IMAGE_APPLY:
        OK(txn_apply_some(f->txn));
        break;
    case IMAGE_SYNC:
        OK(txn_sync_some(f->txn));
        break;
    case IMAGE_CHECKPOINT:
        OK(txn_checkpoint(f->txn));
        break;
    default:
        break;
    }
    return due;
}

static uint64_t commit_pages(struct fixture *f, uint8_t *model, unsigned pages, uint64_t *random, bool durable)
{
    uint64_t seq;
    for (unsigned i = 0; i < pages; i++) {
        uint64_t at = random_next(random) % (BYTES / 8) * 8, word = random_next(random);
        memcpy(f->map.base + at, &word, sizeof word);
        memcpy(model + at, &word, sizeof word);
    }
    OK(txn_commit(f->txn, BYTES, &seq));
    if (durable)
        OK(txn_sync(f->txn, seq));
    return seq;
}

Test(txn_slice, no_piece_is_long_and_the_log_stays_below_its_limit)
{
    static const unsigned sizes[] = {1, 8, 64, 100};
    uint64_t random = random_seed(), checkpoints = min_u64((uint64_t)random_rounds(2), 3);
    for (unsigned n = 0; n < sizeof sizes / sizeof sizes[0]; n++) {
        struct fixture f;
        uint64_t seen[4] = {0}, longest_log = 0;
        uint8_t *model = calloc(1, BYTES);
        fixture_skip_syncs();
        fixture_create(&f, BYTES, BYTES);
        OK(fixture_open(&f));
        watch(&f);
        for (unsigned i = 0; seen[IMAGE_CHECKPOINT] < checkpoints; i++) {
            commit_pages(&f, model, sizes[n], &random, i % 3 != 0);
            longest_log = max_u64(longest_log, f.txn->wal.at.end);
            written_pages = 0;
            seen[do_what_is_due(&f)]++;
            cr_assert_leq(written_pages, SLICE_LIMIT, "%llu pages at once", (unsigned long long)written_pages);
            cr_assert_leq(i, 100000);
        }
        cr_assert(seen[IMAGE_APPLY] > 0 && seen[IMAGE_SYNC] > 0, "commits of %u pages: %llu slices, %llu syncs",
                  sizes[n], (unsigned long long)seen[IMAGE_APPLY], (unsigned long long)seen[IMAGE_SYNC]);
        cr_assert_lt(longest_log, log_limit, "commits of %u pages: slices could not keep up", sizes[n]);
        cr_assert_eq(memcmp(f.map.base, model, BYTES), 0);
        file_calls = file_calls_system;
        OK(txn_checkpoint(f.txn));
        cr_assert_eq(fixture_bad_checksums(&f, BYTES), 0);
        fixture_kill(&f);
        fixture_remove(&f);
        free(model);
    }
}

/* However many pages a commit has: what stays private after its application is bounded, and counted. */
Test(txn_slice, private_copies_of_applied_pages_are_bounded)
{
    uint64_t random = random_seed();
    struct fixture f;
    struct image_stat stat;
    uint8_t *model = calloc(1, BYTES);
    txn_resident_limit_pages = 300;
    fixture_skip_syncs();
    fixture_create(&f, BYTES, BYTES);
    OK(fixture_open(&f));
    for (unsigned i = 0; i < 300; i++) {
        commit_pages(&f, model, 100, &random, false);
        (void)do_what_is_due(&f);
        txn_stat(f.txn, &stat);
        uint64_t resident = stat.private_bytes / PAGE_BYTES - 2 * f.txn->overlay.count;
        cr_assert_leq(resident, 300 + SLICE_LIMIT, "after %u commits", i);
    }
    cr_assert_eq(memcmp(f.map.base, model, BYTES), 0);
    fixture_kill(&f);
    OK(fixture_open(&f));
    cr_assert_eq(memcmp(f.map.base, model, BYTES), 0);
    fixture_kill(&f);
    fixture_remove(&f);
    free(model);
}

/* Unless a test says so: at least 64 MiB, at most 256, more than the least only in SOLE and where protection works. */
/* As many small changes as fill little of the log: they would wait in memory, twice, for a log that is not full for long. */
Test(txn_slice, what_a_large_commit_keeps_in_memory_goes_with_it)
{
    enum { MANY = 16384 };
    struct fixture f;
    uint64_t seq;
    fixture_skip_syncs();
    txn_log_limit_bytes = 64 << 20;
    fixture_create(&f, MANY * PAGE_BYTES, MANY * PAGE_BYTES);
    OK(fixture_open(&f));
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < MANY; i++)
            f.map.base[i * PAGE_BYTES + 8] ^= 1;
        OK(txn_commit(f.txn, MANY * PAGE_BYTES, &seq));
        cr_assert_eq(txn_work_due(f.txn), IMAGE_APPLY);
        OK(txn_apply_some(f.txn));
        cr_assert_eq(f.txn->overlay.count, 0, "%zu pages wait", f.txn->overlay.count);
        cr_assert_null(f.txn->overlay.chunk, "their room was kept");
    }
    fixture_kill(&f);
    fixture_remove(&f);
}

Test(txn_slice, how_many_private_pages_stay_suits_mode_and_machine)
{
    struct fixture f;
    uint64_t part = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) / 64 / PAGE_BYTES;
    fixture_create(&f, BYTES, BYTES);
    OK(fixture_open(&f));
    uint64_t expected = !dirty_protects(f.txn->dirty) || part < 16384 ? 16384 : part > 65536 ? 65536 : part;
    cr_assert_leq(f.txn->resident_limit, expected);
    cr_assert_geq(f.txn->resident_limit + 64, expected, "but for rounding");
    fixture_kill(&f);
    fixture_remove(&f);
}

/* Killed at any moment, also with a round half done: recovery comes to the last commit. */
Test(txn_slice, a_kill_between_slices_leaves_the_last_commit)
{
    fixture_skip_syncs();
    struct fixture f;
    uint64_t random = random_seed(), between = 0;
    uint8_t *model = calloc(1, BYTES);
    fixture_create(&f, BYTES, BYTES);
    for (long round = 0; round < random_rounds(60) || between == 0; round++) { /* one of three is not in a round */
        cr_assert_lt(round, 1000, "never killed in the middle of a round");
        OK(fixture_open(&f));
        cr_assert_eq(memcmp(f.map.base, model, BYTES), 0, "round %ld", round);
        cr_assert_eq(fixture_bad_checksums(&f, BYTES), 0);
        for (uint64_t i = random_next(&random) % 60; i > 0; i--) {
            commit_pages(&f, model, (unsigned)(random_next(&random) % 20 + 1), &random, random_next(&random) % 4 != 0);
            do_what_is_due(&f);
        }
        between += f.txn->round.next != f.txn->round.pages.count && f.txn->round.next != 0;
        fixture_kill(&f);
    }
    fixture_remove(&f);
    free(model);
}

/* The last commit, and nothing else, is what a rollback and a reader of committed bytes get between two slices. */
Test(txn_slice, a_rollback_between_slices_returns_to_the_last_commit)
{
    struct fixture f;
    uint64_t random = random_seed();
    uint8_t *model = calloc(1, BYTES), *read = malloc(BYTES);
    fixture_skip_syncs();
    fixture_create(&f, BYTES, BYTES);
    OK(fixture_open(&f));
    for (long i = 0; i < random_rounds(200); i++) {
        commit_pages(&f, model, 30, &random, true);
        if (f.txn->overlay.count > 100)
            OK(txn_apply_some(f.txn));
        memset(f.map.base + random_next(&random) % (BYTES - 9000), 0x77, 9000);
        OK(txn_rollback(f.txn));
        cr_assert_eq(memcmp(f.map.base, model, BYTES), 0, "after %ld commits", i);
        if (i % 20 == 0) {
            OK(txn_read_committed(f.txn, 0, read, BYTES));
            cr_assert_eq(memcmp(read, model, BYTES), 0);
        }
        if (i % 70 == 69) /* all at once in the middle of a round */
            OK(txn_apply(f.txn));
    }
    cr_assert_gt(f.txn->applied_seq, 0);
    fixture_kill(&f);
    fixture_remove(&f);
    free(model);
    free(read);
}

/* A page that could not be written stays where it was, and the round goes on from there. */
Test(txn_slice, a_failed_slice_loses_nothing)
{
    struct fixture f;
    uint64_t random = random_seed();
    uint8_t *model = calloc(1, BYTES);
    fixture_create(&f, BYTES, BYTES);
    OK(fixture_open(&f));
    for (unsigned i = 0; i < 50; i++)
        commit_pages(&f, model, 10, &random, true);
    OK(txn_apply_some(f.txn));
    cr_assert_gt(f.txn->overlay.count, 100);
    faults = (struct faults){
        .path_suffix = "/store", .pwrite = true, .fault = FAULT_ERROR, .error = ENOSPC, .skip = 3, .count = 1000};
    faults_install();
    FAILS(ENOSPC, txn_apply_some(f.txn));
    faults_remove();
    OK(txn_rollback(f.txn));
    cr_assert_eq(memcmp(f.map.base, model, BYTES), 0);
    while (f.txn->overlay.count != 0)
        OK(txn_apply_some(f.txn));
    OK(txn_apply_some(f.txn)); /* an empty round */
    cr_assert_eq(f.txn->applied_seq, txn_commit_seq(f.txn));
    cr_assert_eq(fixture_bad_checksums(&f, BYTES), 0);
    faults = (struct faults){.sync_range = true, .fault = FAULT_ERROR, .error = EIO, .count = 1000};
    faults_install();
    FAILS(STEAD_FAILED, txn_sync_some(f.txn));
    faults_remove();
    FAILS(STEAD_FAILED, txn_apply_some(f.txn));
    fixture_kill(&f);
    OK(fixture_open(&f));
    cr_assert_eq(memcmp(f.map.base, model, BYTES), 0);
    fixture_kill(&f);
    fixture_remove(&f);
    free(model);
}

/* Commits made while a round is under way are not in the file when it is through: the words must not say so, and the file with
 * the records after `applied` is the last commit. */
Test(txn_slice, a_round_comes_to_the_commit_it_began_at)
{
    struct fixture f;
    struct shared_state state;
    struct txn_point point;
    char copy[400];
    uint64_t random = random_seed(), began, commits = 0;
    uint8_t *model = calloc(1, BYTES), *page = malloc(PAGE_BYTES);
    fixture_skip_syncs();
    fixture_create(&f, BYTES, BYTES);
    OK(fixture_open(&f));
    for (unsigned i = 0; i < 50; i++)
        commit_pages(&f, model, 10, &random, true);
    began = txn_commit_seq(f.txn);
    do { /* the first piece begins the round */
        OK(txn_apply_some(f.txn));
        commit_pages(&f, model, 3, &random, true);
    } while (f.txn->round.next != f.txn->round.pages.count && ++commits < 1000);
    cr_assert_gt(commits, 1, "a round of one piece shows nothing");
    OK(shared_read(f.options.shared, &state));
    cr_assert_eq(state.applied_seq, began);
    cr_assert_eq(state.applied_at.next_seq, began + 1);
    cr_assert(txn_has_unapplied(f.txn));
    txn_point(f.txn, &point);
    (void)snprintf(copy, sizeof copy, "%s/copy", f.directory);
    fixture_copy_file(f.path, copy);
    int fd = open(copy, O_RDWR | O_CLOEXEC);
    cr_assert_geq(fd, 0);
    OK(txn_replay_point(f.txn, &point, fd));
    for (uint64_t at = 0; at < BYTES; at += PAGE_BYTES) {
        OK(file_read_at(fd, page, PAGE_BYTES, format_file_offset(at)));
        cr_assert_eq(memcmp(page, model + at, PAGE_BYTES), 0, "page %llu", (unsigned long long)(at / PAGE_BYTES));
    }
    close(fd);
    fixture_kill(&f);
    fixture_remove(&f);
    free(model);
    free(page);
}

/* The sweep syncs what was written, once. */
Test(txn_slice, a_sweep_comes_to_an_end)
{
    struct fixture f;
    uint64_t random = random_seed();
    uint8_t *model = calloc(1, BYTES);
    fixture_skip_syncs();
    fixture_create(&f, BYTES, BYTES);
    OK(fixture_open(&f));
    for (unsigned i = 0; i < 20; i++) {
        commit_pages(&f, model, 100, &random, true);
        OK(txn_apply(f.txn));
    }
    cr_assert_gt(f.txn->unsynced.pages, 1500);
    watch(&f);
    uint64_t left = f.txn->unsynced.pages;
    while (left != 0) {
        OK(txn_sync_some(f.txn));
        cr_assert_lt(f.txn->unsynced.pages, left);
        left = f.txn->unsynced.pages;
    }
    cr_assert(syncs > 1 && syncs <= BYTES >> 20, "%llu syncs of 1 MiB and more", (unsigned long long)syncs);
    OK(txn_sync_some(f.txn));
    file_calls = file_calls_system;
    fixture_kill(&f);
    fixture_remove(&f);
    free(model);
}
