/*
 * Readers that cannot repair, or cannot write the lock's words: what they see and whom they hold up.
 *
 * A reader without a slot is had in two ways: one that opens while nobody else has the store open (it touches nothing),
 * and one that comes later without write permission (another user, or a file made read-only under a writer).
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/support.h"

TestSuite(outside, .init = support_setup, .fini = support_teardown, .timeout = 300);

/* What a child and its parent tell each other. */
enum word { READY, GO, DONE, WORDS };

struct outsider {
    const char *path;
    volatile uint32_t *words;
    bool slotless; /* without write permission */
};

static stead *open_store(const char *path, stead_sharing sharing)
{
    stead *s;
    OK(stead_open(&s, path, &(stead_options){.sharing = sharing, .timeout_ms = SOON_MS}));
    return s;
}

static volatile uint64_t *make_pair(stead *s)
{
    void *root;
    OK(stead_root_once(s, 64, NULL, NULL, &root));
    return root;
}

static stead *open_reader(const struct outsider *o)
{
    stead *s;
    if (o->slotless && geteuid() == 0)
        CHILD(setresgid(65534, 65534, 65534) == 0 && setresuid(65534, 65534, 65534) == 0);
    CHILD(stead_open(&s, o->path, &(stead_options){.flags = STEAD_READ_ONLY, .timeout_ms = SOON_MS}) == 0);
    return s;
}

/* Nobody may write the file from now on who did not open it before. */
static void refuse_writers(const char *path)
{
    cr_assert_eq(chmod(support_folder(), 0755), 0);
    cr_assert_eq(chmod(path, 0444), 0);
}

static void die_inside(void *arg)
{
    const struct outsider *o = arg;
    stead *s;
    CHILD(stead_open(&s, o->path, &(stead_options){.sharing = STEAD_LIVE, .timeout_ms = SOON_MS}) == 0);
    CHILD(stead_lock(s, STEAD_EXCLUSIVE, SOON_MS) == 0);
    ((volatile uint64_t *)stead_root(s))[0] = 1;
    raise(SIGKILL);
}

/* ---- a writer died inside */

static void meet_a_death(void *arg)
{
    const struct outsider *o = arg;
    stead *s = open_reader(o);
    CHILD(stead_lock(s, STEAD_SHARED, SOON_MS) == 0);
    CHILD(stead_unlock(s) == 0);
    o->words[READY] = 1;
    CHILD(await(&o->words[GO], 1));
    for (unsigned i = 0; i < 3; i++) {
        CHILD(stead_lock(s, STEAD_SHARED, i == 0 ? 0 : i == 1 ? SOON_MS : -1) == EOWNERDEAD);
        CHILD(stead_unlock(s) == EPERM); /* told, and not let in */
    }
    unsigned runs = 0;
    STEAD_LOCKED(s, STEAD_SHARED)
    {
        runs++;
    }
    CHILD(runs == 0);
    o->words[DONE] = 1;
    CHILD(await(&o->words[GO], 2));
    CHILD(stead_lock(s, STEAD_SHARED, SOON_MS) == 0);
    const volatile uint64_t *pair = stead_root(s);
    CHILD(pair[0] == pair[1]);
    CHILD(stead_unlock(s) == 0);
    CHILD(stead_close(s) == 0);
}

