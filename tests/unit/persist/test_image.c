/* image.c and seal.c: what open, growth, flush, seal and close leave in the file, for each kind of image, and what
 * an end at any of their calls leaves.  The caller of image.h (gate, locks) is played by these tests. */
#include "persist/tail.h"
#include "temp_store.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "persist/page_checksum.h"

static void setup(void)
{
    store_directory();
    store_create();
}

TestSuite(image, .init = setup, .fini = store_remove, .timeout = 300);

Test(image, a_new_store_opens_with_its_first_unit_in_every_kind)
{
    for (enum image_kind kind = IMAGE_PRIVATE; kind <= IMAGE_READ; kind++) {
        store_open(kind);
        cr_assert_eq((uint64_t)(uintptr_t)image_base(store.image), store.super.base);
        cr_assert_eq(image_bytes(store.image), UNIT_BYTES);
        cr_assert_eq(image_capacity(store.image), UINT64_C(1) << 30);
        cr_assert(!image_recovered(store.image));
        store_expect(0, UNIT_BYTES, 0);
        store_check(0);
        if (kind == IMAGE_READ)
            store_drop();
        else
            store_seal(UNIT_BYTES);
        cr_assert_eq(store_count_files(), 1, "kind %d leaves one file", kind);
    }
}

Test(image, live_writes_grow_flush_and_come_back)
{
    store_open(IMAGE_SHARED);
    cr_assert_eq(store.super.state, SUPER_OPEN_LIVE);
    OK(image_extend(store.image, 70 * MIB));
    cr_assert_geq(image_bytes(store.image), 70 * MIB);
    store_fill(0, 70 * MIB, 1);
    OK(image_flush(store.image, &store.super, 70 * MIB));
    cr_assert_eq(store.super.used_bytes, 70 * MIB);
    store_seal(70 * MIB);
    struct stat facts;
    cr_assert_eq(stat(store.path, &facts), 0);
    cr_assert_eq((uint64_t)facts.st_size, format_file_bytes(70 * MIB) + TAIL_BYTES, "cut off at the used length");
    store_open(IMAGE_READ);
    cr_assert_eq(store.super.state, SUPER_SEALED);
    cr_assert_eq(store.super.checksums_valid, 1);
    store_expect(0, 70 * MIB, 1);
    store_check(0);
    store_drop();
}

Test(image, live_that_ended_without_close_is_found_open)
{
    store_open(IMAGE_SHARED);
    OK(image_extend(store.image, 2 * MIB));
    store_fill(0, 2 * MIB, 2);
    store_drop();
    struct superblock super;
    OK(file_open(&store.file, false));
    OK(superblock_read(&store.file, &super));
    cr_assert_eq(super.state, SUPER_OPEN_LIVE);
    cr_assert_eq(super.checksums_valid, 0);
    file_close(&store.file);
    store_open(IMAGE_READ); /* for a verdict: all that is in the file is there */
    store_expect(0, 2 * MIB, 2);
    store_drop();
    store_open(IMAGE_PRIVATE); /* accepted: what was found is the first commit */
    store_expect(0, 2 * MIB, 2);
    cr_assert_eq(store.super.state, SUPER_OPEN_LOGGED);
    store_seal(2 * MIB);
    store_open(IMAGE_READ);
    store_expect(0, 2 * MIB, 2);
    store_check(0);
    store_drop();
}

Test(image, inspecting_a_crashed_live_store_writes_nothing)
{
    store_open(IMAGE_SHARED);
    store_drop();
    struct superblock before, after;
    for (enum image_kind kind = IMAGE_PRIVATE; kind <= IMAGE_SHARED; kind++) {
        struct image_options options = {.kind = kind, .first = true, .inspect = true};
        uint64_t seq;
        OK(file_open(&store.file, true));
        OK(superblock_read(&store.file, &store.super));
        before = store.super;
        OK(image_open(&store.image, &store.file, &store.super, &options));
        store_expect(0, UNIT_BYTES, 0);
        FAILS(image_extend(store.image, MIB), EROFS);
        FAILS(image_commit(store.image, UNIT_BYTES, &seq), ENOTSUP);
        FAILS(image_flush(store.image, &store.super, UNIT_BYTES), EINVAL);
        FAILS(image_seal(store.image, &store.super, UNIT_BYTES, NULL, 0), EROFS);
        OK(superblock_read(&store.file, &after));
        cr_assert_eq(memcmp(&before, &after, sizeof before), 0);
        store_drop();
    }
    cr_assert_eq(store_count_files(), 1);
}

