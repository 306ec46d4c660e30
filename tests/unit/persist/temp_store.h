/* temp_store.h -- a store file in a directory of its own, gone with the test; for the tests of persist/. */
#ifndef STEAD_TESTS_TEMP_STORE_H
#define STEAD_TESTS_TEMP_STORE_H

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "persist/file.h"
#include "persist/image.h"
#include "persist/map.h"
#include "persist/superblock.h"

#define OK(call) \
    do { \
        int ok_rc_ = (call); \
        cr_assert_eq(ok_rc_, 0, "%s: %d %s (%s)", #call, ok_rc_, error_text(ok_rc_), error_last_text()); \
    } while (0)
#define FAILS(call, code) \
    do { \
        int fails_rc_ = (call); \
        cr_assert_eq(fails_rc_, (code), "%s: %d %s (%s), expected %s", #call, fails_rc_, error_text(fails_rc_), \
                     error_last_text(), #code); \
    } while (0)

#define MIB (UINT64_C(1) << 20)

static struct {
    char directory[64];
    char path[128];
    struct file file;
    struct superblock super;
    struct image *image;
    _Alignas(8) uint8_t shared[IMAGE_SHARED_BYTES];
} store;

static inline void store_directory(void)
{
    const char *root = getenv("TMPDIR");
    (void)snprintf(store.directory, sizeof store.directory, "%.40s/stead-unit-XXXXXX", root == NULL ? "/tmp" : root);
    cr_assert_not_null(mkdtemp(store.directory));
    (void)snprintf(store.path, sizeof store.path, "%s/store", store.directory);
    store.file.fd = -1;
}

static inline unsigned store_count_files(void)
{
    unsigned count = 0;
    DIR *directory = opendir(store.directory);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;)
        count += entry->d_name[0] != '.';
    closedir(directory);
    return count;
}

static inline void store_remove(void)
{
    file_calls = file_calls_system;
    DIR *directory = opendir(store.directory);
    for (struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL;)
        (void)unlinkat(dirfd(directory), entry->d_name, 0);
    if (directory != NULL)
        closedir(directory);
    (void)rmdir(store.directory);
}

/* Bytes that say where they stand. */
static inline uint64_t store_mark(uint64_t offset, uint64_t round)
{
    return (offset + 1) * UINT64_C(0x9e3779b97f4a7c15) ^ round;
}

static inline void store_create(void)
{
    static uint8_t unit[UNIT_BYTES];
    for (uint64_t at = 0; at < UNIT_BYTES; at += PAGE_BYTES) {
        uint64_t mark = store_mark(at, 0);
        memcpy(unit + at, &mark, sizeof mark);
    }
    OK(file_resolve(&store.file, store.path));
    store.super = (struct superblock){.capacity_bytes = UINT64_C(1) << 30};
    OK(image_create(&store.file, &store.super, unit, 0));
}

static inline int store_try_open(enum image_kind kind, bool first)
{
    struct image_options options = {
        .kind = kind, .first = first, .shared = (struct image_shared *)(void *)store.shared};
    int rc = file_open(&store.file, kind != IMAGE_READ);
    if (rc == 0)
        rc = superblock_read(&store.file, &store.super);
    if (rc == 0)
        rc = image_open(&store.image, &store.file, &store.super, &options);
    if (rc != 0)
        file_close(&store.file);
    return rc;
}

static inline void store_open(enum image_kind kind)
{
    OK(store_try_open(kind, true));
}

/* Ends without sealing, as a killed process does. */
static inline void store_drop(void)
{
    image_close(store.image);
    store.image = NULL;
    file_close(&store.file);
}

static inline void store_seal(uint64_t used)
{
    OK(image_seal(store.image, &store.super, used, NULL, 0));
    store_drop();
}

static inline uint64_t *store_word(uint64_t offset)
{
    return (uint64_t *)(void *)((uint8_t *)image_base(store.image) + offset);
}

/* A mark at the start of each page of [from, to). */
static inline void store_fill(uint64_t from, uint64_t to, uint64_t round)
{
    for (uint64_t at = from; at < to; at += PAGE_BYTES)
        *store_word(at) = store_mark(at, round);
}

static inline void store_expect(uint64_t from, uint64_t to, uint64_t round)
{
    for (uint64_t at = from; at < to; at += PAGE_BYTES)
        cr_assert_eq(*store_word(at), store_mark(at, round), "image offset %" PRIu64 ", round %" PRIu64, at, round);
}

static inline void store_check(uint64_t expected_problems)
{
    struct report report = {0};
    superblock_check(&store.file, &report);
    image_check(store.image, &report, NULL, NULL);
    if (expected_problems == 0)
        cr_assert_eq(report.problems, 0, "%s", report.first);
    else
        cr_assert_eq(report.problems, expected_problems, "%" PRIu64 " problems, first: %s", report.problems,
                     report.first);
}

static inline void store_flip(uint64_t file_offset, uint8_t bits)
{
    uint8_t byte;
    int fd = open(store.path, O_RDWR);
    cr_assert_geq(fd, 0);
    cr_assert_eq(pread(fd, &byte, 1, (off_t)file_offset), 1);
    byte ^= bits;
    cr_assert_eq(pwrite(fd, &byte, 1, (off_t)file_offset), 1);
    close(fd);
}

#endif
