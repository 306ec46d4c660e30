/* commit.h -- what the parts of bench/commit share. */
#ifndef BENCH_COMMIT_H
#define BENCH_COMMIT_H

#include "bench/peers/peer.h"

struct commit_options {
    uint64_t size_mib;     /* of the data set                                */
    uint64_t resident_mib; /* of the large, fully resident store; 0 = skip   */
    uint64_t load_mib;     /* bulk load; 0 = skip                            */
    uint64_t recover_mib;  /* of log to recover; 0 = skip                    */
    uint64_t latency_s;    /* each peer commits for so long; 0 = skip        */
    unsigned rounds;       /* interleaved: A B C A B C ...                   */
    unsigned batch;        /* commits a peer makes in one round              */
    unsigned threads;      /* at most, for the same by several at once       */
    bool csv, only_stead;
    const char *scratch;
};

int commit_durable(const struct commit_options *options);  /* commit_rounds.c */
int commit_buffered(const struct commit_options *options); /* commit_rounds.c */
int commit_latency(const struct commit_options *options);  /* commit_rounds.c */
int commit_threads(const struct commit_options *options);  /* commit_threads.c */
int commit_load(const struct commit_options *options);     /* commit_load.c */
int commit_recover(const struct commit_options *options);  /* commit_recover.c */

#endif
