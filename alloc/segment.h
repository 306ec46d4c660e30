/* segment.h -- finding the header, the table entry and the descriptor that belong to an offset. */
#ifndef STEAD_ALLOC_SEGMENT_H
#define STEAD_ALLOC_SEGMENT_H

#include "alloc/state.h"

/* Where a run starts and how long it is; all proved against the image. */
struct run {
    struct descriptor *descriptor;
    uint64_t head;
    uint64_t slot; /* global number of the slot it starts in */
    uint64_t page; /* global number of its first page        */
    uint64_t pages;
};

/* The table entry of a segment below segments_of(), or NULL if the image is damaged or not mapped so far. */
_Atomic uint32_t *segment_entry(const struct heap *heap, uint32_t segment);

/* The header of a segment that is PRESENT, its seal proved; else NULL. */
struct header *segment_header(const struct heap *heap, uint32_t segment, unsigned *header_unit);

/* The descriptor of a slot, or NULL: no such slot, the header's own, or no header. */
struct descriptor *segment_descriptor(const struct heap *heap, uint64_t slot);

/* The run that covers the byte at offset.  0; STEAD_WRONG_POINTER: none; STEAD_CORRUPT.  Sets no error text. */
int segment_find_run(const struct heap *heap, uint64_t offset, struct run *run);

/* The run that starts in a slot (RUN_SLAB, RUN_EXTENT, RUN_TABLE), or STEAD_WRONG_POINTER, STEAD_CORRUPT. */
int segment_run_at(const struct heap *heap, uint64_t slot, struct run *run);

/* Every run in address order; stops at and returns visit's first non-zero.  Damaged parts are skipped. */
int segment_each_run(const struct heap *heap, int (*visit)(const struct run *run, void *arg), void *arg);

/* Busy bits of one segment. */
bool pages_are_free(const uint64_t busy[16], unsigned first, unsigned count);
void pages_mark(uint64_t busy[16], unsigned first, unsigned count, bool is_busy);
/* The next gap at or after *first: sets *first and returns its length, 0 = no more. */
unsigned pages_next_gap(const uint64_t busy[16], unsigned *first);
/* Longest gap, and whether some slot is free in full. */
unsigned pages_longest_gap(const uint64_t busy[16], bool *has_slot);

#endif
