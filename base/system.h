/*
 * system.h -- what the kernel has and some C libraries' headers lack: glibc before 2.36, musl.
 */
#ifndef STEAD_BASE_SYSTEM_H
#define STEAD_BASE_SYSTEM_H

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h> /* RENAME_ */
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24 /* Linux 5.18 */
#endif
#ifndef RWF_DSYNC
#define RWF_DSYNC 0x2 /* Linux 4.7 */
#endif
#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1u
#define RENAME_EXCHANGE 2u
#endif

/* errno of a call that need not be there: is it one that this system does not let us make at all?  Sandboxes answer EPERM to
 * calls that they do not know; where it is meant, the plain call that is tried instead says it again. */
static inline bool system_lacks_call(int code)
{
    return code == ENOSYS || code == EPERM;
}

/* In English, and static; NULL or a text of its own for a number that is no error. */
static inline const char *system_error_text(int code)
{
#ifdef __GLIBC_PREREQ
#if __GLIBC_PREREQ(2, 32)
    return strerrordesc_np(code);
#else
    return strerror(code);
#endif
#else
    return strerror(code);
#endif
}

/* A descriptor that has just been opened (or -1 with errno), moved above those of standard input, output and error.  A program
 * may have been started with these closed: what it prints would be written into the file, and what it opens anew as its
 * output (dup2) would take our file's place.  Where none is free above it stays. */
static inline int system_above_standard(int fd)
{
    if (fd < 0 || fd > STDERR_FILENO)
        return fd;
    int above = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    if (above < 0)
        return fd;
    (void)close(fd);
    return above;
}

/* rename with flags, errno as usual. */
static inline int system_renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags)
{
    return (int)syscall(SYS_renameat2, from_folder, from, to_folder, to, flags);
}

/* One buffer at an offset, with RWF_ flags. */
static inline ssize_t system_pwrite_flags(int fd, const void *buffer, size_t bytes, off_t offset, int flags)
{
    struct iovec part = {.iov_base = (void *)(uintptr_t)buffer, .iov_len = bytes};
    return syscall(SYS_pwritev2, fd, &part, 1L, (long)offset, 0L /* the upper half, where a long is half an offset */,
                   flags);
}

#endif
