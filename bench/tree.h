/* tree.h -- what the parts of bench/tree share. */
#ifndef BENCH_TREE_H
#define BENCH_TREE_H

#include <stdbool.h>
#include <stdint.h>

#include "bench/peers/peer.h"

enum { TREE_THREADS_MAX = 32, TREE_PROCESSES_MAX = 32, TREE_WORKERS_MAX = 256, TREE_SEARCHES = 10 };

struct tree_options {
    stead_sharing sharing;
    unsigned threads, processes;
    uint64_t count; /* keys a thread */
    unsigned repetitions;
    bool csv;
    bool all_peers;        /* the nested pthread locks too            */
    const char *directory; /* side by side: where scratch files go    */
    const char *file;      /* session: the store, kept by its user    */
    bool keep;
    uint64_t kill_at;      /* session: 0 = never                      */
    uint64_t commit_every; /* session, SOLE: inserts between commits; 0 = chosen */
};

/* Every peer in turn, as often as asked, in processes of their own; prints one row a phase and peer. */
int tree_run(const struct tree_options *options);
/* One file that outlives the program: finds, verifies, inserts, searches, removes, keeps or dies. */
int tree_session(const struct tree_options *options);

#endif
