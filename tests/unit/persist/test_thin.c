/*
 * test_thin.c -- where private pages cost every commit they go home: when that is due, by numbers alone; and, done after each
 * commit, that nothing is lost, that little stays private, and that a kill leaves the last commit.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "txn_fixture.h"

TestSuite(txn_thin, .timeout = 300);

#define PAGES 4096
#define BYTES (PAGES * PAGE_BYTES) /* 16 MiB: 8 page tables */

/* ---- when ---- */

static unsigned commits_until_due(struct thin *thin, uint64_t cost_ns, uint64_t waiting_pages)
{
    unsigned commits = 1;
    while (!thin_due(thin, cost_ns, waiting_pages))
        cr_assert_lt(commits++, 100000);
    thin->cost_ns = thin->asked_cost_ns; /* done at once */
    return commits;
}

Test(txn_thin, cheap_commits_are_let_alone)
{
    struct thin thin = {0};
    for (int i = 0; i < 1000; i++)
        cr_assert_not(thin_due(&thin, 5000, 1000000));
}

Test(txn_thin, dear_commits_are_paid_a_few_times_and_then_no_more)
{
    struct thin thin = {0};
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(commits_until_due(&thin, 1000000, 0), 4);
        for (int j = 0; j < 10; j++)
            cr_assert_not(thin_due(&thin, 5000, 0)); /* it was worth it */
    }
}

Test(txn_thin, attempts_that_gain_nothing_become_rare)
{
    struct thin thin = {0};
    unsigned waited = 0;
    cr_assert_eq(commits_until_due(&thin, 1000000, 0), 4);
    cr_assert_eq(commits_until_due(&thin, 1000000, 0), 8);
    cr_assert_eq(commits_until_due(&thin, 1000000, 0), 16);
    for (int i = 0; i < 5; i++)
        waited = commits_until_due(&thin, 1000000, 0);
    cr_assert_eq(waited, 64);
    cr_assert_eq(commits_until_due(&thin, 30000, 0), 4, "the last one gained");
}

/* What commits pay in vain until then is what going home costs: a slow disk is seldom asked. */
Test(txn_thin, a_dear_way_home_is_gone_as_seldom_as_it_is_dear)
{
    struct thin thin = {0};
    cr_assert_eq(commits_until_due(&thin, 20000, 500), 500 * 2000 / 20000, "for many pages, before a price is known");
    for (int i = 0; i < 10; i++) {
        thin_paid(&thin, 10000000);
        cr_assert_not(thin_due(&thin, 5000, 0));
    }
    unsigned slow = commits_until_due(&thin, 20000, 1);
    cr_assert(slow >= 490 && slow <= 500, "%u commits of 20 us before one way of 10 ms", slow);
    for (int i = 0; i < 20; i++)
        thin_paid(&thin, 100000);
    cr_assert_not(thin_due(&thin, 5000, 0));
    cr_assert_leq(commits_until_due(&thin, 20000, 1), 6);
}

/* ---- that ---- */

static void do_what_is_due(struct fixture *f)
{
    if (txn_work_due(f->txn) == IMAGE_APPLY)
        OK(txn_apply_some(f->txn));
}

static uint64_t private_pages(const struct fixture *f)
{
    static uint64_t bits[PAGES];
    uint64_t count = 0;
    int fd = open("/proc/self/pagemap", O_RDONLY);
    cr_assert_geq(fd, 0);
    cr_assert_eq(pread(fd, bits, sizeof bits, (off_t)((uintptr_t)f->map.base / PAGE_BYTES * sizeof *bits)),
                 (ssize_t)sizeof bits);
    close(fd);
    for (uint64_t page = 0; page < PAGES; page++)
        count += (bits[page] >> 62 != 0) && (bits[page] >> 61 & 1) == 0;
    return count;
}

static void write_randomly(struct fixture *f, uint8_t *model, unsigned pages, uint64_t *random)
{
    for (unsigned i = 0; i < pages; i++) {
        bool near = random_next(random) % 3 == 0; /* the same few pages over and over */
        uint64_t at = random_next(random) % (near ? 4 * PAGE_BYTES : BYTES) / 8 * 8, word = random_next(random);
        memcpy(f->map.base + at, &word, sizeof word);
        memcpy(model + at, &word, sizeof word);
    }
}

static void goes_home(enum dirty_kind kind, bool turns)
{
    enum { PAGES_A_COMMIT = 6, LEFT_MOST = 40 };
    struct fixture f;
    uint64_t random = random_seed(), seq, most = 0;
    uint8_t *model = calloc(1, BYTES), *committed = calloc(1, BYTES);
    fixture_skip_syncs();
    fixture_create(&f, BYTES, BYTES);
    f.kind = kind;
    f.options.turns = turns;
    int rc = fixture_open(&f);
    if (rc == ENOTSUP) {
        (void)fprintf(stderr, "this kind does not work here\n");
    } else {
        OK(rc);
        for (long i = 0; i < random_rounds(300); i++) {
            thin_when = i < 200 || random_next(&random) % 4 == 0 ? THIN_ALWAYS : THIN_NEVER;
            write_randomly(&f, model, PAGES_A_COMMIT, &random);
            if (random_next(&random) % 16 == 0) {
                OK(txn_rollback(f.txn));
                memcpy(model, committed, BYTES);
            }
            OK(txn_commit(f.txn, BYTES, &seq));
            memcpy(committed, model, BYTES);
            if (random_next(&random) % 5 != 0) /* else a reader holds it off */
                do_what_is_due(&f);
            cr_assert_eq(memcmp(f.map.base, model, BYTES), 0, "after commit %llu", (unsigned long long)seq);
            if (i >= 100 && i < 200)
                most = max_u64(most, private_pages(&f));
            if (random_next(&random) % 50 == 0) {
                fixture_kill(&f);
                OK(fixture_open(&f));
                cr_assert_eq(memcmp(f.map.base, committed, BYTES), 0, "after a kill");
            }
        }
        cr_assert_leq(most, LEFT_MOST * PAGES_A_COMMIT, "%llu pages were private", (unsigned long long)most);
        OK(txn_checkpoint(f.txn));
        cr_assert_eq(fixture_bad_checksums(&f, BYTES), 0);
        fixture_kill(&f);
    }
    free(model);
    free(committed);
    fixture_remove(&f);
}

Test(txn_thin, pages_go_home_with_pagemap_scan)
{
    goes_home(DIRTY_SCAN, false);
}
Test(txn_thin, pages_go_home_with_pagemap_bits)
{
    goes_home(DIRTY_PAGEMAP, false);
}
Test(txn_thin, pages_go_home_in_turns)
{
    goes_home(DIRTY_SCAN, true);
}
