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
    struct stead *s = call->store;
    innermost = call->outer;
    if (s != NULL)
        atomic_fetch_sub(&s->calls, 1); /* the last look at the store: it may be gone right after */
    if (call->abandons)
        store_abandon(s);
    cancel_restore(&call->cancel_before);
}

bool store_call_abandons(const struct stead *s)
{
    struct store_call *outermost = NULL;
    for (struct store_call *call = innermost; call != NULL; call = call->outer)
        if (call->store == s)
            outermost = call;
    if (outermost != NULL)
        outermost->abandons = true;
    return outermost != NULL;
}
