/*
 * lock.c -- the lock beside pthread's, in one run.
 *
 * Measured: the lock of lock/ in shared memory and in private memory, pthread_rwlock (process-shared) and pthread_mutex
 * (robust, process-shared).  This bench looks at the module's own face, not at <stead.h>: what the store adds around
 * a section (a turn, a commit) is measured by bench/tree.
 *
 *   pair.*       lock + unlock, nobody else there, ns
 *   nested.*     the same inside an outer level of the same thread; a pthread lock cannot own inside owning, so the
 *                ratio is to an uncontended pair of the pthread_rwlock: what the nested call is spared
 *   section.own  n threads, each: lock exclusively, ~100 ns of work on shared lines, unlock; wall ns a section
 *   section.read the same, shared, ~100 ns of reading; wall ns a section over all threads, and how it scales; "no lock" is
 *                the same reading alone: as far as the machine itself scales (two virtual cores may be one real one)
 *   section.mix  one exclusive section in ten
 *
 * Method: rounds of every peer in turn, medians over the rounds; counters kept under the lock prove exclusion; the
 * longest wait of any thread stands in the remark.
 */
#include <getopt.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench/support/clock.h"
#include "bench/support/row.h"
#include "bench/support/series.h"
#include "lock/rwlock.h"

#define THREADS_MAX 64
#define LINES 32 /* cache lines of shared data that a section touches some of */
#define ROUNDS_MAX 64

enum peer_kind { STEAD_SHM, STEAD_PRIVATE, PTHREAD_RWLOCK, PTHREAD_MUTEX, NO_LOCK, PEERS };
static const char *const peer_names[PEERS] = {"stead(shared memory)", "stead(private)", "pthread_rwlock",
                                              "pthread_mutex(robust)", "no lock"};

static struct rwlock *stead_locks[2];
static struct {
    pthread_rwlock_t rwlock;
    pthread_mutex_t mutex;
} * pthreads;
static uint64_t (*lines)[8];

/* One place for all peers, inlined into loops that are compiled for a constant peer: no peer pays for a call that
 * the others do not. */
static inline __attribute__((always_inline)) bool take(enum peer_kind peer, bool exclusive)
{
    switch (peer) {
    case STEAD_SHM:
    case STEAD_PRIVATE:
        return rwlock_lock(stead_locks[peer], exclusive, INT64_MAX) == 0;
    case PTHREAD_RWLOCK:
        return (exclusive ? pthread_rwlock_wrlock(&pthreads->rwlock) : pthread_rwlock_rdlock(&pthreads->rwlock)) == 0;
    case NO_LOCK:
        return true;
    default:
        return pthread_mutex_lock(&pthreads->mutex) == 0;
    }
}

static inline __attribute__((always_inline)) bool give(enum peer_kind peer)
{
    switch (peer) {
    case STEAD_SHM:
    case STEAD_PRIVATE:
        return rwlock_unlock(stead_locks[peer]) == 0;
    case PTHREAD_RWLOCK:
        return pthread_rwlock_unlock(&pthreads->rwlock) == 0;
    case NO_LOCK:
        return true;
    default:
        return pthread_mutex_unlock(&pthreads->mutex) == 0;
    }
}

