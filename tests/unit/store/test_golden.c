/*
 * Files that earlier builds wrote open for ever: tests/golden/v<N>.stead, one for each format version, never made anew
 * once released.  STEAD_WRITE_GOLDEN=1 writes the one of this build's version; then it belongs into the commit that
 * changed the format.
 */
#include <string.h>
#include <unistd.h>

#include "support/support.h"

TestSuite(golden, .init = support_setup, .fini = support_teardown, .timeout = 300);

#define GOLDEN_NODES 300

struct entry {
    STEAD_REF(struct entry) next;
    uint64_t number;
    char text[40];
};

static const char *golden_path(void)
{
    return STEAD_GOLDEN_FOLDER "/v1.stead";
}

static void write_golden(void)
{
    stead *s;
    struct entry *head = NULL;
    unlink(golden_path());
    stead_options o = {.capacity_bytes = (size_t)64 << 20, .layout = {.name = "golden", .version = 7}};
    OK(stead_open(&s, golden_path(), &o));
    OK(stead_bind(s, "large", memset(stead_malloc(s, 100000), 'x', 100000)));
    for (unsigned i = 0; i < GOLDEN_NODES; i++) {
        struct entry *entry = stead_new(s, struct entry);
        entry->number = i;
        snprintf(entry->text, sizeof entry->text, "entry %u", i);
        stead_ref_set(&entry->next, head);
        head = entry;
        if (i % 3 == 0)
            stead_free(stead_malloc(s, i * 5));
    }
    OK(stead_set_root(s, head));
    OK(stead_bind(s, "head", head));
    OK(stead_close(s));
}

static void expect_content(stead *s, bool changed)
{
    unsigned n = GOLDEN_NODES;
    for (struct entry *entry = stead_root(s); entry != NULL; entry = stead_ref_get(&entry->next)) {
        char text[40];
        n--;
        snprintf(text, sizeof text, "entry %u", n);
        cr_assert_eq(entry->number, changed && n == 0 ? 1000 : n);
        cr_assert_str_eq(entry->text, text);
    }
    cr_assert_eq(n, 0);
    cr_assert_eq(stead_lookup(s, "head"), stead_root(s));
    const char *large = stead_lookup(s, "large");
    cr_assert_geq(stead_usable_size(large), 100000);
    for (unsigned i = 0; i < 100000; i++)
        cr_assert_eq(large[i], 'x');
    stead_status status;
    OK(stead_stat(s, &status));
    cr_assert_eq(status.live_blocks, GOLDEN_NODES + 1);
    OK(stead_check(s, NULL));
}

Test(golden, version_1_is_read_as_it_was_written)
{
    if (getenv("STEAD_WRITE_GOLDEN") != NULL)
        write_golden();
    stead *s;
    OK(stead_open(&s, golden_path(), &(stead_options){.flags = STEAD_READ_ONLY | STEAD_ANY_ADDRESS}));
    expect_content(s, false);
    OK(stead_close(s));
    stead_options other = {.flags = STEAD_READ_ONLY | STEAD_ANY_ADDRESS, .layout = {.name = "golden", .version = 8}};
    FAILS(stead_open(&s, golden_path(), &other), STEAD_LAYOUT_MISMATCH);
}

#if !defined(__SANITIZE_THREAD__) /* which owns the address that the file was made for */
Test(golden, version_1_is_written_on_in_every_mode)
{
    for (unsigned mode = 0; mode < 3; mode++) {
        stead *s;
        copy_file(golden_path(), path_in("copy"));
        stead_options o = {.sharing = (stead_sharing)mode};
        OK(stead_open(&s, path_in("copy"), &o));
        expect_content(s, false);
        OK(stead_lock(s, STEAD_EXCLUSIVE, 0));
        struct entry *entry = stead_root(s);
        while (entry->number != 0)
            entry = stead_ref_get(&entry->next);
        entry->number = 1000;
        stead_free(stead_malloc(s, 12345));
        OK(stead_unlock(s));
        OK(stead_close(s));
        OK(stead_open(&s, path_in("copy"), NULL));
        expect_content(s, true);
        OK(stead_close(s));
        unlink(path_in("copy"));
    }
}
#endif
