/* An open that fails after all the work was done leaves the process and the folder as they were. */
#include <dirent.h>
#include <errno.h>
#include <sys/resource.h>
#include <unistd.h>

#include "support/support.h"

TestSuite(undone, .init = support_setup, .fini = support_teardown, .timeout = 300);

#if !defined(__SANITIZE_THREAD__) /* which leaves no room for so many addresses */
static unsigned entries(const char *folder)
{
    unsigned count = 0;
    DIR *listing = opendir(folder);
    cr_assert_not_null(listing);
    while (readdir(listing) != NULL)
        count++;
    closedir(listing);
    return count;
}

enum { STORES_MAX = 1024 };

static stead *open_section(unsigned i)
{
    stead *s;
    char name[48];
    stead_options options = {.sharing = STEAD_LIVE, .capacity_bytes = 1u << 20};
    options.address = (void *)(uintptr_t)(UINT64_C(0x200000000000) + i * UINT64_C(0x1000000));
    (void)snprintf(name, sizeof name, "shm:undone-%d-%u", (int)getpid(), i);
    OK(stead_open(&s, name, &options));
    OK(stead_remove(name)); /* lives on until it is closed */
    return s;
}

/* The last step of an open is the place in the list that stead_free looks in. */
Test(undone, one_store_more_than_a_process_can_have_is_not_made)
{
    static stead *open[STORES_MAX];
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    if (files.rlim_max < 2 * STORES_MAX) {
        cr_skip_test("no more than %lu descriptors are allowed here", (unsigned long)files.rlim_max);
        return;
    }
    stead *s;
    stead_options options = {.capacity_bytes = 1u << 20, .permissions = 0640};
    OK(stead_open(&s, path_in("old"), &options));
    OK(stead_set_root(s, stead_malloc(s, 16)));
    void *root = stead_root(s);
    OK(stead_close(s));
    for (unsigned i = 0; i < STORES_MAX; i++)
        open[i] = open_section(i);

    unsigned before = entries(support_folder()), descriptors = entries("/proc/self/fd");
    for (unsigned sharing = STEAD_SOLE; sharing <= STEAD_LIVE; sharing++) {
        options.sharing = (stead_sharing)sharing;
        FAILS(stead_open(&s, path_in("new"), &options), EMFILE);
        cr_assert_null(s);
        FAILS(stead_open(&s, path_in("old"), &options), EMFILE);
        cr_assert_eq(entries(support_folder()), before, "the store or its log was left behind");
        cr_assert_eq(entries("/proc/self/fd"), descriptors);
    }
    OK(stead_close(open[0]));
    OK(stead_open(&s, path_in("old"), NULL));
    cr_assert_eq(stead_root(s), root);
    OK(stead_check(s, NULL));
    OK(stead_close(s));
    for (unsigned i = 1; i < STORES_MAX; i++)
        OK(stead_close(open[i]));
}
#endif
