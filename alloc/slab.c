/*
 * slab.c -- small blocks.
 *
 * A slab is owned by one thread, or by nobody.  `allocated` bits are written by the owner alone, with plain stores:
 * handing out a block is one store to one word, and there is no cache of free blocks besides the image, so nothing can
 * leak.  Everybody else frees by an atomic OR into `freed`; a block is live while allocated & ~freed.
 *
 * The owner harvests `freed`, and what a kill after each step leaves (LIVE):
 *   r = load(freed)           nothing happened
 *   allocated &= ~r           bits in freed without a block: the next harvest does both steps again, harmlessly.  No
 *                             block of r is handed out before the next step, so none of them becomes free by mistake
 *   freed &= ~r (atomic)      done
 * Memory order: the OR releases the freeing thread's last use of the block, the load acquires it.
 *
 * Slabs of an owner are in one of its bin's lists: current, partial (have free blocks), full.  A local free moves full
 * to partial, and removes a slab that became empty.  Frees by others only set `pending` in the descriptor; the owner
 * looks at a few full slabs, in rotation, whenever it needs another slab.
 *
 * Nobody's slabs (a thread ended, a process ended or died, the store was just opened) are found by looking at the
 * headers, a bounded number of segments a time, before new room is taken; or when a block of theirs is freed: whoever
 * frees takes the slab over.  Ownership in a LIVE heap is the descriptor's `owner` (session and attachment), changed
 * under the gate; which thread of the process is volatile.
 *
 * Invariants: A8 bits behind the capacity are 0 in `allocated` and `freed`; pairs behind it are not looked at.
 */
#include "alloc/slab.h"

#include <errno.h>
#include <string.h>

#include "alloc/extent.h"
#include "alloc/gate.h"

#define FULL_LOOKS 8u      /* full slabs looked at for others' frees, a refill                */
#define SPARSE_LOOKS 8u    /* sparse slabs passed over, a refill                              */
#define SCAN_SEGMENTS 64u  /* segments searched for nobody's slabs, a refill: 256 MiB         */
#define RESCAN_PAGES 2048u /* LIVE: growth after which the slabs of the dead are sought again */

struct map_pair slab_no_pair;

static struct note *note_at(const struct heap *heap, uint64_t slot)
{
    return &heap->notes[slot];
}

static uint32_t slot_of(const struct heap *heap, const struct note *note)
{
    return (uint32_t)(note - heap->notes);
}

static void list_remove(struct heap *heap, struct slab_list *list, struct note *note)
{
    if (note->previous != 0)
        note_at(heap, note->previous)->next = note->next;
    else
        list->first = note->next;
    if (note->next != 0)
        note_at(heap, note->next)->previous = note->previous;
    else
        list->last = note->previous;
    note->next = note->previous = 0;
    note->state = SLAB_UNLISTED;
}

static void list_append(struct heap *heap, struct slab_list *list, struct note *note, enum slab_state state)
{
    uint32_t slot = slot_of(heap, note);
    note->next = 0;
    note->previous = list->last;
    if (list->last != 0)
        note_at(heap, list->last)->next = slot;
    else
        list->first = slot;
    list->last = slot;
    note->state = (uint8_t)state;
}

static struct slab_list *list_of(struct heap *heap, struct owner *owner, const struct note *note)
{
    switch (note->state) {
    case SLAB_PARTIAL:
        return &owner->bins[note->class].partial;
    case SLAB_FULL:
        return &owner->bins[note->class].full;
    case SLAB_ORPHAN:
        return &heap->orphans[note->class];
    default:
        return NULL;
    }
}

/* Moves what others freed into `allocated`. */
static void harvest(struct descriptor *descriptor, const struct class_geometry *geometry)
{
    (void)atomic_exchange(&descriptor->pending, 0); /* before looking: a bit set later sets it again */
    for (unsigned i = 0; i < slab_pairs(geometry); i++) {
        struct map_pair *pair = &descriptor->map[i];
        uint64_t freed = atomic_load_explicit(&pair->freed, memory_order_acquire);
        if (freed == 0)
            continue;
        uint64_t allocated = atomic_load_explicit(&pair->allocated, memory_order_relaxed);
        GATE_STEP();
        atomic_store_explicit(&pair->allocated, allocated & ~(freed & slab_valid_bits(geometry, i)),
                              memory_order_relaxed);
        GATE_STEP();
        atomic_fetch_and_explicit(&pair->freed, ~freed, memory_order_acq_rel);
    }
}

