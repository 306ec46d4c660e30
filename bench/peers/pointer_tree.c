/* pointer_tree.c -- see pointer_tree.h. */
#include "bench/peers/pointer_tree.h"

#include <errno.h>
#include <stdlib.h>

/* Where to go on from node: both children are loaded beside the key, so that what waits for the comparison is a choice
 * between two registers and no further load.  Prefetching an address that is none (NULL) does nothing. */
static inline struct tree_node *next_of(const struct tree_node *node, uint64_t key)
{
    struct tree_node *left = node->left, *right = node->right;
    __builtin_prefetch(left);
    __builtin_prefetch(right);
    return key < node->key ? left : right;
}

/* One store makes the node reachable: whoever dies before it leaves the old tree, after it the new one (T1 holds at
 * every instant; T2 is repaired by recounting). */
void tree_link(struct tree_root *root, struct tree_node *node, uint64_t key)
{
    struct tree_node *parent = NULL;
    node->left = node->right = NULL;
    node->key = key;
    for (struct tree_node *at = root->top; at != NULL; at = next_of(at, key))
        parent = at;
    *(parent == NULL ? &root->top : key < parent->key ? &parent->left : &parent->right) = node;
    root->count++;
    root->sum += key;
}

struct tree_node *tree_find(const struct tree_root *root, uint64_t key)
{
    struct tree_node *node = root->top;
    while (node != NULL && node->key != key)
        node = next_of(node, key);
    return node;
}

/* Takes *at out: a node with two children is replaced by the leftmost of its right subtree. */
static struct tree_node *unlink_at(struct tree_root *root, struct tree_node **at)
{
    struct tree_node *node = *at;
    if (node->left == NULL) {
        *at = node->right;
    } else if (node->right == NULL) {
        *at = node->left;
    } else {
        struct tree_node **heir_at = &node->right;
        while ((*heir_at)->left != NULL)
            heir_at = &(*heir_at)->left;
        struct tree_node *heir = *heir_at;
        *heir_at = heir->right;
        heir->left = node->left;
        heir->right = node->right;
        *at = heir;
    }
    root->count--;
    root->sum -= node->key;
    return node;
}

struct tree_node *tree_unlink(struct tree_root *root, uint64_t key)
{
    struct tree_node *parent = NULL, *node = root->top;
    while (node != NULL && node->key != key) {
        parent = node;
        node = next_of(node, key);
    }
    if (node == NULL)
        return NULL;
    return unlink_at(root, parent == NULL ? &root->top : node == parent->left ? &parent->left : &parent->right);
}

struct tree_node *tree_unlink_any(struct tree_root *root)
{
    return root->top == NULL ? NULL : unlink_at(root, &root->top);
}

struct walk {
    const struct tree_node **stack;
    size_t depth, room;
    uintptr_t low, high;
};

static int walk_push(struct walk *walk, const struct tree_node *node)
{
    uintptr_t address = (uintptr_t)node;
    if (address < walk->low || address > walk->high - sizeof *node || address % _Alignof(struct tree_node) != 0)
        return EUCLEAN;
    if (walk->depth == walk->room) {
        size_t room = walk->room == 0 ? 256 : walk->room * 2;
        const struct tree_node **stack = realloc(walk->stack, room * sizeof *stack);
        if (stack == NULL)
            return ENOMEM;
        walk->stack = stack;
        walk->room = room;
    }
    walk->stack[walk->depth++] = node;
    return 0;
}

int tree_verify(const struct tree_root *root, const void *low, const void *high, uint64_t *count, uint64_t *sum,
                const char **wrong)
{
    struct walk walk = {.low = (uintptr_t)low, .high = (uintptr_t)high};
    const uint64_t limit = (walk.high - walk.low) / sizeof(struct tree_node);
    const struct tree_node *node = root->top;
    uint64_t last = 0;
    int rc = 0;
    *count = *sum = 0;
    *wrong = "nothing";
    while (rc == 0 && (node != NULL || walk.depth > 0)) {
        if (node != NULL) { /* down to the left; a cycle of left pointers ends at the limit too */
            *wrong = "a pointer leaves the heap";
            rc = walk.depth > limit ? EUCLEAN : walk_push(&walk, node);
            if (rc == 0)
                node = node->left;
            continue;
        }
        node = walk.stack[--walk.depth];
        if (node->key < last || ++*count > limit) {
            *wrong = "T1: keys are out of order";
            rc = EUCLEAN;
        }
        last = node->key;
        *sum += node->key;
        node = node->right;
    }
    free(walk.stack);
    if (rc == 0 && (*count != root->count || *sum != root->sum)) {
        *wrong = "T2: count or sum of the keys is wrong";
        rc = EUCLEAN;
    }
    return rc;
}
