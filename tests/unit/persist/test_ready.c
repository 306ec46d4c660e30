/*
 * test_ready.c -- P10: what image_ready() writes is zeros inside its range, where nothing is in memory; where faults are as
 * cheap, and where it may not, it writes nothing.
 * Method: every write to the file is recorded; marks in the pages around and inside the range tell what was changed.
 */
#include <sys/mman.h>
#include <sys/resource.h>

#include "base/memory.h"
#include "persist/fs.h"
#include "temp_store.h"

#define WRITES_MAX 4096

static struct {
    uint64_t from[WRITES_MAX], to[WRITES_MAX];
    unsigned count, fail_at;
} writes;

static ssize_t record_pwrite(int fd, const void *buffer, size_t bytes, off_t offset)
{
    cr_assert_lt(writes.count, WRITES_MAX);
    if (writes.count == writes.fail_at) {
        errno = EIO;
        return -1;
    }
    writes.from[writes.count] = (uint64_t)offset;
    writes.to[writes.count++] = (uint64_t)offset + bytes;
    return file_calls_system.pwrite(fd, buffer, bytes, offset);
}

static void setup(void)
{
    store_directory();
    store_create();
}

TestSuite(image_ready, .init = setup, .fini = store_remove, .timeout = 300);

static void make_ready(uint64_t offset, uint64_t bytes, unsigned fail_at)
{
    writes.count = 0;
    writes.fail_at = fail_at;
    file_calls.pwrite = record_pwrite;
    image_ready(store.image, offset, bytes);
    file_calls.pwrite = file_calls_system.pwrite;
}

/* Bytes written, all of them within image bytes [offset, end); what lies between two groups is no byte of the image. */
static uint64_t written_within(uint64_t offset, uint64_t end)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < writes.count; i++) {
        bool inside = false;
        for (uint64_t at = offset, part; at < end && !inside; at += part) {
            part = format_contiguous(at) < end - at ? format_contiguous(at) : end - at;
            uint64_t from = format_file_offset(at);
            inside = writes.from[i] >= from && writes.to[i] <= from + part;
            uint64_t first = (uint64_t)(uintptr_t)image_base(store.image) + at + (writes.from[i] - from),
                     last = first + (writes.to[i] - writes.from[i]) - 1;
            cr_assert(!inside || first / MAP_CONGRUENCE_BYTES == last / MAP_CONGRUENCE_BYTES,
                      "0x%" PRIx64 ": in two tables of page-table entries: a page a fault", first);
        }
        cr_assert_eq(writes.from[i] / (256 << 10), (writes.to[i] - 1) / (256 << 10), "no whole folio");
        cr_assert(inside, "a write of file bytes %" PRIu64 " to %" PRIu64, writes.from[i], writes.to[i]);
        sum += writes.to[i] - writes.from[i];
    }
    return sum;
}

/* Of [offset, end) of the image. */
static uint64_t resident_bytes(uint64_t offset, uint64_t end)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), sum = 0;
    for (uint64_t at = offset; at < end; at += page) {
        unsigned char is_there;
        cr_assert_eq(mincore((uint8_t *)image_base(store.image) + at, 1, &is_there), 0);
        sum += (is_there & 1) != 0 ? page : 0;
    }
    return sum;
}

/* tmpfs makes the pages that are reserved: there is nothing left to do. */
static bool reserving_makes_pages(void)
{
    struct fs_facts facts;
    OK(fs_classify(store.file.fd, &facts));
    return facts.memory;
}

Test(image_ready, P10_fresh_space_of_a_large_block_is_in_memory_and_asked_for_once)
{
    uint64_t from = 21 * MIB + 3 * PAGE_BYTES, to = 77 * MIB + 5 * PAGE_BYTES; /* over two borders of groups */
    store_open(IMAGE_SHARED);
    OK(image_extend(store.image, 80 * MIB));
    uint64_t missing = reserving_makes_pages() ? 0 : to - from;
    cr_assert_eq(resident_bytes(from, to), to - from - missing, "growth by so much is left to the block's owner");
    cr_assert_gt(resident_bytes(80 * MIB, image_bytes(store.image)), 0, "but not what was taken beyond");
    make_ready(from, to - from, UINT32_MAX);
    cr_assert_eq(written_within(from, to), missing);
    for (uint64_t at = from; at < to; at += PAGE_BYTES)
        cr_assert_eq(*store_word(at), 0);
    store_fill(from, to, 7);
    if (resident_bytes(from, to) == to - from) { /* who is short of memory may lose some of it at once */
        make_ready(from, to - from, UINT32_MAX);
        cr_assert_eq(writes.count, 0, "what is in memory is left alone");
        store_expect(from, to, 7);
    }
    store_seal(80 * MIB);
}

