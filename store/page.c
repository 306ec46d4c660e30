/*
 * page.c -- the root object, in the first page of the image.
 *
 * Invariants (docs/invariants.d/store.md):
 *   R1  page.magic == PAGE_MAGIC
 *   R2  root is 0 or lies in [HEAP_RESERVED_BYTES, used)
 *
 * Every change is one 8-byte store, so a process killed in LIVE leaves the old root or the new one.
 */
#include "store/call.h"
#include "store/page.h"

#include <errno.h>
#include <string.h>

void page_format(void *page)
{
    struct store_page *fresh = page;
    memset(fresh, 0, sizeof *fresh);
    fresh->magic = PAGE_MAGIC;
}

uint64_t page_offset_of(const struct stead *s, const void *p)
{
    uint64_t offset = (uint64_t)((uintptr_t)p - (uintptr_t)s->base);
    if (offset < HEAP_RESERVED_BYTES || offset >= image_bytes(s->image))
        return 0;
    return offset;
}

void *page_pointer(const struct stead *s, uint64_t offset)
{
    if (offset < HEAP_RESERVED_BYTES || offset >= image_bytes(s->image))
        return NULL;
    return s->base + offset;
}

int page_verify(const struct stead *s)
{
    if (image_bytes(s->image) < HEAP_INITIAL_BYTES || page_of(s)->magic != PAGE_MAGIC)
        return error_set(STEAD_CORRUPT, "%s: R1: the first page of the image is not a store page", s->file.path);
    return 0;
}

uint64_t page_root(const struct stead *s)
{
    return atomic_load_explicit(&page_of(s)->root, memory_order_acquire);
}

void *stead_root(const stead *store)
{
    int rc = store_enter(store);
    if (rc != 0) {
        errno = rc;
        return NULL;
    }
    store_follow((struct stead *)(uintptr_t)store);
    uint64_t root = page_root(store);
    void *object = root == 0 ? NULL : page_pointer(store, root);
    if (root != 0 && object == NULL) { /* a reader between two sections: the file grew since it followed */
        NOT_CANCELLED;
        (void)image_follow(store->image);
        object = page_pointer(store, root);
    }
    errno = 0;
    if (root != 0 && object == NULL) {
        error_set(STEAD_CORRUPT, "%s: R2: the root lies outside the image", store->file.path);
        errno = EUCLEAN;
    }
    return object;
}

/* May this thread change the image at all? */
int store_may_write(const struct stead *s)
{
    int rc = store_enter(s);
    if (rc != 0)
        return rc;
    if (s->read_only)
        return error_set(EPERM, "%s is open read-only", s->file.path);
    if (s->sharing == STEAD_TURNS && !store_holds_exclusive(s))
        return error_set(EPERM, "%s is open in TURNS: changes are made inside an exclusive section only", s->file.path);
    return 0;
}

int stead_set_root(stead *store, void *object)
{
    int rc = store_may_write(store);
    if (rc != 0)
        return rc;
    store_follow(store);
    uint64_t root = object == NULL ? 0 : page_offset_of(store, object);
    if (object != NULL && root == 0)
        return error_set(EINVAL, "%s: the root must be an object of this store", store->file.path);
    atomic_store_explicit(&page_of(store)->root, root, memory_order_release);
    store_note_change(store);
    return 0;
}

/* The store lock is held exclusively; no root yet. */
static int make_root(stead *store, size_t size, void (*init)(void *root, void *arg), void *arg, void **root)
{
    if (store->making_root)
        return error_set(EDEADLK, "%s: stead_root_once was called from its own init", store->file.path);
    void *object = stead_calloc(store, 1, size == 0 ? 1 : size);
    if (object == NULL)
        return errno; /* its sentence is there */
    store->making_root = true;
    if (init != NULL)
        init(object, arg);
    store->making_root = false;
    int rc = stead_set_root(store, object);
    if (rc == 0)
        rc = stead_commit(store, STEAD_DURABLE);
    if (rc == 0) {
        *root = object;
        return 0;
    }
    /* Not durable, so it must not be seen.  What else is pending stays as it was. */
    (void)stead_set_root(store, NULL);
    stead_free(object);
    return rc;
}

int stead_root_once(stead *store, size_t size, void (*init)(void *root, void *arg), void *arg, void **root)
{
    STORE_CALL(store);
    void *unused;
    if (root == NULL)
        root = &unused;
    *root = NULL;
    int rc = store_enter(store);
    if (rc != 0)
        return rc;
    rc = store->read_only ? store_lock_shared(store, DEADLINE_NEVER) : store_lock_exclusive(store, DEADLINE_NEVER);
    if (rc != 0)
        return rc;
    *root = stead_root(store);
    if (*root == NULL && errno != 0)
        rc = STEAD_CORRUPT;
    else if (*root == NULL && store->read_only)
        rc = error_set(EPERM, "%s has no root and is open read-only", store->file.path);
    else if (*root == NULL)
        rc = make_root(store, size, init, arg, root);
    store_unlock_quietly(store); /* the commit was made inside */
    return rc;
}
