// THE distribution table: one row (name, what its parameters must satisfy, their names) and one struct (random bits ->
// values) each. The fill kernels, the binding's names and checks and pynn.random follow from the row.
#ifndef PYNN_DISTRIBUTIONS_ROWS
#define PYNN_DISTRIBUTIONS_ROWS

#include <cstddef>
#include <cstdint>
#include <type_traits>

// ROW(name, what makes constants of the parameters, condition on the parameters in the dtype of the values, the same in
// words, parameters...); largest is the largest finite value. Conditions are false for NaN.
#define PYNN_DISTRIBUTIONS(ROW)                                                                                        \
    ROW(normal, copied, finite(loc, scale) && scale >= 0, "finite loc and scale, scale >= 0", loc, scale)              \
    ROW(uniform, ranged, finite(low, high) && low < high && high - low <= largest,                                     \
        "finite low < high and high - low finite", low, high)                                                          \
    ROW(truncated_normal, truncated,                                                                                   \
        finite(loc, scale) && scale >= 0 && lower < upper && normal_probability(lower, upper) >= 0x1p-64,              \
        "finite loc and scale, scale >= 0, lower < upper and at least 2**-64 of a normal distribution between them",   \
        loc, scale, lower, upper)

namespace pynn {

#define PYNN_COUNT(...) +1
inline constexpr std::size_t distribution_count = 0 PYNN_DISTRIBUTIONS(PYNN_COUNT);
#undef PYNN_COUNT

// What a kernel needs to know of the parameters, computed once per call.
template <class T> struct Constants {
    T value[8];
    std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t> split;
    bool careful; // whether draws must look out for rare values
};
template <class T> Constants<T> copied(const T *parameters, std::size_t count);
template <class T> Constants<T> ranged(const T *parameters, std::size_t count);
template <class T> Constants<T> truncated(const T *parameters, std::size_t count);
double normal_probability(double lower, double upper);

// Where the inverse of the normal distribution function changes from one approximation to the other
template <class T> constexpr T tail_end = T(0.02);

} // namespace pynn

#endif

// The structs, compiled once per instruction set. Draws come in pairs: two vectors of 32 (64) random bits per lane make
// two vectors of floats (doubles). A struct says for which types careful draws differ from others; where they leave something
// for later, it has finish(), for a buffer at a time.
#if defined(PYNN_ISA) && !defined(PYNN_DISTRIBUTIONS_STRUCTS)
#define PYNN_DISTRIBUTIONS_STRUCTS

#include "simd/math.hpp"

