/*
 * guard.h -- tells AddressSanitizer and valgrind which bytes of the heap are blocks, so that an overrun or a use after
 * free in a stead heap is reported as in malloc.  Nothing at all in other builds.
 *
 * Only where the host allows it (heap_host.guards): whoever copies whole pages of the heap would trip over the poison,
 * heap_guard_pause() lifts it for that time; and a second process does not know what the first one poisoned.
 */
#ifndef STEAD_ALLOC_GUARD_H
#define STEAD_ALLOC_GUARD_H

#include <stddef.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define GUARD_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) && !defined(GUARD_ASAN)
#define GUARD_ASAN 1
#endif

#if defined(GUARD_ASAN)
#include <sanitizer/asan_interface.h>
#define GUARD_ACTIVE 1
#define GUARD_HIDE(p, bytes) ASAN_POISON_MEMORY_REGION((p), (bytes))
#define GUARD_SHOW(p, bytes) ASAN_UNPOISON_MEMORY_REGION((p), (bytes))
#define GUARD_SHOW_ZEROED(p, bytes) ASAN_UNPOISON_MEMORY_REGION((p), (bytes))
#elif defined(STEAD_VALGRIND)
#include <valgrind/memcheck.h>
#define GUARD_ACTIVE 1
#define GUARD_HIDE(p, bytes) (void)VALGRIND_MAKE_MEM_NOACCESS((p), (bytes))
#define GUARD_SHOW(p, bytes) (void)VALGRIND_MAKE_MEM_UNDEFINED((p), (bytes))
#define GUARD_SHOW_ZEROED(p, bytes) (void)VALGRIND_MAKE_MEM_DEFINED((p), (bytes))
#else
#define GUARD_ACTIVE 0
#define GUARD_HIDE(p, bytes) ((void)(p), (void)(bytes))
#define GUARD_SHOW(p, bytes) ((void)(p), (void)(bytes))
#define GUARD_SHOW_ZEROED(p, bytes) ((void)(p), (void)(bytes))
#endif

#endif
