/* backup.c: P4.  A copy made from any kind of image opens sealed with the last commit's bytes; made by reflink (played
 * by a copy where the file system has none) or by copying; an end at any call leaves no copy or a whole one. */
#include "persist/scrub.h"
#include "persist/tail.h"
#include "temp_store.h"

#include <sys/wait.h>

static char copy_path[160];

static void setup(void)
{
    store_directory();
    store_create();
    (void)snprintf(copy_path, sizeof copy_path, "%s/copy", store.directory);
}

TestSuite(backup, .init = setup, .fini = store_remove, .timeout = 300);

/* The copy is a sealed store of its own with marks of `round` in [0, used). */
static void expect_copy(uint64_t used, uint64_t round)
{
    struct file file;
    struct superblock super;
    struct image *image;
    struct image_options options = {.kind = IMAGE_READ, .first = true, .any_address = true};
    struct stat facts;
    cr_assert_eq(stat(copy_path, &facts), 0);
    cr_assert_eq((uint64_t)facts.st_size, format_file_bytes(used) + TAIL_BYTES);
    cr_assert_eq(facts.st_mode & 0777, 0600);
    OK(file_resolve(&file, copy_path));
    OK(file_open(&file, false));
    OK(superblock_read(&file, &super));
    cr_assert_eq(super.state, SUPER_SEALED);
    cr_assert_eq(super.checksums_valid, 1);
    cr_assert_eq(super.used_bytes, used);
    cr_assert_eq(super.base, store.super.base);
    cr_assert_eq(memcmp(super.id, store.super.id, sizeof super.id), 0);
    OK(image_open(&image, &file, &super, &options));
    for (uint64_t at = 0; at < used; at += PAGE_BYTES) {
        uint64_t word;
        memcpy(&word, (uint8_t *)image_base(image) + at, sizeof word);
        cr_assert_eq(word, store_mark(at, round), "offset %" PRIu64, at);
    }
    struct report report = {0};
    superblock_check(&file, &report);
    image_check(image, &report, NULL, NULL);
    cr_assert_eq(report.problems, 0, "%s", report.first);
    image_close(image);
    file_close(&file);
}

static void expect_lock_unit_clear(void)
{
    static uint8_t bytes[UNIT_BYTES], none[UNIT_BYTES];
    int fd = open(copy_path, O_RDONLY);
    OK(file_read_at(fd, bytes, sizeof bytes, LOCK_UNIT_OFFSET));
    close(fd);
    cr_assert_eq(memcmp(bytes, none, sizeof bytes), 0);
}

static void dirty_lock_unit(void)
{
    static uint8_t bytes[UNIT_BYTES];
    memset(bytes, 0xab, sizeof bytes);
    OK(file_write_at(store.file.fd, bytes, sizeof bytes, LOCK_UNIT_OFFSET));
}

Test(backup, of_a_live_store_has_its_bytes_and_fresh_checksums)
{
    store_open(IMAGE_SHARED);
    OK(image_extend(store.image, 40 * MIB));
    uint64_t used = image_bytes(store.image);
    store_fill(0, used, 1);
    dirty_lock_unit();
    OK(image_backup(store.image, &store.super, copy_path));
    store_fill(0, used, 2);
    expect_lock_unit_clear();
    struct superblock super;
    OK(superblock_read(&store.file, &super));
    cr_assert_eq(super.state, SUPER_OPEN_LIVE, "the original stays open");
    store_seal(used);
    expect_copy(used, 1);
}

Test(backup, of_a_private_store_is_its_last_commit)
{
    uint64_t seq;
    store_open(IMAGE_PRIVATE);
    OK(image_extend(store.image, 40 * MIB));
    store_fill(0, 40 * MIB, 1);
    OK(image_commit(store.image, 40 * MIB, &seq));
    store_fill(0, 2 * MIB, 2);
    OK(image_commit(store.image, 40 * MIB, &seq)); /* not synced, not applied */
    store_fill(2 * MIB, 40 * MIB, 2);
    OK(image_commit(store.image, 40 * MIB, &seq));
    store_fill(0, 20 * MIB, 3); /* not committed */
    dirty_lock_unit();
    OK(image_backup(store.image, &store.super, copy_path));
    store_expect(0, 20 * MIB, 3);
    expect_lock_unit_clear();
    OK(image_commit(store.image, 40 * MIB, &seq));
    store_seal(40 * MIB);
    expect_copy(40 * MIB, 2);
    store_open(IMAGE_READ);
    store_expect(0, 20 * MIB, 3);
    store_check(0);
    store_drop();
}

