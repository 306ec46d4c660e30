/*
 * page_list.h -- a growing list of image page numbers (offset / PAGE_BYTES).
 */
#ifndef STEAD_PERSIST_PAGE_LIST_H
#define STEAD_PERSIST_PAGE_LIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct page_list {
    uint64_t *page;
    size_t count, room;
};

/* ENOMEM: the list is as it was. */
int page_list_reserve(struct page_list *list, size_t more);
int page_list_add(struct page_list *list, uint64_t page);
int page_list_add_range(struct page_list *list, uint64_t first, uint64_t end);
/* Ascending, each page once. */
void page_list_sort(struct page_list *list);
void page_list_free(struct page_list *list);
/* How many of the pages from index on follow each other without a gap, at most `limit`. */
size_t page_list_run(const struct page_list *list, size_t index, size_t limit);

#endif
