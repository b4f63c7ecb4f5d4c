// The constants of a fill: the normal distribution function from + - * / in double, in an order that is the same
// everywhere. No bits of a stream depend on a libm.
#include "distributions.hpp"

#include <cmath>
#include <limits>
#include <utility>

namespace pynn {
namespace {

constexpr double root_of_two_pi = 0x1.40d931ff62706p+1;

// e^-y for 0 <= y < 745
double exp_minus(double y) {
    constexpr double ln2_high = 0x1.62e42fefa38p-1, ln2_low = 0x1.ef35793c7673p-45;
    const int n = static_cast<int>(y * 0x1.71547652b82fep+0 + 0.5);
    const double r = (n * ln2_high - y) + n * ln2_low;
    double sum = 1;
    for (int k = 18; k > 0; --k) sum = 1 + sum * r / k;
    for (int k = 0; k < n; ++k) sum /= 2;
    return sum;
}

// The density at x; x^2 / 2 keeps all its digits in two parts.
double density(double x) {
    const double high = static_cast<float>(x);
    return exp_minus(high * high / 2) * exp_minus((x - high) * (x + high) / 2 + 1) * 0x1.5bf0a8b145769p+1 /
           root_of_two_pi;
}

// The probability between 0 and x, 0 <= x < 1.25
double series(double x) {
    double sum = 0;
    for (int k = 61; k > 0; k -= 2) sum = 1 + sum * x * x / (k + 2);
    return density(x) * x * sum;
}

// The probability above x >= 1.25
double continued_fraction(double x) {
    if (x > 37) return 0;
    double fraction = x;
    for (int k = 240; k > 0; --k) fraction = x + k / fraction;
    return density(x) / fraction;
}

// The probabilities between 0 and x and above x >= 0. A call asks for those of its two bounds several times, and the next
// call often has the same.
struct Half {
    double inner, above;
};
Half half(double x) {
    thread_local struct {
        double x = -1;
        Half half;
    } known[2];
    if (x == known[0].x) return known[0].half;
    if (x != known[1].x) {
        known[1].x = x;
        if (x < 1.25) { // beyond, the difference would keep too few digits
            const double inner = series(x);
            known[1].half = {inner, 0.5 - inner};
        } else {
            const double above = continued_fraction(x);
            known[1].half = {0.5 - above, above};
        }
    }
    std::swap(known[0], known[1]);
    return known[0].half;
}

double above(double x) { return half(x).above; }

// The probability between 0 and x, negative below 0
double signed_inner(double x) { return x < 0 ? -half(-x).inner : half(x).inner; }

} // namespace

double normal_probability(double lower, double upper) {
    if (lower >= 1) return above(lower) - above(upper);
    if (upper <= -1) return above(-upper) - above(-lower);
    return signed_inner(upper) - signed_inner(lower);
}

template <class T> Constants<T> copied(const T *parameters, std::size_t count) {
    Constants<T> constants = {};
    for (std::size_t i = 0; i < count; ++i) constants.value[i] = parameters[i];
    return constants;
}

// A float is low + (high - low) k / 2^24, k < 2^24. That is one multiplication and addition where (high - low) / 2^24 is exact, and
// below high without looking where the last, before it is rounded, lies nearer to the number below high.
template <class T> Constants<T> ranged(const T *parameters, std::size_t count) {
    Constants<T> constants = copied(parameters, count);
    if constexpr (sizeof(T) == 4) {
        const T low = parameters[0], high = parameters[1], step = (high - low) * T(0x1p-24);
        const double last = low + static_cast<double>(high - low) * (1 - 0x1p-24);
        const double middle = (static_cast<double>(std::nextafter(high, low)) + high) / 2;
        constants.value[2] = step;
        constants.careful = !(step >= std::numeric_limits<T>::min() && last < middle);
    }
    return constants;
}

// docs/numerics.md, section 5, says what these are.
template <class T> Constants<T> truncated(const T *parameters, std::size_t count) {
    constexpr double words = sizeof(T) == 4 ? 0x1p31 : 0x1p52;
    const double lower = parameters[2], upper = parameters[3];
    const double width = normal_probability(lower, upper) / words, from = signed_inner(lower);
    const double median = -from / width - 0.5; // the word whose x is 0, not rounded
    double split = 0;
    if (median >= words)
        split = words;
    else if (median > 0)
        split = static_cast<double>(static_cast<std::int64_t>(median + 0.5));
    const bool inside = split > 0 && split < words;
    const double below = lower < 0 ? above(-lower) : 0.5 + from,
                 over = upper > 0 ? above(upper) : 0.5 - signed_inner(upper);
    const double offset = inside      ? (split - median) * width
                          : split > 0 ? signed_inner(upper) + 0.5 * width
                                      : from + 0.5 * width;
    Constants<T> constants = copied(parameters, count);
    constants.value[4] = static_cast<T>(width);
    constants.value[5] = static_cast<T>(below + 0.5 * width);
    constants.value[6] = static_cast<T>(over + 0.5 * width);
    constants.value[7] = static_cast<T>(offset);
    constants.split = static_cast<decltype(constants.split)>(split);
    constants.careful = constants.value[5] < tail_end<T> || constants.value[6] < tail_end<T>;
    return constants;
}

template Constants<float> copied(const float *, std::size_t);
template Constants<double> copied(const double *, std::size_t);
template Constants<float> ranged(const float *, std::size_t);
template Constants<double> ranged(const double *, std::size_t);
template Constants<float> truncated(const float *, std::size_t);
template Constants<double> truncated(const double *, std::size_t);

} // namespace pynn
