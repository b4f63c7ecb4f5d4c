// What the binding files share: NumPy's C API (imported once, in module.cpp), owned references, and error messages.
#pragma once

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NPY_TARGET_VERSION NPY_2_0_API_VERSION
#define PY_ARRAY_UNIQUE_SYMBOL pynn_array_api
#define PY_UFUNC_UNIQUE_SYMBOL pynn_ufunc_api
#ifndef PYNN_IMPORTS_NUMPY
#define NO_IMPORT_ARRAY
#define NO_IMPORT_UFUNC
#endif

#include <pybind11/pybind11.h>

#include <numpy/arrayobject.h>
#include <numpy/ufuncobject.h>

#include <array>
#include <chrono>
#include <string>
#include <thread>

#include "activations.hpp"

namespace pynn {

namespace py = pybind11;

#define PYNN_NAME(name, ...) #name,
inline constexpr std::array<const char *, activation_count> activation_names = {PYNN_ACTIVATIONS(PYNN_NAME)};
#undef PYNN_NAME
#define PYNN_SAVES(name, saves, ...) #saves[0],
inline constexpr std::array<char, activation_count> activation_saves = {PYNN_ACTIVATIONS(PYNN_SAVES)}; // 'x' or 'y'
#undef PYNN_SAVES

inline PyArrayObject *as_array(py::handle object) { return reinterpret_cast<PyArrayObject *>(object.ptr()); }

// "(3, 4)"
inline std::string shape_text(PyArrayObject *array) {
    std::string text = "(";
    for (int i = 0; i < PyArray_NDIM(array); ++i)
        text += std::to_string(PyArray_DIM(array, i)) + (i + 1 < PyArray_NDIM(array) ? ", " : "");
    return text + (PyArray_NDIM(array) == 1 ? ",)" : ")");
}

inline std::string text_of(py::handle object) { return py::str(object).cast<std::string>(); }
inline std::string dtype_text(PyArrayObject *array) {
    return text_of(reinterpret_cast<PyObject *>(PyArray_DESCR(array)));
}

// The new reference that a C call returned; its Python error if it returned none.
template <class T> py::object owned(T *reference) {
    if (reference == nullptr) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(reinterpret_cast<PyObject *>(reference));
}

// While it lives, arrays that NumPy makes for this thread lie in memory.hpp's aligned blocks, which are reused: fresh
// pages of the system would take longer than many a result. They own their data as others do (NEP 49). Holds the GIL.
class ReusedMemory {
  public:
    explicit ReusedMemory(bool wanted);
    ~ReusedMemory();
    ReusedMemory(const ReusedMemory &) = delete;
    ReusedMemory &operator=(const ReusedMemory &) = delete;

  private:
    PyObject *callers_; // the handler that was in use; nullptr if not wanted
};
constexpr npy_intp least_reused = npy_intp(64) << 10; // bytes; below, malloc reuses memory itself

// A new array, not initialized; a large one in such memory.
py::object new_array(int dimensions, const npy_intp *shape, int type);

// Drops the GIL while it lives. A thread that wants it back when the interpreter is gone is ended by Python, as an
// unwinding that must not pass through C++ frames: it stays here until the process ends.
class WithoutGil {
  public:
    WithoutGil() : state_(PyEval_SaveThread()) {}
    ~WithoutGil() {
        try {
            PyEval_RestoreThread(state_);
        } catch (...) {
            for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
        }
    }
    WithoutGil(const WithoutGil &) = delete;
    WithoutGil &operator=(const WithoutGil &) = delete;

  private:
    PyThreadState *state_;
};

void bind_activations(py::module_ &module);
void bind_affine(py::module_ &module);
void bind_capi(py::module_ &module);
void bind_losses(py::module_ &module);
void bind_memory(py::module_ &module);
void bind_network(py::module_ &module);
void bind_normalizations(py::module_ &module);
void bind_optimizers(py::module_ &module);
void bind_random(py::module_ &module);
void bind_runtime(py::module_ &module);

} // namespace pynn
