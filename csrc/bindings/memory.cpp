// New arrays for results; large ones by way of a memory handler of NumPy's (NEP 49).
#include "bindings/bindings.hpp"

#include <cstring>

#include "memory.hpp"

namespace pynn {
namespace {

void *allocate(void *, std::size_t bytes) noexcept {
    try {
        return detail::take_scratch(bytes);
    } catch (const std::bad_alloc &) { return nullptr; }
}

void *allocate_zeros(void *, std::size_t count, std::size_t size) noexcept {
    std::size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) return nullptr;
    void *memory = allocate(nullptr, bytes);
    return memory == nullptr ? nullptr : std::memset(memory, 0, bytes);
}

void *reallocate(void *, void *memory, std::size_t bytes) noexcept {
    try {
        return detail::resize_scratch(memory, bytes);
    } catch (const std::bad_alloc &) { return nullptr; }
}

void release(void *, void *memory, std::size_t) noexcept { detail::give_back_scratch(memory); }

// Takes the reference to descr.
py::object make_array(int dimensions, const npy_intp *shape, PyArray_Descr *descr) {
    npy_intp bytes = PyDataType_ELSIZE(descr);
    bool fits = true;
    for (int i = 0; i < dimensions; ++i) fits = !__builtin_mul_overflow(bytes, shape[i], &bytes) && fits;
    const ReusedMemory reused(fits && bytes >= least_reused);
    return owned(PyArray_Empty(dimensions, shape, descr, 0));
}

// numpy.empty, in such memory where that is large
py::object empty(py::object shape, py::object dtype) {
    PyArray_Descr *descr = nullptr;
    if (PyArray_DescrConverter(dtype.ptr(), &descr) == NPY_FAIL) throw py::error_already_set();
    py::object held = owned(descr);
    struct Dims : PyArray_Dims {
        ~Dims() { PyDimMem_FREE(ptr); }
    } dims{{nullptr, 0}};
    if (PyArray_IntpConverter(shape.ptr(), &dims) == NPY_FAIL) throw py::error_already_set();
    held.release(); // the array takes it
    return make_array(dims.len, dims.ptr, descr);
}

PyDataMem_Handler handler = {"pynn", 1, {nullptr, allocate, allocate_zeros, reallocate, release}};

} // namespace

ReusedMemory::ReusedMemory(bool wanted) : callers_(nullptr) {
    if (!wanted) return;
    PyObject *in_use = PyDataMem_GetHandler();
    const bool callers_own = in_use != PyDataMem_DefaultHandler;
    Py_XDECREF(in_use);
    if (callers_own) { // who has chosen where arrays lie gets them there
        PyErr_Clear();
        return;
    }
    static PyObject *const own = PyCapsule_New(&handler, "mem_handler", nullptr); // arrays refer to it for ever
    callers_ = own == nullptr ? nullptr : PyDataMem_SetHandler(own);
    if (callers_ == nullptr) PyErr_Clear(); // then NumPy's own memory serves
}

ReusedMemory::~ReusedMemory() {
    if (callers_ == nullptr) return;
    const py::error_scope callers_error;
    PyObject *mine = PyDataMem_SetHandler(callers_);
    if (mine == nullptr) PyErr_Clear();
    Py_XDECREF(mine);
    Py_DECREF(callers_);
}

py::object new_array(int dimensions, const npy_intp *shape, int type) {
    return make_array(dimensions, shape, PyArray_DescrFromType(type));
}

void bind_memory(py::module_ &module) {
    module.def("empty", &empty, py::arg("shape"), py::arg("dtype"),
               R"(numpy.empty, in aligned memory that is used again where that is large.)");
}

} // namespace pynn
