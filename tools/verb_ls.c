/*
 * verb_ls.c -- stores in a directory, sections in memory, named semaphores and events: all that stead leaves anywhere.
 *
 * A file is a store if stead_open() says so; nothing here knows the format.  The names printed are those that
 * `stead rm` takes back.
 */
#include "command.h"
#include "output.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct ls_entry {
    char *name;
    const char *kind;  /* "store", "section", "semaphore", "event" */
    const char *state; /* static text */
    const char *sharing;
    unsigned attached, value;
    uint64_t bytes;
    time_t changed;
};

struct ls_list {
    struct ls_entry *entries;
    size_t count, room;
    int timeout_ms;
    bool problem; /* something damaged, unclean or unreadable was met */
    bool no_memory;
};

static struct ls_entry *ls_add(struct ls_list *list, const char *name, const char *kind)
{
    if (list->count == list->room) {
        size_t room = list->room == 0 ? 32 : 2 * list->room;
        struct ls_entry *entries = realloc(list->entries, room * sizeof *entries);
        if (entries == NULL)
            goto no_memory;
        list->entries = entries;
        list->room = room;
    }
    char *copy = strdup(name);
    if (copy == NULL)
        goto no_memory;
    struct ls_entry *entry = &list->entries[list->count++];
    *entry = (struct ls_entry){.name = copy, .kind = kind, .state = ""};
    return entry;
no_memory:
    list->no_memory = true;
    return NULL;
}

/* What there is to say about a store that does not open; NULL if it is none, or not for us to know. */
static const char *ls_state_of_error(int rc)
{
    switch (rc) {
    case STEAD_NOT_A_STORE:
    case EACCES:
    case EPERM:
    case ENOENT:
    case ETXTBSY: /* a program that is running */
        return NULL;
    case EBUSY:
    case ETIMEDOUT:
        return "busy";
    case STEAD_CORRUPT:
        return "damaged";
    case STEAD_LOG_MISSING:
        return "log missing";
    case STEAD_VERSION:
        return "other version";
    default:
        return stead_strerror(rc);
    }
}

static void ls_look(struct ls_list *list, const char *name, const char *kind)
{
    struct look look;
    int rc = look_open(&look, name, list->timeout_ms);
    if (rc != 0) {
        const char *state = ls_state_of_error(rc);
        struct ls_entry *entry = state != NULL ? ls_add(list, name, kind) : NULL;
        if (entry != NULL) {
            entry->state = state;
            entry->sharing = NULL;
            if (strcmp(state, "busy") != 0)
                list->problem = true;
        }
        return;
    }
    stead_status status;
    if (stead_stat(look.store, &status) == 0) {
        struct ls_entry *entry = ls_add(list, name, kind);
        if (entry != NULL) {
            entry->state = look_state(&look, &status);
            entry->sharing = look_sharing(status.sharing);
            entry->attached = look_attached(&status);
            entry->bytes = status.file_bytes;
            entry->changed = status.last_change;
        }
        if (look.verdict != 0)
            list->problem = true;
    } else {
        command_problem("ls", name, stead_last_error_text());
        list->problem = true;
    }
    look_close(&look);
}

static void ls_directory(struct ls_list *list, const char *path)
{
    struct dirent **found;
    int count = scandir(path, &found, NULL, alphasort);
    if (count < 0) {
        command_problem("ls", path, strerror(errno));
        list->problem = true;
        return;
    }
    bool here = strcmp(path, ".") == 0;
    size_t path_length = strlen(path);
    const char *slash = path_length > 0 && path[path_length - 1] == '/' ? "" : "/";
    for (int i = 0; i < count; i++) {
        char *name;
        struct stat facts;
        if (asprintf(&name, "%s%s%s", here ? "" : path, here ? "" : slash, found[i]->d_name) < 0) {
            list->no_memory = true;
        } else {
            if (lstat(name, &facts) == 0 && S_ISREG(facts.st_mode)) /* nothing else is opened: a FIFO would hang */
                ls_look(list, name, "store");
            free(name);
        }
        free(found[i]);
    }
    free(found);
}

