/*
 * dirty_faults.c -- a list of the page faults of this process, and the proof that it is all of them.
 *
 * Two software events, minor and major page faults, with a sample for each single one that carries the address.  They
 * follow the threads that exist when the store is opened and, inherited, those that these start; one ring buffer per
 * processor.  A page that became private faulted since; so "pages that faulted" contains "pages that became private".
 *
 * Proof of completeness.  The kernel adds each completed fault to the task's ru_minflt or ru_majflt, and only then emits
 * its sample.  So with F = faults counted by getrusage and S = samples seen, both since the same instant,
 *
 *     S <= F at any time, each sample belonging to one counted fault, for each thread alone and so for their sums, in
 *     whatever order the threads' are added up; F only grows; so if S, as it is when the rings were emptied, equals an F
 *     that was asked for after that, no fault was counted in between, and every counted one has its sample in our hands.
 *
 * Missing ones - kernel-mode faults where only user-mode ones may be sampled, threads that are nobody's child of those
 * we knew, a ring that overflowed, faults that mlock made - leave S < F for ever: the caller scans the page tables once,
 * and F - S, taken before that scan, is the new zero.  It must not be too large, or a later miss could hide behind it:
 * a thread caught between being counted and being sampled would be taken for one that is never sampled, and its sample,
 * when it comes, would make up for one that does not.  Those two steps are neighbours in one kernel function.  So the zero
 * is trusted only if F - S was the same before and after the scan; if not, the smaller value is kept and the next
 * collect scans again; and S > F - zero at any later time, the sign of such a sample, means incomplete as well.  (What is
 * left: a thread suspended exactly there for the length of a scan, and, between the same two later commits as its
 * awakening, a write that only the count can tell.)
 *
 * A fork child counts for itself and inherits no event (inherit_thread).  A vfork child or a process with shared memory
 * that is no thread, and a debugger, can write without our counting it: they must not write into the heap.
 *
 * W6  dirty_collect() misses no page written since it was settled (test_dirty.c: random writes by threads, read(2),
 *     forks; each answer compared with a full comparison)
 */
#include <dirent.h>
#include <errno.h>
#include <linux/perf_event.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/system.h"
#include "base/units.h"
#include "persist/dirty_internal.h"

#define RING_PAGES 32 /* 8192 samples of 16 bytes; more faults than that between two commits are worth a scan */
#define MAX_EVENTS 512
/* Two descriptors for each processor and each thread that there is at the open: a server with 60 threads would spend 240 a
 * store on two processors.  So all stores of a process together take at most this part of the files that it may open, and
 * one that comes too late scans page tables.  Of the usual 1024 a program with one thread has its reports on 128 processors. */
#define DESCRIPTORS_PART 4
/* Nobody sleeps on the rings.  The kernel keeps this number as an int: a larger one is negative to it, and then each single
 * sample raises an interrupt to wake nobody, which costs as much as the fault itself (1 us here). */
#define WAKEUP_NEVER INT32_MAX
#define DRAIN_TRIES 8                           /* other threads fault in the middle of ours */
#define ATTR_INHERIT_THREAD (UINT64_C(1) << 35) /* in the flags word; younger than some headers */

struct ring {
    struct perf_event_mmap_page *page; /* then RING_PAGES of data */
    size_t bytes;
};

struct dirty_faults {
    int event[MAX_EVENTS];
    unsigned events;
    unsigned granted; /* of them, events <= granted */
    struct ring *ring;
    unsigned rings;
    uint64_t seen;   /* S                                     */
    uint64_t offset; /* what getrusage said at the common zero */
};

static _Atomic unsigned granted_to_all; /* descriptors of all stores of the process */

