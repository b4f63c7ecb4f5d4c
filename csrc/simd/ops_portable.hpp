// Operations in plain C++ for any machine. Where the hardware has no fma, a correctly rounded one is computed
// in software: slow, the same bits.
#pragma once

#include "simd/vec.hpp"

namespace pynn::PYNN_ISA {
namespace {

inline constexpr int vector_registers = 16;
inline constexpr bool by_stages = false; // not timed

#if defined(__FP_FAST_FMA) && defined(__FP_FAST_FMAF)

template <class V> PYNN_INLINE V fma_by_lane(V a, V b, V c) {
    V r;
    for (std::size_t i = 0; i < width<element<V>>; ++i) {
        if constexpr (sizeof(element<V>) == 4)
            r[i] = __builtin_fmaf(a[i], b[i], c[i]);
        else
            r[i] = __builtin_fma(a[i], b[i], c[i]);
    }
    return r;
}
PYNN_INLINE vec<float> fma(vec<float> a, vec<float> b, vec<float> c) { return fma_by_lane(a, b, c); }
PYNN_INLINE vec<double> fma(vec<double> a, vec<double> b, vec<double> c) { return fma_by_lane(a, b, c); }

#else

// The product of two floats is exact in double. Rounding the sum twice, to double and to float, goes wrong only
// where the double lies half way between two floats or the result is subnormal; there the double is rounded to odd. Rare,
// and a function of its own: in line at every fma it was half of this instruction set's code.
__attribute__((noinline, cold)) vec<double> round_sum_to_odd(vec<double> p, vec<double> c) {
    vec<double> s = p + c;
    vec<double> t = s - p;
    vec<double> error = (p - (s - t)) + (c - t);
    ints<vec<double>> inexact = (error < 0.0) | (error > 0.0);
    ints<vec<double>> even = (bits(s) & 1) - 1;          // all ones where the last bit is 0
    ints<vec<double>> away = (error > 0.0) == (s > 0.0); // all ones: grow the magnitude
    ints<vec<double>> step = select(away, ints<vec<double>>{} + 1, ints<vec<double>>{} - 1);
    return as<vec<double>>(bits(s) + (step & inexact & even));
}

// Whether a lane's low 29 bits are just a half (greater than the first and less than the second bound in its low word) or
// it is subnormal as a float (likewise in its high word). In 32-bit words, which SSE2 can compare.
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the words below are in this order");
PYNN_INLINE bool risky(vec<double> s) {
    using Words = vec<std::int32_t>;
    const Words words = (Words)s & Words{0x1fffffff, 0x7fffffff, 0x1fffffff, 0x7fffffff};
    const Words found =
        (words > Words{0x0fffffff, 0, 0x0fffffff, 0}) & (words < Words{0x10000001, 0x38100000, 0x10000001, 0x38100000});
#if defined(__SSE2__)
    return __builtin_ia32_pmovmskb128((vector_type<char>::type)found) != 0;
#else
    const auto halves = (vec<std::int64_t>)found;
    return (halves[0] | halves[1]) != 0;
#endif
}

PYNN_INLINE half_float fma_half(half_float a, half_float b, half_float c) {
    vec<double> p = convert<vec<double>>(a) * convert<vec<double>>(b);
    vec<double> wide = convert<vec<double>>(c);
    vec<double> s = p + wide;
    if (__builtin_expect(risky(s), 0)) s = round_sum_to_odd(p, wide);
    return convert<half_float>(s);
}

PYNN_INLINE vec<float> fma(vec<float> a, vec<float> b, vec<float> c) {
    half_float low = fma_half(half_float{a[0], a[1]}, half_float{b[0], b[1]}, half_float{c[0], c[1]});
    half_float high = fma_half(half_float{a[2], a[3]}, half_float{b[2], b[3]}, half_float{c[2], c[3]});
    return vec<float>{low[0], low[1], high[0], high[1]};
}

using uint128 = unsigned __int128;

struct Unpacked {
    std::uint64_t mantissa; // 53 bits, the highest one set
    int exponent;           // of the lowest bit
    bool negative;
};

inline Unpacked unpack(double x) {
    std::uint64_t b;
    __builtin_memcpy(&b, &x, sizeof b);
    std::uint64_t fraction = b & 0xfffffffffffffull;
    int biased = static_cast<int>(b >> 52 & 0x7ff);
    if (biased != 0) return {fraction | 1ull << 52, biased - 1075, b >> 63 != 0};
    int shift = __builtin_clzll(fraction) - 11;
    return {fraction << shift, -1074 - shift, b >> 63 != 0};
}

inline uint128 shift_right_sticky(uint128 x, int n) {
    if (n <= 0) return x;
    if (n >= 128) return x != 0;
    return x >> n | ((x & ((uint128(1) << n) - 1)) != 0);
}

// Correctly rounded in integers; every case, subnormals and overflow included.
__attribute__((noinline)) double fma_integer(double a, double b, double c) {
    const bool product_finite = a - a == 0.0 && b - b == 0.0, addend_finite = c - c == 0.0;
    if (product_finite && !addend_finite) return c;
    if (!product_finite || a == 0.0 || b == 0.0) return a * b + c;
    if (c == 0.0) return a * b;
    Unpacked x = unpack(a), y = unpack(b), z = unpack(c);
    // Both terms end up as integers below 2^125 times 2^unit; bits lost to the right are kept as a sticky bit.
    uint128 product = uint128(x.mantissa) * y.mantissa << 19;
    uint128 addend = uint128(z.mantissa) << 72;
    int product_exponent = x.exponent + y.exponent - 19, addend_exponent = z.exponent - 72;
    int unit = product_exponent > addend_exponent ? product_exponent : addend_exponent;
    product = shift_right_sticky(product, unit - product_exponent);
    addend = shift_right_sticky(addend, unit - addend_exponent);
    bool product_negative = x.negative != y.negative, negative = product_negative;
    uint128 sum;
    if (product_negative == z.negative) {
        sum = product + addend;
    } else if (product >= addend) {
        sum = product - addend;
    } else {
        sum = addend - product;
        negative = z.negative;
    }
    if (sum == 0) return 0.0;
    std::uint64_t high = static_cast<std::uint64_t>(sum >> 64);
    int top = high != 0 ? 127 - __builtin_clzll(high) : 63 - __builtin_clzll(static_cast<std::uint64_t>(sum));
    int last = top + unit - 52; // exponent of the result's last bit
    if (last < -1074) last = -1074;
    int drop = last - unit;
    std::uint64_t mantissa;
    if (drop <= 0) {
        mantissa = static_cast<std::uint64_t>(sum << -drop);
    } else {
        if (drop > 127) drop = 127, sum = 1;
        uint128 rest = sum & ((uint128(1) << drop) - 1), half = uint128(1) << (drop - 1);
        mantissa = static_cast<std::uint64_t>(sum >> drop);
        if (rest > half || (rest == half && (mantissa & 1) != 0)) ++mantissa;
    }
    if (mantissa >> 53 != 0) mantissa >>= 1, ++last;
    std::uint64_t result = mantissa;
    if (mantissa >> 52 != 0)
        result =
            last > 971 ? 0x7ffull << 52 : (static_cast<std::uint64_t>(last + 1075) << 52) + (mantissa - (1ull << 52));
    result |= static_cast<std::uint64_t>(negative) << 63;
    double value;
    __builtin_memcpy(&value, &result, sizeof value);
    return value;
}

PYNN_INLINE vec<double> fma(vec<double> a, vec<double> b, vec<double> c) {
    return vec<double>{fma_integer(a[0], b[0], c[0]), fma_integer(a[1], b[1], c[1])};
}

#endif

PYNN_INLINE vec<float> sqrt(vec<float> v) {
    vec<float> r;
    for (std::size_t i = 0; i < width<float>; ++i) r[i] = __builtin_sqrtf(v[i]);
    return r;
}
PYNN_INLINE vec<double> sqrt(vec<double> v) {
    vec<double> r;
    for (std::size_t i = 0; i < width<double>; ++i) r[i] = __builtin_sqrt(v[i]);
    return r;
}
// Products of the low 32 bits of each 64-bit lane.
PYNN_INLINE vec<std::uint64_t> mul_low(vec<std::uint64_t> a, vec<std::uint64_t> b) {
#if defined(__SSE2__) // every x86-64 has it; from the general form GCC makes many shifts and additions
    using Halves = vec<int>;
    return (vec<std::uint64_t>)__builtin_ia32_pmuludq128((Halves)a, (Halves)b);
#else
    return (a & 0xffffffffu) * (b & 0xffffffffu);
#endif
}
// Whether any lane of a mask is not 0.
template <class I> PYNN_INLINE bool any(I mask) {
    const auto halves = (vec<std::uint64_t>)mask;
    return (halves[0] | halves[1]) != 0;
}
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
    static constexpr std::size_t rows = 4, vectors = 2;
    static constexpr bool halves = false;
};
template <> struct Tile<double> {
    static constexpr std::size_t rows = 4, vectors = 2;
    static constexpr bool halves = false;
};

} // namespace
} // namespace pynn::PYNN_ISA
