/* verb_info.c -- what a store is, who uses it, and, with --locks, who holds its lock. */
#include "command.h"
#include "output.h"

#include <grp.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Lock holders, collected first and printed afterwards: nothing slow happens inside the visit. */
struct info_locks {
    stead_lock_info *list;
    size_t count, room;
};

static int info_take_lock(const stead_lock_info *lock, void *arg)
{
    struct info_locks *locks = arg;
    if (locks->count == locks->room) {
        size_t room = locks->room == 0 ? 16 : 2 * locks->room;
        stead_lock_info *list = realloc(locks->list, room * sizeof *list);
        if (list == NULL)
            return -1;
        locks->list = list;
        locks->room = room;
    }
    locks->list[locks->count++] = *lock;
    return 0;
}

static void info_print_locks(const struct info_locks *locks, bool sole)
{
    char text[OUTPUT_TEXT_BYTES];
    if (sole)
        printf("locks            of the writer's threads: in its own memory, not seen from outside\n");
    else if (locks->count == 0)
        printf("locks            none held\n");
    for (size_t i = 0; i < locks->count; i++) {
        const stead_lock_info *lock = &locks->list[i];
        printf("lock             process %ld thread %ld %s %s", (long)lock->pid, (long)lock->tid,
               lock->waiting ? "waits for" : "holds", lock->exclusive ? "exclusive" : "shared");
        if (lock->waiting)
            printf(", for %.3f s", (double)lock->waiting_ns / 1e9);
        else if (lock->attached != 0)
            printf(", attached since %s", output_time(text, lock->attached));
        if (strcmp(lock->lock, "store") != 0)
            printf(" (%s)", lock->lock);
        puts(lock->alive ? "" : " (died)");
    }
}

static void info_json_locks(struct json *json, const struct info_locks *locks)
{
    json_begin(json, "locks", '[');
    for (size_t i = 0; i < locks->count; i++) {
        const stead_lock_info *lock = &locks->list[i];
        json_begin(json, NULL, '{');
        json_number(json, "pid", (uint32_t)lock->pid);
        json_number(json, "tid", (uint32_t)lock->tid);
        json_text(json, "lock", lock->lock);
        json_text(json, "mode", lock->exclusive ? "exclusive" : "shared");
        json_flag(json, "waiting", lock->waiting);
        json_flag(json, "alive", lock->alive);
        if (lock->waiting)
            json_number(json, "waiting_ns", (uint64_t)lock->waiting_ns);
        if (lock->attached != 0)
            json_time(json, "attached", lock->attached);
        json_end(json, '}');
    }
    json_end(json, ']');
}

static const char *info_user(char *buffer, uid_t id)
{
    const struct passwd *user = getpwuid(id);
    snprintf(buffer, OUTPUT_TEXT_BYTES, "%s (%lu)", user != NULL ? user->pw_name : "?", (unsigned long)id);
    return buffer;
}

static const char *info_group(char *buffer, gid_t id)
{
    const struct group *group = getgrgid(id);
    snprintf(buffer, OUTPUT_TEXT_BYTES, "%s (%lu)", group != NULL ? group->gr_name : "?", (unsigned long)id);
    return buffer;
}

static void info_line_bytes(const char *label, uint64_t bytes)
{
    char text[OUTPUT_TEXT_BYTES];
    printf("%-16s %s (%" PRIu64 ")\n", label, output_bytes(text, bytes), bytes);
}

static void info_line_time(const char *label, time_t when)
{
    char text[OUTPUT_TEXT_BYTES];
    printf("%-16s %s\n", label, output_time(text, when));
}

/* The writer's memory that waits for the file, and who is in the way. */
static void info_print_waiting(const stead_status *status)
{
    char text[OUTPUT_TEXT_BYTES];
    info_line_bytes("waiting", status->waiting_bytes);
    if (status->held_off_pid != 0)
        printf("held off         by process %ld, since %s\n", (long)status->held_off_pid,
               output_time(text, status->held_off_since));
    else if (status->held_off_since != 0)
        printf("held off         by a process that may only read, since %s\n",
               output_time(text, status->held_off_since));
}

/* Before this look, which accepts what it finds, too. */
static bool info_was_accepted(const struct look *look, const stead_status *status)
{
    return status->accepted_unclean && look->verdict != STEAD_UNCLEAN;
}

static void info_print(const char *name, const struct look *look, const stead_status *status)
{
    char text[OUTPUT_TEXT_BYTES];
    printf("store            ");
    output_safe(name);
    printf("\nid               ");
    output_safe(status->id);
    printf("\nstate            %s\n", look_state(look, status));
    printf("sharing          %s\n", look_sharing(status->sharing));
    printf("attached         %u\n", look_attached(status));
    printf("base             %p\n", status->base);
    info_line_bytes("capacity", status->capacity_bytes);
    info_line_bytes("file", status->file_bytes);
    info_line_bytes("used", status->used_bytes);
    info_line_bytes("live", status->live_bytes);
    printf("live blocks      %" PRIu64 "\n", status->live_blocks);
    printf("commits          %" PRIu64 "\n", status->commit_seq);
    info_line_bytes("log", status->log_bytes);
    info_print_waiting(status);
    printf("creator          process %ld\n", (long)status->creator_pid);
    printf("last change by   process %ld\n", (long)status->last_change_pid);
    info_line_time("created", status->created);
    info_line_time("last attach", status->last_attach);
    info_line_time("last detach", status->last_detach);
    info_line_time("last change", status->last_change);
    printf("owner            %s\n", info_user(text, status->owner));
    printf("group            %s\n", info_group(text, status->group));
    printf("mode             %s\n", output_mode(text, status->mode));
    if (info_was_accepted(look, status))
        printf("note             a LIVE session once ended without close and was accepted so\n");
}

