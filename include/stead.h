/*
 * stead.h -- a persistent heap for C: your structs, at the same address, next time.
 *
 * A file is mapped at the address it was created for, so plain C pointers stored in it are valid in
 * the next session and in every process that opens it.  You get malloc, a root object, named objects,
 * shared/exclusive locks, an atomic commit, and a file that any crash leaves whole.
 *
 * Results.  Functions that can fail return 0 or an error: positive values are errno, negative ones are
 * STEAD_ codes below; EINVAL where the store or another argument that must be there is NULL.  Functions that return a pointer
 * return NULL and set errno; stead_last_error()
 * has the exact code and stead_last_error_text() a full sentence.  Nothing here prints, exits, or
 * asserts on what a user or a file can cause.
 *
 * Threads.  Everything is thread-safe unless its comment says otherwise.  No call is a cancellation point, and neither are
 * the callbacks made inside one: a thread that is cancelled (pthread_cancel, deferred) in a call ends after it has
 * returned. A thread that ends in its section is a dead holder (stead_lock).  Asynchronous cancellation, longjmp and
 * pthread_exit out of a call are not allowed.  A thread with 64 KiB of stack may make every call.
 *
 * Caveats, all of them:
 *  - Local file systems only.  On a file system whose mappings or locks cannot be trusted between
 *    processes (NFS, 9p, some FUSE) a store opens for one process or not at all.
 *  - fork(2): the child's heap range is inaccessible and its handles answer EPERM to everything but
 *    stead_close(); it must stead_open() again.
 *  - Pointers into volatile memory (stack, malloc, functions, vtables) do not survive the session.
 *  - SOLE and TURNS: no I/O into the heap may be in flight across a commit or a rollback; io_uring fixed
 *    buffers and other long-term pins work in LIVE only.  Do not madvise or mmap over the heap.
 *  - The heap is the file, mapped: if somebody else shortens the file of an open store (truncate, a copy over it), or the disk
 *    cannot read a page, the access that meets it is SIGBUS, in the program or in a call.
 *  - Renaming the file of an open store leaves its log behind: after a crash it must be renamed, too.
 *  - The same file opened twice in one process is one mapping; each open needs its own close.  A handle that was closed as
 *    often as it was opened, or abandoned, is gone, as memory is after free: no call may be given it.
 *  - Structs here grow: they stay source-compatible, and the soname changes when they do.
 */
#ifndef STEAD_H
#define STEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#if UINTPTR_MAX < UINT64_MAX
#error "stead needs 64-bit pointers: a store reserves more address space than a 32-bit program has"
#endif

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define STEAD_API __attribute__((visibility("default")))
#define STEAD_MUST_CHECK __attribute__((warn_unused_result))
#else
#define STEAD_API
#define STEAD_MUST_CHECK
#endif

/* What the macros and inline functions below are made of, so that C++ programs may be compiled with -Wold-style-cast and
 * -Wzero-as-null-pointer-constant. */
#if defined(__cplusplus) && __cplusplus >= 201103L
#define STEAD_NULL_ nullptr
#else
#define STEAD_NULL_ NULL
#endif
#ifdef __cplusplus
#define STEAD_POINTER_(type, pointer) static_cast<type>(pointer)
#define STEAD_ADDRESS_(type, address) reinterpret_cast<type>(address)
#define STEAD_NUMBER_(type, number) static_cast<type>(number)
#else
#define STEAD_POINTER_(type, pointer) ((type)(pointer))
#define STEAD_ADDRESS_(type, address) ((type)(address))
#define STEAD_NUMBER_(type, number) ((type)(number))
#endif

#define STEAD_VERSION_MAJOR 0
#define STEAD_VERSION_MINOR 1
#define STEAD_VERSION_PATCH 0

/* ---- types ------------------------------------------------------------------------------------- */

/* An open store.  Made by stead_open(), given back with stead_close() or stead_abandon(). */
typedef struct stead stead;

/* Who writes, and what a crash leaves.  One file format serves all three. */
typedef enum {
    STEAD_SOLE,  /* one writing process from open to close; private copy-on-write image, atomic commits  */
    STEAD_TURNS, /* many writing processes in turns: an outermost exclusive section is a transaction     */
    STEAD_LIVE   /* many processes on the same bytes at once; a crash is detected, not undone            */
} stead_sharing;

