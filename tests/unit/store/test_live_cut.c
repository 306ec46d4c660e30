/*
 * test_live_cut.c -- LIVE and power cuts: whatever a cut leaves, the next open detects it or finds a sealed store; and what was
 * committed, and not written since, is there.
 *
 * The crash explorer (tests/crash) replays requests, and a LIVE store's bytes reach the file by none: they are stored
 * into a shared mapping, and the kernel may write any page home at any time.  So here the disk is modelled the other
 * way round:
 *
 *   now    what the file shows (pread sees the mapping's pages): everything written so far, through any way
 *   disk   what is certainly on the disk: ranges move from now to disk when they are synced
 *
 * Just before every request to the system, and between the program's own writes, the power is cut several times: a file is
 * made of `disk` and of some of the sectors in which `now` differs (none, all, random ones), as long as either of them.
 * It is opened in a child.  Seen are the states at those moments; what the kernel writes home between two of them is
 * older bytes of the same sectors, which no check of ours could tell from them.
 *
 * Not under ThreadSanitizer: the children are forked in the middle of calls, which no program can do, and the tool rightly
 * remarks that the heap's mutex is then taken before those of the fork handlers.
 */
#if !defined(__SANITIZE_THREAD__)
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "persist/file.h"
#include "support/support.h"

#define WORDS (64 * 1024) /* 512 KiB: many pages to be half there */
#define FILE_BYTES_MAX ((size_t)16 << 20)
#define SECTOR 512
#define VARIANTS 4

enum phase { SEALED_BEFORE, WRITING, COMMITTED, CLOSING };

static struct {
    ino_t inode; /* of the store; 0: nothing is recorded */
    int fd;      /* our own, to read it */
    uint8_t *now, *disk, *cut;
    size_t now_bytes, disk_bytes;
    enum phase phase;
    uint64_t last_version, random;
    unsigned cuts, clean_before, clean_after, detected;
} live;

