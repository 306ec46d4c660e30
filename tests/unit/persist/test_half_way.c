/*
 * test_half_way.c -- a call that failed half-way leaves a store that goes on or opens again: openings whose superblock did
 * not get to the disk, a growth whose mark did not.  Kills and power cuts one after the other: what the first left in
 * the page cache alone is lost by the second.
 */
#include "temp_store.h"

#include <limits.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "persist/image_internal.h"
#include "persist/tail.h"
#include "persist/txn_internal.h"

static void setup(void)
{
    store_directory();
    store_create();
}

TestSuite(half_way, .init = setup, .fini = store_remove, .timeout = 300);

/* ---- durable writes that fail ---- */

enum failing { NOT_WRITTEN, HALF_WRITTEN, WRITTEN /* and not synced */ };
static long durable_left;
static enum failing how;
static bool half_sent;
static long durable_failures; /* so many fail, then no more */

static ssize_t failing_pwrite_durable(int fd, const void *buffer, size_t bytes, off_t offset)
{
    if (durable_left-- > 0 || durable_failures-- <= 0)
        return file_calls_system.pwrite_durable(fd, buffer, bytes, offset);
    if (how == HALF_WRITTEN && !half_sent) {
        half_sent = true;
        return file_calls_system.pwrite(fd, buffer, bytes / 2, offset);
    }
    if (how == WRITTEN)
        (void)file_calls_system.pwrite(fd, buffer, bytes, offset);
    errno = EIO;
    return -1;
}

static void fail_durable_write(long n, enum failing with)
{
    durable_left = n;
    how = with;
    half_sent = false;
    durable_failures = LONG_MAX;
    file_calls.pwrite_durable = failing_pwrite_durable;
}

Test(half_way, an_opening_that_could_not_write_a_superblock_leaves_a_store_that_opens)
{
    for (enum failing with = NOT_WRITTEN; with <= WRITTEN; with++) {
        int rc = EIO;
        for (long n = 0; rc != 0; n++) {
            fail_durable_write(n, with);
            rc = store_try_open(IMAGE_PRIVATE, true);
            file_calls = file_calls_system;
            cr_assert(rc == 0 || rc == EIO, "write %ld: %d", n, rc);
            cr_assert(rc != 0 || n > 1, "%ld writes prove nothing", n);
            if (rc == 0)
                store_drop();
            store_open(IMAGE_PRIVATE);
            store_expect(0, UNIT_BYTES, 0);
            store_check(0);
            store_seal(UNIT_BYTES);
            cr_assert_eq(store_count_files(), 1);
        }
    }
}

/* W24 */
static void expect_kept_checksums_are_the_files(void)
{
    for (uint64_t page = 0; page < 2 * MIB / PAGE_BYTES; page++) {
        uint64_t *entry, in_file;
        OK(checksum_cache_get(&store.image->txn->checksums, page, &entry));
        OK(file_read_at(store.file.fd, &in_file, sizeof in_file, format_checksum_offset(page * PAGE_BYTES)));
        cr_assert_eq(entry[page % CHECKSUM_BLOCK_PAGES], in_file, "page %" PRIu64, page);
    }
}

/* The close had punched free pages, whose checksums are those of zeros now, when one of its writes failed. */
Test(half_way, a_close_that_failed_keeps_no_checksums_of_pages_that_it_punched)
{
    unsigned went_on = 0;
    int closed = EIO;
    for (long n = 0; closed != 0; n++) {
        uint64_t seq;
        const struct image_free_range range = {MIB, MIB};
        store_open(IMAGE_PRIVATE);
        OK(image_extend(store.image, 2 * MIB));
        store_fill(0, 2 * MIB, 1);
        OK(image_commit(store.image, 2 * MIB, &seq));
        OK(image_checkpoint(store.image)); /* has read and replaced all checksums */
        fail_durable_write(n, NOT_WRITTEN);
        durable_failures = 1;
        closed = image_seal(store.image, &store.super, 2 * MIB, &range, 1);
        file_calls = file_calls_system;
        if (closed != 0 && !image_failed(store.image)) {
            went_on++;
            expect_kept_checksums_are_the_files();
            store_fill(MIB, MIB + 8, 2); /* a part of a page */
            OK(image_commit(store.image, 2 * MIB, &seq));
            OK(image_seal(store.image, &store.super, 2 * MIB, NULL, 0));
        }
        store_drop();
        store_open(IMAGE_PRIVATE);
        store_check(0);
        store_seal(2 * MIB);
    }
    cr_assert_gt(went_on, 0, "no store went on after a close that failed");
}

