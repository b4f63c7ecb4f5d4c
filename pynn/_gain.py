"""Second moments of an activation function and of its slope under the normal distribution."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .activations import ACTIVATIONS

Array = npt.NDArray[Any]
Function: TypeAlias = str | Callable[[Any], Any]

# Nodes of the Gauss-Legendre formula with 10 nodes, the positive ones, and their weights. As numbers, since
# eigenvalue solvers differ from machine to machine.
_POSITIVE = (
    0.14887433898163122,
    0.4333953941292472,
    0.6794095682990244,
    0.8650633666889845,
    0.9739065285171717,
)
_THEIR_WEIGHTS = (
    0.29552422471475287,
    0.26926671930999635,
    0.21908636251598204,
    0.1494513491505806,
    0.06667134430868814,
)
_NODES = (*(-x for x in reversed(_POSITIVE)), *_POSITIVE)
_WEIGHTS = (*reversed(_THEIR_WEIGHTS), *_THEIR_WEIGHTS)
_PANELS, _LIMIT = 96, 12.0
_TRIALS = (2.0**-20 - 1, 0.0, 1 - 2.0**-20)  # where a panel's polynomial is compared with f
# The polynomial through 1 at one node and 0 at the others has these values at the trials.
_SCALES = [math.prod(a - b for b in _NODES if b != a) for a in _NODES]
_AT_TRIALS = [
    [
        math.prod(at - b for b in _NODES if b != a) / scale
        for a, scale in zip(_NODES, _SCALES, strict=True)
    ]
    for at in _TRIALS
]
_HALVINGS, _MOST = 36, 2**13  # of a panel; panels that are halved at a time


def _called(activation: Function) -> Callable[[Array], Array]:
    """Return an activation as a function from float64 to float64."""
    if isinstance(activation, str):
        if activation.lower() not in ACTIVATIONS:
            raise ValueError(
                f"activation must be one of {', '.join(ACTIVATIONS)}, or a function;"
                f" got {activation!r}"
            )
        f: Callable[[Any], Any] = ACTIVATIONS[activation.lower()].forward
    elif callable(activation):
        f = activation
    else:
        raise TypeError(f"activation must be a name, a ufunc or a function; got {activation!r}")

    def call(z: Array) -> Array:
        try:
            with np.errstate(all="ignore"):  # what overflows is found later
                return _real(f(z.copy()))
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"activation must take an array and return one of real numbers; got {error}"
            ) from None

    return call


def _values(f: Callable[[Array], Array]) -> tuple[Array, Array, Array]:
    """Return the centres of the panels, nodes z, and f(z), both (panels, nodes)."""
    half = _LIMIT / _PANELS
    centres = (np.arange(_PANELS) * 2 + 1 - _PANELS) * half
    z = _nodes(centres, half)
    some = z.ravel()[::3]
    y, again = f(z), f(some)
    if y.shape != z.shape:
        raise ValueError(f"activation must return the shape it was given, {z.shape}; got {y.shape}")
    if again.shape != some.shape or not np.allclose(
        again, y.ravel()[::3], rtol=1e-6, equal_nan=True
    ):
        raise ValueError(
            "activation must be elementwise; got one whose values depend on the rest of the array"
        )
    return centres, z, y


def _weights(z: Array, half: float) -> Array:
    """Return the weights of nodes, times the normal density."""
    density = [math.exp(-x * x / 2) / math.sqrt(2 * math.pi) for x in z.ravel().tolist()]
    weights: Array = half * np.array(_WEIGHTS) * np.reshape(density, z.shape)
    return weights


def _real(values: Any) -> Array:
    """Return real numbers as float64; NumPy would leave the imaginary part out."""
    array = np.asarray(values)
    if array.dtype.kind == "c":
        raise TypeError(array.dtype)
    return array.astype(np.float64)


def _mean(weights: Array, values: Array) -> float:
    try:
        return math.fsum((weights * values).ravel().tolist())
    except (OverflowError, ValueError):  # infinities of both signs
        return math.nan


def second_moment(activation: Function, of_slope: bool = False) -> float:
    """Return E f(z)^2, or E f'(z)^2, for z standard normal, rounded to 12 digits.

    So what the last bits of exp and of the function are does not show.
    """
    z, weights, y, slope = map(np.concatenate, zip(*_resolved(_called(activation)), strict=True))
    with np.errstate(all="ignore"):
        square = (slope if of_slope else y) ** 2
        outer = np.abs(z) > _LIMIT * (1 - 2 / _PANELS)
        moment, end = _mean(weights, square), _mean(weights[outer], square[outer])
        least = 1e-22 * _mean(weights, y * y) if of_slope else 0.0
    if moment < least:  # of steps too far out to matter
        moment = 0.0
    elif end > 1e-6 * moment:  # it grows like the density's reciprocal, or faster
        moment = math.inf
    if not 0 < moment < math.inf:
        raise ValueError(
            f"activation must have a {'slope with a ' * of_slope}finite second moment above 0;"
            f" got {moment}"
        )
    return float(f"{moment:.12g}")


def _resolved(f: Callable[[Array], Array]) -> Iterator[tuple[Array, Array, Array, Array]]:
    """Yield nodes, weights, f and slope of panels that are halved until f is a polynomial in them.

    The last ones, where it jumps, have no slope.
    """
    centres, z, y = _values(f)
    half = _LIMIT / _PANELS
    with np.errstate(all="ignore"):
        spread = math.sqrt(max(_mean(_weights(z, half), y * y), 0.0))
    noise = _noise(f)
    for halving in range(_HALVINGS + 1):
        with np.errstate(all="ignore"):
            allowed = 1e-10 * np.ptp(y, axis=1) + noise * (np.max(np.abs(y), axis=1) + spread)
            allowed += 2.0**-44 * spread * np.exp(centres**2 / 4)  # less matters further out
            rough = _miss(f, centres, half, y) > allowed
            slope = _slope(y) / half
        if 2 * np.count_nonzero(rough) > _MOST:
            rough[:] = False
        elif halving == _HALVINGS:
            slope[rough] = 0
            rough[:] = False
        yield z[~rough], _weights(z[~rough], half), y[~rough], slope[~rough]
        if not rough.any():
            return
        half /= 2
        centres = np.concatenate([centres[rough] - half, centres[rough] + half])
        z = _nodes(centres, half)
        y = f(z)


def _noise(f: Callable[[Array], Array]) -> float:
    """Return by how much what rounds f, say to float32, keeps it from being a polynomial in narrow panels."""
    centres, half = np.arange(-31, 32, 2) * (5 / 32) + 0.0123, 2.0**-9
    y = f(_nodes(centres, half))
    with np.errstate(all="ignore"):
        size = np.max(np.abs(y), axis=1)
        found = np.sort((_miss(f, centres, half, y) / size)[size > 0])
    return min(4 * float(found[len(found) * 3 // 4]), 2.0**-5) if len(found) else 0.0


def _nodes(centres: Array, half: float) -> Array:
    z: Array = centres[:, None] + half * np.array(_NODES)
    return z


def _miss(f: Callable[[Array], Array], centres: Array, half: float, y: Array) -> Array:
    """Return by how much f differs from the polynomial through the nodes of each panel."""
    found = f(centres[:, None] + half * np.array(_TRIALS))
    worst = np.zeros(len(centres))
    for i, shares in enumerate(_AT_TRIALS):
        value = y[:, 0].copy()
        for j, share in enumerate(shares):
            value += share * (y[:, j] - y[:, 0])
        worst = np.maximum(worst, np.abs(found[:, i] - value))
    return worst


def _slope(y: Array) -> Array:
    """Return the derivative at each node, in half panels, of the polynomial through all nodes of its panel."""
    slope = np.zeros_like(y)
    for i, a in enumerate(_NODES):
        for j, b in enumerate(_NODES):
            if i != j:
                slope[:, i] += _SCALES[i] / _SCALES[j] / (a - b) * (y[:, j] - y[:, i])
    return slope


def odd_part(activation: Function) -> float:
    """Return the share of the odd part in the variance of f(z)."""
    _, z, y = _values(_called(activation))
    weights = _weights(z, _LIMIT / _PANELS)
    odd = (y - y[::-1, ::-1]) / 2
    variance = _mean(weights, (y - _mean(weights, y)) ** 2)
    return _mean(weights, odd * odd) / variance if variance > 0 else 0.0
