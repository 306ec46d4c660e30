/*
 * cycle.pml -- the search for cycles of lock/deadlock.c against threads that go on meanwhile, for spin (L12).
 *
 * Two locks.  Thread 0 holds one, wants one, and asks; the others run two requests each, one after the other, and give up
 * whenever they like (a deadline).  One step here is one load, store or compare-and-swap there.  What has no part in the
 * answer is left out: the bias is set all the time (owners always look at flags), nobody dies (path_lives), nobody is handed
 * the lock, no slot has two threads (a crowd is not believed).  Thread 0 guesses the path that it will find before it looks:
 * looks that lead elsewhere answer nothing, and a guess saves the model the memory of all that ever was.
 *
 * Checked: when the answer is "a cycle", there was a moment between the first and the last look at which every thread
 * on the path waited in its call and held what the one before it waited for.  A thread waits no more when it is granted the
 * lock, takes its wait back or gives its claim up, whichever comes first: what its words say is not asked.
 *
 * Who does what is said by HOLDS and WANTS (thread 0), FIRST and SECOND (threads 1 and 2: two digits, a request each):
 *   0 nothing   1 shares lock 0   2 owns lock 0 (upgrades, if it shares it)   3 shares lock 1   4 owns lock 1
 * -DSCENE=1: the threads of deadlock/claims_of_several_moments_close_no_cycle, from where all of them wait, and a fifth that
 * steals claims, STEALS times.  It shows that the walk and one look at the holds were not enough: each claim can be there when
 * it is looked at, and never both of them.  Four steals do for that, five where a wait goes on as the same one after a steal.
 *
 * -DPLANT_...=1 breaks one step; tests/model/run_model.cmake asks that spin finds each of them.  Nobody need end here (pan -E):
 * the search is over with the answer.
 */
#ifdef SCENE
#define THREADS 5
#else
#define THREADS 3
#endif
#ifndef STEALS
#define STEALS 4
#endif
#define OPS 2

#define SHARE 0
#define OWN 1 /* upgrades who shares */
#define OP(mode, lock) ((lock) * 2 + (mode) + 1) /* 0: no more of them */

#define NOBODY 0
#define ME (me + 1)
#define AT(thread, lock) ((thread) * 2 + (lock))

/* The words. */
byte owner[2];
bool upgrading[2];
bool flag[THREADS * 2];
byte since[THREADS * 2];
bool exclusive[THREADS * 2];

/* The truth: what a thread waits for (1 + 2 * lock + exclusive; 0: nothing) and what it shares.  Who owns, or claims, the
 * owner word says itself. */
byte waits[THREADS];
bool shares[THREADS * 2];

byte program[THREADS * OPS];

/* The looks. */
byte path[4], guessed[4], depth;
bool looking, was_real, answered;

#define IN_THE_WAY(i, j)                                                                                               \
    (waits[i] != 0 && (owner[(waits[i] - 1) / 2] == (j) + 1 ||                                                         \
                       ((waits[i] - 1) % 2 == 1 && shares[AT(j, (waits[i] - 1) / 2)])))
#define IS_REAL                                                                                                        \
    (IN_THE_WAY(path[0], path[1]) &&                                                                                   \
     (depth == 2 -> IN_THE_WAY(path[1], path[0])                                                                       \
                 : IN_THE_WAY(path[1], path[2]) &&                                                                     \
                       (depth == 3 -> IN_THE_WAY(path[2], path[0])                                                     \
                                   : IN_THE_WAY(path[2], path[3]) && IN_THE_WAY(path[3], path[0]))))
/* After every step that may close a cycle. */
#define OBSERVE was_real = was_real || (looking && IS_REAL)

/* ---- who asks ---- */

/* One step is one load and what is concluded from it.  What leads nowhere ends the looks. */
#define NO answered = true

/* stands_in_way: is path[k + 1] in the way of path[k], now?  The look at the flag of slot_next_sharer is left out, for slot_holds
 * looks again: so here more is believed than there. */
inline look_at_hold(k)
{
    atomic {
        t = path[(k + 1) % depth];
        x = owner[lock_of[k]] != t + 1;
        if
        :: x && !wants_own[k] -> NO
        :: else
        fi
    }
    if
    :: !x
    :: atomic {
            x ->
            if
            :: !flag[AT(t, lock_of[k])] -> NO
            :: else -> x = false
            fi
        }
        atomic {
            s = since[AT(t, lock_of[k])];
            if
            :: s != 0 -> x = true; s = 0
            :: else
            fi
        }
        if
        :: !x
        :: atomic {
                x ->
                if
                :: !exclusive[AT(t, lock_of[k])] -> NO
                :: else -> x = false
                fi
            }
        fi
    fi
}

