/*
 * test_tail.c -- the mark at the end of a store file: what it allows, what it refuses, where it stands (T1, T2 in tail.c).
 * That it catches copies is shown by tests/crash/test_copy.c.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "persist/tail.h"
#include "txn_fixture.h"

static struct fixture f;

static void setup(void)
{
    fixture_create(&f, 4 * UNIT_BYTES, 2 * UNIT_BYTES);
}

static void teardown(void)
{
    faults_remove();
    fixture_remove(&f);
}

TestSuite(tail, .init = setup, .fini = teardown, .timeout = 300);

static int open_file(void)
{
    int fd = open(f.path, O_RDWR | O_CLOEXEC);
    cr_assert_geq(fd, 0);
    return fd;
}

static uint64_t end_of(int fd)
{
    uint64_t bytes;
    OK(file_size(fd, &bytes));
    return bytes;
}

Test(tail, allows_nothing_newer_than_it_says_and_never_falls)
{
    int fd = open_file();
    OK(tail_raise(fd, f.super.id, 3, 100));
    OK(tail_check(fd, f.super.id, 3, 100));
    OK(tail_check(fd, f.super.id, 4, 101));
    FAILS(STEAD_CORRUPT, tail_check(fd, f.super.id, 3, 99));
    FAILS(STEAD_CORRUPT, tail_check(fd, f.super.id, 2, 100));
    OK(tail_raise(fd, f.super.id, 2, 50)); /* says less: stays */
    FAILS(STEAD_CORRUPT, tail_check(fd, f.super.id, 3, 99));
    for (uint64_t seq = 101; seq < 110; seq++) {
        OK(tail_raise(fd, f.super.id, 3 + seq / 105, seq));
        OK(tail_check(fd, f.super.id, 3 + seq / 105, seq));
        FAILS(STEAD_CORRUPT, tail_check(fd, f.super.id, 9, seq - 1));
    }
    OK(tail_raise(fd, f.super.id, 6, 109)); /* no commit since: a close is about to punch what is free */
    OK(tail_check(fd, f.super.id, 6, 109));
    FAILS(STEAD_CORRUPT, tail_check(fd, f.super.id, 5, 109));
    OK(tail_raise(fd, f.super.id, 5, 110)); /* neither of the two falls */
    OK(tail_check(fd, f.super.id, 6, 110));
    FAILS(STEAD_CORRUPT, tail_check(fd, f.super.id, 5, 110));
    FAILS(STEAD_CORRUPT, tail_check(fd, f.super.id, 6, 109));
    FAILS(STEAD_CORRUPT, tail_check(fd, (const uint8_t *)"another store...", 9, 200));
    cr_assert_eq(end_of(fd) % UNIT_BYTES, TAIL_BYTES);
    close(fd);
}

/* The word of where the mark came from is in no checksum. */
Test(tail, a_former_place_that_makes_no_sense_is_let_be)
{
    int fd = open_file();
    const uint64_t at = tail_offset(end_of(fd));
    const uint64_t places[] = {at, at + UNIT_BYTES, at - UNIT_BYTES + 8, UINT64_MAX - UNIT_BYTES + 1};
    OK(tail_raise(fd, f.super.id, 3, 100));
    for (unsigned i = 0; i < sizeof places / sizeof places[0]; i++) {
        OK(file_write_at(fd, &places[i], sizeof places[i], at + offsetof(struct tail, moved_from)));
        OK(tail_confirm(fd, f.super.id));
        OK(tail_check(fd, f.super.id, 3, 100));
        FAILS(STEAD_CORRUPT, tail_check(fd, f.super.id, 3, 99)); /* the mark is still there */
    }
    close(fd);
}

Test(tail, every_length_but_one_is_refused)
{
    int fd = open_file();
    uint64_t bytes = end_of(fd);
    for (uint64_t less = 1; less <= bytes; less += less < 200 ? 1 : 509) {
        cr_assert_eq(ftruncate(fd, (off_t)(bytes - less)), 0);
        int rc = tail_check(fd, f.super.id, 9, 200);
        cr_assert(rc == STEAD_CORRUPT || (bytes - less) % UNIT_BYTES == TAIL_BYTES, "%llu bytes less: %d",
                  (unsigned long long)less, rc);
    }
    close(fd);
}

