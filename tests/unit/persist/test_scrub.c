/* scrub.c and image_check(): P1, P2.  Method: a sealed store over three groups, bits flipped in pages and in the table,
 * tails left behind, sectors that cannot be read. */
#include "temp_store.h"

#include "persist/page_checksum.h"
#include "persist/scrub.h"

#define USED (66 * MIB)

static void setup(void)
{
    store_directory();
    store_create();
    store_open(IMAGE_SHARED);
    OK(image_extend(store.image, USED));
    store_fill(0, 3 * MIB, 1);
    store_fill(30 * MIB, 35 * MIB, 1);
    store_fill(63 * MIB, USED, 1);
    store_seal(USED);
}

TestSuite(scrub, .init = setup, .fini = store_remove, .timeout = 300);

static void check(struct report *report, void (*name)(void *, uint64_t, char *, unsigned), void *ctx)
{
    *report = (struct report){0};
    store_open(IMAGE_READ);
    image_check(store.image, report, name, ctx);
    store_drop();
}

Test(scrub, a_sealed_store_is_sound_and_every_page_was_looked_at)
{
    struct report report;
    check(&report, NULL, NULL);
    cr_assert_eq(report.problems, 0, "%s", report.first);
    cr_assert_eq(report.pages, USED / PAGE_BYTES);
}

static void name_it(void *ctx, uint64_t offset, char *text, unsigned text_bytes)
{
    *(uint64_t *)ctx = offset;
    (void)snprintf(text, text_bytes, "in the root of all trees");
}

Test(scrub, one_flipped_bit_is_found_in_every_group_and_named)
{
    const uint64_t places[] = {0,        PAGE_BYTES - 1,  2 * MIB + 77, 10 * MIB, 32 * MIB - 1,
                               32 * MIB, 33 * MIB + 4095, 64 * MIB - 1, 64 * MIB, USED - 1};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        struct report report;
        uint64_t named = UINT64_MAX;
        char page[40];
        store_flip(format_file_offset(places[i]), (uint8_t)(1u << (i % 8)));
        check(&report, name_it, &named);
        cr_assert_eq(report.problems, 1, "offset %" PRIu64 ": %" PRIu64 " problems, %s", places[i], report.problems,
                     report.first);
        cr_assert_eq(named, places[i] / PAGE_BYTES * PAGE_BYTES);
        (void)snprintf(page, sizeof page, "page %" PRIu64 ",", places[i] / PAGE_BYTES);
        cr_assert_not_null(strstr(report.first, "P1 at"), "%s", report.first);
        cr_assert_not_null(strstr(report.first, page), "%s", report.first);
        cr_assert_not_null(strstr(report.first, "in the root of all trees"), "%s", report.first);
        store_flip(format_file_offset(places[i]), (uint8_t)(1u << (i % 8)));
    }
}

Test(scrub, a_flipped_bit_in_the_table_is_found)
{
    const uint64_t pages[] = {0, 10 * MIB, 32 * MIB, USED - PAGE_BYTES};
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++) {
        struct report report;
        store_flip(format_checksum_offset(pages[i]) + i, 0x10);
        check(&report, NULL, NULL);
        cr_assert_eq(report.problems, 1, "%s", report.first);
        store_flip(format_checksum_offset(pages[i]) + i, 0x10);
    }
}

Test(scrub, a_checksum_behind_the_end_is_found)
{
    struct report report;
    store_flip(format_checksum_offset(USED), 1);
    check(&report, NULL, NULL);
    cr_assert_eq(report.problems, 1);
    cr_assert_eq(strncmp(report.first, "P2", 2), 0, "%s", report.first);
}

Test(scrub, pages_of_zeros_have_checksum_zero_and_others_do_not)
{
    static uint8_t page[PAGE_BYTES];
    cr_assert_eq(page_checksum(page), 0);
    for (unsigned bit = 0; bit < PAGE_BYTES * 8; bit += 997) {
        page[bit / 8] = (uint8_t)(1u << bit % 8);
        cr_assert_neq(page_checksum(page), 0, "bit %u", bit);
        page[bit / 8] = 0;
    }
}

