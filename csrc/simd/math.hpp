// Elementary functions from fixed polynomials: every instruction set runs the same IEEE operations in the same order.
// Results come as a high and a low part, so that what is built from them is rounded once.
#pragma once

namespace pynn::PYNN_ISA {
namespace {

template <class T> struct ExpConstants;
template <> struct ExpConstants<float> {
    static constexpr float log2_e = 0x1.715476p+0f, round = 0x1.8p+23f;
    static constexpr float ln2_high = 0x1.62e4p-1f, ln2_low = 0x1.7f7d1cp-20f; // n * ln2_high is exact
    static constexpr float least = -104.0f;
    static constexpr float least_exponent = -80.0f;
    static constexpr int mantissa = 23, bias = 127;
    // (e^r - 1 - r) / r^2 on |r| <= ln(2) / 2, minimax, 2^-29
    static constexpr float tail[] = {0x1.0000000000000p-1f, 0x1.5555560000000p-3f,  0x1.5554e80000000p-5f,
                                     0x1.1110aa0000000p-7f, 0x1.6d444c0000000p-10f, 0x1.a17f980000000p-13f};
};
template <> struct ExpConstants<double> {
    static constexpr double log2_e = 0x1.71547652b82fep+0, round = 0x1.8p+52;
    static constexpr double ln2_high = 0x1.62e42fefa38p-1, ln2_low = 0x1.ef35793c7673p-45, ln2 = 0x1.62e42fefa39efp-1;
    static constexpr double least = -746.0, lowest = -800.0, greatest = 710.0;
    static constexpr double least_exponent = -140.0;
    static constexpr int mantissa = 52, bias = 1023;
    // the same, 2^-59
    static constexpr double tail[] = {0x1.0000000000000p-1,  0x1.5555555555557p-3,  0x1.5555555555558p-5,
                                      0x1.111111111009cp-7,  0x1.6c16c16c1519dp-10, 0x1.a01a01ac0a775p-13,
                                      0x1.a01a01ad1d2f6p-16, 0x1.71de01c47a3c4p-19, 0x1.27e4cc7c5d5b6p-22,
                                      0x1.af4ecc26c492fp-26, 0x1.1f8bd41953b3cp-29};
};

struct AtanhConstants {
    // (atanh(z) - z) / z^3 in z^2 on 0 <= z <= 1/3, minimax, 2^-59
    static constexpr double tail[] = {0x1.5555555555555p-2, 0x1.999999999993fp-3, 0x1.249249249a332p-3,
                                      0x1.c71c71be87e28p-4, 0x1.745d19a7a4c7ap-4, 0x1.3b134eaee1bb3p-4,
                                      0x1.111af5adf2d74p-4, 0x1.e09d38291e8f3p-5, 0x1.bc638c4d2d9efp-5,
                                      0x1.32255803cf977p-5, 0x1.40c87651e251ep-4};
    // the same on |z| <= 3 - sqrt(8), 2^-45 of atanh(z)
    static constexpr double short_tail[] = {0x1.555555561fb03p-2, 0x1.999996a503fddp-3, 0x1.249413e1e7328p-3,
                                            0x1.c62a6384190d3p-4, 0x1.91203ff42d483p-4};
};

// Phi(-a) exp(a^2 / 2) = u P(1 - 2 u) with u = K / (K + a), 0 <= a <= limit; P's first coefficients in two parts
struct NormalTailConstants {
    static constexpr double K = 4.5, limit = 39.5;
    static constexpr double head[][2] = {{0x1.5b5acd3b15fbbp-3, 0x1.3bc3249ea80e8p-57},
                                         {-0x1.23636f8969e77p-3, 0x1.6a4bf81ac1d39p-57},
                                         {0x1.965ef9ffe5a0ep-4, 0x1.aaa33d4dade57p-58}};
    static constexpr double tail[] = {
        -0x1.ccd4a11cba8efp-5,  0x1.95881ac198844p-6,   -0x1.ed4974ef1b94dp-8,  0x1.ec162d1103ea9p-11,
        0x1.9781ce8eab5a3p-12,  -0x1.abb36d2dceef1p-13, 0x1.7ca6977c1c557p-20,  0x1.a1b9f0f91f72ep-16,
        -0x1.db3935de1ef8fp-19, -0x1.a8a1a4c5cd937p-19, 0x1.7c9cda5d4df5fp-21,  0x1.ffe81e95794e5p-22,
        -0x1.dd6b810bf1f4ap-24, -0x1.6ddcab5c84b05p-24, 0x1.d4c23d94318a5p-27,  0x1.1c3c3fd971cd2p-26,
        -0x1.095045b80be7ap-31, -0x1.9717537dce41ep-29, -0x1.af43d8560f252p-32, 0x1.743781de14096p-32,
        0x1.c6fc5674388d3p-34,  0x1.0212dfe3a60c4p-39};
};

// (x - tanh(x)) / x^3 in x^2 on 0 <= x <= 1, the first coefficients in two parts
struct TanhShrinkConstants {
    static constexpr double head[][2] = {{0x1.5555555555555p-2, 0x1.5547a2ac2c32ep-56},
                                         {-0x1.1111111111111p-3, 0x1.21530970f4d8dp-62}};
    static constexpr double tail[] = {0x1.ba1ba1ba1b9f7p-5,   -0x1.664f4882c0365p-6,  0x1.226e355e411f4p-7,
                                      -0x1.d6d3d0d6edea5p-9,  0x1.7da3637bc212p-10,   -0x1.3558184bbb1fbp-11,
                                      0x1.f57c73b68a46ep-13,  -0x1.96760117ce12ap-14, 0x1.494c2420a22dbp-15,
                                      -0x1.0a296ce048d67p-16, 0x1.aa38c99699846p-18,  -0x1.4b6cc6fc67b6ep-19,
                                      0x1.e029d08690814p-21,  -0x1.2e8981b606881p-22, 0x1.2c57cb77f1ae2p-24,
                                      -0x1.947a01e0045dep-27, 0x1.0e62b598d7404p-30};
};

template <class V, std::size_t N> PYNN_INLINE V polynomial(V x, const element<V> (&coefficients)[N]) {
    V p = splat<V>(coefficients[N - 1]);
    for (std::size_t i = N - 1; i > 0; --i) p = fma(p, x, splat<V>(coefficients[i - 1]));
    return p;
}

template <class V> struct Parts {
    V high, low;
};

// a + b where |a| >= |b| or a = 0
template <class V> PYNN_INLINE Parts<V> fast_two_sum(V a, V b) {
    V s = a + b;
    return {s, (a - s) + b};
}
template <class V> PYNN_INLINE Parts<V> two_sum(V a, V b) {
    V s = a + b, t = s - a;
    return {s, (a - (s - t)) + (b - t)};
}

// high + low as the nearest two numbers of V
template <class V> PYNN_INLINE Parts<V> constant(double high, double low = 0) {
    const auto first = static_cast<element<V>>(high);
    return {splat<V>(first), splat<V>(static_cast<element<V>>((high - static_cast<double>(first)) + low))};
}
template <class V> PYNN_INLINE Parts<V> whole(V a) { return {a, V{}}; }
template <class V, class I> PYNN_INLINE Parts<V> select(I mask, Parts<V> a, Parts<V> b) {
    return {select(mask, a.high, b.high), select(mask, a.low, b.low)};
}

// Sums and products of parts, to about twice the precision of V; for finite operands.
template <class V> PYNN_INLINE Parts<V> sum(Parts<V> a, Parts<V> b) {
    Parts<V> s = two_sum(a.high, b.high);
    return {s.high, s.low + (a.low + b.low)};
}
template <class V> PYNN_INLINE Parts<V> product(Parts<V> a, Parts<V> b) {
    V p = a.high * b.high;
    return {p, fma(a.high, b.low, fma(a.low, b.high, fma(a.high, b.high, -p)))};
}
template <class V> PYNN_INLINE Parts<V> product(Parts<V> a, V b) {
    V p = a.high * b;
    return {p, fma(a.low, b, fma(a.high, b, -p))};
}
template <class V> PYNN_INLINE Parts<V> negative(Parts<V> a) { return {-a.high, -a.low}; }
template <class V> PYNN_INLINE V rounded(Parts<V> a) { return a.high + a.low; }
// Products with what may be next to the smallest numbers lose no low parts when taken a power of two as large.
template <class V> struct Lift {
    static constexpr auto lift = static_cast<element<V>>(sizeof(element<V>) == 4 ? 0x1p60 : 0x1p200);
    ints<V> small;

    PYNN_INLINE explicit Lift(V v) : small(magnitude(v) < lift) {}
    PYNN_INLINE V up(V v) const { return select(small, v * lift, v); }
    PYNN_INLINE V down(V v) const { return select(small, v * (1 / lift), v); }
};
// v a b, rounded once; v may be infinite
template <class V> PYNN_INLINE V scaled(V v, Parts<V> a, Parts<V> b) {
    V p = v * a.high;
    V p_low = fma(v, a.low, fma(v, a.high, -p));
    V low = fma(p, b.low, p_low * b.high);
    return fma(p, b.high, select(low - low == 0, low, V{}));
}

// e^t = rest * scale * (1 + expm1.high + expm1.low) for t <= 0, or of any sign up to greatest; scale is
// normal, rest is 1 unless e^t is tiny or huge. A t below `from` is taken as that.
template <class V> struct Exponential {
    V rest, scale;
    Parts<V> expm1;
};
template <bool AnySign = false, class V>
PYNN_INLINE Exponential<V> exp_parts(V t, V t_low = V{}, element<V> from = ExpConstants<element<V>>::least) {
    using C = ExpConstants<element<V>>;
    V least = splat<V>(from);
    t = select(t < least, least, t); // a NaN stays
    V z = fma(t, splat<V>(C::log2_e), splat<V>(C::round));
    V n = z - C::round;
    V r_exact = fma(n, splat<V>(-C::ln2_high), t);
    V r = fma(n, splat<V>(-C::ln2_low), r_exact);
    V r_low = fma(n, splat<V>(-C::ln2_low), r_exact - r) + t_low;
    Parts<V> p = fast_two_sum(r, (r * r) * polynomial(r, C::tail));
    V least_z = splat<V>(C::round + C::least_exponent);
    V scale_z = select(z < least_z, least_z, z);
    if constexpr (AnySign) {
        V greatest_z = splat<V>(C::round - C::least_exponent);
        scale_z = select(scale_z > greatest_z, greatest_z, scale_z);
    }
    V scale = as<V>((bits(scale_z) + C::bias) << C::mantissa);
    V rest = as<V>((bits(z) - bits(scale_z) + C::bias) << C::mantissa);
    return {rest, scale, {p.high, fma(p.high, r_low, p.low + r_low)}};
}

// scale * (1 + expm1): e^t but for rest
template <class V> PYNN_INLINE Parts<V> power(Exponential<V> e) {
    Parts<V> p = fast_two_sum(e.scale, e.scale * e.expm1.high);
    return {p.high, fma(e.scale, e.expm1.low, p.low)};
}

// e^t - 1 for t <= 0, to a fraction of an ULP also near 0
template <class V> PYNN_INLINE Parts<V> expm1_parts(V t) {
    Exponential<V> e = exp_parts(t);
    Parts<V> whole = fast_two_sum(-1 - V{}, e.scale);
    Parts<V> s = fast_two_sum(whole.high, e.scale * e.expm1.high);
    return {s.high, fma(e.scale, e.expm1.low, s.low + whole.low)};
}

// (a.high + a.low) / (d.high + d.low) as a rounded quotient and its correction
template <class V> PYNN_INLINE Parts<V> quotient(Parts<V> a, Parts<V> d) {
    V inverse = 1 / d.high;
    V q = a.high * inverse;
    V remainder = fma(-q, d.high, a.high) + fma(-q, d.low, a.low);
    return {q, remainder * inverse};
}

// Phi(-a) = exp(-a^2 / 2) normal_tail(a), for 0 <= a <= limit
template <class V> PYNN_INLINE Parts<V> normal_tail(V a) {
    using C = NormalTailConstants;
    constexpr std::size_t n = sizeof C::head / sizeof C::head[0];
    Parts<V> k = whole(splat<V>(C::K));
    Parts<V> u = quotient(k, two_sum(k.high, a));
    Parts<V> q = fast_two_sum(1 - V{}, -2 * u.high);
    q.low -= 2 * u.low;
    Parts<V> p = whole(polynomial(q.high, C::tail));
#pragma GCC unroll 4
    for (std::size_t i = n; i > 0; --i)
        p = sum({splat<V>(C::head[i - 1][0]), splat<V>(C::head[i - 1][1])}, product(q, p));
    return product(u, p);
}

// tanh(a) for a >= 0
template <class V> PYNN_INLINE Parts<V> tanh_parts(V a) {
    Parts<V> m = expm1_parts(-2 * a);
    Parts<V> denominator = fast_two_sum(2 - V{}, m.high);
    denominator.low += m.low;
    return quotient(negative(m), denominator);
}

} // namespace
} // namespace pynn::PYNN_ISA
