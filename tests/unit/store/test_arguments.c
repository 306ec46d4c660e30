/* What a call makes of arguments that it cannot serve, and whether its sentence names file and cause. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/support.h"

TestSuite(arguments, .init = support_setup, .fini = support_teardown, .timeout = 300);

static int visit_lock(const stead_lock_info *info, void *arg)
{
    (void)info;
    (void)arg;
    return 0;
}

/* A handle that an unchecked stead_open() left NULL: every call says so. */
Test(arguments, no_store_is_an_error_of_every_call)
{
    stead_status status;
    stead_report report;
    void *root;
    FAILS(stead_close(NULL), EINVAL);
    stead_abandon(NULL);
    FAILS(stead_set_root(NULL, NULL), EINVAL);
    FAILS(stead_root_once(NULL, 1, NULL, NULL, &root), EINVAL);
    FAILS(stead_bind(NULL, "name", NULL), EINVAL);
    FAILS(stead_each_name(NULL, NULL, NULL), EINVAL);
    FAILS(stead_each_block(NULL, NULL, NULL), EINVAL);
    FAILS(stead_each_lock(NULL, visit_lock, NULL), EINVAL);
    FAILS(stead_lock(NULL, STEAD_SHARED, -1), EINVAL);
    FAILS(stead_lock(NULL, STEAD_EXCLUSIVE, 0), EINVAL);
    FAILS(stead_unlock(NULL), EINVAL);
    FAILS(stead_make_consistent(NULL), EINVAL);
    FAILS(stead_commit(NULL, STEAD_DURABLE), EINVAL);
    FAILS(stead_rollback(NULL), EINVAL);
    FAILS(stead_wait_change(NULL, 0, 0), EINVAL);
    FAILS(stead_stat(NULL, &status), EINVAL);
    FAILS(stead_check(NULL, &report), EINVAL);
    FAILS(stead_backup(NULL, path_in("copy")), EINVAL);
    FAILS(stead_pin(NULL), EINVAL);
    FAILS(stead_unpin(NULL), EINVAL);
    void *const pointers[] = {stead_root(NULL),         stead_lookup(NULL, "name"),   stead_malloc(NULL, 1),
                              stead_calloc(NULL, 1, 1), stead_realloc(NULL, NULL, 1), stead_aligned_alloc(NULL, 8, 8)};
    for (size_t i = 0; i < sizeof pointers / sizeof *pointers; i++)
        cr_assert_null(pointers[i], "%zu", i);
    errno = 0;
    cr_assert_null(stead_malloc(NULL, 1));
    cr_assert_eq(errno, EINVAL);
    bool ran = false;
    STEAD_LOCKED(NULL, STEAD_EXCLUSIVE)
    {
        ran = true;
    }
    cr_assert(!ran && stead_last_error() == EINVAL);
}

Test(arguments, a_missing_argument_is_an_error)
{
    stead *s = (stead *)1;
    void *root;
    unsigned value;
    FAILS(stead_open(NULL, path_in("s"), NULL), EINVAL);
    FAILS(stead_open(&s, NULL, NULL), EINVAL);
    cr_assert_null(s);
    FAILS(stead_remove(NULL), EINVAL);
    OK(stead_open(&s, path_in("s"), NULL));
    FAILS(stead_bind(s, NULL, s), EINVAL);
    cr_assert_null(stead_lookup(s, NULL));
    cr_assert_eq(errno, EINVAL);
    FAILS(stead_each_name(s, NULL, NULL), EINVAL);
    FAILS(stead_each_block(s, NULL, NULL), EINVAL);
    FAILS(stead_each_lock(s, NULL, NULL), EINVAL);
    FAILS(stead_stat(s, NULL), EINVAL);
    FAILS(stead_backup(s, NULL), EINVAL);
    OK(stead_root_once(s, 8, NULL, NULL, NULL)); /* the root can be asked for later */
    OK(stead_root_once(s, 8, NULL, NULL, &root));
    cr_assert(root != NULL && root == stead_root(s));
    OK(stead_check(s, NULL));
    OK(stead_close(s));
    FAILS(stead_semaphore_open(NULL, NULL, 0), EINVAL);
    FAILS(stead_semaphore_wait(NULL, 0), EINVAL);
    FAILS(stead_semaphore_signal(NULL, 1), EINVAL);
    FAILS(stead_semaphore_close(NULL), EINVAL);
    FAILS(stead_semaphore_remove(NULL), EINVAL);
    FAILS(stead_event_open(NULL, NULL, false), EINVAL);
    FAILS(stead_event_wait(NULL, 0), EINVAL);
    FAILS(stead_event_signal(NULL), EINVAL);
    FAILS(stead_event_reset(NULL), EINVAL);
    FAILS(stead_event_close(NULL), EINVAL);
    FAILS(stead_event_remove(NULL), EINVAL);
    FAILS(stead_sync_value(NULL, "event", &value), EINVAL);
    FAILS(stead_each_section(NULL, NULL), EINVAL);
}

