/*
 * address.c -- the choice of a base address for a new store.
 *
 * What is taken, x86-64 with 47-bit user addresses and mmap_rnd_bits at its maximum of 32 (28 is usual):
 *
 *   0x0000_0000_0000 ..              program without PIE and its heap, Go's heap (0xc0_0000_0000), Java's heaps
 *   0x0000_7fff_8000 - 0x1000_7fff_8000   AddressSanitizer's shadow
 *   0x2aaa_aaaa_a000 - 0x3aaa_aaaa_a000   mmap going up, under ulimit -s unlimited (TASK_SIZE / 3 + rnd)
 *   0x5555_5555_4000 - 0x6555_5555_4000   PIE program and its heap (TASK_SIZE * 2 / 3 + rnd)
 *   0x5000_0000_0000 - 0x6400_0000_0000   allocators of AddressSanitizer (old and new)
 *   0x6ffc_0000_0000 - 0x7fff_ffff_f000   stack, and mmap going down (TASK_SIZE - stack gap - rnd), and below it
 *                                    whatever a process has mapped: 1 TiB is left for that in what follows
 *
 * Left over are three windows, 51 TiB together, and each is whole on kernels with 48-bit (arm64) or 57-bit addresses.
 * Measured with 64 GiB maps: every slot was free in 400 of 400 runs plain and under AddressSanitizer (gcc 12, clang 14)
 * and under valgrind (test_address.c repeats it).
 *
 * ThreadSanitizer and MemorySanitizer divide the whole address space among themselves and leave to the application what
 * the two special windows name, inside the range of ASLR; a store made under them gets its address there.  Processes
 * under them can open only such stores, which is why tests name an address.
 *
 * Slots: a window is cut into slots of a power of two, 128 GiB or as much as the capacity needs.  The base stands a
 * little behind the slot's start: 128 MiB for the smallest size, 128 MiB more for each doubling, and 192 KiB: then addresses
 * are congruent with file offsets, modulo 2 MiB, from image offset 512 MiB on (format.c: a byte stands 192 KiB and a multiple of 2 MiB
 * further back in the file), and the kernel maps large folios by one fault each (ready.c).  So guards of neighbours
 * never meet, and the base alone tells the slot's size and how far the capacity may be raised.  Which slot: a hash of
 * the store's id, then the next ones, until one is free in this process.  Stores that were made in different processes
 * may hash to overlapping slots (1 in 400 for a pair of default size); then only one of them can be open in a process
 * at a time, which STEAD_ADDRESS_TAKEN says, and options.address avoids.
 *
 *   S11  slots of one size never overlap; base, capacity and guards lie inside their slot; address_fits() of a chosen
 *        base is true exactly up to the end of its slot
 */
#include "persist/address.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <xxhash.h>

#include "base/error.h"
#include "base/units.h"
#include "persist/format.h"

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)
#define MARGIN_STEP (128 * MIB)
#define MARGIN_MIN (MARGIN_STEP + GROUP0_OFFSET) /* congruent with file offsets, see above */
#define ADDRESS_END (UINT64_C(1) << 47) /* of what any slot search may look at; kernels may have less, or more */

struct window {
    uint64_t start, end;
    uint64_t slot_bytes_min; /* a power of two, more than all margins together */
};

static const struct window plain_windows[] = {
    {UINT64_C(0x3b0000000000), UINT64_C(0x500000000000), 128 * GIB},
    {UINT64_C(0x150000000000), UINT64_C(0x2a0000000000), 128 * GIB},
    {UINT64_C(0x660000000000), UINT64_C(0x6f0000000000), 128 * GIB},
};
static const struct window thread_sanitizer_windows[] = {{UINT64_C(0x7e8000000000), UINT64_C(0x7ec000000000), 4 * GIB}};
static const struct window memory_sanitizer_windows[] = {
    {UINT64_C(0x780000000000), UINT64_C(0x7e0000000000), 128 * GIB}};

/* What ThreadSanitizer calls the application's high range. */
#define THREAD_SANITIZER_START UINT64_C(0x7e8000000000)
#define THREAD_SANITIZER_END UINT64_C(0x7fff00000000)

/* Defined when the program was linked with the tool, whatever this library was compiled with. */
extern void __tsan_init(void) __attribute__((weak)); /* names given by the tools */
extern void __msan_init(void) __attribute__((weak));

#define COUNT_OF(array) ((unsigned)(sizeof(array) / sizeof *(array)))

static const struct window *windows_of_process(unsigned *count, const char **tool)
{
    if (__tsan_init != NULL) {
        *tool = "ThreadSanitizer";
        *count = COUNT_OF(thread_sanitizer_windows);
        return thread_sanitizer_windows;
    }
    if (__msan_init != NULL) {
        *tool = "MemorySanitizer";
        *count = COUNT_OF(memory_sanitizer_windows);
        return memory_sanitizer_windows;
    }
    *tool = NULL;
    *count = COUNT_OF(plain_windows);
    return plain_windows;
}

/* ---- slots ---- */

struct slot {
    uint64_t bytes;  /* a power of two                     */
    uint64_t margin; /* from its start to the base         */
};

