/*
 * test_turn.c -- turns: processes that take them, die in them, and leave the log and the shared words in any state.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dying_calls.h"
#include "txn_fixture.h"

TestSuite(txn_turn, .timeout = 300);

#define PAGES 256
#define BYTES (PAGES * PAGE_BYTES)

/* One turn: the counter at the start of a page, and a copy of it far away. */
static int take_turn(struct fixture *f, bool pass_on, bool checkpoint)
{
    bool changed;
    uint64_t seq;
    int rc = txn_refresh(f->txn, &changed);
    if (rc != 0)
        return rc;
    uint32_t a, b;
    memcpy(&a, f->map.base + 3 * PAGE_BYTES, sizeof a);
    memcpy(&b, f->map.base + 100 * PAGE_BYTES + 2000, sizeof b);
    if (a != b)
        return -1;
    a++;
    memcpy(f->map.base + 3 * PAGE_BYTES, &a, sizeof a);
    memcpy(f->map.base + 100 * PAGE_BYTES + 2000, &a, sizeof a);
    memcpy(f->map.base + (110 + a % 50) * PAGE_BYTES, &a, sizeof a);
    rc = txn_commit(f->txn, BYTES, &seq);
    if (rc == 0 && pass_on)
        rc = txn_sync(f->txn, seq);
    if (rc == 0 && pass_on)
        rc = txn_apply(f->txn);
    if (rc == 0 && checkpoint)
        rc = txn_checkpoint(f->txn);
    f->map.base[7] = 1; /* written outside of a turn: lost */
    return rc;
}

static void pass_turns(void)
{
    fixture_skip_syncs();
    struct fixture a, b, *turn;
    uint32_t count;
    uint64_t random = random_seed();
    fixture_create(&a, BYTES, BYTES);
    a.options.turns = true;
    OK(fixture_open(&a));
    fixture_join(&a, &b);
    for (uint32_t i = 0; i < 200; i++) {
        turn = random_next(&random) % 2 == 0 ? &a : &b;
        /* Sometimes the turn passes without a word, as if its holder had been killed after its unlock. */
        OK(take_turn(turn, random_next(&random) % 3 != 0, random_next(&random) % 10 == 0));
    }
    bool changed;
    OK(txn_refresh(a.txn, &changed));
    memcpy(&count, a.map.base + 3 * PAGE_BYTES, sizeof count);
    cr_assert_eq(count, 200);
    cr_assert_eq(a.map.base[7], 0);
    cr_assert_eq(txn_commit_seq(a.txn), 200);
    OK(txn_checkpoint(a.txn));
    cr_assert_eq(fixture_bad_checksums(&a, BYTES), 0);
    fixture_kill(&b);
    fixture_kill(&a);
    OK(fixture_open(&a));
    memcpy(&count, a.map.base + 3 * PAGE_BYTES, sizeof count);
    cr_assert_eq(count, 200);
    fixture_kill(&a);
    fixture_remove(&a);
}

Test(txn_turn, turns_see_each_others_commits)
{
    pass_turns();
}

Test(txn_turn, turns_see_each_others_commits_where_kernel_pages_are_larger)
{
    fixture_kernel_pages(UNIT_BYTES);
    pass_turns();
}

enum dying { IN_TURN, IN_TURN_AND_CHECKPOINT, IN_CHECKPOINT };

