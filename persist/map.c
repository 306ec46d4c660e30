/*
 * map.c -- the image's address range in this process.
 *
 *   address   base - 64 KiB   base                         base + bytes         base + capacity  + 64 KiB
 *             | guard         | group 0 | group 1 | part   | reserved            | guard          |
 *               PROT_NONE       file mappings, adjoining     PROT_NONE             PROT_NONE
 *                                              | fresh     |
 *                                                anonymous
 *
 * The whole range is reserved first, with MAP_FIXED_NOREPLACE, so that nothing else can move in and so that every later
 * MAP_FIXED replaces only our own reservation.  File pieces then go over it, never beyond the end of the file: an
 * address past what was extended faults as a wild pointer should (SIGSEGV on PROT_NONE) instead of as a lost file
 * (SIGBUS).  What the reservation costs: no memory (PROT_NONE, MAP_NORESERVE), no core dump (MADV_DONTDUMP), nothing in
 * a fork child (MADV_DONTFORK: there the range is not mapped at all, a stray write of the child cannot reach the store).
 *
 * Fresh space (MAP_IMAGE_PRIVATE).  What the file just gained holds zeros, and nothing but this process's next commit will
 * be written there.  As a private mapping of the file each page of it would cost a page of the page cache and a copy
 * of its zeros (2.3 us, measured); anonymous memory costs the zeros alone (0.4 to 1.5 us), and, from FRESH_HUGE_BYTES on,
 * one fault for 2 MiB where the kernel has huge pages.  map_settle() turns it into a mapping of the file when a commit
 * has put the bytes there.  It takes what it can get: without memory for anonymous mappings (overcommit forbidden), or
 * where the file was made longer by somebody else in between, growth is mapped as it always was.
 *
 * Invariants (checked by tests/unit/persist/test_map.c)
 *   S8  bytes <= capacity, both multiples of UNIT_BYTES; [base, base + bytes) maps image byte i at base + i, but for the
 *       fresh range [fresh_from, bytes), which is anonymous; [base + bytes, base + capacity) and both guards are
 *       PROT_NONE
 *   S12 fresh_from <= bytes; what map_settle() passed shows the file
 *   S9  a failed map_open() leaves the address space as it was; a failed map_extend() leaves `bytes` as it was
 *
 * Locks: map_extend() takes map->mutex; `bytes` only grows, is stored with release after the pieces are there, and may
 * be loaded with acquire by anybody.
 */
#include "persist/map.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/error.h"
#include "base/system.h"
#include "persist/address.h"
#include "persist/file.h"

#define GUARD_BYTES UNIT_BYTES
/* Growth by so much at once will be used densely, and a huge page that is not costs little beside it. */
#define FRESH_HUGE_BYTES (UINT64_C(4) << 20)

/* The first mapping of this process that overlaps [start, end): its line of /proc/self/maps, shortened. */
static bool find_obstacle(uintptr_t start, uintptr_t end, char *text, size_t text_bytes)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    char *line = NULL;
    size_t room = 0;
    bool found = false;
    while (maps != NULL && !found && getline(&line, &room, maps) > 0) {
        uintptr_t low, high;
        int name_at = 0;
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %*s %*s %*s %*s %n", &low, &high, &name_at) < 2)
            continue;
        if (low >= end || high <= start)
            continue;
        line[strcspn(line, "\n")] = '\0';
        const char *name = name_at > 0 && line[name_at] != '\0' ? line + name_at : "anonymous memory";
        (void)snprintf(text, text_bytes, "0x%" PRIxPTR "-0x%" PRIxPTR " (%s)", low, high, name);
        found = true;
    }
    free(line);
    if (maps != NULL)
        (void)fclose(maps);
    return found;
}

