/*
 * sqlite.c -- SQLite in WAL mode: synchronous=FULL (a commit survives power loss) and NORMAL (the last ones may be
 * lost). One prepared UPDATE a record, one transaction a commit, checkpoints where SQLite puts them (every 1000 pages).
 */
#include "bench/peers/peer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <sqlite3.h>

enum {
    BYTES_A_ROW_IN_A_LEAF = 72, /* so that files match in size */
    BUSY_MS = 60000             /* while another connection writes */
};

struct sqlite {
    sqlite3 *db;
    sqlite3_stmt *update, *select;
};

static int run(sqlite3 *db, const char *sql)
{
    return sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : EIO;
}

static int sqlite_open_db(sqlite3 **db, const char *path, bool full)
{
    if (sqlite3_open(path, db) != SQLITE_OK || run(*db, "PRAGMA page_size=4096; PRAGMA journal_mode=WAL;") != 0 ||
        run(*db, full ? "PRAGMA synchronous=FULL;" : "PRAGMA synchronous=NORMAL;") != 0) {
        sqlite3_close(*db);
        return EIO;
    }
    (void)sqlite3_busy_timeout(*db, BUSY_MS);
    return 0;
}

static int insert_all(sqlite3 *db, uint64_t rows)
{
    sqlite3_stmt *insert;
    if (sqlite3_prepare_v2(db, "INSERT INTO record(id, data) VALUES(?1, ?2)", -1, &insert, NULL) != SQLITE_OK)
        return EIO;
    int rc = 0;
    for (uint64_t i = 0; rc == 0 && i < rows; i++) {
        uint8_t bytes[RECORD_BYTES];
        record_fill(bytes, i, 0);
        sqlite3_bind_int64(insert, 1, (sqlite3_int64)i);
        sqlite3_bind_blob(insert, 2, bytes, sizeof bytes, SQLITE_STATIC);
        if (sqlite3_step(insert) != SQLITE_DONE || sqlite3_reset(insert) != SQLITE_OK)
            rc = EIO;
    }
    sqlite3_finalize(insert);
    return rc;
}

static int sqlite_load(const struct store_peer *peer, const char *path, uint64_t data_bytes)
{
    (void)peer;
    sqlite3 *db;
    int rc = sqlite_open_db(&db, path, false);
    if (rc != 0)
        return rc;
    rc = run(db, "CREATE TABLE record(id INTEGER PRIMARY KEY, data BLOB); BEGIN");
    if (rc == 0)
        rc = insert_all(db, data_bytes / BYTES_A_ROW_IN_A_LEAF);
    if (rc == 0)
        rc = run(db, "COMMIT; PRAGMA wal_checkpoint(TRUNCATE);");
    if (sqlite3_close(db) != SQLITE_OK && rc == 0)
        rc = EIO;
    return rc;
}

static int sqlite_close(void *handle)
{
    struct sqlite *self = handle;
    sqlite3_finalize(self->update);
    sqlite3_finalize(self->select);
    int rc = sqlite3_close(self->db) == SQLITE_OK ? 0 : EIO;
    free(self);
    return rc;
}

static int sqlite_open(void **handle, const struct store_peer *peer, const char *path)
{
    struct sqlite *self = calloc(1, sizeof *self);
    if (self == NULL)
        return ENOMEM;
    int rc = sqlite_open_db(&self->db, path, peer->durable);
    if (rc != 0) {
        free(self);
        return rc;
    }
    if (sqlite3_prepare_v2(self->db, "UPDATE record SET data=?2 WHERE id=?1", -1, &self->update, NULL) != SQLITE_OK ||
        sqlite3_prepare_v2(self->db, "SELECT data FROM record WHERE id=?1", -1, &self->select, NULL) != SQLITE_OK) {
        sqlite_close(self);
        return EIO;
    }
    *handle = self;
    return 0;
}

static uint64_t sqlite_records(void *handle)
{
    struct sqlite *self = handle;
    sqlite3_stmt *last;
    uint64_t records = 0;
    if (sqlite3_prepare_v2(self->db, "SELECT max(id) FROM record", -1, &last, NULL) != SQLITE_OK)
        return 0;
    if (sqlite3_step(last) == SQLITE_ROW)
        records = (uint64_t)sqlite3_column_int64(last, 0) + 1;
    sqlite3_finalize(last);
    return records;
}

static int sqlite_read(void *handle, uint64_t record, uint8_t bytes[RECORD_BYTES])
{
    struct sqlite *self = handle;
    int rc = EIO;
    sqlite3_bind_int64(self->select, 1, (sqlite3_int64)record);
    if (sqlite3_step(self->select) == SQLITE_ROW && sqlite3_column_bytes(self->select, 0) == RECORD_BYTES) {
        memcpy(bytes, sqlite3_column_blob(self->select, 0), RECORD_BYTES);
        rc = 0;
    }
    sqlite3_reset(self->select);
    return rc;
}

static int sqlite_update(void *handle, const uint64_t *records, size_t count, uint64_t version)
{
    struct sqlite *self = handle;
    int rc = run(self->db, "BEGIN IMMEDIATE");
    for (size_t i = 0; rc == 0 && i < count; i++) {
        uint8_t bytes[RECORD_BYTES];
        record_fill(bytes, records[i], version);
        sqlite3_bind_int64(self->update, 1, (sqlite3_int64)records[i]);
        sqlite3_bind_blob(self->update, 2, bytes, sizeof bytes, SQLITE_STATIC);
        if (sqlite3_step(self->update) != SQLITE_DONE || sqlite3_reset(self->update) != SQLITE_OK)
            rc = EIO;
    }
    return rc == 0 ? run(self->db, "COMMIT") : rc;
}

#define SQLITE_STORE \
    .load = sqlite_load, .open = sqlite_open, .records = sqlite_records, .read = sqlite_read, .update = sqlite_update, \
    .close = sqlite_close

const struct store_peer store_sqlite_full = {.name = "sqlite-wal-full", .durable = true, SQLITE_STORE};
const struct store_peer store_sqlite_normal = {
    .name = "sqlite-wal-normal", .remark = "power loss: last ones lost", SQLITE_STORE};
