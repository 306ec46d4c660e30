/* forbid.h -- system calls that a container's usual rules, or an ordinary user's rights, do not allow. */
#ifndef BENCH_FORBID_H
#define BENCH_FORBID_H

/* "perf": perf_event_open; "all": userfaultfd, io_uring, process_madvise and file handles as well.  From now on they answer EPERM, to
 * this process and its children, for good.  0, EINVAL for another list, or an errno. */
int forbid(const char *list);

#endif
