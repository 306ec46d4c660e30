/* Each invariant of docs/invariants.d/store.md is broken in memory; stead_check must say so, and the calls must not
 * follow the damage out of the image. */
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "store/name_table.h"
#include "store/page.h"
#include "support/support.h"

static stead *s;

static void setup(void)
{
    support_setup();
    OK(stead_open(&s, path_in("s"), &(stead_options){.capacity_bytes = 1u << 26}));
    char name[16];
    for (unsigned i = 0; i < 40; i++) {
        snprintf(name, sizeof name, "n%u", i);
        OK(stead_bind(s, name, stead_malloc(s, 16)));
    }
    OK(stead_set_root(s, stead_malloc(s, 16)));
    OK(stead_commit(s, STEAD_BUFFERED));
    OK(stead_check(s, NULL));
}

static void teardown(void)
{
    OK(stead_rollback(s));
    OK(stead_check(s, NULL));
    OK(stead_close(s));
    support_teardown();
}

TestSuite(invariants, .init = setup, .fini = teardown, .timeout = 300);

static void expect_problem(const char *id)
{
    stead_report report;
    FAILS(stead_check(s, &report), STEAD_CORRUPT);
    cr_assert_geq(report.problems, 1);
    cr_assert_eq(strncmp(report.first_problem, id, strlen(id)), 0, "%s", report.first_problem);
}

/* The word that leads to the first name of the list: markers are before it (store/name_table.h). */
static _Atomic uint64_t *first_name_link(void)
{
    struct name_node *node = page_pointer(s, page_of(s)->name_level[0]);
    for (;;) {
        struct name_node *next = page_pointer(s, node->next);
        if (next->length != 0)
            return &node->next;
        node = next;
    }
}

Test(invariants, r1_a_page_without_its_magic)
{
    page_of(s)->magic ^= 1;
    expect_problem("R1");
}

Test(invariants, r2_a_root_outside_the_image)
{
    page_of(s)->root = image_bytes(s->image);
    expect_problem("R2");
    cr_assert_null(stead_root(s));
    cr_assert_eq(errno, EUCLEAN);
    page_of(s)->root = 8;
    expect_problem("R2");
}

static int ignore_name(const char *name, void *object, void *arg)
{
    (void)name;
    (void)object;
    (void)arg;
    return 0;
}

Test(invariants, n1_a_link_that_leaves_the_image_or_loops)
{
    _Atomic uint64_t *link = first_name_link();
    uint64_t good = *link, level = page_of(s)->name_level[0];
    static const uint64_t wrong[] = {8, 4097, UINT64_MAX, UINT64_MAX - 24, (uint64_t)1 << 26};
    for (unsigned i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        *link = wrong[i];
        expect_problem("N1");
        cr_assert_eq(stead_each_name(s, ignore_name, NULL), STEAD_CORRUPT);
        *link = good;
        page_of(s)->name_level[0] = wrong[i];
        expect_problem("N1");
        cr_assert_eq(stead_each_name(s, ignore_name, NULL), STEAD_CORRUPT);
        cr_assert_null(stead_lookup(s, "n7"));
        cr_assert_eq(errno, EUCLEAN);
        page_of(s)->name_level[0] = level;
    }
    uint64_t end = image_bytes(s->image);
    struct name_node *last = (struct name_node *)(void *)(s->base + end - sizeof *last - 8);
    const uint64_t behind[] = {end - sizeof *last - 8, end - 16, end - 8}; /* the first one: its name */
    last->length = 8;
    for (unsigned i = 0; i < sizeof behind / sizeof behind[0]; i++) {
        *link = behind[i];
        expect_problem("N1");
        cr_assert_eq(stead_each_name(s, ignore_name, NULL), STEAD_CORRUPT);
        *link = good;
    }
    page_of(s)->name_level[2] = page_of(s)->name_level[0]; /* and no level 1 before it */
    expect_problem("N1");
    page_of(s)->name_level[2] = 0;
    struct name_node *first = page_pointer(s, level);
    first->length = UINT32_MAX; /* any bytes: no marker stands there */
    expect_problem("N1");
    cr_assert_eq(stead_each_name(s, ignore_name, NULL), STEAD_CORRUPT);
    first->length = 0;
    OK(stead_check(s, NULL));
    _Atomic uint64_t *next = page_pointer(s, good);
    *next = good; /* a list that bites its tail */
    expect_problem("N");
    for (unsigned i = 0; i < 40; i++) {
        char name[16];
        snprintf(name, sizeof name, "n%u", i);
        (void)stead_lookup(s, name);
        (void)stead_bind(s, name, NULL);
    }
}

