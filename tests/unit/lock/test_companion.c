/*
 * Owners and readers from outside (companion.c, outside.c): C1-C3, forced one by one, then all together.
 *
 * Reader and owners may be of one process here: each has an open file description of its own, as in life.
 */
#include "world.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "lock/bytes.h"
#include "lock/companion.h"
#include "lock/outside.h"
#include "lock/region.h"

TestSuite(companion, .timeout = 120);

static int open_mode(int fd, int flags)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return open(path, flags | O_CLOEXEC);
}

static void owner_join(struct world *world, struct member *owner)
{
    owner->fd = open_mode(world->fd, O_RDWR);
    OK(presence_attach(&owner->presence, world->region, owner->fd, PRESENCE_WRITER));
    struct rwlock_host host = {.region = world->region,
                               .which = RWLOCK_STORE,
                               .presence = owner->presence,
                               .fd = owner->fd,
                               .companion = RWLOCK_COMPANION_ANNOUNCED};
    OK(rwlock_open(&owner->lock, &host));
}

static void announce(struct world *world, struct outside *reader, int fd)
{
    OK(lock_byte_take(fd, LOCK_BYTE_READERS, LOCK_BYTE_READ, 0));
    outside_begin(reader, world->region, fd);
}

/* Owners go by the coarse clock, which a tick moves on: after a sleep of that length it may stand where it stood. */
static void coarse_clock_passes(int64_t ns)
{
    int64_t end = companion_clock_ns() + ns;
    while (companion_clock_ns() < end)
        sleep_ns(1000000);
}

struct scene {
    struct world world;
    struct member owner;
    struct outside reader;
    int fd; /* the reader's */
    _Atomic bool stop;
};

static void scene_make(struct scene *scene)
{
    world_make(&scene->world);
    owner_join(&scene->world, &scene->owner);
    scene->fd = open_mode(scene->world.fd, O_RDONLY);
    OK(rwlock_lock(scene->owner.lock, true, 0)); /* asks: nobody there */
    OK(rwlock_unlock(scene->owner.lock));
}

static void scene_end(struct scene *scene)
{
    close(scene->fd);
    member_leave(&scene->owner);
    world_end(&scene->world);
}

Test(companion, c1_an_owner_takes_the_byte_while_a_reader_is_announced)
{
    struct scene scene;
    scene_make(&scene);
    OK(rwlock_lock(scene.owner.lock, true, 0));
    cr_assert_not(lock_byte_taken(scene.fd, LOCK_BYTE_APPLY, 1), "nobody is there: no system call");
    OK(rwlock_unlock(scene.owner.lock));
    announce(&scene.world, &scene.reader, scene.fd);
    coarse_clock_passes(COMPANION_GRACE_NS);
    const struct lock_words *words = &scene.world.region->locks[RWLOCK_STORE];
    OK(rwlock_lock(scene.owner.lock, true, 0));
    cr_assert(lock_byte_taken(scene.fd, LOCK_BYTE_APPLY, 1));
    cr_assert_eq(atomic_load(&words->by_byte), atomic_load(&words->state) & STATE_OWNER, "C2: and says so");
    OK(rwlock_unlock(scene.owner.lock));
    cr_assert_not(lock_byte_taken(scene.fd, LOCK_BYTE_APPLY, 1));
    cr_assert_eq(atomic_load(&words->by_byte), 0);
    OK(lock_byte_take(scene.fd, LOCK_BYTE_APPLY, LOCK_BYTE_READ, 0)); /* a reader is in */
    FAILS(EBUSY, rwlock_lock(scene.owner.lock, true, 0));
    cr_assert_eq(atomic_load(&words->by_byte), 0, "C2: who did not get the byte says nothing");
    OK(lock_byte_drop(scene.fd, LOCK_BYTE_APPLY));
    OK(lock_byte_drop(scene.fd, LOCK_BYTE_READERS));
    /* An owner that asks a moment too early takes the byte once more than it must. */
    bool taken = true;
    for (unsigned n = 0; taken && n < 100; n++) {
        coarse_clock_passes(COMPANION_GRACE_NS);
        OK(rwlock_lock(scene.owner.lock, true, 0));
        taken = lock_byte_taken(scene.fd, LOCK_BYTE_APPLY, 1);
        OK(rwlock_unlock(scene.owner.lock));
    }
    cr_assert_not(taken, "the reader has gone");
    scene_end(&scene);
}

