/*
 * attach.c -- a heap's birth, and a process's coming and going.
 *
 * Attaching proves the fixed part (A1) and believes nothing else: every other page of the image is looked at when it
 * is needed.  So it costs the same for any size.  The one exception is a LIVE holder's intent that nobody settled:
 * then the segments of one run are settled here.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>

#include "alloc/block.h"
#include "alloc/extent.h"
#include "alloc/gate.h"
#include "alloc/owner.h"

void heap_format(void *image, uint64_t capacity)
{
    (void)capacity; /* may be raised later: nothing of the saved state depends on it */
    struct header *header = (struct header *)(void *)((uint8_t *)image + HEAP_RESERVED_BYTES);
    struct heap_root *root = &header->root;
    uint64_t secret;
    if (getrandom(&secret, sizeof secret, GRND_NONBLOCK) != sizeof secret) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        secret = layout_mix((uint64_t)now.tv_nsec ^ (uint64_t)now.tv_sec << 30 ^ (uint64_t)(uintptr_t)&now);
    }
    root->magic = ROOT_MAGIC;
    root->version = ROOT_VERSION;
    root->secret = secret;
    root->check = root_check(secret);
    pages_mark(header->segment.busy, 0, UNIT_PAGES, true);
    header->segment.seal = segment_seal(secret, 0, 0);
    atomic_store(&header->table[0], entry_make(SEGMENT_PRESENT, 0, SEGMENT_PAGES - UNIT_PAGES, true));
    atomic_store(&root->segments, 1);
    atomic_store(&root->top_pages, UNIT_PAGES);
    atomic_store(&root->fresh_bytes, HEAP_INITIAL_BYTES);
}

/* A1, and A2 of segment 0. */
static int root_verify(const uint8_t *base, uint64_t used)
{
    if (used < HEAP_INITIAL_BYTES)
        return error_set(STEAD_CORRUPT, "The heap is damaged: it is %llu bytes long, less than one unit",
                         (unsigned long long)used);
    const struct header *header = (const struct header *)(const void *)(base + HEAP_RESERVED_BYTES);
    const struct heap_root *root = &header->root;
    if (root->magic != ROOT_MAGIC || root->check != root_check(root->secret))
        return error_set(STEAD_CORRUPT, "The heap is damaged: its root at offset 0x%zx is not one",
                         (size_t)HEAP_RESERVED_BYTES + offsetof(struct header, root));
    if (root->version != ROOT_VERSION)
        return error_set(STEAD_VERSION, "The heap has version %u; this build reads version %u", root->version,
                         ROOT_VERSION);
    uint32_t entry = atomic_load(&header->table[0]);
    if (header->segment.seal != segment_seal(root->secret, 0, 0) || entry_kind(entry) != SEGMENT_PRESENT ||
        entry_header_unit(entry) != 0 || atomic_load(&root->segments) == 0)
        return error_set(STEAD_CORRUPT, "The heap is damaged: the header of its first segment is not valid");
    return 0;
}

