// Philox4x32-10 (Salmon, Moraes, Dror and Shaw, 2011) over vectors of counter blocks, and the loop that fills memory
// with a distribution's values. Element i of a stream is a function of the key and i alone.
#pragma once

#include "simd/vec.hpp"

namespace pynn::PYNN_ISA {
namespace {

// A 32-bit word of one block per lane, in the low half; the high half is arbitrary.
using Words = vec<std::uint64_t>;

constexpr std::uint64_t philox_multiplier0 = 0xD2511F53, philox_multiplier1 = 0xCD9E8D57;
constexpr std::uint32_t philox_weyl0 = 0x9E3779B9, philox_weyl1 = 0xBB67AE85;
constexpr int philox_rounds = 10;
// Of a step. A round waits longer for its multiplications than the CPU looks ahead: more vectors, more that waits for nothing.
constexpr std::size_t vectors_of_blocks = vector_registers == 32 || width<std::uint64_t> > 2 ? 4 : 2;

// The low (high) halves of the lanes of a and b as 32-bit lanes a0, a1, b0, b1, a2, a3, b2, b3, ...: of floats, as GCC 12 makes
// several operations of it for integers
template <std::size_t Half, std::size_t... I> PYNN_INLINE Words halves(Words a, Words b, std::index_sequence<I...>) {
    return (Words)__builtin_shufflevector((vec<float>)a, (vec<float>)b,
                                          (I / 4 * 4 + I % 2 * 2 + I % 4 / 2 * sizeof...(I) + Half)...);
}

// The keys of the rounds, for block numbers that share their upper 32 bits. Words 2 and 3 of the counter are 0, so that the first
// two rounds fold into constants but for one multiplication each. Not in line, like all that a fill does once: for size.
struct RoundKeys {
    Words first[philox_rounds], second[philox_rounds];

