/*
 * state.h -- the volatile side of a heap, shared by the files of alloc/: what this process believes and owns.
 * None of it is ever written into the image, and all of it can be dropped at any time (heap_reload).
 */
#ifndef STEAD_ALLOC_STATE_H
#define STEAD_ALLOC_STATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "alloc/classes.h"
#include "alloc/guard.h"
#include "alloc/layout.h"
#include "base/error.h"

#define LIKELY(condition) __builtin_expect(!!(condition), 1)
#define UNLIKELY(condition) __builtin_expect(!!(condition), 0)

/* In which list of its owner a slab is. */
enum slab_state {
    SLAB_UNLISTED = 0,
    SLAB_CURRENT, /* the bin hands out its blocks                                      */
    SLAB_PARTIAL, /* has free blocks                                                   */
    SLAB_FULL,    /* had none when last looked at; others may have freed some since    */
    SLAB_ORPHAN,  /* nobody's, in heap->orphans                                        */
    SLAB_LEFT     /* nobody's, in heap->left                                           */
};

/* What this process knows about the slab that starts in a slot.  `owner` equal to a thread's token means: that thread
 * owns the slab, all other fields are true, and what follows `class` is that thread's alone.  Two lines each, of which one is
 * used: two threads' slabs lie side by side, every free counts, and processors fetch lines in pairs. */
struct note {
    _Alignas(128) _Atomic uint32_t owner; /* token, 0 = none                                              */
    uint32_t inverse;                     /* of the class: see class_table                                */
    uint64_t head;                        /* as it must stand in the descriptor                           */
    struct descriptor *descriptor;
    uint16_t capacity; /* blocks                                                       */
    uint16_t bytes;    /* of a block                                                   */
    uint8_t class;
    uint8_t state;           /* enum slab_state                                              */
    uint16_t used;           /* set bits of `allocated`, and what the bin holds in free_bits */
    uint16_t hint_from;      /* with as many used, a block freed is worth a hint              */
    uint16_t look_at;        /* with as few used, slab_after_free() wants to know             */
    struct bin *bin;         /* of the owner, for the class                                  */
    uint32_t next, previous; /* slots; 0 = none                                              */
};
static_assert(sizeof(struct note) == 128, "a note a pair of cache lines");

struct slab_list {
    uint32_t first, last; /* slots; 0 = none */
};

/* A block that its owner freed lately: its bytes are in the cache.  The image says that it is free, to this
 * process and to all others: a hint only saves looking for it, and all of it that malloc asks for.  None is stale: slab.c. */
struct hint {
    void *block;
    struct map_pair *pair; /* of the block's bit                                                    */
    uintptr_t place;       /* address of the slab's note, a multiple of 128, | the bit's number in its word */
};
#define BIN_HINTS 64u
#define HINT_BIT_MASK 63u

static inline struct note *hint_note(const struct hint *hint)
{
    return (struct note *)(hint->place & ~(uintptr_t)HINT_BIT_MASK);
}

/*
 * Where a thread takes blocks of one class from: the hints, newest first; then one word of the current slab's
 * `allocated`.
 * free_bits are zero bits of that word when it was looked at; since then only this thread could have set any, and it
 * takes them out here too.  Bits that became free since are seen when the word is looked at again.
 */
struct bin {
    uint64_t free_bits;    /* 0 = look for another word                          */
    uint8_t *next;         /* the block of the lowest of free_bits               */
    struct map_pair *pair; /* never NULL                                         */
    uint8_t *block0;       /* the block of bit 0                                 */
    uint32_t block_bytes;
    uint32_t current;       /* slot of the current slab, 0 = none                 */
    struct hint *hints_end; /* behind the newest of `hints`                       */
    struct slab_list partial, full;
    struct hint hints[1 + BIN_HINTS + 1]; /* [0].block is NULL; then the hints, oldest first; room for one too many */
};

static inline unsigned bin_hint_count(const struct bin *bin)
{
    return (unsigned)(bin->hints_end - bin->hints) - 1;
}

static inline void bin_forget_hints(struct bin *bin)
{
    bin->hints_end = bin->hints + 1;
}

/*
 * One thread's part of one heap.  What the public calls compare comes first, in one line: the handle that malloc was given,
 * or the pointer that free was given, and the slab's token; nothing else is asked.  owner.c says who writes it when.
 */