static void reader_meets_a_death(bool slotless)
{
    struct outsider o = {.path = path_in("s"), .words = shared_words(WORDS), .slotless = slotless};
    stead *s = open_store(o.path, STEAD_LIVE);
    volatile uint64_t *pair = make_pair(s);
    pid_t killed = spawn(die_inside, &o);
    cr_assert_eq(reap(killed), 128 + SIGKILL);
    FAILS(stead_lock(s, STEAD_EXCLUSIVE, SOON_MS), EOWNERDEAD);
    pair[0] = 0;
    OK(stead_make_consistent(s));
    OK(stead_unlock(s));
    if (slotless)
        refuse_writers(o.path);
    pid_t reader = spawn(meet_a_death, &o);
    cr_assert(await(&o.words[READY], 1));
    if (slotless)
        cr_assert_eq(chmod(o.path, 0600), 0);
    cr_assert_eq(reap(spawn(die_inside, &o)), 128 + SIGKILL);
    o.words[GO] = 1;
    cr_assert(await(&o.words[DONE], 1));
    FAILS(stead_lock(s, STEAD_EXCLUSIVE, SOON_MS), EOWNERDEAD);
    pair[1] = pair[0];
    OK(stead_make_consistent(s));
    OK(stead_unlock(s));
    o.words[GO] = 2;
    REAP_OK(reader);
    OK(stead_lock(s, STEAD_EXCLUSIVE, SOON_MS));
    OK(stead_unlock(s));
    OK(stead_close(s));
}

Test(outside, a_reader_is_told_of_a_death_and_leaves_it_to_those_who_can_repair)
{
    reader_meets_a_death(false);
}

Test(outside, a_reader_without_a_slot_is_told_of_a_death_and_sees_nothing_half_made)
{
    reader_meets_a_death(true);
}

static void meet_the_end_of_all(void *arg)
{
    const struct outsider *o = arg;
    stead *s = open_reader(o);
    CHILD(stead_lock(s, STEAD_SHARED, SOON_MS) == 0);
    CHILD(stead_unlock(s) == 0);
    o->words[READY] = 1;
    CHILD(await(&o->words[GO], 1));
    CHILD(stead_lock(s, STEAD_SHARED, SOON_MS) == STEAD_UNCLEAN);
    CHILD(stead_unlock(s) == EPERM);
    CHILD(stead_close(s) == 0);
}

static void open_and_wait(void *arg)
{
    const struct outsider *o = arg;
    stead *s;
    CHILD(stead_open(&s, o->path, &(stead_options){.sharing = STEAD_LIVE}) == 0);
    o->words[DONE] = 1;
    for (;;)
        pause();
}

Test(outside, the_death_of_all_live_writers_is_not_mistaken_for_a_clean_end)
{
    struct outsider o = {.path = path_in("s"), .words = shared_words(WORDS), .slotless = true};
    stead *s = open_store(o.path, STEAD_LIVE);
    make_pair(s);
    OK(stead_close(s));
    pid_t writer = spawn(open_and_wait, &o);
    cr_assert(await(&o.words[DONE], 1));
    refuse_writers(o.path);
    pid_t reader = spawn(meet_the_end_of_all, &o);
    cr_assert(await(&o.words[READY], 1));
    cr_assert_eq(kill(writer, SIGKILL), 0);
    cr_assert_eq(reap(writer), 128 + SIGKILL);
    o.words[GO] = 1;
    REAP_OK(reader);
}

/* ---- a reader that the writer's open could not foresee */

static void meet_a_section(void *arg)
{
    const struct outsider *o = arg;
    stead *s = open_reader(o);
    const volatile uint64_t *pair = stead_root(s);
    CHILD(stead_lock(s, STEAD_SHARED, 0) == EBUSY); /* a section older than this reader */
    CHILD(stead_lock(s, STEAD_SHARED, 50) == ETIMEDOUT);
    o->words[READY] = 1;
    CHILD(stead_lock(s, STEAD_SHARED, SOON_MS) == 0);
    CHILD(pair[0] == 1 && pair[1] == 1);
    o->words[READY] = 2;
    CHILD(await(&o->words[GO], 1));
    CHILD(pair[0] == 1 && pair[1] == 1);
    CHILD(stead_unlock(s) == 0);
    o->words[READY] = 3;
    CHILD(await(&o->words[GO], 2));
    CHILD(stead_lock(s, STEAD_SHARED, 50) == ETIMEDOUT); /* a younger one */
    CHILD(stead_close(s) == 0);
}

