/*
 * format.c -- where an image byte lies in the file.
 *
 * Group g (g >= 1) covers the image bytes [32 MiB << (g-1), 32 MiB << g), group 0 the first 32 MiB.  A page of 4096
 * bytes has 8 bytes of checksum, so that the tables of all groups up to and including g take exactly
 * (32 MiB << g) / 512 = 64 KiB << g: whole units, and every sum below is a shift.
 *
 *   image offset o in group g   ->  file offset GROUP0_OFFSET + o + (64 KiB << g)
 *   start s of that group       ->  its table at GROUP0_OFFSET + s + s / 512     (s / 512: the tables before it)
 *
 * Offsets are checked against FORMAT_IMAGE_BYTES_MAX by whoever reads them from a file; up to there nothing here can
 * overflow.  Bijection, monotony and alignment are tested over every group boundary (S7, tests/unit/persist).
 */
#include "persist/map.h"

#define TABLE_SHARE (PAGE_BYTES / FORMAT_CHECKSUM_BYTES) /* 512 bytes of image for each byte of table */

static unsigned group_of(uint64_t image_offset)
{
    uint64_t n = image_offset / GROUP0_IMAGE_BYTES;
    return n == 0 ? 0 : 64 - (unsigned)__builtin_clzll(n);
}

static uint64_t group_start(unsigned group)
{
    return group == 0 ? 0 : GROUP0_IMAGE_BYTES << (group - 1);
}

static uint64_t group_end(unsigned group)
{
    return GROUP0_IMAGE_BYTES << group;
}

uint64_t format_file_offset(uint64_t image_offset)
{
    return GROUP0_OFFSET + image_offset + (UNIT_BYTES << group_of(image_offset));
}

uint64_t format_contiguous(uint64_t image_offset)
{
    return group_end(group_of(image_offset)) - image_offset;
}

uint64_t format_checksum_offset(uint64_t image_offset)
{
    uint64_t start = group_start(group_of(image_offset));
    return GROUP0_OFFSET + start + start / TABLE_SHARE + (image_offset - start) / PAGE_BYTES * FORMAT_CHECKSUM_BYTES;
}

uint64_t format_file_bytes(uint64_t image_bytes)
{
    return image_bytes == 0 ? GROUP0_OFFSET : format_file_offset(image_bytes - 1) + 1;
}

uint64_t format_image_bytes(uint64_t file_bytes)
{
    if (file_bytes <= GROUP0_OFFSET)
        return 0;
    for (unsigned group = 0; group_start(group) < FORMAT_IMAGE_BYTES_MAX; group++) {
        uint64_t first = format_file_offset(group_start(group)); /* of the group's image bytes */
        if (file_bytes <= first)
            return group_start(group); /* ends before them, inside the table */
        uint64_t bytes = group_start(group) + (file_bytes - first);
        if (bytes < group_end(group))
            return bytes;
    }
    return FORMAT_IMAGE_BYTES_MAX;
}
