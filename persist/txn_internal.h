/*
 * txn_internal.h -- what txn.h hides: the state of one image's transactions, shared by txn.c, commit.c and apply.c.
 *
 * Locks, in this order: `engine` around commit, rollback, apply, checkpoint, refresh and reads of the overlay; `sync`
 * around the words of the group commit.  Nobody waits for a disk under `sync`.
 */
#ifndef STEAD_PERSIST_TXN_INTERNAL_H
#define STEAD_PERSIST_TXN_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "persist/checksum_cache.h"
#include "persist/dirty.h"
#include "persist/overlay.h"
#include "persist/shared.h"
#include "persist/txn.h"
#include "persist/wal.h"

/* An application in slices: the pages that were in the overlay when it began, ascending, and the commit it will reach. */
struct apply_round {
    struct page_list pages;
    size_t next; /* pages before it are in the file */
    uint64_t seq, used_bytes;
    struct wal_position at;
};

/* Pages that were written into the file since it was last synced, counted by stretches of the image. */
struct unsynced {
    uint32_t *of_stretch;
    size_t stretches;
    size_t hand; /* of the sweep: the next stretch to look at */
    uint64_t pages;
};

/* What a commit found out about a candidate that it compared. */
struct txn_finding {
    uint8_t *overlay;  /* where the overlay had it, with which it was compared; NULL: it did not */
    uint16_t from, to; /* of the page: no other bytes of it changed (only if some did)           */
};

/* Where private pages cost every commit (thin.c). */
struct thin {
    uint64_t spent_ns;      /* by commits since the last attempt                                       */
    uint64_t price_ns;      /* of an attempt                                                           */
    uint64_t cost_ns;       /* of the commit before the last attempt; 0: it is known what that gained  */
    uint64_t asked_cost_ns; /* the same of the one that is under way                                   */
    uint64_t home_ns;       /* what the application took                                               */
    unsigned before;        /* commits that an attempt has to wait for; 0: as at first                 */
    bool asked;             /* what waits is to be applied, then dropped by the next commit            */
    int64_t asked_ns;       /* 0: since then nothing is counted                                        */
    uint64_t asked_seq;
};

struct txn {
    struct map *map;
    const struct file *file;
    const struct file *names; /* its log's: `file`, or `renamed` (under engine)        */
    struct file *renamed;     /* the file under its present name, if that was asked for */
    struct superblock *super;
    struct image_shared *shared; /* may be NULL: nobody else looks */
    uint64_t max_private_bytes;
    bool limit_waits; /* the last commit was refused for it, and only because of what waits in the overlay */
    bool turns;
    bool at_once;    /* no record waits in memory: a file system where its write, too, may find the disk full */
    bool drop_all;   /* TURNS: private pages may exist that no list knows: the next turn drops the whole range */
    bool untouched;  /* opened sealed, and nothing was committed since: the file is what the sealed superblocks said */
    bool late;       /* SOLE: no log yet; the first commit makes it (txn_log.c)                                   */
    bool restarting; /* TURNS: between a new superblock and telling of the log that it names */
    bool stale;      /* nothing is known before the first refresh (a further opener in TURNS) */

    pthread_mutex_t engine;
    struct wal wal;
    struct overlay overlay;
    struct checksum_cache checksums; /* of the file's pages */
    struct dirty *dirty;
    uint64_t used_bytes;    /* at the last commit                                                        */
    uint64_t named_bytes;   /* W7: no record in the log names a page at or past this                      */
    uint64_t length_synced; /* the file is durably long enough for this much image                       */
    uint64_t applied_seq, applied_used_bytes;
    struct wal_position applied_at;
    uint64_t file_seq;    /* no page of the file is newer than this commit                               */
    uint64_t waiting_seq; /* the newest commit whose record may be in memory alone; 0: none             */
    struct apply_round round;
    struct unsynced unsynced;
    struct thin thin;
    size_t last_pages; /* of the last commit: what slices are measured by                             */

    /* Pages, sorted unless said otherwise. */
    struct page_list candidates; /* of the commit or rollback in hand                                    */
    bool *changed;               /* for each candidate                                                   */
    struct txn_finding *finding; /* for each that was compared                                           */
    size_t changed_room;         /* of both                                                              */
    struct page_list carry;      /* reported by dirty_collect(), but not committed: an error, or past used_bytes */
    struct page_list work;       /* scratch                                                              */
    struct page_list resident;   /* applied, maybe still private; in order of application                */
    size_t resident_head, resident_limit;
    size_t overlay_limit;
    uint64_t straight_from, straight_to; /* file pages past used_bytes that hold bytes of a failed commit */
    uint8_t *scratch;                    /* SCRATCH_PAGES pages                                                  */

    pthread_mutex_t sync;
    pthread_cond_t synced;
    bool syncing;
    uint64_t sync_seq, sync_end, sync_checkpoint; /* what a sync started now would make durable: copies of wal.at */
    uint64_t durable_seq, durable_end;
    _Atomic int failed; /* not 0: poisoned */
    /* Copies for threads that hold no lock (txn_publish). */
    _Atomic uint64_t seen_seq, seen_applied_seq, seen_log_end, seen_used_bytes;
    _Atomic size_t seen_overlay, seen_last_pages;
    _Atomic uint64_t seen_unsynced, seen_straight;
    _Atomic bool seen_thin;
};

#define SCRATCH_PAGES 64

