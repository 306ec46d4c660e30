/*
 * test_fresh.c -- growth is anonymous memory until a commit has it (fresh.c), and nobody can tell: after any sequence of
 * growth, writes, commits, failures, rollbacks and kills the image is what a model says, with each way of finding
 * changed pages.  Then what it is for: how much is written, and what stays in memory (W18, W19).
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "persist/dirty_internal.h"
#include "txn_fixture.h"

TestSuite(txn_fresh, .timeout = 300);

#define MIB (UINT64_C(1) << 20)
#define START (4 * UNIT_BYTES)
#define MOST (56 * MIB) /* over the end of a group, and huge pages */

static const char *const kind_name[] = {"best", "faults", "scan", "pagemap", "compare"};

struct model {
    uint8_t *committed, *now; /* zeros where nothing was written */
    uint64_t used, high;      /* as of the last commit; the longest since the image was opened */
    int random_bytes;
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

static void begin(struct fixture *f, struct model *m, enum dirty_kind kind)
{
    fixture_create(f, START, START);
    f->kind = kind;
    *m = (struct model){.used = START, .high = START, .random_bytes = open("/dev/urandom", O_RDONLY)};
    m->committed = mmap(NULL, MOST, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    m->now = mmap(NULL, MOST, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    cr_assert(m->committed != MAP_FAILED && m->now != MAP_FAILED && m->random_bytes >= 0);
}

static void end(struct fixture *f, struct model *m)
{
    if (f->txn != NULL)
        fixture_kill(f);
    fixture_remove(f);
    munmap(m->committed, MOST);
    munmap(m->now, MOST);
    close(m->random_bytes);
}

static void expect_image(const struct fixture *f, const struct model *m, const char *when)
{
    for (uint64_t at = 0; at < f->map.bytes; at += PAGE_BYTES)
        cr_assert_eq(memcmp(f->map.base + at, m->now + at, PAGE_BYTES), 0, "page %llu differs %s (%s, fresh from %llu)",
                     (unsigned long long)(at / PAGE_BYTES), when, kind_name[f->kind],
                     (unsigned long long)(f->map.fresh_from / PAGE_BYTES));
}

static void fill(struct fixture *f, struct model *m, uint64_t at, uint64_t bytes, uint8_t byte)
{
    memset(f->map.base + at, byte, bytes);
    memset(m->now + at, byte, bytes);
}

/* Below `limit`: single bytes, dense stretches, zeros over what was there, and the kernel's writes. */
static void write_something(struct fixture *f, struct model *m, uint64_t limit, uint64_t *random)
{
    for (uint64_t n = random_next(random) % 6; n > 0; n--) {
        uint64_t at = random_next(random) % limit, bytes = min_u64(1 + random_next(random) % 9000, limit - at);
        switch (random_next(random) % 8) {
        case 0:
            bytes = min_u64(1 + random_next(random) % (2 * MIB), limit - at);
            fill(f, m, at, bytes, (uint8_t)random_next(random));
            break;
        case 1:
            fill(f, m, at, bytes, 0);
            break;
        case 2:
            cr_assert_eq(read(m->random_bytes, f->map.base + at, bytes), (ssize_t)bytes);
            memcpy(m->now + at, f->map.base + at, bytes);
            break;
        default:
            fill(f, m, at, 1 + random_next(random) % 2 * min_u64(bytes, 100) % (limit - at),
                 (uint8_t)random_next(random));
            break;
        }
    }
}

static void grow(struct fixture *f, uint64_t *random)
{
    uint64_t units = random_next(random) % 3 == 0 ? 320 : 20; /* huge pages from 256 units on */
    uint64_t bytes = min_u64(f->map.bytes + (1 + random_next(random) % units) * UNIT_BYTES, MOST);
    if (bytes > f->map.bytes)
        fixture_extend(f, bytes);
}

static void committed(struct model *m, uint64_t used)
{
    m->used = used;
    m->high = max_u64(m->high, used);
    memcpy(m->committed, m->now, MOST);
}

static void commit(struct fixture *f, struct model *m, uint64_t *random)
{
    uint64_t seq, units = (f->map.bytes - m->high) / UNIT_BYTES;
    uint64_t used = m->high + (units == 0 ? 0 : random_next(random) % (units + 1)) * UNIT_BYTES;
    OK(txn_commit(f->txn, used, &seq));
    if (random_next(random) % 2 == 0)
        OK(txn_sync(f->txn, seq));
    committed(m, used);
}

static void fail_log_writes(void)
{
    faults_install();
    faults = (struct faults){.path_suffix = "-wal", .pwrite = true, .fault = FAULT_ERROR, .error = ENOSPC, .count = 1};
}

static void *no_memory(void *address, size_t bytes, int protection, int flags, int fd, off_t offset)
{
    (void)address, (void)bytes, (void)protection, (void)flags, (void)fd, (void)offset;
    errno = ENOMEM;
    return MAP_FAILED;
}

static void kill_and_reopen(struct fixture *f, struct model *m)
{
    fixture_kill(f);
    OK(fixture_open(f));
    memset(m->committed + m->used, 0, MOST - m->used);
    memcpy(m->now, m->committed, MOST);
    m->high = m->used;
}

static void random_operation(struct fixture *f, struct model *m, uint64_t *random)
{
    switch (random_next(random) % 10) {
    case 0:
        /* What was written past the end of the last commit is gone as well. */
        OK(txn_rollback(f->txn));
        memset(m->committed + m->high, 0, MOST - m->high);
        memcpy(m->now, m->committed, MOST);
        break;
    case 1:
        OK(txn_checkpoint(f->txn));
        cr_assert_eq(fixture_bad_checksums(f, m->used), 0);
        break;
    case 2:
        kill_and_reopen(f, m);
        break;
    case 3: /* new space cannot be mapped from the file: it stays as it is, for now */
        file_calls.mmap = no_memory;
        commit(f, m, random);
        file_calls.mmap = file_calls_system.mmap;
        break;
    case 4: /* the record cannot be written */
        write_something(f, m, f->map.bytes, random);
        uint64_t seq, used = f->map.bytes;
        fail_log_writes();
        int rc = txn_commit(f->txn, used, &seq);
        faults_remove();
        cr_assert(rc == 0 || rc == ENOSPC, "%d", rc); /* 0: it was a write that may fail */
        if (rc == 0)
            committed(m, used);
        break;
    case 5:
        OK(txn_apply(f->txn));
        break;
    case 6:
    case 7:
        grow(f, random);
        write_something(f, m, f->map.bytes, random);
        break;
    default:
        write_something(f, m, f->map.bytes, random);
        commit(f, m, random);
        break;
    }
    expect_image(f, m, "after an operation");
}

static void follows_the_model(enum dirty_kind kind)
{
    struct fixture f;
    struct model m;
    uint64_t random = random_seed();
    fixture_skip_syncs();
    for (int round = 0; round < 2; round++) {
        begin(&f, &m, kind);
        if (open_or_skip(&f)) {
            for (long i = 0; i < random_rounds(40); i++)
                random_operation(&f, &m, &random);
            kill_and_reopen(&f, &m);
            expect_image(&f, &m, "at the end");
            OK(txn_checkpoint(f.txn));
            cr_assert_eq(fixture_bad_checksums(&f, m.used), 0);
        }
        end(&f, &m);
    }
}

Test(txn_fresh, follows_the_model_with_fault_reports)
{
    follows_the_model(DIRTY_FAULTS);
}
Test(txn_fresh, follows_the_model_with_pagemap_scan)
{
    follows_the_model(DIRTY_SCAN);
}
Test(txn_fresh, follows_the_model_with_pagemap_bits)
{
    follows_the_model(DIRTY_PAGEMAP);
}
Test(txn_fresh, follows_the_model_with_comparison)
{
    follows_the_model(DIRTY_COMPARE);
}

/* ---- what it costs ---- */

static uint64_t written;

static ssize_t counting_pwrite(int fd, const void *buffer, size_t bytes, off_t offset)
{
    written += bytes;
    return pwrite(fd, buffer, bytes, offset);
}

static uint64_t private_pages(const struct fixture *f, uint64_t from, uint64_t to)
{
    struct page_list list = {0};
    int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    int rc = dirty_scan_bits(fd, f->map.base, from, to, &list);
    uint64_t count = list.count;
    page_list_free(&list);
    close(fd);
    OK(rc);
    return count;
}

/* W19: a byte here and there in 32 MiB of new space, huge pages or not, is a few pages in log and file, and none stay behind. */
Test(txn_fresh, a_few_bytes_in_much_new_space_write_little_and_leave_nothing)
{
    struct fixture f;
    struct model m;
    uint64_t seq;
    begin(&f, &m, DIRTY_BEST);
    OK(fixture_open(&f));
    fixture_extend(&f, 40 * MIB);
    for (uint64_t at = 0; at < 10; at++)
        fill(&f, &m, 5 * MIB + at * 3 * MIB + 77, 1, 9);
    written = 0;
    file_calls.pwrite = counting_pwrite;
    OK(txn_commit(f.txn, 20 * MIB, &seq));
    file_calls.pwrite = file_calls_system.pwrite;
    cr_assert_leq(written, 64 * PAGE_BYTES, "%llu bytes written", (unsigned long long)written);
    cr_assert_eq(f.map.fresh_from, 20 * MIB);
    committed(&m, 20 * MIB);
    expect_image(&f, &m, "after the commit");
    cr_assert_eq(private_pages(&f, START, 20 * MIB), 0, "mapped from the file, nothing of it is private");
    cr_assert_eq(f.txn->carry.count, 5, "those past the end");
    OK(txn_rollback(f.txn));
    cr_assert_eq(private_pages(&f, 20 * MIB, 40 * MIB), 0);
    end(&f, &m);
}

/* Many new pages: each once in the file, none in the log, their checksums in both. */
Test(txn_fresh, a_bulk_of_new_pages_is_written_once)
{
    struct fixture f;
    struct model m;
    uint64_t seq, used = 36 * MIB;
    begin(&f, &m, DIRTY_BEST);
    OK(fixture_open(&f));
    fixture_extend(&f, 40 * MIB);
    for (uint64_t at = START; at < used; at += PAGE_BYTES)
        fill(&f, &m, at, PAGE_BYTES, (uint8_t)(at / PAGE_BYTES % 255 + 1));
    written = 0;
    file_calls.pwrite = counting_pwrite;
    OK(txn_commit(f.txn, used, &seq));
    file_calls.pwrite = file_calls_system.pwrite;
    cr_assert_leq(written, used + used / 50, "%llu bytes written", (unsigned long long)written);
    committed(&m, used);
    expect_image(&f, &m, "after the commit");
    cr_assert_eq(fixture_bad_checksums(&f, used), 0);
    kill_and_reopen(&f, &m);
    expect_image(&f, &m, "after a kill");
    end(&f, &m);
}

/* W14: new pages in the file whose record could not be written, many or few, are zeros again after a rollback. */
static void taken_back(uint64_t bytes)
{
    struct fixture f;
    struct model m;
    uint64_t seq;
    uint8_t page[PAGE_BYTES];
    begin(&f, &m, DIRTY_BEST);
    OK(fixture_open(&f));
    fill(&f, &m, 0, 1, 5);
    OK(txn_commit(f.txn, START, &seq)); /* the log has its blocks: its next write is the record's */
    committed(&m, START);
    fixture_extend(&f, 4 * MIB);
    fill(&f, &m, MIB, bytes, 6);
    fail_log_writes();
    FAILS(ENOSPC, txn_commit(f.txn, 2 * MIB, &seq));
    faults_remove();
    expect_image(&f, &m, "after a failed commit");
    OK(file_read_at(f.file.fd, page, sizeof page, format_file_offset(MIB)));
    cr_assert_eq(page[0], 6, "or the test proves nothing");
    OK(txn_rollback(f.txn));
    memcpy(m.now, m.committed, MOST);
    expect_image(&f, &m, "after a rollback");
    for (uint64_t at = MIB; at < MIB + bytes; at += PAGE_BYTES) {
        uint64_t entry;
        OK(file_read_at(f.file.fd, page, sizeof page, format_file_offset(at)));
        OK(file_read_at(f.file.fd, &entry, sizeof entry, format_checksum_offset(at)));
        cr_assert(page[0] == 0 && memcmp(page, page + 1, PAGE_BYTES - 1) == 0 && entry == 0);
    }
    end(&f, &m);
}

Test(txn_fresh, pages_of_a_failed_commit_are_zeros_after_a_rollback)
{
    taken_back(8 * PAGE_BYTES);
    taken_back(200 * PAGE_BYTES);
}
