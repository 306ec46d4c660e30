/* follow.c: what a reader sees after image_look(), case by case; that it writes nothing; that it costs
 * what is new; and what damage, races and missing things leave.  The apply lock is played by the order of the calls.
 */
#include "follow_fixture.h"

#include <pthread.h>
#include <stdatomic.h>

#include "persist/wal.h"

TestSuite(follow, .init = follow_setup, .fini = store_remove, .timeout = 300);

/* Both files, whole. */
static uint8_t *read_files(size_t *bytes)
{
    char log[160];
    struct stat one, two;
    (void)snprintf(log, sizeof log, "%s-wal", store.path);
    int a = open(store.path, O_RDONLY), b = open(log, O_RDONLY);
    cr_assert(a >= 0 && b >= 0 && fstat(a, &one) == 0 && fstat(b, &two) == 0);
    *bytes = (size_t)(one.st_size + two.st_size);
    uint8_t *all = malloc(*bytes);
    cr_assert_eq(pread(a, all, (size_t)one.st_size, 0), one.st_size);
    cr_assert_eq(pread(b, all + one.st_size, (size_t)two.st_size, 0), two.st_size);
    close(a);
    close(b);
    return all;
}

Test(follow, a_new_reader_sees_what_an_idle_writer_committed_and_writes_nothing)
{
    begin(2 * MIB);
    reader_close();
    store_fill(MIB, 2 * MIB, 2);
    uint64_t seq = commit(2 * MIB, true), was = stat_of(store.image).applied_seq;
    cr_assert_lt(was, seq, "the test wants an unapplied commit");
    size_t before_bytes, after_bytes;
    uint8_t *before = read_files(&before_bytes);
    reader_open();
    OK(image_look(reader.image, words()));
    cr_assert_eq(image_commit_seq(reader.image), seq);
    struct image_stat stat = stat_of(reader.image);
    cr_assert_eq(stat.commit_seq, seq);
    cr_assert_eq(stat.applied_seq, was);
    cr_assert_eq(stat.private_bytes, MIB);
    reader_expect(0, MIB, 1);
    reader_expect(MIB, 2 * MIB, 2);
    uint8_t *after = read_files(&after_bytes);
    cr_assert(before_bytes == after_bytes && memcmp(before, after, before_bytes) == 0, "a reader wrote");
    cr_assert_eq(stat_of(store.image).applied_seq, was);
    /* The kernel says whether the program could write to a replayed page and to one of the file. */
    cr_assert_eq(pread(store.file.fd, (uint8_t *)image_base(reader.image) + MIB, 8, 0), -1);
    cr_assert_eq(errno, EFAULT);
    cr_assert_eq(pread(store.file.fd, image_base(reader.image), 8, 0), -1);
    free(before);
    free(after);
    end();
}

Test(follow, buffered_commits_are_shown_once_they_are_durable)
{
    begin(MIB);
    store_fill(0, MIB, 2);
    uint64_t durable = commit(MIB, true);
    store_fill(0, MIB, 3);
    uint64_t buffered = commit(MIB, false);
    OK(image_look(reader.image, words()));
    cr_assert_eq(image_commit_seq(reader.image), durable);
    reader_expect(0, MIB, 2);
    OK(image_sync(store.image, buffered));
    OK(image_look(reader.image, words()));
    cr_assert_eq(image_commit_seq(reader.image), buffered);
    reader_expect(0, MIB, 3);
    end();
}

Test(follow, pages_are_dropped_once_the_file_has_them)
{
    begin(MIB);
    for (uint64_t round = 2; round < 8; round++) {
        store_fill(0, MIB, round);
        uint64_t seq = commit(MIB, true);
        OK(image_look(reader.image, words()));
        cr_assert_eq(stat_of(reader.image).private_bytes, MIB);
        if (round % 2 == 0)
            OK(image_apply(store.image));
        else
            OK(image_checkpoint(store.image));
        reader_expect(0, MIB, round);
        OK(image_look(reader.image, words()));
        cr_assert_eq(stat_of(reader.image).private_bytes, 0);
        cr_assert_eq(image_commit_seq(reader.image), seq);
        reader_expect(0, MIB, round);
    }
    end();
}

