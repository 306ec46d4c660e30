/*
 * registry.c -- the stores that are open in this process: one per file (device and inode), findable by address.
 *
 * Why: the same file mapped twice would be two private images fighting over one log, and stead_free() is given
 * nothing but a pointer.
 *
 *  - An open of a store that is open here looks at its options first, which may wait for its lock.  Meanwhile it is a visitor
 *    and has no handle: else a close could leave the commit to it, say that all is well, and it is refused.  The last close
 *    waits for visitors; they take a handle, and it is not the last any more, or go.
 *  - The list, phases and handle counts are under one mutex, never held across a wait for another process: an open
 *    or close in progress is a phase, and others wait for it on a condition variable (CLOCK_MONOTONIC).
 *  - The address table is read without a lock: by stead_free() where the pointer is not of the store that the thread used last
 *    (alloc/owner.c), and by the other calls that are given a pointer.  A slot is published by storing its range, one
 *    word, after the store, and withdrawn by storing 0 there first.  A reader that finds its pointer in a range and then
 *    no store, or another one, is a free() that races with the close of its own store: the caller's error, for ranges
 *    of open stores do not overlap.
 *
 * fork(2): the child keeps the handles but not what is behind them: the heap range is not inherited (MADV_DONTFORK),
 * descriptors are closed here so that the child keeps no kernel lock alive, the table is emptied so that the child
 * may open the same files anew.  What alloc/ and lock/ keep in memory is freed by the child's stead_close() and not here:
 * their own fork handlers may run after this one and still hold their mutexes.  A store that another thread was just
 * opening or closing is half made: only its descriptors are closed.  For that the list must know every descriptor that may
 * carry locks: from the moment before one is opened until its store is in the list, forks wait (registry_fork_hold).
 */
#include <errno.h>
#include <pthread.h>
#include <time.h>

#include "store/store.h"

#define REGISTRY_SLOTS 1024

/* `where` is one word, so that whoever reads it has a base and a length that belong together: base / 64 KiB in the upper
 * half, length / 64 KiB in the lower; 0 = empty.  Addresses have 48 bits, capacities 46. */
struct range {
    _Atomic uint64_t where;
    struct stead *_Atomic store; /* written before `where`, cleared after it */
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t phase_changed;
static unsigned fork_holds; /* forks wait until there are none */
static pthread_cond_t fork_released;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct stead *list;
static struct range ranges[REGISTRY_SLOTS];
static _Atomic unsigned range_limit; /* slots below were used */

static void condition_init(void)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&phase_changed, &attributes);
    pthread_cond_init(&fork_released, &attributes);
    pthread_condattr_destroy(&attributes);
}

static void before_fork(void)
{
    pthread_mutex_lock(&mutex);
    while (fork_holds != 0)
        pthread_cond_wait(&fork_released, &mutex);
}

static void after_fork_parent(void)
{
    pthread_mutex_unlock(&mutex);
}

static void after_fork_child(void)
{
    for (struct stead *s = list; s != NULL; s = s->next) {
        atomic_fetch_or(&s->gate, (unsigned)GATE_FORKED);
        store_forked(s);
    }
    list = NULL;
    for (unsigned i = 0; i < REGISTRY_SLOTS; i++)
        atomic_store(&ranges[i].where, 0);
    condition_init();
    pthread_mutex_unlock(&mutex);
}

static void registry_init(void)
{
    condition_init();
    (void)pthread_atfork(before_fork, after_fork_parent, after_fork_child);
}

/* Nobody comes here who would not wait at all: who has no deadline of his own has store_patience(). */
static int wait_for_phase(int64_t deadline_ns)
{
    if (deadline_ns == DEADLINE_NEVER) {
        pthread_cond_wait(&phase_changed, &mutex);
        return 0;
    }
    struct timespec until = {.tv_sec = deadline_ns / 1000000000, .tv_nsec = deadline_ns % 1000000000};
    return pthread_cond_timedwait(&phase_changed, &mutex, &until) == ETIMEDOUT ? ETIMEDOUT : 0;
}

static struct stead *find_file(dev_t device, ino_t inode)
{
    for (struct stead *s = list; s != NULL; s = s->next)
        if (s->file.device == device && s->file.inode == inode)
            return s;
    return NULL;
}

void registry_fork_hold(void)
{
    pthread_once(&once, registry_init);
    pthread_mutex_lock(&mutex);
    fork_holds++;
    pthread_mutex_unlock(&mutex);
}

void registry_fork_release(void)
{
    pthread_mutex_lock(&mutex);
    if (--fork_holds == 0)
        pthread_cond_broadcast(&fork_released);
    pthread_mutex_unlock(&mutex);
}

int registry_claim(struct stead *fresh, struct stead **existing)
{
    int rc = 0;
    pthread_mutex_lock(&mutex);
    struct stead *s = find_file(fresh->file.device, fresh->file.inode);
    *existing = NULL;
    if (s == NULL) {
        fresh->phase = STORE_OPENING;
        fresh->handles = 1;
        fresh->next = list;
        list = fresh;
    } else if (s->phase == STORE_OPEN) {
        s->visitors++;
        *existing = s;
    } else {
        rc = EAGAIN;
    }
    pthread_mutex_unlock(&mutex);
    return rc;
}