Test(image, private_commit_grow_seal_reopen)
{
    uint64_t seq;
    store_open(IMAGE_PRIVATE);
    OK(image_extend(store.image, 3 * MIB));
    store_fill(0, 3 * MIB, 3);
    OK(image_commit(store.image, 3 * MIB, &seq));
    OK(image_sync(store.image, seq));
    cr_assert_eq(image_commit_seq(store.image), seq);
    store_fill(0, UNIT_BYTES, 4);
    OK(image_rollback(store.image));
    store_expect(0, 3 * MIB, 3);
    store_seal(3 * MIB);
    cr_assert_eq(store_count_files(), 1, "no log after close");
    store_open(IMAGE_SHARED); /* another mode takes it over */
    store_expect(0, 3 * MIB, 3);
    store_seal(3 * MIB);
    store_open(IMAGE_READ);
    store_expect(0, 3 * MIB, 3);
    store_check(0);
    store_drop();
}

Test(image, a_crashed_writer_is_recovered_by_a_writer_and_replayed_by_a_reader)
{
    uint64_t seq;
    store_open(IMAGE_PRIVATE);
    OK(image_extend(store.image, 2 * MIB));
    store_fill(0, 2 * MIB, 5);
    OK(image_commit(store.image, 2 * MIB, &seq));
    OK(image_sync(store.image, seq));
    store_fill(0, 2 * MIB, 6);
    OK(image_commit(store.image, 2 * MIB, &seq));
    OK(image_sync(store.image, seq));
    store_fill(0, MIB, 7); /* never committed */
    store_drop();
    cr_assert_eq(store_count_files(), 2);
    store_open(IMAGE_READ);
    cr_assert(image_recovered(store.image));
    store_expect(0, 2 * MIB, 6);
    uint64_t word;
    OK(image_read_committed(store.image, MIB, &word, sizeof word));
    cr_assert_eq(word, store_mark(MIB, 6));
    store_drop();
    cr_assert_eq(store_count_files(), 2, "a reader leaves the log");
    store_open(IMAGE_PRIVATE);
    cr_assert(image_recovered(store.image));
    store_expect(0, 2 * MIB, 6);
    store_check(0);
    store_seal(2 * MIB);
    store_open(IMAGE_READ);
    cr_assert(!image_recovered(store.image));
    store_expect(0, 2 * MIB, 6);
    store_check(0);
    store_drop();
}

Test(image, a_live_opener_recovers_a_crashed_private_session)
{
    uint64_t seq;
    store_open(IMAGE_PRIVATE);
    store_fill(0, UNIT_BYTES, 8);
    OK(image_commit(store.image, UNIT_BYTES, &seq));
    OK(image_sync(store.image, seq));
    store_drop();
    store_open(IMAGE_SHARED);
    cr_assert(image_recovered(store.image));
    store_expect(0, UNIT_BYTES, 8);
    store_seal(UNIT_BYTES);
}

Test(image, a_missing_log_is_an_error_of_its_own)
{
    store_open(IMAGE_PRIVATE);
    store_drop();
    cr_assert_eq(unlink(store.file.log_path), 0);
    FAILS(store_try_open(IMAGE_PRIVATE, true), STEAD_LOG_MISSING);
    FAILS(store_try_open(IMAGE_READ, true), STEAD_LOG_MISSING);
    FAILS(store_try_open(IMAGE_SHARED, true), STEAD_LOG_MISSING);
}

