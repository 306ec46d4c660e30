/*
 * superblock.c -- two copies of the facts that everything else in a file hangs on.
 *
 * The copy with sequence n stands in unit n % 2, so that writing n + 1 never touches it: a write torn by a crash, or
 * one that never reached the disk, leaves the other copy.  States change like this (X, Y: the units):
 *
 *   event                           writes, a sync after each       a crash or a torn write in between leaves
 *   open a sealed store n to write  X := n+1 open, Y := n+1 open    n sealed, and nothing was committed yet: true
 *                                                                   (or n+1 open with its empty log: true as well)
 *   checkpoint, LIVE commit         X := n+1                        n, and n's log is still there (txn.h)
 *   close                           X := n+1 sealed, Y := n+1       n open, and its log is still there: recovery finds
 *                                                                   every commit already in the file
 *
 * Why the open writes both: a sealed copy n that survives alone must be the truth.  If only X said "open", damage to X
 * after a thousand commits would bring back "n, sealed" and the log would be ignored.  Because no commit is made
 * before both copies say "open", a sealed copy beside an unreadable one is either a torn open or a damaged twin of the
 * same sequence; both times it is right.  An open copy is believed only together with the log it names.
 *
 * What the disk has.  A process killed between a write and its sync leaves a superblock in the page cache alone, and so may
 * a write error that the kernel reported to somebody who is gone.  Whoever opens reads it there, and must not take away what
 * the one on the disk needs - a log, or the older copy - before it is durable.  So an opening that finds that the last
 * session did not end (superblock_settle(), by image.c) writes it to its place once more, durably.  The bytes are the same:
 * torn, they lose against the twin, as they did before.
 *
 *   S13 the superblock by which a writer opens is durable before a log loses its name or another superblock is written
 *       (test_half_way.c)
 *
 * Invariants (superblock_check; broken one by one in tests/unit/persist/test_superblock.c)
 *   S1  magic, version, byte order, pointer and page size are this build's; the checksum matches
 *   S2  reserved bytes and the rest of the unit are zero; layout_name is terminated; state, sharing, marks and
 *       counters are possible
 *   S3  base and capacity are whole units and with their guards inside the address space
 *   S4  UNIT_BYTES <= used_bytes <= capacity, whole units; root < used_bytes; the file is long enough for used_bytes
 *   S5  two valid copies belong to one store (id); with equal sequences they are equal byte by byte
 *   S6  two valid copies are at most one sequence apart: no write was ever skipped
 *
 * S3 and S4 are tested before any field is used; whoever holds a superblock from superblock_read() can rely on them.
 */
#include "persist/superblock.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "base/error.h"
#include "persist/map.h"

#define CHECKED_BYTES offsetof(struct superblock, checksum)
#define ADDRESS_END (UINT64_C(1) << 56) /* above every user address of Linux: 57-bit x86-64, 52-bit arm64 */
#define SHARING_MAX 2                   /* stead_sharing */
#define REREADS 2                       /* beside a writer a copy may be met half-way through its one write */

enum copy_state { COPY_VALID, COPY_FOREIGN /* no magic */, COPY_VERSION, COPY_DAMAGED };

struct copy {
    struct superblock super;
    enum copy_state state;
    const char *invariant, *flaw; /* of a copy that is not valid */
};

static uint64_t copy_offset(unsigned which)
{
    return which == 0 ? SUPERBLOCK_A_OFFSET : SUPERBLOCK_B_OFFSET;
}

static void set_checksum(struct superblock *super)
{
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits(super, CHECKED_BYTES));
    static_assert(sizeof canonical.digest == sizeof super->checksum, "XXH3-128");
    memcpy(super->checksum, canonical.digest, sizeof canonical.digest);
}

static bool checksum_matches(const struct superblock *super)
{
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits(super, CHECKED_BYTES));
    return memcmp(super->checksum, canonical.digest, sizeof canonical.digest) == 0;
}

static bool all_zero(const uint8_t *bytes, size_t count)
{
    return count == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, count - 1) == 0);
}

void superblock_init(struct superblock *super)
{
    *super = (struct superblock){.magic = FORMAT_MAGIC,
                                 .version = FORMAT_VERSION,
                                 .byte_order = FORMAT_BYTE_ORDER,
                                 .pointer_bytes = sizeof(void *),
                                 .page_bytes = PAGE_BYTES,
                                 .state = SUPER_SEALED};
}

