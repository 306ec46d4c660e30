/*
 * holders.c -- who holds a lock and who waits for it, for people: `stead info --locks`.
 *
 * A look, not a snapshot: each line was true at its own moment.  Nothing is written, so looking disturbs nobody.
 *
 * Ordering: nothing depends on it.  Every word is atomic, so a look is never undefined; a slot that changes hands between
 * two reads may give a line of one thread's name and the other's wait, which the next look corrects.  The caller keeps
 * the lock open, and so the region mapped, for as long as the call lasts.
 */
#include <string.h>
#include <unistd.h>

#include "lock/handle.h"
#include "lock/slots.h"

/* Where to look, and as whom. */
struct looker {
    const struct lock_region *region;
    enum rwlock_which which;
    int fd;      /* asks who lives; unless process_private */
    uint32_t id; /* of the attachment that asks, 0 = none: the kernel does not tell it of its own byte */
    bool process_private;
};

static void info_fill(const struct looker *looker, uint64_t owner, struct rwlock_info *info)
{
    memset(info, 0, sizeof *info);
    info->id = owner_id(owner);
    info->tid = (pid_t)owner_tid(owner);
    bool own = looker->process_private || (info->id != 0 && info->id == looker->id);
    info->alive = own || presence_alive_in(looker->region, looker->fd, info->id);
    info->pid = own ? getpid() : presence_pid(looker->region, info->id);
    if (!looker->process_private)
        info->attached_s = presence_attached_s(looker->region, info->id);
}

static int look(const struct looker *looker, int (*visit)(const struct rwlock_info *, void *arg), void *arg)
{
    struct rwlock_info info;
    uint64_t state = atomic_load(&looker->region->locks[looker->which].state);
    bool owner_inside = (state & STATE_OWNER) != 0 && (state & STATE_DRAIN) == 0;
    if (owner_inside) {
        info_fill(looker, state & STATE_OWNER, &info);
        info.exclusive = (state & STATE_STAND_IN) == 0;
        int rc = visit(&info, arg);
        if (rc != 0)
            return rc;
    }
    for (unsigned i = 0; i < SLOT_COUNT; i++) {
        const struct lock_slot *slot = &looker->region->slots[i];
        uint64_t owner = atomic_load(&slot->owner);
        if (owner_tid(owner) == 0 || atomic_load(&slot->which) != (uint32_t)looker->which)
            continue;
        int64_t since = atomic_load(&slot->waiting_since);
        /* An owner that shares beneath is listed once, as the owner.  A crowd is listed once, as its process's: who of
         * it shares is not known; its first thread's try to share cannot be told from the others' holds. */
        bool crowd = atomic_load(&slot->crowd) != 0;
        bool owners = owner_inside && (crowd ? (state & STATE_UPGRADE) != 0 && owner_id(state) == owner_id(owner)
                                             : (state & STATE_OWNER) == owner);
        uint32_t sharing = atomic_load(&slot->shared);
        bool shares = sharing > (owners ? 1 : 0) && (crowd || since == 0 || atomic_load(&slot->waiting_exclusive) != 0);
        if (!shares && since == 0)
            continue;
        info_fill(looker, owner, &info);
        int rc = 0;
        if (shares) {
            info.tid = crowd ? 0 : info.tid;
            rc = visit(&info, arg);
        }
        if (rc == 0 && since != 0) {
            info.tid = (pid_t)owner_tid(owner);
            info.waiting = true;
            info.exclusive = atomic_load(&slot->waiting_exclusive) != 0;
            info.since_ns = since;
            rc = visit(&info, arg);
        }
        if (rc != 0)
            return rc;
    }
    return 0;
}

int rwlock_each(const struct rwlock *lock, int (*visit)(const struct rwlock_info *, void *arg), void *arg)
{
    struct looker looker = {.region = lock->region,
                            .which = lock->which,
                            .fd = lock->process_private ? -1 : presence_fd(lock->presence),
                            .id = lock->id,
                            .process_private = lock->process_private};
    return look(&looker, visit, arg);
}

int rwlock_each_in(const struct lock_region *region, enum rwlock_which which, const struct presence *self, int fd,
                   int (*visit)(const struct rwlock_info *, void *arg), void *arg)
{
    struct looker looker = {.region = region, .which = which, .fd = fd, .id = presence_id(self)};
    return look(&looker, visit, arg);
}
