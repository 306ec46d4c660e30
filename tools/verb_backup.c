/* verb_backup.c -- a consistent, sealed copy of the last commit, made while others work. */
#include "command.h"

static int backup_run(const struct args *args)
{
    struct look look;
    if (look_open(&look, args->names[0], args->timeout_ms) != 0)
        return command_problem("backup", args->names[0], look.sentence);
    int code = COMMAND_FINE;
    if (look.verdict != 0) /* a copy would be sealed: it would say "clean" about what nobody can vouch for */
        code = command_problem("backup", args->names[0], look_verdict(&look));
    else if (stead_backup(look.store, args->names[1]) != 0)
        code = command_problem("backup", args->names[1], stead_last_error_text());
    look_close(&look);
    return code;
}

const struct verb verb_backup = {
    .name = "backup",
    .synopsis = "[--timeout MS] STORE COPY",
    .summary = "a consistent copy of the last commit, while others work",
    .help = "COPY must not exist yet.  It is a store of its own: sealed, without a log, at the same address.\n",
    .accepts = ARGS_TIMEOUT,
    .names_min = 2,
    .names_max = 2,
    .run = backup_run,
};
