"""Random numbers of which every part can be made alone.

The stream is Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1,
2, 3", SC 2011). Element i depends on the key and on i, and on nothing else: any slice, in any
order, by any number of threads, has the bits it has in the whole. `pynn.initializers` adds the
rules for weights, and shards.

NumPy's, PyTorch's and JAX's generators give other numbers for the same seed.
"""

from __future__ import annotations

import functools
import math
import operator
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeAlias

import numpy as np
import numpy.typing as npt

from ._backend import functions
from ._checks import (
    NO_SEQUENCES,
    bits_of,
    check_places,
    fill_dtype,
    number,
    real,
    shape_tuple,
    shard_bounds,
    shown,
    writable,
)
from ._core import empty, fill, next_bits, philox4x32, seed_key

__all__ = ["Philox4x32", "key", "normal", "philox4x32", "truncated_normal", "uniform"]

if TYPE_CHECKING:
    from ._philox import Philox4x32
else:

    def __getattr__(
        name: str,
    ) -> object:  # NumPy loads its random module when that is first asked for
        if name == "Philox4x32":
            from ._philox import Philox4x32

            return Philox4x32
        raise AttributeError(f"module 'pynn.random' has no attribute {name!r}")


Array: TypeAlias = npt.NDArray[Any]
Shape: TypeAlias = SupportsIndex | Sequence[SupportsIndex]
Shard: TypeAlias = tuple[slice, ...]
# In quotes, so that NumPy's random module is not loaded.
Source: TypeAlias = "np.random.SeedSequence | np.random.BitGenerator | np.random.Generator"
RNG: TypeAlias = "int | np.integer[Any] | Sequence[int] | Source | None"


def key(rng: RNG = None) -> int:
    """Turn whatever stands for randomness into the 64-bit key of a stream.

    Parameters
    ----------
    rng : None, int, sequence of ints, SeedSequence, BitGenerator or Generator
        As in SPEC 7 of Scientific Python. None takes fresh entropy from the operating system. An
        int, a sequence of ints >= 0 or a `numpy.random.SeedSequence` gives the same key each time.
        A `numpy.random.Generator` (or the BitGenerator under one) is advanced by one draw, so each
        call gives another key.

    Returns
    -------
    int
        0 <= key < 2**64.

    Raises
    ------
    TypeError
        If rng is anything else.
    ValueError
        If an int is negative.

    Examples
    --------
    >>> import pynn
    >>> pynn.random.key(0) == pynn.random.key([0])
    True
    >>> pynn.random.key(1)
    7434755675892716031
    """
    if type(rng) is int and 0 <= rng < 2**64:
        return seed_key(rng)
    if rng is None:
        return int.from_bytes(os.urandom(8), "little")
    source: Any = rng.bit_generator if isinstance(rng, np.random.Generator) else rng
    if isinstance(source, np.random.BitGenerator):
        with source.lock:
            return next_bits(source.capsule)
    if not isinstance(source, np.random.SeedSequence):
        source = _entropy(source)
        if isinstance(source, int) and source < 2**64:
            return seed_key(source)
        source = np.random.SeedSequence(source)
    return int(source.generate_state(1, np.uint64)[0])


def split(stream: int, number: int) -> int:
    """Return the key of another stream that belongs to a key."""
    counter = np.array([number, 0, 0, 0xFFFFFFFF], np.uint32)  # of no element's block
    words = philox4x32(counter, np.array([stream & 0xFFFFFFFF, stream >> 32], np.uint32))
    return int(words[0]) | int(words[1]) << 32


def _entropy(rng: Any, name: str = "rng") -> int | list[int] | None:
    if rng is None:
        return None
    try:
        if isinstance(rng, (bool, *NO_SEQUENCES)):
            raise TypeError
        if np.iterable(rng) and not hasattr(rng, "__len__"):  # an iterator would be used up
            raise TypeError
        values = [operator.index(i) for i in rng] if np.iterable(rng) else [operator.index(rng)]
    except TypeError:
        raise TypeError(
            f"{name} must be None, an int, a sequence of ints, or a SeedSequence or Generator of"
            f" numpy.random; got {shown(rng)}"
        ) from None
    if min(values, default=0) < 0:
        raise ValueError(f"{name} must not be negative; got {shown(rng)}")
    return values if np.iterable(rng) else values[0]