/* The log names pages that the last commit has not any more: by words, and all of a page. */
Test(backup, of_a_store_that_became_shorter_ends_where_its_last_commit_does)
{
    uint64_t seq;
    store_open(IMAGE_PRIVATE);
    OK(image_extend(store.image, 40 * MIB));
    store_fill(0, 40 * MIB, 1);
    OK(image_commit(store.image, 40 * MIB, &seq));
    store_fill(10 * MIB, 40 * MIB, 2);
    memset((uint8_t *)image_base(store.image) + 39 * MIB, 7, PAGE_BYTES);
    OK(image_commit(store.image, 40 * MIB, &seq));
    store_fill(10 * MIB, 20 * MIB, 1);
    OK(image_commit(store.image, 20 * MIB, &seq)); /* nothing of this is applied */
    OK(image_backup(store.image, &store.super, copy_path));
    store_seal(20 * MIB);
    expect_copy(20 * MIB, 1);
}

Test(backup, of_a_crashed_store_by_a_reader_has_the_replayed_commit)
{
    uint64_t seq;
    store_open(IMAGE_PRIVATE);
    OK(image_extend(store.image, 2 * MIB));
    store_fill(0, 2 * MIB, 1);
    OK(image_commit(store.image, 2 * MIB, &seq));
    store_fill(0, 2 * MIB, 2);
    OK(image_commit(store.image, 2 * MIB, &seq));
    OK(image_sync(store.image, seq));
    store_drop();
    store_open(IMAGE_READ);
    OK(image_backup(store.image, &store.super, copy_path));
    store_drop();
    expect_copy(2 * MIB, 2);
    store_open(IMAGE_PRIVATE); /* the original is as crashed as before */
    cr_assert(image_recovered(store.image));
    store_drop();
}

Test(backup, of_a_sealed_store_by_a_reader)
{
    store_open(IMAGE_READ);
    OK(image_backup(store.image, &store.super, copy_path));
    store_drop();
    expect_copy(UNIT_BYTES, 0);
}

static unsigned clones;
static int clone_by_copy(int to, int from)
{
    struct stat facts;
    clones++;
    if (fstat(from, &facts) != 0)
        return -1;
    errno = file_copy_range(from, 0, to, 0, (uint64_t)facts.st_size);
    return errno == 0 ? 0 : -1;
}

Test(backup, by_reflink_carries_nothing_of_the_open_store_along)
{
    uint64_t seq;
    file_calls.clone = clone_by_copy;
    store_open(IMAGE_PRIVATE);
    OK(image_extend(store.image, 3 * MIB));
    store_fill(0, 2 * MIB, 1);
    OK(image_commit(store.image, 2 * MIB, &seq));
    dirty_lock_unit();
    OK(image_backup(store.image, &store.super, copy_path));
    cr_assert_eq(clones, 1);
    store_drop();
    expect_lock_unit_clear();
    expect_copy(2 * MIB, 1);
}

/* A clone made just when a growing commit had written a page, and not its entry yet; then all was rolled back. */
#define IN_FLIGHT (3 * MIB + 5 * PAGE_BYTES)
static int clone_in_flight(int to, int from)
{
    uint8_t page[PAGE_BYTES];
    uint64_t entry = 77; /* and of another page the entry of a life before */
    memset(page, 0xee, sizeof page);
    if (clone_by_copy(to, from) != 0)
        return -1;
    errno = file_write_at(to, page, sizeof page, format_file_offset(IN_FLIGHT));
    if (errno == 0)
        errno = file_write_at(to, &entry, sizeof entry, format_checksum_offset(IN_FLIGHT + PAGE_BYTES));
    return errno == 0 ? 0 : -1;
}

