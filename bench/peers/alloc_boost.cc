/*
 * alloc_boost.cc -- Boost.Interprocess as a peer of bench/alloc: a managed_mapped_file, whose best-fit tree is under a
 * process-shared mutex.
 */
#include <boost/interprocess/managed_mapped_file.hpp>
#include <cstdlib>
#include <string>
#include <unistd.h>

#include "bench/alloc_peers.h"

namespace bip = boost::interprocess;

static bip::managed_mapped_file *file;

bool boost_open(const char *directory, uint64_t capacity)
{
    std::string path = std::string(directory) + "/alloc-" + std::to_string(getpid()) + ".boost";
    try {
        file = new bip::managed_mapped_file(bip::create_only, path.c_str(), capacity);
    } catch (const std::exception &) {
        return false;
    }
    unlink(path.c_str()); // it stays until we end
    return true;
}

void *boost_allocate(size_t bytes)
{
    return file->allocate(bytes, std::nothrow);
}

void boost_release(void *block)
{
    file->deallocate(block);
}

uint64_t boost_used(void)
{
    return file->get_size() - file->get_free_memory();
}
