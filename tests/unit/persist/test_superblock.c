/* superblock.c: S1-S6.  Method: a sound file, one flaw at a time, with a checksum that matches the flaw where the
 * flaw is meant to be seen behind it; then every single byte flipped, every length, random garbage. */
#include "persist/tail.h"
#include "temp_store.h"

#include <time.h>
#include <xxhash.h>

static void setup(void)
{
    store_directory();
    store_create();
}

TestSuite(superblock, .init = setup, .fini = store_remove, .timeout = 300);

static int read_super(struct superblock *super)
{
    OK(file_open(&store.file, false));
    int rc = superblock_read(&store.file, super);
    file_close(&store.file);
    return rc;
}

static void put(unsigned copy, struct superblock super, bool valid_checksum)
{
    if (valid_checksum) {
        XXH128_canonical_t canonical;
        XXH128_canonicalFromHash(&canonical, XXH3_128bits(&super, offsetof(struct superblock, checksum)));
        memcpy(super.checksum, canonical.digest, sizeof canonical.digest);
    }
    int fd = open(store.path, O_WRONLY);
    cr_assert_eq(pwrite(fd, &super, sizeof super, (off_t)(copy * UNIT_BYTES)), (ssize_t)sizeof super);
    close(fd);
}

static uint64_t count_problems(char first[REPORT_TEXT_BYTES])
{
    struct report report = {0};
    OK(file_open(&store.file, false));
    superblock_check(&store.file, &report);
    file_close(&store.file);
    memcpy(first, report.first, REPORT_TEXT_BYTES);
    return report.problems;
}

static void expect_finding(const char *invariant)
{
    char first[REPORT_TEXT_BYTES];
    cr_assert_gt(count_problems(first), 0, "%s not found", invariant);
    cr_assert_eq(strncmp(first, invariant, strlen(invariant)), 0, "expected %s: %s", invariant, first);
}

Test(superblock, a_new_store_is_sound)
{
    struct superblock super;
    char first[REPORT_TEXT_BYTES];
    OK(read_super(&super));
    cr_assert_eq(super.state, SUPER_SEALED);
    cr_assert_eq(super.used_bytes, UNIT_BYTES);
    cr_assert_eq(super.version, FORMAT_VERSION);
    cr_assert_eq(super.id[6] >> 4, 4, "a version 4 UUID");
    cr_assert_eq(count_problems(first), 0, "%s", first);
}

Test(superblock, the_magic_is_the_documented_one)
{
    uint8_t bytes[16];
    int fd = open(store.path, O_RDONLY);
    cr_assert_eq(pread(fd, bytes, sizeof bytes, 0), 16);
    close(fd);
    static const uint8_t expected[16] = {0x89, 's', 't', 'e', 'a', 'd', '\r', '\n', 0x1a, '\n'};
    cr_assert_eq(memcmp(bytes, expected, 16), 0);
}

Test(superblock, any_flipped_byte_of_one_copy_leaves_the_other_to_serve)
{
    struct superblock sound, super;
    OK(read_super(&sound));
    for (unsigned copy = 0; copy < 2; copy++)
        for (uint64_t at = 0; at < sizeof(struct superblock); at++) {
            store_flip(copy * UNIT_BYTES + at, (uint8_t)(1u << (at % 8)));
            OK(read_super(&super));
            cr_assert_eq(memcmp(&super, &sound, sizeof super), 0, "copy %u, byte %" PRIu64, copy, at);
            expect_finding("S1");
            store_flip(copy * UNIT_BYTES + at, (uint8_t)(1u << (at % 8)));
        }
}

Test(superblock, any_flipped_byte_of_both_copies_is_an_error)
{
    struct superblock super;
    for (uint64_t at = 0; at < sizeof(struct superblock); at++) {
        store_flip(at, 0x40);
        store_flip(UNIT_BYTES + at, 0x40);
        int rc = read_super(&super);
        if (at < 16)
            cr_assert_eq(rc, STEAD_NOT_A_STORE, "byte %" PRIu64 ": %d", at, rc);
        else if (at < 20)
            cr_assert_eq(rc, STEAD_VERSION, "byte %" PRIu64 ": %d", at, rc);
        else
            cr_assert_eq(rc, STEAD_CORRUPT, "byte %" PRIu64 ": %d", at, rc);
        cr_assert_not_null(strstr(error_last_text(), store.path), "%s", error_last_text());
        store_flip(at, 0x40);
        store_flip(UNIT_BYTES + at, 0x40);
    }
}

