/*
 * alloc.c -- the heap beside the allocators made for speed, in one run.
 *
 *   alloc [--works pair,churn,...] [--peers stead,mimalloc,...] [--threads 1,2] [--reps N] [--scale N] [--objects N]
 *         [--dir D] [--csv]
 *
 * --objects: of bulk, instead of a million; --scale: divides the operations.  Files are made in D, default here.
 *
 * Every sample is a process of its own, so that none inherits another's memory; the peers take turns within each
 * repetition, so that a noisy moment hits all.  Reported: the median, the spread, the ratio to mimalloc of the same
 * run, and where it says something the bytes used for a byte allocated (stead: of the file; others: resident).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "alloc_work.h"
#include "support/row.h"
#include "support/scratch.h"
#include "support/series.h"

#define PEERS_MAX 8
#define REFERENCE "mimalloc"

struct options {
    const char *works, *peers, *threads, *directory;
    unsigned reps;
    uint64_t scale, objects;
    bool csv;
};

/* Is name, or its beginning up to '(', in the comma-separated list?  NULL: every name is. */
static bool listed(const char *list, const char *name)
{
    if (list == NULL)
        return true;
    size_t whole = strlen(name), stem = strcspn(name, "(");
    for (const char *at = list; *at != '\0'; at += strcspn(at, ",") + (at[strcspn(at, ",")] == ',')) {
        size_t length = strcspn(at, ",");
        if ((length == whole || length == stem) && strncmp(at, name, length) == 0)
            return true;
    }
    return false;
}

/* One sample in a child; result is shared with it. */
static bool sample(const struct alloc_work *work, const struct alloc_peer *peer, unsigned threads,
                   const struct options *options, struct alloc_result *result)
{
    int status;
    memset(result, 0, sizeof *result);
    pid_t child = fork();
    if (child < 0)
        return false;
    if (child == 0) {
        /* Room for what the works hold: 64 MiB each, or the objects of bulk at the 48 bytes that boost takes. */
        if (peer->open(options->directory, (UINT64_C(1) << 30) + options->objects * 64))
            work->run(peer, threads, options->scale, options->objects, result);
        else
            result->absent = true;
        _exit(0);
    }
    return waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* Bytes used for a byte asked for; if it can be told, how much of that is rounding inside blocks, and how much lies around
 * them: headers, free blocks, ends of slabs. */
static void space_remark(struct series *space, struct series *inside, char *text, size_t bytes)
{
    if (space->count != 0 && inside->count != 0)
        snprintf(text, bytes, "used/live %.3f = inside %.3f x around %.3f", series_median(space), series_median(inside),
                 series_median(space) / series_median(inside));
    else if (space->count != 0)
        snprintf(text, bytes, "used/live %.3f", series_median(space));
}

static bool run_work(const struct alloc_work *work, unsigned threads, const struct options *options,
                     struct alloc_result *result)
{
    struct series ns[PEERS_MAX][PHASES] = {0}, space[PEERS_MAX] = {0}, inside[PEERS_MAX] = {0};
    bool verified[PEERS_MAX], present[PEERS_MAX], all_right = true;
    uint64_t operations[PEERS_MAX][PHASES] = {0};
    double reference[PHASES] = {0};
    for (unsigned p = 0; p < alloc_peer_count; p++)
        verified[p] = present[p] = listed(options->peers, alloc_peers[p].name);
    for (unsigned rep = 0; rep < options->reps; rep++)
        for (unsigned p = 0; p < alloc_peer_count; p++) {
            if (!present[p])
                continue;
            progress("%s %u threads, repetition %u, %s", work->name, threads, rep + 1, alloc_peers[p].name);
            bool ended = sample(work, &alloc_peers[p], threads, options, result);
            present[p] = !result->absent;
            verified[p] = verified[p] && ended && result->verified;
            for (unsigned phase = 0; ended && present[p] && phase < PHASES && work->phases[phase] != NULL; phase++) {
                series_add(&ns[p][phase], result->ns[phase]);
                operations[p][phase] = result->operations[phase];
            }
            if (ended && result->live_bytes != 0)
                series_add(&space[p], (double)result->used_bytes / (double)result->live_bytes);
            if (ended && result->live_bytes != 0 && result->usable_bytes != 0)
                series_add(&inside[p], (double)result->usable_bytes / (double)result->live_bytes);
        }
    progress("%s", "");
    for (unsigned phase = 0; phase < PHASES; phase++)
        for (unsigned p = 0; p < alloc_peer_count; p++)
            if (strcmp(alloc_peers[p].name, REFERENCE) == 0)
                reference[phase] = series_median(&ns[p][phase]);
    for (unsigned phase = 0; phase < PHASES && work->phases[phase] != NULL; phase++)
        for (unsigned p = 0; p < alloc_peer_count; p++) {
            char name[64], remark[64] = "";
            if (!present[p])
                continue;
            snprintf(name, sizeof name, "alloc.%s.%s", work->name, work->phases[phase]);
            if (phase == 0)
                space_remark(&space[p], &inside[p], remark, sizeof remark);
            struct row row = {.bench = name,
                              .peer = alloc_peers[p].name,
                              .processes = 1,
                              .threads = threads,
                              .n = operations[p][phase],
                              .unit = "ns/op",
                              .median = series_median(&ns[p][phase]),
                              .low = series_quantile(&ns[p][phase], 0),
                              .high = series_quantile(&ns[p][phase], 1),
                              .written_per_op = -1,
                              .verified = verified[p],
                              .remark = remark[0] ? remark : NULL};
            if (reference[phase] > 0) {
                row.ratios[0].to = REFERENCE;
                row.ratios[0].ratio = row.median / reference[phase];
            }
            row_print(&row);
            all_right = all_right && verified[p];
        }
    for (unsigned p = 0; p < PEERS_MAX; p++) {
        series_release(&ns[p][0]);
        series_release(&ns[p][1]);
        series_release(&space[p]);
        series_release(&inside[p]);
    }
    return all_right;
}

static bool parse(int argc, char **argv, struct options *options)
{
    *options = (struct options){.threads = "1,2", .reps = 5, .scale = 1, .objects = 1000000, .directory = "."};
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--csv") == 0) {
            options->csv = true;
            continue;
        }
        if (value == NULL)
            return false;
        if (strcmp(argv[i], "--works") == 0)
            options->works = value;
        else if (strcmp(argv[i], "--peers") == 0)
            options->peers = value;
        else if (strcmp(argv[i], "--threads") == 0)
            options->threads = value;
        else if (strcmp(argv[i], "--reps") == 0)
            options->reps = (unsigned)strtoul(value, NULL, 10);
        else if (strcmp(argv[i], "--scale") == 0)
            options->scale = strtoull(value, NULL, 10);
        else if (strcmp(argv[i], "--objects") == 0)
            options->objects = strtoull(value, NULL, 10);
        else if (strcmp(argv[i], "--dir") == 0)
            options->directory = value;
        else
            return false;
        i++;
    }
    return options->reps >= 1 && options->reps <= 1000 && options->scale >= 1 && options->scale <= 1000 &&
           options->objects >= 1000 && options->objects <= UINT64_C(1) << 34;
}

