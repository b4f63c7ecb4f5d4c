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

``kaiming_*`` is another name of ``he_*``, after the same author.

Each is one call of `variance_scaling`, and each is called alike::

    f(shape=None, *, rng=None, dtype=np.float32, out=None, shard=None)

``out`` is filled in place: a NumPy array, any writable buffer, or a CPU tensor with DLPack.
``shard``, a tuple of slices of ``shape``, makes only that part of the whole, with the same bits: a
weight is a function of the seed and its index. Weights have layout (..., in, out), as ``x @ w``
wants; ``in_axis`` and ``out_axis`` say otherwise. PyTorch's Linear is (out, in): ``in_axis=-1,
out_axis=-2``; its convolutions are (out, in, ...): ``in_axis=1, out_axis=0``.

Names differ between libraries. PyTorch's ``xavier_*`` and Keras' and JAX's ``glorot_*`` are
``glorot_*`` here; ``xavier_*`` here has the book's fan_in. PyTorch's ``kaiming_*`` default to the
gain of leaky ReLU with a=0, the gain of ``he_*`` here. Keras and JAX truncate their ``*_normal`` at
two standard deviations (and widen it to the same variance); here, as in PyTorch, it is not
truncated. No library gives another's numbers for a seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ._checks import integer, number, shape_tuple, writable
from .random import RNG, Shape, Shard, draw, place

__all__ = [
    "constant",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "kaiming_normal",
    "kaiming_uniform",
    "lecun_normal",
    "lecun_uniform",
    "normal",
    "ones",
    "uniform",
    "variance_scaling",
    "xavier_normal",
    "xavier_uniform",
    "zeros",
]