namespace pynn::PYNN_ISA {
namespace {

// The vector of unsigned integers with the lanes of V.
template <class V> using uints = vec<typename integers<sizeof(element<V>)>::unsigned_type>;

template <class V> struct Pair {
    V first, second;
};

constexpr std::size_t group_blocks = 16; // blocks whose words lie interleaved in a group of elements
template <class T> constexpr std::size_t group_size = group_blocks * 16 / sizeof(T);
constexpr std::size_t most_drawn = 1024; // of a buffer

// Constants<T>, each in all lanes
template <class V> struct Splats {
    V value[8];
    uints<V> split;
    PYNN_INLINE explicit Splats(const Constants<element<V>> &c) : split(splat<uints<V>>(c.split)) {
        for (std::size_t i = 0; i < 8; ++i) value[i] = splat<V>(c.value[i]);
    }
    // Not by the string instruction that GCC 12 would take
    PYNN_INLINE Splats(const Splats &other) : split(other.split) {
#pragma GCC unroll 8
        for (std::size_t i = 0; i < 8; ++i) value[i] = other.value[i];
    }
};

// Polynomials for Box and Muller's radius sqrt(-2 log u) and angle, minimax. u = (a + 1/2) / 2^32 for floats and
// ((a >> 11) + 1/2) / 2^53 for doubles, the angle likewise from b in turns; y is the angle less the nearest whole
// number of quarter turns, in those; h = pi / 2; g = 2 - 2 m with m the reduced u.
template <class T> struct NormalConstants;
template <> struct NormalConstants<float> {
    static constexpr int mantissa = 23;
    static constexpr std::int32_t two_thirds = 0x3f2aaaab;
    static constexpr float two_ln2 = 0x1.62e43p+0f;
    static constexpr float h_high = 0x1.921fb6p+0f, h_low = -0x1.777a5cp-25f;
    // sin(h y) / y - h and cos(h y) - 1, both over y^2, on |y| <= 1/2; 2^-28 and 2^-31 of sin and cos
    static constexpr float sine[] = {-0x1.4abbcp-1f, 0x1.46607ep-4f, -0x1.2ddceap-8f};
    static constexpr float cosine[] = {-0x1.3bd3ccp+0f, 0x1.03c1aep-2f, -0x1.55b148p-6f, 0x1.d47eaap-11f};
    // (-2 log(1 - g / 2) - g) / g^2 on |g| <= 2/3; 2^-26.5 of the logarithm
    static constexpr float log_tail[] = {0x1.0p-2f,       0x1.555502p-4f,  0x1.fffe84p-6f,
                                         0x1.99d1fcp-7f,  0x1.55a76p-8f,   0x1.1ebdc4p-9f,
                                         0x1.f25c6ap-11f, 0x1.1ed4bap-11f, 0x1.09355ep-12f};
};
template <> struct NormalConstants<double> {
    static constexpr int mantissa = 52;
    static constexpr std::int64_t two_thirds = 0x3fe5555555555555;
    static constexpr double two_ln2 = 0x1.62e42fefa39efp+0;
    static constexpr double h_high = 0x1.921fb54442d18p+0, h_low = 0x1.1a62633145c07p-54;
    // the same; 2^-58 and 2^-61
    static constexpr double sine[] = {-0x1.4abbce625be47p-1, 0x1.466bc67758dfcp-4,   -0x1.32d2cce33a86fp-8,
                                      0x1.50783021fd1b7p-13, -0x1.e300abe49a42bp-19, 0x1.e4059353f82b4p-25};
    static constexpr double cosine[] = {-0x1.3bd3cc9be45dep+0, 0x1.03c1f081b5a4fp-2,   -0x1.55d3c7e3bf5a8p-6,
                                        0x1.e1f5067499b91p-11, -0x1.a6d1e138433f2p-16, 0x1.f9c3d354f20fcp-22,
                                        -0x1.afee2a7aab1e7p-28};
    // 4 (atanh(t) - t) / t^3 in t^2 with t = g / (4 - g), so that -2 log(1 - g / 2) = 4 atanh(t); 2^-62
    static constexpr double log_tail[] = {0x1.555555555554fp+0, 0x1.999999999c1b5p-1, 0x1.24924921df090p-1,
                                          0x1.c71c74954a3e1p-2, 0x1.745c496d4a8afp-2, 0x1.3b35f29454646p-2,
                                          0x1.0dc82b1adfecdp-2, 0x1.1b997757a318dp-2};
};

template <class V> PYNN_INLINE V flip_sign(V v, ints<V> sign) { return as<V>(bits(v) ^ (sign & sign_bits<V>())); }

// u, or u - 1 where u > 1/2: exact but for a float's rounding of 32 bits
PYNN_INLINE vec<float> signed_distance(vec<std::int32_t> a) {
    return fma(convert<vec<float>>(a), splat<vec<float>>(0x1p-32f), splat<vec<float>>(0x1p-33f));
}
PYNN_INLINE vec<double> signed_distance(vec<std::int64_t> a) {
    vec<std::int64_t> sign = a >> 63;
    vec<std::uint64_t> mantissa = (vec<std::uint64_t>)(a ^ sign) >> 11;
    return flip_sign((vec<double>)(mantissa | 0x3fe0000000000000u) - (0.5 - 0x1p-54), sign);
}
// exponent * 2^mantissa as an integer vector -> scale * exponent + rest
PYNN_INLINE vec<float> add_exponent(vec<std::int32_t> exponent, float scale, vec<float> rest) {
    return fma(convert<vec<float>>(exponent), splat<vec<float>>(scale * 0x1p-23f), rest);
}
PYNN_INLINE vec<double> add_exponent(vec<std::int64_t> exponent, double scale, vec<double> rest) {
    vec<std::uint64_t> shifted = (vec<std::uint64_t>)(exponent + (std::int64_t(1024) << 52)) >> 52;
    return fma((vec<double>)(shifted | 0x4330000000000000u) - 0x1.00000000004p+52, splat<vec<double>>(scale), rest);
}
// -2 log(1 - g / 2)
PYNN_INLINE vec<float> minus_two_log(vec<float> g) {
    return fma(g * g, polynomial(g, NormalConstants<float>::log_tail), g);
}
PYNN_INLINE vec<double> minus_two_log(vec<double> g) {
    vec<double> t = g / (4 - g), square = t * t;
    return fma(t, fma(square, polynomial(square, NormalConstants<double>::log_tail), g), g);
}
// -2 log u; u = 2^exponent * m with 2/3 <= m < 4/3
template <class V> PYNN_INLINE V minus_two_log_of(V u) {
    using C = NormalConstants<element<V>>;
    ints<V> exponent = (bits(u) - C::two_thirds) & -(element<ints<V>>(1) << C::mantissa);
    V factor = as<V>(bits(-2 - V{}) - exponent); // -2 * 2^-exponent
    return add_exponent(exponent, -C::two_ln2, minus_two_log(fma(u, factor, 2 - V{})));
}
// The angle less the nearest whole number of quarter turns, in quarter turns: exact but for the float's rounding
PYNN_INLINE vec<float> rest_of_angle(vec<std::uint32_t> b) {
    return fma(convert<vec<float>>((vec<std::int32_t>)(b << 2)), splat<vec<float>>(0x1p-32f),
               splat<vec<float>>(0x1p-31f));
}
PYNN_INLINE vec<double> rest_of_angle(vec<std::uint64_t> b) {
    vec<std::uint64_t> mantissa = ((b << 2) + (std::uint64_t(1) << 63)) >> 12;
    return (vec<double>)(mantissa | 0x3ff0000000000001u) - 1.5;
}

struct normal {
    static constexpr bool fills_registers = true;
    template <class T> static constexpr bool has_careful = false;
    template <bool Careful, class V> static PYNN_INLINE Pair<V> draw(uints<V> a, uints<V> b, const Splats<V> &p) {
        const V loc = p.value[0], scale = p.value[1];
        using I = ints<V>;
        using C = NormalConstants<element<V>>;
        constexpr int top = 8 * sizeof(element<V>) - 1;
        // u = 2^exponent * m with 2/3 <= m < 4/3; near u = 1 its distance from 1 keeps g accurate
        I upper = (I)a >> top; // all ones where u > 1/2
        V distance = signed_distance((I)a);
        V u = distance + as<V>(upper & bits(1 - V{}));
        I exponent = (bits(u) - C::two_thirds) & -(element<I>(1) << C::mantissa);
        V factor = as<V>(bits(-2 - V{}) - exponent); // -2 * 2^-exponent
        V g = fma(distance, factor, as<V>(upper & bits(factor)) + 2);
        V radius = sqrt(add_exponent(exponent, -C::two_ln2, minus_two_log(g)));

        V y = rest_of_angle(b), square = y * y;
        V sine = fma(y, splat<V>(C::h_high), y * fma(square, polynomial(square, C::sine), splat<V>(C::h_low)));
        V cosine = fma(square, polynomial(square, C::cosine), 1 - V{});
        constexpr element<uints<V>> quarter = element<uints<V>>(1) << (top - 1);
        uints<V> turns = b + quarter / 2; // its two highest bits: the nearest whole number of quarter turns
        auto odd = (turns & quarter) != 0;
        V x = flip_sign(select(odd, sine, cosine), (I)(turns + quarter));
        V z = flip_sign(select(odd, cosine, sine), (I)turns);
        return {fma(scale, radius * x, loc), fma(scale, radius * z, loc)};
    }
};

PYNN_INLINE vec<float> highest_24_bits(vec<std::uint32_t> r) {
    return convert<vec<float>>((vec<std::int32_t>)(r >> 8));
}
// The highest 24 (53) bits as a fraction in [0, 1)
PYNN_INLINE vec<float> fraction(vec<std::uint32_t> r) { return highest_24_bits(r) * 0x1p-24f; }
PYNN_INLINE vec<double> fraction(vec<std::uint64_t> r) {
    vec<std::uint64_t> upper = (r << 1) >> 12, low = ~(vec<std::uint64_t>)((vec<std::int64_t>)r >> 63);
    return (vec<double>)(upper | 0x3fe0000000000000u) - (vec<double>)(low & 0x3fe0000000000000u);
}

struct uniform {
    static constexpr bool fills_registers = false;
    template <class T> static constexpr bool has_careful = sizeof(T) == 4;
    template <bool Careful, class V> static PYNN_INLINE Pair<V> draw(uints<V> a, uints<V> b, const Splats<V> &p) {
        const V low = p.value[0], high = p.value[1];
        if constexpr (has_careful<element<V>> && !Careful) {
            return {fma(highest_24_bits(a), p.value[2], low), fma(highest_24_bits(b), p.value[2], low)};
        } else {
            // last: the next value below high
            uints<V> pattern = (uints<V>)high, below_zero = (uints<V>)sign_bits<V>() | 1;
            V last = (V)select(high > 0, pattern - 1, select(high < 0, pattern + 1, below_zero));
            V x = fma(fraction(a), high - low, low), y = fma(fraction(b), high - low, low);
            return {select(x < last, x, last), select(y < last, y, last)};
        }
    }
};

// The inverse of the normal distribution function by rational approximations (error relative to x): at q = p - 1/2 it
// is q * inner(t (1 - t)), t = min(p, 1 - p), and for t < 0.02 outer(sqrt(-2 log t)). Denominators begin with 1.
template <class T> struct InverseConstants;
template <> struct InverseConstants<float> {
    static constexpr int unused = 1;         // bits of a word, so that the others are a whole number of either sign
    static constexpr float mark = 0x1p+104f; // tails are 2^-96 and more, of doubles 2^-117
    // 2^-25.6 and 2^-29.2
    static constexpr float inner[] = {0x1.97fd0cp+2f,  0x1.6fe3f4p+10f, 0x1.818988p+15f,
                                      0x1.38d084p+18f, 0x1.09ef4ep+18f, -0x1.3fcc2ap+15f};
    static constexpr float inner_divisor[] = {0x1.0p+0f, 0x1.32b9c4p+8f, 0x1.a94196p+13f, 0x1.f385eep+16f,
                                              0x1.ad4fbp+17f};
    static constexpr float outer[] = {-0x1.690eeap+1f, -0x1.5f9106p+1f, 0x1.3947ecp+1f, 0x1.7e8a2cp+0f, 0x1.df7a8p-4f};
    static constexpr float outer_divisor[] = {0x1.0p+0f, 0x1.7de044p+1f, 0x1.7f58c2p+0f, 0x1.df6004p-4f};
};
template <> struct InverseConstants<double> {
    static constexpr int unused = 12;
    static constexpr double mark = 0x1p+125;
    // 2^-55.6 and 2^-61.3
    static constexpr double inner[] = {0x1.cbe1eaaff45a5p+2,  0x1.27308d81ebdbfp+13, 0x1.40c5c5058a425p+21,
                                       0x1.e321d4eb93e28p+27, 0x1.2fc8805f3bccap+33, 0x1.58e4b7dee501cp+37,
                                       0x1.679b58c97f309p+40, 0x1.4c45ec59494d9p+42, 0x1.e91c232e81583p+42,
                                       0x1.bd45165f4d9fcp+41, 0x1.c2ce4d82b36b3p+37};
    static constexpr double inner_divisor[] = {0x1.0p+0,
                                               0x1.8d88b01357039p+10,
                                               0x1.f237f3e2ebcap+18,
                                               0x1.ac8b99bd33b56p+25,
                                               0x1.34f0b6b2f9b29p+31,
                                               0x1.977fd4629caaep+35,
                                               0x1.f98433f6a81bdp+38,
                                               0x1.212410ff050fp+41,
                                               0x1.1aab8ae803436p+42,
                                               0x1.8c3e305d8dd62p+41,
                                               0x1.fbe95d4fcf29bp+38};
    static constexpr double outer[] = {-0x1.c18c0816746edp+1, -0x1.7b6442a6e089ep+4, -0x1.87654a9083201p+4,
                                       0x1.dc5cde314362bp+2,  0x1.0627dfb0f78d5p+4,  0x1.dffd552e92184p+2,
                                       0x1.977a2739a8e32p+0,  0x1.356e048d88cddp-3,  0x1.6530c2bf1b572p-8,
                                       0x1.c12cd5898fa56p-15};
    static constexpr double outer_divisor[] = {0x1.0p+0,
                                               0x1.667f2fc8b1a6bp+3,
                                               0x1.9bb28c45914d8p+4,
                                               0x1.51448a3584d81p+4,
                                               0x1.0216c2899417fp+3,
                                               0x1.9e2f44bfa34fp+0,
                                               0x1.3622f12b7c09cp-3,
                                               0x1.65352a63823aep-8,
                                               0x1.c12bc49283491p-15};
};

PYNN_INLINE vec<float> whole_number(vec<std::int32_t> n) { return convert<vec<float>>(n); }
// |n| <= 2^52
PYNN_INLINE vec<double> whole_number(vec<std::int64_t> n) {
    vec<std::int64_t> sign = n >> 63;
    return flip_sign((vec<double>)(((n ^ sign) - sign) + 0x4330000000000000) - 0x1p+52, sign);
}

struct truncated_normal {
    static constexpr bool fills_registers = false;
    template <class T> static constexpr bool has_careful = true;
    // Of a word r of n bits, the probability below x is below(lower) + (r + 1/2) width, above it above(upper) +
    // (2^n - 1 - r + 1/2) width. Each half of the distribution takes the one that is small there. A careful draw puts that of a
    // tail in the place of x, times what makes it greater than every x, and negative on the left.
    template <bool Careful, class V> static PYNN_INLINE V draw(uints<V> word, const Splats<V> &p) {
        using I = ints<V>;
        using C = InverseConstants<element<V>>;
        const V width = p.value[4], below = p.value[5], above = p.value[6], offset = p.value[7];
        uints<V> r = word >> C::unused;
        I distance = (I)(r - p.split);
        I left = distance >> (8 * sizeof(element<V>) - 1);
        V q = fma(whole_number(distance), width, offset);
        V tail = fma(whole_number((I)(r ^ ((uints<V>)~left >> C::unused))), width, select(left != 0, below, above));
        V product = fma(-tail, tail, tail);
        V x = q * (polynomial(product, C::inner) / polynomial(product, C::inner_divisor));
        if constexpr (Careful)
            return select(tail < tail_end<element<V>>, flip_sign(tail * C::mark, left), x);
        else
            return scaled(x, p);
    }
    template <bool Careful, class V> static PYNN_INLINE Pair<V> draw(uints<V> a, uints<V> b, const Splats<V> &p) {
        return {draw<Careful>(a, p), draw<Careful>(b, p)};
    }
    template <class V> static PYNN_INLINE V scaled(V x, const Splats<V> &p) {
        const V loc = p.value[0], scale = p.value[1], lower = p.value[2], upper = p.value[3];
        x = select(x < lower, lower, x);
        x = select(x > upper, upper, x);
        return fma(scale, x, loc);
    }
    // Of marked tails
    template <class V>
    static __attribute__((noinline)) void finish_tails(element<V> *values, std::size_t n, const Splats<V> &p) {
        using C = InverseConstants<element<V>>;
        for (std::size_t i = 0; i < n; i += width<element<V>>) {
            V marked = load<V>(values + i);
            V y = sqrt(minus_two_log_of(magnitude(marked) * (1 / C::mark)));
            V x = flip_sign(polynomial(y, C::outer) / polynomial(y, C::outer_divisor), bits(marked));
            store(values + i, scaled(x, p));
        }
    }
    // Tails mostly lie far between, and are brought together for it.
    template <class V>
    static __attribute__((noinline)) void finish(element<V> *values, std::size_t n, const Splats<V> &p) {
        using T = element<V>;
        constexpr std::size_t lanes = width<T>, group = group_size<T>;
        constexpr std::uint64_t all = ~std::uint64_t(0) >> (64 - group);
        alignas(V) T tails[most_drawn + lanes];
        std::uint16_t places[most_drawn];
        std::size_t count = 0;
        for (std::size_t start = 0; start < n; start += group) {
            std::uint64_t marks = 0;
            for (std::size_t i = 0; i < group; i += lanes) {
                V v = load<V>(values + start + i);
                auto marked = magnitude(v) > 64;
                marks |= static_cast<std::uint64_t>(lane_bits((ints<V>)marked)) << i;
                store(values + start + i, select(marked, v, scaled(v, p)));
            }
            if (marks == all) {
                finish_tails(values + start, group, p);
                continue;
            }
            for (; marks != 0; marks &= marks - 1, ++count) {
                const std::size_t place = start + static_cast<std::size_t>(__builtin_ctzll(marks));
                places[count] = static_cast<std::uint16_t>(place);
                tails[count] = values[place];
            }
        }
        store(tails + count, splat<V>(InverseConstants<T>::mark)); // makes whole vectors
        finish_tails(tails, count, p);
        for (std::size_t i = 0; i < count; ++i) values[places[i]] = tails[i];
    }
};

} // namespace
} // namespace pynn::PYNN_ISA

#include "kernels/random.hpp"

#endif
