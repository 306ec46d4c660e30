/*
 * name_table.c -- a hash table that grows without moving a node: one list of all names, sorted by hash, with markers in it.
 *
 *   page.name_level[0] -> 64 markers          a heap block each, level j > 0 made when there are
 *   page.name_level[j] -> 64 << (j-1) markers  NAMES_PER_MARKER times as many names as markers
 *
 *   list:  M 0x00000000 -> name -> name -> M 0x02000000 -> name -> M 0x04000000 -> ... -> 0
 *          level 0, index 0                level 1, index 0        level 0, index 1
 *
 * The markers of n + 1 levels cut the range of hashes into 64 << n equal parts, a level each part of the one before into
 * two.  So a name is found by walking from the marker of its part, which is computed from the hash's first 6 + n bits, to
 * the first greater hash: some steps, however many names there are.  Why not chains in buckets: to grow, they must move
 * nodes, and a LIVE process may be killed between any two stores.  Here every change becomes visible by one 8-byte store:
 *
 *   add, remove      the predecessor's next
 *   first level      page.name_level[0], when its markers are linked to each other
 *   a new level      page.name_level[j] = block + LEVEL_UNDER_WAY; each marker's predecessor's next; name_level[j] = block
 *
 * Killed in the middle, the old table or the new one is there, and at most the block in flight leaks; a level under way is
 * looked at by nobody (its markers that are in the list already are walked over), and the next name that is added goes on with it.
 * A level for which there is no room is not made: the table is slower, and the name is bound all the same.
 *
 * Invariants (docs/invariants.d/store.md):
 *   N1  a level's offset is 0 or a whole block of markers inside the image, 8-aligned, and not 0 before another one; only
 *       the last may be under way; each link is 0 or a whole node inside the image, 8-aligned
 *   N2  the list is sorted by hash, a marker before the names of the same hash; a name's hash is its own; the markers in the list
 *       are those of the levels, each once
 *
 * The image may be damaged: every walk is bounded by the number of nodes that there may be, and checks each link (N1).
 */
#include "store/name_table.h"

#include <errno.h>
#include <string.h>

#include "store/call.h"
#include "store/page.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#define FIRST_BITS 6u
#define FIRST_MARKERS (1u << FIRST_BITS)
#define NAMES_PER_MARKER 4
#define LEVEL_UNDER_WAY UINT64_C(1)

static uint64_t level_word(const struct stead *s, unsigned level)
{
    return atomic_load_explicit(&page_of(s)->name_level[level], memory_order_acquire);
}

static uint64_t markers_of_level(unsigned level)
{
    return level == 0 ? FIRST_MARKERS : (uint64_t)FIRST_MARKERS << (level - 1);
}

/* Levels that are complete. */
static unsigned levels_of(const struct stead *s)
{
    unsigned levels = 0;
    while (levels < NAME_LEVELS && level_word(s, levels) != 0 && (level_word(s, levels) & LEVEL_UNDER_WAY) == 0)
        levels++;
    return levels;
}

bool name_table_exists(const struct stead *s)
{
    return level_word(s, 0) != 0;
}

int name_table_damaged(const struct stead *s)
{
    return error_set(STEAD_CORRUPT, "%s: N1: the table of names is damaged", s->file.path);
}

/* More than any sound list has: a LIVE death may leave the count one short. */
static uint64_t walk_limit(const struct stead *s)
{
    uint64_t most = image_bytes(s->image) / sizeof(struct name_node);
    uint64_t names = min_u64(atomic_load(&page_of(s)->name_count), most);
    return min_u64(most, names + ((uint64_t)FIRST_MARKERS << levels_of(s))) + 64;
}

static struct name_node *node_at(const struct stead *s, uint64_t offset)
{
    uint64_t end = image_bytes(s->image);
    if (offset < HEAP_RESERVED_BYTES || offset % 8 != 0 || offset > end - sizeof(struct name_node))
        return NULL;
    struct name_node *node = (struct name_node *)(void *)(s->base + offset);
    if (node->length > NAME_BYTES_MAX || (node->length != 0 && node->length >= end - offset - sizeof *node))
        return NULL;
    return node;
}

