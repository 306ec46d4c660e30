/*
 * dirty.c -- choose a way to find changed pages, and keep watch over those that stay private.
 *
 * A page of the range is in one of three states, after each dirty_settle():
 *
 *     clean      no private copy: a first write faults and makes one
 *     hot        private and writable, and in the list of hot pages: a candidate of every collect
 *     protected  private, write-protected by userfaultfd: the next write faults
 *
 *     clean, protected --write fault--> reported --settle--> protected
 *                                          |                    ^
 *                                          |                    +-- unchanged for HOT_IDLE commits --+
 *                                          +--settle, changed HOT_RECENT commits ago or later--> hot +
 *
 * So a page that is private, writable and not hot exists only after a fault that dirty_collect() reports, or, where
 * faults may have been missed, that the page tables tell ("written": not protected).  A page that cannot be protected
 * stays hot, however many there are.  A page in use commit after commit (a counter, the heap's own tables) becomes hot and
 * costs a comparison; one of many random pages costs one protection and, if ever, one fault without a copy.  Which pages
 * changed lately is remembered in a small table, by the page's number; what collides there is forgotten, which costs a
 * fault.
 *
 * Without userfaultfd (DIRTY_PAGEMAP, DIRTY_COMPARE, and DIRTY_SCAN on some systems) there are no states: every private
 * page is a candidate every time, until dirty_drop() gives it back to the file.
 *
 * Where nothing reports faults, each collect scans the page tables, unless the process's count of faults (getrusage) is what it
 * was when the last scan began: then no clean page was written since, nor a protected one, and the candidates are the
 * pages in the list of hot ones.  Where nothing is protected that list holds, for this, all private pages of the last scan.  The
 * count is asked for before the scan: a fault during it makes the next collect scan again.  A count of 0 is none (systems that
 * imitate Linux have zeros for what they do not count).  Whoever writes to the range has
 * finished when a collect begins (dirty.h), and a fault is counted before the write that caused it is made; only a kernel
 * thread that works for somebody else's memory is not in the count, as with fault reports (dirty_faults.c).
 *
 * A scan costs by what is mapped and private.  The caller is told how much (dirty_cost_ns), brings home and drops what need not be
 * private, and asks that what is not private leave the page tables (dirty_thin; thin.c says when).
 *
 * What worked when the store was opened may be forbidden later (a program that enters a sandbox).  Then every page is compared
 * from that moment on: the range had all its reports until then, and comparison needs none.
 *
 * Kernels with pages of 16 or 64 KiB: a first write makes all of our pages in one of theirs private, and a fault, a
 * protection and madvise are about all of them.  Fault reports and protection are not used there: every private page is
 * a candidate each time, which is right whatever their size.  What is dropped in part is read from the file instead
 * (dirty_drop).
 *
 * Fresh space is anonymous memory (map.c).  One fault there may bring a huge page, and khugepaged makes one without a
 * fault: pages are then there that no report named, and written without any.  So reports only tell that the fresh range
 * was touched; what is in it the page tables say, at each collect until they say "nothing".  The first page cannot come
 * without a fault (khugepaged collapses only around a page), so an untouched range costs nothing.
 *
 * W5  every private page outside the fresh range is hot, protected or reported since it was settled (test_dirty.c)
 */
#include "persist/dirty.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/deadline.h"
#include "base/system.h"
#include "base/units.h"
#include "persist/dirty_internal.h"
#include "persist/file.h"
#include "persist/map.h"

#define HOT_IDLE 4            /* collects without a change after which a page is no longer hot */
#define HOT_RECENT 4          /* a page that changed twice within so many collects is hot */
#define RECENT_SLOTS 1024     /* power of two */
#define MISSES_BEFORE_PAUSE 8 /* incomplete fault reports in a row ... */
#define PAUSE_COLLECTS 64     /* ... after which this many collects scan without asking */

struct recent {
    uint64_t page_plus_1, collect;
};

struct hot_page {
    uint64_t page;
    unsigned idle;
};

struct dirty {
    uint8_t *base;
    enum dirty_kind kind;
    uint64_t frame_pages; /* of ours in one of the kernel's */
    int file_fd;
    int pagemap_fd;
    struct dirty_protect protect; /* fd -1: no page is ever protected */
    struct dirty_faults *faults;
    uint64_t counted;     /* faults of the process, before the last scan */
    uint64_t scan_ns;     /* of the last collect                         */
    struct hot_page *hot; /* sorted by page                              */
    size_t hot_count, hot_room;
    uint64_t bytes; /* of the range, at the last collect */
    uint64_t collects;
    struct recent recent[RECENT_SLOTS]; /* pages that changed, and when */
    bool scan_next;                     /* nothing is known yet, or something went wrong */
    bool fresh_touched;                 /* pages of the fresh range may be there: its page tables are asked */
    unsigned misses, pause;
    uint64_t scans;
};

