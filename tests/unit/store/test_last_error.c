/* Success leaves the thread's last error as it was, whatever failed on the way: a file that had to be made first, a lock
 * that had to be torn from its holder.  Method: an error of a known text, the call, the same text. */
#include <errno.h>
#include <string.h>

#include "persist/file.h"
#include "persist/format.h"
#include "support/support.h"

static void teardown(void)
{
    file_calls = file_calls_system;
    support_teardown();
}

TestSuite(last_error, .init = support_setup, .fini = teardown, .timeout = 300);

static int mark; /* in no store: freeing it is the error */

#define QUIET_IF_FINE(rc, call) \
    do { \
        char quiet_before_[512]; \
        stead_free(&mark); \
        snprintf(quiet_before_, sizeof quiet_before_, "%s", stead_last_error_text()); \
        (rc) = (call); \
        cr_assert((rc) != 0 || (stead_last_error() == STEAD_WRONG_POINTER && \
                                strcmp(stead_last_error_text(), quiet_before_) == 0), \
                  "%s:%d: %s, and then: %s", __FILE__, __LINE__, #call, stead_last_error_text()); \
    } while (0)
#define QUIET(call) \
    do { \
        int quiet_rc_; \
        QUIET_IF_FINE(quiet_rc_, call); \
        cr_assert_eq(quiet_rc_, 0, "%s:%d: %s: %s", __FILE__, __LINE__, #call, stead_last_error_text()); \
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

/* A damaged store is a store to stead_remove. */
Test(last_error, success_leaves_it_alone_where_the_superblocks_are_damaged)
{
    stead *s;
    struct file file;
    uint64_t damage = 1234567;
    OK(stead_open(&s, path_in("s"), NULL));
    OK(stead_close(s));
    OK(file_resolve(&file, path_in("s")));
    OK(file_open(&file, true));
    OK(file_write_at(file.fd, &damage, sizeof damage, SUPERBLOCK_A_OFFSET + 64));
    OK(file_write_at(file.fd, &damage, sizeof damage, SUPERBLOCK_B_OFFSET + 64));
    file_close(&file);
    FAILS(stead_open(&s, path_in("s"), NULL), STEAD_CORRUPT);
    QUIET(stead_remove(path_in("s")));
}

/* ---- a call of the system fails inside, and the library goes on all the same */

static enum kind { FTRUNCATE, FALLOCATE, UNLINK, RENAME, FSYNC, PWRITE, OPEN, KINDS } failing;
static unsigned spared, seen; /* of that kind */

static bool fails(enum kind kind)
{
    if (kind != failing || ++seen <= spared)
        return false;
    errno = EIO;
    return true;
}

static int failing_ftruncate(int fd, off_t bytes)
{
    return fails(FTRUNCATE) ? -1 : file_calls_system.ftruncate(fd, bytes);
}

static int failing_fallocate(int fd, int mode, off_t offset, off_t bytes)
{
    return fails(FALLOCATE) ? -1 : file_calls_system.fallocate(fd, mode, offset, bytes);
}

static int failing_unlink(const char *path)
{
    return fails(UNLINK) ? -1 : file_calls_system.unlink(path);
}

static int failing_rename(const char *from, const char *to)
{
    return fails(RENAME) ? -1 : file_calls_system.rename(from, to);
}

static int failing_fsync(int fd)
{
    return fails(FSYNC) ? -1 : file_calls_system.fsync(fd);
}

static ssize_t failing_pwrite(int fd, const void *buffer, size_t bytes, off_t offset)
{
    return fails(PWRITE) ? -1 : file_calls_system.pwrite(fd, buffer, bytes, offset);
}

static int failing_open(const char *path, int flags, mode_t mode)
{
    return fails(OPEN) ? -1 : file_calls_system.open(path, flags, mode);
}

static void let_fail(enum kind kind, unsigned after)
{
    failing = kind;
    spared = after;
    seen = 0;
    file_calls.ftruncate = failing_ftruncate;
    file_calls.fallocate = failing_fallocate;
    file_calls.unlink = failing_unlink;
    file_calls.rename = failing_rename;
    file_calls.fsync = failing_fsync;
    file_calls.pwrite = failing_pwrite;
    file_calls.open = failing_open;
}

static stead *begin(const char *path, stead_sharing sharing)
{
    stead *s;
    void *root = NULL;
    int rc;
    QUIET_IF_FINE(rc, stead_open(&s, path, &(stead_options){.sharing = sharing}));
    if (rc != 0)
        return NULL;
    QUIET_IF_FINE(rc, stead_root_once(s, 64, NULL, NULL, &root));
    QUIET_IF_FINE(rc, stead_lock(s, STEAD_EXCLUSIVE, SOON_MS));
    if (rc == 0 && root != NULL)
        ++*(char *)root;
    return s;
}

/* One session that is closed, and one that leaves a log. */
static void two_sessions(const char *path, stead_sharing sharing)
{
    stead *s = begin(path, sharing);
    void *block;
    stead_report report;
    int rc;
    if (s != NULL) {
        QUIET_IF_FINE(rc, (block = stead_malloc(s, 9 << 20)) == NULL);
        QUIET_IF_FINE(rc, stead_commit(s, STEAD_DURABLE));
        QUIET_VOID(stead_free(block));
        QUIET_IF_FINE(rc, stead_unlock(s));
        QUIET_IF_FINE(rc, stead_check(s, &report));
        QUIET_IF_FINE(rc, stead_close(s));
        if (rc != 0)
            QUIET_VOID(stead_abandon(s));
    }
    if ((s = begin(path, sharing)) != NULL) {
        QUIET_IF_FINE(rc, stead_commit(s, STEAD_DURABLE));
        QUIET_VOID(stead_abandon(s));
    }
    QUIET_IF_FINE(rc, stead_remove(path));
}

Test(last_error, success_leaves_it_alone_where_a_call_failed_inside)
{
    unsigned tried = 0;
    for (enum kind kind = 0; kind < KINDS; kind++) {
        for (stead_sharing sharing = STEAD_SOLE; sharing <= STEAD_LIVE; sharing++) {
            bool failed = true;
            for (unsigned after = 0; failed; after++, tried += failed) {
                let_fail(kind, after);
                two_sessions(path_in("s"), sharing);
                failed = seen > after;
                file_calls = file_calls_system;
                (void)stead_remove(path_in("s"));
            }
        }
    }
    cr_assert_gt(tried, 50);
}
