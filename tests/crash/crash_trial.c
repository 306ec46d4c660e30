/*
 * crash_trial.c -- scratch directories, processes, and the verdict on one state: it must open, stead_check() must be
 * silent, the case's own check must be silent, and the version found must lie between the newest durable and the newest
 * begun. Then the store is closed and opened once more: recovery must be final.
 */
#include "tests/crash/crash_trial.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int trial_make_directory(char directory[TRIAL_PATH_BYTES])
{
    const char *parents[] = {getenv("STEAD_CRASH_DIR"), "/dev/shm", getenv("TMPDIR"), "/tmp"};
    for (size_t i = 0; i < sizeof parents / sizeof parents[0]; i++) {
        if (parents[i] == NULL || access(parents[i], W_OK | X_OK) != 0)
            continue;
        int n = snprintf(directory, TRIAL_PATH_BYTES, "%s/stead-crash-XXXXXX", parents[i]);
        if (n > 0 && n < TRIAL_PATH_BYTES && mkdtemp(directory) != NULL)
            return 0;
    }
    return errno != 0 ? errno : ENOENT;
}

void trial_clear_directory(const char *directory)
{
    DIR *dir = opendir(directory);
    if (dir == NULL)
        return;
    struct dirent *entry;
    while ((entry = readdir(dir)) != NULL)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            (void)unlinkat(dirfd(dir), entry->d_name, 0);
    closedir(dir);
}

void trial_remove_directory(const char *directory)
{
    trial_clear_directory(directory);
    (void)rmdir(directory);
}

uint64_t trial_seed(void)
{
    static uint64_t seed;
    if (seed != 0)
        return seed;
    const char *text = getenv("STEAD_SEED");
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    seed = text != NULL ? strtoull(text, NULL, 0) : (uint64_t)now.tv_sec * 1000003 + (uint64_t)now.tv_nsec;
    seed += seed == 0;
    fprintf(stderr, "STEAD_SEED=%" PRIu64 "\n", seed);
    return seed;
}

bool trial_is_long(void)
{
    const char *text = getenv("STEAD_LONG");
    return text != NULL && strcmp(text, "0") != 0 && *text != '\0';
}

static unsigned mine, parts; /* 0: not asked yet */

static void ask_for_part(void)
{
    if (parts == 0) {
        char rest;
        const char *text = getenv("STEAD_PART");
        if (text == NULL || *text == '\0') {
            parts = 1;
        } else if (sscanf(text, "%u/%u%c", &mine, &parts, &rest) != 2 || mine >= parts) {
            fprintf(stderr, "STEAD_PART=%s: it wants i/n with 0 <= i < n\n", text);
            exit(2);
        }
    }
}

bool trial_is_mine(uint64_t number)
{
    ask_for_part();
    return number % parts == mine;
}

bool trial_is_part(void)
{
    ask_for_part();
    return parts > 1;
}

