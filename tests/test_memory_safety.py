"""Not a byte beyond the operands: they lie flush with pages that nobody may touch.

Each run is a process of its own, so that a crash is a failure that names its case.
"""

import ctypes
import itertools
import mmap
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

import oracles
import pynn
from functions import FUNCTIONS, results
from pynn import _core

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mprotect as Linux has it")

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
LONG = [4097, 33_001]
# around tiles (14 rows, 2 or 3 vectors), chunks and blocks (256, 512) of affine
EDGES = [1, 2, 3, 7, 8, 9, 13, 14, 15, 16, 17, 28, 29, 31, 32, 33, 47, 48, 49, 63, 64, 65, 97]
CHUNKS = [127, 128, 129, 255, 256, 257, 504, 505, 511, 512, 513, 700, 1025]


def shapes(rng):
    """(m, k, n) of affine: one at an edge, all of them, and some at random."""
    for v in EDGES + CHUNKS:
        yield from ((v, 5, 6), (3, v, 19), (4, 7, v), (15, v, 33), (v, 1, 16), (17, 2, v))
    yield from itertools.product((1, 14, 29), (1, 256, 257), (1, 31, 33, 65))
    yield from ((0, 3, 4), (3, 0, 4), (3, 4, 0), (530, 260, 290), (40, 600, 300), (1, 700, 700))
    for _ in range(60):
        yield tuple(int(v) for v in rng.choice(EDGES + CHUNKS, 3))


def guarded(a, layout, at_end):
    """A copy of a between two closed pages: its first element follows one or its last meets one."""
    order, gap, step = LAYOUTS[layout]
    strides, extent = [0] * a.ndim, a.itemsize
    for i in range(a.ndim) if order == "F" else reversed(range(a.ndim)):
        strides[i] = step * a.itemsize
        extent += strides[i] * max(a.shape[i] - 1, 0)
        step = step * max(a.shape[i], 1) + gap
    page = mmap.PAGESIZE
    room = -(-extent // page) * page
    memory = mmap.mmap(-1, room + 2 * page, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    start, libc = np.frombuffer(memory, np.uint8).ctypes.data, ctypes.CDLL(None)
    for edge in (start, start + page + room):
        assert libc.mprotect(ctypes.c_void_p(edge), ctypes.c_size_t(page), 0) == 0
    np.ndarray(room // a.itemsize, a.dtype, memory, page)[...] = -1  # NaN where it is a float
    if a.dtype.kind == "f":
        np.ndarray(room // a.itemsize, a.dtype, memory, page)[...] = np.nan
    at = page + (room - extent if at_end else 0)
    view = np.ndarray(a.shape, a.dtype, memory, at, strides)
    view[...] = a
    return view


def calls(dtype, rng, most):
    """(name, call, operands, whether it takes out=), products of at most so many terms."""
    for name, function in FUNCTIONS.items():
        for n in LENGTHS + LONG * ("affine" not in name):
            if n or not name.startswith("softmax"):
                operands = function.arrays(n, dtype, rng)
                yield f"{name}, n = {n}", function.call, operands, bool(function.result)
    for n in LENGTHS[1:]:
        x = rng.standard_normal((3, n, 5)).astype(dtype)
        yield f"softmax along an axis, n = {n}", lambda x: pynn.softmax(x, axis=1), [x], False
        yield f"fma, n = {n}", _core.fma, [x, x, x], True
    activations = itertools.cycle([None, *pynn.ACTIVATIONS])
    for m, k, n in shapes(rng):
        if m * k * n > most:
            continue
        activation = next(activations)
        size = (m, k), (k, n), (n,), (m, n)
        x, w, b, dy = (rng.standard_normal(s).astype(dtype) for s in size)

        def forward(x, w, b, out=None, activation=activation):
            return pynn.affine(x, w, b, activation=activation, out=out)

        def backward(dy, x, w, y, activation=activation):
            return pynn.affine_backward(dy, x, w, y, activation=activation)

        note = f"m, k, n = {m, k, n}, {activation}"
        yield f"affine, {note}", forward, [x, w, b], True
        y = pynn.affine(x, w, b, activation=activation)
        yield f"affine_backward, {note}", backward, [dy, x, w, y], False


def check(dtype, most):
    """Every call with operands at either end; a line for each before it runs."""
    rng = np.random.default_rng(11)
    for note, call, operands, takes_out in calls(dtype, rng, most):
        want = results(call(*operands))
        count = len(operands) + takes_out
        alike = [(place,) * count for place in PLACES]
        mixed = [[PLACES[i] for i in rng.integers(0, len(PLACES), count)] for _ in range(3)]
        large = sum(a.size for a in operands) > 2000
        for places in mixed if "m, k, n" in note or large else alike + mixed:
            pynn.set_num_threads(int(rng.choice([1, 2, 5])))
            print(note, *places, flush=True)
            given = [guarded(a, *place) for a, place in zip(operands, places, strict=False)]
            if takes_out:
                got = [guarded(want[0], *places[-1])]
                got[0][...] = 7
                call(*given, out=got[0])
            else:
                got = results(call(*given))
            for one, other in zip(got, want, strict=True):
                oracles.assert_same_bits(one, other, note)
            for one, other in zip(given, operands, strict=True):
                oracles.assert_same_bits(one, other, f"{note}: an input was written to")
    for n, place in itertools.product(LENGTHS + LONG, PLACES):
        print("fill, n =", n, place, flush=True)
        for distribution, size in (("normal", (n,)), ("uniform", (n,)), ("normal", (5, n))):
            out, plain = guarded(np.full(size, 7, dtype), *place), np.empty(size, dtype)
            for strides in (None, tuple(range(3, 3 + len(size)))):
                for a in (out, plain):
                    _core.fill(a, distribution, 1, 0.25, 1.1, n, strides)
                oracles.assert_same_bits(out, plain)
    for n, place in itertools.product(LENGTHS, PLACES):
        print("philox4x32, n =", n, place, flush=True)
        words = rng.integers(0, 2**32, (6, n), np.uint32)
        given = [guarded(a, *place) for a in words]
        got = [guarded(a, *place) for a in words[:4]]
        _core.philox4x32(*given, out=tuple(got))
        assert np.array_equal(got, _core.philox4x32(*words))
