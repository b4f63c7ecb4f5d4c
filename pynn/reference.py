"""pynn in pure NumPy: the specification, written to be read.

Every function here has the name, the arguments and the meaning of the compiled one; each forward
stands beside its backward. ``PYNN_BACKEND=numpy`` or ``pynn.use_backend("numpy")`` runs the layers
and networks on this module. What it does not promise is pynn's bits: NumPy sums in an order of its
own and its ``exp`` differs from machine to machine. Only Philox and uniform numbers are equal to
the last bit.

The formulas of the activations hold in any precision. Given an object array of high-precision
numbers with methods ``exp``, ``expm1``, ``log1p`` and ``tanh``, they compute in that precision.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import math
import statistics
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from ._checks import assign, number
from .activations import Activation

__all__ = [
    "ACTIVATIONS",
    "affine",
    "affine_backward",
    "fill",
    "glu_halves",
    "glu_halves_backward",
    "log_softmax",
    "log_softmax_backward",
    "logsumexp",
    "logsumexp_backward",
    "pack",
    "philox4x32",
    "prelu",
    "prelu_backward",
    "softmax",
    "softmax_backward",
    "softmin",
    "softmin_backward",
]

Array = npt.NDArray[Any]


def _types(*operands: npt.ArrayLike, objects: bool = False) -> tuple[np.dtype[Any], np.dtype[Any]]:
    """Find what operands are computed in (float32, float64 or, where allowed, object), and the type of results.

    These differ for float16 and bfloat16, which are computed in float32.
    """
    arrays = [np.asarray(a) for a in operands if not isinstance(a, int | float)]
    numbers = [a for a in operands if isinstance(a, int | float)]
    dtype = np.result_type(*arrays) if arrays else np.dtype(np.float64)
    if dtype.name != "bfloat16":  # which does not know what to make of Python's numbers
        dtype = np.result_type(dtype, *numbers)
    if dtype.kind in "biu":
        dtype = np.dtype(np.float64)
    elif dtype.char == "e" or dtype.name == "bfloat16":
        return np.dtype(np.float32), dtype.newbyteorder("=")
    elif dtype.char not in ("fdO" if objects else "fd"):
        raise TypeError(f"pynn computes in float32 and float64; got operands of dtype {dtype}")
    dtype = dtype.newbyteorder("=")
    return dtype, dtype


def _floats(*operands: npt.ArrayLike, objects: bool = False) -> list[Array]:
    """The operands as arrays of one dtype: float32, float64 or, where allowed, object."""
    dtype, _ = _types(*operands, objects=objects)
    return [np.asarray(a, dtype) for a in operands]


# ---- Activations: y = f(x), and dx = f_backward(dy, what f saves) = dy * f'(x) -------------------

_formulas: dict[str, Callable[..., Any]] = {}


def _elementwise(formula: Callable[..., Any]) -> Callable[..., Any]:
    """Make a formula take what a pynn ufunc takes, without floating-point warnings."""

    signature = inspect.signature(formula)

    @functools.wraps(formula)
    def function(*operands: npt.ArrayLike, **parameters: npt.ArrayLike) -> Any:
        given = signature.bind(*operands, **parameters).arguments
        dtype, result = _types(*given.values(), objects=True)
        with np.errstate(all="ignore"):
            values = formula(**{name: np.asarray(a, dtype) for name, a in given.items()})
            return np.asarray(values, dtype).astype(result, copy=False)[()]

    _formulas[formula.__name__] = function
    return function


def _passed(on: Any, dy: Array, saved: Array, slope: Any = 1) -> Any:
    """dy times the slope where `on`, elsewhere 0, even for an infinite dy. NaN stays."""
    whole = (dy == dy) & (saved == saved)
    return np.where(whole, np.where(on, dy * slope, 0), dy + saved)


def _valid(on: Any, values: Any) -> Any:
    """Keep values where a parameter is one that the function has; elsewhere NaN."""
    return np.where(on, values, np.nan)


_FAR = 5000


def _within(x: Array) -> Any:
    """Bring x to where exp(-x) is a number of its type, far beyond where results are limits."""
    return np.minimum(np.maximum(x, _as(x, -_FAR)), _as(x, _FAR))


def _beyond(x: Array, y: Any) -> Any:
    """Return y = x g(x), and its limit -0.0 for x = -inf."""
    return np.where(x == -np.inf, -0.0, y)


def _as(x: Array, constant: Any) -> Any:
    """Return a constant as a number, or numbers, of the type of x, a finite one if that is object."""
    return constant + 0 * x if x.dtype == object else x.dtype.type(constant)


def _sigmoid(x: Array) -> Any:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


_SQRT_2_OVER_PI = 0.7978845608028654
_INVERSE_SQRT_2_PI = np.longdouble("0.39894228040143267793994605993438187")


def _gelu_line(x: Array) -> Any:
    return 2 * _SQRT_2_OVER_PI * (x + 0.044715 * x * x * x)


def _mish_ratio(x: Array) -> tuple[Any, Any]:
    """Return the numerator and denominator of tanh(log(1 + E)) = (E + 2) E / ((E + 2) E + 2).

    E is exp(x); for x >= 0 both are divided by its square.
    """
    e = np.exp(-np.abs(x))
    top = np.where(x < 0, (e + 2) * e, 1 + 2 * e)
    return top, top + np.where(x < 0, 2, 2 * e * e)


def _exp_half_square(x: Array) -> Any:
    """exp(-x^2 / 2), where x^2 is not rounded: h = x to 1/64 has few digits, and so has h^2."""
    if x.dtype == object:
        return np.exp(-x * x / 2)
    h = np.rint(x * 64) / 64
    return np.exp(-h * h / 2) * np.exp(-(x - h) * (x + h) / 2)


def _normal_cdf(x: Array) -> Any:
    """Normal distribution function, in any precision up to 64 bits to its last few."""
    if x.dtype == object:  # the numbers know erfc
        return np.frompyfunc(lambda v: (-v / 2 * (0 * v + 2).sqrt()).erfc() / 2, 1, 1)(x)
    a = np.minimum(np.abs(x), 200)
    bell = _exp_half_square(a)
    # |x| < 1: 1/2 + x phi(x) (1 + x^2/3 + x^4/(3 5) + ...)
    near = np.where(a < 1, x, 0)
    term = near / near.dtype.type(1)
    series = term
    for n in range(1, 20):
        term = term * near * near / (2 * n + 1)
        series = series + term
    near_result = _as(x, 0.5) + _as(x, _INVERSE_SQRT_2_PI) * bell * series
    # Else Phi(-a) = e^(-a^2 / 2) h/pi t (1/(2 t^2) + sum of e^(-k^2 h^2) / (t^2 + k^2 h^2)) + 1 / (1 - e^(2 pi t / h))
    # with t = a / sqrt(2): the trapezoidal rule and its residue (Chiarella and Reichel 1968).
    h, pi = _as(x, 0.375), _as(x, np.longdouble("3.14159265358979323846264338327950288"))
    t = np.where(a < 1, 1, a) * np.sqrt(_as(x, 0.5))
    total = 1 / (2 * t * t)
    for k in range(1, 19):
        total = total + np.exp(-((k * h) * (k * h))) / (t * t + (k * h) * (k * h))
    residue = 1 / (1 - np.exp(np.minimum(2 * pi * t / h, _FAR)))
    residue = np.where(t < pi / h, residue, 0)
    tail = bell * (h / pi) * t * total + residue
    return np.where(a < 1, near_result, np.where(x < 0, tail, 1 - tail)) + 0 * x


@_elementwise
def relu(x: Array) -> Any:
    """max(x, 0)."""
    return np.maximum(x, 0) + 0  # + 0: a -0.0 becomes 0.0


@_elementwise
def relu_backward(dy: Array, y: Array) -> Any:
    """Pass dy on where y > 0; elsewhere 0, even for an infinite dy. NaN, unlike itself, stays."""
    return _passed(y > 0, dy, y)


@_elementwise
def relu6(x: Array) -> Any:
    """min(max(x, 0), 6)."""
    return np.minimum(np.maximum(x, 0) + 0, 6)


@_elementwise
def relu6_backward(dy: Array, y: Array) -> Any:
    """Pass dy on where 0 < y < 6."""
    return _passed((y > 0) & (y < 6), dy, y)


@_elementwise
def leaky_relu(x: Array, slope: Any = 0.01) -> Any:
    """x where x > 0, else slope x."""
    return _valid(slope == slope, np.where(x > 0, x, slope * x))


@_elementwise
def leaky_relu_backward(dy: Array, y: Array, slope: Any = 0.01) -> Any:
    """Pass dy on where y > 0, else slope dy, for a slope of 0 or more. NaN, unlike itself, stays."""
    return _valid(slope >= 0, np.where(y > 0, dy, np.where(y == y, slope * dy, y)))


@_elementwise
def prelu(x: Array, slope: Array) -> Any:
    """x where x > 0, else slope x, with a slope to be learned.

    Examples
    --------
    >>> from pynn import reference
    >>> reference.prelu([-2.0, 2.0], 0.25)
    array([-0.5,  2. ])
    """
    return _valid(slope == slope, np.where(x > 0, x, slope * x))


def prelu_backward(dy: npt.ArrayLike, x: npt.ArrayLike, slope: npt.ArrayLike) -> tuple[Any, Any]:
    """Compute dx, and what each element adds to the gradient of its slope.

    Examples
    --------
    >>> from pynn import reference
    >>> reference.prelu_backward([1.0, 1.0], [-2.0, 2.0], 0.25)
    (array([0.25, 1.  ]), array([-2.,  0.]))
    """
    return _prelu_dx(dy, x, slope), _prelu_dslope(dy, x, slope)


@_elementwise
def _prelu_dx(dy: Array, x: Array, slope: Array) -> Any:
    return np.where((x == x) & (slope == slope), np.where(x > 0, dy, slope * dy), x + slope)


@_elementwise
def _prelu_dslope(dy: Array, x: Array, slope: Array) -> Any:
    return np.where(slope == slope, _passed(x < 0, dy, x, x), slope)


@_elementwise
def elu(x: Array, alpha: Any = 1) -> Any:
    """x where x > 0, else alpha (exp(x) - 1)."""
    left = alpha * np.expm1(np.where(x > 0, _as(x, 0), x))
    return _valid(alpha == alpha, np.where(x > 0, x, left))


@_elementwise
def elu_backward(dy: Array, y: Array, alpha: Any = 1) -> Any:
    """The slope is 1 where y > 0, else alpha exp(x) = alpha + y, for an alpha of 0 or more."""
    return _valid(alpha >= 0, np.where(y > 0, dy, dy * (alpha + y)))


@_elementwise
def celu(x: Array, alpha: Any = 1) -> Any:
    """x where x > 0, else alpha (exp(x / alpha) - 1), for an alpha above 0."""
    left = alpha * np.expm1(np.where(x > 0, _as(x, 0), x) / alpha)
    return _valid(alpha > 0, np.where(x > 0, x, left))


@_elementwise
def celu_backward(dy: Array, y: Array, alpha: Any = 1) -> Any:
    """The slope is 1 where y > 0, else exp(x / alpha) = 1 + y / alpha."""
    return _valid(alpha > 0, np.where(y > 0, dy, dy * ((alpha + y) / alpha)))


_SELU_SCALE, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


@_elementwise
def selu(x: Array) -> Any:
    """scale times x where x > 0, else scale * alpha * (exp(x) - 1)."""
    return _SELU_SCALE * np.where(x > 0, x, _SELU_ALPHA * np.expm1(np.where(x > 0, _as(x, 0), x)))


@_elementwise
def selu_backward(dy: Array, y: Array) -> Any:
    """The slope is scale where y > 0, else scale * alpha * exp(x) = scale * alpha + y."""
    left = (1.7580993408473766 + y) + 5.75014648756476e-17  # scale * alpha in two parts
    return dy * np.where(y > 0, _SELU_SCALE, left)


@_elementwise
def gelu(x: Array) -> Any:
    """x Phi(x), with the normal distribution function Phi."""
    return _beyond(x, x * _normal_cdf(_within(x)))


@_elementwise
def gelu_backward(dy: Array, x: Array) -> Any:
    """The slope is Phi(x) + x phi(x), with the normal density phi."""
    x = _within(x)
    return _passed(
        x > -_FAR, dy, x, (_normal_cdf(x) + x * _exp_half_square(x) * _as(x, _INVERSE_SQRT_2_PI))
    )


@_elementwise
def gelu_tanh(x: Array) -> Any:
    """x / 2 (1 + tanh(z)) = x sigmoid(2 z), with z = sqrt(2 / pi) (x + 0.044715 x^3)."""
    return _beyond(x, x * _sigmoid(_gelu_line(_within(x))))


@_elementwise
def gelu_tanh_backward(dy: Array, x: Array) -> Any:
    """The slope is s (1 + x 2 dz/dx (1 - s)), with s = sigmoid(2 z)."""
    x = _within(x)
    z, steepness = _gelu_line(x), 2 * _SQRT_2_OVER_PI * (1 + 3 * _as(x, 0.044715) * x * x)
    return _passed(x > -_FAR, dy, x, (_sigmoid(z) * (1 + x * steepness * _sigmoid(-z))))


@_elementwise
def quick_gelu(x: Array) -> Any:
    """x sigmoid(1.702 x)."""
    return _beyond(x, x * _sigmoid(1.702 * _within(x)))


@_elementwise
def quick_gelu_backward(dy: Array, x: Array) -> Any:
    """The slope is s (1 + z (1 - s)), with z = 1.702 x and s = sigmoid(z)."""
    x = _within(x)
    z = 1.702 * x
    return _passed(x > -_FAR, dy, x, (_sigmoid(z) * (1 + z * _sigmoid(-z))))


@_elementwise
def silu(x: Array) -> Any:
    """x sigmoid(x)."""
    return _beyond(x, x * _sigmoid(_within(x)))


@_elementwise
def silu_backward(dy: Array, x: Array) -> Any:
    """The slope is s (1 + x (1 - s)), with s = sigmoid(x)."""
    x = _within(x)
    return _passed(x > -_FAR, dy, x, (_sigmoid(x) * (1 + x * _sigmoid(-x))))


@_elementwise
def mish(x: Array) -> Any:
    """x tanh(log(1 + exp(x)))."""
    top, bottom = _mish_ratio(_within(x))
    return _beyond(x, x * (top / bottom))


@_elementwise
def mish_backward(dy: Array, x: Array) -> Any:
    """The slope is t + x (1 - t^2) sigmoid(x), with t = tanh(log(1 + exp(x)))."""
    x = _within(x)
    top, bottom = _mish_ratio(x)
    e, t = np.exp(-np.abs(x)), top / bottom
    rest = np.where(x < 0, 2, 2 * e * e) / bottom  # 1 - t
    return _passed(x > -_FAR, dy, x, (t + x * rest * (1 + t) * _sigmoid(x)))


@_elementwise
def sigmoid(x: Array) -> Any:
    """1 / (1 + exp(-x)), from the exp that cannot overflow."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


