// softmax_loss, the elementwise losses and dropout: check the operands, allocate the results, drop the GIL, one call.
#include "bindings/operands.hpp"

#include <algorithm>
#include <cstdint>
#include <string_view>

#include "bindings/distribution_rows.hpp"
#include "bindings/labels.hpp"
#include "dispatch.hpp"
#include "losses.hpp"
#include "memory.hpp"
#include "parallel.hpp"
#include "simd/environment.hpp"

namespace pynn {
namespace {

constexpr const char *loss_names[] = {
#define PYNN_NAME(name) #name,
    PYNN_LOSSES(PYNN_NAME)
#undef PYNN_NAME
};

std::size_t loss_index(py::handle name) {
    for (std::size_t i = 0; i < loss_count; ++i)
        if (PyUnicode_Check(name.ptr()) && PyUnicode_CompareWithASCIIString(name.ptr(), loss_names[i]) == 0) return i;
    throw py::value_error("loss is " + text_of(py::repr(name)) + "; expected the name of a row of the table");
}

std::size_t size_of(const Operand &operand) { return static_cast<std::size_t>(PyArray_SIZE(of(operand))); }
template <class T> const T *data_of(const Operand &operand) {
    return static_cast<const T *>(PyArray_DATA(of(operand)));
}
py::object array_like(const Operand &operand) {
    return new_array(PyArray_NDIM(of(operand)), PyArray_DIMS(of(operand)), PyArray_TYPE(of(operand)));
}
void contiguous(Operand &operand, int type) { convert_to(operand, type, NPY_ARRAY_C_CONTIGUOUS); }

constexpr std::size_t row_grain(std::size_t length) {
    return std::max<std::size_t>(1, elementwise_grain / 4 / (length + 16));
}

py::tuple softmax_loss(py::object x_argument, py::object t_argument) {
    Operand x = take("x", x_argument);
    const int type = common_type({&x});
    const Labels labels(t_argument, PyArray_NDIM(of(x)), PyArray_DIMS(of(x)));
    contiguous(x, type);
    py::object y = array_like(x);
    double loss = 0;
    with_type(type, [&]<class T>(T) {
        const T *data = data_of<T>(x);
        T *result = static_cast<T *>(PyArray_DATA(as_array(y)));
        WithoutGil unlocked;
        Scratch<double> losses(labels.count);
        auto kernel = active_kernels_of<T>().softmax_loss;
        const std::size_t n = labels.classes, spare = spare_of_row<T>(n);
        const int threads = thread_count();
        Scratch<T> own(detail::bytes_of(spare, static_cast<std::size_t>(threads)));
        const auto rows = [&](std::size_t begin, std::size_t end, int slot) {
            kernel(data + begin * n, result + begin * n, end - begin, n, labels.data + begin, losses.get() + begin,
                   own.get() + spare * static_cast<std::size_t>(slot));
        };
        parallel_for_slots(labels.count, row_grain(n), threads, rows);
        StandardEnvironment environment;
        loss = active_kernels().sum(losses.get(), labels.count) / static_cast<double>(labels.count);
    });
    return py::make_tuple(loss, y, labels.array);
}

py::object softmax_loss_backward(py::object y_argument, py::object t_argument, double scale) {
    Operand y = take("y", y_argument);
    const int type = common_type({&y});
    const Labels labels(t_argument, PyArray_NDIM(of(y)), PyArray_DIMS(of(y)));
    contiguous(y, type);
    py::object dx = array_like(y);
    with_type(type, [&]<class T>(T) {
        const T *data = data_of<T>(y);
        T *result = static_cast<T *>(PyArray_DATA(as_array(dx)));
        WithoutGil unlocked;
        auto kernel = active_kernels_of<T>().scale;
        parallel_for(labels.count, row_grain(labels.classes), [&](std::size_t begin, std::size_t end) {
            const std::size_t n = labels.classes;
            const T factor = static_cast<T>(scale); // here it is rounded to nearest
            kernel(data + begin * n, factor, result + begin * n, (end - begin) * n);
            for (std::size_t i = begin; i < end; ++i) {
                const std::size_t at = i * n + static_cast<std::size_t>(labels.data[i]);
                result[at] = factor * (data[at] - 1);
            }
        });
    });
    return dx;
}

// x and t of one shape and type
int check_pair(Operand &x, Operand &t) {
    const int type = common_type({&x, &t});
    if (!PyArray_SAMESHAPE(of(x), of(t))) refuse_shapes({&x, &t}, "arrays of one shape");
    contiguous(x, type);
    contiguous(t, type);
    return type;
}

double loss(py::object name, py::object x_argument, py::object t_argument, double parameter) {
    const std::size_t index = loss_index(name);
    Operand x = take("x", x_argument), t = take("t", t_argument);
    double sum = 0;
    with_type(check_pair(x, t), [&]<class T>(T) {
        const std::size_t n = size_of(x), blocks = (n + sum_block - 1) / sum_block;
        const T *x_data = data_of<T>(x), *t_data = data_of<T>(t);
        WithoutGil unlocked;
        Scratch<double> sums(blocks);
        auto kernel = active_kernels_of<T>().loss[index];
        parallel_for(blocks, 1, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i)
                sums.get()[i] = kernel(x_data + i * sum_block, t_data + i * sum_block,
                                       std::min(sum_block, n - i * sum_block), static_cast<T>(parameter));
        });
        StandardEnvironment environment;
        sum = active_kernels().sum(sums.get(), blocks);
    });
    return sum;
}