typedef enum { STEAD_SHARED, STEAD_EXCLUSIVE } stead_lock_mode;

typedef enum {
    STEAD_DURABLE, /* power loss can no longer undo it                                               */
    STEAD_BUFFERED /* survives the death of the process; power loss may lose the newest such commits */
} stead_durability;

/* stead_options.flags */
enum {
    STEAD_READ_ONLY = 1,      /* map read-only; needs no write permission on file or directory            */
    STEAD_EXISTING = 2,       /* do not create: ENOENT if there is no such store                          */
    STEAD_NEW = 4,            /* must not exist: EEXIST if it does                                        */
    STEAD_ACCEPT_UNCLEAN = 8, /* open although a LIVE session ended without close; see stead_stat         */
    STEAD_ANY_ADDRESS = 16    /* with STEAD_READ_ONLY: map elsewhere if the recorded address is taken     */
};

/* stead's own errors.  Never renumbered. */
enum {
    STEAD_NOT_A_STORE = -1001,      /* not a stead store, or too damaged to be recognised as one        */
    STEAD_VERSION = -1002,          /* a store of a format, byte order or word size this build can't read */
    STEAD_CORRUPT = -1003,          /* checks failed; see stead_last_error_text() and stead_check()     */
    STEAD_UNCLEAN = -1004,          /* a LIVE session ended without close; STEAD_ACCEPT_UNCLEAN opens it */
    STEAD_ADDRESS_TAKEN = -1005,    /* the store's address range is in use in this process              */
    STEAD_SHARING_MISMATCH = -1006, /* the store is open in another sharing mode                        */
    STEAD_FAILED = -1007,           /* an earlier sync failed: reopen the store to recover              */
    STEAD_LAYOUT_MISMATCH = -1008,  /* options.layout names other structs than the store holds          */
    STEAD_LOG_MISSING = -1009,      /* the store was not closed and its log is not the one beside it    */
    STEAD_FILE_SYSTEM = -1010,      /* this file system cannot carry the requested sharing              */
    STEAD_WRONG_POINTER = -1011,    /* a double, foreign or interior free, or a pointer into no store   */
    STEAD_LIMIT = -1012             /* options.max_private_bytes would be exceeded                      */
};

/* The application's own layout: name and version of the structs inside.  Recorded at creation. */
typedef struct {
    const char *name; /* 1 to 63 bytes; NULL = no layout is asked for and any is accepted            */
    uint32_t version;
    /* Called when the store holds another version of the same name, inside one transaction (TURNS and
     * SOLE: committed durably if it returns 0, rolled back if not; LIVE: under the exclusive lock).
     * NULL: STEAD_LAYOUT_MISMATCH instead.  Returns 0 or an error that stead_open() then returns.  EBUSY: another process
     * has the store open for writing, with the old structs.  Readers that have it open are not asked, and their next section
     * sees the new ones: where structs change, stop or tell them first. */
    int (*upgrade)(stead *store, uint32_t from_version, uint32_t to_version, void *arg);
    void *upgrade_arg;
} stead_layout;

/* All-zero is the default, and stays so as fields are added. */
typedef struct {
    unsigned flags; /* STEAD_READ_ONLY | ...                                                */
    stead_sharing sharing;
    size_t capacity_bytes; /* address space, not disk; 0 = as recorded, or 64 GiB for a new store; rounded up to
                            * 64 KiB, at least 128 KiB; the heap's own records take some 64 KiB of each 4 MiB */
    void *address;         /* where a new store is to live, 64 KiB aligned; NULL = one of some 400 places, chosen by
                            * the store's random id: two stores of default capacity want the same one in 1 of 400
                            * cases and can then not be open in one process (STEAD_ADDRESS_TAKEN); an application
                            * that opens dozens at once names their addresses */
    unsigned permissions;  /* of a new file, and of its logs; 0 = 0600; less the umask, as in open(2)  */
    int timeout_ms;        /* waiting for a busy store, at open and at close; see stead_open, stead_commit */
    stead_layout layout;
    uint64_t max_private_bytes; /* SOLE, TURNS: memory that changes may pin until they are in the file, counted as
                                 * stead_status.private_bytes; 0 = no limit (a second open in one process: the first
                                 * one's); see stead_commit */
} stead_options;