static bool slab_is_empty(const struct descriptor *descriptor, const struct class_geometry *geometry)
{
    for (unsigned i = 0; i < slab_pairs(geometry); i++)
        if (atomic_load_explicit(&descriptor->map[i].allocated, memory_order_relaxed) != 0)
            return false;
    return true;
}

static bool slab_has_free(const struct descriptor *descriptor, const struct class_geometry *geometry)
{
    for (unsigned i = 0; i < slab_pairs(geometry); i++)
        if ((~(atomic_load_explicit(&descriptor->map[i].allocated, memory_order_relaxed) &
               ~atomic_load_explicit(&descriptor->map[i].freed, memory_order_relaxed)) &
             slab_valid_bits(geometry, i)) != 0)
            return true;
    return false;
}

static struct descriptor *descriptor_of(const struct heap *heap, const struct note *note)
{
    return note_descriptor(heap, note, (uint64_t)slot_of(heap, note) << SLOT_SHIFT);
}

static bool note_matches(const struct heap *heap, const struct note *note)
{
    return atomic_load_explicit(&descriptor_of(heap, note)->head, memory_order_relaxed) == note->head;
}

/* Lets the bin hand out a word of the slab with a free block: first the one it has, then the others in turn. */
static bool bin_advance(struct heap *heap, struct bin *bin, const struct note *note)
{
    const struct class_geometry *geometry = &class_table[note->class];
    struct descriptor *descriptor = descriptor_of(heap, note);
    unsigned pairs = slab_pairs(geometry), at = 0;
    if (bin->pair >= descriptor->map && bin->pair < descriptor->map + pairs)
        at = (unsigned)(bin->pair - descriptor->map);
    for (unsigned n = 0; n < pairs; n++, at = at + 1 == pairs ? 0 : at + 1) {
        uint64_t free_bits =
            ~atomic_load_explicit(&descriptor->map[at].allocated, memory_order_relaxed) & slab_valid_bits(geometry, at);
        if (free_bits == 0)
            continue;
        bin->free_bits = free_bits;
        bin->pair = &descriptor->map[at];
        bin->block_bytes = geometry->bytes;
        bin->block0 = heap->base + ((uint64_t)slot_of(heap, note) << SLOT_SHIFT) + (uint64_t)at * 64 * geometry->bytes;
        bin->next = bin->block0 + (uint64_t)(unsigned)__builtin_ctzll(free_bits) * geometry->bytes;
        return true;
    }
    return false;
}

static void bin_clear(struct bin *bin)
{
    bin->pair = &slab_no_pair;
    bin->free_bits = 0;
    bin->current = 0;
}

/* LIVE: the note may still stand for a slab that another process took or removed. */
static void unlist_orphan(struct heap *heap, struct note *note)
{
    if (note->state == SLAB_ORPHAN && atomic_load(&note->owner) == atomic_load(&heap->token_floor)) {
        list_remove(heap, &heap->orphans[note->class], note);
        atomic_store_explicit(&note->owner, 0, memory_order_relaxed);
    }
}

static void note_fill(const struct heap *heap, struct note *note, const struct run *run)
{
    const struct class_geometry *geometry = &class_table[head_class(run->head)];
    uint32_t descriptor = (uint32_t)((uint64_t)((uint8_t *)run->descriptor - heap->base) & (SEGMENT_BYTES - 1));
    if (note->head == run->head && note->descriptor == descriptor)
        return; /* known already: a thread that frees a block in it may be reading (free_remote) */
    note->class = (uint8_t)head_class(run->head);
    note->inverse = geometry->inverse;
    note->capacity = (uint16_t)geometry->capacity;
    note->head = run->head;
    note->descriptor = descriptor;
}

/* The note of a slab that the caller now owns; under the gate. */
static struct note *note_take(struct heap *heap, const struct owner *owner, const struct run *run)
{
    struct note *note = note_at(heap, run->slot);
    unlist_orphan(heap, note);
    note_fill(heap, note, run);
    note->next = note->previous = 0;
    note->state = SLAB_UNLISTED;
    atomic_store_explicit(&note->owner, owner->token, memory_order_release);
    return note;
}

