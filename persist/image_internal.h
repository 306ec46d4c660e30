/*
 * image_internal.h -- what image.h hides: one open store file in this process, shared by image.c, seal.c, inspect.c and
 * backup.c.  The transaction engine (txn.h) is handed the parts it needs and does not know struct image.
 */
#ifndef STEAD_PERSIST_IMAGE_INTERNAL_H
#define STEAD_PERSIST_IMAGE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "persist/image.h"
#include "persist/map.h"
#include "persist/overlay.h"
#include "persist/page_list.h"
#include "persist/wal.h"

struct txn; /* persist/txn.h */

/* IMAGE_READ of a SOLE or TURNS store: what image_look() put over the file; see follow.c. */
struct follow {
    struct wal_position base;  /* where the log's records begin that are not in the file; all zero: never looked */
    uint64_t base_used_bytes;  /* of the image there                                                             */
    struct wal_position at;    /* records up to here are in the view                                             */
    uint64_t used_bytes;       /* of the image there                                                             */
    struct page_list pages;    /* private pages; some may be named twice                                         */
    struct overlay overlay;    /* empty between looks                                                            */
    size_t compacted;          /* their number when they were last sorted                                        */
    bool whole_log;            /* the view is the end of a log that no words tell of, and nobody appends to      */
    _Atomic uint64_t seq;      /* the commit in the view; 0: never looked                                        */
    _Atomic uint64_t base_seq; /* the commit in the file                                                         */
    _Atomic uint64_t private_pages;
};

struct image {
    struct map map;
    struct file *file; /* the caller's, and so is super; both outlive the image     */
    struct superblock *super;
    struct image_options options;
    struct txn *txn;       /* IMAGE_PRIVATE (not while inspecting): the engine          */
    pthread_mutex_t mutex; /* extending the file; pin_bytes                             */
    uint64_t pin_bytes;    /* locked in memory from the start; 0 = not pinned           */
    bool recovered;        /* this open replayed a log                                  */
    struct follow follow;
    uint64_t settled_bytes;    /* TURNS: the file's length when its mark was last known to stand alone */
    bool stale_tail;           /* the mark's old place behind the image is not zeros: no more is mapped (tail_move) */
    bool replay;               /* IMAGE_READ: the log was replayed into private pages       */
    struct page_list replayed; /* these, ascending                                         */
};

/* How long the image is that a checker or a copier should look at: at the last commit that is in the file. */
/* A writer of a LIVE store, or a reader beside them: the mapped bytes are the truth, no commit is. */
static inline bool image_is_live(const struct image *image)
{
    return image->options.kind == IMAGE_SHARED ||
           (image->options.kind == IMAGE_READ && image->super->state == SUPER_OPEN_LIVE);
}

uint64_t image_applied_bytes(const struct image *image);

/* ---- ready.c ---- */
/* SHARED: pages for image bytes [from, to), which the file gained just now; `wanted` of them are asked for. */
void image_ready_growth(const struct image *image, uint64_t from, uint64_t wanted, uint64_t to);

/* ---- follow.c ---- */
/* Does the mapping, and not the file, hold the last commit that this reader was shown? */
bool follow_has_pages(const struct image *image);
/* The pages that it has from the log, ascending, into an empty list: for them the file's checksums mean nothing.  ENOMEM. */
int follow_list_pages(const struct image *image, struct page_list *pages);
void follow_stat(const struct image *image, struct image_stat *stat);
void follow_release(struct image *image);

#endif
