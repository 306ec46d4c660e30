/* txn_fixture.c -- see txn_fixture.h. */
#include "txn_fixture.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "persist/page_checksum.h"
#include "persist/tail.h"

#define FIXTURE_CAPACITY (UINT64_C(256) << 20)

void fixture_create(struct fixture *f, uint64_t file_image_bytes, uint64_t used_bytes)
{
    if (thin_when == THIN_WHEN_DUE) /* by the clock: what a test of something else sees may not depend on it */
        thin_when = THIN_NEVER;
    const char *where = getenv("TMPDIR");
    struct statvfs memory;
    if (file_calls.fdatasync != file_calls_system.fdatasync && access("/dev/shm", W_OK) == 0 &&
        statvfs("/dev/shm", &memory) == 0 && (uint64_t)memory.f_bavail * memory.f_frsize > 2 * FIXTURE_CAPACITY)
        where = "/dev/shm"; /* no syncs, no disk either; containers have little of it */
    *f = (struct fixture){.kind = DIRTY_BEST};
    (void)snprintf(f->directory, sizeof f->directory, "%s/stead-txn-XXXXXX", where != NULL ? where : "/tmp");
    cr_assert_not_null(mkdtemp(f->directory));
    (void)snprintf(f->path, sizeof f->path, "%s/store", f->directory);
    f->options.shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq((void *)f->options.shared, MAP_FAILED);
    f->options.kind = IMAGE_PRIVATE;
    f->options.first = true;
    OK(file_resolve(&f->file, f->path));
    int fd = open(f->path, O_RDWR | O_CREAT | O_EXCL, 0600);
    cr_assert_geq(fd, 0);
    OK(fallocate(fd, 0, 0, (off_t)format_file_bytes(file_image_bytes)));
    close(fd);
    OK(file_open(&f->file, true));
    superblock_init(&f->super);
    cr_assert_eq(getrandom(f->super.id, 16, 0), 16);
    f->super.base = UINT64_C(0x7e8000000000);
    f->super.capacity_bytes = FIXTURE_CAPACITY;
    f->super.used_bytes = used_bytes;
    f->super.checksums_valid = 1;
    OK(tail_raise(f->file.fd, f->super.id, 0, 0));
    OK(superblock_write_both(&f->file, &f->super));
    file_close(&f->file);
}

int fixture_open(struct fixture *f)
{
    uint64_t bytes;
    struct txn_replaced replaced = {.count = 0};
    f->txn = NULL;
    f->replayed = false;
    memset(f->options.shared, 0, IMAGE_SHARED_BYTES);
    int rc = file_resolve(&f->file, f->path);
    if (rc == 0)
        rc = file_open(&f->file, true);
    if (rc != 0)
        return rc;
    rc = superblock_read(&f->file, &f->super);
    if (rc == 0 && f->super.state == SUPER_OPEN_LOGGED)
        rc = txn_recover(&f->file, &f->super, NULL, &f->replayed, &replaced);
    if (rc == 0)
        rc = file_size(f->file.fd, &bytes);
    if (rc != 0)
        goto close_file;
    rc = map_open(&f->map, f->file.fd, MAP_IMAGE_PRIVATE, NULL, round_down(format_image_bytes(bytes), UNIT_BYTES),
                  FIXTURE_CAPACITY, false);
    if (rc != 0)
        goto close_file;
    rc = txn_open_with(&f->txn, &f->map, &f->file, &f->super, &f->options, f->kind);
    if (rc == 0) {
        txn_retire(f->txn, &replaced);
        return 0;
    }
    map_close(&f->map);
close_file:
    txn_close_replaced(&replaced);
    file_close(&f->file);
    return rc;
}

void fixture_join(const struct fixture *f, struct fixture *mine)
{
    uint64_t bytes;
    *mine = *f;
    mine->options.first = false;
    OK(file_resolve(&mine->file, f->path));
    OK(file_open(&mine->file, true));
    OK(superblock_read(&mine->file, &mine->super));
    OK(file_size(mine->file.fd, &bytes));
    OK(map_open(&mine->map, mine->file.fd, MAP_IMAGE_PRIVATE, NULL, round_down(format_image_bytes(bytes), UNIT_BYTES),
                UINT64_C(256) << 20, false));
    OK(txn_open(&mine->txn, &mine->map, &mine->file, &mine->super, &mine->options));
}

void fixture_kill(struct fixture *f)
{
    txn_close(f->txn);
    f->txn = NULL;
    map_close(&f->map);
    file_close(&f->file);
}

void fixture_remove(struct fixture *f)
{
    DIR *directory = opendir(f->directory);
    const struct dirent *entry;
    while (directory != NULL && (entry = readdir(directory)) != NULL) {
        char name[600];
        (void)snprintf(name, sizeof name, "%s/%s", f->directory, entry->d_name);
        (void)unlink(name);
    }
    if (directory != NULL)
        closedir(directory);
    (void)rmdir(f->directory);
}

void fixture_extend(struct fixture *f, uint64_t image_bytes)
{
    OK(tail_move(f->file.fd, format_file_bytes(f->map.bytes), format_file_bytes(image_bytes), f->super.id));
    OK(map_extend_fresh(&f->map, image_bytes));
}

uint64_t fixture_bad_checksums(struct fixture *f, uint64_t used_bytes)
{
    uint64_t bad = 0;
    for (uint64_t at = 0; at < used_bytes; at += PAGE_BYTES) {
        uint8_t page[PAGE_BYTES];
        uint64_t entry;
        OK(file_read_at(f->file.fd, page, sizeof page, format_file_offset(at)));
        OK(file_read_at(f->file.fd, &entry, sizeof entry, format_checksum_offset(at)));
        bad += page_checksum(page) != entry;
    }
    return bad;
}

