/*
 * The table of names: it grows with them, in every mode, and a LIVE process killed at any instant of its growth leaves a
 * table in which every name that was bound is found.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "store/name_table.h"
#include "store/page.h"
#include "support/support.h"

TestSuite(names, .init = support_setup, .fini = support_teardown, .timeout = 300);

enum { MANY = 8000, STEPS_MAX = 64, SMALL = 8000 };

static const char *name_of(unsigned i)
{
    static char name[48];
    (void)snprintf(name, sizeof name, "an object of mine, number %u", i);
    return name;
}

static int count_name(const char *name, void *object, void *arg)
{
    cr_assert(name[0] != '\0' && object != NULL);
    ++*(unsigned *)arg;
    return 0;
}

static void expect_sound(stead *s, unsigned names)
{
    unsigned seen = 0;
    stead_report report;
    int rc = stead_check(s, &report);
    cr_assert_eq(rc, 0, "%s", report.first_problem);
    OK(stead_each_name(s, count_name, &seen));
    cr_assert_eq(seen, names);
}

/* The most names between two markers: what a lookup walks over. */
static unsigned most_steps(const stead *s)
{
    unsigned most = 0, steps = 0;
    for (uint64_t at = page_of(s)->name_level[0]; at != 0;) {
        const struct name_node *node = page_pointer(s, at);
        steps = node->length == 0 ? 0 : steps + 1;
        most = steps > most ? steps : most;
        at = node->next;
    }
    return most;
}

static void bind_and_unbind_many(stead_sharing sharing)
{
    stead *s;
    OK(stead_open(&s, path_in("s"), &(stead_options){.sharing = sharing}));
    OK(stead_lock(s, STEAD_EXCLUSIVE, -1));
    unsigned *object = stead_calloc(s, MANY, sizeof *object);
    cr_assert_not_null(object);
    for (unsigned i = 0; i < MANY; i++) {
        OK(stead_bind(s, name_of(i), &object[i]));
        if (i % 1009 == 0)
            expect_sound(s, i + 1);
    }
    cr_assert_leq(most_steps(s), STEPS_MAX, "the table does not grow with its names");
    OK(stead_unlock(s));
    OK(stead_close(s));

    OK(stead_open(&s, path_in("s"), &(stead_options){.sharing = sharing}));
    OK(stead_lock(s, STEAD_EXCLUSIVE, -1));
    stead_status status;
    OK(stead_stat(s, &status));
    cr_assert_eq(status.live_blocks, 1, "names and markers are the library's");
    expect_sound(s, MANY);
    for (unsigned i = 0; i < MANY; i++)
        cr_assert_eq(stead_lookup(s, name_of(i)), &object[i], "%s", name_of(i));
    for (unsigned i = 0; i < MANY; i += 2)
        OK(stead_bind(s, name_of(i), NULL));
    for (unsigned i = 0; i < MANY; i++)
        cr_assert_eq(stead_lookup(s, name_of(i)), i % 2 == 0 ? NULL : &object[i], "%s", name_of(i));
    FAILS(stead_bind(s, name_of(0), NULL), ENOENT);
    expect_sound(s, MANY / 2);
    for (unsigned i = 1; i < MANY; i += 2)
        OK(stead_bind(s, name_of(i), NULL));
    expect_sound(s, 0);
    OK(stead_unlock(s));
    OK(stead_close(s));
    OK(stead_remove(path_in("s")));
}

Test(names, a_table_grows_with_its_names)
{
    bind_and_unbind_many(STEAD_SOLE);
    bind_and_unbind_many(STEAD_TURNS);
    bind_and_unbind_many(STEAD_LIVE);
}

