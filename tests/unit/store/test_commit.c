/* SOLE: commit, rollback, what a kill leaves, what readers see. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "persist/superblock.h"
#include "support/support.h"

TestSuite(commit, .init = support_setup, .fini = support_teardown, .timeout = 300);

static uint64_t *numbers(stead *s, unsigned count)
{
    uint64_t *a = stead_root(s);
    if (a == NULL) {
        a = stead_calloc(s, count, sizeof *a);
        cr_assert_not_null(a);
        OK(stead_set_root(s, a));
    }
    return a;
}

Test(commit, rollback_returns_to_the_last_commit)
{
    stead *s;
    stead_status before, after;
    OK(stead_open(&s, path_in("s"), NULL));
    uint64_t *a = numbers(s, 10000);
    for (unsigned i = 0; i < 10000; i++)
        a[i] = i;
    OK(stead_commit(s, STEAD_BUFFERED));
    OK(stead_stat(s, &before));
    for (unsigned round = 0; round < 5; round++) {
        for (unsigned i = 0; i < 10000; i += 7)
            a[i] = 1;
        for (unsigned i = 0; i < 100; i++)
            cr_assert_not_null(stead_malloc(s, 1000 + i * 100));
        OK(stead_set_root(s, NULL));
        OK(stead_bind(s, "late", a));
        OK(stead_rollback(s));
        cr_assert_eq(stead_root(s), (void *)a);
        cr_assert_null(stead_lookup(s, "late"));
        for (unsigned i = 0; i < 10000; i++)
            cr_assert_eq(a[i], i);
        OK(stead_stat(s, &after));
        cr_assert_eq(after.live_blocks, before.live_blocks);
        cr_assert_eq(after.live_bytes, before.live_bytes);
        OK(stead_check(s, NULL));
    }
    OK(stead_close(s));
    OK(stead_open(&s, path_in("s"), NULL));
    cr_assert_eq(numbers(s, 0)[9999], 9999);
    OK(stead_close(s));
}

Test(commit, abandon_leaves_the_last_commit)
{
    stead *s;
    OK(stead_open(&s, path_in("s"), NULL));
    uint64_t *a = numbers(s, 10);
    a[0] = 1;
    OK(stead_commit(s, STEAD_DURABLE));
    a[0] = 2;
    stead_abandon(s);
    stead_status status;
    OK(stead_open(&s, path_in("s"), NULL));
    cr_assert_eq(numbers(s, 0)[0], 1);
    OK(stead_stat(s, &status));
    cr_assert(status.recovered);
    OK(stead_close(s));
}

Test(commit, an_empty_commit_is_no_commit)
{
    stead *s;
    stead_status a, b;
    OK(stead_open(&s, path_in("s"), NULL));
    numbers(s, 10)[3] = 4;
    OK(stead_commit(s, STEAD_DURABLE));
    OK(stead_stat(s, &a));
    OK(stead_commit(s, STEAD_DURABLE));
    OK(stead_commit(s, STEAD_BUFFERED));
    OK(stead_stat(s, &b));
    cr_assert_eq(a.commit_seq, b.commit_seq);
    OK(stead_close(s));
}

struct killed {
    const char *path;
    volatile uint32_t *words;
    stead_durability durability;
};

static void commit_for_ever(void *arg)
{
    struct killed *k = arg;
    stead *s;
    CHILD(stead_open(&s, k->path, NULL) == 0);
    uint64_t *a = stead_root(s);
    for (uint32_t n = (uint32_t)a[0] + 1;; n++) {
        for (unsigned i = 0; i < 4096; i += 1 + n % 600)
            a[i] = n;
        for (unsigned i = 1; i < 4096; i++)
            if (a[i] != n && i % (1 + n % 600) == 0)
                _exit(9);
        a[0] = n;
        a[4095] = n;
        void *block = stead_malloc(s, n % 5000);
        CHILD(block != NULL);
        if (n % 3 == 0)
            stead_free(block);
        CHILD(stead_commit(s, k->durability) == 0);
        k->words[0] = n;
    }
}

Test(commit, a_kill_leaves_exactly_the_last_commit)
{
    srand((unsigned)test_seed());
    stead *s;
    OK(stead_open(&s, path_in("s"), NULL));
    numbers(s, 4096);
    OK(stead_close(s));
    struct killed k = {.path = path_in("s"), .words = shared_words(1)};
    for (unsigned round = 0; round < (test_long() ? 400u : 25u); round++) {
        k.durability = round % 2 == 0 ? STEAD_BUFFERED : STEAD_DURABLE;
        uint32_t before = k.words[0];
        pid_t pid = spawn(commit_for_ever, &k);
        usleep(2000 + (useconds_t)(rand() % 20000));
        kill(pid, SIGKILL);
        cr_assert_eq(reap(pid), 128 + SIGKILL);
        OK(stead_open(&s, path_in("s"), NULL));
        uint64_t *a = stead_root(s);
        cr_assert(a[0] == k.words[0] || a[0] == k.words[0] + 1u, "acknowledged %u, found %llu", k.words[0],
                  (unsigned long long)a[0]);
        cr_assert_eq(a[0], a[4095], "never a mix");
        cr_assert_geq(a[0], before);
        k.words[0] = (uint32_t)a[0];
        OK(stead_check(s, NULL));
        OK(stead_close(s));
    }
}

Test(commit, the_kernels_own_writes_into_the_heap_count)
{
    stead *s;
    OK(stead_open(&s, path_in("s"), NULL));
    char *a = stead_calloc(s, 4, 65536);
    OK(stead_set_root(s, a));
    OK(stead_commit(s, STEAD_BUFFERED));
    write_file(path_in("source"), "from a file", 12);
    int fd = open(path_in("source"), O_RDONLY), pair[2];
    cr_assert(read(fd, a, 12) == 12);
    cr_assert(pread(fd, a + 65536, 12, 0) == 12);
    cr_assert(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    cr_assert(send(pair[0], "from a socket", 14, 0) == 14);
    cr_assert(recv(pair[1], a + 2 * 65536, 14, 0) == 14);
    OK(stead_commit(s, STEAD_BUFFERED));
    /* again into the same pages: they are private already */
    cr_assert(pread(fd, a + 100, 12, 0) == 12);
    OK(stead_commit(s, STEAD_BUFFERED));
    stead_abandon(s);
    OK(stead_open(&s, path_in("s"), NULL));
    a = stead_root(s);
    cr_assert_str_eq(a, "from a file");
    cr_assert_str_eq(a + 100, "from a file");
    cr_assert_str_eq(a + 65536, "from a file");
    cr_assert_str_eq(a + 2 * 65536, "from a socket");
    OK(stead_close(s));
}

