/*
 * segment.c -- from an offset to the run that covers it, believing nothing.
 *
 * The image is data from outside.  So every step is range-checked before it is taken: the segment's number against the
 * number of segments, its table entry's kind, the header's place against the mapped length, the header's seal, the
 * descriptor's seal.  A seal depends on the position and on the heap's secret: a descriptor copied elsewhere, or bytes
 * that a user's block happens to hold, are not taken for one.
 *
 * Invariants (docs/invariants.d/alloc.md):
 *   A1  root: magic, version, check
 *   A2  table: entry kinds, header places, header seals
 *   A3  heads: sealed, of a known kind, inside their segment (extents: inside the heap), none overlapping
 *
 * Threads: heads and entries are read atomically, without the mutex.  A run found stays only as long as its owner
 * (the caller, by holding a live block in it) keeps it.
 */
#include "alloc/segment.h"

static bool is_mapped(const struct heap *heap, uint64_t offset, uint64_t bytes)
{
    uint64_t limit = atomic_load_explicit(&heap->limit, memory_order_relaxed);
    return offset <= limit && bytes <= limit - offset;
}

_Atomic uint32_t *segment_entry(const struct heap *heap, uint32_t segment)
{
    uint64_t offset = entry_offset(segment);
    if (!is_mapped(heap, offset, sizeof(uint32_t)))
        return NULL;
    return (_Atomic uint32_t *)(void *)(heap->base + offset);
}

struct header *segment_header(const struct heap *heap, uint32_t segment, unsigned *header_unit)
{
    if (segment >= segments_of(heap))
        return NULL;
    const _Atomic uint32_t *word = segment_entry(heap, segment);
    if (word == NULL)
        return NULL;
    uint32_t entry = atomic_load_explicit(word, memory_order_acquire);
    if (entry_kind(entry) != SEGMENT_PRESENT)
        return NULL;
    unsigned unit = entry_header_unit(entry);
    if (unit != 0 && is_leader(segment))
        return NULL;
    uint64_t offset = header_offset(segment, unit);
    if (!is_mapped(heap, offset, sizeof(struct header)))
        return NULL;
    struct header *header = (struct header *)(void *)(heap->base + offset);
    if (header->segment.seal != segment_seal(heap->secret, segment, unit))
        return NULL;
    *header_unit = unit;
    return header;
}

struct descriptor *segment_descriptor(const struct heap *heap, uint64_t slot)
{
    if (slot >> (SEGMENT_SHIFT - SLOT_SHIFT) >= SEGMENTS_MAX)
        return NULL;
    unsigned unit;
    struct header *header = segment_header(heap, (uint32_t)(slot >> (SEGMENT_SHIFT - SLOT_SHIFT)), &unit);
    if (header == NULL)
        return NULL;
    unsigned index = descriptor_index((unsigned)(slot % SEGMENT_SLOTS), unit);
    return index < DESCRIPTORS ? &header->descriptors[index] : NULL;
}

/* Shape of a sealed head: what is not possible for its kind and place. */
static bool head_is_possible(const struct heap *heap, uint64_t slot, uint64_t head)
{
    uint64_t pages = head_pages(head);
    unsigned in_segment = (unsigned)(slot % SEGMENT_SLOTS);
    uint64_t first = slot * SLOT_PAGES + head_first_page(head);
    if (pages == 0 || pages > heap->capacity / PAGE_BYTES || first > heap->capacity / PAGE_BYTES - pages)
        return false;
    switch (head_kind(head)) {
    case RUN_SLAB:
        return head_class(head) < CLASS_COUNT && head_first_page(head) == 0 &&
               pages == (uint64_t)class_table[head_class(head)].slots * SLOT_PAGES &&
               in_segment + class_table[head_class(head)].slots <= SEGMENT_SLOTS;
    case RUN_EXTENT:
        return pages >= EXTENT_PAGES_MIN;
    case RUN_TABLE:
        return head_first_page(head) == 0 && in_segment == 2;
    default:
        return false;
    }
}

