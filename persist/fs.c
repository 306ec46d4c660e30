/*
 * fs.c -- file systems and what they break.
 *
 *   kind                      what is wrong                                       so
 *   nfs, smb, afs, ceph, ...  pages and locks of other machines are seen late     one process, or not at all
 *   9p, fuse, vbox, ...       shared mappings may be private or write-through,    one process
 *                             locks may be local to one mount or pretended
 *   btrfs, zfs, bcachefs      overwriting allocates again: a full disk turns      LIVE refused: the kernel could answer
 *   and any reflinked file    a store into reserved pages into SIGBUS             a store into the heap with a signal
 *   on xfs                                                                        only; SOLE and TURNS see ENOSPC and
 *                                                                                 keep the log
 *   overlayfs                 a mapping made before copy-up shows the old bytes   readers refused while the file is in
 *                             for ever (measured)                                 a lower layer
 *   unknown                   unknown                                             one process
 *
 * An unknown magic number gets one process because the two mistakes are not alike: a sentence that says why, or two
 * processes silently reading different bytes.
 *
 * Whether a file lies in a lower layer: its file handle tells (name_to_handle_at with AT_HANDLE_FID, Linux 6.6), because
 * overlayfs writes into it whether the object was born in the upper layer.  One that was copied up keeps the handle of
 * its origin, so "no" is certain and "yes" may be stale; a stale "yes" refuses a reader, who is told to copy the file.
 * Where the kernel cannot be asked the answer is "yes", and "no" on a mount that nobody can write.
 */
#include "persist/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>

#include "base/error.h"

#ifndef AT_HANDLE_FID
#define AT_HANDLE_FID 0x200
#endif
#define FIEMAP_EXTENTS 64
#define FIEMAP_ROUNDS_MAX 1024 /* 65536 extents; a file in more pieces than that is taken as not shared */
#define HANDLE_BYTES 128       /* MAX_HANDLE_SZ */
#define OVERLAY_HANDLE_TYPE 0xf8
#define OVERLAY_HANDLE_MAGIC 0xfb
#define OVERLAY_HANDLE_UPPER 0x04

static const struct fs_kind {
    uint32_t magic;
    struct fs_facts facts;
} kinds[] = {
    {0xef53, {.name = "ext", .coherent = true}},
    {0x58465342, {.name = "xfs", .coherent = true}}, /* reflinked files: see fs_check() */
    {0xf2f52010, {.name = "f2fs", .coherent = true}},
    {0x3153464a, {.name = "jfs", .coherent = true}},
    {0x52654973, {.name = "reiserfs", .coherent = true}},
    {0x4d44, {.name = "vfat", .coherent = true}},
    {0x2011bab0, {.name = "exfat", .coherent = true}},
    {0x7366746e, {.name = "ntfs3", .coherent = true}},
    {0x01021994, {.name = "tmpfs", .coherent = true, .memory = true}},
    {0x858458f6, {.name = "ramfs", .coherent = true, .memory = true}},
    {0x9123683e, {.name = "btrfs", .coherent = true, .overwrite_allocates = true}},
    {0xca451a4e, {.name = "bcachefs", .coherent = true, .overwrite_allocates = true}},
    {0x2fc12fc1, {.name = "zfs", .coherent = true, .overwrite_allocates = true}},
    {0x3434, {.name = "nilfs2", .coherent = true, .overwrite_allocates = true}},
    {0x794c7630, {.name = "overlayfs", .coherent = true, .stacked = true}},
    {0x6969, {.name = "nfs"}},
    {0xff534d42, {.name = "cifs"}},
    {0xfe534d42, {.name = "smb2"}},
    {0x517b, {.name = "smb"}},
    {0x01021997, {.name = "9p"}},
    {0x65735546, {.name = "fuse"}},
    {0x6a656a63, {.name = "virtiofs or another fuse"}},
    {0x00c36400, {.name = "ceph"}},
    {0x5346414f, {.name = "afs"}},
    {0x6b414653, {.name = "afs"}},
    {0x73757245, {.name = "coda"}},
    {0x01161970, {.name = "gfs2"}},
    {0x7461636f, {.name = "ocfs2"}},
    {0x0bd00bd0, {.name = "lustre"}},
    {0x786f4256, {.name = "vboxsf"}},
    {0xbacbacbc, {.name = "vmhgfs"}},
    {0xf15f, {.name = "ecryptfs"}},
};

