/* image.c, growth: in how many steps a private image grows, and what of it is left.  (Full disks: test_image.c.) */
#include <errno.h>

#include "persist/tail.h"
#include "temp_store.h"

static void setup(void)
{
    store_directory();
    store_create();
}

TestSuite(image_growth, .init = setup, .fini = store_remove, .timeout = 300);

/* Each growth of a private image waits for the disk: there are few, and what was taken too much goes at the close. */
Test(image_growth, a_private_image_that_grows_page_by_page_waits_for_the_disk_five_times_to_24_mib)
{
    unsigned growths = 0;
    store_open(IMAGE_PRIVATE);
    for (uint64_t bytes = UNIT_BYTES; bytes <= 24 * MIB; bytes += UNIT_BYTES) {
        uint64_t before = image_bytes(store.image);
        OK(image_extend(store.image, bytes));
        growths += image_bytes(store.image) != before;
        cr_assert_leq(image_bytes(store.image), 2 * bytes + 4 * MIB);
    }
    cr_assert_leq(growths, 5, "%u growths", growths);
    store_seal(UNIT_BYTES);
    struct stat facts;
    cr_assert_eq(stat(store.path, &facts), 0);
    cr_assert_eq((uint64_t)facts.st_size, format_file_bytes(UNIT_BYTES) + TAIL_BYTES);
    cr_assert_leq((uint64_t)facts.st_blocks * 512, MIB);
}

static unsigned refusals;

static int refuse_once(int fd, int mode, off_t offset, off_t bytes)
{
    if (refusals++ == 0) {
        errno = ENOSPC;
        return -1;
    }
    return file_calls_system.fallocate(fd, mode, offset, bytes);
}

/* Logs that were replaced give their space back little by little, but at once where the disk is full without it. */
Test(image_growth, a_full_disk_gets_the_space_of_a_replaced_log)
{
    uint64_t seq;
    store_open(IMAGE_PRIVATE);
    uint64_t bytes = image_bytes(store.image);
    for (unsigned i = 0; i < 2; i++) { /* a full disk without such a log is one */
        if (i == 1) {
            *(uint8_t *)image_base(store.image) ^= 1;
            OK(image_commit(store.image, UNIT_BYTES, &seq));
            OK(image_checkpoint(store.image));
        }
        refusals = 0;
        file_calls.fallocate = refuse_once;
        OK(image_extend(store.image, bytes + MIB));
        file_calls.fallocate = file_calls_system.fallocate;
        uint64_t got = image_bytes(store.image) - bytes;
        if (i == 0)
            cr_assert_eq(got, MIB, "the slack needs no space");
        else
            cr_assert_gt(got, MIB);
        bytes = image_bytes(store.image);
    }
    store_seal(UNIT_BYTES);
}
