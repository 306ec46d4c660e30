/*
 * wal.c -- append to the log.
 *
 * Building.  A record grows in a buffer behind room for its header.  The common one fits and leaves in one write, header
 * and payload together.  A bigger one leaves in pieces, header last: until then the place where the header belongs
 * holds zeros or an older salt's bytes, and no reader takes it for a record.
 *
 *   step                                    a crash right after it leaves
 *   1 reserve disk blocks past the end      the last commit (unwritten blocks read as zeros, no record)
 *   2 write payload beyond the buffer       the last commit (no header)
 *   3 write header (and the rest)           process death: the new commit; power loss: old or new, by the checksums
 *   4 sync (commit.c, txn_sync)             the new commit
 * If step 3 fails half-way the place of the header is overwritten with zeros; if that fails too nobody can say whether
 * the record exists, and the log is given up: STEAD_FAILED.
 *
 * Space.  Blocks come from fallocate in growing pieces, before the record that needs them.  A block written for the first
 * time costs its sync a change of the file's metadata; writing zeros ahead of the end (again in growing pieces) takes that
 * out of the commits' syncs.
 *
 * Invariants (docs/invariants.d/txn.md):
 *   W1  a record starts at a multiple of WAL_SECTOR, at the end of the one before
 *   W2  record.previous is the checksum of the record before it (of the header for the first), record.seq one more
 *   W3  record.durable_offset <= record.offset, and never decreases from record to record
 */
#include "persist/wal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/check.h"
#include "base/error.h"
#include "base/units.h"
#include "persist/file.h"

#define BUILD_BYTES (UINT64_C(1) << 20)
#define GUARD_BYTES UNIT_BYTES /* PROT_NONE around the buffer: a stray write must not reach the log */
#define RESERVE_STEP_MAX_BYTES (UINT64_C(8) << 20)
#define ZERO_STEP_MAX_BYTES (UINT64_C(4) << 20)

struct wal_build {
    uint8_t *buffer; /* BUILD_BYTES, page aligned                                         */
    uint64_t filled; /* bytes in it                                                       */
    uint64_t sent;   /* bytes of this record already in the log, before buffer[0]         */
    uint64_t runs;
    XXH3_state_t *hash; /* of the payload sent so far, when sent != 0                        */
};

