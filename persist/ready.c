/*
 * ready.c -- pages of a SHARED image, made by the dozen before the program's first touch of them would make them one by one.
 *
 * What a first touch costs (Linux 6.18, ext4, us a page of 256 MiB, touched in order; the range reserved, nothing written):
 *
 *   31 to 70   a plain fault.  The kernel reads ahead into folios of up to 2 MiB, and a folio that does not lie in one table of
 *              page-table entries is mapped one page a fault; each such fault walks all blocks of the folio, under its lock
 *   8 to 16    the same with MADV_RANDOM: folios of one page
 *   2.2 to 3.1 a plain fault where file offset and address are congruent modulo 2 MiB: a folio a fault
 *   2.8 to 4.1 zeros written by write(2) in pieces of 256 KiB, then faults that find folios of their size
 *   33 to 72   MADV_POPULATE_WRITE (2.2 to 3.8 where congruent): it is the same fault
 *
 * So: zeros are written where the mapping is not congruent, and where it is nothing is done: the kernel's own way is as good
 * there, and only what is touched takes memory.  The groups of a file are congruent from image offset 512 MiB on, if the base
 * was chosen for it (address.c); before that the tables of page checksums, which the groups have between them, are too
 * short.  Therefore a block that is large and touched here and there costs the zeros of at most 512 MiB, once in the life
 * of its place; a plain fault with this kernel's reading ahead filled all of it as well, one page in 32 touched.  But those
 * pages are clean, and zeros are to be written to the disk: where a block could fill the memory - the machine's, or the
 * container's - they would push out what is in use, and one another before their first touch.  So no block gets more than
 * a quarter of the memory.
 *
 * Pieces.  A write of 256 KiB to a place aligned to as much becomes one folio, which one fault maps; but a folio that does
 * not lie in one table of page-table entries is mapped a page a fault (64 faults instead of one, each of which walks all blocks
 * of it).  So pieces end at multiples of 256 KiB of the file (file.h), and where addresses begin another table.
 *
 * Who, when: growth by little is written while it happens (image.c): it becomes small blocks.  A large block is written by
 * the thread that has it, on its way out of malloc: no lock is held, so that nobody waits who allocates meanwhile, and nobody
 * else has the block.  What is in memory already (mincore) is left alone: a block that is freed and taken again costs the
 * question, for two pages of each 2 MiB.
 *
 * A crash in here: the store is open for LIVE, unclean until the last one closes it; the block in flight is lost to a kill, as
 * anywhere else in malloc, and its bytes mean nothing.  A failure is none: blocks are reserved, so the faults do what was not
 * done here.  What stood in the block is gone, or not: malloc promises neither, and calloc clears what was ever handed out.
 *
 *   P10  image_ready() changes no byte outside the range it is given, and leaves in it what was there or zeros; a piece of
 *        2 MiB whose ends are in memory it leaves (test_ready.c)
 */
#include <sys/mman.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/units.h"
#include "persist/file.h"
#include "persist/fs.h"
#include "persist/image_internal.h"

#define READY_BYTES_MAX (UINT64_C(512) << 20) /* of one block: a store at an address that somebody named */
#define READY_MEMORY_PART 4                   /* no more of it than this part of the memory, either */
#define GROWTH_BYTES_MAX (UINT64_C(16) << 20) /* more at once is one large block, and slack behind it    */

static bool can_be_ready(const struct image *image)
{
    struct fs_facts facts;
    return image->options.kind == IMAGE_SHARED && fs_classify(image->file->fd, &facts) == 0 && !facts.memory;
}

static bool is_congruent(const struct map *map, uint64_t offset)
{
    return ((uint64_t)(uintptr_t)map->base + offset - format_file_offset(offset)) % MAP_CONGRUENCE_BYTES == 0;
}

/* Is the page in memory?  Also where that is not to be known. */
static bool is_resident(const struct map *map, uint64_t offset)
{
    unsigned char resident;
    return mincore(map->base + round_down(offset, (uint64_t)sysconf(_SC_PAGESIZE)), 1, &resident) != 0 ||
           (resident & 1) != 0;
}

/* What is asked for and written as one: to where the addresses begin another table of page-table entries. */
static uint64_t piece_rest(const struct map *map, uint64_t at)
{
    uint64_t address = (uint64_t)(uintptr_t)map->base + at;
    return min_u64(round_up(address + 1, MAP_CONGRUENCE_BYTES) - address, format_contiguous(at));
}

void image_ready(struct image *image, uint64_t offset, uint64_t bytes)
{
    const struct map *map = &image->map;
    uint64_t most = round_down(min_u64(READY_BYTES_MAX, memory_limit_bytes() / READY_MEMORY_PART), PAGE_BYTES);
    uint64_t end = offset + min_u64(bytes, most);
    if (!can_be_ready(image) || end > image_bytes(image) || file_within_limit(format_file_bytes(end)) != 0)
        return;
    for (uint64_t at = offset, part; at < end; at += part) {
        part = min_u64(piece_rest(map, at), end - at);
        if (!is_congruent(map, at) && !(is_resident(map, at) && is_resident(map, at + part - 1)) &&
            file_write_zeros(image->file->fd, format_file_offset(at), part) != 0)
            return; /* the faults make the rest */
    }
}

void image_ready_growth(const struct image *image, uint64_t from, uint64_t wanted, uint64_t to)
{
    if (to - from > GROWTH_BYTES_MAX)
        from = wanted; /* the large block's part is its owner's */
    if (to - from > 2 * GROWTH_BYTES_MAX || !can_be_ready(image))
        return;
    for (uint64_t at = from, part; at < to; at += part) {
        part = min_u64(piece_rest(&image->map, at), to - at);
        if (file_write_zeros(image->file->fd, format_file_offset(at), part) != 0)
            return; /* the faults make the rest */
    }
}
