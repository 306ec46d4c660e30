/*
 * test_recover.c -- what a reopened store shows: a prefix of its commits, never a mixture; and what is refused.
 * Recovery itself is cut off at each of its system calls, twice in a row, and must come to the same end.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dying_calls.h"
#include "persist/replay.h"
#include "persist/scrub.h"
#include "persist/tail.h"
#include "txn_fixture.h"

TestSuite(txn_recover, .timeout = 300);

#define PAGES 256
#define BYTES (PAGES * PAGE_BYTES)
#define GROWN (GROUP0_IMAGE_BYTES + UNIT_BYTES)

/* Commit number n: byte n of each of some pages, so that a mixture of two is seen. */
static void make_commit(struct fixture *f, unsigned n)
{
    uint64_t seq;
    for (unsigned i = 0; i < 4; i++)
        f->map.base[(i * 50 + n % 7) * PAGE_BYTES + 17 * n % 4000] = (uint8_t)n;
    memset(f->map.base + 200 * PAGE_BYTES, (int)n, 20 * PAGE_BYTES);
    OK(txn_commit(f->txn, BYTES, &seq));
}

/* The number of the commit that the image shows; fails on a mixture. */
static unsigned shown_commit(const uint8_t *base)
{
    uint8_t *want = calloc(1, BYTES);
    unsigned shown = base[200 * PAGE_BYTES];
    for (unsigned n = 1; n <= shown; n++) {
        for (unsigned i = 0; i < 4; i++)
            want[(i * 50 + n % 7) * PAGE_BYTES + 17 * n % 4000] = (uint8_t)n;
        memset(want + 200 * PAGE_BYTES, (int)n, 20 * PAGE_BYTES);
    }
    bool equal = memcmp(base, want, BYTES) == 0;
    for (uint64_t i = 0; i < BYTES && !equal; i++)
        if (base[i] != want[i])
            cr_assert_fail("byte %llu of commit %u is %u, not %u", (unsigned long long)i, shown, base[i], want[i]);
    free(want);
    return shown;
}

static void copy_store(const struct fixture *f, const char *name)
{
    char to[400], from[400];
    (void)snprintf(to, sizeof to, "%s/%s", f->directory, name);
    fixture_copy_file(f->path, to);
    (void)snprintf(to, sizeof to, "%s/%s-wal", f->directory, name);
    (void)snprintf(from, sizeof from, "%s-wal", f->path);
    if (access(from, F_OK) == 0)
        fixture_copy_file(from, to);
}

static void restore_store(const struct fixture *f, const char *name)
{
    char to[400], from[400];
    (void)snprintf(from, sizeof from, "%s/%s", f->directory, name);
    fixture_copy_file(from, f->path);
    (void)snprintf(from, sizeof from, "%s/%s-wal", f->directory, name);
    (void)snprintf(to, sizeof to, "%s-wal", f->path);
    fixture_copy_file(from, to);
}

static void open_again_and_again(void)
{
    struct fixture f;
    fixture_create(&f, BYTES, BYTES);
    for (unsigned n = 0; n < 60; n += 5) {
        OK(fixture_open(&f));
        cr_assert_eq(shown_commit(f.map.base), n);
        cr_assert_eq(f.replayed, n != 0);
        for (unsigned i = 1; i <= 5; i++)
            make_commit(&f, n + i);
        if (n % 3 == 0)
            OK(txn_apply(f.txn));
        f.map.base[5] = 99; /* not committed */
        fixture_kill(&f);
    }
    OK(fixture_open(&f));
    OK(txn_checkpoint(f.txn));
    fixture_kill(&f);
    OK(fixture_open(&f));
    cr_assert_not(f.replayed, "after a checkpoint there is nothing to replay");
    cr_assert_eq(shown_commit(f.map.base), 60);
    fixture_kill(&f);
    fixture_remove(&f);
}

Test(txn_recover, an_unclosed_store_opens_to_its_last_commit)
{
    fixture_skip_syncs();
    open_again_and_again();
}

/* The log is read once more, to be applied window by window. */
Test(txn_recover, a_log_longer_than_a_window_is_recovered)
{
    fixture_skip_syncs();
    replay_window_bytes = 2 * PAGE_BYTES;
    open_again_and_again();
}

