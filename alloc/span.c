/*
 * span.c -- extents that reach over the end of their segment.
 *
 *   segment a (PRESENT)        a+1 .. b-1 (SWALLOWED)       segment b
 *   | header | ... | extent .................................... | header | free ... |
 *                  ^ head, in a's descriptors                    ^ first whole unit behind the end
 *
 * Room is: the gap at a's end, then segments that are VOID or do not exist yet, then for the last part either such a
 * segment, whose header is written behind the extent, or one whose header already lies far enough behind (left by an
 * earlier extent).  If nothing but the header would fit behind the end, b is SWALLOWED too.  Room that an earlier extent left
 * between two segments is taken first, then the first place by address from where the caller says.  A leader is never swallowed, so no extent reaches over a power of two >= 4 GiB: one that would goes
 * behind it, and the hole before it stays for others.
 *
 * Order of the stores, each settled by extent_settle() after a kill: b's header and entry, the entries between, a's
 * busy bits and marks, the number of segments, the head (commit).
 *
 * Invariant A7: a segment is SWALLOWED, and covered_pages is not 0, exactly where a spanning extent lies.
 */
#include "alloc/span.h"

#include <errno.h>
#include <string.h>

#include "alloc/gate.h"

struct span {
    uint64_t page, end;  /* pages */
    uint32_t a, b;       /* segments of the first and the last page */
    unsigned last_pages; /* of b that are covered */
    bool b_is_present;
    unsigned header_unit; /* of b's new header; 0 = b becomes SWALLOWED */
};

static uint32_t entry_at(const struct heap *heap, uint32_t segment)
{
    const _Atomic uint32_t *word = segment_entry(heap, segment);
    return word == NULL ? 0 : atomic_load_explicit(word, memory_order_acquire);
}

static bool is_unused(const struct heap *heap, uint32_t segment)
{
    return segment >= segments_of(heap) || entry_kind(entry_at(heap, segment)) == SEGMENT_VOID;
}

/* Does an extent from this page fit?  On failure *next is the first segment worth trying as a. */
static bool span_fits(const struct heap *heap, struct span *span, uint32_t *next)
{
    span->a = (uint32_t)(span->page / SEGMENT_PAGES);
    span->b = (uint32_t)((span->end - 1) / SEGMENT_PAGES);
    span->last_pages = (unsigned)(span->end - (uint64_t)span->b * SEGMENT_PAGES);
    span->b_is_present = false;
    span->header_unit = 0;
    *next = span->a + 1;
    for (uint32_t s = span->a + 1; s <= span->b; s++) {
        *next = s;
        if (is_leader(s))
            return false;
        if (is_unused(heap, s))
            continue;
        unsigned unit;
        const struct header *header = segment_header(heap, s, &unit);
        if (s != span->b || header == NULL || unit * UNIT_PAGES < span->last_pages ||
            !pages_are_free(header->segment.busy, 0, span->last_pages))
            return false;
        span->b_is_present = true;
    }
    if (!span->b_is_present && span->b != span->a) {
        unsigned unit = (span->last_pages + UNIT_PAGES - 1) / UNIT_PAGES;
        span->header_unit = unit + 1 < SEGMENT_PAGES / UNIT_PAGES ? unit : 0;
    }
    return true;
}

/* The first page of a segment from which a run could reach its end; SEGMENT_PAGES if it has no gap there. */
static unsigned tail_gap(const struct header *header)
{
    unsigned first = SEGMENT_PAGES;
    while (first > 0 && pages_are_free(header->segment.busy, first - 1, 1))
        first--;
    return first;
}

/* From the gap at the end of segment a, or from its beginning if it is unused. */
static bool span_fits_from(const struct heap *heap, uint32_t a, uint64_t pages, uint64_t alignment, struct span *span,
                           uint32_t *next)
{
    unsigned unit, first = UNIT_PAGES;
    *next = a + 1;
    if (!is_unused(heap, a)) {
        const struct header *header = segment_header(heap, a, &unit);
        if (header == NULL || (first = tail_gap(header)) > SEGMENT_PAGES - SLOT_PAGES)
            return false;
    } else if (is_leader(a)) {
        first += table_slots(a) * SLOT_PAGES;
    }
    uint64_t base = (uint64_t)(uintptr_t)heap->base;
    uint64_t address = base + (((uint64_t)a * SEGMENT_PAGES + first) << PAGE_SHIFT);
    span->page = (round_up(address, alignment) - base) >> PAGE_SHIFT;
    span->end = span->page + pages;
    return span->page / SEGMENT_PAGES == a && span->end <= (uint64_t)SEGMENTS_MAX * SEGMENT_PAGES &&
           span_fits(heap, span, next);
}

static bool span_find(const struct heap *heap, uint32_t from, uint64_t pages, uint64_t alignment, struct span *span)
{
    /* Beyond the last segment only leaders are worth a look: that is where a run goes that would reach over one. */
    uint32_t segments_max = (uint32_t)(heap->capacity >> SEGMENT_SHIFT);
    for (uint32_t a = from, next; a <= segments_max; a = next)
        if (span_fits_from(heap, a, pages, alignment, span, &next))
            return true;
    return false;
}

/* A gap that reaches from one segment into the next: an extent that spanned them was freed, and the second one's header
 * still lies behind it.  Headers are looked at only where the table says that both have room, and together enough. */
