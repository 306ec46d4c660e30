/*
 * store.h -- what an open store is inside, and what the files of this folder share.
 *
 * store/ is the only folder that knows persist/, lock/ and alloc/.  It opens them in this order and closes them in
 * reverse, and turns the public calls into calls on the three.  Recovery, owner death and commit are orchestrated
 * here and done below.
 *
 * Locks, always taken in this order:
 *   1 the registry's mutex            (registry.c; short, never across a wait for another process)
 *   2 LOCK_BYTE_GATE                  (open, close and recovery, between processes)
 *   3 the store lock                  (section.c; stead_lock)
 *   4 the apply lock                  (section.c; who changes the file, against readers in their sections)
 *   5 the heap's and the image's own  (inside alloc/ and persist/)
 */
#ifndef STEAD_STORE_STORE_H
#define STEAD_STORE_STORE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "alloc/heap.h"
#include "base/deadline.h"
#include "base/error.h"
#include "base/units.h"
#include "lock/bytes.h"
#include "lock/outside.h"
#include "lock/presence.h"
#include "lock/rwlock.h"
#include "persist/file.h"
#include "persist/format.h"
#include "persist/image.h"
#include "persist/superblock.h"
#include "stead.h"
#include "store/lock_unit.h"
#include "store/registry.h"

#define STORE_DEFAULT_CAPACITY (UINT64_C(64) << 30)
#define STORE_CAPACITY_MIN (2 * UNIT_BYTES) /* the first unit is the heap's own: with less not one block fits */
#define STORE_DEFAULT_PERMISSIONS 0600u

/* Why malloc and free may not go straight to the heap. */
enum store_gate {
    GATE_FORKED = 1,    /* a fork child's inherited handle: EPERM for everything but close */
    GATE_READ_ONLY = 2, /* EPERM                                                          */
    GATE_TURNS = 4,     /* only inside this thread's exclusive section                    */
    GATE_NO_HEAP = 8    /* a close could not have the heap back: STEAD_FAILED for all but close */
};

enum store_phase { STORE_OPENING, STORE_OPEN, STORE_CLOSING };

struct stead {
    /* Read by every stead_malloc and stead_free: one cache line. */
    _Atomic unsigned gate;
    struct heap *heap;
    uint8_t *base;
    uint64_t capacity;
    _Atomic uint64_t followed; /* image bytes that the heap was told of */

    /* Written while opening, then constant. */
    stead_sharing sharing;
    bool read_only;
    bool any_address;
    bool direct_lock; /* stead_lock is rwlock_lock: SOLE writers and LIVE with a slot */
    int timeout_ms;
    int64_t deadline_ns;   /* of the open or close under way: until when it waits for a busy store, 0 = not at all */
    int64_t patience_ns;   /* ... and for others' opening and closing (store_patience) */
    uint32_t own_pid;      /* getpid(), asked once */
    stead_options options; /* as of the first open; layout.name is not kept */
    struct file file;
    struct file lock_file; /* a reader's with write permission; else fd -1 */
    int lock_fd;   /* OFD locks; the file's own descriptor, or a second, writable one of a reader with permission */
    bool has_slot; /* attached in the lock unit; false: read-only without write permission, or alone */
    struct lock_unit *unit; /* mapped read-write if has_slot, else read-only, else NULL */
    struct presence *presence;
    struct rwlock *store_lock;
    struct rwlock *apply_lock; /* SOLE and TURNS with has_slot */
    struct image *image;
    bool recovered;
    uint64_t opened_seq;       /* the last commit when this process came */
    bool first_writer;         /* no writer was attached when this one came  */
    bool created;              /* by this very open, and nobody else had it before the gate was taken */
    uint64_t created_sequence; /* of its superblock then */
    bool entered;              /* its open holds the gate */
    char layout_name[64];
    uint32_t layout_version;
    bool private_replay; /* reads a crashed store through its own replay: nobody else changes it */

    /* Under the registry's mutex. */
    enum store_phase phase;
    unsigned handles;  /* opens minus closes                                  */
    unsigned visitors; /* opens under way that compare their options with it  */
    struct stead *next;

    _Atomic unsigned calls; /* of this process that can wait, under way: call.h */
    _Atomic bool leaving;   /* stead_abandon is under way: who waits gives up */

    _Atomic unsigned backups; /* by threads of this process, under way: the log may pass its limit */

    /* Under the store lock held exclusively. */
    struct superblock super;
    bool making_root; /* stead_root_once is in its init */
    bool seal_failed; /* a close got as far as sealing, and failed at it */
    bool rolled_back; /* TURNS: nothing was changed since the last rollback, as far as commits know */
    bool apply_dead;  /* the apply lock was inherited from the dead */

