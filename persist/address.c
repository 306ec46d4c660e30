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
 * Slots: each window is cut into slots of a power of two, 128 GiB or as much as the capacity needs.  The base is
 * 2 MiB-aligned and one GiB behind the slot's start, so that guards of neighbours never meet; a store may raise its
 * capacity to the slot's end.  Which slot: a hash of the store's id, then the next ones, until one is free in this
 * process.  Stores that were made in different processes may hash to one slot (1 in 400 for a pair); then only one of
 * them can be open in a process at a time, which STEAD_ADDRESS_TAKEN says, and options.address avoids.
 *
 *   S11  two slots of one size never overlap, and every base with its slot and guards lies inside a window
 */
#include "persist/address.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>
#include <xxhash.h>

#include "base/error.h"
#include "base/units.h"

#define GIB (UINT64_C(1) << 30)
#define SLOT_BYTES_MIN (128 * GIB)
#define SLOT_BYTES_MIN_TIGHT (4 * GIB) /* where a tool leaves a quarter of a TiB below the range of ASLR */
#define SLOT_MARGIN GIB /* before the base and after the end */

struct window {
    uint64_t start, end;
};

static const struct window plain_windows[] = {
    {UINT64_C(0x3b0000000000), UINT64_C(0x500000000000)},
    {UINT64_C(0x150000000000), UINT64_C(0x2a0000000000)},
    {UINT64_C(0x660000000000), UINT64_C(0x6f0000000000)},
};
static const struct window thread_sanitizer_windows[] = {{UINT64_C(0x7e8000000000), UINT64_C(0x7ec000000000)}};
static const struct window memory_sanitizer_windows[] = {{UINT64_C(0x780000000000), UINT64_C(0x7e0000000000)}};

/* Defined when the program was linked with the tool, whatever this library was compiled with. */
extern void __tsan_init(void) __attribute__((weak)); /* NOLINT: names given by the tools */
extern void __msan_init(void) __attribute__((weak)); /* NOLINT */

static const struct window *windows_of_process(unsigned *count, const char **tool)
{
    *count = 1;
    if (__tsan_init != NULL) {
        *tool = "ThreadSanitizer";
        return thread_sanitizer_windows;
    }
    if (__msan_init != NULL) {
        *tool = "MemorySanitizer";
        return memory_sanitizer_windows;
    }
    *tool = NULL;
    *count = sizeof plain_windows / sizeof *plain_windows;
    return plain_windows;
}

static uint64_t slot_bytes_for(uint64_t capacity_bytes)
{
    uint64_t slot = __tsan_init != NULL ? SLOT_BYTES_MIN_TIGHT : SLOT_BYTES_MIN;
    while (slot < capacity_bytes + 2 * SLOT_MARGIN)
        slot *= 2;
    return slot;
}

/* A window that is too short for the power of two may still be one slot as it is. */
static uint64_t slots_in(const struct window *window, uint64_t slot_bytes, uint64_t capacity_bytes)
{
    uint64_t bytes = window->end - window->start;
    return bytes >= slot_bytes ? bytes / slot_bytes : bytes >= capacity_bytes + 2 * SLOT_MARGIN ? 1 : 0;
}

static bool is_free(uint64_t base, uint64_t bytes)
{
    void *want = (void *)(uintptr_t)(base - UNIT_BYTES);
    size_t with_guards = (size_t)(bytes + 2 * UNIT_BYTES);
    void *got = mmap(want, with_guards, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE,
                     -1, 0);
    if (got == MAP_FAILED)
        return false;
    (void)munmap(got, with_guards);
    return got == want;
}

int address_choose(const uint8_t id[16], uint64_t capacity_bytes, uint64_t *base, uint64_t *slot_bytes)
{
    unsigned window_count;
    const char *tool;
    const struct window *windows = windows_of_process(&window_count, &tool);
    uint64_t total = 0, slot = 0;
    if (capacity_bytes <= windows[0].end) { /* no overflow below */
        slot = slot_bytes_for(capacity_bytes);
        for (unsigned i = 0; i < window_count; i++)
            total += slots_in(&windows[i], slot, capacity_bytes);
    }
    uint64_t first = total == 0 ? 0 : XXH3_64bits(id, 16) % total;
    for (uint64_t n = 0; n < total; n++) {
        uint64_t index = (first + n) % total;
        unsigned i = 0;
        for (; index >= slots_in(&windows[i], slot, capacity_bytes); i++)
            index -= slots_in(&windows[i], slot, capacity_bytes);
        uint64_t length = min_u64(slot, windows[i].end - windows[i].start);
        *base = windows[i].start + index * slot + SLOT_MARGIN;
        *slot_bytes = length - 2 * SLOT_MARGIN;
        if (is_free(*base, capacity_bytes))
            return 0;
    }
    return error_set(ENOMEM, "no free range of addresses for a capacity of %" PRIu64 " bytes (%" PRIu64
                     " slots looked at%s%s); name one with options.address, or ask for less capacity",
                     capacity_bytes, total, tool == NULL ? "" : " under ", tool == NULL ? "" : tool);
}

int address_permitted(const char *what, uint64_t base, uint64_t bytes)
{
    /* ThreadSanitizer: what it calls the application's high range; anything else ends the process. */
    if (__tsan_init == NULL || (base > thread_sanitizer_windows[0].start &&
                                base - UNIT_BYTES >= thread_sanitizer_windows[0].start &&
                                bytes <= UINT64_C(0x7fff00000000) - base))
        return 0;
    return error_set(STEAD_ADDRESS_TAKEN, "%.300s must be mapped at 0x%" PRIx64 "-0x%" PRIx64
                     ", but ThreadSanitizer owns that range in this process", what, base, base + bytes);
}