@_elementwise
def sigmoid_backward(dy: Array, y: Array) -> Any:
    """The slope is y (1 - y)."""
    return dy * (y * (1 - y))


@_elementwise
def log_sigmoid(x: Array) -> Any:
    """log(sigmoid(x)) = -log(1 + exp(-x))."""
    return -(np.maximum(-x, 0) + np.log1p(np.exp(-np.abs(x))))


@_elementwise
def log_sigmoid_backward(dy: Array, y: Array) -> Any:
    """The slope is sigmoid(-x) = 1 - exp(y); a y above 0, which no x gives, counts as 0."""
    return dy * -np.expm1(np.minimum(y, 0))


@_elementwise
def tanh(x: Array) -> Any:
    """Hyperbolic tangent of x."""
    return np.tanh(x)


@_elementwise
def tanh_backward(dy: Array, y: Array) -> Any:
    """The slope is 1 - y^2, here without cancellation."""
    return dy * ((1 - y) * (1 + y))


@_elementwise
def tanh_shrink(x: Array) -> Any:
    """x - tanh(x); near 0 as (x cosh(x) - sinh(x)) / cosh(x), the numerator from its series."""
    near = np.where(np.abs(x) < 1, x, _as(x, 0))
    square, term, total = near * near, near / 2, 0 * near
    for n in range(1, 30):  # square^n near / (2n + 1)! * 2n
        term = term * square / ((2 * n) * (2 * n + 1))
        total = total + 2 * n * term
    return np.where(np.abs(x) < 1, 2 * total / np.cosh(near) + 0 * x, x - np.tanh(x))


