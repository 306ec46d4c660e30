/* test_wal_retire.c -- a replaced log gives its blocks back piece by piece, unless somebody might miss them (W25). */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "persist/wal_internal.h"
#include "txn_fixture.h"

TestSuite(txn_wal_retire, .timeout = 300);

#define BYTES (UINT64_C(4) << 20)

static void commit_byte(struct fixture *f, uint8_t value)
{
    uint64_t seq;
    f->map.base[8 * PAGE_BYTES] = value;
    OK(txn_commit(f->txn, BYTES, &seq));
}

/* Several MiB of log. */
static void open_with_a_long_log(struct fixture *f)
{
    uint64_t seq, random = random_seed();
    fixture_create(f, BYTES, BYTES);
    OK(fixture_open(f));
    for (unsigned commit = 0; commit < 2; commit++) {
        for (uint64_t at = 0; at < BYTES; at += 8) {
            uint64_t word = random_next(&random);
            memcpy(f->map.base + at, &word, sizeof word);
        }
        OK(txn_commit_deferred(f->txn, BYTES, &seq));
        OK(txn_sync(f->txn, seq));
    }
}

static uint8_t *read_all(int fd, size_t *bytes)
{
    struct stat facts;
    cr_assert_eq(fstat(fd, &facts), 0);
    *bytes = (size_t)facts.st_size;
    uint8_t *all = malloc(*bytes);
    cr_assert_not_null(all);
    OK(file_read_at(fd, all, *bytes, 0));
    return all;
}

static void expect_unchanged(int fd, const uint8_t *want, size_t bytes)
{
    size_t now_bytes;
    uint8_t *now = read_all(fd, &now_bytes);
    cr_assert_eq(now_bytes, bytes);
    cr_assert_eq(memcmp(now, want, bytes), 0);
    free(now);
}

static unsigned long long largest_cut;

static int watched_truncate(int fd, off_t bytes)
{
    struct stat facts;
    cr_assert_eq(fstat(fd, &facts), 0);
    cr_assert_eq(facts.st_nlink, 0, "a file with a name was cut");
    if ((unsigned long long)(facts.st_size - bytes) > largest_cut)
        largest_cut = (unsigned long long)(facts.st_size - bytes);
    return file_calls_system.ftruncate(fd, bytes);
}

/* With so many commits, and the last one is there afterwards; the fixture is removed. */
static unsigned commit_until_freed(struct fixture *f)
{
    unsigned commits = 0;
    const struct wal_build *build = f->txn->wal.build;
    while (build->retired_count != 0) {
        commit_byte(f, (uint8_t)++commits);
        cr_assert_lt(commits, 1000);
    }
    cr_assert_leq(largest_cut, UINT64_C(1) << 20, "too much at once");
    file_calls = file_calls_system;
    fixture_kill(f);
    OK(fixture_open(f));
    cr_assert_eq(f->map.base[8 * PAGE_BYTES], (uint8_t)commits);
    fixture_kill(f);
    fixture_remove(f);
    return commits;
}

Test(txn_wal_retire, a_nameless_log_goes_piece_by_piece)
{
    struct fixture f;
    open_with_a_long_log(&f);
    uint64_t log_bytes = f.txn->wal.reserved_end;
    file_calls.ftruncate = watched_truncate;
    OK(txn_checkpoint(f.txn));
    const struct wal_build *build = f.txn->wal.build;
    cr_assert_eq(build->retired_count, 1, "%s cannot tell who has a file open", f.directory);
    cr_assert_eq(build->retired[0].bytes, log_bytes);
    cr_assert_geq(commit_until_freed(&f), log_bytes >> 20, "too fast");
}

/* The log as it was found and the one that holds what was verified; neither is waited for by the open. */
Test(txn_wal_retire, the_logs_of_a_recovery_go_piece_by_piece)
{
    struct fixture f;
    open_with_a_long_log(&f);
    commit_byte(&f, 77);
    fixture_kill(&f);
    OK(fixture_open(&f));
    cr_assert(f.replayed);
    cr_assert_eq(f.map.base[8 * PAGE_BYTES], 77);
    const struct wal_build *build = f.txn->wal.build;
    cr_assert_eq(build->retired_count, 2, "%s cannot tell who has a file open", f.directory);
    cr_assert_gt(build->retired[0].bytes, UINT64_C(4) << 20);
    cr_assert_gt(build->retired[1].bytes, UINT64_C(4) << 20);
    file_calls.ftruncate = watched_truncate;
    (void)commit_until_freed(&f);
}

/* The new log takes the old one's number, which a limit lowered meanwhile forbids: found out before anything is written. */
Test(txn_wal_retire, a_limit_of_open_files_below_the_log_fails_a_checkpoint_cleanly)
{
    struct fixture f;
    struct rlimit before, low;
    open_with_a_long_log(&f);
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    low = before;
    int high = fcntl(f.txn->wal.fd, F_DUPFD_CLOEXEC, 200);
    cr_assert_geq(high, 200);
    close(f.txn->wal.fd);
    f.txn->wal.fd = high;
    low.rlim_cur = 150;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
    FAILS(EMFILE, txn_checkpoint(f.txn));
    commit_byte(&f, 5);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
    OK(txn_checkpoint(f.txn));
    commit_byte(&f, 6);
    fixture_kill(&f);
    OK(fixture_open(&f));
    cr_assert_eq(f.map.base[8 * PAGE_BYTES], 6);
    fixture_kill(&f);
    fixture_remove(&f);
}

