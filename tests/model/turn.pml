/*
 * turn.pml -- TURNS: store/section.c, store/transaction.c, persist/txn_turn.c and apply.c, for spin.
 *
 * WRITERS processes run SECTIONS exclusive sections each (a section may end without a change), one reader READS shared
 * ones; up to DEATHS of them are killed between any two steps.  The store lock and the apply lock are taken as given
 * (lock.pml): who finds a dead owner gets the lock with the news.  The image is two pages; each commit changes both, and
 * is known by its tag, so that what somebody sees can be told from what was there before.
 *
 * Sequentially consistent steps are what the code has: the words of `shared` are written as one (shared.c: two copies,
 * the newer whole one counts), by the owner of the store lock only.
 *
 * Power loss needs no process of its own: what it leaves is said by `durable` (log), `file_synced` and the superblock, and the
 * assertions compare what is shown, written and named with those, at the moment it is.
 *
 * Checked:
 *   V1  nobody sees another's commit before it is durable         V2  all see the same bytes under one number, for ever
 *   V3  a section whose unlock returned is never overwritten      W9  no page reaches the file before its record is durable
 *   V4  a reader sees one commit, no mix of two                   V5  the file is changed under the apply lock only
 *   V6  (W10) a superblock names a log only when the file holds all before it; the log that is needed is found
 *   R2  nobody waits for ever (no invalid end state)
 *
 * -DPLANT_...=1 breaks one step each; tests/model/run_model.cmake asks that spin finds it.
 */
#ifndef WRITERS
#define WRITERS 2
#endif
#ifndef SECTIONS
#define SECTIONS 2
#endif
#ifndef READS
#define READS 1
#endif
#ifndef DEATHS
#define DEATHS 1
#endif
#define COMMITS (WRITERS * SECTIONS + 1)
#define READER WRITERS
#define NOBODY 0
#define ME (me + 1)

/* The locks. */
byte owner, apply_owner; /* NOBODY, else process + 1 */
bool inconsistent, apply_inconsistent;
bool reading;
bool dead[WRITERS + 1];
byte deaths;

/* The lock unit: commit_seq, durable_seq, and the words of `shared`. */
byte commit_word, durable_word;
byte told_seq, told_applied, told_file, told_checkpoint;
bool told_restarting;

/* The files: the log's records, FILE-wal and FILE-wal.new by checkpoint number, the pages, the superblock. */
byte log[COMMITS + 1];
byte wal, wal_new;
byte page_a, page_b;              /* numbers of the commits that they are of */
byte super_seq, super_checkpoint;
byte durable, file_synced;        /* what the disk has */

/* What was seen, and what was promised. */
byte seen[COMMITS + 1], acknowledged[COMMITS + 1];

/* A SIGKILL may come here. */
#define MAY_DIE                                                                                                        \
    if                                                                                                                 \
    :: deaths < DEATHS -> atomic { deaths++; dead[me] = true; goto gone }                                              \
    :: true                                                                                                            \
    fi

#define WRITE_PAGE(page, number)                                                                                       \
    atomic {                                                                                                           \
        assert(number <= durable);      /* W9 */                                                                       \
        assert(apply_owner == ME);      /* V5 */                                                                       \
        page = number                                                                                                  \
    }

inline sync_log(number)
{
    atomic {
        durable = (number > durable -> number : durable);
        durable_word = (durable > durable_word -> durable : durable_word)
    }
}

inline lock_store()
{
    atomic {
        owner == NOBODY || dead[owner - 1];
        inconsistent = inconsistent || owner != NOBODY;
        after_death = inconsistent;
        owner = ME
    }
}

#define APPLY_FREE ((apply_owner == NOBODY || dead[apply_owner - 1]) && (!reading || dead[READER]))

inline take_apply()
{
    apply_inconsistent = apply_inconsistent || apply_owner != NOBODY;
    reading = false;
    apply_owner = ME
}

inline unlock_apply()
{
    atomic { apply_inconsistent = false; apply_owner = NOBODY }
}

/* txn_turn.c, catch_up */
inline catch_up()
{
    atomic { /* shared_read, heed_superblock, follow_log */
        seq = told_seq;
        applied = told_applied;
        checkpoint = told_checkpoint;
#ifndef PLANT_SUPERBLOCK_NOT_HEEDED
        if
        :: super_checkpoint > checkpoint ->
            checkpoint = super_checkpoint; seq = super_seq; applied = super_seq
        :: else
        fi;
#endif
        assert(checkpoint == wal || checkpoint == wal_new); /* V6 */
        if
        :: checkpoint != wal -> wal = wal_new; wal_new = 0
        :: else
        fi
    }
    MAY_DIE;
#ifndef PLANT_PASSED_ON_BEFORE_DURABLE
    sync_log(seq);
    MAY_DIE;
#endif
    if
    :: applied < seq ->
        WRITE_PAGE(page_a, seq);
        MAY_DIE;
        WRITE_PAGE(page_b, seq);
        MAY_DIE
    :: else
    fi;
    atomic { /* the image is the file's; told to all */
        if
        :: seq != 0 ->
            assert(seq <= durable);                                       /* V1 */
            assert(log[seq] != 0 && (seen[seq] == 0 || seen[seq] == log[seq])); /* V2 */
            assert(acknowledged[seq] == 0 || acknowledged[seq] == log[seq]);    /* V3 */
            seen[seq] = log[seq]
        :: else
        fi;
        applied = seq;
        told_seq = seq; told_applied = seq; told_file = (told_file > seq -> told_file : seq);
        told_checkpoint = checkpoint; told_restarting = false
    }
}