/* ---- judging one copy ---- */

/* S3, S4 without the file's length; NULL, or what is wrong. */
static const char *find_range_flaw(const struct superblock *s)
{
    if (s->base % UNIT_BYTES != 0 || s->base < 2 * UNIT_BYTES || s->base >= ADDRESS_END)
        return "the base address is not a whole unit of a user address space";
    if (s->capacity_bytes % UNIT_BYTES != 0 || s->capacity_bytes == 0 || s->capacity_bytes > FORMAT_IMAGE_BYTES_MAX ||
        s->capacity_bytes > ADDRESS_END - UNIT_BYTES - s->base)
        return "the capacity is not whole units or leaves the address space";
    if (s->used_bytes % UNIT_BYTES != 0 || s->used_bytes == 0 || s->used_bytes > s->capacity_bytes)
        return "the used length is not whole units within the capacity";
    if (s->root >= s->used_bytes)
        return "the root lies outside of the used length";
    return NULL;
}

/* S2 */
static const char *find_field_flaw(const struct superblock *s)
{
    if (s->reserved0 != 0 || !all_zero(s->reserved, sizeof s->reserved))
        return "reserved bytes are not zero";
    if (memchr(s->layout_name, '\0', sizeof s->layout_name) == NULL)
        return "the layout's name is not terminated";
    if (s->state < SUPER_SEALED || s->state > SUPER_OPEN_LIVE || s->sharing > SHARING_MAX)
        return "the state or the sharing is none that exists";
    if (s->sequence > INT64_MAX || s->commit_seq > INT64_MAX || s->checkpoint > INT64_MAX)
        return "a counter is absurdly high"; /* and would wrap one day */
    if (s->accepted_unclean > 1 || s->checksums_valid > 1)
        return "a mark is neither 0 nor 1";
    return NULL;
}

static void judge(struct copy *copy)
{
    static const uint8_t magic[sizeof copy->super.magic] = FORMAT_MAGIC;
    const struct superblock *s = &copy->super;
    copy->invariant = "S1";
    if (memcmp(s->magic, magic, sizeof magic) != 0) {
        copy->state = COPY_FOREIGN;
        copy->flaw = "the magic bytes are not there";
    } else if (s->byte_order != FORMAT_BYTE_ORDER && s->byte_order != __builtin_bswap32(FORMAT_BYTE_ORDER)) {
        copy->state = COPY_DAMAGED;
        copy->flaw = "the byte order mark is damaged";
    } else if (s->byte_order != FORMAT_BYTE_ORDER || s->version != FORMAT_VERSION) {
        copy->state = COPY_VERSION;
        copy->flaw = s->byte_order != FORMAT_BYTE_ORDER ? "it has the other byte order" : "it has another version";
    } else if (!checksum_matches(s)) {
        copy->state = COPY_DAMAGED;
        copy->flaw = "the checksum does not match";
    } else if (s->pointer_bytes != sizeof(void *) || s->page_bytes != PAGE_BYTES) {
        copy->state = COPY_VERSION;
        copy->flaw = "it has another pointer or page size";
    } else {
        copy->state = COPY_VALID;
        copy->invariant = "S2";
        copy->flaw = find_field_flaw(s);
        if (copy->flaw == NULL) {
            copy->invariant = "S3";
            copy->flaw = find_range_flaw(s);
        }
        if (copy->flaw != NULL)
            copy->state = COPY_DAMAGED;
    }
}

/* A file that ends before or inside a copy is read as zeros there: foreign or damaged, never an error of its own. */
static int read_copy(const struct file *file, unsigned which, uint64_t file_bytes, struct copy *copy)
{
    int rc = 0;
    uint64_t at = copy_offset(which);
    *copy = (struct copy){.state = COPY_FOREIGN};
    if (file_bytes > at)
        rc = file_read_at(file->fd, &copy->super, (size_t)min_u64(sizeof copy->super, file_bytes - at), at);
    judge(copy);
    if (rc == EIO) { /* a bad sector: the other copy may serve */
        copy->state = COPY_DAMAGED;
        copy->flaw = "it cannot be read (input/output error)";
        rc = 0;
    }
    return rc;
}

/* *file_bytes: the longest that the file was about then.  Beside writers it grows, and a superblock that was read after the
 * first look at the length may speak of the new one. */
