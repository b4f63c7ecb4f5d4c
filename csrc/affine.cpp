// The affine map and its backward above the kernels: who packs what, and how the work is cut for the threads.
#include "affine.hpp"

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <utility>

#include "dispatch.hpp"
#include "memory.hpp"
#include "parallel.hpp"

namespace pynn {
namespace {

constexpr double serial_work = 1 << 19;                       // multiplications below which one thread is faster
constexpr double short_work = 1 << 26;                        // over before a thread is likely to be interrupted
constexpr std::size_t read_in_place = std::size_t(768) << 10; // bytes of b that stay in the second-level cache
constexpr std::size_t tasks_per_thread = 3;                   // so that a free thread can take over from a slow one

std::size_t ceil_div(std::size_t a, std::size_t b) { return (a + b - 1) / b; }

// Whether rows of b lie so that the first-level cache (8 ways of 4 KiB) cannot keep a panel's: a power of two apart.
template <class T> bool rows_share_sets(MatrixView<T> b, std::size_t k) {
    constexpr std::size_t way = 4096, ways = 4; // half of them
    const std::size_t stride = static_cast<std::size_t>(b.row < 0 ? -b.row : b.row) * sizeof(T);
    return std::min(k, affine_chunk) > ways * way / std::gcd(stride, way);
}

constexpr std::size_t many_columns = 512, enough_columns = 128; // of a block with many rows, and with few
constexpr double most_block_work = 1ULL << 32;                  // multiplications, for a call to end soon when asked to

// 0 .. n - 1 cut into parts of nearly as many whole units each.
struct Parts {
    std::size_t n = 0, unit = 1, count = 1;

    std::size_t units() const { return ceil_div(n, unit); }
    std::size_t begin(std::size_t part) const { return std::min(n, part * units() / count * unit); }
    std::size_t size(std::size_t part) const { return begin(part + 1) - begin(part); }
    std::size_t most() const { return std::min(n, ceil_div(units(), count) * unit); }
    // Twice as many, unless they would be shorter than that.
    bool halve(std::size_t least) {
        if (n / count < 2 * least) return false;
        count *= 2;
        return true;
    }
};

// How the outputs are cut into blocks for the threads.
struct Cut {
    Parts rows, columns;

