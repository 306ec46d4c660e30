/*
 * tail.h -- the mark that ends a store file: no page of this file is newer than this.  See tail.c.
 */
#ifndef STEAD_PERSIST_TAIL_H
#define STEAD_PERSIST_TAIL_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/report.h"

struct tail_limit {
    uint64_t checkpoint; /* only a superblock with this number or a higher one explains the file    */
    uint64_t seq;        /* no page below holds bytes of a later commit                             */
    uint64_t checksum;   /* XXH3-64 of magic, id and the two above                                  */
};

struct tail { /* the last bytes of the file, behind a whole number of units */
    uint8_t magic[8];
    uint8_t id[16];             /* the store's                                                       */
    uint64_t moved_from;        /* file offset of a place that is not cleared yet, or was not; 0: none  */
    uint64_t reserved;          /* 0                                                                 */
    struct tail_limit limit[2]; /* the higher valid one counts, the other is the next to be written  */
};
/* Not a multiple of 16: nobody who copies in blocks stops there by chance. */
#define TAIL_BYTES sizeof(struct tail)
static_assert(sizeof(struct tail) == 88, "format v1");
static_assert(offsetof(struct tail, limit) == 40, "format v1");

/* What a file of this length holds in front of its mark. */
uint64_t tail_offset(uint64_t file_bytes);

/* Writes the mark at file offset `at` (whole units), which becomes the end of a shorter file. */
int tail_write(int fd, uint64_t at, const uint8_t id[16], uint64_t checkpoint, uint64_t seq);
/* The mark at the end of the file says this from now on; one that says more stays.  Made if it is missing. */
int tail_raise(int fd, const uint8_t id[16], uint64_t checkpoint, uint64_t seq);
/* The file becomes longer: blocks for [its end, to) reserved, the mark behind them (durable, with the length), zeros where
 * it was (not yet durable).  `from`: where the caller's part of the file ends (whole units).  ENOSPC, EINTR, EIO: nothing
 * happened.  STEAD_FAILED: the mark's old place could not be cleared, or the new one not be taken back; nothing from there
 * on may be mapped. */
int tail_move(int fd, uint64_t from, uint64_t to, const uint8_t id[16]);
/* As tail_move(), but the mark is not durable yet, and its old place not cleared: for room that nobody maps from the file, nor
 * writes into, before tail_confirm(). */
int tail_move_later(int fd, uint64_t from, uint64_t to, const uint8_t id[16]);
/* Finishes a move, also one that a killed process began; nobody else may be moving (TURNS: whoever has the turn).  The mark is
 * durable where it stands, and its old place zeros (not yet durable).  An errno: nothing is lost, the next call tries again;
 * STEAD_FAILED: nobody knows which end the disk has. */
int tail_confirm(int fd, const uint8_t id[16]);
/* Does a mark of this store stand at `at`? */
int tail_find(int fd, uint64_t at, const uint8_t id[16], bool *found);
/* Zeros in the place of the mark at `at`, if there is one. */
int tail_forget(int fd, uint64_t at, const uint8_t id[16]);
/* Zeros, durable, in the place of the mark at `at`; or of the one at the end: what comes behind is the image's (LIVE). */
int tail_erase(int fd, uint64_t at);
int tail_clear(int fd);

/* Does the mark allow what superblock and log say?  STEAD_CORRUPT with a sentence: a copy made while the store was
 * written, or cut off; errno. */
int tail_check(int fd, const uint8_t id[16], uint64_t checkpoint, uint64_t seq);

#endif