struct owner {
    const void *_Atomic handle; /* heap_host.handle; owner_nobody: no call may rely on this owner (any more)   */
    uint8_t *base;              /* of the heap                                                               */
    _Atomic uint64_t span;      /* bytes from base in which free need ask for nothing but the note; 0: nowhere */
    struct note *notes;         /* of the heap                                                               */
    uint32_t token;             /* unique among all owners this heap ever had in this process                */
    uint64_t serial;
    struct heap *heap; /* NULL: the heap is gone.  Under registry lock                     */
    struct owner *next_of_heap, *previous_of_heap; /* registry lock                      */
    struct owner *next_of_thread;
    struct bin *by_8[CLASS_SMALL_MAX / 8 + 1]; /* the bin for (bytes + 7) / 8 */
    struct bin bins[CLASS_COUNT];
};

/* The owner this thread used last, and some others it used lately. */
#define OWNER_TLS_SLOTS 16u
struct owner_tls {
    uint64_t serial;     /* of the heap the owner belongs to; serials are never used twice */
    struct owner *owner; /* owner_last's is never NULL                                     */
};
extern _Thread_local struct owner_tls owner_last;
extern struct owner owner_nobody; /* before a thread's first one, and after its last: knows no handle and no address */

struct heap {
    /* read by every call */
    uint8_t *base;
    _Atomic uint64_t limit;  /* bytes readable from base                                     */
    _Atomic uint64_t serial; /* process-wide unique; a new one drops every belief at once    */
    unsigned tls_index;
    enum heap_kind kind;
    struct note *notes; /* one a slot of the capacity                                   */
    uint64_t secret;
    struct header *header0;
    bool guards; /* poison free blocks                                           */
    bool forked; /* this is a child's copy                                       */

    uint64_t capacity;
    struct heap_host host;
    uint64_t notes_bytes;
    _Atomic uint64_t bad_frees;

    pthread_mutex_t mutex;        /* everything below, and every word of the image but map and pending */
    bool damaged;                 /* a check failed under the mutex: nothing more is carved           */
    uint32_t token_next;          /* next owner's                                                     */
    _Atomic uint32_t token_floor; /* tokens below are of a former serial; this one stands in the notes of slabs in
                                     `orphans`, `left`                                                 */
    _Atomic uint64_t fresh_bytes; /* SOLE, TURNS: zero from here on (LIVE: in the root)          */
    uint32_t slot_floor;          /* no segment below has a free slot                                 */
    uint32_t orphans_scanned;     /* segments below were searched for orphans                        */
    uint32_t orphanings_seen;
    uint64_t rescan_top; /* LIVE: search again for slabs of the dead above this top_pages    */
    struct slab_list orphans[CLASS_COUNT];
    struct slab_list left; /* SOLE, TURNS: of threads that ended; not looked at since              */

    struct owner *owners;         /* registry lock */
    struct heap *next, *previous; /* registry lock */
};

static inline struct heap_root *root_of(const struct heap *heap)
{
    return &heap->header0->root;
}

static inline uint32_t segments_of(const struct heap *heap)
{
    uint32_t segments = atomic_load_explicit(&root_of(heap)->segments, memory_order_acquire);
    uint64_t fit = (heap->capacity + SEGMENT_BYTES - 1) >> SEGMENT_SHIFT;
    return (uint64_t)segments <= fit ? segments : (uint32_t)fit; /* the image may be damaged */
}

static inline _Atomic uint64_t *fresh_of(struct heap *heap)
{
    return heap->kind == HEAP_LIVE ? &root_of(heap)->fresh_bytes : &heap->fresh_bytes;
}

/* Is owner_last.owner the calling thread's of this heap?  If not: owner_get(). */
static inline bool owner_is_cached(const struct heap *heap)
{
    return LIKELY(owner_last.serial == atomic_load_explicit(&heap->serial, memory_order_relaxed));
}

static inline struct owner *owner_cached(const struct heap *heap)
{
    return owner_is_cached(heap) ? owner_last.owner : NULL;
}

/* Does a thread of this process own the slab?  Exact under the gate. */
static inline bool note_is_owned(const struct heap *heap, const struct note *note)
{
    /* The floor is the orphans' token: the first one of a serial, so every owner's lies above. */
    return atomic_load_explicit(&note->owner, memory_order_relaxed) >
           atomic_load_explicit(&heap->token_floor, memory_order_relaxed);
}

#endif
