// Loops over contiguous memory, some vectors at once, so that the chains of one's operations fill the gaps of the
// others'. The last, partial vector is loaded and stored through a mask: nothing beyond n is touched.
#pragma once

#include <cstdint>

#include "simd/vec.hpp"

namespace pynn::PYNN_ISA {
namespace {

// As many as the registers hold with what a function needs beside them
template <class T> constexpr std::size_t many_vectors = vector_registers == 32 && sizeof(T) == 4 ? 4 : 2;
template <class T> constexpr std::size_t some_vectors = vector_registers == 32 && sizeof(T) == 4 ? 3 : 2;

template <class V> PYNN_INLINE V load_up_to(const element<V> *p, std::size_t count) {
    return count < width<element<V>> ? load_first<V>(p, count, 0) : load<V>(p);
}
template <class V> PYNN_INLINE void store_up_to(element<V> *p, V v, std::size_t count) {
    if (count < width<element<V>>)
        store_first(p, v, count);
    else
        store(p, v);
}

template <class F, class V, std::size_t inputs, std::size_t... I>
PYNN_INLINE V call(F f, const V (&in)[inputs], std::index_sequence<I...>) {
    return f(in[I]...);
}

// How far ahead operands are asked for. CPUs that look ahead by themselves follow one array well, three less so.
constexpr std::size_t bytes_ahead = 1024;

template <class... T> PYNN_INLINE void ask_ahead(const T *...operands) {
    (__builtin_prefetch(operands + bytes_ahead / sizeof(T)), ...);
}

// result = f(operands), `count` vectors at once; result may be one of the operands. Ahead: several operands come from memory.
template <std::size_t count, bool Ahead = false, class T, class F, class... Operands>
PYNN_INLINE void map(std::size_t n, T *result, F f, const Operands *...operands) {
    using V = vec<T>;
    constexpr std::size_t lanes = width<T>;
    std::size_t i = 0;
    for (; i + count * lanes <= n; i += count * lanes) {
        V in[count][sizeof...(operands)], out[count]; // loaded first, or GCC 12 keeps less in registers
        for (std::size_t j = 0; j < count; ++j) {
            std::size_t k = 0;
            ((in[j][k++] = load<V>(operands + i + j * lanes)), ...);
            if constexpr (Ahead)
                if (j * sizeof(V) % 64 == 0) ask_ahead((operands + i + j * lanes)...);
        }
        for (std::size_t j = 0; j < count; ++j)
            out[j] = call(f, in[j], std::make_index_sequence<sizeof...(operands)>());
        for (std::size_t j = 0; j < count; ++j) store(result + i + j * lanes, out[j]);
    }
    for (; i < n; i += lanes) store_up_to(result + i, f(load_up_to<V>(operands + i, n - i)...), n - i);
}

// map() of f(others, x) by stages: f.begin(x) for some vectors, then what is read from tables, then f.finish(). CPUs with few
// registers to rename hold little of a long chain of operations at a time; of parts of it they hold more vectors, and wait less.
template <bool Ahead = false, class T, class F, class... Others>
PYNN_INLINE void map_by_stages(std::size_t n, T *result, F f, const T *x, const Others *...others) {
    using V = vec<T>;
    using Begun = decltype(f.begin(V{}));
    constexpr std::size_t lanes = width<T>, count = 16;
    std::size_t i = 0;
    for (; i + count * lanes <= n; i += count * lanes) {
        Begun begun[count];
        for (std::size_t j = 0; j < count; ++j) {
            const std::size_t at = i + j * lanes;
            begun[j] = f.begin(load<V>(x + at));
            if constexpr (Ahead)
                if (j * sizeof(V) % 64 == 0) ask_ahead(x + at, (others + at)...);
        }
        const auto finish = [&](const auto &...read) __attribute__((always_inline)) {
            for (std::size_t j = 0; j < count; ++j) {
                const std::size_t at = i + j * lanes;
                store(result + at, f.finish(load<V>(others + at)..., load<V>(x + at), begun[j], read[j]...));
            }
        };
        if constexpr (requires(Begun given) { given.read(); }) {
            decltype(begun[0].read()) read[count];
            for (std::size_t j = 0; j < count; ++j) read[j] = begun[j].read();
            finish(read);
        } else {
            finish();
        }
    }
    map<1>(n - i, result + i, f, (others + i)..., x + i);
}

// What is made past the caches at a time, or by a shorter way once nothing in it needs a longer one: whole turns of the loops above,
// a block of stages or 2, 3 or 4 vectors. Few, so that CPUs that look ahead in memory do not pause.
constexpr std::size_t elements_at_once = by_stages ? 256 : 192;

// finish_past_cache() comes after the last of several.
template <class T> void copy_past_cache(const T *from, T *to, std::size_t n) {
    constexpr std::size_t line = 64 / sizeof(T);
    std::size_t i = 0;
    for (; i < n && reinterpret_cast<std::uintptr_t>(to + i) % 64 != 0; ++i) to[i] = from[i];
    for (; i + line <= n; i += line)
#pragma GCC unroll 4
        for (std::size_t j = 0; j < line; j += width<T>) store_past_cache(to + i + j, load<vec<T>>(from + i + j));
    for (; i < n; ++i) to[i] = from[i];
}

} // namespace
} // namespace pynn::PYNN_ISA
