// Kernels<T> and KernelTable: the function pointers that an instruction set offers and all that the rest of
// pynn knows of it. Kernels loop over contiguous memory; they never allocate, throw, lock or know Python.
#pragma once

#include <cstddef>
#include <cstdint>

#include "activations.hpp"
#include "distributions.hpp"
#include "losses.hpp"
#include "optimizers.hpp"

namespace pynn {

// Constants of the numerics contract (docs/numerics.md); changing one changes the bits of results.
inline constexpr std::size_t affine_chunk = 256;   // length of an fma chain over k
inline constexpr std::size_t partial_results = 16; // interleaved partial results of a row reduction
inline constexpr std::size_t sum_block = 4096;     // elements of a large sum that are added before others

// c[i, j] = sum over k of a[i, k] * b[k, j] + bias[j] on one block of rows and columns. Strides are in elements; of a's
// one is 1, and of b's too.
template <class T> struct ProductBlock {
    std::size_t rows, columns, depth;
    const T *a;
    std::ptrdiff_t a_row, a_column;
    const T *packed_a;   // a's part as pack_rows() lays it out, read instead of a; or nullptr
    std::size_t a_chunk; // elements from one of its chunks to the next
    const T *b;
    std::ptrdiff_t b_row, b_column;
    bool pack;       // b's part goes by way of the workspace; else b_column is 1 and b is read in place
    const T *packed; // b's part as pack() lays it out, read instead of b; or nullptr
    T *c;
    std::ptrdiff_t c_row;
    const T *bias;                                       // one per column or nullptr
    void (*activation)(const T *x, T *y, std::size_t n); // of c, row by row; or nullptr
    bool past_cache; // c, whose rows begin with cache lines, is not to be kept by caches; one chunk, and no bias
    T *workspace;    // of this thread: workspace_groups() times group_columns times affine_chunk elements
};

// Rows of a for which b is read as it lies, in either order, however large it is.
inline constexpr std::size_t most_rows_in_place = 4;

// Ranges of rows that a block's products are made in, of nearly so many rows; a few more stay together.
constexpr std::size_t row_ranges(std::size_t rows, std::size_t block_rows) {
    return 2 * rows <= 3 * block_rows ? 1 : (rows + block_rows - 1) / block_rows;
}
// Groups of columns that are laid out at a time: the one in use, or all for the ranges after the first.
constexpr std::size_t workspace_groups(std::size_t ranges, std::size_t groups) { return ranges == 1 ? 1 : groups; }

// A matrix normalized by moments of its columns, or of its rows: (x - mean) * scale * gamma + beta.
template <class T> struct Normalized {
    const T *x;
    std::ptrdiff_t x_row;
    std::size_t rows, columns;
    const double *mean, *scale; // one per column, or per row
    bool by_row;
    const T *gamma, *beta; // one per column, or nullptr
};

// Memory that softmax needs beside its rows of n: for shorter ones, of float32, it takes its own.
constexpr std::size_t most_on_stack = 2048;
template <class T> constexpr std::size_t spare_of_row(std::size_t n) {
    return sizeof(T) == 4 && n > most_on_stack ? n : 0;
}

inline constexpr std::size_t most_elements_past_cache = 256;

template <class T> struct Kernels {
    // Elementwise; in place is allowed where pointers are equal.
    void (*forward[activation_count])(const T *x, T *y, std::size_t n);
    void (*backward[activation_count])(const T *dy, const T *saved, T *dx, std::size_t n);
    // The same with parameters: values[j] is one number where steps[j] is 0, else one per element.
    void (*forward_given[activation_count])(const T *x, const T *const *values, const std::size_t *steps, T *y,
                                            std::size_t n);
    void (*backward_given[activation_count])(const T *dy, const T *saved, const T *const *values,
                                             const std::size_t *steps, T *dx, std::size_t n);
    void (*prelu_backward)(const T *dy, const T *x, const T *slope, std::size_t slope_step, T *dx, T *dslope,
                           std::size_t n);
    void (*glu)(const T *a, const T *b, T *y, std::size_t n);
    void (*glu_backward)(const T *dy, const T *a, const T *b, T *da, T *db, std::size_t n);
    void (*fused_multiply_add)(const T *a, const T *b, const T *c, T *y, std::size_t n);
    // To memory that caches need not keep; after the last copy, finish_past_cache() on the same thread.
    void (*copy_past_cache)(const T *from, T *to, std::size_t n);
    void (*finish_past_cache)();
    std::size_t elements_past_cache; // made at a time before they are copied: whole cache lines

    // Of rows of n; x_row and y_row from one to the next. What a row ends with overlaps with the next one's beginning. spare has
    // spare_of_row(n) elements.
    void (*softmax)(const T *x, std::ptrdiff_t x_row, T *y, std::ptrdiff_t y_row, std::size_t rows, std::size_t n,
                    T *spare);
    void (*softmin)(const T *x, std::ptrdiff_t x_row, T *y, std::ptrdiff_t y_row, std::size_t rows, std::size_t n,
                    T *spare);
    void (*log_softmax)(const T *x, std::ptrdiff_t x_row, T *y, std::ptrdiff_t y_row, std::size_t rows, std::size_t n);
    // One row each.
    void (*softmax_backward)(const T *dy, const T *y, T *dx, std::size_t n);
    void (*softmin_backward)(const T *dy, const T *y, T *dx, std::size_t n);
    void (*log_softmax_backward)(const T *dy, const T *y, T *dx, std::size_t n);
    void (*logsumexp)(const T *x, T *y, std::size_t n); // y is one number
    void (*logsumexp_backward)(const T *dy, const T *x, const T *y, T *dx, std::size_t n);

    // Elements start .. start + n - 1 of the stream of a key.
    void (*fill[distribution_count])(T *out, std::uint64_t key, std::uint64_t start, std::size_t n,
                                     const Constants<T> &constants);

    // affine
    std::size_t tile_rows, panel_columns; // of the micro-tile
    std::size_t block_rows;               // whose chunk of a stays in the second-level cache
    std::size_t group_columns;            // of b, packed together
    void (*product)(const ProductBlock<T> &block);
    // Lays a chunk of a block's rows of a out for ProductBlock::packed_a: rows up to whole tiles, times depth, and the
    // length of a vector. One of a's strides is 1.
    void (*pack_rows)(const T *a, std::ptrdiff_t a_row, std::ptrdiff_t a_column, std::size_t depth, std::size_t rows,
                      T *packed);
    void (*transpose)(const T *from, std::ptrdiff_t from_row, std::size_t rows, std::size_t columns, T *to,
                      std::ptrdiff_t to_row);
    void (*column_sums)(const T *x, std::ptrdiff_t x_row, std::size_t rows, std::size_t columns, T *sums);
    // Lays columns of b out in panels for ProductBlock::packed: panel p, of [k][column], begins at packed +
    // p * panel_columns * depth. One of b's strides is 1.
    void (*pack)(const T *b, std::ptrdiff_t b_row, std::ptrdiff_t b_column, std::size_t depth, std::size_t columns,
                 T *packed);

    // One step of an optimizer, in place.
    void (*update[optimizer_count])(T *parameter, const T *gradient, T *const *states, std::size_t n,
                                    const UpdateConstants<T> &constants);

    // Sums of at most sum_block elements
    double (*sum_of_squares)(const T *x, std::size_t n);
    double (*loss[loss_count])(const T *x, const T *t, std::size_t n, T parameter);
    void (*loss_slope[loss_count])(const T *x, const T *t, T *dx, std::size_t n, T scale, T parameter);
    // Of rows of n: y = softmax(x), which may be in place, and the cross-entropy with labels; spare as above
    void (*softmax_loss)(const T *x, T *y, std::size_t rows, std::size_t n, const std::ptrdiff_t *labels,
                         double *losses, T *spare);
    void (*add_scaled)(const T *x, T s, T *y, std::size_t n); // y += s x
    void (*scale)(const T *x, T s, T *y, std::size_t n);      // y = s x
    void (*drop)(const float *uniform, float ratio, const T *x, T s, T *y, std::size_t n);

    void (*column_moments)(const T *x, std::ptrdiff_t x_row, std::size_t rows, std::size_t columns, double *mean,
                           double *variance);
    void (*row_moments)(const T *x, std::size_t n, bool centered, double *mean, double *variance);
    void (*normalize)(const Normalized<T> &normalized, T *y, std::ptrdiff_t y_row);
    void (*normalized_sums)(const Normalized<T> &normalized, const T *dy, std::ptrdiff_t dy_row, double *sums,
                            double *weighted);
    void (*normalize_columns_backward)(const Normalized<T> &normalized, const T *dy, std::ptrdiff_t dy_row,
                                       const double *sums, const double *weighted, double count, T *dx,
                                       std::ptrdiff_t dx_row);
    void (*normalize_rows_backward)(const Normalized<T> &normalized, const T *dy, std::ptrdiff_t dy_row, bool centered,
                                    T *dx, std::ptrdiff_t dx_row);
};

struct KernelTable {
    const char *name;
    Kernels<float> float32;
    Kernels<double> float64;
    // float32's fill, each element rounded to nearest even
    void (*fill_bfloat16[distribution_count])(std::uint16_t *out, std::uint64_t key, std::uint64_t start, std::size_t n,
                                              const Constants<float> &constants);
    void (*fill_float16[distribution_count])(std::uint16_t *out, std::uint64_t key, std::uint64_t start, std::size_t n,
                                             const Constants<float> &constants);
    double (*sum)(const double *x, std::size_t n); // of at most sum_block elements
    // Rounded to nearest even, and the exact opposite
    void (*to_bfloat16)(const float *from, std::uint16_t *to, std::size_t n);
    void (*to_float16)(const float *from, std::uint16_t *to, std::size_t n);
    void (*from_bfloat16)(const std::uint16_t *from, float *to, std::size_t n);
    void (*from_float16)(const std::uint16_t *from, float *to, std::size_t n);

    template <class T> const Kernels<T> &of() const;
};

template <> inline const Kernels<float> &KernelTable::of<float>() const { return float32; }
template <> inline const Kernels<double> &KernelTable::of<double>() const { return float64; }

} // namespace pynn
