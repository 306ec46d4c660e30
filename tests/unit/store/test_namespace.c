/*
 * Processes in different PID namespaces share a store: each of them is process 1 of its own, so whoever went by pids would
 * take the other for itself, or for dead.
 *
 * Method: a child unshares the PID namespace and forks; the grandchild does the work.  Skipped, with a message, where
 * unshare(2) is not permitted.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/support.h"

TestSuite(namespace, .init = support_setup, .fini = support_teardown, .timeout = 300);

#define NOT_PERMITTED 251 /* CHILD() uses 1..250 */

enum { INSIDE, RELEASE, WORDS };

struct party {
    void (*body)(const struct party *party);
    char path[400];
    stead_sharing sharing;
    int timeout_ms, expected;
    bool killed;
    volatile uint32_t *word;
};

static void unshared(void *arg)
{
    const struct party *party = arg;
    if (unshare(CLONE_NEWPID) != 0)
        _exit(NOT_PERMITTED);
    pid_t pid = fork();
    if (pid < 0)
        _exit(NOT_PERMITTED); /* a limit of namespaces */
    if (pid == 0) {
        CHILD(getpid() == 1);
        party->body(party);
        _exit(0);
    }
    if (party->killed) {
        CHILD(await(&party->word[RELEASE], 1));
        CHILD(kill(pid, SIGKILL) == 0);
    }
    int code = reap(pid);
    _exit(party->killed && code == 128 + SIGKILL ? 0 : code);
}

static void nothing(const struct party *party)
{
    (void)party;
}

static bool permitted(void)
{
    struct party party = {.body = nothing};
    int code = reap(spawn(unshared, &party));
    cr_assert(code == 0 || code == NOT_PERMITTED, "the probe ended with %d", code);
    if (code == 0)
        return true;
    cr_skip_test("a PID namespace of one's own is not permitted here");
    return false;
}

static stead *open_party(const struct party *party)
{
    stead *s = NULL;
    CHILD(stead_open(&s, party->path, &(stead_options){.sharing = party->sharing, .timeout_ms = SOON_MS}) == 0);
    return s;
}

/* Changes the root's value to 2 and stays inside until told. */
static void hold(const struct party *party)
{
    stead *s = open_party(party);
    CHILD(stead_lock(s, STEAD_EXCLUSIVE, -1) == 0);
    *(uint64_t *)stead_root(s) = 2;
    party->word[INSIDE] = 1;
    CHILD(await(&party->word[RELEASE], party->killed ? 2 : 1)); /* 2: killed before that */
    CHILD(stead_unlock(s) == 0);
    CHILD(stead_close(s) == 0);
}

static void want(const struct party *party)
{
    stead *s = open_party(party);
    int rc = stead_lock(s, STEAD_EXCLUSIVE, party->timeout_ms);
    CHILD(rc == party->expected);
    if (rc == ETIMEDOUT) {
        party->word[RELEASE] = 1;
        CHILD(stead_lock(s, STEAD_EXCLUSIVE, SOON_MS) == 0);
        CHILD(*(uint64_t *)stead_root(s) == 2);
    } else if (rc == EOWNERDEAD) {
        CHILD(stead_make_consistent(s) == 0);
    } else {
        CHILD(*(uint64_t *)stead_root(s) == 1);
    }
    CHILD(stead_unlock(s) == 0);
    CHILD(stead_close(s) == 0);
}

static void run(stead_sharing sharing, bool killed, int timeout_ms, int expected)
{
    stead *s;
    void *root;
    struct party holder = {.body = hold, .sharing = sharing, .killed = killed, .word = shared_words(WORDS)};
    (void)snprintf(holder.path, sizeof holder.path, "%s", path_in("s"));
    OK(stead_open(&s, holder.path, NULL));
    OK(stead_root_once(s, sizeof(uint64_t), NULL, NULL, &root));
    *(uint64_t *)root = 1;
    OK(stead_close(s));
    struct party other = holder;
    other.body = want;
    other.killed = false;
    other.timeout_ms = timeout_ms;
    other.expected = expected;
    pid_t first = spawn(unshared, &holder);
    cr_assert(await(&holder.word[INSIDE], 1));
    pid_t second = spawn(unshared, &other);
    if (killed) {
        pause_ms(50); /* it waits by now, or comes later: both are to be right */
        holder.word[RELEASE] = 1;
    }
    REAP_OK(second);
    REAP_OK(first);
    OK(stead_remove(holder.path));
}

Test(namespace, a_living_holder_in_another_one_is_never_taken_for_dead)
{
    if (!permitted())
        return;
    run(STEAD_TURNS, false, 400, ETIMEDOUT); /* long enough for several looks at who lives */
    run(STEAD_LIVE, false, 400, ETIMEDOUT);
}

Test(namespace, a_killed_holder_in_another_one_is_noticed)
{
    if (!permitted())
        return;
    run(STEAD_TURNS, true, SOON_MS, 0);
    run(STEAD_LIVE, true, SOON_MS, EOWNERDEAD);
}

/* ---- file systems */

static void mount_own(const char *folder)
{
    CHILD(mkdir(folder, 0700) == 0);
    if (mount("none", folder, "tmpfs", 0, "size=64m") != 0)
        _exit(NOT_PERMITTED);
}

/* Fresh file systems number their files alike. */
static void open_in_two_file_systems(void *arg)
{
    stead *s[2];
    struct stat facts[2];
    (void)arg;
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        _exit(NOT_PERMITTED);
    for (unsigned i = 0; i < 2; i++) {
        mount_own(path_in(i == 0 ? "a" : "b"));
        const char *path = path_in(i == 0 ? "a/s" : "b/s");
        CHILD(stead_open(&s[i], path, NULL) == 0);
        CHILD(stat(path, &facts[i]) == 0);
    }
    CHILD(facts[0].st_ino == facts[1].st_ino && facts[0].st_dev != facts[1].st_dev);
    CHILD(s[0] != s[1]);
    for (unsigned i = 0; i < 2; i++)
        CHILD(stead_set_root(s[i], stead_malloc(s[i], (size_t)16 << i)) == 0);
    for (unsigned i = 0; i < 2; i++)
        CHILD(stead_of(stead_root(s[i])) == s[i] && stead_close(s[i]) == 0);
}

/* A store is known by its device and its number there, not by one of them. */
Test(namespace, files_of_one_number_in_two_file_systems_are_two_stores)
{
    int code = reap(spawn(open_in_two_file_systems, NULL));
    if (code == NOT_PERMITTED)
        cr_skip_test("a file system of one's own is not permitted here");
    cr_assert_eq(code, 0, "the child ended with %d", code);
}
