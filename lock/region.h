/*
 * region.h -- every byte of the lock region, frozen.  Only this module sees it; docs/locks.md describes it byte by
 * byte, and the asserts below freeze it.  A change here is another REGION_VERSION.
 *
 *   0      header            256 bytes   signature of this layout, sizes
 *   256    2 x lock words    640         STORE, APPLY
 *   896    256 x presence    8192        who is attached
 *   9088   768 x thread slot 49152       a cache line each: shared flag, who waits since when
 *   58240  zero              3200
 *
 * All of it is volatile: the first opener formats it, nothing in it is ever trusted after that.  Any value of any
 * word is safe: indices taken from it are checked, an id that is not a live attachment is a dead one, loops are
 * bounded by the constants here.
 */
#ifndef STEAD_LOCK_REGION_H
#define STEAD_LOCK_REGION_H

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "lock/presence.h"
#include "lock/rwlock.h"

#define REGION_VERSION 1
#define REGION_MAGIC "steadlck"
#define CACHE_LINE_BYTES 64

#define SLOT_COUNT 768
#define SLOT_WORDS (SLOT_COUNT / 64)
#define SLOT_RESERVE PRESENCE_SLOTS /* kept for processes that have none yet: slots.c */

/* An attachment id is generation << ID_INDEX_BITS | index of its presence record; the generation starts at 1. */
#define ID_INDEX_BITS 10
#define ID_INDEX_MASK ((UINT32_C(1) << ID_INDEX_BITS) - 1)
#define ID_GENERATION_MAX ((UINT32_C(1) << (32 - ID_INDEX_BITS)) - 1)

/*
 * The state of a lock: who owns it exclusively and everything a fast path must know, in one word.
 *
 *   63..32  attachment id of the owner, 0 = nobody        21..0  its thread id (Linux: below 2^22)
 *
 * L1  at most one thread is between a successful claim and its release: the one named by the owner bits
 * L2  STATE_BIAS clear  =>  no thread holds the lock shared
 * L3  a thread holds shared only if its flag is up and, after raising it, it saw STATE_BIAS set and no owner, or was the
 *     owner itself and gave that up by a step that set STATE_BIAS (the end of an upgrade, rwlock_share_on)
 * L4  an owner is inside only if, after its claim, it saw every flag but its own down and itself still the owner
 */
#define STATE_TID ((UINT64_C(1) << 22) - 1)
#define STATE_OWNER (STATE_TID | UINT64_C(0xffffffff00000000))
#define STATE_BIAS (UINT64_C(1) << 22)         /* there may be shared holders: an owner looks at the flags    */
#define STATE_INCONSISTENT (UINT64_C(1) << 23) /* an owner died inside; the next one is told                  */
#define STATE_LOST (UINT64_C(1) << 24)         /* ... and did not repair: ENOTRECOVERABLE for everyone        */
#define STATE_READERS (UINT64_C(1) << 25)      /* shared requests may sleep                                   */
#define STATE_WRITERS (UINT64_C(1) << 26)      /* exclusive requests may sleep                                */
#define STATE_AWAKE (UINT64_C(1) << 27)        /* one of them is awake and trying: no need to wake another    */
#define STATE_HANDOFF (UINT64_C(1) << 28)      /* only the claimant may take the lock next                    */
#define STATE_DRAIN (UINT64_C(1) << 29)        /* the owner is not inside yet: it sleeps until readers leave  */
#define STATE_UPGRADE (UINT64_C(1) << 30)      /* the owner came from a shared hold and keeps it              */
#define STATE_STAND_IN (UINT64_C(1) << 31)     /* the owner asked for a shared lock; there was no slot for it */

#define CLAIMANT_SHARED (UINT64_C(1) << 22) /* in lock_words.claimant: it wants to share */

