/*
 * presence.c -- who is attached to a store, and who died.
 *
 * The kernel knows who lives: every attachment holds an OFD write lock on byte SLOT0 + index of its record, and the
 * kernel drops it when the process is gone, whatever killed it.  Pids are written down for people only: they are
 * reused, and mean nothing in another pid namespace.  Records say who it was.
 *
 *   attach                                          a SIGKILL right after it leaves
 *   0 the id of a dead reader there -> 0            a free record
 *   1 F_OFD_SETLK on the record's byte              nothing: the kernel takes the byte back
 *   2 lost_writers += 1 if a dead writer's record   one dead writer, perhaps counted twice; never none
 *     has to be reused
 *   3 id = 0, then role, pid, nonce, generation     a free record
 *   4 id = new                                      a dead attachment with its record (a dead writer, if it was one)
 *   detach
 *   1 id = 0                                        a free record
 *   2 F_UNLCK                                       a free record
 *
 * Invariants:
 *   L20  record.id == id and its byte is locked  <=>  the attachment id is alive
 *   L21  an id is given out at most once since the region was formatted: generations only grow, per record, and a
 *         record whose generations are used up is never used again
 *   L22  a dead writer stays countable (its record, or lost_writers) until presence_dead_writers(clear)
 *
 * Ordering: a record is written only by whoever holds its byte, except that a dead id may be set to 0 by anybody (a
 * compare-and-swap from that very id, so a new attachment is never hit: L21).  Readers of a record read the id,
 * the fields, and the id again.  All of these are sequentially consistent: a field of another attachment could be read
 * between the two only after that one stored id = 0, and then the second look finds 0 or an id that never was there
 * before (L21), not the first one.
 *   "Alive" is id, byte, id: the byte was locked at a moment when the id stood.  It was the attachment's own lock, or that
 * of somebody who tries to reuse the record of a dead writer (record_take: when no other record is left) and has not
 * written yet; so that one may look alive for that moment, and the living never look dead.  A dead reader's id is taken
 * out before its byte is touched: no cycle is closed by the dead (L12), however long the newcomer is stopped there.  The
 * kernel's lock table needs no ordering with the words: the byte is taken before the first store to the record and dropped
 * after the last, by the same thread.
 */
#include "lock/presence.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "lock/bytes.h"
#include "lock/handle.h"
#include "lock/region.h"
#include "lock/slots.h"
#include "lock/steps.h"

struct presence {
    struct lock_region *region; /* NULL: no slot, LOCK_BYTE_READERS only */
    int fd;
    unsigned index;
    uint32_t id;
    enum presence_role role;
};

void lock_region_format(struct lock_region *region)
{
    memset((void *)region, 0, sizeof *region);
    memcpy(region->magic, REGION_MAGIC, sizeof region->magic);
    region->version = REGION_VERSION;
    region->region_bytes = sizeof *region;
    region->words_bytes = sizeof(struct lock_words);
    region->record_bytes = sizeof(struct presence_record);
    region->slot_bytes = sizeof(struct lock_slot);
    region->lock_count = RWLOCK_COUNT;
    region->record_count = PRESENCE_SLOTS;
    region->slot_count = SLOT_COUNT;
}

int lock_region_verify(const struct lock_region *region)
{
    if (memcmp(region->magic, REGION_MAGIC, sizeof region->magic) == 0 && region->version == REGION_VERSION &&
        region->region_bytes == sizeof *region && region->words_bytes == sizeof(struct lock_words) &&
        region->record_bytes == sizeof(struct presence_record) && region->slot_bytes == sizeof(struct lock_slot) &&
        region->lock_count == RWLOCK_COUNT && region->record_count == PRESENCE_SLOTS &&
        region->slot_count == SLOT_COUNT)
        return 0;
    return error_set(STEAD_VERSION,
                     "the processes that have the store open use another layout of its locks (version %u, %u bytes; "
                     "this build: version %d, %zu bytes); close it there first",
                     region->version, region->region_bytes, REGION_VERSION, sizeof *region);
}

struct record_view {
    uint32_t id;
    unsigned role;
    pid_t pid; /* as that process sees itself: for people, not for decisions */
    int64_t attached_s;
    uint64_t nonce;
};

/* One consistent look at a record.  False: free, or changing under our eyes (then its owner is at work: alive, but
 * not yet or no longer attached). */