static int ls_section(const char *name, const char *kind, void *arg)
{
    struct ls_list *list = arg;
    if (strcmp(kind, "store") == 0) {
        ls_look(list, name, "section");
        return 0;
    }
    bool event = strcmp(kind, "event") == 0;
    char *full;
    if (asprintf(&full, "%s:%s", kind, name) < 0) {
        list->no_memory = true;
        return 0;
    }
    unsigned value;
    if (stead_sync_value(name, kind, &value) == 0) { /* else it was removed just now */
        struct ls_entry *entry = ls_add(list, full, event ? "event" : "semaphore");
        if (entry != NULL) {
            entry->value = value;
            if (event)
                entry->state = value != 0 ? "signaled" : "not signaled";
        }
    }
    free(full);
    return 0;
}

static void ls_print(const struct ls_list *list)
{
    char size[OUTPUT_TEXT_BYTES], when[OUTPUT_TEXT_BYTES];
    if (list->count > 0)
        printf("%-9s  %-12s  %-7s  %8s  %10s  %-19s  %s\n", "KIND", "STATE", "SHARING", "ATTACHED", "SIZE", "CHANGED",
               "NAME");
    for (size_t i = 0; i < list->count; i++) {
        const struct ls_entry *entry = &list->entries[i];
        if (entry->sharing != NULL) {
            printf("%-9s  %-12s  %-7s  %8u  %10s  %-19s  ", entry->kind, entry->state, entry->sharing, entry->attached,
                   output_bytes(size, entry->bytes), output_time(when, entry->changed));
        } else if (strcmp(entry->kind, "semaphore") == 0) {
            snprintf(size, sizeof size, "value %u", entry->value);
            printf("%-9s  %-12s  %-7s  %8s  %10s  %-19s  ", entry->kind, size, "", "", "", "");
        } else {
            printf("%-9s  %-12s  %-7s  %8s  %10s  %-19s  ", entry->kind, entry->state, "", "", "", "");
        }
        output_safe(entry->name);
        putchar('\n');
    }
}

static void ls_json(const struct ls_list *list)
{
    struct json json = {0};
    json_begin(&json, NULL, '[');
    for (size_t i = 0; i < list->count; i++) {
        const struct ls_entry *entry = &list->entries[i];
        json_begin(&json, NULL, '{');
        json_text(&json, "name", entry->name);
        json_text(&json, "kind", entry->kind);
        if (strcmp(entry->kind, "semaphore") == 0 || strcmp(entry->kind, "event") == 0) {
            json_number(&json, "value", entry->value);
        } else {
            json_text(&json, "state", entry->state);
            json_text(&json, "sharing", entry->sharing);
            json_number(&json, "attached", entry->attached);
            json_number(&json, "file_bytes", entry->bytes);
            json_time(&json, "last_change", entry->changed);
        }
        json_end(&json, '}');
    }
    json_end(&json, ']');
}

static int ls_run(const struct args *args)
{
    struct ls_list list = {.timeout_ms = args->timeout_ms};
    if (args->count == 0)
        ls_directory(&list, ".");
    for (int i = 0; i < args->count; i++)
        ls_directory(&list, args->names[i]);
    if (stead_each_section(ls_section, &list) != 0) {
        command_problem("ls", "sections in memory", stead_last_error_text());
        list.problem = true;
    }
    if ((args->given & ARGS_JSON) != 0)
        ls_json(&list);
    else
        ls_print(&list);
    if (list.no_memory)
        command_problem("ls", "the list", "is not complete: out of memory");
    for (size_t i = 0; i < list.count; i++)
        free(list.entries[i].name);
    free(list.entries);
    return list.problem || list.no_memory ? COMMAND_PROBLEM : COMMAND_FINE;
}

const struct verb verb_ls = {
    .name = "ls",
    .synopsis = "[--json] [--timeout MS] [DIRECTORY...]",
    .summary = "stores in a directory, and sections, semaphores, events in memory",
    .help = "Directories (the current one if none is named) are not searched recursively.  Exit code 1 if one of the\n"
            "stores is damaged or unclean, or a directory cannot be read.\n",
    .accepts = ARGS_JSON | ARGS_TIMEOUT,
    .names_min = 0,
    .names_max = INT_MAX,
    .run = ls_run,
};