static uint64_t offset_of(const struct stead *s, const void *p)
{
    return (uint64_t)((const uint8_t *)p - s->base);
}

/* Complete or under way; NULL where the offset is wrong. */
static struct name_node *level_block(const struct stead *s, unsigned level)
{
    uint64_t offset = level_word(s, level) & ~LEVEL_UNDER_WAY;
    uint64_t bytes = markers_of_level(level) * sizeof(struct name_node), end = image_bytes(s->image);
    if (offset < HEAP_RESERVED_BYTES || offset % 8 != 0 || bytes > end || offset > end - bytes)
        return NULL;
    return (struct name_node *)(void *)(s->base + offset);
}

static uint32_t marker_hash(unsigned level, uint64_t index)
{
    if (level == 0)
        return (uint32_t)index << (32 - FIRST_BITS);
    return (uint32_t)(2 * index + 1) << (32 - FIRST_BITS - level);
}

/* The last marker of that many levels that is not after the hash; NULL where a level is damaged. */
static struct name_node *marker_before(const struct stead *s, uint32_t hash, unsigned levels)
{
    unsigned extra = levels - 1; /* bits beyond the first ones */
    uint32_t part = hash >> (32 - FIRST_BITS - extra);
    unsigned zeros = (unsigned)__builtin_ctz(part | 1u << extra);
    unsigned level = extra - zeros;
    struct name_node *block = level_block(s, level);
    return block == NULL ? NULL : block + (level == 0 ? part >> extra : part >> (zeros + 1));
}

static uint32_t hash_of(const char *name, size_t length)
{
    return (uint32_t)XXH3_64bits(name, length);
}

/* *link: from the marker on, the word that leads to the first node that is not before the hash (marker: that one; a name: one
 * with a greater hash), or, of a name that is there, to it: then *node is set. */
static int walk_to(const struct stead *s, struct name_node *from, uint32_t hash, const char *name,
                   struct name_place *to)
{
    *to = (struct name_place){NULL, NULL};
    if (from == NULL)
        return name_table_damaged(s);
    to->link = &from->next;
    for (uint64_t left = walk_limit(s);;) {
        uint64_t at = atomic_load_explicit(to->link, memory_order_acquire);
        struct name_node *node = at == 0 ? NULL : node_at(s, at);
        if (at != 0 && (node == NULL || left-- == 0))
            return name_table_damaged(s);
        if (at == 0 || node->hash > hash || (name == NULL && node->hash == hash))
            return 0;
        if (name != NULL && node->hash == hash && node->length != 0 &&
            strncmp(node->name, name, node->length + 1u) == 0) {
            to->node = node;
            return 0;
        }
        to->link = &node->next;
    }
}

int name_table_find(const struct stead *s, const char *name, struct name_place *place)
{
    unsigned levels = levels_of(s);
    *place = (struct name_place){NULL, NULL};
    if (levels == 0)
        return name_table_exists(s) ? name_table_damaged(s) : 0;
    uint32_t hash = hash_of(name, strlen(name));
    return walk_to(s, marker_before(s, hash, levels), hash, name, place);
}

/* ---- growth */

static struct name_node *make_markers(struct stead *s, unsigned level)
{
    uint64_t count = markers_of_level(level);
    struct name_node *block = heap_calloc(s->heap, count, sizeof *block);
    for (uint64_t i = 0; block != NULL && i < count; i++)
        block[i].hash = marker_hash(level, i);
    return block;
}

static int make_first_level(struct stead *s)
{
    struct name_node *block = make_markers(s, 0);
    if (block == NULL)
        return errno;
    for (unsigned i = 0; i + 1 < FIRST_MARKERS; i++)
        atomic_store_explicit(&block[i].next, offset_of(s, &block[i + 1]), memory_order_relaxed);
    atomic_store_explicit(&page_of(s)->name_level[0], offset_of(s, block), memory_order_release);
    return 0;
}

