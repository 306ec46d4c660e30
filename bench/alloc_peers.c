/*
 * alloc_peers.c -- who is measured.
 *
 *   stead(sole), stead(live)   the public calls on a store in a file: what a program gets, with what the first write to a
 *                              page of a file costs
 *   heap(sole), heap(live)     the same heap on anonymous memory (SOLE: private, LIVE: shared), without a store around it
 *   other(sole), other(live)   the same calls of another build's shared library (--other)
 *   mimalloc, jemalloc, glibc  volatile.  The first two are loaded with RTLD_LOCAL, so that their malloc does not replace
 *                              the program's
 *   boost                      Boost.Interprocess, managed_mapped_file (peers/alloc_boost.cc), if it was found at build
 */
#include "alloc_peers.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "alloc/heap.h"
#include "base/error.h"
#include "stead.h"

typedef void *allocate_function(size_t bytes);
typedef void release_function(void *block);

/* ---- the public calls ---- */

static stead *store;

/* The calls of one build. */
struct calls {
    __typeof__(stead_open) *open;
    __typeof__(stead_remove) *remove;
    __typeof__(stead_last_error_text) *last_error_text;
    __typeof__(stead_malloc) *malloc;
    __typeof__(stead_free) *free;
    __typeof__(stead_stat) *stat;
};
static const struct calls own = {stead_open, stead_remove, stead_last_error_text, stead_malloc, stead_free, stead_stat};

static bool store_open_by(const struct calls *calls, const char *directory, uint64_t capacity, stead_sharing sharing)
{
    char path[4096];
    const stead_options options = {.flags = STEAD_NEW, .sharing = sharing, .capacity_bytes = capacity};
    snprintf(path, sizeof path, "%s/alloc-%ld.stead", directory, (long)getpid());
    if (calls->open(&store, path, &options) != 0 || calls->remove(path) != 0) { /* it stays until we end */
        fprintf(stderr, "%s\n", calls->last_error_text());
        return false;
    }
    return true;
}

static bool store_open_sharing(const char *directory, uint64_t capacity, stead_sharing sharing)
{
    return store_open_by(&own, directory, capacity, sharing);
}

static bool store_sole_open(const char *directory, uint64_t capacity)
{
    return store_open_sharing(directory, capacity, STEAD_SOLE);
}

static bool store_live_open(const char *directory, uint64_t capacity)
{
    return store_open_sharing(directory, capacity, STEAD_LIVE);
}

static void *store_allocate(size_t bytes)
{
    return stead_malloc(store, bytes);
}

static void store_release(void *block)
{
    stead_free(block);
}

/* A free that was refused is seen here: aborts, so that the sample does not count. */
static uint64_t store_used(void)
{
    stead_status status;
    if (stead_stat(store, &status) != 0 || status.bad_frees != 0)
        fprintf(stderr, "%s\n", stead_last_error_text()), abort();
    return status.used_bytes;
}

static uint64_t store_usable(void)
{
    stead_status status;
    return stead_stat(store, &status) == 0 ? status.live_bytes : 0;
}

/* ---- another build's ---- */

const char *alloc_other_library;
static struct calls other;

static bool other_open(const char *directory, uint64_t capacity, stead_sharing sharing)
{
    void *library = alloc_other_library == NULL ? NULL : dlopen(alloc_other_library, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        if (alloc_other_library != NULL)
            fprintf(stderr, "%s\n", dlerror());
        return false;
    }
    *(void **)&other.open = dlsym(library, "stead_open");
    *(void **)&other.remove = dlsym(library, "stead_remove");
    *(void **)&other.last_error_text = dlsym(library, "stead_last_error_text");
    *(void **)&other.malloc = dlsym(library, "stead_malloc");
    *(void **)&other.free = dlsym(library, "stead_free");
    *(void **)&other.stat = dlsym(library, "stead_stat");
    return other.open != NULL && other.remove != NULL && other.last_error_text != NULL && other.malloc != NULL &&
           other.free != NULL && other.stat != NULL && store_open_by(&other, directory, capacity, sharing);
}

static bool other_sole_open(const char *directory, uint64_t capacity)
{
    return other_open(directory, capacity, STEAD_SOLE);
}

