/*
 * command.h -- what the verbs of the command `stead` share: their table, their arguments, their exit codes, and how a
 * store is opened only to be looked at.
 */
#ifndef STEAD_TOOLS_COMMAND_H
#define STEAD_TOOLS_COMMAND_H

#include <stdbool.h>
#include <stddef.h>

#include <stead.h>

/* Exit codes.  A store that cannot be opened is a problem found, not a usage error. */
enum { COMMAND_FINE = 0, COMMAND_PROBLEM = 1, COMMAND_USAGE = 2 };

/* The options a verb may accept; args.c has their spelling. */
enum {
    ARGS_JSON = 1,
    ARGS_LOCKS = 2,
    ARGS_STALE = 4,
    ARGS_DRY_RUN = 8,
    ARGS_FORCE = 16,
    ARGS_SUMMARY = 32,
    ARGS_TIMEOUT = 64
};

struct args {
    unsigned given; /* ARGS_... */
    int timeout_ms; /* waiting for a busy store; 1000 unless --timeout says otherwise */
    int count;      /* of names */
    char **names;
};

struct verb {
    const char *name;
    const char *synopsis; /* what follows the name        */
    const char *summary;  /* one line for the overview    */
    const char *help;     /* the rest, for `stead help VERB` */
    unsigned accepts;     /* ARGS_... */
    int names_min, names_max;
    int (*run)(const struct args *args);
};

extern const struct verb verb_info, verb_check, verb_ls, verb_rm, verb_backup, verb_names, verb_blocks, verb_sem;

/* Fills args from argv (what follows the verb).  False after a sentence on stderr. */
bool args_parse(struct args *args, const struct verb *verb, int argc, char **argv);
/* One line an option that the verb accepts, on stdout. */
void args_describe(const struct verb *verb);

/* "stead VERB: NAME: sentence" on stderr; returns COMMAND_PROBLEM. */
int command_problem(const char *verb, const char *name, const char *sentence);

/* A store that was opened only to be looked at. */
struct look {
    stead *store;
    int verdict;          /* 0, or STEAD_UNCLEAN, EOWNERDEAD, ENOTRECOVERABLE: opened all the same */
    const char *sentence; /* after a failure: why */
};

/* Opens path read-only, at any address, without creating it.  0, or what stead_open() returned. */
int look_open_at_once(struct look *look, const char *path, int timeout_ms);
/* Waits until nobody holds the store's lock exclusively; ETIMEDOUT if somebody still does when timeout_ms are over.  To be
 * asked before any call that takes the lock itself: those wait for ever, and a command must not. */
int look_wait_unlocked(struct look *look, int timeout_ms);
/* Both. */
/* After it: where a LIVE writer died inside its section, opens again so that the library shows what is there all the same. */
int look_past_death(struct look *look, const char *path, int timeout_ms);
int look_open(struct look *look, const char *path, int timeout_ms);
void look_close(struct look *look);
/* Processes attached besides this one. */
unsigned look_attached(const stead_status *status);
/* "clean", "in use", "recovered" or "unclean". */
const char *look_verdict(const struct look *look); /* a sentence; look->verdict is not 0 */
const char *look_state(const struct look *look, const stead_status *status);
const char *look_sharing(stead_sharing sharing);

#endif
