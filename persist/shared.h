/*
 * shared.h -- struct image_shared: what attached processes tell each other about the log (TURNS), and readers.
 *
 * Two copies of the state, each with a number and a checksum; a writer fills the older one, number last.  A process
 * killed at any store leaves the newer one whole, so whoever comes next sees the state before or after; `unfinished` says that
 * a commit may have written to log or file and not been told (txn_turn.c).
 *
 * Zeroed memory holds no valid copy.  Only the process that has the turn writes (image.h: "exclusive"); `durable_seq`
 * alone is raised by anybody who synced the log.
 */
#ifndef STEAD_PERSIST_SHARED_H
#define STEAD_PERSIST_SHARED_H

#include <stdatomic.h>

#include "persist/image.h"
#include "persist/wal.h"

struct shared_state {
    struct wal_position at;         /* commits up to at.next_seq - 1 are in the log                      */
    uint64_t used_bytes;            /* of the image at that commit                                       */
    uint64_t named_bytes;           /* records in the log name pages below this only                     */
    uint64_t applied_seq;           /* commits up to this one are in the file                            */
    struct wal_position applied_at; /* the log's position behind them                               */
    uint64_t applied_used_bytes;
    uint64_t
        file_seq; /* no page of the file is newer than this; past applied_seq: an application is under way (slice.c) */
    uint64_t restarting; /* 1: a checkpoint is about to name another log; who finds it so looks at the superblock */
};

int shared_read(const struct image_shared *shared, struct shared_state *state); /* ENOENT: no valid copy */
void shared_write(struct image_shared *shared, const struct shared_state *state);
void shared_clear(struct image_shared *shared);
uint64_t shared_durable_seq(const struct image_shared *shared);
void shared_fail(struct image_shared *shared); /* a sync failed in one process: no other may go on */
bool shared_has_failed(const struct image_shared *shared);
/* TURNS, by who has the turn: set before a commit writes anything, taken away when the words tell of it or it was taken back. */
void shared_set_unfinished(struct image_shared *shared, bool unfinished);
bool shared_is_unfinished(const struct image_shared *shared);
void shared_raise_durable_seq(struct image_shared *shared, uint64_t seq);

#endif
