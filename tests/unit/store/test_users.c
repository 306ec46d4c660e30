/*
 * Writers of several users in TURNS: side by side where each may replace the others' log, refused with a sentence where the
 * sticky bit forbids it.  As root only: others cannot become two users.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "persist/txn.h"
#include "support/support.h"

#define SECTIONS 40
#define FIRST_USER 65001
#define SECOND_USER 65002

TestSuite(users, .init = support_setup, .fini = support_teardown, .timeout = 300);

static volatile uint32_t *word; /* 0: the first one is open; 1: the second one is done */

static void become(unsigned user)
{
    umask(0);
    CHILD(setresgid(65534, 65534, 65534) == 0 && setresuid(user, user, user) == 0);
}

static int open_turns(stead **s)
{
    return stead_open(s, path_in("s"),
                      &(stead_options){.sharing = STEAD_TURNS, .permissions = 0666, .timeout_ms = SOON_MS});
}

/* Checkpoints in between, by whoever has the turn. */
static void count_up(stead *s)
{
    for (unsigned i = 0; i < SECTIONS; i++) {
        CHILD(stead_lock(s, STEAD_EXCLUSIVE, SOON_MS) == 0);
        ++*(uint64_t *)stead_root(s);
        CHILD(stead_unlock(s) == 0);
        CHILD(stead_commit(s, STEAD_DURABLE) == 0);
    }
}

static void first_user(void *arg)
{
    const bool *together = arg;
    stead *s;
    void *root;
    become(FIRST_USER);
    CHILD(open_turns(&s) == 0);
    CHILD(stead_root_once(s, 8, NULL, NULL, &root) == 0);
    word[0] = 1;
    if (!*together)
        CHILD(await(&word[1], 1));
    count_up(s);
    CHILD(!*together || await(&word[1], 1));
    CHILD(stead_close(s) == 0);
}

static void second_user(void *arg)
{
    const bool *together = arg;
    stead *s;
    become(SECOND_USER);
    CHILD(await(&word[0], 1));
    int rc = open_turns(&s);
    CHILD(rc == (*together ? 0 : EPERM));
    CHILD(*together || strstr(stead_last_error_text(), "sticky") != NULL);
    if (*together) {
        count_up(s);
        CHILD(stead_close(s) == 0);
    }
    word[1] = 1;
}

static void two_users(bool together)
{
    if (geteuid() != 0)
        cr_skip("this needs root");
    word = shared_words(2);
    cr_assert_eq(chmod(support_folder(), together ? 0777 : 01777), 0);
    txn_log_limit_bytes = 16 << 10;
    pid_t first = spawn(first_user, &together), second = spawn(second_user, &together);
    REAP_OK(second);
    REAP_OK(first);
    stead *s;
    OK(stead_open(&s, path_in("s"), NULL));
    cr_assert_eq(*(uint64_t *)stead_root(s), together ? 2 * SECTIONS : SECTIONS);
    OK(stead_check(s, NULL));
    OK(stead_close(s));
}

Test(users, two_take_turns_in_a_folder_of_both)
{
    two_users(true);
}

Test(users, the_second_one_is_refused_where_only_the_owner_may_replace_a_file)
{
    two_users(false);
}
