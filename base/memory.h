/* memory.h -- how much memory this process may come to use. */
#ifndef STEAD_BASE_MEMORY_H
#define STEAD_BASE_MEMORY_H

#include <stdint.h>

#define MEMORY_NO_LIMIT UINT64_MAX

/* The least of the machine's memory, what its control groups allow, and its own limits (ulimit -v, -d); never 0.  Asked once:
 * who measures caches by it has them when a limit changes later.  Any thread. */
uint64_t memory_limit_bytes(void);

/* What the control groups of this process allow, as told by the files under root ("" or a folder of a test's). */
uint64_t memory_limit_of_groups(const char *root);

#endif
