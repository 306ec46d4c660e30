/*
 * test_wal.c -- the log's bytes: what was appended is read back, and what is not exactly that is not believed.
 * Cut at every sector: the records before the cut.  Damaged anywhere: the records before it, or STEAD_CORRUPT once
 * a later record vouches for the place.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "txn_fixture.h"

TestSuite(txn_wal, .timeout = 300);

#define SALT UINT64_C(0x1234567890abcdef)
#define CAPACITY (UINT64_C(1) << 30)

static const uint8_t id[16] = "a store's number";
static char directory[256], path[300];
static struct wal wal;
static struct file store;

/* A new, empty log in the place of the former one. */
static void log_start(uint64_t salt, uint64_t checkpoint, uint64_t first_seq)
{
    struct wal_next next;
    OK(wal_make(&next, &store, WAL_IN_PLACE, id, salt, checkpoint, first_seq, UNIT_BYTES));
    OK(wal_switch(&wal, next.fd, &next.at));
}

static void log_create(void)
{
    const char *where = getenv("TMPDIR");
    (void)snprintf(directory, sizeof directory, "%s/stead-wal-XXXXXX", where != NULL ? where : "/tmp");
    cr_assert_not_null(mkdtemp(directory));
    (void)snprintf(path, sizeof path, "%s/store", directory);
    OK(file_resolve(&store, path));
    OK(file_open_path(&store.fd, path, O_RDWR | O_CREAT, 0600));
    file_close(&store);
    OK(file_open(&store, true)); /* which notes the inode: whether the name is still the store's is asked later */
    OK(wal_open(&wal, id));
    log_start(SALT, 6, 100);
}

static void log_remove(void)
{
    wal_close(&wal);
    file_close(&store);
    OK(wal_name_remove(&store, NULL));
    (void)unlink(path);
    (void)rmdir(directory);
}

/* A record with one run of `bytes` bytes on each of `pages` pages. */
static void append(unsigned pages, unsigned bytes, uint64_t durable)
{
    uint8_t run[PAGE_BYTES];
    memset(run, (int)wal.at.next_seq, sizeof run);
    wal_begin(&wal);
    for (unsigned i = 0; i < pages; i++)
        OK(wal_add_run(&wal, i * PAGE_BYTES, run, bytes));
    OK(wal_finish(&wal, round_up((pages + 1) * PAGE_BYTES, UNIT_BYTES), durable));
}

struct counted {
    uint64_t runs, bytes, wrong;
    uint8_t fill;
};

static int count_run(void *ctx, uint64_t offset, const void *bytes, unsigned count)
{
    struct counted *c = ctx;
    (void)offset;
    c->runs++;
    c->bytes += count;
    for (unsigned i = 0; i < count; i++)
        c->wrong += ((const uint8_t *)bytes)[i] != c->fill;
    return 0;
}

/* How many records are valid from the start; what ended them goes to *end. */
static unsigned scan_all(int *end)
{
    struct wal_scan scan;
    struct wal_record record;
    unsigned count = 0;
    OK(wal_scan_open(&scan, wal.fd, id, SALT, 6, CAPACITY));
    while ((*end = wal_scan_next(&scan, &record)) == 0) {
        struct counted c = {.fill = (uint8_t)record.seq};
        cr_assert_eq(record.seq, 100 + count);
        OK(wal_scan_runs(&scan, &record, count_run, &c));
        cr_assert_eq(c.wrong, 0);
        cr_assert_eq(c.runs, record.runs);
        count++;
    }
    wal_scan_close(&scan);
    return count;
}

Test(txn_wal, reads_back_what_was_appended)
{
    static const unsigned pages[] = {1, 3, 0, 60, 255, 256, 257, 1000, 1};
    int end;
    log_create();
    for (size_t i = 0; i < sizeof pages / sizeof pages[0]; i++)
        append(pages[i], i % 2 == 0 ? 4096 : 64, WAL_FIRST_RECORD);
    append(254, 4088, WAL_FIRST_RECORD); /* around the size of the build buffer */
    append(255, 4088, WAL_FIRST_RECORD);
    append(256, 4080, WAL_FIRST_RECORD);
    cr_assert_eq(scan_all(&end), 12);
    cr_assert_eq(end, ENOENT);
    log_remove();
}