/* section.c, turn_begin */
inline begin_turn()
{
#ifdef PLANT_DEATH_IGNORED
    behind = commit_word != seq;
#else
    behind = after_death || commit_word != seq;
#endif
    if
    :: behind -> atomic { APPLY_FREE; take_apply() }
    :: else
    fi;
    MAY_DIE;
    if
    :: told_restarting || told_checkpoint != checkpoint || told_seq != seq -> catch_up()
    :: else
    fi;
    MAY_DIE;
    if
    :: behind -> commit_word = seq; MAY_DIE; unlock_apply()
    :: else
    fi;
    inconsistent = false
}

/* commit.c: the record, then the words, then the number that all wait for */
inline commit()
{
#ifdef PLANT_TOLD_BEFORE_LOGGED
    told_seq = seq + 1;
    MAY_DIE;
#endif
    atomic {
        assert(seq + 1 > durable && seen[seq + 1] == 0); /* V2: a record that somebody saw is not overwritten */
        assert(acknowledged[seq + 1] == 0);              /* V3 */
        log[seq + 1] = me * SECTIONS + section
    }
    MAY_DIE;
    atomic { seq++; told_seq = seq }
    MAY_DIE;
    commit_word = seq
}

/* transaction.c, store_settle: nothing, a slice, everything, or a checkpoint; never waits for a reader */
inline settle()
{
    if
    :: true
    :: applied < seq || told_checkpoint == super_checkpoint && super_seq < seq ->
#ifndef PLANT_APPLIED_BEFORE_DURABLE
        sync_log(seq);
#endif
        MAY_DIE;
        atomic {
            got = APPLY_FREE;
            if
            :: got -> take_apply()
            :: else
            fi
        }
        if
        :: got -> apply()
        :: else
        fi
    fi
}

inline apply()
{
    MAY_DIE;
    told_file = seq; /* before a page gets bytes of a later commit */
    WRITE_PAGE(page_a, seq);
    MAY_DIE;
    if
    :: true -> unlock_apply() /* a slice: log and file together are the commit */
    :: true ->
        WRITE_PAGE(page_b, seq);
        MAY_DIE;
        atomic { applied = seq; told_applied = seq }
        if
        :: true
        :: super_seq < seq -> checkpoint_log()
        fi;
        MAY_DIE;
        unlock_apply()
    fi
}

inline checkpoint_log()
{
    file_synced = seq;
    MAY_DIE;
    wal_new = checkpoint + 1;
    told_restarting = true;
    MAY_DIE;
    atomic {
        assert(file_synced >= seq && page_a == seq && page_b == seq); /* V6 */
        super_seq = seq; super_checkpoint = checkpoint + 1
    }
    MAY_DIE;
    atomic { wal = wal_new; wal_new = 0 }
    MAY_DIE;
    atomic { checkpoint = super_checkpoint; told_checkpoint = checkpoint; told_restarting = false }
}

proctype writer(byte me)
{
    byte section = 0, seq = 0, applied = 0, checkpoint = 1;
    bool after_death, behind, got;
    do
    :: section == SECTIONS -> break
    :: section < SECTIONS ->
        section++;
        lock_store();
        MAY_DIE;
        begin_turn();
        MAY_DIE; /* in the section: its changes are in private memory */
        if
        :: true -> commit()
        :: true /* nothing was changed */
        fi;
        MAY_DIE;
        settle();
        MAY_DIE;
        atomic {
            acknowledged[seq] = (seq != 0 -> log[seq] : 0);
            owner = NOBODY
        }
    od;
gone:
    skip
}

/* section.c, reader_begin with a slot; follow.c */
proctype reader(byte me)
{
    byte reads = 0, view, first, second;
    bool refused;
    do
    :: reads == READS -> break
    :: reads < READS ->
        reads++;
#ifdef PLANT_READER_DOES_NOT_LOCK
        refused = apply_inconsistent || (apply_owner != NOBODY && dead[apply_owner - 1]);
#else
        atomic {
            apply_owner == NOBODY || dead[apply_owner - 1];
            refused = apply_inconsistent || apply_owner != NOBODY; /* STEAD_FAILED, the news left for a writer */
            reading = !refused
        }
#endif
        if
        :: refused -> goto next
        :: else
        fi;
        MAY_DIE;
        atomic {
            view = (durable_word < told_seq -> durable_word : told_seq);
            if
            :: view > told_applied -> /* the records after what is applied name both pages */
                assert(view >= told_file);
                first = view; second = view
            :: else -> first = page_a; view = 0
            fi
        }
        MAY_DIE;
        if
        :: view == 0 -> second = page_b
        :: else
        fi;
        assert(first == second);                                         /* V4 */
        atomic {
            assert(first <= durable);                                    /* V1 */
            if
            :: first != 0 ->
                assert(log[first] != 0 && (seen[first] == 0 || seen[first] == log[first])); /* V2 */
                seen[first] = log[first]
            :: else
            fi
        }
        MAY_DIE;
        reading = false;
next:   skip
    od;
gone:
    skip
}

init {
    byte p = 0;
    atomic {
        wal = 1;
        told_checkpoint = 1;
        super_checkpoint = 1;
        do
        :: p < WRITERS -> run writer(p); p++
        :: else -> break
        od;
        run reader(READER)
    }
}
