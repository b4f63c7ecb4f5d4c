// Loops of the elementwise kernels over contiguous memory; the last, partial vector goes through a buffer,
// so that in place is safe and nothing beyond n is touched.
#pragma once

#include "activations.hpp"
#include "simd/vec.hpp"

namespace pynn::PYNN_ISA {
namespace {

// Two vectors at once, so that the chains of one's operations fill the gaps of the other's.
template <class A, class T> void forward_loop(const T *x, T *y, std::size_t n) {
    using V = vec<T>;
    constexpr std::size_t lanes = width<T>;
    constexpr ParameterIndices<A> parameters;
    std::size_t i = 0;
    for (; i + 2 * lanes <= n; i += 2 * lanes) {
        V a = load<V>(x + i), b = load<V>(x + i + lanes);
        store(y + i, forward_by_default<A>(a, parameters));
        store(y + i + lanes, forward_by_default<A>(b, parameters));
    }
    for (; i < n; i += lanes) {
        std::size_t count = n - i < lanes ? n - i : lanes;
        store_first(y + i, forward_by_default<A>(load_first<V>(x + i, count, T(0)), parameters), count);
    }
}

template <class A, class T> void backward_loop(const T *dy, const T *saved, T *dx, std::size_t n) {
    using V = vec<T>;
    constexpr std::size_t lanes = width<T>;
    constexpr ParameterIndices<A> parameters;
    std::size_t i = 0;
    for (; i + 2 * lanes <= n; i += 2 * lanes) {
        V dy_a = load<V>(dy + i), dy_b = load<V>(dy + i + lanes), a = load<V>(saved + i),
          b = load<V>(saved + i + lanes);
        store(dx + i, backward_by_default<A>(dy_a, a, parameters));
        store(dx + i + lanes, backward_by_default<A>(dy_b, b, parameters));
    }
    for (; i < n; i += lanes) {
        std::size_t count = n - i < lanes ? n - i : lanes;
        V last_dy = load_first<V>(dy + i, count, T(0)), last = load_first<V>(saved + i, count, T(0));
        store_first(dx + i, backward_by_default<A>(last_dy, last, parameters), count);
    }
}

// Parameters of a call: each one number (step 0) or one per element.
template <class T, std::size_t Count> struct GivenParameters {
    using V = vec<T>;
    const T *from[Count];
    bool each[Count];
    V fixed[Count];

    PYNN_INLINE GivenParameters(const T *const *values, const std::size_t *steps) {
        for (std::size_t j = 0; j < Count; ++j) {
            from[j] = values[j];
            each[j] = steps[j] != 0;
            fixed[j] = splat<V>(*values[j]);
        }
    }
    PYNN_INLINE V at(std::size_t j, std::size_t i, std::size_t count) const {
        return !each[j] ? fixed[j] : count < width<T> ? load_first<V>(from[j] + i, count, T(0)) : load<V>(from[j] + i);
    }
};
template <class V> PYNN_INLINE V load_up_to(const element<V> *p, std::size_t count) {
    return count < width<element<V>> ? load_first<V>(p, count, 0) : load<V>(p);
}
template <class V> PYNN_INLINE void store_up_to(element<V> *p, V v, std::size_t count) {
    if (count < width<element<V>>)
        store_first(p, v, count);
    else
        store(p, v);
}

template <class A, class T, std::size_t... I>
PYNN_INLINE void forward_given(const T *x, const T *const *values, const std::size_t *steps, T *y, std::size_t n,
                               std::index_sequence<I...>) {
    if (n == 0) return;
    const GivenParameters<T, sizeof...(I)> given(values, steps);
    for (std::size_t i = 0; i < n; i += width<T>)
        store_up_to(y + i, A::forward(load_up_to<vec<T>>(x + i, n - i), given.at(I, i, n - i)...), n - i);
}
template <class A, class T, std::size_t... I>
PYNN_INLINE void backward_given(const T *dy, const T *saved, const T *const *values, const std::size_t *steps, T *dx,
                                std::size_t n, std::index_sequence<I...>) {
    using V = vec<T>;
    if (n == 0) return;
    const GivenParameters<T, sizeof...(I)> given(values, steps);
    for (std::size_t i = 0; i < n; i += width<T>) {
        V result = A::backward(load_up_to<V>(dy + i, n - i), load_up_to<V>(saved + i, n - i), given.at(I, i, n - i)...);
        store_up_to(dx + i, result, n - i);
    }
}
template <class A, class T>
void forward_given_loop(const T *x, const T *const *values, const std::size_t *steps, T *y, std::size_t n) {
    if constexpr (parameters_of<A>.count > 0) forward_given<A>(x, values, steps, y, n, ParameterIndices<A>());
}
template <class A, class T>
void backward_given_loop(const T *dy, const T *saved, const T *const *values, const std::size_t *steps, T *dx,
                         std::size_t n) {
    if constexpr (parameters_of<A>.count > 0) backward_given<A>(dy, saved, values, steps, dx, n, ParameterIndices<A>());
}

template <class T>
void prelu_backward_loop(const T *dy, const T *x, const T *slope, std::size_t slope_step, T *dx, T *dslope,
                         std::size_t n) {
    using V = vec<T>;
    if (n == 0) return;
    const GivenParameters<T, 1> given(&slope, &slope_step);
    for (std::size_t i = 0; i < n; i += width<T>) {
        V d = load_up_to<V>(dy + i, n - i), v = load_up_to<V>(x + i, n - i), s = given.at(0, i, n - i);
        store_up_to(dx + i, prelu::backward(d, v, s), n - i);
        store_up_to(dslope + i, prelu::slope_backward(d, v, s), n - i);
    }
}

template <class T> void glu_loop(const T *a, const T *b, T *y, std::size_t n) {
    using V = vec<T>;
    for (std::size_t i = 0; i < n; i += width<T>)
        store_up_to(y + i, glu::forward(load_up_to<V>(a + i, n - i), load_up_to<V>(b + i, n - i)), n - i);
}
template <class T> void glu_backward_loop(const T *dy, const T *a, const T *b, T *da, T *db, std::size_t n) {
    using V = vec<T>;
    for (std::size_t i = 0; i < n; i += width<T>) {
        V d = load_up_to<V>(dy + i, n - i), u = load_up_to<V>(a + i, n - i), v = load_up_to<V>(b + i, n - i);
        store_up_to(da + i, glu::a_backward(d, v), n - i);
        store_up_to(db + i, glu::b_backward(d, u, v), n - i);
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
