"""The same bits under every instruction set, number of threads, split, slice and alignment."""

import numpy as np
import pytest
from numpy._core import _multiarray_umath as umath

import oracles
import pynn
from functions import FUNCTIONS, results
from pynn import layers, networks

# large enough that five threads take part
LARGE = {"affine": 700, "affine packed": 700}


def large(function, dtype, rng):
    """Operands with signs, of a size at which work is shared out."""
    rows = any(len(shape) == 2 for shape in function.operands.values())
    other = 300 if "over n" in function.name else 1037 if rows else 300_007
    n = LARGE.get(function.name, other)
    operands = []
    for a in function.arrays(n, dtype, rng):
        rows = 150 if a.shape[0] in (3, 4) else 1
        operands.append(np.concatenate([a - dtype(0.3) + dtype(0.1) * i for i in range(rows)]))
    return operands


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_setting(name, dtype, rng, every_setting):
    function = FUNCTIONS[name]
    if name == "affine_backward over n":  # dy and y have as many rows as x
        shapes = [(300, 30), (300, 270), (270, 30), (300, 30)]
        operands = [rng.uniform(-0.9, 0.9, s).astype(dtype) for s in shapes]
    elif name.startswith("affine_backward"):
        shapes = [(300, 200), (300, 50), (50, 200)]
        operands = [rng.standard_normal(s).astype(dtype) for s in shapes]
    else:
        operands = large(function, dtype, rng)
    known = None
    for setting in every_setting():
        got = results(function.call(*operands))
        known = known or got
        for one, other in zip(got, known, strict=True):
            oracles.assert_same_bits(one, other, setting)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_any_values(name, dtype, rng, every_setting):
    """Any bit patterns, in sums too: infinities meet, NaNs spread, alike on every set."""
    function, bits = FUNCTIONS[name], oracles.BITS[dtype]
    shapes = [a.shape for a in function.arrays(67, dtype, rng)]
    draws = [
        rng.integers(0, np.iinfo(bits).max, s, bits, endpoint=True).view(dtype) for s in shapes
    ]
    known = None
    for setting in every_setting():
        with np.errstate(all="raise"):
            got = results(function.call(*draws))
        known = known or got
        for one, other in zip(got, known, strict=True):
            oracles.assert_same_bits(one, other, setting)


@pytest.mark.parametrize("activation", [None, "relu"])
def test_batch_splits(activation, dtype, every_setting, rng):
    """A row's result does not depend on the rows it came with, a column's on its neighbours."""
    m, k, n = 45, 270, 100
    x, w = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
    b = rng.standard_normal(n).astype(dtype)
    whole = pynn.affine(x, w, b, activation=activation)
    for setting in every_setting():
        for step in (1, 3, 14, 40):
            parts = [
                pynn.affine(x[i : i + step], w, b, activation=activation) for i in range(0, m, step)
            ]
            oracles.assert_same_bits(np.concatenate(parts), whole, f"{setting}, rows by {step}")
        for step in (7, 16, 33):
            parts = [
                pynn.affine(x, w[:, j : j + step], b[j : j + step], activation=activation)
                for j in range(0, n, step)
            ]
            oracles.assert_same_bits(
                np.concatenate(parts, 1), whole, f"{setting}, columns by {step}"
            )
        row = pynn.affine(x[7], w, b, activation=activation)
        oracles.assert_same_bits(row, whole[7], f"{setting}, one vector")


