/*
 * test_view.c -- sections of several threads of one reading process: they share a view, and it does not stand still for
 * ever because one of them is always in (V7 in store/reader.c).
 *
 * The reader is the test's own process, the writer a child that does what it is told to, one word at a time.  A reader that
 * came before the writer has no slot, one that came after has.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "lock/bytes.h"
#include "store/store.h"
#include "support/support.h"

#define LONG_NS INT64_C(300000000000)
#define ROUND_MS 2
#define ROUNDS_MAX (2 * SOON_MS / ROUND_MS) /* of each thread */

enum { STEP, DONE, WORD_COUNT };

struct writer {
    const char *path;
    stead *inherited;
    stead_sharing sharing;
    volatile uint32_t *words;
    pid_t pid;
};

static struct writer writer;
static stead *reader;

static void start_with(void)
{
    support_setup();
    store_view_patience_ns = LONG_NS;
}

TestSuite(view, .init = start_with, .fini = support_teardown, .timeout = 300);

/* Sets root[0] to each step's number and makes it durable; the last step closes. */
static void write_as_told(void *arg)
{
    struct writer *w = arg;
    stead *s;
    CHILD(w->inherited == NULL || stead_close(w->inherited) == 0);
    CHILD(stead_open(&s, w->path, &(stead_options){.sharing = w->sharing, .timeout_ms = SOON_MS}) == 0);
    w->words[DONE] = 1;
    for (uint32_t step = 2;; step++) {
        CHILD(await(w->words + STEP, step));
        if (w->words[STEP] == UINT32_MAX)
            break;
        CHILD(stead_lock(s, STEAD_EXCLUSIVE, SOON_MS) == 0);
        *(uint64_t *)stead_root(s) = step;
        CHILD(stead_unlock(s) == 0);
        CHILD(stead_commit(s, STEAD_DURABLE) == 0);
        w->words[DONE] = step;
    }
    CHILD(stead_close(s) == 0);
}

static void open_reader_now(void)
{
    OK(stead_open(&reader, writer.path, &(stead_options){.flags = STEAD_READ_ONLY, .timeout_ms = SOON_MS}));
}

static void start(stead_sharing sharing, bool slot)
{
    stead *s;
    void *root;
    writer = (struct writer){.path = path_in("s"), .sharing = sharing, .words = shared_words(WORD_COUNT)};
    OK(stead_open(&s, writer.path, &(stead_options){.sharing = sharing}));
    OK(stead_root_once(s, 64, NULL, NULL, &root));
    OK(stead_close(s));
    if (!slot)
        open_reader_now();
    writer.inherited = slot ? NULL : reader;
    writer.pid = spawn(write_as_told, &writer);
    cr_assert(await(writer.words + DONE, 1));
    if (slot)
        open_reader_now();
}

static void tell(uint32_t step)
{
    writer.words[STEP] = step;
    if (step != UINT32_MAX)
        cr_assert(await(writer.words + DONE, step));
}

static void finish(void)
{
    tell(UINT32_MAX);
    REAP_OK(writer.pid);
    OK(stead_close(reader));
    OK(stead_remove(writer.path));
}

static uint64_t look(int timeout_ms)
{
    OK(stead_lock(reader, STEAD_SHARED, timeout_ms));
    uint64_t number = *(const uint64_t *)stead_root(reader);
    OK(stead_unlock(reader));
    return number;
}

static void *look_later(void *number)
{
    *(uint64_t *)number = look(-1);
    return NULL;
}

static pthread_t start_thread(void *(*run)(void *), void *arg)
{
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, run, arg), 0);
    return thread;
}