/* One limit torn at any byte while it is raised: the other serves, and it is the former one. */
Test(tail, a_raise_torn_at_any_byte_leaves_the_limit_before_it)
{
    uint8_t before[TAIL_BYTES], after[TAIL_BYTES], torn[TAIL_BYTES];
    int fd = open_file();
    uint64_t at = tail_offset(end_of(fd));
    for (uint64_t seq = 10; seq < 14; seq++) {
        OK(tail_raise(fd, f.super.id, 1, seq));
        OK(file_read_at(fd, before, sizeof before, at));
        OK(tail_raise(fd, f.super.id, 1, seq + 1));
        OK(file_read_at(fd, after, sizeof after, at));
        for (size_t cut = 0; cut <= TAIL_BYTES; cut++) {
            memcpy(torn, after, cut);
            memcpy(torn + cut, before + cut, TAIL_BYTES - cut);
            OK(file_write_at(fd, torn, sizeof torn, at));
            int rc = tail_check(fd, f.super.id, 1, seq);
            cr_assert(rc == 0 || memcmp(torn, after, sizeof torn) == 0, "cut at %zu: %s", cut, error_last_text());
            FAILS(STEAD_CORRUPT, tail_check(fd, f.super.id, 1, seq - 1));
        }
    }
    close(fd);
}

Test(tail, any_flipped_bit_is_refused_or_tells_no_less)
{
    int fd = open_file();
    uint64_t at = tail_offset(end_of(fd));
    OK(tail_raise(fd, f.super.id, 1, 20));
    OK(tail_raise(fd, f.super.id, 1, 21));
    for (uint64_t bit = 0; bit < TAIL_BYTES * 8; bit++) {
        uint8_t byte;
        OK(file_read_at(fd, &byte, 1, at + bit / 8));
        byte ^= (uint8_t)(1u << bit % 8);
        OK(file_write_at(fd, &byte, 1, at + bit / 8));
        FAILS(STEAD_CORRUPT, tail_check(fd, f.super.id, 1, 19));
        byte ^= (uint8_t)(1u << bit % 8);
        OK(file_write_at(fd, &byte, 1, at + bit / 8));
    }
    close(fd);
}

/* What a power cut leaves when the length got to the disk and the bytes did not. */
Test(tail, zeros_are_no_mark_and_no_damage)
{
    int fd = open_file();
    OK(tail_clear(fd));
    OK(tail_check(fd, f.super.id, 0, 0));
    OK(tail_raise(fd, f.super.id, 0, 5));
    FAILS(STEAD_CORRUPT, tail_check(fd, f.super.id, 0, 4));
    close(fd);
}

Test(tail, moves_with_the_end_and_leaves_zeros)
{
    static const uint8_t zeros[TAIL_BYTES];
    uint8_t old[TAIL_BYTES];
    int fd = open_file();
    uint64_t from = tail_offset(end_of(fd)), to = from + 3 * UNIT_BYTES;
    OK(tail_raise(fd, f.super.id, 2, 30));
    OK(tail_move(fd, from, to, f.super.id));
    cr_assert_eq(end_of(fd), to + TAIL_BYTES);
    OK(file_read_at(fd, old, sizeof old, from));
    cr_assert_arr_eq(old, zeros, sizeof old);
    FAILS(STEAD_CORRUPT, tail_check(fd, f.super.id, 2, 29));
    OK(tail_move(fd, from, to, f.super.id)); /* again: nothing to do */
    cr_assert_eq(end_of(fd), to + TAIL_BYTES);
    close(fd);
}

/* Every call of a move fails once: the mark stands at the end, where it was or where it went. */
/* A mark that was half-written and could not be cut off: the one before it is in the image by now. */
Test(tail, a_longer_file_without_a_mark_is_no_growth_by_another)
{
    int fd = open_file();
    const uint64_t at = tail_offset(end_of(fd));
    OK(tail_raise(fd, f.super.id, 3, 100));
    OK(tail_move(fd, at - 2 * UNIT_BYTES, at - UNIT_BYTES, f.super.id)); /* somebody else was faster */
    OK(tail_check(fd, f.super.id, 3, 100));
    OK(file_write_at(fd, "half a mark", 11, at));
    FAILS(EIO, tail_move(fd, at - 2 * UNIT_BYTES, at - UNIT_BYTES, f.super.id));
    close(fd);
}

/* Where blocks can be reserved only by writing them. */
Test(tail, a_move_writes_nothing_below_the_old_mark)
{
    static const char theirs[] = "what another process committed";
    char now[sizeof theirs];
    int fd = open_file();
    const uint64_t at = tail_offset(end_of(fd));
    OK(tail_raise(fd, f.super.id, 3, 100));
    OK(file_write_at(fd, theirs, sizeof theirs, at - UNIT_BYTES));
    faults_install();
    faults = (struct faults){.fallocate = true, .fault = FAULT_ERROR, .error = EOPNOTSUPP, .count = 1000};
    OK(tail_move(fd, at - UNIT_BYTES, at + 2 * UNIT_BYTES, f.super.id));
    faults_remove();
    OK(file_read_at(fd, now, sizeof now, at - UNIT_BYTES));
    cr_assert_eq(memcmp(now, theirs, sizeof now), 0);
    cr_assert_eq(tail_offset(end_of(fd)), at + 2 * UNIT_BYTES);
    OK(tail_check(fd, f.super.id, 3, 100));
    close(fd);
}

