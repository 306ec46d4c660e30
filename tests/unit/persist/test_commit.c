/*
 * test_commit.c -- commit, rollback, application and checkpoint against a model: after any sequence of them the image is
 * what the model says, and after a kill the reopened image is the last commit.  Each way of finding changed pages
 * runs the same tests.  Then: what the kernel writes, growth, limits.  Failing calls and their order: test_commit_fault.c.
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

#include "persist/page_checksum.h"
#include "txn_fixture.h"

TestSuite(txn_commit, .timeout = 300);

#define PAGES 512
#define BYTES (PAGES * PAGE_BYTES) /* 2 MiB: 32 units */

static const char *const kind_name[] = {"best", "faults", "scan", "pagemap", "compare"};

struct model {
    uint8_t *committed, *now;
    uint64_t used, seq;
};

static bool open_or_skip(struct fixture *f)
{
    int rc = fixture_open(f);
    if (rc == ENOTSUP) {
        (void)fprintf(stderr, "not here: %s\n", kind_name[f->kind]);
        return false;
    }
    OK(rc);
    return true;
}

static void expect_image(struct fixture *f, const uint8_t *want, uint64_t bytes, const char *when)
{
    for (uint64_t i = 0; i < bytes; i += PAGE_BYTES)
        cr_assert_eq(memcmp(f->map.base + i, want + i, PAGE_BYTES), 0, "page %llu differs %s (%s)",
                     (unsigned long long)(i / PAGE_BYTES), when, kind_name[f->kind]);
}

static void write_something(struct fixture *f, struct model *m, uint64_t *random)
{
    uint64_t r = random_next(random), pages = 1 + random_next(random) % (r % 16 == 0 ? 200 : 8);
    for (uint64_t i = 0; i < pages; i++) {
        uint64_t offset = random_next(random) % m->used, length = 1 + random_next(random) % (r % 3 == 0 ? 5000 : 60);
        length = min_u64(length, m->used - offset);
        uint8_t fill = (uint8_t)random_next(random);
        memset(f->map.base + offset, fill, length);
        memset(m->now + offset, fill, length);
    }
}

/* Asked now and then, and as often as one likes: a commit, a rollback, an application find what they would have found. */
static void expect_changed(struct fixture *f, const struct model *m, uint64_t *random)
{
    const bool want = memcmp(m->now, m->committed, m->used) != 0;
    bool changed;
    for (uint64_t times = random_next(random) % 3; times > 0; times--) {
        changed = !want;
        OK(txn_changed(f->txn, m->used, &changed));
        cr_assert_eq(changed, want, "%s", kind_name[f->kind]);
    }
    changed = false;
    OK(txn_changed(f->txn, m->used == BYTES ? UNIT_BYTES : m->used + UNIT_BYTES, &changed));
    cr_assert(changed, "another length is a change");
}

static void random_operation(struct fixture *f, struct model *m, uint64_t *random)
{
    uint64_t seq;
    switch (random_next(random) % 12) {
    case 0:
        OK(txn_rollback(f->txn));
        memcpy(m->now, m->committed, BYTES);
        break;
    case 1:
        if (random_next(random) % 2 == 0)
            OK(txn_apply(f->txn));
        else
            OK(txn_apply_some(f->txn));
        break;
    case 2:
        OK(txn_checkpoint(f->txn));
        cr_assert_eq(fixture_bad_checksums(f, m->used), 0);
        break;
    case 3:
        fixture_kill(f);
        OK(fixture_open(f));
        fixture_extend(f, BYTES);
        memcpy(m->now, m->committed, BYTES);
        expect_image(f, m->committed, m->used, "after a kill");
        cr_assert_eq(fixture_bad_checksums(f, m->used), 0);
        memcpy(m->committed, f->map.base, BYTES); /* past used: zeros, whatever was there */
        memcpy(m->now, f->map.base, BYTES);
        cr_assert_eq(txn_commit_seq(f->txn), m->seq);
        break;
    case 4:
    case 5: { /* grow or shrink with the commit */
        uint64_t used = (1 + random_next(random) % (BYTES / UNIT_BYTES)) * UNIT_BYTES;
        if (used > m->used) /* bytes past the end meant nothing until now; from now on they must stay */
            memcpy(m->now + m->used, f->map.base + m->used, used - m->used);
        if (used > m->used && random_next(random) % 2 == 0) {
            memset(f->map.base + m->used, 0x5a, used - m->used);
            memset(m->now + m->used, 0x5a, used - m->used);
        }
        OK(txn_commit(f->txn, used, &seq));
        m->used = used;
        m->seq = seq;
        memcpy(m->committed, m->now, BYTES);
        break;
    }
    case 6:
        write_something(f, m, random);
        OK(txn_commit(f->txn, m->used, &seq));
        OK(txn_sync(f->txn, seq));
        m->seq = seq;
        memcpy(m->committed, m->now, BYTES);
        break;
    default:
        write_something(f, m, random);
        if (random_next(random) % 2 == 0) {
            OK(txn_commit(f->txn, m->used, &seq));
            m->seq = seq;
            memcpy(m->committed, m->now, BYTES);
        }
        break;
    }
    expect_changed(f, m, random);
    expect_image(f, m->now, m->used, "after an operation");
}

