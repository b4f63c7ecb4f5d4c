"""Inputs that break numerical libraries, each against every public function.

For each the right result or a clear error: never a crash, a silent copy or a wrong number.
"""

import functools
import itertools
import os

import numpy as np
import pytest

import oracles
import pynn
from functions import FUNCTIONS, WITH_OUT, results
from pynn import _core, initializers, layers

LENGTHS = [0, 1, 5, 37, 200]


def moved(a, offset, dtype=None):
    """A copy of a that begins `offset` bytes into its memory."""
    memory = np.zeros(a.nbytes + offset, np.uint8)
    view = np.ndarray(a.shape, dtype or a.dtype, memory, offset)
    view[...] = a
    return view


def strided(a, *steps):
    """A copy of a whose last axes step through larger memory, backwards if negative."""
    steps = (1,) * a.ndim + steps
    steps = steps[len(steps) - a.ndim :]
    shape = [n * abs(step) for n, step in zip(a.shape, steps, strict=True)]
    view = np.full(shape, np.nan, a.dtype)[tuple(slice(None, None, step) for step in steps)]
    view[...] = a
    return view


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


LAYOUTS = {
    "column order": np.asfortranarray,
    "reversed": lambda a: strided(a, -1, -1),
    "every second": lambda a: strided(a, 2),
    "every third row and column": lambda a: strided(a, 3, 3),
    "every third backwards": lambda a: strided(a, 1, -3),
    "off by one element": lambda a: moved(a, a.itemsize),
    "misaligned": lambda a: moved(a, 1),
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
}
INPUTS = LAYOUTS | {
    "broadcast": lambda a: np.broadcast_to(a[..., :1], a.shape),
    "all one element": lambda a: np.broadcast_to(a.ravel()[:1].reshape(()), a.shape),
    "read-only": read_only,
    "subclass": lambda a: a.view(np.recarray),
}


