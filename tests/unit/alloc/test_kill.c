/*
 * test_kill.c -- LIVE: a process killed at any instruction leaks at most the block in flight and never breaks the heap.
 *
 * Method: children work on one shared heap and write every block they have into a shared table: after malloc, and
 * before free.  They are killed with SIGKILL, at random moments or at every labelled step in turn.  Then the heap must
 * check, every block in the table must be live with its contents, and the heap may hold at most one block more for
 * every kill.  Whoever comes next works on, with the dead one's blocks and slabs.
 */
#include "arena.h"

#include <stdatomic.h>
#include <time.h>

#include "alloc/gate.h"

enum { CHILDREN = 3, HELD = 400 };

struct held {
    _Atomic(uint8_t *) at;
    uint32_t bytes;
    uint32_t mark;
};

struct shared {
    struct held held[CHILDREN][HELD];
    atomic_bool alive[1 << 16]; /* by attachment id */
    atomic_uint next_id;
    atomic_ulong operations;
};

static struct shared *shared;
static struct arena arena;

static int extend_all(void *ctx, uint64_t bytes)
{
    (void)ctx;
    return bytes <= arena.capacity ? 0 : ENOMEM; /* all of it is mapped, in every child */
}

static bool alive_shared(void *ctx, uint32_t id)
{
    (void)ctx;
    return id < 1 << 16 && atomic_load(&shared->alive[id]);
}

static uint32_t new_id(void)
{
    uint32_t id = atomic_fetch_add(&shared->next_id, 1);
    atomic_store(&shared->alive[id], true);
    return id;
}

static struct heap *attach(uint32_t id, bool first)
{
    struct heap_host host = {.extend = extend_all, .alive = alive_shared, .self = id};
    struct heap *heap;
    cr_assert_eq(heap_attach(&heap, arena.base, arena.capacity, HEAP_INITIAL_BYTES, HEAP_LIVE, first, &host), 0, "%s",
                 error_last_text());
    return heap;
}

static void setup(void)
{
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(shared, MAP_FAILED);
    atomic_store(&shared->next_id, 10);
    arena_open(&arena, HEAP_LIVE, UINT64_C(256) << 20, true);
    heap_detach(arena.heap);
    cr_assert_eq(mprotect(arena.base, arena.capacity, PROT_READ | PROT_WRITE), 0);
    arena.bytes = arena.capacity;
}

static void held_put(struct held *held, uint8_t *at, uint32_t bytes, uint32_t mark)
{
    memset(at, (int)(mark & 255), bytes > 64 ? 64 : bytes);
    held->bytes = bytes;
    held->mark = mark & 255;
    atomic_store(&held->at, at);
}

static bool held_is_right(const struct held *held)
{
    const uint8_t *at = atomic_load(&held->at);
    for (unsigned i = 0; i < (held->bytes > 64 ? 64 : held->bytes); i++)
        if (at[i] != held->mark)
            return false;
    return true;
}

/* Everything every kill so far may have left; heap: a handle of the living. */
static void verify(struct heap *heap, uint64_t kills)
{
    struct report report;
    struct heap_stats stats;
    uint64_t held = 0;
    cr_assert_eq(arena_check(&arena, &report), 0, "%s", report.first);
    for (unsigned c = 0; c < CHILDREN; c++)
        for (unsigned i = 0; i < HELD; i++) {
            const struct held *block = &shared->held[c][i];
            uint8_t *at = atomic_load(&block->at);
            void *start;
            size_t usable;
            if (at == NULL)
                continue;
            held++;
            cr_assert(heap_find_block(heap, at, &start, &usable),
                      "the block of %u bytes at 0x%" PRIx64 ", held by row %u, "
                      "is not live after %" PRIu64 " kills",
                      block->bytes, (uint64_t)(at - arena.base), c, kills);
            cr_assert_eq(start, at);
            cr_assert_geq(usable, block->bytes);
            cr_assert(held_is_right(block), "a held block lost its contents");
        }
    heap_stat(heap, &stats);
    cr_assert_geq(stats.live_blocks, held);
    cr_assert_leq(stats.live_blocks, held + kills, "%" PRIu64 " live, %" PRIu64 " held, %" PRIu64 " kills",
                  stats.live_blocks, held, kills);
}

/* A child's work, for ever; exits with 1 if something is wrong. */
static void work(unsigned number, uint64_t seed)
{
    struct heap *heap = attach(new_id(), false);
    for (;;) {
        /* mostly its own blocks, sometimes a neighbour's: frees in others' slabs.  Only one child may have a row. */
        struct held *held = &shared->held[number][test_random(&seed) % HELD];
        uint8_t *at = atomic_load(&held->at);
        if (at == NULL) {
            unsigned kind = (unsigned)(test_random(&seed) % 200);
            uint32_t bytes = 1 + (uint32_t)(kind == 0   ? test_random(&seed) % (6u << 20)
                                            : kind < 10 ? test_random(&seed) % 100000
                                                        : test_random(&seed) % 1000);
            at = heap_malloc(heap, bytes);
            if (at == NULL)
                continue;
            held_put(held, at, bytes, (uint32_t)test_random(&seed));
        } else {
            if (!held_is_right(held))
                _exit(1);
            atomic_store(&held->at, NULL);
            if (heap_free(heap, at) != 0)
                _exit(2);
        }
        atomic_fetch_add_explicit(&shared->operations, 1, memory_order_relaxed);
    }
}

