/*
 * txn.h -- the transactions of one private image: what changed, the log, application to the file, recovery.
 * Behind image.h: image.c maps the file and forwards; the contracts of image_commit() and its siblings hold here.
 *
 * Order of calls, first opener (gate held, nobody else attached):
 *     superblock_read -> if SUPER_OPEN_LOGGED: txn_recover -> map_open -> txn_open (starts a new, empty log and writes
 *     the superblock that names it; or leaves that to the first commit: options->late_log).  *super is kept by pointer and changed under "exclusive" only.
 * Further openers (TURNS): map_open -> txn_open (reads nothing that can move) -> txn_refresh before anything else.
 * The end: txn_checkpoint, superblock_seal, file_unlink(log_path), txn_close.
 */
#ifndef STEAD_PERSIST_TXN_H
#define STEAD_PERSIST_TXN_H

#include "persist/image.h"
#include "persist/map.h"
#include "persist/page_list.h"
#include "persist/superblock.h"
#include "persist/wal.h"

struct txn;

/* Of log: longer, and a checkpoint is due.  A variable so that a test has checkpoints without 64 MiB of commits. */
extern uint64_t txn_log_limit_bytes;
/* Pages of unapplied commits in memory: more, and slices of them go home.  0: as many as suit the memory. */
extern size_t txn_overlay_limit_pages;
/* Private copies of applied pages kept for the next write to them; what is above goes back, a few with each commit.  0: as many
 * as suit the memory. */
extern size_t txn_resident_limit_pages;

/* Logs that a recovery replaced, still open: closing one waits until its blocks are freed (wal_retire.c). */
struct txn_replaced {
    int fd[2];
    unsigned count;
};
void txn_close_replaced(struct txn_replaced *replaced);

/*
 * txn_recover -- bring the file to the last commit of its log; alone, gate held, nothing mapped.
 * super->state must be SUPER_OPEN_LOGGED.  On success the file is synced, *super holds the commit's number and length
 * and has been written with the number of a new, empty log; *replayed says whether the log held commits.
 * Bytes of the file past used_bytes are zero afterwards, their page checksums too.  shared: the words that the dead left,
 * by which attached readers go; NULL if there are none.  replaced receives the caller's descriptors, also on failure: for
 * txn_retire() or txn_close_replaced().
 * STEAD_LOG_MISSING (no log, or another one's), STEAD_CORRUPT, EIO, ENOSPC: the old log is as it was.
 */
int txn_recover(const struct file *file, struct superblock *super, struct image_shared *shared, bool *replayed,
                struct txn_replaced *replaced);

/*
 * txn_private_replay -- the same in memory for a reader of a crashed store nobody recovers: applies the log to the
 * private (MAP_IMAGE_PRIVATE, writable) pages of map, writes no file.  *super is updated in memory; pages receives, in
 * order, the pages that the log names: for them the file's checksums mean nothing.
 */
int txn_private_replay(const struct file *file, struct superblock *super, struct map *map, struct page_list *pages,
                       bool *replayed);

/* See above.  map (kind MAP_IMAGE_PRIVATE, its `bytes` may grow), file and super must outlive the transaction engine. */
int txn_open(struct txn **out, struct map *map, const struct file *file, struct superblock *super,
             const struct image_options *options);
/* Takes over the logs that a recovery replaced: their space comes back little by little. */
void txn_retire(struct txn *txn, struct txn_replaced *replaced);
/* The disk is full: the space of replaced logs comes back now.  False: there is none. */
bool txn_free_retired(struct txn *txn);
/* Unmaps nothing, writes nothing. */
void txn_close(struct txn *txn);
void txn_forget(struct txn *txn); /* fork child: frees memory and closes descriptors of its own copy */

/* The contracts of image_commit(), image_sync(), ... */
int txn_commit(struct txn *txn, uint64_t used_bytes, uint64_t *seq);
int txn_commit_deferred(struct txn *txn, uint64_t used_bytes, uint64_t *seq);
int txn_sync(struct txn *txn, uint64_t seq);
int txn_rollback(struct txn *txn);
int txn_changed(struct txn *txn, uint64_t used_bytes, bool *changed);
int txn_refresh(struct txn *txn, bool *changed);
int txn_apply(struct txn *txn);
/* The end of a file that was made longer is durable (tail_confirm).  An errno: nothing is lost, try again; else poisoned. */
int txn_confirm_length(struct txn *txn);
bool txn_has_unapplied(const struct txn *txn);
bool txn_is_late(struct txn *txn);                /* there is no log, because nothing was committed since the open */
bool txn_log_named(struct txn *txn);              /* Is the log under its name, if there is one? */
void txn_remove_logs(struct txn *txn);            /* sealed: the names of its logs go, if they are this store's */
void txn_unname_log(struct txn *txn);             /* the log's name goes, if it is the log's */
bool txn_untouched(struct txn *txn);              /* opened sealed, and nothing was committed since */
bool txn_wants_checkpoint(const struct txn *txn); /* the log is over its limit */
bool txn_limit_waits(const struct txn *txn);
uint64_t txn_waiting_bytes(const struct txn *txn); /* any thread */
enum image_work txn_work_due(const struct txn *txn);
int txn_apply_some(struct txn *txn);
int txn_sync_some(struct txn *txn);
int txn_checkpoint(struct txn *txn);
/* txn_checkpoint() found no space for a new log: true if the file is the last commit all the same, and synced. */
bool txn_home_without_log(struct txn *txn, int rc);
bool txn_failed(const struct txn *txn);
void txn_forget_checksums(struct txn *txn); /* the tables in the file were changed past the engine (image_seal) */
/* A sync, or a write that nobody can take back, failed: the store is poisoned.  Returns STEAD_FAILED. */
int txn_poison(struct txn *txn, int cause, const char *what);
uint64_t txn_commit_seq(const struct txn *txn);
uint64_t txn_used_bytes(const struct txn *txn); /* at the last commit */

/* private_bytes, log_bytes, commit_seq, durable_seq, applied_seq; file_bytes is the caller's. */
void txn_stat(struct txn *txn, struct image_stat *stat);

/* Bytes of the image at the last commit: unapplied pages from memory, the rest by pread.  Apply lock. */
int txn_read_committed(struct txn *txn, uint64_t offset, void *buffer, size_t bytes);

/* A commit that stays findable while nobody applies: the file holds everything up to applied_at, the log the rest. */
struct txn_point {
    uint64_t seq, used_bytes;
    struct wal_position applied_at;
    uint64_t end; /* of the log */
};
/* The last commit.  Good as long as the caller holds the apply lock, whatever is committed meanwhile. */
void txn_point(struct txn *txn, struct txn_point *point);
/* Brings a copy of the file, as it is under the apply lock, to the commit of the point. */
int txn_replay_point(struct txn *txn, const struct txn_point *point, int copy_fd);

/* W-invariants (docs/invariants.d/txn.md): the log's header and every record in it, by pread. */
void txn_check(struct txn *txn, struct report *report);

/* What `shared` says, for processes without a txn (read-only openers): the last commit in the file, the length of the
 * image at it.  false if shared was never filled in. */
bool txn_shared_applied(const struct image_shared *shared, uint64_t *commit_seq, uint64_t *used_bytes);

#endif
