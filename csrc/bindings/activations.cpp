// The activations as NumPy ufuncs, made from the table; softmax as a generalized ufunc. NumPy checks, broadcasts,
// allocates and drops the GIL; loops hand contiguous memory to the kernels, by way of a small buffer where it is not.
#include "bindings/bindings.hpp"
#include "bindings/strided.hpp"

#include <algorithm>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "simd/environment.hpp"

namespace pynn {
namespace {

static_assert(std::is_same_v<npy_intp, std::ptrdiff_t>);

// One call of NumPy for an elementwise function; call as in strided.hpp.
template <class Family, class From, class T, class Call>
void elementwise_loop(char **operands, npy_intp n, const npy_intp *steps, Call call) {
    constexpr int inputs = Family::inputs;
    const bool chained = inputs > 1 && Family::outputs == 1 && n > 1 &&
                         (steps[inputs] == 0 || operands[0] + steps[0] == operands[inputs]);
    if (!chained) return elementwise<Family, From, T>(operands, n, steps, call);
    // reduce and accumulate: each result is an operand of the next one
    StandardEnvironment environment;
    std::size_t parameter_steps[Parameters::most] = {};
    for (npy_intp i = 0; i < n; ++i) {
        T values[Family::operands];
        const T *in[inputs];
        T *out[] = {values + inputs};
        for (int j = 0; j < inputs; ++j) {
            Family::template gather_input<From>(j, operands[j] + i * steps[j], 0, 1, values + j);
            in[j] = values + j;
        }
        call(in, parameter_steps, out, 1);
        scatter<Result<From, T>>(out[0], 1, operands[inputs] + i * steps[inputs], 0);
    }
}

std::size_t index_of(void *data) { return reinterpret_cast<std::size_t>(data); }

struct Forward : Elementwise<1> {
    template <class From, class T>
    static void loop(char **operands, const npy_intp *n, const npy_intp *steps, void *data) {
        auto kernel = active_kernels_of<T>().forward[index_of(data)];
        elementwise_loop<Forward, From, T>(operands, n[0], steps,
                                           [kernel](const T *const *x, const std::size_t *, T *const *y,
                                                    std::size_t count) { kernel(x[0], y[0], count); });
    }
};

struct Backward : Elementwise<2> {
    template <class From, class T>
    static void loop(char **operands, const npy_intp *n, const npy_intp *steps, void *data) {
        auto kernel = active_kernels_of<T>().backward[index_of(data)];
        elementwise_loop<Backward, From, T>(operands, n[0], steps,
                                            [kernel](const T *const *x, const std::size_t *, T *const *y,
                                                     std::size_t count) { kernel(x[0], x[1], y[0], count); });
    }
};

template <int Parameters> struct ForwardGiven : Elementwise<1 + Parameters, Parameters> {
    template <class From, class T>
    static void loop(char **operands, const npy_intp *n, const npy_intp *steps, void *data) {
        auto kernel = active_kernels_of<T>().forward_given[index_of(data)];
        elementwise_loop<ForwardGiven, From, T>(
            operands, n[0], steps,
            [kernel](const T *const *x, const std::size_t *each, T *const *y, std::size_t count) {
                kernel(x[0], x + 1, each, y[0], count);
            });
    }
};

template <int Parameters> struct BackwardGiven : Elementwise<2 + Parameters, Parameters> {
    template <class From, class T>
    static void loop(char **operands, const npy_intp *n, const npy_intp *steps, void *data) {
        auto kernel = active_kernels_of<T>().backward_given[index_of(data)];
        elementwise_loop<BackwardGiven, From, T>(
            operands, n[0], steps,
            [kernel](const T *const *x, const std::size_t *each, T *const *y, std::size_t count) {
                kernel(x[0], x[1], x + 2, each, y[0], count);
            });
    }
};

struct PReluBackward : Elementwise<3, 1, 2> {
    template <class From, class T> static void loop(char **operands, const npy_intp *n, const npy_intp *steps, void *) {
        auto kernel = active_kernels_of<T>().prelu_backward;
        elementwise_loop<PReluBackward, From, T>(
            operands, n[0], steps,
            [kernel](const T *const *x, const std::size_t *each, T *const *y, std::size_t count) {
                kernel(x[0], x[1], x[2], each[0], y[0], y[1], count);
            });
    }
};

struct Fma : Elementwise<3> {
    template <class From, class T> static void loop(char **operands, const npy_intp *n, const npy_intp *steps, void *) {
        auto kernel = active_kernels_of<T>().fused_multiply_add;
        elementwise_loop<Fma, From, T>(operands, n[0], steps,
                                       [kernel](const T *const *x, const std::size_t *, T *const *y,
                                                std::size_t count) { kernel(x[0], x[1], x[2], y[0], count); });
    }
};

// One call of NumPy for a generalized ufunc of one output; call as in strided.hpp.
template <class Family, class From, class T, class Call>
void rowwise_loop(char **operands, const npy_intp *dimensions, const npy_intp *steps, Call call) {
    npy_intp steps_in_row[Family::operands];
    const npy_intp *next = steps + Family::operands; // of those that are rows
    for (int j = 0; j < Family::operands; ++j) steps_in_row[j] = Family::is_row[j] ? *next++ : 0;
    try {
        rowwise<Family, From, T>(operands, dimensions[0], dimensions[1], steps, steps_in_row, call);
    } catch (const std::bad_alloc &) {
        PyGILState_STATE state = PyGILState_Ensure();
        PyErr_NoMemory();
        PyGILState_Release(state);
    }
}

// The loop of a family whose rows one kernel computes
#define PYNN_ROWWISE(Family, rows, kernel_name)                                                                        \
    struct Family : Rowwise<PYNN_UNPACK rows> {                                                                        \
        template <class From, class T>                                                                                 \
        static void loop(char **operands, const npy_intp *n, const npy_intp *steps, void *) {                          \
            rowwise_loop<Family, From, T>(operands, n, steps,                                                          \
                                          call_of_rows<Family, T>(active_kernels_of<T>().kernel_name));                \
        }                                                                                                              \
    };
#define PYNN_UNPACK(...) __VA_ARGS__
PYNN_ROWWISE(Softmax, (true, true), softmax)
PYNN_ROWWISE(SoftmaxBackward, (true, true, true), softmax_backward)
PYNN_ROWWISE(Softmin, (true, true), softmin)
PYNN_ROWWISE(SoftminBackward, (true, true, true), softmin_backward)
PYNN_ROWWISE(LogSoftmax, (true, true), log_softmax)
PYNN_ROWWISE(LogSoftmaxBackward, (true, true, true), log_softmax_backward)
PYNN_ROWWISE(LogSumExp, (true, false), logsumexp)
PYNN_ROWWISE(LogSumExpBackward, (false, true, false, true), logsumexp_backward)
#undef PYNN_ROWWISE
#undef PYNN_UNPACK

// call(inputs, outputs, n) for elementwise functions of rows, which threads share as they share other elements
template <class Family, class From, class T, class Call>
void elementwise_rows(char **operands, const npy_intp *dimensions, const npy_intp *steps, Call call) {
    constexpr int inputs = Family::inputs, count_of_operands = Family::operands;
    const npy_intp rows = dimensions[0], length = dimensions[1], *steps_in_row = steps + count_of_operands;
    bool contiguous = std::is_same_v<From, T>;
    for (int j = 0; j < count_of_operands; ++j)
        contiguous = contiguous && (steps_in_row[j] == sizeof(T) || length == 1);
    // Many CPUs do not look ahead from the end of a row to the next one's beginning: it is brought to the second-level cache.
    constexpr npy_intp line = 64, most = 8192, beyond_caches = 1 << 20, rows_ahead = 2;
    const npy_intp row_bytes = std::min(length * static_cast<npy_intp>(sizeof(T)), most);
    const npy_intp asked =
        contiguous && rows * row_bytes > beyond_caches && !(inputs == 2 && follows_rows()) ? row_bytes : 0;
    parallel_for(static_cast<std::size_t>(rows * length), elementwise_grain, [&](std::size_t begin, std::size_t end) {
        T buffers[count_of_operands][buffer_length];
        while (begin < end) {
            const npy_intp row = static_cast<npy_intp>(begin) / length, at = static_cast<npy_intp>(begin) % length;
            npy_intp count = std::min(length - at, static_cast<npy_intp>(end - begin));
            if (!contiguous) count = std::min(count, buffer_length);
            T *own[count_of_operands];
            char *place[count_of_operands];
            for (int j = 0; j < count_of_operands; ++j) {
                place[j] = operands[j] + row * steps[j] + at * steps_in_row[j];
                own[j] = contiguous ? reinterpret_cast<T *>(place[j]) : buffers[j];
                if (!contiguous && j < inputs) gather<From>(place[j], steps_in_row[j], count, own[j]);
            }
            for (int j = 0; j < inputs; ++j)
                for (npy_intp i = 0; i < asked; i += line)
                    __builtin_prefetch(place[j] + rows_ahead * steps[j] + i, 0, 2);
            call(own, own + inputs, static_cast<std::size_t>(count));
            for (int j = inputs; !contiguous && j < count_of_operands; ++j)
                scatter<Result<From, T>>(own[j], count, place[j], steps_in_row[j]);
            begin += static_cast<std::size_t>(count);
        }
    });
}

struct Glu : Elementwise<2> {
    template <class From, class T> static void loop(char **operands, const npy_intp *n, const npy_intp *steps, void *) {
        auto kernel = active_kernels_of<T>().glu;
        elementwise_rows<Glu, From, T>(operands, n, steps, [kernel](T *const *x, T *const *y, std::size_t count) {
            kernel(x[0], x[1], y[0], count);
        });
    }
};

struct GluBackward : Elementwise<3, 0, 2> {
    template <class From, class T> static void loop(char **operands, const npy_intp *n, const npy_intp *steps, void *) {
        auto kernel = active_kernels_of<T>().glu_backward;
        elementwise_rows<GluBackward, From, T>(
            operands, n, steps,
            [kernel](T *const *x, T *const *y, std::size_t count) { kernel(x[0], x[1], x[2], y[0], y[1], count); });
    }
};

// Small integers, which NumPy would compute as float32, give float64 like all other integers; int serves mixed ones.
constexpr int loop_count = 9;
constexpr std::array<char, loop_count> from_types = {NPY_BOOL, NPY_BYTE, NPY_UBYTE, NPY_SHORT, NPY_USHORT,
                                                     NPY_INT,  NPY_HALF, NPY_FLOAT, NPY_DOUBLE};

template <class Family> struct Loops {
    static inline PyUFuncGenericFunction functions[loop_count] = {
        Family::template loop<npy_bool, double>,   Family::template loop<npy_byte, double>,
        Family::template loop<npy_ubyte, double>,  Family::template loop<npy_short, double>,
        Family::template loop<npy_ushort, double>, Family::template loop<npy_int, double>,
        Family::template loop<Float16, float>,     Family::template loop<float, float>,
        Family::template loop<double, double>,
    };
    static constexpr auto make_types() {
        std::array<char, loop_count * Family::operands> all{};
        std::size_t at = 0;
        for (char from : from_types) {
            const char result = from == NPY_HALF || from == NPY_FLOAT ? from : char(NPY_DOUBLE);
            const char parameter = from == NPY_HALF ? char(NPY_FLOAT) : result;
            for (int j = 0; j < Family::operands; ++j)
                all[at++] = Family::is_parameter(j) ? parameter : j < Family::inputs ? from : result;
        }
        return all;
    }
    static inline auto types = make_types();
};

// NumPy keeps pointers to names, documentation and data: they are never freed.
const char *keep(const std::string &text) { return (new std::string(text))->c_str(); }

// What pynn adds to a ufunc of its own.
struct WithParameters;
struct Added {
    // bfloat16 is a type of the package ml_dtypes, which pynn does not import: its loop is registered when an operand of
    // that type first comes. A call looks for one; reduce and the like come by when NumPy asks what types to compute in.
    PyUFuncGenericFunction loop;
    void *data;
    int parameters;                       // the last so many inputs, which are float32
    PyUFunc_TypeResolutionFunc *resolver; // NumPy's
    bool registered = false;
    const WithParameters *full = nullptr;
};
vectorcallfunc call_of_ufuncs; // NumPy's

Added &added_to(PyUFuncObject *ufunc) { return *static_cast<Added *>(PyCapsule_GetPointer(ufunc->obj, nullptr)); }

bool is_bfloat16(const PyTypeObject *scalar) {
    PyObject *module = PyDict_GetItemString(PyImport_GetModuleDict(), "ml_dtypes");
    if (module == nullptr) return false;
    PyObject *wanted = PyObject_GetAttrString(module, "bfloat16");
    if (wanted == nullptr) PyErr_Clear();
    const bool same = wanted == reinterpret_cast<const PyObject *>(scalar);
    Py_XDECREF(wanted);
    return same;
}
bool is_bfloat16(const PyArray_Descr *type) { return type->type_num >= NPY_USERDEF && is_bfloat16(type->typeobj); }
// A new reference, or nullptr without an error: a list of such numbers, say, is not looked through.
PyArray_Descr *find_bfloat16(PyObject *operand) {
    PyArray_Descr *type = nullptr;
    if (PyArray_Check(operand)) {
        type = PyArray_DESCR(reinterpret_cast<PyArrayObject *>(operand));
        Py_INCREF(type);
    } else if (PyArray_IsScalar(operand, Generic)) {
        type = PyArray_DescrFromScalar(operand);
        if (type == nullptr) PyErr_Clear();
    }
    if (type != nullptr && !is_bfloat16(type)) {
        Py_DECREF(type);
        type = nullptr;
    }
    return type;
}
bool register_bfloat16(PyUFuncObject *ufunc, Added &added, const PyArray_Descr *type) {
    std::vector<int> types(static_cast<std::size_t>(ufunc->nargs), type->type_num);
    for (int j = ufunc->nin - added.parameters; j < ufunc->nin; ++j) types[static_cast<std::size_t>(j)] = NPY_FLOAT;
    if (PyUFunc_RegisterLoopForType(ufunc, type->type_num, added.loop, types.data(), added.data) < 0) return false;
    added.registered = true;
    return true;
}

int resolve_types(PyUFuncObject *ufunc, NPY_CASTING casting, PyArrayObject **operands, PyObject *wanted,
                  PyArray_Descr **types) {
    Added &added = added_to(ufunc);
    for (int j = 0; !added.registered && j < ufunc->nargs; ++j)
        if (operands[j] != nullptr && is_bfloat16(PyArray_DESCR(operands[j])) &&
            !register_bfloat16(ufunc, added, PyArray_DESCR(operands[j])))
            return -1;
    return added.resolver(ufunc, casting, operands, wanted, types);
}

// A ufunc that takes parameters has a second one, of which they are operands. It is called where any is given.
struct WithParameters {
    std::string name;
    std::vector<std::string> operands; // without the parameters
    std::vector<PyObject *> names, defaults;
    PyObject *ufunc;
};

PyObject *call_with_parameters(const WithParameters &full, PyObject *const *values, std::size_t positional,
                               PyObject *keywords) {
    const std::size_t inputs = full.operands.size(), all = inputs + full.names.size();
    std::vector<PyObject *> given(values, values + std::min(positional, all));
    given.resize(all, nullptr);
    std::vector<PyObject *> others;
    py::list other_names;
    const std::size_t named = keywords == nullptr ? 0 : static_cast<std::size_t>(PyTuple_GET_SIZE(keywords));
    for (std::size_t k = 0; k < named; ++k) {
        py::handle name = PyTuple_GET_ITEM(keywords, static_cast<Py_ssize_t>(k));
        std::size_t j = 0;
        while (j < full.names.size() && !name.equal(py::handle(full.names[j]))) ++j;
        if (j == full.names.size()) {
            others.push_back(values[positional + k]);
            other_names.append(name);
            continue;
        }
        if (given[inputs + j] != nullptr)
            throw py::type_error(full.name + "() got " + text_of(name) + " twice, by position and by name");
        given[inputs + j] = values[positional + k];
    }
    std::string takes;
    for (const std::string &operand : full.operands) takes += operand + ", ";
    for (PyObject *name : full.names) takes += text_of(name) + ", ";
    takes = full.name + "() takes " + takes.substr(0, takes.size() - 2) + " and keywords such as out; got ";
    if (positional > all) throw py::type_error(takes + std::to_string(positional) + " operands by position");
    if (positional < inputs) throw py::type_error(takes + "no " + full.operands[positional]);
    for (std::size_t j = inputs; j < all; ++j)
        if (given[j] == nullptr) given[j] = full.defaults[j - inputs];
    given.insert(given.end(), others.begin(), others.end());
    py::tuple rest(other_names);
    return PyObject_Vectorcall(full.ufunc, given.data(), all, others.empty() ? nullptr : rest.ptr());
}

// Only where no code of the caller's runs in the call, whose own arrays would lie in such memory too: all operands are
// plain arrays and numbers.
bool makes_large_results(const PyUFuncObject *ufunc, PyObject *const *values, std::size_t positional,
                         PyObject *keywords) {
    const auto plain = [](PyObject *value) {
        return PyArray_CheckExact(value) || PyFloat_CheckExact(value) || PyLong_CheckExact(value) ||
               PyBool_Check(value) || PyArray_IsScalar(value, Generic);
    };
    const auto named = [&](Py_ssize_t k, const char *name) {
        return PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(keywords, k), name) == 0;
    };
    bool large = false, all_plain = positional <= static_cast<std::size_t>(ufunc->nin);
    for (std::size_t j = 0; j < positional; ++j) {
        all_plain = all_plain && plain(values[j]);
        large = large || (PyArray_Check(values[j]) &&
                          PyArray_NBYTES(reinterpret_cast<PyArrayObject *>(values[j])) >= least_reused);
    }
    if (!large || !all_plain) return false;
    for (Py_ssize_t k = 0; keywords != nullptr && k < PyTuple_GET_SIZE(keywords); ++k)
        if (named(k, "out") || (named(k, "where") && !plain(values[positional + static_cast<std::size_t>(k)])))
            return false;
    return true;
}

PyObject *call_ufunc(PyObject *self, PyObject *const *values, std::size_t flags, PyObject *keywords) {
    auto *ufunc = reinterpret_cast<PyUFuncObject *>(self);
    Added &added = added_to(ufunc);
    const auto positional = static_cast<std::size_t>(PyVectorcall_NARGS(flags));
    for (std::size_t j = 0; !added.registered && j < positional; ++j)
        if (PyArray_Descr *type = find_bfloat16(values[j])) {
            const bool good = register_bfloat16(ufunc, added, type);
            Py_DECREF(type);
            if (!good) return nullptr;
        }
    bool plain = added.full == nullptr || positional <= static_cast<std::size_t>(ufunc->nin);
    for (Py_ssize_t k = 0; added.full != nullptr && keywords != nullptr && k < PyTuple_GET_SIZE(keywords); ++k)
        for (PyObject *name : added.full->names)
            plain = plain && !py::handle(PyTuple_GET_ITEM(keywords, k)).equal(py::handle(name));
    if (plain) {
        const ReusedMemory reused(makes_large_results(ufunc, values, positional, keywords));
        return call_of_ufuncs(self, values, flags, keywords);
    }
    try {
        return call_with_parameters(*added.full, values, positional, keywords);
    } catch (py::error_already_set &error) { error.restore(); } catch (const py::builtin_exception &error) {
        error.set_error();
    } catch (const std::bad_alloc &) { PyErr_NoMemory(); }
    return nullptr;
}

template <class Family>
py::object make_ufunc(const std::string &name, const std::string &documentation, std::size_t index,
                      const char *signature = nullptr) {
    void **data = new void *[loop_count];
    std::fill(data, data + loop_count, reinterpret_cast<void *>(index));
    py::object made = owned(PyUFunc_FromFuncAndDataAndSignature(
        Loops<Family>::functions, data, Loops<Family>::types.data(), loop_count, Family::inputs, Family::outputs,
        PyUFunc_None, keep(name), keep(documentation), 0, signature));
    auto *ufunc = reinterpret_cast<PyUFuncObject *>(made.ptr());
    ufunc->obj = py::capsule(new Added{Family::template loop<BFloat16, float>, data[0], Family::parameters,
                                       ufunc->type_resolver})
                     .release()
                     .ptr();
    ufunc->type_resolver = resolve_types;
    call_of_ufuncs = ufunc->vectorcall;
    ufunc->vectorcall = call_ufunc;
    return made;
}
template <class Family>
void add_ufunc(py::module_ &module, const std::string &name, const std::string &documentation, std::size_t index,
               const char *signature = nullptr) {
    module.attr(name.c_str()) = make_ufunc<Family>(name, documentation, index, signature);
}

// Makes `plain`, a ufunc, take parameters too; it stays a ufunc in all else.
void take_parameters(py::object plain, py::object full, const std::string &name, std::vector<std::string> operands,
                     const Parameters &parameters) {
    auto *with = new WithParameters{name, std::move(operands), {}, {}, full.release().ptr()};
    for (std::size_t j = 0; j < parameters.count; ++j) {
        with->names.push_back(py::str(parameters.list[j].name).release().ptr());
        with->defaults.push_back(py::float_(parameters.list[j].value).release().ptr());
    }
    added_to(reinterpret_cast<PyUFuncObject *>(plain.ptr())).full = with;
}

struct Row {
    const char *name, *saves;
    Parameters given;
    const char *formula, *limits, *source;
};
#define PYNN_ROW(name, saves, parameters, formula, limits, source)                                                     \
    Row{#name, #saves, parameters, formula, limits, source},
constexpr Row rows[] = {PYNN_ACTIVATIONS(PYNN_ROW)};
#undef PYNN_ROW

const char *const types_note =
    R"(float32 and float64 are computed as they are; float16 and bfloat16 (of the package
    ml_dtypes) in float32, and rounded to what they are; integers and bool as float64.
)";