Test(companion, c3_a_section_older_than_the_announcement_is_waited_for)
{
    struct scene scene;
    scene_make(&scene);
    OK(rwlock_lock(scene.owner.lock, true, 0));
    announce(&scene.world, &scene.reader, scene.fd);
    FAILS(EBUSY, outside_share(&scene.reader, 0));
    FAILS(ETIMEDOUT, outside_share(&scene.reader, ms_from_now(30)));
    cr_assert_not(lock_byte_taken(scene.owner.fd, LOCK_BYTE_APPLY, 1));
    cr_assert_not(lock_byte_taken(scene.owner.fd, LOCK_BYTE_QUEUE, 1));
    OK(rwlock_unlock(scene.owner.lock));
    OK(outside_share(&scene.reader, 0));
    OK(rwlock_lock(scene.owner.lock, false, 0)); /* sharing goes with sharing */
    FAILS(EBUSY, rwlock_lock(scene.owner.lock, true, 0));
    OK(rwlock_unlock(scene.owner.lock));
    FAILS(ETIMEDOUT, rwlock_lock(scene.owner.lock, true, ms_from_now(20)));
    outside_leave(&scene.reader);
    OK(rwlock_lock(scene.owner.lock, true, 0));
    FAILS(EBUSY, outside_share(&scene.reader, 0));
    OK(rwlock_unlock(scene.owner.lock));
    scene_end(&scene);
}

/* R4: what a reader that holds byte APPLY makes of each state of the words. */
Test(companion, c3_a_reader_goes_in_beside_an_owner_that_is_not_inside)
{
    enum { NONE, OWNER, ANOTHER };
    static const struct {
        uint64_t bits;
        int owner, by_byte;
        bool dead, known;
        int rc;
    } rows[] = {
        {0, NONE, NONE, false, false, 0},
        {0, NONE, OWNER, false, false, 0},
        {0, OWNER, NONE, false, false, EBUSY},
        {0, OWNER, NONE, false, true, 0}, /* its claim came after the reader was known */
        {0, OWNER, OWNER, false, false, 0},
        {0, OWNER, ANOTHER, false, false, EBUSY},
        {STATE_DRAIN, OWNER, NONE, false, false, 0},
        {STATE_STAND_IN, OWNER, NONE, false, false, 0},
        {STATE_BIAS | STATE_UPGRADE, OWNER, NONE, false, false, EBUSY},
        {0, OWNER, NONE, true, true, EOWNERDEAD},
        {0, OWNER, OWNER, true, false, EOWNERDEAD}, /* its bytes went with it */
        {STATE_DRAIN, OWNER, NONE, true, false, 0}, /* it left nothing half done */
        {STATE_STAND_IN, OWNER, NONE, true, false, 0},
        {STATE_INCONSISTENT, NONE, NONE, false, true, EOWNERDEAD},
        {STATE_INCONSISTENT, OWNER, OWNER, false, true, EOWNERDEAD},
        {STATE_LOST, NONE, NONE, false, true, ENOTRECOVERABLE},
    };
    struct scene scene;
    scene_make(&scene);
    struct lock_words *words = &scene.world.region->locks[RWLOCK_STORE];
    announce(&scene.world, &scene.reader, scene.fd);
    coarse_clock_passes(COMPANION_GRACE_NS);
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint32_t id = presence_id(scene.owner.presence) + (rows[i].dead ? 1 << ID_INDEX_BITS : 0);
        const uint64_t owner = (uint64_t)id << 32 | 77, of[] = {0, owner, owner + 1};
        atomic_store(&words->by_byte, of[rows[i].by_byte]);
        atomic_store(&words->state, of[rows[i].owner] | rows[i].bits);
        scene.reader.known = rows[i].known;
        int rc = outside_share(&scene.reader, 0);
        cr_assert_eq(rc, rows[i].rc, "row %u: %d", i, rc);
        cr_assert_eq(lock_byte_taken(scene.owner.fd, LOCK_BYTE_APPLY, 1), rc == 0, "row %u: in with the byte", i);
        cr_assert_eq(scene.reader.known, rows[i].known || rc == 0, "row %u", i);
        if (rc == 0)
            outside_leave(&scene.reader);
    }
    atomic_store(&words->state, 0);
    atomic_store(&words->by_byte, 0);
    scene_end(&scene);
}

