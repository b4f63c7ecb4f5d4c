// THE activation table: one row (name, what backward needs, parameters, formula) and one struct (forward, backward) each.
// ufuncs, epilogues, layers, stubs, tests and benchmarks follow from the row.
#ifndef PYNN_ACTIVATIONS_ROWS
#define PYNN_ACTIVATIONS_ROWS

#include <cstddef>

namespace pynn {

struct Parameter {
    const char *name;
    double value; // the default
    const char *meaning;
};
struct Parameters {
    static constexpr std::size_t most = 2;
    Parameter list[most];
    std::size_t count;
};
constexpr Parameters parameters() { return {}; }
constexpr Parameters parameters(Parameter a) { return {{a}, 1}; }
constexpr Parameters parameters(Parameter a, Parameter b) { return {{a, b}, 2}; }

} // namespace pynn

// ROW(name, saves, parameters, formula, limits, source); saves is the second operand of name_backward: the input x or the
// output y. Parameters are operands too, which broadcast; structs take them after the others.
#define PYNN_ACTIVATIONS(ROW)                                                                                          \
    ROW(relu, y, parameters(), "max(x, 0)", "relu(-inf) = relu(-0.0) = 0.0, relu(inf) = inf; the slope at 0 is 0.",    \
        "Nair and Hinton (2010), Rectified linear units improve restricted Boltzmann machines.")                       \
    ROW(relu6, y, parameters(), "min(max(x, 0), 6)", "relu6(-0.0) = 0.0; the slope at 0 and at 6 is 0.",               \
        "Krizhevsky (2010), Convolutional deep belief networks on CIFAR-10.")                                          \
    ROW(leaky_relu, y, parameters({"slope", 0.01, "The slope where x <= 0."}), "x if x > 0 else slope * x",            \
        "leaky_relu(-0.0) = -0.0, infinities stay infinite; the slope at 0 is the left one. PyTorch and JAX use the "  \
        "same 0.01, Keras 0.2 (0.3 before Keras 3); they name it negative_slope. backward gives NaN for a slope "      \
        "below 0, which the output does not tell: prelu saves x.",                                                     \
        "Maas, Hannun and Ng (2013), Rectifier nonlinearities improve neural network acoustic models.")                \
    ROW(elu, y, parameters({"alpha", 1, "Minus the limit at -inf, 0 or more."}),                                       \
        "x if x > 0 else alpha * (exp(x) - 1)",                                                                        \
        "elu(-0.0) = -0.0, elu(-inf) = -alpha, elu(inf) = inf; the slope at 0 is alpha. alpha is 1 in PyTorch, JAX "   \
        "and Keras too. backward gives NaN for an alpha below 0, which the output does not tell; both above 2^90 "     \
        "(float64: 2^900).",                                                                                           \
        "Clevert, Unterthiner and Hochreiter (2016), Fast and accurate deep network learning by exponential linear "   \
        "units.")                                                                                                      \
    ROW(celu, y, parameters({"alpha", 1, "Minus the limit at -inf, above 0."}),                                        \
        "x if x > 0 else alpha * (exp(x / alpha) - 1)",                                                                \
        "celu(-0.0) = -0.0, celu(-inf) = -alpha, celu(inf) = inf; the slope at 0 is 1. alpha is 1 in PyTorch, JAX "    \
        "and "                                                                                                         \
        "Keras too, and there it is elu. An alpha outside 2^-120 to 2^90 (float64: 2^-1000 to 2^900) gives NaN.",      \
        "Barron (2017), Continuously differentiable exponential linear units.")                                        \
    ROW(selu, y, parameters(), "1.0507009873554805 * (x if x > 0 else 1.6732632423543772 * (exp(x) - 1))",             \
        "selu(-0.0) = -0.0, selu(-inf) = -1.758..., selu(inf) = inf; the slope at 0 is the left one, 1.758. The "      \
        "constants are exactly these decimals' float64, for float32 too.",                                             \
        "Klambauer, Unterthiner, Mayr and Hochreiter (2017), Self-normalizing neural networks.")                       \
    ROW(gelu, x, parameters(), "x * Phi(x), Phi the normal distribution function",                                     \
        "gelu(-0.0) = gelu(-inf) = -0.0, gelu(inf) = inf. The exact function (erf) is the default of PyTorch and "     \
        "Keras; jax.nn.gelu's default is gelu_tanh.",                                                                  \
        "Hendrycks and Gimpel (2016), Gaussian error linear units.")                                                   \
    ROW(gelu_tanh, x, parameters(), "x / 2 * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x**3)))",                  \
        "gelu_tanh(-0.0) = gelu_tanh(-inf) = -0.0, gelu_tanh(inf) = inf. PyTorch's gelu(approximate=\"tanh\"), "       \
        "Keras' gelu(approximate=True), jax.nn.gelu's default.",                                                       \
        "Hendrycks and Gimpel (2016), Gaussian error linear units.")                                                   \
    ROW(quick_gelu, x, parameters(), "x / (1 + exp(-1.702 * x))",                                                      \
        "quick_gelu(-0.0) = quick_gelu(-inf) = -0.0, quick_gelu(inf) = inf.",                                          \
        "Hendrycks and Gimpel (2016), Gaussian error linear units, section 2.")                                        \
    ROW(silu, x, parameters(), "x / (1 + exp(-x))",                                                                    \
        "silu(-0.0) = silu(-inf) = -0.0, silu(inf) = inf. Also called swish.",                                         \
        "Elfwing, Uchibe and Doya (2018), Sigmoid-weighted linear units for neural network function approximation in " \
        "reinforcement learning.")                                                                                     \
    ROW(mish, x, parameters(), "x * tanh(log(1 + exp(x)))",                                                            \
        "mish(-0.0) = mish(-inf) = -0.0, mish(inf) = inf. PyTorch uses its softplus, which is x above 20; here every " \
        "result is that of the formula.",                                                                              \
        "Misra (2020), Mish: a self regularized non-monotonic activation function.")                                   \
    ROW(sigmoid, y, parameters(), "1 / (1 + exp(-x))",                                                                 \
        "sigmoid(-inf) = 0.0, sigmoid(inf) = 1.0; small results are subnormal.",                                       \
        "Deep Learning from Scratch, section 3.2.")                                                                    \
    ROW(log_sigmoid, y, parameters(), "-log(1 + exp(-x))",                                                             \
        "log_sigmoid(-inf) = -inf, log_sigmoid(inf) = -0.0. backward takes a y above 0, which no x gives, as 0.",      \
        "Dugas et al. (2001), of softplus; as in PyTorch, JAX and Keras.")                                             \
    ROW(tanh, y, parameters(), "(exp(x) - exp(-x)) / (exp(x) + exp(-x))", "tanh(-0.0) = -0.0, tanh(+-inf) = +-1.0.",   \
        "LeCun et al. (1998), Efficient BackProp, section 4.4.")                                                       \
    ROW(tanh_shrink, x, parameters(), "x - tanh(x)",                                                                   \
        "tanh_shrink(-0.0) = -0.0, infinities stay infinite; small results are right to the last digits, where "       \
        "PyTorch and Keras subtract.",                                                                                 \
        "As in PyTorch and Keras.")                                                                                    \
    ROW(softplus, y, parameters({"beta", 1, "How sharp the bend is, above 0."}), "log(1 + exp(beta * x)) / beta",      \
        "softplus(-inf) = 0.0, softplus(inf) = inf. beta is PyTorch's, JAX and Keras have 1. PyTorch returns x "       \
        "itself "                                                                                                      \
        "where beta * x is above 20; here every result is that of the formula. backward takes a y below 0, which no "  \
        "x gives, as 0. A beta outside 2^-50 to 2^90 (float64: 2^900) gives NaN.",                                     \
        "Dugas et al. (2001), Incorporating second-order functional knowledge for better option pricing.")             \
    ROW(squareplus, y, parameters({"b", 4, "How wide the bend is, 0 or more."}), "(x + sqrt(x**2 + b)) / 2",           \
        "squareplus(-inf) = 0.0, squareplus(inf) = inf. b is 4 in JAX and Keras too; with 0 it is relu. Another b "    \
        "outside 2^-100 to 2^90 (float64: 2^-1000 to 2^900) gives NaN.",                                               \
        "Barron (2021), Squareplus: a softplus-like algebraic rectifier.")                                             \
    ROW(softsign, y, parameters(), "x / (1 + abs(x))",                                                                 \
        "softsign(-0.0) = -0.0, softsign(+-inf) = +-1.0. backward sees the rounded output: where it is 1 the slope "   \
        "is 0.",                                                                                                       \
        "Turian, Bergstra and Bengio (2009), Quadratic features and deep architectures for chunking.")                 \
    ROW(hard_sigmoid, y, parameters(), "min(max((x + 3) / 6, 0), 1)",                                                  \
        "hard_sigmoid(-inf) = 0.0, hard_sigmoid(inf) = 1.0; the slope is 0 where the output is 0 or 1. The line of "   \
        "PyTorch, JAX and Keras 3; before Keras 3 it was x / 5 + 1 / 2.",                                              \
        "Howard et al. (2019), Searching for MobileNetV3.")                                                            \
    ROW(hard_swish, x, parameters(), "x * min(max((x + 3) / 6, 0), 1)",                                                \
        "hard_swish(-0.0) = -0.0, hard_swish(x) = 0.0 from -3 down, x from 3 up; the slope at -3 is 0, at 3 it is 1. " \
        "Also called hard_silu.",                                                                                      \
        "Howard et al. (2019), Searching for MobileNetV3.")                                                            \
    ROW(hard_tanh, y,                                                                                                  \
        parameters({"min_val", -1, "The least result."},                                                               \
                   {"max_val", 1, "The greatest result, no less than min_val."}),                                      \
        "min(max(x, min_val), max_val)",                                                                               \
        "hard_tanh(-0.0) = -0.0, hard_tanh(-inf) = min_val, hard_tanh(inf) = max_val; the slope at both is 0. The "    \
        "bounds "                                                                                                      \
        "are PyTorch's; JAX and Keras have -1 and 1. A min_val above max_val gives NaN.",                              \
        "Collobert (2004), Large scale machine learning.")                                                             \
    ROW(hard_shrink, y, parameters({"lambd", 0.5, "Half the width of what becomes 0, 0 or more."}),                    \
        "x if abs(x) > lambd else 0",                                                                                  \
        "hard_shrink(-0.0) = 0.0, infinities stay infinite. lambd is 0.5 in PyTorch and Keras (threshold) too. A "     \
        "lambd below "                                                                                                 \
        "0 gives NaN.",                                                                                                \
        "Donoho and Johnstone (1994), Ideal spatial adaptation by wavelet shrinkage.")                                 \
    ROW(soft_shrink, y, parameters({"lambd", 0.5, "What is taken off, 0 or more."}),                                   \
        "x - lambd * sign(x) if abs(x) > lambd else 0",                                                                \
        "soft_shrink(-0.0) = 0.0, infinities stay infinite. lambd is 0.5 in PyTorch and Keras (threshold) too. A "     \
        "lambd below "                                                                                                 \
        "0 gives NaN.",                                                                                                \
        "Donoho and Johnstone (1994), Ideal spatial adaptation by wavelet shrinkage.")                                 \
    ROW(threshold, x,                                                                                                  \
        parameters({"threshold", 0, "What x must exceed."}, {"value", 0, "The result where it does not."}),            \
        "x if x > threshold else value",                                                                               \
        "With the defaults, which PyTorch and Keras do not have, threshold(-0.0) = 0.0, infinities as in relu. The "   \
        "slope is 0 up to the threshold. A value of NaN is the result only where it is taken.",                        \
        "As in PyTorch and Keras.")                                                                                    \
    ROW(exponential, y, parameters(), "exp(x)",                                                                        \
        "exponential(-inf) = 0.0, exponential(inf) = inf; small results are subnormal. Beyond the range the result "   \
        "is infinite, without a warning.",                                                                             \
        "As in Keras.")                                                                                                \
    ROW(linear, y, parameters(), "x", "The identity: every x, -0.0 too, is its own result.",                           \
        "As in Keras; torch.nn.Identity, jax.nn.identity.")

