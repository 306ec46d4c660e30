/*
 * handle.c -- the process's list of lock handles, and its threads' entries for them.
 *
 * The list serves three: a thread that ends gives back what it holds (rwlock_abandon), the search for cycles over
 * several locks walks it, and a fork's child empties it.  One mutex of this process guards it; it is never held while
 * waiting for anything, and never taken on a path that a lock request takes when it need not wait - but once by a thread
 * that comes when the slots are used up.
 *
 * Thread end.  A pthread_key's destructor runs for every thread that returns, calls pthread_exit or is cancelled.
 * Other keys' destructors may still lock and unlock: every new entry arms the key again, and the C library runs
 * destructors in rounds.  A thread that ends by the bare exit system call is not noticed while its process lives.
 *
 * Fork.  The child has one thread and holds nothing: serials and the thread id are reset, the nonce is drawn anew.
 * The mutex is taken across the fork, so the child finds the list whole.
 *
 * Ordering: the list is read and written under its mutex only.  A handle's index and serial are written before
 * rwlock_open() returns and not again but in a fork's child, which has one thread: whoever has the handle got it from
 * there, so its thread reads them plainly.  A thread's entries are its own; the one other reader, thread_end(), is the same
 * thread.  An entry belongs to a handle if the serials agree; serials are never given out twice, so an entry of
 * a handle that was closed meanwhile is not taken for that of its successor at the same index.  The nonce goes from 0
 * to its value by compare-and-swap, and whoever loses takes the winner's: all see one.
 */
#include "lock/handle.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/deadline.h"
#include "base/error.h"
#include "lock/acquire.h"
#include "lock/slots.h"

_Thread_local struct thread_holds thread_holds;

static pthread_mutex_t registry_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct rwlock **registry;
static unsigned registry_count;
static uint64_t registry_serial; /* the last one given out */
static _Atomic uint64_t nonce;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t exit_key;
static int once_error;

/* A thread ends: what it still holds counts as held by a dead one. */
static void thread_end(void *arg)
{
    (void)arg;
    pthread_mutex_lock(&registry_mutex);
    for (unsigned i = 0; i < thread_holds.count && i < registry_count; i++) {
        struct rwlock_hold *hold = &thread_holds.at[i];
        if (hold->serial != 0 && registry[i] != NULL && registry[i]->serial == hold->serial)
            rwlock_abandon(registry[i], hold);
        hold->serial = 0;
    }
    pthread_mutex_unlock(&registry_mutex);
    if (thread_holds.at != thread_holds.first)
        free(thread_holds.at);
    thread_holds.at = NULL;
    thread_holds.count = 0;
    thread_holds.exit_armed = false;
}

static void fork_prepare(void)
{
    pthread_mutex_lock(&registry_mutex);
}

static void fork_parent(void)
{
    pthread_mutex_unlock(&registry_mutex);
}

static void fork_child(void)
{
    for (unsigned i = 0; i < registry_count; i++) {
        if (registry[i] != NULL)
            registry[i]->serial = HANDLE_FORKED;
        registry[i] = NULL;
    }
    for (unsigned i = 0; i < thread_holds.count; i++)
        memset(&thread_holds.at[i], 0, sizeof thread_holds.at[i]);
    thread_holds.tid = 0;
    atomic_store(&nonce, 0);
    pthread_mutex_unlock(&registry_mutex);
}

static void module_init(void)
{
    once_error = pthread_key_create(&exit_key, thread_end);
    if (once_error == 0)
        once_error = pthread_atfork(fork_prepare, fork_parent, fork_child);
}

static int module_ready(void)
{
    (void)pthread_once(&once, module_init);
    if (once_error != 0)
        return error_set(once_error, "the C library has no room for another thread-exit or fork handler: %s",
                         error_text(once_error));
    return 0;
}

uint64_t process_nonce(void)
{
    (void)module_ready(); /* for the fork handler; without it a child would share its parent's nonce */
    uint64_t drawn = atomic_load(&nonce);
    if (drawn != 0)
        return drawn;
    /* Not getrandom(3): that one is a cancellation point, and waits must not be. */
    if (syscall(SYS_getrandom, &drawn, sizeof drawn, 0) != (long)sizeof drawn)
        drawn = (uint64_t)clock_ns() << 22 ^ (uint64_t)getpid();
    if (drawn == 0)
        drawn = 1;
    uint64_t none = 0;
    return atomic_compare_exchange_strong(&nonce, &none, drawn) ? drawn : none;
}

