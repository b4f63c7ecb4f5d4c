// Sums under the contract: 16 interleaved partial results in float64, then a fixed tree. And rows as float64 vectors,
// whatever their type, which normalizations and sums compute in.
#pragma once

#include "simd/vec.hpp"

namespace pynn::PYNN_ISA {
namespace {

using Wide = vec<double>;
constexpr std::size_t wide_lanes = width<double>;

PYNN_INLINE Wide load_wide(const double *p) { return load<Wide>(p); }
PYNN_INLINE Wide load_wide(const float *p) {
    half_float half;
    __builtin_memcpy(&half, p, sizeof half);
    return as_doubles(half);
}
PYNN_INLINE void store_wide(double *p, Wide v) { store(p, v); }
PYNN_INLINE void store_wide(float *p, Wide v) {
    const half_float half = as_floats(v);
    __builtin_memcpy(p, &half, sizeof half);
}
// Of the first n lanes; the rest are 0.
template <class T> PYNN_INLINE Wide load_wide(const T *p, std::size_t n) {
    if (n >= wide_lanes) return load_wide(p);
    T buffer[wide_lanes] = {};
    for (std::size_t i = 0; i < n; ++i) buffer[i] = p[i];
    return load_wide(buffer);
}
template <class T> PYNN_INLINE void store_wide(T *p, Wide v, std::size_t n) {
    if (n >= wide_lanes) return store_wide(p, v);
    T buffer[wide_lanes];
    store_wide(buffer, v);
    for (std::size_t i = 0; i < n; ++i) p[i] = buffer[i];
}

// Term i goes to partial result i % 16.
struct Interleaved {
    static constexpr std::size_t vectors = partial_results / wide_lanes;
    Wide sum[vectors] = {};

    double total() const {
        return folded(sum, [](auto a, auto b) { return a + b; });
    }
};

// f(i, lanes, vector of sums that element i goes to) over 0 .. n, a vector of float64 at a time
template <class F> PYNN_INLINE void for_wide(std::size_t n, F f) {
    std::size_t i = 0;
    for (; i + partial_results <= n; i += partial_results)
#pragma GCC unroll 8
        for (std::size_t j = 0; j < Interleaved::vectors; ++j) f(i + j * wide_lanes, wide_lanes, j);
    for (std::size_t j = 0; i < n; ++j, i += wide_lanes) f(i, n - i < wide_lanes ? n - i : wide_lanes, j);
}

template <class T> double sum_of_squares(const T *x, std::size_t n) {
    Interleaved sums;
    for_wide(n, [&](std::size_t i, std::size_t lanes, std::size_t j) __attribute__((always_inline)) {
        Wide v = load_wide(x + i, lanes);
        sums.sum[j] = fma(v, v, sums.sum[j]);
    });
    return sums.total();
}

template <class T> double plain_sum(const T *x, std::size_t n) {
    Interleaved sums;
    for_wide(n, [&](std::size_t i, std::size_t lanes, std::size_t j)
                    __attribute__((always_inline)) { sums.sum[j] = sums.sum[j] + load_wide(x + i, lanes); });
    return sums.total();
}

} // namespace
} // namespace pynn::PYNN_ISA