// Examples that hold for every row: the formula, and what a gradient is.
std::string forward_example(const std::string &name) {
    return R"(
Examples
--------
>>> import numpy as np, pynn
>>> x = np.array([-1.25, 0.75, 2.5])
>>> y = pynn.)" +
           name + R"((x)
>>> bool(np.allclose(y, pynn.reference.ACTIVATIONS[")" +
           name + R"("].forward(x)))
True
)";
}

std::string backward_example(const std::string &name, bool output) {
    return R"(
Examples
--------
>>> import numpy as np, pynn
>>> x, step = np.array([-1.25, 0.75, 2.5]), 1e-6
>>> slope = (pynn.)" +
           name + "(x + step) - pynn." + name + R"((x - step)) / (2 * step)
>>> dx = pynn.)" +
           name + "_backward(np.ones(3), " + (output ? "pynn." + name + "(x)" : std::string("x")) + R"()
>>> bool(np.allclose(dx, slope, atol=1e-6))
True
)";
}

std::string number_text(double value) { return text_of(py::float_(value).attr("__format__")("g")); }

std::string parameters_documentation(const Row &row) {
    std::string text;
    for (std::size_t j = 0; j < row.given.count; ++j) {
        const Parameter &p = row.given.list[j];
        text += std::string(p.name) + " : array_like, default " + number_text(p.value) + "\n    " + p.meaning +
                " Broadcasts against the other operands;\n    for 16-bit ones it is a float32.\n";
    }
    return text;
}

