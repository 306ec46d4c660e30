/*
 * open.c -- stead_open: from a path to a mapped, locked, checked store.
 *
 *   step                                                          a crash right after it leaves
 *   1 resolve the path; open the file, or make a whole sealed     no file, or a whole one (create.c)
 *     one under its name (image_create) and open that
 *   2 claim it in this process's registry                         -
 *   3 take the gate byte; is the name still this file?            the kernel drops the byte
 *   4 read and judge the superblocks                              -
 *   5 SOLE: take the SOLE byte.  Is the mode that of those who    the kernel drops the byte
 *     are attached?
 *   6 map the lock unit; make it anew if no slot is locked        garbage in the unit: nobody attached, so the next
 *                                                                 opener makes it anew
 *   7 attach (slot byte); no writer attached: read the            the kernel drops the byte
 *     superblocks again, now that nobody can change them
 *   8 recover if the last session crashed, map, start the log     what recovery's own steps say (persist/recover.c)
 *   9 attach the heap; LIVE: judge an unclean end                 -
 *  10 layout: check, or upgrade inside one transaction            the old layout, or the new one
 *  11 drop the gate
 *
 * "First" means two things: no slot byte locked (step 6: the unit is nobody's), and no writer attached (step 8: nobody
 * else could be using the log; readers may be there, so the file is changed under the apply lock).
 *
 * A reader that comes when no slot is locked touches nothing: it has no slot, takes byte READERS, and writers that come
 * later see that byte.  Of a crashed store it makes a private replay, holding byte RECOVERY shared for as long.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "persist/address.h"
#include "persist/wal.h"
#include "store/call.h"
#include "store/page.h"

#define REMOVAL_NS 2000000 /* between the two unlinks of a removal that could not wait for the gate */

/* ---- handles */

static struct stead *handle_new(const stead_options *options)
{
    struct stead *s = calloc(1, sizeof *s);
    if (s == NULL)
        return NULL;
    s->file.fd = -1;
    s->lock_file.fd = -1;
    s->lock_fd = -1;
    s->options = *options;
    s->options.layout = (stead_layout){.name = NULL};
    s->sharing = options->sharing;
    s->read_only = (options->flags & STEAD_READ_ONLY) != 0;
    s->timeout_ms = options->timeout_ms;
    s->own_pid = (uint32_t)getpid();
    pthread_mutex_init(&s->reader_mutex, NULL);
    return s;
}

/* In a fork child, from the fork handler: descriptors only (registry.c says why). */
void store_forked(struct stead *s)
{
    s->direct_lock = false;
    if (s->phase == STORE_OPEN) {
        image_forget(s->image);
        s->image = NULL;
        s->unit = NULL; /* not inherited (MADV_DONTFORK) */
    }
    file_close(&s->lock_file);
    file_close(&s->file);
    s->lock_fd = -1;
}

static void close_lock(struct rwlock **lock)
{
    /* EBUSY: a thread holds it (abandon, a failed open).  Its hold dies with this process's slot. */
    if (*lock != NULL && rwlock_close(*lock) != 0)
        rwlock_forget(*lock);
    *lock = NULL;
}

/* Undoes everything that attach() did, in reverse; writes nothing to the store but this process's own slot.  The bytes
 * are dropped by name, too: a child of posix_spawn(3) may keep the open file description alive for a while. */
void store_detach(struct stead *s)
{
    static const unsigned bytes[] = {LOCK_BYTE_RECOVERY, LOCK_BYTE_READERS, LOCK_BYTE_APPLY, LOCK_BYTE_SOLE,
                                     LOCK_BYTE_GATE};
    if (s->heap != NULL)
        heap_detach(s->heap);
    s->heap = NULL;
    if (s->image != NULL)
        image_close(s->image);
    s->image = NULL;
    close_lock(&s->store_lock);
    close_lock(&s->apply_lock);
    if (s->presence != NULL)
        presence_detach(s->presence);
    s->presence = NULL;
    lock_unit_unmap(s->unit);
    s->unit = NULL;
    for (unsigned i = 0; s->lock_fd >= 0 && i < sizeof bytes / sizeof bytes[0]; i++)
        (void)lock_byte_drop(s->lock_fd, bytes[i]);
    registry_fork_hold(); /* or a fork child could close a number that is somebody else's by then */
    file_close(&s->lock_file);
    file_close(&s->file);
    s->lock_fd = -1;
    registry_fork_release();
}