static uint64_t owner_mark(const struct heap *heap)
{
    return (uint64_t)atomic_load_explicit(&root_of(heap)->session, memory_order_relaxed) << 32 | heap->host.self;
}

/* LIVE: may this process take the slab, as far as other processes are concerned? */
static bool owner_is_gone(const struct heap *heap, uint64_t mark)
{
    if (mark == 0 || mark == owner_mark(heap) || mark >> 32 != owner_mark(heap) >> 32)
        return true;
    return !heap->host.alive(heap->host.ctx, (uint32_t)mark);
}

/* Makes nobody's slab the caller's; under the gate.  NULL: somebody owns it. */
static struct note *slab_adopt(struct heap *heap, struct owner *owner, const struct run *run)
{
    struct note *note = note_at(heap, run->slot);
    if (note_is_owned(heap, note))
        return NULL;
    if (heap->kind == HEAP_LIVE) {
        if (!owner_is_gone(heap, atomic_load(&run->descriptor->owner)))
            return NULL;
        atomic_store(&run->descriptor->owner, owner_mark(heap));
        GATE_STEP();
    }
    note = note_take(heap, owner, run);
    harvest(run->descriptor, &class_table[note->class]);
    return note;
}

static void list_owned(struct heap *heap, struct owner *owner, struct note *note)
{
    struct bin *bin = &owner->bins[note->class];
    if (slab_has_free(descriptor_of(heap, note), &class_table[note->class]))
        list_append(heap, &bin->partial, note, SLAB_PARTIAL);
    else
        list_append(heap, &bin->full, note, SLAB_FULL);
}

/* Removes a slab of the caller's that is in no list; under the gate. */
static void slab_remove(struct heap *heap, struct note *note)
{
    struct run run;
    uint32_t slot = slot_of(heap, note);
    note->state = SLAB_UNLISTED;
    atomic_store_explicit(&note->owner, 0, memory_order_relaxed);
    if (segment_run_at(heap, slot, &run) == 0 && run.head == note->head)
        extent_remove(heap, &run);
}

/* Puts nobody's slabs of one segment into heap->orphans. */
static void scan_segment(struct heap *heap, uint32_t segment)
{
    unsigned unit;
    if (segment_header(heap, segment, &unit) == NULL)
        return;
    for (uint64_t n = 0; n < SEGMENT_SLOTS; n++) {
        struct run run;
        uint64_t slot = (uint64_t)segment * SEGMENT_SLOTS + n;
        if (segment_run_at(heap, slot, &run) != 0 || head_kind(run.head) != RUN_SLAB)
            continue;
        struct note *note = note_at(heap, slot);
        uint32_t floor = atomic_load_explicit(&heap->token_floor, memory_order_relaxed);
        if (note_is_owned(heap, note) || atomic_load_explicit(&note->owner, memory_order_relaxed) == floor)
            continue; /* owned, or in the list already */
        if (heap->kind == HEAP_LIVE && !owner_is_gone(heap, atomic_load(&run.descriptor->owner)))
            continue;
        if (!slab_has_free(run.descriptor, &class_table[head_class(run.head)]))
            continue;
        note_fill(heap, note, &run);
        list_append(heap, &heap->orphans[note->class], note, SLAB_ORPHAN);
        atomic_store_explicit(&note->owner, floor, memory_order_release);
    }
}

/* A slab of the class that is nobody's, now the caller's; under the gate. */
static struct note *orphan_take(struct heap *heap, struct owner *owner, unsigned class)
{
    struct slab_list *list = &heap->orphans[class];
    if (heap->kind == HEAP_LIVE) {
        const struct heap_root *root = root_of(heap);
        uint64_t top = atomic_load_explicit(&root->top_pages, memory_order_relaxed);
        uint32_t orphanings = atomic_load(&root->orphanings);
        if (orphanings != heap->orphanings_seen || top > heap->rescan_top) {
            heap->orphanings_seen = orphanings;
            heap->rescan_top = top + RESCAN_PAGES + top / 8; /* so that looking stays cheap against growing */
            heap->orphans_scanned = 0;
        }
    }
    for (unsigned budget = SCAN_SEGMENTS;;) {
        while (list->first != 0) {
            struct note *note = note_at(heap, list->first);
            struct run run;
            list_remove(heap, list, note);
            atomic_store_explicit(&note->owner, 0, memory_order_relaxed);
            if (segment_run_at(heap, slot_of(heap, note), &run) != 0 || head_kind(run.head) != RUN_SLAB ||
                head_class(run.head) != class)
                continue; /* LIVE: gone since */
            note = slab_adopt(heap, owner, &run);
            if (note == NULL)
                continue;
            if (slab_has_free(run.descriptor, &class_table[class]))
                return note;
            list_append(heap, &owner->bins[class].full, note, SLAB_FULL);
        }
        if (budget == 0 || heap->orphans_scanned >= segments_of(heap))
            return NULL;
        scan_segment(heap, heap->orphans_scanned++);
        budget--;
    }
}

