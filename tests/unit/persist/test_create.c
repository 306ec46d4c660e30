/* create.c and file_name.c (S10): a new store is whole or absent, whoever races, whatever fails, wherever it ends. */
#include "persist/tail.h"
#include "temp_store.h"

#include <sys/wait.h>

static uint8_t unit[UNIT_BYTES];

static void setup(void)
{
    store_directory();
    for (uint64_t at = 0; at < UNIT_BYTES; at += PAGE_BYTES) {
        uint64_t mark = store_mark(at, 0);
        memcpy(unit + at, &mark, sizeof mark);
    }
    OK(file_resolve(&store.file, store.path));
}

TestSuite(create, .init = setup, .fini = store_remove, .timeout = 300);

static int create(unsigned permissions)
{
    store.super = (struct superblock){.capacity_bytes = UINT64_C(1) << 30, .layout_version = 3, .layout_name = "tree"};
    return image_create(&store.file, &store.super, unit, permissions);
}

static void expect_whole(void)
{
    store_open(IMAGE_READ);
    cr_assert_eq(store.super.state, SUPER_SEALED);
    store_expect(0, UNIT_BYTES, 0);
    store_check(0);
    store_drop();
}

Test(create, makes_one_sealed_file_with_what_was_asked_for)
{
    umask(0);
    OK(create(0640));
    struct stat facts;
    cr_assert_eq(stat(store.path, &facts), 0);
    cr_assert_eq(facts.st_mode & 07777, 0640);
    cr_assert_eq((uint64_t)facts.st_size, format_file_bytes(UNIT_BYTES) + TAIL_BYTES);
    cr_assert_eq(facts.st_nlink, 1);
    cr_assert_eq(store_count_files(), 1);
    expect_whole();
    cr_assert_eq(store.super.layout_version, 3);
    cr_assert_str_eq(store.super.layout_name, "tree");
    cr_assert_eq(store.super.creator_pid, (uint32_t)getpid());
    cr_assert_neq(store.super.created_s, 0);
}

Test(create, permissions_default_to_the_owner_and_obey_the_umask)
{
    struct stat facts;
    umask(0);
    OK(create(0));
    cr_assert_eq(stat(store.path, &facts), 0);
    cr_assert_eq(facts.st_mode & 07777, 0600);
    cr_assert_eq(unlink(store.path), 0);
    umask(027);
    OK(create(0666));
    cr_assert_eq(stat(store.path, &facts), 0);
    cr_assert_eq(facts.st_mode & 07777, 0640);
}

Test(create, never_replaces_a_file)
{
    OK(create(0));
    struct superblock first = store.super;
    FAILS(create(0), EEXIST);
    expect_whole();
    cr_assert_eq(memcmp(first.id, store.super.id, sizeof first.id), 0);
    cr_assert_eq(store_count_files(), 1);
}

Test(create, two_hundred_racing_creators_make_one_store)
{
    enum { CREATORS = 20, ROUNDS = 10 };
    for (unsigned round = 0; round < ROUNDS; round++) {
        int gate[2], made = 0;
        cr_assert_eq(pipe(gate), 0);
        fflush(NULL);
        pid_t children[CREATORS];
        for (unsigned i = 0; i < CREATORS; i++) {
            children[i] = fork();
            if (children[i] == 0) {
                char byte;
                close(gate[1]);
                (void)!read(gate[0], &byte, 1); /* end of file: all start together */
                int rc = create(0);
                _exit(rc == 0 ? 1 : rc == EEXIST ? 2 : 3);
            }
        }
        close(gate[0]);
        close(gate[1]);
        for (unsigned i = 0; i < CREATORS; i++) {
            int status;
            cr_assert_eq(waitpid(children[i], &status, 0), children[i]);
            cr_assert(WIFEXITED(status));
            cr_assert(WEXITSTATUS(status) == 1 || WEXITSTATUS(status) == 2, "creator: %d", WEXITSTATUS(status));
            made += WEXITSTATUS(status) == 1;
        }
        cr_assert_eq(made, 1, "%d stores made", made);
        cr_assert_eq(store_count_files(), 1);
        expect_whole();
        cr_assert_eq(unlink(store.path), 0);
    }
}

