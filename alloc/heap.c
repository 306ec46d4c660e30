/*
 * heap.c -- the face: malloc, free and realloc, but for the fast paths of the first two (fast.h).
 */
#include "alloc/heap.h"

#include <errno.h>
#include <string.h>

#include "alloc/block.h"
#include "alloc/extent.h"
#include "alloc/fast.h"
#include "alloc/gate.h"
#include "alloc/orphan.h"
#include "alloc/owner.h"

static void *fail(int code)
{
    errno = error_to_errno(code);
    return NULL;
}

static __attribute__((noinline)) void *malloc_class(struct heap *heap, unsigned class, size_t size, bool may_borrow)
{
    if (heap->kind == HEAP_READ)
        return fail(error_set(EPERM, "The store is open read-only: no block can be allocated"));
    struct owner *owner = owner_get(heap);
    if (owner == NULL)
        return fail(error_last());
    for (;;) {
        struct bin *bin = &owner->bins[class];
        void *block = slab_take_hint(owner, bin, size);
        if (block == NULL)
            block = bin_take(owner, bin, size);
        if (block != NULL)
            return block;
        int rc = slab_refill(heap, owner, &class, may_borrow);
        if (rc != 0)
            return fail(rc);
    }
}

/* Smaller ones come from growth by little, which the host makes ready itself. */
#define READY_BYTES_MIN (UINT64_C(1) << 20)

/* A block of whole pages.  zero: only what was ever handed out needs it. */
static __attribute__((noinline)) void *malloc_extent(struct heap *heap, size_t alignment, size_t size, bool zero)
{
    struct run run;
    uint64_t zero_from;
    if (heap->kind == HEAP_READ)
        return fail(error_set(EPERM, "The store is open read-only: no block can be allocated"));
    if (size > heap->capacity)
        return fail(error_set(ENOMEM, "A block of %zu bytes does not fit into a capacity of %llu", size,
                              (unsigned long long)heap->capacity));
    uint64_t pages = max_u64((size + PAGE_BYTES - 1) / PAGE_BYTES, EXTENT_PAGES_MIN);
    gate_enter(heap);
    orphans_settle(heap);
    int rc = extent_reserve(heap, RUN_EXTENT, 0, pages, max_u64(alignment, PAGE_BYTES), &run, &zero_from);
    if (rc == 0)
        extent_publish(heap, &run);
    gate_leave(heap);
    if (rc != 0)
        return fail(rc);
    uint64_t start = run.page << PAGE_SHIFT, bytes = run.pages << PAGE_SHIFT;
    if (heap->host.ready != NULL && bytes >= READY_BYTES_MIN)
        heap->host.ready(heap->host.ctx, start, bytes); /* nobody else's: a kill in it loses the block in flight */
    if (GUARD_ACTIVE && heap->guards) {
        GUARD_HIDE(heap->base + start, bytes);
        GUARD_SHOW_ZEROED(heap->base + start, size);
    }
    if (zero && start < zero_from)
        memset(heap->base + start, 0, min_u64(size, zero_from - start));
    return heap->base + start;
}

void *heap_malloc(struct heap *heap, size_t size)
{
    void *block = heap_malloc_fast(heap, size);
    if (LIKELY(block != NULL))
        return block;
    if (size <= CLASS_SMALL_MAX)
        return malloc_class(heap, class_by_8[(size + 7) / 8], size, true);
    if (size <= CLASS_BYTES_MAX)
        return malloc_class(heap, class_for_medium(size), size, true);
    return malloc_extent(heap, PAGE_BYTES, size, false);
}

void *heap_calloc(struct heap *heap, size_t n, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes))
        return fail(error_set(ENOMEM, "%zu objects of %zu bytes are more than the address space", n, size));
    if (bytes > CLASS_BYTES_MAX)
        return malloc_extent(heap, PAGE_BYTES, bytes, true);
    void *block = heap_malloc(heap, bytes);
    return block == NULL ? NULL : memset(block, 0, bytes);
}

void *heap_aligned_alloc(struct heap *heap, size_t alignment, size_t size)
{
    if (alignment == 0 || (alignment & (alignment - 1)) != 0 || alignment > HEAP_ALIGNMENT_MAX)
        return fail(error_set(EINVAL, "Alignment %zu is not a power of two up to 2 MiB", alignment));
    if (size <= CLASS_BYTES_MAX && alignment <= CLASS_BYTES_MAX) {
        unsigned class = class_for(size == 0 ? 1 : size, alignment);
        if (class != CLASS_NONE)
            return malloc_class(heap, class, size, false); /* a wider one may be aligned less */
    }
    return malloc_extent(heap, alignment, size, false);
}

static int free_other(struct heap *heap, struct owner *owner, void *p) __attribute__((noinline));

static int wrong_pointer(struct heap *heap, const void *p, int code)
{
    if (code == STEAD_CORRUPT)
        return error_set(code, "The heap is damaged: the descriptor of the block at %p is not what was written there",
                         p);
    atomic_fetch_add_explicit(&heap->bad_frees, 1, memory_order_relaxed);
    return error_set(STEAD_WRONG_POINTER,
                     "%p is not the start of a live block of the heap at %p: freed twice, inside a block, or never "
                     "allocated",
                     p, (const void *)heap->base);
}

