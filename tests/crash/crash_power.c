/*
 * crash_power.c -- the crash-state explorer: after every request of a recorded workload, the states that a power cut could
 * leave, each opened and judged.
 *
 *   record   the workload runs once, in a process of its own, behind crash_calls.c
 *   walk     the trace is applied to the model (crash_disk.c) event by event; wherever new states become possible, a
 *            process is forked that builds them from here on (fork is the cheapest way to keep the model unspoilt)
 *   choose   few atoms: every combination (bounded by STATES_EXHAUSTIVE); else the states that have broken databases
 *            before: all lost, all kept, cut after each request, one request lost, one alone kept, one torn at every
 *            sector, sizes or names without data and the reverse, and random ones, in grains of 512 B to 32 KiB
 *   judge    crash_trial.c; the lock unit holds noise in every other state
 *   again    some states' own recoveries are recorded and explored in the same way, up to two levels deep
 *
 * A state is opened once for each legal range of versions: the hash of its files is remembered.
 */
#include "tests/crash/crash_trial.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <xxhash.h>

#include "persist/format.h"
#include "tests/crash/crash_disk.h"

enum { SEEN_SLOTS = 1 << 20, FAILURES_MAX = 20, DEPTH_MAX = 2, SAMPLED_REQUESTS = 6 };

struct explorer { /* shared by all processes of one exploration */
    struct crash_outcome outcome;
    char state[300]; /* what is being judged: for the parent, should the judge die */
    uint64_t seen_count, seen[SEEN_SLOTS];
};

struct scene { /* where in which trace we are */
    const struct crash_case *what;
    struct explorer *explorer;
    const struct disk *disk;
    char directory[TRIAL_PATH_BYTES];
    uint64_t low, high; /* legal versions */
    uint64_t event;
    const char *event_text;
    unsigned depth; /* 0 = the workload, 1 = its recovery, 2 = the recovery's */
    struct atoms atoms;
    uint64_t random;
};

static int explore(const struct crash_case *what, struct explorer *explorer, struct disk *disk, int trace_fd,
                   uint64_t low, uint64_t high, unsigned depth);

static uint64_t next_random(uint64_t *state)
{
    *state += UINT64_C(0x9e3779b97f4a7c15);
    return XXH3_64bits(state, sizeof *state);
}

/* true: met for the first time with these legal versions */
static bool is_new(struct scene *scene, uint64_t hash)
{
    struct explorer *e = scene->explorer;
    uint64_t key[3] = {hash, scene->low, scene->high};
    uint64_t mark = XXH3_64bits(key, sizeof key) | 1;
    if (e->seen_count > SEEN_SLOTS * 3 / 4)
        return true;
    for (size_t s = mark % SEEN_SLOTS;; s = (s + 1) % SEEN_SLOTS) {
        if (e->seen[s] == mark)
            return false;
        if (e->seen[s] == 0) {
            e->seen[s] = mark;
            e->seen_count++;
            return true;
        }
    }
}

static void report_failure(struct scene *scene, const char *wrong)
{
    static const char *const where[] = {"the workload", "its recovery", "its recovery's recovery"};
    trial_fail(&scene->explorer->outcome,
               "%s, STEAD_SEED=%" PRIu64 ": power cut in %s after event %" PRIu64 " (%s), state: %s: %s",
               scene->what->name, scene->explorer->outcome.seed, where[scene->depth], scene->event, scene->event_text,
               scene->explorer->state, wrong);
}

