/*
 * touch.c -- new space: blocks are taken, and each of their pages is written for the first time.
 *
 *   touch [--size MIB] [--blocks KIB,KIB,...] [--rounds N] [--csv] [--dir D]
 *
 * Each round makes a new store or file for each peer and each size of block in turn: blocks are taken until together they have
 * --size (256 MiB), a byte of each page is written, in order, and read back.  The time is that of taking and writing; nothing is
 * committed in it.
 *
 *   stead(live), stead(sole)   stead_malloc
 *   mapped                     a file made as long at once by fallocate, mapped MAP_SHARED: what the kernel charges
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <stead.h>

#include "bench/support/clock.h"
#include "bench/support/row.h"
#include "bench/support/scratch.h"
#include "bench/support/series.h"

enum { SIZES_MAX = 6, PAGE = 4096 };
enum peer { PEER_LIVE, PEER_SOLE, PEER_MAPPED, PEERS };
static const char *const peer_names[PEERS] = {"stead(live)", "stead(sole)", "mapped"};

struct options {
    uint64_t kib[SIZES_MAX], mib;
    unsigned sizes, rounds;
    bool csv;
    const char *directory;
};

static struct series ms[SIZES_MAX][PEERS];

static int usage(void)
{
    fprintf(stderr, "usage: touch [--size MIB] [--blocks KIB,KIB,...] [--rounds N] [--csv] [--dir DIRECTORY]\n");
    return 2;
}

static bool parse_number(const char **text, uint64_t *number)
{
    char *end;
    unsigned long long value = strtoull(*text, &end, 10);
    if (**text < '0' || **text > '9' || value == 0 || value > 1 << 22)
        return false;
    *number = value;
    *text = end;
    return true;
}

static bool parse_sizes(const char *text, struct options *o)
{
    for (o->sizes = 0; o->sizes < SIZES_MAX; text++) {
        if (!parse_number(&text, &o->kib[o->sizes]) || (o->kib[o->sizes++] << 10) % PAGE != 0)
            return false;
        if (*text == '\0')
            return true;
        if (*text != ',')
            return false;
    }
    return false;
}

static void write_pages(uint8_t *block, uint64_t bytes, uint8_t with)
{
    for (uint64_t at = 0; at < bytes; at += PAGE)
        block[at] = with;
}

static int pages_hold(const uint8_t *block, uint64_t bytes, uint8_t with)
{
    for (uint64_t at = 0; at < bytes; at += PAGE)
        if (block[at] != with)
            return EUCLEAN;
    return 0;
}

static int in_store(const char *path, stead_sharing sharing, uint64_t count, uint64_t bytes, int64_t *ns)
{
    stead_options options = {.sharing = sharing, .capacity_bytes = 2 * count * bytes + (UINT64_C(1) << 30)};
    uint8_t **blocks = calloc(count, sizeof *blocks);
    stead *store;
    if (blocks == NULL)
        return ENOMEM;
    int rc = stead_open(&store, path, &options);
    if (rc != 0)
        goto release;
    int64_t begin = bench_now_ns();
    for (uint64_t i = 0; i < count && rc == 0; i++) {
        blocks[i] = stead_malloc(store, bytes);
        if (blocks[i] == NULL)
            rc = errno;
        else
            write_pages(blocks[i], bytes, (uint8_t)(i % 255 + 1));
    }
    *ns = bench_now_ns() - begin;
    for (uint64_t i = 0; i < count && rc == 0; i++)
        rc = pages_hold(blocks[i], bytes, (uint8_t)(i % 255 + 1));
    int closed = stead_close(store);
    rc = rc != 0 ? rc : closed;
release:
    free(blocks);
    return rc;
}

static int in_mapping(const char *path, uint64_t bytes, int64_t *ns)
{
    int fd = open(path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600), rc = 0;
    if (fd < 0)
        return errno;
    int64_t begin = bench_now_ns();
    uint8_t *base = MAP_FAILED;
    if (fallocate(fd, 0, 0, (off_t)bytes) != 0 ||
        (base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)) == MAP_FAILED)
        rc = errno;
    if (rc == 0)
        write_pages(base, bytes, 1);
    *ns = bench_now_ns() - begin;
    if (rc == 0)
        rc = pages_hold(base, bytes, 1);
    if (base != MAP_FAILED)
        (void)munmap(base, bytes);
    (void)close(fd);
    return rc;
}

static int once(const struct options *o, const char *scratch, unsigned size, enum peer peer)
{
    char path[4200];
    int64_t ns = 0;
    uint64_t bytes = o->kib[size] << 10, count = (o->mib << 20) / bytes;
    (void)snprintf(path, sizeof path, "%s/touched", scratch);
    int rc = peer == PEER_MAPPED ? in_mapping(path, count * bytes, &ns)
                                 : in_store(path, peer == PEER_LIVE ? STEAD_LIVE : STEAD_SOLE, count, bytes, &ns);
    if (rc != 0)
        row_note("%s, blocks of %llu KiB: %s", peer_names[peer], (unsigned long long)o->kib[size], stead_strerror(rc));
    scratch_clear("");
    return rc != 0 || series_add(&ms[size][peer], (double)ns * 1e-6) ? rc : ENOMEM;
}

static void print_rows(const struct options *o)
{
    for (unsigned s = 0; s < o->sizes; s++) {
        char bench[64];
        (void)snprintf(bench, sizeof bench, "touch.%llu_KiB", (unsigned long long)o->kib[s]);
        for (unsigned p = 0; p < PEERS; p++) {
            struct series *own = &ms[s][p];
            struct row row = {.bench = bench,
                              .peer = peer_names[p],
                              .processes = 1,
                              .threads = 1,
                              .n = o->rounds,
                              .unit = "ms",
                              .median = series_median(own),
                              .low = series_quantile(own, 0),
                              .high = series_quantile(own, 1),
                              .written_per_op = -1,
                              .verified = true};
            double mapped = series_median(&ms[s][PEER_MAPPED]);
            if (p != PEER_MAPPED && mapped > 0) {
                row.ratios[0].to = peer_names[PEER_MAPPED];
                row.ratios[0].ratio = row.median / mapped;
            }
            row_print(&row);
        }
        for (unsigned p = 0; p < PEERS; p++)
            series_release(&ms[s][p]);
    }
}

int main(int argc, char **argv)
{
    static const struct option long_options[] = {
        {"size", required_argument, NULL, 's'},   {"blocks", required_argument, NULL, 'b'},
        {"rounds", required_argument, NULL, 'r'}, {"csv", no_argument, NULL, 'c'},
        {"dir", required_argument, NULL, 'd'},    {NULL, 0, NULL, 0}};
    struct options o = {.kib = {64, 1024, 64 << 10, 256 << 10}, .sizes = 4, .mib = 256, .rounds = 3, .directory = "."};
    int option, rc = 0;
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        const char *text = optarg;
        uint64_t number;
        if (option == '?' || (option == 'b' && !parse_sizes(optarg, &o)))
            return usage();
        if ((option == 's' || option == 'r') && (!parse_number(&text, &number) || *text != '\0'))
            return usage();
        if (option == 's')
            o.mib = number;
        if (option == 'r')
            o.rounds = (unsigned)number;
        if (option == 'd')
            o.directory = optarg;
        o.csv |= option == 'c';
    }
    for (unsigned s = 0; s < o.sizes; s++)
        if (o.kib[s] << 10 > o.mib << 20)
            return usage();
    const char *scratch = optind == argc ? scratch_begin(o.directory) : NULL;
    if (scratch == NULL)
        return usage();
    row_begin(o.csv, scratch);
    for (unsigned r = 0; rc == 0 && r < o.rounds; r++) {
        progress("round %u of %u", r + 1, o.rounds);
        for (unsigned s = 0; rc == 0 && s < o.sizes; s++)
            for (unsigned p = 0; rc == 0 && p < PEERS; p++)
                rc = once(&o, scratch, s, (enum peer)p);
    }
    if (rc == 0)
        print_rows(&o);
    scratch_end();
    return rc == 0 ? 0 : 1;
}
