/*
 * classes.h -- the sizes of small blocks, and the slabs they are cut from.
 *
 * A request up to CLASS_BYTES_MAX is rounded up to a class; a slab holds blocks of one class.  Steps: 8 bytes to 64
 * (16 above 32 would cost a third at 40), 16 to 256, 32 to 1024: with 16..1024 byte requests this loses 2.6 % inside
 * blocks.  A class costs one to two slabs that are not full, for every thread: finer steps would lose more there than
 * they save inside blocks, coarser ones the reverse.  Above 1 KiB a class is a slab divided by a whole number, so that
 * no slab has a useless end.
 *
 * Every class above 64 is a multiple of 16, and slabs start at multiples of 32 KiB: that is the alignment promise.
 * The numbers are part of the file format: a class may be added at the end of the table, never changed.
 */
#ifndef STEAD_ALLOC_CLASSES_H
#define STEAD_ALLOC_CLASSES_H

#include <stddef.h>
#include <stdint.h>

#define CLASS_BYTES_MAX 32768u
#define CLASS_SMALL_MAX 1024u /* looked up by (bytes + 7) / 8 */
#define CLASS_COUNT 73u
#define CLASS_NONE 255u

struct class_geometry {
    uint32_t bytes;    /* of a block                                                                     */
    uint32_t capacity; /* blocks of a slab: bounded by the slab's length and by the bits of a descriptor */
    uint32_t inverse;  /* ceil(2^32 / bytes): n / bytes == n * inverse >> 32 for every n below 2^17      */
    uint32_t slots;    /* length of a slab in 32 KiB slots: 1, 2 or 4                                    */
};

extern const struct class_geometry class_table[CLASS_COUNT];
extern uint8_t class_by_8[CLASS_SMALL_MAX / 8 + 1]; /* filled by classes_init() */

/* Fills the look-up tables; any number of calls, any thread. */
void classes_init(void);

/* The smallest class that holds bytes (1..CLASS_BYTES_MAX) and whose blocks are aligned to alignment (a power of
 * two up to CLASS_BYTES_MAX). */
unsigned class_for(size_t bytes, size_t alignment);

/* Above CLASS_SMALL_MAX. */
unsigned class_for_medium(size_t bytes);

static inline uint32_t class_divide(const struct class_geometry *geometry, uint32_t n)
{
    return (uint32_t)((uint64_t)n * geometry->inverse >> 32);
}

#endif