Test(image, growth_is_amortised_and_ends_at_the_capacity)
{
    store_open(IMAGE_SHARED);
    unsigned steps = 0;
    for (uint64_t bytes = UNIT_BYTES; bytes < 512 * MIB; bytes += UNIT_BYTES) {
        if (bytes > image_bytes(store.image))
            steps++;
        OK(image_extend(store.image, bytes));
        cr_assert_geq(image_bytes(store.image), bytes);
        cr_assert_leq(image_bytes(store.image), image_capacity(store.image));
    }
    cr_assert_lt(steps, 150, "%u extensions for 512 MiB", steps);
    OK(image_extend(store.image, UINT64_C(1) << 30));
    cr_assert_eq(image_bytes(store.image), UINT64_C(1) << 30);
    FAILS(image_extend(store.image, (UINT64_C(1) << 30) + 1), ENOMEM);
    store_seal(UNIT_BYTES);
    struct stat facts;
    cr_assert_eq(stat(store.path, &facts), 0);
    cr_assert_eq((uint64_t)facts.st_size, format_file_bytes(UNIT_BYTES) + TAIL_BYTES);
}

static uint64_t reserve_limit;
static int full_disk(int fd, int mode, off_t offset, off_t bytes)
{
    if ((mode & FALLOC_FL_PUNCH_HOLE) == 0 && (uint64_t)(offset + bytes) > reserve_limit) {
        errno = ENOSPC;
        return -1;
    }
    return file_calls_system.fallocate(fd, mode, offset, bytes);
}

Test(image, a_full_disk_is_an_error_before_anything_is_used_and_slack_is_given_up_first)
{
    for (enum image_kind kind = IMAGE_PRIVATE; kind <= IMAGE_SHARED; kind++) {
        store_open(kind);
        reserve_limit = format_file_bytes(4 * MIB) + TAIL_BYTES;
        file_calls.fallocate = full_disk;
        OK(image_extend(store.image, 4 * MIB - 5));
        cr_assert_eq(image_bytes(store.image), 4 * MIB, "without slack");
        FAILS(image_extend(store.image, 4 * MIB + 1), ENOSPC);
        cr_assert_not_null(strstr(error_last_text(), store.path), "%s", error_last_text());
        cr_assert_eq(image_bytes(store.image), 4 * MIB);
        store_fill(0, 4 * MIB, 9);
        file_calls = file_calls_system;
        OK(image_extend(store.image, 4 * MIB + 1));
        store_seal(UNIT_BYTES);
    }
}

static int no_fallocate(int fd, int mode, off_t offset, off_t bytes)
{
    (void)fd, (void)mode, (void)offset, (void)bytes;
    errno = EOPNOTSUPP;
    return -1;
}

Test(image, without_fallocate_live_is_refused_and_private_writes_zeros)
{
    file_calls.fallocate = no_fallocate;
    FAILS(store_try_open(IMAGE_SHARED, true), STEAD_FILE_SYSTEM);
    store_open(IMAGE_PRIVATE);
    OK(image_extend(store.image, MIB));
    struct stat facts;
    cr_assert_eq(fstat(store.file.fd, &facts), 0);
    cr_assert_geq((uint64_t)facts.st_blocks * 512, format_file_bytes(MIB) - 3 * UNIT_BYTES, "blocks are really there");
    for (uint64_t at = UNIT_BYTES; at < MIB; at += PAGE_BYTES)
        cr_assert_eq(*store_word(at), 0);
    store_seal(UNIT_BYTES);
}

Test(image, the_file_size_limit_is_an_error_and_no_signal)
{
    struct rlimit limit, old;
    store_open(IMAGE_SHARED);
    cr_assert_eq(getrlimit(RLIMIT_FSIZE, &old), 0);
    limit = (struct rlimit){8 * MIB, old.rlim_max};
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    int rc = image_extend(store.image, 16 * MIB);
    int small = image_extend(store.image, 4 * MIB);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &old), 0);
    cr_assert_eq(rc, EFBIG);
    cr_assert_eq(small, 0);
    store_seal(UNIT_BYTES);
}

