/*
 * test_heap_check.c -- the checker finds every broken invariant by its id, and any damage is survived.
 *
 * Method: a heap with every kind of run in it; one field is broken, the check must name the invariant; the field is put
 * back, the check must be content again.  Then random bytes of the metadata are overwritten and every call is made: no
 * crash, no write outside the heap (the range is surrounded by inaccessible pages), no endless loop.
 */
#include "arena.h"

#include "alloc/block.h"
#include "alloc/classes.h"
#include "alloc/extent.h"

enum { BLOCKS = 600 };
static uint8_t *blocks[BLOCKS];
static struct arena arena;

static struct header *header_of(uint32_t segment)
{
    unsigned unit;
    struct header *header = segment_header((const struct heap *)arena.heap, segment, &unit);
    cr_assert_not_null(header);
    return header;
}

/* Slabs of several classes, extents side by side, a spanning extent, a hole, a group leader. */
static void populate(void)
{
    static const size_t sizes[] = {16, 24, 100, 1000, 3000, 20000, 40000, 70000, 300000};
    arena_open(&arena, HEAP_SOLE, UINT64_C(256) << 20, false);
    for (unsigned i = 0; i < BLOCKS; i++)
        cr_assert_not_null(blocks[i] = heap_malloc(arena.heap, i == 7 ? 11u << 20 : sizes[i % 9]));
    for (unsigned i = 0; i < BLOCKS; i += 5) {
        cr_assert_eq(heap_free(arena.heap, blocks[i]), 0);
        blocks[i] = NULL;
    }
    ARENA_SOUND(&arena);
}

static void expect(const char *invariant)
{
    struct report report;
    cr_assert_gt(arena_check(&arena, &report), 0u, "%s was broken and nothing was found", invariant);
    cr_assert_eq(strncmp(report.first, invariant, 2), 0, "%s was broken; found: %s", invariant, report.first);
}

/* Breaks a word, expects the invariant to be named, puts the word back. */
#define BREAK(invariant, lvalue, wrong) \
    do { \
        __typeof__(lvalue) saved_ = (lvalue); \
        (lvalue) = (wrong); \
        expect(invariant); \
        (lvalue) = saved_; \
        ARENA_SOUND(&arena); \
    } while (0)

static struct descriptor *find_run(enum run_kind kind, bool multi_slot)
{
    for (uint64_t slot = 2; slot < SEGMENT_SLOTS; slot++) {
        struct descriptor *descriptor = segment_descriptor(arena.heap, slot);
        uint64_t head = descriptor == NULL ? 0 : descriptor->head;
        if (head_kind(head) == kind && (!multi_slot || head_kind(descriptor[1].head) == RUN_TAIL))
            return descriptor;
    }
    cr_assert(false, "no run of kind %d", (int)kind);
    return NULL;
}

Test(heap_check, A1_the_root)
{
    populate();
    struct heap_root *root = &header_of(0)->root;
    struct heap *heap;
    BREAK("A1", root->magic, 1);
    BREAK("A1", root->version, ROOT_VERSION + 1);
    BREAK("A1", root->secret, 7);
    BREAK("A1", root->segments, 0);
    BREAK("A1", root->segments, 4000000000u);
    BREAK("A1", root->reserved3[5], 1);
    root->check ^= 1;
    cr_assert_eq(heap_attach(&heap, arena.base, arena.capacity, arena.bytes, HEAP_READ, true, NULL), STEAD_CORRUPT);
    root->check ^= 1;
    cr_assert_eq(heap_attach(&heap, arena.base, arena.capacity, 4096, HEAP_READ, true, NULL), STEAD_CORRUPT);
    arena_close(&arena);
}

Test(heap_check, A2_table_and_headers)
{
    populate();
    struct header *header = header_of(0);
    BREAK("A2", header->table[1], 0);
    BREAK("A2", header->table[0], entry_make(SEGMENT_VOID, 0, 0, false));
    BREAK("A2", header->table[0], entry_make(SEGMENT_PRESENT, 3, 1000, true));
    BREAK("A2", header->table[0], header->table[0] | UINT32_C(1) << 30);
    BREAK("A2", header->segment.seal, 5);
    arena_close(&arena);
}

