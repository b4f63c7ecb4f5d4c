"""The chapter's experiments on pynn's kernels. They return plain data; figures and report read it.

Nothing that feeds the weights depends on the machine: batches come from an integer generator, and
all arithmetic on weights is pynn's kernels or single NumPy operations that IEEE 754 rounds exactly.
So trained weights have the same SHA-256 everywhere. The statistics are NumPy's float64 sums, which
may differ in their last digits between machines.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

import pynn

from .data import BATCH, Dataset

__all__ = [
    "ACTIVATIONS",
    "INITS",
    "Layer",
    "Results",
    "Signal",
    "Training",
    "run",
]

Array = npt.NDArray[Any]
Progress = Callable[[str, float], None]

#: The chapter's activation functions: largest slope, and range of histogram (None: powers of 10).
ACTIVATIONS: dict[str, tuple[float, tuple[float, float] | None]] = {
    "sigmoid": (0.25, (0.0, 1.0)),
    "tanh": (1.0, (-1.0, 1.0)),
    "relu": (1.0, None),
}
#: The initial values compared, by the name they are shown under.
INITS = ("std 1", "std 0.01", "Xavier", "He", "equal")

SAMPLES, WIDTH, LAYERS, DEEP, BINS = 1000, 100, 5, 20, 30
#: Histograms of ReLU have four bins for every power of ten, and zeros apart.
DECADES = (-8, 6)
#: A unit counts as saturated where its slope is below this part of the largest slope.
SATURATED = 0.01

HIDDEN = [100] * 4
LEARNING_RATE = 0.01
#: The networks trained, with the `weight_init_std` of each.
NETWORKS: dict[str, float | str] = {
    "std 0.01": 0.01,
    "Xavier": "xavier",
    "He": "he",
    "equal": "equal",
}
DECAYS = (0.0, 0.01)
#: The curves have about this many points.
POINTS = 50
#: At a point of a curve at most this many samples of either part are evaluated; at the end, all.
CURVE_SAMPLES = 2000


@dataclass(frozen=True)
class Signal:
    """How strong the signal is at one layer, on the way forward and on the way back.

    Attributes
    ----------
    std : float
        Standard deviation of all activations of the layer: every unit, every input.
    gradient_std : float
        Standard deviation of the gradient of the layer's activations; 1 at the last layer, where it
        is put in.
    """

    std: float
    gradient_std: float


@dataclass(frozen=True)
class Layer(Signal):
    """What a layer of the five-layer network looks like.

    Attributes
    ----------
    mean, rms : float
        Of all activations of the layer.
    saturated : float
        Share of activations at which the slope is below 1 % of the function's largest slope.
    dead : float
        Share of units that are 0 for every input.
    distinct : int
        Number of units that differ from each other for some input.
    across_units : float
        Standard deviation across the units for one input, averaged over the inputs: small if all
        units say the same.
    across_inputs : float
        Standard deviation across the inputs for one unit, averaged over the units: small if inputs
        look the same.
    slope_median, slope_rms : float
        Median and root mean square of the slope, as a part of the largest slope.
    weight_gradient_std : float
        Standard deviation of the gradient of the layer's weights, summed over the inputs.
    histogram : list of float
        Share of the activations in each bin.
    zero : float
        Share of activations that are 0.
    """

    mean: float
    rms: float
    saturated: float
    dead: float
    distinct: int
    across_units: float
    across_inputs: float
    slope_median: float
    slope_rms: float
    weight_gradient_std: float
    histogram: list[float]
    zero: float

    @property
    def ends(self) -> float:
        """Share of activations in the two outermost bins."""
        return self.histogram[0] + self.histogram[-1]

    @property
    def middle(self) -> float:
        """Share of activations in the middle fifth of the range: sigmoid's from 0.4 to 0.6."""
        fifth = 2 * len(self.histogram) // 5
        return sum(self.histogram[fifth:-fifth])

    @property
    def asymmetry(self) -> float:
        """Part of the histogram that its mirror image does not cover: 0 symmetric, 1 one-sided."""
        return (
            sum(abs(a - b) for a, b in zip(self.histogram, self.histogram[::-1], strict=True)) / 2
        )


