/*
 * close.c -- stead_close, stead_abandon, stead_remove.
 *
 * The last handle of this process:
 *   step                                                             a crash right after it leaves
 *   1 refuse while a thread holds the lock (EBUSY)                   -
 *   2 SOLE: commit what is pending, durably                          the commit, in the log
 *     TURNS: the log is made durable (sections commit themselves)    the last section
 *     LIVE: -
 *   3 take the gate: nobody opens or closes meanwhile                -
 *   4 other writers attached: step 6                                 -
 *   5 the last writer: apply lock, checkpoint, seal (image_seal:     what image_seal's own steps say: the log until
 *     both superblocks, a sync between; truncated and punched only   the superblocks are sealed, then the sealed file
 *     if no reader is attached; the log unlinked)
 *   6 detach
 * A failure in steps 1 to 3 and of the commit leaves the store open.  If a reader's section holds off step 5 longer than
 * options.timeout_ms, the log is left for the next opener: nothing is lost, the close succeeds.
 *
 * LIVE is sealed by the last writer only if no writer ended without close, or that was accepted or repaired; otherwise the
 * superblock goes on saying "open, live", which the next opener finds.
 */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "store/store.h"

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

/* No writer but this process is attached; gate, store lock and apply lock are held. */
static int seal(struct stead *s)
{
    struct free_ranges ranges = {malloc(FREE_RANGES_MAX * sizeof *ranges.range), 0};
    bool readers = presence_count_role(s->presence, PRESENCE_READER) != 0 || lock_byte_taken(s->lock_fd, LOCK_BYTE_READERS, 1);
    uint64_t used = heap_used_bytes(s->heap);
    if (!readers && ranges.range != NULL)
        (void)heap_each_free_range(s->heap, PUNCH_BYTES_MIN, collect_free_range, &ranges);
    if (readers) /* a shrink under a mapping kills its reader: keep the length */
        used = max_u64(used, image_bytes(s->image));
    store_fill_super(s);
    s->super.last_detach_s = time(NULL);
    s->super.root = page_root(s);
    int rc = image_seal(s->image, &s->super, used, ranges.range, ranges.count);
    if (rc == 0) {
        struct image_stat stat;
        image_stat(s->image, &stat);
        change_publish(&s->unit->applied_seq, &s->unit->applied_word, stat.commit_seq);
    }
    free(ranges.range);
    return rc;
}

static int finish_private(struct stead *s, bool last_writer)
{
    if (!last_writer)
        return 0;
    int rc = store_apply_lock(s, true, s->timeout_ms == 0 ? 0 : deadline_after_ms(s->timeout_ms));
    if (rc == EBUSY || rc == ETIMEDOUT)
        return 0; /* the log stays for the next opener */
    if (rc != 0)
        return rc;
    rc = seal(s);
    store_apply_unlock(s);
    return rc;
}

static int finish_live(struct stead *s, bool last_writer)
{
    if (presence_dead_writers(s->presence, false) != 0)
        atomic_store(&s->unit->unclean, 1);
    if (!last_writer)
        return 0;
    heap_trim(s->heap);
    if (atomic_load(&s->unit->unclean) != 0)
        return 0; /* never mistaken for clean */
    int rc = superblock_read(&s->file, &s->super);
    if (rc == 0) {
        s->super.commit_seq = atomic_load(&s->unit->commit_seq);
        s->super.accepted_unclean = atomic_load(&s->unit->accepted_unclean);
        rc = seal(s);
    }
    return rc;
}

static int commit_pending(struct stead *s)
{
    uint64_t seq;
    int rc;
    if (s->sharing == STEAD_LIVE)
        return 0;
    if (image_failed(s->image))
        return error_set(STEAD_FAILED, "%s: an earlier sync failed; stead_abandon() it and open it again", s->file.path);
    if (s->sharing == STEAD_TURNS)
        return store_make_durable(s, image_commit_seq(s->image));
    rc = store_lock_exclusive(s, DEADLINE_NEVER);
    if (rc != 0)
        return rc;
    heap_trim(s->heap);
    rc = store_commit_locked(s, &seq);
    if (rc == 0)
        rc = store_make_durable(s, seq);
    store_unlock_quietly(s);
    return rc;
}

static int close_writer(struct stead *s)
{
    bool removed = !file_is_current(&s->file);
    int rc = removed && s->sharing != STEAD_LIVE ? 0 : commit_pending(s);
    if (rc != 0)
        return rc;
    rc = lock_byte_take(s->lock_fd, LOCK_BYTE_GATE, LOCK_BYTE_WRITE, DEADLINE_NEVER);
    if (rc != 0)
        return error_set(rc, "%s: the gate cannot be taken", s->file.path);
    atomic_store(&s->unit->last_detach_s, (int64_t)time(NULL));
    bool last_writer = presence_count_role(s->presence, PRESENCE_WRITER) == 0;
    /* A removed store has no name to open it by: there is nothing to seal, and its log's name may be another's now. */
    if (!removed && file_is_current(&s->file))
        rc = s->sharing == STEAD_LIVE ? finish_live(s, last_writer) : finish_private(s, last_writer);
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

int stead_close(stead *store)
{
    if (store == NULL)
        return error_set(EINVAL, "stead_close: no store");
    if ((atomic_load(&store->gate) & GATE_FORKED) != 0)
        return close_forked(store);
    if (!registry_begin_close(store))
        return 0;
    int rc = 0;
    if (rwlock_held_by_process(store->store_lock))
        rc = error_set(EBUSY, "%s: a thread of this process holds its lock", store->file.path);
    else if (!store->read_only)
        rc = close_writer(store);
    if (rc != 0) {
        registry_cancel_close(store);
        return rc;
    }
    store_detach(store);
    registry_withdraw(store);
    store_free(store);
    return 0;
}

void stead_abandon(stead *store)
{
    if (store == NULL)
        return;
    if ((atomic_load(&store->gate) & GATE_FORKED) != 0) {
        (void)close_forked(store);
        return;
    }
    if (!registry_begin_close(store))
        return;
    store_detach(store);
    registry_withdraw(store);
    store_free(store);
}

int stead_remove(const char *path)
{
    struct file file = {.fd = -1};
    int rc = file_resolve(&file, path);
    if (rc != 0)
        return error_keep(rc);
    rc = file_unlink(file.path);
    if (rc != 0)
        return error_set(rc, "%s cannot be removed: %s", file.path, error_text(rc));
    if (file.in_memory)
        return 0;
    rc = file_unlink(file.log_path);
    if (rc == 0 || rc == ENOENT)
        rc = file_sync_directory(file.path);
    return error_keep(rc);
}
