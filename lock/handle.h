/*
 * handle.h -- a process's handle on a lock, and what each of its threads knows about it.
 *
 * A thread's part (struct rwlock_hold) lies in thread-local memory: nesting is counted there, so nested levels touch
 * no shared memory.  Handles have a small dense index (the place in every thread's array) and a serial number that is
 * never reused, so that a thread sees that its entry belonged to a handle since closed.  A fork sets every handle's
 * serial to one that no entry has: the child holds nothing, and every call there takes the slow way to EPERM.
 */
#ifndef STEAD_LOCK_HANDLE_H
#define STEAD_LOCK_HANDLE_H

#include <stdbool.h>
#include <stdint.h>

#include "lock/region.h"

#define HANDLE_FORKED UINT64_MAX

struct rwlock {
    uint64_t serial; /* from 1; HANDLE_FORKED in a fork child */
    unsigned index;
    enum rwlock_which which;
    struct lock_words *words;
    struct lock_region *region; /* the lock's own when process_private */
    struct presence *presence;  /* NULL when process_private           */
    uint32_t id;                /* of the attachment                   */
    bool process_private;
    enum rwlock_companion companion;
    bool announced;   /* companion.c: the answer of the last ask ... */
    int64_t asked_ns; /* ... and when that was; both touched by owners only */
    int fd;
    void (*ended)(void *ctx); /* struct rwlock_host */
    void *ended_ctx;
    /* A line of its own: nobody who need not wait looks at it. */
    /* Threads between wait_count() and wait_end(), or that ask for byte APPLY. */
    _Alignas(CACHE_LINE_BYTES) _Atomic unsigned waiting;
    _Atomic bool shut; /* whoever waits gives up: ECANCELED */
};

/* One thread's levels on one handle.  Levels undo newest first, and everything above the first exclusive level is
 * held exclusively whatever was asked for, so two counts tell the whole stack. */
struct rwlock_hold {
    uint64_t serial;
    uint64_t self;          /* owner bits of this thread: id << 32 | tid                         */
    struct lock_slot *slot; /* NULL: all slots were taken, and it has not yet asked to share     */
    int64_t told;           /* the newest waiting_since of this thread                           */
    uint32_t below;         /* shared levels under the first exclusive one                       */
    uint32_t inside;        /* levels from the first exclusive one on                            */
    bool sharer;            /* the slot's bit is set in words->sharers                           */
    bool joined;            /* the slot was another thread's, and may be again                   */
    bool stand_in;          /* shared levels held exclusively, for want of a slot                */
    bool by_byte;           /* inside, with byte APPLY                                           */
    bool biased;            /* STATE_BIAS was set when the owner word was claimed                */
};

#define HOLDS_INLINE 4

struct thread_holds {
    struct rwlock_hold *at;
    unsigned count;
    uint32_t tid;    /* 0: not asked for yet */
    bool exit_armed; /* thread_end() will run */
    struct rwlock_hold first[HOLDS_INLINE];
};
extern _Thread_local struct thread_holds thread_holds;

/* This thread's entry, or NULL if it has none yet. */
static inline struct rwlock_hold *hold_find(const struct rwlock *lock)
{
    if (__builtin_expect(lock->index < thread_holds.count, 1)) {
        struct rwlock_hold *hold = &thread_holds.at[lock->index];
        if (__builtin_expect(hold->serial == lock->serial, 1))
            return hold;
    }
    return NULL;
}

/* Makes the entry: 0, EPERM (fork child), ENOMEM. */
int hold_make(struct rwlock *lock, struct rwlock_hold **out);
/* A slot for an entry that has none and is to share: joins one of this process, or takes a first one; may find none. */
void hold_find_slot(struct rwlock *lock, struct rwlock_hold *hold);

/* Gives the handle its index and serial; forgets it.  ENOMEM. */
int handle_register(struct rwlock *lock);
void handle_unregister(struct rwlock *lock);
/* Visits the open handles, between the two calls that keep them open; stops at non-zero. */
void handle_lock_registry(void);
void handle_unlock_registry(void);
int handle_each_locked(int (*visit)(const struct rwlock *lock, void *arg), void *arg);

/* Random, the same for all attachments of this process; another one in a fork child. */
uint64_t process_nonce(void);

/* From the records of presence.c: 0 if that id is not (or no longer) written down. */
uint64_t presence_nonce(const struct lock_region *region, uint32_t id);
pid_t presence_pid(const struct lock_region *region, uint32_t id);

/* For any owner bits seen in this lock's words or slots. */
static inline uint32_t owner_id(uint64_t owner)
{
    return (uint32_t)(owner >> 32);
}
static inline uint32_t owner_tid(uint64_t owner)
{
    return (uint32_t)(owner & STATE_TID);
}
bool handle_alive(const struct rwlock *lock, uint32_t id);
uint64_t handle_nonce(const struct rwlock *lock, uint32_t id);

#endif