static int count_name(const char *name, void *object, void *arg)
{
    cr_assert(object != NULL && strcmp(name, "gone") != 0, "%s", name);
    ++*(unsigned *)arg;
    return 0;
}

/* The close cuts off the end of the image, where the object was: no damage, and no name of anything. */
Test(invariants, n1_a_name_outlives_its_object)
{
    unsigned names = 0;
    void *before = stead_malloc(s, 5 << 20), *object = stead_malloc(s, 5 << 20);
    cr_assert(before != NULL && object != NULL);
    OK(stead_bind(s, "gone", object));
    OK(stead_commit(s, STEAD_BUFFERED));
    uint64_t offset = page_offset_of(s, object);
    stead_free(object);
    stead_free(before);
    OK(stead_close(s));
    OK(stead_open(&s, path_in("s"), &(stead_options){.capacity_bytes = 1u << 26}));
    cr_assert_leq(image_bytes(s->image), offset, "it is still there: this shows nothing");
    OK(stead_check(s, NULL));
    OK(stead_each_name(s, count_name, &names));
    cr_assert_eq(names, 40);
    errno = 0;
    cr_assert_null(stead_lookup(s, "gone"));
    cr_assert_eq(errno, ENOENT);
    cr_assert_not_null(stead_lookup(s, "n7"));
    OK(stead_bind(s, "gone", stead_malloc(s, 16)));
    cr_assert_not_null(stead_lookup(s, "gone"));
    OK(stead_bind(s, "gone", NULL));
    OK(stead_commit(s, STEAD_BUFFERED));
}

Test(invariants, n2_a_name_in_the_wrong_place)
{
    struct name_node *node = page_pointer(s, *first_name_link());
    node->name[0] ^= 2;
    expect_problem("N2");
    node->name[0] ^= 2;
    OK(stead_check(s, NULL));
    _Atomic uint64_t *link = first_name_link();
    uint64_t name = *link, marker = node->next; /* two names in 64 parts: hardly ever */
    struct name_node *after = page_pointer(s, marker);
    uint64_t rest = after->next;
    *link = marker; /* the name behind what comes after it */
    after->next = name;
    node->next = rest;
    expect_problem("N2");
}

Test(invariants, n2_a_marker_that_is_missing_or_no_marker)
{
    struct name_node *marker = page_pointer(s, page_of(s)->name_level[0]);
    struct name_node *second = marker + 1;
    uint64_t at = page_offset_of(s, second);
    struct name_node *before = marker;
    while (before->next != at)
        before = page_pointer(s, before->next);
    before->next = second->next;
    expect_problem("N2");
    before->next = at;
    second->hash++;
    expect_problem("N2");
    second->hash--;
    OK(stead_check(s, NULL));
    struct name_node *name = page_pointer(s, *first_name_link());
    name->length = 0;
    expect_problem("N2");
}

Test(invariants, n3_a_wrong_count_of_names)
{
    page_of(s)->name_count += 1;
    expect_problem("N3");
}

/* A LIVE writer that dies inside bind leaves the list and its count apart by one. */
static void die_in_bind(void *arg)
{
    stead *live;
    (void)arg;
    CHILD(stead_open(&live, path_in("live"), &(stead_options){.sharing = STEAD_LIVE}) == 0);
    CHILD(stead_lock(live, STEAD_EXCLUSIVE, -1) == 0);
    page_of(live)->name_count += 1;
    (void)raise(SIGKILL);
}

Test(invariants, n3_is_made_true_again_after_a_death_inside_bind)
{
    for (unsigned attached = 0; attached < 2; attached++) {
        stead *live;
        stead_options options = {.sharing = STEAD_LIVE};
        OK(stead_open(&live, path_in("live"), &options));
        if (attached == 0)
            OK(stead_bind(live, "one", stead_malloc(live, 16)));
        else
            OK(stead_bind(live, "two", stead_malloc(live, 16)));
        if (!attached)
            OK(stead_close(live));
        cr_assert_eq(reap(spawn(die_in_bind, NULL)), 128 + SIGKILL);
        if (attached) {
            FAILS(stead_lock(live, STEAD_EXCLUSIVE, -1), EOWNERDEAD);
            OK(stead_make_consistent(live));
            OK(stead_unlock(live));
        } else {
            options.flags = STEAD_ACCEPT_UNCLEAN;
            OK(stead_open(&live, path_in("live"), &options));
        }
        OK(stead_close(live));
        OK(stead_open(&live, path_in("live"), NULL));
        stead_report report;
        int rc = stead_check(live, &report);
        cr_assert_eq(rc, 0, "%s", report.first_problem);
        OK(stead_close(live));
    }
}