@pytest.mark.parametrize("layout", INPUTS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_layout_of_inputs(name, layout, dtype, threads, rng):
    """The bits are those of plain arrays of the same values, and no input is written to."""
    function, change = FUNCTIONS[name], INPUTS[layout]
    for n in LENGTHS[layout == "all one element" :]:
        plain = function.arrays(n, dtype, rng)
        for which in (range(len(plain)), *([i] for i in range(len(plain)))):
            given = [change(a) if i in which else a for i, a in enumerate(plain)]
            same = [np.array(a, dtype, order="C") for a in given]
            got, want = results(function.call(*given)), results(function.call(*same))
            for one, other in zip(got, want, strict=True):
                oracles.assert_same_bits(one, other, f"n = {n}, changed {list(which)}")
                assert one.dtype.isnative
            for one, other in zip(given, same, strict=True):
                assert np.array_equal(one, other)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", WITH_OUT)
def test_layout_of_out(name, layout, dtype, threads, rng):
    """The result goes into the very array that was given, and nowhere else."""
    function = WITH_OUT[name]
    for n in LENGTHS:
        operands = function.arrays(n, dtype, rng)
        want = function.call(*operands)
        out = LAYOUTS[layout](np.full(function.out_shape(n), 7, dtype))
        around = None if out.base is None else out.base.copy()
        assert function.call(*operands, out=out) is out
        oracles.assert_same_bits(out.astype(dtype), want, f"n = {n}")
        if around is not None:  # whatever lies between the elements is as it was
            out[...] = 7
            assert np.array_equal(out.base, around, equal_nan=out.base.dtype.kind == "f")


BAD_OUTS = {
    "read-only": (read_only, ValueError),
    "longer": (lambda a: np.repeat(a, 2, axis=-1), ValueError),
    "one row more": (lambda a: np.repeat(a[None], 2, axis=0)[..., :-1], ValueError),
    "whole numbers": (lambda a: a.astype(np.int32), TypeError),
    "objects": (lambda a: a.astype(object), TypeError),
    "a list": (lambda a: a.tolist(), TypeError),
}


# NumPy's ufuncs may write floats into an object array
BAD_OUT_CASES = [(f, k) for f in WITH_OUT for k in BAD_OUTS if k != "objects" or "affine" in f]


@pytest.mark.parametrize("name, kind", BAD_OUT_CASES)
def test_bad_out(name, kind, dtype, rng):
    """An error that names it, and nothing written."""
    function, (change, error) = WITH_OUT[name], BAD_OUTS[kind]
    operands = function.arrays(20, dtype, rng)
    out = change(np.full(function.out_shape(20), 7, dtype))
    with pytest.raises(error, match=r"(?i)out|return arrays|broadcast"):
        function.call(*operands, out=out)
    assert (np.asarray(out) == 7).all()


def test_affine_out_of_another_precision(dtype, rng):
    """affine never rounds into an out of another type."""
    other = np.float64 if dtype == np.float32 else np.float32
    x, w = rng.standard_normal((2, 3)).astype(dtype), rng.standard_normal((3, 4)).astype(dtype)
    out = np.full((2, 4), 7, other)
    with pytest.raises((TypeError, ValueError), match="out"):
        pynn.affine(x, w, out=out)
    assert (out == 7).all()


def test_affine_out_of_shared_elements(dtype):
    """One place for two elements cannot hold both."""
    out = np.lib.stride_tricks.as_strided(
        np.full(4, 7, dtype), (3, 4), (0, np.dtype(dtype).itemsize)
    )
    with pytest.raises(ValueError, match=r"out.*share"):
        pynn.affine(np.ones((3, 2), dtype), np.ones((2, 4), dtype), out=out)
    assert (out == 7).all()


@pytest.mark.parametrize("name", WITH_OUT)
def test_out_overlaps_an_input(name, dtype, threads, rng):
    """out that is an input, or shares a part of its memory, gets what separate memory would."""
    function = WITH_OUT[name]
    for n in (1, 6, 11, 64, 1000):
        plain = function.arrays(n, dtype, rng)
        want, shape = function.call(*plain), function.out_shape(n)
        size = int(np.prod(shape))
        for which, gap in itertools.product(range(len(plain)), (0, 1, 3, 16, 40)):
            for out_first in (True, False):
                source = plain[which]
                memory = np.zeros(source.size + size + gap, dtype)
                first, second = (shape, source.shape) if out_first else (source.shape, shape)
                views = [
                    memory[start : start + int(np.prod(s))].reshape(s)
                    for start, s in ((0, first), (gap, second))
                ]
                out, given = views if out_first else views[::-1]
                given[...] = source
                operands = [given if i == which else a for i, a in enumerate(plain)]
                assert function.call(*operands, out=out) is out
                oracles.assert_same_bits(out, want, f"n = {n}, operand {which}, gap {gap}")


@pytest.mark.parametrize("name", ["gelu", "tanh_backward", "leaky_relu"])
@pytest.mark.parametrize("shift", [1, 1000, -1])
def test_out_overlaps_an_input_that_threads_share(name, shift, dtype, threads, rng):
    """NumPy makes no copy where an input comes later in memory, as it counts on the order of the elements."""
    n = 100_000
    function = getattr(pynn, name)
    for which in range(function.nin):
        operands = [rng.uniform(0.1, 1, n).astype(dtype) for _ in range(function.nin)]
        want = function(*operands)
        for step in (1, 2):
            memory = np.zeros(2 * n + 2 * abs(shift), dtype)
            given = memory[max(shift, 0) :][: step * n : step]
            given[...] = operands[which]
            out = memory[max(-shift, 0) :][:n]
            function(*operands[:which], given, *operands[which + 1 :], out=out)
            oracles.assert_same_bits(out, want, f"operand {which}, step {step}")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_length(name, dtype, isa, rng):
    """0 to 130 elements: the bits of the long result, and nothing written outside the output."""
    function = FUNCTIONS[name]
    longest = function.arrays(130, dtype, rng)
    whole = function.call(*longest)
    for n in range(131):
        parts = [
            a[tuple(slice(n) if s == "n" else slice(None) for s in shape)]
            for a, shape in zip(longest, function.operands.values(), strict=True)
        ]
        copies = [np.ascontiguousarray(a) for a in parts]
        got, same = results(function.call(*copies)), results(function.call(*parts))
        for one, other in zip(got, same, strict=True):
            oracles.assert_same_bits(one, other, f"n = {n}")
        if function.slices:
            oracles.assert_same_bits(got[0], whole[..., :n], f"n = {n}")
        if function.result:
            shape = function.out_shape(n)
            memory = np.full(int(np.prod(shape)) + 128, 7, dtype)
            out = memory[64:-64].reshape(shape)
            function.call(*copies, out=out)
            oracles.assert_same_bits(out, got[0], f"n = {n}")
            assert (memory[:64] == 7).all() and (memory[-64:] == 7).all(), n


SHAPES = [(), (0,), (1,), (0, 3), (3, 0), (2, 0, 4), (1, 1, 1, 1), (5, 1), (2, 3, 4)]


@pytest.mark.parametrize("name", pynn.ACTIVATIONS)
def test_shapes_of_activations(name, dtype, rng):
    activation = pynn.ACTIVATIONS[name]
    for shape in SHAPES:
        x = np.asarray(rng.uniform(0.01, 0.99, shape), dtype)
        for f, operands in ((activation.forward, (x,)), (activation.backward, (x, x))):
            y = f(*operands)
            assert np.shape(y) == shape and y.dtype == dtype
            flat = f(*(a.reshape(-1) for a in operands))
            oracles.assert_same_bits(np.ravel(y), flat, f"{shape}")


@functools.cache
def steps_of(name, dtype):
    """More operands than a buffer or a thread's share holds, and their running result, all finite.

    Nearly every slope is about 1 or -1; at the edges of buffers and shares it is another one.
    """
    rng = np.random.default_rng(20240229)
    backward = pynn.ACTIVATIONS[name].backward
    parts = [
        np.linspace(*part) for part in ((-12, 12, 100_000), (1e-4, 0.03, 1000), (30, 40, 1000))
    ]
    grid = np.concatenate(parts)
    grid = grid.astype(dtype)
    slopes = np.abs(backward(np.ones_like(grid), grid))
    x = rng.choice(grid[np.abs(slopes - 1) < 2e-3], 33_000)
    others = grid[(slopes > 0.009) & (slopes < 3)]
    x[[1, 511, 512, 513, 16383, 16384, 16385, -1]] = rng.choice(others, 8)
    x[0] = 0.7
    steps = [x[0]]
    for value in x[1:]:
        steps.append(backward(steps[-1], value))
    steps = np.array(steps)
    assert steps.dtype == dtype and np.isfinite(steps).all() and steps.all()
    return x, steps


@pytest.mark.parametrize("name", [n for n in pynn.ACTIVATIONS if n != "hard_sigmoid"])  # 1/6 or 0
def test_methods_of_ufuncs(name, dtype, threads):
    """reduce, accumulate and the others feed results back: one step after the other."""
    backward = pynn.ACTIVATIONS[name].backward
    x, steps = steps_of(name, dtype)
    for layout in ("plain", "reversed", "every second", "misaligned", "big-endian"):
        given = x if layout == "plain" else LAYOUTS[layout](x)
        oracles.assert_same_bits(backward.accumulate(given), steps, layout)
        oracles.assert_same_bits(backward.reduce(given), steps[-1], layout)
        out = np.zeros_like(given)
        assert backward.accumulate(given, out=out) is out
        oracles.assert_same_bits(out, steps, f"{layout}, out")
    same = x.copy()
    oracles.assert_same_bits(backward.accumulate(same, out=same), steps, "in place")
    oracles.assert_same_bits(backward.reduce(x[1:], initial=x[0]), steps[-1], "initial")
    wide = [np.float64(x[0])]
    for value in x[1:2000].astype(np.float64):
        wide.append(backward(wide[-1], value))
    oracles.assert_same_bits(backward.accumulate(x[:2000], dtype=np.float64), np.array(wide))
    parts = backward.reduceat(x, [0, 700, 20_000])
    oracles.assert_same_bits(parts[0], steps[699], "reduceat")
    oracles.assert_same_bits(parts[2], backward.reduce(x[20_000:]), "reduceat")
    for order in "CF":  # the three columns begin differently
        many = np.array([x[i : i + 30_000] for i in range(3)]).T.copy(order)
        want = np.stack([backward.accumulate(column.copy()) for column in many.T], axis=1)
        oracles.assert_same_bits(backward.accumulate(many, axis=0), want, order)
        oracles.assert_same_bits(backward.accumulate(many.T, axis=1), want.T, order)
        oracles.assert_same_bits(backward.reduce(many, axis=0), want[-1], order)
        oracles.assert_same_bits(backward.reduce(many.T, axis=-1), want[-1], order)
    last, first = x[:1].copy(), np.zeros(len(x), int)
    backward.at(last, first[1:], x[1:])
    oracles.assert_same_bits(last[0], steps[-1], "at")
    table = backward.outer(x[:30], x[:40])
    oracles.assert_same_bits(table, backward(x[:30, None], x[None, :40]))


REFUSED = ["O", "F", "D", "U1", "S1", "M8[s]", "g"]


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_refused_dtypes(name, kind, rng):
    """Objects, complex, text, dates, long double: a TypeError, whichever operand it is."""
    function = FUNCTIONS[name]
    plain = function.arrays(4, np.float64, rng)
    for i, a in enumerate(plain):
        given = list(plain)
        given[i] = np.zeros(a.shape, kind)
        with pytest.raises(TypeError) as caught:
            function.call(*given)
        operand = [*function.operands][i]
        known = name.split()[0] in str(caught.value)
        assert known or operand in str(caught.value), f"{operand}: {caught.value}"


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    "given, wide", [("e", "f"), ("?", "d"), ("b", "d"), ("u8", "d"), (">i4", "d")]
)
def test_narrow_and_whole_dtypes(name, given, wide, rng):
    """Computed as if converted first; never in the narrow type."""
    function = FUNCTIONS[name]
    operands = [np.rint(a).astype(given) for a in function.arrays(9, np.float64, rng)]
    want = results(function.call(*(a.astype(wide) for a in operands)))
    if given == "e" and function.half:
        want = [a.astype(given) for a in want]
    for one, other in zip(results(function.call(*operands)), want, strict=True):
        oracles.assert_same_bits(one, other)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_mixed_precision(name, rng):
    """float32 with float64 is float64."""
    function = FUNCTIONS[name]
    wide = function.arrays(9, np.float32, rng)
    want = results(function.call(*(a.astype(np.float64) for a in wide)))
    for i in range(len(wide) if len(wide) > 1 else 0):
        given = [a.astype(np.float64) if i == j else a for j, a in enumerate(wide)]
        for one, other in zip(results(function.call(*given)), want, strict=True):
            oracles.assert_same_bits(one, other, f"operand {i}")


