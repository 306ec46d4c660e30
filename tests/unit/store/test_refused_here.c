/* A new store on a file system that cannot carry its sharing: refused, and nothing of it stays behind.  Method: this
 * program's own fstatfs(2) in front of the C library's says what the file lies on. */
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "support/support.h"

#define BTRFS 0x9123683e
#define NFS 0x6969

static long claimed; /* the magic number to report; 0: the true one */

int fstatfs(int fd, struct statfs *info)
{
    int rc = (int)syscall(SYS_fstatfs, fd, info);
    if (rc == 0 && claimed != 0)
        info->f_type = claimed;
    return rc;
}

static void honest_again(void)
{
    claimed = 0;
    support_teardown();
}

TestSuite(refused_here, .init = support_setup, .fini = honest_again, .timeout = 300);

static void is_refused(long kind, stead_sharing sharing)
{
    stead *s;
    claimed = kind;
    FAILS(stead_open(&s, path_in("s"), &(stead_options){.sharing = sharing}), STEAD_FILE_SYSTEM);
    cr_assert_eq(file_bytes_of(path_in("s")), UINT64_MAX, "the file that the open made is still there");
    cr_assert_eq(file_bytes_of(path_in("s-wal")), UINT64_MAX);
}

Test(refused_here, what_the_refused_open_made_is_gone)
{
    stead *s;
    is_refused(BTRFS, STEAD_LIVE);
    is_refused(NFS, STEAD_LIVE);
    is_refused(NFS, STEAD_TURNS);
    OK(stead_open(&s, path_in("s"), &(stead_options){.flags = STEAD_NEW})); /* one process may */
    OK(stead_close(s));
}

Test(refused_here, what_was_there_before_stays)
{
    stead *s;
    OK(stead_open(&s, path_in("s"), NULL));
    OK(stead_root_once(s, 8, NULL, NULL, NULL));
    OK(stead_close(s));
    uint64_t bytes = file_bytes_of(path_in("s"));
    claimed = BTRFS;
    FAILS(stead_open(&s, path_in("s"), &(stead_options){.sharing = STEAD_LIVE}), STEAD_FILE_SYSTEM);
    cr_assert_eq(file_bytes_of(path_in("s")), bytes);
    OK(stead_open(&s, path_in("s"), NULL));
    cr_assert_not_null(stead_root(s));
    OK(stead_close(s));
}
