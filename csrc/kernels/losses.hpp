// Losses: sums of the elementwise ones over a block, their slopes, and softmax with cross-entropy of rows.
#pragma once

#include "kernels/elementwise.hpp"
#include "kernels/softmax.hpp"
#include "kernels/sums.hpp"
#include "losses.hpp"

namespace pynn::PYNN_ISA {
namespace {

// The sum over at most sum_block elements.
template <class L, class T> double loss_loop(const T *x, const T *t, std::size_t n, T parameter) {
    using V = vec<T>;
    T values[sum_block];
    const V c = splat<V>(parameter);
    for (std::size_t i = 0; i < n; i += width<T>) {
        const std::size_t lanes = n - i < width<T> ? n - i : width<T>;
        V a = lanes == width<T> ? load<V>(x + i) : load_first<V>(x + i, lanes, T(0));
        V b = lanes == width<T> ? load<V>(t + i) : load_first<V>(t + i, lanes, T(0));
        store(values + i, L::value(a, b, c)); // sum_block is a whole number of vectors
    }
    return plain_sum(values, n);
}

template <class L, class T> void loss_slope_loop(const T *x, const T *t, T *dx, std::size_t n, T scale, T parameter) {
    using V = vec<T>;
    const V c = splat<V>(parameter), s = splat<V>(scale);
    std::size_t i = 0;
    for (; i + width<T> <= n; i += width<T>) store(dx + i, s * L::slope(load<V>(x + i), load<V>(t + i), c));
    if (i < n)
        store_first(dx + i, s * L::slope(load_first<V>(x + i, n - i, T(0)), load_first<V>(t + i, n - i, T(0)), c),
                    n - i);
}

// y = softmax(x) of rows of n, which may be in place, and the cross-entropy of each with its label, from the scores.
template <class T>
void softmax_loss_rows(const T *x, T *y, std::size_t rows, std::size_t n, const std::ptrdiff_t *labels, double *losses,
                       T *spare) {
    constexpr std::size_t most = 64; // whose logarithms are taken together
    while (rows > 0) {
        const std::size_t count = rows < most ? rows : most;
        double totals[most];
        for (std::size_t i = 0; i < count; ++i)
            losses[i] = -static_cast<double>(x[static_cast<std::ptrdiff_t>(i * n) + labels[i]]);
        const auto row = static_cast<std::ptrdiff_t>(n);
        softmax_of_rows(x, row, y, row, count, n, spare, [&](std::size_t i, double taken_off, double total) {
            totals[i] = total;
            losses[i] += taken_off;
        });
        x += count * n;
        y += count * n;
        for (std::size_t i = 0; i < count; i += wide_lanes)
            store_wide(losses + i, log_of(load_wide(totals + i, count - i)) + load_wide(losses + i, count - i),
                       count - i);
        rows -= count;
        labels += count;
        losses += count;
    }
}

// y += s x, the product rounded first
template <class T> void add_scaled_loop(const T *x, T s, T *y, std::size_t n) {
    using V = vec<T>;
    const V factor = splat<V>(s);
    std::size_t i = 0;
    for (; i + width<T> <= n; i += width<T>) store(y + i, load<V>(y + i) + factor * load<V>(x + i));
    if (i < n)
        store_first(y + i, load_first<V>(y + i, n - i, T(0)) + factor * load_first<V>(x + i, n - i, T(0)), n - i);
}

// y = s x
template <class T> void scale_loop(const T *x, T s, T *y, std::size_t n) {
    using V = vec<T>;
    const V factor = splat<V>(s);
    std::size_t i = 0;
    for (; i + width<T> <= n; i += width<T>) store(y + i, factor * load<V>(x + i));
    if (i < n) store_first(y + i, factor * load_first<V>(x + i, n - i, T(0)), n - i);
}

// y = s x where the uniform number is not below the ratio, else 0
template <class T> void drop_loop(const float *uniform, float ratio, const T *x, T s, T *y, std::size_t n) {
    using V = vec<T>;
    using U = typename vector_type<float, width<T> * sizeof(float)>::type;
    const V factor = splat<V>(s);
    for (std::size_t i = 0; i < n; i += width<T>) {
        const std::size_t lanes = n - i < width<T> ? n - i : width<T>;
        float drawn[width<T>] = {};
        __builtin_memcpy(drawn, uniform + i, lanes * sizeof(float));
        U u;
        __builtin_memcpy(&u, drawn, sizeof u);
        ints<V> kept = convert<ints<V>>(u >= ratio);
        if (lanes == width<T>)
            store(y + i, select(kept, factor * load<V>(x + i), V{}));
        else
            store_first(y + i, select(kept, factor * load_first<V>(x + i, lanes, T(0)), V{}), lanes);
    }
}

} // namespace
} // namespace pynn::PYNN_ISA
