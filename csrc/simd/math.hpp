// Elementary functions from fixed polynomials: every instruction set runs the same IEEE operations in the same order.
// Results come as a high and a low part, so that what is built from them is rounded once.
#pragma once

namespace pynn::PYNN_ISA {
namespace {

template <class T> struct ExpConstants;
template <> struct ExpConstants<float> {
    static constexpr float log2_e = 0x1.715476p+0f, round = 0x1.8p+23f;
    static constexpr float ln2_high = 0x1.62e4p-1f, ln2_low = 0x1.7f7d1cp-20f; // n * ln2_high is exact
    static constexpr float least = -104.0f, least_exponent = -60.0f;
    static constexpr int mantissa = 23, bias = 127;
    // (e^r - 1 - r) / r^2 on |r| <= ln(2) / 2, minimax, 2^-29
    static constexpr float tail[] = {0x1.0000000000000p-1f, 0x1.5555560000000p-3f,  0x1.5554e80000000p-5f,
                                     0x1.1110aa0000000p-7f, 0x1.6d444c0000000p-10f, 0x1.a17f980000000p-13f};
};
template <> struct ExpConstants<double> {
    static constexpr double log2_e = 0x1.71547652b82fep+0, round = 0x1.8p+52;
    static constexpr double ln2_high = 0x1.62e42fefa38p-1, ln2_low = 0x1.ef35793c7673p-45;
    static constexpr double least = -746.0, least_exponent = -110.0;
    static constexpr int mantissa = 52, bias = 1023;
    // the same, 2^-59
    static constexpr double tail[] = {0x1.0000000000000p-1,  0x1.5555555555557p-3,  0x1.5555555555558p-5,
                                      0x1.111111111009cp-7,  0x1.6c16c16c1519dp-10, 0x1.a01a01ac0a775p-13,
                                      0x1.a01a01ad1d2f6p-16, 0x1.71de01c47a3c4p-19, 0x1.27e4cc7c5d5b6p-22,
                                      0x1.af4ecc26c492fp-26, 0x1.1f8bd41953b3cp-29};
};

template <class T> struct AtanhConstants;
template <> struct AtanhConstants<float> {
    // (atanh(z) - z) / z^3 in z^2 on 0 <= z <= 1/3, minimax, 2^-28
    static constexpr float tail[] = {0x1.5555560000000p-2f, 0x1.9998cc0000000p-3f, 0x1.24ca860000000p-3f,
                                     0x1.bc64980000000p-4f, 0x1.dc5c220000000p-4f};
};
template <> struct AtanhConstants<double> {
    // the same, 2^-59
    static constexpr double tail[] = {0x1.5555555555555p-2, 0x1.999999999993fp-3, 0x1.249249249a332p-3,
                                      0x1.c71c71be87e28p-4, 0x1.745d19a7a4c7ap-4, 0x1.3b134eaee1bb3p-4,
                                      0x1.111af5adf2d74p-4, 0x1.e09d38291e8f3p-5, 0x1.bc638c4d2d9efp-5,
                                      0x1.32255803cf977p-5, 0x1.40c87651e251ep-4};
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

// e^t = rest * scale * (1 + expm1.high + expm1.low) for t <= 0; scale is normal, rest is 1 unless e^t is tiny.
template <class V> struct Exponential {
    V rest, scale;
    Parts<V> expm1;
};
template <class V> PYNN_INLINE Exponential<V> exponential(V t, V t_low = V{}) {
    using C = ExpConstants<element<V>>;
    V least = splat<V>(C::least);
    t = select(t < least, least, t); // a NaN stays
    V z = fma(t, splat<V>(C::log2_e), splat<V>(C::round));
    V n = z - C::round;
    V r_exact = fma(n, splat<V>(-C::ln2_high), t);
    V r = fma(n, splat<V>(-C::ln2_low), r_exact);
    V r_low = fma(n, splat<V>(-C::ln2_low), r_exact - r) + t_low;
    Parts<V> p = fast_two_sum(r, (r * r) * polynomial(r, C::tail));
    V least_z = splat<V>(C::round + C::least_exponent);
    V scale_z = select(z < least_z, least_z, z);
    V scale = as<V>((bits(scale_z) + C::bias) << C::mantissa);
    V rest = as<V>((bits(z) - bits(scale_z) + C::bias) << C::mantissa);
    return {rest, scale, {p.high, fma(p.high, r_low, p.low + r_low)}};
}

// e^t - 1 for t <= 0, to a fraction of an ULP also near 0
template <class V> PYNN_INLINE Parts<V> expm1_parts(V t) {
    Exponential<V> e = exponential(t);
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

} // namespace
} // namespace pynn::PYNN_ISA
