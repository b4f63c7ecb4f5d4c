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

// sum(exp(x - greatest)) - 1. The greatest elements of the first group of 16 that has one, and of the last, partial one, are
// counted, so that a small rest keeps its digits.
template <class T> PYNN_INLINE Parts<double> sum_of_others(const T *x, std::size_t n, T greatest) {
    using V = vec<T>;
    constexpr std::size_t vectors = partial_results / width<T>, step = many_groups<T> * partial_results;
    const std::size_t whole = n - n % partial_results;
    std::size_t at = 0;
    while (at < whole && !any(load<V>(x + at) == splat<V>(greatest))) at += width<T>;
    at -= at % partial_results;
    V count[1] = {};
    const auto others = [&](V v, V term) __attribute__((always_inline)) {
        const auto is_greatest = v == splat<V>(greatest);
        count[0] += select(is_greatest, 1 - V{}, V{});
        return select(is_greatest, V{}, term);
    };
    PartialSums<T> sums;
    Parts<double> total;
    with_exponentials(greatest, [&](auto exp) __attribute__((always_inline)) {
        T terms[softmax_block];
        for (std::size_t from = 0; from < whole; from += softmax_block) {
            const std::size_t length = whole - from < softmax_block ? whole - from : softmax_block;
            V low[vectors] = {};
            std::size_t i = 0;
            for (; i + step <= length; i += step) {
                const Block<T, many_groups<T>> block(x + from + i, step, 0);
                for (std::size_t j = 0; j < step / width<T>; ++j)
                    store(terms + i + j * width<T>, exp.term(block.v[j / vectors][j % vectors], low[j % vectors]));
            }
            for (; i < length; i += width<T>)
                store(terms + i, exp.term(load<V>(x + from + i), low[i % partial_results / width<T>]));
            if (at - from < length)
                for (std::size_t j = 0; j < partial_results; j += width<T>) {
                    T *const p = terms + (at - from) + j;
                    store(p, others(load<V>(x + at + j), load<V>(p)));
                }
            sums.add(terms, length);
            if constexpr (by_table<V>) sums.add(low);
        }
        if (whole < n) {
            Block<T> block(x + whole, n - whole, -static_cast<T>(__builtin_inf()));
            V low[vectors] = {};
            for (std::size_t j = 0; j < vectors; ++j)
                block.v[0][j] = others(block.v[0][j], exp.term(block.v[0][j], low[j]));
            sums.add(block.v[0]);
            if constexpr (by_table<V>) sums.add(low);
        }
        sums.total(&total.high, &total.low);
        total.high *= 1 / exp.scale;
    });
    const T counted = folded(count, [](auto a, auto b) { return a + b; });
    const Parts<double> sum = two_sum(static_cast<double>(counted) - 1, total.high);
    return {sum.high, sum.low + total.low};
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

// exp(x), rounded
template <class V> PYNN_INLINE V exp_of(V x) {
    if constexpr (by_table<V>) {
        ShortExponential<V> e = short_exp(at_most(EighthConstants::greatest, x));
        return e.power.times(rounded(e.mantissa));
    } else {
        return exp_of_difference<true>(x, V{});
    }
}

// dy - exp(y) sum(dy)
template <class T> void log_softmax_backward_row(const T *dy, const T *y, T *dx, std::size_t n) {
    using V = vec<T>;
    PartialSums<T> sums;
    const std::size_t whole = n - n % partial_results;
    sums.add(dy, whole);
    if (whole < n) sums.add(Block<T>(dy + whole, n - whole, 0).v[0]);
    double total, total_low;
    sums.total(&total, &total_low);
    const T high = static_cast<T>(total);
    const T low = static_cast<T>((total - static_cast<double>(high)) + total_low);
    const auto f = [&](V d, V v) __attribute__((always_inline)) {
        V e = exp_of(v);
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
