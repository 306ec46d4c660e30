/* stead_open and stead_close: what is there in the next session, who may open, what any bytes do. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/support.h"

TestSuite(open, .init = support_setup, .fini = support_teardown, .timeout = 300);

struct node {
    struct node *next;
    uint64_t value;
};

static void build_list(stead *s, unsigned count)
{
    struct node *head = stead_root(s);
    for (unsigned i = 0; i < count; i++) {
        struct node *node = stead_new(s, struct node);
        cr_assert(node != NULL, "%s", stead_last_error_text());
        node->value = i;
        node->next = head;
        head = node;
    }
    OK(stead_set_root(s, head));
}

static unsigned list_length(const stead *s)
{
    unsigned n = 0;
    for (const struct node *node = stead_root(s); node != NULL; node = node->next)
        n++;
    return n;
}

static const stead_sharing modes[] = {STEAD_SOLE, STEAD_LIVE};

Test(open, pointers_are_valid_in_the_next_session_in_every_mode)
{
    for (unsigned i = 0; i < 2; i++) {
        stead *s;
        stead_options o = {.sharing = modes[i]};
        const char *path = path_in(i == 0 ? "sole" : "live");
        OK(stead_open(&s, path, &o));
        build_list(s, 1000);
        void *root = stead_root(s);
        OK(stead_close(s));
        cr_assert_eq(access(path_in(i == 0 ? "sole-wal" : "live-wal"), F_OK), -1, "the log is gone after close");
        OK(stead_open(&s, path, &o));
        cr_assert_eq(stead_root(s), root);
        cr_assert_eq(list_length(s), 1000);
        OK(stead_check(s, NULL));
        OK(stead_close(s));
    }
}

Test(open, a_store_closed_in_one_mode_opens_in_another)
{
    stead *s;
    static const stead_sharing order[] = {STEAD_SOLE, STEAD_LIVE,  STEAD_TURNS, STEAD_LIVE,
                                          STEAD_SOLE, STEAD_TURNS, STEAD_SOLE};
    for (unsigned i = 0; i < sizeof order / sizeof order[0]; i++) {
        OK(stead_open(&s, path_in("s"), &(stead_options){.sharing = order[i]}));
        cr_assert_eq(list_length(s), i * 10);
        if (order[i] == STEAD_TURNS)
            OK(stead_lock(s, STEAD_EXCLUSIVE, 0));
        build_list(s, 10);
        if (order[i] == STEAD_TURNS)
            OK(stead_unlock(s));
        OK(stead_check(s, NULL));
        OK(stead_close(s));
    }
}

Test(open, a_new_store_is_a_small_file_and_capacity_costs_nothing)
{
    stead *s;
    OK(stead_open(&s, path_in("small"), &(stead_options){.capacity_bytes = (size_t)1 << 30}));
    OK(stead_close(s));
    cr_assert_leq(file_bytes_of(path_in("small")), 512u << 10);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    OK(stead_open(&s, path_in("large"), &(stead_options){.capacity_bytes = (size_t)1 << 40}));
    stead_status status;
    OK(stead_stat(s, &status));
    cr_assert_eq(status.capacity_bytes, (uint64_t)1 << 40);
    OK(stead_close(s));
    cr_assert_leq(file_bytes_of(path_in("large")), 512u << 10);
#endif
}

Test(open, flags_mean_what_they_say)
{
    stead *s = (stead *)1;
    FAILS(stead_open(&s, path_in("s"), &(stead_options){.flags = STEAD_EXISTING}), ENOENT);
    cr_assert_null(s, "NULL on failure");
    FAILS(stead_open(&s, path_in("s"), &(stead_options){.flags = STEAD_READ_ONLY}), ENOENT);
    OK(stead_open(&s, path_in("s"), &(stead_options){.flags = STEAD_NEW}));
    OK(stead_close(s));
    FAILS(stead_open(&s, path_in("s"), &(stead_options){.flags = STEAD_NEW}), EEXIST);
    FAILS(stead_open(&s, path_in("s"), &(stead_options){.flags = STEAD_ANY_ADDRESS}), EINVAL);
    FAILS(stead_open(&s, path_in("s"), &(stead_options){.flags = STEAD_NEW | STEAD_EXISTING}), EINVAL);
    FAILS(stead_open(&s, path_in("s"), &(stead_options){.flags = 1u << 20}), EINVAL);
    FAILS(stead_open(&s, "shm:x", &(stead_options){.sharing = STEAD_SOLE}), EINVAL);
    FAILS(stead_open(&s, path_in("no/such/folder"), NULL), ENOENT);
    cr_assert(strstr(stead_last_error_text(), "no") != NULL, "a sentence that names the file: %s",
              stead_last_error_text());
}

Test(open, permissions_are_those_asked_for)
{
    stead *s;
    struct stat st;
    umask(0);
    OK(stead_open(&s, path_in("default"), NULL));
    OK(stead_close(s));
    cr_assert(stat(path_in("default"), &st) == 0 && (st.st_mode & 07777) == 0600);
    OK(stead_open(&s, path_in("group"), &(stead_options){.permissions = 0660}));
    OK(stead_close(s));
    cr_assert(stat(path_in("group"), &st) == 0 && (st.st_mode & 07777) == 0660);
}

Test(open, the_same_file_twice_in_one_process_is_one_store)
{
    stead *a, *b;
    OK(stead_open(&a, path_in("s"), NULL));
    cr_assert(symlink("s", path_in("link")) == 0);
    OK(stead_open(&b, path_in("link"), NULL));
    uint64_t *p = stead_malloc(a, 8);
    *p = 7;
    OK(stead_set_root(b, p));
    cr_assert_eq(stead_root(a), (void *)p);
    FAILS(stead_open(&(stead *){NULL}, path_in("s"), &(stead_options){.sharing = STEAD_LIVE}), EBUSY);
    FAILS(stead_open(&(stead *){NULL}, path_in("s"), &(stead_options){.flags = STEAD_READ_ONLY}), EBUSY);
    FAILS(stead_open(&(stead *){NULL}, path_in("s"), &(stead_options){.max_private_bytes = 1 << 20}), EBUSY);
    FAILS(stead_open(&(stead *){NULL}, path_in("s"), &(stead_options){.capacity_bytes = (size_t)1 << 40}), EBUSY);
    OK(stead_close(a));
    cr_assert_eq(*(uint64_t *)stead_root(b), 7, "the other handle works on");
    OK(stead_close(b));
    OK(stead_open(&a, path_in("s"), NULL));
    cr_assert_eq(*(uint64_t *)stead_root(a), 7);
    OK(stead_close(a));
}

Test(open, several_stores_in_one_process)
{
    enum { COUNT = 8 };
    stead *s[COUNT];
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < COUNT; i++) {
            char name[16];
            snprintf(name, sizeof name, "s%u", i);
            OK(stead_open(&s[i], path_in(name), &(stead_options){.capacity_bytes = (size_t)1 << 30}));
            cr_assert_eq(list_length(s[i]), round * (i + 1));
            build_list(s[i], i + 1);
            cr_assert_eq(stead_of(stead_root(s[i])), s[i]);
        }
        for (unsigned i = 0; i < COUNT; i++)
            OK(stead_close(s[i]));
    }
}

Test(open, an_address_in_use_is_named)
{
    stead *s;
    stead_status status;
    OK(stead_open(&s, path_in("s"), &(stead_options){.capacity_bytes = 1u << 26}));
    OK(stead_stat(s, &status));
    OK(stead_close(s));
    void *there = mmap(status.base, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    cr_assert_eq(there, status.base);
    FAILS(stead_open(&s, path_in("s"), NULL), STEAD_ADDRESS_TAKEN);
    char text[40];
    snprintf(text, sizeof text, "%llx", (unsigned long long)(uintptr_t)there);
    cr_assert(strstr(stead_last_error_text(), text) != NULL, "names the mapping: %s", stead_last_error_text());
    OK(stead_open(&s, path_in("s"), &(stead_options){.flags = STEAD_READ_ONLY | STEAD_ANY_ADDRESS}));
    OK(stead_stat(s, &status));
    cr_assert_neq(status.base, there);
    OK(stead_close(s));
    munmap(there, 4096);
    OK(stead_open(&s, path_in("s"), NULL));
    OK(stead_close(s));
}

Test(open, the_address_asked_for_is_where_it_lives)
{
    stead *s;
    stead_status status;
    OK(stead_open(&s, path_in("a"), &(stead_options){.capacity_bytes = 1u << 26}));
    OK(stead_stat(s, &status));
    OK(stead_close(s));
    void *wanted = (char *)status.base + ((size_t)1 << 24);
    OK(stead_open(&s, path_in("b"), &(stead_options){.capacity_bytes = 1u << 26, .address = wanted}));
    OK(stead_stat(s, &status));
    cr_assert_eq(status.base, wanted);
    OK(stead_close(s));
    FAILS(stead_open(&s, path_in("c"), &(stead_options){.address = (char *)wanted + 4096}), EINVAL);
}

Test(open, capacity_is_raised_by_a_later_open_and_only_alone)
{
    stead *s;
    stead_status status;
    OK(stead_open(&s, path_in("s"), &(stead_options){.capacity_bytes = 1u << 20}));
    cr_assert_null(stead_malloc(s, 2u << 20));
    cr_assert_eq(errno, ENOMEM);
    OK(stead_close(s));
    OK(stead_open(&s, path_in("s"), &(stead_options){.capacity_bytes = 64u << 20}));
    OK(stead_stat(s, &status));
    cr_assert_eq(status.capacity_bytes, 64u << 20);
    void *block = stead_malloc(s, 2u << 20);
    cr_assert_not_null(block);
    OK(stead_set_root(s, block));
    OK(stead_close(s));
    OK(stead_open(&s, path_in("s"), NULL));
    cr_assert_eq(stead_root(s), block);
    OK(stead_check(s, NULL));
    OK(stead_close(s));
}

Test(open, a_writer_is_refused_a_file_with_several_links)
{
    stead *s;
    OK(stead_open(&s, path_in("s"), NULL));
    OK(stead_close(s));
    cr_assert(link(path_in("s"), path_in("t")) == 0);
    FAILS(stead_open(&s, path_in("s"), NULL), EMLINK);
    OK(stead_open(&s, path_in("t"), &(stead_options){.flags = STEAD_READ_ONLY}));
    OK(stead_close(s));
}

/* ---- other processes */

