/*
 * registry.h -- from a pointer to its store, without a lock.  See registry.c.
 */
#ifndef STEAD_STORE_REGISTRY_H
#define STEAD_STORE_REGISTRY_H

struct stead;

/* The store whose range p lies in; NULL: none of this process. */
struct stead *registry_find(const void *p);

#endif
