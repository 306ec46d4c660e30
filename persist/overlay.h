/*
 * overlay.h -- what the last commit says about pages whose newest content is in the log and not yet in the file.
 *
 * The base of a diff and of a rollback is the last commit, wherever it lives: the overlay's copy for a page that has
 * one, the file's page for all others.
 */
#ifndef STEAD_PERSIST_OVERLAY_H
#define STEAD_PERSIST_OVERLAY_H

#include <stddef.h>
#include <stdint.h>

#include "persist/page_list.h"

struct overlay {
    struct overlay_slot *slot; /* open addressing; power of two */
    size_t slots, count;
    uint8_t *free_page; /* returned ones, linked through their first word */
    size_t free_pages;  /* these, and the chunks' that were never used */
    struct overlay_chunk *chunk;
    struct overlay_chunk *open; /* those before it in the list have no unused page */
};

void overlay_init(struct overlay *overlay);
void overlay_release(struct overlay *overlay);
/* After success the next `more` overlay_put() calls of new pages cannot fail.  ENOMEM: nothing changed. */
int overlay_reserve(struct overlay *overlay, size_t more);
/* The PAGE_BYTES of a page, or NULL. */
uint8_t *overlay_get(const struct overlay *overlay, uint64_t page);
/* The same, made if absent (content undefined); room was reserved. */
uint8_t *overlay_put(struct overlay *overlay, uint64_t page);
/* Ask the processor's cache: for the place where page is looked up; for the memory of the next page that is put anew. */
void overlay_expect_look(const struct overlay *overlay, uint64_t page);
void overlay_expect_put(const struct overlay *overlay);
/* The page has none any more; it must have one. */
void overlay_remove(struct overlay *overlay, uint64_t page);
void overlay_clear(struct overlay *overlay); /* keeps some memory for the next pages */
/* All pages, ascending, appended to list. */
int overlay_pages(const struct overlay *overlay, struct page_list *list);

#endif