Test(heap_check, A3_heads)
{
    populate();
    uint64_t secret = header_of(0)->root.secret;
    struct descriptor *slab = find_run(RUN_SLAB, false), *next = slab + 1;
    uint64_t slot = (uint64_t)(slab - header_of(0)->descriptors) + 2;
    BREAK("A3", slab->head, slab->head ^ UINT64_C(1) << 50);
    BREAK("A3", slab->head, head_make(secret, slot + 1, RUN_SLAB, 0, 0, 8));       /* another slot's */
    BREAK("A3", slab->head, head_make(secret, slot, RUN_SLAB, CLASS_COUNT, 0, 8)); /* no such class  */
    BREAK("A3", slab->head, head_make(secret, slot, RUN_SLAB, 0, 0, 16));          /* wrong length   */
    BREAK("A3", slab->head, head_make(secret, slot, RUN_EXTENT, 0, 0, 1u << 30));  /* beyond the end */
    BREAK("A3", slab->head, head_make(secret, slot, 7, 0, 0, 8));
    uint64_t saved = slab->head;
    slab->head = head_make(secret, slot, RUN_EXTENT, 0, 0, 20); /* over the one behind */
    next->head = next->head == 0 ? head_make(secret, slot + 1, RUN_SLAB, 0, 0, 8) : next->head;
    struct report report;
    cr_assert_gt(arena_check(&arena, &report), 0u);
    slab->head = saved;
    arena_close(&arena);
}

Test(heap_check, A4_A5_A6_derived)
{
    populate();
    struct header *header = header_of(0);
    BREAK("A4", header->segment.busy[3], header->segment.busy[3] ^ UINT64_C(1) << 20);
    BREAK("A4", header->segment.busy[0], 0);
    uint32_t last = header->root.segments - 1;
    BREAK("A5", header->table[last], entry_make(SEGMENT_PRESENT, entry_header_unit(header->table[last]), 0, false));
    BREAK("A6", header->root.top_pages, 20);
    BREAK("A6", header->root.top_pages, UINT64_C(1) << 50);
    arena_close(&arena);
}

Test(heap_check, A7_spans)
{
    populate();
    struct header *header = header_of(0);
    uint32_t swallowed = 0;
    for (uint32_t s = 0; s < header->root.segments; s++)
        if (entry_kind(header->table[s]) == SEGMENT_SWALLOWED)
            swallowed = s;
    cr_assert_neq(swallowed, 0);
    BREAK("A7", header->table[swallowed], entry_make(SEGMENT_VOID, 0, 0, false));
    BREAK("A7", header->table[swallowed], entry_make(SEGMENT_PRESENT, 0, 0, false));
    struct header *last = header_of(swallowed + 1);
    cr_assert_gt(last->segment.covered_pages, 0u);
    BREAK("A7", last->segment.covered_pages, 0);
    uint32_t saved = header->table[swallowed + 1];
    header->table[swallowed + 1] = entry_make(SEGMENT_SWALLOWED, 0, 0, false);
    struct report report;
    (void)arena_check(&arena, &report); /* may look like a longer hole; must not crash */
    header->table[swallowed + 1] = saved;
    arena_close(&arena);
}

Test(heap_check, A8_A9_bitmaps_and_marks)
{
    populate();
    struct descriptor *slab = find_run(RUN_SLAB, false);
    for (unsigned class = head_class(slab->head); class_table[class].capacity % 64 == 0; slab++)
        class = head_kind(slab[1].head) == RUN_SLAB ? head_class(slab[1].head) : class;
    const struct class_geometry *geometry = &class_table[head_class(slab->head)];
    struct map_pair *last = &slab->map[geometry->capacity / 64];
    BREAK("A8", last->allocated, last->allocated | UINT64_C(1) << 63);
    BREAK("A8", last->freed, UINT64_C(1) << 63);
    BREAK("A8", slab->pending, 2);
    struct descriptor *extent = find_run(RUN_EXTENT, true);
    BREAK("A9", extent[1].head, 0);
    BREAK("A9", extent[1].head, extent[1].head ^ 1u << 14);
    arena_close(&arena);
}

