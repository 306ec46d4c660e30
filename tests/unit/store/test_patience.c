/*
 * How long opening and closing wait: options.timeout_ms is all that they wait, and who would not wait waits for
 * somebody else's opening only for a while.
 *
 * Method: a thread holds the gate byte, as an opener that takes long would (kernel locks are those of a descriptor, so it
 * need not be a process), until the call is over; but not for ever: a call that waits too long gets the gate in the
 * end, does its work, and gives the wrong answer.  That end is far off: the calling thread may stand still for a while
 * without being to blame.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "base/deadline.h"
#include "lock/bytes.h"
#include "support/support.h"

TestSuite(patience, .init = support_setup, .fini = support_teardown, .timeout = 300);

#define LONG_MS 4500 /* more than PATIENCE_MS of attach.c, less than the five seconds it once was */
#define TRIES_MAX 10 /* for a call that the machine let stand still */

struct gate {
    int fd;
    int held_ms; /* at most */
    _Atomic bool over;
    pthread_t thread;
};

static void *hold(void *arg)
{
    struct gate *gate = arg;
    for (int ms = 0; ms < gate->held_ms && !atomic_load(&gate->over); ms += 10)
        pause_ms(10);
    (void)lock_byte_drop(gate->fd, LOCK_BYTE_GATE);
    return NULL;
}

static void gate_shut(struct gate *gate, const char *path, int held_ms)
{
    *gate = (struct gate){.fd = open(path, O_RDWR | O_CLOEXEC), .held_ms = held_ms};
    cr_assert_geq(gate->fd, 0);
    OK(lock_byte_take(gate->fd, LOCK_BYTE_GATE, LOCK_BYTE_WRITE, 0));
    cr_assert_eq(pthread_create(&gate->thread, NULL, hold, gate), 0);
}

static void gate_open(struct gate *gate)
{
    atomic_store(&gate->over, true);
    cr_assert_eq(pthread_join(gate->thread, NULL), 0);
    close(gate->fd);
}

Test(patience, an_open_waits_for_the_gate_as_long_as_it_was_told)
{
    stead *s;
    struct gate gate;
    OK(stead_open(&s, path_in("s"), NULL));
    OK(stead_close(s));
    gate_shut(&gate, path_in("s"), SOON_MS);
    FAILS(stead_open(&s, path_in("s"), &(stead_options){.timeout_ms = 200}), ETIMEDOUT);
    gate_open(&gate);
    OK(stead_open(&s, path_in("s"), &(stead_options){.timeout_ms = SOON_MS}));
    OK(stead_close(s));
}

Test(patience, an_open_that_would_not_wait_waits_a_little_for_the_gate)
{
    stead *s;
    struct gate gate;
    OK(stead_open(&s, path_in("s"), NULL));
    OK(stead_close(s));
    gate_shut(&gate, path_in("s"), TRIES_MAX * SOON_MS);
    int64_t took_ns = INT64_MAX;
    for (unsigned tries = 0; took_ns > INT64_C(1000000) * LONG_MS; tries++) {
        cr_assert_lt(tries, TRIES_MAX, "it waited for %lld ms", (long long)took_ns / 1000000);
        int64_t begun_ns = clock_ns();
        FAILS(stead_open(&s, path_in("s"), NULL), EBUSY);
        took_ns = clock_ns() - begun_ns;
    }
    gate_open(&gate);
    OK(stead_open(&s, path_in("s"), NULL));
    OK(stead_close(s));
}

Test(patience, a_close_that_is_not_let_in_leaves_the_log_and_succeeds)
{
    stead *s;
    void *root;
    struct gate gate;
    OK(stead_open(&s, path_in("s"), &(stead_options){.timeout_ms = 200}));
    OK(stead_root_once(s, 64, NULL, NULL, &root));
    gate_shut(&gate, path_in("s"), SOON_MS);
    OK(stead_close(s));
    cr_assert_eq(access(path_in("s-wal"), F_OK), 0, "it waited longer than it was told, and sealed the store");
    gate_open(&gate);
    OK(stead_open(&s, path_in("s"), NULL));
    cr_assert_neq(stead_root(s), NULL);
    OK(stead_close(s));
}

/* LIVE has no log that could wait for the next opener. */
Test(patience, a_live_close_that_is_not_let_in_says_so_and_may_be_tried_again)
{
    const stead_options live = {.sharing = STEAD_LIVE, .timeout_ms = 20};
    stead *s;
    OK(stead_open(&s, path_in("s"), &live));
    int fd = open(path_in("s"), O_RDWR | O_CLOEXEC);
    cr_assert_geq(fd, 0);
    OK(lock_byte_take(fd, LOCK_BYTE_GATE, LOCK_BYTE_WRITE, 0));
    FAILS(stead_close(s), ETIMEDOUT);
    cr_assert_not_null(stead_malloc(s, 100));
    close(fd);
    OK(stead_close(s));
    OK(stead_open(&s, path_in("s"), &live));
    OK(stead_close(s));
}

/* As a section of a reader without write permission holds off whoever would change the file: whether the close waits for it a
 * little or not at all, that is no failure of it. */
Test(patience, a_close_that_a_readers_section_holds_off_leaves_the_log_and_succeeds)
{
    for (unsigned way = 0; way < 4; way++) {
        const stead_options options = {.sharing = way % 2 == 0 ? STEAD_SOLE : STEAD_TURNS,
                                       .timeout_ms = way / 2 == 0 ? 0 : 20};
        stead *s;
        void *root;
        OK(stead_open(&s, path_in("s"), &options));
        OK(stead_root_once(s, 64, NULL, NULL, &root));
        int fd = open(path_in("s"), O_RDWR | O_CLOEXEC);
        cr_assert_geq(fd, 0);
        OK(lock_byte_take(fd, LOCK_BYTE_APPLY, LOCK_BYTE_READ, 0));
        OK(stead_close(s));
        cr_assert_eq(access(path_in("s-wal"), F_OK), 0, "way %u: it did not wait for the section", way);
        close(fd);
        OK(stead_open(&s, path_in("s"), &options));
        cr_assert_not_null(stead_root(s));
        OK(stead_close(s));
        OK(stead_remove(path_in("s")));
    }
}

Test(patience, waiting_for_ever_is_for_ever)
{
    stead *s;
    struct gate gate;
    OK(stead_open(&s, path_in("s"), NULL));
    OK(stead_close(s));
    gate_shut(&gate, path_in("s"), LONG_MS);
    OK(stead_open(&s, path_in("s"), &(stead_options){.timeout_ms = -1})); /* when the gate is dropped by itself */
    OK(stead_close(s));
    gate_open(&gate);
}
