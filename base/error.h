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
 * Keeps errno.  Of a text longer than 511 bytes the beginning and the end are kept: a long path leaves room for the cause. */
int error_set(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Records code with its standard text only when the thread's last code is another one: for places that pass on
 * a code whose sentence may already be there. */
int error_keep(int code);

/* As error_keep; and the text names the subject (a file's path) if it did not: the siblings below know no file. */
int error_about(int code, const char *subject);

int error_last(void);
const char *error_last_text(void);
void error_clear(void); /* so that a caller can tell whether somebody below left a sentence */

/* This thread's last error as it was: a call that succeeds although something failed on its way puts it back, for success
 * leaves the last error alone. */
#define ERROR_TEXT_BYTES 512
struct error_memo {
    int code;
    char text[ERROR_TEXT_BYTES];
};
void error_remember(struct error_memo *memo);
void error_recall(const struct error_memo *memo);

const char *error_text(int code);

/* A real errno for any code, for pointer-returning calls. */
int error_to_errno(int code);

#endif