Test(image, reserves_the_blocks_of_holes_before_anybody_writes)
{
    struct stat facts;
    store_open(IMAGE_SHARED);
    OK(image_extend(store.image, 4 * MIB));
    store_fill(0, 4 * MIB, 1);
    struct image_free_range ranges[] = {{MIB, MIB}, {3 * MIB + 5, UNIT_BYTES * 2}};
    OK(image_seal(store.image, &store.super, 4 * MIB, ranges, 2));
    store_drop();
    cr_assert_eq(stat(store.path, &facts), 0);
    cr_assert_lt((uint64_t)facts.st_blocks * 512, format_file_bytes(4 * MIB) - MIB, "the free range was punched");
    store_open(IMAGE_READ);
    store_expect(0, MIB, 1);
    store_expect(2 * MIB, 3 * MIB, 1);
    cr_assert_eq(*store_word(MIB), 0);
    cr_assert_eq(*store_word(2 * MIB - PAGE_BYTES), 0);
    cr_assert_eq(*store_word(3 * MIB), store_mark(3 * MIB, 1), "only whole units inside the range");
    cr_assert_eq(*store_word(3 * MIB + UNIT_BYTES), 0);
    store_check(0);
    store_drop();
    store_open(IMAGE_PRIVATE);
    cr_assert_eq(stat(store.path, &facts), 0);
    cr_assert_geq((uint64_t)facts.st_blocks * 512, format_file_bytes(4 * MIB) - UNIT_BYTES, "and reserved again");
    store_check(0);
    store_drop();
    reserve_limit = MIB;
    file_calls.fallocate = full_disk;
    FAILS(store_try_open(IMAGE_PRIVATE, true), ENOSPC);
}

Test(image, a_tail_left_by_a_crash_reads_as_zeros_and_nobody_shortens_the_file_at_open)
{
    int fd = open(store.path, O_RDWR);
    char garbage[PAGE_BYTES];
    memset(garbage, 0xee, sizeof garbage);
    for (uint64_t at = UNIT_BYTES; at < 34 * MIB; at += MIB)
        cr_assert_eq(pwrite(fd, garbage, sizeof garbage, (off_t)format_file_offset(at)), (ssize_t)sizeof garbage);
    cr_assert_eq(pwrite(fd, garbage, 64, (off_t)format_checksum_offset(UNIT_BYTES)), 64);
    struct stat before, after;
    OK(tail_raise(fd, store.super.id, 0, 0)); /* where the crashed one had it */
    cr_assert_eq(fstat(fd, &before), 0);
    store_open(IMAGE_PRIVATE);
    cr_assert_eq(fstat(fd, &after), 0);
    cr_assert_eq(before.st_size, after.st_size);
    OK(image_extend(store.image, 34 * MIB));
    for (uint64_t at = UNIT_BYTES; at < 34 * MIB; at += UNIT_BYTES)
        cr_assert_eq(*store_word(at), 0, "offset %" PRIu64, at);
    store_seal(UNIT_BYTES);
    close(fd);
    store_open(IMAGE_READ);
    store_check(0);
    store_drop();
}

Test(image, followers_see_growth)
{
    store_open(IMAGE_SHARED);
    struct file second;
    struct image *follower;
    struct superblock super;
    struct image_options options = {.kind = IMAGE_READ, .any_address = true};
    OK(file_resolve(&second, store.path));
    OK(file_open(&second, false));
    OK(superblock_read(&second, &super));
    OK(image_open(&follower, &second, &super, &options));
    cr_assert_neq(image_base(follower), image_base(store.image));
    uint64_t was = image_bytes(follower);
    cr_assert_eq(image_follow(follower), was);
    OK(image_extend(store.image, 40 * MIB));
    store_fill(0, 40 * MIB, 2);
    cr_assert_eq(image_follow(follower), image_bytes(store.image));
    uint64_t word;
    memcpy(&word, (uint8_t *)image_base(follower) + 39 * MIB, sizeof word);
    cr_assert_eq(word, store_mark(39 * MIB, 2));
    FAILS(image_extend(follower, 80 * MIB), EROFS);
    image_close(follower);
    file_close(&second);
    store_seal(40 * MIB);
}

/* ---- several at once ---- */

enum { GROWERS = 4, STEPS = 64 };
static pthread_mutex_t *gate; /* among processes, as the heap's is; NULL: threads */

static int extend_alone(uint64_t bytes)
{
    if (gate != NULL)
        pthread_mutex_lock(gate);
    int rc = image_extend(store.image, bytes);
    if (gate != NULL)
        pthread_mutex_unlock(gate);
    return rc;
}