/* The tail of the log torn at every sector: the commits before it. */
Test(txn_recover, a_torn_tail_opens_to_a_prefix)
{
    struct fixture f;
    char log[400];
    uint64_t end[8];
    fixture_skip_syncs();
    fixture_create(&f, BYTES, BYTES);
    OK(fixture_open(&f));
    for (unsigned n = 1; n <= 7; n++) {
        make_commit(&f, n);
        end[n] = f.txn->wal.at.end;
    }
    fixture_kill(&f);
    copy_store(&f, "whole");
    (void)snprintf(log, sizeof log, "%s-wal", f.path);
    const uint64_t step = random_rounds(8) < 8 ? 8 * WAL_SECTOR : WAL_SECTOR;
    for (uint64_t cut = WAL_FIRST_RECORD; cut <= end[7]; cut += step) {
        unsigned want = 0;
        restore_store(&f, "whole");
        cr_assert_eq(truncate(log, (off_t)cut), 0);
        while (want < 7 && end[want + 1] <= cut)
            want++;
        OK(fixture_open(&f));
        cr_assert_eq(shown_commit(f.map.base), want, "cut at %llu", (unsigned long long)cut);
        fixture_kill(&f);
    }
    fixture_remove(&f);
}

Test(txn_recover, damage_in_the_durable_middle_is_refused_and_changes_nothing)
{
    struct fixture f;
    char log[400];
    uint64_t middle = 0, seq;
    fixture_create(&f, BYTES, BYTES);
    OK(fixture_open(&f));
    for (unsigned n = 1; n <= 6; n++) {
        make_commit(&f, n);
        if (n == 2)
            middle = f.txn->wal.at.end;
        seq = txn_commit_seq(f.txn);
        OK(txn_sync(f.txn, seq));
    }
    fixture_kill(&f);
    (void)snprintf(log, sizeof log, "%s-wal", f.path);
    int fd = open(log, O_RDWR);
    uint8_t byte;
    cr_assert_eq(pread(fd, &byte, 1, (off_t)middle + 300), 1);
    byte ^= 4;
    cr_assert_eq(pwrite(fd, &byte, 1, (off_t)middle + 300), 1);
    FAILS(STEAD_CORRUPT, fixture_open(&f));
    FAILS(STEAD_CORRUPT, fixture_open(&f));
    byte ^= 4;
    cr_assert_eq(pwrite(fd, &byte, 1, (off_t)middle + 300), 1);
    close(fd);
    OK(fixture_open(&f));
    cr_assert_eq(shown_commit(f.map.base), 6);
    fixture_kill(&f);
    fixture_remove(&f);
}

Test(txn_recover, file_and_log_of_different_moments_are_refused)
{
    struct fixture f;
    char log[400], from[400];
    fixture_create(&f, BYTES, BYTES);
    OK(fixture_open(&f));
    make_commit(&f, 1);
    copy_store(&f, "first");
    OK(txn_checkpoint(f.txn));
    make_commit(&f, 2);
    copy_store(&f, "second");
    OK(txn_checkpoint(f.txn));
    make_commit(&f, 3);
    fixture_kill(&f);
    (void)snprintf(log, sizeof log, "%s-wal", f.path);
    static const char *const older[] = {"first", "second"};
    for (int i = 0; i < 2; i++) { /* a file restored from a backup beside the log of now */
        copy_store(&f, "third");
        (void)snprintf(from, sizeof from, "%s/%s", f.directory, older[i]);
        fixture_copy_file(from, f.path);
        FAILS(STEAD_LOG_MISSING, fixture_open(&f));
        restore_store(&f, "third");
        (void)snprintf(from, sizeof from, "%s/%s-wal", f.directory, older[i]);
        fixture_copy_file(from, log); /* and the log of then beside the file of now */
        FAILS(STEAD_LOG_MISSING, fixture_open(&f));
        restore_store(&f, "third");
    }
    (void)unlink(log);
    FAILS(STEAD_LOG_MISSING, fixture_open(&f));
    restore_store(&f, "second"); /* both of one moment: fine */
    OK(fixture_open(&f));
    cr_assert_eq(shown_commit(f.map.base), 2);
    fixture_kill(&f);
    fixture_remove(&f);
}

