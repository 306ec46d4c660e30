/*
 * stead.c -- stead behind the benches' interfaces: the shared tree in all three modes, numbered records, bulk load.
 *
 * The tree takes the store's lock twice around every operation, as tstshmem did.  A worker that gets EOWNERDEAD (LIVE:
 * a neighbour was killed inside) recounts the tree and declares it consistent: tree_link() keeps T1 at every instant.
 */
#include "bench/peers/peer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/peers/pointer_tree.h"
#include "bench/support/clock.h"
#include "bench/support/machine.h"

/* ---- tree ---- */

struct stead_tree {
    stead *store;
    struct tree_root *root; /* in the store */
    bool transactions;      /* TURNS: the root may have been set by somebody else's section only */
};

static int heap_bounds(stead *store, const void **low, const void **high)
{
    stead_status status;
    int rc = stead_stat(store, &status);
    if (rc != 0)
        return rc;
    *low = status.base;
    *high = (const char *)status.base + status.capacity_bytes;
    return 0;
}

static int tree_repair(struct stead_tree *tree)
{
    const void *low, *high;
    const char *wrong;
    uint64_t count, sum;
    int rc = heap_bounds(tree->store, &low, &high);
    if (rc != 0)
        return rc;
    rc = tree_verify(tree->root, low, high, &count, &sum, &wrong);
    if (rc != 0 && (count == 0 || rc != EUCLEAN))
        return rc;
    tree->root->count = count;
    tree->root->sum = sum;
    return stead_make_consistent(tree->store);
}

static int lock_twice(struct stead_tree *tree, stead_lock_mode mode)
{
    int rc = stead_lock(tree->store, mode, -1);
    if (rc == EOWNERDEAD)
        rc = tree_repair(tree);
    if (rc != 0)
        return rc;
    rc = stead_lock(tree->store, mode, -1);
    if (rc != 0)
        (void)stead_unlock(tree->store);
    return rc;
}

static int unlock_twice(struct stead_tree *tree)
{
    int rc = stead_unlock(tree->store);
    int outer = stead_unlock(tree->store);
    return rc != 0 ? rc : outer;
}

static int stead_tree_open(void **handle, const struct tree_peer *peer, const char *path)
{
    stead_options options = {.sharing = peer->sharing, .timeout_ms = 10000};
    struct stead_tree *tree = calloc(1, sizeof *tree);
    if (tree == NULL)
        return ENOMEM;
    int rc = stead_open(&tree->store, path, &options);
    if (rc != 0)
        goto free_tree;
    void *root;
    rc = stead_root_once(tree->store, sizeof(struct tree_root), NULL, NULL, &root);
    if (rc != 0)
        goto close_store;
    tree->root = root;
    *handle = tree;
    return 0;
close_store:
    stead_abandon(tree->store);
free_tree:
    free(tree);
    return rc;
}

static int stead_tree_close(void *handle)
{
    struct stead_tree *tree = handle;
    int rc = stead_close(tree->store);
    if (rc == 0)
        free(tree);
    return rc;
}

static int stead_thread_begin(void **thread, void *handle)
{
    *thread = handle;
    return 0;
}

static void stead_thread_end(void *thread)
{
    (void)thread;
}

static int stead_tree_insert(void *thread, uint64_t key)
{
    struct stead_tree *tree = thread;
    int rc = lock_twice(tree, STEAD_EXCLUSIVE);
    if (rc != 0)
        return rc;
    struct tree_node *node = stead_malloc(tree->store, sizeof *node);
    int failed = node == NULL ? errno : 0;
    if (node != NULL)
        tree_link(tree->root, node, key);
    rc = unlock_twice(tree);
    return failed != 0 ? failed : rc;
}

static int stead_tree_search(void *thread, uint64_t key)
{
    struct stead_tree *tree = thread;
    int rc = lock_twice(tree, STEAD_SHARED);
    if (rc != 0)
        return rc;
    const struct tree_node *node = tree_find(tree->root, key);
    rc = unlock_twice(tree);
    return rc != 0 ? rc : node == NULL ? ENOENT : 0;
}

static int stead_tree_remove(void *thread, uint64_t key)
{
    struct stead_tree *tree = thread;
    int rc = lock_twice(tree, STEAD_EXCLUSIVE);
    if (rc != 0)
        return rc;
    struct tree_node *node = tree_unlink(tree->root, key);
    stead_free(node);
    rc = unlock_twice(tree);
    return rc != 0 ? rc : node == NULL ? ENOENT : 0;
}

