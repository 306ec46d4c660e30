/*
 * map.h -- the image's address range in this process: reserved PROT_NONE in full, mapped only as far as the file is
 * long, piece by piece as the groups of format.h lie in the file.
 */
#ifndef STEAD_PERSIST_MAP_H
#define STEAD_PERSIST_MAP_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "persist/format.h"

/* MAP_IMAGE_VIEW: read-only and private: it shows the file until follow.c puts pages of its own over it. */
enum map_kind { MAP_IMAGE_PRIVATE, MAP_IMAGE_SHARED, MAP_IMAGE_READ, MAP_IMAGE_VIEW };

struct map {
    uint8_t *base;
    uint64_t bytes;      /* mapped from base; atomic access outside the mutex */
    uint64_t capacity;   /* reserved from base, guard units around it          */
    const uint8_t *twin; /* the same bytes through a second MAP_SHARED PROT_READ mapping, or NULL if not asked for:
                            what the file (page cache) holds, whatever the private pages say */
    uint64_t fresh_from; /* [fresh_from, bytes): anonymous memory where the file is not mapped yet; pages of the file
                            there are zeros, or what a commit wrote into them (fresh.c) */
    int fd;
    enum map_kind kind;
    pthread_mutex_t mutex; /* extending */
};

/* Where file offset and address differ by a multiple of this the kernel maps the largest folios of its page cache by one fault. */
#define MAP_CONGRUENCE_BYTES (UINT64_C(2) << 20)

/* image offset -> file offset; the image bytes from there that lie contiguously in the file; the file offset of the
 * page checksum of the page at image_offset; the file length that holds image_bytes of image. */
uint64_t format_file_offset(uint64_t image_offset);
uint64_t format_contiguous(uint64_t image_offset);
uint64_t format_checksum_offset(uint64_t image_offset);
uint64_t format_file_bytes(uint64_t image_bytes);
/* The image bytes a file of this length holds. */
uint64_t format_image_bytes(uint64_t file_bytes);

/* Reserves [address, address + capacity) (address NULL: anywhere) with MAP_FIXED_NOREPLACE and maps bytes of the file.
 * STEAD_ADDRESS_TAKEN names the mapping in the way (/proc/self/maps); ENOMEM; errno. */
int map_open(struct map *map, int fd, enum map_kind kind, void *address, uint64_t bytes, uint64_t capacity, bool twin);
/* Maps more of an already longer file. */
int map_extend(struct map *map, uint64_t bytes);
/* The same with anonymous memory over what the file has gained, which the caller knows to read as zeros
 * (MAP_IMAGE_PRIVATE).  As map_extend() where there is none to be had.  While there is a fresh range all growth joins it. */
int map_extend_fresh(struct map *map, uint64_t bytes);
/* [fresh_from, to) shows the file from now on; what was written there and is not in the file is gone.  Nobody writes to it
 * meanwhile; readers find one or the other.  A failure leaves contents and fresh_from as they were, or, of an older
 * kernel that takes away before it finds no memory to give, part of them: *lost. */
int map_settle(struct map *map, uint64_t to, bool *lost);
/* The fresh range reads as zeros again. */
int map_empty_fresh(struct map *map);
void map_close(struct map *map);
/* Bytes of the mapped image, private pages and all, by a call that answers a bad page of the file below with EIO instead of
 * a signal. */
int map_read(const struct map *map, uint64_t offset, void *buffer, size_t bytes);

#endif
