/* stead_malloc and its family, wrong pointers, what stat, check and backup tell. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/support.h"

TestSuite(memory, .init = support_setup, .fini = support_teardown, .timeout = 300);

static stead *open_store(const char *name)
{
    stead *s;
    OK(stead_open(&s, path_in(name), NULL));
    return s;
}

Test(memory, blocks_are_distinct_aligned_and_as_large_as_asked)
{
    stead *s = open_store("s");
    for (size_t size = 0; size < 200000; size = size * 5 / 4 + 1) {
        uint8_t *a = stead_malloc(s, size), *b = stead_calloc(s, 1, size);
        cr_assert(a != NULL && b != NULL && a != b);
        cr_assert_eq((uintptr_t)a % (size != 0 && (size % 16 == 0 || size > 64) ? 16 : 8), 0);
        cr_assert_geq(stead_usable_size(a), size);
        for (size_t i = 0; i < size; i++)
            cr_assert_eq(b[i], 0);
        memset(a, 0xaa, size);
        memset(b, 0xbb, size);
        a = stead_realloc(s, a, size * 2 + 1);
        for (size_t i = 0; i < size; i++)
            cr_assert_eq(a[i], 0xaa);
        stead_free(a);
        stead_free(b);
    }
    for (size_t alignment = 1; alignment <= 2u << 20; alignment *= 2) {
        void *a = stead_aligned_alloc(s, alignment, 100);
        cr_assert(a != NULL && (uintptr_t)a % alignment == 0, "alignment %zu", alignment);
        stead_free(a);
    }
    cr_assert_null(stead_aligned_alloc(s, 3, 100));
    cr_assert_eq(errno, EINVAL);
    cr_assert_null(stead_calloc(s, SIZE_MAX / 2, 4));
    cr_assert_eq(errno, ENOMEM);
    cr_assert_null(stead_malloc(s, SIZE_MAX - 100));
    cr_assert_eq(errno, ENOMEM);
    stead_free(NULL);
    OK(stead_check(s, NULL));
    OK(stead_close(s));
}

Test(memory, wrong_frees_change_nothing_and_are_reported)
{
    stead *s = open_store("s");
    stead_status status;
    char *a = stead_malloc(s, 100), *b = stead_malloc(s, 200000);
    int on_the_stack;
    errno = 12345;
    stead_free(a + 8);
    cr_assert_eq(stead_last_error(), STEAD_WRONG_POINTER);
    stead_free(b + 4096);
    stead_free(&on_the_stack);
    stead_free(a);
    stead_free(a);
    stead_free((char *)a + (1u << 30));
    cr_assert_eq(errno, 12345, "stead_free keeps errno");
    OK(stead_stat(s, &status));
    cr_assert_eq(status.bad_frees, 4, "%llu", (unsigned long long)status.bad_frees);
    cr_assert_eq(status.live_blocks, 1);
    cr_assert_eq(stead_usable_size(a), 0);
    cr_assert_eq(stead_usable_size(b + 1), 0);
    cr_assert_null(stead_of(&on_the_stack));
    cr_assert_eq(stead_of(b + 5), s);
    OK(stead_check(s, NULL));
    OK(stead_close(s));
}

enum { OTHERS = 3000 };

struct others {
    stead *store;
    char *block[OTHERS];
    unsigned long long refused; /* seen by the thread that freed */
    bool kept_errno;
};

/* Frees every second block, then all: the first half twice, and in the middle of each. */
static void *free_others_blocks(void *arg)
{
    struct others *others = arg;
    stead_free(stead_malloc(others->store, 40)); /* this thread has a part in the heap */
    errno = 4321;
    for (unsigned i = 0; i < OTHERS; i += 2)
        stead_free(others->block[i]);
    for (unsigned i = 0; i < OTHERS; i++) {
        stead_free(others->block[i] + 8);
        others->refused += stead_last_error() == STEAD_WRONG_POINTER;
        stead_free(others->block[i]);
    }
    others->kept_errno = errno == 4321;
    return NULL;
}

