/*
 * Closing while others come, go and die.
 *
 * Method of the first test: every fcntl(2) of this program passes a hook here, so a neighbour can be killed between two
 * questions that a close asks the kernel about it.  Of the others: processes with a few threads each open, use and close one
 * store as fast as they can; who waits long enough must never be told that it is busy.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lock/bytes.h"
#include "support/support.h"

TestSuite(close_race, .init = support_setup, .fini = support_teardown, .timeout = 300);

static void (*after_look)(const struct flock *found); /* somebody's slot byte was asked for and is held */

/* For the whole program, in the place of the C library's. */
int fcntl(int fd, int command, ...)
{
    va_list args;
    va_start(args, command);
    long arg = va_arg(args, long);
    va_end(args);
    int rc = (int)syscall(SYS_fcntl, fd, command, arg);
    if (rc == 0 && command == F_OFD_GETLK && after_look != NULL) {
        const struct flock *found = (const struct flock *)(uintptr_t)arg;
        if (found->l_type != F_UNLCK && found->l_start >= LOCK_BYTES_START + LOCK_BYTE_SLOT0)
            after_look(found);
    }
    return rc;
}

struct neighbour {
    const char *path;
    volatile uint32_t *words; /* [0]: has the store open */
};

#define LIFE_S 1000 /* of a child whose parent failed */

static void stay(void *arg)
{
    const struct neighbour *n = arg;
    stead *s;
    alarm(LIFE_S);
    CHILD(stead_open(&s, n->path, &(stead_options){.sharing = STEAD_LIVE, .timeout_ms = SOON_MS}) == 0);
    CHILD(stead_malloc(s, 100) != NULL);
    n->words[0] = 1;
    pause();
}

static pid_t victim;
static unsigned looks_before_death;

static void kill_neighbour(const struct flock *found)
{
    (void)found;
    if (victim != 0 && looks_before_death-- == 0) {
        kill(victim, SIGKILL);
        cr_assert_eq(reap(victim), 128 + SIGKILL);
        victim = 0;
    }
}

/* Whichever of the close's questions its death comes after, one that ended without close is never sealed over. */
Test(close_race, a_neighbour_that_dies_during_the_close_is_not_sealed_over)
{
    bool alive_to_the_end = false;
    for (unsigned looks = 0; !alive_to_the_end; looks++) {
        struct neighbour n = {path_in("s"), shared_words(1)};
        stead *s;
        OK(stead_open(&s, n.path, &(stead_options){.sharing = STEAD_LIVE}));
        victim = spawn(stay, &n);
        cr_assert(await(&n.words[0], 1));
        pid_t pid = victim;
        looks_before_death = looks;
        after_look = kill_neighbour;
        OK(stead_close(s));
        after_look = NULL;
        alive_to_the_end = victim != 0;
        if (alive_to_the_end) {
            kill(pid, SIGKILL);
            cr_assert_eq(reap(pid), 128 + SIGKILL);
            victim = 0;
        }
        cr_assert_lt(looks, 100);
        FAILS(stead_open(&s, n.path, &(stead_options){.sharing = STEAD_LIVE}), STEAD_UNCLEAN);
        OK(stead_open(&s, n.path, &(stead_options){.sharing = STEAD_LIVE, .flags = STEAD_ACCEPT_UNCLEAN}));
        OK(stead_close(s));
        OK(stead_remove(n.path));
        cr_assert(looks > 0 || !alive_to_the_end, "the close asked for nobody: this test proves nothing");
    }
}

/* ---- come and go */

enum { COMERS = 4, THREADS = 3 };

struct come_and_go {
    const char *path;
    stead_sharing sharing;
    unsigned rounds;
    unsigned reader_of; /* each n-th open is a reader's; 0: none */
};

static void use_as_reader(stead *s)
{
    CHILD(stead_lock(s, STEAD_SHARED, SOON_MS) == 0);
    CHILD(stead_root(s) != NULL);
    CHILD(stead_unlock(s) == 0);
}

