/*
 * reader.c -- shared sections of handles that cannot take the store lock: which bytes they hold, what they look at.
 *
 * The first section of a process brings the view to the last durable commit (image_look), while no other
 * section of the process looks at it.  Without a slot s->store_lock is a lock among this process's threads that only
 * counts levels; the first section of the process takes LOCK_BYTE_APPLY and the last one drops it.  A thread that ends
 * in its section leaves it on its way out (rwlock_host.ended), so the byte never outlives the last living section.
 * LOCK_BYTE_QUEUE is taken first and dropped at once: a writer that waits for APPLY holds it, so a stream of readers
 * cannot keep the writer out.  LIVE: lock/outside.c, whose design is in lock/companion.c.
 *
 * Readers go on after any death of writers: in SOLE and TURNS at the last durable commit, whether somebody recovers the
 * store or not (the lock is waited for while somebody does).  A reader without a slot came when nobody was there, or
 * may not write: with each section that begins it learns from the superblock (image_look) whether writers came, in
 * which mode, and whether they died; s->super and s->sharing are what it learnt.  After a LIVE death that is
 * STEAD_UNCLEAN.
 */
#include <errno.h>

#include "lock/futex.h"
#include "store/call.h"

#define GIVE_UP_MS 50 /* a wait on a byte of the file looks this often whether the store is abandoned */

static int gives_up(void)
{
    return error_set(ECANCELED, "the store was abandoned by another thread while this one waited for its lock");
}

/* Contended only while another thread's section begins, which may wait for a writer: then by looking again, because a wait
 * with a deadline on CLOCK_MONOTONIC (pthread_mutex_clocklock) is unknown to the thread sanitizers of older compilers. */
static int lock_reader_mutex(struct stead *s, int64_t deadline_ns)
{
    for (;;) {
        if (pthread_mutex_trylock(&s->reader_mutex) == 0)
            return 0;
        if (deadline_ns == 0 || deadline_over(deadline_ns))
            return deadline_ns == 0 ? EBUSY : ETIMEDOUT;
        if (atomic_load(&s->leaving))
            return gives_up();
        sleep_ns(200000);
    }
}

static bool writers_possible(const struct stead *s)
{
    return s->has_slot || lock_byte_taken(s->lock_fd, LOCK_BYTE_SLOT0, PRESENCE_SLOTS);
}

static bool live_writers(const struct stead *s)
{
    return writers_possible(s) && s->unit->sharing == STEAD_LIVE;
}

/* Without a slot: the kernel's bytes, and in LIVE a look at the words.  Which mode it is may change until the byte is
 * held: the store is this reader's to look at whoever comes. */
static int take_outside_once(struct stead *s, int64_t deadline_ns)
{
    if (live_writers(s))
        return outside_share(&s->outside, deadline_ns);
    int rc = outside_take_byte(&s->outside, deadline_ns);
    if (rc != 0 || !live_writers(s))
        return rc;
    outside_leave(&s->outside);
    return outside_share(&s->outside, deadline_ns);
}

/* In slices: stead_abandon sends away who waits. */
static int take_outside(struct stead *s, int64_t deadline_ns)
{
    for (;;) {
        int64_t slice = deadline_ns == 0 ? 0 : deadline_after_ms(GIVE_UP_MS);
        int rc = take_outside_once(s, slice < deadline_ns ? slice : deadline_ns);
        if (rc != ETIMEDOUT || deadline_over(deadline_ns))
            return rc;
        if (atomic_load(&s->leaving))
            return gives_up();
    }
}

/* LIVE and nobody attached, although the superblock says "open": is that an end without close?  Not if somebody comes or
 * goes at this moment: then the superblock changes. */
static bool live_ended_unclean(const struct stead *s)
{
    struct superblock now;
    return s->super.state == SUPER_OPEN_LIVE && !writers_possible(s) && superblock_read(&s->file, &now) == 0 &&
           now.state == SUPER_OPEN_LIVE && now.sequence == s->super.sequence;
}

