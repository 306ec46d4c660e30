/*
 * alloc.c -- the heap beside the allocators made for speed, in one run.
 *
 *   alloc [--works pair,churn,...] [--peers stead,mimalloc,...] [--threads 1,2] [--reps N] [--scale N] [--objects N]
 *         [--pages small|huge] [--other LIBRARY] [--dir D] [--csv]
 *
 * --objects: of bulk, instead of a million; --scale: divides the operations.  --pages: nobody has huge pages, or whoever can
 * ask for them has.  --other: another build's libstead.so, beside this one.  Files are made in D, default here.
 *
 * Every sample is a process of its own, so that none inherits another's memory, and is measured in slices: the peers take
 * turns after each (alloc_turns.c), in another order in each round.  Reported: the median of all slices, the spread,
 * and the ratio to mimalloc: the median of each round's own ratio, with the range of its middle half.  Where it says
 * something, the bytes used for a byte allocated (stead: of the file; others: resident).
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "alloc_turns.h"
#include "alloc_work.h"
#include "support/row.h"
#include "support/scratch.h"
#include "support/series.h"

#define PEERS_MAX 12
#define ROUNDS_MAX 16
#define REFERENCE "mimalloc"
#define TOGETHER_OBJECTS_MAX \
    10000000 /* with more, the processes follow each other: all at once would not fit in memory */

struct options {
    const char *works, *peers, *threads, *directory;
    unsigned reps;
    uint64_t scale, objects;
    bool csv, small_pages;
};

/* What one peer's processes found. */
struct findings {
    struct series ns[PHASES], ratio[PHASES], space, inside;
    double round_ns[PHASES][ROUNDS_MAX]; /* of the repetition in hand; 0 = none */
    uint64_t operations[PHASES];
    bool verified, present;
};

