/*
 * alloc_turns.c -- processes that are measured by turns.
 *
 * Why: the machine changes its speed by half within a minute, and a sample of a second taken after another one of a second is
 * then of another machine.  So all peers are there at once, each in a process of its own, and one runs while the others
 * wait: a slice of a tenth of a second, then the next peer.  What is compared is slices of the same round.
 *
 * A byte in one pipe grants a turn, a byte in the other gives it back.  A process that ends or is killed closes its
 * ends, so nobody waits for it; one whose parent died reads the end of its pipe and ends, too.
 */
#include "alloc_turns.h"

#include <errno.h>
#include <sys/wait.h>
#include <unistd.h>

static int own_go = -1, own_done = -1; /* in the process */

static bool read_byte(int fd)
{
    char byte;
    ssize_t got;
    do
        got = read(fd, &byte, 1);
    while (got < 0 && errno == EINTR);
    return got == 1;
}

bool turns_fork(struct turns_process *process, void (*body)(void *arg), void *arg)
{
    int go[2], done[2];
    *process = (struct turns_process){0};
    if (pipe(go) != 0)
        return false;
    if (pipe(done) != 0)
        goto close_go;
    process->pid = fork();
    if (process->pid < 0)
        goto close_done;
    if (process->pid == 0) {
        close(go[1]);
        close(done[0]);
        own_go = go[0];
        own_done = done[1];
        if (read_byte(own_go))
            body(arg);
        _exit(0);
    }
    close(go[0]);
    close(done[1]);
    process->go = go[1];
    process->done = done[0];
    return true;
close_done:
    close(done[0]);
    close(done[1]);
close_go:
    close(go[0]);
    close(go[1]);
    process->pid = 0;
    return false;
}

bool turns_grant(struct turns_process *process, bool *ended)
{
    int status;
    *ended = write(process->go, "", 1) != 1 || !read_byte(process->done);
    if (!*ended)
        return true;
    close(process->go);
    close(process->done);
    bool well = waitpid(process->pid, &status, 0) == process->pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    process->pid = 0;
    return well;
}

void turn_next(void)
{
    if (write(own_done, "", 1) != 1 || !read_byte(own_go))
        _exit(1);
}