static int die_inside(struct world *world, void *arg)
{
    struct member owner;
    (void)arg;
    owner_join(world, &owner);
    if (rwlock_lock(owner.lock, true, ms_from_now(SOON_MS)) == 0)
        raise(SIGKILL);
    return 1;
}

Test(companion, a_death_inside_is_told_outside_until_it_is_repaired)
{
    struct scene scene;
    scene_make(&scene);
    for (int announced_first = 0; announced_first <= 1; announced_first++) {
        if (announced_first == 0)
            cr_assert_eq(world_wait(world_fork(&scene.world, &scene.owner, die_inside, NULL)), 1000 + SIGKILL);
        announce(&scene.world, &scene.reader, scene.fd);
        if (announced_first == 1) {
            OK(outside_share(&scene.reader, 0));
            outside_leave(&scene.reader);
            cr_assert_eq(world_wait(world_fork(&scene.world, &scene.owner, die_inside, NULL)), 1000 + SIGKILL);
        }
        FAILS(EOWNERDEAD, outside_share(&scene.reader, 0));
        FAILS(EOWNERDEAD, outside_share(&scene.reader, ms_from_now(SOON_MS)));
        FAILS(EOWNERDEAD, rwlock_lock(scene.owner.lock, true, ms_from_now(SOON_MS)));
        FAILS(EBUSY, outside_share(&scene.reader, 0)); /* being repaired */
        OK(rwlock_make_consistent(scene.owner.lock));
        OK(rwlock_unlock(scene.owner.lock));
        OK(outside_share(&scene.reader, 0));
        outside_leave(&scene.reader);
        OK(lock_byte_drop(scene.fd, LOCK_BYTE_READERS));
    }
    cr_assert_eq(world_wait(world_fork(&scene.world, &scene.owner, die_inside, NULL)), 1000 + SIGKILL);
    announce(&scene.world, &scene.reader, scene.fd);
    FAILS(EOWNERDEAD, rwlock_lock(scene.owner.lock, true, ms_from_now(SOON_MS)));
    OK(rwlock_unlock(scene.owner.lock));
    FAILS(ENOTRECOVERABLE, outside_share(&scene.reader, 0));
    scene_end(&scene);
}

#if STEAD_CHECKS >= 2

static _Thread_local bool stops_here;
static _Atomic int stage; /* 1: stands behind its claim; 2: may go on; 3: inside; 4: may leave */

static void await_stage(int wanted)
{
    while (atomic_load(&stage) < wanted)
        sleep_ns(20000);
}

static enum lock_step stops_at = LOCK_STEP_CLAIMED;

static void stop_here(enum lock_step step)
{
    if (!stops_here || step != stops_at)
        return;
    stops_here = false;
    atomic_store(&stage, 1);
    await_stage(2);
}

static void *own_for_a_while(void *arg)
{
    stops_here = true;
    intptr_t rc = rwlock_lock(arg, true, ms_from_now(SOON_MS));
    atomic_store(&stage, 3);
    await_stage(4);
    return (void *)(rc != 0 ? rc : rwlock_unlock(arg));
}

