/* deadlock.h -- cycles of waiting over several locks. */
#ifndef STEAD_LOCK_DEADLOCK_H
#define STEAD_LOCK_DEADLOCK_H

#include "lock/wait.h"

/* Does this waiter wait, through others, for itself - and is it the one of the cycle to give up?  Then its wait
 * was taken back (wait_take_back). */
bool deadlock_check(struct waiting *w, int64_t now_ns);

#endif