static int calls_left, fault;
static bool spent(void)
{
    if (calls_left-- > 0)
        return false;
    if (fault == 0)
        _exit(9); /* killed here */
    errno = fault;
    return true;
}
static int cut_open(const char *path, int flags, mode_t mode)
{
    return spent() ? -1 : file_calls_system.open(path, flags, mode);
}
static ssize_t cut_pread(int fd, void *buffer, size_t bytes, off_t offset)
{
    return spent() ? -1 : file_calls_system.pread(fd, buffer, bytes, offset);
}
static ssize_t cut_pwrite(int fd, const void *buffer, size_t bytes, off_t offset)
{
    return spent() ? -1 : file_calls_system.pwrite(fd, buffer, bytes, offset);
}
static ssize_t cut_pwrite_durable(int fd, const void *buffer, size_t bytes, off_t offset)
{
    return spent() ? -1 : file_calls_system.pwrite_durable(fd, buffer, bytes, offset);
}
static int cut_fsync(int fd)
{
    return spent() ? -1 : file_calls_system.fsync(fd);
}
static int cut_fallocate(int fd, int mode, off_t offset, off_t bytes)
{
    return spent() ? -1 : file_calls_system.fallocate(fd, mode, offset, bytes);
}
static int cut_linkat(int old_dir, const char *old_path, int new_dir, const char *new_path, int flags)
{
    return spent() ? -1 : file_calls_system.linkat(old_dir, old_path, new_dir, new_path, flags);
}
static int cut_rename_new(const char *from, const char *to)
{
    return spent() ? -1 : file_calls_system.rename_new(from, to);
}
static int open_without_nameless(const char *path, int flags, mode_t mode)
{
    if ((flags & O_TMPFILE) == O_TMPFILE) {
        errno = EOPNOTSUPP;
        return -1;
    }
    return cut_open(path, flags, mode);
}

static void cut_after(int calls, int error, bool nameless)
{
    calls_left = calls;
    fault = error;
    file_calls.open = nameless ? cut_open : open_without_nameless;
    file_calls.pread = cut_pread;
    file_calls.pwrite = cut_pwrite;
    file_calls.pwrite_durable = cut_pwrite_durable;
    file_calls.fsync = cut_fsync;
    file_calls.fallocate = cut_fallocate;
    file_calls.linkat = cut_linkat;
    file_calls.rename_new = cut_rename_new;
}

Test(create, a_creator_killed_at_any_call_leaves_nothing_or_a_whole_store)
{
    for (int nameless = 0; nameless < 2; nameless++) {
        bool finished = false;
        int cut = 0;
        for (; !finished; cut++) {
            fflush(NULL);
            pid_t child = fork();
            if (child == 0) {
                cut_after(cut, 0, nameless);
                _exit(create(0) == 0 ? 0 : 1);
            }
            int status;
            cr_assert_eq(waitpid(child, &status, 0), child);
            finished = WIFEXITED(status) && WEXITSTATUS(status) == 0;
            cr_assert(finished || (WIFEXITED(status) && WEXITSTATUS(status) == 9), "cut %d", cut);
            if (access(store.path, F_OK) == 0)
                expect_whole();
            else
                cr_assert(!finished);
            if (nameless)
                cr_assert_leq(store_count_files(), 1);
            (void)unlink(store.path);
            cr_assert_lt(cut, 100);
        }
        cr_assert_gt(cut, 8, "%d calls prove nothing", cut);
        OK(create(0)); /* what was left behind is in nobody's way */
        expect_whole();
        store_remove();
        store_directory();
        OK(file_resolve(&store.file, store.path));
    }
}

