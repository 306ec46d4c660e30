/*
 * crash_disk.h -- a model of what a disk may hold: files, names, and changes that nobody has synced yet.
 *
 * The rules (what POSIX leaves open and real file systems do at their worst, short of lying about a sync):
 *   D1  A sync of a file makes all its earlier writes and sizes durable; a sync of a range those that touch its pages, and
 *       sizes; a sync of the directory all earlier names.  Nothing else makes anything durable.
 *   D2  An unsynced write reaches the disk in units of 512 bytes, each on its own or not at all, in any order.  A sector
 *       holds what the page cache held at some moment since its last sync: never a later part without the earlier one.
 *   D3  Sizes of one file change in order (any prefix of the changes may be there), independent of its data and of other
 *       files.  Bytes that were never written read as zeros.
 *   D4  Names change in order for each name; a rename does both names or neither; names are independent of each other, of
 *       sizes and of data: a file may have its name and be empty.
 * An "atom" is one thing that may be in different states: a sector with unsynced writes, a file's size, a name.
 */
#ifndef STEAD_CRASH_DISK_H
#define STEAD_CRASH_DISK_H

#include <stddef.h>

#include "tests/crash/crash_calls.h"

enum { DISK_PAGE = 4096, DISK_SECTOR = 512, DISK_NAMES_MAX = 64 };

struct disk_file {
    uint8_t **page; /* NULL = zeros */
    size_t pages;   /* room of the array */
    uint64_t size;  /* durable */
};

enum part_kind { PART_WRITE, PART_ZERO, PART_SIZE, PART_NAME };
struct disk_part { /* a change that is not durable */
    enum part_kind kind;
    unsigned node;  /* PART_NAME: the node the name then has, or NO_NODE */
    unsigned name;  /* PART_NAME */
    uint64_t order; /* position in the trace */
    uint64_t offset, bytes;
    const uint8_t *data; /* PART_WRITE: in the trace */
};
#define DISK_NO_NODE UINT32_C(0xffffffff)

struct disk {
    struct disk_file file[CRASH_NODES_MAX];
    unsigned nodes;
    char name[DISK_NAMES_MAX][CRASH_NAME_BYTES];
    unsigned entry[DISK_NAMES_MAX]; /* durable: node or DISK_NO_NODE */
    unsigned group[DISK_NAMES_MAX]; /* names that a rename ties together share a group */
    unsigned names;
    struct disk_part *part;
    size_t parts, part_room;
};

/* Everything in the directory, as durable; *inode: of each node, for the recorder.  0, errno. */
int disk_load(struct disk *disk, const char *directory, ino_t inode[CRASH_NODES_MAX]);
/* The next event of a trace.  false: memory ran out or the trace makes no sense. */
bool disk_apply(struct disk *disk, const struct trace_event *event, const uint8_t *payload, uint64_t order);
void disk_release(struct disk *disk);

enum atom_kind { ATOM_SECTOR, ATOM_SIZE, ATOM_NAMES };
struct atom {
    enum atom_kind kind;
    unsigned node; /* ATOM_NAMES: the group */
    uint64_t sector;
    unsigned changes;     /* unsynced ones that touch it */
    uint64_t first, last; /* their orders */
    int64_t keep;         /* the choice: changes up to this order are on the disk; -1 = none */
};
struct atoms {
    struct atom *atom;
    size_t count, room;
    uint32_t *slot; /* hash of (kind, node, sector) -> index + 1 */
    size_t slots;
};
bool atoms_collect(struct atoms *atoms, const struct disk *disk);
void atoms_release(struct atoms *atoms);
/* Does this change touch this atom? */
bool atom_touched(const struct atom *atom, const struct disk *disk, const struct disk_part *part);

/* The disk as the atoms' choices say. */
struct disk_image {
    struct disk_file file[CRASH_NODES_MAX];
    unsigned entry[DISK_NAMES_MAX];
    uint8_t **owned; /* pages that are not the disk's */
    size_t owned_count, owned_room;
};
bool disk_image_build(struct disk_image *image, const struct disk *disk, const struct atoms *atoms);
uint64_t disk_image_hash(const struct disk_image *image, const struct disk *disk);
/* Fills bytes [offset, offset + bytes) of every file that is so long with noise: what a lock unit may hold. */
bool disk_image_scribble(struct disk_image *image, const struct disk *disk, const char *name, uint64_t offset,
                         uint64_t bytes, uint64_t seed);
/* Writes it into an empty directory.  0, errno. */
int disk_image_write(const struct disk_image *image, const struct disk *disk, const char *directory);
void disk_image_release(struct disk_image *image);

#endif
