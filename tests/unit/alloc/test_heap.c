/* test_heap.c -- the face: what every call promises, on every kind of heap, against a model that keeps every live
 * block's address, size and contents. */
#include "arena.h"

static const enum heap_kind kinds[] = {HEAP_SOLE, HEAP_TURNS, HEAP_LIVE};
#define EACH_KIND(kind) \
    for (unsigned k_ = 0; k_ < 3; k_++) \
        for (enum heap_kind kind = kinds[k_], once_ = 1; once_; once_ = 0)

struct model_block {
    uint8_t *at;
    size_t bytes;
    uint8_t mark;
};

static void fill(struct model_block *block, uint8_t mark)
{
    block->mark = mark;
    memset(block->at, mark, block->bytes);
}

static void verify(const struct model_block *block)
{
    for (size_t i = 0; i<block->bytes; i += block->bytes> 4096 ? 509 : 1)
        cr_assert_eq(block->at[i], block->mark, "block %p of %zu bytes changed at %zu", (void *)block->at, block->bytes,
                     i);
    cr_assert_eq(block->at[block->bytes - 1], block->mark);
}

static size_t random_size(uint64_t *seed)
{
    switch (test_random(seed) % 16) {
    case 0:
        return 1 + test_random(seed) % 200000;
    case 1:
    case 2:
        return 1 + test_random(seed) % 40000;
    case 3:
        return test_random(seed) % 64 == 0 ? (size_t)(1 + test_random(seed) % (9u << 20)) : 3000;
    default:
        return 1 + test_random(seed) % 1100;
    }
}

static int count_block(void *block, size_t usable, void *arg)
{
    uint64_t *counted = arg;
    (void)block;
    counted[0]++;
    counted[1] += usable;
    return 0;
}

static void check_counts(struct arena *arena, uint64_t live)
{
    struct heap_stats stats;
    uint64_t counted[2] = {0, 0};
    struct report report;
    heap_stat(arena->heap, &stats);
    cr_assert_eq(stats.live_blocks, live);
    cr_assert_eq(heap_each_block(arena->heap, count_block, counted), 0);
    cr_assert_eq(counted[0], live);
    cr_assert_eq(counted[1], stats.live_bytes);
    cr_assert_eq(arena_check(arena, &report), 0, "%s", report.first);
    cr_assert_eq(report.blocks, live);
    cr_assert_leq(stats.used_bytes, arena->bytes);
}

Test(heap, random_calls_match_a_model, .timeout = 240)
{
    uint64_t seed = test_seed("random_calls_match_a_model");
    enum { BLOCKS = 3000 };
    static struct model_block blocks[BLOCKS];
    EACH_KIND(kind)
    {
        struct arena arena;
        uint64_t live = 0;
        memset(blocks, 0, sizeof blocks);
        arena_open(&arena, kind, UINT64_C(1) << 30, false);
        for (unsigned n = 0; n < test_rounds(25000); n++) {
            struct model_block *block = &blocks[test_random(&seed) % BLOCKS];
            size_t size = random_size(&seed);
            uint8_t mark = (uint8_t)test_random(&seed);
            if (block->at != NULL && test_random(&seed) % 4 == 0) { /* realloc */
                verify(block);
                uint8_t *moved = heap_realloc(arena.heap, block->at, size);
                cr_assert_not_null(moved);
                struct model_block kept = {moved, size < block->bytes ? size : block->bytes, block->mark};
                verify(&kept);
                block->at = moved;
                block->bytes = size;
                fill(block, mark);
            } else if (block->at != NULL) {
                verify(block);
                cr_assert_eq(heap_free(arena.heap, block->at), 0, "%s", error_last_text());
                block->at = NULL;
                live--;
            } else {
                unsigned way = (unsigned)(test_random(&seed) % 4);
                size_t alignment = (size_t)1 << test_random(&seed) % (size > 100000 ? 22 : 14);
                block->at = way == 0   ? heap_aligned_alloc(arena.heap, alignment, size)
                            : way == 1 ? heap_calloc(arena.heap, 1, size)
                                       : heap_malloc(arena.heap, size);
                cr_assert_not_null(block->at, "%zu: %s", size, error_last_text());
                if (way == 0)
                    cr_assert_eq((uintptr_t)block->at % alignment, 0);
                cr_assert_eq((uintptr_t)block->at % (size % 16 == 0 || size > 64 ? 16 : 8), 0);
                for (size_t i = 0; way == 1 && i < size; i++)
                    cr_assert_eq(block->at[i], 0, "calloc of %zu is not zero at %zu", size, i);
                block->bytes = size;
                fill(block, mark);
                live++;
            }
            if (n % 5000 == 4999)
                check_counts(&arena, live);
            if (n % 8000 == 7999) { /* another process, later */
                arena_reattach(&arena, kind, true);
                check_counts(&arena, live);
            }
        }
        for (unsigned i = 0; i < BLOCKS; i++)
            if (blocks[i].at != NULL) {
                verify(&blocks[i]);
                cr_assert_eq(heap_free(arena.heap, blocks[i].at), 0);
            }
        check_counts(&arena, 0);
        heap_trim(arena.heap);
        struct heap_stats stats;
        heap_stat(arena.heap, &stats);
        cr_assert_eq(stats.used_bytes, HEAP_INITIAL_BYTES, "an empty heap keeps %" PRIu64 " bytes", stats.used_bytes);
        arena_close(&arena);
    }
}

