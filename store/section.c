/*
 * section.c -- stead_lock and stead_unlock: which lock a request means in each sharing mode.
 *
 *   who                        shared section                     exclusive section
 *   SOLE writer                store lock in private memory       the same
 *   TURNS writer               store lock in the lock unit,       the same, and it is a transaction: begins with the
 *                              after catching up with others      last commit of whoever had the turn, ends with a commit
 *   LIVE, with a slot          store lock in the lock unit        the same
 *   reader with a slot         apply lock in the lock unit        EPERM (SOLE, TURNS)
 *   reader without a slot      OFD byte APPLY, shared by the      EPERM
 *                              sections of this process; in LIVE
 *                              lock/outside.c
 *
 * TURNS.  The lock unit's commit_seq is the number of the last commit; it is stored while the store lock is held
 * exclusively.  A process whose image is at another commit catches up at its next lock request: exclusively, with the
 * apply lock, it makes the others' log durable, applies it and drops its own pages (image_refresh).  So nobody ever
 * sees what power loss could take back, nobody needs the former holder to be awake or alive, and a process whose
 * sections follow each other with nobody in between pays none of it.
 *   A holder killed in its section: its changes were in its private memory and are gone; what it had appended to the
 *   log without returning from unlock counts or does not, as the log's end word says; the next locker sees EOWNERDEAD
 *   here, catches up, and only then calls the lock consistent: if it cannot catch up, the news is passed on.
 *
 * The apply lock's own death is a file that may be half changed.  What was being written is in the log, so whoever takes
 * the lock next as a writer writes it again, and only then calls it consistent.  Readers need not wait for that: their view
 * has those pages from the log (image_look).  One with a slot is given the dead owner's lock exclusively; its section
 * keeps it so and passes the news on at its end, so that readers' sections follow one another until a writer comes.
 *
 * Readers: reader.c.
 *
 * LIVE, a writer died inside.  Who can write is told EOWNERDEAD with the lock held, and repairs.  Who cannot (a read-only
 * handle) is told EOWNERDEAD too but does not get the lock: it could not repair, its unlock would make the store
 * ENOTRECOVERABLE for those who can, and what it would read is half made.  It leaves the news for the next writer.
 */
#include <errno.h>

#include "lock/at_once.h"
#include "store/call.h"

int store_enter(const struct stead *s)
{
    if (s == NULL)
        return error_set(EINVAL, "the store that the call was given is NULL");
    unsigned gate = atomic_load_explicit(&s->gate, memory_order_relaxed);
    if ((gate & GATE_FORKED) != 0)
        return error_set(EPERM, "%s was opened before fork(2): the child must open it again", s->file.path);
    if ((gate & GATE_NO_HEAP) != 0)
        return error_set(STEAD_FAILED, "%s: an earlier close failed half way; close it again, or stead_abandon() it",
                         s->file.path);
    return 0;
}

int store_enter_with(const struct stead *s, bool given, const char *argument)
{
    int rc = store_enter(s);
    return rc != 0 || given ? rc : error_set(EINVAL, "%s: the argument '%s' is NULL", s->file.path, argument);
}

bool store_holds_exclusive(const struct stead *s)
{
    return rwlock_held_exclusive(s->store_lock);
}

void store_follow_now(struct stead *s)
{
    NOT_CANCELLED;
    if (s->private_replay)
        return;
    uint64_t known = atomic_load_explicit(&s->followed, memory_order_relaxed);
    uint64_t now = image_follow(s->image);
    if (s->heap != NULL && (s->read_only || s->sharing == STEAD_LIVE))
        heap_extended(s->heap, now);
    while (known < now && !atomic_compare_exchange_weak(&s->followed, &known, now))
        continue;
}

/* ---- apply lock */

