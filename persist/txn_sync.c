/*
 * txn_sync.c -- the group commit: records become durable, for all who wait at once.
 *
 * Group commit.  txn_commit() puts a record into the log and returns (txn_commit_deferred() may leave it in memory);
 * txn_sync(seq) returns when it is durable.  One caller at a time syncs, for everything that is in the log or waits at
 * that moment; those who come meanwhile wait and mostly find themselves served, else the next of them leads.  A
 * checkpoint that restarts the log under a running sync makes everything durable in another way; the sync's result is
 * then counted by sequence number only.
 *
 * After a failed sync nobody knows what the disk holds, and asking again may answer "fine" about pages the kernel gave
 * up: the store is poisoned for this process and, through `shared`, for all others.
 *
 * Who leads takes `engine` before `sync`, so that no record is half-built when it takes what waits, and gives `engine`
 * up before it goes to the disk: commits go on.  A caller that holds `engine` anyway (an application, a checkpoint)
 * keeps it.
 */
#include <errno.h>

#include "base/error.h"
#include "base/units.h"
#include "persist/txn_internal.h"

/* Makes the log durable as it is now.  Under `engine` and `sync`, nobody syncing; given up meanwhile: `sync`, and `engine`
 * too unless it is `kept`. */
static int lead_sync(struct txn *txn, bool kept)
{
    struct wal_job job;
    uint64_t seq = txn->sync_seq, end = txn->sync_end, checkpoint = txn->sync_checkpoint;
    txn->syncing = true;
    pthread_mutex_unlock(&txn->sync);
    int rc = wal_take(&txn->wal, &job);
    if (!kept)
        pthread_mutex_unlock(&txn->engine);
    if (rc == 0)
        rc = wal_complete(&txn->wal, &job);
    pthread_mutex_lock(&txn->sync);
    txn->syncing = false;
    if (rc == 0) {
        txn->durable_seq = max_u64(txn->durable_seq, seq);
        if (checkpoint == txn->sync_checkpoint)
            txn->durable_end = max_u64(txn->durable_end, end);
        if (txn->shared != NULL)
            shared_raise_durable_seq(txn->shared, txn->durable_seq);
    } else {
        rc = txn_poison(txn, rc, "the log could not be synced");
    }
    pthread_cond_broadcast(&txn->synced);
    return rc;
}

/* engine_held: by the caller.  It comes before `sync`, so that who is to lead takes both and looks again. */
static int wait_durable(struct txn *txn, uint64_t seq, bool engine_held)
{
    int rc = 0;
    bool both = engine_held;
    pthread_mutex_lock(&txn->sync);
    while (rc == 0 && txn->durable_seq < seq) {
        rc = txn_refuse_poisoned(txn);
        if (rc != 0)
            break;
        if (txn->syncing) {
            if (both && !engine_held) {
                pthread_mutex_unlock(&txn->engine);
                both = false;
            }
            pthread_cond_wait(&txn->synced, &txn->sync);
        } else if (seq > txn->sync_seq) {
            rc = error_set(EINVAL, "a wait for commit %llu, which does not exist", (unsigned long long)seq);
        } else if (!both) {
            pthread_mutex_unlock(&txn->sync);
            pthread_mutex_lock(&txn->engine);
            pthread_mutex_lock(&txn->sync);
            both = true;
        } else {
            rc = lead_sync(txn, engine_held);
            both = engine_held;
        }
    }
    pthread_mutex_unlock(&txn->sync);
    if (both && !engine_held)
        pthread_mutex_unlock(&txn->engine);
    return rc;
}

int txn_sync_locked(struct txn *txn, uint64_t seq)
{
    return wait_durable(txn, seq, true);
}

uint64_t txn_durable_end(struct txn *txn)
{
    pthread_mutex_lock(&txn->sync);
    uint64_t end = txn->durable_end;
    pthread_mutex_unlock(&txn->sync);
    return end;
}

int txn_sync(struct txn *txn, uint64_t seq)
{
    return wait_durable(txn, seq, false); /* commits go on meanwhile */
}
