/*
 * sync.c -- semaphores and events by name, and what of ours lives in memory without a file.
 *
 * The words are lock/semaphore.h's; this file only finds them.  A named one is a 4096-byte file in /dev/shm, whose name
 * says what it is.  It is made whole under a name that nobody opens and then linked (EEXIST: somebody else was first), so
 * a creator killed half-way leaves nothing that an opener could take for a semaphore.
 *
 * A name opened twice in a process is mapped twice; both mappings are the same words.  _close() must know what it is given
 * (mapped, local, or in place), so open ones are in a list under a mutex; wait and signal never look there.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lock/semaphore.h"
#include "persist/file.h"
#include "store/call.h"

#define SYNC_NAME_BYTES_MAX 200
#define SYNC_FILE_BYTES 4096
#define SYNC_DIRECTORY "/dev/shm"
#define SYNC_MAGIC UINT64_C(0x31636e7953647453) /* "StdSync1" */

static_assert(sizeof(stead_semaphore) == sizeof(struct semaphore_words), "the public type is the words");
static_assert(sizeof(stead_event) == sizeof(struct event_words), "the public type is the words");

enum sync_kind { SYNC_SEMAPHORE, SYNC_EVENT, SYNC_KINDS };

static const char *const kind_names[SYNC_KINDS] = {"semaphore", "event"};
static const char *const prefixes[SYNC_KINDS] = {"stead-semaphore.", "stead-event."};

struct sync_file { /* 4096 bytes */
    uint64_t magic;
    uint32_t kind;
    uint32_t reserved0;
    uint8_t reserved1[48];
    union {
        struct semaphore_words semaphore;
        struct event_words event;
    } words; /* at 64: a cache line of its own */
    uint8_t reserved2[SYNC_FILE_BYTES - 96];
};
static_assert(sizeof(struct sync_file) == SYNC_FILE_BYTES, "frozen");
static_assert(offsetof(struct sync_file, words) == 64, "frozen");

struct open_sync {
    struct sync_file *file;
    bool mapped; /* else local: from calloc */
    struct open_sync *next;
};

static pthread_mutex_t list_mutex = PTHREAD_MUTEX_INITIALIZER; /* across a fork as well: the child may open and close */
static pthread_once_t list_once = PTHREAD_ONCE_INIT;
static struct open_sync *list;

static void list_lock(void)
{
    pthread_mutex_lock(&list_mutex);
}

static void list_unlock(void)
{
    pthread_mutex_unlock(&list_mutex);
}

static void list_init(void)
{
    (void)pthread_atfork(list_lock, list_unlock, list_unlock);
}

static int sync_path(char path[FILE_PATH_BYTES], enum sync_kind kind, const char *name)
{
    size_t length = strnlen(name, SYNC_NAME_BYTES_MAX + 1);
    if (length == 0 || length > SYNC_NAME_BYTES_MAX || strchr(name, '/') != NULL)
        return error_set(EINVAL, "\"%.200s\" is no %s name: 1 to %d bytes without '/'", name, kind_names[kind],
                         SYNC_NAME_BYTES_MAX);
    (void)snprintf(path, FILE_PATH_BYTES, "%s/%s%s", SYNC_DIRECTORY, prefixes[kind], name);
    return 0;
}

static int no_argument(const char *what)
{
    return error_set(EINVAL, "the %s that the call was given is NULL", what);
}

static void sync_format(struct sync_file *file, enum sync_kind kind, unsigned value)
{
    memset(file, 0, sizeof *file);
    file->magic = SYNC_MAGIC;
    file->kind = (uint32_t)kind;
    if (kind == SYNC_SEMAPHORE)
        semaphore_format(&file->words.semaphore, value);
    else
        event_format(&file->words.event, value != 0);
}

/* 0, EEXIST, errno. */
static int sync_create(const char *path, enum sync_kind kind, unsigned value)
{
    char temporary[FILE_PATH_BYTES + 24];
    struct sync_file fresh;
    int fd;
    sync_format(&fresh, kind, value);
    int rc = file_open_nameless(&fd, path, 0600, temporary);
    if (rc != 0)
        return rc;
    rc = file_write_at(fd, &fresh, sizeof fresh, 0);
    if (rc == 0)
        rc = file_link_nameless(fd, path, temporary);
    file_drop_nameless(fd, temporary);
    return rc;
}