Test(heap, wrong_pointers_change_nothing_and_are_reported)
{
    EACH_KIND(kind)
    {
        struct arena arena;
        struct heap_stats stats;
        arena_open(&arena, kind, UINT64_C(64) << 20, false);
        uint8_t *small = heap_malloc(arena.heap, 24), *medium = heap_malloc(arena.heap, 20000);
        uint8_t *large = heap_malloc(arena.heap, 300000), *huge = heap_malloc(arena.heap, 10u << 20);
        uint8_t *wrong[] = {small + 1,         small + 8,
                            small + 24 * 500,  medium + 16,
                            medium - 16,       large + 4096,
                            large + 299999,    huge + (5u << 20),
                            huge + 1,          arena.base,
                            arena.base + 4096, arena.base + 60000,
                            arena.base - 1,    arena.base + arena.capacity,
                            (uint8_t *)&stats, NULL};
        unsigned refused = 0;
        for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++, refused++) {
            cr_assert_eq(heap_free(arena.heap, wrong[i]), STEAD_WRONG_POINTER, "wrong pointer %u", i);
            cr_assert_eq(heap_usable_size(arena.heap, wrong[i]), 0);
        }
        check_counts(&arena, 4);
        uint8_t *blocks[] = {small, medium, large, huge};
        for (unsigned i = 0; i < 4; i++) {
            cr_assert_eq(heap_free(arena.heap, blocks[i]), 0);
            cr_assert_eq(heap_free(arena.heap, blocks[i]), STEAD_WRONG_POINTER, "freed twice");
            cr_assert_eq(heap_usable_size(arena.heap, blocks[i]), 0);
            cr_assert_null(heap_realloc(arena.heap, blocks[i], 10));
            refused += 2;
        }
        heap_stat(arena.heap, &stats);
        cr_assert_eq(stats.bad_frees, refused);
        check_counts(&arena, 0);
        arena_close(&arena);
    }
}

Test(heap, find_block_knows_every_byte)
{
    struct arena arena;
    arena_open(&arena, HEAP_SOLE, UINT64_C(64) << 20, false);
    const size_t sizes[] = {1, 24, 1000, 5000, 30000, 40000, 36864, 250001, 5u << 20};
    uint8_t *at[9];
    for (unsigned i = 0; i < 9; i++)
        cr_assert_not_null(at[i] = heap_malloc(arena.heap, sizes[i]));
    for (unsigned i = 0; i < 9; i++)
        for (size_t inside = 0; inside < sizes[i]; inside += 1 + sizes[i] / 50) {
            void *start;
            size_t usable;
            cr_assert(heap_find_block(arena.heap, at[i] + inside, &start, &usable));
            cr_assert_eq(start, at[i], "%zu + %zu", sizes[i], inside);
            cr_assert_geq(usable, sizes[i]);
        }
    arena_close(&arena);
}

Test(heap, running_out_is_an_error_and_recoverable)
{
    struct arena arena;
    static void *blocks[100000];
    unsigned n = 0;
    arena_open(&arena, HEAP_SOLE, UINT64_C(16) << 20, false);
    arena.limit = UINT64_C(9) << 20; /* a full disk */
    while ((blocks[n] = heap_malloc(arena.heap, 300)) != NULL)
        n++;
    cr_assert_eq(errno, ENOSPC);
    cr_assert_gt(n, 25000u);
    check_counts(&arena, n);
    cr_assert_null(heap_malloc(arena.heap, 100000));
    arena.limit = arena.capacity;
    while (n < 100000 && (blocks[n] = heap_malloc(arena.heap, 300)) != NULL)
        n++;
    cr_assert_eq(errno, ENOMEM);
    check_counts(&arena, n);
    cr_assert_null(heap_malloc(arena.heap, SIZE_MAX));
    cr_assert_null(heap_malloc(arena.heap, SIZE_MAX - 5000));
    cr_assert_null(heap_calloc(arena.heap, SIZE_MAX / 2, 4));
    cr_assert_null(heap_aligned_alloc(arena.heap, 24, 100));
    cr_assert_null(heap_aligned_alloc(arena.heap, 4u << 20, 100));
    for (unsigned i = 0; i < n; i++)
        cr_assert_eq(heap_free(arena.heap, blocks[i]), 0);
    cr_assert_not_null(heap_malloc(arena.heap, 8u << 20));
    check_counts(&arena, 1);
    arena_close(&arena);
}

