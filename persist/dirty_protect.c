/*
 * dirty_protect.c -- userfaultfd in its asynchronous write-protection mode (Linux 6.7).
 *
 * A write to a protected page faults, and the kernel takes the protection off by itself and goes on: no handler thread, no
 * message, and kernel-mode writes (read(2) into a block) are served the same way, so nothing fails with EFAULT as it
 * would under mprotect.  The fault is what DIRTY_FAULTS counts, and the missing protection is what PAGEMAP_SCAN reports
 * as "written".
 *
 * Registration belongs to a mapping, not to an address: when the range grew, the new part is registered before the first
 * page in it is protected.  Not yet registered parts count as written, which errs on the safe side.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/system.h"
#include "base/units.h"
#include "persist/dirty_internal.h"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#define FEATURE_WP_UNPOPULATED (UINT64_C(1) << 13)
#define FEATURE_WP_ASYNC (UINT64_C(1) << 15)

int dirty_protect_open(struct dirty_protect *protect)
{
    protect->registered = 0;
    /* User mode only is what an unprivileged process may have; asynchronous faults need no more. */
    protect->fd = system_above_standard((int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY));
    if (protect->fd < 0)
        return ENOTSUP;
    struct uffdio_api api = {.api = UFFD_API, .features = FEATURE_WP_ASYNC | FEATURE_WP_UNPOPULATED};
    if (ioctl(protect->fd, UFFDIO_API, &api) != 0 || (api.features & FEATURE_WP_ASYNC) == 0) {
        dirty_protect_close(protect);
        return ENOTSUP;
    }
    return 0;
}

void dirty_protect_close(struct dirty_protect *protect)
{
    if (protect->fd >= 0)
        close(protect->fd);
    protect->fd = -1;
}

static int set_protection(const struct dirty_protect *protect, const uint8_t *start, uint64_t bytes, uint64_t mode)
{
    struct uffdio_writeprotect pages = {.range = {.start = (uintptr_t)start, .len = bytes}, .mode = mode};
    for (int tries = 0; tries < 100; tries++) {
        if (ioctl(protect->fd, UFFDIO_WRITEPROTECT, &pages) == 0)
            return 0;
        if (errno != EAGAIN && errno != EINTR)
            break;
    }
    return ENOTSUP;
}

int dirty_protect_pages(struct dirty_protect *protect, uint8_t *base, uint64_t bytes, uint64_t first, uint64_t count)
{
    if ((first + count) * PAGE_BYTES > protect->registered) {
        struct uffdio_register range = {
            .range = {.start = (uintptr_t)base + protect->registered, .len = bytes - protect->registered},
            .mode = UFFDIO_REGISTER_MODE_WP};
        if ((first + count) * PAGE_BYTES > bytes || ioctl(protect->fd, UFFDIO_REGISTER, &range) != 0)
            return ENOTSUP;
        protect->registered = bytes;
    }
    return set_protection(protect, base + first * PAGE_BYTES, count * PAGE_BYTES, UFFDIO_WRITEPROTECT_MODE_WP);
}

int dirty_unprotect(struct dirty_protect *protect, uint8_t *base, uint64_t bytes)
{
    uint64_t registered = min_u64(bytes, protect->registered);
    return registered == 0 ? 0 : set_protection(protect, base, registered, 0);
}