Test(view, a_section_beside_another_waits_for_it_and_sees_what_was_committed)
{
    for (unsigned n = 0; n < 4; n++) {
        uint64_t number = 0;
        start((stead_sharing)(n / 2), n % 2 != 0);
        OK(stead_lock(reader, STEAD_SHARED, -1));
        uint64_t held = *(const uint64_t *)stead_root(reader);
        cr_assert_eq(held, 0);
        tell(2);
        pthread_t thread = start_thread(look_later, &number);
        usleep(20000); /* it waits by now, most likely */
        cr_assert_eq(*(const uint64_t *)stead_root(reader), held, "a section sees one commit");
        OK(stead_unlock(reader));
        cr_assert_eq(pthread_join(thread, NULL), 0);
        cr_assert_eq(number, 2, "mode %u, slot %u", n / 2, n % 2);
        finish();
    }
}

Test(view, who_will_not_or_cannot_wait_longer_goes_in_beside_the_others)
{
    for (unsigned n = 0; n < 4; n++) {
        uint64_t number = 9;
        start((stead_sharing)(n / 2), n % 2 != 0);
        OK(stead_lock(reader, STEAD_SHARED, -1));
        tell(2);
        OK(stead_lock(reader, STEAD_SHARED, -1)); /* a level inside: no new section */
        OK(stead_unlock(reader));
        store_view_patience_ns = 1000000;
        int64_t begin = clock_ns();
        pthread_join(start_thread(look_later, &number), NULL);
        const struct reader_turn *turn = &((const struct stead *)reader)->reader_turn;
        cr_assert_geq(turn->rest_until_ns, begin + (1 + 9) * store_view_patience_ns, "others need not wait, for long");
        cr_assert_eq(turn->patience_ns, 2 * store_view_patience_ns, "the next attempt has more");
        cr_assert_eq(number, 0, "the view of the section that has not ended");
        store_view_patience_ns = LONG_NS;
        OK(stead_unlock(reader));
        cr_assert_eq(look(0), 2);
        finish();
    }
}

static _Atomic bool stop;
static _Atomic uint64_t newest;

enum { THREADS = 4 };

/* Always one of them in: each begins while others are inside. */
static void *look_all_the_time(void *arg)
{
    for (unsigned round = 0; round < ROUNDS_MAX && !stop; round++) {
        OK(stead_lock(reader, STEAD_SHARED, -1));
        uint64_t number = *(const volatile uint64_t *)stead_root(reader), before = newest;
        while (before < number && !atomic_compare_exchange_weak(&newest, &before, number)) {}
        pause_ms(ROUND_MS);
        OK(stead_unlock(reader));
    }
    return arg;
}

static void overlap(pthread_t thread[THREADS])
{
    stop = false;
    newest = 0;
    for (int i = 0; i < THREADS; i++) {
        thread[i] = start_thread(look_all_the_time, NULL);
        usleep(ROUND_MS * 1000 / THREADS);
    }
}

static void end_overlap(pthread_t thread[THREADS])
{
    stop = true;
    for (int i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_join(thread[i], NULL), 0);
}

Test(view, sections_that_overlap_without_end_go_on_to_the_next_commit)
{
    for (unsigned n = 0; n < 4; n++) {
        pthread_t thread[THREADS];
        start((stead_sharing)(n / 2), n % 2 != 0);
        overlap(thread);
        for (uint32_t step = 2; step < 6; step++) {
            tell(step);
            for (unsigned round = 0; round < SOON_MS / ROUND_MS && newest < step; round++)
                pause_ms(ROUND_MS);
            cr_assert_eq(newest, step, "mode %u, slot %u", n / 2, n % 2);
        }
        end_overlap(thread);
        finish();
    }
}

/* Without a slot they share byte APPLY, for which a close and LIVE writers wait. */
Test(view, sections_that_overlap_without_end_let_a_writer_pass)
{
    for (unsigned n = 0; n < 2; n++) {
        char log[600];
        pthread_t thread[THREADS];
        start(n == 0 ? STEAD_SOLE : STEAD_LIVE, false);
        (void)snprintf(log, sizeof log, "%s-wal", writer.path);
        overlap(thread);
        tell(2); /* LIVE: it waits for byte APPLY */
        tell(UINT32_MAX);
        REAP_OK(writer.pid);
        cr_assert_neq(access(log, F_OK), 0, "the close waited for the readers and left the log in the end");
        end_overlap(thread);
        OK(stead_close(reader));
        OK(stead_remove(writer.path));
    }
}