int registry_wait(const struct file *file, int64_t deadline_ns)
{
    int rc = 0;
    pthread_mutex_lock(&mutex);
    for (struct stead *s; rc == 0; rc = wait_for_phase(deadline_ns)) {
        s = find_file(file->device, file->inode);
        if (s == NULL || s->phase == STORE_OPEN)
            break;
    }
    pthread_mutex_unlock(&mutex);
    return rc == 0 ? 0 : error_set(rc, "%s is being opened or closed by another thread of this process", file->path);
}

static int publish_range(struct stead *s)
{
    for (unsigned i = 0; i < REGISTRY_SLOTS; i++) {
        if (atomic_load(&ranges[i].where) != 0)
            continue;
        atomic_store(&ranges[i].store, s);
        atomic_store(&ranges[i].where, (uint64_t)((uintptr_t)s->base / UNIT_BYTES) << 32 | s->capacity / UNIT_BYTES);
        if (atomic_load(&range_limit) <= i)
            atomic_store(&range_limit, i + 1);
        return 0;
    }
    return error_set(EMFILE, "%s: %d stores are open in this process, the most that it can find pointers in",
                     s->file.path, REGISTRY_SLOTS);
}

int registry_publish(struct stead *s)
{
    pthread_mutex_lock(&mutex);
    int rc = publish_range(s);
    pthread_mutex_unlock(&mutex);
    return rc;
}

void registry_unpublish(struct stead *s)
{
    pthread_mutex_lock(&mutex);
    for (unsigned i = 0; i < atomic_load(&range_limit); i++)
        if (atomic_load(&ranges[i].store) == s) {
            atomic_store(&ranges[i].where, 0);
            atomic_store(&ranges[i].store, NULL);
        }
    pthread_mutex_unlock(&mutex);
}

void registry_opened(struct stead *s)
{
    pthread_mutex_lock(&mutex);
    s->phase = STORE_OPEN;
    pthread_cond_broadcast(&phase_changed);
    pthread_mutex_unlock(&mutex);
}

void registry_withdraw(struct stead *s)
{
    pthread_mutex_lock(&mutex);
    for (struct stead **at = &list; *at != NULL; at = &(*at)->next)
        if (*at == s) {
            *at = s->next;
            break;
        }
    pthread_cond_broadcast(&phase_changed);
    pthread_mutex_unlock(&mutex);
}

/* The phase is CLOSING, so no more of them come. */
static void visitors_leave(struct stead *s, int64_t deadline_ns)
{
    while (s->visitors != 0 && wait_for_phase(deadline_ns) == 0)
        continue;
}

static void set_phase(struct stead *s, enum store_phase phase)
{
    s->phase = phase;
    pthread_cond_broadcast(&phase_changed);
}

enum registry_close registry_begin_close(struct stead *s, int64_t deadline_ns)
{
    enum registry_close close = CLOSE_OPENING;
    pthread_mutex_lock(&mutex);
    if (s->phase == STORE_OPEN && s->handles == 1) {
        s->phase = STORE_CLOSING;
        if (deadline_ns == 0)
            atomic_store(&s->leaving, true); /* stead_abandon: they are sent away */
        else
            visitors_leave(s, deadline_ns);
        if (deadline_ns == 0 || (s->visitors == 0 && s->handles == 1))
            close = CLOSE_LAST;
        else
            set_phase(s, STORE_OPEN);
    }
    /* Also beside a last close that still waits: a visitor that took a handle is through with it already. */
    if (close == CLOSE_OPENING && s->phase != STORE_OPENING && s->handles > 1) {
        s->handles--;
        close = CLOSE_OTHERS;
    }
    pthread_mutex_unlock(&mutex);
    return close;
}

void registry_await_visitors(struct stead *s)
{
    pthread_mutex_lock(&mutex);
    visitors_leave(s, DEADLINE_NEVER);
    pthread_mutex_unlock(&mutex);
}

bool registry_visit_end(struct stead *s, bool takes_handle)
{
    pthread_mutex_lock(&mutex);
    bool takes = takes_handle && !atomic_load(&s->leaving);
    s->visitors--;
    s->handles += takes;
    pthread_cond_broadcast(&phase_changed);
    pthread_mutex_unlock(&mutex);
    return takes == takes_handle;
}

void registry_cancel_close(struct stead *s)
{
    pthread_mutex_lock(&mutex);
    s->phase = STORE_OPEN;
    pthread_cond_broadcast(&phase_changed);
    pthread_mutex_unlock(&mutex);
}

struct stead *registry_find(const void *p)
{
    unsigned limit = atomic_load_explicit(&range_limit, memory_order_acquire);
    for (unsigned i = 0; i < limit; i++) {
        uint64_t where = atomic_load_explicit(&ranges[i].where, memory_order_acquire);
        if ((uint64_t)((uintptr_t)p >> 16) - (where >> 32) < (uint32_t)where)
            return atomic_load_explicit(&ranges[i].store, memory_order_relaxed);
    }
    return NULL;
}
