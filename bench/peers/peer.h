/*
 * peer.h -- the two small interfaces behind which everything is measured, stead included: one file a peer.
 *
 * Every function returns 0 or an error: errno > 0, or a code of the peer's own that peer_error_text() can say.  No peer
 * prints.  What a weaker peer gives up for its speed stands in `remark` and is printed beside its figures.
 */
#ifndef BENCH_PEER_H
#define BENCH_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <stead.h>

enum { RECORD_BYTES = 64 };

/* ---- an ordered set of keys that many workers share: bench/tree ---- */
struct tree_peer {
    const char *name;
    const char *remark;    /* NULL: nothing to say                                                       */
    bool processes;        /* can be shared by several processes                                         */
    stead_sharing sharing; /* stead's own modes                                                          */
    /* In every process, after fork, one process after the other; the first finds no file and creates it.  */
    int (*open)(void **handle, const struct tree_peer *peer, const char *path);
    int (*thread_begin)(void **thread, void *handle);
    int (*insert)(void *thread, uint64_t key);
    int (*search)(void *thread, uint64_t key); /* ENOENT: not there */
    int (*remove)(void *thread, uint64_t key); /* ENOENT: not there */
    void (*thread_end)(void *thread);
    /* Verifies the structure (and the heap); *keys: how many it holds.  No worker is inside. */
    int (*check)(void *handle, uint64_t *keys);
    int (*settle)(void *handle); /* makes the phase permanent; NULL: nothing to do or not promised */
    int (*close)(void *handle);
};

extern const struct tree_peer tree_stead_sole, tree_stead_turns, tree_stead_live;
extern const struct tree_peer tree_malloc_rwlock, tree_malloc_rwlock_nested, tree_malloc_recmutex_nested;
extern const struct tree_peer tree_lmdb;

/* ---- numbered records of RECORD_BYTES in a file: bench/commit and bench/open ---- */
struct store_peer {
    const char *name;
    const char *remark; /* what power loss may do; NULL: nothing */
    bool durable;       /* update() returns when power loss can no longer undo it */
    /* Makes the file with data_bytes of records, each as record_fill(record, 0) says, and closes it. */
    int (*load)(const struct store_peer *peer, const char *path, uint64_t data_bytes);
    int (*open)(void **handle, const struct store_peer *peer, const char *path);
    uint64_t (*records)(void *handle);
    int (*read)(void *handle, uint64_t record, uint8_t bytes[RECORD_BYTES]);
    /* One commit: these records become record_fill(record, version).  NULL: only bench/open uses this peer. */
    int (*update)(void *handle, const uint64_t *records, size_t count, uint64_t version);
    /* The same, by any number of threads with the one handle; NULL: threads have a handle each. */
    int (*update_beside)(void *handle, const uint64_t *records, size_t count, uint64_t version);
    int (*close)(void *handle);
};

extern const struct store_peer store_stead_durable, store_stead_buffered;
extern const struct store_peer store_lmdb_sync, store_lmdb_nosync;
extern const struct store_peer store_raw_log_records, store_raw_log_records_direct, store_raw_log_pages_direct;
extern const struct store_peer store_raw_map;
#if defined(BENCH_SQLITE)
extern const struct store_peer store_sqlite_full, store_sqlite_normal;
#endif

/* ---- new objects in bulk, one commit: bench/commit --load ---- */
struct load_result {
    int64_t fill_ns, commit_ns, close_ns;
    uint64_t written_bytes; /* to the device, until close returned and everything was synced */
};
struct load_peer {
    const char *name;
    int (*load)(const char *path, uint64_t bytes, size_t object_bytes, struct load_result *result);
    int (*verify)(const char *path, uint64_t bytes, size_t object_bytes);
};
extern const struct load_peer load_stead, load_lmdb;

/* What record number `record` holds at this version: no two the same, none compressible. */
void record_fill(uint8_t bytes[RECORD_BYTES], uint64_t record, uint64_t version);
uint64_t peer_mix(uint64_t x); /* a bijection that scatters: splitmix64's finaliser */
/* Any object of any size, in the same manner. */
void peer_fill(void *bytes, size_t count, uint64_t seed);

const char *peer_error_text(int error);

#endif
