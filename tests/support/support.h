/*
 * support.h -- what the tests of the public face share: a temporary folder a test, calls that say what failed, child
 * processes that report by exit code.
 */
#ifndef STEAD_TESTS_SUPPORT_H
#define STEAD_TESTS_SUPPORT_H

#include <criterion/criterion.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>

#include "stead.h"

/* The call succeeds; else the test fails with the call, the code and the sentence. */
#define OK(call) \
    do { \
        int ok_rc_ = (call); \
        cr_assert(ok_rc_ == 0, "%s:%d: %s: %s (%d; %s)", __FILE__, __LINE__, #call, stead_strerror(ok_rc_), ok_rc_, \
                  stead_last_error_text()); \
    } while (0)

/* The call fails with just this code, and leaves a sentence. */
#define FAILS(call, code) \
    do { \
        int fails_rc_ = (call); \
        cr_assert(fails_rc_ == (code), "%s:%d: %s: expected %s, got %s (%d; %s)", __FILE__, __LINE__, #call, \
                  stead_strerror(code), stead_strerror(fails_rc_), fails_rc_, stead_last_error_text()); \
    } while (0)

/* In a child process: exit with the line number folded into 1..250, so that the parent can say where. */
#define CHILD(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "child: %s:%d: %s (%s)\n", __FILE__, __LINE__, #condition, stead_last_error_text()); \
            _exit(__LINE__ % 250 + 1); \
        } \
    } while (0)

/* A fresh folder, removed by support_teardown() with all that is in it. */
void support_setup(void);
void support_teardown(void);
const char *support_folder(void);
/* support_folder()/name; static storage, four at a time. */
const char *path_in(const char *name);

/* Runs body(arg) in a child process that ends with _exit(0) if body returns. */
pid_t spawn(void (*body)(void *arg), void *arg);
int reap(pid_t pid); /* exit code, or 128 + signal */
#define REAP_OK(pid) \
    do { \
        int reap_code_ = reap(pid); \
        cr_assert(reap_code_ == 0, "%s:%d: the child ended with %d", __FILE__, __LINE__, reap_code_); \
    } while (0)
void pause_ms(int ms);
/* Waits until this thread of this process sleeps of its own will: it is in a wait, not on the way there. */
void await_sleeping(pid_t tid);
/* A counter in memory that parent and children share; zeroed. */
volatile uint32_t *shared_words(unsigned count);
/* A wait for what is sure to come, in ms: it ends when that comes, and no machine stands still for so long. */
#define SOON_MS 60000
/* Waits until *word >= value; false after SOON_MS. */
bool await(const volatile uint32_t *word, uint32_t value);

uint64_t file_bytes_of(const char *path); /* UINT64_MAX if absent */
void copy_file(const char *from, const char *to);
void write_file(const char *path, const void *bytes, size_t count);
uint64_t test_seed(void); /* STEAD_SEED or from the clock; printed */
bool test_long(void);     /* STEAD_LONG is set */

#endif
