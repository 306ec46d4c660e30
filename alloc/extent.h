/*
 * extent.h -- runs of pages: finding, making, removing and resizing them.  Every call under the gate.
 */
#ifndef STEAD_ALLOC_EXTENT_H
#define STEAD_ALLOC_EXTENT_H

#include "alloc/segment.h"

/*
 * extent_reserve -- find room for a run and prepare everything but its head; extent_publish() makes it exist.
 * Between the two the caller fills the descriptor.  alignment: of the run's address, a power of two.
 * *zero_from: bytes of the image from here on were never handed out and are zero.
 * ENOMEM, ENOSPC, ... from the host, or STEAD_CORRUPT, with a sentence.
 */
int extent_reserve(struct heap *heap, enum run_kind kind, unsigned class, uint64_t pages, uint64_t alignment,
                   struct run *run, uint64_t *zero_from);
void extent_publish(struct heap *heap, const struct run *run);

/* The run was just proved by segment_run_at(). */
void extent_remove(struct heap *heap, const struct run *run);

/* Grows (into free pages behind it) or shrinks a run in place.  False: not possible here. */
bool extent_resize(struct heap *heap, struct run *run, uint64_t pages);

/* Makes busy bits, covered pages, table entries and the top agree with the heads, for every segment that a run of
 * that place would touch: after a kill between any two stores of the calls above. */
void extent_settle(struct heap *heap, uint64_t page, uint64_t pages);

/* Writes the header of an empty segment; does not make it exist. */
void segment_format(struct heap *heap, uint32_t segment, unsigned header_unit, unsigned covered_pages);

/* Brings the top down as far as the runs allow, and drops empty segments above it. */
void extent_lower_top(struct heap *heap);

#endif