/* One that is killed at its n-th call, if it makes so many; then another takes the turn.  false: it was not killed. */
static bool die_in_turn(struct fixture *a, long n, enum dying where, uint32_t *count)
{
    struct fixture b;
    struct superblock super;
    bool changed;
    uint32_t now;
    int status;
    pid_t child = fork();
    if (child == 0) {
        fixture_join(a, &b);
        if ((where == IN_CHECKPOINT ? txn_refresh(b.txn, &changed) : take_turn(&b, true, false)) != 0)
            _exit(1);
        die_at_call(n);
        if (where == IN_CHECKPOINT) /* of others' commits: the words do not tell of anything new */
            _exit(txn_checkpoint(b.txn) != 0);
        _exit(take_turn(&b, n % 2 == 0, where == IN_TURN_AND_CHECKPOINT) != 0);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) != 1, "call %ld", n);
    OK(take_turn(a, n % 2 == 0, false));
    OK(txn_refresh(a->txn, &changed));
    memcpy(&now, a->map.base + 3 * PAGE_BYTES, sizeof now);
    uint32_t least = where == IN_CHECKPOINT ? 1 : 2;
    cr_assert(now == *count + least || now == *count + 2 * least - 1, "call %ld: %u after %u", n, now, *count);
    *count = now;
    OK(superblock_read(&a->file, &super));
    cr_assert_eq(super.checkpoint, a->txn->wal.at.checkpoint, "call %ld: records go into a log that nobody names", n);
    cr_assert_eq(super.log_salt, a->txn->wal.at.salt);
    return WEXITSTATUS(status) == DYING_EXIT;
}

/* A holder of the turn is killed at each of its system calls; the next one goes on from its last told commit, in the log that the
 * superblock names. */
Test(txn_turn, a_turn_taken_over_from_the_dead)
{
    fixture_skip_syncs();
    struct fixture a;
    fixture_create(&a, BYTES, BYTES);
    a.options.turns = true;
    OK(fixture_open(&a));
    uint32_t count = 0, before = 0;
    for (unsigned where = IN_TURN; where <= IN_CHECKPOINT; where++)
        for (long n = 0; die_in_turn(&a, n, (enum dying)where, &before); n++) {}
    fixture_kill(&a);
    OK(fixture_open(&a));
    memcpy(&count, a.map.base + 3 * PAGE_BYTES, sizeof count);
    cr_assert_eq(count, before);
    cr_assert_eq(fixture_bad_checksums(&a, BYTES), 0);
    fixture_kill(&a);
    fixture_remove(&a);
}

/* Taking the turn fails half-way: the next attempt starts again, and nobody commits on top of what is out of date. */
static void fail_to_take_the_turn(long skip, long count, bool *spent)
{
    struct fixture a, b;
    bool changed;
    uint32_t now;
    fixture_create(&a, BYTES, BYTES);
    a.options.turns = true;
    OK(fixture_open(&a));
    fixture_join(&a, &b);
    OK(take_turn(&a, true, false));
    for (int i = 0; i < 3; i++)
        OK(take_turn(&b, false, false));
    faults_install();
    faults = (struct faults){.pwrite = true,
                             .fdatasync = false,
                             .pread = true,
                             .fault = FAULT_ERROR,
                             .error = ENOSPC,
                             .skip = skip,
                             .count = count};
    int rc = txn_refresh(a.txn, &changed);
    *spent = faults.seen <= skip;
    faults_remove();
    cr_assert(*spent ? rc == 0 : rc == 0 || rc == ENOSPC, "call %ld: %d", skip, rc);
    if (rc != 0) { /* what the words say of the file is true all the same (W16) */
        struct shared_state state;
        OK(shared_read(a.options.shared, &state));
        memcpy(&now, b.map.base + 3 * PAGE_BYTES, sizeof now);
        uint32_t in_file;
        OK(file_read_at(a.file.fd, &in_file, sizeof in_file, format_file_offset(3 * PAGE_BYTES)));
        cr_assert(in_file <= state.file_seq, "call %ld: the file has %u, the words say %llu", skip, in_file,
                  (unsigned long long)state.file_seq);
        a.map.base[5 * PAGE_BYTES] = 1; /* written outside of a turn: lost */
    }
    OK(txn_refresh(a.txn, &changed));
    cr_assert_eq(a.map.base[5 * PAGE_BYTES], 0);
    memcpy(&now, a.map.base + 3 * PAGE_BYTES, sizeof now);
    cr_assert_eq(now, 4, "call %ld: %u", skip, now);
    OK(take_turn(&a, true, false));
    OK(take_turn(&b, true, true));
    memcpy(&now, b.map.base + 3 * PAGE_BYTES, sizeof now);
    cr_assert_eq(now, 6, "call %ld: %u", skip, now);
    cr_assert_eq(fixture_bad_checksums(&b, BYTES), 0);
    fixture_kill(&b);
    fixture_kill(&a);
    fixture_remove(&a);
}

