/*
 * test_commit_fault.c -- commits whose system calls fail, one after the other in every way, and the order of those that
 * do not: what must be durable before what is written.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "txn_fixture.h"

TestSuite(txn_commit_fault, .timeout = 300);

#define PAGES 512
#define BYTES (PAGES * PAGE_BYTES) /* 2 MiB: 32 units */

/* Every call of a commit fails once, in every way: clean errors are clean, short and interrupted ones are not seen. */
Test(txn_commit_fault, a_fault_in_any_call_leaves_the_old_commit_or_makes_the_new_one)
{
    static const struct {
        enum fault fault;
        int error;
    } way[] = {{FAULT_ERROR, ENOSPC}, {FAULT_ERROR, EIO}, {FAULT_SHORT, 0}, {FAULT_EINTR, 0}};
    for (size_t w = 0; w < sizeof way / sizeof way[0]; w++) {
        bool reached = true;
        for (long n = 0; reached; n++) {
            struct fixture f;
            uint64_t seq, expect = 1;
            fixture_create(&f, BYTES, BYTES / 2);
            OK(fixture_open(&f));
            f.map.base[0] = 1;
            OK(txn_commit(f.txn, BYTES / 2, &seq));
            memset(f.map.base + BYTES / 2, 3, BYTES / 2); /* straight ones and logged ones */
            f.map.base[0] = 2;
            faults_install();
            faults = (struct faults){.pwrite = true,
                                     .pread = true,
                                     .fallocate = true,
                                     .fault = way[w].fault,
                                     .error = way[w].error,
                                     .skip = n,
                                     .count = 1};
            int rc = txn_commit(f.txn, BYTES, &seq);
            reached = faults.seen > n;
            faults_remove();
            if (rc == 0) {
                expect = 2;
            } else {
                cr_assert_eq(way[w].fault, FAULT_ERROR, "way %zu, call %ld: %s", w, n, error_last_text());
                cr_assert_eq(rc, way[w].error, "way %zu, call %ld: %s", w, n, error_last_text());
                cr_assert_eq(f.map.base[0], 2);
                if (n % 2 == 0) { /* again, or back */
                    OK(txn_commit(f.txn, BYTES, &seq));
                    expect = 2;
                } else {
                    OK(txn_rollback(f.txn));
                    cr_assert_eq(f.map.base[0], 1);
                }
            }
            fixture_kill(&f);
            OK(fixture_open(&f));
            cr_assert_eq(f.map.base[0], expect, "way %zu, call %ld", w, n);
            if (expect == 2)
                cr_assert_eq(f.map.base[BYTES - 1], 3);
            cr_assert_eq(fixture_bad_checksums(&f, txn_used_bytes(f.txn)), 0);
            fixture_kill(&f);
            fixture_remove(&f);
        }
    }
}

Test(txn_commit_fault, a_failed_sync_poisons_for_good_and_reopening_recovers)
{
    struct fixture f;
    uint64_t seq;
    fixture_create(&f, BYTES, BYTES);
    OK(fixture_open(&f));
    f.map.base[0] = 1;
    OK(txn_commit(f.txn, BYTES, &seq));
    OK(txn_sync(f.txn, seq));
    f.map.base[0] = 2;
    OK(txn_commit(f.txn, BYTES, &seq));
    faults_install();
    faults = (struct faults){.fdatasync = true, .fault = FAULT_ERROR, .error = EIO, .count = 1};
    FAILS(STEAD_FAILED, txn_sync(f.txn, seq));
    faults_remove();
    cr_assert(txn_failed(f.txn));
    FAILS(STEAD_FAILED, txn_sync(f.txn, seq)); /* the sync would succeed now: it is not believed */
    FAILS(STEAD_FAILED, txn_commit(f.txn, BYTES, &seq));
    FAILS(STEAD_FAILED, txn_apply(f.txn));
    FAILS(STEAD_FAILED, txn_checkpoint(f.txn));
    fixture_kill(&f);
    OK(fixture_open(&f));
    cr_assert(f.map.base[0] == 1 || f.map.base[0] == 2);
    f.map.base[0] = 3;
    OK(txn_commit(f.txn, BYTES, &seq));
    OK(txn_sync(f.txn, seq));
    fixture_kill(&f);
    fixture_remove(&f);
}

/* W9: while a commit is not durable, nothing writes to the store file. */
static bool log_synced;
static long early_writes;
static int watching_fdatasync(int fd)
{
    log_synced = true;
    return file_calls_system.fdatasync(fd);
}
static ssize_t watching_pwrite(int fd, const void *buffer, size_t bytes, off_t offset)
{
    char name[FILE_PATH_BYTES];
    if (strstr(file_name(fd, name), "-wal") == NULL && !log_synced)
        early_writes++;
    return file_calls_system.pwrite(fd, buffer, bytes, offset);
}

