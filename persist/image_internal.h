/*
 * image_internal.h -- what image.h hides: one open store file in this process, shared by image.c, create.c, scrub.c
 * and backup.c.  The transaction engine (txn.h) is handed the parts it needs and does not know struct image.
 */
#ifndef STEAD_PERSIST_IMAGE_INTERNAL_H
#define STEAD_PERSIST_IMAGE_INTERNAL_H

#include <pthread.h>

#include "persist/image.h"
#include "persist/map.h"

struct txn; /* persist/txn.h */

struct image {
    struct map map;
    struct file *file;            /* the caller's; outlives the image                                        */
    struct superblock super;      /* as last read or written by this process                                 */
    struct image_options options;
    struct txn *txn;              /* IMAGE_PRIVATE: the engine.  IMAGE_READ: a private replay, or NULL       */
    pthread_mutex_t pin_mutex;
    const void *pin_view;         /* IMAGE_PRIVATE, pinned: the locked shared read-only view                 */
    uint64_t pin_bytes;           /* locked from the start; 0 = not pinned                                   */
    bool recovered;               /* this open replayed a log                                                */
};

#endif
