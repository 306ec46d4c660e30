/*
 * replay.h -- the records of a log become pages: each page once, in the file's order, with its last bytes.
 *
 * Used by recovery (pages go into the file), by a turn that catches up with others (the same), by a backup (into the copy)
 * and by a reader of a crashed store (into memory of its own).
 */
#ifndef STEAD_PERSIST_REPLAY_H
#define STEAD_PERSIST_REPLAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "persist/wal.h"

/* Where the pages go.  Both calls: `count` pages from `page` on, which follow each other in the file as in the image;
 * 0 or an error, which ends the replay; it sets the sentence. */
struct replay_target {
    void *ctx;
    int (*read)(void *ctx, uint64_t page, size_t count, uint8_t *to); /* as they are now */
    int (*write)(void *ctx, uint64_t page, size_t count, const uint8_t *bytes);
    void (*soon)(void *ctx, uint64_t page, size_t count); /* these will be read; a hint; may be NULL */
    uint64_t end_page; /* what the log says of this page and later ones is left out; 0: all is told */
    /* Another one, for a thread of the replay's own: called at the same time, for pages of other blocks of the checksum table
     * (replay_write.c).  NULL: there is no such thread. */
    const struct replay_target *helper;
};

/* A window with fewer notes than this is written by one thread; a variable so that a test needs no long log. */
extern size_t replay_helper_notes;

/* Memory for notes and bytes of one window (replay.c); a variable so that a test has many windows in a short log. */
extern size_t replay_window_bytes;

/*
 * replay_records -- the records from the scan's position up to commit end_seq, which must all be there.
 * Memory is bounded by replay_window_bytes (and a little), whatever the log holds; time by its length and what it names.
 * STEAD_CORRUPT, ENOMEM, EIO; pages of earlier windows may have been written then.
 */
int replay_records(struct wal_scan *scan, uint64_t end_seq, const struct replay_target *target);

/* The same into a store file: pages and their checksums. */
int replay_into_file(struct wal_scan *scan, int fd, uint64_t end_seq);
/* ... and into a copy of one that ends with image byte used_bytes: commits before the last one may have been longer. */
int replay_into_copy(struct wal_scan *scan, int fd, uint64_t end_seq, uint64_t used_bytes);

/*
 * Notes: for a caller that reads all records anyway and applies them later.  It adds their runs, as wal_scan_runs() visits
 * them, in the order of the log; what does not fit one window (or memory) makes them incomplete, and is no error: then the
 * log is read once more, as above.  NULL are notes that are never complete.
 */
struct replay_notes;
/* kept: the log, in which the runs stand, for as long as there are notes (wal_scan_keep); NULL: their bytes are copied. */
struct replay_notes *replay_notes_open(const uint8_t *kept, uint64_t kept_bytes);
void replay_notes_add(struct replay_notes *notes, uint64_t image_offset, const void *bytes, unsigned count);
bool replay_notes_complete(const struct replay_notes *notes);
/* Once, and only if complete. */
int replay_notes_write(struct replay_notes *notes, const struct replay_target *target);
int replay_notes_into_file(struct replay_notes *notes, int fd);
void replay_notes_close(struct replay_notes *notes);

#endif
