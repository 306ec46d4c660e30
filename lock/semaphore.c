/*
 * semaphore.c -- a counting semaphore in 32 bytes of anybody's memory.
 *
 *   word[0]  the value, 0 .. 2^31 - 1, and the futex      word[1]  how many may sleep (a hint: never too small for the
 *   word[2..7]  zero                                               living, too large when a sleeper was killed)
 *
 * No lock inside: a value is taken by one compare-and-swap.  A SIGKILL
 *   - of a sleeper leaves word[1] too large: signals cost a system call more, for good;
 *   - of one that was woken and has not taken yet leaves a value with nobody awake for it: sleepers look by
 *     themselves every LOOK_NS;
 *   - between adding and waking: the same.
 *
 * Ordering: the sleeper adds itself to word[1], then the kernel compares word[0]; the signaller adds to word[0], then
 * reads word[1].  Sequentially consistent on both sides, so either the kernel sees the new value or the signaller sees
 * the sleeper.  Taking acquires, signalling releases: what was written before a signal is seen after its wait.
 *
 * Invariants:
 *   L30  value taken <= value put: no wait returns 0 without a unit of its own
 *   L31  a value above 0 is taken within LOOK_NS by a living waiter; ETIMEDOUT only if it was 0 after the deadline
 */
#include "lock/semaphore.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/race_check.h"
#include "lock/futex.h"

#define SEMAPHORE_MAX UINT32_C(0x7fffffff)
#define LOOK_NS 100000000
#define SPIN_ROUNDS 8

void semaphore_format(struct semaphore_words *words, unsigned value)
{
    memset(words, 0, sizeof *words);
    __atomic_store_n(&words->word[0], value > SEMAPHORE_MAX ? SEMAPHORE_MAX : value, __ATOMIC_SEQ_CST);
}

static bool take(struct semaphore_words *words)
{
    uint32_t value = __atomic_load_n(&words->word[0], __ATOMIC_SEQ_CST);
    while (value != 0) {
        if (__atomic_compare_exchange_n(&words->word[0], &value, value - 1, true, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
            race_check_acquire(words);
            return true;
        }
    }
    return false;
}

int semaphore_wait(struct semaphore_words *words, int64_t deadline_ns)
{
    if (take(words))
        return 0;
    if (deadline_ns == 0)
        return EBUSY;
    for (unsigned round = 0; round < SPIN_ROUNDS; round++) {
        for (unsigned i = 0; i < 1U << round; i++)
            cpu_relax();
        if (take(words))
            return 0;
    }
    int rc;
    __atomic_fetch_add(&words->word[1], 1, __ATOMIC_SEQ_CST);
    for (;;) {
        int64_t now = clock_ns(); /* before the look: what came in time is found, however late it is looked for (L31) */
        if (take(words)) {
            rc = 0;
            break;
        }
        if (deadline_ns != DEADLINE_NEVER && now >= deadline_ns) {
            rc = ETIMEDOUT;
            break;
        }
        int64_t until = deadline_ns - now < LOOK_NS ? deadline_ns : now + LOOK_NS;
        (void)futex_wait(&words->word[0], 0, until, false);
    }
    __atomic_fetch_sub(&words->word[1], 1, __ATOMIC_SEQ_CST);
    return rc;
}

int semaphore_signal(struct semaphore_words *words, unsigned n)
{
    uint32_t value = __atomic_load_n(&words->word[0], __ATOMIC_SEQ_CST);
    race_check_release(words);
    do {
        if (value > SEMAPHORE_MAX || n > SEMAPHORE_MAX - value)
            return error_set(EOVERFLOW, "%u more would raise the semaphore from %u above %u", n, value, SEMAPHORE_MAX);
    } while (
        !__atomic_compare_exchange_n(&words->word[0], &value, value + n, true, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
    if (n != 0 && __atomic_load_n(&words->word[1], __ATOMIC_SEQ_CST) != 0)
        futex_wake(&words->word[0], (int)n, false);
    return 0;
}

unsigned semaphore_value(const struct semaphore_words *words)
{
    return __atomic_load_n(&words->word[0], __ATOMIC_SEQ_CST);
}
