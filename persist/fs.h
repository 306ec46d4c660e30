/*
 * fs.h -- what the file system under a store can be trusted with.
 */
#ifndef STEAD_PERSIST_FS_H
#define STEAD_PERSIST_FS_H

#include <stdbool.h>

#include "persist/file.h"

struct fs_facts {
    const char *name;         /* for people                                                              */
    bool coherent;            /* mappings and locks of several processes see each other                  */
    bool overwrite_allocates; /* a write over existing bytes may need new blocks, and may find none      */
    bool stacked;             /* overlayfs: until it is first opened for writing, the file is another one */
    bool memory;              /* nothing survives power loss, nothing needs a sync                       */
};

enum fs_use {
    FS_ONE_PROCESS, /* SOLE, or a reader, and nobody else attached */
    FS_READER,      /* a reader beside other processes             */
    FS_WRITERS,     /* TURNS; SOLE beside readers                  */
    FS_LIVE         /* shared mapping, written by stores           */
};

int fs_classify(int fd, struct fs_facts *facts); /* 0 or errno */
/* May the open file be used so?  0, or STEAD_FILE_SYSTEM with a sentence saying why not. */
int fs_check(const struct file *file, enum fs_use use);
/* overlayfs: is what this descriptor reads the file of a lower layer (or: it cannot be told), so that what a later
 * writer writes would not be seen?  False on other file systems, and where nobody can write. */
bool fs_in_lower_layer(int fd);
/* LIVE backups must not share the store's blocks there (see fs.c). */
bool fs_overwrite_allocates(int fd);

#endif