def zeros(*shapes):
    return [np.zeros(s, np.float32) for s in shapes]


def shapes_in(*shapes):
    return [str(s) for s in shapes]


MISMATCHES = {
    "affine x, w": (pynn.affine, zeros((2, 3), (4, 5)), shapes_in((2, 3), (4, 5))),
    "affine 1-d x": (pynn.affine, zeros(3, (4, 5)), shapes_in((3,), (4, 5))),
    "affine 0-d x": (pynn.affine, zeros((), (4, 5)), ["x has shape ()", "(..., in)"]),
    "affine 1-d w": (pynn.affine, zeros((2, 3), 3), ["w has shape (3,)", "(in, out)"]),
    "affine 3-d w": (pynn.affine, zeros((2, 3), (1, 3, 4)), ["w has shape (1, 3, 4)", "(in, out)"]),
    "affine b": (pynn.affine, zeros((2, 3), (3, 4), 5), shapes_in((5,), (3, 4))),
    "affine 2-d b": (pynn.affine, zeros((2, 3), (3, 4), (2, 4)), ["b has shape (2, 4)", "(out,)"]),
    "affine 0-d b": (pynn.affine, zeros((2, 3), (3, 4), ()), ["b has shape ()", "(out,)"]),
    "dy": (pynn.affine_backward, zeros((2, 5), (2, 3), (3, 4)), shapes_in((2, 5), (2, 3), (3, 4))),
    "dy rows": (pynn.affine_backward, zeros((3, 4), (2, 3), (3, 4)), shapes_in((3, 4), (2, 3))),
    "dy axes": (pynn.affine_backward, zeros(8, (2, 3), (3, 4)), shapes_in((8,), (2, 3))),
    "dy, x, w": (pynn.affine_backward, zeros((2, 4), (2, 5), (3, 4)), shapes_in((2, 5), (3, 4))),
    "softmax_backward": (pynn.softmax_backward, zeros((2, 3), (2, 4)), ["3", "4"]),
    "softmax_backward rows": (pynn.softmax_backward, zeros((2, 3), (4, 3)), ["2", "4"]),
    "softmax 0-d": (pynn.softmax, zeros(()), ["dimension"]),
    "layer": (layers.Affine(*zeros((3, 4), 4)).forward, zeros((2, 5)), shapes_in((2, 5), (3, 4))),
} | {
    f"{name}_backward": (row.backward, zeros(3, 4), shapes_in((3,), (4,)))
    for name, row in pynn.ACTIVATIONS.items()
}