struct shared_open {
    const char *path;
    volatile uint32_t *words;
    stead_options options;
    int expected;
};

static void open_expecting(void *arg)
{
    struct shared_open *a = arg;
    stead *s;
    int rc = stead_open(&s, a->path, &a->options);
    CHILD(rc == a->expected);
    if (rc == 0)
        CHILD(stead_close(s) == 0);
}

Test(open, a_sole_store_is_busy_for_other_writers_and_open_to_readers)
{
    stead *s;
    OK(stead_open(&s, path_in("s"), NULL));
    build_list(s, 3);
    OK(stead_commit(s, STEAD_DURABLE));
    struct shared_open a = {.path = path_in("s"), .expected = EBUSY};
    REAP_OK(spawn(open_expecting, &a));
    a.options.timeout_ms = 100;
    a.expected = ETIMEDOUT;
    REAP_OK(spawn(open_expecting, &a));
    a = (struct shared_open){
        .path = path_in("s"), .options = {.sharing = STEAD_LIVE}, .expected = STEAD_SHARING_MISMATCH};
    REAP_OK(spawn(open_expecting, &a));
    a.options.sharing = STEAD_TURNS;
    REAP_OK(spawn(open_expecting, &a));
    a = (struct shared_open){.path = path_in("s"), .options = {.flags = STEAD_READ_ONLY}, .expected = 0};
    REAP_OK(spawn(open_expecting, &a));
    OK(stead_close(s));
    a = (struct shared_open){.path = path_in("s"), .expected = 0};
    REAP_OK(spawn(open_expecting, &a));
}

