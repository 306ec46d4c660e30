/*
 * test_dirty.c -- dirty_collect() misses no write (W6), whoever writes and however, and every private page stays watched
 * (W5).  Method: a mapping of a file, a shadow of what was settled; after random writes by this thread, by others and
 * by the kernel, every page that differs from its shadow must be reported.  Supersets are allowed; two tests bound
 * them.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdatomic.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "persist/dirty_internal.h"
#include "txn_fixture.h"

TestSuite(txn_dirty, .timeout = 300);

#define PAGES UINT64_C(2048)
#define BYTES (PAGES * PAGE_BYTES)

struct range {
    char path[300];
    int fd, source;
    uint8_t *base, *shadow;
    struct dirty *dirty;
    struct page_list list;
    uint64_t bytes; /* in use; the rest is mapped as the file grows */
    bool changed[PAGES];
};

static bool range_open(struct range *r, enum dirty_kind kind)
{
    const char *where = getenv("TMPDIR");
    memset(r, 0, sizeof *r);
    r->bytes = BYTES;
    (void)snprintf(r->path, sizeof r->path, "%s/stead-dirty-XXXXXX", where != NULL ? where : "/tmp");
    r->fd = mkstemp(r->path);
    cr_assert_geq(r->fd, 0);
    (void)unlink(r->path);
    r->shadow = malloc(BYTES);
    for (uint64_t i = 0; i < BYTES; i++)
        r->shadow[i] = (uint8_t)(i / 7);
    cr_assert_eq(pwrite(r->fd, r->shadow, BYTES, 0), (ssize_t)BYTES);
    r->base = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, r->fd, 0);
    cr_assert_neq((void *)r->base, MAP_FAILED);
    r->source = open("/dev/urandom", O_RDONLY);
    int rc = dirty_open(&r->dirty, r->base, kind);
    if (rc == ENOTSUP) {
        (void)fprintf(stderr, "this kind does not work here\n");
        return false;
    }
    OK(rc);
    cr_assert_eq(dirty_kind(r->dirty), kind);
    return true;
}

static void range_close(struct range *r)
{
    dirty_close(r->dirty);
    munmap(r->base, BYTES);
    free(r->shadow);
    page_list_free(&r->list);
    close(r->fd);
    close(r->source);
}

/* Collects, compares with the truth, settles. */
static void check_and_settle(struct range *r, uint64_t bytes, const char *after)
{
    r->list.count = 0;
    OK(dirty_collect(r->dirty, bytes, &r->list));
    size_t at = 0;
    for (uint64_t page = 0; page < bytes / PAGE_BYTES; page++) {
        bool differs = memcmp(r->base + page * PAGE_BYTES, r->shadow + page * PAGE_BYTES, PAGE_BYTES) != 0;
        bool reported = at < r->list.count && r->list.page[at] == page;
        cr_assert(!differs || reported, "page %llu was missed after %s", (unsigned long long)page, after);
        if (reported)
            r->changed[at++] = differs;
        if (differs)
            memcpy(r->shadow + page * PAGE_BYTES, r->base + page * PAGE_BYTES, PAGE_BYTES);
    }
    cr_assert_eq(at, r->list.count, "sorted, unique, in range");
    OK(dirty_settle(r->dirty, &r->list, r->changed));
}

struct writer {
    uint8_t *base;
    uint64_t bytes, seed;
};

static void *write_from_a_thread(void *arg)
{
    struct writer *w = arg;
    for (int i = 0; i < 20; i++)
        w->base[random_next(&w->seed) % w->bytes]++;
    return NULL;
}

static void write_randomly(struct range *r, uint64_t *random)
{
    uint64_t n = random_next(random) % 20;
    bool few = random_next(random) % 2 == 0; /* no fault, if they are in use already */
    for (uint64_t i = 0; i < n; i++) {
        uint64_t at = random_next(random) % (r->bytes - 9000), near = random_next(random) % (16 * PAGE_BYTES);
        switch (few ? 1 : random_next(random) % 5) {
        case 0:
            r->base[at]++;
            break;
        case 1:
            r->base[near]++; /* the same few pages over and over */
            break;
        case 2:
            cr_assert_gt(read(r->source, r->base + at, 1 + random_next(random) % 9000), 0);
            break;
        case 3: { /* a read, which makes no private page */
            volatile uint8_t byte = r->base[at];
            (void)byte;
            break;
        }
        default:
            memset(r->base + at, (int)i, random_next(random) % 9000);
            break;
        }
    }
    if (random_next(random) % 50 == 0) {
        struct writer writer[3];
        pthread_t thread[3];
        for (int i = 0; i < 3; i++) {
            writer[i] = (struct writer){.base = r->base, .bytes = r->bytes, .seed = random_next(random)};
            cr_assert_eq(pthread_create(&thread[i], NULL, write_from_a_thread, &writer[i]), 0);
        }
        for (int i = 0; i < 3; i++)
            pthread_join(thread[i], NULL);
    }
    if (random_next(random) % 100 == 0) {
        pid_t child = fork();
        if (child == 0)
            _exit(0);
        cr_assert_eq(waitpid(child, NULL, 0), child);
    }
}