/* ---- cost ---- */

static uint64_t calls, read_bytes;
static int counting_open(const char *path, int flags, mode_t mode)
{
    calls++;
    return file_calls_system.open(path, flags, mode);
}
static ssize_t counting_pread(int fd, void *buffer, size_t bytes, off_t offset)
{
    calls++;
    read_bytes += bytes;
    return file_calls_system.pread(fd, buffer, bytes, offset);
}

Test(follow, a_look_costs_what_is_new)
{
    begin(4 * MIB);
    for (uint64_t round = 2; round < 6; round++) { /* whole pages: 4 MiB of log */
        memset(image_base(store.image), (int)round, MIB);
        commit(4 * MIB, true);
    }
    file_calls.open = counting_open;
    file_calls.pread = counting_pread;
    OK(image_look(reader.image, words()));
    cr_assert_geq(read_bytes, 4 * MIB);
    calls = read_bytes = 0;
    OK(image_look(reader.image, words()));
    cr_assert_eq(calls, 0, "nothing new, %" PRIu64 " calls", calls);
    store_fill(0, PAGE_BYTES, 9);
    commit(4 * MIB, true);
    OK(image_look(reader.image, words()));
    cr_assert_leq(read_bytes, 2 * PAGE_BYTES, "%" PRIu64 " bytes read for one small record", read_bytes);
    reader_expect(0, PAGE_BYTES, 9);
    cr_assert_eq(reader_bytes()[MIB - 1], 5);
    end();
}

/* ---- growth ---- */

Test(follow, growth_is_followed_over_groups_logged_and_straight)
{
    begin(MIB);
    uint64_t used = MIB;
    static const uint64_t steps[] = {UNIT_BYTES, 3 * MIB, UNIT_BYTES, 34 * MIB, 2 * UNIT_BYTES, 40 * MIB};
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        OK(image_extend(store.image, used + steps[i]));
        store_fill(used, used + steps[i], i);
        store_fill(0, UNIT_BYTES, i);
        uint64_t seq = commit(used + steps[i], true);
        OK(image_look(reader.image, words()));
        cr_assert_geq(image_bytes(reader.image), used + steps[i]);
        cr_assert_eq(image_commit_seq(reader.image), seq);
        reader_expect(used, used + steps[i], i);
        reader_expect(0, UNIT_BYTES, i);
        reader_expect(UNIT_BYTES, MIB, 1);
        used += steps[i];
    }
    end();
}

/* ---- damage ---- */

/* Flips a bit of the log at its last byte that is not zero at or before `at`. */
static void flip_log(uint64_t at)
{
    char log[160];
    uint8_t byte = 0;
    (void)snprintf(log, sizeof log, "%s-wal", store.path);
    int fd = open(log, O_RDWR);
    cr_assert_geq(fd, 0);
    cr_assert_eq(pread(fd, &byte, 1, (off_t)at), 1);
    byte ^= 4;
    cr_assert_eq(pwrite(fd, &byte, 1, (off_t)at), 1);
    close(fd);
}

Test(follow, a_damaged_record_is_an_error_and_the_view_stays)
{
    begin(MIB);
    store_fill(0, MIB, 2);
    uint64_t shown = commit(MIB, true);
    OK(image_look(reader.image, words()));
    uint64_t third = stat_of(store.image).log_bytes;
    store_fill(0, MIB, 3);
    commit(MIB, true);
    uint64_t fourth = stat_of(store.image).log_bytes;
    store_fill(0, MIB, 4);
    uint64_t last = commit(MIB, true);
    const uint64_t places[] = {third, third + 40, third + 200, fourth + 8, fourth + 130, fourth + 2000};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        flip_log(places[i]);
        FAILS(image_look(reader.image, words()), STEAD_CORRUPT);
        cr_assert_not_null(strstr(error_last_text(), "log"), "%s", error_last_text());
        cr_assert_eq(image_commit_seq(reader.image), shown);
        reader_expect(0, MIB, 2);
        flip_log(places[i]);
    }
    OK(image_look(reader.image, words()));
    cr_assert_eq(image_commit_seq(reader.image), last);
    reader_expect(0, MIB, 4);
    end();
}

