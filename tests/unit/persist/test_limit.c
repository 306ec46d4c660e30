/*
 * test_limit.c -- options.max_private_bytes: what commits leave in memory never exceeds it (W28), whoever holds off their
 * application, and a commit that is refused has changed nothing.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "txn_fixture.h"

TestSuite(txn_limit, .timeout = 300);

#define PAGES 512
#define BYTES (PAGES * PAGE_BYTES)
#define LIMIT_PAGES 200

static void write_pages(struct fixture *f, uint8_t *model, unsigned count, uint64_t *random)
{
    for (unsigned i = 0; i < count; i++) {
        uint64_t at = (random_next(random) % PAGES) * PAGE_BYTES + random_next(random) % PAGE_BYTES;
        f->map.base[at] = model[at] = (uint8_t)(model[at] + 1 + random_next(random) % 255);
    }
}

static uint64_t private_bytes(struct fixture *f)
{
    struct image_stat stat;
    txn_stat(f->txn, &stat);
    return stat.private_bytes;
}

static void run(struct fixture *f)
{
    uint64_t random = random_seed(), seq;
    unsigned refused = 0, alone = 0;
    uint8_t *model = calloc(1, BYTES), *committed = calloc(1, BYTES);
    for (long round = random_rounds(400); round > 0; round--) {
        /* Not by chance: under a slow tool there are 50 rounds, and both refusals have to come. */
        unsigned pages = (unsigned)(round % 8 == 0 ? 300 : 1 + random_next(&random) % 60);
        write_pages(f, model, pages, &random);
        int rc = txn_commit(f->txn, BYTES, &seq);
        if (rc == STEAD_LIMIT) {
            cr_assert_geq(2 * (f->txn->overlay.count + pages), LIMIT_PAGES, "there was room for %u pages", pages);
            if (txn_limit_waits(f->txn)) {
                refused++;
                OK(txn_apply(f->txn));
                OK(txn_commit(f->txn, BYTES, &seq));
            } else {
                alone++;
                cr_assert_geq(2 * pages, LIMIT_PAGES, "%u pages", pages);
                OK(txn_rollback(f->txn));
                memcpy(model, committed, BYTES);
            }
        } else {
            OK(rc);
        }
        memcpy(committed, model, BYTES);
        cr_assert_leq(private_bytes(f), LIMIT_PAGES * PAGE_BYTES, "after a commit of %u pages", pages);
        cr_assert_eq(memcmp(f->map.base, model, BYTES), 0);
        if (random_next(&random) % 5 == 0)
            OK(txn_apply_some(f->txn));
    }
    cr_assert(refused > 0 && alone > 3, "refused %u for others' pages, %u for their own", refused, alone);
    fixture_kill(f);
    OK(fixture_open(f));
    cr_assert_eq(memcmp(f->map.base, committed, BYTES), 0);
    OK(txn_checkpoint(f->txn));
    cr_assert_eq(fixture_bad_checksums(f, BYTES), 0);
    fixture_kill(f);
    free(model);
    free(committed);
}

static void run_on(enum dirty_kind kind)
{
    struct fixture f;
    fixture_skip_syncs();
    fixture_create(&f, BYTES, BYTES);
    f.kind = kind;
    f.options.max_private_bytes = LIMIT_PAGES * PAGE_BYTES;
    int rc = fixture_open(&f);
    if (rc != ENOTSUP) { /* not on this system */
        OK(rc);
        run(&f);
    }
    fixture_remove(&f);
}