/* find_wait: since when (s), exclusively (x).  For which lock is known, as of the path: who waits elsewhere, too, is none. */
inline look_at_wait(k)
{
    t = path[k];
#ifdef PLANT_WAIT_BEFORE_FLAG
    atomic {
        s = since[AT(t, lock_of[k])];
        if
        :: s == 0 -> NO
        :: else
        fi
    }
    up = flag[AT(t, lock_of[k])];
#else
    up = flag[AT(t, lock_of[k])];
    atomic {
        s = since[AT(t, lock_of[k])];
        if
        :: s == 0 -> NO
        :: else
        fi
    }
#endif
    atomic {
        x = exclusive[AT(t, lock_of[k])];
#ifndef PLANT_WAITING_FLAG_NOT_LOOKED_AT
        if
        :: !x && up -> NO
        :: else
        fi;
#endif
        up = false
    }
}

inline look_at_holds()
{
    k = 0;
    do
    :: k == depth -> break
    :: k < depth -> look_at_hold(k); k++
    od
}

proctype asker() provided (!answered)
{
    byte k, t, s, lock_of[4], since_of[4];
    bool x, up, wants_own[4];
    atomic {
        looking;
        k = 0;
        do
        :: k == depth -> break
        :: k < depth -> lock_of[k] = guessed[k]; k++
        od;
        wants_own[0] = (waits[0] - 1) % 2;
        k = 0
    }
    do /* the walk */
    :: look_at_hold(k);
        if
        :: k + 1 == depth -> break
        :: else -> k++
        fi;
        look_at_wait(k);
        d_step { since_of[k] = s; wants_own[k] = x; s = 0; x = false }
    od;
    look_at_holds();
#ifndef PLANT_ONE_LOOK_AT_HOLDS
    look_at_holds();
#endif
    k = 1;
    do
    :: k == depth -> break
    :: k < depth ->
        look_at_wait(k);
        atomic {
            if
            :: s != since_of[k] -> NO
            :: else -> s = 0; x = false; k++
            fi
        }
    od;
    assert(was_real);
    NO
}

/* Thread 0 waits and asks once. */
inline guess_path()
{
#ifdef SCENE
    depth = 4; path[0] = 0; path[1] = 1; path[2] = 2; path[3] = 3;
    guessed[2] = 1; guessed[3] = 1;
#else
    path[0] = 0;
    if
    :: depth = 2; path[1] = 1
    :: depth = 2; path[1] = 2
    :: depth = 3; path[1] = 1; path[2] = 2
    :: depth = 3; path[1] = 2; path[2] = 1
    fi;
    guessed[0] = (waits[0] - 1) / 2;
    if
    :: guessed[1] = 0
    :: guessed[1] = 1
    fi;
    if
    :: depth == 2
    :: depth == 3 -> guessed[2] = 0
    :: depth == 3 -> guessed[2] = 1
    fi
#endif
    ;
    looking = true;
    OBSERVE
}

/* ---- who waits ---- */

#ifndef SCENE
/* wait_checks: the first time that somebody is in the way for longer. */
inline tell(x)
{
    if
    :: !told ->
        exclusive[AT(me, l)] = x;
        d_step { tells++; since[AT(me, l)] = tells; told = true }
    :: else
    fi
}

inline take_back()
{
    d_step { since[AT(me, l)] = 0; told = false; waits[me] = 0 }
}

inline release_claim()
{
    d_step {
        if
        :: owner[l] == ME -> owner[l] = NOBODY; upgrading[l] = false
        :: else
        fi;
        waits[me] = 0
    }
}

#define GIVES_UP (me != 0)
#define ASKS (me == 0 && told)