int store_apply_lock(struct stead *s, bool exclusive, int64_t deadline_ns)
{
    if (s->apply_lock == NULL)
        return 0;
    int rc = rwlock_lock(s->apply_lock, exclusive, deadline_ns);
    if (rc != 0 && rc != EOWNERDEAD)
        return rc;
    if (!exclusive && rc == EOWNERDEAD) { /* only whoever is about to write it again may take it over */
        (void)rwlock_pass_on(s->apply_lock);
        return error_set(STEAD_FAILED,
                         "%s: a writer died while it changed the file; take the lock exclusively, or reopen",
                         s->file.path);
    }
    if (exclusive) {
        s->apply_dead = rc == EOWNERDEAD;
        atomic_store(&s->unit->applying, 1);
    }
    return 0;
}

void store_apply_unlock(struct stead *s, bool whole)
{
    if (s->apply_lock == NULL)
        return;
    if (rwlock_held_exclusive(s->apply_lock)) {
        if (s->apply_dead && !whole) {
            (void)rwlock_pass_on(s->apply_lock);
            return;
        }
        if (s->apply_dead)
            (void)rwlock_make_consistent(s->apply_lock);
        s->apply_dead = false;
        atomic_store(&s->unit->applying, 0);
    }
    (void)rwlock_unlock(s->apply_lock);
}

/* ---- TURNS */

static bool turn_is_current(const struct stead *s)
{
    return image_commit_seq(s->image) == atomic_load_explicit(&s->unit->commit_seq, memory_order_acquire);
}

/* The store lock is held exclusively. */
static int turn_begin(struct stead *s, bool after_death, int64_t deadline_ns)
{
    bool changed = false;
    bool behind = after_death || !turn_is_current(s);
    int rc = behind ? store_apply_lock(s, true, deadline_ns) : 0;
    if (behind)
        held_off_note(s, rc != 0);
    if (rc != 0)
        return rc;
    rc = image_refresh(s->image, &changed);
    if (behind) {
        held_off_publish(s);
        if (rc == 0) {
            change_publish(&s->unit->commit_seq, &s->unit->commit_word, &s->unit->commit_sleepers,
                           image_commit_seq(s->image));
            change_publish(&s->unit->durable_seq, &s->unit->durable_word, NULL, image_commit_seq(s->image));
        }
        store_apply_unlock(s, rc == 0);
    }
    if (rc != 0)
        return rc;
    s->rolled_back = false;
    if (changed || behind)
        heap_reload(s->heap, image_follow(s->image));
    return 0;
}

/* Counted: it may wait for the apply lock, and looks at the store once more when stead_abandon() sent it away there. */
static int turn_settle_behind(struct stead *s, bool after_death, int64_t deadline_ns)
{
    STORE_CALL(s);
    int rc = turn_begin(s, after_death, deadline_ns);
    if (rc == 0)
        return after_death ? rwlock_make_consistent(s->store_lock) : 0;
    (void)(after_death ? rwlock_pass_on(s->store_lock) : rwlock_unlock(s->store_lock));
    return rc;
}

/* Just got the outermost exclusive level; the former holder may have died. */
static int turn_settle(struct stead *s, bool after_death, int64_t deadline_ns)
{
    if (after_death || !turn_is_current(s))
        return turn_settle_behind(s, after_death, deadline_ns);
    NOT_CANCELLED;
    int rc = turn_begin(s, false, deadline_ns);
    if (rc != 0)
        (void)rwlock_unlock(s->store_lock);
    return rc;
}

static int turn_lock_exclusive(struct stead *s, int64_t deadline_ns)
{
    int rc = rwlock_lock(s->store_lock, true, deadline_ns);
    bool dead = rc == EOWNERDEAD;
    if ((rc != 0 && !dead) || !rwlock_unlock_ends_exclusive(s->store_lock))
        return rc;
    return turn_settle(s, dead, deadline_ns);
}

/* The outermost level catches up as an owner, if there is anything to catch up with, and goes on shared: an unlock that has
 * nothing to commit, and sections inside that are transactions of their own. */
