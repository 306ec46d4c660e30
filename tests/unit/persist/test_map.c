/* map.c: S8 (what is mapped is the file's image, everything around it is PROT_NONE) and S9 (failures undo themselves).
 * Method: a sparse file whose every page carries its own file offset; faults are looked for in a child process. */
#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "persist/file.h"
#include "persist/map.h"

#define MIB (UINT64_C(1) << 20)
#define CAPACITY (256 * MIB)

static int fd;
static uint64_t image_bytes;

static void grow(uint64_t bytes)
{
    for (uint64_t at = image_bytes; at < bytes; at += UNIT_BYTES) {
        uint64_t mark = format_file_offset(at);
        cr_assert_eq(file_write_at(fd, &mark, sizeof mark, mark), 0);
    }
    cr_assert_eq(file_truncate(fd, format_file_bytes(bytes)), 0);
    image_bytes = bytes;
}

static void setup(void)
{
    char path[] = "/tmp/stead-map-XXXXXX";
    fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    unlink(path);
    image_bytes = 0;
    grow(66 * MIB);
}

static void teardown(void)
{
    close(fd);
    file_calls = file_calls_system;
}

TestSuite(map, .init = setup, .fini = teardown, .timeout = 300);

/* The signal that a read or write of the byte ends in, 0 if none. */
static int signal_of(volatile uint8_t *byte, bool write)
{
    fflush(NULL);
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        signal(SIGSEGV, SIG_DFL);
        signal(SIGBUS, SIG_DFL);
        if (write)
            *byte = 1;
        else
            (void)*byte;
        _exit(0);
    }
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status) == 0 ? 0 : -1;
}

/* What /proc/self/maps says of an address: its permissions, or "" for none. */
static void permissions_at(const void *address, char text[5])
{
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[512];
    text[0] = '\0';
    while (fgets(line, sizeof line, maps) != NULL) {
        uintptr_t low, high;
        char permissions[5];
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %4s", &low, &high, permissions) == 3 && (uintptr_t)address >= low &&
            (uintptr_t)address < high)
            memcpy(text, permissions, 5);
    }
    fclose(maps);
}

static void assert_permissions(const void *address, const char *expected)
{
    char text[5];
    permissions_at(address, text);
    cr_assert_str_eq(text, expected, "at %p: %s", address, text);
}

static void assert_image(const uint8_t *base, uint64_t bytes)
{
    for (uint64_t at = 0; at < bytes; at += UNIT_BYTES) {
        uint64_t mark;
        memcpy(&mark, base + at, sizeof mark);
        cr_assert_eq(mark, format_file_offset(at), "image offset %" PRIu64, at);
    }
}

Test(map, image_is_contiguous_over_three_groups)
{
    struct map map;
    cr_assert_eq(map_open(&map, fd, MAP_IMAGE_PRIVATE, NULL, 66 * MIB, CAPACITY, true), 0);
    cr_assert_eq((uintptr_t)map.base % UNIT_BYTES, 0);
    assert_image(map.base, 66 * MIB);
    assert_image(map.twin, 66 * MIB);
    assert_permissions(map.base, "rw-p");
    assert_permissions(map.base + 66 * MIB - 1, "rw-p");
    assert_permissions(map.twin, "r--s");
    assert_permissions(map.base - 1, "---p");
    assert_permissions(map.base - UNIT_BYTES, "---p");
    assert_permissions(map.base + 66 * MIB, "---p");
    assert_permissions(map.base + CAPACITY + UNIT_BYTES - 1, "---p");
    map_close(&map);
}

Test(map, private_writes_stay_private_and_the_twin_shows_the_file)
{
    struct map map;
    cr_assert_eq(map_open(&map, fd, MAP_IMAGE_PRIVATE, NULL, 66 * MIB, CAPACITY, true), 0);
    map.base[40 * MIB] ^= 0xff;
    cr_assert_neq(map.base[40 * MIB], map.twin[40 * MIB]);
    uint8_t byte = 0;
    cr_assert_eq(file_read_at(fd, &byte, 1, format_file_offset(40 * MIB)), 0);
    cr_assert_eq(byte, map.twin[40 * MIB]);
    map_close(&map);
}

