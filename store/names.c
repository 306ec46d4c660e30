/*
 * names.c -- named objects: a chained hash table in the image, reached from the store page.
 *
 *   page.name_buckets -> [offset x 512]   a heap block, made by the first stead_bind
 *   bucket -> { next, object, hash, length, name[] } -> ...   a heap block each, newest first
 *
 * Invariants (docs/invariants.d/store.md):
 *   N1  every offset in buckets and nodes is 0 or a whole node inside the image, 8-aligned; an object lies inside the capacity
 *   N2  a node stands in the bucket of its hash, and its hash is that of its name
 *   N3  chains together hold page.name_count nodes, no node twice
 *
 * Who may change it: bind and unbind take the store lock exclusively.  Each change becomes visible by one 8-byte store
 * (bucket head, object, or a predecessor's next), so a LIVE process killed in the middle leaves the old table or the
 * new one, and leaks at most the node in flight; name_count may then be one off, which N3 tolerates in LIVE.  The count is
 * made anew by whoever sets such a store right: stead_make_consistent, and the first writer that opens it with
 * STEAD_ACCEPT_UNCLEAN.
 *
 * A name does not keep its object alive.  Where the object was freed and the image ends before its place by now (a close
 * cuts off what is free at the end), the name is sound and its object gone: it is found nowhere, and may be bound anew.
 *
 * The image may be damaged: every walk is bounded by image_bytes / NODE_BYTES_MIN steps and checks each offset (N1).
 * The blocks are the library's: stead_each_block, live_blocks and live_bytes leave them out.
 */
#include <errno.h>
#include <string.h>

#include "base/report.h"
#include "store/call.h"
#include "store/page.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#define NAME_BUCKETS 512u
#define NAME_BYTES_MAX 255u

struct name_node {
    _Atomic uint64_t next;   /* image offset, 0 = end */
    _Atomic uint64_t object; /* image offset, 0 = being unbound */
    uint32_t hash;
    uint32_t length;
    char name[]; /* zero-terminated */
};
static_assert(sizeof(struct name_node) == 24, "format v1");

typedef _Atomic uint64_t name_link;

/* More steps than any sound chain has: a LIVE death may leave the count one short. */
static uint64_t walk_limit(const struct stead *s)
{
    uint64_t most = image_bytes(s->image) / sizeof(struct name_node);
    return min_u64(most, min_u64(atomic_load(&page_of(s)->name_count), most) + 64);
}

static struct name_node *node_at(const struct stead *s, uint64_t offset)
{
    uint64_t end = image_bytes(s->image);
    if (offset < HEAP_RESERVED_BYTES || offset % 8 != 0 || offset > end - sizeof(struct name_node) - 1)
        return NULL;
    struct name_node *node = (struct name_node *)(void *)(s->base + offset);
    if (node->length == 0 || node->length > NAME_BYTES_MAX || node->length >= end - offset - sizeof *node)
        return NULL;
    return node;
}

static bool is_gone(const struct stead *s, uint64_t object)
{
    return object >= image_bytes(s->image) && object < s->capacity;
}

static name_link *buckets_of(const struct stead *s)
{
    uint64_t offset = atomic_load_explicit(&page_of(s)->name_buckets, memory_order_acquire);
    uint64_t end = image_bytes(s->image);
    if (offset < HEAP_RESERVED_BYTES || offset % 8 != 0 || offset > end - NAME_BUCKETS * sizeof(name_link))
        return NULL;
    return (name_link *)(void *)(s->base + offset);
}

static int damaged(const struct stead *s)
{
    return error_set(STEAD_CORRUPT, "%s: N1: the table of names is damaged", s->file.path);
}

/* *link: the word that points to the node of that name, or to 0 at the chain's end.  0 or STEAD_CORRUPT. */
static int find_link(const struct stead *s, name_link *buckets, const char *name, uint32_t hash, name_link **link)
{
    uint64_t left = walk_limit(s);
    for (*link = &buckets[hash % NAME_BUCKETS];;) {
        uint64_t at = atomic_load_explicit(*link, memory_order_acquire);
        if (at == 0)
            return 0;
        struct name_node *node = node_at(s, at);
        if (node == NULL || left-- == 0)
            return damaged(s);
        if (node->hash == hash && strncmp(node->name, name, node->length + 1u) == 0)
            return 0;
        *link = &node->next;
    }
}

static uint32_t hash_of(const char *name)
{
    return (uint32_t)XXH3_64bits(name, strlen(name));
}

static int make_buckets(struct stead *s, name_link **buckets)
{
    if (atomic_load(&page_of(s)->name_buckets) != 0) {
        *buckets = buckets_of(s);
        return *buckets == NULL ? damaged(s) : 0;
    }
    *buckets = heap_calloc(s->heap, NAME_BUCKETS, sizeof(name_link));
    if (*buckets == NULL)
        return errno;
    atomic_store_explicit(&page_of(s)->name_buckets, (uint64_t)((uint8_t *)*buckets - s->base), memory_order_release);
    return 0;
}

