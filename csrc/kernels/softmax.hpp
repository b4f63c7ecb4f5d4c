// softmax of one row and its backward. Sums go into 16 interleaved partial results, added as a fixed tree; each
// partial result carries twice the precision of the row.
#pragma once

#include "kernels/map.hpp"
#include "kernels/sums.hpp"
#include "simd/piecewise.hpp"

namespace pynn::PYNN_ISA {
namespace {

// Groups of 16 elements in registers: the first so many of p, then padding.
template <class T, std::size_t groups = 1> struct Block {
    using V = vec<T>;
    static constexpr std::size_t per_group = partial_results / width<T>, vectors = groups * per_group;
    V v[groups][per_group];

    PYNN_INLINE Block(const T *p, std::size_t lanes, T padding) {
        for (std::size_t j = 0; j < vectors; ++j) {
            const std::size_t at = j * width<T>;
            V &to = v[j / per_group][j % per_group];
            if (lanes >= at + width<T>)
                to = load<V>(p + at);
            else
                to = lanes > at ? load_first<V>(p + at, lanes - at, padding) : splat<V>(padding);
        }
    }
    PYNN_INLINE void store_to(T *p, std::size_t lanes) const {
        for (std::size_t j = 0; j < vectors; ++j) {
            const std::size_t at = j * width<T>;
            if (lanes > at) store_up_to(p + at, v[j / per_group][j % per_group], lanes - at);
        }
    }
};

// Interleaved partial results: element i of a row goes to partial result i % 16.
template <class T> struct PartialSums;

template <> struct PartialSums<float> {
    static constexpr std::size_t vectors = partial_results / width<double>;
    vec<double> sum[vectors] = {};

    using Group = vec<float>[partial_results / width<float>]; // 16 terms

    // products of two floats are exact in double
    PYNN_INLINE void add_products(const float *x, const float *y, std::size_t n) {
        for (std::size_t i = 0; i < n; i += partial_results)
            for (std::size_t j = 0; j < vectors; ++j)
                sum[j] += load_wide(x + i + j * wide_lanes) * load_wide(y + i + j * wide_lanes);
    }
    PYNN_INLINE void add_products(const Group &x, const Group &y) {
        for (std::size_t j = 0; j < vectors / 2; ++j) {
            sum[2 * j] += as_doubles(half_of<false>(x[j])) * as_doubles(half_of<false>(y[j]));
            sum[2 * j + 1] += as_doubles(half_of<true>(x[j])) * as_doubles(half_of<true>(y[j]));
        }
    }
    PYNN_INLINE void add(const float *terms, std::size_t n) {
        for (std::size_t i = 0; i < n; i += partial_results)
            for (std::size_t j = 0; j < vectors; ++j) sum[j] += load_wide(terms + i + j * wide_lanes);
    }
    PYNN_INLINE void add(const Group &terms) {
        for (std::size_t j = 0; j < vectors / 2; ++j) {
            sum[2 * j] += as_doubles(half_of<false>(terms[j]));
            sum[2 * j + 1] += as_doubles(half_of<true>(terms[j]));
        }
    }
    PYNN_INLINE void total(double *high, double *low) const {
        *high = folded(sum, [](auto a, auto b) { return a + b; });
        *low = 0;
    }
};

template <> struct PartialSums<double> {
    static constexpr std::size_t vectors = partial_results / width<double>;
    vec<double> sum[vectors] = {}, error[vectors] = {};

    using Group = vec<double>[vectors]; // 16 terms

    PYNN_INLINE void add_products(const double *x, const double *y, std::size_t n) {
        for (std::size_t i = 0; i < n; i += partial_results)
            add_products(Block<double>(x + i, partial_results, 0).v[0], Block<double>(y + i, partial_results, 0).v[0]);
    }
    PYNN_INLINE void add_products(const Group &x, const Group &y) {
        for (std::size_t j = 0; j < vectors; ++j) {
            const vec<double> product = x[j] * y[j];
            Parts<vec<double>> s = two_sum(sum[j], product);
            sum[j] = s.high;
            error[j] += s.low + fma(x[j], y[j], -product);
        }
    }
    PYNN_INLINE void add(const double *terms, std::size_t n) {
        for (std::size_t i = 0; i < n; i += partial_results) add(Block<double>(terms + i, partial_results, 0).v[0]);
    }
    PYNN_INLINE void add(const Group &terms) {
        for (std::size_t j = 0; j < vectors; ++j) {
            Parts<vec<double>> s = two_sum(sum[j], terms[j]);
            sum[j] = s.high;
            error[j] += s.low;
        }
    }
    PYNN_INLINE void total(double *high, double *low) const {
        double s[partial_results], e[partial_results];
        for (std::size_t j = 0; j < vectors; ++j) {
            store(s + j * width<double>, sum[j]);
            store(e + j * width<double>, error[j]);
        }
        for (std::size_t half = partial_results / 2; half > 0; half /= 2) {
            for (std::size_t j = 0; j < half; ++j) {
                double a = s[j], b = s[j + half], t = a + b, back = t - a;
                s[j] = t;
                e[j] += e[j + half] + ((a - (t - back)) + (b - back));
            }
        }
        *high = s[0] + e[0];
        *low = (s[0] - *high) + e[0];
    }
};

// exp(x - y), whose difference is rounded at the end only; for x <= y, or not much above
template <bool AnySign = false, class V> PYNN_INLINE V exp_of_difference(V x, V y) {
    Parts<V> difference = two_sum(x, -y);
    // of x = -inf too, whose low part is a NaN
    V low = select(difference.high < ExpConstants<element<V>>::least, V{}, difference.low);
    if constexpr (by_table<V>) {
        V t = AnySign ? at_most(EighthConstants::greatest, difference.high) : difference.high;
        ShortExponential<V> e = short_exp(t, low);
        return e.power.times(rounded(e.mantissa));
    } else {
        V t = difference.high;
        if constexpr (AnySign)
            t = select(t > ExpConstants<element<V>>::greatest, splat<V>(ExpConstants<element<V>>::greatest), t);
        Exponential<V> e = exp_parts<AnySign>(t, low);
        return (e.scale + e.scale * (e.expm1.high + e.expm1.low)) * e.rest;
    }
}

// A row of float32 whose greatest element is less has a float between 132 and 140 below it. What is less than that is taken
// as that: its exponential is 0 too. Elsewhere differences are exact, or so great.
constexpr float near_limit = 0x1p+26f, far_below = 136.0f;

// exp(x - greatest) of a row; Near: the greatest element is below near_limit, of either sign
template <class T, bool Near> struct Exponentials;

template <bool Near> struct Exponentials<float, Near> {
    using V = vec<float>;
    V greatest, lowest;

    PYNN_INLINE explicit Exponentials(float from) : greatest(splat<V>(from)), lowest(splat<V>(from - far_below)) {}
    PYNN_INLINE ReducedByEighths<V> reduced(V x) const {
        Parts<V> difference = Near ? two_sum(maximum(lowest, x), -greatest) : whole(at_least(-far_below, x - greatest));
        return reduced_by_eighths(difference.high, difference.low);
    }
    PYNN_INLINE V operator()(V x) const {
        ShortExponential<V> e = short_exp(reduced(x));
        return e.power.down(rounded(e.mantissa));
    }
    // 2^80 exp(x - greatest) in two parts: the greater one, a power of 2^(1/8), is returned; the other, 1/16 of it or less, is
    // added to low
    static constexpr double scale = 0x1p+80;
    PYNN_INLINE V term(V x, V &low) const {
        ReducedByEighths<V> t = reduced(x);
        V power = as<V>((bits(t.z) & ~7) << 20); // as Power::down() has it
        V high = look_up_eighth<V>(eighths_high, bits(t.z)) * power;
        low = fma(look_up_eighth<V>(eighths_low, bits(t.z)), power, low);
        low = fma(high, expm1_of_rest(t.r), low);
        return high;
    }
};
template <bool Near> struct Exponentials<double, Near> {
    using V = vec<double>;
    V greatest;

    PYNN_INLINE explicit Exponentials(double from) : greatest(splat<V>(from)) {}
    PYNN_INLINE V operator()(V x) const { return exp_of_difference(x, greatest); }
    static constexpr double scale = 1; // sums have digits to spare
    PYNN_INLINE V term(V x, V &) const { return (*this)(x); }
};
// f(the exponentials of a row)
template <class T, class F> PYNN_INLINE void with_exponentials(T greatest, F f) {
    if (sizeof(T) == 8 || (-near_limit < greatest && greatest < near_limit))
        f(Exponentials<T, true>(greatest));
    else
        f(Exponentials<T, false>(greatest));
}

template <class V> PYNN_INLINE V larger(V v, V other) {
    if constexpr (by_table<V>)
        return maximum(v, other);
    else
        return select(v > other, v, other);
}
// Of several vectors; NaN may be passed over.
template <class V, std::size_t vectors> PYNN_INLINE element<V> greatest_lane(const V (&v)[vectors]) {
    return folded(v, [](auto a, auto b) { return b > a ? b : a; });
}
// NaN may be passed over, but for one at the start
template <class T> PYNN_INLINE T greatest_of_row(const T *x, std::size_t n) {
    using V = vec<T>;
    if (n <= partial_results) return greatest_lane(Block<T>(x, n, -static_cast<T>(__builtin_inf())).v[0]);
    constexpr std::size_t chains = 4; // maxima that do not wait for each other
    V best[chains];
    for (V &v : best) v = splat<V>(x[0]);
    std::size_t i = 0;
    for (; i + chains * width<T> <= n; i += chains * width<T>)
        for (std::size_t c = 0; c < chains; ++c) best[c] = larger(load<V>(x + i + c * width<T>), best[c]);
    for (; i < n; i += width<T>) {
        const std::size_t rest = n - i;
        best[0] = larger(rest < width<T> ? load_first<V>(x + i, rest, x[0]) : load<V>(x + i), best[0]);
    }
    const V two[] = {larger(best[0], best[1]), larger(best[2], best[3])}, one[] = {larger(two[0], two[1])};
    return greatest_lane(one);
}

template <class T>
constexpr std::size_t many_groups =
    many_vectors<T> * width<T> > partial_results ? many_vectors<T> * width<T> / partial_results : 1;

// In the first-level cache: sums that wait for no exponential are faster read from there.
constexpr std::size_t softmax_block = 256;

// 1 / (total + total_low) in two parts
template <class V> PYNN_INLINE Parts<V> reciprocal_of_sum(double total, double total_low) {
    using W = vec<double>;
    W sum = splat<W>(total), high = 1 / sum;
    W low = high * fma(-high, splat<W>(total_low), fma(-high, sum, 1 - W{}));
    const auto first = static_cast<element<V>>(high[0]);
    return {splat<V>(first), splat<V>(static_cast<element<V>>((high[0] - static_cast<double>(first)) + low[0]))};
}

template <class T> struct SoftmaxSum {
    T greatest;
    double total; // of exp(x - greatest)
};

template <class T> PYNN_INLINE SoftmaxSum<T> softmax_row_sum(const T *x, T *y, std::size_t n) {
    using V = vec<T>;
    if (n == 0) return {};
    constexpr T lowest = -static_cast<T>(__builtin_inf());
    const T greatest = greatest_of_row(x, n);
    PartialSums<T> sums;
    const std::size_t whole = n - n % partial_results;
    with_exponentials(greatest, [&](auto exp) __attribute__((always_inline)) {
        const auto add_group = [&](std::size_t i, std::size_t lanes) __attribute__((always_inline)) {
            Block<T> block(x + i, lanes, lowest);
            for (V &v : block.v[0]) v = exp(v);
            sums.add(block.v[0]);
            block.store_to(y + i, lanes);
        };
        for (std::size_t i = 0; i < whole;) {
            if constexpr (by_table<V>) {
                const std::size_t count = whole - i < softmax_block ? whole - i : softmax_block;
                map<many_vectors<T>>(count, y + i, exp, x + i);
                sums.add(y + i, count);
                i += count;
            } else {
                add_group(i, partial_results);
                i += partial_results;
            }
        }
        if (whole < n) add_group(whole, n - whole);
    });
    double total, total_low;
    sums.total(&total, &total_low);
    const Parts<V> inverse = reciprocal_of_sum<V>(total, total_low);
    const auto scaled = [&](V e) __attribute__((always_inline)) { return fma(e, inverse.high, e * inverse.low); };
    map<many_vectors<T>>(n, y, scaled, y);
    return {greatest, total};
}

template <class T> void softmax_row(const T *x, T *y, std::size_t n) { softmax_row_sum(x, y, n); }

template <class T> void softmin_row(const T *x, T *y, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i) y[i] = -x[i];
    softmax_row(y, y, n);
}

template <class T> void softmax_backward_row(const T *dy, const T *y, T *dx, std::size_t n) {
    using V = vec<T>;
    PartialSums<T> sums;
    const std::size_t whole = n - n % partial_results;
    sums.add_products(dy, y, whole);
    if (whole < n) sums.add_products(Block<T>(dy + whole, n - whole, 0).v[0], Block<T>(y + whole, n - whole, 0).v[0]);
    double dot, dot_low;
    sums.total(&dot, &dot_low);
    V high = splat<V>(static_cast<T>(dot));
    V low = splat<V>(static_cast<T>((dot - static_cast<double>(static_cast<T>(dot))) + dot_low));
    const auto f = [&](V gradient, V output) __attribute__((always_inline)) {
        Parts<V> difference = two_sum(gradient, -high);
        V rest = difference.low - low;
        return output * (difference.high + select(rest == rest, rest, V{}));
    };
    map<many_vectors<T>>(n, dx, f, dy, y);
}

template <class T> void softmin_backward_row(const T *dy, const T *y, T *dx, std::size_t n) {
    softmax_backward_row(dy, y, dx, n);
    for (std::size_t i = 0; i < n; ++i) dx[i] = -dx[i];
}

} // namespace
} // namespace pynn::PYNN_ISA
