/*
 * plain_runner.c -- runs the Criterion tests of a program without Criterion's own runner, in sanitizer builds.
 *
 * Criterion shares memory with its workers at an address where ThreadSanitizer keeps its own, and gives up before the
 * first test; under LeakSanitizer its leaks are reported as ours.  So in such builds the program's main, and the functions
 * that a running test calls, are these: every test in a forked process, one after the other, with its suite's and its own
 * init and fini; a failed assertion ends its test; a test that takes longer than its timeout is ended.
 *
 *   PROGRAM [PATTERN]   PATTERN as in glob(7) with extensions, matched against suite/test
 *
 * Tests that took longer than a second are named with their time (Criterion's own runner does so with --verbose).
 * .ci/run collects from the output what failed.
 */
#include <criterion/criterion.h>
#include <criterion/event.h>
#include <fnmatch.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TIMEOUT_S 120.0
#define SLOWER 4.0 /* than without a sanitizer */
#define SLOW_S 1.0 /* a test that takes longer is named */

/* The linker's names for the ends of the sections that Criterion's macros fill. */
extern struct criterion_test *first_test[] __asm__("__start_cr_tst");
extern struct criterion_test *behind_last_test[] __asm__("__stop_cr_tst");
/* Weak: a program without suites has no such section. */
extern struct criterion_suite *first_suite[] __asm__("__start_cr_sts") __attribute__((weak));
extern struct criterion_suite *behind_last_suite[] __asm__("__stop_cr_sts") __attribute__((weak));

void criterion_internal_test_setup(void)
{
}

void criterion_internal_test_main(void (*body)(void))
{
    body();
}

void criterion_internal_test_teardown(void)
{
}

void criterion_send_assert(struct criterion_assert_stats *stats)
{
    (void)fflush(NULL); /* the seed may be in it */
    fprintf(stderr, "%s:%u: assertion failed: %s\n", stats->file, stats->line,
            stats->message != NULL ? stats->message : "");
    _exit(1);
}

static const struct criterion_test_extra_data *suite_of(const struct criterion_test *test)
{
    for (struct criterion_suite **suite = first_suite; suite < behind_last_suite; suite++)
        if (*suite != NULL && strcmp((*suite)->name, test->category) == 0)
            return (*suite)->data;
    return NULL;
}

static double timeout_of(const struct criterion_test *test, const struct criterion_test_extra_data *suite)
{
    double timeout = test->data->timeout > 0 ? test->data->timeout : suite != NULL ? suite->timeout : 0;
    return (timeout > 0 ? timeout : TIMEOUT_S) * SLOWER;
}

static const struct criterion_test *under_way;

static _Noreturn void end_test(void)
{
    const struct criterion_test *test = under_way;
    const struct criterion_test_extra_data *suite = suite_of(test);
    if (test->data->fini != NULL)
        test->data->fini();
    if (suite != NULL && suite->fini != NULL)
        suite->fini();
    exit(test->data->exit_code); /* with the sanitizer's own verdict */
}

void criterion_skip_test(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "skipped %s/%s: ", under_way->category, under_way->name);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    end_test();
}

static _Noreturn void run_test(const struct criterion_test *test)
{
    const struct criterion_test_extra_data *suite = suite_of(test);
    under_way = test;
    alarm((unsigned)timeout_of(test, suite));
    if (suite != NULL && suite->init != NULL)
        suite->init();
    if (test->data->init != NULL)
        test->data->init();
    test->test();
    end_test();
}

static bool passes(const struct criterion_test *test)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        run_test(test);
    int status = 0;
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        return false;
    bool signalled = WIFSIGNALED(status);
    int end = signalled ? WTERMSIG(status) : WEXITSTATUS(status);
    if (signalled == (test->data->signal != 0) && end == (signalled ? test->data->signal : test->data->exit_code))
        return true;
    fprintf(stderr, "FAILED %s/%s: %s %d%s\n", test->category, test->name, signalled ? "signal" : "exit code", end,
            signalled && end == SIGALRM ? ", it took too long" : "");
    return false;
}

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

int main(int argc, char **argv)
{
    unsigned passed = 0, failed = 0;
    for (struct criterion_test **test = first_test; test < behind_last_test; test++) {
        char name[256];
        if (*test == NULL || (*test)->data->disabled)
            continue;
        snprintf(name, sizeof name, "%s/%s", (*test)->category, (*test)->name);
        if (argc > 1 && fnmatch(argv[1], name, FNM_EXTMATCH) != 0)
            continue;
        double began = now_s();
        if (passes(*test))
            passed++;
        else
            failed++;
        if (now_s() - began > SLOW_S)
            printf("%6.1f s  %s\n", now_s() - began, name);
    }
    printf("%u passed, %u failed\n", passed, failed);
    return failed != 0 || passed == 0;
}
