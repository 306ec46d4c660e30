/* stead_lock and its kin across threads and processes: TURNS transactions, LIVE owner death, names. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "support/support.h"

TestSuite(section, .init = support_setup, .fini = support_teardown, .timeout = 300);

struct job {
    const char *path;
    volatile uint32_t *words;
    stead_sharing sharing;
    unsigned count;
};

static stead *open_mode(const char *path, stead_sharing sharing)
{
    stead *s;
    OK(stead_open(&s, path, &(stead_options){.sharing = sharing, .timeout_ms = SOON_MS}));
    return s;
}

static uint64_t *make_counter(stead *s)
{
    void *root;
    OK(stead_root_once(s, 64, NULL, NULL, &root));
    return root;
}

/* ---- nesting */

Test(section, locks_nest_in_any_mix)
{
    for (unsigned mode = 0; mode < 3; mode++) {
        char name[8];
        snprintf(name, sizeof name, "s%u", mode);
        stead *s = open_mode(path_in(name), (stead_sharing)mode);
        FAILS(stead_unlock(s), EPERM);
        OK(stead_lock(s, STEAD_EXCLUSIVE, 0));
        OK(stead_lock(s, STEAD_SHARED, 0));
        OK(stead_lock(s, STEAD_EXCLUSIVE, 0));
        OK(stead_unlock(s));
        OK(stead_unlock(s));
        FAILS(stead_close(s), EBUSY);
        OK(stead_unlock(s));
        FAILS(stead_unlock(s), EPERM);
        OK(stead_lock(s, STEAD_SHARED, 0));
        OK(stead_lock(s, STEAD_EXCLUSIVE, SOON_MS)); /* alone: the upgrade succeeds */
        OK(stead_unlock(s));
        OK(stead_unlock(s));
        unsigned runs = 0;
        STEAD_LOCKED(s, STEAD_EXCLUSIVE)
        {
            runs++;
            STEAD_LOCKED(s, STEAD_SHARED)
            {
                runs++;
                break;
            }
        }
        cr_assert_eq(runs, 2);
        FAILS(stead_unlock(s), EPERM);
        OK(stead_close(s));
    }
}

static void *try_both(void *arg)
{
    stead *s = arg;
    int shared = stead_lock(s, STEAD_SHARED, 0);
    int exclusive = stead_lock(s, STEAD_EXCLUSIVE, 50);
    return (void *)(uintptr_t)(shared == EBUSY && exclusive == ETIMEDOUT ? 0 : 1);
}

Test(section, try_is_busy_and_waiting_times_out)
{
    stead *s = open_mode(path_in("s"), STEAD_SOLE);
    pthread_t thread;
    void *wrong;
    OK(stead_lock(s, STEAD_EXCLUSIVE, 0));
    pthread_create(&thread, NULL, try_both, s);
    pthread_join(thread, &wrong);
    cr_assert_null(wrong);
    OK(stead_unlock(s));
    OK(stead_close(s));
}

/* ---- TURNS */

static void count_in_turns(void *arg)
{
    struct job *job = arg;
    stead *s;
    CHILD(stead_open(&s, job->path, &(stead_options){.sharing = job->sharing, .timeout_ms = SOON_MS}) == 0);
    while (job->words[0] == 0)
        continue;
    for (unsigned i = 0; i < job->count; i++) {
        CHILD(stead_lock(s, STEAD_EXCLUSIVE, SOON_MS) == 0);
        uint64_t *a = stead_root(s);
        CHILD(a != NULL);
        a[0]++;
        a[1]++;
        void *block = stead_malloc(s, 100);
        CHILD(block != NULL);
        memset(block, 1, 100);
        if (i % 2 == 0)
            stead_free(block);
        CHILD(stead_unlock(s) == 0);
        if (i % 5 == 0) {
            CHILD(stead_lock(s, STEAD_SHARED, SOON_MS) == 0);
            CHILD(a[0] == a[1]);
            CHILD(stead_unlock(s) == 0);
        }
    }
    CHILD(stead_close(s) == 0);
}

