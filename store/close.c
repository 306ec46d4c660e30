/*
 * close.c -- stead_close, stead_abandon.
 *
 * The last handle of this process:
 *   step                                                             a crash right after it leaves
 *   1 refuse while a thread holds the lock, waits for it, or is in    -
 *     another call on the store (EBUSY)
 *   2 SOLE: commit what is pending, durably                          the commit, in the log
 *     TURNS: the log is made durable (sections commit themselves)    the last section
 *     LIVE: -
 *   3 take the gate: nobody opens or closes meanwhile                -
 *   4 other writers attached: step 6                                 -
 *     TURNS: take the turn: the last commit may be another's         -
 *   5 the last writer: apply lock, checkpoint, seal (image_seal:     what image_seal's own steps say: the log until
 *     both superblocks, a sync between; truncated and punched only   the superblocks are sealed, then the sealed file
 *     if no reader is attached; the log unlinked)
 *   6 detach
 * A failure in steps 1, 2 and 5 leaves the store open.  Only close and abandon are left after a seal that could not be undone,
 * and where LIVE gave its heap away before the seal and cannot have it back (no memory, or a wild write).  If a reader's
 * section holds off step 5 longer than options.timeout_ms, the log is left for the next opener: nothing is lost, the close
 * succeeds.
 *
 * Step 1 is repeated after step 2, which may wait for the disk.  A thread that begins a call after that, or has not come as
 * far as to wait or to be counted (call.h), is one that uses a handle beside its close: the caller's error.
 * stead_abandon cannot refuse.  It sends away whoever waits (ECANCELED: rwlock_shut(), s->leaving) and waits until all
 * other calls are over: none of them waits for anything but the disk then.  Called from a callback it leaves all that to
 * the end of the call that the callback belongs to (call.c); until then nothing is committed any more (s->leaving).  From an
 * upgrade callback, where the store is not open yet, s->leaving makes the commit fail, and with it the open.
 *
 * LIVE is sealed by the last writer only if no writer ended without close and no thread inside its exclusive section,
 * or that was accepted or repaired; otherwise the superblock goes on saying "open, live", which the next opener finds.
 */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "persist/map.h"
#include "store/call.h"
#include "store/page.h"

#define FREE_RANGES_MAX 4096
#define PUNCH_BYTES_MIN (UINT64_C(256) << 10)

struct free_ranges {
    struct image_free_range *range;
    unsigned count;
};

static int collect_free_range(uint64_t offset, uint64_t bytes, void *arg)
{
    struct free_ranges *ranges = arg;
    ranges->range[ranges->count++] = (struct image_free_range){offset, bytes};
    return ranges->count == FREE_RANGES_MAX;
}

/* LIVE cannot tell: its writers leave no count of what they changed. */
static bool changed_since_open(const struct stead *s)
{
    return s->sharing == STEAD_LIVE || s->recovered || image_commit_seq(s->image) != s->opened_seq;
}

/* heap_trim() looks at every segment of the heap: not for a session that committed nothing, whose close costs the same
 * whatever the size. */
static int commit_trimmed(struct stead *s, uint64_t *seq)
{
    int rc = store_commit_locked(s, seq);
    if (rc != 0 || !changed_since_open(s))
        return rc;
    heap_trim(s->heap);
    rc = store_commit_locked(s, seq);
    if (rc == 0 || image_failed(s->image))
        return rc;
    return store_rollback_locked(s); /* all that mattered is committed: a full disk keeps its free tail */
}

/* No memory, or no sound heap any more: from now on every call but close and abandon is refused before it looks for it. */
static void give_up_heap(struct stead *s)
{
    s->direct_lock = false;
    atomic_fetch_or(&s->gate, (unsigned)GATE_NO_HEAP);
}

/* No writer but this process is attached; gate, store lock and apply lock are held. */
static int seal(struct stead *s)
{
    struct free_ranges ranges = {malloc(FREE_RANGES_MAX * sizeof *ranges.range), 0};
    bool readers = store_readers_attached(s);
    uint32_t state = s->super.state;
    uint64_t used = s->heap != NULL ? heap_used_bytes(s->heap) : s->super.used_bytes;
    if (!readers && changed_since_open(s) && ranges.range != NULL && s->heap != NULL)
        (void)heap_each_free_range(s->heap, PUNCH_BYTES_MIN, collect_free_range, &ranges);
    if (readers) /* a shrink under a mapping kills its reader: keep the length */
        used = max_u64(used, image_bytes(s->image));
    store_fill_super(s, &s->super);
    s->super.last_detach_s = time(NULL);
    if (s->heap != NULL && page_root(s) < used)
        s->super.root = page_root(s);
    bool detach = s->sharing == STEAD_LIVE && s->heap != NULL;
    if (detach) { /* gives back what its threads own, in the shared image: before its checksums are made */
        heap_detach(s->heap);
        s->heap = NULL;
    }
    if (s->heap != NULL)
        heap_guard_pause(s->heap);
    int rc = image_seal(s->image, &s->super, used, ranges.range, ranges.count);
    if (s->heap != NULL)
        heap_guard_resume(s->heap);
    free(ranges.range);
    if (rc != 0 && detach && store_attach_heap(s, false, false) != 0)
        give_up_heap(s);
    if (rc == 0) {
        change_publish(&s->unit->durable_seq, &s->unit->durable_word, NULL, atomic_load(&s->unit->commit_seq));
    } else if (s->super.state != state) {
        /* A superblock may say "sealed": later commits into the log would be ignored after a crash. */
        s->seal_failed = true;
    }
    s->super.root = 0;
    return rc;
}

