/*
 * rwlock.h -- a shared/exclusive lock: nested, timed, fair, robust, upgradable; across threads and processes.
 *
 * The words live in a struct lock_region (several processes) or in private memory (threads of one process).
 * A dead owner is a result; the caller decides what to do about it.
 */
#ifndef STEAD_LOCK_RWLOCK_H
#define STEAD_LOCK_RWLOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "lock/presence.h"

enum rwlock_which { RWLOCK_STORE, RWLOCK_APPLY, RWLOCK_COUNT }; /* the locks that a region holds */

struct rwlock; /* this process's handle on one lock */

/* Readers that cannot write the words lock by LOCK_BYTE_APPLY.  Do owners take it for WRITE? */
enum rwlock_companion {
    RWLOCK_COMPANION_NONE,
    RWLOCK_COMPANION_ALWAYS,
    RWLOCK_COMPANION_ANNOUNCED /* when such a reader is announced: companion.c */
};

struct rwlock_host {
    struct lock_region *region; /* NULL: a lock among the threads of this process, in private memory        */
    enum rwlock_which which;
    struct presence *presence; /* with region                                                              */
    int fd;                    /* with companion                                                           */
    enum rwlock_companion companion;
    void (*ended)(void *ctx); /* NULL, or: a thread ended that held the lock; its levels are undone.      */
    void *ended_ctx;          /* Called under this module's mutex: may not open, close or take a lock     */
};

int rwlock_open(struct rwlock **out, const struct rwlock_host *host);
/* Frees the handle.  EBUSY if a thread of this process holds the lock or waits for it. */
int rwlock_close(struct rwlock *lock);
void rwlock_forget(struct rwlock *lock); /* fork child */

/*
 * rwlock_lock -- deadline_ns: 0 = try.
 * 0; EBUSY (try), ETIMEDOUT; EDEADLK (second upgrader, wait for oneself, cycle over several locks); ECANCELED
 * (rwlock_shut); EOWNERDEAD: held exclusively, a previous exclusive holder (process or thread) died inside; call
 * rwlock_make_consistent() or the unlock makes it ENOTRECOVERABLE for everyone (a shared request that meets a dead
 * owner is given EOWNERDEAD with the lock held exclusively as well).
 */
int rwlock_lock(struct rwlock *lock, bool exclusive, int64_t deadline_ns);
/* Undoes this thread's newest lock.  EPERM if it holds none. */
int rwlock_unlock(struct rwlock *lock);
/* Takes, undoes a level inside levels of this thread that stay as they are; false: it is none such, nothing was done. */
bool rwlock_nest(struct rwlock *lock, bool exclusive);
bool rwlock_unnest(struct rwlock *lock);
int rwlock_make_consistent(struct rwlock *lock); /* EINVAL if there is nothing to repair */
/* After EOWNERDEAD: releases the lock and leaves the owner's death for the next locker to hear of (for callers that can
 * not repair: a library operation that only wanted to look).  EPERM, EINVAL. */
int rwlock_pass_on(struct rwlock *lock);

/* This thread's one exclusive level is a shared one from now on, with nobody in between.  EPERM: it holds none, or more;
 * EINVAL: after EOWNERDEAD, before rwlock_make_consistent(). */
int rwlock_share_on(struct rwlock *lock);

/* This thread's levels.  The newest is exclusive and the only exclusive one: its unlock ends the section. */
bool rwlock_held_exclusive(const struct rwlock *lock);
bool rwlock_held(const struct rwlock *lock);
uint64_t rwlock_levels(const struct rwlock *lock); /* of this thread, shared and exclusive together */
bool rwlock_unlock_ends_exclusive(const struct rwlock *lock);
bool rwlock_used_by_process(const struct rwlock *lock); /* any thread holds it or waits for it: for close */
/* Threads of this process that wait for the lock, now or later, give up with ECANCELED; returns when none waits. */
void rwlock_shut(struct rwlock *lock);
/* A holder died inside and nobody has repaired it: INCONSISTENT, LOST, or owned by a process that is gone.  Asked when no
 * thread of this process holds the lock; others may be at it, so the answer is of its moment. */
bool rwlock_left_inconsistent(const struct rwlock *lock);

struct rwlock_info {
    uint32_t id; /* attachment */
    pid_t pid, tid;
    bool waiting, exclusive, alive;
    int64_t since_ns;   /* CLOCK_MONOTONIC; waiters only, else 0 */
    int64_t attached_s; /* CLOCK_REALTIME; 0: of a lock in private memory, or unknown */
};
int rwlock_each(const struct rwlock *lock, int (*visit)(const struct rwlock_info *, void *arg), void *arg);
/* The same for a lock that is not open here.  The region may be mapped for reading only; somebody is attached to it. */
int rwlock_each_in(const struct lock_region *region, enum rwlock_which which, const struct presence *self, int fd,
                   int (*visit)(const struct rwlock_info *, void *arg), void *arg);

#endif
