/* test_pointer.c -- whose is this pointer?  stead_malloc() and stead_free() ask only what the thread used last (alloc/owner.c);
 * here stores come and go, in this thread and beside it, and every answer must be the right one. */
#include <errno.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/support.h"

TestSuite(pointer, .init = support_setup, .fini = support_teardown, .timeout = 300);

static unsigned long long bad_frees(stead *s)
{
    stead_status status;
    OK(stead_stat(s, &status));
    return status.bad_frees;
}

static unsigned long long live_blocks(stead *s)
{
    stead_status status;
    OK(stead_stat(s, &status));
    return status.live_blocks;
}

static const stead_sharing modes[] = {STEAD_SOLE, STEAD_LIVE};
static const char *const names[] = {"sole", "live"};

/* The file comes back at the same address: the pointer is one of the new handle's, and no more live than the file says. */
Test(pointer, one_freed_before_the_close_is_refused_by_the_store_that_is_mapped_there_now)
{
    for (unsigned m = 0; m < 2; m++) {
        stead *s;
        const stead_options options = {.sharing = modes[m]};
        OK(stead_open(&s, path_in(names[m]), &options));
        void *kept = stead_malloc(s, 40), *freed = stead_malloc(s, 40), *base = stead_of(kept);
        stead_free(freed);
        OK(stead_close(s));
        stead_free(kept);
        cr_assert_eq(stead_last_error(), STEAD_WRONG_POINTER, "its store is closed");
        cr_assert_null(stead_of(kept));
        OK(stead_open(&s, path_in(names[m]), &options));
        cr_assert_not_null(base);
        stead_free(freed);
        cr_assert_eq(bad_frees(s), 1);
        stead_free(kept);
        cr_assert_eq(bad_frees(s), 1);
        cr_assert_eq(live_blocks(s), 0);
        OK(stead_check(s, NULL));
        OK(stead_close(s));
    }
}

Test(pointer, one_from_after_the_last_commit_is_refused_after_a_rollback)
{
    stead *s;
    OK(stead_open(&s, path_in("s"), NULL));
    void *kept = stead_malloc(s, 100);
    OK(stead_commit(s, STEAD_BUFFERED));
    void *lost = stead_malloc(s, 200);
    stead_free(stead_malloc(s, 200));
    OK(stead_rollback(s));
    stead_free(lost);
    cr_assert_eq(stead_last_error(), STEAD_WRONG_POINTER);
    cr_assert_eq(bad_frees(s), 1);
    stead_free(kept);
    cr_assert_eq(bad_frees(s), 1);
    cr_assert_eq(live_blocks(s), 0);
    OK(stead_check(s, NULL));
    OK(stead_close(s));
}

Test(pointer, one_of_a_read_only_store_or_of_a_turn_of_nobody_is_not_freed)
{
    stead *s;
    OK(stead_open(&s, path_in("s"), NULL));
    void *block = stead_malloc(s, 40);
    OK(stead_set_root(s, block));
    OK(stead_close(s));
    OK(stead_open(&s, path_in("s"), &(stead_options){.flags = STEAD_READ_ONLY}));
    stead_free(block);
    cr_assert_eq(stead_last_error(), EPERM);
    cr_assert_null(stead_malloc(s, 40));
    cr_assert_eq(errno, EPERM);
    cr_assert_eq(live_blocks(s), 1);
    OK(stead_close(s));
    OK(stead_open(&s, path_in("s"), &(stead_options){.sharing = STEAD_TURNS}));
    OK(stead_lock(s, STEAD_EXCLUSIVE, -1));
    stead_free(stead_malloc(s, 40)); /* now this thread has a part in the heap */
    OK(stead_unlock(s));
    stead_free(block);
    cr_assert_eq(stead_last_error(), EPERM);
    cr_assert_null(stead_malloc(s, 40));
    cr_assert_eq(errno, EPERM);
    cr_assert_eq(live_blocks(s), 1);
    OK(stead_close(s));
}

enum { STORES = 3, BLOCKS = 3000 };

struct mix {
    stead *store[STORES];
    void *block[BLOCKS];
};

static void *free_every_third(void *arg)
{
    struct mix *mix = arg;
    for (unsigned i = 0; i < STORES; i++)
        stead_free(stead_malloc(mix->store[i], 40));
    for (unsigned i = 0; i < BLOCKS; i += 3)
        stead_free(mix->block[i]);
    return NULL;
}

/* A thread that goes from store to store; another one frees beside it.  One of the stores closes in between. */
Test(pointer, those_of_several_stores_find_their_own)
{
    static struct mix mix;
    pthread_t thread;
    for (unsigned i = 0; i < STORES; i++) {
        const stead_options options = {.sharing = i == 1 ? STEAD_LIVE : STEAD_SOLE, .capacity_bytes = 64u << 20};
        char name[] = {(char)('a' + i), 0};
        OK(stead_open(&mix.store[i], path_in(name), &options));
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        mix.block[i] = stead_malloc(mix.store[i / 3 % STORES], 16 + i % 200);
        cr_assert_not_null(mix.block[i]);
        cr_assert_eq(stead_of(mix.block[i]), mix.store[i / 3 % STORES]);
    }
    cr_assert_eq(pthread_create(&thread, NULL, free_every_third, &mix), 0);
    for (unsigned i = 1; i < BLOCKS; i += 3)
        stead_free(mix.block[i]);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    OK(stead_close(mix.store[0]));
    for (unsigned i = 2; i < BLOCKS; i += 3)
        if (i / 3 % STORES != 0)
            stead_free(mix.block[i]);
    for (unsigned i = 1; i < STORES; i++) {
        cr_assert_eq(bad_frees(mix.store[i]), 0, "store %u", i);
        cr_assert_eq(live_blocks(mix.store[i]), 0, "store %u", i);
        OK(stead_check(mix.store[i], NULL));
        OK(stead_close(mix.store[i]));
    }
}

/* DESIGN section 9: in a fork child stead_free does nothing. */
Test(pointer, one_of_the_parents_is_left_alone_by_a_fork_child)
{
    int status;
    stead *s;
    OK(stead_open(&s, path_in("s"), NULL));
    void *block = stead_malloc(s, 40);
    pid_t child = fork();
    if (child == 0) {
        stead_free(block); /* a write, or a read, of what was not inherited is a signal */
        bool none = stead_malloc(s, 40) == NULL && errno == EPERM;
        _exit(none ? 0 : 1);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    cr_assert_eq(live_blocks(s), 1);
    stead_free(block);
    cr_assert_eq(live_blocks(s), 0);
    OK(stead_close(s));
}