static bool record_read(const struct presence_record *record, struct record_view *info)
{
    uint32_t id = atomic_load(&record->id);
    if (id == 0)
        return false;
    info->id = id;
    info->role = atomic_load(&record->role);
    info->pid = atomic_load(&record->pid);
    info->attached_s = atomic_load(&record->attached_s);
    info->nonce = atomic_load(&record->nonce);
    return atomic_load(&record->id) == id;
}

static bool byte_alive(int fd, unsigned index)
{
    return lock_byte_taken(fd, LOCK_BYTE_SLOT0 + index, 1);
}

bool presence_alive_in(const struct lock_region *region, int fd, uint32_t id)
{
    unsigned index = id & ID_INDEX_MASK;
    if (id == 0 || index >= PRESENCE_SLOTS)
        return false;
    const struct presence_record *record = &region->records[index];
    return atomic_load(&record->id) == id && byte_alive(fd, index) && atomic_load(&record->id) == id;
}

bool presence_alive(const struct presence *presence, uint32_t id)
{
    return id == presence->id || (presence->region != NULL && presence_alive_in(presence->region, presence->fd, id));
}

/* The record of this attachment; false: it is no more. */
static bool record_of(const struct lock_region *region, uint32_t id, struct record_view *info)
{
    unsigned index = id & ID_INDEX_MASK;
    return index < PRESENCE_SLOTS && record_read(&region->records[index], info) && info->id == id;
}

uint64_t presence_nonce(const struct lock_region *region, uint32_t id)
{
    struct record_view info;
    return record_of(region, id, &info) ? info.nonce : 0;
}

pid_t presence_pid(const struct lock_region *region, uint32_t id)
{
    struct record_view info;
    return record_of(region, id, &info) ? info.pid : 0;
}

int64_t presence_attached_s(const struct lock_region *region, uint32_t id)
{
    struct record_view info;
    return record_of(region, id, &info) ? info.attached_s : 0;
}

/* Fills the record whose byte we hold. */
static void record_write(struct presence *presence, struct presence_record *record, uint32_t generation)
{
    atomic_store(&record->id, 0); /* who reads the fields now sees that they change */
    atomic_store(&record->generation, generation);
    atomic_store(&record->role, (uint32_t)presence->role);
    atomic_store(&record->pid, (int32_t)getpid());
    atomic_store(&record->attached_s, (int64_t)time(NULL));
    atomic_store(&record->nonce, process_nonce());
    presence->id = generation << ID_INDEX_BITS | presence->index;
    atomic_store(&record->id, presence->id);
}

/* Before the byte is touched: the id of a dead one goes, so that it does not look alive by our hold of its byte.  False: it
 * lives.  An id that stood while its byte was free is dead, or gone (detach): the compare-and-swap knows which.  Not for
 * writers: they must stay countable (L22). */
static bool record_clear_dead(const struct presence *presence, struct presence_record *record, unsigned index)
{
    uint32_t id = atomic_load(&record->id);
    if (id == 0)
        return true;
    if (atomic_load(&record->role) == PRESENCE_WRITER || byte_alive(presence->fd, index))
        return false;
    return atomic_compare_exchange_strong(&record->id, &id, 0) || id == 0;
}

/* Tries to make record `index` ours.  over_dead_writers: even one that still tells of a dead writer.
 * 0, EBUSY (not this one), errno. */
static int record_take(struct presence *presence, unsigned index, bool over_dead_writers)
{
    struct presence_record *record = &presence->region->records[index];
    uint32_t generation = atomic_load(&record->generation);
    bool writer = atomic_load(&record->id) != 0 && atomic_load(&record->role) == PRESENCE_WRITER;
    if (generation >= ID_GENERATION_MAX || (writer && !over_dead_writers))
        return EBUSY; /* asked before the byte is touched: a probe makes a dead writer look alive */
    if (!writer && !record_clear_dead(presence, record, index))
        return EBUSY;
    int rc = lock_byte_take(presence->fd, LOCK_BYTE_SLOT0 + index, LOCK_BYTE_WRITE, 0);
    if (rc != 0)
        return rc;
    LOCK_STEP(ATTACH_BYTE);
    uint32_t id = atomic_load(&record->id);
    generation = atomic_load(&record->generation);
    bool dead_writer = id != 0 && atomic_load(&record->role) == PRESENCE_WRITER;
    if (generation >= ID_GENERATION_MAX || (dead_writer && !over_dead_writers)) {
        (void)lock_byte_drop(presence->fd, LOCK_BYTE_SLOT0 + index);
        return EBUSY;
    }
    if (dead_writer)
        atomic_fetch_add(&presence->region->lost_writers, 1);
    presence->index = index;
    record_write(presence, record, generation + 1);
    LOCK_STEP(ATTACH_DONE);
    return 0;
}

