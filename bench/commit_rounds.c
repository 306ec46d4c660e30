/*
 * commit_rounds.c -- commits of a few records, peer after peer, round after round.
 *
 * All peers have their store open at once; in each round each makes one batch of commits, so that a noisy minute hits
 * everybody.  Every commit's time goes into one series: median and 99th percentile are over all rounds; low and high
 * are the medians of the best and the worst round.  Two sizes of store are peers, too: then rounds are many and short, and the
 * ratio is the median of the rounds' own ratios, each of neighbours in time.  A workload with `seconds` runs by time, and its 99.9th percentile
 * and its longest commit are reported as well.  At the end every store is closed, opened, and every record that was
 * written is compared with the last version written to it.
 */
#include "bench/commit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/support/clock.h"
#include "bench/support/machine.h"
#include "bench/support/row.h"
#include "bench/support/series.h"

enum { PEERS_MAX = 8, RECORDS_A_COMMIT_MAX = 64 };

struct written { /* what each record must hold at the end */
    uint64_t record, version;
};

struct workload {
    const char *bench;
    unsigned records; /* a commit */
    uint64_t mib;     /* of the data set */
    bool hot;         /* always the same record */
    bool touch_all;   /* every page read first: fully resident */
    unsigned batch_scale;
    uint64_t seconds; /* 0, or how long each peer commits in all: the tail of its latencies is the result */
    unsigned warm_up; /* commits before the first round; 0: a quarter of a batch */
};

struct contest { /* one peer in one workload */
    const struct store_peer *peer;
    struct workload work;
    uint64_t version; /* of the last commit */
    char path[4200];
    void *handle;
    struct series us, round_us;
    struct series ratio; /* of each round's median to that of the first peer */
    uint64_t written_bytes, commits;
    struct written *log;
    size_t logged, log_room;
    bool wrong;
};

static int complain(const struct contest *c, const char *what, int error)
{
    row_note("%s: %s: %s", c->peer->name, what, peer_error_text(error));
    return error;
}

static bool remember(struct contest *c, uint64_t record, uint64_t version)
{
    if (c->logged == c->log_room) {
        size_t room = c->log_room == 0 ? 4096 : c->log_room * 2;
        struct written *log = realloc(c->log, room * sizeof *log);
        if (log == NULL)
            return false;
        c->log = log;
        c->log_room = room;
    }
    c->log[c->logged++] = (struct written){record, version};
    return true;
}

static int touch_all(struct contest *c)
{
    uint8_t bytes[RECORD_BYTES];
    uint64_t records = c->peer->records(c->handle);
    int rc = 0;
    for (uint64_t r = 0; rc == 0 && r < records; r += 4096 / RECORD_BYTES)
        rc = c->peer->read(c->handle, r, bytes);
    return rc;
}

static int batch(struct contest *c, unsigned commits, int64_t until_ns)
{
    const struct workload *w = &c->work;
    uint64_t *version = &c->version;
    struct series round = {0};
    uint64_t records = c->peer->records(c->handle), written = machine_written_bytes();
    unsigned i = 0;
    for (; i < commits && (until_ns == 0 || bench_now_ns() < until_ns); i++) {
        uint64_t chosen[RECORDS_A_COMMIT_MAX];
        ++*version;
        for (unsigned n = 0; n < w->records; n++) {
            chosen[n] = w->hot ? records / 2 : peer_mix(*version * 64 + n) % records;
            if (!remember(c, chosen[n], *version))
                return ENOMEM;
        }
        int64_t begin = bench_now_ns();
        int rc = c->peer->update(c->handle, chosen, w->records, *version);
        double us = (double)(bench_now_ns() - begin) * 1e-3;
        if (rc != 0)
            return rc;
        if (!series_add(&c->us, us) || !series_add(&round, us))
            return ENOMEM;
    }
    series_add(&c->round_us, series_median(&round));
    series_release(&round);
    c->written_bytes += machine_written_bytes() - written;
    c->commits += i;
    return 0;
}

static int by_record_then_version(const void *a, const void *b)
{
    const struct written *x = a, *y = b;
    if (x->record != y->record)
        return x->record < y->record ? -1 : 1;
    return x->version < y->version ? -1 : x->version > y->version;
}

/* ENOENT: a raw log, which keeps only its newest append; at least that must be right. */
static int verify(struct contest *c)
{
    size_t kept = 0;
    qsort(c->log, c->logged, sizeof *c->log, by_record_then_version);
    for (size_t i = 0; i < c->logged; i++) {
        uint8_t got[RECORD_BYTES], expected[RECORD_BYTES];
        if (i + 1 < c->logged && c->log[i + 1].record == c->log[i].record)
            continue;
        int rc = c->peer->read(c->handle, c->log[i].record, got);
        if (rc == ENOENT)
            continue;
        record_fill(expected, c->log[i].record, c->log[i].version);
        if (rc != 0 || memcmp(got, expected, RECORD_BYTES) != 0)
            return rc != 0 ? rc : EUCLEAN;
        kept++;
    }
    return kept > 0 ? 0 : EUCLEAN;
}

