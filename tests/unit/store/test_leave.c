/*
 * Leaving while others are inside: close and abandon beside waiting threads, cancelled threads.
 *
 * Method for cancellation: a thread goes through every kind of call and asks for its own end (pthread_testcancel) only
 * where it holds nothing; it is cancelled at a random moment.  No call is a cancellation point, so it must end there, and
 * nothing may be left held: no EOWNERDEAD, no call of the others that hangs (the suite's timeout).
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "support/support.h"

TestSuite(leave, .init = support_setup, .fini = support_teardown, .timeout = 300);

static stead *open_mode(const char *path, stead_sharing sharing)
{
    stead *s;
    OK(stead_open(&s, path, &(stead_options){.sharing = sharing, .timeout_ms = SOON_MS}));
    return s;
}

/* ---- close and abandon beside waiters */

struct holder {
    const char *path;
    stead_sharing sharing;
    volatile uint32_t *words; /* [0]: holds; [1]: is to let go */
};

static void hold_exclusively(void *arg)
{
    struct holder *holder = arg;
    stead *s;
    CHILD(stead_open(&s, holder->path, &(stead_options){.sharing = holder->sharing, .timeout_ms = SOON_MS}) == 0);
    CHILD(stead_lock(s, STEAD_EXCLUSIVE, -1) == 0);
    holder->words[0] = 1;
    CHILD(await(&holder->words[1], 1));
    CHILD(stead_unlock(s) == 0);
    CHILD(stead_close(s) == 0);
}

enum wait_kind { WAIT_SHARED, WAIT_EXCLUSIVE, WAIT_TIMED, WAIT_CHANGE };

struct waiter {
    stead *store;
    enum wait_kind kind;
    pthread_t thread;
    _Atomic pid_t tid;  /* 0: not yet there */
    _Atomic int result; /* of the wait; -1: still there */
};

static void *waiter_main(void *arg)
{
    struct waiter *waiter = arg;
    stead *s = waiter->store;
    atomic_store(&waiter->tid, gettid());
    stead_lock_mode mode = waiter->kind == WAIT_SHARED ? STEAD_SHARED : STEAD_EXCLUSIVE;
    int rc = waiter->kind == WAIT_CHANGE ? stead_wait_change(s, UINT64_MAX - 1, SOON_MS)
                                         : stead_lock(s, mode, waiter->kind == WAIT_TIMED ? SOON_MS : -1);
    if (rc == 0 && waiter->kind != WAIT_CHANGE)
        rc = stead_unlock(s);
    atomic_store(&waiter->result, rc);
    return NULL;
}

static int count_waiting(const stead_lock_info *info, void *arg)
{
    *(unsigned *)arg += info->waiting;
    return 0;
}

static void waiter_start(struct waiter *waiter, stead *s, enum wait_kind kind)
{
    waiter->store = s;
    waiter->kind = kind;
    atomic_store(&waiter->tid, 0);
    atomic_store(&waiter->result, -1);
    cr_assert_eq(pthread_create(&waiter->thread, NULL, waiter_main, waiter), 0);
}

/* For a wait that no table tells of. */
static void waiter_await(struct waiter *waiter)
{
    while (atomic_load(&waiter->tid) == 0)
        pause_ms(1);
    await_sleeping(atomic_load(&waiter->tid));
    pause_ms(20); /* whatever it slept for on its way there is over, most likely */
}

static void locks_await_waiters(stead *s, unsigned n)
{
    for (unsigned waiting = 0, tries = 0; waiting != n; tries++) {
        cr_assert_lt(tries, SOON_MS);
        waiting = 0;
        OK(stead_each_lock(s, count_waiting, &waiting));
        pause_ms(1);
    }
}

static pid_t start_holder(struct holder *holder, const char *path, stead_sharing sharing)
{
    *holder = (struct holder){path, sharing, shared_words(2)};
    pid_t pid = spawn(hold_exclusively, holder);
    cr_assert(await(&holder->words[0], 1));
    return pid;
}