static bool grant(struct dirty_faults *faults, unsigned count)
{
    struct rlimit limit;
    if (count > MAX_EVENTS || getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return false;
    unsigned before = atomic_fetch_add(&granted_to_all, count);
    if ((rlim_t)before + count > limit.rlim_cur / DESCRIPTORS_PART) {
        atomic_fetch_sub(&granted_to_all, count);
        return false;
    }
    faults->granted = count;
    return true;
}

uint64_t dirty_faults_counted(void)
{
    struct rusage usage = {0};
    if (getrusage(RUSAGE_SELF, &usage) != 0)
        return UINT64_MAX;
    uint64_t faults = (uint64_t)usage.ru_minflt + (uint64_t)usage.ru_majflt;
    return faults != 0 ? faults : UINT64_MAX; /* no process runs without one: who says so does not count */
}

/* pid's faults of one kind on one processor. */
static int open_event(struct dirty_faults *faults, pid_t pid, int cpu, uint64_t config, bool user_only)
{
    struct perf_event_attr attr = {.type = PERF_TYPE_SOFTWARE,
                                   .size = PERF_ATTR_SIZE_VER5,
                                   .config = config,
                                   .sample_period = 1,
                                   .sample_type = PERF_SAMPLE_ADDR,
                                   .wakeup_events = WAKEUP_NEVER,
                                   .inherit = 1,
                                   .exclude_kernel = user_only,
                                   .exclude_hv = 1};
    uint64_t flags;
    memcpy(&flags, (char *)&attr + offsetof(struct perf_event_attr, read_format) + 8, sizeof flags);
    flags |= ATTR_INHERIT_THREAD;
    memcpy((char *)&attr + offsetof(struct perf_event_attr, read_format) + 8, &flags, sizeof flags);
    int fd = system_above_standard((int)syscall(SYS_perf_event_open, &attr, pid, cpu, -1, PERF_FLAG_FD_CLOEXEC));
    if (fd < 0)
        return -1;
    if (faults->events == faults->granted) { /* a thread that began meanwhile */
        close(fd);
        errno = EMFILE;
        return -1;
    }
    faults->event[faults->events++] = fd;
    return fd;
}

static int open_ring(struct dirty_faults *faults, int fd)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    struct ring *ring = &faults->ring[faults->rings];
    ring->bytes = RING_PAGES * page + page;
    ring->page = mmap(NULL, ring->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (ring->page == MAP_FAILED)
        return errno;
    faults->rings++;
    return 0;
}

/* One thread on all processors; the first thread brings the rings with it. */
static int cover_thread(struct dirty_faults *faults, pid_t tid, int cpus, int *leader, bool user_only)
{
    for (int cpu = 0; cpu < cpus; cpu++) {
        for (int kind = 0; kind < 2; kind++) {
            int fd = open_event(faults, tid, cpu,
                                kind == 0 ? PERF_COUNT_SW_PAGE_FAULTS_MIN : PERF_COUNT_SW_PAGE_FAULTS_MAJ, user_only);
            if (fd < 0 && errno == ESRCH)
                return 0; /* the thread is gone */
            if (fd < 0 && errno == ENODEV)
                break; /* the processor is off: its samples would be missed, and seen to be missing */
            if (fd < 0)
                return errno;
            int rc = 0;
            if (leader[cpu] >= 0)
                rc = ioctl(fd, PERF_EVENT_IOC_SET_OUTPUT, leader[cpu]) != 0 ? errno : 0;
            else if ((rc = open_ring(faults, fd)) == 0)
                leader[cpu] = fd;
            if (rc != 0)
                return rc;
        }
    }
    return 0;
}

static int cover_process(struct dirty_faults *faults, int cpus, int *leader, bool user_only)
{
    DIR *tasks = opendir("/proc/self/task");
    if (tasks == NULL)
        return ENOTSUP;
    const struct dirent *entry;
    unsigned threads = 0;
    while ((entry = readdir(tasks)) != NULL)
        threads += entry->d_name[0] != '.';
    rewinddir(tasks);
    int rc = threads <= MAX_EVENTS && grant(faults, 2 * threads * (unsigned)cpus) ? 0 : EMFILE;
    while (rc == 0 && (entry = readdir(tasks)) != NULL)
        if (entry->d_name[0] != '.')
            rc = cover_thread(faults, (pid_t)strtol(entry->d_name, NULL, 10), cpus, leader, user_only);
    closedir(tasks);
    return rc;
}

static void release(struct dirty_faults *faults)
{
    for (unsigned i = 0; i < faults->rings; i++)
        munmap(faults->ring[i].page, faults->ring[i].bytes);
    for (unsigned i = 0; i < faults->events; i++)
        close(faults->event[i]);
    atomic_fetch_sub(&granted_to_all, faults->granted);
    faults->rings = faults->events = faults->granted = 0;
}

int dirty_faults_open(struct dirty_faults **out)
{
    long cpus = sysconf(_SC_NPROCESSORS_CONF);
    *out = NULL;
    if (cpus <= 0 || cpus > MAX_EVENTS / 2)
        return ENOTSUP;
    struct dirty_faults *faults = calloc(1, sizeof *faults);
    int *leader = malloc((size_t)cpus * sizeof *leader);
    if (faults != NULL)
        faults->ring = calloc((size_t)cpus, sizeof *faults->ring);
    int rc = faults == NULL || leader == NULL || faults->ring == NULL ? ENOMEM : ENOTSUP;
    for (int user_only = 0; rc != 0 && rc != ENOMEM && user_only < 2; user_only++) {
        for (long cpu = 0; cpu < cpus; cpu++)
            leader[cpu] = -1;
        release(faults);
        rc = cover_process(faults, (int)cpus, leader, user_only != 0);
        if (rc == 0 && faults->rings == 0)
            rc = ENOTSUP;
    }
    free(leader);
    if (rc != 0) {
        if (faults != NULL)
            dirty_faults_close(faults);
        return rc == ENOMEM ? ENOMEM : ENOTSUP;
    }
    dirty_faults_rebase(faults);
    *out = faults;
    return 0;
}

void dirty_faults_close(struct dirty_faults *faults)
{
    if (faults == NULL)
        return;
    if (faults->ring != NULL)
        release(faults);
    free(faults->ring);
    free(faults);
}

void dirty_faults_forget(struct dirty_faults *faults)
{
    if (faults != NULL)
        faults->rings = 0;
    dirty_faults_close(faults);
}

/* Empties one ring.  Records are multiples of 8 bytes and wrap around anywhere, so they are read word by word. */
static int drain_ring(struct dirty_faults *faults, const struct ring *ring, const uint8_t *base, uint64_t bytes,
                      struct page_list *list)
{
    struct perf_event_mmap_page *page = ring->page;
    size_t data_bytes = ring->bytes * RING_PAGES / (RING_PAGES + 1);
    const uint8_t *data = (const uint8_t *)page + (ring->bytes - data_bytes);
    uint64_t head = __atomic_load_n(&page->data_head, __ATOMIC_ACQUIRE), tail = page->data_tail;
    int rc = 0;
    while (tail < head) {
        struct perf_event_header header;
        uint64_t address;
        memcpy(&header, data + tail % data_bytes, sizeof header);
        memcpy(&address, data + (tail + 8) % data_bytes, sizeof address);
        if (header.size < 8)
            break; /* not a record: the count will not come out, and a scan follows */
        if (header.type == PERF_RECORD_SAMPLE) {
            faults->seen++;
            if (address - (uintptr_t)base < bytes && list != NULL && rc == 0)
                rc = page_list_add(list, (address - (uintptr_t)base) / PAGE_BYTES);
        }
        tail += header.size;
    }
    __atomic_store_n(&page->data_tail, head, __ATOMIC_RELEASE);
    return rc;
}

static int drain(struct dirty_faults *faults, const uint8_t *base, uint64_t bytes, struct page_list *list)
{
    int rc = 0;
    for (unsigned i = 0; i < faults->rings; i++) {
        int rc2 = drain_ring(faults, &faults->ring[i], base, bytes, list);
        rc = rc == 0 ? rc2 : rc;
    }
    return rc;
}

int dirty_faults_drain(struct dirty_faults *faults, const uint8_t *base, uint64_t bytes, struct page_list *list,
                       bool *complete)
{
    uint64_t before = UINT64_MAX;
    *complete = false;
    for (int i = 0; i < DRAIN_TRIES; i++) {
        int rc = drain(faults, base, bytes, list);
        if (rc != 0)
            return rc;
        uint64_t after = dirty_faults_counted();
        *complete = after - faults->offset == faults->seen && after != UINT64_MAX;
        if (*complete || before == after) /* what is missing stays missing */
            break;
        before = after;
    }
    return 0;
}

void dirty_faults_rebase(struct dirty_faults *faults)
{
    uint64_t counted = dirty_faults_counted();
    (void)drain(faults, NULL, 0, NULL);
    faults->offset = counted - faults->seen;
}

int dirty_faults_confirm(struct dirty_faults *faults, const uint8_t *base, uint64_t bytes, struct page_list *list,
                         bool *confirmed)
{
    uint64_t counted = dirty_faults_counted();
    int rc = drain(faults, base, bytes, list);
    uint64_t offset = counted - faults->seen;
    *confirmed = rc == 0 && offset == faults->offset;
    if ((int64_t)(offset - faults->offset) < 0)
        faults->offset = offset;
    return rc;
}
