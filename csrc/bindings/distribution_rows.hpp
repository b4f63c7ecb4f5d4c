// The distributions as bindings see them: names, parameters, what they must satisfy and what makes a kernel's constants
// of them, from the table.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "distributions.hpp"

namespace pynn {
namespace {

template <class... T> bool finite(T... values) { return (std::isfinite(values) && ...); }

constexpr std::size_t most_parameters = 4;
constexpr std::size_t names_in(const char *list) { return *list == 0 ? 1 : names_in(list + 1) + (*list == ','); }
template <std::size_t N, class T> std::array<T, N> first_of(const T *values) {
    std::array<T, N> found;
    std::copy_n(values, N, found.begin());
    return found;
}

#define PYNN_ALLOWED(name, make, condition, words, ...)                                                                \
    template <class T> bool name##_allowed(const T *parameters) {                                                      \
        static_assert(names_in(#__VA_ARGS__) <= most_parameters);                                                      \
        [[maybe_unused]] constexpr T largest = std::numeric_limits<T>::max();                                          \
        const auto [__VA_ARGS__] = first_of<names_in(#__VA_ARGS__)>(parameters);                                       \
        return condition;                                                                                              \
    }
PYNN_DISTRIBUTIONS(PYNN_ALLOWED)
#undef PYNN_ALLOWED

template <class T> struct Rules {
    bool (*allowed)(const T *parameters);
    Constants<T> (*make)(const T *parameters, std::size_t count);
};
struct DistributionRow {
    const char *name, *words, *parameters;
    std::size_t count; // of the parameters
    Rules<float> float32;
    Rules<double> float64;
    template <class T> const Rules<T> &rules() const {
        if constexpr (sizeof(T) == 4)
            return float32;
        else
            return float64;
    }
};
#define PYNN_ROW(name, make, condition, words, ...)                                                                    \
    DistributionRow{#name,                                                                                             \
                    words,                                                                                             \
                    #__VA_ARGS__,                                                                                      \
                    names_in(#__VA_ARGS__),                                                                            \
                    {name##_allowed<float>, make<float>},                                                              \
                    {name##_allowed<double>, make<double>}},
constexpr DistributionRow distribution_rows[] = {PYNN_DISTRIBUTIONS(PYNN_ROW)};
#undef PYNN_ROW

} // namespace
} // namespace pynn