std::string forward_documentation(const Row &row) {
    return std::string(row.formula) + R"(, elementwise.

Parameters
----------
x : array_like
    Any shape. )" +
           types_note + parameters_documentation(row) + R"(out, where, dtype, ... : optional
    As for every NumPy ufunc, by name.

Returns
-------
y : ndarray or scalar
    The shape of the operands together. Within 1 ULP of the exact value (float64: 2 ULP), the same bits on every
    instruction set and for any number of threads; no floating-point warnings.

Raises
------
TypeError
    For complex, object and extended-precision operands.

Notes
-----
)" + row.limits +
           " NaN gives NaN. Source: " + row.source + "\n" + forward_example(row.name);
}

std::string backward_documentation(const Row &row) {
    bool output = row.saves[0] == 'y';
    return std::string("Gradient of ") + row.name + ": dy times its slope" +
           (output ? ", computed from its output" : "") + R"(.

Parameters
----------
dy : array_like
    Gradient with respect to the output.
)" + row.saves +
           R"( : array_like
    What the forward pass saves: )" +
           (output ? "the output" : "the input") + " of `" + row.name + R"(`. Broadcasts against `dy`.
    )" + types_note +
           parameters_documentation(row) + R"(out, where, dtype, ... : optional
    As for every NumPy ufunc, by name.