static void run_model(enum dirty_kind kind)
{
    struct fixture f;
    struct model m = {.used = 4 * UNIT_BYTES};
    uint64_t random = random_seed();
    fixture_create(&f, BYTES, m.used);
    f.kind = kind;
    m.committed = calloc(1, BYTES);
    m.now = calloc(1, BYTES);
    if (open_or_skip(&f)) {
        for (long i = 0; i < random_rounds(400); i++)
            random_operation(&f, &m, &random);
        fixture_kill(&f);
    }
    free(m.committed);
    free(m.now);
    fixture_remove(&f);
}

Test(txn_commit, follows_the_model_with_fault_reports)
{
    run_model(DIRTY_FAULTS);
}
Test(txn_commit, follows_the_model_with_pagemap_scan)
{
    run_model(DIRTY_SCAN);
}
Test(txn_commit, follows_the_model_with_pagemap_bits)
{
    run_model(DIRTY_PAGEMAP);
}
Test(txn_commit, follows_the_model_with_comparison)
{
    run_model(DIRTY_COMPARE);
}

Test(txn_commit, follows_the_model_where_kernel_pages_are_larger)
{
    static const enum dirty_kind kinds[] = {DIRTY_BEST, DIRTY_SCAN, DIRTY_PAGEMAP, DIRTY_COMPARE};
    for (unsigned i = 0; i < 8; i++) {
        fixture_kernel_pages(i % 2 == 0 ? 16384 : UNIT_BYTES);
        run_model(kinds[i / 2]);
    }
}

