/* test_checksum_cache.c -- blocks of the checksum tables kept in memory against the tables in the file (W24). */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "persist/checksum_cache.h"
#include "txn_fixture.h"

TestSuite(txn_checksum_cache, .timeout = 300);

#define PAGES (3 * CHECKSUM_BLOCK_PAGES * CHECKSUM_CACHE_BLOCKS) /* thrice what is kept: blocks push each other out */

/* A store file as far as its tables go: long, and all holes. */
static int make_tables(struct fixture *f)
{
    fixture_create(f, UNIT_BYTES, UNIT_BYTES);
    int fd = open(f->path, O_RDWR | O_CLOEXEC);
    cr_assert_geq(fd, 0);
    cr_assert_eq(ftruncate(fd, (off_t)format_file_bytes(PAGES * PAGE_BYTES)), 0);
    return fd;
}

static uint64_t in_file(int fd, uint64_t page)
{
    uint64_t entry;
    OK(file_read_at(fd, &entry, sizeof entry, format_checksum_offset(page * PAGE_BYTES)));
    return entry;
}

static uint64_t in_cache(struct checksum_cache *cache, uint64_t page)
{
    uint64_t *entry;
    OK(checksum_cache_get(cache, page, &entry));
    return entry[page % CHECKSUM_BLOCK_PAGES];
}

/* What somebody else does to the tables. */
static void write_behind(int fd, uint64_t page, uint64_t sum)
{
    OK(file_write_at(fd, &sum, sizeof sum, format_checksum_offset(page * PAGE_BYTES)));
}

Test(txn_checksum_cache, holds_what_the_file_has)
{
    struct fixture f;
    struct checksum_cache cache;
    uint64_t random = random_seed(), *entry;
    int fd = make_tables(&f);
    checksum_cache_init(&cache, fd);
    for (long i = 0; i < random_rounds(20000); i++) {
        uint64_t page = random_next(&random) % PAGES, sum = random_next(&random);
        if (random_next(&random) % 2 == 0) /* the same few blocks, and those that share a place with them */
            page = page % (3 * CHECKSUM_BLOCK_PAGES) + random_next(&random) % 3 * (PAGES / 3);
        size_t at = page % CHECKSUM_BLOCK_PAGES, last = at + random_next(&random) % (CHECKSUM_BLOCK_PAGES - at);
        switch (random_next(&random) % 8) {
        case 0: { /* a stretch of pages that crosses blocks */
            uint64_t count = min_u64(1 + random_next(&random) % (2 * CHECKSUM_BLOCK_PAGES), PAGES - page);
            write_behind(fd, page, sum);
            write_behind(fd, page + count - 1, sum + 1);
            checksum_cache_drop(&cache, page, count);
            cr_assert_eq(in_cache(&cache, page + count - 1), sum + 1);
            break;
        }
        case 1:
            if (random_next(&random) % 50 != 0)
                break;
            write_behind(fd, page, sum);
            checksum_cache_clear(&cache);
            break;
        case 2:
        case 3:
        case 4:
            OK(checksum_cache_get(&cache, page, &entry));
            for (size_t n = at; n <= last; n++)
                entry[n] = sum + n;
            OK(checksum_cache_write(&cache, page, at, last));
            cr_assert_eq(in_file(fd, page), sum + at);
            break;
        default:
            break;
        }
        cr_assert_eq(in_cache(&cache, page), in_file(fd, page), "page %llu", (unsigned long long)page);
    }
    checksum_cache_release(&cache);
    close(fd);
    fixture_remove(&f);
}

Test(txn_checksum_cache, keeps_nothing_of_a_failed_call)
{
    struct fixture f;
    struct checksum_cache cache;
    uint64_t *entry;
    int fd = make_tables(&f);
    checksum_cache_init(&cache, fd);
    write_behind(fd, 7, 70);
    faults_install();
    faults = (struct faults){.pread = true, .fault = FAULT_ERROR, .error = EIO, .count = 1};
    FAILS(EIO, checksum_cache_get(&cache, 7, &entry));
    cr_assert_eq(in_cache(&cache, 7), 70);
    entry = NULL;
    OK(checksum_cache_get(&cache, 7, &entry));
    entry[7] = 71;
    faults = (struct faults){.pwrite = true, .fault = FAULT_ERROR, .error = EIO, .count = 1};
    FAILS(EIO, checksum_cache_write(&cache, 7, 7, 7));
    faults = (struct faults){0};
    cr_assert_eq(in_cache(&cache, 7), 70, "the file has the old one");
    faults_remove();
    checksum_cache_release(&cache);
    close(fd);
    fixture_remove(&f);
}
