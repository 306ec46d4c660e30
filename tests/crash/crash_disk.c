/*
 * crash_disk.c -- the durable half of the model: files, names, what is pending, and what a sync settles.  Rules D1..D4 in
 * crash_disk.h; the states that are possible between two syncs are built in crash_state.c.
 *
 * A pending change is a "part".  A sync of a range may settle only a piece of a write: the part is then cut at the range's
 * page borders.  Settled changes are applied to the durable pages in the order of the trace, so that D2's "never a later
 * part without the earlier one" holds by construction.
 */
#include "tests/crash/crash_disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_BYTES_MAX (UINT64_C(1) << 36) /* a trace that asks for more makes no sense */

static bool grow_pages(struct disk_file *file, uint64_t bytes)
{
    size_t need = (size_t)((bytes + DISK_PAGE - 1) / DISK_PAGE);
    if (bytes > FILE_BYTES_MAX)
        return false;
    if (need <= file->pages)
        return true;
    size_t room = need < 2 * file->pages ? 2 * file->pages : need;
    uint8_t **page = realloc(file->page, room * sizeof *page);
    if (page == NULL)
        return false;
    memset(page + file->pages, 0, (room - file->pages) * sizeof *page);
    file->page = page;
    file->pages = room;
    return true;
}

/* data NULL: zeros */
static bool put(struct disk_file *file, uint64_t offset, uint64_t bytes, const uint8_t *data)
{
    if (offset + bytes < offset || !grow_pages(file, offset + bytes))
        return false;
    while (bytes > 0) {
        size_t p = (size_t)(offset / DISK_PAGE), in = (size_t)(offset % DISK_PAGE);
        size_t n = bytes < DISK_PAGE - in ? (size_t)bytes : DISK_PAGE - in;
        if (file->page[p] == NULL && data != NULL)
            file->page[p] = calloc(1, DISK_PAGE);
        if (file->page[p] == NULL && data != NULL)
            return false;
        if (data != NULL)
            memcpy(file->page[p] + in, data, n);
        else if (file->page[p] != NULL)
            memset(file->page[p] + in, 0, n);
        data = data == NULL ? NULL : data + n;
        offset += n;
        bytes -= n;
    }
    return true;
}

static bool set_size(struct disk_file *file, uint64_t size)
{
    if (size < file->size) {
        uint64_t room = (uint64_t)file->pages * DISK_PAGE;
        if (size < room && !put(file, size, room - size, NULL))
            return false;
    }
    file->size = size;
    return true;
}

/* ---- names ---- */

static unsigned name_index(struct disk *disk, const char *name)
{
    for (unsigned i = 0; i < disk->names; i++)
        if (strcmp(disk->name[i], name) == 0)
            return i;
    if (disk->names == DISK_NAMES_MAX || strlen(name) >= CRASH_NAME_BYTES)
        return DISK_NO_NODE;
    strcpy(disk->name[disk->names], name);
    disk->entry[disk->names] = DISK_NO_NODE;
    disk->group[disk->names] = disk->names;
    return disk->names++;
}

/* The node a name has now, pending changes included. */
static unsigned name_node(const struct disk *disk, unsigned name)
{
    unsigned node = disk->entry[name];
    for (size_t i = 0; i < disk->parts; i++)
        if (disk->part[i].kind == PART_NAME && disk->part[i].name == name)
            node = disk->part[i].node;
    return node;
}

static bool add_part(struct disk *disk, struct disk_part part)
{
    if (disk->parts == disk->part_room) {
        size_t room = disk->part_room == 0 ? 64 : disk->part_room * 2;
        struct disk_part *parts = realloc(disk->part, room * sizeof *parts);
        if (parts == NULL)
            return false;
        disk->part = parts;
        disk->part_room = room;
    }
    disk->part[disk->parts++] = part;
    return true;
}

