/* verb_sem.c -- the values of named semaphores and events, as semstat once showed those of System V. */
#include "command.h"
#include "output.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

struct sem_visit {
    struct json json;
    bool as_json;
    unsigned shown;
};

static void sem_show(struct sem_visit *visit, const char *name, const char *kind, unsigned value)
{
    if (visit->as_json) {
        json_begin(&visit->json, NULL, '{');
        json_text(&visit->json, "name", name);
        json_text(&visit->json, "kind", kind);
        json_number(&visit->json, "value", value);
        json_end(&visit->json, '}');
    } else {
        printf("%-9s %10u  ", kind, value);
        output_safe(name);
        putchar('\n');
    }
    visit->shown++;
}

static int sem_each(const char *name, const char *kind, void *arg)
{
    unsigned value;
    if (strcmp(kind, "store") != 0 && stead_sync_value(name, kind, &value) == 0) /* else removed just now */
        sem_show(arg, name, kind, value);
    return 0;
}

/* One name may be a semaphore's, an event's, or both. */
static int sem_named(struct sem_visit *visit, const char *name)
{
    static const char *const kinds[] = {"semaphore", "event"};
    unsigned before = visit->shown;
    int rc = 0;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        unsigned value;
        int each = stead_sync_value(name, kinds[i], &value);
        if (each == 0)
            sem_show(visit, name, kinds[i], value);
        else if (each != ENOENT)
            rc = each;
    }
    if (rc == 0 && visit->shown == before)
        return command_problem("sem", name, "there is no semaphore and no event of that name");
    return rc == 0 ? COMMAND_FINE : command_problem("sem", name, stead_strerror(rc));
}

static int sem_run(const struct args *args)
{
    struct sem_visit visit = {.as_json = (args->given & ARGS_JSON) != 0};
    int code = COMMAND_FINE;
    if (visit.as_json)
        json_begin(&visit.json, NULL, '[');
    if (args->count == 0 && stead_each_section(sem_each, &visit) != 0)
        code = command_problem("sem", "the list", stead_last_error_text());
    for (int i = 0; i < args->count; i++)
        if (sem_named(&visit, args->names[i]) != COMMAND_FINE)
            code = COMMAND_PROBLEM;
    if (visit.as_json)
        json_end(&visit.json, ']');
    return code;
}

const struct verb verb_sem = {
    .name = "sem",
    .synopsis = "[--json] [NAME...]",
    .summary = "the values of named semaphores and events",
    .help = "One line each: kind, value (an event's is 1 when signaled), name.\n",
    .accepts = ARGS_JSON,
    .names_min = 0,
    .names_max = INT_MAX,
    .run = sem_run,
};
