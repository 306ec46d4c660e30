/* arena.c -- see arena.h. */
#include "arena.h"

#include <stdio.h>

static int extend(void *ctx, uint64_t bytes)
{
    struct arena *arena = ctx;
    if (bytes % UNIT_BYTES != 0 || bytes > arena->capacity)
        abort(); /* the contract of heap_host */
    if (bytes > arena->limit)
        return ENOSPC;
    if (bytes > arena->bytes) {
        if (mprotect(arena->base, bytes, PROT_READ | PROT_WRITE) != 0)
            return errno;
        arena->bytes = bytes;
    }
    return 0;
}

static bool alive(void *ctx, uint32_t id)
{
    const struct arena *arena = ctx;
    return id != arena->dead_id;
}

void arena_open(struct arena *arena, enum heap_kind kind, uint64_t capacity, bool shared)
{
    memset(arena, 0, sizeof *arena);
    int flags = MAP_ANONYMOUS | MAP_NORESERVE | (shared ? MAP_SHARED : MAP_PRIVATE);
    uint64_t spare = UINT64_C(4) << 20;
    uint8_t *all = mmap(NULL, capacity + 2 * spare, PROT_NONE, flags, -1, 0);
    cr_assert_neq(all, MAP_FAILED);
    arena->base = (uint8_t *)(round_up((uintptr_t)all, HEAP_ALIGNMENT_MAX) + UNIT_BYTES); /* no better than promised */
    arena->capacity = capacity;
    arena->limit = capacity;
    arena->kind = kind;
    arena->host = (struct heap_host){.ctx = arena, .extend = extend, .alive = alive, .self = 7, .guards = true};
    cr_assert_eq(extend(arena, HEAP_INITIAL_BYTES), 0);
    heap_format(arena->base, capacity);
    cr_assert_eq(heap_attach(&arena->heap, arena->base, capacity, arena->bytes, kind, true, &arena->host), 0, "%s",
                 error_last_text());
}

void arena_reattach(struct arena *arena, enum heap_kind kind, bool first)
{
    heap_detach(arena->heap);
    arena->kind = kind;
    cr_assert_eq(heap_attach(&arena->heap, arena->base, arena->capacity, arena->bytes, kind, first, &arena->host), 0,
                 "%s", error_last_text());
}

void arena_close(struct arena *arena)
{
    heap_detach(arena->heap);
    munmap(arena->base, arena->capacity);
}

static int read_bytes(void *ctx, uint64_t offset, void *buffer, size_t bytes)
{
    const struct arena *arena = ctx;
    memcpy(buffer, arena->base + offset, bytes);
    return 0;
}

uint64_t arena_check(struct arena *arena, struct report *report)
{
    struct heap_reader reader = {arena, read_bytes, arena->bytes, arena->capacity};
    uint64_t used;
    memset(report, 0, sizeof *report);
    heap_check(&reader, report, &used);
    return report->problems;
}

uint64_t test_seed(const char *name)
{
    const char *text = getenv("STEAD_SEED");
    uint64_t seed = text != NULL ? strtoull(text, NULL, 0) : UINT64_C(20261121);
    printf("%s: STEAD_SEED=%" PRIu64 "\n", name, seed);
    return seed * 2 + 1;
}

uint64_t test_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state * UINT64_C(0x2545f4914f6cdd1d) >> 16;
}

unsigned test_rounds(unsigned n)
{
#if defined(__SANITIZE_THREAD__)
    n /= 10; /* a hundred times slower there */
#endif
    return getenv("STEAD_LONG") != NULL ? n * 20 : n;
}
