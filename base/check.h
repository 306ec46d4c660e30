/*
 * check.h -- assertions about our own memory, by cost.  Never about what a user or a file can cause: those are
 * results.  STEAD_CHECKS is 0 in release, 1 (cheap) by default in debug, 2 (walks structures) in CI.
 */
#ifndef STEAD_BASE_CHECK_H
#define STEAD_BASE_CHECK_H

#include <assert.h>

#ifndef STEAD_CHECKS
#define STEAD_CHECKS 0
#endif

#if STEAD_CHECKS >= 1
#define CHECK_CHEAP(condition) assert(condition)
#else
#define CHECK_CHEAP(condition) ((void)sizeof(condition))
#endif

#if STEAD_CHECKS >= 2
#define CHECK_DEEP(condition) assert(condition)
#else
#define CHECK_DEEP(condition) ((void)sizeof(condition))
#endif

#endif
