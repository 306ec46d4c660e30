/*
 * test_fuzz.c -- stores of any bytes: opened, checked, worked on, in every mode.
 *
 * A sample (a sealed store; one with a log, left by a crash in SOLE and in TURNS; one that LIVE left unclean) is damaged
 * (mutate.h) and given to a fresh process, which opens it and does everything that a program may do.  What must hold,
 * whatever the bytes:
 *   - the process ends by itself and in time: no signal, no hang (alarm), no unbounded memory (ru_maxrss);
 *   - every pointer that comes out lies inside the store's range;
 *   - damage that was not sealed again is found, or harmless: a store that opens and passes stead_check holds exactly one
 *     of the versions that were committed.
 *
 * STEAD_SEED repeats a run; STEAD_FUZZ_ROUNDS says how many stores (default 400, STEAD_LONG: 20,000; 100 under
 * AddressSanitizer).
 */
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/crash/versioned.h"
#include "tests/fuzz/mutate.h"
#include "tests/support/support.h"

#define SECONDS_MAX 200 /* of a process that may share the machine with many: a hang, not slowness */
#define RSS_MAX_KIB (1l << 20)
#define CAPACITY (UINT64_C(1) << 28)
#define LAST_VERSION 12

TestSuite(fuzz, .init = support_setup, .fini = support_teardown, .timeout = 7200);

/* In a damaged heap the library may well read a block that it believes to be free: no error, as long as it lies in the
 * store.  What it does to memory outside is still watched. */
__attribute__((visibility("default"))) const char *__asan_default_options(void); /* a name given by the tool */
const char *__asan_default_options(void)
{
    return "allow_user_poisoning=0";
}

/* ---- samples ---- */

enum sample { SEALED, CRASHED_SOLE, CRASHED_TURNS, UNCLEAN_LIVE, SAMPLES };
static const char *const sample_names[SAMPLES] = {"sealed", "crashed_sole", "crashed_turns", "unclean_live"};

static void log_name(char *out, size_t bytes, const char *store)
{
    snprintf(out, bytes, "%s-wal", store);
}

static void build(void *arg)
{
    enum sample sample = *(const enum sample *)arg;
    static const stead_sharing sharing[SAMPLES] = {STEAD_SOLE, STEAD_SOLE, STEAD_TURNS, STEAD_LIVE};
    stead *s;
    CHILD(stead_open(&s, path_in(sample_names[sample]),
                     &(stead_options){.sharing = sharing[sample], .capacity_bytes = CAPACITY}) == 0);
    bool turns = sample == CRASHED_TURNS;
    for (uint64_t v = 0; v <= LAST_VERSION; v++) {
        CHILD(!turns || stead_lock(s, STEAD_EXCLUSIVE, -1) == 0);
        CHILD(v == 0 ? versioned_make(s) == 0 : versioned_step(s, v) == 0);
        if (v == 5) { /* a large block, and a hole where another was */
            void *hole = stead_malloc(s, 3 << 20), *large = stead_malloc(s, 300000);
            CHILD(hole != NULL && stead_bind(s, "large", large) == 0);
            stead_free(hole);
        }
        CHILD(turns ? stead_unlock(s) == 0 : stead_commit(s, v % 3 == 0 ? STEAD_DURABLE : STEAD_BUFFERED) == 0);
    }
    if (sample == SEALED)
        CHILD(stead_close(s) == 0);
    _exit(0);
}

static void take_sample(enum sample sample)
{
    char from[256], to[256];
    copy_file(path_in(sample_names[sample]), path_in("hurt"));
    log_name(from, sizeof from, path_in(sample_names[sample]));
    log_name(to, sizeof to, path_in("hurt"));
    (void)unlink(to);
    if (access(from, F_OK) == 0)
        copy_file(from, to);
}

/* ---- what a program may do ---- */

enum {
    READ,
    READ_SOUND,
    WORKED,
    CLOSED,
    COUNTS
}; /* opens that succeeded, and how far they got: a run that only ever
                                                       meets refusals tries nothing */
static volatile uint32_t *counts;

static const char *range_start;
static uint64_t range_bytes;

static void inside(const void *p)
{
    CHILD(p == NULL || (uintptr_t)p - (uintptr_t)range_start < range_bytes);
}

static int see_block(void *block, size_t usable, void *arg)
{
    inside(block);
    CHILD(usable <= range_bytes);
    return ++*(unsigned *)arg > 100000;
}

static int see_name(const char *name, void *object, void *arg)
{
    CHILD(strlen(name) < 65536);
    inside(object);
    return ++*(unsigned *)arg > 100000;
}

static void look(stead *s)
{
    stead_status status;
    stead_report report;
    unsigned count = 0;
    CHILD(stead_stat(s, &status) == 0);
    range_start = status.base;
    range_bytes = status.capacity_bytes;
    (void)stead_check(s, &report);
    inside(stead_root(s));
    inside(stead_lookup(s, "even"));
    (void)stead_usable_size(stead_root(s));
    (void)stead_each_name(s, see_name, &count);
    count = 0;
    (void)stead_each_block(s, see_block, &count);
}

