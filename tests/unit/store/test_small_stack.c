/*
 * test_small_stack.c -- every call is content with the 64 KiB of stack that stead.h asks for: pools of threads have no more,
 * and musl's threads have 128 by default.
 *
 * Method: the life of a store in each mode, in a thread of such a stack.  The page below it is inaccessible: who needs more
 * ends in SIGSEGV.  The disk's quick ways are closed, so that copies go by hand.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "persist/file.h"
#include "support/support.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(NDEBUG)
#define STACK_BYTES ((size_t)512 << 10) /* their frames are several times larger: the calls are made all the same */
#else
#define STACK_BYTES ((size_t)64 << 10)
#endif
#define PAGEMAP_SCAN_REQUEST 0xc0606610u /* _IOWR('f', 16, 96 bytes) */
#define BLOCKS 4000                      /* of two pages: more than a recovery or a commit sorts by insertion */
#define BLOCK_BYTES ((size_t)8192)

static void teardown(void)
{
    file_calls = file_calls_system;
    support_teardown();
}

TestSuite(small_stack, .init = support_setup, .fini = teardown, .timeout = 300);

static ssize_t no_copy(int from_fd, off_t *from, int to_fd, off_t *to, size_t bytes)
{
    (void)from_fd, (void)from, (void)to_fd, (void)to, (void)bytes;
    errno = EXDEV;
    return -1;
}

static int no_clone(int to_fd, int from_fd)
{
    (void)to_fd, (void)from_fd;
    errno = EOPNOTSUPP;
    return -1;
}

static int see_block(void *block, size_t usable, void *arg)
{
    (void)block, (void)usable, (void)arg;
    return 0;
}

static int see_name(const char *name, void *object, void *arg)
{
    (void)name, (void)object, (void)arg;
    return 0;
}

static int see_lock(const stead_lock_info *info, void *arg)
{
    (void)info, (void)arg;
    return 0;
}

static int see_section(const char *name, const char *kind, void *arg)
{
    (void)name, (void)kind, (void)arg;
    return 0;
}

/* Changes every block: in SOLE and TURNS a record of thousands of pages in no order. */
static void change(stead *s, uint8_t **block, int to)
{
    for (unsigned i = 0; i < BLOCKS; i++)
        *block[(i * UINT64_C(2654435761)) % BLOCKS] = (uint8_t)to;
    OK(stead_commit(s, to % 2 == 0 ? STEAD_DURABLE : STEAD_BUFFERED));
}

static void fill(stead *s, stead_sharing sharing, uint8_t **block)
{
    void *root;
    OK(stead_root_once(s, 64, NULL, NULL, &root));
    OK(stead_lock(s, STEAD_EXCLUSIVE, -1));
    for (unsigned i = 0; i < BLOCKS; i++)
        cr_assert_not_null(block[i] = stead_malloc(s, BLOCK_BYTES));
    for (unsigned i = 0; i < BLOCKS; i++)
        stead_free(stead_malloc(s, i % 3000));
    stead_free(stead_malloc(s, 8 << 20));
    OK(stead_bind(s, "a name", root));
    for (int to = 0; to < 4; to++)
        change(s, block, to);
    if (sharing != STEAD_LIVE) {
        *block[0] = 77;
        OK(stead_rollback(s));
        cr_assert_eq(*block[0], 3);
    }
    OK(stead_unlock(s));
    FAILS(stead_unlock(s), EPERM);
}

static void look(stead *s)
{
    stead_status status;
    stead_report report;
    OK(stead_check(s, &report));
    OK(stead_stat(s, &status));
    OK(stead_each_block(s, see_block, NULL));
    OK(stead_each_name(s, see_name, NULL));
    OK(stead_each_lock(s, see_lock, NULL));
    OK(stead_each_section(see_section, NULL));
    OK(stead_backup(s, path_in("copy")));
    OK(stead_remove(path_in("copy")));
    FAILS(stead_backup(s, path_in("no folder/copy")), ENOENT);
}

static void semaphores(void)
{
    stead_semaphore *semaphore;
    stead_event *event;
    OK(stead_semaphore_open(&semaphore, "stead-test-small-stack", 1));
    OK(stead_semaphore_wait(semaphore, 0));
    OK(stead_semaphore_signal(semaphore, 1));
    OK(stead_semaphore_close(semaphore));
    OK(stead_semaphore_remove("stead-test-small-stack"));
    OK(stead_event_open(&event, NULL, false));
    FAILS(stead_event_wait(event, 1), ETIMEDOUT);
    OK(stead_event_close(event));
}

static void *live_in(void *arg)
{
    stead_options options = {.sharing = *(const stead_sharing *)arg};
    char path[256]; /* path_in() gives four at a time */
    (void)snprintf(path, sizeof path, "%s/s", support_folder());
    uint8_t **block = calloc(BLOCKS, sizeof *block);
    stead *s;
    cr_assert_not_null(block);
    OK(stead_open(&s, path, &options));
    fill(s, options.sharing, block);
    look(s);
    if (options.sharing == STEAD_LIVE)
        OK(stead_close(s));
    else
        stead_abandon(s); /* a log of thousands of pages to recover */
    OK(stead_open(&s, path, &options));
    cr_assert_eq(*block[BLOCKS - 1], 3);
    OK(stead_close(s));
    options.flags = STEAD_READ_ONLY;
    OK(stead_open(&s, path, &options));
    look(s);
    OK(stead_close(s));
    options.flags = STEAD_EXISTING;
    FAILS(stead_open(&s, path_in("absent"), &options), ENOENT);
    OK(stead_remove(path));
    semaphores();
    free(block);
    return NULL;
}

static void in_small_stack(stead_sharing sharing)
{
    pthread_attr_t attributes;
    pthread_t thread;
    file_calls.copy_file_range = no_copy;
    file_calls.clone = no_clone;
    cr_assert_eq(pthread_attr_init(&attributes), 0);
    cr_assert_eq(pthread_attr_setstacksize(&attributes, STACK_BYTES), 0);
    cr_assert_eq(pthread_create(&thread, &attributes, live_in, &sharing), 0);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    pthread_attr_destroy(&attributes);
}

Test(small_stack, holds_a_life_in_sole)
{
    in_small_stack(STEAD_SOLE);
}

/* No fault reports, and no scan by the kernel: the bits of all page tables are read. */
static void without_the_kernels_help(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_perf_event_open, 3, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PAGEMAP_SCAN_REQUEST, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOTTY),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof code[0], .filter = code};
    cr_assert_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    cr_assert_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

Test(small_stack, holds_a_life_where_page_tables_are_read)
{
    without_the_kernels_help();
    in_small_stack(STEAD_SOLE);
}

Test(small_stack, holds_a_life_in_turns)
{
    in_small_stack(STEAD_TURNS);
}

Test(small_stack, holds_a_life_in_live)
{
    in_small_stack(STEAD_LIVE);
}