static int stead_tree_check(void *handle, uint64_t *keys)
{
    struct stead_tree *tree = handle;
    const void *low, *high;
    const char *wrong;
    uint64_t sum;
    stead_report report;
    int rc = stead_check(tree->store, &report);
    if (rc != 0)
        return rc;
    rc = stead_lock(tree->store, STEAD_SHARED, -1);
    if (rc != 0)
        return rc;
    rc = heap_bounds(tree->store, &low, &high);
    if (rc == 0)
        rc = tree_verify(tree->root, low, high, keys, &sum, &wrong);
    int unlocked = stead_unlock(tree->store);
    return rc != 0 ? rc : unlocked;
}

static int stead_tree_commit(void *handle)
{
    struct stead_tree *tree = handle;
    return stead_commit(tree->store, STEAD_DURABLE);
}

#define STEAD_TREE \
    .open = stead_tree_open, .thread_begin = stead_thread_begin, .thread_end = stead_thread_end, \
    .insert = stead_tree_insert, .search = stead_tree_search, .remove = stead_tree_remove, .check = stead_tree_check, \
    .settle = stead_tree_commit, .close = stead_tree_close

const struct tree_peer tree_stead_sole = {.name = "stead(sole)", .sharing = STEAD_SOLE, STEAD_TREE};
const struct tree_peer tree_stead_turns = {.name = "stead(turns)",
                                           .sharing = STEAD_TURNS,
                                           .processes = true,
                                           .remark = "every insert and remove is a transaction",
                                           STEAD_TREE};
const struct tree_peer tree_stead_live = {.name = "stead(live)", .sharing = STEAD_LIVE, .processes = true, STEAD_TREE};

/* ---- records ---- */

enum { CHUNK_BYTES = 1 << 20, RECORDS_A_CHUNK = CHUNK_BYTES / RECORD_BYTES };

struct record_root {
    uint64_t records, chunks;
    uint8_t *chunk[]; /* CHUNK_BYTES each */
};

struct stead_records {
    stead *store;
    struct record_root *root;
    stead_durability durability;
};

static int records_load(const struct store_peer *peer, const char *path, uint64_t data_bytes)
{
    (void)peer;
    stead *store;
    uint64_t chunks = (data_bytes + CHUNK_BYTES - 1) / CHUNK_BYTES;
    int rc = stead_open(&store, path, &(stead_options){.flags = STEAD_NEW});
    if (rc != 0)
        return rc;
    struct record_root *root = stead_malloc(store, sizeof *root + chunks * sizeof root->chunk[0]);
    if (root == NULL)
        goto no_memory;
    root->records = chunks * RECORDS_A_CHUNK;
    root->chunks = chunks;
    for (uint64_t c = 0; c < chunks; c++) {
        root->chunk[c] = stead_malloc(store, CHUNK_BYTES);
        if (root->chunk[c] == NULL)
            goto no_memory;
        for (uint64_t i = 0; i < RECORDS_A_CHUNK; i++)
            record_fill(root->chunk[c] + i * RECORD_BYTES, c * RECORDS_A_CHUNK + i, 0);
    }
    rc = stead_set_root(store, root);
    if (rc == 0)
        rc = stead_close(store);
    if (rc == 0)
        return 0;
    goto abandon;
no_memory:
    rc = errno;
abandon:
    stead_abandon(store);
    return rc;
}

static int records_open_as(void **handle, const char *path, stead_durability durability)
{
    struct stead_records *self = calloc(1, sizeof *self);
    if (self == NULL)
        return ENOMEM;
    int rc = stead_open(&self->store, path, &(stead_options){.flags = STEAD_EXISTING});
    if (rc != 0) {
        free(self);
        return rc;
    }
    self->root = stead_root(self->store);
    self->durability = durability;
    if (self->root == NULL) {
        stead_abandon(self->store);
        free(self);
        return ENOENT;
    }
    *handle = self;
    return 0;
}

static int records_open(void **handle, const struct store_peer *peer, const char *path)
{
    return records_open_as(handle, path, peer->durable ? STEAD_DURABLE : STEAD_BUFFERED);
}

static uint64_t records_count(void *handle)
{
    return ((struct stead_records *)handle)->root->records;
}

static uint8_t *record_at(struct stead_records *self, uint64_t record)
{
    return self->root->chunk[record / RECORDS_A_CHUNK] + record % RECORDS_A_CHUNK * RECORD_BYTES;
}

