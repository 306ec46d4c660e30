/* mutate.c -- see mutate.h. */
#include "tests/fuzz/mutate.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "persist/format.h"
#include "persist/map.h"
#include "persist/scrub.h"
#include "persist/wal.h"

uint64_t draw(uint64_t *random)
{
    *random = *random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    uint64_t x = *random;
    x ^= x >> 33;
    x *= UINT64_C(0xff51afd7ed558ccd);
    return x ^ (x >> 29);
}

uint64_t draw_below(uint64_t *random, uint64_t end)
{
    return draw(random) % end;
}

struct target {
    int fd;
    uint64_t bytes;
    bool is_log;
};

/* ---- where ---- */

/* Structures are small and data are large: half of all damage goes to structures. */
static uint64_t draw_place(uint64_t *random, const struct target *target)
{
    uint64_t at;
    if (target->is_log) {
        switch (draw_below(random, 3)) {
        case 0:
            at = draw_below(random, sizeof(struct wal_header));
            break;
        case 1:
            at = WAL_FIRST_RECORD + WAL_SECTOR * draw_below(random, 8) + draw_below(random, 160);
            break;
        default:
            at = draw_below(random, target->bytes);
        }
    } else {
        switch (draw_below(random, 8)) {
        case 0:
            at = draw_below(random, 2) * UNIT_BYTES + draw_below(random, 256);
            break;
        case 1:
            at = LOCK_UNIT_OFFSET + draw_below(random, UNIT_BYTES);
            break;
        case 2:
            at = GROUP0_OFFSET + draw_below(random, 1024);
            break;
        case 3: /* the image's first pages: root, names, the heap's own */
            at = format_file_offset(draw_below(random, 4 * PAGE_BYTES));
            break;
        case 4: /* the first bytes of a page: headers */
            at = format_file_offset(PAGE_BYTES * draw_below(random, 64) + draw_below(random, 128));
            break;
        case 5:
            at = target->bytes - 1 - draw_below(random, 256 < target->bytes ? 256 : target->bytes);
            break;
        default:
            at = draw_below(random, target->bytes);
        }
    }
    return at < target->bytes ? at : draw_below(random, target->bytes);
}

/* ---- what ---- */

/* Numbers at which range checks go wrong. */
static uint64_t draw_number(uint64_t *random, uint64_t old)
{
    static const uint64_t bases[] = {0,
                                     1,
                                     PAGE_BYTES,
                                     UNIT_BYTES,
                                     UINT64_C(1) << 22,
                                     UINT64_C(1) << 31,
                                     UINT64_C(1) << 32,
                                     UINT64_C(1) << 46,
                                     UINT64_C(1) << 47,
                                     UINT64_C(1) << 63,
                                     UINT64_MAX};
    uint64_t small = draw_below(random, 17) - 8;
    switch (draw_below(random, 5)) {
    case 0:
        return old ^ UINT64_C(1) << draw_below(random, 64);
    case 1:
        return bases[draw_below(random, sizeof bases / sizeof bases[0])] + small;
    case 2:
        return old + small * (draw_below(random, 2) == 0 ? 1 : PAGE_BYTES);
    case 3:
        return old << draw_below(random, 32);
    default:
        return draw(random);
    }
}

static bool damage_number(uint64_t *random, const struct target *target, char *what, unsigned bytes)
{
    static const unsigned widths[] = {1, 2, 4, 8, 8};
    unsigned width = widths[draw_below(random, 5)];
    uint64_t at = draw_place(random, target), old = 0;
    if (draw_below(random, 4) != 0)
        at -= at % width;
    if (pread(target->fd, &old, width, (off_t)at) < 0)
        return false;
    uint64_t now = draw_number(random, old);
    if (at + width > target->bytes)
        width = (unsigned)(target->bytes - at);
    snprintf(what, bytes, "%u bytes at %" PRIu64 " of the %s become 0x%" PRIx64 "; ", width, at,
             target->is_log ? "log" : "store", now);
    return pwrite(target->fd, &now, width, (off_t)at) == (ssize_t)width;
}

/* A piece of the file over another one: what an older version, or a confused disk, looks like. */
static bool damage_copy(uint64_t *random, const struct target *target, char *what, unsigned bytes)
{
    uint8_t piece[PAGE_BYTES];
    static const uint64_t grains[] = {8, 64, WAL_SECTOR, PAGE_BYTES, PAGE_BYTES};
    uint64_t grain = grains[draw_below(random, 5)];
    uint64_t from = draw_place(random, target), to = draw_place(random, target);
    from -= from % grain;
    to -= to % grain;
    ssize_t got = pread(target->fd, piece, (size_t)grain, (off_t)from);
    if (got < 0)
        return false;
    if (draw_below(random, 4) == 0)
        memset(piece, 0, sizeof piece);
    if (to + (uint64_t)got > target->bytes)
        got = (ssize_t)(target->bytes - to);
    snprintf(what, bytes, "%zd bytes of %" PRIu64 " at %" PRIu64 " of the %s; ", got, from, to,
             target->is_log ? "log" : "store");
    return pwrite(target->fd, piece, (size_t)got, (off_t)to) == got;
}