Test(section, no_update_is_lost_between_processes)
{
    for (unsigned mode = STEAD_TURNS; mode <= STEAD_LIVE; mode++) {
        const char *path = path_in(mode == STEAD_TURNS ? "turns" : "live");
        stead *s = open_mode(path, (stead_sharing)mode);
        make_counter(s);
        struct job job = {
            .path = path, .words = shared_words(1), .sharing = (stead_sharing)mode, .count = test_long() ? 5000 : 300};
        pid_t pids[3];
        for (unsigned i = 0; i < 3; i++)
            pids[i] = spawn(count_in_turns, &job);
        job.words[0] = 1;
        for (unsigned i = 0; i < 3; i++)
            REAP_OK(pids[i]);
        OK(stead_lock(s, STEAD_SHARED, SOON_MS));
        cr_assert_eq(((uint64_t *)stead_root(s))[0], 3 * job.count);
        OK(stead_unlock(s));
        OK(stead_check(s, NULL));
        stead_status status;
        OK(stead_stat(s, &status));
        cr_assert_eq(status.live_blocks, 1 + 3 * (job.count / 2), "mode %u: %llu", mode,
                     (unsigned long long)status.live_blocks);
        OK(stead_close(s));
    }
}

Test(section, turns_changes_only_inside_a_section)
{
    stead *s = open_mode(path_in("s"), STEAD_TURNS);
    uint64_t *a = make_counter(s);
    cr_assert_null(stead_malloc(s, 8));
    cr_assert_eq(errno, EPERM);
    FAILS(stead_set_root(s, NULL), EPERM);
    FAILS(stead_bind(s, "x", a), EPERM);
    FAILS(stead_rollback(s), EPERM);
    a[0] = 99; /* outside: lost */
    OK(stead_lock(s, STEAD_EXCLUSIVE, 0));
    cr_assert_eq(a[0], 0);
    a[0] = 5;
    OK(stead_unlock(s));
    OK(stead_lock(s, STEAD_EXCLUSIVE, 0));
    a[0] = 6;
    OK(stead_rollback(s));
    cr_assert_eq(a[0], 5);
    OK(stead_unlock(s));
    stead_abandon(s);
    s = open_mode(path_in("s"), STEAD_TURNS);
    cr_assert_eq(((uint64_t *)stead_root(s))[0], 5);
    OK(stead_close(s));
}

static void die_in_section(void *arg)
{
    struct job *job = arg;
    stead *s;
    CHILD(stead_open(&s, job->path, &(stead_options){.sharing = job->sharing, .timeout_ms = SOON_MS}) == 0);
    for (unsigned i = 0;; i++) {
        CHILD(stead_lock(s, STEAD_EXCLUSIVE, SOON_MS) == 0);
        uint64_t *a = stead_root(s);
        a[0]++;
        void *block = stead_malloc(s, 100 + i % 1000);
        CHILD(block != NULL);
        if (i % 2 == 0)
            stead_free(block);
        a[1]++;
        job->words[0]++;
        CHILD(stead_unlock(s) == 0);
    }
}

Test(section, a_process_killed_in_its_turn_is_rolled_back_and_neighbours_go_on)
{
    srand((unsigned)test_seed());
    stead *s = open_mode(path_in("s"), STEAD_TURNS);
    uint64_t *a = make_counter(s);
    for (unsigned round = 0; round < (test_long() ? 300u : 15u); round++) {
        struct job job = {.path = path_in("s"), .words = shared_words(1), .sharing = STEAD_TURNS};
        uint64_t before = a[0];
        pid_t pid = spawn(die_in_section, &job);
        cr_assert(await(job.words, 1));
        usleep((useconds_t)(rand() % 8000));
        kill(pid, SIGKILL);
        reap(pid);
        OK(stead_lock(s, STEAD_EXCLUSIVE, SOON_MS));
        cr_assert_eq(a[0], a[1], "never half a section");
        cr_assert(a[0] - before == job.words[0] || a[0] - before + 1 == job.words[0], "%llu sections kept, %u ended",
                  (unsigned long long)(a[0] - before), job.words[0]);
        OK(stead_unlock(s));
        OK(stead_check(s, NULL));
    }
    OK(stead_close(s));
    s = open_mode(path_in("s"), STEAD_SOLE);
    OK(stead_check(s, NULL));
    OK(stead_close(s));
}

static void die_in_a_turn(void *arg)
{
    struct job *job = arg;
    stead *s;
    CHILD(stead_open(&s, job->path, &(stead_options){.sharing = STEAD_TURNS, .timeout_ms = SOON_MS}) == 0);
    CHILD(stead_lock(s, STEAD_EXCLUSIVE, SOON_MS) == 0);
    ((uint64_t *)stead_root(s))[0] = 99;
    raise(SIGKILL);
}

