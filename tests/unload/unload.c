/*
 * unload.c -- a program that loads the library at run time, uses a store in a thread, and unloads it before the thread ends.
 *
 *   unload LIBRARY PATH
 *
 * The library has something to do when a thread ends, and in a fork's child: its code must still be there.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "stead.h"

#define MUST(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            exit(1); \
        } \
    } while (0)

static void *library;
static const char *store_path;
static pthread_barrier_t used, unloaded;

/* A function by name; a pointer to data and one to code are the same here, but not in C. */
static void symbol(const char *name, void *function)
{
    void *at = dlsym(library, name);
    MUST(at != NULL);
    memcpy(function, &at, sizeof at);
}

static void *use(void *arg)
{
    int (*open_store)(stead **, const char *, const stead_options *);
    int (*close_store)(stead *);
    int (*lock)(stead *, stead_lock_mode, int);
    int (*unlock)(stead *);
    void *(*allocate)(stead *, size_t);
    stead *s;
    symbol("stead_open", &open_store);
    symbol("stead_close", &close_store);
    symbol("stead_lock", &lock);
    symbol("stead_unlock", &unlock);
    symbol("stead_malloc", &allocate);
    MUST(open_store(&s, store_path, NULL) == 0);
    MUST(lock(s, STEAD_EXCLUSIVE, -1) == 0);
    MUST(allocate(s, 100) != NULL);
    MUST(unlock(s) == 0);
    MUST(close_store(s) == 0);
    pthread_barrier_wait(&used);
    pthread_barrier_wait(&unloaded);
    return arg;
}

int main(int argc, char **argv)
{
    pthread_t thread;
    int status;
    MUST(argc == 3);
    store_path = argv[2];
    library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        fprintf(stderr, "%s\n", dlerror());
    MUST(library != NULL);
    pthread_barrier_init(&used, NULL, 2);
    pthread_barrier_init(&unloaded, NULL, 2);
    MUST(pthread_create(&thread, NULL, use, NULL) == 0);
    pthread_barrier_wait(&used);
    MUST(dlclose(library) == 0);
    pthread_barrier_wait(&unloaded);
    MUST(pthread_join(thread, NULL) == 0);
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    MUST(child > 0 && waitpid(child, &status, 0) == child && status == 0);
    MUST(unlink(store_path) == 0);
    return 0;
}
