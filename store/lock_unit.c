/*
 * lock_unit.c -- mapping and making the lock unit, and sleeping until a commit number changes.
 *
 * Why guard pages: a stray write that runs past a neighbouring mapping must not reach the lock words.
 *
 * Memory order of change_publish / change_wait: the number is stored before the futex word is changed (release), the
 * waiter reads the word before the number (acquire): if it saw the old number, the word it sleeps on is the one from
 * before the change, and FUTEX_WAIT returns at once because the kernel compares it again.  A reader's read-only
 * mapping is enough to wait: the kernel only reads the word.
 *
 * Sleepers.  Waking nobody costs a tenth of a commit on a hot page.  Those who wait for commit_seq can write here (readers wait
 * for durable_seq), and are counted:
 *
 *      waiter      sleepers + 1;    word read;  number read: the old one;  sleep, if the word is still that;  sleepers - 1
 *      publisher   number stored;   word + 1;   sleepers read: not 0;      wake all
 *
 * Both sides store and then load, all in one order: either the waiter finds the new word or number and does not sleep, or the
 * publisher finds it counted.  The publisher takes nothing back: a flag that it cleared could be that of one who has seen
 * this number and is about to sleep until the next.  A waiter that was killed stays counted, and costs wakes; a publisher
 * killed before its wake leaves them asleep as it always did (wait_change() sleeps in slices).
 *
 *   K1  nobody sleeps on commit_word through a commit with sleepers == 0 (test_change.c)
 */
#include "store/lock_unit.h"

#include <errno.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/deadline.h"
#include "base/error.h"
#include "persist/format.h"

