/*
 * greeting.c -- the shared memory tutorial: one process writes a text into a named section, another reads it, and the
 * section lives until somebody removes it.
 *
 *   greeting write "Hello from shared memory!" [SECTION]
 *   greeting read [SECTION]
 *   greeting remove [SECTION]      shm:stead-greeting if none is named
 */
#include <stead.h>

#include <stdio.h>
#include <string.h>

#define SECTION "shm:stead-greeting" /* what is meant if none is named */

static int greeting_write(const char *section, const char *text)
{
    stead *s;
    if (stead_open(&s, section, &(stead_options){.sharing = STEAD_LIVE, .timeout_ms = 10000}) != 0)
        return -1;
    int rc = -1;
    STEAD_LOCKED(s, STEAD_EXCLUSIVE)
    {
        char *fresh = stead_malloc(s, strlen(text) + 1);
        if (fresh != NULL) {
            char *old = stead_root(s);
            strcpy(fresh, text);
            rc = stead_set_root(s, fresh);
            stead_free(rc == 0 ? old : fresh);
        }
    }
    if (stead_close(s) != 0)
        rc = -1;
    return rc;
}

static int greeting_read(const char *section)
{
    stead *s;
    stead_options options = {.sharing = STEAD_LIVE, .flags = STEAD_READ_ONLY, .timeout_ms = 10000};
    if (stead_open(&s, section, &options) != 0)
        return -1;
    STEAD_LOCKED(s, STEAD_SHARED)
    {
        const char *text = stead_root(s);
        puts(text != NULL ? text : "(nothing was written yet)");
    }
    return stead_close(s);
}

int main(int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "";
    int arguments = strcmp(verb, "write") == 0 ? 3 : 2; /* before the section's name */
    const char *section = argc == arguments + 1 ? argv[arguments] : SECTION;
    int rc;
    if (argc != arguments && argc != arguments + 1)
        verb = "";
    if (strcmp(verb, "write") == 0) {
        rc = greeting_write(section, argv[2]);
    } else if (strcmp(verb, "read") == 0) {
        rc = greeting_read(section);
    } else if (strcmp(verb, "remove") == 0) {
        rc = stead_remove(section);
    } else {
        fprintf(stderr, "usage: greeting write TEXT [SECTION] | read [SECTION] | remove [SECTION]\n");
        return 2;
    }
    if (rc != 0)
        fprintf(stderr, "greeting: %s\n", stead_last_error_text());
    return rc != 0;
}
