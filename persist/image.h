/*
 * image.h -- the heap range of one store file mapped in this process, and its transactions.
 *
 *   IMAGE_PRIVATE  SOLE and TURNS writer: MAP_PRIVATE; changed pages found, logged, applied (see commit.c)
 *   IMAGE_SHARED   LIVE: MAP_SHARED
 *   IMAGE_READ     read-only, PROT_READ: LIVE: MAP_SHARED; else MAP_PRIVATE, durable commits that are not in the file yet
 *                  replayed into private pages (image_look), or, of a crashed store nobody recovers, all of its log
 *
 * persist/ knows no lock and no heap.  "Exclusive" below means: the caller guarantees that no other thread or
 * process runs any call on this image or writes to it; "apply lock" means: and no reader looks at the file.
 */
#ifndef STEAD_PERSIST_IMAGE_H
#define STEAD_PERSIST_IMAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/report.h"
#include "persist/file.h"
#include "persist/format.h"

enum image_kind { IMAGE_PRIVATE, IMAGE_SHARED, IMAGE_READ };

struct image;

/* Shared by all attached processes (in the lock unit), zeroed by the first opener: where the log ends, what is durable,
 * what is applied, how long the image is.  Volatile: truth after a crash is the files. */
#define IMAGE_SHARED_BYTES 512
struct image_shared;

struct image_options {
    enum image_kind kind;
    bool turns;       /* IMAGE_PRIVATE: other processes commit to the same log between image_refresh() calls */
    bool late_log;    /* IMAGE_PRIVATE, not turns: a sealed store may get its log with the first commit (txn_log.c);
                         false where *super differs from the file in what must be recorded */
    bool any_address; /* IMAGE_READ: elsewhere if the recorded address is taken            */
    bool first;       /* no writer is attached: recover, start a log, rebuild `shared`     */
    bool inspect;     /* first, and a LIVE session ended without close: map for a verdict and write nothing,
                                    whatever kind says; only reading, checking and closing may follow */
    struct image_shared *shared; /* NULL: no write permission                                         */
    uint64_t max_private_bytes;  /* 0 = no limit */
};

/*
 * image_create -- make a complete, sealed store file, atomically: a temporary nameless file, synced, then linked.
 *   super    id, base, capacity_bytes, created_s, creator_pid: the caller's, or 0 to be chosen here; root, sharing,
 *            last_attach_s, layout_*: the caller's; everything else is set here
 *   unit     the first UNIT_BYTES of the image
 *   permissions  as in open(2), the umask is taken off; 0 = 0600
 * 0, EEXIST (somebody else was first), ENOSPC, ENOMEM (no free slot of addresses), errno.  A crash at any point leaves
 * no file or a whole one.
 */
int image_create(const struct file *file, struct superblock *super, const void *unit, unsigned permissions);

/*
 * image_open -- map the image; the gate is held by the caller.
 * First with a log to replay: recovers (writers) or replays privately (readers).
 * *super is what superblock_read() gave, with sharing, last_attach_s, capacity_bytes (raised) and accepted_unclean as the
 * caller wants them; updated to the state that holds after the call (open, with log salt) and kept: *super and *file
 * must outlive the image.  A writer that is first reserves disk blocks for all of the used length (ENOSPC).
 * STEAD_FILE_SYSTEM: the file system cannot carry this use (fs.h).
 * STEAD_ADDRESS_TAKEN names the mapping in the way; STEAD_LOG_MISSING; STEAD_CORRUPT; errno.
 */
int image_open(struct image **out, struct file *file, struct superblock *super, const struct image_options *options);

void *image_base(const struct image *image);
uint64_t image_bytes(const struct image *image); /* readable and writable from base */
uint64_t image_capacity(const struct image *image);
bool image_recovered(const struct image *image); /* this open replayed a log */
uint64_t image_commit_seq(const struct image *image);

/* [base, base + bytes) becomes usable, disk blocks reserved (fallocate, never its emulation).  Thread-safe;
 * SHARED: one process at a time (the heap's gate): what the file gains is written with zeros. */
