// log(sum(exp(x))) of one row, log_softmax, and their backwards. Sums are those of softmax.hpp; the greatest elements,
// whose exponentials are 1, are counted, so that a small rest keeps its digits.
#pragma once

#include "kernels/softmax.hpp"

namespace pynn::PYNN_ISA {
namespace {

// exp(x - greatest) and what its rounding lost; float64 results have digits to spare
PYNN_INLINE Parts<vec<float>> exp_parts_of_difference(vec<float> x, vec<float> greatest) {
    using V = vec<float>;
    Parts<V> difference = two_sum(x, -greatest);
    V low = select(difference.high < ExpConstants<float>::least, V{}, difference.low);
    ShortExponential<V> e = short_exp(difference.high, low);
    V value = rounded(e.mantissa);
    return {e.power.times(value), e.power.times((e.mantissa.high - value) + e.mantissa.low)};
}
PYNN_INLINE Parts<vec<double>> exp_parts_of_difference(vec<double> x, vec<double> greatest) {
    return whole(exp_of_difference(x, greatest));
}

// log(1 + s) for s >= 0
PYNN_INLINE Parts<double> log_of_one_plus(double s, double s_low) {
    using V = vec<double>;
    using C = ExpConstants<double>;
    Parts<V> rest = fast_two_sum(splat<V>(s), splat<V>(s_low));
    rest.low = select(rest.low == rest.low, rest.low, V{});
    Parts<V> total = two_sum(1 - V{}, rest.high);
    total.low += rest.low;
    ints<V> exponent = (bits(total.high) >> C::mantissa) - C::bias; // 2^exponent <= total
    V down = as<V>((C::bias - exponent) << C::mantissa), k = convert<V>(exponent);
    Parts<V> over = fast_two_sum(total.high * down - 1, total.low * down);
    over = select(exponent == 0, rest, over);
    Parts<V> denominator = fast_two_sum(2 - V{}, over.high);
    denominator.low += over.low;
    Parts<V> z = quotient(over, denominator);
    V square = z.high * z.high;
    V tail = fma(z.high * square, polynomial(square, AtanhConstants::tail), z.low);
    Parts<V> log = two_sum(k * C::ln2_high, 2 * z.high);
    log.low += fma(k, splat<V>(C::ln2_low), 2 * tail);
    log = fast_two_sum(log.high, log.low);
    V nan = rest.high - rest.high; // NaN of an infinite or missing sum
    return {(log.high + nan)[0], log.low[0]};
}

template <class T> struct LogSum {
    T greatest;
    Parts<double> log; // of sum(exp(x - greatest))
};

// Sums over a row, but for its greatest elements, which are counted
template <class T> struct OtherSums {
    using V = vec<T>;
    static constexpr std::size_t vectors = partial_results / width<T>;
    PartialSums<T> sums;
    V lost[vectors] = {};
    ints<V> counts[vectors] = {};

    template <std::size_t groups> PYNN_INLINE void add(const Block<T, groups> &block, V greatest) {
        V values[groups][vectors];
        for (std::size_t g = 0; g < groups; ++g)
            for (std::size_t j = 0; j < vectors; ++j) {
                const V v = block.v[g][j];
                const auto is_greatest = v == greatest;
                counts[j] -= is_greatest;
                const Parts<V> e = exp_parts_of_difference(v, greatest);
                values[g][j] = select(is_greatest, V{}, e.high);
                lost[j] += select(is_greatest, V{}, e.low);
            }
        for (const auto &group : values) sums.add(group);
    }
};

template <class T> PYNN_INLINE LogSum<T> log_sum(const T *x, std::size_t n) {
    using V = vec<T>;
    constexpr std::size_t vectors = partial_results / width<T>;
    constexpr T lowest = -static_cast<T>(__builtin_inf());
    const T greatest = greatest_of_row(x, n);
    OtherSums<T> others;
    constexpr std::size_t groups = many_groups<T>, step = groups * partial_results;
    std::size_t i = 0;
    for (; i + step <= n; i += step) others.add(Block<T, groups>(x + i, step, lowest), splat<V>(greatest));
    for (; i < n; i += partial_results) others.add(Block<T>(x + i, n - i, lowest), splat<V>(greatest));
    double rest, rest_low, all_lost[partial_results];
    others.sums.total(&rest, &rest_low);
    std::ptrdiff_t count = 0;
    for (std::size_t j = 0; j < vectors; ++j)
        for (std::size_t lane = 0; lane < width<T>; ++lane) {
            all_lost[j * width<T> + lane] = static_cast<double>(others.lost[j][lane]);
            count += others.counts[j][lane];
        }
    if (greatest == lowest) count = static_cast<std::ptrdiff_t>(n); // not the padding too
    for (std::size_t half = partial_results / 2; half > 0; half /= 2)
        for (std::size_t j = 0; j < half; ++j) all_lost[j] += all_lost[j + half];
    const double more = static_cast<double>(count) - 1, sum = more + rest, back = sum - more;
    const double error = (more - (sum - back)) + (rest - back);
    return {greatest, log_of_one_plus(sum, error + (rest_low + all_lost[0]))};
}

template <class T> void log_softmax_row(const T *x, T *y, std::size_t n) {
    using V = vec<T>;
    if (n == 0) return;
    const LogSum<T> sum = log_sum(x, n);
    const T high = static_cast<T>(sum.log.high);
    const T low = static_cast<T>((sum.log.high - static_cast<double>(high)) + sum.log.low);
    const auto f = [&](V v) __attribute__((always_inline)) {
        Parts<V> difference = two_sum(v, splat<V>(-sum.greatest));
        Parts<V> result = two_sum(difference.high, splat<V>(-high));
        V rest = result.low + (difference.low - low);
        return result.high + select(rest == rest, rest, V{}); // infinities
    };
    map<many_vectors<T>>(n, y, f, x);
}

template <class T> void logsumexp_row(const T *x, T *y, std::size_t n) {
    if (n == 0) {
        *y = -static_cast<T>(__builtin_inf());
        return;
    }
    const LogSum<T> sum = log_sum(x, n);
    const double greatest = static_cast<double>(sum.greatest), high = greatest + sum.log.high, back = high - greatest;
    const double low = ((greatest - (high - back)) + (sum.log.high - back)) + sum.log.low;
    *y = static_cast<T>(low - low == 0 ? high + low : high);
}

// dy - exp(y) sum(dy)
template <class T> void log_softmax_backward_row(const T *dy, const T *y, T *dx, std::size_t n) {
    using V = vec<T>;
    PartialSums<T> sums;
    for (std::size_t i = 0; i < n; i += partial_results) Block<T>(dy + i, n - i, 0).add_to(sums);
    double total, total_low;
    sums.total(&total, &total_low);
    const T high = static_cast<T>(total);
    const T low = static_cast<T>((total - static_cast<double>(high)) + total_low);
    const auto f = [&](V d, V v) __attribute__((always_inline)) {
        V e = exp_of_difference<true>(v, V{});
        V rest = -e * low;
        return fma(-e, splat<V>(high), d) + select(rest == rest, rest, V{});
    };
    map<many_vectors<T>>(n, dx, f, dy, y);
}

// dy exp(x - y), with y = logsumexp(x)
template <class T> void logsumexp_backward_row(const T *dy, const T *x, const T *y, T *dx, std::size_t n) {
    using V = vec<T>;
    V factor = splat<V>(*dy), sum = splat<V>(*y);
    const auto f = [&](V v) __attribute__((always_inline)) { return factor * exp_of_difference<true>(v, sum); };
    map<many_vectors<T>>(n, dx, f, x);
}

} // namespace
} // namespace pynn::PYNN_ISA