@_elementwise
def tanh_shrink_backward(dy: Array, x: Array) -> Any:
    """The slope is tanh(x)^2."""
    return dy * np.tanh(x) * np.tanh(x)


@_elementwise
def softplus(x: Array, beta: Any = 1) -> Any:
    """log(1 + exp(beta x)) / beta, from the exp that cannot overflow; beta is above 0."""
    z = beta * x
    return _valid(beta > 0, (np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))) / beta)


@_elementwise
def softplus_backward(dy: Array, y: Array, beta: Any = 1) -> Any:
    """The slope is sigmoid(beta x) = 1 - exp(-beta y); a y below 0, which no x gives, counts as 0."""
    return _valid(beta > 0, dy * -np.expm1(-beta * np.maximum(y, 0)))


@_elementwise
def squareplus(x: Array, b: Any = 4) -> Any:
    """(x + sqrt(x^2 + b)) / 2, for x < 0 as b / 2 / (sqrt(x^2 + b) - x); b is 0 or more."""
    total = np.abs(x) + np.sqrt(x * x + b)
    return _valid(b >= 0, np.where(x < 0, b / 2 / total, total / 2))


@_elementwise
def squareplus_backward(dy: Array, y: Array, b: Any = 4) -> Any:
    """The slope is (1 + x / sqrt(x^2 + b)) / 2 = y^2 / (c + y^2), c = b / 4, and 1 for y = inf."""
    c, inverse = b / 4, 1 / np.where(y > 1, y, 1)
    slope = np.where(y > 1, dy / (1 + c * inverse * inverse), dy * y * (y / (c + y * y)))
    return _valid(b >= 0, np.where(b == 0, _passed(y > 0, dy, y), slope))


@_elementwise
def softsign(x: Array) -> Any:
    """x / (1 + |x|), for an infinite x its limit."""
    return np.where(np.abs(x) == np.inf, np.sign(x), x / (1 + np.abs(x)))


@_elementwise
def softsign_backward(dy: Array, y: Array) -> Any:
    """The slope is 1 / (1 + |x|)^2 = (1 - |y|)^2."""
    return dy * ((1 - np.abs(y)) * (1 - np.abs(y)))


@_elementwise
def hard_sigmoid(x: Array) -> Any:
    """(x + 3) / 6, between 0 and 1."""
    return np.minimum(np.maximum(x + 3, 0), 6) / 6


@_elementwise
def hard_sigmoid_backward(dy: Array, y: Array) -> Any:
    """The slope is 1/6 where 0 < y < 1."""
    return np.where((y > 0) & (y < 1), dy / 6, _passed(False, dy, y))


@_elementwise
def hard_swish(x: Array) -> Any:
    """x hard_sigmoid(x)."""
    inside = np.minimum(np.maximum(x, -3), 3)
    return np.where(x <= -3, 0, np.where(x >= 3, x, inside * (inside + 3) / 6))


@_elementwise
def hard_swish_backward(dy: Array, x: Array) -> Any:
    """The slope is (2x + 3) / 6 between -3 and 3, 0 below, 1 above."""
    return _passed(x > -3, dy, x, np.where(x >= 3, 1, (2 * x + 3) / 6))


@_elementwise
def hard_tanh(x: Array, min_val: Any = -1, max_val: Any = 1) -> Any:
    """x between min_val and max_val."""
    return _valid(min_val <= max_val, np.minimum(np.maximum(x, min_val), max_val))


@_elementwise
def hard_tanh_backward(dy: Array, y: Array, min_val: Any = -1, max_val: Any = 1) -> Any:
    """Pass dy on where min_val < y < max_val."""
    return _valid(min_val <= max_val, _passed((y > min_val) & (y < max_val), dy, y))


@_elementwise
def hard_shrink(x: Array, lambd: Any = 0.5) -> Any:
    """x where |x| > lambd, else 0; lambd is 0 or more."""
    return _valid(lambd >= 0, np.where(np.abs(x) <= lambd, 0, x))


@_elementwise
def hard_shrink_backward(dy: Array, y: Array, lambd: Any = 0.5) -> Any:
    """Pass dy on where y is not 0."""
    return _valid(lambd >= 0, _passed(y != 0, dy, y))


@_elementwise
def soft_shrink(x: Array, lambd: Any = 0.5) -> Any:
    """x - lambd sign(x) where |x| > lambd, else 0; lambd is 0 or more."""
    moved = x - np.where(x < 0, -lambd, lambd)
    return _valid(lambd >= 0, np.where(np.abs(x) <= lambd, 0, moved))


@_elementwise
def soft_shrink_backward(dy: Array, y: Array, lambd: Any = 0.5) -> Any:
    """Pass dy on where y is not 0."""
    return _valid(lambd >= 0, _passed(y != 0, dy, y))


@_elementwise
def threshold(x: Array, threshold: Any = 0, value: Any = 0) -> Any:
    """x where x > threshold, else value."""
    return _valid(threshold == threshold, np.where(x <= threshold, value, x))


@_elementwise
def threshold_backward(dy: Array, x: Array, threshold: Any = 0, value: Any = 0) -> Any:
    """Pass dy on where x > threshold."""
    return _valid(threshold == threshold, _passed(x > threshold, dy, x))


@_elementwise
def exponential(x: Array) -> Any:
    """Exponential function of x."""
    return np.exp(x)


