/* dying_calls.h -- a process that dies at its n-th call to the system that changes or syncs a file. */
#ifndef STEAD_TESTS_DYING_CALLS_H
#define STEAD_TESTS_DYING_CALLS_H

#define DYING_EXIT 77 /* its exit code, if it came that far */

/* From now on calls are counted; the n-th (from 0) is not made, or half of it, and the process ends.  A sync does nothing:
 * when a process dies the kernel has the bytes. */
void die_at_call(long n);

#endif
