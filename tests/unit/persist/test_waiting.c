/*
 * A record that waits in memory for its sync, or is on its way past the page cache, and a commit that needs it on the disk or at
 * least out of the process.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "txn_fixture.h"

#define BYTES (UINT64_C(1) << 20)

TestSuite(txn_waiting, .timeout = 300);

/* The log is there, and its zeros ahead. */
static void open_with_log(struct fixture *f)
{
    uint64_t seq;
    fixture_create(f, BYTES, BYTES);
    OK(fixture_open(f));
    f->map.base[0] = 1;
    OK(txn_commit(f->txn, BYTES, &seq));
    OK(txn_sync(f->txn, seq));
}

/* One thread's changes are captured by another one's durable commit, whose record waits in memory until that thread syncs.  The
 * first one's own commit finds nothing changed, and must survive the process all the same. */
Test(txn_waiting, W35_one_that_finds_nothing_changed_survives_the_process)
{
    struct fixture f;
    uint64_t seq;
    fixture_create(&f, BYTES, BYTES);
    for (uint8_t round = 1; round < 4; round++) {
        OK(fixture_open(&f));
        f.map.base[0] = round;
        OK(txn_commit_deferred(f.txn, BYTES, &seq));
        OK(txn_commit(f.txn, BYTES, &seq));
        OK(txn_commit(f.txn, BYTES, &seq));
        fixture_kill(&f);
        OK(fixture_open(&f));
        cr_assert_eq(f.map.base[0], round);
        fixture_kill(&f);
    }
    fixture_remove(&f);
}

static _Atomic bool log_is_written, returned_before;

/* To the log, by the thread that syncs: takes a while. */
static ssize_t slow_pwrite(int fd, const void *buffer, size_t bytes, off_t offset)
{
    (void)usleep(20000);
    ssize_t n = file_calls_system.pwrite(fd, buffer, bytes, offset);
    atomic_store(&log_is_written, true);
    return n;
}

/* To the log, by the thread that syncs: the other one has come to its own write when it fails. */
static ssize_t slow_failing_pwrite(int fd, const void *buffer, size_t bytes, off_t offset)
{
    if (atomic_exchange(&log_is_written, true))
        return file_calls_system.pwrite(fd, buffer, bytes, offset);
    (void)usleep(20000);
    errno = EIO;
    return -1;
}

static void *commit_nothing(void *arg)
{
    struct fixture *f = arg;
    uint64_t seq;
    int rc = txn_commit(f->txn, BYTES, &seq);
    atomic_store(&returned_before, !atomic_load(&log_is_written));
    return rc == 0 ? NULL : f;
}

Test(txn_waiting, W35_one_that_finds_nothing_changed_waits_for_a_record_on_its_way)
{
    struct fixture f;
    uint64_t seq;
    pthread_t thread;
    void *failed;
    open_with_log(&f);
    for (uint8_t round = 2; round < 6; round++) {
        f.map.base[0] = round;
        OK(txn_commit_deferred(f.txn, BYTES, &seq));
        atomic_store(&log_is_written, false);
        file_calls.pwrite = slow_pwrite;
        cr_assert_eq(pthread_create(&thread, NULL, commit_nothing, &f), 0);
        OK(txn_sync(f.txn, seq));
        pthread_join(thread, &failed);
        file_calls.pwrite = file_calls_system.pwrite;
        cr_assert_null(failed);
        cr_assert_not(atomic_load(&returned_before), "round %u", round);
    }
    fixture_kill(&f);
    fixture_remove(&f);
}

static void *commit_a_page(void *arg)
{
    struct fixture *f = arg;
    uint64_t seq;
    while (!atomic_load(&log_is_written))
        (void)usleep(100);
    f->map.base[PAGE_BYTES] = 1;
    return txn_commit(f->txn, BYTES, &seq) == 0 ? f : NULL;
}

/* Whoever is told that a commit survives the process, and not that the store has failed, has it in the log with all before it. */
Test(txn_waiting, W35_a_commit_behind_a_write_of_the_log_that_fails_is_refused)
{
    for (unsigned round = 0; round < 5; round++) {
        struct fixture f;
        uint64_t seq;
        pthread_t thread;
        void *accepted;
        open_with_log(&f);
        memset(f.map.base + 2 * PAGE_BYTES, 2,
               8 * PAGE_BYTES); /* more than the block that the next write begins with */
        OK(txn_commit_deferred(f.txn, BYTES, &seq));
        atomic_store(&log_is_written, false);
        cr_assert_eq(pthread_create(&thread, NULL, commit_a_page, &f), 0);
        file_calls.pwrite = slow_failing_pwrite;
        FAILS(STEAD_FAILED, txn_sync(f.txn, seq));
        pthread_join(thread, &accepted);
        file_calls.pwrite = file_calls_system.pwrite;
        fixture_kill(&f);
        OK(fixture_open(&f));
        cr_assert(accepted == NULL || f.map.base[PAGE_BYTES] == 1, "round %u", round);
        fixture_kill(&f);
        fixture_remove(&f);
    }
}
