/*
 * test_fault.c -- the n-th call of each kind fails: the disk full, an I/O error, an interruption, a short transfer;
 * once, or from then on for ever.  The workload may report an error; the store must then hold the last acknowledged
 * commit or the one under way, and nobody may crash.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "tests/crash/workloads.h"

TestSuite(fault, .timeout = 1500);

static uint64_t inject(const struct crash_case *what, enum crash_call call, int error, bool sticky)
{
    struct crash_outcome o;
    int rc = crash_faults(what, call, error, sticky, &o);
    cr_assert_eq(rc, 0, "%s", rc == EUCLEAN ? o.first : stead_strerror(rc));
    return o.points;
}

/* In four workloads that between them use every call, each call in turn; returns how many failed.  Where that is none,
 * nothing was tried. */
static uint64_t everywhere(const char *title, enum crash_call call, int error)
{
    static const struct crash_case *const cases[] = {&workload_checkpoints, &workload_bulk, &workload_recovery,
                                                     &workload_turns_crashed};
    uint64_t failed = 0;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (unsigned sticky = 0; sticky < (error == EINTR || error == CRASH_SHORT ? 1U : 2U); sticky++)
            failed += inject(cases[i], call, error, sticky == 1);
    fprintf(stderr, "%s: %" PRIu64 " calls failed\n", title, failed);
    return failed;
}

/* Errors that one call may meet.  Each is a test of its own, so that they run side by side. */
#define FAULT(name, call, error) \
    Test(fault, name) \
    { \
        cr_assert_gt(everywhere(#name, call, error), 0, "no call failed: nothing was tried"); \
    }

FAULT(pwrite_disk_full, CRASH_PWRITE, ENOSPC)
FAULT(pwrite_io_error, CRASH_PWRITE, EIO)
FAULT(pwrite_interrupted, CRASH_PWRITE, EINTR)
FAULT(pwrite_short, CRASH_PWRITE, CRASH_SHORT)
FAULT(fdatasync_io_error, CRASH_FDATASYNC, EIO)
FAULT(fsync_io_error, CRASH_FSYNC, EIO)
FAULT(sync_range_io_error, CRASH_SYNC_RANGE, EIO)
FAULT(ftruncate_io_error, CRASH_FTRUNCATE, EIO)
FAULT(fallocate_disk_full, CRASH_FALLOCATE, ENOSPC)
FAULT(fallocate_interrupted, CRASH_FALLOCATE, EINTR)
FAULT(open_too_many_files, CRASH_OPEN, EMFILE)
FAULT(linkat_io_error, CRASH_LINKAT, EIO)
FAULT(rename_io_error, CRASH_RENAME, EIO)
FAULT(unlink_io_error, CRASH_UNLINK, EIO)
FAULT(mmap_out_of_memory, CRASH_MMAP, ENOMEM)
FAULT(pread_io_error, CRASH_PREAD, EIO)
FAULT(pread_short, CRASH_PREAD, CRASH_SHORT)

/* Where the file system has no direct writes there are none to fail: the log is written and synced in two calls, and those
 * were tried above. */
Test(fault, pwrite_durable_fails)
{
    (void)everywhere("pwritev2 EIO", CRASH_PWRITE_DURABLE, EIO);
    (void)everywhere("pwritev2 disk full", CRASH_PWRITE_DURABLE, ENOSPC);
    (void)everywhere("pwritev2 short", CRASH_PWRITE_DURABLE, CRASH_SHORT);
}
