/*
 * lock_unit.h -- the third 64 KiB unit of the file, mapped shared by every attached process with guard pages around.
 *
 * Volatile: the first process to attach (no presence byte locked) makes it anew, so nothing in it survives a crash
 * or needs a checksum (but `visit`), and it is never synced by the commit path (syncs are ranged; see persist/).
 * Layout frozen: processes of different builds meet here.
 */
#ifndef STEAD_STORE_LOCK_UNIT_H
#define STEAD_STORE_LOCK_UNIT_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lock/presence.h"
#include "persist/image.h"

#define LOCK_UNIT_SIGNATURE UINT64_C(0x3474696e55647453) /* "StdUnit4" */
#define LOCK_UNIT_HEAD_BYTES 4096

/* What a session that committed nothing leaves of itself, its superblock being as it found it: when it was.  Kept when the
 * unit is made anew, believed if the checksum is right and the sequence the superblock's; it is in nobody's sync, so that
 * a power cut may take it. */
struct lock_unit_visit {
    _Atomic int64_t attach_s, detach_s; /* CLOCK_REALTIME, seconds                                   */
    _Atomic uint64_t sequence;          /* of the superblock that it found                           */
    _Atomic uint64_t checksum;          /* XXH3-64 of the store's id and the three above             */
};

struct lock_unit {
    _Atomic uint64_t signature;   /* LOCK_UNIT_SIGNATURE; written last                                  */
    uint32_t sharing;             /* stead_sharing of all attached writers                              */
    _Atomic uint32_t applying;    /* 1: whoever holds the apply lock is changing the file, or died at it */
    _Atomic uint64_t image_bytes; /* the longest image anybody made: others follow it                   */
    _Atomic uint64_t commit_seq;  /* last commit that returned                                          */
    _Atomic uint64_t durable_seq; /* last commit that readers can see                       */
    _Atomic uint32_t commit_word; /* futexes: changed and woken with the two above                      */
    _Atomic uint32_t durable_word;
    _Atomic uint32_t flush_failed; /* LIVE: a sync failed; nobody knows what is on the disk              */
    _Atomic uint32_t unclean;      /* LIVE: 1 = a writer ended without close, noticed and not yet accepted */
    _Atomic uint32_t accepted_unclean;
    _Atomic uint32_t last_change_pid;
    _Atomic int64_t last_attach_s, last_detach_s, last_change_s; /* CLOCK_REALTIME, seconds */
    _Atomic uint64_t waiting_bytes;   /* the writer's memory that waits for application                  */
    _Atomic int64_t held_off_since_s; /* CLOCK_REALTIME: the first of the last tries to apply, in vain; 0: it was not */
    struct lock_unit_visit visit;
    _Atomic uint32_t commit_sleepers; /* so many may sleep on commit_word, the dead counted (lock_unit.c)     */
    uint8_t reserved1[512 - 108 - sizeof(struct lock_unit_visit)];
    uint8_t image_shared[IMAGE_SHARED_BYTES];
    uint8_t reserved2[LOCK_UNIT_HEAD_BYTES - 1024];
    uint8_t region[LOCK_REGION_BYTES];
};
static_assert(sizeof(struct lock_unit) == UNIT_BYTES, "the lock unit is one unit");
static_assert(offsetof(struct lock_unit, waiting_bytes) == 88, "frozen");
static_assert(offsetof(struct lock_unit, visit) == 104, "frozen");
static_assert(offsetof(struct lock_unit, commit_sleepers) == 136, "frozen");
static_assert(offsetof(struct lock_unit, image_shared) == 512, "frozen");
static_assert(offsetof(struct lock_unit, region) == LOCK_UNIT_HEAD_BYTES, "frozen");

/* Maps the unit of fd.  0 or errno. */
int lock_unit_map(struct lock_unit **out, int fd, bool writable);
void lock_unit_unmap(struct lock_unit *unit);
/* First opener, under the gate.  commit_seq: what waiters without a slot see from the first moment on. */
void lock_unit_format(struct lock_unit *unit, uint32_t sharing, uint64_t commit_seq);
/* Notes the visit, and finds it again: false if there is none to this superblock.  Any bytes may stand there. */
void lock_unit_leave(struct lock_unit *unit, const uint8_t id[16], uint64_t sequence, int64_t attach_s,
                     int64_t detach_s);
bool lock_unit_visited(const struct lock_unit *unit, const uint8_t id[16], uint64_t sequence, int64_t *attach_s,
                       int64_t *detach_s);
/* 0, or STEAD_VERSION: attached processes use another layout. */
int lock_unit_verify(const struct lock_unit *unit);

static inline struct lock_region *lock_unit_region(struct lock_unit *unit)
{
    return (struct lock_region *)(void *)unit->region;
}

static inline struct image_shared *lock_unit_image_shared(struct lock_unit *unit)
{
    return (struct image_shared *)(void *)unit->image_shared;
}

/* After a recovery the number may be lower than what was there: takes it as it is. */
void change_reset(_Atomic uint64_t *seq_word, _Atomic uint32_t *futex, uint64_t seq);
/* Sets *seq_word to seq and wakes who sleeps on futex; sleepers: not NULL where all of them say so there. */
void change_publish(_Atomic uint64_t *seq_word, _Atomic uint32_t *futex, _Atomic uint32_t *sleepers, uint64_t seq);
/* Sleeps until *seq_word is another one than since.  0, EBUSY, ETIMEDOUT; ECANCELED when *leaving is set and
 * change_shake() wakes it.  sleepers: as for change_publish(). */
int change_wait(const _Atomic uint64_t *seq_word, const _Atomic uint32_t *futex, _Atomic uint32_t *sleepers,
                uint64_t since, int64_t deadline_ns, const _Atomic bool *leaving);
/* Wakes who sleeps on futex, to look again. */
void change_shake(const _Atomic uint32_t *futex);

#endif
