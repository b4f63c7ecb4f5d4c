// THE table of elementwise losses: one row (name) and one struct (value and slope with respect to x) each. Softmax
// cross-entropy, which is no sum over elements, is in kernels/losses.hpp.
#ifndef PYNN_LOSSES_ROWS
#define PYNN_LOSSES_ROWS

#include <cstddef>

// ROW(name); x is the prediction, t the target, c a parameter
#define PYNN_LOSSES(ROW)                                                                                               \
    ROW(half_squared_error)                                                                                            \
    ROW(huber)                                                                                                         \
    ROW(sigmoid_cross_entropy)                                                                                         \
    ROW(binary_cross_entropy)                                                                                          \
    ROW(cross_entropy)

namespace pynn {

#define PYNN_COUNT(...) +1
inline constexpr std::size_t loss_count = 0 PYNN_LOSSES(PYNN_COUNT);
#undef PYNN_COUNT

} // namespace pynn

#endif

// The structs, compiled once per instruction set.
#if defined(PYNN_ISA) && !defined(PYNN_LOSSES_STRUCTS)
#define PYNN_LOSSES_STRUCTS

#include "activations.hpp"
#include "simd/math.hpp"

namespace pynn::PYNN_ISA {
namespace {

template <class T> struct LogConstants;
template <> struct LogConstants<float> {
    static constexpr std::int32_t two_thirds = 0x3f2aaaab;
    static constexpr float ln2_high = 0x1.62e4p-1f, ln2_low = 0x1.7f7d1cp-20f;
    // (atanh(z) - z) / z^3 in z^2 on 0 <= z <= 1/3, minimax, 2^-28
    static constexpr float tail[] = {0x1.555556p-2f, 0x1.9998ccp-3f, 0x1.24ca86p-3f, 0x1.bc6498p-4f, 0x1.dc5c22p-4f};
};
template <> struct LogConstants<double> {
    static constexpr std::int64_t two_thirds = 0x3fe5555555555555;
    static constexpr double ln2_high = 0x1.62e42fefa38p-1, ln2_low = 0x1.ef35793c7673p-45;
    static constexpr const auto &tail = AtanhConstants::tail;
};

// log(x) of a normal x > 0, to a few units of the last place: x = 2^n m with 2/3 <= m < 4/3, log(m) = 2 atanh(z). That of
// 0, of a negative number and of NaN is NaN; of inf, inf.
template <class V> PYNN_INLINE V log_of(V x) {
    using T = element<V>;
    using C = LogConstants<T>;
    ints<V> n = (bits(x) - C::two_thirds) >> ExpConstants<T>::mantissa;
    V m = as<V>(bits(x) - (n << ExpConstants<T>::mantissa)), whole = convert<V>(n);
    V z = (m - 1) / (m + 1);
    V square = z * z;
    V tail = 2 * z * square * polynomial(square, C::tail);
    V y = fma(whole, splat<V>(C::ln2_high), 2 * z + fma(whole, splat<V>(C::ln2_low), tail));
    const T greatest = static_cast<T>(sizeof(T) == 4 ? 0x1.fffffep127 : 0x1.fffffffffffffp1023);
    y = select(x > greatest, x, y);
    return select(x > 0, y, splat<V>(static_cast<T>(__builtin_nan(""))));
}

struct half_squared_error {
    template <class V> static PYNN_INLINE V value(V x, V t, V) {
        V d = x - t;
        return static_cast<element<V>>(0.5) * d * d;
    }
    template <class V> static PYNN_INLINE V slope(V x, V t, V) { return x - t; }
};

struct huber { // c: where the parabola goes over into lines
    template <class V> static PYNN_INLINE V value(V x, V t, V c) {
        V a = magnitude(x - t), half = splat<V>(static_cast<element<V>>(0.5));
        return select(a > c, c * (a - half * c), half * a * a);
    }
    template <class V> static PYNN_INLINE V slope(V x, V t, V c) {
        V d = x - t;
        return select(d > c, c, select(d < -c, -c, d));
    }
};

struct sigmoid_cross_entropy { // x before the sigmoid
    template <class V> static PYNN_INLINE V value(V x, V t, V) {
        V certain = select(x > 0, splat<V>(1), V{}); // of that target an infinite x has no loss: not inf - inf
        const V infinite = splat<V>(static_cast<element<V>>(__builtin_inf()));
        V other = select(x == infinite, x * (1 - t), select(x > 0, x, V{}) - x * t);
        V distance = select(t == certain, V{}, other);
        return distance + softplus::forward(-magnitude(x));
    }
    template <class V> static PYNN_INLINE V slope(V x, V t, V) { return sigmoid::forward(x) - t; }
};

struct binary_cross_entropy { // c: added to probabilities
    template <class V> static PYNN_INLINE V value(V x, V t, V c) {
        return -(t * log_of(x + c) + (1 - t) * log_of((1 - x) + c));
    }
    template <class V> static PYNN_INLINE V slope(V x, V t, V c) { return (1 - t) / ((1 - x) + c) - t / (x + c); }
};

struct cross_entropy { // c: added to probabilities
    template <class V> static PYNN_INLINE V value(V x, V t, V c) { return -(t * log_of(x + c)); }
    template <class V> static PYNN_INLINE V slope(V x, V t, V c) { return -(t / (x + c)); }
};

} // namespace
} // namespace pynn::PYNN_ISA

#endif