static bool is_log(const struct store_peer *peer)
{
    return peer == &store_raw_log_records || peer == &store_raw_log_records_direct ||
           peer == &store_raw_log_pages_direct;
}

static int finish(struct contest *c)
{
    int rc = is_log(c->peer) ? verify(c) : 0;
    int closed = c->peer->close(c->handle);
    c->handle = NULL;
    if (rc == 0)
        rc = closed;
    if (rc != 0 || is_log(c->peer))
        return rc;
    rc = c->peer->open(&c->handle, c->peer, c->path);
    if (rc != 0)
        return rc;
    rc = verify(c);
    closed = c->peer->close(c->handle);
    c->handle = NULL;
    return rc != 0 ? rc : closed;
}

/* Whom the first peer is compared with.  What appends past the cache is shown, not compared. */
static bool is_compared(const struct contest *first, const struct contest *other)
{
    return !first->peer->durable || (other->peer->durable && other->peer != &store_raw_log_records_direct);
}

static void print_rows(struct contest *contests, unsigned count)
{
    double medians[PEERS_MAX];
    for (unsigned i = 0; i < count; i++)
        medians[i] = series_median(&contests[i].us);
    for (unsigned i = 0; i < count; i++) {
        struct contest *c = &contests[i];
        struct row row = {.bench = c->work.bench,
                          .peer = c->peer->name,
                          .processes = 1,
                          .threads = 1,
                          .n = c->commits,
                          .unit = "us",
                          .median = medians[i],
                          .low = series_quantile(&c->round_us, 0),
                          .high = series_quantile(&c->round_us, 1),
                          .p99 = series_quantile(&c->us, 0.99),
                          .p999 = c->work.seconds != 0 ? series_quantile(&c->us, 0.999) : 0,
                          .most = series_quantile(&c->us, 1),
                          .written_per_op = c->commits == 0 ? -1 : (double)c->written_bytes / (double)c->commits,
                          .verified = !c->wrong,
                          .remark = c->peer->remark};
        unsigned r = 0;
        for (unsigned k = 0; i == 0 && k < count && r < ROW_RATIOS; k++)
            if (k != i && medians[k] > 0 && contests[k].ratio.count == 0 && is_compared(c, &contests[k])) {
                row.ratios[r].to = contests[k].peer->name;
                row.ratios[r++].ratio = medians[i] / medians[k];
            }
        if (c->ratio.count != 0) {
            row.ratios[0].to = contests[0].work.bench;
            row.ratios[0].ratio = series_median(&c->ratio);
        }
        row_print(&row);
    }
}

static int prepare(struct contest *c, const struct commit_options *o)
{
    snprintf(c->path, sizeof c->path, "%s/%s-%s", o->scratch, c->work.bench, c->peer->name);
    progress("%s: loading %s", c->work.bench, c->peer->name);
    int rc = c->peer->load(c->peer, c->path, c->work.mib << 20);
    if (rc == 0)
        rc = c->peer->open(&c->handle, c->peer, c->path);
    if (rc == 0 && c->work.touch_all)
        rc = touch_all(c);
    if (rc == 0)
        rc = batch(c, c->work.warm_up != 0 ? c->work.warm_up : o->batch / 4 + 1, 0);
    if (rc != 0)
        complain(c, "load", rc);
    c->us.count = c->round_us.count = 0;
    c->written_bytes = c->commits = 0;
    return rc;
}

static double last_of(const struct series *series)
{
    return series->count != 0 ? series->values[series->count - 1] : 0;
}

