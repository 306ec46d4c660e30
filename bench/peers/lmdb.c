/*
 * lmdb.c -- LMDB behind the benches' interfaces.
 *
 *   tree        a B+tree of 8-byte keys; MDB_NOSYNC | MDB_WRITEMAP, so that only the engine's cost counts (a system
 * crash may corrupt it then: it is given the advantage); one write transaction an insert or remove, one renewed read
 *               transaction a search
 *   lmdb-sync   numbered records, one durable transaction an update
 *   lmdb-nosync the same without any flush
 * Load: one transaction, ascending keys appended: LMDB's fastest way.
 */
#include "bench/peers/peer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <lmdb.h>

#include "bench/support/clock.h"
#include "bench/support/machine.h"

enum {
    BYTES_A_RECORD_IN_A_LEAF = 84
}; /* 16 of header in 4096, 18 of node and slot, 64 of data: so that files match in size */

struct lmdb {
    MDB_env *env;
    MDB_dbi dbi;
};

static int lmdb_env(struct lmdb *self, const char *path, unsigned flags, size_t map_bytes)
{
    MDB_txn *txn;
    int rc = mdb_env_create(&self->env);
    if (rc != 0)
        return rc;
    rc = mdb_env_set_mapsize(self->env, map_bytes);
    if (rc == 0)
        rc = mdb_env_open(self->env, path, MDB_NOSUBDIR | flags, 0600);
    if (rc == 0)
        rc = mdb_txn_begin(self->env, NULL, 0, &txn);
    if (rc != 0)
        goto close_env;
    rc = mdb_dbi_open(txn, NULL, MDB_INTEGERKEY, &self->dbi);
    if (rc != 0)
        mdb_txn_abort(txn);
    else
        rc = mdb_txn_commit(txn);
    if (rc == 0)
        return 0;
close_env:
    mdb_env_close(self->env);
    return rc;
}

static int lmdb_close(void *handle)
{
    struct lmdb *self = handle;
    mdb_env_close(self->env);
    free(self);
    return 0;
}

/* ---- tree ---- */

struct lmdb_thread {
    struct lmdb *shared;
    MDB_txn *reader; /* reset between searches */
};

static int lmdb_tree_open(void **handle, const struct tree_peer *peer, const char *path)
{
    (void)peer;
    struct lmdb *self = calloc(1, sizeof *self);
    if (self == NULL)
        return ENOMEM;
    int rc = lmdb_env(self, path, MDB_NOSYNC | MDB_WRITEMAP, (size_t)4 << 30);
    if (rc != 0)
        free(self);
    else
        *handle = self;
    return rc;
}

static int lmdb_thread_begin(void **thread, void *handle)
{
    struct lmdb_thread *self = calloc(1, sizeof *self);
    if (self == NULL)
        return ENOMEM;
    self->shared = handle;
    int rc = mdb_txn_begin(self->shared->env, NULL, MDB_RDONLY, &self->reader);
    if (rc != 0) {
        free(self);
        return rc;
    }
    mdb_txn_reset(self->reader);
    *thread = self;
    return 0;
}

static void lmdb_thread_end(void *thread)
{
    struct lmdb_thread *self = thread;
    mdb_txn_abort(self->reader);
    free(self);
}

static int lmdb_insert(void *thread, uint64_t key)
{
    struct lmdb_thread *self = thread;
    MDB_txn *txn;
    int rc = mdb_txn_begin(self->shared->env, NULL, 0, &txn);
    if (rc != 0)
        return rc;
    MDB_val k = {sizeof key, &key}, v = {sizeof key, &key};
    rc = mdb_put(txn, self->shared->dbi, &k, &v, MDB_NOOVERWRITE);
    if (rc == 0)
        return mdb_txn_commit(txn);
    mdb_txn_abort(txn);
    return rc;
}

static int lmdb_remove(void *thread, uint64_t key)
{
    struct lmdb_thread *self = thread;
    MDB_txn *txn;
    int rc = mdb_txn_begin(self->shared->env, NULL, 0, &txn);
    if (rc != 0)
        return rc;
    MDB_val k = {sizeof key, &key};
    rc = mdb_del(txn, self->shared->dbi, &k, NULL);
    if (rc == 0)
        return mdb_txn_commit(txn);
    mdb_txn_abort(txn);
    return rc == MDB_NOTFOUND ? ENOENT : rc;
}

