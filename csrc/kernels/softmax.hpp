// softmax of rows and its backward. Sums go into 16 interleaved partial results, added as a fixed tree; each
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

    Block() = default;
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

// Asks for a group of 16 elements. The next row is asked for while one is in work, and the result's: CPUs do not look ahead
// beyond a page of 4 KiB.
template <class T> PYNN_INLINE void prefetch_group(const T *p) {
    for (std::size_t i = 0; i < partial_results; i += 64 / sizeof(T)) __builtin_prefetch(p + i);
}

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
    PYNN_INLINE void add(const Group &terms, double less = 0) { // than they are
        for (std::size_t j = 0; j < vectors / 2; ++j) {
            sum[2 * j] += as_doubles(half_of<false>(terms[j])) - less;
            sum[2 * j + 1] += as_doubles(half_of<true>(terms[j])) - less;
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

// exp(x - y), whose difference is rounded at the end only; for x <= y
PYNN_INLINE vec<double> exp_of_difference(vec<double> x, vec<double> y) {
    using V = vec<double>;
    Parts<V> difference = two_sum(x, -y);
    // of x = -inf too, whose low part is a NaN
    V low = zero_below(ExpConstants<double>::least, difference.high, difference.low);
    Exponential<V> e = exp_parts(difference.high, low);
    return (e.scale + e.scale * (e.expm1.high + e.expm1.low)) * e.rest;
}

// The terms of a row, times 2^80, less its greatest element, to a multiple of ln(2) / 8: that is left out of the reduction of
// each, which rounds less than to subtract. What is less than the greatest element by far_below is taken as that: its exponential is 0 too.
struct RowTerms {
    using V = vec<float>;
    static constexpr float far_below = 136, scale = 0x1p+80f;
    V least, round;

    PYNN_INLINE static bool is_far(float greatest) { return !(__builtin_fabsf(greatest) < 512); }
    PYNN_INLINE explicit RowTerms(float greatest) { // not far
        const V from = splat<V>(greatest);
        least = from - far_below;
        round = term_round + 80 * 8 - multiple(from);
    }
    PYNN_INLINE Term<V> operator()(V x) const {
        const ReducedByEighths<V> t = reduced(maximum(least, x));
        return term(t, expm1_of_rest(t.r));
    }
    // the multiple, as a number
    PYNN_INLINE static double taken_off(float greatest) {
        return static_cast<double>(multiple(splat<V>(greatest))[0]) * (ExpConstants<double>::ln2 / 8);
    }

  protected:
    PYNN_INLINE static V multiple(V t) {
        return fma(t, splat<V>(EighthConstants::per_unit), splat<V>(term_round)) - term_round;
    }
    PYNN_INLINE ReducedByEighths<V> reduced(V t) const { return reduced_by_eighths_from(round, t); }
};

// The terms of x - greatest: the greatest element's is 2^80. Far: the greatest element may be far from 0; it is subtracted first
// then, which is exact.
template <bool Far> struct ExactRowTerms : RowTerms {
    // (e^r - 1 - r) / r^2, |r| <= ln(2) / 8; 2^-27 of e^r
    static constexpr float tail[] = {0x1.000006p-1f, 0x1.557202p-3f, 0x1.5520cap-5f};
    V shift, rest;

    PYNN_INLINE explicit ExactRowTerms(float greatest) : ExactRowTerms(greatest, is_far(greatest) ? greatest : 0) {}
    PYNN_INLINE Term<V> operator()(V x) const {
        ReducedByEighths<V> t = reduced(maximum(least, Far ? x - shift : x));
        t.r -= rest;
        return term(t, fma(t.r * t.r, polynomial(t.r, tail), t.r));
    }

  private:
    PYNN_INLINE ExactRowTerms(float greatest, float shift)
        : RowTerms(greatest - shift), shift(splat<V>(shift)), rest(reduced(splat<V>(greatest - shift)).r) {}
};

template <class T> struct Extremes {
    T greatest, least; // least: greatest, unless it was asked for
};
// Of n > 0 elements. NaN may be passed over, but for one at the start.
template <bool Both = false, class T> PYNN_INLINE Extremes<T> extremes_of_row(const T *x, std::size_t n) {
    using V = vec<T>;
    constexpr std::size_t chains = 4; // maxima that do not wait for each other
    V high[chains], low[chains];
    for (std::size_t c = 0; c < chains; ++c) high[c] = low[c] = splat<V>(x[0]);
    const auto take = [&](V v, std::size_t c) __attribute__((always_inline)) {
        high[c] = maximum(v, high[c]);
        if constexpr (Both) low[c] = minimum(v, low[c]);
    };
    std::size_t i = 0;
    for (; i + chains * width<T> <= n; i += chains * width<T>)
        for (std::size_t c = 0; c < chains; ++c) take(load<V>(x + i + c * width<T>), c);
    for (; i < n; i += width<T>) {
        const std::size_t rest = n - i;
        take(rest < width<T> ? load_first<V>(x + i, rest, x[0]) : load<V>(x + i), 0);
    }
    const auto greater = [](auto a, auto b) __attribute__((always_inline)) { return b > a ? b : a; };
    const auto less = [](auto a, auto b) __attribute__((always_inline)) { return b < a ? b : a; };
    const T greatest = folded(high, greater);
    return {greatest, Both ? folded(low, less) : greatest};
}
template <class T> PYNN_INLINE T greatest_of_row(const T *x, std::size_t n) { return extremes_of_row(x, n).greatest; }

// Elements of float32 between additions of low parts to the partial results
constexpr std::size_t softmax_block = 256;

// f(count of groups of 16, first element, elements), then after each block end()
template <class F, class G> PYNN_INLINE void for_groups(std::size_t n, F f, G end) {
    using One = std::integral_constant<std::size_t, 1>;
    using Two = std::integral_constant<std::size_t, 2>;
    for (std::size_t i = 0; i < n; end()) {
        const std::size_t stop = n - i < softmax_block ? n : i + softmax_block;
        for (; i + 2 * partial_results <= stop; i += 2 * partial_results) f(Two(), i, 2 * partial_results);
        if (i + partial_results <= stop) {
            f(One(), i, partial_results);
            i += partial_results;
        }
        if (i < stop) {
            f(One(), i, stop - i);
            i = stop;
        }
    }
}

// 1 / (total + total_low) in two parts
template <class V> PYNN_INLINE Parts<V> reciprocal_of_sum(double total, double total_low) {
    using W = vec<double>;
    W sum = splat<W>(total), high = 1 / sum;
    W low = high * fma(-high, splat<W>(total_low), fma(-high, sum, 1 - W{}));
    const auto first = static_cast<element<V>>(high[0]);
    return {splat<V>(first), splat<V>(static_cast<element<V>>((high[0] - static_cast<double>(first)) + low[0]))};
}

// The sum of a row's terms, low parts in float32 for a block. Wide: high ones in float64. Else in float32 too, which costs a tenth
// less, but errs by up to 2^-43 of the greatest term for each element, as what additions round off is summed up without more
// care. take(i, lanes, high, low) sees the terms from element i on before they are added, and may change them.
template <bool Wide, class Terms, class F>
PYNN_INLINE double sum_of_terms(const Terms &term, const float *x, std::size_t n, F take) {
    using V = vec<float>;
    constexpr std::size_t vectors = partial_results / width<float>;
    constexpr float start = 2 * RowTerms::scale; // above every term, so that fast_two_sum() is exact
    PartialSums<float> sums;
    V highs[vectors], lows[vectors];
    const auto clear = [&]() __attribute__((always_inline)) {
        for (V &v : highs) v = splat<V>(start);
        for (V &v : lows) v = V{};
    };
    clear();
    for_groups(
        n,
        [&](auto groups, std::size_t i, std::size_t lanes) __attribute__((always_inline)) {
            Block<float, groups> high(x + i, lanes, -__builtin_inff()), low;
            for (std::size_t g = 0; g < groups; ++g)
                for (std::size_t j = 0; j < vectors; ++j) {
                    const Term<V> t = term(high.v[g][j]);
                    high.v[g][j] = t.high;
                    low.v[g][j] = t.low;
                }
            take(i, lanes, high, low);
            for (std::size_t g = 0; g < groups; ++g) {
                for (std::size_t j = 0; j < vectors; ++j) {
                    lows[j] = fma(low.v[g][j], high.v[g][j], lows[j]);
                    if constexpr (!Wide) {
                        const Parts<V> added = fast_two_sum(highs[j], high.v[g][j]);
                        highs[j] = added.high;
                        lows[j] += added.low;
                    }
                }
                if constexpr (Wide) sums.add(high.v[g]);
            }
        },
        [&]() __attribute__((always_inline)) {
            if constexpr (!Wide) sums.add(highs, start);
            sums.add(lows);
            clear();
        });
    double sum, low_of_sum; // the latter 0
    sums.total(&sum, &low_of_sum);
    return sum * (1 / static_cast<double>(RowTerms::scale));
}
PYNN_INLINE void exponentials_of_row(const double *x, const double *next_x, double *y, const double *next_y,
                                     std::size_t n, double greatest, double *sum, double *low) {
    using V = vec<double>;
    PartialSums<double> sums;
    for (std::size_t i = 0; i < n; i += partial_results) {
        const std::size_t lanes = n - i < partial_results ? n - i : partial_results;
        Block<double> block(x + i, lanes, -__builtin_inf());
        prefetch_group(next_x + i);
        prefetch_group(next_y + i);
        for (V &v : block.v[0]) v = exp_of_difference(v, splat<V>(greatest));
        sums.add(block.v[0]);
        block.store_to(y + i, lanes);
    }
    sums.total(sum, low);
}

// each(row, what is taken off, about the greatest element; sum of exp(x - that)) for every row of n > 0, when y has it. What a row
// ends with waits for one number after the other: meanwhile the next row's greatest element is found.
template <class T, class F>
PYNN_INLINE void softmax_of_rows(const T *x, std::ptrdiff_t x_row, T *y, std::ptrdiff_t y_row, std::size_t rows,
                                 std::size_t n, T *spare, F each) {
    using V = vec<T>;
    float own[most_on_stack], *low = own;
    if constexpr (by_table<V>)
        if (spare_of_row<T>(n) > 0) low = spare;
    T greatest = rows > 0 ? greatest_of_row(x, n) : T(0);
    for (std::size_t row = 0; row < rows; ++row, y += y_row, x += x_row) {
        double total;
        T next;
        if constexpr (by_table<V>) {
            const T *from = x;
            T near = greatest;
            if (RowTerms::is_far(greatest)) { // subtracted first, which is exact
                map<many_vectors<T>>(n, y, [=](V v) { return v - greatest; }, x);
                from = y;
                near = 0;
            }
            const auto take = [&](std::size_t i, std::size_t lanes, const auto &high, const auto &rest)
                                  __attribute__((always_inline)) {
                                      for (std::size_t k = 0; k < lanes; k += partial_results) {
                                          prefetch_group(x + x_row + i + k);
                                          prefetch_group(y + y_row + i + k);
                                      }
                                      high.store_to(y + i, lanes);
                                      rest.store_to(low + i, lanes);
                                  };
            constexpr std::size_t most = 1 << 15; // an error of 2^-28 at most
            total = n <= most ? sum_of_terms<false>(RowTerms(near), from, n, take)
                              : sum_of_terms<true>(RowTerms(near), from, n, take);
            next = row + 1 < rows ? greatest_of_row(x + x_row, n) : T(0);
            const Parts<V> inverse = reciprocal_of_sum<V>(total, 0);
            const auto share = [&](V term, V rest) __attribute__((always_inline)) {
                const V y_low = term * fma(rest, inverse.high, inverse.low);
                return fma(term, inverse.high, y_low) * (1 / RowTerms::scale);
            };
            map<many_vectors<T>>(n, y, share, y, low);
            each(row, from == x ? RowTerms::taken_off(greatest) : static_cast<double>(greatest), total);
        } else {
            double total_low;
            exponentials_of_row(x, x + x_row, y, y + y_row, n, greatest, &total, &total_low);
            next = row + 1 < rows ? greatest_of_row(x + x_row, n) : T(0);
            const Parts<V> inverse = reciprocal_of_sum<V>(total, total_low);
            const auto scaled = [&](V e)
                                    __attribute__((always_inline)) { return fma(e, inverse.high, e * inverse.low); };
            map<many_vectors<T>>(n, y, scaled, y);
            each(row, greatest, total);
        }
        greatest = next;
    }
}

template <class T>
void softmax_rows(const T *x, std::ptrdiff_t x_row, T *y, std::ptrdiff_t y_row, std::size_t rows, std::size_t n,
                  T *spare) {
    if (n > 0) softmax_of_rows(x, x_row, y, y_row, rows, n, spare, [](std::size_t, double, double) {});
}

template <class T>
void softmin_rows(const T *x, std::ptrdiff_t x_row, T *y, std::ptrdiff_t y_row, std::size_t rows, std::size_t n,
                  T *spare) {
    for (; rows > 0; --rows, x += x_row, y += y_row) {
        for (std::size_t i = 0; i < n; i += partial_results) {
            const std::size_t lanes = n - i < partial_results ? n - i : partial_results;
            Block<T> block(x + i, lanes, 0);
            prefetch_group(x + x_row + i);
            for (vec<T> &v : block.v[0]) v = -v;
            block.store_to(y + i, lanes);
        }
        softmax_rows(y, y_row, y, y_row, 1, n, spare);
    }
}

template <class T> void softmax_backward_row(const T *dy, const T *y, T *dx, std::size_t n) {
    using V = vec<T>;
    PartialSums<T> sums;
    const std::size_t whole = n - n % partial_results;
    sums.add_products(dy, y, whole);
    if (whole < n) sums.add_products(Block<T>(dy + whole, n - whole, 0).v[0], Block<T>(y + whole, n - whole, 0).v[0]);
    double dot, dot_low;
    sums.total(&dot, &dot_low);
    const auto finish = [&]<bool Large>(std::bool_constant<Large>) __attribute__((always_inline)) {
        const T down = Large ? T(0.25) : T(1), up = 1 / down; // of a difference that may be too large
        dot *= static_cast<double>(down), dot_low *= static_cast<double>(down);
        V high = splat<V>(static_cast<T>(dot));
        V low = splat<V>(static_cast<T>((dot - static_cast<double>(static_cast<T>(dot))) + dot_low));
        const auto f = [&](V gradient, V output) __attribute__((always_inline)) {
            Parts<V> difference = two_sum(Large ? gradient * down : gradient, -high);
            V rest = difference.low - low;
            V dx = output * (difference.high + select(rest == rest, rest, V{}));
            return Large ? dx * up : dx;
        };
        map<many_vectors<T>>(n, dx, f, dy, y);
    };
    constexpr double large = sizeof(T) == 4 ? 0x1p+100 : 0x1p+1000;
    if (-large < dot && dot < large)
        finish(std::false_type());
    else
        finish(std::true_type());
}

template <class T> void softmin_backward_row(const T *dy, const T *y, T *dx, std::size_t n) {
    softmax_backward_row(dy, y, dx, n);
    for (std::size_t i = 0; i < n; ++i) dx[i] = -dx[i];
}

} // namespace
} // namespace pynn::PYNN_ISA
