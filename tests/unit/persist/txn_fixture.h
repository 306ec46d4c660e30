/*
 * txn_fixture.h -- a small store file in a directory of its own, opened and "killed" as often as a test wants, without
 * image.c and the layers above; and faults in the system calls underneath.
 */
#ifndef STEAD_TESTS_TXN_FIXTURE_H
#define STEAD_TESTS_TXN_FIXTURE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/units.h"
#include "persist/dirty.h"
#include "persist/file.h"
#include "persist/map.h"
#include "persist/superblock.h"
#include "persist/txn.h"
#include "persist/txn_internal.h"

#define OK(call) \
    do { \
        int ok_rc = (call); \
        cr_assert_eq(ok_rc, 0, "%s: %s (%d, %s)", #call, error_text(ok_rc), ok_rc, error_last_text()); \
    } while (0)
#define FAILS(code, call) \
    do { \
        int fails_rc = (call); \
        cr_assert_eq(fails_rc, (code), "%s: %s (%d, %s)", #call, error_text(fails_rc), fails_rc, error_last_text()); \
    } while (0)

struct fixture {
    char directory[256], path[300];
    struct file file;
    struct superblock super;
    struct map map;
    struct image_options options;
    enum dirty_kind kind;
    struct txn *txn;
    bool replayed;
};

void fixture_create(struct fixture *f, uint64_t file_image_bytes, uint64_t used_bytes);
int fixture_open(struct fixture *f); /* recovers if needed */
/* Another process's handle on the same store: no `first`, its own mapping and descriptors. */
void fixture_join(const struct fixture *f, struct fixture *mine);
void fixture_kill(struct fixture *f); /* as SIGKILL would: closes everything, writes nothing */
void fixture_remove(struct fixture *f);
/* Makes file and mapping longer. */
void fixture_extend(struct fixture *f, uint64_t image_bytes);
/* Every page below used_bytes matches its checksum in the file's table; 0 or the number of those that do not. */
uint64_t fixture_bad_checksums(struct fixture *f, uint64_t used_bytes);
void fixture_copy_file(const char *from, const char *to);

/* Faults: the n-th (from 0) counted call from now on, and `count` after it, fail. */
enum fault { FAULT_NONE, FAULT_ERROR, FAULT_SHORT, FAULT_EINTR };
struct faults {
    const char *path_suffix;                              /* only descriptors of files whose name ends so; NULL: all */
    bool pwrite, fdatasync, sync_range, fallocate, pread; /* which calls are counted */
    enum fault fault;
    int error;
    long skip, count;
    long seen; /* counted calls so far */
};
extern struct faults faults;
/* From now on: a kernel whose pages are so large, as far as madvise and our own arithmetic can tell. */
void fixture_kernel_pages(uint64_t bytes);
/* Process death needs no syncs: a test of a thousand reopenings runs without them. */
void fixture_skip_syncs(void);
void faults_install(void);
void faults_remove(void);

/* This test's random numbers: the seed is printed, and taken from STEAD_SEED. */
uint64_t random_seed(void);
uint64_t random_next(uint64_t *state);
long random_rounds(long normal); /* more with STEAD_LONG=1 */

#endif
