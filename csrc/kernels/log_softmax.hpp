// log(sum(exp(x))) of a row, log_softmax of rows, and their backwards. Sums are those of softmax.hpp; the greatest elements,
// whose exponentials are 1, are counted, so that a small rest keeps its digits.
#pragma once

#include "kernels/softmax.hpp"
#include "kernels/sums.hpp"

namespace pynn::PYNN_ISA {
namespace {

// log(1 + s) for s >= 0, to 2^-43 of it
PYNN_INLINE double short_log_of_one_plus(double s) {
    using V = vec<double>;
    using C = ExpConstants<double>;
    constexpr double half_root = 0x1.6a09e667f3bcdp-1;
    const V total = splat<V>(1 + s);
    const ints<V> exponent = (bits(total) - bits(splat<V>(half_root))) >> C::mantissa;
    const V down = as<V>((C::bias - exponent) << C::mantissa);
    const V over = select(exponent == 0, splat<V>(s), fma(total, down, splat<V>(-1))); // sqrt(1/2) - 1 ... sqrt(2) - 1
    const V z = over / (2 + over), square = z * z;
    const V log = fma(z * square, polynomial(square, AtanhConstants::short_tail), z);
    return fma(convert<V>(exponent), splat<V>(C::ln2), 2 * log)[0];
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

    PYNN_INLINE Parts<double> whole() const { // greatest + log
        Parts<double> sum = two_sum(static_cast<double>(greatest), log.high);
        return {sum.high, sum.low + log.low};
    }
};

// sum(exp(x - greatest)) - 1. later: two rows of memory that will be needed.
template <class T> using Later = const T *[2];
// Not inlined: it is long, and two functions need it.
[[gnu::noinline]] double sum_of_others(const float *x, const Later<float> &later, std::size_t n, float greatest) {
    using V = vec<float>;
    const auto ask = [&](std::size_t i, std::size_t lanes) __attribute__((always_inline)) {
        for (std::size_t k = 0; k < lanes; k += partial_results)
            for (const float *row : later) prefetch_group(row + i + k);
    };
    double others = 0;
    if (!RowTerms::is_far(greatest)) {
        // Wide until the others are so many that what is not, by 2^-43 an element, errs by 2^-28 of them at most
        const ExactRowTerms<false> term(greatest);
        const double enough = 0x1p-15 * static_cast<double>(n);
        double sum = 0;
        for (std::size_t i = 0, step = 128; i < n; i += step, step = 8192) {
            const std::size_t count = n - i < step ? n - i : step;
            const auto take = [&](std::size_t k, std::size_t lanes, auto &, auto &)
                                  __attribute__((always_inline)) { ask(i + k, lanes); };
            sum += others < enough ? sum_of_terms<true>(term, x + i, count, take)
                                   : sum_of_terms<false>(term, x + i, count, take);
            others = i == 0 && greatest_of_row(x, count) < greatest ? sum : sum - 1; // at least
        }
        others = sum - 1;
        if (others >= 0x1p-14) return others;
    }
    // Or it is far from 0. Greatest elements are counted instead of added, so that a small rest keeps its digits.
    V count = {};
    const auto leave_out = [&](std::size_t, std::size_t, auto &high, auto &low) __attribute__((always_inline)) {
        for (std::size_t g = 0; g < std::extent_v<decltype(high.v)>; ++g)
            for (std::size_t j = 0; j < partial_results / width<float>; ++j) {
                const auto is_greatest = (high.v[g][j] == RowTerms::scale) & (low.v[g][j] == 0);
                count += select(is_greatest, 1 - V{}, V{});
                high.v[g][j] = select(is_greatest, V{}, high.v[g][j]);
            }
    };
    others = sum_of_terms<true>(ExactRowTerms<true>(greatest), x, n, leave_out);
    return others + (static_cast<double>(folded(
                         count, [](auto a, auto b) { return a + b; }, std::make_index_sequence<width<float> / 2>())) -
                     1);
}
// As many greatest elements as the first group of 16 that has one holds, and the last, partial one, are counted.
PYNN_INLINE Parts<double> sum_of_others(const double *x, const Later<double> &later, std::size_t n, double greatest) {
    using V = vec<double>;
    constexpr std::size_t vectors = partial_results / width<double>;
    const std::size_t whole = n - n % partial_results;
    std::size_t at = 0;
    while (at < whole && !any((ints<V>)(load<V>(x + at) == splat<V>(greatest)))) at += width<double>;
    at -= at % partial_results;
    V count = {};
    PartialSums<double> sums;
    Parts<double> total;
    for (std::size_t i = 0; i < n; i += partial_results) {
        const Block<double> block(x + i, n - i < partial_results ? n - i : partial_results, -__builtin_inf());
        prefetch_group(later[0] + i);
        prefetch_group(later[1] + i);
        V e[vectors];
        for (std::size_t j = 0; j < vectors; ++j) e[j] = exp_of_difference(block.v[0][j], splat<V>(greatest));
        if (i == at || i == whole)
            for (std::size_t j = 0; j < vectors; ++j) {
                const auto is_greatest = block.v[0][j] == splat<V>(greatest);
                count += select(is_greatest, 1 - V{}, V{});
                e[j] = select(is_greatest, V{}, e[j]);
            }
        sums.add(e);
    }
    sums.total(&total.high, &total.low);
    const double counted =
        folded(count, [](auto a, auto b) { return a + b; }, std::make_index_sequence<width<double> / 2>());
    const Parts<double> sum = two_sum(counted - 1, total.high);
    return {sum.high, sum.low + total.low};
}

PYNN_INLINE Parts<double> log_of_sum(const float *x, const Later<float> &later, std::size_t n, float greatest) {
    return {short_log_of_one_plus(sum_of_others(x, later, n, greatest)), 0};
}
PYNN_INLINE Parts<double> log_of_sum(const double *x, const Later<double> &later, std::size_t n, double greatest) {
    const Parts<double> others = sum_of_others(x, later, n, greatest);
    return log_of_one_plus(others.high, others.low);
}
template <class T> PYNN_INLINE LogSum<T> log_sum(const T *x, const Later<T> &later, std::size_t n, T greatest) {
    if (greatest - greatest == 0) return {greatest, log_of_sum(x, later, n, greatest)};
    double nan = 0; // of an infinite row
    for (std::size_t i = 0; i < n; ++i)
        if (x[i] != x[i]) nan = static_cast<double>(x[i]);
    return {greatest, {nan, 0}};
}

// y = x - sum, the logarithm of a row's sum of exp(x)
template <class T>
PYNN_INLINE void less_log_of_sum(const T *x, T *y, std::size_t n, T least_of_row, Parts<double> sum) {
    using V = vec<T>;
    const T high = static_cast<T>(sum.high), low = static_cast<T>((sum.high - static_cast<double>(high)) + sum.low);
    if (0 < high && high < static_cast<T>(0x1p+126f) && -high <= least_of_row) { // |x| <= high: as below, but shorter
        const V one = splat<V>(high / high); // CPUs that multiply and add in different pipes do both at once
        const auto f = [&](V v) __attribute__((always_inline)) {
            const V difference = v - high, error = v - fma(difference, one, splat<V>(high));
            return difference + fma(one, splat<V>(-low), error);
        };
        map<many_vectors<T>>(n, y, f, x);
        return;
    }
    const V least = splat<V>(static_cast<T>(sizeof(T) == 4 ? -0x1.fffffep+127 : -0x1.fffffffffffffp+1023));
    const auto f = [&](V v) __attribute__((always_inline)) {
        const Parts<V> difference = two_sum(v, splat<V>(-high));
        return difference.high + maximum(difference.low - low, least); // which takes the place of a NaN: of infinities
    };
    map<many_vectors<T>>(n, y, f, x);
}
// Each row's greatest element is found while the sum of the row before ends, one number waiting for the other.
template <class T>
void log_softmax_rows(const T *x, std::ptrdiff_t x_row, T *y, std::ptrdiff_t y_row, std::size_t rows, std::size_t n) {
    if (n == 0 || rows == 0) return;
    Extremes<T> extremes = extremes_of_row<true>(x, n);
    for (std::size_t row = 0; row < rows; ++row, x += x_row, y += y_row) {
        const Parts<double> sum = log_sum(x, {x + x_row, y}, n, extremes.greatest).whole();
        const Extremes<T> next = row + 1 < rows ? extremes_of_row<true>(x + x_row, n) : extremes;
        less_log_of_sum(x, y, n, extremes.least, sum);
        extremes = next;
    }
}

template <class T> void logsumexp_row(const T *x, T *y, std::size_t n) {
    if (n == 0) {
        *y = -static_cast<T>(__builtin_inf());
        return;
    }
    const Parts<double> sum = log_sum(x, {x + n, x + n}, n, greatest_of_row(x, n)).whole();
    *y = static_cast<T>(sum.low - sum.low == 0 ? sum.high + sum.low : sum.high);
}

// exp(t) as value times power. InTwo: neither is subnormal, and below 2^-180 (float64: 2^-1108) it counts as 0. Else power is 1.
template <bool InTwo, class V> struct ExpInParts {
    V value, power;

    PYNN_INLINE explicit ExpInParts(V t, V t_low = V{}) {
        using C = ExpConstants<element<V>>;
        constexpr element<V> far = !InTwo ? C::least : sizeof(element<V>) == 4 ? -125 : -768;
        t_low = zero_below(far, t, t_low); // of t = -inf too, where it is a NaN
        if constexpr (by_table<V>) {
            ShortExponential<V> e = short_exp(at_most(EighthConstants::greatest, t), t_low);
            value = zero_below(far, t, rounded(e.mantissa));
            value = InTwo ? e.power.first(value) : e.power.times(value);
            power = InTwo ? e.power.second(1 - V{}) : 1 - V{};
        } else {
            Exponential<V> e = exp_parts<true>(select(t > C::greatest, splat<V>(C::greatest), t), t_low, C::lowest);
            value = zero_below(far, t, e.scale + e.scale * (e.expm1.high + e.expm1.low));
            value = InTwo ? value : value * e.rest;
            power = InTwo ? e.rest : 1 - V{};
        }
    }
};
// f(whether to use two parts) for factor * exp(x - y) of a row x: an exponential in one would lose bits that show where it is
// subnormal and the factor large; very large ones are taken in two parts always
template <class T, class F> PYNN_INLINE void for_factor(double factor, const T *x, T y, std::size_t n, F f) {
    constexpr T least = sizeof(T) == 4 ? T(-87) : T(-708);
    const double size = __builtin_fabs(factor);
    if (n > 0 && size > 2 && (size > 0x1p+120 || extremes_of_row<true>(x, n).least - y < least))
        f(std::true_type());
    else
        f(std::false_type());
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
    if (total - total != 0) total = plain_sum(dy, n); // too large, infinite or NaN, as adding gives it
    for_factor(total, y, T(0), n, [&]<bool InTwo>(std::bool_constant<InTwo>) __attribute__((always_inline)) {
        const T down = InTwo && sizeof(T) == 4 ? T(0x1p-40) : T(1), up = 1 / down; // a sum may be too large for float32
        total *= static_cast<double>(down);
        const T high = static_cast<T>(total);
        const T rest_of_sum = static_cast<T>((total - static_cast<double>(high)) + total_low);
        const T low = rest_of_sum - rest_of_sum == 0 ? rest_of_sum : T(0);
        const auto f = [&](V d, V v) __attribute__((always_inline)) {
            const ExpInParts<InTwo, V> e(v);
            const V value = -e.value * up;
            V rest = value * (e.power * low);
            return fma(value, e.power * high, d) + select(rest == rest, rest, V{});
        };
        map<many_vectors<T>, true>(n, dx, f, dy, y);
    });
}

// dy exp(x - y), with y = logsumexp(x)
template <class T> void logsumexp_backward_row(const T *dy, const T *x, const T *y, T *dx, std::size_t n) {
    using V = vec<T>;
    V factor = splat<V>(*dy), sum = splat<V>(-*y);
    for_factor(static_cast<double>(*dy), x, *y, n,
               [&]<bool InTwo>(std::bool_constant<InTwo>) __attribute__((always_inline)) {
                   const auto f = [&](V v) __attribute__((always_inline)) {
                       const Parts<V> difference = two_sum(v, sum);
                       const ExpInParts<InTwo, V> e(difference.high, difference.low);
                       return e.value * (factor * e.power);
                   };
                   map<many_vectors<T>>(n, dx, f, x);
               });
}

} // namespace
} // namespace pynn::PYNN_ISA
