/* wal_format.c -- the magics and checksums of the log's header and records; see wal.h. */
#include <string.h>

#include "base/units.h"
#include "persist/wal.h"
#include "persist/xxh3.h"

static const uint8_t header_magic[8] = {0x89, 's', 't', 'd', 'w', 'a', 'l', '\n'};
static const uint8_t record_magic[8] = {0x89, 's', 't', 'd', 'r', 'e', 'c', '\n'};

static void checksum(const void *bytes, size_t count, uint8_t sum[WAL_CHECKSUM_BYTES])
{
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits(bytes, count));
    memcpy(sum, canonical.digest, WAL_CHECKSUM_BYTES);
}

uint64_t wal_record_bytes(uint64_t payload_bytes)
{
    return round_up(sizeof(struct wal_record) + payload_bytes, WAL_SECTOR);
}

void wal_seal_header(struct wal_header *header)
{
    memcpy(header->magic, header_magic, sizeof header_magic);
    header->version = WAL_VERSION;
    checksum(header, offsetof(struct wal_header, checksum), header->checksum);
}

bool wal_header_has_magic(const struct wal_header *header)
{
    return memcmp(header->magic, header_magic, sizeof header_magic) == 0;
}

bool wal_header_valid(const struct wal_header *header)
{
    uint8_t sum[WAL_CHECKSUM_BYTES];
    if (!wal_header_has_magic(header) || header->version != WAL_VERSION)
        return false;
    checksum(header, offsetof(struct wal_header, checksum), sum);
    if (memcmp(sum, header->checksum, sizeof sum) != 0 || header->reserved0 != 0)
        return false;
    for (size_t i = 0; i < sizeof header->reserved; i++)
        if (header->reserved[i] != 0)
            return false;
    return true;
}

void wal_seal_record(struct wal_record *record)
{
    memcpy(record->magic, record_magic, sizeof record_magic);
    checksum(record, offsetof(struct wal_record, checksum), record->checksum);
}

bool wal_record_valid(const struct wal_record *record, const uint8_t id[16], uint64_t salt, uint64_t offset)
{
    uint8_t sum[WAL_CHECKSUM_BYTES];
    if (memcmp(record->magic, record_magic, sizeof record_magic) != 0 || memcmp(record->id, id, 16) != 0 ||
        record->salt != salt || record->offset != offset)
        return false;
#ifdef STEAD_PLANT_NO_CHECKSUM
    (void)sum;
    return record->payload_bytes % 8 == 0;
#else
    checksum(record, offsetof(struct wal_record, checksum), sum);
    return memcmp(sum, record->checksum, sizeof sum) == 0 && record->payload_bytes % 8 == 0;
#endif
}