int image_extend(struct image *image, uint64_t bytes);
/* SHARED: [offset, offset + bytes), whole pages whose content means nothing to anybody, will be used now: makes pages where that
 * is cheaper than the faults would be.  Leaves zeros there, or what there was; cannot fail.  Thread-safe. */
void image_ready(struct image *image, uint64_t offset, uint64_t bytes);
/* Others extended the file: map what is there now.  Cheap when nothing changed.  Returns the new image_bytes. */
uint64_t image_follow(struct image *image);

/* ---- IMAGE_READ ---- */

/*
 * image_look -- a reader's section begins: the view becomes the last durable commit, whether it is in the file or only in
 * the log, and image_commit_seq() its number.  Nothing is written to file or log; BUFFERED commits are not shown.
 *   shared  the words of the attached writers (read access is enough), or what is left of them; NULL: none
 * A reader with options.shared NULL learns here what became of the store: writers may have come, in any sharing mode, and
 * gone, or died.  *super is then the superblock of this moment.
 * The caller holds the apply lock shared until the section ends, and lets no other look and no section of this process
 * run beside it.  Nothing new: O(1), no system call (options.shared
 * NULL: the superblocks are read, and where no words tell of the log, its end); else O(new records).  Maps what the file grew by.  An
 * attached reader of a LIVE store, and a private replay: nothing to do.
 * After an error (ENOMEM, EIO, STEAD_CORRUPT, STEAD_LOG_MISSING) the view is the former one or the last applied commit.
 */
int image_look(struct image *image, const struct image_shared *shared);

/* ---- IMAGE_PRIVATE ---- */

/* Captures every change since the last commit and appends it to the log; exclusive.  used_bytes: the image's length
 * as of this commit (bytes past it mean nothing).  On success *seq is the commit's number, to be given to image_sync().
 * If nothing changed, *seq is the last commit's and nothing is written.  ENOSPC, EINTR, EFBIG, STEAD_LIMIT: nothing
 * happened.  STEAD_FAILED: poisoned. */
int image_commit(struct image *image, uint64_t used_bytes, uint64_t *seq);
/* The same for a caller who goes on to image_sync() and has promised nothing before: the record may wait in memory till then,
 * and leave with others' in one write to the disk. */
int image_commit_deferred(struct image *image, uint64_t used_bytes, uint64_t *seq);
/* Returns when commits up to seq are durable.  Any number of threads at once; they share a sync. */
int image_sync(struct image *image, uint64_t seq);
/* Drops every change since the last commit; exclusive. */
int image_rollback(struct image *image);
/* Would an image_commit() find anything changed?  Exclusive; also where it would be refused (STEAD_FAILED). */
int image_changed(struct image *image, uint64_t used_bytes, bool *changed);
/* TURNS, exclusive, at the start of a section: private pages are dropped and the view is the last commit of whoever
 * had the turn.  *changed: whether anybody else committed since. */
int image_refresh(struct image *image, bool *changed);
/* Applies every durable commit to the file; apply lock.  Does not sync the file. */
int image_apply(struct image *image);
bool image_has_unapplied(const struct image *image);
/* Log over its limit: no commit before a checkpoint. */
bool image_wants_checkpoint(const struct image *image);
/* image_commit() was refused (STEAD_LIMIT) because of what waits to be applied: image_apply() helps. */
bool image_limit_waits(const struct image *image);
/* Memory of commits that are not in the file yet; any thread. */
uint64_t image_waiting_bytes(const struct image *image);
/* What should be done next, a small piece at a time, so that no commit pays for all of a checkpoint (slice.c). */
enum image_work {
    IMAGE_REST,
    IMAGE_APPLY,     /* image_apply_some() */
    IMAGE_SYNC,      /* image_sync_some()  */
    IMAGE_CHECKPOINT /* image_checkpoint() */
};
enum image_work image_work_due(const struct image *image);
int image_apply_some(struct image *image); /* some pages of durable commits into the file; apply lock */
int image_sync_some(struct image *image);  /* some of the file's pages made durable; no lock needed */
/* image_sync + image_apply, file synced, log emptied; apply lock. */
int image_checkpoint(struct image *image);
bool image_failed(const struct image *image);
/* image_checkpoint() ended with rc: may image_seal() go on all the same?  Yes also where only a new log found no space. */
bool image_can_seal(const struct image *image, int rc);
/* SOLE, TURNS: Is the log under its name?  LIVE: true. */
/* SOLE: nothing was committed since the open, and there is no log (txn_log.c). */
bool image_is_late(const struct image *image);
bool image_log_named(const struct image *image); /* or there is none yet */
/* The store has no name any more: its log loses its own, if it is still there. */
void image_unname_log(struct image *image);

