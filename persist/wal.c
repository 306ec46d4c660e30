/*
 * wal.c -- append to the log.
 *
 * Building.  A record grows in a buffer behind room for its header, and behind records that wait for their sync.  The
 * common one fits and leaves in one write, header and payload together.  A bigger one leaves in pieces, header last:
 * until then the place where the header belongs holds zeros, and no reader takes it for a record.
 *
 *   step                                    a crash right after it leaves
 *   1 reserve disk blocks past the end      the last commit (unwritten blocks read as zeros, no record)
 *   2 write payload beyond the buffer       the last commit (no header)
 *   3 write header (and the rest)           process death: the new commit; power loss: old or new, by the checksums
 *   4 sync (wal_write.c, txn_sync)          the new commit
 * A record whose caller waits for the disk anyway skips 2 and 3 if it fits the buffer: step 4 writes it.
 * If step 3 fails half-way the place of the header is overwritten with zeros; if that fails too, and a header stands there,
 * nobody can say whether the record exists, and the log is given up: STEAD_FAILED.
 *
 * Invariants (docs/invariants.d/txn.md):
 *   W1  a record starts at a multiple of WAL_SECTOR, at the end of the one before
 *   W2  record.previous is the checksum of the record before it (of the header for the first), record.seq one more
 *   W3  record.durable_offset <= record.offset, and never decreases from record to record
 */
#include "persist/wal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/error.h"
#include "base/units.h"
#include "persist/file.h"
#include "persist/wal_internal.h"
#include "persist/xxh3.h"

int wal_open(struct wal *wal, const uint8_t id[16])
{
    *wal = (struct wal){.fd = -1};
    memcpy(wal->id, id, sizeof wal->id);
    int rc = wal_build_open(wal);
    return rc == 0 ? 0 : error_set(rc, "no memory to write a log");
}

void wal_close(struct wal *wal)
{
    wal_build_close(wal);
    if (wal->fd >= 0)
        file_calls.close(wal->fd);
    wal->fd = -1;
}

