// update: a step of an optimizer over any number of parameters in one crossing. All is checked before anything is
// changed; then blocks of all the arrays are shared out among the threads.
#include "bindings/operands.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "dispatch.hpp"
#include "memory.hpp"
#include "optimizers.hpp"
#include "parallel.hpp"
#include "simd/environment.hpp"

namespace pynn {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

struct Row {
    const char *name;
    std::size_t states;
    void (*make)(const double *, std::uint64_t, double *);
    const char *hyperparameters;
};
#define PYNN_ROW(name, states, make, ...) Row{#name, states, make, #__VA_ARGS__},
constexpr Row rows[] = {PYNN_OPTIMIZERS(PYNN_ROW)};
#undef PYNN_ROW

std::size_t optimizer_index(py::handle name) {
    for (std::size_t i = 0; i < optimizer_count; ++i)
        if (PyUnicode_Check(name.ptr()) && PyUnicode_CompareWithASCIIString(name.ptr(), rows[i].name) == 0) return i;
    throw py::value_error("optimizer is " + text_of(py::repr(name)) + "; expected the name of a row of the table");
}

// A finite number from 0 to below the bound; an error that names it.
double number(const std::string &name, py::handle object, double below = infinity) {
    double value = -1;
    if (PyFloat_CheckExact(object.ptr())) {
        value = PyFloat_AS_DOUBLE(object.ptr());
    } else {
        PyArrayObject *array = as_array(object); // which converts text, too, and one element of many axes
        const bool number = !PyArray_Check(object.ptr()) || (PyArray_NDIM(array) == 0 && !PyArray_ISSTRING(array) &&
                                                             !PyArray_ISCOMPLEX(array) && !PyArray_ISOBJECT(array));
        if (number) value = PyFloat_AsDouble(object.ptr());
        if (value == -1 && PyErr_Occurred() != nullptr &&
            PyErr_ExceptionMatches(PyExc_OverflowError)) { // an int beyond float64
            PyErr_Clear();
            throw py::value_error(name + " must be finite in float64; got an int that is not");
        }
        if (!number || (value == -1 && PyErr_Occurred() != nullptr)) {
            if (number && !PyErr_ExceptionMatches(PyExc_TypeError) && !PyErr_ExceptionMatches(PyExc_ValueError))
                throw py::error_already_set();
            PyErr_Clear();
            throw py::type_error(name + " must be a number; got " + text_of(py::repr(object)));
        }
    }
    if (!(value >= 0 && value < below))
        throw py::value_error(name + " must be " + (below < infinity ? "from 0 to below 1" : "at least 0 and finite") +
                              "; got " + text_of(py::repr(object)));
    return value;
}

std::string key_text(const char *what, PyObject *key) { return what + ("[" + text_of(py::repr(key))) + "]"; }

// A parameter, its gradient and its state.
struct Item {
    PyObject *key;
    py::object arrays[2 + most_states];
    bool flat; // all in one order of memory without gaps