static bool is_timeout(int rc)
{
    return rc == EBUSY || rc == ETIMEDOUT;
}

/* TURNS: others may have had the turn since this process did.  The file is sealed from the last commit, whoever made it. */
static int take_last_turn(struct stead *s)
{
    uint64_t seq;
    int rc = store_lock_exclusive(s, s->patience_ns);
    if (rc != 0)
        return rc;
    rc = commit_trimmed(s, &seq);
    if (rc == 0) /* the checkpoint would, but under the apply lock, which holds off readers */
        rc = store_make_durable(s, seq);
    return rc;
}

static int finish_private(struct stead *s)
{
    bool turn = s->sharing == STEAD_TURNS && s->heap != NULL;
    int rc = turn ? take_last_turn(s) : 0;
    if (rc == 0)
        rc = store_apply_lock(s, true, s->deadline_ns);
    if (rc == 0) {
        if (s->heap != NULL)
            heap_guard_pause(s->heap);
        rc = image_checkpoint(s->image); /* before the superblock is filled in: it writes one, too */
        if (s->heap != NULL)
            heap_guard_resume(s->heap);
        if (image_can_seal(s->image, rc))
            rc = seal(s);
        store_apply_unlock(s, rc == 0);
    }
    if (turn && rwlock_held(s->store_lock))
        (void)rwlock_unlock(s->store_lock);
    return is_timeout(rc) ? 0 : rc; /* the log stays for the next opener */
}

/* Without the heap (an open that failed, or a close) nobody knows how much is used; the superblock on the disk is of the last
 * flush, and others may have come and gone since.  All that is in the file belongs to it, as after a crash. */
static int use_whole_file(struct stead *s)
{
    uint64_t bytes;
    int rc = file_size(s->file.fd, &bytes);
    if (rc != 0)
        return error_set(rc, "cannot stat %s: %s", s->file.path, error_text(rc));
    bytes = min_u64(round_down(format_image_bytes(bytes), UNIT_BYTES), s->capacity);
    s->super.used_bytes = image_follow(s->image);
    if (s->super.used_bytes < bytes)
        return error_set(ENOMEM, "%s: no memory to map the end of it, which another process added", s->file.path);
    return 0;
}

static int finish_live(struct stead *s)
{
    if (s->heap != NULL)
        heap_trim(s->heap);
    /* A thread that died inside leaves no dead process, but the lock remembers it until somebody repaired what it did. */
    if (rwlock_left_inconsistent(s->store_lock))
        atomic_store(&s->unit->unclean, 1);
    if (atomic_load(&s->unit->unclean) != 0)
        return 0; /* never mistaken for clean */
    if (atomic_load(&s->unit->flush_failed) != 0)
        return error_set(STEAD_FAILED, "%s: an earlier sync failed; stead_abandon() leaves the store marked unclean",
                         s->file.path);
    int rc = superblock_read(&s->file, &s->super);
    if (rc == 0 && s->heap == NULL)
        rc = use_whole_file(s);
    if (rc == 0) {
        s->super.commit_seq = atomic_load(&s->unit->commit_seq);
        rc = seal(s);
    }
    return rc;
}

int store_finish(struct stead *s)
{
    bool live = s->sharing == STEAD_LIVE;
    if (presence_count_role(s->presence, PRESENCE_WRITER) != 0)
        return 0; /* others go on, and the dead stay countable */
    /* In this order: whoever did not count as alive closed or is dead by now, and nobody comes while the gate is held. */
    if (live && presence_dead_writers(s->presence, false) != 0)
        atomic_store(&s->unit->unclean, 1);
    return live ? finish_live(s) : finish_private(s);
}

static int commit_pending(struct stead *s)
{
    uint64_t seq;
    int rc;
    if (s->sharing == STEAD_LIVE)
        return 0;
    if (image_failed(s->image))
        return error_set(STEAD_FAILED, "%s: an earlier sync failed; stead_abandon() it and open it again",
                         s->file.path);
    if (s->sharing == STEAD_TURNS)
        return store_make_durable(s, image_commit_seq(s->image));
    rc = store_lock_exclusive(s, DEADLINE_NEVER);
    if (rc != 0)
        return rc;
    rc = commit_trimmed(s, &seq);
    if (rc == 0)
        rc = store_make_durable(s, seq);
    store_unlock_quietly(s);
    return rc;
}

