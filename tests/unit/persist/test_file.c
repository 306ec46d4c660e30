/* file.c, file_name.c: names, whole transfers whatever the kernel cuts short, syncs, sizes.
 * Method: the table of calls replaced by ones that interrupt, shorten and count. */
#include "temp_store.h"

#include <sys/wait.h>

static int fd;

static void setup(void)
{
    store_directory();
    fd = open(store.path, O_RDWR | O_CREAT, 0600);
    cr_assert_geq(fd, 0);
}

static void teardown(void)
{
    close(fd);
    store_remove();
}

TestSuite(file, .init = setup, .fini = teardown, .timeout = 300);

static unsigned calls;

static ssize_t stingy_pread(int file, void *buffer, size_t bytes, off_t offset)
{
    if (calls++ % 3 == 0) {
        errno = EINTR;
        return -1;
    }
    return pread(file, buffer, bytes > 7 ? 7 : bytes, offset);
}

static ssize_t stingy_pwrite(int file, const void *buffer, size_t bytes, off_t offset)
{
    if (calls++ % 3 == 0) {
        errno = EINTR;
        return -1;
    }
    return pwrite(file, buffer, bytes > 7 ? 7 : bytes, offset);
}

Test(file, transfers_are_whole_although_interrupted_and_cut_short)
{
    char out[1000], in[1000];
    for (size_t i = 0; i < sizeof out; i++)
        out[i] = (char)(i * 7);
    file_calls.pread = stingy_pread;
    file_calls.pwrite = file_calls.pwrite_durable = stingy_pwrite;
    OK(file_write_at(fd, out, sizeof out, 123));
    OK(file_read_at(fd, in, sizeof in, 123));
    cr_assert_eq(memcmp(in, out, sizeof in), 0);
    cr_assert_gt(calls, 2 * sizeof out / 7);
    OK(file_write_durable(fd, in, sizeof in, 5000));
    OK(file_read_at(fd, out, sizeof in, 5000));
    cr_assert_eq(memcmp(in, out, sizeof in), 0);
}

Test(file, reading_past_the_end_is_an_error_and_no_short_success)
{
    char in[100];
    OK(file_write_at(fd, "abc", 3, 0));
    OK(file_read_at(fd, in, 3, 0));
    FAILS(file_read_at(fd, in, 4, 0), EIO);
    FAILS(file_read_at(fd, in, 1, 3), EIO);
    OK(file_read_at(fd, in, 0, 99));
}

static ssize_t no_durable_write(int file, const void *buffer, size_t bytes, off_t offset)
{
    (void)file, (void)buffer, (void)bytes, (void)offset;
    errno = EOPNOTSUPP;
    return -1;
}

static unsigned range_syncs;
static int counted_sync_range(int file, off_t offset, off_t bytes)
{
    range_syncs++;
    cr_assert_eq(offset % (off_t)UNIT_BYTES, 0);
    cr_assert_eq(bytes % (off_t)UNIT_BYTES, 0);
    return file_calls_system.sync_range(file, offset, bytes);
}

Test(file, a_durable_write_falls_back_to_write_and_ranged_sync)
{
    char in[4];
    file_calls.pwrite_durable = no_durable_write;
    file_calls.sync_range = counted_sync_range;
    OK(file_write_durable(fd, "abc", 4, 4096));
    cr_assert_eq(range_syncs, 1);
    OK(file_read_at(fd, in, 4, 4096));
    cr_assert_str_eq(in, "abc");
}

static off_t synced_from, synced_to;
static int noting_sync_range(int file, off_t offset, off_t bytes)
{
    (void)file;
    if (synced_to == 0)
        synced_from = offset;
    else
        cr_assert_eq(offset, synced_to, "no gap, no overlap");
    synced_to = offset + bytes;
    return 0;
}

Test(file, a_ranged_sync_covers_its_range_in_whole_units)
{
    OK(file_sync_range(fd, 100, 200)); /* the real call, also past the end of the file */
    file_calls.sync_range = noting_sync_range;
    OK(file_sync_range(fd, 3 * UNIT_BYTES + 1, UINT64_C(9) << 30));
    cr_assert_eq((uint64_t)synced_from, 3 * UNIT_BYTES);
    cr_assert_eq((uint64_t)synced_to, 4 * UNIT_BYTES + (UINT64_C(9) << 30));
}

static int no_mapping; /* errno */
static int unmapped_sync_range(int file, off_t offset, off_t bytes)
{
    (void)file, (void)offset, (void)bytes;
    errno = no_mapping;
    return -1;
}

static unsigned whole_syncs;
static int counted_fdatasync(int file)
{
    whole_syncs++;
    return file_calls_system.fdatasync(file);
}

