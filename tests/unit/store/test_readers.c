/*
 * test_readers.c -- a reader stays while writers come, change the sharing mode, go, and die.
 *
 * Two kinds: one that came before any writer has no slot and is told nothing, so that it must find out; one that came
 * while a writer was there has a slot and shares the lock's words with it.  The reader is the test's own process, each
 * writer a child.  Every section must see one commit, every copy must be one.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "persist/file.h"
#include "lock/bytes.h"
#include "support/support.h"

TestSuite(readers, .init = support_setup, .fini = support_teardown, .timeout = 300);

#define WORDS 4096
#define LINK_BYTES 50000

enum { READY, GO, WORD_COUNT };

struct link {
    struct link *next;
    uint8_t bytes[LINK_BYTES];
};

struct list {
    uint64_t count;
    struct link *first;
};

static stead *open_writer(const char *path, stead_sharing sharing)
{
    stead *s;
    CHILD(stead_open(&s, path, &(stead_options){.sharing = sharing, .timeout_ms = SOON_MS}) == 0);
    return s;
}

static stead *open_reader(const char *path)
{
    stead *s;
    OK(stead_open(&s, path, &(stead_options){.flags = STEAD_READ_ONLY, .timeout_ms = SOON_MS}));
    return s;
}

static void make_store(const char *path, stead_sharing sharing, size_t root_bytes)
{
    stead *s;
    void *root;
    OK(stead_open(&s, path, &(stead_options){.sharing = sharing}));
    OK(stead_root_once(s, root_bytes, NULL, NULL, &root));
    OK(stead_close(s));
}

/* ---- modes that follow one another */

struct session {
    const char *path;
    stead *inherited; /* the reader, of no use in the child */
    volatile uint32_t *words;
    stead_sharing sharing;
};

/* Adds 50 links in one section, commits, and stays until it is told to close. */
static void grow(void *arg)
{
    struct session *session = arg;
    CHILD(stead_close(session->inherited) == 0);
    stead *s = open_writer(session->path, session->sharing);
    CHILD(stead_lock(s, STEAD_EXCLUSIVE, SOON_MS) == 0);
    struct list *list = stead_root(s);
    for (int i = 0; i < 50; i++) {
        struct link *link = stead_new(s, struct link);
        CHILD(link != NULL);
        memset(link->bytes, 0x5a, sizeof link->bytes);
        link->next = list->first;
        list->first = link;
        list->count++;
    }
    CHILD(stead_unlock(s) == 0);
    CHILD(stead_commit(s, STEAD_DURABLE) == 0);
    session->words[READY] = 1;
    CHILD(await(session->words + GO, 1));
    CHILD(stead_close(s) == 0);
}

static uint64_t walk(stead *s)
{
    uint64_t count = 0;
    CHILD(stead_lock(s, STEAD_SHARED, SOON_MS) == 0);
    const struct list *list = stead_root(s);
    for (const struct link *link = list->first; link != NULL; link = link->next) {
        CHILD(link->bytes[0] == 0x5a && link->bytes[LINK_BYTES - 1] == 0x5a);
        count++;
    }
    CHILD(count == list->count);
    CHILD(stead_unlock(s) == 0);
    return count;
}

struct copy {
    const char *path;
    stead *inherited;
    uint64_t links;
};

static void look_into_copy(void *arg)
{
    struct copy *copy = arg;
    stead *s;
    stead_report report;
    CHILD(stead_close(copy->inherited) == 0);
    CHILD(stead_open(&s, copy->path, &(stead_options){.flags = STEAD_READ_ONLY}) == 0);
    CHILD(stead_check(s, &report) == 0);
    CHILD(walk(s) == copy->links);
    CHILD(stead_close(s) == 0);
}

