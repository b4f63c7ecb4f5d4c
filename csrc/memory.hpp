// Scratch<T>: aligned memory for the length of a call, reused by the thread's next call; Kept<T>: aligned memory of an
// object. The only allocation outside NumPy.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

namespace pynn {

namespace detail {
void *take_scratch(std::size_t bytes); // throws std::bad_alloc
void give_back_scratch(void *memory) noexcept;
void *resize_scratch(void *memory, std::size_t bytes); // throws std::bad_alloc, and memory stays as it is
void *allocate_kept(std::size_t bytes);                // throws std::bad_alloc
struct FreeKept {
    void operator()(void *memory) const noexcept;
};

inline std::size_t bytes_of(std::size_t count, std::size_t size) {
    std::size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) throw std::bad_alloc();
    return bytes;
}
} // namespace detail

inline constexpr std::size_t cache_line = 64;

template <class T> class Scratch {
  public:
    explicit Scratch(std::size_t count) {
        if (count != 0) memory_ = static_cast<T *>(detail::take_scratch(detail::bytes_of(count, sizeof(T))));
    }
    ~Scratch() { detail::give_back_scratch(memory_); }
    Scratch(const Scratch &) = delete;
    Scratch &operator=(const Scratch &) = delete;

    T *get() const noexcept { return memory_; }

  private:
    T *memory_ = nullptr;
};

template <class T> using Kept = std::unique_ptr<T[], detail::FreeKept>;
template <class T> Kept<T> keep(std::size_t count) {
    return Kept<T>(static_cast<T *>(detail::allocate_kept(detail::bytes_of(count, sizeof(T)))));
}

} // namespace pynn
