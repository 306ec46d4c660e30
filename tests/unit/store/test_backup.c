/*
 * test_backup.c -- a backup is made while commits go on: none of them waits for it, it is exactly one of them, and the log
 * is applied meanwhile.
 *
 * Method: the copier's writes are replaced by ones that stop half-way until a number of commits was made.  If a
 * commit waited for the copy, both would stand still and the test would end by its timeout.  Where the length of the log is
 * looked at, each also waits for the other: else it would tell which of them the machine let run.  Every commit writes its
 * number into each of many objects that are scattered over the store, so that a mixture of two is seen.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "persist/file.h"
#include "persist/txn.h"
#include "support/support.h"

#define OBJECTS 2000
#define OBJECT_BYTES 16000 /* 32 MB in all: several groups of the file, and many steps of a copy */
#define COMMITS 300
#define COMMITS_A_WRITE 3 /* at least ... */
#define COMMITS_A_WRITE_MAX 8
#define LONG_WRITE_BYTES 200000
#define ROUNDS_MAX 20 /* where the machine lets only one of the two run */

/* What the copier and who commits tell each other, in memory that a copier in another process shares. */
static struct pace {
    _Atomic uint32_t commits;  /* made so far                                                             */
    _Atomic uint32_t writes;   /* long ones that the copier began                                         */
    _Atomic uint32_t at_limit; /* the log is as long as it may be: the next commit waits for the copier    */
} * pace;

static void setup(void)
{
    support_setup();
    pace = (struct pace *)(uintptr_t)shared_words(sizeof *pace / sizeof(uint32_t));
}

static void teardown(void)
{
    file_calls = file_calls_system;
    support_teardown();
}

TestSuite(backup, .init = setup, .fini = teardown, .timeout = 300);

struct table {
    uint64_t version;
    uint64_t *object[OBJECTS];
};

static void write_version(struct table *table, uint64_t version, unsigned step)
{
    table->version = version;
    for (unsigned i = 0; i < OBJECTS; i += step)
        table->object[i][(version + i) % (OBJECT_BYTES / 8)] = version;
}

/* The number of the commit that the store shows; fails on a mixture. */
static uint64_t shown_version(stead *s, unsigned step)
{
    const struct table *table = stead_root(s);
    cr_assert_not_null(table);
    for (unsigned i = 0; i < OBJECTS; i += step) {
        uint64_t newest = 0;
        for (unsigned w = 0; w < OBJECT_BYTES / 8; w++)
            newest = table->object[i][w] > newest ? table->object[i][w] : newest;
        cr_assert_eq(newest, table->version, "object %u is of commit %llu, the root of %llu", i,
                     (unsigned long long)newest, (unsigned long long)table->version);
    }
    return table->version;
}

/* ---- the copy that waits */

static _Thread_local bool copier; /* this thread is in stead_backup() */
static atomic_uint copies, copied;
static ssize_t stopped_copy(int fd, const void *bytes, size_t count, off_t at)
{
    unsigned n = copier ? atomic_fetch_add(&copies, 1) : 0;
    while (copier && n == 3 && atomic_load(&pace->commits) < COMMITS)
        usleep(1000);
    return file_calls_system.pwrite(fd, bytes, count, at);
}
/* Some commits with each long write. */
static ssize_t slow_copy(int fd, const void *bytes, size_t count, off_t at)
{
    if (copier && count >= LONG_WRITE_BYTES) {
        atomic_fetch_add(&pace->writes, 1); /* first: who waits for it makes the commits that are waited for here */
        uint32_t before = atomic_load(&pace->commits);
        while (atomic_load(&pace->commits) - before < COMMITS_A_WRITE && atomic_load(&pace->at_limit) == 0)
            usleep(100);
    }
    return file_calls_system.pwrite(fd, bytes, count, at);
}
static int no_clone(int to, int from)
{
    (void)to, (void)from;
    errno = EOPNOTSUPP;
    return -1;
}

struct job {
    stead *store;
    const char *path;
    int rc;
};

static void *make_backup(void *arg)
{
    struct job *job = arg;
    copier = true;
    job->rc = stead_backup(job->store, job->path);
    if (job->rc != 0)
        fprintf(stderr, "%s\n", stead_last_error_text());
    atomic_store(&copied, 1);
    return NULL;
}

static void commit_once(stead *s, struct table *table, stead_sharing sharing, uint64_t version, bool durable)
{
    if (sharing == STEAD_TURNS)
        OK(stead_lock(s, STEAD_EXCLUSIVE, -1));
    write_version(table, version, 50);
    if (sharing == STEAD_TURNS)
        OK(stead_unlock(s));
    if (sharing == STEAD_SOLE || durable)
        OK(stead_commit(s, durable ? STEAD_DURABLE : STEAD_BUFFERED));
}