static int build_open(struct wal *wal)
{
    struct wal_build *build = calloc(1, sizeof *build);
    if (build == NULL)
        return ENOMEM;
    build->hash = XXH3_createState();
    uint8_t *range = mmap(NULL, BUILD_BYTES + 2 * GUARD_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (range != MAP_FAILED && mprotect(range + GUARD_BYTES, BUILD_BYTES, PROT_READ | PROT_WRITE) == 0)
        build->buffer = range + GUARD_BYTES;
    else if (range != MAP_FAILED)
        munmap(range, BUILD_BYTES + 2 * GUARD_BYTES);
    if (build->hash == NULL || build->buffer == NULL) {
        if (build->buffer != NULL)
            munmap(build->buffer - GUARD_BYTES, BUILD_BYTES + 2 * GUARD_BYTES);
        XXH3_freeState(build->hash);
        free(build);
        return ENOMEM;
    }
    wal->build = build;
    wal_begin(wal);
    return 0;
}

int wal_open(struct wal *wal, const uint8_t id[16])
{
    *wal = (struct wal){.fd = -1};
    memcpy(wal->id, id, sizeof wal->id);
    int rc = build_open(wal);
    return rc == 0 ? 0 : error_set(rc, "no memory to write a log");
}

void wal_close(struct wal *wal)
{
    if (wal->build != NULL) {
        munmap(wal->build->buffer - GUARD_BYTES, BUILD_BYTES + 2 * GUARD_BYTES);
        XXH3_freeState(wal->build->hash);
        free(wal->build);
        wal->build = NULL;
    }
    if (wal->fd >= 0)
        file_calls.close(wal->fd);
    wal->fd = -1;
}

int wal_switch(struct wal *wal, int fd, const struct wal_position *at)
{
    uint64_t bytes;
    int rc = file_size(fd, &bytes);
    if (rc != 0) {
        file_calls.close(fd);
        return error_set(rc, "cannot read the length of the log: %s", error_text(rc));
    }
    if (wal->fd < 0) {
        wal->fd = fd;
    } else { /* the number stays: another thread may be about to sync it, which is as good with the new file */
        rc = dup3(fd, wal->fd, O_CLOEXEC) < 0 ? errno : 0;
        file_calls.close(fd);
        if (rc != 0)
            return error_set(rc, "cannot go on with a new log: %s", error_text(rc));
    }
    wal->at = *at;
    wal->reserved_end = bytes;
    wal->zeroed_end = WAL_FIRST_RECORD;
    wal_begin(wal);
    return 0;
}

static int reserve_to(struct wal *wal, uint64_t end)
{
    if (end > wal->reserved_end) {
        uint64_t step = min_u64(max_u64(wal->reserved_end, WAL_RESERVE_FIRST_BYTES), RESERVE_STEP_MAX_BYTES);
        uint64_t want = round_up(max_u64(end, wal->reserved_end + step), WAL_BLOCK);
        int rc = file_reserve_fresh(wal->fd, wal->reserved_end, want - wal->reserved_end);
        if (rc == ENOSPC && end < want) { /* no room for the slack: what is needed, then */
            want = round_up(end, WAL_BLOCK);
            rc = file_reserve_fresh(wal->fd, wal->reserved_end, want - wal->reserved_end);
        }
        if (rc != 0)
            return error_set(rc, "no space for %llu more bytes of log: %s",
                             (unsigned long long)(end - wal->reserved_end), error_text(rc));
        wal->reserved_end = want;
    }
    return 0;
}

/* Zeros from the end of the record in hand on; a failure is no failure of the commit: a later write finds out. */
static void zero_ahead(struct wal *wal, uint64_t end)
{
    static const uint8_t zeros[65536];
    if (end <= wal->zeroed_end)
        return;
    uint64_t from = max_u64(wal->zeroed_end, round_up(end, WAL_BLOCK));
    uint64_t step = min_u64(max_u64(from, sizeof zeros), ZERO_STEP_MAX_BYTES);
    uint64_t to = min_u64(round_down(from + step, WAL_BLOCK), wal->reserved_end);
    while (from < to) {
        uint64_t piece = min_u64(sizeof zeros, to - from);
        if (file_write_at(wal->fd, zeros, piece, from) != 0)
            break;
        from += piece;
    }
    wal->zeroed_end = from;
}

int wal_reserve(struct wal *wal, uint64_t bytes)
{
    return reserve_to(wal, wal->at.end + bytes);
}

void wal_begin(struct wal *wal)
{
    struct wal_build *build = wal->build;
    memset(build->buffer, 0, sizeof(struct wal_record));
    build->filled = sizeof(struct wal_record);
    build->sent = 0;
    build->runs = 0;
}

bool wal_is_empty(const struct wal *wal)
{
    return wal->build->runs == 0;
}

/* The buffer is full: its bytes go to the log, without a header in front. */
static int send(struct wal *wal)
{
    struct wal_build *build = wal->build;
    uint64_t skip = build->sent == 0 ? sizeof(struct wal_record) : 0;
    if (skip != 0)
        XXH3_128bits_reset(build->hash);
    XXH3_128bits_update(build->hash, build->buffer + skip, build->filled - skip);
    uint64_t at = wal->at.end + build->sent;
    int rc = reserve_to(wal, at + build->filled);
    if (rc == 0 && (rc = file_write_at(wal->fd, build->buffer, build->filled, at)) != 0)
        error_set(rc, "cannot write the log: %s", error_text(rc));
    if (rc != 0)
        return rc;
    build->sent += build->filled;
    build->filled = 0;
    return 0;
}

static int add(struct wal *wal, uint64_t word, const void *bytes, unsigned count)
{
    struct wal_build *build = wal->build;
    if (build->filled + 8 + count > BUILD_BYTES) {
        int rc = send(wal);
        if (rc != 0)
            return rc;
    }
    memcpy(build->buffer + build->filled, &word, sizeof word);
    if (count != 0)
        memcpy(build->buffer + build->filled + 8, bytes, count);
    build->filled += 8 + count;
    build->runs++;
    return 0;
}

int wal_add_run(struct wal *wal, uint64_t image_offset, const void *bytes, unsigned count)
{
    CHECK_CHEAP(image_offset % 8 == 0 && count % 8 == 0 && image_offset % PAGE_BYTES + count <= PAGE_BYTES);
    return add(wal, image_offset / 8 << 16 | count / 8, bytes, count);
}

int wal_add_zeroed(struct wal *wal, uint64_t image_offset)
{
    return add(wal, image_offset / 8 << 16, NULL, 0);
}

int wal_add_straight(struct wal *wal, uint64_t image_offset, uint64_t checksum)
{
    return add(wal, image_offset / 8 << 16 | WAL_STRAIGHT, &checksum, sizeof checksum);
}

/* The header could not be written: nothing may stand in its place that could be one. */
static int unwrite(struct wal *wal, int cause)
{
    static const uint8_t zeros[WAL_SECTOR];
    if (file_write_at(wal->fd, zeros, sizeof zeros, wal->at.end) == 0)
        return error_set(cause, "cannot write the log: %s", error_text(cause));
    return error_set(STEAD_FAILED, "the log could not be written (%s) nor cut off", error_text(cause));
}

int wal_finish(struct wal *wal, uint64_t used_bytes, uint64_t durable_offset)
{
    struct wal_build *build = wal->build;
    uint64_t payload = build->sent + build->filled - sizeof(struct wal_record);
    uint64_t total = wal_record_bytes(payload);
    struct wal_record record = {.salt = wal->at.salt,
                                .seq = wal->at.next_seq,
                                .offset = wal->at.end,
                                .payload_bytes = payload,
                                .used_bytes = used_bytes,
                                .durable_offset = min_u64(durable_offset, wal->at.end),
                                .runs = build->runs};
    int rc = reserve_to(wal, wal->at.end + total);
    if (rc != 0)
        return rc;
    zero_ahead(wal, wal->at.end + total);
    XXH128_hash_t hash;
    if (build->sent != 0) {
        if (build->filled + WAL_SECTOR > BUILD_BYTES && (rc = send(wal)) != 0)
            return rc;
        XXH3_128bits_update(build->hash, build->buffer, build->filled);
        hash = XXH3_128bits_digest(build->hash);
    } else {
        if (total > BUILD_BYTES) { /* only the padding does not fit */
            rc = send(wal);
            if (rc != 0)
                return rc;
            hash = XXH3_128bits_digest(build->hash);
        } else {
            hash = XXH3_128bits(build->buffer + sizeof record, payload);
        }
    }
    XXH128_canonicalFromHash((XXH128_canonical_t *)(void *)record.payload_checksum, hash);
    memcpy(record.id, wal->id, sizeof record.id);
    memcpy(record.previous, wal->at.chain, sizeof record.previous);
    wal_seal_record(&record);
    uint64_t left = total - build->sent;
    memset(build->buffer + build->filled, 0, left - build->filled);
    if (build->sent == 0)
        memcpy(build->buffer, &record, sizeof record);
    rc = left != 0 ? file_write_at(wal->fd, build->buffer, left, wal->at.end + build->sent) : 0;
    if (rc == 0 && build->sent != 0)
        rc = file_write_at(wal->fd, &record, sizeof record, wal->at.end);
    if (rc != 0)
        return unwrite(wal, rc);
    memcpy(wal->at.chain, record.checksum, sizeof record.checksum);
    wal->at.end += total;
    wal->at.next_seq++;
    return 0;
}
