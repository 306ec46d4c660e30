/*
 * holders.c -- who holds a lock and who waits for it, for people: `stead info --locks`.
 *
 * A look, not a snapshot: each line was true at its own moment.  Nothing is written, so looking disturbs nobody.
 *
 * Ordering: every word is atomic, so a look is never undefined.  A slot's owner is read before and after the rest: nobody is
 * listed with what another thread holds that has the slot since.  Two things can be listed that the next look corrects: a
 * flag that is up for a first try to share, and an owner that has not yet looked for readers.  The caller keeps the lock
 * open, and so the region mapped, for as long as the call lasts.
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

#define LOOKS_MAX 4 /* at a slot that changes hands all the time */

struct slot_view {
    uint64_t owner;
    int64_t since;
    uint32_t sharing;
    bool here, crowd, wants_own;
};

/* False: free, being cleaned, of another lock, or another thread's at every look. */
static bool slot_read(const struct lock_slot *slot, enum rwlock_which which, struct slot_view *view)
{
    for (unsigned look = 0; look < LOOKS_MAX; look++) {
        view->owner = atomic_load(&slot->owner);
        view->here = owner_tid(view->owner) != 0 && atomic_load(&slot->which) == (uint32_t)which;
        view->since = atomic_load(&slot->waiting_since);
        view->crowd = atomic_load(&slot->crowd) != 0;
        view->sharing = atomic_load(&slot->shared);
        view->wants_own = atomic_load(&slot->waiting_exclusive) != 0;
        if (atomic_load(&slot->owner) == view->owner)
            return view->here;
    }
    return false;
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
        struct slot_view slot;
        if (!slot_read(&looker->region->slots[i], looker->which, &slot))
            continue;
        /* An owner that shares beneath is listed once, as the owner.  A crowd is listed once, as its process's: who of
         * it shares is not known; its first thread's try to share cannot be told from the others' holds. */
        bool owners =
            owner_inside && (slot.crowd ? (state & STATE_UPGRADE) != 0 && owner_id(state) == owner_id(slot.owner)
                                        : (state & STATE_OWNER) == slot.owner);
        bool shares = slot.sharing > (owners ? 1 : 0) && (slot.crowd || slot.since == 0 || slot.wants_own);
        if (!shares && slot.since == 0)
            continue;
        info_fill(looker, slot.owner, &info);
        int rc = 0;
        if (shares) {
            info.tid = slot.crowd ? 0 : info.tid;
            rc = visit(&info, arg);
        }
        if (rc == 0 && slot.since != 0) {
            info.tid = (pid_t)owner_tid(slot.owner);
            info.waiting = true;
            info.exclusive = slot.wants_own;
            info.since_ns = slot.since;
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
