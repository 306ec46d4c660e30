/*
 * test_half_closed.c -- a close that failed at its superblocks: the store goes on, and nothing that it says afterwards is
 * worth less than before.  A write that is reported as failed may be on the disk all the same.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "persist/file.h"
#include "support/support.h"

static void teardown(void)
{
    file_calls = file_calls_system;
    support_teardown();
}

TestSuite(half_closed, .init = support_setup, .fini = teardown, .timeout = 300);

static long writes_left;
static bool for_ever, reaches_the_disk;

static ssize_t failing_pwrite_durable(int fd, const void *buffer, size_t bytes, off_t offset)
{
    if (writes_left-- > 0 || (!for_ever && writes_left < -1))
        return file_calls_system.pwrite_durable(fd, buffer, bytes, offset);
    if (reaches_the_disk)
        (void)file_calls_system.pwrite(fd, buffer, bytes, offset);
    errno = EIO;
    return -1;
}

static stead *open_as(const char *path, stead_sharing sharing, unsigned flags)
{
    stead *s;
    OK(stead_open(&s, path, &(stead_options){.sharing = sharing, .flags = flags, .timeout_ms = SOON_MS}));
    return s;
}

static int change(stead *s, int value)
{
    int rc = stead_lock(s, STEAD_EXCLUSIVE, SOON_MS);
    if (rc != 0)
        return rc;
    *(int *)stead_root(s) = value;
    rc = stead_commit(s, STEAD_DURABLE);
    int unlocked = stead_unlock(s);
    if (unlocked != 0) { /* TURNS: it cannot be committed */
        (void)stead_rollback(s);
        (void)stead_unlock(s);
    }
    return rc != 0 ? rc : unlocked;
}

/* Closes with its n-th durable write failing, then changes something, then dies.  false: the close did not fail. */
static bool close_fails(stead_sharing sharing, long n)
{
    const char *path = path_in("s");
    stead *s = open_as(path, sharing, 0);
    OK(stead_lock(s, STEAD_EXCLUSIVE, SOON_MS));
    int *root = stead_malloc(s, sizeof *root);
    cr_assert_not_null(root);
    *root = 1;
    OK(stead_set_root(s, root));
    OK(stead_unlock(s));
    OK(change(s, 2));
    writes_left = n;
    file_calls.pwrite_durable = failing_pwrite_durable;
    int closed = stead_close(s);
    file_calls = file_calls_system;
    int changed = closed == 0 ? 0 : change(s, 3);
    if (closed != 0)
        stead_abandon(s);
    s = open_as(path, sharing, STEAD_EXISTING);
    stead_report report;
    OK(stead_check(s, &report));
    int found = *(int *)stead_root(s);
    cr_assert_eq(found, closed == 0 || changed != 0 ? 2 : 3, "write %ld: close said %d, commit %d; found %d", n, closed,
                 changed, found);
    OK(stead_close(s));
    OK(stead_remove(path));
    return closed != 0;
}

static void commits_after_a_failed_close(stead_sharing sharing)
{
    for (unsigned kind = 0; kind < 4; kind++) {
        long n = 0;
        for_ever = (kind & 1) != 0;
        reaches_the_disk = (kind & 2) != 0;
        while (close_fails(sharing, n))
            n++;
        cr_assert_gt(n, 1, "a close of %ld durable writes proves nothing", n);
    }
}

Test(half_closed, what_is_committed_after_a_close_that_failed_is_there_sole)
{
    commits_after_a_failed_close(STEAD_SOLE);
}

Test(half_closed, what_is_committed_after_a_close_that_failed_is_there_turns)
{
    commits_after_a_failed_close(STEAD_TURNS);
}

/* Closing again after a failure that did not last leaves a sealed store. */
Test(half_closed, a_close_may_be_tried_again)
{
    for (stead_sharing sharing = STEAD_SOLE; sharing <= STEAD_LIVE; sharing++) {
        unsigned again = 0;
        int closed = EIO;
        for (long n = 0; closed != 0; n++) {
            const char *path = path_in("s");
            stead *s = open_as(path, sharing, 0);
            void *root;
            OK(stead_root_once(s, sizeof(int), NULL, NULL, &root)); /* or SOLE has nothing to write */
            for_ever = false;
            reaches_the_disk = true;
            writes_left = n;
            file_calls.pwrite_durable = failing_pwrite_durable;
            closed = stead_close(s);
            file_calls = file_calls_system;
            if (closed != 0) {
                int second = stead_close(s);
                again += second == 0;
                if (second != 0)
                    stead_abandon(s);
            }
            s = open_as(path, sharing, STEAD_EXISTING | STEAD_ACCEPT_UNCLEAN);
            OK(stead_close(s));
            OK(stead_remove(path));
        }
        cr_assert_gt(again, 0, "sharing %d: no close was repeated with success", (int)sharing);
    }
}

