/*
 * page_checksum.h -- the 64-bit checksum kept for each committed page in its group's table (format.h).
 *
 * XXH3-64 of the page, exclusive-or that of a page of zeros: a page of zeros has checksum 0, so that a table that was
 * never written describes a file that was never written, and holes cost neither table nor reading.
 */
#ifndef STEAD_PERSIST_PAGE_CHECKSUM_H
#define STEAD_PERSIST_PAGE_CHECKSUM_H

#include <stdint.h>

#include "base/units.h"

uint64_t page_checksum(const void *page); /* PAGE_BYTES at any alignment */

#endif