static bool damage_length(uint64_t *random, struct target *target, char *what, unsigned bytes)
{
    static const uint64_t grains[] = {1, WAL_SECTOR, PAGE_BYTES, UNIT_BYTES};
    uint64_t grain = grains[draw_below(random, 4)];
    uint64_t length = draw_below(random, target->bytes + target->bytes / 2 + 1);
    target->bytes = length - length % grain;
    snprintf(what, bytes, "the %s is %" PRIu64 " bytes long; ", target->is_log ? "log" : "store", target->bytes);
    return ftruncate(target->fd, (off_t)target->bytes) == 0;
}

/* ---- checksums made right again ---- */

static void checksum(const void *bytes, size_t count, uint8_t sum[16])
{
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits(bytes, count));
    memcpy(sum, canonical.digest, 16);
}

static bool seal_superblocks(const struct target *store)
{
    for (unsigned i = 0; i < 2; i++) {
        struct superblock super;
        off_t at = (off_t)(i * UNIT_BYTES);
        if (pread(store->fd, &super, sizeof super, at) != (ssize_t)sizeof super)
            return true; /* the file ends before */
        checksum(&super, offsetof(struct superblock, checksum), super.checksum);
        if (pwrite(store->fd, &super, sizeof super, at) != (ssize_t)sizeof super)
            return false;
    }
    return true;
}

/* Along the records as their lengths say, each chained to the one before. */
static bool seal_log(const struct target *log)
{
    static uint8_t payload[1 << 20];
    struct wal_header header;
    if (pread(log->fd, &header, sizeof header, 0) != (ssize_t)sizeof header)
        return true;
    wal_seal_header(&header);
    if (pwrite(log->fd, &header, sizeof header, 0) != (ssize_t)sizeof header)
        return false;
    uint8_t chain[WAL_CHECKSUM_BYTES];
    memcpy(chain, header.checksum, sizeof chain);
    uint64_t at = WAL_FIRST_RECORD;
    struct wal_record record;
    while (pread(log->fd, &record, sizeof record, (off_t)at) == (ssize_t)sizeof record && record.seq != 0) {
        if (record.payload_bytes > sizeof payload)
            return true;
        ssize_t got = pread(log->fd, payload, (size_t)record.payload_bytes, (off_t)(at + sizeof record));
        memcpy(record.id, header.id, sizeof record.id);
        memcpy(record.previous, chain, sizeof chain);
        record.salt = header.salt;
        checksum(payload, got < 0 ? 0 : (size_t)got, record.payload_checksum);
        wal_seal_record(&record);
        memcpy(chain, record.checksum, sizeof chain);
        if (pwrite(log->fd, &record, sizeof record, (off_t)at) != (ssize_t)sizeof record)
            return false;
        at += wal_record_bytes(record.payload_bytes);
    }
    return true;
}

static bool seal_pages(const struct target *store)
{
    uint64_t image = format_image_bytes(store->bytes);
    return image == 0 || scrub_rebuild(store->fd, 0, image - image % PAGE_BYTES) == 0;
}

/* ---- together ---- */

static bool target_open(struct target *target, const char *path, bool is_log)
{
    struct stat st;
    target->fd = open(path, O_RDWR | O_CLOEXEC);
    target->is_log = is_log;
    if (target->fd < 0 || fstat(target->fd, &st) != 0)
        return false;
    target->bytes = (uint64_t)st.st_size;
    return true;
}

static bool damage(uint64_t *random, struct target *target, char *what, unsigned bytes)
{
    if (target->bytes == 0)
        return true;
    uint64_t kind = draw_below(random, 20);
    return kind == 0  ? damage_length(random, target, what, bytes)
           : kind < 4 ? damage_copy(random, target, what, bytes)
                      : damage_number(random, target, what, bytes);
}

bool mutate(uint64_t *random, const char *store_path, const char *log_path, bool seal, char *what, unsigned bytes)
{
    struct target store, log = {.fd = -1};
    what[0] = '\0';
    if (!target_open(&store, store_path, false))
        return false;
    bool has_log = log_path != NULL && target_open(&log, log_path, true);
    bool good = true;
    for (uint64_t n = 1 + draw_below(random, 4); n > 0 && good; n--) {
        unsigned used = (unsigned)strlen(what);
        struct target *target = has_log && draw_below(random, 2) == 0 ? &log : &store;
        good = damage(random, target, what + used, bytes - used);
    }
    if (seal && good)
        good = seal_superblocks(&store) && seal_pages(&store) && (!has_log || seal_log(&log));
    (void)close(store.fd);
    if (has_log)
        (void)close(log.fd);
    return good;
}
