/*
 * Presence: who is there, who died, and that no id is ever given out twice (L20-L22).
 */
#include "world.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lock/bytes.h"
#include "lock/futex.h"
#include "lock/region.h"

TestSuite(presence, .timeout = 120);

enum { READY, GO };

static int attach_and_stay(struct world *world, void *role)
{
    struct member self;
    member_join(world, &self, role != NULL ? PRESENCE_WRITER : PRESENCE_READER);
    atomic_store(&world->board[2], presence_id(self.presence));
    atomic_fetch_add(&world->board[READY], 1);
    while (atomic_load(&world->board[GO]) == 0)
        sleep_ns(100000);
    member_leave(&self);
    return 0;
}

static pid_t start(struct world *world, struct member *self, enum presence_role role)
{
    uint64_t ready = atomic_load(&world->board[READY]);
    pid_t pid = world_fork(world, self, attach_and_stay, role == PRESENCE_WRITER ? world : NULL);
    cr_assert(board_await(&world->board[READY], ready + 1));
    return pid;
}

Test(presence, counts_the_living)
{
    struct world world;
    struct member self;
    world_make(&world);
    cr_assert_not(lock_byte_taken(world.fd, LOCK_BYTE_SLOT0, PRESENCE_SLOTS));
    member_join(&world, &self, PRESENCE_WRITER);
    cr_assert(lock_byte_taken(world.fd, LOCK_BYTE_SLOT0, PRESENCE_SLOTS));
    cr_assert_eq(presence_count(self.presence), 1);
    cr_assert_eq(presence_count_role(self.presence, PRESENCE_WRITER), 0, "others only");
    pid_t writer = start(&world, &self, PRESENCE_WRITER);
    uint32_t writer_id = (uint32_t)atomic_load(&world.board[2]);
    pid_t reader = start(&world, &self, PRESENCE_READER);
    cr_assert_eq(presence_count(self.presence), 3);
    cr_assert_eq(presence_count_role(self.presence, PRESENCE_WRITER), 1);
    cr_assert_eq(presence_count_role(self.presence, PRESENCE_READER), 1);
    cr_assert(presence_alive(self.presence, writer_id));
    cr_assert(presence_alive(self.presence, presence_id(self.presence)));
    cr_assert_not(presence_alive(self.presence, 0));
    cr_assert_not(presence_alive(self.presence, UINT32_MAX));
    cr_assert_not(presence_alive(self.presence, writer_id + (1 << ID_INDEX_BITS)), "another generation");
    atomic_store(&world.board[GO], 1);
    cr_assert_eq(world_wait(writer), 0);
    cr_assert_eq(world_wait(reader), 0);
    cr_assert_eq(presence_count(self.presence), 1);
    cr_assert_not(presence_alive(self.presence, writer_id));
    cr_assert_eq(presence_dead_writers(self.presence, false), 0, "they closed in good order");
    member_leave(&self);
    cr_assert_not(lock_byte_taken(world.fd, LOCK_BYTE_SLOT0, PRESENCE_SLOTS));
    world_end(&world);
}

Test(presence, a_killed_writer_is_told_until_cleared)
{
    struct world world;
    struct member self;
    world_make(&world);
    member_join(&world, &self, PRESENCE_WRITER);
    pid_t writer = start(&world, &self, PRESENCE_WRITER);
    uint32_t id = (uint32_t)atomic_load(&world.board[2]);
    pid_t reader = start(&world, &self, PRESENCE_READER);
    kill(writer, SIGKILL);
    kill(reader, SIGKILL);
    cr_assert_eq(world_wait(writer), 1000 + SIGKILL);
    cr_assert_eq(world_wait(reader), 1000 + SIGKILL);
    cr_assert_not(presence_alive(self.presence, id));
    cr_assert_eq(presence_dead_writers(self.presence, false), 1, "a dead reader is nobody");
    struct member next;
    member_join(&world, &next, PRESENCE_READER); /* does not take the dead writer's record while others are free */
    cr_assert_eq(presence_dead_writers(self.presence, false), 1);
    cr_assert_eq(presence_dead_writers(self.presence, true), 1);
    cr_assert_eq(presence_dead_writers(self.presence, true), 0);
    member_leave(&next);
    member_leave(&self);
    world_end(&world);
}

#if STEAD_CHECKS >= 2
static const struct presence *onlooker;
static uint32_t dead_id;
static unsigned looks, seen_alive;

static void look_whether_it_lives(enum lock_step step)
{
    if (step != LOCK_STEP_ATTACH_BYTE)
        return;
    looks++;
    seen_alive += presence_alive(onlooker, dead_id);
}

/* A newcomer holds the byte of a dead reader's record, and has not written yet: for so long as it is kept from that. */
Test(presence, a_dead_reader_stays_dead_while_its_record_is_taken)
{
    struct world world;
    struct member self, next;
    world_make(&world);
    member_join(&world, &self, PRESENCE_WRITER);
    pid_t reader = start(&world, &self, PRESENCE_READER);
    dead_id = (uint32_t)atomic_load(&world.board[2]);
    cr_assert(presence_alive(self.presence, dead_id));
    kill(reader, SIGKILL);
    cr_assert_eq(world_wait(reader), 1000 + SIGKILL);
    onlooker = self.presence;
    lock_step_hook = look_whether_it_lives;
    member_join(&world, &next, PRESENCE_READER);
    lock_step_hook = NULL;
    cr_assert_eq(presence_id(next.presence) & ID_INDEX_MASK, dead_id & ID_INDEX_MASK, "it has that record");
    cr_assert_eq(looks, 1);
    cr_assert_eq(seen_alive, 0);
    member_leave(&next);
    member_leave(&self);
    world_end(&world);
}
#endif