@pytest.mark.parametrize("case", MISMATCHES)
def test_shapes_that_do_not_match(case):
    """A ValueError with both shapes in it."""
    call, operands, mentioned = MISMATCHES[case]
    with pytest.raises(ValueError) as caught:
        call(*operands)
    for shape in mentioned:
        assert shape in str(caught.value)


def test_unknown_activation():
    x, w = zeros((2, 3), (3, 4))
    for call in (
        lambda: pynn.affine(x, w, activation="gauss"),
        lambda: pynn.affine_backward(np.zeros((2, 4)), x, w, np.zeros((2, 4)), activation="gauss"),
    ):
        with pytest.raises(ValueError, match="gauss") as caught:
            call()
        assert all(name in str(caught.value) for name in pynn.ACTIVATIONS)
    with pytest.raises(ValueError, match="y"):
        pynn.affine_backward(np.zeros((2, 4), np.float32), x, w, activation="tanh")


HUGE = 2**46  # times 16 bytes: more than a 47-bit address space


TOO_LARGE = {
    **{
        name: lambda f=row.forward: f(np.broadcast_to(np.float64(1), (HUGE, 16)))
        for name, row in pynn.ACTIVATIONS.items()
    },
    "affine rows": lambda: pynn.affine(np.broadcast_to(np.float64(1), (HUGE, 1)), np.ones((1, 16))),
    "affine columns": lambda: pynn.affine(np.ones((16, 1)), np.broadcast_to(1.0, (1, HUGE))),
    "affine both": lambda: pynn.affine(
        np.broadcast_to(1.0, (2**40, 1)), np.broadcast_to(1.0, (1, 2**40))
    ),
    "affine_backward": lambda: pynn.affine_backward(
        np.ones((1, 16)), np.broadcast_to(1.0, (1, HUGE)), np.broadcast_to(1.0, (HUGE, 16))
    ),
    "normal": lambda: pynn.random.normal((HUGE, 16), rng=0),
    "uniform": lambda: pynn.random.uniform((2**40, 2**40), rng=0),
    "initializer": lambda: initializers.he_normal((HUGE, 16), rng=0),
    "zeros": lambda: initializers.zeros((HUGE, 16)),
}