static int free_extent(struct heap *heap, const struct block *block)
{
    struct run run;
    gate_enter(heap);
    int rc = segment_run_at(heap, block->run.slot, &run);
    if (rc == 0 && run.head != block->run.head)
        rc = STEAD_WRONG_POINTER; /* another thread was faster */
    if (rc == 0) {
        if (GUARD_ACTIVE && heap->guards)
            GUARD_HIDE(heap->base + block->offset, block->bytes);
        extent_remove(heap, &run);
    }
    gate_leave(heap);
    return rc;
}

/* Everything but a small block of the calling thread's own slab. */
static int free_other(struct heap *heap, struct owner *owner, void *p)
{
    if (heap->kind == HEAP_READ)
        return error_set(EPERM, "The store is open read-only: no block can be freed");
    struct block block;
    int rc = block_find(heap, p, &block);
    if (rc == 0 && heap->base + block.offset != (uint8_t *)p)
        rc = STEAD_WRONG_POINTER;
    if (rc == 0 && owner == NULL)
        owner = owner_get(heap); /* NULL: the block is freed as another thread's */
    if (rc == 0)
        rc = head_kind(block.run.head) == RUN_EXTENT ? free_extent(heap, &block)
                                                     : slab_free_shared(heap, owner, &block.run, block.index);
    return rc == 0 ? 0 : wrong_pointer(heap, p, rc);
}

/* The caller holds a live block in the slab, so its note does not change; where it does not, the second look at the owner
 * notices. */
static bool free_remote(struct heap *heap, const struct owner *owner, void *p)
{
    uint64_t offset = (uint64_t)((uintptr_t)p - (uintptr_t)owner->base);
    const struct note *note = &owner->notes[offset >> SLOT_SHIFT];
    uint32_t token = atomic_load_explicit(&note->owner, memory_order_acquire);
    if (UNLIKELY(token <= atomic_load_explicit(&heap->token_floor, memory_order_relaxed) || token == owner->token))
        return false;
    uint64_t product = slab_divide(note, offset);
    uint32_t index = (uint32_t)(product >> 32);
    struct descriptor *descriptor = note->descriptor;
    if (UNLIKELY((uint32_t)product >= note->inverse || index >= note->capacity ||
                 atomic_load_explicit(&descriptor->head, memory_order_relaxed) != note->head ||
                 atomic_load_explicit(&note->owner, memory_order_acquire) != token))
        return false;
    return slab_free_bit(heap, descriptor, p, note->bytes, index) == 0;
}

bool heap_free_remote_by(void *p)
{
    const struct owner *owner = owner_last.owner;
    uint64_t offset = (uint64_t)((uintptr_t)p - (uintptr_t)owner->base);
    return offset < atomic_load_explicit(&owner->span, memory_order_relaxed) && free_remote(owner->heap, owner, p);
}

static bool is_inside(const struct heap *heap, const void *p)
{
    return (uint64_t)((uintptr_t)p - (uintptr_t)heap->base) < heap->capacity;
}

/* Whatever heap_free_fast() did not do, for whichever reason; keeps errno, as free(3) does. */
static __attribute__((noinline)) int free_slowly(struct heap *heap, void *p)
{
    int saved_errno = errno;
    struct owner *owner = owner_known(heap); /* perhaps this thread used another heap last */
    bool done = owner != NULL && is_inside(heap, p) && (heap_free_fast(heap, p) || free_remote(heap, owner, p));
    int rc = done ? 0 : free_other(heap, owner, p);
    errno = saved_errno;
    return rc;
}

int heap_free(struct heap *heap, void *p)
{
    return LIKELY(is_inside(heap, p) && heap_free_fast(heap, p)) ? 0 : free_slowly(heap, p);
}

/* True if the block could be made to hold size bytes where it is. */
static bool resize_in_place(struct heap *heap, struct block *block, size_t size)
{
    if (head_kind(block->run.head) == RUN_SLAB)
        return size <= block->bytes && (size >= block->bytes / 2 || block->bytes <= 64);
    if (size <= CLASS_BYTES_MAX || size > heap->capacity)
        return false;
    uint64_t pages = (size + PAGE_BYTES - 1) / PAGE_BYTES;
    if (pages == block->run.pages)
        return true;
    struct run run;
    gate_enter(heap);
    bool done = segment_run_at(heap, block->run.slot, &run) == 0 && run.head == block->run.head &&
                extent_resize(heap, &run, pages);
    gate_leave(heap);
    return done || (pages < block->run.pages && pages >= block->run.pages / 2);
}

void *heap_realloc(struct heap *heap, void *p, size_t size)
{
    if (p == NULL)
        return heap_malloc(heap, size);
    if (heap->kind == HEAP_READ)
        return fail(error_set(EPERM, "The store is open read-only: no block can be resized"));
    struct block block;
    int rc = block_find(heap, p, &block);
    if (rc == 0 && (heap->base + block.offset != (uint8_t *)p || !block_is_live(&block)))
        rc = STEAD_WRONG_POINTER;
    if (rc != 0)
        return fail(wrong_pointer(heap, p, rc));
    size = size == 0 ? 1 : size;
    if (resize_in_place(heap, &block, size)) {
        if (GUARD_ACTIVE && heap->guards)
            GUARD_SHOW_ZEROED(p, size);
        return p;
    }
    void *moved = heap_malloc(heap, size);
    if (moved == NULL)
        return NULL;
    if (GUARD_ACTIVE && heap->guards)
        GUARD_SHOW_ZEROED(p, block.bytes);
    memcpy(moved, p, min_u64(size, block.bytes));
    (void)heap_free(heap, p); /* it was live a moment ago; if another thread freed it meanwhile, so be it */
    return moved;
}