/* A store of OBJECTS objects at version 2; opened with a patience of so long. */
static stead *make_store(stead_sharing sharing, int timeout_ms)
{
    stead *s;
    OK(stead_open(&s, path_in("s"), &(stead_options){.sharing = sharing, .timeout_ms = timeout_ms}));
    if (sharing == STEAD_TURNS)
        OK(stead_lock(s, STEAD_EXCLUSIVE, -1));
    struct table *table = stead_calloc(s, 1, sizeof *table);
    cr_assert_not_null(table);
    for (unsigned i = 0; i < OBJECTS; i++) { /* no page of zeros, which a copy leaves out */
        cr_assert_not_null(table->object[i] = stead_malloc(s, OBJECT_BYTES));
        for (unsigned w = 0; w < OBJECT_BYTES / 8; w++)
            table->object[i][w] = 1;
    }
    OK(stead_set_root(s, table));
    if (sharing == STEAD_TURNS)
        OK(stead_unlock(s));
    commit_once(s, table, sharing, 1, true);
    commit_once(s, table, sharing, 2, false); /* in the log only: part of the backup all the same */
    return s;
}

/* The copy is a whole store, of one of these commits. */
static void expect_copy_of(const char *path, uint64_t first, uint64_t last)
{
    stead *s;
    stead_status status;
    OK(stead_open(&s, path, NULL));
    uint64_t version = shown_version(s, 50);
    cr_assert(version >= first && version <= last, "commit %llu", (unsigned long long)version);
    OK(stead_check(s, NULL));
    OK(stead_stat(s, &status));
    cr_assert_not(status.recovered);
    OK(stead_close(s));
}

static void backup_beside_commits(stead_sharing sharing)
{
    pthread_t thread;
    struct job job = {.path = path_in("copy")};
    txn_log_limit_bytes = 256 << 10; /* passed many times over while the copy is made */
    stead *s = make_store(sharing, 0);
    struct table *table = stead_root(s);
    job.store = s;
    file_calls.pwrite = stopped_copy;
    file_calls.clone = no_clone;
    cr_assert_eq(pthread_create(&thread, NULL, make_backup, &job), 0);
    while (atomic_load(&copies) < 4)
        usleep(1000); /* it is under way */
    for (unsigned n = 0; n < COMMITS; n++) {
        commit_once(s, table, sharing, 3 + n, n % 20 == 0);
        if (n % 40 == 0) { /* the heap grows: pages past the end are written straight into the file */
            if (sharing == STEAD_TURNS)
                OK(stead_lock(s, STEAD_EXCLUSIVE, -1));
            for (int i = 0; i < 100; i++)
                cr_assert_not_null(memset(stead_malloc(s, OBJECT_BYTES), 0xee, OBJECT_BYTES));
            if (sharing == STEAD_TURNS)
                OK(stead_unlock(s));
        }
        atomic_fetch_add(&pace->commits, 1);
    }
    cr_assert_eq(pthread_join(thread, NULL), 0);
    OK(job.rc);
    file_calls = file_calls_system;
    stead_status status;
    OK(stead_stat(s, &status));
    cr_assert_gt(status.log_bytes, txn_log_limit_bytes, "the log never passed its limit: nothing was proved");
    commit_once(s, table, sharing, 3 + COMMITS, true); /* and now it is brought home */
    OK(stead_stat(s, &status));
    cr_assert_lt(status.log_bytes, txn_log_limit_bytes);
    OK(stead_close(s));
    OK(stead_open(&s, path_in("s"), NULL));
    cr_assert_eq(shown_version(s, 50), 3 + COMMITS);
    OK(stead_close(s));

    expect_copy_of(job.path, 2, 3 + COMMITS - 1);
}

Test(backup, no_commit_waits_for_it_in_sole)
{
    backup_beside_commits(STEAD_SOLE);
}

Test(backup, no_section_of_its_process_waits_for_it_in_turns)
{
    backup_beside_commits(STEAD_TURNS);
}

/* By the thread that is in the middle of a transaction: the last commit, and the transaction goes on. */
Test(backup, inside_a_transaction_is_the_commit_before_it)
{
    stead *s;
    OK(stead_open(&s, path_in("s"), NULL));
    uint64_t *word = stead_calloc(s, 1, sizeof *word);
    OK(stead_set_root(s, word));
    *word = 1;
    OK(stead_commit(s, STEAD_BUFFERED));
    OK(stead_lock(s, STEAD_EXCLUSIVE, -1));
    *word = 2;
    OK(stead_backup(s, path_in("copy")));
    cr_assert_eq(*word, 2);
    OK(stead_unlock(s));
    OK(stead_close(s));
    OK(stead_open(&s, path_in("copy"), NULL));
    cr_assert_eq(*(uint64_t *)stead_root(s), 1);
    OK(stead_close(s));
}

/* ---- the log while a copy is made */

#define LOG_LIMIT (UINT64_C(64) << 10)

