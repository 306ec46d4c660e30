/*
 * alloc_peers.c -- stead's heap on the memory each kind has (SOLE and TURNS: private; LIVE: shared), and the volatile
 * allocators.  Those are loaded with RTLD_LOCAL, so that their malloc does not replace the program's; everybody is
 * called through a pointer.
 *
 * The heap is measured without a file: what a first write to a page of a file costs is the file's (bench/commit).
 */
#include "alloc_peers.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "alloc/heap.h"
#include "base/error.h"

static struct heap *heap;

static int extend(void *ctx, uint64_t bytes)
{
    (void)ctx;
    (void)bytes;
    return 0; /* all of it is mapped; pages come with the first touch */
}

static bool alive(void *ctx, uint32_t id)
{
    (void)ctx;
    return id == 1;
}

static bool stead_open_kind(uint64_t capacity, enum heap_kind kind)
{
    const struct heap_host host = {.extend = extend, .alive = alive, .self = 1};
    int flags = MAP_ANONYMOUS | MAP_NORESERVE | (kind == HEAP_LIVE ? MAP_SHARED : MAP_PRIVATE);
    uint8_t *all = mmap(NULL, capacity + HEAP_ALIGNMENT_MAX, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (all == MAP_FAILED)
        return false;
    void *base = all + (HEAP_ALIGNMENT_MAX - (uintptr_t)all % HEAP_ALIGNMENT_MAX) % HEAP_ALIGNMENT_MAX;
    heap_format(base, capacity);
    return heap_attach(&heap, base, capacity, HEAP_INITIAL_BYTES, kind, true, &host) == 0;
}

static bool stead_sole_open(uint64_t capacity)
{
    return stead_open_kind(capacity, HEAP_SOLE);
}

static bool stead_live_open(uint64_t capacity)
{
    return stead_open_kind(capacity, HEAP_LIVE);
}

static void *stead_allocate(size_t bytes)
{
    return heap_malloc(heap, bytes);
}

static void stead_release(void *block)
{
    if (heap_free(heap, block) != 0)
        fprintf(stderr, "%s\n", error_last_text()), abort();
}

static uint64_t stead_used(void)
{
    struct heap_stats stats;
    heap_stat(heap, &stats);
    return stats.used_bytes;
}

static bool glibc_open(uint64_t capacity)
{
    (void)capacity;
    return true;
}

static bool load(struct alloc_peer *peer, const char *const *names, const char *allocate, const char *release)
{
    for (; *names != NULL; names++) {
        void *library = dlopen(*names, RTLD_NOW | RTLD_LOCAL);
        if (library == NULL)
            continue;
        *(void **)&peer->allocate = dlsym(library, allocate);
        *(void **)&peer->release = dlsym(library, release);
        return peer->allocate != NULL && peer->release != NULL;
    }
    return false;
}

static bool mimalloc_open(uint64_t capacity)
{
    static const char *const names[] = {"libmimalloc.so.3", "libmimalloc.so.2", "libmimalloc.so", NULL};
    (void)capacity;
    return load(&alloc_peers[2], names, "mi_malloc", "mi_free");
}

static bool jemalloc_open(uint64_t capacity)
{
    static const char *const names[] = {"libjemalloc.so.2", "libjemalloc.so", NULL};
    (void)capacity;
    return load(&alloc_peers[3], names, "malloc", "free");
}

struct alloc_peer alloc_peers[] = {
    {"stead(sole)", stead_sole_open, stead_allocate, stead_release, stead_used},
    {"stead(live)", stead_live_open, stead_allocate, stead_release, stead_used},
    {"mimalloc", mimalloc_open, NULL, NULL, NULL},
    {"jemalloc", jemalloc_open, NULL, NULL, NULL},
    {"glibc", glibc_open, malloc, free, NULL},
};
const unsigned alloc_peer_count = sizeof alloc_peers / sizeof *alloc_peers;
