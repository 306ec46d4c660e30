/* alloc_peers.h -- the allocators measured by bench/alloc, behind two functions each. */
#ifndef BENCH_ALLOC_PEERS_H
#define BENCH_ALLOC_PEERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct alloc_peer {
    const char *name;
    /* In the process that measures.  capacity: address space that will be enough.  False: not installed. */
    bool (*open)(uint64_t capacity);
    void *(*allocate)(size_t bytes);
    void (*release)(void *block);
    /* Bytes a file would need for what is allocated now; 0: the peer has no such figure, resident memory is taken. */
    uint64_t (*used)(void);
};

extern struct alloc_peer alloc_peers[];
extern const unsigned alloc_peer_count;

#endif