static int refuse_address(int fd, uintptr_t start, uintptr_t end)
{
    char obstacle[160];
    char name[FILE_PATH_BYTES];
    if (!find_obstacle(start, end, obstacle, sizeof obstacle))
        (void)snprintf(obstacle, sizeof obstacle, "something outside of what this process may map");
    return error_set(STEAD_ADDRESS_TAKEN,
                     "%.200s must be mapped at 0x%" PRIxPTR "-0x%" PRIxPTR ", but this process has %s there",
                     file_name(fd, name), start, end, obstacle);
}

/* PROT_NONE for [address - guard, address + capacity + guard); *base receives the address between the guards. */
static int reserve_range(int fd, void *address, uint64_t capacity, uint8_t **base)
{
    size_t bytes = (size_t)(capacity + 2 * GUARD_BYTES);
    uintptr_t want = (uintptr_t)address - (address == NULL ? 0 : GUARD_BYTES);
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (address == NULL ? 0 : MAP_FIXED_NOREPLACE);
    /* A free choice of the kernel is page aligned only; a unit more makes room to align it. */
    size_t slack = address == NULL ? (size_t)UNIT_BYTES : 0;
    uint8_t *got = file_calls.mmap((void *)want, bytes + slack, PROT_NONE, flags, -1, 0);
    if (got == MAP_FAILED) {
        int rc = errno;
        char name[FILE_PATH_BYTES];
        if (address != NULL && (rc == EEXIST || rc == EINVAL || rc == EPERM))
            return refuse_address(fd, want, want + bytes);
        return error_set(rc, "cannot reserve %" PRIu64 " bytes of addresses for %.200s: %s", capacity,
                         file_name(fd, name), error_text(rc));
    }
    if (address != NULL && (uintptr_t)got != want) { /* Linux before 4.17 takes the address as a hint */
        (void)file_calls.munmap(got, bytes);
        return refuse_address(fd, want, want + bytes);
    }
    if (slack != 0) {
        size_t head = (size_t)(round_up((uintptr_t)got, UNIT_BYTES) - (uintptr_t)got);
        if (head != 0)
            (void)file_calls.munmap(got, head);
        if (head != slack)
            (void)file_calls.munmap(got + head + bytes, slack - head);
        got += head;
    }
    (void)madvise(got, bytes, MADV_DONTDUMP);
    (void)madvise(got, bytes, MADV_DONTFORK);
    *base = got + GUARD_BYTES;
    return 0;
}

/* Where the kernel likes; or, where it finds no such range by itself (valgrind stands in for it and does not look far),
 * in a slot as new stores get one. */
static int reserve_anywhere(int fd, uint64_t capacity, uint8_t **base)
{
    static const uint8_t any_id[16] = "second view";
    uint64_t at;
    int rc = reserve_range(fd, NULL, capacity, base);
    if (rc != EINVAL && rc != ENOMEM)
        return rc;
    return address_choose(any_id, NULL, capacity, &at) == 0 ? reserve_range(fd, (void *)(uintptr_t)at, capacity, base)
                                                            : rc;
}

static void release_range(const uint8_t *base, uint64_t capacity)
{
    (void)file_calls.munmap((uint8_t *)(uintptr_t)base - GUARD_BYTES, (size_t)(capacity + 2 * GUARD_BYTES));
}

