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
 * Slabs of an owner are in one of its bin's lists: current (the bin hands out its blocks, a word of `allocated` at a
 * time), full (had no free block when last looked at), partial (the others).  The next current one is the fullest of
 * a few partial ones, so that what is free gathers in a few slabs, which become empty and go.
 *
 * Hints: a block freed in a slab that is current or nearly full leaves a hint in the bin, and the newest hint is what the
 * next malloc of the class takes: its lines are still in the cache.  A hint is nothing but where to look: the bit in the
 * image is free in every commit.  When a bin has too many, the older half goes.  Sparse slabs give no hints:
 * they are to drain.
 *   A full slab becomes partial when it becomes sparse, or with the first of its hints that goes unused; so every block
 *   its owner freed in a full slab has a hint.  What others freed, `pending` announces, and the owner looks at a few full
 *   slabs, in rotation, whenever it needs another one.
 *   A hint's slab is the owner's (bin_drop_hints before it goes).  Its block is free and nobody else's to hand out: who frees
 *   it finds the bit set and there is no hint for it then; the other way to be handed out is the word that the bin holds in
 *   free_bits, and taking up a word drops the hints for its blocks (bin_drop_hints_of).  So every hint is taken unlooked at.
 *
 *   Many hints cost no room (borrowing takes them, too): with 64 a bin instead of 16, a churn leaves the fast paths a quarter
 * less often and has 0.10 mispredicted branches an operation instead of 0.37 (by simulation).
 *
 * Borrowing: a class whose slabs are all full takes a block of the nearest wider class that has one to spare, hinted or in a
 * slab with room, up to half as wide again, before a slab is made for it.  The numbers of live blocks of the classes rise
 * and fall one by one;
 * without this each class keeps the room for its own highest number (measured: what is free in slabs falls by 2 to 3 % of
 * what is live in a churn, and what is lost inside blocks rises by 0.1 %).  The block is the wider class's in all respects.
 *
 * Nobody's slabs: orphan.c.
 *
 * Invariants: A8 bits behind the capacity are 0 in `allocated` and `freed`; pairs behind it are not looked at.
 */
#include "alloc/slab.h"

#include <errno.h>
#include <string.h>

#include "alloc/extent.h"
#include "alloc/gate.h"
#include "alloc/orphan.h"

#define FULL_LOOKS 8u     /* full slabs looked at for others' frees, a refill    */
#define PARTIAL_LOOKS 8u  /* partial slabs from which a refill takes the fullest */
#define BORROW_CLASSES 8u /* wider classes that are asked for a block             */

struct map_pair slab_no_pair;

void slab_remove(struct heap *heap, struct note *note)
{
    struct run run;
    uint32_t slot = slab_slot(heap, note);
    note->state = SLAB_UNLISTED;
    atomic_store_explicit(&note->owner, 0, memory_order_relaxed);
    if (segment_run_at(heap, slot, &run) == 0 && run.head == note->head)
        extent_remove(heap, &run);
}

void bin_clear(struct bin *bin)
{
    bin->pair = &slab_no_pair;
    bin->free_bits = 0;
    bin->current = 0;
}

/* The bin takes the free blocks of a word as they are: hints for them say the same and go. */
static void bin_drop_hints_of(struct bin *bin, const struct map_pair *pair)
{
    struct hint *kept = bin->hints + 1;
    for (const struct hint *hint = bin->hints + 1; hint < bin->hints_end; hint++)
        if (hint->pair != pair)
            *kept++ = *hint;
    bin->hints_end = kept;
}

/* Lets the bin hand out a word of the slab with a free block: first the one it has, then the others in turn. */
static bool bin_advance(struct heap *heap, struct bin *bin, struct note *note)
{
    const struct class_geometry *geometry = &class_table[note->class];
    struct descriptor *descriptor = note->descriptor;
    unsigned pairs = slab_pairs(geometry), at = 0;
    if (bin->pair >= descriptor->map && bin->pair < descriptor->map + pairs)
        at = (unsigned)(bin->pair - descriptor->map);
    for (unsigned n = 0; n < pairs; n++, at = at + 1 == pairs ? 0 : at + 1) {
        uint64_t free_bits =
            ~atomic_load_explicit(&descriptor->map[at].allocated, memory_order_relaxed) & slab_valid_bits(geometry, at);
        if (free_bits == 0)
            continue;
        bin_drop_hints_of(bin, &descriptor->map[at]);
        bin->free_bits = free_bits;
        note->used = (uint16_t)(note->used + (unsigned)__builtin_popcountll(free_bits));
        bin->pair = &descriptor->map[at];
        bin->block_bytes = geometry->bytes;
        bin->block0 =
            heap->base + ((uint64_t)slab_slot(heap, note) << SLOT_SHIFT) + (uint64_t)at * 64 * geometry->bytes;
        bin->next = bin->block0 + (uint64_t)(unsigned)__builtin_ctzll(free_bits) * geometry->bytes;
        return true;
    }
    return false;
}

