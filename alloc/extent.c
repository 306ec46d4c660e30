/*
 * extent.c -- runs of pages inside one segment (longer ones: span.c).
 *
 * The head in the descriptor is the truth.  What is derived from the heads, and so can be rebuilt:
 *   busy bits         which pages of a segment belong to a run or the header
 *   tail marks        in every further slot a run reaches into, unless another run starts there
 *   the table's hint  length of the longest gap, "or more"; and whether a whole slot is free
 *   top_pages         no run or header ends beyond it
 *
 * Making a run, and what a kill after each step leaves (LIVE; elsewhere commits are taken only between calls):
 *   1 intent                nothing
 *   2 top raised            top too high: settled
 *   3 busy bits, marks      pages of no run: settled (rebuilt from the heads)
 *   4 caller's part of the descriptor (bitmaps)     the same
 *   5 head                  the run exists; leaks if nobody got its address: the one block in flight
 *   6 hint, intent cleared  settled
 * Removing: intent, head (commit), busy bits, hint, top, intent.  Growing in place: as making, the head rewritten with
 * the new length; shrinking: as removing.
 *
 * Which room: slabs take the lowest address, so that they stay together and the tail of the image drains; extents take
 * the smallest gap that fits (best fit) in the segment with the smallest longest gap that fits.  The last segment,
 * whose gap is the end of the file, comes last, and in it that gap.  Where a segment must be added for an extent that is not small, the extent
 * begins in the gap at the end of the one before (span.c): else blocks of 1 MiB would leave a quarter of each segment
 * unused.  Coalescing is implicit: free pages have no structure.
 *
 * Invariants: A4 busy bits == union of runs, header, covered pages; A5 hint >= longest gap; A6 top >= end of all.
 */
#include "alloc/extent.h"

#include <errno.h>
#include <string.h>

#include "alloc/gate.h"
#include "alloc/span.h"

#define SPAN_PAGES_MIN 64u /* 256 KiB: a shorter run finds use for the end of a segment later */

/* A segment's entry from its busy bits; an empty one becomes VOID, which needs no header. */
void segment_refresh(struct heap *heap, uint32_t segment)
{
    unsigned unit;
    const struct header *header = segment_header(heap, segment, &unit);
    _Atomic uint32_t *entry = segment_entry(heap, segment);
    if (header == NULL || entry == NULL)
        return;
    bool has_slot;
    unsigned gap = pages_longest_gap(header->segment.busy, &has_slot);
    if (has_slot && segment < heap->slot_floor)
        heap->slot_floor = segment;
    bool is_empty =
        header->segment.covered_pages == 0 && !is_leader(segment) &&
        pages_are_free(header->segment.busy, 0, unit * UNIT_PAGES) &&
        pages_are_free(header->segment.busy, (unit + 1) * UNIT_PAGES, SEGMENT_PAGES - (unit + 1) * UNIT_PAGES);
    uint32_t now = is_empty ? entry_make(SEGMENT_VOID, 0, 0, false) : entry_make(SEGMENT_PRESENT, unit, gap, has_slot);
    if (atomic_load_explicit(entry, memory_order_relaxed) != now)
        atomic_store_explicit(entry, now, memory_order_release);
}

int extent_back(struct heap *heap, uint64_t bytes)
{
    uint64_t limit = atomic_load_explicit(&heap->limit, memory_order_relaxed);
    if (bytes <= limit)
        return 0;
    if (bytes > heap->capacity)
        return error_set(ENOMEM, "The store is full: no free piece of its capacity of %llu bytes is large enough",
                         (unsigned long long)heap->capacity);
    uint64_t units = min_u64(round_up(bytes, UNIT_BYTES), heap->capacity);
    int rc = heap->host.extend(heap->host.ctx, units);
    if (rc != 0)
        return error_keep(rc);
    if (atomic_load(&heap->limit) < units)
        atomic_store(&heap->limit, units);
    return 0;
}