namespace pynn {

#define PYNN_COUNT(...) +1
inline constexpr std::size_t activation_count = 0 PYNN_ACTIVATIONS(PYNN_COUNT);
#undef PYNN_COUNT
#define PYNN_NUMBER(name, ...) name,
enum class ActivationNumber : std::size_t { PYNN_ACTIVATIONS(PYNN_NUMBER) };
#undef PYNN_NUMBER

} // namespace pynn

#endif

// The structs, compiled once per instruction set. Vectors of float or double; results depend on each lane alone. Some
// functions of float32 come in stages too: begin() or begin_backward(), what is read from a table for some, finish().
#if defined(PYNN_ISA) && !defined(PYNN_ACTIVATIONS_STRUCTS)
#define PYNN_ACTIVATIONS_STRUCTS

#include "simd/piecewise.hpp"

namespace pynn::PYNN_ISA {
namespace {

// dy where `on`, else 0, for an infinite dy too
template <class V, class I> PYNN_INLINE V passed(I on, V dy, V saved) {
    return keep_nan(saved, select(on, dy, keep_nan(dy, V{})));
}
// y where a parameter is one that the function has, else NaN
template <class V, class I> PYNN_INLINE V if_valid(I valid, V y) {
    return select(valid, y, splat<V>(static_cast<element<V>>(__builtin_nan(""))));
}
// whether a parameter is a number with which nothing on the way to a result overflows or loses bits
template <class V> PYNN_INLINE auto moderate(V parameter, element<V> least) {
    constexpr auto most = static_cast<element<V>>(sizeof(element<V>) == 4 ? 0x1p90 : 0x1p900);
    return (parameter >= least) & (parameter <= most);
}
// x times a gate, rest * gate where x < 0; beyond limit it is x
template <class V> PYNN_INLINE V gated(V x, element<V> limit, Parts<V> gate, V rest) {
    V bounded = select(x < -limit, splat<V>(-limit), x);
    V y = fma(bounded, gate.high, bounded * gate.low) * select(x < 0, rest, 1 - V{});
    return select(x > limit, x, with_sign_of(y, x));
}
// dy times a slope, rest * slope where x < 0; below -limit it is 0
template <class V> PYNN_INLINE V gated_backward(V dy, V x, element<V> limit, Parts<V> slope, V rest) {
    return passed(x >= -limit, dy * rounded(slope) * select(x < 0, rest, 1 - V{}), x);
}
// dx where x is not below limit, else 0, of an infinite dy too; dx is NaN where x is
template <class V> PYNN_INLINE V passed_above(element<V> limit, V dx, V dy, V x) {
    return select(x < limit, keep_nan(dy, V{}), dx);
}
template <class V> PYNN_INLINE V bounded_by(element<V> limit, V x) { return at_least(-limit, at_most(limit, x)); }
// Where x e^-x is below 2^-180 (float64: 2^-1108).
template <class T> constexpr T far = sizeof(T) == 4 ? T(130) : T(775);

// x e f, rounded once; beyond limit it is x
template <class V> PYNN_INLINE V gated(V x, element<V> limit, BiasedExponential<V> e, Parts<V> f) {
    V y = e.times(zero_below(-far<float>, x, rounded_product(times(at_least(-far<float>, x), e.mantissa), f)));
    return select(x > limit, x, with_sign_of(y, x));
}
// dy e slope, both loose; below -limit it is 0. Neither does dy times the slope overflow nor the slope lose bits.
template <class V> PYNN_INLINE V gated_backward(V dy, V x, element<V> limit, BiasedExponential<V> e, Parts<V> slope) {
    V s = zero_below(-limit, x, e.first(rounded_loose_product(e.mantissa, slope)));
    return passed_above(-limit, e.second(dy * s), dy, x);
}

// dy times the slope of x g(x) where g(x) + g(-x) = 1: at -|x| that is e slope, both loose, and at |x| 1 less that. Below -limit
// it is 0.
template <class V>
PYNN_INLINE V symmetric_gate_backward(V dy, V x, element<V> limit, BiasedExponential<V> e, Parts<V> slope) {
    V s = rounded_loose_product(e.mantissa, slope);
    V right = with_sign_of(fma(-dy, e.scale.bounded_times(s), dy), dy);      // of -0.0 too
    V left = e.second(dy * e.first(select((x > 0) | (x < -limit), V{}, s))); // nothing that is not used underflows
    V dx = select(x >= 0, select(right == right, right, dy), left);          // an infinite dy stays
    return passed_above(-limit, dx, dy, x);
}

// What begin() leaves to finish() where both an exponential and a table are needed
template <const Table &table, class V, bool Steep = false> struct WithPlace {
    BiasedExponential<V> e;
    Place<table, V> place;

    PYNN_INLINE Parts<V> read() const { return place.template read<Steep>(); }
};
// e^x left of 0 and 1 right of it, and the place of x
template <const Table &table, class V> PYNN_INLINE WithPlace<table, V> left_exp_with_place(V x) {
    return {biased_exp(at_least(-far<float>, at_most(0, x))), one_sided_place<table>(x)};
}
// Operands to the end, from what begin() has made of them
template <class A, class Given, class... V> PYNN_INLINE auto finished(const Given &given, V... operands) {
    if constexpr (requires { given.read(); })
        return A::finish(operands..., given, given.read());
    else
        return A::finish(operands..., given);
}

// Where A::reach(x) < A::quick_least a shorter way is not right, and A::slow_forward(x) is.
template <class A, class V> PYNN_INLINE V quick_forward(V x) { return finished<A>(A::begin(x), x); }
template <class A, class V> [[gnu::noinline, gnu::cold]] V careful_forward(V x) { // what is rare takes no registers
    const auto slow = A::reach(x) < A::quick_least;
    return select(slow, A::slow_forward(x), quick_forward<A>(select(slow, V{}, x))); // nothing is subnormal on the way
}
template <class A, class V> PYNN_INLINE V quick_or_careful_forward(V x) {
    return any_less(A::reach(x), A::quick_least) ? careful_forward<A>(x) : quick_forward<A>(x);
}

// sigmoid(z) as -top r (1 + rest), which takes fewer operations than it, from e^-|z| >= 2^-116: next to nothing is subnormal
template <class V> struct QuickLogistic {
    V top, r, rest;

    template <class I> PYNN_INLINE QuickLogistic(Term<V> e, I negative) {
        const V low = e.high * e.low;
        r = -1 / (e.high + 1 + low);
        const V lack = fma(r, low, fma(r, e.high, 1 + r)); // -r (1 + lack) is the reciprocal
        top = select(negative, e.high, 1 - V{});
        rest = select(negative, lack + e.low, lack);
    }
    PYNN_INLINE V at() const { return fma(-top, r, -(top * (r * rest))); }
    PYNN_INLINE V times(V x) const {
        const V high = top * r, low = fma(high, rest, fma(top, r, -high));
        return with_sign_of(fma(-x, high, -(x * low)), x); // of a zero
    }
};
// x sigmoid(z) where that is x e^-|z| or x; up to -limit it is 0
template <class V> PYNN_INLINE V far_gated(V x, element<V> limit, BiasedExponential<V> e) {
    const V y = select(x <= -limit, splat<V>(-0.0f), rounded_product(x, e.mantissa)); // before it underflows
    return select(x > 0, x, e.times(y));
}

// float64: x sigmoid(z) with z of the sign of x, both in bounds; slope = sigmoid(z) (1 + w sigmoid(-z)), w = x dz/dx
template <class V> struct Logistic {
    V rest;
    Parts<V> power, denominator; // exp(-|z|) = rest * power, 1 + exp(-|z|)

    PYNN_INLINE explicit Logistic(Parts<V> z) {
        V sign = as<V>(bits(z.high) & sign_bits<V>());
        V t = -magnitude(z.high), t_low = as<V>(bits(z.low) ^ bits(sign) ^ sign_bits<V>());
        Exponential<V> e = exp_parts(t, t_low, ExpConstants<element<V>>::lowest);
        rest = e.rest;
        power = PYNN_ISA::power(e);
        denominator = fast_two_sum(1 - V{}, power.high);
        denominator.low += power.low;
    }
    PYNN_INLINE explicit Logistic(V z) : Logistic(whole(z)) {}
    PYNN_INLINE V times(V x, element<V> limit) const {
        return gated(x, limit, quotient(select(x < 0, power, whole(1 - V{})), denominator), rest);
    }
    PYNN_INLINE V backward(V dy, V x, element<V> limit, Parts<V> w) const {
        Parts<V> top = sum(denominator, select(x < 0, w, product(w, power)));
        top = select(x < 0, product(top, power), top);
        return gated_backward(dy, x, limit, quotient(top, product(denominator, denominator)), rest);
    }
    PYNN_INLINE V backward(V dy, V x, element<V> limit, V w) const { return backward(dy, x, limit, whole(w)); }
};

struct relu {
    template <class V> static PYNN_INLINE V forward(V x) { return select(x <= 0, V{}, x); }
    template <class V> static PYNN_INLINE V backward(V dy, V y) { return passed(y > 0, dy, y); }
};

struct relu6 {
    template <class V> static PYNN_INLINE V forward(V x) { return select(x <= 0, V{}, select(x > 6, 6 - V{}, x)); }
    template <class V> static PYNN_INLINE V backward(V dy, V y) { return passed((y > 0) & (y < 6), dy, y); }
};

struct leaky_relu {
    template <class V> static PYNN_INLINE V forward(V x, V slope) {
        return keep_nan(slope, select(x > 0, x, x * slope));
    }
    template <class V> static PYNN_INLINE V backward(V dy, V y, V slope) {
        return if_valid(slope >= 0, keep_nan(y, select(y > 0, dy, dy * slope)));
    }
};

// leaky_relu with a slope to be learned, of any sign: forward is leaky_relu's.
struct prelu {
    template <class V> static PYNN_INLINE V backward(V dy, V x, V slope) {
        return keep_nan(slope, keep_nan(x, select(x > 0, dy, dy * slope)));
    }
    template <class V> static PYNN_INLINE V slope_backward(V dy, V x, V slope) {
        return keep_nan(slope, keep_nan(x, select(x < 0, dy * x, keep_nan(dy, V{}))));
    }
};

struct elu {
    template <class V> static PYNN_INLINE V exponent(V x) { return select(x > 0, V{}, x); }
    template <class V> static PYNN_INLINE V bent(V x, V expm1) { return select(x > 0, x, with_sign_of(expm1, x)); }
    template <class V> static PYNN_INLINE Place<expm1_table, V> begin(V x) { return place_in_expm1(exponent(x)); }
    template <class V> static PYNN_INLINE V finish(V x, const Place<expm1_table, V> &, Parts<V> factor) {
        return bent(x, rounded_expm1(exponent(x), factor));
    }
    template <class V> static PYNN_INLINE V forward(V x) { return bent(x, rounded_expm1(exponent(x))); }
    template <class V> static PYNN_INLINE V forward(V x, V alpha) {
        Lift<V> lift(alpha);
        V y = magnitude(lift.down(scaled_expm1(whole(lift.up(alpha)), select(x > 0, V{}, x))));
        y = select(x > 0, x, with_sign_of(y, as<V>(bits(x) ^ (bits(alpha) & sign_bits<V>()))));
        return if_valid(moderate(magnitude(alpha), 0), y);
    }
    template <class V> static PYNN_INLINE V backward(V dy, V y, V alpha) {
        return if_valid(moderate(alpha, 0), keep_nan(y, select(y > 0, dy, dy * (y + alpha))));
    }
};

struct celu {
    template <class V> static PYNN_INLINE V forward(V x) { return elu::forward(x); }
    template <class V> static PYNN_INLINE V forward(V x, V alpha) {
        Lift<V> lift(alpha);
        V a = lift.up(alpha), negative = lift.up(select(x > 0, V{}, x));
        V t = negative / a;
        t = select(t < -far<element<V>>, splat<V>(-far<element<V>>), t); // an infinite x; e^t - 1 is -1 there
        V t_low = fma(-t, a, negative) / a;
        V bent = with_sign_of(lift.down(ratio_times(negative, a, t, t_low)), x);
        V y = select(x > 0, x, select(t <= -far<element<V>>, -alpha, bent));
        return if_valid(moderate(alpha, least<element<V>>), y);
    }
    template <class V> static PYNN_INLINE V backward(V dy, V y) { return keep_nan(y, select(y > 0, dy, dy * (y + 1))); }
    template <class V> static PYNN_INLINE V backward(V dy, V y, V alpha) {
        Lift<V> lift(alpha);
        V a = lift.up(alpha), slope = rounded(quotient(two_sum(lift.up(y), a), whole(a)));
        return if_valid(moderate(alpha, least<element<V>>), keep_nan(y, select(y > 0, dy, dy * slope)));
    }

