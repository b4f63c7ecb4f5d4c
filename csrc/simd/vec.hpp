// vec<T>: one hardware vector of T as a GCC/Clang vector type, with the operations that kernels are written in.
// + - * / and comparisons are the compiler's own; fma, sqrt and mul_low come from the instruction set's operations.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "tables.hpp"

#define PYNN_INLINE inline __attribute__((always_inline))

namespace pynn::PYNN_ISA {
namespace {

template <class T, int Bytes = PYNN_VECTOR_BYTES> struct vector_type {
    typedef T type __attribute__((vector_size(Bytes)));
};
template <class T> using vec = typename vector_type<T>::type;
template <class T> constexpr std::size_t width = PYNN_VECTOR_BYTES / sizeof(T);

template <class V> using element = std::remove_cvref_t<decltype(std::declval<V &>()[0])>;

template <std::size_t Size> struct integers;
template <> struct integers<4> {
    using signed_type = std::int32_t;
    using unsigned_type = std::uint32_t;
};
template <> struct integers<8> {
    using signed_type = std::int64_t;
    using unsigned_type = std::uint64_t;
};
// The vector of signed integers with the lanes of V.
template <class V> using ints = vec<typename integers<sizeof(element<V>)>::signed_type>;

template <class V> PYNN_INLINE V load(const element<V> *p) {
    V v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}
template <class V> PYNN_INLINE void store(element<V> *p, V v) { __builtin_memcpy(p, &v, sizeof v); }

template <class V, class I, std::size_t... Lane> PYNN_INLINE I lane_numbers(std::index_sequence<Lane...>) {
    return I{static_cast<element<I>>(Lane)...};
}
// All ones in the lanes below n (from n on).
template <class V> PYNN_INLINE ints<V> below_lane(std::size_t n) {
    using I = ints<V>;
    constexpr auto lanes = std::make_index_sequence<width<element<V>>>();
    return lane_numbers<V, I>(lanes) < (static_cast<element<I>>(n) - I{});
}
template <class V> PYNN_INLINE ints<V> from_lane(std::size_t n) { return ~below_lane<V>(n); }

// a0 b0 a1 b1 ... of the first halves (Second: of the second halves) of a and b
template <bool Second, class V, std::size_t... I> PYNN_INLINE V interleave(V a, V b, std::index_sequence<I...>) {
    constexpr std::size_t n = sizeof...(I), from = Second ? n / 2 : 0;
    return __builtin_shufflevector(a, b, (from + I / 2 + (I % 2) * n)...);
}
// Lane j of row i to lane i of row j, in log2(lanes) rounds of perfect shuffles.
template <class V> PYNN_INLINE void transpose(V (&rows)[width<element<V>>]) {
    constexpr std::size_t n = width<element<V>>;
    constexpr auto lanes = std::make_index_sequence<n>();
#pragma GCC unroll 4
    for (std::size_t round = 1; round < n; round *= 2) {
        V next[n];
#pragma GCC unroll 8
        for (std::size_t i = 0; i < n / 2; ++i) {
            next[2 * i] = interleave<false>(rows[i], rows[i + n / 2], lanes);
            next[2 * i + 1] = interleave<true>(rows[i], rows[i + n / 2], lanes);
        }
#pragma GCC unroll 16
        for (std::size_t i = 0; i < n; ++i) rows[i] = next[i];
    }
}

template <class V> PYNN_INLINE V splat(element<V> s) { return s - V{}; }
template <class V, class I> PYNN_INLINE V select(I mask, V a, V b) { return mask ? a : b; }
template <class V> PYNN_INLINE V as(ints<V> bits) { return (V)bits; }
template <class V> PYNN_INLINE ints<V> bits(V v) { return (ints<V>)v; }
template <class To, class V> PYNN_INLINE To convert(V v) { return __builtin_convertvector(v, To); }

template <class T> using half_vec = typename vector_type<T, PYNN_VECTOR_BYTES / 2>::type;
using half_float = half_vec<float>;
// Two halves as one
template <class H, std::size_t... I> PYNN_INLINE vec<element<H>> joined(H first, H second, std::index_sequence<I...>) {
    return __builtin_shufflevector(first, second, I...);
}
template <class H> PYNN_INLINE vec<element<H>> joined(H first, H second) {
    return joined(first, second, std::make_index_sequence<width<element<H>>>());
}
// The first (Second: the second) half of the lanes
template <bool Second, class V, std::size_t... I>
PYNN_INLINE half_vec<element<V>> half_of(V v, std::index_sequence<I...>) {
    return __builtin_shufflevector(v, v, (I + Second * sizeof...(I))...);
}
template <bool Second, class V> PYNN_INLINE half_vec<element<V>> half_of(V v) {
    return half_of<Second>(v, std::make_index_sequence<width<element<V>> / 2>());
}
// Half a vector of floats as doubles, and back. GCC 12 makes two quarters of it, by way of memory; so instruction sets have
// them too.
template <class H> PYNN_INLINE vec<double> as_doubles(H v) { return convert<vec<double>>(v); }
template <class W> PYNN_INLINE half_float as_floats(W v) { return convert<half_float>(v); }

// A bit for each lane, set where a mask is. Instruction sets may have it too.
template <class I> PYNN_INLINE unsigned lane_bits(I mask) {
    unsigned found = 0;
    for (std::size_t i = 0; i < width<element<I>>; ++i) found |= static_cast<unsigned>(mask[i] & 1) << i;
    return found;
}

// f of the first and the second half of the lanes, again and again, down to one number
template <class V, class F, std::size_t... I> PYNN_INLINE element<V> folded(V v, F f, std::index_sequence<I...>) {
    constexpr std::size_t half = sizeof...(I);
    if constexpr (half == 1)
        return f(v[0], v[1]);
    else
        return folded(f(__builtin_shufflevector(v, v, I...), __builtin_shufflevector(v, v, (I + half)...)), f,
                      std::make_index_sequence<half / 2>());
}
template <class V, std::size_t vectors, class F> PYNN_INLINE element<V> folded(const V (&v)[vectors], F f) {
    if constexpr (vectors == 1) {
        return folded(v[0], f, std::make_index_sequence<width<element<V>> / 2>());
    } else {
        V half[vectors / 2];
        for (std::size_t j = 0; j < vectors / 2; ++j) half[j] = f(v[j], v[j + vectors / 2]);
        return folded(half, f);
    }
}

template <class V> constexpr ints<V> sign_bits() {
    using I = typename integers<sizeof(element<V>)>::signed_type;
    return static_cast<I>(std::uint64_t(1) << (8 * sizeof(I) - 1)) - ints<V>{};
}
template <class V> PYNN_INLINE V magnitude(V v) { return as<V>(bits(v) & ~sign_bits<V>()); }
// 1 over the greatest power of two that is at most v, a number next to neither end of its type
template <class V> PYNN_INLINE V inverse_of_power_below(V v) {
    ints<V> one = bits(1 - V{}), power = bits(v) & bits(splat<V>(static_cast<element<V>>(__builtin_inf())));
    return as<V>(one + one - power);
}
template <class V> PYNN_INLINE V negative_magnitude(V v) { return as<V>(bits(v) | sign_bits<V>()); }
template <class V> PYNN_INLINE V with_sign_of(V v, V sign) { return as<V>(bits(v) | (bits(sign) & sign_bits<V>())); }
// x where it is a NaN; else y
template <class V> PYNN_INLINE V keep_nan(V x, V y) { return select(x != x, x, y); }

// The greater (less) of both; b where they are equal or either is a NaN. Instruction sets have them for vec<float>.
template <class V> PYNN_INLINE V maximum(V a, V b) { return select(a > b, a, b); }
template <class V> PYNN_INLINE V minimum(V a, V b) { return select(a < b, a, b); }

// 2^floor(n / 8) for integers -1616 <= n <= 1024 that z = power_round + n holds, in two factors: 2^floor(floor(n / 8) / 2)
// and the rest. times() rounds once where neither |v| nor its product with the first factor is subnormal or infinite.
// down() is times() for n <= 0: power_round is such that bits 3 to 10 of z are the exponent of 2^(80 + floor(n / 8)).
constexpr float power_round = 0x1.8p+23f + (127 + 80) * 8;
struct PowerInTwo {
    vec<float> z, factors[2];