static bool span_find_between(const struct heap *heap, uint64_t pages, uint64_t alignment, struct span *span)
{
    uint32_t segments = segments_of(heap), before = segments == 0 ? 0 : entry_at(heap, 0);
    for (uint32_t b = 1, next; b < segments; b++) {
        uint32_t entry = entry_at(heap, b);
        bool both = entry_kind(before) == SEGMENT_PRESENT && entry_kind(entry) == SEGMENT_PRESENT;
        if (both && entry_header_unit(entry) != 0 && entry_gap(before) != 0 && entry_gap(entry) != 0 &&
            entry_gap(before) + entry_gap(entry) >= pages && span_fits_from(heap, b - 1, pages, alignment, span, &next))
            return true;
        before = entry;
    }
    return false;
}

/* b's part of a new extent. */
static int span_take_last(struct heap *heap, const struct span *span)
{
    unsigned unit;
    _Atomic uint32_t *entry = segment_entry(heap, span->b);
    if (entry == NULL)
        return extent_damaged(heap, span->page, "no table entry for a segment");
    if (span->b_is_present) {
        struct header *header = segment_header(heap, span->b, &unit);
        if (header == NULL)
            return extent_damaged(heap, span->page, "a segment without a valid header");
        header->segment.covered_pages = span->last_pages;
        pages_mark(header->segment.busy, 0, span->last_pages, true);
        GATE_STEP();
        segment_refresh(heap, span->b);
    } else if (span->header_unit != 0) {
        segment_format(heap, span->b, span->header_unit, span->last_pages);
        GATE_STEP();
        atomic_store_explicit(entry, entry_make(SEGMENT_PRESENT, span->header_unit, 0, false), memory_order_release);
        if (span->b < segments_of(heap))
            segment_refresh(heap, span->b);
    } else {
        atomic_store_explicit(entry, entry_make(SEGMENT_SWALLOWED, 0, 0, false), memory_order_release);
    }
    return 0;
}

int span_reserve(struct heap *heap, uint32_t from, uint64_t pages, uint64_t alignment, struct run *run)
{
    struct span span = {0};
    if (pages > heap->capacity / PAGE_BYTES ||
        (!span_find_between(heap, pages, alignment, &span) && !span_find(heap, from, pages, alignment, &span)))
        return error_set(ENOMEM, "The store is full: no room for a block of %llu bytes in a capacity of %llu",
                         (unsigned long long)pages * PAGE_BYTES, (unsigned long long)heap->capacity);
    uint64_t top = span.header_unit != 0
                       ? (uint64_t)span.b * SEGMENT_PAGES + (uint64_t)(span.header_unit + 1) * UNIT_PAGES
                       : span.end;
    int rc = top > heap->capacity >> PAGE_SHIFT ? extent_back(heap, UINT64_MAX) : extent_back(heap, top << PAGE_SHIFT);
    if (rc == 0 && is_unused(heap, span.a)) {
        for (uint32_t s = segments_of(heap); s < span.a && segment_entry(heap, s) != NULL; s++) /* a hole */
            atomic_store(segment_entry(heap, s), entry_make(SEGMENT_VOID, 0, 0, false));
        rc = segment_make(heap, span.a);
    }
    if (rc != 0)
        return rc;
    gate_intend(heap, span.page, pages);
    extent_raise_top(heap, top);
    unsigned unit;
    struct header *header = segment_header(heap, span.a, &unit);
    run->descriptor = segment_descriptor(heap, span.page / SLOT_PAGES);
    rc = header == NULL || run->descriptor == NULL ? extent_damaged(heap, span.page, "a segment without a valid header")
                                                   : extent_mark_tails(heap, span.page, pages);
    if (rc == 0 && span.b != span.a)
        rc = span_take_last(heap, &span);
    if (rc != 0) {
        gate_intend(heap, 0, 0);
        return rc;
    }
    GATE_STEP();
    for (uint32_t s = span.a + 1; s < span.b; s++)
        atomic_store_explicit(segment_entry(heap, s), entry_make(SEGMENT_SWALLOWED, 0, 0, false),
                              memory_order_release); /* not NULL: the table is mapped, or a would not exist */
    unsigned first = (unsigned)(span.page % SEGMENT_PAGES);
    pages_mark(header->segment.busy, first, (unsigned)min_u64(pages, SEGMENT_PAGES - first), true);
    GATE_STEP();
    if (span.b >= segments_of(heap))
        atomic_store_explicit(&root_of(heap)->segments, span.b + 1, memory_order_release);
    if (span.b != span.a)
        segment_refresh(heap, span.b);
    GATE_STEP();
    run->slot = span.page / SLOT_PAGES;
    run->page = span.page;
    run->pages = pages;
    run->head = head_make(heap->secret, run->slot, RUN_EXTENT, 0, (unsigned)(span.page % SLOT_PAGES), pages);
    return 0;
}

void span_release(struct heap *heap, uint64_t page, uint64_t pages)
{
    uint32_t a = (uint32_t)(page / SEGMENT_PAGES), b = (uint32_t)((page + pages - 1) / SEGMENT_PAGES);
    unsigned unit, first = (unsigned)(page % SEGMENT_PAGES);
    for (uint32_t s = a; s <= b && s < segments_of(heap); s++) {
        struct header *header = segment_header(heap, s, &unit);
        _Atomic uint32_t *entry = segment_entry(heap, s);
        if (header == NULL) {
            if (entry != NULL && entry_kind(atomic_load(entry)) == SEGMENT_SWALLOWED)
                atomic_store(entry, entry_make(SEGMENT_VOID, 0, 0, false));
            continue;
        }
        if (s == a) {
            pages_mark(header->segment.busy, first, SEGMENT_PAGES - first, false);
        } else {
            unsigned covered = header->segment.covered_pages <= SEGMENT_PAGES ? header->segment.covered_pages : 0;
            pages_mark(header->segment.busy, 0, covered, false);
            header->segment.covered_pages = 0;
        }
        GATE_STEP();
        segment_refresh(heap, s);
    }
}