static void expect_links(stead *reader, uint64_t links, stead_sharing sharing)
{
    stead_status status;
    struct copy copy = {.path = path_in("copy"), .inherited = reader, .links = links};
    OK(stead_check(reader, NULL));
    OK(stead_stat(reader, &status));
    cr_assert_eq(status.sharing, sharing, "%llu links: told %d instead of %d", (unsigned long long)links,
                 (int)status.sharing, (int)sharing);
    cr_assert_eq(walk(reader), links);
    OK(stead_backup(reader, copy.path));
    REAP_OK(spawn(look_into_copy, &copy));
    cr_assert_eq(unlink(copy.path), 0);
}

Test(readers, one_that_came_first_follows_every_mode_and_copies_it)
{
    char path[256]; /* path_in() gives out four at a time */
    (void)snprintf(path, sizeof path, "%s", path_in("s"));
    for (unsigned pair = 0; pair < 9; pair++) {
        make_store(path, (stead_sharing)(pair / 3), sizeof(struct list));
        stead *reader = open_reader(path);
        for (unsigned n = 0; n < 3; n++) { /* each writer in another mode than the one before it */
            struct session session = {.path = path,
                                      .inherited = reader,
                                      .words = shared_words(WORD_COUNT),
                                      .sharing = (stead_sharing)((pair + n) % 3)};
            pid_t pid = spawn(grow, &session);
            cr_assert(await(session.words + READY, 1));
            expect_links(reader, 50 * (n + 1), session.sharing);
            session.words[GO] = 1;
            REAP_OK(pid);
            expect_links(reader, 50 * (n + 1), session.sharing);
        }
        OK(stead_close(reader));
        OK(stead_remove(path));
    }
}

static void whole_session(void *arg)
{
    struct session *session = arg;
    CHILD(stead_close(session->inherited) == 0);
    stead *s = open_writer(session->path, session->sharing);
    CHILD(stead_lock(s, STEAD_EXCLUSIVE, SOON_MS) == 0);
    ((struct list *)stead_root(s))->count = 1 + session->sharing;
    CHILD(stead_unlock(s) == 0);
    CHILD(stead_commit(s, STEAD_DURABLE) == 0);
    if (session->words == NULL) /* dies */
        kill(getpid(), SIGKILL);
    CHILD(stead_close(s) == 0);
}

static uint64_t commit_seq_of(stead *s)
{
    stead_status status;
    OK(stead_stat(s, &status));
    return status.commit_seq;
}

/* The whole session, or the writer's life, lies between two looks of the waiting reader. */
Test(readers, wait_change_hears_of_sessions_that_it_slept_through)
{
    char path[256];
    (void)snprintf(path, sizeof path, "%s", path_in("s"));
    for (unsigned made = 0; made < 3; made++) {
        make_store(path, (stead_sharing)made, sizeof(struct list));
        stead *reader = open_reader(path);
        for (unsigned mode = 0; mode < 5; mode++) {
            bool dies = mode >= 3;
            struct session session = {.path = path,
                                      .inherited = reader,
                                      .words = dies ? NULL : shared_words(1),
                                      .sharing = (stead_sharing)(mode % 3)};
            uint64_t before = commit_seq_of(reader);
            FAILS(stead_wait_change(reader, before, 0), EBUSY);
            FAILS(stead_wait_change(reader, before, 30), ETIMEDOUT);
            cr_assert_eq(reap(spawn(whole_session, &session)), dies ? 128 + SIGKILL : 0);
            OK(stead_wait_change(reader, before, SOON_MS));
            uint64_t after = commit_seq_of(reader);
            cr_assert_gt(after, before);
            FAILS(stead_wait_change(reader, after, 30), ETIMEDOUT);
        }
        OK(stead_close(reader));
        OK(stead_remove(path));
    }
}

/* ---- deaths */

enum way { BY_SIGNAL, BY_ABANDON, BY_EXIT, WAYS };

struct mortal {
    const char *path;
    stead *inherited;
    volatile uint32_t *words;
    stead_sharing sharing;
    enum way way;
    long writes; /* the death comes before this one; -1: after the commits */
};

static void end_as(stead *s, enum way way)
{
    if (way == BY_SIGNAL)
        kill(getpid(), SIGKILL);
    if (way == BY_ABANDON)
        stead_abandon(s);
    _exit(0);
}