static void expect_zeros(uint64_t from, uint64_t to)
{
    for (uint64_t at = from; at < to; at += 8)
        cr_assert_eq(*store_word(at), 0, "image offset %" PRIu64, at);
}

/* SOLE: the commit that uses new space is the first to wait for the file's length.  If that fails the store has failed; the
 * disk has the old end or the new one, and either opens to the last commit, with zeros behind it (T4). */
Test(half_way, a_growth_whose_mark_cannot_be_synced_fails_the_commit_and_is_tried_again_by_the_next_session)
{
    for (enum failing with = NOT_WRITTEN; with <= WRITTEN; with++) {
        uint64_t seq;
        store_open(IMAGE_PRIVATE);
        OK(image_extend(store.image, 2 * MIB));
        OK(image_extend(store.image, 20 * MIB)); /* a mark between: gone already */
        expect_zeros(UNIT_BYTES, 20 * MIB);
        store_fill(MIB, 2 * MIB, 7);
        fail_durable_write(0, with);
        cr_assert_eq(image_commit(store.image, 2 * MIB, &seq), STEAD_FAILED);
        file_calls = file_calls_system;
        cr_assert_eq(image_commit(store.image, 2 * MIB, &seq), STEAD_FAILED, "it is not believed");
        store_drop();
        store_open(IMAGE_PRIVATE);
        OK(image_extend(store.image, 20 * MIB));
        expect_zeros(UNIT_BYTES, 20 * MIB);
        store_fill(MIB, 2 * MIB, 7);
        OK(image_commit(store.image, 2 * MIB, &seq));
        OK(image_sync(store.image, seq));
        store_expect(MIB, 2 * MIB, 7);
        expect_zeros(UNIT_BYTES, MIB);
        store_drop();
        store_open(IMAGE_PRIVATE);
        store_expect(MIB, 2 * MIB, 7);
        expect_zeros(UNIT_BYTES, MIB);
        store_check(0);
        store_seal(2 * MIB);
        store_remove();
        store_directory();
        store_create();
    }
}

/* T4.  At each write into the file: is what was durable when it was asked for still the end, or the new end durable? */
static uint64_t confirmed_end;
static long writes_past_it;

static ssize_t counting_pwrite(int fd, const void *buffer, size_t bytes, off_t offset)
{
    char name[FILE_PATH_BYTES];
    bool mark = bytes == TAIL_BYTES || bytes == sizeof(struct tail_limit) || bytes == sizeof(uint64_t);
    if (strstr(file_name(fd, name), "-wal") == NULL && (uint64_t)offset + bytes > confirmed_end && !mark)
        writes_past_it++;
    return file_calls_system.pwrite(fd, buffer, bytes, offset);
}

static ssize_t noting_pwrite_durable(int fd, const void *buffer, size_t bytes, off_t offset)
{
    ssize_t rc = file_calls_system.pwrite_durable(fd, buffer, bytes, offset);
    if (bytes == TAIL_BYTES && rc == (ssize_t)bytes)
        confirmed_end = (uint64_t)offset;
    return rc;
}

Test(half_way, T4_nothing_is_written_past_an_end_that_is_not_durable)
{
    uint64_t seq, used = 2 * MIB;
    store_open(IMAGE_PRIVATE);
    confirmed_end = format_file_bytes(UNIT_BYTES);
    file_calls.pwrite = counting_pwrite;
    file_calls.pwrite_durable = noting_pwrite_durable;
    for (unsigned round = 0; round < 4; round++, used += (round % 2 + 1) * 8 * MIB) {
        uint64_t before = confirmed_end;
        OK(image_extend(store.image, used));
        cr_assert_eq(confirmed_end, before, "growth waits for nothing");
        store_fill(used - MIB, used, round + 1); /* many pages */
        OK(image_commit(store.image, used, &seq));
        store_fill(used - MIB, used - MIB + 8, round + 9); /* an old one */
        OK(image_commit(store.image, used, &seq));
        OK(image_checkpoint(store.image));
        cr_assert_geq(confirmed_end, format_file_bytes(used));
    }
    file_calls = file_calls_system;
    cr_assert_eq(writes_past_it, 0);
    store_seal(used);
}

