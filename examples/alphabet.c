/*
 * alphabet.c -- the three shared segment examples of old: a parent writes the alphabet and a child reads it; a write
 * through a read-only attachment faults; and a report says who made the segment, who is attached, and since when.
 */
#include <stead.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static char section[64]; /* "shm:stead-alphabet-PID": two runs at once do not meet */

static stead *open_or_exit(unsigned flags)
{
    stead *s;
    stead_options options = {.sharing = STEAD_LIVE, .flags = flags, .capacity_bytes = 1 << 20, .timeout_ms = 10000};
    if (stead_open(&s, section, &options) != 0) {
        fprintf(stderr, "alphabet: %s\n", stead_last_error_text());
        exit(1);
    }
    return s;
}

static void child_reads(void)
{
    stead *s = open_or_exit(STEAD_EXISTING);
    const char *letters = stead_root(s);
    printf("%zu bytes attached to child\nRead: ", stead_usable_size(letters));
    for (int i = 0; i < 26; i++)
        putchar(letters[i]);
    putchar('\n');
    exit(stead_close(s) != 0);
}

static void child_writes_read_only(void)
{
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    stead *s = open_or_exit(STEAD_EXISTING | STEAD_READ_ONLY);
    volatile char *letters = stead_root(s);
    *letters = '0';
    exit(0); /* not reached */
}

/* Runs body in a child; returns how it ended, as wait(2) tells. */
static int in_child(void (*body)(void))
{
    int status = -1;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0)
        body();
    if (pid > 0)
        waitpid(pid, &status, 0);
    return status;
}

static void report(stead *s)
{
    stead_status status;
    if (stead_stat(s, &status) != 0)
        return;
    printf("%s\n", section);
    printf("  capacity:         %llu\n", (unsigned long long)status.capacity_bytes);
    printf("  number attached:  %u\n", status.attached);
    printf("  creator process:  %s\n", status.creator_pid == getpid() ? "this one" : "another one");
    printf("  last change by:   process %ld\n", (long)status.last_change_pid);
    printf("  last attach time: %s", ctime(&status.last_attach));
    printf("  owner, group:     %lu, %lu\n", (unsigned long)status.owner, (unsigned long)status.group);
    printf("  mode:             %03o\n", (unsigned)status.mode & 0777);
}

int main(void)
{
    snprintf(section, sizeof section, "shm:stead-alphabet-%ld", (long)getpid());
    stead *s = open_or_exit(STEAD_NEW);
    char *letters = stead_malloc(s, 1024);
    if (letters == NULL || stead_set_root(s, letters) != 0) {
        fprintf(stderr, "alphabet: %s\n", stead_last_error_text());
        return 1;
    }
    printf("%zu bytes attached to parent\nWriting the alphabet.\n", stead_usable_size(letters));
    for (int i = 0; i < 26; i++)
        letters[i] = (char)('a' + i);

    int status = in_child(child_reads);
    bool fine = WIFEXITED(status) && WEXITSTATUS(status) == 0;

    puts("Attempting to write to a read-only attachment.");
    status = in_child(child_writes_read_only);
    bool faulted = WIFSIGNALED(status) && (WTERMSIG(status) == SIGSEGV || WTERMSIG(status) == SIGBUS);
    puts(faulted ? "Faulted, as it should." : "Did not fault.");

    report(s);
    if (stead_close(s) != 0 || stead_remove(section) != 0)
        fine = false;
    return fine && faulted ? 0 : 1;
}