Test(leave, close_is_refused_while_a_thread_waits_for_the_lock)
{
    for (unsigned sharing = STEAD_TURNS; sharing <= STEAD_LIVE; sharing++)
        for (unsigned kind = WAIT_SHARED; kind <= WAIT_TIMED; kind++) {
            struct holder holder;
            struct waiter waiter;
            const char *path = path_in("s");
            stead *s = open_mode(path, (stead_sharing)sharing);
            pid_t pid = start_holder(&holder, path, (stead_sharing)sharing);
            waiter_start(&waiter, s, (enum wait_kind)kind);
            locks_await_waiters(s, 1);
            FAILS(stead_close(s), EBUSY);
            cr_assert_eq(atomic_load(&waiter.result), -1);
            holder.words[1] = 1;
            pthread_join(waiter.thread, NULL);
            OK(atomic_load(&waiter.result)); /* the store is as it was */
            REAP_OK(pid);
            OK(stead_close(s));
        }
}

static int close_inside(const char *name, void *object, void *arg)
{
    (void)name;
    (void)object;
    FAILS(stead_close(arg), EBUSY);
    return 7;
}

Test(leave, close_is_refused_while_another_call_is_under_way)
{
    for (unsigned sharing = 0; sharing < 3; sharing++) {
        stead *s = open_mode(path_in("s"), (stead_sharing)sharing);
        OK(stead_lock(s, STEAD_EXCLUSIVE, 0));
        OK(stead_bind(s, "a", stead_malloc(s, 10)));
        OK(stead_unlock(s));
        cr_assert_eq(stead_each_name(s, close_inside, s), 7);
        OK(stead_close(s));
    }
}

struct change_wait {
    stead *store;
    uint64_t since;
    _Atomic pid_t begun; /* the waiting thread */
    _Atomic int result;
};

static void *change_main(void *arg)
{
    struct change_wait *wait = arg;
    atomic_store(&wait->begun, gettid());
    atomic_store(&wait->result, stead_wait_change(wait->store, wait->since, SOON_MS));
    return NULL;
}

/* Begins to wait for a commit, and does when this returns. */
static void change_start(struct change_wait *wait, stead *s, pthread_t *thread)
{
    stead_status status;
    OK(stead_stat(s, &status));
    *wait = (struct change_wait){.store = s, .since = status.commit_seq, .result = -1};
    cr_assert_eq(pthread_create(thread, NULL, change_main, wait), 0);
    while (atomic_load(&wait->begun) == 0)
        pause_ms(1);
    await_sleeping(atomic_load(&wait->begun));
}

Test(leave, close_is_refused_while_a_thread_waits_for_a_commit)
{
    for (unsigned sharing = 0; sharing < 3; sharing++) {
        struct change_wait wait;
        pthread_t thread;
        stead *s = open_mode(path_in("s"), (stead_sharing)sharing);
        change_start(&wait, s, &thread);
        if (atomic_load(&wait.result) == -1)
            FAILS(stead_close(s), EBUSY);
        while (atomic_load(&wait.result) == -1) { /* SOLE: the refused close may have committed already */
            OK(stead_lock(s, STEAD_EXCLUSIVE, -1));
            uint32_t *p = stead_calloc(s, 1, 100);
            cr_assert_not_null(p);
            OK(stead_unlock(s));
            OK(stead_commit(s, STEAD_DURABLE));
        }
        OK(atomic_load(&wait.result));
        pthread_join(thread, NULL);
        OK(stead_close(s));
    }
}

Test(leave, abandon_sends_away_who_waits)
{
    for (unsigned sharing = STEAD_TURNS; sharing <= STEAD_LIVE; sharing++) {
        struct holder holder;
        struct waiter waiters[3];
        struct change_wait change;
        pthread_t change_thread;
        const char *path = path_in(sharing == STEAD_TURNS ? "t" : "l");
        stead *s = open_mode(path, (stead_sharing)sharing);
        change_start(&change, s, &change_thread);
        pid_t pid = start_holder(&holder, path, (stead_sharing)sharing);
        for (unsigned i = 0; i < 3; i++)
            waiter_start(&waiters[i], s, (enum wait_kind)i);
        locks_await_waiters(s, 3);
        stead_abandon(s);
        for (unsigned i = 0; i < 3; i++) {
            pthread_join(waiters[i].thread, NULL);
            FAILS(atomic_load(&waiters[i].result), ECANCELED);
        }
        pthread_join(change_thread, NULL);
        cr_assert_eq(atomic_load(&change.result), ECANCELED);
        holder.words[1] = 1;
        REAP_OK(pid);
    }
}