Test(map, shared_writes_reach_the_file)
{
    struct map map;
    cr_assert_eq(map_open(&map, fd, MAP_IMAGE_SHARED, NULL, 66 * MIB, CAPACITY, false), 0);
    map.base[65 * MIB + 3] = 0x5a;
    uint8_t byte = 0;
    cr_assert_eq(file_read_at(fd, &byte, 1, format_file_offset(65 * MIB + 3)), 0);
    cr_assert_eq(byte, 0x5a);
    cr_assert_null(map.twin);
    map_close(&map);
}

Test(map, read_only_faults_on_write)
{
    struct map map;
    cr_assert_eq(map_open(&map, fd, MAP_IMAGE_READ, NULL, 66 * MIB, CAPACITY, false), 0);
    assert_image(map.base, 66 * MIB);
    for (uint64_t at = 0; at < 66 * MIB; at += 33 * MIB)
        (void)madvise(map.base + at, PAGE_BYTES, MADV_DOFORK); /* so that the child below sees it */
    cr_assert_eq(signal_of(map.base, false), 0);
    cr_assert_eq(signal_of(map.base, true), SIGSEGV);
    map_close(&map);
}

Test(map, a_fork_child_cannot_reach_the_range)
{
    struct map map;
    cr_assert_eq(map_open(&map, fd, MAP_IMAGE_SHARED, NULL, 66 * MIB, CAPACITY, false), 0);
    cr_assert_eq(signal_of(map.base, false), SIGSEGV);
    cr_assert_eq(signal_of(map.base + 40 * MIB, true), SIGSEGV);
    map_close(&map);
}

Test(map, extends_inside_a_group_and_over_its_end)
{
    struct map map;
    cr_assert_eq(map_open(&map, fd, MAP_IMAGE_PRIVATE, NULL, UNIT_BYTES, CAPACITY, true), 0);
    assert_permissions(map.base + UNIT_BYTES, "---p");
    const uint64_t steps[] = {2 * UNIT_BYTES, 32 * MIB, 32 * MIB + UNIT_BYTES, 66 * MIB};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        cr_assert_eq(map_extend(&map, steps[i]), 0);
        cr_assert_eq(map.bytes, steps[i]);
        assert_image(map.base, steps[i]);
        assert_image(map.twin, steps[i]);
        assert_permissions(map.base + steps[i], "---p");
    }
    cr_assert_eq(map_extend(&map, UNIT_BYTES), 0, "never shrinks");
    cr_assert_eq(map.bytes, 66 * MIB);
    cr_assert_eq(map_extend(&map, CAPACITY + UNIT_BYTES), ENOMEM);
    map_close(&map);
}

Test(map, opens_at_the_address_asked_for_and_again)
{
    struct map map;
    cr_assert_eq(map_open(&map, fd, MAP_IMAGE_PRIVATE, NULL, 66 * MIB, CAPACITY, false), 0);
    uint8_t *base = map.base;
    map_close(&map);
    cr_assert_eq(map_open(&map, fd, MAP_IMAGE_SHARED, base, 66 * MIB, CAPACITY, false), 0);
    cr_assert_eq(map.base, base);
    map_close(&map);
    char text[5];
    permissions_at(base, text);
    cr_assert_str_eq(text, "", "nothing is left after close");
}

Test(map, says_what_is_in_the_way)
{
    struct map map, other;
    cr_assert_eq(map_open(&map, fd, MAP_IMAGE_PRIVATE, NULL, UNIT_BYTES, CAPACITY, false), 0);
    int rc = map_open(&other, fd, MAP_IMAGE_PRIVATE, map.base + 16 * MIB, UNIT_BYTES, CAPACITY, false);
    cr_assert_eq(rc, STEAD_ADDRESS_TAKEN);
    char range[40];
    (void)snprintf(range, sizeof range, "0x%" PRIxPTR, (uintptr_t)map.base + 16 * MIB - UNIT_BYTES);
    cr_assert_not_null(strstr(error_last_text(), range), "%s", error_last_text());
    cr_assert_not_null(strstr(error_last_text(), "has 0x"), "the mapping in the way: %s", error_last_text());
    map_close(&map);
}

static void *hint_mmap(void *address, size_t bytes, int protection, int flags, int file, off_t offset)
{
    return mmap(address, bytes, protection, flags & ~MAP_FIXED_NOREPLACE, file, offset);
}

