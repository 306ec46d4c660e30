/*
 * file.h -- the one place that opens, writes, syncs and sizes files: a replaceable table of system calls, so that
 * tests can fail, cut short, record and reorder them.
 */
#ifndef STEAD_PERSIST_FILE_H
#define STEAD_PERSIST_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#define FILE_PATH_BYTES 4096
#define FILE_SECTION_DIRECTORY "/dev/shm"
#define FILE_SECTION_PREFIX FILE_SECTION_DIRECTORY "/stead." /* shm:NAME is the file of this name */

/*
 * The system calls on store and log files, with the meaning of their manual pages: -1 and errno on failure.
 * Replace entries before any store is open (not thread-safe).  Bytes also reach a file through MAP_SHARED mappings
 * (LIVE stores only); no entry sees those.
 */
struct file_calls {
    int (*open)(const char *path, int flags, mode_t mode);
    int (*close)(int fd);
    ssize_t (*pread)(int fd, void *buffer, size_t bytes, off_t offset);
    ssize_t (*pwrite)(int fd, const void *buffer, size_t bytes, off_t offset);
    ssize_t (*pwrite_durable)(int fd, const void *buffer, size_t bytes, off_t offset); /* pwritev2, RWF_DSYNC  */
    int (*fdatasync)(int fd);
    int (*fsync)(int fd);                                 /* of a directory, and of a new file before its first link */
    int (*sync_range)(int fd, off_t offset, off_t bytes); /* file_sync_range() below                       */
    int (*start_writeback)(int fd, off_t offset, off_t bytes); /* sync_file_range, SYNC_FILE_RANGE_WRITE        */
    int (*read_ahead)(int fd, off_t offset, off_t bytes);      /* posix_fadvise, POSIX_FADV_WILLNEED           */
    int (*ftruncate)(int fd, off_t bytes);
    int (*fallocate)(int fd, int mode, off_t offset, off_t bytes);
    int (*linkat)(int old_dir, const char *old_path, int new_dir, const char *new_path, int flags);
    int (*rename)(const char *from, const char *to);
    int (*rename_new)(const char *from, const char *to); /* renameat2, RENAME_NOREPLACE */
    int (*exchange)(const char *a, const char *b);       /* renameat2, RENAME_EXCHANGE  */
    int (*unlink)(const char *path);
    int (*clone)(int to_fd, int from_fd); /* ioctl FICLONE */
    ssize_t (*copy_file_range)(int from_fd, off_t *from, int to_fd, off_t *to, size_t bytes);
    void *(*mmap)(void *address, size_t bytes, int protection, int flags, int fd, off_t offset);
    int (*munmap)(void *address, size_t bytes);
};
extern struct file_calls file_calls;
/* The real ones: to restore the table, or to call through from a replacement. */
extern const struct file_calls file_calls_system;

/* A store file (path resolved, so that the log's name is the same for everybody) and its log's path. */
struct file {
    int fd;
    bool writable;
    bool in_memory;   /* shm: section */
    bool lower_layer; /* overlayfs: may be read from a layer that writers do not write, see fs.c */
    dev_t device;
    ino_t inode;
    char path[FILE_PATH_BYTES];               /* absolute, resolved; "/dev/shm/..." of a section */
    char log_path[FILE_PATH_BYTES + 8];       /* path + "-wal" */
    char log_next_path[FILE_PATH_BYTES + 16]; /* path + "-wal.new": a log that is about to become the log */
};

/* ---- names: file_name.c ---- */
/* "shm:NAME" or a path -> file->path, log_path, in_memory; fd is -1.  The last component need not exist; symbolic
 * links are followed, also one that names nothing yet.  0, EINVAL (bad shm name), ENAMETOOLONG, errno of realpath. */
int file_resolve(struct file *file, const char *path);
/* Opens file->path.  EMLINK if writable and it has several links; EINVAL or EISDIR if not a regular file. */
int file_open(struct file *file, bool writable);
void file_close(struct file *file);
/* Is the path still this inode? */
bool file_is_current(const struct file *file);
/* Is there a regular file under path?  Says so also of one that may not be opened. */
bool file_is_regular(const char *path);
/* *now: the same open file under the name that it has at this moment.  ENOENT: none that could be found; errno, with a sentence. */
int file_rename_known(const struct file *file, struct file *now);
/* Has the inode any name, maybe another one?  False: nobody can open it any more. */
bool file_has_name(const struct file *file);

