/*
 * commit_recover.c -- recovery: a process commits until its log is as long as asked, then dies by SIGKILL; how fast is the
 * next open, in bytes of log a second?
 *
 * Beside it the least that any recovery must do for the disk: the log read, written anew and synced (no cached log is
 * trusted), and every page that the log names read, written and synced - both as one long sequential copy of as many bytes.
 * The records are scattered, so that there are more bytes of pages than of log: the hard case.
 */
#include "bench/commit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/support/clock.h"
#include "bench/support/row.h"
#include "bench/support/series.h"

enum { RECORDS_A_COMMIT = 64, COMMITS_MAX = 200000 };

struct crash {
    uint64_t first, commits, log_bytes; /* version before the first commit: no round repeats another's contents */
    uint64_t pages;                     /* named by the log                                                     */
};

enum { RECORDS_A_PAGE = 4096 / RECORD_BYTES };

/* In a child: commits until the log holds `bytes`, says how many through the pipe, dies. */
static _Noreturn void commit_and_die(const char *path, uint64_t bytes, uint64_t first, int report)
{
    void *handle;
    struct crash crash = {.first = first};
    int rc = store_stead_buffered.open(&handle, &store_stead_buffered, path);
    if (rc != 0)
        _exit(1);
    uint64_t records = store_stead_buffered.records(handle), chosen[RECORDS_A_COMMIT];
    bool *named = calloc(records / RECORDS_A_PAGE + 1, sizeof *named);
    if (named == NULL)
        _exit(1);
    stead *store;
    rc = stead_open(&store, path, &(stead_options){.flags = STEAD_EXISTING}); /* another handle on the same mapping */
    while (rc == 0 && crash.log_bytes < bytes && crash.commits < COMMITS_MAX) {
        stead_status status;
        for (unsigned n = 0; n < RECORDS_A_COMMIT; n++) {
            chosen[n] = peer_mix((first + crash.commits + 1) * 64 + n) % records;
            crash.pages += !named[chosen[n] / RECORDS_A_PAGE];
            named[chosen[n] / RECORDS_A_PAGE] = true;
        }
        rc = store_stead_buffered.update(handle, chosen, RECORDS_A_COMMIT, first + crash.commits + 1);
        if (rc == 0)
            rc = stead_stat(store, &status);
        if (rc == 0) {
            crash.commits++;
            if (status.log_bytes < crash.log_bytes)
                break; /* checkpointed: longer it does not get */
            crash.log_bytes = status.log_bytes;
        }
    }
    if (rc != 0)
        fprintf(stderr, "commit: %s\n", peer_error_text(rc));
    if (rc == 0 && write(report, &crash, sizeof crash) == sizeof crash)
        kill(getpid(), SIGKILL);
    _exit(1);
}

static int make_crash(const char *path, uint64_t bytes, uint64_t first, struct crash *crash)
{
    int ends[2], status;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return errno;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0)
        commit_and_die(path, bytes, first, ends[1]);
    close(ends[1]);
    ssize_t got = child < 0 ? -1 : read(ends[0], crash, sizeof *crash);
    close(ends[0]);
    if (child < 0 || waitpid(child, &status, 0) != child || got != (ssize_t)sizeof *crash)
        return ECHILD;
    return WIFSIGNALED(status) ? 0 : ECHILD;
}

