/*
 * layout.h -- every byte of the heap's saved state.  A change here is a format change (docs/format.md).
 *
 * The image is cut into segments of 4 MiB, a segment into 128 slots of 32 KiB, a slot into 8 pages.
 *
 *   segment:  | header unit (64 KiB) | slot 2 | slot 3 | ...                                   | slot 127 |
 *                 |
 *                 +-- [0, 4096)      not used: a guard before the header; in segment 0 it belongs to store/
 *                     struct segment         which pages are busy
 *                     struct heap_root       segment 0 only
 *                     table                  group leaders only: one entry a segment
 *                     126 descriptors        one for every slot that is not the header's
 *
 * What blocks cannot reach, an overrun cannot break: nothing of this lies between blocks, free never reads the block's
 * own memory, and a commit after many small changes finds them on few pages.
 *
 * A *run* is a number of consecutive pages that belong together: a slab (1, 2 or 4 whole slots cut into blocks of one
 * class), an extent (one block; starts at any page, at least 9 pages long, hence at most one run starts in a slot), or
 * a table.  Its descriptor is that of the slot where it starts.  The descriptor's `head` is the truth: one store makes
 * a run exist or not exist.  All else (busy bits, marks in the slots a run continues in, hints in the table) follows
 * from the heads and can be rebuilt from them; see extent.c.
 *
 * An extent longer than a segment continues over the header units of the segments behind it.  Those in the middle are
 * SWALLOWED; the last one gets its header in the first whole unit after the extent's end.
 *
 * Entries of the table: segment s < 1024 in segment 0; any other in the table of its group's leader, the segment whose
 * number is the largest power of two <= s.  Leaders are never swallowed, so every entry is two loads away and opening
 * reads one page however large the heap is.
 */
#ifndef STEAD_ALLOC_LAYOUT_H
#define STEAD_ALLOC_LAYOUT_H

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "alloc/heap.h"
#include "base/units.h"

#define SEGMENT_SHIFT 22
#define SLOT_SHIFT 15
#define PAGE_SHIFT 12
#define SEGMENT_BYTES (UINT64_C(1) << SEGMENT_SHIFT)
#define SLOT_BYTES (UINT64_C(1) << SLOT_SHIFT)
#define SLOT_PAGES 8u
#define SEGMENT_SLOTS 128u
#define SEGMENT_PAGES 1024u
#define UNIT_PAGES 16u
#define DESCRIPTORS 126u
#define MAP_PAIRS 26u
#define EXTENT_PAGES_MIN 9u
#define RUN_PAGES_MAX 1008u /* of a run inside one segment */

#define GROUP0_SEGMENTS 1024u
#define SEGMENTS_MAX (UINT32_C(1) << 20) /* 4 TiB: the last leader's table still fits into its segment */

#define ROOT_MAGIC UINT64_C(0x70616568647473ff)
#define ROOT_VERSION 1u

/* 64 blocks of a slab.  Live = allocated & ~freed.  `allocated` is written by the slab's owner alone, with plain
 * stores; anybody else frees by setting a bit of `freed` atomically, and the owner later clears both. */
struct map_pair {
    _Atomic uint64_t allocated; /* bits from the slab's capacity on are always 0 */
    _Atomic uint64_t freed;
};

struct descriptor {
    _Atomic uint64_t head;    /* see enum run_kind; 0 = no run starts here                                    */
    _Atomic uint64_t owner;   /* slabs of a LIVE heap: session << 32 | attachment id; 0 = nobody's            */
    _Atomic uint32_t pending; /* 1: some bit of `freed` was set since the owner last looked (a hint)          */
    uint32_t reserved0;
    uint64_t reserved1;
    struct map_pair map[MAP_PAIRS];
};
static_assert(sizeof(struct descriptor) == 448, "format v1");

