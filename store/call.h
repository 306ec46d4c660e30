/*
 * call.h -- one public call that may wait or do I/O: not cancelled half way, and seen by stead_close.
 *
 * Cancellation.  write(2), fsync(2), open(2), close(2), waits on conditions and many more are cancellation points.  A
 * thread that ended at one of them would leave mutexes locked, a store half open, the gate byte taken: nobody could go on.
 * Undoing every such place would need a handler at each, and few would ever be run.  So no call of stead.h is a
 * cancellation point: a request stays pending until the call has returned.  That holds for the callbacks inside a call
 * (init, upgrade, visit), too: an open or a transaction cannot be left in the middle.  The ways that do neither I/O nor
 * wait on anything but a futex (by syscall(2), which is no cancellation point) pay nothing: malloc, free, and lock and
 * unlock except where they commit, catch up, roll back or lock a byte of the file.
 *
 * Being seen.  The handle counts the calls that are under way.  stead_close answers EBUSY while there is one, and
 * stead_abandon waits until they are over: so a thread that waits for a commit, a copy or a change never finds its store
 * unmapped.  Calls of its own thread, from whose callback it is called, cannot be waited for: the outermost of them does
 * the work when it is over, as the last thing it does.  Waits for the lock itself are counted in
 * lock/ (rwlock_used_by_process), because their fast paths share no line among a process's readers.
 *
 * A guard per call, by __attribute__((cleanup)): no path out forgets it.  In a fork child a guard that was there at the
 * moment of the fork was the forking thread's: callbacks may fork, and the child's copy counts down as the parent's does.
 */
#ifndef STEAD_STORE_CALL_H
#define STEAD_STORE_CALL_H

#include <pthread.h>

#include "store/store.h"

static inline int cancel_off(void)
{
    int before = PTHREAD_CANCEL_ENABLE;
    (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
    return before;
}

static inline void cancel_restore(const int *before)
{
    (void)pthread_setcancelstate(*before, NULL);
}

/* The rest of the block is no cancellation point. */
#define NOT_CANCELLED __attribute__((cleanup(cancel_restore), unused)) int cancel_before_ = cancel_off()

struct store_call {
    struct stead *store;
    struct store_call *outer; /* of this thread, from whose callback this one was made */
    int cancel_before;
    bool abandons; /* the store, at its end */
};

void store_call_begin(struct store_call *call, struct stead *s);
void store_call_end(struct store_call *call);
/* stead_abandon is for the end of this thread's outermost call on the store.  False: it is in none. */
bool store_call_abandons(const struct stead *s);
/* close.c: what stead_abandon does. */
void store_abandon(struct stead *s);
/* Calls on the store by all threads. */
static inline unsigned store_calls(const struct stead *s)
{
    return atomic_load(&s->calls);
}

/* The rest of the block is a call on the store: not cancelled, and counted. */
#define STORE_CALL(s) \
    __attribute__((cleanup(store_call_end))) struct store_call call_; \
    store_call_begin(&call_, (s))

#endif
