/* outside.h -- sharing a region's store lock without being able to write its words.  One thread at a time. */
#ifndef STEAD_LOCK_OUTSIDE_H
#define STEAD_LOCK_OUTSIDE_H

#include <stdbool.h>
#include <stdint.h>

#include "lock/presence.h"

struct outside {
    const struct lock_region *region; /* mapped for reading */
    int fd;
    int64_t announced_ns;
    bool known; /* every owner that comes knows of this reader: C3 was seen to hold once */
};

/* LOCK_BYTE_READERS was just taken through fd, and is held for as long as *outside is used. */
void outside_begin(struct outside *outside, const struct lock_region *region, int fd);

/*
 * outside_share -- byte APPLY, and no owner of the store lock inside.  Somebody with a slot is attached, so the words
 * mean something.  Within 15 ms of outside_begin() it waits until they are over, even with deadline_ns 0.
 * 0; EBUSY, ETIMEDOUT; EOWNERDEAD: an owner died inside and nobody repaired it yet; ENOTRECOVERABLE; errno.
 * Nothing is held after an error.
 */
int outside_share(struct outside *outside, int64_t deadline_ns);
/* The byte alone, for locks whose owners always take it.  0, EBUSY, ETIMEDOUT, errno. */
int outside_take_byte(const struct outside *outside, int64_t deadline_ns);
void outside_leave(const struct outside *outside); /* both */

#endif
