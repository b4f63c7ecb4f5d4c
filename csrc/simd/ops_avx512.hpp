// Operations of AVX-512 that have no operator of their own. Masked forms with all lanes on: GCC 12 warns of the
// undefined lanes that the plain ones start from, and compiles both alike.
#pragma once

#include "simd/vec.hpp"

namespace pynn::PYNN_ISA {
namespace {

PYNN_INLINE vec<float> fma(vec<float> a, vec<float> b, vec<float> c) { return _mm512_fmadd_ps(a, b, c); }
PYNN_INLINE vec<double> fma(vec<double> a, vec<double> b, vec<double> c) { return _mm512_fmadd_pd(a, b, c); }
PYNN_INLINE vec<float> sqrt(vec<float> v) { return _mm512_maskz_sqrt_ps(0xffff, v); }
PYNN_INLINE vec<double> sqrt(vec<double> v) { return _mm512_maskz_sqrt_pd(0xff, v); }
// Products of the low 32 bits of each 64-bit lane.
PYNN_INLINE vec<std::uint64_t> mul_low(vec<std::uint64_t> a, vec<std::uint64_t> b) {
    return (vec<std::uint64_t>)_mm512_maskz_mul_epu32(0xff, (__m512i)a, (__m512i)b);
}
// Whether any lane of a mask is not 0.
PYNN_INLINE bool any(ints<vec<float>> mask) { return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0; }
PYNN_INLINE bool any(ints<vec<double>> mask) { return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0; }

template <class V> PYNN_INLINE V load_first(const element<V> *p, std::size_t n, element<V> rest) {
    const unsigned mask = (1u << n) - 1;
    if constexpr (sizeof(element<V>) == 4)
        return (V)_mm512_mask_loadu_epi32((__m512i)splat<V>(rest), static_cast<__mmask16>(mask), p);
    else
        return (V)_mm512_mask_loadu_epi64((__m512i)splat<V>(rest), static_cast<__mmask8>(mask), p);
}
template <class V> PYNN_INLINE void store_first(element<V> *p, V v, std::size_t n) {
    const unsigned mask = (1u << n) - 1;
    if constexpr (sizeof(element<V>) == 4)
        _mm512_mask_storeu_epi32(p, static_cast<__mmask16>(mask), (__m512i)v);
    else
        _mm512_mask_storeu_epi64(p, static_cast<__mmask8>(mask), (__m512i)v);
}

template <class T> struct Tile;
template <> struct Tile<float> {
    static constexpr std::size_t rows = 14, vectors = 2;
};
template <> struct Tile<double> {
    static constexpr std::size_t rows = 14, vectors = 2;
};

} // namespace
} // namespace pynn::PYNN_ISA
