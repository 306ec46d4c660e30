/*
 * tree_session.c -- one store file that outlives the program.
 *
 * The root object says how many keys each worker has inserted, changed in the same critical section as the tree, so
 * that whatever a crash leaves can be judged exactly: the tree must hold the first inserted[w] keys of worker w's
 * sequence, for every w, and nothing else.
 *
 *   find    stead_open; an unclean LIVE store is refused (STEAD_UNCLEAN), reported, then accepted and recounted
 *   verify  T1 and T2 (pointer_tree.h), the sum of inserted[], every key searched
 *   build   nothing found, or --kill-at: count more keys a worker
 *   search  every key, ten times;  remove everything unless --keep;  close
 *
 * --kill-at K: whoever makes the K-th insert dies by SIGKILL inside the critical section, the node linked and the
 * counts not yet written.  SOLE commits every --commit-every inserts, so that there is a last commit to come back to; a
 * TURNS section is a commit of its own; LIVE keeps the half-made insert and must say so.
 */
#include "bench/tree.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/peers/pointer_tree.h"
#include "bench/support/clock.h"
#include "bench/support/row.h"

struct session_root {
    struct tree_root tree;
    uint64_t inserted[TREE_WORKERS_MAX]; /* keys of each worker's sequence that are in the tree */
};

struct session_shared {               /* between the coordinator and its processes */
    _Atomic uint64_t made, committed; /* inserts of this run; how many of them the last commit holds */
    _Atomic int64_t begin_ns, end_ns;
};

struct session {
    const struct tree_options *options;
    struct session_shared *shared;
    stead *store;
    struct session_root *root;
    unsigned process;
};

struct session_worker {
    struct session *session;
    unsigned number;
    int rc;
};

static int say_failure(const char *what, int error)
{
    progress("%s", "");
    fprintf(stderr, "tree: %s: %s\n", what, peer_error_text(error));
    return 1;
}

static int verify_structure(const struct session *session, const char **wrong)
{
    stead_status status;
    uint64_t count, sum;
    int rc = stead_stat(session->store, &status);
    if (rc != 0) {
        *wrong = "stead_stat";
        return rc;
    }
    return tree_verify(&session->root->tree, status.base, (char *)status.base + status.capacity_bytes, &count, &sum,
                       wrong);
}

/* After a LIVE crash: at most one insert was under way in each dead worker, its node linked or not.  Recounts, and
 * moves inserted[] over a key that made it in. */
static int repair(struct session *session)
{
    struct session_root *root = session->root;
    stead_status status;
    const char *wrong;
    uint64_t count = 0, sum = 0;
    int rc = stead_stat(session->store, &status);
    if (rc != 0)
        return rc;
    rc = tree_verify(&root->tree, status.base, (char *)status.base + status.capacity_bytes, &count, &sum, &wrong);
    if (rc != 0 && strncmp(wrong, "T2", 2) != 0)
        return rc;
    root->tree.count = count;
    root->tree.sum = sum;
    for (unsigned w = 0; w < TREE_WORKERS_MAX; w++) {
        uint32_t key = w + 1;
        for (uint64_t i = 0; i <= root->inserted[w]; i++)
            key = tree_next_key(key);
        if (tree_find(&root->tree, key) != NULL)
            root->inserted[w]++;
    }
    return 0;
}

static int lock_twice(struct session *session, stead_lock_mode mode)
{
    int rc = stead_lock(session->store, mode, -1);
    if (rc == EOWNERDEAD) {
        rc = repair(session);
        if (rc == 0)
            rc = stead_make_consistent(session->store);
    }
    return rc != 0 ? rc : stead_lock(session->store, mode, -1);
}

static int unlock_twice(struct session *session)
{
    int rc = stead_unlock(session->store);
    int outer = stead_unlock(session->store);
    return rc != 0 ? rc : outer;
}

