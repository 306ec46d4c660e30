/* crash_trial.h -- what every kind of trial does: scratch directories, runs in processes of their own, the verdict. */
#ifndef STEAD_CRASH_TRIAL_H
#define STEAD_CRASH_TRIAL_H

#include <sys/types.h>

#include "tests/crash/crash_calls.h"

enum { TRIAL_PATH_BYTES = 512, TRIAL_SECONDS_MAX = 400 };
/* Waits for what is sure to come: no machine stands still for so long.  Less than TRIAL_SECONDS_MAX. */
enum { TRIAL_SOON_MS = 60000 };
#define TRIAL_STORE_NAME "store"

/* A fresh directory, removed with its files by trial_remove_directory().  0, errno. */
int trial_make_directory(char directory[TRIAL_PATH_BYTES]);
void trial_clear_directory(const char *directory);
void trial_remove_directory(const char *directory);

/* The seed of this process: STEAD_SEED, or chosen once and printed. */
uint64_t trial_seed(void);
bool trial_is_long(void); /* STEAD_LONG */
/* STEAD_PART=i/n: this run takes the numbers that are i modulo n, so that n runs take all of them.  Unset: every number.
 * Something else than 0 <= i < n is an error of the caller's: the process ends, for a run that tries nothing looks fine. */
bool trial_is_mine(uint64_t number);
/* There are others: what one of them finds is too little to be counted. */
bool trial_is_part(void);

/* The case's prepare(), in a process of its own.  0, or EUCLEAN with *outcome. */
int trial_prepare(const struct crash_case *what, const char *directory, struct crash_outcome *outcome);

/* Forks the workload with the table replaced; the caller waits.  -1: errno. */
pid_t trial_start(const struct crash_case *what, const char *directory, struct crash_shared *shared);

/* Opens what is there and judges it by the rule of crash_kit.h, in this process.  NULL: fine; else a sentence, static. */
const char *trial_judge(const struct crash_case *what, const char *directory, uint64_t low, uint64_t high, bool again);
/* The same in a process of its own, so that a crash of the library is a finding, too. */
const char *trial_judge_apart(const struct crash_case *what, const char *directory, uint64_t low, uint64_t high);

void trial_fail(struct crash_outcome *outcome, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* "exited with 1", "ended by signal 9 (Killed)" */
const char *trial_status_text(int status);

#endif
