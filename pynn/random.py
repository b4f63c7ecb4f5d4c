"""Random numbers of which every part can be made alone.

The stream is Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1,
2, 3", SC 2011). Element i depends on the key and on i, and on nothing else: any slice, in any
order, by any number of threads, has the bits it has in the whole. `pynn.initializers` adds the
rules for weights, and shards.

NumPy's, PyTorch's and JAX's generators give other numbers for the same seed.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any, SupportsIndex, TypeAlias

import numpy as np
import numpy.typing as npt

from ._backend import functions
from ._checks import float_dtype, number, shape_tuple, shard_bounds, writable
from ._core import philox4x32

__all__ = ["key", "normal", "philox4x32", "uniform"]

Array: TypeAlias = npt.NDArray[Any]
Shape: TypeAlias = SupportsIndex | Sequence[SupportsIndex]
Shard: TypeAlias = tuple[slice, ...]
# In quotes: NumPy loads its random module when that is first asked for.
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
    """
    if isinstance(rng, np.random.BitGenerator):
        rng = np.random.Generator(rng)
    if isinstance(rng, np.random.Generator):
        return int(rng.integers(0, 2**64, dtype=np.uint64))
    if not isinstance(rng, np.random.SeedSequence):
        rng = np.random.SeedSequence(_entropy(rng))
    return int(rng.generate_state(1, np.uint64)[0])


def _entropy(rng: Any) -> int | list[int] | None:
    if rng is None:
        return None
    try:
        if isinstance(rng, bool | str | bytes):
            raise TypeError
        values = [operator.index(i) for i in rng] if np.iterable(rng) else [operator.index(rng)]
    except TypeError:
        raise TypeError(
            "rng must be None, an int, a sequence of ints, or a SeedSequence or Generator of"
            f" numpy.random; got {rng!r}"
        ) from None
    if min(values, default=0) < 0:
        raise ValueError(f"rng must not be negative; got {rng!r}")
    return values if np.iterable(rng) else values[0]


def normal(
    shape: Shape | None = None,
    loc: float = 0.0,
    scale: float = 1.0,
    *,
    rng: RNG = None,
    dtype: npt.DTypeLike = np.float32,
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
    dtype : dtype, default float32
        float32 or float64 (NumPy's generators default to float64). `out` brings its own.
    out : array, optional
        Writable float32 or float64 memory to fill in place: a NumPy array of any strides, an object
        with the buffer protocol, or a CPU tensor with DLPack (PyTorch's; of one that requires a
        gradient, the data).

    Returns
    -------
    ndarray, or `out`

    Raises
    ------
    TypeError, ValueError
        For a negative or non-finite parameter, a shape that is no shape, or an `out` that cannot be
        filled as asked.

    Notes
    -----
    Box-Muller on Philox words: ``docs/numerics.md`` and `pynn.reference` say which. The float32 and
    the float64 stream of a key are different numbers.
    """
    return draw("normal", {"loc": loc, "scale": scale}, shape, rng, dtype, out)


def uniform(
    shape: Shape | None = None,
    low: float = 0.0,
    high: float = 1.0,
    *,
    rng: RNG = None,
    dtype: npt.DTypeLike = np.float32,
    out: Any = None,
) -> Any:
    """Draw uniform random numbers, low <= value < high.

    Parameters
    ----------
    shape : int or tuple of ints, optional
        Shape of the result. Without it, that of `out`.
    low, high : float
        The half-open interval; low < high. `high` is never drawn, not even by rounding (NumPy's may
        be).
    rng, dtype, out
        As in `normal`.

    Returns
    -------
    ndarray, or `out`

    Raises
    ------
    TypeError, ValueError
        As `normal`; also unless low < high in the dtype drawn.
    """
    return draw("uniform", {"low": low, "high": high}, shape, rng, dtype, out)


def draw(
    distribution: str,
    parameters: dict[str, float],
    shape: Shape | None,
    rng: RNG,
    dtype: npt.DTypeLike,
    out: Any,
    shard: Shard | None = None,
) -> Any:
    """Fill `out`, or a new array: what normal, uniform and the initializers have in common.

    The two parameters, named as the caller's are, are loc and scale, or low and high.
    """
    array, start, strides = place(shape, dtype, out, shard)
    type_ = array.dtype.type
    with np.errstate(over="ignore"):
        values = {name: float(type_(number(name, x))) for name, x in parameters.items()}
        first, second = (number(f"{name} in {array.dtype}", x) for name, x in values.items())
        if distribution == "normal":
            number(list(parameters)[1], second, least=0)
        elif not 0 < type_(second) - type_(first) < np.inf:
            raise ValueError(f"high - low must be positive and finite; got {second} - {first}")
    functions().fill(array, distribution, key(rng), first, second, start, strides)
    return array if out is None else out


def place(
    shape: Shape | None, dtype: npt.DTypeLike, out: Any, shard: Shard | None
) -> tuple[Array, int, tuple[int, ...]]:
    """Find or make the array to fill; return it, its first element's index and index strides."""
    dtype = float_dtype("dtype", dtype)
    array = None if out is None else writable("out", out)
    if array is not None and dtype not in (np.float32, array.dtype):  # float32 may be the default
        raise TypeError(f"out must have the dtype asked for, {dtype}; got {array.dtype}")
    if shape is None and shard is not None:
        raise TypeError("shape, that of the whole, must be given with shard; got None")
    whole = shape_tuple(shape) if shape is not None or array is None else array.shape
    bounds = shard_bounds(shard, whole)
    part = tuple(stop - start for start, stop in bounds)
    if array is None:
        array = np.empty(part, dtype)
    elif array.shape != part:
        asked = "shape" if shard is None else "shard"
        raise ValueError(f"out must have the shape that {asked} gives, {part}; got {array.shape}")
    strides = tuple(math.prod(whole[axis + 1 :]) for axis in range(len(whole)))
    first = sum(start * stride for (start, _), stride in zip(bounds, strides, strict=True))
    return array, first, strides
