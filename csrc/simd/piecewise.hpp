// float32 functions from tables of polynomials (csrc/tables.hpp) and a short exponential, a few operations each.
// Results come as a high and a low part, so that what is built from them is rounded once. These parts are loose: the
// low one, an eighth of the high one or less, is the rest of the value but not of a rounded one.
#pragma once

#include "simd/math.hpp"
#include "tables.hpp"

namespace pynn::PYNN_ISA {
namespace {

// float32 goes by the tables, float64 by the formulas of math.hpp.
template <class V> constexpr bool by_table = sizeof(element<V>) == 4;

// x, but no greater (less) than the bound; a NaN stays.
template <class V> PYNN_INLINE V at_most(element<V> bound, V x) { return minimum(splat<V>(bound), x); }
template <class V> PYNN_INLINE V at_least(element<V> bound, V x) { return maximum(splat<V>(bound), x); }

template <int Bits> constexpr int first_row(int offset) {
    return static_cast<int>((__builtin_bit_cast(std::uint32_t, static_cast<float>(offset)) >> (23 - Bits)) %
                            table_rows);
}
// A table with each row where its number, modulo 32, says.
template <const Table &table> constexpr Lookup lookup_of() {
    Lookup lookup{};
    for (std::size_t i = 0; i < table_rows; ++i)
        for (std::size_t j = 0; j < table_columns; ++j)
            lookup.set((first_row<table.bits>(table.offset) + i) % table_rows, j, table.rows[i][j]);
    return lookup;
}
template <const Table &table> constexpr Lookup lookup = lookup_of<table>();

// The place in a table of a, 0 <= a <= greatest; of the second function where the mask is on.
template <const Table &table, class V> struct Place {
    Lookup::Found row;
    V d; // from the middle of what the row is for

    PYNN_INLINE static Place of(V a, ints<V> second = ints<V>{}) {
        constexpr int shift = 23 - table.bits;
        constexpr std::int32_t half = 1 << (shift - 1);
        V w = a + static_cast<float>(table.offset);
        ints<V> number = bits(w) >> shift;
        if constexpr (table.second > 0) number += second & table.second;
        V centre = as<V>((bits(w) & ~(2 * half - 1)) | half) - static_cast<float>(table.offset);
        return {Lookup::find(number), a - centre};
    }
    // The function. Steep: the line is more than the low part can hold.
    template <bool Steep = false> PYNN_INLINE Parts<V> read() const {
        V c[table_columns];
        lookup<table>.read(row, c);
        V p = c[table_columns - 1];
        constexpr std::size_t line = Steep ? 2 : 0;
#pragma GCC unroll 8
        for (std::size_t i = table_columns - 2; i > line; --i) p = fma(p, d, c[i]);
        if constexpr (!Steep) return {c[0], p};
        V high = fma(d, c[2], c[0]);
        return {high, fma(d * d, p, c[1]) + fma(d, c[2], c[0] - high)};
    }
};
template <const Table &table, class V> PYNN_INLINE Parts<V> piecewise(V a) { return Place<table, V>::of(a).read(); }

// e^t = power * (mantissa.high + mantissa.low), about 1 <= mantissa < 2
template <class V> struct ShortExponential {
    Parts<V> mantissa;
    Power power;
};

struct EighthConstants {
    static constexpr float per_unit = 0x1.715476p+3f, round = power_round; // 8 log2(e)
    static constexpr float high = 0x1.62e43p-4f, low = -0x1.05c61p-32f;    // ln(2) / 8
    static constexpr float least = -140.0f, greatest = 89.0f;              // 2^-202, 2^128.4
    static constexpr float tail[] = {0x1p-1f, 0x1.555b9cp-3f,
                                     0x1.555984p-5f}; // (e^r - 1 - r) / r^2, |r| <= ln(2) / 16; 2^-31 of e^r
    static constexpr float series[] = {1, tail[0], tail[1], tail[2]}; // (e^r - 1) / r
};

// 2^(i / 8) in two parts
inline constexpr float eighths_high[8] = {0x1p+0f,        0x1.172b84p+0f, 0x1.306fep+0f,  0x1.4bfdaep+0f,
                                          0x1.6a09e6p+0f, 0x1.8ace54p+0f, 0x1.ae89fap+0f, 0x1.d5818ep+0f};
inline constexpr float eighths_low[8] = {0,
                                         -0x1.c15742p-27f,
                                         0x1.4636e2p-25f,
                                         -0x1.593abcp-25f,
                                         0x1.9fcef4p-26f,
                                         0x1.15506ep-27f,
                                         -0x1.a94b14p-26f,
                                         -0x1.822dbcp-27f};

// t = (z - power_round) ln(2) / 8 + r
template <class V> struct ReducedByEighths {
    V z, r;
};
// Less eighths, as z = round and their number holds it; tail is the rest of t.
template <class V, class... Tail> PYNN_INLINE ReducedByEighths<V> reduced_by_eighths_from(V round, V t, Tail... tail) {
    using C = EighthConstants;
    const V z = fma(t, splat<V>(C::per_unit), round), n = z - round;
    return {z, fma(n, splat<V>(-C::low), (fma(n, splat<V>(-C::high), t) + ... + tail))};
}
// -140 <= t <= 89
template <class V, class... Tail> PYNN_INLINE ReducedByEighths<V> reduced_by_eighths(V t, Tail... tail) {
    return reduced_by_eighths_from(splat<V>(EighthConstants::round), t, tail...);
}
// e^r - 1
template <class V> PYNN_INLINE V expm1_of_rest(V r) { return fma(r * r, polynomial(r, EighthConstants::tail), r); }
template <class V> PYNN_INLINE ShortExponential<V> short_exp(ReducedByEighths<V> t) {
    V p = expm1_of_rest(t.r);
    V high = look_up_eighth<V>(eighths_high, bits(t.z));
    return {{high, fma(high, p, look_up_eighth<V>(eighths_low, bits(t.z)))}, Power::from(t.z)};
}
// t is taken as at least -140 and must not be above 89; tail is the rest of t.
template <class V, class... Tail> PYNN_INLINE ShortExponential<V> short_exp(V t, Tail... tail) {
    return short_exp(reduced_by_eighths(at_least(EighthConstants::least, t), tail...));
}

// e^t = high (1 + low), with high a power of 2^(1/8), rounded, and low a tenth or less
template <class V> struct Term {
    V high, low;
};
// By i: what (8 k + i) << 20 makes 2^(k + i / 8), rounded, when added to its bits; and what that lacks, in parts of it
struct Eighths {
    float high[8], low[8];
    constexpr Eighths() : high(), low() {
        for (unsigned i = 0; i < 8; ++i) {
            high[i] = __builtin_bit_cast(float, __builtin_bit_cast(std::uint32_t, eighths_high[i]) - (i << 20));
            low[i] = static_cast<float>(static_cast<double>(eighths_low[i]) / static_cast<double>(eighths_high[i]));
        }
    }
};
inline constexpr Eighths eighths;
inline constexpr float term_round = 0x1.8p+23f; // what is added to it is rounded
// The high part, of z = term_round and eighths
template <class V> PYNN_INLINE V power_of_eighths(V z) {
    return as<V>(bits(look_up_eighth<V>(eighths.high, bits(z))) + (bits(z) << 20));
}
// Of a t whose z is term_round and eighths; expm1: e^r - 1
template <class V> PYNN_INLINE Term<V> term(ReducedByEighths<V> t, V expm1) {
    return {power_of_eighths(t.z), expm1 + look_up_eighth<V>(eighths.low, bits(t.z))};
}
// The same in fewer operations, which round to 2^-24 of r; series: (e^r - 1) / r
template <class V, std::size_t N> PYNN_INLINE Term<V> short_term(ReducedByEighths<V> t, const float (&series)[N]) {
    return {power_of_eighths(t.z), fma(t.r, polynomial(t.r, series), look_up_eighth<V>(eighths.low, bits(t.z)))};
}
// e^t as a term
template <class V> PYNN_INLINE Term<V> short_term(V t) {
    return short_term(reduced_by_eighths_from(splat<V>(term_round), t), EighthConstants::series);
}
// v, but 0 where x is below a limit and the result too small for a number: some CPUs take a hundred times as long for an
// underflow
template <class V> PYNN_INLINE V zero_below(element<V> limit, V x, V v) { return select(x < limit, V{}, v); }
// e^t, rounded
template <class V> PYNN_INLINE V rounded_exp(V t) {
    if constexpr (by_table<V>) {
        ShortExponential<V> e = short_exp(at_most(EighthConstants::greatest, t));
        return e.power.times(zero_below(ExpConstants<float>::least, t, rounded(e.mantissa)));
    } else {
        using C = ExpConstants<element<V>>;
        Exponential<V> e = exp_parts<true>(select(t > C::greatest, splat<V>(C::greatest), t));
        return rounded(power(e)) * e.rest;
    }
}
template <class V> PYNN_INLINE ShortExponential<V> or_one(V x, ShortExponential<V> e) { // where x >= 0
    return {select(x < 0, e.mantissa, whole(1 - V{})), select(x < 0, e.power, Power::one())};
}

// e^t = scale * (mantissa.high + mantissa.low), about 1 <= mantissa < 2, for -134 <= t <= 0
template <class V> struct BiasedExponential {
    Parts<V> mantissa;
    Scale scale;

    PYNN_INLINE V times(V v) const { return scale.times(v); }
    PYNN_INLINE V first(V v) const { return scale.first(v); }
    PYNN_INLINE V second(V v) const { return scale.second(v); }
};
template <class V, class... Tail> PYNN_INLINE BiasedExponential<V> biased_exp(V t, Tail... tail) {
    using C = EighthConstants;
    V z = fma(t, splat<V>(C::per_unit / 8), splat<V>(scale_round));
    V n = z - scale_round;
    V r = fma(n, splat<V>(-C::low * 8), (fma(n, splat<V>(-C::high * 8), t) + ... + tail));
    V p = fma(r * r, polynomial(r, C::tail), r);
    V high = look_up_eighth<V>(eighths_high, bits(z));
    return {{high, fma(high, p, look_up_eighth<V>(eighths_low, bits(z)))}, Scale::from(z, n)};
}

// 2^(i / 8) in 12 bits, and the rest
struct ShortEighths {
    float high[8], low[8];
    constexpr ShortEighths() : high(), low() {
        for (int i = 0; i < 8; ++i) {
            const double whole = static_cast<double>(eighths_high[i]);
            const auto cut = static_cast<float>(static_cast<int>(whole * 2048 + 0.5)) / 2048;
            high[i] = cut;
            low[i] = static_cast<float>((whole - static_cast<double>(cut)) + static_cast<double>(eighths_low[i]));
        }
    }
};
inline constexpr ShortEighths short_eighths;

struct ScaledConstants {
    float per_unit, high, low, series[4]; // series: (e^(factor r) - 1) / r
    constexpr explicit ScaledConstants(double factor)
        : per_unit(static_cast<float>(factor * 0x1.71547652b82fep+0)),
          high(static_cast<float>(0x1.62e42fefa39efp-1 / factor)),
          low(static_cast<float>(0x1.62e42fefa39efp-1 / factor - static_cast<double>(high))), series() {
        series[0] = static_cast<float>(factor);
        double power = factor;
        for (int i = 1; i < 4; ++i)
            series[i] = static_cast<float>((power *= factor) * static_cast<double>(EighthConstants::tail[i - 1]));
    }
};
// e^(factor u) as a term; tail is the rest of u
template <const ScaledConstants &C, class V, class... Tail> PYNN_INLINE Term<V> scaled_term(V u, Tail... tail) {
    const V z = fma(u, splat<V>(C.per_unit * 8), splat<V>(term_round)), n = z - term_round;
    const V r = fma(n, splat<V>(C.low / -8), (fma(n, splat<V>(C.high / -8), u) + ... + tail));
    return short_term(ReducedByEighths<V>{z, r}, C.series);
}
// e^(factor u) as biased_exp's; Short: with a mantissa.high of 12 bits
template <const ScaledConstants &C, bool Short = false, class V, class... Tail>
PYNN_INLINE BiasedExponential<V> scaled_exp(V u, Tail... tail) {
    V z = fma(u, splat<V>(C.per_unit), splat<V>(scale_round));
    V n = z - scale_round;
    V r = fma(n, splat<V>(-C.low), (fma(n, splat<V>(-C.high), u) + ... + tail));
    V high = look_up_eighth<V>(Short ? short_eighths.high : eighths_high, bits(z));
    V low = look_up_eighth<V>(Short ? short_eighths.low : eighths_low, bits(z));
    V both = Short ? high + low : high;
    return {{high, fma(both * r, polynomial(r, C.series), low)}, Scale::from(z, n)};
}

// 1 / (1 + e), for e <= 1; its parts are not loose
template <class V> PYNN_INLINE Parts<V> reciprocal_of_one_plus(ShortExponential<V> e) {
    Parts<V> d = fast_two_sum(1 - V{}, e.power.times(rounded(e.mantissa)));
    V r = 1 / d.high;
    return {r, r * fma(-d.low, r, fma(-d.high, r, 1 - V{}))};
}

template <class V> PYNN_INLINE Parts<V> reciprocal(V d) {
    V r = 1 / d;
    return {r, r * fma(-d, r, 1 - V{})};
}

// tanh(a) for a >= 0
template <class V> PYNN_INLINE V short_tanh(V a) {
    constexpr float greatest = 9.25f, near = 1.5f; // where the sum is below near the table is of tanh(a) / a - 1
    a = at_most(greatest, a);
    V sum = a + 1;
    ints<V> row = bits(sum) >> 22;
    V d = a - look_up_eighth<V>(tanh_halves[0], row), p = look_up_eighth<V>(tanh_halves[9], row);
#pragma GCC unroll 8
    for (std::size_t i = 8; i > 1; --i) p = fma(p, d, look_up_eighth<V>(tanh_halves[i], row));
    return fma(p, d, select(sum < near, a, look_up_eighth<V>(tanh_halves[1], row)));
}

// The table's function of |x|, of two: for x <= 0 and for x > 0
template <const Table &table, class V> PYNN_INLINE V bounded_by_table(V x) {
    return at_least(-table.greatest[0], at_most(table.greatest[1], x));
}
template <const Table &table, class V> PYNN_INLINE Place<table, V> one_sided_place(V x) {
    return Place<table, V>::of(magnitude(bounded_by_table<table>(x)), ints<V>(x > 0));
}
// Parts that are no longer loose
template <class V> PYNN_INLINE Parts<V> tight(Parts<V> f) { return fast_two_sum(f.high, f.low); }
template <const Table &table, class V> PYNN_INLINE Parts<V> one_sided(V x) {
    return tight(one_sided_place<table>(x).read());
}

// a b, rounded once; a may be infinite and loose
template <class V> PYNN_INLINE V rounded_product(Parts<V> a, Parts<V> b) {
    return fma(a.high, b.high, fma(a.high, b.low, a.low * b.high));
}
template <class V> PYNN_INLINE V rounded_product(V a, Parts<V> b) { return fma(a, b.high, a * b.low); }
// the same of two that are loose
template <class V> PYNN_INLINE V rounded_loose_product(Parts<V> a, Parts<V> b) {
    return fma(a.high, b.high, fma(a.high, b.low, a.low * rounded(b)));
}
// x a as parts
template <class V> PYNN_INLINE Parts<V> times(V x, Parts<V> a) {
    V p = x * a.high;
    return {p, fma(x, a.low, fma(x, a.high, -p))};
}
// (e^t - 1) / t for t <= 0 is what is read there
template <class V> PYNN_INLINE V bounded_by_expm1(V t) { return at_least(-expm1_table.greatest[0], t); }
template <class V> PYNN_INLINE Place<expm1_table, V> place_in_expm1(V t) {
    return Place<expm1_table, V>::of(-bounded_by_expm1(t));
}
// scale * (e^t - 1) for t <= 0, rounded once
template <class V> PYNN_INLINE V scaled_expm1(Parts<V> scale, V t) {
    if constexpr (by_table<V>) {
        return rounded_product(place_in_expm1(t).read(), times(bounded_by_expm1(t), scale));
    } else {
        return rounded(product(scale, expm1_parts(t)));
    }
}
template <class V> PYNN_INLINE V rounded_expm1(V t, Parts<V> factor) { // what place_in_expm1(t) reads
    return rounded_product(bounded_by_expm1(t), factor);
}
template <class V> PYNN_INLINE V rounded_expm1(V t) {
    if constexpr (by_table<V>) {
        return rounded_expm1(t, place_in_expm1(t).read());
    } else {
        return rounded(expm1_parts(t));
    }
}
// t and its rest
template <class V> PYNN_INLINE V rounded_expm1(V t, V tail) {
    if constexpr (by_table<V>) {
        V bounded = bounded_by_expm1(t);
        Parts<V> f = place_in_expm1(t).read();
        return fma(bounded, f.high, fma(bounded, f.low, tail * fma(bounded, rounded(f), 1 - V{})));
    } else {
        Parts<V> m = expm1_parts(t);
        return m.high + fma(tail, 1 + m.high, m.low);
    }
}

} // namespace
} // namespace pynn::PYNN_ISA