/* The same through the path of blocks that another thread of the process owns, in each mode that has one. */
Test(memory, wrong_frees_by_another_thread_change_nothing_and_are_reported)
{
    static const stead_sharing modes[] = {STEAD_SOLE, STEAD_LIVE};
    static const char *const names[] = {"sole", "live"};
    for (unsigned mode = 0; mode < 2; mode++) {
        stead_status status;
        pthread_t thread;
        static struct others others;
        others = (struct others){.refused = 0};
        OK(stead_open(&others.store, path_in(names[mode]), &(stead_options){.sharing = modes[mode]}));
        char *kept = stead_malloc(others.store, 48);
        for (unsigned i = 0; i < OTHERS; i++)
            cr_assert_not_null(others.block[i] = stead_malloc(others.store, i % 3 == 0 ? 24 : 48));
        cr_assert_eq(pthread_create(&thread, NULL, free_others_blocks, &others), 0);
        cr_assert_eq(pthread_join(thread, NULL), 0);
        cr_assert(others.kept_errno);
        cr_assert_eq(others.refused, OTHERS);
        OK(stead_stat(others.store, &status));
        cr_assert_eq(status.bad_frees, OTHERS + OTHERS / 2, "%llu", (unsigned long long)status.bad_frees);
        cr_assert_eq(status.live_blocks, 1);
        cr_assert_geq(stead_usable_size(kept), 48);
        for (unsigned i = 0; i < OTHERS; i++) { /* each is handed out once */
            others.block[i] = stead_malloc(others.store, 24);
            memcpy(others.block[i], &i, sizeof i);
        }
        for (unsigned i = 0; i < OTHERS; i++)
            cr_assert_eq(memcmp(others.block[i], &i, sizeof i), 0);
        OK(stead_check(others.store, NULL));
        OK(stead_close(others.store));
    }
}

struct tally {
    unsigned blocks;
    uint64_t bytes;
    const void *last;
};

static int add_block(void *block, size_t usable, void *arg)
{
    struct tally *tally = arg;
    cr_assert(tally->last == NULL || (uintptr_t)block > (uintptr_t)tally->last, "address order");
    tally->last = block;
    tally->blocks++;
    tally->bytes += usable;
    return 0;
}

Test(memory, every_live_block_is_enumerated_and_counted)
{
    stead *s = open_store("s");
    stead_status status;
    stead_report report;
    void *keep[500];
    uint64_t bytes = 0;
    for (unsigned i = 0; i < 500; i++)
        keep[i] = stead_malloc(s, i * i % 90000);
    for (unsigned i = 0; i < 500; i++) {
        if (i % 3 == 0)
            stead_free(keep[i]);
        else
            bytes += stead_usable_size(keep[i]);
    }
    struct tally tally = {0};
    OK(stead_each_block(s, add_block, &tally));
    OK(stead_stat(s, &status));
    OK(stead_check(s, &report));
    cr_assert_eq(tally.blocks, 333);
    cr_assert_eq(tally.bytes, bytes);
    cr_assert_eq(status.live_blocks, 333);
    cr_assert_eq(status.live_bytes, bytes);
    cr_assert_eq(report.blocks, 333, "%llu", (unsigned long long)report.blocks);
    OK(stead_close(s));
}

Test(memory, enumerating_reads_no_neighbour_of_a_small_block) /* AddressSanitizer would tell */
{
    stead *s = open_store("s");
    struct tally tally = {0};
    void *small[64];
    OK(stead_bind(s, "so that there are names", stead_malloc(s, 1)));
    for (unsigned i = 0; i < 64; i++)
        small[i] = stead_malloc(s, 1);
    for (unsigned i = 1; i < 64; i += 2)
        stead_free(small[i]);
    OK(stead_each_block(s, add_block, &tally));
    cr_assert_eq(tally.blocks, 33);
    OK(stead_close(s));
}