static void work(stead *s, uint64_t seed, bool turns)
{
    void *held[64] = {NULL};
    for (unsigned i = 0; i < 300; i++) {
        if (turns && stead_lock(s, STEAD_EXCLUSIVE, 1000) != 0)
            return;
        void **slot = &held[draw_below(&seed, 64)];
        uint64_t dice = draw_below(&seed, 100);
        size_t size = (size_t)(dice < 90 ? draw_below(&seed, 2000) : draw_below(&seed, 3 << 20));
        if (dice % 3 != 0) {
            stead_free(*slot);
            *slot = stead_malloc(s, size);
        } else {
            void *moved = stead_realloc(s, *slot, size + 1);
            *slot = moved != NULL ? moved : *slot;
        }
        inside(*slot);
        if (*slot != NULL)
            memset(*slot, (int)i, size < 64 ? size : 64);
        if (dice == 1)
            stead_free(stead_lookup(s, "odd"));
        if (dice == 2)
            (void)stead_bind(s, "new name", *slot);
        if (dice == 3)
            (void)stead_bind(s, "even", NULL);
        if (dice == 4 && !turns && stead_rollback(s) == 0)
            memset(held, 0, sizeof held);
        if (dice < 12 && !turns)
            CHILD(stead_commit(s, dice % 2 == 0 ? STEAD_DURABLE : STEAD_BUFFERED) == 0 ||
                  strlen(stead_last_error_text()) > 10);
        if (turns && stead_unlock(s) != 0) {
            (void)stead_rollback(s);
            memset(held, 0, sizeof held);
            if (stead_unlock(s) != 0)
                return;
        }
    }
}

struct trial {
    enum sample sample;
    bool sealed_again;
    uint64_t seed;
};

/* Blind damage: found, or harmless. */
static void judge(stead *s)
{
    uint64_t version;
    if (stead_check(s, NULL) == 0)
        CHILD(versioned_check(s, &version, NULL) == 0 && version <= LAST_VERSION);
}

static void trial(void *arg)
{
    struct trial *t = arg;
    const char *path = path_in("hurt");
    stead *s;
    alarm(SECONDS_MAX);
    stead_options looking = {.flags = STEAD_READ_ONLY | (draw(&t->seed) % 2 ? STEAD_ANY_ADDRESS : 0)};
    looking.sharing = t->sample == CRASHED_TURNS ? STEAD_TURNS : t->sample == UNCLEAN_LIVE ? STEAD_LIVE : STEAD_SOLE;
    int rc = stead_open(&s, path, &looking);
    if (rc == 0) {
        counts[READ]++;
        counts[READ_SOUND] += stead_check(s, NULL) == 0;
        if (!t->sealed_again && t->sample != UNCLEAN_LIVE && !(looking.flags & STEAD_ANY_ADDRESS))
            judge(s);
        look(s);
        stead_abandon(s);
    } else {
        CHILD(strlen(stead_last_error_text()) > 10);
    }
    stead_options working = {.flags = STEAD_EXISTING | STEAD_ACCEPT_UNCLEAN,
                             .sharing = (stead_sharing)draw_below(&t->seed, 3)};
    if (stead_open(&s, path, &working) == 0) {
        counts[WORKED]++;
        if (!t->sealed_again && t->sample != UNCLEAN_LIVE && working.sharing != STEAD_LIVE) /* it has no checksums */
            judge(s);
        look(s);
        work(s, t->seed, working.sharing == STEAD_TURNS);
        look(s);
        bool closed = draw(&t->seed) % 2 == 0 && stead_close(s) == 0;
        counts[CLOSED] += closed;
        if (!closed)
            stead_abandon(s);
    } else {
        CHILD(strlen(stead_last_error_text()) > 10);
    }
}

static uint64_t rounds(void)
{
#if defined(__SANITIZE_ADDRESS__)
    const uint64_t usual = 100;
#else
    const uint64_t usual = 400;
#endif
    const char *given = getenv("STEAD_FUZZ_ROUNDS");
    return given != NULL ? strtoull(given, NULL, 0) : test_long() ? 20000 : usual;
}

Test(fuzz, a_store_of_any_bytes_is_an_error_or_works)
{
    uint64_t seed = test_seed();
    char what[1024], log[256];
    counts = shared_words(COUNTS);
    log_name(log, sizeof log, path_in("hurt"));
    for (enum sample sample = 0; sample < SAMPLES; sample++)
        REAP_OK(spawn(build, &sample));
    for (uint64_t round = 0; round < rounds(); round++) {
        uint64_t random = seed + round; /* so that STEAD_SEED=<the one printed> STEAD_FUZZ_ROUNDS=1 repeats a failure */
        struct trial t = {(enum sample)draw_below(&random, SAMPLES), draw(&random) % 4 != 0, 0};
        take_sample(t.sample);
        cr_assert(mutate(&random, path_in("hurt"), log, t.sealed_again, what, sizeof what));
        t.seed = draw(&random);
        pid_t pid = spawn(trial, &t);
        int status;
        struct rusage usage;
        cr_assert_eq(wait4(pid, &status, 0, &usage), pid);
        cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0,
                  "STEAD_SEED=%" PRIu64 " STEAD_FUZZ_ROUNDS=1: %s, %s%s: %s %d", seed + round, sample_names[t.sample],
                  what, t.sealed_again ? "sealed again" : "blind", WIFSIGNALED(status) ? "signal" : "exit code",
                  WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        cr_assert_leq(usage.ru_maxrss, RSS_MAX_KIB, "STEAD_SEED=%" PRIu64 ": %s", seed + round, what);
    }
    uint64_t all = rounds();
    printf("%" PRIu64 " damaged stores: %u opened to read, %u of them sound; %u opened to write, %u closed whole\n",
           all, counts[READ], counts[READ_SOUND], counts[WORKED], counts[CLOSED]);
    if (all >= 100)
        cr_assert(counts[READ] > all / 10 && counts[WORKED] > all / 10 && counts[CLOSED] > 0 && counts[READ] < all);
}
