/*
 * attach.c -- the middle of stead_open: steps 3 to 9 of open.c, from an open file to a mapped store with its heap and
 * locks.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "persist/address.h"
#include "persist/fs.h"
#include "store/call.h"
#include "store/page.h"

#define POLL_NS 2000000
#define PATIENCE_MS 2000 /* stead.h names it */

/* The descriptor that carries the kernel locks: a reader with permission has a second, writable one. */
static void open_lock_file(struct stead *s)
{
    s->lock_fd = s->file.fd;
    if (!s->read_only || s->file.lower_layer) /* opening for writing would copy a lower layer's file up */
        return;
    s->lock_file = s->file;
    s->lock_file.fd = -1;
    registry_fork_hold(); /* until the descriptor stands where a fork child looks for it */
    if (file_open(&s->lock_file, true) == 0) {
        if (s->lock_file.device == s->file.device && s->lock_file.inode == s->file.inode)
            s->lock_fd = s->lock_file.fd;
        else
            file_close(&s->lock_file);
    }
    registry_fork_release();
    error_clear(); /* no permission is no failure */
}

/* ---- steps 3 to 7 */

int64_t store_patience(int64_t deadline_ns)
{
    return deadline_ns == 0 ? deadline_after_ms(PATIENCE_MS) : deadline_ns;
}

static bool slots_locked(const struct stead *s)
{
    return lock_byte_taken(s->lock_fd, LOCK_BYTE_SLOT0, PRESENCE_SLOTS);
}

static int claim_sharing(struct stead *s)
{
    if (s->sharing == STEAD_SOLE) {
        int rc = lock_byte_take(s->lock_fd, LOCK_BYTE_SOLE, LOCK_BYTE_WRITE, 0);
        if (rc != 0)
            return rc;
    }
    if (slots_locked(s) && s->unit->sharing != (uint32_t)s->sharing) {
        (void)lock_byte_drop(s->lock_fd, LOCK_BYTE_SOLE);
        static const char *const names[] = {"SOLE", "TURNS", "LIVE"};
        uint32_t theirs = s->unit->sharing;
        return error_set(STEAD_SHARING_MISMATCH, "%s is open in %s and cannot be opened in %s at the same time",
                         s->file.path, theirs < 3 ? names[theirs] : "an unknown mode", names[s->sharing]);
    }
    return 0;
}

static int busy(const struct stead *s)
{
    char who[32] = "";
    pid_t pid = presence_writer_pid(lock_unit_region(s->unit), s->lock_fd);
    if (pid != 0) /* else it is about to enter its name */
        (void)snprintf(who, sizeof who, " (pid %ld)", (long)pid);
    return error_set(s->deadline_ns == 0 ? EBUSY : ETIMEDOUT, "%s is open in SOLE by another process%s", s->file.path,
                     who);
}

static void pause_polling(void)
{
    nanosleep(&(struct timespec){.tv_nsec = POLL_NS}, NULL);
}

/* Gate taken, name still ours, superblock read, lock unit mapped, sharing claimed.  ESTALE: start over. */
static int enter_gate(struct stead *s)
{
    bool writable = s->lock_fd != s->file.fd || !s->read_only;
    for (;;) {
        int rc =
            lock_byte_take(s->lock_fd, LOCK_BYTE_GATE, writable ? LOCK_BYTE_WRITE : LOCK_BYTE_READ, s->patience_ns);
        if (rc != 0)
            return error_set(rc == ETIMEDOUT && s->deadline_ns == 0 ? EBUSY : rc,
                             "%s is being opened, closed or recovered by another process", s->file.path);
        if (!file_is_current(&s->file))
            return ESTALE;
        rc = superblock_read(&s->file, &s->super);
        if (rc != 0)
            return rc;
        s->created = s->created && s->super.sequence == s->created_sequence;
        if (s->unit == NULL)
            rc = lock_unit_map(&s->unit, s->lock_fd, writable);
        if (rc != 0)
            return error_set(rc, "%s: the lock unit cannot be mapped", s->file.path);
        if (s->read_only) {
            s->has_slot = writable && slots_locked(s);
            s->sharing =
                slots_locked(s) ? (stead_sharing)(s->unit->sharing % 3) : (stead_sharing)(s->super.sharing % 3);
            return 0;
        }
        s->has_slot = true;
        rc = claim_sharing(s);
        if (rc != EBUSY)
            return rc;
        (void)lock_byte_drop(s->lock_fd, LOCK_BYTE_GATE);
        if (s->deadline_ns == 0 || deadline_over(s->deadline_ns))
            return busy(s);
        pause_polling();
    }
}