@pytest.mark.parametrize("name", [name for name, f in FUNCTIONS.items() if f.slices])
def test_slices(name, dtype, isa, rng):
    """Elementwise results depend on their own operands alone."""
    function = FUNCTIONS[name]
    operands = function.arrays(3000, dtype, rng)
    whole = function.call(*operands)
    for start, stop in ((1, 3000), (7, 8), (16, 1111), (129, 2990), (2999, 3000)):
        parts = [
            a[tuple(slice(start, stop) if s == "n" else slice(None) for s in shape)]
            for a, shape in zip(operands, function.operands.values(), strict=True)
        ]
        oracles.assert_same_bits(function.call(*parts), whole[..., start:stop], f"{start}:{stop}")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_alignment(name, dtype, isa, rng):
    """Operands and results that begin anywhere within two cache lines."""
    function = FUNCTIONS[name]
    operands = function.arrays(331, dtype, rng)
    want = results(function.call(*operands))
    for offset in range(0, 128, operands[0].itemsize):
        shifted = []
        for i, a in enumerate(operands):
            memory = np.zeros(a.size + 32, dtype)
            start = offset // a.itemsize if i % 2 == 0 else (3 * offset // a.itemsize) % 32
            shifted.append(memory[start : start + a.size].reshape(a.shape))
            shifted[-1][...] = a
        for one, other in zip(results(function.call(*shifted)), want, strict=True):
            oracles.assert_same_bits(one, other, f"offset {offset}")
        if function.result:
            out = np.zeros(want[0].size + 32, dtype)[offset // want[0].itemsize :][: want[0].size]
            function.call(*operands, out=out.reshape(want[0].shape))
            oracles.assert_same_bits(out, want[0].ravel(), f"out at {offset}")


@pytest.mark.parametrize("activation", pynn.ACTIVATIONS)
def test_training(activation, every_setting, rng):
    """Weights after a few steps of a small network: everything at once."""
    x, t = rng.standard_normal((40, 30)).astype(np.float32), rng.integers(0, 10, 40)
    known = None
    for setting in every_setting():
        net = networks.MultiLayerNet(
            30, [50, 20], 10, activation=activation, weight_decay_lambda=0.01, rng=5
        )
        optimizer = pynn.optimizers.Momentum(lr=0.1)
        for _ in range(4):
            optimizer.update(net.params, net.gradient(x, t))
        known = known or net.params
        for name, value in net.params.items():
            oracles.assert_same_bits(value, known[name], f"{setting}: {name}")


TRAINED = """
import hashlib, numpy as np, pynn
from numpy._core._multiarray_umath import __cpu_features__ as features
rng = np.random.default_rng(3)
x, t = rng.standard_normal((70, 37)), rng.integers(0, 10, 70)
for dtype in (np.float32, np.float64):
    for i, activation in enumerate(pynn.ACTIVATIONS):
        net = pynn.networks.MultiLayerNet(
            37, [53, 29], 10, activation=activation, weight_init_std=0.01 if activation == "exponential" else "relu",
            weight_decay_lambda=i % 2 * 0.013, rng=5, dtype=dtype
        )
        optimizer = pynn.optimizers.Momentum(lr=0.1) if i % 3 else pynn.optimizers.SGD(lr=0.1)
        for _ in range(5): optimizer.update(net.params, net.gradient(x.astype(dtype), t))
        for name, value in net.params.items():
            assert np.isfinite(value).all()
            print(dtype.__name__, activation, name, hashlib.sha256(value.tobytes()).hexdigest())
print("enabled:", *(name for name in {names} if features[name]))
"""


def test_training_on_a_lesser_cpu(python):
    """Nor do trained weights depend on the instructions that NumPy's part of the work uses."""
    names = [name for name in umath.__cpu_dispatch__ if umath.__cpu_features__.get(name)]
    if not names:
        pytest.skip("NumPy has no CPU feature to disable here")
    code = TRAINED.replace("{names}", repr(names))
    *plain, enabled = python(code).split("\n")
    assert enabled.split() == ["enabled:", *names]
    for disabled in (names, names[-1:]):
        lesser = python(code, NPY_DISABLE_CPU_FEATURES=",".join(disabled)).split("\n")
        assert lesser[:-1] == plain, disabled
        assert not {*disabled} & {*lesser[-1].split()}


def test_loss_and_its_gradient(dtype, every_setting, rng):
    x, t = rng.standard_normal((70, 10)).astype(dtype), rng.integers(0, 10, 70)
    known = None
    for setting in every_setting():
        layer = layers.SoftmaxWithLoss()
        got = np.asarray(layer.forward(x, t)), layer.backward()
        known = known or got
        for one, other in zip(got, known, strict=True):
            oracles.assert_same_bits(one, other, setting)
