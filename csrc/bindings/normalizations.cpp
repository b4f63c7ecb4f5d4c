// Batch, layer and RMS normalization: check the operands, allocate the results, drop the GIL, share out columns or rows.
#include "bindings/operands.hpp"

#include <algorithm>
#include <cmath>

#include "dispatch.hpp"
#include "memory.hpp"
#include "parallel.hpp"
#include "simd/environment.hpp"

namespace pynn {
namespace {

constexpr std::size_t column_group = 64; // whole vectors of float64

template <class T> T *data_of(const py::object &array) { return static_cast<T *>(PyArray_DATA(as_array(array))); }

// x (..., features) and what goes with it, converted: rows of features.
struct Problem {
    Operand x, dy, gamma, beta;
    int type;
    std::size_t rows, columns;

    Problem(py::object x_argument, py::object dy_argument, py::object gamma_argument, py::object beta_argument)
        : x(take("x", x_argument)), dy(optional("dy", dy_argument)), gamma(optional("gamma", gamma_argument)),
          beta(optional("beta", beta_argument)) {
        Operand *operands[] = {&x, &dy, &gamma, &beta};
        for (Operand *&operand : operands)
            if (!operand->array) operand = &x;
        type = common_type({operands[0], operands[1], operands[2], operands[3]});
        const int dimensions = PyArray_NDIM(of(x));
        if (dimensions < 1) refuse_shapes({&x}, "(features,), (m, features) or (..., features)");
        const npy_intp features = PyArray_DIM(of(x), dimensions - 1);
        if (dy.array && !PyArray_SAMESHAPE(of(dy), of(x))) refuse_shapes({&dy, &x}, "gradients of the output's shape");
        for (const Operand *operand : {&gamma, &beta})
            if (operand->array && !has_shape(*operand, 1, &features))
                refuse_shapes({operand, &x}, "one number for each feature, the last axis of x");
        for (Operand *operand : {&x, &dy, &gamma, &beta})
            if (operand->array) convert_to(*operand, type, NPY_ARRAY_C_CONTIGUOUS);
        columns = static_cast<std::size_t>(features);
        rows = columns == 0 ? 0 : static_cast<std::size_t>(PyArray_SIZE(of(x))) / columns;
    }
    static Operand optional(const char *name, py::object argument) {
        return argument.is_none() ? Operand{name, {}} : take(name, argument);
    }
    py::object like_x() const { return new_array(PyArray_NDIM(of(x)), PyArray_DIMS(of(x)), type); }
    py::object per_column(int of_type) const {
        const npy_intp n = static_cast<npy_intp>(columns);
        return new_array(1, &n, of_type);
    }
    template <class T> const T *data(const Operand &operand) const {
        return operand.array ? static_cast<const T *>(PyArray_DATA(of(operand))) : nullptr;
    }
    template <class T> Normalized<T> normalized(const double *mean, const double *scale, bool by_row) const {
        return {data<T>(x),   static_cast<std::ptrdiff_t>(columns), rows, columns, mean, scale, by_row, data<T>(gamma),
                data<T>(beta)};
    }
};

// float64, contiguous, one for each of n
py::object moments_argument(const char *name, py::handle object, std::size_t n) {
    Operand operand = take(name, object);
    common_type({&operand});
    convert_to(operand, NPY_DOUBLE, NPY_ARRAY_C_CONTIGUOUS);
    if (PyArray_SIZE(of(operand)) != static_cast<npy_intp>(n))
        throw py::value_error(std::string(name) + " has shape " + shape_text(of(operand)) + "; expected " +
                              std::to_string(n) + " numbers");
    return operand.array;
}

// 1 / sqrt(variance + eps)
void scales(const double *variance, std::size_t n, double eps, double *scale) {
    StandardEnvironment environment;
    for (std::size_t i = 0; i < n; ++i) scale[i] = 1 / std::sqrt(variance[i] + eps);
}

template <class T> Normalized<T> row_part(Normalized<T> n, std::size_t begin, std::size_t end) {
    n.x += static_cast<std::ptrdiff_t>(begin) * n.x_row;
    n.rows = end - begin;
    if (n.by_row) n.mean += begin, n.scale += begin;
    return n;
}
template <class T> Normalized<T> column_part(Normalized<T> n, std::size_t begin, std::size_t end) {
    n.x += begin;
    n.columns = end - begin;
    if (!n.by_row) n.mean += begin, n.scale += begin;
    if (n.gamma != nullptr) n.gamma += begin;
    if (n.beta != nullptr) n.beta += begin;
    return n;
}

// f(first row, row after the last)
template <class F> void share_rows(const Problem &problem, F f) {
    parallel_for(problem.rows, std::max<std::size_t>(1, elementwise_grain / problem.columns), f);
}
// f(first column, column after the last)
template <class F> void share_columns(const Problem &problem, F f) {
    const std::size_t groups = (problem.columns + column_group - 1) / column_group;
    const std::size_t grain = std::max<std::size_t>(1, elementwise_grain / (problem.rows * column_group));
    parallel_for(groups, grain, [&](std::size_t begin, std::size_t end) {
        f(begin * column_group, std::min(problem.columns, end * column_group));
    });
}

template <class T> void normalize(const Problem &problem, const Normalized<T> &whole, T *y) {
    auto kernel = active_kernels_of<T>().normalize;
    const auto row = static_cast<std::ptrdiff_t>(problem.columns);
    share_rows(problem, [&](std::size_t begin, std::size_t end) {
        kernel(row_part(whole, begin, end), y + static_cast<std::ptrdiff_t>(begin) * row, row);
    });
}

// Sums down the columns of dy and of dy times the normalized values
template <class T>
void column_sums(const Problem &problem, const Normalized<T> &whole, double *sums, double *weighted) {
    auto kernel = active_kernels_of<T>().normalized_sums;
    const T *dy = problem.data<T>(problem.dy);
    share_columns(problem, [&](std::size_t begin, std::size_t end) {
        kernel(column_part(whole, begin, end), dy + begin, static_cast<std::ptrdiff_t>(problem.columns), sums + begin,
               weighted + begin);
    });
}

template <class T> void round_to(const double *from, std::size_t n, T *to) {
    StandardEnvironment environment;
    for (std::size_t i = 0; i < n; ++i) to[i] = static_cast<T>(from[i]);
}

py::tuple batch_normalization(py::object x, py::object gamma, py::object beta, py::object mean_argument,
                              py::object variance_argument, double eps) {
    const Problem problem(x, py::none(), gamma, beta);
    const bool given = !mean_argument.is_none();
    py::object mean = given ? moments_argument("mean", mean_argument, problem.columns) : problem.per_column(NPY_DOUBLE);
    py::object variance =
        given ? moments_argument("variance", variance_argument, problem.columns) : problem.per_column(NPY_DOUBLE);
    if (!given && problem.rows == 0 && problem.columns > 0)
        refuse_shapes({&problem.x}, "at least one row to take the mean of");
    py::object y = problem.like_x();
    if (problem.rows == 0) return py::make_tuple(y, mean, variance);
    with_type(problem.type, [&]<class T>(T) {
        const T *x_data = problem.data<T>(problem.x);
        T *y_data = data_of<T>(y);
        double *mean_data = data_of<double>(mean), *variance_data = data_of<double>(variance);
        WithoutGil unlocked;
        Scratch<double> scale(problem.columns);
        if (!given) {
            auto kernel = active_kernels_of<T>().column_moments;
            share_columns(problem, [&](std::size_t begin, std::size_t end) {
                kernel(x_data + begin, static_cast<std::ptrdiff_t>(problem.columns), problem.rows, end - begin,
                       mean_data + begin, variance_data + begin);
            });
        }
        scales(variance_data, problem.columns, eps, scale.get());
        normalize(problem, problem.normalized<T>(mean_data, scale.get(), false), y_data);
    });
    return py::make_tuple(y, mean, variance);
}

py::tuple layer_normalization(py::object x, py::object gamma, py::object beta, double eps, bool centered) {
    const Problem problem(x, py::none(), gamma, beta);
    const npy_intp rows = static_cast<npy_intp>(problem.rows);
    py::object y = problem.like_x(), mean = new_array(1, &rows, NPY_DOUBLE), variance = new_array(1, &rows, NPY_DOUBLE);
    if (problem.rows == 0) return py::make_tuple(y, mean, variance);
    with_type(problem.type, [&]<class T>(T) {
        T *y_data = data_of<T>(y);
        double *mean_data = data_of<double>(mean), *variance_data = data_of<double>(variance);
        WithoutGil unlocked;
        Scratch<double> scale(problem.rows);
        const Normalized<T> whole = problem.normalized<T>(mean_data, scale.get(), true);
        const Kernels<T> &kernels = active_kernels_of<T>();
        const auto row = static_cast<std::ptrdiff_t>(problem.columns);
        share_rows(problem, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i)
                kernels.row_moments(whole.x + static_cast<std::ptrdiff_t>(i) * row, problem.columns, centered,
                                    mean_data + i, variance_data + i);
            scales(variance_data + begin, end - begin, eps, scale.get() + begin);
            kernels.normalize(row_part(whole, begin, end), y_data + static_cast<std::ptrdiff_t>(begin) * row, row);
        });
    });
    return py::make_tuple(y, mean, variance);
}