static void close_after_a_while(void *arg)
{
    struct shared_open *a = arg;
    stead *s;
    CHILD(stead_open(&s, a->path, NULL) == 0);
    a->words[0] = 1;
    pause_ms(200);
    CHILD(stead_close(s) == 0);
}

Test(open, an_opener_with_a_timeout_waits_for_the_close)
{
    stead *s;
    struct shared_open a = {.path = path_in("s"), .words = shared_words(1)};
    pid_t pid = spawn(close_after_a_while, &a);
    cr_assert(await(a.words, 1));
    OK(stead_open(&s, path_in("s"), &(stead_options){.timeout_ms = SOON_MS}));
    OK(stead_close(s));
    REAP_OK(pid);
}

static void init_once(void *root, void *arg)
{
    volatile uint32_t *words = arg;
    __atomic_fetch_add(words + 1, 1, __ATOMIC_SEQ_CST);
    *(uint64_t *)root = 42;
}

static void race_to_create(void *arg)
{
    struct shared_open *a = arg;
    stead *s;
    void *root;
    while (a->words[0] == 0)
        continue;
    CHILD(stead_open(&s, a->path, &a->options) == 0);
    CHILD(stead_root_once(s, 64, init_once, (void *)(uintptr_t)a->words, &root) == 0);
    CHILD(*(uint64_t *)root == 42);
    CHILD(stead_close(s) == 0);
}