void store_free(struct stead *s)
{
    if ((atomic_load(&s->gate) & GATE_FORKED) != 0) {
        if (s->heap != NULL)
            heap_forget(s->heap);
        if (s->store_lock != NULL)
            rwlock_forget(s->store_lock);
        if (s->apply_lock != NULL)
            rwlock_forget(s->apply_lock);
        if (s->presence != NULL)
            presence_forget(s->presence);
    }
    pthread_mutex_destroy(&s->reader_mutex);
    free(s);
}

/* ---- step 1: the file */

static uint64_t wanted_capacity(const stead_options *o)
{
    return o->capacity_bytes == 0 ? STORE_DEFAULT_CAPACITY
                                  : max_u64(round_up(o->capacity_bytes, UNIT_BYTES), STORE_CAPACITY_MIN);
}

static int check_options(const char *path, const stead_options *o)
{
    unsigned known = STEAD_READ_ONLY | STEAD_EXISTING | STEAD_NEW | STEAD_ACCEPT_UNCLEAN | STEAD_ANY_ADDRESS;
    if ((o->flags & ~known) != 0 || (unsigned)o->sharing > STEAD_LIVE)
        return error_set(EINVAL, "%s: unknown flags or sharing mode in stead_options", path);
    if ((o->flags & STEAD_NEW) != 0 && (o->flags & (STEAD_EXISTING | STEAD_READ_ONLY)) != 0)
        return error_set(EINVAL, "%s: STEAD_NEW contradicts STEAD_EXISTING and STEAD_READ_ONLY", path);
    if ((o->flags & STEAD_ANY_ADDRESS) != 0 && (o->flags & STEAD_READ_ONLY) == 0)
        return error_set(EINVAL, "%s: STEAD_ANY_ADDRESS needs STEAD_READ_ONLY: plain pointers would be wrong", path);
    if ((uintptr_t)o->address % UNIT_BYTES != 0)
        return error_set(EINVAL, "%s: options.address %p is not a multiple of 64 KiB", path, o->address);
    if (o->capacity_bytes > FORMAT_IMAGE_BYTES_MAX)
        return error_set(EINVAL, "%s: options.capacity_bytes is more than any store can have (%llu)", path,
                         (unsigned long long)FORMAT_IMAGE_BYTES_MAX);
    if (o->address != NULL && !address_fits((uintptr_t)o->address, wanted_capacity(o)))
        return error_set(EINVAL, "%s: options.address %p cannot hold the capacity", path, o->address);
    if (o->layout.name != NULL && strlen(o->layout.name) >= sizeof((struct superblock *)NULL)->layout_name)
        return error_set(EINVAL, "%s: options.layout.name is longer than 63 bytes", path);
    if (o->layout.name != NULL && o->layout.name[0] == '\0')
        return error_set(EINVAL, "%s: options.layout.name is empty; NULL asks for no layout", path);
    return 0;
}

static int create_file(struct stead *s, const stead_options *o)
{
    struct superblock super = {.capacity_bytes = wanted_capacity(o),
                               .sharing = (uint32_t)o->sharing,
                               .creator_pid = (uint32_t)getpid(),
                               .last_change_pid = (uint32_t)getpid(),
                               .created_s = time(NULL)};
    super.last_change_s = super.last_attach_s = super.created_s;
    if (o->layout.name != NULL) {
        memcpy(super.layout_name, o->layout.name, strlen(o->layout.name));
        super.layout_version = o->layout.version;
    }
    super.base = (uint64_t)(uintptr_t)o->address;
    void *unit = calloc(1, HEAP_INITIAL_BYTES);
    if (unit == NULL)
        return error_set(ENOMEM, "%s: no memory for the first unit of a new store", s->file.path);
    heap_format(unit, super.capacity_bytes);
    page_format(unit);
    int rc = image_create(&s->file, &super, unit, o->permissions == 0 ? STORE_DEFAULT_PERMISSIONS : o->permissions);
    free(unit);
    s->created_sequence = super.sequence;
    return rc;
}

