/* test_threads.c -- many threads on one heap: their own blocks, others' blocks, threads that end, heaps that go. */
#include "alloc/state.h"
#include "alloc/owner.h"
#include "arena.h"

#include <pthread.h>
#include <stdatomic.h>

enum { THREADS = 4, TABLE = 2000 };

struct exchange {
    struct arena *arena;
    _Atomic(uint64_t *) table[TABLE]; /* blocks on the way from one thread to another */
    atomic_uint failures;
    atomic_long live;
    unsigned rounds;
};

struct worker {
    struct exchange *exchange;
    uint64_t seed;
};

/* Puts a block into the table and frees what it finds there. */
static void *exchange_blocks(void *arg)
{
    struct worker *worker = arg;
    struct exchange *exchange = worker->exchange;
    struct heap *heap = exchange->arena->heap;
    uint64_t seed = worker->seed;
    for (unsigned n = 0; n < exchange->rounds; n++) {
        uint64_t bytes = 8 + test_random(&seed) % (test_random(&seed) % 500 == 0 ? 100000 : 600);
        uint64_t *block = heap_malloc(heap, bytes);
        if (block == NULL) {
            atomic_fetch_add(&exchange->failures, 1);
            continue;
        }
        atomic_fetch_add_explicit(&exchange->live, 1, memory_order_relaxed);
        *block = (uint64_t)(uintptr_t)block ^ bytes;
        if (bytes >= 16)
            block[1] = bytes;
        block = atomic_exchange(&exchange->table[test_random(&seed) % TABLE], block);
        if (block == NULL)
            continue;
        size_t usable = heap_usable_size(heap, block);
        if ((*block ^ (uint64_t)(uintptr_t)block) > usable || heap_free(heap, block) != 0)
            atomic_fetch_add(&exchange->failures, 1);
        atomic_fetch_sub_explicit(&exchange->live, 1, memory_order_relaxed);
    }
    return NULL;
}

