/* alloc_turns.h -- processes that are measured by turns. */
#ifndef BENCH_ALLOC_TURNS_H
#define BENCH_ALLOC_TURNS_H

#include <stdbool.h>
#include <sys/types.h>

/* One process; pid 0: none. */
struct turns_process {
    pid_t pid;
    int go, done; /* pipes' ends in the parent */
};

/* Forks a process that waits for its first turn, runs body(arg) and ends.  False: no process, errno. */
bool turns_fork(struct turns_process *process, void (*body)(void *arg), void *arg);

/* Lets it run until it calls turn_next() or ends; it is running no more after that.  *ended: it has ended, and
 * well if the result is true. */
bool turns_grant(struct turns_process *process, bool *ended);

/* In the process: the slice is over and the parent may read its figures; returns when the next one may begin. */
void turn_next(void);

#endif