Test(follow, damage_after_more_than_is_gathered_shows_what_is_applied)
{
    begin(80 * MIB);
    store_fill(0, MIB, 2);
    commit(80 * MIB, true);
    OK(image_look(reader.image, words()));
    store_fill(0, 80 * MIB, 3);
    commit(80 * MIB, true);
    uint64_t next = stat_of(store.image).log_bytes;
    store_fill(0, MIB, 4);
    uint64_t last = commit(80 * MIB, true);
    flip_log(next + 130);
    FAILS(image_look(reader.image, words()), STEAD_CORRUPT);
    cr_assert_eq(stat_of(reader.image).private_bytes, 0);
    cr_assert_eq(image_commit_seq(reader.image), stat_of(store.image).applied_seq);
    reader_expect(0, 80 * MIB, 1);
    flip_log(next + 130);
    OK(image_look(reader.image, words()));
    cr_assert_eq(image_commit_seq(reader.image), last);
    reader_expect(0, MIB, 4);
    reader_expect(MIB, 80 * MIB, 3);
    end();
}

/* A record with a good checksum, made by somebody who means harm. */
static void forge_record(uint64_t image_offset, uint64_t used)
{
    char log[160];
    struct shared_state state;
    struct wal wal;
    uint64_t bytes[4] = {1, 2, 3, 4};
    (void)snprintf(log, sizeof log, "%s-wal", store.path);
    OK(shared_read(words(), &state));
    OK(wal_open(&wal, store.super.id));
    int fd;
    OK(file_open_path(&fd, log, O_RDWR, 0));
    OK(wal_switch(&wal, fd, &state.applied_at));
    OK(wal_add_run(&wal, 0, bytes, sizeof bytes));
    OK(wal_add_run(&wal, image_offset, bytes, sizeof bytes));
    OK(wal_finish(&wal, used, 0));
    state.at = wal.at;
    shared_write(words(), &state);
    shared_raise_durable_seq(words(), wal.at.next_seq - 1);
    wal_close(&wal);
}

Test(follow, a_record_that_leaves_the_image_is_refused)
{
    begin(MIB);
    const uint64_t places[][2] = {{MIB, MIB},
                                  {64 * MIB, MIB},
                                  {UINT64_C(1) << 30, MIB},
                                  {(UINT64_C(1) << 30) - PAGE_BYTES, UINT64_C(1) << 30},
                                  {0, UINT64_C(1) << 40},
                                  {MIB - PAGE_BYTES, MIB + 8}};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        forge_record(places[i][0], places[i][1]);
        FAILS(image_look(reader.image, words()), STEAD_CORRUPT);
        cr_assert_neq(error_last_text()[0], '\0');
        reader_expect(0, MIB, 1);
    }
    forge_record(MIB - PAGE_BYTES, MIB);
    OK(image_look(reader.image, words()));
    cr_assert_eq(reader_bytes()[8], 2, "the test's own records are good ones");
    end();
}

