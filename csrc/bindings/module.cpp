// The module pynn._core: threads, instruction sets, build information, and the families bound in their own files.
#define PYNN_IMPORTS_NUMPY
#include "bindings/bindings.hpp"

#include "dispatch.hpp"
#include "parallel.hpp"

namespace pynn {
namespace {

int threads_argument(py::handle n) {
    if (!PyIndex_Check(n.ptr()) || PyBool_Check(n.ptr()))
        throw py::type_error(std::string("n is a ") + Py_TYPE(n.ptr())->tp_name + "; expected a whole number");
    int overflow = 0;
    const long long value = PyLong_AsLongLongAndOverflow(owned(PyNumber_Index(n.ptr())).ptr(), &overflow);
    if (overflow != 0 || value < 1 || value > max_threads)
        throw py::value_error("n is " + text_of(n) + "; expected a number of threads from 1 to " +
                              std::to_string(max_threads));
    return static_cast<int>(value);
}

bool interrupted() {
    PyGILState_STATE state = PyGILState_Ensure();
    const bool raised = PyErr_CheckSignals() != 0;
    PyGILState_Release(state);
    return raised;
}

} // namespace

void bind_runtime(py::module_ &module) {
    Patience::set_check(interrupted);
    py::register_exception_translator([](std::exception_ptr error) {
        try {
            if (error) std::rethrow_exception(error);
        } catch (const Interrupted &) { // Python's exception is set already
        }
    });
    module.def(
        "set_num_threads", [](py::object n) { set_thread_count(threads_argument(n)); }, py::arg("n"),
        R"(Set how many threads pynn's kernels use, the calling one included.

Results never depend on it.

Parameters
----------
n : int
    From 1 to 256. The default is `PYNN_NUM_THREADS` if that environment variable is set, else the number of CPUs that
    this process may use (affinity and cgroup quota).

Raises
------
ValueError
    If `n` is out of range.

Examples
--------
>>> import pynn
>>> before = pynn.get_num_threads()
>>> pynn.set_num_threads(1)
>>> pynn.get_num_threads()
1
>>> pynn.set_num_threads(before)
)");
    module.def("get_num_threads", &thread_count,
               R"(Return how many threads pynn's kernels use, the calling one included.

Returns
-------
int

Examples
--------
>>> import pynn
>>> pynn.get_num_threads() >= 1
True
)");
    module.def(
        "use_isa",
        [](py::object name) {
            if (!PyUnicode_Check(name.ptr()))
                throw py::type_error(std::string("name is a ") + Py_TYPE(name.ptr())->tp_name + "; expected a string");
            use_isa(name.cast<std::string>(), "name");
        },
        py::arg("name"),
        R"(Use the kernels of one instruction set from now on, on every thread.

Results never depend on it; the speed does. The environment variable `PYNN_ISA` chooses at import.

Parameters
----------
name : str
    A name that `show_config` lists as available, such as "portable".

Raises
------
ValueError
    If the name is unknown or this CPU lacks the instruction set.

Examples
--------
>>> import pynn
>>> before = pynn.get_isa()
>>> pynn.use_isa("portable")
>>> pynn.get_isa()
'portable'
>>> pynn.use_isa(before)
)");
    module.def("get_isa", [] { return active_kernels().name; }, R"(Return the name of the instruction set in use.

Returns
-------
str

Examples
--------
>>> import pynn
>>> isinstance(pynn.get_isa(), str)
True
)");
    module.def("default_threads", [] {
        const DefaultThreads threads = default_threads();
        return py::make_tuple(threads.count, threads.reason);
    });
    module.def("isas", [] {
        py::dict sets;
        for (const InstructionSet &set : instruction_sets())
            sets[set.kernels->name] = set.supported() ? "available" : "not supported by this CPU";
        return sets;
    });
    module.def("build_info", [] {
        py::dict info;
#if defined(__clang__)
        info["compiler"] = "clang " + std::to_string(__clang_major__) + "." + std::to_string(__clang_minor__) + "." +
                           std::to_string(__clang_patchlevel__);
#else
        info["compiler"] = "gcc " __VERSION__;
#endif
        info["affine_chunk"] = affine_chunk;
        info["partial_results"] = partial_results;
        return info;
    });
}

} // namespace pynn

static int import_numpy() {
    import_array1(-1);
    import_umath1(-1);
    return 0;
}

// What PYBIND11_MODULE defines is called by PyInit__core below: in a sub-interpreter it would wait for the GIL for ever.
#undef PYBIND11_PLUGIN_IMPL
#define PYBIND11_PLUGIN_IMPL(name) static PyObject *make_module()

PYBIND11_MODULE(_core, module) {
    if (import_numpy() < 0) throw pybind11::error_already_set();
    try {
        pynn::set_thread_count(pynn::default_threads().count);
        pynn::choose_isa();
    } catch (const std::invalid_argument &error) { throw pybind11::import_error(error.what()); }
    module.doc() = "pynn's compiled core; use it through the package pynn.";
    pynn::bind_memory(module);
    pynn::bind_runtime(module);
    pynn::bind_activations(module);
    pynn::bind_affine(module);
    pynn::bind_random(module);
    pynn::bind_capi(module);
    pynn::bind_losses(module);
    pynn::bind_normalizations(module);
    pynn::bind_optimizers(module);
    pynn::bind_network(module);
}

extern "C" PYBIND11_EXPORT PyObject *PyInit__core() {
    if (PyInterpreterState_Get() == PyInterpreterState_Main()) return make_module();
    PyErr_SetString(PyExc_ImportError, "pynn works in Python's main interpreter; it was imported in a sub-interpreter");
    return nullptr;
}
