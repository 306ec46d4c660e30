/*
 * transaction.c -- commit and rollback: who holds what while persist/ does the work.
 *
 * SOLE commit, step by step                              held
 *   1 take the store lock exclusively                    store lock
 *   2 a log over its limit: checkpoint, or ETIMEDOUT     + apply lock (waits for readers' sections)
 *   3 capture the image, append it to the log            store lock
 *   4 give the lock up, unless the caller held it        -
 *   5 DURABLE: wait for the disk                         -      commits of several threads share this sync
 *   6 readers attached: apply; a piece of the next        store lock + apply lock, both only tried
 *     checkpoint due (slice.c): that
 * A failure before the end of step 3 leaves everything as it was.  If it was for want of room (ENOSPC, EDQUOT, EFBIG) and the
 * log is long, a checkpoint gives most of it back and step 3 is tried once more; if it was for options.max_private_bytes, an
 * application does, which may have to wait as step 2 does (then: STEAD_LIMIT).  After it the commit stands in the log whatever
 * happens later; a failure of step 5 poisons the store; step 6 never fails a commit: what could not be applied now is
 * applied by the next one, by close, or by recovery.
 *
 * TURNS: the unlock that ends a section does steps 2, 3 and 6 (section.c); stead_commit inside a section does 2, 3, 5.
 * LIVE: there is no image to capture; DURABLE syncs the used range and writes a fresh header.
 */
#include <errno.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "store/call.h"

#define LOG_WORTH_BYTES (UINT64_C(256) << 10) /* a new log takes as much */
#define AT_ONCE_BYTES (UINT64_C(64) << 20)    /* a commit can as well do it: some 8 ms */
#define BACKUP_PIECE_MS 5                     /* is copied in less, as a rule */
#define CHANGE_POLL_NS 10000000               /* a reader alone looks this often whether somebody committed */
#define CHANGE_SLICE_MS 250 /* and one that is told sleeps so long at most before it looks who is there */

/* ---- pieces */

static void publish_commit(struct stead *s)
{
    if (s->unit == NULL || !s->has_slot)
        return;
    store_note_change(s);
    change_publish(&s->unit->commit_seq, &s->unit->commit_word, &s->unit->commit_sleepers, image_commit_seq(s->image));
}

/* Store lock held exclusively.  0 also when there was nothing to do. */
static int apply_now(struct stead *s, int (*work)(struct image *), int64_t deadline_ns)
{
    int rc = store_apply_lock(s, true, deadline_ns);
    held_off_note(s, rc != 0);
    if (rc != 0)
        return rc;
    heap_guard_pause(s->heap);
    rc = work(s->image);
    heap_guard_resume(s->heap);
    struct image_stat stat;
    image_stat(s->image, &stat);
    change_publish(&s->unit->durable_seq, &s->unit->durable_word, NULL, stat.durable_seq);
    store_apply_unlock(s, rc == 0);
    held_off_publish(s);
    return rc;
}

static int commit_image(struct stead *s, bool durable, uint64_t *seq)
{
    heap_guard_pause(s->heap); /* nothing but in builds with AddressSanitizer: the diff reads free blocks, too */
    int rc = durable ? image_commit_deferred(s->image, heap_used_bytes(s->heap), seq)
                     : image_commit(s->image, heap_used_bytes(s->heap), seq);
    heap_guard_resume(s->heap);
    return rc;
}

/* No room for the log, and a checkpoint would give up most of it? */
static bool log_is_in_the_way(struct stead *s, int rc)
{
    struct image_stat stat;
    if (rc != ENOSPC && rc != EDQUOT && rc != EFBIG)
        return false;
    image_stat(s->image, &stat);
    return stat.log_bytes > LOG_WORTH_BYTES;
}

/* The most that a commit waits for who holds off the file.  While this process makes a backup it waits for its next piece. */
static int64_t room_deadline(const struct stead *s)
{
    if (s->timeout_ms == 0)
        return atomic_load(&s->backups) != 0 ? deadline_after_ms(BACKUP_PIECE_MS) : 0;
    return deadline_after_ms(s->timeout_ms);
}