/* Its shared request meets a dead owner; inside of it a section of its own, which has ended when it dies. */
static void share_after_a_death_and_die(void *arg)
{
    struct job *job = arg;
    stead *s;
    CHILD(stead_open(&s, job->path, &(stead_options){.sharing = STEAD_TURNS, .timeout_ms = SOON_MS}) == 0);
    CHILD(reap(spawn(die_in_a_turn, job)) == 128 + SIGKILL);
    CHILD(stead_lock(s, STEAD_SHARED, SOON_MS) == 0);
    CHILD(((uint64_t *)stead_root(s))[0] == 0);
    CHILD(stead_malloc(s, 16) == NULL && errno == EPERM);
    job->words[0] = 1;
    CHILD(await(job->words + 1, 1));
    CHILD(stead_lock(s, STEAD_EXCLUSIVE, SOON_MS) == 0);
    ((uint64_t *)stead_root(s))[0] = 7;
    CHILD(stead_unlock(s) == 0);
    raise(SIGKILL);
}

Test(section, a_shared_section_after_a_death_is_shared_and_one_inside_of_it_a_transaction)
{
    stead *s = open_mode(path_in("s"), STEAD_TURNS);
    uint64_t *a = make_counter(s);
    struct job job = {.path = path_in("s"), .words = shared_words(2), .sharing = STEAD_TURNS};
    pid_t pid = spawn(share_after_a_death_and_die, &job);
    cr_assert(await(job.words, 1));
    OK(stead_lock(s, STEAD_SHARED, SOON_MS)); /* beside that one */
    OK(stead_unlock(s));
    job.words[1] = 1;
    cr_assert_eq(reap(pid), 128 + SIGKILL);
    OK(stead_lock(s, STEAD_SHARED, SOON_MS));
    cr_assert_eq(a[0], 7, "%llu: a section that had ended is lost", (unsigned long long)a[0]);
    OK(stead_unlock(s));
    OK(stead_close(s));
}

/* ---- LIVE */

static void die_holding_live(void *arg)
{
    struct job *job = arg;
    stead *s;
    CHILD(stead_open(&s, job->path, &(stead_options){.sharing = STEAD_LIVE}) == 0);
    CHILD(stead_lock(s, STEAD_EXCLUSIVE, SOON_MS) == 0);
    ((uint64_t *)stead_root(s))[0] = 13;
    raise(SIGKILL);
}

Test(section, live_owner_death_is_told_repaired_or_final)
{
    stead *s = open_mode(path_in("s"), STEAD_LIVE);
    uint64_t *a = make_counter(s);
    struct job job = {.path = path_in("s")};
    cr_assert_eq(reap(spawn(die_holding_live, &job)), 128 + SIGKILL);
    cr_assert_null(stead_lookup(s, "x")); /* the library's own look must not swallow the news */
    cr_assert_eq(errno, EOWNERDEAD);
    FAILS(stead_lock(s, STEAD_SHARED, SOON_MS), EOWNERDEAD);
    cr_assert_eq(a[0], 13);
    a[0] = 0;
    OK(stead_make_consistent(s));
    OK(stead_unlock(s));
    OK(stead_lock(s, STEAD_EXCLUSIVE, 0));
    OK(stead_unlock(s));
    FAILS(stead_make_consistent(s), EPERM);
    OK(stead_lock(s, STEAD_EXCLUSIVE, 0));
    FAILS(stead_make_consistent(s), EINVAL);
    OK(stead_unlock(s));
    cr_assert_eq(reap(spawn(die_holding_live, &job)), 128 + SIGKILL);
    FAILS(stead_lock(s, STEAD_EXCLUSIVE, SOON_MS), EOWNERDEAD);
    OK(stead_unlock(s));
    FAILS(stead_lock(s, STEAD_SHARED, 0), ENOTRECOVERABLE);
    OK(stead_close(s));
    FAILS(stead_open(&s, path_in("s"), &(stead_options){.sharing = STEAD_LIVE}), STEAD_UNCLEAN);
    OK(stead_open(&s, path_in("s"), &(stead_options){.sharing = STEAD_LIVE, .flags = STEAD_ACCEPT_UNCLEAN}));
    stead_status status;
    OK(stead_stat(s, &status));
    cr_assert(status.accepted_unclean);
    OK(stead_lock(s, STEAD_EXCLUSIVE, 0));
    OK(stead_unlock(s));
    OK(stead_close(s));
    OK(stead_open(&s, path_in("s"), NULL));
    OK(stead_stat(s, &status));
    cr_assert(status.accepted_unclean, "the verdict stays readable");
    OK(stead_close(s));
}