/* A reader that came when nobody was there waits for a byte of the file. */
Test(leave, abandon_sends_away_a_reader_without_a_slot)
{
    struct holder holder;
    struct waiter waiter;
    const char *path = path_in("s");
    stead *s;
    OK(stead_close(open_mode(path, STEAD_LIVE)));
    OK(stead_open(&s, path, &(stead_options){.flags = STEAD_READ_ONLY, .sharing = STEAD_LIVE}));
    pid_t pid = start_holder(&holder, path, STEAD_LIVE);
    waiter_start(&waiter, s, WAIT_SHARED);
    waiter_await(&waiter);
    cr_assert_eq(atomic_load(&waiter.result), -1);
    FAILS(stead_close(s), EBUSY);
    stead_abandon(s);
    pthread_join(waiter.thread, NULL);
    FAILS(atomic_load(&waiter.result), ECANCELED);
    holder.words[1] = 1;
    REAP_OK(pid);
}

/* A reader without a slot, in its section: owners wait for a byte of the file. */
static void share_from_outside(void *arg)
{
    struct holder *holder = arg;
    stead *s;
    CHILD(stead_open(&s, holder->path, &(stead_options){.flags = STEAD_READ_ONLY, .timeout_ms = SOON_MS}) == 0);
    holder->words[0] = 1; /* nobody else has it open: no slot */
    CHILD(await(&holder->words[1], 1));
    CHILD(stead_lock(s, STEAD_SHARED, SOON_MS) == 0);
    holder->words[0] = 2;
    CHILD(await(&holder->words[1], 2));
    CHILD(stead_unlock(s) == 0);
    CHILD(stead_close(s) == 0);
}

static void commit_one_section(void *arg)
{
    const struct holder *holder = arg;
    stead *s;
    CHILD(stead_open(&s, holder->path, &(stead_options){.sharing = STEAD_TURNS, .timeout_ms = SOON_MS}) == 0);
    CHILD(stead_lock(s, STEAD_EXCLUSIVE, SOON_MS) == 0);
    CHILD(stead_malloc(s, 100) != NULL);
    CHILD(stead_unlock(s) == 0);
    stead_abandon(s);
}

/* The waiter is an owner already; the store must not go before it has given that up. */
Test(leave, abandon_sends_away_who_waits_for_a_reader_from_outside)
{
    for (unsigned sharing = STEAD_TURNS; sharing <= STEAD_LIVE; sharing++)
        for (unsigned kind = WAIT_EXCLUSIVE; kind <= WAIT_TIMED; kind++) {
            struct waiter waiter;
            struct holder holder = {path_in("s"), (stead_sharing)sharing, shared_words(2)};
            OK(stead_close(open_mode(holder.path, (stead_sharing)sharing)));
            pid_t reader = spawn(share_from_outside, &holder);
            cr_assert(await(&holder.words[0], 1));
            stead *s = open_mode(holder.path, (stead_sharing)sharing);
            if (sharing == STEAD_TURNS) /* the next turn begins by applying what another process did */
                REAP_OK(spawn(commit_one_section, &holder));
            holder.words[1] = 1;
            cr_assert(await(&holder.words[0], 2));
            waiter_start(&waiter, s, (enum wait_kind)kind);
            waiter_await(&waiter);
            cr_assert_eq(atomic_load(&waiter.result), -1);
            FAILS(stead_close(s), EBUSY);
            cr_assert_eq(atomic_load(&waiter.result), -1);
            stead_abandon(s);
            pthread_join(waiter.thread, NULL);
            FAILS(atomic_load(&waiter.result), ECANCELED);
            holder.words[1] = 2;
            REAP_OK(reader);
            OK(stead_remove(holder.path));
        }
}

/* An open of the same store that is going to be refused looks at it for a while: it is no handle that a close could leave
 * the commit to. */
static _Atomic bool holds, is_to_let_go;
static _Atomic pid_t opens, closes; /* threads */

static void *hold_until_told(void *arg)
{
    CHILD(stead_lock(arg, STEAD_EXCLUSIVE, -1) == 0);
    atomic_store(&holds, true);
    while (!atomic_load(&is_to_let_go))
        pause_ms(1);
    CHILD(stead_unlock(arg) == 0);
    return NULL;
}

