/*
 * wal_scan.c -- read a log back: its valid prefix, and whether what ends it is a torn tail or damage.
 *
 * Nothing in the file is believed before its checksum said so, and nothing afterwards that does not also make sense
 * (a file is data from outside, and checksums can be computed by anybody): offsets, lengths, counts and the order of
 * sequence numbers are checked, and memory is bounded by one buffer whatever a length field says.
 *
 * The end.  A disk may write the sectors of an unsynced tail in any order or not at all, so a bad record is where the
 * tail ends, and records after it mean nothing - unless one of them says that the log was durable beyond the bad
 * one when it was written.  Then bytes that were safe have been lost: STEAD_CORRUPT.  Records start at multiples of
 * WAL_SECTOR and name their own offset, so the search looks at each sector once.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/error.h"
#include "base/units.h"
#include "persist/file.h"
#include "persist/wal.h"
#include "persist/xxh3.h"

#define SCAN_BYTES (UINT64_C(1) << 20)
#define KEPT_ALIGNMENT (UINT64_C(2) << 20) /* a huge page, where the kernel has one */

static int scan_prepare(struct wal_scan *scan, int fd, uint64_t capacity_bytes)
{
    *scan = (struct wal_scan){.fd = fd, .capacity_bytes = capacity_bytes};
    int rc = file_size(fd, &scan->file_bytes);
    if (rc != 0)
        return error_set(rc, "cannot read the length of the log: %s", error_text(rc));
    scan->buffer = malloc(SCAN_BYTES);
    return scan->buffer != NULL ? 0 : error_set(ENOMEM, "no memory to read the log");
}

int wal_scan_open(struct wal_scan *scan, int fd, const uint8_t id[16], uint64_t salt, uint64_t checkpoint,
                  uint64_t capacity_bytes)
{
    int rc = scan_prepare(scan, fd, capacity_bytes);
    if (rc != 0)
        return rc;
    char name[FILE_PATH_BYTES];
    rc = STEAD_LOG_MISSING;
    if (scan->file_bytes >= WAL_FIRST_RECORD)
        rc = file_read_at(fd, &scan->header, sizeof scan->header, 0);
    if (rc == 0 && (!wal_header_valid(&scan->header) || memcmp(scan->header.id, id, 16) != 0 ||
                    scan->header.salt != salt || scan->header.checkpoint != checkpoint))
        rc = STEAD_LOG_MISSING;
    if (rc != 0) {
        wal_scan_close(scan);
        return rc == STEAD_LOG_MISSING
                   ? error_set(rc, "%s is not the log that the store was left with", file_name(fd, name))
                   : error_set(rc, "cannot read the log %s: %s", file_name(fd, name), error_text(rc));
    }
    scan->at = (struct wal_position){
        .salt = salt, .checkpoint = checkpoint, .end = WAL_FIRST_RECORD, .next_seq = scan->header.first_seq};
    memcpy(scan->at.chain, scan->header.checksum, WAL_CHECKSUM_BYTES);
    return 0;
}

int wal_scan_resume(struct wal_scan *scan, int fd, const uint8_t id[16], const struct wal_position *at,
                    uint64_t capacity_bytes)
{
    int rc = scan_prepare(scan, fd, capacity_bytes);
    if (rc != 0)
        return rc;
    memcpy(scan->header.id, id, sizeof scan->header.id);
    scan->header.salt = at->salt;
    scan->header.checkpoint = at->checkpoint;
    scan->at = *at;
    return 0;
}

void wal_scan_close(struct wal_scan *scan)
{
    free(scan->buffer);
    scan->buffer = NULL;
}

bool wal_scan_keep(struct wal_scan *scan, uint64_t bytes_max)
{
    uint64_t bytes = round_up(scan->file_bytes, KEPT_ALIGNMENT);
    if (scan->file_bytes > bytes_max)
        return false;
    uint8_t *buffer = aligned_alloc(KEPT_ALIGNMENT, bytes);
    if (buffer == NULL)
        return false;
    (void)madvise(buffer, bytes, MADV_HUGEPAGE);
    /* What pads the last record, should the file end before that. */
    memset(buffer + scan->file_bytes, 0, min_u64(bytes - scan->file_bytes, WAL_SECTOR));
    free(scan->buffer);
    scan->buffer = buffer;
    scan->buffer_offset = scan->buffer_bytes = 0;
    scan->keeps = true;
    return true;
}

