/* Success leaves the thread's last error as it was, whatever failed on the way: a file that had to be made first, a lock
 * that had to be torn from its holder.  Method: an error of a known text, the call, the same text. */
#include <string.h>

#include "support/support.h"

TestSuite(last_error, .init = support_setup, .fini = support_teardown, .timeout = 60);

static int mark; /* in no store: freeing it is the error */

#define QUIET(call) \
    do { \
        char quiet_before_[512]; \
        stead_free(&mark); \
        snprintf(quiet_before_, sizeof quiet_before_, "%s", stead_last_error_text()); \
        int quiet_rc_ = (call); \
        cr_assert(quiet_rc_ == 0 && stead_last_error() == STEAD_WRONG_POINTER && \
                      strcmp(stead_last_error_text(), quiet_before_) == 0, \
                  "%s:%d: %s: %d, and then: %s", __FILE__, __LINE__, #call, quiet_rc_, stead_last_error_text()); \
    } while (0)
#define QUIET_VOID(call) QUIET(((call), 0))
#define QUIET_POINTER(call) QUIET((call) == NULL)

static int visit_name(const char *name, void *object, void *arg)
{
    (void)name, (void)object, (void)arg;
    return 0;
}

static int visit_block(void *block, size_t usable, void *arg)
{
    (void)block, (void)usable, (void)arg;
    return 0;
}

static void use(stead *s, bool can_roll_back)
{
    void *root, *block;
    stead_status status;
    stead_report report;
    QUIET(stead_root_once(s, 64, NULL, NULL, &root));
    QUIET(stead_lock(s, STEAD_EXCLUSIVE, 0));
    QUIET(stead_bind(s, "name", root));
    QUIET_POINTER(stead_lookup(s, "name"));
    QUIET_POINTER(block = stead_malloc(s, 100));
    QUIET_POINTER(block = stead_realloc(s, block, 10000000));
    QUIET_VOID(stead_free(block));
    QUIET(stead_commit(s, STEAD_BUFFERED));
    QUIET(stead_commit(s, STEAD_DURABLE));
    if (can_roll_back)
        QUIET(stead_rollback(s));
    QUIET(stead_unlock(s));
    QUIET(stead_stat(s, &status));
    QUIET(stead_wait_change(s, status.commit_seq + 1, 0));
    QUIET(stead_check(s, &report));
    QUIET(stead_each_name(s, visit_name, NULL));
    QUIET(stead_each_block(s, visit_block, NULL));
    QUIET(stead_backup(s, path_in("copy")));
}

static void look(const char *path)
{
    stead *s;
    stead_options options = {.flags = STEAD_READ_ONLY};
    QUIET(stead_open(&s, path, &options));
    QUIET(stead_lock(s, STEAD_SHARED, SOON_MS));
    QUIET(stead_unlock(s));
    QUIET(stead_close(s));
}

static void whole_life(const char *path, stead_sharing sharing)
{
    stead *s, *again;
    stead_options options = {.sharing = sharing};
    bool atomic = sharing != STEAD_LIVE;
    QUIET(stead_open(&s, path, &options)); /* makes it: there was no such file */
    QUIET(stead_open(&again, path, &options));
    QUIET(stead_close(again));
    use(s, atomic);
    QUIET(stead_close(s));
    QUIET(stead_open(&s, path, &options));
    if (atomic) {
        QUIET(stead_lock(s, STEAD_EXCLUSIVE, 0));
        memset(stead_root(s), 1, 64);
        QUIET(stead_commit(s, STEAD_DURABLE));
        QUIET_VOID(stead_abandon(s)); /* held */
        look(path);                   /* a private replay */
        QUIET(stead_open(&s, path, &options));
    }
    QUIET(stead_close(s));
    look(path);
    QUIET(stead_remove(path));
    QUIET(stead_remove(path_in("copy")));
}

Test(last_error, success_leaves_it_alone_in_sole)
{
    whole_life(path_in("sole"), STEAD_SOLE);
}

Test(last_error, success_leaves_it_alone_in_turns)
{
    whole_life(path_in("turns"), STEAD_TURNS);
}

Test(last_error, success_leaves_it_alone_in_live)
{
    whole_life(path_in("live"), STEAD_LIVE);
}

/* Commits and a close beside a store whose name went away: their inner failures are nobody's. */
Test(last_error, success_leaves_it_alone_where_the_store_was_removed)
{
    for (stead_sharing sharing = STEAD_SOLE; sharing <= STEAD_TURNS; sharing++) {
        stead *s;
        stead_options options = {.sharing = sharing};
        OK(stead_open(&s, path_in("s"), &options));
        OK(stead_lock(s, STEAD_EXCLUSIVE, 0));
        cr_assert_not_null(stead_malloc(s, 64));
        QUIET(stead_remove(path_in("s")));
        QUIET(stead_commit(s, STEAD_DURABLE));
        cr_assert_not_null(stead_malloc(s, 64));
        QUIET(stead_unlock(s));
        QUIET(stead_close(s));
    }
}