/* The limit of private memory is met with commits that are not in the file yet: they go there now, or somebody is in the way. */
static int commit_after_applying(struct stead *s, bool durable, uint64_t *seq)
{
    int rc = apply_now(s, image_apply, room_deadline(s));
    if (rc == EBUSY || rc == ETIMEDOUT)
        return held_off_explain(
            s, STEAD_LIMIT,
            "the commit and those that are not in the file yet need more private memory than the limit,");
    return rc != 0 ? rc : commit_image(s, durable, seq);
}

/* durable: the caller goes on to store_make_durable(). */
static int commit_locked(struct stead *s, bool durable, uint64_t *seq)
{
    int rc = commit_image(s, durable, seq);
    if (log_is_in_the_way(s, rc) && apply_now(s, image_checkpoint, 0) == 0)
        rc = commit_image(s, durable, seq);
    else if (rc == STEAD_LIMIT && image_limit_waits(s->image))
        rc = commit_after_applying(s, durable, seq);
    if (rc != 0)
        return error_about(rc, s->file.path);
    s->rolled_back = false;
    held_off_publish(s);
    publish_commit(s);
    return 0;
}

int store_commit_locked(struct stead *s, uint64_t *seq)
{
    return commit_locked(s, false, seq);
}

int store_make_durable(struct stead *s, uint64_t seq)
{
    int rc = image_sync(s->image, seq);
    if (rc == 0 && s->unit != NULL && s->has_slot)
        change_publish(&s->unit->durable_seq, &s->unit->durable_word, NULL, seq);
    return error_about(rc, s->file.path);
}

int store_make_room(struct stead *s)
{
    if (!image_wants_checkpoint(s->image))
        return 0;
    if (atomic_load(&s->backups) != 0) { /* of this process: backup.c */
        int rc = apply_now(s, image_checkpoint, deadline_after_ms(BACKUP_PIECE_MS));
        return rc == EBUSY || rc == ETIMEDOUT ? 0 : rc;
    }
    int rc = apply_now(s, image_checkpoint, s->timeout_ms == 0 ? 0 : deadline_after_ms(s->timeout_ms));
    return rc == EBUSY || rc == ETIMEDOUT ? held_off_explain(s, ETIMEDOUT, "the log is over its limit") : rc;
}

bool store_readers_attached(const struct stead *s)
{
    return presence_count_role(s->presence, PRESENCE_READER) != 0 || lock_byte_taken(s->lock_fd, LOCK_BYTE_READERS, 1);
}

/* A commit with readers attached goes home. */
static bool readers_wait(const struct stead *s, bool durable)
{
    return durable && image_has_unapplied(s->image) && store_readers_attached(s);
}

/* The last tries were in vain, and so would this one be: not worth a sync of the log. */
static bool still_held_off(struct stead *s)
{
    if (atomic_load_explicit(&s->unit->held_off_since_s, memory_order_relaxed) == 0)
        return false;
    int rc = store_apply_lock(s, true, 0);
    if (rc == 0)
        store_apply_unlock(s, false);
    return rc != 0;
}

/* Store lock held exclusively. */
void store_settle(struct stead *s, bool durable)
{
    if (image_failed(s->image))
        return;
    enum image_work due = image_work_due(s->image);
    if (due == IMAGE_SYNC) {
        (void)image_sync_some(s->image);
    } else if (due == IMAGE_CHECKPOINT) {
        (void)apply_now(s, image_checkpoint, 0);
    } else {
        bool readers = readers_wait(s, durable);
        if (due == IMAGE_REST && !readers)
            return;
        /* Much waits, from before they came: in pieces.  They find it in the log. */
        bool all = readers && image_waiting_bytes(s->image) <= AT_ONCE_BYTES;
        if (!durable && (still_held_off(s) || store_make_durable(s, image_commit_seq(s->image)) != 0))
            return;
        /* A store without a name is read without its log: the file must be a commit whenever nobody changes it. */
        all = all || !file_is_current(&s->file);
        (void)apply_now(s, all ? image_apply : image_apply_some, 0);
    }
}

int store_rollback_locked(struct stead *s)
{
    heap_guard_pause(s->heap);
    int rc = image_rollback(s->image);
    heap_guard_resume(s->heap);
    if (rc == 0) {
        heap_reload(s->heap, image_bytes(s->image));
        s->rolled_back = true;
    }
    return error_about(rc, s->file.path);
}

/* ---- the public calls */

