/*
 * format.h -- every byte of a store file.  Only this header names file offsets.  A change here is a format change:
 * bump FORMAT_VERSION, docs/format.md and tests/golden/ in the same commit.
 *
 *   file offset 0      superblock A, in its own 64 KiB unit
 *   65536              superblock B, in its own unit
 *   131072             the lock unit: volatile, shared, rebuilt by the first opener; never part of a checksum
 *   196608             group 0: one unit of page checksums, then 32 MiB of image
 *                      group 1: one unit,  then 32 MiB
 *                      group 2: two units, then 64 MiB      ... each group as long as all before it together,
 *                      so that the table stands beside what it describes, a small store is a small file, and a
 *                      terabyte takes 16 groups, that is 16 mappings.
 *
 * The image, seen by a process, is one contiguous range from the base address: group 0's 32 MiB, then group 1's, ...
 * The first 4096 bytes of the image belong to store/ (root, names), the rest to alloc/.
 */
#ifndef STEAD_PERSIST_FORMAT_H
#define STEAD_PERSIST_FORMAT_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "base/units.h"

#define FORMAT_VERSION 1
#define FORMAT_MAGIC "\x89stead\r\n\x1a\n" /* the PNG trap: 8-bit, CR LF, ^Z, LF; 10 bytes + 6 zero */
#define FORMAT_BYTE_ORDER UINT32_C(0x01020304)

#define SUPERBLOCK_A_OFFSET UINT64_C(0)
#define SUPERBLOCK_B_OFFSET UNIT_BYTES
#define LOCK_UNIT_OFFSET (2 * UNIT_BYTES)
#define GROUP0_OFFSET (3 * UNIT_BYTES)
#define GROUP0_IMAGE_BYTES (UINT64_C(32) << 20)
#define FORMAT_CHECKSUM_BYTES UINT64_C(8)          /* of one page: XXH3-64, or 0, see scrub.h           */
#define FORMAT_IMAGE_BYTES_MAX (UINT64_C(1) << 46) /* no capacity above it: half of a 47-bit user space */

enum superblock_state {
    SUPER_SEALED = 1,
    SUPER_OPEN_LOGGED = 2 /* a log with log_salt must exist */,
    SUPER_OPEN_LIVE = 3
};

struct superblock { /* 4096 bytes; the rest of its unit is zero */
    uint8_t magic[16];
    uint32_t version;       /* FORMAT_VERSION                                                       */
    uint32_t byte_order;    /* FORMAT_BYTE_ORDER                                                    */
    uint32_t pointer_bytes; /* 8                                                                    */
    uint32_t page_bytes;    /* PAGE_BYTES                                                           */
    uint8_t id[16];         /* of the store: random, RFC 4122 version 4                             */
    uint64_t base;          /* address of image byte 0                                              */
    uint64_t capacity_bytes;
    uint64_t sequence;   /* of this superblock                                                   */
    uint64_t commit_seq; /* commits up to this one are in the file                               */
    uint64_t used_bytes; /* of the image at commit_seq; a multiple of UNIT_BYTES                 */
    uint64_t root;       /* image offset of the root at commit_seq, 0 = none: a copy, the image is the truth */
    uint64_t log_salt;   /* SUPER_OPEN_LOGGED: of the log that must exist                        */
    uint64_t checkpoint; /* number of the last checkpoint: stands in the log's header too        */
    uint32_t state;      /* enum superblock_state                                                */
    uint32_t sharing;    /* stead_sharing of the last open                                       */
    uint32_t creator_pid, last_change_pid;
    int64_t created_s, last_attach_s, last_detach_s, last_change_s; /* CLOCK_REALTIME, seconds      */
    uint32_t accepted_unclean; /* 1: a LIVE crash was accepted; its verdict stays readable          */
    uint32_t checksums_valid;  /* 1: the page checksums describe the file (not after a LIVE crash)  */
    uint32_t layout_version;
    uint32_t reserved0;
    char layout_name[64];         /* zero-terminated; empty = none                                     */
    uint8_t reserved[4096 - 256]; /* zero, and checked to be zero                                   */
    uint8_t checksum[16];         /* XXH3-128 (canonical) of all bytes above                           */
};
static_assert(sizeof(struct superblock) == 4096, "format v1");
static_assert(offsetof(struct superblock, id) == 32, "format v1");
static_assert(offsetof(struct superblock, base) == 48, "format v1");
static_assert(offsetof(struct superblock, sequence) == 64, "format v1");
static_assert(offsetof(struct superblock, used_bytes) == 80, "format v1");
static_assert(offsetof(struct superblock, log_salt) == 96, "format v1");
static_assert(offsetof(struct superblock, state) == 112, "format v1");
static_assert(offsetof(struct superblock, creator_pid) == 120, "format v1");
static_assert(offsetof(struct superblock, created_s) == 128, "format v1");
static_assert(offsetof(struct superblock, accepted_unclean) == 160, "format v1");
static_assert(offsetof(struct superblock, layout_version) == 168, "format v1");
static_assert(offsetof(struct superblock, layout_name) == 176, "format v1");
static_assert(offsetof(struct superblock, reserved) == 240, "format v1");
static_assert(offsetof(struct superblock, checksum) == 4080, "format v1");

#endif
