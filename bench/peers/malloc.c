/*
 * malloc.c -- the tree on volatile memory: the C library's malloc under a pthread lock.
 *
 *   malloc+rwlock           the lock taken once: what a program without persistence would do
 *   malloc+rwlock-nested    the shared lock taken twice; the exclusive one once, because POSIX forbids it nested
 *   malloc+recmutex-nested  a recursive mutex taken twice by everybody: nesting the only way pthreads have it
 */
#include "bench/peers/peer.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "bench/peers/pointer_tree.h"

struct malloc_tree {
    struct tree_root root;
    _Alignas(64) pthread_rwlock_t rwlock;
    _Alignas(64) pthread_mutex_t mutex; /* recursive */
};

static int malloc_close(void *handle)
{
    struct malloc_tree *tree = handle;
    struct tree_node *node;
    while ((node = tree_unlink_any(&tree->root)) != NULL)
        free(node);
    pthread_rwlock_destroy(&tree->rwlock);
    pthread_mutex_destroy(&tree->mutex);
    free(tree);
    return 0;
}

static int malloc_open(void **handle, const struct tree_peer *peer, const char *path)
{
    (void)peer, (void)path;
    struct malloc_tree *tree = aligned_alloc(64, sizeof *tree);
    if (tree == NULL)
        return ENOMEM;
    tree->root = (struct tree_root){0};
    pthread_mutexattr_t recursive;
    pthread_mutexattr_init(&recursive);
    pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
    int rc = pthread_mutex_init(&tree->mutex, &recursive);
    if (rc == 0)
        rc = pthread_rwlock_init(&tree->rwlock, NULL);
    pthread_mutexattr_destroy(&recursive);
    if (rc != 0) {
        free(tree);
        return rc;
    }
    *handle = tree;
    return 0;
}

static int malloc_thread_begin(void **thread, void *handle)
{
    *thread = handle;
    return 0;
}

static void malloc_thread_end(void *thread)
{
    (void)thread;
}

static int do_insert(struct malloc_tree *tree, uint64_t key)
{
    struct tree_node *node = malloc(sizeof *node);
    if (node == NULL)
        return ENOMEM;
    tree_link(&tree->root, node, key);
    return 0;
}

static int do_remove(struct malloc_tree *tree, uint64_t key)
{
    struct tree_node *node = tree_unlink(&tree->root, key);
    free(node);
    return node == NULL ? ENOENT : 0;
}

static int do_search(struct malloc_tree *tree, uint64_t key)
{
    return tree_find(&tree->root, key) == NULL ? ENOENT : 0;
}

static int rwlock_insert(void *thread, uint64_t key)
{
    struct malloc_tree *tree = thread;
    pthread_rwlock_wrlock(&tree->rwlock);
    int rc = do_insert(tree, key);
    pthread_rwlock_unlock(&tree->rwlock);
    return rc;
}

static int rwlock_remove(void *thread, uint64_t key)
{
    struct malloc_tree *tree = thread;
    pthread_rwlock_wrlock(&tree->rwlock);
    int rc = do_remove(tree, key);
    pthread_rwlock_unlock(&tree->rwlock);
    return rc;
}

static int rwlock_search(void *thread, uint64_t key)
{
    struct malloc_tree *tree = thread;
    pthread_rwlock_rdlock(&tree->rwlock);
    int rc = do_search(tree, key);
    pthread_rwlock_unlock(&tree->rwlock);
    return rc;
}

static int rwlock_search_nested(void *thread, uint64_t key)
{
    struct malloc_tree *tree = thread;
    pthread_rwlock_rdlock(&tree->rwlock);
    int rc = rwlock_search(tree, key);
    pthread_rwlock_unlock(&tree->rwlock);
    return rc;
}

static int mutex_do(struct malloc_tree *tree, uint64_t key, int (*what)(struct malloc_tree *, uint64_t))
{
    pthread_mutex_lock(&tree->mutex);
    pthread_mutex_lock(&tree->mutex);
    int rc = what(tree, key);
    pthread_mutex_unlock(&tree->mutex);
    pthread_mutex_unlock(&tree->mutex);
    return rc;
}

static int mutex_insert(void *thread, uint64_t key)
{
    return mutex_do(thread, key, do_insert);
}

static int mutex_remove(void *thread, uint64_t key)
{
    return mutex_do(thread, key, do_remove);
}

static int mutex_search(void *thread, uint64_t key)
{
    return mutex_do(thread, key, do_search);
}

static int malloc_check(void *handle, uint64_t *keys)
{
    struct malloc_tree *tree = handle;
    const char *wrong;
    uint64_t sum;
    return tree_verify(&tree->root, (void *)sizeof(void *), (void *)(UINTPTR_MAX >> 1), keys, &sum, &wrong);
}

#define MALLOC_TREE \
    .open = malloc_open, .thread_begin = malloc_thread_begin, .thread_end = malloc_thread_end, .check = malloc_check, \
    .close = malloc_close

const struct tree_peer tree_malloc_rwlock = {
    .name = "malloc+rwlock", MALLOC_TREE, .insert = rwlock_insert, .search = rwlock_search, .remove = rwlock_remove};
const struct tree_peer tree_malloc_rwlock_nested = {.name = "malloc+rwlock-nested",
                                                    MALLOC_TREE,
                                                    .insert = rwlock_insert,
                                                    .search = rwlock_search_nested,
                                                    .remove = rwlock_remove,
                                                    .remark = "nested only where shared"};
const struct tree_peer tree_malloc_recmutex_nested = {.name = "malloc+recmutex-nested",
                                                      MALLOC_TREE,
                                                      .insert = mutex_insert,
                                                      .search = mutex_search,
                                                      .remove = mutex_remove};
