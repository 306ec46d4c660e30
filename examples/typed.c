/*
 * typed.c -- a section that is one struct, reached through accessors that take the lock.
 *
 * The questions that such wrappers used to leave open have answers here: who initialises (stead_root_once: exactly one
 * opener, however many race, and dying half-way leaves nothing), and who cleans up (`stead rm --stale`).
 *
 *   typed STORE get | typed STORE set N | typed STORE add N      STORE is a file or shm:NAME
 */
#include <stead.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct data {
    int i;
    unsigned long writes;
};

struct shared_data { /* this process's view */
    stead *store;
    struct data *data;
};

static void data_init(void *root, void *arg)
{
    (void)arg;
    *(struct data *)root = (struct data){.i = 7};
    puts("initialised"); /* printed once in the life of the section */
}

static int shared_data_open(struct shared_data *shared, const char *name)
{
    int rc = stead_open(&shared->store, name, &(stead_options){.sharing = STEAD_LIVE, .timeout_ms = -1});
    if (rc != 0)
        return rc;
    rc = stead_root_once(shared->store, sizeof(struct data), data_init, NULL, (void **)&shared->data);
    if (rc != 0)
        stead_abandon(shared->store);
    return rc;
}

static int shared_data_get(const struct shared_data *shared)
{
    int i = 0;
    STEAD_LOCKED(shared->store, STEAD_SHARED)
    {
        i = shared->data->i;
    }
    return i;
}

/* add: n is added to what is there, else it replaces it. */
static int shared_data_put(struct shared_data *shared, int n, bool add)
{
    int i = 0;
    STEAD_LOCKED(shared->store, STEAD_EXCLUSIVE)
    {
        i = shared->data->i = add ? shared->data->i + n : n;
        shared->data->writes++;
    }
    return i;
}

int main(int argc, char **argv)
{
    bool get = argc == 3 && strcmp(argv[2], "get") == 0;
    bool add = argc == 4 && strcmp(argv[2], "add") == 0;
    if (!get && !add && !(argc == 4 && strcmp(argv[2], "set") == 0)) {
        fprintf(stderr, "usage: typed STORE get | typed STORE set N | typed STORE add N\n");
        return 2;
    }
    struct shared_data shared;
    if (shared_data_open(&shared, argv[1]) != 0) {
        fprintf(stderr, "typed: %s\n", stead_last_error_text());
        return 1;
    }
    printf("%d\n", get ? shared_data_get(&shared) : shared_data_put(&shared, atoi(argv[3]), add));
    return stead_close(shared.store) != 0;
}