/* SOLE: called inside the critical section, so that the commit holds whole inserts only. */
static int commit_if_due(struct session *session, uint64_t made)
{
    const struct tree_options *o = session->options;
    uint64_t every = o->commit_every != 0 ? o->commit_every : o->kill_at > 1 ? o->kill_at / 2 : 0;
    if (o->sharing != STEAD_SOLE || every == 0 || made % every != 0)
        return 0;
    int rc = stead_commit(session->store, STEAD_DURABLE);
    if (rc == 0)
        atomic_store(&session->shared->committed, made);
    return rc;
}

static int insert(struct session *session, unsigned worker, uint64_t key)
{
    int rc = lock_twice(session, STEAD_EXCLUSIVE);
    if (rc != 0)
        return rc;
    struct tree_node *node = stead_malloc(session->store, sizeof *node);
    if (node == NULL) {
        rc = errno;
        (void)unlock_twice(session);
        return rc;
    }
    uint64_t made = atomic_fetch_add(&session->shared->made, 1) + 1;
    if (made == session->options->kill_at) { /* in the tree, but not counted */
        struct tree_root uncounted = session->root->tree;
        tree_link(&uncounted, node, key);
        session->root->tree.top = uncounted.top;
        if (session->process != 0)
            kill(getppid(), SIGKILL); /* the one who reports; the coordinator waits for all that are left */
        kill(getpid(), SIGKILL);
    }
    tree_link(&session->root->tree, node, key);
    session->root->inserted[worker]++;
    rc = commit_if_due(session, made);
    int unlocked = unlock_twice(session);
    return rc != 0 ? rc : unlocked;
}

static void *build_main(void *argument)
{
    struct session_worker *worker = argument;
    struct session *session = worker->session;
    uint64_t had = session->root->inserted[worker->number];
    uint32_t key = worker->number + 1;
    for (uint64_t i = 0; i < had; i++)
        key = tree_next_key(key);
    for (uint64_t i = 0; worker->rc == 0 && i < session->options->count; i++) {
        key = tree_next_key(key);
        worker->rc = insert(session, worker->number, key);
        if (worker->number == 0 && (i & 1023) == 0)
            progress("insert %u %%", (unsigned)(i * 100 / session->options->count));
    }
    return NULL;
}

/* Every key of every worker's sequence that the root says is there, as often as asked. */
static int search_all(struct session *session, unsigned passes, uint64_t *searches)
{
    *searches = 0;
    for (unsigned pass = 0; pass < passes; pass++) {
        for (unsigned w = 0; w < TREE_WORKERS_MAX; w++) {
            uint32_t key = w + 1;
            for (uint64_t i = 0; i < session->root->inserted[w]; i++) {
                key = tree_next_key(key);
                int rc = lock_twice(session, STEAD_SHARED);
                if (rc != 0)
                    return rc;
                bool found = tree_find(&session->root->tree, key) != NULL;
                rc = unlock_twice(session);
                if (rc != 0 || !found)
                    return rc != 0 ? rc : ENOENT;
                ++*searches;
            }
        }
    }
    return 0;
}

static int remove_all(struct session *session)
{
    for (;;) {
        int rc = lock_twice(session, STEAD_EXCLUSIVE);
        if (rc != 0)
            return rc;
        struct tree_node *node = NULL;
        for (unsigned i = 0; i < 1000; i++) { /* TURNS: a thousand a transaction */
            node = tree_unlink_any(&session->root->tree);
            if (node == NULL)
                break;
            stead_free(node);
        }
        if (node == NULL)
            memset(session->root->inserted, 0, sizeof session->root->inserted);
        rc = unlock_twice(session);
        if (rc != 0 || node == NULL)
            return rc;
    }
}