static bool locks_make(void)
{
    size_t bytes = LOCK_REGION_BYTES + sizeof *pthreads + LINES * sizeof *lines;
    char *memory = mmap(NULL, bytes + 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int fd = memfd_create("bench-lock", MFD_CLOEXEC);
    if (memory == MAP_FAILED || fd < 0)
        return false;
    struct lock_region *region = (void *)memory;
    lines = (void *)(memory + LOCK_REGION_BYTES);
    pthreads = (void *)(memory + LOCK_REGION_BYTES + LINES * sizeof *lines);
    lock_region_format(region);
    struct presence *presence;
    if (presence_attach(&presence, region, fd, PRESENCE_WRITER) != 0)
        return false;
    struct rwlock_host shm = {.region = region, .which = RWLOCK_STORE, .presence = presence};
    struct rwlock_host private = {.region = NULL};
    pthread_rwlockattr_t rwlock_attr;
    pthread_mutexattr_t mutex_attr;
    pthread_rwlockattr_init(&rwlock_attr);
    pthread_rwlockattr_setpshared(&rwlock_attr, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_init(&mutex_attr);
    pthread_mutexattr_setpshared(&mutex_attr, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&mutex_attr, PTHREAD_MUTEX_ROBUST);
    return rwlock_open(&stead_locks[STEAD_SHM], &shm) == 0 && rwlock_open(&stead_locks[STEAD_PRIVATE], &private) == 0 &&
           pthread_rwlock_init(&pthreads->rwlock, &rwlock_attr) == 0 &&
           pthread_mutex_init(&pthreads->mutex, &mutex_attr) == 0;
}

/* ---- nobody else there ---- */

static inline __attribute__((always_inline)) double pair_loop(enum peer_kind peer, bool exclusive, unsigned n)
{
    int64_t begin = bench_now_ns();
    for (unsigned i = 0; i < n; i++) {
        if (!take(peer, exclusive) || !give(peer))
            return -1;
    }
    return (double)(bench_now_ns() - begin) / n;
}

static double pair(enum peer_kind peer, bool exclusive, unsigned n)
{
    switch (peer) {
    case STEAD_SHM:
        return pair_loop(STEAD_SHM, exclusive, n);
    case STEAD_PRIVATE:
        return pair_loop(STEAD_PRIVATE, exclusive, n);
    case PTHREAD_RWLOCK:
        return pair_loop(PTHREAD_RWLOCK, exclusive, n);
    default:
        return pair_loop(PTHREAD_MUTEX, exclusive, n);
    }
}

static double nested(enum peer_kind peer, bool exclusive, unsigned n)
{
    if (!take(peer, exclusive))
        return -1;
    double ns = pair(peer, exclusive, n);
    return give(peer) ? ns : -1;
}

/* ---- sections ---- */

struct worker {
    _Alignas(128) pthread_t thread; /* counters of two workers share no line, nor a pair of lines */
    enum peer_kind peer;
    unsigned own_per_ten; /* exclusive sections among ten */
    uint64_t sections, owned;
    int64_t longest_ns;
    bool failed;
};
static pthread_barrier_t barrier;
static _Atomic bool stop;

static inline __attribute__((always_inline)) bool section(struct worker *worker, enum peer_kind peer, bool exclusive,
                                                          uint64_t *random)
{
    *random = *random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    if (!take(peer, exclusive))
        return false;
    uint64_t sum = 0;
    unsigned at = (unsigned)(*random >> 40);
    for (unsigned i = 0; i < 12; i++) { /* a chain, as in a tree: each line says how to go on */
        uint64_t *line = lines[1 + at % (LINES - 1)];
        sum += line[1];
        at = at * 5 + (unsigned)line[1] + 1;
        if (exclusive && i % 4 == 0)
            line[1] += 2;
    }
    bool good = true;
    if (exclusive) {
        lines[0][0]++;
        worker->owned++;
    } else {
        good = (sum & 1) == 0;
    }
    worker->sections++;
    return give(peer) && good;
}

static inline __attribute__((always_inline)) void work(struct worker *worker, enum peer_kind peer)
{
    uint64_t random = (uint64_t)(uintptr_t)worker;
    unsigned turn = 0;
    int64_t last = bench_now_ns();
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        for (unsigned i = 0; i < 16; i++) {
            turn = turn == 9 ? 0 : turn + 1;
            if (!section(worker, peer, turn < worker->own_per_ten, &random)) {
                worker->failed = true;
                return;
            }
        }
        int64_t now = bench_now_ns();
        if (now - last > worker->longest_ns)
            worker->longest_ns = now - last;
        last = now;
    }
}

static void *worker_main(void *arg)
{
    struct worker *worker = arg;
    pthread_barrier_wait(&barrier);
    switch (worker->peer) {
    case STEAD_SHM:
        work(worker, STEAD_SHM);
        break;
    case STEAD_PRIVATE:
        work(worker, STEAD_PRIVATE);
        break;
    case PTHREAD_RWLOCK:
        work(worker, PTHREAD_RWLOCK);
        break;
    case NO_LOCK:
        work(worker, NO_LOCK);
        break;
    default:
        work(worker, PTHREAD_MUTEX);
    }
    return NULL;
}

struct outcome {
    double ns; /* wall time a section */
    double longest_ms;
    double evenness; /* fewest sections of a thread over most */
    bool verified;
};

static struct outcome sections(enum peer_kind peer, unsigned threads, unsigned own_per_ten, unsigned ms)
{
    static struct worker workers[THREADS_MAX];
    memset(workers, 0, sizeof workers);
    memset((void *)lines, 0, LINES * sizeof *lines);
    atomic_store(&stop, false);
    pthread_barrier_init(&barrier, NULL, threads + 1);
    for (unsigned i = 0; i < threads; i++) {
        workers[i].peer = peer;
        workers[i].own_per_ten = own_per_ten;
        if (pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]) != 0)
            abort();
    }
    pthread_barrier_wait(&barrier);
    int64_t begin = bench_now_ns();
    usleep(ms * 1000);
    atomic_store(&stop, true);
    struct outcome outcome = {.verified = true};
    uint64_t all = 0, owned = 0, fewest = UINT64_MAX, most = 0;
    for (unsigned i = 0; i < threads; i++) {
        pthread_join(workers[i].thread, NULL);
        all += workers[i].sections;
        owned += workers[i].owned;
        fewest = workers[i].sections < fewest ? workers[i].sections : fewest;
        most = workers[i].sections > most ? workers[i].sections : most;
        outcome.verified = outcome.verified && !workers[i].failed;
        if ((double)workers[i].longest_ns / 1e6 > outcome.longest_ms)
            outcome.longest_ms = (double)workers[i].longest_ns / 1e6;
    }
    outcome.ns = (double)(bench_now_ns() - begin) / (double)all;
    outcome.evenness = most == 0 ? 0 : (double)fewest / (double)most;
    outcome.verified = outcome.verified && lines[0][0] == owned;
    pthread_barrier_destroy(&barrier);
    return outcome;
}

