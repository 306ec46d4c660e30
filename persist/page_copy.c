/*
 * page_copy.c -- see page_copy.h.
 *
 * A store file says of each of its pages what is in it: an entry of 8 bytes in the table of its group, changed whenever the
 * page is (apply.c).  So a copy that has a page's entry has the page, and two tables, 1/512 of the files, tell which pages
 * a copy lacks.  A copy that has nothing yet is all holes: entries 0, pages of zeros, which is what an entry 0 means.
 *
 * The caller holds off whoever changes pages and entries while this runs; between two calls they may change.  A page may
 * have another content than its entry says: it rotted, or its application failed half-way and is to be done again.  Should
 * such a page become again what the entry says, equal entries would stand for different pages; so until the last call an
 * entry that does not match what was copied is not given to the copy.  The last call copies entries as they are, computed
 * from nothing: a page that rotted in the source is found in the copy, too.
 *
 *   P9  while no call was the last one: a page of the target has the content that its entry says, or an entry that the
 *       source does not have there.  After the last one target and source are the same in the whole range
 *       (test_page_copy.c), equal checksums being taken for equal pages
 */
#include "persist/page_copy.h"

#include <string.h>

#include "persist/file.h"
#include "persist/map.h"
#include "persist/page_checksum.h"

#define STEP_PAGES 512 /* a block of the table */

/* The target may end before the range. */
static int read_entries(int fd, uint64_t *entry, unsigned count, uint64_t offset)
{
    uint64_t file_bytes, bytes = count * sizeof *entry;
    int rc = file_size(fd, &file_bytes);
    uint64_t have = rc == 0 && offset < file_bytes ? min_u64(bytes, file_bytes - offset) : 0;
    memset(entry, 0, bytes);
    return have != 0 ? file_read_at(fd, entry, have, offset) : rc;
}

/* Pages [first, first + count) of a step, side by side in the file.  entry: theirs; of pages that do not match, another one. */
static int copy_run(int from_fd, int to_fd, uint64_t at, unsigned count, bool last, uint8_t *buffer, uint64_t *entry)
{
    for (unsigned done = 0; done < count;) {
        unsigned piece = (unsigned)min_u64(count - done, PAGE_COPY_BYTES / PAGE_BYTES);
        uint64_t offset = format_file_offset(at + done * PAGE_BYTES);
        int rc = file_read_at(from_fd, buffer, piece * PAGE_BYTES, offset);
        for (unsigned i = 0; !last && rc == 0 && i < piece; i++)
            if (page_checksum(buffer + i * PAGE_BYTES) != entry[done + i])
                entry[done + i] = ~entry[done + i];
        if (rc == 0)
            rc = file_write_at(to_fd, buffer, piece * PAGE_BYTES, offset);
        if (rc != 0)
            return rc;
        done += piece;
    }
    return 0;
}

static int copy_step(int from_fd, int to_fd, uint64_t at, unsigned count, bool last, uint8_t *buffer, uint64_t *pages)
{
    uint64_t theirs[STEP_PAGES], ours[STEP_PAGES], table = format_checksum_offset(at);
    int rc = file_read_at(from_fd, theirs, count * sizeof theirs[0], table);
    if (rc == 0)
        rc = read_entries(to_fd, ours, count, table);
    bool differ = rc == 0 && memcmp(theirs, ours, count * sizeof theirs[0]) != 0;
    for (unsigned i = 0; differ && i < count && rc == 0;) {
        unsigned run = 0;
        while (i + run < count && theirs[i + run] != ours[i + run])
            run++;
        if (run != 0)
            rc = copy_run(from_fd, to_fd, at + i * PAGE_BYTES, run, last, buffer, theirs + i);
        *pages += run;
        i += run != 0 ? run : 1;
    }
    return rc == 0 && differ ? file_write_at(to_fd, theirs, count * sizeof theirs[0], table) : rc;
}

int page_copy_changed(int from_fd, int to_fd, uint64_t from, uint64_t to, bool last, uint8_t *buffer, uint64_t *pages)
{
    int rc = 0;
    for (uint64_t at = from; at < to && rc == 0;) {
        uint64_t in_block = STEP_PAGES * PAGE_BYTES - at % (STEP_PAGES * PAGE_BYTES);
        uint64_t bytes = min_u64(min_u64(in_block, format_contiguous(at)), to - at);
        rc = copy_step(from_fd, to_fd, at, (unsigned)(bytes / PAGE_BYTES), last, buffer, pages);
        at += bytes;
    }
    return rc;
}
