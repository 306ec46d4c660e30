/* alloc_work.h -- the workloads of bench/alloc. */
#ifndef BENCH_ALLOC_WORK_H
#define BENCH_ALLOC_WORK_H

#include "alloc_peers.h"

enum { PHASES = 2 };

/* What one process found, of one workload with one peer; in memory shared with the parent. */
struct alloc_result {
    uint64_t operations[PHASES]; /* of the last slice; 0 = it was not of this phase                   */
    double ns[PHASES];           /* of the last slice: wall time an operation, over all threads         */
    uint64_t live_bytes;         /* requested, when `used` was taken                                      */
    uint64_t used_bytes;         /* of the store or of resident memory; 0 = not taken                     */
    uint64_t usable_bytes;       /* what the live blocks were rounded to; 0 = cannot be told                */
    bool verified;               /* every block kept the bytes it was given                               */
    bool absent;                 /* the peer is not installed                                             */
};

struct alloc_work {
    const char *name;
    const char *phases[PHASES]; /* NULL: none */
    bool pairs_of_threads;      /* needs an even number of them */
    unsigned processes;         /* a repetition: more where a process has few slices */
    void (*run)(const struct alloc_peer *peer, unsigned threads, uint64_t scale, uint64_t objects,
                struct alloc_result *result);
};

extern const struct alloc_work alloc_works[];
extern const unsigned alloc_work_count;

#endif