/* A note for every slot of the range, also of what a heap is too small for: heap_free_fast() asks for any of them. */
static int notes_map(struct heap *heap, uint64_t capacity)
{
    heap->notes_bytes = ((capacity + SLOT_BYTES - 1) >> SLOT_SHIFT) * sizeof(struct note);
    void *notes =
        mmap(NULL, heap->notes_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (notes == MAP_FAILED)
        return error_set(ENOMEM, "No address space for %llu bytes of notes about a heap of capacity %llu",
                         (unsigned long long)heap->notes_bytes, (unsigned long long)capacity);
    heap->notes = notes;
    return 0;
}

/* What former users of the image left. */
static void settle_former(struct heap *heap, bool first)
{
    struct heap_root *root = root_of(heap);
    if (heap->kind == HEAP_LIVE && !first)
        return;
    if (heap->kind == HEAP_LIVE) {
        atomic_store(&root->holder, 0);
        atomic_fetch_add(&root->session, 1);
        atomic_store(&root->fresh_bytes, atomic_load(&heap->limit));
    }
    if (root->intent_pages != 0) {
        pthread_mutex_lock(&heap->mutex);
        extent_settle(heap, root->intent_page, root->intent_pages);
        atomic_signal_fence(memory_order_seq_cst); /* a kill here must not leave half of it without an intent */
        root->intent_pages = 0;
        pthread_mutex_unlock(&heap->mutex);
    }
}

int heap_attach(struct heap **out, void *base, uint64_t capacity, uint64_t used, enum heap_kind kind, bool first,
                const struct heap_host *host)
{
    int rc;
    *out = NULL;
    if ((uintptr_t)base % UNIT_BYTES != 0 || capacity < HEAP_INITIAL_BYTES)
        return error_set(EINVAL, "A heap cannot lie at %p with a capacity of %llu bytes: units are 64 KiB", base,
                         (unsigned long long)capacity);
    rc = root_verify(base, used);
    if (rc != 0)
        return rc;
    struct heap *heap = calloc(1, sizeof *heap);
    if (heap == NULL)
        return error_set(ENOMEM, "No memory for a heap's handle");
    classes_init();
    heap->base = base;
    heap->header0 = (struct header *)(void *)(heap->base + HEAP_RESERVED_BYTES);
    heap->secret = heap->header0->root.secret;
    heap->capacity = min_u64(capacity, (uint64_t)SEGMENTS_MAX << SEGMENT_SHIFT);
    heap->kind = kind;
    if (host != NULL)
        heap->host = *host;
    heap->guards = GUARD_ACTIVE && kind != HEAP_READ && heap->host.guards;
    atomic_init(&heap->limit, min_u64(used, heap->capacity));
    atomic_init(&heap->fresh_bytes, used);
    rc = pthread_mutex_init(&heap->mutex, NULL);
    if (rc != 0) {
        rc = error_set(rc, "No mutex for a heap's handle");
        goto free_heap;
    }
    if (kind != HEAP_READ) {
        rc = notes_map(heap, capacity);
        if (rc != 0)
            goto destroy_mutex;
    }
    rc = owner_register(heap);
    if (rc != 0)
        goto unmap_notes;
    if (kind != HEAP_READ)
        settle_former(heap, first);
    *out = heap;
    return 0;
unmap_notes:
    if (heap->notes != NULL)
        munmap(heap->notes, heap->notes_bytes);
destroy_mutex:
    pthread_mutex_destroy(&heap->mutex);
free_heap:
    free(heap);
    return rc;
}

static void heap_release(struct heap *heap)
{
    if (heap->notes != NULL)
        munmap(heap->notes, heap->notes_bytes);
    pthread_mutex_destroy(&heap->mutex);
    free(heap);
}

void heap_detach(struct heap *heap)
{
    owner_unregister(heap, heap->kind == HEAP_LIVE && !heap->forked);
    if (!heap->forked)
        heap_guard_pause(heap);
    heap_release(heap);
}

void heap_forget(struct heap *heap)
{
    owner_unregister(heap, false);
    heap_release(heap);
}

void heap_reload(struct heap *heap, uint64_t used)
{
    heap_guard_pause(heap);
    atomic_store(&heap->limit, min_u64(used, heap->capacity));
    atomic_store(&heap->fresh_bytes, used);
    heap->slot_floor = 0;
    heap->damaged = false;
    owner_forget_all(heap);
}

void heap_extended(struct heap *heap, uint64_t used)
{
    uint64_t limit = atomic_load(&heap->limit);
    used = min_u64(used, heap->capacity);
    while (limit < used && !atomic_compare_exchange_weak(&heap->limit, &limit, used))
        ;
}

void heap_trim(struct heap *heap)
{
    if (heap->kind == HEAP_READ)
        return;
    owner_give_back_all(heap);
    slab_trim(heap);
}

void heap_guard_pause(struct heap *heap)
{
    if (GUARD_ACTIVE && heap->guards)
        GUARD_SHOW_ZEROED(heap->base, atomic_load(&heap->limit));
}

#if GUARD_ACTIVE
static int hide_run(const struct run *run, void *arg)
{
    struct heap *heap = arg;
    uint8_t *start = heap->base + (run->page << PAGE_SHIFT);
    if (head_kind(run->head) != RUN_SLAB)
        return 0;
    const struct class_geometry *geometry = &class_table[head_class(run->head)];
    for (uint32_t index = 0; index < geometry->capacity; index++) {
        const struct map_pair *pair = &run->descriptor->map[index / 64];
        if (((atomic_load(&pair->allocated) & ~atomic_load(&pair->freed)) >> index % 64 & 1) == 0)
            GUARD_HIDE(start + (uint64_t)index * geometry->bytes, geometry->bytes);
    }
    return 0;
}
#endif

void heap_guard_resume(struct heap *heap)
{
#if GUARD_ACTIVE
    if (heap->guards)
        (void)segment_each_run(heap, hide_run, heap);
#else
    (void)heap;
#endif
}