int handle_register(struct rwlock *lock)
{
    int rc = module_ready();
    if (rc != 0)
        return rc;
    pthread_mutex_lock(&registry_mutex);
    unsigned index = 0;
    while (index < registry_count && registry[index] != NULL)
        index++;
    if (index == registry_count) {
        unsigned count = registry_count == 0 ? 8 : registry_count * 2;
        struct rwlock **grown = realloc(registry, count * sizeof *grown);
        if (grown == NULL) {
            pthread_mutex_unlock(&registry_mutex);
            return error_set(ENOMEM, "no memory for the list of the process's %u locks", count);
        }
        memset(grown + registry_count, 0, (count - registry_count) * sizeof *grown);
        registry = grown;
        registry_count = count;
    }
    registry[index] = lock;
    lock->index = index;
    lock->serial = ++registry_serial;
    pthread_mutex_unlock(&registry_mutex);
    return 0;
}

void handle_unregister(struct rwlock *lock)
{
    pthread_mutex_lock(&registry_mutex);
    if (lock->index < registry_count && registry[lock->index] == lock)
        registry[lock->index] = NULL;
    pthread_mutex_unlock(&registry_mutex);
}

void handle_lock_registry(void)
{
    pthread_mutex_lock(&registry_mutex);
}

void handle_unlock_registry(void)
{
    pthread_mutex_unlock(&registry_mutex);
}

int handle_each_locked(int (*visit)(const struct rwlock *lock, void *arg), void *arg)
{
    int rc = 0;
    for (unsigned i = 0; i < registry_count && rc == 0; i++) {
        if (registry[i] != NULL)
            rc = visit(registry[i], arg);
    }
    return rc;
}

/* Room for entry `index` in this thread's array. */
static int holds_grow(unsigned index)
{
    if (thread_holds.at == NULL) {
        thread_holds.at = thread_holds.first;
        thread_holds.count = HOLDS_INLINE;
        memset(thread_holds.first, 0, sizeof thread_holds.first);
    }
    if (index < thread_holds.count)
        return 0;
    unsigned count = thread_holds.count;
    while (count <= index)
        count *= 2;
    struct rwlock_hold *grown = calloc(count, sizeof *grown);
    if (grown == NULL)
        return error_set(ENOMEM, "no memory for a thread's entries for %u locks", count);
    memcpy(grown, thread_holds.at, thread_holds.count * sizeof *grown);
    if (thread_holds.at != thread_holds.first)
        free(thread_holds.at);
    thread_holds.at = grown;
    thread_holds.count = count;
    return 0;
}

int hold_make(struct rwlock *lock, struct rwlock_hold **out)
{
    if (lock->serial == HANDLE_FORKED)
        return error_set(EPERM, "the lock was opened by the process that this one was forked from; open it again here");
    int rc = holds_grow(lock->index);
    if (rc != 0)
        return rc;
    if (!thread_holds.exit_armed) {
        rc = pthread_setspecific(exit_key, &thread_holds);
        if (rc != 0)
            return error_set(rc, "no memory for a thread's exit handler");
        thread_holds.exit_armed = true;
    }
    if (thread_holds.tid == 0)
        thread_holds.tid = (uint32_t)syscall(SYS_gettid);
    struct rwlock_hold *hold = &thread_holds.at[lock->index];
    memset(hold, 0, sizeof *hold);
    hold->self = (uint64_t)lock->id << 32 | (thread_holds.tid & STATE_TID);
    hold->slot = slot_take(lock, hold->self, false);
    hold->serial = lock->serial;
    *out = hold;
    return 0;
}

void hold_find_slot(struct rwlock *lock, struct rwlock_hold *hold)
{
    pthread_mutex_lock(&registry_mutex); /* who joins and who leaves, one at a time: slots.c */
    hold->slot = slot_join(lock);
    hold->joined = hold->slot != NULL;
    if (hold->slot == NULL)
        hold->slot = slot_take(lock, hold->self, true);
    pthread_mutex_unlock(&registry_mutex);
}

bool handle_alive(const struct rwlock *lock, uint32_t id)
{
    return id == lock->id || (lock->presence != NULL && presence_alive(lock->presence, id));
}

uint64_t handle_nonce(const struct rwlock *lock, uint32_t id)
{
    if (id == lock->id)
        return process_nonce();
    return lock->process_private ? 0 : presence_nonce(lock->region, id);
}
