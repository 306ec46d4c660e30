/*
 * After a sync that failed nobody knows what the disk holds: the store says so from then on, to every process that has it
 * open, also when it is closed, and the next opener finds out what there is.  And what else ends without a close.
 *
 * Method: one sync fails, and all later ones succeed, as the kernel's do about pages that it gave up.
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

TestSuite(failed_sync, .init = support_setup, .fini = teardown, .timeout = 120);

static int failure; /* of the next sync; 0: none */

static int fails_once(void)
{
    errno = failure;
    failure = 0;
    return -1;
}

static int sync_range_fails_once(int fd, off_t offset, off_t bytes)
{
    return failure != 0 ? fails_once() : file_calls_system.sync_range(fd, offset, bytes);
}

static int fdatasync_fails_once(int fd)
{
    return failure != 0 ? fails_once() : file_calls_system.fdatasync(fd);
}

static void let_next_sync_fail(int with)
{
    failure = with;
    file_calls.sync_range = sync_range_fails_once;
    file_calls.fdatasync = fdatasync_fails_once;
}

static stead *open_as(stead_sharing sharing)
{
    stead *s;
    void *root;
    OK(stead_open(&s, path_in("s"), &(stead_options){.sharing = sharing, .timeout_ms = SOON_MS}));
    OK(stead_root_once(s, sizeof(int), NULL, NULL, &root));
    return s;
}

struct neighbour {
    const char *path;
    volatile uint32_t *words; /* [0]: has the store open; [1]: is to go on */
};

static stead *neighbour_open(const struct neighbour *n)
{
    stead *s;
    CHILD(stead_open(&s, n->path, &(stead_options){.sharing = STEAD_LIVE, .timeout_ms = SOON_MS}) == 0);
    n->words[0] = 1;
    CHILD(await(&n->words[1], 1));
    return s;
}

static void hears_of_it(void *arg)
{
    stead *s = neighbour_open(arg);
    CHILD(stead_commit(s, STEAD_DURABLE) == STEAD_FAILED);
    CHILD(stead_close(s) == 0); /* others go on: there is nothing to seal */
}

Test(failed_sync, in_live_is_told_to_all_and_never_taken_for_clean)
{
    struct neighbour n = {path_in("s"), shared_words(2)};
    stead *s = open_as(STEAD_LIVE);
    pid_t pid = spawn(hears_of_it, &n);
    cr_assert(await(&n.words[0], 1));
    let_next_sync_fail(EIO);
    FAILS(stead_commit(s, STEAD_DURABLE), STEAD_FAILED);
    cr_assert_eq(failure, 0, "no sync was asked for");
    FAILS(stead_commit(s, STEAD_DURABLE), STEAD_FAILED);
    n.words[1] = 1;
    REAP_OK(pid);
    FAILS(stead_close(s), STEAD_FAILED);
    cr_assert_not_null(strstr(stead_last_error_text(), "stead_abandon"), "%s", stead_last_error_text());
    FAILS(stead_close(s), STEAD_FAILED);
    stead_abandon(s);
    FAILS(stead_open(&s, n.path, &(stead_options){.sharing = STEAD_LIVE}), STEAD_UNCLEAN);
}

/* As often as it takes: the disk was asked, and its answer is still to come. */
Test(failed_sync, that_was_interrupted_in_live_is_repeated)
{
    stead *s = open_as(STEAD_LIVE);
    let_next_sync_fail(EINTR);
    OK(stead_commit(s, STEAD_DURABLE));
    cr_assert_eq(failure, 0, "no sync was asked for");
    OK(stead_close(s));
    OK(stead_open(&s, path_in("s"), &(stead_options){.sharing = STEAD_LIVE}));
    OK(stead_close(s));
}

static void change(stead *s, int value)
{
    OK(stead_lock(s, STEAD_EXCLUSIVE, SOON_MS));
    *(int *)stead_root(s) = value;
    OK(stead_commit(s, STEAD_BUFFERED));
    OK(stead_unlock(s));
}

