/*
 * crash_calls.h -- the replaced table of system calls: counts, kills, fails, records.  Inside the kit only.
 */
#ifndef STEAD_CRASH_CALLS_H
#define STEAD_CRASH_CALLS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "tests/crash/crash_kit.h"

enum { CRASH_NODES_MAX = 64, CRASH_NAME_BYTES = 64 };

/* What a workload asked of the disk, in order.  An event is followed by `payload` bytes, padded to 8. */
enum trace_kind {
    TRACE_NODE,       /* node: a new file without a name                          */
    TRACE_WRITE,      /* node, offset; payload: the bytes                         */
    TRACE_ZERO,       /* node, offset, length: reads as zeros from now on         */
    TRACE_SIZE,       /* node, offset: the new size                               */
    TRACE_SYNC,       /* node                                                     */
    TRACE_SYNC_RANGE, /* node, offset, length                                     */
    TRACE_LINK,       /* node; payload: the name                                  */
    TRACE_UNLINK,     /* payload: the name                                        */
    TRACE_RENAME,     /* payload: from, zero, to                                  */
    TRACE_EXCHANGE,   /* payload: one name, zero, the other                       */
    TRACE_SYNC_DIRECTORY,
    TRACE_BEGIN, /* offset: the version                                      */
    TRACE_DONE   /* offset: the version; length: 1 = durable                 */
};
struct trace_event {
    uint32_t kind, node;
    uint64_t offset, length, payload;
};

/* Shared by the kit and the workload's processes. */
struct crash_shared {
    pthread_mutex_t mutex;                 /* robust: a killed workload may hold it */
    _Atomic uint64_t begun, done, durable; /* versions */
    _Atomic uint64_t calls;                /* requests that change or map something: where a kill is interesting */
    _Atomic uint64_t calls_of[CRASH_CALLS];
    _Atomic bool stop; /* for neighbours */
    uint64_t kill_at;  /* 0 = never */
    bool kill_after;
    enum crash_call fault_call;
    uint64_t fault_at; /* 0 = never */
    int fault_error;
    bool fault_sticky;
    _Atomic uint64_t faults; /* that happened */
    int trace_fd;            /* -1 = not recording */
    dev_t device;
    ino_t directory;
    unsigned nodes;
    ino_t inode[CRASH_NODES_MAX]; /* node number -> inode; 0 = gone */
};

struct crash_shared *crash_shared_new(void);
void crash_shared_free(struct crash_shared *shared);
/* In the workload's process: replaces the table.  Events go to trace_fd (if not -1), node numbers continue from those the
 * directory's files were given. */
void crash_calls_install(struct crash_shared *shared, const char *directory);

#endif