/*
 * head:  bits 0-2 kind | 3-9 class | 10-12 first page within the slot | 13-46 pages (TAIL: slots back to the head)
 *        | 47 zero | 48-63 check over the rest, the slot's number and the heap's secret
 */
enum run_kind { RUN_NONE = 0, RUN_SLAB = 1, RUN_EXTENT = 2, RUN_TABLE = 3, RUN_TAIL = 4 };

struct segment {
    uint64_t seal;          /* from the secret, the segment's number and the header's place              */
    uint32_t covered_pages; /* at the segment's start, by an extent that began in an earlier segment     */
    uint32_t reserved0;
    uint64_t reserved1[14];
    uint64_t busy[16]; /* a bit a page: 1 = part of a run or of the header                          */
};
static_assert(sizeof(struct segment) == 256, "format v1");

struct heap_root {
    uint64_t magic;
    uint32_t version;
    uint32_t reserved0;
    uint64_t secret;           /* random: checks cannot be forged by whoever does not read the image     */
    uint64_t check;            /* of the three above                                                     */
    _Atomic uint32_t segments; /* 0..segments-1 have a valid table entry                                 */
    uint32_t reserved1;
    _Atomic uint64_t top_pages; /* no run ends beyond this page                                           */
    uint8_t reserved2[16];
    /* LIVE */
    _Atomic uint32_t holder;      /* attachment id that holds the heap's lock, 0 = free                     */
    _Atomic uint32_t waiters;     /* somebody may sleep on `holder`                                         */
    _Atomic uint32_t session;     /* of attachments; marks of older ones are stale                          */
    _Atomic uint32_t orphanings;  /* how often slabs were given back                                        */
    uint64_t intent_page;         /* the run being made or removed by the holder                            */
    uint64_t intent_pages;        /* 0 = none                                                               */
    _Atomic uint64_t fresh_bytes; /* from here on nothing was ever handed out                              */
    uint8_t reserved3[536];
};
static_assert(sizeof(struct heap_root) == 640, "format v1");

/* table entry: bits 0-1 kind | 2-7 unit of the header | 8-18 longest free gap in pages, or more | 19 has a free slot,
 * or seems to.  The gap counts pages that the file does not have yet. */
enum segment_kind { SEGMENT_INVALID = 0, SEGMENT_PRESENT = 1, SEGMENT_SWALLOWED = 2, SEGMENT_VOID = 3 };
#define ENTRY_GAP_SHIFT 8
#define ENTRY_HEADER_SHIFT 2
#define ENTRY_HAS_SLOT (UINT32_C(1) << 19)
#define ENTRY_BITS ((UINT32_C(1) << 20) - 1)

struct header { /* at byte 4096 of the header unit */
    struct segment segment;
    struct heap_root root;                      /* segment 0 */
    _Atomic uint32_t table[GROUP0_SEGMENTS];    /* segment 0 and segment 1024 */
    struct descriptor descriptors[DESCRIPTORS]; /* of slot n: [n] before the header, [n - 2] behind it */
};
static_assert(sizeof(struct header) == UNIT_BYTES - HEAP_RESERVED_BYTES, "format v1");
static_assert(offsetof(struct header, table) == 896, "format v1");
static_assert(offsetof(struct header, descriptors) == 4992, "format v1");

static inline unsigned head_kind(uint64_t head)
{
    return (unsigned)(head & 7);
}

static inline unsigned head_class(uint64_t head)
{
    return (unsigned)(head >> 3 & 127);
}

static inline unsigned head_first_page(uint64_t head)
{
    return (unsigned)(head >> 10 & 7);
}

static inline uint64_t head_pages(uint64_t head)
{
    return head >> 13 & ((UINT64_C(1) << 34) - 1);
}

/* Mixes all bits of n into all bits of the result. */
static inline uint64_t layout_mix(uint64_t n)
{
    n = (n ^ n >> 32) * UINT64_C(0x9fb21c651e98df25);
    n = (n ^ n >> 29) * UINT64_C(0xd6e8feb86659fd93);
    return n ^ n >> 32;
}

