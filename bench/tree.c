/*
 * tree.c -- the old tstshmem, grown up: threads and processes insert into one shared unbalanced binary tree under the
 * exclusive lock taken twice, search it under the shared lock taken twice, and remove everything.
 *
 * Two programs in one:
 *
 *   tree [--threads N] [--processes P] [--count C] [--mode sole|turns|live] [--reps R] [--csv] [--dir D] [--all]
 *       side by side in one run (tree_run.c): stead, malloc + pthread_rwlock (threads only), LMDB; interleaved A B C A
 * B C, medians, ratios of each round.  Files are scratch.
 *
 *   tree --file PATH [--keep] [--kill-at K] ...
 *       a session with a store that outlives the program (tree_session.c): reports and verifies what it finds through
 * the root pointer, builds if there is nothing, removes everything unless --keep, and with --kill-at dies by SIGKILL in
 * the middle of its K-th insert.
 *
 * Exit code: 0 all went well and verified, 1 something was wrong, 2 usage.
 */
#include "bench/tree.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int usage(const char *wrong)
{
    if (wrong != NULL)
        fprintf(stderr, "tree: %s\n", wrong);
    fprintf(stderr,
            "usage: tree [--threads 1..%d] [--processes 1..%d] [--count KEYS] [--mode sole|turns|live]\n"
            "            [--reps N] [--csv] [--all] [--dir DIRECTORY]             side by side with malloc and LMDB\n"
            "       tree --file PATH [--keep] [--kill-at INSERTS] [--commit-every INSERTS] [--threads ...]\n"
            "                                                                      a store that outlives the program\n",
            TREE_THREADS_MAX, TREE_PROCESSES_MAX);
    return 2;
}

static bool parse_number(const char *text, uint64_t low, uint64_t high, uint64_t *number)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || *text < '0' || *text > '9' || *end != '\0' || value < low || value > high)
        return false;
    *number = value;
    return true;
}

static bool parse_mode(const char *text, stead_sharing *sharing)
{
    static const char *const names[] = {[STEAD_SOLE] = "sole", [STEAD_TURNS] = "turns", [STEAD_LIVE] = "live"};
    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(text, names[i]) == 0) {
            *sharing = (stead_sharing)i;
            return true;
        }
    }
    return false;
}

enum {
    OPT_THREADS = 1,
    OPT_PROCESSES,
    OPT_COUNT,
    OPT_MODE,
    OPT_REPS,
    OPT_CSV,
    OPT_ALL,
    OPT_DIR,
    OPT_FILE,
    OPT_KEEP,
    OPT_KILL,
    OPT_COMMIT
};

static const struct option long_options[] = {{"threads", required_argument, NULL, OPT_THREADS},
                                             {"processes", required_argument, NULL, OPT_PROCESSES},
                                             {"count", required_argument, NULL, OPT_COUNT},
                                             {"mode", required_argument, NULL, OPT_MODE},
                                             {"reps", required_argument, NULL, OPT_REPS},
                                             {"csv", no_argument, NULL, OPT_CSV},
                                             {"all", no_argument, NULL, OPT_ALL},
                                             {"dir", required_argument, NULL, OPT_DIR},
                                             {"file", required_argument, NULL, OPT_FILE},
                                             {"keep", no_argument, NULL, OPT_KEEP},
                                             {"kill-at", required_argument, NULL, OPT_KILL},
                                             {"commit-every", required_argument, NULL, OPT_COMMIT},
                                             {NULL, 0, NULL, 0}};

static bool parse_option(int option, const char *text, struct tree_options *o)
{
    uint64_t number;
    switch (option) {
    case OPT_THREADS:
        return parse_number(text, 1, TREE_THREADS_MAX, &number) && (o->threads = (unsigned)number, true);
    case OPT_PROCESSES:
        return parse_number(text, 1, TREE_PROCESSES_MAX, &number) && (o->processes = (unsigned)number, true);
    case OPT_REPS:
        return parse_number(text, 1, 1000, &number) && (o->repetitions = (unsigned)number, true);
    case OPT_COUNT:
        return parse_number(text, 1, UINT64_C(50000000), &o->count);
    case OPT_KILL:
        return parse_number(text, 1, UINT64_MAX, &o->kill_at);
    case OPT_COMMIT:
        return parse_number(text, 1, UINT64_MAX, &o->commit_every);
    case OPT_MODE:
        return parse_mode(text, &o->sharing);
    case OPT_DIR:
        o->directory = text;
        return true;
    case OPT_FILE:
        o->file = text;
        return true;
    case OPT_CSV:
        o->csv = true;
        return true;
    case OPT_ALL:
        o->all_peers = true;
        return true;
    case OPT_KEEP:
        o->keep = true;
        return true;
    default:
        return false;
    }
}

int main(int argc, char **argv)
{
    struct tree_options o = {.threads = 1, .processes = 1, .count = 100000, .repetitions = 5, .directory = "."};
    int option;
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1)
        if (!parse_option(option, optarg, &o))
            return usage(option == '?' ? NULL : "a value is out of range");
    if (optind != argc)
        return usage("no arguments without -- are expected");
    if (o.sharing == STEAD_SOLE && o.processes > 1)
        return usage("--mode sole is one process; turns and live are for several");
    if (o.threads * o.processes > TREE_WORKERS_MAX)
        return usage("more than 256 workers");
    if (o.file == NULL && (o.keep || o.kill_at != 0 || o.commit_every != 0))
        return usage("--keep, --kill-at and --commit-every need --file");
    return o.file != NULL ? tree_session(&o) : tree_run(&o);
}
