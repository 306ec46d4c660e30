/*
 * companion.c -- owners and readers that cannot write the lock's words.
 *
 * A reader without write permission can raise no flag; what it can do is take kernel locks: byte APPLY, which it shares
 * in its sections.  An owner that knows of such readers takes that byte exclusively before it goes in (the companion of
 * the owner word).  That is two system calls, some thirty times an exclusive section's cost; so where readers are rare
 * (RWLOCK_COMPANION_ANNOUNCED) an owner must learn of them cheaply, and nothing that they can do reaches its memory.
 * Neither do mode bits tell: a file is made readable later, or seen through a read-only mount.
 *
 *   reader (outside.c)                              owner
 *   R1 byte READERS shared: announced, until close  W1 claims the owner word
 *   R2 waits COMPANION_GRACE_NS, once               W2 reads the clock; asked longer than COMPANION_PERIOD_NS ago:
 *   R3 a section: byte APPLY shared                    asks the kernel who holds READERS, and notes the time before
 *   R4 looks at the owner word: none: in            W3 nobody: in
 *      an owner that said W4, or is not inside: in  W4 else by_byte = itself, byte APPLY exclusively (QUEUE first if
 *      another: drops the byte, again from R3          it must wait): in
 *                                                   W5 unlock: byte dropped, by_byte = 0, owner word given up
 *
 * Why both are never inside.  Let C be the coarse monotonic clock, which never goes back on any processor.  The reader
 * passed R4 at e, R1 at a; let r be what it read from C after a: C(e) >= r + GRACE.
 *   - The owner claimed after e: it reads t >= C(e) (C1).  Its last ask was noted as q.  If that ask missed the reader
 *     it ended before a, so q <= r, t - q >= GRACE >= PERIOD: it asks now, and READERS is held.  So W4, and it waits for
 *     the reader's byte.  An ask that did not miss it leads to W4 as well.
 *   - It claimed before e: R4 saw it, or it had gone.  by_byte == the owner says: in this very section (W5 clears it
 *     before the word is given up, and an id and thread are never another's) byte APPLY comes before the data; the
 *     reader has that byte.  DRAIN or STAND_IN: it has not come to W2 yet, as above.  Else it may be inside: again.
 * It does not matter how long anybody is stopped between two steps: the clock is read after the claim, the word after the
 * byte.  Each process notes its own asks, so clocks of different time namespaces are never compared.
 *   After the first R4 that let it in, a reader need not look for unknowing owners any more: every later claim is after e.
 *
 * tests/model/companion.pml has the steps and the clock for spin, with these arguments taken away one by one.
 *
 * A SIGKILL: the kernel drops READERS and APPLY.  by_byte of a dead owner names an id that never lives again.
 *
 * Invariants:
 *   C1  between its claim and going in, an owner reads the clock; in without byte APPLY  =>  it asked less than PERIOD
 *       before that, and READERS was free
 *   C2  by_byte == the living owner's word  =>  that owner holds byte APPLY if it is inside
 *   C3  a reader from outside is in only with byte APPLY, GRACE after READERS, and after it saw no owner that may be
 *       inside without that byte
 */
#include "lock/companion.h"

#include <errno.h>

#include "base/error.h"
#include "lock/bytes.h"
#include "lock/steps.h"

#define SHUT_LOOK_NS 50000000 /* a wait for a byte looks this often whether the lock is shut */

/* asked_ns and announced are the process's, and touched by owners only. */
bool companion_needed(struct rwlock *lock)
{
    if (lock->companion == RWLOCK_COMPANION_ALWAYS)
        return true;
    if (lock->companion == RWLOCK_COMPANION_NONE)
        return false;
    int64_t now = companion_clock_of_owner_ns();
    if (now - lock->asked_ns >= COMPANION_PERIOD_NS) {
        lock->announced = lock_byte_taken(lock->fd, LOCK_BYTE_READERS, 1);
        LOCK_STEP(READERS_ASKED);
        lock->asked_ns = now;
    }
    return lock->announced;
}

/* In slices: rwlock_shut() sends away who waits. */
static int wait_for_byte(const struct rwlock *lock, enum lock_byte byte, int64_t deadline_ns)
{
    for (;;) {
        int64_t slice = clock_ns() + SHUT_LOOK_NS;
        const bool last = slice >= deadline_ns;
        int rc = lock_byte_take(lock->fd, byte, LOCK_BYTE_WRITE, last ? deadline_ns : slice);
        if (rc != ETIMEDOUT || last)
            return rc;
        if (atomic_load(&lock->shut))
            return error_set(ECANCELED, "the lock was closed by another thread while this one waited for a reader");
    }
}

static int take_byte(struct rwlock *lock, int64_t deadline_ns)
{
    int rc = lock_byte_take(lock->fd, LOCK_BYTE_APPLY, LOCK_BYTE_WRITE, 0);
    if (rc != EBUSY || deadline_ns == 0)
        return rc;
    rc = wait_for_byte(lock, LOCK_BYTE_QUEUE, deadline_ns);
    if (rc != 0)
        return rc;
    rc = wait_for_byte(lock, LOCK_BYTE_APPLY, deadline_ns);
    (void)lock_byte_drop(lock->fd, LOCK_BYTE_QUEUE);
    return rc;
}

int companion_enter(struct rwlock *lock, struct rwlock_hold *hold, int64_t deadline_ns)
{
    atomic_store(&lock->words->by_byte, hold->self);
    int rc = take_byte(lock, deadline_ns);
    if (rc != 0) {
        atomic_store(&lock->words->by_byte, 0);
        return rc;
    }
    hold->by_byte = true;
    return 0;
}

void companion_leave(struct rwlock *lock, struct rwlock_hold *hold)
{
    if (!hold->by_byte)
        return;
    (void)lock_byte_drop(lock->fd, LOCK_BYTE_APPLY);
    atomic_store(&lock->words->by_byte, 0);
    hold->by_byte = false;
}