static int refuse_in_use(const struct stead *s)
{
    if (rwlock_used_by_process(s->store_lock))
        return error_set(EBUSY, "%s: a thread of this process holds its lock or waits for it", s->file.path);
    if (store_calls(s) != 0)
        return error_set(EBUSY, "%s: a thread of this process is in another call on it", s->file.path);
    return 0;
}

static int finish_writer(struct stead *s)
{
    int rc = store_finish(s);
    if (rc == 0 && image_is_late(s->image)) /* the superblock does not tell of this session */
        lock_unit_leave(s->unit, s->super.id, s->super.sequence, atomic_load(&s->unit->last_attach_s),
                        atomic_load(&s->unit->last_detach_s));
    return rc;
}

static int close_writer(struct stead *s)
{
    bool removed = !file_has_name(&s->file);
    s->deadline_ns = s->timeout_ms == 0 ? 0 : deadline_after_ms(s->timeout_ms);
    s->patience_ns = store_patience(s->deadline_ns);
    int rc = removed && s->sharing != STEAD_LIVE ? 0 : commit_pending(s);
    if (rc == 0)
        rc = refuse_in_use(s);
    if (rc != 0)
        return rc;
    rc = lock_byte_take(s->lock_fd, LOCK_BYTE_GATE, LOCK_BYTE_WRITE, s->patience_ns);
    if (is_timeout(rc) && s->sharing != STEAD_LIVE)
        return 0; /* somebody's open takes long: the log stays for the next opener */
    if (rc != 0)
        return error_set(rc, "%s is being opened by another process, which takes long", s->file.path);
    atomic_store(&s->unit->last_detach_s, (int64_t)time(NULL));
    /* A removed store has no name to open it by: there is nothing to seal.  One that was moved is one file from now on, if
     * the log that its checkpoint replaces is still where it was: else the log went, too, and waits for the next opener. */
    if (file_has_name(&s->file) && (file_is_current(&s->file) || image_log_named(s->image)))
        rc = finish_writer(s);
    else if (!file_has_name(&s->file))
        image_unname_log(s->image);
    if (rc != 0)
        (void)lock_byte_drop(s->lock_fd, LOCK_BYTE_GATE);
    return error_keep(rc);
}

static int close_forked(struct stead *s)
{
    if (--s->handles == 0)
        store_free(s);
    return 0;
}

static void dispose(struct stead *s)
{
    registry_unpublish(s);
    store_detach(s);
    registry_withdraw(s);
    store_free(s);
}

int stead_close(stead *store)
{
    NOT_CANCELLED;
    if (store == NULL)
        return error_set(EINVAL, "stead_close: no store");
    if ((atomic_load(&store->gate) & GATE_FORKED) != 0)
        return close_forked(store);
    /* A visitor may wait for what this thread holds; then the close is refused anyway. */
    bool holds = rwlock_held(store->store_lock) || store_calls(store) != 0;
    struct error_memo before;
    error_remember(&before);
    switch (registry_begin_close(store, holds ? 1 : store_patience(0))) {
    case CLOSE_OTHERS:
        return 0;
    case CLOSE_OPENING:
        return error_set(EBUSY, "%s: another thread is opening it, or closing it", store->file.path);
    case CLOSE_LAST:
        break;
    }
    int rc = refuse_in_use(store);
    if (rc == 0 && !store->read_only)
        rc = close_writer(store);
    if (rc != 0) {
        registry_cancel_close(store);
        return rc;
    }
    dispose(store);
    error_recall(&before);
    return 0;
}

static void send_away(struct stead *s)
{
    rwlock_shut(s->store_lock);
    if (s->apply_lock != NULL)
        rwlock_shut(s->apply_lock);
    while (store_calls(s) != 0) {
        if (s->unit != NULL) {
            change_shake(&s->unit->commit_word);
            change_shake(&s->unit->durable_word);
        }
        nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    }
    registry_await_visitors(s);
}

void store_abandon(struct stead *s)
{
    if ((atomic_load(&s->gate) & GATE_FORKED) != 0) { /* the callback forked */
        (void)close_forked(s);
        return;
    }
    send_away(s);
    if (s->sharing == STEAD_LIVE && !s->read_only)
        atomic_store(&s->unit->unclean, 1); /* ended without close, as if killed */
    dispose(s);
}

void stead_abandon(stead *store)
{
    NOT_CANCELLED;
    if (store == NULL)
        return;
    if ((atomic_load(&store->gate) & GATE_FORKED) != 0) {
        (void)close_forked(store);
        return;
    }
    struct error_memo before;
    error_remember(&before);
    enum registry_close close = registry_begin_close(store, 0);
    if (close != CLOSE_OTHERS)
        atomic_store(&store->leaving, true);
    if (close == CLOSE_LAST && !store_call_abandons(store))
        store_abandon(store);
    error_recall(&before);
}