struct lock_words {
    /* the line that owners write */
    _Atomic uint64_t state;
    _Atomic uint32_t quiet;        /* exclusive sections in a row that met no reader (a hint)                     */
    _Atomic uint32_t patience;     /* so many of them, and STATE_BIAS is dropped (a hint)                         */
    _Atomic uint32_t turns;        /* releases since a sleeper was woken (a hint)                                 */
    _Atomic uint32_t sharer_words; /* so many words of sharers may hold a bit; only grows                     */
    _Atomic uint64_t by_byte;      /* the owner, if it takes byte APPLY before it goes in: companion.c, C2        */
    uint8_t reserved0[CACHE_LINE_BYTES - 32];
    /* the line that waiters use */
    _Atomic uint32_t wake_writers;  /* futex: bumped before exclusive sleepers are woken                    */
    _Atomic uint32_t wake_readers;  /* futex: ... shared sleepers                                           */
    _Atomic uint32_t wake_claimant; /* futex: ... the claimant                                              */
    uint32_t reserved1;
    _Atomic uint64_t claimant;  /* id << 32 | CLAIMANT_SHARED? | tid of the starving waiter, 0 = nobody */
    _Atomic int64_t handoff_ns; /* CLOCK_MONOTONIC: when a claimant was last served                     */
    uint8_t reserved2[CACHE_LINE_BYTES - 32];
    /* the line that leaving readers touch when an owner sleeps for them */
    _Atomic uint32_t wake_owner; /* futex */
    uint8_t reserved3[CACHE_LINE_BYTES - 4];
    /* two lines, written when a thread first shares and when it ends */
    _Atomic uint64_t sharers[SLOT_WORDS]; /* bit s: slot s may have its flag up                               */
    uint8_t reserved4[2 * CACHE_LINE_BYTES - SLOT_WORDS * 8];
};
static_assert(sizeof(struct lock_words) == 320, "region v1");
static_assert(offsetof(struct lock_words, by_byte) == 24, "region v1");
static_assert(offsetof(struct lock_words, wake_writers) == 64, "region v1");
static_assert(offsetof(struct lock_words, claimant) == 80, "region v1");
static_assert(offsetof(struct lock_words, wake_owner) == 128, "region v1");
static_assert(offsetof(struct lock_words, sharers) == 192, "region v1");

struct presence_record {
    _Atomic uint32_t id;   /* written last, cleared first; 0 = free                       */
    _Atomic uint32_t role; /* enum presence_role                                          */
    _Atomic int32_t pid;
    _Atomic uint32_t generation; /* of the last id this record had                              */
    _Atomic int64_t attached_s;  /* CLOCK_REALTIME, seconds                                     */
    _Atomic uint64_t nonce;      /* random: the same process in every region it is attached to  */
};
static_assert(sizeof(struct presence_record) == 32, "region v1");

struct lock_slot {
    _Atomic uint64_t owner;        /* id << 32 | tid, 0 = free; tid 0: being cleaned by that attachment */
    _Atomic uint32_t shared;       /* the flag: how many of its threads share, or are about to look whether they may */
    _Atomic uint32_t which;        /* enum rwlock_which                                               */
    _Atomic int64_t waiting_since; /* CLOCK_MONOTONIC ns, 0 = does not wait                     */
    _Atomic uint32_t waiting_exclusive;
    _Atomic uint32_t users; /* threads of the owner's process that raise this flag; 0 while it is being taken */
    _Atomic uint32_t crowd; /* 1: several, now or before: the owner's tid says nothing about who shares      */
    uint8_t reserved[CACHE_LINE_BYTES - 36];
};
static_assert(sizeof(struct lock_slot) == CACHE_LINE_BYTES, "region v1");
static_assert(offsetof(struct lock_slot, waiting_since) == 16, "region v1");
static_assert(offsetof(struct lock_slot, users) == 28, "region v1");
static_assert(SLOT_COUNT > SLOT_RESERVE, "threads need slots, too");

struct lock_region {
    uint8_t magic[8];
    uint32_t version;
    uint32_t region_bytes, words_bytes, record_bytes, slot_bytes;
    uint32_t lock_count, record_count, slot_count;
    _Atomic uint32_t lost_writers; /* dead writers whose records had to be reused */
    uint8_t reserved0[256 - 44];
    struct lock_words locks[RWLOCK_COUNT];
    struct presence_record records[PRESENCE_SLOTS];
    struct lock_slot slots[SLOT_COUNT];
    uint8_t reserved1[LOCK_REGION_BYTES - 58240];
};
static_assert(offsetof(struct lock_region, lost_writers) == 40, "region v1");
static_assert(offsetof(struct lock_region, locks) == 256, "region v1");
static_assert(offsetof(struct lock_region, records) == 896, "region v1");
static_assert(offsetof(struct lock_region, slots) == 9088, "region v1");
static_assert(sizeof(struct lock_region) == LOCK_REGION_BYTES, "region v1");
static_assert(PRESENCE_SLOTS <= ID_INDEX_MASK + 1, "an id holds the index of its record");
static_assert(sizeof(_Atomic uint64_t) == 8 && ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2,
              "words in shared memory must be lock-free");

#endif
