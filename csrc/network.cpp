// Forward, loss and backward of a fully connected network, by the kernels that its layers would call.
#include "network.hpp"

#include <algorithm>

#include "dispatch.hpp"
#include "memory.hpp"
#include "parallel.hpp"
#include "simd/environment.hpp"

namespace pynn {

template <class T>
double network_gradient(std::size_t m, MatrixView<T> x, const std::vector<NetworkLayer<T>> &layers,
                        std::size_t activation, bool saves_input, const std::ptrdiff_t *labels, T *y, double decay) {
    const Kernels<T> &kernels = active_kernels_of<T>();
    const std::size_t last = layers.size() - 1, classes = layers[last].out;
    std::size_t widest = classes, hidden = 0;
    constexpr std::size_t line = cache_line / sizeof(T);
    auto padded = [](std::size_t n) { return (n + line - 1) / line * line; };
    for (std::size_t i = 0; i < last; ++i) {
        widest = std::max(widest, layers[i].out);
        hidden += padded(m * layers[i].out);
    }
    Scratch<T> outputs(hidden), before(saves_input ? hidden : 0); // of each hidden layer, after and before activation
    Scratch<T> gradients(2 * padded(m * widest));
    Scratch<double> losses(m);

    MatrixView<T> input = x;
    std::vector<MatrixView<T>> inputs;
    inputs.reserve(layers.size());
    std::size_t at = 0;
    for (std::size_t i = 0; i <= last; ++i) {
        const NetworkLayer<T> &layer = layers[i];
        inputs.push_back(input);
        const auto row = static_cast<std::ptrdiff_t>(layer.out);
        if (i == last) {
            affine_forward<T>(m, layer.out, layer.in, input, layer.w, layer.b, {}, y, row);
            break;
        }
        T *output = outputs.get() + at;
        if (saves_input) {
            T *z = before.get() + at;
            affine_forward<T>(m, layer.out, layer.in, input, layer.w, layer.b, {}, z, row);
            parallel_for(m * layer.out, elementwise_grain, [&](std::size_t begin, std::size_t end) {
                kernels.forward[activation](z + begin, output + begin, end - begin);
            });
        } else {
            affine_forward<T>(m, layer.out, layer.in, input, layer.w, layer.b, activation, output, row);
        }
        input = {output, row, 1};
        at += padded(m * layer.out);
    }

    T *dy = gradients.get(), *dx = dy + padded(m * widest);
    const T scale = static_cast<T>(1.0 / static_cast<double>(m));
    parallel_for(m, std::max<std::size_t>(1, elementwise_grain / 16 / (classes + 16)),
                 [&](std::size_t begin, std::size_t end) {
                     T *rows = y + begin * classes, *d = dy + begin * classes;
                     kernels.softmax_loss(rows, rows, end - begin, classes, labels + begin, losses.get() + begin);
                     kernels.scale(rows, scale, d, (end - begin) * classes);
                     for (std::size_t i = begin; i < end; ++i, rows += classes, d += classes)
                         d[labels[i]] = scale * (rows[labels[i]] - 1);
                 });

    for (std::size_t i = last + 1; i-- > 0;) {
        const NetworkLayer<T> &layer = layers[i];
        std::optional<std::size_t> fused;
        const T *saved = nullptr;
        if (i < last) {
            at -= padded(m * layer.out);
            if (saves_input) {
                const T *z = before.get() + at;
                parallel_for(m * layer.out, elementwise_grain, [&](std::size_t begin, std::size_t end) {
                    kernels.backward[activation](dy + begin, z + begin, dy + begin, end - begin);
                });
            } else {
                fused = activation;
                saved = outputs.get() + at;
            }
        }
        affine_backward<T>(m, layer.out, layer.in, dy, inputs[i], layer.w, saved, fused, i > 0 ? dx : nullptr, layer.dw,
                           layer.db, false);
        if (decay != 0)
            parallel_for(layer.in * layer.out, elementwise_grain, [&](std::size_t begin, std::size_t end) {
                kernels.add_scaled(layer.w.data + begin, static_cast<T>(decay), layer.dw + begin, end - begin);
            });
        std::swap(dy, dx);
    }
    StandardEnvironment environment;
    return active_kernels().sum(losses.get(), m) / static_cast<double>(m);
}

#define PYNN_INSTANTIATE(T)                                                                                            \
    template double network_gradient<T>(std::size_t, MatrixView<T>, const std::vector<NetworkLayer<T>> &, std::size_t, \
                                        bool, const std::ptrdiff_t *, T *, double);
PYNN_INSTANTIATE(float)
PYNN_INSTANTIATE(double)

} // namespace pynn