static int commit_sole(struct stead *s, bool durable)
{
    uint64_t seq;
    bool held = store_holds_exclusive(s);
    int rc = store_lock_exclusive(s, DEADLINE_NEVER);
    if (rc != 0)
        return rc;
    rc = store_make_room(s);
    if (rc == 0)
        rc = commit_locked(s, durable, &seq);
    if (rc != 0 || !durable || held) {
        if (rc == 0 && durable)
            rc = store_make_durable(s, seq);
        if (rc == 0)
            store_settle(s, durable);
        store_unlock_quietly(s);
        return rc;
    }
    store_unlock_quietly(s);
    rc = store_make_durable(s, seq);
    if (rc != 0)
        return rc;
    enum image_work due = image_work_due(s->image);
    if (due == IMAGE_SYNC) {
        (void)image_sync_some(s->image); /* needs no lock; a failure is every later commit's */
    } else if ((due != IMAGE_REST || readers_wait(s, true)) && store_lock_exclusive(s, 0) == 0) {
        store_settle(s, true);
        store_unlock_quietly(s);
    }
    return rc;
}

static int commit_turns(struct stead *s, bool durable)
{
    uint64_t seq = image_commit_seq(s->image);
    int rc = 0;
    if (store_holds_exclusive(s)) {
        rc = store_make_room(s);
        if (rc == 0)
            rc = store_commit_locked(s, &seq);
    }
    if (rc == 0 && durable)
        rc = store_make_durable(s, seq);
    if (rc == 0 && store_holds_exclusive(s))
        store_settle(s, durable);
    return rc;
}

/* After a failed sync the kernel calls the pages clean that it could not write, so a second try would succeed and lie. */
static int flush_live(struct stead *s)
{
    if (atomic_load(&s->unit->flush_failed) != 0)
        return error_set(STEAD_FAILED, "%s: an earlier sync failed; what is on the disk is unknown", s->file.path);
    int rc = superblock_read(&s->file, &s->super); /* another process may have written the last one */
    if (rc != 0)
        return rc;
    store_fill_super(s, &s->super);
    s->super.commit_seq = atomic_load(&s->unit->commit_seq) + 1;
    rc = image_flush(s->image, &s->super, heap_used_bytes(s->heap));
    if (rc == 0)
        return 0;
    atomic_store(&s->unit->flush_failed, 1);
    return error_set(STEAD_FAILED, "%s: the sync failed (%s); what is on the disk is unknown", s->file.path,
                     error_text(rc));
}

static int commit_live(struct stead *s, bool durable)
{
    int rc = store_lock_exclusive(s, DEADLINE_NEVER);
    if (rc != 0)
        return rc;
    if (durable && !s->file.in_memory)
        rc = flush_live(s);
    if (rc == 0) {
        uint64_t seq = atomic_load(&s->unit->commit_seq) + 1;
        store_note_change(s);
        change_publish(&s->unit->commit_seq, &s->unit->commit_word, &s->unit->commit_sleepers, seq);
        change_publish(&s->unit->durable_seq, &s->unit->durable_word, NULL, seq);
    }
    store_unlock_quietly(s);
    return error_keep(rc);
}

int stead_commit(stead *store, stead_durability durability)
{
    STORE_CALL(store);
    int rc = store_enter(store);
    if (rc != 0)
        return rc;
    if (store->read_only)
        return error_set(EPERM, "%s is open read-only", store->file.path);
    if (atomic_load(&store->leaving))
        return error_set(ECANCELED, "%s was abandoned: nothing is committed any more", store->file.path);
    if (store->seal_failed)
        return error_set(STEAD_FAILED, "%s: an earlier close failed while it sealed the file; close it again",
                         store->file.path);
    if (durability != STEAD_DURABLE && durability != STEAD_BUFFERED)
        return error_set(EINVAL, "%s: %d is no durability", store->file.path, (int)durability);
    bool durable = durability == STEAD_DURABLE;
    switch (store->sharing) {
    case STEAD_SOLE:
        return commit_sole(store, durable);
    case STEAD_TURNS:
        return commit_turns(store, durable);
    default:
        return commit_live(store, durable);
    }
}