static int read_copies(const struct file *file, struct copy copies[2], uint64_t *file_bytes)
{
    uint64_t before, after = 0;
    int rc = file_size(file->fd, &before);
    for (unsigned i = 0; i < 2 && rc == 0; i++)
        rc = read_copy(file, i, before, &copies[i]);
    if (rc == 0)
        rc = file_size(file->fd, &after);
    *file_bytes = max_u64(before, after);
    return rc == 0 ? 0 : error_set(rc, "cannot read the superblocks of %.300s: %s", file->path, error_text(rc));
}

/* ---- choosing ---- */

static int refuse(const struct file *file, const struct copy copies[2], uint64_t file_bytes)
{
    for (unsigned i = 0; i < 2; i++)
        if (copies[i].state == COPY_VERSION)
            return error_set(STEAD_VERSION,
                             "%.300s is a stead store that this build cannot read: %s (version %" PRIu32
                             ", byte order %08" PRIx32 ", pointers of %" PRIu32 " bytes, pages of %" PRIu32 ")",
                             file->path, copies[i].flaw, copies[i].super.version, copies[i].super.byte_order,
                             copies[i].super.pointer_bytes, copies[i].super.page_bytes);
    if (copies[0].state == COPY_FOREIGN && copies[1].state == COPY_FOREIGN)
        return error_set(STEAD_NOT_A_STORE, "%.300s (%" PRIu64 " bytes) is not a stead store", file->path, file_bytes);
    return error_set(STEAD_CORRUPT, "both superblocks of %.300s are damaged: the first: %s; the second: %s", file->path,
                     copies[0].flaw, copies[1].flaw);
}

int superblock_read(const struct file *file, struct superblock *super)
{
    int rc;
    struct copy copies[2];
    uint64_t file_bytes;
    bool a = false, b = false;
    for (unsigned attempt = 0; attempt <= REREADS && !a && !b; attempt++) {
        rc = read_copies(file, copies, &file_bytes);
        if (rc != 0)
            return rc;
        a = copies[0].state == COPY_VALID;
        b = copies[1].state == COPY_VALID;
    }
    if (!a && !b)
        return refuse(file, copies, file_bytes);
    const struct superblock *first = &copies[0].super, *second = &copies[1].super;
    if (a && b && memcmp(first->id, second->id, sizeof first->id) != 0)
        return error_set(STEAD_CORRUPT, "the two superblocks of %.300s belong to different stores", file->path);
    if (a && b && first->sequence == second->sequence && memcmp(first, second, sizeof *first) != 0)
        return error_set(STEAD_CORRUPT, "the two superblocks of %.300s have the sequence %" PRIu64 " and differ",
                         file->path, first->sequence);
    const struct superblock *chosen = !b || (a && first->sequence >= second->sequence) ? first : second;
    if (format_file_bytes(chosen->used_bytes) > file_bytes)
        return error_set(STEAD_CORRUPT, "%.300s is %" PRIu64 " bytes long, but %" PRIu64 " are in use: it was cut off",
                         file->path, file_bytes, format_file_bytes(chosen->used_bytes));
    *super = *chosen;
    return 0;
}

/* ---- writing ---- */

static int write_copy(const struct file *file, const struct superblock *super, unsigned which, bool sync)
{
    int rc;
    if (sync && !file->in_memory)
        rc = file_write_durable(file->fd, super, sizeof *super, copy_offset(which));
    else
        rc = file_write_at(file->fd, super, sizeof *super, copy_offset(which));
    return rc == 0 ? 0 : error_set(rc, "cannot write the superblock of %.300s: %s", file->path, error_text(rc));
}

int superblock_write(const struct file *file, struct superblock *super, bool sync)
{
    struct superblock next = *super;
    next.sequence++;
    set_checksum(&next);
    int rc = write_copy(file, &next, (unsigned)(next.sequence % 2), sync);
    if (rc == 0)
        *super = next;
    return rc;
}

int superblock_write_both(const struct file *file, struct superblock *super)
{
    struct superblock next = *super;
    int rc = superblock_write(file, &next, true);
    if (rc != 0)
        return rc;
    *super = next; /* the file says so now, whatever happens to the second copy */
    return write_copy(file, super, (unsigned)(super->sequence % 2) ^ 1, true);
}

