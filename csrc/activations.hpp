// THE activation table: one row (name, what backward needs, summary) and one struct (forward, backward) each.
// ufuncs, epilogues, layers, stubs, tests and benchmarks follow from the row.
#ifndef PYNN_ACTIVATIONS_ROWS
#define PYNN_ACTIVATIONS_ROWS

#include <cstddef>

// ROW(name, saves, formula, limits, source); saves is the second operand of name_backward: the input x or the output y.
#define PYNN_ACTIVATIONS(ROW)                                                                                          \
    ROW(relu, y, "max(x, 0)", "relu(-inf) = relu(-0.0) = 0.0, relu(inf) = inf; the slope at 0 is 0.",                  \
        "Nair and Hinton (2010), Rectified linear units improve restricted Boltzmann machines.")                       \
    ROW(leaky_relu, y, "x if x > 0 else 0.01 * x",                                                                     \
        "leaky_relu(-0.0) = -0.0, infinities stay infinite; the slope at 0 is 0.01. PyTorch and JAX use the same "     \
        "0.01, Keras 0.2 (0.3 before Keras 3).",                                                                       \
        "Maas, Hannun and Ng (2013), Rectifier nonlinearities improve neural network acoustic models.")                \
    ROW(sigmoid, y, "1 / (1 + exp(-x))", "sigmoid(-inf) = 0.0, sigmoid(inf) = 1.0; small results are subnormal.",      \
        "Deep Learning from Scratch, section 3.2.")                                                                    \
    ROW(tanh, y, "(exp(x) - exp(-x)) / (exp(x) + exp(-x))", "tanh(-0.0) = -0.0, tanh(+-inf) = +-1.0.",                 \
        "LeCun et al. (1998), Efficient BackProp, section 4.4.")                                                       \
    ROW(softplus, y, "log(1 + exp(x))",                                                                                \
        "softplus(-inf) = 0.0, softplus(inf) = inf. PyTorch returns x itself above 20; here every result is that of "  \
        "the formula. backward takes a y below 0, which no x gives, as 0.",                                            \
        "Dugas et al. (2001), Incorporating second-order functional knowledge for better option pricing.")

namespace pynn {

#define PYNN_COUNT(...) +1
inline constexpr std::size_t activation_count = 0 PYNN_ACTIVATIONS(PYNN_COUNT);
#undef PYNN_COUNT

} // namespace pynn

#endif

// The structs, compiled once per instruction set. Vectors of float or double; results depend on each lane alone.
#if defined(PYNN_ISA) && !defined(PYNN_ACTIVATIONS_STRUCTS)
#define PYNN_ACTIVATIONS_STRUCTS

#include "simd/math.hpp"

namespace pynn::PYNN_ISA {
namespace {

struct relu {
    template <class V> static PYNN_INLINE V forward(V x) { return select(x <= 0, V{}, x); }
    template <class V> static PYNN_INLINE V backward(V dy, V y) {
        return keep_nan(y, select(y <= 0, keep_nan(dy, V{}), dy)); // 0 for an infinite dy too
    }
};

struct leaky_relu {
    template <class V> static PYNN_INLINE V forward(V x) { return select(x > 0, x, x * static_cast<element<V>>(0.01)); }
    template <class V> static PYNN_INLINE V backward(V dy, V y) {
        return keep_nan(y, select(y > 0, dy, dy * static_cast<element<V>>(0.01)));
    }
};

struct sigmoid {
    template <class V> static PYNN_INLINE V forward(V x) {
        Exponential<V> e = exponential(-magnitude(x));
        Parts<V> power = fast_two_sum(e.scale, e.scale * e.expm1.high);
        power.low = fma(e.scale, e.expm1.low, power.low);
        Parts<V> denominator = fast_two_sum(1 - V{}, power.high);
        denominator.low += power.low;
        auto negative = x < 0;
        Parts<V> numerator = {select(negative, power.high, 1 - V{}), select(negative, power.low, V{})};
        Parts<V> y = quotient(numerator, denominator);
        return (y.high + y.low) * select(negative, e.rest, 1 - V{});
    }
    template <class V> static PYNN_INLINE V backward(V dy, V y) { return dy * fma(-y, y, y); }
};

struct tanh {
    template <class V> static PYNN_INLINE V forward(V x) {
        Parts<V> m = expm1_parts(-2 * magnitude(x));
        Parts<V> denominator = fast_two_sum(2 - V{}, m.high);
        denominator.low += m.low;
        Parts<V> y = quotient({-m.high, -m.low}, denominator);
        return with_sign_of(y.high + y.low, x);
    }
    template <class V> static PYNN_INLINE V backward(V dy, V y) { return dy * fma(-y, y, 1 - V{}); }
};

struct softplus {
    template <class V> static PYNN_INLINE V forward(V x) {
        // max(x, 0) + log(1 + e) with e = exp(-|x|), log(1 + e) = 2 atanh(e / (2 + e))
        Exponential<V> e = exponential(-magnitude(x));
        Parts<V> power = fast_two_sum(e.scale, e.scale * e.expm1.high);
        power.low = fma(e.scale, e.expm1.low, power.low);
        Parts<V> denominator = fast_two_sum(2 - V{}, power.high);
        denominator.low += power.low;
        Parts<V> z = quotient(power, denominator);
        V square = z.high * z.high;
        V tail = fma(z.high * square, polynomial(square, AtanhConstants<element<V>>::tail), z.low);
        V positive = select(x <= 0, V{}, x); // a NaN stays
        Parts<V> sum = two_sum(positive, 2 * z.high * e.rest);
        sum.low = select(sum.low == sum.low, sum.low, V{}); // x = inf
        return sum.high + fma(2 * tail, e.rest, sum.low);
    }
    template <class V> static PYNN_INLINE V backward(V dy, V y) {
        Parts<V> m = expm1_parts(select(y <= 0, V{}, -y)); // slope = sigmoid(x) = 1 - exp(-y)
        return dy * ((0 - m.high) - m.low);
    }
};

} // namespace
} // namespace pynn::PYNN_ISA

#endif