    bool accepted_unclean; /* opened what a LIVE session left unclean, at super.sequence */

    /* Readers: how many sections of this process there are; without a slot they share LOCK_BYTE_APPLY. */
    pthread_mutex_t reader_mutex;
    unsigned reader_sections;
    struct reader_turn {                      /* a section that waits for the others to end: reader.c */
        uint64_t durable_seq;                 /* of the unit, before the view was taken */
        int64_t wait_until_ns, rest_until_ns; /* 0: no attempt, no rest                 */
        int64_t patience_ns;                  /* of the next attempt; 0: the first      */
        _Atomic uint32_t ended;               /* futex */
        _Atomic bool waits_outside;           /* who has reader_mutex waits for a writer          */
    } reader_turn;
    struct outside outside; /* without a slot */
};

/* How long a section first waits for the others of its process to end, so that it sees what was committed: reader.c. */
extern int64_t store_view_patience_ns;

/* ---- registry.c: the stores open in this process */

/* No fork in between, by any thread: from before a descriptor is opened until a store in the registry has it. */
void registry_fork_hold(void);
void registry_fork_release(void);
/* Inserts fresh (phase OPENING) unless the same file is open here: then *existing is that store with one
 * visitor more: it stays until registry_visit_end().  0; EAGAIN: it is being opened or closed, close the file and
 * registry_wait(). */
int registry_claim(struct stead *fresh, struct stead **existing);
/* The visitor takes a handle, or goes.  False: the store is being abandoned, there is no handle to take. */
bool registry_visit_end(struct stead *s, bool takes_handle);
/* Until the store of this device and inode is open or gone.  0, EBUSY, ETIMEDOUT. */
int registry_wait(const struct file *file, int64_t deadline_ns);
int registry_publish(struct stead *s);    /* findable by address (an upgrade callback frees); EMFILE: table full */
void registry_opened(struct stead *s);    /* OPENING -> OPEN: others get this store */
void registry_unpublish(struct stead *s); /* no longer findable by address: before anything is unmapped */
void registry_withdraw(struct stead *s);  /* out of the registry: a failed open, or closed */
/* One handle less; the last one stays until the close is done. */
enum registry_close {
    CLOSE_OTHERS, /* there are more handles                                 */
    CLOSE_LAST,   /* phase CLOSING                                          */
    CLOSE_OPENING /* it is being opened (an upgrade callback), or a visitor stays long; nothing done */
};
/* Waits for visitors until then: the last handle may only go when none of them can take one.  0: abandons; they may be there
 * and can take none (s->leaving). */
enum registry_close registry_begin_close(struct stead *s, int64_t deadline_ns);
void registry_await_visitors(struct stead *s); /* phase CLOSING; they cannot take a handle (s->leaving) */
void registry_cancel_close(struct stead *s);   /* the store stays open with its last handle */

/* ---- open.c, close.c */
void store_forked(struct stead *s);                        /* in a fork child: closes what was inherited */
int store_attach(struct stead *s, const stead_options *o); /* on failure: store_detach() */
void store_detach(struct stead *s);                        /* undoes an open, writes nothing to the image */
void store_free(struct stead *s); /* the handle's memory, and in a fork child what alloc/ and lock/ had */
int store_attach_heap(struct stead *s, bool first, bool inspect);
/* Others' opening and closing is short and no "busy store": who would not wait (0) waits for it nevertheless, for a
 * while; who said how long waits no longer in all.  Asked once a call. */
int64_t store_patience(int64_t deadline_ns);
int store_finish(struct stead *s); /* the gate is held: seals the file if this is the last writer */
void store_check_memory(struct stead *s, struct report *report); /* heap, root, names of the mapped image */
int store_host_extend(void *ctx, uint64_t bytes);
void store_host_ready(void *ctx, uint64_t offset, uint64_t bytes);
bool store_host_alive(void *ctx, uint32_t id);

/* ---- section.c: locks */
/* 0 if the handle may be used at all; EPERM in a fork child, EINVAL without one. */
int store_enter(const struct stead *s);
int store_enter_with(const struct stead *s, bool given, const char *argument); /* EINVAL if the argument is NULL */
bool store_holds_exclusive(const struct stead *s);
/* The store lock for an operation of the library itself, nested in whatever the caller holds.  EOWNERDEAD, the lock not
 * held: LIVE, the next stead_lock will hear of it; SOLE, a thread ended in its section and all that was not committed was
 * rolled back, also what the caller meant to work on. */
