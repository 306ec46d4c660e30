/*
 * test_backup.c -- a backup is made while commits go on: none of them waits for it, and it is exactly one of them.
 *
 * Method: the calls that copy bytes are replaced by ones that stop half-way until a number of commits was made.  If a
 * commit waited for the copy, both would stand still and the test would end by its timeout.  Every commit writes its
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
#define COMMITS 400

static void setup(void)
{
    support_setup();
}

static void teardown(void)
{
    file_calls = file_calls_system;
    support_teardown();
}

TestSuite(backup, .init = setup, .fini = teardown, .timeout = 120);

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

static atomic_uint copies, commits;
static ssize_t slow_copy(int from, off_t *from_at, int to, off_t *to_at, size_t bytes)
{
    const size_t piece = (size_t)1 << 20;
    unsigned n = atomic_fetch_add(&copies, 1);
    while (n == 3 && atomic_load(&commits) < COMMITS)
        usleep(1000);
    return file_calls_system.copy_file_range(from, from_at, to, to_at, bytes < piece ? bytes : piece);
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
    job->rc = stead_backup(job->store, job->path);
    if (job->rc != 0)
        fprintf(stderr, "%s\n", stead_last_error_text());
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

static void backup_beside_commits(stead_sharing sharing)
{
    stead *s;
    pthread_t thread;
    struct job job = {.path = path_in("copy")};
    txn_log_limit_bytes = 256 << 10; /* passed many times over while the copy is made */
    OK(stead_open(&s, path_in("s"), &(stead_options){.sharing = sharing}));
    if (sharing == STEAD_TURNS)
        OK(stead_lock(s, STEAD_EXCLUSIVE, -1));
    struct table *table = stead_calloc(s, 1, sizeof *table);
    cr_assert_not_null(table);
    for (unsigned i = 0; i < OBJECTS; i++)
        cr_assert_not_null(table->object[i] = stead_calloc(s, 1, OBJECT_BYTES));
    OK(stead_set_root(s, table));
    if (sharing == STEAD_TURNS)
        OK(stead_unlock(s));
    commit_once(s, table, sharing, 1, true);
    commit_once(s, table, sharing, 2, false); /* in the log only: part of the backup all the same */
    job.store = s;
    file_calls.copy_file_range = slow_copy;
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
        atomic_fetch_add(&commits, 1);
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

    OK(stead_open(&s, job.path, NULL));
    cr_assert_eq(shown_version(s, 50), 2, "the commit that was the last one when the backup began");
    OK(stead_check(s, NULL));
    OK(stead_stat(s, &status));
    cr_assert_not(status.recovered);
    OK(stead_close(s));
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
