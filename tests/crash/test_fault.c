/*
 * test_fault.c -- the n-th call of each kind fails: the disk full, an I/O error, an interruption, a short transfer; once, or
 * from then on for ever.  The workload may report an error; the store must then hold the last acknowledged commit or the one
 * under way, and nobody may crash.
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

/* In three workloads that between them use every call; at least `least` calls must have failed. */
static void everywhere(const char *title, enum crash_call call, int error, uint64_t least)
{
    static const struct crash_case *const cases[] = {&workload_checkpoints, &workload_bulk, &workload_recovery,
                                                     &workload_turns_crashed};
    uint64_t failed = 0;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (unsigned sticky = 0; sticky < (error == EINTR || error == CRASH_SHORT ? 1U : 2U); sticky++)
            failed += inject(cases[i], call, error, sticky == 1);
    fprintf(stderr, "%s: %" PRIu64 " calls failed\n", title, failed);
    cr_assert_geq(failed, least, "%s: hardly any call failed", title);
}

Test(fault, pwrite_disk_full)
{
    everywhere("pwrite ENOSPC", CRASH_PWRITE, ENOSPC, 4);
}

Test(fault, pwrite_io_error)
{
    everywhere("pwrite EIO", CRASH_PWRITE, EIO, 4);
}

Test(fault, pwrite_interrupted)
{
    everywhere("pwrite EINTR", CRASH_PWRITE, EINTR, 2);
}

Test(fault, pwrite_short)
{
    everywhere("pwrite short", CRASH_PWRITE, CRASH_SHORT, 2);
}

Test(fault, pwrite_durable_fails)
{
    everywhere("pwritev2 EIO", CRASH_PWRITE_DURABLE, EIO, 0);
    everywhere("pwritev2 short", CRASH_PWRITE_DURABLE, CRASH_SHORT, 0);
}

Test(fault, fdatasync_io_error)
{
    everywhere("fdatasync EIO", CRASH_FDATASYNC, EIO, 0);
}

Test(fault, fsync_io_error)
{
    everywhere("fsync EIO", CRASH_FSYNC, EIO, 2);
}

Test(fault, sync_range_io_error)
{
    everywhere("msync EIO", CRASH_SYNC_RANGE, EIO, 0);
}

Test(fault, ftruncate_fails)
{
    everywhere("ftruncate EIO", CRASH_FTRUNCATE, EIO, 0);
}

Test(fault, fallocate_disk_full)
{
    everywhere("fallocate ENOSPC", CRASH_FALLOCATE, ENOSPC, 2);
}

Test(fault, fallocate_interrupted)
{
    everywhere("fallocate EINTR", CRASH_FALLOCATE, EINTR, 2);
}

Test(fault, open_and_names_fail)
{
    everywhere("open EMFILE", CRASH_OPEN, EMFILE, 2);
    everywhere("linkat EIO", CRASH_LINKAT, EIO, 0);
    everywhere("rename EIO", CRASH_RENAME, EIO, 0);
    everywhere("unlink EIO", CRASH_UNLINK, EIO, 0);
}

Test(fault, mmap_out_of_memory)
{
    everywhere("mmap ENOMEM", CRASH_MMAP, ENOMEM, 4);
}

Test(fault, pread_io_error_and_short)
{
    everywhere("pread EIO", CRASH_PREAD, EIO, 2);
    everywhere("pread short", CRASH_PREAD, CRASH_SHORT, 2);
}
