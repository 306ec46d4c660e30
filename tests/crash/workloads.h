/* workloads.h -- the workloads that all crash tests share; each is a struct crash_case on the versioned structure. */
#ifndef STEAD_CRASH_WORKLOADS_H
#define STEAD_CRASH_WORKLOADS_H

#include "tests/crash/crash_kit.h"

extern const struct crash_case workload_durable;     /* SOLE: create, durable commits, close                  */
extern const struct crash_case workload_buffered;    /* SOLE: BUFFERED commits, a durable one now and then, no close */
extern const struct crash_case workload_checkpoints; /* SOLE: BUFFERED commits, the log soon over its limit */
extern const struct crash_case workload_rollback;    /* SOLE: commits, rollbacks, growth that is taken back   */
extern const struct crash_case workload_bulk;        /* SOLE: large new blocks in one commit, then freed, close */
extern const struct crash_case workload_reopened;    /* SOLE: a sealed store is opened, changed, closed       */
extern const struct crash_case workload_recovery;    /* SOLE: a crashed store is recovered, changed, closed   */
extern const struct crash_case workload_turns;       /* TURNS: two processes commit in turns                  */
extern const struct crash_case workload_turns_crashed; /* TURNS: a section was cut off; the next goes on   */
extern const struct crash_case workload_backup;        /* SOLE: a backup is made between commits                */
extern const struct crash_case *const workloads_all[]; /* ends with NULL */

#endif