/* No addresses, no memory, all memory locked and the limit reached: none of it says anything about the disk. */
Test(file, a_ranged_sync_that_cannot_map_syncs_the_whole_file)
{
    static const int errors[] = {ENODEV, ENOMEM, EACCES, EAGAIN, EPERM};
    file_calls.sync_range = unmapped_sync_range;
    file_calls.fdatasync = counted_fdatasync;
    for (unsigned i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        no_mapping = errors[i];
        OK(file_sync_range(fd, 0, 200));
        cr_assert_eq(whole_syncs, i + 1);
    }
    no_mapping = EIO;
    FAILS(file_sync_range(fd, 0, 200), EIO);
    cr_assert_eq(whole_syncs, sizeof errors / sizeof errors[0]);
}

static int failing_sync(int file)
{
    (void)file;
    calls++;
    errno = EIO;
    return -1;
}

Test(file, a_failed_sync_is_reported_and_not_repeated)
{
    file_calls.fdatasync = file_calls.fsync = failing_sync;
    FAILS(file_sync(fd), EIO);
    FAILS(file_sync_new(fd), EIO);
    cr_assert_eq(calls, 2);
}

static int impatient_fallocate(int file, int mode, off_t offset, off_t bytes)
{
    (void)file, (void)mode, (void)offset, (void)bytes;
    calls++;
    errno = EINTR;
    return -1;
}

static int interrupted_once(int file, int mode, off_t offset, off_t bytes)
{
    if (calls++ == 0) {
        errno = EINTR;
        return -1;
    }
    return fallocate(file, mode, offset, bytes);
}

Test(file, reserving_survives_interrupts_but_not_for_ever)
{
    struct stat facts;
    file_calls.fallocate = interrupted_once;
    OK(file_reserve(fd, 0, MIB));
    cr_assert_eq(fstat(fd, &facts), 0);
    cr_assert_eq(facts.st_size, (off_t)MIB);
    cr_assert_geq((uint64_t)facts.st_blocks * 512, MIB);
    file_calls.fallocate = impatient_fallocate;
    calls = 0;
    FAILS(file_reserve(fd, 0, 2 * MIB), EINTR);
    cr_assert_lt(calls, 1000);
    OK(file_reserve(fd, 0, 0));
}

Test(file, punched_and_zeroed_ranges_read_as_zeros_and_keep_the_length)
{
    char buffer[UNIT_BYTES];
    memset(buffer, 1, sizeof buffer);
    for (unsigned i = 0; i < 4; i++)
        OK(file_write_at(fd, buffer, sizeof buffer, i * UNIT_BYTES));
    OK(file_punch(fd, UNIT_BYTES, UNIT_BYTES));
    OK(file_zero(fd, 3 * UNIT_BYTES - 1, 3));
    for (unsigned i = 0; i < 4; i++) {
        OK(file_read_at(fd, buffer, sizeof buffer, i * UNIT_BYTES));
        for (size_t j = 0; j < sizeof buffer; j++) {
            uint64_t at = i * UNIT_BYTES + j;
            bool zero = i == 1 || (at >= 3 * UNIT_BYTES - 1 && at < 3 * UNIT_BYTES + 2);
            cr_assert_eq(buffer[j], zero ? 0 : 1, "byte %" PRIu64, at);
        }
    }
    uint64_t bytes;
    OK(file_size(fd, &bytes));
    cr_assert_eq(bytes, 4 * UNIT_BYTES);
}

Test(file, copies_ranges_also_where_the_kernel_will_not)
{
    static char out[300000], in[300000];
    for (size_t i = 0; i < sizeof out; i++)
        out[i] = (char)(i * 31 >> 3);
    char path[160];
    (void)snprintf(path, sizeof path, "%s/other", store.directory);
    int other = open(path, O_RDWR | O_CREAT, 0600);
    OK(file_write_at(fd, out, sizeof out, 10));
    OK(file_copy_range(fd, 10, other, 77, sizeof out));
    OK(file_read_at(other, in, sizeof in, 77));
    cr_assert_eq(memcmp(in, out, sizeof in), 0);
    int pipe_ends[2]; /* copy_file_range refuses a pipe; the error of the plain way comes out */
    cr_assert_eq(pipe(pipe_ends), 0);
    FAILS(file_copy_range(fd, 10, pipe_ends[1], 0, 10), ESPIPE);
    FAILS(file_copy_range(fd, 10, other, 0, sizeof out + 1), EIO);
    close(other);
}

/* ---- names ---- */

