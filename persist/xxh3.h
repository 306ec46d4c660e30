/*
 * xxh3.h -- XXH3, in the widest vectors that this processor has.
 *
 * libxxhash is compiled for the oldest processor of its kind.  Where it also brings versions chosen at run time (x86-64;
 * the build looks), those are taken: a page's checksum then costs a third.  The static libxxhash.a may lack what the
 * shared one has, so the references are weak: a program that is linked with it (-static) takes the plain versions.
 */
#ifndef STEAD_PERSIST_XXH3_H
#define STEAD_PERSIST_XXH3_H

#include <xxhash.h>

#ifdef STEAD_XXHASH_DISPATCH
/* As xxh_x86dispatch.h declares them, but weak. */
XXH64_hash_t XXH3_64bits_dispatch(const void *input, size_t bytes) __attribute__((weak));
XXH128_hash_t XXH3_128bits_dispatch(const void *input, size_t bytes) __attribute__((weak));
XXH_errorcode XXH3_128bits_update_dispatch(XXH3_state_t *state, const void *input, size_t bytes) __attribute__((weak));

static inline XXH64_hash_t xxh3_64bits(const void *input, size_t bytes)
{
    return XXH3_64bits_dispatch != NULL ? XXH3_64bits_dispatch(input, bytes) : XXH3_64bits(input, bytes);
}

static inline XXH128_hash_t xxh3_128bits(const void *input, size_t bytes)
{
    return XXH3_128bits_dispatch != NULL ? XXH3_128bits_dispatch(input, bytes) : XXH3_128bits(input, bytes);
}

static inline XXH_errorcode xxh3_128bits_update(XXH3_state_t *state, const void *input, size_t bytes)
{
    return XXH3_128bits_update_dispatch != NULL ? XXH3_128bits_update_dispatch(state, input, bytes)
                                                : XXH3_128bits_update(state, input, bytes);
}

#undef XXH3_64bits
#undef XXH3_128bits
#undef XXH3_128bits_update
#define XXH3_64bits xxh3_64bits
#define XXH3_128bits xxh3_128bits
#define XXH3_128bits_update xxh3_128bits_update
#endif

#endif
