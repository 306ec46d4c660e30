/* scratch.h -- a directory for the files measured, removed at the end, and files that a bench makes there. */
#ifndef BENCH_SCRATCH_H
#define BENCH_SCRATCH_H

#include <stdbool.h>

/* Makes DIRECTORY/bench-XXXXXX; its path, static storage, or NULL with errno. */
const char *scratch_begin(const char *directory);
/* Removes every file in it (it holds no folders but empty ones) and itself. */
void scratch_end(void);
/* Removes the files in the directory whose names begin with prefix. */
void scratch_clear(const char *prefix);

#endif
