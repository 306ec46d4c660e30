/* image.c, growth: in how many steps a private image grows, and what of it is left.  (Full disks: test_image.c.) */
#include "persist/tail.h"
#include "temp_store.h"

static void setup(void)
{
    store_directory();
    store_create();
}

TestSuite(image_growth, .init = setup, .fini = store_remove, .timeout = 60);

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
