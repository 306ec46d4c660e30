// shmem.cpp -- the class of SHMEM, call by call, over the header: what docs/coming-from.md says of each is tried here.  Its own
// application template is the program: a tree of objects in shared storage, changed under an exclusive lock and searched under a
// shared one, by threads of two processes.
#include <stead.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <string>
#include <thread>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

static void must(bool condition, const char *what, int line)
{
    if (condition)
        return;
    std::fprintf(stderr, "shmem.cpp:%d: %s (%s)\n", line, what, stead_last_error_text());
    _exit(1);
}
#define MUST(condition) must((condition), #condition, __LINE__)

class shared_memory
{
  public:
    using status = int; // 0 is ok; what get_error_text() is given
    enum open_mode { read_write, read_only };

    status open(const char *file_name, const char *shared_name, std::size_t max_size, open_mode mode = read_write,
                void *desired_address = nullptr)
    {
        stead_options options = {};
        options.sharing = STEAD_LIVE;
        options.capacity_bytes = max_size;
        options.address = desired_address;
        options.timeout_ms = -1;
        options.flags = mode == read_only ? static_cast<unsigned>(STEAD_READ_ONLY) : 0;
        const std::string name = file_name != nullptr ? file_name : std::string("shm:") + shared_name;
        return stead_open(&store, name.c_str(), &options);
    }
    status close()
    {
        return stead_close(store);
    }
    status flush()
    {
        return stead_commit(store, STEAD_DURABLE);
    }
    status lock(stead_lock_mode mode, unsigned msec)
    {
        return stead_lock(store, mode, static_cast<int>(msec)); // INFINITE is -1
    }
    status unlock()
    {
        return stead_unlock(store);
    }
    void *allocate(std::size_t size, bool initialize_by_zero = true)
    {
        return initialize_by_zero ? stead_calloc(store, 1, size) : stead_malloc(store, size);
    }
    static void deallocate(void *object)
    {
        stead_free(object);
    }
    static bool find_storage(void *object, const shared_memory &which)
    {
        return stead_of(object) == which.store;
    }
    void *get_root_object() const
    {
        return stead_root(store);
    }
    void set_root_object(void *root)
    {
        MUST(stead_set_root(store, root) == 0);
    }
    status check_heap()
    {
        return stead_check(store, nullptr);
    }

  private:
    stead *store = nullptr;
};

static shared_memory memory;

class scoped_lock
{
  public:
    explicit scoped_lock(stead_lock_mode mode)
    {
        MUST(memory.lock(mode, 0xffffffffU) == 0);
    }
    ~scoped_lock()
    {
        MUST(memory.unlock() == 0);
    }
    scoped_lock(const scoped_lock &) = delete;
    scoped_lock &operator=(const scoped_lock &) = delete;
};

struct stored { // operator new of a class takes it from the storage, delete needs none
    void *operator new(std::size_t size)
    {
        return memory.allocate(size);
    }
    void operator delete(void *object)
    {
        shared_memory::deallocate(object);
    }
};

struct tree : stored {
    explicit tree(int key) : val(key)
    {
    }
    tree *left = nullptr, *right = nullptr;
    int val;
};

struct root_object : stored {
    tree *root = nullptr;
    int runs = 0;

    void insert(int key)
    {
        const scoped_lock exclusive(STEAD_EXCLUSIVE);
        tree **link = &root;
        while (*link != nullptr)
            link = key < (*link)->val ? &(*link)->left : &(*link)->right;
        *link = new tree(key);
    }
    bool search(int key)
    {
        const scoped_lock shared(STEAD_SHARED), nested(STEAD_SHARED);
        const tree *at = root;
        while (at != nullptr && at->val != key)
            at = key < at->val ? at->left : at->right;
        return at != nullptr;
    }
    int clear(tree *at)
    {
        if (at == nullptr)
            return 0;
        const int count = clear(at->left) + clear(at->right) + 1;
        delete at;
        return count;
    }
};

static void work(root_object *root, int first)
{
    for (int i = 0; i < 500; i++)
        root->insert(first + (i * 379) % 500);
    for (int i = 0; i < 500; i++)
        MUST(root->search(first + i));
}

static void another_process(const char *file, const char *name, root_object *root, int first)
{
    MUST(memory.lock(STEAD_SHARED, 0) == EPERM); // what was inherited is not ours
    MUST(memory.close() == 0);
    MUST(memory.open(file, name, 1) == 0); // who comes later does not change the size
    MUST(memory.get_root_object() == root);
    std::vector<std::thread> threads;
    for (int i = 0; i < 2; i++)
        threads.emplace_back(work, root, first + 500 * i);
    for (std::thread &thread : threads)
        thread.join();
    MUST(memory.close() == 0);
    _exit(0);
}

static void session(const char *file, const char *name, int runs)
{
    MUST(memory.open(file, name, std::size_t(64) << 20) == 0);
    {
        const scoped_lock exclusive(STEAD_EXCLUSIVE);
        if (memory.get_root_object() == nullptr)
            memory.set_root_object(new root_object);
        MUST(memory.check_heap() == 0);
    }
    root_object *root = static_cast<root_object *>(memory.get_root_object());
    MUST(root->runs++ == runs && root->root == nullptr);
    MUST(shared_memory::find_storage(root, memory) && stead_of(&runs) == nullptr);
    pid_t child[2];
    for (int i = 0; i < 2; i++) {
        child[i] = fork();
        MUST(child[i] >= 0);
        if (child[i] == 0)
            another_process(file, name, root, 1000 * i);
    }
    for (const pid_t pid : child) {
        int status = 1;
        MUST(waitpid(pid, &status, 0) == pid && status == 0);
    }
    MUST(memory.lock(STEAD_EXCLUSIVE, 0) == 0);
    std::thread([] {
        MUST(memory.lock(STEAD_SHARED, 0) == EBUSY && memory.lock(STEAD_SHARED, 20) == ETIMEDOUT);
    }).join();
    MUST(memory.unlock() == 0 && memory.unlock() == EPERM);
    MUST(root->clear(root->root) == 2000);
    root->root = nullptr;
    MUST(memory.allocate(std::size_t(1) << 40) == nullptr && errno == ENOMEM);
    MUST(memory.flush() == 0 && memory.check_heap() == 0);
    MUST(memory.close() == 0);
    MUST(stead_of(root) == nullptr);
    MUST(memory.open(file, name, 0, shared_memory::read_only) == 0);
    MUST(static_cast<root_object *>(memory.get_root_object())->runs == runs + 1);
    MUST(memory.allocate(8) == nullptr && errno == EPERM);
    MUST(memory.close() == 0);
}

int main(int argc, char **argv)
{
    MUST(argc == 2);
    const std::string section = "stead-test-shmem-" + std::to_string(getpid());
    session(nullptr, section.c_str(), 0); // no file: it stays until it is removed
    MUST(stead_remove(("shm:" + section).c_str()) == 0);
    stead *store = nullptr;
    int runs = 0;
    stead_options options = {};
    options.flags = STEAD_READ_ONLY;
    if (stead_open(&store, argv[1], &options) == 0) {
        runs = static_cast<root_object *>(stead_root(store))->runs;
        MUST(stead_close(store) == 0);
    }
    session(argv[1], nullptr, runs);
    std::printf("run %d\n", runs + 1);
    return 0;
}
