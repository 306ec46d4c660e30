/*
 * counter.c -- SOLE: what is committed stays, what is rolled back never was.
 *
 *   counter FILE            counts one up, commits, counts a hundred up, rolls back, and prints what is left
 *   counter FILE crash      the same, but dies after the hundred instead: the next run finds the last commit
 */
#include <stead.h>

#include <signal.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: counter FILE [crash]\n");
        return 2;
    }
    stead *s;
    void *root;
    if (stead_open(&s, argv[1], NULL) != 0 || stead_root_once(s, sizeof(long), NULL, NULL, &root) != 0) {
        fprintf(stderr, "counter: %s\n", stead_last_error_text());
        return 1;
    }
    long *counter = root;

    *counter += 1; /* an ordinary variable, at the same address in every run */
    if (stead_commit(s, STEAD_DURABLE) != 0) {
        fprintf(stderr, "counter: %s\n", stead_last_error_text());
        stead_abandon(s);
        return 1;
    }

    *counter += 100;
    if (argc > 2 && strcmp(argv[2], "crash") == 0)
        raise(SIGKILL);
    if (stead_rollback(s) != 0)
        fprintf(stderr, "counter: %s\n", stead_last_error_text());

    printf("%ld\n", *counter);
    return stead_close(s) != 0;
}