static int add_name(struct stead *s, name_link *buckets, const char *name, uint32_t hash, uint64_t object)
{
    size_t length = strlen(name);
    struct name_node *node = heap_malloc(s->heap, sizeof *node + length + 1);
    if (node == NULL)
        return errno;
    name_link *head = &buckets[hash % NAME_BUCKETS];
    atomic_store_explicit(&node->next, atomic_load(head), memory_order_relaxed);
    atomic_store_explicit(&node->object, object, memory_order_relaxed);
    node->hash = hash;
    node->length = (uint32_t)length;
    memcpy(node->name, name, length + 1);
    atomic_store_explicit(head, (uint64_t)((uint8_t *)node - s->base), memory_order_release);
    atomic_fetch_add(&page_of(s)->name_count, 1);
    return 0;
}

int names_bind(struct stead *s, const char *name, void *object)
{
    name_link *buckets;
    name_link *link;
    uint32_t hash = hash_of(name);
    uint64_t offset = object == NULL ? 0 : page_offset_of(s, object);
    if (object != NULL && offset == 0)
        return error_set(EINVAL, "%s: \"%s\" must name an object of this store", s->file.path, name);
    if (object == NULL && atomic_load(&page_of(s)->name_buckets) == 0)
        return error_set(ENOENT, "%s: nothing is named \"%s\"", s->file.path, name);
    int rc = make_buckets(s, &buckets);
    if (rc != 0)
        return rc;
    rc = find_link(s, buckets, name, hash, &link);
    if (rc != 0)
        return rc;
    uint64_t at = atomic_load(link);
    if (at == 0 && object == NULL)
        return error_set(ENOENT, "%s: nothing is named \"%s\"", s->file.path, name);
    if (at == 0)
        return add_name(s, buckets, name, hash, offset);
    struct name_node *node = node_at(s, at);
    if (node == NULL)
        return damaged(s);
    if (object != NULL) {
        atomic_store_explicit(&node->object, offset, memory_order_release);
        return 0;
    }
    atomic_store_explicit(link, atomic_load(&node->next), memory_order_release);
    atomic_fetch_sub(&page_of(s)->name_count, 1);
    return heap_free(s->heap, node);
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
    name_link *link;
    name_link *buckets = buckets_of(s);
    if (buckets == NULL) {
        *rc = atomic_load(&page_of(s)->name_buckets) == 0 ? 0 : damaged(s);
        return NULL;
    }
    *rc = find_link(s, buckets, name, hash_of(name), &link);
    uint64_t at = *rc == 0 ? atomic_load(link) : 0;
    const struct name_node *node = at == 0 ? NULL : node_at(s, at);
    uint64_t offset = node == NULL ? 0 : atomic_load_explicit(&node->object, memory_order_acquire);
    void *object = page_pointer(s, offset);
    if (at != 0 && object == NULL)
        *rc =
            is_gone(s, offset) ? error_set(ENOENT, "%s: what \"%s\" named was freed", s->file.path, name) : damaged(s);
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

/* Calls visit for every node; bounded; stops at the first non-zero.  STEAD_CORRUPT where an offset is wrong. */
static int each_node(const struct stead *s,
                     int (*visit)(const struct stead *s, struct name_node *node, unsigned bucket, void *arg), void *arg)
{
    name_link *buckets = buckets_of(s);
    uint64_t left = walk_limit(s);
    if (buckets == NULL)
        return atomic_load(&page_of(s)->name_buckets) == 0 ? 0 : damaged(s);
    for (unsigned bucket = 0; bucket < NAME_BUCKETS; bucket++) {
        uint64_t at = atomic_load_explicit(&buckets[bucket], memory_order_acquire);
        while (at != 0) {
            struct name_node *node = node_at(s, at);
            if (node == NULL || left-- == 0)
                return damaged(s);
            at = atomic_load_explicit(&node->next, memory_order_acquire);
            int rc = visit(s, node, bucket, arg);
            if (rc != 0)
                return rc;
        }
    }
    return 0;
}

struct name_visit {
    int (*visit)(const char *name, void *object, void *arg);
    void *arg;
};

static int visit_name(const struct stead *s, struct name_node *node, unsigned bucket, void *arg)
{
    const struct name_visit *to = arg;
    char name[NAME_BYTES_MAX + 1];
    (void)bucket;
    memcpy(name, node->name, node->length);
    name[node->length] = '\0';
    if (is_reserved(name))
        return 0;
    uint64_t offset = atomic_load(&node->object);
    void *object = page_pointer(s, offset);
    if (object == NULL)
        return is_gone(s, offset) ? 0 : damaged(s);
    return to->visit(name, object, to->arg);
}

int stead_each_name(const stead *store, int (*visit)(const char *name, void *object, void *arg), void *arg)
{
    STORE_CALL((struct stead *)(uintptr_t)store);
    struct stead *s = (struct stead *)(uintptr_t)store;
    struct name_visit to = {visit, arg};
    int rc = store_enter_with(s, visit != NULL, "visit");
    if (rc == 0)
        rc = store_lock_to_look(s, DEADLINE_NEVER);
    if (rc != 0)
        return rc;
    rc = each_node(s, visit_name, &to);
    store_unlock_quietly(s);
    return rc;
}

/* ---- the library's own blocks */

bool names_own(const struct stead *s, const void *block, size_t usable)
{
    name_link *buckets = buckets_of(s);
    if (buckets == NULL || block == (const void *)buckets)
        return buckets != NULL;
    uint64_t offset = (uint64_t)((const uint8_t *)block - s->base);
    /* a smaller block is none, and looking would read its neighbour */
    const struct name_node *candidate = usable > sizeof *candidate ? node_at(s, offset) : NULL;
    uint64_t left = walk_limit(s);
    uint64_t at = candidate == NULL ? 0 : atomic_load(&buckets[candidate->hash % NAME_BUCKETS]);
    while (at != 0 && at != offset && left-- != 0) {
        const struct name_node *node = node_at(s, at);
        at = node == NULL ? 0 : atomic_load(&node->next);
    }
    int rc;
    return (at != 0 && at == offset) || block == names_find((struct stead *)(uintptr_t)s, NAMES_RESERVED "layout", &rc);
}

struct name_sum {
    uint64_t blocks, bytes;
};

static int sum_node(const struct stead *s, struct name_node *node, unsigned bucket, void *arg)
{
    struct name_sum *sum = arg;
    (void)bucket;
    sum->blocks++;
    sum->bytes += heap_usable_size(s->heap, node);
    return 0;
}

void names_count(const struct stead *s, uint64_t *blocks, uint64_t *bytes)
{
    struct name_sum sum = {0, 0};
    name_link *buckets = buckets_of(s);
    if (buckets != NULL)
        sum = (struct name_sum){1, heap_usable_size(s->heap, (void *)buckets)};
    (void)each_node(s, sum_node, &sum);
    int rc;
    const void *layout = names_find((struct stead *)(uintptr_t)s, NAMES_RESERVED "layout", &rc);
    if (layout != NULL) {
        sum.blocks++;
        sum.bytes += heap_usable_size(s->heap, layout);
    }
    *blocks = sum.blocks;
    *bytes = sum.bytes;
}

static int count_node(const struct stead *s, struct name_node *node, unsigned bucket, void *arg)
{
    (void)s;
    (void)node;
    (void)bucket;
    ++*(uint64_t *)arg;
    return 0;
}

void names_recount(struct stead *s)
{
    uint64_t nodes = 0;
    /* the walk goes as far as the old count and a little more; of a damaged table that says nothing */
    if (each_node(s, count_node, &nodes) == 0 && atomic_load(&page_of(s)->name_count) != nodes)
        atomic_store(&page_of(s)->name_count, nodes);
}

struct name_audit {
    struct report *report;
    uint64_t nodes;
};

static int audit_node(const struct stead *s, struct name_node *node, unsigned bucket, void *arg)
{
    struct name_audit *audit = arg;
    uint64_t offset = (uint64_t)((uint8_t *)node - s->base);
    audit->nodes++;
    if (node->name[node->length] != '\0' || strnlen(node->name, node->length) != node->length ||
        node->hash != (uint32_t)XXH3_64bits(node->name, node->length) || node->hash % NAME_BUCKETS != bucket)
        report_problem(audit->report, "N2", offset, "a name stands in the wrong bucket or does not match its hash");
    uint64_t object = atomic_load(&node->object);
    if (page_pointer(s, object) == NULL && !is_gone(s, object))
        report_problem(audit->report, "N1", offset, "a name points outside the store");
    return 0;
}

void names_check(const struct stead *s, struct report *report)
{
    struct name_audit audit = {report, 0};
    uint64_t count = atomic_load(&page_of(s)->name_count);
    if (each_node(s, audit_node, &audit) != 0)
        report_problem(report, "N1", atomic_load(&page_of(s)->name_buckets),
                       "a link leaves the image or a chain loops");
    else if (audit.nodes != count && s->sharing != STEAD_LIVE)
        report_problem(report, "N3", 0, "%llu names in the chains, %llu counted", (unsigned long long)audit.nodes,
                       (unsigned long long)count);
}