  private:
    template <class T> static constexpr T least = static_cast<T>(sizeof(T) == 4 ? 0x1p-120 : 0x1p-1000);
    // alpha (e^t - 1) with t = x / alpha: near 0 it is x
    template <class V> static PYNN_INLINE V ratio_times(V x, V alpha, V t, V t_low) {
        if constexpr (by_table<V>) {
            // x F(t), F(t) = (e^t - 1) / t; F(t + d) = F(t) + (1 + t F(t) - F(t)) d / t
            V bounded = bounded_by_expm1(t);
            Parts<V> f = place_in_expm1(t).read();
            V part = t_low / t, value = rounded(f), slope = fma(bounded, value, 1 - value);
            V low = fma(slope, select(part == part, part, V{}), f.low);
            V y = fma(x, f.high, x * low);
            return select(t < -expm1_table.greatest[0], -alpha, y);
        } else {
            Parts<V> m = expm1_parts(t);
            m.low = fma(1 + m.high, t_low, m.low);
            return select(t > -0x1p-60, x, rounded(product(whole(alpha), m)));
        }
    }
};

struct selu {
    static constexpr std::size_t vectors_at_once = 2;
    static constexpr double scale = 1.0507009873554805, scaled_alpha = 1.7580993408473766;
    static constexpr double scaled_alpha_low = 0x1.092dbf6372048p-54;
    template <class V> static PYNN_INLINE V forward(V x) {
        Parts<V> s = constant<V>(scale);
        V positive = fma(x, s.high, x * s.low);
        V negative = scaled_expm1(constant<V>(scaled_alpha, scaled_alpha_low), select(x > 0, V{}, x));
        V y = select(x > 0, positive, with_sign_of(negative, x));
        return select(y == y, y, select(x > 0, x, y)); // x = inf
    }
    template <class V> static PYNN_INLINE V backward(V dy, V y) {
        Parts<V> c = constant<V>(scaled_alpha, scaled_alpha_low);
        Parts<V> slope = fast_two_sum(c.high, y);
        slope.low += c.low;
        return keep_nan(y, dy * select(y > 0, constant<V>(scale).high, rounded(slope)));
    }
};

struct gelu {
    static constexpr std::size_t vectors_at_once = 2;
    template <class V> static PYNN_INLINE Parts<V> minus_density() { // -1 / sqrt(2 pi)
        return constant<V>(-0x1.9884533d43651p-2, 0x1.cbc0d30ebfd15p-56);
    }
    static constexpr ScaledConstants bell_scale{-0.5};
    template <class V> static PYNN_INLINE Exponential<V> bell(V a) { // exp(-a^2 / 2)
        Parts<V> square = product(whole(a), a);
        constexpr element<V> half = static_cast<element<V>>(0.5);
        return exp_parts(-half * square.high, -half * square.low, ExpConstants<element<V>>::lowest);
    }
    template <class V> static PYNN_INLINE BiasedExponential<V> short_bell(V a) {
        V half = static_cast<element<V>>(0.5) * a, t = -half * a;
        return biased_exp(t, -fma(half, a, t));
    }
    static constexpr float quick_least = -12;
    template <class V> static PYNN_INLINE V reach(V x) { return x; }
    template <class V> static PYNN_INLINE WithPlace<gelu_table, V> begin(V x) {
        const V negative = at_most(0, x), square = negative * negative;
        const V a = magnitude(at_most(gelu_table.greatest[1], x));
        return {scaled_exp<bell_scale, true>(square, fma(negative, negative, -square)),
                Place<gelu_table, V>::of(a, ints<V>(x > 0))};
    }
    template <class V> static PYNN_INLINE V slow_forward(V x) {
        const V bounded = select(x < -gelu_table.greatest[0], splat<V>(-0.0f), x);
        return finished<gelu>(begin(bounded), bounded);
    }
    template <class V> static PYNN_INLINE V finish(V x, const WithPlace<gelu_table, V> &given, Parts<V> factor) {
        Parts<V> e = given.e.mantissa;
        // Both high parts have 12 bits: their product is exact.
        V high = e.high * factor.high, low = fma(rounded(e), factor.low, e.low * factor.high);
        return select(x > gelu_table.greatest[1], x, given.e.times(fma(x, high, x * low)));
    }
    template <class V> static PYNN_INLINE V forward(V x) {
        if constexpr (by_table<V>) {
            return quick_or_careful_forward<gelu>(x);
        } else {
            constexpr element<V> limit = NormalTailConstants::limit;
            V a = magnitude(bounded_by(limit, x));
            Exponential<V> e = bell(a);
            Parts<V> tail = product(power(e), normal_tail(a));
            Parts<V> gate = select(x < 0, tail, sum(whole(1 - V{}), negative(tail)));
            return gated(x, limit, gate, e.rest);
        }
    }
    static constexpr float slope_limit = gelu_slope_table.greatest[0];
    template <class V> static PYNN_INLINE WithPlace<gelu_slope_table, V, true> begin_backward(V x) {
        return {short_bell(at_least(-slope_limit, at_most(0, x))), one_sided_place<gelu_slope_table>(x)};
    }
    template <class V>
    static PYNN_INLINE V finish(V dy, V x, const WithPlace<gelu_slope_table, V, true> &given, Parts<V> factor) {
        return gated_backward(dy, x, slope_limit, given.e, factor);
    }
    template <class V> static PYNN_INLINE V backward(V dy, V x) {
        if constexpr (by_table<V>) {
            return finished<gelu>(begin_backward(x), dy, x);
        } else {
            constexpr element<V> limit = NormalTailConstants::limit;
            V a = magnitude(bounded_by(limit, x));
            Exponential<V> e = bell(a);
            Parts<V> slope = product(power(e), sum(normal_tail(a), product(minus_density<V>(), a))); // of -a
            slope = select(x < 0, slope, sum(whole(1 - V{}), negative(slope)));
            return gated_backward(dy, x, limit, slope, e.rest);
        }
    }
};

struct gelu_tanh {
    // z = x (A + B x^2), w = x dz/dx = z + 2 x (B x^2)
    static constexpr double A = 2 * 0.7978845608028654, B = 0x1.2444f2a4d8b4bp-4, B_low = 0x1.8c95337d724e0p-62;
    static constexpr ScaledConstants scale{B};
    static constexpr float ratio_low = static_cast<float>(1 / 0.044715 - 22.375);
    template <class V> static constexpr element<V> limit = sizeof(element<V>) == 4 ? 11.73f : 21.85;
    template <class V> static PYNN_INLINE Parts<V> cubic_share(V x) {
        return product(constant<V>(B, B_low), product(whole(x), x));
    }
    template <class V> static PYNN_INLINE Parts<V> minus_z(V x) { // of its magnitude, over B
        // z / B = x (A / B + x^2); A / B has a high part of so few bits that the sum less it is exact
        const V high = splat<V>(22.375f), sum = fma(x, x, high), low = fma(x, x, high - sum) + ratio_low;
        const V u = x * sum, u_low = fma(x, low, fma(x, sum, -u));
        return {negative_magnitude(u), as<V>(bits(u_low) ^ (~bits(u) & sign_bits<V>()))};
    }
    template <class V> static PYNN_INLINE BiasedExponential<V> exp_of_minus_z(V x) {
        const Parts<V> t = minus_z(x);
        return scaled_exp<scale>(t.high, t.low);
    }
    static constexpr std::size_t vectors_at_once = 3;
    static constexpr float quick_least = -9.65f; // where |z| is 79.5
    template <class V> static PYNN_INLINE V reach(V x) { return x; }
    template <class V> static PYNN_INLINE Term<V> begin(V x) {
        const Parts<V> t = minus_z(at_most(-quick_least, x));
        return scaled_term<scale>(t.high, t.low);
    }
    template <class V> static PYNN_INLINE V finish(V x, const Term<V> &e) {
        return select(x > -quick_least, x, QuickLogistic<V>(e, x < 0).times(x));
    }
    template <class V> static PYNN_INLINE V slow_forward(V x) {
        return far_gated(x, limit<V>, exp_of_minus_z(at_least(-limit<V>, at_most(0, x))));
    }
    template <class V> static PYNN_INLINE V forward(V x) {
        if constexpr (by_table<V>) {
            return quick_or_careful_forward<gelu_tanh>(x);
        } else {
            V bounded = bounded_by(limit<V>, x);
            return Logistic<V>(product(sum(constant<V>(A), cubic_share(bounded)), bounded)).times(x, limit<V>);
        }
    }
    template <class V> static PYNN_INLINE WithPlace<gelu_tanh_slope_table, V, true> begin_backward(V x) {
        V bounded = bounded_by(limit<V>, x);
        return {exp_of_minus_z(bounded), Place<gelu_tanh_slope_table, V>::of(magnitude(bounded))};
    }
    template <class V>
    static PYNN_INLINE V finish(V dy, V x, const WithPlace<gelu_tanh_slope_table, V, true> &given, Parts<V> factor) {
        return symmetric_gate_backward(dy, x, limit<V>, given.e, factor);
    }
    template <class V> static PYNN_INLINE V backward(V dy, V x) {
        if constexpr (by_table<V>) {
            return finished<gelu_tanh>(begin_backward(x), dy, x);
        } else {
            V bounded = bounded_by(limit<V>, x);
            Parts<V> share = cubic_share(bounded), z = product(sum(constant<V>(A), share), bounded);
            Parts<V> w = sum(z, product(share, 2 * bounded));
            return Logistic<V>(z).backward(dy, x, limit<V>, w);
        }
    }
};

struct quick_gelu {
    template <class V> static constexpr element<V> limit = sizeof(element<V>) == 4 ? 78 : 456;
    static constexpr ScaledConstants scale{1.702};
    static constexpr float quick_least = -47;
    template <class V> static PYNN_INLINE V reach(V x) { return negative_magnitude(x); }
    template <class V> static PYNN_INLINE Term<V> begin(V x) { return scaled_term<scale>(negative_magnitude(x)); }
    template <class V> static PYNN_INLINE V finish(V x, const Term<V> &e) {
        return QuickLogistic<V>(e, x < 0).times(x);
    }
    template <class V> static PYNN_INLINE V slow_forward(V x) {
        return far_gated(x, limit<V>, scaled_exp<scale>(at_least(-limit<V>, at_most(0, x))));
    }
    template <class V> static PYNN_INLINE V forward(V x) {
        if constexpr (by_table<V>) {
            return quick_or_careful_forward<quick_gelu>(x);
        } else {
            return Logistic<V>(product(constant<V>(1.702), bounded_by(limit<V>, x))).times(x, limit<V>);
        }
    }
    static constexpr float greatest = quick_gelu_slope_table.greatest[0];
    template <class V> static PYNN_INLINE WithPlace<quick_gelu_slope_table, V> begin_backward(V x) {
        V a = magnitude(bounded_by(limit<V>, x));
        return {scaled_exp<scale>(-a), Place<quick_gelu_slope_table, V>::of(at_most(greatest, a))};
    }
    template <class V>
    static PYNN_INLINE V finish(V dy, V x, const WithPlace<quick_gelu_slope_table, V> &given, Parts<V> factor) {
        V a = magnitude(bounded_by(limit<V>, x));
        Parts<V> line = product(constant<V>(-1.702), a), beyond = fast_two_sum(line.high, 1 - V{});
        beyond.low += line.low; // e^(-1.702 a) more, which is nothing
        return symmetric_gate_backward(dy, x, limit<V>, given.e, select(a > greatest, beyond, factor));
    }
    template <class V> static PYNN_INLINE V backward(V dy, V x) {
        if constexpr (by_table<V>) {
            return finished<quick_gelu>(begin_backward(x), dy, x);
        } else {
            Parts<V> z = product(constant<V>(1.702), bounded_by(limit<V>, x));
            return Logistic<V>(z).backward(dy, x, limit<V>, z);
        }
    }
};

struct silu {
    static constexpr float quick_least = -80;
    template <class V> static PYNN_INLINE V reach(V x) { return negative_magnitude(x); }
    template <class V> static PYNN_INLINE Term<V> begin(V x) { return short_term(negative_magnitude(x)); }
    template <class V> static PYNN_INLINE V finish(V x, const Term<V> &e) {
        return QuickLogistic<V>(e, x < 0).times(x);
    }
    template <class V> static PYNN_INLINE V slow_forward(V x) {
        return far_gated(x, far<float>, biased_exp(at_least(-far<float>, at_most(0, x))));
    }
    template <class V> static PYNN_INLINE V forward(V x) {
        if constexpr (by_table<V>) {
            return quick_or_careful_forward<silu>(x);
        } else {
            return Logistic<V>(bounded_by(far<element<V>>, x)).times(x, far<element<V>>);
        }
    }
    static constexpr float greatest = silu_slope_table.greatest[0];
    template <class V> static PYNN_INLINE WithPlace<silu_slope_table, V> begin_backward(V x) {
        V a = magnitude(bounded_by(far<float>, x));
        return {biased_exp(-a), Place<silu_slope_table, V>::of(at_most(greatest, a))};
    }
    template <class V>
    static PYNN_INLINE V finish(V dy, V x, const WithPlace<silu_slope_table, V> &given, Parts<V> factor) {
        V a = magnitude(bounded_by(far<float>, x));
        Parts<V> slope = select(a > greatest, whole(1 - a), factor); // e^-a more, which is nothing
        return symmetric_gate_backward(dy, x, far<float>, given.e, slope);
    }
    template <class V> static PYNN_INLINE V backward(V dy, V x) {
        if constexpr (by_table<V>) {
            return finished<silu>(begin_backward(x), dy, x);
        } else {
            V z = bounded_by(far<element<V>>, x);
            return Logistic<V>(z).backward(dy, x, far<element<V>>, z);
        }
    }
};

struct mish {
    // tanh(log(1 + E)) = (E + 2) E / ((E + 2) E + 2), with E = e = exp(-|x|) left of 0 and 1 / e right of it
    template <class V> struct Terms {
        V rest;
        Parts<V> e, factor, denominator;
        PYNN_INLINE explicit Terms(V x) {
            Exponential<V> part = exp_parts(-magnitude(x), V{}, ExpConstants<element<V>>::lowest);
            rest = part.rest;
            e = power(part);
            Parts<V> doubled = {2 * e.high, 2 * e.low};
            factor = select(x < 0, sum(whole(2 - V{}), e), sum(whole(1 - V{}), doubled));
            denominator = select(x < 0, sum(whole(2 - V{}), product(e, factor)), sum(factor, product(doubled, e)));
        }
    };
    template <class V> static PYNN_INLINE WithPlace<mish_table, V> begin(V x) {
        return left_exp_with_place<mish_table>(x);
    }
    template <class V> static PYNN_INLINE V finish(V x, const WithPlace<mish_table, V> &given, Parts<V> factor) {
        return gated(x, mish_table.greatest[1], given.e, tight(factor));
    }
    template <class V> static PYNN_INLINE V forward(V x) {
        if constexpr (by_table<V>) {
            return finished<mish>(begin(x), x);
        } else {
            Terms<V> t(bounded_by(far<element<V>>, x));
            Parts<V> top = select(x < 0, product(t.e, t.factor), t.factor);
            return gated(x, far<element<V>>, quotient(top, t.denominator), t.rest);
        }
    }
    template <class V> static PYNN_INLINE WithPlace<mish_slope_table, V> begin_backward(V x) {
        return left_exp_with_place<mish_slope_table>(x);
    }
    template <class V>
    static PYNN_INLINE V finish(V dy, V x, const WithPlace<mish_slope_table, V> &given, Parts<V> factor) {
        V negative = at_least(-far<float>, at_most(0, x));
        // far to the left the slope has e^x more, which is nothing
        Parts<V> slope = select(x < -mish_slope_table.greatest[0], whole(1 + negative), factor);
        return gated_backward(dy, x, far<float>, given.e, slope);
    }
    template <class V> static PYNN_INLINE V backward(V dy, V x) {
        if constexpr (by_table<V>) {
            return finished<mish>(begin_backward(x), dy, x);
        } else {
            V bounded = bounded_by(far<element<V>>, x);
            Terms<V> t(bounded);
            Parts<V> rest = product(sum(whole(1 - V{}), t.e), 4 * bounded);
            rest = select(x < 0, rest, product(rest, product(t.e, t.e)));
            Parts<V> top = sum(product(t.factor, t.denominator), rest);
            top = select(x < 0, product(top, t.e), top);
            Parts<V> slope = quotient(top, product(t.denominator, t.denominator));
            return gated_backward(dy, x, far<element<V>>, slope, t.rest);
        }
    }
};

struct sigmoid {
    static constexpr float quick_least = -80;
    template <class V> static PYNN_INLINE V reach(V x) { return negative_magnitude(x); }
    template <class V> static PYNN_INLINE Term<V> begin(V x) { return short_term(negative_magnitude(x)); }
    template <class V> static PYNN_INLINE V finish(V x, const Term<V> &e) { return QuickLogistic<V>(e, x < 0).at(); }
    template <class V> static PYNN_INLINE V slow_forward(V x) { return rounded_exp(at_most(0, x)); }
    template <class V> static PYNN_INLINE V forward(V x) {
        if constexpr (by_table<V>) {
            return quick_or_careful_forward<sigmoid>(x);
        } else {
            Exponential<V> e = exp_parts(-magnitude(x));
            Parts<V> p = power(e);
            Parts<V> denominator = fast_two_sum(1 - V{}, p.high);
            denominator.low += p.low;
            auto negative = x < 0;
            Parts<V> y = quotient(select(negative, p, whole(1 - V{})), denominator);
            return rounded(y) * select(negative, e.rest, 1 - V{});
        }
    }
    template <class V> static PYNN_INLINE V backward(V dy, V y) { return dy * fma(-y, y, y); }
};

struct tanh {
    template <class V> static PYNN_INLINE V forward(V x) {
        if constexpr (by_table<V>) {
            return with_sign_of(short_tanh(magnitude(x)), x);
        } else {
            return with_sign_of(rounded(tanh_parts(magnitude(x))), x);
        }
    }
    template <class V> static PYNN_INLINE V backward(V dy, V y) { return dy * fma(-y, y, 1 - V{}); }
};

struct tanh_shrink {
    static constexpr std::size_t vectors_at_once = 2;
    template <class V> static PYNN_INLINE V forward(V x) {
        if constexpr (by_table<V>) {
            // scaled, as the low part of a small result may be too small
            constexpr float limit = tanh_shrink_table.greatest[0];
            V a = at_most(limit, magnitude(x));
            Parts<V> f = piecewise<tanh_shrink_table>(a), ratio = product(times(a, whole(a)), f);
            V y = rounded_product(a * 0x1p60f, ratio) * 0x1p-60f;
            return with_sign_of(select(magnitude(x) > limit, magnitude(x) - 1, y), x);
        } else {
            using C = TanhShrinkConstants;
            V a = magnitude(x);
            Parts<V> t = tanh_parts(a);
            Parts<V> large = sum(whole(a), negative(t));
            V low = select(large.low == large.low, large.low, V{}); // x = inf
            V bounded = select(a > 1, 1 - V{}, a);
            Parts<V> square = product(whole(bounded), bounded);
            Parts<V> series = whole(polynomial(square.high, C::tail));
            series = sum({splat<V>(C::head[1][0]), splat<V>(C::head[1][1])}, product(square, series));
            series = sum({splat<V>(C::head[0][0]), splat<V>(C::head[0][1])}, product(square, series));
            Parts<V> ratio = product(square, series);
            V small = fma(bounded, ratio.high, bounded * ratio.low);
            return with_sign_of(select(a > 1, large.high + low, small), x);
        }
    }
    template <class V> static PYNN_INLINE V backward(V dy, V x) {
        Lift<V> lift(dy);
        if constexpr (by_table<V>) {
            V a = at_most(tanh_table.greatest[0], magnitude(x));
            Parts<V> f = piecewise<tanh_table>(a), t = times(a, fast_two_sum(f.high, f.low));
            return lift.down(scaled(lift.up(dy), t, t));
        } else {
            Parts<V> t = tanh_parts(magnitude(x));
            return lift.down(scaled(lift.up(dy), t, t));
        }
    }
};

struct softplus {
    static constexpr std::size_t vectors_at_once = 2;
    template <class V> static PYNN_INLINE WithPlace<softplus_table, V> begin(V x) {
        return left_exp_with_place<softplus_table>(x);
    }
    template <class V> static PYNN_INLINE V finish(V x, const WithPlace<softplus_table, V> &given, Parts<V> factor) {
        V y = rounded_product(given.e.mantissa, tight(factor));
        y = given.e.times(zero_below(ExpConstants<float>::least, x, y));
        return select(x > softplus_table.greatest[1], x, y);
    }
    template <class V> static PYNN_INLINE V forward(V x) {
        if constexpr (by_table<V>) {
            return finished<softplus>(begin(x), x);
        } else {
            // max(x, 0) + log(1 + e) with e = exp(-|x|), log(1 + e) = 2 atanh(e / (2 + e))
            Exponential<V> e = exp_parts(-magnitude(x));
            Parts<V> p = power(e);
            Parts<V> denominator = fast_two_sum(2 - V{}, p.high);
            denominator.low += p.low;
            Parts<V> z = quotient(p, denominator);
            V square = z.high * z.high;
            V tail = fma(z.high * square, polynomial(square, AtanhConstants::tail), z.low);
            V positive = select(x <= 0, V{}, x); // a NaN stays
            Parts<V> sum = two_sum(positive, 2 * z.high * e.rest);
            sum.low = select(sum.low == sum.low, sum.low, V{}); // x = inf
            return sum.high + fma(2 * tail, e.rest, sum.low);
        }
    }
    // z = beta x in two parts; the result divided by beta before it is rounded
    template <class V> static PYNN_INLINE V forward(V x, V beta) {
        Parts<V> z = times(x, whole(beta));
        z.low = select(magnitude(z.high) < far<element<V>>, z.low, V{}); // beyond, the result is x or 0
        V y;
        if constexpr (by_table<V>) {
            auto e = short_exp(at_most(0, z.high), select(z.high > 0, V{}, z.low));
            Parts<V> f = one_sided<softplus_table>(z.high), inverse = reciprocal(beta);
            V slope = at_most(1, fma(z.high, splat<V>(0.25f), splat<V>(0.5f))); // near enough for z.low
            f.low += select(z.high > 0, z.low * slope, V{});
            y = e.power.times(rounded_product(e.mantissa, product(f, inverse)));
            y = select(z.high > softplus_table.greatest[1], x, y);
        } else {
            V low = as<V>(bits(z.low) ^ (~bits(z.high) & sign_bits<V>())); // of -|z|
            Exponential<V> e = exp_parts(-magnitude(z.high), low, ExpConstants<element<V>>::lowest);
            Parts<V> p = power(e);
            Parts<V> denominator = fast_two_sum(2 - V{}, p.high);
            denominator.low += p.low;
            Parts<V> r = quotient(p, denominator);
            V square = r.high * r.high;
            V tail = fma(r.high * square, polynomial(square, AtanhConstants::tail), r.low);
            V positive = select(z.high <= 0, V{}, z.high);
            Parts<V> sum = two_sum(positive, 2 * r.high * e.rest);
            sum.low = select(sum.low == sum.low, sum.low, V{}); // x = inf
            sum.low = fma(2 * tail, e.rest, sum.low) + select(z.high > 0, z.low, V{});
            y = select(z.high > far<element<V>>, x, rounded(quotient(sum, whole(beta))));
            // e^z may be subnormal where e^z / beta is not
            V tiny = rounded(quotient(Parts<V>{2 * r.high, 2 * tail}, whole(beta))) * e.rest;
            y = select((beta < 1) & (z.high < -600), tiny, y);
        }
        return if_valid(moderate(beta, element<V>(0x1p-50)), keep_nan(x, y));
    }
    // slope = sigmoid(x) = 1 - exp(-y)
    template <class V> static PYNN_INLINE V exponent(V y) { return select(y <= 0, V{}, -y); }
    template <class V> static PYNN_INLINE Place<expm1_table, V> begin_backward(V y) {
        return place_in_expm1(exponent(y));
    }
    template <class V> static PYNN_INLINE V finish(V dy, V y, const Place<expm1_table, V> &, Parts<V> factor) {
        return dy * -rounded_expm1(exponent(y), factor);
    }
    template <class V> static PYNN_INLINE V backward(V dy, V y) { return dy * -rounded_expm1(exponent(y)); }
    template <class V> static PYNN_INLINE V backward(V dy, V y, V beta) {
        Parts<V> t = times(select(y <= 0, V{}, -y), whole(beta));
        t.low = select(magnitude(t.high) < far<element<V>>, t.low, V{});
        V dx = dy * -rounded_expm1(t.high, t.low);
        constexpr element<V> tiny = sizeof(element<V>) == 4 ? element<V>(0x1p-100) : element<V>(0x1p-900);
        // beta y may be subnormal, and dy beta too large
        constexpr element<V> large = sizeof(element<V>) == 4 ? 0x1p30f : 0x1p60;
        V small = select(magnitude(dy) > large, dy * y * beta, dy * beta * y);
        dx = select((y > 0) & (magnitude(t.high) < tiny), small, dx);
        return if_valid(moderate(beta, element<V>(0x1p-50)), keep_nan(y, dx));
    }
};

struct log_sigmoid {
    static constexpr std::size_t vectors_at_once = 2;
    template <class V> static PYNN_INLINE WithPlace<softplus_table, V> begin(V x) { return softplus::begin(-x); }
    template <class V> static PYNN_INLINE V finish(V x, const WithPlace<softplus_table, V> &given, Parts<V> factor) {
        return -softplus::finish(-x, given, factor);
    }
    template <class V> static PYNN_INLINE V forward(V x) { return -softplus::forward(-x); }
    template <class V> static PYNN_INLINE V backward(V dy, V y) { return softplus::backward(dy, -y); }
    template <class V> static PYNN_INLINE Place<expm1_table, V> begin_backward(V y) {
        return softplus::begin_backward(-y);
    }
    template <class V> static PYNN_INLINE V finish(V dy, V y, const Place<expm1_table, V> &given, Parts<V> factor) {
        return softplus::finish(dy, -y, given, factor);
    }
};

struct squareplus {
    // Beyond limit it is x + b / (4 x), rounded.
    template <class V> static constexpr element<V> default_limit = sizeof(element<V>) == 4 ? 32768 : 1073741824;
    template <class V> static PYNN_INLINE V limit(V b) { return default_limit<V> / 2 * sqrt(b); }

