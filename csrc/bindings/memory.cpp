// New arrays for results; large ones through NumPy's memory handlers (NEP 49), so that they own their data as others do.
#include "bindings/bindings.hpp"

#include <cstring>

#include "memory.hpp"

namespace pynn {
namespace {

constexpr npy_intp least_bytes = npy_intp(64) << 10; // below, malloc reuses memory itself

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

PyDataMem_Handler handler = {"pynn", 1, {nullptr, allocate, allocate_zeros, reallocate, release}};

} // namespace

py::object new_array(int dimensions, const npy_intp *shape, int type) {
    npy_intp bytes = type == NPY_FLOAT ? sizeof(float) : sizeof(double);
    bool large = true;
    for (int i = 0; i < dimensions; ++i) large = !__builtin_mul_overflow(bytes, shape[i], &bytes) && large;
    auto make = [&] { return PyArray_SimpleNew(dimensions, const_cast<npy_intp *>(shape), type); };
    if (!large || bytes < least_bytes) return owned(make());
    static PyObject *const own = PyCapsule_New(&handler, "mem_handler", nullptr); // arrays refer to it for ever
    if (own == nullptr) throw py::error_already_set();
    const py::object callers = owned(PyDataMem_SetHandler(own));
    PyObject *array = make();
    if (PyObject *mine = PyDataMem_SetHandler(callers.ptr()); mine != nullptr) Py_DECREF(mine);
    return owned(array);
}

} // namespace pynn