int segment_run_at(const struct heap *heap, uint64_t slot, struct run *run)
{
    struct descriptor *descriptor = segment_descriptor(heap, slot);
    if (descriptor == NULL)
        return STEAD_WRONG_POINTER;
    uint64_t head = atomic_load_explicit(&descriptor->head, memory_order_acquire);
    if (head == 0 || head_kind(head) == RUN_TAIL)
        return STEAD_WRONG_POINTER;
    if (!head_is_sealed(heap->secret, slot, head) || !head_is_possible(heap, slot, head))
        return STEAD_CORRUPT;
    run->descriptor = descriptor;
    run->head = head;
    run->slot = slot;
    run->page = slot * SLOT_PAGES + head_first_page(head);
    run->pages = head_pages(head);
    if (!is_mapped(heap, run->page << PAGE_SHIFT, run->pages << PAGE_SHIFT))
        return STEAD_CORRUPT;
    return 0;
}

/* The byte lies in a segment without a header, or before the header of one: only an extent that began in an earlier
 * segment can cover it. */
static int find_spanning(const struct heap *heap, uint32_t segment, uint64_t page, struct run *run)
{
    while (segment > 0) {
        segment--;
        const _Atomic uint32_t *word = segment_entry(heap, segment);
        if (word == NULL)
            return STEAD_WRONG_POINTER;
        uint32_t entry = atomic_load_explicit(word, memory_order_acquire);
        if (entry_kind(entry) == SEGMENT_SWALLOWED)
            continue;
        for (uint64_t n = SEGMENT_SLOTS; n-- > 0;) {
            int rc = segment_run_at(heap, (uint64_t)segment * SEGMENT_SLOTS + n, run);
            if (rc == STEAD_CORRUPT)
                return rc;
            if (rc == 0)
                return page >= run->page && page - run->page < run->pages ? 0 : STEAD_WRONG_POINTER;
        }
        return STEAD_WRONG_POINTER;
    }
    return STEAD_WRONG_POINTER;
}

int segment_find_run(const struct heap *heap, uint64_t offset, struct run *run)
{
    uint64_t slot = offset >> SLOT_SHIFT, page = offset >> PAGE_SHIFT;
    uint32_t segment = (uint32_t)(offset >> SEGMENT_SHIFT);
    if (offset >> SEGMENT_SHIFT >= segments_of(heap))
        return STEAD_WRONG_POINTER;
    unsigned unit;
    const struct header *header = segment_header(heap, segment, &unit);
    if (header == NULL || page % SEGMENT_PAGES < (uint64_t)unit * UNIT_PAGES) {
        const _Atomic uint32_t *word = segment_entry(heap, segment);
        if (header == NULL && (word == NULL || entry_kind(atomic_load(word)) != SEGMENT_SWALLOWED))
            return word != NULL && entry_kind(atomic_load(word)) == SEGMENT_VOID ? STEAD_WRONG_POINTER : STEAD_CORRUPT;
        if (header == NULL || page % SEGMENT_PAGES < header->segment.covered_pages)
            return find_spanning(heap, segment, page, run);
    }
    int rc = segment_run_at(heap, slot, run);
    if (rc == STEAD_CORRUPT)
        return rc;
    if (rc == 0 && page >= run->page)
        return page - run->page < run->pages ? 0 : STEAD_WRONG_POINTER;
    /* Not the run that starts here: one that continues here.  Its mark, or the slot before, says where it starts. */
    uint64_t back = 1;
    if (rc == 0 || slot % SEGMENT_SLOTS == 0) {
        if (slot % SEGMENT_SLOTS == 0)
            return STEAD_WRONG_POINTER;
        slot--;
        back = 0;
    }
    const struct descriptor *descriptor = segment_descriptor(heap, slot);
    if (descriptor == NULL)
        return STEAD_WRONG_POINTER;
    uint64_t head = atomic_load_explicit(&descriptor->head, memory_order_acquire);
    if (head_kind(head) == RUN_TAIL) {
        if (!head_is_sealed(heap->secret, slot, head))
            return STEAD_CORRUPT;
        back = head_pages(head);
    } else if (back != 0) {
        return STEAD_WRONG_POINTER; /* a slot where no run starts and none continues */
    }
    if (back > slot % SEGMENT_SLOTS)
        return STEAD_CORRUPT;
    rc = segment_run_at(heap, slot - back, run);
    if (rc != 0)
        return rc;
    return page >= run->page && page - run->page < run->pages ? 0 : STEAD_WRONG_POINTER;
}

