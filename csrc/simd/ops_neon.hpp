// Operations of AArch64's Advanced SIMD that have no operator of their own.
#pragma once

#include "simd/vec.hpp"

namespace pynn::PYNN_ISA {
namespace {

inline constexpr int vector_registers = 32;
inline constexpr bool by_stages = false; // not timed

PYNN_INLINE vec<float> fma(vec<float> a, vec<float> b, vec<float> c) {
    return (vec<float>)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
PYNN_INLINE vec<double> fma(vec<double> a, vec<double> b, vec<double> c) {
    return (vec<double>)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
}
PYNN_INLINE vec<float> sqrt(vec<float> v) { return (vec<float>)vsqrtq_f32((float32x4_t)v); }
PYNN_INLINE vec<double> sqrt(vec<double> v) { return (vec<double>)vsqrtq_f64((float64x2_t)v); }
// Products of the low 32 bits of each 64-bit lane.
PYNN_INLINE vec<std::uint64_t> mul_low(vec<std::uint64_t> a, vec<std::uint64_t> b) {
    return (vec<std::uint64_t>)vmull_u32(vmovn_u64((uint64x2_t)a), vmovn_u64((uint64x2_t)b));
}
// Whether any lane of a mask is not 0.
PYNN_INLINE bool any(ints<vec<float>> mask) { return vmaxvq_u32((uint32x4_t)mask) != 0; }
PYNN_INLINE bool any(ints<vec<double>> mask) { return vmaxvq_u32((uint32x4_t)mask) != 0; }
PYNN_INLINE bool any_less(vec<float> v, float limit) { return any((ints<vec<float>>)(v < limit)); }

template <class V> PYNN_INLINE V load_first(const element<V> *p, std::size_t n, element<V> rest) {
    return load_first_buffered<V>(p, n, rest);
}
template <class V> PYNN_INLINE void store_first(element<V> *p, V v, std::size_t n) { store_first_buffered(p, v, n); }

using Power = PowerInTwo;
using Scale = ScaleInTwo;
template <class V> PYNN_INLINE V look_up_eighth(const float (&table)[8], ints<V> i) {
    return look_up_by_lane<V>(table, i);
}
using Lookup = LookupByRow;

template <class V> PYNN_INLINE void store_past_cache(element<V> *p, V v) { store(p, v); }
PYNN_INLINE void finish_past_cache() {}

template <class T> struct Tile;
template <> struct Tile<float> {
    static constexpr std::size_t rows = 12, vectors = 2;
    static constexpr bool halves = false;
};
template <> struct Tile<double> {
    static constexpr std::size_t rows = 12, vectors = 2;
    static constexpr bool halves = false;
};

} // namespace
} // namespace pynn::PYNN_ISA