int stead_rollback(stead *store)
{
    STORE_CALL(store);
    int rc = store_enter(store);
    if (rc != 0)
        return rc;
    if (store->read_only)
        return error_set(EPERM, "%s is open read-only", store->file.path);
    if (store->sharing == STEAD_LIVE)
        return error_set(ENOTSUP, "%s is open in LIVE: there is no earlier image to return to", store->file.path);
    if (store->sharing == STEAD_TURNS) {
        if (!store_holds_exclusive(store))
            return error_set(EPERM, "%s is open in TURNS: a rollback undoes the exclusive section that it is called in",
                             store->file.path);
        return store_rollback_locked(store);
    }
    rc = store_lock_exclusive(store, DEADLINE_NEVER);
    if (rc != 0)
        return rc;
    rc = store_rollback_locked(store);
    store_unlock_quietly(store);
    return rc;
}

/* The number of the last commit that this handle can see. */
uint64_t store_commit_seq(const struct stead *s)
{
    bool told = s->has_slot || lock_byte_taken(s->lock_fd, LOCK_BYTE_SLOT0, PRESENCE_SLOTS);
    return told && s->sharing == STEAD_LIVE ? atomic_load(&s->unit->commit_seq) : image_commit_seq(s->image);
}

static int explain_wait(const struct stead *s, int rc)
{
    if (rc == ECANCELED)
        return error_set(rc, "%s was abandoned by another thread while this one waited for a commit", s->file.path);
    return error_set(rc, "%s: nobody committed in time", s->file.path);
}

/* Nobody is attached, so the lock unit's words mean nothing: what the store itself says is its last commit.  After a death
 * that is in the log: a section finds it. */
static uint64_t seq_alone(struct stead *s, uint64_t since_commit)
{
    struct superblock now;
    if (s->private_replay)
        return store_commit_seq(s); /* nobody can come */
    if (superblock_read(&s->file, &now) != 0)
        return since_commit;
    if (now.state != SUPER_OPEN_LOGGED)
        return now.commit_seq;
    if (store_lock_shared(s, 0) != 0)
        return since_commit;
    uint64_t seq = store_commit_seq(s);
    store_unlock_quietly(s);
    return seq;
}

/* A reader that is told an older number than the one it has seen asks the store: an opener made the words anew and has not
 * recovered yet, or a writer has not got round to telling. */
static bool seq_differs(struct stead *s, uint64_t seq, uint64_t since_commit)
{
    if (seq >= since_commit || !s->read_only)
        return seq != since_commit;
    if (store_lock_shared(s, 0) != 0)
        return false;
    seq = store_commit_seq(s);
    store_unlock_quietly(s);
    return seq != since_commit;
}

/* In slices: a reader without a slot does not hear of a whole session that begins and ends while it sleeps, nor of a death;
 * but each changes the number that the store itself has. */
static int wait_change(struct stead *s, uint64_t since_commit, int64_t deadline_ns)
{
    const _Atomic uint64_t *word = s->read_only ? &s->unit->durable_seq : &s->unit->commit_seq;
    const _Atomic uint32_t *futex = s->read_only ? &s->unit->durable_word : &s->unit->commit_word;
    _Atomic uint32_t *sleepers = s->read_only ? NULL : &s->unit->commit_sleepers;
    for (;;) {
        bool told = s->has_slot || lock_byte_taken(s->lock_fd, LOCK_BYTE_SLOT0, PRESENCE_SLOTS);
        uint64_t seq = told ? atomic_load_explicit(word, memory_order_acquire) : seq_alone(s, since_commit);
        if (seq_differs(s, seq, since_commit))
            return 0;
        if (deadline_ns == 0 || deadline_over(deadline_ns))
            return deadline_ns == 0 ? EBUSY : ETIMEDOUT;
        if (atomic_load(&s->leaving))
            return ECANCELED;
        if (told && seq == since_commit) {
            int64_t slice = deadline_after_ms(CHANGE_SLICE_MS);
            (void)change_wait(word, futex, sleepers, since_commit, slice < deadline_ns ? slice : deadline_ns,
                              &s->leaving);
        } else {
            nanosleep(&(struct timespec){.tv_nsec = CHANGE_POLL_NS}, NULL);
        }
    }
}

int stead_wait_change(stead *store, uint64_t since_commit, int timeout_ms)
{
    STORE_CALL(store);
    int rc = store_enter(store);
    if (rc != 0)
        return rc;
    rc = wait_change(store, since_commit, timeout_ms == 0 ? 0 : deadline_after_ms(timeout_ms));
    return rc == 0 ? 0 : explain_wait(store, rc);
}
