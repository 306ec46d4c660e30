/* alloc_peers.h -- the allocators measured by bench/alloc, behind two functions each. */
#ifndef BENCH_ALLOC_PEERS_H
#define BENCH_ALLOC_PEERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Everybody is called through one function of our own, so that nobody is spared a call. */
struct alloc_peer {
    const char *name;
    /* In the process that measures.  directory: for files, which are gone when it ends; capacity: address space that
     * will be enough.  False: not installed. */
    bool (*open)(const char *directory, uint64_t capacity);
    void *(*allocate)(size_t bytes);
    void (*release)(void *block);
    /* Bytes a file would need for what is allocated now; 0: the peer has no such figure, resident memory is taken. */
    uint64_t (*used)(void);
    /* Bytes of the live blocks as the allocator rounded them; NULL: cannot be told. */
    uint64_t (*usable)(void);
};

extern const struct alloc_peer alloc_peers[];
extern const unsigned alloc_peer_count;
extern const char *alloc_other_library; /* of the peers other(...); NULL: they are absent */

#if defined(BENCH_BOOST)
/* peers/alloc_boost.cc */
bool boost_open(const char *directory, uint64_t capacity);
void *boost_allocate(size_t bytes);
void boost_release(void *block);
uint64_t boost_used(void);
#endif

#ifdef __cplusplus
}
#endif

#endif
