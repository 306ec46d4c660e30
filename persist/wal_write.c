/*
 * wal_write.c -- the log's bytes reach the kernel, or the disk.
 *
 * Two ways, and when.  A BUFFERED commit goes through the page cache: it must survive this process, and nothing else.  A
 * commit that its caller waits for anyway (wal_finish_deferred) stays in memory until somebody syncs, and then leaves
 * together with all that wait, past the page cache, by one O_DIRECT | O_DSYNC write of whole blocks: one request to the
 * disk instead of a copy, a writeback and a sync (measured: 45 against 65-75 us).  Dying before that loses what nobody
 * was told of.
 *
 *   wal_take()      engine held: bytes [written, at.end), whole blocks around them, are handed out, and the log goes on in
 *                   the other buffer, which begins with a copy of the last block
 *   wal_complete()  engine free: written and durable.  Commits meanwhile append to the other buffer; those that must reach
 *                   the kernel wait for `io`
 *
 * Mixing both on one file.
 *   - If anything went through the cache and was not synced since, a direct write would be durable before what precedes it:
 *     then what waits goes through the cache, too, and fdatasync makes all of it durable.
 *   - A direct write drops the cached pages that it covers, and a cached write beside it in the same block could be dropped
 *     unwritten: `io` keeps them apart.
 *   - When a direct write fails the records behind it have none before them: they are refused from that moment on, under
 *     `io`, for whoever waited for it would come before the one who poisons the store.
 *   - After a direct write the cache does not have the block; a cached write of a part of it would read it from the
 *     disk.  So from then on cached writes are whole blocks.
 *   - The first block of a write holds older records, and the last one zeros behind the newest.  Sectors of older records
 *     are written again with the same bytes: whichever version a torn write leaves, they are what they were.
 * Where O_DIRECT is not to be had (some file systems, alignments above WAL_BLOCK) everything goes through the cache.
 *
 * Space.  Blocks come from fallocate in growing pieces, before the record that needs them.  A block written for the first
 * time costs its sync a change of the file's metadata; writing zeros ahead of the end, in pieces, takes that out of the
 * commits' syncs.  Those zeros go the way that the next record goes.  Through the page cache they go in small pieces: the
 * kernel keeps what one write brings in one large folio, and each later write of a record into it looks at the state of all
 * of the folio's blocks (256 of them in 1 MiB took a tenth of a commit of one record).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/error.h"
#include "persist/file.h"
#include "persist/wal_internal.h"

#define GUARD_BYTES UNIT_BYTES /* PROT_NONE around the buffers: a stray write must not reach the log */
#define RESERVE_STEP_MAX_BYTES (UINT64_C(8) << 20)
#define ZERO_STEP_FIRST_BYTES UNIT_BYTES
#define ZERO_STEP_BYTES (UINT64_C(1) << 20)
#define ZERO_PIECE_BYTES UNIT_BYTES /* through the page cache, see "Space" */
#define BUFFER_BYTES (WAL_BUILD_BYTES + UNIT_BYTES)

#ifdef STEAD_PLANT_NO_LOG_SYNC
#define SYNC_LOG(fd) ((void)(fd), 0)
#else
#define SYNC_LOG(fd) file_sync(fd)
#endif

/* guard | buffer 0 | guard | buffer 1 | guard | zeros */
#define RANGE_BYTES (2 * (GUARD_BYTES + BUFFER_BYTES) + GUARD_BYTES + ZERO_STEP_BYTES)

static uint8_t *range_of(const struct wal_build *build)
{
    return build->buffer[0] - GUARD_BYTES;
}

