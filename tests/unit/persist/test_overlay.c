/* test_overlay.c -- the overlay against an array, and page lists against the obvious. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "persist/diff.h"
#include "persist/overlay.h"
#include "txn_fixture.h"

TestSuite(txn_overlay, .timeout = 300);

#define SPACE 3000 /* page numbers used */

Test(txn_overlay, holds_what_was_put_and_nothing_else)
{
    uint64_t random = random_seed();
    struct overlay overlay;
    bool *has = calloc(SPACE, sizeof *has);
    uint8_t *fill = calloc(SPACE, 1);
    overlay_init(&overlay);
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 1000; i++) {
            uint64_t page = random_next(&random) % SPACE;
            OK(overlay_reserve(&overlay, 1));
            uint8_t *bytes = overlay_put(&overlay, page * 1000003);
            if (has[page])
                cr_assert(bytes[0] == fill[page] && bytes[PAGE_BYTES - 1] == fill[page]);
            fill[page] = (uint8_t)random_next(&random);
            has[page] = true;
            memset(bytes, fill[page], PAGE_BYTES);
        }
        for (int i = 0; i < 600; i++) {
            uint64_t page = random_next(&random) % SPACE;
            if (has[page])
                overlay_remove(&overlay, page * 1000003);
            has[page] = false;
        }
        struct page_list list = {0};
        OK(overlay_pages(&overlay, &list));
        size_t at = 0;
        for (uint64_t page = 0; page < SPACE; page++) {
            const uint8_t *bytes = overlay_get(&overlay, page * 1000003);
            cr_assert_eq(bytes != NULL, has[page]);
            if (has[page]) {
                cr_assert_eq(bytes[100], fill[page]);
                cr_assert_eq(list.page[at++], page * 1000003);
            }
        }
        cr_assert_eq(at, list.count);
        cr_assert_eq(at, overlay.count);
        page_list_free(&list);
        if (round % 3 == 2) {
            overlay_clear(&overlay);
            cr_assert_eq(overlay.count, 0);
            memset(has, 0, SPACE * sizeof *has);
        }
    }
    overlay_release(&overlay);
    free(has);
    free(fill);
}

Test(txn_overlay, lists_are_sorted_and_unique)
{
    uint64_t random = random_seed();
    for (size_t count = 0; count < 200; count++) {
        struct page_list list = {0};
        bool has[256] = {0};
        for (size_t i = 0; i < count; i++) {
            uint64_t page = random_next(&random) % 256;
            has[page] = true;
            OK(page_list_add(&list, page));
        }
        page_list_sort(&list);
        size_t at = 0;
        for (uint64_t page = 0; page < 256; page++)
            if (has[page])
                cr_assert_eq(list.page[at++], page);
        cr_assert_eq(at, list.count);
        page_list_free(&list);
    }
}

/* The runs, copied over the base, make the page; a word outside of every run is equal; runs are apart. */
Test(txn_overlay, runs_of_a_page_are_exact)
{
    uint64_t random = random_seed();
    static uint64_t page[PAGE_BYTES / 8], base[PAGE_BYTES / 8], copy[PAGE_BYTES / 8];
    struct diff_run run[DIFF_MAX_RUNS];
    for (int round = 0; round < 3000; round++) {
        for (size_t i = 0; i < PAGE_BYTES / 8; i++)
            base[i] = random_next(&random);
        memcpy(page, base, sizeof page);
        uint64_t changes = random_next(&random) % (round % 5 == 0 ? 600 : 6);
        for (uint64_t i = 0; i < changes; i++)
            ((uint8_t *)page)[random_next(&random) % PAGE_BYTES] ^= 1;
        size_t runs = diff_page(page, base, run);
        cr_assert_leq(runs, DIFF_MAX_RUNS);
        cr_assert_eq(runs == 0, memcmp(page, base, sizeof page) == 0);
        memcpy(copy, base, sizeof copy);
        for (size_t i = 0; i < runs; i++) {
            cr_assert(run[i].bytes > 0 && run[i].offset + run[i].bytes <= (int)PAGE_BYTES);
            cr_assert(run[i].offset % DIFF_WORD == 0 && run[i].bytes % DIFF_WORD == 0);
            cr_assert(i == 0 || run[i].offset > run[i - 1].offset + run[i - 1].bytes + DIFF_MERGE_BYTES);
            cr_assert_neq(page[run[i].offset / 8], base[run[i].offset / 8], "a run starts with a difference");
            memcpy((uint8_t *)copy + run[i].offset, (uint8_t *)page + run[i].offset, run[i].bytes);
        }
        cr_assert_eq(memcmp(copy, page, sizeof copy), 0);
    }
    for (size_t i = 0; i < PAGE_BYTES / 8; i++) /* the most runs there can be */
        page[i] = base[i] ^ (i % 4 == 0);
    cr_assert_eq(diff_page(page, base, run), PAGE_BYTES / 32);
}