/* Some of what was settled goes back to the file, which first takes its bytes. */
static void drop_some(struct range *r, uint64_t *random)
{
    struct page_list drop = {0};
    for (size_t i = 0; i < r->list.count; i++) {
        if (random_next(random) % 2 != 0)
            continue;
        uint64_t page = r->list.page[i];
        cr_assert_eq(pwrite(r->fd, r->shadow + page * PAGE_BYTES, PAGE_BYTES, (off_t)(page * PAGE_BYTES)),
                     (ssize_t)PAGE_BYTES);
        OK(page_list_add(&drop, page));
    }
    for (size_t i = 0; i < drop.count; i++) /* would be seen if the private copy stayed */
        r->base[drop.page[i] * PAGE_BYTES] ^= 0xff;
    OK(dirty_drop(r->dirty, &drop));
    for (size_t i = 0; i < drop.count; i++)
        cr_assert_eq(memcmp(r->base + drop.page[i] * PAGE_BYTES, r->shadow + drop.page[i] * PAGE_BYTES, PAGE_BYTES), 0,
                     "page %llu was not dropped", (unsigned long long)drop.page[i]);
    page_list_free(&drop);
}

static bool thin_now_and_then;

static void misses_nothing(enum dirty_kind kind)
{
    struct range r;
    uint64_t random = random_seed();
    if (range_open(&r, kind)) {
        for (long i = 0; i < random_rounds(600); i++) {
            r.bytes = i < 10 ? BYTES / 2 + (BYTES / 2 / 10 * (uint64_t)i) / UNIT_BYTES * UNIT_BYTES : BYTES;
            write_randomly(&r, &random);
            check_and_settle(&r, r.bytes, "random writes");
            if (random_next(&random) % 8 == 0)
                drop_some(&r, &random);
            if (thin_now_and_then && random_next(&random) % 4 == 0)
                dirty_thin(r.dirty, r.bytes);
        }
        (void)fprintf(stderr, "%llu scans\n", (unsigned long long)dirty_scans(r.dirty));
    }
    range_close(&r);
}

Test(txn_dirty, fault_reports_miss_nothing)
{
    misses_nothing(DIRTY_FAULTS);
}
/* Each range by a call of its own, as on kernels that cannot drop many at once. */
Test(txn_dirty, fault_reports_miss_nothing_where_pages_are_dropped_one_by_one)
{
    dirty_drop_at_once = false;
    misses_nothing(DIRTY_FAULTS);
}
Test(txn_dirty, pagemap_scan_misses_nothing)
{
    misses_nothing(DIRTY_SCAN);
}
/* W29: a private page that left with what was only read would show the file's bytes.  W5: one that lost its protection for
 * good would be written without a fault. */
Test(txn_dirty, pagemap_scan_misses_nothing_where_page_tables_are_kept_sparse)
{
    thin_now_and_then = true;
    misses_nothing(DIRTY_SCAN);
}
/* This system call is not made from now on, and answers an error; 0: success, with nothing done. */
static void answer_instead(unsigned call, unsigned error)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof code[0], .filter = code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        (void)fprintf(stderr, "system calls cannot be forbidden here\n");
}
/* As where userfaultfd is forbidden: the descriptor is refused, and nothing protected. */
static void forbid_protection(void)
{
    answer_instead(SYS_userfaultfd, EPERM);
}
Test(txn_dirty, pagemap_scan_misses_nothing_without_protection)
{
    forbid_protection();
    thin_now_and_then = true;
    misses_nothing(DIRTY_SCAN);
}
Test(txn_dirty, pagemap_bits_miss_nothing)
{
    misses_nothing(DIRTY_PAGEMAP);
}
Test(txn_dirty, comparison_misses_nothing)
{
    misses_nothing(DIRTY_COMPARE);
}

