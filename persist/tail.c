/*
 * tail.c -- the mark at the end of a store file, by which a plain copy of a store in use is a commit or is refused.
 *
 * A copier (cp, tar, rsync) reads each file once, front to back, at its own speed, in any order of the two files, while
 * commits and checkpoints go on.  What it gets of the store file F and of the log L:
 *
 *     F:  [ superblocks | tables and pages ................. | mark ]        L:  [ header | records ... ]
 *           read first                                         read last
 *
 * Let c be the checkpoint number in the newer superblock that was copied, b the commit it names, and n the last commit
 * of the valid prefix of the log (n = b for a sealed store, which needs no log).  The copy is opened as commit n.
 * Recovery writes every byte that the records b+1 .. n name, so the copy is commit n exactly if each page was read
 *   (1) no older than b       superblock c was written when everything up to b was in F, and its pages are read after it.
 *                             What b did not have yet means nothing, and may be in F as of any time: a record has such
 *                             a page from zeros, or whole, or its checksum, which is verified (W27, commit.c);
 *   (2) no newer than n       a page gets bytes of commit v, or a free range is punched, only after the mark says v, or the
 *                             checkpoint number then valid (T1); the mark is read after the page, and it never falls; so
 *                             mark.seq <= n and mark.checkpoint <= c (tail_check) leave no page newer than n;
 *   (3) and the records are those that were made: each checkpoint gives the log a new inode, so that no record is ever
 *       overwritten by one of another checkpoint under a copier (wal_file.c).  A name copied at another moment holds
 *       another checkpoint's log, which the superblock does not name.
 * Which file was copied first does not matter, nor how many checkpoints, closes and openings passed meanwhile: if the
 * copier missed any of it, (2) or the header of the log says so.  Only the pages' tables remain: an entry is read
 * before its page, so it is of the same version or an older one; if older, a record names the page and recovery writes
 * the entry; of a page that was written straight into the file, the one that the record holds.
 *
 * The end of the file.  The mark must be the last thing there at every moment that somebody may read it:
 *   - the file is lengthened by writing the mark behind the new end, which moves bytes and length in one call; the blocks
 *     between were reserved without moving the end.  Only then is the old place, now part of the image, cleared, and only
 *     then mapped.  A mark that could not be written, or not be synced, is cut off again: then the end, and the mark there,
 *     are as they were.  (The new mark tells of the old place, so that in TURNS the next process finishes what a killed one
 *     began, the mark's way to the disk first.)  A copier that passed the old place before it was cleared has the old mark
 *     in the middle and may have zeros at the end; the pages between were not in use before it came to the end, so it
 *     holds zeros there.  If commits that use the old place are in the copy's log, recovery clears it first, and a reader that
 *     replays the log in private does so in its own view (private_replay.c).  The place is the beginning of a unit of the
 *     image, or of a group's table.
 *   - the file is shortened (close, alone) after the mark stands at the new end.  A copier that is beyond it by then
 *     stops in the middle of nowhere: its copy's length is not whole units and a mark, and is refused.
 * So a file in use, seen by a process, ends with a mark (or with the zeros just described).  After a power cut it may
 * end with zeros where the mark should be (the length got to the disk, the bytes did not); there the log is whole and
 * nothing is to be told, so zeros are accepted.  The mark is durable at the new end before the old place is used, or a
 * power cut could leave the old length with the image's bytes in the place of the mark; and the cleared place is
 * durable before a commit that is longer (commit.c, write_straight), or the image would have a mark in it.
 *
 * Growth in SOLE (tail_move_later).  A heap grows while nothing uses the new room but this process's memory (fresh.c), and a wait
 * for the disk at each growth was most of the time of filling a new store.  So the order above, mark durable at the new
 * end, old place cleared, old place used, is kept, but only the commit that first uses the old place waits for it:
 *   step                                              a crash right after it leaves
 *   1 blocks reserved, the mark written at the new    process killed: the mark at the new end, and the old one in what is
 *     end, not synced; it names the old place         past the used length, which recovery clears.  Power loss: the same,
 *                                                     or zeros at the new end, or the old length with its mark
 *   2 growth again: the same; the mark goes on to     the same: of the places between, none was ever durable as the end
 *     name the first place, the one between is zeros  and in use
 *   3 a commit longer than what is durable: the mark  as after a durable move
 *     synced, the first place cleared (tail_confirm)
 *   4 the commit writes new pages, syncs them, and    commit.c
 *     the cleared place with them
 * So T4 below: who writes at or past the last confirmed end has confirmed first.  Application and slices write pages of commits
 * made before, which lie in front of it.  A close that keeps the file's length (a reader has it mapped, or there is no room for a
 * new log) seals what no commit has, and growth for which there is no anonymous memory is mapped from the file: both confirm.  A copier that reads between 1 and 3 finds the first place's mark in the middle: as
 * one that passed it before it was cleared.  In TURNS others map the new room at once: there each growth is durable.
 *
 * Raising.  The mark has two limits, written in turn, so that one is whole whatever happens to the other.  A copier
 * that read one half-written was done with all pages before that limit allowed any.  (To be fooled it would have to
 * sleep between reading the two, 24 bytes apart, while both are raised; each time the log is synced first.)
 *
 * A crash needs no mark: pages never get to the disk before their records (W9), so the log's prefix reaches any mark
 * that got there.  If it does not, durable records were lost.
 *
 * LIVE has no commits and no log: the mark is zeros while it is open (only the superblock tells then), written again when
 * the store is sealed.
 *
 *   T1  no byte of F is newer than the mark at its end says (test_copy.c; STEAD_PLANT_NO_TAIL breaks it)
 *   T2  a file open for SOLE or TURNS, or sealed, is whole units and a mark long
 *   T3  a former end's mark in a copy is in no recovered page, table or private view (test_recover.c)
 *   T4  where a mark stood that was durable as the end, nothing is written before the one at the present end is durable
 */
