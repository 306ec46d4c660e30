/*
 * xxh3.h -- XXH3, in the widest vectors that this processor has.
 *
 * libxxhash is compiled for the oldest processor of its kind.  Where it also brings versions chosen at run time (x86-64;
 * the build looks), those are taken: a page's checksum then costs a third.
 */
#ifndef STEAD_PERSIST_XXH3_H
#define STEAD_PERSIST_XXH3_H

#ifdef STEAD_XXHASH_DISPATCH
#include <xxh_x86dispatch.h> /* XXH3_64bits() and the others become their dispatching versions */
#else
#include <xxhash.h>
#endif

#endif