static long writes_left;
static ssize_t mortal_pwrite(int fd, const void *buffer, size_t bytes, off_t offset)
{
    if (writes_left-- == 0)
        kill(getpid(), SIGKILL);
    return file_calls_system.pwrite(fd, buffer, bytes, offset);
}

static void commit_number(stead *s, uint64_t number)
{
    CHILD(stead_lock(s, STEAD_EXCLUSIVE, SOON_MS) == 0);
    uint64_t *root = stead_root(s);
    for (unsigned i = 0; i < WORDS; i++)
        root[i] = number;
    CHILD(stead_unlock(s) == 0);
    CHILD(stead_commit(s, STEAD_DURABLE) == 0);
}

static void commit_and_die(void *arg)
{
    struct mortal *mortal = arg;
    CHILD(mortal->inherited == NULL || stead_close(mortal->inherited) == 0);
    stead *s = open_writer(mortal->path, mortal->sharing);
    commit_number(s, 1);
    mortal->words[READY] = 1;
    CHILD(await(mortal->words + GO, 1));
    if (mortal->writes >= 0) {
        writes_left = mortal->writes;
        file_calls.pwrite = mortal_pwrite;
    }
    for (uint64_t number = 2; number < 6; number++) {
        commit_number(s, number);
        mortal->words[READY] = (uint32_t)number;
    }
    end_as(s, mortal->way);
}

static void recover_and_commit(void *arg)
{
    struct mortal *mortal = arg;
    CHILD(stead_close(mortal->inherited) == 0);
    stead *s = open_writer(mortal->path, mortal->sharing);
    commit_number(s, 9);
    CHILD(stead_close(s) == 0);
}

/* One section: the number of the commit that all of the words say. */
static uint64_t seen(stead *reader)
{
    OK(stead_lock(reader, STEAD_SHARED, SOON_MS));
    OK(stead_lock(reader, STEAD_SHARED, 0));
    const uint64_t *root = stead_root(reader);
    uint64_t number = root[0];
    for (unsigned i = 0; i < WORDS; i++)
        cr_assert_eq(root[i], number, "word %u is %llu, the first is %llu", i, (unsigned long long)root[i],
                     (unsigned long long)number);
    OK(stead_unlock(reader));
    OK(stead_unlock(reader));
    return number;
}

/* The writer dies; true if it lived to its end.  The reader goes on, and its view never goes back. */
static bool outlive(stead_sharing sharing, bool slot, enum way way, long writes)
{
    const char *path = path_in("s");
    make_store(path, sharing, WORDS * sizeof(uint64_t));
    stead *reader = slot ? NULL : open_reader(path);
    struct mortal mortal = {.path = path,
                            .inherited = reader,
                            .words = shared_words(WORD_COUNT),
                            .sharing = sharing,
                            .way = way,
                            .writes = writes};
    pid_t pid = spawn(commit_and_die, &mortal);
    cr_assert(await(mortal.words + READY, 1));
    if (slot)
        reader = open_reader(path);
    cr_assert_eq(seen(reader), 1);
    mortal.words[GO] = 1;
    (void)reap(pid);
    uint64_t told = mortal.words[READY];
    for (int again = 0; again < 2; again++) {
        uint64_t number = seen(reader);
        cr_assert(number >= told && number <= told + 1, "%llu was told, %llu is seen (%ld writes)",
                  (unsigned long long)told, (unsigned long long)number, writes);
    }
    OK(stead_check(reader, NULL));
    mortal.inherited = reader;
    REAP_OK(spawn(recover_and_commit, &mortal));
    cr_assert_eq(seen(reader), 9);
    OK(stead_close(reader));
    OK(stead_remove(path));
    return told == 5;
}

Test(readers, go_on_at_the_last_durable_commit_after_a_writers_end)
{
    for (unsigned mode = STEAD_SOLE; mode <= STEAD_TURNS; mode++)
        for (unsigned way = 0; way < WAYS; way++)
            for (int slot = 0; slot < 2; slot++)
                cr_assert(outlive((stead_sharing)mode, slot != 0, (enum way)way, -1));
}

