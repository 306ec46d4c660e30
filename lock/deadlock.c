/*
 * deadlock.c -- cycles of waiting over several locks.
 *
 * Thread A holds lock 1 and wants 2, thread B holds 2 and wants 1: neither lock knows, but both can be seen in the
 * regions this process has mapped (and its private locks).  A waiter that has waited for a while walks from itself:
 * the lock it waits for -> that lock's holders -> the locks they wait for -> ... back to itself.  A thread is known
 * across regions by its process's random nonce and its thread id.
 *
 * The walk reads words that others change, so what it finds could be put together from different moments.  But a
 * thread that waits gives nothing back.  So the path is looked at four times: who waits since when (the walk), then
 * twice who holds what, then again who waits since when.  If every thread waited since the same moment in the first and
 * in the last look, all of them waited through the two between, held then what was seen, and hold it still: the cycle is
 * real.  What needs care is each way in which a thread could give something back, or go on, while its words say that it
 * waits:
 *
 *   A flag that goes up while its thread waits to share is no hold: it only tries.  It may also have succeeded just now,
 *   its wait not yet taken back: as long as the flag is up, it does not wait either.
 *   A claim (the owner word, while readers are waited for) is taken while its thread waits.  Before it is given up the wait
 *   is taken back (acquire.c): else a thread that gives up its upgrade and shares on would be half a cycle with whoever
 *   claims next.  If an upgrader steals it, the thread waits on, but since another moment (wait_anew) before it can claim
 *   again: a claim that both looks found was there all the time between them.
 *   An owner whose readers are gone, its wait not yet taken back, "waits" for flags that are not up: for nobody.
 *   A wait whose deadline has passed is one until its thread has taken it back.
 *
 * Who gives up: of the cycle's threads the one with the greatest (nonce, tid), as soon as it knows; the others only
 * if the cycle is still there CYCLE_PATIENCE_NS later, for the greatest one may not have all its locks mapped.  It may also
 * just be slow: then two know at once.  So whoever is about to give up takes its own wait back first, and then looks once
 * more whether all the others still wait.  Of two that do so one at least finds the other gone (each stores, then looks):
 * that one goes on waiting, since another moment, for the cycle may be no more.  If both found that, it still is, and is
 * found again.  A wait that is not told (no slot of its own) is seen by nobody, and its cycle by its own thread only.
 * A waiter sees a cycle only if its own process has every lock of the cycle open.  If no process on the cycle has,
 * nobody sees it (docs/locks.md).
 *
 * Ordering: the words are read one by one, sequentially consistent as they are written, so the looks are in one order with
 * all that the waiters do.  A thread stores waiting_since (its clock, after waiting_exclusive) when it begins to wait and 0
 * when it ends, and each is greater than its last one (hold->told): a value never comes back, so the same one in two looks
 * says that nothing was stored in between, also if the slot could have gone to another thread meanwhile.  Holds but for the
 * claim are taken before the wait is told and given back after it was taken back, by the same thread; hence what one look
 * between finds held was held throughout, and a claim from the first to the second of them: there is a moment at which all
 * was held.  The flag of who waits to share is read before its wait: down, and then a wait that was told before, says that
 * it had not come in when the flag was read.  The list of locks is walked under its mutex (handle.c), which keeps them
 * mapped.
 *
 * The dead wait for ever: words of a killed process look like those of a waiter until somebody takes them down.  So each
 * thread on the path must be of a living process when the looks are done; what its words said before, it then did mean.
 *
 * tests/model/cycle.pml has the looks word by word, and these arguments taken away one by one.
 *
 * Bounds: at most PATH_MAX_THREADS threads on a path, WALK_MAX looks in all; damaged words cost time up to that.
 *
 * Invariants:
 *   L12  EDEADLK for a cycle only if every thread on it is of a living process and waited, since the same moment,
 *        before and after two looks that found every one of them holding what the one before it waits for
 *   L14  of the threads of one cycle at most one gives up: after it took back its wait, all the others still waited
 */
#include "lock/deadlock.h"

#include "lock/slots.h"
#include "lock/steps.h"

#define PATH_MAX_THREADS 16
#define WALK_MAX 1024 /* more than a lock has holders: none of them is passed over */
#define CYCLE_PATIENCE_NS 300000000

