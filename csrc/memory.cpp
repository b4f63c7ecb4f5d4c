// Some blocks kept per thread: a call in steady state asks the system for nothing.
#include "memory.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#if defined(__linux__)
#include <sys/mman.h>
#elif defined(_WIN32)
#include <malloc.h>
#endif

namespace pynn::detail {
namespace {

constexpr std::size_t huge_page = std::size_t(2) << 20;
constexpr std::size_t most_kept = std::size_t(256) << 20; // bytes of a thread's blocks together; what is more goes back
constexpr int blocks_kept = 64;                           // a training step of a dozen layers takes some 40

struct alignas(cache_line) Header {
    std::size_t bytes;
};

#if defined(_WIN32)
void *aligned(std::size_t alignment, std::size_t bytes) { return _aligned_malloc(bytes, alignment); }
void release(void *memory) { _aligned_free(memory); }
#else
void *aligned(std::size_t alignment, std::size_t bytes) {
    void *memory = nullptr;
    return posix_memalign(&memory, alignment, bytes) == 0 ? memory : nullptr;
}
void release(void *memory) { std::free(memory); }
#endif

Header *allocate(std::size_t bytes) {
    if (bytes > SIZE_MAX / 2) throw std::bad_alloc();
    const std::size_t total = sizeof(Header) + bytes, alignment = total >= huge_page ? huge_page : cache_line;
    void *memory = aligned(alignment, total);
    if (memory == nullptr) throw std::bad_alloc();
#if defined(__linux__)
    // Whole huge pages only: of a last one that is used in part, all would be taken.
    if (alignment == huge_page) madvise(memory, total / huge_page * huge_page, MADV_HUGEPAGE);
#endif
    return new (memory) Header{bytes};
}

// The thread's free blocks, from the oldest to the newest.
struct Cache {
    Header *blocks[blocks_kept];
    int count = 0;
    std::size_t bytes = 0;

    Header *take(int at) {
        Header *block = blocks[at];
        std::move(blocks + at + 1, blocks + count, blocks + at);
        --count;
        bytes -= block->bytes;
        return block;
    }
    ~Cache() {
        while (count > 0) release(take(0));
    }
};
thread_local Cache cache;

Header *header_of(void *memory) { return static_cast<Header *>(memory) - 1; }

} // namespace

void *take_scratch(std::size_t bytes) {
    const std::size_t most = bytes > SIZE_MAX / 4 ? SIZE_MAX : 2 * bytes + (std::size_t(64) << 10); // else wasteful
    int best = -1;
    for (int i = 0; i < cache.count; ++i) {
        const std::size_t offered = cache.blocks[i]->bytes;
        if (offered >= bytes && offered <= most && (best < 0 || offered < cache.blocks[best]->bytes)) best = i;
    }
    return (best >= 0 ? cache.take(best) : allocate(bytes)) + 1;
}

void give_back_scratch(void *memory) noexcept {
    if (memory == nullptr) return;
    Header *block = header_of(memory);
    if (block->bytes > most_kept) {
        release(block);
        return;
    }
    while (cache.count == blocks_kept || cache.bytes > most_kept - block->bytes) release(cache.take(0));
    cache.blocks[cache.count++] = block;
    cache.bytes += block->bytes;
}

void *resize_scratch(void *memory, std::size_t bytes) {
    void *larger = take_scratch(bytes);
    if (memory != nullptr) std::memcpy(larger, memory, std::min(bytes, header_of(memory)->bytes));
    give_back_scratch(memory);
    return larger;
}

void *allocate_kept(std::size_t bytes) { return allocate(bytes) + 1; }

void FreeKept::operator()(void *memory) const noexcept { release(header_of(memory)); }

} // namespace pynn::detail
