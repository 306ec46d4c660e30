/*
 * outside.c -- the reader's half of companion.c, whose design comment has the steps (R1-R4) and the argument.
 *
 * The words are mapped read-only: this file can look, and take kernel locks.  Looking is also how the death of an owner
 * is noticed: its bytes went with it, so byte APPLY is free while the data may be half made; the words still name it.
 */
#include "lock/outside.h"

#include <errno.h>

#include "base/deadline.h"
#include "base/error.h"
#include "lock/bytes.h"
#include "lock/companion.h"
#include "lock/region.h"

#define POLL_NS 200000
#define LOOKS_MAX 1000 /* at a word that changes all the time: then as if an owner were inside */

void outside_begin(struct outside *outside, const struct lock_region *region, int fd)
{
    *outside = (struct outside){.region = region, .fd = fd, .announced_ns = companion_clock_ns()};
}

int outside_take_byte(const struct outside *outside, int64_t deadline_ns)
{
    int rc = lock_byte_take(outside->fd, LOCK_BYTE_QUEUE, LOCK_BYTE_READ, deadline_ns);
    if (rc != 0)
        return rc;
    rc = lock_byte_take(outside->fd, LOCK_BYTE_APPLY, LOCK_BYTE_READ, deadline_ns);
    (void)lock_byte_drop(outside->fd, LOCK_BYTE_QUEUE);
    return rc;
}

void outside_leave(const struct outside *outside)
{
    (void)lock_byte_drop(outside->fd, LOCK_BYTE_APPLY);
}

/* R4, byte APPLY is held.  0: in; EBUSY: an owner may be inside; EOWNERDEAD, ENOTRECOVERABLE. */
static int look_at_owner(const struct outside *outside)
{
    const struct lock_words *words = &outside->region->locks[RWLOCK_STORE];
    for (unsigned look = 0; look < LOOKS_MAX; look++) {
        uint64_t state = atomic_load(&words->state);
        uint64_t owner = state & STATE_OWNER;
        if (state & STATE_LOST)
            return error_set(ENOTRECOVERABLE, "a holder of the lock died inside, and the next one gave the lock up "
                                              "without repairing");
        if (state & STATE_INCONSISTENT)
            return error_set(EOWNERDEAD, "a holder of the lock died inside");
        if (owner == 0 || (state & (STATE_DRAIN | STATE_STAND_IN)) != 0)
            return 0; /* nobody, or not yet at W2; if that one is dead, it left nothing half done */
        bool says_so = atomic_load(&words->by_byte) == owner;
        bool alive = presence_alive_in(outside->region, outside->fd, owner_id(owner));
        if (atomic_load(&words->state) != state)
            continue; /* it left in good order meanwhile, perhaps its process, too */
        if (!alive)
            return error_set(EOWNERDEAD, "a holder of the lock died inside");
        return says_so || outside->known ? 0 : EBUSY;
    }
    return EBUSY;
}

/* R2.  By the clock that owners go by. */
static void wait_out_grace(const struct outside *outside)
{
    int64_t left;
    while (!outside->known && (left = outside->announced_ns + COMPANION_GRACE_NS - companion_clock_ns()) > 0)
        sleep_ns(left);
}

int outside_share(struct outside *outside, int64_t deadline_ns)
{
    wait_out_grace(outside);
    for (;;) {
        const bool last = deadline_over(deadline_ns); /* before the look */
        int rc = outside_take_byte(outside, deadline_ns);
        if (rc != 0)
            return rc;
        rc = look_at_owner(outside);
        if (rc == 0) {
            outside->known = true;
            return 0;
        }
        outside_leave(outside);
        if (rc != EBUSY || deadline_ns == 0)
            return rc;
        if (last)
            return ETIMEDOUT;
        sleep_ns(POLL_NS);
    }
}