Test(superblock, every_truncation_is_an_error_and_never_a_store)
{
    struct superblock super;
    for (off_t length = (off_t)format_file_bytes(UNIT_BYTES) - 1;
         /* without the mark behind it: test_tail.c */ length >= 0; length -= length > 8192 ? 1021 : 1) {
        cr_assert_eq(truncate(store.path, length), 0);
        int rc = read_super(&super);
        cr_assert(rc == STEAD_CORRUPT || (rc == STEAD_NOT_A_STORE && length < 16), "length %jd: %d (%s)",
                  (intmax_t)length, rc, error_last_text());
    }
}

Test(superblock, garbage_is_not_a_store)
{
    struct superblock super;
    const char *text = getenv("STEAD_SEED");
    unsigned seed = text != NULL ? (unsigned)strtoul(text, NULL, 0) : (unsigned)time(NULL);
    printf("STEAD_SEED=%u\n", seed);
    srand(seed);
    for (unsigned round = 0; round < 200; round++) {
        static uint8_t bytes[3 * UNIT_BYTES];
        for (size_t i = 0; i < sizeof bytes; i++)
            bytes[i] = (uint8_t)rand();
        unsigned length = (unsigned)rand() % sizeof bytes;
        int fd = open(store.path, O_WRONLY | O_TRUNC);
        cr_assert_eq(write(fd, bytes, length), (ssize_t)length);
        close(fd);
        FAILS(read_super(&super), STEAD_NOT_A_STORE);
    }
}

Test(superblock, fields_with_a_matching_checksum_are_not_believed_blindly)
{
    static const struct {
        const char *invariant;
        size_t offset, bytes;
        uint64_t value;
        int expected;
    } flaws[] = {
#define FIELD(f) offsetof(struct superblock, f), sizeof((struct superblock *)NULL)->f
        {"S1", FIELD(version), 2, STEAD_VERSION},
        {"S1", FIELD(byte_order), 0x04030201, STEAD_VERSION},
        {"S1", FIELD(byte_order), 0x01020305, STEAD_CORRUPT},
        {"S1", FIELD(pointer_bytes), 4, STEAD_VERSION},
        {"S1", FIELD(page_bytes), 16384, STEAD_VERSION},
        {"S2", FIELD(reserved0), 1, STEAD_CORRUPT},
        {"S2", offsetof(struct superblock, reserved), 1, 1, STEAD_CORRUPT},
        {"S2", offsetof(struct superblock, reserved) + 3839, 1, 1, STEAD_CORRUPT},
        {"S2", FIELD(state), 0, STEAD_CORRUPT},
        {"S2", FIELD(state), 4, STEAD_CORRUPT},
        {"S2", FIELD(sharing), 3, STEAD_CORRUPT},
        {"S2", FIELD(accepted_unclean), 2, STEAD_CORRUPT},
        {"S2", FIELD(checksums_valid), 7, STEAD_CORRUPT},
        {"S2", FIELD(sequence), UINT64_MAX, STEAD_CORRUPT},
        {"S2", FIELD(commit_seq), UINT64_MAX - 1, STEAD_CORRUPT},
        {"S3", FIELD(base), 4096, STEAD_CORRUPT},
        {"S3", FIELD(base), 0, STEAD_CORRUPT},
        {"S3", FIELD(base), UNIT_BYTES, STEAD_CORRUPT},
        {"S3", FIELD(base), UINT64_MAX - UNIT_BYTES + 1, STEAD_CORRUPT},
        {"S3", FIELD(base), (UINT64_C(1) << 56) - UNIT_BYTES, STEAD_CORRUPT},
        {"S3", FIELD(capacity_bytes), 0, STEAD_CORRUPT},
        {"S3", FIELD(capacity_bytes), UNIT_BYTES + 1, STEAD_CORRUPT},
        {"S3", FIELD(capacity_bytes), UINT64_MAX - UNIT_BYTES + 1, STEAD_CORRUPT},
        {"S3", FIELD(used_bytes), 0, STEAD_CORRUPT},
        {"S3", FIELD(used_bytes), PAGE_BYTES, STEAD_CORRUPT},
        {"S3", FIELD(used_bytes), (UINT64_C(1) << 30) + UNIT_BYTES, STEAD_CORRUPT},
        {"S4", FIELD(used_bytes), 2 * UNIT_BYTES, STEAD_CORRUPT},
        {"S4", FIELD(used_bytes), UINT64_C(1) << 30, STEAD_CORRUPT},
        {"S3", FIELD(root), UNIT_BYTES, STEAD_CORRUPT},
        {"S3", FIELD(root), UINT64_MAX, STEAD_CORRUPT},
#undef FIELD
    };
    struct superblock sound, super;
    OK(read_super(&sound));
    for (size_t i = 0; i < sizeof flaws / sizeof *flaws; i++) {
        super = sound;
        memcpy((uint8_t *)&super + flaws[i].offset, &flaws[i].value, flaws[i].bytes);
        put(0, super, true);
        put(1, super, true);
        int rc = read_super(&super);
        cr_assert_eq(rc, flaws[i].expected, "flaw %zu: %d (%s)", i, rc, error_last_text());
        expect_finding(flaws[i].invariant);
    }
    super = sound;
    memset(super.layout_name, 'x', sizeof super.layout_name);
    put(0, super, true);
    put(1, super, true);
    FAILS(read_super(&super), STEAD_CORRUPT);
    expect_finding("S2");
}

