/*
 * page_copy.h -- bring a copy of a store file up to date: the pages whose checksums differ.
 */
#ifndef STEAD_PERSIST_PAGE_COPY_H
#define STEAD_PERSIST_PAGE_COPY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/units.h"

#define PAGE_COPY_BYTES (UINT64_C(64) * PAGE_BYTES) /* the caller's buffer */

/*
 * Image bytes [from, to), whole pages: those that the tables of the two files describe differently are copied with their
 * entries; *pages grows by their number.  Where the target is a hole or ends, it reads as zeros.
 *   last  the target is done then: an entry that its page does not match is copied as it is.  Else it gets another one there,
 *         so that the next call copies the page again
 * 0 or errno.
 */
int page_copy_changed(int from_fd, int to_fd, uint64_t from, uint64_t to, bool last, uint8_t *buffer, uint64_t *pages);

#endif