@_elementwise
def exponential_backward(dy: Array, y: Array) -> Any:
    """The slope is y."""
    return dy * y


@_elementwise
def linear(x: Array) -> Any:
    """x itself."""
    return x


@_elementwise
def linear_backward(dy: Array, y: Array) -> Any:
    """The slope is 1. NaN, unlike itself, stays."""
    return np.where(y == y, dy, y)


def _row(name: str, forward: Callable[..., Any], backward: Callable[..., Any]) -> Activation:
    """Read off a backward's signature what is saved, its second argument, and the parameters, which have defaults."""
    _, saved, *parameters = inspect.signature(backward).parameters.values()
    defaults = {p.name: float(p.default) for p in parameters}
    return Activation(name, forward, backward, saved.name, MappingProxyType(defaults))


# An activation is a formula with a backward.
ACTIVATIONS: Mapping[str, Activation] = MappingProxyType(
    {
        name: _row(name, forward, _formulas[f"{name}_backward"])
        for name, forward in _formulas.items()
        if f"{name}_backward" in _formulas
    }
)


# ---- Softmax -------------------------------------------------------------------------------------


def softmax(x: npt.ArrayLike, axis: int = -1) -> Array:
    """exp(x) / sum(exp(x)) along an axis; the largest x is taken off first, so no exp overflows.

    Examples
    --------
    >>> from pynn import reference
    >>> reference.softmax([[0.0, 0.0]])
    array([[0.5, 0.5]])
    """
    _, dtype = _types(x)
    (x,) = _floats(x)
    if x.ndim == 0:
        raise ValueError("x must have at least one dimension; got shape ()")
    with np.errstate(all="ignore"):
        e = np.exp(x - np.max(x, axis, keepdims=True, initial=-np.inf))
        y: Array = e / np.sum(e, axis, keepdims=True)
    return y.astype(dtype, copy=False)


def softmax_backward(dy: npt.ArrayLike, y: npt.ArrayLike, axis: int = -1) -> Array:
    """y * (dy - sum(dy * y)) along an axis; y is the output of softmax.

    Examples
    --------
    >>> from pynn import reference
    >>> reference.softmax_backward([[1.0, 0.0]], [[0.5, 0.5]])
    array([[ 0.25, -0.25]])
    """
    _, dtype = _types(dy, y)
    dy, y = _floats(dy, y)
    with np.errstate(all="ignore"):
        dx: Array = y * (dy - np.sum(dy * y, axis, keepdims=True))
    return dx.astype(dtype, copy=False)


def softmin(x: npt.ArrayLike, axis: int = -1) -> Array:
    """Softmax of -x.

    Examples
    --------
    >>> from pynn import reference
    >>> reference.softmin([[0.0, 0.0]])
    array([[0.5, 0.5]])
    """
    _, dtype = _types(x)
    return softmax(-_floats(x)[0], axis).astype(dtype, copy=False)


def softmin_backward(dy: npt.ArrayLike, y: npt.ArrayLike, axis: int = -1) -> Array:
    """y * (sum(dy * y) - dy) along an axis; y is the output of softmin.

    Examples
    --------
    >>> from pynn import reference
    >>> reference.softmin_backward([[1.0, 0.0]], [[0.5, 0.5]])
    array([[-0.25,  0.25]])
    """
    return -softmax_backward(dy, y, axis)


def _log_sum(x: Array, axis: int) -> tuple[Array, Array]:
    """Find the greatest x, and log(sum(exp(x - greatest))) without rounding a sum near 1 to 1."""
    greatest = np.max(x, axis, keepdims=True, initial=-np.inf)
    e = np.where(x == greatest, 0, np.exp(x - greatest))
    many = np.sum(x == greatest, axis, keepdims=True, dtype=x.dtype)
    return greatest, np.log1p(many - 1 + np.sum(e, axis, keepdims=True))


def log_softmax(x: npt.ArrayLike, axis: int = -1) -> Array:
    """x - logsumexp(x) along an axis.

    Examples
    --------
    >>> from pynn import reference
    >>> reference.log_softmax([[0.0, 0.0]]).round(4)
    array([[-0.6931, -0.6931]])
    """
    _, dtype = _types(x)
    (x,) = _floats(x)
    with np.errstate(all="ignore"):
        greatest, log = _log_sum(x, axis)
        y: Array = (x - greatest) - log
    return y.astype(dtype, copy=False)


def log_softmax_backward(dy: npt.ArrayLike, y: npt.ArrayLike, axis: int = -1) -> Array:
    """dy - exp(y) * sum(dy) along an axis; y is the output of log_softmax.

    Examples
    --------
    >>> from pynn import reference
    >>> reference.log_softmax_backward([[1.0, 0.0]], [[0.0, 0.0]])
    array([[ 0., -1.]])
    """
    _, dtype = _types(dy, y)
    dy, y = _floats(dy, y)
    with np.errstate(all="ignore"):
        dx: Array = dy - np.exp(y) * np.sum(dy, axis, keepdims=True)
    return dx.astype(dtype, copy=False)


def logsumexp(x: npt.ArrayLike, axis: int = -1) -> Any:
    """log(sum(exp(x))) along an axis, which it takes away.

    Examples
    --------
    >>> from pynn import reference
    >>> float(reference.logsumexp([1000.0, 1000.0]).round(4))
    1000.6931
    """
    _, dtype = _types(x)
    (x,) = _floats(x)
    with np.errstate(all="ignore"):
        greatest, log = _log_sum(x, axis)
        y = np.squeeze(greatest + (log if x.shape[axis] else 0), axis)
    return y.astype(dtype, copy=False)[()]


def logsumexp_backward(
    dy: npt.ArrayLike, x: npt.ArrayLike, y: npt.ArrayLike, axis: int = -1
) -> Array:
    """dy * exp(x - y), the axis restored; y is the output of logsumexp.

    Examples
    --------
    >>> from pynn import reference
    >>> reference.logsumexp_backward(2.0, [0.0, 1.0], 1.0).round(4)
    array([0.7358, 2.    ])
    """
    _, dtype = _types(dy, x, y)
    dy, x, y = _floats(dy, x, y)
    with np.errstate(all="ignore"):
        dx: Array = np.expand_dims(dy, axis) * np.exp(x - np.expand_dims(y, axis))
    return dx.astype(dtype, copy=False)


def glu_halves(a: npt.ArrayLike, b: npt.ArrayLike, axis: int = -1) -> Any:
    """A * sigmoid(b): glu of the two halves; the axis does not matter here.

    Examples
    --------
    >>> from pynn import reference
    >>> reference.glu_halves([4.0], [0.0])
    array([2.])
    """
    return _glu(a, b)


def glu_halves_backward(
    dy: npt.ArrayLike, a: npt.ArrayLike, b: npt.ArrayLike, axis: int = -1
) -> tuple[Any, Any]:
    """dy * sigmoid(b), and dy * a * sigmoid(b) * sigmoid(-b).

    Examples
    --------
    >>> from pynn import reference
    >>> reference.glu_halves_backward([1.0], [4.0], [0.0])
    (array([0.5]), array([1.]))
    """
    return _glu(dy, b), _glu_gate(dy, a, b)


@_elementwise
def _glu(a: Array, b: Array) -> Any:
    return a * _sigmoid(b)


@_elementwise
def _glu_gate(dy: Array, a: Array, b: Array) -> Any:
    return dy * (a * (_sigmoid(b) * _sigmoid(-b)))