#include "persist/tail.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <xxhash.h>

#include "base/error.h"
#include "base/units.h"
#include "persist/file.h"

static const uint8_t tail_magic[8] = {0x89, 's', 't', 'd', 'e', 'n', 'd', '\n'};
static const struct tail no_tail;

static uint64_t checksum(const struct tail *tail, const struct tail_limit *limit)
{
    enum { NAMED = offsetof(struct tail, moved_from), LIMIT = offsetof(struct tail_limit, checksum) };
    uint8_t bytes[NAMED + LIMIT];
    memcpy(bytes, tail, NAMED);
    memcpy(bytes + NAMED, limit, LIMIT);
    return XXH3_64bits(bytes, sizeof bytes);
}

static bool is_mark(const struct tail *tail, const uint8_t id[16])
{
    return memcmp(tail->magic, tail_magic, sizeof tail_magic) == 0 && memcmp(tail->id, id, sizeof tail->id) == 0;
}

/* The limit that counts; NULL: neither is valid. */
static const struct tail_limit *highest(const struct tail *tail)
{
    const struct tail_limit *found = NULL;
    for (unsigned i = 0; i < 2; i++) {
        const struct tail_limit *limit = &tail->limit[i];
        if (limit->checksum == checksum(tail, limit) &&
            (found == NULL || limit->checkpoint > found->checkpoint ||
             (limit->checkpoint == found->checkpoint && limit->seq > found->seq)))
            found = limit;
    }
    return found;
}

uint64_t tail_offset(uint64_t file_bytes)
{
    return round_down(file_bytes, UNIT_BYTES);
}

static void fill(struct tail *tail, const uint8_t id[16], uint64_t checkpoint, uint64_t seq)
{
    *tail = no_tail;
    memcpy(tail->magic, tail_magic, sizeof tail->magic);
    memcpy(tail->id, id, sizeof tail->id);
    tail->limit[0] = (struct tail_limit){.checkpoint = checkpoint, .seq = seq};
    tail->limit[0].checksum = checksum(tail, &tail->limit[0]);
    tail->limit[1] = tail->limit[0];
}

int tail_write(int fd, uint64_t at, const uint8_t id[16], uint64_t checkpoint, uint64_t seq)
{
    struct tail tail;
    fill(&tail, id, checkpoint, seq);
    int rc = file_within_limit(at + sizeof tail);
    return rc == 0 ? file_write_at(fd, &tail, sizeof tail, at) : rc;
}

