/* world.c -- see world.h. */
#include "world.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lock/slots.h"
#include "lock/futex.h"
#include "lock/wait.h"

int world_ok(int rc, const char *call, const char *file, int line)
{
    if (rc != 0)
        cr_assert_fail("%s:%d: %s is %d (%s): %s", file, line, call, rc, error_text(rc), error_last_text());
    return rc;
}

void world_fails(int code, int rc, const char *call, const char *file, int line)
{
    if (rc != code)
        cr_assert_fail("%s:%d: %s is %d (%s), not %d (%s)", file, line, call, rc, error_text(rc), code,
                       error_text(code));
}

void world_make(struct world *world)
{
    world->fd = memfd_create("lock-test", MFD_CLOEXEC);
    cr_assert(world->fd >= 0);
    size_t bytes = LOCK_REGION_BYTES + BOARD_WORDS * sizeof(uint64_t);
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert(memory != MAP_FAILED);
    world->region = memory;
    world->board = (void *)((char *)memory + LOCK_REGION_BYTES);
    lock_region_format(world->region);
}

void world_end(struct world *world)
{
    munmap((void *)world->region, LOCK_REGION_BYTES + BOARD_WORDS * sizeof(uint64_t));
    close(world->fd);
}

static int open_again(int fd)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return open(path, O_RDWR | O_CLOEXEC);
}

void member_join(struct world *world, struct member *member, enum presence_role role)
{
    member->fd = open_again(world->fd);
    cr_assert(member->fd >= 0);
    OK(lock_region_verify(world->region));
    OK(presence_attach(&member->presence, world->region, member->fd, role));
    struct rwlock_host host = {.region = world->region, .which = RWLOCK_STORE, .presence = member->presence};
    OK(rwlock_open(&member->lock, &host));
}

void member_leave(struct member *member)
{
    OK(rwlock_close(member->lock));
    presence_detach(member->presence);
    close(member->fd);
}

struct rwlock *private_lock(void)
{
    struct rwlock *lock;
    struct rwlock_host host = {.region = NULL};
    OK(rwlock_open(&lock, &host));
    return lock;
}

pid_t world_fork(struct world *world, struct member *inherited, int (*body)(struct world *world, void *arg), void *arg)
{
    fflush(NULL);
    pid_t pid = fork();
    cr_assert(pid >= 0);
    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (inherited != NULL) {
        rwlock_forget(inherited->lock);
        presence_forget(inherited->presence);
        close(inherited->fd);
    }
    _exit(body(world, arg));
}

void slots_use_up(struct rwlock *lock, bool reserve, unsigned joinable)
{
    struct lock_slot *slot;
    while ((slot = slot_take(lock, (uint64_t)lock->id << 32 | 1, reserve)) != NULL) {
        if (joinable > 0)
            joinable--;
        else
            atomic_store(&slot->users, 0);
    }
}

void slots_leave_few(struct rwlock *lock)
{
    if (FEW_SLOTS >= SLOT_COUNT)
        return;
    slots_use_up(lock, true, 0);
    for (unsigned i = 0; i < FEW_SLOTS; i++)
        slot_give_back(lock, &lock->region->slots[2 * i]); /* even ones are taken first */
}

int world_wait(pid_t pid)
{
    int status;
    pid_t got;
    do
        got = waitpid(pid, &status, 0);
    while (got < 0 && errno == EINTR);
    if (got != pid)
        return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

bool board_await(_Atomic uint64_t *word, uint64_t value)
{
    int64_t deadline = clock_ns() + SOON_NS;
    while (atomic_load(word) != value) {
        if (clock_ns() > deadline)
            return false;
        sleep_ns(100000);
    }
    return true;
}

static int count_waiter(const struct rwlock_info *info, void *arg)
{
    unsigned *count = arg;
    *count += info->waiting;
    return 0;
}

bool waiters_await(struct rwlock *lock, unsigned n)
{
    int64_t deadline = clock_ns() + SOON_NS;
    for (;;) {
        unsigned count = 0;
        (void)rwlock_each(lock, count_waiter, &count);
        if (count >= n)
            return true;
        if (clock_ns() > deadline)
            return false;
        sleep_ns(100000);
    }
}

void only_wake_ups_wake(void)
{
#if STEAD_CHECKS >= 2
    wait_check_first_ns = wait_check_ns = INT64_C(3600000000000);
#endif
}

uint64_t seed_get(void)
{
    const char *text = getenv("STEAD_SEED");
    uint64_t seed = text != NULL ? strtoull(text, NULL, 0) : (uint64_t)clock_ns();
    fprintf(stderr, "STEAD_SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

uint64_t random_next(uint64_t *state)
{
    uint64_t x = *state += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

unsigned long_factor(void)
{
    const char *text = getenv("STEAD_LONG");
    return text != NULL && text[0] == '1' ? 10 : 1;
}

int64_t ms_from_now(int ms)
{
    return deadline_after_ms(ms);
}
