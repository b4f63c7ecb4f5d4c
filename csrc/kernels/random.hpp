// Philox4x32-10 (Salmon, Moraes, Dror and Shaw, 2011) over vectors of counter blocks, and the loop that fills memory
// with a distribution's values. Element i of a stream is a function of the key and i alone.
#pragma once

#include "simd/vec.hpp"

namespace pynn::PYNN_ISA {
namespace {

using Words = vec<std::uint64_t>; // a 32-bit word of one block per lane, in the low half; the high half is arbitrary

constexpr std::uint64_t philox_multiplier[] = {0xD2511F53, 0xCD9E8D57};
constexpr std::uint32_t philox_weyl[] = {0x9E3779B9, 0xBB67AE85};
constexpr int philox_rounds = 10;
constexpr std::size_t group_blocks = 16; // blocks whose words lie interleaved in a group of elements

struct Block {
    Words word[4];
};

// The rounds for a key and for block numbers that share their upper 32 bits. Counter words 2 and 3 are 0, so that the
// first two rounds fold into constants but for one multiplication each.
struct Philox {
    Words key0[philox_rounds], key1[philox_rounds];

    PYNN_INLINE Philox(std::uint64_t key, std::uint64_t upper) {
        std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
        std::uint64_t product = philox_multiplier[0] * (static_cast<std::uint32_t>(upper) ^ k0); // of round 1
        for (int round = 0; round < philox_rounds; ++round) {
            std::uint64_t folded = round == 1 ? product >> 32 : round == 2 ? product & 0xffffffffu : 0;
            key0[round] = splat<Words>(k0);
            key1[round] = splat<Words>(k1 ^ folded);
            k0 += philox_weyl[0];
            k1 += philox_weyl[1];
        }
    }

    // products: philox_multiplier[0] times the lower 32 bits of the block numbers. Round by round for all vectors, so
    // that the CPU always finds work that waits for nothing.
    template <std::size_t N> PYNN_INLINE void operator()(const Words (&products)[N], Block (&blocks)[N]) const {
        for (std::size_t i = 0; i < N; ++i) {
            Words p1 = mul_low((products[i] >> 32) ^ key1[0], splat<Words>(philox_multiplier[1]));
            blocks[i] = {{(p1 >> 32) ^ key0[1], p1, products[i] ^ key1[1], Words{}}};
        }
        for (int round = 2; round < philox_rounds; ++round)
            for (std::size_t i = 0; i < N; ++i) {
                Words(&w)[4] = blocks[i].word;
                Words p0 = mul_low(w[0], splat<Words>(philox_multiplier[0]));
                Words p1 = mul_low(w[2], splat<Words>(philox_multiplier[1]));
                w[0] = (p1 >> 32) ^ w[1] ^ key0[round];
                w[1] = p1;
                w[2] = (p0 >> 32) ^ w[3] ^ key1[round];
                w[3] = p0;
            }
    }
};

// The low halves of a and b as 32-bit lanes a0, b0, a1, b1, ... or as 64-bit lanes a0 | b0 << 32, ...
PYNN_INLINE Words join(Words a, Words b) { return (a & 0xffffffffu) | (b << 32); }

// `groups` whole groups, the first of number `group`; their block numbers share their upper 32 bits. A float takes a
// word, a double two; draws come in pairs.
template <class D, class T>
PYNN_INLINE void fill_groups(T *out, std::uint64_t key, std::uint64_t group, std::size_t groups, T first, T second) {
    using V = vec<T>;
    using Bits = uints<V>;
    constexpr std::size_t lanes = width<std::uint64_t>, blocks = 2 * lanes; // per step
    constexpr bool single = sizeof(T) == 4;
    constexpr std::size_t stride = single ? 2 : 1;         // between the block numbers of neighbouring lanes
    constexpr std::size_t distance = single ? 1 : lanes;   // from a step's first vector of blocks to its second
    constexpr std::size_t group_size = group_blocks * 16 / sizeof(T);
    const Philox philox(key, group * group_blocks >> 32);
    const V first_parameter = splat<V>(first), second_parameter = splat<V>(second);
    std::uint64_t number[lanes];
    for (std::size_t lane = 0; lane < lanes; ++lane)
        number[lane] = philox_multiplier[0] * (static_cast<std::uint32_t>(group * group_blocks) + lane * stride);
    Words product = load<Words>(number);
    for (T *end = out + groups * group_size; out != end; out += group_size)
        for (std::size_t lane = 0; lane < group_blocks; lane += blocks) {
            const Words products[] = {product, product + distance * philox_multiplier[0]};
            Block both[2];
            philox(products, both);
            const Block &a = both[0], &b = both[1];
            product += blocks * philox_multiplier[0];
            if constexpr (single) {
                for (std::size_t w = 0; w < 4; w += 2) {
                    Pair<V> values =
                        D::draw((Bits)join(a.word[w], b.word[w]), (Bits)join(a.word[w + 1], b.word[w + 1]),
                                first_parameter, second_parameter);
                    store(out + w * group_blocks + lane, values.first);
                    store(out + (w + 1) * group_blocks + lane, values.second);
                }
            } else {
                for (std::size_t half = 0; half < 2; ++half) {
                    const Block &block = half == 0 ? a : b;
                    Pair<V> values = D::draw(join(block.word[0], block.word[1]), join(block.word[2], block.word[3]),
                                             first_parameter, second_parameter);
                    store(out + lane + half * lanes, values.first);
                    store(out + group_blocks + lane + half * lanes, values.second);
                }
            }
        }
}

// Elements start .. start + n - 1 of the stream of key.
template <class D, class T>
void fill_loop(T *out, std::uint64_t key, std::uint64_t start, std::size_t n, T first, T second) {
    constexpr std::size_t group_size = group_blocks * 16 / sizeof(T);
    constexpr std::uint64_t period = (std::uint64_t(1) << 32) / group_blocks; // groups that share the upper 32 bits
    while (n > 0) {
        T buffer[group_size];
        std::uint64_t group = start / group_size;
        std::size_t skip = start % group_size, groups = n / group_size, count;
        bool partial = skip != 0 || groups == 0;
        if (partial) {
            groups = 1;
            count = group_size - skip < n ? group_size - skip : n;
        } else {
            if (groups > period - group % period) groups = period - group % period;
            count = groups * group_size;
        }
        fill_groups<D>(partial ? buffer : out, key, group, groups, first, second);
        if (partial) __builtin_memcpy(out, buffer + skip, count * sizeof(T));
        out += count;
        start += count;
        n -= count;
    }
}

} // namespace
} // namespace pynn::PYNN_ISA
