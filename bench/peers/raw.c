/*
 * raw.c -- the limits: what the disk and the kernel charge when nobody does any work.
 *
 *   raw-log-records         append the records (with a number each) and fdatasync; the file grows
 *   raw-log-records-direct  the same bytes rounded up to 4 KiB, O_DIRECT|O_DSYNC into preallocated, written blocks
 *   raw-log-pages-direct    one whole page a record, O_DIRECT|O_DSYNC into preallocated, written blocks
 *   rawmap                  a file of records mapped MAP_SHARED: what open and close cost at the least
 * A log has no records to read back by number; read() gives what the newest append wrote, so that it is verified too.
 */
#include "bench/peers/peer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PAGE = 4096, ENTRY_BYTES = RECORD_BYTES + 8, UPDATE_RECORDS_MAX = 1024 };
#define RING_BYTES (UINT64_C(64) << 20)

struct raw_log {
    int fd;
    bool direct, pages;
    uint64_t end, last; /* append position; where the newest append begins */
    size_t last_count, stride;
    uint8_t *buffer; /* page aligned, UPDATE_RECORDS_MAX pages */
};

static int write_whole(int fd, const uint8_t *bytes, size_t count, uint64_t offset)
{
    while (count > 0) {
        ssize_t n = pwrite(fd, bytes, count, (off_t)offset);
        if (n < 0)
            return errno;
        bytes += n;
        count -= (size_t)n;
        offset += (uint64_t)n;
    }
    return 0;
}

static int log_load(const struct store_peer *peer, const char *path, uint64_t data_bytes)
{
    (void)data_bytes;
    int fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    if (fd < 0)
        return errno;
    int rc = 0;
    if (peer != &store_raw_log_records) {
        uint8_t *zeros = calloc(1, 1 << 20);
        rc = zeros == NULL ? ENOMEM : 0;
        for (uint64_t at = 0; rc == 0 && at < RING_BYTES; at += 1 << 20)
            rc = write_whole(fd, zeros, 1 << 20, at);
        free(zeros);
        if (rc == 0 && fsync(fd) != 0)
            rc = errno;
    }
    if (close(fd) != 0 && rc == 0)
        rc = errno;
    return rc;
}

static int log_open(void **handle, const struct store_peer *peer, const char *path)
{
    struct raw_log *self = calloc(1, sizeof *self);
    if (self == NULL)
        return ENOMEM;
    int rc;
    self->pages = peer == &store_raw_log_pages_direct;
    self->direct = peer != &store_raw_log_records;
    self->stride = self->pages ? PAGE : ENTRY_BYTES;
    self->buffer = aligned_alloc(PAGE, (size_t)UPDATE_RECORDS_MAX * PAGE);
    if (self->buffer == NULL) {
        rc = ENOMEM;
        goto free_self;
    }
    memset(self->buffer, 0, (size_t)UPDATE_RECORDS_MAX * PAGE);
    self->fd = open(path, O_RDWR | O_CLOEXEC | (self->direct ? O_DIRECT | O_DSYNC : 0));
    if (self->fd < 0) {
        rc = errno;
        goto free_buffer;
    }
    *handle = self;
    return 0;
free_buffer:
    free(self->buffer);
free_self:
    free(self);
    return rc;
}

static uint64_t log_records(void *handle)
{
    (void)handle;
    return UINT64_C(1) << 22;
}

static int log_update(void *handle, const uint64_t *records, size_t count, uint64_t version)
{
    struct raw_log *self = handle;
    if (count > UPDATE_RECORDS_MAX)
        return EINVAL;
    for (size_t i = 0; i < count; i++) {
        uint8_t *entry = self->buffer + i * self->stride;
        memcpy(entry, &records[i], sizeof records[i]);
        record_fill(entry + 8, records[i], version);
        if (self->pages) /* a page that differs from the last one everywhere */
            peer_fill(entry + ENTRY_BYTES, PAGE - ENTRY_BYTES, version + i);
    }
    size_t bytes = count * self->stride;
    if (self->direct)
        bytes = (bytes + PAGE - 1) / PAGE * PAGE;
    if (self->direct && self->end + bytes > RING_BYTES)
        self->end = 0;
    int rc = write_whole(self->fd, self->buffer, bytes, self->end);
    if (rc == 0 && !self->direct && fdatasync(self->fd) != 0)
        rc = errno;
    if (rc != 0)
        return rc;
    self->last = self->end;
    self->last_count = count;
    self->end += bytes;
    return 0;
}