    PyArrayObject *array(std::size_t i) const { return as_array(arrays[i]); }
};

void check_parameter(PyObject *key, PyObject *object) {
    const std::string wanted = " must be a float32 or float64 array, to be changed in place; got ";
    if (!PyArray_Check(object)) throw py::type_error(key_text("params", key) + wanted + Py_TYPE(object)->tp_name);
    PyArrayObject *array = reinterpret_cast<PyArrayObject *>(object);
    const int type = PyArray_TYPE(array);
    if ((type != NPY_FLOAT && type != NPY_DOUBLE) || PyArray_ISBYTESWAPPED(array))
        throw py::type_error(key_text("params", key) + wanted + "an array of " +
                             text_of(py::repr(reinterpret_cast<PyObject *>(PyArray_DESCR(array)))));
    if (!PyArray_ISWRITEABLE(array))
        throw py::value_error(key_text("params", key) + " must be writable; got a read-only array");
    if (may_share_elements(array))
        throw py::value_error(key_text("params", key) + " must have one place for each element; got an array whose "
                                                        "elements may share memory");
}

py::object gradient_for(PyObject *key, PyObject *object, PyArrayObject *parameter) {
    if (object == nullptr)
        throw py::value_error("grads must have every key of params; got no " + text_of(py::repr(key)));
    auto name = [key] { return key_text("grads", key); };
    const Operand gradient = PyArray_Check(object) ? Operand{"grads", py::reinterpret_borrow<py::object>(object)}
                                                   : take(name().c_str(), object);
    Operand converted{"grads", gradient.array};
    if (!PyArray_SAMESHAPE(of(converted), parameter))
        throw py::value_error(name() + " must have shape " + shape_text(parameter) + "; got " +
                              shape_text(of(converted)));
    const int type = PyArray_TYPE(of(converted));
    if (!(PyTypeNum_ISINTEGER(type) || PyTypeNum_ISFLOAT(type) || type == NPY_BOOL))
        throw py::type_error(name() + " must be real numbers; got an array of " + dtype_text(of(converted)));
    convert_to(converted, PyArray_TYPE(parameter));
    return converted.array;
}

py::object state_for(PyObject *key, py::handle dictionary, PyArrayObject *parameter) {
    PyObject *found = PyDict_GetItemWithError(dictionary.ptr(), key);
    if (found == nullptr) {
        if (PyErr_Occurred() != nullptr) throw py::error_already_set();
        const ReusedMemory reused(PyArray_NBYTES(parameter) >= least_reused); // aligned, above all
        py::object zeros = owned(PyArray_NewLikeArray(parameter, NPY_KEEPORDER, nullptr, 0));
        std::memset(PyArray_DATA(as_array(zeros)), 0, static_cast<std::size_t>(PyArray_NBYTES(as_array(zeros))));
        return zeros;
    }
    const std::string text = key_text("the state of params", key);
    if (!PyArray_Check(found)) throw py::type_error(text + " must be an array; got a " + Py_TYPE(found)->tp_name);
    PyArrayObject *array = reinterpret_cast<PyArrayObject *>(found);
    if (!PyArray_SAMESHAPE(array, parameter))
        throw py::value_error(key_text("params", key) + " had shape " + shape_text(array) + " before; got " +
                              shape_text(parameter));
    if (PyArray_TYPE(array) != PyArray_TYPE(parameter) || !PyArray_ISBEHAVED(array))
        throw py::type_error(text + " must be a writable array of " + dtype_text(parameter) + "; got one of " +
                             dtype_text(array));
    return py::reinterpret_borrow<py::object>(found);
}

// The arrays that are written to, by where they lie.
class Written {
  public:
    void add(PyArrayObject *array) { extents_.push_back(extent(array)); }
    // Whether they are apart from each other.
    bool sort() {
        std::sort(extents_.begin(), extents_.end());
        for (std::size_t i = 1; i < extents_.size(); ++i)
            if (extents_[i][0] < extents_[i - 1][1]) return false;
        return true;
    }
    // Of sorted ones that are apart
    bool overlaps(PyArrayObject *array) const {
        const auto [low, high] = extent(array);
        auto next = std::partition_point(extents_.begin(), extents_.end(),
                                         [low = low](const auto &other) { return other[1] <= low; });
        return next != extents_.end() && (*next)[0] < high;
    }

  private:
    std::vector<std::array<const char *, 2>> extents_;
};

// Elements begin .. begin + n - 1, in C order, of an array of any strides, to a buffer or from it.
template <bool ToBuffer, class T> void copy_part(PyArrayObject *array, std::size_t begin, std::size_t n, T *buffer) {
    const int last = PyArray_NDIM(array) - 1;
    char *data = PyArray_BYTES(array);
    auto copy = [&](char *at) {
        if constexpr (ToBuffer)
            std::memcpy(buffer++, at, sizeof(T));
        else
            std::memcpy(at, buffer++, sizeof(T));
    };
    if (last < 0) return copy(data);
    npy_intp place[NPY_MAXDIMS];
    for (int i = last; i >= 0; --i) {
        const std::size_t size = static_cast<std::size_t>(PyArray_DIM(array, i));
        place[i] = static_cast<npy_intp>(begin % size);
        begin /= size;
    }
    while (n > 0) {
        char *at = data;
        for (int i = 0; i <= last; ++i) at += place[i] * PyArray_STRIDE(array, i);
        const npy_intp rest = PyArray_DIM(array, last) - place[last];
        const npy_intp run = std::min<npy_intp>(rest, static_cast<npy_intp>(n)), step = PyArray_STRIDE(array, last);
        for (npy_intp i = 0; i < run; ++i, at += step) copy(at);
        n -= static_cast<std::size_t>(run);
        place[last] = 0;
        for (int i = last - 1; i >= 0 && ++place[i] == PyArray_DIM(array, i); --i) place[i] = 0;
    }
}

// Blocks of one length over many arrays, numbered through.
struct Blocks {
    std::size_t length;
    std::vector<std::size_t> ends; // block number after each array's last