/* What stands at the end: *tail is all zeros if there is no mark, and *at where one belongs. */
static int read_end(int fd, const uint8_t id[16], struct tail *tail, uint64_t *at)
{
    uint64_t bytes;
    int rc = file_size(fd, &bytes);
    *tail = no_tail;
    *at = rc == 0 && bytes % UNIT_BYTES != TAIL_BYTES ? round_up(bytes, UNIT_BYTES) : tail_offset(bytes);
    if (rc == 0 && bytes % UNIT_BYTES == TAIL_BYTES) {
        rc = file_read_at(fd, tail, sizeof *tail, *at);
        if (rc == 0 && (!is_mark(tail, id) || highest(tail) == NULL))
            *tail = no_tail;
    }
    return rc;
}

int tail_raise(int fd, const uint8_t id[16], uint64_t checkpoint, uint64_t seq)
{
    struct tail tail;
    uint64_t at;
#ifdef STEAD_PLANT_NO_TAIL
    checkpoint = seq = 0;
#endif
    int rc = read_end(fd, id, &tail, &at);
    const struct tail_limit *now = highest(&tail);
    if (rc != 0)
        return rc;
    if (now == NULL)
        return tail_write(fd, at, id, checkpoint, seq);
    if (now->checkpoint >= checkpoint && now->seq >= seq)
        return 0;
    unsigned other = now == &tail.limit[0];
    struct tail_limit next = {.checkpoint = max_u64(checkpoint, now->checkpoint), .seq = max_u64(seq, now->seq)};
    next.checksum = checksum(&tail, &next);
    return file_write_at(fd, &next, sizeof next, at + offsetof(struct tail, limit) + other * sizeof next);
}

int tail_find(int fd, uint64_t at, const uint8_t id[16], bool *found)
{
    struct tail old;
    int rc = file_read_at(fd, &old, sizeof old, at);
    *found = rc == 0 && is_mark(&old, id) && highest(&old) != NULL;
    return rc;
}

int tail_forget(int fd, uint64_t at, const uint8_t id[16])
{
    bool found;
    int rc = tail_find(fd, at, id, &found);
    return rc == 0 && found ? file_write_at(fd, &no_tail, sizeof no_tail, at) : rc;
}

/* It stands at `at`, and names a place before that where it may still stand, too. */
static bool tells_of_former(const struct tail *tail, uint64_t at)
{
    return tail->moved_from != 0 && tail->moved_from < at && tail->moved_from % UNIT_BYTES == 0;
}

/* The mark is durable: its old place is cleared, and told of no more. */
static int settle(int fd, const uint8_t id[16])
{
    struct tail tail;
    uint64_t at;
    int rc = read_end(fd, id, &tail, &at);
    if (rc != 0 || !tells_of_former(&tail, at))
        return rc;
    /* After a power cut the word may be an old one, and the place in use: only a mark is cleared. */
    rc = tail_forget(fd, tail.moved_from, id);
    return rc == 0 ? file_write_at(fd, &no_tail.moved_from, sizeof no_tail.moved_from,
                                   at + offsetof(struct tail, moved_from))
                   : rc;
}

/* The blocks and the new mark.  `first`: the place that is to be cleared once the mark is durable. */
static int put_mark(int fd, uint64_t from, uint64_t to, uint64_t first, const uint8_t id[16], const struct tail *now,
                    bool durable, int *reserved)
{
    uint64_t old_bytes;
    struct tail next;
    const struct tail_limit *limit = highest(now);
    int rc = file_size(fd, &old_bytes);
    if (rc != 0)
        return rc;
    *reserved = file_reserve_beyond(fd, from, to + TAIL_BYTES - from);
    if (*reserved != 0 && *reserved != EOPNOTSUPP)
        return *reserved;
    fill(&next, id, limit != NULL ? limit->checkpoint : 0, limit != NULL ? limit->seq : 0);
    next.moved_from = first;
    rc = durable ? file_write_durable(fd, &next, sizeof next, to) : file_write_at(fd, &next, sizeof next, to);
    return rc == 0 || file_truncate(fd, old_bytes) == 0 ? rc : STEAD_FAILED;
}

/* No way to reserve but to write; below the old mark others may have written by now. */
static int reserve_by_writing(int fd, uint64_t from, uint64_t to, uint64_t at)
{
    from = max_u64(from, at);
    return file_reserve_fresh(fd, from, to - from);
}

