/*
 * A thread that opens a store which another thread of its process is just opening, closing or abandoning waits for that, and
 * is told when it is over.
 *
 * Method: whoever opens or closes is stopped at its next durable write; who waits for it does so for ever, so that nothing but
 * being told ends the wait (else: the suite's timeout).
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "persist/file.h"
#include "support/support.h"

static void teardown(void)
{
    file_calls = file_calls_system;
    support_teardown();
}

TestSuite(phases, .init = support_setup, .fini = teardown, .timeout = 120);

enum { WAY_FREE, WAY_SHUT, SOMEBODY_STANDS };
static _Atomic int way;
static _Atomic bool write_fails;

static ssize_t stopping_pwrite_durable(int fd, const void *buffer, size_t bytes, off_t offset)
{
    int shut = WAY_SHUT;
    if (atomic_compare_exchange_strong(&way, &shut, SOMEBODY_STANDS))
        while (atomic_load(&way) == SOMEBODY_STANDS)
            pause_ms(1);
    if (atomic_load(&write_fails)) {
        errno = EIO;
        return -1;
    }
    return file_calls_system.pwrite_durable(fd, buffer, bytes, offset);
}

static void shut_the_way(void)
{
    atomic_store(&way, WAY_SHUT);
    file_calls.pwrite_durable = stopping_pwrite_durable;
}

static void await_somebody(void)
{
    for (unsigned ms = 0; atomic_load(&way) != SOMEBODY_STANDS; ms++) {
        cr_assert_lt(ms, SOON_MS, "no durable write was made");
        pause_ms(1);
    }
}

struct opener {
    pthread_t thread;
    _Atomic pid_t tid;
    stead_options options;
    stead *store;
    int result;
};

static void *opener_main(void *arg)
{
    struct opener *opener = arg;
    atomic_store(&opener->tid, gettid());
    opener->result = stead_open(&opener->store, path_in("s"), &opener->options);
    return NULL;
}

static void opener_start(struct opener *opener, stead_options options)
{
    *opener = (struct opener){.options = options};
    cr_assert_eq(pthread_create(&opener->thread, NULL, opener_main, opener), 0);
    while (atomic_load(&opener->tid) == 0)
        pause_ms(1);
}

static void opener_start_in_vain(struct opener *opener, stead_options options)
{
    opener_start(opener, options);
    await_sleeping(atomic_load(&opener->tid));
}

static const stead_options patient = {.sharing = STEAD_TURNS, .timeout_ms = -1};

static stead *open_with_root(void)
{
    stead *s;
    void *root;
    OK(stead_open(&s, path_in("s"), &patient));
    OK(stead_root_once(s, 64, NULL, NULL, &root));
    return s;
}

static void *close_main(void *arg)
{
    return (void *)(intptr_t)stead_close(arg);
}

/* Returns what the close said. */
static int open_beside_a_close(bool fails, stead *s, struct opener *opener)
{
    pthread_t closer;
    void *closed;
    shut_the_way();
    cr_assert_eq(pthread_create(&closer, NULL, close_main, s), 0);
    await_somebody();
    opener_start_in_vain(opener, patient);
    atomic_store(&write_fails, fails);
    atomic_store(&way, WAY_FREE);
    cr_assert_eq(pthread_join(closer, &closed), 0);
    cr_assert_eq(pthread_join(opener->thread, NULL), 0);
    file_calls = file_calls_system;
    atomic_store(&write_fails, false);
    return (int)(intptr_t)closed;
}

Test(phases, an_open_beside_a_close_opens_anew)
{
    struct opener opener;
    OK(open_beside_a_close(false, open_with_root(), &opener));
    OK(opener.result);
    cr_assert_not_null(stead_root(opener.store));
    OK(stead_close(opener.store));
}