/* The slab is going to be removed. */
static void bin_drop_hints(struct bin *bin, const struct note *note)
{
    struct hint *kept = bin->hints + 1;
    for (const struct hint *hint = bin->hints + 1; hint < bin->hints_end; hint++)
        if (hint_note(hint) != note)
            *kept++ = *hint;
    bin->hints_end = kept;
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
    run.descriptor->reserved0 = 0;
    run.descriptor->reserved1 = 0;
    atomic_store_explicit(&run.descriptor->owner, heap->kind == HEAP_LIVE ? owner_mark(heap) : 0, memory_order_relaxed);
    extent_publish(heap, &run);
    if (heap->guards)
        GUARD_HIDE(heap->base + (run.page << PAGE_SHIFT), run.pages << PAGE_SHIFT);
    *note = note_take(heap, owner, &run);
    return 0;
}

/* The fullest of the first partial slabs: what is free gathers in a few, which become empty and go, instead of being a
 * little everywhere. */
static struct note *partial_take(struct heap *heap, struct bin *bin)
{
    struct note *best = NULL;
    uint32_t slot = bin->partial.first;
    for (unsigned looks = 0; slot != 0 && looks < PARTIAL_LOOKS; looks++) {
        struct note *note = note_at(heap, slot);
        slot = note->next;
        if (note->used >= note->capacity) { /* by hints */
            list_remove(heap, &bin->partial, note);
            list_append(heap, &bin->full, note, SLAB_FULL);
        } else if (best == NULL || note->used > best->used) {
            best = note;
        }
    }
    if (best != NULL)
        list_remove(heap, &bin->partial, best);
    return best;
}

/* A full slab in which others have freed meanwhile, or NULL. */
static struct note *full_next(struct heap *heap, struct bin *bin)
{
    for (unsigned looks = 0; looks < FULL_LOOKS && bin->full.first != 0; looks++) {
        struct note *note = note_at(heap, bin->full.first);
        list_remove(heap, &bin->full, note);
        if (!note_matches(note))
            continue;
        if (atomic_load_explicit(&note->descriptor->pending, memory_order_relaxed) != 0) {
            note_harvest(note);
            if (note->used < note->capacity)
                return note;
        }
        list_append(heap, &bin->full, note, SLAB_FULL);
    }
    return NULL;
}

static int slab_damaged(struct heap *heap, const struct note *note)
{
    gate_enter(heap);
    heap->damaged = true;
    gate_leave(heap);
    return error_set(STEAD_CORRUPT,
                     "The heap is damaged: the descriptor of the slab at offset 0x%llx is not what was written there",
                     (unsigned long long)slab_slot(heap, note) << SLOT_SHIFT);
}

/* Before a slab is used again: does it still say what its owner, who alone writes `allocated`, left there? */
static int slab_prove(struct heap *heap, const struct note *note)
{
    if (note_matches(note) && slab_count(note->descriptor, &class_table[note->class]) == note->used)
        return 0;
    return slab_damaged(heap, note);
}

/* Another word of the bin's slab.  False: it has none, and is not the bin's any more. */
static bool refill_from_current(struct heap *heap, struct bin *bin)
{
    struct note *note = note_at(heap, bin->current);
    if (bin_advance(heap, bin, note))
        return true;
    if (atomic_load_explicit(&note->descriptor->pending, memory_order_relaxed) != 0) {
        note_harvest(note);
        if (bin_advance(heap, bin, note))
            return true;
    }
    bin_clear(bin);
    list_append(heap, &bin->full, note, SLAB_FULL);
    return false;
}

/* Makes a slab the bin's current one; false: it has no free block after all. */
static int slab_open(struct heap *heap, struct bin *bin, struct note *note, bool *ready)
{
    int rc = slab_prove(heap, note);
    if (rc != 0)
        return rc;
    note->state = SLAB_CURRENT;
    note->hint_from = 0;
    note->look_at = 0;
    bin->current = slab_slot(heap, note);
    *ready = refill_from_current(heap, bin);
    return 0;
}