/* However long an owner stands between its claim and its look at the clock. */
Test(companion, c1_the_clock_is_read_after_the_claim)
{
    for (int known = 0; known <= 1; known++) {
        struct scene scene;
        pthread_t thread;
        void *result;
        scene_make(&scene);
        atomic_store(&stage, 0);
        lock_step_hook = stop_here;
        if (known == 0) { /* the owner's last ask is fresh and heard of nobody */
            OK(rwlock_lock(scene.owner.lock, true, 0));
            OK(rwlock_unlock(scene.owner.lock));
        } else {
            announce(&scene.world, &scene.reader, scene.fd);
            OK(outside_share(&scene.reader, 0));
            outside_leave(&scene.reader);
        }
        cr_assert_eq(pthread_create(&thread, NULL, own_for_a_while, scene.owner.lock), 0);
        await_stage(1);
        if (known == 0) {
            announce(&scene.world, &scene.reader, scene.fd);
            FAILS(EBUSY, outside_share(&scene.reader, 0)); /* for all it can see, that owner is inside */
            atomic_store(&stage, 2);
        } else { /* it knows better, and may go in before the owner */
            OK(outside_share(&scene.reader, 0));
            atomic_store(&stage, 2);
            sleep_ns(50000000);
            cr_assert_neq(atomic_load(&stage), 3, "the owner went in beside the reader");
            outside_leave(&scene.reader);
        }
        await_stage(3);
        cr_assert(lock_byte_taken(scene.fd, LOCK_BYTE_APPLY, 1), "inside without the byte");
        FAILS(EBUSY, outside_share(&scene.reader, 0));
        atomic_store(&stage, 4);
        pthread_join(thread, &result);
        cr_assert_null(result);
        lock_step_hook = NULL;
        OK(outside_share(&scene.reader, 0));
        outside_leave(&scene.reader);
        scene_end(&scene);
    }
}

/* However long it stands between its ask, which missed a reader, and noting it: the next ask comes in time. */
Test(companion, c1_an_ask_is_as_old_as_its_begin)
{
    struct scene scene;
    pthread_t thread;
    void *result;
    scene_make(&scene);
    coarse_clock_passes(2 * COMPANION_PERIOD_NS);
    atomic_store(&stage, 0);
    stops_at = LOCK_STEP_READERS_ASKED;
    lock_step_hook = stop_here;
    cr_assert_eq(pthread_create(&thread, NULL, own_for_a_while, scene.owner.lock), 0);
    await_stage(1);
    announce(&scene.world, &scene.reader, scene.fd);
    coarse_clock_passes(2 * COMPANION_GRACE_NS);
    atomic_store(&stage, 2);
    await_stage(3);
    atomic_store(&stage, 4);
    pthread_join(thread, &result);
    cr_assert_null(result);
    lock_step_hook = NULL;
    OK(rwlock_lock(scene.owner.lock, true, 0));
    cr_assert(lock_byte_taken(scene.fd, LOCK_BYTE_APPLY, 1), "the reader was announced long ago");
    OK(rwlock_unlock(scene.owner.lock));
    scene_end(&scene);
}

#endif

/* An owner that leaves in good order, and its process with it, while a reader looks at it: by the words alone, so that both come
 * within one look. */
static void *own_and_leave(void *arg)
{
    struct scene *scene = arg;
    int fd = open_mode(scene->world.fd, O_RDWR);
    struct lock_words *words = &scene->world.region->locks[RWLOCK_STORE];
    while (!atomic_load(&scene->stop)) {
        struct presence *presence;
        OK(presence_attach(&presence, scene->world.region, fd, PRESENCE_WRITER));
        atomic_store(&words->state, (uint64_t)presence_id(presence) << 32 | 77);
        cpu_relax();
        atomic_store(&words->state, 0);
        presence_detach(presence);
    }
    close(fd);
    return NULL;
}