Test(phases, an_open_beside_a_close_that_fails_is_a_handle_of_the_same_store)
{
    struct opener opener;
    stead *s = open_with_root();
    cr_assert_neq(open_beside_a_close(true, s, &opener), 0, "every write failed");
    OK(opener.result);
    cr_assert_eq(opener.store, s);
    OK(stead_close(s)); /* one of two */
    stead_abandon(s);
    OK(stead_open(&s, path_in("s"), &patient));
    cr_assert_not_null(stead_root(s));
    OK(stead_close(s));
}

Test(phases, an_open_beside_an_open_waits_for_it)
{
    struct opener first, second;
    OK(stead_close(open_with_root()));
    shut_the_way();
    opener_start(&first, patient);
    await_somebody();
    opener_start_in_vain(&second, patient);
    atomic_store(&way, WAY_FREE);
    cr_assert_eq(pthread_join(first.thread, NULL), 0);
    cr_assert_eq(pthread_join(second.thread, NULL), 0);
    OK(first.result);
    OK(second.result);
    cr_assert_eq(first.store, second.store);
    OK(stead_close(first.store));
    OK(stead_close(second.store));
}

/* It looks at the layout, for which it waits for the lock. */
Test(phases, an_open_is_sent_away_by_abandon_and_opens_anew)
{
    struct opener opener;
    stead_options options = {.sharing = STEAD_SOLE, .timeout_ms = -1, .layout = {.name = "layout", .version = 1}};
    stead *s;
    OK(stead_open(&s, path_in("s"), &options));
    OK(stead_lock(s, STEAD_EXCLUSIVE, 0));
    opener_start_in_vain(&opener, options);
    stead_abandon(s);
    cr_assert_eq(pthread_join(opener.thread, NULL), 0);
    cr_assert(opener.result == 0 || opener.result == ECANCELED, "%d", opener.result);
    if (opener.result == 0)
        OK(stead_close(opener.store));
    OK(stead_open(&s, path_in("s"), &options));
    OK(stead_close(s));
}

/* Who begins to wait for the lock while a close that was not refused commits. */
static struct {
    stead *store;
    pthread_t thread;
    _Atomic pid_t tid;
    _Atomic bool is_to_come, may_go;
} comer;

static void *come_and_hold(void *arg)
{
    (void)arg;
    atomic_store(&comer.tid, gettid());
    OK(stead_lock(comer.store, STEAD_EXCLUSIVE, -1));
    while (!atomic_load(&comer.may_go))
        pause_ms(1);
    OK(stead_unlock(comer.store));
    return NULL;
}

static void let_come(void)
{
    if (atomic_exchange(&comer.is_to_come, false)) {
        cr_assert_eq(pthread_create(&comer.thread, NULL, come_and_hold, NULL), 0);
        while (atomic_load(&comer.tid) == 0)
            pause_ms(1);
        await_sleeping(atomic_load(&comer.tid));
    }
}

/* A commit reaches the disk by the one or the other, as the file system can. */
static int fdatasync_beside_a_comer(int fd)
{
    let_come();
    return file_calls_system.fdatasync(fd);
}

static ssize_t durable_write_beside_a_comer(int fd, const void *buffer, size_t bytes, off_t offset)
{
    let_come();
    return file_calls_system.pwrite_durable(fd, buffer, bytes, offset);
}

Test(phases, a_close_is_refused_if_a_thread_came_to_wait_while_it_committed)
{
    stead *s;
    void *root;
    OK(stead_open(&s, path_in("s"), NULL));
    OK(stead_root_once(s, 64, NULL, NULL, &root));
    *(int *)root = 1;
    comer.store = s;
    comer.is_to_come = true;
    file_calls.fdatasync = fdatasync_beside_a_comer;
    file_calls.pwrite_durable = durable_write_beside_a_comer;
    FAILS(stead_close(s), EBUSY);
    file_calls = file_calls_system;
    cr_assert_not(comer.is_to_come, "the close committed nothing: this proves nothing");
    atomic_store(&comer.may_go, true);
    cr_assert_eq(pthread_join(comer.thread, NULL), 0);
    OK(stead_close(s));
}
