/* peer.c -- what all peers share: contents and error texts. */
#include "bench/peers/peer.h"

#include <string.h>

#include <lmdb.h>

uint64_t peer_mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

void peer_fill(void *bytes, size_t count, uint64_t seed)
{
    uint8_t *at = bytes;
    for (uint64_t i = 0; count > 0; i++) {
        uint64_t word = peer_mix(seed + i * UINT64_C(0xd1342543de82ef95));
        size_t n = count < sizeof word ? count : sizeof word;
        memcpy(at, &word, n);
        at += n;
        count -= n;
    }
}

void record_fill(uint8_t bytes[RECORD_BYTES], uint64_t record, uint64_t version)
{
    peer_fill(bytes, RECORD_BYTES, peer_mix(record) ^ (version * UINT64_C(0x9e6c63d0876a9a47)));
}

/* LMDB's own codes lie in -30799..-30416, stead's in -1012..-1001; SQLite's errors are passed on as EIO. */
const char *peer_error_text(int error)
{
    if (error < -20000)
        return mdb_strerror(error);
    return error < 0 ? stead_last_error_text() : strerror(error);
}
