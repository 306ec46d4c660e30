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
 * One process has one view, which stands still while any section looks at it.  Sections of several threads that overlap
 * without end would keep it for ever, and, without a slot, the writer off the file.  So a section that would begin beside
 * others waits until they are over if the view is behind: something became durable since it was taken, or a writer
 * queues.  That is what a writer that waits for any shared lock does to those who come; but here a view that is behind is
 * better than none, so the wait is bounded: by the caller's timeout (0: none), and by the patience of the process.  When
 * sections do not end in that time all go in beside them, for REST times as long, and the next attempt has twice the
 * patience.  So one long section (a backup) delays the others by no more than a part in REST, and sections of whatever
 * length keep a view for no more than some 2 * REST times that length (V7).
 *   V7  a section that begins while others of its process run sees what was durable when it began, unless they went on
 *       for longer than the caller or the process had patience
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

#define GIVE_UP_MS 50 /* a wait looks this often whether the store is abandoned */
#define LOOK_AGAIN_NS 200000
#define TRY_AGAIN_NS 10000
#define PATIENCE_MOST_NS INT64_C(60000000000)
#define REST 9

int64_t store_view_patience_ns = 100000000;

static int gives_up(void)
{
    return error_set(ECANCELED, "the store was abandoned by another thread while this one waited for its lock");
}

/* Contended while another thread's section begins, which may wait for a writer, or ends: then by looking again, because a
 * wait with a deadline on CLOCK_MONOTONIC (pthread_mutex_clocklock) is unknown to the thread sanitizers of older compilers.
 * Who only tries is refused where a writer is waited for, not because another reader comes or goes. */
