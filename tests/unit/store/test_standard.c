/*
 * A program that was started with its standard descriptors closed: what it prints must not be written into a store, and
 * what it makes its output afterwards must not take the place of the store's file or log.
 *
 * Method: a child closes all three, and looks at their numbers after every call that opens something.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "support/support.h"

/* What CHILD() would print goes nowhere: the exit code has the line. */
TestSuite(standard, .init = support_setup, .fini = support_teardown, .timeout = 120);

static bool none_is_open(void)
{
    for (int fd = 0; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) != -1)
            return false;
    return true;
}

static void change(stead *s, size_t bytes)
{
    CHILD(stead_lock(s, STEAD_EXCLUSIVE, -1) == 0);
    void *root = stead_malloc(s, bytes);
    CHILD(root != NULL);
    memset(root, 1, bytes);
    CHILD(stead_set_root(s, root) == 0);
    CHILD(stead_unlock(s) == 0);
    CHILD(stead_commit(s, STEAD_DURABLE) == 0);
}

static void live_without(void *arg)
{
    stead *s;
    stead_options options = {.sharing = *(stead_sharing *)arg};
    for (int fd = 0; fd <= STDERR_FILENO; fd++)
        close(fd);
    CHILD(stead_open(&s, path_in("s"), &options) == 0);
    CHILD(none_is_open());
    change(s, 100);
    CHILD(none_is_open());
    change(s, 8 << 20); /* in SOLE a checkpoint follows, which makes another log */
    change(s, 100);
    CHILD(none_is_open());
    CHILD(stead_backup(s, path_in("backup")) == 0);
    CHILD(none_is_open());
    CHILD(open("/dev/null", O_WRONLY) == 0 && dup2(0, 1) == 1 && dup2(0, 2) == 2);
    change(s, 200);
}

/* As live_without() left it: open, to be recovered. */
static void recover_without(void *arg)
{
    stead *s;
    stead_event *event;
    stead_options options = {.flags = STEAD_READ_ONLY};
    for (int fd = 0; fd <= STDERR_FILENO; fd++)
        close(fd);
    CHILD(stead_open(&s, path_in("s"), &options) == 0);
    CHILD(none_is_open());
    CHILD(stead_close(s) == 0);
    options = (stead_options){.sharing = *(stead_sharing *)arg};
    CHILD(stead_open(&s, path_in("s"), &options) == 0);
    CHILD(none_is_open());
    CHILD(stead_check(s, NULL) == 0);
    CHILD(stead_usable_size(stead_root(s)) >= 200);
    CHILD(stead_event_open(&event, NULL, false) == 0);
    CHILD(none_is_open());
    CHILD(stead_event_close(event) == 0);
    CHILD(stead_close(s) == 0);
    CHILD(none_is_open());
}

Test(standard, descriptors_that_were_closed_are_not_used)
{
    for (int sharing = STEAD_SOLE; sharing <= STEAD_LIVE; sharing++) {
        stead_sharing mode = (stead_sharing)sharing;
        REAP_OK(spawn(live_without, &mode));
        if (mode != STEAD_LIVE) /* that one is unclean now */
            REAP_OK(spawn(recover_without, &mode));
        OK(stead_remove(path_in("s")));
        OK(stead_remove(path_in("backup")));
    }
}