/* As in a system that imitates Linux and has zeros for what it does not count. */
Test(txn_dirty, W34_pagemap_scan_misses_nothing_where_faults_are_not_counted)
{
    answer_instead(SYS_getrusage, 0);
    misses_nothing(DIRTY_SCAN);
}
Test(txn_dirty, W34_pagemap_bits_miss_nothing_where_faults_are_not_counted)
{
    answer_instead(SYS_getrusage, 0);
    misses_nothing(DIRTY_PAGEMAP);
}

/* Every other page: more stretches than the kernel is asked for at once. */
static void finds_scattered_pages(enum dirty_kind kind)
{
    struct range r;
    if (range_open(&r, kind)) {
        check_and_settle(&r, BYTES, "open");
        for (int round = 0; round < 3; round++) {
            for (uint64_t page = 0; page < PAGES; page += 2)
                r.base[page * PAGE_BYTES + 7]++;
            check_and_settle(&r, BYTES, "writes to every other page");
        }
    }
    range_close(&r);
}

Test(txn_dirty, pagemap_scan_finds_scattered_pages)
{
    finds_scattered_pages(DIRTY_SCAN);
}
Test(txn_dirty, pagemap_bits_find_scattered_pages)
{
    finds_scattered_pages(DIRTY_PAGEMAP);
}

