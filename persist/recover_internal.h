/*
 * recover_internal.h -- the valid prefix of a crashed store's log, verified: shared by recover.c (brings it to the file) and
 * private_replay.c (to a reader's view).
 */
#ifndef STEAD_PERSIST_RECOVER_INTERNAL_H
#define STEAD_PERSIST_RECOVER_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "persist/replay.h"
#include "persist/superblock.h"
#include "persist/wal.h"

/* A page that a record says was written straight into the file, unless a later record names it. */
struct straight_page {
    uint64_t page, checksum;
    bool superseded;
};

struct straight_list { /* ascending: a page can be written straight once in a log (W7), each later one lies past it */
    struct straight_page *page;
    size_t count, room;
};

struct prefix {
    struct wal_position end;
    uint64_t used_bytes; /* at its last commit                                */
    uint64_t most_bytes; /* the longest any of its commits made the image     */
    struct straight_list straight;
};

int recover_find_log(const struct file *file, const struct superblock *super, bool writable, int *fd);
/* The log is the one that the superblock names. */
int recover_open_scan(struct wal_scan *scan, int fd, const struct superblock *super);
/* Verifies everything; the scan stands at its end then.  store_fd -1: the file's own pages were verified before.  notes: of
 * what is verified; may be NULL.  *prefix is to be released, whatever comes of it. */
int recover_measure(struct wal_scan *scan, uint64_t used_bytes, int store_fd, struct prefix *prefix,
                    struct replay_notes *notes);
void recover_release(struct prefix *prefix);

/* Visits the places where the file may have ended while the prefix was written, if a copier was slow: at the first byte of
 * this page, or (in_table) of the table of the group that begins with it.  Not 0 ends it and is returned. */
typedef int former_end_visit(void *ctx, uint64_t file_offset, uint64_t page, bool in_table);
int recover_each_former_end(const struct superblock *super, const struct prefix *prefix, former_end_visit *visit,
                            void *ctx);

#endif
