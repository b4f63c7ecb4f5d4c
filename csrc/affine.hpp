// The affine map and its backward above the kernels: who packs what, and how the work is cut for the threads.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "kernels.hpp"
#include "memory.hpp"

namespace pynn {

// Read in place: strides in elements, at least one of them 1 (or the extent along the other one below 2).
template <class T> struct MatrixView {
    const T *data;
    std::ptrdiff_t row, column;

    MatrixView transposed() const { return {data, column, row}; }
};

// A matrix b (k, n) laid out once in the panels of the instruction set in use; the others read b itself.
template <class T> class Panels {
  public:
    Panels(std::size_t n, std::size_t k, MatrixView<T> b);
    const T *of(const Kernels<T> &kernels) const { return &kernels == kernels_ ? memory_.get() : nullptr; }

  private:
    const Kernels<T> *kernels_;
    Kept<T> memory_;
};

// c = activation(a @ b + bias), c row-major; a is (m, k), b is (k, n), bias (n,) or nullptr, panels those of b or
// nullptr.
template <class T>
void affine_forward(std::size_t m, std::size_t n, std::size_t k, MatrixView<T> a, MatrixView<T> b, const T *bias,
                    std::optional<std::size_t> activation, T *c, std::ptrdiff_t c_row,
                    const Panels<T> *panels = nullptr);

// dx = dz @ w.T (unless nullptr), dw = x.T @ dz, db = column sums of dz, all contiguous, where dz is the gradient before
// the activation. x is (m, k), w is (k, n), dy and saved are (m, n) and contiguous. To accumulate is to add the finished
// sums of dw and db to what stands there.
template <class T>
void affine_backward(std::size_t m, std::size_t n, std::size_t k, const T *dy, MatrixView<T> x, MatrixView<T> w,
                     const T *saved, std::optional<std::size_t> activation, T *dx, T *dw, T *db, bool accumulate);

inline double multiplications(std::size_t m, std::size_t n, std::size_t k) {
    return static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
}
// How many threads so many multiplications are worth; and whether they are over before one is likely to be interrupted.
int threads_for(double work);
bool over_soon(double work);

// dw = x.T @ dz and db = column sums of dz, as affine_backward has them, for several layers; short ones at once, so that the
// threads wait for each other once. x is (m, in), dz is (m, out) and contiguous.
template <class T> struct WeightGradient {
    std::size_t in, out;
    MatrixView<T> x;
    const T *dz;
    T *dw, *db;
};
template <class T> void weight_gradients(std::size_t m, const std::vector<WeightGradient<T>> &layers);

} // namespace pynn