Test(backup, by_reflink_takes_no_page_that_was_in_flight_then)
{
    uint64_t seq;
    bool more;
    struct image_backup *backup;
    file_calls.clone = clone_in_flight;
    store_open(IMAGE_PRIVATE);
    OK(image_extend(store.image, 8 * MIB));
    store_fill(0, 2 * MIB, 1);
    OK(image_commit(store.image, 2 * MIB, &seq));
    OK(image_apply(store.image));
    OK(image_backup_begin(&backup, store.image, copy_path));
    OK(image_backup_ahead(backup, &more));
    cr_assert_eq(clones, 1);
    cr_assert_not(more);
    store_fill(0, IN_FLIGHT, 2);
    memset((uint8_t *)image_base(store.image) + IN_FLIGHT + 2 * PAGE_BYTES, 1, 1);
    OK(image_commit(store.image, 4 * MIB, &seq)); /* two pages of zeros in it */
    OK(image_apply(store.image));
    OK(image_backup_fix(backup, &store.super));
    OK(image_backup_copy(backup));
    OK(image_backup_finish(backup, 0));
    store_drop();
    struct file file;
    struct superblock super;
    uint8_t pages[2 * PAGE_BYTES], zeros[2 * PAGE_BYTES] = {0};
    struct report report = {0};
    OK(file_resolve(&file, copy_path));
    OK(file_open(&file, false));
    OK(superblock_read(&file, &super));
    OK(file_read_at(file.fd, pages, sizeof pages, format_file_offset(IN_FLIGHT)));
    cr_assert_eq(memcmp(pages, zeros, sizeof pages), 0);
    scrub_check(file.fd, super.used_bytes, NULL, &report, NULL, NULL);
    cr_assert_eq(report.problems, 0, "%s", report.first);
    file_close(&file);
}

Test(backup, replaces_nothing_and_says_where_it_failed)
{
    store_open(IMAGE_READ);
    close(open(copy_path, O_CREAT | O_WRONLY, 0600));
    FAILS(image_backup(store.image, &store.super, copy_path), EEXIST);
    FAILS(image_backup(store.image, &store.super, store.path), EEXIST);
    cr_assert_not_null(strstr(error_last_text(), store.path), "%s", error_last_text());
    char path[200];
    (void)snprintf(path, sizeof path, "%s/none/copy", store.directory);
    FAILS(image_backup(store.image, &store.super, path), ENOENT);
    store_drop();
}

static int calls_left;
static bool spent(void)
{
    return calls_left-- <= 0;
}
static ssize_t cut_pwrite(int fd, const void *buffer, size_t bytes, off_t offset)
{
    errno = ENOSPC;
    return spent() ? -1 : file_calls_system.pwrite(fd, buffer, bytes, offset);
}
static ssize_t cut_pwrite_durable(int fd, const void *buffer, size_t bytes, off_t offset)
{
    errno = ENOSPC;
    return spent() ? -1 : file_calls_system.pwrite_durable(fd, buffer, bytes, offset);
}
static ssize_t cut_copy(int from, off_t *from_at, int to, off_t *to_at, size_t bytes)
{
    errno = ENOSPC;
    return spent() ? -1 : file_calls_system.copy_file_range(from, from_at, to, to_at, bytes);
}
static int cut_fsync(int fd)
{
    errno = EIO;
    return spent() ? -1 : file_calls_system.fsync(fd);
}
static int cut_ftruncate(int fd, off_t bytes)
{
    errno = EIO;
    return spent() ? -1 : file_calls_system.ftruncate(fd, bytes);
}
static int cut_linkat(int old_dir, const char *old_path, int new_dir, const char *new_path, int flags)
{
    errno = EIO;
    return spent() ? -1 : file_calls_system.linkat(old_dir, old_path, new_dir, new_path, flags);
}

Test(backup, a_failure_at_any_call_leaves_no_copy_or_a_whole_one_and_the_store_as_it_was)
{
    store_open(IMAGE_SHARED);
    OK(image_extend(store.image, MIB));
    uint64_t used = image_bytes(store.image);
    store_fill(0, used, 1);
    int rc = -1, cut = 0;
    for (; rc != 0; cut++) {
        calls_left = cut;
        file_calls.pwrite = cut_pwrite;
        file_calls.pwrite_durable = cut_pwrite_durable;
        file_calls.copy_file_range = cut_copy;
        file_calls.fsync = cut_fsync;
        file_calls.ftruncate = cut_ftruncate;
        file_calls.linkat = cut_linkat;
        rc = image_backup(store.image, &store.super, copy_path);
        file_calls = file_calls_system;
        if (access(copy_path, F_OK) == 0)
            expect_copy(used, 1);
        else
            cr_assert_neq(rc, 0);
        (void)unlink(copy_path);
        cr_assert_eq(store_count_files(), 1);
        store_expect(0, used, 1);
        cr_assert_lt(cut, 200);
    }
    cr_assert_gt(cut, 5, "%d calls prove nothing", cut);
    store_seal(used);
}