typedef struct {
    void *base;          /* where the heap is mapped                                              */
    uint64_t file_bytes; /* length of the file now                                                */
    uint64_t capacity_bytes;
    uint64_t used_bytes; /* up to the end of the last block                                       */
    uint64_t live_bytes; /* usable bytes of all live blocks                                       */
    uint64_t live_blocks;
    uint64_t commit_seq;    /* number of commits since creation                                      */
    uint64_t bad_frees;     /* double, foreign and interior frees reported by this process           */
    uint64_t private_bytes; /* memory pinned by changes not yet written to the file (SOLE, TURNS)    */
    uint64_t log_bytes;     /* length of the log's live part                                         */
    uint64_t waiting_bytes; /* the writer's memory that waits for commits to be written to the file  */
    pid_t held_off_pid;     /* the process whose section or backup is in the way of that; 0: one that has no slot */
    time_t held_off_since;  /* 0: nobody is; else when the writer first found it so                  */
    unsigned attached;      /* processes that have the store open                                    */
    pid_t creator_pid, last_change_pid;
    time_t created, last_attach, last_detach, last_change;
    uid_t owner;
    gid_t group;
    mode_t mode;
    stead_sharing sharing;
    bool recovered;        /* this open replayed a log                                              */
    bool accepted_unclean; /* the store was unclean and was accepted so                             */
    char id[37];           /* UUID text                                                             */
} stead_status;

typedef struct {
    uint64_t pages, blocks, problems; /* looked at, looked at, found                                    */
    char first_problem[256];
} stead_report;

/* ---- open and close ---------------------------------------------------------------------------- */

/*
 * stead_open -- map a heap file at its fixed address, recovering it if needed.
 *
 *   out      receives a handle the caller owns; give it back with stead_close().  NULL on failure.
 *   path     a file, or "shm:NAME" for a section in memory without a file (LIVE only; "shm:" has no '/').  A file's
 *            own name has at most 200 bytes: the log's is made from it.
 *   options  NULL for defaults (open or create, read-write, SOLE); read during the call, not kept.
 *
 * Beside a store that is open for SOLE (from its first commit on) or TURNS, or crashed in it, lies its log, path +
 * "-wal" (for moments also "-wal.new").  EEXIST if something that is no log has that name; it stays as it is.
 * Removed by somebody else meanwhile: a new store, if the call may create.
 *
 * options.timeout_ms > 0: the most that the call waits for other processes and threads in all (not the work itself: a
 * recovery, an upgrade); then ETIMEDOUT.  -1: for ever.  0: it does not wait for who has the store open (EBUSY), but up to
 * 2 s for somebody else's opening, closing or recovery of it, which usually takes milliseconds.  The same for the last
 * stead_close, which leaves the log to the next opener then and succeeds.
 * Any attached process, also a reader, keeps the sharing mode that the store is open in (STEAD_SHARING_MISMATCH for
 * another).  Only readers that came while nobody else had the store open do not: they take no part in a mode.
 *
 * Returns 0; ENOENT, EEXIST, EACCES, EBUSY (open elsewhere or with other options), ETIMEDOUT, EMLINK
 * (a writer's open of a file with several hard links), EINVAL, ENAMETOOLONG, ENOSPC, or a STEAD_ code.
 * After a failure the process and the file are as before the call (a crashed store may be recovered).
 * Cost: O(1) after a clean close, O(log bytes) after a crash.
 */
STEAD_API int stead_open(stead **out, const char *path, const stead_options *options) STEAD_MUST_CHECK;

/*
 * stead_close -- the last close of a store commits what is pending, durably, and seals the file.
 *
 * Returns 0 and the handle is gone.  If the commit fails it returns that error and the store stays
 * open: retry, stead_rollback(), or stead_abandon().  EBUSY: a thread of this process holds the store's lock, waits for
 * it, or is in another call on the store, as stead_wait_change, a commit, or the call whose callback closes; nothing was
 * sealed, the others go on.  No thread may begin a call on a store while its last close runs.
 * In a fork child: frees the handle, touches neither file nor lock, returns 0.
 */
STEAD_API int stead_close(stead *store);

/* stead_abandon -- close without commit.  Cannot fail.  The next open finds the last commit.  Other threads that wait for
 * the store's lock or for a commit return ECANCELED; calls under way are waited for.  Who holds the lock then does so no
 * more, and may not use the store again.  From a callback (visit, init): the store goes when the call is over whose
 * callback it is, and nothing is committed any more; from options.layout.upgrade: the open fails with ECANCELED. */
