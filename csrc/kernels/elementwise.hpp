// Loops of the elementwise kernels over contiguous memory.
#pragma once

#include "activations.hpp"
#include "kernels/map.hpp"

namespace pynn::PYNN_ISA {
namespace {

// Objects, since a lambda that captures nothing has a form that does not know the instruction set.
template <class A> struct ForwardOf {
    template <class V> PYNN_INLINE V operator()(V x) const { return forward_by_default<A>(x, ParameterIndices<A>()); }
};
template <class A> struct QuickForwardOf {
    template <class V> PYNN_INLINE V operator()(V x) const { return quick_forward<A>(x); }
};
template <class A> struct BackwardOf {
    template <class V> PYNN_INLINE V operator()(V dy, V saved) const {
        return backward_by_default<A>(dy, saved, ParameterIndices<A>());
    }
};
template <class A, class F = ForwardOf<A>> struct ForwardStages : F {
    template <class V> PYNN_INLINE auto begin(V x) const { return A::begin(x); }
    template <class... Given> PYNN_INLINE auto finish(const Given &...given) const { return A::finish(given...); }
};
template <class A> struct BackwardStages : BackwardOf<A> {
    template <class V> PYNN_INLINE auto begin(V saved) const { return A::begin_backward(saved); }
    template <class... Given> PYNN_INLINE auto finish(const Given &...given) const { return A::finish(given...); }
};
struct GluOf {
    template <class V> PYNN_INLINE V operator()(V a, V b) const { return glu::forward(a, b); }
};
struct FmaOf {
    template <class V> PYNN_INLINE V operator()(V a, V b, V c) const { return fma(a, b, c); }
};

// A function may have its own number, where there are registers for four. Of what reads many tables two vectors at once do: with
// four it is left to chance whether the CPU looks ahead, and of 40 MB tanh_shrink took half as long again, selu a tenth longer. mish
// was faster with four.
template <class A, class T> constexpr std::size_t forward_vectors = many_vectors<T>;
template <class A, class T>
    requires(many_vectors<T> == 4 && A::vectors_at_once > 0)
constexpr std::size_t forward_vectors<A, T> = A::vectors_at_once;

template <class A, class F, class T> PYNN_INLINE void forward_with(const T *x, T *y, std::size_t n) {
    if constexpr (by_stages && by_table<vec<T>> && requires { &A::template begin<vec<T>>; })
        map_by_stages(n, y, ForwardStages<A, F>(), x);
    else
        map<forward_vectors<A, T>>(n, y, F(), x);
}
// Each vector by the way that it needs. Not inlined, so that what is rare takes no registers.
template <class A> [[gnu::noinline, gnu::cold]] void careful_loop(const float *x, float *y, std::size_t n) {
    for (std::size_t i = 0; i < n; i += width<float>)
        store_up_to(y + i, A::forward(load_up_to<vec<float>>(x + i, n - i)), n - i);
}
template <class A> PYNN_INLINE bool any_slow(const float *x, std::size_t n) {
    using V = vec<float>;
    constexpr std::size_t chains = 4, step = chains * width<float>; // minima that do not wait for each other
    V least[chains] = {};
    std::size_t i = 0;
    for (; i + step <= n; i += step)
        for (std::size_t c = 0; c < chains; ++c)
            least[c] = minimum(A::reach(load<V>(x + i + c * width<float>)), least[c]);
    for (; i < n; i += width<float>) least[0] = minimum(A::reach(load_up_to<V>(x + i, n - i)), least[0]);
    return any_less(minimum(minimum(least[0], least[1]), minimum(least[2], least[3])), A::quick_least);
}
template <class A, class T> void forward_loop(const T *x, T *y, std::size_t n) {
    if constexpr (by_table<vec<T>> && requires { A::quick_least; }) {
        for (std::size_t i = 0; i < n; i += elements_at_once) {
            const std::size_t count = n - i < elements_at_once ? n - i : elements_at_once;
            if (any_slow<A>(x + i, count))
                careful_loop<A>(x + i, y + i, count);
            else
                forward_with<A, QuickForwardOf<A>>(x + i, y + i, count);
        }
    } else {
        forward_with<A, ForwardOf<A>>(x, y, n);
    }
}
template <class A, class T> void backward_loop(const T *dy, const T *saved, T *dx, std::size_t n) {
    if constexpr (by_stages && by_table<vec<T>> && requires { &A::template begin_backward<vec<T>>; })
        map_by_stages<true>(n, dx, BackwardStages<A>(), saved, dy);
    else
        map<some_vectors<T>, true>(n, dx, BackwardOf<A>(), dy, saved);
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

// Not inlined, so that what is rare takes no registers.
template <class V> [[gnu::noinline, gnu::cold]] V careful_glu(V a, V b) { return glu::careful_forward(a, b); }
template <std::size_t count> PYNN_INLINE void glu_vectors(const float *a, const float *b, float *y, std::size_t n) {
    using V = vec<float>;
    V in_a[count], in_b[count], out[count];
    for (std::size_t j = 0; j < count; ++j) {
        in_a[j] = load_up_to<V>(a + j * width<float>, n - j * width<float>);
        in_b[j] = load_up_to<V>(b + j * width<float>, n - j * width<float>);
    }
    glu::Special<V> special;
    for (std::size_t j = 0; j < count; ++j) {
        out[j] = glu::quick_forward(in_a[j], in_b[j]);
        special.add(in_b[j], out[j]);
    }
    if (any(special.found()))
        for (std::size_t j = 0; j < count; ++j) out[j] = careful_glu(in_a[j], in_b[j]);
    for (std::size_t j = 0; j < count; ++j) store_up_to(y + j * width<float>, out[j], n - j * width<float>);
}
PYNN_INLINE void glu_of(const float *a, const float *b, float *y, std::size_t n) {
    constexpr std::size_t many = many_vectors<float>, step = many * width<float>;
    std::size_t i = 0;
    for (; i + step <= n; i += step) glu_vectors<many>(a + i, b + i, y + i, step);
    if (i + step / 2 < n) {
        glu_vectors<many / 2>(a + i, b + i, y + i, step / 2);
        i += step / 2;
    }
    for (; i < n; i += width<float>) glu_vectors<1>(a + i, b + i, y + i, n - i);
}
PYNN_INLINE void glu_of(const double *a, const double *b, double *y, std::size_t n) {
    map<many_vectors<double>>(n, y, GluOf(), a, b);
}
template <class T> void glu_loop(const T *a, const T *b, T *y, std::size_t n) { glu_of(a, b, y, n); }
template <std::size_t count, class T>
PYNN_INLINE void glu_backward_vectors(const T *dy, const T *a, const T *b, T *da, T *db, std::size_t n) {
    using V = vec<T>;
    V by_a[count], by_b[count];
    for (std::size_t j = 0; j < count; ++j) {
        const std::size_t i = j * width<T>;
        V d = load_up_to<V>(dy + i, n - i), u = load_up_to<V>(a + i, n - i), v = load_up_to<V>(b + i, n - i);
        by_a[j] = glu::a_backward(d, v);
        by_b[j] = glu::b_backward(d, u, v);
    }
    for (std::size_t j = 0; j < count; ++j) {
        const std::size_t i = j * width<T>;
        store_up_to(da + i, by_a[j], n - i);
        store_up_to(db + i, by_b[j], n - i);
    }
}
template <class T> void glu_backward_loop(const T *dy, const T *a, const T *b, T *da, T *db, std::size_t n) {
    constexpr std::size_t two = 2 * width<T>;
    std::size_t i = 0;
    for (; i + two <= n; i += two) glu_backward_vectors<2>(dy + i, a + i, b + i, da + i, db + i, two);
    for (; i < n; i += width<T>) glu_backward_vectors<1>(dy + i, a + i, b + i, da + i, db + i, n - i);
}

template <class T> void fma_loop(const T *a, const T *b, const T *c, T *y, std::size_t n) {
    map<many_vectors<T>, true>(n, y, FmaOf(), a, b, c);
}

} // namespace
} // namespace pynn::PYNN_ISA