/* ---- rows ---- */

static unsigned rounds = 7, section_ms = 100, threads_max = 32;

static void print_pairs(const char *bench, double (*measure)(enum peer_kind, bool, unsigned), bool exclusive)
{
    bool is_nested = measure == nested;
    struct series series[PEERS];
    memset(series, 0, sizeof series);
    const unsigned n = 1000000;
    for (unsigned round = 0; round < rounds; round++) {
        for (int peer = 0; peer < NO_LOCK; peer++) {
            if (is_nested && peer >= PTHREAD_RWLOCK)
                (void)series_add(&series[peer], pair((enum peer_kind)peer, exclusive, n));
            else
                (void)series_add(&series[peer], measure((enum peer_kind)peer, exclusive, n));
        }
    }
    for (int peer = 0; peer < NO_LOCK; peer++) {
        double median = series_median(&series[peer]);
        struct row row = {.bench = bench,
                          .peer = peer_names[peer],
                          .processes = 1,
                          .threads = 1,
                          .n = (uint64_t)n * rounds,
                          .unit = "ns",
                          .median = median,
                          .low = series_quantile(&series[peer], 0),
                          .high = series_quantile(&series[peer], 1),
                          .written_per_op = -1,
                          .verified = series_quantile(&series[peer], 0) > 0};
        if (peer < PTHREAD_RWLOCK) {
            row.ratios[0].to = is_nested ? "pthread_rwlock pair" : "pthread_rwlock";
            row.ratios[0].ratio = median / series_median(&series[PTHREAD_RWLOCK]);
            row.ratios[1].to = is_nested ? "pthread_mutex pair" : "pthread_mutex";
            row.ratios[1].ratio = median / series_median(&series[PTHREAD_MUTEX]);
        }
        row_print(&row);
    }
    for (int peer = 0; peer < NO_LOCK; peer++)
        series_release(&series[peer]);
}