Returns
-------
dx : ndarray or scalar
    Gradient with respect to the input. NaN in either operand gives NaN.

Raises
------
TypeError
    For complex, object and extended-precision operands.
)" + backward_example(row.name, output);
}

const char *const prelu_documentation = R"(x if x > 0 else slope * x, elementwise, with a slope that is learned.

Parameters
----------
x : array_like
    Any shape.
slope : array_like
    The slope where x <= 0, of any sign; broadcasts against `x`. Types are those of `leaky_relu`.
out, where, dtype, ... : optional
    As for every NumPy ufunc, by name.

Returns
-------
y : ndarray or scalar
    The bits of ``leaky_relu(x, slope)``.

Notes
-----
Slopes per channel need a shape that broadcasts, such as (channels, 1, 1); torch.nn.functional.prelu takes the channel
axis to be the second. Source: He, Zhang, Ren and Sun (2015), Delving deep into rectifiers.

Examples
--------
>>> import numpy as np, pynn
>>> pynn.prelu(np.array([[-2.0, 3.0], [-4.0, -8.0]]), [0.5, 0.25])
array([[-1.,  3.],
       [-2., -2.]])
)";

const char *const prelu_backward_documentation = R"(Gradients of prelu, elementwise, by its input and by its slope.

Parameters
----------
dy : array_like
    Gradient with respect to the output.
