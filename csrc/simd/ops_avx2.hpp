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

template <class V> PYNN_INLINE V load_first(const element<V> *p, std::size_t n, element<V> rest) {
    const ints<V> mask = below_lane<V>(n);
    V v;
    if constexpr (sizeof(element<V>) == 4)
        v = (V)_mm256_maskload_epi32(reinterpret_cast<const int *>(p), (__m256i)mask);
    else
        v = (V)_mm256_maskload_epi64(reinterpret_cast<const long long *>(p), (__m256i)mask);
    return select(mask, v, splat<V>(rest));
}
template <class V> PYNN_INLINE void store_first(element<V> *p, V v, std::size_t n) {
    const ints<V> mask = below_lane<V>(n);
    if constexpr (sizeof(element<V>) == 4)
        _mm256_maskstore_epi32(reinterpret_cast<int *>(p), (__m256i)mask, (__m256i)v);
    else
        _mm256_maskstore_epi64(reinterpret_cast<long long *>(p), (__m256i)mask, (__m256i)v);
}

template <class T> struct Tile;
template <> struct Tile<float> {
    static constexpr std::size_t rows = 6, vectors = 2;
};
template <> struct Tile<double> {
    static constexpr std::size_t rows = 6, vectors = 2;
};

} // namespace
} // namespace pynn::PYNN_ISA
