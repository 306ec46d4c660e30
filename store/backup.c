/*
 * backup.c -- stead_backup: the last commit as a sealed file of its own, while others work.
 *
 *   who                      held while the commit is fixed       held while bytes are copied
 *   SOLE, TURNS, writer      store lock shared, apply lock        apply lock shared
 *   reader                   its section: the apply lock shared   the same
 *   LIVE                     store lock shared: no commit is on   the same
 *                            disk to copy, writers must wait
 *
 * A writer's own commits go on meanwhile: they need the apply lock only for application, which they try and put off.  The
 * log grows over its limit then, however long the copy takes: a process does not let its commits fail because it makes a
 * backup (s->backups, raised under the store lock, tells store_make_room()).  What waits is what changes the file: close,
 * and in TURNS another process's turn, which begins by applying.
 */
#include <errno.h>

#include "store/call.h"

/* SOLE and TURNS, by a writer. */
static int backup_beside_commits(struct stead *s, const char *path)
{
    struct image_backup *backup;
    int rc = store_lock_shared(s, DEADLINE_NEVER); /* nobody commits; TURNS: catches up with others first */
    if (rc != 0)
        return rc;
    rc = store_apply_lock(s, false, DEADLINE_NEVER);
    if (rc != 0) {
        store_unlock_quietly(s);
        return rc;
    }
    struct superblock super = s->super;
    store_fill_super(s, &super);
    rc = image_backup_begin(&backup, s->image, &super);
    atomic_fetch_add(&s->backups, 1);
    store_unlock_quietly(s);
    if (rc == 0)
        rc = image_backup_copy(backup, path);
    atomic_fetch_sub(&s->backups, 1);
    store_apply_unlock(s, true);
    return rc;
}

/* LIVE, and readers: in a section. */
static int backup_in_section(struct stead *s, const char *path)
{
    int rc = store_lock_shared(s, DEADLINE_NEVER);
    if (rc != 0)
        return rc;
    struct superblock super = s->super;
    if (s->has_slot)
        store_fill_super(s, &super);
    if (s->sharing == STEAD_LIVE)
        super.commit_seq = store_commit_seq(s);
    heap_guard_pause(s->heap);
    rc = image_backup(s->image, &super, path);
    heap_guard_resume(s->heap);
    store_unlock_quietly(s);
    return rc;
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
    rc = store->read_only || store->sharing == STEAD_LIVE ? backup_in_section(store, target.path)
                                                          : backup_beside_commits(store, target.path);
    return error_about(rc, store->file.path);
}