Test(file, names_resolve_to_one_path_however_they_are_written)
{
    struct file a, b;
    char text[300];
    char *real = realpath(store.path, NULL);
    OK(file_resolve(&a, store.path));
    cr_assert_str_eq(a.path, real);
    (void)snprintf(text, sizeof text, "%s-wal", real);
    cr_assert_str_eq(a.log_path, text);
    (void)snprintf(text, sizeof text, "%s/./../%s/store", store.directory, strrchr(store.directory, '/') + 1);
    OK(file_resolve(&b, text));
    cr_assert_str_eq(b.path, a.path);
    (void)snprintf(text, sizeof text, "%s/link", store.directory);
    cr_assert_eq(symlink("store", text), 0);
    OK(file_resolve(&b, text));
    cr_assert_str_eq(b.path, a.path);
    cr_assert_eq(unlink(store.path), 0);
    OK(file_resolve(&b, store.path));
    cr_assert_str_eq(b.path, a.path, "a file that does not exist yet");
    OK(file_resolve(&b, text));
    cr_assert_str_eq(b.path, a.path, "a link to a file that does not exist yet");
    cr_assert_eq(chdir(store.directory), 0);
    OK(file_resolve(&b, "store"));
    cr_assert_str_eq(b.path, a.path);
    free(real);
}

Test(file, names_that_cannot_be_are_errors)
{
    struct file file;
    char text[FILE_PATH_BYTES + 100];
    FAILS(file_resolve(&file, ""), ENOENT);
    FAILS(file_resolve(&file, "shm:"), EINVAL);
    FAILS(file_resolve(&file, "shm:a/b"), EINVAL);
    (void)snprintf(text, sizeof text, "%s/none/store", store.directory);
    FAILS(file_resolve(&file, text), ENOENT);
    (void)snprintf(text, sizeof text, "%s/new/", store.directory);
    FAILS(file_resolve(&file, text), EISDIR);
    (void)snprintf(text, sizeof text, "%s/under", store.path);
    FAILS(file_resolve(&file, text), ENOTDIR);
    (void)snprintf(text, sizeof text, "%s/%0220d", store.directory, 1);
    FAILS(file_resolve(&file, text), ENAMETOOLONG);
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    FAILS(file_resolve(&file, text), ENAMETOOLONG);
    (void)snprintf(text, sizeof text, "%s/a", store.directory);
    cr_assert_eq(symlink("b", text), 0);
    (void)snprintf(text, sizeof text, "%s/b", store.directory);
    cr_assert_eq(symlink("a", text), 0);
    FAILS(file_resolve(&file, text), ELOOP);
}

Test(file, opens_only_what_can_be_a_store)
{
    struct file file;
    char text[200];
    OK(file_resolve(&file, store.path));
    OK(file_open(&file, true));
    cr_assert(file_is_current(&file));
    cr_assert_eq(fcntl(file.fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    cr_assert_eq(unlink(store.path), 0);
    cr_assert(!file_is_current(&file));
    file_close(&file);
    FAILS(file_open(&file, false), ENOENT);
    cr_assert_eq(mkfifo(store.path, 0600), 0);
    FAILS(file_open(&file, false), EINVAL); /* and does not wait for the other end */
    FAILS(file_open(&file, true), EINVAL);
    OK(file_resolve(&file, store.directory));
    FAILS(file_open(&file, false), EISDIR);
    FAILS(file_open(&file, true), EISDIR);
    (void)snprintf(text, sizeof text, "%s/one", store.directory);
    close(open(text, O_RDWR | O_CREAT, 0600));
    OK(file_resolve(&file, text));
    OK(file_open(&file, true));
    file_close(&file);
    char second[200];
    (void)snprintf(second, sizeof second, "%s/two", store.directory);
    cr_assert_eq(link(text, second), 0);
    FAILS(file_open(&file, true), EMLINK);
    OK(file_open(&file, false));
    file_close(&file);
}

Test(file, a_nameless_file_appears_whole_or_not_at_all)
{
    int made;
    char temporary[FILE_PATH_BYTES + 24], target[200];
    (void)snprintf(target, sizeof target, "%s/target", store.directory);
    OK(file_open_nameless(&made, target, 0600, temporary));
    cr_assert_eq(temporary[0], '\0', "this file system has O_TMPFILE");
    cr_assert_eq(store_count_files(), 1);
    OK(file_link_nameless(made, target, temporary));
    cr_assert_eq(store_count_files(), 2);
    close(made);
    OK(file_open_nameless(&made, target, 0600, temporary));
    FAILS(file_link_nameless(made, target, temporary), EEXIST);
    file_drop_nameless(made, temporary);
    cr_assert_eq(store_count_files(), 2);
}