static int sync_map(struct sync_file **out, const char *path, enum sync_kind kind, bool writable)
{
    uint64_t bytes;
    int fd;
    /* Anybody may put anything there: a fifo must not make us wait for its other end. */
    int rc = file_open_path(&fd, path, (writable ? O_RDWR : O_RDONLY) | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW, 0);
    if (rc != 0)
        return rc;
    rc = file_size(fd, &bytes);
    if (rc == 0 && bytes != SYNC_FILE_BYTES)
        rc = error_set(STEAD_CORRUPT, "%s is no %s of stead", path, kind_names[kind]);
    void *at = rc != 0 ? MAP_FAILED
                       : mmap(NULL, SYNC_FILE_BYTES, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);
    if (rc == 0 && at == MAP_FAILED)
        rc = errno;
    close(fd);
    if (rc != 0)
        return rc;
    struct sync_file *file = at;
    if (file->magic != SYNC_MAGIC || file->kind != (uint32_t)kind) {
        munmap(at, SYNC_FILE_BYTES);
        return error_set(STEAD_CORRUPT, "%s is no %s of stead", path, kind_names[kind]);
    }
    *out = file;
    return 0;
}

static int open_named(struct sync_file **out, enum sync_kind kind, const char *name, unsigned value)
{
    char path[FILE_PATH_BYTES];
    int rc = sync_path(path, kind, name);
    if (rc != 0)
        return rc;
    do {
        rc = sync_map(out, path, kind, true);
        if (rc != ENOENT)
            return error_keep(rc);
        rc = sync_create(path, kind, value);
    } while (rc == 0 || rc == EEXIST); /* ends: each turn another process would have to remove it again */
    return error_keep(rc);
}

static int sync_open(void **out, enum sync_kind kind, const char *name, unsigned value)
{
    *out = NULL;
    struct open_sync *entry = calloc(1, sizeof *entry);
    if (entry == NULL)
        return error_set(ENOMEM, "no memory to open a %s", kind_names[kind]);
    (void)pthread_once(&list_once, list_init);
    entry->mapped = name != NULL;
    int rc = 0;
    if (name != NULL)
        rc = open_named(&entry->file, kind, name, value);
    else if ((entry->file = aligned_alloc(64, sizeof *entry->file)) == NULL)
        rc = error_set(ENOMEM, "no memory to open a %s", kind_names[kind]);
    else
        sync_format(entry->file, kind, value);
    if (rc != 0) {
        free(entry);
        return rc;
    }
    list_lock();
    entry->next = list;
    list = entry;
    list_unlock();
    *out = &entry->file->words;
    return 0;
}

static int sync_close(void *words)
{
    struct open_sync *entry = NULL;
    list_lock();
    for (struct open_sync **at = &list; *at != NULL; at = &(*at)->next)
        if ((void *)&(*at)->file->words == words) {
            entry = *at;
            *at = entry->next;
            break;
        }
    list_unlock();
    if (entry == NULL)
        return error_set(EINVAL, "not an opened semaphore or event: one in place needs no close");
    if (entry->mapped)
        munmap(entry->file, SYNC_FILE_BYTES);
    else
        free(entry->file);
    free(entry);
    return 0;
}

static int sync_remove(enum sync_kind kind, const char *name)
{
    char path[FILE_PATH_BYTES];
    int rc = sync_path(path, kind, name);
    if (rc == 0)
        rc = file_unlink(path);
    return rc == ENOENT ? error_set(rc, "there is no %s named \"%s\"", kind_names[kind], name) : error_keep(rc);
}

/* Waiting and signaling write to the words. */
static int may_use(const void *words)
{
    if (words == NULL)
        return no_argument("semaphore or event");
    const struct stead *s = registry_find(words);
    int rc = s == NULL ? 0 : store_enter(s);
    if (rc == 0 && s != NULL && s->read_only)
        rc = error_set(EPERM, "%s is open read-only: a semaphore or event in it cannot be used", s->file.path);
    return rc;
}

static int64_t wait_deadline(int timeout_ms)
{
    return timeout_ms == 0 ? 0 : deadline_after_ms(timeout_ms);
}

/* One in place: whoever signaled may have extended the store it lies in, and left pointers there. */
static int waited(const void *words, enum sync_kind kind, int rc)
{
    struct stead *s = rc == 0 ? registry_find(words) : NULL;
    if (s != NULL)
        store_follow(s);
    if (rc == EBUSY || rc == ETIMEDOUT)
        return error_set(rc, "the %s at %p was not signaled%s", kind_names[kind], words, rc == EBUSY ? "" : " in time");
    return error_keep(rc);
}

/* ---- semaphore */

int stead_semaphore_open(stead_semaphore **out, const char *name, unsigned value)
{
    NOT_CANCELLED;
    void *words;
    if (out == NULL)
        return no_argument("place for the handle");
    *out = NULL;
    if (value > INT32_MAX)
        return error_set(EINVAL, "a semaphore's value is at most 2147483647");
    int rc = sync_open(&words, SYNC_SEMAPHORE, name, value);
    if (rc == 0)
        *out = words;
    return rc;
}

int stead_semaphore_init(stead_semaphore *semaphore)
{
    int rc = may_use(semaphore);
    if (rc == 0)
        semaphore_format((struct semaphore_words *)semaphore, 0);
    return rc;
}