Test(txn_wal, a_tail_torn_at_any_sector_ends_the_log_before_it)
{
    int end;
    uint64_t start[8];
    log_create();
    for (int i = 0; i < 7; i++) {
        start[i] = wal.at.end;
        append(1 + (unsigned)i % 3, i == 4 ? 4096 : 200, WAL_FIRST_RECORD);
    }
    start[7] = wal.at.end;
    for (uint64_t cut = WAL_FIRST_RECORD; cut <= wal.at.end; cut += WAL_SECTOR) {
        cr_assert_eq(ftruncate(wal.fd, (off_t)cut), 0);
        if (cut % 1024 == 0)
            cr_assert_eq(ftruncate(wal.fd, (off_t)wal.at.end + 8192), 0); /* zeros instead of nothing */
        unsigned want = 0;
        while (want < 7 && start[want + 1] <= cut)
            want++;
        cr_assert_eq(scan_all(&end), want, "cut at %llu", (unsigned long long)cut);
        cr_assert_eq(end, ENOENT);
        cr_assert_eq(ftruncate(wal.fd, WAL_FIRST_RECORD), 0); /* and again, for the next cut */
        wal.at.end = WAL_FIRST_RECORD;
        wal.at.next_seq = 100;
        log_start(SALT, 6, 100);
        for (int i = 0; i < 7; i++)
            append(1 + (unsigned)i % 3, i == 4 ? 4096 : 200, WAL_FIRST_RECORD);
    }
    log_remove();
}

/* Each byte of a log of four records flipped in turn: nothing wrong is ever believed. */
static void flip_everywhere(bool vouched)
{
    int end;
    uint64_t start[5];
    log_create();
    for (int i = 0; i < 4; i++) {
        start[i] = wal.at.end;
        append(2, 64, vouched ? wal.at.end : WAL_FIRST_RECORD);
    }
    start[4] = wal.at.end;
    for (uint64_t at = WAL_FIRST_RECORD; at < wal.at.end; at++) {
        uint8_t byte, flipped;
        unsigned in = 0;
        cr_assert_eq(pread(wal.fd, &byte, 1, (off_t)at), 1);
        flipped = byte ^ (uint8_t)(1u << at % 8);
        cr_assert_eq(pwrite(wal.fd, &flipped, 1, (off_t)at), 1);
        while (start[in + 1] <= at)
            in++;
        bool padding = at >= start[in] + sizeof(struct wal_record) + 2 * (8 + 64);
        unsigned valid = scan_all(&end);
        cr_assert_eq(valid, padding ? 4 : in, "byte %llu", (unsigned long long)at);
        cr_assert_eq(end, !padding && vouched && in < 3 ? STEAD_CORRUPT : ENOENT, "byte %llu: %d",
                     (unsigned long long)at, end);
        cr_assert_eq(pwrite(wal.fd, &byte, 1, (off_t)at), 1);
    }
    log_remove();
}

Test(txn_wal, damage_that_a_later_record_vouches_for_is_corruption)
{
    flip_everywhere(true);
}

Test(txn_wal, damage_that_nobody_vouches_for_is_a_torn_tail)
{
    flip_everywhere(false);
}

Test(txn_wal, a_header_flipped_anywhere_is_no_header)
{
    struct wal_scan scan;
    log_create();
    for (uint64_t at = 0; at < sizeof(struct wal_header) * 8; at++) {
        uint8_t byte;
        cr_assert_eq(pread(wal.fd, &byte, 1, (off_t)(at / 8)), 1);
        byte ^= (uint8_t)(1u << at % 8);
        cr_assert_eq(pwrite(wal.fd, &byte, 1, (off_t)(at / 8)), 1);
        FAILS(STEAD_LOG_MISSING, wal_scan_open(&scan, wal.fd, id, SALT, 6, CAPACITY));
        byte ^= (uint8_t)(1u << at % 8);
        cr_assert_eq(pwrite(wal.fd, &byte, 1, (off_t)(at / 8)), 1);
    }
    OK(wal_scan_open(&scan, wal.fd, id, SALT, 6, CAPACITY));
    wal_scan_close(&scan);
    FAILS(STEAD_LOG_MISSING, wal_scan_open(&scan, wal.fd, id, SALT + 1, 6, CAPACITY));
    FAILS(STEAD_LOG_MISSING, wal_scan_open(&scan, wal.fd, id, SALT, 8, CAPACITY));
    FAILS(STEAD_LOG_MISSING, wal_scan_open(&scan, wal.fd, (const uint8_t *)"another number..", SALT, 6, CAPACITY));
    log_remove();
}