static void info_json(const char *name, const struct look *look, const stead_status *status,
                      const struct info_locks *locks)
{
    struct json json = {0};
    char text[OUTPUT_TEXT_BYTES];
    json_begin(&json, NULL, '{');
    json_text(&json, "store", name);
    json_text(&json, "id", status->id);
    json_text(&json, "state", look_state(look, status));
    json_text(&json, "sharing", look_sharing(status->sharing));
    json_number(&json, "attached", look_attached(status));
    json_hex(&json, "base", (uint64_t)(uintptr_t)status->base);
    json_number(&json, "capacity_bytes", status->capacity_bytes);
    json_number(&json, "file_bytes", status->file_bytes);
    json_number(&json, "used_bytes", status->used_bytes);
    json_number(&json, "live_bytes", status->live_bytes);
    json_number(&json, "live_blocks", status->live_blocks);
    json_number(&json, "commit_seq", status->commit_seq);
    json_number(&json, "log_bytes", status->log_bytes);
    json_number(&json, "waiting_bytes", status->waiting_bytes);
    if (status->held_off_since != 0) {
        json_number(&json, "held_off_pid", (uint32_t)status->held_off_pid);
        json_time(&json, "held_off_since", status->held_off_since);
    }
    json_number(&json, "creator_pid", (uint32_t)status->creator_pid);
    json_number(&json, "last_change_pid", (uint32_t)status->last_change_pid);
    json_time(&json, "created", status->created);
    json_time(&json, "last_attach", status->last_attach);
    json_time(&json, "last_detach", status->last_detach);
    json_time(&json, "last_change", status->last_change);
    json_number(&json, "owner", status->owner);
    json_number(&json, "group", status->group);
    json_text(&json, "mode", output_mode(text, status->mode));
    json_flag(&json, "recovered", status->recovered);
    json_flag(&json, "accepted_unclean", info_was_accepted(look, status));
    if (locks != NULL)
        info_json_locks(&json, locks);
    if (locks != NULL) /* false: those of the writer's threads are in its own memory */
        json_flag(&json, "all_locks_seen", status->sharing != STEAD_SOLE || look_attached(status) == 0);
    json_end(&json, '}');
}

/* All that can be said of a store whose lock somebody does not give up: who that is. */
static void info_locked(const char *name, const struct info_locks *locks, bool as_json)
{
    struct json json = {0};
    if (as_json) {
        json_begin(&json, NULL, '{');
        json_text(&json, "store", name);
        json_text(&json, "state", "locked");
        info_json_locks(&json, locks);
        json_end(&json, '}');
    } else {
        printf("store            ");
        output_safe(name);
        printf("\nstate            locked\n");
        info_print_locks(locks, false);
    }
}

static int info_show(const char *name, struct look *look, const struct info_locks *locks, const struct args *args)
{
    stead_status status;
    bool as_json = (args->given & ARGS_JSON) != 0, with_locks = (args->given & ARGS_LOCKS) != 0;
    if (look_wait_unlocked(look, args->timeout_ms) != 0) {
        info_locked(name, locks, as_json);
        return command_problem("info", name, look->sentence);
    }
    if (look_past_death(look, name, args->timeout_ms) != 0)
        return command_problem("info", name, look->sentence);
    if (stead_stat(look->store, &status) != 0)
        return command_problem("info", name, stead_last_error_text());
    if (as_json) {
        info_json(name, look, &status, with_locks ? locks : NULL);
    } else {
        info_print(name, look, &status);
        if (with_locks)
            info_print_locks(locks, status.sharing == STEAD_SOLE && look_attached(&status) != 0);
    }
    return look->verdict != 0 ? command_problem("info", name, look_verdict(look)) : COMMAND_FINE;
}

static int info_run(const struct args *args)
{
    const char *name = args->names[0];
    struct look look;
    struct info_locks locks = {0};
    if (look_open_at_once(&look, name, args->timeout_ms) != 0)
        return command_problem("info", name, look.sentence);
    int rc = stead_each_lock(look.store, info_take_lock, &locks); /* before this command itself takes the lock */
    int code = rc == 0 ? info_show(name, &look, &locks, args)
                       : command_problem("info", name, rc == -1 ? "out of memory" : stead_last_error_text());
    free(locks.list);
    look_close(&look);
    return code;
}

const struct verb verb_info = {
    .name = "info",
    .synopsis = "[--json] [--locks] [--timeout MS] STORE",
    .summary = "what a store is, how full, and who uses it",
    .help =
        "Looks without disturbing: read-only, at any address; a crashed store is read through a private replay.\n"
        "\"attached\" does not count this command.  Exit code 1 if the store cannot be opened, is unclean, or\n"
        "its lock is held exclusively for longer than the timeout (then only who holds it and who waits is told), or\n"
        "a LIVE writer died inside it.  --locks: the threads of a SOLE writer are not seen from outside; nor are\n"
        "readers without write permission.\n",
    .accepts = ARGS_JSON | ARGS_LOCKS | ARGS_TIMEOUT,
    .names_min = 1,
    .names_max = 1,
    .run = info_run,
};