# ---- Affine: y = activation(x @ w + b) -----------------------------------------------------------


def affine(
    x: npt.ArrayLike,
    w: npt.ArrayLike,
    b: npt.ArrayLike | None = None,
    activation: str | None = None,
    out: Array | None = None,
) -> Array:
    """x (..., in) @ w (in, out) + b (out,), then the activation.

    Examples
    --------
    >>> import numpy as np
    >>> from pynn import reference
    >>> reference.affine([[1.0, 2.0]], np.eye(2), [0.5, -5.0], activation="relu")
    array([[1.5, 0. ]])
    """
    x, w, *bias = _floats(x, w) if b is None else _floats(x, w, b)
    _check_shapes(x, w)
    f = _activation(activation)
    with np.errstate(all="ignore"):
        y: Array = np.asarray(x @ w)
        if bias:
            _check_shape("b", bias[0], w.shape[1:])
            y = y + bias[0]
    if f:
        y = np.asarray(f.forward(y))
    if out is not None:
        _check_out("out", out, y)
    return _into(out, y)


def pack(w: npt.ArrayLike) -> Array:
    """Take a read-only copy of w; NumPy's product has no use for more.

    Examples
    --------
    >>> import numpy as np
    >>> from pynn import reference
    >>> reference.pack(np.eye(2))
    array([[1., 0.],
           [0., 1.]])
    """
    if np.ndim(w) != 2:
        raise ValueError(f"w must be (in, out); got {np.shape(w)}")
    _floats(w)  # real numbers
    packed = np.array(w)
    packed.flags.writeable = False
    return packed


def affine_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    w: npt.ArrayLike,
    y: npt.ArrayLike | None = None,
    activation: str | None = None,
    need_dx: bool = True,
    out: tuple[Array | None, Array | None, Array | None] | None = None,
    accumulate: bool = False,
) -> tuple[Array | None, Array, Array]:
    """Compute dx, dw and db from dy, the gradient of affine's output, and y, that output.

    Where out gives an array, it gets the result; with accumulate, dw and db are added to theirs.

    Examples
    --------
    >>> import numpy as np
    >>> from pynn import reference
    >>> dx, dw, db = reference.affine_backward([[1.0, 2.0]], [[3.0, 4.0]], np.eye(2))
    >>> dw
    array([[3., 6.],
           [4., 8.]])
    """
    f = _activation(activation)
    if f and y is None:
        raise ValueError(f"y must be the output of affine with activation {f.name!r}; got None")
    if f and f.saves != "y":
        raise ValueError(f"activation {f.name!r} needs its input, which affine does not keep")
    dy, x, w, *saved = _floats(dy, x, w) if f is None or y is None else _floats(dy, x, w, y)
    _check_shapes(x, w)
    _check_shape("dy", dy, (*x.shape[:-1], w.shape[1]))
    if f:
        _check_shape("y", saved[0], dy.shape)
        dy = np.asarray(f.backward(dy, saved[0]))
    rows = math.prod(x.shape[:-1])
    x_rows, dy_rows = x.reshape(rows, w.shape[0]), dy.reshape(rows, w.shape[1])
    with np.errstate(all="ignore"):
        dx = dy @ w.T if need_dx else None
        dw, db = x_rows.T @ dy_rows, dy_rows.sum(axis=0)
    given = (None, None, None) if out is None else out
    if not isinstance(given, tuple):
        raise TypeError(f"out must be a tuple (dx, dw, db); got {type(given).__name__}")
    if len(given) != 3:
        raise ValueError(f"out must be a tuple (dx, dw, db); got one of {len(given)}")
    if dx is None and given[0] is not None:
        raise ValueError("dx in out must be None when need_dx is False")
    results = {"dx": dx, "dw": dw, "db": db}
    for (name, result), array in zip(results.items(), given, strict=True):
        if array is not None and result is not None:
            _check_out(f"{name} in out", array, result)
        elif accumulate and name != "dx":
            raise ValueError(f"{name} in out must be the array to accumulate in; got None")
    for one, other in itertools.combinations([a for a in given if a is not None], 2):
        if np.shares_memory(one, other):
            raise ValueError("arrays in out must be separate; got two that share memory")
    if accumulate and given[1] is not None and given[2] is not None:
        with np.errstate(all="ignore"):
            dw, db = given[1] + dw, given[2] + db
    return _into(given[0], dx) if dx is not None else None, _into(given[1], dw), _into(given[2], db)


def _check_shapes(x: Array, w: Array) -> None:
    if x.ndim < 1 or w.ndim != 2 or x.shape[-1] != w.shape[0]:
        raise ValueError(f"x must be (..., in) and w (in, out); got {x.shape} and {w.shape}")


def _check_shape(name: str, array: Array, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}; got {array.shape}")


def _check_out(name: str, out: Array, result: Array) -> None:
    if not isinstance(out, np.ndarray) or out.dtype != result.dtype:
        got = getattr(out, "dtype", type(out).__name__)
        raise TypeError(f"{name} must be an array of {result.dtype}; got {got}")
    _check_shape(name, out, result.shape)
    if not out.flags.writeable:
        raise ValueError(f"{name} must be writeable; got a read-only array")


def _into(out: Array | None, result: Array) -> Array:
    if out is None:
        return result
    out[...] = result
    return out


def _activation(name: str | None) -> Activation | None:
    if name is not None and name not in ACTIVATIONS:
        raise ValueError(
            f"activation must be None or one of {', '.join(ACTIVATIONS)}; got {name!r}"
        )
    return None if name is None else ACTIVATIONS[name]


# ---- Losses --------------------------------------------------------------------------------------


def softmax_loss(x: npt.ArrayLike, t: npt.ArrayLike) -> tuple[float, Array, Array]:
    """Return the mean cross-entropy of softmax(x) with labels, softmax(x), and the labels."""
    (x,) = _floats(x)
    t = _labels(t, x.shape)
    rows = x.reshape(t.size, -1).astype(np.float64)
    with np.errstate(all="ignore"):
        shifted = rows - rows.max(axis=1, keepdims=True)
        losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(t.size), t.ravel()]
    return float(losses.mean()), softmax(x), t


def softmax_loss_backward(y: npt.ArrayLike, t: npt.ArrayLike, scale: float) -> Array:
    """Return scale * (y - one-hot t)."""
    (y,) = _floats(y)
    t = _labels(t, y.shape)
    dx = y.copy()
    dx.reshape(t.size, -1)[np.arange(t.size), t.ravel()] -= 1
    return np.asarray(dx * scale)


def _labels(t: npt.ArrayLike, shape: tuple[int, ...]) -> Array:
    t = np.asarray(t)
    if not shape or shape[-1] == 0:
        raise ValueError(f"x must have shape (classes,) or (m, classes); got {shape}")
    if t.shape != shape[:-1]:
        raise ValueError(f"t must have shape {shape[:-1]}, or one-hot {shape}; got {t.shape}")
    if t.dtype.kind not in "iu":
        raise TypeError(f"t must be integer labels or one-hot rows; got labels of dtype {t.dtype}")
    if t.size == 0:
        raise ValueError(f"x must have rows to have a mean loss; got shape {shape}")
    if t.min() < 0 or t.max() >= shape[-1]:
        raise ValueError(f"t must be from 0 to {shape[-1] - 1}; got {t.min()} to {t.max()}")
    return t.astype(np.intp)


