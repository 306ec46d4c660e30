/*
 * test_orphan.c -- slabs that are nobody's find a new owner, and those of the living are let be (alloc/orphan.c): two
 * attachments of one LIVE heap, as two processes have them, of which one ends, dies, or stays.
 */
#include <pthread.h>

#include "arena.h"

TestSuite(orphan, .timeout = 240);

#define SMALL 64
#define MIB (UINT64_C(1) << 20)

static struct arena arena;
static struct heap *one, *two; /* attachments 7 and 8 */

static void open_both(void)
{
    struct heap_host host;
    arena_open(&arena, HEAP_LIVE, 256 * MIB, false);
    arena.host.guards = false; /* the other one's free blocks are not known here */
    arena_reattach(&arena, HEAP_LIVE, true);
    one = arena.heap;
    host = arena.host;
    host.self = 8;
    cr_assert_eq(heap_attach(&two, arena.base, arena.capacity, arena.bytes, HEAP_LIVE, false, &host), 0);
}

static uint64_t used(struct heap *heap)
{
    return heap_used_bytes(heap);
}

static void fill(struct heap *heap, void **block, size_t count)
{
    heap_extended(heap, arena.bytes);
    for (size_t i = 0; i < count; i++) {
        block[i] = heap_malloc(heap, SMALL);
        cr_assert_not_null(block[i], "%s", error_last_text());
        *(uint64_t *)block[i] = (uint64_t)(uintptr_t)block[i] ^ (uint64_t)(uintptr_t)heap;
    }
}

static void expect_own(struct heap *heap, void *const *block, size_t count)
{
    for (size_t i = 0; i < count; i++)
        cr_assert_eq(*(uint64_t *)block[i], (uint64_t)(uintptr_t)block[i] ^ (uint64_t)(uintptr_t)heap,
                     "block %zu was given out twice", i);
}

/* Leaves every 16th. */
static void thin_out(struct heap *heap, void *const *block, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (i % 16 != 0)
            cr_assert_eq(heap_free(heap, block[i]), 0);
}

Test(orphan, a_trim_lets_the_slabs_of_the_living_be)
{
    enum { COUNT = 4000 };
    static void *mine[COUNT], *theirs[COUNT];
    open_both();
    fill(two, theirs, COUNT);
    for (size_t i = 0; i < COUNT; i++)
        cr_assert_eq(heap_free(two, theirs[i]), 0); /* it keeps an empty slab for its next block */
    heap_trim(one);
    fill(one, mine, COUNT);
    fill(two, theirs, COUNT);
    expect_own(one, mine, COUNT);
    expect_own(two, theirs, COUNT);
    ARENA_SOUND(&arena);
    heap_detach(two);
    arena_close(&arena);
}

Test(orphan, what_a_neighbour_gave_back_is_used_before_new_room)
{
    enum { COUNT = 40000, MORE = 30000 };
    static void *theirs[COUNT], *mine[MORE];
    open_both();
    fill(two, theirs, COUNT);
    fill(one, mine, 100); /* has looked, and found nothing that is nobody's */
    thin_out(two, theirs, COUNT);
    heap_detach(two);
    uint64_t before = used(one);
    fill(one, mine, MORE);
    cr_assert_leq(used(one), before + 2 * UNIT_BYTES);
    ARENA_SOUND(&arena);
    arena_close(&arena);
}

Test(orphan, slabs_of_the_dead_are_sought_again_as_the_heap_grows)
{
    enum { COUNT = 24 * MIB / SMALL, MORE = 20 * MIB / SMALL };
    static void *theirs[COUNT], *mine[MORE];
    open_both();
    fill(two, theirs, COUNT);
    fill(one, mine, 100);
    thin_out(two, theirs, COUNT);
    arena.dead_id = 8;
    uint64_t before = used(one);
    fill(one, mine, MORE);
    cr_assert_leq(used(one), before + 14 * MIB, "%llu MiB of %llu", (unsigned long long)((used(one) - before) / MIB),
                  (unsigned long long)(MORE * SMALL / MIB));
    ARENA_SOUND(&arena);
    heap_forget(two);
    arena_close(&arena);
}

/* An attachment of a former session has the number of one that is alive now. */
Test(orphan, marks_of_a_former_session_are_nobodys)
{
    enum { COUNT = 40000, MORE = 30000 };
    static void *old[COUNT], *mine[MORE];
    arena_open(&arena, HEAP_LIVE, 256 * MIB, false);
    fill(arena.heap, old, COUNT);
    thin_out(arena.heap, old, COUNT);
    heap_forget(arena.heap); /* killed */
    arena.host.self = 8;
    cr_assert_eq(heap_attach(&arena.heap, arena.base, arena.capacity, arena.bytes, HEAP_LIVE, true, &arena.host), 0);
    uint64_t before = used(arena.heap);
    fill(arena.heap, mine, MORE);
    cr_assert_leq(used(arena.heap), before + 2 * UNIT_BYTES);
    ARENA_SOUND(&arena);
    arena_close(&arena);
}

struct filler {
    void **block;
    size_t count;
    pthread_barrier_t filled, freed;
};

static void *fill_and_end(void *arg)
{
    struct filler *filler = arg;
    fill(arena.heap, filler->block, filler->count);
    pthread_barrier_wait(&filler->filled);
    pthread_barrier_wait(&filler->freed);
    return NULL;
}

/* What others freed while a thread lived is empty at its end, and room for blocks of any size. */
static void end_leaves_room(enum heap_kind kind)
{
    enum { COUNT = 2 * MIB / SMALL };
    static void *theirs[COUNT];
    struct filler filler = {.block = theirs, .count = COUNT};
    pthread_t thread;
    arena_open(&arena, kind, 256 * MIB, false);
    pthread_barrier_init(&filler.filled, NULL, 2);
    pthread_barrier_init(&filler.freed, NULL, 2);
    cr_assert_eq(pthread_create(&thread, NULL, fill_and_end, &filler), 0);
    pthread_barrier_wait(&filler.filled);
    uint64_t most = used(arena.heap);
    for (size_t i = 0; i < COUNT; i++)
        cr_assert_eq(heap_free(arena.heap, theirs[i]), 0);
    pthread_barrier_wait(&filler.freed);
    pthread_join(thread, NULL);
    for (size_t i = 0; i < 1700; i++)
        cr_assert_not_null(heap_malloc(arena.heap, 1000));
    cr_assert_leq(used(arena.heap), most + 2 * UNIT_BYTES);
    ARENA_SOUND(&arena);
    arena_close(&arena);
}

Test(orphan, the_end_of_a_thread_leaves_room_in_sole)
{
    end_leaves_room(HEAP_SOLE);
}
Test(orphan, the_end_of_a_thread_leaves_room_in_live)
{
    end_leaves_room(HEAP_LIVE);
}
