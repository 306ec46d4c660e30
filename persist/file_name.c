/*
 * file_name.c -- from a name to an open file, and from a nameless new file to a name.
 *
 * A store is known by its resolved path, because the log's name is made from it: two processes that came through
 * different symbolic links must mean the same log.  For the same reason a writer is refused a file with several hard
 * links (EMLINK): nothing could tell which of its names carries the log.
 *
 * A new file is written in full before it has a name:
 *
 *   step                                       a crash right after it leaves
 *   1 open(directory, O_TMPFILE)               nothing: the kernel frees a file without links
 *   2 write, fsync                             nothing
 *   3 linkat(/proc/self/fd/N, path)            nothing or the whole file; EEXIST: somebody else was first
 *   4 fsync(directory)                         the whole file
 *
 * Where O_TMPFILE is not supported (or /proc is not there) step 1 makes PATH.new-RANDOM and step 3 is a rename that
 * replaces nothing; a crash before it may leave that file behind, which no opener ever looks at.
 *
 *   S10  a path either does not exist or names a file that was complete and synced when it got the name
 */
#include "persist/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.h"
#include "base/system.h"
#include "persist/fs.h"

#define NAME_BYTES_MAX 200    /* of the last component: suffixes of ours ("-wal", ".new-...") must fit in NAME_MAX */
#define LINKS_FOLLOWED_MAX 40 /* symbolic links that name nothing yet; as the kernel's own limit */

/* ---- names ---- */

static int resolve_section(struct file *file, const char *name)
{
    size_t length = strlen(name);
    if (length == 0 || length > NAME_BYTES_MAX || strchr(name, '/') != NULL)
        return error_set(EINVAL, "\"shm:%.200s\" is no section name: 1 to %d bytes without '/'", name, NAME_BYTES_MAX);
    (void)snprintf(file->path, sizeof file->path, "%s%s", FILE_SECTION_PREFIX, name);
    return 0;
}

/* The last component does not exist: resolve the directory, keep the name. */
static int resolve_new(struct file *file, const char *path)
{
    char directory[FILE_PATH_BYTES];
    const char *slash = strrchr(path, '/');
    const char *name = slash == NULL ? path : slash + 1;
    if (*name == '\0')
        return error_set(EISDIR, "%.300s names a directory, not a file", path);
    size_t length = slash == NULL ? 0 : (size_t)(slash - path) + 1; /* with the slash: "/" stays "/" */
    memcpy(directory, path, length);
    directory[length] = '\0';
    char *real = realpath(length == 0 ? "." : directory, NULL);
    if (real == NULL)
        return error_set(errno, "cannot find the directory of %.300s: %s", path, error_text(errno));
    int written = snprintf(file->path, sizeof file->path, "%s%s%s", real, strcmp(real, "/") == 0 ? "" : "/", name);
    free(real);
    if (written < 0 || (size_t)written >= sizeof file->path)
        return error_set(ENAMETOOLONG, "the resolved name of %.300s is too long", path);
    return 0;
}

/* path is a symbolic link: target receives where it points, relative ones seen from its directory.  False: no link. */
static bool read_link(const char *path, char target[FILE_PATH_BYTES])
{
    char text[FILE_PATH_BYTES];
    ssize_t n = readlink(path, text, sizeof text - 1);
    if (n <= 0)
        return false;
    text[n] = '\0';
    const char *slash = strrchr(path, '/');
    int head = text[0] == '/' || slash == NULL ? 0 : (int)(slash - path) + 1;
    int written = snprintf(target, FILE_PATH_BYTES, "%.*s%s", head, path, text);
    return written > 0 && written < FILE_PATH_BYTES;
}

static int resolve_path(struct file *file, const char *path)
{
    char from[FILE_PATH_BYTES], target[FILE_PATH_BYTES];
    if (strlen(path) >= sizeof from)
        return error_set(ENAMETOOLONG, "the name %.100s... is longer than %d bytes", path, FILE_PATH_BYTES - 1);
    memcpy(from, path, strlen(path) + 1);
    for (int links = 0; links <= LINKS_FOLLOWED_MAX; links++) {
        char *real = realpath(from, NULL);
        if (real != NULL) {
            int written = snprintf(file->path, sizeof file->path, "%s", real);
            free(real);
            return written > 0 && (size_t)written < sizeof file->path
                       ? 0
                       : error_set(ENAMETOOLONG, "the resolved name of %.300s is too long", path);
        }
        if (errno != ENOENT || *from == '\0')
            return error_set(errno, "cannot resolve the name \"%.300s\": %s", path, error_text(errno));
        if (!read_link(from, target))
            return resolve_new(file, from);
        memcpy(from, target, sizeof from); /* a link that names nothing yet */
    }
    return error_set(ELOOP, "too many symbolic links in %.300s", path);
}

