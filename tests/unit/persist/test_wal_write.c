/*
 * test_wal_write.c -- the log's bytes on their two ways: through the page cache, and past it.
 * Whatever mixture of records, flushes and syncs went before, the file holds every record that was flushed or synced,
 * and what is called durable left by a write past the cache or was covered by a sync.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "persist/wal_internal.h"
#include "txn_fixture.h"

#define SALT UINT64_C(0x5eed5eed)
#define CAPACITY (UINT64_C(1) << 30)

static const uint8_t id[16] = "test_wal_write";
static char directory[256], path[300];
static struct file store;
static struct wal wal;

/* What the log asked for. */
static unsigned direct_writes, cached_writes, syncs;
static int direct_error; /* 0, or how a write past the cache fails */
static bool cached_fails;
static size_t longest_cached; /* bytes of one write through the page cache */

static ssize_t watched_pwrite(int fd, const void *buffer, size_t bytes, off_t offset)
{
    bool direct = (fcntl(fd, F_GETFL) & O_DIRECT) != 0;
    if (direct && direct_error != 0) {
        errno = direct_error;
        return -1;
    }
    if (!direct && cached_fails) {
        cached_fails = false;
        errno = ENOSPC;
        return -1;
    }
    direct_writes += direct;
    cached_writes += !direct;
    longest_cached = !direct && bytes > longest_cached ? bytes : longest_cached;
    if (direct) {
        cr_assert_eq((uintptr_t)buffer % WAL_BLOCK, 0);
        cr_assert_eq(bytes % WAL_BLOCK, 0);
        cr_assert_eq((uint64_t)offset % WAL_BLOCK, 0);
    }
    return file_calls_system.pwrite(fd, buffer, bytes, offset);
}

static int watched_fdatasync(int fd)
{
    syncs++;
    return file_calls_system.fdatasync(fd);
}

static void setup(void)
{
    const char *where = getenv("TMPDIR");
    struct wal_next next;
    (void)snprintf(directory, sizeof directory, "%s/stead-wal-XXXXXX", where != NULL ? where : "/tmp");
    cr_assert_not_null(mkdtemp(directory));
    (void)snprintf(path, sizeof path, "%s/store", directory);
    OK(file_resolve(&store, path));
    OK(file_open_path(&store.fd, path, O_RDWR | O_CREAT, 0600));
    OK(wal_open(&wal, id));
    OK(wal_make(&next, &store, WAL_IN_PLACE, id, SALT, 1, 1, UNIT_BYTES));
    OK(wal_switch(&wal, next.fd, &next.at));
    file_calls.pwrite = watched_pwrite;
    file_calls.fdatasync = watched_fdatasync;
}

static void teardown(void)
{
    file_calls = file_calls_system;
    wal_close(&wal);
    file_close(&store);
    OK(wal_name_remove(&store, NULL));
    (void)unlink(path);
    (void)rmdir(directory);
}

TestSuite(txn_wal_write, .init = setup, .fini = teardown, .timeout = 300);

static int build(unsigned runs, unsigned bytes, bool deferred)
{
    uint8_t run[PAGE_BYTES];
    memset(run, (int)wal.at.next_seq, sizeof run);
    wal_begin(&wal);
    for (unsigned i = 0; i < runs; i++)
        OK(wal_add_run(&wal, i * PAGE_BYTES, run, bytes));
    uint64_t used = round_up((runs + 1) * PAGE_BYTES, UNIT_BYTES);
    return deferred ? wal_finish_deferred(&wal, used, 0) : wal_finish(&wal, used, 0);
}

static int sync_all(void)
{
    struct wal_job job;
    int rc = wal_take(&wal, &job);
    return rc != 0 ? rc : wal_complete(&wal, &job);
}

static int check_run(void *ctx, uint64_t offset, const void *bytes, unsigned count)
{
    const uint8_t *fill = ctx;
    (void)offset;
    for (unsigned i = 0; i < count; i++)
        if (((const uint8_t *)bytes)[i] != *fill)
            return EUCLEAN;
    return 0;
}

/* Records that another process would find now. */
static uint64_t records_in_file(void)
{
    struct wal_scan scan;
    struct wal_record record;
    uint64_t count = 0;
    int rc;
    OK(wal_scan_open(&scan, wal.fd, id, SALT, 1, CAPACITY));
    while ((rc = wal_scan_next(&scan, &record)) == 0) {
        uint8_t fill = (uint8_t)record.seq;
        OK(wal_scan_runs(&scan, &record, check_run, &fill));
        count++;
    }
    cr_assert_eq(rc, ENOENT, "%s", error_last_text());
    wal_scan_close(&scan);
    return count;
}

