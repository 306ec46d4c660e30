/*
 * rwlock.c -- the face of the lock: nesting, and the ways that need not wait (inline: at_once.h).  The rest: acquire.c.
 *
 * A thread's nested levels are counted in its own memory (struct rwlock_hold): taking a level inside a level touches
 * nothing shared.  The outermost shared level is one exchange on the thread's own cache line and a look at the state;
 * the outermost exclusive one is one compare-and-swap of the state while nobody shares; giving up either is one
 * atomic operation too.
 *
 *   levels held (oldest first)          below  inside      the newest level's unlock
 *   S S                                 2      0           counts, or lowers the flag
 *   X S X                               0      3           counts, or clears the owner word
 *   S S X S        (an upgrade)         2      2           counts; at inside 1 goes back to sharing
 *   X, shared on                        1      0           lowers the flag: rwlock_share_on()
 *
 * Order against a signal handler: the counts change after the shared words when taking and the words last when giving
 * up, so a handler that looks (rwlock_held) sees no lock that is not held.  Handlers must not lock.
 *
 * The companion.  Readers without write permission cannot touch the words: they lock byte APPLY for reading.  An owner
 * takes that byte for writing, always or when such readers may be there, after it became owner, and drops it before it
 * ceases to be (companion.c); it queues at byte QUEUE, which readers pass through, so neither starves.
 *
 * Invariants:
 *   L10  below + inside > 0  <=>  this thread holds the lock; inside > 0  <=>  it is the owner, and alone
 *   L11  byte APPLY is write-locked by this process's descriptor  <=>  a thread of it has by_byte; by_byte => inside > 0;
 *        companion ALWAYS: inside > 0 => by_byte; ANNOUNCED: C1 of companion.c
 */
#include "lock/rwlock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/error.h"
#include "base/race_check.h"
#include "lock/acquire.h"
#include "lock/at_once.h"
#include "lock/companion.h"
#include "lock/futex.h"
#include "lock/handle.h"
#include "lock/slots.h"
#include "lock/steps.h"
#include "lock/wait.h"

#if STEAD_CHECKS >= 2
void (*lock_step_hook)(enum lock_step step);
#endif

#define SHUT_POLL_NS 200000
#define PRIVATE_ID UINT32_C(1) /* all owners of a private lock are of this process */