/* Killed after it grew, in SOLE: the next one, in TURNS, uses the old place only behind an end that is durable. */
Test(half_way, T4_who_takes_the_turn_makes_an_end_durable_that_the_killed_left)
{
    bool changed;
    store_open(IMAGE_PRIVATE);
    OK(image_extend(store.image, 2 * MIB));
    store_drop();
    struct image_options options = {
        .kind = IMAGE_PRIVATE, .first = true, .turns = true, .shared = (struct image_shared *)(void *)store.shared};
    OK(file_open(&store.file, true));
    OK(superblock_read(&store.file, &store.super));
    OK(image_open(&store.image, &store.file, &store.super, &options));
    confirmed_end = format_file_bytes(UNIT_BYTES);
    file_calls.pwrite = counting_pwrite;
    file_calls.pwrite_durable = noting_pwrite_durable;
    OK(image_refresh(store.image, &changed));
    file_calls = file_calls_system;
    cr_assert_geq(confirmed_end, format_file_bytes(2 * MIB));
    cr_assert_eq(writes_past_it, 0);
    expect_zeros(UNIT_BYTES, 2 * MIB);
    store_drop();
}

/* A reader keeps the file at its length: the close seals all of it, and the place of the former end is in the image then. */
Test(half_way, T4_a_close_that_keeps_the_length_leaves_no_former_end_in_the_image)
{
    uint64_t seq;
    bool changed;
    for (unsigned turns = 0; turns < 2; turns++) {
        store_open(IMAGE_PRIVATE);
        OK(image_extend(store.image, 2 * MIB));
        uint64_t used = image_bytes(store.image);
        store_seal(used);
        struct image_options options = {.kind = IMAGE_PRIVATE,
                                        .first = true,
                                        .turns = turns != 0,
                                        .shared = (struct image_shared *)(void *)store.shared};
        OK(file_open(&store.file, true));
        OK(superblock_read(&store.file, &store.super));
        OK(image_open(&store.image, &store.file, &store.super, &options));
        OK(image_refresh(store.image, &changed));
        expect_zeros(UNIT_BYTES, used);
        store_check(0);
        OK(image_extend(store.image, used + MIB));
        store_fill(used, used + MIB, 3);
        OK(image_commit(store.image, used + MIB, &seq));
        OK(image_checkpoint(store.image));
        store_check(0);
        store_seal(UNIT_BYTES);
    }
}

static unsigned mmaps_left;

static void *failing_mmap(void *address, size_t bytes, int protection, int flags, int fd, off_t offset)
{
    if (mmaps_left == 0) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    mmaps_left--;
    return file_calls_system.mmap(address, bytes, protection, flags, fd, offset);
}

/* The file is longer, but not mapped: who maps it later, by its length, must find the former end's place cleared. */
Test(half_way, T4_growth_that_cannot_be_mapped_leaves_no_former_end_for_the_next_try)
{
    bool failed = true;
    for (unsigned n = 0; failed; n++) {
        store_open(IMAGE_PRIVATE);
        mmaps_left = n;
        file_calls.mmap = failing_mmap;
        failed = image_extend(store.image, 2 * MIB) != 0;
        file_calls = file_calls_system;
        cr_assert(failed || n > 0);
        if (!image_failed(store.image)) {
            OK(image_extend(store.image, 2 * MIB));
            expect_zeros(UNIT_BYTES, 2 * MIB);
        }
        store_seal(UNIT_BYTES);
    }
}

/* The mark behind the end counts, too. */
Test(half_way, a_file_size_limit_that_only_the_mark_passes_is_an_error_and_no_signal)
{
    for (uint64_t room = 0; room <= TAIL_BYTES; room += TAIL_BYTES / 4) {
        pid_t child = fork();
        if (child == 0) {
            struct rlimit limit;
            store_open(IMAGE_PRIVATE);
            if (getrlimit(RLIMIT_FSIZE, &limit) != 0)
                _exit(2);
            limit.rlim_cur = format_file_bytes(2 * MIB) + room;
            if (setrlimit(RLIMIT_FSIZE, &limit) != 0)
                _exit(2);
            int rc = image_extend(store.image, 2 * MIB);
            _exit(rc == (room == TAIL_BYTES ? 0 : EFBIG) ? 0 : 1);
        }
        int status;
        cr_assert_eq(waitpid(child, &status, 0), child);
        cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "room for %" PRIu64 " bytes: status %x", room, status);
        store_open(IMAGE_PRIVATE);
        store_seal(UNIT_BYTES);
    }
}

