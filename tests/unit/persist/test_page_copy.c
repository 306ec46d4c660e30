/* page_copy.c: P9.  A copy gets the pages whose entries differ, and no other; what is not what its entry says is never taken
 * for copied, whatever becomes of it. */
#include "persist/page_checksum.h"
#include "persist/page_copy.h"
#include "persist/scrub.h"
#include "temp_store.h"

#define GROUP_START (UINT64_C(32) << 20) /* a run of pages is split there */
#define END (GROUP_START + 8 * PAGE_BYTES)

static int from, to;
static uint8_t *buffer;

static void setup(void)
{
    char path[160];
    store_directory();
    (void)snprintf(path, sizeof path, "%s/from", store.directory);
    from = open(path, O_RDWR | O_CREAT, 0600);
    (void)snprintf(path, sizeof path, "%s/to", store.directory);
    to = open(path, O_RDWR | O_CREAT, 0600);
    cr_assert(from >= 0 && to >= 0);
    OK(file_truncate(from, format_file_bytes(END)));
    buffer = malloc(PAGE_COPY_BYTES);
}

static void teardown(void)
{
    free(buffer);
    close(from);
    close(to);
    store_remove();
}

TestSuite(page_copy, .init = setup, .fini = teardown, .timeout = 300);

static const uint8_t *page_of(int value)
{
    static uint8_t page[PAGE_BYTES];
    memset(page, value, sizeof page);
    return page;
}

static void put_page(uint64_t page, int value)
{
    OK(scrub_write_image(from, page * PAGE_BYTES, page_of(value), PAGE_BYTES));
}

static void put(uint64_t page, int value)
{
    put_page(page, value);
    OK(scrub_rebuild(from, page * PAGE_BYTES, (page + 1) * PAGE_BYTES));
}

static uint64_t entry_of(int fd, uint64_t page)
{
    uint64_t entry;
    OK(file_read_at(fd, &entry, sizeof entry, format_checksum_offset(page * PAGE_BYTES)));
    return entry;
}

static uint64_t copy(bool last)
{
    uint64_t pages = 0;
    OK(page_copy_changed(from, to, 0, END, last, buffer, &pages));
    return pages;
}

static void expect(uint64_t page, int value)
{
    uint8_t found[PAGE_BYTES];
    OK(scrub_read_image(to, page * PAGE_BYTES, found, sizeof found));
    cr_assert_eq(memcmp(found, page_of(value), PAGE_BYTES), 0, "page %" PRIu64 " is not %d", page, value);
}

Test(page_copy, P9_takes_what_differs_and_no_more)
{
    const uint64_t first = GROUP_START / PAGE_BYTES;
    put(0, 1);
    put(511, 2);
    put(512, 3);
    put(first - 1, 4);
    put(first, 5);
    cr_assert_eq(copy(false), 5, "the others are holes");
    cr_assert_eq(copy(false), 0);
    put(511, 6);
    put(700, 7);
    put(512, 0); /* zeros again */
    cr_assert_eq(copy(false), 3);
    OK(file_truncate(to, format_file_bytes(END)));
    cr_assert_eq(copy(true), 0);
    expect(0, 1);
    expect(511, 6);
    expect(512, 0);
    expect(700, 7);
    expect(first - 1, 4);
    expect(first, 5);
    for (uint64_t page = 0; page < END / PAGE_BYTES; page++)
        cr_assert_eq(entry_of(to, page), entry_of(from, page));
}

/* Its application failed between the page and its entry, while a piece was copied; then the page became what it was. */
Test(page_copy, P9_a_page_that_is_not_what_its_entry_says_is_copied_again)
{
    put(3, 1);
    put_page(3, 2);
    cr_assert_eq(copy(false), 1);
    expect(3, 2);
    cr_assert_neq(entry_of(to, 3), entry_of(from, 3));
    put(3, 1);
    cr_assert_eq(copy(true), 1, "the copy would hold a page that never was");
    expect(3, 1);
}

Test(page_copy, P9_a_page_that_rotted_has_its_entry_in_the_copy)
{
    put(3, 1);
    put_page(3, 2);
    cr_assert_eq(copy(false), 1);
    cr_assert_eq(copy(true), 1);
    expect(3, 2);
    cr_assert_eq(entry_of(to, 3), entry_of(from, 3));
    cr_assert_neq(entry_of(to, 3), page_checksum(page_of(2)), "found by whoever checks the copy");
}