Test(txn_limit, holds_after_every_commit)
{
    static const enum dirty_kind kinds[] = {DIRTY_BEST, DIRTY_SCAN, DIRTY_PAGEMAP, DIRTY_COMPARE};
    for (unsigned i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        run_on(kinds[i]);
}

/* Of what is applied long ago as much stays private as is allowed, and no more; of what waits slices are due in time. */
Test(txn_limit, applied_pages_make_way_and_slices_come_early)
{
    struct fixture f;
    uint64_t random = random_seed(), seq;
    uint8_t *model = calloc(1, BYTES);
    fixture_skip_syncs();
    fixture_create(&f, BYTES, BYTES);
    f.options.max_private_bytes = LIMIT_PAGES * PAGE_BYTES;
    OK(fixture_open(&f));
    for (unsigned i = 0; i < 12; i++) {
        write_pages(&f, model, 60, &random);
        OK(txn_commit(f.txn, BYTES, &seq));
        cr_assert_eq(txn_work_due(f.txn) == IMAGE_APPLY, f.txn->overlay.count > LIMIT_PAGES / 4);
        OK(txn_apply(f.txn));
        cr_assert_eq(txn_waiting_bytes(f.txn), 0);
        cr_assert_gt(private_bytes(&f), 0, "nothing stays for the next write");
        cr_assert_leq(private_bytes(&f), LIMIT_PAGES * PAGE_BYTES);
    }
    fixture_kill(&f);
    fixture_remove(&f);
    free(model);
}

/* What was written past the heap's end is in memory, too, and is no part of the commit. */
Test(txn_limit, residents_make_way_for_what_lies_past_the_end)
{
    struct fixture f;
    uint64_t seq;
    fixture_skip_syncs();
    fixture_create(&f, BYTES, BYTES);
    f.options.max_private_bytes = LIMIT_PAGES * PAGE_BYTES;
    OK(fixture_open(&f));
    fixture_extend(&f, BYTES + UNIT_BYTES);
    for (uint64_t round = 0; round < 8; round++) {
        for (uint64_t page = 0; page < LIMIT_PAGES / 4; page++)
            f.map.base[(round % 4 * LIMIT_PAGES / 4 + page) * PAGE_BYTES] = (uint8_t)(round + 1);
        f.map.base[BYTES + round * PAGE_BYTES] = 1;
        OK(txn_commit(f.txn, BYTES, &seq));
        cr_assert_leq(private_bytes(&f), LIMIT_PAGES * PAGE_BYTES, "after commit %u", (unsigned)round);
        OK(txn_apply(f.txn));
    }
    cr_assert_geq(f.txn->carry.count, 4, "nothing lay past the end");
    fixture_kill(&f);
    fixture_remove(&f);
}

/* Pages that go straight into the file are in memory until they are there; no application makes room for them. */
Test(txn_limit, new_pages_count_and_nobody_is_waited_for)
{
    struct fixture f;
    uint64_t seq, longer = BYTES + 2 * LIMIT_PAGES * PAGE_BYTES;
    longer = round_up(longer, UNIT_BYTES);
    fixture_create(&f, BYTES, BYTES);
    f.options.max_private_bytes = LIMIT_PAGES * PAGE_BYTES;
    OK(fixture_open(&f));
    fixture_extend(&f, longer);
    memset(f.map.base + BYTES, 1, longer - BYTES);
    FAILS(STEAD_LIMIT, txn_commit(f.txn, longer, &seq));
    cr_assert_not(txn_limit_waits(f.txn));
    OK(txn_rollback(f.txn));
    memset(f.map.base + BYTES, 1, LIMIT_PAGES * PAGE_BYTES); /* just as much as is allowed */
    OK(txn_commit(f.txn, longer, &seq));
    fixture_kill(&f);
    fixture_remove(&f);
}

/* A commit that needs just what is allowed is not refused for good because another one waits. */
Test(txn_limit, a_commit_as_large_as_the_limit_waits_for_others_only)
{
    struct fixture f;
    uint64_t seq;
    fixture_create(&f, BYTES, BYTES);
    f.options.max_private_bytes = LIMIT_PAGES * PAGE_BYTES;
    OK(fixture_open(&f));
    f.map.base[(PAGES - 1) * PAGE_BYTES] = 1;
    OK(txn_commit(f.txn, BYTES, &seq));
    for (uint64_t page = 0; page < LIMIT_PAGES / 2; page++)
        f.map.base[page * PAGE_BYTES] = 1;
    FAILS(STEAD_LIMIT, txn_commit(f.txn, BYTES, &seq));
    cr_assert(txn_limit_waits(f.txn));
    OK(txn_apply(f.txn));
    OK(txn_commit(f.txn, BYTES, &seq));
    fixture_kill(&f);
    fixture_remove(&f);
}

/* Without a limit: a part of the machine's memory, between 32 and 256 MiB, where pages are protected. */
Test(txn_limit, what_may_wait_suits_the_machine)
{
    static const enum dirty_kind kinds[] = {DIRTY_BEST, DIRTY_PAGEMAP};
    uint64_t part = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) / 128 / PAGE_BYTES;
    for (unsigned i = 0; i < 2; i++) {
        struct fixture f;
        fixture_create(&f, BYTES, BYTES);
        f.kind = kinds[i];
        OK(fixture_open(&f));
        uint64_t expected = !dirty_protects(f.txn->dirty) || part < 8192 ? 8192 : part > 65536 ? 65536 : part;
        cr_assert_leq(f.txn->overlay_limit, expected);
        cr_assert_geq(f.txn->overlay_limit + 64, expected, "but for rounding");
        fixture_kill(&f);
        fixture_remove(&f);
    }
}

/* W30.  With the parts that limit.c takes: 64 MiB and 32 MiB at least, but for little memory; 256 MiB at most. */
Test(txn_limit, small_memory_has_small_caches)
{
    const uint64_t mib = UINT64_C(1) << 20;
    for (uint64_t memory = 1; memory < UINT64_C(1) << 50; memory = memory * 3 / 2 + 1) {
        for (unsigned generous = 0; generous < 2; generous++) {
            uint64_t resident = limit_part(memory, generous ? 64 : 0, 16384, 16) * PAGE_BYTES;
            uint64_t overlay = limit_part(memory, generous ? 128 : 0, 8192, 32) * PAGE_BYTES;
            cr_assert_leq(resident + 2 * overlay, memory / 8 + 3 * mib, "%lu bytes", (unsigned long)memory);
            cr_assert(resident >= mib && resident <= 256 * mib && overlay >= mib && overlay <= 256 * mib);
        }
    }
    cr_assert_eq(limit_part(UINT64_C(24) << 30, 64, 16384, 16), 65536);
    cr_assert_eq(limit_part(UINT64_C(24) << 30, 128, 8192, 32), 24 * 8192 / 4);
    cr_assert_eq(limit_part(UINT64_C(24) << 30, 0, 8192, 32), 8192);
    cr_assert_eq(limit_part(512 * mib, 64, 16384, 16), 8192);
    cr_assert_eq(limit_part(512 * mib, 128, 8192, 32), 4096);
}