Test(memory, stat_tells_the_truth)
{
    struct stat st;
    stead_status status;
    stead *s = open_store("s");
    cr_assert_eq(stat(path_in("s"), &st), 0);
    OK(stead_stat(s, &status));
    cr_assert_eq(status.owner, getuid());
    cr_assert_eq(status.mode, 0600);
    cr_assert_eq(status.creator_pid, getpid());
    cr_assert_eq(status.attached, 1);
    cr_assert_eq(status.file_bytes, (uint64_t)st.st_size);
    cr_assert_eq(strlen(status.id), 36);
    cr_assert(status.created != 0 && status.last_attach >= status.created);
    cr_assert(!status.recovered && !status.accepted_unclean);
    char id[37];
    memcpy(id, status.id, 37);
    OK(stead_close(s));
    s = open_store("s");
    OK(stead_stat(s, &status));
    cr_assert_str_eq(status.id, id);
    cr_assert(status.last_detach >= status.created);
    OK(stead_close(s));
}

Test(memory, a_flipped_bit_in_any_page_is_found_and_named)
{
    stead *s = open_store("s");
    stead_report report;
    uint8_t *block = stead_malloc(s, 300000);
    for (unsigned i = 0; i < 300000; i++)
        block[i] = (uint8_t)(i * 7 + i / 4096);
    OK(stead_set_root(s, block));
    stead_status status;
    OK(stead_stat(s, &status));
    OK(stead_close(s));
    uint64_t bytes = file_bytes_of(path_in("s"));
    int fd = open(path_in("s"), O_RDWR);
    unsigned found = 0, named = 0;
    for (uint64_t at = 4 * 65536; at + 4096 <= bytes; at += 4096) { /* the mark behind them: test_tail.c */
        uint8_t byte;
        off_t where = (off_t)(at + at / 4096 * 37 % 4096);
        cr_assert(pread(fd, &byte, 1, where) == 1);
        byte ^= 1;
        cr_assert(pwrite(fd, &byte, 1, where) == 1);
        stead *r;
        if (stead_open(&r, path_in("s"), &(stead_options){.flags = STEAD_READ_ONLY}) == 0) {
            if (stead_check(r, &report) == STEAD_CORRUPT) {
                found++;
                named += strstr(report.first_problem, "block of") != NULL;
            }
            stead_close(r);
        } else {
            found++;
        }
        byte ^= 1;
        cr_assert(pwrite(fd, &byte, 1, where) == 1);
    }
    cr_assert_eq(found, (bytes - 4 * 65536) / 4096);
    cr_assert_geq(named, 70, "%u pages named their object", named);
    close(fd);
    s = open_store("s");
    OK(stead_check(s, NULL));
    OK(stead_close(s));
}

Test(memory, a_backup_is_the_last_commit_and_opens_by_itself)
{
    for (unsigned mode = 0; mode < 3; mode++) {
        char name[8], copy[8];
        snprintf(name, sizeof name, "s%u", mode);
        snprintf(copy, sizeof copy, "b%u", mode);
        stead *s, *b;
        void *root;
        OK(stead_open(&s, path_in(name), &(stead_options){.sharing = (stead_sharing)mode}));
        OK(stead_root_once(s, 100000, NULL, NULL, &root));
        OK(stead_lock(s, STEAD_EXCLUSIVE, 0));
        strcpy(root, "committed");
        OK(stead_commit(s, STEAD_BUFFERED));
        if (mode != STEAD_LIVE)
            strcpy(root, "not committed");
        OK(stead_unlock(s));
        if (mode == STEAD_TURNS) { /* unlock committed it */
            OK(stead_lock(s, STEAD_EXCLUSIVE, 0));
            strcpy(root, "committed");
            OK(stead_unlock(s));
        }
        OK(stead_backup(s, path_in(copy)));
        FAILS(stead_backup(s, path_in(copy)), EEXIST);
        OK(stead_close(s));
        OK(stead_open(&b, path_in(copy), NULL));
        cr_assert_str_eq(stead_root(b), "committed");
        OK(stead_check(b, NULL));
        OK(stead_close(b));
    }
}