/* The checker cannot know what a bitmap should hold; its owner does, and asks before it takes a slab up again. */
Test(heap_check, A12_bits_of_owned_slabs)
{
    static const enum heap_kind kinds[] = {HEAP_SOLE, HEAP_TURNS, HEAP_LIVE};
    static void *many[4000];
    for (unsigned n = 0; n < 12; n++) {
        arena_open(&arena, kinds[n % 3], UINT64_C(64) << 20, false);
        for (unsigned i = 0; i < 4000; i++)
            cr_assert_not_null(many[i] = heap_malloc(arena.heap, 300));
        for (unsigned i = 0; i < 4000; i += 2)
            cr_assert_eq(heap_free(arena.heap, many[i]), 0);
        struct block block;
        const void *live = many[2001 + n * 2];
        cr_assert_eq(block_find(arena.heap, live, &block), 0);
        struct map_pair *pair = &block.run.descriptor->map[block.index / 64];
        if (n < 6)
            pair->allocated &= ~(UINT64_C(1) << block.index % 64); /* the live block would be handed out */
        else
            pair->allocated |= pair->allocated << 1; /* free ones would be lost */
        unsigned handed_out = 0;
        for (void *p; (p = heap_malloc(arena.heap, 300)) != NULL; handed_out++)
            cr_assert_neq(p, live, "the bits of its slab were believed");
        cr_assert_eq(error_last(), STEAD_CORRUPT, "%s", error_last_text());
        cr_assert_lt(handed_out, 2000u);
        cr_assert_null(heap_malloc(arena.heap, 100000), "a damaged heap was carved further");
        arena_close(&arena);
    }
}

static int touch_block(void *block, size_t usable, void *arg)
{
    uint64_t *sum = arg;
    cr_assert_geq((uint8_t *)block, arena.base);
    cr_assert_leq((uint8_t *)block + usable, arena.base + arena.bytes);
    return ++*sum > 10000000; /* a bound that no sound heap of this size reaches */
}

static int touch_range(uint64_t offset, uint64_t bytes, void *arg)
{
    (void)arg;
    cr_assert_leq(offset + bytes, arena.bytes);
    return 0;
}

/* Every call on a heap whose metadata was overwritten somewhere. */
static void use_damaged(uint64_t *seed)
{
    struct heap_stats stats;
    struct report report;
    uint64_t sum = 0;
    (void)arena_check(&arena, &report);
    heap_stat(arena.heap, &stats);
    (void)heap_each_block(arena.heap, touch_block, &sum);
    (void)heap_each_free_range(arena.heap, UNIT_BYTES, touch_range, NULL);
    for (unsigned n = 0; n < 60; n++) {
        size_t size = 1 + test_random(seed) % (n % 7 == 0 ? 200000 : n % 31 == 0 ? 9u << 20 : 2000);
        uint8_t *block = heap_malloc(arena.heap, size);
        if (block == NULL)
            continue;
        cr_assert_geq(block, arena.base);
        cr_assert_leq(block + size, arena.base + arena.bytes);
        memset(block, 0xa5, size); /* may be somebody else's bytes: but inside the heap */
        if (n % 2)
            (void)heap_free(arena.heap, block);
    }
    for (unsigned i = 0; i < BLOCKS; i += 3) {
        void *start;
        size_t usable;
        (void)heap_find_block(arena.heap, blocks[i], &start, &usable);
        (void)heap_free(arena.heap, blocks[i]);
    }
    heap_trim(arena.heap);
}

Test(heap_check, any_damage_is_survived, .timeout = 240)
{
    uint64_t seed = test_seed("any_damage_is_survived");
    populate();
    arena.host.guards = false; /* what is done to a damaged heap would be reported as the program's mistake */
    arena_reattach(&arena, HEAP_SOLE, true);
    uint64_t bytes = arena.bytes;
    uint8_t *saved = malloc(bytes);
    heap_guard_pause(arena.heap);
    memcpy(saved, arena.base, bytes);
    for (unsigned round = 0; round < test_rounds(300); round++) {
        heap_guard_pause(arena.heap);
        memset(arena.base, 0, arena.bytes);
        memcpy(arena.base, saved, bytes);
        heap_reload(arena.heap, arena.bytes);
        if (round % 3 == 0) /* believed before it is damaged */
            for (unsigned n = 0; n < 20; n++)
                (void)heap_malloc(arena.heap, 1 + test_random(&seed) % 3000);
        heap_guard_pause(arena.heap);
        unsigned hits = 1 + (unsigned)(test_random(&seed) % 12);
        for (unsigned n = 0; n < hits; n++) {
            uint32_t segment = (uint32_t)(test_random(&seed) % (bytes >> SEGMENT_SHIFT));
            uint64_t at = header_offset(segment, 0) + test_random(&seed) % sizeof(struct header);
            if (test_random(&seed) % 3 == 0) /* root, table */
                at = HEAP_RESERVED_BYTES + test_random(&seed) % 1000;
            if (test_random(&seed) % 2)
                arena.base[at] = (uint8_t)test_random(&seed);
            else
                memset(arena.base + at, (int)(test_random(&seed) & 255), test_random(&seed) % 64);
        }
        use_damaged(&seed);
        if (round % 10 == 9) { /* opened so */
            struct heap *heap;
            if (heap_attach(&heap, arena.base, arena.capacity, arena.bytes, HEAP_SOLE, true, &arena.host) == 0)
                heap_detach(heap);
        }
    }
    free(saved);
    arena_close(&arena);
}

