/* semaphore.h, event -- the words behind stead_semaphore and stead_event: 32 bytes, frozen, futex based.
 * Implementation of the public calls is in store/sync.c, which only maps names to words. */
#ifndef STEAD_LOCK_SEMAPHORE_H
#define STEAD_LOCK_SEMAPHORE_H

#include <stdbool.h>
#include <stdint.h>

struct semaphore_words {
    uint32_t word[8];
};
struct event_words {
    uint32_t word[8];
};

void semaphore_format(struct semaphore_words *words, unsigned value);
int semaphore_wait(struct semaphore_words *words, int64_t deadline_ns); /* 0, EBUSY (try), ETIMEDOUT */
int semaphore_signal(struct semaphore_words *words, unsigned n);        /* 0, EOVERFLOW */
unsigned semaphore_value(const struct semaphore_words *words);

void event_format(struct event_words *words, bool signaled);
int event_wait(struct event_words *words, int64_t deadline_ns);
int event_signal(struct event_words *words);
int event_reset(struct event_words *words);
bool event_is_signaled(const struct event_words *words);

#endif
