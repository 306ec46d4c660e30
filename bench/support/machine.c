/* machine.c -- what explains a figure: processor, file system, commit, bytes written, memory. */
#include "bench/support/machine.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "bench_commit.h"

const char *machine_commit(void)
{
    return BENCH_COMMIT;
}

/* The text after "key" and a colon in a /proc file of lines; false if there is none. */
static bool proc_field(const char *path, const char *key, char *text, size_t text_bytes)
{
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return false;
    char line[512];
    bool found = false;
    while (!found && fgets(line, sizeof line, file) != NULL) {
        char *colon = strchr(line, ':');
        if (colon == NULL || strncmp(line, key, strlen(key)) != 0)
            continue;
        colon += 1 + strspn(colon + 1, " \t");
        colon[strcspn(colon, "\n")] = '\0';
        snprintf(text, text_bytes, "%s", colon);
        found = true;
    }
    fclose(file);
    return found;
}

const char *machine_cpu(void)
{
    static char text[256];
    char model[200] = "unknown processor";
    proc_field("/proc/cpuinfo", "model name", model, sizeof model);
    snprintf(text, sizeof text, "%ld x %s", sysconf(_SC_NPROCESSORS_ONLN), model);
    return text;
}

const char *machine_file_system(const char *path)
{
    static const struct {
        unsigned long magic;
        const char *name;
    } known[] = {{0xEF53, "ext4"},        {0x58465342, "xfs"}, {0x9123683E, "btrfs"}, {0x01021994, "tmpfs"},
                 {0x794C7630, "overlay"}, {0x2FC12FC1, "zfs"}, {0xF2F52010, "f2fs"},  {0x6969, "nfs"},
                 {0x01021997, "9p"},      {0x65735546, "fuse"}};
    static char number[32];
    struct statfs fs;
    if (statfs(path, &fs) != 0)
        return "unknown";
    unsigned long magic = (unsigned long)fs.f_type & 0xFFFFFFFFUL;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (known[i].magic == magic)
            return known[i].name;
    snprintf(number, sizeof number, "0x%lx", magic);
    return number;
}

uint64_t machine_written_bytes(void)
{
    char text[64];
    uint64_t bytes;
    if (!proc_field("/proc/self/io", "write_bytes", text, sizeof text) || sscanf(text, "%" SCNu64, &bytes) != 1)
        return 0;
    return bytes;
}
