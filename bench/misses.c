/*
 * misses.c -- what a free in random order costs by its cache misses alone, without an allocator.
 *
 *   misses [--objects N,N,...] [--rounds N] [--csv]
 *
 * Each shape has the memory that so many live blocks of 24 bytes have under an allocator of its kind, and each operation is the
 * loads and stores of one free, with what depends on what, and no other instruction than that needs:
 *   list           a descriptor for 64 KiB of blocks (32 bytes each) is read; the block gets the list's head, the list the block
 *   bitmap         a note of 128 bytes for each slab of 32 KiB (24 bytes a block) names the slab's descriptor in the image, of
 *                  448 bytes; its head is compared, the block's bit tested and cleared, the note's count lowered.  No block is
 *                  touched
 *   bitmap(huge)   the same, notes and descriptors in huge pages: what of it is the translation of addresses
 *   bitmap(dense)  the same, with notes of 16 bytes and the descriptor's address computed: nothing depends on a miss
 * Processor time of the thread; a round frees as many blocks as there are, at most 10,000,000; the order is the same for all.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "support/row.h"
#include "support/series.h"

#define SHAPES 4
#define SIZES_MAX 8
#define FREES_MAX UINT64_C(10000000)
#define LIST_BLOCK 32u
#define LIST_PAGE_SHIFT 16
#define SLAB_BLOCKS 1365u /* of 24 bytes in 32 KiB */

static const char *const shape_names[SHAPES] = {"list", "bitmap", "bitmap(huge)", "bitmap(dense)"};

struct page { /* as long as a free list's descriptor is */
    uint8_t *free;
    uint64_t used, other[10];
};

struct pair {
    uint64_t allocated, freed;
};

struct slab {
    uint64_t head, other[3];
    struct pair map[26];
};

struct note {
    uint64_t head;
    struct slab *slab;
    uint64_t used, other[13];
};

struct dense {
    uint64_t head, used;
};

struct memory {
    uint8_t *blocks; /* list */
    struct page *pages;
    struct note *notes; /* bitmap */
    struct slab *slabs;
    struct dense *dense; /* bitmap(dense), instead of notes */
    size_t blocks_bytes, pages_bytes, notes_bytes, slabs_bytes, dense_bytes;
};

static void *take(size_t bytes, bool huge)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        perror("memory");
        exit(1);
    }
    (void)madvise(p, bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    memset(p, 0, bytes);
    return p;
}

static void give_back(void *p, size_t bytes)
{
    if (p != NULL)
        (void)munmap(p, bytes);
}

static double now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static void memory_open(struct memory *m, unsigned shape, uint64_t n)
{
    *m = (struct memory){0};
    if (shape == 0) {
        m->blocks_bytes = n * LIST_BLOCK;
        m->pages_bytes = ((m->blocks_bytes >> LIST_PAGE_SHIFT) + 1) * sizeof *m->pages;
        m->blocks = take(m->blocks_bytes, false);
        m->pages = take(m->pages_bytes, false);
        return;
    }
    uint64_t slabs = n / SLAB_BLOCKS + 1;
    m->notes_bytes = slabs * sizeof *m->notes;
    m->slabs_bytes = slabs * sizeof *m->slabs;
    m->dense_bytes = slabs * sizeof *m->dense;
    m->notes = take(m->notes_bytes, shape == 2);
    m->dense = take(m->dense_bytes, false);
    m->slabs = take(m->slabs_bytes, shape == 2);
    for (uint64_t s = 0; s < slabs; s++) {
        m->notes[s] = (struct note){.head = s + 1, .slab = &m->slabs[s]};
        m->dense[s] = (struct dense){.head = s + 1};
        m->slabs[s].head = s + 1;
    }
    for (uint64_t i = 0; i < n; i++) {
        m->slabs[i / SLAB_BLOCKS].map[i % SLAB_BLOCKS / 64].allocated |= UINT64_C(1) << i % SLAB_BLOCKS % 64;
        m->notes[i / SLAB_BLOCKS].used++;
        m->dense[i / SLAB_BLOCKS].used++;
    }
}

static void memory_close(struct memory *m)
{
    give_back(m->blocks, m->blocks_bytes);
    give_back(m->pages, m->pages_bytes);
    give_back(m->notes, m->notes_bytes);
    give_back(m->slabs, m->slabs_bytes);
    give_back(m->dense, m->dense_bytes);
}

static uint64_t free_by_list(const struct memory *m, const uint32_t *order, uint64_t frees)
{
    for (uint64_t i = 0; i < frees; i++) {
        uint8_t *block = m->blocks + (uint64_t)order[i] * LIST_BLOCK;
        struct page *page = &m->pages[(uint64_t)(block - m->blocks) >> LIST_PAGE_SHIFT];
        memcpy(block, &page->free, sizeof page->free);
        page->free = block;
        page->used++;
    }
    uint64_t sum = 0;
    for (uint64_t p = 0; p < m->pages_bytes / sizeof *m->pages; p++)
        sum += m->pages[p].used;
    return sum;
}