static void use_as_writer(stead *s)
{
    CHILD(stead_lock(s, STEAD_EXCLUSIVE, SOON_MS) == 0);
    uint64_t *counter = stead_root(s);
    CHILD(counter != NULL);
    ++*counter;
    void *block = stead_malloc(s, 100 + *counter % 5000);
    CHILD(block != NULL);
    stead_free(block);
    CHILD(stead_unlock(s) == 0);
}

static void *come_and_go_thread(void *arg)
{
    const struct come_and_go *c = arg;
    for (unsigned round = 0; round < c->rounds; round++) {
        bool reads = c->reader_of != 0 && (unsigned)getpid() % c->reader_of == 0;
        stead_options options = {
            .flags = reads ? STEAD_READ_ONLY : 0, .sharing = c->sharing, .timeout_ms = round % 2 != 0 ? -1 : SOON_MS};
        stead *s;
        CHILD(stead_open(&s, c->path, &options) == 0);
        if (reads)
            use_as_reader(s);
        else
            use_as_writer(s);
        CHILD(stead_close(s) == 0);
    }
    return NULL;
}

static void come_and_go(void *arg)
{
    pthread_t threads[THREADS];
    for (unsigned i = 0; i < THREADS; i++)
        CHILD(pthread_create(&threads[i], NULL, come_and_go_thread, arg) == 0);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

static void test_come_and_go(stead_sharing sharing, unsigned reader_of)
{
    struct come_and_go c = {path_in("s"), sharing, test_long() ? 1000 : 15, reader_of};
    stead *s;
    void *root;
    stead_report report;
    pid_t pids[COMERS];
    OK(stead_open(&s, c.path, &(stead_options){.sharing = sharing}));
    OK(stead_root_once(s, 64, NULL, NULL, &root));
    OK(stead_close(s));
    for (unsigned i = 0; i < COMERS; i++)
        pids[i] = spawn(come_and_go, &c);
    unsigned writers = 0;
    for (unsigned i = 0; i < COMERS; i++) {
        writers += reader_of == 0 || (unsigned)pids[i] % reader_of != 0;
        REAP_OK(pids[i]);
    }
    OK(stead_open(&s, c.path, &(stead_options){.sharing = sharing}));
    cr_assert_eq(*(uint64_t *)stead_root(s), (uint64_t)writers * THREADS * c.rounds);
    OK(stead_check(s, &report));
    OK(stead_close(s));
}

Test(close_race, nobody_is_refused_who_comes_and_goes_in_live)
{
    test_come_and_go(STEAD_LIVE, 0);
    OK(stead_remove(path_in("s")));
    test_come_and_go(STEAD_LIVE, 2);
}

Test(close_race, nobody_is_refused_who_comes_and_goes_in_turns)
{
    test_come_and_go(STEAD_TURNS, 0);
    OK(stead_remove(path_in("s")));
    test_come_and_go(STEAD_TURNS, 2);
}

Test(close_race, nobody_is_refused_who_comes_and_goes_in_sole)
{
    test_come_and_go(STEAD_SOLE, 2);
}

/* ---- ... and die */

static void live_section(stead *s)
{
    int rc = stead_lock(s, STEAD_EXCLUSIVE, SOON_MS);
    CHILD(rc == 0 || rc == EOWNERDEAD);
    uint64_t *pair = stead_root(s);
    CHILD(pair != NULL);
    if (rc == EOWNERDEAD) {
        pair[1] = pair[0];
        CHILD(stead_make_consistent(s) == 0);
    }
    CHILD(pair[0] == pair[1]);
    pair[0]++;
    void *block = stead_malloc(s, 100 + pair[0] % 5000);
    CHILD(block != NULL);
    stead_free(block);
    pair[1]++;
    CHILD(stead_unlock(s) == 0);
}

static void *live_thread(void *arg)
{
    for (;;) {
        stead *s;
        CHILD(stead_open(
                  &s, arg,
                  &(stead_options){.flags = STEAD_ACCEPT_UNCLEAN, .sharing = STEAD_LIVE, .timeout_ms = SOON_MS}) == 0);
        for (unsigned i = 0; i < 3; i++)
            live_section(s);
        CHILD(stead_close(s) == 0);
    }
    return NULL;
}

static void live_until_killed(void *arg)
{
    pthread_t thread;
    alarm(LIFE_S);
    CHILD(pthread_create(&thread, NULL, live_thread, arg) == 0);
    live_thread(arg);
}

Test(close_race, nobody_is_refused_beside_the_dying_in_live)
{
    uint64_t random = test_seed();
    const char *path = path_in("s");
    pid_t pids[COMERS];
    stead *s;
    void *root;
    stead_report report;
    OK(stead_open(&s, path, &(stead_options){.sharing = STEAD_LIVE}));
    OK(stead_root_once(s, 64, NULL, NULL, &root));
    /* It stays open here: if all were gone, who accepts the unclean store would have to judge its data. */
    for (unsigned i = 0; i < COMERS; i++)
        pids[i] = spawn(live_until_killed, (void *)(uintptr_t)path);
    for (unsigned kills = 0; kills < (test_long() ? 1000 : 40); kills++) {
        random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        pause_ms((int)(random >> 33) % 20);
        unsigned i = (unsigned)(random >> 53) % COMERS;
        kill(pids[i], SIGKILL);
        cr_assert_eq(reap(pids[i]), 128 + SIGKILL, "it ended before: something was refused");
        pids[i] = spawn(live_until_killed, (void *)(uintptr_t)path);
    }
    for (unsigned i = 0; i < COMERS; i++) {
        kill(pids[i], SIGKILL);
        cr_assert_eq(reap(pids[i]), 128 + SIGKILL, "it ended before: something was refused");
    }
    live_section(s);
    OK(stead_check(s, &report));
    OK(stead_close(s));
}

/* ---- the verdict on an unclean store is looked for while others change it */

static void stay_and_change(void *arg)
{
    const struct neighbour *n = arg;
    stead *s;
    enum { BLOCKS = 200, GROWTHS = 300 };
    void *blocks[BLOCKS] = {NULL};
    alarm(LIFE_S);
    CHILD(stead_open(&s, n->path,
                     &(stead_options){.flags = STEAD_ACCEPT_UNCLEAN, .sharing = STEAD_LIVE, .timeout_ms = SOON_MS}) ==
          0);
    n->words[0] = 1;
    for (uint64_t i = 0; n->words[1] == 0; i++) { /* runs come and go, and now and then the file grows */
        stead_free(blocks[i % BLOCKS]);
        CHILD((blocks[i % BLOCKS] = stead_malloc(s, 4000 + i % 97 * 600)) != NULL);
        CHILD(i % 50 != 0 || i > 50 * GROWTHS || stead_malloc(s, 200000) != NULL);
    }
    stead_abandon(s);
}

Test(close_race, unclean_is_not_called_corrupt_while_others_change_it)
{
    struct neighbour changer = {path_in("s"), shared_words(2)}, dead = {changer.path, shared_words(2)};
    stead *s;
    pid_t changing = spawn(stay_and_change, &changer);
    cr_assert(await(&changer.words[0], 1));
    pid_t pid = spawn(stay, &dead);
    cr_assert(await(&dead.words[0], 1));
    kill(pid, SIGKILL);
    cr_assert_eq(reap(pid), 128 + SIGKILL);
    for (unsigned i = 0; i < (test_long() ? 2000 : 100); i++)
        FAILS(stead_open(&s, changer.path, &(stead_options){.sharing = STEAD_LIVE}), STEAD_UNCLEAN);
    changer.words[1] = 1;
    REAP_OK(changing);
}
