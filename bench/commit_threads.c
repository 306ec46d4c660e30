/*
 * commit_threads.c -- durable commits a second, made by several threads of one process at once.
 *
 * Each thread changes one record on a random page and makes it durable, again and again, for the length of a round.  stead's
 * threads share a store and write under its lock; LMDB's share an environment; SQLite's have a connection each, as its
 * manual advises, and sleep while another one writes.  All counts of threads and all peers take their turn in each round.
 *
 * Thread t writes records of number t modulo THREADS_MAX only, so that what each record must hold at the end is known
 * without a lock: the last version that its thread gave it.  Every store is closed, opened again and compared.
 */
#include "bench/commit.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/support/clock.h"
#include "bench/support/row.h"
#include "bench/support/series.h"

enum { THREADS_MAX = 32, COUNTS_MAX = 6, PEERS_MAX = 3 };
#define ROUND_NS_A_COMMIT INT64_C(2500000) /* a batch of 200: half a second */

struct party { /* one peer */
    const struct store_peer *peer;
    char path[4200];
    void *handle[THREADS_MAX]; /* one for all where they can share */
    uint64_t records;
    uint64_t *last; /* version of each record; 0: as loaded */
    struct series rate[COUNTS_MAX];
    uint64_t commits[COUNTS_MAX];
    bool wrong;
};

struct worker {
    struct party *party;
    unsigned number;
    uint64_t version, commits; /* versions go on from round to round */
    int64_t until_ns;
    int rc;
};

static int complain(const struct party *party, const char *what, int error)
{
    row_note("%s: %s: %s", party->peer->name, what, peer_error_text(error));
    return error;
}

static void *work(void *arg)
{
    struct worker *w = arg;
    struct party *party = w->party;
    const struct store_peer *peer = party->peer;
    int (*update)(void *, const uint64_t *, size_t, uint64_t) = peer->update_beside;
    void *handle = party->handle[update != NULL ? 0 : w->number];
    if (update == NULL)
        update = peer->update;
    while (w->rc == 0 && bench_now_ns() < w->until_ns) {
        uint64_t chosen = peer_mix(++w->version * THREADS_MAX + w->number) % (party->records / THREADS_MAX);
        chosen = chosen * THREADS_MAX + w->number;
        w->rc = update(handle, &chosen, 1, w->version);
        party->last[chosen] = w->version;
        w->commits++;
    }
    return NULL;
}

/* One round of one peer; workers: their versions. */
static int run(struct party *party, struct worker *workers, unsigned threads, int64_t length_ns, unsigned index)
{
    pthread_t thread[THREADS_MAX];
    unsigned started = 0;
    int64_t begin = bench_now_ns();
    int rc = 0;
    for (; started < threads && rc == 0; started += rc == 0) {
        workers[started].party = party;
        workers[started].number = started;
        workers[started].commits = 0;
        workers[started].until_ns = begin + length_ns;
        workers[started].rc = 0;
        rc = pthread_create(&thread[started], NULL, work, &workers[started]);
    }
    uint64_t commits = 0;
    for (unsigned i = 0; i < started; i++) {
        pthread_join(thread[i], NULL);
        commits += workers[i].commits;
        rc = rc != 0 ? rc : workers[i].rc;
    }
    if (rc != 0)
        return rc;
    party->commits[index] += commits;
    double seconds = (double)(bench_now_ns() - begin) * 1e-9;
    return series_add(&party->rate[index], (double)commits / seconds) ? 0 : ENOMEM;
}

static int open_handles(struct party *party, unsigned threads)
{
    unsigned handles = party->peer->update_beside != NULL ? 1 : threads;
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < handles; i++)
        rc = party->peer->open(&party->handle[i], party->peer, party->path);
    return rc;
}

static int close_handles(struct party *party)
{
    int rc = 0;
    for (unsigned i = 0; i < THREADS_MAX; i++) {
        int closed = party->handle[i] == NULL ? 0 : party->peer->close(party->handle[i]);
        party->handle[i] = NULL;
        rc = rc != 0 ? rc : closed;
    }
    return rc;
}