Test(outside, a_live_section_excludes_readers_that_come_when_the_file_was_made_readable_later)
{
    struct outsider o = {.path = path_in("s"), .words = shared_words(WORDS), .slotless = true};
    stead *s = open_store(o.path, STEAD_LIVE); /* 0600 */
    volatile uint64_t *pair = make_pair(s);
    refuse_writers(o.path);
    OK(stead_lock(s, STEAD_EXCLUSIVE, SOON_MS));
    pair[0] = 1;
    pid_t reader = spawn(meet_a_section, &o);
    cr_assert(await(&o.words[READY], 1));
    pair[1] = 1;
    OK(stead_unlock(s));
    cr_assert(await(&o.words[READY], 2));
    FAILS(stead_lock(s, STEAD_EXCLUSIVE, 0), EBUSY);
    FAILS(stead_lock(s, STEAD_EXCLUSIVE, 50), ETIMEDOUT);
    OK(stead_lock(s, STEAD_SHARED, 0));
    OK(stead_unlock(s));
    o.words[GO] = 1;
    cr_assert(await(&o.words[READY], 3));
    OK(stead_lock(s, STEAD_EXCLUSIVE, SOON_MS));
    pair[0] = 2;
    o.words[GO] = 2;
    REAP_OK(reader);
    pair[1] = 2;
    OK(stead_unlock(s));
    OK(stead_close(s));
}

/* ---- a thread that ends inside */

static void *end_inside(void *arg)
{
    return (void *)(intptr_t)stead_lock(arg, STEAD_SHARED, SOON_MS);
}

static void lose_a_thread(void *arg)
{
    const struct outsider *o = arg;
    stead *s = open_reader(o); /* before any writer: without a slot */
    o->words[READY] = 1;
    CHILD(await(&o->words[GO], 1));
    for (unsigned i = 0; i < 2; i++) {
        pthread_t thread;
        void *result = s;
        CHILD(pthread_create(&thread, NULL, end_inside, s) == 0 && pthread_join(thread, &result) == 0);
        CHILD(result == NULL);
        if (i == 0) /* a section of another thread keeps what is its own */
            CHILD(stead_lock(s, STEAD_SHARED, SOON_MS) == 0);
    }
    o->words[READY] = 2;
    CHILD(await(&o->words[GO], 2));
    CHILD(stead_unlock(s) == 0);
    o->words[READY] = 3;
    CHILD(await(&o->words[GO], 3));
    CHILD(stead_close(s) == 0);
}

Test(outside, a_thread_that_ends_in_a_readers_section_leaves_it)
{
    for (unsigned mode = 0; mode < 3; mode++) {
        char name[8], log[16];
        snprintf(name, sizeof name, "s%u", mode);
        snprintf(log, sizeof log, "s%u-wal", mode);
        struct outsider o = {.path = path_in(name), .words = shared_words(WORDS)};
        stead *s = open_store(o.path, (stead_sharing)mode);
        make_pair(s);
        OK(stead_close(s));
        pid_t reader = spawn(lose_a_thread, &o);
        cr_assert(await(&o.words[READY], 1));
        s = open_store(o.path, (stead_sharing)mode);
        o.words[GO] = 1;
        cr_assert(await(&o.words[READY], 2));
        if (mode == STEAD_LIVE) /* the section that goes on is honoured */
            FAILS(stead_lock(s, STEAD_EXCLUSIVE, 50), ETIMEDOUT);
        o.words[GO] = 2;
        cr_assert(await(&o.words[READY], 3));
        OK(stead_lock(s, STEAD_EXCLUSIVE, SOON_MS));
        ((volatile uint64_t *)stead_root(s))[0]++;
        OK(stead_unlock(s));
        OK(stead_close(s));
        cr_assert_neq(access(path_in(log), F_OK), 0, "mode %u: the reader's dead thread kept the log from going", mode);
        o.words[GO] = 3;
        REAP_OK(reader);
    }
}
