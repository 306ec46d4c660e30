/*
 * owner.c -- which thread owns what, in this process.
 *
 * A thread that uses a heap has a struct owner there.  The fast path finds it in a small array in thread-local memory,
 * by the heap's serial: a number used once in a process.  A heap that is detached, or reloaded, has another serial, so
 * that every thread's entry and every token in the notes goes stale at once, in O(1), without a look at other threads.
 *
 * The public calls are spared even that: they compare what they were given with the front of the owner this thread used last,
 * the handle, or the address with base and span.  The front is what the heap's serial says, said in the owner itself:
 *   set      by owner_start(), by the thread whose owner it is, when it has the heap's serial
 *   cleared  by whoever gives the heap another serial or detaches it, for all of the heap's owners; in a fork child for all
 *            owners of all heaps; by the thread when it ends: it uses owner_nobody from then on
 * All of it under the registry lock, and read without it.  Why that is enough: reload and detach are called while no other
 * call is running (heap.h), so a call that reads the front began either before, when it was true, or after somebody told its
 * thread that a rollback or close is over; that orders the reading behind the clearing.  A block handed out before a
 * close and freed after it, in the same range, by the store that is mapped there now, is a wrong pointer of that
 * store; the caller's front is cleared, and the search through the stores finds the other one.  `base` and `notes` never
 * change in an owner.  One that is cleared stays readable: only its own thread frees it, and not while owner_last names it.
 *
 *   tokens:  floor (nobody's, listed in heap->orphans or left) < every owner's token of this serial
 *
 * Tokens have 32 bits, and a reload (each turn that another process had) takes one, and one for each thread: some 2^30 turns
 * use half of them up.  Then all notes are cleared and they start anew.
 *
 * Invariants: O2  floor < heap->token_next, and no note holds a token that will be given out again
 *             O3  an owner whose serial is not its heap's has no span and no handle
 *
 * The registry lock orders threads that end against heaps that go: an owner is freed by its thread, a heap only sets
 * owner->heap to NULL.  Order of locks: registry, heap->mutex.
 *
 * A fork child has a copy of all this and an image it must not touch: its heaps are marked `forked`, and its threads'
 * ends give nothing back.
 */
#include "alloc/owner.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "alloc/slab.h"

#define TOKENS_MAX (UINT32_MAX / 2) /* the rest is for the threads of the last serial */

struct owner owner_nobody = {.handle = &owner_nobody};
_Thread_local struct owner_tls owner_last = {.owner = &owner_nobody};
static _Thread_local struct owner_tls owner_lately[OWNER_TLS_SLOTS];
static _Thread_local struct owner *thread_owners; /* of all heaps; this thread only */

static pthread_mutex_t registry = PTHREAD_MUTEX_INITIALIZER;
static struct heap *heaps;      /* registry lock */
static uint64_t serial_last;    /* registry lock */
static unsigned tls_index_next; /* registry lock */
static pthread_key_t thread_end_key;
static int key_error;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* The public calls do not know this owner any more; registry lock. */
static void front_clear(struct owner *owner)
{
    atomic_store_explicit(&owner->handle, &owner_nobody, memory_order_relaxed);
    atomic_store_explicit(&owner->span, 0, memory_order_relaxed);
}

static void fronts_clear(struct heap *heap)
{
    for (struct owner *owner = heap->owners; owner != NULL; owner = owner->next_of_heap)
        front_clear(owner);
}

static void front_set(struct owner *owner, const struct heap *heap)
{
    if (heap->host.handle == NULL)
        return;
    atomic_store_explicit(&owner->handle, heap->host.handle, memory_order_relaxed);
    atomic_store_explicit(&owner->span, heap->capacity, memory_order_relaxed);
}

static void owner_unlink(struct owner *owner)
{
    struct heap *heap = owner->heap;
    if (owner->previous_of_heap != NULL)
        owner->previous_of_heap->next_of_heap = owner->next_of_heap;
    else
        heap->owners = owner->next_of_heap;
    if (owner->next_of_heap != NULL)
        owner->next_of_heap->previous_of_heap = owner->previous_of_heap;
}

static void thread_ends(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&registry);
    while (thread_owners != NULL) {
        struct owner *owner = thread_owners;
        thread_owners = owner->next_of_thread;
        if (owner->heap != NULL) {
            if (!owner->heap->forked && owner->serial == atomic_load(&owner->heap->serial))
                slab_give_back(owner->heap, owner);
            owner_unlink(owner);
        }
        free(owner);
    }
    owner_last = (struct owner_tls){.owner = &owner_nobody};
    memset(owner_lately, 0, sizeof owner_lately);
    pthread_mutex_unlock(&registry);
}

static void fork_prepare(void)
{
    pthread_mutex_lock(&registry);
}

static void fork_parent(void)
{
    pthread_mutex_unlock(&registry);
}

static void fork_child(void)
{
    for (struct heap *heap = heaps; heap != NULL; heap = heap->next) {
        heap->forked = true;
        fronts_clear(heap);
    }
    pthread_mutex_unlock(&registry);
}

static void owner_init_once(void)
{
    key_error = pthread_key_create(&thread_end_key, thread_ends);
    if (key_error == 0)
        key_error = pthread_atfork(fork_prepare, fork_parent, fork_child);
}