    template <class V> static PYNN_INLINE V forward(V x) { return bent(x, 4 - V{}, splat<V>(default_limit<V>)); }
    template <class V> static PYNN_INLINE V forward(V x, V b) {
        V y = select(b == 0, select(x <= 0, V{}, x), bent(x, b, limit(b)));
        return if_valid(has(b), keep_nan(x, y));
    }
    template <class V> static PYNN_INLINE V backward(V dy, V y) {
        return slope(dy, select(y > default_limit<V>, splat<V>(default_limit<V>), y), 1 - V{});
    }
    template <class V> static PYNN_INLINE V backward(V dy, V y, V b) {
        // y over the power of two below the root of c, and c by its square: y^2 and c may be too small as they are
        V c = select(b == 0, 1 - V{}, b / 4), root = sqrt(c), limit = default_limit<V> * root;
        V inverse = inverse_of_power_below(root);
        V dx = slope(dy, select(y > limit, limit, y) * inverse, c * inverse * inverse);
        return if_valid(has(b), keep_nan(y, select(b == 0, passed(y > 0, dy, y), dx)));
    }

  private:
    template <class V> static PYNN_INLINE auto has(V b) {
        return (b == 0) | moderate(b, element<V>(sizeof(element<V>) == 4 ? 0x1p-100 : 0x1p-1000));
    }
    template <class V> static PYNN_INLINE V bent(V x, V b, V limit) {
        V a = magnitude(x), bounded = select(a > limit, limit, a);
        Parts<V> square = sum(product(whole(bounded), bounded), whole(b));
        V root = sqrt(square.high);
        V root_low = (fma(-root, root, square.high) + square.low) * (static_cast<element<V>>(0.5) / root);
        Parts<V> total = fast_two_sum(root, bounded);
        total.low += root_low;
        V y = select(x < 0, rounded(quotient(whole(b / 2), total)), rounded(total) * static_cast<element<V>>(0.5));
        const auto beyond = a > limit;
        return any(ints<V>(beyond)) ? select(beyond, select(x < 0, b / 4 / a, a), y) : y; // spares most a division
    }
    // y^2 / (c + y^2); a small y is taken in two steps, for its square may be too small
    template <class V> static PYNN_INLINE V slope(V dy, V y, V c) {
        Parts<V> square = product(whole(y), y);
        auto large = y > 1;
        Parts<V> ratio = quotient(select(large, square, whole(y)), sum(whole(c), square));
        return scaled(dy, whole(select(large, 1 - V{}, y)), ratio);
    }
};

struct softsign {
    template <class V> static PYNN_INLINE V forward(V x) {
        V a = magnitude(x), limit = splat<V>(sizeof(element<V>) == 4 ? 0x1p30f : 0x1p60);
        a = select(a > limit, limit, a);
        return with_sign_of(rounded(quotient(whole(a), two_sum(1 - V{}, a))), x);
    }
    template <class V> static PYNN_INLINE V backward(V dy, V y) {
        Parts<V> rest = fast_two_sum(1 - V{}, -magnitude(y));
        return dy * rounded(product(rest, rest));
    }
};

struct hard_sigmoid {
    // (x + 3) / 6, |x| <= 6: of an x beyond 3, 3 is a multiple of its unit, so that the sum is exact then too
    template <class V> static PYNN_INLINE Parts<V> line(V x) {
        return product(fast_two_sum(3 - V{}, x), constant<V>(0x1.5555555555555p-3, 0x1.5555555555555p-57));
    }
    template <class V> static PYNN_INLINE V forward(V x) { return rounded(line(bounded_by(3, x))); }
    template <class V> static PYNN_INLINE V backward(V dy, V y) { return passed((y > 0) & (y < 1), dy / 6, y); }
};

struct hard_swish {
    template <class V> static PYNN_INLINE V forward(V x) {
        V bounded = bounded_by(3, x);
        Parts<V> gate = hard_sigmoid::line(bounded);
        V y = fma(bounded, gate.high, bounded * gate.low);
        return select(x <= -3, V{}, select(x >= 3, x, with_sign_of(y, x)));
    }
    template <class V> static PYNN_INLINE V backward(V dy, V x) {
        V slope = rounded(hard_sigmoid::line(2 * bounded_by(3, x)));
        return passed(x > -3, select(x >= 3, dy, dy * slope), x);
    }
};

struct hard_tanh {
    template <class V> static PYNN_INLINE V forward(V x, V least, V greatest) {
        return if_valid(least <= greatest, select(x < least, least, select(x > greatest, greatest, x)));
    }
    template <class V> static PYNN_INLINE V backward(V dy, V y, V least, V greatest) {
        return if_valid(least <= greatest, passed((y > least) & (y < greatest), dy, y));
    }
};

struct hard_shrink {
    template <class V> static PYNN_INLINE V forward(V x, V lambda) {
        return if_valid(lambda >= 0, select(magnitude(x) <= lambda, V{}, x));
    }
    template <class V> static PYNN_INLINE V backward(V dy, V y, V lambda) {
        return if_valid(lambda >= 0, passed(y != 0, dy, y));
    }
};

struct soft_shrink {
    template <class V> static PYNN_INLINE V forward(V x, V lambda) {
        return if_valid(lambda >= 0, select(magnitude(x) <= lambda, V{}, x - with_sign_of(lambda, x)));
    }
    template <class V> static PYNN_INLINE V backward(V dy, V y, V lambda) {
        return hard_shrink::backward(dy, y, lambda);
    }
};

struct threshold {
    template <class V> static PYNN_INLINE V forward(V x, V threshold, V value) {
        return keep_nan(threshold, select(x <= threshold, value, x));
    }
    template <class V> static PYNN_INLINE V backward(V dy, V x, V threshold, V) {
        return keep_nan(threshold, passed(x > threshold, dy, x));
    }
};

struct exponential {
    template <class V> static PYNN_INLINE V forward(V x) { return rounded_exp(x); }
    template <class V> static PYNN_INLINE V backward(V dy, V y) { return dy * y; }
};

struct linear {
    template <class V> static PYNN_INLINE V forward(V x) { return x; }
    template <class V> static PYNN_INLINE V backward(V dy, V y) { return keep_nan(y, dy); }
};

// a sigmoid(b), of two halves of what a layer is given
struct glu {
    template <class V> static PYNN_INLINE V forward(V a, V b) {
        V y = gated<false>(a, b);
        return select(b == -static_cast<element<V>>(__builtin_inf()), a * V{}, y); // NaN of an infinite a
    }
    // float32 in fewer operations, right where nothing is Special
    template <class V> static PYNN_INLINE V quick_forward(V a, V b) {
        return QuickLogistic<V>(short_term(negative_magnitude(b)), b < 0).times(a);
    }
    static constexpr float quick_limit = 64;
    // What is seen of several b and y, by lane: whether a b is far from 0 or a y small and not 0, infinite or NaN
    template <class V> struct Special {
        using Bits = vec<std::uint32_t>; // of |y|, twice: without the sign
        static constexpr std::uint32_t small = 2 * __builtin_bit_cast(std::uint32_t, 0x1p-100f), infinite = 0xff000000;
        V least = {};                            // -|b|
        Bits least_but_one = ~Bits{}, most = {}; // but one: less 1, so that 0 comes last

        PYNN_INLINE void add(V b, V y) {
            const Bits twice = (Bits)bits(y) << 1, but_one = twice - 1;
            least = minimum(negative_magnitude(b), least);
            least_but_one = but_one < least_but_one ? but_one : least_but_one;
            most = twice > most ? twice : most;
        }
        PYNN_INLINE ints<V> is_small() const { return (ints<V>)(least_but_one < small); }
        PYNN_INLINE ints<V> found() const { return (least < -quick_limit) | is_small() | (ints<V>)(most >= infinite); }
    };
    template <class V> static PYNN_INLINE V careful_forward(V a, V b) {
        const V y = quick_forward(a, b), infinite = splat<V>(__builtin_inff());
        Special<V> special;
        special.add(b, y);
        V near = select(special.is_small(), 0x1p-64f * quick_forward(0x1p+64f * a, b), y);
        near = select(magnitude(a) == infinite, a + b, near);
        const V left = with_sign_of(select(b == -infinite, a * V{}, product_of(a, b)), a); // NaN of an infinite a
        return select(b > quick_limit, a, select(b < -quick_limit, left, near));
    }
    template <class V> static PYNN_INLINE V a_backward(V dy, V b) { return forward(dy, b); }
    template <class V> static PYNN_INLINE V b_backward(V dy, V a, V b) {
        // the larger first, or it would magnify what a small product lost
        const auto swap = magnitude(dy) > magnitude(a);
        V larger = select(swap, dy, a), product = gated<true>(larger, b);
        return select(swap, a, dy) *
               select(magnitude(b) == static_cast<element<V>>(__builtin_inf()), larger * V{}, product);
    }