/* LIVE writes its file all the time: once a close failed, the superblock must say "live" again, or a death would be taken for
 * a close. */
Test(half_closed, a_live_store_whose_close_failed_is_not_taken_for_clean)
{
    int closed = EIO;
    for (long n = 0; closed != 0; n++) {
        const char *path = path_in("s");
        stead *s = open_as(path, STEAD_LIVE, 0);
        for_ever = false;
        reaches_the_disk = true;
        writes_left = n;
        file_calls.pwrite_durable = failing_pwrite_durable;
        closed = stead_close(s);
        file_calls = file_calls_system;
        if (closed != 0) {
            stead_abandon(s);
            FAILS(stead_open(&s, path, &(stead_options){.sharing = STEAD_LIVE, .flags = STEAD_EXISTING}),
                  STEAD_UNCLEAN);
        }
        OK(stead_remove(path));
        cr_assert(closed != 0 || n > 0, "no write failed");
    }
}

static void open_and_leave(void *arg)
{
    stead *s;
    CHILD(stead_open(&s, arg, &(stead_options){.sharing = STEAD_TURNS}) == 0);
    stead_abandon(s);
}

/* The store is open again after a close that failed, and not closing: others may come. */
Test(half_closed, a_close_that_failed_stands_in_nobodys_way)
{
    char path[600];
    snprintf(path, sizeof path, "%s", path_in("s"));
    stead *s = open_as(path, STEAD_TURNS, 0);
    void *root;
    OK(stead_root_once(s, sizeof(int), NULL, NULL, &root));
    for_ever = reaches_the_disk = false;
    writes_left = 0;
    file_calls.pwrite_durable = failing_pwrite_durable;
    cr_assert_neq(stead_close(s), 0);
    file_calls = file_calls_system;
    REAP_OK(spawn(open_and_leave, path));
    stead_abandon(s);
}

static unsigned char *damaged, whole; /* the first byte of the image */

static ssize_t failing_and_damaging(int fd, const void *buffer, size_t bytes, off_t offset)
{
    *damaged = (unsigned char)~whole;
    if (writes_left-- <= 0 && !for_ever)
        return file_calls_system.pwrite_durable(fd, buffer, bytes, offset);
    errno = EIO;
    return -1;
}

static int visit_nothing(const char *name, void *object, void *arg)
{
    (void)name, (void)object, (void)arg;
    return 0;
}

static int visit_no_block(void *block, size_t usable, void *arg)
{
    (void)block, (void)usable, (void)arg;
    return 0;
}

static void init_nothing(void *root, void *arg)
{
    (void)root, (void)arg;
}

#define GROWN_BYTES (6u << 20)

/* In LIVE a close gives the heap away before it seals.  If it cannot have it back (a wild write struck the first page in the
 * meantime) every call answers, and the store can be closed or abandoned. */
static void lose_heap(stead *s, bool for_good)
{
    for_ever = for_good;
    writes_left = 1;
    stead_status status;
    OK(stead_stat(s, &status));
    damaged = status.base;
    whole = *damaged;
    file_calls.pwrite_durable = failing_and_damaging;
    FAILS(stead_close(s), EIO);
    file_calls = file_calls_system;
    cr_assert_neq(*damaged, whole, "nothing was written");
}

static stead *without_its_heap(void *object)
{
    stead *s = open_as(path_in("s"), STEAD_LIVE, STEAD_ACCEPT_UNCLEAN);
    void *block = stead_malloc(s, 100);
    cr_assert_not_null(block);
    *(void **)object = block;
    lose_heap(s, true);
    return s;
}

