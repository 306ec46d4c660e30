/*
 * steps.h -- labelled places of the lock, where a test may stop, kill or reorder.
 *
 * In builds with STEAD_CHECKS >= 2 every LOCK_STEP calls lock_step_hook when a test has set one; in other builds it
 * is nothing.  The labels are the steps that docs/locks.md argues about, one by one.
 */
#ifndef STEAD_LOCK_STEPS_H
#define STEAD_LOCK_STEPS_H

#include "base/check.h"

#define LOCK_STEPS(X) \
    X(SHARED_FLAGGED)   /* own flag is up, the state not yet looked at                       */ \
    X(SHARED_GRANTED)   /* shares after all, its wait not yet taken back                     */ \
    X(SHARED_IN)        /* holds shared                                                      */ \
    X(SHARED_WITHDRAWN) /* flag taken back: somebody is in the way                           */ \
    X(SHARED_CLEARED)   /* unlock: flag is down, a draining owner not yet woken              */ \
    X(CLAIMED)          /* owner word taken, readers not yet looked for                      */ \
    X(READERS_ASKED)    /* owner, asked the kernel for readers from outside, not yet noted   */ \
    X(DRAINING)         /* owner, DRAIN set, readers still in                                */ \
    X(EXCLUSIVE_IN)     /* holds exclusively                                                 */ \
    X(STOLEN)           /* an upgrader took the owner word from a draining writer            */ \
    X(RELEASED)         /* unlock: owner word given up, nobody woken yet                     */ \
    X(STILL_WAITS)      /* somebody is in the way for longer, the clock not yet read         */ \
    X(SLEEPING)         /* waiter's bit is set, about to sleep                               */ \
    X(WOKEN)            /* came back from sleep                                              */ \
    X(CYCLE_LEFT)       /* about to get EDEADLK: its wait taken back, the others' not yet looked at */ \
    X(CLAIMANT_SET)     /* starving waiter named itself, HANDOFF not yet set                 */ \
    X(HANDOFF_SET)      /* HANDOFF set                                                       */ \
    X(HANDOFF_TAKEN)    /* claimant owns, its name not yet removed                           */ \
    X(SLOT_TAKEN)       /* thread slot claimed, not yet visible to writers                   */ \
    X(SLOT_CLEANING)    /* a dead thread's slot belongs to its cleaner                       */ \
    X(OWNER_REMOVED)    /* a dead owner was removed, nobody woken yet                        */ \
    X(ATTACH_BYTE)      /* presence: kernel lock taken, no record yet                        */ \
    X(ATTACH_DONE)      /* presence: record written                                          */ \
    X(DETACH_CLEARED)   /* presence: record cleared, kernel lock still held                  */

enum lock_step {
#define LOCK_STEP_ENUM(name) LOCK_STEP_##name,
    LOCK_STEPS(LOCK_STEP_ENUM)
#undef LOCK_STEP_ENUM
        LOCK_STEP_COUNT
};

#if STEAD_CHECKS >= 2
extern void (*lock_step_hook)(enum lock_step step);
#define LOCK_STEP(name) \
    do { \
        if (__builtin_expect(lock_step_hook != 0, 0)) \
            lock_step_hook(LOCK_STEP_##name); \
    } while (0)
#else
#define LOCK_STEP(name) ((void)0)
#endif

#endif
