/*
 * A disk that is full where overwriting allocates (btrfs, zfs, a thin device's file system): any write may find no room, into
 * blocks that were reserved and written before, too: of the log, of pages, of the mark at the file's end, of a superblock.
 *
 * Method: in a life of commits, applications and checkpoints each write in turn finds no room; this one alone, or all from then
 * on until space returns.  None of it may poison the store; what was refused did not happen; all goes on afterwards.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "persist/txn_internal.h"
#include "txn_fixture.h"

TestSuite(txn_overwrite_full, .timeout = 300);

#define PAGES 64
#define BYTES (PAGES * PAGE_BYTES)
#define COMMITS 4

static bool is_clean(int rc)
{
    return rc == 0 || rc == ENOSPC;
}

/* Commit `value` in three scattered pages, durably; the value that the store has then. */
static uint8_t commit_value(struct fixture *f, uint8_t before, uint8_t value)
{
    uint64_t seq;
    for (unsigned i = 0; i < 3; i++)
        f->map.base[i * 20 * PAGE_BYTES + i] = value;
    int rc = txn_commit_deferred(f->txn, BYTES, &seq);
    cr_assert(is_clean(rc), "commit: %s", error_last_text());
    if (rc == 0) {
        OK(txn_sync(f->txn, seq));
        return value;
    }
    for (unsigned i = 0; i < 3; i++)
        cr_assert_eq(f->map.base[i * 20 * PAGE_BYTES + i], value, "memory is intact");
    if (value % 2 == 0)
        OK(txn_rollback(f->txn));
    return before;
}

static void expect(const struct fixture *f, uint8_t value)
{
    for (unsigned i = 0; i < 3; i++)
        cr_assert_eq(f->map.base[i * 20 * PAGE_BYTES + i], value);
}

/* False: the n-th write is none of this life's. */
static bool live_without_room(long n, long count)
{
    struct fixture f;
    uint8_t value = 0;
    fixture_create(&f, BYTES, BYTES);
    OK(fixture_open(&f));
    f.txn->at_once = true;
    value = commit_value(&f, value, 1);
    faults_install();
    faults = (struct faults){.pwrite = true, .fault = FAULT_ERROR, .error = ENOSPC, .skip = n, .count = count};
    for (uint8_t i = 0; i < COMMITS; i++) {
        value = commit_value(&f, value, (uint8_t)(2 + i));
        cr_assert(is_clean(txn_apply(f.txn)), "application: %s", error_last_text());
        if (i % 2 == 1)
            cr_assert(is_clean(txn_checkpoint(f.txn)), "checkpoint: %s", error_last_text());
        cr_assert_not(txn_failed(f.txn), "write %ld: %s", n, error_last_text());
    }
    bool reached = faults.seen > n;
    faults_remove();
    OK(txn_rollback(f.txn));
    expect(&f, value);
    value = commit_value(&f, value, 100);
    cr_assert_eq(value, 100, "there is space again");
    if (n % 2 == 0)
        OK(txn_checkpoint(f.txn));
    fixture_kill(&f);
    OK(fixture_open(&f));
    expect(&f, 100);
    cr_assert_eq(fixture_bad_checksums(&f, BYTES), 0);
    fixture_kill(&f);
    fixture_remove(&f);
    return reached;
}

Test(txn_overwrite_full, one_write_that_finds_no_room_is_clean)
{
    long n = 0;
    while (live_without_room(n, 1))
        n++;
    cr_assert_gt(n, 20, "few writes were tried");
}

Test(txn_overwrite_full, all_goes_on_when_space_returns)
{
    long n = 0;
    while (live_without_room(n, INT32_MAX))
        n++;
    cr_assert_gt(n, 20, "few writes were tried");
}