static void *grow(void *arg)
{
    unsigned number = *(unsigned *)arg;
    for (unsigned step = 1; step <= STEPS; step++) {
        uint64_t bytes = (step * GROWERS + number) * UNIT_BYTES * 2;
        if (extend_alone(bytes) != 0 || image_bytes(store.image) < bytes)
            return arg;
        *store_word(bytes - PAGE_BYTES) = bytes; /* usable at once */
    }
    return NULL;
}

Test(image, threads_grow_it_together)
{
    for (enum image_kind kind = IMAGE_PRIVATE; kind <= IMAGE_SHARED; kind++) {
        pthread_t thread[GROWERS];
        unsigned number[GROWERS];
        store_open(kind);
        for (unsigned i = 0; i < GROWERS; i++) {
            number[i] = i;
            cr_assert_eq(pthread_create(&thread[i], NULL, grow, &number[i]), 0);
        }
        for (unsigned i = 0; i < GROWERS; i++) {
            void *failed;
            pthread_join(thread[i], &failed);
            cr_assert_null(failed, "thread %u", i);
        }
        for (unsigned step = 1; step <= STEPS; step++)
            for (unsigned i = 0; i < GROWERS; i++) {
                uint64_t bytes = (step * GROWERS + i) * UNIT_BYTES * 2;
                cr_assert_eq(*store_word(bytes - PAGE_BYTES), bytes);
            }
        store_seal(UNIT_BYTES);
    }
}

Test(image, processes_grow_a_live_file_together)
{
    pthread_mutexattr_t among;
    store_open(IMAGE_SHARED); /* stays attached, so that the children are not first */
    gate = mmap(NULL, sizeof *gate, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert(gate != MAP_FAILED && pthread_mutexattr_init(&among) == 0 &&
              pthread_mutexattr_setpshared(&among, PTHREAD_PROCESS_SHARED) == 0 &&
              pthread_mutex_init(gate, &among) == 0);
    fflush(NULL);
    pid_t children[GROWERS];
    for (unsigned i = 0; i < GROWERS; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            unsigned number = i;
            image_forget(store.image);
            if (store_try_open(IMAGE_SHARED, false) != 0 || grow(&number) != NULL)
                _exit(1);
            image_close(store.image);
            _exit(0);
        }
    }
    for (unsigned i = 0; i < GROWERS; i++) {
        int status;
        cr_assert_eq(waitpid(children[i], &status, 0), children[i]);
        cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "process %u: %x", i, status);
    }
    (void)image_follow(store.image);
    for (unsigned step = 1; step <= STEPS; step++)
        for (unsigned i = 0; i < GROWERS; i++) {
            uint64_t bytes = (step * GROWERS + i) * UNIT_BYTES * 2;
            cr_assert_eq(*store_word(bytes - PAGE_BYTES), bytes, "%" PRIu64, bytes);
        }
    store_seal(image_bytes(store.image));
    store_open(IMAGE_READ);
    store_check(0);
    store_drop();
}

Test(image, an_address_in_use_is_named_and_any_address_moves_aside)
{
    store_open(IMAGE_READ);
    struct superblock super = store.super;
    struct image *second;
    struct image_options options = {.kind = IMAGE_READ, .first = true};
    FAILS(image_open(&second, &store.file, &super, &options), STEAD_ADDRESS_TAKEN);
    cr_assert_not_null(strstr(error_last_text(), store.path), "%s", error_last_text());
    cr_assert_null(second);
    options.any_address = true;
    OK(image_open(&second, &store.file, &super, &options));
    cr_assert_neq(image_base(second), image_base(store.image));
    image_close(second);
    store_drop();
}

Test(image, pinning_keeps_private_pages_private_only_where_written)
{
    store_open(IMAGE_PRIVATE);
    OK(image_extend(store.image, 2 * MIB));
    OK(image_pin(store.image, 2 * MIB));
    OK(image_pin(store.image, 2 * MIB));
    uint64_t seq, changed_from = image_commit_seq(store.image);
    OK(image_commit(store.image, UNIT_BYTES, &seq));
    cr_assert_eq(seq, changed_from, "pinning changed nothing");
    OK(image_unpin(store.image));
    OK(image_unpin(store.image));
    store_seal(UNIT_BYTES);
}