Test(superblock, the_rest_of_the_unit_must_be_zero)
{
    store_flip(4096, 1);
    expect_finding("S2");
    store_flip(4096, 1);
    store_flip(2 * UNIT_BYTES - 1, 0x80);
    expect_finding("S2");
}

Test(superblock, copies_of_different_stores_or_of_one_sequence_that_differ_are_damage)
{
    struct superblock sound, super;
    OK(read_super(&sound));
    super = sound;
    super.id[0] ^= 1;
    super.sequence++;
    put(1, super, true);
    FAILS(read_super(&super), STEAD_CORRUPT);
    expect_finding("S5");
    super = sound;
    super.created_s++;
    put(1, super, true);
    FAILS(read_super(&super), STEAD_CORRUPT);
    expect_finding("S5");
    super = sound;
    super.sequence += 2;
    put(1, super, true);
    OK(read_super(&super));
    expect_finding("S6");
}

Test(superblock, the_higher_valid_sequence_wins_and_writes_alternate)
{
    struct superblock super, now;
    OK(file_open(&store.file, true));
    OK(superblock_read(&store.file, &super));
    for (unsigned i = 0; i < 6; i++) {
        uint64_t was = super.sequence;
        super.commit_seq = 100 + i;
        OK(superblock_write(&store.file, &super, i % 2 == 0));
        cr_assert_eq(super.sequence, was + 1);
        OK(superblock_read(&store.file, &now));
        cr_assert_eq(memcmp(&now, &super, sizeof now), 0);
        struct superblock copy;
        cr_assert_eq(pread(store.file.fd, &copy, sizeof copy, (off_t)((was % 2) * UNIT_BYTES)), (ssize_t)sizeof copy);
        cr_assert_eq(copy.sequence, was, "the current copy is never overwritten");
    }
    file_close(&store.file);
}

Test(superblock, a_copy_torn_at_any_sector_leaves_the_state_before)
{
    struct superblock before, after, now;
    OK(file_open(&store.file, true));
    OK(superblock_read(&store.file, &before));
    OK(superblock_write(&store.file, &before, true)); /* the copies differ, as in an open store */
    after = before;
    after.commit_seq++;
    after.state = SUPER_OPEN_LIVE;
    struct superblock old_copy, new_copy;
    off_t at = (off_t)((before.sequence + 1) % 2 * UNIT_BYTES);
    cr_assert_eq(pread(store.file.fd, &old_copy, sizeof old_copy, at), (ssize_t)sizeof old_copy);
    OK(superblock_write(&store.file, &after, true));
    cr_assert_eq(pread(store.file.fd, &new_copy, sizeof new_copy, at), (ssize_t)sizeof new_copy);
    for (unsigned mask = 0; mask < 256; mask++) { /* any subset of its eight sectors reached the disk */
        struct superblock torn = old_copy;
        for (unsigned sector = 0; sector < 8; sector++)
            if (mask & (1u << sector))
                memcpy((uint8_t *)&torn + sector * 512, (uint8_t *)&new_copy + sector * 512, 512);
        cr_assert_eq(pwrite(store.file.fd, &torn, sizeof torn, at), (ssize_t)sizeof torn);
        OK(superblock_read(&store.file, &now));
        bool is_new = memcmp(&torn, &new_copy, sizeof torn) == 0;
        cr_assert_eq(memcmp(&now, is_new ? &after : &before, sizeof now), 0, "sectors %02x", mask);
    }
    file_close(&store.file);
}