/* Records of another salt, wherever they come from, are not this log's. */
Test(txn_wal, an_older_salts_records_are_not_read)
{
    log_create();
    for (int i = 0; i < 5; i++)
        append(1, 64, wal.at.end);
    uint8_t records[5 * 2 * WAL_SECTOR];
    size_t bytes = (size_t)(wal.at.end - WAL_FIRST_RECORD);
    cr_assert_leq(bytes, sizeof records);
    OK(file_read_at(wal.fd, records, bytes, WAL_FIRST_RECORD));
    log_start(SALT + 1, 7, 105);
    OK(file_write_at(wal.fd, records, bytes, WAL_FIRST_RECORD));
    struct wal_scan scan;
    struct wal_record record;
    OK(wal_scan_open(&scan, wal.fd, id, SALT + 1, 7, CAPACITY));
    FAILS(ENOENT, wal_scan_next(&scan, &record));
    wal_scan_close(&scan);
    log_remove();
}

/* Checksums can be computed by anybody: records that verify and make no sense. */
Test(txn_wal, records_that_make_no_sense_are_refused)
{
    static const struct {
        uint64_t word, used, durable;
        const char *what;
    } bad[] = {
        {UINT64_C(1) << 62 | 8, UNIT_BYTES, WAL_FIRST_RECORD, "a run past the capacity"},
        {(PAGE_BYTES / 8 - 1) << 16 | 8, UNIT_BYTES, WAL_FIRST_RECORD, "a run across two pages"},
        {UINT64_C(0) << 16 | 600, UNIT_BYTES, WAL_FIRST_RECORD, "a run longer than a page"},
        {UINT64_C(0) << 16 | 9, UNIT_BYTES, WAL_FIRST_RECORD, "a run longer than the payload"},
        {UINT64_C(1) << 16, UNIT_BYTES, WAL_FIRST_RECORD, "zeros from the middle of a page"},
        {UINT64_C(0) << 16 | 8, UNIT_BYTES + 1, WAL_FIRST_RECORD, "a length of no whole unit"},
        {UINT64_C(0) << 16 | 8, 0, WAL_FIRST_RECORD, "no length"},
        {UINT64_C(0) << 16 | 8, CAPACITY * 2, WAL_FIRST_RECORD, "a length past the capacity"},
        {UINT64_C(0) << 16 | 8, UNIT_BYTES, WAL_FIRST_RECORD * 2, "durable past itself"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct {
            struct wal_record record;
            uint64_t word, data[8];
        } forged = {.word = bad[i].word};
        struct wal_scan scan;
        struct counted c = {0};
        log_create();
        append(1, 64, WAL_FIRST_RECORD);
        OK(file_read_at(wal.fd, &forged.record, sizeof forged.record, WAL_FIRST_RECORD));
        forged.record.used_bytes = bad[i].used;
        forged.record.durable_offset = bad[i].durable;
        forged.record.payload_bytes = 72;
        XXH128_canonical_t sum;
        XXH128_canonicalFromHash(&sum, XXH3_128bits(&forged.word, 72));
        memcpy(forged.record.payload_checksum, sum.digest, sizeof sum.digest);
        wal_seal_record(&forged.record);
        OK(file_write_at(wal.fd, &forged, sizeof forged, WAL_FIRST_RECORD));
        OK(wal_scan_open(&scan, wal.fd, id, SALT, 6, CAPACITY));
        struct wal_record record;
        int rc = wal_scan_next(&scan, &record);
        if (rc == 0)
            rc = wal_scan_runs(&scan, &record, count_run, &c);
        cr_assert_eq(rc, STEAD_CORRUPT, "%s: %d", bad[i].what, rc);
        wal_scan_close(&scan);
        log_remove();
    }
}

Test(txn_wal, a_record_that_could_not_be_written_leaves_none)
{
    int end;
    log_create();
    append(1, 64, WAL_FIRST_RECORD);
    append(1, 64, WAL_FIRST_RECORD);
    faults_install();
    faults = (struct faults){.pwrite = true, .fault = FAULT_ERROR, .error = EIO, .count = 1};
    wal_begin(&wal);
    OK(wal_add_run(&wal, 0, "12345678", 8));
    FAILS(EIO, wal_finish(&wal, UNIT_BYTES, WAL_FIRST_RECORD));
    faults_remove();
    cr_assert_eq(scan_all(&end), 2);
    append(2, 64, WAL_FIRST_RECORD);
    cr_assert_eq(scan_all(&end), 3);
    faults_install();
    faults = (struct faults){.pwrite = true, .fault = FAULT_ERROR, .error = EIO, .count = 100};
    wal_begin(&wal);
    OK(wal_add_run(&wal, 0, "12345678", 8));
    FAILS(STEAD_FAILED, wal_finish(&wal, UNIT_BYTES, WAL_FIRST_RECORD)); /* nor could its place be cleared */
    faults_remove();
    log_remove();
}
