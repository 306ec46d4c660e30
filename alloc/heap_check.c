/*
 * heap_check.c -- proves every A-invariant of an image that may be any bytes.
 *
 * Reads through a callback, one header (60 KiB) at a time, into memory of constant size; writes nothing.  Loops are
 * bounded by the number of segments, which is bounded by the image's length.  What is found is reported, and the check
 * goes on where that makes sense: a damaged segment does not hide the next one's damage.
 *
 *   A1 root          A2 table entries and headers     A3 heads: sealed, possible, inside, not overlapping
 *   A4 busy bits     A5 hints                         A6 top
 *   A7 spans         A8 bitmaps                       A9 tail marks
 *
 * An unsettled intent (LIVE, a killed holder) allows the segments of that one run to disagree with their heads: the
 * next one to take the gate settles them.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "alloc/slab.h"

struct check {
    const struct heap_reader *reader;
    struct report *report;
    struct header *header; /* of the segment looked at */
    uint64_t secret;
    uint32_t segments;
    uint64_t top_pages;
    uint64_t intent_first, intent_end; /* segments whose derived state may be unsettled */
    uint64_t span_end;                 /* page where the spanning extent ends that was met last       */
    uint64_t end;                      /* page where the last thing in use ends                       */
    uint64_t table_page_offset;        /* of table_page, UINT64_MAX = none                    */
    uint32_t table_page[PAGE_BYTES / 4];
};

static bool read_image(struct check *check, uint64_t offset, void *buffer, size_t bytes)
{
    if (offset > check->reader->image_bytes || bytes > check->reader->image_bytes - offset) {
        report_problem(check->report, "A2", offset, "the image ends at 0x%" PRIx64 ", before %zu bytes that it needs",
                       check->reader->image_bytes, bytes);
        return false;
    }
    int rc = check->reader->read(check->reader->ctx, offset, buffer, bytes);
    if (rc != 0)
        report_problem(check->report, "A2", offset, "cannot be read (error %d)", rc);
    check->report->pages += (bytes + PAGE_BYTES - 1) / PAGE_BYTES;
    return rc == 0;
}

static bool is_unsettled(const struct check *check, uint32_t segment)
{
    return segment >= check->intent_first && segment < check->intent_end;
}

/* A1. */
static bool check_root(struct check *check)
{
    struct heap_root root;
    uint64_t at = HEAP_RESERVED_BYTES + offsetof(struct header, root);
    if (!read_image(check, at, &root, sizeof root))
        return false;
    if (root.magic != ROOT_MAGIC || root.version != ROOT_VERSION || root.check != root_check(root.secret)) {
        report_problem(check->report, "A1", at, "magic, version or check of the heap's root are wrong");
        return false;
    }
    for (unsigned i = 0; i < sizeof root.reserved3; i++)
        if (root.reserved0 != 0 || root.reserved1 != 0 || root.reserved3[i] != 0 ||
            (i < sizeof root.reserved2 && root.reserved2[i] != 0)) {
            report_problem(check->report, "A1", at, "reserved bytes of the heap's root are not zero");
            break;
        }
    check->secret = root.secret;
    check->segments = atomic_load(&root.segments);
    check->top_pages = atomic_load(&root.top_pages);
    uint64_t fit = (min_u64(check->reader->image_bytes, check->reader->capacity) + SEGMENT_BYTES - 1) >> SEGMENT_SHIFT;
    if (check->segments == 0 || check->segments > fit || check->segments > SEGMENTS_MAX) {
        report_problem(check->report, "A1", at, "%u segments in an image of 0x%" PRIx64 " bytes", check->segments,
                       check->reader->image_bytes);
        check->segments = (uint32_t)min_u64(fit, min_u64(check->segments, SEGMENTS_MAX));
    }
    if (check->top_pages > check->reader->image_bytes / PAGE_BYTES)
        report_problem(check->report, "A6", at, "the top, page %" PRIu64 ", lies behind the image's end",
                       check->top_pages);
    if (root.intent_pages != 0 && root.intent_page <= check->reader->capacity / PAGE_BYTES &&
        root.intent_pages <= check->reader->capacity / PAGE_BYTES) {
        check->intent_first = root.intent_page / SEGMENT_PAGES;
        check->intent_end = (root.intent_page + root.intent_pages - 1) / SEGMENT_PAGES + 1;
    }
    return true;
}

