// Forward, loss and backward of a fully connected network, by the kernels that its layers would call.
#include "network.hpp"

#include <algorithm>
#include <atomic>
#include <new>

#include "dispatch.hpp"
#include "memory.hpp"
#include "parallel.hpp"
#include "simd/environment.hpp"

namespace pynn {

namespace {

constexpr std::size_t least_rows = 16; // of a thread that takes its own through all layers

// What a layer reads and makes, m rows of each.
template <class T> struct LayerRows {
    MatrixView<T> input;
    T *output;      // after the activation, which the last layer does not have
    T *before;      // it, where the gradient needs that; else nullptr
    T *dz;          // gradient before the activation
    const T *saved; // what the activation's gradient is computed from
};

// Rows begin .. end - 1 through all layers, to the gradients before their activations: no row depends on another.
template <class T> class Rows {
  public:
    Rows(std::size_t m, const std::vector<NetworkLayer<T>> &layers, const std::vector<LayerRows<T>> &rows,
         std::size_t activation, const std::ptrdiff_t *labels, double *losses)
        : kernels_(active_kernels_of<T>()), m_(m), layers_(layers), rows_(rows), activation_(activation),
          labels_(labels), losses_(losses) {}

    void forward(std::size_t begin, std::size_t end) const {
        for (std::size_t i = 0; i < layers_.size(); ++i) {
            const auto &[in, out, w, b, dw, db] = layers_[i];
            const LayerRows<T> &rows = rows_[i];
            const std::size_t first = begin * out;
            MatrixView<T> x = rows.input;
            x.data += static_cast<std::ptrdiff_t>(begin) * x.row;
            std::optional<std::size_t> fused;
            if (i + 1 < layers_.size() && rows.before == nullptr) fused = activation_;
            T *y = (rows.before != nullptr ? rows.before : rows.output) + first;
            affine_forward<T>(end - begin, out, in, x, w, b, fused, y, static_cast<std::ptrdiff_t>(out));
            if (rows.before == nullptr) continue;
            parallel_for((end - begin) * out, elementwise_grain, [&](std::size_t from, std::size_t to) {
                kernels_.forward[activation_](y + from, rows.output + first + from, to - from);
            });
        }
    }
    void loss(std::size_t begin, std::size_t end) const {
        const std::size_t classes = layers_.back().out;
        const T scale = static_cast<T>(1.0 / static_cast<double>(m_));
        T *y = rows_.back().output + begin * classes, *dz = rows_.back().dz + begin * classes;
        kernels_.softmax_loss(y, y, end - begin, classes, labels_ + begin, losses_ + begin, dz);
        kernels_.scale(y, scale, dz, (end - begin) * classes);
        for (std::size_t i = begin; i < end; ++i, y += classes, dz += classes)
            dz[labels_[i]] = scale * (y[labels_[i]] - 1);
    }
    void backward(std::size_t begin, std::size_t end) const {
        for (std::size_t i = layers_.size() - 1; i > 0; --i) {
            const auto &[in, out, w, b, dw, db] = layers_[i];
            const MatrixView<T> dz{rows_[i].dz + begin * out, static_cast<std::ptrdiff_t>(out), 1};
            T *dx = rows_[i - 1].dz + begin * in;
            const T *saved = rows_[i - 1].saved + begin * in;
            affine_forward<T>(end - begin, in, out, dz, w.transposed(), nullptr, {}, dx,
                              static_cast<std::ptrdiff_t>(in));
            parallel_for((end - begin) * in, elementwise_grain, [&](std::size_t from, std::size_t to) {
                kernels_.backward[activation_](dx + from, saved + from, dx + from, to - from);
            });
        }
    }

  private:
    const Kernels<T> &kernels_;
    std::size_t m_;
    const std::vector<NetworkLayer<T>> &layers_;
    const std::vector<LayerRows<T>> &rows_;
    std::size_t activation_;
    const std::ptrdiff_t *labels_;
    double *losses_;
};

} // namespace

template <class T>
double network_gradient(std::size_t m, MatrixView<T> x, const std::vector<NetworkLayer<T>> &layers,
                        std::size_t activation, bool saves_input, const std::ptrdiff_t *labels, T *y, double decay) {
    const std::size_t last = layers.size() - 1, classes = layers[last].out;
    constexpr std::size_t line = cache_line / sizeof(T);
    auto padded = [](std::size_t n) { return (n + line - 1) / line * line; };
    std::size_t hidden = 0;
    double work = 0, most_work = 0;
    for (std::size_t i = 0; i <= last; ++i) {
        const double of_layer = multiplications(m, layers[i].in, layers[i].out);
        work += of_layer;
        most_work = std::max(most_work, of_layer);
        if (i < last) hidden += padded(m * layers[i].out);
    }
    Scratch<T> outputs(hidden), before(saves_input ? hidden : 0), gradients(hidden + m * classes);
    Scratch<double> losses(m);
    std::vector<LayerRows<T>> rows;
    rows.reserve(layers.size());
    std::size_t at = 0;
    for (std::size_t i = 0; i <= last; ++i) {
        T *output = i < last ? outputs.get() + at : y, *z = i < last && saves_input ? before.get() + at : nullptr;
        rows.push_back({x, output, z, gradients.get() + at, z != nullptr ? z : output});
        x = {output, static_cast<std::ptrdiff_t>(layers[i].out), 1};
        at += padded(m * layers[i].out);
    }

    const Rows<T> all(m, layers, rows, activation, labels, losses.get());
    // Where every layer is over soon, each thread takes rows of its own all the way, and waits for the others once.
    const int threads = over_soon(most_work) ? threads_for(work) : 1;
    const std::size_t parts = std::min<std::size_t>(static_cast<std::size_t>(threads), m / least_rows);
    if (parts > 1) {
        std::atomic<bool> out_of_memory{false};
        parallel_tasks(parts, threads, [&](std::size_t part, int) {
            const CallSettings alone(1);
            const std::size_t begin = part * m / parts, end = (part + 1) * m / parts;
            try {
                all.forward(begin, end);
                all.loss(begin, end);
                all.backward(begin, end);
            } catch (const std::bad_alloc &) { out_of_memory.store(true, std::memory_order_relaxed); }
        });
        if (out_of_memory) throw std::bad_alloc();
    } else {
        all.forward(0, m);
        parallel_for(m, std::max<std::size_t>(1, elementwise_grain / 16 / (classes + 16)),
                     [&](std::size_t begin, std::size_t end) { all.loss(begin, end); });
        all.backward(0, m);
    }

    std::vector<WeightGradient<T>> weights;
    weights.reserve(layers.size());
    for (std::size_t i = 0; i <= last; ++i)
        weights.push_back({layers[i].in, layers[i].out, rows[i].input, rows[i].dz, layers[i].dw, layers[i].db});
    weight_gradients(m, weights);
    for (std::size_t i = 0; i <= last && decay != 0; ++i)
        parallel_for(layers[i].in * layers[i].out, elementwise_grain, [&](std::size_t begin, std::size_t end) {
            active_kernels_of<T>().add_scaled(layers[i].w.data + begin, static_cast<T>(decay), layers[i].dw + begin,
                                              end - begin);
        });
    StandardEnvironment environment;
    return active_kernels().sum(losses.get(), m) / static_cast<double>(m);
}

#define PYNN_INSTANTIATE(T)                                                                                            \
    template double network_gradient<T>(std::size_t, MatrixView<T>, const std::vector<NetworkLayer<T>> &, std::size_t, \
                                        bool, const std::ptrdiff_t *, T *, double);
PYNN_INSTANTIATE(float)
PYNN_INSTANTIATE(double)

} // namespace pynn
