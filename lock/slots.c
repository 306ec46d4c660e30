/*
 * slots.c -- thread slots: a cache line for each thread that uses a lock of a region.
 *
 * A thread that shares raises the flag in its own line and no other: readers on many cores meet on no common line.
 * An owner looks only at slots whose bit stands in words->sharers: threads that have shared at least once.
 *
 *   take                                       a SIGKILL right after it leaves
 *   1 slot.owner 0 -> self                     a slot of a dead owner, flag down
 *   2 which, waiting words                     the same
 *   3 sharer_words raised, bit into sharers    the same; an owner looks at it in vain
 *     (first shared request)
 *   give back
 *   1 flag down                                a slot of a dead owner, flag down
 *   2 bit out of sharers                       the same
 *   3 owner = 0                                a free slot
 *   clean a dead process's slot
 *   1 slot.owner dead -> cleaner's id, tid 0   a slot of a dead cleaner: cleaned by the next one
 *   2 as giving back
 *
 * More threads than slots.  The flag is a count, so threads of one process can share a slot: they live and die together,
 * and the kernel's word on the process is all that anybody asks about a flag.  Each adds one where a single thread would
 * raise it, at the same price; they only meet on one line.  Whoever comes when no slot is left joins the slot of its
 * process with the fewest users (slot_join), for as long as it lives.  The last SLOT_RESERVE slots are for processes
 * that have none for the lock to join, so that one process full of threads cannot take all: as many as there can be
 * processes.  Only if these are gone as well (every process shares both locks) is a shared request served exclusively
 * (rwlock.c, lock_stand_in).
 *   join: users + 1, flag + 1 ...              the process is dead: the slot is cleaned as a whole
 *   leave: flag - 1 if it ended inside, users - 1; the last user gives the slot back
 * An owner that shares beneath (an upgrade) or waits in a crowd subtracts its own part: others up in its own slot are in
 * its way.  Who shares in a crowd is not known, so it is left out of the search for cycles (deadlock.c) and listed
 * without a thread id; a thread that joined is not listed as a waiter.
 *
 * Invariants:
 *   L5  flag > 0  =>  owner != 0 and the slot's bit stands in sharers of its lock
 *   L6  only threads of the slot's owner's process (or its cleaner, who owns it) write flag, bit and users, only the
 *       one that took it the waiting words; owner changes by compare-and-swap, and an id is never given out twice, so a
 *       late cleaner never hits a new owner
 *   L13 flag == the number of threads in it that share or are about to look; users == the number of threads that raise
 *       it, changed from 1 on under the registry's mutex of their process; users == 0 in a free slot and while it is being
 *       taken or given back, so nobody joins then
 *
 * Ordering: everything here is sequentially consistent and off the fast paths.  That a bit cannot be missed: it (and
 * sharer_words, which never shrinks) goes in before the flag goes up (L5), the flag goes up before its thread looks at
 * the state, and an owner writes the state before it reads the bits: the Dekker argument of acquire.c covers the bit as
 * well as the flag.  Taking the bit out happens after the flag went down, so the bit's absence tells the owner no less
 * than the flag would.
 */
#include "lock/slots.h"

#include "lock/futex.h"
#include "lock/steps.h"

/* Neighbouring lines are fetched in pairs on many processors: even slots first, then odd ones. */
static unsigned slot_order(unsigned i)
{
    return i < SLOT_COUNT / 2 ? i * 2 : (i - SLOT_COUNT / 2) * 2 + 1;
}

static unsigned slot_index(const struct lock_region *region, const struct lock_slot *slot)
{
    return (unsigned)(slot - region->slots);
}

/* A flag, or a part of one, went down. */
static void flag_lowered(struct rwlock *lock)
{
    struct lock_words *words = lock->words;
    LOCK_STEP(SHARED_CLEARED);
    if (__builtin_expect((atomic_load(&words->state) & STATE_DRAIN) != 0, 0)) {
        atomic_fetch_add(&words->wake_owner, 1);
        futex_wake(&words->wake_owner, INT_MAX, lock->process_private);
    }
}

void flag_lower(struct rwlock *lock, struct lock_slot *slot)
{
    atomic_fetch_sub(&slot->shared, 1);
    flag_lowered(lock);
}

struct lock_slot *slot_take(struct rwlock *lock, uint64_t self, bool reserve)
{
    struct lock_region *region = lock->region;
    unsigned end = reserve ? SLOT_COUNT : SLOT_COUNT - SLOT_RESERVE;
    for (int swept = 0; swept <= 1; swept++) {
        for (unsigned i = 0; i < end; i++) {
            struct lock_slot *slot = &region->slots[slot_order(i)];
            uint64_t none = 0;
            if (atomic_load_explicit(&slot->owner, memory_order_relaxed) != 0 ||
                !atomic_compare_exchange_strong(&slot->owner, &none, self))
                continue;
            LOCK_STEP(SLOT_TAKEN);
            atomic_store(&slot->shared, 0);
            atomic_store(&slot->waiting_since, 0);
            atomic_store(&slot->which, (uint32_t)lock->which);
            atomic_store(&slot->crowd, 0);
            atomic_store(&slot->users, 1); /* last: from now on others may join */
            return slot;
        }
        if (lock->presence == NULL)
            break;
        slots_sweep(region, lock->presence);
    }
    return NULL;
}

