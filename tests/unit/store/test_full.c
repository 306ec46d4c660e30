/* A disk without space: what cannot be done says ENOSPC and changes nothing, and the store can always be closed. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "persist/file.h"
#include "support/support.h"

/* What is reserved can be written; nothing more can be reserved. */
static int full_fallocate(int fd, int mode, off_t offset, off_t bytes)
{
    if ((mode & FALLOC_FL_PUNCH_HOLE) != 0)
        return file_calls_system.fallocate(fd, mode, offset, bytes);
    errno = ENOSPC;
    return -1;
}

static bool lengthens(int fd, size_t bytes, off_t offset)
{
    struct stat facts;
    bool longer = fstat(fd, &facts) == 0 && offset + (off_t)bytes > facts.st_size &&
                  offset + (off_t)bytes > (off_t)facts.st_blocks * 512; /* reserved behind the end */
    errno = ENOSPC;
    return longer;
}

static ssize_t full_pwrite(int fd, const void *buffer, size_t bytes, off_t offset)
{
    return lengthens(fd, bytes, offset) ? -1 : file_calls_system.pwrite(fd, buffer, bytes, offset);
}

/* The process dies before its n-th request that changes something. */
static unsigned requests_left = UINT32_MAX;

static void count_request(void)
{
    if (requests_left-- == 0)
        _exit(77);
}

static ssize_t dying_pwrite(int fd, const void *buffer, size_t bytes, off_t offset)
{
    count_request();
    return full_pwrite(fd, buffer, bytes, offset);
}

static int dying_sync_range(int fd, off_t offset, off_t bytes)
{
    count_request();
    return file_calls_system.sync_range(fd, offset, bytes);
}

static int dying_ftruncate(int fd, off_t bytes)
{
    count_request();
    return file_calls_system.ftruncate(fd, bytes);
}

static int dying_unlink(const char *path)
{
    count_request();
    return file_calls_system.unlink(path);
}

static void set_full(bool full)
{
    file_calls = file_calls_system;
    if (full) {
        file_calls.fallocate = full_fallocate;
        file_calls.pwrite = full_pwrite;
    }
}

static void space_returns(void)
{
    set_full(false);
    support_teardown();
}

TestSuite(full, .init = support_setup, .fini = space_returns, .timeout = 300);

#define BLOCKS 400

struct table {
    uint64_t version;
    void *block[BLOCKS];
};

static struct table *make(stead **s, stead_sharing sharing)
{
    struct table *table;
    stead_options options = {.sharing = sharing};
    OK(stead_open(s, path_in("s"), &options));
    OK(stead_root_once(*s, sizeof *table, NULL, NULL, (void **)&table));
    OK(stead_lock(*s, STEAD_EXCLUSIVE, -1));
    for (unsigned i = 0; i < BLOCKS; i++) {
        table->block[i] = stead_malloc(*s, 20000);
        memset(table->block[i], (int)i, 20000);
    }
    table->version = 1;
    OK(stead_unlock(*s));
    return table;
}

/* Most blocks given back: the close has a tail to cut off and holes to punch. */
static void give_back(stead *s, struct table *table)
{
    OK(stead_lock(s, STEAD_EXCLUSIVE, -1));
    for (unsigned i = BLOCKS / 4; i < BLOCKS; i++)
        if (i % 32 != 0 || i > BLOCKS / 2) {
            stead_free(table->block[i]);
            table->block[i] = NULL;
        }
    table->version = 2;
    OK(stead_unlock(s));
    OK(stead_commit(s, STEAD_DURABLE));
}

/* The version, and in every byte of block i that was not given back: i + shift. */
static void expect(uint64_t version, unsigned shift, stead_sharing sharing)
{
    stead *s;
    stead_options options = {.sharing = sharing, .flags = STEAD_EXISTING};
    OK(stead_open(&s, path_in("s"), &options));
    const struct table *table = stead_root(s);
    cr_assert_eq(table->version, version);
    for (unsigned i = 0; i < BLOCKS; i++)
        for (unsigned at = 0; table->block[i] != NULL && at < 20000; at++)
            cr_assert_eq(((const uint8_t *)table->block[i])[at], (uint8_t)(i + shift), "block %u, byte %u", i, at);
    OK(stead_check(s, NULL));
    OK(stead_close(s));
}