static int turn_lock_shared(struct stead *s, int64_t deadline_ns)
{
    bool outermost = !rwlock_held(s->store_lock);
    int rc = rwlock_lock(s->store_lock, false, deadline_ns);
    if (rc == EOWNERDEAD) {
        rc = turn_settle(s, true, deadline_ns); /* held exclusively */
    } else {
        if (rc != 0 || !outermost || turn_is_current(s))
            return rc;
        (void)rwlock_unlock(s->store_lock);
        rc = turn_lock_exclusive(s, deadline_ns);
    }
    return rc == 0 ? rwlock_share_on(s->store_lock) : rc;
}

/* A poisoned store refuses a commit before it looks whether there is anything to commit. */
static bool is_unchanged(struct stead *s)
{
    struct error_memo before;
    bool changed = true;
    error_remember(&before);
    heap_guard_pause(s->heap);
    int rc = image_changed(s->image, heap_used_bytes(s->heap), &changed);
    heap_guard_resume(s->heap);
    error_recall(&before);
    return rc == 0 && !changed;
}

/* The unlock that ends the outermost exclusive level: commits first, and keeps the lock if it cannot.  After a rollback
 * there is normally nothing to commit, so neither a log over its limit nor a poisoned store stands in the way then.  But who
 * went on writing after it is told. */
static int turn_end(struct stead *s)
{
    STORE_CALL(s);
    uint64_t seq;
    bool clean = s->rolled_back;
    if (atomic_load(&s->leaving)) /* abandoned in a callback: whoever gives the lock up rolls back */
        return clean ? 0 : error_set(ECANCELED, "%s was abandoned: nothing is committed any more", s->file.path);
    if (clean && image_failed(s->image) && is_unchanged(s))
        return 0;
    int rc = clean ? 0 : store_make_room(s);
    if (rc == 0)
        rc = store_commit_locked(s, &seq);
    if (rc != 0)
        return rc;
    store_settle(s, false);
    return 0;
}

static int turn_unlock(struct stead *s)
{
    int rc = rwlock_unlock_ends_exclusive(s->store_lock) ? turn_end(s) : 0;
    return rc != 0 ? rc : rwlock_unlock(s->store_lock);
}

/* ---- the public calls */

/* SOLE: a thread ended inside an exclusive section.  What was done since the last commit is taken back. */
static int sole_after_death(struct stead *s, bool *rolled_back)
{
    NOT_CANCELLED;
    int rc = store_rollback_locked(s);
    *rolled_back = rc == 0;
    if (rc == 0)
        return rwlock_make_consistent(s->store_lock);
    (void)rwlock_pass_on(s->store_lock);
    return rc;
}

/* The lock came with the news of a death.  Who need not or cannot repair: see the top. */
static int answer_death(struct stead *s, bool *rolled_back)
{
    if (s->sharing == STEAD_SOLE)
        return sole_after_death(s, rolled_back);
    if (s->read_only)
        (void)rwlock_pass_on(s->store_lock);
    return EOWNERDEAD;
}

bool store_locks_as_reader(const struct stead *s)
{
    return s->read_only && (!s->has_slot || s->sharing != STEAD_LIVE); /* without a slot it changes: reader.c */
}

static int lock_dispatch(struct stead *s, bool exclusive, int64_t deadline_ns, bool *rolled_back)
{
    *rolled_back = false;
    if (store_locks_as_reader(s)) {
        if (exclusive)
            return error_set(EPERM, "%s is open read-only: only shared sections", s->file.path);
        return store_reader_lock(s, deadline_ns);
    }
    if (s->sharing == STEAD_TURNS)
        return exclusive ? turn_lock_exclusive(s, deadline_ns) : turn_lock_shared(s, deadline_ns);
    int rc = rwlock_lock(s->store_lock, exclusive, deadline_ns);
    return rc == EOWNERDEAD ? answer_death(s, rolled_back) : rc;
}

