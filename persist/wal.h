/*
 * wal.h -- the redo log FILE-wal: its bytes, appending to it, reading it back.
 *
 *   offset 0       header
 *   offset 4096    records, each starting at a multiple of 512
 *
 * One file (inode) for each checkpoint number, see wal_file.c.
 *
 *   record:  [ struct wal_record | payload: runs | zeros up to the next multiple of 512 ]
 *   run:     one word, (image offset / 8) << 16 | bytes / 8, then the bytes.  It stays within one page.
 *            0 bytes: "the page at this offset starts from zeros"; whatever earlier runs made of it is forgotten.
 *            0xffff instead of bytes / 8: the page was written straight into the file; the 8 bytes that follow are its
 *            page_checksum(), so that a file without it (a copy taken at another moment) is recognised.
 *
 * All numbers little-endian as in memory; the superblock's byte order mark stands for the log too.
 */
#ifndef STEAD_PERSIST_WAL_H
#define STEAD_PERSIST_WAL_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/report.h"
#include "persist/file.h"

#define WAL_VERSION 1
#define WAL_SECTOR UINT64_C(512) /* what a disk writes whole or not at all; records start at multiples */
#define WAL_BLOCK UINT64_C(4096)
#define WAL_FIRST_RECORD WAL_BLOCK
#define WAL_RESERVE_FIRST_BYTES (UINT64_C(256) << 10) /* of a new log */
#define WAL_CHECKSUM_BYTES 16                         /* XXH3-128, canonical */

struct wal_header { /* one sector */
    uint8_t magic[8];
    uint32_t version; /* WAL_VERSION                                                         */
    uint32_t reserved0;
    uint8_t id[16]; /* the store's                                                         */
    uint64_t salt;  /* random, another one after each checkpoint                           */
    uint64_t checkpoint;
    uint64_t first_seq;  /* of the first record: the file holds all commits before it          */
    uint64_t used_bytes; /* of the image at that commit                                        */
    uint8_t reserved[512 - 64 - WAL_CHECKSUM_BYTES]; /* zero, and checked to be zero            */
    uint8_t checksum[WAL_CHECKSUM_BYTES];
};
static_assert(sizeof(struct wal_header) == 512, "log format v1");

struct wal_record {
    uint8_t magic[8];
    uint8_t id[16];
    uint64_t salt;
    uint64_t seq;
    uint64_t offset;                      /* of this record in the log                                      */
    uint64_t payload_bytes;               /* multiple of 8                                                  */
    uint64_t used_bytes;                  /* the image's length as of this commit                           */
    uint64_t durable_offset;              /* the log was known durable up to here when this was written     */
    uint64_t runs;                        /* in the payload                                                 */
    uint8_t previous[WAL_CHECKSUM_BYTES]; /* checksum of the record before, or of the header   */
    uint8_t payload_checksum[WAL_CHECKSUM_BYTES];
    uint8_t checksum[WAL_CHECKSUM_BYTES]; /* of all bytes above                                */
};
static_assert(sizeof(struct wal_record) == 128, "log format v1");
static_assert(offsetof(struct wal_record, checksum) == 112, "log format v1");

/* Bytes a record with this payload takes in the log. */
uint64_t wal_record_bytes(uint64_t payload_bytes);

/* ---- appending: wal.c ---- */

/* Where the next record goes.  In TURNS these words travel through shared memory (shared.h). */
struct wal_position {
    uint64_t salt, checkpoint;
    uint64_t end;                      /* offset of the next record   */
    uint64_t next_seq;                 /* its number                  */
    uint8_t chain[WAL_CHECKSUM_BYTES]; /* checksum of the last record, or of the header */
};

struct wal {
    int fd;
    uint8_t id[16];
    struct wal_position at;
    uint64_t reserved_end; /* disk blocks exist up to here                              */
    uint64_t zeroed_end;   /* and have been written at least once                       */
    uint64_t began_bytes;  /* of the image when this log was begun; 0: not known        */
    /* No page before this image offset was written straight into the file under this log (W27); UINT64_MAX: none was. */
    uint64_t straight_from;
    uint64_t straight_pages; /* so many were, by this process */
    struct wal_build *build;
};

/* Ready to append, to no file yet (fd -1).  ENOMEM. */
int wal_open(struct wal *wal, const uint8_t id[16]);
void wal_close(struct wal *wal);
/* From now on this file (closing the former one), behind *at.  Takes fd over, also when it fails. */
int wal_switch(struct wal *wal, int fd, const struct wal_position *at);
/* A log that was replaced before this one was opened; takes fd over, the only descriptor of it (wal_retire.c). */
void wal_take_retired(struct wal *wal, int fd);
/* The space of replaced logs, now; false: there was none. */
bool wal_free_retired(struct wal *wal);
/* Another position in the same file, as another process left it. */
void wal_seek(struct wal *wal, const struct wal_position *at);

/* One record is built at a time: begin, runs, finish.  Big ones leave for the log while they grow; until finish has
 * written the header there is no record.  A failure anywhere: the record does not exist, call wal_begin() again. */
void wal_begin(struct wal *wal);
int wal_add_run(struct wal *wal, uint64_t image_offset, const void *bytes, unsigned count);
int wal_add_zeroed(struct wal *wal, uint64_t image_offset);
int wal_add_straight(struct wal *wal, uint64_t image_offset, uint64_t checksum);
bool wal_is_empty(const struct wal *wal); /* no run since wal_begin() */
/* The record is in the kernel's hands.  STEAD_FAILED: it cannot be said whether the record exists; nothing may be appended
 * any more. */
