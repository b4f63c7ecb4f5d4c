// Operands of any type and strides, brought to the kernels in contiguous parts: what NumPy's loops and the C interface
// share. Steps are in bytes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "activations.hpp"
#include "dispatch.hpp"
#include "memory.hpp"
#include "parallel.hpp"

namespace pynn {

inline constexpr std::ptrdiff_t buffer_length = 512;

// 16-bit types: computed as float32, rounded once.
struct Float16 {
    std::uint16_t bits;
    static void widen(const std::uint16_t *from, float *to, std::size_t n) {
        active_kernels().from_float16(from, to, n);
    }
    static void narrow(const float *from, std::uint16_t *to, std::size_t n) {
        active_kernels().to_float16(from, to, n);
    }
};
struct BFloat16 {
    std::uint16_t bits;
    static void widen(const std::uint16_t *from, float *to, std::size_t n) {
        active_kernels().from_bfloat16(from, to, n);
    }
    static void narrow(const float *from, std::uint16_t *to, std::size_t n) {
        active_kernels().to_bfloat16(from, to, n);
    }
};
template <class From> constexpr bool is_half = std::is_same_v<From, Float16> || std::is_same_v<From, BFloat16>;
// The type of results of operands From that are computed as T; parameters are of type T.
template <class From, class T> using Result = std::conditional_t<is_half<From>, From, T>;

template <class From, class T> void gather(const char *from, std::ptrdiff_t step, std::ptrdiff_t n, T *to) {
    if constexpr (is_half<From>) {
        std::uint16_t bits[buffer_length];
        for (std::ptrdiff_t done = 0; done < n; done += buffer_length) {
            const std::ptrdiff_t count = std::min(buffer_length, n - done);
            const auto *source = reinterpret_cast<const std::uint16_t *>(from + done * step);
            if (step != sizeof(From)) {
                for (std::ptrdiff_t i = 0; i < count; ++i)
                    bits[i] = *reinterpret_cast<const std::uint16_t *>(from + (done + i) * step);
                source = bits;
            }
            From::widen(source, to + done, static_cast<std::size_t>(count));
        }
    } else {
        for (std::ptrdiff_t i = 0; i < n; ++i, from += step)
            to[i] = static_cast<T>(*reinterpret_cast<const From *>(from));
    }
}
template <class To, class T> void scatter(const T *from, std::ptrdiff_t n, char *to, std::ptrdiff_t step) {
    if constexpr (is_half<To>) {
        std::uint16_t bits[buffer_length];
        for (std::ptrdiff_t done = 0; done < n; done += buffer_length) {
            const std::ptrdiff_t count = std::min(buffer_length, n - done);
            const bool direct = step == sizeof(To);
            To::narrow(from + done, direct ? reinterpret_cast<std::uint16_t *>(to + done * step) : bits,
                       static_cast<std::size_t>(count));
            if (direct) continue;
            for (std::ptrdiff_t i = 0; i < count; ++i)
                *reinterpret_cast<std::uint16_t *>(to + (done + i) * step) = bits[i];
        }
    } else {
        for (std::ptrdiff_t i = 0; i < n; ++i, to += step) *reinterpret_cast<T *>(to) = from[i];
    }
}

// What a family of elementwise functions takes: inputs, the last of them parameters, then outputs.
template <int Inputs, int Parameters = 0, int Outputs = 1> struct Elementwise {
    static constexpr int inputs = Inputs, parameters = Parameters, outputs = Outputs, operands = inputs + outputs;
    static constexpr bool is_parameter(int j) { return j >= inputs - parameters && j < inputs; }
    template <class From, class T>
    static void gather_input(int j, const char *from, std::ptrdiff_t step, std::ptrdiff_t n, T *to) {
        if (is_parameter(j))
            gather<T>(from, step, n, to);
        else
            gather<From>(from, step, n, to);
    }
};

// Results that no cache keeps are made in a small buffer, part by part, and copied past the caches, which then need not read
// what is overwritten; and what looks up tables does not wait for its own stores. Parts begin where lines of the result do, as
// the ends of two in one line would go by way of the caches.
inline constexpr std::size_t least_past_cache = std::size_t(32) << 20; // bytes of a result
template <int Inputs, int Outputs, class T, class Call>
void call_past_cache(const T *const (&in)[Inputs], const bool (&moves)[Inputs], const std::size_t *parameter_steps,
                     T *const (&out)[Outputs], std::size_t n, Call call) {
    const Kernels<T> &kernels = active_kernels_of<T>();
    constexpr std::size_t line = 64 / sizeof(T);
    const std::size_t most = kernels.elements_past_cache;
    alignas(64) T buffers[Outputs][most_elements_past_cache];
    T *made[Outputs];
    for (int j = 0; j < Outputs; ++j) made[j] = buffers[j];
    std::size_t count = most - reinterpret_cast<std::uintptr_t>(out[0]) / sizeof(T) % line;
    for (std::size_t i = 0; i < n; i += count, count = most) {
        const T *from[Inputs];
        for (int j = 0; j < Inputs; ++j) from[j] = in[j] + (moves[j] ? i : 0);
        count = std::min(count, n - i);
        call(from, parameter_steps, made, count);
        for (int j = 0; j < Outputs; ++j) kernels.copy_past_cache(made[j], out[j] + i, count);
    }
    kernels.finish_past_cache();
}

// The memory of n elements
struct Extent {
    const char *begin, *end;
    Extent(const char *first, std::ptrdiff_t n, std::ptrdiff_t step, std::size_t size)
        : begin(std::min(first, first + (n - 1) * step)), end(std::max(first, first + (n - 1) * step) + size) {}
    bool overlaps(const Extent &other) const { return begin < other.end && other.begin < end; }
};
// Whether a result lies where another element's operand does: NumPy then counts on the elements' order, and makes no copy where the
// operand comes later in memory.
template <class Family, class From, class T>
bool order_matters(char *const *operands, std::ptrdiff_t n, const std::ptrdiff_t *steps) {
    for (int k = Family::inputs; k < Family::operands; ++k) {
        const Extent result(operands[k], n, steps[k], sizeof(Result<From, T>));
        for (int j = 0; j < Family::inputs; ++j)
            if ((operands[j] != operands[k] || steps[j] != steps[k]) &&
                result.overlaps({operands[j], n, steps[j], Family::is_parameter(j) ? sizeof(T) : sizeof(From)}))
                return true;
    }
    return false;
}

// call(inputs, steps of parameters: 0 or 1, outputs, n) for operands of type From, computed as T.
template <class Family, class From, class T, class Call>
void elementwise(char *const *operands, std::ptrdiff_t n, const std::ptrdiff_t *steps, Call call) {
    constexpr int inputs = Family::inputs, count_of_operands = Family::operands;
    std::size_t parameter_steps[Parameters::most] = {};
    bool contiguous = std::is_same_v<From, T>;
    for (int j = 0; j < count_of_operands; ++j) {
        const bool is_parameter = Family::is_parameter(j);
        if (is_parameter) parameter_steps[j - inputs + Family::parameters] = steps[j] != 0;
        contiguous = contiguous && (steps[j] == sizeof(T) || n == 1 || (is_parameter && steps[j] == 0));
    }
    bool past_cache = static_cast<std::size_t>(n) * sizeof(T) >= least_past_cache, moves[inputs];
    for (int j = 0; j < inputs; ++j) {
        moves[j] = steps[j] != 0;
        for (int k = inputs; k < count_of_operands; ++k) past_cache = past_cache && operands[j] != operands[k];
    }
    const int threads = order_matters<Family, From, T>(operands, n, steps) ? 1 : thread_count();
    parallel_for_slots(
        static_cast<std::size_t>(n), elementwise_grain, threads, [&](std::size_t begin, std::size_t end, int) {
            const T *in[inputs];
            T *out[Family::outputs];
            if (contiguous) {
                for (int j = 0; j < count_of_operands; ++j) {
                    T *operand = reinterpret_cast<T *>(operands[j] + static_cast<std::ptrdiff_t>(begin) * steps[j]);
                    if (j < inputs)
                        in[j] = operand;
                    else
                        out[j - inputs] = operand;
                }
                if (past_cache)
                    call_past_cache(in, moves, parameter_steps, out, end - begin, call);
                else
                    call(in, parameter_steps, out, end - begin);
                return;
            }
            T buffers[count_of_operands][buffer_length];
            for (int j = 0; j < count_of_operands; ++j) {
                if (j < inputs)
                    in[j] = buffers[j];
                else
                    out[j - inputs] = buffers[j];
            }
            for (auto i = static_cast<std::ptrdiff_t>(begin); i < static_cast<std::ptrdiff_t>(end);
                 i += buffer_length) {
                const std::ptrdiff_t count = std::min(buffer_length, static_cast<std::ptrdiff_t>(end) - i);
                for (int j = 0; j < inputs; ++j)
                    Family::template gather_input<From>(j, operands[j] + i * steps[j], steps[j], count, buffers[j]);
                call(in, parameter_steps, out, static_cast<std::size_t>(count));
                for (int j = inputs; j < count_of_operands; ++j)
                    scatter<Result<From, T>>(buffers[j], count, operands[j] + i * steps[j], steps[j]);
            }
        });
}

// A family of functions of rows, of one output; Row... says for each operand, the output last, whether it is a row or a
// number.
template <bool... Row> struct Rowwise {
    static constexpr int operands = sizeof...(Row), inputs = operands - 1, parameters = 0, outputs = 1;
    static constexpr bool is_parameter(int) { return false; }
    static constexpr bool is_row[] = {Row...};
};

// What rowwise() calls, of a kernel that takes rows of one input, with memory to spare or without, or the operands of one row.
template <class Family, class T, class Kernel> auto call_of_rows(Kernel kernel) {
    return [kernel](const T *const *in, const std::ptrdiff_t *in_rows, T *out, std::ptrdiff_t out_row, std::size_t rows,
                    std::size_t length, [[maybe_unused]] T *spare) {
        if constexpr (std::is_invocable_v<Kernel, const T *, std::ptrdiff_t, T *, std::ptrdiff_t, std::size_t,
                                          std::size_t, T *>) {
            kernel(in[0], in_rows[0], out, out_row, rows, length, spare);
        } else if constexpr (std::is_invocable_v<Kernel, const T *, std::ptrdiff_t, T *, std::ptrdiff_t, std::size_t,
                                                 std::size_t>) {
            kernel(in[0], in_rows[0], out, out_row, rows, length);
        } else {
            const auto one_row = [&]<std::size_t... I>(std::ptrdiff_t row, std::index_sequence<I...>) {
                kernel(in[I] + row * in_rows[I]..., out + row * out_row, length);
            };
            for (std::ptrdiff_t row = 0; row < static_cast<std::ptrdiff_t>(rows); ++row)
                one_row(row, std::make_index_sequence<Family::inputs>());
        }
    };
}

// call(inputs, their steps from row to row in elements, output, its step, rows, length, spare_of_row(length) elements of memory) for
// all rows, some at a time; steps from row to row, and within one, in bytes. Throws std::bad_alloc.
template <class Family, class From, class T, class Call>
void rowwise(char *const *operands, std::ptrdiff_t rows, std::ptrdiff_t length, const std::ptrdiff_t *steps,
             const std::ptrdiff_t *steps_in_row, Call call) {
    constexpr int count_of_operands = Family::operands, inputs = Family::inputs;
    if (rows == 0 || (length == 0 && Family::is_row[inputs])) return;
    constexpr auto size = static_cast<std::ptrdiff_t>(sizeof(T));
    std::ptrdiff_t lengths[count_of_operands], row_steps[count_of_operands];
    bool contiguous = std::is_same_v<From, T>;
    for (int j = 0; j < count_of_operands; ++j) {
        lengths[j] = Family::is_row[j] ? length : 1;
        contiguous = contiguous && (steps_in_row[j] == size || lengths[j] <= 1) && steps[j] % size == 0;
        row_steps[j] = steps[j] / size;
    }
    const std::size_t longest = static_cast<std::size_t>(std::max<std::ptrdiff_t>(length, 1));
    const std::size_t spare = spare_of_row<T>(longest);
    const std::size_t buffer = spare + (contiguous ? 0 : detail::bytes_of(longest, count_of_operands));
    const int threads = thread_count();
    Scratch<T> scratch(detail::bytes_of(buffer, static_cast<std::size_t>(threads)));
    const std::size_t grain = std::max<std::size_t>(1, elementwise_grain / 4 / longest);
    parallel_for_slots(
        static_cast<std::size_t>(rows), grain, threads, [&](std::size_t begin, std::size_t end, int slot) {
            const T *in[inputs];
            T *spared = scratch.get() + buffer * static_cast<std::size_t>(slot);
            if (contiguous) {
                const auto at = static_cast<std::ptrdiff_t>(begin);
                for (int j = 0; j < inputs; ++j) in[j] = reinterpret_cast<const T *>(operands[j] + at * steps[j]);
                call(in, row_steps, reinterpret_cast<T *>(operands[inputs] + at * steps[inputs]), row_steps[inputs],
                     end - begin, static_cast<std::size_t>(length), spared);
                return;
            }
            T *own = spared + spare, *result = own + longest * inputs;
            for (auto row = static_cast<std::ptrdiff_t>(begin); row < static_cast<std::ptrdiff_t>(end); ++row) {
                for (int j = 0; j < inputs; ++j) {
                    T *place = own + longest * static_cast<std::size_t>(j);
                    gather<From>(operands[j] + row * steps[j], steps_in_row[j], lengths[j], place);
                    in[j] = place;
                }
                call(in, row_steps, result, 0, 1, static_cast<std::size_t>(length), spared);
                scatter<Result<From, T>>(result, lengths[inputs], operands[inputs] + row * steps[inputs],
                                         steps_in_row[inputs]);
            }
        });
}

} // namespace pynn