static bool add_name(struct disk *disk, const char *text, unsigned node, uint64_t order)
{
    unsigned name = name_index(disk, text);
    return name != DISK_NO_NODE &&
           add_part(disk, (struct disk_part){.kind = PART_NAME, .node = node, .name = name, .order = order});
}

static bool add_rename(struct disk *disk, const uint8_t *payload, uint64_t bytes, bool exchange, uint64_t order)
{
    const char *from = (const char *)payload;
    size_t first = strnlen(from, bytes) + 1;
    if (first >= bytes)
        return false;
    const char *to = from + first;
    unsigned f = name_index(disk, from), t = name_index(disk, to);
    if (f == DISK_NO_NODE || t == DISK_NO_NODE)
        return false;
    unsigned node = name_node(disk, f), old = disk->group[f];
    unsigned left = exchange ? name_node(disk, t) : DISK_NO_NODE;
    for (unsigned i = 0; i < disk->names; i++)
        if (disk->group[i] == old)
            disk->group[i] = disk->group[t];
    return add_name(disk, from, left, order) && add_name(disk, to, node, order);
}

/* ---- syncs ---- */

static bool settle_part(struct disk *disk, const struct disk_part *part)
{
    struct disk_file *file = part->node == DISK_NO_NODE ? NULL : &disk->file[part->node]; /* none: of names only */
    switch (part->kind) {
    case PART_WRITE:
        return put(file, part->offset, part->bytes, part->data);
    case PART_ZERO:
        return put(file, part->offset, part->bytes, NULL);
    case PART_SIZE:
        return set_size(file, part->offset);
    case PART_NAME:
        disk->entry[part->name] = part->node;
        return true;
    }
    return false;
}

static struct disk_part cut(struct disk_part part, uint64_t from, uint64_t to)
{
    if (part.data != NULL)
        part.data += from - part.offset;
    part.offset = from;
    part.bytes = to - from;
    return part;
}

/* Settles the piece of every data part of the node inside [from, to), and its sizes; keeps the rest, in order.  A shrink that
 * settles erases what was written before it beyond it. */
static bool settle_range(struct disk *disk, unsigned node, uint64_t from, uint64_t to)
{
    struct disk_part *old = disk->part;
    size_t count = disk->parts;
    bool ok = true;
    disk->part = NULL;
    disk->parts = disk->part_room = 0;
    for (size_t i = 0; ok && i < count; i++) {
        struct disk_part part = old[i];
        if (part.kind == PART_NAME || part.node != node) {
            ok = add_part(disk, part);
            continue;
        }
        if (part.kind == PART_SIZE) {
            ok = settle_part(disk, &part);
            for (size_t k = 0; ok && k < disk->parts; k++) {
                struct disk_part *kept = &disk->part[k];
                if (kept->kind != PART_NAME && kept->node == node && kept->offset + kept->bytes > part.offset)
                    kept->bytes = kept->offset < part.offset ? part.offset - kept->offset : 0;
            }
            continue;
        }
        uint64_t end = part.offset + part.bytes;
        uint64_t low = part.offset > from ? part.offset : from, high = end < to ? end : to;
        if (low >= high) {
            ok = add_part(disk, part);
            continue;
        }
        struct disk_part middle = cut(part, low, high);
        ok = settle_part(disk, &middle);
        if (ok && part.offset < low)
            ok = add_part(disk, cut(part, part.offset, low));
        if (ok && high < end)
            ok = add_part(disk, cut(part, high, end));
    }
    free(old);
    return ok;
}

static bool settle_names(struct disk *disk)
{
    size_t kept = 0;
    for (size_t i = 0; i < disk->parts; i++) {
        if (disk->part[i].kind == PART_NAME)
            settle_part(disk, &disk->part[i]);
        else
            disk->part[kept++] = disk->part[i];
    }
    disk->parts = kept;
    for (unsigned i = 0; i < disk->names; i++)
        disk->group[i] = i;
    return true;
}