/* window() of a log that is kept: read on to the end of what is asked for. */
static int window_kept(struct wal_scan *scan, uint64_t offset, uint64_t need, const uint8_t **at, uint64_t *bytes)
{
    uint64_t have = scan->buffer_bytes, to = min_u64(offset + need, scan->file_bytes);
    if (to > have) {
        uint64_t fill = min_u64(max_u64(to - have, SCAN_BYTES), scan->file_bytes - have);
        int rc = file_read_at(scan->fd, scan->buffer + have, fill, have);
        if (rc != 0)
            return error_set(rc, "cannot read the log at byte %llu: %s", (unsigned long long)have, error_text(rc));
        scan->buffer_bytes += fill;
    }
    *at = scan->buffer + offset;
    *bytes = scan->buffer_bytes - offset;
    return 0;
}

/* At least min(need, what the file has) bytes from offset in the buffer; *bytes says how many there are. */
static int window(struct wal_scan *scan, uint64_t offset, uint64_t need, const uint8_t **at, uint64_t *bytes)
{
    if (offset >= scan->file_bytes) {
        *bytes = 0;
        *at = scan->buffer;
        return 0;
    }
    if (scan->keeps)
        return window_kept(scan, offset, need, at, bytes);
    if (offset < scan->buffer_offset || offset + need > scan->buffer_offset + scan->buffer_bytes) {
        uint64_t fill = min_u64(SCAN_BYTES, scan->file_bytes - offset);
        if (offset < scan->buffer_offset || offset >= scan->buffer_offset + scan->buffer_bytes ||
            scan->buffer_offset + scan->buffer_bytes < scan->file_bytes) {
            scan->buffer_bytes = 0;
            int rc = file_read_at(scan->fd, scan->buffer, fill, offset);
            if (rc != 0)
                return error_set(rc, "cannot read the log at byte %llu: %s", (unsigned long long)offset,
                                 error_text(rc));
            scan->buffer_offset = offset;
            scan->buffer_bytes = fill;
        }
    }
    *at = scan->buffer + (offset - scan->buffer_offset);
    *bytes = scan->buffer_offset + scan->buffer_bytes - offset;
    return 0;
}

/* One run of a payload at its head: checked.  *count as visitors see it, *bytes as many follow the word. */
static int run_check(const struct wal_scan *scan, uint64_t word, uint64_t *image_offset, unsigned *count,
                     unsigned *bytes)
{
    bool straight = (word & 0xffff) == WAL_STRAIGHT;
    *bytes = straight ? 8 : (unsigned)(word & 0xffff) * 8;
    *count = straight ? WAL_STRAIGHT : *bytes;
    *image_offset = (word >> 16) * 8;
    if (*bytes > PAGE_BYTES || *image_offset % PAGE_BYTES + *bytes > PAGE_BYTES ||
        *image_offset >= scan->capacity_bytes || ((*count == 0 || straight) && *image_offset % PAGE_BYTES != 0))
        return STEAD_CORRUPT;
    return 0;
}

int wal_scan_runs(struct wal_scan *scan, const struct wal_record *record, wal_visit *visit, void *ctx)
{
    uint64_t at = record->offset + sizeof *record, end = at + record->payload_bytes, runs = 0;
    while (at < end) {
        const uint8_t *bytes;
        uint64_t have, word, image_offset = 0;
        unsigned count = 0, follow = 0;
        int rc = window(scan, at, min_u64(8 + PAGE_BYTES, end - at), &bytes, &have);
        if (rc != 0)
            return rc;
        if (have >= 8) {
            memcpy(&word, bytes, sizeof word);
            rc = run_check(scan, word, &image_offset, &count, &follow);
        }
        if (have < 8 || rc != 0 || follow + 8 > end - at || follow + 8 > have || ++runs > record->runs)
            return error_set(STEAD_CORRUPT, "record %llu of the log holds a run that makes no sense",
                             (unsigned long long)record->seq);
        rc = visit(ctx, image_offset, bytes + 8, count);
        if (rc != 0)
            return rc;
        at += 8 + follow;
    }
    if (runs != record->runs)
        return error_set(STEAD_CORRUPT, "record %llu of the log holds fewer runs than it says",
                         (unsigned long long)record->seq);
    return 0;
}

