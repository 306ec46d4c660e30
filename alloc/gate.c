/*
 * gate.c -- one lock around the making and removing of runs.
 *
 * Threads of one process meet at an ordinary mutex in volatile memory.  In a LIVE heap the one who has that mutex then
 * takes `holder` in the image for the whole process: it holds the attachment id, so the word itself says who must be
 * alive.  No pthread object lies in the image: their layout is another library's.
 *
 * Taking it, and what a kill after each step leaves:
 *   1 holder 0 -> self               the next one asks the host whether that id is alive, and swaps in its own
 *   2 intent_page, intent_pages      names the run; nothing else happened yet
 *   3 the run's pages, marks, hints  settled from the run's head, which was or was not written
 *   4 intent_pages = 0               nothing to settle
 *   5 holder -> 0, wake              nothing
 * A waiter sleeps on `holder` (shared futex) for a bounded time and then asks again whether the holder lives, so a
 * lost wake-up or a killed waker costs milliseconds, never a hang.
 *
 * Memory order: holder is taken with acquire and given back with release; that orders everything behind it.
 */
#include "alloc/gate.h"

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "alloc/span.h"

#define SPINS 100
#define SLEEP_NS 2000000 /* between two looks at whether the holder lives */

#if STEAD_CHECKS >= 1
void (*gate_step_hook)(void);
#endif

static void sleep_while(_Atomic uint32_t *word, uint32_t value)
{
    const struct timespec timeout = {.tv_sec = 0, .tv_nsec = SLEEP_NS};
    int saved_errno = errno;
    (void)syscall(SYS_futex, word, FUTEX_WAIT, value, &timeout, NULL, 0);
    errno = saved_errno;
}

static void wake_all(_Atomic uint32_t *word)
{
    int saved_errno = errno;
    (void)syscall(SYS_futex, word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
    errno = saved_errno;
}

static void take_holder(struct heap *heap)
{
    struct heap_root *root = root_of(heap);
    for (unsigned tries = 0;; tries++) {
        uint32_t seen = 0;
        if (atomic_compare_exchange_strong_explicit(&root->holder, &seen, heap->host.self, memory_order_acquire,
                                                    memory_order_relaxed))
            return;
        if (tries < SPINS) {
            if (tries % 16 == 15)
                sched_yield();
            continue;
        }
        /* Our own id there means another heap handle of this process: impossible while ids are per attachment, so it
         * is damage or a former life's mark, and nobody alive holds it. */
        if ((seen == heap->host.self || !heap->host.alive(heap->host.ctx, seen)) &&
            atomic_compare_exchange_strong_explicit(&root->holder, &seen, heap->host.self, memory_order_acquire,
                                                    memory_order_relaxed))
            return;
        atomic_store(&root->waiters, 1);
        if (atomic_load(&root->holder) == seen)
            sleep_while(&root->holder, seen);
    }
}

void gate_enter(struct heap *heap)
{
    pthread_mutex_lock(&heap->mutex);
    if (heap->kind != HEAP_LIVE)
        return;
    take_holder(heap);
    GATE_STEP();
    struct heap_root *root = root_of(heap);
    /* Others may have extended: what follows reads headers up to the top.  A failure shows where one is missing. */
    uint64_t top = atomic_load_explicit(&root->top_pages, memory_order_relaxed);
    if (top > atomic_load(&heap->limit) >> PAGE_SHIFT && top <= heap->capacity >> PAGE_SHIFT)
        (void)extent_back(heap, top << PAGE_SHIFT);
    if (UNLIKELY(root->intent_pages != 0)) {
        extent_settle(heap, root->intent_page, root->intent_pages);
        GATE_STEP();
        gate_intend(heap, 0, 0); /* after all that settling stored, also for the compiler */
    }
}

void gate_leave(struct heap *heap)
{
    if (heap->kind == HEAP_LIVE) {
        struct heap_root *root = root_of(heap);
        GATE_STEP();
        atomic_store(&root->holder, 0);
        GATE_STEP();
        if (atomic_load(&root->waiters) != 0 && atomic_exchange(&root->waiters, 0) != 0)
            wake_all(&root->holder);
    }
    pthread_mutex_unlock(&heap->mutex);
}

void gate_intend(struct heap *heap, uint64_t page, uint64_t pages)
{
    if (heap->kind != HEAP_LIVE)
        return;
    struct heap_root *root = root_of(heap);
    GATE_STEP();
    if (pages != 0)
        root->intent_page = page;
    atomic_signal_fence(memory_order_seq_cst); /* a kill stops stores in program order; the compiler must keep it */
    GATE_STEP();
    root->intent_pages = pages;
    atomic_signal_fence(memory_order_seq_cst);
    GATE_STEP();
}