Test(open, racing_creators_make_one_store_and_init_runs_once)
{
    for (unsigned mode = 0; mode < 3; mode++) {
        for (unsigned round = 0; round < (test_long() ? 200u : 8u); round++) {
            struct shared_open a = {.path = path_in("race"),
                                    .words = shared_words(2),
                                    .options = {.sharing = (stead_sharing)mode, .timeout_ms = SOON_MS}};
            pid_t pids[4];
            for (unsigned i = 0; i < 4; i++)
                pids[i] = spawn(race_to_create, &a);
            a.words[0] = 1;
            for (unsigned i = 0; i < 4; i++)
                REAP_OK(pids[i]);
            cr_assert_eq(a.words[1], 1, "init ran %u times", a.words[1]);
            stead *s;
            OK(stead_open(&s, path_in("race"), NULL));
            OK(stead_check(s, NULL));
            OK(stead_close(s));
            OK(stead_remove(path_in("race")));
        }
    }
}

static void create_and_spin(void *arg)
{
    stead *s;
    if (stead_open(&s, arg, NULL) == 0)
        pause();
    _exit(1);
}

Test(open, a_creator_killed_at_any_instant_leaves_nothing_in_the_way)
{
    srand((unsigned)test_seed());
    for (unsigned i = 0; i < (test_long() ? 500u : 30u); i++) {
        char path[512];
        snprintf(path, sizeof path, "%s", path_in("s"));
        pid_t pid = spawn(create_and_spin, path);
        usleep((useconds_t)(rand() % 4000));
        kill(pid, SIGKILL);
        reap(pid);
        stead *s;
        OK(stead_open(&s, path, NULL));
        OK(stead_check(s, NULL));
        OK(stead_close(s));
        OK(stead_remove(path));
        cr_assert_eq(access(path_in("s-wal"), F_OK), -1);
    }
}

Test(open, a_removed_store_works_on_and_a_new_one_takes_its_name)
{
    stead *old, *fresh;
    OK(stead_open(&old, path_in("s"), NULL));
    build_list(old, 5);
    OK(stead_commit(old, STEAD_DURABLE));
    OK(stead_remove(path_in("s")));
    OK(stead_open(&fresh, path_in("s"), NULL));
    cr_assert_null(stead_root(fresh));
    build_list(fresh, 2);
    OK(stead_commit(fresh, STEAD_DURABLE));
    cr_assert_eq(list_length(old), 5);
    build_list(old, 1);
    OK(stead_close(old));
    OK(stead_close(fresh));
    OK(stead_open(&fresh, path_in("s"), NULL));
    cr_assert_eq(list_length(fresh), 2);
    OK(stead_close(fresh));
    FAILS(stead_remove(path_in("never")), ENOENT);
}

/* ---- any bytes */

static void try_open(const char *path)
{
    stead *s;
    stead_report report;
    for (unsigned flags = 0; flags <= STEAD_READ_ONLY; flags++) {
        int rc = stead_open(&s, path, &(stead_options){.flags = flags | STEAD_EXISTING});
        if (rc != 0)
            continue;
        (void)stead_check(s, &report);
        (void)stead_root(s);
        stead_abandon(s);
    }
}

