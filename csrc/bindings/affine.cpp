// affine, affine_backward and pack: check the operands, allocate the results, drop the GIL, one call.
#include "bindings/operands.hpp"

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <optional>
#include <variant>

#include "affine.hpp"

namespace pynn {
namespace {

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

} // namespace

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

namespace {

// A result: the array that is returned, and the one that it is computed in. That is the same, or one aside where the
// given array cannot be written directly or is read as an operand.
struct Output {
    const char *name;
    py::object result, target;

    template <class T> T *data() const { return static_cast<T *>(PyArray_DATA(as_array(target))); }
    void finish() const {
        if (!target.is(result) && PyArray_CopyInto(as_array(result), as_array(target)) < 0)
            throw py::error_already_set();
    }
};

// A new array where none is given. adds: what stands in it is an operand too.
Output output(const char *name, py::handle given, int type, int dimensions, const npy_intp *shape,
              std::initializer_list<const Operand *> operands, bool adds = false) {
    auto fresh = [&] { return new_array(dimensions, shape, type); };
    if (given.is_none()) {
        py::object array = fresh();
        return {name, array, array};
    }
    const Operand out{name, py::reinterpret_borrow<py::object>(given)};
    check_output(out, type, dimensions, shape);
    bool direct = PyArray_ISCARRAY(of(out));
    for (const Operand *operand : operands) direct = direct && !(operand->array && may_overlap(of(out), of(*operand)));
    if (direct) return {name, out.array, out.array};
    if (!adds) return {name, out.array, fresh()};
    const int flags = NPY_ARRAY_CARRAY | NPY_ARRAY_NOTSWAPPED | NPY_ARRAY_ENSURECOPY | NPY_ARRAY_ENSUREARRAY;
    return {name, out.array, owned(PyArray_FromArray(of(out), PyArray_DescrFromType(type), flags))};
}

void refuse_shared(const Output &a, const Output &b) {
    if (!may_overlap(as_array(a.result), as_array(b.result))) return;
    constexpr int effort = 1 << 16; // for strides that interleave
    py::object numpy = py::module_::import("numpy");
    if (numpy.attr("may_share_memory")(a.result, b.result, py::arg("max_work") = effort).cast<bool>())
        throw py::value_error(std::string(a.name) + " and " + b.name + " share memory; expected separate arrays");
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
    const Output y = output("out", out_argument, type, sizes.dimensions, sizes.shape, {&x, &w, &b});
    if (PyArray_SIZE(as_array(y.result)) == 0) return y.result;
    convert_to(x, type);
    convert_to(w, type);
    if (biased) convert_to(b, type, NPY_ARRAY_C_CONTIGUOUS);

    with_type(type, [&]<class T>(T) {
        MatrixView<T> x_view = matrix_view<T>(x, sizes.m, sizes.k), w_view = matrix_view<T>(w, sizes.k, sizes.n);
        const T *bias = biased ? static_cast<const T *>(PyArray_DATA(of(b))) : nullptr;
        T *y_data = y.data<T>();
        const Panels<T> *panels = w.packed == nullptr ? nullptr : std::get_if<Panels<T>>(&w.packed->panels);
        WithoutGil unlocked;
        affine_forward<T>(static_cast<std::size_t>(sizes.m), static_cast<std::size_t>(sizes.n),
                          static_cast<std::size_t>(sizes.k), x_view, w_view, bias, activation, y_data, sizes.n, panels);
    });
    y.finish();
    return y.result;
}

// A bool of Python or NumPy: other objects are truth values by accident.
bool yes_or_no(const char *name, py::handle object) {
    if (PyBool_Check(object.ptr()) || PyArray_IsScalar(object.ptr(), Bool)) return PyObject_IsTrue(object.ptr()) == 1;
    throw py::type_error(std::string(name) + " is " + text_of(py::repr(object)) + "; expected True or False");
}

py::tuple backward(py::object dy_argument, py::object x_argument, py::object w_argument, py::object y_argument,
                   py::object activation_name, py::object need_dx_argument, py::object out_argument,
                   py::object accumulate_argument) {
    const bool need_dx = yes_or_no("need_dx", need_dx_argument);
    const bool accumulate = yes_or_no("accumulate", accumulate_argument);
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

    py::object given[3] = {py::none(), py::none(), py::none()};
    if (!out_argument.is_none()) {
        const char *wanted = "; expected a tuple (dx, dw, db) of arrays or None";
        if (!PyTuple_Check(out_argument.ptr()))
            throw py::type_error(std::string("out is a ") + Py_TYPE(out_argument.ptr())->tp_name + wanted);
        if (py::len(out_argument) != 3)
            throw py::value_error("out has " + std::to_string(py::len(out_argument)) + " items" + wanted);
        for (int i = 0; i < 3; ++i)
            given[i] = py::reinterpret_borrow<py::object>(PyTuple_GET_ITEM(out_argument.ptr(), i));
    }
    if (!need_dx && !given[0].is_none()) throw py::value_error("dx in out is an array, but need_dx is False");
    for (int i = 1; i < 3 && accumulate; ++i)
        if (given[i].is_none())
            throw py::value_error(std::string(i == 1 ? "dw" : "db") +
                                  " in out is None; expected the array to accumulate in");
    const std::initializer_list<const Operand *> operands = {&dy, &x, &w, &y};
    Output dx{"dx in out", py::none(), py::none()};
    if (need_dx) dx = output(dx.name, given[0], type, sizes.dimensions, PyArray_DIMS(of(x)), operands);
    const Output dw = output("dw in out", given[1], type, 2, PyArray_DIMS(of(w)), operands, accumulate);
    const Output db = output("db in out", given[2], type, 1, &sizes.n, operands, accumulate);
    if (!given[1].is_none() && !given[2].is_none()) refuse_shared(dw, db);
    if (!given[0].is_none() && !given[1].is_none()) refuse_shared(dx, dw);
    if (!given[0].is_none() && !given[2].is_none()) refuse_shared(dx, db);
    convert_to(dy, type, NPY_ARRAY_C_CONTIGUOUS);
    convert_to(x, type);
    convert_to(w, type);
    if (activation) convert_to(y, type, NPY_ARRAY_C_CONTIGUOUS);

    with_type(type, [&]<class T>(T) {
        MatrixView<T> x_view = matrix_view<T>(x, sizes.m, sizes.k), w_view = matrix_view<T>(w, sizes.k, sizes.n);
        const T *saved = activation ? static_cast<const T *>(PyArray_DATA(of(y))) : nullptr;
        const T *dy_data = static_cast<const T *>(PyArray_DATA(of(dy)));
        T *dx_data = need_dx ? dx.data<T>() : nullptr, *dw_data = dw.data<T>(), *db_data = db.data<T>();
        WithoutGil unlocked;
        affine_backward<T>(static_cast<std::size_t>(sizes.m), static_cast<std::size_t>(sizes.n),
                           static_cast<std::size_t>(sizes.k), dy_data, x_view, w_view, saved, activation, dx_data,
                           dw_data, db_data, accumulate);
    });
    dx.finish();
    dw.finish();
    db.finish();
    return py::make_tuple(dx.result, dw.result, db.result);
}

PackedWeights pack(py::object w_argument) {
    const Operand w = take("w", w_argument);
    if (PyArray_NDIM(of(w)) != 2) refuse_shapes({&w}, "w (in, out)");
    const int computed = common_type({&w}), given = PyArray_TYPE(of(w));
    // float16 computes as float32 wherever it goes; whole numbers take after the other operands.
    const int type = given == NPY_HALF ? NPY_FLOAT : given;
    const int flags = NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED | NPY_ARRAY_NOTSWAPPED | NPY_ARRAY_ENSURECOPY |
                      NPY_ARRAY_ENSUREARRAY;
    PackedWeights packed{owned(PyArray_FromArray(of(w), PyArray_DescrFromType(type), flags)), {}};
    PyArrayObject *array = as_array(packed.weights);
    PyArray_CLEARFLAGS(array, NPY_ARRAY_WRITEABLE);
    // The view that is given away has an owner that is no array, so that nobody can make it writeable again.
    py::capsule owner(static_cast<void *>(packed.weights.inc_ref().ptr()),
                      [](void *weights) { Py_DECREF(static_cast<PyObject *>(weights)); });
    packed.weights = owned(PyArray_NewFromDescr(&PyArray_Type, PyArray_DescrFromType(type), 2, PyArray_DIMS(array),
                                                nullptr, PyArray_DATA(array), NPY_ARRAY_CARRAY_RO, nullptr));
    if (PyArray_SetBaseObject(as_array(packed.weights), owner.release().ptr()) < 0) throw py::error_already_set();
    array = as_array(packed.weights);
    if (type == computed)
        with_type(type, [&]<class T>(T) {
            const npy_intp k = PyArray_DIM(array, 0), n = PyArray_DIM(array, 1);
            const MatrixView<T> view{static_cast<const T *>(PyArray_DATA(array)), n, 1};
            WithoutGil unlocked;
            packed.panels = Panels<T>(static_cast<std::size_t>(n), static_cast<std::size_t>(k), view);
        });
    return packed;
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
w : array_like or PackedWeights, shape (in, out)
    Weights, in C or Fortran order: the transposed view of a (out, in) matrix, as torch.nn.Linear keeps it, is read in
    place. Weights that many calls use can be packed once, by `pack`; the result is the same.
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
    If shapes do not match, `activation` is unknown, or `out` has another shape, is read-only or has elements that may
    share memory.
TypeError
    If an operand is not of real numbers, or `out` is not an array of the result's dtype.

Notes
-----
Each output is the sum over chunks of 256 terms of in, in order, each chunk one chain of fused multiply-adds; so its bits
depend neither on the batch that it came in nor on threads, blocking or the instruction set. Source: Deep Learning from
Scratch, section 5.6.

Examples
--------
>>> import numpy as np, pynn
>>> x, w = np.array([[1.0, 2.0]]), np.array([[1.0, 0.0, 1.0], [0.0, 1.0, -1.0]])
>>> pynn.affine(x, w, np.array([0.5, 0.5, 0.5]), activation="relu")
array([[1.5, 2.5, 0. ]])
)");
    module.def("affine_backward", &backward, py::arg("dy"), py::arg("x"), py::arg("w"), py::arg("y") = py::none(),
               py::arg("activation") = py::none(), py::arg("need_dx") = true, py::arg("out") = py::none(),
               py::arg("accumulate") = false,
               R"(Gradients of `affine`.

Parameters
----------
dy : array_like, shape (..., out)
    Gradient with respect to the output of `affine`.
x : array_like, shape (..., in)
    The input that `affine` was given.
w : array_like or PackedWeights, shape (in, out)
    The weights that `affine` was given.
y : array_like, shape (..., out), optional
    The output of `affine`; needed with an activation.
activation : str, optional
    The activation that `affine` was given.
need_dx : bool, optional
    Whether the gradient with respect to `x` is wanted (not so for a first layer). Default True.
out : tuple of (ndarray or None), length 3, optional
    Where dx, dw and db are written, None meaning a new array; dx must be None if `need_dx` is False. Each must have its
    result's dtype. They may overlap the operands, but not each other.
accumulate : bool, optional
    Whether dw and db are added to what stands in `out`, which must give them, as for the gradients of several batches
    or a weight that is used twice. dx is overwritten always. Default False.

Returns
-------
dx : ndarray, shape of x, or None
dw : ndarray, shape (in, out)
db : ndarray, shape (out,)
    The gradient with respect to the bias: the sum of the output's gradient over the batch. Each is the array of `out`
    if that gave one.

Raises
------
ValueError
    If shapes do not match, `y` is missing with an activation, an array of `out` has another shape, is read-only, has
    elements that may share memory or shares memory with another, or one to accumulate in is missing. Nothing is written
    then.
TypeError
    If an operand is not of real numbers, `out` is not a tuple of three, or one of it not an array of the result's dtype.

Notes
-----
The three results follow `affine`'s rule of summation over their own terms; to accumulate, the finished sum is added to
the old value in one addition. Source: Deep Learning from Scratch, section 5.6.

Examples
--------
>>> import numpy as np, pynn
>>> x, w = np.array([[1.0, 2.0]]), np.eye(2)
>>> y = pynn.affine(x, w, activation="relu")
>>> dx, dw, db = pynn.affine_backward(np.array([[10.0, 20.0]]), x, w, y, activation="relu")
>>> dw
array([[10., 20.],
       [20., 40.]])
)");