static int attach_slot(struct stead *s, bool *unit_made)
{
    int rc = 0;
    *unit_made = false;
    if (s->has_slot && !slots_locked(s)) {
        lock_unit_format(s->unit, (uint32_t)s->sharing, s->super.commit_seq);
        *unit_made = true;
    } else if (s->has_slot) {
        rc = lock_unit_verify(s->unit);
    }
    if (rc != 0)
        return rc;
    rc = presence_attach(&s->presence, s->has_slot ? lock_unit_region(s->unit) : NULL, s->lock_fd,
                         s->read_only ? PRESENCE_READER : PRESENCE_WRITER);
    if (rc == 0 && !s->has_slot)
        outside_begin(&s->outside, lock_unit_region(s->unit), s->lock_fd);
    return error_keep(rc);
}

static int open_locks(struct stead *s)
{
    bool shared = s->has_slot && s->sharing != STEAD_SOLE;
    struct rwlock_host host = {.region = NULL, .which = RWLOCK_STORE, .presence = s->presence, .fd = s->lock_fd};
    if (s->has_slot && s->read_only && s->sharing != STEAD_LIVE) {
        host.region = lock_unit_region(s->unit);
        host.which = RWLOCK_APPLY;
    } else if (shared) {
        host.region = lock_unit_region(s->unit);
        host.companion = s->sharing == STEAD_LIVE ? RWLOCK_COMPANION_ANNOUNCED : RWLOCK_COMPANION_NONE;
    }
    if (store_locks_as_reader(s)) {
        host.ended = store_reader_ended;
        host.ended_ctx = s;
    }
    int rc = rwlock_open(&s->store_lock, &host);
    if (rc == 0 && s->has_slot && !s->read_only && s->sharing != STEAD_LIVE) {
        host = (struct rwlock_host){.region = lock_unit_region(s->unit),
                                    .which = RWLOCK_APPLY,
                                    .presence = s->presence,
                                    .fd = s->lock_fd,
                                    .companion = RWLOCK_COMPANION_ALWAYS};
        rc = rwlock_open(&s->apply_lock, &host);
    }
    return error_keep(rc);
}

/* ---- steps 8 and 9 */

static int raise_capacity(struct stead *s, const stead_options *o, bool alone)
{
    uint64_t wanted = round_up(o->capacity_bytes, UNIT_BYTES);
    if (s->read_only || wanted <= s->super.capacity_bytes)
        return 0;
    if (!alone || lock_byte_taken(s->lock_fd, LOCK_BYTE_READERS, 1))
        return error_set(EBUSY, "%s: the capacity can be raised only while nobody else has the store open",
                         s->file.path);
    if (!address_fits(s->super.base, wanted))
        return error_set(ENOMEM, "%s: a capacity of %llu bytes does not fit the store's slot of addresses at 0x%llx",
                         s->file.path, (unsigned long long)wanted, (unsigned long long)s->super.base);
    s->super.capacity_bytes = wanted;
    return 0;
}

/* Is the store what a LIVE session left without closing?  first: no writer is attached. */
static bool ended_unclean(const struct stead *s, bool first)
{
    if (s->super.state != SUPER_OPEN_LIVE)
        return false;
    if (first)
        return true;
    return s->has_slot && (presence_dead_writers(s->presence, false) != 0 || atomic_load(&s->unit->unclean) != 0);
}

static void accept_unclean(struct stead *s)
{
    if (!s->has_slot || s->read_only)
        return;
    (void)presence_dead_writers(s->presence, true);
    atomic_store(&s->unit->unclean, 0);
    atomic_store(&s->unit->accepted_unclean, 1);
}

/* Always an error: the store was mapped for this verdict only. */
static int judge_unclean(struct stead *s)
{
    struct report report = {0};
    store_check_memory(s, &report);
    if (report.problems != 0)
        return error_set(STEAD_CORRUPT, "%s: a LIVE session ended without close and left damage: %s", s->file.path,
                         report.first);
    if (report.unable != 0)
        return error_set(report.unable, "%s: a LIVE session ended without close, and its heap cannot be looked at: %s",
                         s->file.path, error_text(report.unable));
    return error_set(STEAD_UNCLEAN,
                     "%s: a LIVE session ended without close; its heap is sound, its data is for the "
                     "application to judge (STEAD_ACCEPT_UNCLEAN opens it)",
                     s->file.path);
}