Test(half_closed, a_live_store_that_lost_its_heap_to_the_close_refuses_every_call)
{
    stead_status status;
    stead_report report;
    stead *other;
    void *block, *root;
    stead *s = without_its_heap(&block);
    FAILS(stead_stat(s, &status), STEAD_FAILED);
    FAILS(stead_check(s, &report), STEAD_FAILED);
    FAILS(stead_commit(s, STEAD_BUFFERED), STEAD_FAILED);
    FAILS(stead_commit(s, STEAD_DURABLE), STEAD_FAILED);
    FAILS(stead_lock(s, STEAD_SHARED, -1), STEAD_FAILED);
    FAILS(stead_lock(s, STEAD_EXCLUSIVE, 0), STEAD_FAILED);
    FAILS(stead_bind(s, "name", block), STEAD_FAILED);
    FAILS(stead_set_root(s, block), STEAD_FAILED);
    FAILS(stead_root_once(s, 8, init_nothing, NULL, &root), STEAD_FAILED);
    FAILS(stead_each_name(s, visit_nothing, NULL), STEAD_FAILED);
    FAILS(stead_each_block(s, visit_no_block, NULL), STEAD_FAILED);
    FAILS(stead_backup(s, path_in("copy")), STEAD_FAILED);
    FAILS(stead_open(&other, path_in("s"), &(stead_options){.sharing = STEAD_LIVE}), STEAD_FAILED);
    cr_assert_null(stead_malloc(s, 100));
    cr_assert_null(stead_calloc(s, 1, 100));
    cr_assert_null(stead_realloc(s, block, 200));
    cr_assert_null(stead_aligned_alloc(s, 64, 100));
    cr_assert_null(stead_lookup(s, "name"));
    cr_assert_eq(stead_usable_size(block), 0);
    stead_free(block);
    unsigned entered = 0;
    STEAD_LOCKED(s, STEAD_EXCLUSIVE)
    entered++;
    cr_assert_eq(entered, 0);
    *damaged = whole;
    OK(stead_close(s)); /* sealed from what the shared image is */
    s = open_as(path_in("s"), STEAD_LIVE, 0);
    OK(stead_check(s, NULL));
    OK(stead_close(s));
    s = without_its_heap(&block);
    *damaged = whole;
    stead_abandon(s);
    FAILS(stead_open(&s, path_in("s"), &(stead_options){.sharing = STEAD_LIVE}), STEAD_UNCLEAN);
}

struct guest {
    const char *path;
    volatile uint32_t *words; /* [0]: has grown the store; [1]: is to close it */
};

static void grow_beside(void *arg)
{
    const struct guest *guest = arg;
    stead *s;
    CHILD(stead_open(&s, guest->path, &(stead_options){.sharing = STEAD_LIVE, .timeout_ms = SOON_MS}) == 0);
    unsigned char *block = stead_malloc(s, GROWN_BYTES);
    CHILD(block != NULL);
    memset(block, 6, GROWN_BYTES);
    CHILD(stead_bind(s, "guest", block) == 0);
    guest->words[0] = 1;
    CHILD(await(&guest->words[1], 1));
    CHILD(stead_close(s) == 0);
}

static void expect_block(stead *s, const char *name, unsigned char value)
{
    const unsigned char *block = stead_lookup(s, name);
    cr_assert_not_null(block, "%s is gone", name);
    for (size_t i = 0; i < GROWN_BYTES; i++)
        cr_assert_eq(block[i], value, "byte %zu of %s", i, name);
}

/* Without the heap nobody says how much of the file is used, and no superblock knows what the session added: none of it is cut
 * off, nor what another process added between two closes. */
Test(half_closed, a_live_store_that_lost_its_heap_to_the_close_is_sealed_in_all_its_length)
{
    for (unsigned way = 0; way < 4; way++) {
        bool with_guest = way % 2 != 0;
        struct guest guest = {path_in("s"), shared_words(2)};
        void *block;
        stead *s = open_as(guest.path, STEAD_LIVE, 0);
        block = stead_malloc(s, GROWN_BYTES);
        cr_assert_not_null(block);
        memset(block, 5, GROWN_BYTES);
        OK(stead_bind(s, "host", block));
        lose_heap(s, way / 2 != 0);
        *damaged = whole;
        if (with_guest) {
            pid_t pid = spawn(grow_beside, &guest);
            cr_assert(await(&guest.words[0], 1));
            guest.words[1] = 1;
            REAP_OK(pid);
        }
        OK(stead_close(s));
        s = open_as(guest.path, STEAD_LIVE, STEAD_EXISTING);
        OK(stead_check(s, NULL));
        expect_block(s, "host", 5);
        if (with_guest)
            expect_block(s, "guest", 6);
        OK(stead_close(s));
        OK(stead_remove(guest.path));
    }
}