Test(txn_recover, a_file_shorter_than_its_log_says_is_refused)
{
    struct fixture f;
    fixture_create(&f, BYTES, BYTES);
    OK(fixture_open(&f));
    make_commit(&f, 1);
    fixture_kill(&f);
    cr_assert_eq(truncate(f.path, (off_t)format_file_bytes(BYTES) - (off_t)UNIT_BYTES), 0);
    cr_assert_neq(fixture_open(&f), 0);
    fixture_remove(&f);
}

/* A store copied before new pages were written straight into it, its log after: refused, not a mixture. */
Test(txn_recover, a_file_without_the_new_pages_its_log_speaks_of_is_refused)
{
    fixture_skip_syncs();
    struct fixture f;
    char from[400];
    uint64_t seq;
    fixture_create(&f, BYTES, BYTES / 2);
    OK(fixture_open(&f));
    copy_store(&f, "early");
    memset(f.map.base + BYTES / 2, 5, BYTES / 2);
    OK(txn_commit(f.txn, BYTES, &seq));
    f.map.base[BYTES / 2] = 6; /* logged: no longer what was written straight, and no contradiction */
    OK(txn_commit(f.txn, BYTES, &seq));
    fixture_kill(&f);
    copy_store(&f, "late");
    (void)snprintf(from, sizeof from, "%s/early", f.directory);
    fixture_copy_file(from, f.path);
    FAILS(STEAD_CORRUPT, fixture_open(&f));
    restore_store(&f, "late");
    OK(fixture_open(&f));
    cr_assert(f.map.base[BYTES / 2] == 6 && f.map.base[BYTES - 1] == 5);
    fixture_kill(&f);
    fixture_remove(&f);
}

static size_t listed(const struct page_list *pages, uint64_t from, uint64_t to)
{
    size_t count = 0;
    for (size_t i = 0; i < pages->count; i++)
        count += pages->page[i] >= from && pages->page[i] < to;
    return count;
}

/* A copier that read the table of checksums before the new pages were written straight into the file, and the pages after:
 * the log has what the table lacks, for the writer that recovers it and for a check by who only reads. */
Test(txn_recover, a_table_older_than_the_new_pages_is_brought_up_to_them)
{
    fixture_skip_syncs();
    struct fixture f;
    struct map map;
    uint64_t seq;
    fixture_create(&f, BYTES, BYTES / 2);
    OK(fixture_open(&f));
    memset(f.map.base + BYTES / 2, 5, BYTES / 2);
    OK(txn_commit(f.txn, BYTES, &seq));
    f.map.base[BYTES / 2] = 6; /* logged: its entry comes with the replay */
    OK(txn_commit(f.txn, BYTES, &seq));
    fixture_kill(&f);
    OK(file_resolve(&f.file, f.path));
    OK(file_open(&f.file, true));
    OK(scrub_clear(f.file.fd, BYTES / 2, BYTES));
    OK(superblock_read(&f.file, &f.super));
    OK(map_open(&map, f.file.fd, MAP_IMAGE_PRIVATE, NULL, BYTES, BYTES, false));
    struct page_list pages = {0};
    OK(txn_private_replay(&f.file, &f.super, &map, &pages, &f.replayed));
    cr_assert_eq(listed(&pages, BYTES / 2 / PAGE_BYTES, BYTES / PAGE_BYTES), BYTES / 2 / PAGE_BYTES,
                 "the table says nothing about a page of the log");
    page_list_free(&pages);
    map_close(&map);
    file_close(&f.file);
    OK(fixture_open(&f));
    cr_assert(f.map.base[BYTES / 2] == 6 && f.map.base[BYTES - 1] == 5);
    cr_assert_eq(fixture_bad_checksums(&f, BYTES), 0);
    fixture_kill(&f);
    fixture_remove(&f);
}

/* A store that grew from a whole group by one unit, and died; its copy has a former end's mark at file offset `at`. */
static void leave_with_mark(struct fixture *f, uint64_t at)
{
    uint64_t seq;
    fixture_create(f, GROWN, GROWN - 2 * UNIT_BYTES);
    OK(fixture_open(f));
    f->map.base[GROWN - 1] = 5; /* few new pages: logged; the others are zeros */
    OK(txn_commit(f->txn, GROWN, &seq));
    fixture_kill(f);
    OK(file_resolve(&f->file, f->path));
    OK(file_open(&f->file, true));
    OK(superblock_read(&f->file, &f->super));
    OK(tail_write(f->file.fd, at, f->super.id, f->super.checkpoint, f->super.commit_seq));
    file_close(&f->file);
}