Test(arguments, numbers_that_mean_nothing_are_refused)
{
    stead *s;
    OK(stead_open(&s, path_in("s"), NULL));
    stead_lock_mode no_mode = (stead_lock_mode)2;
    stead_durability no_durability = (stead_durability)2;
    FAILS(stead_lock(s, no_mode, -1), EINVAL);
    FAILS(stead_lock(s, no_mode, 0), EINVAL);
    FAILS(stead_unlock(s), EPERM);
    FAILS(stead_commit(s, no_durability), EINVAL);
    OK(stead_close(s));
    stead_options options = {.layout = {.name = "", .version = 1}};
    FAILS(stead_open(&s, path_in("s"), &options), EINVAL);
    options.layout.name = "late";
    FAILS(stead_open(&s, path_in("s"), &options), STEAD_LAYOUT_MISMATCH);
    cr_assert(strstr(stead_last_error_text(), "without a layout") != NULL, "%s", stead_last_error_text());
}

static void names(const char *what)
{
    cr_assert(strstr(stead_last_error_text(), what) != NULL, "\"%s\" does not name %s", stead_last_error_text(), what);
}

/* The siblings below store/ know no file. */
Test(arguments, every_sentence_names_the_file)
{
    stead *s;
    stead_options options = {.capacity_bytes = 1u << 20, .max_private_bytes = 65536};
    OK(stead_open(&s, path_in("the file"), &options));
    char *block = stead_malloc(s, 1000);
    cr_assert_null(stead_malloc(s, 2u << 20));
    names("the file");
    cr_assert_null(stead_malloc(s, 1000000));
    names("the file: the store is full");
    names("1048576");
    cr_assert_null(stead_calloc(s, SIZE_MAX, 2));
    names("the file");
    cr_assert_null(stead_aligned_alloc(s, 3, 8));
    names("the file");
    cr_assert_null(stead_realloc(s, block, SIZE_MAX));
    names("the file");
    stead_free(block + 8);
    names("the file");
    cr_assert_eq(stead_last_error(), STEAD_WRONG_POINTER);
    block = stead_malloc(s, 400000);
    memset(block, 1, 400000);
    FAILS(stead_commit(s, STEAD_DURABLE), STEAD_LIMIT);
    names("the file");
    OK(stead_rollback(s));
    OK(stead_close(s));
    options = (stead_options){.capacity_bytes = (size_t)1 << 46};
    cr_assert_neq(stead_open(&s, path_in("no room"), &options), 0);
    names("no room");
}

static int upgrade_refused(stead *s, uint32_t from, uint32_t to, void *arg)
{
    (void)s, (void)from, (void)to, (void)arg;
    return 4242;
}

static int upgrade_without_room(stead *s, uint32_t from, uint32_t to, void *arg)
{
    (void)from, (void)to, (void)arg;
    return stead_malloc(s, SIZE_MAX) == NULL ? stead_last_error() : 0;
}

Test(arguments, an_upgrade_that_failed_is_named_or_its_own_cause)
{
    stead *s;
    stead_options options = {.layout = {.name = "structs", .version = 7}};
    OK(stead_open(&s, path_in("s"), &options));
    OK(stead_close(s));
    options.layout.version = 8;
    options.layout.upgrade = upgrade_refused;
    FAILS(stead_open(&s, path_in("s"), &options), 4242);
    names("the upgrade of layout \"structs\" from version 7 to 8 returned 4242");
    options.layout.upgrade = upgrade_without_room;
    FAILS(stead_open(&s, path_in("s"), &options), ENOMEM);
    names("a block of 18446744073709551615 bytes");
}

