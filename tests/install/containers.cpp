// containers.cpp -- a C++ program's use of the header, under every warning that it may want on: placement new, and containers
// of the standard library whose memory is a store's, by an allocator whose pointers are plain ones.
#include <stead.h>

#include <cstdio>
#include <functional>
#include <map>
#include <new>
#include <string>
#include <vector>

// The store is found by the address of the container, which lies in it; so the allocator has no state, and a container is as
// good in the next session as in this one.
stead *current = nullptr;

template <class T> struct in_store {
    using value_type = T;
    in_store() noexcept = default;
    template <class U> in_store(const in_store<U> &) noexcept
    {
    }
    T *allocate(std::size_t n)
    {
        void *block = stead_malloc(current, n * sizeof(T));
        if (block == nullptr)
            throw std::bad_alloc();
        return static_cast<T *>(block);
    }
    void deallocate(T *block, std::size_t) noexcept
    {
        stead_free(block);
    }
};
template <class T, class U> bool operator==(const in_store<T> &, const in_store<U> &) noexcept
{
    return true;
}
template <class T, class U> bool operator!=(const in_store<T> &, const in_store<U> &) noexcept
{
    return false;
}

using text = std::basic_string<char, std::char_traits<char>, in_store<char>>;
using numbers = std::vector<int, in_store<int>>;
using index = std::map<text, numbers, std::less<text>, in_store<std::pair<const text, numbers>>>;

struct item {
    STEAD_REF(item) next;
    int value;
};

struct book {
    int runs = 0;
    index words{};
};

static void make(void *root, void *)
{
    new (root) book;
}

static bool references_work()
{
    item *one = stead_new(current, item);
    if (one == nullptr)
        return false;
    stead_ref_set(&one->next, one);
    bool same = stead_ref_get(&one->next) == one;
    stead_ref_set(&one->next, nullptr);
    same = same && stead_ref_get(&one->next) == nullptr;
    stead_free(one);
    return same;
}

int main(int argc, char **argv)
{
    void *root = nullptr;
    stead_options options = {};
    options.sharing = STEAD_SOLE;
    if (argc != 2 || stead_open(&current, argv[1], &options) != 0 ||
        stead_root_once(current, sizeof(book), make, nullptr, &root) != 0) {
        std::fprintf(stderr, "containers: %s\n", stead_last_error_text());
        return 1;
    }
    book &mine = *static_cast<book *>(root);
    STEAD_LOCKED(current, STEAD_EXCLUSIVE)
    {
        mine.runs++;
        for (int i = 0; i < 1000; i++)
            mine.words[text("a word too long for the object itself, ") + text(std::to_string(i % 100).c_str())]
                .push_back(i);
    }
    if (stead_commit(current, STEAD_DURABLE) != 0)
        return 1;
    mine.words.clear(); // and that never was
    if (stead_rollback(current) != 0 || !references_work())
        return 1;
    std::size_t count = 0;
    for (const auto &entry : mine.words)
        count += entry.second.size();
    if (mine.words.size() != 100 || count != 1000 * static_cast<std::size_t>(mine.runs))
        return 1;
    std::printf("run %d\n", mine.runs);
    return stead_close(current) != 0;
}
