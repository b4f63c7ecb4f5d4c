// fill and philox4x32. fill checks its operands, drops the GIL and hands tiles of the output to the kernels, by way of
// a small buffer where memory or stream are not consecutive.
#include "bindings/bindings.hpp"
#include "bindings/distribution_rows.hpp"

#include <numpy/random/bitgen.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <optional>
#include <vector>

#include "dispatch.hpp"
#include "distributions.hpp"
#include "parallel.hpp"
#include "simd/environment.hpp"

namespace pynn {
namespace {

constexpr std::size_t run_length = 1 << 13; // elements of a tile that needs no buffer
constexpr std::size_t row_length = 128;     // of the buffer
constexpr std::size_t buffer_rows = 64;     // so that whole cache lines are written at a time
constexpr std::uint64_t sparse = 32;        // larger steps in the stream: draw one by one

std::vector<std::string> names_of(const DistributionRow &row) {
    std::vector<std::string> names(1);
    for (const char *c = row.parameters; *c != 0; ++c) {
        if (*c == ',')
            names.emplace_back();
        else if (*c != ' ')
            names.back() += *c;
    }
    return names;
}

std::size_t distribution_index(py::handle name) {
    std::string known;
    for (std::size_t i = 0; i < distribution_count; ++i) {
        if (PyUnicode_Check(name.ptr()) && PyUnicode_CompareWithASCIIString(name.ptr(), distribution_rows[i].name) == 0)
            return i;
        known += (i > 0 ? ", '" : "'") + std::string(distribution_rows[i].name) + "'";
    }
    const std::string message = "distribution is " + text_of(py::repr(name)) + "; expected one of " + known;
    if (!PyUnicode_Check(name.ptr())) throw py::type_error(message);
    throw py::value_error(message);
}

std::uint64_t whole_number(const std::string &name, py::handle object) {
    if (!PyIndex_Check(object.ptr()))
        throw py::type_error(name + " is a " + Py_TYPE(object.ptr())->tp_name + "; expected a whole number");
    const unsigned long long value = PyLong_AsUnsignedLongLong(owned(PyNumber_Index(object.ptr())).ptr());
    if (PyErr_Occurred() == nullptr) return value;
    if (!PyErr_ExceptionMatches(PyExc_OverflowError)) throw py::error_already_set();
    PyErr_Clear();
    throw py::value_error(name + " is " + text_of(object) + "; expected a whole number from 0 to 2**64 - 1");
}

// Parameter i of a row; its name is looked up when something is wrong with it.
double real_number(const DistributionRow &row, std::size_t i, py::handle object) {
    const double value = PyFloat_AsDouble(object.ptr());
    if (PyErr_Occurred() == nullptr) return value;
    if (PyErr_ExceptionMatches(PyExc_OverflowError)) { // an int that no double holds
        PyErr_Clear();
        return std::numeric_limits<double>::infinity();
    }
    if (!PyErr_ExceptionMatches(PyExc_TypeError)) throw py::error_already_set();
    PyErr_Clear();
    throw py::type_error(names_of(row)[i] + " is " + text_of(py::repr(object)) + "; expected a real number");
}

struct Axis {
    std::size_t size;
    npy_intp step;            // between neighbours in memory, bytes
    std::uint64_t index_step; // in the stream
};

// The axes of out that are longer than 1; none of them may lead to an element twice.
std::vector<Axis> axes_of(py::handle out, std::uint64_t start, py::handle index_strides) {
    PyArrayObject *array = as_array(out);
    const int dimensions = PyArray_NDIM(array);
    std::optional<py::object> given;
    if (!index_strides.is_none()) {
        if (!PySequence_Check(index_strides.ptr()))
            throw py::type_error("index_strides is " + text_of(py::repr(index_strides)) +
                                 "; expected a sequence of whole numbers");
        given = owned(PySequence_Tuple(index_strides.ptr()));
        if (PyTuple_GET_SIZE(given->ptr()) != dimensions)
            throw py::value_error("index_strides has length " + std::to_string(PyTuple_GET_SIZE(given->ptr())) +
                                  "; expected one for each axis of out, which has shape " + shape_text(array));
    }
    std::vector<Axis> axes;
    std::uint64_t step = 1, last = start;
    bool beyond = false;
    for (int i = dimensions - 1; i >= 0; --i) {
        const std::size_t size = static_cast<std::size_t>(PyArray_DIM(array, i));
        if (given) step = whole_number("index_strides[" + std::to_string(i) + "]", PyTuple_GET_ITEM(given->ptr(), i));
        if (size > 1) {
            std::uint64_t reach;
            beyond |= __builtin_mul_overflow(size - 1, step, &reach) || __builtin_add_overflow(last, reach, &last);
            axes.push_back({size, PyArray_STRIDE(array, i), step});
        }
        if (!given) step *= size;
    }
    if (PyArray_SIZE(array) == 0) return {};
    if (beyond) throw py::value_error("start and index_strides lead beyond the stream's last index, 2**64 - 1");
    std::sort(axes.begin(), axes.end(),
              [](const Axis &a, const Axis &b) { return std::abs(a.step) < std::abs(b.step); });
    npy_intp reach = PyArray_ITEMSIZE(array);
    for (const Axis &axis : axes) {
        if (std::abs(axis.step) < reach)
            throw py::value_error("out has elements that share memory; expected one place for each element");
        reach += static_cast<npy_intp>(axis.size - 1) * std::abs(axis.step);
    }
    return axes;
}

// A tile spans `tile` elements of each axis; the first two axes may have more than 1.
struct TiledAxis : Axis {
    std::size_t tile;
    std::size_t tiles() const { return (size + tile - 1) / tile; }
};

bool consecutive(const Axis &axis, npy_intp item_size) { return axis.step == item_size && axis.index_step == 1; }

// The axes by their step in the stream, the smallest first, so that the stream is generated in runs. If those runs are
// none in memory, the axis that is nearest to that comes second.
std::vector<TiledAxis> tiled(std::vector<Axis> axes, npy_intp item_size) {
    std::stable_sort(axes.begin(), axes.end(), [](const Axis &a, const Axis &b) {
        return a.index_step - 1 < b.index_step - 1; // 0, which repeats values, comes last
    });
    std::vector<TiledAxis> merged;
    for (const Axis &axis : axes) {
        if (!merged.empty()) {
            TiledAxis &inner = merged.back();
            if (axis.step == inner.step * static_cast<npy_intp>(inner.size) &&
                axis.index_step == inner.index_step * inner.size) {
                inner.size *= axis.size;
                continue;
            }
        }
        merged.push_back({axis, 1});
    }
    while (merged.size() < 2) merged.push_back({{1, item_size, 1}, 1});
    if (consecutive(merged[0], item_size)) {
        merged[0].tile = run_length;
    } else {
        if (merged[0].index_step - 1 < sparse) merged[0].tile = row_length / merged[0].index_step;
        std::iter_swap(merged.begin() + 1,
                       std::min_element(merged.begin() + 1, merged.end(), [](const Axis &a, const Axis &b) {
                           return std::abs(a.step) < std::abs(b.step);
                       }));
        merged[1].tile = buffer_rows;
    }
    for (TiledAxis &axis : merged) axis.tile = std::min(axis.tile, axis.size);
    return merged;
}

// T is what is drawn, Out what is written: the same, or 16 bits of a float rounded.
template <class T, class Out>
using FillKernel = void (*)(Out *, std::uint64_t, std::uint64_t, std::size_t, const Constants<T> &);

template <class T, class Out> struct Filling {
    FillKernel<T, Out> kernel;
    char *data;
    std::vector<TiledAxis> axes;
    std::uint64_t key, start;
    Constants<T> constants;

    void operator()(std::size_t begin_tile, std::size_t end_tile) const {
        for (std::size_t tile = begin_tile; tile < end_tile; ++tile) {
            char *to = data;
            std::uint64_t index = start;
            std::size_t rest = tile, counts[2];
            for (std::size_t i = 0; i < axes.size(); ++i) {
                const TiledAxis &axis = axes[i];
                const std::size_t at = rest % axis.tiles() * axis.tile;
                rest /= axis.tiles();
                to += static_cast<npy_intp>(at) * axis.step;
                index += at * axis.index_step;
                if (i < 2) counts[i] = std::min(axis.tile, axis.size - at);
            }
            if (consecutive(axes[0], sizeof(Out)))
                kernel(reinterpret_cast<Out *>(to), key, index, counts[0], constants);
            else
                by_way_of_buffer(to, index, counts[0], counts[1]);
        }
    }

  private:
    void by_way_of_buffer(char *to, std::uint64_t index, std::size_t columns, std::size_t rows) const {
        Out buffer[buffer_rows * row_length];
        const std::uint64_t step = axes[0].index_step;
        for (std::size_t row = 0; row < rows; ++row, index += axes[1].index_step)
            kernel(buffer + row * row_length, key, index, (columns - 1) * step + 1, constants);
        for (std::size_t column = 0; column < columns; ++column, to += axes[0].step) {
            const Out *from = buffer + column * step;
            char *place = to;
            for (std::size_t row = 0; row < rows; ++row, from += row_length, place += axes[1].step)
                *reinterpret_cast<Out *>(place) = *from;
        }
    }
};

template <class T, class Out>
void fill_array(const FillKernel<T, Out> *kernels, py::handle out, std::size_t distribution, std::uint64_t key,
                const py::args &given, std::uint64_t start, py::handle index_strides) {
    const DistributionRow &row = distribution_rows[distribution];
    if (given.size() != row.count)
        throw py::type_error(std::string(row.name) + " has the parameters " + row.parameters + "; got " +
                             std::to_string(given.size()));
    T parameters[most_parameters];
    Constants<T> constants;
    bool allowed;
    {
        StandardEnvironment environment; // the caller's rounding mode does not reach the parameters either
        for (std::size_t i = 0; i < row.count; ++i) parameters[i] = static_cast<T>(real_number(row, i, given[i]));
        allowed = row.rules<T>().allowed(parameters);
        if (allowed) constants = row.rules<T>().make(parameters, row.count);
    }
    if (!allowed) {
        std::string got;
        const std::vector<std::string> names = names_of(row);
        for (std::size_t i = 0; i < row.count; ++i) got += (i > 0 ? ", " : "") + names[i] + " is " + text_of(given[i]);
        throw py::value_error(got + "; expected " + (sizeof(T) == 4 ? "float32" : "float64") + " numbers with " +
                              row.words);
    }
    const std::vector<Axis> axes = axes_of(out, start, index_strides);
    if (PyArray_SIZE(as_array(out)) == 0) return;
    const Filling<T, Out> filling{
        kernels[distribution], PyArray_BYTES(as_array(out)), tiled(axes, sizeof(Out)), key, start, constants};
    std::size_t tiles = 1;
    for (const TiledAxis &axis : filling.axes) tiles *= axis.tiles();
    const std::size_t tile_size = filling.axes[0].tile * filling.axes[1].tile;
    const std::size_t grain = std::max<std::size_t>(1, run_length / tile_size);
    Patience patience;
    {
        WithoutGil unlocked;
        parallel_for_slots(tiles, grain, thread_count(), [&](std::size_t begin, std::size_t end, int slot) {
            for (; begin < end && !patience.over(); begin += grain) {
                filling(begin, std::min(begin + grain, end));
                patience.ask(slot);
            }
        });
    }
    patience.end();
}

void fill(py::object out, py::object distribution, py::object key, py::args parameters, py::object start,
          py::object index_strides) {
    if (!PyArray_Check(out.ptr()))
        throw py::type_error(std::string("out is a ") + Py_TYPE(out.ptr())->tp_name + "; expected a NumPy array");
    PyArrayObject *array = as_array(out);
    const int type = PyArray_TYPE(array);
    if ((type != NPY_FLOAT && type != NPY_DOUBLE && type != NPY_HALF && type != NPY_UINT16) ||
        !PyArray_ISNOTSWAPPED(array))
        throw py::type_error("out has dtype " + dtype_text(array) +
                             "; expected float32, float64, float16 or uint16 (for bfloat16) in native byte order");
    if (!PyArray_ISALIGNED(array)) throw py::value_error("out is misaligned; expected an aligned array");
    if (!PyArray_ISWRITEABLE(array)) throw py::value_error("out is read-only; expected a writeable array");
    const std::size_t index = distribution_index(distribution);
    const std::uint64_t stream = whole_number("key", key), first = whole_number("start", start);
    const KernelTable &table = active_kernels();
    auto fill_by = [&](const auto &kernels) {
        fill_array(&kernels[0], out, index, stream, parameters, first, index_strides);
    };
    if (type == NPY_FLOAT)
        fill_by(table.float32.fill);
    else if (type == NPY_DOUBLE)
        fill_by(table.float64.fill);
    else
        fill_by(type == NPY_HALF ? table.fill_float16 : table.fill_bfloat16);
}

struct PhiloxBlock {
    std::uint32_t word[4];
};

// Philox4x32-10 of Salmon, Moraes, Dror and Shaw (2011), one counter at a time.
PhiloxBlock philox(PhiloxBlock c, std::uint32_t k0, std::uint32_t k1) {
    for (int round = 0; round < 10; ++round) {
        const std::uint64_t p0 = std::uint64_t(0xD2511F53) * c.word[0], p1 = std::uint64_t(0xCD9E8D57) * c.word[2];
        c = {{static_cast<std::uint32_t>(p1 >> 32) ^ c.word[1] ^ k0, static_cast<std::uint32_t>(p1),
              static_cast<std::uint32_t>(p0 >> 32) ^ c.word[3] ^ k1, static_cast<std::uint32_t>(p0)}};
        k0 += 0x9E3779B9;
        k1 += 0xBB67AE85;
    }
    return c;
}

void philox_loop(char **operands, const npy_intp *dimensions, const npy_intp *steps, void *) {
    for (npy_intp i = 0; i < dimensions[0]; ++i) {
        auto operand = [&](int j, int word) -> std::uint32_t & {
            return *reinterpret_cast<std::uint32_t *>(operands[j] + i * steps[j] + word * steps[3 + j]);
        };
        const PhiloxBlock block =
            philox({{operand(0, 0), operand(0, 1), operand(0, 2), operand(0, 3)}}, operand(1, 0), operand(1, 1));
        for (int word = 0; word < 4; ++word) operand(2, word) = block.word[word];
    }
}
PyUFuncGenericFunction philox_loops[] = {philox_loop};
constexpr char philox_types[] = {NPY_UINT32, NPY_UINT32, NPY_UINT32};
void *philox_data[] = {nullptr};

const char *const philox_documentation = R"(The counter-based generator Philox4x32 with ten rounds.

Parameters
----------
counter : array_like of uint32, shape (..., 4)
    Word 0 is the lowest.
key : array_like of uint32, shape (..., 2)
    Broadcasts against `counter`, the last axis aside.
out, axes, ... : optional
    As for every generalized NumPy ufunc.

Returns
-------
ndarray of uint32, shape (..., 4)
    The block of random bits of each counter.

Notes
-----
Source: Salmon, Moraes, Dror and Shaw (2011), Parallel random numbers: as easy as 1, 2, 3. The words are those of the
library Random123; numpy.random.Philox is the 64-bit Philox4x64.

Examples
--------
>>> import numpy as np, pynn
>>> pynn.random.philox4x32(np.zeros(4, np.uint32), np.zeros(2, np.uint32))
array([1713891541, 3781805453, 3159862348, 2600524760], dtype=uint32)
)";

const char *const fill_documentation = R"(Fill an array with elements of a random stream.

Element i of a stream is a function of the key, the distribution with its parameters, the dtype and i: never of the
shape, the threads, the instruction set or what else is drawn.

Parameters
----------
out : ndarray of float32, float64, float16 or uint16
    Written in place; any strides, native byte order, aligned, no two elements in one place. float16, and uint16 as the
    bits of bfloat16, get the float32 element rounded once, to nearest, ties to even.
distribution : str
    "normal", "uniform" or "truncated_normal".
key : int
    The stream, 0 to 2**64 - 1.
*parameters : float
    normal: loc and scale, the mean and the standard deviation, which is not negative. uniform: low and high, a
    half-open range, low < high. truncated_normal: loc, scale, lower and upper, the last two in
    standard deviations from loc.
start : int, default 0
    Index of the element that goes to out[0, ..., 0].
index_strides : sequence of int, optional
    By how much the index grows along each axis of `out`; none may be negative. The default is that of C order.

Raises
------
TypeError
    If `out` is no ndarray of those dtypes, a number is no number, or there are too many or too few parameters.
ValueError
    If `out` is read-only, misaligned or overlaps itself, or another argument is out of range.

Notes
-----
A call that lasts answers Ctrl-C; `out` is then filled in part.
)";