/* ---- transfers, syncs, sizes: file.c ---- */
/* Whole transfers: EINTR retried, short transfers continued; 0 or errno (EIO for an unexpected end). */
int file_read_at(int fd, void *buffer, size_t bytes, uint64_t offset);
int file_write_at(int fd, const void *buffer, size_t bytes, uint64_t offset);
/* file_write_at and the sync of just these bytes (and of the metadata that finds them). */
int file_write_durable(int fd, const void *buffer, size_t bytes, uint64_t offset);
int file_sync(int fd); /* fdatasync */
/* Durable: the file's bytes in [offset, offset + bytes), and no others that happen to be dirty: what keeps the pages
 * of lock words out of every commit.  fd must be writable. */
int file_sync_range(int fd, uint64_t offset, uint64_t bytes);
/* Starts writing the range out and returns; a hint, cannot fail. */
void file_start_writeback(int fd, uint64_t offset, uint64_t bytes);
/* Starts reading the range into the cache and returns; a hint, cannot fail. */
void file_read_ahead(int fd, uint64_t offset, uint64_t bytes);
int file_sync_directory(const char *path); /* the directory that holds path */
int file_sync_new(int fd);                 /* fsync: a file that gets its name afterwards */
/* EPERM, with a sentence: the file at path is somebody else's in a folder with the sticky bit (/tmp): it cannot be renamed,
 * removed or replaced.  0: nothing is known to be in the way. */
int file_may_replace(const char *path);
/* Can a file of so many bytes be made beside path?  A look, no promise; false also where that cannot be told. */
bool file_may_make(const char *path, uint64_t bytes);
/* EMFILE, with a sentence: the number is at or past the limit of open files that is now; dup3() would refuse it. */
int file_may_hold(int fd);
int file_unlink(const char *path);
int file_rename(const char *from, const char *to);
int file_exchange(const char *a, const char *b); /* EINVAL, ENOSYS: not here */
int file_size(int fd, uint64_t *bytes);
/* EFBIG: a file so long is more than this process may make (ulimit -f). */
int file_within_limit(uint64_t bytes);
int file_truncate(int fd, uint64_t bytes); /* up or down; EFBIG */
/* Disk blocks for [offset, offset + bytes), file lengthened to hold them; content kept, new bytes zero.
 * ENOSPC, EFBIG; EOPNOTSUPP where the file system cannot promise it. */
int file_reserve(int fd, uint64_t offset, uint64_t bytes);
/* The same without lengthening the file: blocks for what will be written there. */
int file_reserve_beyond(int fd, uint64_t offset, uint64_t bytes);
/* As file_reserve() for a range whose old bytes mean nothing: writes zeros where file_reserve() is not supported. */
int file_reserve_fresh(int fd, uint64_t offset, uint64_t bytes);
/* Gives the blocks of the range back; it reads as zeros.  Length kept.  EOPNOTSUPP: nothing happened. */
int file_punch(int fd, uint64_t offset, uint64_t bytes);
/* Makes the range read as zeros: by punching, or by writing them. */
int file_zero(int fd, uint64_t offset, uint64_t bytes);
/* The same by writing them, which leaves the pages in the cache; in pieces that end at multiples of 256 KiB: folios of that
 * size. */
int file_write_zeros(int fd, uint64_t offset, uint64_t bytes);
/* Any file (logs, copies) with the flags of open(2) (O_CLOEXEC is added): 0 and *fd, or errno. */
int file_open_path(int *fd, const char *path, int flags, mode_t mode);
/* A new file (mode & ~umask) without a name in the directory of path; where the file system has none (O_TMPFILE), one
 * with a temporary name, returned in temporary (else empty). */
int file_open_nameless(int *fd, const char *path, mode_t mode, char temporary[FILE_PATH_BYTES + 24]);
/* Gives it its name; EEXIST if that is taken. A temporary name is removed, also on failure. The directory is synced. */
int file_link_nameless(int fd, const char *path, const char *temporary);
void file_drop_nameless(int fd, const char *temporary); /* closes; nothing is left */
/* to becomes a copy of from sharing its blocks.  EOPNOTSUPP, EXDEV, EINVAL: not here; copy the bytes. */
int file_clone(int to_fd, int from_fd);
/* Copies bytes between files (other ranges than the same one of the same file); shares blocks where it can. */
int file_copy_range(int from_fd, uint64_t from, int to_fd, uint64_t to, uint64_t bytes);
/* The name behind a descriptor, for sentences; never fails. */
const char *file_name(int fd, char text[FILE_PATH_BYTES]);

#endif
