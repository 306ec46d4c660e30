/* Semaphore words: counts, timeouts, overflow, no unit lost or won by any number of users, some of them killed. */
#include "world.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lock/futex.h"
#include "lock/semaphore.h"

TestSuite(semaphore, .timeout = 120);

Test(semaphore, counts_tries_times_out_and_overflows)
{
    struct semaphore_words words;
    semaphore_format(&words, 2);
    cr_assert_eq(semaphore_value(&words), 2);
    OK(semaphore_wait(&words, 0));
    OK(semaphore_wait(&words, DEADLINE_NEVER));
    FAILS(EBUSY, semaphore_wait(&words, 0));
    int64_t begin = clock_ns();
    FAILS(ETIMEDOUT, semaphore_wait(&words, ms_from_now(20)));
    cr_assert(clock_ns() - begin >= 20000000);
    cr_assert_eq(words.word[1], 0, "nobody sleeps any more");
    OK(semaphore_signal(&words, 0));
    cr_assert_eq(semaphore_value(&words), 0);
    OK(semaphore_signal(&words, INT32_MAX));
    FAILS(EOVERFLOW, semaphore_signal(&words, 1));
    cr_assert_eq(semaphore_value(&words), INT32_MAX, "nothing happened");
    OK(semaphore_wait(&words, 0));
    OK(semaphore_signal(&words, 1));
    FAILS(EOVERFLOW, semaphore_signal(&words, UINT32_MAX));
}

/* board: 0.. the words, 8 taken, 9 to take in all */
static int taker(struct world *world, void *arg)
{
    (void)arg;
    struct semaphore_words *words = (void *)world->board;
    for (;;) {
        if (semaphore_wait(words, ms_from_now(SOON_MS)) != 0)
            return 1;
        if (atomic_fetch_add(&world->board[8], 1) >= atomic_load(&world->board[9]))
            return 0; /* a unit put to end it */
    }
}

Test(semaphore, every_unit_is_taken_once_across_processes)
{
    enum { TAKERS = 4, UNITS = 20000 };
    struct world world;
    world_make(&world);
    struct semaphore_words *words = (void *)world.board;
    semaphore_format(words, 0);
    atomic_store(&world.board[9], UNITS);
    pid_t pids[TAKERS];
    for (int i = 0; i < TAKERS; i++)
        pids[i] = world_fork(&world, NULL, taker, NULL);
    for (int i = 0; i < UNITS; i += 1 + i % 3)
        OK(semaphore_signal(words, (unsigned)(1 + i % 3 < UNITS - i ? 1 + i % 3 : UNITS - i)));
    cr_assert(board_await(&world.board[8], UNITS), "taken %llu", (unsigned long long)atomic_load(&world.board[8]));
    OK(semaphore_signal(words, TAKERS));
    for (int i = 0; i < TAKERS; i++)
        cr_assert_eq(world_wait(pids[i]), 0);
    cr_assert_eq(semaphore_value(words), 0);
    world_end(&world);
}

static int sleeper(struct world *world, void *arg)
{
    (void)arg;
    return semaphore_wait((void *)world->board, DEADLINE_NEVER);
}

/* So many sleep, or are on their last steps to it; those for which the pause is too short are just not chosen. */
static void sleepers_await(struct semaphore_words *words, uint32_t n)
{
    while (__atomic_load_n(&words->word[1], __ATOMIC_SEQ_CST) < n)
        sleep_ns(50000);
    sleep_ns(1000000);
}

/* Returns when it does stop: until then it could take what is signalled. */
static void stop(pid_t pid)
{
    int status;
    kill(pid, SIGSTOP);
    cr_assert_eq(waitpid(pid, &status, WUNTRACED), pid);
    cr_assert(WIFSTOPPED(status));
}

/* The units a killed sleeper was woken for go to the living (L31). */
Test(semaphore, killed_sleepers_take_nothing_away)
{
    struct world world;
    world_make(&world);
    struct semaphore_words *words = (void *)world.board;
    for (int round = 0; round < 20; round++) {
        semaphore_format(words, 0);
        pid_t doomed = world_fork(&world, NULL, sleeper, NULL);
        sleepers_await(words, 1);
        pid_t living = world_fork(&world, NULL, sleeper, NULL);
        sleepers_await(words, 2);
        stop(doomed); /* will be chosen, will not come */
        OK(semaphore_signal(words, 1));
        kill(doomed, SIGKILL);
        cr_assert_eq(world_wait(doomed), 1000 + SIGKILL);
        cr_assert_eq(world_wait(living), 0);
    }
    world_end(&world);
}