proctype thread(byte me) provided (!answered)
{
    byte l, mode, i, next, tells;
    bool told, got;
request:
    atomic {
        i = (next == OPS -> 0 : program[me * OPS + next]);
        next++;
        got = i != 0;
        l = (got -> (i - 1) / 2 : 0);
        mode = (got -> (i - 1) % 2 : 0);
        i = 0
    }
    if
    :: !got && me == 0 -> answered = true /* it never asked */
    :: !got && me != 0 -> goto leave
    :: got && mode == SHARE -> atomic { got = false; waits[me] = 1 + 2 * l; OBSERVE }; goto share
    :: got && mode != SHARE -> atomic { got = false; waits[me] = 2 + 2 * l; OBSERVE }; goto own
    fi;

share:
    flag[AT(me, l)] = true;
    atomic { /* enter_shared */
        if
        :: owner[l] == NOBODY -> waits[me] = 0; shares[AT(me, l)] = true; OBSERVE; got = true
        :: else -> got = false
        fi
    }
    if
    :: got ->
        got = false;
        if
        :: told -> take_back()
        :: else
        fi;
        goto request
    :: else
    fi;
    flag[AT(me, l)] = false;
    tell(false);
wait_to_share:
    if
    :: owner[l] == NOBODY -> goto share
    :: atomic { ASKS -> guess_path() }; false
    :: GIVES_UP -> goto give_up
    fi;

own:
    atomic { /* claim */
        if
        :: owner[l] == NOBODY -> owner[l] = ME; upgrading[l] = flag[AT(me, l)]; OBSERVE; got = true
        :: owner[l] != NOBODY && flag[AT(me, l)] && !upgrading[l] -> owner[l] = ME; upgrading[l] = true; OBSERVE; got = true
        :: owner[l] != NOBODY && flag[AT(me, l)] && upgrading[l] -> goto give_up /* EDEADLK: a second upgrader */
        :: owner[l] != NOBODY && !flag[AT(me, l)] -> got = false
        fi
    }
    if
    :: got -> got = false; goto drain
    :: else
    fi;
    tell(true);
    if
    :: owner[l] == NOBODY -> goto own
    :: atomic { ASKS -> guess_path() }; false
    :: GIVES_UP -> goto give_up
    fi;

drain:
    i = (me == 0 -> 1 : 0);
    do
    :: i >= THREADS -> break
    :: i < THREADS ->
        if
        :: !flag[AT(i, l)] -> d_step { i++; i = (i == me -> i + 1 : i) }
        :: flag[AT(i, l)] && owner[l] != ME -> goto stolen
        :: flag[AT(i, l)] && owner[l] == ME ->
            tell(true);
            if
            :: !flag[AT(i, l)] || owner[l] != ME -> i = (me == 0 -> 1 : 0)
            :: atomic { ASKS -> guess_path() }; false
            :: GIVES_UP -> goto give_up_claim
            fi
        fi
    od;
    i = 0;
    atomic { /* drain_done */
        if
        :: owner[l] == ME -> waits[me] = 0; got = true
        :: else -> got = false
        fi
    }
    if
    :: !got -> goto stolen
    :: else -> got = false
    fi;
    if
    :: told -> take_back()
    :: else
    fi;
    if
    :: flag[AT(me, l)] -> release_claim() /* an upgrade ends at once */
    :: else
    fi;
    goto request;

stolen:
    i = 0;
#ifndef PLANT_SAME_WAIT_AFTER_A_STEAL
    if
    :: told -> d_step { tells++; since[AT(me, l)] = tells } /* wait_anew */
    :: else
    fi;
#endif
    goto own;

give_up_claim:
    i = 0;
#ifdef PLANT_CLAIM_RELEASED_FIRST
    release_claim();
    take_back();
    goto request;
#else
    if
    :: told -> take_back()
    :: else
    fi;
    release_claim();
    goto request;
#endif

give_up:
    atomic { since[AT(me, l)] = 0; told = false; waits[me] = 0 }
    goto request;

leave: /* newest first, or any order */
    l = 0;
    do
    :: l == 2 -> break
    :: else ->
        if
        :: owner[l] == ME -> release_claim()
        :: flag[AT(me, l)] -> d_step { flag[AT(me, l)] = false; shares[AT(me, l)] = false }
        :: else -> l++
        fi
    od;
    l = 0
}

#endif

#ifdef SCENE
/* Threads 1 and 3 claim a lock each and wait for its readers, who do not leave: they go on only when it was stolen. */
proctype claimant(byte me, l) provided (!answered)
{
    byte tells = 1;
    do
    :: owner[l] != ME ->
#ifndef PLANT_SAME_WAIT_AFTER_A_STEAL
        d_step { tells++; since[AT(me, l)] = tells };
#endif
        atomic { owner[l] == NOBODY -> owner[l] = ME; OBSERVE }
    od
}

/* Thread 4 shares both locks, and tries to own one or the other.  It has just stolen lock 1: no cycle to begin with. */
proctype thief() provided (!answered)
{
    byte l, steals;
    owner[1] = NOBODY;
    do
    :: steals == STEALS -> break
    :: steals < STEALS ->
        steals++;
        if
        :: l = 0
        :: l = 1
        fi;
        atomic { owner[l] = 5; upgrading[l] = true; OBSERVE };
        d_step { owner[l] = NOBODY; upgrading[l] = false; l = 0 }
    od
}

init {
    atomic {
        flag[AT(0, 1)] = true; shares[AT(0, 1)] = true; waits[0] = 1; since[AT(0, 0)] = 1; /* 0 shares 1, waits to share 0 */
        flag[AT(2, 0)] = true; shares[AT(2, 0)] = true; waits[2] = 3; since[AT(2, 1)] = 1; /* 2 shares 0, waits to share 1 */
        owner[0] = 2; waits[1] = 2; since[AT(1, 0)] = 1; exclusive[AT(1, 0)] = true;
        owner[1] = 5; waits[3] = 4; since[AT(3, 1)] = 1; exclusive[AT(3, 1)] = true;
        flag[AT(4, 0)] = true; shares[AT(4, 0)] = true; flag[AT(4, 1)] = true; shares[AT(4, 1)] = true;
        guess_path();
        run asker();
        run claimant(1, 0);
        run claimant(3, 1);
        run thief()
    }
}
#else
/* Thread 0 has what it holds. */
init {
    atomic {
        program[0] = WANTS;
        program[OPS] = FIRST / 10; program[OPS + 1] = FIRST % 10;
        program[2 * OPS] = SECOND / 10; program[2 * OPS + 1] = SECOND % 10;
        if
        :: HOLDS == OP(SHARE, 0) -> flag[AT(0, 0)] = true; shares[AT(0, 0)] = true
        :: HOLDS == OP(SHARE, 1) -> flag[AT(0, 1)] = true; shares[AT(0, 1)] = true
        :: HOLDS == OP(OWN, 1) -> owner[1] = 1
        fi;
        run asker();
        run thread(0);
        run thread(1);
        run thread(2)
    }
}
#endif