    Blocks(const std::vector<const Item *> &items, std::size_t block_length) : length(block_length) {
        std::size_t end = 0;
        for (const Item *item : items)
            ends.push_back(end += (static_cast<std::size_t>(PyArray_SIZE(item->array(0))) + length - 1) / length);
    }
    std::size_t count() const { return ends.empty() ? 0 : ends.back(); }
    // f(array, first element, elements) of a block, or of so many as lie in its array; returns how many
    template <class F>
    std::size_t visit(const std::vector<const Item *> &items, std::size_t block, std::size_t most, F f) const {
        const std::size_t i =
            static_cast<std::size_t>(std::upper_bound(ends.begin(), ends.end(), block) - ends.begin());
        const std::size_t begin = (block - (i > 0 ? ends[i - 1] : 0)) * length;
        const std::size_t size = static_cast<std::size_t>(PyArray_SIZE(items[i]->array(0)));
        const std::size_t count = std::min(most, ends[i] - block);
        f(*items[i], begin, std::min(count * length, size - begin));
        return count;
    }
};

// The sums of squares of blocks of the gradients, times factor
template <class T> void square_blocks(const std::vector<const Item *> &items, double *sums, T factor = 1) {
    const Kernels<T> &kernels = active_kernels_of<T>();
    const Blocks blocks(items, sum_block);
    parallel_for(blocks.count(), elementwise_grain / sum_block, [&](std::size_t begin, std::size_t end) {
        for (std::size_t block = begin; block < end; ++block)
            blocks.visit(items, block, 1, [&](const Item &item, std::size_t first, std::size_t n) {
                T buffer[sum_block];
                PyArrayObject *gradient = item.array(1);
                const T *g = static_cast<const T *>(PyArray_DATA(gradient)) + first;
                if (!PyArray_IS_C_CONTIGUOUS(gradient)) copy_part<true>(gradient, first, n, buffer), g = buffer;
                if (factor != 1) kernels.scale(g, factor, buffer, n), g = buffer;
                sums[block] = kernels.sum_of_squares(g, n);
            });
    });
}

template <class T>
void run(std::size_t optimizer, const std::vector<const Item *> &items, const UpdateConstants<double> &given) {
    if (items.empty()) return;
    UpdateConstants<T> constants{{},
                                 given.plain,
                                 given.clips_norm,
                                 given.clips_value,
                                 given.decays,
                                 given.shrinks,
                                 static_cast<T>(given.scale),
                                 static_cast<T>(given.limit),
                                 static_cast<T>(given.decay),
                                 static_cast<T>(given.shrink)};
    std::copy(std::begin(given.value), std::end(given.value), constants.value);
    const std::size_t states = rows[optimizer].states;
    auto kernel = active_kernels_of<T>().update[optimizer];
    // By elements, so that a thread's part of a weight is about its part of the gradient.
    const Blocks elements(items, 1);
    parallel_for(elements.count(), elementwise_grain, [&](std::size_t begin, std::size_t end) {
        while (begin < end)
            begin += elements.visit(items, begin, end - begin, [&](const Item &item, std::size_t first, std::size_t n) {
                T *at[2 + most_states] = {};
                if (item.flat) {
                    for (std::size_t i = 0; i < 2 + states; ++i)
                        at[i] = static_cast<T *>(PyArray_DATA(item.array(i))) + first;
                    kernel(at[0], at[1], at + 2, n, constants);
                    return;
                }
                constexpr std::size_t length = 1024;
                T buffers[2 + most_states][length];
                for (std::size_t i = 0; i < 2 + states; ++i) at[i] = buffers[i];
                for (std::size_t end = first + n; first < end; first += length) {
                    const std::size_t count = std::min(length, end - first);
                    for (std::size_t i = 0; i < 2 + states; ++i)
                        copy_part<true>(item.array(i), first, count, buffers[i]);
                    kernel(at[0], at[1], at + 2, count, constants);
                    for (std::size_t i = 0; i < 2 + states; ++i)
                        if (i != 1) copy_part<false>(item.array(i), first, count, buffers[i]);
                }
            });
    });
}

py::object update(py::object name, py::object params_argument, py::object grads_argument, py::tuple state_dicts,
                  std::uint64_t step, py::tuple hyperparameters, py::object weight_decay, bool decoupled,
                  py::object clip_value, py::object clip_norm) {
    const StandardEnvironment environment; // of constants and converted gradients, too
    const std::size_t optimizer = optimizer_index(name);
    const Row &row = rows[optimizer];
    auto dictionary = [](const char *argument, py::object mapping) {
        if (PyDict_CheckExact(mapping.ptr())) return mapping;
        if (!PyMapping_Check(mapping.ptr()) || !py::hasattr(mapping, "keys"))
            throw py::type_error(std::string("params and grads must be dicts; got a ") +
                                 Py_TYPE(mapping.ptr())->tp_name + " for " + argument);
        py::object copy = owned(PyDict_New());
        if (PyDict_Update(copy.ptr(), mapping.ptr()) < 0) throw py::error_already_set();
        return copy;
    };
    if (state_dicts.size() != row.states) throw py::value_error("states must be as many dicts as the rule has");
    for (py::handle state : state_dicts)
        if (!PyDict_Check(state.ptr()))
            throw py::type_error(std::string("states must be dicts; got a ") + Py_TYPE(state.ptr())->tp_name);
    const py::object params = dictionary("params", params_argument), grads = dictionary("grads", grads_argument);

    double values[most_hyperparameters] = {};
    std::size_t index = 0;
    for (const char *c = row.hyperparameters; *c != 0; ++index) {
        while (*c == ' ' || *c == ',') ++c;
        const char *end = c;
        while (*end != 0 && *end != ',') ++end;
        const std::string hyperparameter(c, end);
        const bool share = hyperparameter != "lr" && hyperparameter != "eps";
        values[index] = number(hyperparameter, hyperparameters[index], share ? 1 : infinity);
        c = end;
    }
    UpdateConstants<double> constants{};
    const double decay = number("weight_decay", weight_decay);
    constants.decays = decay != 0 && !decoupled;
    constants.shrinks = decay != 0 && decoupled;
    constants.decay = decay;
    constants.clips_value = !clip_value.is_none();
    if (constants.clips_value) constants.limit = number("clip_value", clip_value);
    const bool bounded = !clip_norm.is_none();
    const double bound = bounded ? number("clip_norm", clip_norm) : 0;
    row.make(values, step, constants.value);
    constants.shrink = 1 - values[0] * decay;

    std::vector<Item> items;
    items.reserve(static_cast<std::size_t>(PyDict_GET_SIZE(params.ptr())));
    Written written;
    PyObject *key, *parameter;
    for (Py_ssize_t place = 0; PyDict_Next(params.ptr(), &place, &key, &parameter);) {
        check_parameter(key, parameter);
        PyArrayObject *array = reinterpret_cast<PyArrayObject *>(parameter);
        PyObject *gradient = PyDict_GetItemWithError(grads.ptr(), key);
        if (gradient == nullptr && PyErr_Occurred() != nullptr) throw py::error_already_set();
        Item item{key, {py::reinterpret_borrow<py::object>(parameter), gradient_for(key, gradient, array)}, true};
        for (std::size_t i = 0; i < row.states; ++i) item.arrays[2 + i] = state_for(key, state_dicts[i], array);
        bool c = true, fortran = true;
        for (std::size_t i = 0; i < 2 + row.states; ++i) {
            c = c && PyArray_IS_C_CONTIGUOUS(item.array(i)) && PyArray_ISALIGNED(item.array(i));
            fortran = fortran && PyArray_IS_F_CONTIGUOUS(item.array(i)) && PyArray_ISALIGNED(item.array(i));
            if (i != 1) written.add(item.array(i));
        }
        item.flat = c || fortran;
        items.push_back(std::move(item));
    }
    const bool apart = written.sort();
    for (Item &item : items) { // a gradient that is written to meanwhile is read from a copy
        if (apart && !written.overlaps(item.array(1))) continue;
        item.arrays[1] = owned(PyArray_NewCopy(item.array(1), NPY_KEEPORDER));
    }
    for (const Item &item : items)
        for (std::size_t i = 0; i < row.states; ++i)
            if (PyDict_SetItem(py::object(state_dicts[i]).ptr(), item.key, item.arrays[2 + i].ptr()) < 0)
                throw py::error_already_set();

    std::vector<const Item *> single, twice;
    for (const Item &item : items) (PyArray_TYPE(item.array(0)) == NPY_FLOAT ? single : twice).push_back(&item);
    {
        WithoutGil unlocked;
        if (bounded) {
            const std::size_t blocks = Blocks(single, sum_block).count(), others = Blocks(twice, sum_block).count();
            Scratch<double> sums(blocks + others);
            square_blocks<float>(single, sums.get());
            square_blocks<double>(twice, sums.get() + blocks);
            auto total = [&] { return active_kernels().sum(sums.get(), blocks + others); };
            double norm = std::sqrt(total()), factor = 1;
            if (norm == infinity) { // squares beyond float64, next to which those of finite float32 are nothing
                factor = 0x1p-600;
                for (std::size_t i = 0; i < blocks; ++i) sums.get()[i] = sums.get()[i] == infinity ? infinity : 0;
                square_blocks<double>(twice, sums.get() + blocks, factor);
                norm = std::sqrt(total());
            }
            constants.clips_norm = norm > bound * factor; // not for NaN, which stays
            constants.scale = bound / norm * factor;
        }
        constants.plain = !(constants.clips_norm || constants.clips_value || constants.decays || constants.shrinks);
        if (apart) {
            run<float>(optimizer, single, constants);
            run<double>(optimizer, twice, constants);
        } else { // arrays in one place, such as tied weights: one after the other
            for (const Item &item : items)
                if (PyArray_TYPE(item.array(0)) == NPY_FLOAT)
                    run<float>(optimizer, {&item}, constants);
                else
                    run<double>(optimizer, {&item}, constants);
        }
    }
    return py::none();
}

} // namespace

