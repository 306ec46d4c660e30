/*
 * replay_internal.h -- a window of the log in memory: shared by replay.c (filled and sorted) and replay_write.c (written).
 */
#ifndef STEAD_PERSIST_REPLAY_INTERNAL_H
#define STEAD_PERSIST_REPLAY_INTERNAL_H

#include <assert.h>

#include "persist/map.h"
#include "persist/replay.h"

#define REPLAY_PIECE_PAGES \
    64 /* 256 KiB: the processor's cache holds it while it is read, changed, written, checksummed */
#define REPLAY_PIECE_BYTES (REPLAY_PIECE_PAGES * PAGE_BYTES)

struct note {
    uint64_t page;
    uint32_t at;            /* in window.bytes              */
    uint16_t offset, count; /* in the page; count 0: zeros  */
};
static_assert(sizeof(struct note) == 16, "two words");

struct window {
    struct note *note, *spare; /* the spare is the sort's    */
    size_t notes, note_room;
    uint8_t *bytes;
    const uint8_t *kept; /* in place of these: the log itself; `filled` is its length */
    size_t filled, byte_room;
    uint64_t last_page; /* the highest in it */
};

/* ---- replay_write.c ---- */
/* The window, sorted, into the target. */
int replay_write_window(const struct window *window, const struct replay_target *target);

#endif