static int read_only_memory(const char *path, int flags, mode_t mode)
{
    bool memory = strcmp(path, "/proc/self/mem") == 0;
    return file_calls_system.open(path, memory ? O_RDONLY | O_CLOEXEC : flags, mode);
}
Test(follow, without_leave_to_write_memory_the_pages_are_protected_and_back)
{
    begin(MIB);
    uint64_t round = 2;
    for (int way = 0; way < 2; way++) {
        file_calls.open = way == 0 ? read_only_memory : no_memory_file;
        for (int i = 0; i < 3; i++, round++) {
            store_fill(0, MIB / 2, round);
            commit(MIB, true);
            OK(image_look(reader.image, words()));
            reader_expect(0, MIB / 2, round);
            reader_expect(MIB / 2, MIB, 1);
            cr_assert_eq(pread(store.file.fd, image_base(reader.image), 8, 0), -1, "the view can be written");
        }
        OK(image_apply(store.image));
        OK(image_look(reader.image, words()));
        cr_assert_eq(stat_of(reader.image).private_bytes, 0);
        reader_expect(0, MIB / 2, round - 1);
    }
    end();
}

/* ---- ends of writers ---- */

static long writes_left;
static ssize_t failing_pwrite(int fd, const void *buffer, size_t bytes, off_t offset)
{
    if (writes_left-- <= 0) {
        errno = EIO;
        return -1;
    }
    return file_calls_system.pwrite(fd, buffer, bytes, offset);
}

Test(follow, a_writer_that_died_while_applying_is_followed_through_its_log)
{
    begin(2 * MIB);
    for (long cut = 0; cut < 20; cut++) {
        for (uint64_t at = 0; at < 2 * MIB; at += 5 * PAGE_BYTES)
            *store_word(at) = store_mark(at, (uint64_t)cut + 2);
        if (cut % 2 == 0) /* private pages of an earlier look are there */
            OK(image_look(reader.image, words()));
        uint64_t seq = commit(2 * MIB, true);
        writes_left = cut;
        file_calls.pwrite = failing_pwrite;
        FAILS(image_apply(store.image), EIO);
        file_calls = file_calls_system;
        OK(image_look(reader.image, words()));
        cr_assert_eq(image_commit_seq(reader.image), seq);
        for (uint64_t at = 0; at < 2 * MIB; at += PAGE_BYTES)
            cr_assert_eq(memcmp(reader_bytes() + at, (uint8_t *)image_base(store.image) + at, PAGE_BYTES), 0,
                         "page at %" PRIu64 " after %ld writes", at, cut);
    }
    end();
}

Test(follow, without_words_the_view_stays_until_the_log_is_done_with)
{
    begin(MIB);
    store_fill(0, MIB, 2);
    uint64_t seq = commit(MIB, true);
    OK(image_look(reader.image, words()));
    OK(image_look(reader.image, NULL));
    reader_expect(0, MIB, 2);
    memset(store.shared, 0, sizeof store.shared);
    OK(image_look(reader.image, words()));
    cr_assert_eq(image_commit_seq(reader.image), seq);
    reader_expect(0, MIB, 2);
    store_seal(MIB);
    memset(store.shared, 0, sizeof store.shared);
    store_open(IMAGE_SHARED);
    store_fill(0, MIB, 5); /* LIVE: other bytes are in the file now */
    memset(store.shared, 0, sizeof store.shared);
    OK(image_look(reader.image, words()));
    cr_assert_eq(stat_of(reader.image).private_bytes, 0);
    reader_expect(0, MIB, 5);
    end();
}

