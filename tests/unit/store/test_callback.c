/*
 * What a callback may do to the store of the call that it belongs to: leave it, and come again.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "support/support.h"

TestSuite(callback, .init = support_setup, .fini = support_teardown, .timeout = 300);

static stead *open_mode(const char *path, stead_sharing sharing)
{
    stead *s;
    OK(stead_open(&s, path, &(stead_options){.sharing = sharing, .timeout_ms = SOON_MS}));
    return s;
}

/* ---- from a callback: the call goes on to its end, and then the store goes */

static int abandon_name(const char *name, void *object, void *arg)
{
    (void)name;
    (void)object;
    stead_abandon(arg);
    return 7;
}

static int abandon_block(void *block, size_t usable, void *arg)
{
    (void)block;
    (void)usable;
    stead_abandon(arg);
    return 7;
}

static int abandon_lock(const stead_lock_info *info, void *arg)
{
    (void)info;
    stead_abandon(arg);
    return 7;
}

static int name_deeper(void *block, size_t usable, void *arg)
{
    (void)block;
    (void)usable;
    cr_assert_eq(stead_each_name(arg, abandon_name, arg), 7);
    cr_assert_not_null(stead_lookup(arg, "a"), "the outer call is not over");
    return 8;
}

static void abandon_root(void *root, void *arg)
{
    (void)root;
    stead_abandon(arg);
}

static stead *open_named(stead_sharing sharing)
{
    stead *s = open_mode(path_in("s"), sharing);
    OK(stead_lock(s, STEAD_EXCLUSIVE, 0));
    OK(stead_bind(s, "a", stead_malloc(s, 10)));
    OK(stead_unlock(s));
    if (sharing == STEAD_SOLE)
        OK(stead_commit(s, STEAD_DURABLE));
    return s;
}

Test(callback, abandon_from_a_callback)
{
    for (unsigned sharing = 0; sharing < 3; sharing++) {
        void *root;
        stead *s;
        OK(stead_close(open_named((stead_sharing)sharing)));
        for (unsigned kind = 0; kind < 5; kind++) {
            OK(stead_open(&s, path_in("s"),
                          &(stead_options){.sharing = (stead_sharing)sharing, .flags = STEAD_ACCEPT_UNCLEAN}));
            if (kind == 0) {
                cr_assert_eq(stead_each_name(s, abandon_name, s), 7);
            } else if (kind == 1) {
                cr_assert_eq(stead_each_block(s, abandon_block, s), 7);
            } else if (kind == 2) {
                cr_assert_eq(stead_each_block(s, name_deeper, s), 8);
            } else if (kind == 3) { /* what was begun is not committed */
                FAILS(stead_root_once(s, 64, abandon_root, s, &root), ECANCELED);
                cr_assert_null(root);
            } else {
                OK(stead_lock(s, STEAD_EXCLUSIVE, 0));
                cr_assert_eq(stead_each_lock(s, abandon_lock, s), 7);
            }
        }
        OK(stead_open(&s, path_in("s"),
                      &(stead_options){.sharing = (stead_sharing)sharing, .flags = STEAD_ACCEPT_UNCLEAN}));
        cr_assert_null(stead_root(s));
        if (sharing == STEAD_LIVE) { /* the last one held the lock */
            OK(stead_lock(s, STEAD_EXCLUSIVE, 0));
            OK(stead_unlock(s));
        }
        OK(stead_close(s));
        OK(stead_remove(path_in("s")));
    }
}

static pid_t child;

static int abandon_and_fork(const char *name, void *object, void *arg)
{
    (void)name;
    (void)object;
    stead_abandon(arg);
    child = fork();
    return 7;
}

/* The child has the call that is to abandon at its end, too, and nothing else of the store. */
Test(callback, a_child_of_one_that_abandoned_takes_nothing_away)
{
    for (unsigned sharing = 0; sharing < 3; sharing++) {
        stead *s = open_named((stead_sharing)sharing);
        int rc = stead_each_name(s, abandon_and_fork, s);
        if (child == 0)
            _exit(rc == 7 ? 0 : 1);
        REAP_OK(child);
        cr_assert_eq(rc, 7);
        OK(stead_open(&s, path_in("s"),
                      &(stead_options){.sharing = (stead_sharing)sharing, .flags = STEAD_ACCEPT_UNCLEAN}));
        cr_assert_not_null(stead_lookup(s, "a"));
        OK(stead_close(s));
        OK(stead_remove(path_in("s")));
    }
}

static int upgrade_and_leave(stead *s, uint32_t from, uint32_t to, void *arg)
{
    (void)from;
    (void)to;
    FAILS(stead_close(s), EBUSY); /* it is being opened */
    if (*(bool *)arg)
        stead_abandon(s);
    return 0;
}