static bool map_buffers(struct wal_build *build)
{
    uint8_t *range = mmap(NULL, RANGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (range == MAP_FAILED)
        return false;
    build->buffer[0] = range + GUARD_BYTES;
    build->buffer[1] = build->buffer[0] + BUFFER_BYTES + GUARD_BYTES;
    build->zeros = build->buffer[1] + BUFFER_BYTES + GUARD_BYTES;
    if (mprotect(build->buffer[0], BUFFER_BYTES, PROT_READ | PROT_WRITE) == 0 &&
        mprotect(build->buffer[1], BUFFER_BYTES, PROT_READ | PROT_WRITE) == 0 &&
        mprotect(build->buffer[1] + BUFFER_BYTES + GUARD_BYTES, ZERO_STEP_BYTES, PROT_READ) == 0)
        return true;
    munmap(range, RANGE_BYTES);
    return false;
}

int wal_build_open(struct wal *wal)
{
    struct wal_build *build = calloc(1, sizeof *build);
    if (build == NULL)
        return ENOMEM;
    build->direct_fd = -1;
    build->hash = XXH3_createState();
    if (build->hash == NULL || pthread_mutex_init(&build->io, NULL) != 0)
        goto free_build;
    if (!map_buffers(build))
        goto destroy_mutex;
    wal->build = build;
    return 0;
destroy_mutex:
    pthread_mutex_destroy(&build->io);
free_build:
    XXH3_freeState(build->hash);
    free(build);
    return ENOMEM;
}

void wal_build_close(struct wal *wal)
{
    struct wal_build *build = wal->build;
    if (build == NULL)
        return;
    if (build->direct_fd >= 0)
        file_calls.close(build->direct_fd);
    (void)wal_retire_end(build);
    munmap(range_of(build), RANGE_BYTES);
    pthread_mutex_destroy(&build->io);
    XXH3_freeState(build->hash);
    free(build);
    wal->build = NULL;
}

/* ---- space ---- */

static bool is_no_room(int rc)
{
    return rc == ENOSPC || rc == EDQUOT;
}

int wal_reserve_to(struct wal *wal, uint64_t end)
{
    if (end <= wal->reserved_end)
        return 0;
    uint64_t step = min_u64(max_u64(wal->reserved_end, WAL_RESERVE_FIRST_BYTES), RESERVE_STEP_MAX_BYTES);
    uint64_t want = round_up(max_u64(end, wal->reserved_end + step), WAL_BLOCK);
    int rc = file_reserve_fresh(wal->fd, wal->reserved_end, want - wal->reserved_end);
    if (is_no_room(rc) && wal_retire_end(wal->build))
        rc = file_reserve_fresh(wal->fd, wal->reserved_end, want - wal->reserved_end);
    if ((is_no_room(rc) || rc == EFBIG) && end < want) { /* no room for the slack: what is needed, then */
        want = round_up(end, WAL_BLOCK);
        rc = file_reserve_fresh(wal->fd, wal->reserved_end, want - wal->reserved_end);
    }
    if (rc != 0)
        return error_set(rc, "no space for %llu more bytes of log: %s", (unsigned long long)(end - wal->reserved_end),
                         error_text(rc));
    wal->reserved_end = want;
    return 0;
}

/* The descriptor of direct writes, opened when one is wanted for the first time. */
static int direct_fd(struct wal *wal)
{
    struct wal_build *build = wal->build;
    char path[32];
    if (!build->direct_tried) {
        build->direct_tried = true;
        (void)snprintf(path, sizeof path, "/proc/self/fd/%d", wal->fd);
        int fd;
        if (file_open_path(&fd, path, O_RDWR | O_DIRECT | O_DSYNC, 0) == 0)
            build->direct_fd = fd;
    }
    return build->direct_fd;
}

static void give_up_direct(struct wal_build *build)
{
    if (build->direct_fd >= 0)
        file_calls.close(build->direct_fd);
    build->direct_fd = -1;
    build->direct_tried = true;
}

void wal_zero_ahead(struct wal *wal, uint64_t end, bool direct)
{
    struct wal_build *build = wal->build;
    if (end <= wal->zeroed_end)
        return;
    direct = direct && build->cached == build->synced && direct_fd(wal) >= 0;
    uint64_t from = max_u64(wal->zeroed_end, round_up(end, WAL_BLOCK));
    uint64_t step = min_u64(max_u64(from, ZERO_STEP_FIRST_BYTES), ZERO_STEP_BYTES);
    uint64_t to = min_u64(round_down(from + step, WAL_BLOCK), wal->reserved_end);
    if (from >= to)
        return;
    int rc = 0;
    uint64_t piece = direct ? to - from : ZERO_PIECE_BYTES;
    pthread_mutex_lock(&build->io);
    for (uint64_t at = from; at < to && rc == 0; at += piece)
        rc = file_write_at(direct ? build->direct_fd : wal->fd, build->zeros, min_u64(piece, to - at), at);
    pthread_mutex_unlock(&build->io);
    build->cached += !direct;
    build->direct_used = build->direct_used || direct;
    wal->zeroed_end = rc == 0 ? to : from;
}

/* ---- through the page cache ---- */

int wal_write_cached(struct wal *wal, const void *bytes, uint64_t count, uint64_t offset)
{
    struct wal_build *build = wal->build;
    pthread_mutex_lock(&build->io);
    int rc = build->lost != 0 ? build->lost : file_write_at(wal->fd, bytes, count, offset);
    pthread_mutex_unlock(&build->io);
    build->cached++; /* also if it failed: some of it may be there */
    return rc;
}

void wal_rebase(struct wal *wal)
{
    struct wal_build *build = wal->build;
    uint8_t *buffer = build->buffer[build->active];
    uint64_t base = round_down(build->written, WAL_BLOCK);
    if (base <= build->base)
        return;
    uint64_t shift = base - build->base;
    memmove(buffer, buffer + shift, build->filled - shift);
    build->filled -= shift;
    build->base = base;
    build->valid = max_u64(build->valid, base);
}

/* Whole blocks can be written from round_down(written) on. */
static bool know_first_block(struct wal *wal)
{
    struct wal_build *build = wal->build;
    uint64_t from = round_down(build->written, WAL_BLOCK);
    if (build->valid <= from)
        return true;
    if (file_read_at(wal->fd, build->buffer[build->active] + (from - build->base), build->valid - from, from) != 0)
        return false;
    build->valid = from;
    return true;
}

/* Zeros behind the newest record; returns where its block ends. */
static uint64_t pad_block(struct wal *wal)
{
    struct wal_build *build = wal->build;
    uint64_t to = round_up(wal->at.end, WAL_BLOCK);
    memset(build->buffer[build->active] + (wal->at.end - build->base), 0, to - wal->at.end);
    return to;
}

/* whole: nothing stands behind the newest record in the buffer, so that its block can be filled up. */
static int flush(struct wal *wal, bool whole)
{
    struct wal_build *build = wal->build;
    uint64_t from = build->written, to = wal->at.end;
    if (build->end != to || from == to)
        return 0;
    if (build->direct_used && whole && know_first_block(wal)) {
        from = round_down(from, WAL_BLOCK);
        to = pad_block(wal);
    }
    int rc = wal_write_cached(wal, build->buffer[build->active] + (from - build->base), to - from, from);
    if (rc == 0)
        build->written = wal->at.end;
    return rc;
}

int wal_flush(struct wal *wal)
{
    return flush(wal, true);
}

int wal_flush_before(struct wal *wal)
{
    return flush(wal, false);
}

/* ---- to the disk ---- */

int wal_take(struct wal *wal, struct wal_job *job)
{
    struct wal_build *build = wal->build;
    bool waiting = build->end == wal->at.end && build->written < wal->at.end;
    *job = (struct wal_job){0};
    if (waiting && build->cached == build->synced && direct_fd(wal) >= 0 && know_first_block(wal)) {
        uint8_t *buffer = build->buffer[build->active];
        uint64_t next_base = round_down(wal->at.end, WAL_BLOCK);
        job->offset = round_down(build->written, WAL_BLOCK);
        job->bytes = buffer + (job->offset - build->base);
        job->count = pad_block(wal) - job->offset;
        pthread_mutex_lock(&build->io); /* until wal_complete(); whoever had it has finished with the other buffer */
        build->active ^= 1;
        memcpy(build->buffer[build->active], buffer + (next_base - build->base), wal->at.end - next_base);
        build->base = build->valid = next_base;
        build->filled = wal->at.end - next_base;
        build->written = wal->at.end;
        build->direct_used = true;
        return 0;
    }
    int rc = waiting ? wal_flush(wal) : 0;
    job->cached = build->cached;
    return rc;
}

int wal_complete(struct wal *wal, const struct wal_job *job)
{
    struct wal_build *build = wal->build;
    int rc;
    if (job->bytes == NULL) {
        rc = SYNC_LOG(wal->fd);
        if (rc == 0)
            build->synced = job->cached;
        return rc;
    }
#ifdef STEAD_PLANT_NO_LOG_SYNC
    rc = file_write_at(wal->fd, job->bytes, job->count, job->offset);
#else
    rc = file_write_at(build->direct_fd, job->bytes, job->count, job->offset);
#endif
    if (rc == EINVAL || rc == EOPNOTSUPP) { /* not here, or not with this alignment */
        give_up_direct(build);
        rc = file_write_at(wal->fd, job->bytes, job->count, job->offset);
        if (rc == 0)
            rc = file_sync(wal->fd);
    }
    build->lost = rc;
    pthread_mutex_unlock(&build->io);
    return rc;
}
