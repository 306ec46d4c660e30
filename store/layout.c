/*
 * layout.c -- the application's own layout: name and version of the structs inside the store.
 *
 * Recorded in the superblock at creation.  The record of an upgraded store must change together with the data, and the
 * superblock is not part of a commit; so a store whose layout was ever changed keeps it as an object in the image, which
 * is, under the reserved name ".stead.layout".  The superblock's copy is what the store began with.
 *
 * The record is read under the lock; for an upgrade under the exclusive lock, so that two openers cannot both upgrade.  An
 * upgrade is refused (EBUSY) while another writer is attached: it works with the old structs.
 */
#include <errno.h>
#include <string.h>

#include "store/store.h"

#define LAYOUT_NAME NAMES_RESERVED "layout"

struct layout_record {
    char name[64];
    uint32_t version;
    uint32_t reserved;
};

/* The lock is held.  0 or STEAD_CORRUPT; *in_image is NULL where only the superblock tells. */
static int read_layout(struct stead *s, struct layout_record *record, struct layout_record **in_image)
{
    int rc;
    *record = (struct layout_record){.version = s->super.layout_version};
    memcpy(record->name, s->super.layout_name, sizeof record->name);
    *in_image = names_find(s, LAYOUT_NAME, &rc);
    if (rc != 0)
        return rc;
    if (*in_image != NULL) {
        if ((uint64_t)((uint8_t *)*in_image - s->base) > image_bytes(s->image) - sizeof **in_image)
            return error_set(STEAD_CORRUPT, "%s: the layout record lies outside the image", s->file.path);
        *record = **in_image;
    }
    record->name[sizeof record->name - 1] = '\0';
    return 0;
}

static int write_layout(struct stead *s, struct layout_record *in_image, const stead_layout *layout)
{
    bool fresh = in_image == NULL;
    if (fresh)
        in_image = heap_calloc(s->heap, 1, sizeof *in_image);
    if (in_image == NULL)
        return errno;
    memcpy(in_image->name, layout->name, strlen(layout->name) + 1);
    in_image->version = layout->version;
    return fresh ? names_bind(s, LAYOUT_NAME, in_image) : 0;
}

static void keep_layout(struct stead *s, const char *name, uint32_t version)
{
    memcpy(s->layout_name, name, strlen(name) + 1);
    s->layout_version = version;
}

bool layout_matches(const struct stead *s, const stead_layout *layout)
{
    return strcmp(s->layout_name, layout->name) == 0 && s->layout_version == layout->version;
}

static int mismatch(const struct stead *s, const stead_layout *layout)
{
    if (s->layout_name[0] == '\0')
        return error_set(STEAD_LAYOUT_MISMATCH, "%s was made without a layout, asked for is \"%s\" version %u",
                         s->file.path, layout->name, layout->version);
    return error_set(STEAD_LAYOUT_MISMATCH, "%s holds layout \"%s\" version %u, asked for is \"%s\" version %u",
                     s->file.path, s->layout_name, s->layout_version, layout->name, layout->version);
}

/* The exclusive lock is held. */
static int upgrade_locked(struct stead *s, const stead_layout *layout)
{
    struct layout_record record, *in_image;
    int rc = read_layout(s, &record, &in_image);
    if (rc != 0)
        return rc;
    keep_layout(s, record.name, record.version);
    if (strcmp(record.name, layout->name) != 0)
        return mismatch(s, layout);
    if (record.version == layout->version)
        return 0; /* another opener did it meanwhile */
    rc = layout->upgrade(s, record.version, layout->version, layout->upgrade_arg);
    if (rc != 0 && error_last() != rc) /* else a call in it left its own sentence */
        (void)error_set(rc, "%s: the upgrade of layout \"%s\" from version %u to %u returned %d", s->file.path,
                        record.name, record.version, layout->version, rc);
    if (rc == 0)
        rc = write_layout(s, in_image, layout);
    if (rc == 0)
        rc = stead_commit(s, STEAD_DURABLE);
    if (rc != 0 && s->sharing != STEAD_LIVE)
        (void)store_rollback_locked(s);
    return rc;
}

static int upgrade(struct stead *s, const stead_layout *layout, int64_t deadline_ns)
{
    if (!s->first_writer)
        return error_set(EBUSY, "%s: its layout can be upgraded only while no other writer has it open", s->file.path);
    int rc = store_lock_exclusive(s, deadline_ns);
    if (rc != 0)
        return rc;
    rc = upgrade_locked(s, layout);
    store_unlock_quietly(s);
    return rc;
}

int layout_read(struct stead *s, int64_t deadline_ns)
{
    struct layout_record record, *in_image;
    int rc = store_lock_shared(s, deadline_ns);
    if (rc != 0)
        return rc;
    rc = read_layout(s, &record, &in_image);
    store_unlock_quietly(s);
    if (rc == 0)
        keep_layout(s, record.name, record.version);
    return rc;
}

int layout_settle(struct stead *s, const stead_layout *layout, int64_t deadline_ns)
{
    if (layout->name == NULL) /* nothing is asked for, and the lock may be held for long */
        return 0;
    int rc = layout_read(s, deadline_ns);
    if (rc != 0)
        return rc;
    if (layout_matches(s, layout))
        return 0;
    if (strcmp(s->layout_name, layout->name) != 0 || layout->upgrade == NULL || s->read_only)
        return mismatch(s, layout);
    rc = upgrade(s, layout, deadline_ns);
    if (rc == 0)
        keep_layout(s, layout->name, layout->version);
    return rc;
}
