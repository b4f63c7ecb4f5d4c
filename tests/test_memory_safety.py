"""Not a byte beyond the operands: they lie flush with pages that nobody may touch.

Each run is a process of its own, so that a crash is a failure that names its case.
"""

import ctypes
import itertools
import mmap
import signal
import sys
import threading
import tracemalloc
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pytest

import pynn
from functions import FUNCTIONS, results
from pynn import _core

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mprotect as Linux has it")

LIBC = ctypes.CDLL(None)
# order, elements between rows (in column order: columns), step within them
LAYOUTS = {
    "C": ("C", 0, 1),
    "F": ("F", 0, 1),
    "rows apart": ("C", 3, 1),
    "columns apart": ("F", 3, 1),
    "every second": ("C", 1, 2),
    "every third, F": ("F", 2, 3),
}
PLACES = list(itertools.product(LAYOUTS, (False, True)))
# around vectors of 4 to 16 elements, several of them, buffers of 512 and the grain of threads
LENGTHS = [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 129, 257, 511, 513]
LONG = [4097, 17_001]
# around tiles (14 rows, 2 or 3 vectors), chunks and blocks (256, 512) of affine
EDGES = [1, 2, 3, 7, 8, 9, 13, 14, 15, 16, 17, 28, 29, 31, 32, 33, 47, 48, 49, 63, 64, 65, 97]
CHUNKS = [127, 128, 129, 255, 256, 257, 504, 505, 511, 512, 513, 700, 1025]


def shapes(rng):
    """(m, k, n) of affine: one at an edge, all of them, and some at random."""
    for v in EDGES + CHUNKS:
        yield from ((v, 5, 6), (3, v, 19), (4, 7, v), (15, v, 33), (v, 1, 16), (17, 2, v))
    yield from itertools.product((1, 14, 29), (1, 256, 257), (1, 31, 33, 65))
    yield from ((0, 3, 4), (3, 0, 4), (3, 4, 0), (530, 260, 290), (40, 600, 300), (1, 700, 700))
    for _ in range(20):
        yield tuple(int(v) for v in rng.choice(EDGES + CHUNKS, 3))