int segment_each_run(const struct heap *heap, int (*visit)(const struct run *run, void *arg), void *arg)
{
    uint32_t segments = segments_of(heap);
    uint64_t end = 0; /* page after the last run: a damaged image must not make blocks overlap */
    for (uint32_t segment = 0; segment < segments; segment++) {
        unsigned unit;
        if (segment_header(heap, segment, &unit) == NULL)
            continue;
        for (uint64_t n = 0; n < SEGMENT_SLOTS; n++) {
            struct run run;
            if (segment_run_at(heap, (uint64_t)segment * SEGMENT_SLOTS + n, &run) != 0 || run.page < end)
                continue;
            end = run.page + run.pages;
            int rc = visit(&run, arg);
            if (rc != 0)
                return rc;
        }
    }
    return 0;
}

bool pages_are_free(const uint64_t busy[16], unsigned first, unsigned count)
{
    for (unsigned i = first; i < first + count;) {
        unsigned in_word = 64 - i % 64 < first + count - i ? 64 - i % 64 : first + count - i;
        uint64_t mask = (in_word == 64 ? ~UINT64_C(0) : (UINT64_C(1) << in_word) - 1) << i % 64;
        if ((busy[i / 64] & mask) != 0)
            return false;
        i += in_word;
    }
    return true;
}

void pages_mark(uint64_t busy[16], unsigned first, unsigned count, bool is_busy)
{
    for (unsigned i = first; i < first + count;) {
        unsigned in_word = 64 - i % 64 < first + count - i ? 64 - i % 64 : first + count - i;
        uint64_t mask = (in_word == 64 ? ~UINT64_C(0) : (UINT64_C(1) << in_word) - 1) << i % 64;
        busy[i / 64] = is_busy ? busy[i / 64] | mask : busy[i / 64] & ~mask;
        i += in_word;
    }
}

/* First page at or after `from` whose bit is `set`; SEGMENT_PAGES if there is none. */
static unsigned find_bit(const uint64_t busy[16], unsigned from, bool set)
{
    if (from >= SEGMENT_PAGES)
        return SEGMENT_PAGES;
    uint64_t flip = set ? 0 : ~UINT64_C(0);
    uint64_t word = (busy[from / 64] ^ flip) & ~UINT64_C(0) << from % 64;
    for (unsigned i = from / 64;;) {
        if (word != 0)
            return i * 64 + (unsigned)__builtin_ctzll(word);
        if (++i == 16)
            return SEGMENT_PAGES;
        word = busy[i] ^ flip;
    }
}

unsigned pages_next_gap(const uint64_t busy[16], unsigned *first)
{
    *first = find_bit(busy, *first, false);
    return *first == SEGMENT_PAGES ? 0 : find_bit(busy, *first, true) - *first;
}

unsigned pages_longest_gap(const uint64_t busy[16], bool *has_slot)
{
    unsigned longest = 0;
    *has_slot = false;
    for (unsigned first = 0, length; (length = pages_next_gap(busy, &first)) != 0; first += length) {
        longest = length > longest ? length : longest;
        unsigned aligned = (first + SLOT_PAGES - 1) & ~(SLOT_PAGES - 1);
        if (aligned + SLOT_PAGES <= first + length)
            *has_slot = true;
    }
    return longest;
}