@dataclass
class Training:
    """One network's training.

    Attributes
    ----------
    init : str
        Its initial values, one of `NETWORKS`.
    decay : float
        Weight decay's lambda.
    batch_loss : list of float
        Loss of each batch before its update, without the decay's penalty.
    iterations : list of int
        Updates done at each point of the curves below.
    loss, held_out_loss, accuracy, held_out_accuracy, weight_norm : list of float
        The curves. Losses are mean cross-entropies without the decay's penalty; the norm is the
        root of the sum of the squares of all weights, biases apart.
    final : dict
        The same figures at the end, on all samples.
    distinct_before, distinct : list of int
        Distinct units of each hidden layer over the held-out inputs, before and after training.
    distinct_gradients : list of int
        Number of distinct columns in the first batch's gradient of each hidden layer's weights:
        units that would be updated differently.
    sha256 : str
        Of the bytes of W1, b1, W2, ... after training, little-endian float32 in C order.
    weights : ndarray
        The second layer's weights after training, to be shown.
    """

    init: str
    decay: float
    batch_loss: list[float] = field(default_factory=list)
    iterations: list[int] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    held_out_loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    held_out_accuracy: list[float] = field(default_factory=list)
    weight_norm: list[float] = field(default_factory=list)
    final: dict[str, float] = field(default_factory=dict)
    distinct_before: list[int] = field(default_factory=list)
    distinct: list[int] = field(default_factory=list)
    distinct_gradients: list[int] = field(default_factory=list)
    sha256: str = ""
    weights: Array = field(default_factory=lambda: np.empty((0, 0), np.float32))

    @property
    def name(self) -> str:
        """The network's name in tables and in results.json."""
        return f"{self.init}, decay {self.decay:g}" if self.decay else self.init


@dataclass(frozen=True)
class Results:
    """All that was computed.

    Attributes
    ----------
    seed, iterations : int
        What it was run with.
    data : Dataset
        What the networks learned from.
    layers : dict
        activation -> initial values -> the five layers.
    deep : dict
        The same for 20 layers, without equal weights.
    training : dict
        (initial values, decay) -> Training.
    weights_sha256 : str
        SHA-256 over the bytes of all trained weights, network by network.
    """

    seed: int
    iterations: int
    data: Dataset
    layers: dict[str, dict[str, list[Layer]]]
    deep: dict[str, dict[str, list[Signal]]]
    training: dict[tuple[str, float], Training]
    weights_sha256: str


def run(
    data: Dataset, seed: int, iterations: int, progress: Progress = lambda stage, part: None
) -> Results:
    """Run every experiment.

    Parameters
    ----------
    data : Dataset
        What to learn from.
    seed : int
        Decides inputs, weights and batches.
    iterations : int
        Updates of each network.
    progress : callable, optional
        Called with the name of a stage and the part of it that is done, from 0 to 1.
    """
    pairs = [(name, init) for name in ACTIVATIONS for init in INITS]
    layers: dict[str, dict[str, list[Layer]]] = {name: {} for name in ACTIVATIONS}
    deep: dict[str, dict[str, list[Signal]]] = {name: {} for name in ACTIVATIONS}
    for done, (name, init) in enumerate(pairs):
        progress("Activations and gradients", done / len(pairs))
        passes = _propagate(name, init, LAYERS, seed)
        layers[name][init] = [_measure(name, *arrays) for arrays in passes][::-1]
        if init != "equal":
            passes = _propagate(name, init, DEEP, seed)
            deep[name][init] = [Signal(_std(y), _std(gradient)) for y, gradient, _ in passes][::-1]
    progress("Activations and gradients", 1)

    training: dict[tuple[str, float], Training] = {}
    whole = hashlib.sha256()
    runs = [(init, decay) for decay in DECAYS for init in NETWORKS]
    for init, decay in runs:

        def report(part: float, before: int = len(training)) -> None:
            progress("Training", (before + part) / len(runs))

        training[init, decay] = _train(data, init, decay, seed, iterations, whole, report)
    return Results(seed, iterations, data, layers, deep, training, whole.hexdigest())


# ---- Activations and gradients -------------------------------------------------------------------


def _weights(init: str, layer: int, seed: int) -> Array:
    """Make a layer's weights: the same draws whatever the initial values, only scaled."""
    shape, rng = (WIDTH, WIDTH), [seed, 1, layer]
    make: dict[str, Callable[[], Array]] = {
        "std 1": lambda: pynn.random.normal(shape, scale=1.0, rng=rng),
        "std 0.01": lambda: pynn.random.normal(shape, scale=0.01, rng=rng),
        "Xavier": lambda: pynn.initializers.xavier_normal(shape, rng=rng),
        "He": lambda: pynn.initializers.he_normal(shape, rng=rng),
        "equal": lambda: pynn.initializers.constant(shape, 1 / WIDTH),
    }
    return make[init]()


def _propagate(
    activation: str, init: str, depth: int, seed: int
) -> Iterator[tuple[Array, Array, Array]]:
    """Send random inputs forward through layers of one kind, and a random gradient back.

    Yields, from the last layer to the first, its activations, their gradient and the gradient of
    its weights.
    """
    outputs = [pynn.random.normal((SAMPLES, WIDTH), rng=[seed, 2])]
    weights = [_weights(init, layer, seed) for layer in range(depth)]
    for w in weights:
        outputs.append(pynn.affine(outputs[-1], w, activation=activation))
    gradient: Any = pynn.random.normal((SAMPLES, WIDTH), rng=[seed, 3])
    for w in reversed(weights):
        y = outputs.pop()
        before, dw, _ = pynn.affine_backward(gradient, outputs[-1], w, y, activation)
        yield y, gradient, dw
        gradient = before


