/*
 * dirty_drop.c -- private copies of pages given back to the kernel, many by one call.
 *
 * process_madvise(2) on the calling process itself takes a list of ranges (Linux 6.13; named by PIDFD_SELF, which needs no
 * descriptor and means the child in a fork child, since 6.15), and flushes translations once for all of them: 0.3 us a
 * page where madvise(2) takes 1.2.  Where it is not to be had, or stops half-way (memory locked by mlockall), the ranges go
 * one by one; dropping one again changes nothing, for nobody writes meanwhile.
 */
#include <errno.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/system.h"
#include "base/units.h"
#include "persist/dirty_internal.h"

#define RANGES_AT_ONCE 128 /* 2 KiB of stack; the gain of more is lost in the noise */
#define SELF (-10000)      /* PIDFD_SELF of younger headers */
#ifndef SYS_process_madvise
#define SYS_process_madvise 440 /* the same number on all architectures */
#endif

_Atomic bool dirty_drop_at_once = true;

/* EINVAL: the program locked its memory (mlockall), which made the pages private in the first place. */
int dirty_drop_range(uint8_t *start, size_t bytes)
{
    if (madvise(start, bytes, MADV_DONTNEED) == 0 || madvise(start, bytes, MADV_DONTNEED_LOCKED) == 0)
        return 0;
    return errno;
}

static int drop_ranges(const struct iovec *range, size_t count)
{
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += range[i].iov_len;
    if (count > 1 && atomic_load_explicit(&dirty_drop_at_once, memory_order_relaxed)) {
        long done = syscall(SYS_process_madvise, SELF, range, count, MADV_DONTNEED, 0);
        if (done == (long)bytes)
            return 0;
        if (done < 0 && (errno == ENOSYS || errno == EBADF || errno == EPERM)) /* not on this system: not asked again */
            atomic_store_explicit(&dirty_drop_at_once, false, memory_order_relaxed);
    }
    int rc = 0;
    for (size_t i = 0; i < count && rc == 0; i++)
        rc = dirty_drop_range(range[i].iov_base, range[i].iov_len);
    return rc;
}

int dirty_drop_pages(uint8_t *base, const struct page_list *pages)
{
    struct iovec range[RANGES_AT_ONCE];
    int rc = 0;
    for (size_t i = 0; i < pages->count && rc == 0;) {
        size_t count = 0;
        while (i < pages->count && count < RANGES_AT_ONCE) {
            size_t run = page_list_run(pages, i, pages->count);
            range[count++] =
                (struct iovec){.iov_base = base + pages->page[i] * PAGE_BYTES, .iov_len = run * PAGE_BYTES};
            i += run;
        }
        rc = drop_ranges(range, count);
    }
    return rc;
}
