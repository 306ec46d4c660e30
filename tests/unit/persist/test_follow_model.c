/* follow.c at random: any words in the lock unit, and what a reader sees of any workload against a model of all commits. */
#include "follow_fixture.h"

#include <inttypes.h>
#include <stdlib.h>
#include <sys/random.h>

TestSuite(follow_model, .init = follow_setup, .fini = store_remove, .timeout = 300);

/* ---- any words are safe ---- */

static uint64_t random_state;
static uint64_t next_random(void) /* splitmix64 */
{
    uint64_t z = random_state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

static void seed(void)
{
    const char *given = getenv("STEAD_SEED");
    if (given != NULL)
        random_state = strtoull(given, NULL, 0);
    else
        cr_assert_eq(getrandom(&random_state, sizeof random_state, 0), (ssize_t)sizeof random_state);
    (void)fprintf(stderr, "STEAD_SEED=0x%" PRIx64 "\n", random_state);
}

Test(follow_model, words_that_make_no_sense_are_an_error_or_change_nothing)
{
    seed();
    begin(MIB);
    store_fill(0, MIB, 2);
    uint64_t last = commit(MIB, true);
    struct shared_state good;
    OK(shared_read(words(), &good));
    unsigned refused = 0;
    for (long i = 0; i < rounds(500) || refused == 0; i++) {
        cr_assert_lt(i, 100000, "nothing is refused");
        struct shared_state bad = good;
        uint64_t word = next_random() % (sizeof bad / 8), value = next_random() % 3;
        uint64_t with = value == 0 ? next_random() : value == 1 ? next_random() % 100 : ~(next_random() % 5);
        memcpy((uint8_t *)&bad + word * 8, &with, 8);
        memset(store.shared, 0, sizeof store.shared);
        shared_write(words(), &bad);
        shared_raise_durable_seq(words(), i % 2 == 0 ? last : with);
        refused += image_look(reader.image, words()) != 0;
        cr_assert(reader_bytes()[0] == (uint8_t)store_mark(0, 1) || reader_bytes()[0] == (uint8_t)store_mark(0, 2));
    }
    memset(store.shared, 0, sizeof store.shared);
    shared_write(words(), &good);
    shared_raise_durable_seq(words(), last);
    OK(image_look(reader.image, words()));
    reader_expect(0, MIB, 2);
    end();
}

/* ---- everything, at random ---- */

#define MODEL_BYTES (4 * MIB)
#define MODEL_COMMITS 4096

static struct {
    uint8_t *image[MODEL_COMMITS]; /* by commit number; those that may still be asked for */
    uint64_t used[MODEL_COMMITS];
    uint64_t seq, freed, base_seq;
} model;

static void model_commit(uint64_t used, bool durable)
{
    uint64_t seq = commit(used, durable);
    if (seq == model.seq)
        return; /* nothing had changed */
    cr_assert(seq == model.seq + 1 && seq < MODEL_COMMITS);
    model.seq = seq;
    model.used[seq] = used;
    model.image[seq] = malloc(used);
    memcpy(model.image[seq], image_base(store.image), used);
}

static void model_write(void)
{
    uint64_t used = model.used[model.seq], runs = 1 + next_random() % (next_random() % 8 == 0 ? 300 : 6);
    for (uint64_t i = 0; i < runs; i++) {
        uint64_t offset = next_random() % used, length = 1 + next_random() % (i % 5 == 0 ? 9000 : 100);
        memset((uint8_t *)image_base(store.image) + offset, (int)next_random(), min_u64(length, used - offset));
    }
}

static void model_kill_writer(void)
{
    image_close(store.image);
    file_close(&store.file);
    OK(store_try_open(IMAGE_PRIVATE, true));
    cr_assert_eq(image_commit_seq(store.image), model.seq, "process death loses no commit");
    OK(image_extend(store.image, MODEL_BYTES));
}

static void model_look(void)
{
    struct image_stat writer = stat_of(store.image);
    uint64_t want = max_u64(writer.applied_seq, min_u64(shared_durable_seq(words()), writer.commit_seq));
    OK(image_look(reader.image, words()));
    cr_assert_eq(image_commit_seq(reader.image), want);
    cr_assert_geq(image_bytes(reader.image), model.used[want]);
    for (uint64_t at = 0; at < model.used[want]; at += PAGE_BYTES)
        cr_assert_eq(memcmp(reader_bytes() + at, model.image[want] + at, PAGE_BYTES), 0,
                     "page %" PRIu64 " is not that of commit %" PRIu64 " (applied %" PRIu64 ")", at / PAGE_BYTES, want,
                     writer.applied_seq);
    for (; model.freed + 1 < want; model.freed++) {
        free(model.image[model.freed]);
        model.image[model.freed] = NULL;
    }
}

static void model_step(void)
{
    uint64_t dice = next_random() % 32, used = model.used[model.seq];
    if (dice < 14) {
        model_write();
        model_commit(used, next_random() % 3 != 0);
    } else if (dice < 17) { /* longer, or shorter */
        used = (1 + next_random() % (MODEL_BYTES / UNIT_BYTES)) * UNIT_BYTES;
        if (used > model.used[model.seq] && next_random() % 2 == 0)
            memset((uint8_t *)image_base(store.image) + model.used[model.seq], 0x5a, used - model.used[model.seq]);
        model_commit(used, next_random() % 2 == 0);
    } else if (dice < 18) {
        for (uint64_t slices = next_random() % 4; slices > 0; slices--)
            OK(image_apply_some(store.image));
        if (next_random() % 2 == 0)
            OK(image_apply(store.image));
    } else if (dice < 19) {
        OK(image_checkpoint(store.image));
    } else if (dice < 20) {
        model_write();
        OK(image_rollback(store.image));
    } else if (dice < 21) {
        OK(image_sync(store.image, model.seq));
    } else if (dice < 22 && next_random() % 4 == 0) {
        model_kill_writer();
    } else if (dice < 23) {
        reader_close();
        reader_open();
    } else if (dice < 24) {
        file_calls.open = file_calls.open == file_calls_system.open ? no_memory_file : file_calls_system.open;
    } else {
        model_look();
    }
}

Test(follow_model, any_workload_is_seen_commit_by_commit)
{
    seed();
    store_open(IMAGE_PRIVATE);
    OK(image_extend(store.image, MODEL_BYTES));
    model.seq = model.freed = image_commit_seq(store.image);
    model.used[model.seq] = UNIT_BYTES;
    model.image[model.seq] = malloc(UNIT_BYTES);
    memcpy(model.image[model.seq], image_base(store.image), UNIT_BYTES);
    reader_open();
    long steps = rounds(500);
    for (long i = 0; i < steps; i++)
        model_step();
    model_look();
    end();
    for (uint64_t seq = model.freed; seq <= model.seq; seq++)
        free(model.image[seq]);
}
