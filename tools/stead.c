/*
 * stead.c -- the command `stead`: looks at stores, checks, lists, copies and removes them.
 *
 * One file a verb (verb_*.c); a verb is a row of data (struct verb in command.h), so that the overview, the help and
 * the argument check cannot disagree with what there is.  Exit codes: 0 fine, 1 a problem was found, 2 usage.
 */
#include "command.h"
#include "output.h"

#include <stdio.h>
#include <string.h>

static const struct verb *const verbs[] = {&verb_info,   &verb_check, &verb_ls,     &verb_rm,
                                           &verb_backup, &verb_names, &verb_blocks, &verb_sem};
#define VERB_COUNT (sizeof verbs / sizeof verbs[0])

int command_problem(const char *verb, const char *name, const char *sentence)
{
    fprintf(stderr, "stead %s: ", verb);
    if (!output_begins_with(sentence, name)) {
        output_safe_to(stderr, name);
        fputs(": ", stderr);
    }
    output_safe_to(stderr, sentence); /* it has names in it, too */
    fputc('\n', stderr);
    return COMMAND_PROBLEM;
}

static const struct verb *command_find(const char *name)
{
    for (size_t i = 0; i < VERB_COUNT; i++)
        if (strcmp(verbs[i]->name, name) == 0)
            return verbs[i];
    return NULL;
}

static void command_overview(FILE *to)
{
    fprintf(to, "usage: stead VERB [OPTION...] [NAME...]\n\n");
    for (size_t i = 0; i < VERB_COUNT; i++)
        fprintf(to, "  %-8s %s\n", verbs[i]->name, verbs[i]->summary);
    fprintf(to, "  %-8s %s\n\n", "help", "more about one verb: stead help VERB");
    fprintf(to, "A store is a file, or shm:NAME for a section in memory.\n"
                "Exit code: 0 fine, 1 a problem was found, 2 usage.\n");
}

static int command_help(const char *name)
{
    if (name == NULL) {
        command_overview(stdout);
        return COMMAND_FINE;
    }
    const struct verb *verb = command_find(name);
    if (verb == NULL) {
        fprintf(stderr, "stead help: there is no verb \"%s\"; see: stead help\n", name);
        return COMMAND_USAGE;
    }
    printf("usage: stead %s %s\n\n%s: %s\n%s\n", verb->name, verb->synopsis, verb->name, verb->summary, verb->help);
    args_describe(verb);
    return COMMAND_FINE;
}

static int command_run(int argc, char **argv)
{
    if (argc < 2) {
        command_overview(stderr);
        return COMMAND_USAGE;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("stead %d.%d.%d\n", STEAD_VERSION_MAJOR, STEAD_VERSION_MINOR, STEAD_VERSION_PATCH);
        return COMMAND_FINE;
    }
    if (strcmp(argv[1], "help") == 0 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return command_help(argc > 2 ? argv[2] : NULL);

    const struct verb *verb = command_find(argv[1]);
    if (verb == NULL) {
        fprintf(stderr, "stead: there is no verb \"%s\"; see: stead help\n", argv[1]);
        return COMMAND_USAGE;
    }
    if (argc > 2 && (strcmp(argv[2], "--help") == 0 || strcmp(argv[2], "-h") == 0))
        return command_help(verb->name);
    struct args args;
    if (!args_parse(&args, verb, argc - 2, argv + 2))
        return COMMAND_USAGE;
    return verb->run(&args);
}

int main(int argc, char **argv)
{
    int code = command_run(argc, argv);
    if (fflush(stdout) != 0 || ferror(stdout)) { /* a full disk behind `stead ls > list` is no success */
        perror("stead: writing the output");
        return code == COMMAND_FINE ? COMMAND_PROBLEM : code;
    }
    return code;
}