x, slope : array_like
    The operands of `prelu`.
out, where, dtype, ... : optional
    As for every NumPy ufunc of two outputs, by name.

Returns
-------
dx : ndarray or scalar
    Gradient with respect to `x`: dy where x > 0, else slope * dy.
dslope : ndarray or scalar
    What each element adds to the gradient with respect to its slope: x * dy where x < 0, else 0. Sum it over the axes
    that `slope` was broadcast along, as the layer `pynn.layers.PRelu` does.

Examples
--------
>>> import numpy as np, pynn
>>> pynn.prelu_backward(np.ones(2), np.array([-2.0, 3.0]), 0.25)
(array([0.25, 1.  ]), array([-2.,  0.]))
)";

const char *const softmax_documentation = R"(exp(x) / sum(exp(x)) along an axis.

Parameters
----------
x : array_like
    Logits, at least one-dimensional. float32 and float64 are computed as they are, float16 as float32, integers and
    bool as float64.
axis : int, optional
    The axis that sums to 1; the last one by default.
out, dtype, ... : optional
    As for every generalized NumPy ufunc.

Returns
-------
y : ndarray
    The shape of `x`. The greatest element is subtracted first, so large logits do not overflow.

Notes
-----
A row with NaN or +inf in it, and a row of -inf alone, gives NaN; single -inf give 0. Source: Deep Learning from Scratch,
section 3.5. torch.softmax asks for its axis (dim); jax.nn.softmax defaults to the last one like this.