Test(map, an_old_kernel_that_takes_the_address_as_a_hint_is_found_out)
{
    struct map map, other;
    cr_assert_eq(map_open(&map, fd, MAP_IMAGE_PRIVATE, NULL, UNIT_BYTES, CAPACITY, false), 0);
    file_calls.mmap = hint_mmap;
    cr_assert_eq(map_open(&other, fd, MAP_IMAGE_PRIVATE, map.base, UNIT_BYTES, CAPACITY, false), STEAD_ADDRESS_TAKEN);
    assert_image(map.base, UNIT_BYTES);
    map_close(&map);
}

static unsigned calls_before_failure;
static void *failing_mmap(void *address, size_t bytes, int protection, int flags, int file, off_t offset)
{
    if (calls_before_failure == 0) { /* this one and all that follow */
        errno = ENOMEM;
        return MAP_FAILED;
    }
    calls_before_failure--;
    return mmap(address, bytes, protection, flags, file, offset);
}

static void *failing_anonymous_mmap(void *address, size_t bytes, int protection, int flags, int file, off_t offset)
{
    if ((flags & MAP_ANONYMOUS) != 0 && (protection & PROT_WRITE) != 0) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    return mmap(address, bytes, protection, flags, file, offset);
}

static unsigned count_mappings_of_file(void)
{
    char name[FILE_PATH_BYTES], line[FILE_PATH_BYTES + 200];
    file_name(fd, name);
    unsigned count = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    while (fgets(line, sizeof line, maps) != NULL)
        count += strstr(line, name) != NULL;
    fclose(maps);
    return count;
}

Test(map, every_failing_mmap_leaves_the_address_space_as_it_was)
{
    struct map map;
    bool opened = false;
    unsigned n = 0;
    for (; !opened; n++) {
        file_calls.mmap = failing_mmap;
        calls_before_failure = n;
        opened = map_open(&map, fd, MAP_IMAGE_PRIVATE, NULL, 33 * MIB, CAPACITY, true) == 0;
        file_calls.mmap = mmap;
        if (!opened)
            cr_assert_eq(count_mappings_of_file(), 0, "after failure of mmap %u", n);
    }
    cr_assert_eq(n, 7, "2 reservations, 2 x 2 pieces, then success");
    for (n = 0; n < 4; n++) { /* 33 MiB .. 66 MiB: rest of group 1, start of group 2; twice */
        file_calls.mmap = failing_mmap;
        calls_before_failure = n;
        cr_assert_eq(map_extend(&map, 66 * MIB), ENOMEM);
        file_calls.mmap = mmap;
        cr_assert_eq(map.bytes, 33 * MIB);
        assert_image(map.base, 33 * MIB);
        assert_permissions(map.base + 33 * MIB, "---p");
        assert_permissions(map.base + 65 * MIB, "---p");
    }
    cr_assert_eq(map_extend(&map, 66 * MIB), 0);
    assert_image(map.base, 66 * MIB);
    map_close(&map);
}

/* ---- fresh space ---- */

static void assert_zeros(const uint8_t *base, uint64_t from, uint64_t to)
{
    for (uint64_t at = from; at < to; at += UNIT_BYTES)
        cr_assert_eq(base[at] | base[at + UNIT_BYTES - 1], 0, "image offset %" PRIu64, at);
}

/* The file carries marks everywhere, so memory that reads as zeros is not the file's. */
Test(map, fresh_space_is_anonymous_until_it_is_settled)
{
    struct map map;
    bool lost;
    cr_assert_eq(map_open(&map, fd, MAP_IMAGE_PRIVATE, NULL, 16 * MIB, CAPACITY, true), 0);
    cr_assert_eq(map.fresh_from, map.bytes, "nothing is fresh");
    cr_assert_eq(map_extend_fresh(&map, 40 * MIB), 0);
    cr_assert_eq(map_extend(&map, 66 * MIB), 0, "growth joins the fresh range");
    cr_assert_eq(map.fresh_from, 16 * MIB);
    assert_image(map.base, 16 * MIB);
    assert_zeros(map.base, 16 * MIB, 66 * MIB);
    assert_image(map.twin, 66 * MIB);
    assert_permissions(map.base + 66 * MIB - 1, "rw-p");
    assert_permissions(map.base + 66 * MIB, "---p");
    map.base[20 * MIB] = 1;
    map.base[50 * MIB + 1] = 2;
    cr_assert_eq(signal_of(map.base + 50 * MIB, true), SIGSEGV, "not in a fork child");

    cr_assert_eq(map_settle(&map, 40 * MIB, &lost), 0);
    cr_assert_not(lost);
    cr_assert_eq(map.fresh_from, 40 * MIB);
    assert_image(map.base, 40 * MIB);
    cr_assert_eq(map.base[50 * MIB + 1], 2);
    cr_assert_eq(signal_of(map.base + 30 * MIB, true), SIGSEGV);
    cr_assert_eq(map_empty_fresh(&map), 0);
    assert_zeros(map.base, 40 * MIB, 66 * MIB);
    cr_assert_eq(map_settle(&map, UINT64_MAX, &lost), 0);
    cr_assert_eq(map.fresh_from, map.bytes);
    assert_image(map.base, 66 * MIB);
    map_close(&map);
}