/* O2: no note holds a token any more, so they may start anew.  No call is running. */
static void tokens_restart(struct heap *heap)
{
    if (heap->notes != NULL && mmap(heap->notes, heap->notes_bytes, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
        memset(heap->notes, 0, heap->notes_bytes);
    heap->token_next = 1;
}

/* Registry lock. */
static void new_serial(struct heap *heap)
{
    fronts_clear(heap);
    pthread_mutex_lock(&heap->mutex);
    if (heap->token_next > TOKENS_MAX)
        tokens_restart(heap);
    atomic_store(&heap->token_floor, heap->token_next);
    heap->token_next++;
    slab_forget_orphans(heap);
    pthread_mutex_unlock(&heap->mutex);
    atomic_store(&heap->serial, ++serial_last);
}

int owner_register(struct heap *heap)
{
    (void)pthread_once(&once, owner_init_once);
    if (key_error != 0)
        return error_set(key_error, "No thread-specific key or fork handler is left for the heap");
    pthread_mutex_lock(&registry);
    heap->token_next = 1;
    heap->tls_index = tls_index_next++ % OWNER_TLS_SLOTS;
    heap->previous = NULL;
    heap->next = heaps;
    if (heaps != NULL)
        heaps->previous = heap;
    heaps = heap;
    new_serial(heap);
    pthread_mutex_unlock(&registry);
    return 0;
}

void owner_unregister(struct heap *heap, bool give_back)
{
    pthread_mutex_lock(&registry);
    for (struct owner *owner = heap->owners; owner != NULL; owner = owner->next_of_heap) {
        if (give_back && owner->serial == atomic_load(&heap->serial))
            slab_give_back(heap, owner);
        front_clear(owner);
        owner->heap = NULL;
        owner->serial = 0;
    }
    heap->owners = NULL;
    if (heap->previous != NULL)
        heap->previous->next = heap->next;
    else
        heaps = heap->next;
    if (heap->next != NULL)
        heap->next->previous = heap->previous;
    pthread_mutex_unlock(&registry);
}

void owner_give_back_all(struct heap *heap)
{
    pthread_mutex_lock(&registry);
    for (struct owner *owner = heap->owners; owner != NULL; owner = owner->next_of_heap)
        if (owner->serial == atomic_load(&heap->serial))
            slab_give_back(heap, owner);
    pthread_mutex_unlock(&registry);
}

void owner_forget_all(struct heap *heap)
{
    pthread_mutex_lock(&registry);
    new_serial(heap);
    pthread_mutex_unlock(&registry);
}

/* Nothing owned, under the heap's present serial. */
static int owner_start(struct heap *heap, struct owner *owner)
{
    for (unsigned class = 0; class < CLASS_COUNT; class ++) {
        struct bin *bin = &owner->bins[class];
        memset(bin, 0, offsetof(struct bin, hints[1])); /* hints_end says that none of the others means anything */
        bin->pair = &slab_no_pair;
        bin_forget_hints(bin);
    }
    for (unsigned i = 0; i <= CLASS_SMALL_MAX / 8; i++)
        owner->by_8[i] = &owner->bins[class_by_8[i]];
    pthread_mutex_lock(&heap->mutex);
    bool exhausted = heap->token_next == UINT32_MAX;
    owner->token = exhausted ? 0 : heap->token_next++;
    pthread_mutex_unlock(&heap->mutex);
    if (exhausted)
        return error_set(ENOMEM, "More than 4 billion threads used this heap since it was opened: reopen the store");
    owner->serial = atomic_load(&heap->serial);
    front_set(owner, heap);
    return 0;
}

struct owner *owner_known(struct heap *heap)
{
    const struct owner_tls *lately = &owner_lately[heap->tls_index];
    uint64_t serial = atomic_load_explicit(&heap->serial, memory_order_relaxed);
    if (owner_last.serial != serial && lately->serial == serial)
        owner_last = *lately;
    return owner_cached(heap);
}

struct owner *owner_get(struct heap *heap)
{
    struct owner *owner = owner_known(heap);
    struct owner_tls *lately = &owner_lately[heap->tls_index];
    if (owner != NULL)
        return owner;
    pthread_mutex_lock(&registry);
    struct owner **link = &thread_owners;
    while ((owner = *link) != NULL && owner->heap != heap) {
        if (owner->heap == NULL) { /* its heap is gone */
            *link = owner->next_of_thread;
            if (owner == owner_last.owner)
                owner_last = (struct owner_tls){.owner = &owner_nobody};
            free(owner);
        } else {
            link = &owner->next_of_thread;
        }
    }
    if (owner == NULL) {
        owner = aligned_alloc(64, round_up(sizeof *owner, 64));
        if (owner == NULL || pthread_setspecific(thread_end_key, owner) != 0) {
            free(owner);
            pthread_mutex_unlock(&registry);
            error_set(ENOMEM, "No memory for a thread's part of the heap");
            return NULL;
        }
        memset(owner, 0, offsetof(struct owner, bins)); /* owner_start() */
        front_clear(owner);
        owner->heap = heap;
        owner->base = heap->base;
        owner->notes = heap->notes;
        owner->next_of_thread = thread_owners;
        thread_owners = owner;
        owner->next_of_heap = heap->owners;
        if (heap->owners != NULL)
            heap->owners->previous_of_heap = owner;
        heap->owners = owner;
    }
    int rc = owner->serial == atomic_load(&heap->serial) ? 0 : owner_start(heap, owner);
    if (rc == 0) {
        lately->owner = owner;
        lately->serial = owner->serial;
        owner_last = *lately;
    }
    pthread_mutex_unlock(&registry);
    return rc == 0 ? owner : NULL;
}