/* One more level, or the rest of one that somebody died in.  Without room for it the table stays as it is. */
static void make_level(struct stead *s, unsigned level)
{
    if (level_word(s, level) == 0) {
        struct name_node *fresh = make_markers(s, level);
        if (fresh == NULL)
            return;
        atomic_store_explicit(&page_of(s)->name_level[level], offset_of(s, fresh) | LEVEL_UNDER_WAY,
                              memory_order_release);
    }
    struct name_node *block = level_block(s, level);
    if (block == NULL)
        return;
    for (uint64_t i = 0; i < markers_of_level(level); i++) {
        struct name_place to;
        uint32_t hash = marker_hash(level, i);
        if (walk_to(s, marker_before(s, hash, level), hash, NULL, &to) != 0)
            return;
        if (atomic_load(to.link) == offset_of(s, &block[i]))
            continue;
        atomic_store_explicit(&block[i].next, atomic_load(to.link), memory_order_relaxed);
        atomic_store_explicit(to.link, offset_of(s, &block[i]), memory_order_release);
    }
    atomic_store_explicit(&page_of(s)->name_level[level], offset_of(s, block), memory_order_release);
}

static void grow(struct stead *s)
{
    unsigned levels = levels_of(s);
    if (levels < NAME_LEVELS &&
        atomic_load(&page_of(s)->name_count) > NAMES_PER_MARKER * ((uint64_t)FIRST_MARKERS << (levels - 1)))
        make_level(s, levels);
}

/* ---- adding and removing */

int name_table_add(struct stead *s, const char *name, uint64_t object)
{
    struct name_place to;
    size_t length = strlen(name);
    int rc = name_table_exists(s) ? 0 : make_first_level(s);
    if (rc == 0)
        rc = name_table_find(s, name, &to);
    if (rc != 0)
        return rc;
    struct name_node *node = heap_malloc(s->heap, sizeof *node + length + 1);
    if (node == NULL)
        return errno;
    atomic_store_explicit(&node->next, atomic_load(to.link), memory_order_relaxed);
    atomic_store_explicit(&node->object, object, memory_order_relaxed);
    node->hash = hash_of(name, length);
    node->length = (uint32_t)length;
    memcpy(node->name, name, length + 1);
    atomic_store_explicit(to.link, offset_of(s, node), memory_order_release);
    atomic_fetch_add(&page_of(s)->name_count, 1);
    grow(s);
    return 0;
}

int name_table_remove(struct stead *s, const struct name_place *place)
{
    atomic_store_explicit(place->link, atomic_load(&place->node->next), memory_order_release);
    atomic_fetch_sub(&page_of(s)->name_count, 1);
    return heap_free(s->heap, place->node);
}

/* ---- walking over all */

/* Markers, too. */
static int each_node(const struct stead *s,
                     int (*visit)(const struct stead *s, const struct name_node *node, void *arg), void *arg)
{
    if (!name_table_exists(s))
        return 0;
    const struct name_node *node = levels_of(s) == 0 ? NULL : level_block(s, 0);
    if (node != NULL && node->length != 0) /* no marker; all others are looked at by node_at() */
        node = NULL;
    for (uint64_t left = walk_limit(s);; left--) {
        if (node == NULL || left == 0)
            return name_table_damaged(s);
        uint64_t next = atomic_load_explicit(&node->next, memory_order_acquire);
        int rc = visit(s, node, arg);
        if (rc != 0 || next == 0)
            return rc;
        node = node_at(s, next);
    }
}

struct name_visit {
    int (*visit)(const struct stead *s, const struct name_node *node, void *arg);
    void *arg;
};

static int visit_name(const struct stead *s, const struct name_node *node, void *arg)
{
    const struct name_visit *to = arg;
    return node->length == 0 ? 0 : to->visit(s, node, to->arg);
}

int name_table_each(const struct stead *s, int (*visit)(const struct stead *s, const struct name_node *node, void *arg),
                    void *arg)
{
    struct name_visit to = {visit, arg};
    return each_node(s, visit_name, &to);
}

