/*
 * holders.c -- stead_each_lock: who holds the store's locks and who waits, in each sharing mode.
 *
 *   SOLE     the store lock is among the writer's threads, in its private memory: only the writer can list it.  All can
 *            list the apply lock.
 *   TURNS    store lock and apply lock, from the lock unit
 *   LIVE     store lock, from the lock unit
 *
 * The unit is mapped by every handle, and its words mean something while somebody with a slot is attached.  Readers
 * without a slot hold kernel locks, which name nobody: they are not listed.
 */
#include "store/call.h"

struct lock_visit {
    int (*visit)(const stead_lock_info *info, void *arg);
    void *arg;
    const char *lock;
};

static int visit_lock(const struct rwlock_info *info, void *arg)
{
    const struct lock_visit *to = arg;
    stead_lock_info out = {.pid = info->pid,
                           .tid = info->tid,
                           .waiting = info->waiting,
                           .exclusive = info->exclusive,
                           .alive = info->alive,
                           .attached = (time_t)info->attached_s,
                           .lock = to->lock};
    if (info->waiting && info->since_ns != 0)
        out.waiting_ns = clock_ns() - info->since_ns;
    if (out.waiting_ns < 0) /* the clock of another time namespace */
        out.waiting_ns = 0;
    return to->visit(&out, to->arg);
}

int stead_each_lock(stead *store, int (*visit)(const stead_lock_info *info, void *arg), void *arg)
{
    STORE_CALL(store);
    struct lock_visit to = {visit, arg, "store"};
    int rc = store_enter_with(store, visit != NULL, "visit");
    if (rc != 0)
        return rc;
    if (!store->has_slot && !lock_byte_taken(store->lock_fd, LOCK_BYTE_SLOT0, PRESENCE_SLOTS))
        return 0; /* nobody but readers without a slot */
    const struct lock_region *region = lock_unit_region(store->unit);
    uint32_t sharing = store->unit->sharing;
    if (sharing == STEAD_SOLE)
        rc = store->read_only ? 0 : rwlock_each(store->store_lock, visit_lock, &to);
    else if (sharing == STEAD_TURNS)
        to.lock = "turn";
    if (sharing != STEAD_SOLE)
        rc = rwlock_each_in(region, RWLOCK_STORE, store->presence, store->lock_fd, visit_lock, &to);
    if (rc != 0 || sharing == STEAD_LIVE)
        return rc;
    to.lock = "application";
    return rwlock_each_in(region, RWLOCK_APPLY, store->presence, store->lock_fd, visit_lock, &to);
}