Test(superblock, seal_leaves_twins)
{
    struct superblock super, copies[2];
    OK(file_open(&store.file, true));
    OK(superblock_read(&store.file, &super));
    super.state = SUPER_OPEN_LOGGED;
    super.log_salt = 77;
    OK(superblock_write_both(&store.file, &super));
    OK(superblock_write(&store.file, &super, true));
    OK(superblock_seal(&store.file, &super));
    for (unsigned i = 0; i < 2; i++)
        cr_assert_eq(pread(store.file.fd, &copies[i], sizeof *copies, (off_t)(i * UNIT_BYTES)),
                     (ssize_t)sizeof *copies);
    cr_assert_eq(memcmp(&copies[0], &copies[1], sizeof *copies), 0);
    cr_assert_eq(copies[0].state, SUPER_SEALED);
    cr_assert_eq(copies[0].log_salt, 0);
    file_close(&store.file);
}

static int calls_left;
static ssize_t failing_write(int fd, const void *buffer, size_t bytes, off_t offset)
{
    if (calls_left-- <= 0) {
        errno = EIO;
        return -1;
    }
    return file_calls_system.pwrite_durable(fd, buffer, bytes, offset);
}

Test(superblock, a_failed_write_changes_neither_memory_nor_the_current_copy)
{
    struct superblock super, before, now;
    OK(file_open(&store.file, true));
    OK(superblock_read(&store.file, &super));
    before = super;
    file_calls.pwrite_durable = failing_write;
    calls_left = 0;
    FAILS(superblock_write(&store.file, &super, true), EIO);
    cr_assert_eq(memcmp(&super, &before, sizeof super), 0);
    calls_left = 0;
    FAILS(superblock_seal(&store.file, &super), EIO);
    cr_assert_eq(memcmp(&super, &before, sizeof super), 0);
    calls_left = 1;
    FAILS(superblock_seal(&store.file, &super), EIO);
    cr_assert_eq(super.sequence, before.sequence + 1, "the first copy was written");
    file_calls = file_calls_system;
    OK(superblock_read(&store.file, &now));
    cr_assert_eq(memcmp(&now, &super, sizeof now), 0);
    OK(superblock_seal(&store.file, &super));
    file_close(&store.file);
}

/* ---- beside a writer, which may come between any two reads ---- */

static struct superblock grown;
static unsigned reads, torn_reads;

static ssize_t read_beside_growth(int fd, void *buffer, size_t bytes, off_t offset)
{
    if (reads++ == 0) { /* the length was looked at, the superblocks were not */
        put(0, grown, true);
        put(1, grown, true);
        cr_assert_eq(truncate(store.path, (off_t)(format_file_bytes(grown.used_bytes) + TAIL_BYTES)), 0);
    }
    return file_calls_system.pread(fd, buffer, bytes, offset);
}

static ssize_t read_torn(int fd, void *buffer, size_t bytes, off_t offset)
{
    ssize_t got = file_calls_system.pread(fd, buffer, bytes, offset);
    if (bytes == sizeof grown && reads++ < torn_reads)
        memset((uint8_t *)buffer + bytes / 2, (int)reads, bytes / 2);
    return got;
}

Test(superblock, one_that_was_read_after_the_file_grew_is_no_damage)
{
    struct superblock super;
    char first[REPORT_TEXT_BYTES];
    for (unsigned check = 0; check < 2; check++) {
        OK(read_super(&grown));
        grown.sequence++;
        grown.used_bytes += 16 * UNIT_BYTES;
        reads = 0;
        file_calls.pread = read_beside_growth;
        if (check == 0)
            OK(read_super(&super));
        else
            cr_assert_eq(count_problems(first), 0, "%s", first);
        file_calls.pread = file_calls_system.pread;
        cr_assert_gt(reads, 1);
    }
    cr_assert_eq(super.sequence + 1, grown.sequence);
}

Test(superblock, copies_met_half_way_through_their_writes_are_read_again)
{
    struct superblock super;
    char first[REPORT_TEXT_BYTES];
    for (torn_reads = 1; torn_reads <= 2; torn_reads++) {
        file_calls.pread = read_torn;
        reads = 0;
        OK(read_super(&super));
        reads = 0;
        cr_assert_eq(count_problems(first), 0, "%s", first);
        reads = 0;
        torn_reads += 100; /* always */
        FAILS(read_super(&super), STEAD_CORRUPT);
        torn_reads -= 100;
        file_calls.pread = file_calls_system.pread;
    }
}
