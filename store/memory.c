/*
 * memory.c -- stead_malloc and its family: the gate, then straight into the heap.
 *
 * The fast paths are the heap's own, inline.  They ask one thing: is this the handle, or an address, of the store that this
 * thread used last, and may it write there at any time?  What they do not do is asked again from the start: handle or pointer
 * to store, the store's gate (0 in SOLE and LIVE), the heap.
 */
#include <errno.h>

#include "alloc/fast.h"
#include "store/call.h"
#include "store/page.h"

static __attribute__((noinline)) bool may_write(struct stead *s)
{
    int rc = store_may_write(s);
    if (rc != 0)
        errno = rc;
    return rc == 0;
}

/* The heap does not know the file. */
static __attribute__((noinline)) void *not_allocated(const struct stead *s)
{
    (void)error_about(error_last(), s->file.path);
    return NULL;
}

static inline bool may_allocate(struct stead *s)
{
    return LIKELY(s != NULL && atomic_load_explicit(&s->gate, memory_order_relaxed) == 0) || may_write(s);
}

static __attribute__((noinline)) void *malloc_slowly(struct stead *s, size_t size)
{
    if (!may_allocate(s))
        return NULL;
    void *block = heap_malloc(s->heap, size);
    return block != NULL ? block : not_allocated(s);
}

void *stead_malloc(stead *store, size_t size)
{
    void *block = heap_malloc_by(store, size);
    return LIKELY(block != NULL) ? block : malloc_slowly(store, size);
}

void *stead_calloc(stead *store, size_t n, size_t size)
{
    if (!may_allocate(store))
        return NULL;
    void *block = heap_calloc(store->heap, n, size);
    return block != NULL ? block : not_allocated(store);
}

void *stead_realloc(stead *store, void *block, size_t size)
{
    if (!may_allocate(store))
        return NULL;
    if (store->sharing == STEAD_LIVE)
        store_follow(store); /* the block may be where another process extended the image */
    block = heap_realloc(store->heap, block, size == 0 ? 1 : size);
    return block != NULL ? block : not_allocated(store);
}

void *stead_aligned_alloc(stead *store, size_t alignment, size_t size)
{
    if (!may_allocate(store))
        return NULL;
    void *block = heap_aligned_alloc(store->heap, alignment, size);
    return block != NULL ? block : not_allocated(store);
}

/* Everything but a free of a small block of a slab that this process's threads own, in a store that it may write; keeps
 * errno. */
static __attribute__((noinline)) void free_slowly(void *block)
{
    struct stead *s = registry_find(block);
    int saved_errno = errno;
    if (s == NULL) {
        if (block != NULL)
            error_set(STEAD_WRONG_POINTER, "stead_free: %p lies in no open store", block);
    } else if (may_allocate(s)) {
        store_follow(s);                    /* LIVE: it may lie where another process extended the image */
        int rc = heap_free(s->heap, block); /* counts what it refuses */
        (void)error_about(rc, s->file.path);
    }
    errno = saved_errno;
}

/* Not of a slab of this thread: perhaps of another one's.  Every call of stead_free() is its last act, so that it saves no
 * register. */
static __attribute__((noinline)) void free_others(void *block)
{
    if (!heap_free_remote_by(block))
        free_slowly(block);
}

void stead_free(void *block)
{
    if (UNLIKELY(!heap_free_by(block)))
        free_others(block);
}

size_t stead_usable_size(const void *block)
{
    struct stead *s = block == NULL ? NULL : registry_find(block);
    if (s == NULL || store_enter(s) != 0)
        return 0;
    if ((uintptr_t)block - (uintptr_t)s->base >= image_bytes(s->image))
        store_follow(s);
    return heap_usable_size(s->heap, block);
}

stead *stead_of(const void *p)
{
    return registry_find(p);
}

struct block_visit {
    struct stead *store;
    const void *layout; /* names_layout_block(): looked for once */
    int (*visit)(void *block, size_t usable, void *arg);
    void *arg;
};

static int visit_block(void *block, size_t usable, void *arg)
{
    const struct block_visit *to = arg;
    return names_own(to->store, block, usable, to->layout) ? 0 : to->visit(block, usable, to->arg);
}

int stead_each_block(stead *store, int (*visit)(void *block, size_t usable, void *arg), void *arg)
{
    STORE_CALL(store);
    struct block_visit to = {.store = store, .visit = visit, .arg = arg};
    int rc = store_enter_with(store, visit != NULL, "visit");
    if (rc == 0)
        rc = store_lock_to_look(store, DEADLINE_NEVER);
    if (rc != 0)
        return rc;
    to.layout = names_layout_block(store);
    rc = heap_each_block(store->heap, visit_block, &to);
    store_unlock_quietly(store);
    return rc;
}

int stead_pin(stead *store)
{
    STORE_CALL(store);
    int rc = store_enter(store);
    return rc != 0 ? rc : error_about(image_pin(store->image, image_bytes(store->image)), store->file.path);
}

int stead_unpin(stead *store)
{
    STORE_CALL(store);
    int rc = store_enter(store);
    return rc != 0 ? rc : error_about(image_unpin(store->image), store->file.path);
}
