/*
 * presence.h -- who is attached to a store, and who died.
 *
 * A table of process records in shared memory; the kernel's OFD lock on byte SLOT0 + slot is the truth about life.
 * An attachment id (generation << 10 | slot, never 0) is unique among all attachments since the region was
 * formatted.
 */
#ifndef STEAD_LOCK_PRESENCE_H
#define STEAD_LOCK_PRESENCE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define LOCK_REGION_BYTES (UINT64_C(60) * 1024) /* of shared memory: presence table, thread slots, rwlocks */
#define PRESENCE_SLOTS 256

enum presence_role { PRESENCE_WRITER = 1, PRESENCE_READER = 2 };

struct lock_region; /* the shared bytes: lock/region.h; frozen layout, static-asserted */
struct presence;    /* this process's attachment */

/* First opener, under the gate: makes region an empty, valid region. */
void lock_region_format(struct lock_region *region);
/* 0, or STEAD_VERSION if another build's layout (signature) is in use by attached processes. */
int lock_region_verify(const struct lock_region *region);

/* Takes a free slot and its kernel lock.  region NULL: no write permission; only LOCK_BYTE_READERS is taken.
 * fd stays the caller's and must stay open.  0, EMFILE (all slots taken), errno. */
int presence_attach(struct presence **out, struct lock_region *region, int fd, enum presence_role role);
/* Clears the record and drops the kernel lock. */
void presence_detach(struct presence *presence);
/* Fork child: frees memory only. */
void presence_forget(struct presence *presence);

uint32_t presence_id(const struct presence *presence); /* 0: without a slot */
int presence_fd(const struct presence *presence);
bool presence_alive(const struct presence *presence, uint32_t id);
/* The same, asked by who is not attached there. */
bool presence_alive_in(const struct lock_region *region, int fd, uint32_t id);
/* When it attached, CLOCK_REALTIME; 0: it is no more. */
int64_t presence_attached_s(const struct lock_region *region, uint32_t id);
/* Live attachments, this one included; those without a slot count as one together. */
unsigned presence_count(const struct presence *presence);
unsigned presence_count_role(const struct presence *presence, enum presence_role role); /* others only */
/* One that lives and writes, for people: its pid as it sees itself; 0 if there is none. */
pid_t presence_writer_pid(const struct lock_region *region, int fd);
/* Writers' records whose process is gone and that nobody has cleared yet: LIVE's sign of an unclean end.
 * clear: forget them (after the store was repaired or the death was noted). */
unsigned presence_dead_writers(struct presence *presence, bool clear);

#endif
