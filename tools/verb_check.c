/* verb_check.c -- verifies stores: superblocks, heap, page checksums. */
#include "command.h"
#include "output.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>

static void check_print(const char *name, int rc, const stead_report *report, const char *sentence)
{
    bool is_named = rc != 0 && report->problems == 0 && output_begins_with(sentence, name);
    if (!is_named)
        output_safe(name);
    if (rc == 0) {
        printf(": fine; %" PRIu64 " pages, %" PRIu64 " blocks\n", report->pages, report->blocks);
        return;
    }
    if (report->problems > 0) {
        printf(": %" PRIu64 " problem%s; %" PRIu64 " pages, %" PRIu64 " blocks; ", report->problems,
               report->problems == 1 ? "" : "s", report->pages, report->blocks);
        output_safe(report->first_problem);
    } else {
        printf("%s", is_named ? "" : ": ");
        output_safe(sentence);
    }
    putchar('\n');
}

static void check_json(struct json *json, const char *name, int rc, const stead_report *report, const char *sentence)
{
    json_begin(json, NULL, '{');
    json_text(json, "store", name);
    json_flag(json, "fine", rc == 0);
    json_number(json, "pages", report->pages);
    json_number(json, "blocks", report->blocks);
    json_number(json, "problems", report->problems);
    json_text(json, "first_problem", report->problems > 0 ? report->first_problem : NULL);
    json_text(json, "error", rc == 0 ? NULL : sentence);
    json_end(json, '}');
}

static int check_run(const struct args *args)
{
    bool as_json = (args->given & ARGS_JSON) != 0;
    struct json json = {0};
    int code = COMMAND_FINE;
    if (as_json)
        json_begin(&json, NULL, '[');
    for (int i = 0; i < args->count; i++) {
        stead_report report = {0};
        struct look look;
        int rc = look_open(&look, args->names[i], args->timeout_ms);
        const char *sentence = look.sentence;
        if (rc == 0) {
            rc = stead_check(look.store, &report);
            sentence = stead_last_error_text();
            if (rc == 0 && look.verdict != 0) { /* sound, as far as can be told, but nobody closed it */
                rc = look.verdict;
                sentence = stead_strerror(rc);
            }
            look_close(&look);
        }
        if (as_json)
            check_json(&json, args->names[i], rc, &report, sentence);
        else
            check_print(args->names[i], rc, &report, sentence);
        if (rc != 0)
            code = COMMAND_PROBLEM;
    }
    if (as_json)
        json_end(&json, ']');
    return code;
}

const struct verb verb_check = {
    .name = "check",
    .synopsis = "[--json] [--timeout MS] STORE...",
    .summary = "verify superblocks, heap and page checksums",
    .help =
        "Reads the whole used range, changes nothing, works on a store in use.  Exit code 1 if a problem was found.\n",
    .accepts = ARGS_JSON | ARGS_TIMEOUT,
    .names_min = 1,
    .names_max = INT_MAX,
    .run = check_run,
};
