// Operations of AVX-512 that have no operator of their own. Masked forms with all lanes on: GCC 12 warns of the
// undefined lanes that the plain ones start from, and compiles both alike.
#pragma once

#include "simd/vec.hpp"

namespace pynn::PYNN_ISA {
namespace {

inline constexpr int vector_registers = 32;
inline constexpr bool by_stages = false; // of no use on a Zen 5, where some functions take a fifth longer by them

PYNN_INLINE vec<float> fma(vec<float> a, vec<float> b, vec<float> c) { return _mm512_fmadd_ps(a, b, c); }
PYNN_INLINE vec<double> fma(vec<double> a, vec<double> b, vec<double> c) { return _mm512_fmadd_pd(a, b, c); }
PYNN_INLINE half_vec<float> fma(half_vec<float> a, half_vec<float> b, half_vec<float> c) {
    return _mm256_fmadd_ps(a, b, c);
}
PYNN_INLINE half_vec<double> fma(half_vec<double> a, half_vec<double> b, half_vec<double> c) {
    return _mm256_fmadd_pd(a, b, c);
}
// v is computed here, not later: GCC 12 puts off a tile's half vectors, and its factors then do not fit the registers.
template <class V> PYNN_INLINE void keep_here(V &v) { asm volatile("" : "+v"(v)); }
PYNN_INLINE vec<float> sqrt(vec<float> v) { return _mm512_maskz_sqrt_ps(0xffff, v); }
PYNN_INLINE vec<double> sqrt(vec<double> v) { return _mm512_maskz_sqrt_pd(0xff, v); }
PYNN_INLINE vec<float> maximum(vec<float> a, vec<float> b) { return _mm512_maskz_max_ps(0xffff, a, b); }
PYNN_INLINE vec<float> minimum(vec<float> a, vec<float> b) { return _mm512_maskz_min_ps(0xffff, a, b); }
PYNN_INLINE vec<double> as_doubles(half_float v) { return _mm512_maskz_cvtps_pd(0xff, (__m256)v); }
PYNN_INLINE half_float as_floats(vec<double> v) { return (half_float)_mm512_maskz_cvtpd_ps(0xff, v); }
// Products of the low 32 bits of each 64-bit lane.
PYNN_INLINE vec<std::uint64_t> mul_low(vec<std::uint64_t> a, vec<std::uint64_t> b) {
    return (vec<std::uint64_t>)_mm512_maskz_mul_epu32(0xff, (__m512i)a, (__m512i)b);
}
// Whether any lane of a mask is not 0.
PYNN_INLINE bool any(ints<vec<float>> mask) { return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0; }
PYNN_INLINE bool any(ints<vec<double>> mask) { return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0; }
// A bit for each lane, set where a mask is.
PYNN_INLINE unsigned lane_bits(ints<vec<float>> mask) { return _mm512_movepi32_mask((__m512i)mask); }
PYNN_INLINE unsigned lane_bits(ints<vec<double>> mask) { return _mm512_movepi64_mask((__m512i)mask); }

PYNN_INLINE bool any_less(vec<float> v, float limit) {
    return _mm512_cmp_ps_mask(v, splat<vec<float>>(limit), _CMP_LT_OQ) != 0; // not by way of a vector, as GCC 12 would
}

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

// 2^floor(n / 8) for integers -1616 <= n <= 1024 that z = power_round + n holds
struct Power {
    vec<float> exponent; // the instruction rounds it down

    PYNN_INLINE static Power from(vec<float> z) { return {(z - power_round) * 0.125f}; }
    PYNN_INLINE static Power one() { return {vec<float>{}}; }
    PYNN_INLINE vec<float> times(vec<float> v) const { return _mm512_maskz_scalef_ps(0xffff, v, exponent); }
    PYNN_INLINE vec<float> down(vec<float> v) const { return times(v); }
    // first(v) 2^floor(floor(n / 8) / 2), second(first(v)) = times(v) where nothing is rounded between
    PYNN_INLINE vec<float> first(vec<float> v) const { return _mm512_maskz_scalef_ps(0xffff, v, half()); }
    PYNN_INLINE vec<float> second(vec<float> v) const {
        return _mm512_maskz_scalef_ps(0xffff, v, _mm512_maskz_roundscale_ps(0xffff, exponent, 9) - half());
    }

  private:
    PYNN_INLINE vec<float> half() const {
        return _mm512_maskz_roundscale_ps(0xffff, _mm512_maskz_roundscale_ps(0xffff, exponent, 9) * 0.5f, 9);
    }
};
template <class I> PYNN_INLINE Power select(I mask, Power a, Power b) { return {select(mask, a.exponent, b.exponent)}; }

// 2^floor(n), as ScaleInTwo's
struct Scale {
    vec<float> exponent; // the instruction rounds it down

    PYNN_INLINE static Scale from(vec<float>, vec<float> n) { return {n}; }
    PYNN_INLINE vec<float> times(vec<float> v) const { return _mm512_maskz_scalef_ps(0xffff, v, exponent); }
    PYNN_INLINE vec<float> bounded_times(vec<float> v) const {
        return _mm512_maskz_scalef_ps(0xffff, v, maximum(splat<vec<float>>(-64), exponent));
    }
    PYNN_INLINE vec<float> first(vec<float> v) const { return _mm512_maskz_scalef_ps(0xffff, v, exponent * 0.5f); }
    PYNN_INLINE vec<float> second(vec<float> v) const {
        return _mm512_maskz_scalef_ps(0xffff, v, exponent - _mm512_maskz_roundscale_ps(0xffff, exponent * 0.5f, 9));
    }
};
template <class V> PYNN_INLINE V look_up_eighth(const float (&table)[8], ints<V> i) {
    const V both = _mm512_maskz_broadcast_f32x8(0xffff, _mm256_loadu_ps(table));
    return _mm512_maskz_permutexvar_ps(0xffff, (__m512i)i, both);
}

// A table by column: two vectors each.
struct Lookup {
    alignas(64) float columns[table_columns][table_rows];
    using Found = ints<vec<float>>;

    constexpr void set(std::size_t row, std::size_t column, float value) { columns[column][row] = value; }
    PYNN_INLINE static Found find(ints<vec<float>> row) { return row; }
    template <class V> PYNN_INLINE void read(Found row, V (&found)[table_columns]) const {
#pragma GCC unroll 8
        for (std::size_t j = 0; j < table_columns; ++j)
            found[j] = _mm512_permutex2var_ps(load<V>(columns[j]), (__m512i)row, load<V>(columns[j] + width<float>));
    }
};

// Past the caches, which need not read the line first; p is aligned to vectors. finish_past_cache() comes after the last one,
// before another thread is told.
PYNN_INLINE void store_past_cache(float *p, vec<float> v) { _mm512_stream_ps(p, v); }
PYNN_INLINE void store_past_cache(double *p, vec<double> v) { _mm512_stream_pd(p, v); }
PYNN_INLINE void finish_past_cache() { _mm_sfence(); }

template <class T> struct Tile;
template <> struct Tile<float> {
    static constexpr std::size_t rows = 14, vectors = 2;
    static constexpr bool halves = true; // cost half as much where vectors are worked on in two parts
};
template <> struct Tile<double> {
    static constexpr std::size_t rows = 14, vectors = 2;
    static constexpr bool halves = true;
};

} // namespace
} // namespace pynn::PYNN_ISA