int rwlock_open(struct rwlock **out, const struct rwlock_host *host)
{
    int rc;
    *out = NULL;
    if ((unsigned)host->which >= RWLOCK_COUNT || (host->region != NULL && host->presence == NULL))
        return error_set(EINVAL, "a lock in shared memory needs its number and the process's attachment");
    struct rwlock *lock = aligned_alloc(_Alignof(struct rwlock), sizeof *lock);
    if (lock == NULL)
        return error_set(ENOMEM, "no memory for a lock's handle");
    memset(lock, 0, sizeof *lock);
    lock->which = host->which;
    lock->region = host->region;
    lock->companion = host->companion;
    lock->fd = host->fd;
    lock->asked_ns = INT64_MIN / 2; /* never */
    lock->ended = host->ended;
    lock->ended_ctx = host->ended_ctx;
    lock->process_private = host->region == NULL;
    if (lock->process_private) {
        void *words = mmap(NULL, sizeof *lock->region, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (words == MAP_FAILED) {
            rc = error_set(ENOMEM, "no memory for a lock among the threads of this process");
            goto free_lock;
        }
        lock->region = words;
        lock->id = PRIVATE_ID;
    } else {
        lock->presence = host->presence;
        lock->id = presence_id(host->presence);
    }
    lock->words = &lock->region->locks[lock->which];
    rc = handle_register(lock);
    if (rc != 0)
        goto unmap;
    *out = lock;
    return 0;
unmap:
    if (lock->process_private)
        munmap(lock->region, sizeof *lock->region);
free_lock:
    free(lock);
    return rc;
}

static void handle_free(struct rwlock *lock)
{
    if (lock->process_private)
        munmap(lock->region, sizeof *lock->region);
    free(lock);
}

/* A thread of this process has its flag up, or owns the lock. */
static bool process_holds(const struct rwlock *lock)
{
    if (owner_id(atomic_load(&lock->words->state)) == lock->id)
        return true;
    for (unsigned i = 0; i < SLOT_COUNT; i++) {
        const struct lock_slot *slot = &lock->region->slots[i];
        uint64_t owner = atomic_load(&slot->owner);
        if (owner_id(owner) != lock->id || atomic_load(&slot->which) != (uint32_t)lock->which)
            continue;
        /* The owner again: a thread that ended may have given the slot back, and the flag be another process's. */
        if (atomic_load(&slot->shared) != 0 && atomic_load(&slot->owner) == owner)
            return true;
    }
    return false;
}

int rwlock_close(struct rwlock *lock)
{
    if (lock->serial == HANDLE_FORKED) {
        rwlock_forget(lock);
        return 0;
    }
    if (rwlock_used_by_process(lock))
        return error_set(EBUSY, "a thread of this process holds the lock or waits for it");
    handle_unregister(lock);
    for (unsigned i = 0; i < SLOT_COUNT; i++) {
        struct lock_slot *slot = &lock->region->slots[i];
        if (owner_id(atomic_load(&slot->owner)) == lock->id && atomic_load(&slot->which) == (uint32_t)lock->which)
            slot_give_back(lock, slot);
    }
    handle_free(lock);
    return 0;
}

void rwlock_forget(struct rwlock *lock)
{
    if (lock->serial != HANDLE_FORKED)
        handle_unregister(lock);
    handle_free(lock);
}

/* This thread has become the owner (rc 0 or EOWNERDEAD): the exclusive section begins, with the companion's byte. */
static int enter_section(struct rwlock *lock, struct rwlock_hold *hold, int rc, int64_t deadline_ns)
{
    if (!companion_needed(lock)) {
        hold->inside = 1;
        return rc;
    }
    atomic_fetch_add(&lock->waiting, 1); /* for rwlock_shut() */
    int byte_rc = companion_enter(lock, hold, deadline_ns);
    if (byte_rc == 0)
        hold->inside = 1;
    else if (hold->stand_in)
        atomic_fetch_or(&lock->words->state, STATE_STAND_IN);
    else
        release_exclusive(lock, hold, RELEASE_CLAIM);
    atomic_fetch_sub(&lock->waiting, 1); /* the last look at a lock that this thread does not hold */
    return byte_rc != 0 ? byte_rc : rc;
}

/* Outermost exclusive level, from nothing or from sharing, when lock_own_at_once() did not get it. */
static int lock_exclusive(struct rwlock *lock, struct rwlock_hold *hold, int64_t deadline_ns)
{
    struct lock_words *words = lock->words;
    if (hold->stand_in) {
        atomic_fetch_and(&words->state, ~STATE_STAND_IN); /* the owner already: now dying inside matters */
        return enter_section(lock, hold, 0, deadline_ns);
    }
    if (hold->below == 0 && lock->companion == RWLOCK_COMPANION_ANNOUNCED && lock_claim_at_once(lock, hold)) {
        if (__builtin_expect(companion_due(lock), 0))
            return enter_section(lock, hold, 0, deadline_ns);
        hold->inside = 1;
        LOCK_STEP(EXCLUSIVE_IN);
        return 0;
    }
    int rc = acquire_exclusive(lock, hold, hold->below != 0 ? ACQUIRE_UPGRADE : ACQUIRE_EXCLUSIVE, deadline_ns);
    if (rc != 0 && rc != EOWNERDEAD)
        return rc;
    return enter_section(lock, hold, rc, deadline_ns);
}

/* Outermost shared level of a thread that found no slot, not even to join: exclusive in fact. */
static int lock_stand_in(struct rwlock *lock, struct rwlock_hold *hold, int64_t deadline_ns)
{
    int rc = acquire_exclusive(lock, hold, ACQUIRE_STAND_IN, deadline_ns);
    if (rc == EOWNERDEAD) {
        atomic_fetch_and(&lock->words->state, ~STATE_STAND_IN);
        return enter_section(lock, hold, rc, deadline_ns);
    }
    if (rc == 0) {
        hold->stand_in = true;
        hold->below = 1;
    }
    return rc;
}

/* Outermost shared level when the short way is closed. */
static int lock_shared(struct rwlock *lock, struct rwlock_hold *hold, int64_t deadline_ns)
{
    bool raised = hold->sharer; /* by lock_share_at_once() */
    if (hold->slot == NULL)
        hold_find_slot(lock, hold);
    if (hold->slot == NULL)
        return lock_stand_in(lock, hold, deadline_ns);
    if (!hold->sharer) {
        slot_make_sharer(lock, hold->slot);
        hold->sharer = true;
    }
    int rc = acquire_shared(lock, hold, raised, deadline_ns);
    if (rc == EOWNERDEAD)
        return enter_section(lock, hold, rc, deadline_ns);
    if (rc == 0)
        hold->below = 1;
    return rc;
}

int rwlock_lock_outermost(struct rwlock *lock, struct rwlock_hold *hold, bool exclusive, int64_t deadline_ns)
{
    if (__builtin_expect(hold == NULL, 0)) {
        int rc = hold_make(lock, &hold);
        if (rc != 0)
            return rc;
    }
    int rc = exclusive ? lock_exclusive(lock, hold, deadline_ns) : lock_shared(lock, hold, deadline_ns);
    if (rc == 0 || rc == EOWNERDEAD) {
        race_check_acquire(lock_place_of_owners(lock));
        if (hold->inside != 0)
            race_check_acquire(lock_place_of_readers(lock));
    }
    return rc;
}

int rwlock_lock(struct rwlock *lock, bool exclusive, int64_t deadline_ns)
{
    return rwlock_lock_here(lock, exclusive, deadline_ns);
}

bool rwlock_nest(struct rwlock *lock, bool exclusive)
{
    struct rwlock_hold *hold = hold_find(lock);
    if (hold == NULL || (hold->inside == 0 && (hold->below == 0 || exclusive)))
        return false;
    uint32_t *levels = hold->inside != 0 ? &hold->inside : &hold->below;
    if (__builtin_expect(*levels == UINT32_MAX, 0))
        return false;
    ++*levels;
    return true;
}

/* The exclusive section ends. */
static void unlock_exclusive(struct rwlock *lock, struct rwlock_hold *hold)
{
    if (__builtin_expect(hold->by_byte, 0))
        companion_leave(lock, hold);
    if (hold->stand_in) {
        uint64_t state = atomic_load(&lock->words->state);
        if (!(state & STATE_INCONSISTENT)) {
            atomic_fetch_or(&lock->words->state, STATE_STAND_IN);
            return;
        }
    }
    if (hold->below != 0) {
        release_exclusive(lock, hold, RELEASE_TO_SHARED);
        return;
    }
    uint64_t state = hold->self | (hold->biased ? STATE_BIAS : 0);
    if (hold->biased && bias_unused(lock->words)) {
        release_exclusive(lock, hold, RELEASE_ALL);
        return;
    }
    if (__builtin_expect(atomic_compare_exchange_strong(&lock->words->state, &state, state & STATE_BIAS), 1)) {
        LOCK_STEP(RELEASED);
        return;
    }
    release_exclusive(lock, hold, RELEASE_ALL);
}

static int holds_none(void)
{
    return error_set(EPERM, "this thread does not hold the lock");
}

/* The two counts are looked at one by one: one load of both would wait until the store of either is in the cache. */
int rwlock_unlock_outermost(struct rwlock *lock, struct rwlock_hold *hold)
{
    if (__builtin_expect(hold == NULL, 0))
        return holds_none();
    if (hold->inside != 0) {
        race_check_release(lock_place_of_owners(lock));
        hold->inside = 0;
        unlock_exclusive(lock, hold);
        return 0;
    }
    if (__builtin_expect(hold->below == 0, 0))
        return holds_none();
    race_check_release(lock_place_of_readers(lock));
    hold->below = 0;
    if (__builtin_expect(hold->stand_in, 0)) {
        hold->stand_in = false;
        release_exclusive(lock, hold, RELEASE_ALL);
    } else {
        flag_lower(lock, hold->slot);
    }
    return 0;
}

int rwlock_unlock(struct rwlock *lock)
{
    return rwlock_unlock_here(lock);
}

bool rwlock_unnest(struct rwlock *lock)
{
    struct rwlock_hold *hold = hold_find(lock);
    return hold != NULL && hold_unnest(hold);
}

int rwlock_make_consistent(struct rwlock *lock)
{
    const struct rwlock_hold *hold = hold_find(lock);
    if (hold == NULL || hold->inside == 0)
        return error_set(EPERM, "this thread does not hold the lock exclusively");
    if ((atomic_load(&lock->words->state) & STATE_INCONSISTENT) == 0)
        return error_set(EINVAL, "there is nothing to repair: no holder of the lock died inside");
    atomic_fetch_and(&lock->words->state, ~STATE_INCONSISTENT);
    return 0;
}

int rwlock_pass_on(struct rwlock *lock)
{
    struct rwlock_hold *hold = hold_find(lock);
    if (hold == NULL || hold->inside != 1)
        return error_set(EPERM, "this thread does not hold the lock exclusively, or nested");
    if ((atomic_load(&lock->words->state) & STATE_INCONSISTENT) == 0)
        return error_set(EINVAL, "no holder of the lock died inside: there is nothing to pass on");
    race_check_release(lock_place_of_owners(lock));
    hold->inside = 0;
    companion_leave(lock, hold);
    release_exclusive(lock, hold, RELEASE_DIED); /* as if this thread had died there too: the next one is told */
    return 0;
}

/* The flag goes up while the thread is the owner, as that of an upgrade is. */
int rwlock_share_on(struct rwlock *lock)
{
    struct rwlock_hold *hold = hold_find(lock);
    if (hold == NULL || hold->inside != 1 || hold->below != 0)
        return error_set(EPERM, "this thread does not hold the lock exclusively, or nested");
    if ((atomic_load(&lock->words->state) & STATE_INCONSISTENT) != 0)
        return error_set(EINVAL, "a holder of the lock died inside, and nobody said that all is repaired");
    if (hold->slot == NULL)
        hold_find_slot(lock, hold);
    if (hold->slot == NULL) {
        hold->stand_in = true;
    } else {
        if (!hold->sharer)
            slot_make_sharer(lock, hold->slot);
        hold->sharer = true;
        flag_raise(hold->slot);
    }
    hold->below = 1;
    race_check_release(lock_place_of_owners(lock));
    hold->inside = 0;
    unlock_exclusive(lock, hold);
    return 0;
}

bool rwlock_held_exclusive(const struct rwlock *lock)
{
    const struct rwlock_hold *hold = hold_find(lock);
    return hold != NULL && hold->inside != 0;
}

bool rwlock_held(const struct rwlock *lock)
{
    const struct rwlock_hold *hold = hold_find(lock);
    return hold != NULL && (hold->inside != 0 || hold->below != 0);
}

uint64_t rwlock_levels(const struct rwlock *lock)
{
    const struct rwlock_hold *hold = hold_find(lock);
    return hold == NULL ? 0 : (uint64_t)hold->inside + hold->below;
}

bool rwlock_unlock_ends_exclusive(const struct rwlock *lock)
{
    const struct rwlock_hold *hold = hold_find(lock);
    return hold != NULL && hold->inside == 1;
}

/* A waiter is counted until it holds: asked for in this order, none is missed between the two. */
bool rwlock_used_by_process(const struct rwlock *lock)
{
    return lock->serial != HANDLE_FORKED && (atomic_load(&lock->waiting) != 0 || process_holds(lock));
}

void rwlock_shut(struct rwlock *lock)
{
    if (lock->serial == HANDLE_FORKED)
        return;
    atomic_store(&lock->shut, true);
    while (atomic_load(&lock->waiting) != 0) {
        /* Sleepers of other processes wake up, too, look, and sleep again. */
        wakes_do(lock, &(struct wakes){.all = true});
        atomic_fetch_add(&lock->words->wake_owner, 1);
        futex_wake(&lock->words->wake_owner, INT_MAX, lock->process_private);
        sleep_ns(SHUT_POLL_NS);
    }
}

bool rwlock_left_inconsistent(const struct rwlock *lock)
{
    uint64_t state = atomic_load(&lock->words->state), looked_at;
    bool dead_inside;
    do { /* an owner that left in good order, and closed, between the word and the question is none that died */
        looked_at = state;
        if ((state & (STATE_INCONSISTENT | STATE_LOST)) != 0)
            return true;
        dead_inside = (state & STATE_OWNER) != 0 && (state & (STATE_DRAIN | STATE_STAND_IN)) == 0 &&
                      !handle_alive(lock, owner_id(state));
        state = atomic_load(&lock->words->state);
    } while (dead_inside && state != looked_at);
    return dead_inside;
}
