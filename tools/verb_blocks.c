/*
 * verb_blocks.c -- the live blocks of a store, one by one or counted by size.
 *
 * As in verb_names.c, blocks are put aside under the store's shared lock and printed when it is gone.  There may be
 * 10^8 of them: they go to a nameless temporary file, not to memory.
 */
#include "command.h"
#include "output.h"

#include <inttypes.h>
#include <stdio.h>

#define BLOCKS_BUCKETS 65 /* bucket n counts blocks of more than 2^(n-1) and at most 2^n bytes */

struct blocks_record {
    uint64_t offset, usable; /* bytes */
};

struct blocks_visit {
    FILE *spool; /* NULL: only count */
    const char *base;
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
    if (visit->spool == NULL)
        return 0;
    struct blocks_record record = {.offset = (uint64_t)((const char *)block - visit->base), .usable = usable};
    return fwrite(&record, sizeof record, 1, visit->spool) == 1 ? 0 : -1;
}

static void blocks_print_list(FILE *spool, bool as_json)
{
    struct blocks_record record;
    struct json json = {0};
    if (as_json)
        json_begin(&json, NULL, '[');
    while (fread(&record, sizeof record, 1, spool) == 1) {
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
    const char *name = args->names[0];
    bool summary = (args->given & ARGS_SUMMARY) != 0, as_json = (args->given & ARGS_JSON) != 0;
    struct look look;
    if (look_open(&look, name, args->timeout_ms) != 0)
        return command_problem("blocks", name, look.sentence);
    stead_status status;
    struct blocks_visit visit = {.spool = summary ? NULL : tmpfile()};
    int code = COMMAND_FINE;
    int rc = stead_stat(look.store, &status);
    visit.base = status.base;
    if (!summary && visit.spool == NULL)
        code = command_problem("blocks", name, "no temporary file can be made to hold the list");
    else if (rc == 0)
        rc = stead_each_block(look.store, blocks_put, &visit);
    look_close(&look);
    if (code == COMMAND_FINE && rc != 0)
        code = command_problem("blocks", name,
                               rc == -1 ? "the temporary file for the list is full" : stead_last_error_text());
    if (code == COMMAND_FINE) {
        if (summary) {
            blocks_print_summary(&visit, as_json);
        } else {
            rewind(visit.spool);
            blocks_print_list(visit.spool, as_json);
        }
    }
    if (visit.spool != NULL)
        fclose(visit.spool);
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