int wal_finish(struct wal *wal, uint64_t used_bytes, uint64_t durable_offset);
/* The same, but it may wait in memory, its blocks reserved: for a caller who syncs next, or is killed and promised nothing. */
int wal_finish_deferred(struct wal *wal, uint64_t used_bytes, uint64_t durable_offset);

/* ---- to the disk: wal_write.c ---- */

/* What waits goes to the kernel. */
int wal_flush(struct wal *wal);
struct wal_job {
    const uint8_t *bytes; /* whole blocks to be written past the page cache; NULL: a sync is what is to be done */
    uint64_t offset, count, cached;
};
/* Everything up to wal->at.end durable, in two steps: the first with the log standing still, the second beside commits; one
 * at a time.  A wal_take() that succeeded must be followed by wal_complete(). */
int wal_take(struct wal *wal, struct wal_job *job);
int wal_complete(struct wal *wal, const struct wal_job *job);

/* ---- its names: wal_name.c ---- */

/* 0: a log lies there (with this id, unless NULL), or a file in which nothing is; ENOENT; EEXIST: anything else; errno. */
int wal_name_look(const char *path, const uint8_t *id);
/* The sentence for what wal_name_look() found in the way; returns rc. */
int wal_name_refuse(const char *path, int rc);
/* A new file in the log's place, a stray log removed for it.  EEXIST: something else lies there, and stays.  ESTALE: the
 * store's own name is not this store's any more. */
int wal_name_create(int *fd, const struct file *file, const char *path, mode_t mode);
bool wal_name_is(const char *path, int fd); /* Is that the name of this open file? */
/* Removes the logs with this id (NULL: any) under both names; 0 also if there was none, or something else. */
int wal_name_remove(const struct file *file, const uint8_t *id);

/* ---- the file: wal_file.c ---- */

struct wal_next { /* a new log that no superblock names yet */
    int fd;
    struct wal_position at;
    const char *path; /* in the struct file it was made for; "": nameless */
};

enum wal_place {
    WAL_BESIDE,   /* FILE-wal.new                                               */
    WAL_IN_PLACE, /* FILE-wal: no superblock names a log                        */
    WAL_NAMELESS  /* the store has no name any more: nobody will look for a log */
};
/* A new, empty log for a store whose commits before first_seq are in its file, durable with its name.  Stray ones are
 * replaced.  On failure nothing is left. */
int wal_make(struct wal_next *next, const struct file *file, enum wal_place place, const uint8_t id[16], uint64_t salt,
             uint64_t checkpoint, uint64_t first_seq, uint64_t used_bytes);
void wal_unname(struct wal_next *next);  /* it loses its name, and is a log all the same */
void wal_discard(struct wal_next *next); /* no superblock names it, nor will */
/* It takes FILE-wal's place, once a durable superblock names it; old_fd: the log that lies there, -1: whatever it is. */
int wal_install(const struct wal_next *next, const struct file *file, int old_fd);
/* Opens the log with this salt and number, under whichever of its names (writable: it is FILE-wal afterwards).
 * STEAD_LOG_MISSING with a sentence; errno. */
int wal_find(int *fd, const struct file *file, bool writable, const uint8_t id[16], uint64_t salt, uint64_t checkpoint);

/* ---- reading: wal_scan.c ---- */

struct wal_scan {
    int fd;
    uint64_t file_bytes;
    uint64_t capacity_bytes; /* of the image: no run may pass it */
    struct wal_header header;
    struct wal_position at;  /* the end of the valid prefix so far */
    uint64_t durable_offset; /* the largest any record so far vouched for */
    uint8_t *buffer;
    uint64_t buffer_offset, buffer_bytes;
    bool keeps; /* the buffer holds the log from its first byte on, as far as it was read */
};

#define WAL_STRAIGHT 0xffffu /* as a count: the page was written straight, *bytes is its 8-byte checksum */
/* Visits a run: count == 0 means "starts from zeros".  Non-zero stops and is returned. */
typedef int wal_visit(void *ctx, uint64_t image_offset, const void *bytes, unsigned count);

/* Finds the header with this salt and number.  STEAD_LOG_MISSING: not this store's log of this moment. */
int wal_scan_open(struct wal_scan *scan, int fd, const uint8_t id[16], uint64_t salt, uint64_t checkpoint,
                  uint64_t capacity_bytes);
/* From a known position, the log being that of *at (TURNS: what the neighbour left). */
int wal_scan_resume(struct wal_scan *scan, int fd, const uint8_t id[16], const struct wal_position *at,
                    uint64_t capacity_bytes);
/* A log of at most so many bytes is kept in memory while it is read: scan->buffer is the log then, up to scan->at.end at least,
 * as it was verified, and so it stays until wal_scan_close(); runs are visited where they stand in it.  False: it is
 * longer, or memory short, and nothing has changed.  Before the first record is read. */
bool wal_scan_keep(struct wal_scan *scan, uint64_t bytes_max);
/* The next record, verified in full.  0 with *record; ENOENT: the log ends here; STEAD_CORRUPT: it does not, by the
 * word of a later record; EIO. */
int wal_scan_next(struct wal_scan *scan, struct wal_record *record);
/* Every run of a record that wal_scan_next() returned. */
int wal_scan_runs(struct wal_scan *scan, const struct wal_record *record, wal_visit *visit, void *ctx);
void wal_scan_close(struct wal_scan *scan);

/* The magic and checksum rules, shared by both sides. */
void wal_seal_header(struct wal_header *header);
bool wal_header_valid(const struct wal_header *header);
bool wal_header_has_magic(const struct wal_header *header);
void wal_seal_record(struct wal_record *record);
bool wal_record_valid(const struct wal_record *record, const uint8_t id[16], uint64_t salt, uint64_t offset);

#endif
