/*
 * orphan.c -- slabs that are nobody's, and how they find a new owner.
 *
 * A thread ended, a process ended or died, the store was just opened: nobody's slabs are found by looking at the
 * headers, a bounded number of segments a time, before new room is taken; or when a block of theirs is freed: whoever
 * frees takes the slab over.  Ownership in a LIVE heap is the descriptor's `owner` (session and attachment), changed
 * under the gate; which thread of the process is volatile.
 *
 * A thread's end is no call of the program's: it comes whenever it likes, beside a commit of another thread that captures
 * the image, or a rollback that drops its pages.  In SOLE and TURNS it therefore writes nothing there (O1), as a commit could
 * hold a slab's head without its pages' bits, nor reads what a rollback may be putting back.  Its slabs are listed in
 * heap->left, and the next call that takes room looks at them: what others freed is harvested, what is empty is removed.
 * In LIVE nothing captures the image, and other processes wait for the room: there the end does all that at once, under
 * the gate.
 *
 * Invariant: O1  the end of a thread stores nothing into the image of a SOLE or TURNS heap, and reads nothing there
 */
#include "alloc/orphan.h"

#include <string.h>

#include "alloc/extent.h"
#include "alloc/gate.h"

#define SCAN_SEGMENTS 64u  /* segments searched for nobody's slabs, a refill: 256 MiB         */
#define RESCAN_PAGES 2048u /* LIVE: growth after which the slabs of the dead are sought again */

uint64_t owner_mark(const struct heap *heap)
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
struct note *slab_adopt(struct heap *heap, struct owner *owner, const struct run *run)
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
    note_harvest(note);
    return note;
}

void slab_list_owned(struct heap *heap, struct owner *owner, struct note *note)
{
    struct bin *bin = &owner->bins[note->class];
    if (slab_has_free(note->descriptor, &class_table[note->class]))
        list_append(heap, &bin->partial, note, SLAB_PARTIAL);
    else
        list_append(heap, &bin->full, note, SLAB_FULL);
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
        note_fill(note, &run);
        list_append(heap, &heap->orphans[note->class], note, SLAB_ORPHAN);
        atomic_store_explicit(&note->owner, floor, memory_order_release);
    }
}

static void orphan_list(struct heap *heap, struct note *note, struct slab_list *list, enum slab_state state)
{
    list_append(heap, list, note, state);
    atomic_store_explicit(&note->owner, atomic_load(&heap->token_floor), memory_order_release);
}

void orphans_settle(struct heap *heap)
{
    while (heap->left.first != 0) {
        struct note *note = note_at(heap, heap->left.first);
        const struct class_geometry *geometry = &class_table[note->class];
        list_remove(heap, &heap->left, note);
        atomic_store_explicit(&note->owner, 0, memory_order_relaxed);
        if (!note_matches(note))
            continue;
        slab_harvest(note->descriptor, geometry);
        if (slab_is_empty(note->descriptor, geometry))
            slab_remove(heap, note);
        else if (slab_has_free(note->descriptor, geometry))
            orphan_list(heap, note, &heap->orphans[note->class], SLAB_ORPHAN);
    }
}

/* A slab of the class that is nobody's, now the caller's; under the gate. */
struct note *orphan_take(struct heap *heap, struct owner *owner, unsigned class)
{
    struct slab_list *list = &heap->orphans[class];
    orphans_settle(heap);
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
            if (segment_run_at(heap, slab_slot(heap, note), &run) != 0 || head_kind(run.head) != RUN_SLAB ||
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

/* One slab stops being the owner's; under the gate. */
static void slab_orphan(struct heap *heap, struct note *note)
{
    const struct class_geometry *geometry = &class_table[note->class];
    note->state = SLAB_UNLISTED;
    note->next = note->previous = 0;
    if (heap->kind != HEAP_LIVE) { /* O1; whether it is still there is found out by orphans_settle() */
        orphan_list(heap, note, &heap->left, SLAB_LEFT);
        return;
    }
    if (!note_matches(note)) {
        atomic_store_explicit(&note->owner, 0, memory_order_relaxed);
        return;
    }
    slab_harvest(note->descriptor, geometry);
    if (slab_is_empty(note->descriptor, geometry)) {
        slab_remove(heap, note);
        return;
    }
    atomic_store(&note->descriptor->owner, 0);
    if (slab_has_free(note->descriptor, geometry))
        orphan_list(heap, note, &heap->orphans[note->class], SLAB_ORPHAN);
    else
        atomic_store_explicit(&note->owner, 0, memory_order_release);
}

void slab_give_back(struct heap *heap, struct owner *owner)
{
    gate_enter(heap);
    for (unsigned class = 0; class < CLASS_COUNT; class ++) {
        struct bin *bin = &owner->bins[class];
        if (bin->current != 0)
            slab_orphan(heap, note_at(heap, bin->current));
        bin_clear(bin);
        bin_forget_hints(bin);
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
    heap->left = (struct slab_list){0, 0};
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
                slab_harvest(run.descriptor, geometry);
            if (!slab_is_empty(run.descriptor, geometry))
                continue;
            note_unlist_orphan(heap, note);
            extent_remove(heap, &run);
        }
    }
    extent_lower_top(heap);
    gate_leave(heap);
}