Test(full, a_store_with_all_committed_is_closed_and_sealed)
{
    for (int sharing = STEAD_SOLE; sharing <= STEAD_LIVE; sharing++) {
        stead *s;
        struct table *table = make(&s, (stead_sharing)sharing);
        OK(stead_commit(s, STEAD_DURABLE));
        give_back(s, table);
        set_full(true);
        OK(stead_close(s));
        cr_assert_eq(file_bytes_of(path_in("s-wal")), UINT64_MAX, "%d: the log was left", sharing);
        set_full(false);
        expect(2, 0, (stead_sharing)sharing);
        OK(stead_remove(path_in("s")));
    }
}

/* The log fills what it had reserved, then a commit finds no space. */
Test(full, a_section_that_finds_no_space_is_rolled_back_and_the_store_closed)
{
    for (int sharing = STEAD_SOLE; sharing <= STEAD_TURNS; sharing++) {
        stead *s;
        uint64_t version = 1;
        int rc = 0;
        struct table *table = make(&s, (stead_sharing)sharing);
        OK(stead_commit(s, STEAD_DURABLE));
        set_full(true);
        while (rc == 0) {
            OK(stead_lock(s, STEAD_EXCLUSIVE, -1));
            table->version = version + 1;
            for (unsigned i = 0; i < BLOCKS; i++)
                memset(table->block[i], (int)(i + version), 20000);
            rc = stead_commit(s, STEAD_DURABLE);
            if (rc == 0)
                version++;
            else
                OK(stead_rollback(s));
            OK(stead_unlock(s));
        }
        cr_assert_eq(rc, ENOSPC, "%d: %s", rc, stead_last_error_text());
        cr_assert_eq(table->version, version);
        OK(stead_close(s));
        set_full(false);
        expect(version, (unsigned)version - 1, (stead_sharing)sharing);
        OK(stead_remove(path_in("s")));
    }
}

/* It may want to give back the free tail at its end, which is a commit of its own. */
Test(full, a_close_needs_no_space_for_what_it_would_tidy)
{
    stead *s;
    struct table *table = make(&s, STEAD_SOLE);
    OK(stead_commit(s, STEAD_DURABLE));
    give_back(s, table);
    set_full(true);
    for (uint64_t n = 0; n < 100000; n++) { /* until not the smallest record fits any more */
        table->version = n;
        if (stead_commit(s, STEAD_BUFFERED) != 0)
            break;
        cr_assert_lt(n, 99999);
    }
    OK(stead_rollback(s));
    uint64_t version = table->version;
    OK(stead_close(s));
    cr_assert_eq(file_bytes_of(path_in("s-wal")), UINT64_MAX);
    set_full(false);
    expect(version, 0, STEAD_SOLE);
}

/* Everything but the close, then as far as the n-th request of it. */
static void close_and_die(void *arg)
{
    stead *s;
    const struct table *table = make(&s, *(const stead_sharing *)arg);
    CHILD(table != NULL && stead_commit(s, STEAD_DURABLE) == 0);
    give_back(s, stead_root(s));
    set_full(true);
    file_calls.pwrite = dying_pwrite;
    file_calls.sync_range = dying_sync_range;
    file_calls.ftruncate = dying_ftruncate;
    file_calls.unlink = dying_unlink;
    CHILD(stead_close(s) == 0);
}

Test(full, a_close_killed_at_any_request_is_recovered)
{
    for (stead_sharing sharing = STEAD_SOLE; sharing <= STEAD_TURNS; sharing++) {
        int code = 77;
        for (unsigned n = 0; code == 77; n++) {
            requests_left = n;
            code = reap(spawn(close_and_die, &sharing));
            cr_assert(code == 0 || code == 77, "request %u: %d", n, code);
            cr_assert(code != 0 || n > 5, "%u requests are no close", n);
            expect(2, 0, sharing);
            OK(stead_remove(path_in("s")));
        }
    }
}