bool superblock_has_twin(const struct file *file, const struct superblock *super)
{
    struct copy copies[2];
    uint64_t file_bytes;
    return read_copies(file, copies, &file_bytes) == 0 && copies[0].state == COPY_VALID &&
           copies[1].state == COPY_VALID && copies[0].super.sequence == super->sequence &&
           memcmp(&copies[0].super, &copies[1].super, sizeof copies[0].super) == 0;
}

bool superblock_refused(const struct file *file, const struct superblock *before, int rc)
{
    struct superblock now;
    return (rc == ENOSPC || rc == EDQUOT) && superblock_read(file, &now) == 0 && now.sequence == before->sequence;
}

int superblock_settle(const struct file *file)
{
    struct superblock now;
    int rc = superblock_read(file, &now);
    return rc == 0 ? write_copy(file, &now, (unsigned)(now.sequence % 2), true) : rc;
}

int superblock_seal(const struct file *file, struct superblock *super)
{
    struct superblock sealed = *super;
    sealed.state = SUPER_SEALED;
    sealed.log_salt = 0;
    int rc = superblock_write_both(file, &sealed);
    if (sealed.sequence != super->sequence)
        *super = sealed;
    return rc;
}

/* ---- checking ---- */

static void check_unit_rest(const struct file *file, unsigned which, struct report *report)
{
    uint8_t part[PAGE_BYTES];
    uint64_t at = copy_offset(which) + sizeof(struct superblock), end = copy_offset(which) + UNIT_BYTES;
    while (at < end) {
        size_t bytes = (size_t)min_u64(sizeof part, end - at);
        int rc = file_read_at(file->fd, part, bytes, at);
        if (rc != 0) {
            report_problem(report, "S2", at, "the superblock's unit cannot be read: %s", error_text(rc));
            return;
        }
        if (!all_zero(part, bytes)) {
            report_problem(report, "S2", at, "the rest of the superblock's unit is not zero");
            return;
        }
        at += bytes;
    }
}

static void check_once(const struct file *file, struct report *report)
{
    struct copy copies[2];
    uint64_t file_bytes = 0;
    int rc = read_copies(file, copies, &file_bytes);
    if (rc != 0) {
        report_problem(report, "S1", 0, "the superblocks cannot be read: %s", error_text(rc));
        return;
    }
    for (unsigned i = 0; i < 2; i++) {
        report->pages++;
        if (copies[i].state != COPY_VALID)
            report_problem(report, copies[i].invariant, copy_offset(i), "superblock %c: %s", 'A' + (int)i,
                           copies[i].flaw);
        else if (format_file_bytes(copies[i].super.used_bytes) > file_bytes)
            report_problem(report, "S4", copy_offset(i), "superblock %c: %" PRIu64 " bytes in use, file has %" PRIu64,
                           'A' + (int)i, format_file_bytes(copies[i].super.used_bytes), file_bytes);
        check_unit_rest(file, i, report);
    }
    if (copies[0].state != COPY_VALID || copies[1].state != COPY_VALID)
        return;
    const struct superblock *a = &copies[0].super, *b = &copies[1].super;
    if (memcmp(a->id, b->id, sizeof a->id) != 0)
        report_problem(report, "S5", SUPERBLOCK_B_OFFSET, "the superblocks belong to different stores");
    else if (a->sequence == b->sequence && memcmp(a, b, sizeof *a) != 0)
        report_problem(report, "S5", SUPERBLOCK_B_OFFSET, "the superblocks have one sequence and differ");
    else if (max_u64(a->sequence, b->sequence) - min_u64(a->sequence, b->sequence) > 1)
        report_problem(report, "S6", copy_offset(a->sequence > b->sequence ? 1 : 0),
                       "the superblocks are %" PRIu64 " and %" PRIu64 ", not neighbours", a->sequence, b->sequence);
}

/* Who looks may hold no lock that keeps openers and checkpoints away, nor be running between two reads: what a moment later
 * reads otherwise is not damaged (report.h). */
void superblock_check(const struct file *file, struct report *report)
{
    struct report found = {0};
    struct report_looks looks = {0};
    for (unsigned attempt = 0; attempt <= REREADS; attempt++) {
        report_look(&found, &looks);
        check_once(file, &found);
        if (found.problems == 0)
            break;
    }
    report_add(report, &found);
}
