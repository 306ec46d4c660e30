/* test_classes.c -- the table of classes keeps what alignment, look-up and division rely on (A0). */
#include <criterion/criterion.h>

#include "alloc/classes.h"
#include "alloc/layout.h"

Test(classes, are_ordered_aligned_and_fit_their_slabs)
{
    for (unsigned class = 0; class < CLASS_COUNT; class ++) {
        const struct class_geometry *geometry = &class_table[class];
        cr_assert(class == 0 || geometry->bytes > class_table[class - 1].bytes);
        cr_assert_eq(geometry->bytes % (geometry->bytes > 64 ? 16 : 8), 0);
        cr_assert(geometry->slots == 1 || geometry->slots == 2 || geometry->slots == 4);
        cr_assert_leq(geometry->capacity * geometry->bytes, geometry->slots * SLOT_BYTES);
        cr_assert_leq(geometry->capacity, MAP_PAIRS * 64);
        cr_assert_leq(geometry->capacity, UINT16_MAX);
        if (class > 8 && class + 1 < CLASS_COUNT) /* a request just above a class loses little more than a quarter */
            cr_assert_leq((class_table[class + 1].bytes - geometry->bytes) * 32, geometry->bytes * 9);
    }
    cr_assert_eq(class_table[CLASS_COUNT - 1].bytes, CLASS_BYTES_MAX);
}

Test(classes, divide_exactly_and_tell_what_is_no_multiple)
{
    for (unsigned class = 0; class < CLASS_COUNT; class ++)
        for (uint32_t n = 0; n < class_table[class].slots * SLOT_BYTES; n++) {
            const struct class_geometry *geometry = &class_table[class];
            uint64_t product = (uint64_t)n * geometry->inverse;
            cr_assert_eq(class_divide(geometry, n), n / geometry->bytes);
            cr_assert_eq((uint32_t)product < geometry->inverse, n % geometry->bytes == 0, "%u / %u", n,
                         geometry->bytes);
        }
}

Test(classes, look_up_gives_the_smallest_that_fits)
{
    classes_init();
    for (size_t bytes = 1; bytes <= CLASS_BYTES_MAX; bytes++) {
        unsigned class = bytes <= CLASS_SMALL_MAX ? class_by_8[(bytes + 7) / 8] : class_for_medium(bytes);
        cr_assert_geq(class_table[class].bytes, bytes);
        cr_assert(class == 0 || class_table[class - 1].bytes < bytes, "%zu", bytes);
        for (size_t alignment = 1; alignment <= CLASS_BYTES_MAX; alignment *= 2) {
            unsigned aligned = class_for(bytes, alignment);
            if (aligned == CLASS_NONE)
                continue;
            cr_assert_geq(class_table[aligned].bytes, bytes);
            cr_assert_eq(class_table[aligned].bytes % alignment, 0);
        }
    }
}
