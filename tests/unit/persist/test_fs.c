/* fs.c: what file systems are refused for.  Method: the ones this machine has under the test, and overlayfs in a mount
 * namespace of its own, where the test may make one (skipped with a message where not). */
#include "temp_store.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/vfs.h>
#include <sys/wait.h>

#include "persist/fs.h"

TestSuite(fs, .init = store_directory, .fini = store_remove, .timeout = 300);

Test(fs, memory_is_coherent_and_needs_no_sync)
{
    struct fs_facts facts;
    int fd = open("/dev/shm", O_TMPFILE | O_RDWR, 0600);
    cr_assert_geq(fd, 0);
    OK(fs_classify(fd, &facts));
    cr_assert_str_eq(facts.name, "tmpfs");
    cr_assert(facts.coherent && facts.memory && !facts.overwrite_allocates && !facts.stacked);
    struct file file = {.fd = fd, .path = "x"};
    for (enum fs_use use = FS_ONE_PROCESS; use <= FS_LIVE; use++)
        OK(fs_check(&file, use));
    close(fd);
}

Test(fs, proc_is_unknown_and_carries_one_process)
{
    struct fs_facts facts;
    struct file file = {.fd = open("/proc/self/stat", O_RDONLY), .path = "/proc/self/stat"};
    cr_assert_geq(file.fd, 0);
    OK(fs_classify(file.fd, &facts));
    cr_assert(!facts.coherent);
    OK(fs_check(&file, FS_ONE_PROCESS));
    FAILS(fs_check(&file, FS_READER), STEAD_FILE_SYSTEM);
    FAILS(fs_check(&file, FS_WRITERS), STEAD_FILE_SYSTEM);
    FAILS(fs_check(&file, FS_LIVE), STEAD_FILE_SYSTEM);
    cr_assert_not_null(strstr(error_last_text(), "/proc/self/stat"), "%s", error_last_text());
    close(file.fd);
}

Test(fs, a_reader_of_a_lower_layer_is_refused_before_it_reads)
{
    struct file file = {.fd = open("/dev/shm", O_TMPFILE | O_RDWR, 0600), .path = "x", .lower_layer = true};
    FAILS(fs_check(&file, FS_ONE_PROCESS), STEAD_FILE_SYSTEM);
    FAILS(fs_check(&file, FS_READER), STEAD_FILE_SYSTEM);
    close(file.fd);
}

static void write_file(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    if (fd < 0 || write(fd, "store", 5) != 5)
        _exit(20);
    close(fd);
}

/* 0: as it must be; 77: no overlay to be had here; else which step failed. */
static int try_overlay(const char *root)
{
    char lower[128], upper[128], work[128], merged[128], path[160], options[512];
    char *names[] = {lower, upper, work, merged};
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("none", root, "tmpfs", 0, NULL) != 0)
        return 77;
    for (unsigned i = 0; i < 4; i++) {
        (void)snprintf(names[i], sizeof lower, "%s/%u", root, i);
        if (mkdir(names[i], 0700) != 0)
            return 21;
    }
    (void)snprintf(path, sizeof path, "%s/old", lower);
    write_file(path);
    (void)snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s,workdir=%s", lower, upper, work);
    if (mount("overlay", merged, "overlay", 0, options) != 0)
        return 77;
    struct file file;
    (void)snprintf(path, sizeof path, "%s/old", merged);
    if (file_resolve(&file, path) != 0 || file_open(&file, false) != 0)
        return 22;
    if (!file.lower_layer || fs_check(&file, FS_ONE_PROCESS) != STEAD_FILE_SYSTEM)
        return 23;
    file_close(&file);
    if (file_open(&file, true) != 0 || file.lower_layer || fs_check(&file, FS_WRITERS) != 0)
        return 24; /* a writer copies it up by opening it */
    file_close(&file);
    (void)snprintf(path, sizeof path, "%s/new", merged);
    write_file(path);
    if (file_resolve(&file, path) != 0 || file_open(&file, false) != 0)
        return 25;
    int rc = fs_check(&file, FS_READER);
    bool can_tell = !file.lower_layer; /* Linux 6.6 and later */
    file_close(&file);
    if (can_tell && rc != 0)
        return 26;
    if (mount("none", merged, NULL, MS_REMOUNT | MS_RDONLY, NULL) != 0)
        return 27;
    (void)snprintf(path, sizeof path, "%s/old", merged);
    if (file_resolve(&file, path) != 0 || file_open(&file, false) != 0 || fs_check(&file, FS_READER) != 0)
        return 28; /* nobody can copy it up any more */
    file_close(&file);
    return can_tell ? 0 : 78;
}

Test(fs, overlayfs_readers_are_refused_while_a_writer_could_leave_them_behind)
{
    fflush(NULL);
    pid_t child = fork();
    if (child == 0)
        _exit(try_overlay(store.directory));
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77)
        puts("skipped: no permission to mount overlayfs here");
    else
        cr_assert(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 78, "step %d", WEXITSTATUS(status));
}
