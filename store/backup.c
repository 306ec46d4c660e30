/*
 * backup.c -- stead_backup: the last commit as a sealed file of its own, while others work.
 *
 * SOLE and TURNS writers hold the store lock exclusively against their own commits and the apply lock against others'
 * application; a reader's section (the apply lock, shared) is enough for a reader.  LIVE: there is no last commit on disk
 * to copy, so the copy is made under the shared lock, which writers must respect.
 */
#include <errno.h>

#include "store/store.h"

int stead_backup(stead *store, const char *path)
{
    struct file target = {.fd = -1};
    int rc = store_enter(store);
    if (rc != 0)
        return rc;
    rc = file_resolve(&target, path);
    if (rc != 0)
        return error_keep(rc);
    if (target.in_memory)
        return error_set(EINVAL, "%s: a backup is a file", path);
    rc = store->read_only || store->sharing == STEAD_LIVE ? store_lock_shared(store, DEADLINE_NEVER)
                                                          : store_lock_exclusive(store, DEADLINE_NEVER);
    if (rc != 0)
        return rc;
    rc = store_apply_lock(store, false, DEADLINE_NEVER);
    if (rc == 0) {
        if (store->has_slot)
            store_fill_super(store);
        heap_guard_pause(store->heap);
        rc = image_backup(store->image, &store->super, target.path);
        heap_guard_resume(store->heap);
        store_apply_unlock(store, true);
    }
    store_unlock_quietly(store);
    return error_keep(rc);
}