/* The file follows the live data down as well as up: a close returns the tail and punches long free runs, in a store of
 * each sharing mode; what is left lives on. */
Test(memory, the_file_shrinks_with_the_live_data)
{
    static const stead_sharing modes[] = {STEAD_SOLE, STEAD_TURNS, STEAD_LIVE};
    enum { BLOCKS = 24, MIB = 1 << 20 };
    for (unsigned m = 0; m < 3; m++) {
        char name[8] = {'s', (char)('0' + m)};
        const stead_options options = {.sharing = modes[m]};
        stead *s;
        struct stat facts;
        char *blocks[BLOCKS];
        OK(stead_open(&s, path_in(name), &options));
        OK(stead_lock(s, STEAD_EXCLUSIVE, -1));
        for (unsigned i = 0; i < BLOCKS; i++)
            memset(blocks[i] = stead_malloc(s, MIB), (int)i, MIB);
        OK(stead_set_root(s, blocks[1]));
        OK(stead_unlock(s));
        OK(stead_close(s));
        cr_assert_eq(stat(path_in(name), &facts), 0);
        cr_assert_geq(facts.st_blocks * 512, (off_t)BLOCKS * MIB);

        OK(stead_open(&s, path_in(name), &options));
        OK(stead_lock(s, STEAD_EXCLUSIVE, -1));
        for (unsigned i = 0; i < BLOCKS; i++)
            if (i != 1 && i != 16)
                stead_free(blocks[i]);
        OK(stead_unlock(s));
        OK(stead_close(s));
        cr_assert_eq(stat(path_in(name), &facts), 0);
        cr_assert_leq(facts.st_size, (off_t)19 * MIB, "mode %u: the tail was not returned", m);
        cr_assert_leq(facts.st_blocks * 512, (off_t)4 * MIB, "mode %u: long free runs were not punched", m);

        OK(stead_open(&s, path_in(name), &options));
        for (unsigned i = 0; i < MIB; i += 4096)
            cr_assert(((char *)stead_root(s))[i] == 1 && blocks[16][i] == 16);
        OK(stead_check(s, NULL));
        OK(stead_close(s));
    }
}

/* Who recovers a store after a crash closes it as whoever freed the blocks would have. */
Test(memory, the_file_shrinks_with_the_live_data_after_a_crash)
{
    enum { BYTES = 24 << 20 };
    static const stead_sharing modes[] = {STEAD_SOLE, STEAD_TURNS};
    for (unsigned m = 0; m < 2; m++) {
        char name[8] = {'s', (char)('0' + m)};
        const stead_options options = {.sharing = modes[m]};
        stead *s;
        OK(stead_open(&s, path_in(name), &options));
        OK(stead_lock(s, STEAD_EXCLUSIVE, -1));
        void *block = stead_malloc(s, BYTES);
        cr_assert_not_null(block);
        memset(block, 1, BYTES);
        OK(stead_commit(s, STEAD_DURABLE));
        stead_free(block);
        OK(stead_commit(s, STEAD_DURABLE));
        OK(stead_unlock(s));
        stead_abandon(s);
        OK(stead_open(&s, path_in(name), &options));
        OK(stead_close(s));
        cr_assert_leq(file_bytes_of(path_in(name)), BYTES / 2, "mode %u: the tail was not returned", m);
    }
}

Test(memory, pinning_does_not_change_what_is_committed)
{
    stead *s = open_store("s");
    char *a = stead_calloc(s, 1, 1 << 20);
    OK(stead_set_root(s, a));
    OK(stead_commit(s, STEAD_BUFFERED));
    int rc = stead_pin(s);
    if (rc == ENOMEM || rc == EPERM || rc == EAGAIN)
        cr_skip_test("no permission to mlock");
    OK(rc);
    strcpy(a + 5000, "pinned");
    OK(stead_commit(s, STEAD_BUFFERED));
    OK(stead_unpin(s));
    stead_abandon(s);
    s = open_store("s");
    cr_assert_str_eq((char *)stead_root(s) + 5000, "pinned");
    OK(stead_close(s));
}

