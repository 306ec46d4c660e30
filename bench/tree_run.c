/*
 * tree_run.c -- bench/tree side by side.
 *
 * Every peer and repetition runs in fresh processes on fresh files: cold caches, cold allocators and page faults cost
 * everybody the same, and a peer that crashes takes nobody along.  Rounds are interleaved (A B C A B C ...), because
 * the machine is noisy; a ratio is the median of the rounds' own ratios.
 *
 * The coordinator forks P processes of N threads.  They meet at process-shared barriers between phases; each worker
 * stamps its own begin and end, and a phase lasts from the first begin to the last end.  ns/op = that time divided by
 * the operations of all workers together: on two cores, half of one thread's figure is perfect scaling.
 *
 *   insert  count keys a thread       (then the structure and the heap are checked, untimed)
 *   search  10 passes over own keys
 *   remove  own keys                  (checked: must be empty)
 *
 * What SOLE pays later, and nobody else has: the same keys are inserted again (untimed), and then
 *
 *   commit            stead_commit(DURABLE) of all of them, once
 *   remove.committed  as remove; the first write to each page since the commit is a page fault and a copy, unlike in
 *                     `remove`, where nothing was committed; its ratios are to the peers' remove
 *
 * Page faults are counted beside each phase, because they explain it.
 *
 * A worker that fails writes why and leaves; the coordinator then kills the others, by pid.
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
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/peers/pointer_tree.h"
#include "bench/support/clock.h"
#include "bench/support/row.h"
#include "bench/support/scratch.h"
#include "bench/support/series.h"

enum phase {
    PHASE_INSERT,
    PHASE_SEARCH,
    PHASE_REMOVE,
    PHASE_REFILL,
    PHASE_COMMIT,
    PHASE_REMOVE_COMMITTED,
    PHASE_COUNT
};
static const char *const phase_names[PHASE_COUNT] = {"tree.insert", "tree.search", "tree.remove",
                                                     "tree.refill", "tree.commit", "tree.remove.committed"};
enum { PEERS_MAX = 8 };

struct worker {
    _Alignas(64) int64_t begin_ns[PHASE_COUNT];
    int64_t end_ns[PHASE_COUNT];
    long faults[PHASE_COUNT]; /* of its process, in the process's first worker */
    _Atomic uint64_t done;    /* operations in this phase, for the progress line */
};

struct meeting { /* shared by the coordinator and its processes */
    pthread_barrier_t barrier;
    _Atomic int phase;
    _Atomic bool failed;
    char why[400];
    struct worker workers[TREE_WORKERS_MAX];
};

struct process {
    const struct tree_peer *peer;
    const struct tree_options *options;
    struct meeting *meeting;
    const char *path;
    unsigned number;
    void *handle;
};

struct thread {
    struct process *process;
    unsigned worker;
    void *self; /* the peer's */
};

struct results {
    struct series ns[PEERS_MAX][PHASE_COUNT], faults[PEERS_MAX][PHASE_COUNT];
    bool wrong[PEERS_MAX];
};

static _Noreturn void fail(struct meeting *meeting, const struct tree_peer *peer, const char *what, int error)
{
    if (!atomic_exchange(&meeting->failed, true))
        snprintf(meeting->why, sizeof meeting->why, "%s: %s: %s", peer->name, what, peer_error_text(error));
    _exit(1);
}

static void meet(struct meeting *meeting)
{
    pthread_barrier_wait(&meeting->barrier);
}

static uint64_t operations(enum phase phase, uint64_t count)
{
    return phase == PHASE_SEARCH ? count * TREE_SEARCHES : phase == PHASE_COMMIT ? 1 : count;
}

static long page_faults(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_minflt + usage.ru_majflt;
}

static bool is_first_of_process(const struct thread *thread)
{
    return thread->worker % thread->process->options->threads == 0;
}

