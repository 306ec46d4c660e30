/*
 * crash_state.c -- one state that the disk may be in after a power cut: a choice for every atom (crash_disk.h), the files
 * that follow from it, written out for the library to open.
 *
 * A choice is a position in the trace: the atom holds every change up to there and none after.  So any value is legal (D2,
 * D3, D4), and "all lost", "all kept", "torn in the middle of this write" are just different functions from atoms to
 * positions.
 */
#include "tests/crash/crash_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <xxhash.h>

/* ---- atoms ---- */

static uint64_t atom_hash(enum atom_kind kind, unsigned node, uint64_t sector)
{
    uint64_t key[3] = {(uint64_t)kind, node, sector};
    return XXH3_64bits(key, sizeof key);
}

static struct atom *atom_find(const struct atoms *atoms, enum atom_kind kind, unsigned node, uint64_t sector)
{
    if (atoms->slots == 0)
        return NULL;
    for (size_t s = (size_t)atom_hash(kind, node, sector) & (atoms->slots - 1); atoms->slot[s] != 0;
         s = (s + 1) & (atoms->slots - 1)) {
        struct atom *atom = &atoms->atom[atoms->slot[s] - 1];
        if (atom->kind == kind && atom->node == node && atom->sector == sector)
            return atom;
    }
    return NULL;
}

static bool atoms_rehash(struct atoms *atoms)
{
    size_t slots = atoms->slots == 0 ? 256 : atoms->slots * 2;
    uint32_t *slot = calloc(slots, sizeof *slot);
    if (slot == NULL)
        return false;
    for (size_t i = 0; i < atoms->count; i++) {
        const struct atom *atom = &atoms->atom[i];
        size_t s = (size_t)atom_hash(atom->kind, atom->node, atom->sector) & (slots - 1);
        while (slot[s] != 0)
            s = (s + 1) & (slots - 1);
        slot[s] = (uint32_t)(i + 1);
    }
    free(atoms->slot);
    atoms->slot = slot;
    atoms->slots = slots;
    return true;
}

static bool atom_touch(struct atoms *atoms, enum atom_kind kind, unsigned node, uint64_t sector, uint64_t order)
{
    struct atom *atom = atom_find(atoms, kind, node, sector);
    if (atom != NULL) {
        if (order != atom->last)
            atom->changes++;
        atom->last = order;
        return true;
    }
    if (atoms->count == atoms->room) {
        size_t room = atoms->room == 0 ? 128 : atoms->room * 2;
        struct atom *more = realloc(atoms->atom, room * sizeof *more);
        if (more == NULL)
            return false;
        atoms->atom = more;
        atoms->room = room;
    }
    if (atoms->count * 2 >= atoms->slots && !atoms_rehash(atoms))
        return false;
    atoms->atom[atoms->count++] = (struct atom){
        .kind = kind, .node = node, .sector = sector, .changes = 1, .first = order, .last = order, .keep = -1};
    size_t s = (size_t)atom_hash(kind, node, sector) & (atoms->slots - 1);
    while (atoms->slot[s] != 0)
        s = (s + 1) & (atoms->slots - 1);
    atoms->slot[s] = (uint32_t)atoms->count;
    return true;
}

bool atoms_collect(struct atoms *atoms, const struct disk *disk)
{
    bool ok = true;
    *atoms = (struct atoms){0};
    for (size_t i = 0; ok && i < disk->parts; i++) {
        const struct disk_part *part = &disk->part[i];
        if (part->kind == PART_NAME) {
            ok = atom_touch(atoms, ATOM_NAMES, disk->group[part->name], 0, part->order);
        } else if (part->kind == PART_SIZE) {
            ok = atom_touch(atoms, ATOM_SIZE, part->node, 0, part->order);
        } else if (part->bytes > 0) {
            uint64_t last = (part->offset + part->bytes - 1) / DISK_SECTOR;
            for (uint64_t s = part->offset / DISK_SECTOR; ok && s <= last; s++)
                ok = atom_touch(atoms, ATOM_SECTOR, part->node, s, part->order);
        }
    }
    return ok;
}

void atoms_release(struct atoms *atoms)
{
    free(atoms->atom);
    free(atoms->slot);
    *atoms = (struct atoms){0};
}

bool atom_touched(const struct atom *atom, const struct disk *disk, const struct disk_part *part)
{
    switch (atom->kind) {
    case ATOM_NAMES:
        return part->kind == PART_NAME && disk->group[part->name] == atom->node;
    case ATOM_SIZE:
        return part->kind == PART_SIZE && part->node == atom->node;
    case ATOM_SECTOR:
        return (part->kind == PART_WRITE || part->kind == PART_ZERO) && part->node == atom->node && part->bytes > 0 &&
               part->offset / DISK_SECTOR <= atom->sector &&
               atom->sector <= (part->offset + part->bytes - 1) / DISK_SECTOR;
    }
    return false;
}

