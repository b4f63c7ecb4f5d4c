// Operations of AVX2 with FMA that have no operator of their own.
#pragma once

#include "simd/vec.hpp"

namespace pynn::PYNN_ISA {
namespace {

inline constexpr int vector_registers = 16;
inline constexpr bool by_stages = true;

PYNN_INLINE vec<float> fma(vec<float> a, vec<float> b, vec<float> c) { return _mm256_fmadd_ps(a, b, c); }
PYNN_INLINE vec<double> fma(vec<double> a, vec<double> b, vec<double> c) { return _mm256_fmadd_pd(a, b, c); }
PYNN_INLINE vec<float> sqrt(vec<float> v) { return _mm256_sqrt_ps(v); }
PYNN_INLINE vec<double> sqrt(vec<double> v) { return _mm256_sqrt_pd(v); }
PYNN_INLINE vec<float> maximum(vec<float> a, vec<float> b) { return _mm256_max_ps(a, b); }
PYNN_INLINE vec<float> minimum(vec<float> a, vec<float> b) { return _mm256_min_ps(a, b); }
PYNN_INLINE vec<double> as_doubles(half_float v) { return _mm256_cvtps_pd((__m128)v); }
PYNN_INLINE half_float as_floats(vec<double> v) { return (half_float)_mm256_cvtpd_ps(v); }
// Products of the low 32 bits of each 64-bit lane.
PYNN_INLINE vec<std::uint64_t> mul_low(vec<std::uint64_t> a, vec<std::uint64_t> b) {
    return (vec<std::uint64_t>)_mm256_mul_epu32((__m256i)a, (__m256i)b);
}
// Whether any lane of a mask is not 0.
PYNN_INLINE bool any(ints<vec<float>> mask) { return _mm256_testz_si256((__m256i)mask, (__m256i)mask) == 0; }
PYNN_INLINE bool any(ints<vec<double>> mask) { return _mm256_testz_si256((__m256i)mask, (__m256i)mask) == 0; }
// A bit for each lane, set where a mask is.
PYNN_INLINE unsigned lane_bits(ints<vec<float>> mask) {
    return static_cast<unsigned>(_mm256_movemask_ps((__m256)mask));
}
PYNN_INLINE unsigned lane_bits(ints<vec<double>> mask) {
    return static_cast<unsigned>(_mm256_movemask_pd((__m256d)mask));
}
PYNN_INLINE bool any_less(vec<float> v, float limit) { return any((ints<vec<float>>)(v < limit)); }

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

// Past the caches, which need not read the line first; p is aligned to vectors. finish_past_cache() comes after the last one,
// before another thread is told.
PYNN_INLINE void store_past_cache(float *p, vec<float> v) { _mm256_stream_ps(p, v); }
PYNN_INLINE void store_past_cache(double *p, vec<double> v) { _mm256_stream_pd(p, v); }
PYNN_INLINE void finish_past_cache() { _mm_sfence(); }

using Power = PowerInTwo;
using Scale = ScaleInTwo;
template <class V> PYNN_INLINE V look_up_eighth(const float (&table)[8], ints<V> i) {
    V found; // by name, for of a table in memory it takes AMD's CPUs (Zen 3) two cycles instead of one
    __asm__("vpermps %1, %2, %0" : "=x"(found) : "x"(load<V>(table)), "x"(i));
    return found;
}

// Four rows transposed, within each half of the lanes.
PYNN_INLINE void transpose_fours(const vec<float> *rows, vec<float> *columns) {
    const vec<float> a = _mm256_unpacklo_ps(rows[0], rows[1]), b = _mm256_unpackhi_ps(rows[0], rows[1]),
                     c = _mm256_unpacklo_ps(rows[2], rows[3]), d = _mm256_unpackhi_ps(rows[2], rows[3]);
    columns[0] = _mm256_shuffle_ps(a, c, 0x44);
    columns[1] = _mm256_shuffle_ps(a, c, 0xee);
    columns[2] = _mm256_shuffle_ps(b, d, 0x44);
    columns[3] = _mm256_shuffle_ps(b, d, 0xee);
}

// A table by row: a vector each, transposed.
struct Lookup : LookupByRow {
    struct Found { // where rows begin, for each lane; unsigned: nothing is to be extended
        alignas(32) unsigned at[width<float>];
    };
    PYNN_INLINE static Found find(ints<vec<float>> row) {
        Found found;
        store(found.at, (vec<unsigned>)(static_cast<int>(table_columns) * (row & static_cast<int>(table_rows - 1))));
        return found;
    }
    template <class V> PYNN_INLINE void read(const Found &row, V (&columns)[table_columns]) const {
        const float *first = rows[0];
        vec<float> pairs[table_columns]; // halves of rows i and i + 4
#pragma GCC unroll 4
        for (std::size_t i = 0; i < 4; ++i) {
            const float *low = first + row.at[i], *high = first + row.at[i + 4];
            pairs[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_load_ps(low)), _mm_load_ps(high), 1);
            pairs[i + 4] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_load_ps(low + 4)), _mm_load_ps(high + 4), 1);
        }
#pragma GCC unroll 2
        for (std::size_t half = 0; half < table_columns; half += 4) transpose_fours(pairs + half, columns + half);
    }
};

// As vec.hpp's, in half as many operations: within 128 bits first.
PYNN_INLINE void transpose(vec<float> (&rows)[8]) {
    vec<float> parts[8]; // 4 x 4 each half
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) transpose_fours(rows + i, parts + i);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        rows[i] = _mm256_permute2f128_ps(parts[i], parts[i + 4], 0x20);
        rows[i + 4] = _mm256_permute2f128_ps(parts[i], parts[i + 4], 0x31);
    }
}
PYNN_INLINE void transpose(vec<double> (&rows)[4]) {
    const vec<double> a = _mm256_unpacklo_pd(rows[0], rows[1]), b = _mm256_unpackhi_pd(rows[0], rows[1]),
                      c = _mm256_unpacklo_pd(rows[2], rows[3]), d = _mm256_unpackhi_pd(rows[2], rows[3]);
    rows[0] = _mm256_permute2f128_pd(a, c, 0x20);
    rows[1] = _mm256_permute2f128_pd(b, d, 0x20);
    rows[2] = _mm256_permute2f128_pd(a, c, 0x31);
    rows[3] = _mm256_permute2f128_pd(b, d, 0x31);
}

template <class T> struct Tile;
template <> struct Tile<float> {
    static constexpr std::size_t rows = 6, vectors = 2;
    static constexpr bool halves = false;
};
template <> struct Tile<double> {
    static constexpr std::size_t rows = 6, vectors = 2;
    static constexpr bool halves = false;
};

} // namespace
} // namespace pynn::PYNN_ISA
