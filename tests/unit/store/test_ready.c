/*
 * test_ready.c -- the pages of a large block in LIVE are made on its way out of malloc (persist/ready.c): without a lock, so that
 * nobody waits; a kill there loses the block in flight, a failing disk nothing; calloc is zeros, new place or old.
 * Method: the calls that write are replaced, in child processes of their own.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "persist/file.h"
#include "persist/fs.h"
#include "support/support.h"

#define LARGE_BYTES ((size_t)24 << 20) /* above what growth makes itself */
#define SMALL_BLOCKS 50

TestSuite(ready, .init = support_setup, .fini = support_teardown, .timeout = 300);

static stead *open_live(unsigned flags)
{
    stead *s;
    stead_options options = {.sharing = STEAD_LIVE, .flags = flags};
    return stead_open(&s, path_in("s"), &options) == 0 ? s : NULL;
}

static unsigned writes_left; /* before the process dies */

static ssize_t dying_pwrite(int fd, const void *buffer, size_t bytes, off_t offset)
{
    if (writes_left-- == 0)
        _exit(77);
    return file_calls_system.pwrite(fd, buffer, bytes, offset);
}

static void die_making_a_large_block(void *arg)
{
    stead *s = open_live(0);
    CHILD(s != NULL);
    uint64_t *numbers = stead_malloc(s, SMALL_BLOCKS * sizeof *numbers);
    CHILD(numbers != NULL && stead_set_root(s, numbers) == 0);
    for (unsigned i = 0; i < SMALL_BLOCKS; i++)
        numbers[i] = i;
    writes_left = *(const unsigned *)arg;
    file_calls.pwrite = dying_pwrite;
    void *large = stead_malloc(s, LARGE_BYTES);
    file_calls.pwrite = file_calls_system.pwrite;
    CHILD(large != NULL);
    _exit(78); /* there were no more writes */
}

Test(ready, a_process_killed_at_any_write_loses_the_block_in_flight)
{
    int code = 77;
    unsigned kills = 0;
    for (unsigned n = 0; code == 77; n += 1 + n / 2) {
        code = reap(spawn(die_making_a_large_block, &n));
        cr_assert(code == 77 || code == 78, "%u: %d", n, code);
        kills += code == 77;
        stead *s = open_live(STEAD_ACCEPT_UNCLEAN);
        cr_assert_not_null(s, "%u: %s", n, stead_last_error_text());
        OK(stead_check(s, NULL));
        stead_status status;
        OK(stead_stat(s, &status));
        cr_assert_leq(status.live_blocks, 2, "%u", n);
        const uint64_t *numbers = stead_root(s);
        for (unsigned i = 0; i < SMALL_BLOCKS; i++)
            cr_assert_eq(numbers[i], i);
        uint8_t *again = stead_calloc(s, 1, LARGE_BYTES); /* in the place of what was lost, or behind it */
        cr_assert_not_null(again);
        for (size_t i = 0; i < LARGE_BYTES; i += 4096)
            cr_assert_eq(again[i], 0);
        OK(stead_close(s));
        OK(stead_remove(path_in("s")));
    }
    cr_assert_eq(code, 78);
    struct fs_facts facts;
    int folder = open(support_folder(), O_RDONLY | O_DIRECTORY);
    OK(fs_classify(folder, &facts));
    close(folder);
    cr_assert(kills > 5 || facts.memory, "%u kills; tmpfs has the pages when they are reserved", kills);
}

static volatile uint32_t *stage;
static off_t first_write = -1;

/* The first writes are of what growth took beyond the block, the block's own lie before that. */
static ssize_t waiting_pwrite(int fd, const void *buffer, size_t bytes, off_t offset)
{
    first_write = first_write < 0 ? offset : first_write;
    if (stage[0] == 0 && offset < first_write) {
        stage[0] = 1;
        (void)await(&stage[1], 1);
    }
    return file_calls_system.pwrite(fd, buffer, bytes, offset);
}

static void wait_making_a_large_block(void *arg)
{
    (void)arg;
    stead *s = open_live(0);
    CHILD(s != NULL);
    file_calls.pwrite = waiting_pwrite;
    uint8_t *large = stead_malloc(s, LARGE_BYTES);
    stage[0] = 1; /* tmpfs: nothing was written */
    CHILD(large != NULL);
    CHILD(await(&stage[1], 1));
    for (size_t i = 0; i < LARGE_BYTES; i += 4096)
        CHILD(large[i] == 0);
    file_calls.pwrite = file_calls_system.pwrite;
    CHILD(stead_close(s) == 0);
}

Test(ready, nobody_waits_while_another_process_makes_a_large_block)
{
    stage = shared_words(2);
    stead *s = open_live(0);
    cr_assert_not_null(s);
    pid_t other = spawn(wait_making_a_large_block, NULL);
    cr_assert(await(&stage[0], 1));
    for (unsigned i = 0; i < 3000; i++) { /* slabs and extents, in growth of our own */
        size_t size = i % 100 == 0 ? (size_t)3 << 20 : 3000;
        void *block = stead_malloc(s, size);
        cr_assert_not_null(block, "%s", stead_last_error_text());
        memset(block, 0x5a, i % 100 == 0 ? 4096 : size);
    }
    stage[1] = 1;
    REAP_OK(other);
    OK(stead_check(s, NULL));
    OK(stead_close(s));
}

static ssize_t failing_pwrite(int fd, const void *buffer, size_t bytes, off_t offset)
{
    (void)fd, (void)buffer, (void)bytes, (void)offset;
    errno = ENOSPC;
    return -1;
}

Test(ready, pages_that_cannot_be_made_ahead_are_made_by_the_faults)
{
    stead *s = open_live(0);
    cr_assert_not_null(s);
    file_calls.pwrite = failing_pwrite;
    uint8_t *block = stead_malloc(s, LARGE_BYTES);
    file_calls.pwrite = file_calls_system.pwrite;
    cr_assert_not_null(block);
    memset(block, 1, LARGE_BYTES);
    OK(stead_check(s, NULL));
    stead_free(block);
    block = stead_calloc(s, 1, LARGE_BYTES);
    for (size_t i = 0; i < LARGE_BYTES; i += 512)
        cr_assert_eq(block[i], 0);
    OK(stead_close(s));
}
