/*
 * lock.pml -- lock/acquire.c and its robust hand-over, for spin.
 *
 * THREADS threads, each of a process of its own, each runs SECTIONS sections of any kind; up to DEATHS of them are
 * killed between any two steps.  One step here is one atomic operation there; all of them are sequentially consistent
 * in the code, so interleaving is the whole memory model.  A compare-and-swap that fails changes nothing and is tried
 * again: only the successful one is a step.  Waiting is a guard: that wake-ups are not lost is wake.pml's business.
 *
 * Checked:
 *   L1  one owner inside            L3, L4  no reader inside beside an owner inside
 *   L2  bias clear: nobody shares   R1  an owner that finds half-made data is told (EOWNERDEAD)
 *   R2  nobody waits for ever (no invalid end state): dead owners and dead readers are removed
 *
 * -DCROWD=1: threads 0 and 1 are of one process and have one slot: its flag is a count (slots.c, L13).  Nobody is killed
 * then (-DDEATHS=0): a process's death takes the slot as a whole, which is the case of one thread a slot.
 *
 * -DPLANT_...=1 breaks one step; tests/model/run_model.cmake asks that spin finds each of them.
 */
#ifndef THREADS
#define THREADS 3
#endif
#ifndef SECTIONS
#define SECTIONS 1
#endif
#ifndef DEATHS
#define DEATHS 1
#endif

/* The state word: every atomic { } that touches these is one operation on it. */
byte owner; /* 0 nobody, else thread + 1 */
bool bias, inconsistent, draining, upgrading;

byte flag[THREADS]; /* by slot: how many of its threads have it up */
bool dead[THREADS];

#ifdef CROWD
#define SLOT (me == 0 -> 1 : me) /* slot 0 stays empty */
#else
#define SLOT me
#endif
#define RAISE flag[SLOT] = flag[SLOT] + 1
#define LOWER flag[SLOT] = flag[SLOT] - 1
/* Up, but for what this thread holds up itself: an upgrader shares beneath.  (slot_next_sharer) */
#ifdef PLANT_OWN_SLOT_PASSED_OVER
#define IN_THE_WAY(i) (i != SLOT && flag[i] > 0)
#else
#define IN_THE_WAY(i) (flag[i] > (i == SLOT && upgrade -> 1 : 0))
#endif

/* What the data would say. */
bool half_made;
byte readers, owners;
byte deaths;

#define NOBODY 0
#define ME (me + 1)

/* A SIGKILL may come here. */
#define MAY_DIE                                                                                                        \
    if                                                                                                                 \
    :: deaths < DEATHS -> atomic { deaths++; dead[me] = true; goto gone }                                              \
    :: true                                                                                                            \
    fi

/* owner_reap */
inline reap_owner()
{
    atomic {
        if
        :: owner != NOBODY && dead[owner - 1] ->
            if
            :: !draining -> inconsistent = true
            :: else
            fi;
            owner = NOBODY; draining = false; upgrading = false
        :: else
        fi
    }
}

/* drain: result in stolen */
inline drain_readers()
{
    stolen = false;
    i = 0;
    do
    :: i == THREADS -> break
    :: i < THREADS ->
        if
        :: !IN_THE_WAY(i) -> i++
        :: IN_THE_WAY(i) && dead[i] -> flag[i] = 0; i = 0 /* slot_clean */
        :: IN_THE_WAY(i) && !dead[i] ->
            atomic {
                if
                :: owner == ME -> draining = true
                :: else -> stolen = true
                fi
            }
            MAY_DIE;
            if
            :: stolen -> break
            :: else ->
                (!IN_THE_WAY(i) || dead[i] || owner != ME); /* spin, or sleep on wake_owner */
                i = 0
            fi
        fi
    od;
    atomic { /* drain_done */
        if
#ifdef PLANT_NO_LAST_LOOK
        :: false
#else
        :: owner != ME -> stolen = true
#endif
        :: else -> draining = false
        fi
    }
}