static bool read_entry(struct check *check, uint32_t segment, uint32_t *entry)
{
    uint64_t offset = entry_offset(segment), page = round_down(offset, PAGE_BYTES);
    if (page != check->table_page_offset) {
        check->table_page_offset = UINT64_MAX;
        if (!read_image(check, page, check->table_page, sizeof check->table_page))
            return false;
        check->table_page_offset = page;
    }
    *entry = check->table_page[(offset - page) / 4];
    return true;
}

/* A8, and counts live blocks. */
static void check_slab(struct check *check, const struct descriptor *descriptor, uint64_t offset, unsigned class)
{
    const struct class_geometry *geometry = &class_table[class];
    for (unsigned i = 0; i < slab_pairs(geometry); i++) {
        uint64_t valid = slab_valid_bits(geometry, i);
        uint64_t allocated = atomic_load(&descriptor->map[i].allocated), freed = atomic_load(&descriptor->map[i].freed);
        if ((allocated & ~valid) != 0)
            report_problem(check->report, "A8", offset, "blocks behind the slab's %u blocks are marked allocated",
                           geometry->capacity);
        if ((freed & ~valid) != 0)
            report_problem(check->report, "A8", offset, "blocks behind the slab's %u blocks were freed",
                           geometry->capacity);
        check->report->blocks += (unsigned)__builtin_popcountll(allocated & ~freed & valid);
    }
    if (atomic_load(&descriptor->pending) > 1)
        report_problem(check->report, "A8", offset, "`pending` is neither 0 nor 1");
    if (descriptor->reserved0 != 0 || descriptor->reserved1 != 0)
        report_problem(check->report, "A8", offset, "reserved bytes of a descriptor are not zero");
}

/* A3 for one head; false: nothing about it can be trusted. */
static bool check_head(struct check *check, uint64_t slot, uint64_t head)
{
    uint64_t first = slot * SLOT_PAGES + head_first_page(head), pages = head_pages(head), offset = slot << SLOT_SHIFT;
    unsigned in_segment = (unsigned)(slot % SEGMENT_SLOTS);
    bool possible = false;
    if (!head_is_sealed(check->secret, slot, head)) {
        report_problem(check->report, "A3", offset, "the descriptor of this slot does not bear the heap's seal");
        return false;
    }
    if (head_kind(head) == RUN_SLAB)
        possible = head_class(head) < CLASS_COUNT && head_first_page(head) == 0 &&
                   pages == (uint64_t)class_table[head_class(head)].slots * SLOT_PAGES &&
                   in_segment + class_table[head_class(head)].slots <= SEGMENT_SLOTS;
    else if (head_kind(head) == RUN_EXTENT)
        possible = pages >= EXTENT_PAGES_MIN;
    else if (head_kind(head) == RUN_TABLE)
        possible = in_segment == 2 && head_first_page(head) == 0;
    if (!possible || first > check->reader->image_bytes / PAGE_BYTES ||
        pages > check->reader->image_bytes / PAGE_BYTES - first) {
        report_problem(check->report, "A3", offset,
                       "a run of kind %u, class %u, %" PRIu64 " pages is not possible here", head_kind(head),
                       head_class(head), pages);
        return false;
    }
    if (first < check->end) {
        report_problem(check->report, "A3", offset,
                       "a run starts at page %" PRIu64 ", inside the one before, which "
                       "ends at page %" PRIu64,
                       first, check->end);
        return false;
    }
    return true;
}