Test(create, every_failing_call_leaves_nothing)
{
    static const int errors[] = {ENOSPC, EIO};
    for (unsigned e = 0; e < 2; e++)
        for (int nameless = 0; nameless < 2; nameless++) {
            int rc = -1;
            for (int cut = 0; rc != 0; cut++) {
                cut_after(cut, errors[e], nameless);
                rc = create(0);
                bool over = calls_left >= 0;
                file_calls = file_calls_system;
                cr_assert(rc == 0 ? over : !over, "cut %d: %d", cut, rc);
                if (rc != 0 && access(store.path, F_OK) == 0)
                    expect_whole(); /* only the directory's sync failed */
                cr_assert_leq(store_count_files(), 1);
                (void)unlink(store.path);
                cr_assert_eq(store_count_files(), 0);
                cr_assert_lt(cut, 100);
            }
        }
}

Test(create, refuses_capacities_and_addresses_that_are_no_units)
{
    store.super = (struct superblock){.capacity_bytes = UNIT_BYTES + 1};
    FAILS(image_create(&store.file, &store.super, unit, 0), EINVAL);
    store.super = (struct superblock){.capacity_bytes = FORMAT_IMAGE_BYTES_MAX * 2};
    FAILS(image_create(&store.file, &store.super, unit, 0), EINVAL);
    store.super = (struct superblock){.capacity_bytes = UNIT_BYTES, .base = 4097};
    FAILS(image_create(&store.file, &store.super, unit, 0), EINVAL);
    cr_assert_eq(store_count_files(), 0);
}

Test(create, a_section_lives_in_memory)
{
    char name[64];
    (void)snprintf(name, sizeof name, "shm:stead-unit-%d", (int)getpid());
    OK(file_resolve(&store.file, name));
    cr_assert(store.file.in_memory);
    cr_assert_eq(strncmp(store.file.path, "/dev/shm/", 9), 0);
    OK(create(0));
    store_open(IMAGE_SHARED);
    OK(image_extend(store.image, MIB));
    store_fill(0, MIB, 1);
    OK(image_flush(store.image, &store.super, MIB));
    store_seal(MIB);
    store_open(IMAGE_READ);
    store_expect(0, MIB, 1);
    store_check(0);
    store_drop();
    cr_assert_eq(unlink(store.file.path), 0);
}

/* ---- S14: the name of a file that a killed maker left is durable before anything is written */

static unsigned directories_synced;
static bool refused;
static bool synced_when_written;

static int note_fsync(int fd)
{
    struct stat facts;
    if (fstat(fd, &facts) != 0 || !S_ISDIR(facts.st_mode))
        return file_calls_system.fsync(fd);
    errno = EIO;
    directories_synced++;
    return refused ? -1 : file_calls_system.fsync(fd);
}

static ssize_t note_superblock(int fd, const void *bytes, size_t count, off_t offset)
{
    if (directories_synced == 0)
        synced_when_written = false;
    return file_calls_system.pwrite_durable(fd, bytes, count, offset);
}

Test(create, S14_a_writer_makes_the_name_durable_before_it_says_that_it_is_there)
{
    static const enum image_kind kinds[] = {IMAGE_SHARED, IMAGE_PRIVATE};
    for (unsigned i = 0; i < 2; i++) {
        OK(create(0)); /* as if killed before it synced the directory */
        file_calls.fsync = note_fsync;
        file_calls.pwrite_durable = note_superblock;
        refused = true;
        FAILS(store_try_open(kinds[i], true), EIO);
        refused = false;
        directories_synced = 0;
        synced_when_written = true;
        store_open(kinds[i]);
        cr_assert_gt(directories_synced, 0);
        cr_assert(synced_when_written);
        file_calls = file_calls_system;
        store_drop();
        (void)unlink(store.file.log_path);
        cr_assert_eq(unlink(store.path), 0);
    }
}