void extent_raise_top(struct heap *heap, uint64_t page)
{
    struct heap_root *root = root_of(heap);
    if (atomic_load_explicit(&root->top_pages, memory_order_relaxed) < page)
        atomic_store_explicit(&root->top_pages, page, memory_order_relaxed);
    _Atomic uint64_t *fresh = fresh_of(heap);
    if (atomic_load_explicit(fresh, memory_order_relaxed) < page << PAGE_SHIFT)
        atomic_store_explicit(fresh, page << PAGE_SHIFT, memory_order_relaxed);
}

int extent_damaged(struct heap *heap, uint64_t page, const char *what)
{
    heap->damaged = true;
    return error_set(STEAD_CORRUPT, "The heap is damaged at offset 0x%llx: %s; nothing more is allocated from it",
                     (unsigned long long)(page << PAGE_SHIFT), what);
}

void segment_format(struct heap *heap, uint32_t segment, unsigned header_unit, unsigned covered_pages)
{
    struct header *header = (struct header *)(void *)(heap->base + header_offset(segment, header_unit));
    if (GUARD_ACTIVE && heap->guards) /* blocks may have lain here */
        GUARD_SHOW_ZEROED(header, sizeof *header);
    memset(&header->segment, 0, sizeof header->segment);
    header->segment.covered_pages = covered_pages;
    pages_mark(header->segment.busy, 0, covered_pages, true);
    pages_mark(header->segment.busy, header_unit * UNIT_PAGES, UNIT_PAGES, true);
    memset(&header->root, 0, offsetof(struct header, descriptors) - offsetof(struct header, root));
    for (unsigned i = 0; i < DESCRIPTORS; i++) {
        atomic_store_explicit(&header->descriptors[i].head, 0, memory_order_relaxed);
        atomic_store_explicit(&header->descriptors[i].owner, 0, memory_order_relaxed);
    }
    header->segment.seal = segment_seal(heap->secret, segment, header_unit);
}

/* Makes a segment PRESENT that is VOID, or the first one that does not exist. */
int segment_make(struct heap *heap, uint32_t segment)
{
    uint32_t segments = segments_of(heap);
    uint64_t start = (uint64_t)segment << SEGMENT_SHIFT;
    unsigned slots = is_leader(segment) ? table_slots(segment) : 0;
    if (segment >= SEGMENTS_MAX)
        return error_set(ENOMEM, "The store is full: a heap has at most 4 TiB");
    int rc = extent_back(heap, start + UNIT_BYTES + slots * SLOT_BYTES);
    if (rc != 0)
        return rc;
    extent_raise_top(heap, (start + UNIT_BYTES + slots * SLOT_BYTES) >> PAGE_SHIFT);
    segment_format(heap, segment, 0, 0);
    struct header *header = (struct header *)(void *)(heap->base + header_offset(segment, 0));
    if (slots != 0) { /* the group's table, right behind the header */
        if (GUARD_ACTIVE && heap->guards)
            GUARD_SHOW_ZEROED(heap->base + start + UNIT_BYTES, slots * SLOT_BYTES);
        memset(heap->base + start + UNIT_BYTES, 0, slots * SLOT_BYTES);
        uint64_t slot = start / SLOT_BYTES + 2;
        pages_mark(header->segment.busy, UNIT_PAGES, slots * SLOT_PAGES, true);
        atomic_store_explicit(&header->descriptors[0].head,
                              head_make(heap->secret, slot, RUN_TABLE, 0, 0, (uint64_t)slots * SLOT_PAGES),
                              memory_order_release);
    }
    _Atomic uint32_t *entry = segment_entry(heap, segment);
    if (entry == NULL)
        return extent_damaged(heap, start >> PAGE_SHIFT, "no table entry for a segment");
    bool has_slot;
    unsigned gap = pages_longest_gap(header->segment.busy, &has_slot);
    GATE_STEP();
    atomic_store_explicit(entry, entry_make(SEGMENT_PRESENT, 0, gap, has_slot), memory_order_release);
    GATE_STEP();
    if (segment >= segments)
        atomic_store_explicit(&root_of(heap)->segments, segment + 1, memory_order_release);
    GATE_STEP();
    return 0;
}

/* The best gap of a segment for a run: its first page in the segment, or SEGMENT_PAGES.  Never beyond the capacity; and
 * what the image must grow for only if nothing else fits. */