/* ---- readers */

static void reader_checks(void *arg)
{
    struct killed *k = arg;
    stead *s;
    CHILD(stead_open(&s, k->path, &(stead_options){.flags = STEAD_READ_ONLY, .timeout_ms = SOON_MS}) == 0);
    uint64_t last = 0;
    k->words[1] = 1;
    bool done = false; /* as it was before the section that is looked at: that one sees the last commit */
    for (unsigned sections = 0; !done || sections < 50; sections++) {
        done = k->words[2] != 0;
        CHILD(stead_lock(s, STEAD_SHARED, SOON_MS) == 0);
        const uint64_t *a = stead_root(s);
        CHILD(a != NULL);
        uint64_t first = a[0];
        for (unsigned i = 0; i < 4096; i += 64)
            CHILD(a[i] == first);
        CHILD(first >= last);
        last = first;
        CHILD(stead_unlock(s) == 0);
    }
    CHILD(last > 1);
    CHILD(stead_close(s) == 0);
}

Test(commit, a_reader_in_its_section_sees_exactly_one_commit)
{
    stead *s;
    OK(stead_open(&s, path_in("s"), NULL));
    uint64_t *a = numbers(s, 4096);
    OK(stead_commit(s, STEAD_DURABLE));
    struct killed k = {.path = path_in("s"), .words = shared_words(3)};
    pid_t pid = spawn(reader_checks, &k);
    cr_assert(await(k.words + 1, 1));
    for (uint64_t n = 1; n <= 300; n++) {
        for (unsigned i = 0; i < 4096; i++)
            a[i] = n;
        OK(stead_commit(s, STEAD_DURABLE));
    }
    k.words[2] = 1;
    REAP_OK(pid);
    OK(stead_close(s));
}

