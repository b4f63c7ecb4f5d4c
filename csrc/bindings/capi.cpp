// The C interface of pynn.h: the table in a capsule. Functions check, bring matrices into the form that the core takes,
// and call it; they know no Python and may run on any thread.
#include "bindings/bindings.hpp"
#include "bindings/distribution_rows.hpp"
#include "bindings/strided.hpp"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <limits>
#include <optional>
#include <utility>

#include "affine.hpp"
#include "pynn.h"
#include "simd/environment.hpp"

namespace pynn {
namespace {

template <class T> struct Types;
template <> struct Types<float> {
    using Input = pynn_input_float32;
    using Output = pynn_output_float32;
};
template <> struct Types<double> {
    using Input = pynn_input_float64;
    using Output = pynn_output_float64;
};
template <class T> using Input = typename Types<T>::Input;
template <class T> using Output = typename Types<T>::Output;

template <class F> int guarded(int threads, bool good, F f) noexcept {
    if (!good || threads < 0 || threads > max_threads) return PYNN_BAD_ARGUMENT;
    const CallSettings settings(threads);
    try {
        return f();
    } catch (const std::bad_alloc &) { return PYNN_OUT_OF_MEMORY; }
}

// ---- Elementwise ----

// Steps are the caller's in elements, strided.hpp's in bytes. A wild one, where one element or none makes it unused,
// must not overflow.
template <class T> std::ptrdiff_t in_bytes(std::ptrdiff_t step) {
    return static_cast<std::ptrdiff_t>(static_cast<std::size_t>(step) * sizeof(T));
}
template <class T> char *bytes_of(const T *data) { return reinterpret_cast<char *>(const_cast<T *>(data)); }

template <class T> void gather(const T *from, std::ptrdiff_t step, std::size_t n, T *to) {
    pynn::gather<T>(bytes_of(from), in_bytes<T>(step), static_cast<std::ptrdiff_t>(n), to);
}
template <class T> void scatter(const T *from, std::size_t n, T *to, std::ptrdiff_t step) {
    pynn::scatter<T>(from, static_cast<std::ptrdiff_t>(n), bytes_of(to), in_bytes<T>(step));
}

template <std::size_t Index, class T>
int forward(std::size_t n, const T *x, std::ptrdiff_t x_step, T *y, std::ptrdiff_t y_step, int threads) noexcept {
    const bool good = n == 0 || (x != nullptr && y != nullptr && (y_step != 0 || n == 1));
    return guarded(threads, good, [&] {
        const auto kernel = active_kernels_of<T>().forward[Index];
        char *const operands[] = {bytes_of(x), bytes_of(y)};
        const std::ptrdiff_t steps[] = {in_bytes<T>(x_step), in_bytes<T>(y_step)};
        elementwise<Elementwise<1>, T, T>(operands, static_cast<std::ptrdiff_t>(n), steps,
                                          [&](const T *const *in, const std::size_t *, T *const *out,
                                              std::size_t count) { kernel(in[0], out[0], count); });
        return PYNN_OK;
    });
}

template <std::size_t Index, class T>
int backward(std::size_t n, const T *dy, std::ptrdiff_t dy_step, const T *saved, std::ptrdiff_t saved_step, T *dx,
             std::ptrdiff_t dx_step, int threads) noexcept {
    const bool good = n == 0 || (dy != nullptr && saved != nullptr && dx != nullptr && (dx_step != 0 || n == 1));
    return guarded(threads, good, [&] {
        const auto kernel = active_kernels_of<T>().backward[Index];
        char *const operands[] = {bytes_of(dy), bytes_of(saved), bytes_of(dx)};
        const std::ptrdiff_t steps[] = {in_bytes<T>(dy_step), in_bytes<T>(saved_step), in_bytes<T>(dx_step)};
        elementwise<Elementwise<2>, T, T>(operands, static_cast<std::ptrdiff_t>(n), steps,
                                          [&](const T *const *in, const std::size_t *, T *const *out,
                                              std::size_t count) { kernel(in[0], in[1], out[0], count); });
        return PYNN_OK;
    });
}

template <std::size_t... Index> constexpr auto make_activations(std::index_sequence<Index...>) {
    return std::array<pynn_activation, sizeof...(Index)>{
        pynn_activation{activation_names[Index], activation_saves[Index], forward<Index, float>, forward<Index, double>,
                        backward<Index, float>, backward<Index, double>}...};
}
constexpr auto activations = make_activations(std::make_index_sequence<activation_count>());

// The index of a row of the table above; false for a pointer that is none.
bool index_of(const pynn_activation *activation, std::optional<std::size_t> &index) {
    if (activation == nullptr) return true;
    for (std::size_t i = 0; i < activations.size(); ++i)
        if (activation == &activations[i]) index = i;
    return index.has_value();
}

// ---- Fills ----

template <std::size_t Index, class T>
int fill(std::size_t n, T *out, std::ptrdiff_t step, std::uint64_t key, std::uint64_t start, const double *parameters,
         std::size_t count, int threads) noexcept {
    constexpr const DistributionRow &row = distribution_rows[Index];
    bool good = parameters != nullptr && count == row.count;
    good = good && (n == 0 || (out != nullptr && (step != 0 || n == 1) &&
                               n - 1 <= std::numeric_limits<std::uint64_t>::max() - start));
    return guarded(threads, good, [&] {
        T given[most_parameters];
        Constants<T> constants;
        {
            StandardEnvironment environment;
            std::copy(parameters, parameters + count, given);
            if (!row.rules<T>().allowed(given)) return int(PYNN_BAD_ARGUMENT);
            constants = row.rules<T>().make(given, count);
        }
        const auto kernel = active_kernels_of<T>().fill[Index];
        parallel_for(n, elementwise_grain, [&](std::size_t begin, std::size_t end) {
            if (step == 1) return kernel(out + begin, key, start + begin, end - begin, constants);
            T buffer[buffer_length];
            for (std::size_t i = begin; i < end; i += buffer_length) {
                const std::size_t length = std::min<std::size_t>(buffer_length, end - i);
                kernel(buffer, key, start + i, length, constants);
                scatter(buffer, length, out + static_cast<std::ptrdiff_t>(i) * step, step);
            }
        });
        return int(PYNN_OK);
    });
}

template <std::size_t... Index> constexpr auto make_distributions(std::index_sequence<Index...>) {
    return std::array<pynn_distribution, sizeof...(Index)>{
        pynn_distribution{distribution_rows[Index].name, distribution_rows[Index].parameters, fill<Index, float>,
                          fill<Index, double>}...};
}
constexpr auto distributions = make_distributions(std::make_index_sequence<distribution_count>());

// ---- Matrices ----

template <class M> bool given(std::size_t rows, std::size_t columns, const M &matrix) {
    return rows == 0 || columns == 0 || matrix.data != nullptr;
}

// What the core reads: the caller's memory where its strides will do, else a copy.
template <class T> class Readable {
  public:
    // rows_only: rows must lie one after the other
    Readable(std::size_t rows, std::size_t columns, Input<T> from, bool rows_only = false)
        : copy_(needs_copy(rows, columns, from, rows_only) ? count_of(rows, columns) : 0) {
        if (copy_.get() == nullptr) {
            const bool by_rows = columns <= 1 || from.column == 1;
            view_ = by_rows ? MatrixView<T>{from.data, from.row, 1} : MatrixView<T>{from.data, 1, from.column};
            return;
        }
        for (std::size_t i = 0; i < rows; ++i)
            gather(from.data + static_cast<std::ptrdiff_t>(i) * from.row, from.column, columns,
                   copy_.get() + i * columns);
        view_ = {copy_.get(), static_cast<std::ptrdiff_t>(columns), 1};
    }
    MatrixView<T> view() const { return view_; }
    const T *data() const { return view_.data; }

    static std::size_t count_of(std::size_t rows, std::size_t columns) { return detail::bytes_of(rows, columns); }

  private:
    static bool needs_copy(std::size_t rows, std::size_t columns, const Input<T> &from, bool rows_only) {
        if (rows == 0 || columns == 0) return false;
        if (rows_only)
            return !((columns == 1 || from.column == 1) &&
                     (rows == 1 || from.row == static_cast<std::ptrdiff_t>(columns)));
        return !(columns == 1 || from.column == 1 || rows == 1 || from.row == 1);
    }
    Scratch<T> copy_;
    MatrixView<T> view_;
};

// What the core writes, rows one after the other: the caller's memory, or memory aside that finish() copies.
template <class T> class Writable {
  public:
    Writable(std::size_t rows, std::size_t columns, Output<T> to, bool adds = false)
        : rows_(rows), columns_(columns), to_(to), aside_(direct() ? 0 : Readable<T>::count_of(rows, columns)) {
        if (!adds || aside_.get() == nullptr) return;
        for (std::size_t i = 0; i < rows; ++i) gather(row(i), to.column, columns, aside_.get() + i * columns);
    }
    T *data() const { return aside_.get() != nullptr ? aside_.get() : to_.data; }
    void finish() const {
        if (aside_.get() == nullptr) return;
        for (std::size_t i = 0; i < rows_; ++i) scatter(aside_.get() + i * columns_, columns_, row(i), to_.column);
    }

  private:
    T *row(std::size_t i) const { return to_.data + static_cast<std::ptrdiff_t>(i) * to_.row; }
    bool direct() const {
        return to_.data == nullptr || rows_ == 0 || columns_ == 0 ||
               ((columns_ == 1 || to_.column == 1) && (rows_ == 1 || to_.row == static_cast<std::ptrdiff_t>(columns_)));
    }
    std::size_t rows_, columns_;
    Output<T> to_;
    Scratch<T> aside_;
};

template <class T>
int affine(std::size_t m, std::size_t n, std::size_t k, Input<T> x, Input<T> w, const T *b,
           const pynn_activation *activation, Output<T> y, int threads) noexcept {
    std::optional<std::size_t> index;
    const bool good = index_of(activation, index) && given(m, k, x) && given(k, n, w) && given(m, n, y);
    return guarded(threads, good, [&] {
        const Readable<T> x_read(m, k, x), w_read(k, n, w);
        const Writable<T> y_written(m, n, y);
        affine_forward<T>(m, n, k, x_read.view(), w_read.view(), b, index, y_written.data(),
                          static_cast<std::ptrdiff_t>(n));
        y_written.finish();
        return PYNN_OK;
    });
}

template <class T>
int affine_gradients(std::size_t m, std::size_t n, std::size_t k, Input<T> dy, Input<T> x, Input<T> w, Input<T> y,
                     const pynn_activation *activation, Output<T> dx, Output<T> dw, T *db, int accumulate,
                     int threads) noexcept {
    std::optional<std::size_t> index;
    bool good = index_of(activation, index) && given(m, n, dy) && given(m, k, x) && given(k, n, w) && given(k, n, dw) &&
                (n == 0 || db != nullptr);
    if (index) good = good && given(m, n, y) && activation_saves[*index] == 'y';
    return guarded(threads, good, [&] {
        const Readable<T> dy_read(m, n, dy, true), x_read(m, k, x), w_read(k, n, w);
        const Readable<T> y_read(index ? m : 0, n, index ? y : Input<T>{}, true);
        const Writable<T> dx_written(m, k, dx), dw_written(k, n, dw, accumulate != 0);
        affine_backward<T>(m, n, k, dy_read.data(), x_read.view(), w_read.view(), y_read.data(), index,
                           dx_written.data(), dw_written.data(), db, accumulate != 0);
        dx_written.finish();
        dw_written.finish();
        return PYNN_OK;
    });
}

// A kernel for each row, of a family whose operands are all rows.
template <class Family, class T, class Kernel>
int rows_of(std::size_t rows, std::size_t columns, std::array<Input<T>, Family::inputs> x, Output<T> y, int threads,
            Kernel kernel) noexcept {
    bool good = given(rows, columns, y);
    for (const Input<T> &input : x) good = good && given(rows, columns, input);
    return guarded(threads, good, [&] {
        char *operands[Family::operands];
        std::ptrdiff_t steps[Family::operands], steps_in_row[Family::operands];
        const auto add = [&](std::size_t j, const auto &matrix) {
            operands[j] = bytes_of(matrix.data);
            steps[j] = in_bytes<T>(matrix.row);
            steps_in_row[j] = in_bytes<T>(matrix.column);
        };
        for (std::size_t j = 0; j < x.size(); ++j) add(j, x[j]);
        add(x.size(), y);
        rowwise<Family, T, T>(operands, static_cast<std::ptrdiff_t>(rows), static_cast<std::ptrdiff_t>(columns), steps,
                              steps_in_row, call_of_rows<Family, T>(kernel));
        return PYNN_OK;
    });
}

template <class T> int softmax(std::size_t rows, std::size_t columns, Input<T> x, Output<T> y, int threads) noexcept {
    return rows_of<Rowwise<true, true>, T>(rows, columns, {x}, y, threads, active_kernels_of<T>().softmax);
}

template <class T>
int softmax_gradient(std::size_t rows, std::size_t columns, Input<T> dy, Input<T> y, Output<T> dx,
                     int threads) noexcept {
    return rows_of<Rowwise<true, true, true>, T>(rows, columns, {dy, y}, dx, threads,
                                                 active_kernels_of<T>().softmax_backward);
}

// ---- The table ----

template <class Row, std::size_t N> const Row *find(const std::array<Row, N> &rows, const char *name) {
    if (name == nullptr) return nullptr;
    for (const Row &row : rows)
        if (std::strcmp(row.name, name) == 0) return &row;
    return nullptr;
}

int set_threads(int n) noexcept {
    if (n < 1 || n > max_threads) return PYNN_BAD_ARGUMENT;
    set_thread_count(n);
    return PYNN_OK;
}

constexpr pynn_api api = {
    PYNN_API_VERSION,
    sizeof(pynn_api),
    [](const char *name) { return find(activations, name); },
    [](std::size_t i) { return i < activations.size() ? &activations[i] : nullptr; },
    [](const char *name) { return find(distributions, name); },
    [](std::size_t i) { return i < distributions.size() ? &distributions[i] : nullptr; },
    [] { return thread_count(); },
    set_threads,
    affine<float>,
    affine<double>,
    affine_gradients<float>,
    affine_gradients<double>,
    softmax<float>,
    softmax<double>,
    softmax_gradient<float>,
    softmax_gradient<double>,
};

} // namespace

void bind_capi(py::module_ &module) {
    module.attr("_C_API") = owned(PyCapsule_New(const_cast<pynn_api *>(&api), PYNN_API_CAPSULE, nullptr));
}

} // namespace pynn

// For threadpoolctl, which looks for them by name in the libraries that are loaded.
extern "C" __attribute__((visibility("default"))) int pynn_get_num_threads() { return pynn::thread_count(); }
extern "C" __attribute__((visibility("default"))) void pynn_set_num_threads(int n) {
    pynn::set_thread_count(std::clamp(n, 1, pynn::max_threads));
}