struct walker {
    uint64_t nonce;
    uint32_t tid;
    uint64_t self;             /* its owner bits there: the same thread may be there twice, by two attachments */
    const struct rwlock *lock; /* it waits for this one */
    int64_t since;
    bool exclusive;
};

struct walk {
    struct walker path[PATH_MAX_THREADS]; /* [0] is the asking thread */
    unsigned depth;
    unsigned looks;
    bool found;
};

static bool same_thread(const struct walker *a, uint64_t nonce, uint32_t tid)
{
    return a->nonce == nonce && a->tid == tid;
}

struct wait_query {
    struct walker *walker;
    bool waits;
};

/* One lock: does the walker wait for it? */
static int find_wait_here(const struct rwlock *lock, void *arg)
{
    struct wait_query *query = arg;
    struct walker *walker = query->walker;
    for (unsigned i = 0; i < SLOT_COUNT; i++) {
        const struct lock_slot *slot = &lock->region->slots[i];
        bool flag_up = atomic_load(&slot->shared) != 0;
        int64_t since = atomic_load(&slot->waiting_since);
        if (since == 0 || atomic_load(&slot->which) != (uint32_t)lock->which)
            continue;
        uint64_t owner = atomic_load(&slot->owner);
        if (owner == 0 || owner_tid(owner) != walker->tid || handle_nonce(lock, owner_id(owner)) != walker->nonce)
            continue;
        bool exclusive = atomic_load(&slot->waiting_exclusive) != 0;
        if (!exclusive && flag_up)
            continue; /* it looks whether it may share: perhaps it does already */
        walker->self = owner;
        walker->lock = lock;
        walker->exclusive = exclusive;
        walker->since = since;
        query->waits = true;
        return 1;
    }
    return 0;
}

struct registry_list {
    const struct rwlock *locks[64];
    unsigned count;
};

static int list_lock(const struct rwlock *lock, void *arg)
{
    struct registry_list *list = arg;
    if (list->count == sizeof list->locks / sizeof list->locks[0])
        return 1;
    list->locks[list->count++] = lock;
    return 0;
}

static bool find_wait(const struct registry_list *list, struct walker *walker)
{
    struct wait_query query = {.walker = walker, .waits = false};
    for (unsigned i = 0; i < list->count && !query.waits; i++)
        (void)find_wait_here(list->locks[i], &query);
    return query.waits;
}

/* The flag is a hold, not a try of somebody who waits to share; and it is known whose. */
static bool slot_holds(const struct lock_slot *slot)
{
    return atomic_load(&slot->shared) != 0 && atomic_load(&slot->crowd) == 0 &&
           (atomic_load(&slot->waiting_since) == 0 || atomic_load(&slot->waiting_exclusive) != 0);
}

static bool walk_from(struct walk *walk, const struct registry_list *list);

/* One holder of the lock that the path's last thread waits for. */
static bool walk_to(struct walk *walk, const struct registry_list *list, const struct rwlock *lock, uint64_t owner)
{
    struct walker next = {.nonce = handle_nonce(lock, owner_id(owner)), .tid = owner_tid(owner)};
    if (next.nonce == 0)
        return false;
    if (same_thread(&walk->path[0], next.nonce, next.tid))
        return true;
    if (++walk->looks > WALK_MAX)
        return false;
    for (unsigned i = 1; i < walk->depth; i++) {
        if (same_thread(&walk->path[i], next.nonce, next.tid))
            return false; /* a cycle, but not ours */
    }
    if (walk->depth == PATH_MAX_THREADS || !find_wait(list, &next))
        return false;
    walk->path[walk->depth++] = next;
    if (walk_from(walk, list))
        return true;
    walk->depth--;
    return false;
}

/* Every holder of the lock that the path's last thread waits for. */
static bool walk_from(struct walk *walk, const struct registry_list *list)
{
    const struct walker waiter = walk->path[walk->depth - 1];
    const struct rwlock *lock = waiter.lock;
    uint64_t state = atomic_load(&lock->words->state);
    if ((state & STATE_OWNER) != 0 && (state & STATE_OWNER) != waiter.self &&
        walk_to(walk, list, lock, state & STATE_OWNER))
        return true;
    if (!waiter.exclusive)
        return false;
    struct lock_slot *slot;
    for (unsigned from = 0; (slot = slot_next_sharer(lock, NULL, &from)) != NULL;) {
        uint64_t owner = atomic_load(&slot->owner);
        if (owner != waiter.self && slot_holds(slot) && walk_to(walk, list, lock, owner))
            return true;
    }
    return false;
}