/* A new slab; under the gate. */
static int slab_make(struct heap *heap, struct owner *owner, unsigned class, struct note **note)
{
    const struct class_geometry *geometry = &class_table[class];
    struct run run;
    uint64_t zero_from;
    int rc =
        extent_reserve(heap, RUN_SLAB, class, (uint64_t)geometry->slots * SLOT_PAGES, SLOT_BYTES, &run, &zero_from);
    if (rc != 0)
        return rc;
    for (unsigned i = 0; i < slab_pairs(geometry); i++) {
        atomic_store_explicit(&run.descriptor->map[i].allocated, 0, memory_order_relaxed);
        atomic_store_explicit(&run.descriptor->map[i].freed, 0, memory_order_relaxed);
    }
    atomic_store_explicit(&run.descriptor->pending, 0, memory_order_relaxed);
    atomic_store_explicit(&run.descriptor->owner, heap->kind == HEAP_LIVE ? owner_mark(heap) : 0, memory_order_relaxed);
    extent_publish(heap, &run);
    if (heap->guards)
        GUARD_HIDE(heap->base + (run.page << PAGE_SHIFT), run.pages << PAGE_SHIFT);
    *note = note_take(heap, owner, &run);
    return 0;
}

/* Is more than a sixth of the slab free?  Then it is left to drain while there are fuller ones: what is free gathers
 * in a few slabs, which become empty and go, instead of being a little everywhere. */
static bool slab_is_sparse(const struct heap *heap, const struct note *note)
{
    const struct class_geometry *geometry = &class_table[note->class];
    const struct descriptor *descriptor = descriptor_of(heap, note);
    unsigned used = 0;
    for (unsigned i = 0; i < slab_pairs(geometry); i++)
        used +=
            (unsigned)__builtin_popcountll(atomic_load_explicit(&descriptor->map[i].allocated, memory_order_relaxed));
    return geometry->capacity - used > geometry->capacity / 6 + 1;
}

/* The bin's slab is used up: the next one of the owner's own, or NULL. */
static struct note *own_next(struct heap *heap, struct bin *bin)
{
    struct note *note;
    for (unsigned looks = 0; bin->partial.first != 0; looks++) {
        note = note_at(heap, bin->partial.first);
        list_remove(heap, &bin->partial, note);
        if (!note_matches(heap, note))
            continue;
        if (looks == SPARSE_LOOKS || bin->partial.first == 0 || !slab_is_sparse(heap, note))
            return note;
        list_append(heap, &bin->partial, note, SLAB_PARTIAL);
    }
    for (unsigned looks = 0; looks < FULL_LOOKS && bin->full.first != 0; looks++) {
        note = note_at(heap, bin->full.first);
        list_remove(heap, &bin->full, note);
        if (!note_matches(heap, note))
            continue;
        if (atomic_load_explicit(&descriptor_of(heap, note)->pending, memory_order_relaxed) != 0) {
            harvest(descriptor_of(heap, note), &class_table[note->class]);
            if (slab_has_free(descriptor_of(heap, note), &class_table[note->class]))
                return note;
        }
        list_append(heap, &bin->full, note, SLAB_FULL);
    }
    return NULL;
}

