/*
 * verb_names.c -- the named objects of a store.
 *
 * Names are visited under the store's shared lock, so they are only put aside there (in a nameless temporary file) and
 * printed when the lock is gone: a pager must not hold up writers.
 */
#include "command.h"
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

struct names_spool {
    FILE *file;
    const char *base;
};

static int names_put(const char *name, void *object, void *arg)
{
    struct names_spool *spool = arg;
    struct names_record record = {.offset = (uint64_t)((const char *)object - spool->base),
                                  .usable = stead_usable_size(object)};
    snprintf(record.name, sizeof record.name, "%s", name);
    return fwrite(&record, sizeof record, 1, spool->file) == 1 ? 0 : -1;
}

static void names_print(FILE *spool, bool as_json)
{
    struct names_record record;
    struct json json = {0};
    if (as_json)
        json_begin(&json, NULL, '[');
    while (fread(&record, sizeof record, 1, spool) == 1) {
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
    const char *name = args->names[0];
    struct look look;
    if (look_open(&look, name, args->timeout_ms) != 0)
        return command_problem("names", name, look.sentence);
    stead_status status;
    struct names_spool spool = {.file = tmpfile()};
    int code = COMMAND_FINE;
    int rc = stead_stat(look.store, &status);
    spool.base = status.base;
    if (spool.file == NULL)
        code = command_problem("names", name, "no temporary file can be made to hold the list");
    else if (rc == 0)
        rc = stead_each_name(look.store, names_put, &spool);
    look_close(&look);
    if (code == COMMAND_FINE && rc != 0)
        code = command_problem("names", name,
                               rc == -1 ? "the temporary file for the list is full" : stead_last_error_text());
    if (code == COMMAND_FINE) {
        rewind(spool.file);
        names_print(spool.file, (args->given & ARGS_JSON) != 0);
    }
    if (spool.file != NULL)
        fclose(spool.file);
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
