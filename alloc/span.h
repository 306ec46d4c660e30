/* span.h -- extents that reach over the end of a segment, and what else extent.c and span.c share. */
#ifndef STEAD_ALLOC_SPAN_H
#define STEAD_ALLOC_SPAN_H

#include "alloc/extent.h"

/* As extent_reserve() for RUN_EXTENT, where no gap inside a segment has room; from: the first segment that is looked at. */
int span_reserve(struct heap *heap, uint32_t from, uint64_t pages, uint64_t alignment, struct run *run);
/* The head of a spanning extent is gone: gives its pages back. */
void span_release(struct heap *heap, uint64_t page, uint64_t pages);

/* ---- of extent.c ---- */
void segment_refresh(struct heap *heap, uint32_t segment);
int segment_make(struct heap *heap, uint32_t segment);
/* [base, base + bytes) becomes readable and writable, or an error with a sentence. */
int extent_back(struct heap *heap, uint64_t bytes);
/* A run is going to end there: the top and the fresh mark rise. */
void extent_raise_top(struct heap *heap, uint64_t page);
int extent_mark_tails(struct heap *heap, uint64_t page, uint64_t pages);
int extent_damaged(struct heap *heap, uint64_t page, const char *what);

#endif