static int open_file(struct stead *s, const stead_options *o)
{
    if (s->file.in_memory && o->sharing != STEAD_LIVE && !s->read_only)
        return error_set(EINVAL, "%s: a section in memory is STEAD_LIVE only: it has no file to commit to",
                         s->file.path);
    for (;;) {
        int rc = file_open(&s->file, !s->read_only);
        if ((rc == 0 || rc == EACCES || rc == EMLINK) && (o->flags & STEAD_NEW) != 0 && !s->created) {
            file_close(&s->file);
            return error_set(EEXIST, "%s exists already", s->file.path);
        }
        if (rc != ENOENT)
            return rc;
        if (s->created)
            return ESTALE; /* made, and removed by somebody else at once */
        if (s->read_only || (o->flags & STEAD_EXISTING) != 0)
            return error_set(ENOENT, "%s: there is no such store", s->file.path);
        rc = create_file(s, o);
        if (rc == EEXIST && (o->flags & STEAD_NEW) != 0)
            return error_set(EEXIST, "%s: another process made it first", s->file.path);
        if (rc != 0 && rc != EEXIST)
            return rc;
        s->created = rc == 0;
    }
}

/* ---- the call */

static int compare_options(struct stead *s, const char *path, const stead_options *o, int64_t patience_ns)
{
    int rc = store_enter(s);
    if (rc != 0)
        return rc;
    if ((o->flags & STEAD_NEW) != 0)
        return error_set(EEXIST, "%s exists already", path);
    if (s->read_only != ((o->flags & STEAD_READ_ONLY) != 0) || (!s->read_only && s->sharing != o->sharing) ||
        o->capacity_bytes > s->capacity ||
        (o->max_private_bytes != 0 && o->max_private_bytes != s->options.max_private_bytes))
        return error_set(EBUSY, "%s is open in this process with other options", path);
    if (s->any_address && (o->flags & STEAD_ANY_ADDRESS) == 0)
        return error_set(STEAD_ADDRESS_TAKEN, "%s is open in this process away from its recorded address", path);
    if (o->layout.name == NULL)
        return 0;
    rc = layout_read(s, patience_ns);
    if (rc == 0 && !layout_matches(s, &o->layout))
        return error_set(STEAD_LAYOUT_MISMATCH, "%s is open in this process with layout \"%s\" version %u", path,
                         s->layout_name, s->layout_version);
    return rc;
}

static int second_handle(struct stead *s, const char *path, const stead_options *o, int64_t patience_ns, stead **out)
{
    int rc = compare_options(s, path, o, patience_ns);
    bool here = registry_visit_end(s, rc == 0); /* from now on only a handle keeps it */
    if (rc == 0 && !here)
        return ESTALE; /* abandoned meanwhile: opened anew */
    if (rc == 0)
        *out = s;
    return rc;
}

/* A file that this very call made and could not open: nobody else has it, or had it; the gate is held.  Before it is
 * attached (the file system was refused) nobody's slot byte is locked. */
static bool undo_create(struct stead *s)
{
    bool alone = s->presence != NULL ? s->has_slot && presence_count(s->presence) == 1
                                     : !lock_byte_taken(s->lock_fd, LOCK_BYTE_SLOT0, PRESENCE_SLOTS);
    if (!s->created || !alone || !file_is_current(&s->file))
        return false;
    (void)wal_name_remove(&s->file, s->super.id);
    (void)file_unlink(s->file.path);
    return true;
}