/* W34: the page tables are asked only if the process had a fault since, and a fault anywhere is enough. */
static void rests_while_nothing_faults(enum dirty_kind kind)
{
    enum { ROUNDS = 200 };
    struct range r;
    uint8_t *other = mmap(NULL, ROUNDS * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq((void *)other, MAP_FAILED);
    (void)madvise(other, ROUNDS * PAGE_BYTES, MADV_NOHUGEPAGE);
    if (range_open(&r, kind)) {
        for (int i = 0; i < 10; i++) {
            r.base[5 * PAGE_BYTES]++;
            check_and_settle(&r, BYTES, "opening");
        }
        uint64_t before = dirty_scans(r.dirty);
        for (int i = 0; i < ROUNDS; i++) {
            r.base[5 * PAGE_BYTES]++;
            check_and_settle(&r, BYTES, "a write without a fault");
        }
        uint64_t scans = dirty_scans(r.dirty) - before;
        cr_assert_lt(scans, ROUNDS / 2, "%llu scans for %d writes", (unsigned long long)scans, ROUNDS);
        before = dirty_scans(r.dirty);
        for (uint64_t i = 0; i < ROUNDS; i++) {
            other[i * PAGE_BYTES]++;
            check_and_settle(&r, BYTES, "a fault elsewhere");
        }
        cr_assert_eq(dirty_scans(r.dirty) - before, ROUNDS);
    }
    range_close(&r);
    munmap(other, ROUNDS * PAGE_BYTES);
}

Test(txn_dirty, W34_pagemap_scan_rests_while_nothing_faults)
{
    rests_while_nothing_faults(DIRTY_SCAN);
}
Test(txn_dirty, W34_pagemap_scan_rests_without_protection)
{
    forbid_protection();
    rests_while_nothing_faults(DIRTY_SCAN);
}
Test(txn_dirty, W34_pagemap_bits_rest_while_nothing_faults)
{
    rests_while_nothing_faults(DIRTY_PAGEMAP);
}

/* As a sandbox entered after the open would: the page tables answer no more. */
static unsigned forbid_pagemap(void)
{
    unsigned forbidden = 0;
    int nothing = open("/dev/null", O_RDONLY);
    for (int fd = 3; fd < 200; fd++) {
        char link[64], name[64] = "";
        (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(link, name, sizeof name - 1);
        if (n < 8 || strcmp(name + n - 8, "/pagemap") != 0)
            continue;
        cr_assert_eq(dup2(nothing, fd), fd);
        forbidden++;
    }
    close(nothing);
    return forbidden;
}

static void forbidden_later(enum dirty_kind kind)
{
    struct range r;
    uint64_t random = random_seed();
    if (range_open(&r, kind)) {
        for (int i = 0; i < 100; i++) {
            write_randomly(&r, &random);
            if (i == 50) {
                cr_assert_eq(forbid_pagemap(), 1);
                if (mlock(r.base, PAGE_BYTES) != 0 || munlock(r.base, PAGE_BYTES) != 0) /* reports that do not add up */
                    cr_assert_geq(read(r.source, r.base + 4095, 2), 0);
            }
            check_and_settle(&r, BYTES, i < 50 ? "random writes" : "random writes and no page tables");
            if (i % 8 == 7)
                drop_some(&r, &random);
        }
    }
    range_close(&r);
}

Test(txn_dirty, fault_reports_without_page_tables_become_comparison)
{
    forbidden_later(DIRTY_FAULTS);
}
Test(txn_dirty, pagemap_scan_forbidden_later_becomes_comparison)
{
    forbidden_later(DIRTY_SCAN);
}
Test(txn_dirty, pagemap_bits_forbidden_later_become_comparison)
{
    forbidden_later(DIRTY_PAGEMAP);
}

static atomic_bool older_thread_goes;

static void *touch_before_open(void *arg)
{
    struct range *r = arg;
    while (!atomic_load(&older_thread_goes)) {}
    r->base[5 * PAGE_BYTES]++;
    r->base[777 * PAGE_BYTES]++;
    return NULL;
}

/* A thread that existed before the store was opened is seen as well. */
Test(txn_dirty, threads_older_than_the_store_count)
{
    struct range r, *early = &r;
    uint8_t *base;
    if (range_open(&r, DIRTY_FAULTS)) {
        dirty_close(r.dirty);
        base = r.base;
        pthread_t thread;
        cr_assert_eq(pthread_create(&thread, NULL, touch_before_open, early), 0);
        OK(dirty_open(&r.dirty, base, DIRTY_FAULTS));
        check_and_settle(&r, BYTES, "open");
        atomic_store(&older_thread_goes, true);
        pthread_join(thread, NULL);
        check_and_settle(&r, BYTES, "a write by an older thread");
    }
    range_close(&r);
}

/* mlock makes every page private without a write or a sample; writes after it must be found all the same. */
static void survives_mlock(enum dirty_kind kind)
{
    struct range r;
    if (range_open(&r, kind)) {
        check_and_settle(&r, BYTES, "open");
        if (mlock(r.base, BYTES) == 0) {
            for (uint64_t i = 0; i < 20; i++) {
                r.base[i * 100 * PAGE_BYTES]++;
                check_and_settle(&r, BYTES, "mlock");
                r.base[i * 100 * PAGE_BYTES + 5]++;
                r.base[(i * 100 + 1) * PAGE_BYTES + 5]++;
                check_and_settle(&r, BYTES, "mlock and a settle");
            }
        }
    }
    range_close(&r);
}

Test(txn_dirty, fault_reports_survive_mlock)
{
    survives_mlock(DIRTY_FAULTS);
}
Test(txn_dirty, pagemap_scan_survives_mlock)
{
    survives_mlock(DIRTY_SCAN);
}

/* Makes a page of the range the kernel's page of zeros, as KSM does with one that was written full of zeros (use_zero_pages):
 * private, and changed.  Only a range over a file in memory lets a test do that; false: not here. */
static bool merge_into_zeros(struct range *r, uint64_t page)
{
    int file = memfd_create("stead-dirty", MFD_CLOEXEC);
    cr_assert_eq(pwrite(file, r->shadow, BYTES, 0), (ssize_t)BYTES);
    cr_assert_eq((void *)mmap(r->base, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, file, 0),
                 (void *)r->base);
    close(file);
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
    struct uffdio_api api = {.api = UFFD_API};
    struct uffdio_register range = {.range = {.start = (uintptr_t)r->base, .len = BYTES},
                                    .mode = UFFDIO_REGISTER_MODE_MISSING};
    struct uffdio_zeropage zeros = {.range = {.start = (uintptr_t)r->base + page * PAGE_BYTES, .len = PAGE_BYTES}};
    bool done = fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0 && ioctl(fd, UFFDIO_REGISTER, &range) == 0 &&
                ioctl(fd, UFFDIO_ZEROPAGE, &zeros) == 0;
    if (fd >= 0)
        close(fd);
    return done;
}

static void finds_merged_zeros(enum dirty_kind kind)
{
    struct range r;
    if (range_open(&r, kind)) {
        if (merge_into_zeros(&r, 5)) {
            cr_assert_eq(r.base[5 * PAGE_BYTES + 77], 0);
            check_and_settle(&r, BYTES, "a merge into the page of zeros");
        } else {
            (void)fprintf(stderr, "no page of zeros to be had\n");
        }
    }
    range_close(&r);
}

Test(txn_dirty, pagemap_scan_finds_pages_merged_into_zeros)
{
    finds_merged_zeros(DIRTY_SCAN);
}
Test(txn_dirty, pagemap_bits_find_pages_merged_into_zeros)
{
    finds_merged_zeros(DIRTY_PAGEMAP);
}
/* No write and no fault tells of it: what the first collect does, which always asks the page tables. */
Test(txn_dirty, fault_reports_find_pages_merged_into_zeros)
{
    finds_merged_zeros(DIRTY_FAULTS);
}

/* Paged out or not, a page that was settled and is written again is reported. */
Test(txn_dirty, pages_under_memory_pressure_are_found)
{
    struct range r;
    if (range_open(&r, DIRTY_FAULTS)) {
        uint64_t random = random_seed();
        for (int round = 0; round < 30; round++) {
            write_randomly(&r, &random);
            check_and_settle(&r, BYTES, "writes");
            (void)madvise(r.base, BYTES, MADV_PAGEOUT); /* to swap where there is some */
            (void)madvise(r.base, BYTES, MADV_COLD);
        }
    }
    range_close(&r);
}

/* The point of it all: the answer to one write is about one page, whatever is resident. */
static unsigned descriptors(void)
{
    unsigned count = 0;
    for (int fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

/* All stores of a process together leave most of the files that it may open to the program. */
Test(txn_dirty, fault_reports_take_a_part_of_the_descriptors)
{
    enum { OPENS = 64, PART = 4, OTHERS = 2 /* page tables, protection */ };
    struct range r;
    struct dirty *more[OPENS];
    unsigned opened = 0;
    struct rlimit limit = {.rlim_cur = 256, .rlim_max = 256};
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    if (range_open(&r, DIRTY_FAULTS)) {
        unsigned before = descriptors();
        while (opened < OPENS && dirty_open(&more[opened], r.base, DIRTY_FAULTS) == 0)
            opened++;
        cr_assert_lt(opened, (unsigned)OPENS, "there is no limit");
        cr_assert_leq(descriptors() - before, limit.rlim_cur / PART + OTHERS * opened);
        if (opened > 0) {
            dirty_close(more[--opened]);
            OK(dirty_open(&more[opened], r.base, DIRTY_FAULTS)); /* what was given back is there */
            opened++;
        }
        while (opened > 0)
            dirty_close(more[--opened]);
        cr_assert_eq(descriptors(), before);
    }
    range_close(&r);
}

Test(txn_dirty, fault_reports_are_small)
{
    struct range r;
    if (range_open(&r, DIRTY_FAULTS)) {
        for (uint64_t i = 0; i < PAGES; i++)
            r.base[i * PAGE_BYTES]++;
        for (int i = 0; i < 10; i++)
            check_and_settle(&r, BYTES, "a write to all pages");
        uint64_t scans = dirty_scans(r.dirty), pages = 0;
        for (uint64_t i = 0; i < 50; i++) {
            r.base[(i * 37 % PAGES) * PAGE_BYTES + 8]++;
            check_and_settle(&r, BYTES, "one write");
            pages += r.list.count;
        }
        if (dirty_scans(r.dirty) - scans < 5) /* other threads of the test may fault at the wrong moment */
            cr_assert_lt(pages, 1000, "%llu pages for 50 writes", (unsigned long long)pages);
    }
    range_close(&r);
}

/* Is any of this process's fault events told to have woken somebody?  The answer is forgotten when it was asked. */
static unsigned events_woken(void)
{
    unsigned woken = 0;
    for (int fd = 3; fd < 200; fd++) {
        char name[40], target[64];
        (void)snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
        ssize_t got = readlink(name, target, sizeof target - 1);
        target[got > 0 ? got : 0] = '\0';
        struct pollfd event = {.fd = fd, .events = POLLIN};
        woken += strstr(target, "perf_event") != NULL && poll(&event, 1, 0) == 1 && (event.revents & POLLIN) != 0;
    }
    return woken;
}

/* A wake-up is an interrupt that the processor sends itself; one for each fault doubles what a fault costs. */
Test(txn_dirty, a_fault_report_wakes_nobody)
{
    static struct range r;
    if (range_open(&r, DIRTY_FAULTS)) {
        check_and_settle(&r, BYTES, "opening");
        (void)events_woken();
        for (uint64_t page = 0; page < 64; page++)
            r.base[page * PAGE_BYTES]++;
        cr_assert_eq(events_woken(), 0);
        check_and_settle(&r, BYTES, "some writes");
    }
    range_close(&r);
}
