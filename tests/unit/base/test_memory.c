/* test_memory.c -- how much memory the control groups allow, as the files of a made-up root folder tell it. */
#include <criterion/criterion.h>

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/memory.h"

static char root[64];

static void setup(void)
{
    const char *folder = getenv("TMPDIR");
    snprintf(root, sizeof root, "%.40s/memory-XXXXXX", folder != NULL ? folder : "/tmp");
    cr_assert_not_null(mkdtemp(root));
}

static void teardown(void)
{
    char command[96];
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    cr_assert_eq(system(command), 0);
}

TestSuite(memory, .init = setup, .fini = teardown, .timeout = 240);

/* The file root + path, and the folders that lead to it. */
static void put(const char *path, const char *text)
{
    char name[512];
    snprintf(name, sizeof name, "%s%s", root, path);
    for (char *at = name + strlen(root) + 1; (at = strchr(at, '/')) != NULL; at++) {
        *at = '\0';
        cr_assert(mkdir(name, 0700) == 0 || errno == EEXIST);
        *at = '/';
    }
    FILE *file = fopen(name, "w");
    cr_assert_not_null(file, "%s", name);
    cr_assert(fputs(text, file) >= 0 && fclose(file) == 0);
}

Test(memory, no_groups_are_no_limit)
{
    cr_assert_eq(memory_limit_of_groups(root), MEMORY_NO_LIMIT);
    put("/proc/self/cgroup", "0::/app\n");
    cr_assert_eq(memory_limit_of_groups(root), MEMORY_NO_LIMIT);
    put("/sys/fs/cgroup/app/memory.max", "max\n");
    put("/sys/fs/cgroup/app/memory.high", "max\n");
    cr_assert_eq(memory_limit_of_groups(root), MEMORY_NO_LIMIT);
}

Test(memory, version_2_has_two_limits_and_those_of_the_groups_above)
{
    put("/proc/self/cgroup", "0::/slice/app\n");
    put("/sys/fs/cgroup/slice/app/memory.max", "536870912\n");
    cr_assert_eq(memory_limit_of_groups(root), 536870912);
    put("/sys/fs/cgroup/slice/app/memory.high", "400000000\n");
    cr_assert_eq(memory_limit_of_groups(root), 400000000);
    put("/sys/fs/cgroup/slice/memory.max", "300000000\n");
    cr_assert_eq(memory_limit_of_groups(root), 300000000);
    put("/sys/fs/cgroup/memory.max", "200000000\n");
    cr_assert_eq(memory_limit_of_groups(root), 200000000);
}

Test(memory, version_1_is_found_among_the_other_controllers)
{
    put("/proc/self/cgroup", "9:name=systemd:/x\n5:cpu,cpuacct:/small\n4:hugetlb,memory,pids:/app\n0::/\n");
    put("/sys/fs/cgroup/memory/small/memory.limit_in_bytes", "1\n"); /* of another hierarchy's group */
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    cr_assert_eq(memory_limit_of_groups(root), 9223372036854771712u);
    put("/sys/fs/cgroup/memory/app/memory.limit_in_bytes", "134217728\n");
    cr_assert_eq(memory_limit_of_groups(root), 134217728);
    put("/proc/self/cgroup", "4:memory_of_another_kind:/app\n");
    cr_assert_eq(memory_limit_of_groups(root), MEMORY_NO_LIMIT);
}

/* A container sees its own group where the hierarchy is mounted, and may be told the name that the group has outside. */
Test(memory, a_path_of_the_host_ends_at_the_mount)
{
    put("/proc/self/cgroup", "4:memory:/host/docker/0123\n0::/host/docker/0123\n");
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "268435456\n");
    cr_assert_eq(memory_limit_of_groups(root), 268435456);
    put("/sys/fs/cgroup/memory.max", "100000000\n");
    cr_assert_eq(memory_limit_of_groups(root), 100000000);
}

Test(memory, a_path_that_leaves_the_mount_is_not_followed)
{
    put("/proc/self/cgroup", "0::/../../elsewhere\n");
    put("/sys/elsewhere/memory.max", "5\n");
    put("/sys/fs/cgroup/memory.max", "77\n");
    cr_assert_eq(memory_limit_of_groups(root), 77);
    put("/proc/self/cgroup", "0::no-slash\n");
    cr_assert_eq(memory_limit_of_groups(root), 77);
}

Test(memory, what_is_no_number_is_no_limit)
{
    static const char *const texts[] = {"",      "-1\n",     "12x\n", "\n",
                                        " 12\n", "0x1000\n", "max",   "99999999999999999999999999\n"};
    put("/proc/self/cgroup", "garbage\n:\n0:\n::::\n0::no-slash\n4:memory\n0::/app");
    for (unsigned i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        put("/sys/fs/cgroup/app/memory.max", texts[i]);
        cr_assert_eq(memory_limit_of_groups(root), MEMORY_NO_LIMIT, "\"%s\"", texts[i]);
    }
    put("/sys/fs/cgroup/app/memory.max", "12"); /* and the garbage before it did not stop the search */
    cr_assert_eq(memory_limit_of_groups(root), 12);
}

Test(memory, of_a_name_too_long_for_a_path_the_mount_counts)
{
    static char line[16384];
    memset(line, 'a', sizeof line - 1);
    memcpy(line, "0::/", 4);
    put("/proc/self/cgroup", line);
    put("/sys/fs/cgroup/memory.max", "12\n");
    cr_assert_eq(memory_limit_of_groups(root), 12);
    memset(line + 4, '/', 800); /* and one that is all separators ends */
    line[804] = '\0';
    put("/proc/self/cgroup", line);
    (void)memory_limit_of_groups(root);
}

Test(memory, the_process_s_own_limit_counts)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    const bool limited = false; /* their shadow is more than any limit, and then they end the process */
#else
    const bool limited = true;
#endif
    uint64_t machine = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    pid_t pid = fork();
    cr_assert(pid >= 0);
    if (pid == 0) { /* a process that has not asked yet */
        struct rlimit limit = {.rlim_cur = 64 << 20, .rlim_max = RLIM_INFINITY};
        if (!limited || setrlimit(RLIMIT_DATA, &limit) != 0)
            _exit(0); /* not to be had here: nothing to try */
        _exit(memory_limit_bytes() == 64 << 20 ? 0 : 1);
    }
    int status;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert_eq(status, 0);
    cr_assert(memory_limit_bytes() > 0 && memory_limit_bytes() <= machine);
    cr_assert_eq(memory_limit_bytes(), memory_limit_bytes());
}
