/*
 * alloc_work.c -- the workloads.
 *
 *   pair      malloc(24), free, again and again
 *   bulk      1,000,000 (--objects) x 24 bytes, then freed in random order
 *   churn     100,000 live blocks of 16..1024 bytes, replaced at random
 *   cross     one thread allocates, the other frees: batches of 256 through a ring
 *   larson    every thread replaces blocks at random in a table that then goes to the next thread: what one allocated
 *             another frees, and threads come and go
 *   xmalloc   every thread produces batches of mixed sizes and consumes those of its neighbour
 *   fragment  phases of different sizes, half of each phase's blocks kept: what a long life leaves
 *
 * Every block carries a tag in its first and last bytes, checked when it is freed.
 *
 * A work is measured in slices: its threads stop at a barrier after each, and the process waits for its next turn
 * (alloc_turns.c).  Those with two phases have one slice of each.
 */
#include "alloc_work.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "alloc_turns.h"
#include "support/clock.h"

#define THREADS_MAX 64
/* Operations of a slice: a tenth of a second, so that filling the caches anew after the others' turns is a small part of it. */
#define CHURN_SLICE 750000

struct block {
    uint8_t *at;
    uint32_t bytes;
    uint32_t tag;
};

struct shared {
    const struct alloc_peer *peer;
    struct alloc_result *result;
    unsigned threads;
    uint64_t scale, objects;
    pthread_barrier_t gate; /* before and after each slice */
    bool over;              /* written before the barrier  */
    atomic_bool wrong;
    struct block *blocks;
    uint64_t block_count;
};

struct worker {
    pthread_t thread;
    struct shared *shared;
    void (*prepare)(struct worker *); /* not measured; NULL: nothing to do */
    void (*slice)(struct worker *);   /* adds to `operations`              */
    unsigned number;
    uint64_t seed, operations, batch;
    int64_t begin_ns, end_ns; /* of the last slice */
};

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Memory of the bench itself: not the peer's, and touched before anything is measured. */
static void *own_memory(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static uint64_t resident_bytes(void)
{
    unsigned long long pages = 0, size = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL)
        return 0;
    if (fscanf(file, "%llu %llu", &size, &pages) != 2)
        pages = 0;
    fclose(file);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static inline void give(struct shared *shared, struct block *block, uint32_t bytes, uint32_t tag)
{
    block->at = shared->peer->allocate(bytes);
    block->bytes = bytes;
    block->tag = tag;
    if (block->at == NULL) {
        atomic_store(&shared->wrong, true);
        abort();
    }
    memcpy(block->at, &tag, sizeof tag);
    block->at[bytes - 1] = (uint8_t)tag;
}

static inline void take(struct shared *shared, struct block *block)
{
    uint32_t tag;
    memcpy(&tag, block->at, sizeof tag);
    if (((tag ^ block->tag) & 0xffffff) != 0 || block->at[block->bytes - 1] != (uint8_t)block->tag)
        atomic_store_explicit(&shared->wrong, true, memory_order_relaxed);
    shared->peer->release(block->at);
    block->at = NULL;
}

static void *worker_main(void *arg)
{
    struct worker *worker = arg;
    struct shared *shared = worker->shared;
    if (worker->prepare != NULL)
        worker->prepare(worker);
    for (;;) {
        pthread_barrier_wait(&shared->gate);
        if (shared->over)
            return NULL;
        worker->begin_ns = bench_now_ns();
        worker->slice(worker);
        worker->end_ns = bench_now_ns();
        pthread_barrier_wait(&shared->gate);
    }
}

static void threads_begin(struct shared *shared, struct worker *workers, void (*prepare)(struct worker *),
                          void (*slice)(struct worker *), uint64_t seed)
{
    shared->over = false;
    pthread_barrier_init(&shared->gate, NULL, shared->threads + 1);
    for (unsigned i = 0; i < shared->threads; i++) {
        workers[i] = (struct worker){.shared = shared,
                                     .prepare = prepare,
                                     .slice = slice,
                                     .number = i,
                                     .seed = (i + 1) * UINT64_C(0x9e3779b97f4a7c15) + seed};
        if (pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]) != 0)
            abort();
    }
}

/* One slice of all threads, from the first one's begin to the last one's end, by their own clocks: who opened the gate may be
 * woken when it is all over. */