Test(tail, a_move_may_fail_at_any_call)
{
    int fd = open_file();
    uint64_t from = tail_offset(end_of(fd)), to = from + UNIT_BYTES;
    OK(tail_raise(fd, f.super.id, 2, 30));
    faults_install();
    for (long call = 0;; call++) {
        faults = (struct faults){
            .pwrite = true, .fallocate = true, .fault = FAULT_ERROR, .error = ENOSPC, .skip = call, .count = 1};
        int rc = tail_move(fd, from, to, f.super.id);
        bool done = faults.seen <= call;
        faults = (struct faults){0};
        FAILS(STEAD_CORRUPT, tail_check(fd, f.super.id, 2, 29));
        OK(tail_check(fd, f.super.id, 2, 30));
        cr_assert_eq(end_of(fd), (rc == 0 || rc == STEAD_FAILED ? to : from) + TAIL_BYTES, "call %ld: %d", call, rc);
        if (done)
            break;
        cr_assert_neq(rc, 0);
        if (rc == STEAD_FAILED) { /* told: the old place is not zeros */
            from = to;
            to += UNIT_BYTES;
        }
    }
    close(fd);
}

/* A file whose pages may be newer than its log: recovery does not touch it. */
Test(tail, recovery_refuses_a_file_ahead_of_its_log)
{
    uint64_t seq;
    char log[320], kept[320];
    OK(fixture_open(&f));
    (void)snprintf(log, sizeof log, "%s-wal", f.path);
    (void)snprintf(kept, sizeof kept, "%s-wal-kept", f.path);
    memset(f.map.base, 1, 64);
    OK(txn_commit(f.txn, 2 * UNIT_BYTES, &seq));
    OK(txn_sync(f.txn, seq));
    fixture_copy_file(log, kept);
    memset(f.map.base + 64, 2, 64);
    OK(txn_commit(f.txn, 2 * UNIT_BYTES, &seq));
    OK(txn_apply(f.txn));
    fixture_kill(&f);
    OK(file_rename(kept, log)); /* the log as it was one commit ago */
    FAILS(STEAD_CORRUPT, fixture_open(&f));
    cr_assert_not_null(strstr(error_last_text(), "copied while"), "%s", error_last_text());
}

static long calls_left;
static ssize_t dying_pwrite(int fd, const void *buffer, size_t bytes, off_t offset)
{
    if (calls_left-- > 0)
        return file_calls_system.pwrite(fd, buffer, bytes, offset);
    errno = EIO; /* killed: nothing comes after it */
    return -1;
}

/* TURNS: a process is killed in a move; the next one with the turn finishes it, and leaves alone what is no mark. */
Test(tail, a_move_cut_off_is_finished_by_the_next)
{
    static const uint8_t zeros[TAIL_BYTES];
    uint8_t old[TAIL_BYTES];
    for (long calls = 0; calls < 2; calls++) {
        int fd = open_file();
        uint64_t from = tail_offset(end_of(fd)), to = from + UNIT_BYTES;
        OK(tail_raise(fd, f.super.id, 2, 30));
        file_calls.pwrite = dying_pwrite;
        calls_left = calls;
        (void)tail_move(fd, from, to, f.super.id);
        file_calls = file_calls_system;
        OK(tail_confirm(fd, f.super.id));
        OK(file_read_at(fd, old, sizeof old, from));
        cr_assert_arr_eq(old, zeros, sizeof old, "after %ld calls", calls);
        FAILS(STEAD_CORRUPT, tail_check(fd, f.super.id, 2, 29));
        OK(tail_check(fd, f.super.id, 2, 30));
        OK(file_write_at(fd, "the image's", 11, from));
        OK(file_write_at(fd, &from, sizeof from, to + offsetof(struct tail, moved_from)));
        OK(tail_confirm(fd, f.super.id));
        OK(file_read_at(fd, old, sizeof old, from));
        cr_assert_arr_eq(old, "the image's", 11);
        close(fd);
    }
}

static int move_later_and_confirm(int fd, uint64_t from, uint64_t to)
{
    int rc = tail_move_later(fd, from, to, f.super.id);
    return rc == 0 ? tail_confirm(fd, f.super.id) : rc;
}

