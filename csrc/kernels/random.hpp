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
constexpr std::size_t group_blocks = 16; // blocks whose words lie interleaved in a group of elements
template <class T> constexpr std::size_t group_size = group_blocks * 16 / sizeof(T);

// The low (high) halves of the lanes of a and b as 32-bit lanes a0, b0, a1, b1, ...
template <std::size_t Half, std::size_t... I> PYNN_INLINE Words halves(Words a, Words b, std::index_sequence<I...>) {
    return (Words)__builtin_shufflevector((vec<std::uint32_t>)a, (vec<std::uint32_t>)b,
                                          (I / 2 * 2 + I % 2 * sizeof...(I) + Half)...);
}

// The words of consecutive blocks, some vectors of blocks a step: for floats one vector of a pair has the even and one the
// odd blocks, so that the halves of 64-bit lanes end up in order. Elements are drawn by units: a group, or the groups of a step
// where that has more.
template <class T, std::size_t Vectors> struct Generator {
    static constexpr bool single = sizeof(T) == 4;
    static constexpr std::size_t vectors = Vectors, lanes = width<std::uint64_t>, step_blocks = vectors * lanes;
    static constexpr std::size_t unit_blocks = step_blocks > group_blocks ? step_blocks : group_blocks;
    static constexpr std::size_t unit_size = unit_blocks * 16 / sizeof(T);

    Words key0[philox_rounds], key1[philox_rounds];
    Words product; // multiplier0 times the lower 32 bits of the block numbers, for the next step's first vector
    Words state[vectors][4];
    // Operands of draws: of floats words 0, 1 and words 2, 3 of a pair of vectors; of doubles all words of one
    Words bits[vectors][2];

    // The upper 32 bits of the block numbers must not change. Words 2 and 3 of the counter are 0, so that the first two
    // rounds fold into constants but for one multiplication each.
    PYNN_INLINE Generator(std::uint64_t key, std::uint64_t block) {
        std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
        std::uint64_t folded = philox_multiplier0 * (static_cast<std::uint32_t>(block >> 32) ^ k0);
        for (int round = 0; round < philox_rounds; ++round) {
            key0[round] = splat<Words>(k0);
            key1[round] = splat<Words>(k1 ^ (round == 1 ? folded >> 32 : round == 2 ? folded & 0xffffffffu : 0));
            k0 += philox_weyl0;
            k1 += philox_weyl1;
        }
        std::uint64_t products[lanes];
        for (std::size_t lane = 0; lane < lanes; ++lane)
            products[lane] = philox_multiplier0 * (static_cast<std::uint32_t>(block) + lane * (single ? 2 : 1));
        product = load<Words>(products);
    }

    // Rounds 0 and 1 of the next step.
    PYNN_INLINE void begin() {
        Words products[vectors];
        for (std::size_t i = 0; i < vectors; ++i)
            products[i] = product + (single ? i / 2 * 2 * lanes + i % 2 : i * lanes) * philox_multiplier0;
        product += step_blocks * philox_multiplier0;
        for (std::size_t i = 0; i < vectors; ++i) {
            Words(&w)[4] = state[i];
            w[1] = mul_low((products[i] >> 32) ^ key1[0], splat<Words>(philox_multiplier1));
            w[0] = (w[1] >> 32) ^ key0[1];
            w[2] = products[i] ^ key1[1];
            w[3] = Words{};
        }
    }
    // The vectors by turns, so that the CPU finds work that waits for nothing.
    PYNN_INLINE void rounds(int from, int to) {
        for (int round = from; round < to; ++round)
            for (Words(&w)[4] : state) {
                Words p0 = mul_low(w[0], splat<Words>(philox_multiplier0));
                Words p1 = mul_low(w[2], splat<Words>(philox_multiplier1));
                w[0] = (p1 >> 32) ^ w[1] ^ key0[round];
                w[1] = p1;
                w[2] = (p0 >> 32) ^ w[3] ^ key1[round];
                w[3] = p0;
            }
    }
    // The last round, whose words go to their places.
    PYNN_INLINE void end() {
        constexpr auto all = std::make_index_sequence<width<std::uint32_t>>();
        const Words last0 = key0[philox_rounds - 1], last1 = key1[philox_rounds - 1];
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

template <class D, class T> PYNN_INLINE void draw(const Words (&bits)[2], const Splats<vec<T>> &constants, T *out) {
    using V = vec<T>;
    Pair<V> values = D::template draw<V>((uints<V>)bits[0], (uints<V>)bits[1], constants);
    store(out, values.first);
    store(out + group_blocks, values.second);
}

// Where the draw of bits[i] goes that a step makes which begins with a unit's block `block`
template <class T> constexpr std::size_t place_of_draw(std::size_t block, std::size_t i) {
    constexpr bool single = sizeof(T) == 4;
    block += (single ? i / 2 * 2 : i) * width<std::uint64_t>;
    return block / group_blocks * group_size<T> + block % group_blocks + (single ? i % 2 * 2 * group_blocks : 0);
}

// The next units. The rounds of a step run between the draws of the step before: one waits for multiplications while the
// other computes.
template <class D, class T, class G>
PYNN_INLINE void draw_units(T *out, G &generator, std::size_t units, const Splats<vec<T>> &constants) {
    for (T *end = out + units * G::unit_size; out != end; out += G::unit_size)
        for (std::size_t block = 0; block < G::unit_blocks; block += G::step_blocks) {
            constexpr int first = 2, last = philox_rounds - 1, draws = G::vectors;
            generator.begin();
#pragma GCC unroll 4
            for (int i = 0; i < draws; ++i) {
                auto before = [](int draw) { return first + draw * (last - first) / draws; };
                generator.rounds(before(i), before(i + 1));
                draw<D>(generator.bits[i], constants, out + place_of_draw<T>(block, i));
            }
            generator.end();
        }
}

// The halves of 32-bit lanes that Half names, of two vectors in one
template <std::size_t Half, std::size_t... I>
PYNN_INLINE vec<std::uint16_t> narrow(vec<std::uint32_t> a, vec<std::uint32_t> b, std::index_sequence<I...>) {
    return __builtin_shufflevector((vec<std::uint16_t>)a, (vec<std::uint16_t>)b, (2 * I + Half)...);
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

// `units` whole units, the first of number `unit`; their block numbers share their upper 32 bits.
template <class D, class Format, class G, class T = typename Format::Drawn>
PYNN_INLINE void fill_units(typename Format::Kept *out, std::uint64_t key, std::uint64_t unit, std::size_t units,
                            const Splats<vec<T>> &constants) {
    G generator(key, unit * G::unit_blocks);
    generator.begin();
    generator.rounds(2, philox_rounds - 1);
    generator.end();
    if constexpr (std::is_same_v<T, typename Format::Kept>) {
        draw_units<D>(out, generator, units, constants);
    } else { // rounded in a loop of its own, which leaves the draws their registers, and soon, so that writing keeps pace
        constexpr std::size_t most = 512 / G::unit_size;
        T drawn[most * G::unit_size];
        while (units > 0) {
            const std::size_t count = units < most ? units : most, n = count * G::unit_size;
            draw_units<D>(drawn, generator, count, constants);
            for (std::size_t i = 0; i < n; i += 2 * width<T>) {
                auto rounded = [&](std::size_t at) {
                    return Format::round((vec<std::uint32_t>)load<vec<T>>(drawn + at));
                };
                constexpr auto lanes = std::make_index_sequence<2 * width<T>>();
                store(out + i, narrow<Format::half>(rounded(i), rounded(i + width<T>), lanes));
            }
            out += n;
            units -= count;
        }
    }
}

// Elements start .. start + n - 1 of the stream of key.
// A round waits longer for its multiplications than the CPU looks ahead: more vectors, more that waits for nothing.
template <class D, class Format, std::size_t Vectors = vector_registers == 32 ? 4 : 2, class T = typename Format::Drawn>
void fill_loop(typename Format::Kept *out, std::uint64_t key, std::uint64_t start, std::size_t n,
               const Constants<T> &given) {
    using G = Generator<T, Vectors>;
    constexpr std::size_t size = G::unit_size, least = Generator<T, 2>::unit_size;
    constexpr std::uint64_t period = (std::uint64_t(1) << 32) / G::unit_blocks; // units that share the upper 32 bits
    while (n > 0) {
        std::size_t count;
        if (start % size == 0 && n >= size) {
            const std::uint64_t unit = start / size, left = period - unit % period;
            const std::size_t units = n / size < left ? n / size : static_cast<std::size_t>(left);
            fill_units<D, Format, G>(out, key, unit, units, Splats<vec<T>>(given));
            count = units * size;
        } else { // part of the least unit, which a fill of two vectors makes as a whole
            typename Format::Kept made[least];
            const std::size_t first = start % least, rest = least - first;
            count = n < rest ? n : rest;
            fill_loop<D, Format, 2>(made, key, start - first, least, given);
            __builtin_memcpy(out, made + first, count * sizeof *out);
        }
        out += count;
        start += count;
        n -= count;
    }
}

} // namespace
} // namespace pynn::PYNN_ISA
