/*
 * verb_rm.c -- removes stores, sections, semaphores and events by the names that `stead ls` prints.
 *
 * A store in use, and a file that does not open as a store, are kept unless --force is given.  Between the look and
 * the removal somebody may attach: then the name goes and that process works on, as stead_remove() promises.
 */
#include "command.h"
#include "output.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool rm_has_prefix(const char *name, const char *prefix, const char **rest)
{
    size_t length = strlen(prefix);
    if (strncmp(name, prefix, length) != 0)
        return false;
    *rest = name + length;
    return true;
}

static int rm_do(const char *name, const struct args *args)
{
    const char *rest;
    if ((args->given & ARGS_DRY_RUN) == 0) {
        int rc;
        if (rm_has_prefix(name, "semaphore:", &rest))
            rc = stead_semaphore_remove(rest);
        else if (rm_has_prefix(name, "event:", &rest))
            rc = stead_event_remove(rest);
        else
            rc = stead_remove(name);
        if (rc != 0)
            return command_problem("rm", name, stead_last_error_text());
    }
    printf((args->given & ARGS_DRY_RUN) != 0 ? "would remove " : "removed ");
    output_safe(name);
    putchar('\n');
    return COMMAND_FINE;
}

/* A store or section: looks first. */
static int rm_store(const char *name, const struct args *args)
{
    if ((args->given & ARGS_FORCE) != 0)
        return rm_do(name, args);
    struct look look;
    if (look_open(&look, name, args->timeout_ms) != 0)
        return command_problem("rm", name, look.sentence);
    stead_status status;
    int rc = stead_stat(look.store, &status);
    unsigned attached = rc == 0 ? look_attached(&status) : 0;
    look_close(&look);
    if (rc != 0)
        return command_problem("rm", name, stead_strerror(rc));
    if (attached > 0) {
        char sentence[96];
        snprintf(sentence, sizeof sentence, "kept, it is in use by %u process%s; --force removes it all the same",
                 attached, attached == 1 ? "" : "es");
        return command_problem("rm", name, sentence);
    }
    return rm_do(name, args);
}

/* ---- --stale ---- */

struct rm_stale {
    char **names; /* of sections, collected first: nothing is removed while the list is being read */
    size_t count;
    bool no_memory;
};

static int rm_collect(const char *name, const char *kind, void *arg)
{
    struct rm_stale *stale = arg;
    if (strcmp(kind, "store") != 0)
        return 0;
    char **names = realloc(stale->names, (stale->count + 1) * sizeof *names);
    if (names != NULL)
        stale->names = names;
    char *copy = strdup(name);
    if (names == NULL || copy == NULL) {
        free(copy);
        stale->no_memory = true;
        return 1;
    }
    stale->names[stale->count++] = copy;
    return 0;
}

/* Names after --stale narrow it to them. */
static bool rm_asked_for(const char *name, const struct args *args)
{
    for (int i = 0; i < args->count; i++)
        if (strcmp(name, args->names[i]) == 0)
            return true;
    return args->count == 0;
}

/* Removes the sections nobody is attached to.  One that does not open, or is in use, is none of our business. */
static int rm_run_stale(const struct args *args)
{
    struct rm_stale stale = {0};
    int code = COMMAND_FINE;
    int rc = stead_each_section(rm_collect, &stale);
    if (stale.no_memory)
        code = command_problem("rm", "--stale", "out of memory");
    else if (rc != 0)
        code = command_problem("rm", "--stale", stead_last_error_text());
    for (size_t i = 0; i < stale.count; i++) {
        struct look look;
        stead_status status;
        bool idle = false;
        if (code == COMMAND_FINE && rm_asked_for(stale.names[i], args) &&
            look_open(&look, stale.names[i], args->timeout_ms) == 0) {
            idle = stead_stat(look.store, &status) == 0 && look_attached(&status) == 0;
            look_close(&look);
        }
        if (idle && rm_do(stale.names[i], args) != COMMAND_FINE)
            code = COMMAND_PROBLEM;
        free(stale.names[i]);
    }
    free(stale.names);
    return code;
}

static int rm_run(const struct args *args)
{
    bool stale = (args->given & ARGS_STALE) != 0;
    if (!stale && args->count == 0) {
        fprintf(stderr, "stead rm: name what is to go, or --stale for sections that nobody is attached to\n");
        return COMMAND_USAGE;
    }
    for (int i = 0; stale && i < args->count; i++) {
        const char *rest;
        if (!rm_has_prefix(args->names[i], "shm:", &rest)) {
            fprintf(stderr,
                    "stead rm: --stale is about sections in memory, shm:NAME; without it a store of any kind\n");
            return COMMAND_USAGE;
        }
    }
    if (stale)
        return rm_run_stale(args);
    int code = COMMAND_FINE;
    for (int i = 0; i < args->count; i++) {
        const char *name = args->names[i], *rest;
        bool sync = rm_has_prefix(name, "semaphore:", &rest) || rm_has_prefix(name, "event:", &rest);
        if ((sync ? rm_do(name, args) : rm_store(name, args)) != COMMAND_FINE)
            code = COMMAND_PROBLEM;
    }
    return code;
}

const struct verb verb_rm = {
    .name = "rm",
    .synopsis = "[--dry-run] [--force] [--timeout MS] NAME... | --stale [--dry-run] [shm:NAME...]",
    .summary = "remove stores, sections, semaphores, events",
    .help =
        "NAME is as `stead ls` prints it: a file, shm:NAME, semaphore:NAME or event:NAME.  A store goes with its log.\n"
        "What is in use or damaged is kept, with exit code 1, unless --force is given; what is no store is kept "
        "always.\n"
        "With --stale: all sections in memory that no process is attached to, or of those named.\n",
    .accepts = ARGS_STALE | ARGS_DRY_RUN | ARGS_FORCE | ARGS_TIMEOUT,
    .names_min = 0,
    .names_max = INT_MAX,
    .run = rm_run,
};