Test(kill, at_random_moments, .init = setup, .timeout = 240)
{
    uint64_t seed = test_seed("at_random_moments"), kills = 0;
    uint32_t self = new_id();
    struct heap *heap = attach(self, true);
    unsigned first_id = 0;
    const unsigned planned = test_rounds(100);
    for (unsigned round = 0; round < planned || atomic_load(&shared->operations) <= 1000; round++) {
        pid_t children[CHILDREN];
        first_id = atomic_load(&shared->next_id);
        for (unsigned c = 0; c < CHILDREN; c++) {
            uint64_t child_seed = test_random(&seed) | 1;
            unsigned row = (c + round) % CHILDREN; /* others' blocks, so that frees meet others' slabs */
            children[c] = fork();
            cr_assert_geq(children[c], 0);
            if (children[c] == 0)
                work(row, child_seed);
        }
        unsigned long before = atomic_load(&shared->operations);
        struct timespec pause = {.tv_nsec = (long)(test_random(&seed) % 8000000)};
        do /* at any moment; but where all of them come too early, some later rounds wait until one is at work */
            nanosleep(&pause, NULL);
        while (round >= planned && atomic_load(&shared->operations) == before);
        for (unsigned c = 0; c < CHILDREN; c++) {
            int status;
            kill(children[c], SIGKILL);
            cr_assert_eq(waitpid(children[c], &status, 0), children[c]);
            cr_assert(WIFSIGNALED(status), "a child found a wrong block (%d)", WEXITSTATUS(status));
            kills++;
        }
        for (unsigned id = first_id; id < atomic_load(&shared->next_id); id++)
            atomic_store(&shared->alive[id], false);
        verify(heap, kills);
    }
    for (unsigned c = 0; c < CHILDREN; c++)
        for (unsigned i = 0; i < HELD; i++)
            if (atomic_load(&shared->held[c][i].at) != NULL) {
                cr_assert_eq(heap_free(heap, shared->held[c][i].at), 0, "%s", error_last_text());
                atomic_store(&shared->held[c][i].at, NULL);
            }
    heap_trim(heap);
    verify(heap, kills);
    heap_detach(heap);
}

#if STEAD_CHECKS >= 1
static unsigned steps, kill_at;

static int find_leaked(void *block, size_t usable, void *arg)
{
    (void)usable;
    for (unsigned c = 0; c < CHILDREN; c++)
        for (unsigned i = 0; i < HELD; i++)
            if (atomic_load(&shared->held[c][i].at) == block)
                return 0;
    *(void **)arg = block;
    return 1;
}

/* Frees the block in flight, if there is one: so that hundreds of kills do not fill the heap. */
static void free_leaked(struct heap *heap)
{
    void *leaked = NULL;
    if (heap_each_block(heap, find_leaked, &leaked) != 0)
        cr_assert_eq(heap_free(heap, leaked), 0, "%s", error_last_text());
}

static void count_step(void)
{
    if (++steps == kill_at)
        raise(SIGKILL);
}

/* Calls that pass through every labelled step: slabs made and removed, extents, spans, growth, others' frees. */
static void script(void)
{
    struct heap *heap = attach(new_id(), false);
    struct held *held = shared->held[0];
    static const uint32_t sizes[] = {24, 700, 5000, 40000, 300000, 3u << 20, 5u << 20, 9u << 20, 100};
    gate_step_hook = count_step;
    for (unsigned i = 0; i < HELD; i++) { /* what earlier ones left: mostly in dead processes' slabs */
        uint8_t *at = atomic_load(&held[i].at);
        if (at == NULL)
            continue;
        if (!held_is_right(&held[i]))
            _exit(1);
        atomic_store(&held[i].at, NULL);
        if (heap_free(heap, at) != 0)
            _exit(2);
    }
    for (unsigned i = 0; i < HELD && i < 150; i++) {
        uint32_t bytes = sizes[i % 9];
        if (i > 40 && bytes > 5000)
            continue;
        uint8_t *at = heap_malloc(heap, bytes);
        if (at == NULL)
            _exit(3);
        held_put(&held[i], at, bytes, i);
    }
    for (unsigned i = 0; i < 40; i++) {
        uint8_t *at = atomic_load(&held[i].at);
        if (at == NULL || held[i].bytes < 40000)
            continue;
        /* in place or not at all: a moved block would be two for a moment, and that is the caller's doing */
        if (held[i].bytes != 300000)
            continue;
        held[i].bytes = 280000; /* what is sure at any instant */
        if (heap_realloc(heap, at, 280000) != at || heap_realloc(heap, at, 300000) != at)
            _exit(4);
        held[i].bytes = 300000;
    }
    for (unsigned i = 0; i < HELD; i += 2) {
        uint8_t *at = atomic_load(&held[i].at);
        if (at == NULL)
            continue;
        atomic_store(&held[i].at, NULL);
        if (heap_free(heap, at) != 0)
            _exit(5);
    }
    heap_detach(heap);
    _exit(0);
}

