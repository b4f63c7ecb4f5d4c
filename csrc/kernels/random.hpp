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

// A block before its last exchange of words.
struct Block {
    Words product0, product1, word1, word3;
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

    // All but the last exchange. products: philox_multiplier[0] times the lower 32 bits of the block numbers. Round by
    // round for both vectors, so that the CPU always finds work that waits for nothing.
    PYNN_INLINE void rounds(const Words (&products)[2], Block (&blocks)[2]) const {
        Words word0[2], word2[2];
        for (std::size_t i = 0; i < 2; ++i) {
            Words p1 = mul_low((products[i] >> 32) ^ key1[0], splat<Words>(philox_multiplier[1]));
            word0[i] = (p1 >> 32) ^ key0[1];
            word2[i] = products[i] ^ key1[1];
            blocks[i].word1 = p1;
            blocks[i].word3 = Words{};
        }
        for (int round = 2;; ++round) {
            for (std::size_t i = 0; i < 2; ++i) {
                blocks[i].product0 = mul_low(word0[i], splat<Words>(philox_multiplier[0]));
                blocks[i].product1 = mul_low(word2[i], splat<Words>(philox_multiplier[1]));
            }
            if (round == philox_rounds - 1) break;
            for (std::size_t i = 0; i < 2; ++i) {
                word0[i] = (blocks[i].product1 >> 32) ^ blocks[i].word1 ^ key0[round];
                word2[i] = (blocks[i].product0 >> 32) ^ blocks[i].word3 ^ key1[round];
                blocks[i].word1 = blocks[i].product1;
                blocks[i].word3 = blocks[i].product0;
            }
        }
    }
};

// The low (high) halves of the lanes of a and b as 32-bit lanes a0, b0, a1, b1, ...
template <std::size_t... I> PYNN_INLINE Words low_halves(Words a, Words b, std::index_sequence<I...>) {
    return (Words)__builtin_shufflevector((vec<std::uint32_t>)a, (vec<std::uint32_t>)b, (I / 2 * 2 + I % 2 * sizeof...(I))...);
}
template <std::size_t... I> PYNN_INLINE Words high_halves(Words a, Words b, std::index_sequence<I...>) {
    return (Words)__builtin_shufflevector((vec<std::uint32_t>)a, (vec<std::uint32_t>)b, (I / 2 * 2 + I % 2 * sizeof...(I) + 1)...);
}

// The last exchange and the words of both vectors of blocks as pairs of operands of a draw: as 32-bit lanes those of the
// first and the second vector by turns (words 0 and 1, words 2 and 3), as 64-bit lanes ...
PYNN_INLINE void single_words(const Block (&blocks)[2], Words key0, Words key1, Words (&words)[2][2]) {
    constexpr auto lanes = std::make_index_sequence<width<std::uint32_t>>();
    const auto &[a, b] = blocks;
    words[0][0] = high_halves(a.product1, b.product1, lanes) ^ low_halves(a.word1, b.word1, lanes) ^ key0;
    words[0][1] = low_halves(a.product1, b.product1, lanes);
    words[1][0] = high_halves(a.product0, b.product0, lanes) ^ low_halves(a.word3, b.word3, lanes) ^ key1;
    words[1][1] = low_halves(a.product0, b.product0, lanes);
}
PYNN_INLINE Words exchanged(Words product, Words word, Words key) {
    return (product >> 32 | product << 32) ^ (word & 0xffffffffu) ^ key;
}
PYNN_INLINE void double_words(const Block (&blocks)[2], Words key0, Words key1, Words (&words)[2][2]) {
    for (std::size_t i = 0; i < 2; ++i) {
        words[i][0] = exchanged(blocks[i].product1, blocks[i].word1, key0);
        words[i][1] = exchanged(blocks[i].product0, blocks[i].word3, key1);
    }
}

// `groups` whole groups, the first of number `group`; their block numbers share their upper 32 bits. A float takes a
// word, a double two; draws come in pairs.
template <class D, class T>
PYNN_INLINE void fill_groups(T *out, std::uint64_t key, std::uint64_t group, std::size_t groups, T first, T second) {
    using V = vec<T>;
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
    const Words last_key0 = philox.key0[philox_rounds - 1], last_key1 = philox.key1[philox_rounds - 1];
    for (T *end = out + groups * group_size; out != end; out += group_size)
        for (std::size_t lane = 0; lane < group_blocks; lane += blocks) {
            const Words products[] = {product, product + distance * philox_multiplier[0]};
            product += blocks * philox_multiplier[0];
            Block both[2];
            philox.rounds(products, both);
            Words words[2][2];
            if constexpr (single)
                single_words(both, last_key0 | last_key0 << 32, last_key1 | last_key1 << 32, words);
            else
                double_words(both, last_key0, last_key1, words);
            for (std::size_t i = 0; i < 2; ++i) {
                Pair<V> values = D::draw((uints<V>)words[i][0], (uints<V>)words[i][1], first_parameter, second_parameter);
                T *to = out + lane + i * (single ? 2 * group_blocks : lanes);
                store(to, values.first);
                store(to + group_blocks, values.second);
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