def normal(
    shape: Shape | None = None,
    loc: float = 0.0,
    scale: float = 1.0,
    *,
    rng: RNG = None,
    dtype: npt.DTypeLike | None = None,
    out: Any = None,
) -> Any:
    """Draw normal random numbers.

    Parameters
    ----------
    shape : int or tuple of ints, optional
        Shape of the result. Without it, that of `out`.
    loc, scale : float
        Mean and standard deviation, the latter >= 0.
    rng : optional
        Seed, or generator to take one from: see `key`.
    dtype : dtype, optional
        That of `out` or, without it, float32 (NumPy's generators default to float64). float32 or
        float64, or float16 or bfloat16 (of the package ml_dtypes): the float32 element rounded
        once, to nearest even.
    out : array, optional
        Writable memory of such a dtype to fill in place: a NumPy array of any strides, an object
        with the buffer protocol, or a CPU tensor with DLPack, as PyTorch's. That is filled like its
        ``.data``: autograd's version counter does not count it, so fill before a graph uses it.

    Returns
    -------
    ndarray, or `out`

    Raises
    ------
    TypeError, ValueError
        For a negative scale, a parameter that is not finite in the dtype, a shape that is no shape, or
        an `out` that cannot be filled as asked.

    Notes
    -----
    Box-Muller on Philox words: ``docs/numerics.md`` and `pynn.reference` say which. The float32 and
    the float64 stream of a key are different numbers.

    Examples
    --------
    >>> import pynn
    >>> x = pynn.random.normal(100_000, 5, 2, rng=0)
    >>> round(float(x.mean()), 1), round(float(x.std()), 1)
    (5.0, 2.0)
    """
    return draw("normal", {"loc": loc, "scale": scale}, shape, rng, dtype, out)


def uniform(
    shape: Shape | None = None,
    low: float = 0.0,
    high: float = 1.0,
    *,
    rng: RNG = None,
    dtype: npt.DTypeLike | None = None,
    out: Any = None,
) -> Any:
    """Draw uniform random numbers, low <= value < high.

    Parameters
    ----------
    shape : int or tuple of ints, optional
        Shape of the result. Without it, that of `out`.
    low, high : float
        The half-open interval; low < high. `high` is never drawn in float32 and float64, not even by
        rounding (NumPy's may be). In float16 and bfloat16 rounding may reach it.
    rng, dtype, out
        As in `normal`.

    Returns
    -------
    ndarray, or `out`

    Raises
    ------
    TypeError, ValueError
        As `normal`; also unless low < high in the dtype drawn.

    Examples
    --------
    >>> import pynn
    >>> x = pynn.random.uniform(10_000, -1, 1, rng=0)
    >>> bool(x.min() >= -1), bool(x.max() < 1), round(float(x.mean()), 2)
    (True, True, 0.0)
    """
    return draw("uniform", {"low": low, "high": high}, shape, rng, dtype, out)


def truncated_normal(
    shape: Shape | None = None,
    loc: float = 0.0,
    scale: float = 1.0,
    lower: float = -2.0,
    upper: float = 2.0,
    *,
    rng: RNG = None,
    dtype: npt.DTypeLike | None = None,
    out: Any = None,
) -> Any:
    """Draw from a normal distribution cut off at two bounds.

    Parameters
    ----------
    shape : int or tuple of ints, optional
        Shape of the result. Without it, that of `out`.
    loc, scale : float
        Mean and standard deviation of the normal distribution, the latter >= 0. Those of the
        result differ: with bounds -2 and 2 its standard deviation is 0.8796 `scale`.
    lower, upper : float, default -2.0 and 2.0
        The bounds, in standard deviations from `loc`; either may be infinite. Between them lies at
        least 2**-64 of the normal distribution.
    rng, dtype, out
        As in `normal`.

    Returns
    -------
    ndarray, or `out`
        Values from ``loc + lower * scale`` to ``loc + upper * scale``, rounded.

    Raises
    ------
    TypeError, ValueError
        As `normal`; also unless lower < upper.

    Notes
    -----
    By inversion, one word of the stream an element (Wichura's way, AS 241, 1988, with rational
    approximations of pynn's own): ``docs/numerics.md``.

    `jax.random.truncated_normal` has the same bounds, without loc and scale. Keras'
    TruncatedNormal has -2 and 2 always. PyTorch's ``trunc_normal_(mean, std, a, b)`` has bounds in
    the units of the result: lower = (a - mean) / std, upper = (b - mean) / std. SciPy's
    ``truncnorm(lower, upper, loc, scale)`` has them in standard deviations, as here.

    Examples
    --------
    >>> import pynn
    >>> x = pynn.random.truncated_normal(10_000, rng=0)
    >>> round(float(abs(x).max()), 2)
    2.0
    """
    parameters = {"loc": loc, "scale": scale, "lower": lower, "upper": upper}
    return draw("truncated_normal", parameters, shape, rng, dtype, out)


# The array to be filled (of bfloat16, the bits); the shape of the whole, of which it may be a shard; the index of its first
# element there; the strides of the index along its axes, or None where it is the whole; what the caller is to return.
Place: TypeAlias = tuple[Array, tuple[int, ...], int, tuple[int, ...] | None, Any]


