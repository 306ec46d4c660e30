/*
 * misuse.c -- commits one of the mistakes that memcheck must report in a stead heap as it does in malloc's, or none.
 *
 *   misuse PATH none|overrun|after-free|uninitialised|slab-end
 *
 * Built with STEAD_VALGRIND.  Ends with 0 whatever it did: the verdict is valgrind's (test_misuse.sh).
 */
#include <stdio.h>
#include <string.h>

#include "stead.h"

static int fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, stead_last_error_text());
    return 1;
}

/* What a correct program does: none of it may be reported. */
static int behave(stead *s)
{
    for (unsigned round = 0; round < 3; round++) {
        char *blocks[200];
        for (unsigned i = 0; i < 200; i++) {
            if ((blocks[i] = stead_malloc(s, 10 + i * 37)) == NULL)
                return fail("malloc");
            memset(blocks[i], (int)i, 10 + i * 37);
        }
        if (stead_commit(s, STEAD_DURABLE) != 0)
            return fail("commit");
        for (unsigned i = 0; i < 200; i += 2)
            if ((blocks[i] = stead_realloc(s, blocks[i], 30 + i * 50)) == NULL || blocks[i][9] != (char)i)
                return fail("realloc");
        for (unsigned i = round; i < 200; i++)
            stead_free(blocks[i]);
        if (stead_commit(s, STEAD_BUFFERED) != 0 || stead_check(s, NULL) != 0)
            return fail("check");
    }
    return 0;
}

int main(int argc, char **argv)
{
    stead *s;
    if (argc != 3 || stead_open(&s, argv[1], &(stead_options){.flags = STEAD_NEW, .capacity_bytes = 64u << 20}) != 0)
        return fail("open");
    const char *mistake = argv[2];
    int rc = behave(s);
    volatile char *block = stead_malloc(s, 40), *other = stead_malloc(s, 40); /* of a class of 40: side by side */
    if (strcmp(mistake, "overrun") == 0)
        block[40] = other[40] = 1; /* behind one of them nothing was handed out */
    else if (strcmp(mistake, "after-free") == 0)
        stead_free((char *)block), block[3] = 1;
    else if (strcmp(mistake, "uninitialised") == 0)
        rc |= block[5] == 7 ? puts("seven") < 0 : 0;
    else if (strcmp(mistake, "slab-end") == 0)
        block = stead_malloc(s, 100), block[101] = 1; /* the block has 112 bytes, the caller asked for 100 */
    else if (strcmp(mistake, "none") != 0)
        rc = 2;
    if (stead_close(s) != 0)
        return fail("close");
    return rc;
}
