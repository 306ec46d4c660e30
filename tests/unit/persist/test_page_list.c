/* test_page_list.c -- lists of all lengths come out ascending, each page once, whatever the order and the highest page. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "persist/page_list.h"
#include "txn_fixture.h"

TestSuite(txn_page_list, .timeout = 300);

static int by_number(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

static void sort_one(size_t count, uint64_t pages, uint64_t *random)
{
    struct page_list list = {0};
    uint64_t *want = calloc(count, sizeof *want);
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        want[i] = pages == 0 ? random_next(random) : random_next(random) % pages;
        OK(page_list_add(&list, want[i]));
    }
    qsort(want, count, sizeof *want, by_number);
    for (size_t i = 0; i < count; i++)
        if (kept == 0 || want[kept - 1] != want[i])
            want[kept++] = want[i];
    page_list_sort(&list);
    cr_assert_eq(list.count, kept, "%zu of %llu pages", count, (unsigned long long)pages);
    for (size_t i = 0; i < kept; i++)
        cr_assert_eq(list.page[i], want[i], "%zu of %llu pages, at %zu", count, (unsigned long long)pages, i);
    page_list_free(&list);
    free(want);
}

Test(txn_page_list, is_ascending_with_each_page_once)
{
    static const size_t counts[] = {1, 2, 3, 100, 2047, 2048, 2049, 5000, 70000};
    static const uint64_t pages[] = {1, 2, 2047, 2048, 2049, 65536, 1 << 22, UINT64_C(1) << 40, 0 /* any number */};
    uint64_t random = random_seed();
    for (unsigned i = 0; i < sizeof counts / sizeof counts[0]; i++)
        for (unsigned k = 0; k < sizeof pages / sizeof pages[0]; k++)
            sort_one(counts[i], pages[k], &random);
}
