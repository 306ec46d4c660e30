/* verb_names.c -- the named objects of a store. */
#include "listing.h"
#include "output.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define NAMES_BYTES_MAX 255 /* see stead_bind() */

struct names_record {
    uint64_t offset; /* from the base of this mapping */
    uint64_t usable;
    char name[NAMES_BYTES_MAX + 1];
};

static int names_put(const char *name, void *object, void *arg)
{
    struct listing *listing = arg;
    struct names_record record = {.offset = (uint64_t)((const char *)object - listing->base),
                                  .usable = stead_usable_size(object)};
    snprintf(record.name, sizeof record.name, "%s", name);
    return listing_put(listing, &record);
}

static int names_visit(struct listing *listing, stead *store, void *ctx)
{
    (void)ctx;
    return stead_each_name(store, names_put, listing);
}

static void names_print(struct listing *listing, bool as_json)
{
    struct names_record record;
    struct json json = {0};
    if (as_json)
        json_begin(&json, NULL, '[');
    while (listing_next(listing, &record)) {
        if (as_json) {
            json_begin(&json, NULL, '{');
            json_text(&json, "name", record.name);
            json_number(&json, "offset", record.offset);
            json_number(&json, "usable_bytes", record.usable);
            json_end(&json, '}');
        } else {
            printf("%#16" PRIx64 " %12" PRIu64 " ", record.offset, record.usable);
            output_safe(record.name);
            putchar('\n');
        }
    }
    if (as_json)
        json_end(&json, ']');
}

static int names_run(const struct args *args)
{
    struct listing listing;
    int code = listing_make(&listing, "names", args, sizeof(struct names_record), names_visit, NULL);
    if (listing.whole)
        names_print(&listing, (args->given & ARGS_JSON) != 0);
    listing_drop(&listing);
    return code;
}

const struct verb verb_names = {
    .name = "names",
    .synopsis = "[--json] [--timeout MS] STORE",
    .summary = "the named objects of a store",
    .help = "One line a name: offset from the store's base, usable bytes, name.\n",
    .accepts = ARGS_JSON | ARGS_TIMEOUT,
    .names_min = 1,
    .names_max = 1,
    .run = names_run,
};