int lock_unit_map(struct lock_unit **out, int fd, bool writable)
{
    *out = NULL;
    size_t whole = 3 * UNIT_BYTES;
    uint8_t *at = mmap(NULL, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        return errno;
    void *unit = mmap(at + UNIT_BYTES, UNIT_BYTES, writable ? PROT_READ | PROT_WRITE : PROT_READ,
                      MAP_SHARED | MAP_FIXED, fd, (off_t)LOCK_UNIT_OFFSET);
    if (unit == MAP_FAILED) {
        int rc = errno;
        munmap(at, whole);
        return rc;
    }
    (void)madvise(at, whole, MADV_DONTFORK);
    (void)madvise(at, whole, MADV_DONTDUMP);
    *out = unit;
    return 0;
}

void lock_unit_unmap(struct lock_unit *unit)
{
    if (unit != NULL)
        munmap((uint8_t *)unit - UNIT_BYTES, 3 * UNIT_BYTES);
}

void lock_unit_format(struct lock_unit *unit, uint32_t sharing, uint64_t commit_seq)
{
    atomic_store(&unit->signature, 0);
    const size_t visit = offsetof(struct lock_unit, visit), behind = visit + sizeof unit->visit;
    uint8_t *bytes = (uint8_t *)unit;
    memset(bytes + sizeof unit->signature, 0, visit - sizeof unit->signature);
    memset(bytes + behind, 0, sizeof *unit - behind); /* the visit is as true as it was */
    unit->sharing = sharing;
    atomic_store(&unit->commit_seq, commit_seq);
    atomic_store(&unit->durable_seq, commit_seq);
    lock_region_format(lock_unit_region(unit));
    atomic_store(&unit->signature, LOCK_UNIT_SIGNATURE);
}

static uint64_t visit_checksum(const uint8_t id[16], uint64_t sequence, int64_t attach_s, int64_t detach_s)
{
    struct {
        uint8_t id[16];
        uint64_t sequence;
        int64_t attach_s, detach_s;
    } bytes = {.sequence = sequence, .attach_s = attach_s, .detach_s = detach_s};
    static_assert(sizeof bytes == 40, "no padding");
    memcpy(bytes.id, id, sizeof bytes.id);
    return XXH3_64bits(&bytes, sizeof bytes);
}

void lock_unit_leave(struct lock_unit *unit, const uint8_t id[16], uint64_t sequence, int64_t attach_s,
                     int64_t detach_s)
{
    atomic_store(&unit->visit.attach_s, attach_s);
    atomic_store(&unit->visit.detach_s, detach_s);
    atomic_store(&unit->visit.sequence, sequence);
    atomic_store(&unit->visit.checksum, visit_checksum(id, sequence, attach_s, detach_s));
}

bool lock_unit_visited(const struct lock_unit *unit, const uint8_t id[16], uint64_t sequence, int64_t *attach_s,
                       int64_t *detach_s)
{
    int64_t attach = atomic_load(&unit->visit.attach_s), detach = atomic_load(&unit->visit.detach_s);
    if (atomic_load(&unit->visit.sequence) != sequence ||
        atomic_load(&unit->visit.checksum) != visit_checksum(id, sequence, attach, detach))
        return false;
    *attach_s = attach;
    *detach_s = detach;
    return true;
}

int lock_unit_verify(const struct lock_unit *unit)
{
    if (atomic_load(&unit->signature) != LOCK_UNIT_SIGNATURE)
        return error_set(STEAD_VERSION, "attached processes use another layout of the lock unit than this build");
    return lock_region_verify((const struct lock_region *)(const void *)unit->region);
}

void change_publish(_Atomic uint64_t *seq_word, _Atomic uint32_t *futex, _Atomic uint32_t *sleepers, uint64_t seq)
{
    uint64_t old = atomic_load_explicit(seq_word, memory_order_relaxed);
    do
        if (old >= seq) /* several threads sync at once: the number never goes back */
            return;
    while (!atomic_compare_exchange_weak_explicit(seq_word, &old, seq, memory_order_release, memory_order_relaxed));
    atomic_fetch_add(futex, 1);
    if (sleepers != NULL && atomic_load(sleepers) == 0)
        return;
    syscall(SYS_futex, (uint32_t *)futex, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

void change_reset(_Atomic uint64_t *seq_word, _Atomic uint32_t *futex, uint64_t seq)
{
    atomic_store_explicit(seq_word, seq, memory_order_release);
    atomic_fetch_add_explicit(futex, 1, memory_order_acq_rel);
    syscall(SYS_futex, (uint32_t *)futex, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

void change_shake(const _Atomic uint32_t *futex)
{
    syscall(SYS_futex, (const uint32_t *)futex, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

static int wait_until_changed(const _Atomic uint64_t *seq_word, const _Atomic uint32_t *futex, uint64_t since,
                              int64_t deadline_ns, const _Atomic bool *leaving)
{
    for (;;) {
        if (atomic_load(leaving))
            return ECANCELED;
        uint32_t seen = atomic_load(futex);
        if (atomic_load(seq_word) != since)
            return 0;
        int64_t left_ns = deadline_ns == DEADLINE_NEVER ? DEADLINE_NEVER : deadline_ns - clock_ns();
        if (deadline_ns == 0)
            return EBUSY;
        if (left_ns <= 0)
            return ETIMEDOUT;
        struct timespec left = {.tv_sec = left_ns / 1000000000, .tv_nsec = left_ns % 1000000000};
        syscall(SYS_futex, (const uint32_t *)futex, FUTEX_WAIT, seen, deadline_ns == DEADLINE_NEVER ? NULL : &left,
                NULL, 0);
    }
}

int change_wait(const _Atomic uint64_t *seq_word, const _Atomic uint32_t *futex, _Atomic uint32_t *sleepers,
                uint64_t since, int64_t deadline_ns, const _Atomic bool *leaving)
{
    if (sleepers != NULL)
        atomic_fetch_add(sleepers, 1);
    int rc = wait_until_changed(seq_word, futex, since, deadline_ns, leaving);
    if (sleepers != NULL)
        atomic_fetch_sub(sleepers, 1);
    return rc;
}