static int set_log_paths(struct file *file)
{
    const char *slash = strrchr(file->path, '/');
    if (slash != NULL && strlen(slash + 1) > NAME_BYTES_MAX)
        return ENAMETOOLONG;
    (void)snprintf(file->log_path, sizeof file->log_path, "%s-wal", file->path);
    (void)snprintf(file->log_next_path, sizeof file->log_next_path, "%s-wal.new", file->path);
    return 0;
}

int file_resolve(struct file *file, const char *path)
{
    int rc;
    *file = (struct file){.fd = -1};
    if (strncmp(path, "shm:", 4) == 0)
        rc = resolve_section(file, path + 4);
    else
        rc = resolve_path(file, path);
    if (rc != 0)
        return rc;
    if (set_log_paths(file) != 0)
        return error_set(ENAMETOOLONG, "the file name of %.300s is longer than %d bytes", path, NAME_BYTES_MAX);
    file->in_memory = strncmp(file->path, FILE_SECTION_PREFIX, strlen(FILE_SECTION_PREFIX)) == 0;
    return 0;
}

const char *file_name(int fd, char text[FILE_PATH_BYTES])
{
    char link[40];
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, text, FILE_PATH_BYTES - 1);
    if (n <= 0)
        (void)snprintf(text, FILE_PATH_BYTES, "the store");
    else
        text[n] = '\0';
    return text;
}

/* ---- open ---- */

int file_open_path(int *fd, const char *path, int flags, mode_t mode)
{
    do
        *fd = file_calls.open(path, flags | O_CLOEXEC, mode);
    while (*fd < 0 && errno == EINTR);
    return *fd >= 0 ? 0 : errno;
}

int file_open(struct file *file, bool writable)
{
    int rc;
    struct stat facts;
    /* O_NONBLOCK: a fifo must not make us wait for its other end.  O_NOFOLLOW: the path is resolved already. */
    rc = file_open_path(&file->fd, file->path, (writable ? O_RDWR : O_RDONLY) | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW, 0);
    if (rc != 0) {
        file->fd = -1;
        return error_set(rc, "cannot open %.300s: %s", file->path, error_text(rc));
    }
    if (fstat(file->fd, &facts) != 0) {
        rc = error_set(errno, "cannot stat %.300s: %s", file->path, error_text(errno));
        goto close_file;
    }
    if (!S_ISREG(facts.st_mode)) {
        rc = error_set(S_ISDIR(facts.st_mode) ? EISDIR : EINVAL, "%.300s is not a regular file", file->path);
        goto close_file;
    }
    if (writable && facts.st_nlink > 1) {
        rc = error_set(EMLINK,
                       "%.300s has %ju hard links; a writer needs the only one, because its log is found by name",
                       file->path, (uintmax_t)facts.st_nlink);
        goto close_file;
    }
    file->writable = writable;
    file->lower_layer = !writable && fs_in_lower_layer(file->fd);
    file->device = facts.st_dev;
    file->inode = facts.st_ino;
    return 0;
close_file:
    file_close(file);
    return rc;
}

void file_close(struct file *file)
{
    if (file->fd >= 0)
        (void)file_calls.close(file->fd);
    file->fd = -1;
}

/* A symbolic link that somebody left in the place of a file he moved is not its name: who comes through it looks for the log
 * beside the file. */
bool file_is_current(const struct file *file)
{
    struct stat facts;
    return lstat(file->path, &facts) == 0 && facts.st_dev == file->device && facts.st_ino == file->inode;
}

bool file_is_regular(const char *path)
{
    struct stat facts;
    return lstat(path, &facts) == 0 && S_ISREG(facts.st_mode);
}

bool file_has_name(const struct file *file)
{
    struct stat facts;
    return fstat(file->fd, &facts) != 0 || facts.st_nlink != 0;
}

int file_rename_known(const struct file *file, struct file *now)
{
    char name[FILE_PATH_BYTES];
    struct stat facts;
    *now = *file;
    (void)file_name(file->fd, name);
    if (name[0] != '/' || lstat(name, &facts) != 0 || facts.st_dev != file->device || facts.st_ino != file->inode)
        return error_set(ENOENT, "%.300s was renamed, and its present name cannot be found", file->path);
    memcpy(now->path, name, strlen(name) + 1);
    int rc = set_log_paths(now);
    return rc != 0
               ? error_set(rc, "%.300s was renamed to %.300s, which is too long for a log beside it", file->path, name)
               : 0;
}

/* ---- directories and new files ---- */

static void directory_of(const char *path, char directory[FILE_PATH_BYTES])
{
    const char *slash = strrchr(path, '/');
    int length = slash == NULL ? 0 : slash == path ? 1 : (int)(slash - path);
    (void)snprintf(directory, FILE_PATH_BYTES, "%.*s", length == 0 ? 1 : length, length == 0 ? "." : path);
}

