/* address.c: S11, and that chosen slots are free in fresh processes.
 * Method: random ids and capacities; the slots of one size compared pairwise; maps of freshly executed programs, because
 * ASLR deals new addresses to a process that is executed, not to one that is forked. */
#include "temp_store.h"

#include <sys/mman.h>
#include <time.h>

#include "persist/address.h"

#define GIB (UINT64_C(1) << 30)
#define TIB (UINT64_C(1) << 40)

extern void __tsan_init(void) __attribute__((weak));
extern void __msan_init(void) __attribute__((weak));

static unsigned seed;

static void setup(void)
{
    const char *text = getenv("STEAD_SEED");
    seed = text != NULL ? (unsigned)strtoul(text, NULL, 0) : (unsigned)time(NULL);
    printf("STEAD_SEED=%u\n", seed);
    srand(seed);
}

TestSuite(address, .init = setup, .timeout = 300);

static void random_id(uint8_t id[16])
{
    for (unsigned i = 0; i < 16; i++)
        id[i] = (uint8_t)rand();
}

static bool tight(void)
{
    return __tsan_init != NULL || __msan_init != NULL;
}

/* The largest capacity that address_fits() grants at base. */
static uint64_t largest_fit(uint64_t base)
{
    uint64_t low = UNIT_BYTES, high = UINT64_C(1) << 47;
    while (high - low > UNIT_BYTES) {
        uint64_t middle = (low + (high - low) / 2) / UNIT_BYTES * UNIT_BYTES;
        if (address_fits(base, middle))
            low = middle;
        else
            high = middle;
    }
    return low;
}

Test(address, slots_of_one_size_are_the_same_or_do_not_overlap)
{
    enum { STORES = 300 };
    uint64_t base[STORES], end[STORES];
    const uint64_t capacities[] = {UNIT_BYTES, 64 * GIB, 200 * GIB, TIB};
    for (unsigned c = 0; c < (tight() ? 1 : 4); c++) {
        unsigned different = 0;
        for (unsigned i = 0; i < STORES; i++) {
            uint8_t id[16];
            random_id(id);
            OK(address_choose(id, NULL, capacities[c], &base[i]));
            cr_assert_eq(base[i] % UNIT_BYTES, 0);
            for (uint64_t at = 512 * MIB; at <= TIB; at *= 2) /* the kernel maps large folios at once: ready.c */
                cr_assert_eq((base[i] + at - format_file_offset(at)) % MAP_CONGRUENCE_BYTES, 0);
            cr_assert(address_fits(base[i], capacities[c]));
            end[i] = base[i] + largest_fit(base[i]);
            cr_assert_geq(end[i], base[i] + capacities[c]);
            for (unsigned j = 0; j < i; j++) {
                cr_assert(base[i] == base[j] || base[i] - UNIT_BYTES >= end[j] + UNIT_BYTES ||
                              base[j] - UNIT_BYTES >= end[i] + UNIT_BYTES,
                          "0x%" PRIx64 "-0x%" PRIx64 " and 0x%" PRIx64 "-0x%" PRIx64, base[i], end[i], base[j], end[j]);
                different += base[i] != base[j];
            }
        }
        cr_assert_gt(different, STORES, "the hash spreads them");
    }
}

Test(address, the_id_decides_so_that_a_choice_is_the_same_in_every_process)
{
    uint8_t id[16];
    uint64_t first, second;
    random_id(id);
    OK(address_choose(id, NULL, GIB, &first));
    OK(address_choose(id, NULL, GIB, &second));
    cr_assert_eq(first, second);
}

Test(address, a_taken_slot_makes_room_for_the_next)
{
    uint8_t id[16];
    uint64_t base[4];
    random_id(id);
    for (unsigned i = 0; i < 4; i++) {
        OK(address_choose(id, NULL, GIB, &base[i]));
        for (unsigned j = 0; j < i; j++)
            cr_assert_neq(base[i], base[j]);
        cr_assert_neq(mmap((void *)(uintptr_t)base[i], GIB, PROT_NONE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0),
                      MAP_FAILED);
    }
}