static unsigned gap_choose(const struct heap *heap, uint32_t segment, const uint64_t busy[16], uint64_t pages,
                           uint64_t alignment, bool first_fit)
{
    unsigned best = SEGMENT_PAGES;
    uint64_t best_length = UINT64_MAX, start = (uint64_t)segment << SEGMENT_SHIFT;
    uint64_t address = (uint64_t)(uintptr_t)heap->base + start;
    uint64_t limit = atomic_load_explicit(&heap->limit, memory_order_relaxed);
    for (unsigned first = 0, length; (length = pages_next_gap(busy, &first)) != 0; first += length) {
        uint64_t aligned = round_up(address + (uint64_t)first * PAGE_BYTES, alignment);
        uint64_t skip = (aligned - address) / PAGE_BYTES - first;
        uint64_t end = start + (first + skip + pages) * PAGE_BYTES;
        uint64_t rank = length + (end > limit ? SEGMENT_PAGES : 0);
        if (skip + pages > length || end > heap->capacity || rank >= best_length)
            continue;
        best = (unsigned)(first + skip);
        best_length = rank;
        if (first_fit)
            break;
    }
    return best;
}

/* Looks in a segment; corrects its hint where it promised too much. */
static bool segment_offers(struct heap *heap, uint32_t segment, uint64_t pages, uint64_t alignment, bool slab,
                           uint64_t *page)
{
    unsigned unit;
    if ((uint64_t)segment << SEGMENT_SHIFT >= atomic_load_explicit(&heap->limit, memory_order_relaxed) &&
        extent_back(heap, ((uint64_t)segment << SEGMENT_SHIFT) + UNIT_BYTES) != 0) /* LIVE: others extended */
        return false;
    const struct header *header = segment_header(heap, segment, &unit);
    if (header == NULL)
        return false;
    unsigned first = gap_choose(heap, segment, header->segment.busy, pages, alignment, slab);
    if (first == SEGMENT_PAGES) {
        segment_refresh(heap, segment);
        return false;
    }
    *page = (uint64_t)segment * SEGMENT_PAGES + first;
    return true;
}

static bool find_for_slab(struct heap *heap, uint64_t pages, uint64_t *page)
{
    uint32_t segments = segments_of(heap);
    bool from_start = heap->slot_floor == 0;
    for (uint32_t segment = heap->slot_floor;; segment++) {
        if (segment >= segments) {
            if (from_start || heap->kind != HEAP_LIVE) /* elsewhere the floor is exact */
                return false;
            from_start = true; /* another process may have freed below */
            heap->slot_floor = segment = 0;
        }
        const _Atomic uint32_t *word = segment_entry(heap, segment);
        uint32_t entry = word == NULL ? 0 : atomic_load_explicit(word, memory_order_relaxed);
        if (entry_kind(entry) != SEGMENT_PRESENT || (entry & ENTRY_HAS_SLOT) == 0) {
            if (segment == heap->slot_floor && entry_kind(entry) != SEGMENT_VOID)
                heap->slot_floor = segment + 1;
            continue;
        }
        if (entry_gap(entry) >= pages && segment_offers(heap, segment, pages, SLOT_BYTES, true, page))
            return true;
    }
}

static bool find_for_extent(struct heap *heap, uint64_t pages, uint64_t alignment, uint64_t *page)
{
    uint32_t segments = segments_of(heap);
    for (unsigned tries = 0; tries < 8; tries++) { /* a hint that was wrong is corrected; look again */
        uint32_t best = segments;
        unsigned best_gap = 2048;
        for (uint32_t segment = 0; segment < segments && best_gap > pages; segment++) {
            const _Atomic uint32_t *word = segment_entry(heap, segment);
            uint32_t entry = word == NULL ? 0 : atomic_load_explicit(word, memory_order_relaxed);
            bool better = segment + 1 == segments ? best == segments : entry_gap(entry) < best_gap;
            if (entry_kind(entry) == SEGMENT_PRESENT && entry_gap(entry) >= pages && better) {
                best = segment;
                best_gap = entry_gap(entry);
            }
        }
        if (best == segments)
            return false;
        if (segment_offers(heap, best, pages, alignment, false, page))
            return true;
        if (alignment > PAGE_BYTES)
            break; /* the hint may be right and only the alignment wrong: do not insist */
    }
    for (uint32_t segment = 0; segment < segments; segment++) {
        const _Atomic uint32_t *word = segment_entry(heap, segment);
        uint32_t entry = word == NULL ? 0 : atomic_load_explicit(word, memory_order_relaxed);
        if (entry_kind(entry) == SEGMENT_PRESENT && entry_gap(entry) >= pages &&
            segment_offers(heap, segment, pages, alignment, false, page))
            return true;
    }
    return false;
}

