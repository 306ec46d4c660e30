/* series.h -- measured values and their quantiles.  The machine is noisy: benches report medians and the spread. */
#ifndef BENCH_SERIES_H
#define BENCH_SERIES_H

#include <stdbool.h>
#include <stddef.h>

struct series {
    double *values;
    size_t count, room;
};

/* False when memory ran out; the series then stays as it was. */
bool series_add(struct series *series, double value);
/* quantile 0 = minimum, 0.5 = median, 1 = maximum; nearest rank.  0 for an empty series.  Sorts the values. */
double series_quantile(struct series *series, double quantile);
static inline double series_median(struct series *series)
{
    return series_quantile(series, 0.5);
}
void series_release(struct series *series);

#endif
