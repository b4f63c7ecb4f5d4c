// A fully connected network's loss and gradient above the kernels: what its layers compute one by one, in one call.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "affine.hpp"

namespace pynn {

template <class T> struct NetworkLayer {
    std::size_t in, out;
    MatrixView<T> w; // (in, out)
    const T *b;
    T *dw, *db; // contiguous
};

// Mean softmax cross-entropy of m rows of x with labels; y becomes softmax of the last layer. The activation stands
// after every layer but the last. decay times w, whose rows then follow each other, is added to dw.
template <class T>
double network_gradient(std::size_t m, MatrixView<T> x, const std::vector<NetworkLayer<T>> &layers,
                        std::size_t activation, bool saves_input, const std::ptrdiff_t *labels, T *y, double decay);

} // namespace pynn
