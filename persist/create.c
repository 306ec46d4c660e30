/*
 * create.c -- a new store file, whole before it has a name.
 *
 * The file is written and synced without a name and then linked (file_name.c shows the steps and what a crash leaves).
 * Its content is that of a store that was used and closed: both superblocks sealed with the same sequence, the first
 * unit of the image, its checksums, nothing else.  So no opener ever has to know the state "being created", two
 * creators that race make two files of which one gets the name, and the loser opens the winner's.
 *
 * Permissions are those of open(2): the caller's bits without the umask's.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "persist/address.h"
#include "persist/image.h"
#include "persist/map.h"
#include "persist/scrub.h"
#include "persist/superblock.h"
#include "persist/tail.h"

#define PERMISSIONS_DEFAULT 0600u
#define PERMISSIONS_MASK 0777u

/* RFC 4122, version 4 */
static int make_id(uint8_t id[16])
{
    if (getrandom(id, 16, 0) != 16)
        return errno;
    id[6] = (uint8_t)((id[6] & 0x0f) | 0x40);
    id[8] = (uint8_t)((id[8] & 0x3f) | 0x80);
    return 0;
}

static bool is_zero_id(const uint8_t id[16])
{
    static const uint8_t none[16];
    return memcmp(id, none, sizeof none) == 0;
}

/* What the caller left open: identity, place, times. */
static int complete(const struct file *file, struct superblock *super)
{
    int rc;
    struct superblock filled = *super;
    superblock_init(super);
    memcpy(super->id, filled.id, sizeof super->id);
    super->base = filled.base;
    super->capacity_bytes = filled.capacity_bytes != 0 ? filled.capacity_bytes : ADDRESS_DEFAULT_CAPACITY;
    super->root = filled.root;
    super->sharing = filled.sharing;
    super->creator_pid = filled.creator_pid != 0 ? filled.creator_pid : (uint32_t)getpid();
    super->created_s = filled.created_s != 0 ? filled.created_s : (int64_t)time(NULL);
    super->last_change_pid = super->creator_pid;
    super->last_change_s = super->created_s;
    super->last_attach_s = filled.last_attach_s;
    super->layout_version = filled.layout_version;
    memcpy(super->layout_name, filled.layout_name, sizeof super->layout_name - 1);
    super->used_bytes = UNIT_BYTES;
    super->checksums_valid = 1;
    if (super->capacity_bytes % UNIT_BYTES != 0 || super->capacity_bytes > FORMAT_IMAGE_BYTES_MAX ||
        super->base % UNIT_BYTES != 0)
        return error_set(EINVAL, "%.300s: capacity %" PRIu64 " and address 0x%" PRIx64 " must be multiples of 64 KiB",
                         file->path, super->capacity_bytes, super->base);
    if (is_zero_id(super->id)) {
        rc = make_id(super->id);
        if (rc != 0)
            return error_set(rc, "no random bytes for the identity of %.300s: %s", file->path, error_text(rc));
    }
    return super->base != 0 ? 0 : address_choose(super->id, NULL, super->capacity_bytes, &super->base);
}

static int write_content(const struct file *made, struct superblock *super, const void *unit)
{
    int rc;
    rc = file_reserve_fresh(made->fd, 0, format_file_bytes(UNIT_BYTES));
    if (rc == 0)
        rc = scrub_write_image(made->fd, 0, unit, UNIT_BYTES);
    if (rc == 0)
        rc = scrub_rebuild(made->fd, 0, UNIT_BYTES);
    if (rc == 0 && !made->in_memory)
        rc = tail_write(made->fd, format_file_bytes(UNIT_BYTES), super->id, super->checkpoint, super->commit_seq);
    if (rc == 0)
        rc = superblock_seal(made, super);
    if (rc == 0 && !made->in_memory)
        rc = file_sync_new(made->fd);
    if (rc == 0)
        return 0;
    return error_set(rc, "cannot write the new store %.300s: %s", made->path, error_text(rc));
}

int image_create(const struct file *file, struct superblock *super, const void *unit, unsigned permissions)
{
    int rc;
    char temporary[FILE_PATH_BYTES + 24];
    struct file made = *file;
    rc = complete(file, super);
    if (rc != 0)
        return rc;
    rc = file_open_nameless(&made.fd, file->path,
                            (permissions == 0 ? PERMISSIONS_DEFAULT : permissions) & PERMISSIONS_MASK, temporary);
    if (rc != 0)
        return rc;
    rc = write_content(&made, super, unit);
    if (rc != 0) {
        file_drop_nameless(made.fd, temporary);
        return rc;
    }
    rc = file_link_nameless(made.fd, file->path, temporary);
    (void)file_calls.close(made.fd);
    return rc;
}
