/* verb_blocks.c -- the live blocks of a store, one by one or counted by size. */
#include "listing.h"
#include "output.h"

#include <inttypes.h>
#include <stdio.h>

#define BLOCKS_BUCKETS 65 /* bucket n counts blocks of more than 2^(n-1) and at most 2^n bytes */

struct blocks_record {
    uint64_t offset, usable; /* bytes */
};

struct blocks_visit {
    struct listing *listing;
    uint64_t count[BLOCKS_BUCKETS], bytes[BLOCKS_BUCKETS];
};

static unsigned blocks_bucket(uint64_t usable)
{
    return usable <= 1 ? 0 : 64 - (unsigned)__builtin_clzll(usable - 1);
}

static int blocks_put(void *block, size_t usable, void *arg)
{
    struct blocks_visit *visit = arg;
    unsigned bucket = blocks_bucket(usable);
    visit->count[bucket]++;
    visit->bytes[bucket] += usable;
    if (visit->listing->spool == NULL)
        return 0;
    struct blocks_record record = {.offset = (uint64_t)((const char *)block - visit->listing->base), .usable = usable};
    return listing_put(visit->listing, &record);
}

static int blocks_visit_all(struct listing *listing, stead *store, void *ctx)
{
    struct blocks_visit *visit = ctx;
    visit->listing = listing;
    return stead_each_block(store, blocks_put, visit);
}

static void blocks_print_list(struct listing *listing, bool as_json)
{
    struct blocks_record record;
    struct json json = {0};
    if (as_json)
        json_begin(&json, NULL, '[');
    while (listing_next(listing, &record)) {
        if (as_json) {
            json_begin(&json, NULL, '{');
            json_number(&json, "offset", record.offset);
            json_number(&json, "usable_bytes", record.usable);
            json_end(&json, '}');
        } else {
            printf("%#16" PRIx64 " %12" PRIu64 "\n", record.offset, record.usable);
        }
    }
    if (as_json)
        json_end(&json, ']');
}

static void blocks_print_summary(const struct blocks_visit *visit, bool as_json)
{
    struct json json = {0};
    char text[OUTPUT_TEXT_BYTES];
    if (as_json)
        json_begin(&json, NULL, '[');
    for (unsigned i = 0; i < BLOCKS_BUCKETS; i++) {
        if (visit->count[i] == 0)
            continue;
        uint64_t most = i < 64 ? UINT64_C(1) << i : UINT64_MAX;
        if (as_json) {
            json_begin(&json, NULL, '{');
            json_number(&json, "usable_bytes_max", most);
            json_number(&json, "blocks", visit->count[i]);
            json_number(&json, "bytes", visit->bytes[i]);
            json_end(&json, '}');
        } else {
            printf("up to %-10s %12" PRIu64 " blocks %16" PRIu64 " bytes\n", output_bytes(text, most), visit->count[i],
                   visit->bytes[i]);
        }
    }
    if (as_json)
        json_end(&json, ']');
}

static int blocks_run(const struct args *args)
{
    bool summary = (args->given & ARGS_SUMMARY) != 0, as_json = (args->given & ARGS_JSON) != 0;
    struct listing listing;
    struct blocks_visit visit = {0};
    int code =
        listing_make(&listing, "blocks", args, summary ? 0 : sizeof(struct blocks_record), blocks_visit_all, &visit);
    if (listing.whole && summary)
        blocks_print_summary(&visit, as_json);
    else if (listing.whole)
        blocks_print_list(&listing, as_json);
    listing_drop(&listing);
    return code;
}

const struct verb verb_blocks = {
    .name = "blocks",
    .synopsis = "[--json] [--summary] [--timeout MS] STORE",
    .summary = "the live blocks of a store",
    .help = "One line a block, in address order: offset from the store's base, usable bytes.\n",
    .accepts = ARGS_JSON | ARGS_SUMMARY | ARGS_TIMEOUT,
    .names_min = 1,
    .names_max = 1,
    .run = blocks_run,
};
