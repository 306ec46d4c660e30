/*
 * ref.c -- references that are valid at any address.
 *
 *   ref FILE
 *
 * Plain pointers need the store at its own address.  A backup has its original's address, so a process that wants both
 * at once must read one of them somewhere else: there STEAD_REF, a self-relative reference, still leads on.
 */
#include <stead.h>

#include <stdio.h>

struct item {
    STEAD_REF(struct item) next;
    long value;
};

struct list {
    STEAD_REF(struct item) first;
};

static long list_sum(const struct list *list)
{
    long sum = 0;
    for (const struct item *item = stead_ref_get(&list->first); item != NULL; item = stead_ref_get(&item->next))
        sum += item->value;
    return sum;
}

static int list_push(stead *s, struct list *list, long value)
{
    struct item *item = stead_new(s, struct item);
    if (item == NULL)
        return -1;
    item->value = value;
    stead_ref_set(&item->next, stead_ref_get(&list->first));
    stead_ref_set(&list->first, item);
    return 0;
}

static int fail(void)
{
    fprintf(stderr, "ref: %s\n", stead_last_error_text());
    return 1;
}

int main(int argc, char **argv)
{
    char copy_path[4096];
    if (argc != 2 || snprintf(copy_path, sizeof copy_path, "%s.copy", argv[1]) >= (int)sizeof copy_path) {
        fprintf(stderr, "usage: ref FILE\n");
        return 2;
    }
    stead *s, *copy;
    void *root;
    if (stead_open(&s, argv[1], NULL) != 0 || stead_root_once(s, sizeof(struct list), NULL, NULL, &root) != 0)
        return fail();
    for (long value = 1; value <= 100; value++)
        if (list_push(s, root, value) != 0)
            return fail();
    if (stead_commit(s, STEAD_DURABLE) != 0 || stead_backup(s, copy_path) != 0)
        return fail();

    stead_options anywhere = {.flags = STEAD_READ_ONLY | STEAD_ANY_ADDRESS | STEAD_EXISTING};
    if (stead_open(&copy, copy_path, &anywhere) != 0)
        return fail();
    const struct list *there = stead_root(copy);
    printf("%s address, sums %ld and %ld\n", there == root ? "the same" : "another", list_sum(root), list_sum(there));
    bool fine = there != root && list_sum(root) == list_sum(there);
    return stead_close(copy) == 0 && stead_remove(copy_path) == 0 && stead_close(s) == 0 && fine ? 0 : 1;
}