/* SOLE: moved twice before it is confirmed, the first place keeps its mark until then, and the one between none. */
Test(tail, moved_later_leaves_the_durable_mark_until_it_is_confirmed)
{
    static const uint8_t zeros[TAIL_BYTES];
    uint8_t kept[TAIL_BYTES], old[TAIL_BYTES];
    int fd = open_file();
    uint64_t first = tail_offset(end_of(fd)), second = first + UNIT_BYTES, third = second + 3 * UNIT_BYTES;
    OK(tail_raise(fd, f.super.id, 2, 30));
    OK(file_read_at(fd, kept, sizeof kept, first));
    OK(tail_move_later(fd, first, second, f.super.id));
    cr_assert_eq(end_of(fd), second + TAIL_BYTES);
    OK(tail_move_later(fd, second, third, f.super.id));
    OK(tail_move_later(fd, second, third, f.super.id)); /* again: nothing to do */
    cr_assert_eq(end_of(fd), third + TAIL_BYTES);
    OK(file_read_at(fd, old, sizeof old, first));
    cr_assert_arr_eq(old, kept, sizeof old);
    OK(file_read_at(fd, old, sizeof old, second));
    cr_assert_arr_eq(old, zeros, sizeof old);
    OK(tail_raise(fd, f.super.id, 2, 31));
    FAILS(STEAD_CORRUPT, tail_check(fd, f.super.id, 2, 30));
    OK(tail_confirm(fd, f.super.id));
    OK(file_read_at(fd, old, sizeof old, first));
    cr_assert_arr_eq(old, zeros, sizeof old);
    FAILS(STEAD_CORRUPT, tail_check(fd, f.super.id, 2, 30));
    OK(tail_confirm(fd, f.super.id)); /* nothing to do */
    close(fd);
}

Test(tail, a_move_to_be_confirmed_may_fail_at_any_call)
{
    int fd = open_file();
    uint64_t from = tail_offset(end_of(fd)), to = from + UNIT_BYTES;
    OK(tail_raise(fd, f.super.id, 2, 30));
    faults_install();
    for (long call = 0;; call++) {
        faults = (struct faults){
            .pwrite = true, .fallocate = true, .fault = FAULT_ERROR, .error = ENOSPC, .skip = call, .count = 1};
        int rc = move_later_and_confirm(fd, from, to);
        bool done = faults.seen <= call;
        faults = (struct faults){0};
        FAILS(STEAD_CORRUPT, tail_check(fd, f.super.id, 2, 29));
        OK(tail_check(fd, f.super.id, 2, 30));
        if (done)
            break;
        cr_assert_neq(rc, 0);
        from = tail_offset(end_of(fd));
        to = from + UNIT_BYTES;
    }
    cr_assert_eq(end_of(fd), to + TAIL_BYTES);
    close(fd);
}

/* A durable move, or one that had to write its room, begins with an end that is confirmed: it tells of one former place only. */
Test(tail, a_move_after_one_to_be_confirmed_leaves_neither_former_place)
{
    static const uint8_t zeros[TAIL_BYTES];
    for (unsigned writes_room = 0; writes_room < 2; writes_room++) {
        uint8_t old[TAIL_BYTES];
        int fd = open_file();
        uint64_t first = tail_offset(end_of(fd)), second = first + UNIT_BYTES, third = second + UNIT_BYTES;
        OK(tail_raise(fd, f.super.id, 2, 30));
        OK(tail_move_later(fd, first, second, f.super.id));
        if (writes_room != 0) {
            faults_install();
            faults = (struct faults){.fallocate = true, .fault = FAULT_ERROR, .error = EOPNOTSUPP, .count = 100};
            OK(tail_move_later(fd, second, third, f.super.id));
            faults_remove();
        } else {
            OK(tail_move(fd, second, third, f.super.id));
        }
        for (uint64_t at = first; at < third; at += UNIT_BYTES) {
            OK(file_read_at(fd, old, sizeof old, at));
            cr_assert_arr_eq(old, zeros, sizeof old, "%llu", (unsigned long long)at);
        }
        OK(tail_check(fd, f.super.id, 2, 30));
        close(fd);
    }
}

static unsigned pieces_left;

static ssize_t half_then_full(int fd, const void *buffer, size_t bytes, off_t offset)
{
    if (pieces_left-- > 0)
        return file_calls_system.pwrite(fd, buffer, bytes / 2, offset);
    errno = ENOSPC;
    return -1;
}

Test(tail, a_mark_half_written_is_cut_off)
{
    int fd = open_file();
    uint64_t before = end_of(fd), from = tail_offset(before);
    OK(tail_raise(fd, f.super.id, 2, 30));
    pieces_left = 1;
    file_calls.pwrite = half_then_full;
    FAILS(ENOSPC, tail_move_later(fd, from, from + UNIT_BYTES, f.super.id));
    file_calls = file_calls_system;
    cr_assert_eq(end_of(fd), before);
    OK(tail_check(fd, f.super.id, 2, 30));
    close(fd);
}