int wal_switch(struct wal *wal, int fd, const struct wal_position *at)
{
    uint64_t bytes;
    struct wal_header header;
    struct wal_build *build = wal->build;
    int rc = file_size(fd, &bytes), old_fd = -1;
    if (rc != 0) {
        file_calls.close(fd);
        return error_set(rc, "cannot read the length of the log: %s", error_text(rc));
    }
    pthread_mutex_lock(&build->io); /* a write of the former log may be under way: it is as good as done */
    if (wal->fd < 0) {
        wal->fd = fd;
    } else { /* the number stays: another thread may be about to sync it, which is as good with the new file */
        old_fd = build->direct_fd >= 0 ? build->direct_fd : fcntl(wal->fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
        build->direct_fd = -1;
        rc = dup3(fd, wal->fd, O_CLOEXEC) < 0 ? errno : 0;
        file_calls.close(fd);
    }
    build->direct_tried = build->direct_used = false;
    pthread_mutex_unlock(&build->io);
    if (rc == 0 && old_fd >= 0)
        wal_retire(build, old_fd);
    else if (old_fd >= 0)
        file_calls.close(old_fd);
    if (rc != 0)
        return error_set(rc, "cannot go on with a new log: %s", error_text(rc));
    wal->reserved_end = bytes;
    wal->zeroed_end = WAL_FIRST_RECORD;
    wal->began_bytes =
        file_read_at(wal->fd, &header, sizeof header, 0) == 0 && wal_header_valid(&header) && header.salt == at->salt
            ? header.used_bytes
            : 0;
    wal->straight_from = UINT64_MAX;
    wal->straight_pages = 0;
    wal->at.end = WAL_FIRST_RECORD; /* what lies there already was not written by us */
    wal_seek(wal, at);
    return 0;
}

void wal_take_retired(struct wal *wal, int fd)
{
    wal_retire(wal->build, fd);
}

bool wal_free_retired(struct wal *wal)
{
    return wal_retire_end(wal->build);
}

void wal_seek(struct wal *wal, const struct wal_position *at)
{
    if (at->end != wal->at.end) /* another process wrote, perhaps new pages, which all lie past this */
        wal->straight_from = min_u64(wal->straight_from, wal->began_bytes);
    wal->at = *at;
    wal->reserved_end = max_u64(wal->reserved_end, at->end); /* another process did that, and filled it */
    wal_begin(wal);
}

/* Where the record in hand begins in the buffer, as long as no part of it was sent. */
static uint64_t record_start(const struct wal *wal)
{
    return wal->at.end - wal->build->base;
}

void wal_begin(struct wal *wal)
{
    struct wal_build *build = wal->build;
    if (build->end != wal->at.end || build->sent != 0) { /* what stands before it is not in the buffer */
        build->base = round_down(wal->at.end, WAL_BLOCK);
        build->valid = build->written = build->end = wal->at.end;
    } else {
        build->filled = record_start(wal);
        wal_rebase(wal);
    }
    memset(build->buffer[build->active] + record_start(wal), 0, sizeof(struct wal_record));
    build->filled = record_start(wal) + sizeof(struct wal_record);
    build->sent = 0;
    build->runs = 0;
}

bool wal_is_empty(const struct wal *wal)
{
    return wal->build->runs == 0;
}

static int write_failed(int cause)
{
    return error_set(cause, "cannot write the log: %s", error_text(cause));
}

/* The buffer is full: the record's bytes go to the log, without a header in front. */
static int send(struct wal *wal)
{
    struct wal_build *build = wal->build;
    uint64_t from = build->sent == 0 ? record_start(wal) : 0;
    uint64_t skip = build->sent == 0 ? sizeof(struct wal_record) : 0;
    const uint8_t *bytes = build->buffer[build->active] + from;
    uint64_t count = build->filled - from;
    if (skip != 0)
        XXH3_128bits_reset(build->hash);
    XXH3_128bits_update(build->hash, bytes + skip, count - skip);
    uint64_t at = wal->at.end + build->sent;
    int rc = wal_reserve_to(wal, at + count);
    if (rc == 0 && (rc = wal_write_cached(wal, bytes, count, at)) != 0)
        write_failed(rc);
    if (rc != 0)
        return rc;
    build->sent += count;
    build->filled = 0;
    return 0;
}

/* For `more` bytes of the record in hand. */
static int make_room(struct wal *wal, uint64_t more)
{
    struct wal_build *build = wal->build;
    if (build->filled + more <= WAL_BUILD_BYTES)
        return 0;
    if (build->sent == 0) { /* records that wait leave first, to stay in order and to make room */
        int rc = wal_flush_before(wal);
        if (rc != 0)
            return write_failed(rc);
        wal_rebase(wal);
    }
    return build->filled + more <= WAL_BUILD_BYTES ? 0 : send(wal);
}

static int add(struct wal *wal, uint64_t word, const void *bytes, unsigned count)
{
    struct wal_build *build = wal->build;
    int rc = make_room(wal, 8 + (uint64_t)count);
    if (rc != 0)
        return rc;
    uint8_t *to = build->buffer[build->active] + build->filled;
    memcpy(to, &word, sizeof word);
    if (count != 0)
        memcpy(to + 8, bytes, count);
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
    wal->straight_from = min_u64(wal->straight_from, image_offset);
    wal->straight_pages++;
    return add(wal, image_offset / 8 << 16 | WAL_STRAIGHT, &checksum, sizeof checksum);
}

/* The record could not be written: nothing may stand in its header's place that could be one. */
static int unwrite(struct wal *wal, uint64_t offset, int cause)
{
    static const uint8_t zeros[WAL_SECTOR];
    struct wal_record there;
    if (wal_write_cached(wal, zeros, sizeof zeros, offset) == 0)
        return write_failed(cause);
    /* Where overwriting allocates, a full disk refuses the zeros, too.  What the kernel shows is what it will write. */
    if ((cause == ENOSPC || cause == EDQUOT) && file_read_at(wal->fd, &there, sizeof there, offset) == 0 &&
        !wal_record_valid(&there, wal->id, wal->at.salt, offset))
        return write_failed(cause);
    return error_set(STEAD_FAILED, "the log could not be written (%s) nor cut off", error_text(cause));
}

/* Header, what is left of the payload, padding: into the log.  Records that waited went before. */
static int finish_sent(struct wal *wal, struct wal_record *record, uint64_t total)
{
    struct wal_build *build = wal->build;
    int rc = make_room(wal, WAL_SECTOR);
    if (rc != 0)
        return rc;
    uint8_t *buffer = build->buffer[build->active];
    XXH3_128bits_update(build->hash, buffer, build->filled);
    XXH128_canonicalFromHash((XXH128_canonical_t *)(void *)record->payload_checksum, XXH3_128bits_digest(build->hash));
    wal_seal_record(record);
    uint64_t left = total - build->sent;
    memset(buffer + build->filled, 0, left - build->filled);
    rc = left != 0 ? wal_write_cached(wal, buffer, left, wal->at.end + build->sent) : 0;
    if (rc == 0)
        rc = wal_write_cached(wal, record, sizeof *record, wal->at.end);
    return rc != 0 ? unwrite(wal, wal->at.end, rc) : 0;
}

/* All of it is in the buffer, and stays there. */
static void finish_waiting(struct wal *wal, struct wal_record *record, uint64_t total)
{
    struct wal_build *build = wal->build;
    uint8_t *to = build->buffer[build->active] + record_start(wal);
    XXH128_canonicalFromHash((XXH128_canonical_t *)(void *)record->payload_checksum,
                             XXH3_128bits(to + sizeof *record, record->payload_bytes));
    wal_seal_record(record);
    memcpy(to, record, sizeof *record);
    memset(to + sizeof *record + record->payload_bytes, 0, total - sizeof *record - record->payload_bytes);
    build->filled = record_start(wal) + total;
}

static int finish(struct wal *wal, uint64_t used_bytes, uint64_t durable_offset, bool deferred)
{
    struct wal_build *build = wal->build;
    uint64_t from = build->sent == 0 ? record_start(wal) : 0;
    uint64_t payload = build->sent + build->filled - from - sizeof(struct wal_record);
    uint64_t total = wal_record_bytes(payload);
    struct wal_record record = {.salt = wal->at.salt,
                                .seq = wal->at.next_seq,
                                .offset = wal->at.end,
                                .payload_bytes = payload,
                                .used_bytes = used_bytes,
                                .durable_offset = min_u64(durable_offset, wal->at.end),
                                .runs = build->runs};
    memcpy(record.id, wal->id, sizeof record.id);
    memcpy(record.previous, wal->at.chain, sizeof record.previous);
    int rc = wal_reserve_to(wal, wal->at.end + total);
    if (rc != 0)
        return rc;
    wal_zero_ahead(wal, wal->at.end + total, deferred);
    bool sent = build->sent != 0;
    if (sent)
        rc = finish_sent(wal, &record, total);
    else
        finish_waiting(wal, &record, total);
    if (rc != 0)
        return rc;
    memcpy(wal->at.chain, record.checksum, sizeof record.checksum);
    wal->at.end += total;
    wal->at.next_seq++;
    if (!sent) /* else the buffer knows nothing of what is before the end: wal_begin() */
        build->end = wal->at.end;
    wal_retire_some(build);
    return 0;
}

int wal_finish_deferred(struct wal *wal, uint64_t used_bytes, uint64_t durable_offset)
{
    return finish(wal, used_bytes, durable_offset, true);
}

int wal_finish(struct wal *wal, uint64_t used_bytes, uint64_t durable_offset)
{
    struct wal_position before = wal->at;
    int rc = finish(wal, used_bytes, durable_offset, false);
    if (rc == 0 && (rc = wal_flush(wal)) != 0) {
        wal->at = before;
        wal->build->end = before.end;
        rc = unwrite(wal, before.end, rc);
    }
    return rc;
}