int stead_semaphore_wait(stead_semaphore *semaphore, int timeout_ms)
{
    int rc = may_use(semaphore);
    return rc != 0 ? rc
                   : waited(semaphore, SYNC_SEMAPHORE,
                            semaphore_wait((struct semaphore_words *)semaphore, wait_deadline(timeout_ms)));
}

int stead_semaphore_signal(stead_semaphore *semaphore, unsigned n)
{
    int rc = may_use(semaphore);
    return rc != 0 ? rc : error_keep(semaphore_signal((struct semaphore_words *)semaphore, n));
}

int stead_semaphore_close(stead_semaphore *semaphore)
{
    NOT_CANCELLED;
    return sync_close(semaphore);
}

int stead_semaphore_remove(const char *name)
{
    NOT_CANCELLED;
    return name == NULL ? no_argument("name") : sync_remove(SYNC_SEMAPHORE, name);
}

/* ---- event */

int stead_event_open(stead_event **out, const char *name, bool signaled)
{
    NOT_CANCELLED;
    void *words;
    if (out == NULL)
        return no_argument("place for the handle");
    *out = NULL;
    int rc = sync_open(&words, SYNC_EVENT, name, signaled);
    if (rc == 0)
        *out = words;
    return rc;
}

int stead_event_init(stead_event *event)
{
    int rc = may_use(event);
    if (rc == 0)
        event_format((struct event_words *)event, false);
    return rc;
}

int stead_event_wait(stead_event *event, int timeout_ms)
{
    int rc = may_use(event);
    return rc != 0 ? rc : waited(event, SYNC_EVENT, event_wait((struct event_words *)event, wait_deadline(timeout_ms)));
}

int stead_event_signal(stead_event *event)
{
    int rc = may_use(event);
    return rc != 0 ? rc : error_keep(event_signal((struct event_words *)event));
}

int stead_event_reset(stead_event *event)
{
    int rc = may_use(event);
    return rc != 0 ? rc : error_keep(event_reset((struct event_words *)event));
}

int stead_event_close(stead_event *event)
{
    NOT_CANCELLED;
    return sync_close(event);
}

int stead_event_remove(const char *name)
{
    NOT_CANCELLED;
    return name == NULL ? no_argument("name") : sync_remove(SYNC_EVENT, name);
}

/* ---- what lies in memory */

int stead_sync_value(const char *name, const char *kind, unsigned *value)
{
    NOT_CANCELLED;
    char path[FILE_PATH_BYTES];
    struct sync_file *file;
    enum sync_kind which = SYNC_SEMAPHORE;
    if (name == NULL || kind == NULL || value == NULL)
        return no_argument(name == NULL ? "name" : kind == NULL ? "kind" : "place for the value");
    while (which < SYNC_KINDS && strcmp(kind, kind_names[which]) != 0)
        which++;
    if (which == SYNC_KINDS)
        return error_set(EINVAL, "\"%s\" is neither a semaphore nor an event", kind);
    int rc = sync_path(path, which, name);
    if (rc == 0)
        rc = sync_map(&file, path, which, false);
    if (rc == ENOENT)
        return error_set(ENOENT, "there is no %s named \"%s\"", kind, name);
    if (rc != 0)
        return error_about(rc, name);
    *value = which == SYNC_SEMAPHORE ? semaphore_value(&file->words.semaphore) : event_is_signaled(&file->words.event);
    munmap(file, SYNC_FILE_BYTES);
    return 0;
}

int stead_each_section(int (*visit)(const char *name, const char *kind, void *arg), void *arg)
{
    NOT_CANCELLED;
    static const char store_prefix[] = FILE_SECTION_PREFIX;
    const char *store_file_prefix = strrchr(store_prefix, '/') + 1;
    if (visit == NULL)
        return no_argument("visit");
    DIR *directory = opendir(SYNC_DIRECTORY);
    if (directory == NULL)
        return error_set(errno, "%s cannot be listed", SYNC_DIRECTORY);
    int rc = 0;
    for (struct dirent *entry; rc == 0 && (entry = readdir(directory)) != NULL;) {
        char name[sizeof entry->d_name + 8];
        if (strncmp(entry->d_name, store_file_prefix, strlen(store_file_prefix)) == 0) {
            (void)snprintf(name, sizeof name, "shm:%s", entry->d_name + strlen(store_file_prefix));
            rc = visit(name, "store", arg);
        }
        for (unsigned kind = 0; rc == 0 && kind < SYNC_KINDS; kind++)
            if (strncmp(entry->d_name, prefixes[kind], strlen(prefixes[kind])) == 0)
                rc = visit(entry->d_name + strlen(prefixes[kind]), kind_names[kind], arg);
    }
    closedir(directory);
    return rc;
}