/* Records what recovery asks of the disk when it finds this state, and explores that. */
static void recover_again(struct scene *scene, const struct disk_image *image)
{
    struct explorer *e = scene->explorer;
    char directory[TRIAL_PATH_BYTES];
    struct disk disk;
    ino_t inode[CRASH_NODES_MAX] = {0};
    int status, trace = memfd_create("trace", MFD_CLOEXEC);
    struct crash_shared *shared = crash_shared_new();
    if (trace < 0 || shared == NULL || trial_make_directory(directory) != 0)
        _exit(3);
    if (disk_image_write(image, scene->disk, directory) != 0 || disk_load(&disk, directory, inode) != 0)
        _exit(3);
    memcpy(shared->inode, inode, sizeof inode);
    shared->nodes = disk.nodes;
    shared->trace_fd = trace;
    bool close_too = next_random(&scene->random) % 2 == 0;
    pid_t child = fork();
    if (child == 0) {
        char path[TRIAL_PATH_BYTES + 16];
        stead_options options = scene->what->reopen;
        stead *store;
        alarm(TRIAL_SECONDS_MAX);
        crash_calls_install(shared, directory);
        snprintf(path, sizeof path, "%s/%s", directory, TRIAL_STORE_NAME);
        options.flags |= STEAD_EXISTING;
        int rc = stead_open(&store, path, &options);
        if (rc == 0 && close_too)
            rc = stead_close(store);
        _exit(0);
    }
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    trial_remove_directory(directory);
    crash_shared_free(shared);
    char outer[sizeof e->state];
    memcpy(outer, e->state, sizeof outer);
    e->outcome.recoveries++;
    if (status != 0)
        report_failure(scene, "recovery died");
    else if (explore(scene->what, e, &disk, trace, scene->low, scene->high, scene->depth + 1) != 0)
        _exit(3);
    memcpy(e->state, outer, sizeof outer);
    disk_release(&disk);
    close(trace);
}

/* The state that the atoms' choices make: built, opened, judged, unless it is known. */
static void try_state(struct scene *scene)
{
    static const uint64_t thin[DEPTH_MAX + 1] = {1, 6, 12}; /* one state in so many, unless STEAD_LONG */
    static const uint64_t every[DEPTH_MAX] = {100, 60};     /* one recovery in so many states is cut in turn */
    struct explorer *e = scene->explorer;
    struct disk_image image;
    if (e->outcome.failures >= FAILURES_MAX)
        return;
    if (!disk_image_build(&image, scene->disk, &scene->atoms))
        _exit(3);
    uint64_t hash = disk_image_hash(&image, scene->disk);
    if (!is_new(scene, hash)) {
        e->outcome.duplicates++;
        disk_image_release(&image);
        return;
    }
    if (!trial_is_long() && next_random(&scene->random) % thin[scene->depth] != 0) {
        disk_image_release(&image);
        return;
    }
    uint64_t nth = e->outcome.states++;
    if (nth % 2 == 1 && !disk_image_scribble(&image, scene->disk, TRIAL_STORE_NAME, LOCK_UNIT_OFFSET, UNIT_BYTES, hash))
        _exit(3);
    trial_clear_directory(scene->directory);
    if (disk_image_write(&image, scene->disk, scene->directory) != 0)
        _exit(3);
    alarm(TRIAL_SECONDS_MAX);
    const char *wrong = trial_judge(scene->what, scene->directory, scene->low, scene->high, nth % 4 == 0);
    alarm(0);
    if (wrong != NULL)
        report_failure(scene, wrong);
    if (wrong == NULL && scene->depth < DEPTH_MAX &&
        next_random(&scene->random) % (every[scene->depth] / (trial_is_long() ? 10 : 1)) == 0)
        recover_again(scene, &image);
    disk_image_release(&image);
}

