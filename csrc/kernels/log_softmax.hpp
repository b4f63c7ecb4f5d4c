// log(sum(exp(x))) of one row, log_softmax, and their backwards. Sums are those of softmax.hpp; the greatest elements,
// whose exponentials are 1, are counted, so that a small rest keeps its digits.
#pragma once

#include "kernels/softmax.hpp"

namespace pynn::PYNN_ISA {
namespace {

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

    PYNN_INLINE Parts<double> whole() const { // greatest + log
        Parts<double> sum = two_sum(static_cast<double>(greatest), log.high);
        return {sum.high, sum.low + log.low};
    }
};

// Where an element is that the row has
template <class T> PYNN_INLINE std::size_t first_place(const T *x, std::size_t n, T element) {
    using V = vec<T>;
    std::size_t i = 0;
    while (i + width<T> <= n && !any(load<V>(x + i) == splat<V>(element))) i += width<T>;
    while (x[i] != element) ++i;
    return i;
}

// sum(exp(x - greatest)) - 1, but for one greatest element
template <class T> PYNN_INLINE Parts<double> sum_of_others(const T *x, std::size_t n, T greatest) {
    using V = vec<T>;
    constexpr std::size_t vectors = partial_results / width<T>, groups = many_groups<T>;
    const std::size_t one = first_place(x, n, greatest);
    PartialSums<T> sums;
    V lost[vectors] = {};
    with_exponentials(greatest, [&](auto exp) __attribute__((always_inline)) {
        T values[softmax_block];
        const auto add = [&]<std::size_t many>(const Block<T, many> &block, T *to) __attribute__((always_inline)) {
            for (std::size_t g = 0; g < many; ++g)
                for (std::size_t j = 0; j < vectors; ++j) {
                    const Parts<V> e = exp.with_lost(block.v[g][j]);
                    store(to + g * partial_results + j * width<T>, e.high);
                    lost[j] += e.low;
                }
        };
        for (std::size_t from = 0; from < n; from += softmax_block) {
            const T *p = x + from;
            const std::size_t count = n - from < softmax_block ? n - from : softmax_block;
            constexpr std::size_t step = groups * partial_results;
            std::size_t i = 0;
            for (; i + step <= count; i += step) add(Block<T, groups>(p + i, step, 0), values + i);
            for (; i < count; i += partial_results)
                add(Block<T>(p + i, count - i, -static_cast<T>(__builtin_inf())), values + i);
            if (one - from < count) values[one - from] = 0;
            sums.add(values, i);
        }
    });
    double total, total_low, all_lost[partial_results];
    sums.total(&total, &total_low);
    for (std::size_t i = 0; i < partial_results; ++i)
        all_lost[i] = static_cast<double>(lost[i / width<T>][i % width<T>]);
    for (std::size_t half = partial_results / 2; half > 0; half /= 2)
        for (std::size_t j = 0; j < half; ++j) all_lost[j] += all_lost[j + half];
    return {total, total_low + all_lost[0]};
}

template <class T> PYNN_INLINE LogSum<T> log_sum(const T *x, std::size_t n) {
    const T greatest = greatest_of_row(x, n);
    Parts<double> others = {0, 0};
    if (greatest - greatest == 0)
        others = sum_of_others(x, n, greatest);
    else // infinite; or NaN
        for (std::size_t i = 0; i < n; ++i)
            if (x[i] != x[i]) others.high = static_cast<double>(x[i]);
    return {greatest, log_of_one_plus(others.high, others.low)};
}

template <class T> void log_softmax_row(const T *x, T *y, std::size_t n) {
    using V = vec<T>;
    if (n == 0) return;
    const Parts<double> sum = log_sum(x, n).whole();
    const T high = static_cast<T>(sum.high), low = static_cast<T>((sum.high - static_cast<double>(high)) + sum.low);
    const V least = splat<V>(static_cast<T>(sizeof(T) == 4 ? -0x1.fffffep+127 : -0x1.fffffffffffffp+1023));
    const auto f = [&](V v) __attribute__((always_inline)) {
        Parts<V> difference = two_sum(v, splat<V>(-high));
        return difference.high + maximum(difference.low - low, least); // which takes the place of a NaN: of infinities
    };
    map<many_vectors<T>>(n, y, f, x);
}

template <class T> void logsumexp_row(const T *x, T *y, std::size_t n) {
    if (n == 0) {
        *y = -static_cast<T>(__builtin_inf());
        return;
    }
    const Parts<double> sum = log_sum(x, n).whole();
    *y = static_cast<T>(sum.low - sum.low == 0 ? sum.high + sum.low : sum.high);
}

// dy - exp(y) sum(dy)
template <class T> void log_softmax_backward_row(const T *dy, const T *y, T *dx, std::size_t n) {
    using V = vec<T>;
    PartialSums<T> sums;
    for (std::size_t i = 0; i < n; i += partial_results) sums.add(Block<T>(dy + i, n - i, 0).v[0]);
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
