/*
 * scrub.h -- the table of page checksums as a whole: made, cleared, verified.  One page's checksum: page_checksum.h.
 */
#ifndef STEAD_PERSIST_SCRUB_H
#define STEAD_PERSIST_SCRUB_H

#include <stddef.h>
#include <stdint.h>

#include "base/report.h"
#include "persist/page_list.h"

/* Image bytes [offset, offset + bytes) from a file; 0 or errno.  The whole pages of the range may lie in any groups. */
int scrub_read_image(int fd, uint64_t offset, void *buffer, size_t bytes);
int scrub_write_image(int fd, uint64_t offset, const void *buffer, size_t bytes);

/* Writes the checksums of pages [from, to) (bytes, whole pages) of the file's own image, as far as they differ. */
int scrub_rebuild(int fd, uint64_t from, uint64_t to);
/* Marks pages [from, to) as never written: their checksums become 0. */
int scrub_clear(int fd, uint64_t from, uint64_t to);
/* P1: compares pages [0, used_bytes) with the table, but those in except (ascending; may be NULL).  name_object may be
 * NULL. */
void scrub_check(int fd, uint64_t used_bytes, const struct page_list *except, struct report *report,
                 void (*name_object)(void *ctx, uint64_t offset, char *text, unsigned text_bytes), void *ctx);
/* P2; used_bytes > 0, of a sealed file. */
void scrub_check_tail(int fd, uint64_t used_bytes, struct report *report);

#endif