static void fails_for_good(stead_sharing sharing)
{
    stead *s = open_as(sharing);
    change(s, 1);
    OK(stead_commit(s, STEAD_DURABLE));
    change(s, 2);
    let_next_sync_fail(EIO);
    FAILS(stead_commit(s, STEAD_DURABLE), STEAD_FAILED);
    cr_assert_eq(failure, 0, "no sync was asked for");
    FAILS(stead_commit(s, STEAD_DURABLE), STEAD_FAILED);
    FAILS(stead_close(s), STEAD_FAILED);
    cr_assert_not_null(strstr(stead_last_error_text(), "stead_abandon"), "%s", stead_last_error_text());
    FAILS(stead_close(s), STEAD_FAILED);
    stead_abandon(s);
    OK(stead_open(&s, path_in("s"), &(stead_options){.sharing = sharing}));
    OK(stead_check(s, NULL));
    int found = *(int *)stead_root(s);
    cr_assert(found == 1 || found == 2, "%d was never committed", found);
    OK(stead_close(s));
}

Test(failed_sync, in_sole_fails_each_commit_and_the_close)
{
    fails_for_good(STEAD_SOLE);
}

Test(failed_sync, in_turns_fails_each_commit_and_the_close)
{
    fails_for_good(STEAD_TURNS);
}

/* A section of a store that failed is left by a rollback.  What is written after it is committed by nobody: its unlock says so,
 * until it is rolled back as well. */
Test(failed_sync, a_section_that_goes_on_after_its_rollback_is_not_left_as_if_committed)
{
    stead *s = open_as(STEAD_TURNS);
    OK(stead_lock(s, STEAD_EXCLUSIVE, SOON_MS));
    int *root = stead_root(s);
    *root = 1;
    let_next_sync_fail(EIO);
    FAILS(stead_commit(s, STEAD_DURABLE), STEAD_FAILED);
    cr_assert_eq(failure, 0, "no sync was asked for");
    for (int round = 0; round < 3; round++) {
        OK(stead_rollback(s));
        if (round == 1)
            cr_assert_not_null(stead_malloc(s, 8 << 20)); /* new pages, as they come */
        else
            *root = 2 + round;
        FAILS(stead_unlock(s), STEAD_FAILED);
        FAILS(stead_unlock(s), STEAD_FAILED);
    }
    OK(stead_rollback(s));
    OK(stead_unlock(s));
    FAILS(stead_unlock(s), EPERM);
    stead_abandon(s);
    OK(stead_open(&s, path_in("s"), &(stead_options){.sharing = STEAD_TURNS}));
    cr_assert_leq(*(int *)stead_root(s), 1, "it is of no commit");
    OK(stead_close(s));
}

static void abandons(void *arg)
{
    stead_abandon(neighbour_open(arg));
}

static void dies(void *arg)
{
    (void)neighbour_open(arg);
    _exit(0);
}

static void ends_without_close(void (*how)(void *arg))
{
    struct neighbour n = {path_in("s"), shared_words(2)};
    stead *s = open_as(STEAD_LIVE);
    pid_t pid = spawn(how, &n);
    cr_assert(await(&n.words[0], 1));
    n.words[1] = 1;
    REAP_OK(pid);
    OK(stead_close(s));
    FAILS(stead_open(&s, n.path, &(stead_options){.sharing = STEAD_LIVE}), STEAD_UNCLEAN);
}

/* As if killed: also where the process lives on, and another one closes after it. */
Test(failed_sync, an_abandoned_live_store_is_not_sealed_over_by_the_close_of_another)
{
    ends_without_close(abandons);
}

Test(failed_sync, a_live_store_that_somebody_died_in_is_not_sealed_over_by_the_close_of_another)
{
    ends_without_close(dies);
}