static void threads_slice(struct shared *shared, struct worker *workers, unsigned phase)
{
    uint64_t operations = 0;
    for (unsigned i = 0; i < shared->threads; i++)
        workers[i].operations = 0;
    pthread_barrier_wait(&shared->gate);
    pthread_barrier_wait(&shared->gate);
    int64_t begin = workers[0].begin_ns, end = workers[0].end_ns;
    for (unsigned i = 0; i < shared->threads; i++) {
        operations += workers[i].operations;
        begin = workers[i].begin_ns < begin ? workers[i].begin_ns : begin;
        end = workers[i].end_ns > end ? workers[i].end_ns : end;
    }
    shared->result->ns[phase] = (double)(end - begin) / (double)operations;
    shared->result->operations[phase] = operations;
}

static void threads_end(struct shared *shared, struct worker *workers)
{
    shared->over = true;
    pthread_barrier_wait(&shared->gate);
    for (unsigned i = 0; i < shared->threads; i++)
        pthread_join(workers[i].thread, NULL);
    pthread_barrier_destroy(&shared->gate);
}

/* The usual work: the same threads for all slices, a turn each. */
static void run_slices(struct shared *shared, unsigned slices, void (*prepare)(struct worker *),
                       void (*slice)(struct worker *))
{
    struct worker workers[THREADS_MAX];
    threads_begin(shared, workers, prepare, slice, 0);
    for (unsigned i = 0; i < slices; i++) {
        if (i != 0)
            turn_next();
        threads_slice(shared, workers, 0);
    }
    threads_end(shared, workers);
}

static void measure_space(struct shared *shared, uint64_t resident_before)
{
    uint64_t live = 0;
    for (uint64_t i = 0; i < shared->block_count; i++)
        live += shared->blocks[i].at != NULL ? shared->blocks[i].bytes : 0;
    shared->result->live_bytes = live;
    shared->result->used_bytes = shared->peer->used != NULL ? shared->peer->used() : resident_bytes() - resident_before;
    shared->result->usable_bytes = shared->peer->usable != NULL ? shared->peer->usable() : 0;
}

static void make_blocks(struct shared *shared, uint64_t count)
{
    shared->block_count = count;
    shared->blocks = own_memory(count * sizeof *shared->blocks);
    if (shared->blocks == NULL)
        abort();
}

/* ---- pair ---- */

static void pair_slice(struct worker *worker)
{
    const struct alloc_peer *peer = worker->shared->peer;
    uint64_t n = 2000000 / worker->shared->scale;
    void *(*allocate)(size_t) = peer->allocate;
    void (*release)(void *) = peer->release;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t *block = allocate(24);
        *(volatile uint64_t *)block = i;
        release(block);
    }
    worker->operations = n;
}

static void pair_prepare(struct worker *worker)
{
    for (unsigned i = 0; i < 1000; i++)
        worker->shared->peer->release(worker->shared->peer->allocate(24));
}

static void pair_run(struct shared *shared)
{
    run_slices(shared, 10, pair_prepare, pair_slice);
}

/* ---- bulk ---- */

static void bulk_allocate(struct worker *worker, struct block *blocks, uint64_t n)
{
    void *(*allocate)(size_t) = worker->shared->peer->allocate;
    for (uint64_t i = 0; i < n; i++) {
        blocks[i].at = allocate(24);
        *(uint64_t *)(void *)blocks[i].at = i;
    }
}

static void bulk_release(struct worker *worker, const struct block *blocks, uint64_t n)
{
    void (*release)(void *) = worker->shared->peer->release;
    for (uint64_t i = 0; i < n; i++)
        release(blocks[i].at);
}

/* Both phases by the same threads: a block is freed by who allocated it. */
static void bulk_slice(struct worker *worker)
{
    uint64_t n = worker->shared->block_count / worker->shared->threads;
    struct block *blocks = worker->shared->blocks + worker->number * n;
    if (worker->batch++ == 0)
        bulk_allocate(worker, blocks, n);
    else
        bulk_release(worker, blocks, n);
    worker->operations = n;
}