const char *trial_status_text(int status)
{
    static char text[80];
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
        snprintf(text, sizeof text, "was still running after %d s", TRIAL_SECONDS_MAX);
    else if (WIFSIGNALED(status))
        snprintf(text, sizeof text, "ended by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        snprintf(text, sizeof text, "exited with %d", WEXITSTATUS(status));
    return text;
}

void trial_fail(struct crash_outcome *outcome, const char *format, ...)
{
    if (outcome->failures++ != 0)
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(outcome->first, sizeof outcome->first, format, arguments);
    va_end(arguments);
}

static void path_of(const char *directory, char path[TRIAL_PATH_BYTES + 16])
{
    snprintf(path, TRIAL_PATH_BYTES + 16, "%s/%s", directory, TRIAL_STORE_NAME);
}

int trial_prepare(const struct crash_case *what, const char *directory, struct crash_outcome *outcome)
{
    char path[TRIAL_PATH_BYTES + 16];
    int status;
    if (what->prepare == NULL)
        return 0;
    path_of(directory, path);
    fflush(NULL);
    pid_t child = fork();
    if (child < 0)
        return errno;
    if (child == 0) {
        alarm(TRIAL_SECONDS_MAX);
        int rc = what->prepare(path, what->arg);
        if (rc != 0)
            fprintf(stderr, "%s: prepare: %s (%s)\n", what->name, stead_strerror(rc), stead_last_error_text());
        _exit(rc == 0 ? 0 : 1);
    }
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (status == 0)
        return 0;
    trial_fail(outcome, "%s: prepare() %s", what->name, trial_status_text(status));
    return EUCLEAN;
}

pid_t trial_start(const struct crash_case *what, const char *directory, struct crash_shared *shared)
{
    char path[TRIAL_PATH_BYTES + 16];
    path_of(directory, path);
    fflush(NULL);
    pid_t child = fork();
    if (child != 0)
        return child;
    setpgid(0, 0); /* so that what it leaves behind can be waited for */
    alarm(TRIAL_SECONDS_MAX);
    crash_calls_install(shared, directory);
    int rc = what->run(path, what->arg);
    if (rc != 0 && shared->fault_at == 0 && shared->kill_at == 0)
        fprintf(stderr, "%s: run: %s (%s)\n", what->name, stead_strerror(rc), stead_last_error_text());
    _exit(rc == 0 ? 0 : 1);
}

/* ---- the verdict ---- */

static char verdict[900];

static const char *say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static const char *say(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(verdict, sizeof verdict, format, arguments);
    va_end(arguments);
    return verdict;
}

static const char *judge_open(const struct crash_case *what, stead *store, uint64_t *version)
{
    stead_report report = {0};
    int rc = stead_check(store, &report);
    if (rc != 0)
        return say("stead_check: %s: %s", stead_strerror(rc), report.first_problem);
    rc = what->check(store, version, what->arg);
    if (rc != 0)
        return say("the case's check says %d (%s)", rc, stead_strerror(rc));
    return NULL;
}

const char *trial_judge(const struct crash_case *what, const char *directory, uint64_t low, uint64_t high, bool again)
{
    char path[TRIAL_PATH_BYTES + 16];
    stead_options options = what->reopen;
    uint64_t version = 0, final = 0;
    stead *store;
    path_of(directory, path);
    options.flags |= STEAD_EXISTING;
    if (options.timeout_ms == 0)
        options.timeout_ms = TRIAL_SOON_MS;
    int rc = stead_open(&store, path, &options);
    if (rc == ENOENT)
        return low == 0 ? NULL : say("the store is gone, version %" PRIu64 " was durable", low);
    if (rc != 0)
        return say("stead_open: %s: %s", stead_strerror(rc), stead_last_error_text());
    const char *wrong = judge_open(what, store, &version);
    if (wrong == NULL && (version < low || version > high))
        wrong = say("version %" PRIu64 " found, legal are %" PRIu64 " to %" PRIu64, version, low, high);
    if (wrong != NULL || !again) {
        stead_abandon(store);
        return wrong;
    }
    rc = stead_close(store);
    if (rc != 0) {
        say("stead_close after recovery: %s: %s", stead_strerror(rc), stead_last_error_text());
        stead_abandon(store);
        return verdict;
    }
    rc = stead_open(&store, path, &options);
    if (rc != 0)
        return say("second stead_open: %s: %s", stead_strerror(rc), stead_last_error_text());
    wrong = judge_open(what, store, &final);
    if (wrong == NULL && final != version)
        wrong = say("version %" PRIu64 " after recovery, %" PRIu64 " at the next open", version, final);
    stead_abandon(store);
    return wrong;
}

const char *trial_judge_apart(const struct crash_case *what, const char *directory, uint64_t low, uint64_t high)
{
    int status;
    char *shared = mmap(NULL, sizeof verdict, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return "no memory for the verdict";
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        alarm(TRIAL_SECONDS_MAX);
        const char *wrong = trial_judge(what, directory, low, high, true);
        if (wrong != NULL)
            strncpy(shared, wrong, sizeof verdict - 1);
        _exit(0);
    }
    if (child < 0)
        return "no process for the verdict";
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    const char *wrong = NULL;
    if (status != 0)
        wrong = say("the process that opened the store %s", trial_status_text(status));
    else if (shared[0] != '\0')
        wrong = say("%s", shared);
    munmap(shared, sizeof verdict);
    return wrong;
}