/* Marks in the slots behind the first one that [page, page + pages) reaches into, within its segment.  A slot where a
 * run begins behind our end keeps its head; a run's head anywhere else means that the busy bits lied. */
int extent_mark_tails(struct heap *heap, uint64_t page, uint64_t pages)
{
    uint64_t first = page / SLOT_PAGES, end = page + pages;
    end = min_u64(end, round_up(page + 1, SEGMENT_PAGES));
    for (uint64_t slot = first; slot * SLOT_PAGES < end; slot++) {
        struct descriptor *descriptor = segment_descriptor(heap, slot);
        if (descriptor == NULL)
            return extent_damaged(heap, page, "a free page without a descriptor");
        uint64_t head = atomic_load_explicit(&descriptor->head, memory_order_relaxed);
        bool is_run = head != 0 && head_kind(head) != RUN_TAIL && head_is_sealed(heap->secret, slot, head);
        if (is_run && slot * SLOT_PAGES + head_first_page(head) >= end)
            continue;
        if (is_run && slot * SLOT_PAGES + head_first_page(head) != page)
            return extent_damaged(heap, page, "a page that is marked free belongs to a run");
        if (slot != first)
            atomic_store_explicit(&descriptor->head, head_make(heap->secret, slot, RUN_TAIL, 0, 0, slot - first),
                                  memory_order_relaxed);
    }
    return 0;
}

int extent_reserve(struct heap *heap, enum run_kind kind, unsigned class, uint64_t pages, uint64_t alignment,
                   struct run *run, uint64_t *zero_from)
{
    int rc;
    uint64_t page;
    if (heap->damaged)
        return error_set(STEAD_CORRUPT, "The heap was found damaged: nothing more is allocated from it");
    *zero_from = atomic_load_explicit(fresh_of(heap), memory_order_relaxed);
    if (pages > RUN_PAGES_MAX)
        return span_reserve(heap, 0, pages, alignment, run);
    bool found = kind == RUN_SLAB ? find_for_slab(heap, pages, &page) : find_for_extent(heap, pages, alignment, &page);
    for (uint32_t segment = 0, end = segments_of(heap); !found && segment <= end; segment++) {
        const _Atomic uint32_t *word = segment < end ? segment_entry(heap, segment) : NULL;
        if (segment < end && (word == NULL || entry_kind(atomic_load(word)) != SEGMENT_VOID))
            continue;
        if (kind == RUN_EXTENT && pages >= SPAN_PAGES_MIN) /* it may begin at the end of the segment before */
            return span_reserve(heap, segment == 0 ? 0 : segment - 1, pages, alignment, run);
        rc = segment_make(heap, segment);
        if (rc != 0)
            return rc;
        found = segment_offers(heap, segment, pages, alignment, kind == RUN_SLAB, &page);
        if (!found && segment == end) /* the alignment leaves no room behind a header */
            return span_reserve(heap, segment, pages, alignment, run);
    }
    rc = extent_back(heap, (page + pages) << PAGE_SHIFT);
    if (rc != 0)
        return rc;
    gate_intend(heap, page, pages);
    extent_raise_top(heap, page + pages);
    unsigned unit;
    struct header *header = segment_header(heap, (uint32_t)(page / SEGMENT_PAGES), &unit);
    struct descriptor *descriptor = segment_descriptor(heap, page / SLOT_PAGES);
    rc = header == NULL || descriptor == NULL ? extent_damaged(heap, page, "a segment without a valid header")
                                              : extent_mark_tails(heap, page, pages);
    if (rc != 0) {
        gate_intend(heap, 0, 0);
        return rc;
    }
    GATE_STEP();
    pages_mark(header->segment.busy, (unsigned)(page % SEGMENT_PAGES), (unsigned)pages, true);
    GATE_STEP();
    run->descriptor = descriptor;
    run->slot = page / SLOT_PAGES;
    run->page = page;
    run->pages = pages;
    run->head = head_make(heap->secret, run->slot, kind, class, (unsigned)(page % SLOT_PAGES), pages);
    return 0;
}

