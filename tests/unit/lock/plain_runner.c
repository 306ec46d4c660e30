/*
 * plain_runner.c -- runs these tests under ThreadSanitizer.
 *
 * Criterion shares memory with its workers at an address where ThreadSanitizer keeps its own, and gives up before the
 * first test.  So in such builds the program's main, and the four functions that a running test calls, are these:
 * every test in a forked process, one after the other; a failed assertion ends its test.  Usage: unit_lock [PATTERN],
 * PATTERN as in glob(7) with extensions, matched against suite/test.
 */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define PLAIN_RUNNER 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define PLAIN_RUNNER 1
#endif

#if defined(PLAIN_RUNNER)
#include <criterion/criterion.h>
#include <criterion/event.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* The linker's names for the ends of the section that Criterion's macros fill. */
extern struct criterion_test *first_test[] __asm__("__start_cr_tst");
extern struct criterion_test *behind_last_test[] __asm__("__stop_cr_tst");

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
    _exit(1);
}

int main(int argc, char **argv)
{
    unsigned bad = 0, run = 0;
    for (struct criterion_test **test = first_test; test < behind_last_test; test++) {
        char name[256];
        if (*test == NULL)
            continue;
        snprintf(name, sizeof name, "%s/%s", (*test)->category, (*test)->name);
        if (argc > 1 && fnmatch(argv[1], name, FNM_EXTMATCH) != 0)
            continue;
        fflush(NULL);
        pid_t pid = fork();
        if (pid == 0) {
            (*test)->test();
            exit(0); /* with the sanitizer's own verdict */
        }
        int status = 0;
        if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) {
            fprintf(stderr, "FAILED %s, status %x\n", name, (unsigned)status);
            bad++;
        }
        run++;
    }
    fprintf(stderr, "%u tests, %u failed\n", run, bad);
    return bad != 0;
}
#else
typedef int plain_runner_is_empty;
#endif