/* What the kernel writes into the image is committed, page by page, hot or protected or never touched before. */
static void kernel_writes(enum dirty_kind kind)
{
    struct fixture f;
    fixture_create(&f, BYTES, BYTES);
    f.kind = kind;
    if (!open_or_skip(&f)) {
        fixture_remove(&f);
        return;
    }
    int zero = open("/dev/urandom", O_RDONLY), pair[2], source;
    char name[400];
    uint8_t want[3][300], got[300];
    uint64_t seq;
    (void)snprintf(name, sizeof name, "%s/source", f.directory);
    source = open(name, O_RDWR | O_CREAT, 0600);
    cr_assert(zero >= 0 && source >= 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    for (int round = 0; round < 12; round++) { /* hot pages go cold (protected) in between */
        for (int i = 0; i < 3; i++)
            memset(want[i], round * 16 + i + 1, sizeof want[i]);
        cr_assert_eq(write(pair[0], want[0], 300), 300);
        cr_assert_eq(pwrite(source, want[1], 300, 100), 300);
        cr_assert_eq(recv(pair[1], f.map.base + 7 * PAGE_BYTES + 11, 300, MSG_WAITALL), 300);
        cr_assert_eq(pread(source, f.map.base + 9 * PAGE_BYTES + 5, 300, 100), 300);
        cr_assert_eq(lseek(source, 100, SEEK_SET), 100);
        cr_assert_eq(read(source, f.map.base + (11 + (uint64_t)round) * PAGE_BYTES - 40, 300), 300); /* across two */
        OK(txn_commit(f.txn, BYTES, &seq));
        for (int idle = 0; idle < round; idle++) {
            f.map.base[500 * PAGE_BYTES]++;
            OK(txn_commit(f.txn, BYTES, &seq));
        }
        if (round % 4 == 3)
            OK(txn_apply(f.txn));
        OK(txn_rollback(f.txn));
        cr_assert_eq(memcmp(f.map.base + 7 * PAGE_BYTES + 11, want[0], 300), 0, "recv, round %d", round);
        fixture_kill(&f);
        OK(fixture_open(&f));
        memcpy(got, f.map.base + 7 * PAGE_BYTES + 11, 300);
        cr_assert_eq(memcmp(got, want[0], 300), 0, "recv, round %d, %s", round, kind_name[kind]);
        cr_assert_eq(memcmp(f.map.base + 9 * PAGE_BYTES + 5, want[1], 300), 0, "pread, round %d", round);
        cr_assert_eq(memcmp(f.map.base + (11 + (uint64_t)round) * PAGE_BYTES - 40, want[1], 300), 0, "read, round %d",
                     round);
    }
    close(zero);
    close(source);
    close(pair[0]);
    close(pair[1]);
    fixture_kill(&f);
    fixture_remove(&f);
}

Test(txn_commit, kernel_writes_count_with_fault_reports)
{
    kernel_writes(DIRTY_FAULTS);
}
Test(txn_commit, kernel_writes_count_with_pagemap_scan)
{
    kernel_writes(DIRTY_SCAN);
}
Test(txn_commit, kernel_writes_count_with_pagemap_bits)
{
    kernel_writes(DIRTY_PAGEMAP);
}
Test(txn_commit, kernel_writes_count_with_comparison)
{
    kernel_writes(DIRTY_COMPARE);
}

Test(txn_commit, a_page_of_zeros_has_checksum_zero)
{
    uint8_t page[PAGE_BYTES] = {0};
    cr_assert_eq(page_checksum(page), 0);
    cr_assert_eq(page_checksum(page),
                 XXH3_64bits(page, PAGE_BYTES) ^ XXH3_64bits((uint8_t[PAGE_BYTES]){0}, PAGE_BYTES));
    page[4095] = 1;
    cr_assert_neq(page_checksum(page), 0);
}

Test(txn_commit, nothing_changed_is_no_commit)
{
    struct fixture f;
    uint64_t first, second;
    fixture_create(&f, BYTES, BYTES);
    OK(fixture_open(&f));
    f.map.base[100] = 1;
    OK(txn_commit(f.txn, BYTES, &first));
    f.map.base[100] = 2;
    f.map.base[100] = 1; /* the same bytes again */
    OK(txn_commit(f.txn, BYTES, &second));
    cr_assert_eq(first, second);
    fixture_kill(&f);
    fixture_remove(&f);
}

static uint64_t written_bytes;
static ssize_t counting_pwrite(int fd, const void *buffer, size_t bytes, off_t offset)
{
    written_bytes += bytes;
    return file_calls_system.pwrite(fd, buffer, bytes, offset);
}

Test(txn_commit, a_bulk_load_is_written_once)
{
    struct fixture f;
    const uint64_t bulk = UINT64_C(64) << 20;
    uint64_t seq;
    fixture_create(&f, BYTES, BYTES);
    OK(fixture_open(&f));
    fixture_extend(&f, bulk);
    memset(f.map.base + BYTES, 0x77, bulk - BYTES);
    f.map.base[0] = 1; /* something that refers to it */
    file_calls.pwrite = counting_pwrite;
    OK(txn_commit(f.txn, bulk, &seq));
    OK(txn_sync(f.txn, seq));
    cr_assert_lt(written_bytes, bulk + bulk / 16, "%llu bytes were written", (unsigned long long)written_bytes);
    OK(txn_checkpoint(f.txn));
    cr_assert_lt(written_bytes, bulk + bulk / 16);
    file_calls = file_calls_system;
    fixture_kill(&f);
    OK(fixture_open(&f));
    cr_assert_eq(f.map.base[0], 1);
    for (uint64_t i = BYTES; i < bulk; i += 4096)
        cr_assert_eq(f.map.base[i], 0x77);
    cr_assert_eq(fixture_bad_checksums(&f, bulk), 0);
    fixture_kill(&f);
    fixture_remove(&f);
}

/* W7: an image that shrank and grew again within one log: an old record must not be replayed over new pages. */
Test(txn_commit, pages_named_by_the_log_are_not_written_straight)
{
    struct fixture f;
    uint64_t seq;
    fixture_create(&f, BYTES, BYTES);
    OK(fixture_open(&f));
    memset(f.map.base + BYTES / 2, 0x11, BYTES / 2);
    OK(txn_commit(f.txn, BYTES, &seq));
    OK(txn_commit(f.txn, BYTES / 2, &seq));
    memset(f.map.base + BYTES / 2, 0x22, BYTES / 2);
    OK(txn_commit(f.txn, BYTES, &seq));
    fixture_kill(&f);
    OK(fixture_open(&f));
    for (uint64_t i = BYTES / 2; i < BYTES; i++)
        cr_assert_eq(f.map.base[i], 0x22, "byte %llu", (unsigned long long)i);
    fixture_kill(&f);
    fixture_remove(&f);
}

Test(txn_commit, a_rollback_after_growth_leaves_zeros_past_the_end)
{
    struct fixture f;
    uint64_t seq;
    fixture_create(&f, BYTES, BYTES / 2);
    OK(fixture_open(&f));
    f.map.base[200] = 1;
    OK(txn_commit(f.txn, BYTES / 2, &seq));
    f.map.base[200] = 0;
    OK(txn_commit(f.txn, BYTES / 2, &seq));
    faults_install();
    memset(f.map.base, 1, 100);
    memset(f.map.base + BYTES / 2, 0x33, BYTES / 2);
    faults = (struct faults){.path_suffix = "-wal", .pwrite = true, .fault = FAULT_ERROR, .error = ENOSPC, .count = 1};
    FAILS(ENOSPC, txn_commit(f.txn, BYTES, &seq)); /* the new pages are in the file by now */
    cr_assert_eq(f.map.base[BYTES - 1], 0x33, "a failed commit leaves memory alone");
    OK(txn_rollback(f.txn));
    for (uint64_t i = 0; i < BYTES; i++)
        cr_assert_eq(f.map.base[i], 0, "byte %llu", (unsigned long long)i);
    f.map.base[BYTES / 2] = 9;
    OK(txn_commit(f.txn, BYTES, &seq));
    faults_remove();
    fixture_kill(&f);
    OK(fixture_open(&f));
    cr_assert_eq(f.map.base[BYTES / 2], 9);
    cr_assert_eq(f.map.base[BYTES / 2 + 1], 0);
    cr_assert_eq(fixture_bad_checksums(&f, BYTES), 0);
    fixture_kill(&f);
    fixture_remove(&f);
}

Test(txn_commit, more_changed_pages_than_the_limit_are_refused_and_can_be_rolled_back)
{
    struct fixture f;
    uint64_t seq;
    fixture_create(&f, BYTES, BYTES);
    f.options.max_private_bytes = 2 * 20 * PAGE_BYTES;
    OK(fixture_open(&f));
    for (uint64_t i = 0; i < 21; i++)
        f.map.base[i * PAGE_BYTES] = 7;
    FAILS(STEAD_LIMIT, txn_commit(f.txn, BYTES, &seq));
    cr_assert_eq(f.map.base[20 * PAGE_BYTES], 7);
    f.map.base[20 * PAGE_BYTES] = 0;
    OK(txn_commit(f.txn, BYTES, &seq));
    f.map.base[0] = 8;
    OK(txn_rollback(f.txn));
    cr_assert_eq(f.map.base[0], 7);
    fixture_kill(&f);
    fixture_remove(&f);
}

static void *commit_and_sync(void *arg)
{
    struct fixture *f = arg;
    static pthread_mutex_t exclusive = PTHREAD_MUTEX_INITIALIZER;
    static unsigned next;
    unsigned me = __atomic_add_fetch(&next, 1, __ATOMIC_RELAXED);
    for (uint32_t i = 1; i <= 50; i++) {
        uint64_t seq;
        pthread_mutex_lock(&exclusive);
        memcpy(f->map.base + me * PAGE_BYTES * 3, &i, sizeof i);
        int rc = (i + me) % 3 == 0 ? txn_commit(f->txn, BYTES, &seq) : txn_commit_deferred(f->txn, BYTES, &seq);
        pthread_mutex_unlock(&exclusive);
        if (rc != 0 || txn_sync(f->txn, seq) != 0)
            return (void *)1;
    }
    return NULL;
}

Test(txn_commit, threads_share_syncs)
{
    struct fixture f;
    pthread_t thread[4];
    fixture_create(&f, BYTES, BYTES);
    OK(fixture_open(&f));
    faults_install();
    faults = (struct faults){.fdatasync = true};
    for (int i = 0; i < 4; i++)
        cr_assert_eq(pthread_create(&thread[i], NULL, commit_and_sync, &f), 0);
    for (int i = 0; i < 4; i++) {
        void *failed;
        pthread_join(thread[i], &failed);
        cr_assert_null(failed);
    }
    cr_assert_leq(faults.seen, 200);
    (void)fprintf(stderr, "200 commits, %ld syncs\n", faults.seen);
    faults_remove();
    fixture_kill(&f);
    OK(fixture_open(&f));
    cr_assert_eq(txn_commit_seq(f.txn), 200);
    fixture_kill(&f);
    fixture_remove(&f);
}

Test(txn_commit, a_fork_child_disturbs_nothing)
{
    struct fixture f;
    uint64_t seq;
    fixture_create(&f, BYTES, BYTES);
    OK(fixture_open(&f));
    f.map.base[0] = 1;
    pid_t child = fork();
    if (child == 0) {
        for (int i = 0; i < 200; i++)
            memset(malloc(100000), 1, 100000);
        txn_forget(f.txn);
        _exit(0);
    }
    int status;
    f.map.base[PAGE_BYTES] = 2;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    f.map.base[2 * PAGE_BYTES] = 3;
    OK(txn_commit(f.txn, BYTES, &seq));
    fixture_kill(&f);
    OK(fixture_open(&f));
    for (uint8_t i = 0; i < 3; i++)
        cr_assert_eq(f.map.base[i * PAGE_BYTES], i + 1);
    fixture_kill(&f);
    fixture_remove(&f);
}

Test(txn_commit, memory_locked_by_the_program_is_committed_and_rolled_back)
{
    struct fixture f;
    uint64_t seq;
    fixture_create(&f, BYTES, BYTES);
    OK(fixture_open(&f));
    if (mlock(f.map.base, BYTES) == 0) {
        f.map.base[PAGE_BYTES] = 1;
        OK(txn_commit(f.txn, BYTES, &seq));
        f.map.base[PAGE_BYTES] = 2;
        f.map.base[9 * PAGE_BYTES] = 2;
        OK(txn_rollback(f.txn));
        cr_assert_eq(f.map.base[PAGE_BYTES], 1);
        cr_assert_eq(f.map.base[9 * PAGE_BYTES], 0);
        fixture_kill(&f);
        OK(fixture_open(&f));
        cr_assert_eq(f.map.base[PAGE_BYTES], 1);
    }
    fixture_kill(&f);
    fixture_remove(&f);
}

/* A byte rots in the file beside those that a commit changes: the page must not come out of it with a good checksum. */
Test(txn_commit, a_page_damaged_on_the_disk_is_not_given_a_good_checksum)
{
    struct fixture f;
    uint64_t seq, sum_before, sum_after;
    uint8_t byte;
    fixture_create(&f, BYTES, BYTES);
    OK(fixture_open(&f));
    for (uint64_t page = 0; page < 8; page++)
        memset(f.map.base + page * PAGE_BYTES, (int)page + 1, PAGE_BYTES);
    OK(txn_commit(f.txn, BYTES, &seq));
    OK(txn_checkpoint(f.txn));
    fixture_kill(&f);
    OK(fixture_open(&f));
    uint64_t at = format_file_offset(5 * PAGE_BYTES) + 1000, entry = format_checksum_offset(5 * PAGE_BYTES);
    OK(file_read_at(f.file.fd, &sum_before, 8, entry));
    OK(file_read_at(f.file.fd, &byte, 1, at));
    byte ^= 0x10;
    OK(file_write_at(f.file.fd, &byte, 1, at));
    f.map.base[4 * PAGE_BYTES] = 0x77;
    f.map.base[5 * PAGE_BYTES] = 0x77;
    FAILS(STEAD_CORRUPT, txn_commit(f.txn, BYTES, &seq));
    cr_assert_not_null(strstr(error_last_text(), "page 5 of"), "%s", error_last_text());
    OK(txn_apply(f.txn));
    OK(file_read_at(f.file.fd, &sum_after, 8, entry));
    cr_assert_eq(sum_before, sum_after);
    cr_assert_eq(fixture_bad_checksums(&f, BYTES), 1, "it is still seen");
    OK(txn_rollback(f.txn));
    f.map.base[4 * PAGE_BYTES] = 0x78;
    OK(txn_commit(f.txn, BYTES, &seq)); /* others go on */
    byte ^= 0x10;
    OK(file_write_at(f.file.fd, &byte, 1, at));
    f.map.base[5 * PAGE_BYTES] = 0x79;
    OK(txn_commit(f.txn, BYTES, &seq));
    OK(txn_checkpoint(f.txn));
    cr_assert_eq(fixture_bad_checksums(&f, BYTES), 0);
    fixture_kill(&f);
    fixture_remove(&f);
}

static uint64_t unreadable;

static ssize_t pread_but_one_place(int fd, void *to, size_t bytes, off_t offset)
{
    if ((uint64_t)offset <= unreadable && unreadable < (uint64_t)offset + bytes) {
        errno = EIO;
        return -1;
    }
    return file_calls_system.pread(fd, to, bytes, offset);
}

/* What cannot be verified is not taken for sound: neither a page that cannot be read, nor one whose checksum cannot. */
Test(txn_commit, a_page_that_cannot_be_verified_is_an_error_and_tried_again)
{
    struct fixture f;
    uint64_t seq;
    fixture_create(&f, BYTES, BYTES);
    const uint64_t places[] = {format_file_offset(5 * PAGE_BYTES) + 100, format_checksum_offset(5 * PAGE_BYTES)};
    for (uint8_t i = 0; i < 2; i++) {
        OK(fixture_open(&f));
        f.map.base[5 * PAGE_BYTES] = (uint8_t)(i + 1);
        unreadable = places[i];
        file_calls.pread = pread_but_one_place;
        FAILS(EIO, txn_commit(f.txn, BYTES, &seq));
        file_calls.pread = file_calls_system.pread;
        cr_assert_eq(f.map.base[5 * PAGE_BYTES], i + 1);
        OK(txn_commit(f.txn, BYTES, &seq));
        OK(txn_checkpoint(f.txn));
        fixture_kill(&f);
    }
    OK(fixture_open(&f));
    cr_assert_eq(f.map.base[5 * PAGE_BYTES], 2);
    fixture_kill(&f);
    fixture_remove(&f);
}

/* Many pages side by side, read some at a time for their comparison: each is compared with itself, so that no more is logged
 * than what changed. */
Test(txn_commit, a_long_row_of_pages_is_logged_as_what_changed_in_it)
{
    enum { ROW = 3 * SCRATCH_PAGES + 1 };
    struct fixture f;
    uint64_t seq;
    uint8_t *model = calloc(ROW, PAGE_BYTES);
    fixture_create(&f, BYTES, BYTES);
    cr_assert(model != NULL && ROW * PAGE_BYTES <= BYTES);
    OK(fixture_open(&f));
    for (uint64_t i = 0; i < ROW * PAGE_BYTES; i++)
        f.map.base[i] = model[i] = (uint8_t)(i % 251 + i / PAGE_BYTES);
    OK(txn_commit(f.txn, BYTES, &seq));
    OK(txn_checkpoint(f.txn));
    for (uint64_t page = 0; page < ROW; page++)
        f.map.base[page * PAGE_BYTES + 8] = model[page * PAGE_BYTES + 8] ^= 1;
    uint64_t before = f.txn->wal.at.end;
    OK(txn_commit(f.txn, BYTES, &seq));
    cr_assert_lt(f.txn->wal.at.end - before, ROW * 24, "%llu bytes", (unsigned long long)(f.txn->wal.at.end - before));
    fixture_kill(&f);
    OK(fixture_open(&f));
    cr_assert_eq(memcmp(f.map.base, model, ROW * PAGE_BYTES), 0);
    fixture_kill(&f);
    fixture_remove(&f);
    free(model);
}