static int record_find(struct presence *presence)
{
    for (int over_dead_writers = 0; over_dead_writers <= 1; over_dead_writers++) {
        for (unsigned index = 0; index < PRESENCE_SLOTS; index++) {
            int rc = record_take(presence, index, over_dead_writers != 0);
            if (rc != EBUSY)
                return rc;
        }
    }
    return error_set(EMFILE, "%d processes have the store open already, and no more can attach", PRESENCE_SLOTS);
}

int presence_attach(struct presence **out, struct lock_region *region, int fd, enum presence_role role)
{
    int rc;
    *out = NULL;
    struct presence *presence = calloc(1, sizeof *presence);
    if (presence == NULL)
        return error_set(ENOMEM, "no memory for the record of being attached to the store");
    presence->region = region;
    presence->fd = fd;
    presence->role = role;
    rc = region == NULL ? lock_byte_take(fd, LOCK_BYTE_READERS, LOCK_BYTE_READ, 0) : record_find(presence);
    if (rc != 0) {
        free(presence);
        return rc;
    }
    if (region != NULL)
        slots_sweep(region, presence);
    *out = presence;
    return 0;
}

void presence_detach(struct presence *presence)
{
    if (presence->region == NULL) {
        (void)lock_byte_drop(presence->fd, LOCK_BYTE_READERS);
    } else {
        atomic_store(&presence->region->records[presence->index].id, 0);
        LOCK_STEP(DETACH_CLEARED);
        (void)lock_byte_drop(presence->fd, LOCK_BYTE_SLOT0 + presence->index);
    }
    free(presence);
}

void presence_forget(struct presence *presence)
{
    free(presence);
}

uint32_t presence_id(const struct presence *presence)
{
    return presence->id;
}

int presence_fd(const struct presence *presence)
{
    return presence->fd;
}

/* Without a region the bytes are all there is to count. */
static unsigned count_bytes(const struct presence *presence)
{
    unsigned count = 0;
    for (unsigned index = 0; index < PRESENCE_SLOTS; index++)
        count += byte_alive(presence->fd, index);
    return count;
}

static unsigned count_records(const struct presence *presence, bool any_role, unsigned role)
{
    unsigned count = 0;
    for (unsigned index = 0; index < PRESENCE_SLOTS; index++) {
        struct record_view info;
        if (!record_read(&presence->region->records[index], &info) || info.id == presence->id)
            continue;
        if ((any_role || info.role == role) && presence_alive(presence, info.id))
            count++;
    }
    return count;
}

unsigned presence_count(const struct presence *presence)
{
    if (presence->region == NULL)
        return 1 + count_bytes(presence);
    return 1 + count_records(presence, true, 0) + (lock_byte_taken(presence->fd, LOCK_BYTE_READERS, 1) ? 1 : 0);
}

unsigned presence_count_role(const struct presence *presence, enum presence_role role)
{
    bool unlisted = role == PRESENCE_READER && lock_byte_taken(presence->fd, LOCK_BYTE_READERS, 1);
    if (presence->region == NULL) /* the bytes do not tell roles: any of them may be a writer */
        return (role == PRESENCE_WRITER ? count_bytes(presence) : 0) + (unlisted ? 1 : 0);
    return count_records(presence, false, role) + (unlisted ? 1 : 0);
}

pid_t presence_writer_pid(const struct lock_region *region, int fd)
{
    for (unsigned index = 0; index < PRESENCE_SLOTS; index++) {
        struct record_view info;
        if (record_read(&region->records[index], &info) && info.role == PRESENCE_WRITER &&
            presence_alive_in(region, fd, info.id))
            return info.pid;
    }
    return 0;
}

unsigned presence_dead_writers(struct presence *presence, bool clear)
{
    if (presence->region == NULL)
        return 0;
    unsigned count =
        clear ? atomic_exchange(&presence->region->lost_writers, 0) : atomic_load(&presence->region->lost_writers);
    for (unsigned index = 0; index < PRESENCE_SLOTS; index++) {
        struct presence_record *record = &presence->region->records[index];
        struct record_view info;
        if (!record_read(record, &info) || info.role != PRESENCE_WRITER || presence_alive(presence, info.id))
            continue;
        uint32_t dead = info.id;
        if (atomic_load(&record->id) != dead)
            continue; /* it closed in good order between the two looks */
        count++;
        if (clear)
            atomic_compare_exchange_strong(&record->id, &dead, 0);
    }
    return count;
}
