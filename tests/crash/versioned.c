/* versioned.c -- see versioned.h. */
#include "tests/crash/versioned.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

struct versioned_root {
    uint64_t version;
    uint64_t stamp[VERSIONED_SLOTS]; /* version that changed the slot last; 0 = never */
    uint64_t *slot[VERSIONED_SLOTS];
};

static uint64_t mix(uint64_t a, uint64_t b)
{
    uint64_t x = (a + 1) * UINT64_C(0x9e3779b97f4a7c15) ^ (b + 7) * UINT64_C(0xd1342543de82ef95);
    x = (x ^ (x >> 29)) * UINT64_C(0xbf58476d1ce4e5b9);
    return x ^ (x >> 32);
}

static bool changes(unsigned slot, uint64_t v)
{
    return v % VERSIONED_SLOTS == slot || mix(slot, v) % 5 == 0;
}

/* Words of the block: mostly a few hundred bytes, some pages, now and then enough to make the file grow. */
static uint64_t words(unsigned slot, uint64_t v)
{
    uint64_t draw = mix(slot + 1000, v);
    return draw % 16 == 0 ? 2000 + draw / 16 % 12000 : draw % 4 == 0 ? 400 + draw / 16 % 900 : 2 + draw / 16 % 80;
}

int versioned_make(stead *store)
{
    struct versioned_root *root = stead_calloc(store, 1, sizeof *root);
    return root == NULL ? errno : stead_set_root(store, root);
}

int versioned_step(stead *store, uint64_t v)
{
    struct versioned_root *root = stead_root(store);
    if (root == NULL || root->version + 1 != v)
        return EUCLEAN;
    for (unsigned s = 0; s < VERSIONED_SLOTS; s++) {
        if (!changes(s, v))
            continue;
        uint64_t count = words(s, v);
        uint64_t *fresh = stead_malloc(store, (size_t)count * sizeof *fresh);
        if (fresh == NULL)
            return errno;
        for (uint64_t w = 0; w < count; w++)
            fresh[w] = mix(mix(s, v), w);
        stead_free(root->slot[s]);
        root->slot[s] = fresh;
        root->stamp[s] = v;
    }
    root->version = v;
    return stead_bind(store, v % 2 == 0 ? "even" : "odd", root->slot[v % VERSIONED_SLOTS]);
}

static uint64_t last_change(unsigned slot, uint64_t v)
{
    while (v > 0 && !changes(slot, v))
        v--;
    return v;
}

int versioned_check(stead *store, uint64_t *version, void *arg)
{
    const struct versioned_root *root = stead_root(store);
    (void)arg;
    *version = 0;
    if (root == NULL)
        return 0;
    if (stead_usable_size(root) < sizeof *root)
        return EUCLEAN;
    for (unsigned s = 0; s < VERSIONED_SLOTS; s++) {
        uint64_t v = last_change(s, root->version);
        if (root->stamp[s] != v || (v == 0) != (root->slot[s] == NULL))
            return EUCLEAN;
        if (v == 0)
            continue;
        uint64_t count = words(s, v);
        if (stead_usable_size(root->slot[s]) < count * sizeof(uint64_t))
            return EUCLEAN;
        for (uint64_t w = 0; w < count; w++)
            if (root->slot[s][w] != mix(mix(s, v), w))
                return EUCLEAN;
    }
    uint64_t v = root->version;
    if (v > 0 && stead_lookup(store, v % 2 == 0 ? "even" : "odd") != root->slot[v % VERSIONED_SLOTS])
        return EUCLEAN;
    *version = v;
    return 0;
}

uint64_t versioned_now(stead *store)
{
    const struct versioned_root *root = stead_root(store);
    return root == NULL ? 0 : root->version;
}