static int lmdb_search(void *thread, uint64_t key)
{
    struct lmdb_thread *self = thread;
    int rc = mdb_txn_renew(self->reader);
    if (rc != 0)
        return rc;
    MDB_val k = {sizeof key, &key}, v;
    rc = mdb_get(self->reader, self->shared->dbi, &k, &v);
    if (rc == 0 && memcmp(v.mv_data, &key, sizeof key) != 0)
        rc = EUCLEAN;
    mdb_txn_reset(self->reader);
    return rc == MDB_NOTFOUND ? ENOENT : rc;
}

static int lmdb_check(void *handle, uint64_t *keys)
{
    struct lmdb *self = handle;
    MDB_txn *txn;
    MDB_stat stat;
    int rc = mdb_txn_begin(self->env, NULL, MDB_RDONLY, &txn);
    if (rc != 0)
        return rc;
    rc = mdb_stat(txn, self->dbi, &stat);
    *keys = rc == 0 ? stat.ms_entries : 0;
    mdb_txn_abort(txn);
    return rc;
}

const struct tree_peer tree_lmdb = {.name = "lmdb",
                                    .remark = "NOSYNC|WRITEMAP: a system crash may corrupt",
                                    .processes = true,
                                    .open = lmdb_tree_open,
                                    .thread_begin = lmdb_thread_begin,
                                    .thread_end = lmdb_thread_end,
                                    .insert = lmdb_insert,
                                    .search = lmdb_search,
                                    .remove = lmdb_remove,
                                    .check = lmdb_check,
                                    .close = lmdb_close};

/* ---- records ---- */

static size_t map_bytes_for(uint64_t data_bytes)
{
    return (size_t)(data_bytes * 2 + (UINT64_C(256) << 20));
}

static int lmdb_records_load(const struct store_peer *peer, const char *path, uint64_t data_bytes)
{
    (void)peer;
    struct lmdb self;
    MDB_txn *txn;
    int rc = lmdb_env(&self, path, 0, map_bytes_for(data_bytes));
    if (rc != 0)
        return rc;
    rc = mdb_txn_begin(self.env, NULL, 0, &txn);
    if (rc != 0)
        goto close_env;
    for (uint64_t i = 0; rc == 0 && i < data_bytes / BYTES_A_RECORD_IN_A_LEAF; i++) {
        uint8_t bytes[RECORD_BYTES];
        record_fill(bytes, i, 0);
        MDB_val k = {sizeof i, &i}, v = {sizeof bytes, bytes};
        rc = mdb_put(txn, self.dbi, &k, &v, MDB_APPEND);
    }
    if (rc == 0)
        rc = mdb_txn_commit(txn);
    else
        mdb_txn_abort(txn);
close_env:
    mdb_env_close(self.env);
    return rc;
}

static int lmdb_records_open(void **handle, const struct store_peer *peer, const char *path)
{
    struct lmdb *self = calloc(1, sizeof *self);
    MDB_txn *txn;
    if (self == NULL)
        return ENOMEM;
    int rc = mdb_env_create(&self->env);
    if (rc != 0)
        goto free_self;
    rc = mdb_env_open(self->env, path, MDB_NOSUBDIR | (peer->durable ? 0U : MDB_NOSYNC), 0600); /* map size as loaded */
    if (rc == 0)
        rc = mdb_txn_begin(self->env, NULL, MDB_RDONLY, &txn);
    if (rc != 0)
        goto close_env;
    rc = mdb_dbi_open(txn, NULL, MDB_INTEGERKEY, &self->dbi);
    if (rc == 0)
        rc = mdb_txn_commit(txn);
    else
        mdb_txn_abort(txn);
    if (rc == 0) {
        *handle = self;
        return 0;
    }
close_env:
    mdb_env_close(self->env);
free_self:
    free(self);
    return rc;
}

static uint64_t lmdb_records_count(void *handle)
{
    uint64_t count;
    return lmdb_check(handle, &count) == 0 ? count : 0;
}

