/*
 * dirty_scan.c -- private pages by asking the page tables.
 *
 * A page of a private file mapping that is present (or swapped out) and not file-backed has its own copy: somebody
 * wrote to it, or mlock or MAP_POPULATE made the copy without a write.  Guard entries are none.
 *
 * The kernel's page of zeros is what a read finds in anonymous memory, and no change there.  Over a file it is one: KSM puts
 * it in the place of a private page that was written full of zeros (use_zero_pages), without a write, a fault or a mark.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/units.h"
#include "persist/dirty_internal.h"

/* <linux/fs.h> of Linux 6.7; older headers do not have it. */
struct scan_region {
    uint64_t start, end, categories;
};
struct scan_argument {
    uint64_t size, flags, start, end, walk_end, regions, region_count, max_pages, category_inverted, category_mask,
        category_anyof_mask, return_mask;
};
#define SCAN_REQUEST _IOWR('f', 16, struct scan_argument)
#define SCAN_WRITTEN (UINT64_C(1) << 1)
#define SCAN_FILE (UINT64_C(1) << 2)
#define SCAN_PRESENT (UINT64_C(1) << 3)
#define SCAN_SWAPPED (UINT64_C(1) << 4)
#define SCAN_ZERO_PAGE (UINT64_C(1) << 5)

#define SCAN_REGIONS 512
/* Entries of pagemap read at once, onto the stack: a scan that faults for its own memory would bring on the next (W34). */
#define BITS 2048
#define BIT_PRESENT (UINT64_C(1) << 63)
#define BIT_SWAPPED (UINT64_C(1) << 62)
#define BIT_FILE (UINT64_C(1) << 61)

int dirty_scan_ioctl(int fd, uint8_t *base, uint64_t from, uint64_t to, bool only_written, bool anonymous,
                     struct page_list *list)
{
    const uint64_t none = SCAN_FILE | (anonymous ? SCAN_ZERO_PAGE : 0);
    struct scan_region region[SCAN_REGIONS] = {0}; /* checkers of memory do not know that this ioctl fills it */
    struct scan_argument scan = {.size = sizeof scan,
                                 .start = (uintptr_t)base + from,
                                 .end = (uintptr_t)base + to,
                                 .regions = (uintptr_t)region,
                                 .region_count = SCAN_REGIONS,
                                 .category_inverted = none,
                                 .category_mask = none | (only_written ? SCAN_WRITTEN : 0),
                                 .category_anyof_mask = SCAN_PRESENT | SCAN_SWAPPED,
                                 .return_mask = SCAN_PRESENT};
    while (scan.start < scan.end) {
        int found = ioctl(fd, (unsigned long)SCAN_REQUEST, &scan);
        if (found < 0 && errno == EINTR)
            continue;
        if (found < 0)
            return errno;
        for (int i = 0; i < found; i++) {
            int rc = page_list_add_range(list, (region[i].start - (uintptr_t)base) / PAGE_BYTES,
                                         (region[i].end - (uintptr_t)base) / PAGE_BYTES);
            if (rc != 0)
                return rc;
        }
        if (scan.walk_end <= scan.start)
            return EIO; /* no progress: never loop on it */
        scan.start = scan.walk_end;
    }
    return 0;
}

int dirty_scan_bits(int fd, uint8_t *base, uint64_t from, uint64_t to, struct page_list *list)
{
    uint64_t kernel_page = (uint64_t)sysconf(_SC_PAGESIZE), per_page = kernel_page / PAGE_BYTES;
    uint64_t bits[BITS];
    int rc = 0;
    uint64_t first = (uintptr_t)base / kernel_page, end = first + to / kernel_page;
    for (uint64_t at = first + from / kernel_page; at < end && rc == 0;) {
        uint64_t want = min_u64(BITS, end - at);
        ssize_t got = pread(fd, bits, want * 8, (off_t)(at * 8));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 8) {
            rc = got < 0 ? errno : EIO;
            break;
        }
        for (uint64_t i = 0; i < (uint64_t)got / 8 && rc == 0; i++)
            if ((bits[i] & (BIT_PRESENT | BIT_SWAPPED)) != 0 && (bits[i] & BIT_FILE) == 0)
                rc = page_list_add_range(list, (at - first + i) * per_page, (at - first + i + 1) * per_page);
        at += (uint64_t)got / 8;
    }
    return rc;
}
