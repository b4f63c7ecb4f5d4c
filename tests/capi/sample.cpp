// A C++ extension that knows nothing of pynn but pynn.h: each function takes addresses and calls the table without the GIL.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <pynn.h>

#include <thread>

namespace {

const pynn_api *pynn;

template <class T> T *at(unsigned long long address) { return reinterpret_cast<T *>(address); }

// Runs f without the GIL on a thread that Python has never seen, while this one waits.
template <class F> PyObject *call(F f) {
    int status = -1;
    Py_BEGIN_ALLOW_THREADS;
    std::thread([&] { status = f(); }).join();
    Py_END_ALLOW_THREADS;
    return PyLong_FromLong(status);
}

PyObject *names(PyObject *, PyObject *) {
    PyObject *list = PyList_New(0);
    for (size_t i = 0; const pynn_activation *a = pynn->activation_at(i); ++i) {
        PyObject *item = Py_BuildValue("(sC)", a->name, a->saves);
        PyList_Append(list, item);
        Py_DECREF(item);
        if (pynn->activation(a->name) != a) return PyErr_Format(PyExc_AssertionError, "%s", a->name);
    }
    for (size_t i = 0; const pynn_distribution *d = pynn->distribution_at(i); ++i) {
        PyObject *item = Py_BuildValue("(ss)", d->name, d->parameters);
        PyList_Append(list, item);
        Py_DECREF(item);
    }
    return list;
}

PyObject *forward(PyObject *, PyObject *arguments) {
    const char *name;
    int wide, threads;
    Py_ssize_t n, x_step, y_step;
    unsigned long long x, y;
    if (!PyArg_ParseTuple(arguments, "spnKnKni", &name, &wide, &n, &x, &x_step, &y, &y_step, &threads)) return nullptr;
    const pynn_activation *f = pynn->activation(name);
    return call([=] {
        return wide ? f->forward_float64(n, at<double>(x), x_step, at<double>(y), y_step, threads)
                    : f->forward_float32(n, at<float>(x), x_step, at<float>(y), y_step, threads);
    });
}

PyObject *backward(PyObject *, PyObject *arguments) {
    const char *name;
    int wide, threads;
    Py_ssize_t n, dy_step, saved_step, dx_step;
    unsigned long long dy, saved, dx;
    if (!PyArg_ParseTuple(arguments, "spnKnKnKni", &name, &wide, &n, &dy, &dy_step, &saved, &saved_step, &dx, &dx_step,
                          &threads))
        return nullptr;
    const pynn_activation *f = pynn->activation(name);
    return call([=] {
        return wide ? f->backward_float64(n, at<double>(dy), dy_step, at<double>(saved), saved_step, at<double>(dx),
                                          dx_step, threads)
                    : f->backward_float32(n, at<float>(dy), dy_step, at<float>(saved), saved_step, at<float>(dx),
                                          dx_step, threads);
    });
}

PyObject *fill(PyObject *, PyObject *arguments) {
    const char *name;
    int wide, threads, count;
    Py_ssize_t n, step;
    unsigned long long out, key, start;
    double p[4];
    if (!PyArg_ParseTuple(arguments, "spnKnKK(dddd)ii", &name, &wide, &n, &out, &step, &key, &start, p, p + 1, p + 2,
                          p + 3, &count, &threads))
        return nullptr;
    const pynn_distribution *d = pynn->distribution(name);
    return call([=] {
        return wide ? d->fill_float64(n, at<double>(out), step, key, start, p, count, threads)
                    : d->fill_float32(n, at<float>(out), step, key, start, p, count, threads);
    });
}

// (address, row, column)
template <class M, class T> int matrix(PyObject *object, void *to) {
    unsigned long long address;
    Py_ssize_t row, column;
    if (!PyArg_ParseTuple(object, "Knn", &address, &row, &column)) return 0;
    *static_cast<M *>(to) = {at<T>(address), row, column};
    return 1;
}
#define INPUT matrix<decltype(x), const T>
#define OUTPUT matrix<decltype(y), T>

template <class T, class In, class Out, class Affine, class Backward, class Softmax, class SoftmaxBackward>
PyObject *matrices(PyObject *arguments, Affine affine, Backward backward, Softmax softmax, SoftmaxBackward gradient) {
    const char *what, *name;
    Py_ssize_t m, n, k;
    In x, w, dy, saved;
    Out y, dw;
    unsigned long long b;
    int accumulate, threads;
    if (!PyArg_ParseTuple(arguments, "zznnnO&O&O&O&O&O&Kii", &what, &name, &m, &n, &k, INPUT, &x, INPUT, &w, INPUT, &dy,
                          INPUT, &saved, OUTPUT, &y, OUTPUT, &dw, &b, &accumulate, &threads))
        return nullptr;
    const pynn_activation *f = name == nullptr ? nullptr : pynn->activation(name);
    return call([=] {
        switch (what[0]) {
        case 'a':
            return affine(m, n, k, x, w, at<T>(b), f, y, threads);
        case 'b':
            return backward(m, n, k, dy, x, w, saved, f, y, dw, at<T>(b), accumulate, threads);
        case 's':
            return softmax(m, n, x, y, threads);
        default:
            return gradient(m, n, dy, saved, y, threads);
        }
    });
}

PyObject *matrices32(PyObject *, PyObject *arguments) {
    return matrices<float, pynn_input_float32, pynn_output_float32>(
        arguments, pynn->affine_float32, pynn->affine_backward_float32, pynn->softmax_float32,
        pynn->softmax_backward_float32);
}
PyObject *matrices64(PyObject *, PyObject *arguments) {
    return matrices<double, pynn_input_float64, pynn_output_float64>(
        arguments, pynn->affine_float64, pynn->affine_backward_float64, pynn->softmax_float64,
        pynn->softmax_backward_float64);
}

PyObject *threads(PyObject *, PyObject *argument) {
    const int status = pynn->set_num_threads(static_cast<int>(PyLong_AsLong(argument)));
    return Py_BuildValue("(ii)", status, pynn->get_num_threads());
}

PyMethodDef methods[] = {{"names", names, METH_NOARGS, nullptr},
                         {"forward", forward, METH_VARARGS, nullptr},
                         {"backward", backward, METH_VARARGS, nullptr},
                         {"fill", fill, METH_VARARGS, nullptr},
                         {"matrices32", matrices32, METH_VARARGS, nullptr},
                         {"matrices64", matrices64, METH_VARARGS, nullptr},
                         {"threads", threads, METH_O, nullptr},
                         {nullptr, nullptr, 0, nullptr}};
PyModuleDef module = {PyModuleDef_HEAD_INIT, "sample", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};

} // namespace

PyMODINIT_FUNC PyInit_sample(void) {
    pynn = pynn_import();
    return pynn == nullptr ? nullptr : PyModule_Create(&module);
}
