// Operations of AVX2 with FMA that have no operator of their own.
#pragma once

#include "simd/vec.hpp"

namespace pynn::PYNN_ISA {
namespace {

PYNN_INLINE vec<float> fma(vec<float> a, vec<float> b, vec<float> c) { return _mm256_fmadd_ps(a, b, c); }
PYNN_INLINE vec<double> fma(vec<double> a, vec<double> b, vec<double> c) { return _mm256_fmadd_pd(a, b, c); }
PYNN_INLINE vec<float> sqrt(vec<float> v) { return _mm256_sqrt_ps(v); }
PYNN_INLINE vec<double> sqrt(vec<double> v) { return _mm256_sqrt_pd(v); }
// Products of the low 32 bits of each 64-bit lane.
PYNN_INLINE vec<std::uint64_t> mul_low(vec<std::uint64_t> a, vec<std::uint64_t> b) {
    return (vec<std::uint64_t>)_mm256_mul_epu32((__m256i)a, (__m256i)b);
}
// Whether any lane of a mask is not 0.
PYNN_INLINE bool any(ints<vec<float>> mask) { return _mm256_testz_si256((__m256i)mask, (__m256i)mask) == 0; }
PYNN_INLINE bool any(ints<vec<double>> mask) { return _mm256_testz_si256((__m256i)mask, (__m256i)mask) == 0; }

template <class T> struct Tile;
template <> struct Tile<float> {
    static constexpr std::size_t rows = 6, vectors = 2;
};
template <> struct Tile<double> {
    static constexpr std::size_t rows = 6, vectors = 2;
};

} // namespace
} // namespace pynn::PYNN_ISA
