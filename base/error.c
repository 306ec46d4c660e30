/* error.c -- codes as one table, strerror, and the thread's last error.  See error.h. */
#include "base/error.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/system.h"

#define ERROR_HEAD_BYTES 120   /* kept of a longer text, the rest of the room is its end: there the cause stands */
#define ERROR_WHOLE_BYTES 5120 /* a path of the greatest length and a sentence about it */

/* code, nearest errno, text */
#define ERROR_TABLE(X) \
    X(STEAD_NOT_A_STORE, EINVAL, "not a stead store") \
    X(STEAD_VERSION, EINVAL, "a store of a format, byte order or word size that this build cannot read") \
    X(STEAD_CORRUPT, EUCLEAN, "the store is damaged") \
    X(STEAD_UNCLEAN, EUCLEAN, "a LIVE session ended without close") \
    X(STEAD_ADDRESS_TAKEN, EADDRINUSE, "the store's address range is in use in this process") \
    X(STEAD_SHARING_MISMATCH, EBUSY, "the store is open in another sharing mode") \
    X(STEAD_FAILED, EIO, "an earlier sync failed; reopen the store to recover it") \
    X(STEAD_LAYOUT_MISMATCH, EINVAL, "the store holds structs of another layout") \
    X(STEAD_LOG_MISSING, EUCLEAN, "the store was not closed and its log is not the one beside it") \
    X(STEAD_FILE_SYSTEM, ENOTSUP, "this file system cannot carry the requested sharing") \
    X(STEAD_WRONG_POINTER, EINVAL, "not a live block of an open store") \
    X(STEAD_LIMIT, ENOMEM, "the limit on memory pinned by uncommitted changes is reached")

static _Thread_local int last_code;
static _Thread_local char last_text[ERROR_TEXT_BYTES];

const char *error_text(int code)
{
    switch (code) {
    case 0:
        return "success";
#define ERROR_CASE(name, nearest, text) \
    case name: \
        return text;
        ERROR_TABLE(ERROR_CASE)
#undef ERROR_CASE
    default:
        break;
    }
    const char *text = code > 0 ? system_error_text(code) : NULL;
    return text != NULL ? text : "unknown error";
}

int error_to_errno(int code)
{
    switch (code) {
#define ERROR_CASE(name, nearest, text) \
    case name: \
        return nearest;
        ERROR_TABLE(ERROR_CASE)
#undef ERROR_CASE
    default:
        return code > 0 ? code : code == 0 ? 0 : EINVAL;
    }
}

static void keep_text(const char *whole)
{
    size_t length = strlen(whole);
    if (length < sizeof last_text) {
        memcpy(last_text, whole, length + 1);
        return;
    }
    char *to = last_text + ERROR_HEAD_BYTES;
    memcpy(last_text, whole, ERROR_HEAD_BYTES);
    memcpy(to, "...", 3);
    size_t tail = sizeof last_text - ERROR_HEAD_BYTES - 3; /* with its zero */
    memcpy(to + 3, whole + length + 1 - tail, tail);
}

int error_set(int code, const char *format, ...)
{
    int saved_errno = errno;
    char whole[ERROR_WHOLE_BYTES]; /* not last_text: the arguments may point there */
    va_list args;
    va_start(args, format);
    (void)vsnprintf(whole, sizeof whole, format, args);
    va_end(args);
    keep_text(whole);
    last_code = code;
    errno = saved_errno;
    return code;
}

int error_about(int code, const char *subject)
{
    char whole[ERROR_WHOLE_BYTES];
    int saved_errno = errno;
    if (code == 0)
        return 0;
    error_keep(code);
    if (strstr(last_text, subject) == NULL) {
        bool sentence =
            isupper((unsigned char)last_text[0]) && (islower((unsigned char)last_text[1]) || last_text[1] == ' ');
        (void)snprintf(whole, sizeof whole, "%s: %c%s", subject,
                       sentence ? tolower((unsigned char)last_text[0]) : last_text[0],
                       last_text[0] == '\0' ? "" : last_text + 1);
        keep_text(whole);
    }
    errno = saved_errno;
    return code;
}

int error_keep(int code)
{
    if (code != 0 && last_code != code)
        error_set(code, "%s", error_text(code));
    return code;
}

void error_clear(void)
{
    last_code = 0;
    last_text[0] = '\0';
}

void error_remember(struct error_memo *memo)
{
    memo->code = last_code;
    memcpy(memo->text, last_text, strlen(last_text) + 1);
}

void error_recall(const struct error_memo *memo)
{
    last_code = memo->code;
    memcpy(last_text, memo->text, strlen(memo->text) + 1);
}

int error_last(void)
{
    return last_code;
}

const char *error_last_text(void)
{
    return last_text;
}