/* As long as the disk may say "sealed" nothing is committed: not even when it is written again. */
Test(half_closed, a_live_store_whose_seal_could_not_be_taken_back_commits_nothing)
{
    unsigned refused = 0;
    int closed = EIO;
    for (long n = 0; closed != 0; n++) {
        const char *path = path_in("s");
        stead *s = open_as(path, STEAD_LIVE, 0);
        for_ever = reaches_the_disk = true;
        writes_left = n;
        file_calls.pwrite_durable = failing_pwrite_durable;
        closed = stead_close(s);
        file_calls = file_calls_system;
        if (closed != 0) {
            refused += stead_commit(s, STEAD_DURABLE) == STEAD_FAILED;
            OK(stead_close(s));
        }
        s = open_as(path, STEAD_LIVE, STEAD_EXISTING);
        OK(stead_close(s));
        OK(stead_remove(path));
    }
    cr_assert_gt(refused, 0, "no close got as far as to seal");
}

#define BLOCK_BYTES (6u << 20)

static void expect_all(const unsigned char *bytes, unsigned char value)
{
    cr_assert_not_null(bytes, "%s", stead_last_error_text());
    cr_assert_eq(bytes[0], value);
    cr_assert_eq(memcmp(bytes, bytes + 1, BLOCK_BYTES - 1), 0, "not all of it is %u", value);
}

/* A block of zeros, filled and committed, unless the failure was one after which nothing is. */
static bool grow(stead *s, unsigned char value)
{
    int rc = stead_lock(s, STEAD_EXCLUSIVE, SOON_MS);
    if (rc == STEAD_FAILED)
        return false;
    OK(rc);
    unsigned char *bytes = stead_calloc(s, 1, BLOCK_BYTES);
    expect_all(bytes, 0);
    if (value != 0)
        memset(bytes, value, BLOCK_BYTES);
    OK(stead_set_root(s, bytes));
    rc = stead_commit(s, STEAD_DURABLE);
    if (rc == STEAD_FAILED)
        return false;
    OK(rc);
    OK(stead_unlock(s));
    expect_all(bytes, value);
    return true;
}

/* Its n-th durable write fails a close, before which a block was there or was not; *grown, if the store goes on and grows.
 * false: the close did not fail. */
static bool close_fails_then_grow(stead_sharing sharing, long n, bool freed, bool *grown)
{
    const char *path = path_in("s");
    const unsigned char value = freed ? 0x55 : 0; /* pages of zeros are written nowhere */
    stead *s = open_as(path, sharing, 0);
    OK(stead_lock(s, STEAD_EXCLUSIVE, SOON_MS));
    void *block = stead_calloc(s, 1, freed ? BLOCK_BYTES : 64);
    OK(stead_set_root(s, block));
    OK(stead_commit(s, STEAD_DURABLE));
    if (freed)
        stead_free(block);
    OK(stead_unlock(s));
    for_ever = false;
    reaches_the_disk = true;
    writes_left = n;
    file_calls.pwrite_durable = failing_pwrite_durable;
    int closed = stead_close(s);
    file_calls = file_calls_system;
    *grown = closed != 0 && grow(s, value);
    if (closed != 0) {
        stead_abandon(s);
        s = open_as(path, sharing, STEAD_EXISTING | STEAD_ACCEPT_UNCLEAN);
        OK(stead_check(s, NULL));
        if (*grown)
            expect_all(stead_root(s), value);
        OK(stead_close(s));
    }
    OK(stead_remove(path));
    return closed != 0;
}

/* Where the file would have ended is image again: a block that lies there has what its owner gave it and nothing else. */
Test(half_closed, what_grows_after_a_close_that_failed_is_zeros)
{
    for (unsigned kind = 0; kind < 6; kind++) {
        unsigned times = 0;
        bool grown;
        for (long n = 0; close_fails_then_grow((stead_sharing)(kind % 3), n, kind < 3, &grown); n++)
            times += grown;
        cr_assert_gt(times, 0, "kind %u: no close failed that the store outlives", kind);
    }
}