// by_row: layer normalization. own_moments: they are those of x, by column; by row, that rows were centered too.
py::tuple normalization_backward(bool by_row, py::object dy, py::object x, py::object gamma, py::object mean_argument,
                                 py::object variance_argument, double eps, bool own_moments) {
    const Problem problem(x, dy, gamma, py::none());
    const std::size_t n = problem.columns, moments = by_row ? problem.rows : n;
    py::object mean = moments_argument("mean", mean_argument, moments);
    py::object variance = moments_argument("variance", variance_argument, moments);
    py::object dx = problem.like_x(), dgamma = problem.per_column(problem.type),
               dbeta = problem.per_column(problem.type);
    with_type(problem.type, [&]<class T>(T) {
        const T *dy_data = problem.data<T>(problem.dy);
        T *dx_data = data_of<T>(dx), *dgamma_data = data_of<T>(dgamma), *dbeta_data = data_of<T>(dbeta);
        const double *mean_data = data_of<double>(mean), *variance_data = data_of<double>(variance);
        WithoutGil unlocked;
        Scratch<double> scale(moments), memory(2 * n);
        double *sums = memory.get(), *weighted = sums + n;
        std::fill(sums, sums + 2 * n, 0.0);
        if (problem.rows > 0) {
            scales(variance_data, moments, eps, scale.get());
            const Normalized<T> whole = problem.normalized<T>(mean_data, scale.get(), by_row);
            column_sums(problem, whole, sums, weighted);
            const Kernels<T> &kernels = active_kernels_of<T>();
            const auto row = static_cast<std::ptrdiff_t>(n);
            share_rows(problem, [&](std::size_t begin, std::size_t end) {
                const std::ptrdiff_t first = static_cast<std::ptrdiff_t>(begin) * row;
                const Normalized<T> part = row_part(whole, begin, end);
                if (by_row)
                    kernels.normalize_rows_backward(part, dy_data + first, row, own_moments, dx_data + first, row);
                else
                    kernels.normalize_columns_backward(part, dy_data + first, row, own_moments ? sums : nullptr,
                                                       weighted, static_cast<double>(problem.rows), dx_data + first,
                                                       row);
            });
        }
        round_to(sums, n, dbeta_data);
        round_to(weighted, n, dgamma_data);
    });
    return py::make_tuple(dx, dgamma, dbeta);
}