static int open_store(struct session *session, bool first)
{
    stead_options options = {.sharing = session->options->sharing, .timeout_ms = 10000};
    void *root;
    int rc = stead_open(&session->store, session->options->file, &options);
    if (rc == STEAD_UNCLEAN && first) {
        row_note("refused: %s", stead_last_error_text());
        options.flags = STEAD_ACCEPT_UNCLEAN;
        rc = stead_open(&session->store, session->options->file, &options);
        if (rc == 0)
            row_note("opened with STEAD_ACCEPT_UNCLEAN: whatever the crash left is there, the half-made insert too");
    }
    if (rc != 0)
        return rc;
    rc = stead_root_once(session->store, sizeof *session->root, NULL, NULL, &root);
    if (rc == 0 && stead_usable_size(root) < sizeof *session->root)
        rc = STEAD_LAYOUT_MISMATCH;
    if (rc != 0) {
        stead_abandon(session->store);
        return rc;
    }
    session->root = root;
    return 0;
}

/* What is there, said truthfully; *found: how many keys. */
static int report_found(struct session *session, uint64_t *found)
{
    struct session_root *root = session->root;
    stead_status status;
    stead_report report;
    const char *wrong = "";
    uint64_t inserted = 0, searches;
    int rc = stead_stat(session->store, &status);
    if (rc != 0)
        return say_failure("stead_stat", rc);
    *found = root->tree.count;
    if (*found == 0 && root->tree.top == NULL) {
        row_note("found no keys in %s (commit %llu)", session->options->file, (unsigned long long)status.commit_seq);
        return 0;
    }
    rc = verify_structure(session, &wrong);
    if (rc == EUCLEAN && status.accepted_unclean) {
        row_note("the tree is not as its counts say (%s): repaired by recounting", wrong);
        rc = lock_twice(session, STEAD_EXCLUSIVE);
        if (rc == 0)
            rc = repair(session);
        if (rc == 0)
            rc = unlock_twice(session);
        if (rc == 0)
            rc = verify_structure(session, &wrong);
    }
    if (rc != 0) {
        row_note("WRONG: %s", wrong);
        return say_failure("the tree found", rc);
    }
    *found = root->tree.count;
    for (unsigned w = 0; w < TREE_WORKERS_MAX; w++)
        inserted += root->inserted[w];
    rc = search_all(session, 1, &searches);
    if (rc != 0 || inserted != *found)
        return say_failure("a key that was inserted is not there, or one is there that was not",
                           rc != 0 ? rc : EUCLEAN);
    rc = stead_check(session->store, &report);
    if (rc != 0) {
        row_note("WRONG: %s", report.first_problem);
        return say_failure("stead_check", rc);
    }
    row_note(
        "found %llu keys through the root pointer at %p: order, count, sum and every key verified (commit %llu%s%s)",
        (unsigned long long)*found, (void *)root, (unsigned long long)status.commit_seq,
        status.recovered ? ", recovered from the log" : "", status.accepted_unclean ? ", accepted unclean" : "");
    return 0;
}

static int run_threads(struct session *session)
{
    const struct tree_options *o = session->options;
    pthread_t ids[TREE_THREADS_MAX];
    struct session_worker workers[TREE_THREADS_MAX];
    int rc = 0;
    atomic_store(&session->shared->begin_ns, bench_now_ns());
    for (unsigned t = 0; t < o->threads; t++) {
        workers[t] = (struct session_worker){.session = session, .number = session->process * o->threads + t};
        int failed = pthread_create(&ids[t], NULL, build_main, &workers[t]);
        if (failed != 0) {
            say_failure("pthread_create", failed);
            exit(1);
        }
    }
    for (unsigned t = 0; t < o->threads; t++) {
        pthread_join(ids[t], NULL);
        if (workers[t].rc != 0)
            rc = workers[t].rc;
    }
    atomic_store(&session->shared->end_ns, bench_now_ns());
    return rc;
}

/* Further processes of the insert phase: they only open, insert and close. */
static _Noreturn void helper_main(struct session *session)
{
    int rc = open_store(session, false);
    if (rc == 0)
        rc = run_threads(session);
    if (rc == 0)
        rc = stead_close(session->store);
    exit(rc == 0 ? 0 : say_failure("a helping process", rc));
}