static int unlock_dispatch(struct stead *s)
{
    if (!rwlock_held(s->store_lock))
        return EPERM;
    if (store_locks_as_reader(s))
        return store_reader_unlock(s);
    return s->sharing == STEAD_TURNS ? turn_unlock(s) : rwlock_unlock(s->store_lock);
}

static int explain_lock(const struct stead *s, int rc)
{
    switch (rc) {
    case EBUSY:
        return error_set(rc, "%s: the lock is held by others", s->file.path);
    case ECANCELED: /* the store may be gone already */
        return rc;
    case ETIMEDOUT:
        return store_explain_timeout(s);
    case EDEADLK:
        return error_set(rc, "%s: waiting for this lock would never end", s->file.path);
    case EOWNERDEAD:
        if (s->read_only)
            return error_set(rc, "%s: a writer died inside its exclusive section, and no other has repaired it yet",
                             s->file.path);
        return error_set(rc, "%s: a writer died inside its exclusive section; repair and stead_make_consistent()",
                         s->file.path);
    case ENOTRECOVERABLE:
        return error_set(rc, "%s: a writer died inside its exclusive section and nobody repaired it", s->file.path);
    default:
        return error_keep(rc);
    }
}

static __attribute__((noinline)) int lock_slowly(struct stead *s, stead_lock_mode mode, int timeout_ms)
{
    bool rolled_back;
    if (s != NULL && (mode == STEAD_SHARED || (mode == STEAD_EXCLUSIVE && !s->read_only)) &&
        rwlock_nest(s->store_lock, mode == STEAD_EXCLUSIVE)) {
        store_follow(s); /* a level inside others is a count, in every mode */
        return 0;
    }
    int rc = store_enter(s);
    if (rc == 0 && mode != STEAD_SHARED && mode != STEAD_EXCLUSIVE)
        rc = error_set(EINVAL, "%s: %d is no lock mode", s->file.path, (int)mode);
    if (rc != 0)
        return rc;
    rc = lock_dispatch(s, mode == STEAD_EXCLUSIVE, timeout_ms == 0 ? 0 : deadline_after_ms(timeout_ms), &rolled_back);
    if (rc == 0 || rc == EOWNERDEAD)
        store_follow(s);
    return rc == 0 ? 0 : explain_lock(s, rc);
}

/* The lock was not simply got. */
static __attribute__((noinline)) int lock_answer(struct stead *s, int rc)
{
    bool rolled_back;
    if (rc == EOWNERDEAD)
        rc = answer_death(s, &rolled_back);
    if (rc == 0 || rc == EOWNERDEAD)
        store_follow(s);
    return rc == 0 ? 0 : explain_lock(s, rc);
}

/* The ways of most requests are short: straight into lock/. */
int stead_lock(stead *store, stead_lock_mode mode, int timeout_ms)
{
    if (!__builtin_expect(store != NULL && store->direct_lock && (unsigned)mode <= STEAD_EXCLUSIVE && timeout_ms < 0,
                          1))
        return lock_slowly(store, mode, timeout_ms);
    int rc = rwlock_lock_here(store->store_lock, mode == STEAD_EXCLUSIVE, DEADLINE_NEVER);
    if (__builtin_expect(rc != 0, 0))
        return lock_answer(store, rc);
    store_follow(store);
    return 0;
}

static __attribute__((noinline)) int unlock_slowly(struct stead *s)
{
    if (s != NULL && rwlock_unnest(s->store_lock))
        return 0;
    int rc = store_enter(s);
    if (rc != 0)
        return rc;
    rc = unlock_dispatch(s);
    if (rc == EPERM)
        return error_set(rc, "%s: this thread holds no lock of it", s->file.path);
    return error_keep(rc);
}

