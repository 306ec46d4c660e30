/* call.c -- the calls under way.  See call.h. */
#include "store/call.h"

static _Thread_local struct store_call *innermost;

void store_call_begin(struct store_call *call, struct stead *s)
{
    *call = (struct store_call){.store = s, .outer = innermost, .cancel_before = cancel_off()};
    innermost = call;
    if (s != NULL) /* which store_enter() answers */
        atomic_fetch_add(&s->calls, 1);
}

void store_call_end(struct store_call *call)
{
    innermost = call->outer;
    if (call->store != NULL)
        atomic_fetch_sub(&call->store->calls, 1); /* the last look at the store: it may be gone right after */
    cancel_restore(&call->cancel_before);
}

unsigned store_calls_own(const struct stead *s)
{
    unsigned own = 0;
    for (const struct store_call *call = innermost; call != NULL; call = call->outer)
        own += call->store == s;
    return own;
}
