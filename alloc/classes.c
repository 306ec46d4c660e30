/* classes.c -- see classes.h. */
#include "alloc/classes.h"

#include <assert.h>
#include <pthread.h>

#include "alloc/layout.h"

#define CAPACITY_OF(bytes, slots) \
    ((slots) * (uint32_t)SLOT_BYTES / (bytes) < MAP_PAIRS * 64u ? (slots) * (uint32_t)SLOT_BYTES / (bytes) \
                                                                : MAP_PAIRS * 64u)
#define C(bytes, slots) \
    { \
        bytes, CAPACITY_OF(bytes, slots), (uint32_t)(((UINT64_C(1) << 32) + (bytes)-1) / (bytes)), slots \
    }

const struct class_geometry class_table[CLASS_COUNT] = {
    C(16, 1),    C(24, 1),    C(32, 1),    C(40, 1),    C(48, 1),    C(56, 1),    C(64, 1),    C(80, 1),    C(96, 1),
    C(112, 1),   C(128, 1),   C(144, 1),   C(160, 1),   C(176, 1),   C(192, 1),   C(208, 1),   C(224, 1),   C(240, 1),
    C(256, 1),   C(288, 1),   C(320, 1),   C(352, 1),   C(384, 1),   C(416, 1),   C(448, 1),   C(480, 1),   C(512, 1),
    C(544, 1),   C(576, 1),   C(608, 1),   C(640, 1),   C(672, 1),   C(704, 1),   C(736, 1),   C(768, 1),   C(800, 1),
    C(832, 1),   C(864, 1),   C(896, 1),   C(928, 1),   C(960, 1),   C(992, 1),   C(1024, 1),  C(1152, 1),  C(1280, 1),
    C(1408, 1),  C(1536, 1),  C(1792, 1),  C(2048, 1),  C(2176, 1),  C(2304, 1),  C(2432, 1),  C(2688, 1),  C(2944, 1),
    C(3200, 1),  C(3584, 1),  C(4096, 1),  C(4608, 2),  C(5376, 2),  C(6528, 2),  C(7168, 2),  C(8192, 2),  C(9344, 4),
    C(9984, 4),  C(10880, 4), C(11904, 4), C(13056, 4), C(14464, 4), C(16384, 4), C(18688, 4), C(21760, 4), C(26112, 4),
    C(32768, 4),
};
#undef C

uint8_t class_by_8[CLASS_SMALL_MAX / 8 + 1];
static uint8_t class_by_128[CLASS_BYTES_MAX / 128 + 1];
static pthread_once_t tables_once = PTHREAD_ONCE_INIT;

static void fill_tables(void)
{
    uint8_t class = 0;
    for (uint32_t i = 0; i <= CLASS_SMALL_MAX / 8; i++) {
        while (class_table[class].bytes < i * 8)
            class ++;
        class_by_8[i] = class;
    }
    class = 0;
    for (uint32_t i = 0; i <= CLASS_BYTES_MAX / 128; i++) {
        while (class_table[class].bytes < i * 128)
            class ++;
        class_by_128[i] = class;
    }
}

void classes_init(void)
{
    (void)pthread_once(&tables_once, fill_tables);
}

unsigned class_for_medium(size_t bytes)
{
    return class_by_128[(bytes + 127) / 128];
}

unsigned class_for(size_t bytes, size_t alignment)
{
    size_t rounded = alignment > 8 ? (bytes + alignment - 1) & ~(alignment - 1) : bytes;
    if (rounded > CLASS_BYTES_MAX)
        return CLASS_NONE;
    unsigned class = rounded <= CLASS_SMALL_MAX ? class_by_8[(rounded + 7) / 8] : class_for_medium(rounded);
    while (class < CLASS_COUNT && (class_table[class].bytes & (alignment - 1)) != 0)
        class ++;
    return class < CLASS_COUNT ? class : CLASS_NONE;
}