/* ---- the image ---- */

static uint8_t *own_page(struct disk_image *image, const uint8_t *old)
{
    if (image->owned_count == image->owned_room) {
        size_t room = image->owned_room == 0 ? 64 : image->owned_room * 2;
        uint8_t **owned = realloc(image->owned, room * sizeof *owned);
        if (owned == NULL)
            return NULL;
        image->owned = owned;
        image->owned_room = room;
    }
    uint8_t *page = malloc(DISK_PAGE);
    if (page == NULL)
        return NULL;
    if (old != NULL)
        memcpy(page, old, DISK_PAGE);
    else
        memset(page, 0, DISK_PAGE);
    image->owned[image->owned_count++] = page;
    return page;
}

/* A page that may be written: the disk's own pages are shared by all states. */
static uint8_t *writable_page(struct disk_image *image, const struct disk_file *base, unsigned node, uint64_t number)
{
    struct disk_file *file = &image->file[node];
    if (number >= file->pages) {
        size_t room = (size_t)number + 64;
        uint8_t **page = realloc(file->page, room * sizeof *page);
        if (page == NULL)
            return NULL;
        memset(page + file->pages, 0, (room - file->pages) * sizeof *page);
        file->page = page;
        file->pages = room;
    }
    const uint8_t *shared = number < base->pages ? base->page[number] : NULL;
    if (file->page[number] == NULL || file->page[number] == shared)
        file->page[number] = own_page(image, file->page[number]);
    return file->page[number];
}

static bool put_sector_piece(struct disk_image *image, const struct disk *disk, const struct disk_part *part,
                             uint64_t from, uint64_t to)
{
    uint8_t *page = writable_page(image, &disk->file[part->node], part->node, from / DISK_PAGE);
    if (page == NULL)
        return false;
    if (part->kind == PART_WRITE)
        memcpy(page + from % DISK_PAGE, part->data + (from - part->offset), (size_t)(to - from));
    else
        memset(page + from % DISK_PAGE, 0, (size_t)(to - from));
    return true;
}

static bool put_data(struct disk_image *image, const struct disk *disk, const struct atoms *atoms,
                     const struct disk_part *part)
{
    uint64_t end = part->offset + part->bytes;
    for (uint64_t at = part->offset; at < end;) {
        uint64_t sector = at / DISK_SECTOR, next = (sector + 1) * DISK_SECTOR;
        uint64_t to = next < end ? next : end;
        const struct atom *atom = atom_find(atoms, ATOM_SECTOR, part->node, sector);
        if (atom != NULL && (int64_t)part->order <= atom->keep && !put_sector_piece(image, disk, part, at, to))
            return false;
        at = to;
    }
    return true;
}

static bool put_size(struct disk_image *image, const struct disk *disk, const struct disk_part *part)
{
    struct disk_file *file = &image->file[part->node];
    if (part->offset < file->size) {
        for (uint64_t p = part->offset / DISK_PAGE; p < file->pages; p++) {
            if (file->page[p] == NULL)
                continue;
            size_t in = p == part->offset / DISK_PAGE ? (size_t)(part->offset % DISK_PAGE) : 0;
            uint8_t *page = writable_page(image, &disk->file[part->node], part->node, p);
            if (page == NULL)
                return false;
            memset(page + in, 0, DISK_PAGE - in);
        }
    }
    file->size = part->offset;
    return true;
}

bool disk_image_build(struct disk_image *image, const struct disk *disk, const struct atoms *atoms)
{
    bool ok = true;
    *image = (struct disk_image){0};
    memcpy(image->entry, disk->entry, sizeof image->entry);
    for (unsigned n = 0; ok && n < disk->nodes; n++) {
        const struct disk_file *base = &disk->file[n];
        image->file[n].size = base->size;
        if (base->pages == 0)
            continue;
        image->file[n].page = malloc(base->pages * sizeof base->page[0]);
        ok = image->file[n].page != NULL;
        if (ok) {
            memcpy(image->file[n].page, base->page, base->pages * sizeof base->page[0]);
            image->file[n].pages = base->pages;
        }
    }
    for (size_t i = 0; ok && i < disk->parts; i++) {
        const struct disk_part *part = &disk->part[i];
        const struct atom *atom;
        switch (part->kind) {
        case PART_NAME:
            atom = atom_find(atoms, ATOM_NAMES, disk->group[part->name], 0);
            if (atom != NULL && (int64_t)part->order <= atom->keep)
                image->entry[part->name] = part->node;
            break;
        case PART_SIZE:
            atom = atom_find(atoms, ATOM_SIZE, part->node, 0);
            if (atom != NULL && (int64_t)part->order <= atom->keep)
                ok = put_size(image, disk, part);
            break;
        case PART_WRITE:
        case PART_ZERO:
            ok = put_data(image, disk, atoms, part);
            break;
        }
    }
    return ok;
}

