/* follow_fixture.h -- a store that is written, and a reader of the same file beside it.  The apply lock is played by the
 * order of the calls. */
#ifndef STEAD_TESTS_FOLLOW_FIXTURE_H
#define STEAD_TESTS_FOLLOW_FIXTURE_H

#include "temp_store.h"

#include <sys/mman.h>

#include "persist/shared.h"

static struct {
    struct file file;
    struct superblock super;
    struct image *image;
} reader;

static inline struct image_shared *words(void)
{
    return (struct image_shared *)(void *)store.shared;
}

static inline void follow_setup(void)
{
    store_directory();
    store_create();
}

static inline void reader_open(void)
{
    struct image_options options = {.kind = IMAGE_READ, .any_address = true, .shared = words()};
    OK(file_resolve(&reader.file, store.path));
    OK(file_open(&reader.file, false));
    OK(superblock_read(&reader.file, &reader.super));
    OK(image_open(&reader.image, &reader.file, &reader.super, &options));
}

static inline void reader_close(void)
{
    image_close(reader.image);
    file_close(&reader.file);
}

static inline const uint8_t *reader_bytes(void)
{
    return image_base(reader.image);
}

static inline void reader_expect(uint64_t from, uint64_t to, uint64_t round)
{
    for (uint64_t at = from; at < to; at += PAGE_BYTES) {
        uint64_t word;
        memcpy(&word, reader_bytes() + at, sizeof word);
        cr_assert_eq(word, store_mark(at, round), "reader, image offset %" PRIu64 ", round %" PRIu64, at, round);
    }
}

static inline long rounds(long normal)
{
    const char *is_long = getenv("STEAD_LONG");
    return is_long != NULL && is_long[0] == '1' ? normal * 10 : normal;
}

static inline uint64_t commit(uint64_t used, bool durable)
{
    uint64_t seq;
    OK(image_commit(store.image, used, &seq));
    if (durable)
        OK(image_sync(store.image, seq));
    return seq;
}

static inline struct image_stat stat_of(struct image *image)
{
    struct image_stat stat;
    image_stat(image, &stat);
    return stat;
}

/* A store of `used` bytes, round 1, all of it in the file; the writer is left open, and a reader beside it. */
static inline void begin(uint64_t used)
{
    store_open(IMAGE_PRIVATE);
    OK(image_extend(store.image, used));
    store_fill(0, used, 1);
    commit(used, true);
    OK(image_checkpoint(store.image));
    reader_open();
    OK(image_look(reader.image, words()));
    reader_expect(0, used, 1);
}

static inline void end(void)
{
    reader_close();
    store_drop();
}

/* The process may not write its own memory past the protection of its pages. */
static inline int no_memory_file(const char *path, int flags, mode_t mode)
{
    if (strcmp(path, "/proc/self/mem") == 0) {
        errno = EACCES;
        return -1;
    }
    return file_calls_system.open(path, flags, mode);
}

#endif
