/*
 * upgrade.c -- the structs inside a store change from one release of a program to the next.
 *
 *   upgrade FILE 1     the first release: readings in whole degrees
 *   upgrade FILE 2     the second one: in thousandths, with a place; converts what the first one left
 *
 * The store remembers the layout's name and version.  A program of another version gets STEAD_LAYOUT_MISMATCH, or, if
 * it brings an upgrade function, a conversion inside one transaction: after a crash the old layout is still there.
 */
#include <stead.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define READINGS 5

struct station_v1 {
    int degrees[READINGS];
};

struct station_v2 {
    char place[16];
    long millidegrees[READINGS];
};

static int upgrade(stead *s, uint32_t from, uint32_t to, void *arg)
{
    (void)arg;
    if (from != 1 || to != 2)
        return STEAD_LAYOUT_MISMATCH;
    struct station_v1 *old = stead_root(s);
    struct station_v2 *fresh = stead_new(s, struct station_v2);
    if (fresh == NULL)
        return errno;
    strcpy(fresh->place, "unknown");
    for (int i = 0; i < READINGS; i++)
        fresh->millidegrees[i] = 1000L * old->degrees[i];
    int rc = stead_set_root(s, fresh);
    if (rc == 0)
        stead_free(old);
    return rc;
}

static void init_v1(void *root, void *arg)
{
    (void)arg;
    for (int i = 0; i < READINGS; i++)
        ((struct station_v1 *)root)->degrees[i] = 20 + i;
}

static void init_v2(void *root, void *arg)
{
    (void)arg;
    strcpy(((struct station_v2 *)root)->place, "new");
}

int main(int argc, char **argv)
{
    int release = argc == 3 ? atoi(argv[2]) : 0;
    if (release != 1 && release != 2) {
        fprintf(stderr, "usage: upgrade FILE 1 | upgrade FILE 2\n");
        return 2;
    }
    stead_options options = {.layout = {.name = "weather station", .version = (uint32_t)release}};
    if (release == 2)
        options.layout.upgrade = upgrade;
    stead *s;
    void *root;
    int rc = stead_open(&s, argv[1], &options);
    if (rc == 0)
        rc = release == 1 ? stead_root_once(s, sizeof(struct station_v1), init_v1, NULL, &root)
                          : stead_root_once(s, sizeof(struct station_v2), init_v2, NULL, &root);
    if (rc != 0) {
        fprintf(stderr, "upgrade: %s\n", stead_last_error_text());
        if (s != NULL)
            stead_abandon(s);
        return 1;
    }
    if (release == 1)
        printf("release 1: %d degrees\n", ((struct station_v1 *)root)->degrees[0]);
    else
        printf("release 2: %ld thousandths at %s\n", ((struct station_v2 *)root)->millidegrees[0],
               ((struct station_v2 *)root)->place);
    return stead_close(s) != 0;
}