int fs_classify(int fd, struct fs_facts *facts)
{
    struct statfs info;
    if (fstatfs(fd, &info) != 0)
        return errno;
    *facts = (struct fs_facts){.name = "an unknown file system"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (kinds[i].magic == (uint32_t)info.f_type)
            *facts = kinds[i].facts;
    return 0;
}

/* Does the file share blocks with another one (reflink)?  Overwriting those allocates on any file system. */
static bool shares_blocks(int fd)
{
    union {
        struct fiemap map;
        uint8_t room[sizeof(struct fiemap) + FIEMAP_EXTENTS * sizeof(struct fiemap_extent)];
    } query;
    const struct fiemap_extent *extents = (const void *)(query.room + offsetof(struct fiemap, fm_extents));
    uint64_t at = 0;
    for (unsigned round = 0; round < FIEMAP_ROUNDS_MAX; round++) {
        memset(&query, 0, sizeof query);
        query.map.fm_start = at;
        query.map.fm_length = FIEMAP_MAX_OFFSET - at;
        query.map.fm_extent_count = FIEMAP_EXTENTS;
        if (ioctl(fd, FS_IOC_FIEMAP, &query.map) != 0)
            return false;
        uint32_t count = query.map.fm_mapped_extents;
        if (count == 0 || count > FIEMAP_EXTENTS)
            return false;
        for (uint32_t i = 0; i < count; i++)
            if ((extents[i].fe_flags & FIEMAP_EXTENT_SHARED) != 0)
                return true;
        if ((extents[count - 1].fe_flags & FIEMAP_EXTENT_LAST) != 0)
            return false;
        at = extents[count - 1].fe_logical + extents[count - 1].fe_length;
    }
    return false;
}

bool fs_in_lower_layer(int fd)
{
    union {
        struct file_handle handle;
        uint8_t room[sizeof(struct file_handle) + HANDLE_BYTES];
    } query = {.handle = {.handle_bytes = HANDLE_BYTES}};
    const uint8_t *bytes = query.room + offsetof(struct file_handle, f_handle);
    struct fs_facts facts;
    struct statvfs mount;
    int mount_id;
    if (fs_classify(fd, &facts) != 0 || !facts.stacked)
        return false;
    if (fstatvfs(fd, &mount) == 0 && (mount.f_flag & ST_RDONLY) != 0)
        return false; /* nobody can copy it up */
    if (name_to_handle_at(fd, "", &query.handle, &mount_id, AT_EMPTY_PATH | AT_HANDLE_FID) != 0 ||
        query.handle.handle_type != OVERLAY_HANDLE_TYPE || query.handle.handle_bytes < 8)
        return true; /* cannot be told */
    /* three bytes of padding, then: version, magic, length, flags */
    return bytes[4] != OVERLAY_HANDLE_MAGIC || (bytes[6] & OVERLAY_HANDLE_UPPER) == 0;
}

bool fs_overwrite_allocates(int fd)
{
    struct fs_facts facts;
    return fs_classify(fd, &facts) == 0 && (facts.overwrite_allocates || shares_blocks(fd));
}

int fs_check(const struct file *file, enum fs_use use)
{
    struct fs_facts facts;
    int rc = fs_classify(file->fd, &facts);
    if (rc != 0)
        return error_set(rc, "cannot ask for the file system of %.300s: %s", file->path, error_text(rc));
    if (file->lower_layer)
        return error_set(STEAD_FILE_SYSTEM,
                         "%.300s comes from a lower layer of overlayfs, where a reader may never see "
                         "what a writer writes: copy it to a new file here, and open that",
                         file->path);
    if (use == FS_ONE_PROCESS)
        return 0;
    if (!facts.coherent)
        return error_set(STEAD_FILE_SYSTEM,
                         "%.300s lies on %s, whose mappings and locks cannot be trusted between "
                         "processes: one process may open it, SOLE or read-only",
                         file->path, facts.name);
    if (use == FS_LIVE && (facts.overwrite_allocates || shares_blocks(file->fd)))
        return error_set(STEAD_FILE_SYSTEM,
                         "%.300s lies on %s%s, where overwriting needs new disk blocks: LIVE could "
                         "answer a full disk only with a signal; open it SOLE or TURNS",
                         file->path, facts.name, facts.overwrite_allocates ? "" : " and shares blocks with a copy");
    return 0;
}