/* A failed open by the first writer: the store goes back to what it was, as if closed.  The gate is held. */
static void undo_open(struct stead *s)
{
    if (s->image == NULL || !s->first_writer || !file_is_current(&s->file)) /* removed: its names may be another's */
        return;
    if (s->sharing != STEAD_LIVE && s->heap != NULL)
        (void)store_rollback_locked(s);
    (void)store_finish(s);
}

/* The file is open and s in the registry; or *existing is the store that this process has open already, and s->file is
 * closed.  On failure it is closed, too. */
static int open_claimed(struct stead *s, const stead_options *o, struct stead **existing)
{
    for (;;) {
        registry_fork_hold();
        int rc = open_file(s, o);
        if (rc == 0) {
            rc = registry_claim(s, existing);
            if (rc != 0 || *existing != NULL)
                file_close(&s->file);
        }
        registry_fork_release();
        if (rc == EAGAIN)
            rc = registry_wait(&s->file, s->patience_ns);
        else
            return rc;
        if (rc != 0)
            return rc;
    }
}

/* Did rc come of stead_remove()?  Its log loses its name a moment before the file does (remove.c). */
static bool was_removed(const struct stead *s, int rc)
{
    if (rc == STEAD_LOG_MISSING || rc == ENOENT)
        nanosleep(&(struct timespec){.tv_nsec = REMOVAL_NS}, NULL);
    return !file_is_current(&s->file);
}

static int open_once(stead **out, const char *path, const stead_options *o, int64_t deadline_ns, int64_t patience_ns)
{
    struct stead *existing = NULL;
    struct stead *s = handle_new(o);
    if (s == NULL)
        return error_set(ENOMEM, "%s: no memory for a handle", path);
    s->deadline_ns = deadline_ns;
    s->patience_ns = patience_ns;
    int rc = file_resolve(&s->file, path);
    if (rc == 0)
        rc = open_claimed(s, o, &existing);
    if (rc == 0 && existing != NULL)
        rc = second_handle(existing, path, o, patience_ns, out);
    if (rc != 0 || existing != NULL)
        goto free_handle;
    rc = store_attach(s, o);
    if (rc != 0 && was_removed(s, rc))
        rc = ESTALE;
    if (rc == 0)
        rc = registry_publish(s);
    if (rc == 0)
        rc = layout_settle(s, &o->layout, patience_ns);
    if (rc != 0) {
        registry_unpublish(s);
        if (s->entered && !undo_create(s))
            undo_open(s);
        store_detach(s);
        registry_withdraw(s);
        goto free_handle;
    }
    (void)lock_byte_drop(s->lock_fd, LOCK_BYTE_GATE);
    registry_opened(s);
    *out = s;
    return 0;

free_handle:
    store_free(s);
    return rc;
}

int stead_open(stead **out, const char *path, const stead_options *options)
{
    NOT_CANCELLED;
    static const stead_options defaults;
    if (out != NULL)
        *out = NULL;
    if (out == NULL || path == NULL)
        return error_set(EINVAL, "stead_open: the %s is NULL", out == NULL ? "place for the handle" : "path");
    const stead_options *o = options != NULL ? options : &defaults;
    int64_t deadline_ns = o->timeout_ms == 0 ? 0 : deadline_after_ms(o->timeout_ms);
    struct error_memo before;
    error_remember(&before);
    error_clear();
    int rc = check_options(path, o);
    if (rc != 0)
        return rc;
    int64_t patience_ns = store_patience(deadline_ns);
    do
        rc = open_once(out, path, o, deadline_ns, patience_ns);
    while (rc == ESTALE && !deadline_over(patience_ns));
    if (rc == ESTALE)
        return error_set(deadline_ns == 0 ? EBUSY : ETIMEDOUT, "%s is removed faster than it can be opened", path);
    if (rc == 0)
        error_recall(&before);
    return error_about(rc, path);
}
