/*
 * look.c -- opening a store without disturbing whoever uses it.
 *
 * Read-only: nothing is written, no write permission is needed, and a crashed store is read through a private replay
 * of its log, so that the evidence stays for whoever opens it next.  Any address: the command never follows a pointer
 * that is stored inside.  A LIVE store that was left unclean is opened all the same; the verdict is kept and reported.
 */
#include "command.h"

#include <string.h>

int look_open(struct look *look, const char *path, int timeout_ms)
{
    stead_options options = {.flags = STEAD_READ_ONLY | STEAD_ANY_ADDRESS | STEAD_EXISTING, .timeout_ms = timeout_ms};
    look->verdict = 0;
    int rc = stead_open(&look->store, path, &options);
    if (rc == STEAD_UNCLEAN) {
        look->verdict = rc;
        options.flags |= STEAD_ACCEPT_UNCLEAN;
        rc = stead_open(&look->store, path, &options);
    }
    return rc;
}

void look_close(struct look *look)
{
    stead_abandon(look->store); /* nothing was changed: there is nothing to commit and nothing that can fail */
    look->store = NULL;
}

unsigned look_attached(const stead_status *status)
{
    return status->attached > 0 ? status->attached - 1 : 0;
}

const char *look_state(const struct look *look, const stead_status *status)
{
    if (look->verdict == STEAD_UNCLEAN)
        return "unclean";
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