static void open_and_die(void *arg)
{
    struct job *job = arg;
    stead *s;
    CHILD(stead_open(&s, job->path, &(stead_options){.sharing = STEAD_LIVE}) == 0);
    (void)stead_malloc(s, 100);
    raise(SIGKILL);
}

Test(section, a_live_session_without_close_is_never_mistaken_for_clean)
{
    stead *s = open_mode(path_in("s"), STEAD_LIVE);
    make_counter(s);
    OK(stead_close(s));
    struct job job = {.path = path_in("s")};
    cr_assert_eq(reap(spawn(open_and_die, &job)), 128 + SIGKILL);
    FAILS(stead_open(&s, path_in("s"), &(stead_options){.sharing = STEAD_LIVE}), STEAD_UNCLEAN);
    FAILS(stead_open(&s, path_in("s"), NULL), STEAD_UNCLEAN);
    FAILS(stead_open(&s, path_in("s"), &(stead_options){.flags = STEAD_READ_ONLY}), STEAD_UNCLEAN);
    OK(stead_open(&s, path_in("s"), &(stead_options){.flags = STEAD_READ_ONLY | STEAD_ACCEPT_UNCLEAN}));
    OK(stead_close(s));
    OK(stead_open(&s, path_in("s"), &(stead_options){.sharing = STEAD_LIVE, .flags = STEAD_ACCEPT_UNCLEAN}));
    OK(stead_check(s, NULL));
    OK(stead_close(s));
    OK(stead_open(&s, path_in("s"), NULL));
    OK(stead_close(s));
}

Test(section, a_crashed_sole_store_is_recovered_by_whoever_comes_next)
{
    for (unsigned mode = 0; mode < 3; mode++) {
        char name[8];
        snprintf(name, sizeof name, "r%u", mode);
        stead *s = open_mode(path_in(name), STEAD_SOLE);
        uint64_t *a = make_counter(s);
        a[0] = 5;
        OK(stead_commit(s, STEAD_BUFFERED));
        a[0] = 6;
        stead_abandon(s);
        s = open_mode(path_in(name), (stead_sharing)mode);
        stead_status status;
        OK(stead_stat(s, &status));
        cr_assert(status.recovered);
        cr_assert_eq(((uint64_t *)stead_root(s))[0], 5);
        OK(stead_check(s, NULL));
        OK(stead_close(s));
    }
}

/* The last closer may not be the last one who had the turn. */
Test(section, the_last_closer_in_turns_seals_the_last_commit)
{
    stead *s = open_mode(path_in("s"), STEAD_TURNS);
    make_counter(s);
    struct job job = {.path = path_in("s"), .words = shared_words(1), .sharing = STEAD_TURNS, .count = 7};
    job.words[0] = 1;
    REAP_OK(spawn(count_in_turns, &job));
    OK(stead_close(s)); /* without having looked */
    s = open_mode(path_in("s"), STEAD_SOLE);
    cr_assert_eq(((uint64_t *)stead_root(s))[0], 7);
    OK(stead_check(s, NULL));
    OK(stead_close(s));
}

/* A refused open changes nothing: neither the verdict on a LIVE crash nor a sealed store. */
Test(section, a_refused_open_leaves_the_store_as_it_was)
{
    stead *s = open_mode(path_in("s"), STEAD_LIVE);
    make_counter(s);
    OK(stead_close(s));
    stead_options other = {.layout = {.name = "other", .version = 1}};
    for (unsigned mode = 0; mode < 3; mode++) {
        other.sharing = (stead_sharing)mode;
        FAILS(stead_open(&s, path_in("s"), &other), STEAD_LAYOUT_MISMATCH);
        cr_assert_eq(access(path_in("s-wal"), F_OK), -1);
    }
    OK(stead_open(&s, path_in("s"), &(stead_options){.flags = STEAD_READ_ONLY}));
    OK(stead_check(s, NULL));
    OK(stead_close(s));
    struct job job = {.path = path_in("s")};
    cr_assert_eq(reap(spawn(open_and_die, &job)), 128 + SIGKILL);
    for (unsigned round = 0; round < 6; round++)
        FAILS(stead_open(&s, path_in("s"), &(stead_options){.sharing = (stead_sharing)(round % 3)}), STEAD_UNCLEAN);
    OK(stead_open(&s, path_in("s"), &(stead_options){.flags = STEAD_ACCEPT_UNCLEAN}));
    OK(stead_close(s));
}