/* A reader that is not attached, of a store whose writer dies: words of another session, or none, tell nothing. */
Test(follow, without_an_attachment_superblock_and_log_tell_the_last_commit)
{
    store_open(IMAGE_PRIVATE);
    OK(image_extend(store.image, MIB));
    store_fill(0, MIB, 1);
    commit(MIB, true);
    struct image_options options = {.kind = IMAGE_READ, .any_address = true};
    OK(file_resolve(&reader.file, store.path));
    OK(file_open(&reader.file, false));
    OK(superblock_read(&reader.file, &reader.super));
    OK(image_open(&reader.image, &reader.file, &reader.super, &options));
    store_seal(MIB);
    for (uint64_t round = 2; round < 6; round++) {
        store_open(IMAGE_PRIVATE);
        uint64_t used = image_bytes(store.image);
        store_fill(0, MIB, round);
        commit(used, true);
        OK(image_look(reader.image, words())); /* by the words: private pages are there */
        store_fill(MIB / 2, MIB, round + 10);
        uint64_t seq = commit(used, round % 2 == 0);
        store_drop();
        if (round < 4)
            memset(store.shared, 0, sizeof store.shared);
        for (int again = 0; again < 2; again++) {
            OK(image_look(reader.image, round < 4 ? words() : NULL));
            cr_assert_eq(image_commit_seq(reader.image), seq);
            cr_assert_eq(reader.super.state, SUPER_OPEN_LOGGED);
            reader_expect(0, MIB / 2, round);
            reader_expect(MIB / 2, MIB, round + 10);
        }
    }
    store_open(IMAGE_PRIVATE);
    store_seal(image_bytes(store.image));
    OK(image_look(reader.image, NULL));
    cr_assert_eq(reader.super.state, SUPER_SEALED);
    cr_assert_eq(stat_of(reader.image).private_bytes, 0);
    reader_expect(MIB / 2, MIB, 15);
    reader_close();
}

/* Such a reader looks when a session's superblock is there and its words are not yet.  The session commits and dies, and somebody
 * who is about to recover makes the words anew: the log that was empty, or shorter, is none that nobody appended to. */
Test(follow, without_an_attachment_a_session_that_came_and_went_between_two_looks_is_seen)
{
    struct image_options options = {.kind = IMAGE_READ, .any_address = true};
    store_open(IMAGE_PRIVATE);
    OK(image_extend(store.image, MIB));
    OK(file_resolve(&reader.file, store.path));
    OK(file_open(&reader.file, false));
    OK(superblock_read(&reader.file, &reader.super));
    OK(image_open(&reader.image, &reader.file, &reader.super, &options));
    OK(image_look(reader.image, NULL)); /* the log is empty */
    for (uint64_t round = 1; round < 4; round++) {
        store_fill(0, MIB / round, round);
        uint64_t seq = commit(MIB, true);
        OK(image_look(reader.image, NULL));
        cr_assert_eq(image_commit_seq(reader.image), seq, "round %" PRIu64, round);
        reader_expect(0, MIB / round, round);
        cr_assert_geq(image_bytes(reader.image), MIB);
    }
    OK(image_apply(store.image)); /* pages of the file are newer than the log's first records */
    store_fill(MIB / 2, MIB, 7);
    uint64_t seq = commit(MIB, false);
    store_drop();
    for (int again = 0; again < 2; again++) {
        OK(image_look(reader.image, NULL));
        cr_assert_eq(image_commit_seq(reader.image), seq);
        reader_expect(0, MIB / 3, 3);
        reader_expect(MIB / 2, MIB, 7);
    }
    reader_close();
}

Test(follow, a_log_that_is_missing_is_an_error_unless_the_store_is_gone_or_closed)
{
    char log[160], aside[180];
    (void)snprintf(log, sizeof log, "%s-wal", store.path);
    (void)snprintf(aside, sizeof aside, "%s.aside", log);
    begin(MIB);
    store_fill(0, MIB, 2);
    uint64_t seq = commit(MIB, true);
    cr_assert_eq(rename(log, aside), 0);
    FAILS(image_look(reader.image, words()), STEAD_LOG_MISSING);
    cr_assert_not_null(strstr(error_last_text(), log), "%s", error_last_text());
    reader_expect(0, MIB, 1);
    cr_assert_eq(rename(aside, log), 0);
    uint8_t old[IMAGE_SHARED_BYTES];
    memcpy(old, store.shared, sizeof old);
    cr_assert_eq(rename(store.path, aside), 0); /* removed, for all that the reader can tell */
    cr_assert_eq(unlink(log), 0);
    OK(image_look(reader.image, words()));
    reader_expect(0, MIB, 1);
    cr_assert_lt(image_commit_seq(reader.image), seq);
    cr_assert_eq(rename(aside, store.path), 0);
    OK(image_seal(store.image, &store.super, MIB, NULL, 0));
    memcpy(store.shared, old, sizeof old); /* words that outlived their session */
    OK(image_look(reader.image, words()));
    reader_expect(0, MIB, 2);
    end();
}