void slot_make_sharer(struct rwlock *lock, struct lock_slot *slot)
{
    unsigned index = slot_index(lock->region, slot);
    uint32_t words = atomic_load(&lock->words->sharer_words);
    while (words < index / 64 + 1 &&
           !atomic_compare_exchange_strong(&lock->words->sharer_words, &words, index / 64 + 1))
        ;
    atomic_fetch_or(&lock->words->sharers[index / 64], UINT64_C(1) << (index % 64));
}

/* The slot is the caller's.  Every lock's bit goes out: `which` of a damaged slot proves nothing. */
static void slot_free(struct lock_region *region, struct lock_slot *slot)
{
    unsigned index = slot_index(region, slot);
    atomic_store(&slot->users, 0);
    atomic_store(&slot->shared, 0);
    atomic_store(&slot->waiting_since, 0);
    for (unsigned which = 0; which < RWLOCK_COUNT; which++) {
        _Atomic uint64_t *word = &region->locks[which].sharers[index / 64];
        uint64_t bit = UINT64_C(1) << (index % 64);
        if (atomic_load(word) & bit)
            atomic_fetch_and(word, ~bit);
    }
    atomic_store(&slot->owner, 0);
}

void slot_give_back(struct rwlock *lock, struct lock_slot *slot)
{
    atomic_store(&slot->users, 0);
    atomic_exchange(&slot->shared, 0);
    flag_lowered(lock);
    slot_free(lock->region, slot);
}

struct lock_slot *slot_join(struct rwlock *lock)
{
    struct lock_slot *best = NULL;
    uint32_t fewest = UINT32_MAX;
    for (unsigned i = 0; i < SLOT_COUNT; i++) {
        struct lock_slot *slot = &lock->region->slots[i];
        uint64_t owner = atomic_load(&slot->owner);
        uint32_t users = atomic_load(&slot->users);
        if (owner_id(owner) == lock->id && owner_tid(owner) != 0 && users != 0 && users < fewest &&
            atomic_load(&slot->which) == (uint32_t)lock->which) {
            best = slot;
            fewest = users;
        }
    }
    if (best != NULL) {
        atomic_store(&best->crowd, 1); /* before the newcomer's flag can be up */
        atomic_fetch_add(&best->users, 1);
    }
    return best;
}

void slot_leave(struct rwlock *lock, struct lock_slot *slot, bool flag_up)
{
    if (atomic_load(&slot->users) <= 1) {
        slot_give_back(lock, slot);
        return;
    }
    if (flag_up)
        flag_lower(lock, slot);
    atomic_fetch_sub(&slot->users, 1);
}

void slot_clean(struct lock_region *region, struct lock_slot *slot, uint64_t dead, uint32_t cleaner_id)
{
    if (!atomic_compare_exchange_strong(&slot->owner, &dead, (uint64_t)cleaner_id << 32))
        return;
    LOCK_STEP(SLOT_CLEANING);
    slot_free(region, slot);
}

void slots_sweep(struct lock_region *region, const struct presence *presence)
{
    uint32_t last_alive = 0;
    for (unsigned index = 0; index < SLOT_COUNT; index++) {
        struct lock_slot *slot = &region->slots[index];
        uint64_t owner = atomic_load(&slot->owner);
        uint32_t id = owner_id(owner);
        if (owner == 0 || (id != 0 && id == last_alive))
            continue;
        if (id != 0 && presence_alive(presence, id))
            last_alive = id; /* one question for a run of slots of one process */
        else
            slot_clean(region, slot, owner, presence_id(presence));
    }
}

struct lock_slot *slot_next_sharer(const struct rwlock *lock, const struct rwlock_hold *own, unsigned *from)
{
    const struct lock_slot *own_slot = own == NULL ? NULL : own->slot;
    uint32_t own_part = own != NULL && own->below != 0 ? 1 : 0;
    uint32_t words = atomic_load(&lock->words->sharer_words);
    words = words < SLOT_WORDS ? words : SLOT_WORDS;
    for (unsigned word = *from / 64; word < words; word++) {
        uint64_t bits = atomic_load(&lock->words->sharers[word]);
        if (word == *from / 64)
            bits &= ~UINT64_C(0) << (*from % 64);
        while (bits != 0) {
            unsigned index = word * 64 + (unsigned)__builtin_ctzll(bits);
            bits &= bits - 1;
            struct lock_slot *slot = &lock->region->slots[index];
            if (atomic_load(&slot->shared) > (slot == own_slot ? own_part : 0) &&
                atomic_load(&slot->which) == (uint32_t)lock->which) {
                *from = index + 1;
                return slot;
            }
        }
    }
    *from = SLOT_COUNT;
    return NULL;
}
