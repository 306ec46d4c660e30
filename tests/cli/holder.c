/*
 * holder.c -- the neighbour: opens a store, does what its arguments say in their order, then waits to be told to end.
 *
 *   holder STORE sole|turns|live|read ACTION...      (read: read-only, in whatever mode the store is)
 *
 *   alloc N BYTES    N blocks of BYTES; the first becomes the root
 *   bind NAME        a block of 24 bytes under a name (printf escapes: \033)
 *   commit           durably
 *   share | lock     takes the store's lock, shared or exclusive
 *   give-up          takes the lock exclusively after a writer's death, and gives it up without repair
 *   line             prints "ready" and waits for a line
 *   wait             prints "ready" and waits for the end of its input
 *   close            ends so; without it the store is abandoned
 *   crash            ends by SIGKILL
 *   semaphore NAME N | event NAME 0|1     makes a named one
 */
#include <stead.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void holder_fail(const char *what, int rc)
{
    fprintf(stderr, "holder: %s: %s; %s\n", what, stead_strerror(rc), stead_last_error_text());
    exit(1);
}

static int holder_alloc(stead *s, unsigned long count, size_t bytes)
{
    for (unsigned long i = 0; i < count; i++) {
        char *block = stead_malloc(s, bytes);
        if (block == NULL)
            return stead_last_error();
        memset(block, (int)(i & 0x7f), bytes);
        if (i == 0 && stead_set_root(s, block) != 0)
            return stead_last_error();
    }
    return 0;
}

/* The only escape is \NNN, octal. */
static int holder_bind(stead *s, const char *escaped)
{
    char name[256];
    size_t length = 0;
    for (const char *p = escaped; *p != '\0' && length < sizeof name - 1;) {
        if (*p == '\\') {
            name[length++] = (char)strtol((char[]){p[1], p[2], p[3], '\0'}, NULL, 8);
            p += 4;
        } else {
            name[length++] = *p++;
        }
    }
    name[length] = '\0';
    void *block = stead_malloc(s, 24);
    return block == NULL ? stead_last_error() : stead_bind(s, name, block);
}

static void holder_wait(bool one_line)
{
    char byte = 0;
    puts("ready");
    fflush(stdout);
    while (read(STDIN_FILENO, &byte, 1) > 0 && !(one_line && byte == '\n'))
        ;
}

static int holder_sync(const char *kind, const char *name, unsigned value)
{
    stead_semaphore *semaphore;
    stead_event *event;
    int rc;
    if (strcmp(kind, "semaphore") == 0) {
        rc = stead_semaphore_open(&semaphore, name, value);
        return rc == 0 ? stead_semaphore_close(semaphore) : rc;
    }
    rc = stead_event_open(&event, name, value != 0);
    return rc == 0 ? stead_event_close(event) : rc;
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    stead_options options = {.timeout_ms = 60000,
                             .flags = strcmp(argv[3 < argc ? 3 : 2], "give-up") == 0 ? STEAD_ACCEPT_UNCLEAN : 0};
    options.sharing = strcmp(argv[2], "live") == 0    ? STEAD_LIVE
                      : strcmp(argv[2], "turns") == 0 ? STEAD_TURNS
                                                      : STEAD_SOLE;
    if (strcmp(argv[2], "read") == 0)
        options.flags |= STEAD_READ_ONLY;
    stead *s;
    int rc = stead_open(&s, argv[1], &options);
    if (rc != 0)
        holder_fail("open", rc);
    for (int i = 3; i < argc; i++) {
        const char *action = argv[i];
        if (strcmp(action, "alloc") == 0 && i + 2 < argc) {
            rc = holder_alloc(s, strtoul(argv[i + 1], NULL, 10), strtoul(argv[i + 2], NULL, 10));
            i += 2;
        } else if (strcmp(action, "bind") == 0 && i + 1 < argc) {
            rc = holder_bind(s, argv[++i]);
        } else if (strcmp(action, "commit") == 0) {
            rc = stead_commit(s, STEAD_DURABLE);
        } else if (strcmp(action, "share") == 0 || strcmp(action, "lock") == 0) {
            rc = stead_lock(s, *action == 's' ? STEAD_SHARED : STEAD_EXCLUSIVE, -1);
        } else if (strcmp(action, "give-up") == 0) {
            rc = stead_lock(s, STEAD_EXCLUSIVE, -1);
            rc = rc == EOWNERDEAD ? stead_unlock(s) : EINVAL;
        } else if (strcmp(action, "unlock") == 0) {
            rc = stead_unlock(s);
        } else if (strcmp(action, "wait") == 0) {
            holder_wait(false);
        } else if (strcmp(action, "line") == 0) {
            holder_wait(true);
        } else if (strcmp(action, "close") == 0) {
            rc = stead_close(s);
            s = NULL;
        } else if (strcmp(action, "crash") == 0) {
            raise(SIGKILL);
        } else if ((strcmp(action, "semaphore") == 0 || strcmp(action, "event") == 0) && i + 2 < argc) {
            rc = holder_sync(action, argv[i + 1], (unsigned)strtoul(argv[i + 2], NULL, 10));
            i += 2;
        } else {
            fprintf(stderr, "holder: no action \"%s\"\n", action);
            return 2;
        }
        if (rc != 0)
            holder_fail(action, rc);
    }
    if (s != NULL)
        stead_abandon(s);
    return 0;
}
