/* status.c -- stead_stat, and the facts that travel between superblock and lock unit. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "store/call.h"

void store_note_change(struct stead *s)
{
    if (!s->has_slot)
        return;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    atomic_store_explicit(&s->unit->last_change_s, (int64_t)now.tv_sec, memory_order_relaxed);
    atomic_store_explicit(&s->unit->last_change_pid, s->own_pid, memory_order_relaxed);
}

void store_fill_super(const struct stead *s, struct superblock *super)
{
    const struct lock_unit *unit = s->unit;
    super->sharing = (uint32_t)s->sharing;
    super->last_attach_s = atomic_load(&unit->last_attach_s);
    super->last_detach_s = atomic_load(&unit->last_detach_s);
    super->last_change_s = atomic_load(&unit->last_change_s);
    super->last_change_pid = atomic_load(&unit->last_change_pid);
    super->accepted_unclean = atomic_load(&unit->accepted_unclean);
    super->root = 0; /* only a sealed superblock has it: here it would go stale */
}

/* The superblock's times, of a sealed store, from a visit that left it as it was. */
void store_heed_visit(const struct lock_unit *unit, struct superblock *super)
{
    int64_t attach_s, detach_s;
    if (super->state != SUPER_SEALED || !lock_unit_visited(unit, super->id, super->sequence, &attach_s, &detach_s))
        return;
    super->last_attach_s = attach_s;
    super->last_detach_s = detach_s;
}

static void format_id(char text[37], const uint8_t id[16])
{
    int n = 0;
    for (int i = 0; i < 16; i++)
        n += snprintf(text + n, 37 - (size_t)n, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", id[i]);
}

static void fill_times(const struct stead *s, stead_status *status)
{
    struct superblock seen = s->super;
    const struct superblock *super = &seen;
    const struct lock_unit *unit = s->has_slot ? s->unit : NULL;
    if (unit == NULL && s->unit != NULL)
        store_heed_visit(s->unit, &seen);
    status->creator_pid = (pid_t)super->creator_pid;
    status->created = (time_t)super->created_s;
    status->last_attach = (time_t)(unit != NULL ? atomic_load(&unit->last_attach_s) : super->last_attach_s);
    status->last_detach = (time_t)(unit != NULL ? atomic_load(&unit->last_detach_s) : super->last_detach_s);
    status->last_change = (time_t)(unit != NULL ? atomic_load(&unit->last_change_s) : super->last_change_s);
    status->last_change_pid = (pid_t)(unit != NULL ? atomic_load(&unit->last_change_pid) : super->last_change_pid);
    status->accepted_unclean = (unit != NULL ? atomic_load(&unit->accepted_unclean) : super->accepted_unclean) != 0;
}

int stead_stat(stead *store, stead_status *status)
{
    STORE_CALL(store);
    int rc = store_enter_with(store, status != NULL, "status");
    if (rc != 0)
        return rc;
    struct stat st;
    struct image_stat image;
    struct heap_stats heap;
    uint64_t internal_blocks, internal_bytes;
    memset(status, 0, sizeof *status);
    if (fstat(store->file.fd, &st) != 0)
        return error_set(errno, "%s: fstat failed", store->file.path);
    rc = store_lock_to_look(store, DEADLINE_NEVER);
    if (rc != 0)
        return rc;
    image_stat(store->image, &image);
    heap_stat(store->heap, &heap);
    names_count(store, &internal_blocks, &internal_bytes);
    status->base = store->base;
    status->file_bytes = (uint64_t)st.st_size;
    status->capacity_bytes = store->capacity;
    status->used_bytes = heap.used_bytes;
    status->live_blocks = heap.live_blocks - min_u64(internal_blocks, heap.live_blocks);
    status->live_bytes = heap.live_bytes - min_u64(internal_bytes, heap.live_bytes);
    status->commit_seq = store_commit_seq(store);
    status->bad_frees = heap.bad_frees;
    status->private_bytes = image.private_bytes;
    status->log_bytes = image.log_bytes;
    held_off_fill(store, status);
    status->attached = presence_count(store->presence);
    status->owner = st.st_uid;
    status->group = st.st_gid;
    status->mode = st.st_mode & 07777;
    status->sharing = store->sharing;
    status->recovered = store->recovered;
    fill_times(store, status);
    format_id(status->id, store->super.id);
    store_unlock_quietly(store); /* a reader's super and sharing stand still in its section only */
    return 0;
}
