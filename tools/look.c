/*
 * look.c -- opening a store without disturbing whoever uses it.
 *
 * Read-only: nothing is written, no write permission is needed, and a crashed store is read through a private replay
 * of its log, so that the evidence stays for whoever opens it next.  Any address: the command never follows a pointer
 * that is stored inside.  Nor does it wait for ever: somebody who hangs with the lock held is just whom one looks for.
 * A LIVE store that was left unclean is opened all the same; the verdict is kept and reported.
 */
#include "command.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#define LOOK_POLL_MS 10

int look_open_at_once(struct look *look, const char *path, int timeout_ms)
{
    stead_options options = {.flags = STEAD_READ_ONLY | STEAD_ANY_ADDRESS | STEAD_EXISTING, .timeout_ms = timeout_ms};
    look->verdict = 0;
    int rc = stead_open(&look->store, path, &options);
    if (rc == STEAD_UNCLEAN) {
        look->verdict = rc;
        options.flags |= STEAD_ACCEPT_UNCLEAN;
        rc = stead_open(&look->store, path, &options);
    }
    look->sentence = rc != 0 ? stead_last_error_text() : NULL;
    return rc;
}

void look_close(struct look *look)
{
    stead_abandon(look->store); /* nothing was changed: there is nothing to commit and nothing that can fail */
    look->store = NULL;
}

/* Stops at the first exclusive holder that lives and keeps readers out: not whose turn it is; nor does what a dead one left
 * hold anybody up. */
static int look_is_held(const stead_lock_info *lock, void *arg)
{
    (void)arg;
    return !lock->waiting && lock->exclusive && lock->alive && strcmp(lock->lock, "turn") != 0;
}

int look_wait_unlocked(struct look *look, int timeout_ms)
{
    const struct timespec pause = {.tv_nsec = LOOK_POLL_MS * 1000000L};
    for (int left_ms = timeout_ms; stead_each_lock(look->store, look_is_held, NULL) == 1; nanosleep(&pause, NULL)) {
        if (timeout_ms >= 0 && left_ms <= 0) {
            look->sentence = "somebody holds its lock exclusively; stead info --locks says who";
            return ETIMEDOUT;
        }
        left_ms -= timeout_ms >= 0 ? LOOK_POLL_MS : 0;
    }
    return 0;
}

int look_past_death(struct look *look, const char *path, int timeout_ms)
{
    bool accepted = look->verdict == STEAD_UNCLEAN;
    int rc = stead_lock(look->store, STEAD_SHARED, 0); /* a read-only handle is told without getting the lock */
    if (rc == 0)
        (void)stead_unlock(look->store);
    if (rc != EOWNERDEAD && rc != ENOTRECOVERABLE)
        return 0; /* any other failure will be met again by whoever asks */
    look->verdict = rc;
    if (accepted)
        return 0;
    stead_options options = {.flags = STEAD_READ_ONLY | STEAD_ANY_ADDRESS | STEAD_EXISTING | STEAD_ACCEPT_UNCLEAN,
                             .timeout_ms = timeout_ms};
    look_close(look);
    rc = stead_open(&look->store, path, &options);
    look->sentence = rc != 0 ? stead_last_error_text() : NULL;
    return rc;
}

int look_open(struct look *look, const char *path, int timeout_ms)
{
    int rc = look_open_at_once(look, path, timeout_ms);
    if (rc == 0) {
        rc = look_wait_unlocked(look, timeout_ms);
        if (rc != 0)
            look_close(look);
        else
            rc = look_past_death(look, path, timeout_ms);
    }
    return rc;
}

unsigned look_attached(const stead_status *status)
{
    return status->attached > 0 ? status->attached - 1 : 0;
}

const char *look_verdict(const struct look *look)
{
    if (look->verdict == EOWNERDEAD)
        return "a writer died inside its exclusive section; the next writer that locks is told and can repair";
    if (look->verdict == ENOTRECOVERABLE)
        return "a writer died inside its exclusive section and nobody repaired it: all must close it first";
    return stead_strerror(look->verdict);
}

const char *look_state(const struct look *look, const stead_status *status)
{
    if (look->verdict == STEAD_UNCLEAN)
        return "unclean";
    if (look->verdict == EOWNERDEAD)
        return "owner died";
    if (look->verdict == ENOTRECOVERABLE)
        return "not recoverable";
    if (look_attached(status) > 0)
        return "in use";
    return status->recovered ? "recovered" : "clean";
}

const char *look_sharing(stead_sharing sharing)
{
    switch (sharing) {
    case STEAD_SOLE:
        return "sole";
    case STEAD_TURNS:
        return "turns";
    case STEAD_LIVE:
        return "live";
    }
    return "unknown";
}