static void print_sections(const char *bench, unsigned threads, unsigned own_per_ten)
{
    struct series series[PEERS], alone[PEERS];
    double longest[PEERS] = {0}, evenness[PEERS] = {0};
    bool verified[PEERS] = {true, true, true, true, true};
    const int peers = own_per_ten == 0 ? PEERS : NO_LOCK; /* without a lock, owners would race */
    memset(series, 0, sizeof series);
    memset(alone, 0, sizeof alone);
    for (unsigned round = 0; round < rounds; round++) {
        for (int peer = 0; peer < peers; peer++) {
            struct outcome outcome = sections((enum peer_kind)peer, threads, own_per_ten, section_ms);
            (void)series_add(&series[peer], outcome.ns);
            longest[peer] = outcome.longest_ms > longest[peer] ? outcome.longest_ms : longest[peer];
            evenness[peer] += outcome.evenness / rounds;
            verified[peer] = verified[peer] && outcome.verified;
            if (own_per_ten == 0)
                (void)series_add(&alone[peer], sections((enum peer_kind)peer, 1, 0, section_ms).ns);
        }
    }
    for (int peer = 0; peer < peers; peer++) {
        double median = series_median(&series[peer]);
        char remark[96];
        int used =
            snprintf(remark, sizeof remark, "longest wait %.2f ms, fewest/most %.2f", longest[peer], evenness[peer]);
        if (own_per_ten == 0 && used > 0)
            snprintf(remark + used, sizeof remark - (size_t)used, ", %.2f x one thread",
                     series_median(&alone[peer]) / median);
        struct row row = {.bench = bench,
                          .peer = peer_names[peer],
                          .processes = 1,
                          .threads = threads,
                          .n = rounds,
                          .unit = "ns",
                          .median = median,
                          .low = series_quantile(&series[peer], 0),
                          .high = series_quantile(&series[peer], 1),
                          .written_per_op = -1,
                          .verified = verified[peer],
                          .remark = remark};
        if (peer < PTHREAD_RWLOCK) {
            row.ratios[0].to = "pthread_rwlock";
            row.ratios[0].ratio = median / series_median(&series[PTHREAD_RWLOCK]);
            row.ratios[1].to = "pthread_mutex";
            row.ratios[1].ratio = median / series_median(&series[PTHREAD_MUTEX]);
        }
        row_print(&row);
    }
    for (int peer = 0; peer < peers; peer++) {
        series_release(&series[peer]);
        series_release(&alone[peer]);
    }
}

int main(int argc, char **argv)
{
    bool csv = false;
    for (int option; (option = getopt(argc, argv, "cr:m:t:")) != -1;) {
        if (option == 'c')
            csv = true;
        else if (option == 'r')
            rounds = (unsigned)strtoul(optarg, NULL, 10);
        else if (option == 'm')
            section_ms = (unsigned)strtoul(optarg, NULL, 10);
        else if (option == 't')
            threads_max = (unsigned)strtoul(optarg, NULL, 10);
        else {
            fprintf(stderr, "usage: %s [-c] [-r rounds] [-m milliseconds a round] [-t threads at most]\n", argv[0]);
            return 2;
        }
    }
    if (rounds == 0 || rounds > ROUNDS_MAX || section_ms == 0 || !locks_make()) {
        fprintf(stderr, "%s: cannot set up\n", argv[0]);
        return 1;
    }
    row_begin(csv, ".");
    print_pairs("lock.pair.shared", pair, false);
    print_pairs("lock.pair.exclusive", pair, true);
    print_pairs("lock.nested.shared", nested, false);
    print_pairs("lock.nested.exclusive", nested, true);
    static const unsigned crowd[] = {1, 2, 4, 8, 32};
    static const struct {
        const char *bench;
        unsigned own_per_ten;
    } kinds[] = {{"lock.section.own", 10}, {"lock.section.read", 0}, {"lock.section.mix", 1}};
    for (unsigned kind = 0; kind < sizeof kinds / sizeof kinds[0]; kind++) {
        for (unsigned i = 0; i < sizeof crowd / sizeof crowd[0] && crowd[i] <= threads_max; i++)
            print_sections(kinds[kind].bench, crowd[i], kinds[kind].own_per_ten);
    }
    return 0;
}