static void expect_no_mark(const uint8_t *base)
{
    cr_assert_eq(base[GROWN - 1], 5);
    for (uint64_t i = GROWN - 2 * UNIT_BYTES; i < GROWN - 1; i++)
        cr_assert_eq(base[i], 0, "byte %llu of the unit", (unsigned long long)(i % UNIT_BYTES));
}

/* A copier that read a place of the file when its end, and the mark, were still there: the beginning of a unit, or of the table
 * of the group that was begun since. */
Test(txn_recover, a_former_ends_mark_in_a_copy_is_no_page_of_a_commit)
{
    const uint64_t places[] = {format_file_offset(GROWN - UNIT_BYTES), format_file_bytes(GROWN - UNIT_BYTES),
                               format_file_offset(GROWN - 2 * UNIT_BYTES)};
    cr_assert_neq(places[0], places[1]);
    fixture_skip_syncs();
    for (unsigned i = 0; i < 3; i++) {
        struct fixture f;
        leave_with_mark(&f, places[i]);
        OK(fixture_open(&f));
        expect_no_mark(f.map.base);
        cr_assert_eq(fixture_bad_checksums(&f, GROWN), 0);
        f.map.base[GROWN - UNIT_BYTES] = 1; /* its base is verified */
        uint64_t seq;
        OK(txn_commit(f.txn, GROWN, &seq));
        fixture_kill(&f);
        fixture_remove(&f);
    }
}

/* So for who only reads; the file is not written. */
Test(txn_recover, a_former_ends_mark_in_a_copy_is_no_page_of_a_private_replay)
{
    const uint64_t page = (GROWN - UNIT_BYTES) / PAGE_BYTES;
    fixture_skip_syncs();
    for (unsigned in_table = 0; in_table < 2; in_table++) {
        struct fixture f;
        struct map map;
        struct tail tail;
        struct page_list pages = {0};
        uint64_t at = in_table != 0 ? format_file_bytes(GROWN - UNIT_BYTES) : format_file_offset(GROWN - UNIT_BYTES);
        leave_with_mark(&f, at);
        OK(file_resolve(&f.file, f.path));
        OK(file_open(&f.file, false));
        OK(superblock_read(&f.file, &f.super));
        OK(map_open(&map, f.file.fd, MAP_IMAGE_PRIVATE, NULL, GROWN, GROWN, false));
        OK(txn_private_replay(&f.file, &f.super, &map, &pages, &f.replayed));
        expect_no_mark(map.base);
        cr_assert_eq(listed(&pages, page, page + TAIL_BYTES / FORMAT_CHECKSUM_BYTES),
                     in_table != 0 ? TAIL_BYTES / FORMAT_CHECKSUM_BYTES : 1,
                     "what the table says of them is no checksum");
        cr_assert_eq(listed(&pages, 0, UINT64_MAX), in_table != 0 ? TAIL_BYTES / FORMAT_CHECKSUM_BYTES + 1 : 2);
        OK(file_read_at(f.file.fd, &tail, sizeof tail, at));
        cr_assert_neq(tail.magic[0], 0, "a reader wrote the file");
        page_list_free(&pages);
        map_close(&map);
        file_close(&f.file);
        fixture_remove(&f);
    }
}

/* Opens in a child that dies at its n-th call; true if it did. */
static bool open_and_die(struct fixture *f, long n)
{
    pid_t child = fork();
    if (child == 0) {
        die_at_call(n);
        _exit(fixture_open(f) == 0 ? 0 : 1);
    }
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status));
    cr_assert_neq(WEXITSTATUS(status), 1, "recovery failed instead of dying at call %ld", n);
    return WEXITSTATUS(status) == DYING_EXIT;
}

