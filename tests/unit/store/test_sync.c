/* Semaphores and events where somebody or something else gets in the way. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/support.h"

TestSuite(sync, .init = support_setup, .fini = support_teardown, .timeout = 300);

static void ask_for_the_fifo(void *arg)
{
    unsigned value;
    stead_event *event;
    alarm(SOON_MS / 1000);
    CHILD(stead_sync_value(arg, "event", &value) == STEAD_CORRUPT);
    CHILD(stead_event_open(&event, arg, false) == STEAD_CORRUPT);
}

Test(sync, a_fifo_in_the_place_of_an_event_makes_nobody_wait)
{
    char name[64], path[128];
    snprintf(name, sizeof name, "test-fifo-%d", (int)getpid());
    snprintf(path, sizeof path, "/dev/shm/stead-event.%s", name);
    cr_assert_eq(mkfifo(path, 0600), 0);
    int code = reap(spawn(ask_for_the_fifo, name));
    unlink(path);
    cr_assert_eq(code, 0);
}

Test(sync, in_a_store_opened_read_only_they_are_refused)
{
    stead *s;
    struct both {
        stead_semaphore semaphore;
        stead_event event;
    };
    OK(stead_open(&s, path_in("s"), &(stead_options){.sharing = STEAD_LIVE}));
    struct both *both = stead_calloc(s, 1, sizeof *both);
    OK(stead_semaphore_init(&both->semaphore));
    OK(stead_event_init(&both->event));
    OK(stead_semaphore_signal(&both->semaphore, 1));
    OK(stead_set_root(s, both));
    OK(stead_close(s));
    OK(stead_open(&s, path_in("s"), &(stead_options){.flags = STEAD_READ_ONLY}));
    both = stead_root(s);
    FAILS(stead_semaphore_wait(&both->semaphore, 0), EPERM);
    FAILS(stead_semaphore_wait(&both->semaphore, 20), EPERM);
    FAILS(stead_semaphore_signal(&both->semaphore, 1), EPERM);
    FAILS(stead_semaphore_init(&both->semaphore), EPERM);
    FAILS(stead_event_wait(&both->event, 20), EPERM);
    FAILS(stead_event_signal(&both->event), EPERM);
    FAILS(stead_event_reset(&both->event), EPERM);
    FAILS(stead_event_init(&both->event), EPERM);
    OK(stead_close(s));
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* their own malloc hangs in such a child */
static void *open_and_close(void *arg)
{
    atomic_bool *stop = arg;
    stead_semaphore *semaphore;
    while (!atomic_load(stop) && stead_semaphore_open(&semaphore, NULL, 0) == 0 &&
           stead_semaphore_close(semaphore) == 0)
        continue;
    return NULL;
}

static void open_in_child(void *arg)
{
    stead_semaphore *semaphore;
    (void)arg;
    alarm(SOON_MS / 1000);
    CHILD(stead_semaphore_open(&semaphore, NULL, 0) == 0);
    CHILD(stead_semaphore_close(semaphore) == 0);
}

Test(sync, a_fork_beside_an_open_leaves_the_child_free_to_open)
{
    atomic_bool stop = false;
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, open_and_close, &stop), 0);
    for (unsigned i = 0; i < (test_long() ? 20000 : 1000); i++)
        REAP_OK(spawn(open_in_child, NULL));
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
}
#endif