static void *open_in_vain(void *arg)
{
    stead *s;
    atomic_store(&opens, gettid());
    FAILS(stead_open(&s, arg, &(stead_options){.timeout_ms = -1, .layout = {.name = "other", .version = 1}}),
          STEAD_LAYOUT_MISMATCH);
    return NULL;
}

/* Refused while the lock is held, or where the one who looks takes too long: then again. */
static void *close_in_the_end(void *arg)
{
    int rc;
    atomic_store(&closes, gettid());
    while ((rc = stead_close(arg)) == EBUSY)
        pause_ms(1);
    CHILD(rc == 0);
    return NULL;
}

static void await_thread(const _Atomic pid_t *thread)
{
    while (atomic_load(thread) == 0)
        pause_ms(1);
    await_sleeping(atomic_load(thread));
}

static void close_and_die(void *arg)
{
    pthread_t holding, opening, closing;
    stead *s;
    CHILD(stead_open(&s, arg, NULL) == 0);
    *(uint64_t *)stead_root(s) = 42;
    CHILD(pthread_create(&holding, NULL, hold_until_told, s) == 0);
    while (!atomic_load(&holds))
        pause_ms(1);
    CHILD(pthread_create(&opening, NULL, open_in_vain, arg) == 0);
    pthread_detach(opening);
    await_thread(&opens); /* to read what layout it is */
    CHILD(pthread_create(&closing, NULL, close_in_the_end, s) == 0);
    await_thread(&closes); /* until it has read that */
    atomic_store(&is_to_let_go, true);
    pthread_join(holding, NULL);
    pthread_join(closing, NULL);
}

Test(leave, close_beside_an_open_that_is_refused_commits)
{
    const char *path = path_in("s");
    void *root;
    stead *s;
    OK(stead_open(&s, path, &(stead_options){.layout = {.name = "one", .version = 1}}));
    OK(stead_root_once(s, 64, NULL, NULL, &root));
    OK(stead_close(s));
    REAP_OK(spawn(close_and_die, (void *)(uintptr_t)path));
    s = open_mode(path, STEAD_SOLE);
    cr_assert_eq(*(uint64_t *)stead_root(s), 42, "the close said that it was committed");
    OK(stead_close(s));
}

/* ---- cancellation */

/* A weak name of the sanitizer's: it does not know that a cancelled thread's frames are gone, and would report its own last
 * steps on that stack. */
extern void __asan_handle_no_return(void) __attribute__((weak));

static __attribute__((noinline)) void end_if_cancelled(void)
{
    if (__asan_handle_no_return != NULL)
        __asan_handle_no_return();
    pthread_testcancel();
}

struct work {
    stead *store;
    stead_sharing sharing;
    unsigned from; /* the family to begin with */
    char backup[256];
};

static int visit_and_test(const char *name, void *object, void *arg)
{
    (void)name;
    (void)object;
    (void)arg;
    pthread_testcancel(); /* inside a call: nothing may come of it */
    return 0;
}

static void use_memory(stead *s)
{
    void *block;
    OK(stead_lock(s, STEAD_EXCLUSIVE, -1));
    block = stead_malloc(s, 300000);
    cr_assert_not_null(block);
    stead_free(block);
    OK(stead_unlock(s));
}

static void use_names(stead *s)
{
    OK(stead_lock(s, STEAD_EXCLUSIVE, -1));
    OK(stead_bind(s, "b", stead_root(s)));
    OK(stead_unlock(s));
    cr_assert_not_null(stead_lookup(s, "b"));
    OK(stead_each_name(s, visit_and_test, NULL));
}

static void use_status(stead *s)
{
    stead_status status;
    OK(stead_stat(s, &status));
    int rc = stead_wait_change(s, status.commit_seq, 1);
    cr_assert(rc == 0 || rc == ETIMEDOUT);
}

static void use_handle(struct work *work)
{
    stead *again;
    OK(stead_open(&again, path_in("s"), &(stead_options){.sharing = work->sharing, .timeout_ms = -1}));
    OK(stead_close(again));
    (void)unlink(work->backup);
    OK(stead_backup(work->store, work->backup));
}

