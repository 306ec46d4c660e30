/* scratch.c -- a directory for the files measured, removed at the end. */
#include "bench/support/scratch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char scratch[4096];

const char *scratch_begin(const char *directory)
{
    int length = snprintf(scratch, sizeof scratch, "%s/bench-XXXXXX", directory);
    if (length < 0 || (size_t)length >= sizeof scratch) {
        errno = ENAMETOOLONG;
        scratch[0] = '\0';
        return NULL;
    }
    if (mkdtemp(scratch) == NULL) {
        scratch[0] = '\0';
        return NULL;
    }
    return scratch;
}

void scratch_clear(const char *prefix)
{
    if (scratch[0] == '\0')
        return;
    DIR *dir = opendir(scratch);
    if (dir == NULL)
        return;
    struct dirent *entry;
    while ((entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
            strncmp(entry->d_name, prefix, strlen(prefix)) != 0)
            continue;
        if (unlinkat(dirfd(dir), entry->d_name, 0) != 0 && errno == EISDIR)
            unlinkat(dirfd(dir), entry->d_name, AT_REMOVEDIR);
    }
    closedir(dir);
}

void scratch_end(void)
{
    scratch_clear("");
    if (scratch[0] != '\0')
        rmdir(scratch);
    scratch[0] = '\0';
}