struct sample {
    const struct alloc_work *work;
    const struct alloc_peer *peer;
    const struct options *options;
    unsigned threads;
    struct alloc_result *result;
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

/* In a process of its own. */
static void sample_run(void *arg)
{
    struct sample *sample = arg;
    const struct options *options = sample->options;
    if (options->small_pages)
        (void)prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
    /* Room for what the works hold: 64 MiB each, or the objects of bulk at the 48 bytes that boost takes. */
    if (sample->peer->open(options->directory, (UINT64_C(1) << 30) + options->objects * 64))
        sample->work->run(sample->peer, sample->threads, options->scale, options->objects, sample->result);
    else
        sample->result->absent = true;
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

/* One turn of one process, and what it found in it.  False: it has ended. */
static bool take_turn(struct turns_process *process, struct findings *found, struct alloc_result *result,
                      unsigned round)
{
    bool ended, well = turns_grant(process, &ended);
    found->present = found->present && !result->absent;
    found->verified = found->verified && well && (!ended || result->verified);
    for (unsigned phase = 0; well && phase < PHASES; phase++)
        if (result->operations[phase] != 0 && round < ROUNDS_MAX) {
            found->round_ns[phase][round] = result->ns[phase];
            found->operations[phase] = result->operations[phase];
            result->operations[phase] = 0;
        }
    if (ended && well && result->live_bytes != 0)
        series_add(&found->space, (double)result->used_bytes / (double)result->live_bytes);
    if (ended && well && result->live_bytes != 0 && result->usable_bytes != 0)
        series_add(&found->inside, (double)result->usable_bytes / (double)result->live_bytes);
    return !ended;
}

/* A process a peer, all of them to their ends. */
static void repeat(struct sample *sample, struct findings *found, struct alloc_result *results, unsigned repetition)
{
    struct turns_process processes[PEERS_MAX] = {0};
    bool together = sample->options->objects <= TOGETHER_OBJECTS_MAX;
    unsigned running = 0;
    for (unsigned p = 0; p < alloc_peer_count; p++) {
        memset(&results[p], 0, sizeof results[p]);
        memset(found[p].round_ns, 0, sizeof found[p].round_ns);
        if (!found[p].present)
            continue;
        sample->peer = &alloc_peers[p];
        sample->result = &results[p];
        if (!turns_fork(&processes[p], sample_run, sample)) {
            perror("no process");
            exit(1);
        }
        running++;
        for (unsigned round = 0; !together && processes[p].pid != 0; round++)
            running -= !take_turn(&processes[p], &found[p], &results[p], round);
    }
    for (unsigned round = 0; running != 0; round++)
        for (unsigned i = 0; i < alloc_peer_count; i++) {
            /* Who follows whom changes, too. */
            unsigned n = round % 2 == 0 ? i : alloc_peer_count - 1 - i,
                     p = (n + round / 2 + repetition) % alloc_peer_count;
            if (processes[p].pid == 0)
                continue;
            progress("%s %u threads, repetition %u, round %u, %s", sample->work->name, sample->threads, repetition + 1,
                     round + 1, alloc_peers[p].name);
            running -= !take_turn(&processes[p], &found[p], &results[p], round);
        }
}

/* The repetition's slices, and their ratios to the reference's of the same round. */
static void collect(struct findings *found)
{
    const struct findings *reference = NULL;
    for (unsigned p = 0; p < alloc_peer_count; p++)
        if (strcmp(alloc_peers[p].name, REFERENCE) == 0 && found[p].present)
            reference = &found[p];
    for (unsigned p = 0; p < alloc_peer_count; p++)
        for (unsigned phase = 0; phase < PHASES; phase++)
            for (unsigned round = 0; round < ROUNDS_MAX; round++) {
                double ns = found[p].round_ns[phase][round];
                if (ns == 0)
                    continue;
                series_add(&found[p].ns[phase], ns);
                if (reference != NULL && reference->round_ns[phase][round] != 0)
                    series_add(&found[p].ratio[phase], ns / reference->round_ns[phase][round]);
            }
}

static void print_phase(const struct alloc_work *work, unsigned phase, unsigned threads, unsigned p,
                        struct findings *found)
{
    char name[64], remark[128] = "";
    struct series *ns = &found->ns[phase], *ratio = &found->ratio[phase];
    snprintf(name, sizeof name, "alloc.%s.%s", work->name, work->phases[phase]);
    struct row row = {.bench = name,
                      .peer = alloc_peers[p].name,
                      .processes = 1,
                      .threads = threads,
                      .n = found->operations[phase],
                      .unit = "ns/op",
                      .median = series_median(ns),
                      .low = series_quantile(ns, 0),
                      .high = series_quantile(ns, 1),
                      .written_per_op = -1,
                      .verified = found->verified,
                      .remark = remark};
    if (ratio->count != 0) {
        row.ratios[0].to = REFERENCE;
        row.ratios[0].ratio = series_median(ratio);
        snprintf(remark, sizeof remark, "%zu rounds %.2f..%.2f; ", ratio->count, series_quantile(ratio, 0.25),
                 series_quantile(ratio, 0.75));
    }
    if (phase == 0)
        space_remark(&found->space, &found->inside, remark + strlen(remark), sizeof remark - strlen(remark));
    if (strlen(remark) > 2 && strcmp(remark + strlen(remark) - 2, "; ") == 0)
        remark[strlen(remark) - 2] = '\0';
    row_print(&row);
}

static bool run_work(const struct alloc_work *work, unsigned threads, const struct options *options,
                     struct alloc_result *results)
{
    struct findings *found = calloc(alloc_peer_count, sizeof *found);
    struct sample sample = {.work = work, .threads = threads, .options = options};
    bool all_right = true;
    if (found == NULL)
        return false;
    for (unsigned p = 0; p < alloc_peer_count; p++)
        found[p].verified = found[p].present = listed(options->peers, alloc_peers[p].name);
    for (unsigned repetition = 0; repetition < options->reps * work->processes; repetition++) {
        repeat(&sample, found, results, repetition);
        collect(found);
    }
    progress("%s", "");
    for (unsigned phase = 0; phase < PHASES && work->phases[phase] != NULL; phase++)
        for (unsigned p = 0; p < alloc_peer_count; p++)
            if (found[p].present) {
                print_phase(work, phase, threads, p, &found[p]);
                all_right = all_right && found[p].verified;
            }
    for (unsigned p = 0; p < alloc_peer_count; p++) {
        for (unsigned phase = 0; phase < PHASES; phase++) {
            series_release(&found[p].ns[phase]);
            series_release(&found[p].ratio[phase]);
        }
        series_release(&found[p].space);
        series_release(&found[p].inside);
    }
    free(found);
    return all_right;
}

static bool pages_are(const char *which, struct options *options)
{
    options->small_pages = strcmp(which, "small") == 0;
    if (!options->small_pages && strcmp(which, "huge") != 0)
        return false;
    /* Theirs: asked for when memory is taken from the system.  stead asks for them by itself where it can. */
    return options->small_pages ||
           (setenv("MIMALLOC_LARGE_OS_PAGES", "1", 1) == 0 && setenv("MALLOC_CONF", "thp:always", 1) == 0);
}

static bool parse(int argc, char **argv, struct options *options)
{
    *options = (struct options){.threads = "1,2", .reps = 3, .scale = 1, .objects = 1000000, .directory = "."};
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
        else if (strcmp(argv[i], "--pages") == 0) {
            if (!pages_are(value, options))
                return false;
        } else if (strcmp(argv[i], "--other") == 0)
            alloc_other_library = value;
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
                " [--pages small|huge] [--other LIBRARY] [--dir D] [--csv]\n");
        return 2;
    }
    /* jemalloc's thread-local memory does not fit what the loader keeps free for late libraries. */
    if (getenv("GLIBC_TUNABLES") == NULL && setenv("GLIBC_TUNABLES", "glibc.rtld.optional_static_tls=65536", 1) == 0)
        (void)execv("/proc/self/exe", argv); /* without: jemalloc is left out */
    struct alloc_result *results =
        mmap(NULL, PEERS_MAX * sizeof *results, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (results == MAP_FAILED || alloc_peer_count > PEERS_MAX || signal(SIGPIPE, SIG_IGN) == SIG_ERR)
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
            all_right = run_work(&alloc_works[w], threads, &options, results) && all_right;
        }
    }
    scratch_end();
    return all_right ? 0 : 1;
}
