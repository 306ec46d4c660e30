/*
 * names.c -- named objects: what the public calls make of the table of names (name_table.c).
 *
 * Who may change it: bind and unbind take the store lock exclusively.  page.name_count is changed after the list, so after a
 * death in LIVE it may be one off, which N3 tolerates there.  It is made anew by whoever sets such a store right:
 * stead_make_consistent, and the first writer that opens it with STEAD_ACCEPT_UNCLEAN.
 *
 * A name does not keep its object alive.  Where the object was freed and the image ends before its place by now (a close
 * cuts off what is free at the end), the name is sound and its object gone: it is found nowhere, and may be bound anew.
 *
 * The blocks are the library's: stead_each_block, live_blocks and live_bytes leave them out.
 *
 * Invariants (docs/invariants.d/store.md):
 *   N1  (also in name_table.c) an object lies inside the capacity
 *   N3  page.name_count names are in the list
 */
#include <errno.h>
#include <string.h>

#include "base/report.h"
#include "store/call.h"
#include "store/name_table.h"
#include "store/page.h"

static bool is_gone(const struct stead *s, uint64_t object)
{
    return object >= image_bytes(s->image) && object < s->capacity;
}

int names_bind(struct stead *s, const char *name, void *object)
{
    struct name_place place;
    uint64_t offset = object == NULL ? 0 : page_offset_of(s, object);
    if (object != NULL && offset == 0)
        return error_set(EINVAL, "%s: \"%s\" must name an object of this store", s->file.path, name);
    int rc = name_table_find(s, name, &place);
    if (rc != 0)
        return rc;
    if (place.node == NULL && object == NULL)
        return error_set(ENOENT, "%s: nothing is named \"%s\"", s->file.path, name);
    if (place.node == NULL)
        return name_table_add(s, name, offset);
    if (object == NULL)
        return name_table_remove(s, &place);
    atomic_store_explicit(&place.node->object, offset, memory_order_release);
    return 0;
}

static bool is_reserved(const char *name)
{
    return strncmp(name, NAMES_RESERVED, sizeof NAMES_RESERVED - 1) == 0;
}

int stead_bind(stead *store, const char *name, void *object)
{
    STORE_CALL(store);
    int rc = store_may_write(store);
    if (rc == 0)
        rc = store_enter_with(store, name != NULL, "name");
    if (rc != 0)
        return rc;
    size_t length = strnlen(name, NAME_BYTES_MAX + 1);
    if (length == 0 || length > NAME_BYTES_MAX)
        return error_set(EINVAL, "%s: a name has 1 to %u bytes", store->file.path, NAME_BYTES_MAX);
    if (is_reserved(name))
        return error_set(EINVAL, "%s: names that begin with " NAMES_RESERVED " are the library's own",
                         store->file.path);
    rc = store_lock_exclusive(store, DEADLINE_NEVER);
    if (rc != 0)
        return rc;
    rc = names_bind(store, name, object);
    store_note_change(store);
    store_unlock_quietly(store);
    return error_about(rc, store->file.path);
}

void *names_find(struct stead *s, const char *name, int *rc)
{
    struct name_place place;
    *rc = name_table_find(s, name, &place);
    if (*rc != 0 || place.node == NULL)
        return NULL;
    uint64_t offset = atomic_load_explicit(&place.node->object, memory_order_acquire);
    void *object = page_pointer(s, offset);
    if (object == NULL && is_gone(s, offset))
        *rc = error_set(ENOENT, "%s: what \"%s\" named was freed", s->file.path, name);
    else if (object == NULL)
        *rc = name_table_damaged(s);
    return object;
}

void *stead_lookup(const stead *store, const char *name)
{
    STORE_CALL((struct stead *)(uintptr_t)store);
    struct stead *s = (struct stead *)(uintptr_t)store;
    int rc = store_enter_with(s, name != NULL, "name");
    void *object = NULL;
    if (rc == 0)
        rc = store_lock_shared(s, DEADLINE_NEVER);
    if (rc != 0) {
        errno = error_to_errno(rc);
        return NULL;
    }
    if (!is_reserved(name))
        object = names_find(s, name, &rc);
    if (rc == 0 && object == NULL)
        rc = error_set(ENOENT, "%s: nothing is named \"%s\"", s->file.path, name);
    store_unlock_quietly(s);
    errno = error_to_errno(rc);
    return object;
}