# name -> the loss of an element, and its slope by x; c is a parameter
_LOSSES: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "half_squared_error": (lambda x, t, c: (x - t) ** 2 / 2, lambda x, t, c: x - t),
    "huber": (
        lambda x, t, c: np.where(np.abs(x - t) > c, c * (np.abs(x - t) - c / 2), (x - t) ** 2 / 2),
        lambda x, t, c: np.clip(x - t, -c, c),
    ),
    "sigmoid_cross_entropy": (
        lambda x, t, c: (
            np.where(
                t == (x > 0),
                0,
                np.where(x == np.inf, x * (1 - t), np.maximum(x, 0) - x * t),
            )
            + np.log1p(np.exp(-np.abs(x)))
        ),
        lambda x, t, c: _sigmoid(x) - t,
    ),
    "binary_cross_entropy": (
        lambda x, t, c: -(t * np.log(x + c) + (1 - t) * np.log(1 - x + c)),
        lambda x, t, c: (1 - t) / (1 - x + c) - t / (x + c),
    ),
    "cross_entropy": (lambda x, t, c: -t * np.log(x + c), lambda x, t, c: -t / (x + c)),
}


def loss(name: str, x: npt.ArrayLike, t: npt.ArrayLike, parameter: float = 0.0) -> float:
    """Return the sum of an elementwise loss of x with targets t."""
    x, t = _floats(x, t)
    _check_shape("t", t, x.shape)
    with np.errstate(all="ignore"):
        return float(np.sum(_LOSSES[name][0](x, t, parameter), dtype=np.float64))


def loss_backward(
    name: str, x: npt.ArrayLike, t: npt.ArrayLike, scale: float = 1.0, parameter: float = 0.0
) -> Array:
    """Return scale times the slope of an elementwise loss by x."""
    x, t = _floats(x, t)
    _check_shape("t", t, x.shape)
    with np.errstate(all="ignore"):
        return np.asarray(scale * _LOSSES[name][1](x, t, parameter), x.dtype)


# ---- Dropout and normalizations ------------------------------------------------------------------


def dropout(x: npt.ArrayLike, key: int, start: int, ratio: float, scale: float = 1.0) -> Array:
    """Return scale * x where numbers start, start + 1, ... of a stream are >= ratio, else 0."""
    (x,) = _floats(x)
    uniform = np.empty(x.shape, np.float32)
    fill(uniform, "uniform", key, 0.0, 1.0, start=start)
    return np.asarray(np.where(uniform >= np.float32(ratio), x * scale, 0), x.dtype)


def batch_normalization(
    x: npt.ArrayLike,
    gamma: npt.ArrayLike,
    beta: npt.ArrayLike,
    mean: npt.ArrayLike | None,
    variance: npt.ArrayLike | None,
    eps: float,
) -> tuple[Array, Array, Array]:
    """Return gamma (x - mean) / sqrt(variance + eps) + beta by feature, mean and variance."""
    x, gamma, beta = _with_features(x, gamma, beta)
    if mean is None or variance is None:
        rows = x.reshape(-1, x.shape[-1]).astype(np.float64)
        if not len(rows):
            raise ValueError(f"x must have rows to take the mean of; got shape {x.shape}")
        mean, variance = rows.mean(axis=0), rows.var(axis=0)
    mean, variance = np.asarray(mean, np.float64), np.asarray(variance, np.float64)
    y: Array = (x - mean) / np.sqrt(variance + eps) * gamma + beta
    return y.astype(x.dtype), mean, variance


def batch_normalization_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    gamma: npt.ArrayLike,
    mean: Array,
    variance: Array,
    eps: float,
    fixed: bool,
) -> tuple[Array, Array, Array]:
    """Return the gradients dx, dgamma and dbeta; fixed: mean and variance are not those of x."""
    x, gamma, gradient = _with_features(x, gamma, like_x=dy)
    scale = 1 / np.sqrt(variance + eps)
    normalized, g = (x - mean) * scale, gradient.astype(np.float64)
    axes = tuple(range(x.ndim - 1))
    dbeta, dgamma = g.sum(axis=axes), (g * normalized).sum(axis=axes)
    if not fixed:
        g = g - (dbeta + normalized * dgamma) / max(1, x.size // x.shape[-1])
    dx: Array = g * gamma * scale
    return dx.astype(x.dtype), dgamma.astype(x.dtype), dbeta.astype(x.dtype)


def layer_normalization(
    x: npt.ArrayLike,
    gamma: npt.ArrayLike,
    beta: npt.ArrayLike | None,
    eps: float,
    centered: bool,
) -> tuple[Array, Array, Array]:
    """Return the same by row; not centered, mean is 0 and variance the mean square."""
    x, gamma, beta = _with_features(x, gamma, np.zeros_like(gamma) if beta is None else beta)
    wide = x.astype(np.float64)
    mean = wide.mean(axis=-1) if centered else np.zeros(x.shape[:-1])
    variance = ((wide - mean[..., None]) ** 2).mean(axis=-1)
    y: Array = (wide - mean[..., None]) / np.sqrt(variance + eps)[..., None] * gamma + beta
    return y.astype(x.dtype), mean.ravel(), variance.ravel()


def layer_normalization_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    gamma: npt.ArrayLike,
    mean: Array,
    variance: Array,
    eps: float,
    centered: bool,
) -> tuple[Array, Array, Array]:
    """Return the gradients dx, dgamma and dbeta."""
    x, gamma, gradient = _with_features(x, gamma, like_x=dy)
    scale = 1 / np.sqrt(variance + eps).reshape(*x.shape[:-1], 1)
    normalized, g = (x - mean.reshape(scale.shape)) * scale, gradient.astype(np.float64)
    axes = tuple(range(x.ndim - 1))
    dbeta, dgamma = g.sum(axis=axes), (g * normalized).sum(axis=axes)
    g = g * gamma
    rest = normalized * (g * normalized).mean(axis=-1, keepdims=True)
    dx = (g - (g.mean(axis=-1, keepdims=True) if centered else 0) - rest) * scale
    return dx.astype(x.dtype), dgamma.astype(x.dtype), dbeta.astype(x.dtype)


def _with_features(
    x: npt.ArrayLike, *per_feature: npt.ArrayLike, like_x: npt.ArrayLike | None = None
) -> list[Array]:
    operands = [x, *per_feature, *([] if like_x is None else [like_x])]
    arrays = _floats(*operands)
    if arrays[0].ndim < 1:
        raise ValueError(f"x must have shape (..., features); got {arrays[0].shape}")
    for array in arrays[1 : 1 + len(per_feature)]:
        _check_shape("gamma and beta", array, arrays[0].shape[-1:])
    if like_x is not None:
        _check_shape("dy", arrays[-1], arrays[0].shape)
    return arrays


# ---- Optimizers ----------------------------------------------------------------------------------