#if defined(__SANITIZE_ADDRESS__)
Test(memory, an_overrun_is_reported_as_in_malloc)
{
    stead *s = open_store("s");
    char *volatile block = stead_malloc(s, 100);
    for (unsigned round = 0; round < 3; round++) {
        pid_t pid = fork();
        if (pid == 0) {
            stead *mine;
            CHILD(freopen("/dev/null", "w", stderr) != NULL);
            CHILD(stead_open(&mine, path_in("mine"), NULL) == 0);
            block = stead_malloc(mine, 100);
            if (round == 1)
                stead_free(block);
            if (round < 2)
                block[round == 0 ? stead_usable_size(block) : 5] = 1; /* past its end; after free */
            OK(stead_commit(mine, STEAD_BUFFERED));
            _exit(77);
        }
        cr_assert_eq(reap(pid) == 77, round == 2, "round %u", round);
    }
    OK(stead_close(s));
}
#endif

Test(memory, private_memory_has_a_limit_that_is_an_error)
{
    stead *s;
    stead_status status;
    OK(stead_open(&s, path_in("s"), &(stead_options){.max_private_bytes = 1u << 20}));
    char *a = stead_malloc(s, 8u << 20);
    memset(a, 1, 8u << 20);
    OK(stead_set_root(s, a));
    FAILS(stead_commit(s, STEAD_BUFFERED), STEAD_LIMIT);
    OK(stead_rollback(s));
    a = stead_calloc(s, 1, 100000);
    OK(stead_set_root(s, a));
    OK(stead_commit(s, STEAD_BUFFERED));
    strcpy(a, "fits");
    OK(stead_commit(s, STEAD_BUFFERED));
    OK(stead_stat(s, &status));
    cr_assert_gt(status.private_bytes, 0);
    OK(stead_close(s));
}

/* ---- layout */

static int double_it(stead *s, uint32_t from, uint32_t to, void *arg)
{
    cr_assert(from == 1 && to == 2);
    *(uint64_t *)stead_root(s) *= 2;
    return *(int *)arg;
}

Test(memory, layout_mismatch_upgrade_and_failed_upgrade)
{
    stead *s;
    void *root;
    int result = 0;
    stead_options v1 = {.layout = {.name = "numbers", .version = 1}};
    stead_options v2 = {.layout = {.name = "numbers", .version = 2}};
    stead_options up = {.layout = {.name = "numbers", .version = 2, .upgrade = double_it, .upgrade_arg = &result}};
    OK(stead_open(&s, path_in("s"), &v1));
    OK(stead_root_once(s, 8, NULL, NULL, &root));
    *(uint64_t *)root = 21;
    OK(stead_close(s));
    FAILS(stead_open(&s, path_in("s"), &v2), STEAD_LAYOUT_MISMATCH);
    FAILS(stead_open(&s, path_in("s"), &(stead_options){.layout = {.name = "others", .version = 1}}),
          STEAD_LAYOUT_MISMATCH);
    result = ECANCELED;
    FAILS(stead_open(&s, path_in("s"), &up), ECANCELED);
    OK(stead_open(&s, path_in("s"), &v1));
    cr_assert_eq(*(uint64_t *)stead_root(s), 21);
    OK(stead_close(s));
    result = 0;
    OK(stead_open(&s, path_in("s"), &up));
    cr_assert_eq(*(uint64_t *)stead_root(s), 42);
    OK(stead_close(s));
    OK(stead_open(&s, path_in("s"), &v2));
    OK(stead_close(s));
    FAILS(stead_open(&s, path_in("s"), &v1), STEAD_LAYOUT_MISMATCH);
    OK(stead_open(&s, path_in("s"), NULL));
    OK(stead_close(s));
}

/* ---- references readable at any address */

struct link {
    STEAD_REF(struct link) next;
    int value;
};