Test(image, a_fork_child_forgets_without_touching_anything)
{
    store_open(IMAGE_SHARED);
    store_fill(0, UNIT_BYTES, 6);
    struct superblock before, after;
    OK(superblock_read(&store.file, &before));
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        image_forget(store.image);
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    store_expect(0, UNIT_BYTES, 6);
    OK(superblock_read(&store.file, &after));
    cr_assert_eq(memcmp(&before, &after, sizeof before), 0);
    store_seal(UNIT_BYTES);
}

/* ---- ends at every call of seal ---- */

static int calls_left;
static bool spent(void)
{
    return calls_left-- <= 0;
}
#define CUT(name, parameters, arguments) \
    static int cut_##name parameters \
    { \
        if (spent()) { \
            errno = EIO; \
            return -1; \
        } \
        return file_calls_system.name arguments; \
    }
CUT(fdatasync, (int fd), (fd))
CUT(fsync, (int fd), (fd))
CUT(ftruncate, (int fd, off_t bytes), (fd, bytes))
CUT(fallocate, (int fd, int mode, off_t offset, off_t bytes), (fd, mode, offset, bytes))
CUT(sync_range, (int fd, off_t offset, off_t bytes), (fd, offset, bytes))
CUT(unlink, (const char *path), (path))
static ssize_t cut_pwrite(int fd, const void *buffer, size_t bytes, off_t offset)
{
    if (spent()) {
        errno = EIO;
        return -1;
    }
    return file_calls_system.pwrite(fd, buffer, bytes, offset);
}
static ssize_t cut_pwrite_durable(int fd, const void *buffer, size_t bytes, off_t offset)
{
    if (spent()) {
        errno = EIO;
        return -1;
    }
    return file_calls_system.pwrite_durable(fd, buffer, bytes, offset);
}

static void cut_after(int calls)
{
    calls_left = calls;
    file_calls.fdatasync = cut_fdatasync;
    file_calls.fsync = cut_fsync;
    file_calls.ftruncate = cut_ftruncate;
    file_calls.fallocate = cut_fallocate;
    file_calls.sync_range = cut_sync_range;
    file_calls.unlink = cut_unlink;
    file_calls.pwrite = cut_pwrite;
    file_calls.pwrite_durable = cut_pwrite_durable;
}

/* Process death at each call of image_seal(): the next opener finds the last commit; free ranges may hold anything. */
static void seal_cut_everywhere(enum image_kind kind)
{
    bool sealed = false;
    for (int cut = 0; !sealed; cut++) {
        uint64_t seq = 0;
        store_remove();
        store_directory();
        store_create();
        store_open(kind);
        OK(image_extend(store.image, 2 * MIB));
        store_fill(0, 2 * MIB, 1);
        if (kind == IMAGE_PRIVATE) {
            OK(image_commit(store.image, 2 * MIB, &seq));
            OK(image_sync(store.image, seq));
        }
        struct image_free_range range = {MIB, UNIT_BYTES};
        cut_after(cut);
        sealed = image_seal(store.image, &store.super, 2 * MIB, &range, 1) == 0 && calls_left >= 0;
        file_calls = file_calls_system;
        store_drop();
        store_open(IMAGE_READ);
        uint32_t state = store.super.state;
        store_expect(0, MIB, 1);
        store_expect(MIB + UNIT_BYTES, 2 * MIB, 1);
        if (state == SUPER_SEALED)
            store_check(0);
        store_drop();
        store_open(IMAGE_PRIVATE);
        store_expect(0, MIB, 1);
        store_expect(MIB + UNIT_BYTES, 2 * MIB, 1);
        store_seal(2 * MIB);
        store_open(IMAGE_READ);
        store_check(0);
        store_drop();
        cr_assert_lt(cut, 200);
        if (sealed)
            cr_assert_gt(cut, 5, "a seal of %d calls proves nothing", cut);
    }
}

Test(image, a_private_seal_may_end_at_any_call)
{
    seal_cut_everywhere(IMAGE_PRIVATE);
}

Test(image, a_live_seal_may_end_at_any_call)
{
    seal_cut_everywhere(IMAGE_SHARED);
}
