/* args.c -- the options of the verbs: one table, long names only, anywhere on the line, "--" ends them. */
#include "command.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ARGS_DEFAULT_TIMEOUT_MS 1000

static const struct args_option {
    const char *name;
    unsigned bit;
    const char *help;
} args_options[] = {
    {"--json", ARGS_JSON, "--json           print JSON"},
    {"--locks", ARGS_LOCKS, "--locks          who holds the store's lock and who waits for it"},
    {"--stale", ARGS_STALE, "--stale          sections in memory that no process is attached to"},
    {"--dry-run", ARGS_DRY_RUN, "--dry-run        say what would be removed, remove nothing"},
    {"--force", ARGS_FORCE, "--force          also what is in use or damaged"},
    {"--summary", ARGS_SUMMARY, "--summary        count and bytes by size instead of one line a block"},
    {"--timeout", ARGS_TIMEOUT, "--timeout MS     how long to wait for a busy store (1000; 0 not at all, -1 for ever)"},
};
#define ARGS_OPTION_COUNT (sizeof args_options / sizeof args_options[0])

void args_describe(const struct verb *verb)
{
    for (size_t i = 0; i < ARGS_OPTION_COUNT; i++)
        if ((verb->accepts & args_options[i].bit) != 0)
            printf("  %s\n", args_options[i].help);
}

static const struct args_option *args_find(const struct verb *verb, const char *name, size_t length)
{
    for (size_t i = 0; i < ARGS_OPTION_COUNT; i++)
        if (strlen(args_options[i].name) == length && strncmp(args_options[i].name, name, length) == 0 &&
            (verb->accepts & args_options[i].bit) != 0)
            return &args_options[i];
    return NULL;
}

static bool args_number(const char *text, int *out)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value < -1 || value > INT_MAX)
        return false;
    *out = (int)value;
    return true;
}

/* One option at argv[i]; returns how many words it took, 0 after a complaint. */
static int args_take_option(struct args *args, const struct verb *verb, int argc, char **argv, int i)
{
    const char *equals = strchr(argv[i], '=');
    size_t length = equals != NULL ? (size_t)(equals - argv[i]) : strlen(argv[i]);
    const struct args_option *option = args_find(verb, argv[i], length);
    if (option == NULL) {
        fprintf(stderr, "stead %s: there is no option %s here; see: stead help %s\n", verb->name, argv[i], verb->name);
        return 0;
    }
    args->given |= option->bit;
    if (option->bit != ARGS_TIMEOUT) {
        if (equals == NULL)
            return 1;
        fprintf(stderr, "stead %s: %s takes no value\n", verb->name, option->name);
        return 0;
    }
    const char *value = equals != NULL ? equals + 1 : i + 1 < argc ? argv[i + 1] : "";
    if (!args_number(value, &args->timeout_ms)) {
        fprintf(stderr, "stead %s: --timeout wants milliseconds, 0 or -1, not \"%s\"\n", verb->name, value);
        return 0;
    }
    return equals != NULL ? 1 : 2;
}

bool args_parse(struct args *args, const struct verb *verb, int argc, char **argv)
{
    *args = (struct args){.timeout_ms = ARGS_DEFAULT_TIMEOUT_MS, .names = argv};
    bool options_over = false;
    for (int i = 0; i < argc;) {
        if (!options_over && strcmp(argv[i], "--") == 0) {
            options_over = true;
            i++;
        } else if (!options_over && argv[i][0] == '-' && argv[i][1] != '\0') {
            int words = args_take_option(args, verb, argc, argv, i);
            if (words == 0)
                return false;
            i += words;
        } else {
            argv[args->count++] = argv[i++]; /* names move to the front: count never passes i */
        }
    }
    if (args->count < verb->names_min || args->count > verb->names_max) {
        fprintf(stderr, "usage: stead %s %s\n", verb->name, verb->synopsis);
        return false;
    }
    return true;
}
