/*
 * event.c -- a manual-reset event in 32 bytes of anybody's memory.
 *
 *   word[0]  counts changes: odd = signaled; the futex     word[1]  how many may sleep (a hint, as in semaphore.c)
 *   word[2..7]  zero
 *
 * Why a count and not a flag: a signal followed at once by a reset must still release everybody who was waiting when
 * it came.  A sleeper remembers the even count it slept on; any other count means that a signal came since.  (It
 * would be fooled by exactly 2^31 signals and resets within one sleep of at most LOOK_NS.)
 *
 * A SIGKILL of a sleeper leaves word[1] too large: needless wake-ups.  One between the change and the wake-up leaves
 * sleepers that look by themselves within LOOK_NS.
 *
 * Ordering: as semaphore.c: sleeper: word[1], then word[0] (in the kernel); signaller: word[0], then word[1].
 *
 * Invariants:
 *   L32  a wait returns 0 only if the event was signaled at some moment between its begin and its end
 *   L33  a signal releases everybody who waited when it came, whatever resets follow; ETIMEDOUT only if none came before
 *        the deadline
 */
#include <errno.h>
#include <string.h>

#include "base/race_check.h"
#include "lock/futex.h"
#include "lock/semaphore.h"

#define LOOK_NS 100000000
#define SPIN_ROUNDS 8

static uint32_t count_read(const struct event_words *words)
{
    return __atomic_load_n(&words->word[0], __ATOMIC_SEQ_CST);
}

void event_format(struct event_words *words, bool signaled)
{
    memset(words, 0, sizeof *words);
    __atomic_store_n(&words->word[0], signaled ? 1 : 0, __ATOMIC_SEQ_CST);
}

static int wait_until_signaled(struct event_words *words, int64_t deadline_ns)
{
    uint32_t seen = count_read(words);
    if (seen & 1)
        return 0;
    if (deadline_ns == 0)
        return EBUSY;
    for (unsigned round = 0; round < SPIN_ROUNDS; round++) {
        for (unsigned i = 0; i < 1U << round; i++)
            cpu_relax();
        if (count_read(words) != seen)
            return 0;
    }
    int rc = 0;
    __atomic_fetch_add(&words->word[1], 1, __ATOMIC_SEQ_CST);
    for (;;) {
        int64_t now = clock_ns(); /* before the look: what came in time is found, however late it is looked for (L33) */
        if (count_read(words) != seen)
            break;
        if (deadline_ns != DEADLINE_NEVER && now >= deadline_ns) {
            rc = ETIMEDOUT;
            break;
        }
        int64_t until = deadline_ns - now < LOOK_NS ? deadline_ns : now + LOOK_NS;
        (void)futex_wait(&words->word[0], seen, until, false);
    }
    __atomic_fetch_sub(&words->word[1], 1, __ATOMIC_SEQ_CST);
    return rc;
}

int event_wait(struct event_words *words, int64_t deadline_ns)
{
    int rc = wait_until_signaled(words, deadline_ns);
    if (rc == 0)
        race_check_acquire(words);
    return rc;
}

/* To odd (signaled) or even.  True if that was a change. */
static bool change(struct event_words *words, bool signaled)
{
    uint32_t count = count_read(words);
    do {
        if ((count & 1) == (signaled ? 1U : 0U))
            return false;
    } while (
        !__atomic_compare_exchange_n(&words->word[0], &count, count + 1, true, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
    return true;
}

int event_signal(struct event_words *words)
{
    race_check_release(words);
    if (change(words, true) && __atomic_load_n(&words->word[1], __ATOMIC_SEQ_CST) != 0)
        futex_wake(&words->word[0], INT_MAX, false);
    return 0;
}

int event_reset(struct event_words *words)
{
    (void)change(words, false);
    return 0;
}

bool event_is_signaled(const struct event_words *words)
{
    return (count_read(words) & 1) != 0;
}
