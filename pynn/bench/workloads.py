"""THE table of workloads: a name, the contenders' method that does it, and the inputs, made anew from a fixed seed."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

import pynn


class Workload(NamedTuple):
    """One row: `contender.<method>(**inputs())` gives the function that is timed."""

    name: str
    method: str
    inputs: Callable[[], dict[str, Any]]


def integers(rng, *shape):
    """-2 ... 2 as float32: every sum of products is exact, so all orders of summation must agree to the bit."""
    return rng.integers(-2, 3, shape).astype(np.float32)


def affine(m, k, n, activation, backward=False):
    rng = np.random.default_rng(0)
    dy = {"dy": integers(rng, m, n)} if backward else {}
    return dict(
        x=integers(rng, m, k),
        w=integers(rng, k, n),
        b=integers(rng, n),
        activation=activation,
        **dy,
    )


def activation(name, *shape, backward=False):
    rng = np.random.default_rng(0)
    x = 3 * rng.standard_normal(shape, np.float32)
    x[x == 0] = 1  # where a slope has two values, libraries choose differently
    return dict(
        name=name, x=x, **({"dy": rng.standard_normal(shape, np.float32)} if backward else {})
    )


def row_function(name, rows, n, backward=False):
    """Along the last axis; glu halves it."""
    rng = np.random.default_rng(0)
    x = 3 * rng.standard_normal((rows, n), np.float32)
    columns = n // 2 if name == "glu" else n
    dy = {"dy": rng.standard_normal((rows, columns), np.float32)} if backward else {}
    return dict(name=name, x=x, **dy)


def training_step(optimizer, batch, *sizes):
    """A batch, its labels, and He-initialized weights for a network of these layer sizes."""
    rng = np.random.default_rng(0)
    params = {}
    for i, (n_in, n_out) in enumerate(pairwise(sizes), 1):
        params[f"W{i}"] = rng.standard_normal((n_in, n_out), np.float32) * np.float32(
            (2 / n_in) ** 0.5
        )
        params[f"b{i}"] = np.zeros(n_out, np.float32)
    x = rng.standard_normal((batch, sizes[0]), np.float32)
    t, lr = rng.integers(0, sizes[-1], batch), LEARNING_RATES[optimizer]
    return dict(x=x, t=t, params=params, optimizer=optimizer, lr=lr)


AFFINE = [  # (m, k, n): one example, small layers, large ones
    (1, 784, 100),
    (32, 256, 256),
    (100, 100, 100),
    (128, 784, 100),
    (1000, 100, 100),
    (128, 1024, 1024),
    (512, 1024, 1024),
    (64, 4096, 4096),
    (1024, 1024, 4096),
]
SHAPES = [(10, 100), (100, 1000), (10_000, 1000)]
STEPS = [  # batch, sizes of layers: overhead rules, kernels rule, arithmetic rules
    (16, 64, 32, 10),
    (128, 784, 100, 100, 100, 100, 10),
    (256, 1024, 2048, 2048, 1000),
]
LEARNING_RATES = {"SGD": 0.01, "Adam": 1e-4}
SIZES = {"1k": 1000, "1M": 1_000_000, "16M": 16_000_000}


def rows():
    for m, k, n in AFFINE:
        for f in (None, "relu", "tanh"):
            name = f"{m}x{k}x{n}{f' {f}' if f else ''}"
            yield f"affine {name}", "affine", partial(affine, m, k, n, f)
            if f != "tanh":  # saturated by integers
                inputs = partial(affine, m, k, n, f, backward=True)
                yield f"affine backward {name}", "affine_backward", inputs
        if k * n >= 1 << 20:
            name = f"affine packed {m}x{k}x{n}"
            yield name, "affine_packed", partial(affine, m, k, n, None)
    for f in pynn.ACTIVATIONS:
        for shape in SHAPES:
            name = "x".join(map(str, shape))
            yield f"{f} {name}", "activation", partial(activation, f, *shape)
            yield (
                f"{f} backward {name}",
                "activation_backward",
                partial(activation, f, *shape, backward=True),
            )
    for f in ("softmax", "log_softmax", "logsumexp", "glu"):
        for shape in SHAPES:
            name, inputs = "x".join(map(str, shape)), partial(row_function, f, *shape)
            yield f"{f} {name}", "row_function", inputs
            if f != "logsumexp":
                backward = partial(inputs, backward=True)
                yield f"{f} backward {name}", "row_function_backward", backward
    for distribution in ("normal", "uniform", "truncated_normal"):
        for dtype in ("float32", "float64"):
            for name, size in SIZES.items():
                inputs = partial(dict, size=size, dtype=np.dtype(dtype))
                yield f"{distribution} {dtype} {name}", distribution, inputs
    for batch, *sizes in STEPS:
        for optimizer in LEARNING_RATES:
            name = f"training step {optimizer} {batch}x{'-'.join(map(str, sizes))}"
            inputs = partial(training_step, optimizer, batch, *sizes)
            yield name, "training_step", inputs


WORKLOADS = {row[0]: Workload(*row) for row in rows()}