bool file_may_make(const char *path, uint64_t bytes)
{
    char directory[FILE_PATH_BYTES];
    struct statvfs room;
    directory_of(path, directory);
    return faccessat(AT_FDCWD, directory, R_OK | W_OK | X_OK, AT_EACCESS) == 0 && statvfs(directory, &room) == 0 &&
           (uint64_t)room.f_bavail * room.f_frsize >= bytes;
}

int file_sync_directory(const char *path)
{
    int rc, fd;
    char directory[FILE_PATH_BYTES];
    directory_of(path, directory);
    rc = file_open_path(&fd, directory, O_RDONLY | O_DIRECTORY, 0);
    if (rc != 0)
        return error_set(rc, "cannot open the directory %.300s to sync it: %s", directory, error_text(rc));
    rc = file_sync_new(fd);
    (void)file_calls.close(fd);
    if (rc == EINVAL || rc == ENOTSUP)
        rc = 0; /* a file system without durable directories of its own */
    return rc == 0 ? 0 : error_set(rc, "cannot sync the directory %.300s: %s", directory, error_text(rc));
}

/* May this process act as the owner of any file? */
static bool owns_everything(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {{0}};
    return syscall(SYS_capget, &header, data) == 0 &&
           (data[CAP_TO_INDEX(CAP_FOWNER)].effective & CAP_TO_MASK(CAP_FOWNER)) != 0;
}

int file_may_replace(const char *path)
{
    struct stat file, folder;
    char directory[FILE_PATH_BYTES];
    directory_of(path, directory);
    if (stat(directory, &folder) != 0 || lstat(path, &file) != 0 || (folder.st_mode & S_ISVTX) == 0 ||
        file.st_uid == geteuid() || folder.st_uid == geteuid() || owns_everything())
        return 0;
    return error_set(
        EPERM,
        "%.300s belongs to another user (%lu), and only he may replace it in a folder with the sticky bit: "
        "writers of several users need another folder",
        path, (unsigned long)file.st_uid);
}

int file_unlink(const char *path)
{
    return file_calls.unlink(path) == 0 ? 0 : errno;
}

int file_rename(const char *from, const char *to)
{
    return file_calls.rename(from, to) == 0 ? 0 : errno;
}

int file_exchange(const char *a, const char *b)
{
    if (file_calls.exchange(a, b) == 0)
        return 0;
    return system_lacks_call(errno) ? ENOSYS : errno;
}

int file_open_nameless(int *fd, const char *path, mode_t mode, char temporary[FILE_PATH_BYTES + 24])
{
    int rc;
    char directory[FILE_PATH_BYTES];
    temporary[0] = '\0';
    if (access("/proc/self/fd", X_OK) == 0) {
        directory_of(path, directory);
        rc = file_open_path(fd, directory, O_RDWR | O_TMPFILE, mode);
        if (rc != EOPNOTSUPP && rc != EISDIR && rc != EINVAL)
            return rc == 0 ? 0 : error_set(rc, "cannot create a file in %.300s: %s", directory, error_text(rc));
    }
    uint64_t number;
    if (getrandom(&number, sizeof number, 0) != (ssize_t)sizeof number)
        return error_set(EIO, "cannot get random bytes for a temporary name beside %.300s", path);
    (void)snprintf(temporary, FILE_PATH_BYTES + 24, "%s.new-%08" PRIx32, path, (uint32_t)number);
    rc = file_open_path(fd, temporary, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, mode);
    if (rc != 0)
        temporary[0] = '\0';
    return rc == 0 ? 0 : error_set(rc, "cannot create a file beside %.300s: %s", path, error_text(rc));
}

/* Rename, not link and unlink: between those two a crash would leave a store with two names, which no writer opens. */
static int rename_nameless(const char *temporary, const char *path)
{
    int rc = file_calls.rename_new(temporary, path) == 0 ? 0 : errno;
    if (rc == EINVAL || system_lacks_call(rc)) /* not on this file system */
        rc = file_calls.linkat(AT_FDCWD, temporary, AT_FDCWD, path, 0) == 0 ? 0 : errno;
    (void)file_calls.unlink(temporary); /* ENOENT after the rename */
    return rc;
}

int file_link_nameless(int fd, const char *path, const char *temporary)
{
    int rc;
    char self[40];
    (void)snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    if (temporary[0] != '\0')
        rc = rename_nameless(temporary, path);
    else
        rc = file_calls.linkat(AT_FDCWD, self, AT_FDCWD, path, AT_SYMLINK_FOLLOW) == 0 ? 0 : errno;
    if (rc == EEXIST)
        return error_set(EEXIST, "%.300s exists already", path);
    if (rc != 0)
        return error_set(rc, "cannot give a new file the name %.300s: %s", path, error_text(rc));
    return file_sync_directory(path);
}

void file_drop_nameless(int fd, const char *temporary)
{
    if (temporary[0] != '\0')
        (void)file_calls.unlink(temporary);
    (void)file_calls.close(fd);
}