Test(heap, a_reload_forgets_what_was_believed)
{
    struct arena arena;
    arena_open(&arena, HEAP_SOLE, UINT64_C(64) << 20, false);
    void *kept = heap_malloc(arena.heap, 100);
    uint64_t bytes = arena.bytes;
    uint8_t *saved = malloc(bytes); /* the commit */
    heap_guard_pause(arena.heap);
    memcpy(saved, arena.base, bytes);
    heap_guard_resume(arena.heap);
    for (unsigned i = 0; i < 10000; i++)
        (void)heap_malloc(arena.heap, 1 + i % 3000);
    cr_assert_eq(heap_free(arena.heap, kept), 0);
    heap_guard_pause(arena.heap);
    memset(arena.base, 0x5a, arena.bytes); /* rolled back: what lay behind the commit means nothing */
    memcpy(arena.base, saved, bytes);
    heap_reload(arena.heap, arena.bytes);
    check_counts(&arena, 1);
    cr_assert_eq(heap_usable_size(arena.heap, kept), 112);
    for (unsigned i = 0; i < 10000; i++)
        cr_assert_neq(heap_malloc(arena.heap, 100), kept);
    uint8_t *zero = heap_calloc(arena.heap, 1, 1u << 20);
    for (unsigned i = 0; i < 1u << 20; i++)
        cr_assert_eq(zero[i], 0);
    check_counts(&arena, 10002);
    free(saved);
    arena_close(&arena);
}

/* What is freed in a full slab is handed out again while it is in the cache, newest first; and no more than once. */
Test(heap, what_was_freed_last_is_handed_out_first)
{
    EACH_KIND(kind)
    for (size_t size = 24; size < 30000; size *= 5) {
        enum { COUNT = 2000, LAST = 10 };
        static void *blocks[COUNT];
        struct arena arena;
        arena_open(&arena, kind, UINT64_C(128) << 20, false);
        for (unsigned i = 0; i < COUNT; i++)
            cr_assert_not_null(blocks[i] = heap_malloc(arena.heap, size));
        for (unsigned i = 0; i < COUNT / 2; i += 3) {
            cr_assert_eq(heap_free(arena.heap, blocks[i]), 0);
            cr_assert_eq(heap_malloc(arena.heap, size), blocks[i], "%zu bytes, block %u", size, i);
        }
        for (unsigned i = 0; i < LAST; i++)
            cr_assert_eq(heap_free(arena.heap, blocks[i * 64]), 0); /* far apart: no slab becomes empty */
        for (unsigned i = LAST; i-- > 0;)
            cr_assert_eq(heap_malloc(arena.heap, size), blocks[i * 64]);
        check_counts(&arena, COUNT);
        for (unsigned i = 0; i < COUNT; i++)
            cr_assert_eq(heap_free(arena.heap, blocks[i]), 0);
        check_counts(&arena, 0);
        arena_close(&arena);
    }
}

/* A class without a free block takes one of a wider class's idle ones, aligned as its own would be, before it gets a slab
 * of its own; aligned_alloc, which may ask for more than the wider class has, does not. */