static void use_section(stead *s, stead_sharing sharing)
{
    OK(stead_lock(s, STEAD_EXCLUSIVE, -1));
    ((uint32_t *)stead_root(s))[1]++;
    if (sharing != STEAD_LIVE)
        OK(stead_rollback(s));
    OK(stead_unlock(s));
    OK(stead_lock(s, STEAD_SHARED, SOON_MS));
    OK(stead_unlock(s));
}

static void use_semaphore(void)
{
    stead_semaphore *semaphore;
    OK(stead_semaphore_open(&semaphore, NULL, 0));
    FAILS(stead_semaphore_wait(semaphore, 1), ETIMEDOUT);
    OK(stead_semaphore_close(semaphore));
}

static void *work_main(void *arg)
{
    struct work *work = arg;
    stead *s = work->store;
    for (unsigned family = work->from;; family++) {
        end_if_cancelled();
        switch (family % 8) {
        case 0:
        case 1:
            OK(stead_lock(s, STEAD_EXCLUSIVE, -1));
            ++*(uint32_t *)stead_root(s);
            OK(stead_unlock(s));
            OK(stead_commit(s, family % 8 == 0 ? STEAD_DURABLE : STEAD_BUFFERED));
            break;
        case 2:
            use_memory(s);
            break;
        case 3:
            use_names(s);
            break;
        case 4:
            use_status(s);
            break;
        case 5:
            use_section(s, work->sharing);
            break;
        case 6:
            use_semaphore();
            break;
        default:
            use_handle(work);
        }
    }
    return NULL;
}

static void cancel_often(stead_sharing sharing, unsigned rounds, uint64_t seed)
{
    void *root;
    stead *s = open_mode(path_in("s"), sharing);
    OK(stead_root_once(s, 64, NULL, NULL, &root));
    srand((unsigned)seed);
    struct work work = {.store = s, .sharing = sharing};
    snprintf(work.backup, sizeof work.backup, "%s", path_in("copy"));
    for (unsigned round = 0; round < rounds; round++) {
        pthread_t thread;
        void *result;
        work.from = round;
        cr_assert_eq(pthread_create(&thread, NULL, work_main, &work), 0);
        nanosleep(&(struct timespec){.tv_nsec = rand() % 4000000}, NULL);
        cr_assert_eq(pthread_cancel(thread), 0);
        pthread_join(thread, &result);
        cr_assert_eq(result, PTHREAD_CANCELED);
        OK(stead_lock(s, STEAD_EXCLUSIVE, SOON_MS)); /* neither EOWNERDEAD nor ETIMEDOUT: nothing was left held */
        ++*(uint32_t *)root;
        OK(stead_unlock(s));
        OK(stead_commit(s, STEAD_DURABLE));
    }
    stead_report report;
    OK(stead_check(s, &report));
    OK(stead_close(s)); /* nor a call that counts as under way */
    OK(stead_remove(path_in("s")));
}

Test(leave, a_cancelled_thread_leaves_nothing_half_done)
{
    uint64_t seed = test_seed();
    for (unsigned sharing = 0; sharing < 3; sharing++)
        cancel_often((stead_sharing)sharing, test_long() ? 2000 : 100, seed + sharing);
}

struct opener {
    const char *path;
    stead *store;
    _Atomic int result;
};

static void *open_main(void *arg)
{
    struct opener *opener = arg;
    atomic_store(&opener->result, stead_open(&opener->store, opener->path, &(stead_options){.timeout_ms = -1}));
    end_if_cancelled();
    return NULL;
}

Test(leave, a_thread_cancelled_while_it_waits_in_open_opens)
{
    struct holder holder;
    pthread_t thread;
    void *result;
    struct opener opener = {.path = path_in("s"), .result = -1};
    pid_t pid = start_holder(&holder, opener.path, STEAD_SOLE);
    cr_assert_eq(pthread_create(&thread, NULL, open_main, &opener), 0);
    pause_ms(100);
    cr_assert_eq(pthread_cancel(thread), 0);
    pause_ms(50);
    cr_assert_eq(atomic_load(&opener.result), -1);
    holder.words[1] = 1;
    REAP_OK(pid);
    pthread_join(thread, &result);
    cr_assert_eq(result, PTHREAD_CANCELED);
    OK(atomic_load(&opener.result));
    OK(stead_close(opener.store));
    OK(stead_close(open_mode(opener.path, STEAD_SOLE)));
}