bool disk_apply(struct disk *disk, const struct trace_event *event, const uint8_t *payload, uint64_t order)
{
    struct disk_part part = {.node = event->node, .order = order, .offset = event->offset, .bytes = event->length};
    if (event->node >= CRASH_NODES_MAX || (event->payload > 0 && payload == NULL))
        return false;
    switch ((enum trace_kind)event->kind) {
    case TRACE_NODE:
        if (event->node >= disk->nodes)
            disk->nodes = event->node + 1;
        return true;
    case TRACE_WRITE:
        part.kind = PART_WRITE;
        part.data = payload;
        return event->payload == event->length && add_part(disk, part);
    case TRACE_ZERO:
        part.kind = PART_ZERO;
        return add_part(disk, part);
    case TRACE_SIZE:
        part.kind = PART_SIZE;
        part.bytes = 0;
        return event->offset <= FILE_BYTES_MAX && add_part(disk, part);
    case TRACE_SYNC:
        return settle_range(disk, event->node, 0, UINT64_MAX);
    case TRACE_SYNC_RANGE:
        return settle_range(disk, event->node, event->offset / DISK_PAGE * DISK_PAGE,
                            (event->offset + event->length + DISK_PAGE - 1) / DISK_PAGE * DISK_PAGE);
    case TRACE_LINK:
        return add_name(disk, (const char *)payload, event->node, order);
    case TRACE_UNLINK:
        return add_name(disk, (const char *)payload, DISK_NO_NODE, order);
    case TRACE_RENAME:
    case TRACE_EXCHANGE:
        return add_rename(disk, payload, event->payload, event->kind == TRACE_EXCHANGE, order);
    case TRACE_SYNC_DIRECTORY:
        return settle_names(disk);
    case TRACE_BEGIN:
    case TRACE_DONE:
        return true;
    }
    return false;
}

/* ---- loading what is there ---- */

static int load_file(struct disk_file *file, int directory, const char *name, ino_t *inode)
{
    static const uint8_t zeros[DISK_PAGE];
    uint8_t page[DISK_PAGE];
    struct stat st;
    int fd = openat(directory, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return errno;
    int rc = fstat(fd, &st) == 0 ? 0 : errno;
    *inode = st.st_ino;
    off_t at = rc == 0 ? lseek(fd, 0, SEEK_DATA) : -1; /* sparse logs: only what holds data */
    while (rc == 0 && at >= 0 && at < st.st_size) {
        at = at / DISK_PAGE * DISK_PAGE;
        ssize_t n = pread(fd, page, sizeof page, at);
        if (n < 0)
            rc = errno;
        else if (n > 0 && memcmp(page, zeros, (size_t)n) != 0 && !put(file, (uint64_t)at, (uint64_t)n, page))
            rc = ENOMEM;
        at = rc == 0 ? lseek(fd, at + DISK_PAGE, SEEK_DATA) : -1;
    }
    file->size = (uint64_t)st.st_size;
    close(fd);
    return rc;
}

int disk_load(struct disk *disk, const char *directory, ino_t inode[CRASH_NODES_MAX])
{
    *disk = (struct disk){0};
    DIR *dir = opendir(directory);
    if (dir == NULL)
        return errno;
    struct dirent *entry;
    int rc = 0;
    while (rc == 0 && (entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        unsigned name = name_index(disk, entry->d_name);
        if (name == DISK_NO_NODE || disk->nodes == CRASH_NODES_MAX) {
            rc = EFBIG;
            break;
        }
        unsigned node = disk->nodes++;
        rc = load_file(&disk->file[node], dirfd(dir), entry->d_name, &inode[node]);
        disk->entry[name] = node;
    }
    closedir(dir);
    return rc;
}

void disk_release(struct disk *disk)
{
    for (unsigned n = 0; n < CRASH_NODES_MAX; n++) {
        for (size_t p = 0; p < disk->file[n].pages; p++)
            free(disk->file[n].page[p]);
        free(disk->file[n].page);
    }
    free(disk->part);
    *disk = (struct disk){0};
}
