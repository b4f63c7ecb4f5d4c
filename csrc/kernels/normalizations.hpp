// Normalizations, in float64 inside: moments of columns and rows, the normalized values, and their gradients. Sums down a
// column run in chunks of affine_chunk rows, sums along a row in interleaved partial results.
#pragma once

#include "kernels/sums.hpp"

namespace pynn::PYNN_ISA {
namespace {

// term(i, j, lanes) -> Wide, summed over the rows i of the columns from j on
template <class F> PYNN_INLINE Wide sum_down(std::size_t rows, F term) {
    Wide total{};
    for (std::size_t start = 0; start < rows; start += affine_chunk) {
        const std::size_t end = rows - start < affine_chunk ? rows : start + affine_chunk;
        Wide sum{};
        for (std::size_t i = start; i < end; ++i) sum = term(i, sum);
        total = start == 0 ? sum : total + sum;
    }
    return total;
}

template <class T>
void column_moments(const T *x, std::ptrdiff_t x_row, std::size_t rows, std::size_t columns, double *mean,
                    double *variance) {
    const double count = static_cast<double>(rows);
    for (std::size_t j = 0; j < columns; j += wide_lanes) {
        const std::size_t lanes = columns - j;
        auto at = [=](std::size_t i) __attribute__((always_inline)) {
            return load_wide(x + static_cast<std::ptrdiff_t>(i) * x_row + j, lanes);
        };
        const Wide m =
            sum_down(rows, [&](std::size_t i, Wide sum) __attribute__((always_inline)) { return sum + at(i); }) / count;
        const Wide v = sum_down(rows,
                                [&](std::size_t i, Wide sum) __attribute__((always_inline)) {
                                    const Wide d = at(i) - m;
                                    return fma(d, d, sum);
                                }) /
                       count;
        store_wide(mean + j, m, lanes);
        store_wide(variance + j, v, lanes);
    }
}

// Of one row; not centered: the mean counts as 0.
template <class T> void row_moments(const T *x, std::size_t n, bool centered, double *mean, double *variance) {
    const double count = static_cast<double>(n);
    *mean = centered ? plain_sum(x, n) / count : 0;
    const Wide m = splat<Wide>(*mean);
    Interleaved squares;
    for_wide(n, [&](std::size_t i, std::size_t lanes, std::size_t j) __attribute__((always_inline)) {
        Wide d = load_wide(x + i, lanes) - m;
        if (lanes < wide_lanes) d = select(below_lane<Wide>(lanes), d, Wide{});
        squares.sum[j] = fma(d, d, squares.sum[j]);
    });
    *variance = squares.total() / count;
}

// The normalized value of column j in row i
template <class T> struct NormalizedAt {
    const Normalized<T> &n;
    std::size_t j, lanes;
    Wide mean{}, scale{};

    PYNN_INLINE NormalizedAt(const Normalized<T> &normalized, std::size_t column)
        : n(normalized), j(column), lanes(normalized.columns - column) {
        if (!n.by_row) mean = load_wide(n.mean + j, lanes), scale = load_wide(n.scale + j, lanes);
    }
    PYNN_INLINE Wide operator()(std::size_t i) const {
        const Wide x = load_wide(n.x + static_cast<std::ptrdiff_t>(i) * n.x_row + j, lanes);
        return n.by_row ? (x - n.mean[i]) * n.scale[i] : (x - mean) * scale;
    }
};

template <class T> void normalize(const Normalized<T> &n, T *y, std::ptrdiff_t y_row) {
    for (std::size_t i = 0; i < n.rows; ++i, y += y_row)
        for (std::size_t j = 0; j < n.columns; j += wide_lanes) {
            const NormalizedAt<T> at(n, j);
            Wide v = at(i);
            if (n.gamma != nullptr) v = v * load_wide(n.gamma + j, at.lanes);
            if (n.beta != nullptr) v = v + load_wide(n.beta + j, at.lanes);
            store_wide(y + j, v, at.lanes);
        }
}

// For each column the sums over the rows of dy and of dy times the normalized value
template <class T>
void normalized_sums(const Normalized<T> &n, const T *dy, std::ptrdiff_t dy_row, double *sums, double *weighted) {
    for (std::size_t j = 0; j < n.columns; j += wide_lanes) {
        const NormalizedAt<T> at(n, j);
        auto gradient = [&](std::size_t i) __attribute__((always_inline)) {
            return load_wide(dy + static_cast<std::ptrdiff_t>(i) * dy_row + j, at.lanes);
        };
        store_wide(
            sums + j,
            sum_down(n.rows, [&](std::size_t i, Wide sum) __attribute__((always_inline)) { return sum + gradient(i); }),
            at.lanes);
        store_wide(weighted + j,
                   sum_down(n.rows, [&](std::size_t i, Wide sum)
                                        __attribute__((always_inline)) { return fma(gradient(i), at(i), sum); }),
                   at.lanes);
    }
}

// The gradient of columns that were normalized by their own moments, from the sums over them; nullptr: by given ones.
template <class T>
void normalize_columns_backward(const Normalized<T> &n, const T *dy, std::ptrdiff_t dy_row, const double *sums,
                                const double *weighted, double count, T *dx, std::ptrdiff_t dx_row) {
    for (std::size_t i = 0; i < n.rows; ++i, dy += dy_row, dx += dx_row)
        for (std::size_t j = 0; j < n.columns; j += wide_lanes) {
            const NormalizedAt<T> at(n, j);
            Wide g = load_wide(dy + j, at.lanes);
            if (sums != nullptr)
                g = g - fma(at(i), load_wide(weighted + j, at.lanes), load_wide(sums + j, at.lanes)) / count;
            if (n.gamma != nullptr) g = g * load_wide(n.gamma + j, at.lanes);
            store_wide(dx + j, g * at.scale, at.lanes);
        }
}

// The gradient of rows that were normalized by their own moments
template <class T>
void normalize_rows_backward(const Normalized<T> &n, const T *dy, std::ptrdiff_t dy_row, bool centered, T *dx,
                             std::ptrdiff_t dx_row) {
    const double count = static_cast<double>(n.columns);
    for (std::size_t i = 0; i < n.rows; ++i, dy += dy_row, dx += dx_row) {
        auto gradient = [&](std::size_t j, std::size_t lanes) __attribute__((always_inline)) {
            const Wide g = load_wide(dy + j, lanes);
            return n.gamma == nullptr ? g : g * load_wide(n.gamma + j, lanes);
        };
        Interleaved sums, weighted;
        for_wide(n.columns, [&](std::size_t j, std::size_t lanes, std::size_t k) __attribute__((always_inline)) {
            const Wide g = gradient(j, lanes); // 0 beyond the row
            if (centered) sums.sum[k] = sums.sum[k] + g;
            weighted.sum[k] = fma(g, NormalizedAt<T>(n, j)(i), weighted.sum[k]);
        });
        const double sum = centered ? sums.total() : 0, product = weighted.total();
        for (std::size_t j = 0; j < n.columns; j += wide_lanes) {
            const NormalizedAt<T> at(n, j);
            const Wide g = gradient(j, at.lanes) - fma(at(i), splat<Wide>(product), splat<Wide>(sum)) / count;
            store_wide(dx + j, g * n.scale[i], at.lanes);
        }
    }
}

} // namespace
} // namespace pynn::PYNN_ISA