static void work(struct thread *thread, enum phase phase)
{
    const struct tree_peer *peer = thread->process->peer;
    struct meeting *meeting = thread->process->meeting;
    struct worker *worker = &meeting->workers[thread->worker];
    int (*operation)(void *, uint64_t) = phase == PHASE_INSERT || phase == PHASE_REFILL ? peer->insert
                                         : phase == PHASE_SEARCH                        ? peer->search
                                                                                        : peer->remove;
    const uint64_t count = thread->process->options->count;
    const unsigned passes = phase == PHASE_SEARCH ? TREE_SEARCHES : 1;
    uint64_t done = 0;

    atomic_store_explicit(&worker->done, 0, memory_order_relaxed);
    if (is_first_of_process(thread))
        worker->faults[phase] = -page_faults();
    meet(meeting);
    worker->begin_ns[phase] = bench_now_ns();
    for (unsigned pass = 0; pass < passes; pass++) {
        uint32_t key = thread->worker + 1;
        for (uint64_t i = 0; i < count; i++) {
            key = tree_next_key(key);
            int rc = operation(thread->self, key);
            if (rc != 0)
                fail(meeting, peer, phase_names[phase], rc);
            if ((++done & 1023) == 0)
                atomic_store_explicit(&worker->done, done, memory_order_relaxed);
        }
    }
    worker->end_ns[phase] = bench_now_ns();
    meet(meeting);
    if (is_first_of_process(thread))
        worker->faults[phase] += page_faults();
}

/* One thread of all looks while the others wait. */
static void check(struct thread *thread, uint64_t expected)
{
    const struct process *process = thread->process;
    uint64_t keys = 0;
    if (thread->worker == 0) {
        int rc = process->peer->check(process->handle, &keys);
        if (rc != 0)
            fail(process->meeting, process->peer, "check", rc);
        if (keys != expected)
            fail(process->meeting, process->peer, "check: the number of keys is wrong", EUCLEAN);
    }
    meet(process->meeting);
}

static void commit_all(struct thread *thread)
{
    const struct process *process = thread->process;
    struct worker *worker = &process->meeting->workers[thread->worker];
    if (thread->worker == 0) {
        worker->begin_ns[PHASE_COMMIT] = bench_now_ns();
        int rc = process->peer->settle(process->handle);
        if (rc != 0)
            fail(process->meeting, process->peer, "commit", rc);
        worker->end_ns[PHASE_COMMIT] = bench_now_ns();
    }
    meet(process->meeting);
}

static enum phase phases_of(const struct tree_peer *peer)
{
    return peer->settle != NULL && peer->sharing == STEAD_SOLE ? PHASE_COUNT : PHASE_REFILL;
}

static void *thread_main(void *argument)
{
    struct thread *thread = argument;
    struct process *process = thread->process;
    const uint64_t all = process->options->count * process->options->threads * process->options->processes;
    int rc = process->peer->thread_begin(&thread->self, process->handle);
    if (rc != 0)
        fail(process->meeting, process->peer, "thread", rc);
    for (enum phase phase = 0; phase < phases_of(process->peer); phase++) {
        if (thread->worker == 0)
            atomic_store(&process->meeting->phase, (int)phase);
        if (phase == PHASE_COMMIT) {
            commit_all(thread);
            continue;
        }
        work(thread, phase);
        check(thread, phase == PHASE_REMOVE || phase == PHASE_REMOVE_COMMITTED ? 0 : all);
    }
    process->peer->thread_end(thread->self);
    return NULL;
}

static _Noreturn void process_main(struct process *process)
{
    const struct tree_options *o = process->options;
    pthread_t ids[TREE_THREADS_MAX];
    struct thread threads[TREE_THREADS_MAX];
    int rc = process->peer->open(&process->handle, process->peer, process->path);
    if (rc != 0)
        fail(process->meeting, process->peer, "open", rc);
    for (unsigned t = 0; t < o->threads; t++) {
        threads[t] = (struct thread){.process = process, .worker = process->number * o->threads + t};
        rc = pthread_create(&ids[t], NULL, thread_main, &threads[t]);
        if (rc != 0)
            fail(process->meeting, process->peer, "thread", rc);
    }
    for (unsigned t = 0; t < o->threads; t++)
        pthread_join(ids[t], NULL);
    rc = process->peer->close(process->handle);
    if (rc != 0)
        fail(process->meeting, process->peer, "close", rc);
    exit(0); /* not _exit: sanitizers and leak checkers report at exit */
}

