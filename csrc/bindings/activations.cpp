// The activations as NumPy ufuncs, made from the table; softmax as a generalized ufunc. NumPy checks, broadcasts,
// allocates and drops the GIL; loops hand contiguous memory to the kernels, by way of a small buffer where it is not.
#include "bindings/bindings.hpp"

#include <algorithm>
#include <type_traits>
#include <utility>

#include "dispatch.hpp"
#include "memory.hpp"
#include "parallel.hpp"
#include "simd/environment.hpp"

namespace pynn {
namespace {

constexpr npy_intp buffer_length = 512;

template <class To, class From> void gather(const char *from, npy_intp step, npy_intp n, To *to) {
    for (npy_intp i = 0; i < n; ++i, from += step) to[i] = static_cast<To>(*reinterpret_cast<const From *>(from));
}
template <class T> void scatter(const T *from, npy_intp n, char *to, npy_intp step) {
    for (npy_intp i = 0; i < n; ++i, to += step) *reinterpret_cast<T *>(to) = from[i];
}

// call(inputs, output, n) for Inputs operands of type From, computed as T.
template <std::size_t Inputs, class From, class T, class Call>
void elementwise(char **operands, npy_intp n, const npy_intp *steps, Call call) {
    bool contiguous = std::is_same_v<From, T>;
    for (std::size_t j = 0; j <= Inputs; ++j) contiguous = contiguous && (steps[j] == sizeof(T) || n == 1);
    if (Inputs > 1 && n > 1 && (steps[Inputs] == 0 || operands[0] + steps[0] == operands[Inputs])) {
        // reduce and accumulate: each result is an operand of the next one
        for (npy_intp i = 0; i < n; ++i) {
            T values[Inputs + 1];
            const T *inputs[Inputs];
            for (std::size_t j = 0; j < Inputs; ++j) {
                gather<T, From>(operands[j] + i * steps[j], 0, 1, values + j);
                inputs[j] = values + j;
            }
            StandardEnvironment environment;
            call(inputs, values + Inputs, 1);
            scatter(values + Inputs, 1, operands[Inputs] + i * steps[Inputs], 0);
        }
        return;
    }
    parallel_for(static_cast<std::size_t>(n), elementwise_grain, [&](std::size_t begin, std::size_t end) {
        const T *inputs[Inputs];
        if (contiguous) {
            for (std::size_t j = 0; j < Inputs; ++j) inputs[j] = reinterpret_cast<const T *>(operands[j]) + begin;
            call(inputs, reinterpret_cast<T *>(operands[Inputs]) + begin, end - begin);
            return;
        }
        T buffers[Inputs + 1][buffer_length];
        for (std::size_t i = begin; i < end; i += buffer_length) {
            const npy_intp count = std::min<npy_intp>(buffer_length, static_cast<npy_intp>(end - i));
            const npy_intp at = static_cast<npy_intp>(i);
            for (std::size_t j = 0; j < Inputs; ++j) {
                gather<T, From>(operands[j] + at * steps[j], steps[j], count, buffers[j]);
                inputs[j] = buffers[j];
            }
            call(inputs, buffers[Inputs], static_cast<std::size_t>(count));
            scatter(buffers[Inputs], count, operands[Inputs] + at * steps[Inputs], steps[Inputs]);
        }
    });
}

std::size_t index_of(void *data) { return reinterpret_cast<std::size_t>(data); }

struct Forward {
    static constexpr int inputs = 1;
    template <class From, class T>
    static void loop(char **operands, const npy_intp *n, const npy_intp *steps, void *data) {
        auto kernel = active_kernels_of<T>().forward[index_of(data)];
        elementwise<1, From, T>(operands, n[0], steps,
                                [kernel](const T *const *x, T *y, std::size_t count) { kernel(x[0], y, count); });
    }
};

struct Backward {
    static constexpr int inputs = 2;
    template <class From, class T>
    static void loop(char **operands, const npy_intp *n, const npy_intp *steps, void *data) {
        auto kernel = active_kernels_of<T>().backward[index_of(data)];
        elementwise<2, From, T>(operands, n[0], steps,
                                [kernel](const T *const *x, T *y, std::size_t count) { kernel(x[0], x[1], y, count); });
    }
};

struct Fma {
    static constexpr int inputs = 3;
    template <class From, class T> static void loop(char **operands, const npy_intp *n, const npy_intp *steps, void *) {
        auto kernel = active_kernels_of<T>().fused_multiply_add;
        elementwise<3, From, T>(operands, n[0], steps, [kernel](const T *const *x, T *y, std::size_t count) {
            kernel(x[0], x[1], x[2], y, count);
        });
    }
};

// call(inputs, output, length) for each row of a generalized ufunc (n) -> (n) or (n),(n) -> (n)
template <std::size_t Inputs, class From, class T, class Call>
void rowwise(char **operands, const npy_intp *dimensions, const npy_intp *steps, Call call) {
    const npy_intp rows = dimensions[0], length = dimensions[1];
    const npy_intp *row_steps = steps, *steps_in_row = steps + Inputs + 1;
    if (rows == 0 || length == 0) return;
    bool contiguous = std::is_same_v<From, T>;
    for (std::size_t j = 0; j <= Inputs; ++j) contiguous = contiguous && (steps_in_row[j] == sizeof(T) || length == 1);
    const std::size_t buffer = static_cast<std::size_t>(length) * (Inputs + 1);
    try {
        const int threads = thread_count();
        Scratch<T> scratch(contiguous ? 0 : buffer * static_cast<std::size_t>(threads));
        const std::size_t grain = std::max<std::size_t>(1, elementwise_grain / 4 / static_cast<std::size_t>(length));
        parallel_for_slots(
            static_cast<std::size_t>(rows), grain, threads, [&](std::size_t begin, std::size_t end, int slot) {
                for (npy_intp row = static_cast<npy_intp>(begin); row < static_cast<npy_intp>(end); ++row) {
                    const T *inputs[Inputs];
                    char *output = operands[Inputs] + row * row_steps[Inputs];
                    T *own = contiguous ? nullptr : scratch.get() + buffer * static_cast<std::size_t>(slot);
                    for (std::size_t j = 0; j < Inputs; ++j) {
                        const char *input = operands[j] + row * row_steps[j];
                        inputs[j] = reinterpret_cast<const T *>(input);
                        if (contiguous) continue;
                        T *gathered = own + j * static_cast<std::size_t>(length);
                        gather<T, From>(input, steps_in_row[j], length, gathered);
                        inputs[j] = gathered;
                    }
                    T *result =
                        contiguous ? reinterpret_cast<T *>(output) : own + Inputs * static_cast<std::size_t>(length);
                    call(inputs, result, static_cast<std::size_t>(length));
                    if (!contiguous) scatter(result, length, output, steps_in_row[Inputs]);
                }
            });
    } catch (const std::bad_alloc &) {
        PyGILState_STATE state = PyGILState_Ensure();
        PyErr_NoMemory();
        PyGILState_Release(state);
    }
}

struct Softmax {
    static constexpr int inputs = 1;
    template <class From, class T> static void loop(char **operands, const npy_intp *n, const npy_intp *steps, void *) {
        auto kernel = active_kernels_of<T>().softmax;
        rowwise<1, From, T>(operands, n, steps,
                            [kernel](const T *const *x, T *y, std::size_t length) { kernel(x[0], y, length); });
    }
};

struct SoftmaxBackward {
    static constexpr int inputs = 2;
    template <class From, class T> static void loop(char **operands, const npy_intp *n, const npy_intp *steps, void *) {
        auto kernel = active_kernels_of<T>().softmax_backward;
        rowwise<2, From, T>(operands, n, steps,
                            [kernel](const T *const *x, T *dx, std::size_t length) { kernel(x[0], x[1], dx, length); });
    }
};

// Small integers, which NumPy would compute as float32, give float64 like all other integers; int serves mixed ones.
constexpr int loop_count = 8;
constexpr std::array<char, loop_count> from_types = {NPY_BOOL,   NPY_BYTE, NPY_UBYTE, NPY_SHORT,
                                                     NPY_USHORT, NPY_INT,  NPY_FLOAT, NPY_DOUBLE};

template <class Family> struct Loops {
    static inline PyUFuncGenericFunction functions[loop_count] = {
        Family::template loop<npy_bool, double>,   Family::template loop<npy_byte, double>,
        Family::template loop<npy_ubyte, double>,  Family::template loop<npy_short, double>,
        Family::template loop<npy_ushort, double>, Family::template loop<npy_int, double>,
        Family::template loop<float, float>,       Family::template loop<double, double>,
    };
    static constexpr auto make_types() {
        std::array<char, loop_count *(Family::inputs + 1)> all{};
        std::size_t at = 0;
        for (char from : from_types) {
            for (int j = 0; j < Family::inputs; ++j) all[at++] = from;
            all[at++] = from == NPY_FLOAT ? NPY_FLOAT : NPY_DOUBLE;
        }
        return all;
    }
    static inline auto types = make_types();
};

// NumPy keeps pointers to names, documentation and data: they are never freed.
const char *keep(const std::string &text) { return (new std::string(text))->c_str(); }

template <class Family>
void add_ufunc(py::module_ &module, const std::string &name, const std::string &documentation, std::size_t index,
               const char *signature = nullptr) {
    void **data = new void *[loop_count];
    std::fill(data, data + loop_count, reinterpret_cast<void *>(index));
    const char *kept = keep(name);
    module.attr(kept) = owned(
        PyUFunc_FromFuncAndDataAndSignature(Loops<Family>::functions, data, Loops<Family>::types.data(), loop_count,
                                            Family::inputs, 1, PyUFunc_None, kept, keep(documentation), 0, signature));
}

struct Row {
    const char *name, *saves, *formula, *limits, *source;
};
#define PYNN_ROW(name, saves, formula, limits, source) Row{#name, #saves, formula, limits, source},
constexpr Row rows[] = {PYNN_ACTIVATIONS(PYNN_ROW)};
#undef PYNN_ROW

const char *const types_note =
    R"(float32 and float64 are computed as they are, float16 as float32, integers and bool as float64.
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

std::string forward_documentation(const Row &row) {
    return std::string(row.formula) + R"(, elementwise.

Parameters
----------
x : array_like
    Any shape. )" +
           types_note + R"(out, where, dtype, ... : optional
    As for every NumPy ufunc.

Returns
-------
y : ndarray or scalar
    The shape of `x`. Within 1 ULP of the exact value (float64: 2 ULP), the same bits on every instruction set and for
    any number of threads; no floating-point warnings.

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
           R"(out, where, dtype, ... : optional
    As for every NumPy ufunc.

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

} // namespace

void bind_activations(py::module_ &module) {
    py::tuple table(activation_count);
    for (std::size_t i = 0; i < activation_count; ++i) {
        const Row &row = rows[i];
        const std::string name = row.name;
        table[i] = py::make_tuple(name, row.saves);
        add_ufunc<Forward>(module, name, forward_documentation(row), i);
        add_ufunc<Backward>(module, name + "_backward", backward_documentation(row), i);
    }
    module.attr("ACTIVATION_TABLE") = table;
    add_ufunc<Softmax>(module, "softmax", softmax_documentation, 0, "(n)->(n)");
    add_ufunc<SoftmaxBackward>(module, "softmax_backward", softmax_backward_documentation, 0, "(n),(n)->(n)");
    add_ufunc<Fma>(module, "fma", "a * b + c, rounded once, by the instruction set in use.", 0);
}

} // namespace pynn
