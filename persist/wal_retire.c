/*
 * wal_retire.c -- a log that a checkpoint has replaced gives its blocks back in small pieces.
 *
 * The last one to close a file without a name waits until its blocks are freed, and 64 MiB of them take 20 ms where the
 * file system tells the disk (mount option `discard`): the longest wait in the life of a store, and it would hit the
 * commit that made the checkpoint, or twice the open that recovers: it leaves two, the log as it was found and the one into
 * which the valid prefix was written.  So an old log stays open, and each commit from then on cuts RETIRE_BYTES off its end.
 * Of more than WAL_RETIRED_MAX the oldest is closed at once.  What they hold is given back sooner where space is short:
 * whoever finds the disk full, for the log or for the image, ends them all and tries again (wal_retire_end).
 *
 * Nobody may miss what is cut off:
 *   - the superblock that names the new log is durable, so no opener and no recovery looks for this one; if a power
 *     cut brings its name back, it begins with a log's header still, and is replaced (wal_name.c);
 *   - it has no name any more, neither a log's nor one that somebody else gave it (a backup by hard links);
 *   - no other process has it open (a reader in the middle of a replay, a neighbour in TURNS, a copier): the kernel is asked,
 *     by a lease, which it grants only to the one who opened a file alone; given back at once, as nobody can open it anew
 *     by a name.  (Through /proc somebody can.  In the moment of the lease the kernel tells this process of it by a signal,
 *     SIGIO unless it is asked for another one, and who has no handler for that is ended: so one is asked for that is
 *     ignored where nobody wants it.  What such a one reads afterwards gets shorter under him.)
 * Where one of these does not hold the file is closed as it is, and whoever closes it last waits.
 *
 *   W25  a replaced log is cut only while it has no name and nobody else has it open (test_wal_retire.c)
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "persist/file.h"
#include "persist/wal_internal.h"

#define RETIRE_BYTES (UINT64_C(128) << 10) /* 0.1 ms */

/* The oldest. */
static void finish(struct wal_build *build)
{
    file_calls.close(build->retired[0].fd);
    build->retired_count--;
    memmove(build->retired, build->retired + 1, build->retired_count * sizeof build->retired[0]);
}

static bool is_ours_alone(int fd)
{
    struct stat facts;
    if (fstat(fd, &facts) != 0 || facts.st_nlink != 0 || fcntl(fd, F_SETSIG, SIGURG) != 0 ||
        fcntl(fd, F_SETLEASE, F_WRLCK) != 0)
        return false;
    return fcntl(fd, F_SETLEASE, F_UNLCK) == 0;
}

void wal_retire(struct wal_build *build, int fd)
{
    uint64_t bytes;
    if (!is_ours_alone(fd) || file_size(fd, &bytes) != 0) {
        file_calls.close(fd);
        return;
    }
    if (build->retired_count == WAL_RETIRED_MAX)
        finish(build);
    build->retired[build->retired_count++] = (struct wal_retired){.fd = fd, .bytes = bytes};
}

void wal_retire_some(struct wal_build *build)
{
    struct wal_retired *oldest = &build->retired[0];
    if (build->retired_count == 0)
        return;
    if (oldest->bytes <= WAL_FIRST_RECORD + RETIRE_BYTES) {
        finish(build); /* the header stays to the end: what a power cut brings back is known for a log */
        return;
    }
    oldest->bytes -= RETIRE_BYTES;
    if (file_truncate(oldest->fd, oldest->bytes) != 0)
        finish(build);
}

bool wal_retire_end(struct wal_build *build)
{
    bool any = build->retired_count != 0;
    while (build->retired_count != 0)
        finish(build);
    return any;
}
