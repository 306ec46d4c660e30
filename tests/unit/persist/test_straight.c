/*
 * test_straight.c -- new pages that a commit wrote straight into the file, and what later records of the same log do with
 * them (W27): a plain copy whose copier passed such a page before it was written is a commit, or refused, never a mixture.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "txn_fixture.h"

TestSuite(txn_straight, .timeout = 300);

#define PAGES 512
#define HALF (PAGES / 2) /* new with the first commit */
#define BYTES (PAGES * PAGE_BYTES)
#define OLD UINT64_C(7)   /* a page that was there before */
#define NEW UINT64_C(300) /* two of the load */
#define NEW2 UINT64_C(511)

static uint8_t model[BYTES];

static void put(struct fixture *f, uint64_t page, unsigned at, uint8_t byte)
{
    f->map.base[page * PAGE_BYTES + at] = model[page * PAGE_BYTES + at] = byte;
}

/* Used up to here, so much longer is the log. */
static uint64_t commit_to(struct fixture *f, uint64_t used_bytes)
{
    uint64_t seq, before = f->txn->wal.at.end;
    OK(txn_commit(f->txn, used_bytes, &seq));
    OK(txn_sync(f->txn, seq));
    return f->txn->wal.at.end - before;
}

static uint64_t commit(struct fixture *f)
{
    return commit_to(f, BYTES);
}

static void load(struct fixture *f)
{
    for (uint64_t page = HALF; page < PAGES; page++)
        for (unsigned at = 0; at < PAGE_BYTES; at += 8)
            put(f, page, at, (uint8_t)(page + at));
    cr_assert_lt(commit(f), HALF * PAGE_BYTES / 2, "logged: nothing would be proved");
}

static void begin(struct fixture *f, bool turns)
{
    memset(model, 0, sizeof model);
    fixture_skip_syncs();
    fixture_create(f, BYTES, HALF * PAGE_BYTES);
    f->options.turns = turns;
    OK(fixture_open(f));
}

/* What a copier that came before the load has of a page: nothing, or what somebody left there who failed. */
static void take_back(const struct fixture *f, uint64_t page, uint8_t byte)
{
    uint8_t bytes[PAGE_BYTES];
    memset(bytes, byte, sizeof bytes);
    int fd = open(f->path, O_RDWR | O_CLOEXEC);
    OK(file_write_at(fd, bytes, sizeof bytes, format_file_offset(page * PAGE_BYTES)));
    close(fd);
}

static void expect_model(struct fixture *f)
{
    for (uint64_t page = 0; page < PAGES; page++)
        cr_assert_eq(memcmp(f->map.base + page * PAGE_BYTES, model + page * PAGE_BYTES, PAGE_BYTES), 0, "page %llu",
                     (unsigned long long)page);
    cr_assert_eq(fixture_bad_checksums(f, BYTES), 0);
}

static void reopen_and_end(struct fixture *f)
{
    OK(fixture_open(f));
    expect_model(f);
    fixture_kill(f);
    fixture_remove(f);
}

Test(txn_straight, a_page_that_a_later_record_changes_does_not_depend_on_the_file)
{
    for (unsigned byte = 0; byte < 2; byte++) {
        struct fixture f;
        begin(&f, false);
        load(&f);
        put(&f, NEW, 16, 99);
        commit(&f);
        put(&f, NEW, 24, 98); /* relative to the record before */
        put(&f, NEW2, 4088, 97);
        commit(&f);
        fixture_kill(&f);
        take_back(&f, NEW, byte == 0 ? 0 : 0xa5);
        take_back(&f, NEW2, byte == 0 ? 0 : 0xa5);
        reopen_and_end(&f);
    }
}

/* Applied, the file is its base again, and the records of the log are still those of the copy. */
Test(txn_straight, nor_does_one_that_was_applied_and_changed_again)
{
    struct fixture f;
    begin(&f, false);
    load(&f);
    put(&f, NEW, 16, 99);
    commit(&f);
    OK(txn_apply(f.txn));
    put(&f, NEW, 32, 96);
    commit(&f);
    fixture_kill(&f);
    take_back(&f, NEW, 0);
    reopen_and_end(&f);
}

Test(txn_straight, one_that_no_later_record_changes_is_verified)
{
    struct fixture f;
    begin(&f, false);
    load(&f);
    put(&f, NEW, 16, 99);
    commit(&f);
    fixture_kill(&f);
    take_back(&f, NEW2, 0);
    FAILS(STEAD_CORRUPT, fixture_open(&f));
    file_close(&f.file);
    fixture_remove(&f);
}

/* In TURNS it was another process that wrote the pages straight. */
Test(txn_straight, nor_does_one_that_another_process_wrote)
{
    for (unsigned late = 0; late < 2; late++) {
        struct fixture a, b;
        bool changed;
        begin(&a, true);
        OK(txn_refresh(a.txn, &changed));
        if (late)
            load(&a);
        fixture_join(&a, &b);
        OK(txn_refresh(b.txn, &changed));
        if (!late) {
            OK(txn_refresh(a.txn, &changed));
            load(&a);
            OK(txn_refresh(b.txn, &changed));
        }
        put(&b, NEW, 16, 99);
        commit(&b);
        fixture_kill(&b);
        fixture_kill(&a);
        take_back(&a, NEW, 0);
        reopen_and_end(&a);
    }
}

