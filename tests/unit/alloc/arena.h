/* arena.h -- a range of memory to put a heap into: guard pages around it, and a host that extends it. */
#ifndef STEAD_TEST_ARENA_H
#define STEAD_TEST_ARENA_H

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "alloc/heap.h"
#include "alloc/layout.h"
#include "base/error.h"

struct arena {
    uint8_t *base;
    uint64_t capacity, bytes; /* bytes: readable from base */
    uint64_t limit;           /* extend answers ENOSPC above */
    struct heap *heap;
    enum heap_kind kind;
    struct heap_host host;
    uint32_t dead_id; /* alive() says no to this one; 0 = all live */
};

/* Reserves capacity (shared: MAP_SHARED, for children), formats and attaches. */
void arena_open(struct arena *arena, enum heap_kind kind, uint64_t capacity, bool shared);
void arena_close(struct arena *arena);
/* Detaches and attaches again as another process would after a clean end. */
void arena_reattach(struct arena *arena, enum heap_kind kind, bool first);
/* heap_check on the arena's bytes; the number of problems, the first one's text in text. */
uint64_t arena_check(struct arena *arena, struct report *report);

#define ARENA_SOUND(arena) \
    do { \
        struct report report_; \
        cr_assert_eq(arena_check((arena), &report_), 0, "%s", report_.first); \
    } while (0)

/* STEAD_SEED or a fixed one; printed. */
uint64_t test_seed(const char *name);
uint64_t test_random(uint64_t *state);
/* n, or n * 20 with STEAD_LONG=1. */
unsigned test_rounds(unsigned n);

#endif
