/* page_list.c -- see page_list.h. */
#include "persist/page_list.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/units.h"

#define PAGE_LIST_FIRST 256 /* entries of the first allocation */
#define PAGE_LIST_SOME 2048
#define DIGIT_BITS 11
#define DIGITS (1u << DIGIT_BITS)

int page_list_reserve(struct page_list *list, size_t more)
{
    if (more <= list->room - list->count)
        return 0;
    size_t room = list->room != 0 ? list->room : PAGE_LIST_FIRST;
    while (room - list->count < more) {
        if (room > SIZE_MAX / sizeof(uint64_t) / 2)
            return ENOMEM;
        room *= 2;
    }
    uint64_t *page = realloc(list->page, room * sizeof *page);
    if (page == NULL)
        return ENOMEM;
    list->page = page;
    list->room = room;
    return 0;
}

int page_list_add(struct page_list *list, uint64_t page)
{
    int rc = page_list_reserve(list, 1);
    if (rc == 0)
        list->page[list->count++] = page;
    return rc;
}

int page_list_add_range(struct page_list *list, uint64_t first, uint64_t end)
{
    if (first >= end)
        return 0;
    int rc = page_list_reserve(list, end - first);
    if (rc != 0)
        return rc;
    for (uint64_t page = first; page < end; page++)
        list->page[list->count++] = page;
    return 0;
}

/* Shell's: for the few hundred pages of a usual commit three times as fast as qsort, which calls back for each comparison. */
static void sort_some(uint64_t *page, size_t count)
{
    static const size_t gaps[] = {701, 301, 132, 57, 23, 10, 4, 1};
    for (size_t g = 0; g < sizeof gaps / sizeof gaps[0]; g++) {
        size_t gap = gaps[g];
        for (size_t i = gap; i < count; i++) {
            uint64_t moved = page[i];
            size_t j = i;
            for (; j >= gap && page[j - gap] > moved; j -= gap)
                page[j] = page[j - gap];
            page[j] = moved;
        }
    }
}

/* By digits of 11 bits, from the last one on; as many as the highest page has.  False: no memory for a second list. */
static bool sort_many(uint64_t *page, size_t count)
{
    uint64_t highest = 0, *from = page, *to = malloc(count * sizeof *to), *other = to;
    if (to == NULL)
        return false;
    for (size_t i = 0; i < count; i++)
        highest = max_u64(highest, page[i]);
    for (unsigned shift = 0; shift < 64 && highest >> shift != 0; shift += DIGIT_BITS) {
        size_t place[DIGITS] = {0}, next = 0;
        for (size_t i = 0; i < count; i++)
            place[from[i] >> shift & (DIGITS - 1)]++;
        for (size_t d = 0; d < DIGITS; d++) {
            size_t here = place[d];
            place[d] = next;
            next += here;
        }
        for (size_t i = 0; i < count; i++)
            to[place[from[i] >> shift & (DIGITS - 1)]++] = from[i];
        uint64_t *swap = from;
        from = to;
        to = swap;
    }
    if (from != page)
        memcpy(page, from, count * sizeof *page);
    free(other);
    return true;
}

static int compare_pages(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

void page_list_sort(struct page_list *list)
{
    size_t count = list->count;
    bool sorted = true;
    for (size_t i = 1; i < count && sorted; i++)
        sorted = list->page[i - 1] < list->page[i];
    if (sorted)
        return;
    if (count <= PAGE_LIST_SOME)
        sort_some(list->page, count);
    else if (!sort_many(list->page, count))
        qsort(list->page, count, sizeof list->page[0], compare_pages);
    size_t kept = 1;
    for (size_t i = 1; i < count; i++)
        if (list->page[i] != list->page[kept - 1])
            list->page[kept++] = list->page[i];
    list->count = kept;
}

void page_list_free(struct page_list *list)
{
    free(list->page);
    *list = (struct page_list){0};
}

size_t page_list_run(const struct page_list *list, size_t index, size_t limit)
{
    size_t run = 1;
    while (run < limit && index + run < list->count && list->page[index + run] == list->page[index] + run)
        run++;
    return run;
}