static void grow_live(void *arg)
{
    struct job *job = arg;
    stead *s;
    CHILD(stead_open(&s, job->path, &(stead_options){.sharing = STEAD_LIVE}) == 0);
    CHILD(stead_lock(s, STEAD_EXCLUSIVE, SOON_MS) == 0);
    char *block = stead_malloc(s, 40u << 20);
    CHILD(block != NULL);
    memset(block, 7, 40u << 20);
    CHILD(stead_set_root(s, block) == 0);
    CHILD(stead_unlock(s) == 0);
    CHILD(stead_close(s) == 0);
}

Test(section, what_one_process_grew_the_other_reads)
{
    stead *s = open_mode(path_in("s"), STEAD_LIVE);
    struct job job = {.path = path_in("s")};
    REAP_OK(spawn(grow_live, &job));
    OK(stead_lock(s, STEAD_SHARED, SOON_MS));
    const char *block = stead_root(s);
    for (size_t i = 0; i < 40u << 20; i += 4000)
        cr_assert_eq(block[i], 7);
    OK(stead_unlock(s));
    stead_free(stead_root(s));
    OK(stead_check(s, NULL));
    OK(stead_close(s));
}

static void malloc_until_killed(void *arg)
{
    struct job *job = arg;
    stead *s;
    void *mine[64] = {NULL};
    unsigned seed = (unsigned)getpid();
    CHILD(stead_open(&s, job->path,
                     &(stead_options){.sharing = STEAD_LIVE, .flags = STEAD_ACCEPT_UNCLEAN, .timeout_ms = SOON_MS}) ==
          0);
    job->words[0] = 1;
    for (;;) {
        unsigned i = (unsigned)rand_r(&seed) % 64;
        stead_free(mine[i]);
        mine[i] = stead_malloc(s, (size_t)rand_r(&seed) % (i == 0 ? 300000 : 2000));
        CHILD(mine[i] != NULL);
    }
}

Test(section, live_allocation_survives_kills_of_neighbours)
{
    srand((unsigned)test_seed());
    stead *s = open_mode(path_in("s"), STEAD_LIVE);
    for (unsigned round = 0; round < (test_long() ? 300u : 20u); round++) {
        struct job job = {.path = path_in("s"), .words = shared_words(1)};
        pid_t a = spawn(malloc_until_killed, &job), b = spawn(malloc_until_killed, &job);
        cr_assert(await(job.words, 1));
        for (unsigned i = 0; i < 200; i++) {
            void *block = stead_malloc(s, i * 50);
            cr_assert_not_null(block, "%s", stead_last_error_text());
            stead_free(block);
        }
        usleep((useconds_t)(rand() % 5000));
        kill(a, SIGKILL);
        kill(b, SIGKILL);
        reap(a);
        reap(b);
        OK(stead_check(s, NULL));
    }
    stead_abandon(s);
}

/* ---- names */

static int count_name(const char *name, void *object, void *arg)
{
    cr_assert(name[0] == 'n' && object != NULL);
    return ++*(int *)arg == 1000000 ? 1 : 0;
}

Test(section, names_are_found_replaced_unbound_and_counted)
{
    stead *s = open_mode(path_in("s"), STEAD_SOLE);
    char name[32], *block[3000];
    for (unsigned i = 0; i < 3000; i++) {
        snprintf(name, sizeof name, "name-%u", i);
        block[i] = stead_malloc(s, 16);
        OK(stead_bind(s, name, block[i]));
    }
    stead_status status;
    OK(stead_stat(s, &status));
    cr_assert_eq(status.live_blocks, 3000, "the library's own blocks do not count");
    OK(stead_close(s));
    s = open_mode(path_in("s"), STEAD_SOLE);
    for (unsigned i = 0; i < 3000; i++) {
        snprintf(name, sizeof name, "name-%u", i);
        cr_assert_eq(stead_lookup(s, name), block[i]);
        if (i % 3 == 0)
            OK(stead_bind(s, name, NULL));
        if (i % 3 == 1)
            OK(stead_bind(s, name, block[0]));
    }
    int count = 0;
    OK(stead_each_name(s, count_name, &count));
    cr_assert_eq(count, 2000);
    cr_assert_null(stead_lookup(s, "name-0"));
    cr_assert_eq(errno, ENOENT);
    cr_assert_eq(stead_lookup(s, "name-1"), block[0]);
    FAILS(stead_bind(s, "name-0", NULL), ENOENT);
    FAILS(stead_bind(s, "", block[0]), EINVAL);
    int on_the_stack;
    FAILS(stead_bind(s, "x", &on_the_stack), EINVAL);
    FAILS(stead_set_root(s, &on_the_stack), EINVAL);
    OK(stead_check(s, NULL));
    OK(stead_close(s));
}