@pytest.mark.parametrize("case", TOO_LARGE)
def test_out_of_memory(case):
    """MemoryError, or NumPy's ValueError for what no array can hold; and pynn goes on working."""
    with pytest.raises(
        (MemoryError, ValueError), match=r"(?i)allocate|too (big|large)|memory|exceed"
    ):
        TOO_LARGE[case]()
    assert pynn.affine(np.ones((2, 3)), np.ones((3, 2))).tolist() == [[3, 3], [3, 3]]


def test_sizes_past_2_31_without_memory():
    """Lengths that no 32-bit counter holds, in axes that cost nothing."""
    many = 2**31 + 5
    assert pynn.affine(np.empty((many, 0)), np.empty((0, 0))).shape == (many, 0)
    for name, row in pynn.ACTIVATIONS.items():
        assert row.forward(np.empty((many, 0))).shape == (many, 0), name
    out = np.full(4, 9, np.float32)
    _core.fill(out, "normal", 1, 0.0, 1.0, start=2**63)
    assert np.isfinite(out).all() and not (out == 9).any()


LITTLE_MEMORY = """
import resource, numpy as np, pynn
x = np.ones((6_000_000, 2), np.float32)
pynn.set_num_threads(2)
pynn.softmax(x[:10], axis=0)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 80 * 2**20,) * 2)  # the result fits, the buffers do not
try:
    pynn.softmax(x, axis=0)
except MemoryError:
    resource.setrlimit(resource.RLIMIT_AS, (resource.getrlimit(resource.RLIMIT_AS)[1],) * 2)
    print(pynn.relu(x[:3]).sum())
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux's /proc")
def test_no_memory_for_buffers(run):
    """pynn's own buffers, wanted without the GIL: a MemoryError, and the process goes on."""
    assert run("-c", LITTLE_MEMORY).stdout == "6.0\n"