static bool direct_works(void)
{
    int fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

Test(txn_wal_write, records_that_wait_leave_together_and_past_the_cache)
{
    for (unsigned round = 0; round < 50; round++) {
        uint64_t before = records_in_file();
        unsigned syncs_before = syncs, direct_before = direct_writes, cached_before = cached_writes;
        for (unsigned i = 0; i <= round % 5; i++)
            OK(build(1 + i, 64, true));
        cr_assert_eq(records_in_file(), before, "they wait");
        OK(sync_all());
        cr_assert_eq(records_in_file(), before + round % 5 + 1);
        if (!direct_works())
            continue;
        cr_assert_eq(syncs, syncs_before);
        cr_assert_eq(cached_writes, cached_before);
        cr_assert_leq(direct_writes, direct_before + 1 + (wal.zeroed_end > 0 ? 5 : 0)); /* zeros ahead now and then */
        cr_assert_gt(direct_writes, direct_before);
    }
}

/* What one write brings into the page cache may be one folio there, and each later write into it walks all of its blocks. */
Test(txn_wal_write, zeros_ahead_go_through_the_cache_in_small_pieces)
{
    for (unsigned i = 0; i < 100; i++)
        OK(build(16, 2048, false));
    cr_assert_eq(records_in_file(), 100);
    cr_assert_geq(wal.zeroed_end, wal.at.end);
    cr_assert_leq(longest_cached, UNIT_BYTES);
}

Test(txn_wal_write, what_waits_behind_cached_records_is_synced_with_them)
{
    OK(build(1, 64, false));
    cr_assert_eq(records_in_file(), 1);
    OK(build(1, 64, true));
    unsigned direct_before = direct_writes;
    OK(sync_all());
    cr_assert_eq(direct_writes, direct_before, "the record before it would not be durable");
    cr_assert_eq(syncs, 1);
    cr_assert_eq(records_in_file(), 2);
    OK(build(1, 64, true));
    OK(sync_all());
    cr_assert(syncs == 1 || !direct_works());
    OK(build(1, 64, true));
    OK(build(1, 64, false)); /* takes the waiting one along */
    cr_assert_eq(records_in_file(), 5);
}

Test(txn_wal_write, any_mixture_is_in_order_and_complete)
{
    uint64_t random = random_seed(), flushed = 0;
    for (long step = 0; step < random_rounds(1500); step++) {
        uint64_t draw = random_next(&random);
        unsigned runs = draw % 40 == 0 ? 400 : (unsigned)(draw / 64 % 12);
        unsigned bytes = draw % 3 == 0 ? PAGE_BYTES : 8 + (unsigned)(draw / 1024 % 64) * 8;
        switch (draw / 65536 % 5) {
        case 0:
            OK(build(runs, bytes, false));
            flushed = wal.at.next_seq - 1;
            break;
        case 1:
            OK(sync_all());
            flushed = wal.at.next_seq - 1;
            break;
        case 2: /* a commit that is given up */
            wal_begin(&wal);
            OK(wal_add_run(&wal, 0, (uint8_t[64]){1}, 64));
            break;
        default:
            OK(build(runs, bytes, true));
            break;
        }
        if (step % 16 == 0 || step > 1490) {
            uint64_t found = records_in_file();
            cr_assert(found >= flushed && found < wal.at.next_seq, "step %ld: %llu records, %llu were flushed", step,
                      (unsigned long long)found, (unsigned long long)flushed);
        }
    }
    OK(sync_all());
    cr_assert_eq(records_in_file(), wal.at.next_seq - 1);
}

/* A file system that takes the descriptor and not the write. */
Test(txn_wal_write, where_direct_writes_fail_the_cache_serves)
{
    direct_error = EINVAL;
    OK(build(1, 64, true));
    OK(sync_all());
    cr_assert_eq(records_in_file(), 1);
    for (unsigned i = 0; i < 20; i++) {
        unsigned syncs_before = syncs;
        OK(build(2, 128, true));
        OK(sync_all());
        cr_assert_eq(syncs, syncs_before + 1);
    }
    cr_assert_eq(records_in_file(), 21);
    cr_assert_eq(direct_writes, 0);
}

Test(txn_wal_write, a_failed_direct_write_is_told)
{
    if (!direct_works())
        return;
    OK(build(1, 64, true));
    direct_error = EIO;
    FAILS(EIO, sync_all());
}

/* A record that cannot be written is none; one that waits before it is not lost by that. */
Test(txn_wal_write, a_record_taken_back_leaves_those_that_wait)
{
    OK(build(1, 64, true));
    OK(sync_all());
    OK(build(1, 64, true));
    struct wal_position before = wal.at;
    cached_fails = true;
    wal.zeroed_end = CAPACITY; /* no zeros ahead: the next cached write is the record */
    FAILS(ENOSPC, build(3, 512, false));
    cr_assert_eq(memcmp(&before, &wal.at, sizeof before), 0);
    OK(sync_all());
    cr_assert_eq(records_in_file(), 2);
    OK(build(3, 512, false));
    cr_assert_eq(records_in_file(), 3);
}