/* Back to PROT_NONE: [from, to) of the range at base, of which a failed map_pieces() may have mapped some. */
static void unmap_pieces(uint8_t *base, uint64_t from, uint64_t to)
{
    void *at = mmap(base + from, (size_t)(to - from), PROT_NONE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    if (at == MAP_FAILED)
        return; /* the pieces stay mapped: more than promised, never less */
    (void)madvise(at, (size_t)(to - from), MADV_DONTDUMP);
    (void)madvise(at, (size_t)(to - from), MADV_DONTFORK);
}

/* Maps image bytes [from, to) of the file at base + from, group by group; *done: up to where. */
static int map_some_pieces(int fd, uint8_t *base, uint64_t from, uint64_t to, int protection, int flags, uint64_t *done)
{
    *done = from;
    for (uint64_t at = from; at < to;) {
        uint64_t bytes = min_u64(format_contiguous(at), to - at);
        void *got =
            file_calls.mmap(base + at, (size_t)bytes, protection, flags | MAP_FIXED, fd, (off_t)format_file_offset(at));
        if (got == MAP_FAILED) {
            int rc = errno;
            char name[FILE_PATH_BYTES];
            return error_set(rc, "cannot map %" PRIu64 " bytes at %" PRIu64 " of %.200s: %s", bytes,
                             format_file_offset(at), file_name(fd, name), error_text(rc));
        }
        (void)madvise(got, (size_t)bytes, MADV_DONTFORK);
        at += bytes;
        *done = at;
    }
    return 0;
}

static int map_pieces(int fd, uint8_t *base, uint64_t from, uint64_t to, int protection, int flags)
{
    uint64_t done;
    int rc = map_some_pieces(fd, base, from, to, protection, flags, &done);
    if (rc != 0)
        unmap_pieces(base, from, to);
    return rc;
}

static const struct {
    int protection, flags;
} map_how[] = {
    [MAP_IMAGE_PRIVATE] = {PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE},
    [MAP_IMAGE_SHARED] = {PROT_READ | PROT_WRITE, MAP_SHARED},
    [MAP_IMAGE_READ] = {PROT_READ, MAP_SHARED},
    [MAP_IMAGE_VIEW] = {PROT_READ, MAP_PRIVATE | MAP_NORESERVE},
};

/* Anonymous memory for [from, to); false: as before. */
static bool map_anonymous(struct map *map, uint64_t from, uint64_t to)
{
    size_t bytes = (size_t)(to - from);
    void *got = file_calls.mmap(map->base + from, bytes, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    if (got == MAP_FAILED)
        return false;
    (void)madvise(got, bytes, MADV_DONTFORK);
    if (bytes >= FRESH_HUGE_BYTES)
        (void)madvise(got, bytes, MADV_HUGEPAGE);
    return true;
}

static int map_both(struct map *map, uint64_t from, uint64_t to, bool fresh)
{
    int rc = 0;
    bool joins = map->fresh_from < from, anonymous = (fresh || joins) && map_anonymous(map, from, to);
    if (joins && !anonymous)
        return error_set(ENOMEM, "no memory for %" PRIu64 " bytes more of new space", to - from);
    if (!anonymous)
        rc = map_pieces(map->fd, map->base, from, to, map_how[map->kind].protection, map_how[map->kind].flags);
    if (rc == 0 && map->twin != NULL) {
        rc = map_pieces(map->fd, (uint8_t *)(uintptr_t)map->twin, from, to, PROT_READ, MAP_SHARED);
        if (rc != 0)
            unmap_pieces(map->base, from, to);
    }
    if (rc == 0 && !anonymous)
        map->fresh_from = to;
    return rc;
}

int map_open(struct map *map, int fd, enum map_kind kind, void *address, uint64_t bytes, uint64_t capacity, bool twin)
{
    int rc;
    uint8_t *base = NULL, *twin_base = NULL;
    if (capacity == 0 || capacity > FORMAT_IMAGE_BYTES_MAX || bytes > capacity || bytes % UNIT_BYTES != 0 ||
        capacity % UNIT_BYTES != 0 || (uintptr_t)address % UNIT_BYTES != 0)
        return error_set(EINVAL, "cannot map %" PRIu64 " of %" PRIu64 " bytes at %p: not whole units of 64 KiB", bytes,
                         capacity, address);
    rc = address == NULL ? reserve_anywhere(fd, capacity, &base) : reserve_range(fd, address, capacity, &base);
    if (rc != 0)
        return rc;
    if (twin) {
        rc = reserve_anywhere(fd, capacity, &twin_base);
        if (rc != 0)
            goto release_base;
    }
    *map = (struct map){.base = base, .capacity = capacity, .twin = twin_base, .fd = fd, .kind = kind};
    rc = pthread_mutex_init(&map->mutex, NULL);
    if (rc != 0)
        goto release_twin;
    rc = map_both(map, 0, bytes, false);
    if (rc != 0)
        goto destroy_mutex;
    map->bytes = bytes;
    return 0;
destroy_mutex:
    (void)pthread_mutex_destroy(&map->mutex);
release_twin:
    if (twin_base != NULL)
        release_range(twin_base, capacity);
release_base:
    release_range(base, capacity);
    map->base = NULL;
    return rc;
}

static int extend(struct map *map, uint64_t bytes, bool fresh)
{
    int rc;
    (void)pthread_mutex_lock(&map->mutex);
    if (bytes <= map->bytes) {
        rc = 0; /* another thread was faster */
        goto unlock;
    }
    if (bytes > map->capacity || bytes % UNIT_BYTES != 0) {
        rc = error_set(ENOMEM, "%" PRIu64 " bytes do not fit the store's capacity of %" PRIu64, bytes, map->capacity);
        goto unlock;
    }
    rc = map_both(map, map->bytes, bytes, fresh);
    if (rc == 0)
        __atomic_store_n(&map->bytes, bytes, __ATOMIC_RELEASE);
unlock:
    (void)pthread_mutex_unlock(&map->mutex);
    return rc;
}

int map_extend(struct map *map, uint64_t bytes)
{
    return extend(map, bytes, false);
}

int map_extend_fresh(struct map *map, uint64_t bytes)
{
    return extend(map, bytes, map->kind == MAP_IMAGE_PRIVATE);
}

int map_settle(struct map *map, uint64_t to, bool *lost)
{
    int rc = 0;
    *lost = false;
    (void)pthread_mutex_lock(&map->mutex);
    to = min_u64(to, map->bytes);
    if (to > map->fresh_from) {
        uint64_t done;
        rc = map_some_pieces(map->fd, map->base, map->fresh_from, to, map_how[map->kind].protection,
                             map_how[map->kind].flags, &done);
        if (rc != 0) { /* is the memory of the piece that failed still there? */
            unsigned char resident;
            *lost = mincore(map->base + done, PAGE_BYTES, &resident) != 0 && errno == ENOMEM;
            if (*lost) /* let at least nothing else move in */
                unmap_pieces(map->base, done, min_u64(done + format_contiguous(done), to));
        }
        map->fresh_from = done;
    }
    (void)pthread_mutex_unlock(&map->mutex);
    return rc;
}

int map_empty_fresh(struct map *map)
{
    size_t bytes = (size_t)(map->bytes - map->fresh_from);
    void *start = map->base + map->fresh_from;
    /* EINVAL: the program locked its memory (mlockall). */
    if (bytes == 0 || madvise(start, bytes, MADV_DONTNEED) == 0 || madvise(start, bytes, MADV_DONTNEED_LOCKED) == 0)
        return 0;
    return errno;
}

void map_close(struct map *map)
{
    if (map->base == NULL)
        return;
    release_range(map->base, map->capacity);
    if (map->twin != NULL)
        release_range(map->twin, map->capacity);
    (void)pthread_mutex_destroy(&map->mutex);
    map->base = NULL;
    map->twin = NULL;
    map->bytes = 0;
}

int map_read(const struct map *map, uint64_t offset, void *buffer, size_t bytes)
{
    struct iovec to = {.iov_base = buffer, .iov_len = bytes};
    struct iovec from = {.iov_base = map->base + offset, .iov_len = bytes};
    ssize_t n = process_vm_readv(getpid(), &to, 1, &from, 1, 0);
    if (n == (ssize_t)bytes)
        return 0;
    if (n < 0 && (errno == ENOSYS || errno == EPERM)) { /* forbidden here: take the risk */
        memcpy(buffer, map->base + offset, bytes);
        return 0;
    }
    return EIO;
}