static uint64_t next_random(void) /* splitmix64 */
{
    uint64_t z = live.random += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

static void look(void)
{
    struct stat facts;
    cr_assert_eq(fstat(live.fd, &facts), 0);
    live.now_bytes = (size_t)facts.st_size;
    cr_assert_leq(live.now_bytes, FILE_BYTES_MAX);
    cr_assert_eq(pread(live.fd, live.now, live.now_bytes, 0), (ssize_t)live.now_bytes);
    memset(live.now + live.now_bytes, 0, FILE_BYTES_MAX - live.now_bytes);
}

static void synced(size_t from, size_t bytes)
{
    look();
    size_t end = from + bytes < live.now_bytes ? from + bytes : live.now_bytes;
    live.disk_bytes = live.now_bytes; /* a sync brings the length along that finds its bytes */
    if (from < end)
        memcpy(live.disk + from, live.now + from, end - from);
}

/* ---- what is left of it */

/* Are all words of this version? */
static bool is_whole(const uint64_t *word, uint64_t version)
{
    for (unsigned i = 0; word != NULL && i < WORDS; i++)
        if (word[i] != version)
            return false;
    return word != NULL;
}

/* In a child: 0 detected, 1 sealed as before, 2 sealed as closed; anything else is a failure of the promise. */
static int judge(const char *path)
{
    stead *s;
    file_calls = file_calls_system;
    /* SOLE goes by the page checksums of what is called sealed; LIVE, open, has none. */
    int rc = stead_open(&s, path, &(stead_options){.flags = STEAD_EXISTING});
    if (rc == 0 && (stead_check(s, NULL) != 0 || stead_close(s) != 0)) {
        fprintf(stderr, "%s\n", stead_last_error_text());
        return 16;
    }
    rc = stead_open(&s, path, &(stead_options){.sharing = STEAD_LIVE, .flags = STEAD_EXISTING});
    if (rc == STEAD_UNCLEAN || rc == STEAD_CORRUPT) {
        /* Accepted, it is a store or an error, and never anything worse. */
        rc = stead_open(&s, path,
                        &(stead_options){.sharing = STEAD_LIVE, .flags = STEAD_EXISTING | STEAD_ACCEPT_UNCLEAN});
        if (rc == 0) {
            stead_status status;
            if (stead_stat(s, &status) != 0 || !status.accepted_unclean)
                return 10;
            if (live.phase == COMMITTED && !is_whole(stead_root(s), live.last_version))
                return 17; /* nothing was written since the commit: it was not made durable */
            (void)stead_check(s, NULL);
            stead_abandon(s);
        }
        return rc == 0 || live.phase != COMMITTED ? 0 : 18;
    }
    if (rc != 0) {
        fprintf(stderr, "%s\n", stead_last_error_text());
        return 11;
    }
    const uint64_t *word = stead_root(s);
    for (unsigned i = 0; word != NULL && i < WORDS; i++)
        if (word[i] != word[0])
            return 12; /* a mix that is called clean */
    if (word == NULL || stead_check(s, NULL) != 0)
        return 13;
    uint64_t version = word[0];
    if (stead_close(s) != 0)
        return 14;
    return version == 1 ? 1 : version == live.last_version ? 2 : 15;
}

static void make_cut(unsigned variant)
{
    bool longer = next_random() % 2 == 0;
    size_t bytes = longer ? live.now_bytes : live.disk_bytes;
    memcpy(live.cut, live.disk, FILE_BYTES_MAX);
    if (live.disk_bytes < bytes)
        memset(live.cut + live.disk_bytes, 0, bytes - live.disk_bytes);
    for (size_t at = 0; at < bytes; at += SECTOR) {
        static const unsigned chance[VARIANTS] = {0, 16, 8, 1}; /* of 16 */
        if (memcmp(live.now + at, live.disk + at, SECTOR) != 0 && next_random() % 16 < chance[variant])
            memcpy(live.cut + at, live.now + at, SECTOR);
    }
    write_file(path_in("cut"), live.cut, bytes);
}

static void cut_power(void)
{
    look();
    for (unsigned variant = 0; variant < VARIANTS; variant++) {
        make_cut(variant);
        live.cuts++;
        pid_t child = fork();
        if (child == 0)
            _exit(judge(path_in("cut")));
        int verdict = reap(child);
        cr_assert_leq(verdict, 2, "cut %u, variant %u, phase %d: verdict %d", live.cuts, variant, (int)live.phase,
                      verdict);
        cr_assert(verdict != 1 || live.phase == SEALED_BEFORE, "cut %u: called sealed while it was written", live.cuts);
        cr_assert(verdict != 2 || live.phase == CLOSING, "cut %u: called closed before it was", live.cuts);
        live.detected += verdict == 0;
        live.clean_before += verdict == 1;
        live.clean_after += verdict == 2;
    }
}

/* ---- between the library and the system */

static bool is_ours(int fd)
{
    struct stat facts;
    return live.inode != 0 && fstat(fd, &facts) == 0 && facts.st_ino == live.inode;
}
static ssize_t cut_pwrite(int fd, const void *buffer, size_t bytes, off_t offset)
{
    if (is_ours(fd))
        cut_power();
    return file_calls_system.pwrite(fd, buffer, bytes, offset);
}
static ssize_t cut_pwrite_durable(int fd, const void *buffer, size_t bytes, off_t offset)
{
    bool ours = is_ours(fd);
    if (ours)
        cut_power();
    ssize_t n = file_calls_system.pwrite(fd, buffer, bytes, offset);
    if (ours) { /* written, not yet synced: torn */
        cut_power();
        synced((size_t)offset, bytes);
    }
    return n;
}
static int cut_sync_range(int fd, off_t offset, off_t bytes)
{
    if (is_ours(fd)) {
        cut_power();
        synced((size_t)offset, (size_t)bytes);
    }
    return 0;
}
static int cut_sync(int fd)
{
    return cut_sync_range(fd, 0, FILE_BYTES_MAX);
}
static int cut_ftruncate(int fd, off_t bytes)
{
    if (is_ours(fd))
        cut_power();
    return file_calls_system.ftruncate(fd, bytes);
}
static int cut_fallocate(int fd, int mode, off_t offset, off_t bytes)
{
    if (is_ours(fd))
        cut_power();
    return file_calls_system.fallocate(fd, mode, offset, bytes);
}

static void record(const char *path)
{
    struct stat facts;
    live.fd = open(path, O_RDONLY | O_CLOEXEC);
    cr_assert(live.fd >= 0 && fstat(live.fd, &facts) == 0);
    live.inode = facts.st_ino;
    live.now = calloc(1, FILE_BYTES_MAX);
    live.disk = calloc(1, FILE_BYTES_MAX);
    live.cut = calloc(1, FILE_BYTES_MAX);
    cr_assert(live.now != NULL && live.disk != NULL && live.cut != NULL);
    synced(0, FILE_BYTES_MAX);
    file_calls.pwrite = cut_pwrite;
    file_calls.pwrite_durable = cut_pwrite_durable;
    file_calls.sync_range = cut_sync_range;
    file_calls.fdatasync = file_calls.fsync = cut_sync;
    file_calls.ftruncate = cut_ftruncate;
    file_calls.fallocate = cut_fallocate;
}

static void teardown(void)
{
    file_calls = file_calls_system;
    live.inode = 0;
    support_teardown();
}

TestSuite(live_cut, .init = support_setup, .fini = teardown, .timeout = 300);

Test(live_cut, a_power_cut_is_detected_or_leaves_a_sealed_store)
{
    stead *s;
    const stead_options options = {.sharing = STEAD_LIVE};
    live.random = test_seed();
    OK(stead_open(&s, path_in("s"), &options));
    uint64_t *word = stead_calloc(s, WORDS, sizeof *word);
    cr_assert_not_null(word);
    OK(stead_set_root(s, word));
    for (unsigned i = 0; i < WORDS; i++)
        word[i] = 1;
    OK(stead_close(s));
    record(path_in("s"));
    OK(stead_open(&s, path_in("s"), &options));
    live.phase = WRITING;
    word = stead_root(s);
    for (uint64_t version = 2; version < 5; version++) {
        for (unsigned i = 0; i < WORDS; i++) {
            word[i] = version;
            if (i % (WORDS / 2) == 100)
                cut_power();
        }
        if (version == 3) { /* the file grows */
            uint64_t *more = stead_calloc(s, WORDS, 2 * sizeof *more);
            cr_assert_not_null(more);
            memset(more, 7, WORDS * sizeof *more);
        }
        live.last_version = version;
        OK(stead_commit(s, STEAD_DURABLE));
        live.phase = COMMITTED;
        cut_power();
        live.phase = WRITING;
    }
    live.phase = CLOSING;
    OK(stead_close(s));
    cut_power();
    cr_assert(live.clean_before > 0 && live.clean_after > 0 && live.detected > 20,
              "%u cuts: %u sealed before, %u detected, %u closed: nothing was proved", live.cuts, live.clean_before,
              live.detected, live.clean_after);
    fprintf(stderr, "%u cuts: %u sealed before, %u detected, %u closed\n", live.cuts, live.clean_before, live.detected,
            live.clean_after);
}

#endif
