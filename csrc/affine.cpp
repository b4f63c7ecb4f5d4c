// The affine map and its backward above the kernels: who packs what, and how the work is cut for the threads.
#include "affine.hpp"

#include <algorithm>
#include <cstdint>
#include <deque>
#include <numeric>
#include <utility>
#include <vector>

#include "dispatch.hpp"
#include "memory.hpp"
#include "parallel.hpp"

namespace pynn {
namespace {

constexpr double serial_work = 1 << 19;                       // multiplications below which one thread is faster
constexpr double awake_work = 1 << 16;                        // the same where workers need not be woken up
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

constexpr std::size_t many_columns = 256, enough_columns = 128; // of a block with many rows, and with few
constexpr double most_block_work = 1ULL << 32;                  // multiplications, for a call to end soon when asked to

// 0 .. n - 1 cut into parts of nearly as many whole units each.
struct Parts {
    std::size_t n = 0, unit = 1, count = 1;

    std::size_t units() const { return ceil_div(n, unit); }
    std::size_t begin(std::size_t part) const { return std::min(n, part * units() / count * unit); }
    std::size_t size(std::size_t part) const { return begin(part + 1) - begin(part); }
    std::size_t most() const { return std::min(n, ceil_div(units(), count) * unit); }
    // Twice as many, unless they would be shorter than that, or some empty.
    bool halve(std::size_t least) {
        if (n / count < 2 * least || units() < 2 * count) return false;
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
    if (!whole_rows && m > most_rows_in_place && blocks_per_thread > 1) cut.columns.count = ceil_div(n, columns);
    const double block_work = static_cast<double>(m) * static_cast<double>(cut.columns.most()) * static_cast<double>(k);
    cut.rows.count = short_blocks || block_work >= static_cast<double>(ranges) * most_block_work
                         ? ranges
                         : std::max<std::size_t>(1, static_cast<std::size_t>(block_work / most_block_work));
    const std::size_t enough = blocks_per_thread * threads, few_rows = 2 * kernels.tile_rows;
    // Rows where b is read in place; else columns first, as each is then packed once.
    while (threads > 1 && in_place && cut.blocks() < enough && cut.rows.halve(2 * few_rows)) {}
    while (threads > 1 && cut.blocks() < enough &&
           (cut.columns.halve(enough_columns) || cut.rows.halve(kernels.block_rows / 2) ||
            cut.columns.halve(2 * kernels.panel_columns) || cut.rows.halve(few_rows))) {}
    // As many for each thread: one left over would be waited for.
    Parts &last = cut.columns.count > 1 ? cut.columns : cut.rows;
    last.count = std::min(ceil_div(last.count, threads) * threads, last.units());
    // Four tiles or more can as well be lower ones: blocks are then of equal height.
    if (m >= 4 * cut.rows.count * kernels.tile_rows) cut.rows.unit = 1;
    return cut;
}

constexpr std::size_t panels_worth_packing = 8; // how often a row of a is read again, for its packing to pay
constexpr std::size_t rows_in_cache = std::size_t(64) << 10; // bytes of a that the micro-tile reads as well unpacked
constexpr double least_past_cache = 8 << 20;                 // bytes of a result that a cache hardly keeps
constexpr double most_packed = 64 << 20;                     // bytes

// a laid out for micro-tiles, by all threads: blocks of rows, chunk by chunk.
template <class T> struct PackedRows {
    std::size_t chunks = 0, chunk = 0, size = 0;

    PackedRows() = default;
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

// What a product writes: activation(a @ b + bias), to c or added to it. bias may be nullptr.
template <class T> struct Output {
    const T *bias;
    std::optional<std::size_t> activation;
    T *c;
    std::ptrdiff_t c_row;
    bool accumulate;
};

// The same as product() for a few rows of a and a b that is read once, from memory: a thread takes whole rows of b, chunk by
// chunk, and the chunks' sums are added in order.
template <class T>
void product_by_chunks(std::size_t m, std::size_t n, std::size_t k, MatrixView<T> a, MatrixView<T> b,
                       const Output<T> &output) {
    const Kernels<T> &kernels = active_kernels_of<T>();
    auto [bias, activation, c, c_row, accumulate] = output;
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

// What each thread makes for itself when it first needs it, where that costs less than to fetch it from another's cache.
template <class T> class OwnCopy {
  public:
    OwnCopy(int threads, std::size_t size)
        : stride_((ceil_div(size * sizeof(T), cache_line) + 1) * line),
          memory_(static_cast<std::size_t>(threads) * stride_) {
        for (int slot = 0; slot < threads; ++slot) *made(slot) = 0;
    }
    template <class F> const T *of(int slot, F make) const {
        T *own = made(slot) + line;
        if (*made(slot) == 0) {
            make(own);
            *made(slot) = 1;
        }
        return own;
    }

  private:
    static constexpr std::size_t line = cache_line / sizeof(T);

    T *made(int slot) const { return memory_.get() + static_cast<std::size_t>(slot) * stride_; }

    std::size_t stride_;
    Scratch<T> memory_;
};

// a @ b as blocks of the output, which any threads may compute in any order.
template <class T> class Product {
  public:
    // All threads pack what is packed once for all blocks.
    Product(std::size_t m, std::size_t n, std::size_t k, MatrixView<T> a, MatrixView<T> b, const Panels<T> *panels,
            const Output<T> &output, int threads)
        : kernels_(active_kernels_of<T>()), k_(k), output_(output) {
        if (m == 0 || n == 0) return;
        if (n == 1) b.column = 1;
        const double work = multiplications(m, n, k);
        turn_ = b.column != 1 && b.row == 1 && work >= serial_work && panels == nullptr && !output.accumulate &&
                turning_pays(m, n, k, sizeof(T));
        if (turn_) {
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
        if (b.column != 1 && b.row == 1 && !turn_ && panels == nullptr && small && m > most_rows_in_place &&
            n >= line && n < panels_worth_packing * kernels_.panel_columns) {
            lines_ = b;
            b = {nullptr, static_cast<std::ptrdiff_t>(ceil_div(n, line) * line), 1};
            turned_.emplace(threads, k * ceil_div(n, line) * line);
        }
        pack_ = b.column != 1 || (!small && m > most_rows_in_place) ||
                (m > 2 * kernels_.tile_rows && rows_share_sets(b, k));
        const bool uses_aside = output.accumulate || turn_; // where a block's sums are finished
        cut_ = cut_output(m, n, k, kernels_, static_cast<std::size_t>(threads),
                          {uses_aside, turn_, !pack_, over_soon(work) ? 1 : tasks_per_thread});
        const double a_bytes = static_cast<double>(m) * static_cast<double>(k) * sizeof(T);
        if (!turn_ && ceil_div(n, kernels_.panel_columns) >= panels_worth_packing && a_bytes > rows_in_cache &&
            a_bytes <= most_packed) {
            layout_ = PackedRows<T>(cut_, k, kernels_);
            rows_.emplace(layout_.size);
            layout_.pack(a, k, cut_, rows_->get(), kernels_, threads);
        }
        // Few rows keep the fma units busier on b itself, as long as it stays in the cache.
        if (panels != nullptr && (!small || m > kernels_.tile_rows)) packed_ = panels->of(kernels_);
        // Columns that lie each in a line are turned once for all blocks of rows.
        if (packed_ == nullptr && b.column != 1 && k > 0 && b_bytes <= most_packed && m > most_rows_in_place &&
            cut_.rows.count > 1) {
            columns_.emplace(ceil_div(n, kernels_.panel_columns) * kernels_.panel_columns * k);
            pack_columns(b, n, k, columns_->get(), kernels_, threads);
            packed_ = columns_->get();
        }
        const std::size_t groups = workspace_groups(row_ranges(cut_.rows.most(), kernels_.block_rows),
                                                    ceil_div(cut_.columns.most(), kernels_.group_columns));
        laid_out_ = packed_ != nullptr ? 0 : groups * kernels_.group_columns * affine_chunk;
        const std::size_t aside = uses_aside ? ceil_div(cut_.rows.most() * cut_.columns.most(), line) * line : 0;
        workspace_size_ = laid_out_ + aside;
        workspace_.emplace(static_cast<std::size_t>(threads) * workspace_size_);
        const bool aligned = reinterpret_cast<std::uintptr_t>(output.c) % cache_line == 0 &&
                             output.c_row % static_cast<std::ptrdiff_t>(line) == 0;
        past_cache_ = aligned && !uses_aside && !output.activation && output.bias == nullptr && k <= affine_chunk &&
                      static_cast<double>(m) * static_cast<double>(n) * sizeof(T) >= least_past_cache;
        n_ = n;
        a_ = a;
        b_ = b;
        blocks_ = cut_.blocks();
    }
    std::size_t blocks() const { return blocks_; }

    // a and b: where copies of the operands lie, if not those given
    void compute(std::size_t number, int slot, const T *a = nullptr, const T *b = nullptr) const {
        const std::size_t row_block = number % cut_.rows.count, column_block = number / cut_.rows.count;
        const std::size_t row = cut_.rows.begin(row_block), column = cut_.columns.begin(column_block);
        const auto [bias, activation, c, c_row, accumulate] = output_;
        ProductBlock<T> block;
        block.rows = cut_.rows.size(row_block);
        block.columns = cut_.columns.size(column_block);
        block.depth = k_;
        if (a == nullptr) a = a_.data;
        if (b == nullptr) b = b_.data;
        if (turned_)
            b = turned_->of(slot, [&](T *to) { kernels_.transpose(lines_.data, lines_.column, n_, k_, to, b_.row); });
        block.a = a + static_cast<std::ptrdiff_t>(row) * a_.row;
        block.a_row = a_.row;
        block.a_column = a_.column;
        block.packed_a = rows_ ? rows_->get() + row_block * layout_.chunks * layout_.chunk : nullptr;
        block.a_chunk = layout_.chunk;
        block.b = b + static_cast<std::ptrdiff_t>(column) * b_.column;
        block.b_row = b_.row;
        block.b_column = b_.column;
        block.pack = pack_;
        block.packed = packed_ == nullptr ? nullptr : packed_ + column * k_;
        block.workspace = workspace_->get() + static_cast<std::size_t>(slot) * workspace_size_;
        T *target = turn_ ? c + static_cast<std::ptrdiff_t>(column) * c_row + row
                          : c + static_cast<std::ptrdiff_t>(row) * c_row + column;
        const bool uses_aside = accumulate || turn_;
        block.c = uses_aside ? block.workspace + laid_out_ : target;
        block.c_row = uses_aside ? static_cast<std::ptrdiff_t>(block.columns) : c_row;
        block.activation = activation && !turn_ ? kernels_.forward[*activation] : nullptr;
        block.past_cache = past_cache_;
        block.bias = bias == nullptr || turn_ ? nullptr : bias + column;
        kernels_.product(block);
        if (turn_) {
            kernels_.transpose(block.c, block.c_row, block.rows, block.columns, target, c_row);
            for (std::size_t i = 0; i < block.columns && (activation || bias != nullptr); ++i, target += c_row) {
                if (bias != nullptr) add(bias + row, block.rows, target);
                if (activation) kernels_.forward[*activation](target, target, block.rows);
            }
        } else if (accumulate) {
            for (std::size_t i = 0; i < block.rows; ++i, target += c_row)
                add(block.c + static_cast<std::ptrdiff_t>(i) * block.c_row, block.columns, target);
        }
    }

  private:
    const Kernels<T> &kernels_;
    std::size_t n_ = 0, k_, blocks_ = 0, laid_out_ = 0, workspace_size_ = 0;
    Output<T> output_;
    MatrixView<T> a_{}, b_{}, lines_{};
    bool turn_ = false, pack_ = false, past_cache_ = false; // turn: the operands are swapped, each transposed
    Cut cut_;
    PackedRows<T> layout_{};
    const T *packed_ = nullptr;
    std::optional<OwnCopy<T>> turned_;
    std::optional<Scratch<T>> rows_, columns_, workspace_;
};

// f(number, slot) for tasks 0 .. n - 1; ends early when asked to.
template <class F> void run_tasks(std::size_t n, double work, int threads, F f) {
    std::optional<Patience> patience;
    if (work >= serial_work) patience.emplace();
    parallel_tasks(n, threads, [&](std::size_t number, int slot) {
        if (patience && patience->over()) return;
        f(number, slot);
        if (patience) patience->ask(slot);
    });
    if (patience) patience->end();
}

template <class T>
void product(std::size_t m, std::size_t n, std::size_t k, MatrixView<T> a, MatrixView<T> b, const Panels<T> *panels,
             const Output<T> &output) {
    const double work = multiplications(m, n, k);
    const int threads = threads_for(work);
    const bool many_chunks = ceil_div(k, affine_chunk) >= tasks_per_thread * static_cast<std::size_t>(threads);
    const bool small = static_cast<double>(k) * static_cast<double>(n) * sizeof(T) <= read_in_place;
    if (m > 0 && n > 0 && !small && work >= serial_work && many_chunks && m <= most_rows_in_place &&
        (b.column == 1 || n == 1) && panels == nullptr)
        return product_by_chunks(m, n, k, a, b, output);
    const Product<T> product(m, n, k, a, b, panels, output, threads);
    run_tasks(product.blocks(), work, threads, [&](std::size_t number, int slot) { product.compute(number, slot); });
}

} // namespace

int threads_for(double work) { return work < (workers_awake() ? awake_work : serial_work) ? 1 : thread_count(); }
bool over_soon(double work) { return work < short_work; }

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
    product<T>(m, n, k, a, b, panels, {bias, activation, c, c_row, false});
}

template <class T>
void affine_backward(std::size_t m, std::size_t n, std::size_t k, const T *dy, MatrixView<T> x, MatrixView<T> w,
                     const T *saved, std::optional<std::size_t> activation, T *dx, T *dw, T *db, bool accumulate) {
    const Kernels<T> &kernels = active_kernels_of<T>();
    const double work = multiplications(m, n, k);
    const int threads = threads_for(2 * work);
    const bool together = threads > 1 && over_soon(work) && m > most_rows_in_place;
    // A small gradient before the activation each thread forms for itself.
    const bool own = activation && together && m * n * sizeof(T) <= rows_in_cache && !turning_pays(m, k, n, sizeof(T));
    Scratch<T> gradient(activation && !own ? m * n : 0);
    const OwnCopy<T> own_gradient(own ? threads : 0, m * n);
    const T *dz = activation ? gradient.get() : dy;
    if (activation && !own)
        parallel_for(m * n, elementwise_grain, [&](std::size_t begin, std::size_t end) {
            kernels.backward[*activation](dy + begin, saved + begin, gradient.get() + begin, end - begin);
        });
    const MatrixView<T> z{dz, static_cast<std::ptrdiff_t>(n), 1};
    Scratch<T> aside(accumulate ? n : 0); // before anything is added: memory may run out
    T *sums = accumulate ? aside.get() : db;
    const auto column_sums = [&](const T *gradients, std::size_t begin, std::size_t end) {
        kernels.column_sums(gradients + begin, z.row, m, end - begin, sums + begin);
        if (accumulate) add(sums + begin, end - begin, db + begin);
    };
    const Output<T> x_output{nullptr, {}, dx, static_cast<std::ptrdiff_t>(k), false};
    const Output<T> w_output{nullptr, {}, dw, static_cast<std::ptrdiff_t>(n), accumulate};
    if (together) { // the threads wait for each other once
        const Product<T> x_product(dx == nullptr ? 0 : m, k, n, z, w.transposed(), nullptr, x_output, threads);
        const Product<T> w_product(k, n, m, x.transposed(), z, nullptr, w_output, threads);
        const std::size_t of_x = x_product.blocks(), of_both = of_x + w_product.blocks();
        run_tasks(of_both + 1, 2 * work, threads, [&](std::size_t number, int slot) {
            const T *copy = nullptr;
            if (own) copy = own_gradient.of(slot, [&](T *to) { kernels.backward[*activation](dy, saved, to, m * n); });
            if (number < of_x)
                x_product.compute(number, slot, copy);
            else if (number < of_both)
                w_product.compute(number - of_x, slot, nullptr, copy);
            else
                column_sums(copy == nullptr ? dz : copy, 0, n);
        });
        return;
    }
    if (dx != nullptr) product<T>(m, k, n, z, w.transposed(), nullptr, x_output);
    product<T>(k, n, m, x.transposed(), z, nullptr, w_output);
    const std::size_t panel = kernels.panel_columns;
    parallel_for(ceil_div(n, panel),
                 std::max<std::size_t>(1, elementwise_grain / (panel * std::max<std::size_t>(m, 1))),
                 [&](std::size_t begin, std::size_t end) { column_sums(dz, begin * panel, std::min(n, end * panel)); });
}

// Each thread's range of tasks has its part of every layer, the same one as when the layers go one by one.
template <class T> void weight_gradients(std::size_t m, const std::vector<WeightGradient<T>> &layers) {
    const Kernels<T> &kernels = active_kernels_of<T>();
    double work = 0, most_work = 0;
    for (const auto &layer : layers) {
        const double of_layer = multiplications(m, layer.in, layer.out);
        work += of_layer;
        most_work = std::max(most_work, of_layer);
    }
    const int threads = over_soon(most_work) ? threads_for(work) : 1;
    if (threads == 1) {
        for (const auto &[in, out, x, dz, dw, db] : layers)
            affine_backward<T>(m, out, in, dz, x, {}, nullptr, {}, nullptr, dw, db, false);
        return;
    }
    std::deque<Product<T>> products;
    for (const auto &[in, out, x, dz, dw, db] : layers) {
        const auto row = static_cast<std::ptrdiff_t>(out);
        const Output<T> output{nullptr, {}, dw, row, false};
        products.emplace_back(in, out, m, x.transposed(), MatrixView<T>{dz, row, 1}, nullptr, output, threads);
    }
    struct Task {
        std::size_t layer, block; // the one after the last: db
    };
    std::vector<Task> tasks;
    const std::size_t ranges = static_cast<std::size_t>(threads);
    for (std::size_t range = 0; range < ranges; ++range)
        for (std::size_t layer = 0; layer < layers.size(); ++layer) {
            const std::size_t blocks = products[layer].blocks();
            for (std::size_t block = 0; block < blocks; ++block)
                if (block * ranges / blocks == range) tasks.push_back({layer, block});
            if (layer % ranges == range) tasks.push_back({layer, blocks});
        }
    run_tasks(tasks.size(), work, threads, [&](std::size_t number, int slot) {
        const auto [layer, block] = tasks[number];
        const WeightGradient<T> &weight = layers[layer];
        if (block < products[layer].blocks())
            products[layer].compute(block, slot);
        else
            kernels.column_sums(weight.dz, static_cast<std::ptrdiff_t>(weight.out), m, weight.out, weight.db);
    });
}

#define PYNN_INSTANTIATE(T)                                                                                            \
    template class Panels<T>;                                                                                          \
    template void affine_forward<T>(std::size_t, std::size_t, std::size_t, MatrixView<T>, MatrixView<T>, const T *,    \
                                    std::optional<std::size_t>, T *, std::ptrdiff_t, const Panels<T> *);               \
    template void affine_backward<T>(std::size_t, std::size_t, std::size_t, const T *, MatrixView<T>, MatrixView<T>,   \
                                     const T *, std::optional<std::size_t>, T *, T *, T *, bool);                      \
    template void weight_gradients<T>(std::size_t, const std::vector<WeightGradient<T>> &);
PYNN_INSTANTIATE(float)
PYNN_INSTANTIATE(double)

} // namespace pynn