/* `bytes` read from one file and written to another, blocks there already, one sync. */
static int raw_copy(const char *directory, uint64_t bytes, int64_t *ns)
{
    char from[4200], to[4200];
    enum { CHUNK = 1 << 20 };
    uint8_t *chunk = malloc(CHUNK);
    snprintf(from, sizeof from, "%s/raw-from", directory);
    snprintf(to, sizeof to, "%s/raw-to", directory);
    int in = open(from, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int out = open(to, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int rc = chunk == NULL ? ENOMEM : in < 0 || out < 0 ? errno : 0;
    for (uint64_t at = 0; rc == 0 && at < bytes; at += CHUNK) {
        peer_fill(chunk, CHUNK, at);
        if (pwrite(in, chunk, CHUNK, (off_t)at) != CHUNK || pwrite(out, chunk, CHUNK, (off_t)at) != CHUNK)
            rc = errno;
    }
    if (rc == 0 && (fdatasync(in) != 0 || fdatasync(out) != 0))
        rc = errno;
    int64_t begin = bench_now_ns();
    for (uint64_t at = 0; rc == 0 && at < bytes; at += CHUNK)
        if (pread(in, chunk, CHUNK, (off_t)at) != CHUNK || pwrite(out, chunk, CHUNK, (off_t)at) != CHUNK)
            rc = errno;
    if (rc == 0 && fdatasync(out) != 0)
        rc = errno;
    *ns += bench_now_ns() - begin;
    if (in >= 0)
        close(in);
    if (out >= 0)
        close(out);
    unlink(from);
    unlink(to);
    free(chunk);
    return rc;
}

static int verify_recovered(stead *store, const struct crash *crash)
{
    stead_status status;
    int rc = stead_stat(store, &status);
    if (rc != 0)
        return rc;
    return status.recovered && crash->commits > 0 ? 0 : EUCLEAN;
}

/* The last version written to each record of the last commit must be there. */
static int verify_records(const char *path, const struct crash *crash)
{
    void *handle;
    int rc = store_stead_buffered.open(&handle, &store_stead_buffered, path);
    if (rc != 0)
        return rc;
    uint64_t records = store_stead_buffered.records(handle);
    for (unsigned n = 0; rc == 0 && n < RECORDS_A_COMMIT; n++) {
        uint8_t got[RECORD_BYTES], expected[RECORD_BYTES];
        uint64_t version = crash->first + crash->commits, record = peer_mix(version * 64 + n) % records;
        rc = store_stead_buffered.read(handle, record, got);
        record_fill(expected, record, version);
        if (rc == 0 && memcmp(got, expected, RECORD_BYTES) != 0)
            rc = EUCLEAN;
    }
    int closed = store_stead_buffered.close(handle);
    return rc != 0 ? rc : closed;
}

int commit_recover(const struct commit_options *o)
{
    char path[4200];
    struct series ms = {0}, speed = {0}, raw = {0};
    struct crash crash = {0};
    const unsigned rounds = o->rounds < 3 ? o->rounds : 3;
    if (o->recover_mib == 0)
        return 0;
    snprintf(path, sizeof path, "%s/recover", o->scratch);
    progress("recover: loading");
    int rc = store_stead_buffered.load(&store_stead_buffered, path, o->size_mib << 20);
    for (unsigned round = 0; rc == 0 && round < rounds; round++) {
        stead *store;
        int64_t raw_ns = 0;
        progress("recover: round %u of %u", round + 1, rounds);
        rc = make_crash(path, o->recover_mib << 20, (uint64_t)round * COMMITS_MAX, &crash);
        if (rc != 0)
            break;
        rc = raw_copy(o->scratch, crash.log_bytes, &raw_ns);
        if (rc == 0)
            rc = raw_copy(o->scratch, crash.pages * 4096, &raw_ns);
        int64_t begin = bench_now_ns();
        if (rc == 0)
            rc = stead_open(&store, path, &(stead_options){.flags = STEAD_EXISTING});
        int64_t took = bench_now_ns() - begin;
        if (rc != 0)
            break;
        rc = verify_recovered(store, &crash);
        stead_abandon(store);
        if (rc == 0)
            rc = verify_records(path, &crash);
        double mib = (double)crash.log_bytes / (1 << 20);
        series_add(&ms, (double)took * 1e-6);
        series_add(&speed, mib / ((double)took * 1e-9));
        series_add(&raw, mib / ((double)raw_ns * 1e-9));
    }
    if (rc != 0) {
        row_note("recover: %s", peer_error_text(rc));
    } else {
        row_note(
            "recover: %.1f MiB of log, %llu commits of %d records on %.1f MiB of pages, open took %.1f ms (median)",
            (double)crash.log_bytes / (1 << 20), (unsigned long long)crash.commits, RECORDS_A_COMMIT,
            (double)crash.pages / 256, series_median(&ms));
        struct row row = {.bench = "recover",
                          .peer = "stead",
                          .processes = 1,
                          .threads = 1,
                          .n = crash.commits,
                          .unit = "MiB/s",
                          .median = series_median(&speed),
                          .low = series_quantile(&speed, 0),
                          .high = series_quantile(&speed, 1),
                          .written_per_op = -1,
                          .verified = true,
                          .ratios = {{"copy+sync of both", series_median(&speed) / series_median(&raw)}}};
        row_print(&row);
    }
    series_release(&ms);
    series_release(&speed);
    series_release(&raw);
    remove(path);
    return rc;
}