void extent_publish(struct heap *heap, const struct run *run)
{
    GATE_STEP();
    atomic_store_explicit(&run->descriptor->head, run->head, memory_order_release);
    GATE_STEP();
    segment_refresh(heap, (uint32_t)(run->page / SEGMENT_PAGES));
    gate_intend(heap, 0, 0);
}

/* What stands in a slot's head when the run that starts in it is gone: the mark of the one that ends in it, or 0. */
static uint64_t head_without_run(const struct heap *heap, const struct header *header, const struct run *run)
{
    uint64_t first = run->slot * SLOT_PAGES;
    if (run->page == first || run->slot % SEGMENT_SLOTS == 0 || /* there covered_pages says it */
        pages_are_free(header->segment.busy, (unsigned)(first % SEGMENT_PAGES), 1))
        return 0;
    const struct descriptor *before = segment_descriptor(heap, run->slot - 1);
    uint64_t head = before == NULL ? 0 : atomic_load_explicit(&before->head, memory_order_relaxed);
    if (head == 0)
        return 0;
    uint64_t back = head_kind(head) == RUN_TAIL ? head_pages(head) + 1 : 1;
    return head_make(heap->secret, run->slot, RUN_TAIL, 0, 0, back);
}

void extent_remove(struct heap *heap, const struct run *run)
{
    uint32_t segment = (uint32_t)(run->page / SEGMENT_PAGES);
    unsigned unit, first = (unsigned)(run->page % SEGMENT_PAGES);
    struct header *header = segment_header(heap, segment, &unit);
    if (header == NULL)
        return; /* cannot be: the run was proved through it */
    gate_intend(heap, run->page, run->pages);
    atomic_store_explicit(&run->descriptor->head, head_without_run(heap, header, run), memory_order_release);
    GATE_STEP();
    if (first + run->pages > SEGMENT_PAGES) {
        span_release(heap, run->page, run->pages);
    } else {
        pages_mark(header->segment.busy, first, (unsigned)run->pages, false);
        GATE_STEP();
        segment_refresh(heap, segment);
    }
    GATE_STEP();
    if (run->page + run->pages >= atomic_load_explicit(&root_of(heap)->top_pages, memory_order_relaxed) ||
        segment + 1 >= segments_of(heap))
        extent_lower_top(heap);
    gate_intend(heap, 0, 0);
}

bool extent_resize(struct heap *heap, struct run *run, uint64_t pages)
{
    uint32_t segment = (uint32_t)(run->page / SEGMENT_PAGES);
    unsigned unit, first = (unsigned)(run->page % SEGMENT_PAGES);
    struct header *header = segment_header(heap, segment, &unit);
    pages = max_u64(pages, EXTENT_PAGES_MIN);
    if (header == NULL || first + run->pages > SEGMENT_PAGES || first + pages > SEGMENT_PAGES || heap->damaged)
        return false;
    unsigned was = (unsigned)run->pages, now = (unsigned)pages;
    if (now > was && (!pages_are_free(header->segment.busy, first + was, now - was) ||
                      extent_back(heap, (run->page + pages) << PAGE_SHIFT) != 0))
        return false;
    gate_intend(heap, run->page, max_u64(run->pages, pages));
    extent_raise_top(heap, run->page + pages);
    if (now > was) {
        if (extent_mark_tails(heap, run->page, pages) != 0) {
            gate_intend(heap, 0, 0);
            return false;
        }
        pages_mark(header->segment.busy, first + was, now - was, true);
    }
    run->head = head_make(heap->secret, run->slot, RUN_EXTENT, 0, first % SLOT_PAGES, pages);
    run->pages = pages;
    GATE_STEP();
    atomic_store_explicit(&run->descriptor->head, run->head, memory_order_release);
    GATE_STEP();
    if (now < was)
        pages_mark(header->segment.busy, first + now, was - now, false);
    segment_refresh(heap, segment);
    if (now < was)
        extent_lower_top(heap);
    gate_intend(heap, 0, 0);
    return true;
}

