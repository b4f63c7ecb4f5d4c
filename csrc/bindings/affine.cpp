// affine and affine_backward: check the operands, allocate the results, drop the GIL, one call.
#include "bindings/bindings.hpp"

#include <cstring>
#include <initializer_list>
#include <optional>

#include "affine.hpp"

namespace pynn {
namespace {

struct Operand {
    const char *name;
    py::object array; // an ndarray once taken
};

PyArrayObject *of(const Operand &operand) { return as_array(operand.array); }

Operand take(const char *name, py::handle object) {
    if (PyArray_Check(object.ptr())) return {name, py::reinterpret_borrow<py::object>(object)};
    PyObject *array = PyArray_FROM_O(object.ptr());
    if (array == nullptr) {
        if (PyErr_ExceptionMatches(PyExc_MemoryError) || !PyErr_ExceptionMatches(PyExc_Exception))
            throw py::error_already_set();
        const std::string message = std::string(name) + " is a " + Py_TYPE(object.ptr())->tp_name +
                                    " that makes no array; expected an array of numbers";
        py::raise_from(PyExc_TypeError, message.c_str());
        throw py::error_already_set();
    }
    return {name, owned(array)};
}

// NPY_FLOAT or NPY_DOUBLE: the type that the operands are computed in.
int common_type(std::initializer_list<const Operand *> operands) {
    bool single = true, twice = true;
    for (const Operand *operand : operands) {
        const int type = PyArray_TYPE(of(*operand));
        if (!PyTypeNum_ISNUMBER(type) && type != NPY_BOOL)
            throw py::type_error(std::string(operand->name) + " has dtype " + dtype_text(of(*operand)) +
                                 "; expected real numbers (float32 or float64)");
        if (PyTypeNum_ISCOMPLEX(type) || type == NPY_LONGDOUBLE)
            throw py::type_error(std::string(operand->name) + " has dtype " + dtype_text(of(*operand)) +
                                 "; expected float32 or float64");
        single = single && type == NPY_FLOAT;
        twice = twice && type == NPY_DOUBLE;
    }
    if (single) return NPY_FLOAT;
    if (twice) return NPY_DOUBLE;
    PyArrayObject *arrays[8];
    npy_intp count = 0;
    for (const Operand *operand : operands) arrays[count++] = of(*operand);
    py::object type = owned(PyArray_ResultType(count, arrays, 0, nullptr));
    const int number = reinterpret_cast<PyArray_Descr *>(type.ptr())->type_num;
    return number == NPY_FLOAT || number == NPY_HALF ? NPY_FLOAT : NPY_DOUBLE; // integers compute as float64
}

// The operand in the given type, native and aligned; a copy only where it is not so already.
void convert_to(Operand &operand, int type, int more_flags = 0) {
    const int flags = NPY_ARRAY_ALIGNED | NPY_ARRAY_NOTSWAPPED | NPY_ARRAY_FORCECAST | more_flags;
    if (PyArray_TYPE(of(operand)) == type && PyArray_CHKFLAGS(of(operand), NPY_ARRAY_ALIGNED | more_flags) &&
        PyArray_ISNOTSWAPPED(of(operand)))
        return;
    operand.array = owned(PyArray_FromArray(of(operand), PyArray_DescrFromType(type), flags));
}

[[noreturn]] void refuse_shapes(std::initializer_list<const Operand *> operands, const char *wanted) {
    std::string message;
    for (const Operand *operand : operands)
        message += std::string(message.empty() ? "" : ", ") + operand->name + " has shape " + shape_text(of(*operand));
    throw py::value_error(message + "; expected " + wanted);
}

// The sizes of x (..., k) @ w (k, n): m rows, and the shape of the result.
struct Sizes {
    npy_intp m, n, k;
    int dimensions;
    npy_intp shape[NPY_MAXDIMS];
};

Sizes sizes_of(const Operand &x, const Operand &w) {
    Sizes sizes;
    sizes.dimensions = PyArray_NDIM(of(x));
    if (sizes.dimensions < 1 || PyArray_NDIM(of(w)) != 2 ||
        PyArray_DIM(of(x), sizes.dimensions - 1) != PyArray_DIM(of(w), 0))
        refuse_shapes({&x, &w}, "x (in,), (m, in) or (..., in) and w (in, out)");
    sizes.k = PyArray_DIM(of(w), 0);
    sizes.n = PyArray_DIM(of(w), 1);
    sizes.m = 1;
    for (int i = 0; i + 1 < sizes.dimensions; ++i) sizes.m *= sizes.shape[i] = PyArray_DIM(of(x), i);
    sizes.shape[sizes.dimensions - 1] = sizes.n;
    return sizes;
}

bool has_shape(const Operand &operand, int dimensions, const npy_intp *shape) {
    return PyArray_NDIM(of(operand)) == dimensions &&
           PyArray_CompareLists(PyArray_DIMS(of(operand)), shape, dimensions);
}

std::optional<std::size_t> activation_index(py::handle name) {
    if (name.is_none()) return {};
    std::string known;
    for (std::size_t i = 0; i < activation_count; ++i) {
        if (PyUnicode_Check(name.ptr()) && PyUnicode_CompareWithASCIIString(name.ptr(), activation_names[i]) == 0)
            return i;
        known += std::string(", '") + activation_names[i] + "'";
    }
    const std::string message = "activation is " + text_of(py::repr(name)) + "; expected None" + known;
    if (!PyUnicode_Check(name.ptr())) throw py::type_error(message);
    throw py::value_error(message);
}

// (..., columns) as (rows, columns) with unit stride along one of the two; a copy only where there is no such view.
template <class T> MatrixView<T> matrix_view(Operand &operand, npy_intp rows, npy_intp columns) {
    if (PyArray_NDIM(of(operand)) != 2) {
        npy_intp shape[2] = {rows, columns};
        PyArray_Dims two{shape, 2};
        operand.array = owned(PyArray_Newshape(of(operand), &two, NPY_CORDER));
    }
    for (int attempt = 0;; ++attempt) {
        PyArrayObject *array = of(operand);
        const npy_intp size = static_cast<npy_intp>(sizeof(T));
        const npy_intp row_bytes = PyArray_STRIDE(array, 0), column_bytes = PyArray_STRIDE(array, 1);
        const T *data = static_cast<const T *>(PyArray_DATA(array));
        if (columns <= 1 || column_bytes == size) return {data, row_bytes / size, 1};
        if (rows <= 1 || row_bytes == size) return {data, 1, column_bytes / size};
        operand.array = owned(PyArray_NewCopy(array, NPY_CORDER));
        if (attempt > 0) throw std::logic_error("a contiguous copy is not contiguous");
    }
}

// The bytes an array may touch: [low, high).
std::array<const char *, 2> extent(PyArrayObject *array) {
    const char *low = PyArray_BYTES(array), *high = low + PyArray_ITEMSIZE(array);
    for (int i = 0; i < PyArray_NDIM(array); ++i) {
        if (PyArray_DIM(array, i) == 0) return {low, low};
        const npy_intp reach = (PyArray_DIM(array, i) - 1) * PyArray_STRIDE(array, i);
        (reach < 0 ? low : high) += reach;
    }
    return {low, high};
}

bool may_overlap(PyArrayObject *a, PyArrayObject *b) {
    const auto [a_low, a_high] = extent(a);
    const auto [b_low, b_high] = extent(b);
    return a_low < b_high && b_low < a_high;
}

void check_output(const Operand &out, int type, const Sizes &sizes) {
    const std::string name = out.name;
    if (!PyArray_Check(out.array.ptr()))
        throw py::type_error(name + " is a " + Py_TYPE(out.array.ptr())->tp_name + "; expected a NumPy array");
    py::object wanted = owned(PyArray_DescrFromType(type));
    if (PyArray_TYPE(of(out)) != type)
        throw py::type_error(name + " has dtype " + dtype_text(of(out)) + "; expected " + text_of(wanted));
    if (!has_shape(out, sizes.dimensions, sizes.shape)) {
        py::tuple expected(sizes.dimensions);
        for (int i = 0; i < sizes.dimensions; ++i) expected[i] = sizes.shape[i];
        throw py::value_error(name + " has shape " + shape_text(of(out)) + "; expected " + text_of(expected));
    }
    if (!PyArray_ISWRITEABLE(of(out))) throw py::value_error(name + " is read-only; expected a writeable array");
    for (int i = 0; i < sizes.dimensions; ++i)
        if (PyArray_STRIDE(of(out), i) == 0 && PyArray_DIM(of(out), i) > 1 && PyArray_SIZE(of(out)) > 0)
            throw py::value_error(name + " has elements that share memory; expected one place for each element");
}

py::object affine(py::object x_argument, py::object w_argument, py::object b_argument, py::object activation_name,
                  py::object out_argument) {
    Operand x = take("x", x_argument), w = take("w", w_argument);
    const bool biased = !b_argument.is_none();
    Operand b = biased ? take("b", b_argument) : Operand{"b", {}};
    const std::optional<std::size_t> activation = activation_index(activation_name);
    const int type = biased ? common_type({&x, &w, &b}) : common_type({&x, &w});
    const Sizes sizes = sizes_of(x, w);
    if (biased && !has_shape(b, 1, &sizes.n)) refuse_shapes({&b, &x, &w}, "b (out,) for w (in, out)");

    py::object result = out_argument, target;
    if (out_argument.is_none()) {
        result = target = owned(PyArray_SimpleNew(sizes.dimensions, sizes.shape, type));
    } else {
        Operand out{"out", out_argument};
        check_output(out, type, sizes);
        PyArrayObject *array = of(out);
        const bool direct = PyArray_ISCARRAY(array) && !may_overlap(array, of(x)) && !may_overlap(array, of(w)) &&
                            !(biased && may_overlap(array, of(b)));
        // Computed aside where out cannot be written directly or is read as an operand, then copied into it.
        target = direct ? out_argument : owned(PyArray_SimpleNew(sizes.dimensions, sizes.shape, type));
    }
    if (PyArray_SIZE(as_array(result)) == 0) return result;
    convert_to(x, type);
    convert_to(w, type);
    if (biased) convert_to(b, type, NPY_ARRAY_C_CONTIGUOUS);

    auto compute = [&]<class T>(T) {
        MatrixView<T> x_view = matrix_view<T>(x, sizes.m, sizes.k), w_view = matrix_view<T>(w, sizes.k, sizes.n);
        const T *bias = biased ? static_cast<const T *>(PyArray_DATA(of(b))) : nullptr;
        T *y = static_cast<T *>(PyArray_DATA(as_array(target)));
        WithoutGil unlocked;
        affine_forward<T>(static_cast<std::size_t>(sizes.m), static_cast<std::size_t>(sizes.n),
                          static_cast<std::size_t>(sizes.k), x_view, w_view, bias, activation, y, sizes.n);
    };
    if (type == NPY_FLOAT)
        compute(float());
    else
        compute(double());
    if (!target.is(result) && PyArray_CopyInto(as_array(result), as_array(target)) < 0) throw py::error_already_set();
    return result;
}

py::tuple backward(py::object dy_argument, py::object x_argument, py::object w_argument, py::object y_argument,
                   py::object activation_name, bool need_dx) {
    Operand dy = take("dy", dy_argument), x = take("x", x_argument), w = take("w", w_argument);
    const std::optional<std::size_t> activation = activation_index(activation_name);
    if (activation && activation_saves[*activation] != 'y')
        throw py::value_error(
            std::string("activation is '") + activation_names[*activation] +
            "', whose slope does not follow from its output; expected it to be applied apart from affine");
    if (activation && y_argument.is_none())
        throw py::value_error(std::string("y is None; expected the output of affine, for the slope of activation '") +
                              activation_names[*activation] + "'");
    Operand y = activation ? take("y", y_argument) : Operand{"y", {}};
    const int type = activation ? common_type({&dy, &x, &w, &y}) : common_type({&dy, &x, &w});
    const Sizes sizes = sizes_of(x, w);
    for (const Operand *operand : {&dy, &y})
        if (operand->array && !has_shape(*operand, sizes.dimensions, sizes.shape))
            refuse_shapes({operand, &x, &w}, "gradient and output (..., out) for x (..., in) and w (in, out)");
    convert_to(dy, type, NPY_ARRAY_C_CONTIGUOUS);
    convert_to(x, type);
    convert_to(w, type);
    if (activation) convert_to(y, type, NPY_ARRAY_C_CONTIGUOUS);

    py::object dx =
        need_dx ? owned(PyArray_SimpleNew(sizes.dimensions, PyArray_DIMS(of(x)), type)) : py::object(py::none());
    py::object dw = owned(PyArray_SimpleNew(2, PyArray_DIMS(of(w)), type)),
               db = owned(PyArray_SimpleNew(1, const_cast<npy_intp *>(&sizes.n), type));
    auto compute = [&]<class T>(T) {
        MatrixView<T> x_view = matrix_view<T>(x, sizes.m, sizes.k), w_view = matrix_view<T>(w, sizes.k, sizes.n);
        auto data = [](py::handle array) { return static_cast<T *>(PyArray_DATA(as_array(array))); };
        const T *saved = activation ? data(y.array) : nullptr;
        T *dx_data = need_dx ? data(dx) : nullptr;
        const T *dy_data = data(dy.array);
        T *dw_data = data(dw), *db_data = data(db);
        WithoutGil unlocked;
        affine_backward<T>(static_cast<std::size_t>(sizes.m), static_cast<std::size_t>(sizes.n),
                           static_cast<std::size_t>(sizes.k), dy_data, x_view, w_view, saved, activation, dx_data,
                           dw_data, db_data);
    };
    if (type == NPY_FLOAT)
        compute(float());
    else
        compute(double());
    return py::make_tuple(dx, dw, db);
}

} // namespace

void bind_affine(py::module_ &module) {
    module.def("affine", &affine, py::arg("x"), py::arg("w"), py::arg("b") = py::none(),
               py::arg("activation") = py::none(), py::arg("out") = py::none(),
               R"(activation(x @ w + b).

Parameters
----------
x : array_like, shape (in,), (m, in) or (..., in)
    Input; float32 or float64 (mixed types compute in the wider one, float16 as float32, integers as float64).
w : array_like, shape (in, out)
    Weights, in C or Fortran order: the transposed view of a (out, in) matrix, as torch.nn.Linear keeps it, is read in
    place.
b : array_like, shape (out,), optional
    Bias.
activation : str, optional
    A name of `pynn.ACTIVATIONS`, applied to the result while it is in the cache.
out : ndarray, shape (..., out), optional
    Where the result is written; it must have the result's dtype. It may overlap the operands.

Returns
-------
y : ndarray, shape (..., out)
    `out` if that was given.

Raises
------
ValueError
    If shapes do not match, `activation` is unknown, or `out` has another shape or is read-only.
TypeError
    If an operand is not of real numbers, or `out` is not an array of the result's dtype.

Notes
-----
Each output is the sum over chunks of 256 terms of in, in order, each chunk one chain of fused multiply-adds; so its bits
depend neither on the batch that it came in nor on threads, blocking or the instruction set. Source: Deep Learning from
Scratch, section 5.6.
)");
    module.def("affine_backward", &backward, py::arg("dy"), py::arg("x"), py::arg("w"), py::arg("y") = py::none(),
               py::arg("activation") = py::none(), py::arg("need_dx") = true,
               R"(Gradients of `affine`.

Parameters
----------
dy : array_like, shape (..., out)
    Gradient with respect to the output of `affine`.
x : array_like, shape (..., in)
    The input that `affine` was given.
w : array_like, shape (in, out)
    The weights that `affine` was given.
y : array_like, shape (..., out), optional
    The output of `affine`; needed with an activation.
activation : str, optional
    The activation that `affine` was given.
need_dx : bool, optional
    Whether the gradient with respect to `x` is wanted (not so for a first layer). Default True.

Returns
-------
dx : ndarray, shape of x, or None
dw : ndarray, shape (in, out)
db : ndarray, shape (out,)
    The gradient with respect to the bias: the sum of the output's gradient over the batch.

Raises
------
ValueError
    If shapes do not match, or `y` is missing with an activation.
TypeError
    If an operand is not of real numbers.

Notes
-----
The three results follow `affine`'s rule of summation over their own terms. Source: Deep Learning from Scratch,
section 5.6.
)");
}

} // namespace pynn
