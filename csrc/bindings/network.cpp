// network_gradient: a fully connected network's loss and gradients in one crossing.
#include "bindings/operands.hpp"

#include <vector>

#include "bindings/labels.hpp"
#include "network.hpp"

namespace pynn {
namespace {

// The parameter under a key if it is as the network made it; else nullptr.
PyArrayObject *usual(py::handle params, PyObject *key, int type, int dimensions) {
    PyObject *found = PyDict_GetItemWithError(params.ptr(), key);
    if (found == nullptr && PyErr_Occurred() != nullptr) throw py::error_already_set();
    if (found == nullptr || !PyArray_CheckExact(found)) return nullptr;
    PyArrayObject *array = reinterpret_cast<PyArrayObject *>(found);
    if (PyArray_TYPE(array) != type || PyArray_NDIM(array) != dimensions || !PyArray_ISCARRAY_RO(array)) return nullptr;
    return array;
}

// (gradients, loss, probabilities, labels), or None where something is unusual and the layers should do it.
py::object gradient(py::object params, py::tuple keys, py::object x_argument, py::object t_argument,
                    py::object activation_name, double decay, bool twice) {
    const int type = twice ? NPY_DOUBLE : NPY_FLOAT;
    if (!PyDict_CheckExact(params.ptr()) || !PyArray_CheckExact(x_argument.ptr())) return py::none();
    Operand x{"x", x_argument};
    if (PyArray_TYPE(of(x)) != type || PyArray_NDIM(of(x)) < 2 || !PyArray_ISCARRAY_RO(of(x))) return py::none();
    const npy_intp m = PyArray_DIM(of(x), 0);
    const std::optional<std::size_t> activation = activation_index(activation_name);
    const std::size_t count = keys.size() / 2;
    if (m == 0 || count == 0 || !activation) return py::none();

    std::vector<py::object> kept; // the parameters, while the GIL is dropped
    kept.reserve(2 * count);
    npy_intp width = PyArray_SIZE(of(x)) / m;
    for (std::size_t i = 0; i < count; ++i) {
        PyArrayObject *w = usual(params, PyTuple_GET_ITEM(keys.ptr(), static_cast<Py_ssize_t>(2 * i)), type, 2);
        PyArrayObject *b = usual(params, PyTuple_GET_ITEM(keys.ptr(), static_cast<Py_ssize_t>(2 * i + 1)), type, 1);
        if (w == nullptr || b == nullptr || PyArray_DIM(w, 0) != width || PyArray_DIM(w, 1) == 0) return py::none();
        width = PyArray_DIM(w, 1);
        if (PyArray_DIM(b, 0) != width) return py::none();
        kept.push_back(py::reinterpret_borrow<py::object>(reinterpret_cast<PyObject *>(w)));
        kept.push_back(py::reinterpret_borrow<py::object>(reinterpret_cast<PyObject *>(b)));
    }
    const npy_intp shape[2] = {m, width};
    const Labels labels(t_argument, 2, shape);
    py::object y = new_array(2, shape, type);
    py::dict gradients;
    for (std::size_t i = 0; i < 2 * count; ++i) {
        PyArrayObject *parameter = as_array(kept[i]);
        py::object array = new_array(PyArray_NDIM(parameter), PyArray_DIMS(parameter), type);
        if (PyDict_SetItem(gradients.ptr(), PyTuple_GET_ITEM(keys.ptr(), static_cast<Py_ssize_t>(i)), array.ptr()) < 0)
            throw py::error_already_set();
        kept.push_back(std::move(array));
    }
    double loss = 0;
    with_type(type, [&]<class T>(T) {
        std::vector<NetworkLayer<T>> layers(count);
        for (std::size_t i = 0; i < count; ++i) {
            auto data = [&](std::size_t at) { return static_cast<T *>(PyArray_DATA(as_array(kept[at]))); };
            const npy_intp in = PyArray_DIM(as_array(kept[2 * i]), 0), out = PyArray_DIM(as_array(kept[2 * i]), 1);
            layers[i] = {static_cast<std::size_t>(in), static_cast<std::size_t>(out),
                         {data(2 * i), out, 1},        data(2 * i + 1),
                         data(2 * count + 2 * i),      data(2 * count + 2 * i + 1)};
        }
        const npy_intp in = PyArray_SIZE(of(x)) / m;
        const MatrixView<T> rows{static_cast<const T *>(PyArray_DATA(of(x))), in, 1};
        T *y_data = static_cast<T *>(PyArray_DATA(as_array(y)));
        WithoutGil unlocked;
        loss = network_gradient<T>(static_cast<std::size_t>(m), rows, layers, *activation,
                                   activation_saves[*activation] == 'x', labels.data, y_data, decay);
    });
    return py::make_tuple(gradients, loss, y, labels.array);
}

} // namespace

void bind_network(py::module_ &module) {
    module.def("network_gradient", &gradient, py::arg("params"), py::arg("keys"), py::arg("x"), py::arg("t"),
               py::arg("activation"), py::arg("decay"), py::arg("twice"),
               R"(Gradients of a fully connected network with softmax and cross-entropy at its end, in one crossing.

Parameters
----------
params : dict of str to ndarray
    Weights and biases, C-contiguous.
keys : tuple of str
    Those of the first weights, the first biases, the second weights, ...
x : ndarray, shape (m, ...)
    Inputs, C-contiguous.
t : array_like of int, shape (m,)
    Labels.
activation : str
    Of all layers but the last.
decay : float
    Times the weights, added to their gradients.
twice : bool
    Whether all is float64, not float32.

Returns
-------
gradients : dict of str to ndarray
loss : float
y : ndarray
    Probabilities.
t : ndarray
    The labels. Or None in place of the four, where an operand is of another kind than said.
)");
}

} // namespace pynn