#define HEAD_CHECKED_BITS ((UINT64_C(1) << 48) - 1)

static inline uint64_t head_seal(uint64_t secret, uint64_t slot, uint64_t bits)
{
    return bits | layout_mix(secret ^ (slot << 48 | slot >> 16) ^ bits) << 48;
}

static inline uint64_t head_make(uint64_t secret, uint64_t slot, enum run_kind kind, unsigned class,
                                 unsigned first_page, uint64_t pages)
{
    return head_seal(secret, slot, (uint64_t)kind | (uint64_t) class << 3 | (uint64_t)first_page << 10 | pages << 13);
}

/* Is this what somebody who knew the secret wrote for this slot? */
static inline bool head_is_sealed(uint64_t secret, uint64_t slot, uint64_t head)
{
    return head_seal(secret, slot, head & HEAD_CHECKED_BITS) == head;
}

static inline uint64_t segment_seal(uint64_t secret, uint64_t segment, unsigned header_unit)
{
    return layout_mix(secret + layout_mix(segment << 8 | header_unit | UINT64_C(1) << 63));
}

static inline uint64_t root_check(uint64_t secret)
{
    return layout_mix(secret ^ ROOT_MAGIC ^ ROOT_VERSION);
}

static inline uint32_t entry_make(enum segment_kind kind, unsigned header_unit, unsigned gap_pages, bool has_slot)
{
    return (uint32_t)kind | header_unit << ENTRY_HEADER_SHIFT | gap_pages << ENTRY_GAP_SHIFT |
           (has_slot ? ENTRY_HAS_SLOT : 0);
}

static inline enum segment_kind entry_kind(uint32_t entry)
{
    return (enum segment_kind)(entry & 3);
}

static inline unsigned entry_header_unit(uint32_t entry)
{
    return entry >> ENTRY_HEADER_SHIFT & 63;
}

static inline unsigned entry_gap(uint32_t entry)
{
    return entry >> ENTRY_GAP_SHIFT & 2047;
}

static inline uint32_t leader_of(uint32_t segment)
{
    return segment < GROUP0_SEGMENTS ? 0 : UINT32_C(1) << (31 - __builtin_clz(segment));
}

static inline bool is_leader(uint32_t segment)
{
    return segment == leader_of(segment);
}

/* Slots that a leader's table takes right behind its header; 0 if it fits into the header. */
static inline unsigned table_slots(uint32_t leader)
{
    return leader <= GROUP0_SEGMENTS ? 0 : (unsigned)(((uint64_t)leader * 4 + SLOT_BYTES - 1) >> SLOT_SHIFT);
}

/* Image offset of the table entry of a segment. */
static inline uint64_t entry_offset(uint32_t segment)
{
    uint32_t leader = leader_of(segment);
    uint64_t start = (uint64_t)leader << SEGMENT_SHIFT;
    uint64_t table = leader <= GROUP0_SEGMENTS ? HEAP_RESERVED_BYTES + offsetof(struct header, table) : UNIT_BYTES;
    return start + table + (uint64_t)(segment - leader) * sizeof(uint32_t);
}

/* Image offset of the struct header of a segment whose header lies in this unit. */
static inline uint64_t header_offset(uint32_t segment, unsigned header_unit)
{
    return ((uint64_t)segment << SEGMENT_SHIFT) + (uint64_t)header_unit * UNIT_BYTES + HEAP_RESERVED_BYTES;
}

/* Index of the descriptor of a slot (0..127 within the segment); DESCRIPTORS if the slot is the header's own. */
static inline unsigned descriptor_index(unsigned slot, unsigned header_unit)
{
    if (slot < 2 * header_unit)
        return slot;
    return slot < 2 * header_unit + 2 ? DESCRIPTORS : slot - 2;
}

#endif