STEAD_API void stead_abandon(stead *store);

/* stead_remove -- unlink the store and its log, or the shm section.  Attached processes work on; the
 * memory goes when the last one leaves; a later open makes a new store.  Waits at most 2 s for somebody else's opening
 * or closing.  What is no store stays (EINVAL, EISDIR, STEAD_NOT_A_STORE; a regular file that the caller may not read is
 * taken for one), and what lies under the log's name and is no log of this store.  Returns 0, errno, or a STEAD_ code. */
STEAD_API int stead_remove(const char *path);

/* ---- root and names ---------------------------------------------------------------------------- */

/* stead_root -- the root object, or NULL (errno 0) if none was set. */
STEAD_API void *stead_root(const stead *store);

/* stead_set_root -- part of the next commit.  EINVAL if object is not NULL and not in the store.
 * TURNS: EPERM outside an exclusive section. */
STEAD_API int stead_set_root(stead *store, void *object);

/*
 * stead_root_once -- exactly one opener runs init, ever, however many race.
 *
 * If a root is committed, *root receives it.  Otherwise, exclusively: allocates size zeroed bytes, runs
 * init(root, arg) (may be NULL), sets the root and commits durably before it returns.  Dying in init
 * leaves no root.  Returns 0, ENOMEM, ENOSPC, EDEADLK (called from its own init), or what lock and commit return; then
 * *root is NULL.
 */
STEAD_API int stead_root_once(stead *store, size_t size, void (*init)(void *root, void *arg), void *arg, void **root);

/* stead_bind -- name an object; NULL unbinds (ENOENT if absent).  A name has 1 to 255 bytes and does not begin with ".stead."
 * (EINVAL); it is copied.  Part of the next commit.  Names are unique; binding again replaces.  A name does not keep its
 * object alive, nor frees it: unbind it before you free it.  (The name of a freed object gives the old address, or nothing
 * once the store became shorter.)  ENOMEM, ENOSPC: nothing changed.  TURNS: EPERM outside an exclusive section. */
STEAD_API int stead_bind(stead *store, const char *name, void *object);

/* stead_lookup -- the named object; NULL with errno ENOENT if there is none. */
STEAD_API void *stead_lookup(const stead *store, const char *name);

/* stead_each_name -- visit every name, in no order, under a shared lock; stops at and returns visit's first non-zero.
 * visit must not bind or unbind; the name is the store's and is gone after the call. */
STEAD_API int stead_each_name(const stead *store, int (*visit)(const char *name, void *object, void *arg), void *arg);

/* ---- memory ------------------------------------------------------------------------------------ */

/*
 * stead_malloc -- size bytes in the store.  stead_malloc(s, 0) returns a distinct block.
 * NULL with errno ENOMEM (capacity), ENOSPC (disk full, clean), EPERM (TURNS outside an exclusive
 * section; read-only; fork child) or EUCLEAN (damaged heap).
 * Alignment: 16 bytes if size is a multiple of 16 or above 64, else at least 8.  The bytes are not cleared.
 * The block is the caller's until stead_free; whether a crash leaves it is decided by the commit it is part of.
 */
STEAD_API void *stead_malloc(stead *store, size_t size);
/* stead_calloc -- n * size zeroed bytes; ENOMEM if the product overflows; else as stead_malloc. */
STEAD_API void *stead_calloc(stead *store, size_t n, size_t size);
/* stead_realloc -- in place where possible, else moved: plain pointers to the old block are dead then.  block NULL: as
 * stead_malloc.  On failure the old block is unchanged; EINVAL if it is not a live block of this store.  size 0 is taken as 1. */
STEAD_API void *stead_realloc(stead *store, void *block, size_t size);
/* stead_aligned_alloc -- alignment a power of two up to 2 MiB, else EINVAL. */
STEAD_API void *stead_aligned_alloc(stead *store, size_t alignment, size_t size);
#define stead_new(s, T) (STEAD_POINTER_(T *, stead_calloc((s), 1, sizeof(T)))) /* a zeroed T */

/* stead_free -- finds its store; NULL is fine; preserves errno.  A double, foreign or interior free
 * changes nothing and is reported (stead_status.bad_frees, stead_last_error). */