static int records_read(void *handle, uint64_t record, uint8_t bytes[RECORD_BYTES])
{
    struct stead_records *self = handle;
    if (record >= self->root->records)
        return ENOENT;
    memcpy(bytes, record_at(self, record), RECORD_BYTES);
    return 0;
}

static int records_update(void *handle, const uint64_t *records, size_t count, uint64_t version)
{
    struct stead_records *self = handle;
    for (size_t i = 0; i < count; i++)
        record_fill(record_at(self, records[i]), records[i], version);
    return stead_commit(self->store, self->durability);
}

static int records_update_beside(void *handle, const uint64_t *records, size_t count, uint64_t version)
{
    struct stead_records *self = handle;
    int rc = stead_lock(self->store, STEAD_EXCLUSIVE, -1);
    if (rc != 0)
        return rc;
    for (size_t i = 0; i < count; i++)
        record_fill(record_at(self, records[i]), records[i], version);
    rc = stead_unlock(self->store);
    return rc != 0 ? rc : stead_commit(self->store, self->durability);
}

static int records_close(void *handle)
{
    struct stead_records *self = handle;
    int rc = stead_close(self->store);
    if (rc == 0)
        free(self);
    return rc;
}

#define STEAD_STORE \
    .load = records_load, .open = records_open, .records = records_count, .read = records_read, \
    .update = records_update, .update_beside = records_update_beside, .close = records_close

const struct store_peer store_stead_durable = {.name = "stead(durable)", .durable = true, STEAD_STORE};
const struct store_peer store_stead_buffered = {
    .name = "stead(buffered)", STEAD_STORE, .remark = "power loss: a prefix, never a mix"};

/* ---- bulk load: a list of new objects, one commit ---- */

struct load_object {
    struct load_object *next;
    uint64_t number;
    uint8_t bytes[];
};

static int stead_load(const char *path, uint64_t bytes, size_t object_bytes, struct load_result *result)
{
    stead *store;
    uint64_t written = machine_written_bytes();
    int rc = stead_open(&store, path, &(stead_options){.flags = STEAD_NEW});
    if (rc != 0)
        return rc;
    struct load_object *first = NULL;
    int64_t begin = bench_now_ns();
    for (uint64_t i = 0; i < bytes / object_bytes; i++) {
        struct load_object *object = stead_malloc(store, object_bytes);
        if (object == NULL) {
            rc = errno;
            goto abandon;
        }
        object->next = first;
        object->number = i;
        peer_fill(object->bytes, object_bytes - sizeof *object, i);
        first = object;
    }
    rc = stead_set_root(store, first);
    if (rc != 0)
        goto abandon;
    int64_t filled = bench_now_ns();
    rc = stead_commit(store, STEAD_DURABLE);
    if (rc != 0)
        goto abandon;
    int64_t committed = bench_now_ns();
    rc = stead_close(store);
    if (rc != 0)
        goto abandon;
    *result = (struct load_result){.fill_ns = filled - begin,
                                   .commit_ns = committed - filled,
                                   .close_ns = bench_now_ns() - committed,
                                   .written_bytes = machine_written_bytes() - written};
    return 0;
abandon:
    stead_abandon(store);
    return rc;
}

static int stead_load_verify(const char *path, uint64_t bytes, size_t object_bytes)
{
    stead *store;
    int rc = stead_open(&store, path, &(stead_options){.flags = STEAD_EXISTING | STEAD_READ_ONLY});
    if (rc != 0)
        return rc;
    uint8_t *expected = malloc(object_bytes);
    const struct load_object *object = stead_root(store);
    rc = expected == NULL ? ENOMEM : 0;
    for (uint64_t left = bytes / object_bytes; rc == 0 && left > 0; left--) {
        if (object == NULL || object->number != left - 1) {
            rc = EUCLEAN;
            break;
        }
        peer_fill(expected, object_bytes - sizeof *object, object->number);
        if (memcmp(expected, object->bytes, object_bytes - sizeof *object) != 0)
            rc = EUCLEAN;
        object = object->next;
    }
    if (rc == 0 && object != NULL)
        rc = EUCLEAN;
    free(expected);
    int closed = stead_close(store);
    return rc != 0 ? rc : closed;
}

const struct load_peer load_stead = {.name = "stead", .load = stead_load, .verify = stead_load_verify};
