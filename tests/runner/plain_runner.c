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
 *
 * What a test writes passes through this program, which keeps the lines that tell what went wrong and the last seed
 * before them: those of the tests that failed stand once more at the very end, where whoever reads a log looks first.
 * Nobody waits for the end of that pipe: what a test left behind may keep it open.
 */
#include <criterion/criterion.h>
#include <criterion/event.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TIMEOUT_S 120.0
#define SLOWER 4.0 /* than without a sanitizer */
#define SLOW_S 1.0 /* a test that takes longer is named */
#define LOOK_MS 50 /* how often a test's end is looked for where the kernel has no pidfd_open */

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
    fprintf(stderr, "%s:%u: assertion failed: %s\n", stats->file, stats->line,
            stats->message != NULL ? stats->message : "");
    (void)fflush(NULL); /* the seed may be among it */
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

/* ---- what a test writes ---- */

static char story[1 << 14]; /* of the tests that failed, for the end */
static size_t story_bytes;

static void tell(const char *text)
{
    size_t bytes = strlen(text);
    if (bytes < sizeof story - story_bytes) {
        memcpy(story + story_bytes, text, bytes);
        story_bytes += bytes;
    }
}

struct listener {
    char line[512]; /* the one under way, as far as it fits */
    size_t bytes;
    char seed[128];
    char lines[2048]; /* that tell what went wrong */
};

static bool tells_what_failed(const char *line)
{
    static const char *const signs[] = {"assertion failed",
                                        "WARNING: ThreadSanitizer",
                                        "ERROR: AddressSanitizer",
                                        "ERROR: ThreadSanitizer",
                                        "ERROR: LeakSanitizer",
                                        "runtime error: ",
                                        "SUMMARY: ",
                                        "    #0 ",
                                        "    #1 ",
                                        "child: ",
                                        "fault: "};
    for (size_t i = 0; i < sizeof signs / sizeof signs[0]; i++)
        if (strstr(line, signs[i]) != NULL)
            return true;
    return false;
}

static void line_ends(struct listener *listener)
{
    listener->line[listener->bytes] = '\0';
    size_t had = strlen(listener->lines);
    if (strstr(listener->line, "STEAD_SEED=") != NULL)
        (void)snprintf(listener->seed, sizeof listener->seed, "%.100s", listener->line);
    if (tells_what_failed(listener->line))
        (void)snprintf(listener->lines + had, sizeof listener->lines - had, "    %s\n", listener->line);
    listener->bytes = 0;
}

/* Passes on what there is: as read(2), 0 if nobody can write any more. */
static ssize_t listen_once(struct listener *listener, int fd)
{
    char buffer[4096];
    ssize_t got = read(fd, buffer, sizeof buffer);
    for (ssize_t at = 0, written; at < got; at += written) {
        written = write(STDERR_FILENO, buffer + at, (size_t)(got - at));
        if (written < 0)
            break;
    }
    for (ssize_t i = 0; i < got; i++) {
        if (buffer[i] == '\n')
            line_ends(listener);
        else if (listener->bytes < sizeof listener->line - 1)
            listener->line[listener->bytes++] = buffer[i];
    }
    return got;
}

/* Until the process ends; its status. */
static int listen_to(struct listener *listener, int fd, pid_t pid)
{
    int status, pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    pid_t ended = 0;
    while (ended == 0) {
        struct pollfd events[] = {{.fd = fd, .events = POLLIN}, {.fd = pidfd, .events = POLLIN}};
        (void)poll(events, 2, pidfd < 0 ? LOOK_MS : -1);
        ended = waitpid(pid, &status, WNOHANG);
        if (ended < 0 && errno == EINTR)
            ended = 0;
        ssize_t got;
        while ((got = listen_once(listener, fd)) > 0) {}
        if (got == 0)
            fd = -1; /* poll and read pass over it */
    }
    line_ends(listener);
    if (pidfd >= 0)
        close(pidfd);
    return ended == pid ? status : -1;
}

static bool passes(const struct criterion_test *test)
{
    struct listener listener = {.bytes = 0};
    char verdict[512];
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return false;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        (void)dup2(ends[1], STDOUT_FILENO);
        (void)dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        run_test(test);
    }
    close(ends[1]);
    (void)fcntl(ends[0], F_SETFL, O_NONBLOCK);
    int status = pid < 0 ? -1 : listen_to(&listener, ends[0], pid);
    close(ends[0]);
    bool signalled = WIFSIGNALED(status);
    int end = signalled ? WTERMSIG(status) : WEXITSTATUS(status);
    if (status != -1 && signalled == (test->data->signal != 0) &&
        end == (signalled ? test->data->signal : test->data->exit_code))
        return true;
    (void)snprintf(verdict, sizeof verdict, "FAILED %s/%s: %s %d%s%s%s\n", test->category, test->name,
                   signalled ? "signal" : "exit code", end, signalled && end == SIGALRM ? ", it took too long" : "",
                   listener.seed[0] != '\0' ? ", " : "", listener.seed);
    (void)fputs(verdict, stderr);
    tell(verdict);
    tell(listener.lines);
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
    if (failed != 0)
        printf("----- what failed\n%.*s", (int)story_bytes, story);
    printf("%u passed, %u failed\n", passed, failed);
    return failed != 0 || passed == 0;
}