static void show_progress(const struct process *process, unsigned round)
{
    const struct tree_options *o = process->options;
    int phase = atomic_load(&process->meeting->phase);
    uint64_t done = 0, all = operations((enum phase)phase, o->count) * o->threads * o->processes;
    for (unsigned w = 0; w < o->threads * o->processes; w++)
        done += atomic_load_explicit(&process->meeting->workers[w].done, memory_order_relaxed);
    progress("round %u of %u: %s %s %u %%", round + 1, o->repetitions, process->peer->name, phase_names[phase],
             (unsigned)(done * 100 / all));
}

/* Waits for all; kills the rest (by pid) as soon as one failed, since they would wait at a barrier for ever. */
static bool reap(const pid_t *pids, unsigned count, const struct process *process, unsigned round)
{
    bool ok = true;
    bool gone[TREE_PROCESSES_MAX] = {false};
    for (unsigned left = count; left > 0;) {
        struct timespec pause = {.tv_nsec = 20000000};
        nanosleep(&pause, NULL);
        show_progress(process, round);
        for (unsigned p = 0; p < count; p++) {
            int status;
            if (gone[p] || waitpid(pids[p], &status, WNOHANG) != pids[p])
                continue;
            gone[p] = true;
            left--;
            if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
                continue;
            if (ok && WIFSIGNALED(status) && !atomic_exchange(&process->meeting->failed, true))
                snprintf(process->meeting->why, sizeof process->meeting->why, "%s: process ended by signal %d",
                         process->peer->name, WTERMSIG(status));
            ok = false;
            for (unsigned q = 0; q < count; q++)
                if (!gone[q])
                    kill(pids[q], SIGKILL);
        }
    }
    return ok;
}

struct figures {
    double ns[PHASE_COUNT], faults[PHASE_COUNT];
};

static void take_figures(const struct meeting *meeting, const struct tree_options *o, enum phase phases,
                         struct figures *figures)
{
    for (enum phase phase = 0; phase < phases; phase++) {
        int64_t begin = INT64_MAX, end = 0;
        unsigned workers = phase == PHASE_COMMIT ? 1 : o->threads * o->processes;
        figures->faults[phase] = 0;
        for (unsigned w = 0; w < workers; w++) {
            const struct worker *worker = &meeting->workers[w];
            begin = worker->begin_ns[phase] < begin ? worker->begin_ns[phase] : begin;
            end = worker->end_ns[phase] > end ? worker->end_ns[phase] : end;
            figures->faults[phase] += (double)worker->faults[phase];
        }
        figures->ns[phase] = (double)(end - begin) / (double)(operations(phase, o->count) * workers);
    }
}