static unsigned levels_begun(const struct stead *s)
{
    unsigned levels = levels_of(s);
    return levels < NAME_LEVELS && level_word(s, levels) != 0 ? levels + 1 : levels;
}

void name_table_size(const struct stead *s, uint64_t *blocks, uint64_t *bytes)
{
    *blocks = *bytes = 0;
    for (unsigned level = 0; level < levels_begun(s); level++) {
        const struct name_node *block = level_block(s, level);
        *blocks += 1;
        *bytes += block == NULL ? 0 : heap_usable_size(s->heap, block);
    }
}

bool name_table_owns(const struct stead *s, const void *block, size_t usable)
{
    uint64_t offset = offset_of(s, block);
    for (unsigned level = 0; level < levels_begun(s); level++)
        if (block == (const void *)level_block(s, level))
            return true;
    /* a smaller block is none, and looking would read its neighbour */
    const struct name_node *candidate = usable > sizeof *candidate ? node_at(s, offset) : NULL;
    if (candidate == NULL || candidate->length == 0 || levels_of(s) == 0)
        return false;
    uint64_t left = walk_limit(s);
    const struct name_node *node = marker_before(s, candidate->hash, levels_of(s));
    while (node != NULL && node != candidate && node->hash <= candidate->hash && left-- != 0) {
        uint64_t next = atomic_load(&node->next);
        node = next == 0 ? NULL : node_at(s, next);
    }
    return node == candidate;
}

/* ---- checking */

struct name_audit {
    struct report *report;
    uint64_t names, markers;
    uint32_t hash; /* of the node before */
};

/* Where a level has the marker of just that hash. */
static bool is_marker(const struct stead *s, const struct name_node *node)
{
    unsigned levels = levels_begun(s);
    return node->hash % (1u << (32 - FIRST_BITS - (levels - 1))) == 0 && marker_before(s, node->hash, levels) == node;
}

static int audit_node(const struct stead *s, const struct name_node *node, void *arg)
{
    struct name_audit *audit = arg;
    uint64_t offset = offset_of(s, node);
    bool marker = node->length == 0;
    if (node->hash < audit->hash || (node->hash == audit->hash && marker && audit->names + audit->markers != 0))
        report_problem(audit->report, "N2", offset, "a name stands in the wrong place of the list");
    audit->hash = node->hash;
    if (marker && !is_marker(s, node))
        report_problem(audit->report, "N2", offset, "a marker of the list of names is not where its hash belongs");
    if (!marker && (node->name[node->length] != '\0' || strnlen(node->name, node->length) != node->length ||
                    node->hash != hash_of(node->name, node->length)))
        report_problem(audit->report, "N2", offset, "a name does not match its hash");
    *(marker ? &audit->markers : &audit->names) += 1;
    return 0;
}

static bool levels_check(const struct stead *s, struct report *report)
{
    unsigned begun = levels_begun(s);
    for (unsigned level = 0; level < NAME_LEVELS; level++)
        if (level < begun ? level_block(s, level) == NULL : level_word(s, level) != 0) {
            report_problem(report, "N1", level_word(s, level), "level %u of the table of names is no block", level);
            return false;
        }
    return true;
}

bool name_table_check(const struct stead *s, struct report *report, uint64_t *names)
{
    struct name_audit audit = {.report = report};
    *names = 0;
    if (!levels_check(s, report))
        return false;
    if (each_node(s, audit_node, &audit) != 0) {
        report_problem(report, "N1", level_word(s, 0), "a link leaves the image or the list of names loops");
        return false;
    }
    uint64_t complete = name_table_exists(s) ? (uint64_t)FIRST_MARKERS << (levels_of(s) - 1) : 0;
    if (audit.markers < complete) /* more: some is no marker, or twice there */
        report_problem(report, "N2", 0, "%llu markers in the list of names, %llu made",
                       (unsigned long long)audit.markers, (unsigned long long)complete);
    *names = audit.names;
    return true;
}
