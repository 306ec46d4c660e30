/*
 * held_off.c -- commits that wait for their way into the file, and who is in that way.
 *
 * The file may change only while no section of a reader looks at it and no backup copies it.  Who stays in one - or is stopped
 * in it - costs the writer a log that grows to its limit, and memory (persist/limit.c); then commits fail.  People want to
 * know who it is before that.  So the writer tells in the lock unit how much waits, and since when its tries
 * were in vain; the holder is asked for when somebody wants to know, because he may have gone since the last try.
 *
 * Writers are told by stead_last_error_text(), everybody by stead_stat.  Readers without write permission hold a lock of
 * the kernel's, which names nobody: then there is a "since", and no pid.
 *
 * The words are hints for people, each atomic; with the store lock held exclusively (TURNS: the turn) one process writes them.
 */
#include <errno.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "store/call.h"

void held_off_note(struct stead *s, bool in_vain)
{
    _Atomic int64_t *since = &s->unit->held_off_since_s;
    bool known = atomic_load_explicit(since, memory_order_relaxed) != 0;
    if (known != in_vain)
        atomic_store_explicit(since, in_vain ? (int64_t)time(NULL) : 0, memory_order_relaxed);
}

void held_off_publish(struct stead *s)
{
    uint64_t bytes = image_waiting_bytes(s->image);
    if (s->unit != NULL && s->has_slot && atomic_load_explicit(&s->unit->waiting_bytes, memory_order_relaxed) != bytes)
        atomic_store_explicit(&s->unit->waiting_bytes, bytes, memory_order_relaxed);
}

struct holder {
    pid_t other; /* 0: none with a slot */
    bool own;    /* this process, by a backup or a check */
};

static int find_holder(const struct rwlock_info *info, void *arg)
{
    struct holder *holder = arg;
    if (info->waiting || !info->alive)
        return 0;
    if (info->pid == getpid())
        holder->own = true;
    else
        holder->other = info->pid;
    return holder->other != 0;
}

static struct holder find(const struct stead *s)
{
    struct holder holder = {0};
    (void)rwlock_each_in(lock_unit_region(s->unit), RWLOCK_APPLY, s->presence, s->lock_fd, find_holder, &holder);
    return holder;
}

int held_off_explain(const struct stead *s, int code, const char *what)
{
    char who[64] = "the section of a reader (who has no slot)";
    struct holder holder = find(s);
    if (holder.other != 0)
        (void)snprintf(who, sizeof who, "the section of a reader (process %ld)", (long)holder.other);
    else if (holder.own)
        (void)snprintf(who, sizeof who, "a backup or a check by this process");
    int64_t since = atomic_load(&s->unit->held_off_since_s), now = (int64_t)time(NULL);
    return error_set(code, "%s: %s and %s holds off its application, for %lld s by now", s->file.path, what, who,
                     (long long)(since != 0 && now > since ? now - since : 0));
}

void held_off_fill(const struct stead *s, stead_status *status)
{
    if (s->unit == NULL || s->sharing == STEAD_LIVE)
        return;
    if (s->read_only && presence_writer_pid(lock_unit_region(s->unit), s->lock_fd) == 0)
        return; /* what is there is of the dead */
    status->waiting_bytes = atomic_load(&s->unit->waiting_bytes);
    int64_t since = atomic_load(&s->unit->held_off_since_s);
    pid_t pid = since != 0 ? find(s).other : 0;
    if (pid == 0 && (since == 0 || !lock_byte_taken(s->lock_fd, LOCK_BYTE_APPLY, 1)))
        return; /* nobody, or he has gone since the writer tried */
    status->held_off_pid = pid;
    status->held_off_since = (time_t)since;
}
