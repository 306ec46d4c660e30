/* Sleeping until a commit number changes (store/lock_unit.c): nobody sleeps through a change, though nobody is woken where nobody
 * says that he sleeps.
 * Method: sleepers and a publisher in lock-step on bare words, with sleeps without end: one wake too few, and the test hangs until
 * its timeout. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/deadline.h"
#include "store/lock_unit.h"
#include "support/support.h"

TestSuite(change, .init = support_setup, .fini = support_teardown, .timeout = 300);

enum { SLEEPERS = 3, CHANGES = 400 };

struct words {
    _Atomic uint64_t seq;
    _Atomic uint32_t futex, sleepers;
    _Atomic bool leaving;
    _Atomic uint64_t awake; /* how often anybody saw a change */
    int rc[SLEEPERS];
};

struct sleeper {
    struct words *words;
    unsigned number;
};

static void *sleep_through_all(void *arg)
{
    const struct sleeper *self = arg;
    struct words *words = self->words;
    int rc = 0;
    for (uint64_t since = 0; rc == 0 && since < CHANGES; since++) {
        rc = change_wait(&words->seq, &words->futex, &words->sleepers, since, DEADLINE_NEVER, &words->leaving);
        atomic_fetch_add(&words->awake, 1);
    }
    words->rc[self->number] = rc;
    atomic_fetch_add(&words->awake, rc != 0 ? CHANGES : 0); /* the publisher need not wait for the rest */
    return NULL;
}

/* K1.  Each change comes at another moment of the sleepers' way to sleep, as the publisher idles a little longer each time. */
Test(change, nobody_sleeps_through_one)
{
    struct words words = {0};
    struct sleeper sleeper[SLEEPERS];
    pthread_t thread[SLEEPERS];
    for (unsigned i = 0; i < SLEEPERS; i++) {
        sleeper[i] = (struct sleeper){.words = &words, .number = i};
        cr_assert_eq(pthread_create(&thread[i], NULL, sleep_through_all, &sleeper[i]), 0);
    }
    for (uint64_t seq = 1; seq <= CHANGES; seq++) {
        while (atomic_load(&words.awake) < (seq - 1) * SLEEPERS)
            sched_yield();
        for (volatile unsigned idle = 0; idle < seq * 7 % 2000; idle++) {}
        change_publish(&words.seq, &words.futex, &words.sleepers, seq);
    }
    for (unsigned i = 0; i < SLEEPERS; i++) {
        pthread_join(thread[i], NULL);
        cr_assert_eq(words.rc[i], 0, "sleeper %u: %d", i, words.rc[i]);
    }
}

/* The same words, where sleepers cannot say so (readers without write permission). */
static void *sleep_silently(void *arg)
{
    struct words *words = arg;
    for (uint64_t since = 0; words->rc[0] == 0 && since < CHANGES; since++) {
        words->rc[0] = change_wait(&words->seq, &words->futex, NULL, since, DEADLINE_NEVER, &words->leaving);
        atomic_fetch_add(&words->awake, 1);
    }
    atomic_fetch_add(&words->awake, words->rc[0] != 0 ? CHANGES : 0);
    return NULL;
}

Test(change, who_cannot_say_that_he_sleeps_is_woken_all_the_same)
{
    struct words words = {0};
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, sleep_silently, &words), 0);
    for (uint64_t seq = 1; seq <= CHANGES; seq++) {
        while (atomic_load(&words.awake) < seq - 1)
            sched_yield();
        for (volatile unsigned idle = 0; idle < seq * 7 % 2000; idle++) {}
        change_publish(&words.seq, &words.futex, NULL, seq);
    }
    pthread_join(thread, NULL);
    cr_assert_eq(words.rc[0], 0, "%d", words.rc[0]);
    cr_assert_eq(atomic_load(&words.sleepers), 0);
}

/* A sleeper that was killed stays counted: it costs wakes in vain, and nothing else. */
Test(change, a_dead_sleeper_keeps_nobody_asleep)
{
    struct words words = {.sleepers = 1};
    change_publish(&words.seq, &words.futex, &words.sleepers, 1);
    cr_assert_eq(change_wait(&words.seq, &words.futex, &words.sleepers, 0, 0, &words.leaving), 0);
    cr_assert_eq(change_wait(&words.seq, &words.futex, &words.sleepers, 1, 0, &words.leaving), EBUSY);
    cr_assert_eq(atomic_load(&words.sleepers), 1);
}