/* ---- txn.c ---- */
int txn_refuse_poisoned(struct txn *txn);
/* Under `engine`: the sync words follow wal.at; `shared` is told. */
void txn_publish(struct txn *txn);
int txn_sync_locked(struct txn *txn, uint64_t seq); /* `engine` is held */
uint64_t txn_durable_end(struct txn *txn);          /* the log is durable up to here */
/* Before a byte of commits up to seq goes to the file (tail.c). */
int txn_raise_tail(struct txn *txn, uint64_t seq);

/* ---- txn_log.c ---- */
int txn_open_log(struct txn *txn, bool first, bool late);
/* Under `engine`, exclusive: a commit has something to say.  A late log is made; what was in hand of a record is forgotten.
 * An errno: nothing happened; STEAD_FAILED. */
int txn_need_log(struct txn *txn);

/* txn_open() with a chosen way to find changed pages (tests). */
int txn_open_with(struct txn **out, struct map *map, const struct file *file, struct superblock *super,
                  const struct image_options *options, enum dirty_kind kind);

/* ---- recover.c ---- */
/* Image bytes from used_bytes on to the end of the file, and their checksums, become zeros, durably. */
int txn_clear_tail(const struct file *file, uint64_t used_bytes);

/* ---- slice.c ---- */
/* Before a page is written into the file, whatever of the overlay it holds: every commit durable, and told (W9, W16, T1). */
int slice_announce(struct txn *txn);
void slice_forget_round(struct txn *txn); /* the overlay was emptied in another way */
void slice_forget_load(struct txn *txn);  /* its checkpoint failed: not again with each commit */
/* Pages [from, to) of the list were written into the file. */
void unsynced_add(struct txn *txn, const struct page_list *list, size_t from, size_t to);
void unsynced_clear(struct txn *txn); /* the file was synced */
void slice_release(struct txn *txn);

/* ---- thin.c: under `engine` ---- */
/* A commit like the last one cost so much that private pages are the cause of: is it time that they go home? */
bool thin_due(struct thin *thin, uint64_t cost_ns, uint64_t waiting_pages);
void thin_paid(struct thin *thin, uint64_t ns); /* ... which took so long */
/* A commit was made, and the comparison of pages that had not changed took so long. */
void thin_note(struct txn *txn, uint64_t compare_ns, bool deferred);
void thin_applied(struct txn *txn, int64_t begun_ns); /* all that waited */
bool thin_asked(const struct txn *txn);               /* is it this commit that drops? */
void thin_done(struct txn *txn, int64_t begun_ns);
extern enum thin_when { THIN_WHEN_DUE, THIN_ALWAYS, THIN_NEVER } thin_when; /* tests: whatever the clock says */

/* ---- limit.c ---- */
void limit_open(struct txn *txn); /* `dirty` and `turns` are known */
/* That part of the memory in pages (0: none), at least `least`, of which however not more than the part least_part. */
size_t limit_part(uint64_t memory_bytes, uint64_t part, uint64_t least, uint64_t least_part);
/* May a commit add `more` pages to the overlay, and write `straight` ones into the file?  0 or STEAD_LIMIT. */
int limit_admit(struct txn *txn, size_t more, size_t straight);
/* So many applied pages may stay private beside all that. */
size_t limit_residents(const struct txn *txn, size_t more, size_t straight);
/* The overlay has more pages: slices of it go home.  Any thread. */
size_t limit_overlay(const struct txn *txn);

/* ---- compare.c ---- */
/* Candidates [0, count), each compared with the last commit; so many more changed, and so many of these are new to the
 * overlay. */
int compare_candidates(struct txn *txn, size_t count, size_t *changed_pages, size_t *added);
/* Candidate i, where it differs from base, into the record; `whole`: all of it, if it differs at all. */
int compare_log(struct txn *txn, size_t i, const void *base, bool whole);
static inline uint8_t *txn_image_page(const struct txn *txn, uint64_t page)
{
    return txn->map->base + page * PAGE_BYTES;
}

/* ---- commit.c ---- */
int txn_rollback_locked(struct txn *txn);

/* ---- fresh.c: exclusive, under `engine` ---- */
/* Takes pages [from, to) of the list out that are fresh and zeros, in the file as well; how many. */
size_t fresh_skip_zeros(struct txn *txn, struct page_list *list, size_t from, size_t to);
/* Pages [from, to) of the list, past the end of the last commit, and their checksums into the file; with `log` also these into
 * the record. */
int fresh_write(struct txn *txn, const struct page_list *list, size_t from, size_t to, bool log);
/* A commit up to used_bytes was made: fresh pages below it are in the file.  Pages [from, to) of the list are old ones that
 * were still anonymous. */
void fresh_committed(struct txn *txn, const struct page_list *list, size_t from, size_t to);
/* Pages of the list from `from` on, past the end, are kept in mind (room was reserved), or given back. */
void fresh_carry(struct txn *txn, const struct page_list *list, size_t from);
/* What failed commits wrote into the file at or past the page is zeros again, durably: the next commit may count on that. */
int fresh_clear(struct txn *txn, uint64_t page);
int fresh_rollback(struct txn *txn);
/* TURNS: what comes past the end is for whoever has the turn. */
int fresh_give_up(struct txn *txn);

/* ---- apply.c ---- */
const uint8_t *apply_from_overlay(const void *overlay, uint64_t page);
typedef const uint8_t *apply_bytes_of(const void *ctx, uint64_t page);
/* Writes pages [from, to) of the list into the file and their checksums into the table.  Uses scratch. */
int apply_pages(struct txn *txn, const struct page_list *list, size_t from, size_t to, apply_bytes_of *bytes_of,
                const void *ctx);
/* Zeros over image pages [from, to) of the file and their checksums. */
int apply_zeros(struct txn *txn, uint64_t from, uint64_t to);

#endif