Test(txn_turn, a_turn_that_could_not_be_taken_is_not_half_taken)
{
    bool spent = false;
    for (long call = 0; !spent; call++) {
        fail_to_take_the_turn(call, 1, &spent);
        fail_to_take_the_turn(call, 1000, &spent);
        cr_assert(call < 100);
        cr_assert(!spent || call > 3, "%ld calls prove nothing", call);
    }
}

static int no_fallocate(int fd, int mode, off_t offset, off_t bytes)
{
    (void)fd, (void)mode, (void)offset, (void)bytes;
    errno = EOPNOTSUPP;
    return -1;
}

/* What failed in one process is everybody's; who only hears of it says so. */
Test(txn_turn, a_sync_that_failed_in_another_process_is_told_as_that)
{
    struct fixture a, b;
    fixture_create(&a, BYTES, BYTES);
    a.options.turns = true;
    OK(fixture_open(&a));
    fixture_join(&a, &b);
    OK(take_turn(&b, true, false));
    faults_install();
    faults = (struct faults){.fdatasync = true, .fault = FAULT_ERROR, .error = EIO, .count = 1};
    FAILS(STEAD_FAILED, take_turn(&a, true, false));
    faults_remove();
    FAILS(STEAD_FAILED, take_turn(&a, true, false));
    cr_assert_not_null(strstr(error_last_text(), error_text(EIO)), "%s", error_last_text());
    FAILS(STEAD_FAILED, take_turn(&b, true, false));
    cr_assert_not_null(strstr(error_last_text(), "in another process"), "%s", error_last_text());
    fixture_kill(&b);
    fixture_kill(&a);
    OK(fixture_open(&a));
    fixture_kill(&a);
    fixture_remove(&a);
}

/* mlock, or mlockall before the store is opened, makes every page private without a write: at the first turn, at one that
 * could not be taken and at one later they are dropped all the same, or this process would commit what it saw long ago. */
Test(txn_turn, locked_memory_shows_what_others_committed)
{
    struct fixture a, b;
    bool changed;
    uint32_t now;
    fixture_create(&a, BYTES, BYTES);
    a.options.turns = true;
    OK(fixture_open(&a));
    OK(take_turn(&a, true, false));
    fixture_join(&a, &b);
    if (mlock(b.map.base, BYTES) != 0)
        cr_skip_test("no permission to mlock");
    OK(take_turn(&a, true, true));
    OK(take_turn(&b, true, false));
    memcpy(&now, b.map.base + 3 * PAGE_BYTES, sizeof now);
    cr_assert_eq(now, 3, "the first turn: %u", now);
    OK(take_turn(&a, true, false));
    faults_install();
    faults = (struct faults){.pwrite = true, .pread = true, .fault = FAULT_ERROR, .error = EIO, .count = 1000};
    cr_assert_neq(txn_refresh(b.txn, &changed), 0);
    faults_remove();
    OK(take_turn(&b, true, false));
    OK(mlock(b.map.base, BYTES));
    OK(take_turn(&a, true, true));
    OK(take_turn(&b, true, false));
    memcpy(&now, b.map.base + 3 * PAGE_BYTES, sizeof now);
    cr_assert_eq(now, 7, "%u", now);
    fixture_kill(&b);
    fixture_kill(&a);
    fixture_remove(&a);
}