static void *expect_cancelled(void *arg)
{
    FAILS(stead_lock(reader, STEAD_SHARED, -1), ECANCELED);
    return arg;
}

Test(view, who_waits_for_the_others_is_sent_away_by_abandon)
{
    start(STEAD_SOLE, true);
    OK(stead_lock(reader, STEAD_SHARED, -1));
    tell(2);
    pthread_t thread = start_thread(expect_cancelled, NULL);
    while (atomic_load(&reader->calls) == 0) /* in the call, or its caller would have no store left */
        usleep(1000);
    usleep(20000);
    stead_abandon(reader);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    tell(UINT32_MAX);
    REAP_OK(writer.pid);
    OK(stead_remove(writer.path));
}

static void commit_and_die(void *path)
{
    stead *s;
    CHILD(stead_open(&s, path, NULL) == 0);
    *(uint64_t *)stead_root(s) = 7;
    CHILD(stead_commit(s, STEAD_DURABLE) == 0);
    raise(SIGKILL);
}

/* The view of a crashed store that nobody recovers cannot change, whatever its dead writer left in the words. */
Test(view, a_section_beside_another_does_not_wait_where_nothing_can_come)
{
    uint64_t number = 0;
    start(STEAD_SOLE, false);
    finish();
    stead *s;
    void *root;
    OK(stead_open(&s, writer.path, NULL));
    OK(stead_root_once(s, 64, NULL, NULL, &root));
    OK(stead_close(s));
    cr_assert_eq(reap(spawn(commit_and_die, (void *)(uintptr_t)writer.path)), 128 + SIGKILL);
    open_reader_now();
    OK(stead_lock(reader, STEAD_SHARED, -1));
    pthread_join(start_thread(look_later, &number), NULL);
    cr_assert_eq(number, 7);
    OK(stead_unlock(reader));
    OK(stead_close(reader));
}

static void *share_and_end(void *arg)
{
    OK(stead_lock(reader, STEAD_SHARED, -1));
    return arg;
}

Test(view, a_thread_that_ends_in_its_section_lets_the_file_go)
{
    for (unsigned slot = 0; slot <= 1; slot++) {
        start(STEAD_SOLE, slot != 0);
        pthread_join(start_thread(share_and_end, NULL), NULL);
        int fd = open(writer.path, O_RDWR);
        cr_assert_geq(fd, 0);
        cr_assert_not(lock_byte_taken(fd, LOCK_BYTE_APPLY, 1), "the section has ended with its thread");
        close(fd);
        tell(2);
        cr_assert_eq(look(-1), 2);
        finish();
    }
}

#define TRIERS 3
#define TRIES 1500

static void *try_often(void *refused)
{
    for (int i = 0; i < TRIES; i++) {
        int rc = stead_lock(reader, STEAD_SHARED, 0);
        if (rc == 0)
            OK(stead_unlock(reader));
        else
            atomic_fetch_add((_Atomic unsigned *)refused, 1);
    }
    return NULL;
}

/* Nobody owns the lock: a try must not find it busy because another thread's section begins or ends this moment. */
static void a_try_is_granted_beside_others(bool slot)
{
    pthread_t thread[TRIERS];
    _Atomic unsigned refused = 0;
    start(STEAD_SOLE, slot);
    for (int i = 0; i < TRIERS; i++)
        cr_assert_eq(pthread_create(&thread[i], NULL, try_often, &refused), 0);
    for (int i = 0; i < TRIERS; i++)
        pthread_join(thread[i], NULL);
    cr_assert_eq(refused, 0, "%u of %d tries", refused, TRIERS * TRIES);
    finish();
}

Test(view, a_try_is_granted_beside_other_threads)
{
    a_try_is_granted_beside_others(true);
}
Test(view, a_try_is_granted_beside_other_threads_without_a_slot)
{
    a_try_is_granted_beside_others(false);
}
