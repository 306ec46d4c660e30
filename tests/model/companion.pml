/*
 * companion.pml -- lock/companion.c and lock/outside.c: owners, and a reader that cannot write the lock's words, for spin.
 *
 * OWNERS processes with one thread each run SECTIONS exclusive sections of a LIVE store; a reader comes and goes SESSIONS
 * times, with up to SHARES sections each.  Up to DEATHS owners are killed between any two steps.  The coarse clock ticks
 * at any moment, TICKS times in all, so every stretch of time may pass between two steps, or none.  One step is one
 * atomic operation, one system call, or one reading of the clock; they are sequentially consistent in the code but for
 * the clock, which is plain memory: that it is read after the claim is what PLANT_CLOCK_BEFORE_CLAIM takes away.
 * Readers with a slot and the owners' waiting for them are lock.pml's business; here an owner may show DRAIN for a while.
 * Byte QUEUE is there for fairness alone and left out.
 *
 * Checked:
 *   X1  reader and owner are never inside together         C1, C2, C3 make it so
 *   X2  a reader is never inside with half-made data       an owner's death is seen though its bytes went with it
 *   X3  nobody waits for ever (no invalid end state), but for time that does not pass any more
 *
 * -DPLANT_...=1 breaks one step; tests/model/run_model.cmake asks that spin finds each of them.
 */
#ifndef OWNERS
#define OWNERS 2
#endif
#ifndef SECTIONS
#define SECTIONS 2
#endif
#ifndef SESSIONS
#define SESSIONS 1
#endif
#ifndef SHARES
#define SHARES 2
#endif
#ifndef DEATHS
#define DEATHS 1
#endif
#ifndef TICKS
#define TICKS 5
#endif
#define PERIOD 2
#ifdef PLANT_GRACE_SHORT
#define GRACE 1
#else
#define GRACE 2 /* >= PERIOD */
#endif

#define NOBODY 0
#define NEVER 255

byte now; /* the coarse clock */

/* The state word: every atomic { } that touches these is one operation on it. */
byte owner; /* NOBODY, or owner + 1 */
bool drain, inconsistent;

byte by_byte; /* NOBODY, or owner + 1 */

/* The kernel's bytes. */
bool announced;   /* READERS, shared by the reader */
bool apply_read;  /* APPLY, by the reader */
byte apply_write; /* APPLY, by an owner: NOBODY, or owner + 1 */

bool dead[OWNERS];
byte deaths;

/* What the data would say. */
bool half_made;
byte owners_in;
bool reader_in;

#define ME (me + 1)

/* A SIGKILL may come here: all its kernel locks go at once. */
#define DIE                                                                                                            \
    deaths++;                                                                                                          \
    dead[me] = true;                                                                                                   \
    if                                                                                                                 \
    :: apply_write == ME -> apply_write = NOBODY                                                                       \
    :: else                                                                                                            \
    fi;                                                                                                                \
    goto gone
#define MAY_DIE                                                                                                        \
    if                                                                                                                 \
    :: deaths < DEATHS -> atomic { DIE }                                                                               \
    :: true                                                                                                            \
    fi

proctype clock()
{
end_clock:
    do
    :: now < TICKS -> now++
    :: now == TICKS -> break
    od
}

proctype owning(byte me)
{
    byte section = 0;
    byte asked = NEVER, read, asking;
    bool there = false; /* the answer of the last ask */
    do
    :: section == SECTIONS -> break
    :: section < SECTIONS ->
        section++;
#ifdef PLANT_CLOCK_BEFORE_CLAIM
        read = now;
#endif
claim:
        atomic { /* W1; and owner_reap() of whoever waits */
            (owner == NOBODY || dead[owner - 1]);
            if
            :: owner != NOBODY ->
                if
                :: !drain -> inconsistent = true
                :: else
                fi;
                owner = NOBODY;
                drain = false;
                goto claim
            :: else
            fi;
            owner = ME
        }
        MAY_DIE;
        if
        :: atomic { drain = true };
            MAY_DIE;
            atomic { drain = false }
        :: true
        fi;
        MAY_DIE;
#ifndef PLANT_CLOCK_BEFORE_CLAIM
        read = now; /* W2 */
#endif
        if
        :: asked == NEVER || read - asked >= PERIOD ->
            MAY_DIE;
            asking = read;
            there = announced;
#ifdef PLANT_ASK_NOTED_LATE
            asking = now;
#endif
            asked = asking
        :: else
        fi;
        MAY_DIE;
        if
        :: there -> /* W4 */
            by_byte = ME;
            MAY_DIE;
            atomic { (!apply_read && apply_write == NOBODY); apply_write = ME }
        :: else
        fi;
        MAY_DIE;
        atomic { /* in; R1 of lock.pml: who finds half-made data was told, and repairs it */
            assert(!half_made || inconsistent);
            owners_in++;
            assert(owners_in == 1);
            assert(!reader_in); /* X1 */
            half_made = true
        }
        if
        :: deaths < DEATHS -> atomic { owners_in--; DIE }
        :: true
        fi;
        atomic { half_made = false; inconsistent = false; owners_in-- }
        MAY_DIE;
        if
        :: apply_write == ME -> /* W5 */
            apply_write = NOBODY;
            MAY_DIE;
#ifndef PLANT_SAYS_SO_KEPT
            by_byte = NOBODY
#endif
        :: else
        fi;
        MAY_DIE;
        owner = NOBODY
    od;
gone: skip
}

proctype reading()
{
    byte session = 0, share, since, seen;
    bool known, says_so, lives, told;
    do
    :: session == SESSIONS -> break
    :: session < SESSIONS ->
        session++;
        share = 0;
        told = false;
#ifdef PLANT_KNOWN_TOO_EARLY
        known = true;
#else
        known = false;
#endif
        announced = true; /* R1 */
        since = now;
        do
        :: share == SHARES || told -> break
        :: share < SHARES && !told ->
            share++;
end_grace:  (known || now >= since + GRACE); /* R2 */
take:       atomic { (apply_write == NOBODY); apply_read = true } /* R3 */
#ifndef PLANT_READER_DOES_NOT_LOOK
look:       /* R4 */
            atomic {
                seen = owner;
                if
                :: inconsistent -> told = true
                :: else
                fi;
                if
                :: owner == NOBODY || drain -> lives = true; goto decided
                :: else
                fi
            }
            says_so = (by_byte == seen);
            lives = !dead[seen - 1];
            if
            :: owner != seen || drain || inconsistent -> goto look /* the word changed */
            :: else
            fi;
#ifdef PLANT_DEATH_NOT_SEEN
            lives = true;
#endif
            if
            :: !lives -> told = true
            :: lives && !says_so && !known ->
                apply_read = false;
                (owner != seen || drain || dead[seen - 1]); /* looks again from time to time */
                goto take
            :: else
            fi;
decided:
            if
            :: told -> apply_read = false; goto next
            :: else
            fi;
#endif
            known = true;
            atomic {
                assert(owners_in == 0); /* X1 */
                assert(!half_made);     /* X2 */
                reader_in = true
            }
            reader_in = false;
            apply_read = false;
next:       skip
        od;
        announced = false /* close */
    od
}

init {
    byte t = 0;
    atomic {
        run clock();
        run reading();
        do
        :: t < OWNERS -> run owning(t); t++
        :: else -> break
        od
    }
}
