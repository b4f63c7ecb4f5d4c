// The loop of the optimizers' rules: parameters, gradients and state are read once, parameters and state written once.
#pragma once

#include "optimizers.hpp"
#include "simd/vec.hpp"

namespace pynn::PYNN_ISA {
namespace {

template <class T> struct UpdateSplats {
    using V = vec<T>;
    V value[5], scale, limit, decay, shrink;
    bool clips_norm, clips_value, decays, shrinks;

    PYNN_INLINE explicit UpdateSplats(const UpdateConstants<T> &c)
        : scale(splat<V>(c.scale)), limit(splat<V>(c.limit)), decay(splat<V>(c.decay)), shrink(splat<V>(c.shrink)),
          clips_norm(c.clips_norm), clips_value(c.clips_value), decays(c.decays), shrinks(c.shrinks) {
        for (std::size_t i = 0; i < 5; ++i) value[i] = splat<V>(c.value[i]);
    }
    PYNN_INLINE void adjust(V &p, V &g) const {
        if (clips_norm) g = scale * g;
        if (clips_value) {
            g = select(g > limit, limit, g); // a NaN stays
            g = select(g < -limit, -limit, g);
        }
        if (decays) g = g + decay * p;
        if (shrinks) p = shrink * p;
    }
};

template <class O, class T, bool Plain>
PYNN_INLINE void update_all(T *p, const T *g, T *const *states, std::size_t n, const UpdateSplats<T> &c) {
    using V = vec<T>;
    for (std::size_t i = 0; i < n; i += width<T>) {
        const std::size_t lanes = n - i;
        V s[most_states];
        if (lanes >= width<T>) {
            V parameter = load<V>(p + i), gradient = load<V>(g + i);
            for (std::size_t j = 0; j < O::states; ++j) s[j] = load<V>(states[j] + i);
            if constexpr (!Plain) c.adjust(parameter, gradient);
            store(p + i, O::update(parameter, gradient, s, c.value));
            for (std::size_t j = 0; j < O::states; ++j) store(states[j] + i, s[j]);
        } else {
            V parameter = load_first<V>(p + i, lanes, T(0)), gradient = load_first<V>(g + i, lanes, T(0));
            for (std::size_t j = 0; j < O::states; ++j) s[j] = load_first<V>(states[j] + i, lanes, T(0));
            if constexpr (!Plain) c.adjust(parameter, gradient);
            store_first(p + i, O::update(parameter, gradient, s, c.value), lanes);
            for (std::size_t j = 0; j < O::states; ++j) store_first(states[j] + i, s[j], lanes);
        }
    }
}

template <class O, class T>
void update_loop(T *p, const T *g, T *const *states, std::size_t n, const UpdateConstants<T> &constants) {
    const UpdateSplats<T> c(constants);
    if (constants.plain)
        update_all<O, T, true>(p, g, states, n, c);
    else
        update_all<O, T, false>(p, g, states, n, c);
}

} // namespace
} // namespace pynn::PYNN_ISA