Examples
--------
>>> import numpy as np, pynn
>>> pynn.softmax(np.array([0.0, 0.0]))
array([0.5, 0.5])
>>> pynn.softmax(np.zeros((2, 3)), axis=0)
array([[0.5, 0.5, 0.5],
       [0.5, 0.5, 0.5]])
)";

const char *const softmax_backward_documentation = R"(Gradient of softmax: y * (dy - sum(dy * y)) along an axis.

Parameters
----------
dy : array_like
    Gradient with respect to the output, at least one-dimensional.
y : array_like
    Output of `softmax`.
axis : int, optional
    The axis that `softmax` ran along; the last one by default.
out, dtype, ... : optional
    As for every generalized NumPy ufunc.

Returns
-------
dx : ndarray
    Gradient with respect to the logits.

Examples
--------
>>> import numpy as np, pynn
>>> pynn.softmax_backward(np.array([1.0, 0.0]), np.array([0.5, 0.5]))
array([ 0.25, -0.25])
)";

const char *const softmin_documentation = R"(exp(-x) / sum(exp(-x)) along an axis: softmax of -x.

Parameters
----------
x : array_like
    At least one-dimensional. Types are those of `softmax`.
axis : int, optional
    The axis it runs along; the last one by default.
out, dtype, ... : optional
    As for every generalized NumPy ufunc.