/* ---- beside a writer at work ---- */

static _Atomic bool writer_done;
static _Atomic uint64_t looks;

/* So many, and more until the reader had some looks beside them. */
static void *commit_rounds(void *arg)
{
    uint64_t *count = arg, round = 0;
    for (; round < *count || (atomic_load(&looks) < 3 && round < 100000); round++) {
        store_fill(0, MIB, image_commit_seq(store.image) + 1);
        commit(MIB, round % 3 != 0);
    }
    *count = round;
    atomic_store(&writer_done, true);
    return NULL;
}

Test(follow, looks_beside_commits_and_syncs_see_one_commit_each)
{
    pthread_t writer;
    uint64_t count = (uint64_t)rounds(150), last = 0;
    begin(MIB);
    uint64_t from = image_commit_seq(reader.image);
    cr_assert_eq(pthread_create(&writer, NULL, commit_rounds, &count), 0);
    while (!atomic_load(&writer_done)) {
        OK(image_look(reader.image, words()));
        uint64_t seq = image_commit_seq(reader.image);
        cr_assert(seq >= last && seq <= shared_durable_seq(words()));
        reader_expect(0, MIB, seq == from ? 1 : seq);
        last = seq;
        atomic_fetch_add(&looks, 1);
    }
    cr_assert_eq(pthread_join(writer, NULL), 0);
    OK(image_sync(store.image, image_commit_seq(store.image)));
    OK(image_look(reader.image, words()));
    cr_assert_eq(image_commit_seq(reader.image), from + count);
    reader_expect(0, MIB, from + count);
    cr_assert_gt(atomic_load(&looks), 1);
    end();
}

/* ---- who has nothing to follow, and who copies ---- */

Test(follow, live_readers_and_private_replays_have_nothing_to_do)
{
    store_open(IMAGE_PRIVATE);
    store_fill(0, UNIT_BYTES, 2);
    commit(UNIT_BYTES, true);
    store_drop();
    struct image_options options = {.kind = IMAGE_READ, .any_address = true, .first = true};
    OK(file_open(&store.file, false));
    OK(superblock_read(&store.file, &store.super));
    OK(image_open(&store.image, &store.file, &store.super, &options));
    cr_assert(image_recovered(store.image));
    OK(image_look(store.image, words()));
    store_expect(0, UNIT_BYTES, 2);
    store_drop();
    store_open(IMAGE_SHARED);
    reader_open();
    store_fill(0, UNIT_BYTES, 3);
    OK(image_look(reader.image, words()));
    reader_expect(0, UNIT_BYTES, 3);
    end();
}

Test(follow, a_backup_by_a_reader_is_what_it_was_shown)
{
    char copy[160];
    (void)snprintf(copy, sizeof copy, "%s.copy", store.path);
    begin(2 * MIB);
    OK(image_extend(store.image, 3 * MIB));
    store_fill(MIB, 3 * MIB, 2);
    uint64_t seq = commit(3 * MIB, true);
    OK(image_look(reader.image, words()));
    uint64_t word;
    OK(image_read_committed(reader.image, 2 * MIB - PAGE_BYTES, &word, sizeof word));
    cr_assert_eq(word, store_mark(2 * MIB - PAGE_BYTES, 2));
    OK(image_backup(reader.image, &reader.super, copy));
    end();
    OK(file_resolve(&store.file, copy));
    store_open(IMAGE_READ);
    cr_assert_eq(store.super.state, SUPER_SEALED);
    cr_assert_eq(store.super.commit_seq, seq);
    store_expect(0, MIB, 1);
    store_expect(MIB, 3 * MIB, 2);
    store_check(0);
    store_drop();
}