void extent_lower_top(struct heap *heap)
{
    struct heap_root *root = root_of(heap);
    uint32_t segments = segments_of(heap);
    while (segments > 0) {
        uint32_t segment = segments - 1;
        uint64_t start = (uint64_t)segment * SEGMENT_PAGES;
        const _Atomic uint32_t *word = segment_entry(heap, segment);
        enum segment_kind kind = word == NULL ? SEGMENT_INVALID : entry_kind(atomic_load(word));
        unsigned unit, last = SEGMENT_PAGES;
        const struct header *header = segment_header(heap, segment, &unit);
        uint64_t top;
        if (kind == SEGMENT_SWALLOWED) {
            struct run run;
            if (segment_find_run(heap, start << PAGE_SHIFT, &run) != 0)
                return; /* a kill left it: whoever settles comes again */
            top = run.page + run.pages;
        } else if (header != NULL) {
            while (last > 0 && pages_are_free(header->segment.busy, last - 1, 1))
                last--;
            unsigned fixed = is_leader(segment) ? UNIT_PAGES + table_slots(segment) * SLOT_PAGES : 0;
            if (segment != 0 && last == fixed)
                kind = SEGMENT_VOID; /* a leader whose group is gone */
            top = start + last;
        } else if (kind != SEGMENT_VOID) {
            return; /* damaged */
        } else {
            top = start;
        }
        if (kind != SEGMENT_VOID) {
            atomic_store_explicit(&root->top_pages, top, memory_order_relaxed);
            return;
        }
        segments = segment;
        atomic_store_explicit(&root->segments, segments, memory_order_release);
    }
}

/* Busy bits of a segment from the heads. */
static void segment_rebuild(struct heap *heap, uint32_t segment)
{
    unsigned unit;
    struct header *header = segment_header(heap, segment, &unit);
    if (header == NULL)
        return;
    uint64_t busy[16] = {0}, start = (uint64_t)segment * SEGMENT_PAGES;
    struct run run;
    if (header->segment.covered_pages != 0 &&
        (segment_find_run(heap, start << PAGE_SHIFT, &run) != 0 || run.page + run.pages <= start))
        header->segment.covered_pages = 0;
    pages_mark(busy, 0, header->segment.covered_pages <= SEGMENT_PAGES ? header->segment.covered_pages : 0, true);
    pages_mark(busy, unit * UNIT_PAGES, UNIT_PAGES, true);
    for (uint64_t n = 0; n < SEGMENT_SLOTS; n++)
        if (segment_run_at(heap, (uint64_t)segment * SEGMENT_SLOTS + n, &run) == 0)
            pages_mark(busy, (unsigned)(run.page - start),
                       (unsigned)min_u64(run.pages, SEGMENT_PAGES - (run.page - start)), true);
    memcpy(header->segment.busy, busy, sizeof busy);
}

void extent_settle(struct heap *heap, uint64_t page, uint64_t pages)
{
    if (pages == 0 || page > heap->capacity / PAGE_BYTES || pages > heap->capacity / PAGE_BYTES - page)
        return; /* not an intent of ours */
    struct run run;
    bool exists = segment_run_at(heap, page / SLOT_PAGES, &run) == 0 && run.page == page;
    uint64_t last = (page + pages - 1) / SEGMENT_PAGES;
    for (uint64_t n = page / SEGMENT_PAGES; n <= last && n < segments_of(heap); n++) {
        uint32_t segment = (uint32_t)n;
        _Atomic uint32_t *entry = segment_entry(heap, segment);
        if (entry == NULL)
            break;
        if (entry_kind(atomic_load(entry)) == SEGMENT_SWALLOWED && !exists && n != page / SEGMENT_PAGES)
            atomic_store(entry, entry_make(SEGMENT_VOID, 0, 0, false));
        segment_rebuild(heap, segment);
        segment_refresh(heap, segment);
    }
    heap->slot_floor = 0;
    extent_lower_top(heap);
}