static void bulk_run(struct shared *shared)
{
    struct worker workers[THREADS_MAX];
    make_blocks(shared, shared->objects / shared->scale / shared->threads * shared->threads);
    uint64_t n = shared->block_count, each = n / shared->threads, seed = 88172645463325252u;
    uint64_t resident = resident_bytes();
    threads_begin(shared, workers, NULL, bulk_slice, 0);
    threads_slice(shared, workers, 0);
    for (uint64_t i = 0; i < n; i++) {
        shared->blocks[i].bytes = 24;
        if (*(uint64_t *)(void *)shared->blocks[i].at != i % each)
            atomic_store(&shared->wrong, true);
    }
    measure_space(shared, resident);
    turn_next();
    for (unsigned t = 0; t < shared->threads; t++) /* each thread's own blocks in random order */
        for (uint64_t i = each - 1; i > 0; i--) {
            struct block *part = shared->blocks + t * each, kept = part[i];
            uint64_t j = next_random(&seed) % (i + 1);
            part[i] = part[j];
            part[j] = kept;
        }
    threads_slice(shared, workers, 1);
    threads_end(shared, workers);
}

/* ---- churn ---- */

static void churn_prepare(struct worker *worker)
{
    struct shared *shared = worker->shared;
    uint64_t slots = shared->block_count / shared->threads;
    struct block *blocks = shared->blocks + worker->number * slots;
    for (uint64_t i = 0; i < slots; i++)
        give(shared, &blocks[i], 16 + (uint32_t)(next_random(&worker->seed) >> 20) % 1009, (uint32_t)i);
}

static void churn_slice(struct worker *worker)
{
    struct shared *shared = worker->shared;
    uint64_t slots = shared->block_count / shared->threads, n = CHURN_SLICE / shared->scale / shared->threads;
    struct block *blocks = shared->blocks + worker->number * slots;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t random = next_random(&worker->seed);
        struct block *block = &blocks[(uint32_t)random % slots];
        take(shared, block);
        give(shared, block, 16 + (uint32_t)(random >> 40) % 1009, (uint32_t)random);
    }
    worker->operations = n;
}

static void churn_run(struct shared *shared)
{
    make_blocks(shared, 100000);
    uint64_t resident = resident_bytes();
    run_slices(shared, 8, churn_prepare, churn_slice);
    measure_space(shared, resident);
}

/* ---- cross, xmalloc: rings of batches between neighbours ---- */

enum { BATCH = 256, RING = 8 };

struct batch {
    _Alignas(64) atomic_uint full;
    struct block blocks[BATCH];
};

static struct batch *rings[THREADS_MAX]; /* ring i: from thread i */

static void ring_wait(atomic_uint *word, unsigned value)
{
    for (unsigned spins = 0; atomic_load_explicit(word, memory_order_acquire) != value; spins++)
        if (spins > 200)
            sched_yield();
}

static void produce(struct worker *worker, uint64_t batch, bool mixed)
{
    struct batch *to = &rings[worker->number][batch % RING];
    ring_wait(&to->full, 0);
    for (unsigned i = 0; i < BATCH; i++) {
        uint64_t random = mixed ? next_random(&worker->seed) : i;
        give(worker->shared, &to->blocks[i], mixed ? 16 + (uint32_t)(random >> 20) % 497 : 24, (uint32_t)random);
    }
    atomic_store_explicit(&to->full, 1, memory_order_release);
}

static void consume(struct worker *worker, unsigned from_thread, uint64_t batch)
{
    struct batch *from = &rings[from_thread][batch % RING];
    ring_wait(&from->full, 1);
    for (unsigned i = 0; i < BATCH; i++)
        take(worker->shared, &from->blocks[i]);
    atomic_store_explicit(&from->full, 0, memory_order_release);
}

static void cross_slice(struct worker *worker)
{
    uint64_t batches = 1000000 / worker->shared->scale / BATCH + 1;
    for (uint64_t b = 0; b < batches; b++, worker->batch++) {
        if (worker->number % 2 == 0)
            produce(worker, worker->batch, false);
        else
            consume(worker, worker->number - 1, worker->batch);
    }
    worker->operations = worker->number % 2 == 0 ? batches * BATCH : 0;
}

static void xmalloc_slice(struct worker *worker)
{
    unsigned threads = worker->shared->threads;
    uint64_t batches = 500000 / worker->shared->scale / BATCH / threads + 1;
    for (uint64_t b = 0; b < batches; b++, worker->batch++) {
        produce(worker, worker->batch, true);
        consume(worker, (worker->number + 1) % threads, worker->batch);
    }
    worker->operations = batches * BATCH;
}

static void make_rings(struct shared *shared)
{
    for (unsigned i = 0; i < shared->threads; i++)
        if ((rings[i] = own_memory(RING * sizeof(struct batch))) == NULL)
            abort();
}

static void cross_run(struct shared *shared)
{
    make_rings(shared);
    run_slices(shared, 8, NULL, cross_slice);
}