static void run_threads(struct exchange *exchange, uint64_t *seed)
{
    pthread_t threads[THREADS];
    struct worker workers[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){exchange, test_random(seed) | 1};
        cr_assert_eq(pthread_create(&threads[i], NULL, exchange_blocks, &workers[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    cr_assert_eq(atomic_load(&exchange->failures), 0);
}

static void test_exchange(enum heap_kind kind)
{
    uint64_t seed = test_seed("exchange");
    static struct exchange exchange;
    struct arena arena;
    struct heap_stats stats;
    memset(&exchange, 0, sizeof exchange);
    arena_open(&arena, kind, UINT64_C(1) << 30, false);
    exchange.arena = &arena;
    exchange.rounds = test_rounds(20000);
    for (unsigned round = 0; round < 4; round++) { /* new threads take over what the last ones left */
        run_threads(&exchange, &seed);
        heap_stat(arena.heap, &stats);
        cr_assert_eq((long)stats.live_blocks, atomic_load(&exchange.live));
        ARENA_SOUND(&arena);
        if (round == 1 && kind != HEAP_LIVE)
            heap_reload(arena.heap, arena.bytes);
    }
    uint64_t used = stats.used_bytes;
    for (unsigned i = 0; i < TABLE; i++)
        if (exchange.table[i] != NULL)
            cr_assert_eq(heap_free(arena.heap, exchange.table[i]), 0, "%s", error_last_text());
    heap_trim(arena.heap);
    heap_stat(arena.heap, &stats);
    cr_assert_eq(stats.live_blocks, 0);
    cr_assert_eq(stats.used_bytes, HEAP_INITIAL_BYTES);
    cr_assert_lt(used, UINT64_C(24) << 20, "%" PRIu64 " bytes for %u blocks of 300 bytes", used, TABLE);
    ARENA_SOUND(&arena);
    arena_close(&arena);
}

Test(threads, exchange_blocks_sole, .timeout = 240)
{
    test_exchange(HEAP_SOLE);
}

Test(threads, exchange_blocks_live, .timeout = 240)
{
    test_exchange(HEAP_LIVE);
}

struct stage {
    struct arena *arena;
    pthread_barrier_t barrier;
    void *block;
};

static void *outlive(void *arg)
{
    struct stage *stage = arg;
    stage->block = heap_malloc(stage->arena->heap, 50);
    pthread_barrier_wait(&stage->barrier); /* the heap goes */
    pthread_barrier_wait(&stage->barrier); /* and comes back */
    void *other = heap_malloc(stage->arena->heap, 50);
    cr_assert_not_null(other);
    cr_assert_neq(other, stage->block);
    cr_assert_eq(heap_free(stage->arena->heap, stage->block), 0);
    cr_assert_eq(heap_free(stage->arena->heap, other), 0);
    return NULL;
}

Test(threads, outlive_a_heap)
{
    struct arena arena;
    struct stage stage = {.arena = &arena};
    pthread_t thread;
    arena_open(&arena, HEAP_LIVE, UINT64_C(64) << 20, false);
    pthread_barrier_init(&stage.barrier, NULL, 2);
    cr_assert_eq(pthread_create(&thread, NULL, outlive, &stage), 0);
    pthread_barrier_wait(&stage.barrier);
    arena_reattach(&arena, HEAP_LIVE, true);
    pthread_barrier_wait(&stage.barrier);
    pthread_join(thread, NULL);
    struct heap_stats stats;
    heap_stat(arena.heap, &stats);
    cr_assert_eq(stats.live_blocks, 0);
    ARENA_SOUND(&arena);
    arena_close(&arena);
}

static void *own_a_slab_and_end(void *arg)
{
    struct stage *stage = arg;
    stage->block = heap_malloc(stage->arena->heap, 50);
    pthread_barrier_wait(&stage->barrier); /* the heap is reloaded, and the slab another thread's */
    pthread_barrier_wait(&stage->barrier);
    return NULL;
}

static const struct note *note_of(const struct heap *heap, const void *block)
{
    return &heap->notes[(uint64_t)((const uint8_t *)block - heap->base) >> SLOT_SHIFT];
}

/* What it owned before the reload is not its to give back. */
Test(threads, the_end_of_one_that_owned_before_a_reload_takes_nothing_away)
{
    struct arena arena;
    struct stage stage = {.arena = &arena};
    pthread_t thread;
    arena_open(&arena, HEAP_SOLE, UINT64_C(64) << 20, false);
    pthread_barrier_init(&stage.barrier, NULL, 2);
    cr_assert_eq(pthread_create(&thread, NULL, own_a_slab_and_end, &stage), 0);
    pthread_barrier_wait(&stage.barrier);
    heap_reload(arena.heap, arena.bytes);
    void *mine = heap_malloc(arena.heap, 50);
    const struct note *note = note_of(arena.heap, mine);
    cr_assert_eq(note, note_of(arena.heap, stage.block), "the same slab");
    pthread_barrier_wait(&stage.barrier);
    pthread_join(thread, NULL);
    cr_assert_eq(atomic_load(&note->owner), owner_get(arena.heap)->token);
    cr_assert_eq(heap_free(arena.heap, mine), 0);
    ARENA_SOUND(&arena);
    arena_close(&arena);
}

Test(threads, use_more_heaps_than_are_remembered)
{
    enum { HEAPS = 40 };
    static struct arena arenas[HEAPS];
    static void *blocks[HEAPS][50];
    for (unsigned i = 0; i < HEAPS; i++)
        arena_open(&arenas[i], i % 2 ? HEAP_SOLE : HEAP_LIVE, UINT64_C(16) << 20, false);
    for (unsigned n = 0; n < 50; n++)
        for (unsigned i = 0; i < HEAPS; i++)
            cr_assert_not_null(blocks[i][n] = heap_malloc(arenas[i].heap, 30 + n * 20));
    for (unsigned n = 0; n < 50; n++)
        for (unsigned i = 0; i < HEAPS; i++) {
            cr_assert_eq(heap_free(arenas[(i + 1) % HEAPS].heap, blocks[i][n]), STEAD_WRONG_POINTER);
            cr_assert_eq(heap_free(arenas[i].heap, blocks[i][n]), 0);
        }
    for (unsigned i = 0; i < HEAPS; i++) {
        ARENA_SOUND(&arenas[i]);
        arena_close(&arenas[i]);
    }
}

/* A thread's end is no call of the program's: it comes whenever it likes, beside a commit that captures the image or a
 * rollback that drops its pages.  So it may neither write nor read there (O1).  Method: blocks of many classes, all freed by
 * others, so that there is a lot to tidy up; the image is out of reach meanwhile. */
struct leaver {
    struct arena *arena;
    pthread_barrier_t barrier;
    void *blocks[400];
};

static void *leave(void *arg)
{
    struct leaver *leaver = arg;
    for (unsigned i = 0; i < 400; i++)
        cr_assert_not_null(leaver->blocks[i] = heap_malloc(leaver->arena->heap, 16 + i * 80));
    pthread_barrier_wait(&leaver->barrier); /* others free all but some of them */
    pthread_barrier_wait(&leaver->barrier);
    return NULL;
}

static void test_end_touches_nothing(enum heap_kind kind)
{
    struct arena arena;
    static struct leaver leaver;
    pthread_t thread;
    struct heap_stats stats;
    arena_open(&arena, kind, UINT64_C(64) << 20, false);
    leaver.arena = &arena;
    pthread_barrier_init(&leaver.barrier, NULL, 2);
    cr_assert_eq(pthread_create(&thread, NULL, leave, &leaver), 0);
    pthread_barrier_wait(&leaver.barrier);
    for (unsigned i = 0; i < 400; i++)
        if (i % 40 != 0)
            cr_assert_eq(heap_free(arena.heap, leaver.blocks[i]), 0);
    uint64_t bytes = arena.bytes;
    cr_assert_eq(mprotect(arena.base, bytes, PROT_NONE), 0);
    pthread_barrier_wait(&leaver.barrier);
    pthread_join(thread, NULL);
    cr_assert_eq(mprotect(arena.base, bytes, PROT_READ | PROT_WRITE), 0);
    cr_assert_eq(arena.bytes, bytes);
    /* The next call that needs room tidies up: what was freed is used again. */
    for (unsigned i = 0; i < 400; i++)
        if (i % 40 != 0)
            cr_assert_not_null(leaver.blocks[i] = heap_malloc(arena.heap, 16 + i * 80));
    cr_assert_eq(arena.bytes, bytes, "what an ended thread left was not found");
    for (unsigned i = 0; i < 400; i++)
        cr_assert_eq(heap_free(arena.heap, leaver.blocks[i]), 0);
    heap_trim(arena.heap);
    heap_stat(arena.heap, &stats);
    cr_assert_eq(stats.live_blocks, 0);
    cr_assert_eq(stats.used_bytes, HEAP_INITIAL_BYTES);
    ARENA_SOUND(&arena);
    pthread_barrier_destroy(&leaver.barrier);
    arena_close(&arena);
}

Test(threads, the_end_of_one_touches_nothing_in_sole)
{
    test_end_touches_nothing(HEAP_SOLE);
}

Test(threads, the_end_of_one_touches_nothing_in_turns)
{
    test_end_touches_nothing(HEAP_TURNS);
}

/* Each turn that another process had takes two tokens: after days of turns the 32 bits are used up (O2). */
Test(threads, go_on_when_the_tokens_are_used_up)
{
    enum { TURNS = 8, BLOCKS = 300 };
    struct arena arena;
    static struct leaver leavers[TURNS];
    struct heap_stats stats;
    arena_open(&arena, HEAP_TURNS, UINT64_C(64) << 20, false);
    cr_assert_not_null(heap_malloc(arena.heap, 16));
    arena.heap->token_next = UINT32_MAX - 3;
    for (unsigned turn = 0; turn < TURNS; turn++) {
        pthread_t thread;
        heap_reload(arena.heap, arena.bytes);
        leavers[turn].arena = &arena;
        pthread_barrier_init(&leavers[turn].barrier, NULL, 2);
        cr_assert_eq(pthread_create(&thread, NULL, leave, &leavers[turn]), 0);
        pthread_barrier_wait(&leavers[turn].barrier);
        for (unsigned i = 0; i < BLOCKS; i++) { /* no slab is two threads' */
            uint64_t *block = heap_malloc(arena.heap, 16);
            cr_assert_not_null(block, "%s", error_last_text());
            *block = turn;
        }
        cr_assert_gt(arena.heap->token_next, atomic_load(&arena.heap->token_floor));
        pthread_barrier_wait(&leavers[turn].barrier);
        pthread_join(thread, NULL);
    }
    heap_stat(arena.heap, &stats);
    cr_assert_eq(stats.live_blocks, 1 + TURNS * (400 + BLOCKS));
    ARENA_SOUND(&arena);
    arena_close(&arena);
}

/* Ends the process when the thread's other destructors have run: those of a second round come after all of the first.
 * pthread_exit() of a process's only thread would do, but a sanitizer's own thread then keeps the process for ever. */
static pthread_key_t end_key;
static int second_round;

static void end_process(void *round)
{
    if (round != &end_key || pthread_setspecific(end_key, &second_round) != 0)
        _exit(round == &second_round ? 0 : 1);
}

Test(threads, a_fork_child_leaves_the_heap_alone)
{
    struct arena arena;
    int status;
    arena_open(&arena, HEAP_SOLE, UINT64_C(16) << 20, false);
    void *block = heap_malloc(arena.heap, 100);
    pid_t child = fork();
    if (child == 0) {
        munmap(arena.base, arena.capacity); /* as MADV_DONTFORK does */
        heap_forget(arena.heap);
        if (pthread_key_create(&end_key, end_process) != 0 || pthread_setspecific(end_key, &end_key) != 0)
            _exit(2);
        pthread_exit(NULL); /* the thread's end must not touch it either */
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    cr_assert_eq(heap_free(arena.heap, block), 0);
    arena_close(&arena);
}