void fixture_copy_file(const char *from, const char *to)
{
    char buffer[65536];
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    cr_assert(in != NULL && out != NULL);
    size_t got;
    while ((got = fread(buffer, 1, sizeof buffer, in)) > 0)
        cr_assert_eq(fwrite(buffer, 1, got, out), got);
    (void)fclose(in);
    cr_assert_eq(fclose(out), 0);
}

/* ---- faults ---- */

struct faults faults;

static bool hits(int fd, bool counted)
{
    char name[FILE_PATH_BYTES];
    if (!counted)
        return false;
    if (faults.path_suffix != NULL) {
        const char *path = file_name(fd, name);
        size_t length = strlen(path), suffix = strlen(faults.path_suffix);
        if (length < suffix || strcmp(path + length - suffix, faults.path_suffix) != 0)
            return false;
    }
    long n = faults.seen++;
    return faults.fault != FAULT_NONE && n >= faults.skip && n < faults.skip + faults.count;
}

static int fail(void)
{
    errno = faults.fault == FAULT_EINTR ? EINTR : faults.error;
    return -1;
}

static ssize_t faulty_pwrite(int fd, const void *buffer, size_t bytes, off_t offset)
{
    if (!hits(fd, faults.pwrite))
        return file_calls_system.pwrite(fd, buffer, bytes, offset);
    if (faults.fault == FAULT_SHORT)
        return file_calls_system.pwrite(fd, buffer, bytes > 1 ? bytes / 2 : bytes, offset);
    return fail();
}

static ssize_t faulty_pwrite_durable(int fd, const void *buffer, size_t bytes, off_t offset)
{
    if (!hits(fd, faults.pwrite))
        return file_calls_system.pwrite_durable(fd, buffer, bytes, offset);
    if (faults.fault == FAULT_SHORT)
        return file_calls_system.pwrite_durable(fd, buffer, bytes > 1 ? bytes / 2 : bytes, offset);
    return fail();
}

static ssize_t faulty_pread(int fd, void *buffer, size_t bytes, off_t offset)
{
    if (!hits(fd, faults.pread))
        return file_calls_system.pread(fd, buffer, bytes, offset);
    if (faults.fault == FAULT_SHORT)
        return file_calls_system.pread(fd, buffer, bytes > 1 ? bytes / 2 : bytes, offset);
    return fail();
}

static int faulty_fdatasync(int fd)
{
    return hits(fd, faults.fdatasync) ? fail() : file_calls_system.fdatasync(fd);
}

static int faulty_sync_range(int fd, off_t offset, off_t bytes)
{
    return hits(fd, faults.sync_range) ? fail() : file_calls_system.sync_range(fd, offset, bytes);
}

static int faulty_fallocate(int fd, int mode, off_t offset, off_t bytes)
{
    return hits(fd, faults.fallocate) ? fail() : file_calls_system.fallocate(fd, mode, offset, bytes);
}

static int skip_sync(int fd)
{
    (void)fd;
    return 0;
}

static int skip_sync_range(int fd, off_t offset, off_t bytes)
{
    (void)fd;
    (void)offset;
    (void)bytes;
    return 0;
}

void fixture_skip_syncs(void)
{
    file_calls.fdatasync = file_calls.fsync = skip_sync;
    file_calls.sync_range = skip_sync_range;
    file_calls.pwrite_durable = file_calls_system.pwrite;
}

void faults_install(void)
{
    file_calls.pwrite = faulty_pwrite;
    file_calls.pwrite_durable = faulty_pwrite_durable;
    file_calls.pread = faulty_pread;
    file_calls.fdatasync = faulty_fdatasync;
    file_calls.sync_range = faulty_sync_range;
    file_calls.fallocate = faulty_fallocate;
}

void faults_remove(void)
{
    faults = (struct faults){0};
    file_calls = file_calls_system;
}

/* ---- a kernel with larger pages ---- */

static uint64_t kernel_page_bytes = 4096;

void fixture_kernel_pages(uint64_t bytes)
{
    dirty_kernel_page_bytes = kernel_page_bytes = bytes;
}

/* In place of the C library's, for the whole program: refuses what that kernel would, and takes as much as it would. */
int madvise(void *address, size_t bytes, int advice)
{
    if ((uintptr_t)address % kernel_page_bytes != 0) {
        errno = EINVAL;
        return -1;
    }
    return (int)syscall(SYS_madvise, address, round_up(bytes, kernel_page_bytes), advice);
}

/* ---- random numbers ---- */

uint64_t random_seed(void)
{
    const char *given = getenv("STEAD_SEED");
    uint64_t seed;
    if (given != NULL)
        seed = strtoull(given, NULL, 0);
    else
        cr_assert_eq(getrandom(&seed, sizeof seed, 0), (ssize_t)sizeof seed);
    (void)fprintf(stderr, "STEAD_SEED=0x%llx\n", (unsigned long long)seed);
    return seed;
}

uint64_t random_next(uint64_t *state) /* splitmix64 */
{
    uint64_t z = *state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

long random_rounds(long normal)
{
    const char *is_long = getenv("STEAD_LONG");
    bool by_request = is_long != NULL && is_long[0] == '1';
#if defined(__SANITIZE_THREAD__) /* minutes there, of one thread's work */
    return by_request ? normal : (normal + 7) / 8;
#elif defined(__SANITIZE_ADDRESS__) /* the release build looks for wrong results, this one for wrong accesses */
    return by_request ? normal * 4 : (normal + 3) / 4;
#else
    return by_request ? normal * 10 : normal;
#endif
}