static void describe(struct scene *scene, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void describe(struct scene *scene, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(scene->explorer->state, sizeof scene->explorer->state, format, arguments);
    va_end(arguments);
}

static void keep_all(struct scene *scene, int64_t data, int64_t sizes, int64_t names)
{
    for (size_t i = 0; i < scene->atoms.count; i++) {
        struct atom *atom = &scene->atoms.atom[i];
        atom->keep = atom->kind == ATOM_SECTOR ? data : atom->kind == ATOM_SIZE ? sizes : names;
    }
}

/* ---- few atoms: every state ---- */

static bool next_combination(struct scene *scene)
{
    for (size_t i = 0; i < scene->atoms.count; i++) {
        struct atom *atom = &scene->atoms.atom[i];
        for (size_t p = 0; p < scene->disk->parts; p++) {
            const struct disk_part *part = &scene->disk->part[p];
            if ((int64_t)part->order > atom->keep && atom_touched(atom, scene->disk, part)) {
                atom->keep = (int64_t)part->order;
                return true;
            }
        }
        atom->keep = -1; /* carry */
    }
    return false;
}

static bool try_exhaustive(struct scene *scene)
{
    uint64_t limit = trial_is_long() ? 4096 : scene->depth == 0 ? 300 : 64, product = 1;
    for (size_t i = 0; i < scene->atoms.count; i++) {
        product *= scene->atoms.atom[i].changes + 1;
        if (product > limit)
            return false;
    }
    uint64_t number = 0;
    keep_all(scene, -1, -1, -1);
    do {
        describe(scene, "combination %" PRIu64 " of %" PRIu64, number++, product);
        try_state(scene);
    } while (next_combination(scene));
    scene->explorer->outcome.exhaustive++;
    return true;
}

/* ---- many atoms: the dangerous states and random ones ---- */

static void try_torn(struct scene *scene, const struct disk_part *part)
{
    uint64_t first = part->offset / DISK_SECTOR, sectors = (part->offset + part->bytes - 1) / DISK_SECTOR - first + 1;
    uint64_t step = sectors <= 16 || trial_is_long() ? 1 : sectors / 8;
    for (uint64_t cut = 1; cut < sectors; cut += step) {
        for (unsigned variant = 0; variant < 4; variant++) {
            bool front = variant % 2 == 0, others = variant / 2 == 0;
            int64_t rest = others ? (int64_t)part->order - 1 : -1;
            keep_all(scene, rest, INT64_MAX, INT64_MAX);
            for (size_t i = 0; i < scene->atoms.count; i++) {
                struct atom *atom = &scene->atoms.atom[i];
                if (atom->kind == ATOM_SECTOR && atom->node == part->node && atom->sector >= first &&
                    atom->sector < first + sectors && (atom->sector < first + cut) == front)
                    atom->keep = (int64_t)part->order;
            }
            describe(scene, "write of event %" PRIu64 " torn at sector %" PRIu64 " of %" PRIu64 ", its %s kept, %s",
                     part->order, cut, sectors, front ? "front" : "back",
                     others ? "earlier ones kept" : "earlier ones lost");
            try_state(scene);
        }
    }
}

static void try_around(struct scene *scene, const struct disk_part *part)
{
    int64_t order = (int64_t)part->order;
    keep_all(scene, order, order, order);
    describe(scene, "everything up to event %" PRId64, order);
    try_state(scene);
    keep_all(scene, INT64_MAX, INT64_MAX, INT64_MAX);
    for (size_t i = 0; i < scene->atoms.count; i++)
        if (atom_touched(&scene->atoms.atom[i], scene->disk, part))
            scene->atoms.atom[i].keep = order - 1;
    describe(scene, "everything but event %" PRId64, order);
    try_state(scene);
    for (unsigned names = 0; names < 2; names++) {
        keep_all(scene, -1, names == 0 ? -1 : INT64_MAX, names == 0 ? -1 : INT64_MAX);
        for (size_t i = 0; i < scene->atoms.count; i++)
            if (atom_touched(&scene->atoms.atom[i], scene->disk, part))
                scene->atoms.atom[i].keep = order;
        describe(scene, "nothing but event %" PRId64 "%s", order, names == 0 ? "" : ", all sizes and names");
        try_state(scene);
    }
}

static void try_random(struct scene *scene)
{
    static const uint64_t grains[] = {1, 8, 64};
    unsigned rounds = trial_is_long() ? 64 : 3;
    for (unsigned r = 0; r < rounds; r++) {
        uint64_t grain = grains[r % 3], salt = next_random(&scene->random);
        for (size_t i = 0; i < scene->atoms.count; i++) {
            struct atom *atom = &scene->atoms.atom[i];
            uint64_t key[4] = {salt, (uint64_t)atom->kind, atom->node, atom->sector / grain};
            uint64_t draw = XXH3_64bits(key, sizeof key);
            uint64_t span = scene->disk->part[scene->disk->parts - 1].order - scene->disk->part[0].order + 1;
            uint64_t at = scene->disk->part[0].order + (draw >> 2) % span;
            atom->keep = draw % 4 == 0 ? -1 : draw % 4 == 1 ? INT64_MAX : (int64_t)at;
        }
        describe(scene, "random choice %" PRIx64 " in grains of %" PRIu64 " B", salt, grain * DISK_SECTOR);
        try_state(scene);
    }
}

static void try_sampled(struct scene *scene)
{
    static const struct {
        int64_t data, sizes, names;
        const char *text;
    } whole[] = {{-1, -1, -1, "all lost"},
                 {INT64_MAX, INT64_MAX, INT64_MAX, "all kept"},
                 {-1, INT64_MAX, INT64_MAX, "sizes and names without data"},
                 {INT64_MAX, -1, INT64_MAX, "data and names without sizes"},
                 {INT64_MAX, INT64_MAX, -1, "data and sizes without names"},
                 {-1, -1, INT64_MAX, "names alone"}};
    for (size_t i = 0; i < sizeof whole / sizeof whole[0]; i++) {
        keep_all(scene, whole[i].data, whole[i].sizes, whole[i].names);
        describe(scene, "%s", whole[i].text);
        try_state(scene);
    }
    const struct disk *disk = scene->disk;
    size_t most = trial_is_long() ? 200 : SAMPLED_REQUESTS;
    for (size_t i = 0; i < disk->parts; i++) {
        bool recent = i + 2 >= disk->parts;
        if (!recent && disk->parts > most && next_random(&scene->random) % disk->parts >= most)
            continue;
        try_around(scene, &disk->part[i]);
        if (disk->part[i].kind == PART_WRITE && disk->part[i].bytes > 0 && recent)
            try_torn(scene, &disk->part[i]);
    }
    try_random(scene);
}

/* ---- the walk ---- */

static const char *event_text(const struct trace_event *event, const uint8_t *payload)
{
    static char text[160];
    static const char *const names[] = {"new file",       "write", "zero",   "size",   "sync",
                                        "sync range",     "link",  "unlink", "rename", "exchange",
                                        "sync directory", "begin", "done"};
    const char *name = event->kind < sizeof names / sizeof names[0] ? names[event->kind] : "?";
    if (event->kind == TRACE_LINK || event->kind == TRACE_UNLINK || event->kind == TRACE_RENAME ||
        event->kind == TRACE_EXCHANGE)
        snprintf(text, sizeof text, "%s %s", name, payload == NULL ? "" : (const char *)payload);
    else
        snprintf(text, sizeof text, "%s file %u at %" PRIu64 ", %" PRIu64 " bytes", name, event->node, event->offset,
                 event->length);
    return text;
}

/* The states at this point, in a process of its own.  0, or an error of the trial itself. */
static int try_point(struct scene *scene)
{
    struct explorer *e = scene->explorer;
    int status;
    uint64_t failures = e->outcome.failures;
    e->outcome.points++;
    scene->random ^= next_random(&scene->random) + scene->event;
    snprintf(e->state, sizeof e->state, "none yet");
    fflush(NULL);
    pid_t child = fork();
    if (child < 0)
        return errno;
    if (child == 0) {
        if (!atoms_collect(&scene->atoms, scene->disk))
            _exit(3);
        if (!try_exhaustive(scene))
            try_sampled(scene);
        _exit(0);
    }
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 3)
        return ENOMEM;
    if (status != 0 && e->outcome.failures == failures) {
        char wrong[200];
        snprintf(wrong, sizeof wrong, "the process that opened the store %s", trial_status_text(status));
        report_failure(scene, wrong);
    }
    return 0;
}

