/* support.c -- see support.h. */
#include "support/support.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char folder[PATH_MAX / 2];

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

void support_setup(void)
{
    const char *parent = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%.1000s/stead-test-XXXXXX", parent != NULL && *parent != '\0' ? parent : "/tmp");
    cr_assert(mkdtemp(folder) != NULL, "cannot make %s: %s", folder, strerror(errno));
}

void support_teardown(void)
{
    nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

const char *support_folder(void)
{
    return folder;
}

const char *path_in(const char *name)
{
    static char paths[4][PATH_MAX];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, PATH_MAX, "%s/%s", folder, name);
    return path;
}

pid_t spawn(void (*body)(void *arg), void *arg)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* nothing of a test that was stopped goes on */
    body(arg);
    _exit(0);
}

int reap(pid_t pid)
{
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void pause_ms(int ms)
{
    struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
    while (nanosleep(&left, &left) != 0 && errno == EINTR)
        continue;
}

void await_sleeping(pid_t tid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/syscall", (int)tid);
    for (int i = 0; i < SOON_MS; i++) {
        long call = -1;
        FILE *file = fopen(path, "r");
        if (file == NULL || fscanf(file, "%ld", &call) != 1)
            call = -1; /* "running", or a kernel that does not tell */
        if (file != NULL)
            fclose(file);
        if (call == SYS_futex || call == SYS_nanosleep || call == SYS_clock_nanosleep)
            return;
        if (file == NULL && i > 1000)
            return;
        pause_ms(1);
    }
    cr_assert_fail("thread %d does not come to wait", (int)tid);
}

volatile uint32_t *shared_words(unsigned count)
{
    void *at = mmap(NULL, count * sizeof(uint32_t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert(at != MAP_FAILED);
    return at;
}

bool await(const volatile uint32_t *word, uint32_t value)
{
    for (int i = 0; i < SOON_MS; i++) {
        if (*(const volatile uint32_t *)word >= value) {
            atomic_thread_fence(memory_order_acquire);
            return true;
        }
        pause_ms(1);
    }
    return false;
}

uint64_t file_bytes_of(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (uint64_t)st.st_size : UINT64_MAX;
}

void write_file(const char *path, const void *bytes, size_t count)
{
    FILE *file = fopen(path, "wb");
    cr_assert(file != NULL, "%s: %s", path, strerror(errno));
    cr_assert(fwrite(bytes, 1, count, file) == count);
    cr_assert(fclose(file) == 0);
}

void copy_file(const char *from, const char *to)
{
    static char buffer[1 << 16];
    FILE *in = fopen(from, "rb");
    FILE *out = fopen(to, "wb");
    cr_assert(in != NULL && out != NULL, "%s -> %s: %s", from, to, strerror(errno));
    for (size_t n; (n = fread(buffer, 1, sizeof buffer, in)) > 0;)
        cr_assert(fwrite(buffer, 1, n, out) == n);
    fclose(in);
    cr_assert(fclose(out) == 0);
}

uint64_t test_seed(void)
{
    const char *given = getenv("STEAD_SEED");
    uint64_t seed = given != NULL ? strtoull(given, NULL, 0) : (uint64_t)time(NULL) * 2654435761u + (uint64_t)getpid();
    fprintf(stderr, "STEAD_SEED=%" PRIu64 "\n", seed);
    return seed;
}

bool test_long(void)
{
    return getenv("STEAD_LONG") != NULL;
}