static bool other_live_open(const char *directory, uint64_t capacity)
{
    return other_open(directory, capacity, STEAD_LIVE);
}

static void *other_allocate(size_t bytes)
{
    return other.malloc(store, bytes);
}

static void other_release(void *block)
{
    other.free(block);
}

static uint64_t other_used(void)
{
    stead_status status;
    if (other.stat(store, &status) != 0 || status.bad_frees != 0)
        fprintf(stderr, "%s\n", other.last_error_text()), abort();
    return status.used_bytes;
}

/* ---- the heap alone ---- */

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

static bool heap_open_kind(uint64_t capacity, enum heap_kind kind)
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

static bool heap_sole_open(const char *directory, uint64_t capacity)
{
    (void)directory;
    return heap_open_kind(capacity, HEAP_SOLE);
}

static bool heap_live_open(const char *directory, uint64_t capacity)
{
    (void)directory;
    return heap_open_kind(capacity, HEAP_LIVE);
}

static void *heap_allocate(size_t bytes)
{
    return heap_malloc(heap, bytes);
}

static void heap_release(void *block)
{
    if (heap_free(heap, block) != 0)
        fprintf(stderr, "%s\n", error_last_text()), abort();
}

static uint64_t heap_used(void)
{
    struct heap_stats stats;
    heap_stat(heap, &stats);
    return stats.used_bytes;
}

static uint64_t heap_usable(void)
{
    struct heap_stats stats;
    heap_stat(heap, &stats);
    return stats.live_bytes;
}

/* ---- volatile ---- */

static bool glibc_open(const char *directory, uint64_t capacity)
{
    (void)directory;
    (void)capacity;
    return true;
}

static void *glibc_allocate(size_t bytes)
{
    return malloc(bytes);
}

static void glibc_release(void *block)
{
    free(block);
}

static allocate_function *loaded_allocate; /* a process measures one peer */
static release_function *loaded_release;

static void *call_allocate(size_t bytes)
{
    return loaded_allocate(bytes);
}

static void call_release(void *block)
{
    loaded_release(block);
}

static bool load(const char *const *names, const char *allocate, const char *release)
{
    for (; *names != NULL; names++) {
        void *library = dlopen(*names, RTLD_NOW | RTLD_LOCAL);
        if (library == NULL)
            continue;
        *(void **)&loaded_allocate = dlsym(library, allocate);
        *(void **)&loaded_release = dlsym(library, release);
        return loaded_allocate != NULL && loaded_release != NULL;
    }
    return false;
}

static bool mimalloc_open(const char *directory, uint64_t capacity)
{
    static const char *const names[] = {"libmimalloc.so.3", "libmimalloc.so.2", "libmimalloc.so", NULL};
    (void)directory;
    (void)capacity;
    return load(names, "mi_malloc", "mi_free");
}

static bool jemalloc_open(const char *directory, uint64_t capacity)
{
    static const char *const names[] = {"libjemalloc.so.2", "libjemalloc.so", NULL};
    (void)directory;
    (void)capacity;
    return load(names, "malloc", "free");
}

const struct alloc_peer alloc_peers[] = {
    {"stead(sole)", store_sole_open, store_allocate, store_release, store_used, store_usable},
    {"stead(live)", store_live_open, store_allocate, store_release, store_used, store_usable},
    {"other(sole)", other_sole_open, other_allocate, other_release, other_used, NULL},
    {"other(live)", other_live_open, other_allocate, other_release, other_used, NULL},
    {"heap(sole)", heap_sole_open, heap_allocate, heap_release, heap_used, heap_usable},
    {"heap(live)", heap_live_open, heap_allocate, heap_release, heap_used, heap_usable},
    {"mimalloc", mimalloc_open, call_allocate, call_release, NULL, NULL},
    {"jemalloc", jemalloc_open, call_allocate, call_release, NULL, NULL},
    {"glibc", glibc_open, glibc_allocate, glibc_release, NULL, NULL},
#if defined(BENCH_BOOST)
    {"boost", boost_open, boost_allocate, boost_release, boost_used, NULL},
#endif
};
const unsigned alloc_peer_count = sizeof alloc_peers / sizeof *alloc_peers;