int store_lock_exclusive(struct stead *s, int64_t deadline_ns);
int store_lock_shared(struct stead *s, int64_t deadline_ns);
/* Shared, for calls that only show what is there: where a LIVE writer died inside, a read-only handle that accepts unclean
 * stores is let through without the lock; store_unlock_quietly() then does nothing. */
int store_lock_to_look(struct stead *s, int64_t deadline_ns);
void store_unlock_quietly(struct stead *s);
/* Whoever changes the file (or needs it to stand still) against readers of other processes. */
int store_apply_lock(struct stead *s, bool exclusive, int64_t deadline_ns);
void store_apply_unlock(struct stead *s, bool whole); /* whole: the file is what it should be */
/* reader.c: a shared section of such a handle.  As stead_lock and stead_unlock. */
int store_reader_lock(struct stead *s, int64_t deadline_ns);
int store_reader_unlock(struct stead *s);
bool store_locks_as_reader(const struct stead *s); /* not by the store lock's words in the lock unit */
void store_reader_ended(void *s);                  /* rwlock_host.ended of such a handle */
/* Others extended the image: map what is there now. */
void store_follow_now(struct stead *s);
static inline void store_follow(struct stead *s)
{
    /* Not image_bytes(): this process may have mapped more than its heap was ever told of. */
    if (s->unit != NULL && __builtin_expect(atomic_load_explicit(&s->unit->image_bytes, memory_order_acquire) >
                                                atomic_load_explicit(&s->followed, memory_order_relaxed),
                                            0))
        store_follow_now(s);
}

/* ---- transaction.c */
int store_commit_locked(struct stead *s, uint64_t *seq); /* capture and log; store lock held exclusively */
int store_make_durable(struct stead *s, uint64_t seq);
/* After a commit: apply or checkpoint if it is due or readers are attached; never fails the commit. */
void store_settle(struct stead *s, bool durable);
int store_rollback_locked(struct stead *s);
bool store_readers_attached(const struct stead *s); /* other processes' */
int store_make_room(struct stead *s); /* before a commit: a log over its limit is checkpointed, or ETIMEDOUT */
uint64_t store_commit_seq(const struct stead *s); /* of the last commit that this handle can see */

/* ---- held_off.c: store lock held exclusively, but for the last two */
void held_off_note(struct stead *s, bool in_vain); /* the apply lock was tried */
void held_off_publish(struct stead *s);            /* there is more, or less, that waits to be applied */
/* Sets the last error: what is the matter, who holds off the file, and since when.  Returns code. */
int held_off_explain(const struct stead *s, int code, const char *what);
void held_off_fill(const struct stead *s, stead_status *status);

/* ---- holders.c: ETIMEDOUT, with a sentence that names a process which holds the lock */
int store_explain_timeout(const struct stead *s);

/* ---- page.c: the first page of the image */
void page_format(void *page);
int page_verify(const struct stead *s);
int store_may_write(const struct stead *s); /* 0, or EPERM: read-only, fork child, TURNS outside a section */
uint64_t page_root(const struct stead *s);  /* image offset, 0 = none or out of range */
/* Offset of p in the image, or 0 if it is not inside the heap's part. */
uint64_t page_offset_of(const struct stead *s, const void *p);
void *page_pointer(const struct stead *s, uint64_t offset);

/* ---- names.c */
const void *names_layout_block(const struct stead *s); /* or NULL */
/* Is the block the library's?  layout: names_layout_block(), which who asks often looks for once. */
bool names_own(const struct stead *s, const void *block, size_t usable, const void *layout);
void names_count(const struct stead *s, uint64_t *blocks, uint64_t *bytes);
void names_check(const struct stead *s, struct report *report);
void names_recount(struct stead *s); /* after a death inside bind; nobody else may be changing names */

/* ---- layout.c */
/* s->layout_name and _version as recorded now; settle: equal to what is asked for, or upgraded. */
int layout_read(struct stead *s, int64_t deadline_ns);
bool layout_matches(const struct stead *s, const stead_layout *layout);
int layout_settle(struct stead *s, const stead_layout *layout, int64_t deadline_ns);
int names_bind(struct stead *s, const char *name, void *object); /* also reserved names; store lock held exclusively */
void *names_find(struct stead *s, const char *name, int *rc);    /* store lock held; NULL with *rc 0: no such name */
#define NAMES_RESERVED ".stead."

/* ---- status.c */
void store_note_change(struct stead *s);
/* Times and pids from the lock unit, before a superblock is written. */
void store_heed_visit(const struct lock_unit *unit, struct superblock *super);
void store_fill_super(const struct stead *s, struct superblock *super);

#endif