int tail_move(int fd, uint64_t from, uint64_t to, const uint8_t id[16])
{
    struct tail tail;
    uint64_t at;
    int reserved, rc = settle(fd, id);
    if (rc == 0)
        rc = read_end(fd, id, &tail, &at);
    if (rc != 0)
        return rc;
    /* Somebody else was faster; or a mark was half-written and not cut off, and the one before is in the image. */
    if (at >= to)
        return highest(&tail) != NULL ? 0 : EIO;
    rc = put_mark(fd, from, to, at, id, &tail, true, &reserved);
    if (rc != 0)
        return rc;
    if (settle(fd, id) != 0)
        return STEAD_FAILED;
    return reserved == 0 ? 0 : reserve_by_writing(fd, from, to, at);
}

int tail_move_later(int fd, uint64_t from, uint64_t to, const uint8_t id[16])
{
    struct tail tail;
    uint64_t at;
    int reserved, rc = read_end(fd, id, &tail, &at);
    if (rc != 0)
        return rc;
    if (at >= to)
        return highest(&tail) != NULL ? 0 : EIO;
    bool waits = tells_of_former(&tail, at);
    rc = put_mark(fd, from, to, waits ? tail.moved_from : at, id, &tail, false, &reserved);
    if (rc == 0 && waits && tail_forget(fd, at, id) != 0)
        rc = STEAD_FAILED;
    if (rc != 0 || reserved == 0)
        return rc;
    rc = tail_confirm(fd, id);
    return rc != 0 ? STEAD_FAILED : reserve_by_writing(fd, from, to, at);
}

int tail_confirm(int fd, const uint8_t id[16])
{
    struct tail tail;
    uint64_t at;
    int rc = read_end(fd, id, &tail, &at);
    if (rc != 0 || !tells_of_former(&tail, at))
        return rc;
    rc = file_write_durable(fd, &tail, sizeof tail, at);
    if (rc != 0)
        return rc == ENOSPC || rc == EDQUOT || rc == EINTR ? rc : STEAD_FAILED;
    return settle(fd, id);
}

int tail_erase(int fd, uint64_t at)
{
    return file_write_durable(fd, &no_tail, sizeof no_tail, at);
}

int tail_clear(int fd)
{
    uint64_t bytes;
    int rc = file_size(fd, &bytes);
    return rc != 0 || bytes % UNIT_BYTES != TAIL_BYTES
               ? rc
               : file_write_at(fd, &no_tail, sizeof no_tail, tail_offset(bytes));
}

int tail_check(int fd, const uint8_t id[16], uint64_t checkpoint, uint64_t seq)
{
    struct tail tail;
    uint64_t bytes;
    char name[FILE_PATH_BYTES];
    int rc = file_size(fd, &bytes);
    if (rc == 0 && bytes % UNIT_BYTES != TAIL_BYTES)
        return error_set(STEAD_CORRUPT,
                         "%.300s is %llu bytes long and does not end with a store's mark: it was cut off",
                         file_name(fd, name), (unsigned long long)bytes);
    if (rc == 0)
        rc = file_read_at(fd, &tail, sizeof tail, tail_offset(bytes));
    if (rc != 0)
        return error_set(rc, "cannot read the end of %.300s: %s", file_name(fd, name), error_text(rc));
    if (memcmp(&tail, &no_tail, sizeof tail) == 0)
        return 0;
    const struct tail_limit *limit = is_mark(&tail, id) ? highest(&tail) : NULL;
    if (limit == NULL)
        return error_set(STEAD_CORRUPT, "the mark at the end of %.300s is damaged", file_name(fd, name));
    if (limit->seq > seq || limit->checkpoint > checkpoint)
        return error_set(STEAD_CORRUPT,
                         "%.300s holds pages of commit %llu (checkpoint %llu), but header and log tell of %llu "
                         "(checkpoint %llu): it was copied while the store was in use, or its log lost commits",
                         file_name(fd, name), (unsigned long long)limit->seq, (unsigned long long)limit->checkpoint,
                         (unsigned long long)seq, (unsigned long long)checkpoint);
    return 0;
}
