/*
 * superblock.h -- the two fixed blocks that say what a store is and where its last sealed or running state begins.
 * Layout: format.h.  Two copies in units 0 and 1; the valid one with the higher sequence wins.
 */
#ifndef STEAD_PERSIST_SUPERBLOCK_H
#define STEAD_PERSIST_SUPERBLOCK_H

#include "base/report.h"
#include "persist/file.h"
#include "persist/format.h"

/* The parts of a superblock that are the same in every store of this build; sequence 0, everything else zero. */
void superblock_init(struct superblock *super);
/* Reads and chooses.  STEAD_NOT_A_STORE, STEAD_VERSION, STEAD_CORRUPT (with a sentence), errno. Any bytes are safe. */
int superblock_read(const struct file *file, struct superblock *super);
/* Writes the next sequence into the copy that does not hold the current one; syncs just that if asked.
 * On an error the current copy is as it was, and super too. */
int superblock_write(const struct file *file, struct superblock *super, bool sync);
/* Both copies with the same next sequence, a sync between and after: at close, and when a store is opened for writing,
 * before the first commit (see superblock.c, why). */
int superblock_write_both(const struct file *file, struct superblock *super);
/* Both copies are whole, the same, and of this sequence: as a close leaves them. */
bool superblock_has_twin(const struct file *file, const struct superblock *super);
/* A write after `before` ended with rc: was it refused for want of room, and is all as it was?  What the kernel shows is what
 * it will write.  Else nobody knows which superblock the disk has. */
bool superblock_refused(const struct file *file, const struct superblock *before, int rc);
/* What superblock_read() chose is durable, if only the page cache had it (see superblock.c). */
int superblock_settle(const struct file *file);
/* superblock_write_both() with state = SUPER_SEALED. */
int superblock_seal(const struct file *file, struct superblock *super);
/* S-invariants of docs/invariants.d, by pread. */
void superblock_check(const struct file *file, struct report *report);

#endif