Test(map, fresh_space_that_cannot_be_had_is_the_file_and_a_failed_settling_changes_nothing)
{
    struct map map;
    bool lost;
    cr_assert_eq(map_open(&map, fd, MAP_IMAGE_PRIVATE, NULL, 16 * MIB, CAPACITY, false), 0);
    file_calls.mmap = failing_anonymous_mmap;
    cr_assert_eq(map_extend_fresh(&map, 17 * MIB), 0);
    file_calls.mmap = mmap;
    cr_assert_eq(map.fresh_from, 17 * MIB);
    assert_image(map.base, 17 * MIB);
    cr_assert_eq(map_extend_fresh(&map, 66 * MIB), 0);
    for (uint64_t at = 17 * MIB; at < 66 * MIB; at += UNIT_BYTES)
        map.base[at + 1] = 7;
    unsigned n = 0;
    file_calls.mmap = failing_mmap;
    for (int rc = ENOMEM; rc != 0; n++) {
        uint64_t before = map.fresh_from;
        calls_before_failure = n == 0 ? 0 : 1; /* then one piece each time */
        rc = map_settle(&map, 66 * MIB, &lost);
        cr_assert(rc == 0 || rc == ENOMEM);
        cr_assert_not(lost);
        cr_assert(n != 0 || map.fresh_from == before);
        assert_image(map.base, map.fresh_from);
        for (uint64_t at = map.fresh_from; at < 66 * MIB; at += UNIT_BYTES)
            cr_assert_eq(map.base[at + 1], 7);
    }
    file_calls.mmap = mmap;
    cr_assert_gt(n, 2);
    map_close(&map);
}

#if defined(__SANITIZE_THREAD__)
#define LARGE_CAPACITY (UINT64_C(1) << 37) /* the tool leaves less than a terabyte to the program */
#else
#define LARGE_CAPACITY (UINT64_C(1) << 40)
#endif

Test(map, a_terabyte_of_capacity_costs_no_memory)
{
    struct map map;
    struct rusage before, after;
    getrusage(RUSAGE_SELF, &before);
    int rc = map_open(&map, fd, MAP_IMAGE_PRIVATE, NULL, UNIT_BYTES, LARGE_CAPACITY, true);
    cr_assert_eq(rc, 0, "%s", error_last_text());
    getrusage(RUSAGE_SELF, &after);
    cr_assert_lt(after.ru_maxrss - before.ru_maxrss, 64 * 1024, "KiB of memory");
    map_close(&map);
}

Test(map, refuses_what_is_not_whole_units)
{
    struct map map;
    cr_assert_eq(map_open(&map, fd, MAP_IMAGE_PRIVATE, NULL, PAGE_BYTES, CAPACITY, false), EINVAL);
    cr_assert_eq(map_open(&map, fd, MAP_IMAGE_PRIVATE, NULL, UNIT_BYTES, CAPACITY + 1, false), EINVAL);
    cr_assert_eq(map_open(&map, fd, MAP_IMAGE_PRIVATE, (void *)4096, UNIT_BYTES, CAPACITY, false), EINVAL);
    cr_assert_eq(map_open(&map, fd, MAP_IMAGE_PRIVATE, NULL, 0, 0, false), EINVAL);
    cr_assert_eq(map_open(&map, fd, MAP_IMAGE_PRIVATE, NULL, 0, FORMAT_IMAGE_BYTES_MAX + UNIT_BYTES, false), EINVAL);
}