Test(open, any_bytes_are_an_error_and_not_a_crash)
{
    static uint8_t bytes[1 << 20];
    stead *s;
    srand((unsigned)test_seed());
    static const size_t sizes[] = {0, 1, 4095, 4096, 65535, 65536, 131072, 196608, 262144, 1 << 20};
    for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        memset(bytes, 0, sizeof bytes);
        write_file(path_in("zero"), bytes, sizes[i]);
        FAILS(stead_open(&s, path_in("zero"), NULL), STEAD_NOT_A_STORE);
        for (size_t at = 0; at < sizeof bytes; at++)
            bytes[at] = (uint8_t)rand();
        write_file(path_in("noise"), bytes, sizes[i]);
        FAILS(stead_open(&s, path_in("noise"), NULL), STEAD_NOT_A_STORE);
        FAILS(stead_open(&s, path_in("noise"), &(stead_options){.flags = STEAD_READ_ONLY}), STEAD_NOT_A_STORE);
    }
    cr_assert(mkdir(path_in("folder"), 0700) == 0);
    cr_assert_neq(stead_open(&s, path_in("folder"), NULL), 0);
    cr_assert_neq(stead_open(&s, "/dev/null", NULL), 0);
}

Test(open, truncated_anywhere_is_an_error_and_not_a_crash)
{
    stead *s;
    OK(stead_open(&s, path_in("whole"), &(stead_options){.capacity_bytes = 1u << 26}));
    build_list(s, 5000);
    OK(stead_close(s));
    uint64_t whole = file_bytes_of(path_in("whole"));
    for (uint64_t cut = 0; cut < whole; cut += cut < 8192 ? 512 : 16384) {
        copy_file(path_in("whole"), path_in("cut"));
        cr_assert(truncate(path_in("cut"), (off_t)cut) == 0);
        cr_assert_neq(stead_open(&s, path_in("cut"), NULL), 0, "cut at %llu", (unsigned long long)cut);
        try_open(path_in("cut"));
    }
}

Test(open, every_header_byte_flipped_is_survived)
{
    stead *s;
    OK(stead_open(&s, path_in("whole"), &(stead_options){.capacity_bytes = 1u << 26}));
    build_list(s, 100);
    OK(stead_close(s));
    copy_file(path_in("whole"), path_in("flip"));
    int fd = open(path_in("flip"), O_RDWR);
    for (unsigned copies = 1; copies <= 2; copies++) {
        for (off_t at = 0; at < 4096; at += at < 260 ? 1 : 61) {
            uint8_t byte, wrong;
            for (unsigned i = 0; i < copies; i++) {
                off_t where = at + (off_t)i * 65536;
                cr_assert(pread(fd, &byte, 1, where) == 1);
                wrong = byte ^ 0x40;
                cr_assert(pwrite(fd, &wrong, 1, where) == 1);
            }
            int rc = stead_open(&s, path_in("flip"), &(stead_options){.flags = STEAD_READ_ONLY | STEAD_EXISTING});
            if (copies == 2)
                cr_assert_neq(rc, 0, "both copies damaged at %ld and still opened", (long)at);
            if (rc == 0) {
                cr_assert_eq(list_length(s), 100);
                FAILS(stead_check(s, NULL), STEAD_CORRUPT);
                OK(stead_close(s));
            }
            for (unsigned i = 0; i < copies; i++)
                cr_assert(pwrite(fd, &byte, 1, at + (off_t)i * 65536) == 1);
        }
    }
    close(fd);
}

