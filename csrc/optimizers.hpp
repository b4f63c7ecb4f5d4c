// THE optimizer table: one row (name, arrays of state, hyperparameters) and one struct (the rule) each. The kernels, the
// binding's names and checks, and what pynn.optimizers calls follow from the row.
#ifndef PYNN_OPTIMIZERS_ROWS
#define PYNN_OPTIMIZERS_ROWS

#include <cstddef>
#include <cstdint>

// ROW(name, arrays of state, what makes constants of the hyperparameters, hyperparameters...)
#define PYNN_OPTIMIZERS(ROW)                                                                                           \
    ROW(sgd, 0, as_given, lr)                                                                                          \
    ROW(momentum, 1, as_given, lr, momentum)                                                                           \
    ROW(nesterov, 1, as_given, lr, momentum)                                                                           \
    ROW(adagrad, 1, as_given, lr, eps)                                                                                 \
    ROW(rmsprop, 1, with_complement, lr, decay_rate, eps)                                                              \
    ROW(adam, 2, bias_corrected, lr, beta1, beta2, eps)

namespace pynn {

#define PYNN_COUNT(...) +1
inline constexpr std::size_t optimizer_count = 0 PYNN_OPTIMIZERS(PYNN_COUNT);
#undef PYNN_COUNT
inline constexpr std::size_t most_states = 2, most_hyperparameters = 4;

// What a kernel needs to know of the hyperparameters, computed once per step in float64 and rounded.
template <class T> struct UpdateConstants {
    T value[5];
    // What happens to the gradient first, in this order, and to the parameter: plain if nothing.
    bool plain, clips_norm, clips_value, decays, shrinks;
    T scale;  // of the gradient, so that the norm of all is within its bound
    T limit;  // of the gradient's magnitude
    T decay;  // of L2: times the parameter, added to the gradient
    T shrink; // of decoupled decay: times the parameter
};

// step counts from 1.
void as_given(const double *hyperparameters, std::uint64_t step, double *constants);
void with_complement(const double *hyperparameters, std::uint64_t step, double *constants);
void bias_corrected(const double *hyperparameters, std::uint64_t step, double *constants);

} // namespace pynn

#endif

// The structs, compiled once per instruction set: update one vector of parameters and its state s.
#if defined(PYNN_ISA) && !defined(PYNN_OPTIMIZERS_STRUCTS)
#define PYNN_OPTIMIZERS_STRUCTS

#include "simd/vec.hpp"

namespace pynn::PYNN_ISA {
namespace {

struct sgd {
    static constexpr std::size_t states = 0;
    template <class V> static PYNN_INLINE V update(V p, V g, V *, const V *c) { return p - c[0] * g; }
};

struct momentum {
    static constexpr std::size_t states = 1;
    template <class V> static PYNN_INLINE V update(V p, V g, V *s, const V *c) {
        s[0] = c[1] * s[0] - c[0] * g;
        return p + s[0];
    }
};

struct nesterov {
    static constexpr std::size_t states = 1;
    template <class V> static PYNN_INLINE V update(V p, V g, V *s, const V *c) {
        V step = c[0] * g;
        s[0] = c[1] * s[0] - step;
        return p + (c[1] * s[0] - step);
    }
};

struct adagrad {
    static constexpr std::size_t states = 1;
    template <class V> static PYNN_INLINE V update(V p, V g, V *s, const V *c) {
        s[0] = s[0] + g * g;
        return p - c[0] * g / (sqrt(s[0]) + c[1]);
    }
};

struct rmsprop {
    static constexpr std::size_t states = 1;
    template <class V> static PYNN_INLINE V update(V p, V g, V *s, const V *c) {
        s[0] = c[1] * s[0] + c[3] * (g * g);
        return p - c[0] * g / (sqrt(s[0]) + c[2]);
    }
};

struct adam {
    static constexpr std::size_t states = 2;
    template <class V> static PYNN_INLINE V update(V p, V g, V *s, const V *c) {
        s[0] = s[0] + c[1] * (g - s[0]);
        s[1] = s[1] + c[2] * (g * g - s[1]);
        return p - c[0] * s[0] / (sqrt(s[1]) + c[3]);
    }
};

} // namespace
} // namespace pynn::PYNN_ISA

#endif