/* New states are possible after a change, and fewer are legal after an acknowledgement. */
static bool is_point(const struct trace_event *event)
{
    return event->kind == TRACE_DONE || (event->kind >= TRACE_WRITE && event->kind <= TRACE_SIZE) ||
           (event->kind >= TRACE_LINK && event->kind <= TRACE_EXCHANGE);
}

static int walk(struct scene *scene, struct disk *disk, const uint8_t *trace, uint64_t bytes)
{
    int rc = 0;
    for (uint64_t at = 0; rc == 0 && at + sizeof(struct trace_event) <= bytes; scene->event++) {
        struct trace_event event;
        memcpy(&event, trace + at, sizeof event);
        at += sizeof event;
        if (event.payload > bytes - at)
            return EIO;
        const uint8_t *payload = event.payload == 0 ? NULL : trace + at;
        at += (event.payload + 7) / 8 * 8;
        if (!disk_apply(disk, &event, payload, scene->event))
            return EIO;
        if (event.kind == TRACE_BEGIN && event.offset > scene->high)
            scene->high = event.offset;
        if (event.kind == TRACE_DONE && event.length == 1 && event.offset > scene->low)
            scene->low = event.offset;
        scene->event_text = event_text(&event, payload);
        bool mine = scene->depth > 0 || trial_is_mine(scene->event);
        if (mine && is_point(&event) && scene->explorer->outcome.failures < FAILURES_MAX)
            rc = try_point(scene);
    }
    return rc;
}

