/*
 * wal_internal.h -- the buffers of a log that is being written: shared by wal.c (records) and wal_write.c (bytes to the
 * disk).
 *
 *   log:      ... | written                  | waiting           | record in hand ->
 *   offset:       base        valid        written            at.end           base + filled
 *   buffer:       [0 ........................................................ filled) of buffer[active]
 *
 * buffer[active][0] stands for log offset `base`, a multiple of WAL_BLOCK.  Bytes below `written` are in the kernel's
 * hands; bytes below `valid` are not known here.  Once a part of a big record was sent, buffer[0] stands for at.end +
 * sent.
 */
#ifndef STEAD_PERSIST_WAL_INTERNAL_H
#define STEAD_PERSIST_WAL_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/units.h"
#include "persist/wal.h"
#include "persist/xxh3.h"

#define WAL_BUILD_BYTES (UINT64_C(1) << 20)
#define WAL_RETIRED_MAX 2

struct wal_build {
    uint8_t *buffer[2]; /* WAL_BUILD_BYTES + WAL_BLOCK each, page aligned                            */
    unsigned active;    /* the other one is being written by wal_complete(), or free                 */
    uint64_t base, valid, written;
    uint64_t end;    /* what at.end was when the three above were right                           */
    uint64_t filled; /* bytes in the buffer                                                       */
    uint64_t sent;   /* bytes of this record already in the log, before buffer[0]                 */
    uint64_t runs;
    XXH3_state_t *hash; /* of the payload sent so far, when sent != 0                                */

    pthread_mutex_t io;        /* held over a write past the page cache: no other write of the log meanwhile */
    int lost;                  /* under `io`: why such a write failed, or 0                                  */
    _Atomic int direct_fd;     /* O_DIRECT | O_DSYNC; -1: none                                              */
    _Atomic bool direct_tried; /* to open it; or it was found not to work                                   */
    bool direct_used;          /* pages of the log may be missing in the cache                              */
    uint64_t cached;           /* writes through the page cache so far ...                                  */
    _Atomic uint64_t synced;   /* ... and how many of them a sync covered                                   */
    const uint8_t *zeros;      /* ZERO_STEP_BYTES of them                                                   */

    struct wal_retired { /* logs before this one, the oldest first: their length so far */
        int fd;
        uint64_t bytes;
    } retired[WAL_RETIRED_MAX];
    unsigned retired_count;
};

/* ---- wal_write.c ---- */
int wal_build_open(struct wal *wal);
void wal_build_close(struct wal *wal);
/* Blocks for everything below `end`. */
int wal_reserve_to(struct wal *wal, uint64_t end);
/* Zeros from the end of the record in hand on; a failure is no failure of the commit: a later write finds out. */
void wal_zero_ahead(struct wal *wal, uint64_t end, bool direct);
/* A write through the page cache. */
int wal_write_cached(struct wal *wal, const void *bytes, uint64_t count, uint64_t offset);
/* As wal_flush(), while a record is in hand. */
int wal_flush_before(struct wal *wal);
/* The buffer begins with the block of at.end: whatever is written already leaves it.  A record in hand moves along. */
void wal_rebase(struct wal *wal);

/* ---- wal_retire.c: under the caller's lock, as all that builds records ---- */
/* Takes over fd, the only descriptor of a log that was replaced. */
void wal_retire(struct wal_build *build, int fd);
void wal_retire_some(struct wal_build *build);
bool wal_retire_end(struct wal_build *build); /* at once; were there any? */

#endif