/* Where blocks cannot be reserved but by writing zeros: none go over what the neighbour appended to the log. */
Test(txn_turn, nobody_writes_zeros_over_anothers_records)
{
    file_calls.fallocate = no_fallocate;
    struct fixture a, b;
    struct report report = {0};
    bool changed;
    uint64_t seq, random = random_seed();
    fixture_create(&a, BYTES, BYTES);
    a.options.turns = true;
    OK(fixture_open(&a));
    fixture_join(&a, &b);
    for (int turn = 0; turn < 12; turn++) { /* the log grows past what either of them knows to be reserved */
        struct fixture *f = turn % 4 == 3 ? &a : &b;
        OK(txn_refresh(f->txn, &changed));
        uint64_t pages = turn % 4 == 3 ? 1 : 60;
        for (uint64_t word = 0; word < pages * PAGE_BYTES / 8; word++) {
            uint64_t value = random_next(&random);
            memcpy(f->map.base + (64 + word / 512) * PAGE_BYTES + word % 512 * 8, &value, sizeof value);
        }
        OK(txn_commit(f->txn, BYTES, &seq));
        OK(txn_sync(f->txn, seq));
        txn_check(f->txn, &report);
        cr_assert_eq(report.problems, 0, "turn %d: %s", turn, report.first);
    }
    cr_assert_gt(a.txn->wal.at.end, 2 * WAL_RESERVE_FIRST_BYTES);
    fixture_kill(&b);
    fixture_kill(&a);
    OK(fixture_open(&a));
    cr_assert_eq(txn_commit_seq(a.txn), 12);
    fixture_kill(&a);
    file_calls = file_calls_system;
    fixture_remove(&a);
}

/* Killed after its record was in the log and before it was told: the next one finds that section undone, and so it stays,
 * also if everybody else dies before a record is written in that place. */
Test(txn_turn, a_section_found_undone_never_comes_back)
{
    fixture_skip_syncs();
    struct fixture a, b;
    bool changed, died = true;
    uint32_t seen, found;
    int status;
    for (long n = 0; died; n++) {
        fixture_create(&a, BYTES, BYTES);
        a.options.turns = true;
        OK(fixture_open(&a));
        OK(take_turn(&a, true, false));
        pid_t child = fork();
        if (child == 0) {
            fixture_join(&a, &b);
            if (txn_refresh(b.txn, &changed) != 0)
                _exit(1);
            die_at_call(n);
            _exit(take_turn(&b, false, false) != 0);
        }
        cr_assert_eq(waitpid(child, &status, 0), child);
        cr_assert(WIFEXITED(status) && WEXITSTATUS(status) != 1, "call %ld", n);
        died = WEXITSTATUS(status) == DYING_EXIT;
        OK(txn_refresh(a.txn, &changed));
        memcpy(&seen, a.map.base + 3 * PAGE_BYTES, sizeof seen);
        fixture_kill(&a);
        OK(fixture_open(&a));
        memcpy(&found, a.map.base + 3 * PAGE_BYTES, sizeof found);
        cr_assert_eq(found, seen, "call %ld: the next one saw %u, recovery finds %u", n, seen, found);
        fixture_kill(&a);
        fixture_remove(&a);
        cr_assert(died || n > 0, "no call was cut");
    }
}

/* Killed while it commits new pages: the next one finds zeros past the end, as after a rollback (W14). */
static bool die_while_growing(uint64_t pages, long n)
{
    struct fixture a, b;
    bool changed;
    uint64_t seq, bytes;
    int status;
    const uint64_t longer = 2 * BYTES;
    fixture_create(&a, BYTES, BYTES);
    a.options.turns = true;
    OK(fixture_open(&a));
    OK(take_turn(&a, true, false));
    pid_t child = fork();
    if (child == 0) {
        fixture_join(&a, &b);
        if (txn_refresh(b.txn, &changed) != 0)
            _exit(1);
        fixture_extend(&b, longer);
        for (uint64_t page = 0; page < pages; page++)
            memset(b.map.base + BYTES + page * PAGE_BYTES, 1 + (int)(page % 7), PAGE_BYTES);
        die_at_call(n);
        _exit(txn_commit(b.txn, longer, &seq) != 0);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) != 1, "call %ld", n);
    OK(txn_refresh(a.txn, &changed));
    OK(file_size(a.file.fd, &bytes));
    cr_assert_geq(format_image_bytes(bytes), longer);
    if (a.txn->used_bytes == BYTES) {
        for (uint64_t at = BYTES; at < longer; at += 8) {
            uint64_t word;
            if (at % PAGE_BYTES == 0 || at % PAGE_BYTES == PAGE_BYTES / 2) {
                OK(file_read_at(a.file.fd, &word, sizeof word, format_file_offset(at)));
                cr_assert_eq(word, 0, "%llu pages, call %ld: image offset %llu", (unsigned long long)pages, n,
                             (unsigned long long)at);
            }
        }
        cr_assert_eq(fixture_bad_checksums(&a, longer), 0, "%llu pages, call %ld", (unsigned long long)pages, n);
    }
    OK(take_turn(&a, true, true));
    fixture_kill(&a);
    fixture_remove(&a);
    return WEXITSTATUS(status) == DYING_EXIT;
}

