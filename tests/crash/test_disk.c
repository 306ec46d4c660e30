/*
 * test_disk.c -- the model of the disk itself: rules D1..D4 of crash_disk.h, on traces made by hand.  A kit whose model
 * were too kind would find nothing and look fine.
 */
#include <criterion/criterion.h>

#include <string.h>

#include "tests/crash/crash_disk.h"

static struct disk disk;
static uint8_t bytes[8192];

static void setup(void)
{
    disk = (struct disk){0};
    memset(bytes, 'a', sizeof bytes);
}

static void teardown(void)
{
    disk_release(&disk);
}

TestSuite(crash_disk, .init = setup, .fini = teardown);

static void event(uint64_t order, enum trace_kind kind, unsigned node, uint64_t offset, uint64_t length,
                  const void *payload, uint64_t payload_bytes)
{
    struct trace_event e = {.kind = kind, .node = node, .offset = offset, .length = length, .payload = payload_bytes};
    cr_assert(disk_apply(&disk, &e, payload, order));
}

static void new_file(const char *name)
{
    event(0, TRACE_NODE, 0, 0, 0, NULL, 0);
    event(1, TRACE_LINK, 0, 0, 0, name, strlen(name) + 1);
}

static void new_durable_file(const char *name)
{
    new_file(name);
    event(2, TRACE_SYNC_DIRECTORY, 0, 0, 0, NULL, 0);
}

/* The only file's size and the byte at offset, with every atom kept up to `keep` (kinds separately). */
static struct disk_image image_with(int64_t data, int64_t sizes, int64_t names)
{
    struct atoms atoms;
    struct disk_image image;
    cr_assert(atoms_collect(&atoms, &disk));
    for (size_t i = 0; i < atoms.count; i++)
        atoms.atom[i].keep = atoms.atom[i].kind == ATOM_SECTOR ? data : atoms.atom[i].kind == ATOM_SIZE ? sizes : names;
    cr_assert(disk_image_build(&image, &disk, &atoms));
    atoms_release(&atoms);
    return image;
}

static uint8_t byte_at(const struct disk_image *image, uint64_t offset)
{
    const struct disk_file *file = &image->file[0];
    if (offset / DISK_PAGE >= file->pages || file->page[offset / DISK_PAGE] == NULL)
        return 0;
    return file->page[offset / DISK_PAGE][offset % DISK_PAGE];
}

Test(crash_disk, D1_nothing_is_durable_before_its_sync_and_all_of_it_after)
{
    new_durable_file("f");
    event(3, TRACE_WRITE, 0, 0, 1000, bytes, 1000);
    event(4, TRACE_SIZE, 0, 1000, 0, NULL, 0);
    struct disk_image image = image_with(-1, -1, -1);
    cr_expect_eq(image.file[0].size, 0);
    cr_expect_eq(byte_at(&image, 0), 0);
    disk_image_release(&image);
    event(5, TRACE_SYNC, 0, 0, 0, NULL, 0);
    cr_expect_eq(disk.parts, 0);
    image = image_with(-1, -1, -1);
    cr_expect_eq(image.file[0].size, 1000);
    cr_expect_eq(byte_at(&image, 999), 'a');
    disk_image_release(&image);
}

Test(crash_disk, D1_a_ranged_sync_settles_its_pages_only)
{
    new_durable_file("f");
    event(3, TRACE_WRITE, 0, 0, 8192, bytes, 8192);
    event(4, TRACE_SIZE, 0, 8192, 0, NULL, 0);
    event(5, TRACE_SYNC_RANGE, 0, 4096, 100, NULL, 0);
    struct disk_image image = image_with(-1, -1, -1);
    cr_expect_eq(image.file[0].size, 8192);
    cr_expect_eq(byte_at(&image, 0), 0);
    cr_expect_eq(byte_at(&image, 4095), 0);
    cr_expect_eq(byte_at(&image, 4096), 'a');
    cr_expect_eq(byte_at(&image, 8191), 'a');
    disk_image_release(&image);
}

Test(crash_disk, D2_a_write_tears_at_512_bytes_and_never_within)
{
    struct atoms atoms;
    new_durable_file("f");
    event(3, TRACE_SIZE, 0, 4096, 0, NULL, 0);
    event(4, TRACE_SYNC, 0, 0, 0, NULL, 0);
    event(5, TRACE_WRITE, 0, 100, 1000, bytes, 1000); /* sectors 0, 1, 2 */
    cr_assert(atoms_collect(&atoms, &disk));
    cr_assert_eq(atoms.count, 3);
    for (size_t i = 0; i < atoms.count; i++)
        atoms.atom[i].keep = atoms.atom[i].sector == 1 ? 5 : -1;
    struct disk_image image;
    cr_assert(disk_image_build(&image, &disk, &atoms));
    cr_expect_eq(byte_at(&image, 511), 0);
    cr_expect_eq(byte_at(&image, 512), 'a');
    cr_expect_eq(byte_at(&image, 1023), 'a');
    cr_expect_eq(byte_at(&image, 1024), 0);
    disk_image_release(&image);
    atoms_release(&atoms);
}

