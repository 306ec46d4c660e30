/* number_store.h -- a store whose root is one number, for the tests that look at what a session leaves (test_late_*.c). */
#ifndef STEAD_TESTS_NUMBER_STORE_H
#define STEAD_TESTS_NUMBER_STORE_H

#include "support/support.h"

static inline int *number_of(stead *s)
{
    int *root = stead_root(s);
    cr_assert_not_null(root);
    return root;
}

static inline stead *open_it(const char *name)
{
    stead *s;
    OK(stead_open(&s, path_in(name), &(stead_options){.timeout_ms = SOON_MS}));
    return s;
}

static inline void make(const char *name, int value)
{
    void *root;
    stead *s = open_it(name);
    OK(stead_root_once(s, sizeof(int), NULL, NULL, &root));
    *(int *)root = value;
    OK(stead_close(s));
}

static inline void expect(const char *name, int value)
{
    stead *s = open_it(name);
    cr_assert_eq(*number_of(s), value, "%s: %d, not %d", name, *number_of(s), value);
    OK(stead_check(s, NULL));
    OK(stead_close(s));
}

#endif