void bind_optimizers(py::module_ &module) {
    py::dict table;
    for (const Row &row : rows) table[row.name] = py::make_tuple(row.states, row.hyperparameters);
    module.attr("OPTIMIZER_TABLE") = table;
    module.def("update", &update, py::arg("optimizer"), py::arg("params"), py::arg("grads"), py::arg("states"),
               py::arg("step"), py::arg("hyperparameters"), py::arg("weight_decay") = 0.0, py::arg("decoupled") = false,
               py::arg("clip_value") = py::none(), py::arg("clip_norm") = py::none(),
               R"(A step of an optimizer, in place, in one pass over memory; pynn.optimizers has the classes.

Parameters
----------
optimizer : str
    A key of `OPTIMIZER_TABLE`.
params, grads : dict of str to ndarray
    The parameters, which are changed, and their gradients.
states : tuple of dict
    As many as the table says; what is missing in them is put there, zeros of the parameter's shape.
step : int
    The number of this step, from 1.
hyperparameters : tuple of float
    As the table names them.
weight_decay : float, optional
    Times the parameter, added to the gradient; decoupled, times the learning rate and taken off the parameter.
clip_value, clip_norm : float, optional
    Bounds of each gradient's magnitude and of the norm of all.
)");
}

} // namespace pynn