static void wait_for_change(void *arg)
{
    struct killed *k = arg;
    stead *s;
    stead_status status;
    CHILD(stead_open(&s, k->path, &(stead_options){.flags = STEAD_READ_ONLY}) == 0);
    CHILD(stead_stat(s, &status) == 0);
    CHILD(stead_wait_change(s, status.commit_seq, 0) == EBUSY);
    CHILD(stead_wait_change(s, status.commit_seq, 50) == ETIMEDOUT);
    k->words[1] = 1;
    CHILD(stead_wait_change(s, status.commit_seq, SOON_MS) == 0);
    CHILD(stead_lock(s, STEAD_SHARED, SOON_MS) == 0);
    CHILD(*(uint64_t *)stead_root(s) == 77);
    CHILD(stead_unlock(s) == 0);
    CHILD(stead_close(s) == 0);
}

Test(commit, a_reader_sleeps_until_somebody_committed)
{
    stead *s;
    OK(stead_open(&s, path_in("s"), NULL));
    uint64_t *a = numbers(s, 10);
    OK(stead_commit(s, STEAD_DURABLE));
    struct killed k = {.path = path_in("s"), .words = shared_words(2)};
    pid_t pid = spawn(wait_for_change, &k);
    cr_assert(await(k.words + 1, 1));
    pause_ms(20);
    a[0] = 77;
    OK(stead_commit(s, STEAD_DURABLE));
    REAP_OK(pid);
    OK(stead_close(s));
}

Test(commit, a_crashed_store_on_read_only_media_is_read_through_a_private_replay)
{
    stead *s;
    OK(stead_open(&s, path_in("s"), NULL));
    numbers(s, 100)[5] = 55;
    OK(stead_commit(s, STEAD_BUFFERED));
    stead_abandon(s);
    copy_file(path_in("s"), path_in("copy"));
    copy_file(path_in("s-wal"), path_in("copy-wal"));
    OK(stead_open(&s, path_in("s"), &(stead_options){.flags = STEAD_READ_ONLY}));
    cr_assert_eq(((uint64_t *)stead_root(s))[5], 55);
    OK(stead_close(s));
    char command[2600];
    snprintf(command, sizeof command, "cmp -s '%s' '%s' && cmp -s '%s' '%s'", path_in("s"), path_in("copy"),
             path_in("s-wal"), path_in("copy-wal"));
    cr_assert_eq(system(command), 0, "a private replay writes nothing");
    OK(stead_open(&s, path_in("s"), NULL));
    cr_assert_eq(((uint64_t *)stead_root(s))[5], 55);
    OK(stead_close(s));
}

Test(commit, an_open_store_without_its_log_is_never_taken_for_clean)
{
    stead *s;
    OK(stead_open(&s, path_in("s"), NULL));
    numbers(s, 100)[5] = 55;
    OK(stead_commit(s, STEAD_DURABLE));
    copy_file(path_in("s"), path_in("alone"));
    FAILS(stead_open(&(stead *){NULL}, path_in("alone"), NULL), STEAD_LOG_MISSING);
    OK(stead_close(s));
}

/* ---- threads */

struct committers {
    stead *s;
    uint64_t *a;
    unsigned id;
};

static void *commit_own_slot(void *arg)
{
    struct committers *c = arg;
    for (unsigned i = 0; i < 50; i++) {
        if (stead_lock(c->s, STEAD_EXCLUSIVE, -1) != 0)
            return (void *)1;
        c->a[c->id]++;
        if (stead_unlock(c->s) != 0 || stead_commit(c->s, STEAD_DURABLE) != 0)
            return (void *)1;
    }
    return NULL;
}

Test(commit, threads_commit_at_once)
{
    enum { THREADS = 4 };
    stead *s;
    pthread_t threads[THREADS];
    struct committers c[THREADS];
    OK(stead_open(&s, path_in("s"), NULL));
    uint64_t *a = numbers(s, 100);
    for (unsigned i = 0; i < THREADS; i++) {
        c[i] = (struct committers){s, a, i};
        pthread_create(&threads[i], NULL, commit_own_slot, &c[i]);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        void *result;
        pthread_join(threads[i], &result);
        cr_assert_null(result);
    }
    stead_abandon(s);
    OK(stead_open(&s, path_in("s"), NULL));
    for (unsigned i = 0; i < THREADS; i++)
        cr_assert_eq(numbers(s, 0)[i], 50);
    OK(stead_close(s));
}