/* peer and work of each are set.  same_kind: they are one peer in different conditions, compared round by round. */
static int compete(struct contest *contests, unsigned count, const struct commit_options *o, unsigned rounds,
                   bool same_kind)
{
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < count; i++)
        rc = prepare(&contests[i], o);
    for (unsigned round = 0; rc == 0 && round < rounds; round++) {
        for (unsigned i = 0; rc == 0 && i < count; i++) {
            struct contest *c = &contests[i];
            progress("%s: round %u of %u: %s", c->work.bench, round + 1, rounds, c->peer->name);
            rc = c->work.seconds == 0
                     ? batch(c, o->batch * c->work.batch_scale, 0)
                     : batch(c, UINT32_MAX, bench_now_ns() + (int64_t)(c->work.seconds * 1000000000 / rounds));
            if (rc != 0)
                complain(c, "commit", rc);
            else if (same_kind && i != 0 && last_of(&contests[0].round_us) > 0)
                series_add(&c->ratio, last_of(&c->round_us) / last_of(&contests[0].round_us));
        }
    }
    for (unsigned i = 0; i < count; i++) {
        int finished = contests[i].handle == NULL ? 0 : finish(&contests[i]);
        contests[i].wrong = finished != 0;
        if (finished != 0)
            rc = complain(&contests[i], "verify", finished);
    }
    if (rc == 0)
        print_rows(contests, count);
    for (unsigned i = 0; i < count; i++) {
        series_release(&contests[i].us);
        series_release(&contests[i].round_us);
        series_release(&contests[i].ratio);
        free(contests[i].log);
        remove(contests[i].path);
    }
    return rc;
}

static int contest(const struct commit_options *o, const struct workload *w, const struct store_peer *const *peers,
                   unsigned count)
{
    struct contest contests[PEERS_MAX] = {0};
    for (unsigned i = 0; i < count; i++) {
        contests[i].peer = peers[i];
        contests[i].work = *w;
    }
    return compete(contests, count, o, o->rounds, false);
}

int commit_durable(const struct commit_options *o)
{
    static const struct store_peer *const peers[] = {
        &store_stead_durable,
        &store_lmdb_sync,
#if defined(BENCH_SQLITE)
        &store_sqlite_full,
#endif
        &store_raw_log_records,
        &store_raw_log_pages_direct,
        &store_raw_log_records_direct
    };
    static const unsigned records[] = {1, 8, 64};
    static const char *const names[] = {"durable.1", "durable.8", "durable.64"};
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < 3; i++)
        rc = contest(o,
                     &(struct workload){.bench = names[i], .records = records[i], .mib = o->size_mib, .batch_scale = 1},
                     peers, o->only_stead ? 1 : sizeof peers / sizeof peers[0]);
    return rc;
}

/* Long enough that each peer pays its log back several times: how long does the unluckiest commit take? */
int commit_latency(const struct commit_options *o)
{
    static const struct store_peer *const peers[] = {
        &store_stead_durable,
        &store_lmdb_sync,
#if defined(BENCH_SQLITE)
        &store_sqlite_full
#endif
    };
    static const unsigned records[] = {8, 64};
    static const char *const names[] = {"latency.8", "latency.64"};
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < 2 && o->latency_s != 0; i++)
        rc = contest(
            o,
            &(struct workload){.bench = names[i], .records = records[i], .mib = o->size_mib, .seconds = o->latency_s},
            peers, o->only_stead ? 1 : sizeof peers / sizeof peers[0]);
    return rc;
}

/* The same commit in a small store and in a large one that is fully resident: stead beside itself.  Before the first round
 * nearly every page of the small one was written: from then on all of it is private, and its commits cost what they will. */
static int commit_sizes(const struct commit_options *o)
{
    enum { ROUNDS_SCALE = 8, BATCH_SCALE = 2, WRITES_A_PAGE = 5, PAGES_A_MIB = 256 };
    const uint64_t small = o->size_mib < 16 ? o->size_mib : 16;
    struct contest contests[2] = {
        {.peer = &store_stead_buffered, .work = {.bench = "buffered.small", .mib = small}},
        {.peer = &store_stead_buffered, .work = {.bench = "buffered.resident", .mib = o->resident_mib}}};
    for (unsigned i = 0; i < 2; i++) {
        struct workload *work = &contests[i].work;
        work->records = 1;
        work->touch_all = true;
        work->batch_scale = BATCH_SCALE;
        work->warm_up = (unsigned)small * PAGES_A_MIB * WRITES_A_PAGE;
    }
    return compete(contests, 2, o, o->rounds * ROUNDS_SCALE, true);
}

int commit_buffered(const struct commit_options *o)
{
    static const struct store_peer *const peers[] = {
        &store_stead_buffered,
        &store_lmdb_nosync,
#if defined(BENCH_SQLITE)
        &store_sqlite_normal
#endif
    };
    const struct workload workloads[] = {
        {.bench = "buffered.hot", .records = 1, .mib = o->size_mib, .hot = true, .batch_scale = 20},
        {.bench = "buffered.random", .records = 1, .mib = o->size_mib, .batch_scale = 20}};
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < sizeof workloads / sizeof workloads[0]; i++)
        rc = contest(o, &workloads[i], peers, o->only_stead ? 1 : sizeof peers / sizeof peers[0]);
    return rc != 0 || o->resident_mib == 0 ? rc : commit_sizes(o);
}