/* ---- IMAGE_SHARED ---- */
/* Ranged sync of the used range and a fresh header (super as filled in by the caller: commit_seq, times; used_bytes and
 * state are set here); the lock words' unit is not synced.  One process at a time. */
int image_flush(struct image *image, struct superblock *super, uint64_t used_bytes);

/* ---- the end ---- */
struct image_free_range {
    uint64_t offset, bytes;
};
/*
 * image_seal -- the last process, exclusive, apply lock: checkpoint, page checksums, punch free ranges, both superblocks
 * sealed with a sync between, truncate to used_bytes, unlink the log.  On error the image stays open.
 * used_bytes is rounded up to whole units, and reduced to what is mapped.  With readers attached the caller passes no
 * free ranges and no less than image_bytes(): nobody shortens a file under a mapping.
 */
int image_seal(struct image *image, struct superblock *super, uint64_t used_bytes,
               const struct image_free_range *free_ranges, unsigned free_range_count);
/* Unmaps and frees; writes nothing. */
void image_close(struct image *image);
void image_forget(struct image *image); /* fork child: frees memory, closes the log's descriptor */

struct image_stat {
    uint64_t file_bytes, private_bytes, log_bytes, commit_seq, durable_seq, applied_seq;
};
void image_stat(struct image *image, struct image_stat *stat);

/* P-invariants: page checksums of every page in use at the last commit, the checksum table, the log; by pread.
 * name_object(ctx, offset, text): says in words which object a page belongs to, for the report. */
void image_check(struct image *image, struct report *report,
                 void (*name_object)(void *ctx, uint64_t offset, char *text, unsigned text_bytes), void *ctx);
/* Image bytes at the last commit (file + unapplied log), by pread: for heap_check's reader and backup. */
int image_read_committed(struct image *image, uint64_t offset, void *buffer, size_t bytes);

/*
 * image_backup_* -- a sealed copy of the last commit at path (EEXIST), while others work; in steps, so that the caller holds
 * them off for moments only (backup.c).  SOLE and TURNS; a LIVE store and a private replay take the last three steps alone.
 *   begin   a new file without a name; holds off nobody
 *   ahead   apply lock: a piece of the file goes into the copy.  To be called again, commits and applications in between,
 *           while *more
 *   fix     apply lock, nobody commits (LIVE: nobody writes): the copy will be of the last commit.  *super is copied
 *   copy    apply lock, held since fix: what the copy lacks of it.  Commits go on, and nothing is applied meanwhile
 *   finish  holds off nobody: sealed, synced, named.  Also after a step that failed with rc, which it returns then; gives
 *           *backup back
 */
struct image_backup;
int image_backup_begin(struct image_backup **backup, struct image *image, const char *path);
int image_backup_ahead(struct image_backup *backup, bool *more);
int image_backup_fix(struct image_backup *backup, const struct superblock *super);
int image_backup_copy(struct image_backup *backup);
int image_backup_finish(struct image_backup *backup, int rc);
int image_backup(struct image *image, const struct superblock *super, const char *path); /* but for the second, all */

/* Keeps [0, used_bytes) in memory: mlock (LIVE, read) or through a second shared read-only mapping (private). */
int image_pin(struct image *image, uint64_t used_bytes);
int image_unpin(struct image *image);

#endif
