/*
 * name_table.h -- the table of names in the image: where a name stands, and how to walk over all of them.  The caller
 * holds the store lock, exclusively for add, remove and grow.
 */
#ifndef STEAD_STORE_NAME_TABLE_H
#define STEAD_STORE_NAME_TABLE_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/report.h"
#include "store/store.h"

#define NAME_BYTES_MAX 255u

/* A name (a heap block of its own), or with length 0 a marker: 24 bytes in the block of its level. */
struct name_node {
    _Atomic uint64_t next;   /* image offset, 0 = end */
    _Atomic uint64_t object; /* image offset; marker: 0 */
    uint32_t hash;
    uint32_t length;
    char name[]; /* zero-terminated */
};
static_assert(sizeof(struct name_node) == 24, "format v1");

struct name_place {
    _Atomic uint64_t *link; /* the word that leads to the node, or to what comes after the place of a new one */
    struct name_node *node; /* NULL: there is no such name */
};

bool name_table_exists(const struct stead *s);
/* 0 or STEAD_CORRUPT; in a store without a table {NULL, NULL}. */
int name_table_find(const struct stead *s, const char *name, struct name_place *place);
/* Adds a name that find did not find; makes the table if there is none.  0, ENOMEM, ENOSPC or STEAD_CORRUPT. */
int name_table_add(struct stead *s, const char *name, uint64_t object);
int name_table_remove(struct stead *s, const struct name_place *place);

/* Calls visit for every name, in no order; stops at the first non-zero.  STEAD_CORRUPT where a link is wrong. */
int name_table_each(const struct stead *s, int (*visit)(const struct stead *s, const struct name_node *node, void *arg),
                    void *arg);
bool name_table_owns(const struct stead *s, const void *block, size_t usable);
/* Blocks of markers and their usable bytes. */
void name_table_size(const struct stead *s, uint64_t *blocks, uint64_t *bytes);
/* N1, N2; *names: how many were seen.  False if the walk had to be given up. */
bool name_table_check(const struct stead *s, struct report *report, uint64_t *names);
int name_table_damaged(const struct stead *s);

#endif
