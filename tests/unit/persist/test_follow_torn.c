/* follow.c beside a writer whose session begins: a read of the log is of no one moment. */
#include "follow_fixture.h"

#include <inttypes.h>

#include "persist/wal.h"

TestSuite(follow_torn, .init = follow_setup, .fini = store_remove, .timeout = 300);

static unsigned torn_reads;
static const uint8_t *words_of_the_session; /* are there after the next torn read; NULL: not */

/* A read of the log that is of no one moment: its first record is missing, a later one there. */
static ssize_t read_torn(int fd, void *buffer, size_t bytes, off_t offset)
{
    char name[FILE_PATH_BYTES];
    ssize_t got = file_calls_system.pread(fd, buffer, bytes, offset);
    if (strstr(file_name(fd, name), "-wal") == NULL || offset > (off_t)WAL_FIRST_RECORD ||
        offset + got < (off_t)(WAL_FIRST_RECORD + WAL_SECTOR) || torn_reads == 0)
        return got;
    torn_reads--;
    memset((uint8_t *)buffer + ((off_t)WAL_FIRST_RECORD - offset), 0, WAL_SECTOR);
    if (words_of_the_session != NULL)
        memcpy(store.shared, words_of_the_session, sizeof store.shared);
    return got;
}

/* P11.  A session begins between a look at the words and the look into its log; it goes on, or is over by then. */
Test(follow_torn, without_an_attachment_a_log_that_is_written_meanwhile_is_not_damaged)
{
    uint8_t told[IMAGE_SHARED_BYTES];
    struct image_options options = {.kind = IMAGE_READ, .any_address = true};
    store_open(IMAGE_PRIVATE); /* has the address */
    OK(file_resolve(&reader.file, store.path));
    OK(file_open(&reader.file, false));
    OK(superblock_read(&reader.file, &reader.super));
    OK(image_open(&reader.image, &reader.file, &reader.super, &options));
    store_seal(UNIT_BYTES);
    for (uint64_t round = 2; round < 8; round++) {
        uint64_t seq = 0, used;
        store_open(IMAGE_PRIVATE);
        OK(image_extend(store.image, MIB));
        used = image_bytes(store.image);
        for (uint64_t n = 0; n < 3; n++) {
            store_fill(0, MIB, 10 * round + n);
            seq = commit(used, true);
        }
        store_drop();
        memcpy(told, store.shared, sizeof told);
        memset(store.shared, 0, sizeof store.shared);
        words_of_the_session = round % 3 == 0 ? told : NULL;
        torn_reads = round % 3 == 2 ? 1000 : 1; /* one that is always there is one */
        file_calls.pread = read_torn;
        if (round % 3 == 2) {
            FAILS(image_look(reader.image, words()), STEAD_CORRUPT);
            torn_reads = 0;
        }
        OK(image_look(reader.image, words()));
        file_calls.pread = file_calls_system.pread;
        cr_assert_eq(torn_reads, 0, "nothing was torn");
        cr_assert_eq(image_commit_seq(reader.image), seq, "round %" PRIu64, round);
        reader_expect(0, MIB, 10 * round + 2);
    }
    reader_close();
}
