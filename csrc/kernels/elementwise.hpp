// Loops of the elementwise kernels over contiguous memory; the last, partial vector goes through a buffer,
// so that in place is safe and nothing beyond n is touched.
#pragma once

#include "simd/vec.hpp"

namespace pynn::PYNN_ISA {
namespace {

template <class A, class T> void forward_loop(const T *x, T *y, std::size_t n) {
    using V = vec<T>;
    std::size_t i = 0;
    for (; i + width<T> <= n; i += width<T>) store(y + i, A::forward(load<V>(x + i)));
    if (i < n) store_first(y + i, A::forward(load_first<V>(x + i, n - i, T(0))), n - i);
}

template <class A, class T> void backward_loop(const T *dy, const T *saved, T *dx, std::size_t n) {
    using V = vec<T>;
    std::size_t i = 0;
    for (; i + width<T> <= n; i += width<T>) store(dx + i, A::backward(load<V>(dy + i), load<V>(saved + i)));
    if (i < n)
        store_first(dx + i, A::backward(load_first<V>(dy + i, n - i, T(0)), load_first<V>(saved + i, n - i, T(0))),
                    n - i);
}

template <class T> void fma_loop(const T *a, const T *b, const T *c, T *y, std::size_t n) {
    using V = vec<T>;
    for (std::size_t i = 0; i < n; i += width<T>) {
        std::size_t lanes = n - i < width<T> ? n - i : width<T>;
        V result = fma(load_first<V>(a + i, lanes, T(0)), load_first<V>(b + i, lanes, T(0)),
                       load_first<V>(c + i, lanes, T(0)));
        store_first(y + i, result, lanes);
    }
}

} // namespace
} // namespace pynn::PYNN_ISA
