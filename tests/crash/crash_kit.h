/*
 * crash_kit.h -- proof by trial that a crash leaves a data structure whole; for stead and for its users' own structures.
 *
 * You describe a workload that steps through numbered versions of its data, and a check that says which version an opened
 * store holds.  The kit then makes crashes:
 *
 *   crash_power_cuts   records what the library asks of the disk, builds every kind of state that a power cut could leave
 *                      after each request (unsynced writes lost, reordered, torn at 512 bytes; sizes, names lost), opens
 *                      each, checks it, and does the same to the recovery's own requests, twice over
 *   crash_kills        SIGKILL at every request to the system, with neighbours if you like
 *   crash_faults       the n-th call of a kind fails with an error, or is cut short
 *
 * The rule that is checked, for a state at some point of the workload:
 *     newest version acknowledged as durable  <=  version found  <=  newest version begun
 * (for a killed process: newest acknowledged at all), stead_check() finds nothing, and your check finds nothing.
 *
 * Link with libstead.a and the sources of this folder; link statically, because the kit replaces the table of system
 * calls in persist/file.h.  Every function runs its trials in processes of its own.  Randomness comes from STEAD_SEED
 * (printed when it was chosen); STEAD_LONG=1 multiplies the number of states; STEAD_PART=i/n takes every n-th point of
 * crash_power_cuts(), from the i-th on, so that long runs can be made in pieces.  Scratch files go to STEAD_CRASH_DIR, else
 * to memory (/dev/shm), else to TMPDIR.
 *
 *     static int run(const char *path, void *arg)
 *     {
 *         stead *s;  ... stead_open(&s, path, NULL) ...
 *         for (uint64_t v = 1; v <= 5; v++) {
 *             ... change the data to version v ...
 *             crash_begin(v);
 *             if (stead_commit(s, STEAD_DURABLE) == 0)
 *                 crash_done(v, true);
 *         }
 *         return stead_close(s);
 *     }
 *     static int check(stead *s, uint64_t *version, void *arg) { ... 0 if whole, and which version ... }
 *
 *     struct crash_outcome outcome;
 *     int rc = crash_power_cuts(&(struct crash_case){.name = "mine", .run = run, .check = check}, &outcome);
 *     if (rc != 0) puts(outcome.first);
 */
#ifndef STEAD_CRASH_KIT_H
#define STEAD_CRASH_KIT_H

#include <stdbool.h>
#include <stdint.h>

#include <stead.h>

struct crash_case {
    const char *name;
    /* Makes the durable state that the workload starts from; not part of the trial.  NULL: an empty directory. */
    int (*prepare)(const char *path, void *arg);
    uint64_t prepared_version; /* what check() says of it; 0 = no store, or a store without the data */
    /* The workload, in a process of its own; path is the store's.  May fork.  0 = as planned. */
    int (*run)(const char *path, void *arg);
    /* 0 and the version this store holds; anything else: the data is broken.  Called after every crash. */
    int (*check)(stead *store, uint64_t *version, void *arg);
    /* crash_kills: another process that runs beside the workload until *stop, e.g. a reader that checks, or a writer that
     * waits for its turn; NULL: none.  Not recorded, not killed.  0 = it saw nothing wrong. */
    int (*neighbour)(const char *path, const volatile bool *stop, void *arg);
    stead_options reopen; /* how check()'s store is opened; STEAD_EXISTING is added */
    void *arg;
};

struct crash_outcome {
    uint64_t seed;
    uint64_t points;     /* requests after which the power was cut, or the process killed, or calls that failed */
    uint64_t states;     /* different states opened and checked */
    uint64_t duplicates; /* states met again with the same legal outcome: not opened again */
    uint64_t recoveries; /* recoveries that were cut short in turn */
    uint64_t exhaustive; /* points at which every legal state was tried */
    uint64_t failures;
    char first[1200]; /* the first failure, in full */
};

/* Called by the workload: the version that the next commit makes; and that it was acknowledged. */
void crash_begin(uint64_t version);
void crash_done(uint64_t version, bool durable);

/* This process of the workload is killed at its n-th request from now on: before it, but for a write that is to be durable,
 * which reaches the kernel and not the disk.  What it had not synced is lost by the next power cut only: other processes
 * of the workload go on with it. */
void crash_die_at(uint64_t request);

enum crash_call {
    CRASH_OPEN,
    CRASH_PREAD,
    CRASH_PWRITE,
    CRASH_PWRITE_DURABLE,
    CRASH_FDATASYNC,
    CRASH_FSYNC,
    CRASH_SYNC_RANGE,
    CRASH_FTRUNCATE,
    CRASH_FALLOCATE,
    CRASH_LINKAT,
    CRASH_RENAME,
    CRASH_UNLINK,
    CRASH_CLONE,
    CRASH_COPY,
    CRASH_MMAP,
    CRASH_CALLS
};
enum { CRASH_SHORT = -1 /* as an error: the call transfers half of what was asked */ };

/* 0: nothing broke.  EUCLEAN: see outcome->first.  Another errno: the trial could not be made. */
int crash_power_cuts(const struct crash_case *what, struct crash_outcome *outcome);
/* SIGKILL right before (and in another trial right after) every step-th request; step 0: every one, bounded. */
int crash_kills(const struct crash_case *what, unsigned step, struct crash_outcome *outcome);
/* SIGKILL at random instants. */
int crash_random_kills(const struct crash_case *what, unsigned trials, struct crash_outcome *outcome);
/* For n = 1, 2, ...: the n-th call of this kind fails with error; if sticky, all later ones too.  run() must cope: an error
 * it returns is fine, a broken store is not. */
int crash_faults(const struct crash_case *what, enum crash_call call, int error, bool sticky,
                 struct crash_outcome *outcome);

#endif