/* Inside: the data is changed in two steps. */
inline own_section()
{
    atomic {
        owners++;
        assert(owners == 1);                     /* L1 */
        assert(readers == 0);                    /* L3, L4 */
        assert(!half_made || inconsistent);      /* R1 */
        half_made = true
    }
    if
    :: deaths < DEATHS -> atomic { deaths++; dead[me] = true; owners--; goto gone }
    :: true
    fi;
    atomic { inconsistent = false; half_made = false; owners-- } /* make_consistent and the end of the section */
}

inline share_section()
{
    atomic {
        readers++;
        assert(owners == 0);                     /* L3, L4 */
        assert(bias);                            /* L2 */
        assert(!half_made)                       /* R1 */
    }
    if
    :: deaths < DEATHS -> atomic { deaths++; dead[me] = true; readers--; goto gone }
    :: true
    fi;
    readers--
}

proctype thread(byte me)
{
    byte i, section = 0;
    bool stolen, upgrade, looked, shared_on;
    do
    :: section == SECTIONS -> break
    :: section < SECTIONS ->
        section++;
        upgrade = false;
        shared_on = false;
        if
        :: true -> goto share
        :: true -> goto own
        fi;

share:
#ifdef PLANT_LOOK_FIRST
        (owner == NOBODY && !inconsistent);
        atomic { bias = true };
        RAISE;
#else
        RAISE;
        MAY_DIE;
        atomic {
            if
            :: owner == NOBODY && !inconsistent ->
                looked = true;
                bias = true /* a load if it is set already, else the compare-and-swap of enter_shared */
            :: else -> looked = false
            fi
        }
        if
        :: !looked ->
            LOWER; /* withdrawn */
            MAY_DIE;
            if
            :: owner == NOBODY && inconsistent -> goto own /* own_inconsistent */
            :: else ->
                (owner == NOBODY || dead[owner - 1]);
                reap_owner();
                goto share
            fi
        :: else
        fi;
#endif
        MAY_DIE;
        share_section();
        if
        :: true -> /* unlock */
            LOWER;
            goto next
        :: true -> upgrade = true /* and go on to own, flag up */
        fi;

own:
        MAY_DIE;
        atomic { /* claim */
            if
            :: owner == NOBODY -> owner = ME; upgrading = upgrade; stolen = false
            :: owner != NOBODY && upgrade && !upgrading -> owner = ME; upgrading = true; draining = false; stolen = false
            :: else -> stolen = true
            fi
        }
        if
        :: stolen && upgrade && upgrading ->
            if
            :: owner != NOBODY && dead[owner - 1] -> reap_owner(); goto own
            :: else -> LOWER; goto next /* EDEADLK; the caller gives up its shared lock */
            fi
        :: stolen && !(upgrade && upgrading) ->
            if
            :: upgrade
            :: else -> (owner == NOBODY || dead[owner - 1])
            fi;
            reap_owner();
            goto own
        :: else
        fi;
        MAY_DIE;
        if
        :: bias -> drain_readers() /* bias cannot change while somebody owns: as read by the claim */
        :: else
        fi;
        if
        :: stolen -> goto own
        :: else
        fi;
        MAY_DIE;
        own_section();
        MAY_DIE;
        if
        :: true
        :: !upgrade -> /* rwlock_share_on */
            shared_on = true;
#ifndef PLANT_SHARED_ON_TOO_LATE
            RAISE;
#endif
            MAY_DIE
        fi;
        atomic { /* release */
            owner = NOBODY; draining = false; upgrading = false;
            if
            :: upgrade -> assert(bias) /* L2: sharing goes on */
#ifndef PLANT_SHARED_ON_WITHOUT_BIAS
            :: shared_on -> bias = true
#else
            :: shared_on -> skip
#endif
            :: !upgrade && !shared_on -> skip
#ifdef PLANT_BIAS_DROPPED_WHILE_SHARING
            :: true -> bias = false
#else
            :: !upgrade && !shared_on -> bias = false /* an owner may drop it at any time: patience is a hint */
#endif
            fi
        }
#ifdef PLANT_SHARED_ON_TOO_LATE
        if
        :: shared_on -> RAISE
        :: else
        fi;
#endif
        if
        :: upgrade || shared_on -> share_section(); LOWER
        :: else
        fi;
next:   skip
    od;
gone: skip
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
