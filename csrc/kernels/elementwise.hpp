// Loops of the elementwise kernels over contiguous memory; the last, partial vector goes through a buffer,
// so that in place is safe and nothing beyond n is touched.
#pragma once

#include "simd/vec.hpp"

namespace pynn::PYNN_ISA {
namespace {

// Two vectors at once, so that the chains of one's operations fill the gaps of the other's.
template <class A, class T> void forward_loop(const T *x, T *y, std::size_t n) {
    using V = vec<T>;
    constexpr std::size_t lanes = width<T>;
    std::size_t i = 0;
    for (; i + 2 * lanes <= n; i += 2 * lanes) {
        V a = load<V>(x + i), b = load<V>(x + i + lanes);
        store(y + i, A::forward(a));
        store(y + i + lanes, A::forward(b));
    }
    for (; i < n; i += lanes) {
        std::size_t count = n - i < lanes ? n - i : lanes;
        store_first(y + i, A::forward(load_first<V>(x + i, count, T(0))), count);
    }
}

template <class A, class T> void backward_loop(const T *dy, const T *saved, T *dx, std::size_t n) {
    using V = vec<T>;
    constexpr std::size_t lanes = width<T>;
    std::size_t i = 0;
    for (; i + 2 * lanes <= n; i += 2 * lanes) {
        V dy_a = load<V>(dy + i), dy_b = load<V>(dy + i + lanes), a = load<V>(saved + i),
          b = load<V>(saved + i + lanes);
        store(dx + i, A::backward(dy_a, a));
        store(dx + i + lanes, A::backward(dy_b, b));
    }
    for (; i < n; i += lanes) {
        std::size_t count = n - i < lanes ? n - i : lanes;
        store_first(dx + i, A::backward(load_first<V>(dy + i, count, T(0)), load_first<V>(saved + i, count, T(0))),
                    count);
    }
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