Test(open, random_damage_is_found_or_harmless_but_never_a_crash)
{
    stead *s;
    srand((unsigned)test_seed());
    OK(stead_open(&s, path_in("whole"), &(stead_options){.capacity_bytes = 1u << 26}));
    build_list(s, 2000);
    OK(stead_bind(s, "a name", stead_root(s)));
    OK(stead_close(s));
    uint64_t whole = file_bytes_of(path_in("whole"));
    for (unsigned round = 0; round < (test_long() ? 2000u : 60u); round++) {
        copy_file(path_in("whole"), path_in("hurt"));
        int fd = open(path_in("hurt"), O_RDWR);
        for (unsigned i = 0; i < 1 + round % 16; i++) {
            uint64_t noise = (uint64_t)rand() << 32 ^ (uint64_t)rand();
            off_t at = (off_t)(((uint64_t)rand() << 16 ^ (uint64_t)rand()) % (whole - 8));
            cr_assert(pwrite(fd, &noise, 8, at) == 8);
        }
        close(fd);
        pid_t pid = fork();
        if (pid == 0) {
            if (stead_open(&s, path_in("hurt"), NULL) != 0)
                _exit(0);
            stead_report report;
            (void)stead_check(s, &report);
            for (unsigned i = 0; i < 200; i++)
                stead_free(i % 2 == 0 ? stead_malloc(s, i * 37) : stead_calloc(s, i, 3));
            (void)stead_lookup(s, "a name");
            stead_abandon(s);
            _exit(0);
        }
        cr_assert_eq(reap(pid), 0, "round %u", round);
    }
}

Test(open, reading_alone_changes_no_byte)
{
    stead *s;
    OK(stead_open(&s, path_in("s"), NULL));
    build_list(s, 50);
    OK(stead_close(s));
    copy_file(path_in("s"), path_in("before"));
    OK(stead_open(&s, path_in("s"), &(stead_options){.flags = STEAD_READ_ONLY}));
    OK(stead_lock(s, STEAD_SHARED, 0));
    cr_assert_eq(list_length(s), 50);
    OK(stead_unlock(s));
    OK(stead_check(s, NULL));
    OK(stead_close(s));
    char command[1200];
    snprintf(command, sizeof command, "cmp -s '%s' '%s'", path_in("s"), path_in("before"));
    cr_assert_eq(system(command), 0);
}

Test(open, a_reader_cannot_write)
{
    stead *s;
    OK(stead_open(&s, path_in("s"), NULL));
    build_list(s, 1);
    OK(stead_close(s));
    OK(stead_open(&s, path_in("s"), &(stead_options){.flags = STEAD_READ_ONLY}));
    cr_assert_null(stead_malloc(s, 8));
    cr_assert_eq(errno, EPERM);
    FAILS(stead_set_root(s, NULL), EPERM);
    FAILS(stead_bind(s, "x", stead_root(s)), EPERM);
    FAILS(stead_commit(s, STEAD_DURABLE), EPERM);
    FAILS(stead_lock(s, STEAD_EXCLUSIVE, 0), EPERM);
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGSEGV, SIG_DFL);
        OK(stead_open(&s, path_in("s"), &(stead_options){.flags = STEAD_READ_ONLY}));
        ((volatile struct node *)stead_root(s))->value = 1;
        _exit(0);
    }
    int code = reap(pid);
    cr_assert(code != 0, "the write must fault");
    OK(stead_close(s));
}

Test(open, sections_in_memory_live_until_removed)
{
    char name[64];
    stead *s;
    snprintf(name, sizeof name, "shm:stead-test-%d", (int)getpid());
    OK(stead_open(&s, name, &(stead_options){.sharing = STEAD_LIVE, .capacity_bytes = 1u << 26}));
    build_list(s, 10);
    OK(stead_commit(s, STEAD_DURABLE));
    OK(stead_close(s));
    OK(stead_open(&s, name, &(stead_options){.sharing = STEAD_LIVE}));
    cr_assert_eq(list_length(s), 10);
    OK(stead_check(s, NULL));
    OK(stead_close(s));
    OK(stead_remove(name));
    FAILS(stead_open(&s, name, &(stead_options){.sharing = STEAD_LIVE, .flags = STEAD_EXISTING}), ENOENT);
}

Test(open, small_address_space_is_enough_for_a_small_capacity)
{
    pid_t pid = fork();
    if (pid == 0) {
        stead *s;
        CHILD(stead_open(&s, path_in("s"), &(stead_options){.capacity_bytes = 1u << 24}) == 0);
        CHILD(stead_malloc(s, 1000) != NULL);
        CHILD(stead_close(s) == 0);
        _exit(0);
    }
    REAP_OK(pid);
}