// What stands behind pynn.random.Philox4x32: a counter, the words of the block before it, how many of those are taken,
// and the upper half of a 64-bit number that NumPy asked a half of.
class PhiloxState {
  public:
    PhiloxState(py::capsule capsule, py::object key, py::object counter) {
        auto *functions = static_cast<bitgen_t *>(PyCapsule_GetPointer(capsule.ptr(), "BitGenerator"));
        if (functions == nullptr) throw py::error_already_set();
        set(key, counter, 4, false, 0);
        functions->state = this;
        functions->next_uint64 = [](void *state) { return static_cast<PhiloxState *>(state)->next64(); };
        functions->next_uint32 = [](void *state) { return static_cast<PhiloxState *>(state)->next32(); };
        functions->next_double = [](void *state) {
            return static_cast<double>(static_cast<PhiloxState *>(state)->next64() >> 11) * 0x1p-53;
        };
        functions->next_raw = functions->next_uint64;
    }
    PhiloxState(const PhiloxState &) = delete;
    PhiloxState &operator=(const PhiloxState &) = delete;

    py::tuple get() const {
        const py::int_ low(counter_[0]), high(counter_[1]);
        return py::make_tuple(key_, (high << py::int_(64)) | low, taken_, has_half_, half_);
    }
    void set(py::object key, py::object counter, unsigned taken, bool has_half, std::uint32_t half) {
        if (!PyIndex_Check(counter.ptr()))
            throw py::type_error("counter is " + text_of(py::repr(counter)) + "; expected a whole number");
        if (taken > 4) throw py::value_error("taken is " + std::to_string(taken) + "; expected 0 to 4");
        const std::uint64_t new_key = whole_number("key", key);
        const std::uint64_t high = whole_number("counter // 2**64", counter >> py::int_(64));
        counter_[0] = whole_number("counter", counter & py::int_(~std::uint64_t(0)));
        counter_[1] = high;
        key_ = new_key;
        taken_ = taken;
        has_half_ = has_half;
        half_ = half;
        if (taken < 4) block_ = block(counter_[0] - 1, counter_[1] - (counter_[0] == 0));
    }