INTERRUPTED = """
import os, signal, sys, threading, numpy as np, pynn
from pynn import _core
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs ignore
_core.use_isa("portable")  # slow enough to be interrupted
x, out = np.ones((600, 600)), np.full(2**25, 7.0)
calls = {
    "fill": lambda: _core.fill(out, "normal", 1, 0.0, 1.0),
    "affine": lambda: pynn.affine(x, x, out=out[:360000].reshape(600, 600)),
    "affine_backward": lambda: pynn.affine_backward(x, x, x),
}
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    calls[sys.argv[1]]()
except KeyboardInterrupt:
    print(pynn.affine(x[:1], x)[0, 0], out[-1])
"""


@pytest.mark.parametrize("call", ["fill", "affine", "affine_backward"])
def test_interrupt_ends_a_long_call(call, run):
    """Ctrl-C is heard before the end, and the process goes on."""
    assert run("-c", INTERRUPTED, call).stdout == "600.0 7.0\n"


def need_memory(gigabytes):
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if free < gigabytes * 2**30:
        pytest.skip(f"needs {gigabytes} GB of free memory")


@pytest.mark.slow
def test_more_than_2_31_elements():
    """float32 in place over 8.6 GB: the elements past 2^31 are right."""
    need_memory(10)
    n = 2**31 + 100
    x, tail = np.empty(n, np.float32), np.empty(200, np.float32)
    _core.fill(x, "normal", 3, 0.0, 1.0)
    _core.fill(tail, "normal", 3, 0.0, 1.0, start=n - 200)
    oracles.assert_same_bits(x[-200:], tail)
    pynn.relu(x, out=x)
    oracles.assert_same_bits(x[-200:], pynn.relu(tail))


@pytest.mark.slow
def test_affine_of_more_than_2_31_outputs():
    need_memory(10)
    m, n = 2**16 + 3, 2**15
    x, w = np.arange(m, dtype=np.float32)[:, None], np.arange(n, dtype=np.float32)[None]
    y = pynn.affine(x, w)
    for i in (0, m // 2, m - 1):
        assert np.array_equal(y[i], i * w[0])
