/* When a store was last attached to, told also of a session that ended in a crash, and kept by an open that failed. */
#include <errno.h>
#include <time.h>
#include <unistd.h>

#include "persist/file.h"
#include "persist/format.h"
#include "persist/map.h"
#include "persist/superblock.h"
#include "support/support.h"

TestSuite(times, .init = support_setup, .fini = support_teardown, .timeout = 300);

struct session {
    char path[400];
    stead_sharing sharing;
};

static void commit_and_die(void *arg)
{
    const struct session *session = arg;
    stead *s;
    CHILD(stead_open(&s, session->path, &(stead_options){.sharing = session->sharing}) == 0);
    CHILD(stead_lock(s, STEAD_EXCLUSIVE, 0) == 0 && stead_set_root(s, stead_malloc(s, 64)) == 0);
    CHILD(stead_unlock(s) == 0 && stead_commit(s, STEAD_DURABLE) == 0);
    _exit(0);
}

static stead_status look(const char *path)
{
    stead *s;
    stead_status status;
    OK(stead_open(&s, path, &(stead_options){.flags = STEAD_READ_ONLY | STEAD_ACCEPT_UNCLEAN}));
    OK(stead_stat(s, &status));
    OK(stead_close(s));
    return status;
}

Test(times, a_session_that_crashed_was_attached)
{
    for (unsigned sharing = STEAD_SOLE; sharing <= STEAD_LIVE; sharing++) {
        struct session session = {.sharing = (stead_sharing)sharing};
        snprintf(session.path, sizeof session.path, "%s",
                 path_in(sharing == STEAD_SOLE ? "0"
                         : sharing == 1        ? "1"
                                               : "2"));
        REAP_OK(spawn(commit_and_die, &session)); /* the first one, which made it */
        stead_status first = look(session.path);
        cr_assert(first.last_attach >= first.created && first.created != 0, "mode %u", sharing);
        cr_assert_eq(first.last_detach, 0, "nobody closed it yet");
        if (sharing == STEAD_LIVE)
            continue;
        stead *s;
        OK(stead_open(&s, session.path, &(stead_options){.sharing = session.sharing}));
        OK(stead_close(s));
        pause_ms(1100);
        REAP_OK(spawn(commit_and_die, &session));
        stead_status second = look(session.path);
        cr_assert_gt(second.last_attach, first.last_attach, "mode %u", sharing);
        cr_assert_gt(second.last_detach, 0);
    }
}

static int refuse(stead *s, uint32_t from, uint32_t to, void *arg)
{
    (void)s, (void)from, (void)to, (void)arg;
    return ECANCELED;
}

Test(times, an_open_that_failed_forgets_none)
{
    for (unsigned sharing = STEAD_SOLE; sharing <= STEAD_TURNS; sharing++) {
        stead *s;
        stead_options options = {.sharing = (stead_sharing)sharing, .layout = {.name = "l", .version = 1}};
        OK(stead_open(&s, path_in("s"), &options));
        OK(stead_root_once(s, 8, NULL, NULL, NULL));
        OK(stead_close(s));
        stead_status before = look(path_in("s"));
        options.layout = (stead_layout){.name = "l", .version = 2, .upgrade = refuse};
        FAILS(stead_open(&s, path_in("s"), &options), ECANCELED);
        stead_status after = look(path_in("s"));
        cr_assert_geq(after.last_change, before.last_change);
        cr_assert_eq(after.last_change_pid, before.last_change_pid);
        cr_assert(after.last_attach >= before.last_attach && after.last_detach >= before.last_detach);
        OK(stead_remove(path_in("s")));
    }
}

/* The heap cannot be attached, after the file was opened for a session: it is closed again. */
Test(times, an_open_that_finds_a_damaged_heap_forgets_none)
{
    for (stead_sharing sharing = STEAD_SOLE; sharing <= STEAD_LIVE; sharing++) {
        stead *s;
        struct superblock before, after;
        struct file file;
        stead_options options = {.sharing = sharing};
        OK(stead_open(&s, path_in("s"), &options));
        OK(stead_root_once(s, 8, NULL, NULL, NULL));
        OK(stead_close(s));
        OK(file_resolve(&file, path_in("s")));
        OK(file_open(&file, true));
        OK(superblock_read(&file, &before));
        uint64_t nothing = 0;
        OK(file_write_at(file.fd, &nothing, sizeof nothing, format_file_offset(PAGE_BYTES)));
        FAILS(stead_open(&s, path_in("s"), &options), STEAD_CORRUPT);
        OK(superblock_read(&file, &after));
        cr_assert_eq(after.last_change_s, before.last_change_s, "mode %u", (unsigned)sharing);
        cr_assert_eq(after.last_change_pid, before.last_change_pid);
        cr_assert_geq(after.last_attach_s, before.last_attach_s);
        cr_assert_geq(after.last_detach_s, before.last_detach_s);
        file_close(&file);
        OK(stead_remove(path_in("s")));
    }
}