/* What the page cache lost may be zeros afterwards, and nothing beside it. */
Test(image_ready, P10_changes_nothing_outside_its_range)
{
    uint64_t end = 48 * MIB;
    store_open(IMAGE_SHARED);
    OK(image_extend(store.image, end));
    store_fill(0, end, 1);
    store_seal(end);
    int fd = open(store.path, O_RDWR);
    cr_assert_eq(fsync(fd), 0);
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED); /* a hint: tmpfs keeps them, and all is left as it is */
    close(fd);
    store_open(IMAGE_SHARED);
    static const uint64_t ranges[][2] = {{5 * MIB + PAGE_BYTES, 11 * PAGE_BYTES},
                                         {8 * MIB, 2 * MIB},
                                         {12 * MIB - PAGE_BYTES, 2 * MIB + 2 * PAGE_BYTES},
                                         {31 * MIB, 2 * MIB},
                                         {40 * MIB, 8 * MIB}};
    uint64_t reached = 0;
    for (unsigned i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        uint64_t from = ranges[i][0], to = from + ranges[i][1];
        make_ready(from, to - from, UINT32_MAX);
        (void)written_within(from, to);
        store_expect(reached, from, 1);
        for (uint64_t at = from; at < to; at += PAGE_BYTES)
            cr_assert(*store_word(at) == 0 || *store_word(at) == store_mark(at, 1), "image offset %" PRIu64, at);
        reached = to;
    }
    cr_assert_eq(reached, end);
    store_seal(end);
}

Test(image_ready, a_failure_at_any_write_leaves_the_rest_to_the_faults)
{
    uint64_t end = 96 * MIB;
    store_open(IMAGE_SHARED);
    OK(image_extend(store.image, end));
    if (reserving_makes_pages())
        cr_skip_test("no page is missing in tmpfs");
    unsigned fail_at = 0;
    for (uint64_t from = 0; from < end;
         from += 8 * MIB, fail_at += 1 + fail_at / 4) { /* 0, 1, 2, ... 28 of 33 writes */
        make_ready(from, 8 * MIB, fail_at);
        cr_assert_eq(writes.count, fail_at);
        uint64_t written = written_within(from, from + 8 * MIB);
        cr_assert_eq(written, fail_at == 0 ? 0 : writes.to[fail_at - 1] - writes.from[0], "one after the other");
    }
    cr_assert_gt(fail_at, 12, "each at another one");
    store_fill(0, end, 3);
    store_expect(0, end, 3);
    store_seal(end);
}

/* Past image offset 512 MiB of a store whose base was chosen, and nowhere beyond the end, beyond the limit of this process's
 * files, and in private memory. */
Test(image_ready, is_not_wanted_everywhere)
{
    struct rlimit was, small = {.rlim_cur = 8 * MIB};
    store_open(IMAGE_SHARED);
    OK(image_extend(store.image, 600 * MIB));
    make_ready(512 * MIB, 64 * MIB, UINT32_MAX);
    cr_assert_eq(writes.count, 0, "file and addresses are congruent");
    uint64_t missing = reserving_makes_pages() ? 0 : MIB;
    make_ready(511 * MIB, 2 * MIB, UINT32_MAX);
    cr_assert_eq(written_within(511 * MIB, 512 * MIB), missing, "and not before");
    make_ready(image_bytes(store.image) - MIB, 2 * MIB, UINT32_MAX);
    cr_assert_eq(writes.count, 0, "not mapped");
    cr_assert_eq(getrlimit(RLIMIT_FSIZE, &was), 0);
    small.rlim_max = was.rlim_max;
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
    make_ready(100 * MIB, MIB, UINT32_MAX); /* would be a signal */
    cr_assert_eq(writes.count, 0);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &was), 0);
    make_ready(100 * MIB, MIB, UINT32_MAX);
    cr_assert_eq(written_within(100 * MIB, 101 * MIB), missing, "else it is");
    store_seal(UNIT_BYTES);
    store_open(IMAGE_PRIVATE);
    OK(image_extend(store.image, 40 * MIB));
    make_ready(20 * MIB, 20 * MIB, UINT32_MAX);
    cr_assert_eq(writes.count, 0);
    store_seal(UNIT_BYTES);
}

/* A container's memory must not be filled with zeros for a block that is touched here and there. */
Test(image_ready, no_more_than_a_quarter_of_the_memory)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    cr_skip_test("the shadow is more than any limit");
#endif
    struct rlimit was, small = {.rlim_cur = 64 * MIB};
    cr_assert_eq(getrlimit(RLIMIT_DATA, &was), 0);
    small.rlim_max = was.rlim_max;
    cr_assert_eq(setrlimit(RLIMIT_DATA, &small), 0);
    uint64_t memory = memory_limit_bytes(); /* asked once in a process, and a test is one of its own */
    cr_assert_eq(setrlimit(RLIMIT_DATA, &was), 0);
    cr_assert_leq(memory, 64 * MIB);
    store_open(IMAGE_SHARED);
    OK(image_extend(store.image, 160 * MIB));
    make_ready(64 * MIB, 64 * MIB, UINT32_MAX);
    cr_assert_eq(written_within(64 * MIB, 128 * MIB), reserving_makes_pages() ? 0 : memory / 4);
    store_seal(UNIT_BYTES);
}