static unsigned die_at_every_write(stead_sharing sharing, bool slot)
{
    unsigned deaths = 0;
    while (!outlive(sharing, slot, BY_SIGNAL, deaths))
        deaths++;
    return deaths;
}

/* With a reader there, each commit is applied at once: many of these deaths leave the file between two commits. */
Test(readers, go_on_after_a_writer_died_at_any_write)
{
    for (unsigned mode = STEAD_SOLE; mode <= STEAD_TURNS; mode++)
        for (int slot = 0; slot < 2; slot++)
            cr_assert_gt(die_at_every_write((stead_sharing)mode, slot != 0), 4);
}

/* ---- deaths in a recovery */

enum { DURABLES = 3, BUFFERED_FROM = 5, LAST = 9, FAR = WORDS - 1 };

/* Commit n; those that are not durable also write a page that no durable one has written. */
static void commit_near_and_far(stead *s, uint64_t number, stead_durability durability)
{
    CHILD(stead_lock(s, STEAD_EXCLUSIVE, SOON_MS) == 0);
    uint64_t *root = stead_root(s);
    root[0] = number;
    if (durability == STEAD_BUFFERED)
        root[FAR] = number;
    CHILD(stead_unlock(s) == 0);
    CHILD(stead_commit(s, durability) == 0);
}

static void leave_buffered_commits(void *arg)
{
    struct mortal *mortal = arg;
    CHILD(mortal->inherited == NULL || stead_close(mortal->inherited) == 0);
    stead *s = open_writer(mortal->path, mortal->sharing);
    mortal->words[READY] = 1;
    CHILD(await(mortal->words + GO, 1));
    for (uint64_t number = 1; number <= DURABLES; number++)
        commit_near_and_far(s, number, STEAD_DURABLE);
    mortal->words[READY] = 2;
    CHILD(await(mortal->words + GO, 2)); /* the reader has private pages of its own by now */
    for (uint64_t number = BUFFERED_FROM; number <= LAST; number++)
        commit_near_and_far(s, number, STEAD_BUFFERED);
    kill(getpid(), SIGKILL);
}

static long requests_left;
static void maybe_die(void)
{
    if (requests_left-- == 0)
        kill(getpid(), SIGKILL);
}
static ssize_t dying_pwrite(int fd, const void *buffer, size_t bytes, off_t offset)
{
    maybe_die();
    return file_calls_system.pwrite(fd, buffer, bytes, offset);
}
static int dying_fdatasync(int fd)
{
    maybe_die();
    return file_calls_system.fdatasync(fd);
}
static int dying_rename(const char *from, const char *to)
{
    maybe_die();
    return file_calls_system.rename(from, to);
}
static int dying_exchange(const char *a, const char *b)
{
    maybe_die();
    return file_calls_system.exchange(a, b);
}
static int dying_unlink(const char *path)
{
    maybe_die();
    return file_calls_system.unlink(path);
}

/* Recovers, and dies before request mortal->writes. */
static void recover_and_die(void *arg)
{
    struct mortal *mortal = arg;
    CHILD(stead_close(mortal->inherited) == 0);
    requests_left = mortal->writes;
    file_calls.pwrite = dying_pwrite;
    file_calls.fdatasync = dying_fdatasync;
    file_calls.rename = dying_rename;
    file_calls.exchange = dying_exchange;
    file_calls.unlink = dying_unlink;
    stead *s = open_writer(mortal->path, mortal->sharing);
    stead_abandon(s);
}

/* One section: a commit that was durable, or the last one, whole. */
static void see_one_commit(stead *reader, long requests)
{
    OK(stead_lock(reader, STEAD_SHARED, SOON_MS));
    const uint64_t *root = stead_root(reader);
    cr_assert(root[0] >= DURABLES && root[0] <= LAST, "%llu is seen", (unsigned long long)root[0]);
    cr_assert_eq(root[FAR], root[0] >= BUFFERED_FROM ? root[0] : 0,
                 "commit %llu and a page of commit %llu, request %ld", (unsigned long long)root[0],
                 (unsigned long long)root[FAR], requests);
    OK(stead_unlock(reader));
}