Test(heap, idle_blocks_of_a_wider_class_are_used_before_growth)
{
    static const struct {
        size_t want, idle;
        bool borrows;
    } cases[] = {{600, 800, true}, {600, 850, true}, {600, 1024, false},
                 {48, 64, true},   {48, 56, false},  {17, 32, true}};
    EACH_KIND(kind)
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        enum { COUNT = 8000 };
        static uint8_t *blocks[COUNT];
        struct arena arena;
        struct heap_stats before, after;
        arena_open(&arena, kind, UINT64_C(64) << 20, false);
        for (unsigned b = 0; b < COUNT; b++)
            cr_assert_not_null(blocks[b] = heap_malloc(arena.heap, cases[i].idle));
        size_t idle_usable = heap_usable_size(arena.heap, blocks[0]);
        for (unsigned b = 0; b < COUNT; b++)
            if (b % 2 != 0)
                cr_assert_eq(heap_free(arena.heap, blocks[b]), 0);
        heap_stat(arena.heap, &before);
        uint8_t *aligned = heap_aligned_alloc(arena.heap, 8, cases[i].want);
        cr_assert_neq(heap_usable_size(arena.heap, aligned), idle_usable);
        cr_assert_eq(heap_free(arena.heap, aligned), 0);
        unsigned borrowed = 0;
        for (unsigned b = 1; b < COUNT; b += 2) { /* first the slab that aligned_alloc made */
            cr_assert_not_null(blocks[b] = heap_malloc(arena.heap, cases[i].want));
            memset(blocks[b], (int)b, cases[i].want);
            borrowed += heap_usable_size(arena.heap, blocks[b]) == idle_usable;
            if (cases[i].want % 16 == 0 || cases[i].want > 64)
                cr_assert_eq((uintptr_t)blocks[b] % 16, 0);
        }
        heap_stat(arena.heap, &after);
        if (cases[i].borrows) {
            cr_assert_geq(borrowed, (COUNT / 2 - SLOT_BYTES / cases[i].want) * 9 / 10, "%zu bytes: only %u are of %zu",
                          cases[i].want, borrowed, idle_usable);
            cr_assert_leq(after.used_bytes, before.used_bytes + 4 * SLOT_BYTES);
        } else {
            cr_assert_eq(borrowed, 0, "%zu bytes: %u blocks are of %zu", cases[i].want, borrowed, idle_usable);
        }
        ARENA_SOUND(&arena);
        for (unsigned b = 0; b < COUNT; b++)
            cr_assert_eq(heap_free(arena.heap, blocks[b]), 0);
        check_counts(&arena, 0);
        arena_close(&arena);
    }
}

Test(heap, freed_memory_is_reused_before_growth)
{
    static const size_t sizes[] = {24, 100, 1000, 5000, 50000, 1000000, 6000000};
    EACH_KIND(kind)
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (unsigned j = 0; j < sizeof sizes / sizeof *sizes; j++) {
            static void *blocks[100000];
            struct arena arena;
            arena_open(&arena, kind, UINT64_C(256) << 20, false);
            unsigned n = (unsigned)((12u << 20) / sizes[i]), m = (unsigned)((9u << 20) / sizes[j]);
            n = n > 100000 ? 100000 : n;
            m = m > 50000 ? 50000 : m;
            for (unsigned b = 0; b < n; b++)
                cr_assert_not_null(blocks[b] = heap_malloc(arena.heap, sizes[i]));
            uint64_t bytes = arena.bytes;
            for (unsigned b = 0; b < n; b++)
                cr_assert_eq(heap_free(arena.heap, blocks[b]), 0);
            for (unsigned b = 0; b < m && (uint64_t)(b + 1) * sizes[j] < (uint64_t)n * sizes[i] * 3 / 4; b++)
                cr_assert_not_null(heap_malloc(arena.heap, sizes[j]));
            cr_assert_leq(arena.bytes, bytes + (4u << 20), "%zu then %zu: %" PRIu64 " then %" PRIu64, sizes[i],
                          sizes[j], bytes, arena.bytes);
            ARENA_SOUND(&arena);
            arena_close(&arena);
        }
}

/* The gap that fits best may be the one at the end of the last segment, for which the image must grow, or which does not
 * exist: a capacity may end inside a segment. */
Test(heap, room_below_the_end_is_taken_first)
{
    for (uint64_t capacity = UINT64_C(3) << 20; capacity <= UINT64_C(16) << 20; capacity += UINT64_C(13) << 20)
        EACH_KIND(kind)
        {
            struct arena arena;
            arena_open(&arena, kind, capacity, false);
            void *low = heap_malloc(arena.heap, 2u << 20), *pin = heap_malloc(arena.heap, 24);
            void *high = heap_malloc(arena.heap, 512u << 10);
            cr_assert(low != NULL && pin != NULL && high != NULL);
            uint64_t bytes = arena.bytes;
            cr_assert_eq(heap_free(arena.heap, low), 0);
            uint8_t *again = heap_malloc(arena.heap, 1u << 20); /* what is behind `high` is nearer to that */
            cr_assert_not_null(again, "%s", error_last_text());
            cr_assert_lt((uintptr_t)again, (uintptr_t)high);
            cr_assert_eq(arena.bytes, bytes, "%" PRIu64 " then %" PRIu64, bytes, arena.bytes);
            ARENA_SOUND(&arena);
            arena_close(&arena);
        }
}

