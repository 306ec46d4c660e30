/*
 * test_sandbox.c -- a program in a sandbox (seccomp): calls that are younger than its rules answer EPERM, as in containers and
 * services with a list of calls, or ENOSYS.  A store works without them, by plain ones.
 *
 * Method: the table of calls answers so from the start; the life of a store with a log that is replaced, killed (abandoned)
 * and recovered, closed, removed.
 */
#include <errno.h>
#include <string.h>

#include "persist/file.h"
#include "support/support.h"

#define COMMITS 30
#define BLOCK_BYTES ((size_t)1 << 20)

static int answer; /* errno */

static void teardown(void)
{
    file_calls = file_calls_system;
    support_teardown();
}

TestSuite(sandbox, .init = support_setup, .fini = teardown, .timeout = 300);

static ssize_t no_durable(int fd, const void *bytes, size_t count, off_t offset)
{
    (void)fd, (void)bytes, (void)count, (void)offset;
    errno = answer;
    return -1;
}

static int no_rename(const char *from, const char *to)
{
    (void)from, (void)to;
    errno = answer;
    return -1;
}

static int no_fallocate(int fd, int mode, off_t offset, off_t bytes)
{
    (void)fd, (void)mode, (void)offset, (void)bytes;
    errno = answer;
    return -1;
}

static ssize_t no_copy(int from_fd, off_t *from, int to_fd, off_t *to, size_t bytes)
{
    (void)from_fd, (void)from, (void)to_fd, (void)to, (void)bytes;
    errno = answer;
    return -1;
}

static void lives(stead_sharing sharing)
{
    stead_options options = {.sharing = sharing};
    stead_report report;
    stead *s;
    void *root;
    OK(stead_open(&s, path_in("s"), &options));
    OK(stead_root_once(s, BLOCK_BYTES, NULL, NULL, &root));
    for (int i = 1; i <= COMMITS; i++) {
        OK(stead_lock(s, STEAD_EXCLUSIVE, -1));
        memset(root, i, BLOCK_BYTES);
        OK(stead_commit(s, i % 2 == 0 ? STEAD_DURABLE : STEAD_BUFFERED));
        OK(stead_unlock(s));
    }
    OK(stead_backup(s, path_in("copy")));
    OK(stead_check(s, &report));
    if (sharing == STEAD_LIVE)
        OK(stead_close(s));
    else
        stead_abandon(s);
    OK(stead_open(&s, path_in("s"), &options));
    cr_assert_eq(*(const char *)stead_root(s), COMMITS);
    OK(stead_check(s, &report));
    OK(stead_close(s));
    cr_assert_eq(file_bytes_of(path_in("s-wal")), UINT64_MAX, "the log is gone");
    OK(stead_remove(path_in("copy")));
    OK(stead_remove(path_in("s")));
}

static void lives_in_every_mode(int error)
{
    answer = error;
    file_calls.pwrite_durable = no_durable;
    file_calls.exchange = no_rename;
    file_calls.rename_new = no_rename;
    file_calls.copy_file_range = no_copy;
    lives(STEAD_SOLE);
    lives(STEAD_TURNS);
    lives(STEAD_LIVE);
    file_calls.fallocate = no_fallocate;
    lives(STEAD_SOLE);
    lives(STEAD_TURNS);
    stead *s; /* there a full disk would be a signal */
    FAILS(stead_open(&s, path_in("s"), &(stead_options){.sharing = STEAD_LIVE}), STEAD_FILE_SYSTEM);
}

Test(sandbox, that_answers_eperm_to_calls_it_does_not_know_is_lived_in)
{
    lives_in_every_mode(EPERM);
}

Test(sandbox, that_answers_enosys_is_lived_in)
{
    lives_in_every_mode(ENOSYS);
}