Test(crash_disk, D2_a_sector_never_holds_a_later_write_without_the_earlier_one)
{
    new_durable_file("f");
    event(3, TRACE_SIZE, 0, 4096, 0, NULL, 0);
    event(4, TRACE_SYNC, 0, 0, 0, NULL, 0);
    event(5, TRACE_WRITE, 0, 0, 100, bytes, 100);
    event(6, TRACE_WRITE, 0, 100, 100, bytes, 100);
    for (int64_t keep = -1; keep <= 6; keep++) {
        struct disk_image image = image_with(keep, -1, -1);
        if (byte_at(&image, 150) == 'a')
            cr_expect_eq(byte_at(&image, 50), 'a', "keep %d", (int)keep);
        disk_image_release(&image);
    }
}

Test(crash_disk, D3_sizes_come_in_order_and_without_the_data)
{
    new_durable_file("f");
    event(3, TRACE_WRITE, 0, 0, 4096, bytes, 4096);
    event(4, TRACE_SIZE, 0, 4096, 0, NULL, 0);
    struct disk_image image = image_with(-1, INT64_MAX, -1);
    cr_expect_eq(image.file[0].size, 4096, "the size without the data");
    cr_expect_eq(byte_at(&image, 0), 0);
    disk_image_release(&image);
    image = image_with(INT64_MAX, -1, -1);
    cr_expect_eq(image.file[0].size, 0, "the data without the size");
    disk_image_release(&image);
}

Test(crash_disk, D3_a_shrink_erases_what_lay_beyond_it)
{
    new_durable_file("f");
    event(3, TRACE_WRITE, 0, 0, 8192, bytes, 8192);
    event(4, TRACE_SIZE, 0, 8192, 0, NULL, 0);
    event(5, TRACE_SIZE, 0, 100, 0, NULL, 0);
    event(6, TRACE_SIZE, 0, 8192, 0, NULL, 0);
    struct disk_image image = image_with(INT64_MAX, INT64_MAX, INT64_MAX);
    cr_expect_eq(image.file[0].size, 8192);
    cr_expect_eq(byte_at(&image, 99), 'a');
    cr_expect_eq(byte_at(&image, 100), 0);
    cr_expect_eq(byte_at(&image, 5000), 0);
    disk_image_release(&image);
    event(7, TRACE_SYNC_RANGE, 0, 0, 100, NULL, 0);
    image = image_with(INT64_MAX, INT64_MAX, INT64_MAX);
    cr_expect_eq(byte_at(&image, 5000), 0, "a write older than the settled shrink came back");
    disk_image_release(&image);
}

Test(crash_disk, D4_a_name_is_lost_unless_the_directory_was_synced)
{
    new_file("f");
    event(3, TRACE_WRITE, 0, 0, 100, bytes, 100);
    event(4, TRACE_SYNC, 0, 0, 0, NULL, 0);
    struct disk_image image = image_with(-1, -1, -1);
    cr_expect_eq(image.entry[0], DISK_NO_NODE, "syncing the file does not sync its name");
    disk_image_release(&image);
    event(5, TRACE_SYNC_DIRECTORY, 0, 0, 0, NULL, 0);
    image = image_with(-1, -1, -1);
    cr_expect_eq(image.entry[0], 0);
    disk_image_release(&image);
}

Test(crash_disk, D4_a_rename_does_both_names_or_neither)
{
    new_durable_file("f");
    event(3, TRACE_RENAME, 0, 0, 0, "f\0g", 4);
    for (int64_t keep = -1; keep <= 3; keep += 4) {
        struct disk_image image = image_with(-1, -1, keep);
        cr_expect_eq((image.entry[0] == DISK_NO_NODE) + (image.entry[1] == DISK_NO_NODE), 1);
        disk_image_release(&image);
    }
}

Test(crash_disk, two_states_differ_in_their_hash_exactly_when_their_bytes_do)
{
    new_durable_file("f");
    event(3, TRACE_WRITE, 0, 0, 4096, bytes, 4096);
    event(4, TRACE_SIZE, 0, 4096, 0, NULL, 0);
    struct disk_image a = image_with(-1, -1, -1), b = image_with(INT64_MAX, -1, -1),
                      c = image_with(INT64_MAX, INT64_MAX, -1);
    cr_expect_eq(disk_image_hash(&a, &disk), disk_image_hash(&b, &disk), "bytes beyond the size do not exist");
    cr_expect_neq(disk_image_hash(&a, &disk), disk_image_hash(&c, &disk));
    disk_image_release(&a);
    disk_image_release(&b);
    disk_image_release(&c);
}