@lru_cache(200)
def closed_pages(room, number):
    """Memory between two closed pages, one for each operand of a call; to ask for it anew takes longer than most calls."""
    page = mmap.PAGESIZE
    memory = mmap.mmap(-1, room + 2 * page, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    start = np.frombuffer(memory, np.uint8).ctypes.data
    for edge in (start, start + page + room):
        assert LIBC.mprotect(ctypes.c_void_p(edge), ctypes.c_size_t(page), 0) == 0
    return memory


def guarded(a, layout, at_end, number=0):
    """A copy of a between two closed pages: its first element follows one or its last meets one."""
    order, gap, step = LAYOUTS[layout]
    strides, extent = [0] * a.ndim, a.itemsize
    for i in range(a.ndim) if order == "F" else reversed(range(a.ndim)):
        strides[i] = step * a.itemsize
        extent += strides[i] * max(a.shape[i] - 1, 0)
        step = step * max(a.shape[i], 1) + gap
    page = mmap.PAGESIZE
    room = -(-extent // page) * page
    memory = closed_pages(room, number)
    np.ndarray(room, np.uint8, memory, page)[...] = 255  # NaN between the elements
    at = page + (room - extent if at_end else 0)
    view = np.ndarray(a.shape, a.dtype, memory, at, strides)
    view[...] = a
    return view


def elementwise(dtype, rng):
    """(name, call, operands, whether it takes out=), as all that follow."""
    for name, function in FUNCTIONS.items():
        for n in LENGTHS + LONG * ("affine" not in name):
            if n or not name.startswith("softmax"):
                operands = function.arrays(n, dtype, rng)
                yield f"{name}, n = {n}", function.call, operands, bool(function.result)
    for n in LENGTHS[1:]:
        x = rng.standard_normal((3, n, 5)).astype(dtype)
        yield f"softmax along an axis, n = {n}", partial(pynn.softmax, axis=1), [x], True
        yield f"fma, n = {n}", _core.fma, [x, x, x], True
        words = [rng.integers(0, 2**32, (n, i), np.uint32) for i in (4, 2)]
        yield f"philox4x32, n = {n}", _core.philox4x32, words, True


def fills(dtype):
    forms = [((), None), ((), (3,)), ((5,), None), ((5,), (1, 40))]  # axes before n, index_strides
    for n, (lead, strides) in itertools.product(LENGTHS + LONG, forms):
        if lead and n in LONG:
            continue
        for distribution, *parameters in (
            ("normal", 0.25, 1.1),
            ("uniform", 0.25, 1.1),
            ("truncated_normal", 0.25, 1.1, -1.0, 9.0),
        ):

            def fill(
                out=None,
                shape=(*lead, n),
                strides=strides,
                distribution=distribution,
                parameters=parameters,
            ):
                out = np.empty(shape, dtype) if out is None else out
                _core.fill(out, distribution, 1, *parameters, start=77, index_strides=strides)
                return out

            yield f"{distribution}, {(*lead, n)}, index_strides = {strides}", fill, [], True


def products(dtype, rng, most):
    activations = itertools.cycle([None, *pynn.ACTIVATIONS])
    for m, k, n in shapes(rng):
        if m * k * n > most:
            continue
        name = next(activations)
        x, w, b, dy = (
            rng.standard_normal(shape).astype(dtype) for shape in ((m, k), (k, n), (n,), (m, n))
        )
        forward = partial(pynn.affine, activation=name)
        y = forward(x, w, b)
        yield f"affine, {m, k, n}, {name}", forward, [x, w, b], True
        if name and pynn.ACTIVATIONS[name].saves == "x":
            continue
        backward = partial(pynn.affine_backward, activation=name)
        yield f"affine_backward, {m, k, n}, {name}", backward, [dy, x, w, y], False


def check(isa, dtype):
    """Each call with its operands at either end, a line before it; run in a process of its own."""
    pynn.use_isa(isa)
    rng = np.random.default_rng(11)
    most = 10**5 if isa == "portable" else 5 * 10**7
    cases = elementwise(dtype, rng), fills(dtype), products(dtype, rng, most)
    for name, call, operands, takes_out in itertools.chain(*cases):
        want = results(call(*operands))
        count = len(operands) + takes_out
        small = sum(a.size for a in (*operands, *want)) < 1000
        places = [[place] * count for place in PLACES] if small else []
        places.append([PLACES[i] for i in rng.integers(0, len(PLACES), count)])
        for row in places:
            pynn.set_num_threads(int(rng.choice([1, 2, 5])))
            print(name, *row, flush=True)
            given = [guarded(a, *place, i) for i, (a, place) in enumerate(zip(operands, row))]
            if takes_out:
                out = guarded(np.zeros_like(want[0]), *row[-1], len(given))
                call(*given, out=out)
            got = [out] if takes_out else results(call(*given))
            for one, other in zip((*got, *given), (*want, *operands), strict=True):
                assert np.array_equal(one, other, equal_nan=True)


def run_here(run, code):
    """Run code with the names of this module in a fresh process."""
    folder = str(Path(__file__).parent)
    first = f"import sys; sys.path.insert(0, {folder!r}); from test_memory_safety import *; "
    return run("-X", "faulthandler", "-c", first + code)


def test_within_the_operands(isa, dtype, run):
    """Every kernel, read and write, before the first element and after the last."""
    result = run_here(run, f"check({isa!r}, np.{dtype.__name__})")
    last = result.stdout.splitlines()[-1:]
    assert result.returncode == 0, f"{result.returncode} at {last}:\n{result.stderr}"


@pytest.mark.parametrize("at_end", [False, True])
def test_the_pages_are_closed(at_end, run):
    """The test above can fail: one element further is a crash."""
    code = f"x = guarded(np.ones(5), 'C', {at_end}); print(x.sum(), flush=True); y = "
    code += f"np.lib.stride_tricks.as_strided(x[{-1 if at_end else 0}:], (2,), ({8 if at_end else -8},))"
    result = run_here(run, code + "; y.sum()")
    assert result.stdout == "5.0\n" and result.returncode == -signal.SIGSEGV


def test_large_results_are_ordinary_arrays(rng):
    """Their memory is pynn's, aligned and used again; they own it, and can be resized, pickled and outlive everything."""
    x, w = rng.standard_normal((300, 200), np.float32), rng.standard_normal((200, 300), np.float32)
    y = pynn.affine(x, w)
    want = y.copy()
    assert y.flags.owndata and y.ctypes.data % 64 == 0
    others = [pynn.affine(x, w) for _ in range(40)]
    assert len({a.ctypes.data for a in (y, *others)}) == 41
    del others
    for rows in (700, 10, 300):
        y.resize((rows, 300), refcheck=False)
        assert np.array_equal(y[:10], want[:10])
    arrays = [pynn.affine(x, w) for _ in range(3)]
    thread = threading.Thread(target=arrays.clear)  # freed by a thread that ends
    thread.start()
    thread.join()
    assert np.array_equal(pynn.affine(x, w), want)
    assert np.zeros(100_000).flags.owndata  # NumPy's own handler is in force again
    assert np._core.multiarray.get_handler_name() == "default_allocator"


def test_results_of_ufuncs_lie_in_reused_memory(rng):
    """Large ones, however they are called; the caller's memory handler is in force again, after an error too."""
    handler = np._core.multiarray.get_handler_name
    x, w = rng.standard_normal((100, 1000), np.float32), np.empty(3)
    calls = {
        "relu": lambda: pynn.relu(x),
        "softmax": lambda: pynn.softmax(x, axis=0),
        "slope": lambda: pynn.leaky_relu(x, slope=0.3),
        "integers": lambda: pynn.gelu(np.ones((100, 1000), np.int32)),
    }
    for name, call in calls.items():
        assert handler(call()) == "pynn", name
        assert handler() == "default_allocator", name
    assert handler(pynn.relu(x[:1])) == handler(pynn.relu(x, out=x.copy())) == "default_allocator"
    for bad in (lambda: pynn.relu(x, axis=w), lambda: pynn.softmax(x, axis=5)):
        with pytest.raises((TypeError, ValueError)):
            bad()
        assert handler() == "default_allocator"


class Tracing(np.ndarray):
    """An array whose ufuncs run the caller's code."""

    def __array_ufunc__(self, ufunc, method, *operands, **others):
        self.seen = np._core.multiarray.get_handler_name(np.empty(100_000))
        plain = [np.asarray(a) for a in operands]
        return getattr(ufunc, method)(*plain, **others)


def test_code_of_the_caller_keeps_its_memory(rng):
    """What runs within a call has NumPy's handler: another class's __array_ufunc__, an operand or where."""
    x = rng.standard_normal(100_000).view(Tracing)
    plain = np.asarray(x)
    for call in (
        lambda: pynn.relu(x),
        lambda: pynn.tanh_backward(plain, x),
        lambda: pynn.elu(plain, alpha=x),
    ):
        call()
        assert x.seen == "default_allocator"
        del x.seen
    masked = pynn.relu(np.ma.array(plain, mask=plain < 0))
    assert np.array_equal(masked.compressed(), plain[plain >= 0])


def test_the_callers_memory_handler_is_kept(python):
    """Who has set one of NumPy's memory handlers gets results there, of every function."""
    code = """
import ctypes, numpy as np, pynn
api = ctypes.pythonapi.PyCapsule_GetPointer
api.restype, api.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
table = ctypes.cast(api(np._core._multiarray_umath._ARRAY_API, None), ctypes.POINTER(ctypes.c_void_p))
set_handler = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(table[304])
default = ctypes.cast(table[306], ctypes.POINTER(ctypes.py_object))[0]
own = ctypes.create_string_buffer(ctypes.string_at(api(default, b"mem_handler"), 168), 168)
own[:5] = b"mine\\0"
make = ctypes.pythonapi.PyCapsule_New
make.restype, make.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
set_handler(make(ctypes.addressof(own), b"mem_handler", None))
name = np._core.multiarray.get_handler_name
x = np.ones((400, 400))
print(name(x), name(pynn.relu(x)), name(pynn.affine(x, x)), name(pynn.softmax(x)), name())
set_handler(default)
print(name(pynn.relu(x)), name())
"""
    assert python(code).split("\n") == ["mine mine mine mine mine", "pynn default_allocator"]


def test_tracemalloc_sees_results_in_reused_memory(rng):
    x = rng.standard_normal(100_000)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        y = pynn.relu(x)
        assert abs(tracemalloc.get_traced_memory()[0] - before - y.nbytes) < 10_000
        del y
        assert tracemalloc.get_traced_memory()[0] - before < 10_000
    finally:
        tracemalloc.stop()