static void *die_holding(void *arg)
{
    struct committers *c = arg;
    if (stead_lock(c->s, STEAD_EXCLUSIVE, -1) == 0)
        c->a[0] = 666;
    return NULL;
}

Test(commit, a_thread_that_ends_in_its_section_is_rolled_back)
{
    stead *s;
    pthread_t thread;
    OK(stead_open(&s, path_in("s"), NULL));
    uint64_t *a = numbers(s, 100);
    a[0] = 1;
    OK(stead_commit(s, STEAD_BUFFERED));
    struct committers c = {s, a, 0};
    pthread_create(&thread, NULL, die_holding, &c);
    pthread_join(thread, NULL);
    OK(stead_lock(s, STEAD_EXCLUSIVE, SOON_MS));
    cr_assert_eq(a[0], 1);
    OK(stead_unlock(s));
    OK(stead_close(s));
}

static void *die_inside_live(void *arg)
{
    OK(stead_lock(arg, STEAD_EXCLUSIVE, -1));
    *(volatile uint64_t *)stead_root(arg) = 7;
    return NULL;
}

static stead *with_a_dead_thread(const char *path)
{
    pthread_t thread;
    stead *s;
    OK(stead_open(&s, path, &(stead_options){.sharing = STEAD_LIVE, .flags = STEAD_ACCEPT_UNCLEAN}));
    void *root;
    OK(stead_root_once(s, 64, NULL, NULL, &root));
    cr_assert_eq(pthread_create(&thread, NULL, die_inside_live, s), 0);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    return s;
}

Test(commit, a_live_thread_that_dies_inside_leaves_the_store_unclean_until_repaired)
{
    const stead_options live = {.sharing = STEAD_LIVE};
    stead *again, *s = with_a_dead_thread(path_in("s"));
    OK(stead_close(s)); /* nobody asked */
    FAILS(stead_open(&again, path_in("s"), &live), STEAD_UNCLEAN);
    s = with_a_dead_thread(path_in("s"));
    cr_assert_eq(stead_lock(s, STEAD_EXCLUSIVE, 0), EOWNERDEAD);
    OK(stead_unlock(s)); /* not repaired: for good */
    FAILS(stead_lock(s, STEAD_EXCLUSIVE, 0), ENOTRECOVERABLE);
    OK(stead_close(s));
    FAILS(stead_open(&again, path_in("s"), &live), STEAD_UNCLEAN);
    s = with_a_dead_thread(path_in("s"));
    cr_assert_eq(stead_lock(s, STEAD_EXCLUSIVE, 0), EOWNERDEAD);
    OK(stead_make_consistent(s));
    OK(stead_unlock(s));
    OK(stead_close(s));
    OK(stead_open(&again, path_in("s"), &live));
    OK(stead_close(again));
}

struct live_committer {
    const char *path;
    unsigned durable;
};

static void commit_and_leave(void *arg)
{
    const struct live_committer *c = arg;
    stead *s;
    CHILD(stead_open(&s, c->path, &(stead_options){.sharing = STEAD_LIVE, .timeout_ms = SOON_MS}) == 0);
    for (unsigned i = 0; i < c->durable; i++)
        CHILD(stead_commit(s, STEAD_DURABLE) == 0);
    CHILD(stead_commit(s, STEAD_BUFFERED) == 0);
    CHILD(stead_close(s) == 0);
}

static uint64_t superblock_number(const char *path)
{
    struct superblock super;
    struct file file;
    OK(file_resolve(&file, path));
    OK(file_open(&file, false));
    OK(superblock_read(&file, &super));
    file_close(&file);
    return super.sequence;
}

/* For whoever looks at the file alone. */
Test(commit, a_sealed_superblock_has_the_root)
{
    for (unsigned sharing = 0; sharing < 3; sharing++) {
        struct superblock super;
        struct file file;
        stead_status status;
        void *root;
        stead *s;
        OK(stead_open(&s, path_in("s"), &(stead_options){.sharing = (stead_sharing)sharing}));
        OK(stead_root_once(s, 64, NULL, NULL, &root));
        OK(stead_stat(s, &status));
        uint64_t offset = (uint64_t)((char *)root - (char *)status.base);
        OK(stead_close(s));
        OK(file_resolve(&file, path_in("s")));
        OK(file_open(&file, false));
        OK(superblock_read(&file, &super));
        file_close(&file);
        cr_assert_eq(super.root, offset);
        OK(stead_remove(path_in("s")));
    }
}

