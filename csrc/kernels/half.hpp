// float32 to 16-bit types, rounded to nearest even, and back, exactly. NaN stays one.
#pragma once

#include "kernels/random.hpp"
#include "simd/vec.hpp"

namespace pynn::PYNN_ISA {
namespace {

template <class To> PYNN_INLINE vec<std::uint32_t> round_to(vec<float> x) {
    using U = vec<std::uint32_t>;
    constexpr std::int32_t nan = To::half == 1 ? 0x7fc00000 : 0x7e00;
    return (U)select(x != x, nan - vec<std::int32_t>{}, (vec<std::int32_t>)To::round((U)x));
}
template <class To> void narrow_loop(const float *from, std::uint16_t *to, std::size_t n) {
    constexpr std::size_t lanes = width<float>;
    auto narrowed = [&](const float *two) {
        return narrow<To, false>(round_to<To>(load<vec<float>>(two)), round_to<To>(load<vec<float>>(two + lanes)));
    };
    std::size_t i = 0;
    for (; i + 2 * lanes <= n; i += 2 * lanes) store(to + i, narrowed(from + i));
    if (i < n) {
        float rest[2 * lanes] = {};
        __builtin_memcpy(rest, from + i, (n - i) * sizeof *from);
        const vec<std::uint16_t> last = narrowed(rest);
        __builtin_memcpy(to + i, &last, (n - i) * sizeof *to);
    }
}

struct WideBFloat16 {
    static PYNN_INLINE vec<float> widen(vec<std::uint32_t> bits) { return (vec<float>)(bits << 16); }
};
struct WideFloat16 {
    static PYNN_INLINE vec<float> widen(vec<std::uint32_t> bits) {
        using U = vec<std::uint32_t>;
        U size = bits & 0x7fff;
        vec<float> scaled = (vec<float>)(size << 13) * 0x1p112f; // exact, subnormals too
        vec<std::int32_t> beyond = (vec<std::int32_t>)size >= 0x7c00;
        U result = (U)select(beyond, (vec<std::int32_t>)(0x7f800000 | size << 13), (vec<std::int32_t>)scaled);
        return (vec<float>)(result | (bits & 0x8000) << 16);
    }
};
template <class From> void widen_loop(const std::uint16_t *from, float *to, std::size_t n) {
    constexpr std::size_t lanes = width<float>;
    using Bits = typename vector_type<std::uint16_t, PYNN_VECTOR_BYTES / 2>::type;
    std::size_t i = 0;
    for (; i + lanes <= n; i += lanes) {
        Bits bits;
        __builtin_memcpy(&bits, from + i, sizeof bits);
        store(to + i, From::widen(convert<vec<std::uint32_t>>(bits)));
    }
    if (i < n) {
        Bits bits = {};
        __builtin_memcpy(&bits, from + i, (n - i) * sizeof *from);
        store_first(to + i, From::widen(convert<vec<std::uint32_t>>(bits)), n - i);
    }
}

} // namespace
} // namespace pynn::PYNN_ISA
