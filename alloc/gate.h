/* gate.h -- the heap's own lock, for the slow path.  Nothing of it stays behind when a holder is killed. */
#ifndef STEAD_ALLOC_GATE_H
#define STEAD_ALLOC_GATE_H

#include "alloc/state.h"
#include "base/check.h"

/* Never fails: a dead holder's unfinished step is settled first. */
void gate_enter(struct heap *heap);
void gate_leave(struct heap *heap);

/* Announces the run that is about to be made or removed, so that whoever takes the lock from a dead holder can settle
 * it; pages 0: done.  Free of cost outside LIVE. */
void gate_intend(struct heap *heap, uint64_t page, uint64_t pages);

/* A place where a test may kill the process: see tests/unit/alloc/test_kill.c.  Nothing in release builds. */
#if STEAD_CHECKS >= 1
extern void (*gate_step_hook)(void);
#define GATE_STEP() (gate_step_hook != NULL ? gate_step_hook() : (void)0)
#else
#define GATE_STEP() ((void)0)
#endif

#endif
