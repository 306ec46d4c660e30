/*
 * pointer_tree.h -- the unbalanced binary tree that stead and malloc carry alike: plain pointers, no balance, no lock
 * and no allocator of its own, so that these two are all that differs between peers.
 *
 * The walk is written so that the processor need not guess: both children are loaded and asked for before the comparison is
 * done, and the comparison picks one of two pointers in registers instead of one of two branches, of which every other one
 * would be mispredicted.  A node is as dense as plain pointers allow, 24 bytes: what is denser misses the cache less.
 * The tree, its shape and its order of visits are tstshmem's; all peers that carry it run this same code.
 *
 *   T1  in-order keys never decrease: left < node <= right
 *   T2  count == number of nodes; sum == sum of their keys mod 2^64
 */
#ifndef BENCH_POINTER_TREE_H
#define BENCH_POINTER_TREE_H

#include <stdbool.h>
#include <stdint.h>

struct tree_node {
    struct tree_node *left, *right;
    uint64_t key;
};

struct tree_root {
    struct tree_node *top;
    uint64_t count, sum;
};

void tree_link(struct tree_root *root, struct tree_node *node, uint64_t key);
struct tree_node *tree_find(const struct tree_root *root, uint64_t key);
/* Takes one node with this key out of the tree; the caller frees it.  NULL: no such key. */
struct tree_node *tree_unlink(struct tree_root *root, uint64_t key);
/* Takes any one node out, cheaply; NULL: the tree is empty. */
struct tree_node *tree_unlink_any(struct tree_root *root);

/*
 * Verifies T1 and T2 without recursion and without trusting a pointer: every node must lie in [low, high) and be
 * aligned, and the walk stops after as many nodes as that range could hold.  *count, *sum: what was found.  0, EUCLEAN
 * (*wrong: what), ENOMEM.
 */
int tree_verify(const struct tree_root *root, const void *low, const void *high, uint64_t *count, uint64_t *sum,
                const char **wrong);

/* tstshmem's sequence: r = r * 397204094 mod 2^32 mod 2147483647, from the worker's number (1 and up). */
static inline uint32_t tree_next_key(uint32_t r)
{
    return (uint32_t)(r * UINT32_C(397204094)) % UINT32_C(2147483647);
}

#endif