static bool is_thread(const struct rwlock *lock, uint64_t owner, const struct walker *thread, uint64_t but_not)
{
    return owner != but_not && owner_tid(owner) == thread->tid && handle_nonce(lock, owner_id(owner)) == thread->nonce;
}

/* Is holder in the way of waiter, now? */
static bool stands_in_way(const struct walker *waiter, const struct walker *holder)
{
    const struct rwlock *lock = waiter->lock;
    if (is_thread(lock, atomic_load(&lock->words->state) & STATE_OWNER, holder, waiter->self))
        return true;
    if (!waiter->exclusive)
        return false;
    struct lock_slot *slot;
    for (unsigned from = 0; (slot = slot_next_sharer(lock, NULL, &from)) != NULL;) {
        if (slot_holds(slot) && is_thread(lock, atomic_load(&slot->owner), holder, waiter->self))
            return true;
    }
    return false;
}

/* The others wait, since when the walk saw them wait. */
static bool path_waits(const struct walk *walk, const struct registry_list *list)
{
    for (unsigned i = 1; i < walk->depth; i++) {
        struct walker again = walk->path[i];
        if (!find_wait(list, &again) || again.since != walk->path[i].since || again.lock != walk->path[i].lock)
            return false;
    }
    return true;
}

/* L12: the looks after the walk. */
static bool path_stands(const struct walk *walk, const struct registry_list *list)
{
    for (unsigned i = 0; i < 2 * walk->depth; i++) {
        if (!stands_in_way(&walk->path[i % walk->depth], &walk->path[(i + 1) % walk->depth]))
            return false;
    }
    return path_waits(walk, list);
}

static bool path_lives(const struct walk *walk)
{
    for (unsigned i = 1; i < walk->depth; i++) {
        if (!handle_alive(walk->path[i].lock, owner_id(walk->path[i].self)))
            return false;
    }
    return true;
}

static bool asker_is_greatest(const struct walk *walk)
{
    const struct walker *asker = &walk->path[0];
    for (unsigned i = 1; i < walk->depth; i++) {
        const struct walker *other = &walk->path[i];
        if (other->nonce > asker->nonce || (other->nonce == asker->nonce && other->tid > asker->tid))
            return false;
    }
    return true;
}

/* L14.  True: this thread gives up, its wait is taken back.  False: it goes on waiting. */
static bool give_up_first(struct waiting *w, const struct walk *walk, const struct registry_list *list)
{
    const int64_t since = w->since;
    wait_take_back(w);
    LOCK_STEP(CYCLE_LEFT);
    if (path_waits(walk, list))
        return true;
    w->since = since;
    wait_anew(w);
    w->cycle_since = 0;
    return false;
}

struct check {
    struct walk walk;
    struct registry_list list;
};

bool deadlock_check(struct waiting *w, int64_t now_ns)
{
    struct check check = {.list.count = 0};
    struct walk *walk = &check.walk;
    walk->path[0] = (struct walker){.nonce = process_nonce(),
                                    .tid = owner_tid(w->hold->self),
                                    .self = w->hold->self,
                                    .lock = w->lock,
                                    .since = w->since,
                                    .exclusive = w->exclusive};
    walk->depth = 1;
    walk->looks = 0;
    handle_lock_registry();
    (void)handle_each_locked(list_lock, &check.list);
    bool gives_up = false;
    if (walk_from(walk, &check.list) && path_stands(walk, &check.list) && path_lives(walk)) {
        if (w->cycle_since == 0)
            w->cycle_since = now_ns;
        if (asker_is_greatest(walk) || now_ns - w->cycle_since >= CYCLE_PATIENCE_NS)
            gives_up = give_up_first(w, walk, &check.list);
    } else {
        w->cycle_since = 0;
    }
    handle_unlock_registry();
    return gives_up;
}