/* A word of the current slab, or of a partial one. */
static int refill_from_own(struct heap *heap, struct bin *bin, bool *ready)
{
    int rc = 0;
    *ready = false;
    if (bin->current != 0 && !note_matches(note_at(heap, bin->current)))
        return slab_damaged(heap, note_at(heap, bin->current));
    if (bin->current != 0)
        *ready = refill_from_current(heap, bin);
    while (rc == 0 && !*ready && bin->partial.first != 0) {
        struct note *note = partial_take(heap, bin);
        if (note != NULL)
            rc = slab_open(heap, bin, note, ready);
    }
    return rc;
}

/* The nearest wider class with a partial slab gets a block ready. */
static int refill_wider(struct heap *heap, struct owner *owner, unsigned *class, bool *ready)
{
    int rc = 0;
    uint32_t widest = class_table[*class].bytes + class_table[*class].bytes / 2;
    for (unsigned wide = *class + 1; rc == 0 && wide <= *class + BORROW_CLASSES; wide++) {
        if (wide >= CLASS_COUNT || class_table[wide].bytes > widest)
            break;
        struct bin *bin = &owner->bins[wide];
        if ((bin->partial.first == 0 && bin_hint_count(bin) == 0) ||
            class_table[wide].bytes % 16 > class_table[*class].bytes % 16)
            continue; /* none, or none aligned to 16 as the class's own are */
        *ready = bin_hint_count(bin) != 0 || bin->free_bits != 0;
        if (!*ready)
            rc = refill_from_own(heap, bin, ready);
        if (rc == 0 && *ready) {
            *class = wide;
            return 0;
        }
    }
    return rc;
}

int slab_refill(struct heap *heap, struct owner *owner, unsigned *class, bool may_borrow)
{
    bool ready;
    struct bin *bin = &owner->bins[*class];
    int rc = refill_from_own(heap, bin, &ready);
    if (rc == 0 && !ready && may_borrow)
        rc = refill_wider(heap, owner, class, &ready);
    while (rc == 0 && !ready) {
        struct note *note = full_next(heap, bin);
        if (note == NULL) {
            gate_enter(heap);
            note = orphan_take(heap, owner, *class);
            if (note == NULL)
                rc = slab_make(heap, owner, *class, &note);
            gate_leave(heap);
        }
        if (rc == 0)
            rc = slab_open(heap, bin, note, &ready);
    }
    return rc;
}

static void slab_relist(struct heap *heap, struct bin *bin, struct note *note)
{
    if (note->state != SLAB_FULL)
        return;
    list_remove(heap, &bin->full, note);
    list_append(heap, &bin->partial, note, SLAB_PARTIAL);
}

/* The older half of the hints, of one too many, become ordinary free blocks of partial slabs. */
void slab_after_hint(struct heap *heap, struct bin *bin)
{
    struct hint *first = bin->hints + 1, *kept = first + BIN_HINTS / 2;
    for (const struct hint *hint = first; hint < kept; hint++)
        slab_relist(heap, bin, hint_note(hint));
    memmove(first, kept, (size_t)(bin->hints_end - kept) * sizeof *kept);
    bin->hints_end -= BIN_HINTS / 2;
}

void slab_after_free(struct heap *heap, struct note *note)
{
    struct bin *bin = note->bin;
    uint32_t slot = slab_slot(heap, note);
    int saved_errno = errno;
    if (note->used != 0) {
        slab_relist(heap, bin, note); /* it became sparse */
    } else if (note->state == SLAB_FULL || note->state == SLAB_PARTIAL) {
        slab_relist(heap, bin, note);
        if (bin->partial.first == slot && bin->partial.last == slot)
            return; /* the only spare one: it will soon be wanted again */
        if (!slab_is_empty(note->descriptor, &class_table[note->class]))
            return; /* damage: slab_prove() will say so */
        bin_drop_hints(bin, note);
        list_remove(heap, &bin->partial, note);
        gate_enter(heap);
        slab_remove(heap, note);
        gate_leave(heap);
    }
    errno = saved_errno;
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
                slab_list_owned(heap, owner, taken);
        }
        gate_leave(heap);
        if (rc != 0 || again.head != run->head)
            return rc != 0 ? rc : STEAD_WRONG_POINTER;
    }
    if (owner != NULL && atomic_load_explicit(&note->owner, memory_order_acquire) == owner->token)
        return slab_free_own(owner, note, heap->base + (run->slot << SLOT_SHIFT) + (uint64_t)index * note->bytes,
                             (uint64_t)index << 32);
    uint32_t bytes = class_table[head_class(run->head)].bytes;
    return slab_free_bit(heap, run->descriptor, heap->base + (run->slot << SLOT_SHIFT) + (uint64_t)index * bytes, bytes,
                         index);
}
