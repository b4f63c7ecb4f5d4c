// Scratch<T>: aligned memory for the length of a call, reused by the thread's next call; the only allocation
// outside NumPy.
#pragma once

#include <cstddef>
#include <new>

namespace pynn {

namespace detail {
void *take_scratch(std::size_t bytes); // throws std::bad_alloc
void give_back_scratch(void *memory) noexcept;
} // namespace detail

inline constexpr std::size_t cache_line = 64;

template <class T> class Scratch {
  public:
    explicit Scratch(std::size_t count) {
        std::size_t bytes;
        if (__builtin_mul_overflow(count, sizeof(T), &bytes)) throw std::bad_alloc();
        if (bytes != 0) memory_ = static_cast<T *>(detail::take_scratch(bytes));
    }
    ~Scratch() { detail::give_back_scratch(memory_); }
    Scratch(const Scratch &) = delete;
    Scratch &operator=(const Scratch &) = delete;

    T *get() const noexcept { return memory_; }

  private:
    T *memory_ = nullptr;
};

} // namespace pynn