Test(txn_recover, recovery_cut_off_at_any_call_twice_comes_to_the_same_end)
{
    struct fixture f;
    fixture_skip_syncs();
    fixture_create(&f, BYTES, BYTES);
    OK(fixture_open(&f));
    make_commit(&f, 1);
    OK(txn_checkpoint(f.txn));
    for (unsigned n = 2; n <= 5; n++)
        make_commit(&f, n);
    fixture_kill(&f);
    copy_store(&f, "crashed");
    bool died = true;
    for (long n = 0; died; n++) {
        for (long again = 0; again < 4; again++) {
            restore_store(&f, "crashed");
            died = open_and_die(&f, n);
            (void)open_and_die(&f, again * 3 + n % 3);
            OK(fixture_open(&f));
            cr_assert_eq(shown_commit(f.map.base), 5, "calls %ld and %ld", n, again * 3 + n % 3);
            cr_assert_eq(txn_commit_seq(f.txn), 5);
            cr_assert_eq(fixture_bad_checksums(&f, BYTES), 0);
            make_commit(&f, 6);
            fixture_kill(&f);
            OK(fixture_open(&f));
            cr_assert_eq(shown_commit(f.map.base), 6);
            fixture_kill(&f);
        }
    }
    fixture_remove(&f);
}

/* The writer dies at any call of commits, applications and checkpoints. */
Test(txn_recover, a_writer_killed_at_any_call_leaves_its_last_commit_or_the_one_in_hand)
{
    struct fixture f;
    fixture_skip_syncs();
    unsigned *done = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    fixture_create(&f, BYTES, BYTES);
    OK(fixture_open(&f));
    make_commit(&f, 1);
    fixture_kill(&f);
    copy_store(&f, "start");
    bool died = true;
    for (long n = 0; died; n++) {
        restore_store(&f, "start");
        OK(fixture_open(&f));
        *done = 1;
        pid_t child = fork();
        if (child == 0) { /* its own mapping: the parent's range is not inherited */
            txn_forget(f.txn);
            struct fixture mine = f;
            if (fixture_open(&mine) != 0)
                _exit(1);
            die_at_call(n);
            for (unsigned i = 2; i <= 6; i++) {
                make_commit(&mine, i);
                *done = i;
                if (i % 2 == 0 && txn_apply(mine.txn) != 0)
                    _exit(1);
                if (i == 4 && txn_checkpoint(mine.txn) != 0)
                    _exit(1);
            }
            _exit(0);
        }
        int status;
        cr_assert_eq(waitpid(child, &status, 0), child);
        cr_assert(WIFEXITED(status) && WEXITSTATUS(status) != 1, "call %ld", n);
        died = WEXITSTATUS(status) == DYING_EXIT;
        fixture_kill(&f);
        OK(fixture_open(&f));
        unsigned shown = shown_commit(f.map.base);
        cr_assert(shown == *done || shown == *done + 1, "call %ld: %u of %u", n, shown, *done);
        cr_assert_eq(fixture_bad_checksums(&f, BYTES), 0, "call %ld", n);
        fixture_kill(&f);
    }
    fixture_remove(&f);
}

Test(txn_recover, a_reader_replays_in_private_and_changes_nothing)
{
    struct fixture f;
    struct map map;
    char log[400];
    fixture_create(&f, BYTES, BYTES);
    OK(fixture_open(&f));
    for (unsigned n = 1; n <= 5; n++)
        make_commit(&f, n);
    fixture_kill(&f);
    (void)snprintf(log, sizeof log, "%s-wal", f.path);
    cr_assert_eq(chmod(f.path, 0400), 0);
    cr_assert_eq(chmod(log, 0400), 0);
    for (int i = 0; i < 2; i++) {
        OK(file_resolve(&f.file, f.path));
        OK(file_open(&f.file, false));
        OK(superblock_read(&f.file, &f.super));
        OK(map_open(&map, f.file.fd, MAP_IMAGE_PRIVATE, NULL, BYTES, BYTES, false));
        struct page_list pages = {0};
        OK(txn_private_replay(&f.file, &f.super, &map, &pages, &f.replayed));
        cr_assert_geq(pages.count, 20, "pages 200 to 219 are in the log");
        cr_assert(pages.page[0] == 1 && pages.page[pages.count - 1] == 219, "the pages of the log, ascending");
        page_list_free(&pages);
        cr_assert(f.replayed);
        cr_assert_eq(shown_commit(map.base), 5);
        cr_assert_eq(f.super.commit_seq, 5);
        map_close(&map);
        file_close(&f.file);
    }
    cr_assert_eq(chmod(f.path, 0600), 0);
    cr_assert_eq(chmod(log, 0600), 0);
    OK(fixture_open(&f));
    cr_assert_eq(shown_commit(f.map.base), 5);
    fixture_kill(&f);
    fixture_remove(&f);
}

