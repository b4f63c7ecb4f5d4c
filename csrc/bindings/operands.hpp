// What bindings that check their operands by hand share: operands as arrays, their common type, shapes and overlaps.
#pragma once

#include "bindings/bindings.hpp"

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <variant>

#include "affine.hpp"

namespace pynn {

// What pack() returns: a private copy of the weights, in C order and read-only, and its panels.
struct PackedWeights {
    py::object weights;
    std::variant<std::monostate, Panels<float>, Panels<double>> panels;
};

struct Operand {
    const char *name;
    py::object array; // an ndarray once taken
    const PackedWeights *packed = nullptr;
};

inline PyArrayObject *of(const Operand &operand) { return as_array(operand.array); }

inline Operand take(const char *name, py::handle object) {
    if (PyArray_Check(object.ptr())) return {name, py::reinterpret_borrow<py::object>(object)};
    if (py::isinstance<PackedWeights>(object)) {
        const PackedWeights &packed = object.cast<const PackedWeights &>();
        return {name, packed.weights, &packed};
    }
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
inline int common_type(std::initializer_list<const Operand *> operands) {
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
inline void convert_to(Operand &operand, int type, int more_flags = 0) {
    const int flags = NPY_ARRAY_ALIGNED | NPY_ARRAY_NOTSWAPPED | NPY_ARRAY_FORCECAST | more_flags;
    if (PyArray_TYPE(of(operand)) == type && PyArray_CHKFLAGS(of(operand), NPY_ARRAY_ALIGNED | more_flags) &&
        PyArray_ISNOTSWAPPED(of(operand)))
        return;
    operand.array = owned(PyArray_FromArray(of(operand), PyArray_DescrFromType(type), flags));
}

[[noreturn]] inline void refuse_shapes(std::initializer_list<const Operand *> operands, const char *wanted) {
    std::string message;
    for (const Operand *operand : operands)
        message += std::string(message.empty() ? "" : ", ") + operand->name + " has shape " + shape_text(of(*operand));
    throw py::value_error(message + "; expected " + wanted);
}

inline bool has_shape(const Operand &operand, int dimensions, const npy_intp *shape) {
    return PyArray_NDIM(of(operand)) == dimensions &&
           PyArray_CompareLists(PyArray_DIMS(of(operand)), shape, dimensions);
}

// The bytes an array may touch: [low, high).
inline std::array<const char *, 2> extent(PyArrayObject *array) {
    const char *low = PyArray_BYTES(array), *high = low + PyArray_ITEMSIZE(array);
    for (int i = 0; i < PyArray_NDIM(array); ++i) {
        if (PyArray_DIM(array, i) == 0) return {low, low};
        const npy_intp reach = (PyArray_DIM(array, i) - 1) * PyArray_STRIDE(array, i);
        (reach < 0 ? low : high) += reach;
    }
    return {low, high};
}

inline bool may_overlap(PyArrayObject *a, PyArrayObject *b) {
    const auto [a_low, a_high] = extent(a);
    const auto [b_low, b_high] = extent(b);
    return a_low < b_high && b_low < a_high;
}

// Whether two elements may lie in one place: each stride must reach past all that the smaller ones span.
inline bool may_share_elements(PyArrayObject *array) {
    if (PyArray_SIZE(array) <= 1 || PyArray_IS_C_CONTIGUOUS(array)) return false;
    std::array<std::array<npy_intp, 2>, NPY_MAXDIMS> axes; // stride and what it spans
    const int dimensions = PyArray_NDIM(array);
    for (int i = 0; i < dimensions; ++i) {
        const npy_intp stride = PyArray_STRIDE(array, i) < 0 ? -PyArray_STRIDE(array, i) : PyArray_STRIDE(array, i);
        axes[i] = {stride, (PyArray_DIM(array, i) - 1) * stride};
        if (PyArray_DIM(array, i) == 1) axes[i] = {NPY_MAX_INTP, 0};
    }
    std::sort(axes.begin(), axes.begin() + dimensions);
    npy_intp spanned = PyArray_ITEMSIZE(array);
    for (int i = 0; i < dimensions; spanned += axes[i++][1])
        if (axes[i][0] < spanned) return true;
    return false;
}

inline void check_output(const Operand &out, int type, int dimensions, const npy_intp *shape) {
    const std::string name = out.name;
    if (!PyArray_Check(out.array.ptr()))
        throw py::type_error(name + " is a " + Py_TYPE(out.array.ptr())->tp_name + "; expected a NumPy array");
    py::object wanted = owned(PyArray_DescrFromType(type));
    if (PyArray_TYPE(of(out)) != type)
        throw py::type_error(name + " has dtype " + dtype_text(of(out)) + "; expected " + text_of(wanted));
    if (!has_shape(out, dimensions, shape)) {
        py::tuple expected(dimensions);
        for (int i = 0; i < dimensions; ++i) expected[i] = shape[i];
        throw py::value_error(name + " has shape " + shape_text(of(out)) + "; expected " + text_of(expected));
    }
    if (!PyArray_ISWRITEABLE(of(out))) throw py::value_error(name + " is read-only; expected a writeable array");
    if (may_share_elements(of(out)))
        throw py::value_error(name + " has elements that may share memory; expected one place for each element");
}

// Calls f(T()) for the C++ type of NPY_FLOAT or NPY_DOUBLE.
template <class F> void with_type(int type, F f) {
    if (type == NPY_FLOAT)
        f(float());
    else
        f(double());
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

// Of None or a name; an error that lists the names.
std::optional<std::size_t> activation_index(py::handle name);

} // namespace pynn