int slab_refill(struct heap *heap, struct owner *owner, unsigned class)
{
    struct bin *bin = &owner->bins[class];
    if (bin->current != 0) {
        struct note *note = note_at(heap, bin->current);
        if (!note_matches(heap, note))
            return error_set(STEAD_CORRUPT, "The heap is damaged at offset 0x%llx: the descriptor of a slab changed",
                             (unsigned long long)bin->current << SLOT_SHIFT);
        if (bin_advance(heap, bin, note))
            return 0;
        if (atomic_load_explicit(&descriptor_of(heap, note)->pending, memory_order_relaxed) != 0) {
            harvest(descriptor_of(heap, note), &class_table[class]);
            if (bin_advance(heap, bin, note))
                return 0;
        }
        bin_clear(bin);
        list_append(heap, &bin->full, note, SLAB_FULL);
    }
    for (;;) {
        struct note *note = own_next(heap, bin);
        if (note == NULL) {
            int rc = 0;
            gate_enter(heap);
            note = orphan_take(heap, owner, class);
            if (note == NULL)
                rc = slab_make(heap, owner, class, &note);
            gate_leave(heap);
            if (rc != 0)
                return rc;
        }
        if (bin_advance(heap, bin, note)) {
            note->state = SLAB_CURRENT;
            bin->current = slot_of(heap, note);
            return 0;
        }
        list_append(heap, &bin->full, note, SLAB_FULL);
    }
}

void slab_after_free(struct heap *heap, struct owner *owner, struct note *note)
{
    struct slab_list *list = list_of(heap, owner, note);
    if (list == NULL)
        return;
    struct bin *bin = &owner->bins[note->class];
    if (slab_is_empty(descriptor_of(heap, note), &class_table[note->class])) {
        if (bin->partial.first == bin->partial.last) { /* the only spare one: it will soon be wanted again */
            if (note->state == SLAB_FULL) {
                list_remove(heap, list, note);
                list_append(heap, &bin->partial, note, SLAB_PARTIAL);
            }
            if (bin->partial.first == slot_of(heap, note))
                return;
        }
        list_remove(heap, list_of(heap, owner, note), note);
        gate_enter(heap);
        slab_remove(heap, note);
        gate_leave(heap);
    } else if (note->state == SLAB_FULL) {
        list_remove(heap, list, note);
        list_append(heap, &bin->partial, note, SLAB_PARTIAL);
    }
}

/* A block is about to be free: before its bit says so, for then it may be another thread's. */
static void slab_hide(const struct heap *heap, uint64_t slot, unsigned class, uint32_t index)
{
    if (GUARD_ACTIVE && heap->guards)
        GUARD_HIDE(heap->base + (slot << SLOT_SHIFT) + (uint64_t)index * class_table[class].bytes,
                   class_table[class].bytes);
}

/* Frees a block of a slab that the caller owns. */
static int free_owned(struct heap *heap, struct owner *owner, struct note *note, uint32_t index)
{
    struct map_pair *pair = &descriptor_of(heap, note)->map[index / 64];
    uint64_t bit = UINT64_C(1) << index % 64;
    uint64_t allocated = atomic_load_explicit(&pair->allocated, memory_order_relaxed);
    if ((allocated & ~atomic_load_explicit(&pair->freed, memory_order_relaxed) & bit) == 0)
        return STEAD_WRONG_POINTER;
    slab_hide(heap, slot_of(heap, note), note->class, index);
    atomic_store_explicit(&pair->allocated, allocated & ~bit, memory_order_relaxed);
    if (note->state != SLAB_CURRENT)
        slab_after_free(heap, owner, note);
    return 0;
}

int slab_free_shared(struct heap *heap, struct owner *owner, const struct run *run, uint32_t index)
{
    struct note *note = note_at(heap, run->slot);
    if (owner != NULL && !note_is_owned(heap, note) &&
        (heap->kind != HEAP_LIVE || atomic_load_explicit(&run->descriptor->owner, memory_order_relaxed) == 0 ||
         atomic_load_explicit(&run->descriptor->owner, memory_order_relaxed) >> 32 != owner_mark(heap) >> 32)) {
        gate_enter(heap);
        struct run again;
        int rc = segment_run_at(heap, run->slot, &again);
        if (rc == 0 && again.head == run->head) {
            struct note *taken = slab_adopt(heap, owner, run);
            if (taken != NULL)
                list_owned(heap, owner, taken);
        }
        gate_leave(heap);
        if (rc != 0 || again.head != run->head)
            return rc != 0 ? rc : STEAD_WRONG_POINTER;
    }
    if (owner != NULL && atomic_load_explicit(&note->owner, memory_order_acquire) == owner->token)
        return free_owned(heap, owner, note, index);
    uint32_t bytes = class_table[head_class(run->head)].bytes;
    return slab_free_bit(heap, run->descriptor, heap->base + (run->slot << SLOT_SHIFT) + (uint64_t)index * bytes, bytes,
                         index);
}

