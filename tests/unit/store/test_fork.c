/* What a fork child keeps of its parent's stores: nothing that holds a lock, and nothing that it could write. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "persist/file.h"
#include "support/support.h"

TestSuite(fork, .init = support_setup, .fini = support_teardown, .timeout = 300);

Test(fork, a_fork_child_keeps_nothing_and_may_open_again)
{
    for (unsigned mode = 0; mode < 3; mode++) {
        char name[8];
        snprintf(name, sizeof name, "f%u", mode);
        stead *s;
        OK(stead_open(&s, path_in(name), &(stead_options){.sharing = (stead_sharing)mode}));
        void *root;
        OK(stead_root_once(s, 64, NULL, NULL, &root));
        uint64_t *a = root;
        OK(stead_lock(s, STEAD_EXCLUSIVE, 0));
        pid_t pid = fork();
        if (pid == 0) {
            CHILD(stead_malloc(s, 8) == NULL && errno == EPERM);
            CHILD(stead_lock(s, STEAD_SHARED, 0) == EPERM);
            CHILD(stead_unlock(s) == EPERM);
            CHILD(stead_commit(s, STEAD_DURABLE) == EPERM);
            stead_free(a);
            if (mode != STEAD_LIVE)
                CHILD(stead_close(s) == 0);
            stead *mine;
            int rc = stead_open(&mine, path_in(name), &(stead_options){.sharing = (stead_sharing)mode});
            CHILD(rc == (mode == STEAD_SOLE ? EBUSY : 0));
            if (rc == 0) {
                CHILD(stead_lock(mine, STEAD_SHARED, 0) == EBUSY);
                CHILD(mode != STEAD_LIVE ||
                      stead_of(stead_root(mine)) == mine); /* at the address of one that was inherited */
                CHILD(stead_close(mine) == 0);
            }
            if (mode == STEAD_LIVE)
                CHILD(stead_close(s) == 0);
            _exit(0);
        }
        REAP_OK(pid);
        a[0]++;
        OK(stead_unlock(s));
        OK(stead_close(s));
    }
}

/* Each handle needs its own close, of which the last one frees what is left. */
Test(fork, a_fork_child_closes_as_often_as_was_opened)
{
    stead *s, *again;
    OK(stead_open(&s, path_in("s"), NULL));
    OK(stead_open(&again, path_in("s"), NULL));
    cr_assert_eq(s, again);
    pid_t pid = fork();
    if (pid == 0) {
        CHILD(stead_close(s) == 0);
        CHILD(stead_malloc(again, 8) == NULL && errno == EPERM); /* it is still there to answer */
        CHILD(strstr(stead_last_error_text(), "fork") != NULL);
        CHILD(stead_close(again) == 0);
        _exit(0);
    }
    REAP_OK(pid);
    OK(stead_close(s));
    OK(stead_close(again));
}

static void leave(void *unused)
{
    (void)unused;
    _exit(0);
}

/* A thread's end gives back what it owns, but in a fork child there is no image to give it back to.  The heap's destructor comes
 * before this test's, whose key is younger. */
Test(fork, a_thread_that_ends_in_a_fork_child_touches_no_store)
{
    for (int mode = STEAD_SOLE; mode <= STEAD_LIVE; mode += STEAD_LIVE) {
        stead *s;
        OK(stead_open(&s, path_in("s"), &(stead_options){.sharing = (stead_sharing)mode}));
        cr_assert_not_null(stead_malloc(s, 100));
        pthread_key_t key;
        cr_assert_eq(pthread_key_create(&key, leave), 0);
        pid_t pid = fork();
        if (pid == 0) {
            CHILD(pthread_setspecific(key, &key) == 0);
            pthread_exit(NULL);
        }
        REAP_OK(pid);
        cr_assert_eq(pthread_key_delete(key), 0);
        OK(stead_close(s));
        OK(stead_remove(path_in("s")));
    }
}

/* True if a descriptor of this process is the store's file. */
static bool has_open(const char *path)
{
    char link[64], target[4096];
    for (int fd = 3; fd < 256; fd++) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(link, target, sizeof target - 1);
        if (length < 0)
            continue;
        target[length] = '\0';
        if (strcmp(target, path) == 0)
            return true;
    }
    return false;
}