/* Only what the newest append holds can be read; anything else is ENOENT, which verification takes as "not kept". */
static int log_read(void *handle, uint64_t record, uint8_t bytes[RECORD_BYTES])
{
    struct raw_log *self = handle;
    size_t whole = self->last_count * self->stride;
    whole = (whole + PAGE - 1) / PAGE * PAGE;
    ssize_t got = pread(self->fd, self->buffer, whole, (off_t)self->last);
    if (got < 0)
        return errno;
    for (size_t i = 0; i < self->last_count && (i + 1) * self->stride <= (size_t)got; i++) {
        uint64_t number;
        memcpy(&number, self->buffer + i * self->stride, sizeof number);
        if (number == record) {
            memcpy(bytes, self->buffer + i * self->stride + 8, RECORD_BYTES);
            return 0;
        }
    }
    return ENOENT;
}

static int log_close(void *handle)
{
    struct raw_log *self = handle;
    int rc = close(self->fd) == 0 ? 0 : errno;
    free(self->buffer);
    free(self);
    return rc;
}

#define RAW_LOG \
    .durable = true, .load = log_load, .open = log_open, .records = log_records, .read = log_read, \
    .update = log_update, .close = log_close

const struct store_peer store_raw_log_records = {.name = "raw-log-records", .remark = "limit", RAW_LOG};
const struct store_peer store_raw_log_records_direct = {.name = "raw-log-records-direct", .remark = "limit", RAW_LOG};
const struct store_peer store_raw_log_pages_direct = {.name = "raw-log-pages-direct", .remark = "limit", RAW_LOG};

/* ---- a mapped file of records ---- */

struct raw_map {
    int fd;
    uint8_t *base;
    size_t bytes;
};

static int map_load(const struct store_peer *peer, const char *path, uint64_t data_bytes)
{
    (void)peer;
    uint8_t chunk[1024 * RECORD_BYTES];
    int fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    if (fd < 0)
        return errno;
    int rc = 0;
    for (uint64_t at = 0; rc == 0 && at + sizeof chunk <= data_bytes; at += sizeof chunk) {
        for (uint64_t i = 0; i < 1024; i++)
            record_fill(chunk + i * RECORD_BYTES, at / RECORD_BYTES + i, 0);
        rc = write_whole(fd, chunk, sizeof chunk, at);
    }
    if (rc == 0 && fsync(fd) != 0)
        rc = errno;
    close(fd);
    return rc;
}

static int map_open(void **handle, const struct store_peer *peer, const char *path)
{
    (void)peer;
    struct raw_map *self = calloc(1, sizeof *self);
    struct stat st;
    int rc;
    if (self == NULL)
        return ENOMEM;
    self->fd = open(path, O_RDWR | O_CLOEXEC);
    if (self->fd < 0) {
        rc = errno;
        goto free_self;
    }
    if (fstat(self->fd, &st) != 0) {
        rc = errno;
        goto close_fd;
    }
    self->bytes = (size_t)st.st_size;
    self->base = mmap(NULL, self->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, self->fd, 0);
    if (self->base != MAP_FAILED) {
        *handle = self;
        return 0;
    }
    rc = errno;
close_fd:
    close(self->fd);
free_self:
    free(self);
    return rc;
}

static uint64_t map_records(void *handle)
{
    return ((struct raw_map *)handle)->bytes / RECORD_BYTES;
}

static int map_read(void *handle, uint64_t record, uint8_t bytes[RECORD_BYTES])
{
    struct raw_map *self = handle;
    if (record >= self->bytes / RECORD_BYTES)
        return ENOENT;
    memcpy(bytes, self->base + record * RECORD_BYTES, RECORD_BYTES);
    return 0;
}

static int map_close(void *handle)
{
    struct raw_map *self = handle;
    munmap(self->base, self->bytes);
    close(self->fd);
    free(self);
    return 0;
}

const struct store_peer store_raw_map = {.name = "rawmap",
                                         .remark = "limit",
                                         .load = map_load,
                                         .open = map_open,
                                         .records = map_records,
                                         .read = map_read,
                                         .close = map_close};