Returns
-------
y : ndarray
    The shape of `x`.

Notes
-----
Limits are those of `softmax`. As torch.nn.functional.softmin, which asks for its axis (dim); JAX and Keras have none.

Examples
--------
>>> import numpy as np, pynn
>>> pynn.softmin(np.array([0.0, 0.0]))
array([0.5, 0.5])
)";

const char *const softmin_backward_documentation = R"(Gradient of softmin: y * (sum(dy * y) - dy) along an axis.

Parameters
----------
dy : array_like
    Gradient with respect to the output, at least one-dimensional.
y : array_like
    Output of `softmin`.
axis : int, optional
    The axis it runs along; the last one by default.
out, dtype, ... : optional
    As for every generalized NumPy ufunc.

Returns
-------
dx : ndarray
    Gradient with respect to `x`.

Examples
--------
>>> import numpy as np, pynn
>>> pynn.softmin_backward(np.array([1.0, 0.0]), np.array([0.5, 0.5]))
array([-0.25,  0.25])
)";

const char *const log_softmax_documentation =
    R"(log(softmax(x)) along an axis: x - logsumexp(x), right to the last digits also near 0.

Parameters
----------
x : array_like
    Logits, at least one-dimensional. Types are those of `softmax`.
axis : int, optional
    The axis it runs along; the last one by default.
out, dtype, ... : optional
    As for every generalized NumPy ufunc.

Returns
-------
y : ndarray
    The shape of `x`. float32 is within 1 ULP of the exact value, float64 within 2.

Notes
-----
A row with NaN in it, and a row of -inf alone, gives NaN; with +inf in it, NaN there and -inf elsewhere, as scipy.special.log_softmax
does; PyTorch and JAX give NaN throughout. torch.log_softmax asks for its axis (dim), jax.nn.log_softmax defaults to the last one like
this, scipy's takes all axes together.

Examples
--------
>>> import numpy as np, pynn
>>> pynn.log_softmax(np.array([0.0, 0.0])).round(4)
array([-0.6931, -0.6931])
)";

const char *const log_softmax_backward_documentation = R"(Gradient of log_softmax: dy - exp(y) * sum(dy) along an axis.

Parameters
----------
dy : array_like
    Gradient with respect to the output, at least one-dimensional.
y : array_like
    Output of `log_softmax`.
axis : int, optional
    The axis it runs along; the last one by default.
out, dtype, ... : optional
    As for every generalized NumPy ufunc.

Returns
-------
dx : ndarray
    Gradient with respect to the logits.

Examples
--------
>>> import numpy as np, pynn
>>> pynn.log_softmax_backward(np.array([1.0, 0.0]), np.log([0.5, 0.5])).round(4)
array([ 0.5, -0.5])
)";

const char *const logsumexp_documentation = R"(log(sum(exp(x))) along an axis, which it takes away.

Parameters
----------
x : array_like
    At least one-dimensional. Types are those of `softmax`.
axis : int, optional
    The axis it runs along; the last one by default.
out, dtype, ... : optional
    As for every generalized NumPy ufunc.

Returns
-------
y : ndarray or scalar
    The shape of `x` without the axis; ``keepdims=True`` leaves it with length 1. float32 is within 1 ULP of the exact value,
    float64 within 2; where the greatest element and the logarithm cancel, 2^-25 (float64: 2^-53) of it is within the bound too.

