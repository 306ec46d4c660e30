/*
 * row.h -- one line a result.
 *
 * Text: for people: value with its spread, then ratios to the peers.  CSV: the same figures in fixed columns, then
 * proof (did the data verify) and place (commit, file system, processor), so that a row can be quoted years later.
 */
#ifndef BENCH_ROW_H
#define BENCH_ROW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ROW_RATIOS = 4 };

struct row {
    const char *bench; /* "tree.insert"                                    */
    const char *peer;  /* "stead(sole)"                                    */
    unsigned processes, threads;
    uint64_t n;       /* operations measured, over all workers            */
    const char *unit; /* of median, low, high: "ns/op", "us", "MiB/s"     */
    double median, low, high;
    double p99;            /* 0 = not measured; same unit                      */
    double p999, most;     /* the same                                         */
    double written_per_op; /* bytes sent to the device an operation; < 0 = not measured */
    bool has_faults;
    double faults; /* page faults of all workers, the median of the rounds    */
    struct {
        const char *to; /* "malloc+rwlock"; NULL ends the list              */
        double ratio;
    } ratios[ROW_RATIOS];
    bool verified;      /* the data was read back and is right              */
    const char *remark; /* NULL or a few words: "power loss may corrupt"    */
};

/* Rows go to standard output.  directory: where the files measured are. */
void row_begin(bool csv, const char *directory);
void row_print(const struct row *row);
/* A remark between rows; in CSV a line that begins with '#'. */
void row_note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* One line on a terminal, overwritten by the next; silent when standard error is none.  An empty text clears it. */
void progress(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
