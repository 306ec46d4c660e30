/* format.c: every image byte has its own place in the file, tables stand where they say, and the inverse inverts.
 * Method: all group boundaries up to the largest image, the bytes around them, and an independent walk that adds up
 * group after group instead of shifting. */
#include <criterion/criterion.h>
#include <inttypes.h>

#include "persist/map.h"

TestSuite(format, .timeout = 300);

Test(format, first_bytes_stand_where_the_drawing_says)
{
    cr_assert_eq(format_file_offset(0), 4 * UNIT_BYTES);
    cr_assert_eq(format_checksum_offset(0), 3 * UNIT_BYTES);
    cr_assert_eq(format_checksum_offset(PAGE_BYTES), 3 * UNIT_BYTES + 8);
    cr_assert_eq(format_contiguous(0), UINT64_C(32) << 20);
    cr_assert_eq(format_contiguous(5), (UINT64_C(32) << 20) - 5);
    cr_assert_eq(format_file_bytes(0), 3 * UNIT_BYTES);
    cr_assert_eq(format_file_bytes(UNIT_BYTES), 5 * UNIT_BYTES);
}

Test(format, groups_follow_each_other_without_gap_or_overlap)
{
    uint64_t file_at = GROUP0_OFFSET, image_at = 0, image_bytes = GROUP0_IMAGE_BYTES;
    for (unsigned group = 0; image_at < FORMAT_IMAGE_BYTES_MAX; group++) {
        uint64_t table_bytes = image_bytes / PAGE_BYTES * 8;
        cr_assert_eq(table_bytes % UNIT_BYTES, 0, "group %u: table of %" PRIu64, group, table_bytes);
        cr_assert_eq(format_checksum_offset(image_at), file_at, "group %u", group);
        cr_assert_eq(format_file_offset(image_at), file_at + table_bytes, "group %u", group);
        cr_assert_eq(format_contiguous(image_at), image_bytes, "group %u", group);
        uint64_t last = image_at + image_bytes - 1;
        cr_assert_eq(format_file_offset(last), file_at + table_bytes + image_bytes - 1, "group %u", group);
        cr_assert_eq(format_checksum_offset(last - last % PAGE_BYTES), file_at + table_bytes - 8, "group %u", group);
        cr_assert_eq(format_contiguous(last), 1, "group %u", group);
        file_at += table_bytes + image_bytes;
        image_at += image_bytes;
        image_bytes = image_at; /* each group is as long as all before it together */
        cr_assert_eq(format_file_bytes(image_at), file_at, "group %u", group);
    }
}

Test(format, image_bytes_inverts_file_bytes)
{
    for (uint64_t edge = UNIT_BYTES; edge <= FORMAT_IMAGE_BYTES_MAX; edge *= 2) {
        for (int64_t off = -2; off <= 2; off++) {
            uint64_t bytes = edge + (uint64_t)off * UNIT_BYTES;
            if (bytes == 0 || bytes > FORMAT_IMAGE_BYTES_MAX)
                continue;
            cr_assert_eq(format_image_bytes(format_file_bytes(bytes)), bytes, "%" PRIu64, bytes);
            cr_assert_eq(format_image_bytes(format_file_bytes(bytes) - 1), bytes - 1, "%" PRIu64, bytes);
        }
    }
}

Test(format, a_file_that_ends_inside_a_table_holds_the_groups_before_it)
{
    cr_assert_eq(format_image_bytes(0), 0);
    cr_assert_eq(format_image_bytes(GROUP0_OFFSET), 0);
    cr_assert_eq(format_image_bytes(GROUP0_OFFSET + UNIT_BYTES), 0);
    cr_assert_eq(format_image_bytes(GROUP0_OFFSET + UNIT_BYTES + 1), 1);
    uint64_t two_groups = format_file_bytes(2 * GROUP0_IMAGE_BYTES);
    for (uint64_t extra = 0; extra <= 2 * UNIT_BYTES; extra += PAGE_BYTES)
        cr_assert_eq(format_image_bytes(two_groups + extra), 2 * GROUP0_IMAGE_BYTES, "%" PRIu64, extra);
    cr_assert_eq(format_image_bytes(two_groups + 2 * UNIT_BYTES + 7), 2 * GROUP0_IMAGE_BYTES + 7);
    cr_assert_eq(format_image_bytes(UINT64_MAX), FORMAT_IMAGE_BYTES_MAX, "any length is safe");
}

Test(format, units_of_the_image_are_units_of_the_file)
{
    for (uint64_t edge = GROUP0_IMAGE_BYTES; edge < FORMAT_IMAGE_BYTES_MAX; edge *= 2) {
        cr_assert_eq(format_file_offset(edge) % UNIT_BYTES, 0);
        cr_assert_eq(format_file_offset(edge - UNIT_BYTES) % UNIT_BYTES, 0);
        cr_assert_eq(format_checksum_offset(edge) % UNIT_BYTES, 0);
    }
}