struct second_open {
    stead *store;
    const char *path;
    _Atomic bool done;
    int upgrade_rc;
};

static void *open_beside(void *arg)
{
    struct second_open *open = arg;
    OK(stead_open(&open->store, open->path, &(stead_options){.timeout_ms = SOON_MS}));
    atomic_store(&open->done, true);
    return NULL;
}

static int upgrade_while_another_opens(stead *s, uint32_t from, uint32_t to, void *arg)
{
    struct second_open *open = arg;
    pthread_t thread;
    (void)from;
    (void)to;
    FAILS(stead_close(s), EBUSY);
    cr_assert_eq(pthread_create(&thread, NULL, open_beside, open), 0);
    pause_ms(200);
    cr_assert_not(atomic_load(&open->done), "a store that is being opened was handed out");
    pthread_detach(thread);
    return open->upgrade_rc;
}

static void await_second_open(struct second_open *open)
{
    for (unsigned i = 0; !atomic_load(&open->done); i++) {
        cr_assert_lt(i, SOON_MS / 10);
        pause_ms(10);
    }
}

Test(callback, an_upgrade_that_closes_or_abandons)
{
    bool leaves = true;
    stead *s;
    struct second_open beside = {NULL, path_in("s"), false, ENOMSG};
    stead_options options = {.layout = {.name = "test", .version = 1}};
    OK(stead_open(&s, path_in("s"), &options));
    OK(stead_close(s));
    options.layout.version = 2;
    options.layout.upgrade = upgrade_and_leave;
    options.layout.upgrade_arg = &leaves;
    FAILS(stead_open(&s, path_in("s"), &options), ECANCELED);
    options.layout.upgrade = upgrade_while_another_opens;
    options.layout.upgrade_arg = &beside;
    FAILS(stead_open(&s, path_in("s"), &options), ENOMSG);
    await_second_open(&beside);
    OK(stead_close(beside.store));
    beside = (struct second_open){NULL, path_in("s"), false, 0};
    OK(stead_open(&s, path_in("s"), &options));
    await_second_open(&beside); /* while the first one keeps it open */
    cr_assert_eq(beside.store, s);
    OK(stead_close(s));
    OK(stead_close(s));
    options.layout.version = 3;
    leaves = false;
    options.layout.upgrade = upgrade_and_leave;
    options.layout.upgrade_arg = &leaves;
    OK(stead_open(&s, path_in("s"), &options));
    OK(stead_close(s));
}

struct again {
    stead *store;
    unsigned runs;
};

static void make_root_again(void *root, void *arg)
{
    struct again *again = arg;
    void *other = root;
    cr_assert_eq(again->runs++, 0);
    FAILS(stead_root_once(again->store, 64, make_root_again, again, &other), EDEADLK);
    cr_assert_null(other);
}

Test(callback, root_once_from_its_own_init)
{
    for (unsigned sharing = 0; sharing < 3; sharing++) {
        stead *s = open_mode(path_in("s"), (stead_sharing)sharing);
        struct again again = {s, 0};
        void *root, *same;
        OK(stead_root_once(s, 64, make_root_again, &again, &root));
        cr_assert_eq(again.runs, 1);
        OK(stead_root_once(s, 64, make_root_again, &again, &same));
        cr_assert_eq(same, root);
        cr_assert_eq(stead_root(s), root);
        OK(stead_close(s));
        OK(stead_remove(path_in("s")));
    }
}

static int upgrade_nothing(stead *s, uint32_t from, uint32_t to, void *arg)
{
    (void)s;
    (void)from;
    (void)to;
    (void)arg;
    return 0;
}

/* What an upgrade writes down is the library's own: whoever found it by name could free it. */
Test(callback, the_record_of_an_upgrade_is_nobodys_to_find)
{
    stead *s;
    stead_options options = {.layout = {.name = "test", .version = 1, .upgrade = upgrade_nothing}};
    OK(stead_open(&s, path_in("s"), &options));
    OK(stead_close(s));
    options.layout.version = 2;
    OK(stead_open(&s, path_in("s"), &options));
    cr_assert_null(stead_lookup(s, ".stead.layout"));
    cr_assert_eq(errno, ENOENT);
    OK(stead_close(s));
    OK(stead_open(&s, path_in("s"), &options));
    OK(stead_close(s));
    options.layout.version = 1;
    options.layout.upgrade = NULL;
    FAILS(stead_open(&s, path_in("s"), &options), STEAD_LAYOUT_MISMATCH);
}