/* ---- what was verified is what is written anew and applied */

static uint64_t log_bytes_read, log_bytes_sound; /* what is read after so many is garbage */

static ssize_t read_soundly_once(int fd, void *buffer, size_t bytes, off_t offset)
{
    char self[40], path[400];
    (void)snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(self, path, sizeof path - 1);
    ssize_t got = file_calls_system.pread(fd, buffer, bytes, offset);
    if (length < 4 || memcmp(path + length - 4, "-wal", 4) != 0 || (uint64_t)offset < WAL_FIRST_RECORD)
        return got;
    if (log_bytes_read >= log_bytes_sound)
        memset(buffer, 0xa5, bytes);
    log_bytes_read += got > 0 ? (uint64_t)got : 0;
    return got;
}

Test(txn_recover, a_log_that_fits_is_read_once_and_trusted_no_more)
{
    struct fixture f;
    fixture_create(&f, BYTES, BYTES);
    OK(fixture_open(&f));
    for (unsigned n = 1; n <= 40; n++)
        make_commit(&f, n);
    struct image_stat stat;
    txn_stat(f.txn, &stat);
    cr_assert_gt(stat.log_bytes, UINT64_C(3) << 20, "one piece of reading: nothing would be proved");
    fixture_kill(&f);
    log_bytes_read = 0;
    log_bytes_sound = stat.log_bytes - WAL_FIRST_RECORD;
    file_calls.pread = read_soundly_once;
    OK(fixture_open(&f));
    file_calls = file_calls_system;
    cr_assert_eq(shown_commit(f.map.base), 40);
    cr_assert_eq(fixture_bad_checksums(&f, BYTES), 0);
    fixture_kill(&f);
    fixture_remove(&f);
}

static uint64_t padding_from, padding_to;
static long padded_logs; /* that took their place with zeros there */

static int look_and_exchange(const char *a, const char *b)
{
    uint8_t padding[WAL_SECTOR];
    int fd = open(a, O_RDONLY | O_CLOEXEC);
    const size_t bytes = padding_to - padding_from;
    if (fd >= 0 && pread(fd, padding, bytes, (off_t)padding_from) == (ssize_t)bytes) {
        bool zeros = true;
        for (size_t i = 0; i < bytes; i++)
            zeros = zeros && padding[i] == 0;
        padded_logs += zeros ? 1 : -1000;
    }
    if (fd >= 0)
        close(fd);
    return file_calls_system.rename(a, b);
}

/* A copier may leave the zeros at a file's end away.  Nothing that happens to be in memory gets into the new log for them. */
Test(txn_recover, a_log_without_its_last_padding_is_padded_with_zeros)
{
    struct fixture f;
    char log[400];
    uint8_t sector[WAL_SECTOR];
    fixture_skip_syncs();
    fixture_create(&f, BYTES, BYTES);
    OK(fixture_open(&f));
    for (unsigned n = 1; n <= 7; n++)
        make_commit(&f, n);
    padding_to = f.txn->wal.at.end;
    fixture_kill(&f);
    (void)snprintf(log, sizeof log, "%s-wal", f.path);
    int fd = open(log, O_RDONLY | O_CLOEXEC);
    cr_assert_eq(pread(fd, sector, sizeof sector, (off_t)(padding_to - sizeof sector)), (ssize_t)sizeof sector);
    close(fd);
    size_t used = sizeof sector;
    while (used != 0 && sector[used - 1] == 0)
        used--;
    padding_from = padding_to - sizeof sector + round_up(used, 8);
    cr_assert_lt(padding_from, padding_to, "no padding: nothing would be proved");
    cr_assert_eq(truncate(log, (off_t)padding_from), 0);
    (void)mallopt(M_PERTURB, 0x5a); /* a sanitizer has an allocator, and a pattern, of its own */
    file_calls.rename = look_and_exchange;
    OK(fixture_open(&f));
    file_calls.rename = file_calls_system.rename;
    (void)mallopt(M_PERTURB, 0);
    cr_assert_eq(padded_logs, 1);
    cr_assert_eq(shown_commit(f.map.base), 7);
    fixture_kill(&f);
    fixture_remove(&f);
}