STEAD_API void stead_free(void *block);
/* stead_usable_size -- 0 if block is not a live block of an open store. */
STEAD_API size_t stead_usable_size(const void *block);
/* stead_of -- the store whose range holds p, or NULL.  The handle belongs to its opener. */
STEAD_API stead *stead_of(const void *p);

/* ---- locks, commit ----------------------------------------------------------------------------- */

/*
 * stead_lock -- take the store's lock, shared or exclusive, nested to any depth in any mix.
 *
 * timeout_ms 0 = try (EBUSY), -1 = for ever, else ETIMEDOUT.  EDEADLK: a second upgrader, a thread that
 * would wait for itself, or a cycle over several stores.  EOWNERDEAD (LIVE): held, but a writer died
 * inside; repair and stead_make_consistent().  ENOTRECOVERABLE: nobody did.  ECANCELED: the store was abandoned.
 * A read-only handle cannot repair: its EOWNERDEAD means NOT held, there is nothing to unlock; the bytes may
 * be half made, and the next writer that locks is told and repairs.
 * Without write permission a LIVE store's first section begins at the earliest 15 ms after stead_open (also
 * with timeout_ms 0); STEAD_UNCLEAN: all its writers died.
 * SOLE: a lock among the writer's threads; read-only processes: a section that sees exactly one commit, also after a
 * writer's death, whether somebody recovers the store or not.  A read-only handle that was opened before any writer
 * follows them into whatever sharing mode they choose.
 * Sections of several threads of one read-only process that overlap look at the same commit; one that begins waits a moment
 * (at most its timeout) for those that look at an older one than there is.
 * TURNS: the outermost exclusive lock begins a transaction.
 */
STEAD_API int stead_lock(stead *store, stead_lock_mode mode, int timeout_ms) STEAD_MUST_CHECK;

/* stead_unlock -- undoes this thread's newest stead_lock.  EPERM: this thread holds none.
 * TURNS: the unlock that ends the outermost exclusive level commits first; if it cannot, the error is
 * returned and the lock is still held: retry, or stead_rollback() and unlock. */
STEAD_API int stead_unlock(stead *store);

/* stead_make_consistent -- after EOWNERDEAD, before the unlock: the caller repaired the data.  EPERM: this thread does not hold
 * the lock exclusively.  EINVAL: nobody died, there is nothing to repair. */
STEAD_API int stead_make_consistent(stead *store);

/*
 * stead_commit -- make every change since the last commit permanent, or none.
 *
 * SOLE: takes the lock exclusively; the wait for the disk happens after it is given up unless the
 * caller held it, so commits of several threads share a sync.  Writes, malloc and free made by other
 * threads without the lock must not run beside it.  TURNS: in an exclusive section, what was changed in it so far; outside
 * one nothing waits to be committed, no lock is taken, and STEAD_DURABLE waits for the sections that this process
 * has committed.  ENOSPC, EINTR, ENOMEM, ETIMEDOUT: nothing happened, memory is
 * intact, try again or roll back.  STEAD_FAILED: a sync failed, now or before; reopen to recover.
 * ETIMEDOUT: the log has come to its limit of 64 MiB, and for longer than options.timeout_ms a section of a read-only process
 * held off its application; stead_last_error_text names the process, stead_each_lock lists it ("application").
 * Until then the writer keeps the pages that wait in memory (waiting_bytes).
 * STEAD_LIMIT, if options.max_private_bytes is set: the commit would make private_bytes more than that (a changed page counts
 * twice, until it is in the file; one that is new and among many new ones, once).  Nothing happened, memory is intact: roll
 * back, or undo a part; where a reader holds off what was committed before, the sentence says who, and the commit
 * succeeds once he has gone.  It waits for him as for a log at its limit.
 * LIVE: msync of the used range and a fresh header.
 */
STEAD_API int stead_commit(stead *store, stead_durability durability) STEAD_MUST_CHECK;

/* stead_rollback -- the image is the last commit again: bytes, root, names, and what is allocated.  Pointers to blocks allocated
 * since the last commit are dead.  SOLE: takes the lock exclusively, as stead_commit.  TURNS: undoes the exclusive section
 * it is called in (EPERM outside one), which goes on.  LIVE: ENOTSUP.  Read-only handle: EPERM.
 * Cost: by what changed since the last commit, and by what is committed and not yet in the file. */
STEAD_API int stead_rollback(stead *store);