static int payload_matches(struct wal_scan *scan, const struct wal_record *record, bool *matches)
{
    XXH3_state_t *hash = XXH3_createState();
    if (hash == NULL)
        return error_set(ENOMEM, "no memory to verify the log");
    XXH3_128bits_reset(hash);
    uint64_t at = record->offset + sizeof *record, end = at + record->payload_bytes;
    int rc = 0;
    while (at < end && rc == 0) {
        const uint8_t *bytes;
        uint64_t have;
        rc = window(scan, at, min_u64(SCAN_BYTES, end - at), &bytes, &have);
        uint64_t take = min_u64(have, end - at);
        if (rc == 0 && take == 0)
            break; /* the file ends first */
        if (rc == 0)
            XXH3_128bits_update(hash, bytes, take);
        at += take;
    }
    XXH128_canonical_t sum;
    XXH128_canonicalFromHash(&sum, XXH3_128bits_digest(hash));
    XXH3_freeState(hash);
    *matches = at == end && memcmp(sum.digest, record->payload_checksum, WAL_CHECKSUM_BYTES) == 0;
#ifdef STEAD_PLANT_NO_CHECKSUM
    *matches = at == end;
#endif
    return rc;
}

/* Is there, past the bad record at `bad`, one which says that the log was durable beyond it? */
static int find_voucher(struct wal_scan *scan, uint64_t bad)
{
    for (uint64_t at = bad + WAL_SECTOR; at + sizeof(struct wal_record) <= scan->file_bytes; at += WAL_SECTOR) {
        struct wal_record later;
        const uint8_t *bytes;
        uint64_t have;
        int rc = window(scan, at, sizeof later, &bytes, &have);
        if (rc != 0)
            return rc;
        if (have < sizeof later)
            break;
        memcpy(&later, bytes, sizeof later);
        if (wal_record_valid(&later, scan->header.id, scan->header.salt, at) && later.seq > scan->at.next_seq &&
            later.durable_offset > bad)
            return error_set(STEAD_CORRUPT,
                             "the log is damaged at byte %llu: commit %llu, further on, says that it was durable there",
                             (unsigned long long)bad, (unsigned long long)later.seq);
    }
    return ENOENT;
}

int wal_scan_next(struct wal_scan *scan, struct wal_record *record)
{
    const uint8_t *bytes;
    uint64_t have, at = scan->at.end;
    int rc = window(scan, at, sizeof *record, &bytes, &have);
    if (rc != 0)
        return rc;
    if (have < sizeof *record)
        return ENOENT;
    memcpy(record, bytes, sizeof *record);
    bool valid = wal_record_valid(record, scan->header.id, scan->header.salt, at) && record->seq == scan->at.next_seq &&
                 record->payload_bytes <= scan->file_bytes - at - sizeof *record &&
                 memcmp(record->previous, scan->at.chain, WAL_CHECKSUM_BYTES) == 0;
    if (valid)
        rc = payload_matches(scan, record, &valid);
    if (rc != 0)
        return rc;
    if (!valid)
        return find_voucher(scan, at);
    if (record->used_bytes == 0 || record->used_bytes % UNIT_BYTES != 0 || record->used_bytes > scan->capacity_bytes ||
        record->durable_offset > at || record->durable_offset < scan->durable_offset)
        return error_set(STEAD_CORRUPT, "record %llu of the log makes no sense", (unsigned long long)record->seq);
    scan->durable_offset = record->durable_offset;
    memcpy(scan->at.chain, record->checksum, WAL_CHECKSUM_BYTES);
    scan->at.end += wal_record_bytes(record->payload_bytes);
    scan->at.next_seq++;
    return 0;
}
