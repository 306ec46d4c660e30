/* dirty_internal.h -- the parts of dirty.c: page table queries, write protection, fault reports. */
#ifndef STEAD_PERSIST_DIRTY_INTERNAL_H
#define STEAD_PERSIST_DIRTY_INTERNAL_H

#include "persist/dirty.h"

/* ---- dirty_scan.c: what the page tables say.  fd is /proc/self/pagemap. ---- */

/* Adds every page of [base + from, base + to) that is private: present or swapped, and not the file's own.  With
 * only_written also: not write-protected by userfaultfd.  anonymous: no file lies under it, and pages that were only read are
 * none.  ENOTTY, EINVAL: this kernel has no PAGEMAP_SCAN. */
int dirty_scan_ioctl(int fd, uint8_t *base, uint64_t from, uint64_t to, bool only_written, bool anonymous,
                     struct page_list *list);
int dirty_scan_bits(int fd, uint8_t *base, uint64_t from, uint64_t to, struct page_list *list);

/* ---- dirty_protect.c: userfaultfd in its asynchronous write-protection mode ---- */
struct dirty_protect {
    int fd;
    uint64_t registered; /* bytes from base */
};
int dirty_protect_open(struct dirty_protect *protect);
void dirty_protect_close(struct dirty_protect *protect);
/* The pages [first, first + count) fault at their next write.  Registers the range up to their end first. */
int dirty_protect_pages(struct dirty_protect *protect, uint8_t *base, uint64_t bytes, uint64_t first, uint64_t count);
/* No page of [base, base + bytes) is protected any more; nor remembered as such by the kernel where it was given back. */
int dirty_unprotect(struct dirty_protect *protect, uint8_t *base, uint64_t bytes);

/* ---- dirty_drop.c: private copies given back ---- */
int dirty_drop_pages(uint8_t *base, const struct page_list *pages);
int dirty_drop_range(uint8_t *start, size_t bytes);
extern _Atomic bool dirty_drop_at_once; /* many by one call, where the kernel can; tests try it without */

/* ---- dirty_sparse.c: what was only read leaves the page tables, so that scans stay cheap ---- */
/* Takes the ranges of [base, base + bytes), which maps a file, that hold no private page out of the page tables, and adds the
 * pages that are private.  fd is /proc/self/pagemap with PAGEMAP_SCAN.  An error: so far as it came. */
int dirty_sparse_zap(int fd, uint8_t *base, uint64_t bytes, struct page_list *private_pages);

/* ---- dirty_faults.c: one record for every page fault of this process ---- */
/* All faults of the process so far; UINT64_MAX: not known. */
uint64_t dirty_faults_counted(void);
struct dirty_faults;
int dirty_faults_open(struct dirty_faults **out);
void dirty_faults_close(struct dirty_faults *faults);
/* In a fork child the kernel did not map the rings, and something else may lie there by now. */
void dirty_faults_forget(struct dirty_faults *faults);
/* Adds the pages of [base, base + bytes) that faulted.  *complete: these are all faults since the last call. */
int dirty_faults_drain(struct dirty_faults *faults, const uint8_t *base, uint64_t bytes, struct page_list *list,
                       bool *complete);
/* A full scan follows, which makes up for whatever was missed until now: call before it ... */
void dirty_faults_rebase(struct dirty_faults *faults);
/* ... and this after it, which adds the pages that faulted meanwhile.  Not *confirmed: the next collect is to scan too. */
int dirty_faults_confirm(struct dirty_faults *faults, const uint8_t *base, uint64_t bytes, struct page_list *list,
                         bool *confirmed);

#endif