/* stead_wait_change -- sleep until commit_seq (stead_stat) differs from since_commit; timeout_ms as in stead_lock.
 * 0, EBUSY (timeout_ms 0), ETIMEDOUT, ECANCELED (abandoned). */
STEAD_API int stead_wait_change(stead *store, uint64_t since_commit, int timeout_ms);

/* ---- looking inside ---------------------------------------------------------------------------- */

/* stead_stat -- what the store is, how full, who uses it; under a shared lock, which it waits for.
 * This, stead_each_name and stead_each_block work also where a LIVE writer died inside and nobody has repaired
 * it, from a read-only handle opened with STEAD_ACCEPT_UNCLEAN: they show what is there, half made or not.
 * Cost: it counts; some 2 us for each MiB of heap, 0.2 us for each name. */
STEAD_API int stead_stat(stead *store, stead_status *status);

/* stead_check -- superblocks, heap, page checksums.  0, or STEAD_CORRUPT with the report filled in.
 * Reads with pread; never trusts the file.  ENOMEM: not everything could be looked at, and what was is sound.
 * Cost: reads the whole used range. */
STEAD_API int stead_check(stead *store, stead_report *report);

/* stead_each_block -- visit every live block, in address order, under a shared lock; stops at and returns visit's first
 * non-zero.  visit must not allocate or free in this store.  STEAD_CORRUPT: the heap is damaged. */
STEAD_API int stead_each_block(stead *store, int (*visit)(void *block, size_t usable, void *arg), void *arg);

/* stead_strerror -- a short text for any result; static storage or this thread's. */
STEAD_API const char *stead_strerror(int error);
/* stead_last_error, stead_last_error_text -- this thread's last failure: code, and a full sentence naming
 * file and cause.  Not cleared by success. */
STEAD_API int stead_last_error(void);
STEAD_API const char *stead_last_error_text(void);

/*
 * stead_backup -- a consistent, sealed copy of the last commit at path (EEXIST if there), while others work.
 * Reflinked where the file system can.
 *
 * The copy is of a commit that was the last one at a moment of the call.  SOLE and TURNS, also from a read-only handle: it is
 * made a piece at a time; commits go on, and the log is brought home between the pieces.  Only what changed in the last
 * round is copied at one go: the log grows meanwhile, another process's turn (TURNS) and a writer whose log is at its limit
 * (stead_commit) wait.  So it is, for all of the copy, if the thread is inside a section of its own.  LIVE: writers wait.
 */
STEAD_API int stead_backup(stead *store, const char *path);

/* stead_pin, stead_unpin -- keep what is used now in memory (mlock); what the store gains later is not pinned before the next
 * stead_pin.  ENOMEM, EPERM, EAGAIN: over the limit (ulimit -l).  One stead_unpin undoes all. */
STEAD_API int stead_pin(stead *store);
STEAD_API int stead_unpin(stead *store);

/* Who holds and who waits for the store's locks, for people.  Stops at and returns visit's first non-zero.
 * The lock of a SOLE store is among its writer's threads: other processes cannot list it.  Readers without
 * write permission are not listed. */
typedef struct {
    pid_t pid, tid; /* as that process sees itself; tid 0: one or several of very many threads */
    bool waiting;   /* else: holding                                                  */
    bool exclusive;
    bool alive;
    int64_t waiting_ns; /* how long; 0 for holders, whose "since when" is not kept ... */
    time_t attached;    /* ... but they have the store open since then                */
    const char *lock;   /* "store", in TURNS "turn"; "application" of commits to the file, which readers hold off */
} stead_lock_info;
STEAD_API int stead_each_lock(stead *store, int (*visit)(const stead_lock_info *info, void *arg), void *arg);

/* What of ours lives in memory without a file: kind "store" (name "shm:NAME"), "semaphore", "event". */
STEAD_API int stead_each_section(int (*visit)(const char *name, const char *kind, void *arg), void *arg);
/* The value of a named semaphore, or 0/1 of a named event, without opening it for use.  ENOENT, errno. */
STEAD_API int stead_sync_value(const char *name, const char *kind, unsigned *value);