/* It costs those pages alone, and them only until the next checkpoint. */
Test(txn_straight, other_pages_and_other_logs_have_their_changes_only)
{
    struct fixture f;
    begin(&f, false);
    put(&f, OLD, 8, 1);
    cr_assert_lt(commit_to(&f, HALF * PAGE_BYTES), PAGE_BYTES);
    load(&f);
    put(&f, OLD, 8, 2);
    cr_assert_lt(commit(&f), PAGE_BYTES, "an old page");
    put(&f, NEW, 8, 3);
    cr_assert_geq(commit(&f), PAGE_BYTES, "a new one");
    put(&f, NEW, 8, 4);
    cr_assert_lt(commit(&f), PAGE_BYTES, "one that the log has");
    OK(txn_checkpoint(f.txn));
    put(&f, NEW2, 8, 5);
    cr_assert_lt(commit(&f), PAGE_BYTES, "one that the log knows nothing of");
    fixture_kill(&f);
    reopen_and_end(&f);
}

/* So much was written into the file that the rest of a checkpoint is cheap beside it. */
#define MANY 1024 /* pages */

static void load_new_pages(struct fixture *f, uint64_t pages)
{
    uint64_t seq;
    fixture_skip_syncs();
    fixture_create(f, (16 + MANY) * PAGE_BYTES, 16 * PAGE_BYTES);
    OK(fixture_open(f));
    cr_assert_eq(txn_work_due(f->txn), IMAGE_REST);
    memset(f->map.base + 16 * PAGE_BYTES, 5, pages * PAGE_BYTES);
    OK(txn_commit(f->txn, (16 + MANY) * PAGE_BYTES, &seq));
}

Test(txn_straight, a_bulk_load_is_followed_by_a_checkpoint)
{
    struct fixture f;
    load_new_pages(&f, MANY - 1);
    cr_assert_eq(txn_work_due(f.txn), IMAGE_REST);
    fixture_kill(&f);
    fixture_remove(&f);
    load_new_pages(&f, MANY);
    cr_assert_eq(txn_work_due(f.txn), IMAGE_CHECKPOINT);
    OK(txn_checkpoint(f.txn));
    cr_assert_eq(txn_work_due(f.txn), IMAGE_REST);
    cr_assert_eq(f.txn->wal.straight_from, UINT64_MAX);
    fixture_kill(&f);
    fixture_remove(&f);
}

/* A disk without room for a new log: one attempt, not one with each commit from now on. */
Test(txn_straight, a_checkpoint_after_a_load_that_fails_is_not_tried_again_at_once)
{
    struct fixture f;
    load_new_pages(&f, MANY);
    faults_install();
    faults = (struct faults){.pwrite = true, .fallocate = true, .fault = FAULT_ERROR, .error = ENOSPC, .count = 1000};
    FAILS(ENOSPC, txn_checkpoint(f.txn));
    faults_remove();
    cr_assert_eq(txn_work_due(f.txn), IMAGE_REST);
    memset(f.map.base + 16 * PAGE_BYTES, 6, PAGE_BYTES);
    uint64_t seq;
    OK(txn_commit(f.txn, (16 + MANY) * PAGE_BYTES, &seq));
    cr_assert_eq(txn_work_due(f.txn), IMAGE_REST);
    OK(txn_checkpoint(f.txn)); /* when it is asked for */
    fixture_kill(&f);
    fixture_remove(&f);
}

/* ---- a thread that does not keep to the rules */

static _Atomic bool stop;

__attribute__((no_sanitize("thread"))) static void *write_without_the_lock(void *bytes)
{
    volatile uint64_t *word = bytes;
    while (!atomic_load_explicit(&stop, memory_order_relaxed))
        for (unsigned i = 0; i < HALF * PAGE_BYTES / 8; i += 64)
            word[i]++;
    return NULL;
}

/* What it writes beside a load may be lost; the store is not. */
Test(txn_straight, who_writes_beside_a_load_does_no_damage)
{
    for (long n = random_rounds(20); n > 0; n--) {
        struct fixture f;
        pthread_t thread;
        begin(&f, false);
        atomic_store(&stop, false);
        memset(f.map.base + HALF * PAGE_BYTES, 1, HALF * PAGE_BYTES);
        cr_assert_eq(pthread_create(&thread, NULL, write_without_the_lock, f.map.base + HALF * PAGE_BYTES), 0);
        commit(&f);
        atomic_store(&stop, true);
        pthread_join(thread, NULL);
        fixture_kill(&f);
        OK(fixture_open(&f));
        cr_assert_eq(fixture_bad_checksums(&f, BYTES), 0);
        fixture_kill(&f);
        fixture_remove(&f);
    }
}
