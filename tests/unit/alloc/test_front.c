/* test_front.c -- what the public calls compare (struct owner's front) is never true for longer than the heap's serial: O3.
 * Method: a thread uses a heap through its handle, the heap is reloaded, detached, or inherited by a fork child, by this
 * thread or another one, or the thread ends; then the handle and the old addresses must mean nothing to it. */
#include "alloc/fast.h"
#include "alloc/owner.h"
#include "arena.h"

#include <pthread.h>

static struct arena arena;
static pthread_barrier_t barrier;

static void open_with_handle(enum heap_kind kind)
{
    arena_open(&arena, kind, UINT64_C(16) << 20, false);
    arena.host.handle = &arena;
    arena_reattach(&arena, kind, true);
}

/* A block that can be freed through the front alone. */
static void *use(void)
{
    void *first = heap_malloc(arena.heap, 48), *block = heap_malloc_by(&arena, 48);
    cr_assert(first != NULL && block != NULL, "the front is not set by the first call");
    cr_assert(heap_free_by(first));
    return block;
}

static void *use_and_look_again(void *unused)
{
    void *block = use();
    pthread_barrier_wait(&barrier); /* the other thread reloads or detaches */
    pthread_barrier_wait(&barrier);
    cr_assert_null(heap_malloc_by(&arena, 48));
    cr_assert_not(heap_free_by(block));
    cr_assert_not(heap_free_remote_by(block));
    return unused;
}

static void test_by_another_thread(void (*change)(void))
{
    pthread_t thread;
    cr_assert_eq(pthread_barrier_init(&barrier, NULL, 2), 0);
    cr_assert_eq(pthread_create(&thread, NULL, use_and_look_again, NULL), 0);
    pthread_barrier_wait(&barrier);
    change();
    pthread_barrier_wait(&barrier);
    cr_assert_eq(pthread_join(thread, NULL), 0);
}

static void reload(void)
{
    heap_reload(arena.heap, arena.bytes);
}

static void detach(void)
{
    heap_detach(arena.heap);
}

static void reattach(void)
{
    arena_reattach(&arena, arena.kind, true);
}

Test(front, O3_of_a_reloaded_heap_says_nothing_until_it_is_used_again)
{
    open_with_handle(HEAP_SOLE);
    void *block = use();
    reload();
    cr_assert_null(heap_malloc_by(&arena, 48));
    cr_assert_not(heap_free_by(block));
    cr_assert_eq(heap_free(arena.heap, block), 0);
    cr_assert(heap_free_by(use()));
    test_by_another_thread(reload);
    ARENA_SOUND(&arena);
    arena_close(&arena);
}

/* Another heap at the same addresses and with the same handle. */
Test(front, O3_of_a_detached_heap_says_nothing)
{
    open_with_handle(HEAP_LIVE);
    void *block = use();
    reattach();
    cr_assert_null(heap_malloc_by(&arena, 48));
    cr_assert_not(heap_free_by(block));
    test_by_another_thread(reattach);
    test_by_another_thread(detach);
    munmap(arena.base, arena.capacity);
}

Test(front, O3_a_heap_without_a_handle_is_not_known)
{
    arena_open(&arena, HEAP_TURNS, UINT64_C(16) << 20, false);
    void *block = heap_malloc(arena.heap, 48);
    cr_assert_not_null(block);
    cr_assert_null(heap_malloc_by(NULL, 48));
    cr_assert_null(heap_malloc_by(&arena, 48));
    cr_assert_not(heap_free_by(block));
    cr_assert_not(heap_free_remote_by(block));
    cr_assert_eq(heap_free(arena.heap, block), 0);
    arena_close(&arena);
}

static pthread_key_t end_key;
static bool forgotten;

/* The heap's own destructor comes in the same round as the first of these, or later: look in the second. */
static void look_at_the_end(void *round)
{
    static int second_round;
    if (round == &end_key)
        cr_assert_eq(pthread_setspecific(end_key, &second_round), 0);
    else
        forgotten =
            heap_malloc_by(&arena, 48) == NULL && owner_last.owner == &owner_nobody && owner_known(arena.heap) == NULL;
}

static void *use_and_end(void *unused)
{
    cr_assert_eq(pthread_setspecific(end_key, &end_key), 0);
    cr_assert(heap_free_by(use()));
    return unused;
}

Test(front, O3_of_a_thread_that_ended_says_nothing_to_what_runs_after_it)
{
    pthread_t thread;
    open_with_handle(HEAP_SOLE);
    cr_assert_eq(pthread_key_create(&end_key, look_at_the_end), 0);
    cr_assert_eq(pthread_create(&thread, NULL, use_and_end, NULL), 0);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_assert(forgotten);
    arena_close(&arena);
}

Test(front, O3_a_fork_child_does_not_know_its_parents_heaps)
{
    int status;
    open_with_handle(HEAP_SOLE);
    void *block = use();
    pid_t child = fork();
    if (child == 0)
        _exit(heap_malloc_by(&arena, 48) == NULL && !heap_free_by(block) && !heap_free_remote_by(block) ? 0 : 1);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    cr_assert(heap_free_by(block));
    arena_close(&arena);
}

/* Each call switches to the heap it is about: no pointer of one is ever taken for the other's. */
Test(front, two_heaps_in_turn_are_kept_apart)
{
    enum { BLOCKS = 2000 };
    static struct arena other;
    static void *blocks[2][BLOCKS];
    struct heap_stats stats;
    open_with_handle(HEAP_SOLE);
    arena_open(&other, HEAP_SOLE, UINT64_C(16) << 20, false);
    other.host.handle = &other;
    arena_reattach(&other, HEAP_SOLE, true);
    for (unsigned i = 0; i < BLOCKS; i++) {
        blocks[0][i] = heap_malloc(arena.heap, 24);
        blocks[1][i] = heap_malloc(other.heap, 24);
        cr_assert_null(heap_malloc_by(&arena, 24));
        cr_assert_not(heap_free_by(blocks[0][i]));
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        cr_assert_eq(heap_free(arena.heap, blocks[0][i]), 0);
        cr_assert_eq(heap_free(arena.heap, blocks[1][i]), STEAD_WRONG_POINTER);
        cr_assert_eq(heap_free(other.heap, blocks[1][i]), 0);
    }
    heap_stat(arena.heap, &stats);
    cr_assert_eq(stats.live_blocks, 0);
    heap_stat(other.heap, &stats);
    cr_assert_eq(stats.live_blocks, 0);
    ARENA_SOUND(&other);
    arena_close(&other);
    ARENA_SOUND(&arena);
    arena_close(&arena);
}