/* Whatever capacity is asked for, the store can hold something. */
Test(arguments, the_smallest_capacity_holds_a_block)
{
    for (unsigned sharing = STEAD_SOLE; sharing <= STEAD_LIVE; sharing++) {
        stead *s;
        stead_status status;
        stead_options options = {.sharing = (stead_sharing)sharing, .capacity_bytes = 1};
        OK(stead_open(&s, path_in("small"), &options));
        OK(stead_root_once(s, 40, NULL, NULL, NULL));
        OK(stead_stat(s, &status));
        cr_assert_eq(status.capacity_bytes, 131072);
        OK(stead_close(s));
        OK(stead_remove(path_in("small")));
    }
}

static volatile uint32_t *progress;

static void hold(void *arg)
{
    stead *s;
    CHILD(stead_open(&s, arg, NULL) == 0);
    progress[0] = 1;
    CHILD(await(&progress[1], 1) && stead_close(s) == 0);
}

Test(arguments, a_busy_store_names_who_has_it)
{
    char path[400], pid_text[32];
    stead *s;
    progress = shared_words(2);
    snprintf(path, sizeof path, "%s", path_in("s"));
    pid_t pid = spawn(hold, path);
    cr_assert(await(&progress[0], 1));
    snprintf(pid_text, sizeof pid_text, "(pid %ld)", (long)pid);
    FAILS(stead_open(&s, path, NULL), EBUSY);
    names(pid_text);
    FAILS(stead_open(&s, path, &(stead_options){.timeout_ms = 20}), ETIMEDOUT);
    names(pid_text);
    progress[1] = 1;
    REAP_OK(pid);
}

Test(arguments, a_missing_semaphore_is_named)
{
    unsigned value;
    FAILS(stead_sync_value("no such one", "semaphore", &value), ENOENT);
    names("\"no such one\"");
}

/* A path may be longer than the text. */
Test(arguments, a_long_path_leaves_room_for_the_cause)
{
    char path[3000];
    stead *s;
    snprintf(path, sizeof path, "%s", support_folder());
    while (strlen(path) < 2500) {
        memset(path + strlen(path) + 1, 0, 101);
        strcat(path, "/");
        memset(path + strlen(path), 'd', 100);
        cr_assert_eq(mkdir(path, 0700), 0);
    }
    strcat(path, "/the_file");
    OK(stead_open(&s, path, NULL));
    cr_assert_null(stead_lookup(s, "the_name"));
    cr_assert_eq(stead_last_error(), ENOENT);
    names("the_file: nothing is named \"the_name\"");
    cr_assert_eq(strncmp(stead_last_error_text(), support_folder(), strlen(support_folder())), 0);
    OK(stead_close(s));
    stead_options options = {.flags = STEAD_NEW};
    FAILS(stead_open(&s, path, &options), EEXIST);
    names("the_file exists already");
}

static void hold_lock(void *arg)
{
    stead *s;
    stead_sharing sharing = progress[2] == 0 ? STEAD_TURNS : STEAD_LIVE;
    CHILD(stead_open(&s, arg, &(stead_options){.sharing = sharing}) == 0);
    CHILD(stead_lock(s, progress[3] == 0 ? STEAD_EXCLUSIVE : STEAD_SHARED, -1) == 0);
    progress[0] = 1;
    CHILD(await(&progress[1], 1) && stead_unlock(s) == 0 && stead_close(s) == 0);
}

/* Exclusively or shared; also where this thread shares the lock and wants more. */
Test(arguments, a_lock_not_given_up_in_time_names_who_holds_it)
{
    char path[400], text[80];
    snprintf(path, sizeof path, "%s", path_in("s"));
    progress = shared_words(4);
    for (unsigned i = 0; i < 4; i++) {
        stead *s;
        progress[2] = i / 2;
        progress[3] = i % 2;
        progress[0] = progress[1] = 0;
        OK(stead_open(&s, path, &(stead_options){.sharing = i / 2 == 0 ? STEAD_TURNS : STEAD_LIVE}));
        pid_t pid = spawn(hold_lock, path);
        cr_assert(await(&progress[0], 1));
        if (i % 2 == 1)
            OK(stead_lock(s, STEAD_SHARED, -1));
        FAILS(stead_lock(s, STEAD_EXCLUSIVE, 20), ETIMEDOUT);
        snprintf(text, sizeof text, "process %ld (thread %ld) %s it", (long)pid, (long)pid, i % 2 ? "shares" : "holds");
        names(text);
        if (i % 2 == 1)
            OK(stead_unlock(s));
        progress[1] = 1;
        REAP_OK(pid);
        OK(stead_close(s));
    }
}
