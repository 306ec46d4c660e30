/*
 * open.c -- what it costs to come back: open, root, first lookup, close, on stores of different sizes, page cache warm.
 *
 *   open [--sizes MIB,MIB,...] [--reps N] [--csv] [--dir D]
 *
 * Sizes default to 16 and 1024 MiB: reopening must not depend on them.  One repetition opens, reads one record (another one
 * each time, verified) and closes, for each peer and size in turn; medians; the last column compares with the same peer's
 * smallest size.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/peers/peer.h"
#include "bench/support/clock.h"
#include "bench/support/row.h"
#include "bench/support/scratch.h"
#include "bench/support/series.h"

enum { SIZES_MAX = 6, PEERS_MAX = 4 };
enum part { PART_OPEN, PART_LOOKUP, PART_CLOSE, PART_TOTAL, PARTS };
static const char *const part_names[PARTS] = {"open.open", "open.lookup", "open.close", "open.total"};

static const struct store_peer *const peers[] = {&store_stead_durable, &store_raw_map, &store_lmdb_sync,
#if defined(BENCH_SQLITE)
                                                 &store_sqlite_full
#endif
};
enum { PEERS = sizeof peers / sizeof peers[0] };

struct options {
    uint64_t mib[SIZES_MAX];
    unsigned sizes, repetitions;
    bool csv;
    const char *directory;
};

static struct series us[PEERS_MAX][SIZES_MAX][PARTS];

static int usage(void)
{
    fprintf(stderr, "usage: open [--sizes MIB,MIB,...] [--reps N] [--csv] [--dir DIRECTORY]\n");
    return 2;
}

static bool parse_sizes(const char *text, struct options *o)
{
    o->sizes = 0;
    while (o->sizes < SIZES_MAX) {
        char *end;
        unsigned long long mib = strtoull(text, &end, 10);
        if (end == text || mib == 0 || mib > 1024 * 1024)
            return false;
        o->mib[o->sizes++] = mib;
        if (*end == '\0')
            return true;
        if (*end != ',')
            return false;
        text = end + 1;
    }
    return false;
}

static int once(const struct store_peer *peer, const char *path, uint64_t draw, double part_us[PARTS])
{
    uint8_t got[RECORD_BYTES], expected[RECORD_BYTES];
    void *handle;
    int64_t begin = bench_now_ns();
    int rc = peer->open(&handle, peer, path);
    int64_t opened = bench_now_ns();
    if (rc != 0)
        return rc;
    uint64_t records = peer->records(handle), record = peer_mix(draw) % (records == 0 ? 1 : records);
    int64_t asked = bench_now_ns();
    rc = peer->read(handle, record, got);
    int64_t read = bench_now_ns();
    int closed = peer->close(handle);
    int64_t end = bench_now_ns();
    record_fill(expected, record, 0);
    if (rc == 0 && memcmp(got, expected, RECORD_BYTES) != 0)
        rc = EUCLEAN;
    part_us[PART_OPEN] = (double)(opened - begin) * 1e-3;
    part_us[PART_LOOKUP] = (double)(read - asked) * 1e-3;
    part_us[PART_CLOSE] = (double)(end - read) * 1e-3;
    part_us[PART_TOTAL] = part_us[PART_OPEN] + part_us[PART_LOOKUP] + part_us[PART_CLOSE];
    return rc != 0 ? rc : closed;
}

static int measure(const struct options *o, char paths[PEERS][SIZES_MAX][4200])
{
    for (unsigned r = 0; r < o->repetitions; r++) {
        progress("repetition %u of %u", r + 1, o->repetitions);
        for (unsigned s = 0; s < o->sizes; s++) {
            for (unsigned p = 0; p < PEERS; p++) {
                double part_us[PARTS];
                int rc = once(peers[p], paths[p][s], r, part_us);
                if (rc != 0) {
                    row_note("%s, %llu MiB: %s", peers[p]->name, (unsigned long long)o->mib[s], peer_error_text(rc));
                    return rc;
                }
                for (unsigned part = 0; part < PARTS; part++)
                    series_add(&us[p][s][part], part_us[part]);
            }
        }
    }
    return 0;
}

static void print_rows(const struct options *o)
{
    char name[64], to[32];
    for (unsigned part = 0; part < PARTS; part++) {
        for (unsigned p = 0; p < PEERS; p++) {
            for (unsigned s = 0; s < o->sizes; s++) {
                struct series *own = &us[p][s][part];
                snprintf(name, sizeof name, "%s %llu MiB", peers[p]->name, (unsigned long long)o->mib[s]);
                struct row row = {.bench = part_names[part],
                                  .peer = name,
                                  .processes = 1,
                                  .threads = 1,
                                  .n = o->repetitions,
                                  .unit = "us",
                                  .median = series_median(own),
                                  .low = series_quantile(own, 0),
                                  .high = series_quantile(own, 1),
                                  .p99 = series_quantile(own, 0.99),
                                  .written_per_op = -1,
                                  .verified = true};
                snprintf(to, sizeof to, "its %llu MiB", (unsigned long long)o->mib[0]);
                double small = series_median(&us[p][0][part]);
                if (s > 0 && small > 0) {
                    row.ratios[0].to = to;
                    row.ratios[0].ratio = row.median / small;
                }
                row_print(&row);
            }
        }
    }
}

int main(int argc, char **argv)
{
    static const struct option long_options[] = {{"sizes", required_argument, NULL, 's'},
                                                 {"reps", required_argument, NULL, 'r'},
                                                 {"csv", no_argument, NULL, 'c'},
                                                 {"dir", required_argument, NULL, 'd'},
                                                 {NULL, 0, NULL, 0}};
    static char paths[PEERS][SIZES_MAX][4200];
    struct options o = {.mib = {16, 1024}, .sizes = 2, .repetitions = 101, .directory = "."};
    int option, rc = 0;
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        if (option == 's' && !parse_sizes(optarg, &o))
            return usage();
        if (option == 'r' && (o.repetitions = (unsigned)strtoul(optarg, NULL, 10)) == 0)
            return usage();
        if (option == 'd')
            o.directory = optarg;
        if (option == '?')
            return usage();
        o.csv |= option == 'c';
    }
    const char *scratch = scratch_begin(o.directory);
    if (optind != argc || scratch == NULL)
        return usage();
    row_begin(o.csv, scratch);
    for (unsigned p = 0; rc == 0 && p < PEERS; p++) {
        for (unsigned s = 0; rc == 0 && s < o.sizes; s++) {
            snprintf(paths[p][s], sizeof paths[p][s], "%s/%s-%llu", scratch, peers[p]->name,
                     (unsigned long long)o.mib[s]);
            progress("loading %s, %llu MiB", peers[p]->name, (unsigned long long)o.mib[s]);
            rc = peers[p]->load(peers[p], paths[p][s], o.mib[s] << 20);
            if (rc != 0)
                row_note("%s: load: %s", peers[p]->name, peer_error_text(rc));
        }
    }
    if (rc == 0)
        rc = measure(&o, paths);
    if (rc == 0)
        print_rows(&o);
    for (unsigned p = 0; p < PEERS; p++)
        for (unsigned s = 0; s < o.sizes; s++)
            for (unsigned part = 0; part < PARTS; part++)
                series_release(&us[p][s][part]);
    scratch_end();
    return rc == 0 ? 0 : 1;
}
