/*
 * holders.c -- who holds the store's locks and who waits, in each sharing mode: stead_each_lock, and the sentence of a
 * request that waited in vain.
 *
 *   SOLE     the store lock is among the writer's threads, in its private memory: only the writer can list it.  All can
 *            list the apply lock.
 *   TURNS    store lock and apply lock, from the lock unit
 *   LIVE     store lock, from the lock unit
 *
 * The unit is mapped by every handle, and its words mean something while somebody with a slot is attached.  Readers
 * without a slot hold kernel locks, which name nobody: they are not listed.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

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

static int each_lock(const struct stead *s, struct lock_visit *to)
{
    if (!s->has_slot && !lock_byte_taken(s->lock_fd, LOCK_BYTE_SLOT0, PRESENCE_SLOTS))
        return 0; /* nobody but readers without a slot */
    const struct lock_region *region = lock_unit_region(s->unit);
    uint32_t sharing = s->unit->sharing;
    int rc = 0;
    to->lock = sharing == STEAD_TURNS ? "turn" : "store";
    if (sharing == STEAD_SOLE)
        rc = s->read_only ? 0 : rwlock_each(s->store_lock, visit_lock, to);
    else
        rc = rwlock_each_in(region, RWLOCK_STORE, s->presence, s->lock_fd, visit_lock, to);
    if (rc != 0 || sharing == STEAD_LIVE)
        return rc;
    to->lock = "application";
    return rwlock_each_in(region, RWLOCK_APPLY, s->presence, s->lock_fd, visit_lock, to);
}

int stead_each_lock(stead *store, int (*visit)(const stead_lock_info *info, void *arg), void *arg)
{
    STORE_CALL(store);
    struct lock_visit to = {.visit = visit, .arg = arg};
    int rc = store_enter_with(store, visit != NULL, "visit");
    return rc != 0 ? rc : each_lock(store, &to);
}

/* Stops at the first one that lives, holds, and is not this thread, which may want to upgrade. */
static int find_other(const stead_lock_info *info, void *arg)
{
    stead_lock_info *found = arg;
    if (info->waiting || !info->alive || (info->pid == getpid() && info->tid == (pid_t)syscall(SYS_gettid)))
        return 0;
    *found = *info;
    return 1;
}

int store_explain_timeout(const struct stead *s)
{
    stead_lock_info found;
    struct lock_visit to = {.visit = find_other, .arg = &found};
    if (each_lock(s, &to) != 1) /* a reader without a slot, or it was given up this moment */
        return error_set(ETIMEDOUT, "%s: the lock was not given up in time", s->file.path);
    char thread[40] = "";
    if (found.tid != 0)
        (void)snprintf(thread, sizeof thread, " (thread %ld)", (long)found.tid);
    return error_set(ETIMEDOUT, "%s: the lock was not given up in time; process %ld%s %s it", s->file.path,
                     (long)found.pid, thread, found.exclusive ? "holds" : "shares");
}