int main(int argc, char **argv)
{
    struct options options;
    if (!parse(argc, argv, &options)) {
        fprintf(stderr,
                "usage: alloc [--works LIST] [--peers LIST] [--threads LIST] [--reps N] [--scale N] [--objects N]"
                " [--dir D] [--csv]\n");
        return 2;
    }
    /* jemalloc's thread-local memory does not fit what the loader keeps free for late libraries. */
    if (getenv("GLIBC_TUNABLES") == NULL && setenv("GLIBC_TUNABLES", "glibc.rtld.optional_static_tls=65536", 1) == 0)
        (void)execv("/proc/self/exe", argv); /* without: jemalloc is left out */
    struct alloc_result *result = mmap(NULL, sizeof *result, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (result == MAP_FAILED)
        return 1;
    bool all_right = true;
    options.directory = scratch_begin(options.directory);
    if (options.directory == NULL) {
        perror("no directory for files");
        return 1;
    }
    row_begin(options.csv, options.directory);
    for (unsigned w = 0; w < alloc_work_count; w++) {
        if (!listed(options.works, alloc_works[w].name))
            continue;
        for (const char *at = options.threads; *at != '\0'; at += strcspn(at, ",") + (at[strcspn(at, ",")] == ',')) {
            unsigned threads = (unsigned)strtoul(at, NULL, 10);
            if (threads < 1 || threads > 64 || (alloc_works[w].pairs_of_threads && threads % 2 != 0))
                continue;
            all_right = run_work(&alloc_works[w], threads, &options, result) && all_right;
        }
    }
    scratch_end();
    return all_right ? 0 : 1;
}
