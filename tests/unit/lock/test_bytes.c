/* Byte locks: who shuts out whom, and that only the kernel's end of a description frees them. */
#include "world.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "lock/bytes.h"
#include "lock/futex.h"

TestSuite(bytes, .timeout = 120);

struct pair {
    struct world world;
    int a, b; /* two descriptions of the file, as of two processes */
};

static int again(int fd, int flags)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return open(path, flags | O_CLOEXEC);
}

static void pair_make(struct pair *pair)
{
    world_make(&pair->world);
    pair->a = again(pair->world.fd, O_RDWR);
    pair->b = again(pair->world.fd, O_RDWR);
    cr_assert(pair->a >= 0 && pair->b >= 0);
}

static void pair_end(struct pair *pair)
{
    close(pair->a);
    close(pair->b);
    world_end(&pair->world);
}

Test(bytes, writers_exclude_readers_share)
{
    struct pair pair;
    pair_make(&pair);
    OK(lock_byte_take(pair.a, LOCK_BYTE_APPLY, LOCK_BYTE_READ, 0));
    OK(lock_byte_take(pair.b, LOCK_BYTE_APPLY, LOCK_BYTE_READ, 0));
    cr_assert(lock_byte_taken(pair.a, LOCK_BYTE_APPLY, 1));
    FAILS(EBUSY, lock_byte_take(pair.a, LOCK_BYTE_APPLY, LOCK_BYTE_WRITE, 0));
    int64_t begin = clock_ns();
    FAILS(ETIMEDOUT, lock_byte_take(pair.a, LOCK_BYTE_APPLY, LOCK_BYTE_WRITE, ms_from_now(20)));
    cr_assert(clock_ns() - begin >= 20000000);
    OK(lock_byte_drop(pair.b, LOCK_BYTE_APPLY));
    cr_assert_not(lock_byte_taken(pair.a, LOCK_BYTE_APPLY, 1), "one's own lock is no obstacle");
    OK(lock_byte_take(pair.a, LOCK_BYTE_APPLY, LOCK_BYTE_WRITE, 0));
    FAILS(EBUSY, lock_byte_take(pair.b, LOCK_BYTE_APPLY, LOCK_BYTE_READ, 0));
    OK(lock_byte_take(pair.b, LOCK_BYTE_SOLE, LOCK_BYTE_WRITE, 0)); /* neighbours are other locks */
    cr_assert(lock_byte_taken(pair.b, LOCK_BYTE_GATE, 6));
    pair_end(&pair);
}

Test(bytes, closing_another_descriptor_drops_nothing)
{
    struct pair pair;
    pair_make(&pair);
    OK(lock_byte_take(pair.a, LOCK_BYTE_SOLE, LOCK_BYTE_WRITE, 0));
    int c = again(pair.world.fd, O_RDWR);
    close(c);
    cr_assert(lock_byte_taken(pair.b, LOCK_BYTE_SOLE, 1));
    int d = dup(pair.a); /* the same description: the lock ends with the last of them */
    close(pair.a);
    cr_assert(lock_byte_taken(pair.b, LOCK_BYTE_SOLE, 1));
    close(d);
    cr_assert_not(lock_byte_taken(pair.b, LOCK_BYTE_SOLE, 1));
    pair.a = again(pair.world.fd, O_RDWR);
    pair_end(&pair);
}

static int hold_for_ever(struct world *world, void *arg)
{
    (void)arg;
    int fd = again(world->fd, O_RDWR);
    if (lock_byte_take(fd, LOCK_BYTE_APPLY, LOCK_BYTE_WRITE, 0) != 0)
        return 1;
    atomic_store(&world->board[0], 1);
    for (;;)
        sleep_ns(1000000000);
}

Test(bytes, a_waiter_gets_what_a_killed_process_held)
{
    struct pair pair;
    pair_make(&pair);
    pid_t child = world_fork(&pair.world, NULL, hold_for_ever, NULL);
    cr_assert(board_await(&pair.world.board[0], 1));
    FAILS(EBUSY, lock_byte_take(pair.a, LOCK_BYTE_APPLY, LOCK_BYTE_READ, 0));
    kill(child, SIGKILL);
    OK(lock_byte_take(pair.a, LOCK_BYTE_APPLY, LOCK_BYTE_WRITE, ms_from_now(SOON_MS)));
    cr_assert_eq(world_wait(child), 1000 + SIGKILL);
    pair_end(&pair);
}

Test(bytes, a_mode_the_descriptor_does_not_allow_is_an_error)
{
    struct pair pair;
    pair_make(&pair);
    int reader = again(pair.world.fd, O_RDONLY);
    cr_assert(reader >= 0);
    FAILS(EBADF, lock_byte_take(reader, LOCK_BYTE_APPLY, LOCK_BYTE_WRITE, ms_from_now(SOON_MS)));
    cr_assert(error_last() == EBADF);
    OK(lock_byte_take(reader, LOCK_BYTE_APPLY, LOCK_BYTE_READ, 0));
    close(reader);
    pair_end(&pair);
}