Test(companion, c3_an_owner_that_leaves_while_it_is_looked_at_is_no_death)
{
    struct scene scene;
    pthread_t thread;
    scene_make(&scene);
    atomic_init(&scene.stop, false);
    announce(&scene.world, &scene.reader, scene.fd);
    OK(outside_share(&scene.reader, 0));
    outside_leave(&scene.reader);
    cr_assert_eq(pthread_create(&thread, NULL, own_and_leave, &scene), 0);
    int64_t end = clock_ns() + 500000000 * (int64_t)long_factor();
    for (long looks = 0; clock_ns() < end; looks++) {
        int rc = outside_share(&scene.reader, 0);
        cr_assert(rc == 0 || rc == EBUSY, "look %ld: %d", looks, rc);
        if (rc == 0)
            outside_leave(&scene.reader);
    }
    atomic_store(&scene.stop, true);
    pthread_join(thread, NULL);
    scene_end(&scene);
}

/* ---- all together */

enum { PAIR_A, PAIR_B, STOP, TORN, SECTIONS, SEED };

static int write_pairs(struct world *world, void *arg)
{
    struct member owner;
    (void)arg;
    owner_join(world, &owner);
    _Atomic uint64_t *board = world->board;
    while (atomic_load(&board[STOP]) == 0) {
        if (rwlock_lock(owner.lock, true, ms_from_now(SOON_MS)) != 0)
            return 2;
        atomic_store_explicit(&board[PAIR_A], board[PAIR_A] + 1, memory_order_relaxed);
        for (unsigned i = 0; i < 200; i++)
            cpu_relax();
        atomic_store_explicit(&board[PAIR_B], board[PAIR_B] + 1, memory_order_relaxed);
        if (rwlock_unlock(owner.lock) != 0)
            return 3;
    }
    member_leave(&owner);
    return 0;
}

/* Comes, looks a few times, goes, again and again: what owners know of it is always about to be wrong. */
static int read_pairs(struct world *world, void *arg)
{
    uint64_t state = atomic_load(&world->board[SEED]) + (uint64_t)(uintptr_t)arg;
    int fd = open_mode(world->fd, O_RDONLY);
    _Atomic uint64_t *board = world->board;
    while (atomic_load(&board[STOP]) == 0) {
        struct outside reader;
        announce(world, &reader, fd);
        for (uint64_t n = random_next(&state) % 8; n > 0; n--) {
            if (outside_share(&reader, ms_from_now(SOON_MS)) != 0)
                return 2;
            uint64_t b = atomic_load(&board[PAIR_B]);
            sleep_ns((int64_t)(random_next(&state) % 100000));
            if (atomic_load(&board[PAIR_A]) != b)
                atomic_fetch_add(&board[TORN], 1);
            atomic_fetch_add(&board[SECTIONS], 1);
            outside_leave(&reader);
        }
        if (lock_byte_drop(fd, LOCK_BYTE_READERS) != 0)
            return 3;
        sleep_ns((int64_t)(random_next(&state) % (2 * COMPANION_PERIOD_NS)));
    }
    return 0;
}

Test(companion, c2_readers_that_come_and_go_never_see_half_a_section)
{
    struct world world;
    pid_t pids[4];
    world_make(&world);
    world.board[SEED] = seed_get();
    for (unsigned i = 0; i < 4; i++)
        pids[i] = world_fork(&world, NULL, i < 2 ? write_pairs : read_pairs, (void *)(uintptr_t)i);
    sleep_ns((int64_t)long_factor() * 1500000000);
    while (world.board[SECTIONS] == 0) /* or the suite's time is up */
        sleep_ns(10000000);
    world.board[STOP] = 1;
    for (unsigned i = 0; i < 4; i++)
        cr_assert_eq(world_wait(pids[i]), 0);
    printf("companion: %llu exclusive sections, %llu of readers\n", (unsigned long long)world.board[PAIR_A],
           (unsigned long long)world.board[SECTIONS]);
    cr_assert_eq(world.board[TORN], 0, "%llu of %llu sections saw half a pair", (unsigned long long)world.board[TORN],
                 (unsigned long long)world.board[SECTIONS]);
    cr_assert_eq(world.board[PAIR_A], world.board[PAIR_B]);
    world_end(&world);
}