Test(txn_turn, what_a_killed_one_wrote_past_the_end_is_zeros_for_the_next)
{
    fixture_skip_syncs();
    for (uint64_t pages = 10; pages <= 100; pages += 90)
        for (long n = 0; die_while_growing(pages, n); n++)
            cr_assert_lt(n, 100);
}

/* A commit fails when its new pages are in the file, and even its rollback is not made before the turn passes on. */
Test(txn_turn, new_pages_of_a_failed_commit_harm_nobody_elses)
{
    struct fixture a, b;
    bool changed;
    uint64_t seq;
    const uint64_t longer = 2 * BYTES;
    fixture_create(&a, BYTES, BYTES);
    a.options.turns = true;
    OK(fixture_open(&a));
    fixture_join(&a, &b);
    OK(txn_refresh(a.txn, &changed));
    fixture_extend(&a, longer);
    memset(a.map.base + BYTES, 1, 100 * PAGE_BYTES);
    faults_install();
    faults = (struct faults){
        .path_suffix = "-wal", .pwrite = true, .fault = FAULT_ERROR, .error = ENOSPC, .skip = 0, .count = 2};
    cr_assert_neq(txn_commit(a.txn, longer, &seq), 0);
    cr_assert_neq(a.txn->straight_to, 0, "no new page was written");
    faults_remove();
    OK(txn_refresh(b.txn, &changed));
    OK(map_extend(&b.map, longer));
    for (uint64_t page = 0; page < 100; page++)
        cr_assert_eq(b.map.base[BYTES + page * PAGE_BYTES], 0, "page %llu", (unsigned long long)page);
    memset(b.map.base + BYTES, 2, 90 * PAGE_BYTES);
    OK(txn_commit(b.txn, longer, &seq));
    OK(txn_sync(b.txn, seq));
    OK(txn_refresh(a.txn, &changed));
    cr_assert(changed);
    for (uint64_t page = 0; page < 100; page++)
        cr_assert_eq(a.map.base[BYTES + page * PAGE_BYTES], page < 90 ? 2 : 0, "page %llu", (unsigned long long)page);
    OK(txn_checkpoint(a.txn));
    cr_assert_eq(fixture_bad_checksums(&a, longer), 0);
    fixture_kill(&b);
    fixture_kill(&a);
    fixture_remove(&a);
}

/* The shared words are written by processes that are killed anywhere: one of the two copies is always whole. */
Test(txn_turn, shared_words_survive_a_kill_at_any_store)
{
    uint64_t words[IMAGE_SHARED_BYTES / 8] = {0}, before[IMAGE_SHARED_BYTES / 8], after[IMAGE_SHARED_BYTES / 8];
    struct image_shared *shared = (struct image_shared *)(void *)words;
    struct shared_state state = {.used_bytes = 1}, got;
    FAILS(ENOENT, shared_read(shared, &got));
    shared_write(shared, &state);
    for (uint64_t n = 2; n < 50; n++) {
        memcpy(before, words, sizeof words);
        state.used_bytes = n;
        state.applied_seq = n * 3;
        shared_write(shared, &state);
        memcpy(after, words, sizeof words);
        for (unsigned kept = 0; kept < 200; kept++) { /* any subset of the new words */
            uint64_t random = n * 1000 + kept;
            for (size_t i = 0; i < IMAGE_SHARED_BYTES / 8; i++)
                words[i] = random_next(&random) % 2 == 0 ? before[i] : after[i];
            OK(shared_read(shared, &got));
            cr_assert(got.used_bytes == n || got.used_bytes == n - 1);
            cr_assert_eq(got.applied_seq, got.used_bytes == 1 ? 0 : got.used_bytes * 3);
        }
        memcpy(words, after, sizeof words);
    }
}