Test(scrub, rebuild_writes_only_what_differs_and_clear_clears)
{
    struct report report;
    store_flip(format_checksum_offset(33 * MIB), 0xff);
    store_flip(format_checksum_offset(USED - PAGE_BYTES), 0xff);
    OK(file_open(&store.file, true));
    OK(scrub_rebuild(store.file.fd, 0, USED));
    uint64_t entry = 1;
    OK(scrub_clear(store.file.fd, 31 * MIB, 34 * MIB));
    for (uint64_t at = 31 * MIB; at < 34 * MIB; at += PAGE_BYTES) {
        OK(file_read_at(store.file.fd, &entry, sizeof entry, format_checksum_offset(at)));
        cr_assert_eq(entry, 0);
    }
    OK(scrub_rebuild(store.file.fd, 31 * MIB, 34 * MIB));
    file_close(&store.file);
    check(&report, NULL, NULL);
    cr_assert_eq(report.problems, 0, "%s", report.first);
}

static uint64_t bad_from, bad_to;
static ssize_t bad_sector(int fd, void *buffer, size_t bytes, off_t offset)
{
    if ((uint64_t)offset < bad_to && (uint64_t)offset + bytes > bad_from) {
        errno = EIO;
        return -1;
    }
    return pread(fd, buffer, bytes, offset);
}

Test(scrub, what_cannot_be_read_is_a_finding_of_that_page_alone)
{
    struct report report = {0};
    store_open(IMAGE_READ);
    file_calls.pread = bad_sector;
    bad_from = format_file_offset(33 * MIB) + 512;
    bad_to = bad_from + 512;
    image_check(store.image, &report, NULL, NULL);
    cr_assert_eq(report.problems, 1, "%" PRIu64 ": %s", report.problems, report.first);
    cr_assert_eq(report.pages, USED / PAGE_BYTES);
    bad_from = format_checksum_offset(0);
    bad_to = bad_from + 1;
    report = (struct report){0};
    image_check(store.image, &report, NULL, NULL);
    cr_assert_eq(report.problems, 1, "%" PRIu64 ": %s", report.problems, report.first);
    store_drop();
}

Test(scrub, a_file_that_was_cut_off_under_the_checker_is_reported_and_no_signal)
{
    struct report report = {0};
    store_open(IMAGE_READ);
    cr_assert_eq(truncate(store.path, (off_t)format_file_offset(65 * MIB)), 0);
    image_check(store.image, &report, NULL, NULL);
    superblock_check(&store.file, &report);
    cr_assert_gt(report.problems, 0);
    store_drop();
}

Test(scrub, every_page_of_a_group_boundary_is_read_from_its_own_place)
{
    uint64_t words[4];
    OK(file_open(&store.file, false));
    static uint8_t buffer[4 * PAGE_BYTES];
    OK(scrub_read_image(store.file.fd, 32 * MIB - 2 * PAGE_BYTES, buffer, sizeof buffer));
    for (unsigned i = 0; i < 4; i++) {
        memcpy(&words[i], buffer + i * PAGE_BYTES, 8);
        cr_assert_eq(words[i], store_mark(32 * MIB - 2 * PAGE_BYTES + i * PAGE_BYTES, 1));
    }
    file_close(&store.file);
}

/* A private replay: damage in a page that the log does not name is found; of those it names the file may hold half an
 * application, and the log has verified what it says of them. */
Test(scrub, a_check_of_a_replayed_store_finds_damage_beside_the_log)
{
    uint64_t seq;
    store_open(IMAGE_PRIVATE);
    OK(image_extend(store.image, 2 * MIB));
    store_fill(0, 2 * MIB, 1);
    OK(image_commit(store.image, 2 * MIB, &seq));
    OK(image_checkpoint(store.image));
    store_fill(MIB, MIB + 4 * PAGE_BYTES, 2);
    OK(image_commit(store.image, 2 * MIB, &seq));
    store_drop();
    store_open(IMAGE_READ);
    store_check(0);
    store_drop();
    store_flip(format_file_offset(MIB + PAGE_BYTES) + 3, 4); /* the log writes it again */
    store_open(IMAGE_READ);
    store_check(0);
    store_expect(MIB, MIB + 4 * PAGE_BYTES, 2);
    store_drop();
    store_flip(format_file_offset(MIB + 4 * PAGE_BYTES) + 2000, 4);
    store_flip(format_checksum_offset(MIB - PAGE_BYTES), 1);
    store_open(IMAGE_READ);
    store_check(2);
    store_drop();
}