/* ---- the new log takes the old one's place ---- */

static int failing_unlink(const char *path)
{
    (void)path;
    errno = EACCES;
    return -1;
}

static int exchange_after_remove(const char *a, const char *b)
{
    (void)unlink(a);
    (void)unlink(b);
    (void)unlink(store.path);
    return file_calls_system.exchange(a, b);
}

static int no_exchange_after_remove(const char *a, const char *b)
{
    (void)exchange_after_remove(a, b);
    errno = EINVAL;
    return -1;
}

/* Once the new log has its place, or nobody will ever look for it, the checkpoint has done its work. */
Test(half_way, a_checkpoint_whose_old_log_stays_or_whose_store_is_removed_does_not_fail)
{
    for (unsigned how_so = 0; how_so < 3; how_so++) {
        uint64_t seq;
        store_open(IMAGE_PRIVATE);
        *store_word(0) = 10 + how_so;
        OK(image_commit(store.image, UNIT_BYTES, &seq));
        if (how_so == 0)
            file_calls.unlink = failing_unlink;
        else
            file_calls.exchange = how_so == 1 ? exchange_after_remove : no_exchange_after_remove;
        OK(image_checkpoint(store.image));
        *store_word(8) = 20 + how_so;
        OK(image_commit(store.image, UNIT_BYTES, &seq));
        OK(image_sync(store.image, seq));
        file_calls = file_calls_system;
        *store_word(16) = 30 + how_so;
        OK(image_commit(store.image, UNIT_BYTES, &seq));
        OK(image_checkpoint(store.image));
        store_drop();
        if (how_so == 0) {
            store_open(IMAGE_PRIVATE);
            cr_assert_eq(*store_word(16), 30 + how_so);
            store_seal(UNIT_BYTES);
            cr_assert_eq(store_count_files(), 1);
        } else {
            cr_assert_eq(store_count_files(), 0);
            store_create();
        }
    }
}

/* ---- killed, and then the power is cut ---- */

static long calls_left; /* until the process is dead: then every call fails and does nothing */
static bool dies_before_sync;
static bool superblock_synced;
static uint64_t superblock_at; /* the copy in question */

static bool dead(void)
{
    return calls_left-- <= 0;
}

static int gone(void)
{
    errno = EIO;
    return -1;
}

static bool is_store(int fd)
{
    struct stat facts, named;
    return fstat(fd, &facts) == 0 && stat(store.path, &named) == 0 && facts.st_ino == named.st_ino;
}

static void note_sync(int fd, uint64_t offset, uint64_t bytes)
{
    superblock_synced = superblock_synced || (is_store(fd) && offset <= superblock_at &&
                                              offset + bytes >= superblock_at + sizeof(struct superblock));
}

#define CALL(result, name, parameters, arguments, noted) \
    static result mortal_##name parameters \
    { \
        if (dead()) \
            return gone(); \
        noted; \
        return file_calls_system.name arguments; \
    }
CALL(int, fdatasync, (int fd), (fd), note_sync(fd, 0, UINT64_MAX))
CALL(int, fsync, (int fd), (fd), note_sync(fd, 0, UINT64_MAX))
CALL(int, sync_range, (int fd, off_t offset, off_t bytes), (fd, offset, bytes),
     note_sync(fd, (uint64_t)offset, (uint64_t)bytes))
CALL(int, ftruncate, (int fd, off_t bytes), (fd, bytes), (void)0)
CALL(int, fallocate, (int fd, int mode, off_t offset, off_t bytes), (fd, mode, offset, bytes), (void)0)
CALL(int, unlink, (const char *path), (path), (void)0)
CALL(int, rename, (const char *from, const char *to), (from, to), (void)0)
CALL(int, exchange, (const char *a, const char *b), (a, b), (void)0)
CALL(ssize_t, pwrite, (int fd, const void *buffer, size_t bytes, off_t offset), (fd, buffer, bytes, offset), (void)0)