/* ---- every byte ---- */

enum { HEADERS_MAX = 64 };
static struct {
    struct header *at; /* NULL: the segment has none */
    struct header was;
} saved_headers[HEADERS_MAX];

static void headers_restore(void)
{
    for (unsigned s = 0; s < HEADERS_MAX; s++)
        if (saved_headers[s].at != NULL)
            memcpy(saved_headers[s].at, &saved_headers[s].was, sizeof(struct header));
}

/* Must the checker notice a change of this byte of a header?  Not what is only a hint, or true whatever it says. */
static bool must_be_noticed(const struct header *header, size_t at)
{
    const size_t root = offsetof(struct header, root), descriptors = offsetof(struct header, descriptors);
    if (at < root)
        return true; /* seal, covered pages, reserved, busy bits */
    if (at < offsetof(struct header, table)) {
        if (header->root.magic != ROOT_MAGIC)
            return false; /* only segment 0 has a root */
        at -= root;
        return at < offsetof(struct heap_root, segments) ||
               (at >= offsetof(struct heap_root, reserved2) && at < offsetof(struct heap_root, holder)) ||
               (at >= offsetof(struct heap_root, reserved3));
    }
    if (at < descriptors)
        return false; /* longest gaps, or more; behind `segments`: nothing */
    const struct descriptor *descriptor = &header->descriptors[(at - descriptors) / sizeof(struct descriptor)];
    at = (at - descriptors) % sizeof(struct descriptor);
    if (descriptor->head == 0)
        return at < sizeof descriptor->head; /* a free slot: whatever its head becomes is no mark and no run */
    if (at < sizeof descriptor->head)
        return true;
    if (head_kind(descriptor->head) != RUN_SLAB)
        return false;
    if (at >= offsetof(struct descriptor, pending) && at < offsetof(struct descriptor, map))
        return at != offsetof(struct descriptor, pending); /* its lowest byte: 0 or 1 is a hint */
    if (at < offsetof(struct descriptor, map))
        return false; /* owner: of LIVE heaps */
    size_t bit = (at - offsetof(struct descriptor, map)) / sizeof(struct map_pair) * 64 + at % 8 * 8;
    const struct class_geometry *geometry = &class_table[head_class(descriptor->head)];
    return bit >= geometry->capacity && bit < slab_pairs(geometry) * 64; /* bits of no block; the others: A12 */
}

static void use_a_little(uint64_t *seed)
{
    static const size_t sizes[] = {16, 100, 1000, 3000, 40000, 300000};
    for (unsigned n = 0; n < 12; n++) {
        size_t size = sizes[n % 6];
        uint8_t *block = heap_malloc(arena.heap, size);
        if (block != NULL) {
            cr_assert(block >= arena.base && block + size <= arena.base + arena.bytes);
            block[0] = block[size - 1] = 1;
        }
        if (n % 2)
            (void)heap_free(arena.heap, block);
        (void)heap_free(arena.heap, blocks[test_random(seed) % BLOCKS]);
    }
}

/* Every byte of the metadata in turn is changed, in a heap that is used and in one that is opened so: the checker reports
 * what it can know, and every call ends inside the heap. */