    PYNN_INLINE static PowerInTwo from(vec<float> z) {
        ints<vec<float>> n = (bits(z) - static_cast<std::int32_t>(__builtin_bit_cast(std::uint32_t, power_round))) >> 3;
        ints<vec<float>> half = n >> 1;
        return {z, {as<vec<float>>((half + 127) << 23), as<vec<float>>((n - half + 127) << 23)}};
    }
    PYNN_INLINE static PowerInTwo one() {
        return {splat<vec<float>>(power_round), {1 - vec<float>{}, 1 - vec<float>{}}};
    }
    PYNN_INLINE vec<float> first(vec<float> v) const { return v * factors[0]; }
    PYNN_INLINE vec<float> second(vec<float> v) const { return v * factors[1]; }
    PYNN_INLINE vec<float> times(vec<float> v) const { return second(first(v)); }
    PYNN_INLINE vec<float> down(vec<float> v) const { return v * as<vec<float>>((bits(z) & ~7) << 20) * 0x1p-80f; }
};
template <class I> PYNN_INLINE PowerInTwo select(I mask, PowerInTwo a, PowerInTwo b) {
    return {select(mask, a.z, b.z),
            {select(mask, a.factors[0], b.factors[0]), select(mask, a.factors[1], b.factors[1])}};
}

// 2^floor(n) for eighths -198 <= n <= 0 that z = scale_round + n holds. times() rounds once, where v 2^72 does not overflow;
// bounded_times() by no less than 2^-64; first() times 2^floor(floor(n) / 2), second() the rest.
constexpr float scale_round = 0x1.8p+20f + (127 + 72);
struct ScaleInTwo {
    ints<vec<float>> z;
    vec<float> up; // 2^(72 + floor(n))