/* ---- scoped lock: gcc and clang ---------------------------------------------------------------- */
#if defined(__GNUC__)
STEAD_API void stead_locked_end_(stead **held); /* for STEAD_LOCKED only */
STEAD_API stead *stead_locked_begin_(stead *store, stead_lock_mode mode);
#define STEAD_CAT2_(a, b) a##b
#define STEAD_CAT_(a, b) STEAD_CAT2_(a, b)
/*
 * STEAD_LOCKED(s, mode) { ... } -- runs the block once with the lock held, waiting for ever for it, and
 * releases it on any path out (break, return, goto; longjmp is not "any path").  If the lock cannot be had
 * the block does not run and stead_last_error() says why.  A TURNS section that cannot commit is rolled
 * back and sets the thread's last error.  LIVE after a writer's death: the block runs with
 * stead_last_error() == EOWNERDEAD, and must call stead_make_consistent().
 */
#define STEAD_LOCKED(s, mode) \
    for (stead * STEAD_CAT_(stead_held_, __LINE__) \
                     __attribute__((cleanup(stead_locked_end_))) = stead_locked_begin_((s), (mode)); \
         STEAD_CAT_(stead_held_, __LINE__) != STEAD_NULL_; stead_locked_end_(&STEAD_CAT_(stead_held_, __LINE__)))
#endif

/* ---- semaphores and events --------------------------------------------------------------------- */
/*
 * A counting semaphore and a manual-reset event.  name NULL: local to this process; else named across
 * processes (1 to 200 bytes, no '/'), made by the first opener, living until _remove().  _init: one placed in
 * a LIVE store (sizeof(...) bytes of its heap) becomes 0 / not signaled; it needs no open and no close.  timeout_ms as in
 * stead_lock.  A killed user leaves nothing locked.  In a store opened STEAD_READ_ONLY: EPERM.
 */
typedef struct stead_semaphore {
    uint32_t word[8];
} stead_semaphore;
typedef struct stead_event {
    uint32_t word[8];
} stead_event;

STEAD_API int stead_semaphore_open(stead_semaphore **out, const char *name, unsigned value) STEAD_MUST_CHECK;
STEAD_API int stead_semaphore_init(stead_semaphore *semaphore);
STEAD_API int stead_semaphore_wait(stead_semaphore *semaphore, int timeout_ms) STEAD_MUST_CHECK;
STEAD_API int stead_semaphore_signal(stead_semaphore *semaphore, unsigned n); /* EOVERFLOW above 2^31-1 */
STEAD_API int stead_semaphore_close(stead_semaphore *semaphore);
STEAD_API int stead_semaphore_remove(const char *name);

STEAD_API int stead_event_open(stead_event **out, const char *name, bool signaled) STEAD_MUST_CHECK;
STEAD_API int stead_event_init(stead_event *event);
STEAD_API int stead_event_wait(stead_event *event, int timeout_ms) STEAD_MUST_CHECK;
STEAD_API int stead_event_signal(stead_event *event);
STEAD_API int stead_event_reset(stead_event *event);
STEAD_API int stead_event_close(stead_event *event);
STEAD_API int stead_event_remove(const char *name);

/* ---- self-relative references ------------------------------------------------------------------ */
/* STEAD_REF(T) -- a reference readable at any address: struct node { STEAD_REF(struct node) next; };
 * NULL is 0; a reference to itself is not representable as non-NULL and is stored as 1. */
#define STEAD_REF(T) \
    union { \
        int64_t stead_offset; \
        T *stead_type[1]; /* never read: carries the type */ \
    }
static inline void *stead_ref_get_(const int64_t *offset)
{
    if (*offset == 0)
        return STEAD_NULL_;
    return STEAD_ADDRESS_(void *,
                          STEAD_ADDRESS_(uintptr_t, offset) + STEAD_NUMBER_(uintptr_t, *offset == 1 ? 0 : *offset));
}
static inline void stead_ref_set_(int64_t *offset, const void *p)
{
    int64_t distance = STEAD_NUMBER_(int64_t, STEAD_ADDRESS_(uintptr_t, p) - STEAD_ADDRESS_(uintptr_t, offset));
    *offset = p == STEAD_NULL_ ? 0 : distance == 0 ? 1 : distance;
}
#if defined(__GNUC__)
#define stead_ref_get(r) (STEAD_POINTER_(__typeof__(&*(r)->stead_type[0]), stead_ref_get_(&(r)->stead_offset)))
#define stead_ref_set(r, p) stead_ref_set_(&(r)->stead_offset, (p))
#endif

#ifdef __cplusplus
}
#endif
#endif