static int open_image(struct stead *s, const stead_options *o, bool first, bool inspect, bool raised)
{
    bool crashed = s->super.state == SUPER_OPEN_LOGGED && first;
    struct image_options options = {
        .kind = s->read_only               ? IMAGE_READ
                : s->sharing == STEAD_LIVE ? IMAGE_SHARED
                                           : IMAGE_PRIVATE,
        .turns = s->sharing == STEAD_TURNS,
        .any_address = (o->flags & STEAD_ANY_ADDRESS) != 0,
        .first = first,
        .inspect = inspect && first,
        .late_log = s->sharing == STEAD_SOLE && !raised,
        .shared = s->has_slot ? lock_unit_image_shared(s->unit) : NULL,
        .max_private_bytes = o->max_private_bytes,
    };
    int rc;
    if (crashed) {
        rc = lock_byte_take(s->lock_fd, LOCK_BYTE_RECOVERY, s->read_only ? LOCK_BYTE_READ : LOCK_BYTE_WRITE,
                            s->deadline_ns);
        if (rc != 0)
            return error_set(rc,
                             "%s crashed and is being read through a private replay, or recovered, by another process",
                             s->file.path);
        s->private_replay = s->read_only;
    }
    bool changes_file = crashed && !s->read_only;
    rc = changes_file ? store_apply_lock(s, true, s->deadline_ns) : 0;
    if (rc != 0)
        return error_set(rc, "%s: a reader's section holds off recovery", s->file.path);
    s->super.root = s->read_only ? s->super.root : 0; /* a copy, made at close; stale while the store is open */
    if (!s->read_only)
        s->super.sharing = (uint32_t)s->sharing;
    rc = image_open(&s->image, &s->file, &s->super, &options);
    if (changes_file)
        store_apply_unlock(s, rc == 0);
    if (crashed && !s->read_only)
        (void)lock_byte_drop(s->lock_fd, LOCK_BYTE_RECOVERY);
    if (rc != 0)
        return error_keep(rc);
    s->base = image_base(s->image);
    s->capacity = image_capacity(s->image);
    s->any_address = (uint64_t)(uintptr_t)s->base != s->super.base;
    s->recovered = image_recovered(s->image);
    s->opened_seq = image_commit_seq(s->image);
    return 0;
}

int store_attach_heap(struct stead *s, bool first, bool inspect)
{
    static const enum heap_kind kinds[] = {HEAP_SOLE, HEAP_TURNS, HEAP_LIVE};
    struct heap_host host = {.ctx = s,
                             .extend = store_host_extend,
                             .ready = s->sharing == STEAD_LIVE ? store_host_ready : NULL,
                             .alive = store_host_alive,
                             .self = s->has_slot ? presence_id(s->presence) : 0,
                             .handle =
                                 s->sharing == STEAD_TURNS || s->read_only ? NULL : s, /* where the gate stays 0 */
                             .guards = s->sharing == STEAD_SOLE && !s->read_only};
    int rc = page_verify(s);
    if (rc != 0)
        return rc;
    return error_keep(heap_attach(&s->heap, s->base, s->capacity, image_bytes(s->image),
                                  s->read_only || inspect ? HEAP_READ : kinds[s->sharing], first, &host));
}

/* The unit says from now on what the superblock will, whoever writes it next: also an open that fails behind this and closes
 * again what it opened (undo_open). */
static void note_history(struct stead *s, bool unit_made)
{
    if (!s->has_slot || (!unit_made && !s->first_writer))
        return;
    atomic_store(&s->unit->last_attach_s, s->super.last_attach_s);
    atomic_store(&s->unit->last_detach_s, s->super.last_detach_s);
    atomic_store(&s->unit->last_change_s, s->super.last_change_s);
    atomic_store(&s->unit->last_change_pid, s->super.last_change_pid);
    atomic_store(&s->unit->accepted_unclean, s->super.accepted_unclean);
}

static void note_attached(struct stead *s, bool unit_made)
{
    if (!s->has_slot)
        return;
    struct lock_unit *unit = s->unit;
    if (unit_made || s->first_writer) {
        uint64_t seq = s->sharing == STEAD_LIVE ? s->super.commit_seq : image_commit_seq(s->image);
        change_reset(&unit->commit_seq, &unit->commit_word, seq);
        change_reset(&unit->durable_seq, &unit->durable_word, seq);
    }
    if (!s->read_only) {
        uint64_t bytes = image_bytes(s->image);
        uint64_t known = atomic_load(&unit->image_bytes);
        while (known < bytes && !atomic_compare_exchange_weak(&unit->image_bytes, &known, bytes))
            continue;
    }
    atomic_store(&unit->last_attach_s, (int64_t)time(NULL));
}