/* How many whole or partial pages of the file are visible. */
static uint64_t visible_pages(const struct disk_file *file)
{
    uint64_t pages = (file->size + DISK_PAGE - 1) / DISK_PAGE;
    return pages < file->pages ? pages : file->pages;
}

static size_t visible_bytes(const struct disk_file *file, uint64_t page)
{
    uint64_t left = file->size - page * DISK_PAGE;
    return left < DISK_PAGE ? (size_t)left : DISK_PAGE;
}

uint64_t disk_image_hash(const struct disk_image *image, const struct disk *disk)
{
    static const uint8_t zeros[DISK_PAGE];
    XXH64_hash_t hash = 0;
    for (unsigned i = 0; i < disk->names; i++) {
        unsigned node = image->entry[i];
        if (node == DISK_NO_NODE)
            continue;
        const struct disk_file *file = &image->file[node];
        hash = XXH3_64bits_withSeed(disk->name[i], strlen(disk->name[i]), hash);
        hash = XXH3_64bits_withSeed(&file->size, sizeof file->size, hash);
        for (uint64_t p = 0; p < visible_pages(file); p++) {
            size_t bytes = visible_bytes(file, p);
            if (file->page[p] == NULL || memcmp(file->page[p], zeros, bytes) == 0)
                continue;
            hash = XXH3_64bits_withSeed(&p, sizeof p, hash);
            hash = XXH3_64bits_withSeed(file->page[p], bytes, hash);
        }
    }
    return hash;
}

bool disk_image_scribble(struct disk_image *image, const struct disk *disk, const char *name, uint64_t offset,
                         uint64_t bytes, uint64_t seed)
{
    for (unsigned i = 0; i < disk->names; i++) {
        unsigned node = image->entry[i];
        if (node == DISK_NO_NODE || strcmp(disk->name[i], name) != 0 || image->file[node].size < offset + bytes)
            continue;
        for (uint64_t at = offset; at < offset + bytes; at += DISK_PAGE) {
            uint8_t *page = writable_page(image, &disk->file[node], node, at / DISK_PAGE);
            if (page == NULL)
                return false;
            for (size_t w = 0; w < DISK_PAGE; w += sizeof seed) {
                seed = XXH3_64bits(&seed, sizeof seed);
                memcpy(page + w, &seed, sizeof seed);
            }
        }
    }
    return true;
}

static int write_file(const struct disk_file *file, int fd)
{
    if (ftruncate(fd, (off_t)file->size) != 0)
        return errno;
    for (uint64_t p = 0; p < visible_pages(file); p++) {
        size_t bytes = visible_bytes(file, p);
        if (file->page[p] != NULL && pwrite(fd, file->page[p], bytes, (off_t)(p * DISK_PAGE)) != (ssize_t)bytes)
            return errno == 0 ? EIO : errno;
    }
    return 0;
}

int disk_image_write(const struct disk_image *image, const struct disk *disk, const char *directory)
{
    int dir = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;
    unsigned first_name[CRASH_NODES_MAX];
    if (dir < 0)
        return errno;
    memset(first_name, 0xff, sizeof first_name);
    for (unsigned i = 0; rc == 0 && i < disk->names; i++) {
        unsigned node = image->entry[i];
        if (node == DISK_NO_NODE)
            continue;
        if (first_name[node] != DISK_NO_NODE) { /* a second name of the same file */
            rc = linkat(dir, disk->name[first_name[node]], dir, disk->name[i], 0) == 0 ? 0 : errno;
            continue;
        }
        first_name[node] = i;
        int fd = openat(dir, disk->name[i], O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0) {
            rc = errno;
            break;
        }
        errno = 0;
        rc = write_file(&image->file[node], fd);
        close(fd);
    }
    close(dir);
    return rc;
}

void disk_image_release(struct disk_image *image)
{
    for (size_t i = 0; i < image->owned_count; i++)
        free(image->owned[i]);
    free(image->owned);
    for (unsigned n = 0; n < CRASH_NODES_MAX; n++)
        free(image->file[n].page);
    *image = (struct disk_image){0};
}