static int load(struct party *party, const struct commit_options *o, unsigned threads)
{
    snprintf(party->path, sizeof party->path, "%s/threads-%s", o->scratch, party->peer->name);
    progress("threads: loading %s", party->peer->name);
    int rc = party->peer->load(party->peer, party->path, o->size_mib << 20);
    if (rc == 0)
        rc = open_handles(party, threads);
    if (rc != 0)
        return rc;
    party->records = party->peer->records(party->handle[0]);
    party->last = calloc(party->records, sizeof *party->last);
    if (party->last == NULL)
        return ENOMEM;
    return party->records < THREADS_MAX ? EINVAL : 0;
}

static int verify(struct party *party)
{
    uint64_t written = 0;
    int rc = close_handles(party);
    if (rc == 0)
        rc = open_handles(party, 1);
    for (uint64_t record = 0; rc == 0 && record < party->records; record++) {
        uint8_t got[RECORD_BYTES], expected[RECORD_BYTES];
        if (party->last[record] == 0)
            continue;
        written++;
        record_fill(expected, record, party->last[record]);
        rc = party->peer->read(party->handle[0], record, got);
        if (rc == 0 && memcmp(got, expected, RECORD_BYTES) != 0)
            rc = EUCLEAN;
    }
    int closed = close_handles(party);
    if (rc == 0 && written == 0)
        rc = EUCLEAN;
    return rc != 0 ? rc : closed;
}

static void print_rows(struct party *parties, unsigned count, unsigned threads, unsigned index)
{
    char bench[32];
    snprintf(bench, sizeof bench, "threads.%u", threads);
    for (unsigned i = 0; i < count; i++) {
        struct series *rate = &parties[i].rate[index];
        struct row row = {.bench = bench,
                          .peer = parties[i].peer->name,
                          .processes = 1,
                          .threads = threads,
                          .n = parties[i].commits[index],
                          .unit = "1/s",
                          .median = series_median(rate),
                          .low = series_quantile(rate, 0),
                          .high = series_quantile(rate, 1),
                          .written_per_op = -1,
                          .verified = !parties[i].wrong,
                          .remark = parties[i].peer->remark};
        for (unsigned k = 1, r = 0; i == 0 && k < count && r < ROW_RATIOS; k++, r++) {
            row.ratios[r].to = parties[k].peer->name;
            row.ratios[r].ratio = row.median / series_median(&parties[k].rate[index]);
        }
        row_print(&row);
    }
}

static void release(struct party *party)
{
    for (unsigned i = 0; i < COUNTS_MAX; i++)
        series_release(&party->rate[i]);
    free(party->last);
    remove(party->path);
}

int commit_threads(const struct commit_options *o)
{
    static const struct store_peer *const peers[] = {
        &store_stead_durable,
        &store_lmdb_sync,
#if defined(BENCH_SQLITE)
        &store_sqlite_full
#endif
    };
    static struct worker workers[PEERS_MAX][THREADS_MAX];
    struct party parties[PEERS_MAX] = {0};
    unsigned count = o->only_stead ? 1 : sizeof peers / sizeof peers[0], counts = 0;
    while (counts < COUNTS_MAX && 1U << counts <= o->threads)
        counts++;
    int error = 0;
    for (unsigned i = 0; error == 0 && i < count; i++) {
        parties[i].peer = peers[i];
        error = load(&parties[i], o, 1U << (counts - 1));
        if (error != 0)
            complain(&parties[i], "load", error);
    }
    for (unsigned round = 0; error == 0 && round < o->rounds; round++) {
        for (unsigned c = 0; error == 0 && c < counts; c++) {
            for (unsigned i = 0; error == 0 && i < count; i++) {
                progress("threads: round %u of %u: %u of %s", round + 1, o->rounds, 1U << c, peers[i]->name);
                error = run(&parties[i], workers[i], 1U << c, ROUND_NS_A_COMMIT * o->batch, c);
                if (error != 0)
                    complain(&parties[i], "commit", error);
            }
        }
    }
    for (unsigned i = 0; i < count && parties[i].last != NULL; i++) {
        int wrong = verify(&parties[i]);
        parties[i].wrong = wrong != 0;
        if (wrong != 0)
            error = complain(&parties[i], "verify", wrong);
    }
    for (unsigned c = 0; error == 0 && c < counts; c++)
        print_rows(parties, count, 1U << c, c);
    for (unsigned i = 0; i < count; i++)
        release(&parties[i]);
    return error;
}