Test(memory, references_are_readable_at_any_address)
{
    stead *s = open_store("s");
    struct link *head = NULL;
    for (int i = 0; i < 100; i++) {
        struct link *link = stead_new(s, struct link);
        link->value = i;
        stead_ref_set(&link->next, head);
        head = link;
    }
    OK(stead_set_root(s, head));
    stead_status status;
    OK(stead_stat(s, &status));
    OK(stead_close(s));
    pid_t pid = fork();
    if (pid == 0) {
        extern void *mmap(void *, size_t, int, int, int, off_t);
        CHILD(mmap(status.base, 4096, 1, 0x100022, -1, 0) == status.base);
        CHILD(stead_open(&s, path_in("s"), &(stead_options){.flags = STEAD_READ_ONLY | STEAD_ANY_ADDRESS}) == 0);
        int sum = 0;
        for (struct link *link = stead_root(s); link != NULL; link = stead_ref_get(&link->next))
            sum += link->value;
        CHILD(sum == 4950);
        CHILD(stead_of(stead_root(s)) == s);
        CHILD(stead_close(s) == 0);
        _exit(0);
    }
    REAP_OK(pid);
}

/* ---- semaphores and events */

static void signal_both(void *arg)
{
    char *name = arg;
    stead_semaphore *semaphore;
    stead_event *event;
    CHILD(stead_semaphore_open(&semaphore, name, 0) == 0);
    CHILD(stead_event_open(&event, name, false) == 0);
    pause_ms(30);
    CHILD(stead_semaphore_signal(semaphore, 2) == 0);
    CHILD(stead_event_signal(event) == 0);
    CHILD(stead_semaphore_close(semaphore) == 0);
    CHILD(stead_event_close(event) == 0);
}

Test(memory, semaphores_and_events_by_name_local_and_in_place)
{
    char name[64];
    snprintf(name, sizeof name, "stead-test-%d", (int)getpid());
    stead_semaphore *semaphore;
    stead_event *event;
    OK(stead_semaphore_open(&semaphore, name, 1));
    OK(stead_event_open(&event, name, false));
    OK(stead_semaphore_wait(semaphore, 0));
    FAILS(stead_semaphore_wait(semaphore, 0), EBUSY);
    FAILS(stead_semaphore_wait(semaphore, 30), ETIMEDOUT);
    FAILS(stead_event_wait(event, 0), EBUSY);
    pid_t pid = spawn(signal_both, name);
    OK(stead_event_wait(event, SOON_MS));
    OK(stead_semaphore_wait(semaphore, SOON_MS));
    OK(stead_semaphore_wait(semaphore, SOON_MS));
    OK(stead_event_wait(event, 0));
    OK(stead_event_reset(event));
    FAILS(stead_event_wait(event, 10), ETIMEDOUT);
    REAP_OK(pid);
    unsigned value = 9;
    OK(stead_sync_value(name, "semaphore", &value));
    cr_assert_eq(value, 0);
    OK(stead_semaphore_signal(semaphore, INT32_MAX));
    FAILS(stead_semaphore_signal(semaphore, 1), EOVERFLOW);
    OK(stead_semaphore_close(semaphore));
    OK(stead_event_close(event));
    OK(stead_semaphore_remove(name));
    OK(stead_event_remove(name));
    FAILS(stead_semaphore_remove(name), ENOENT);
    OK(stead_semaphore_open(&semaphore, NULL, 3));
    OK(stead_semaphore_wait(semaphore, 0));
    OK(stead_semaphore_close(semaphore));
    FAILS(stead_semaphore_open(&semaphore, "a/b", 0), EINVAL);
    stead *s;
    OK(stead_open(&s, path_in("live"), &(stead_options){.sharing = STEAD_LIVE}));
    stead_semaphore *in_place = stead_new(s, stead_semaphore);
    OK(stead_semaphore_init(in_place));
    OK(stead_semaphore_signal(in_place, 1));
    OK(stead_semaphore_wait(in_place, 0));
    FAILS(stead_semaphore_close(in_place), EINVAL);
    OK(stead_close(s));
}