    __attribute__((noinline)) RoundKeys(std::uint64_t key, std::uint64_t block) {
        std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
        std::uint64_t folded = philox_multiplier0 * (static_cast<std::uint32_t>(block >> 32) ^ k0);
        for (int round = 0; round < philox_rounds; ++round) {
            first[round] = splat<Words>(k0);
            second[round] = splat<Words>(k1 ^ (round == 1 ? folded >> 32 : round == 2 ? folded & 0xffffffffu : 0));
            k0 += philox_weyl0;
            k1 += philox_weyl1;
        }
    }
    PYNN_INLINE RoundKeys(const RoundKeys &other) { // not by the string instruction that GCC 12 would take
#pragma GCC unroll 10
        for (int round = 0; round < philox_rounds; ++round) {
            first[round] = other.first[round];
            second[round] = other.second[round];
        }
    }
};

// The words of consecutive blocks, some vectors of blocks a step: for floats one vector of a pair has blocks 0, 1, 4, 5, ... and one
// has 2, 3, 6, 7, ..., so that the halves of 64-bit lanes end up in order. Where they alternate, one pair has the even blocks and
// the next the odd ones. Elements are drawn by units: a group, or the groups of a step where that has more.
template <class T, std::size_t Vectors, bool Alternate = false> struct Generator {
    static constexpr bool single = sizeof(T) == 4, alternate = Alternate;
    static constexpr std::size_t vectors = Vectors, lanes = width<std::uint64_t>, step_blocks = vectors * lanes;
    static constexpr std::size_t unit_blocks = step_blocks > group_blocks ? step_blocks : group_blocks;
    static constexpr std::size_t unit_size = unit_blocks * 16 / sizeof(T);
    using State = Words[vectors][4];

    Words product; // multiplier0 times the lower 32 bits of the block numbers, for the next step's first vector
    // Operands of draws: of floats words 0, 1 and words 2, 3 of a pair of vectors; of doubles all words of one
    Words bits[vectors][2];

    __attribute__((noinline)) Generator(const RoundKeys &keys, std::uint64_t block) {
        std::uint64_t products[lanes];
        for (std::size_t lane = 0; lane < lanes; ++lane) {
            const std::size_t number = single ? lane / 2 * 4 + lane % 2 : lane;
            products[lane] = philox_multiplier0 * (static_cast<std::uint32_t>(block) + number * (Alternate ? 2 : 1));
        }
        product = load<Words>(products);
        State state;
        begin(keys, state);
        rounds(keys, state, 2, philox_rounds - 1);
        end(keys, state);
    }

    // Rounds 0 and 1 of the next step.
    PYNN_INLINE void begin(const RoundKeys &keys, State &state) {
        Words products[vectors];
        for (std::size_t i = 0; i < vectors; ++i) {
            const std::size_t number = Alternate ? i / 2 + i % 2 * 4 : single ? (i / 2 * lanes + i % 2) * 2 : i * lanes;
            products[i] = product + number * philox_multiplier0;
        }
        product += step_blocks * philox_multiplier0;
        for (std::size_t i = 0; i < vectors; ++i) {
            Words(&w)[4] = state[i];
            w[1] = mul_low((products[i] >> 32) ^ keys.second[0], splat<Words>(philox_multiplier1));
            w[0] = (w[1] >> 32) ^ keys.first[1];
            w[2] = products[i] ^ keys.second[1];
            w[3] = Words{};
        }
    }
    // The vectors by turns, so that the CPU finds work that waits for nothing.
    static PYNN_INLINE void rounds(const RoundKeys &keys, State &state, int from, int to) {
        for (int round = from; round < to; ++round)
            for (Words(&w)[4] : state) {
                Words p0 = mul_low(w[0], splat<Words>(philox_multiplier0));
                Words p1 = mul_low(w[2], splat<Words>(philox_multiplier1));
                w[0] = (p1 >> 32) ^ w[1] ^ keys.first[round];
                w[1] = p1;
                w[2] = (p0 >> 32) ^ w[3] ^ keys.second[round];
                w[3] = p0;
            }
    }
    // The last round, whose words go to their places.
    PYNN_INLINE void end(const RoundKeys &keys, const State &state) {
        constexpr auto all = std::make_index_sequence<width<std::uint32_t>>();
        const Words last0 = keys.first[philox_rounds - 1], last1 = keys.second[philox_rounds - 1];
        Words p0[vectors], p1[vectors];
        for (std::size_t i = 0; i < vectors; ++i) {
            p0[i] = mul_low(state[i][0], splat<Words>(philox_multiplier0));
            p1[i] = mul_low(state[i][2], splat<Words>(philox_multiplier1));
        }
        if constexpr (single) {
            const Words both0 = last0 | last0 << 32, both1 = last1 | last1 << 32;
            for (std::size_t i = 0; i < vectors; i += 2) {
                bits[i][0] = halves<1>(p1[i], p1[i + 1], all) ^ halves<0>(state[i][1], state[i + 1][1], all) ^ both0;
                bits[i][1] = halves<0>(p1[i], p1[i + 1], all);
                bits[i + 1][0] =
                    halves<1>(p0[i], p0[i + 1], all) ^ halves<0>(state[i][3], state[i + 1][3], all) ^ both1;
                bits[i + 1][1] = halves<0>(p0[i], p0[i + 1], all);
            }
        } else {
            for (std::size_t i = 0; i < vectors; ++i) {
                bits[i][0] = (p1[i] >> 32 | p1[i] << 32) ^ (state[i][1] & 0xffffffffu) ^ last0;
                bits[i][1] = (p0[i] >> 32 | p0[i] << 32) ^ (state[i][3] & 0xffffffffu) ^ last1;
            }
        }
    }
};

template <class D, bool Careful, class T>
PYNN_INLINE void draw(const Words (&bits)[2], const Splats<vec<T>> &constants, T *out) {
    using V = vec<T>;
    Pair<V> values = D::template draw<Careful, V>((uints<V>)bits[0], (uints<V>)bits[1], constants);
    store(out, values.first);
    store(out + group_blocks, values.second);
}

// Where the draw of bits[i] goes that a step makes which begins with a unit's block `block`
template <class T> constexpr std::size_t place_of_draw(std::size_t block, std::size_t i) {
    constexpr bool single = sizeof(T) == 4;
    block += (single ? i / 2 * 2 : i) * width<std::uint64_t>;
    return block / group_blocks * group_size<T> + block % group_blocks + (single ? i % 2 * 2 * group_blocks : 0);
}

// The next unit. The rounds of a step run between the draws of the step before: one waits for multiplications while the other
// computes. Where a draw fills the registers by itself, they run all at once, before the last.
template <class D, bool Careful, class T, class G>
PYNN_INLINE void draw_unit(T *out, const RoundKeys &keys, G &generator, const Splats<vec<T>> &constants) {
    for (std::size_t block = 0; block < G::unit_blocks; block += G::step_blocks) {
        constexpr int first = 2, last = philox_rounds - 1, draws = G::vectors;
        typename G::State state;
        generator.begin(keys, state);
#pragma GCC unroll 4
        for (int i = 0; i < draws; ++i) {
            auto before = [](int draw) {
                if constexpr (vector_registers == 16 && D::fills_registers) return draw < draws ? first : last;
                return first + draw * (last - first) / draws;
            };
            G::rounds(keys, state, before(i), before(i + 1));
            draw<D, Careful>(generator.bits[i], constants, out + place_of_draw<T>(block, i));
        }
        generator.end(keys, state);
    }
}

// A function of its own, which floats and 16-bit numbers share. It reads a copy of the constants in every step: where what is read is 4096
// bytes from what is written, reading waits.
template <class D, bool Careful, class T, class G>
__attribute__((noinline)) void draw_units(T *__restrict out, const RoundKeys &__restrict keys, G &__restrict next,
                                          std::size_t units, const Splats<vec<T>> &given) {
    const Splats<vec<T>> constants = given;
    G generator = next;
    for (T *end = out + units * G::unit_size; out != end; out += G::unit_size)
        draw_unit<D, Careful>(out, keys, generator, constants);
    next = generator;
}

// How values are kept: as they are, or rounded to 16 bits, to nearest, ties to even, subnormals too; NaN does not occur.
template <class T> struct Same {
    using Drawn = T;
    using Kept = T;
};
struct BFloat16 {
    using Drawn = float;
    using Kept = std::uint16_t;
    static constexpr std::size_t half = 1;
    static PYNN_INLINE vec<std::uint32_t> round(vec<std::uint32_t> word) { return word + 0x7fff + ((word >> 16) & 1); }
};
struct Float16 {
    using Drawn = float;
    using Kept = std::uint16_t;
    static constexpr std::size_t half = 0;
    static PYNN_INLINE vec<std::uint32_t> round(vec<std::uint32_t> word) {
        using U = vec<std::uint32_t>;
        U sign = word & 0x80000000u, size = word ^ sign;
        U normal = (size - (112u << 23) + 0xfff + ((size >> 13) & 1)) >> 13;
        U small = (U)((vec<float>)size + 0.5f) - 0x3f000000u; // the addition rounds to its unit, 2^-24
        vec<std::int32_t> sized = (vec<std::int32_t>)size;
        U result = (U)select(sized < 0x38800000, (vec<std::int32_t>)small, (vec<std::int32_t>)normal);
        result = (U)select(sized >= 0x477ff000, vec<std::int32_t>{} + 0x7c00, (vec<std::int32_t>)result);
        return result | (sign >> 16);
    }
};

// The halves of 32-bit lanes that Half names, of two vectors in one: one after the other or, the upper ones, by turns
template <std::size_t Half, bool Alternate, std::size_t... I>
PYNN_INLINE vec<std::uint16_t> narrow(vec<std::uint32_t> a, vec<std::uint32_t> b, std::index_sequence<I...>) {
    using H = vec<std::uint16_t>;
    static_assert(Half == 1 || !Alternate);
    if constexpr (Alternate)
        return __builtin_shufflevector((H)(a >> 16), (H)b, (I % 2 * sizeof...(I) + I)...);
    else
        return __builtin_shufflevector((H)a, (H)b, (2 * I + Half)...);
}
template <class Format, bool Alternate>
PYNN_INLINE vec<std::uint16_t> narrow(vec<std::uint32_t> a, vec<std::uint32_t> b) {
    return narrow<Format::half, Alternate>(a, b, std::make_index_sequence<width<std::uint16_t>>());
}

// To 16 bits. Half a unit added rounds to bfloat16 all but ties, which then end in zeros, and are rare. (Zeros, and numbers so small
// that they begin with as many, look the same.)
template <class Format, bool Alternate>
PYNN_INLINE void round_values(const float *values, std::uint16_t *out, std::size_t n) {
    using U = vec<std::uint32_t>;
    using H = vec<std::uint16_t>;
    constexpr std::size_t lanes = width<float>;
    auto patterns = [&](std::size_t at) { return (U)load<vec<float>>(values + at); };
    if constexpr (std::is_same_v<Format, BFloat16>) {
        H least = ~H{};
#pragma GCC unroll 4
        for (std::size_t i = 0; i < n; i += 2 * lanes) {
            const U a = patterns(i) + 0x8000, b = patterns(i + lanes) + 0x8000;
            const H less = (H)a < (H)b ? (H)a : (H)b;
            least = less < least ? less : least;
            store(out + i, narrow<Format, Alternate>(a, b));
        }
        if (!any((vec<std::int32_t>)(least == 0))) return;
    }
    for (std::size_t i = 0; i < n; i += 2 * lanes)
        store(out + i, narrow<Format, Alternate>(Format::round(patterns(i)), Format::round(patterns(i + lanes))));
}

template <class Format>
__attribute__((noinline)) void round_buffer(const float *values, std::uint16_t *out, std::size_t n) {
    round_values<Format, false>(values, out, n);
}

// So short a rounding follows each unit, and needs no function that the draws would have to leave their registers for. The keys are copied
// too, as each unit is written to the same place.
template <class D, class G>
__attribute__((noinline)) void draw_bfloat16(std::uint16_t *__restrict out, const RoundKeys &given_keys, const G &first,
                                             std::size_t units, const Splats<vec<float>> &given) {
    const RoundKeys keys = given_keys;
    const Splats<vec<float>> constants = given;
    G generator = first;
    for (std::uint16_t *end = out + units * G::unit_size; out != end; out += G::unit_size) {
        alignas(vec<float>) float values[G::unit_size];
        draw_unit<D, false>(values, keys, generator, constants);
        round_values<BFloat16, G::alternate>(values, out, G::unit_size);
    }
}

// Whether careful draws leave something for later
template <class D, class T>
constexpr bool finishes = requires(T *values, const Splats<vec<T>> &constants) { D::finish(values, 1, constants); };

// n values by draw(), which is told whether with care, and what that leaves for later
template <class D, class T, class Draw>
PYNN_INLINE void draw_values(T *values, std::size_t n, bool careful, const Splats<vec<T>> &constants, Draw draw) {
    if constexpr (D::template has_careful<T>)
        if (careful) {
            draw(std::true_type());
            if constexpr (finishes<D, T>) D::finish(values, n, constants);
            return;
        }
    draw(std::false_type());
}

// `units` whole units, the first of number `unit`; their block numbers share their upper 32 bits.
template <class D, class Format, class T = typename Format::Drawn>
PYNN_INLINE void fill_units(typename Format::Kept *out, std::uint64_t key, std::uint64_t unit, std::size_t units,
                            const Constants<T> &given) {
    using G = Generator<T, vectors_of_blocks>;
    constexpr bool kept = std::is_same_v<T, typename Format::Kept>;
    constexpr std::size_t most = most_drawn / G::unit_size; // a buffer's, which is small, so that writing keeps pace
    const RoundKeys keys(key, unit * G::unit_blocks);
    const Splats<vec<T>> constants(given);
    if constexpr (std::is_same_v<Format, BFloat16>)
        if (!given.careful) { // pairs that alternate make it 1 to 6 % faster
            using Paired = Generator<float, vectors_of_blocks, 2 * width<float> == group_blocks>;
            return draw_bfloat16<D>(out, keys, Paired(keys, unit * G::unit_blocks), units, constants);
        }
    const bool at_once = kept && !(finishes<D, T> && given.careful);
    G generator(keys, unit * G::unit_blocks);
    alignas(vec<T>) T buffer[kept ? 1 : most_drawn];
    while (units > 0) {
        T *values = buffer;
        if constexpr (kept) values = out;
        const std::size_t count = units < most || at_once ? units : most, n = count * G::unit_size;
        draw_values<D>(values, n, given.careful, constants, [&](auto with_care) __attribute__((always_inline)) {
            draw_units<D, with_care.value>(values, keys, generator, count, constants);
        });
        if constexpr (!kept) round_buffer<Format>(buffer, out, n);
        out += n;
        units -= count;
    }
}

// The group of elements that begins with block `first`: no step ahead, for few elements
template <class D, class T>
__attribute__((noinline)) void fill_group(T *values, std::uint64_t key, std::uint64_t first,
                                          const Constants<T> &given) {
    constexpr std::size_t most = group_blocks / width<std::uint64_t>; // vectors of a step
    using G = Generator<T, (most < vectors_of_blocks ? most : vectors_of_blocks)>;
    const RoundKeys keys(key, first);
    const Splats<vec<T>> constants(given);
    auto draw_group = [&](auto with_care) __attribute__((always_inline)) {
        for (std::size_t block = 0; block < group_blocks; block += G::step_blocks) {
            const G generator(keys, first + block);
            for (std::size_t i = 0; i < G::vectors; ++i)
                draw<D, with_care.value>(generator.bits[i], constants, values + place_of_draw<T>(block, i));
        }
    };
    draw_values<D>(values, group_size<T>, given.careful, constants, draw_group);
}

// Elements start .. start + n - 1 of the stream of key.
template <class D, class Format, class T = typename Format::Drawn>
void fill_loop(typename Format::Kept *out, std::uint64_t key, std::uint64_t start, std::size_t n,
               const Constants<T> &given) {
    using G = Generator<T, vectors_of_blocks>;
    constexpr std::size_t size = G::unit_size, group = group_size<T>;
    constexpr std::uint64_t period = (std::uint64_t(1) << 32) / G::unit_blocks; // units that share the upper 32 bits
    while (n > 0) {
        std::size_t count;
        if (start % size == 0 && n >= 2 * size) { // one unit is faster by groups
            const std::uint64_t unit = start / size, left = period - unit % period;
            const std::size_t units = n / size < left ? n / size : static_cast<std::size_t>(left);
            fill_units<D, Format>(out, key, unit, units, given);
            count = units * size;
        } else {
            alignas(vec<T>) T values[group];
            const std::size_t first = start % group, rest = group - first;
            count = n < rest ? n : rest;
            fill_group<D>(values, key, start / group * group_blocks, given);
            if constexpr (std::is_same_v<T, typename Format::Kept>) {
                __builtin_memcpy(out, values + first, count * sizeof *out);
            } else {
                std::uint16_t rounded[group];
                round_buffer<Format>(values, rounded, group);
                __builtin_memcpy(out, rounded + first, count * sizeof *out);
            }
        }
        out += count;
        start += count;
        n -= count;
    }
}

} // namespace
} // namespace pynn::PYNN_ISA
