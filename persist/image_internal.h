/*
 * image_internal.h -- what image.h hides: one open store file in this process, shared by image.c, seal.c, inspect.c and
 * backup.c.  The transaction engine (txn.h) is handed the parts it needs and does not know struct image.
 */
#ifndef STEAD_PERSIST_IMAGE_INTERNAL_H
#define STEAD_PERSIST_IMAGE_INTERNAL_H

#include <pthread.h>

#include "persist/image.h"
#include "persist/map.h"

struct txn; /* persist/txn.h */

struct image {
    struct map map;
    struct file *file;        /* the caller's, and so is super; both outlive the image     */
    struct superblock *super;
    struct image_options options;
    struct txn *txn;          /* IMAGE_PRIVATE (not while inspecting): the engine          */
    pthread_mutex_t mutex;    /* extending the file; pin_bytes                             */
    uint64_t pin_bytes;       /* locked in memory from the start; 0 = not pinned           */
    bool recovered;           /* this open replayed a log                                  */
    bool replay;              /* IMAGE_READ: the log was replayed into private pages       */
};

/* How long the image is that a checker or a copier should look at: at the last commit that is in the file. */
uint64_t image_applied_bytes(const struct image *image);

#endif