struct public_visit {
    int (*visit)(const char *name, void *object, void *arg);
    void *arg;
};

static int visit_name(const struct stead *s, const struct name_node *node, void *arg)
{
    const struct public_visit *to = arg;
    char name[NAME_BYTES_MAX + 1];
    memcpy(name, node->name, node->length);
    name[node->length] = '\0';
    if (is_reserved(name))
        return 0;
    uint64_t offset = atomic_load(&node->object);
    void *object = page_pointer(s, offset);
    if (object == NULL)
        return is_gone(s, offset) ? 0 : name_table_damaged(s);
    return to->visit(name, object, to->arg);
}

int stead_each_name(const stead *store, int (*visit)(const char *name, void *object, void *arg), void *arg)
{
    STORE_CALL((struct stead *)(uintptr_t)store);
    struct stead *s = (struct stead *)(uintptr_t)store;
    struct public_visit to = {visit, arg};
    int rc = store_enter_with(s, visit != NULL, "visit");
    if (rc == 0)
        rc = store_lock_to_look(s, DEADLINE_NEVER);
    if (rc != 0)
        return rc;
    rc = name_table_each(s, visit_name, &to);
    store_unlock_quietly(s);
    return rc;
}

/* ---- the library's own blocks */

const void *names_layout_block(const struct stead *s)
{
    int rc;
    return names_find((struct stead *)(uintptr_t)s, NAMES_RESERVED "layout", &rc);
}

bool names_own(const struct stead *s, const void *block, size_t usable, const void *layout)
{
    return name_table_exists(s) && (name_table_owns(s, block, usable) || block == layout);
}

struct name_sum {
    uint64_t blocks, bytes;
};

static int sum_name(const struct stead *s, const struct name_node *node, void *arg)
{
    struct name_sum *sum = arg;
    sum->blocks++;
    sum->bytes += heap_usable_size(s->heap, node);
    return 0;
}

void names_count(const struct stead *s, uint64_t *blocks, uint64_t *bytes)
{
    struct name_sum sum;
    name_table_size(s, &sum.blocks, &sum.bytes);
    (void)name_table_each(s, sum_name, &sum);
    const void *layout = names_layout_block(s);
    if (layout != NULL) {
        sum.blocks++;
        sum.bytes += heap_usable_size(s->heap, layout);
    }
    *blocks = sum.blocks;
    *bytes = sum.bytes;
}

static int count_name(const struct stead *s, const struct name_node *node, void *arg)
{
    (void)s;
    (void)node;
    ++*(uint64_t *)arg;
    return 0;
}

void names_recount(struct stead *s)
{
    uint64_t names = 0;
    /* the walk goes as far as the old count and a little more; of a damaged table that says nothing */
    if (name_table_each(s, count_name, &names) == 0 && atomic_load(&page_of(s)->name_count) != names)
        atomic_store(&page_of(s)->name_count, names);
}

static int audit_object(const struct stead *s, const struct name_node *node, void *arg)
{
    uint64_t object = atomic_load(&node->object);
    if (page_pointer(s, object) == NULL && !is_gone(s, object))
        report_problem(arg, "N1", (uint64_t)((const uint8_t *)node - s->base), "a name points outside the store");
    return 0;
}

void names_check(const struct stead *s, struct report *report)
{
    uint64_t names, count = atomic_load(&page_of(s)->name_count);
    if (!name_table_check(s, report, &names))
        return;
    (void)name_table_each(s, audit_object, report);
    if (names != count && s->sharing != STEAD_LIVE)
        report_problem(report, "N3", 0, "%llu names in the list, %llu counted", (unsigned long long)names,
                       (unsigned long long)count);
}
