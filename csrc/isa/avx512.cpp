// The kernels for x86-64 with AVX-512 (F, BW, DQ, VL).
#if defined(__x86_64__)
#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma,prefer-vector-width=512")
#endif
#define PYNN_ISA avx512
#define PYNN_VECTOR_BYTES 64
#include "simd/ops_avx512.hpp"

#include "kernels/table.hpp"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