/* A reader without a slot is not told who comes and goes: s->super is what image_look() found, known what was there. */
static int reader_learn(struct stead *s, uint64_t known)
{
    uint32_t sharing = writers_possible(s) ? s->unit->sharing : s->super.sharing;
    if (s->super.sequence != known)
        s->accepted_unclean = false; /* another session than the one that was looked at and accepted */
    if (s->accepted_unclean)
        s->super.accepted_unclean = 1; /* the store itself says nothing of it: nothing was written */
    if (!s->accepted_unclean && live_ended_unclean(s))
        return error_set(STEAD_UNCLEAN,
                         "%s: its LIVE writers ended without close; its data are for the next opener to judge",
                         s->file.path);
    s->sharing = s->super.state == SUPER_OPEN_LIVE ? STEAD_LIVE : (stead_sharing)(sharing % 3);
    return 0;
}

/* The first section of this process begins. */
static int reader_begin(struct stead *s, int64_t deadline_ns)
{
    int rc = s->has_slot ? 0 : take_outside(s, deadline_ns);
    if (rc != 0 || s->private_replay)
        return rc;
    uint64_t known = s->super.sequence;
    heap_extended(s->heap, image_follow(s->image));
    rc = image_look(s->image, lock_unit_image_shared(s->unit));
    heap_extended(s->heap, image_bytes(s->image));
    if (rc == 0 && !s->has_slot)
        rc = reader_learn(s, known);
    if (rc != 0 && !s->has_slot)
        outside_leave(&s->outside);
    return rc;
}

/* The thread holds s->store_lock from before until after. */
static int reader_enter(struct stead *s, int64_t deadline_ns)
{
    int rc = lock_reader_mutex(s, deadline_ns);
    if (rc != 0)
        return rc;
    if (s->reader_sections == 0)
        rc = reader_begin(s, deadline_ns);
    if (rc == 0)
        s->reader_sections++;
    pthread_mutex_unlock(&s->reader_mutex);
    return rc;
}

static void reader_leave(struct stead *s)
{
    NOT_CANCELLED;
    pthread_mutex_lock(&s->reader_mutex);
    if (--s->reader_sections == 0 && !s->has_slot)
        (void)lock_byte_drop(s->lock_fd, LOCK_BYTE_APPLY);
    pthread_mutex_unlock(&s->reader_mutex);
}

/* A thread of this process ended in its section: of rwlock_host.ended.  No thread is in reader_begin() meanwhile (the
 * section that ends was counted), so the mutex is free in a moment. */
void store_reader_ended(void *ctx)
{
    struct stead *s = ctx;
    pthread_mutex_lock(&s->reader_mutex);
    if (s->reader_sections != 0 && --s->reader_sections == 0 && !s->has_slot)
        (void)lock_byte_drop(s->lock_fd, LOCK_BYTE_APPLY);
    pthread_mutex_unlock(&s->reader_mutex);
}

int store_reader_lock(struct stead *s, int64_t deadline_ns)
{
    STORE_CALL(s); /* it may wait for a byte of the file, which nobody sees in the lock */
    bool outermost = !rwlock_held(s->store_lock);
    int rc = rwlock_lock(s->store_lock, false, deadline_ns);
    bool dead = rc == EOWNERDEAD; /* held exclusively now: see the top */
    if ((rc != 0 && !dead) || !outermost)
        return rc;
    rc = reader_enter(s, deadline_ns);
    if (rc != 0)
        (void)(dead ? rwlock_pass_on(s->store_lock) : rwlock_unlock(s->store_lock));
    return rc;
}

int store_reader_unlock(struct stead *s)
{
    if (rwlock_levels(s->store_lock) != 1)
        return rwlock_unlock(s->store_lock);
    reader_leave(s);
    return rwlock_held_exclusive(s->store_lock) ? rwlock_pass_on(s->store_lock) : rwlock_unlock(s->store_lock);
}