py::tuple batch_normalization_backward(py::object dy, py::object x, py::object gamma, py::object mean,
                                       py::object variance, double eps, bool fixed) {
    return normalization_backward(false, dy, x, gamma, mean, variance, eps, !fixed);
}

py::tuple layer_normalization_backward(py::object dy, py::object x, py::object gamma, py::object mean,
                                       py::object variance, double eps, bool centered) {
    return normalization_backward(true, dy, x, gamma, mean, variance, eps, centered);
}

} // namespace

void bind_normalizations(py::module_ &module) {
    module.def("batch_normalization", &batch_normalization, py::arg("x"), py::arg("gamma"), py::arg("beta"),
               py::arg("mean"), py::arg("variance"), py::arg("eps"),
               R"(gamma (x - mean) / sqrt(variance + eps) + beta by feature, the last axis; (y, mean, variance).

mean and variance are float64; None: those of x.
)");
    module.def("batch_normalization_backward", &batch_normalization_backward, py::arg("dy"), py::arg("x"),
               py::arg("gamma"), py::arg("mean"), py::arg("variance"), py::arg("eps"), py::arg("fixed"),
               R"((dx, dgamma, dbeta); fixed: mean and variance were given, not those of x.)");
    module.def("layer_normalization", &layer_normalization, py::arg("x"), py::arg("gamma"), py::arg("beta"),
               py::arg("eps"), py::arg("centered"),
               R"(The same by row; not centered, mean is 0 and variance the mean square. (y, mean, variance).)");
    module.def("layer_normalization_backward", &layer_normalization_backward, py::arg("dy"), py::arg("x"),
               py::arg("gamma"), py::arg("mean"), py::arg("variance"), py::arg("eps"), py::arg("centered"),
               R"((dx, dgamma, dbeta).)");
}

} // namespace pynn