static int lmdb_records_read(void *handle, uint64_t record, uint8_t bytes[RECORD_BYTES])
{
    struct lmdb *self = handle;
    MDB_txn *txn;
    int rc = mdb_txn_begin(self->env, NULL, MDB_RDONLY, &txn);
    if (rc != 0)
        return rc;
    MDB_val k = {sizeof record, &record}, v;
    rc = mdb_get(txn, self->dbi, &k, &v);
    if (rc == 0 && v.mv_size == RECORD_BYTES)
        memcpy(bytes, v.mv_data, RECORD_BYTES);
    mdb_txn_abort(txn);
    return rc;
}

static int lmdb_records_update(void *handle, const uint64_t *records, size_t count, uint64_t version)
{
    struct lmdb *self = handle;
    MDB_txn *txn;
    int rc = mdb_txn_begin(self->env, NULL, 0, &txn);
    if (rc != 0)
        return rc;
    for (size_t i = 0; rc == 0 && i < count; i++) {
        uint64_t record = records[i];
        uint8_t bytes[RECORD_BYTES];
        record_fill(bytes, record, version);
        MDB_val k = {sizeof record, &record}, v = {sizeof bytes, bytes};
        rc = mdb_put(txn, self->dbi, &k, &v, 0);
    }
    if (rc == 0)
        return mdb_txn_commit(txn);
    mdb_txn_abort(txn);
    return rc;
}

#define LMDB_STORE \
    .load = lmdb_records_load, .open = lmdb_records_open, .records = lmdb_records_count, .read = lmdb_records_read, \
    .update = lmdb_records_update, .update_beside = lmdb_records_update, .close = lmdb_close

const struct store_peer store_lmdb_sync = {.name = "lmdb-sync", .durable = true, LMDB_STORE};
const struct store_peer store_lmdb_nosync = {.name = "lmdb-nosync", .remark = "power loss may corrupt", LMDB_STORE};

/* ---- bulk load ---- */

static int lmdb_load(const char *path, uint64_t bytes, size_t object_bytes, struct load_result *result)
{
    struct lmdb self;
    MDB_txn *txn;
    uint64_t written = machine_written_bytes();
    int rc = lmdb_env(&self, path, 0, map_bytes_for(bytes));
    if (rc != 0)
        return rc;
    int64_t begin = bench_now_ns();
    rc = mdb_txn_begin(self.env, NULL, 0, &txn);
    if (rc != 0)
        goto close_env;
    for (uint64_t i = 0; rc == 0 && i < bytes / object_bytes; i++) {
        MDB_val k = {sizeof i, &i}, v = {object_bytes, NULL};
        rc = mdb_put(txn, self.dbi, &k, &v, MDB_APPEND | MDB_RESERVE);
        if (rc == 0)
            peer_fill(v.mv_data, object_bytes, i);
    }
    if (rc != 0) {
        mdb_txn_abort(txn);
        goto close_env;
    }
    int64_t filled = bench_now_ns();
    rc = mdb_txn_commit(txn);
    int64_t committed = bench_now_ns();
    mdb_env_close(self.env);
    *result = (struct load_result){.fill_ns = filled - begin,
                                   .commit_ns = committed - filled,
                                   .close_ns = bench_now_ns() - committed,
                                   .written_bytes = machine_written_bytes() - written};
    return rc;
close_env:
    mdb_env_close(self.env);
    return rc;
}

static int lmdb_load_verify(const char *path, uint64_t bytes, size_t object_bytes)
{
    struct lmdb self;
    MDB_txn *txn;
    uint8_t *expected = malloc(object_bytes);
    if (expected == NULL)
        return ENOMEM;
    int rc = lmdb_env(&self, path, 0, map_bytes_for(bytes));
    if (rc != 0)
        goto free_expected;
    rc = mdb_txn_begin(self.env, NULL, MDB_RDONLY, &txn);
    if (rc != 0)
        goto close_env;
    for (uint64_t i = 0; rc == 0 && i < bytes / object_bytes; i++) {
        MDB_val k = {sizeof i, &i}, v;
        rc = mdb_get(txn, self.dbi, &k, &v);
        peer_fill(expected, object_bytes, i);
        if (rc == 0 && (v.mv_size != object_bytes || memcmp(v.mv_data, expected, object_bytes) != 0))
            rc = EUCLEAN;
    }
    mdb_txn_abort(txn);
close_env:
    mdb_env_close(self.env);
free_expected:
    free(expected);
    return rc;
}

const struct load_peer load_lmdb = {.name = "lmdb", .load = lmdb_load, .verify = lmdb_load_verify};