static int lock_reader_mutex(struct stead *s, int64_t deadline_ns)
{
    for (;;) {
        if (pthread_mutex_trylock(&s->reader_mutex) == 0)
            return 0;
        if (deadline_ns == 0 && atomic_load(&s->reader_turn.waits_outside))
            return EBUSY;
        if (deadline_ns != 0 && deadline_over(deadline_ns))
            return ETIMEDOUT;
        if (atomic_load(&s->leaving))
            return gives_up();
        sleep_ns(deadline_ns == 0 ? TRY_AGAIN_NS : LOOK_AGAIN_NS);
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
    int rc = take_outside_once(s, 0);
    if (rc != EBUSY || deadline_ns == 0)
        return rc;
    atomic_store(&s->reader_turn.waits_outside, true);
    for (;;) {
        int64_t slice = deadline_after_ms(GIVE_UP_MS);
        rc = take_outside_once(s, slice < deadline_ns ? slice : deadline_ns);
        if (rc != ETIMEDOUT || deadline_over(deadline_ns))
            break;
        if (atomic_load(&s->leaving)) {
            rc = gives_up();
            break;
        }
    }
    atomic_store(&s->reader_turn.waits_outside, false);
    return rc;
}

/* LIVE and nobody attached, although the superblock says "open": is that an end without close?  Not if somebody comes or
 * goes at this moment: then the superblock changes. */
static bool live_ended_unclean(const struct stead *s)
{
    struct superblock now;
    return s->super.state == SUPER_OPEN_LIVE && !writers_possible(s) && superblock_read(&s->file, &now) == 0 &&
           now.sequence == s->super.sequence;
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
    s->reader_turn.durable_seq =
        atomic_load_explicit(&s->unit->durable_seq, memory_order_acquire); /* before the look */
    heap_extended(s->heap, image_follow(s->image));
    rc = image_look(s->image, lock_unit_image_shared(s->unit));
    heap_extended(s->heap, image_bytes(s->image));
    if (rc == 0 && !s->has_slot)
        rc = reader_learn(s, known);
    if (rc != 0 && !s->has_slot)
        outside_leave(&s->outside);
    return rc;
}

/* Is there a reason to let the view of the sections that run go? */
static bool view_is_behind(const struct stead *s)
{
    if (s->private_replay)
        return false;
    uint64_t durable_seq = atomic_load_explicit(&s->unit->durable_seq, memory_order_acquire);
    return (s->sharing != STEAD_LIVE && durable_seq != s->reader_turn.durable_seq) ||
           (!s->has_slot && lock_byte_owned(s->lock_fd, LOCK_BYTE_QUEUE));
}

/* Until when a section that begins now waits for those that run; 0: not at all.  See the top.  Under reader_mutex. */
static int64_t wait_for_view_until(struct stead *s)
{
    struct reader_turn *turn = &s->reader_turn;
    if (s->reader_sections == 0 || !view_is_behind(s))
        return 0;
    int64_t now_ns = clock_ns();
    if (now_ns < turn->rest_until_ns)
        return 0;
    if (turn->patience_ns == 0)
        turn->patience_ns = store_view_patience_ns;
    if (turn->wait_until_ns == 0)
        turn->wait_until_ns = now_ns + turn->patience_ns;
    if (now_ns < turn->wait_until_ns)
        return turn->wait_until_ns;
    turn->wait_until_ns = 0;
    turn->rest_until_ns = now_ns + REST * turn->patience_ns;
    turn->patience_ns = turn->patience_ns * 2 > PATIENCE_MOST_NS ? PATIENCE_MOST_NS : turn->patience_ns * 2;
    return 0;
}

/* The last section of the process ended: whoever waits begins a new view.  Under reader_mutex. */
static void let_view_go(struct stead *s)
{
    struct reader_turn *turn = &s->reader_turn;
    if (!s->has_slot)
        (void)lock_byte_drop(s->lock_fd, LOCK_BYTE_APPLY);
    if (turn->wait_until_ns != 0) { /* it was worth waiting: the next attempt may be shorter */
        turn->wait_until_ns = 0;
        turn->patience_ns =
            turn->patience_ns / 2 < store_view_patience_ns ? store_view_patience_ns : turn->patience_ns / 2;
        atomic_fetch_add(&turn->ended, 1);
        (void)futex_wake(&turn->ended, INT_MAX, true);
    }
    turn->rest_until_ns = 0;
}

/* The thread holds s->store_lock from before until after. */
static int reader_enter(struct stead *s, int64_t deadline_ns)
{
    struct reader_turn *turn = &s->reader_turn;
    for (;;) {
        int rc = lock_reader_mutex(s, deadline_ns);
        if (rc != 0)
            return rc;
        int64_t until_ns = deadline_ns == 0 || deadline_over(deadline_ns) ? 0 : wait_for_view_until(s);
        if (until_ns == 0) {
            if (s->reader_sections == 0)
                rc = reader_begin(s, deadline_ns);
            if (rc == 0)
                s->reader_sections++;
            pthread_mutex_unlock(&s->reader_mutex);
            return rc;
        }
        uint32_t ended = atomic_load(&turn->ended);
        pthread_mutex_unlock(&s->reader_mutex);
        int64_t slice_ns = deadline_after_ms(GIVE_UP_MS);
        slice_ns = until_ns < slice_ns ? until_ns : slice_ns;
        (void)futex_wait(&turn->ended, ended, slice_ns < deadline_ns ? slice_ns : deadline_ns, true);
        if (atomic_load(&s->leaving))
            return gives_up();
    }
}

static void reader_leave(struct stead *s)
{
    NOT_CANCELLED;
    pthread_mutex_lock(&s->reader_mutex);
    if (--s->reader_sections == 0)
        let_view_go(s);
    pthread_mutex_unlock(&s->reader_mutex);
}

/* A thread of this process ended in its section: of rwlock_host.ended.  No thread is in reader_begin() meanwhile (the
 * section that ends was counted), so the mutex is free in a moment. */
void store_reader_ended(void *ctx)
{
    struct stead *s = ctx;
    pthread_mutex_lock(&s->reader_mutex);
    if (s->reader_sections != 0 && --s->reader_sections == 0)
        let_view_go(s);
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