int stead_unlock(stead *store)
{
    if (!__builtin_expect(store != NULL && store->direct_lock, 1))
        return unlock_slowly(store);
    int rc = rwlock_unlock_here(store->store_lock);
    return __builtin_expect(rc == 0, 1) ? 0 : error_set(rc, "%s: this thread holds no lock of it", store->file.path);
}

int stead_make_consistent(stead *store)
{
    STORE_CALL(store);
    int rc = store_enter(store);
    if (rc != 0)
        return rc;
    if (!store->read_only && store->sharing == STEAD_LIVE && rwlock_held_exclusive(store->store_lock))
        names_recount(store);
    rc = rwlock_make_consistent(store->store_lock);
    if (store->has_slot && store->sharing == STEAD_LIVE && rwlock_held_exclusive(store->store_lock)) {
        /* A writer that ended outside any section left no dead lock, but an unclean store all the same. */
        if (atomic_exchange(&store->unit->unclean, 0) != 0)
            rc = 0;
        if (presence_dead_writers(store->presence, true) != 0)
            rc = 0;
    }
    return rc == 0 ? 0
                   : error_set(rc, "%s: there is nothing to repair, or this thread does not hold the lock exclusively",
                               store->file.path);
}

stead *stead_locked_begin_(stead *store, stead_lock_mode mode)
{
    int rc = stead_lock(store, mode, -1);
    return rc == 0 || (rc == EOWNERDEAD && !store->read_only) ? store : NULL;
}

void stead_locked_end_(stead **held)
{
    stead *store = *held;
    *held = NULL;
    if (store == NULL || store_enter(store) != 0)
        return;
    int rc = stead_unlock(store);
    if (rc == 0 || !rwlock_held(store->store_lock))
        return;
    /* A TURNS section that cannot commit: rolled back; the commit's error stays the thread's last one. */
    int rollback_rc = stead_rollback(store);
    (void)rwlock_unlock(store->store_lock);
    if (rollback_rc == 0)
        error_set(rc, "%s: the section could not be committed and was rolled back: %s", store->file.path,
                  error_text(rc));
}

/* ---- for the library's own operations */

static int lock_for_library(struct stead *s, bool exclusive, int64_t deadline_ns)
{
    bool rolled_back;
    int rc = lock_dispatch(s, exclusive, deadline_ns, &rolled_back);
    if (rc == EOWNERDEAD) { /* LIVE: not ours to repair: the next stead_lock hears of it */
        (void)rwlock_pass_on(s->store_lock);
        return explain_lock(s, rc);
    }
    if (rc != 0)
        return explain_lock(s, rc);
    if (rolled_back) {
        (void)rwlock_unlock(s->store_lock);
        return error_set(EOWNERDEAD,
                         "%s: a thread ended inside its exclusive section: all since the last commit was rolled "
                         "back, and this call did nothing",
                         s->file.path);
    }
    store_follow(s);
    return 0;
}

int store_lock_exclusive(struct stead *s, int64_t deadline_ns)
{
    return lock_for_library(s, true, deadline_ns);
}

int store_lock_shared(struct stead *s, int64_t deadline_ns)
{
    return lock_for_library(s, false, deadline_ns);
}

int store_lock_to_look(struct stead *s, int64_t deadline_ns)
{
    int rc = lock_for_library(s, false, deadline_ns);
    bool half_made = rc == EOWNERDEAD || rc == ENOTRECOVERABLE;
    return half_made && s->read_only && (s->options.flags & STEAD_ACCEPT_UNCLEAN) != 0 ? 0 : rc;
}

void store_unlock_quietly(struct stead *s)
{
    int saved_errno = errno;
    if (unlock_dispatch(s) != 0 && rwlock_held(s->store_lock)) {
        /* TURNS: the level was the library's own and changed nothing that a commit could be needed for. */
        (void)store_rollback_locked(s);
        (void)rwlock_unlock(s->store_lock);
    }
    errno = saved_errno;
}