/* A level needs a block in one piece; a name only its own.  Without room for the level the name is bound all the same. */
Test(names, a_level_without_room_is_made_later)
{
    stead *s;
    unsigned bound = 0;
    void *last = NULL;
    static void *small[SMALL];
    OK(stead_open(&s, path_in("s"), &(stead_options){.capacity_bytes = 8u << 20}));
    int *object = stead_calloc(s, 1, sizeof *object);
    OK(stead_bind(s, name_of(bound++), object)); /* the first level */
    for (unsigned i = 0; i < SMALL; i++)
        cr_assert_not_null(small[i] = stead_malloc(s, sizeof(struct name_node) + strlen(name_of(1000)) + 1));
    for (size_t size = 1u << 20; size > 512; size /= 2) /* what is left is smaller than a level, in pieces */
        for (void **block; (block = stead_malloc(s, size)) != NULL; last = block)
            *block = last;
    for (unsigned i = 0; i < SMALL; i += 2) /* room for names, and for nothing else */
        stead_free(small[i]);
    while (stead_bind(s, name_of(bound), object) == 0)
        bound++;
    cr_assert_gt(bound, 600, "%u: no name was bound without room for a level", bound);
    cr_assert_eq(page_of(s)->name_level[3], 0, "there was room for levels: this shows nothing");
    expect_sound(s, bound);
    for (void **block = last; block != NULL; block = last) {
        last = *block;
        stead_free(block);
    }
    for (unsigned i = 0; i < NAME_LEVELS; i++) /* each makes one, as long as one is missing */
        OK(stead_bind(s, name_of(bound++), object));
    cr_assert_leq(most_steps(s), STEPS_MAX);
    expect_sound(s, bound);
    OK(stead_close(s));
}

/* As a death in the middle of a new level leaves it: some of its markers in the list, and the word says under way. */
Test(names, a_level_that_somebody_died_in_is_finished)
{
    stead *s;
    unsigned bound = 0;
    OK(stead_open(&s, path_in("s"), NULL));
    int *object = stead_calloc(s, 1, sizeof *object);
    while (page_of(s)->name_level[3] == 0)
        OK(stead_bind(s, name_of(bound++), object));
    uint64_t whole = page_of(s)->name_level[3];
    struct name_node *marker = page_pointer(s, whole);
    for (uint64_t *link = (uint64_t *)&page_of(s)->name_level[0];
         *link != 0;) { /* every second one was not yet linked */
        struct name_node *node = page_pointer(s, *link);
        if (node >= marker && node < marker + 256 && (node - marker) % 2 == 1)
            *link = node->next;
        else
            link = (uint64_t *)&node->next;
    }
    page_of(s)->name_level[3] = whole | 1;
    for (unsigned i = 0; i < bound; i++)
        cr_assert_eq(stead_lookup(s, name_of(i)), object, "%s", name_of(i));
    expect_sound(s, bound);
    OK(stead_bind(s, name_of(1), NULL));
    expect_sound(s, bound - 1);
    OK(stead_bind(s, name_of(1), object));
    OK(stead_bind(s, name_of(bound++), object));
    cr_assert_eq(page_of(s)->name_level[3], whole, "nobody went on with it");
    expect_sound(s, bound);
    OK(stead_close(s));
}

struct shared {
    volatile uint32_t *done;
    unsigned from;
};

static void bind_on_and_on(void *arg)
{
    const struct shared *shared = arg;
    stead *s;
    CHILD(stead_open(&s, path_in("s"), &(stead_options){.sharing = STEAD_LIVE, .flags = STEAD_ACCEPT_UNCLEAN}) == 0);
    for (unsigned i = shared->from;; i++) {
        CHILD(stead_bind(s, name_of(i), stead_root(s)) == 0);
        *shared->done = i + 1;
    }
}

Test(names, a_live_writer_killed_at_any_instant_loses_no_name)
{
    stead *s;
    void *root;
    unsigned seed = (unsigned)test_seed();
    struct shared shared = {.done = shared_words(1)};
    OK(stead_open(&s, path_in("s"), &(stead_options){.sharing = STEAD_LIVE}));
    OK(stead_root_once(s, 16, NULL, NULL, &root));
    for (unsigned round = 0; round < (test_long() ? 400u : 25u); round++) {
        uint32_t before = *shared.done;
        shared.from = before + 1; /* the one in flight is there or not */
        pid_t pid = spawn(bind_on_and_on, &shared);
        cr_assert(await(shared.done, before + 2));
        usleep((unsigned)rand_r(&seed) % 3000);
        kill(pid, SIGKILL);
        cr_assert_eq(reap(pid), 128 + SIGKILL);
        int rc = stead_lock(s, STEAD_EXCLUSIVE, -1);
        if (rc == EOWNERDEAD)
            rc = stead_make_consistent(s);
        OK(rc);
        stead_report report;
        rc = stead_check(s, &report);
        cr_assert_eq(rc, 0, "%s", report.first_problem);
        for (unsigned i = before + 2; i < *shared.done; i++)
            cr_assert_eq(stead_lookup(s, name_of(i)), root, "%s", name_of(i));
        OK(stead_unlock(s));
    }
    cr_assert_leq(most_steps(s), STEPS_MAX);
    OK(stead_close(s));
}
