// A few blocks kept per thread: a call in steady state asks the system for nothing.
#include "memory.hpp"

#include <cstdint>
#include <cstdlib>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace pynn::detail {
namespace {

constexpr std::size_t huge_page = std::size_t(2) << 20;
constexpr std::size_t most_kept = std::size_t(64) << 20; // bytes of a thread's blocks together; what is more goes back
constexpr int blocks_kept = 4;

struct alignas(cache_line) Header {
    std::size_t bytes;
};

Header *allocate(std::size_t bytes) {
    if (bytes > SIZE_MAX / 2) throw std::bad_alloc();
    std::size_t alignment = bytes >= huge_page ? huge_page : cache_line;
    std::size_t total = (sizeof(Header) + bytes + alignment - 1) / alignment * alignment;
    void *memory = std::aligned_alloc(alignment, total);
    if (memory == nullptr) throw std::bad_alloc();
#if defined(__linux__)
    if (alignment == huge_page) madvise(memory, total, MADV_HUGEPAGE);
#endif
    return new (memory) Header{total - sizeof(Header)};
}

struct Cache {
    Header *blocks[blocks_kept] = {};
    ~Cache() {
        for (Header *block : blocks) std::free(block);
    }
};
thread_local Cache cache;

} // namespace

void *take_scratch(std::size_t bytes) {
    Header **best = nullptr;
    for (Header *&block : cache.blocks)
        if (block != nullptr && block->bytes >= bytes && (best == nullptr || block->bytes < (*best)->bytes))
            best = &block;
    Header *block;
    if (best != nullptr) {
        block = *best;
        *best = nullptr;
    } else {
        block = allocate(bytes);
    }
    return block + 1;
}

void give_back_scratch(void *memory) noexcept {
    if (memory == nullptr) return;
    Header *block = static_cast<Header *>(memory) - 1;
    std::size_t kept = block->bytes;
    Header **place = nullptr;
    for (Header *&other : cache.blocks) {
        if (other == nullptr)
            place = &other;
        else
            kept += other->bytes;
    }
    if (place != nullptr && kept <= most_kept)
        *place = block;
    else
        std::free(block);
}

void *allocate_kept(std::size_t bytes) { return allocate(bytes) + 1; }

void FreeKept::operator()(void *memory) const noexcept { std::free(static_cast<Header *>(memory) - 1); }

} // namespace pynn::detail