def variance_scaling(
    shape: Shape | None = None,
    scale: float = 1.0,
    mode: str = "fan_in",
    distribution: str = "normal",
    in_axis: int = -2,
    out_axis: int = -1,
    *,
    rng: RNG = None,
    dtype: npt.DTypeLike = np.float32,
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
    mode : {"fan_in", "fan_out", "fan_avg"}
        Which fan: the number of inputs of a unit, the number of its outputs, or the mean of both.
        Both count all axes other than `in_axis` and `out_axis` (a convolution's) as the receptive
        field; of a shape with one axis both are its length. They come from `shape`, never from
        `shard`.
    distribution : {"normal", "uniform"}
        Normal of that variance, or uniform from -a to a with a = sqrt(3 * variance).
    in_axis, out_axis : int, default -2 and -1
        The axes of inputs and outputs.
    rng : None, int, sequence of ints, SeedSequence or Generator
        Seed, or generator to take one from: see `pynn.random.key`.
    dtype : dtype, default float32
        float32 or float64; `out` brings its own.
    out : array, optional
        Writable float32 or float64 memory to fill in place: a NumPy array of any strides, an object
        with the buffer protocol, or a CPU tensor with DLPack (of one that requires a gradient, the
        data).
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
    gain as arguments. Keras' default "truncated_normal" is not offered; its "untruncated_normal" is
    "normal" here.

    Examples
    --------
    >>> from pynn.initializers import variance_scaling
    >>> whole = variance_scaling((6, 4), 2.0, rng=0)
    >>> part = variance_scaling((6, 4), 2.0, rng=0, shard=(slice(2, 5), slice(None)))
    >>> (part == whole[2:5]).all()
    np.True_
    """
    whole = writable("out", out).shape if shape is None and out is not None else shape_tuple(shape)
    shape = shape if shape is None else whole  # which may have been an iterator
    fan_in, fan_out = _fans(whole, in_axis, out_axis)
    fans = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}
    if mode not in fans:
        raise ValueError(f"mode must be one of {', '.join(map(repr, fans))}; got {mode!r}")
    if not number("scale", scale) > 0:
        raise ValueError(f"scale must be positive; got {scale!r}")
    variance = scale / max(fans[mode], 1)  # a fan of 0 has no weights
    if distribution == "normal":
        return normal(shape, 0.0, math.sqrt(variance), rng=rng, dtype=dtype, out=out, shard=shard)
    if distribution == "uniform":
        limit = math.sqrt(3 * variance)
        return uniform(shape, -limit, limit, rng=rng, dtype=dtype, out=out, shard=shard)
    raise ValueError(f"distribution must be 'normal' or 'uniform'; got {distribution!r}")


def _fans(shape: tuple[int, ...], in_axis: int, out_axis: int) -> tuple[int, int]:
    """Return the number of inputs and of outputs of a unit."""
    n = len(shape)
    if n == 0:
        raise ValueError("shape must have at least one axis to have fans; got ()")
    if n == 1:
        return shape[0], shape[0]
    for name, axis in (("in_axis", in_axis), ("out_axis", out_axis)):
        if not -n <= integer(name, axis) < n:
            raise ValueError(f"{name} must be an axis of shape {shape}; got {axis!r}")
    if in_axis % n == out_axis % n:
        raise ValueError(
            f"in_axis and out_axis must differ; got {in_axis!r} and {out_axis!r} for shape {shape}"
        )
    field = math.prod(
        length for axis, length in enumerate(shape) if axis not in (in_axis % n, out_axis % n)
    )
    return shape[in_axis] * field, shape[out_axis] * field


def _rule(
    name: str, scale: float, mode: str, distribution: str, summary: str
) -> Callable[..., Any]:
    """Make an initializer that is one call of variance_scaling."""

    def initializer(
        shape: Shape | None = None,
        *,
        in_axis: int = -2,
        out_axis: int = -1,
        rng: RNG = None,
        dtype: npt.DTypeLike = np.float32,
        out: Any = None,
        shard: Shard | None = None,
    ) -> Any:
        return variance_scaling(
            shape,
            scale,
            mode,
            distribution,
            in_axis,
            out_axis,
            rng=rng,
            dtype=dtype,
            out=out,
            shard=shard,
        )

    initializer.__name__ = initializer.__qualname__ = name
    initializer.__doc__ = f"""{summary}

    Parameters
    ----------
    shape, in_axis, out_axis, rng, dtype, out, shard
        As in `variance_scaling`, of which this is ``variance_scaling(shape, {scale}, "{mode}",
        "{distribution}")``.

    Returns
    -------
    ndarray, or `out`

    Notes
    -----
    The module's docstring says where the rule comes from, and what it is called in PyTorch, Keras
    and JAX.
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


def normal(
    shape: Shape | None = None,
    mean: float = 0.0,
    std: float = 0.01,
    *,
    rng: RNG = None,
    dtype: npt.DTypeLike = np.float32,
    out: Any = None,
    shard: Shard | None = None,
) -> Any:
    """Draw weights from a normal distribution.

    Parameters
    ----------
    shape, rng, dtype, out, shard
        As in `variance_scaling`.
    mean, std : float, default 0.0 and 0.01
        Mean and standard deviation. 0.01 is the book's first choice and JAX's default; Keras has
        0.05, PyTorch 1.

    Returns
    -------
    ndarray, or `out`
    """
    return draw("normal", {"mean": mean, "std": std}, shape, rng, dtype, out, shard)


def uniform(
    shape: Shape | None = None,
    low: float = -0.05,
    high: float = 0.05,
    *,
    rng: RNG = None,
    dtype: npt.DTypeLike = np.float32,
    out: Any = None,
    shard: Shard | None = None,
) -> Any:
    """Draw weights from a uniform distribution, low <= weight < high.

    Parameters
    ----------
    shape, rng, dtype, out, shard
        As in `variance_scaling`.
    low, high : float, default -0.05 and 0.05
        The half-open interval. The defaults are Keras'; JAX has 0 to 0.01, PyTorch 0 to 1.

    Returns
    -------
    ndarray, or `out`
    """
    return draw("uniform", {"low": low, "high": high}, shape, rng, dtype, out, shard)


def constant(
    shape: Shape | None = None,
    value: float = 0.0,
    *,
    rng: RNG = None,
    dtype: npt.DTypeLike = np.float32,
    out: Any = None,
    shard: Shard | None = None,
) -> Any:
    """Fill with one value: good for biases. Weights that start equal would stay equal.

    Parameters
    ----------
    shape, dtype, out, shard
        As in `variance_scaling`.
    value : float, default 0.0
        The value.
    rng
        Not used; it is here so that all initializers are called alike.

    Returns
    -------
    ndarray, or `out`
    """
    array, _, _ = place(shape, dtype, out, shard)
    try:
        array[...] = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"value must be a number; got {value!r}") from None
    return array if out is None else out


def zeros(
    shape: Shape | None = None,
    *,
    rng: RNG = None,
    dtype: npt.DTypeLike = np.float32,
    out: Any = None,
    shard: Shard | None = None,
) -> Any:
    """Fill with zeros: `constant` with value 0."""
    return constant(shape, 0.0, rng=rng, dtype=dtype, out=out, shard=shard)


def ones(
    shape: Shape | None = None,
    *,
    rng: RNG = None,
    dtype: npt.DTypeLike = np.float32,
    out: Any = None,
    shard: Shard | None = None,
) -> Any:
    """Fill with ones: `constant` with value 1."""
    return constant(shape, 1.0, rng=rng, dtype=dtype, out=out, shard=shard)