static struct slot slot_for(const struct window *window, uint64_t capacity_bytes)
{
    struct slot slot = {window->slot_bytes_min, MARGIN_MIN};
    while (slot.bytes < capacity_bytes + slot.margin + MARGIN_STEP) {
        slot.bytes *= 2;
        slot.margin += MARGIN_STEP;
    }
    return slot;
}

/* A window shorter than the power of two is still one slot, if capacity and margins fit. */
static uint64_t slots_in(const struct window *window, uint64_t capacity_bytes)
{
    struct slot slot = slot_for(window, capacity_bytes);
    uint64_t bytes = window->end - window->start;
    return bytes >= slot.bytes ? bytes / slot.bytes : bytes >= capacity_bytes + slot.margin + MARGIN_STEP ? 1 : 0;
}

/* Where the slot with this base ends; 0 if no slot of the window has this base. */
static uint64_t slot_end(const struct window *window, uint64_t base)
{
    if (base < window->start || base >= window->end)
        return 0;
    struct slot slot = {window->slot_bytes_min, MARGIN_MIN};
    uint64_t margin = (base - window->start) % window->slot_bytes_min;
    while (slot.margin < margin && slot.bytes < window->end) {
        slot.bytes *= 2;
        slot.margin += MARGIN_STEP;
    }
    uint64_t start = base - margin - window->start;
    if (slot.margin != margin || start % slot.bytes != 0)
        return 0;
    return min_u64(window->start + start + slot.bytes, window->end);
}

static bool is_free(uint64_t base, uint64_t bytes)
{
    void *want = (void *)(uintptr_t)(base - UNIT_BYTES);
    size_t with_guards = (size_t)(bytes + 2 * UNIT_BYTES);
    void *got =
        mmap(want, with_guards, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    if (got == MAP_FAILED)
        return false;
    (void)munmap(got, with_guards);
    return got == want;
}

int address_choose(const uint8_t id[16], void *wanted, uint64_t capacity_bytes, uint64_t *base)
{
    unsigned window_count;
    const char *tool;
    const struct window *windows = windows_of_process(&window_count, &tool);
    uint64_t total = 0;
    *base = (uint64_t)(uintptr_t)wanted;
    if (wanted != NULL)
        return address_fits(*base, capacity_bytes)
                   ? 0
                   : error_set(EINVAL, "a capacity of %" PRIu64 " bytes at 0x%" PRIx64 " leaves the address space",
                               capacity_bytes, *base);
    for (unsigned i = 0; i < window_count && capacity_bytes < ADDRESS_END; i++)
        total += slots_in(&windows[i], capacity_bytes);
    uint64_t first = total == 0 ? 0 : XXH3_64bits(id, 16) % total;
    for (uint64_t n = 0; n < total; n++) {
        uint64_t index = (first + n) % total;
        unsigned i = 0;
        for (; index >= slots_in(&windows[i], capacity_bytes); i++)
            index -= slots_in(&windows[i], capacity_bytes);
        struct slot slot = slot_for(&windows[i], capacity_bytes);
        *base = windows[i].start + index * slot.bytes + slot.margin;
        if (is_free(*base, capacity_bytes))
            return 0;
    }
    struct rlimit limit;
    if (total != 0 && getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
        return error_set(ENOMEM,
                         "no free range of addresses for a capacity of %" PRIu64
                         " bytes: the limit of this process (ulimit -v) is %" PRIu64 "; ask for less capacity",
                         capacity_bytes, (uint64_t)limit.rlim_cur);
    return error_set(ENOMEM,
                     "no free range of addresses for a capacity of %" PRIu64 " bytes (%" PRIu64
                     " slots%s%s); name one with options.address, or ask for less capacity",
                     capacity_bytes, total, tool == NULL ? "" : " under ", tool == NULL ? "" : tool);
}

bool address_fits(uint64_t base, uint64_t capacity_bytes)
{
    static const struct {
        const struct window *windows;
        unsigned count;
    } all[] = {{plain_windows, COUNT_OF(plain_windows)},
               {thread_sanitizer_windows, COUNT_OF(thread_sanitizer_windows)},
               {memory_sanitizer_windows, COUNT_OF(memory_sanitizer_windows)}};
    if (base % UNIT_BYTES != 0 || base < 2 * UNIT_BYTES || base >= ADDRESS_END || capacity_bytes > ADDRESS_END)
        return false;
    for (unsigned i = 0; i < COUNT_OF(all); i++)
        for (unsigned j = 0; j < all[i].count; j++) {
            uint64_t end = slot_end(&all[i].windows[j], base);
            if (end != 0)
                return base + capacity_bytes + MARGIN_STEP <= end;
        }
    return base + capacity_bytes + UNIT_BYTES <= ADDRESS_END; /* an address that somebody named */
}

int address_permitted(const char *what, uint64_t base, uint64_t bytes)
{
    if (__tsan_init == NULL || (base - UNIT_BYTES >= THREAD_SANITIZER_START && base < THREAD_SANITIZER_END &&
                                bytes <= THREAD_SANITIZER_END - base))
        return 0;
    return error_set(STEAD_ADDRESS_TAKEN,
                     "%.300s must be mapped at 0x%" PRIx64 "-0x%" PRIx64
                     ", but ThreadSanitizer owns that range in this process",
                     what, base, base + bytes);
}