/* All records are taken: by the living (EMFILE), or by dead writers, whose records are reused but stay counted. */
Test(presence, table_full)
{
    struct world world;
    struct member self;
    world_make(&world);
    member_join(&world, &self, PRESENCE_WRITER);
    static int fds[PRESENCE_SLOTS];
    static struct presence *others[PRESENCE_SLOTS];
    for (int i = 1; i < PRESENCE_SLOTS; i++) {
        char path[64];
        snprintf(path, sizeof path, "/proc/self/fd/%d", world.fd);
        fds[i] = open(path, O_RDWR | O_CLOEXEC);
        OK(presence_attach(&others[i], world.region, fds[i], PRESENCE_WRITER));
    }
    cr_assert_eq(presence_count(self.presence), PRESENCE_SLOTS);
    struct presence *none;
    FAILS(EMFILE, presence_attach(&none, world.region, world.fd, PRESENCE_WRITER));
    cr_assert_null(none);
    for (int i = 1; i < PRESENCE_SLOTS; i++) {
        presence_forget(others[i]); /* as if killed: the kernel lock goes, the record stays */
        close(fds[i]);
    }
    cr_assert_eq(presence_count(self.presence), 1);
    cr_assert_eq(presence_dead_writers(self.presence, false), PRESENCE_SLOTS - 1);
    struct presence *late;
    OK(presence_attach(&late, world.region, world.fd, PRESENCE_READER));
    cr_assert_eq(presence_dead_writers(self.presence, false), PRESENCE_SLOTS - 1, "none was forgotten");
    cr_assert_eq(presence_dead_writers(self.presence, true), PRESENCE_SLOTS - 1);
    cr_assert_eq(presence_dead_writers(self.presence, false), 0);
    presence_detach(late);
    member_leave(&self);
    world_end(&world);
}

Test(presence, ids_never_repeat)
{
    struct world world;
    world_make(&world);
    uint32_t last = 0;
    for (int i = 0; i < 2000; i++) {
        struct member self;
        member_join(&world, &self, PRESENCE_WRITER);
        uint32_t id = presence_id(self.presence);
        cr_assert(id != 0 && id > last, "the same record: generations only grow");
        last = id;
        member_leave(&self);
    }
    /* A record whose generations are used up is not used again. */
    atomic_store(&world.region->records[0].generation, ID_GENERATION_MAX);
    struct member self;
    member_join(&world, &self, PRESENCE_WRITER);
    cr_assert_eq(presence_id(self.presence) & ID_INDEX_MASK, 1);
    member_leave(&self);
    world_end(&world);
}

Test(presence, without_permission_one_counts_by_bytes_alone)
{
    struct world world;
    struct member self;
    world_make(&world);
    member_join(&world, &self, PRESENCE_WRITER);
    struct presence *blind;
    OK(presence_attach(&blind, NULL, world.fd, PRESENCE_READER));
    cr_assert_eq(presence_count(self.presence), 2);
    cr_assert_eq(presence_count_role(self.presence, PRESENCE_READER), 1);
    cr_assert_eq(presence_count_role(self.presence, PRESENCE_WRITER), 0);
    cr_assert_eq(presence_count(blind), 2);
    presence_detach(blind);
    cr_assert_eq(presence_count(self.presence), 1);
    member_leave(&self);
    world_end(&world);
}

Test(presence, another_layout_is_refused)
{
    struct world world;
    world_make(&world);
    OK(lock_region_verify(world.region));
    uint8_t *bytes = (uint8_t *)world.region;
    for (unsigned at = 0; at < 40; at++) {
        bytes[at] ^= 1;
        FAILS(STEAD_VERSION, lock_region_verify(world.region));
        bytes[at] ^= 1;
    }
    OK(lock_region_verify(world.region));
    world_end(&world);
}

/* The region is data from outside: whatever its bytes, every call ends, within its bounds. */
Test(presence, any_bytes_are_safe)
{
    uint64_t random = seed_get();
    for (unsigned round = 0; round < 20 * long_factor(); round++) {
        struct world world;
        struct member self;
        world_make(&world);
        uint64_t *words = (uint64_t *)world.region;
        for (unsigned i = 5; i < LOCK_REGION_BYTES / 8; i++)
            words[i] = random_next(&random) & (round % 2 == 0 ? UINT64_MAX : random_next(&random));
        int fd = dup(world.fd);
        int rc = presence_attach(&self.presence, world.region, fd, PRESENCE_WRITER);
        cr_assert(rc == 0 || rc == EMFILE);
        if (rc == 0) {
            struct rwlock_host host = {.region = world.region, .which = RWLOCK_STORE, .presence = self.presence};
            OK(rwlock_open(&self.lock, &host));
            (void)presence_dead_writers(self.presence, true);
            (void)presence_writer_pid(world.region, fd);
            for (int i = 0; i < 4; i++) {
                rc = rwlock_lock(self.lock, i % 2 == 0, i < 2 ? 0 : ms_from_now(200));
                cr_assert(rc == 0 || rc == EOWNERDEAD || rc == ENOTRECOVERABLE || rc == EBUSY || rc == ETIMEDOUT ||
                              rc == EDEADLK,
                          "%d", rc);
                if (rc == EOWNERDEAD)
                    OK(rwlock_make_consistent(self.lock));
                if (rc == 0 || rc == EOWNERDEAD)
                    OK(rwlock_unlock(self.lock));
            }
            (void)rwlock_close(self.lock);
            presence_detach(self.presence);
        }
        close(fd);
        world_end(&world);
    }
}
