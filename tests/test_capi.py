"""The C interface: a C++ extension and a Cython module are compiled against it, and give Python's bits."""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

import oracles
import pynn
from conftest import SOURCE

HERE = Path(__file__).parent
CHAIN = HERE.parent / "examples" / "cython" / "chain.pyx"
CC, CXX = (shutil.which(os.environ.get(v, name)) for v, name in (("CC", "cc"), ("CXX", "c++")))
PYTHON_H = Path(sysconfig.get_path("include")) / "Python.h"
INCLUDES = [f"-I{PYTHON_H.parent}", f"-I{pynn.get_include()}"]
OK, BAD_ARGUMENT, NO_MEMORY = 0, 1, 2

pytestmark = [
    pytest.mark.skipif(not CC or not CXX, reason="no C and C++ compiler"),
    pytest.mark.skipif(sys.platform == "win32", reason="the compiler's command line is another"),
]
needs_headers = pytest.mark.skipif(not PYTHON_H.exists(), reason="no Python headers")


def compiled(folder, source, compiler, *flags):
    """Compile an extension module, and import it."""
    library = folder / f"{source.stem}{sysconfig.get_config_var('EXT_SUFFIX')}"
    shared = [
        "-shared",
        "-fPIC",
        *(["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else []),
    ]
    command = [compiler, *shared, "-O1", *flags, *INCLUDES, str(source), "-o", str(library)]
    subprocess.run(command, check=True, timeout=120)
    spec = importlib.util.spec_from_file_location(source.stem, library)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    flags = ("-std=c++17", "-Wall", "-Wextra", "-Werror", "-pthread")
    return compiled(tmp_path_factory.mktemp("capi"), HERE / "capi" / "sample.cpp", CXX, *flags)


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    pytest.importorskip("Cython")
    if not CHAIN.exists():
        pytest.skip("no examples beside the tests")
    folder = tmp_path_factory.mktemp("cython")
    command = [sys.executable, "-m", "cython", "-3", "-I", SOURCE, CHAIN, "-o", folder / "chain.c"]
    subprocess.run([*map(str, command)], check=True, timeout=120)
    return compiled(folder, folder / "chain.c", CC, "-w").chain


def place(a):
    """Address of the first element, and the strides, in elements."""
    return a.__array_interface__["data"][0], *(s // a.itemsize for s in a.strides)


@pytest.mark.parametrize("compiler, flags", [(CC, "-xc -std=c99"), (CXX, "-xc++ -std=c++11")])
def test_header_is_plain(compiler, flags, tmp_path):
    """C99 and C++11 take the header without a warning, with Python.h and without."""
    source = tmp_path / "include.h"
    source.write_text("#include <pynn.h>\n")
    strict = ["-fsyntax-only", "-Wall", "-Wextra", "-pedantic", "-Werror", *INCLUDES]
    command = [compiler, *flags.split(), *strict, str(source)]
    subprocess.run(command, check=True, timeout=60)


@needs_headers
def test_tables(sample):
    names = sample.names()
    wanted = [(f.name, f.saves) for f in pynn.ACTIVATIONS.values()]
    assert names[: len(wanted)] == wanted
    assert dict(names[len(wanted) :])["normal"] == "loc, scale"


STEPS = [(1, 1, 1), (3, 1, -2), (-1, 2, 1), (0, 0, 5)]


@needs_headers
@pytest.mark.parametrize("name", pynn.ACTIVATIONS)
def test_activations(name, sample, dtype, rng):
    row, wide = pynn.ACTIVATIONS[name], dtype is np.float64
    for steps, n in zip(STEPS * 2, (17, 0, 1, 700, 40_001, 600, 513, 3), strict=True):
        memory = [np.full(5 * n + 5, 7, dtype) for _ in steps]
        views = []
        for m, step in zip(memory, steps, strict=True):
            views.append(np.lib.stride_tricks.as_strided(m, (n,), (step * m.itemsize,)))
            if step < 0:
                views[-1] = m[: -step * n][::step][:n]
        x, saved, out = views
        x[...] = rng.standard_normal(n)
        saved[...] = row.forward(rng.standard_normal(n).astype(dtype))
        for threads in (1, 0, 5):
            out[...] = -1
            status = sample.forward(name, wide, n, *place(x), *place(out), threads)
            assert status == OK
            oracles.assert_same_bits(out, row.forward(x), f"{steps}, {n}")
            arguments = *place(x), *place(saved), *place(out)
            assert sample.backward(name, wide, n, *arguments, threads) == OK
            oracles.assert_same_bits(out, row.backward(x, saved), f"{steps}, {n}")
            assert (memory[2] == 7).sum() >= memory[2].size - n  # nothing else is written
    y = rng.standard_normal(50).astype(dtype)
    want = row.forward(y)
    assert sample.forward(name, wide, 50, *place(y), *place(y), 0) == OK  # in place
    oracles.assert_same_bits(y, want)


LAYOUTS = {
    "C": lambda a: np.ascontiguousarray(a),
    "F": lambda a: np.asfortranarray(a),
    "apart": lambda a: np.pad(a, ((0, 0), (0, 3)))[:, : a.shape[1]],
    "every second": lambda a: np.repeat(np.repeat(a, 2, 0), 2, 1)[::2, ::2],
    "backwards": lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
}


def call(sample, what, name, sizes, x, w, dy, saved, y, dw, b, accumulate=0, threads=0):
    function = sample.matrices64 if y.dtype == np.float64 else sample.matrices32
    arrays = [place(a) if a is not None else (0, 0, 0) for a in (x, w, dy, saved, y, dw)]
    return function(
        what, name, *sizes, *arrays, place(b)[0] if b is not None else 0, accumulate, threads
    )


@needs_headers
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("sizes", [(1, 1, 1), (5, 7, 300), (40, 33, 17), (200, 60, 90), (3, 4, 0)])
def test_affine(sizes, layout, sample, dtype, rng):
    m, n, k = sizes
    lay = LAYOUTS[layout]
    x, w, b = (rng.standard_normal(s).astype(dtype) for s in ((m, k), (k, n), (n,)))
    x, w, y = lay(x), lay(w), lay(np.zeros((m, n), dtype))
    for name in (None, "tanh", "gelu"):
        for threads in (0, 1, 5):
            assert call(sample, "a", name, sizes, x, w, None, None, y, None, b, 0, threads) == OK
            oracles.assert_same_bits(y, pynn.affine(x, w, b, activation=name))
    assert call(sample, "a", None, sizes, x, w, None, None, y, None, None) == OK
    oracles.assert_same_bits(y, pynn.affine(x, w))
    saved, dy = lay(np.tanh(y)), lay(rng.standard_normal((m, n)).astype(dtype))
    dx, dw, db = lay(np.ones_like(x)), lay(np.ones_like(w)), np.ones_like(b)
    for accumulate in (0, 1):
        for name in (None, "tanh"):
            out = (None, dw.copy(), db.copy()) if accumulate else None
            want = pynn.affine_backward(
                dy, x, w, saved, activation=name, out=out, accumulate=bool(accumulate)
            )
            operands = x, w, dy, saved, dx, dw, db
            assert call(sample, "b", name, sizes, *operands, accumulate) == OK
            for one, other in zip((dx, dw, db), want, strict=True):
                oracles.assert_same_bits(one, other, f"{name}, accumulate {accumulate}")


@needs_headers
@pytest.mark.parametrize("layout", LAYOUTS)
def test_softmax(layout, sample, dtype, rng):
    for shape in ((1, 1), (3, 50), (300, 70), (0, 4), (4, 0)):
        x, dy = (LAYOUTS[layout](rng.standard_normal(shape).astype(dtype)) for _ in range(2))
        y, dx = LAYOUTS[layout](np.zeros(shape, dtype)), LAYOUTS[layout](np.zeros(shape, dtype))
        sizes = (*shape, 0)
        assert call(sample, "s", None, sizes, x, None, None, None, y, None, None) == OK
        assert call(sample, "g", None, sizes, None, None, dy, y, dx, None, None) == OK
        if x.size:
            oracles.assert_same_bits(y, pynn.softmax(x))
            oracles.assert_same_bits(dx, pynn.softmax_backward(dy, y))


@needs_headers
def test_fills(sample, dtype):
    parameters = {"normal": (0.25, 2), "uniform": (-1, 3), "truncated_normal": (0, 1, -1, 2)}
    names = dict(sample.names()[len(pynn.ACTIVATIONS) :])
    assert parameters.keys() <= names.keys()
    for name, given in parameters.items():
        padded = (*given, 0, 0)[:4]
        for n, step, start in ((0, 1, 0), (5, 1, 3), (50_000, 1, 2**40), (1300, -3, 7)):
            memory = np.full(abs(step) * n + 1, 9, dtype)
            out = memory[: abs(step) * n][::step]
            want = np.empty(n, dtype)
            pynn._core.fill(want, name, 77, *given, start=start)
            arguments = (dtype is np.float64, n, *place(out), 77, start, padded)
            assert sample.fill(name, *arguments, len(given), 0) == OK
            oracles.assert_same_bits(out, want)
        out = np.empty(4, dtype)
        arguments = dtype is np.float64, 4, *place(out), 1
        bad = (*([np.nan] * 4),)
        assert sample.fill(name, *arguments, 0, bad, len(given), 0) == BAD_ARGUMENT
        assert sample.fill(name, *arguments, 0, padded, len(given) - 1, 0) == BAD_ARGUMENT
        assert sample.fill(name, *arguments, 2**64 - 1, padded, len(given), 0) == BAD_ARGUMENT


@needs_headers
def test_bad_arguments(sample):
    """A status, and nothing written."""
    x, y = np.ones((4, 4), np.float32), np.zeros((4, 4), np.float32)
    at, to = place(x)[0], place(y)[0]
    for threads in (-1, 257):
        assert sample.forward("relu", False, 4, at, 1, to, 1, threads) == BAD_ARGUMENT
    assert sample.forward("relu", False, 4, 0, 1, to, 1, 0) == BAD_ARGUMENT
    assert sample.forward("relu", False, 4, at, 1, to, 0, 0) == BAD_ARGUMENT
    none = None, None
    assert call(sample, "a", None, (4, 4, 4), x, None, *none, y, None, None) == BAD_ARGUMENT
    operands = x, x, x, x, y, y.copy(), y[0]
    assert call(sample, "b", "gelu", (4, 4, 4), *operands) == BAD_ARGUMENT  # saves x
    assert not y.any()
    huge = (2**40, 1, 2**62)
    strided = np.lib.stride_tricks.as_strided(x, (4, 4), (32, 32))
    assert call(sample, "a", None, huge, strided, x, *none, y, None, None) == NO_MEMORY
    before = pynn.get_num_threads()
    assert sample.threads(0) == (BAD_ARGUMENT, before)
    assert sample.threads(3) == (OK, 3) and pynn.get_num_threads() == 3


@needs_headers
def test_cython(chain, rng):
    h = rng.standard_normal((20, 60)).astype(np.float32)
    w, b = rng.standard_normal((60, 60)).astype(np.float32) / 8, np.ones(60, np.float32)
    want = h.copy()
    for _ in range(7):
        want = pynn.gelu(pynn.affine(want, w, b))
    for weights in (w, np.asfortranarray(w), np.repeat(w, 2, 1)[:, ::2]):
        for threads in (0, 1):
            got = h.copy()
            chain(got, weights, b, np.empty_like(h), 7, threads)
            oracles.assert_same_bits(got, want)
    with pytest.raises(ValueError, match="expected h"):
        chain(h, w[:5], b, np.empty_like(h), 1)


def test_include_folder():
    assert (Path(pynn.get_include()) / "pynn.h").is_file()
    assert (Path(pynn.__file__).parent / "__init__.pxd").is_file()