Test(heap_check, every_byte_of_metadata, .timeout = 240)
{
    uint64_t seed = test_seed("every_byte_of_metadata"), noticed = 0, rounds = 0;
    populate();
    arena.host.guards = false;
    arena_reattach(&arena, HEAP_SOLE, true);
    for (uint32_t s = 0, unit; s < HEADERS_MAX; s++) {
        saved_headers[s].at = segment_header(arena.heap, s, &unit);
        if (saved_headers[s].at != NULL)
            memcpy(&saved_headers[s].was, saved_headers[s].at, sizeof(struct header));
    }
    cr_assert_lt(header_of(0)->root.segments, HEADERS_MAX);
#if defined(__SANITIZE_THREAD__) /* a minute there, of one thread's work */
    size_t stride = 431;
#else
    size_t stride = getenv("STEAD_LONG") != NULL ? 1 : 53;
#endif
    for (size_t i = test_random(&seed) % stride; i < HEADERS_MAX * sizeof(struct header); i += stride) {
        uint32_t segment = (uint32_t)(i / sizeof(struct header));
        size_t at = i % sizeof(struct header);
        if (saved_headers[segment].at == NULL)
            continue;
        rounds++;
        struct report report;
        bool believed = test_random(&seed) % 2;
        if (believed)
            use_a_little(&seed); /* slabs are owned, notes written */
        uint8_t *byte = (uint8_t *)saved_headers[segment].at + at;
        uint8_t change = (uint8_t)(1u << test_random(&seed) % 8);
        *byte ^= change;
        if (!believed) {
            uint64_t problems = arena_check(&arena, &report);
            if (must_be_noticed(&saved_headers[segment].was, at)) {
                cr_assert_gt(problems, 0u, "byte %zu of segment %u's header, changed by 0x%x, went unnoticed", at,
                             segment, change);
                noticed++;
            }
        }
        use_a_little(&seed);
        headers_restore();
        heap_reload(arena.heap, arena.bytes);
    }
    cr_assert_gt(noticed, stride > 53 ? 50 * 53 / stride : 50, "of %" PRIu64 " bytes hardly any had to be noticed",
                 rounds);
    ARENA_SOUND(&arena);
    arena_close(&arena);
}

/* An extent between the end of a spanning one and the header behind it: when it goes, no mark may point out of the
 * segment. */
Test(heap_check, the_gap_before_a_displaced_header)
{
    arena_open(&arena, HEAP_SOLE, UINT64_C(64) << 20, false);
    uint64_t pages = SEGMENT_PAGES - UNIT_PAGES + 3; /* ends on the third page of the next segment */
    uint8_t *span = heap_malloc(arena.heap, pages * PAGE_BYTES);
    uint8_t *between = heap_malloc(arena.heap, 12 * PAGE_BYTES);
    cr_assert_eq(between, span + pages * PAGE_BYTES);
    ARENA_SOUND(&arena);
    cr_assert_eq(heap_free(arena.heap, between), 0);
    ARENA_SOUND(&arena);
    cr_assert_eq(heap_free(arena.heap, between), STEAD_WRONG_POINTER);
    cr_assert_eq(heap_usable_size(arena.heap, span), pages * PAGE_BYTES);
    cr_assert_eq(heap_free(arena.heap, span), 0);
    ARENA_SOUND(&arena);
    arena_close(&arena);
}

Test(heap_check, groups_beyond_four_gigabytes)
{
    arena_open(&arena, HEAP_SOLE, UINT64_C(48) << 30, false);
    void *huge[14];
    for (unsigned i = 0; i < 14; i++)
        cr_assert_not_null(huge[i] = heap_malloc(arena.heap, UINT64_C(3) << 30), "%u: %s", i, error_last_text());
    void *small = heap_malloc(arena.heap, 100);
    ARENA_SOUND(&arena);
    for (unsigned i = 0; i < 14; i++) {
        void *start;
        size_t usable;
        cr_assert(heap_find_block(arena.heap, (uint8_t *)huge[i] + (UINT64_C(2) << 30), &start, &usable));
        cr_assert_eq(start, huge[i]);
    }
    for (unsigned i = 0; i < 14; i += 2)
        cr_assert_eq(heap_free(arena.heap, huge[i]), 0);
    ARENA_SOUND(&arena);
    uint64_t bytes = arena.bytes;
    for (unsigned i = 0; i < 14; i += 2)
        cr_assert_not_null(huge[i] = heap_malloc(arena.heap, UINT64_C(3) << 30));
    cr_assert_eq(arena.bytes, bytes, "the holes were not used again");
    for (unsigned i = 0; i < 14; i++)
        cr_assert_eq(heap_free(arena.heap, huge[i]), 0);
    cr_assert_eq(heap_free(arena.heap, small), 0);
    heap_trim(arena.heap);
    struct heap_stats stats;
    heap_stat(arena.heap, &stats);
    cr_assert_eq(stats.used_bytes, HEAP_INITIAL_BYTES);
    ARENA_SOUND(&arena);
    arena_close(&arena);
}
