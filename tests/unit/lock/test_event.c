/* Event words: manual reset, and the races of signal with reset and wait (L32, L33). */
#include "world.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>

#include "lock/futex.h"
#include "lock/semaphore.h"

TestSuite(event, .timeout = 120);

Test(event, stays_signaled_until_reset)
{
    struct event_words words;
    event_format(&words, false);
    cr_assert_not(event_is_signaled(&words));
    FAILS(EBUSY, event_wait(&words, 0));
    int64_t begin = clock_ns();
    FAILS(ETIMEDOUT, event_wait(&words, ms_from_now(20)));
    cr_assert(clock_ns() - begin >= 20000000);
    OK(event_signal(&words));
    OK(event_signal(&words));
    cr_assert(event_is_signaled(&words));
    OK(event_wait(&words, 0));
    OK(event_wait(&words, DEADLINE_NEVER));
    OK(event_reset(&words));
    OK(event_reset(&words));
    cr_assert_not(event_is_signaled(&words));
    FAILS(EBUSY, event_wait(&words, 0));
    event_format(&words, true);
    OK(event_wait(&words, 0));
}

struct pulse {
    struct event_words words;
    _Atomic unsigned waiting, released;
};

static void *wait_for_pulse(void *arg)
{
    struct pulse *pulse = arg;
    atomic_fetch_add(&pulse->waiting, 1);
    intptr_t rc = event_wait(&pulse->words, ms_from_now(SOON_MS));
    atomic_fetch_add(&pulse->released, 1);
    return (void *)rc;
}

/* L33: a signal with a reset right behind it still releases everybody who slept. */
Test(event, signal_and_reset_at_once_release_all_sleepers)
{
    enum { SLEEPERS = 8 };
    for (int round = 0; round < 50; round++) {
        struct pulse pulse = {.waiting = 0};
        event_format(&pulse.words, false);
        pthread_t threads[SLEEPERS];
        for (int i = 0; i < SLEEPERS; i++)
            cr_assert_eq(pthread_create(&threads[i], NULL, wait_for_pulse, &pulse), 0);
        while (__atomic_load_n(&pulse.words.word[1], __ATOMIC_SEQ_CST) < SLEEPERS)
            sleep_ns(50000);
        OK(event_signal(&pulse.words));
        OK(event_reset(&pulse.words));
        for (int i = 0; i < SLEEPERS; i++) {
            void *rc;
            pthread_join(threads[i], &rc);
            cr_assert_eq(rc, NULL);
        }
        cr_assert_eq(pulse.words.word[1], 0);
        FAILS(EBUSY, event_wait(&pulse.words, 0));
    }
}

static int wait_for_ever(struct world *world, void *arg)
{
    (void)arg;
    return event_wait((void *)world->board, DEADLINE_NEVER);
}

Test(event, works_across_processes_one_of_them_killed)
{
    struct world world;
    world_make(&world);
    struct event_words *words = (void *)world.board;
    event_format(words, false);
    pid_t doomed = world_fork(&world, NULL, wait_for_ever, NULL);
    pid_t living = world_fork(&world, NULL, wait_for_ever, NULL);
    while (__atomic_load_n(&words->word[1], __ATOMIC_SEQ_CST) < 2)
        sleep_ns(50000);
    kill(doomed, SIGKILL);
    cr_assert_eq(world_wait(doomed), 1000 + SIGKILL);
    OK(event_signal(words));
    cr_assert_eq(world_wait(living), 0);
    OK(event_reset(words));
    FAILS(ETIMEDOUT, event_wait(words, ms_from_now(5)));
    world_end(&world);
}