static int explore(const struct crash_case *what, struct explorer *explorer, struct disk *disk, int trace_fd,
                   uint64_t low, uint64_t high, unsigned depth)
{
    struct stat st;
    struct scene scene = {.what = what,
                          .explorer = explorer,
                          .disk = disk,
                          .low = low,
                          .high = high,
                          .depth = depth,
                          .event_text = "the beginning",
                          .random = explorer->outcome.seed + depth * 7919};
    if (fstat(trace_fd, &st) != 0)
        return errno;
    if (st.st_size == 0)
        return 0;
    const uint8_t *trace = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, trace_fd, 0);
    if (trace == MAP_FAILED)
        return errno;
    int rc = trial_make_directory(scene.directory);
    if (rc == 0) {
        rc = walk(&scene, disk, trace, (uint64_t)st.st_size);
        trial_remove_directory(scene.directory);
    }
    munmap((void *)(uintptr_t)trace, (size_t)st.st_size);
    return rc;
}

static int record_and_explore(const struct crash_case *what, struct explorer *explorer, const char *directory,
                              struct crash_shared *shared)
{
    struct disk disk;
    int status, rc = trial_prepare(what, directory, &explorer->outcome);
    if (rc != 0)
        return rc;
    rc = disk_load(&disk, directory, shared->inode);
    if (rc != 0)
        return rc;
    shared->nodes = disk.nodes;
    shared->trace_fd = memfd_create("trace", MFD_CLOEXEC);
    if (shared->trace_fd < 0) {
        rc = errno;
        goto release_disk;
    }
    fcntl(shared->trace_fd, F_SETFL, O_APPEND);
    pid_t child = trial_start(what, directory, shared);
    if (child < 0) {
        rc = errno;
        goto close_trace;
    }
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (status != 0) {
        trial_fail(&explorer->outcome, "%s: the recorded workload %s", what->name, trial_status_text(status));
        rc = EUCLEAN;
        goto close_trace;
    }
    rc = explore(what, explorer, &disk, shared->trace_fd, what->prepared_version, what->prepared_version, 0);
close_trace:
    close(shared->trace_fd);
release_disk:
    disk_release(&disk);
    return rc;
}

int crash_power_cuts(const struct crash_case *what, struct crash_outcome *outcome)
{
    char directory[TRIAL_PATH_BYTES];
    *outcome = (struct crash_outcome){.seed = trial_seed()};
    struct explorer *explorer =
        mmap(NULL, sizeof *explorer, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    struct crash_shared *shared = crash_shared_new();
    if (explorer == MAP_FAILED || shared == NULL)
        return ENOMEM;
    explorer->outcome.seed = outcome->seed;
    int rc = trial_make_directory(directory);
    if (rc == 0) {
        rc = record_and_explore(what, explorer, directory, shared);
        trial_remove_directory(directory);
    }
    *outcome = explorer->outcome;
    crash_shared_free(shared);
    munmap(explorer, sizeof *explorer);
    return outcome->failures > 0 ? EUCLEAN : rc;
}
