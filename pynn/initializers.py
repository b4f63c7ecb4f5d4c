"""Initial values for weights.

Why they matter (*Deep Learning from Scratch*, section 6.2): equal weights get equal updates and
stay equal, so they must be random; too wide a spread saturates the activations and the gradient
vanishes, too narrow a one makes all units say the same. The rules below keep the spread of
activations (and gradients) even from layer to layer.

============  ======================  ==========================================
rule          variance                for
============  ======================  ==========================================
``xavier_*``  1 / fan_in              sigmoid, tanh: the book's rule
``glorot_*``  2 / (fan_in + fan_out)  sigmoid, tanh: Glorot and Bengio (2010)
``he_*``      2 / fan_in              ReLU: He, Zhang, Ren and Sun (2015)
``lecun_*``   1 / fan_in              LeCun, Bottou, Orr and Müller (1998)
============  ======================  ==========================================

``kaiming_*`` is another name of ``he_*``, after the same author. For another activation,
``activation=`` puts its `gain` in place of the rule's constant, and `recommend` chooses the rule.

Each is one call of `variance_scaling`, and each is called alike::

    f(shape=None, *, rng=None, dtype=None, out=None, shard=None)

``out`` is filled in place: a NumPy array, any writable buffer, or a CPU tensor with DLPack.
``shard``, a tuple of slices of ``shape``, makes only that part of the whole, with the same bits: a
weight is a function of the seed and its index. (`orthogonal`, `delta_orthogonal` and `sparse` need
the whole, or whole columns, on the way.) Weights have layout (..., in, out), as ``x @ w`` wants;
``in_axis`` and ``out_axis`` say otherwise. PyTorch's are (out, in, ...): ``in_axis=1, out_axis=0``.

Names differ between libraries; ``preset`` says whose is meant:

==========  =======================================================================
preset      what differs
==========  =======================================================================
``book``    the table above; normals are not truncated
``torch``   ``xavier_*`` is the rule of ``glorot_*``; layout (out, in, ...)
``keras``   ``xavier_*`` likewise; ``*_normal`` is truncated at two standard
            deviations, and widened to the same variance
``jax``     as ``keras``
==========  =======================================================================

It also gives `normal`, `uniform` and `truncated_normal` that library's default parameters. The
distribution is that library's; the numbers for a seed are not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import _gain
from ._backend import functions
from ._checks import (
    assign,
    clamp,
    fill_value,
    integer,
    number,
    real,
    real_array,
    shard_bounds,
    shown,
    writable,
)
from ._orthogonal import orthonormal_columns
from .random import RNG, Shape, Shard, checked, draw, draw_into, fill_place, key, place, split

__all__ = [
    "Recommendation",
    "constant",
    "delta",
    "delta_orthogonal",
    "dirac",
    "eye",
    "gain",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "identity",
    "kaiming_normal",
    "kaiming_uniform",
    "lecun_normal",
    "lecun_uniform",
    "lsuv",
    "normal",
    "ones",
    "orthogonal",
    "recommend",
    "sparse",
    "torch_linear",
    "truncated_normal",
    "uniform",
    "variance_scaling",
    "xavier_normal",
    "xavier_uniform",
    "zeros",
]

_PRESETS = ("book", "torch", "keras", "jax")
# Standard deviation of a standard normal distribution cut off at -2 and 2, to the last bit as in
# JAX and Keras.
_TRUNCATED_AT_2 = 0.87962566103423978


def _preset(name: str, known: tuple[str, ...] = _PRESETS) -> str:
    if not isinstance(name, str) or name not in known:
        raise ValueError(f"preset must be one of {', '.join(map(repr, known))}; got {name!r}")
    return name


def variance_scaling(
    shape: Shape | None = None,
    scale: float = 1.0,
    mode: str = "fan_in",
    distribution: str = "normal",
    in_axis: int = -2,
    out_axis: int = -1,
    *,
    rng: RNG = None,
    dtype: npt.DTypeLike | None = None,
    out: Any = None,
    shard: Shard | None = None,
) -> Any:
    """Draw weights of variance ``scale / fan``.

    Parameters
    ----------
    shape : int or tuple of ints, optional
        Shape of the whole tensor, at least one axis. Without it, that of `out`.
    scale : float, default 1.0
        Positive; the variance of the weights is ``scale / fan``.
    mode : {"fan_in", "fan_out", "fan_avg", "fan_geo_avg"}
        Which fan: the number of inputs of a unit, the number of its outputs, or the arithmetic or
        geometric mean of both. The fans count all axes other than `in_axis` and `out_axis` (a convolution's) as the receptive
        field; of a shape with one axis both are its length. They come from `shape`, never from
        `shard`.
    distribution : {"normal", "truncated_normal", "uniform"}
        Normal of that variance; normal, cut off at two standard deviations and widened to that
        variance; or uniform from -a to a with a = sqrt(3 * variance).
    in_axis, out_axis : int, default -2 and -1
        The axes of inputs and outputs.
    rng : None, int, sequence of ints, SeedSequence or Generator
        Seed, or generator to take one from: see `pynn.random.key`.
    dtype : dtype, optional
        That of `out` or, without it, float32. float16, bfloat16 (of the package ml_dtypes), float32
        or float64; the half types get the float32 values, each rounded once, to nearest even.
    out : array, optional
        Writable memory of such a dtype to fill in place: a NumPy array of any strides (np.memmap
        too), an object with the buffer protocol, or a CPU tensor with DLPack. A tensor is filled like
        its ``.data``: autograd's version counter does not count it, so fill before a graph uses it.
    shard : tuple of slices, optional
        The part of `shape` to make, one slice of step 1 per axis. The result has the shard's shape,
        and the bits that this part has in the whole.

    Returns
    -------
    ndarray, or `out`

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; the message names it.

    Notes
    -----
    The rule of JAX's `variance_scaling` and Keras' `VarianceScaling`, with PyTorch's layout and
    gain as arguments. JAX' and Keras' "truncated_normal", Keras' default, has the same rule here;
    Keras' "untruncated_normal" is "normal" here. PyTorch's ``xavier_*`` are "fan_avg"; none
    of its rules is truncated.

    Examples
    --------
    >>> from pynn.initializers import variance_scaling
    >>> whole = variance_scaling((6, 4), 2.0, rng=0)
    >>> part = variance_scaling((6, 4), 2.0, rng=0, shard=(slice(2, 5), slice(None)))
    >>> (part == whole[2:5]).all()
    np.True_
    """
    for name, value in (("mode", mode), ("distribution", distribution)):
        if not isinstance(value, str):
            raise TypeError(f"{name} must be a str; got {value!r}")
    where = place(shape, dtype, out, shard)
    fan_in, fan_out = _fans(where[1], in_axis, out_axis)
    if mode == "fan_in":
        fan: float = fan_in
    elif mode == "fan_out":
        fan = fan_out
    elif mode == "fan_avg":
        fan = (fan_in + fan_out) / 2
    elif mode == "fan_geo_avg":
        fan = math.sqrt(fan_in * fan_out)
    else:
        known = "'fan_in', 'fan_out', 'fan_avg', 'fan_geo_avg'"
        raise ValueError(f"mode must be one of {known}; got {mode!r}")
    positive = number("scale", scale)
    if not positive > 0:
        raise ValueError(f"scale must be positive; got {scale!r}")
    variance = positive / max(fan, 1)  # a fan of 0 has no weights
    parameters: dict[str, float]
    if distribution == "normal":
        parameters = {"mean": 0.0, "std": math.sqrt(variance)}
    elif distribution == "truncated_normal":
        std = math.sqrt(variance) / _TRUNCATED_AT_2
        parameters = {"mean": 0.0, "std": std, "lower": -2.0, "upper": 2.0}
    elif distribution == "uniform":
        limit = math.sqrt(3 * variance)
        parameters = {"low": -limit, "high": limit}
    else:
        known = "'normal', 'truncated_normal' or 'uniform'"
        raise ValueError(f"distribution must be {known}; got {distribution!r}")
    return draw_into(where, distribution, parameters, rng)


def _fans(shape: tuple[int, ...], in_axis: int, out_axis: int) -> tuple[int, int]:
    """Return the number of inputs and of outputs of a unit."""
    n = len(shape)
    plain = type(in_axis) is int and type(out_axis) is int
    if plain and n == 2 and in_axis == -2 and out_axis == -1:
        return shape[0], shape[1]
    if n == 0:
        raise ValueError("shape must have at least one axis to have fans; got ()")
    for name, axis in (("in_axis", in_axis), ("out_axis", out_axis)):
        most = max(n, 2)  # of one axis, those of a matrix do, as the defaults are
        if not -most <= integer(name, axis) < most:
            raise ValueError(f"{name} must be an axis of shape {shape}; got {shown(axis)}")
    if n == 1:
        return shape[0], shape[0]
    if in_axis % n == out_axis % n:
        raise ValueError(
            f"in_axis and out_axis must differ; got {shown(in_axis)} and {shown(out_axis)} for shape {shape}"
        )
    field = math.prod(
        length for axis, length in enumerate(shape) if axis not in (in_axis % n, out_axis % n)
    )
    return shape[in_axis] * field, shape[out_axis] * field


def _rule(
    name: str, scale: float, mode: str, distribution: str, summary: str
) -> Callable[..., Any]:
    """Make an initializer that is one call of variance_scaling."""
    family = name.split("_")[0]

    def initializer(
        shape: Shape | None = None,
        *,
        in_axis: int | None = None,
        out_axis: int | None = None,
        activation: _gain.Function | None = None,
        preset: str = "book",
        rng: RNG = None,
        dtype: npt.DTypeLike | None = None,
        out: Any = None,
        shard: Shard | None = None,
    ) -> Any:
        fan, kind, axes = mode, distribution, (-2, -1)
        if not isinstance(preset, str) or preset != "book":
            if _preset(preset) == "torch":
                axes = (1, 0)
                if family == "lecun":
                    raise ValueError(
                        f"preset must be another one: PyTorch has no {name}; got {preset!r}"
                    )
            elif kind == "normal":
                kind = "truncated_normal"
            if family == "xavier":
                fan = "fan_avg"
        return variance_scaling(
            shape,
            scale if activation is None else 1 / _gain.second_moment(activation),
            fan,
            kind,
            axes[0] if in_axis is None else in_axis,
            axes[1] if out_axis is None else out_axis,
            rng=rng,
            dtype=dtype,
            out=out,
            shard=shard,
        )

    initializer.__name__ = initializer.__qualname__ = name
    initializer.__doc__ = f"""{summary}

    Parameters
    ----------
    shape, rng, dtype, out, shard
        As in `variance_scaling`, of which this is ``variance_scaling(shape, {scale}, "{mode}",
        "{distribution}")``.
    in_axis, out_axis : int, optional
        The axes of inputs and outputs; the default is the preset's layout, 1 and 0 for "torch",
        else -2 and -1.
    activation : str, ufunc or callable, optional
        ``gain(activation)**2`` takes the place of the scale, {scale}.
    preset : {{"book", "torch", "keras", "jax"}}
        Whose rule the name stands for: the module's docstring has the table.

    Returns
    -------
    ndarray, or `out`

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; the message names it.

    Notes
    -----
    The module's docstring says where the rule comes from, and what it is called in PyTorch, Keras
    and JAX.

    Examples
    --------
    >>> import pynn
    >>> w = pynn.initializers.{name}((784, 100), rng=0)
    >>> w.shape, w.dtype
    ((784, 100), dtype('float32'))
    """
    return initializer


xavier_normal = _rule(
    "xavier_normal",
    1.0,
    "fan_in",
    "normal",
    "Normal, standard deviation 1 / sqrt(fan_in): the book's Xavier rule.",
)
xavier_uniform = _rule(
    "xavier_uniform",
    1.0,
    "fan_in",
    "uniform",
    "Uniform of the variance of the book's Xavier rule, 1 / fan_in.",
)
glorot_normal = _rule(
    "glorot_normal",
    1.0,
    "fan_avg",
    "normal",
    "Normal, standard deviation sqrt(2 / (fan_in + fan_out)).",
)
glorot_uniform = _rule(
    "glorot_uniform", 1.0, "fan_avg", "uniform", "Uniform within sqrt(6 / (fan_in + fan_out)) of 0."
)
he_normal = _rule(
    "he_normal", 2.0, "fan_in", "normal", "Normal, standard deviation sqrt(2 / fan_in): for ReLU."
)
he_uniform = _rule(
    "he_uniform", 2.0, "fan_in", "uniform", "Uniform within sqrt(6 / fan_in) of 0: for ReLU."
)
lecun_normal = _rule(
    "lecun_normal", 1.0, "fan_in", "normal", "Normal, standard deviation 1 / sqrt(fan_in)."
)
lecun_uniform = _rule(
    "lecun_uniform", 1.0, "fan_in", "uniform", "Uniform within sqrt(3 / fan_in) of 0."
)
kaiming_normal, kaiming_uniform = he_normal, he_uniform


def torch_linear(
    shape: Shape | None = None,
    *,
    in_axis: int = 1,
    out_axis: int = 0,
    rng: RNG = None,
    dtype: npt.DTypeLike | None = None,
    out: Any = None,
    shard: Shard | None = None,
) -> Any:
    """Draw the weights that `torch.nn.Linear` and its convolutions start with.

    Uniform within 1 / sqrt(fan_in) of 0: ``kaiming_uniform_(a=sqrt(5))``.

    Parameters
    ----------
    shape, rng, dtype, out, shard
        As in `variance_scaling`.
    in_axis, out_axis : int, default 1 and 0
        PyTorch's layout, (out, in, ...).

    Returns
    -------
    ndarray, or `out`

    Notes
    -----
    PyTorch draws the bias from the same interval: ``uniform(n, -a, a)`` with a = fan_in ** -0.5.

    Examples
    --------
    >>> import pynn
    >>> w = pynn.initializers.torch_linear((100, 64), rng=0)
    >>> bool(abs(w).max() <= 64**-0.5)
    True
    """
    axes = in_axis, out_axis
    more: dict[str, Any] = dict(rng=rng, dtype=dtype, out=out, shard=shard)
    return variance_scaling(shape, 1 / 3, "fan_in", "uniform", *axes, **more)


def normal(
    shape: Shape | None = None,
    mean: float = 0.0,
    std: float | None = None,
    *,
    preset: str = "book",
    rng: RNG = None,
    dtype: npt.DTypeLike | None = None,
    out: Any = None,
    shard: Shard | None = None,
) -> Any:
    """Draw weights from a normal distribution.

    Parameters
    ----------
    shape, rng, dtype, out, shard
        As in `variance_scaling`.
    mean : float, default 0.0
        Mean.
    std : float, optional
        Standard deviation. The default is the preset's: 0.01, the book's first choice, also for
        "jax"; 0.05 for "keras"; 1 for "torch".
    preset : {"book", "torch", "keras", "jax"}
        Whose default `std` has.

    Returns
    -------
    ndarray, or `out`

    Examples
    --------
    >>> import pynn
    >>> w = pynn.initializers.normal((784, 100), std=0.01, rng=0)
    >>> round(float(w.std()), 4)
    0.01
    """
    std = _STD[_preset(preset)] if std is None else std
    return draw("normal", {"mean": mean, "std": std}, shape, rng, dtype, out, shard)


_STD = {"book": 0.01, "jax": 0.01, "keras": 0.05, "torch": 1.0}
_RANGE = {"book": (-0.05, 0.05), "jax": (0.0, 0.01), "keras": (-0.05, 0.05), "torch": (0.0, 1.0)}


def truncated_normal(
    shape: Shape | None = None,
    mean: float = 0.0,
    std: float | None = None,
    lower: float = -2.0,
    upper: float = 2.0,
    *,
    preset: str = "book",
    rng: RNG = None,
    dtype: npt.DTypeLike | None = None,
    out: Any = None,
    shard: Shard | None = None,
) -> Any:
    """Draw weights from a normal distribution cut off at two bounds.

    Parameters
    ----------
    shape, rng, dtype, out, shard
        As in `variance_scaling`.
    mean, std, preset
        As in `normal`, of the distribution before it is cut off.
    lower, upper : float, default -2.0 and 2.0
        The bounds, in standard deviations from the mean; either may be infinite. With
        ``preset="torch"`` they are PyTorch's a and b, in the units of the weights, and no weight
        lies beyond (unless its dtype has no number between them). Between them lies at least
        2**-64 of the distribution.

    Returns
    -------
    ndarray, or `out`

    Notes
    -----
    Drawn by inversion: `pynn.random.truncated_normal`. JAX' `truncated_normal` is this with
    ``preset="jax"``, Keras' TruncatedNormal with ``preset="keras"`` and the default bounds,
    PyTorch's ``trunc_normal_`` with ``preset="torch"``. None of them widens the distribution to
    make up for the tails; `variance_scaling` does.

    Examples
    --------
    >>> import pynn
    >>> w = pynn.initializers.truncated_normal((784, 100), std=0.01, rng=0)
    >>> round(float(abs(w).max()), 4)
    0.02
    """
    std = _STD[_preset(preset)] if std is None else std
    given = {"mean": mean, "std": std, "lower": lower, "upper": upper}
    where = place(shape, dtype, out, shard)
    if preset != "torch":
        return draw_into(where, "truncated_normal", given, rng)
    a, b = real("lower", lower), real("upper", upper)
    if not a < b:
        raise ValueError(f"lower must be less than upper; got {shown(lower)} and {shown(upper)}")
    centre, spread = number("mean", mean), number("std", std, least=0)
    bounds = {"lower": -math.inf, "upper": math.inf}
    if spread > 0:
        bounds = {"lower": (a - centre) / spread, "upper": (b - centre) / spread}
    elif not a <= centre <= b:
        raise ValueError(
            f"mean must lie between lower and upper where std is 0; got {mean!r} and"
            f" {shown(lower)} to {shown(upper)}"
        )
    values = checked(where, "truncated_normal", {"mean": mean, "std": std, **bounds}, given)
    fill_place(where, "truncated_normal", values, key(rng))
    clamp(where[0], a, b)  # mean + z * std may be rounded beyond
    return where[-1]


def uniform(
    shape: Shape | None = None,
    low: float | None = None,
    high: float | None = None,
    *,
    preset: str = "book",
    rng: RNG = None,
    dtype: npt.DTypeLike | None = None,
    out: Any = None,
    shard: Shard | None = None,
) -> Any:
    """Draw weights from a uniform distribution, low <= weight < high.

    Parameters
    ----------
    shape, rng, dtype, out, shard
        As in `variance_scaling`.
    low, high : float, optional
        The half-open interval. The defaults are the preset's: -0.05 and 0.05 for "book" and
        "keras", 0 and 0.01 for "jax", 0 and 1 for "torch".
    preset : {"book", "torch", "keras", "jax"}
        Whose defaults `low` and `high` have.

    Returns
    -------
    ndarray, or `out`

    Examples
    --------
    >>> import pynn
    >>> w = pynn.initializers.uniform((784, 100), rng=0)
    >>> w.shape, w.dtype
    ((784, 100), dtype('float32'))
    """
    least, most = _RANGE[_preset(preset)]
    interval = {"low": least if low is None else low, "high": most if high is None else high}
    return draw("uniform", interval, shape, rng, dtype, out, shard)


def constant(
    shape: Shape | None = None,
    value: float = 0.0,
    *,
    rng: RNG = None,
    dtype: npt.DTypeLike | None = None,
    out: Any = None,
    shard: Shard | None = None,
) -> Any:
    """Fill with one value: good for biases. Weights that start equal would stay equal.

    Parameters
    ----------
    shape, dtype, out, shard
        As in `variance_scaling`.
    value : float, default 0.0
        The value; infinity and NaN are kept, but a number that is too large for the dtype is not
        turned into infinity.
    rng
        Not used; it is here so that all initializers are called alike.

    Returns
    -------
    ndarray, or `out`

    Examples
    --------
    >>> import pynn
    >>> pynn.initializers.constant((2, 2), 0.5)
    array([[0.5, 0.5],
           [0.5, 0.5]], dtype=float32)
    """
    array, _, _, _, result = place(shape, dtype, out, shard)
    assign(array, fill_value("value", value, array.dtype))
    return result


def zeros(
    shape: Shape | None = None,
    *,
    rng: RNG = None,
    dtype: npt.DTypeLike | None = None,
    out: Any = None,
    shard: Shard | None = None,
) -> Any:
    """Fill with zeros: `constant` with value 0.

    Examples
    --------
    >>> import pynn
    >>> pynn.initializers.zeros(3)
    array([0., 0., 0.], dtype=float32)
    """
    return constant(shape, 0.0, rng=rng, dtype=dtype, out=out, shard=shard)


def ones(
    shape: Shape | None = None,
    *,
    rng: RNG = None,
    dtype: npt.DTypeLike | None = None,
    out: Any = None,
    shard: Shard | None = None,
) -> Any:
    """Fill with ones: `constant` with value 1.

    Examples
    --------
    >>> import pynn
    >>> pynn.initializers.ones((1, 2), dtype="float64")
    array([[1., 1.]])
    """
    return constant(shape, 1.0, rng=rng, dtype=dtype, out=out, shard=shard)


def identity(
    shape: Shape | None = None,
    gain: float = 1.0,
    *,
    rng: RNG = None,
    dtype: npt.DTypeLike | None = None,
    out: Any = None,
    shard: Shard | None = None,
) -> Any:
    """Fill a matrix with `gain` on its diagonal and 0 elsewhere.

    Parameters
    ----------
    shape, dtype, out, shard
        As in `variance_scaling`; two axes, of any lengths.
    gain : float, default 1.0
        What stands on the diagonal.
    rng
        Not used.

    Returns
    -------
    ndarray, or `out`

    Notes
    -----
    `torch.nn.init.eye_` (which has no gain) and `keras.initializers.Identity`.

    Examples
    --------
    >>> import pynn
    >>> pynn.initializers.identity((2, 3))
    array([[1., 0., 0.],
           [0., 1., 0.]], dtype=float32)
    """
    array, whole, _, _, result = place(shape, dtype, out, shard)
    if len(whole) != 2:
        raise ValueError(f"shape must have two axes for an identity; got {whole}")
    diagonal = number("gain", gain, dtype=array.dtype)
    (row, row_end), (column, column_end) = shard_bounds(shard, whole)
    assign(array, 0.0)
    first = max(row, column)
    last = max(first, min(row_end, column_end))
    square = array[first - row : last - row, first - column : last - column]
    assign(np.einsum("ii->i", square), diagonal)  # a view
    return result


eye = identity


def dirac(
    shape: Shape | None = None,
    groups: int = 1,
    *,
    in_axis: int | None = None,
    out_axis: int | None = None,
    preset: str = "book",
    rng: RNG = None,
    dtype: npt.DTypeLike | None = None,
    out: Any = None,
    shard: Shard | None = None,
) -> Any:
    """Fill a convolution's kernel so that it passes its input on, as far as there are outputs.

    Parameters
    ----------
    shape, dtype, out, shard
        As in `variance_scaling`; three axes or more.
    groups : int, default 1
        The outputs come in so many groups, each of which passes on the first inputs.
    in_axis, out_axis : int, optional
        The axes of inputs and outputs; the default is the preset's layout, 1 and 0 for "torch",
        else -2 and -1.
    preset : {"book", "torch", "keras", "jax"}
        Whose layout it is.
    rng
        Not used.

    Returns
    -------
    ndarray, or `out`

    Notes
    -----
    `torch.nn.init.dirac_`: the 1 stands at index length // 2 of the other axes. JAX and Keras have
    none.

    Examples
    --------
    >>> import numpy as np, pynn
    >>> w = pynn.initializers.dirac((3, 2, 2))
    >>> np.argwhere(w).tolist()
    [[1, 0, 0], [1, 1, 1]]
    """
    array, whole, _, _, result = place(shape, dtype, out, shard)
    axes = _kernel_axes(whole, in_axis, out_axis, preset)
    outputs = whole[axes[1]]
    if outputs % integer("groups", groups, least=1):
        raise ValueError(f"groups must divide {outputs}, the outputs; got {shown(groups)}")
    bounds = shard_bounds(shard, whole)
    centre = _zeros_but_centre(array, axes, [n // 2 for n in whole], bounds)
    (first_in, last_in), (first_out, last_out) = bounds[axes[0]], bounds[axes[1]]
    if centre is not None and centre.size:
        out_index = np.arange(last_out - first_out)
        in_index = out_index.astype(np.uint64) + np.uint64(first_out)
        if groups > 1:
            in_index %= np.uint64(outputs // groups)
        there = (in_index >= first_in) & (in_index < last_in)
        in_index -= np.uint64(first_in)
        one = np.empty((), array.dtype)
        assign(one, 1.0)
        centre[in_index[there].astype(np.intp), out_index[there]] = one
    return result


delta = dirac


def _kernel_axes(
    whole: tuple[int, ...], in_axis: int | None, out_axis: int | None, preset: str
) -> tuple[int, int]:
    """Return the axes of the inputs and outputs of a kernel of this shape."""
    if len(whole) < 3:
        raise ValueError(f"shape must have three axes or more, a convolution's; got {whole}")
    axes = (1, 0) if _preset(preset) == "torch" else (-2, -1)
    axes = axes[0] if in_axis is None else in_axis, axes[1] if out_axis is None else out_axis
    _fans(whole, *axes)  # checks them
    return axes[0] % len(whole), axes[1] % len(whole)


def _zeros_but_centre(
    array: Any, axes: tuple[int, int], centre: list[int], bounds: list[tuple[int, int]]
) -> Any:
    """Write zeros; view the matrix (in, out) at the centre of the receptive field, None if it lies elsewhere."""
    assign(array, 0.0)
    field = [axis for axis in range(array.ndim) if axis not in axes]
    if not all(bounds[axis][0] <= centre[axis] < bounds[axis][1] for axis in field):
        return None
    index: list[Any] = [slice(None)] * array.ndim
    for axis in field:
        index[axis] = centre[axis] - bounds[axis][0]
    matrix = array[tuple(index)]
    return matrix if axes[0] < axes[1] else matrix.T


def orthogonal(
    shape: Shape | None = None,
    gain: float = 1.0,
    column_axis: int | None = None,
    *,
    preset: str = "book",
    rng: RNG = None,
    dtype: npt.DTypeLike | None = None,
    out: Any = None,
    shard: Shard | None = None,
) -> Any:
    """Draw a matrix with orthonormal rows or columns, whichever are fewer, times `gain`.

    Parameters
    ----------
    shape, rng, dtype, out
        As in `variance_scaling`; two axes or more.
    gain : float, default 1.0
        The length of the rows or columns.
    column_axis : int, optional
        The axis of the columns; all others make up the rows. The default is the preset's: the first
        for "torch", else the last.
    preset : {"book", "torch", "keras", "jax"}
        Whose default `column_axis` has.
    shard : tuple of slices, optional
        As in `variance_scaling`. No element can be had without the others: the whole is made first,
        in memory of 8 bytes an element and more, and the shard copied from it.

    Returns
    -------
    ndarray, or `out`

    Notes
    -----
    Uniform over all such matrices (Haar measure): the orthonormal factor of a matrix of normal
    numbers, signs set so that the triangular factor's diagonal is positive (Mezzadri, 2007). From
    Householder reflections on `pynn.affine`, in float64, rounded at the end: the bits obey the
    contract. JAX' and PyTorch's functions of the same name and Keras' OrthogonalInitializer draw
    from the same distribution by LAPACK, whose bits depend on the machine. Saxe, McClelland and
    Ganguli (2014).

    Examples
    --------
    >>> import numpy as np, pynn
    >>> w = pynn.initializers.orthogonal((5, 3), rng=0, dtype="float64")
    >>> bool(np.allclose(w.T @ w, np.eye(3)))
    True
    """
    array, whole, _, _, result = place(shape, dtype, out, shard)
    if len(whole) < 2:
        raise ValueError(f"shape must have two axes or more to be orthogonal; got {whole}")
    axis = column_axis
    if axis is None:
        axis = 0 if _preset(preset) == "torch" else -1
    if not -len(whole) <= integer("column_axis", axis) < len(whole):
        raise ValueError(f"column_axis must be an axis of shape {whole}; got {shown(axis)}")
    moved = tuple(n for i, n in enumerate(whole) if i != axis % len(whole))
    length = number("gain", gain, dtype=array.dtype)
    matrix = _orthonormal(math.prod(moved), whole[axis], rng, whole) * length
    matrix = np.moveaxis(matrix.reshape(*moved, whole[axis]), -1, axis)
    assign(array, matrix[tuple(slice(*b) for b in shard_bounds(shard, whole))])
    return result


def _float64(shape: tuple[int, int], whole: tuple[int, ...]) -> Any:
    """Make the array in which the whole of a shape is computed, or columns of it."""
    try:
        return np.empty(shape, np.float64)
    except (MemoryError, OverflowError, ValueError) as error:
        kind = MemoryError if isinstance(error, MemoryError) else ValueError
        raise kind(
            f"shape must be one of which float64 numbers fit into memory; got {whole}: {error}"
        ) from None


def _orthonormal(rows: int, columns: int, rng: RNG, whole: tuple[int, ...]) -> Any:
    """Orthonormal columns, or rows if they are fewer, of a random matrix in float64."""
    shape = max(rows, columns), min(rows, columns)
    numbers = _float64(shape, whole)
    functions().fill(numbers, "normal", key(rng), 0.0, 1.0)
    q = orthonormal_columns(numbers)
    return q if rows >= columns else q.T


def delta_orthogonal(
    shape: Shape | None = None,
    gain: float = 1.0,
    *,
    in_axis: int | None = None,
    out_axis: int | None = None,
    preset: str = "book",
    rng: RNG = None,
    dtype: npt.DTypeLike | None = None,
    out: Any = None,
    shard: Shard | None = None,
) -> Any:
    """Draw a convolution's kernel that is an orthogonal matrix at its centre and 0 elsewhere.

    Parameters
    ----------
    shape, in_axis, out_axis, preset
        As in `dirac`; no more inputs than outputs.
    rng, dtype, out
        As in `variance_scaling`.
    gain, shard
        As in `orthogonal`: the whole matrix is made first.

    Returns
    -------
    ndarray, or `out`

    Notes
    -----
    JAX' `delta_orthogonal`: Xiao et al. (2018). The centre is index (length - 1) // 2.

    Examples
    --------
    >>> import numpy as np, pynn
    >>> w = pynn.initializers.delta_orthogonal((3, 2, 4), rng=0, dtype="float64")
    >>> bool(np.allclose(w[1] @ w[1].T, np.eye(2))), bool(w[0].any())
    (True, False)
    """
    array, whole, _, _, result = place(shape, dtype, out, shard)
    axes = _kernel_axes(whole, in_axis, out_axis, preset)
    if whole[axes[0]] > whole[axes[1]]:
        raise ValueError(f"shape must have no more inputs than outputs; got {whole}")
    length = number("gain", gain, dtype=array.dtype)
    matrix = _orthonormal(whole[axes[0]], whole[axes[1]], rng, whole) * length
    bounds = shard_bounds(shard, whole)
    centre = _zeros_but_centre(array, axes, [(n - 1) // 2 for n in whole], bounds)
    if centre is not None:
        assign(centre, matrix[tuple(slice(*bounds[axis]) for axis in axes)])
    return result


def sparse(
    shape: Shape | None = None,
    sparsity: float = 0.9,
    std: float = 0.01,
    *,
    rng: RNG = None,
    dtype: npt.DTypeLike | None = None,
    out: Any = None,
    shard: Shard | None = None,
) -> Any:
    """Draw a matrix of normal numbers, of which a share in each column is 0.

    Parameters
    ----------
    shape, rng, dtype, out
        As in `variance_scaling`; two axes.
    sparsity : float, default 0.9
        ceil(sparsity * rows) elements of each column are 0; from 0 to 1.
    std : float, default 0.01
        Standard deviation of the others.
    shard : tuple of slices, optional
        As in `variance_scaling`. Which elements of a column are 0 is found from the whole column.

    Returns
    -------
    ndarray, or `out`

    Notes
    -----
    Martens (2010); `torch.nn.init.sparse_`, with the same meaning of rows and columns. JAX and
    Keras have none.

    Examples
    --------
    >>> import pynn
    >>> w = pynn.initializers.sparse((10, 4), 0.3, rng=0)
    >>> (w == 0).sum(axis=0)
    array([3, 3, 3, 3])
    """
    where = place(shape, dtype, out, shard)
    array, whole, _, _, result = where
    if len(whole) != 2:
        raise ValueError(f"shape must have two axes to be sparse; got {whole}")
    share = number("sparsity", sparsity, least=0)
    if share > 1:
        raise ValueError(f"sparsity must be at most 1; got {sparsity!r}")
    values = checked(where, "normal", {"mean": 0.0, "std": std})
    lots = _float64((array.shape[1], whole[0]), whole)  # a column's lie side by side
    root = key(rng)
    fill_place(where, "normal", values, root)
    (row, row_end), (column, _) = shard_bounds(shard, whole)
    # one row needs no stride, which might be 2**64
    more = dict(start=column, index_strides=(whole[1] if whole[0] > 1 else 0, 1))
    functions().fill(lots.T, "uniform", split(root, 1), 0.0, 1.0, **more)
    count = math.ceil(share * whole[0])
    # a few MB at a time: Python handles signals between them
    step = max(1, 2**20 // max(whole[0], 1))
    for i in range(0, len(lots), step):
        zero = _smallest(lots[i : i + step], count).T
        array[:, i : i + step][zero[row:row_end]] = 0
    return result


def _smallest(rows: Any, count: int) -> Any:
    """Say which numbers are the `count` smallest of their row, of equal ones the first."""
    if count == 0:
        return np.zeros(rows.shape, bool)
    found = rows <= np.partition(rows, count - 1, axis=1)[:, count - 1 : count]
    for i in np.flatnonzero(found.sum(axis=1) > count):
        found[i] = False
        found[i, np.argsort(rows[i], kind="stable")[:count]] = True
    return found


def lsuv(
    network: Any, batch: npt.ArrayLike, *, tolerance: float = 0.01, steps: int = 10, rng: RNG = None
) -> Any:
    """Set a network's weights so that each layer's outputs on a batch have unit variance.

    Parameters
    ----------
    network : pynn.networks.MultiLayerNet
        Its weights are written in place, one layer after the other: an orthogonal matrix, divided by
        the standard deviation of what the layer makes of the batch (before the activation) until
        that is 1. Biases are left as they are. It has no batch normalization; dropout is left out here.
    batch : array of shape (m, input_size) or (m, ...)
        Inputs as they come in training; a few hundred do.
    tolerance : float, default 0.01
        How far from 1 the variance may be.
    steps : int, default 10
        The most divisions for a layer.
    rng : optional
        Seed, or generator to take one from: see `pynn.random.key`.

    Returns
    -------
    network

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or a layer's outputs on the batch do not vary. The
        weights are then as they were.

    Notes
    -----
    Layer-sequential unit-variance initialization: Mishkin and Matas (2016). The sums are exact, so
    the weights obey the contract. PyTorch, Keras and JAX have none.

    Examples
    --------
    >>> import pynn
    >>> net = pynn.networks.MultiLayerNet(20, [30], 5, rng=0)
    >>> x = pynn.random.normal((200, 20), rng=1)
    >>> _ = pynn.initializers.lsuv(net, x, rng=2)
    >>> round(float(pynn.affine(x, net.params["W1"]).std()), 2)
    1.0
    """
    if not hasattr(network, "params") or not hasattr(network, "activation"):
        raise TypeError(f"network must be a MultiLayerNet; got {type(network).__name__}")
    number("tolerance", tolerance, least=0)
    integer("steps", steps, least=1)
    if getattr(network, "use_batchnorm", False):
        raise ValueError(
            "network must have no batch normalization, which itself gives outputs of unit variance"
        )
    f, params = functions(), network.params
    layers = sum(name.startswith("W") for name in params)
    for i in range(1, layers + 1):
        writable(f"params['W{i}']", params[f"W{i}"])
    x = real_array("batch", batch, network.dtype)
    inputs = params["W1"].shape[0]
    if x.ndim < 2 or len(x) == 0 or math.prod(x.shape[1:]) != inputs:
        raise ValueError(f"batch must have one row or more of {inputs} inputs; got shape {x.shape}")
    x, root = x.reshape(len(x), inputs), key(rng)
    made = []  # put in place once all are
    for i in range(1, layers + 1):
        w, b = np.empty_like(params[f"W{i}"]), params[f"b{i}"]
        orthogonal(out=w, rng=split(root, i))
        for _ in range(steps):
            z = f.affine(x, w, b).astype(np.float64).ravel()
            mean = math.fsum(z) / z.size
            variance = math.fsum((z - mean) ** 2) / z.size
            if not 0 < variance < math.inf:
                raise ValueError(f"batch must make layer {i} vary; its variance is {variance}")
            if abs(variance - 1) <= tolerance:
                break
            w /= w.dtype.type(math.sqrt(variance))
        x = f.affine(x, w, b, network.activation if i < layers else None)
        made.append(w)
    for i, w in enumerate(made, start=1):
        params[f"W{i}"][...] = w
    return network


def gain(activation: _gain.Function, direction: str = "forward") -> float:
    """Find the factor that keeps the spread of what passes through an activation.

    Parameters
    ----------
    activation : str, ufunc or callable
        One of `pynn.ACTIVATIONS` by name or ufunc, or any function of a float64 array, elementwise.
    direction : {"forward", "backward"}
        "forward": 1 / sqrt(E f(z)^2) with z standard normal. Weights of variance gain^2 / fan_in
        keep the second moment of the activations from layer to layer. "backward": 1 / sqrt(E
        f'(z)^2), which with fan_out does so for the gradients.

    Returns
    -------
    float
        Rounded to 12 digits, so that it is the same on every machine.

    Raises
    ------
    TypeError, ValueError
        If the activation is none of these, or its moment is 0 or infinite. (Of a singularity within the line, as 1 / z has, the
        quadrature sees a finite part.)

    Notes
    -----
    By Gaussian quadrature on 96 panels from -12 to 12: one Gauss-Hermite formula over the whole line
    converges slowly at a kink, as ReLU's, and panels that meet there do not. A panel in which the
    function is not the polynomial through its nodes is halved, up to 36 times, which finds kinks
    and jumps wherever they are. The slope is that polynomial's; a jump has none. What float32 or a
    half type rounds is seen as noise: the gain is that of the function without it, to about 6 or
    3 digits.

    For "relu" it is sqrt(2), as PyTorch's `calculate_gain`; for "tanh" 1.592, where PyTorch has 5/3.
    PyTorch knows a list of names, and raises for gelu, silu, elu, mish.

    Examples
    --------
    >>> from pynn.initializers import gain
    >>> round(gain("relu"), 6), round(gain("tanh"), 4)
    (1.414214, 1.5925)
    """
    if direction not in ("forward", "backward"):
        raise ValueError(f"direction must be 'forward' or 'backward'; got {direction!r}")
    return math.sqrt(1 / _gain.second_moment(activation, direction == "backward"))


class Recommendation(NamedTuple):
    """What `recommend` says.

    Attributes
    ----------
    initializer : str
        Name of a function of this module.
    gain : float
        ``gain(activation)``; the square is the rule's scale.
    reason : str
        One sentence.

    Examples
    --------
    >>> import pynn
    >>> pynn.initializers.Recommendation._fields
    ('initializer', 'gain', 'reason')
    """

    initializer: str
    gain: float
    reason: str


def recommend(activation: _gain.Function) -> Recommendation:
    """Say which initializer suits an activation, with which gain, and why.

    Parameters
    ----------
    activation : str, ufunc or callable
        As in `gain`.

    Returns
    -------
    Recommendation
        Use as ``getattr(pynn.initializers, r.initializer)(shape, activation=activation)``.

    Notes
    -----
    The book's rule made general. It gives Xavier for functions that are odd, or odd but for a
    constant (tanh, sigmoid), and He for all others (ReLU and its relatives, which let one side pass).

    Examples
    --------
    >>> import pynn
    >>> pynn.initializers.recommend("relu")
    Recommendation(initializer='he_normal', gain=1.4142135623730951, reason="not odd, like ReLU: in place of ReLU's 2 / fan_in, 2 / fan_in keeps the spread.")
    """
    found = gain(activation)
    symmetric = _gain.odd_part(activation) > 0.99
    if symmetric:
        why = "odd but for a constant, like tanh: 1 / fan_in times the square of the gain"
        return Recommendation("xavier_normal", found, why + f", {found:.4g}, keeps the spread.")
    why = "not odd, like ReLU: in place of ReLU's 2 / fan_in"
    return Recommendation("he_normal", found, why + f", {found**2:.4g} / fan_in keeps the spread.")