    std::size_t blocks() const { return rows.count * columns.count; }
};

// In short blocks, a block's results stay in the second-level cache; in whole rows, it has all columns.
struct Cutting {
    bool short_blocks, whole_rows, in_place;
    std::size_t blocks_per_thread;
};

template <class T>
Cut cut_output(std::size_t m, std::size_t n, std::size_t k, const Kernels<T> &kernels, std::size_t threads,
               const Cutting &cutting) {
    const auto [short_blocks, whole_rows, in_place, blocks_per_thread] = cutting;
    Cut cut{{m, kernels.tile_rows, 1}, {n, whole_rows ? n : kernels.panel_columns, 1}};
    const std::size_t ranges = row_ranges(m, kernels.block_rows);
    const std::size_t columns = ranges > 1 && !short_blocks ? many_columns : enough_columns;
    if (!whole_rows && m > most_rows_in_place) cut.columns.count = ceil_div(n, columns);
    const double block_work = static_cast<double>(m) * static_cast<double>(cut.columns.most()) * static_cast<double>(k);
    cut.rows.count = short_blocks || block_work >= static_cast<double>(ranges) * most_block_work
                         ? ranges
                         : std::max<std::size_t>(1, static_cast<std::size_t>(block_work / most_block_work));
    const std::size_t enough = blocks_per_thread * threads, few_rows = 2 * kernels.tile_rows;
    // Rows of a b that is read in place, else columns: each is then packed once.
    while (threads > 1 && in_place && cut.blocks() < enough && cut.rows.halve(2 * few_rows)) {}
    while (threads > 1 && cut.blocks() < enough &&
           (cut.columns.halve(enough_columns) || cut.rows.halve(kernels.block_rows / 2) ||
            cut.columns.halve(2 * kernels.panel_columns) || cut.rows.halve(few_rows))) {}
    // As many for each thread: one left over would be waited for.
    Parts &last = cut.columns.count > 1 ? cut.columns : cut.rows;
    last.count = std::min(ceil_div(last.count, threads) * threads, last.units());
    return cut;
}

constexpr std::size_t panels_worth_packing = 8; // how often a row of a is read again, for its packing to pay
constexpr std::size_t rows_in_cache = std::size_t(64) << 10; // bytes of a that the micro-tile reads as well unpacked
constexpr double least_past_cache = 8 << 20;                 // bytes of a result that a cache hardly keeps
constexpr double most_packed = 64 << 20;                     // bytes

// a laid out for micro-tiles, by all threads: blocks of rows, chunk by chunk.
template <class T> struct PackedRows {
    std::size_t chunks, chunk, size;

    PackedRows(const Cut &cut, std::size_t k, const Kernels<T> &kernels) : chunks(ceil_div(k, affine_chunk)) {
        const std::size_t rows = ceil_div(cut.rows.most(), kernels.tile_rows) * kernels.tile_rows;
        chunk =
            ceil_div(rows * std::min(k, affine_chunk) * sizeof(T) + cache_line, cache_line) * cache_line / sizeof(T);
        size = cut.rows.count * chunks * chunk;
    }
    void pack(MatrixView<T> a, std::size_t k, const Cut &cut, T *packed, const Kernels<T> &kernels, int threads) const {
        parallel_for_slots(cut.rows.count * chunks, 1, threads, [&](std::size_t begin, std::size_t end, int) {
            for (std::size_t i = begin; i < end; ++i) {
                const std::size_t block = i / chunks, row = cut.rows.begin(block), start = i % chunks * affine_chunk;
                kernels.pack_rows(
                    a.data + static_cast<std::ptrdiff_t>(row) * a.row + static_cast<std::ptrdiff_t>(start) * a.column,
                    a.row, a.column, std::min(affine_chunk, k - start), cut.rows.size(block), packed + i * chunk);
            }
        });
    }
};

// b laid out in panels of columns, by all threads.
template <class T>
void pack_columns(MatrixView<T> b, std::size_t n, std::size_t k, T *packed, const Kernels<T> &kernels, int threads) {
    const std::size_t panel = kernels.panel_columns;
    parallel_for_slots(ceil_div(n, panel), ceil_div(elementwise_grain, panel * k), threads,
                       [&](std::size_t begin, std::size_t end, int) {
                           const std::size_t column = begin * panel;
                           kernels.pack(b.data + static_cast<std::ptrdiff_t>(column) * b.column, b.row, b.column, k,
                                        std::min(n, end * panel) - column, packed + column * k);
                       });
}

// Where the columns of b lie each in a line, they are laid out anew, k by n, for a few rows of a. Then they are rather taken for
// the rows of the left operand, as they lie, and the result is turned: m by n.
constexpr std::size_t least_rows_turned = 8, most_rows_turned = 64, most_rows_turned_in_cache = 256;
constexpr std::size_t least_columns_turned = 64;
bool turning_pays(std::size_t m, std::size_t n, std::size_t k, std::size_t size) {
    const bool small = static_cast<double>(k) * static_cast<double>(n) * static_cast<double>(size) <= read_in_place;
    return m >= least_rows_turned && m <= (small ? most_rows_turned_in_cache : most_rows_turned) &&
           n >= least_columns_turned && k >= 2 * m;
}

template <class T> void add(const T *x, std::size_t n, T *sums) {
    for (std::size_t i = 0; i < n; ++i) sums[i] += x[i];
}

// The same as product() for a few rows of a and a b that is read once, from memory: a thread takes whole rows of b, chunk by
// chunk, and the chunks' sums are added in order.
template <class T>
void product_by_chunks(std::size_t m, std::size_t n, std::size_t k, MatrixView<T> a, MatrixView<T> b, const T *bias,
                       std::optional<std::size_t> activation, T *c, std::ptrdiff_t c_row, bool accumulate) {
    const Kernels<T> &kernels = active_kernels_of<T>();
    const std::size_t chunks = ceil_div(k, affine_chunk), columns = ceil_div(n, cache_line) * cache_line;
    Scratch<T> sums(chunks * m * columns);
    parallel_for_slots(chunks, 1, thread_count(), [&](std::size_t begin, std::size_t end, int) {
        for (std::size_t i = begin; i < end; ++i) {
            const std::ptrdiff_t start = static_cast<std::ptrdiff_t>(i * affine_chunk);
            ProductBlock<T> block{};
            block.rows = m;
            block.columns = n;
            block.depth = std::min(affine_chunk, k - i * affine_chunk);
            block.a = a.data + start * a.column;
            block.a_row = a.row;
            block.a_column = a.column;
            block.b = b.data + start * b.row;
            block.b_row = b.row;
            block.b_column = b.column;
            block.c = sums.get() + i * m * columns;
            block.c_row = static_cast<std::ptrdiff_t>(columns);
            kernels.product(block);
        }
    });
    parallel_for_slots(m, 1, 1, [&](std::size_t, std::size_t, int) { // for its floating-point environment
        for (std::size_t row = 0; row < m; ++row, c += c_row) {
            T *y = sums.get() + row * columns;
            for (std::size_t i = 1; i < chunks; ++i) add(y + i * m * columns, n, y);
            if (bias != nullptr) add(bias, n, y);
            if (activation) kernels.forward[*activation](y, y, n);
            if (accumulate)
                add(y, n, c);
            else
                std::copy(y, y + n, c);
        }
    });
}

// activation(a @ b + bias), written to c or added to it.
template <class T>
void product(std::size_t m, std::size_t n, std::size_t k, MatrixView<T> a, MatrixView<T> b, const Panels<T> *panels,
             const T *bias, std::optional<std::size_t> activation, T *c, std::ptrdiff_t c_row, bool accumulate) {
    if (m == 0 || n == 0) return;
    const Kernels<T> &kernels = active_kernels_of<T>();
    const double work = static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
    const bool serial = work < serial_work;
    const int threads = serial ? 1 : thread_count();
    if (n == 1) b.column = 1;
    const bool turn =
        b.column != 1 && b.row == 1 && !serial && panels == nullptr && !accumulate && turning_pays(m, n, k, sizeof(T));
    if (turn) {
        std::swap(m, n);
        std::swap(a, b);
        a = a.transposed();
        b = b.transposed();
    }
    // Micro-tiles read narrow columns of b, again and again: where a cache does not keep them, they are packed first.
    const double b_bytes = static_cast<double>(k) * static_cast<double>(n) * sizeof(T);
    const bool small = b_bytes <= read_in_place;
    // A small b of few columns, each in a line, is turned and then read in place.
    constexpr std::size_t line = cache_line / sizeof(T);
    const bool turn_b = b.column != 1 && b.row == 1 && !turn && panels == nullptr && small && m > most_rows_in_place &&
                        n >= line && n < panels_worth_packing * kernels.panel_columns;
    const std::size_t stride = ceil_div(n, line) * line;
    Scratch<T> turned(turn_b ? k * stride : 0);
    if (turn_b) {
        kernels.transpose(b.data, b.column, n, k, turned.get(), static_cast<std::ptrdiff_t>(stride));
        b = {turned.get(), static_cast<std::ptrdiff_t>(stride), 1};
    }
    const bool many_chunks = ceil_div(k, affine_chunk) >= tasks_per_thread * static_cast<std::size_t>(threads);
    if (!small && !serial && many_chunks && m <= most_rows_in_place && b.column == 1 && panels == nullptr)
        return product_by_chunks(m, n, k, a, b, bias, activation, c, c_row, accumulate);
    const bool pack =
        b.column != 1 || (!small && m > most_rows_in_place) || (m > 2 * kernels.tile_rows && rows_share_sets(b, k));
    const bool uses_aside = accumulate || turn; // where a block's sums are finished
    const Cut cut = cut_output(m, n, k, kernels, static_cast<std::size_t>(threads),
                               {uses_aside, turn, !pack, !pack && work < short_work ? 1 : tasks_per_thread});
    const double a_bytes = static_cast<double>(m) * static_cast<double>(k) * sizeof(T);
    const bool pack_a = !turn && ceil_div(n, kernels.panel_columns) >= panels_worth_packing &&
                        a_bytes > rows_in_cache && a_bytes <= most_packed;
    const PackedRows<T> layout(cut, k, kernels);
    Scratch<T> rows(pack_a ? layout.size : 0);
    if (pack_a) layout.pack(a, k, cut, rows.get(), kernels, threads);
    // Few rows keep the fma units busier on b itself, as long as it stays in the cache.
    const bool use_panels = panels != nullptr && (!small || m > kernels.tile_rows);
    const T *packed = use_panels ? panels->of(kernels) : nullptr;
    // Columns that lie each in a line are turned once for all blocks of rows.
    const bool pack_b = packed == nullptr && b.column != 1 && k > 0 && b_bytes <= most_packed &&
                        m > most_rows_in_place && cut.rows.count > 1;
    const std::size_t panel = kernels.panel_columns;
    Scratch<T> columns(pack_b ? ceil_div(n, panel) * panel * k : 0);
    if (pack_b) {
        pack_columns(b, n, k, columns.get(), kernels, threads);
        packed = columns.get();
    }
    const std::size_t aside = uses_aside ? ceil_div(cut.rows.most() * cut.columns.most(), line) * line : 0;
    const std::size_t groups = workspace_groups(row_ranges(cut.rows.most(), kernels.block_rows),
                                                ceil_div(cut.columns.most(), kernels.group_columns));
    const std::size_t laid_out = packed != nullptr ? 0 : groups * kernels.group_columns * affine_chunk;
    const std::size_t workspace_size = laid_out + aside;
    Scratch<T> workspace(static_cast<std::size_t>(threads) * workspace_size);
    const bool aligned =
        reinterpret_cast<std::uintptr_t>(c) % cache_line == 0 && c_row % static_cast<std::ptrdiff_t>(line) == 0;
    const bool past_cache = aligned && !uses_aside && !activation && bias == nullptr && k <= affine_chunk &&
                            static_cast<double>(m) * static_cast<double>(n) * sizeof(T) >= least_past_cache;
    std::optional<Patience> patience;
    if (!serial) patience.emplace();
    parallel_for_slots(cut.blocks(), 1, threads, [&](std::size_t begin, std::size_t end, int slot) {
        for (std::size_t t = begin; t < end; ++t) {
            if (patience && patience->over()) return;
            const std::size_t row_block = t % cut.rows.count, column_block = t / cut.rows.count;
            const std::size_t row = cut.rows.begin(row_block), column = cut.columns.begin(column_block);
            ProductBlock<T> block;
            block.rows = cut.rows.size(row_block);
            block.columns = cut.columns.size(column_block);
            block.depth = k;
            block.a = a.data + static_cast<std::ptrdiff_t>(row) * a.row;
            block.a_row = a.row;
            block.a_column = a.column;
            block.packed_a = pack_a ? rows.get() + row_block * layout.chunks * layout.chunk : nullptr;
            block.a_chunk = layout.chunk;
            block.b = b.data + static_cast<std::ptrdiff_t>(column) * b.column;
            block.b_row = b.row;
            block.b_column = b.column;
            block.pack = pack;
            block.packed = packed == nullptr ? nullptr : packed + column * k;
            block.workspace = workspace.get() + static_cast<std::size_t>(slot) * workspace_size;
            T *target = turn ? c + static_cast<std::ptrdiff_t>(column) * c_row + row
                             : c + static_cast<std::ptrdiff_t>(row) * c_row + column;
            block.c = uses_aside ? block.workspace + laid_out : target;
            block.c_row = uses_aside ? static_cast<std::ptrdiff_t>(block.columns) : c_row;
            block.activation = activation && !turn ? kernels.forward[*activation] : nullptr;
            block.past_cache = past_cache;
            block.bias = bias == nullptr || turn ? nullptr : bias + column;
            kernels.product(block);
            if (turn) {
                kernels.transpose(block.c, block.c_row, block.rows, block.columns, target, c_row);
                for (std::size_t i = 0; i < block.columns && (activation || bias != nullptr); ++i, target += c_row) {
                    if (bias != nullptr) add(bias + row, block.rows, target);
                    if (activation) kernels.forward[*activation](target, target, block.rows);
                }
            } else {
                for (std::size_t i = 0; i < block.rows && accumulate; ++i, target += c_row)
                    add(block.c + static_cast<std::ptrdiff_t>(i) * block.c_row, block.columns, target);
            }
            if (patience) patience->ask(slot);
        }
    });
    if (patience) patience->end();
}

} // namespace

template <class T>
Panels<T>::Panels(std::size_t n, std::size_t k, MatrixView<T> b) : kernels_(&active_kernels_of<T>()) {
    const Kernels<T> &kernels = *kernels_;
    if (n == 0 || k == 0) return;
    memory_ = keep<T>(ceil_div(n, kernels.panel_columns) * kernels.panel_columns * k);
    pack_columns(b, n, k, memory_.get(), kernels, thread_count());
}

template <class T>
void affine_forward(std::size_t m, std::size_t n, std::size_t k, MatrixView<T> a, MatrixView<T> b, const T *bias,
                    std::optional<std::size_t> activation, T *c, std::ptrdiff_t c_row, const Panels<T> *panels) {
    product<T>(m, n, k, a, b, panels, bias, activation, c, c_row, false);
}

template <class T>
void affine_backward(std::size_t m, std::size_t n, std::size_t k, const T *dy, MatrixView<T> x, MatrixView<T> w,
                     const T *saved, std::optional<std::size_t> activation, T *dx, T *dw, T *db, bool accumulate) {
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
    Scratch<T> aside(accumulate ? n : 0); // before anything is added: memory may run out
    if (dx != nullptr) affine_forward<T>(m, k, n, z, w.transposed(), nullptr, {}, dx, static_cast<std::ptrdiff_t>(k));
    product<T>(k, n, m, x.transposed(), z, nullptr, nullptr, {}, dw, static_cast<std::ptrdiff_t>(n), accumulate);
    T *sums = accumulate ? aside.get() : db;
    const std::size_t panel = kernels.panel_columns;
    parallel_for(ceil_div(n, panel),
                 std::max<std::size_t>(1, elementwise_grain / (panel * std::max<std::size_t>(m, 1))),
                 [&](std::size_t begin, std::size_t end) {
                     const std::size_t column = begin * panel, columns = std::min(n, end * panel) - column;
                     kernels.column_sums(dz + column, static_cast<std::ptrdiff_t>(n), m, columns, sums + column);
                     if (accumulate) add(sums + column, columns, db + column);
                 });
}

#define PYNN_INSTANTIATE(T)                                                                                            \
    template class Panels<T>;                                                                                          \
    template void affine_forward<T>(std::size_t, std::size_t, std::size_t, MatrixView<T>, MatrixView<T>, const T *,    \
                                    std::optional<std::size_t>, T *, std::ptrdiff_t, const Panels<T> *);               \
    template void affine_backward<T>(std::size_t, std::size_t, std::size_t, const T *, MatrixView<T>, MatrixView<T>,   \
                                     const T *, std::optional<std::size_t>, T *, T *, T *, bool);
PYNN_INSTANTIATE(float)
PYNN_INSTANTIATE(double)

} // namespace pynn
