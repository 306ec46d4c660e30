/*
 * layout.c -- the application's own layout: name and version of the structs inside the store.
 *
 * Recorded in the superblock at creation.  The record of an upgraded store must change together with the data, and the
 * superblock is not part of a commit; so a store whose layout was ever changed keeps it as a named object,
 * ".stead.layout", in the image, which is.  The superblock's copy is what the store began with.
 */
#include <errno.h>
#include <string.h>

#include "store/store.h"

#define LAYOUT_NAME ".stead.layout"

struct layout_record {
    char name[64];
    uint32_t version;
    uint32_t reserved;
};

static struct layout_record current_layout(const struct stead *s, struct layout_record **in_image)
{
    struct layout_record record = {.version = s->super.layout_version};
    memcpy(record.name, s->super.layout_name, sizeof record.name);
    *in_image = stead_lookup(s, LAYOUT_NAME);
    if (*in_image != NULL && (uintptr_t)*in_image - (uintptr_t)s->base <= image_bytes(s->image) - sizeof record)
        record = **in_image;
    record.name[sizeof record.name - 1] = '\0';
    error_clear();
    return record;
}

static int record_layout(struct stead *s, struct layout_record *in_image, const stead_layout *layout)
{
    bool fresh = in_image == NULL;
    if (fresh)
        in_image = heap_calloc(s->heap, 1, sizeof *in_image);
    if (in_image == NULL)
        return errno;
    memcpy(in_image->name, layout->name, strlen(layout->name) + 1);
    in_image->version = layout->version;
    return fresh ? stead_bind(s, LAYOUT_NAME, in_image) : 0;
}

static int upgrade(struct stead *s, struct layout_record *in_image, uint32_t from, const stead_layout *layout)
{
    int rc = stead_lock(s, STEAD_EXCLUSIVE, s->timeout_ms < 0 ? -1 : s->timeout_ms + 1000);
    if (rc != 0)
        return rc;
    rc = layout->upgrade(s, from, layout->version, layout->upgrade_arg);
    if (rc == 0)
        rc = record_layout(s, in_image, layout);
    if (rc == 0)
        rc = stead_commit(s, STEAD_DURABLE);
    if (rc != 0 && s->sharing != STEAD_LIVE)
        (void)stead_rollback(s);
    int unlock_rc = stead_unlock(s);
    return rc != 0 ? rc : unlock_rc;
}

int layout_settle(struct stead *s, const stead_layout *layout)
{
    if (layout->name == NULL)
        return 0;
    struct layout_record *in_image;
    struct layout_record record = current_layout(s, &in_image);
    bool same_name = strcmp(record.name, layout->name) == 0;
    if (same_name && record.version == layout->version)
        return 0;
    if (!same_name || layout->upgrade == NULL || s->read_only)
        return error_set(STEAD_LAYOUT_MISMATCH, "%s holds layout \"%s\" version %u, asked for is \"%s\" version %u",
                         s->file.path, record.name, record.version, layout->name, layout->version);
    return upgrade(s, in_image, record.version, layout);
}
