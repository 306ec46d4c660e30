/*
 * backup.c -- stead_backup: the last commit as a sealed file of its own, while others work.
 *
 *   who                      a piece at a time     while the commit is fixed   while the rest is copied
 *   SOLE, TURNS, writer      apply lock shared     store lock and apply lock   apply lock shared
 *   reader of such a store   its section (the apply lock shared)               the same, to the end of the copy
 *   LIVE                     -                     store lock shared: no commit is on disk to copy, writers must wait
 *
 * Who holds the apply lock holds off application, and with it the end of the log's growth: for a piece of 1 MiB at a time,
 * and at the end for what commits changed during the last round (persist/backup.c).  Between two pieces others get their
 * turn: who only tries (a commit) would never meet the moment, so the copier stays away for a while, longer if it can see that
 * something is due.
 *
 * A process does not let its commits fail because it makes a backup (s->backups tells store_make_room()): with its log at
 * the limit a commit waits a moment for the piece, and should it be the last one, goes on.  Whoever calls this inside a
 * section of its own keeps what that holds, for all of the copy.
 */
#include <errno.h>

#include "lock/futex.h"
#include "store/call.h"

#define AWAY_NS_MIN 50000
#define AWAY_NS_MAX 20000000
#define AWAY_SHARE 8 /* of the time that a piece took */

static int64_t bounded_ns(int64_t ns)
{
    return ns < AWAY_NS_MIN ? AWAY_NS_MIN : ns > AWAY_NS_MAX ? AWAY_NS_MAX : ns;
}

/* After a piece that took so long, commit `seq` having been the last one before it. */
static void stay_away(const struct stead *s, int64_t took_ns, uint64_t seq)
{
    sleep_ns(bounded_ns(took_ns / AWAY_SHARE));
    if (s->read_only || image_commit_seq(s->image) == seq)
        return;
    int64_t until_ns = clock_ns() + bounded_ns(took_ns);
    while (image_work_due(s->image) != IMAGE_REST && !deadline_over(until_ns) && !atomic_load(&s->leaving))
        sleep_ns(AWAY_NS_MIN);
}

static int hold_file(struct stead *s)
{
    return s->read_only ? store_lock_shared(s, DEADLINE_NEVER) : store_apply_lock(s, false, DEADLINE_NEVER);
}

static void let_file_go(struct stead *s)
{
    if (s->read_only)
        store_unlock_quietly(s);
    else
        store_apply_unlock(s, true);
}

static int copy_ahead(struct stead *s, struct image_backup *backup)
{
    int rc = 0;
    for (bool more = true; more && rc == 0;) {
        int64_t began_ns = clock_ns();
        uint64_t seq = image_commit_seq(s->image);
        if (atomic_load(&s->leaving))
            return error_set(ECANCELED, "%s was abandoned while it was being copied", s->file.path);
        rc = hold_file(s);
        if (rc == STEAD_FAILED && !s->read_only)
            return 0; /* somebody died while he changed the file: whoever takes the store lock makes it whole */
        if (rc != 0)
            return rc;
        rc = image_backup_ahead(backup, &more);
        let_file_go(s);
        if (more)
            stay_away(s, clock_ns() - began_ns, seq);
    }
    return rc;
}

static int fix(struct stead *s, struct image_backup *backup)
{
    struct superblock super = s->super;
    if (s->has_slot)
        store_fill_super(s, &super);
    if (s->sharing == STEAD_LIVE)
        super.commit_seq = store_commit_seq(s);
    return image_backup_fix(backup, &super);
}

/* SOLE and TURNS, by a writer. */
static int copy_beside_commits(struct stead *s, struct image_backup *backup)
{
    int rc = copy_ahead(s, backup);
    if (rc == 0)
        rc = store_lock_shared(s, DEADLINE_NEVER); /* nobody commits; TURNS: catches up with others first */
    if (rc != 0)
        return rc;
    rc = store_apply_lock(s, false, DEADLINE_NEVER);
    if (rc != 0) {
        store_unlock_quietly(s);
        return rc;
    }
    rc = fix(s, backup);
    store_unlock_quietly(s);
    if (rc == 0)
        rc = image_backup_copy(backup);
    store_apply_unlock(s, true);
    return rc;
}

/* LIVE, and readers: in a section. */
static int copy_in_section(struct stead *s, struct image_backup *backup)
{
    int rc = s->sharing == STEAD_LIVE || s->private_replay ? 0 : copy_ahead(s, backup);
    if (rc == 0)
        rc = store_lock_shared(s, DEADLINE_NEVER);
    if (rc != 0)
        return rc;
    rc = fix(s, backup);
    heap_guard_pause(s->heap);
    if (rc == 0)
        rc = image_backup_copy(backup);
    heap_guard_resume(s->heap);
    store_unlock_quietly(s);
    return rc;
}

static int backup(struct stead *s, const char *path)
{
    struct image_backup *backup;
    int rc = image_backup_begin(&backup, s->image, path);
    if (rc != 0)
        return rc;
    bool beside = !s->read_only && s->sharing != STEAD_LIVE;
    if (beside)
        atomic_fetch_add(&s->backups, 1);
    rc = beside ? copy_beside_commits(s, backup) : copy_in_section(s, backup);
    if (beside)
        atomic_fetch_sub(&s->backups, 1);
    return image_backup_finish(backup, rc);
}

int stead_backup(stead *store, const char *path)
{
    STORE_CALL(store);
    struct file target = {.fd = -1};
    int rc = store_enter_with(store, path != NULL, "path");
    if (rc != 0)
        return rc;
    rc = file_resolve(&target, path);
    if (rc != 0)
        return error_keep(rc);
    if (target.in_memory)
        return error_set(EINVAL, "%s: a backup is a file", path);
    return error_about(backup(store, target.path), store->file.path);
}
