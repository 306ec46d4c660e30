/*
 * bytes.h -- OFD locks on single bytes far beyond any data of the store file: the kernel's own record of who is
 * there.  Released by the kernel when the last descriptor of the open file description is gone, whatever killed
 * the process; immune to closing another descriptor of the file, to pid reuse and to pid namespaces.
 */
#ifndef STEAD_LOCK_BYTES_H
#define STEAD_LOCK_BYTES_H

#include <stdbool.h>
#include <stdint.h>

#define LOCK_BYTES_START (INT64_C(1) << 62)

enum lock_byte {
    LOCK_BYTE_GATE = 0,     /* held exclusively through open, close and recovery                           */
    LOCK_BYTE_SOLE = 1,     /* the SOLE writer, from open to close                                         */
    LOCK_BYTE_APPLY = 2,    /* readers without write permission share it; whoever changes the file takes it */
    LOCK_BYTE_QUEUE = 3,    /* fairness gate in front of APPLY                                             */
    LOCK_BYTE_READERS = 4,  /* shared by attached processes without a presence slot; LIVE owners ask for it */
    LOCK_BYTE_RECOVERY = 5, /* shared by private replays, exclusive for who would rewrite or drop the log */
    LOCK_BYTE_SLOT0 = 1024  /* + slot: held exclusively by the attached process                            */
};

enum lock_byte_mode { LOCK_BYTE_READ, LOCK_BYTE_WRITE }; /* READ needs a readable, WRITE a writable descriptor */

/* Waits until deadline (CLOCK_MONOTONIC ns, see base/deadline.h; 0 = try) by polling with growing sleeps of at most
 * 5 ms.  0, EBUSY (try), ETIMEDOUT, or errno of fcntl. */
int lock_byte_take(int fd, unsigned byte, enum lock_byte_mode mode, int64_t deadline_ns);
int lock_byte_drop(int fd, unsigned byte);
/* Would somebody else's lock stop a WRITE lock here?  Own locks of the same open file description do not count. */
bool lock_byte_taken(int fd, unsigned first_byte, unsigned count);
/* Would it stop a READ lock: is the byte somebody else's alone? */
bool lock_byte_owned(int fd, unsigned byte);

#endif
