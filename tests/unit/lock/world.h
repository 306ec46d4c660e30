/*
 * world.h -- a lock region and the processes around it, for the tests of lock/.
 *
 * The region lies in shared memory and the kernel's byte locks on a nameless file, so a test needs no path.  Every
 * process attaches through a descriptor of its own, as a store does.
 */
#ifndef STEAD_TESTS_LOCK_WORLD_H
#define STEAD_TESTS_LOCK_WORLD_H

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/deadline.h"
#include "base/error.h"
#include "lock/presence.h"
#include "lock/rwlock.h"
#include "lock/steps.h"

#define OK(call) world_ok((call), #call, __FILE__, __LINE__)
#define FAILS(code, call) world_fails((code), (call), #call, __FILE__, __LINE__)

#define BOARD_WORDS 4096

struct world {
    int fd; /* the nameless file */
    struct lock_region *region;
    _Atomic uint64_t *board; /* BOARD_WORDS words that all processes of a test see */
};

/* One attachment: a process's, or a second one of the same process. */
struct member {
    int fd;
    struct presence *presence;
    struct rwlock *lock; /* RWLOCK_STORE */
};

void world_make(struct world *world);
void world_end(struct world *world);
void member_join(struct world *world, struct member *member, enum presence_role role);
void member_leave(struct member *member);
/* A lock among the threads of this process. */
struct rwlock *private_lock(void);

/* Takes every free slot for this lock, as if by threads that hold nothing; the first `joinable` of them can be joined.
 * reserve: the last SLOT_RESERVE too. */
void slots_use_up(struct rwlock *lock, bool reserve, unsigned joinable);

/* More threads than slots are hundreds; under a sanitizer each look of one at all slots costs their number once more, for
 * its clocks, and a test minutes.  There FEW_SLOTS that are free stand for all of them. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define FEW_SLOTS 64
#else
#define FEW_SLOTS SLOT_COUNT
#endif
/* Right after rwlock_open(): takes all slots but FEW_SLOTS, as slots_use_up() does. */
void slots_leave_few(struct rwlock *lock);

/* Runs body in a forked process that leaves the parent's descriptors alone; its return value is the exit status. */
pid_t world_fork(struct world *world, struct member *inherited, int (*body)(struct world *world, void *arg), void *arg);
/* Exit status; 1000 + signal if one ended it. */
int world_wait(pid_t pid);

int world_ok(int rc, const char *call, const char *file, int line);
void world_fails(int code, int rc, const char *call, const char *file, int line);

/* What is sure to come may take so long on a machine that stands still now and then.  A wait ends when it comes; how long it
 * took is printed here and there, and judged in bench/ only: a lock that is taken too late by 50 ms and a thread that waits for
 * a processor look alike. */
#define SOON_MS 60000
#define SOON_NS (INT64_C(1000000) * SOON_MS)

/* Waits (at most SOON_MS) until *word == value; false if it never was. */
bool board_await(_Atomic uint64_t *word, uint64_t value);
/* Waits until n threads wait for the lock (as rwlock_each tells). */
bool waiters_await(struct rwlock *lock, unsigned n);

/* From here on no sleep ends by itself to look for the dead and for cycles: a wake-up that is missing holds the test up for ever
 * (the suite's timeout).  Where STEAD_CHECKS < 2: nothing. */
void only_wake_ups_wake(void);

uint64_t seed_get(void);
uint64_t random_next(uint64_t *state);
/* STEAD_LONG=1: ten times longer. */
unsigned long_factor(void);
int64_t ms_from_now(int ms);

#endif
