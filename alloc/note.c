/*
 * note.c -- the note of a slab, and the owner's bookkeeping with it.
 *
 * A note is this process's own memory: one a slot, found by the slot's number.  It repeats what was proved about the
 * slab once (class, place, head), so that the fast paths need not prove it again but for one comparison; and says who
 * owns the slab, in which list of the owner's it is, and how many bits of `allocated` the owner has set: whoever
 * takes a slab up again compares that with the bits (slab_prove).
 *
 * Who writes what: `owner` and what note_fill() fills under the gate, while nobody owns the slab; the rest by the
 * owner alone.  Another thread that frees a block may read the filled part without the gate: it holds a live block in
 * the slab, so nothing of it changes meanwhile.
 */
#include "alloc/note.h"

#include "alloc/gate.h"

void list_remove(struct heap *heap, struct slab_list *list, struct note *note)
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

void list_append(struct heap *heap, struct slab_list *list, struct note *note, enum slab_state state)
{
    uint32_t slot = slab_slot(heap, note);
    note->next = 0;
    note->previous = list->last;
    if (list->last != 0)
        note_at(heap, list->last)->next = slot;
    else
        list->first = slot;
    list->last = slot;
    note->state = (uint8_t)state;
    note->hint_from = (uint16_t)(note->capacity - note->capacity / NOTE_SPARSE_PART - 1);
    note->look_at = state == SLAB_FULL ? (uint16_t)(note->hint_from - 1) : 0;
}

/* Moves what others freed into `allocated`; returns how many blocks that were. */
unsigned slab_harvest(struct descriptor *descriptor, const struct class_geometry *geometry)
{
    unsigned blocks = 0;
    (void)atomic_exchange(&descriptor->pending, 0); /* before looking: a bit set later sets it again */
    for (unsigned i = 0; i < slab_pairs(geometry); i++) {
        struct map_pair *pair = &descriptor->map[i];
        uint64_t freed = atomic_load(&pair->freed);
        if (freed == 0)
            continue;
        uint64_t allocated = atomic_load_explicit(&pair->allocated, memory_order_relaxed);
        blocks += (unsigned)__builtin_popcountll(allocated & freed & slab_valid_bits(geometry, i));
        GATE_STEP();
        atomic_store_explicit(&pair->allocated, allocated & ~(freed & slab_valid_bits(geometry, i)),
                              memory_order_relaxed);
        GATE_STEP();
        atomic_fetch_and_explicit(&pair->freed, ~freed, memory_order_acq_rel);
    }
    return blocks;
}

unsigned slab_count(const struct descriptor *descriptor, const struct class_geometry *geometry)
{
    unsigned used = 0;
    for (unsigned i = 0; i < slab_pairs(geometry); i++)
        used +=
            (unsigned)__builtin_popcountll(atomic_load_explicit(&descriptor->map[i].allocated, memory_order_relaxed));
    return used;
}

bool slab_is_empty(const struct descriptor *descriptor, const struct class_geometry *geometry)
{
    for (unsigned i = 0; i < slab_pairs(geometry); i++)
        if (atomic_load_explicit(&descriptor->map[i].allocated, memory_order_relaxed) != 0)
            return false;
    return true;
}

bool slab_has_free(const struct descriptor *descriptor, const struct class_geometry *geometry)
{
    for (unsigned i = 0; i < slab_pairs(geometry); i++)
        if ((~(atomic_load_explicit(&descriptor->map[i].allocated, memory_order_relaxed) &
               ~atomic_load_explicit(&descriptor->map[i].freed, memory_order_relaxed)) &
             slab_valid_bits(geometry, i)) != 0)
            return true;
    return false;
}

/* LIVE: the note may still stand for a slab that another process took or removed. */
void note_unlist_orphan(struct heap *heap, struct note *note)
{
    bool listed = note->state == SLAB_ORPHAN || note->state == SLAB_LEFT;
    if (listed && atomic_load(&note->owner) == atomic_load(&heap->token_floor)) {
        list_remove(heap, note->state == SLAB_LEFT ? &heap->left : &heap->orphans[note->class], note);
        atomic_store_explicit(&note->owner, 0, memory_order_relaxed);
    }
}

void note_fill(struct note *note, const struct run *run)
{
    const struct class_geometry *geometry = &class_table[head_class(run->head)];
    if (note->head == run->head && note->descriptor == run->descriptor)
        return; /* known already: a thread that frees a block in it may be reading (free_remote) */
    note->class = (uint8_t)head_class(run->head);
    note->inverse = geometry->inverse;
    note->capacity = (uint16_t)geometry->capacity;
    note->bytes = (uint16_t)geometry->bytes;
    note->head = run->head;
    note->descriptor = run->descriptor;
}

/* The note of a slab that the caller now owns; under the gate. */
struct note *note_take(struct heap *heap, struct owner *owner, const struct run *run)
{
    struct note *note = note_at(heap, run->slot);
    note_unlist_orphan(heap, note);
    note_fill(note, run);
    note->next = note->previous = 0;
    note->state = SLAB_UNLISTED;
    note->bin = &owner->bins[note->class];
    note->used = (uint16_t)slab_count(run->descriptor, &class_table[note->class]);
    atomic_store_explicit(&note->owner, owner->token, memory_order_release);
    return note;
}

void note_harvest(struct note *note)
{
    note->used = (uint16_t)(note->used - slab_harvest(note->descriptor, &class_table[note->class]));
}