/* Is another process attached that may write?  A reader without a slot cannot look into the table; what it can see is
 * whether any slot is locked, and in SOLE the writer's own byte. */
static bool writer_attached(const struct stead *s, bool alone)
{
    if (s->has_slot)
        return presence_count_role(s->presence, PRESENCE_WRITER) != 0;
    return !alone && (s->sharing != STEAD_SOLE || lock_byte_taken(s->lock_fd, LOCK_BYTE_SOLE, 1));
}

/* Who was attached when enter_gate() looked may have made a first commit, or a checkpoint, and died before this process
 * claimed the store: neither waits for the gate, and a superblock as it was before would tell of no log (W33).  Nobody who
 * writes is attached now, nor can be while the gate is held. */
static int read_superblock_again(struct stead *s)
{
    int rc = superblock_read(&s->file, &s->super);
    if (rc == 0 && s->has_slot)
        store_heed_visit(s->unit, &s->super);
    return rc;
}

static int check_file_system(const struct stead *s, bool alone)
{
    if (s->read_only)
        return alone ? 0 : fs_check(&s->file, FS_READER);
    if (s->sharing == STEAD_LIVE)
        return fs_check(&s->file, FS_LIVE);
    bool others = s->sharing == STEAD_TURNS || !alone || lock_byte_taken(s->lock_fd, LOCK_BYTE_READERS, 1);
    return fs_check(&s->file, others ? FS_WRITERS : FS_ONE_PROCESS);
}

/* Steps 3 to 9; on failure the caller detaches. */
int store_attach(struct stead *s, const stead_options *o)
{
    bool unit_made;
    open_lock_file(s);
    int rc = enter_gate(s);
    if (rc != 0)
        return rc;
    s->entered = true;
    bool alone = !slots_locked(s);
    if ((rc = check_file_system(s, alone)) != 0 || (rc = attach_slot(s, &unit_made)) != 0)
        return rc;
    bool first = !writer_attached(s, alone);
    if (first && (rc = read_superblock_again(s)) != 0)
        return rc;
    bool unclean = ended_unclean(s, first);
    bool inspect = unclean && (o->flags & STEAD_ACCEPT_UNCLEAN) == 0;
    s->first_writer = first && !s->read_only && !inspect;
    if (s->first_writer) /* what its superblocks say, should it crash */
        s->super.last_attach_s = time(NULL);
    const uint64_t capacity = s->super.capacity_bytes;
    if ((rc = raise_capacity(s, o, alone)) != 0 || (rc = open_locks(s)) != 0)
        return rc;
    s->accepted_unclean = unclean && !inspect;
    if (s->accepted_unclean)
        s->super.accepted_unclean = 1;
    note_history(s, unit_made);
    if ((rc = open_image(s, o, first, inspect, s->super.capacity_bytes != capacity)) != 0 ||
        (rc = store_attach_heap(s, first, inspect)) != 0)
        return rc;
    if (inspect)
        return judge_unclean(s);
    if (unclean)
        accept_unclean(s);
    if (unclean && s->first_writer)
        names_recount(s);
    note_attached(s, unit_made);
    if (s->first_writer && s->sharing != STEAD_LIVE)
        (void)presence_dead_writers(s->presence, true); /* their sections were recovered: nothing is left of them */
    if (s->read_only)
        atomic_fetch_or(&s->gate, (unsigned)GATE_READ_ONLY);
    s->direct_lock = s->sharing == STEAD_LIVE ? s->has_slot : s->sharing == STEAD_SOLE && !s->read_only;
    if (s->sharing == STEAD_TURNS)
        atomic_fetch_or(&s->gate, (unsigned)GATE_TURNS);
    return 0;
}

/* ---- what the heap asks of us */

int store_host_extend(void *ctx, uint64_t bytes)
{
    NOT_CANCELLED;
    struct stead *s = ctx;
    int rc = image_extend(s->image, bytes);
    if (rc != 0 || s->unit == NULL)
        return rc;
    uint64_t now = image_bytes(s->image);
    uint64_t known = atomic_load_explicit(&s->unit->image_bytes, memory_order_relaxed);
    while (known < now && !atomic_compare_exchange_weak(&s->unit->image_bytes, &known, now))
        continue;
    return 0;
}

void store_host_ready(void *ctx, uint64_t offset, uint64_t bytes)
{
    NOT_CANCELLED;
    const struct stead *s = ctx;
    image_ready(s->image, offset, bytes);
}

bool store_host_alive(void *ctx, uint32_t id)
{
    struct stead *s = ctx;
    return presence_alive(s->presence, id);
}