static unsigned brought_home; /* how often commit_until_copied() saw the log shorter than before */

/* Commits, a few with each write of the copier; returns how long the log got.  waits: for the copier, with the log at its
 * limit. */
static uint64_t commit_until_copied(stead *s, stead_sharing sharing, bool waits, uint64_t *version)
{
    struct table *table = stead_root(s);
    uint64_t longest = 0, before = 0;
    uint32_t seen = 0, since = 0; /* writes of the copier, and commits since the last one */
    stead_status status;
    while (atomic_load(&copied) == 0) {
        if (atomic_load(&pace->writes) != seen) {
            seen = atomic_load(&pace->writes);
            since = 0;
        }
        if (since == COMMITS_A_WRITE_MAX) {
            usleep(100);
            continue;
        }
        since++;
        commit_once(s, table, sharing, ++*version, true);
        OK(stead_stat(s, &status));
        longest = status.log_bytes > longest ? status.log_bytes : longest;
        brought_home += status.log_bytes < before;
        before = status.log_bytes;
        atomic_store(&pace->at_limit, waits && status.log_bytes >= LOG_LIMIT);
        atomic_fetch_add(&pace->commits, 1);
    }
    return longest;
}

/* One copy, by this process; how long the log got meanwhile. */
static uint64_t copy_once(struct job *job, stead_sharing sharing, uint64_t *version)
{
    pthread_t thread;
    uint64_t before = *version;
    atomic_store(&copied, 0);
    (void)unlink(job->path);
    cr_assert_eq(pthread_create(&thread, NULL, make_backup, job), 0);
    uint64_t longest = commit_until_copied(job->store, sharing, false, version);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    OK(job->rc);
    cr_assert_gt((*version - before) * 1024, 5 * LOG_LIMIT, "the log was never near its limit: nothing was proved");
    return longest;
}

/* A commit waits for a piece for a moment only: of a copier that stands still in each one, the log would tell just that.  Not
 * applied at all while a copy is made, it gets too long in every round. */
static void log_beside_a_copy(stead_sharing sharing)
{
    uint64_t version = 2, longest = 4 * LOG_LIMIT;
    char path[512];
    struct job job = {.path = path};
    (void)snprintf(path, sizeof path, "%s", path_in("copy"));
    txn_log_limit_bytes = LOG_LIMIT;
    job.store = make_store(sharing, 0);
    file_calls.pwrite = slow_copy;
    file_calls.clone = no_clone;
    for (unsigned round = 0; longest >= 4 * LOG_LIMIT; round++) {
        cr_assert_lt(round, ROUNDS_MAX, "the log grew to %llu bytes", (unsigned long long)longest);
        longest = copy_once(&job, sharing, &version);
    }
    OK(stead_close(job.store));
    expect_copy_of(job.path, 2, version);
}

Test(backup, the_log_is_applied_while_its_process_makes_one_in_sole)
{
    log_beside_a_copy(STEAD_SOLE);
}

Test(backup, the_log_is_applied_while_its_process_makes_one_in_turns)
{
    log_beside_a_copy(STEAD_TURNS);
}

static void copy_as_reader(void *arg)
{
    stead *r;
    (void)arg;
    copier = true;
    file_calls.pwrite = slow_copy;
    file_calls.clone = no_clone;
    CHILD(stead_open(&r, path_in("s"), &(stead_options){.flags = STEAD_READ_ONLY, .timeout_ms = SOON_MS}) == 0);
    CHILD(stead_backup(r, path_in("copy")) == 0);
    CHILD(stead_close(r) == 0);
}

static void *await_child(void *arg)
{
    pid_t *pid = arg;
    REAP_OK(*pid);
    atomic_store(&copied, 1);
    return NULL;
}

Test(backup, the_log_is_applied_while_a_reader_makes_one)
{
    pthread_t thread;
    uint64_t version = 2;
    txn_log_limit_bytes = LOG_LIMIT;
    stead *s = make_store(STEAD_SOLE, SOON_MS); /* a piece is waited for, and not all of the copy: that would be once */
    for (unsigned round = 0; brought_home < 3;
         round++) { /* each time the copier lets go of the file, but for bad luck */
        cr_assert_lt(round, ROUNDS_MAX, "commits wait for the copy");
        brought_home = 0;
        atomic_store(&copied, 0);
        (void)unlink(path_in("copy"));
        pid_t pid = spawn(copy_as_reader, NULL);
        cr_assert_eq(pthread_create(&thread, NULL, await_child, &pid), 0);
        uint64_t longest = commit_until_copied(s, STEAD_SOLE, true, &version);
        cr_assert_eq(pthread_join(thread, NULL), 0);
        cr_assert_lt(longest, 2 * LOG_LIMIT, "the log grew to %llu bytes", (unsigned long long)longest);
    }
    OK(stead_close(s));
    expect_copy_of(path_in("copy"), 2, version);
}
