/*
 * test_dirty_sparse.c -- page tables that are scanned are kept sparse: what was only read leaves them, what is private stays
 * with every byte (W29).  When that is done: test_thin.c.
 *
 * Method: a mapping of a file whose pages are told apart; what is mapped is counted by the pagemap's own bits.
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "persist/dirty_internal.h"
#include "txn_fixture.h"

#define PAGES UINT64_C(4096)
#define BYTES (PAGES * PAGE_BYTES)

TestSuite(txn_dirty_sparse, .timeout = 300);

struct range {
    int fd, pagemap;
    uint8_t *base;
};

static struct range range_open(void)
{
    char path[300];
    const char *where = getenv("TMPDIR");
    (void)snprintf(path, sizeof path, "%s/stead-sparse-XXXXXX", where != NULL ? where : "/tmp");
    struct range r = {.fd = mkstemp(path), .pagemap = open("/proc/self/pagemap", O_RDONLY)};
    cr_assert_geq(r.fd, 0);
    cr_assert_geq(r.pagemap, 0);
    (void)unlink(path);
    cr_assert_eq(ftruncate(r.fd, (off_t)BYTES), 0);
    for (uint64_t page = 0; page < PAGES; page++)
        cr_assert_eq(pwrite(r.fd, &page, sizeof page, (off_t)(page * PAGE_BYTES)), (ssize_t)sizeof page);
    r.base = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, r.fd, 0);
    cr_assert_neq((void *)r.base, MAP_FAILED);
    return r;
}

static void range_close(struct range *r)
{
    munmap(r->base, BYTES);
    close(r->fd);
    close(r->pagemap);
}

static uint64_t *word(const struct range *r, uint64_t page)
{
    return (uint64_t *)(void *)(r->base + page * PAGE_BYTES);
}

static uint64_t mapped(const struct range *r)
{
    static uint64_t bits[PAGES];
    uint64_t count = 0;
    cr_assert_eq(pread(r->pagemap, bits, sizeof bits, (off_t)((uintptr_t)r->base / PAGE_BYTES * sizeof *bits)),
                 (ssize_t)sizeof bits);
    for (uint64_t page = 0; page < PAGES; page++)
        count += bits[page] >> 63;
    return count;
}

/* Until all of it is mapped: a machine short of memory takes pages away meanwhile. */
static void map_all(const struct range *r)
{
    for (unsigned tries = 0; tries < 100; tries++) {
        for (uint64_t page = 0; page < PAGES; page++)
            cr_assert_eq(*word(r, page) & 0xffffffff, page);
        if (mapped(r) == PAGES)
            return;
    }
    cr_assert_fail("%llu of %llu pages are mapped", (unsigned long long)mapped(r), (unsigned long long)PAGES);
}

/* One page in `step` is written. */
static void keeps_every_byte(uint64_t step, uint64_t mapped_most)
{
    struct range r = range_open();
    struct page_list none = {0};
    for (uint64_t page = step / 2; page < PAGES; page += step)
        *word(&r, page) |= UINT64_C(1) << 40;
    if (dirty_scan_ioctl(r.pagemap, r.base, 0, BYTES, false, false, &none) != 0) {
        (void)fprintf(stderr, "this kernel has no PAGEMAP_SCAN\n");
    } else {
        map_all(&r);
        struct page_list found = {0};
        OK(dirty_sparse_zap(r.pagemap, r.base, BYTES, &found));
        cr_assert_eq(found.count, (PAGES - step / 2 + step - 1) / step * (step / 2 < PAGES));
        for (size_t i = 0; i < found.count; i++)
            cr_assert_eq(found.page[i], step / 2 + i * step);
        page_list_free(&found);
        cr_assert_leq(mapped(&r), mapped_most, "%llu pages are mapped", (unsigned long long)mapped(&r));
        for (uint64_t page = 0; page < PAGES; page++)
            cr_assert_eq(*word(&r, page), page | (uint64_t)(page % step == step / 2) << 40, "page %llu",
                         (unsigned long long)page);
    }
    page_list_free(&none);
    range_close(&r);
}

Test(txn_dirty_sparse, a_few_private_pages_stay_with_every_byte)
{
    keeps_every_byte(512, PAGES / 512);
}
Test(txn_dirty_sparse, many_private_pages_stay_with_every_byte)
{
    keeps_every_byte(7, PAGES); /* no gap is worth a call */
}
Test(txn_dirty_sparse, nothing_private_leaves_nothing_mapped)
{
    keeps_every_byte(2 * PAGES, 0);
}

/* The program pinned what it reads (mlockall with MCL_ONFAULT): it stays. */
Test(txn_dirty_sparse, locked_memory_stays_mapped)
{
    struct range r = range_open();
    cr_assert_eq(mprotect(r.base, BYTES, PROT_READ), 0);
    if (mlock2(r.base, BYTES, MLOCK_ONFAULT) == 0) {
        map_all(&r);
        struct page_list found = {0};
        OK(dirty_sparse_zap(r.pagemap, r.base, BYTES, &found));
        page_list_free(&found);
        cr_assert_eq(mapped(&r), PAGES);
    } else {
        (void)fprintf(stderr, "memory cannot be locked here\n");
    }
    range_close(&r);
}
