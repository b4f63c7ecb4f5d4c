// The kernels for x86-64 with AVX2 and FMA.
#if defined(__x86_64__)
#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#define PYNN_ISA avx2
#define PYNN_VECTOR_BYTES 32
#include "simd/ops_avx2.hpp"

#include "kernels/table.hpp"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
