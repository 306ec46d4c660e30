/*
 * commit.c -- what it costs to make a change permanent, beside LMDB, SQLite and the bare disk, in one interleaved run.
 *
 *   commit [--size MIB] [--rounds N] [--batch COMMITS] [--resident MIB] [--load MIB] [--recover MIB]
 *          [--latency SECONDS] [--threads N] [--only durable,buffered,latency,threads,load,recover] [--stead-only]
 *          [--forbid perf|all] [--csv] [--dir D]
 *
 *   durable   records of 64 B on 1, 8 and 64 random pages of a 256 MiB data set; a commit returns when power loss can no
 *             longer undo it                                                           commit_rounds.c
 *   buffered  one record: the same page again and again; a random page of 256 MiB; a random page of a 16 MiB and of a
 *             fully resident 4 GiB store, in turn (--resident 0: not these two)        commit_rounds.c
 *   latency   records of 64 B on 8 and 64 random pages, each peer for some seconds, so that logs are paid back several times:
 *             the median, the tails and the longest single commit                     commit_rounds.c
 *   threads   one record of 64 B by each of 1, 2, 4, ... threads at once: durable commits a second     commit_threads.c
 *   load      1 GiB of new objects in one commit: time, and bytes written to the device  commit_load.c
 *   recover   a process is killed with a long log: the next open's speed               commit_recover.c
 *
 * --forbid: as where system calls are not allowed (support/forbid.h).
 *
 * Contents differ at every commit (some peers skip a write that changes nothing) and are read back at the end.
 */
#include "bench/commit.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/support/forbid.h"
#include "bench/support/row.h"
#include "bench/support/scratch.h"

static int usage(void)
{
    fprintf(stderr,
            "usage: commit [--size MIB] [--rounds N] [--batch COMMITS] [--resident MIB] [--load MIB] [--recover MIB]\n"
            "              [--latency SECONDS] [--threads N] [--only durable,buffered,latency,threads,load,recover]\n"
            "              [--stead-only] [--forbid perf|all] [--csv] [--dir DIRECTORY]\n");
    return 2;
}

static bool parse_number(const char *text, uint64_t *number)
{
    char *end;
    unsigned long long value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || value > 1000000)
        return false;
    *number = value;
    return true;
}

enum {
    OPT_SIZE = 1,
    OPT_ROUNDS,
    OPT_BATCH,
    OPT_RESIDENT,
    OPT_LOAD,
    OPT_RECOVER,
    OPT_LATENCY,
    OPT_THREADS,
    OPT_ONLY,
    OPT_STEAD,
    OPT_FORBID,
    OPT_CSV,
    OPT_DIR
};

static const struct option long_options[] = {
    {"size", required_argument, NULL, OPT_SIZE},       {"rounds", required_argument, NULL, OPT_ROUNDS},
    {"batch", required_argument, NULL, OPT_BATCH},     {"resident", required_argument, NULL, OPT_RESIDENT},
    {"load", required_argument, NULL, OPT_LOAD},       {"recover", required_argument, NULL, OPT_RECOVER},
    {"latency", required_argument, NULL, OPT_LATENCY}, {"threads", required_argument, NULL, OPT_THREADS},
    {"only", required_argument, NULL, OPT_ONLY},       {"stead-only", no_argument, NULL, OPT_STEAD},
    {"forbid", required_argument, NULL, OPT_FORBID},   {"csv", no_argument, NULL, OPT_CSV},
    {"dir", required_argument, NULL, OPT_DIR},         {NULL, 0, NULL, 0}};

struct arguments {
    struct commit_options options;
    const char *only, *directory;
};

static bool parse_option(int option, const char *text, struct arguments *a)
{
    struct commit_options *o = &a->options;
    uint64_t number = 0;
    if (option >= OPT_SIZE && option <= OPT_THREADS && !parse_number(text, &number))
        return false;
    switch (option) {
    case OPT_SIZE:
        o->size_mib = number;
        return number > 0;
    case OPT_ROUNDS:
        o->rounds = (unsigned)number;
        return number > 0;
    case OPT_BATCH:
        o->batch = (unsigned)number;
        return number > 0;
    case OPT_RESIDENT:
        o->resident_mib = number;
        return true;
    case OPT_LOAD:
        o->load_mib = number;
        return true;
    case OPT_RECOVER:
        o->recover_mib = number;
        return true;
    case OPT_LATENCY:
        o->latency_s = number;
        return true;
    case OPT_THREADS:
        o->threads = (unsigned)number;
        return number > 0 && number <= 32;
    case OPT_ONLY:
        a->only = text;
        return true;
    case OPT_STEAD:
        o->only_stead = true;
        return true;
    case OPT_FORBID:
        return forbid(text) == 0;
    case OPT_CSV:
        o->csv = true;
        return true;
    case OPT_DIR:
        a->directory = text;
        return true;
    default:
        return false;
    }
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(const struct commit_options *);
    } parts[] = {{"durable", commit_durable}, {"buffered", commit_buffered}, {"latency", commit_latency},
                 {"threads", commit_threads}, {"load", commit_load},         {"recover", commit_recover}};
    struct arguments a = {.options = {.size_mib = 256,
                                      .resident_mib = 4096,
                                      .load_mib = 1024,
                                      .recover_mib = 44,
                                      .latency_s = 20,
                                      .threads = 8,
                                      .rounds = 5,
                                      .batch = 200},
                          .only = "durable,buffered,latency,threads,load,recover",
                          .directory = "."};
    int option, rc = 0;
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1)
        if (!parse_option(option, optarg, &a))
            return usage();
    a.options.scratch = optind == argc ? scratch_begin(a.directory) : NULL;
    if (a.options.scratch == NULL)
        return usage();
    row_begin(a.options.csv, a.options.scratch);
    for (unsigned i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (strstr(a.only, parts[i].name) != NULL && parts[i].run(&a.options) != 0)
            rc = 1;
        scratch_clear("");
    }
    scratch_end();
    return rc;
}