Notes
-----
An empty row, and one of -inf alone, gives -inf; one with +inf +inf, with NaN NaN, as in scipy.special.logsumexp. The last axis is the
default here, all axes together are there and in JAX; torch.logsumexp asks for them (dim).

Examples
--------
>>> import numpy as np, pynn
>>> float(pynn.logsumexp(np.array([1000.0, 1000.0])).round(4))
1000.6931
)";

const char *const logsumexp_backward_documentation = R"(Gradient of logsumexp: dy * exp(x - y), the axis restored.

Parameters
----------
dy : array_like
    Gradient with respect to the output.
x, y : array_like
    Input and output of `logsumexp`.
axis : int, optional
    The axis it runs along; the last one by default.
out, dtype, ... : optional
    As for every generalized NumPy ufunc.

Returns
-------
dx : ndarray
    Gradient with respect to `x`, of its shape.

Examples
--------
>>> import numpy as np, pynn
>>> x = np.array([0.0, 0.0])
>>> pynn.logsumexp_backward(1.0, x, pynn.logsumexp(x)).round(4)
array([0.5, 0.5])
)";

template <int Count>
void add_parameters(py::module_ &module, const Row &row, std::size_t index, py::object forward, py::object backward) {
    const std::string name = row.name, suffix = "_with_parameters";
    auto full = [&](const std::string &of, auto family, py::object plain, std::vector<std::string> operands) {
        using Family = decltype(family);
        py::object made = make_ufunc<Family>(of + suffix, "`" + of + "` with its parameters as operands.", index);
        module.attr((of + suffix).c_str()) = made; // where pickle finds it
        take_parameters(plain, made, of, std::move(operands), row.given);
    };
    full(name, ForwardGiven<Count>(), forward, {"x"});
    full(name + "_backward", BackwardGiven<Count>(), backward, {"dy", row.saves});
}

} // namespace

void bind_activations(py::module_ &module) {
    py::tuple table(activation_count);
    for (std::size_t i = 0; i < activation_count; ++i) {
        const Row &row = rows[i];
        const std::string name = row.name;
        py::object forward = make_ufunc<Forward>(name, forward_documentation(row), i);
        py::object backward = make_ufunc<Backward>(name + "_backward", backward_documentation(row), i);
        module.attr(name.c_str()) = forward;
        module.attr((name + "_backward").c_str()) = backward;
        if (row.given.count == 1) add_parameters<1>(module, row, i, forward, backward);
        if (row.given.count == 2) add_parameters<2>(module, row, i, forward, backward);
        py::dict defaults;
        for (std::size_t j = 0; j < row.given.count; ++j) defaults[row.given.list[j].name] = row.given.list[j].value;
        table[i] = py::make_tuple(name, row.saves, defaults);
    }
    module.attr("ACTIVATION_TABLE") = table;
    const auto leaky_relu = static_cast<std::size_t>(ActivationNumber::leaky_relu);
    add_ufunc<ForwardGiven<1>>(module, "prelu", prelu_documentation, leaky_relu);
    add_ufunc<PReluBackward>(module, "prelu_backward", prelu_backward_documentation, 0);
    add_ufunc<Softmax>(module, "softmax", softmax_documentation, 0, "(n)->(n)");
    add_ufunc<SoftmaxBackward>(module, "softmax_backward", softmax_backward_documentation, 0, "(n),(n)->(n)");
    add_ufunc<Softmin>(module, "softmin", softmin_documentation, 0, "(n)->(n)");
    add_ufunc<SoftminBackward>(module, "softmin_backward", softmin_backward_documentation, 0, "(n),(n)->(n)");
    add_ufunc<LogSoftmax>(module, "log_softmax", log_softmax_documentation, 0, "(n)->(n)");
    add_ufunc<LogSoftmaxBackward>(module, "log_softmax_backward", log_softmax_backward_documentation, 0,
                                  "(n),(n)->(n)");
    add_ufunc<LogSumExp>(module, "logsumexp", logsumexp_documentation, 0, "(n)->()");
    add_ufunc<LogSumExpBackward>(module, "logsumexp_backward", logsumexp_backward_documentation, 0, "(),(n),()->(n)");
    add_ufunc<Glu>(module, "glu_halves", "a * sigmoid(b), of the two halves that pynn.glu takes.", 0, "(n),(n)->(n)");
    add_ufunc<GluBackward>(module, "glu_halves_backward", "Gradients of glu_halves by a and b.", 0,
                           "(n),(n),(n)->(n),(n)");
    add_ufunc<Fma>(module, "fma", "a * b + c, rounded once, by the instruction set in use.", 0);
}

} // namespace pynn