/* The descriptor's part: its head proved, the block's bit tested and cleared. */
static inline bool clear_bit(struct slab *slab, uint64_t head, unsigned index)
{
    struct pair *pair = &slab->map[index / 64];
    uint64_t bit = UINT64_C(1) << index % 64, allocated = pair->allocated;
    if (slab->head != head || (allocated & ~pair->freed & bit) == 0)
        return false;
    pair->allocated = allocated & ~bit;
    return true;
}

static uint64_t free_by_bitmap(const struct memory *m, const uint32_t *order, uint64_t frees)
{
    uint64_t done = 0;
    for (uint64_t i = 0; i < frees; i++) {
        struct note *note = &m->notes[order[i] / SLAB_BLOCKS];
        if (__builtin_expect(!clear_bit(note->slab, note->head, order[i] % SLAB_BLOCKS), 0))
            continue;
        note->used--;
        done++;
    }
    return done;
}

static uint64_t free_by_dense_bitmap(const struct memory *m, const uint32_t *order, uint64_t frees)
{
    uint64_t done = 0;
    for (uint64_t i = 0; i < frees; i++) {
        struct dense *note = &m->dense[order[i] / SLAB_BLOCKS];
        struct slab *slab = &m->slabs[order[i] / SLAB_BLOCKS];
        if (__builtin_expect(!clear_bit(slab, note->head, order[i] % SLAB_BLOCKS), 0))
            continue;
        note->used--;
        done++;
    }
    return done;
}

/* 0 .. n - 1 in random order. */
static uint32_t *make_order(uint64_t n)
{
    uint64_t seed = UINT64_C(88172645463325252);
    uint32_t *order = take(n * sizeof *order, false);
    for (uint64_t i = 0; i < n; i++)
        order[i] = (uint32_t)i;
    for (uint64_t i = n - 1; i > 0; i--) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        uint64_t j = seed % (i + 1);
        uint32_t kept = order[i];
        order[i] = order[j];
        order[j] = kept;
    }
    return order;
}

static bool measure(uint64_t n, unsigned rounds)
{
    uint64_t frees = n < FREES_MAX ? n : FREES_MAX;
    uint32_t *order = make_order(n);
    struct series ns[SHAPES] = {0}, ratio[SHAPES] = {0};
    uint64_t (*const shapes[SHAPES])(const struct memory *, const uint32_t *,
                                     uint64_t) = {free_by_list, free_by_bitmap, free_by_bitmap, free_by_dense_bitmap};
    bool right = true;
    for (unsigned r = 0; r < rounds; r++) {
        double list = 0;
        for (unsigned shape = 0; shape < SHAPES; shape++) {
            struct memory m;
            progress("%llu blocks, round %u, %s", (unsigned long long)n, r + 1, shape_names[shape]);
            memory_open(&m, shape, n);
            double begin = now_ns();
            right = shapes[shape](&m, order, frees) == frees && right;
            double taken = (now_ns() - begin) / (double)frees;
            list = shape == 0 ? taken : list;
            (void)series_add(&ns[shape], taken);
            (void)series_add(&ratio[shape], taken / list);
            memory_close(&m);
        }
    }
    progress("%s", "");
    for (unsigned shape = 0; shape < SHAPES; shape++) {
        struct row row = {.bench = "misses.random free",
                          .peer = shape_names[shape],
                          .processes = 1,
                          .threads = 1,
                          .n = n,
                          .unit = "ns/op",
                          .median = series_median(&ns[shape]),
                          .low = series_quantile(&ns[shape], 0),
                          .high = series_quantile(&ns[shape], 1),
                          .written_per_op = -1,
                          .ratios = {{.to = shape_names[0], .ratio = series_median(&ratio[shape])}},
                          .verified = right};
        char remark[48];
        (void)snprintf(remark, sizeof remark, "%llu live blocks", (unsigned long long)n);
        row.remark = remark;
        row_print(&row);
        series_release(&ns[shape]);
        series_release(&ratio[shape]);
    }
    (void)munmap(order, n * sizeof *order);
    return right;
}

int main(int argc, char **argv)
{
    uint64_t sizes[SIZES_MAX] = {1000000, 30000000, 100000000};
    unsigned count = 3, rounds = 3;
    bool csv = false, well = true;
    for (int i = 1; i < argc && well; i++) {
        if (strcmp(argv[i], "--csv") == 0) {
            csv = true;
        } else if (strcmp(argv[i], "--rounds") == 0 && i + 1 < argc) {
            rounds = (unsigned)strtoul(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--objects") == 0 && i + 1 < argc) {
            char *at = argv[++i];
            for (count = 0; count < SIZES_MAX && *at != '\0'; at += *at == ',')
                sizes[count++] = strtoull(at, &at, 10);
            well = *at == '\0' && count != 0;
        } else {
            well = false;
        }
    }
    for (unsigned i = 0; i < count; i++)
        well = well && sizes[i] >= 1000 && sizes[i] <= UINT32_MAX;
    if (!well || rounds < 1 || rounds > 1000) {
        fprintf(stderr, "usage: misses [--objects N,N,...] [--rounds N] [--csv]\n");
        return 2;
    }
    row_begin(csv, NULL);
    for (unsigned i = 0; i < count; i++)
        well = measure(sizes[i], rounds) && well;
    return well ? 0 : 1;
}