def draw(
    distribution: str,
    parameters: dict[str, float],
    shape: Shape | None,
    rng: RNG,
    dtype: npt.DTypeLike | None,
    out: Any,
    shard: Shard | None = None,
) -> Any:
    """Fill `out`, or a new array: what the distributions and the initializers have in common.

    The parameters, named as the caller's are, come in the order of the distribution's row.
    """
    return draw_into(place(shape, dtype, out, shard), distribution, parameters, rng)


def draw_into(where: Place, distribution: str, parameters: dict[str, float], rng: RNG) -> Any:
    """Fill a place; the parameters are as in `draw`."""
    values = checked(where, distribution, parameters)
    return fill_place(where, distribution, values, key(rng))


def checked(
    where: Place,
    distribution: str,
    parameters: dict[str, float],
    given: dict[str, float] | None = None,
) -> list[float]:
    """Return the parameters as numbers that the distribution can have in the dtype of a place.

    Errors about the bounds show the parameters as they were given, if not like this.
    """
    dtype = where[0].dtype
    (name1, value1), (name2, value2), *bounds = parameters.items()
    least = -math.inf if distribution == "uniform" else 0.0
    values = [number(name1, value1, dtype=dtype), number(name2, value2, least, dtype=dtype)]
    if distribution == "uniform":
        if not values[0] < values[1]:
            raise ValueError(
                f"{name1} must be less than {name2}; got {shown(value1)} and {shown(value2)}"
            )
        drawn = np.dtype(np.float32) if dtype.itemsize == 2 else dtype
        number(f"{name2} - {name1}", values[1] - values[0], dtype=drawn)
    if bounds:
        values += [real(name, value) for name, value in bounds]
        given = given or parameters
        (_, _, (lower, least_bound), (upper, most_bound)) = given.items()
        if not real(lower, least_bound) < real(upper, most_bound):
            raise ValueError(
                f"{lower} must be less than {upper}; got {shown(least_bound)} and {shown(most_bound)}"
            )
        try:
            _bounds_leave_enough(dtype, values[2], values[3])
        except ValueError:
            got = ", ".join(f"{name} {shown(value)}" for name, value in given.items())
            raise ValueError(
                f"{lower} and {upper} must have 2**-64 of the distribution or more between them;"
                f" got {got}"
            ) from None
    return values


@functools.lru_cache
def _bounds_leave_enough(dtype: np.dtype[Any], lower: float, upper: float) -> None:
    """Raise a ValueError if a truncated normal distribution cannot have these bounds, before a generator is asked."""
    fill(np.empty(0, dtype), "truncated_normal", 0, 0.0, 1.0, lower, upper)


def fill_place(where: Place, distribution: str, values: list[float], stream: int) -> Any:
    """Fill a place from the stream of a key."""
    array, _, first, strides, result = where
    if strides is None:
        functions().fill(array, distribution, stream, *values)
    else:
        functions().fill(array, distribution, stream, *values, start=first, index_strides=strides)
    return result


def place(shape: Shape | None, dtype: npt.DTypeLike | None, out: Any, shard: Shard | None) -> Place:
    """Find or make the array to fill."""
    array = None if out is None else writable("out", out)
    asked = None if dtype is None else fill_dtype("dtype", dtype)
    if array is not None:
        if not array.flags.forc:
            check_places("out", array)
        if asked is not None:
            kind = "bfloat16" if array.dtype == np.uint16 else array.dtype.name
            if asked.name != kind:
                raise TypeError(f"out must have the dtype asked for, {asked}; got {kind}")
        if shape is None and shard is None:
            return array, array.shape, 0, None, out
    if shape is None and shard is not None:
        raise TypeError("shape, that of the whole, must be given with shard; got None")
    whole = shape_tuple(shape)
    if math.prod(whole) > 2**64:
        raise ValueError(f"shape is too large, at most 2**64 elements in all; got {shown(whole)}")
    part, first, strides = whole, 0, None
    if shard is not None:
        bounds = shard_bounds(shard, whole)
        part = tuple(stop - start for start, stop in bounds)
        # the stride of an axis along which nothing steps may be 2**64 and more
        moves = 0 not in part
        strides = tuple(
            math.prod(whole[axis + 1 :]) if n > 1 and moves else 0 for axis, n in enumerate(part)
        )
        for axis, (start, _) in enumerate(bounds):
            first += start * math.prod(whole[axis + 1 :]) * moves
    if array is None:
        try:
            out = empty(part, np.float32 if asked is None else asked)
        except (ValueError, OverflowError) as error:  # too many axes, or bytes for an address
            raise ValueError(
                f"shape must be one that NumPy can make; got {shown(part)}: {error}"
            ) from None
        array = bits_of(out)
    elif array.shape != part:
        source = "shape" if shard is None else "shard"
        raise ValueError(f"out must have the shape that {source} gives, {part}; got {array.shape}")
    return array, whole, first, strides, out
