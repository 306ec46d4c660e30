/* series.c -- measured values and their quantiles. */
#include "bench/support/series.h"

#include <stdlib.h>

bool series_add(struct series *series, double value)
{
    if (series->count == series->room) {
        size_t room = series->room == 0 ? 64 : series->room * 2;
        double *values = realloc(series->values, room * sizeof *values);
        if (values == NULL)
            return false;
        series->values = values;
        series->room = room;
    }
    series->values[series->count++] = value;
    return true;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

double series_quantile(struct series *series, double quantile)
{
    if (series->count == 0)
        return 0;
    qsort(series->values, series->count, sizeof *series->values, compare);
    double rank = quantile * (double)(series->count - 1) + 0.5;
    size_t index = (size_t)rank;
    return series->values[index < series->count ? index : series->count - 1];
}

void series_release(struct series *series)
{
    free(series->values);
    *series = (struct series){0};
}