static bool run_once(const struct tree_peer *peer, const struct tree_options *o, const char *path, unsigned round,
                     struct figures *figures)
{
    struct meeting *meeting = mmap(NULL, sizeof *meeting, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pthread_barrierattr_t shared;
    pid_t pids[TREE_PROCESSES_MAX];
    struct process process = {.peer = peer, .options = o, .meeting = meeting, .path = path};
    if (meeting == MAP_FAILED)
        return false;
    pthread_barrierattr_init(&shared);
    pthread_barrierattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
    pthread_barrier_init(&meeting->barrier, &shared, o->threads * o->processes);
    fflush(NULL);
    for (unsigned p = 0; p < o->processes; p++) {
        process.number = p;
        pids[p] = fork();
        if (pids[p] == 0)
            process_main(&process);
        if (pids[p] < 0) {
            fprintf(stderr, "tree: fork: %s\n", strerror(errno));
            exit(1);
        }
    }
    bool ok = reap(pids, o->processes, &process, round);
    if (!ok)
        row_note("%s", meeting->why);
    if (ok)
        take_figures(meeting, o, phases_of(peer), figures);
    munmap(meeting, sizeof *meeting);
    return ok;
}

/* The median of the rounds' own ratios.  The series are still in the order of rounds: called before any is sorted. */
static double paired_ratio(const struct series *a, const struct series *b)
{
    struct series ratios = {0};
    for (size_t i = 0; i < a->count && i < b->count; i++)
        if (b->values[i] > 0)
            series_add(&ratios, a->values[i] / b->values[i]);
    double median = series_median(&ratios);
    series_release(&ratios);
    return median;
}

/* Whom a phase is compared with. */
static bool is_yardstick(const struct tree_peer *peer)
{
    return peer == &tree_malloc_rwlock || peer == &tree_lmdb;
}

static void print_row(const struct tree_peer *const *peers, unsigned count, unsigned a, enum phase phase,
                      const struct tree_options *o, struct results *results, const double *ratio)
{
    struct series *ns = &results->ns[a][phase];
    bool commits = phase == PHASE_COMMIT;
    double scale = commits ? 1e-3 : 1;
    struct row row = {.bench = phase_names[phase],
                      .peer = peers[a]->name,
                      .processes = o->processes,
                      .threads = o->threads,
                      .unit = commits ? "us" : "ns/op",
                      .n = operations(phase, o->count) * (commits ? 1 : o->threads * o->processes),
                      .median = series_quantile(ns, 0.5) * scale,
                      .low = series_quantile(ns, 0) * scale,
                      .high = series_quantile(ns, 1) * scale,
                      .written_per_op = -1,
                      .has_faults = !commits,
                      .faults = series_median(&results->faults[a][phase]),
                      .verified = !results->wrong[a],
                      .remark = peers[a]->remark};
    unsigned r = 0;
    for (unsigned b = 0; b < count && !commits; b++)
        if (b != a && r < ROW_RATIOS && is_yardstick(peers[b])) {
            row.ratios[r].to = peers[b]->name;
            row.ratios[r++].ratio = ratio[b];
        }
    row_print(&row);
}

static void print_rows(const struct tree_peer *const *peers, unsigned count, const struct tree_options *o,
                       struct results *results)
{
    double ratio[PHASE_COUNT][PEERS_MAX][PEERS_MAX];
    for (enum phase phase = 0; phase < PHASE_COUNT; phase++) {
        enum phase theirs = phase == PHASE_REMOVE_COMMITTED ? PHASE_REMOVE : phase;
        for (unsigned a = 0; a < count; a++)
            for (unsigned b = 0; b < count; b++)
                ratio[phase][a][b] = paired_ratio(&results->ns[a][phase], &results->ns[b][theirs]);
    }
    for (enum phase phase = 0; phase < PHASE_COUNT; phase++)
        for (unsigned a = 0; a < count; a++)
            if (results->ns[a][phase].count != 0 && phase != PHASE_REFILL)
                print_row(peers, count, a, phase, o, results, ratio[phase][a]);
}

int tree_run(const struct tree_options *o)
{
    const struct tree_peer *peers[PEERS_MAX];
    struct results results = {0};
    unsigned count = 0;
    bool ok = true;
    char path[4200];
    peers[count++] = o->sharing == STEAD_SOLE    ? &tree_stead_sole
                     : o->sharing == STEAD_TURNS ? &tree_stead_turns
                                                 : &tree_stead_live;
    if (o->processes == 1) { /* volatile memory is nobody else's */
        peers[count++] = &tree_malloc_rwlock;
        if (o->all_peers) {
            peers[count++] = &tree_malloc_rwlock_nested;
            peers[count++] = &tree_malloc_recmutex_nested;
        }
    }
    peers[count++] = &tree_lmdb;
    const char *scratch = scratch_begin(o->directory);
    if (scratch == NULL) {
        fprintf(stderr, "tree: cannot make a directory in %s: %s\n", o->directory, strerror(errno));
        return 1;
    }
    row_begin(o->csv, scratch);
    for (unsigned round = 0; round < o->repetitions; round++) {
        for (unsigned p = 0; p < count; p++) {
            struct figures figures;
            snprintf(path, sizeof path, "%s/tree", scratch);
            bool good = run_once(peers[p], o, path, round, &figures);
            scratch_clear("tree");
            results.wrong[p] |= !good;
            ok &= good;
            for (enum phase phase = 0; good && phase < phases_of(peers[p]); phase++) {
                series_add(&results.ns[p][phase], figures.ns[phase]);
                series_add(&results.faults[p][phase], figures.faults[phase]);
            }
        }
    }
    print_rows(peers, count, o, &results);
    for (unsigned p = 0; p < count; p++)
        for (enum phase phase = 0; phase < PHASE_COUNT; phase++) {
            series_release(&results.ns[p][phase]);
            series_release(&results.faults[p][phase]);
        }
    scratch_end();
    return ok ? 0 : 1;
}
