/*
 * fifo.c -- producers and consumers on one queue in a LIVE store.
 *
 *   fifo STORE produce N [PAUSE_MS]    puts N messages into the queue
 *   fifo STORE consume [SILENCE_S]     takes messages until none came for 10 (SILENCE_S) seconds
 *
 * Any number of both, in any order.  The semaphore counts messages, the event is signaled while there is room; both
 * live in the store, beside what they guard.  Whoever is killed in here takes nothing with him: the list is whole after
 * every single store to memory (a message is complete before the one write that links it; it is unlinked by one write
 * before it is freed), and what follows from the list - last, length - is made again by the next one who gets the lock
 * and is told EOWNERDEAD.
 */
#if !defined(_DEFAULT_SOURCE) && !defined(_GNU_SOURCE)
#define _DEFAULT_SOURCE /* usleep, also with -std=c11 */
#endif
#include <stead.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ROOM 1000 /* messages */

struct message {
    struct message *next;
    unsigned long number;
};

struct queue {
    struct message *first, *last;
    unsigned long length, next_number;
    stead_semaphore filled; /* one up for each message put */
    stead_event room;       /* signaled while length < ROOM */
};

static void queue_init(void *root, void *arg)
{
    struct queue *queue = root;
    (void)arg;
    if (stead_semaphore_init(&queue->filled) != 0 || stead_event_init(&queue->room) != 0)
        abort();
    stead_event_signal(&queue->room);
}

static int queue_lock(stead *s, struct queue *queue)
{
    int rc = stead_lock(s, STEAD_EXCLUSIVE, -1);
    if (rc != EOWNERDEAD)
        return rc;
    queue->length = 0;
    queue->last = NULL;
    for (struct message *m = queue->first; m != NULL; m = m->next) {
        queue->length++;
        queue->last = m;
        if (m->number >= queue->next_number)
            queue->next_number = m->number + 1;
    }
    stead_event_signal(&queue->room); /* at worst one message too many fits */
    return stead_make_consistent(s);
}

static int queue_put(stead *s, struct queue *queue)
{
    for (;;) {
        int rc = stead_event_wait(&queue->room, -1);
        if (rc == 0)
            rc = queue_lock(s, queue);
        if (rc != 0)
            return rc;
        bool room = queue->length < ROOM;
        if (room) {
            struct message *m = stead_new(s, struct message);
            if (m == NULL) {
                stead_unlock(s);
                return errno;
            }
            m->number = queue->next_number++;
            *(queue->first == NULL ? &queue->first : &queue->last->next) = m; /* from here on it is in the queue */
            queue->last = m;
            queue->length++;
        }
        if (queue->length >= ROOM)
            stead_event_reset(&queue->room);
        stead_unlock(s);
        if (room)
            return stead_semaphore_signal(&queue->filled, 1);
    }
}

/* 0 with *number, or ETIMEDOUT after a silence. */
static int queue_take(stead *s, struct queue *queue, int silence_ms, unsigned long *number)
{
    int rc = stead_semaphore_wait(&queue->filled, silence_ms);
    if (rc != 0 && rc != ETIMEDOUT && rc != EBUSY)
        return rc;
    /* After a silence look all the same: somebody may have died between his message and his signal. */
    rc = queue_lock(s, queue);
    if (rc != 0)
        return rc;
    struct message *m = queue->first;
    if (m == NULL) {
        stead_unlock(s);
        return ETIMEDOUT;
    }
    *number = m->number;
    queue->first = m->next; /* from here on it is taken */
    if (queue->first == NULL)
        queue->last = NULL;
    queue->length--;
    stead_free(m);
    stead_event_signal(&queue->room);
    return stead_unlock(s);
}

static int produce(stead *s, struct queue *queue, unsigned long count, unsigned pause_ms)
{
    for (unsigned long i = 0; i < count; i++) {
        int rc = queue_put(s, queue);
        if (rc != 0)
            return rc;
        if (pause_ms > 0)
            usleep(pause_ms * 1000);
    }
    printf("produced %lu\n", count);
    return 0;
}

static int consume(stead *s, struct queue *queue, int silence_ms)
{
    unsigned long count = 0, number, before = 0;
    int rc;
    while ((rc = queue_take(s, queue, silence_ms, &number)) == 0) {
        if (count++ > 0 && number <= before)
            return EPROTO; /* first in, first out: one consumer's numbers only grow */
        before = number;
    }
    printf("consumed %lu\n", count);
    return rc == ETIMEDOUT ? 0 : rc;
}

int main(int argc, char **argv)
{
    bool producer = argc >= 4 && strcmp(argv[2], "produce") == 0;
    if (!producer && !(argc >= 3 && strcmp(argv[2], "consume") == 0)) {
        fprintf(stderr, "usage: fifo STORE produce N [PAUSE_MS] | fifo STORE consume [SILENCE_S]\n");
        return 2;
    }
    stead *s;
    void *queue;
    stead_options options = {.sharing = STEAD_LIVE, .flags = STEAD_ACCEPT_UNCLEAN, .timeout_ms = -1};
    int rc = stead_open(&s, argv[1], &options);
    if (rc == 0)
        rc = stead_root_once(s, sizeof(struct queue), queue_init, NULL, &queue);
    if (rc == 0)
        rc = producer ? produce(s, queue, strtoul(argv[3], NULL, 10), argc > 4 ? (unsigned)atoi(argv[4]) : 0)
                      : consume(s, queue, argc > 3 ? (int)(atof(argv[3]) * 1000) : 10000);
    if (rc != 0)
        fprintf(stderr, "fifo: %s: %s\n", stead_strerror(rc), stead_last_error_text());
    if (s != NULL && stead_close(s) != 0)
        rc = -1;
    return rc != 0;
}
