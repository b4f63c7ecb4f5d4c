"""Second moments of an activation function and of its slope under the normal distribution."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .activations import ACTIVATIONS

Array = npt.NDArray[Any]
Function: TypeAlias = str | Callable[[Any], Any]

# Positive nodes of the Gauss-Legendre formula with 10 nodes, and their weights. As numbers, since
# eigenvalue solvers differ from machine to machine.
_NODES = (
    0.14887433898163122,
    0.4333953941292472,
    0.6794095682990244,
    0.8650633666889845,
    0.9739065285171717,
)
_WEIGHTS = (
    0.29552422471475287,
    0.26926671930999635,
    0.21908636251598204,
    0.1494513491505806,
    0.06667134430868814,
)
_PANELS, _LIMIT = 96, 12.0


def _values(activation: Function) -> tuple[Array, Array, Array]:
    """Return nodes z, weights times the normal density, and f(z), all (panels, nodes)."""
    half = _LIMIT / _PANELS
    centres = (np.arange(_PANELS) * 2 + 1 - _PANELS) * half
    nodes = np.array([*(-x for x in reversed(_NODES)), *_NODES])
    weights = np.array([*reversed(_WEIGHTS), *_WEIGHTS])
    z = centres[:, None] + half * nodes
    density = [math.exp(-x * x / 2) / math.sqrt(2 * math.pi) for x in z.ravel().tolist()]
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
    some = z.ravel()[::3]
    try:
        with np.errstate(all="ignore"):  # what overflows is found below
            y, again = _real(f(z.copy())), _real(f(some.copy()))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"activation must take an array and return one of real numbers; got {error}"
        ) from None
    if y.shape != z.shape:
        raise ValueError(f"activation must return the shape it was given, {z.shape}; got {y.shape}")
    if again.shape != some.shape or not np.allclose(
        again, y.ravel()[::3], rtol=1e-6, equal_nan=True
    ):
        raise ValueError(
            "activation must be elementwise; got one whose values depend on the rest of the array"
        )
    return z, half * weights * np.reshape(density, z.shape), y


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
    z, weights, y = _values(activation)
    with np.errstate(all="ignore"):
        square = (_slope(z, y) if of_slope else y) ** 2
        moment, end = _mean(weights, square), _mean(weights[[0, -1]], square[[0, -1]])
    if end > 1e-6 * moment:  # it grows like the density's reciprocal, or faster
        moment = math.inf
    if not 0 < moment < math.inf:
        raise ValueError(
            f"activation must have a {'slope with a ' * of_slope}finite second moment above 0;"
            f" got {moment}"
        )
    return float(f"{moment:.12g}")


def _slope(z: Array, y: Array) -> Array:
    """Return the derivative at each node of the polynomial through all nodes of its panel."""
    slope = np.zeros_like(y)
    x = z[0] - z[0].mean()  # nodes of a panel, of which the others are shifts
    scale = [math.prod(a - b for b in x if b != a) for a in x]
    for i in range(len(x)):
        for j in range(len(x)):
            if i != j:
                slope[:, i] += scale[i] / scale[j] / (x[i] - x[j]) * (y[:, j] - y[:, i])
    return slope


def odd_part(activation: Function) -> float:
    """Return the share of the odd part in the variance of f(z)."""
    _, weights, y = _values(activation)
    odd = (y - y[::-1, ::-1]) / 2
    variance = _mean(weights, (y - _mean(weights, y)) ** 2)
    return _mean(weights, odd * odd) / variance if variance > 0 else 0.0