def update(
    optimizer: str,
    params: Mapping[Any, Array],
    grads: Mapping[Any, npt.ArrayLike],
    states: tuple[dict[Any, Array], ...],
    step: int,
    hyperparameters: tuple[float, ...],
    weight_decay: float = 0.0,
    decoupled: bool = False,
    clip_value: float | None = None,
    clip_norm: float | None = None,
) -> None:
    """Take a step of an optimizer, in place; missing states start at zero."""
    rule, names = _OPTIMIZERS[optimizer]
    checked = {
        name: number(name, h, least=0, below=math.inf if name in ("lr", "eps") else 1)
        for name, h in zip(names, hyperparameters)
    }
    decay = number("weight_decay", weight_decay, least=0)
    for name, bound in (("clip_value", clip_value), ("clip_norm", clip_norm)):
        if bound is not None:
            number(name, bound, least=0)
    triples = [(k, p, _gradient_of(k, p, grads)) for k, p in _parameters(params)]
    for key, param, _ in triples:
        for state in states:
            known = state.get(key)
            if known is not None and known.shape != param.shape:
                raise ValueError(
                    f"params[{key!r}] had shape {known.shape} before; got {param.shape}"
                )
    shrink = 1.0
    if clip_norm is not None:
        norm, factor = 0.0, 1.0
        for factor in (1.0, 2.0**-600):  # the second where squares are beyond float64
            with np.errstate(over="ignore"):
                scaled = [np.multiply(g, factor, dtype=np.float64) for _, _, g in triples]
                squares = [np.sum(np.square(g)) for g in scaled]
                norm = math.sqrt(sum(map(float, squares)))
            if norm != math.inf:
                break
        shrink = clip_norm / norm * factor if norm > clip_norm * factor else 1.0
    for key, param, grad in triples:
        s = [state.setdefault(key, np.zeros_like(param)) for state in states]
        g = grad * shrink
        if clip_value is not None:
            g = np.clip(g, -clip_value, clip_value)
        if decoupled:
            param *= 1 - checked["lr"] * decay
        elif decay:
            g = g + decay * param
        rule(param, g, s, step, **checked)


def _parameters(params: Mapping[Any, Array]) -> list[tuple[Any, Array]]:
    if not isinstance(params, Mapping):
        raise TypeError(f"params and grads must be dicts; got a {type(params).__name__} for params")
    for key, param in params.items():
        wanted = f"params[{key!r}] must be a float32 or float64 array, to be changed in place"
        if not isinstance(param, np.ndarray):
            raise TypeError(f"{wanted}; got {type(param).__name__}")
        if param.dtype not in (np.float32, np.float64):
            raise TypeError(f"{wanted}; got an array of {param.dtype!r}")
        if not param.flags.writeable:
            raise ValueError(f"params[{key!r}] must be writable; got a read-only array")
    return list(params.items())


def _gradient_of(key: Any, param: Array, grads: Mapping[Any, npt.ArrayLike]) -> Array:
    if not isinstance(grads, Mapping):
        raise TypeError(f"params and grads must be dicts; got a {type(grads).__name__} for grads")
    if key not in grads:
        raise ValueError(f"grads must have every key of params; got no {key!r}")
    grad = np.asarray(grads[key])
    if grad.shape != param.shape:
        raise ValueError(f"grads[{key!r}] must have shape {param.shape}; got {grad.shape}")
    if grad.dtype.kind not in "fiub":
        raise TypeError(f"grads[{key!r}] must be real numbers; got an array of {grad.dtype}")
    return grad.astype(param.dtype)


def _sgd(p: Array, g: Array, s: list[Array], step: int, lr: float) -> None:
    p -= lr * g


def _momentum(p: Array, g: Array, s: list[Array], step: int, lr: float, momentum: float) -> None:
    s[0] *= momentum
    s[0] -= lr * g
    p += s[0]


def _nesterov(p: Array, g: Array, s: list[Array], step: int, lr: float, momentum: float) -> None:
    s[0] *= momentum
    s[0] -= lr * g
    p += momentum * s[0] - lr * g


def _adagrad(p: Array, g: Array, s: list[Array], step: int, lr: float, eps: float) -> None:
    s[0] += g * g
    p -= lr * g / (np.sqrt(s[0]) + eps)


def _rmsprop(
    p: Array, g: Array, s: list[Array], step: int, lr: float, decay_rate: float, eps: float
) -> None:
    s[0] *= decay_rate
    s[0] += (1 - decay_rate) * g * g
    p -= lr * g / (np.sqrt(s[0]) + eps)


def _adam(
    p: Array,
    g: Array,
    s: list[Array],
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
) -> None:
    rate = lr * math.sqrt(1 - beta2**step) / (1 - beta1**step)
    s[0] += (1 - beta1) * (g - s[0])
    s[1] += (1 - beta2) * (g * g - s[1])
    p -= rate * s[0] / (np.sqrt(s[1]) + eps)


# name -> the rule, and the names of its hyperparameters
_OPTIMIZERS: dict[str, tuple[Callable[..., None], tuple[str, ...]]] = {
    "sgd": (_sgd, ("lr",)),
    "momentum": (_momentum, ("lr", "momentum")),
    "nesterov": (_nesterov, ("lr", "momentum")),
    "adagrad": (_adagrad, ("lr", "eps")),
    "rmsprop": (_rmsprop, ("lr", "decay_rate", "eps")),
    "adam": (_adam, ("lr", "beta1", "beta2", "eps")),
}


# ---- Random numbers ------------------------------------------------------------------------------


def philox4x32(counter: npt.ArrayLike, key: npt.ArrayLike) -> Array:
    """Ten rounds of Philox4x32: counter (..., 4) and key (..., 2) to (..., 4), all uint32.

    Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

    Examples
    --------
    >>> from pynn import reference
    >>> reference.philox4x32([0, 0, 0, 0], [0, 0])
    array([1713891541, 3781805453, 3159862348, 2600524760], dtype=uint32)
    """
    c0, c1, c2, c3 = np.moveaxis(np.asarray(counter, np.uint32).astype(np.uint64), -1, 0)
    k0, k1 = np.moveaxis(np.asarray(key, np.uint32).astype(np.uint64), -1, 0)
    low = 0xFFFFFFFF
    for _ in range(10):
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57  # 32 x 32 -> 64 bits
        c0, c1, c2, c3 = p1 >> 32 ^ c1 ^ k0, p1 & low, p0 >> 32 ^ c3 ^ k1, p0 & low
        k0, k1 = k0 + 0x9E3779B9 & low, k1 + 0xBB67AE85 & low
    return np.stack(np.broadcast_arrays(c0, c1, c2, c3), axis=-1).astype(np.uint32)


def fill(
    out: Array,
    distribution: str,
    key: int,
    *parameters: float,
    start: int = 0,
    index_strides: tuple[int, ...] | None = None,
) -> None:
    """Write random numbers into out. Each depends on the key and its index in the stream alone.

    "normal" takes loc and scale, "uniform" low and high (half-open), "truncated_normal" loc, scale,
    lower and upper, these in standard deviations. float16, and uint16 as the bits of bfloat16, get
    the float32 element rounded. ``out[idx]`` gets the element of index ``start + sum(idx * index_strides)``; the default strides are those of a C-order array,
    counted in elements.

    Examples
    --------
    >>> import numpy as np, pynn
    >>> out = np.empty(4)
    >>> pynn.reference.fill(out, "uniform", pynn.random.key(0), 0.0, 1.0)
    >>> bool((out == pynn.random.uniform(4, rng=0, dtype=float)).all())
    True
    """
    dtypes = (np.float32, np.float64, np.float16, np.uint16)
    if not isinstance(out, np.ndarray) or out.dtype not in dtypes:
        got = getattr(out, "dtype", type(out).__name__)
        raise TypeError(f"out must be an array of float32, float64, float16 or uint16; got {got}")
    if distribution not in _DISTRIBUTIONS:
        raise ValueError(f"distribution must be one of {[*_DISTRIBUTIONS]}; got {distribution!r}")
    if not 0 <= key < 2**64:
        raise ValueError(f"key must be an int of 64 bits; got {key!r}")
    if index_strides is None:
        index_strides = tuple(math.prod(out.shape[axis + 1 :]) for axis in range(out.ndim))
    if len(index_strides) != out.ndim:
        raise ValueError(f"index_strides must match out's axes {out.shape}; got {index_strides}")
    index = np.full(out.shape, start, np.uint64)
    for axis, stride in enumerate(index_strides):
        steps = np.arange(out.shape[axis], dtype=np.uint64) * np.uint64(stride % 2**64)
        index += steps.reshape(-1, *[1] * (out.ndim - 1 - axis))
    dtype = np.float64 if out.dtype == np.float64 else np.float32
    words, place = _words(index.ravel(), key, dtype)
    with np.errstate(all="ignore"):
        values = _DISTRIBUTIONS[distribution](words, place, *map(dtype, parameters))
        assign(out, values.astype(dtype).reshape(out.shape))