static void xmalloc_run(struct shared *shared)
{
    make_rings(shared);
    run_slices(shared, 8, NULL, xmalloc_slice);
}

/* ---- larson ---- */

static unsigned larson_round;

static void larson_slice(struct worker *worker)
{
    struct shared *shared = worker->shared;
    uint64_t slots = shared->block_count / shared->threads, n = 400000 / shared->scale;
    struct block *blocks = shared->blocks + (worker->number + larson_round) % shared->threads * slots;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t random = next_random(&worker->seed);
        struct block *block = &blocks[(uint32_t)random % slots];
        if (block->at != NULL)
            take(shared, block);
        give(shared, block, 10 + (uint32_t)(random >> 40) % 491, (uint32_t)random);
    }
    worker->operations = n;
}

static void larson_run(struct shared *shared)
{
    struct worker workers[THREADS_MAX];
    make_blocks(shared, 5000 * shared->threads);
    uint64_t resident = resident_bytes();
    for (larson_round = 0; larson_round < 12; larson_round++) { /* new threads each round */
        if (larson_round != 0)
            turn_next();
        threads_begin(shared, workers, NULL, larson_slice, larson_round * 7919);
        threads_slice(shared, workers, 0);
        int64_t begin = bench_now_ns();
        threads_end(shared, workers); /* counts: a thread gives back what it owned */
        shared->result->ns[0] += (double)(bench_now_ns() - begin) / (double)shared->result->operations[0];
    }
    measure_space(shared, resident);
}

/* ---- fragment ---- */

static void fragment_slice(struct worker *worker)
{
    static const uint32_t low[] = {16, 200, 24, 1500, 64, 9000, 100, 40},
                          high[] = {64, 600, 400, 6000, 90, 60000, 2000, 48};
    struct shared *shared = worker->shared;
    uint64_t slots = shared->block_count / shared->threads, operations = 0;
    struct block *blocks = shared->blocks + worker->number * slots;
    uint64_t bytes_max = (UINT64_C(64) << 20) / shared->threads / shared->scale;
    for (unsigned kind = 0; kind < 8; kind++) {
        uint64_t bytes = 0;
        for (uint64_t i = 0; i < slots; i++) { /* half of what is there goes */
            if (blocks[i].at != NULL && next_random(&worker->seed) % 2 == 0) {
                take(shared, &blocks[i]);
                operations++;
            }
            bytes += blocks[i].at != NULL ? blocks[i].bytes : 0;
        }
        for (uint64_t i = 0; i < slots && bytes < bytes_max; i++) {
            if (blocks[i].at != NULL)
                continue;
            uint64_t random = next_random(&worker->seed);
            give(shared, &blocks[i], low[kind] + (uint32_t)(random >> 20) % (high[kind] - low[kind] + 1),
                 (uint32_t)random);
            bytes += blocks[i].bytes;
            operations++;
        }
    }
    worker->operations = operations;
}

static void fragment_run(struct shared *shared)
{
    make_blocks(shared, 400000 / shared->scale / shared->threads * shared->threads);
    uint64_t resident = resident_bytes();
    run_slices(shared, 3, NULL, fragment_slice);
    measure_space(shared, resident);
}

#define WORK(name) \
    static void name##_work(const struct alloc_peer *peer, unsigned threads, uint64_t scale, uint64_t objects, \
                            struct alloc_result *result) \
    { \
        struct shared shared = { \
            .peer = peer, .result = result, .threads = threads, .scale = scale, .objects = objects}; \
        name##_run(&shared); \
        result->verified = !atomic_load(&shared.wrong); \
    }
WORK(pair)
WORK(bulk)
WORK(churn)
WORK(cross)
WORK(larson)
WORK(xmalloc)
WORK(fragment)

const struct alloc_work alloc_works[] = {
    {"pair", {"24 B", NULL}, false, 1, pair_work},
    {"bulk", {"allocate", "random free"}, false, 5, bulk_work},
    {"churn", {"16..1024 B", NULL}, false, 1, churn_work},
    {"cross", {"24 B", NULL}, true, 1, cross_work},
    {"larson", {"10..500 B", NULL}, false, 1, larson_work},
    {"xmalloc", {"16..512 B", NULL}, false, 1, xmalloc_work},
    {"fragment", {"16..60000 B", NULL}, false, 1, fragment_work},
};
const unsigned alloc_work_count = sizeof alloc_works / sizeof *alloc_works;