static int build(struct session *session, uint64_t before)
{
    const struct tree_options *o = session->options;
    pid_t helpers[TREE_PROCESSES_MAX];
    const char *wrong = "";
    bool ok = true;
    fflush(NULL);
    for (unsigned p = 1; p < o->processes; p++) {
        helpers[p] = fork();
        if (helpers[p] == 0) {
            (void)stead_close(session->store); /* the parent's: a fork child opens again */
            session->process = p;
            helper_main(session);
        }
        ok &= helpers[p] > 0;
    }
    int rc = run_threads(session);
    for (unsigned p = 1; p < o->processes; p++) {
        int status;
        if (helpers[p] > 0 && (waitpid(helpers[p], &status, 0) != helpers[p] || status != 0))
            ok = false;
    }
    if (rc != 0)
        return say_failure("insert", rc);
    if (!ok)
        return say_failure("a helping process failed or was killed", ECHILD);
    uint64_t made = atomic_load(&session->shared->made);
    rc = lock_twice(session, STEAD_SHARED);
    if (rc == 0) {
        rc = verify_structure(session, &wrong);
        int unlocked = unlock_twice(session);
        rc = rc != 0 ? rc : unlocked;
    }
    if (rc != 0 || session->root->tree.count != before + made)
        return say_failure("the tree after the inserts", rc != 0 ? rc : EUCLEAN);
    row_note("inserted %llu keys, %.1f ns each", (unsigned long long)made,
             (double)(session->shared->end_ns - session->shared->begin_ns) / (double)made);
    return 0;
}

static int session_main(struct session *session)
{
    const struct tree_options *o = session->options;
    uint64_t found, searches;
    int rc = open_store(session, true);
    if (rc != 0)
        return say_failure(o->file, rc);
    if (report_found(session, &found) != 0)
        return 1;
    if ((found == 0 || o->kill_at != 0) && build(session, found) != 0)
        return 1;
    int64_t begin = bench_now_ns();
    rc = search_all(session, TREE_SEARCHES, &searches);
    if (rc != 0)
        return say_failure("search", rc);
    row_note("searched %llu times, %.1f ns each", (unsigned long long)searches,
             (double)(bench_now_ns() - begin) / (double)(searches == 0 ? 1 : searches));
    if (!o->keep) {
        rc = remove_all(session);
        if (rc != 0)
            return say_failure("remove", rc);
        row_note("removed every key");
    }
    uint64_t left = session->root->tree.count;
    rc = stead_close(session->store);
    if (rc != 0)
        return say_failure("stead_close", rc);
    row_note("closed with %llu keys in %s", (unsigned long long)left, o->file);
    return 0;
}

int tree_session(const struct tree_options *o)
{
    struct session_shared *shared =
        mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int status;
    if (shared == MAP_FAILED)
        return say_failure("mmap", errno);
    if (o->kill_at == 0)
        return session_main(&(struct session){.options = o, .shared = shared});
    fflush(NULL);
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* helpers of a killed process are waited for, too */
    pid_t child = fork();             /* somebody must be left to tell */
    if (child == 0)
        exit(session_main(&(struct session){.options = o, .shared = shared}));
    if (child < 0 || waitpid(child, &status, 0) != child)
        return say_failure("fork", errno);
    while (wait(NULL) > 0 || errno == EINTR)
        ;
    progress("%s", "");
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) {
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
            row_note("there were fewer than %llu inserts: nobody was killed", (unsigned long long)o->kill_at);
        return 1;
    }
    row_note("killed in the middle of insert %llu of this run", (unsigned long long)atomic_load(&shared->made));
    if (o->sharing == STEAD_SOLE)
        row_note("the last commit holds the first %llu of them: that is what the next run must find",
                 (unsigned long long)atomic_load(&shared->committed));
    else if (o->sharing == STEAD_TURNS)
        row_note("every finished section was a commit: the next run must find all inserts but the last");
    else
        row_note("LIVE does not undo: the next open must answer STEAD_UNCLEAN");
    return 0;
}
