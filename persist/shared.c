/*
 * shared.c -- see shared.h.
 *
 * Memory ordering.  A copy is read and checked as a whole: number, checksum of number and state.  A reader that runs
 * beside a writer (read-only openers do) may read a mixture; the checksum refuses it and the other copy, which nobody
 * is writing, serves.  Should the writer lap it in between, it reads again, SHARED_TRIES times.  The bytes are moved
 * as relaxed atomic words, so that the mixture is merely refused and never undefined; the number is stored last with
 * release order and loaded first with acquire order.
 */
#include "persist/shared.h"

#include <errno.h>
#include <string.h>
#include <xxhash.h>

#define SHARED_TRIES 64
#define STATE_WORDS (sizeof(struct shared_state) / 8)

struct shared_copy {
    _Atomic uint64_t number; /* 0: never written */
    _Atomic uint64_t checksum;
    _Atomic uint64_t word[STATE_WORDS];
};

struct image_shared {
    _Atomic uint64_t durable_seq;
    _Atomic uint64_t failed;
    _Atomic uint64_t unfinished;
    uint64_t reserved[5]; /* its own cache line: raised without the turn */
    struct shared_copy copy[2];
};
static_assert(sizeof(struct shared_state) % 8 == 0, "moved as words");
static_assert(sizeof(struct image_shared) <= IMAGE_SHARED_BYTES, "fits its place in the lock unit");

static uint64_t copy_checksum(uint64_t number, const uint64_t word[STATE_WORDS])
{
    return XXH3_64bits_withSeed(word, STATE_WORDS * 8, number) | 1; /* never that of zeroed memory */
}

/* The number of a valid copy with its state, or 0. */
static uint64_t copy_read(const struct shared_copy *copy, struct shared_state *state)
{
    uint64_t word[STATE_WORDS];
    uint64_t number = atomic_load_explicit(&copy->number, memory_order_acquire);
    uint64_t checksum = atomic_load_explicit(&copy->checksum, memory_order_relaxed);
    for (size_t i = 0; i < STATE_WORDS; i++)
        word[i] = atomic_load_explicit(&copy->word[i], memory_order_relaxed);
    if (number == 0 || checksum != copy_checksum(number, word))
        return 0;
    memcpy(state, word, sizeof word);
    return number;
}

int shared_read(const struct image_shared *shared, struct shared_state *state)
{
    for (int i = 0; i < SHARED_TRIES; i++) {
        struct shared_state both[2];
        uint64_t number[2] = {copy_read(&shared->copy[0], &both[0]), copy_read(&shared->copy[1], &both[1])};
        if (number[0] == 0 && number[1] == 0)
            continue;
        *state = both[number[1] > number[0]];
        return 0;
    }
    return ENOENT;
}

void shared_write(struct image_shared *shared, const struct shared_state *state)
{
    struct shared_state scratch;
    uint64_t word[STATE_WORDS];
    uint64_t number[2] = {copy_read(&shared->copy[0], &scratch), copy_read(&shared->copy[1], &scratch)};
    struct shared_copy *copy = &shared->copy[number[1] <= number[0]]; /* the older one */
    uint64_t next = (number[0] > number[1] ? number[0] : number[1]) + 1;
    memcpy(word, state, sizeof word);
    /* Invalid first, so that a kill in the middle cannot leave an old number over new words by a checksum's chance. */
    atomic_store_explicit(&copy->number, 0, memory_order_release);
    atomic_thread_fence(memory_order_seq_cst);
    for (size_t i = 0; i < STATE_WORDS; i++)
        atomic_store_explicit(&copy->word[i], word[i], memory_order_relaxed);
    atomic_store_explicit(&copy->checksum, copy_checksum(next, word), memory_order_relaxed);
    atomic_store_explicit(&copy->number, next, memory_order_release);
}

void shared_clear(struct image_shared *shared)
{
    atomic_store(&shared->durable_seq, 0);
    atomic_store(&shared->failed, 0);
    atomic_store(&shared->unfinished, 0);
    for (int i = 0; i < 2; i++) {
        atomic_store(&shared->copy[i].number, 0);
        atomic_store(&shared->copy[i].checksum, 0);
    }
}

uint64_t shared_durable_seq(const struct image_shared *shared)
{
    return atomic_load(&shared->durable_seq);
}

void shared_raise_durable_seq(struct image_shared *shared, uint64_t seq)
{
    uint64_t old = atomic_load(&shared->durable_seq);
    while (old < seq && !atomic_compare_exchange_weak(&shared->durable_seq, &old, seq)) {}
}

void shared_fail(struct image_shared *shared)
{
    atomic_store(&shared->failed, 1);
}

bool shared_has_failed(const struct image_shared *shared)
{
    return atomic_load_explicit(&shared->failed, memory_order_relaxed) != 0;
}

void shared_set_unfinished(struct image_shared *shared, bool unfinished)
{
    atomic_store(&shared->unfinished, unfinished);
}

bool shared_is_unfinished(const struct image_shared *shared)
{
    return atomic_load(&shared->unfinished) != 0;
}
