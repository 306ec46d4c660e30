/*
 * listing.h -- what a verb prints one line each of: visited under the store's shared lock, printed when it is gone.
 *
 * A pager must not hold up writers, and there may be 10^8 lines: records of one size are put aside in a nameless temporary
 * file.
 */
#ifndef STEAD_TOOLS_LISTING_H
#define STEAD_TOOLS_LISTING_H

#include <stdio.h>

#include "command.h"

struct listing {
    bool whole;       /* visit saw all: there is a list to print, whatever the exit code */
    FILE *spool;      /* NULL: nothing is put aside */
    const char *base; /* of the mapping that is being visited */
    size_t record_bytes;
};

/* Opens the store that args name, lets visit() put its records, closes the store.  COMMAND_FINE, or COMMAND_PROBLEM after
 * a sentence on stderr; in any case listing_drop() is due.  record_bytes 0: visit() puts nothing.  visit() returns what
 * stead_each_...() did, which stops when listing_put() returned non-zero. */
int listing_make(struct listing *listing, const char *verb, const struct args *args, size_t record_bytes,
                 int (*visit)(struct listing *listing, stead *store, void *ctx), void *ctx);
/* 0; -1: the temporary file is full. */
int listing_put(struct listing *listing, const void *record);
/* The records in order; false behind the last. */
bool listing_next(struct listing *listing, void *record);
void listing_drop(struct listing *listing);

#endif
