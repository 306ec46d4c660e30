/* consumer.c -- the smallest user of the installed library; also compiled as C++. */
#include <stead.h>

#include <stdio.h>

struct item {
    STEAD_REF(struct item) next;
    int value;
};

int main(int argc, char **argv)
{
    stead *s;
    void *root;
    if (argc != 2 || stead_open(&s, argv[1], NULL) != 0 || stead_root_once(s, sizeof(int), NULL, NULL, &root) != 0) {
        fprintf(stderr, "consumer: %s\n", stead_last_error_text());
        return 1;
    }
    STEAD_LOCKED(s, STEAD_EXCLUSIVE)
    {
        *(int *)root += 1;
    }
    struct item *item = stead_new(s, struct item);
    if (item == NULL)
        return 1;
    stead_ref_set(&item->next, item);
    if (stead_ref_get(&item->next) != item)
        return 1;
    stead_free(item);
    printf("run %d\n", *(int *)root);
    return stead_close(s) != 0;
}
