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

/* A store file (path resolved, so that the log's name is the same for everybody) and its log's path. */
struct file {
    int fd;
    bool writable;
    bool in_memory; /* shm: section */
    dev_t device;
    ino_t inode;
    char path[FILE_PATH_BYTES];     /* absolute, resolved; "/dev/shm/..." of a section */
    char log_path[FILE_PATH_BYTES + 8]; /* path + "-wal" */
};

/* "shm:NAME" or a path -> file->path, log_path, in_memory.  The last component need not exist.
 * 0, EINVAL (bad shm name), ENAMETOOLONG, errno of realpath. */
int file_resolve(struct file *file, const char *path);
/* Opens file->path.  EMLINK if writable and it has several links; EINVAL if not a regular file. */
int file_open(struct file *file, bool writable);
void file_close(struct file *file);
/* Is the path still this inode? */
bool file_is_current(const struct file *file);
/* Whole transfers: EINTR retried, short transfers continued; 0 or errno (EIO for an unexpected end). */
int file_read_at(int fd, void *buffer, size_t bytes, uint64_t offset);
int file_write_at(int fd, const void *buffer, size_t bytes, uint64_t offset);
int file_sync(int fd);           /* fdatasync */
int file_sync_directory(const char *path); /* the directory that holds path */
int file_unlink(const char *path);

#endif