def _words(index: Array, key: int, dtype: type) -> tuple[Array, Array]:
    """Find each element's block of random words, (n, 4) or (n, 2), and the place of its own.

    A block is one output of Philox: four 32-bit words for float32, two words of 53 bits for
    float64. 16 blocks lie side by side: elements 0 to 15 are the first words of blocks 0 to 15,
    elements 16 to 31 their second words, and so on.
    """
    per_block = 4 if dtype is np.float32 else 2
    group, rest = np.divmod(index, 16 * per_block)
    place, lane = np.divmod(rest, 16)
    block = 16 * group + lane
    counter = np.zeros((len(index), 4), np.uint32)
    counter[:, 0], counter[:, 1] = block & 0xFFFFFFFF, block >> 32
    words: Array = philox4x32(counter, [key & 0xFFFFFFFF, key >> 32]).astype(np.uint64)
    if dtype is not np.float32:
        words = (words[:, ::2] | words[:, 1::2] << 32) >> 11
    return words, place.astype(np.intp)


def _take(words: Array, place: Array) -> Any:
    return np.take_along_axis(words, place[:, None], 1)[:, 0]


def _uniform(words: Array, place: Array, low: Any, high: Any) -> Array:
    """fma(u, high - low, low), u being the word's first 24 or 53 bits as a fraction; below high."""
    if not 0 <= high - low < np.inf:
        raise ValueError(f"low <= high is wanted, with a finite difference; got {low} and {high}")
    word = _take(words, place)
    u = (word >> 8) * 2.0**-24 if low.dtype == np.float32 else word * 2.0**-53
    value = fma(u.astype(low.dtype), high - low, low)
    below = np.nextafter(high, -np.inf, dtype=low.dtype)
    return np.where(value >= high, np.maximum(low, below), value)


def _normal(words: Array, place: Array, loc: Any, scale: Any) -> Array:
    """Box-Muller: two neighbouring words make two normals, one by the cosine, one by the sine.

    With words a and b of n bits, u = (a + 1/2) / 2^n and turn = (b + 1/2) / 2^n, and a normal is
    sqrt(-2 log(u)) cos(2 pi turn). Integers keep all digits of 1 - u and of what exceeds a quarter.
    """
    if not (0 <= scale < np.inf and abs(loc) < np.inf):
        raise ValueError(f"loc and scale must be finite, scale >= 0; got {loc} and {scale}")
    bits = 32 if loc.dtype == np.float32 else 53
    a, b = (_take(words, p).astype(np.int64) for p in (place & ~1, place | 1))
    u, rest = (a + 0.5) / 2**bits, (2**bits - 1 - a + 0.5) / 2**bits  # rest = 1 - u
    radius = np.sqrt(-2 * np.where(u < 0.5, np.log(u), np.log1p(-rest)))
    quarter = (b + 2 ** (bits - 3)) >> (bits - 2)  # the nearest
    angle = 2 * np.pi * (b - (quarter << (bits - 2)) + 0.5) / 2**bits
    cos, sin = np.cos(angle), np.sin(angle)
    turned = (quarter + 3 * (place % 2)) % 4  # sin(t) = cos(t + 3/4 turn)
    value: Array = loc.astype(float) + scale.astype(float) * (
        radius * np.choose(turned, [cos, -sin, -cos, sin])
    )
    return value


def _truncated_normal(
    words: Array, place: Array, loc: Any, scale: Any, lower: Any, upper: Any
) -> Array:
    """Invert the normal distribution function between its values at the two bounds.

    Of a word r of n bits (31 or 52), the share (r + 1/2) / 2^n of the probability between the
    bounds lies below the element, the rest above it. Whichever of the two probabilities in all is
    less than 1/2 keeps its digits, and is inverted.
    """
    if not (0 <= scale < np.inf and abs(loc) < np.inf and lower < upper):
        raise ValueError(
            "loc and scale must be finite, scale >= 0 and lower < upper;"
            f" got {loc}, {scale}, {lower} and {upper}"
        )
    bits, drop = (31, 1) if loc.dtype == np.float32 else (52, 1)
    low, high = float(lower), float(upper)
    below, above = _tail(-low), _tail(high)
    width = (
        _tail(low) - above if low > 0 else _tail(-high) - below if high < 0 else 1 - below - above
    )
    if not width >= 2.0**-64:
        raise ValueError(f"lower and upper must enclose more than {width}; got {lower} and {upper}")
    r = (_take(words, place) >> drop).astype(np.int64)
    left = below + (r + 0.5) * (width / 2**bits)
    right = above + (2**bits - 1 - r + 0.5) * (width / 2**bits)
    inverse = np.frompyfunc(statistics.NormalDist().inv_cdf, 1, 1)
    x = inverse(np.minimum(left, right)).astype(float)
    x = np.clip(np.where(left < right, x, -x), low, high)
    value: Array = loc.astype(float) + scale.astype(float) * x
    return value


def _tail(x: float) -> float:
    """Return the probability that a standard normal number is greater than x."""
    return math.erfc(x / math.sqrt(2)) / 2


_DISTRIBUTIONS: dict[str, Callable[..., Array]] = {
    "normal": _normal,
    "uniform": _uniform,
    "truncated_normal": _truncated_normal,
}


def fma(a: npt.ArrayLike, b: npt.ArrayLike, c: npt.ArrayLike) -> Array:
    """Compute a * b + c rounded once, for finite operands."""
    a, b, c = _floats(a, b, c)
    if a.dtype == np.float64:
        return np.asarray(np.frompyfunc(_fma64, 3, 1)(a, b, c), np.float64)
    product = a.astype(np.float64) * b  # exact: 24 + 24 bits
    total = product + c
    part = total - product
    lost = (product - (total - part)) + (c - part)  # what total lacks, exactly (Knuth's two-sum)
    # Rounding total to odd lets the rounding to float32 see that something was lost.
    even = total.view(np.int64) % 2 == 0
    total = np.where((lost != 0) & even, np.nextafter(total, np.copysign(np.inf, lost)), total)
    return total.astype(np.float32)


def _fma64(a: float, b: float, c: float) -> float:
    """Exact integers; their quotient is rounded once."""
    (n, d), (m, e), (p, q) = a.as_integer_ratio(), b.as_integer_ratio(), c.as_integer_ratio()
    return (n * m * q + p * d * e) / (d * e * q)