    py::class_<PackedWeights>(module, "PackedWeights", R"(Weights laid out for `affine` ahead of time, by `pack`.

Immutable. ``numpy.asarray`` of it gives the weights, read-only; it can be pickled and copied.

Attributes
----------
shape : tuple of int
    (in, out).
dtype : dtype
    That of the weights.

Examples
--------
>>> import numpy as np, pynn
>>> pynn.pack(np.ones((3, 2), np.float32))
PackedWeights(shape=(3, 2), dtype=float32)
)")
        .def_property_readonly("shape", [](const PackedWeights &packed) { return packed.weights.attr("shape"); })
        .def_property_readonly("dtype", [](const PackedWeights &packed) { return packed.weights.attr("dtype"); })
        .def(
            "__array__",
            [](const PackedWeights &packed, py::object dtype, py::object copy) {
                return py::module_::import("numpy").attr("array")(packed.weights, dtype, py::arg("copy") = copy);
            },
            py::arg("dtype") = py::none(), py::arg("copy") = py::none())
        .def("__repr__",
             [](const PackedWeights &packed) {
                 return "PackedWeights(shape=" + text_of(packed.weights.attr("shape")) +
                        ", dtype=" + text_of(packed.weights.attr("dtype")) + ")";
             })
        .def(py::pickle([](const PackedWeights &packed) { return packed.weights; },
                        [](py::object weights) { return pack(std::move(weights)); }));
    module.def("pack", &pack, py::arg("w"),
               R"(Lay weights out for `affine` ahead of time, for inference: many calls with the same weights.

Parameters
----------
w : array_like, shape (in, out)
    Weights; float16 is kept as float32.

Returns
-------
packed : PackedWeights
    Can be given to `affine` and `affine_backward` in place of `w`, with the same results to the bit.

Raises
------
ValueError
    If `w` is not two-dimensional.
TypeError
    If it is not of real numbers.

See Also
--------
affine

Notes
-----
A snapshot: it holds a copy of the weights, in C order, and that copy laid out for the instruction set in use, so it takes
twice their memory and later changes of `w` do not reach it. After `use_isa` it is still right, and as fast as weights that
are not packed; pack again then. `affine_backward` and types that must be converted use the copy, too.

Examples
--------
>>> import numpy as np, pynn
>>> x, w = pynn.random.normal((8, 64), rng=0), pynn.random.normal((64, 32), rng=1)
>>> bool((pynn.affine(x, pynn.pack(w)) == pynn.affine(x, w)).all())
True
)");
}

} // namespace pynn