static void *open_and_close(void *arg)
{
    atomic_bool *stop = arg;
    while (!atomic_load(stop)) {
        stead *writer, *reader = NULL;
        if (stead_open(&writer, path_in("s"), NULL) != 0 || stead_close(writer) != 0 ||
            stead_open(&reader, path_in("s"), &(stead_options){.flags = STEAD_READ_ONLY}) != 0 ||
            stead_close(reader) != 0)
            return (void *)(uintptr_t) "an open or close failed";
    }
    return NULL;
}

/* Such a descriptor would keep the locks of a parent that died. */
Test(fork, forks_beside_opens_and_closes_inherit_no_descriptor)
{
    atomic_bool stop = false;
    pthread_t thread;
    char *path = realpath(support_folder(), NULL), whole[4096];
    snprintf(whole, sizeof whole, "%s/s", path);
    free(path);
    cr_assert(pthread_create(&thread, NULL, open_and_close, &stop) == 0);
    for (unsigned i = 0; i < (test_long() ? 5000 : 300); i++) {
        pid_t pid = fork();
        if (pid == 0)
            _exit(has_open(whole) ? 1 : 0);
        cr_assert_eq(reap(pid), 0, "fork %u: the child has the store's file open", i);
    }
    atomic_store(&stop, true);
    void *problem;
    cr_assert(pthread_join(thread, &problem) == 0);
    cr_assert(problem == NULL, "%s", (const char *)problem);
}

/* An open stands for a moment between having the descriptor and telling of it. */
static _Atomic bool stands;

static int slow_open(const char *path, int flags, mode_t mode)
{
    int fd = file_calls_system.open(path, flags, mode);
    size_t length = strlen(path);
    if (fd >= 0 && length > 2 && strcmp(path + length - 2, "/s") == 0 && (flags & O_ACCMODE) == O_RDWR) {
        atomic_store(&stands, true);
        usleep(50000);
    }
    return fd;
}

static void *open_slowly(void *arg)
{
    stead **s = arg;
    return (void *)(intptr_t)stead_open(s, path_in("s"), NULL);
}

Test(fork, a_fork_waits_until_a_descriptor_is_known)
{
    stead *s;
    pthread_t thread;
    void *rc;
    char *path = realpath(support_folder(), NULL), whole[4096];
    snprintf(whole, sizeof whole, "%s/s", path);
    free(path);
    OK(stead_open(&s, path_in("s"), NULL));
    OK(stead_close(s));
    file_calls.open = slow_open;
    cr_assert(pthread_create(&thread, NULL, open_slowly, &s) == 0);
    while (!atomic_load(&stands))
        usleep(100);
    pid_t pid = fork();
    if (pid == 0)
        _exit(has_open(whole) ? 1 : 0);
    cr_assert(pthread_join(thread, &rc) == 0);
    file_calls = file_calls_system;
    cr_assert_eq(reap(pid), 0, "the child has the store's file open");
    OK((int)(intptr_t)rc);
    OK(stead_close(s));
}

static void *nothing(void *arg)
{
    return arg;
}

Test(fork, a_parent_that_dies_is_not_kept_alive_by_its_fork_child)
{
    int pipe_fd[2];
    char byte;
    cr_assert(pipe(pipe_fd) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        stead *s;
        close(pipe_fd[1]);
        CHILD(stead_open(&s, path_in("s"), NULL) == 0);
        if (fork() == 0) { /* as long as the test */
            (void)!read(pipe_fd[0], &byte, 1);
            _exit(0);
        }
        raise(SIGKILL);
    }
    reap(pid);
    close(pipe_fd[0]);
    stead *s;
    OK(stead_open(&s, path_in("s"), &(stead_options){.timeout_ms = SOON_MS}));
    OK(stead_close(s));
    close(pipe_fd[1]);
    pthread_t thread;
    pthread_create(&thread, NULL, nothing, NULL);
    pthread_join(thread, NULL);
}