/* A9: every further slot of a run that lies in its segment says so, unless another run starts there. */
static void check_tails(struct check *check, uint32_t segment, unsigned unit, uint64_t slot, uint64_t end_page)
{
    uint64_t end = min_u64(end_page, ((uint64_t)segment + 1) * SEGMENT_PAGES);
    for (uint64_t n = slot + 1; n * SLOT_PAGES < end; n++) {
        unsigned index = descriptor_index((unsigned)(n % SEGMENT_SLOTS), unit);
        uint64_t head = index < DESCRIPTORS ? atomic_load(&check->header->descriptors[index].head) : 0;
        bool other = head != 0 && head_kind(head) != RUN_TAIL && n * SLOT_PAGES + head_first_page(head) >= end;
        if (!other && head != head_make(check->secret, n, RUN_TAIL, 0, 0, n - slot))
            report_problem(check->report, "A9", n << SLOT_SHIFT,
                           "the slot is part of a run that starts in slot %" PRIu64 " but is not marked so", slot);
    }
}

static bool is_reserved_zero(const struct segment *saved)
{
    uint64_t any = saved->reserved0;
    for (unsigned i = 0; i < sizeof saved->reserved1 / sizeof *saved->reserved1; i++)
        any |= saved->reserved1[i];
    return any == 0;
}

/* A3-A6, A8, A9 for a PRESENT segment whose header is in check->header. */
static void check_segment(struct check *check, uint32_t segment, uint32_t entry)
{
    const struct segment *saved = &check->header->segment;
    unsigned unit = entry_header_unit(entry);
    uint64_t start = (uint64_t)segment * SEGMENT_PAGES, offset = header_offset(segment, unit), busy[16] = {0};
    uint64_t header_page = start + (uint64_t)unit * UNIT_PAGES;
    if (saved->seal != segment_seal(check->secret, segment, unit)) {
        report_problem(check->report, "A2", offset, "the header of segment %u does not bear the heap's seal", segment);
        return;
    }
    if (!is_reserved_zero(saved))
        report_problem(check->report, "A2", offset, "reserved bytes of segment %u's header are not zero", segment);
    unsigned covered = check->span_end > start ? (unsigned)min_u64(check->span_end - start, SEGMENT_PAGES) : 0;
    if (covered != saved->covered_pages && !is_unsettled(check, segment))
        report_problem(check->report, "A7", offset,
                       "%u pages are said to belong to an earlier segment's extent, but "
                       "it is %u",
                       saved->covered_pages, covered);
    if (check->end > header_page && check->end > start)
        report_problem(check->report, "A3", offset, "a run reaches into the header of segment %u", segment);
    pages_mark(busy, 0, covered, true);
    pages_mark(busy, unit * UNIT_PAGES, UNIT_PAGES, true);
    for (uint64_t n = 0; n < SEGMENT_SLOTS; n++) {
        uint64_t slot = (uint64_t)segment * SEGMENT_SLOTS + n;
        unsigned index = descriptor_index((unsigned)n, unit);
        if (slot * SLOT_PAGES == header_page)
            check->end = max_u64(check->end, header_page + UNIT_PAGES);
        if (index == DESCRIPTORS)
            continue;
        const struct descriptor *descriptor = &check->header->descriptors[index];
        uint64_t head = atomic_load(&descriptor->head);
        if (head == 0)
            continue;
        if (head_kind(head) == RUN_TAIL) { /* in a free slot: left from a run that is gone */
            if (!head_is_sealed(check->secret, slot, head) || head_pages(head) > n || head_pages(head) == 0)
                report_problem(check->report, "A9", slot << SLOT_SHIFT, "a damaged mark");
            continue;
        }
        if (!check_head(check, slot, head))
            continue;
        uint64_t first = slot * SLOT_PAGES + head_first_page(head), end = first + head_pages(head);
        if (first < header_page && min_u64(end, start + SEGMENT_PAGES) > header_page) {
            report_problem(check->report, "A3", slot << SLOT_SHIFT, "a run reaches into the header of segment %u",
                           segment);
            continue;
        }
        check->end = end;
        if (end > start + SEGMENT_PAGES)
            check->span_end = end;
        pages_mark(busy, (unsigned)(first - start), (unsigned)(min_u64(end, start + SEGMENT_PAGES) - first), true);
        if (!is_unsettled(check, segment))
            check_tails(check, segment, unit, slot, end);
        if (head_kind(head) == RUN_SLAB)
            check_slab(check, descriptor, slot << SLOT_SHIFT, head_class(head));
        else if (head_kind(head) == RUN_EXTENT)
            check->report->blocks++;
    }
    if (is_unsettled(check, segment))
        return;
    for (unsigned i = 0; i < 16; i++)
        if (busy[i] != saved->busy[i]) {
            report_problem(check->report, "A4", ((start + i * 64) << PAGE_SHIFT),
                           "busy bits 0x%016" PRIx64 " but the runs make 0x%016" PRIx64, saved->busy[i], busy[i]);
            break;
        }
    bool has_slot;
    unsigned gap = pages_longest_gap(busy, &has_slot);
    if (entry_gap(entry) < gap || (has_slot && (entry & ENTRY_HAS_SLOT) == 0))
        report_problem(check->report, "A5", offset, "the table says the longest gap is %u pages, but it is %u",
                       entry_gap(entry), gap);
}