  private:
    // a exp(b) for b < -quick_limit, where that is a sigmoid(b)
    template <class V> static PYNN_INLINE V product_of(V a, V b) {
        constexpr float least = -194, down = 0x1p-80f; // a may be as large as the power is small
        ReducedByEighths<V> t = reduced_by_eighths(at_least(least, b));
        Parts<V> e = short_exp(t).mantissa;
        V part = down * a, low = part * e.low;
        // rounded once: times() would twice, where a result and what its first factor makes are subnormal
        return Power::from(t.z + 8 * 80).down(fma(part, e.high, select(low - low == 0, low, V{})));
    }
    // a sigmoid(b), or a sigmoid(b) sigmoid(-b). A large a may meet an exponential that is too small: it is taken in two.
    template <bool Slope, class V> static PYNN_INLINE V gated(V a, V b) {
        constexpr bool single = sizeof(element<V>) == 4;
        constexpr element<V> far = single ? element<V>(-130) : element<V>(-760), part = single ? 64 : 700;
        V t = negative_magnitude(b);
        auto is_far = t < far, negative = Slope ? (a == a) | (a != a) : b < 0;
        t = select(is_far, t + part, t);
        Parts<V> e_part = single // e^-part
                              ? constant<V>(0x1.969d47321e4ccp-93, -0x1.5034b5fe3da71p-147)
                              : constant<V>(0x1.14f2b0fb9307fp-1010, 0x0.00000000000acp-1022);
        Parts<V> scaled_a = times(a, select(is_far & negative, e_part, whole(1 - V{})));
        V y;
        if constexpr (by_table<V>) {
            ShortExponential<V> e = short_exp(t);
            Parts<V> r = reciprocal_of_one_plus(e);
            ShortExponential<V> gate = Slope ? e : or_one(b, e);
            Parts<V> g = product(gate.mantissa, Slope ? product(r, r) : r);
            g = {gate.power.first(g.high), gate.power.first(g.low)};
            V low = fma(scaled_a.high, g.low, scaled_a.low * g.high);
            y = gate.power.second(fma(scaled_a.high, g.high, select(low - low == 0, low, V{})));
        } else {
            Exponential<V> e = exp_parts(t, V{}, ExpConstants<element<V>>::lowest);
            Parts<V> p = power(e), d = fast_two_sum(1 - V{}, p.high);
            d.low += p.low;
            Parts<V> g = quotient(select(negative, p, whole(1 - V{})), d);
            if constexpr (Slope) g = quotient(g, d);
            V low = fma(scaled_a.high, g.low, scaled_a.low * g.high);
            y = fma(scaled_a.high, g.high, select(low - low == 0, low, V{})) * select(negative, e.rest, 1 - V{});
        }
        return with_sign_of(y, a);
    }
};

// The parameters of a struct's row, and its functions with their defaults.
template <class A> constexpr Parameters parameters_of = {};
#define PYNN_PARAMETERS(name, saves, parameters, ...)                                                                  \
    template <> constexpr Parameters parameters_of<PYNN_ISA::name> = parameters;
PYNN_ACTIVATIONS(PYNN_PARAMETERS)
#undef PYNN_PARAMETERS
template <class A> using ParameterIndices = std::make_index_sequence<parameters_of<A>.count>;

template <class A, class V, std::size_t I> PYNN_INLINE V default_of() {
    return splat<V>(static_cast<element<V>>(parameters_of<A>.list[I].value));
}
template <class A, class V, std::size_t... I> PYNN_INLINE V forward_by_default(V x, std::index_sequence<I...>) {
    if constexpr (requires { A::forward(x); })
        return A::forward(x);
    else
        return A::forward(x, default_of<A, V, I>()...);
}
template <class A, class V, std::size_t... I>
PYNN_INLINE V backward_by_default(V dy, V saved, std::index_sequence<I...>) {
    if constexpr (requires { A::backward(dy, saved); })
        return A::backward(dy, saved);
    else
        return A::backward(dy, saved, default_of<A, V, I>()...);
}

} // namespace
} // namespace pynn::PYNN_ISA

#endif