/* ---- a store that is opened in the middle of a check ---- */

static uint32_t opened_as; /* state; 0: it was opened */

static ssize_t read_beside_an_open(int fd, void *buffer, size_t bytes, off_t offset)
{
    if (opened_as != 0 && (uint64_t)offset == format_checksum_offset(0)) {
        struct file other = {.fd = open(store.path, O_RDWR | O_CLOEXEC)};
        struct superblock super;
        cr_assert_geq(other.fd, 0);
        OK(superblock_read(&other, &super));
        super.state = opened_as;
        opened_as = 0;
        super.log_salt = super.state == SUPER_OPEN_LOGGED ? 7 : 0;
        super.checksums_valid = super.state == SUPER_OPEN_LOGGED;
        OK(superblock_write_both(&other, &super));
        if (super.state == SUPER_OPEN_LOGGED) { /* a load of new pages, straight into the file */
            uint64_t entry = 1;
            OK(file_write_at(other.fd, &entry, sizeof entry, format_checksum_offset(USED)));
        } else {
            store_flip(format_file_offset(33 * MIB), 1);
        }
        close(other.fd);
    }
    return file_calls_system.pread(fd, buffer, bytes, offset);
}

/* P1, P2: a check that began before sees what the opener does, and takes none of it for damage; nor damage for the opener's. */
Test(scrub, an_opener_beside_a_check_is_no_damage_and_hides_none)
{
    const uint32_t states[] = {SUPER_OPEN_LOGGED, SUPER_OPEN_LIVE, SUPER_OPEN_LOGGED};
    for (unsigned i = 0; i < 3; i++) {
        struct report report = {0};
        struct superblock sealed;
        store_open(IMAGE_READ);
        sealed = store.super;
        if (i == 2)
            store_flip(format_file_offset(5 * MIB) + 9, 2);
        opened_as = states[i];
        file_calls.pread = read_beside_an_open;
        superblock_check(&store.file, &report);
        image_check(store.image, &report, NULL, NULL);
        file_calls.pread = file_calls_system.pread;
        cr_assert_eq(opened_as, 0);
        cr_assert_eq(report.problems, i == 2 ? 1 : 0, "%u: %" PRIu64 ": %s", i, report.problems, report.first);
        store_drop();
        /* as it was */
        struct file other = {.fd = open(store.path, O_RDWR | O_CLOEXEC)};
        uint64_t none = 0;
        sealed.sequence += 1;
        OK(superblock_seal(&other, &sealed));
        OK(file_write_at(other.fd, &none, sizeof none, format_checksum_offset(USED)));
        close(other.fd);
        if (states[i] == SUPER_OPEN_LIVE)
            store_flip(format_file_offset(33 * MIB), 1);
    }
}

/* Nothing says that a sealed store has checksums but its superblock: a session that changes nothing makes them all the same. */
Test(scrub, a_sealed_store_without_checksums_gets_them)
{
    store_open(IMAGE_PRIVATE);
    store_seal(UNIT_BYTES);
    OK(file_open(&store.file, true));
    OK(superblock_read(&store.file, &store.super));
    store.super.checksums_valid = 0;
    OK(superblock_seal(&store.file, &store.super));
    file_close(&store.file);
    store_flip(format_checksum_offset(PAGE_BYTES), 1);
    store_open(IMAGE_PRIVATE);
    store_seal(UNIT_BYTES);
    store_open(IMAGE_READ);
    cr_assert_eq(store.super.checksums_valid, 1);
    store_check(0);
    store_drop();
}
