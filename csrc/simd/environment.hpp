// StandardEnvironment: while it lives, this thread rounds to nearest even, keeps subnormals and traps nothing;
// afterwards the caller's modes and exception flags are as they were.
#pragma once

#if defined(__x86_64__)
#include <xmmintrin.h>
#elif defined(__aarch64__)
#include <cstdint>
#else
#include <cfenv>
#endif

namespace pynn {

class StandardEnvironment {
  public:
#if defined(__x86_64__)
    StandardEnvironment() noexcept : saved_(_mm_getcsr()) { _mm_setcsr(0x1f80); }
    ~StandardEnvironment() { _mm_setcsr(saved_); }

  private:
    unsigned saved_;
#elif defined(__aarch64__)
    StandardEnvironment() noexcept {
        __asm__ volatile("mrs %0, fpcr\n\tmrs %1, fpsr" : "=r"(control_), "=r"(status_));
        __asm__ volatile("msr fpcr, %0" : : "r"(std::uint64_t(0)) : "memory");
    }
    ~StandardEnvironment() {
        __asm__ volatile("msr fpcr, %0\n\tmsr fpsr, %1" : : "r"(control_), "r"(status_) : "memory");
    }

  private:
    std::uint64_t control_, status_;
#else
    StandardEnvironment() noexcept {
        std::fegetenv(&saved_);
        std::fesetenv(FE_DFL_ENV);
    }
    ~StandardEnvironment() { std::fesetenv(&saved_); }

  private:
    std::fenv_t saved_;
#endif

  public:
    StandardEnvironment(const StandardEnvironment &) = delete;
    StandardEnvironment &operator=(const StandardEnvironment &) = delete;
};

} // namespace pynn