  private:
    PhiloxBlock block(std::uint64_t low, std::uint64_t high) const {
        return philox({{static_cast<std::uint32_t>(low), static_cast<std::uint32_t>(low >> 32),
                        static_cast<std::uint32_t>(high), static_cast<std::uint32_t>(high >> 32)}},
                      static_cast<std::uint32_t>(key_), static_cast<std::uint32_t>(key_ >> 32));
    }
    std::uint64_t next64() {
        if (taken_ > 2) {
            block_ = block(counter_[0], counter_[1]);
            counter_[1] += ++counter_[0] == 0;
            taken_ = 0;
        }
        const std::uint64_t value = block_.word[taken_] | std::uint64_t(block_.word[taken_ + 1]) << 32;
        taken_ += 2;
        return value;
    }
    std::uint32_t next32() {
        if (has_half_) {
            has_half_ = false;
            return half_;
        }
        const std::uint64_t value = next64();
        has_half_ = true;
        half_ = static_cast<std::uint32_t>(value >> 32);
        return static_cast<std::uint32_t>(value);
    }

    std::uint64_t key_ = 0, counter_[2] = {};
    PhiloxBlock block_ = {};
    unsigned taken_ = 4;
    bool has_half_ = false;
    std::uint32_t half_ = 0;
};