    PYNN_INLINE static ScaleInTwo from(vec<float> z, vec<float>) {
        return {bits(z), as<vec<float>>((bits(z) & ~7) << 20)};
    }
    PYNN_INLINE vec<float> times(vec<float> v) const { return v * up * 0x1p-72f; }
    PYNN_INLINE vec<float> bounded_times(vec<float> v) const {
        return v * as<vec<float>>(maximum(bits(splat<vec<float>>(0x1p8f)), bits(up)) - (72 << 23));
    }
    PYNN_INLINE vec<float> first(vec<float> v) const { return v * as<vec<float>>(half() << 23); }
    PYNN_INLINE vec<float> second(vec<float> v) const { return v * as<vec<float>>((exponent() - half()) << 23); }

  private:
    PYNN_INLINE ints<vec<float>> exponent() const { return (z >> 3) + (127 - 72); } // its low bits: floor(n) + 254
    PYNN_INLINE ints<vec<float>> half() const { return exponent() >> 1; }
};

// Of eight numbers those that the last three bits of i count, lane by lane.
template <class V> PYNN_INLINE V look_up_by_lane(const float (&table)[8], ints<V> i) {
    V v;
    for (std::size_t lane = 0; lane < width<float>; ++lane) v[lane] = table[i[lane] & 7];
    return v;
}

// A table by row, read lane by lane.
struct LookupByRow {
    alignas(16) float rows[table_rows][table_columns];
    using Found = ints<vec<float>>; // rows, for each lane

    constexpr void set(std::size_t row, std::size_t column, float value) { rows[row][column] = value; }
    PYNN_INLINE static Found find(ints<vec<float>> row) { return row; }
    template <class V> PYNN_INLINE void read(Found row, V (&columns)[table_columns]) const {
        float found[table_columns][width<float>];
        for (std::size_t i = 0; i < width<float>; ++i)
            for (std::size_t j = 0; j < table_columns; ++j)
                found[j][i] = rows[static_cast<std::size_t>(row[i]) % table_rows][j];
        for (std::size_t j = 0; j < table_columns; ++j) columns[j] = load<V>(found[j]);
    }
};

// Loads and stores of the first n lanes by way of a buffer, for instruction sets without masks.
template <class V> PYNN_INLINE V load_first_buffered(const element<V> *p, std::size_t n, element<V> rest) {
    element<V> buffer[width<element<V>>];
    for (std::size_t i = 0; i < width<element<V>>; ++i) buffer[i] = rest;
    __builtin_memcpy(buffer, p, n * sizeof(element<V>));
    return load<V>(buffer);
}
template <class V> PYNN_INLINE void store_first_buffered(element<V> *p, V v, std::size_t n) {
    element<V> buffer[width<element<V>>];
    store(buffer, v);
    __builtin_memcpy(p, buffer, n * sizeof(element<V>));
}

} // namespace
} // namespace pynn::PYNN_ISA