py::object loss_backward(py::object name, py::object x_argument, py::object t_argument, double scale,
                         double parameter) {
    const std::size_t index = loss_index(name);
    Operand x = take("x", x_argument), t = take("t", t_argument);
    const int type = check_pair(x, t);
    py::object dx = array_like(x);
    with_type(type, [&]<class T>(T) {
        const T *x_data = data_of<T>(x), *t_data = data_of<T>(t);
        T *result = static_cast<T *>(PyArray_DATA(as_array(dx)));
        const std::size_t n = size_of(x);
        WithoutGil unlocked;
        auto kernel = active_kernels_of<T>().loss_slope[index];
        parallel_for(n, elementwise_grain, [&](std::size_t begin, std::size_t end) {
            kernel(x_data + begin, t_data + begin, result + begin, end - begin, static_cast<T>(scale),
                   static_cast<T>(parameter));
        });
    });
    return dx;
}

constexpr std::size_t uniform_index() {
    for (std::size_t i = 0; i < distribution_count; ++i)
        if (std::string_view(distribution_rows[i].name) == "uniform") return i;
    return distribution_count;
}
static_assert(uniform_index() < distribution_count);

py::object dropout(py::object x_argument, std::uint64_t key, std::uint64_t start, double ratio, double scale) {
    Operand x = take("x", x_argument);
    const int type = common_type({&x});
    contiguous(x, type);
    py::object y = array_like(x);
    with_type(type, [&]<class T>(T) {
        const std::size_t n = size_of(x);
        const T *data = data_of<T>(x);
        T *result = static_cast<T *>(PyArray_DATA(as_array(y)));
        WithoutGil unlocked;
        constexpr std::size_t length = 2048;
        constexpr float bounds[] = {0, 1};
        const Constants<float> constants = distribution_rows[uniform_index()].float32.make(bounds, 2);
        auto fill = active_kernels_of<float>().fill[uniform_index()];
        auto drop = active_kernels_of<T>().drop;
        parallel_for((n + length - 1) / length, elementwise_grain / length, [&](std::size_t begin, std::size_t end) {
            float drawn[length] = {};
            for (std::size_t i = begin * length; i < std::min(n, end * length); i += length) {
                const std::size_t count = std::min(length, n - i);
                if (ratio > 0) fill(drawn, key, start + i, count, constants);
                drop(drawn, static_cast<float>(ratio), data + i, static_cast<T>(scale), result + i, count);
            }
        });
    });
    return y;
}

} // namespace

void bind_losses(py::module_ &module) {
    module.def("softmax_loss", &softmax_loss, py::arg("x"), py::arg("t"),
               R"(Mean cross-entropy of softmax(x) with labels t; (loss, softmax(x), t as intp).)");
    module.def("softmax_loss_backward", &softmax_loss_backward, py::arg("y"), py::arg("t"), py::arg("scale"),
               R"(scale * (y - one-hot t).)");
    module.def("loss", &loss, py::arg("name"), py::arg("x"), py::arg("t"), py::arg("parameter") = 0.0,
               R"(The sum of an elementwise loss.)");
    module.def("loss_backward", &loss_backward, py::arg("name"), py::arg("x"), py::arg("t"), py::arg("scale") = 1.0,
               py::arg("parameter") = 0.0, R"(scale times the slope of an elementwise loss with respect to x.)");
    module.def(
        "dropout", &dropout, py::arg("x"), py::arg("key"), py::arg("start"), py::arg("ratio"), py::arg("scale") = 1.0,
        R"(scale * x where the uniform numbers start, start + 1, ... of the key's stream are at least ratio, else 0.)");
}

} // namespace pynn
