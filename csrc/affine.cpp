// The affine map and its backward above the kernels: who packs what, and how the work is cut for the threads.
#include "affine.hpp"

#include <algorithm>

#include "dispatch.hpp"
#include "memory.hpp"
#include "parallel.hpp"

namespace pynn {
namespace {

constexpr std::size_t serial_work = std::size_t(1) << 19;   // multiplications below which one thread is faster
constexpr std::size_t rows_in_place = 48;                   // up to so many rows, packing b costs more than it saves
constexpr std::size_t columns_of_block = 512;               // packed columns that stay in the second-level cache

std::size_t ceil_div(std::size_t a, std::size_t b) { return (a + b - 1) / b; }

// How the outputs are cut into blocks for the threads: rows x columns each, columns a multiple of the panel.
struct Cut {
    std::size_t rows, columns;
};

Cut cut_output(std::size_t m, std::size_t n, std::size_t tile_rows, std::size_t panel, std::size_t threads) {
    std::size_t most_rows = 8 * tile_rows;
    std::size_t row_blocks = ceil_div(m, most_rows), column_blocks = ceil_div(n, columns_of_block);
    if (threads > 1) {
        while (row_blocks * column_blocks < 4 * threads) {
            bool rows_left = m / row_blocks > 2 * tile_rows, columns_left = n / column_blocks > 2 * panel;
            if (rows_left && (!columns_left || m / row_blocks * 4 > n / column_blocks))
                row_blocks *= 2;
            else if (columns_left)
                column_blocks *= 2;
            else
                break;
        }
    }
    return {ceil_div(m, row_blocks), ceil_div(ceil_div(n, column_blocks), panel) * panel};
}

} // namespace

template <class T>
void affine_forward(std::size_t m, std::size_t n, std::size_t k, MatrixView<T> a, MatrixView<T> b, const T *bias,
                    std::optional<std::size_t> activation, T *c, std::ptrdiff_t c_row) {
    if (m == 0 || n == 0) return;
    const Kernels<T> &kernels = active_kernels_of<T>();
    const std::size_t panel = kernels.panel_columns;
    const bool serial = static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k) < serial_work;
    const int threads = serial ? 1 : thread_count();

    const bool in_place = m <= rows_in_place && (b.column == 1 || n == 1);
    std::size_t padded = ceil_div(n, panel) * panel, packed_size;
    if (__builtin_mul_overflow(padded, k, &packed_size)) throw std::bad_alloc();
    Scratch<T> packed(in_place ? 0 : packed_size);
    Scratch<T> workspace(static_cast<std::size_t>(threads) * kernels.product_workspace);

    if (!in_place)
        parallel_for_slots(ceil_div(n, panel), 1, threads, [&](std::size_t begin, std::size_t end, int) {
            for (std::size_t p = begin; p < end; ++p) {
                std::size_t column = p * panel;
                kernels.pack_columns(b.data + static_cast<std::ptrdiff_t>(column) * b.column, b.row, b.column, k,
                                     std::min(panel, n - column), packed.get() + column * k);
            }
        });

    const Cut cut = cut_output(m, n, kernels.tile_rows, panel, static_cast<std::size_t>(threads));
    const std::size_t row_blocks = ceil_div(m, cut.rows), column_blocks = ceil_div(n, cut.columns);
    parallel_for_slots(row_blocks * column_blocks, 1, threads, [&](std::size_t begin, std::size_t end, int slot) {
        for (std::size_t t = begin; t < end; ++t) {
            const std::size_t row = t % row_blocks * cut.rows, column = t / row_blocks * cut.columns;
            ProductBlock<T> block;
            block.rows = std::min(cut.rows, m - row);
            block.columns = std::min(cut.columns, n - column);
            block.depth = k;
            block.a = a.data + static_cast<std::ptrdiff_t>(row) * a.row;
            block.a_row = a.row;
            block.a_column = a.column;
            block.b = in_place ? nullptr : packed.get() + column * k;
            block.b_in_place = b.data + column;
            block.b_row = b.row;
            block.c = c + static_cast<std::ptrdiff_t>(row) * c_row + column;
            block.c_row = c_row;
            block.bias = bias == nullptr ? nullptr : bias + column;
            block.workspace = workspace.get() + static_cast<std::size_t>(slot) * kernels.product_workspace;
            kernels.product(block);
            if (activation)
                for (std::size_t i = 0; i < block.rows; ++i) {
                    T *y = block.c + static_cast<std::ptrdiff_t>(i) * c_row;
                    kernels.forward[*activation](y, y, block.columns);
                }
        }
    });
}

template <class T>
void affine_backward(std::size_t m, std::size_t n, std::size_t k, const T *dy, MatrixView<T> x, MatrixView<T> w,
                     const T *saved, std::optional<std::size_t> activation, T *dx, T *dw, T *db) {
    const Kernels<T> &kernels = active_kernels_of<T>();
    Scratch<T> gradient(activation ? m * n : 0);
    const T *dz = dy;
    if (activation) {
        parallel_for(m * n, elementwise_grain, [&](std::size_t begin, std::size_t end) {
            kernels.backward[*activation](dy + begin, saved + begin, gradient.get() + begin, end - begin);
        });
        dz = gradient.get();
    }
    const MatrixView<T> z{dz, static_cast<std::ptrdiff_t>(n), 1};
    affine_forward<T>(k, n, m, x.transposed(), z, nullptr, {}, dw, static_cast<std::ptrdiff_t>(n));
    if (dx != nullptr) affine_forward<T>(m, k, n, z, w.transposed(), nullptr, {}, dx, static_cast<std::ptrdiff_t>(k));
    const std::size_t panel = kernels.panel_columns;
    parallel_for(ceil_div(n, panel), std::max<std::size_t>(1, elementwise_grain / (panel * std::max<std::size_t>(m, 1))),
                 [&](std::size_t begin, std::size_t end) {
                     const std::size_t column = begin * panel, columns = std::min(n, end * panel) - column;
                     kernels.column_sums(dz + column, static_cast<std::ptrdiff_t>(n), m, columns, db + column);
                 });
}

#define PYNN_INSTANTIATE(T)                                                                                            \
    template void affine_forward<T>(std::size_t, std::size_t, std::size_t, MatrixView<T>, MatrixView<T>, const T *,    \
                                    std::optional<std::size_t>, T *, std::ptrdiff_t);                                  \
    template void affine_backward<T>(std::size_t, std::size_t, std::size_t, const T *, MatrixView<T>, MatrixView<T>,   \
                                     const T *, std::optional<std::size_t>, T *, T *, T *);
PYNN_INSTANTIATE(float)
PYNN_INSTANTIATE(double)

} // namespace pynn