/* Large blocks lie side by side, over the ends of segments; and again when two of three were freed. */
Test(heap, large_blocks_leave_no_gaps)
{
    static const size_t sizes[] = {1u << 20, 700000, 300000, 2500000, (1u << 20) + 1};
    EACH_KIND(kind)
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        static void *blocks[1000];
        struct arena arena;
        struct heap_stats stats;
        unsigned n = (unsigned)((200u << 20) / sizes[i]);
        arena_open(&arena, kind, UINT64_C(1) << 30, false);
        for (unsigned round = 0; round < 2; round++) {
            for (unsigned b = 0; b < n; b++)
                if (round == 0 || b % 3 != 0)
                    cr_assert_not_null(blocks[b] = heap_malloc(arena.heap, sizes[i]));
            check_counts(&arena, n);
            heap_stat(arena.heap, &stats);
            /* Round 1: in what was freed between others, too, but for the headers in it. */
            cr_assert_leq(stats.used_bytes * 100, stats.live_bytes * (round == 0 ? 104 : 105),
                          "round %u: %" PRIu64 " bytes for %u x %zu", round, stats.used_bytes, n, sizes[i]);
            for (unsigned b = 0; b < n; b++)
                if (round == 1 || b % 3 != 0)
                    cr_assert_eq(heap_free(arena.heap, blocks[b]), 0);
        }
        heap_trim(arena.heap);
        heap_stat(arena.heap, &stats);
        cr_assert_eq(stats.used_bytes, HEAP_INITIAL_BYTES);
        check_counts(&arena, 0);
        arena_close(&arena);
    }
}

static int add_range(uint64_t offset, uint64_t bytes, void *arg)
{
    uint64_t *sum = arg;
    cr_assert_eq(offset % UNIT_BYTES, 0);
    cr_assert_eq(bytes % UNIT_BYTES, 0);
    cr_assert_geq(offset, sum[1]);
    sum[1] = offset + bytes;
    sum[0] += bytes;
    return 0;
}

Test(heap, free_ranges_are_free)
{
    struct arena arena;
    arena_open(&arena, HEAP_SOLE, UINT64_C(256) << 20, false);
    void *large[20];
    for (unsigned i = 0; i < 20; i++)
        cr_assert_not_null(large[i] = heap_malloc(arena.heap, 3u << 20));
    for (unsigned i = 0; i < 20; i += 2)
        cr_assert_eq(heap_free(arena.heap, large[i]), 0);
    uint64_t sum[2] = {0, 0};
    cr_assert_eq(heap_each_free_range(arena.heap, 1u << 20, add_range, sum), 0);
    cr_assert_geq(sum[0], 10u * (3u << 20) - 20 * UNIT_BYTES);
    cr_assert_leq(sum[0], (20u << 20) * 3);
    arena_close(&arena);
}

/* What a heap asked its host to make ready. */
static struct {
    struct arena *arena;
    uint64_t offset, bytes;
    unsigned calls;
} asked;

static void note_ready(void *ctx, uint64_t offset, uint64_t bytes)
{
    asked.arena = ctx;
    asked.offset = offset;
    asked.bytes = bytes;
    asked.calls++;
    void *small = heap_malloc(asked.arena->heap, 40000); /* without a lock of the heap, or this hangs */
    cr_assert(small != NULL && ((uint8_t *)small >= asked.arena->base + offset + bytes ||
                                (uint8_t *)small < asked.arena->base + offset));
    cr_assert_eq(heap_free(asked.arena->heap, small), 0);
}

Test(heap, the_host_is_asked_to_make_large_blocks_ready_and_no_others)
{
    EACH_KIND(kind)
    {
        struct arena arena;
        arena_open(&arena, kind, UINT64_C(1) << 30, false);
        arena.host.ready = note_ready;
        arena.host.guards = false;
        arena_reattach(&arena, kind, true);
        asked.calls = 0;
        static const size_t sizes[] = {24, 40000, 1000000, (size_t)1 << 20, ((size_t)9 << 20) + 5, (size_t)300 << 20};
        for (unsigned i = 0; i < 6; i++) {
            uint8_t *block = i % 2 == 0 ? heap_malloc(arena.heap, sizes[i]) : heap_calloc(arena.heap, 1, sizes[i]);
            cr_assert_not_null(block);
            cr_assert_eq(asked.calls, i < 3 ? 0 : i - 2, "%zu bytes", sizes[i]);
            if (i >= 3) {
                cr_assert_eq(arena.base + asked.offset, block);
                cr_assert_eq(asked.bytes, round_up(sizes[i], PAGE_BYTES));
            }
        }
        arena_close(&arena);
    }
}