static void check_entry(struct check *check, uint32_t segment, uint32_t entry)
{
    uint64_t start = (uint64_t)segment * SEGMENT_PAGES, offset = entry_offset(segment);
    bool covered = check->span_end >= start + SEGMENT_PAGES;
    unsigned unit = entry_header_unit(entry);
    if ((entry & ~ENTRY_BITS) != 0 || entry_kind(entry) == SEGMENT_INVALID) {
        report_problem(check->report, "A2", offset, "0x%08x is not an entry of the segment table", entry);
        return;
    }
    if (is_leader(segment) && (entry_kind(entry) != SEGMENT_PRESENT || unit != 0)) {
        report_problem(check->report, "A2", offset, "segment %u must have its header at its start", segment);
        return;
    }
    switch (entry_kind(entry)) {
    case SEGMENT_PRESENT:
        if (covered && !is_unsettled(check, segment))
            report_problem(check->report, "A7", offset, "segment %u has a header inside an extent", segment);
        else if (read_image(check, header_offset(segment, unit), check->header, sizeof *check->header))
            check_segment(check, segment, entry);
        return;
    case SEGMENT_SWALLOWED:
        if (check->span_end <= start && !is_unsettled(check, segment))
            report_problem(check->report, "A7", offset, "segment %u has no header, but no extent covers it", segment);
        return;
    default:
        if (check->span_end > start && !is_unsettled(check, segment))
            report_problem(check->report, "A7", offset, "segment %u is marked unused, but an extent covers it",
                           segment);
    }
}

void heap_check(const struct heap_reader *reader, struct report *report, uint64_t *used)
{
    struct check *check = calloc(1, sizeof *check);
    struct header *header = malloc(sizeof *header);
    *used = HEAP_INITIAL_BYTES;
    classes_init();
    if (check == NULL || header == NULL) {
        report_unable(report, ENOMEM);
        goto out;
    }
    check->reader = reader;
    check->report = report;
    check->header = header;
    check->table_page_offset = UINT64_MAX;
    if (!check_root(check))
        goto out;
    uint64_t trusted_top = check->top_pages;
    for (uint32_t segment = 0; segment < check->segments; segment++) {
        uint32_t entry;
        if (read_entry(check, segment, &entry))
            check_entry(check, segment, entry);
    }
    if (check->span_end > (uint64_t)check->segments * SEGMENT_PAGES)
        report_problem(report, "A7", check->span_end << PAGE_SHIFT, "an extent ends behind the last segment");
    if (trusted_top < check->end)
        report_problem(report, "A6", check->end << PAGE_SHIFT,
                       "the top is page %" PRIu64 ", but page %" PRIu64 " is in use", trusted_top, check->end - 1);
    *used = max_u64(
        round_up(max_u64(min_u64(trusted_top, reader->image_bytes / PAGE_BYTES), check->end) * PAGE_BYTES, UNIT_BYTES),
        HEAP_INITIAL_BYTES);
out:
    free(header);
    free(check);
}