int slab_free_bit(const struct heap *heap, struct descriptor *descriptor, void *block, uint32_t bytes, uint32_t index)
{
    struct map_pair *pair = &descriptor->map[index / 64];
    uint64_t bit = UINT64_C(1) << index % 64;
    if ((atomic_load_explicit(&pair->allocated, memory_order_relaxed) & bit) == 0)
        return STEAD_WRONG_POINTER;
    if (GUARD_ACTIVE && heap->guards)
        GUARD_HIDE(block, bytes);
    (void)heap;
    (void)block;
    (void)bytes;
    if ((atomic_fetch_or_explicit(&pair->freed, bit, memory_order_acq_rel) & bit) != 0)
        return STEAD_WRONG_POINTER;
    GATE_STEP();
    /* After the bit; the exchange in harvest() comes before its look. */
    if (atomic_load(&descriptor->pending) == 0)
        atomic_store(&descriptor->pending, 1);
    return 0;
}

/* One slab stops being the owner's; under the gate. */
static void slab_orphan(struct heap *heap, struct note *note)
{
    const struct class_geometry *geometry = &class_table[note->class];
    note->state = SLAB_UNLISTED;
    note->next = note->previous = 0;
    if (!note_matches(heap, note)) {
        atomic_store_explicit(&note->owner, 0, memory_order_relaxed);
        return;
    }
    harvest(descriptor_of(heap, note), geometry);
    if (slab_is_empty(descriptor_of(heap, note), geometry)) {
        slab_remove(heap, note);
        return;
    }
    if (heap->kind == HEAP_LIVE)
        atomic_store(&descriptor_of(heap, note)->owner, 0);
    if (slab_has_free(descriptor_of(heap, note), geometry)) {
        list_append(heap, &heap->orphans[note->class], note, SLAB_ORPHAN);
        atomic_store_explicit(&note->owner, atomic_load(&heap->token_floor), memory_order_release);
    } else {
        atomic_store_explicit(&note->owner, 0, memory_order_release);
    }
}

void slab_give_back(struct heap *heap, struct owner *owner)
{
    gate_enter(heap);
    for (unsigned class = 0; class < CLASS_COUNT; class ++) {
        struct bin *bin = &owner->bins[class];
        if (bin->current != 0)
            slab_orphan(heap, note_at(heap, bin->current));
        bin_clear(bin);
        struct slab_list *lists[] = {&bin->partial, &bin->full};
        for (unsigned i = 0; i < 2; i++)
            while (lists[i]->first != 0) {
                struct note *note = note_at(heap, lists[i]->first);
                list_remove(heap, lists[i], note);
                slab_orphan(heap, note);
            }
    }
    if (heap->kind == HEAP_LIVE)
        atomic_fetch_add(&root_of(heap)->orphanings, 1);
    gate_leave(heap);
}

void slab_forget_orphans(struct heap *heap)
{
    memset(heap->orphans, 0, sizeof heap->orphans);
    heap->orphans_scanned = 0;
    heap->rescan_top = 0;
}

void slab_trim(struct heap *heap)
{
    gate_enter(heap);
    for (uint32_t segment = 0; segment < segments_of(heap); segment++) {
        for (uint64_t n = 0; n < SEGMENT_SLOTS; n++) {
            struct run run;
            uint64_t slot = (uint64_t)segment * SEGMENT_SLOTS + n;
            if (segment_run_at(heap, slot, &run) != 0 || head_kind(run.head) != RUN_SLAB)
                continue;
            struct note *note = note_at(heap, slot);
            const struct class_geometry *geometry = &class_table[head_class(run.head)];
            if (note_is_owned(heap, note) ||
                (heap->kind == HEAP_LIVE && !owner_is_gone(heap, atomic_load(&run.descriptor->owner))))
                continue;
            if (atomic_load(&run.descriptor->pending) != 0 || !slab_has_free(run.descriptor, geometry))
                harvest(run.descriptor, geometry);
            if (!slab_is_empty(run.descriptor, geometry))
                continue;
            unlist_orphan(heap, note);
            extent_remove(heap, &run);
        }
    }
    extent_lower_top(heap);
    gate_leave(heap);
}