/* What they hold is free space as soon as somebody needs it. */
Test(txn_wal_retire, a_full_disk_ends_them)
{
    struct fixture f;
    uint64_t seq;
    open_with_a_long_log(&f);
    OK(txn_checkpoint(f.txn));
    cr_assert_eq(f.txn->wal.build->retired_count, 1);
    faults = (struct faults){.fallocate = true, .fault = FAULT_ERROR, .error = ENOSPC, .count = 1};
    faults_install();
    memset(f.map.base, 5, BYTES);
    OK(txn_commit(f.txn, BYTES, &seq));
    cr_assert_geq(faults.seen, 2);
    faults_remove();
    cr_assert_eq(f.txn->wal.build->retired_count, 0);
    cr_assert_not(txn_free_retired(f.txn));
    fixture_kill(&f);
    OK(fixture_open(&f));
    cr_assert_eq(f.map.base[0], 5);
    cr_assert(txn_free_retired(f.txn));
    cr_assert_eq(f.txn->wal.build->retired_count, 0);
    fixture_kill(&f);
    fixture_remove(&f);
}

/* Whoever has it open reads it to its end. */
Test(txn_wal_retire, a_log_that_somebody_reads_stays_whole)
{
    struct fixture f;
    size_t bytes;
    open_with_a_long_log(&f);
    int fd = open(f.file.log_path, O_RDONLY | O_CLOEXEC);
    cr_assert_geq(fd, 0);
    uint8_t *before = read_all(fd, &bytes);
    OK(txn_checkpoint(f.txn));
    cr_assert_eq(f.txn->wal.build->retired_count, 0);
    for (unsigned i = 0; i < 50; i++)
        commit_byte(&f, (uint8_t)(i + 1));
    expect_unchanged(fd, before, bytes);
    close(fd);
    free(before);
    fixture_kill(&f);
    fixture_remove(&f);
}

Test(txn_wal_retire, a_log_with_another_name_stays_whole)
{
    struct fixture f;
    char other[400];
    size_t bytes;
    open_with_a_long_log(&f);
    (void)snprintf(other, sizeof other, "%s/kept", f.directory);
    cr_assert_eq(link(f.file.log_path, other), 0);
    int fd = open(other, O_RDONLY | O_CLOEXEC);
    cr_assert_geq(fd, 0);
    uint8_t *before = read_all(fd, &bytes);
    close(fd);
    OK(txn_checkpoint(f.txn));
    cr_assert_eq(f.txn->wal.build->retired_count, 0);
    for (unsigned i = 0; i < 50; i++)
        commit_byte(&f, (uint8_t)(i + 1));
    fd = open(other, O_RDONLY | O_CLOEXEC);
    expect_unchanged(fd, before, bytes);
    close(fd);
    free(before);
    fixture_kill(&f);
    unlink(other);
    fixture_remove(&f);
}

/* A file without a name can still be opened, by /proc.  Who does so in the moment of the question is answered by a signal to
 * this process: not by one that ends it. */
static _Noreturn void open_again_and_again(const char *path)
{
    for (int fd; (fd = open(path, O_RDONLY | O_CLOEXEC)) >= 0;) /* until that process ends */
        close(fd);
    _exit(0);
}

static _Noreturn void ask_again_and_again(void)
{
    static struct wal_build build;
    char path[64];
    int fd = open(getenv("TMPDIR") == NULL ? "/tmp" : getenv("TMPDIR"), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    (void)snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)getpid(), fd);
    wal_retire(&build, dup(fd));
    if (!wal_retire_end(&build)) /* nobody has it open yet */
        _exit(2);
    pid_t child = fork();
    if (child == 0) {
        close(fd);
        open_again_and_again(path);
    }
    for (unsigned n = 0; n < 20000; n++) {
        wal_retire(&build, dup(fd));
        (void)wal_retire_end(&build);
    }
    kill(child, SIGKILL);
    (void)waitpid(child, NULL, 0);
    _exit(fd >= 0 && child > 0 ? 0 : 1);
}

Test(txn_wal_retire, who_opens_a_log_in_the_moment_of_the_question_ends_nobody)
{
    int status;
    pid_t child = fork();
    if (child == 0)
        ask_again_and_again();
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(status, 0, "status %x", (unsigned)status);
}

/* The next checkpoint comes before the last log is gone. */
Test(txn_wal_retire, one_log_after_the_other)
{
    struct fixture f;
    uint64_t seq;
    open_with_a_long_log(&f);
    for (unsigned round = 0; round < 4; round++) {
        OK(txn_checkpoint(f.txn));
        memset(f.map.base, (int)round + 1, BYTES);
        OK(txn_commit(f.txn, BYTES, &seq));
        commit_byte(&f, (uint8_t)round);
    }
    fixture_kill(&f);
    OK(fixture_open(&f));
    cr_assert_eq(f.map.base[8 * PAGE_BYTES], 3);
    cr_assert_eq(f.map.base[9 * PAGE_BYTES], 4);
    fixture_kill(&f);
    fixture_remove(&f);
}