Test(txn_commit_fault, nothing_is_applied_before_its_record_is_durable)
{
    struct fixture f;
    uint64_t seq;
    fixture_create(&f, BYTES, BYTES);
    OK(fixture_open(&f));
    f.map.base[0] = 1;
    file_calls.fdatasync = watching_fdatasync;
    file_calls.pwrite = watching_pwrite;
    OK(txn_commit(f.txn, BYTES, &seq));
    OK(txn_apply(f.txn));
    cr_assert_eq(early_writes, 0);
    cr_assert(log_synced);
    file_calls = file_calls_system;
    fixture_kill(&f);
    fixture_remove(&f);
}

/* W10: the superblock of a checkpoint is written after the file was synced. */
static bool image_synced;
static long early_superblocks;

static int watching_sync_range(int fd, off_t offset, off_t bytes)
{
    image_synced = true;
    return file_calls_system.sync_range(fd, offset, bytes);
}

static ssize_t watching_pwrite_durable(int fd, const void *buffer, size_t bytes, off_t offset)
{
    if (!image_synced)
        early_superblocks++;
    return file_calls_system.pwrite_durable(fd, buffer, bytes, offset);
}

Test(txn_commit_fault, a_checkpoint_syncs_the_file_before_its_superblock)
{
    struct fixture f;
    uint64_t seq;
    fixture_create(&f, BYTES, BYTES);
    OK(fixture_open(&f));
    f.map.base[0] = 1;
    OK(txn_commit(f.txn, BYTES, &seq));
    file_calls.sync_range = watching_sync_range;
    file_calls.pwrite_durable = watching_pwrite_durable;
    OK(txn_checkpoint(f.txn));
    cr_assert(image_synced);
    cr_assert_eq(early_superblocks, 0);
    file_calls = file_calls_system;
    fixture_kill(&f);
    fixture_remove(&f);
}

/* An application that failed between the pages and their checksums leaves pages in the file that match nothing.  Their base is
 * the overlay; a commit that changes their neighbours, too, does not take them for damaged. */
Test(txn_commit, a_failed_application_is_not_taken_for_damage_by_later_commits)
{
    struct fixture f;
    uint64_t seq;
    fixture_create(&f, BYTES, BYTES);
    OK(fixture_open(&f));
    bool failed = true;
    for (long call = 0; failed; call++) {
        for (uint64_t page = 10; page < 14; page++)
            f.map.base[page * PAGE_BYTES] = (uint8_t)(call + 1);
        OK(txn_commit(f.txn, BYTES, &seq));
        faults_install();
        faults = (struct faults){
            .path_suffix = "store", .pwrite = true, .fault = FAULT_ERROR, .error = ENOSPC, .skip = call, .count = 1};
        failed = txn_apply(f.txn) != 0;
        faults_remove();
        for (uint64_t page = 9; page < 15; page++)
            f.map.base[page * PAGE_BYTES + 100] = (uint8_t)(call + 1);
        OK(txn_commit(f.txn, BYTES, &seq));
        cr_assert(failed || call > 2, "%ld calls prove nothing", call);
        OK(txn_checkpoint(f.txn));
    }
    cr_assert_eq(fixture_bad_checksums(&f, BYTES), 0);
    fixture_kill(&f);
    fixture_remove(&f);
}

/* New pages that a failed commit had written into the file are zeros again, durably: a later commit does not log the zeros of
 * that place, so a power cut must not bring the old bytes back (W14). */
Test(txn_commit_fault, a_rollback_makes_the_zeros_past_the_end_durable)
{
    struct fixture f;
    uint64_t seq, used = 256 * PAGE_BYTES;
    fixture_create(&f, 2 * used, used);
    OK(fixture_open(&f));
    f.map.base[8] = 1;
    OK(txn_commit(f.txn, used, &seq)); /* the log has zeros ahead of its end: the next write is the record's */
    memset(f.map.base + used, 0x33, used);
    faults = (struct faults){.path_suffix = "-wal", .pwrite = true, .fault = FAULT_ERROR, .error = ENOSPC, .count = 1};
    faults_install();
    FAILS(ENOSPC, txn_commit(f.txn, 2 * used, &seq));
    uint8_t byte;
    OK(file_read_at(f.file.fd, &byte, 1, format_file_offset(2 * used - 1)));
    cr_assert_eq(byte, 0x33, "not written straight: this shows nothing");
    faults =
        (struct faults){.path_suffix = "/store", .sync_range = true, .fault = FAULT_ERROR, .error = EIO, .count = 1};
    FAILS(STEAD_FAILED, txn_rollback(f.txn));
    faults_remove();
    fixture_kill(&f);
    OK(fixture_open(&f));
    cr_assert_eq(f.map.base[used], 0);
    fixture_kill(&f);
    fixture_remove(&f);
}