uint64_t dirty_kernel_page_bytes;

static int open_kind(struct dirty *dirty, enum dirty_kind kind)
{
    int rc = 0;
    dirty->kind = kind;
    if (kind == DIRTY_FAULTS && dirty->frame_pages > 1)
        return ENOTSUP;
    if ((kind == DIRTY_FAULTS || kind == DIRTY_SCAN) && dirty->frame_pages == 1) {
        rc = dirty_protect_open(&dirty->protect);
        if (kind == DIRTY_FAULTS && rc != 0)
            return rc;
    }
    if (kind != DIRTY_COMPARE) {
        struct page_list none = {0};
        dirty->pagemap_fd = system_above_standard(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
        if (dirty->pagemap_fd < 0)
            return ENOTSUP;
        if (kind == DIRTY_PAGEMAP)
            rc = dirty_scan_bits(dirty->pagemap_fd, dirty->base, 0, UNIT_BYTES, &none);
        else /* asked about the range itself: whatever it answers, it is implemented */
            rc = dirty_scan_ioctl(dirty->pagemap_fd, dirty->base, 0, UNIT_BYTES, false, false, &none);
        page_list_free(&none);
        if (rc != 0)
            return rc == ENOMEM ? ENOMEM : ENOTSUP;
    }
    return kind == DIRTY_FAULTS ? dirty_faults_open(&dirty->faults) : 0;
}

static void close_kind(struct dirty *dirty)
{
    dirty_faults_close(dirty->faults);
    dirty->faults = NULL;
    dirty_protect_close(&dirty->protect);
    if (dirty->pagemap_fd >= 0)
        close(dirty->pagemap_fd);
    dirty->pagemap_fd = -1;
}

int dirty_open(struct dirty **out, uint8_t *base, enum dirty_kind kind)
{
    *out = NULL;
    struct dirty *dirty = calloc(1, sizeof *dirty);
    if (dirty == NULL)
        return ENOMEM;
    *dirty = (struct dirty){.base = base, .file_fd = -1, .pagemap_fd = -1, .protect = {.fd = -1}, .scan_next = true};
    uint64_t kernel_page = dirty_kernel_page_bytes != 0 ? dirty_kernel_page_bytes : (uint64_t)sysconf(_SC_PAGESIZE);
    dirty->frame_pages = max_u64(kernel_page / PAGE_BYTES, 1);
    enum dirty_kind first = kind == DIRTY_BEST ? DIRTY_FAULTS : kind;
    enum dirty_kind last = kind == DIRTY_BEST ? DIRTY_COMPARE : kind;
    int rc = ENOTSUP;
    for (int k = (int)first; k <= (int)last; k++) {
        rc = open_kind(dirty, (enum dirty_kind)k);
        if (rc == 0) {
            *out = dirty;
            return 0;
        }
        close_kind(dirty);
    }
    free(dirty);
    return rc;
}

void dirty_close(struct dirty *dirty)
{
    if (dirty == NULL)
        return;
    close_kind(dirty);
    free(dirty->hot);
    free(dirty);
}

void dirty_forget(struct dirty *dirty)
{
    if (dirty == NULL)
        return;
    dirty_faults_forget(dirty->faults);
    dirty->faults = NULL;
    dirty_close(dirty);
}

enum dirty_kind dirty_kind(const struct dirty *dirty)
{
    return dirty->kind;
}

uint64_t dirty_scans(const struct dirty *dirty)
{
    return dirty->scans;
}

/* Pages that were protected become writable as their guard is closed: they are compared as all others are. */
static void compare_from_now_on(struct dirty *dirty)
{
    close_kind(dirty);
    dirty->kind = DIRTY_COMPARE;
    dirty->hot_count = 0;
}

/* fresh: it is of the fresh range; pages that are protected lie before that. */
static int scan(struct dirty *dirty, uint64_t from, uint64_t to, bool fresh, struct page_list *list)
{
    int rc = 0;
    if (from >= to)
        return 0;
    if (dirty->kind == DIRTY_PAGEMAP)
        rc = dirty_scan_bits(dirty->pagemap_fd, dirty->base, from, to, list);
    else if (dirty->kind != DIRTY_COMPARE)
        rc = dirty_scan_ioctl(dirty->pagemap_fd, dirty->base, from, to, !fresh && dirty->protect.fd >= 0, fresh, list);
    if (rc == ENOMEM)
        return rc;
    if (rc != 0)
        compare_from_now_on(dirty);
    return dirty->kind == DIRTY_COMPARE ? page_list_add_range(list, from / PAGE_BYTES, to / PAGE_BYTES) : 0;
}

/* Does an unchanged count of faults mean that a scan would say what the last one said? */
static bool counts_faults(const struct dirty *dirty)
{
    return (dirty->kind == DIRTY_SCAN || dirty->kind == DIRTY_PAGEMAP) && dirty->frame_pages == 1;
}

/* Nothing is protected: the private pages, in the list from `first` on, are candidates also of a collect without a scan. */
static int know_private(struct dirty *dirty, const struct page_list *list, size_t first)
{
    size_t count = list->count - first;
    if (count > dirty->hot_room) {
        struct hot_page *hot = realloc(dirty->hot, count * sizeof *hot);
        if (hot == NULL)
            return ENOMEM;
        dirty->hot = hot;
        dirty->hot_room = count;
    }
    for (size_t i = 0; i < count; i++)
        dirty->hot[i] = (struct hot_page){.page = list->page[first + i], .idle = 0};
    dirty->hot_count = count;
    return 0;
}

static int scan_all(struct dirty *dirty, uint64_t bytes, uint64_t fresh_from, struct page_list *list)
{
    uint64_t of_file = min_u64(fresh_from, bytes);
    size_t before = list->count;
    int64_t begun_ns = clock_ns();
    dirty->scans++;
    int rc = scan(dirty, 0, of_file, false, list);
    dirty->scan_ns = (uint64_t)(clock_ns() - begun_ns);
    if (rc == 0 && counts_faults(dirty) && dirty->protect.fd < 0)
        rc = know_private(dirty, list, before);
    return rc == 0 ? scan(dirty, fresh_from, bytes, true, list) : rc;
}

/* The reports were not complete: the page tables tell, and the count of faults begins anew. */
static int scan_instead(struct dirty *dirty, uint64_t bytes, uint64_t fresh_from, struct page_list *list)
{
    if (dirty->kind != DIRTY_FAULTS)
        return scan_all(dirty, bytes, fresh_from, list);
    bool confirmed = true;
    dirty_faults_rebase(dirty->faults);
    int rc = scan_all(dirty, bytes, fresh_from, list);
    if (rc == 0 && dirty->faults != NULL) /* not compared from now on */
        rc = dirty_faults_confirm(dirty->faults, dirty->base, bytes, list, &confirmed);
    dirty->scan_next = !confirmed;
    if (dirty->pause == 0 && ++dirty->misses >= MISSES_BEFORE_PAUSE) {
        dirty->misses = 0;
        dirty->pause = PAUSE_COLLECTS;
    }
    return rc;
}

/* Reports of [from, to) since index `first` of the list only tell that it was touched: what is there is added. */
static int add_fresh(struct dirty *dirty, uint64_t from, uint64_t to, size_t first, struct page_list *list)
{
    for (size_t i = first; i < list->count && !dirty->fresh_touched; i++)
        dirty->fresh_touched = list->page[i] >= from / PAGE_BYTES;
    if (!dirty->fresh_touched)
        return 0;
    size_t before = list->count;
    int rc = scan(dirty, from, to, true, list);
    if (rc == 0 && list->count == before)
        dirty->fresh_touched = false;
    return rc;
}

int dirty_collect(struct dirty *dirty, uint64_t bytes, struct page_list *list)
{
    return dirty_collect_fresh(dirty, bytes, bytes, list);
}

/* Asked once, before the scan that follows if there was one. */
static bool no_fault_since_scan(struct dirty *dirty)
{
    uint64_t counted = dirty_faults_counted(), before = dirty->counted;
    dirty->counted = counted;
    return counted == before && counted != UINT64_MAX;
}

int dirty_collect_fresh(struct dirty *dirty, uint64_t bytes, uint64_t fresh_from, struct page_list *list)
{
    size_t first = list->count;
    bool complete = false;
    int rc = page_list_reserve(list, dirty->hot_count);
    if (rc != 0)
        return rc;
    dirty->bytes = bytes;
    dirty->scan_ns = 0;
    dirty->collects++;
    for (size_t i = 0; i < dirty->hot_count; i++)
        list->page[list->count++] = dirty->hot[i].page;
    if (dirty->pause > 0)
        dirty->pause--;
    else if (dirty->kind == DIRTY_FAULTS)
        rc = dirty_faults_drain(dirty->faults, dirty->base, bytes, list, &complete);
    else if (counts_faults(dirty))
        complete = no_fault_since_scan(dirty);
    complete = complete && !dirty->scan_next;
    dirty->scan_next = false;
    if (rc == 0 && !complete) {
        rc = scan_instead(dirty, bytes, fresh_from, list);
        dirty->fresh_touched = fresh_from < bytes;
    } else {
        dirty->misses = 0;
        if (rc == 0 && fresh_from < bytes)
            rc = add_fresh(dirty, fresh_from, bytes, first, list);
    }
    if (rc != 0)
        dirty->scan_next = true; /* what was drained and is lost now is found by the page tables */
    else
        page_list_sort(list);
    return rc;
}

uint64_t dirty_cost_ns(const struct dirty *dirty)
{
    return dirty->kind == DIRTY_SCAN ? dirty->scan_ns : 0;
}

bool dirty_costs_by_private(const struct dirty *dirty)
{
    return counts_faults(dirty);
}

void dirty_remapped(struct dirty *dirty, uint64_t from, uint64_t to)
{
    size_t kept = 0;
    for (size_t i = 0; i < dirty->hot_count; i++)
        if (dirty->hot[i].page < from / PAGE_BYTES || dirty->hot[i].page >= to / PAGE_BYTES)
            dirty->hot[kept++] = dirty->hot[i];
    dirty->hot_count = kept;
    dirty->protect.registered = min_u64(dirty->protect.registered, from);
}

/* The page leaves the list of hot ones if it can be protected; pages side by side in one call. */
static void protect_run(struct dirty *dirty, const uint64_t *page, size_t count, struct hot_page *hot,
                        size_t *hot_count)
{
    size_t done = 0;
    while (done < count) {
        size_t run = 1;
        while (done + run < count && page[done + run] == page[done] + run)
            run++;
        if (dirty_protect_pages(&dirty->protect, dirty->base, dirty->bytes, page[done], run) != 0)
            for (size_t i = 0; i < run; i++)
                hot[(*hot_count)++] = (struct hot_page){.page = page[done + i], .idle = 0};
        done += run;
    }
}

/* Of the pages (sorted) those that are not hot. */
static bool protect_again(struct dirty *dirty, struct page_list *pages)
{
    size_t kept = 0, h = 0, failed = 0;
    for (size_t i = 0; i < pages->count; i++) {
        while (h < dirty->hot_count && dirty->hot[h].page < pages->page[i])
            h++;
        if (h == dirty->hot_count || dirty->hot[h].page != pages->page[i])
            pages->page[kept++] = pages->page[i];
    }
    for (size_t i = 0; i < kept;) {
        size_t run = page_list_run(pages, i, kept);
        failed += dirty_protect_pages(&dirty->protect, dirty->base, dirty->bytes, pages->page[i], run) != 0;
        i += run;
    }
    return failed == 0;
}

/* Page tables that hold marks of pages that were protected and given back are never empty.  So all protection is taken off,
 * and put on again where a page is private and not hot.  What fails leaves pages that a scan finds written. */
void dirty_thin(struct dirty *dirty, uint64_t bytes)
{
    struct page_list still = {0};
    if (dirty->kind != DIRTY_SCAN || dirty->frame_pages != 1)
        return;
    bool bare = dirty->protect.fd >= 0;
    if (bare && dirty_unprotect(&dirty->protect, dirty->base, bytes) != 0)
        dirty->scan_next = true;
    if (dirty_sparse_zap(dirty->pagemap_fd, dirty->base, bytes, &still) != 0 || (bare && !protect_again(dirty, &still)))
        dirty->scan_next = true;
    page_list_free(&still);
}

static int compare_hot(const void *left, const void *right)
{
    uint64_t a = ((const struct hot_page *)left)->page, b = ((const struct hot_page *)right)->page;
    return (a > b) - (a < b);
}

/* The page, which is not hot, changed: did it lately? */
static bool changes_often(struct dirty *dirty, uint64_t page)
{
    struct recent *recent = &dirty->recent[page * UINT64_C(0x9E3779B97F4A7C15) >> 40 & (RECENT_SLOTS - 1)];
    bool often = recent->page_plus_1 == page + 1 && dirty->collects - recent->collect <= HOT_RECENT;
    *recent = (struct recent){.page_plus_1 = page + 1, .collect = dirty->collects};
    return often;
}

int dirty_settle(struct dirty *dirty, const struct page_list *pages, const bool *changed)
{
    if (dirty->protect.fd < 0)
        return 0; /* every private page is a candidate again anyway */
    size_t most = dirty->hot_count + pages->count;
    uint64_t *leaving = malloc((pages->count + 1) * sizeof *leaving);
    struct hot_page *hot = malloc((most + 1) * sizeof *hot);
    if (leaving == NULL || hot == NULL) {
        free(leaving);
        free(hot);
        dirty->scan_next = true; /* unprotected ones show as written */
        return ENOMEM;
    }
    size_t leaving_count = 0, count = 0, h = 0;
    for (size_t i = 0; i < pages->count; i++) {
        uint64_t page = pages->page[i];
        while (h < dirty->hot_count && dirty->hot[h].page < page)
            hot[count++] = dirty->hot[h++];
        unsigned idle = HOT_IDLE;
        if (h < dirty->hot_count && dirty->hot[h].page == page) {
            idle = changed[i] ? 0 : dirty->hot[h].idle + 1;
            h++;
        } else if (changed[i] && changes_often(dirty, page)) {
            idle = 0;
        }
        if (idle < HOT_IDLE)
            hot[count++] = (struct hot_page){.page = page, .idle = idle};
        else
            leaving[leaving_count++] = page;
    }
    while (h < dirty->hot_count)
        hot[count++] = dirty->hot[h++];
    size_t sorted = count;
    protect_run(dirty, leaving, leaving_count, hot, &count);
    if (count != sorted)
        qsort(hot, count, sizeof *hot, compare_hot);
    free(leaving);
    free(dirty->hot);
    dirty->hot = hot;
    dirty->hot_count = count;
    dirty->hot_room = most + 1;
    return 0;
}

bool dirty_protects(const struct dirty *dirty)
{
    return dirty->protect.fd >= 0;
}

bool dirty_leaves_private(const struct dirty *dirty)
{
    return dirty->frame_pages > 1;
}

void dirty_set_file(struct dirty *dirty, int fd)
{
    dirty->file_fd = fd;
}

/* Kernel pages that are all in the list are dropped; of the others, what is in it is read from the file. */
static int drop_frames(struct dirty *dirty, const struct page_list *pages)
{
    int rc = 0;
    for (size_t i = 0; i < pages->count && rc == 0;) {
        uint64_t first = pages->page[i], frame = first / dirty->frame_pages, count = 1;
        while (i + count < pages->count && pages->page[i + count] / dirty->frame_pages == frame)
            count++;
        if (count == dirty->frame_pages)
            rc = dirty_drop_pages(dirty->base, &(struct page_list){.page = pages->page + i, .count = count});
        else
            for (uint64_t n = 0; n < count && rc == 0; n++)
                rc = file_read_at(dirty->file_fd, dirty->base + pages->page[i + n] * PAGE_BYTES, PAGE_BYTES,
                                  format_file_offset(pages->page[i + n] * PAGE_BYTES));
        i += count;
    }
    return rc;
}

int dirty_drop(struct dirty *dirty, const struct page_list *pages)
{
    size_t h = 0, kept = 0;
    for (size_t i = 0; i < pages->count; i++) { /* no longer private: no longer hot */
        while (h < dirty->hot_count && dirty->hot[h].page < pages->page[i])
            dirty->hot[kept++] = dirty->hot[h++];
        if (h < dirty->hot_count && dirty->hot[h].page == pages->page[i])
            h++;
    }
    while (h < dirty->hot_count)
        dirty->hot[kept++] = dirty->hot[h++];
    dirty->hot_count = kept;
    int rc = dirty->frame_pages > 1 ? drop_frames(dirty, pages) : dirty_drop_pages(dirty->base, pages);
    dirty->scan_next = dirty->scan_next || rc != 0;
    return rc;
}

int dirty_drop_all(struct dirty *dirty, uint64_t bytes)
{
    int rc = dirty_drop_range(dirty->base, (size_t)bytes);
    if (rc == 0)
        dirty->hot_count = 0;
    else
        dirty->scan_next = true;
    return rc;
}
