// softmax of one row and its backward. Sums go into 16 interleaved partial results, added as a fixed tree; each
// partial result carries twice the precision of the row.
#pragma once

#include "simd/math.hpp"
#include "simd/vec.hpp"

namespace pynn::PYNN_ISA {
namespace {

// Interleaved partial results: element i of a row goes to partial result i % 16.
template <class T> struct PartialSums;

template <> struct PartialSums<float> {
    static constexpr std::size_t vectors = partial_results / width<double>;
    vec<double> sum[vectors] = {};

    using Half = vector_type<float, PYNN_VECTOR_BYTES / 2>::type;
    // terms: 16 products of two floats each, exact in double
    PYNN_INLINE void add_products(const float *a, const float *b) {
        for (std::size_t j = 0; j < vectors; ++j) {
            Half x, y;
            __builtin_memcpy(&x, a + j * width<double>, sizeof x);
            __builtin_memcpy(&y, b + j * width<double>, sizeof y);
            sum[j] += convert<vec<double>>(x) * convert<vec<double>>(y);
        }
    }
    // a block of 16 terms
    PYNN_INLINE void add(const vec<float> *block) {
        constexpr auto lanes = std::make_index_sequence<width<float> / 2>();
        for (std::size_t j = 0; j < vectors / 2; ++j) {
            sum[2 * j] += convert<vec<double>>(half_of<0>(block[j], lanes));
            sum[2 * j + 1] += convert<vec<double>>(half_of<1>(block[j], lanes));
        }
    }
    template <std::size_t Second, std::size_t... I>
    static PYNN_INLINE Half half_of(vec<float> v, std::index_sequence<I...>) {
        return __builtin_shufflevector(v, v, (I + Second * sizeof...(I))...);
    }
    PYNN_INLINE void total(double *high, double *low) const {
        double s[partial_results];
        for (std::size_t j = 0; j < vectors; ++j) store(s + j * width<double>, sum[j]);
        for (std::size_t half = partial_results / 2; half > 0; half /= 2)
            for (std::size_t j = 0; j < half; ++j) s[j] += s[j + half];
        *high = s[0];
        *low = 0;
    }
};

template <> struct PartialSums<double> {
    static constexpr std::size_t vectors = partial_results / width<double>;
    vec<double> sum[vectors] = {}, error[vectors] = {};

    PYNN_INLINE void add_products(const double *a, const double *b) {
        using V = vec<double>;
        for (std::size_t j = 0; j < vectors; ++j) {
            V x = load<V>(a + j * width<double>), y = load<V>(b + j * width<double>);
            V product = x * y;
            Parts<V> s = two_sum(sum[j], product);
            sum[j] = s.high;
            error[j] += s.low + fma(x, y, -product);
        }
    }
    // a block of 16 terms
    PYNN_INLINE void add(const vec<double> *block) {
        for (std::size_t j = 0; j < vectors; ++j) {
            Parts<vec<double>> s = two_sum(sum[j], block[j]);
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

template <class T> PYNN_INLINE void copy_padded(const T *x, std::size_t n, T padding, T *buffer) {
    for (std::size_t i = 0; i < partial_results; ++i) buffer[i] = i < n ? x[i] : padding;
}

// f(block of 16, its length) over a row; the last block is a padded copy
template <class T, class F> PYNN_INLINE void for_blocks(std::size_t n, F f) {
    for (std::size_t i = 0; i < n; i += partial_results) f(i, n - i < partial_results ? n - i : partial_results);
}

template <class V> PYNN_INLINE V exp_of_difference(V x, V greatest) {
    Parts<V> difference = two_sum(x, -greatest);
    V low = select(difference.low == difference.low, difference.low, V{}); // infinities
    low = select(difference.high < ExpConstants<element<V>>::least, V{}, low);
    Exponential<V> e = exp_parts(difference.high, low);
    return (e.scale + e.scale * (e.expm1.high + e.expm1.low)) * e.rest;
}

template <class T> struct SoftmaxSum {
    T greatest;
    double total; // of exp(x - greatest)
};

// 16 elements in registers: the first so many of p, then padding.
template <class T> struct Block {
    using V = vec<T>;
    static constexpr std::size_t vectors = partial_results / width<T>;
    V v[vectors];

    PYNN_INLINE Block(const T *p, std::size_t lanes, T padding) {
        for (std::size_t j = 0; j < vectors; ++j) {
            const std::size_t at = j * width<T>;
            if (lanes >= at + width<T>)
                v[j] = load<V>(p + at);
            else
                v[j] = lanes > at ? load_first<V>(p + at, lanes - at, padding) : splat<V>(padding);
        }
    }
    PYNN_INLINE void store_to(T *p, std::size_t lanes) const {
        for (std::size_t j = 0; j < vectors; ++j) {
            const std::size_t at = j * width<T>;
            if (lanes >= at + width<T>)
                store(p + at, v[j]);
            else if (lanes > at)
                store_first(p + at, v[j], lanes - at);
        }
    }
    PYNN_INLINE void keep_greatest(const Block &other) {
        for (std::size_t j = 0; j < vectors; ++j) v[j] = select(other.v[j] > v[j], other.v[j], v[j]);
    }
    PYNN_INLINE T greatest() const {
        T lanes[partial_results];
        for (std::size_t j = 0; j < vectors; ++j) store(lanes + j * width<T>, v[j]);
        for (std::size_t half = partial_results / 2; half > 0; half /= 2)
            for (std::size_t j = 0; j < half; ++j) lanes[j] = lanes[j + half] > lanes[j] ? lanes[j + half] : lanes[j];
        return lanes[0];
    }
    PYNN_INLINE void to_exp(V greatest) {
        for (std::size_t j = 0; j < vectors; ++j) v[j] = exp_of_difference(v[j], greatest);
    }
    PYNN_INLINE void divide(Parts<V> divisor) {
        for (std::size_t j = 0; j < vectors; ++j) {
            Parts<V> q = quotient<V>({v[j], V{}}, divisor);
            v[j] = q.high + q.low;
        }
    }
};

template <class T> PYNN_INLINE Parts<vec<T>> softmax_divisor(double total, double total_low) {
    const T high = static_cast<T>(total);
    return {splat<vec<T>>(high), splat<vec<T>>(static_cast<T>((total - static_cast<double>(high)) + total_low))};
}

template <class T> PYNN_INLINE SoftmaxSum<T> softmax_row_sum(const T *x, T *y, std::size_t n) {
    if (n == 0) return {};
    constexpr T lowest = -static_cast<T>(__builtin_inf());
    PartialSums<T> sums;
    double total, total_low;
    if (n <= partial_results) { // all in registers
        Block<T> block(x, n, lowest);
        const T greatest = block.greatest();
        block.to_exp(splat<vec<T>>(greatest));
        sums.add(block.v);
        sums.total(&total, &total_low);
        block.divide(softmax_divisor<T>(total, total_low));
        block.store_to(y, n);
        return {greatest, total};
    }
    Block<T> most(x, n, lowest);
    for_blocks<T>(n, [&](std::size_t i, std::size_t lanes)
                         __attribute__((always_inline)) { most.keep_greatest(Block<T>(x + i, lanes, lowest)); });
    const T greatest = most.greatest();
    for_blocks<T>(n, [&](std::size_t i, std::size_t lanes) __attribute__((always_inline)) {
        Block<T> block(x + i, lanes, lowest);
        block.to_exp(splat<vec<T>>(greatest));
        sums.add(block.v);
        block.store_to(y + i, lanes);
    });
    sums.total(&total, &total_low);
    const Parts<vec<T>> divisor = softmax_divisor<T>(total, total_low);
    for_blocks<T>(n, [&](std::size_t i, std::size_t lanes) __attribute__((always_inline)) {
        Block<T> block(y + i, lanes, 0);
        block.divide(divisor);
        block.store_to(y + i, lanes);
    });
    return {greatest, total};
}

template <class T> void softmax_row(const T *x, T *y, std::size_t n) { softmax_row_sum(x, y, n); }

template <class T> void softmax_backward_row(const T *dy, const T *y, T *dx, std::size_t n) {
    using V = vec<T>;
    constexpr std::size_t vectors = partial_results / width<T>;
    PartialSums<T> sums;
    for_blocks<T>(n, [&](std::size_t i, std::size_t lanes) __attribute__((always_inline)) {
        T a[partial_results], b[partial_results];
        bool partial = lanes < partial_results;
        if (partial) copy_padded(dy + i, lanes, T(0), a), copy_padded(y + i, lanes, T(0), b);
        sums.add_products(partial ? a : dy + i, partial ? b : y + i);
    });
    double dot, dot_low;
    sums.total(&dot, &dot_low);
    V high = splat<V>(static_cast<T>(dot));
    V low = splat<V>(static_cast<T>((dot - static_cast<double>(static_cast<T>(dot))) + dot_low));
    for_blocks<T>(n, [&](std::size_t i, std::size_t lanes) __attribute__((always_inline)) {
        T a[partial_results], b[partial_results];
        bool partial = lanes < partial_results;
        if (partial) copy_padded(dy + i, lanes, T(0), a), copy_padded(y + i, lanes, T(0), b);
        const T *gradient = partial ? a : dy + i, *output = partial ? b : y + i;
        T *result = partial ? a : dx + i;
        for (std::size_t j = 0; j < vectors; ++j) {
            Parts<V> difference = two_sum(load<V>(gradient + j * width<T>), -high);
            V rest = difference.low - low;
            V inner = difference.high + select(rest == rest, rest, V{});
            store(result + j * width<T>, load<V>(output + j * width<T>) * inner);
        }
        if (partial) __builtin_memcpy(dx + i, a, lanes * sizeof(T));
    });
}

} // namespace
} // namespace pynn::PYNN_ISA