// numpy.random.SeedSequence(seed).generate_state(1, uint64)[0], after M. E. O'Neill, "Developing a seed_seq alternative"
// (2015): the seed's two words and two zeros are hashed into a pool, each word of that mixed into every other, and the
// state is hashed from the pool.
std::uint64_t seed_key(std::uint64_t seed) {
    struct Hash {
        std::uint32_t constant, multiplier;
        std::uint32_t operator()(std::uint32_t word) {
            word ^= constant;
            constant *= multiplier;
            word *= constant;
            return word ^ word >> 16;
        }
    };
    Hash into{0x43b0d7e5, 0x931e8875}, out{0x8b51f9dd, 0x58f38ded};
    std::uint32_t pool[4] = {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32), 0, 0};
    for (std::uint32_t &word : pool) word = into(word);
    for (int from = 0; from < 4; ++from)
        for (int to = 0; to < 4; ++to)
            if (from != to) {
                const std::uint32_t mixed = 0xca01f9dd * pool[to] - 0x4973f715 * into(pool[from]);
                pool[to] = mixed ^ mixed >> 16;
            }
    const std::uint64_t low = out(pool[0]), high = out(pool[1]);
    return low | high << 32;
}

// The next 64 bits of a NumPy BitGenerator, whose lock the caller holds.
std::uint64_t next_bits(py::capsule capsule) {
    auto *generator = static_cast<bitgen_t *>(PyCapsule_GetPointer(capsule.ptr(), "BitGenerator"));
    if (generator == nullptr) throw py::error_already_set();
    return generator->next_uint64(generator->state);
}

} // namespace

void bind_random(py::module_ &module) {
    py::class_<PhiloxState>(module, "PhiloxState", "The state of a pynn.random.Philox4x32.")
        .def(py::init<py::capsule, py::object, py::object>(), py::arg("capsule"), py::arg("key"), py::arg("counter"))
        .def("get", &PhiloxState::get)
        .def("set", &PhiloxState::set, py::arg("key"), py::arg("counter"), py::arg("taken"), py::arg("has_half"),
             py::arg("half"));
    module.def("fill", &fill, py::arg("out"), py::arg("distribution"), py::arg("key"), py::arg("start") = 0,
               py::arg("index_strides") = py::none(), fill_documentation);
    module.def("seed_key", &seed_key, py::arg("seed"), "The key of a seed from 0 to 2**64 - 1.");
    module.def("next_bits", &next_bits, py::arg("capsule"), "The next 64 bits of a BitGenerator whose lock is held.");
    module.attr("philox4x32") =
        owned(PyUFunc_FromFuncAndDataAndSignature(philox_loops, philox_data, philox_types, 1, 2, 1, PyUFunc_None,
                                                  "philox4x32", philox_documentation, 0, "(4),(2)->(4)"));
}

} // namespace pynn
