/*
 * A record that waits in memory for its sync, or is on its way past the page cache, and a commit that needs it on the disk or at
 * least out of the process.
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "txn_fixture.h"

#define BYTES (UINT64_C(1) << 20)

TestSuite(txn_waiting, .timeout = 60);

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
    fixture_create(&f, BYTES, BYTES);
    OK(fixture_open(&f));
    f.map.base[0] = 1;
    OK(txn_commit(f.txn, BYTES, &seq)); /* the log is there, and its zeros ahead */
    OK(txn_sync(f.txn, seq));
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
