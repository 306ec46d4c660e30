/*
 * error.h -- result codes, their texts, and this thread's last error.
 *
 * Every module returns 0, an errno value (> 0) or a STEAD_ code (< 0).  Where a failure is first understood,
 * that place also records a full sentence with error_set(); callers above pass the code on unchanged.
 */
#ifndef STEAD_BASE_ERROR_H
#define STEAD_BASE_ERROR_H

#include <stdarg.h>

#include "stead.h" /* the STEAD_ codes; base knows no other part of the public face */

/* Records code and sentence for this thread; returns code, so `return error_set(...)` reads well.
 * Keeps errno.  The text is cut at 511 bytes. */
int error_set(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Records code with its standard text only when the thread's last code is another one: for places that pass on
 * a code whose sentence may already be there. */
int error_keep(int code);

int error_last(void);
const char *error_last_text(void);
void error_clear(void); /* so that a caller can tell whether somebody below left a sentence */
const char *error_text(int code);

/* A real errno for any code, for pointer-returning calls. */
int error_to_errno(int code);

#endif