Test(kill, at_every_labelled_step, .init = setup, .timeout = 240)
{
    struct heap *heap = attach(new_id(), true);
    uint64_t kills = 0;
    unsigned step = 1;
    /* Long runs take every step; the default takes every step at first and then ever larger strides. */
    for (;; step += getenv("STEAD_LONG") != NULL || step < 400 ? 1 : 1 + step / 200) {
        unsigned first_id = atomic_load(&shared->next_id);
        int status;
        pid_t child = fork();
        cr_assert_geq(child, 0);
        if (child == 0) {
            kill_at = step;
            script();
        }
        cr_assert_eq(waitpid(child, &status, 0), child);
        for (unsigned id = first_id; id < atomic_load(&shared->next_id); id++)
            atomic_store(&shared->alive[id], false);
        if (WIFEXITED(status)) {
            cr_assert_eq(WEXITSTATUS(status), 0, "the script failed at %d", WEXITSTATUS(status));
            break;
        }
        kills++;
        verify(heap, 1);
        free_leaked(heap);
        /* The next one in settles what is unfinished: from here on no exception is made for the intent's segments. */
        void *large = heap_malloc(heap, 100000);
        cr_assert_not_null(large, "%s", error_last_text());
        cr_assert_eq(heap_free(heap, large), 0);
        const struct header *header = (const struct header *)(void *)(arena.base + HEAP_RESERVED_BYTES);
        cr_assert_eq(header->root.intent_pages, 0);
        verify(heap, 0);
    }
    cr_assert_gt(kills, 300u, "only %" PRIu64 " steps", kills);
    heap_detach(heap);
}

enum { REMOTE = 20 };

/* Blocks in a slab whose owner is dead afterwards. */
static void leave_blocks(void)
{
    struct heap *heap = attach(new_id(), false);
    for (unsigned i = 0; i < REMOTE; i++) {
        uint8_t *at = heap_malloc(heap, 24);
        if (at == NULL)
            _exit(1);
        held_put(&shared->held[0][i], at, 24, i);
    }
    _exit(0);
}

/* Frees them, in a slab that is not its own, and then wants one: what it freed is harvested. */
static void free_and_harvest(void)
{
    struct heap *heap = attach(new_id(), false);
    gate_step_hook = count_step;
    for (unsigned i = 0; i < REMOTE; i++) {
        uint8_t *at = atomic_exchange(&shared->held[0][i].at, NULL);
        if (at != NULL && heap_free(heap, at) != 0)
            _exit(1);
    }
    for (unsigned i = 0; i < 3; i++) {
        uint8_t *at = heap_malloc(heap, 24);
        if (at == NULL)
            _exit(2);
        held_put(&shared->held[1][i], at, 24, i);
    }
    _exit(0);
}

static int run_child(void (*what)(void))
{
    int status;
    unsigned first_id = atomic_load(&shared->next_id);
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0)
        what();
    cr_assert_eq(waitpid(child, &status, 0), child);
    for (unsigned id = first_id; id < atomic_load(&shared->next_id); id++)
        atomic_store(&shared->alive[id], false);
    return status;
}

/* Many blocks that others freed become free for good by two stores to words: killed between them, none is lost, and none
 * becomes free twice. */
Test(kill, at_every_step_of_a_harvest, .init = setup, .timeout = 240)
{
    struct heap *heap = attach(new_id(), true);
    int status = 1;
    for (unsigned step = 1; !WIFEXITED(status) || step == 1; step++) {
        kill_at = 0;
        status = run_child(leave_blocks);
        cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        kill_at = step;
        steps = 0;
        status = run_child(free_and_harvest);
        cr_assert(WIFSIGNALED(status) || WEXITSTATUS(status) == 0, "step %u: %d", step, WEXITSTATUS(status));
        verify(heap, WIFSIGNALED(status) ? 1 : 0);
        free_leaked(heap);
        for (unsigned i = 0; i < 2 * HELD; i++) {
            uint8_t *at = atomic_exchange(&shared->held[i / HELD][i % HELD].at, NULL);
            if (at != NULL)
                cr_assert_eq(heap_free(heap, at), 0, "step %u: %s", step, error_last_text());
        }
        verify(heap, 0);
        if (WIFEXITED(status))
            cr_assert_gt(step, REMOTE + 3u, "%u steps", step);
    }
    heap_detach(heap);
}
#endif