Test(address, default_capacity_may_be_raised_but_not_past_the_slot)
{
    uint8_t id[16];
    uint64_t base;
    random_id(id);
    OK(address_choose(id, NULL, ADDRESS_DEFAULT_CAPACITY, &base));
    cr_assert(address_fits(base, ADDRESS_DEFAULT_CAPACITY + 32 * GIB));
    cr_assert(!address_fits(base, 2 * ADDRESS_DEFAULT_CAPACITY));
    cr_assert(!address_fits(base, UINT64_MAX - UNIT_BYTES));
}

Test(address, terabytes_have_a_place)
{
    uint8_t id[16];
    uint64_t base;
    random_id(id);
    if (tight()) {
        puts("skipped: the tool leaves less than a terabyte");
        return;
    }
    for (uint64_t capacity = TIB; capacity <= 16 * TIB; capacity *= 2) {
        OK(address_choose(id, NULL, capacity, &base));
        cr_assert(address_fits(base, capacity));
    }
    FAILS(address_choose(id, NULL, 64 * TIB, &base), ENOMEM);
    FAILS(address_choose(id, NULL, UINT64_MAX - UNIT_BYTES + 1, &base), ENOMEM);
}

Test(address, a_named_address_is_taken_as_it_is_if_it_can_be)
{
    uint8_t id[16] = {0};
    uint64_t base;
    OK(address_choose(id, (void *)UINT64_C(0x7e8000000000), 64 * GIB, &base));
    cr_assert_eq(base, UINT64_C(0x7e8000000000));
    cr_assert(address_fits(base, 512 * GIB), "no slot, no limit but the address space");
    FAILS(address_choose(id, (void *)UINT64_C(0x7e8000000000), 64 * TIB, &base), EINVAL);
    FAILS(address_choose(id, (void *)UINT64_C(0x7e8000000001), GIB, &base), EINVAL);
    FAILS(address_choose(id, (void *)UNIT_BYTES, GIB, &base), EINVAL);
    FAILS(address_choose(id, (void *)UINTPTR_MAX, GIB, &base), EINVAL);
}

Test(address, slots_lie_outside_of_what_the_kernel_deals_out)
{
    char line[256];
    uint8_t id[16];
    uint64_t base;
    if (tight()) {
        puts("skipped: under this tool the windows lie inside");
        return;
    }
    /* fresh images of a program, by executing one that prints its own map */
    unsigned runs = getenv("STEAD_LONG") != NULL ? 400 : 40;
    for (unsigned run = 0; run < runs; run++) {
        FILE *maps = popen("exec cat /proc/self/maps", "r");
        cr_assert_not_null(maps);
        random_id(id);
        OK(address_choose(id, NULL, ADDRESS_DEFAULT_CAPACITY, &base));
        uint64_t slot_end = base + largest_fit(base);
        unsigned lines = 0;
        while (fgets(line, sizeof line, maps) != NULL) {
            uint64_t low, high;
            if (sscanf(line, "%" SCNx64 "-%" SCNx64, &low, &high) != 2)
                continue;
            lines++;
            cr_assert(high <= base || low >= slot_end, "slot 0x%" PRIx64 ": %s", base, line);
        }
        cr_assert_gt(lines, 5);
        pclose(maps);
    }
}

Test(address, only_thread_sanitizer_forbids_addresses)
{
    if (__tsan_init == NULL)
        OK(address_permitted("store", UINT64_C(0x3b0008000000), GIB));
    else
        FAILS(address_permitted("store", UINT64_C(0x3b0008000000), GIB), STEAD_ADDRESS_TAKEN);
    OK(address_permitted("store", UINT64_C(0x7e8008000000), GIB));
}
