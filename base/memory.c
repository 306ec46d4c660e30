/*
 * memory.c -- the memory of the machine, or of the container that this process is confined to.
 *
 * Caches are measured by it (persist/limit.c).  A container with half a gigabyte on a machine with a terabyte is told of the
 * terabyte by sysconf(3), and killed for using it.
 *
 *   ROOT/proc/self/cgroup         one line a hierarchy:  number ":" controllers ":" path
 *     "0::PATH"                   version 2: ROOT/sys/fs/cgroup/PATH/memory.max, memory.high
 *     "4:...,memory,...:PATH"     version 1: ROOT/sys/fs/cgroup/memory/PATH/memory.limit_in_bytes
 *
 * The limits of all groups above count as well: each folder from PATH up to the place where the hierarchy is mounted is
 * asked.  In a container PATH may be one of the host's, of which only the end is mounted: folders that are not there are
 * passed over, and the mount itself, which then is the container's own group, comes last in any case.  A path that leaves
 * the mount ("/../x": a group outside of this process's view) says no more than "/".
 *
 * All of it is a hint: what cannot be read, or is no number, is no limit.
 */
#include "base/memory.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/units.h"

#define FOLDER_BYTES 1024 /* on the stack; longer ones: only the mount itself is asked */
#define LEVELS_MAX 64     /* folders deep; a group cannot lie deeper by the kernel's default either */

/* A decimal number and nothing else but white space. */
static uint64_t parse_limit(const char *text)
{
    char *end;
    unsigned long long bytes = strtoull(text, &end, 10); /* too large: ULLONG_MAX, which is no limit */
    if (*text < '0' || end[strspn(end, " \n")] != '\0')
        return MEMORY_NO_LIMIT; /* "max" */
    return bytes;
}

static uint64_t read_limit(const char *folder, const char *name)
{
    char path[FOLDER_BYTES + 32], text[64];
    if ((size_t)snprintf(path, sizeof path, "%s/%s", folder, name) >= sizeof path)
        return MEMORY_NO_LIMIT;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return MEMORY_NO_LIMIT;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n < 0)
        return MEMORY_NO_LIMIT;
    text[n] = '\0';
    return parse_limit(text);
}

/* mount + path and every folder above it, down to mount itself. */
static uint64_t limit_on_the_way(const char *root, const char *mount, const char *path, const char *const *names)
{
    char folder[FOLDER_BYTES];
    uint64_t least = MEMORY_NO_LIMIT;
    int mount_bytes = snprintf(folder, sizeof folder, "%s%s", root, mount);
    if (mount_bytes < 0 || (size_t)mount_bytes + sizeof "/" > sizeof folder)
        return MEMORY_NO_LIMIT;
    if (path[0] != '/' || strstr(path, "/..") != NULL || (size_t)mount_bytes + strlen(path) >= sizeof folder)
        path = "/";
    memcpy(folder + mount_bytes, path, strlen(path) + 1);
    for (unsigned level = 0; level < LEVELS_MAX; level++) {
        for (unsigned i = 0; names[i] != NULL; i++)
            least = min_u64(least, read_limit(folder, names[i]));
        char *slash = strrchr(folder + mount_bytes, '/');
        if (slash == NULL)
            break;
        *slash = '\0';
    }
    return least;
}

/* Is `word` one of the controllers, which are separated by commas? */
static bool lists(const char *controllers, const char *word)
{
    size_t bytes = strlen(word);
    for (const char *at = controllers; at != NULL; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, word, bytes) == 0 && (at[bytes] == ',' || at[bytes] == '\0'))
            return true;
    }
    return false;
}

uint64_t memory_limit_of_groups(const char *root)
{
    static const char *const unified[] = {"memory.max", "memory.high", NULL};
    static const char *const separate[] = {"memory.limit_in_bytes", NULL};
    char path[FOLDER_BYTES], *line = NULL;
    size_t room = 0;
    uint64_t least = MEMORY_NO_LIMIT;
    if ((size_t)snprintf(path, sizeof path, "%s/proc/self/cgroup", root) >= sizeof path)
        return least;
    FILE *groups = fopen(path, "re");
    if (groups == NULL)
        return least;
    while (getline(&line, &room, groups) > 0) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':');
        char *group = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
        if (group == NULL)
            continue;
        *group++ = '\0';
        controllers++;
        if (*controllers == '\0')
            least = min_u64(least, limit_on_the_way(root, "/sys/fs/cgroup", group, unified));
        else if (lists(controllers, "memory"))
            least = min_u64(least, limit_on_the_way(root, "/sys/fs/cgroup/memory", group, separate));
    }
    free(line);
    (void)fclose(groups);
    return least;
}

/* Of addresses (ulimit -v) and of private memory (-d), which is what the caches are. */
static uint64_t own_limit(void)
{
    struct rlimit addresses, data;
    uint64_t least = MEMORY_NO_LIMIT;
    if (getrlimit(RLIMIT_AS, &addresses) == 0 && addresses.rlim_cur != RLIM_INFINITY)
        least = addresses.rlim_cur;
    if (getrlimit(RLIMIT_DATA, &data) == 0 && data.rlim_cur != RLIM_INFINITY)
        least = min_u64(least, data.rlim_cur);
    return least;
}

uint64_t memory_limit_bytes(void)
{
    static _Atomic uint64_t known;
    uint64_t bytes = atomic_load_explicit(&known, memory_order_relaxed);
    if (bytes != 0)
        return bytes;
    long pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE);
    bytes = pages > 0 && page_bytes > 0 ? (uint64_t)pages * (uint64_t)page_bytes : MEMORY_NO_LIMIT;
    bytes = min_u64(bytes, memory_limit_of_groups(""));
    bytes = min_u64(bytes, own_limit());
    bytes = max_u64(bytes, 1);
    atomic_store_explicit(&known, bytes, memory_order_relaxed);
    return bytes;
}