static ssize_t mortal_pwrite_durable(int fd, const void *buffer, size_t bytes, off_t offset)
{
    if (dead())
        return gone();
    if (dies_before_sync) { /* the kernel has the bytes, the disk has not */
        superblock_at = (uint64_t)offset;
        calls_left = 0;
        (void)file_calls_system.pwrite(fd, buffer, bytes, offset);
        return gone();
    }
    note_sync(fd, (uint64_t)offset, bytes);
    return file_calls_system.pwrite_durable(fd, buffer, bytes, offset);
}

static void die_after(long calls, bool before_first_durable_write_is_synced)
{
    calls_left = calls;
    dies_before_sync = before_first_durable_write_is_synced;
    superblock_synced = false;
    file_calls.fdatasync = mortal_fdatasync;
    file_calls.fsync = mortal_fsync;
    file_calls.sync_range = mortal_sync_range;
    file_calls.ftruncate = mortal_ftruncate;
    file_calls.fallocate = mortal_fallocate;
    file_calls.unlink = mortal_unlink;
    file_calls.rename = mortal_rename;
    file_calls.exchange = mortal_exchange;
    file_calls.pwrite = mortal_pwrite;
    file_calls.pwrite_durable = mortal_pwrite_durable;
}

static const char *const suffixes[] = {"", "-wal", "-wal.new"};

/* Store and logs to names of their own, or back. */
static void copy_all(const char *from_suffix, const char *to_suffix)
{
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        char from[200], to[200], command[500];
        (void)snprintf(from, sizeof from, "%s%s%s", store.path, suffixes[i], from_suffix);
        (void)snprintf(to, sizeof to, "%s%s%s", store.path, suffixes[i], to_suffix);
        (void)unlink(to);
        (void)snprintf(command, sizeof command, "cp '%s' '%s'", from, to);
        if (access(from, F_OK) == 0)
            cr_assert_eq(system(command), 0);
    }
}

/* A session with a commit ends in its checkpoint, or in its close, right after a superblock reached the kernel; the next
 * opening is cut off at each of its calls by a power cut, which takes that superblock unless it was synced in between. */
static void lose_a_superblock(bool in_close)
{
    uint64_t seq;
    uint8_t before[2 * UNIT_BYTES];
    OK(image_extend(store.image, 2 * MIB));
    store_fill(0, 2 * MIB, 1);
    OK(image_commit(store.image, 2 * MIB, &seq));
    OK(image_sync(store.image, seq));
    if (in_close)
        OK(image_checkpoint(store.image));
    OK(file_read_at(store.file.fd, before, sizeof before, 0));
    die_after(1000, true);
    int rc = in_close ? image_seal(store.image, &store.super, 2 * MIB, NULL, 0) : image_checkpoint(store.image);
    file_calls = file_calls_system;
    cr_assert_neq(rc, 0);
    cr_assert_eq(calls_left, 0, "no superblock was written");
    store_drop();
    copy_all("", ".kept");
    bool done = false;
    for (long calls = 0; !done; calls++) {
        copy_all(".kept", "");
        die_after(calls, false);
        rc = store_try_open(IMAGE_PRIVATE, true);
        done = calls_left >= 0;
        file_calls = file_calls_system;
        if (rc == 0)
            store_drop();
        if (!superblock_synced) {
            int fd = open(store.path, O_RDWR);
            OK(file_write_at(fd, before + superblock_at, sizeof(struct superblock), superblock_at));
            close(fd);
        }
        rc = store_try_open(IMAGE_PRIVATE, true);
        cr_assert_eq(rc, 0, "cut after %ld calls: %d (%s)", calls, rc, error_last_text());
        store_expect(0, 2 * MIB, 1);
        store_check(0);
        store_seal(2 * MIB);
        cr_assert_lt(calls, 200);
        cr_assert(!done || calls > 5, "%ld calls prove nothing", calls);
    }
}

Test(half_way, killed_in_a_checkpoint_and_cut_off_in_recovery_keeps_the_log_that_the_disk_names)
{
    store_open(IMAGE_PRIVATE);
    lose_a_superblock(false);
}

Test(half_way, killed_in_a_close_and_cut_off_at_the_next_opening_keeps_the_log_that_the_disk_names)
{
    store_open(IMAGE_PRIVATE);
    lose_a_superblock(true);
}
