/*
 * wake.pml -- lock/wait.c: sleeping, waking, overtaking and handing over, for spin.
 *
 * THREADS threads own a lock SECTIONS times each.  Nobody dies and no sleep ends by itself, except that each thread may
 * give up once (a deadline): so if a wake-up can be lost, somebody sleeps for ever and spin finds an invalid end
 * state (L8, L9).  Futexes are as the kernel's: a wait compares and queues in one step, a wake takes from the queue.
 *
 * Checked: L1 again, L7 (handoff set => there is a claimant), L8, L9.
 */
#ifndef THREADS
#define THREADS 3
#endif
#ifndef SECTIONS
#define SECTIONS 2
#endif
#define SEQUENCES 8 /* wake words count modulo this: more than bumps within one sleep */

byte owner;                     /* 0 nobody, else thread + 1 */
bool writers, awake, handoff;   /* bits of the state word    */
byte claimant;
byte wake_writers, wake_claimant;
bool asleep[THREADS], asleep_claimant[THREADS];
byte inside;

#define NOBODY 0
#define ME (me + 1)

inline wake_all_writers()
{
    atomic {
        k = 0;
        do
        :: k < THREADS -> asleep[k] = false; k++
        :: else -> break
        od
    }
}

inline wake_claimants()
{
    atomic {
        k = 0;
        do
        :: k < THREADS -> asleep_claimant[k] = false; k++
        :: else -> break
        od
    }
}

/* wakes_plan, inside the atomic that publishes a state without owner */
inline plan()
{
    to_claimant = handoff;
    to_writer = !handoff && writers && (!awake || turn);
    if
    :: to_writer -> awake = true
    :: else
    fi
}

inline wakes()
{
    if
    :: to_claimant ->
        atomic { wake_claimant = (wake_claimant + 1) % SEQUENCES };
        wake_claimants()
    :: else
    fi;
    if
    :: to_writer ->
        atomic { wake_writers = (wake_writers + 1) % SEQUENCES };
        atomic { /* FUTEX_WAKE 1: somebody of those asleep */
            k = 0;
            do
            :: k == THREADS -> none = true; break
            :: k < THREADS && asleep[k] -> asleep[k] = false; none = false; break
            :: k < THREADS -> k++ /* any order: passing over a sleeper is allowed ... */
            od;
            if
            :: none -> /* ... but not over the last one */
                k = 0;
                do
                :: k == THREADS -> break
                :: k < THREADS && asleep[k] -> asleep[k] = false; none = false; break
                :: k < THREADS && !asleep[k] -> k++
                od
            :: else
            fi
        }
        if
        :: none ->
            atomic { writers = false; awake = false };
#ifndef PLANT_NO_SECOND_BUMP
            atomic { wake_writers = (wake_writers + 1) % SEQUENCES };
            wake_all_writers()
#endif
        :: else
        fi
    :: else
    fi
}

proctype thread(byte me)
{
    byte section = 0, seen, k;
    bool mine, is_claimant, got, to_claimant, to_writer, none, turn, gave_up = false;
    do
    :: section == SECTIONS -> break
    :: section < SECTIONS ->
        section++;
        mine = false;
        is_claimant = false;
again:
        atomic { /* claim */
            got = false;
            if
            :: owner == NOBODY && (!handoff || is_claimant) ->
                got = true;
                owner = ME;
                if
                :: is_claimant -> handoff = false
                :: else
                fi;
                if
                :: mine -> awake = false; mine = false
                :: else
                fi
            :: else
            fi
        }
        if
        :: got ->
            if
            :: is_claimant -> claimant = NOBODY; is_claimant = false
            :: else
            fi;
            goto owns
        :: else
        fi;
        if
        :: is_claimant -> /* sleep_as_claimant */
            seen = wake_claimant;
            if
            :: owner == NOBODY -> goto again
            :: else
            fi;
            atomic {
                if
                :: wake_claimant == seen -> asleep_claimant[me] = true
                :: else
                fi
            }
            !asleep_claimant[me];
            goto again
        :: !is_claimant && claimant == NOBODY -> /* starving: become_claimant */
            atomic {
                if
                :: claimant == NOBODY -> claimant = ME; is_claimant = true
                :: else
                fi
            }
            if
            :: is_claimant -> atomic { handoff = true }; goto again
            :: else -> goto again
            fi
        :: !is_claimant && !mine -> /* may_spin: take the watch over */
            atomic {
                if
                :: writers && !awake -> awake = true; mine = true
                :: else
                fi
            }
            goto sleep
        :: !is_claimant -> goto sleep
        fi;
sleep: /* sleep_as_waiter */
        seen = wake_writers;
        atomic {
            if
            :: owner == NOBODY && !handoff -> goto again
            :: else ->
                writers = true;
                if
                :: mine -> awake = false; mine = false
                :: else
                fi
            fi
        }
        atomic {
#ifdef PLANT_SLEEP_UNSEEN
            asleep[me] = true
#else
            if
            :: wake_writers == seen -> asleep[me] = true
            :: else
            fi
#endif
        }
        if
        :: !asleep[me] -> mine = true; goto again
        :: !gave_up -> /* the deadline comes first */
            atomic { asleep[me] = false };
            gave_up = true;
            atomic { awake = false }; /* wait_end */
            atomic { /* pass_on */
                turn = false;
                if
                :: owner == NOBODY -> plan()
                :: else -> to_claimant = false; to_writer = false
                fi
            }
            wakes();
            goto next
        fi;
owns:
        inside++;
        assert(inside == 1);
        assert(!handoff || claimant != NOBODY); /* L7 */
        inside--;
        if
        :: turn = false
        :: turn = true /* TURNS_MAX is reached */
        fi;
        atomic { owner = NOBODY; plan() };
        wakes();
next:   skip
    od
}

init {
    byte t = 0;
    atomic {
        do
        :: t < THREADS -> run thread(t); t++
        :: else -> break
        od
    }
}
