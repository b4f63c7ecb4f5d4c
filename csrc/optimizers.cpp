// Constants of the optimizers' rules, from the hyperparameters: the same sequence of IEEE operations everywhere, no libm.
#include "optimizers.hpp"

#include <algorithm>
#include <cmath>

namespace pynn {
namespace {

// base^n by squaring
double power(double base, std::uint64_t n) {
    double result = 1;
    for (; n > 0; n /= 2, base *= base)
        if (n % 2 != 0) result *= base;
    return result;
}

} // namespace

void as_given(const double *hyperparameters, std::uint64_t, double *constants) {
    std::copy_n(hyperparameters, most_hyperparameters, constants);
}

void with_complement(const double *hyperparameters, std::uint64_t, double *constants) {
    std::copy_n(hyperparameters, most_hyperparameters, constants);
    constants[3] = 1 - hyperparameters[1];
}

void bias_corrected(const double *hyperparameters, std::uint64_t step, double *constants) {
    const double lr = hyperparameters[0], beta1 = hyperparameters[1], beta2 = hyperparameters[2];
    constants[0] = lr * std::sqrt(1 - power(beta2, step)) / (1 - power(beta1, step));
    constants[1] = 1 - beta1;
    constants[2] = 1 - beta2;
    constants[3] = hyperparameters[3];
}

} // namespace pynn
