/* listing.c -- see listing.h. */
#include "listing.h"

#include <errno.h>

#define SPOOL_FULL (-1) /* no code of the library's */

int listing_make(struct listing *listing, const char *verb, const struct args *args, size_t record_bytes,
                 int (*visit)(struct listing *listing, stead *store, void *ctx), void *ctx)
{
    const char *name = args->names[0];
    struct look look;
    stead_status status;
    *listing = (struct listing){.record_bytes = record_bytes};
    if (look_open(&look, name, args->timeout_ms) != 0)
        return command_problem(verb, name, look.sentence);
    if (record_bytes != 0) {
        listing->spool = tmpfile();
        if (listing->spool == NULL) {
            look_close(&look);
            return command_problem(verb, name, "no temporary file can be made to hold the list");
        }
    }
    int rc = stead_stat(look.store, &status);
    listing->base = status.base;
    if (rc == 0)
        rc = visit(listing, look.store, ctx);
    listing->whole = rc == 0;
    /* The list is told all the same where a writer died inside: it is what one wants to see then. */
    int code = rc == 0 && (look.verdict == EOWNERDEAD || look.verdict == ENOTRECOVERABLE)
                   ? command_problem(verb, name, look_verdict(&look))
                   : COMMAND_FINE; /* told before the store is closed: closing it is a call of its own */
    if (rc != 0)
        code = command_problem(verb, name,
                               rc == SPOOL_FULL ? "the temporary file for the list is full" : stead_last_error_text());
    look_close(&look);
    if (listing->spool != NULL)
        rewind(listing->spool);
    return code;
}

int listing_put(struct listing *listing, const void *record)
{
    return fwrite(record, listing->record_bytes, 1, listing->spool) == 1 ? 0 : SPOOL_FULL;
}

bool listing_next(struct listing *listing, void *record)
{
    return fread(record, listing->record_bytes, 1, listing->spool) == 1;
}

void listing_drop(struct listing *listing)
{
    if (listing->spool != NULL)
        fclose(listing->spool);
    listing->spool = NULL;
}