def _measure(activation: str, y: Array, gradient: Array, weight_gradient: Array) -> Layer:
    largest, bounds = ACTIVATIONS[activation]
    slope = pynn.ACTIVATIONS[activation].backward(np.ones_like(y), y) / largest
    if bounds is None:
        values, bounds = np.log10(y[y > 0]), DECADES
        bins = 4 * (DECADES[1] - DECADES[0])
    else:
        values, bins = y, BINS
    counts, _ = np.histogram(np.clip(values, *bounds), bins, bounds)
    wide = y.astype(np.float64)
    return Layer(
        std=_std(wide),
        gradient_std=_std(gradient),
        mean=float(wide.mean()),
        rms=_rms(wide),
        saturated=float((slope < SATURATED).mean()),
        dead=float((y == 0).all(axis=0).mean()),
        distinct=_distinct(y),
        across_units=float(wide.std(axis=1).mean()),
        across_inputs=float(wide.std(axis=0).mean()),
        slope_median=float(np.median(slope)),
        slope_rms=_rms(slope.astype(np.float64)),
        weight_gradient_std=_std(weight_gradient),
        histogram=(counts / y.size).tolist(),
        zero=float((y == 0).mean()),
    )


def _std(values: Array) -> float:
    return float(values.std(dtype=np.float64))


def _rms(values: Array) -> float:
    return math.sqrt(np.square(values).mean())


def _distinct(columns: Array) -> int:
    """Count the columns that differ."""
    return len({column.tobytes() for column in columns.T + 0})  # + 0: -0.0 becomes 0.0


# ---- Training ------------------------------------------------------------------------------------


def _train(
    data: Dataset,
    init: str,
    decay: float,
    seed: int,
    iterations: int,
    whole: Any,
    progress: Callable[[float], None],
) -> Training:
    """Train one network, and add its weights to the hash of all."""
    record = Training(init, decay)
    net = pynn.networks.MultiLayerNet(
        data.x.shape[1],
        HIDDEN,
        data.classes,
        activation="relu",
        weight_init_std=NETWORKS[init],
        weight_decay_lambda=decay,
        rng=[seed, 4],  # the same draws for every network, only scaled
    )
    optimizer = pynn.optimizers.SGD(lr=LEARNING_RATE)
    batches = np.random.Generator(np.random.PCG64([seed, 5]))  # the same batches for every network
    record.distinct_before = _distinct_units(net, data.x_held)
    every = max(1, iterations // POINTS)
    for step in range(iterations):
        if step % every == 0:
            progress(step / iterations)
            _evaluate(net, data, record, step)
        chosen = batches.integers(len(data.x), size=BATCH)
        gradients = net.gradient(data.x[chosen], data.t[chosen])
        if step == 0:
            record.distinct_gradients = [
                _distinct(gradients[f"W{i}"]) for i in range(1, len(HIDDEN) + 1)
            ]
        assert net.last_layer.loss is not None
        record.batch_loss.append(net.last_layer.loss)
        optimizer.update(net.params, gradients)
    progress(1)
    _evaluate(net, data, record, iterations)
    record.final = _figures(net, data, len(data.x) + len(data.x_held))
    record.distinct = _distinct_units(net, data.x_held)
    record.weights = net.params["W2"].copy()
    names = [f"{kind}{i}" for i in range(1, len(HIDDEN) + 2) for kind in "Wb"]
    content = b"".join(np.ascontiguousarray(net.params[name], "<f4").tobytes() for name in names)
    record.sha256 = hashlib.sha256(content).hexdigest()
    whole.update(content)
    return record


def _evaluate(net: pynn.networks.MultiLayerNet, data: Dataset, record: Training, step: int) -> None:
    record.iterations.append(step)
    for name, value in _figures(net, data, CURVE_SAMPLES).items():
        getattr(record, name).append(value)


def _figures(net: pynn.networks.MultiLayerNet, data: Dataset, most: int) -> dict[str, float]:
    """Measure the network on at most so many samples of either part."""
    figures = {}
    for prefix, x, t in (
        ("", data.x[:most], data.t[:most]),
        ("held_out_", data.x_held[:most], data.t_held[:most]),
    ):
        scores = net.predict(x)
        figures[f"{prefix}loss"] = pynn.layers.SoftmaxWithLoss().forward(scores, t)
        figures[f"{prefix}accuracy"] = float((scores.argmax(axis=1) == t).mean())
    squares = [
        np.square(w, dtype=np.float64).sum()
        for name, w in net.params.items()
        if name.startswith("W")
    ]
    return figures | {"weight_norm": math.sqrt(sum(squares))}


def _distinct_units(net: pynn.networks.MultiLayerNet, x: Array) -> list[int]:
    """Count the distinct units of each hidden layer."""
    counts = []
    for layer in range(1, len(HIDDEN) + 1):
        x = pynn.affine(x, net.params[f"W{layer}"], net.params[f"b{layer}"], activation="relu")
        counts.append(_distinct(x))
    return counts