/* False: the recovery did not get as far as this request. */
static bool die_in_recovery(stead_sharing sharing, bool slot, long requests)
{
    const char *path = path_in("s");
    make_store(path, sharing, WORDS * sizeof(uint64_t));
    stead *reader = slot ? NULL : open_reader(path);
    struct mortal mortal = {
        .path = path, .inherited = reader, .words = shared_words(WORD_COUNT), .sharing = sharing, .writes = requests};
    pid_t pid = spawn(leave_buffered_commits, &mortal);
    cr_assert(await(mortal.words + READY, 1));
    if (slot)
        reader = open_reader(path);
    OK(stead_lock(reader, STEAD_SHARED, SOON_MS)); /* what is committed now waits in the log */
    mortal.words[GO] = 1;
    if (sharing == STEAD_TURNS) /* there a section keeps the next turn out */
        OK(stead_unlock(reader));
    cr_assert(await(mortal.words + READY, 2));
    if (sharing != STEAD_TURNS)
        OK(stead_unlock(reader));
    see_one_commit(reader, requests);
    mortal.words[GO] = 2;
    (void)reap(pid);
    see_one_commit(reader, requests);
    mortal.inherited = reader;
    bool died = reap(spawn(recover_and_die, &mortal)) == 128 + SIGKILL;
    see_one_commit(reader, requests);
    OK(stead_check(reader, NULL));
    see_one_commit(reader, requests);
    mortal.way = BY_SIGNAL;
    REAP_OK(spawn(recover_and_commit, &mortal));
    cr_assert_eq(seen(reader), 9);
    OK(stead_close(reader));
    OK(stead_remove(path));
    return died;
}

/* Recovery brings home what was not durable when its writer died, so readers must be told before it begins. */
Test(readers, go_on_after_a_recovery_died_at_any_request)
{
    for (unsigned mode = STEAD_SOLE; mode <= STEAD_TURNS; mode++)
        for (int slot = 0; slot < 2; slot++) {
            long requests = 0;
            while (die_in_recovery((stead_sharing)mode, slot != 0, requests))
                requests++;
            cr_assert_gt(requests, 8);
        }
}

static void leave_live(void *arg)
{
    struct session *session = arg;
    CHILD(stead_close(session->inherited) == 0);
    stead *s = open_writer(session->path, STEAD_LIVE);
    ((struct list *)stead_root(s))->count = 1;
    kill(getpid(), SIGKILL);
}

Test(readers, a_live_death_is_never_mistaken_for_clean)
{
    const char *path = path_in("s");
    make_store(path, STEAD_SOLE, sizeof(struct list));
    stead *reader = open_reader(path), *judged;
    struct session session = {.path = path, .inherited = reader};
    OK(stead_lock(reader, STEAD_SHARED, 0));
    OK(stead_unlock(reader));
    cr_assert_eq(reap(spawn(leave_live, &session)), 128 + SIGKILL);
    FAILS(stead_lock(reader, STEAD_SHARED, SOON_MS), STEAD_UNCLEAN);
    FAILS(stead_backup(reader, path_in("copy")), STEAD_UNCLEAN);
    int fd = open(path, O_RDWR);
    cr_assert_not(lock_byte_taken(fd, LOCK_BYTE_APPLY, 1), "who is refused holds nothing");
    close(fd);
    OK(stead_close(reader));
    OK(stead_open(&judged, path, &(stead_options){.flags = STEAD_READ_ONLY | STEAD_ACCEPT_UNCLEAN}));
    OK(stead_lock(judged, STEAD_SHARED, SOON_MS)); /* accepted */
    OK(stead_unlock(judged));
    stead_status status;
    OK(stead_stat(judged, &status));
    cr_assert(status.accepted_unclean);
    OK(stead_close(judged));
}