static void change_nothing_but_memory(void *arg)
{
    stead *s;
    CHILD(stead_open(&s, arg, &(stead_options){.sharing = STEAD_TURNS, .timeout_ms = SOON_MS}) == 0);
    CHILD(stead_lock(s, STEAD_EXCLUSIVE, SOON_MS) == 0);
    ++*(int *)stead_root(s);
    CHILD(stead_unlock(s) == 0);
    stead_abandon(s);
}

Test(commit, tells_who_changed_the_store_last)
{
    stead *s;
    stead_status status;
    void *root;
    char path[600];
    snprintf(path, sizeof path, "%s", path_in("s"));
    OK(stead_open(&s, path, &(stead_options){.sharing = STEAD_TURNS}));
    OK(stead_root_once(s, 64, NULL, NULL, &root));
    OK(stead_stat(s, &status));
    cr_assert_eq(status.last_change_pid, getpid());
    pid_t pid = spawn(change_nothing_but_memory, path);
    REAP_OK(pid);
    OK(stead_stat(s, &status));
    cr_assert_eq(status.last_change_pid, pid);
    OK(stead_close(s));
}

/* Whoever writes the superblock of a LIVE store next, by a commit or by the last close, writes it over the newest one and with
 * the number of the last commit, whoever made those. */
Test(commit, a_live_superblock_follows_the_commits_of_others)
{
    const stead_options live = {.sharing = STEAD_LIVE, .timeout_ms = SOON_MS};
    for (unsigned i = 0; i < 8; i++) {
        struct live_committer other = {path_in("s"), i / 2};
        stead_status before, after;
        stead *s;
        OK(stead_open(&s, other.path, &live));
        OK(stead_commit(s, STEAD_DURABLE));
        OK(stead_stat(s, &before));
        REAP_OK(spawn(commit_and_leave, &other));
        uint64_t number = superblock_number(other.path);
        if (i % 2 != 0) {
            OK(stead_commit(s, STEAD_DURABLE));
            cr_assert_gt(superblock_number(other.path), number, "%u: the commit is older than another's", i);
        }
        OK(stead_stat(s, &after));
        cr_assert_eq(after.commit_seq, before.commit_seq + other.durable + 1 + i % 2);
        number = superblock_number(other.path);
        OK(stead_close(s));
        cr_assert_gt(superblock_number(other.path), number, "%u: the close is older than a commit", i);
        OK(stead_open(&s, other.path, &live)); /* sealed */
        OK(stead_stat(s, &before));
        cr_assert_eq(before.commit_seq, after.commit_seq, "%u: the close went back to another commit", i);
        OK(stead_close(s));
    }
}

Test(commit, growth_by_many_megabytes_commits_and_rolls_back)
{
    stead *s;
    stead_status status;
    OK(stead_open(&s, path_in("s"), NULL));
    char *kept = stead_malloc(s, 48u << 20);
    cr_assert_not_null(kept);
    memset(kept, 0x5a, 48u << 20);
    OK(stead_set_root(s, kept));
    OK(stead_commit(s, STEAD_DURABLE));
    char *lost = stead_malloc(s, 40u << 20);
    cr_assert_not_null(lost);
    memset(lost, 0x11, 40u << 20);
    OK(stead_rollback(s));
    OK(stead_check(s, NULL));
    char *again = stead_malloc(s, 40u << 20);
    cr_assert_not_null(again);
    stead_free(again);
    OK(stead_close(s));
    OK(stead_open(&s, path_in("s"), NULL));
    kept = stead_root(s);
    for (size_t i = 0; i < 48u << 20; i += 4095)
        cr_assert_eq(kept[i], 0x5a);
    stead_free(kept);
    OK(stead_set_root(s, NULL));
    OK(stead_close(s));
    OK(stead_open(&s, path_in("s"), NULL));
    OK(stead_stat(s, &status));
    cr_assert_leq(status.file_bytes, 2u << 20, "freed memory leaves the file: %llu bytes",
                  (unsigned long long)status.file_bytes);
    OK(stead_check(s, NULL));
    OK(stead_close(s));
}
