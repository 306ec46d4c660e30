/*
 * test_scarce.c -- a process that gets no more memory: calls say so, nothing is lost, nothing is taken for damage, and all
 * goes on when there is some.
 *
 * Method: the address space is limited to what it is at that moment (RLIMIT_AS); the C library gives large blocks by mmap.
 */
#include <errno.h>
#include <malloc.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "support/support.h"

/* Sanitizers end a program that gets no memory. */
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

#define BLOCK_BYTES ((size_t)8 << 20)

TestSuite(scarce, .init = support_setup, .fini = support_teardown, .timeout = 300);

static void no_more_memory(bool really)
{
    struct rlimit limit;
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    cr_assert_not_null(file);
    cr_assert_eq(fscanf(file, "%lu", &pages), 1);
    (void)fclose(file);
    cr_assert_eq(getrlimit(RLIMIT_AS, &limit), 0);
    limit.rlim_cur = really ? pages * (rlim_t)sysconf(_SC_PAGESIZE) : limit.rlim_max;
    cr_assert_eq(setrlimit(RLIMIT_AS, &limit), 0);
}

static stead *with_a_log(stead_sharing sharing)
{
    stead *s;
    void *root;
    cr_assert_eq(mallopt(M_MMAP_THRESHOLD, 64 << 10), 1);
    OK(stead_open(&s, path_in("s"), &(stead_options){.sharing = sharing}));
    OK(stead_root_once(s, BLOCK_BYTES, NULL, NULL, &root));
    OK(stead_lock(s, STEAD_EXCLUSIVE, -1));
    memset(root, 1, 8192);
    OK(stead_commit(s, STEAD_DURABLE));
    OK(stead_unlock(s));
    return s;
}

static void checks_without_memory(stead_sharing sharing)
{
    stead_report report;
    stead *s = with_a_log(sharing);
    no_more_memory(true);
    int rc = stead_check(s, &report);
    no_more_memory(false);
    cr_assert_eq(rc, ENOMEM, "%s", stead_last_error_text());
    cr_assert_eq(report.problems, 0, "%s", report.first_problem);
    OK(stead_check(s, &report));
    OK(stead_close(s));
}

Test(scarce, a_check_that_cannot_look_finds_no_damage_in_sole)
{
    checks_without_memory(STEAD_SOLE);
}

Test(scarce, a_check_that_cannot_look_finds_no_damage_in_turns)
{
    checks_without_memory(STEAD_TURNS);
}

/* A transaction of thousands of pages wants lists of them. */
Test(scarce, a_commit_without_memory_changed_nothing_and_may_be_tried_again)
{
    stead *s = with_a_log(STEAD_SOLE);
    char *root = stead_root(s);
    memset(root, 2, BLOCK_BYTES);
    no_more_memory(true);
    int rc = stead_commit(s, STEAD_DURABLE);
    no_more_memory(false);
    cr_assert_eq(rc, ENOMEM, "%s", stead_last_error_text());
    cr_assert_eq(root[BLOCK_BYTES - 1], 2, "memory is intact");
    OK(stead_commit(s, STEAD_DURABLE));
    stead_abandon(s);
    OK(stead_open(&s, path_in("s"), NULL));
    cr_assert_eq(((const char *)stead_root(s))[BLOCK_BYTES - 1], 2);
    OK(stead_close(s));
}

#endif
